/* SPDX-License-Identifier: Apache-2.0 */
/* Names in certificates, and TLS on a connection against a server of this process, byte by byte if need be. */
#include <check.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <apr_general.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "bosh_tls.h"

static EVP_PKEY *key;
static apr_pool_t *pool;

/* A self-signed certificate with this CN and subjectAltName (NULL: none). */
static X509 *make(const char *cn, const char *names)
{
    X509 *x = X509_new();
    X509_NAME *subject = X509_get_subject_name(x);

    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), -60);
    X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)cn, -1, -1, 0);
    X509_set_issuer_name(x, subject);
    X509_set_pubkey(x, key);
    if (names != NULL) {
        X509V3_CTX ctx;
        X509_EXTENSION *ext;
        X509V3_set_ctx(&ctx, x, x, NULL, NULL, 0);
        ext = X509V3_EXT_conf_nid(NULL, &ctx, NID_subject_alt_name, names);
        ck_assert_ptr_nonnull(ext);
        X509_add_ext(x, ext, -1);
        X509_EXTENSION_free(ext);
    }
    ck_assert_int_gt(X509_sign(x, key, EVP_sha256()), 0);
    return x;
}

#define SRV  "otherName:1.3.6.1.5.5.7.8.7;IA5STRING:"
#define XMPP "otherName:1.3.6.1.5.5.7.8.5;UTF8:"

static const struct {
    const char *names, *domain;
    bool good;
} cases[] = {
    {"DNS:example.com", "example.com", true},
    {"DNS:EXAMPLE.com", "example.com", true},
    {"DNS:a.example,DNS:example.com", "example.com", true},
    {"DNS:*.example.com", "chat.example.com", true},
    {"DNS:*.example.com", "example.com", false},
    {"DNS:*.example.com", "a.chat.example.com", false},
    {"DNS:c*.example.com", "chat.example.com", false},
    {"DNS:*t.example.com", "chat.example.com", false},
    {"DNS:chat.*.com", "chat.example.com", false},
    {"DNS:*.com", "example.com", false},
    {"DNS:*", "example", false},
    {"DNS:example.com.evil.example", "example.com", false},
    {"DNS:evilexample.com", "example.com", false},
    {"DNS:example.co", "example.com", false},
    {"email:alice@example.com", "example.com", false},
    {"URI:xmpp:example.com", "example.com", false},
    {NULL, "example.com", false}, /* the CN says so, and does not count */
    {"IP:192.0.2.1", "192.0.2.1", true},
    {"IP:192.0.2.1", "192.0.2.2", false},
    {"DNS:192.0.2.1", "example.com", false},
    {SRV "_xmpp-client.example.com", "example.com", true},
    {SRV "_XMPP-Client.Example.COM", "example.com", true},
    {SRV "_xmpp-server.example.com", "example.com", false},
    {SRV "example.com", "example.com", false},
    {SRV "_xmpp-client.example.com.evil", "example.com", false},
    {SRV "_xmpp-client.a.example.com", "example.com", false},
    {"otherName:1.3.6.1.5.5.7.8.7;UTF8:_xmpp-client.example.com", "example.com", false},
    {XMPP "example.com", "example.com", true},
    {XMPP "alice@example.com", "example.com", false},
    {XMPP "b\xfc"
          "cher.example", /* the tool's notation is Latin-1 */
     "xn--bcher-kva.example", true},
    {XMPP "xn--bcher-kva.example", "xn--bcher-kva.example", true},
    {"DNS:xn--bcher-kva.example", "xn--bcher-kva.example", true},
    {"otherName:1.2.3.4;UTF8:example.com", "example.com", false},
    {"DNS:other.example," XMPP "example.com", "example.com", true},
    {"DNS:example.com", "", false},
    {"DNS:www.example.com", ".example.com", false},
};

/* U-043 */
START_TEST(names)
{
    X509 *x = make("example.com", cases[_i].names);

    ck_assert_msg(bosh_tls_names(x, cases[_i].domain) == cases[_i].good, "%s for %s",
                  cases[_i].names != NULL ? cases[_i].names : "nothing", cases[_i].domain);
    X509_free(x);
}
END_TEST

