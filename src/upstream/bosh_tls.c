/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS connections. Contexts are made at configuration time; all else is called on the loop thread, by way of
 * bosh_conn_ops_t or by bosh_secure.c.
 *
 * Invariants: what write() has reported as written is never asked for again, although OpenSSL may want the
 * same bytes a second time: they are kept here. A failure that came to light behind bytes already read is told
 * at the next read, and pending() says that there is one. A session is kept only of a handshake that succeeded,
 * so that whoever resumes it has been verified for this domain.
 */
#include "bosh_tls.h"

#include <apr_file_info.h>
#include <apr_strings.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#define SESSION_SECONDS 3600
#define WHY_MAX         320
#define RECORD_MAX      16384 /* the most that a record carries */

struct bosh_tls_t {
    SSL_CTX *ctx;
    const char *domain;
    SSL_SESSION *session; /* of a handshake with that domain */
    char why[WHY_MAX];
};

/* c->baton */
typedef struct io_t {
    SSL *ssl;
    bosh_tls_t *tls;
    char *kept; /* taken from the caller, not yet by the socket */
    size_t kept_n;
    apr_status_t failed; /* to be told at the next read */
    bool crossed;        /* reading waits for room to write */
    char domain[];       /* that the certificate is to name */
} io_t;

/* ---- contexts ---- */

/* The reason that OpenSSL gives, and an empty queue of errors. */
static const char *last_error(void)
{
    unsigned long e = ERR_peek_last_error();
    const char *text =
        ERR_SYSTEM_ERROR(e) ? strerror(ERR_GET_REASON(e)) : ERR_reason_error_string(e);

    ERR_clear_error();
    return text != NULL ? text : "unknown error";
}

/* Nobody is there to be asked for a passphrase. */
static int no_passphrase(char *buf, int size, int writing, void *data)
{
    (void)buf;
    (void)size;
    (void)writing;
    (void)data;
    return 0;
}

static const char *load_trust(SSL_CTX *ctx, const char *ca, apr_pool_t *p)
{
    apr_finfo_t info;
    bool ok;

    if (ca == NULL) {
        return SSL_CTX_set_default_verify_paths(ctx) == 1
                   ? NULL
                   : apr_psprintf(p, "the system's certificates: %s", last_error());
    }
    if (apr_stat(&info, ca, APR_FINFO_TYPE, p) != APR_SUCCESS) {
        return apr_psprintf(p, "ca=%s: there is no such file or directory", ca);
    }
    ok = info.filetype == APR_DIR ? SSL_CTX_load_verify_dir(ctx, ca) == 1
                                  : SSL_CTX_load_verify_file(ctx, ca) == 1;
    return ok ? NULL
              : apr_psprintf(p, "ca=%s: not to be read as certificates in PEM: %s", ca,
                             last_error());
}

static const char *load_own(SSL_CTX *ctx, const bosh_tls_options_t *opt, apr_pool_t *p)
{
    const char *key = opt->key != NULL ? opt->key : opt->cert;

    if (opt->cert == NULL) {
        return NULL;
    }
    if (SSL_CTX_use_certificate_chain_file(ctx, opt->cert) != 1) {
        return apr_psprintf(p, "cert=%s: not to be read as a certificate in PEM: %s", opt->cert,
                            last_error());
    }
    if (SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1) {
        return apr_psprintf(
            p,
            "key=%s: not to be read as a key in PEM without a passphrase, that fits "
            "cert=%s: %s",
            key, opt->cert, last_error());
    }
    return NULL;
}

static io_t *io_of(const bosh_conn_t *c)
{
    return c->baton;
}

/* A certificate that the chain vouches for must be one for the domain, too. In the middle of the handshake,
 * so that the other side sees an alert, and nothing of ours but that. */
