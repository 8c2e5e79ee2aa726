/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One write for a response. httpd passes the headers on before the body and writes neither while there is less than
 * 4 KB of them, but sets them aside. This filter, the last of a request's, lets the headers wait for the body and asks
 * for both to be written. Called by whoever answers; touches nothing but the request and its connection's socket.
 *
 * Invariant: nobody waits for a client here. What its socket may not take at once is left to httpd, which sets it aside
 * and needs no thread to write it later.
 */
#include "bosh_whole.h"

#include <poll.h>
#include <stdbool.h>

#include <apr_portable.h>
#include <http_core.h>
#include <util_filter.h>

/* The core writes so much of its own accord, and without waiting. A socket that is writable takes less than that. */
#define SMALL 4096

static ap_filter_rec_t *filter;

ap_filter_t *bosh_whole_last(const conn_rec *c)
{
    ap_filter_t *f = c->output_filters;

    while (f->next != NULL) {
        f = f->next;
    }
    return f;
}

core_net_rec *bosh_whole_net(conn_rec *c)
{
    const ap_filter_t *f = bosh_whole_last(c);
    core_net_rec *net = f->frec == ap_core_output_filter_handle ? f->ctx : NULL;

    return net != NULL && net->c == c ? net : NULL;
}

/* Whether the client's socket takes all of it now. Data from before this response would have to go first. */
static bool fits(conn_rec *c, apr_bucket_brigade *bb)
{
    core_net_rec *net = bosh_whole_net(c);
    struct pollfd p = {.events = POLLOUT};
    apr_off_t len;

    return !c->data_in_output_filters && apr_brigade_length(bb, 0, &len) == APR_SUCCESS &&
           len >= 0 && len < SMALL && net != NULL &&
           apr_os_sock_get(&p.fd, net->client_socket) == APR_SUCCESS && poll(&p, 1, 0) == 1 &&
           (p.revents & POLLOUT);
}

static apr_status_t pass(ap_filter_t *f, apr_bucket_brigade *bb)
{
    apr_bucket_brigade *headers = f->ctx;
    bool end = !APR_BRIGADE_EMPTY(bb) && APR_BUCKET_IS_EOS(APR_BRIGADE_LAST(bb));

    if (!end && headers == NULL) {
        apr_status_t rv = ap_save_brigade(f, &headers, &bb, f->r->pool);
        f->ctx = headers;
        return rv;
    }
    ap_remove_output_filter(f);
    if (headers != NULL) {
        APR_BRIGADE_PREPEND(bb, headers);
    }
    if (end && fits(f->c, bb)) {
        APR_BUCKET_INSERT_BEFORE(APR_BRIGADE_LAST(bb), apr_bucket_flush_create(f->c->bucket_alloc));
    }
    return ap_pass_brigade(f->next, bb);
}

void bosh_whole_register(void)
{
    /* Behind what may cut a body into chunks, before what encrypts. */
    filter = ap_register_output_filter("BOSH_WHOLE", pass, NULL, AP_FTYPE_CONNECTION - 1);
}

void bosh_whole_begin(request_rec *r)
{
    conn_rec *c = r->connection;

    if (c->master == NULL && r->main == NULL) { /* a stream of HTTP/2 has no socket */
        ap_add_output_filter_handle(filter, NULL, r, c);
    }
}