START_TEST(a_name_with_a_nul)
{
    static const char text[] = "_xmpp-client.example.com\0.evil.example";
    X509 *x = make("x", NULL);
    GENERAL_NAMES *all = sk_GENERAL_NAME_new_null();
    GENERAL_NAME *gen = GENERAL_NAME_new();
    ASN1_IA5STRING *str = ASN1_IA5STRING_new();
    ASN1_TYPE *value = ASN1_TYPE_new();

    ASN1_STRING_set(str, text, sizeof(text) - 1);
    ASN1_TYPE_set(value, V_ASN1_IA5STRING, str);
    GENERAL_NAME_set0_othername(gen, OBJ_txt2obj("1.3.6.1.5.5.7.8.7", 1), value);
    sk_GENERAL_NAME_push(all, gen);
    X509_add1_ext_i2d(x, NID_subject_alt_name, all, 0, 0);
    GENERAL_NAMES_free(all);
    ck_assert(!bosh_tls_names(x, "example.com"));
    X509_free(x);
}
END_TEST

START_TEST(listing)
{
    X509 *x = make("cn", "DNS:a.example,DNS:*.b.example," SRV "_xmpp-client.c d.example");
    char text[200], small[12];

    bosh_tls_list_names(x, text, sizeof(text));
    ck_assert_str_eq(text, "a.example, *.b.example, _xmpp-client.c?d.example");
    bosh_tls_list_names(x, small, sizeof(small));
    ck_assert_uint_lt(strlen(small), sizeof(small));
    X509_free(x);
    x = make("cn", NULL);
    bosh_tls_list_names(x, text, sizeof(text));
    ck_assert_str_eq(text, "no name at all");
    X509_free(x);
}
END_TEST

/* ---- a connection ---- */

typedef struct pair_t {
    bosh_sockets_t *home;
    bosh_conn_t c;
    bosh_tls_t *tls;
    SSL_CTX *server_ctx;
    SSL *server;
    int fd;
} pair_t;

static void connect_pair(pair_t *p)
{
    int sv[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sv), 0);
    ck_assert_int_eq(bosh_conn_adopt(&p->c, p->home, sv[0], AF_UNIX, BOSH_CONN_UP), APR_SUCCESS);
    ck_assert(bosh_tls_start(&p->c, p->tls, "example.com", true));
    ck_assert(bosh_tls_is_on(&p->c));
    ck_assert_int_eq(p->c.state, BOSH_CONN_CONNECTING);
    p->fd = sv[1];
    p->server = SSL_new(p->server_ctx);
    SSL_set_fd(p->server, p->fd);
    SSL_set_accept_state(p->server);
}

static void shake_hands(pair_t *p)
{
    bool done = false;

    for (int i = 0; i < 20 && (!done || p->c.state != BOSH_CONN_UP); i++) {
        apr_status_t rv = p->c.state == BOSH_CONN_UP ? APR_SUCCESS : p->c.ops->establish(&p->c);
        ck_assert_msg(rv == APR_SUCCESS || APR_STATUS_IS_EAGAIN(rv), "%s", bosh_tls_reason(&p->c));
        done = SSL_do_handshake(p->server) == 1;
    }
    ck_assert(done);
    ck_assert_int_eq(p->c.state, BOSH_CONN_UP);
}

static void open_pair(pair_t *p)
{
    bosh_tls_options_t any = {.verify = false};
    X509 *x = make("x", NULL);
    SSL_CTX *ctx;

    p->home = bosh_sockets_create();
    ck_assert_ptr_null(bosh_tls_context(&ctx, &any, pool));
    p->tls = bosh_tls_create(ctx, "example.com", pool);
    p->server_ctx = SSL_CTX_new(TLS_server_method());
    SSL_CTX_set_mode(p->server_ctx, SSL_MODE_ENABLE_PARTIAL_WRITE);
    ck_assert_int_eq(SSL_CTX_use_certificate(p->server_ctx, x), 1);
    ck_assert_int_eq(SSL_CTX_use_PrivateKey(p->server_ctx, key), 1);
    X509_free(x);
    connect_pair(p);
    shake_hands(p);
}