static int verify(X509_STORE_CTX *x, void *arg)
{
    const SSL *ssl = X509_STORE_CTX_get_ex_data(x, SSL_get_ex_data_X509_STORE_CTX_idx());
    const io_t *io = SSL_get_app_data(ssl);
    bosh_tls_t *tls = io->tls;
    int ok = X509_verify_cert(x);

    (void)arg;
    if (ok == 1 && !bosh_tls_names(X509_STORE_CTX_get0_cert(x), io->domain)) {
        char names[WHY_MAX / 2];
        bosh_tls_list_names(X509_STORE_CTX_get0_cert(x), names, sizeof(names));
        snprintf(tls->why, sizeof(tls->why), "the certificate is not for %.80s but for %s",
                 io->domain, names);
        X509_STORE_CTX_set_error(x, X509_V_ERR_HOSTNAME_MISMATCH);
        ok = 0;
    }
    return ok;
}

/* A session to resume; TLS 1.3 brings it after the handshake. Returns 1: it is ours to free. */
static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    const io_t *io = SSL_get_app_data(ssl);
    bosh_tls_t *tls = io->tls;

    if (strcmp(io->domain, tls->domain) != 0) {
        return 0;
    }
    SSL_SESSION_free(tls->session);
    tls->session = session;
    return 1;
}

static apr_status_t free_context(void *ctx)
{
    SSL_CTX_free(ctx);
    return APR_SUCCESS;
}

const char *bosh_tls_context(SSL_CTX **out, const bosh_tls_options_t *opt, apr_pool_t *p)
{
    SSL_CTX *ctx;
    const char *err;

    ERR_clear_error();
    ctx = SSL_CTX_new(TLS_client_method());
    if (ctx == NULL || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1) {
        SSL_CTX_free(ctx);
        return apr_psprintf(p, "OpenSSL: %s", last_error());
    }
    apr_pool_cleanup_register(p, ctx, free_context, apr_pool_cleanup_null);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                              SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_default_passwd_cb(ctx, no_passphrase);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_set_timeout(ctx, SESSION_SECONDS);
    SSL_CTX_sess_set_new_cb(ctx, keep_session);
    if (opt->verify) {
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
        SSL_CTX_set_cert_verify_callback(ctx, verify, NULL);
    } else {
        SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
    }
    err = opt->verify ? load_trust(ctx, opt->ca, p) : NULL;
    if (err == NULL) {
        err = load_own(ctx, opt, p);
    }
    ERR_clear_error();
    *out = ctx;
    return err;
}

static apr_status_t free_session(void *baton)
{
    bosh_tls_t *tls = baton;

    SSL_SESSION_free(tls->session);
    tls->session = NULL;
    return APR_SUCCESS;
}

bosh_tls_t *bosh_tls_create(SSL_CTX *ctx, const char *domain, apr_pool_t *p)
{
    bosh_tls_t *tls = apr_pcalloc(p, sizeof(*tls));

    tls->ctx = ctx;
    tls->domain = domain;
    apr_pool_cleanup_register(p, tls, free_session, apr_pool_cleanup_null);
    return tls;
}

/* ---- the handshake ---- */

/* Such a domain is not for SNI. */
static bool is_address(const char *domain)
{
    ASN1_OCTET_STRING *address = a2i_IPADDRESS(domain);

    ASN1_OCTET_STRING_free(address);
    return address != NULL;
}

static bool prepare(const io_t *io, int fd, bool direct)
{
    static const unsigned char alpn[] = "\x0bxmpp-client";
    SSL_SESSION *session = strcmp(io->domain, io->tls->domain) == 0 ? io->tls->session : NULL;
    SSL *ssl = io->ssl;

    if (ssl == NULL || SSL_set_fd(ssl, fd) != 1) {
        return false;
    }
    SSL_set_connect_state(ssl);
    /* The domain, never the host that a line names (U-022). */
    if (!is_address(io->domain) && SSL_set_tlsext_host_name(ssl, io->domain) != 1) {
        return false;
    }
    if (direct && SSL_set_alpn_protos(ssl, alpn, sizeof(alpn) - 1) != 0) {
        return false;
    }
    /* An old or refused one costs a full handshake, nothing more. */
    return session == NULL || SSL_set_session(ssl, session) == 1;
}

