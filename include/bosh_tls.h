/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_tls: TLS towards XMPP servers, by OpenSSL: the second backend of bosh_conn_t, the contexts it needs,
 * and what a certificate must say (RFC 6120 13.7.2, RFC 6125, RFC 7590, XEP-0368).
 *
 * A context holds what an administrator chose: trust, our own certificate. It is made in the parent while the
 * configuration is read, when files can still be read that children may not, and is read-only then. A
 * bosh_tls_t is one line's use of a context: its domain, and the last session with that, with which the next
 * handshake is cheap. Each child goes on with its own copy of it, on its loop thread.
 *
 * No global state of OpenSSL is touched: other modules of this process use it, too.
 */
#ifndef BOSH_TLS_H
#define BOSH_TLS_H

#include <apr_pools.h>

#include "bosh_conn.h"

struct ssl_ctx_st;
struct x509_st;

typedef enum bosh_tls_policy_t {
    BOSH_TLS_OFF = 0,
    BOSH_TLS_OPTIONAL, /* STARTTLS when the server offers it */
    BOSH_TLS_STARTTLS, /* STARTTLS, or no stream */
    BOSH_TLS_DIRECT    /* TLS from the first byte (XEP-0368) */
} bosh_tls_policy_t;

typedef struct bosh_tls_options_t {
    const char *ca;   /* PEM file or hashed directory of trusted authorities; NULL: the system's */
    const char *cert; /* PEM file of our own certificate and its chain; NULL: none */
    const char *key;  /* ... of its key; NULL: it is in `cert` */
    bool verify;      /* false: any certificate will do */
} bosh_tls_options_t;

typedef struct bosh_tls_t bosh_tls_t;

/*
 * Makes a context that lives as long as `p`. NULL, or what is wrong with the options, for the administrator:
 * it names the file. Configuration time.
 */
const char *bosh_tls_context(struct ssl_ctx_st **out, const bosh_tls_options_t *opt, apr_pool_t *p);

/* One line's use of a context; as long as `p`. Configuration time. */
bosh_tls_t *bosh_tls_create(struct ssl_ctx_st *ctx, const char *domain, apr_pool_t *p);

/*
 * Begins TLS as a client on a connected plain connection, which becomes CONNECTING again: establish() does
 * the handshake. `domain` (A-labels) is the one that the client asked for, and that the certificate must name; earlier
 * sessions are resumed only if it is the line's own. `direct`: with ALPN. False: no memory; nothing has
 * changed. Loop thread.
 */
bool bosh_tls_start(bosh_conn_t *c, bosh_tls_t *tls, const char *domain, bool direct);

extern const bosh_conn_ops_t bosh_conn_tls;

static inline bool bosh_tls_is_on(const bosh_conn_t *c)
{
    return c->ops == &bosh_conn_tls;
}

/* Why establish() failed, for the log; valid until the next call of anything here for this domain. */
const char *bosh_tls_reason(const bosh_conn_t *c);

/* After the handshake: whether an earlier session was resumed; "TLSv1.3" and the like. */
bool bosh_tls_resumed(const bosh_conn_t *c);
const char *bosh_tls_version(const bosh_conn_t *c);

/*
 * Whether this certificate is one for an XMPP server of `domain`: a dNSName, with a wildcard for the whole
 * left-most label at most, an SRVName _xmpp-client.DOMAIN, or an xmppAddr. Its subject's CN never counts.
 */
bool bosh_tls_names(struct x509_st *cert, const char *domain);

/* The names in it, for the log: "a.example, *.b.example". */
void bosh_tls_list_names(struct x509_st *cert, char *dst, size_t size);

#endif