static void close_server(pair_t *p)
{
    SSL_free(p->server);
    close(p->fd);
}

static void close_pair(pair_t *p)
{
    bosh_conn_close(&p->c);
    close_server(p);
    SSL_CTX_free(p->server_ctx);
    bosh_sockets_destroy(p->home);
}

/* Reads all there is, into pieces of this size. */
static size_t read_all(pair_t *p, char *dst, size_t size, size_t piece, apr_status_t *rv)
{
    size_t have = 0, got;

    do {
        struct iovec iov[2] = {{dst + have, piece}, {dst + have + piece, piece}};
        ck_assert_uint_le(have + 2 * piece, size);
        *rv = p->c.ops->readv(&p->c, iov, 2, &got);
        have += got;
    } while (*rv == APR_SUCCESS);
    return have;
}

START_TEST(pieces_of_any_size)
{
    static char sent[40000], seen[100000];
    static const size_t sizes[] = {1, 7, 1000, 16384, 20000};
    pair_t p;

    for (size_t i = 0; i < sizeof(sent); i++) {
        sent[i] = (char)('a' + i % 26);
    }
    open_pair(&p);
    for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
        size_t n = sizes[k] == 1 ? 300 : sizeof(sent), have = 0;
        apr_status_t rv;
        for (size_t at = 0; at < n;) {
            int r = SSL_write(p.server, sent + at, (int)(n - at));
            ck_assert_int_gt(r, 0);
            at += (size_t)r;
        }
        have = read_all(&p, seen, sizeof(seen), sizes[k], &rv);
        ck_assert(APR_STATUS_IS_EAGAIN(rv));
        ck_assert_uint_eq(have, n);
        ck_assert_int_eq(memcmp(sent, seen, n), 0);
    }
    close_pair(&p);
}
END_TEST

/* What OpenSSL holds back poll does not tell about. */
START_TEST(pending)
{
    char text[100] = {0};
    struct iovec iov = {text, 10};
    size_t got;
    pair_t p;

    open_pair(&p);
    ck_assert_int_eq(SSL_write(p.server, text, 100), 100);
    ck_assert_int_eq(p.c.ops->readv(&p.c, &iov, 1, &got), APR_SUCCESS);
    ck_assert_uint_eq(got, 10);
    ck_assert_uint_eq(p.c.ops->pending(&p.c), 90);
    iov.iov_len = 100;
    ck_assert_int_eq(p.c.ops->readv(&p.c, &iov, 1, &got), APR_SUCCESS);
    ck_assert_uint_eq(got, 90);
    ck_assert_uint_eq(p.c.ops->pending(&p.c), 0);
    close_pair(&p);
}
END_TEST

/* Bytes and an end behind them: the end is not forgotten when the descriptor has nothing to say any more. */
START_TEST(an_end_behind_bytes)
{
    char text[100];
    struct iovec iov = {text, sizeof(text)};
    size_t got;
    pair_t p;

    open_pair(&p);
    ck_assert_int_eq(SSL_write(p.server, "last words", 10), 10);
    if (_i == 0) {
        ck_assert_int_ge(SSL_shutdown(p.server), 0);
    } else {
        shutdown(p.fd, SHUT_WR);
    }
    ck_assert_int_eq(p.c.ops->readv(&p.c, &iov, 1, &got), APR_SUCCESS);
    ck_assert_uint_eq(got, 10);
    ck_assert_uint_gt(p.c.ops->pending(&p.c), 0);
    ck_assert(APR_STATUS_IS_EOF(p.c.ops->readv(&p.c, &iov, 1, &got)));
    ck_assert_uint_eq(got, 0);
    close_pair(&p);
}
END_TEST

START_TEST(garbage)
{
    char text[100];
    struct iovec iov = {text, sizeof(text)};
    size_t got;
    apr_status_t rv;
    pair_t p;

    open_pair(&p);
    ck_assert_int_eq(write(p.fd, "<iq type='set'/>", 16), 16);
    rv = p.c.ops->readv(&p.c, &iov, 1, &got);
    ck_assert(rv != APR_SUCCESS && !APR_STATUS_IS_EAGAIN(rv) && !APR_STATUS_IS_EOF(rv));
    ck_assert_uint_eq(got, 0);
    close_pair(&p);
}
END_TEST