bool bosh_tls_start(bosh_conn_t *c, bosh_tls_t *tls, const char *domain, bool direct)
{
    size_t n = strlen(domain) + 1;
    io_t *io = calloc(1, sizeof(*io) + n);

    ERR_clear_error();
    if (io == NULL) {
        return false;
    }
    io->tls = tls;
    memcpy(io->domain, domain, n);
    io->ssl = SSL_new(tls->ctx);
    if (!prepare(io, c->fd, direct)) {
        SSL_free(io->ssl);
        free(io);
        ERR_clear_error();
        return false;
    }
    SSL_set_app_data(io->ssl, io);
    c->baton = io;
    c->ops = &bosh_conn_tls;
    c->state = BOSH_CONN_CONNECTING;
    return true;
}

/* What an administrator should know of a handshake that failed with SSL_get_error() == err. */
static void note_reason(io_t *io, int err, int system_error)
{
    bosh_tls_t *tls = io->tls;
    long verdict = SSL_get_verify_result(io->ssl);
    unsigned long e = ERR_peek_error();

    if (SSL_get_verify_mode(io->ssl) == SSL_VERIFY_NONE) {
        verdict = X509_V_OK;
    }
    if (verdict == X509_V_ERR_HOSTNAME_MISMATCH) {
        return; /* verify() has said it */
    }
    if (verdict != X509_V_OK) {
        snprintf(tls->why, sizeof(tls->why), "the certificate is refused: %s",
                 X509_verify_cert_error_string(verdict));
    } else if (err == SSL_ERROR_SYSCALL && system_error != 0) {
        snprintf(tls->why, sizeof(tls->why), "%s", strerror(system_error));
    } else if (err == SSL_ERROR_SYSCALL || err == SSL_ERROR_ZERO_RETURN ||
               ERR_GET_REASON(e) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
        snprintf(tls->why, sizeof(tls->why), "the server hung up in the middle of the handshake");
    } else {
        const char *reason = ERR_reason_error_string(e);
        snprintf(tls->why, sizeof(tls->why), "%s",
                 reason != NULL ? reason : "the handshake failed");
    }
}

static apr_status_t tls_establish(bosh_conn_t *c)
{
    io_t *io = io_of(c);
    int r, err, system_error;

    ERR_clear_error();
    errno = 0;
    r = SSL_do_handshake(io->ssl);
    system_error = errno;
    if (r == 1) {
        c->state = BOSH_CONN_UP;
        return APR_SUCCESS;
    }
    err = SSL_get_error(io->ssl, r);
    if (err == SSL_ERROR_WANT_READ || err == SSL_ERROR_WANT_WRITE) {
        return APR_EAGAIN;
    }
    note_reason(io, err, system_error);
    ERR_clear_error();
    /* Whatever the session had to do with it, the next attempt is better off without. */
    (void)free_session(io->tls);
    return APR_EGENERAL;
}

const char *bosh_tls_reason(const bosh_conn_t *c)
{
    return io_of(c)->tls->why;
}

bool bosh_tls_resumed(const bosh_conn_t *c)
{
    return SSL_session_reused(io_of(c)->ssl) == 1;
}

const char *bosh_tls_version(const bosh_conn_t *c)
{
    return SSL_get_version(io_of(c)->ssl);
}

/* ---- reading and writing ---- */

/* What a failed call comes to. */
static apr_status_t status_of(const io_t *io, int r, int system_error)
{
    int err = SSL_get_error(io->ssl, r);
    unsigned long e = ERR_peek_error();

    ERR_clear_error();
    switch (err) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return APR_EAGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return APR_EOF;
    case SSL_ERROR_SYSCALL:
        return system_error != 0 ? system_error : APR_EOF;
    default:
        /* Whether the stream was complete, its own end tells. */
        return ERR_GET_REASON(e) == SSL_R_UNEXPECTED_EOF_WHILE_READING ? APR_EOF : APR_EGENERAL;
    }
}

static apr_status_t read_into(io_t *io, const struct iovec *iov, size_t *got)
{
    char *p = iov->iov_base;
    size_t n = 0, have = 0;

    while (have < iov->iov_len) {
        int r, system_error;
        ERR_clear_error();
        errno = 0;
        r = SSL_read_ex(io->ssl, p + have, iov->iov_len - have, &n);
        system_error = errno;
        if (r != 1) {
            io->crossed = SSL_want_write(io->ssl);
            *got += have;
            return status_of(io, r, system_error);
        }
        have += n;
    }
    *got += have;
    return APR_SUCCESS;
}

/* Until it is full or nothing is left, as readv() does. */
static apr_status_t tls_readv(bosh_conn_t *c, const struct iovec *iov, int n, size_t *got)
{
    io_t *io = io_of(c);
    apr_status_t rv = io->failed;

    *got = 0;
    io->crossed = false;
    for (int i = 0; i < n && rv == APR_SUCCESS; i++) {
        rv = read_into(io, &iov[i], got);
    }
    if (*got == 0) {
        return rv;
    }
    if (rv != APR_SUCCESS && !APR_STATUS_IS_EAGAIN(rv)) {
        io->failed = rv;
    }
    return APR_SUCCESS;
}

/* EAGAIN: the bytes are to be offered again, as they are. */
static apr_status_t write_record(io_t *io, const char *p, size_t n, size_t *put)
{
    int r, system_error;

    ERR_clear_error();
    errno = 0;
    r = SSL_write_ex(io->ssl, p, n, put);
    system_error = errno;
    return r == 1 ? APR_SUCCESS : status_of(io, r, system_error);
}

static apr_status_t tls_flush(bosh_conn_t *c)
{
    io_t *io = io_of(c);
    size_t put = 0;
    apr_status_t rv;

    while (io->kept_n > 0) {
        rv = write_record(io, io->kept, io->kept_n, &put);
        if (rv != APR_SUCCESS) {
            return rv;
        }
        io->kept_n -= put;
        memmove(io->kept, io->kept + put, io->kept_n);
    }
    free(io->kept);
    io->kept = NULL;
    return APR_SUCCESS;
}

static apr_status_t tls_write(bosh_conn_t *c, const char *p, size_t n, size_t *put)
{
    io_t *io = io_of(c);
    apr_status_t rv = tls_flush(c);

    *put = 0;
    if (rv != APR_SUCCESS) {
        return rv;
    }
    n = n < RECORD_MAX ? n : RECORD_MAX;
    rv = write_record(io, p, n, put);
    if (!APR_STATUS_IS_EAGAIN(rv)) {
        return rv;
    }
    io->kept = malloc(n);
    if (io->kept == NULL) {
        return APR_ENOMEM;
    }
    memcpy(io->kept, p, n);
    io->kept_n = *put = n;
    return APR_SUCCESS;
}

static unsigned tls_wants(const bosh_conn_t *c, unsigned intent)
{
    const io_t *io = io_of(c);

    if (c->state == BOSH_CONN_CONNECTING) {
        return SSL_want_write(io->ssl) ? BOSH_CONN_WRITE : BOSH_CONN_READ;
    }
    if (io->kept_n > 0 || (io->crossed && (intent & BOSH_CONN_READ))) {
        intent |= BOSH_CONN_WRITE;
    }
    return intent;
}

static size_t tls_pending(const bosh_conn_t *c)
{
    const io_t *io = io_of(c);
    int n = SSL_pending(io->ssl);

    return n > 0 ? (size_t)n : io->failed != APR_SUCCESS;
}

static void tls_finish(bosh_conn_t *c)
{
    io_t *io = io_of(c);

    ERR_clear_error();
    if (c->state == BOSH_CONN_UP) {
        if (io->kept_n == 0 && (io->failed == APR_SUCCESS || APR_STATUS_IS_EOF(io->failed))) {
            (void)SSL_shutdown(io->ssl); /* close_notify, if there is room for it */
        }
        /* Else OpenSSL would not have its session used again. */
        SSL_set_shutdown(io->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
        ERR_clear_error();
    }
    SSL_free(io->ssl);
    free(io->kept);
    free(io);
    c->baton = NULL;
}

const bosh_conn_ops_t bosh_conn_tls = {"TLS",     tls_establish, tls_readv,   tls_write,
                                       tls_flush, tls_wants,     tls_pending, tls_finish};