/* The socket is full: what write() took arrives once, whatever is written next. */
START_TEST(a_full_socket)
{
    static char text[16384], seen[4 << 20];
    size_t put = 0, written = 0, have = 0;
    apr_status_t rv;
    pair_t p;

    open_pair(&p);
    while ((rv = p.c.ops->write(&p.c, text, sizeof(text), &put)) == APR_SUCCESS) {
        memset(text, (int)('a' + written / 16384 % 26), sizeof(text));
        written += put;
        ck_assert_uint_lt(written, sizeof(seen) - 100);
    }
    ck_assert(APR_STATUS_IS_EAGAIN(rv));
    ck_assert_uint_eq(put, 0);
    ck_assert(p.c.ops->wants(&p.c, 0) & BOSH_CONN_WRITE);
    ck_assert(APR_STATUS_IS_EAGAIN(p.c.ops->flush(&p.c)));
    while (have < written) {
        int r = SSL_read(p.server, seen + have, (int)(sizeof(seen) - have));
        if (r > 0) {
            have += (size_t)r;
        } else {
            rv = p.c.ops->flush(&p.c);
            ck_assert(rv == APR_SUCCESS || APR_STATUS_IS_EAGAIN(rv));
        }
    }
    ck_assert_uint_eq(have, written);
    for (size_t i = 2 * 16384; i < have; i++) {
        ck_assert_int_eq(seen[i], 'a' + (char)((i / 16384 - 1) % 26));
    }
    ck_assert_uint_eq(p.c.ops->wants(&p.c, 0) & BOSH_CONN_WRITE, 0);
    ck_assert_int_eq(p.c.ops->write(&p.c, "<end/>", 6, &put), APR_SUCCESS);
    ck_assert_int_eq(SSL_read(p.server, seen, 100), 6);
    ck_assert_int_eq(memcmp(seen, "<end/>", 6), 0);
    close_pair(&p);
}
END_TEST

START_TEST(close_notify_and_resumption)
{
    char text[16];
    pair_t p;
    struct iovec iov = {text, sizeof(text)};
    size_t got;

    open_pair(&p);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(bosh_tls_resumed(&p.c), i > 0);
        ck_assert_str_eq(bosh_tls_version(&p.c), "TLSv1.3");
        ck_assert(APR_STATUS_IS_EAGAIN(p.c.ops->readv(&p.c, &iov, 1, &got))); /* the tickets */
        bosh_conn_close(&p.c);
        ck_assert_int_eq(SSL_read(p.server, text, sizeof(text)), 0);
        ck_assert_int_eq(SSL_get_shutdown(p.server) & SSL_RECEIVED_SHUTDOWN, SSL_RECEIVED_SHUTDOWN);
        close_server(&p);
        connect_pair(&p);
        shake_hands(&p);
    }
    close_pair(&p);
}
END_TEST

static void open_all(void)
{
    apr_initialize();
    apr_pool_create(&pool, NULL);
    key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
}

static void close_all(void)
{
    EVP_PKEY_free(key);
    apr_pool_destroy(pool);
    apr_terminate();
}

int main(void)
{
    Suite *s = suite_create("tls");
    TCase *t = tcase_create("names");
    SRunner *r;
    int failed;

    tcase_add_checked_fixture(t, open_all, close_all);
    tcase_add_loop_test(t, names, 0, (int)(sizeof(cases) / sizeof(cases[0])));
    tcase_add_test(t, a_name_with_a_nul);
    tcase_add_test(t, listing);
    suite_add_tcase(s, t);
    t = tcase_create("connection");
    tcase_add_checked_fixture(t, open_all, close_all);
    tcase_add_test(t, pieces_of_any_size);
    tcase_add_test(t, pending);
    tcase_add_loop_test(t, an_end_behind_bytes, 0, 2);
    tcase_add_test(t, garbage);
    tcase_add_test(t, a_full_socket);
    tcase_add_test(t, close_notify_and_resumption);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
