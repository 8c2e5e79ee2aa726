/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers on the spot: bosh_spot.h says what that is. Called by bosh_park.c, which sees to it that no other thread
 * has the connection meanwhile.
 *
 * While a connection is parked the MPM polls its apr_socket_t, in which our epoll descriptor is (bosh_park.c), and its
 * listener may read that at any moment. So it stays as it is: the core's output filter is given another
 * apr_socket_t, of this process, with the client's descriptor in it, and its own back afterwards.
 */
#include "bosh_spot.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <apr_thread_mutex.h>

#include "bosh_whole.h"

/*
 * Filters that take a whole small answer and pass it on at once, in the thread that calls them: httpd's own, those
 * that change headers, TLS, and compression, which is told to leave small answers alone.
 */
static const char *const known[] = {
    "byterange",
    "content_length",
    "http_header",
    "http_outerror",
    "reqtimeout",
    "core",
    "fixup_headers_out",
    "fixup_headers_err",
    "log_input_output",
    "ssl/tls filter",
    "ssl/tls coalescing filter",
    "deflate",
    "brotli_compress",
    "bytype:deflate",
    "bytype:brotli_compress",
};

static struct {
    apr_pool_t *pool;
    apr_thread_mutex_t *mutex; /* of what follows: one answer at a time */
    apr_socket_t *socket;
    core_net_rec *net; /* of the connection that is answered, and what it had */
    apr_socket_t *own;
} spot;

static uint64_t answers;

/* APR knows by a socket's timeout whether its descriptor blocks, and clients' never do: so ours must have one from the
 * beginning, or APR would make theirs block when it comes back from 0. It takes a descriptor to set it. */
static apr_status_t make_socket(apr_pool_t *p)
{
    int any = eventfd(0, EFD_CLOEXEC);
    apr_status_t rv;

    if (any < 0) {
        return errno;
    }
    rv = apr_os_sock_put(&spot.socket, &any, p);
    if (rv == APR_SUCCESS) {
        rv = apr_socket_timeout_set(spot.socket, 0);
    }
    close(any);
    return rv;
}

apr_status_t bosh_spot_child_init(apr_pool_t *pchild)
{
    apr_status_t rv = make_socket(pchild);

    spot.pool = pchild;
    return rv == APR_SUCCESS
               ? apr_thread_mutex_create(&spot.mutex, APR_THREAD_MUTEX_DEFAULT, pchild)
               : rv;
}

/* Those that were found there: a request has ten, and each answer would be compared with all names. */
static struct {
    const ap_filter_rec_t *recs[16];
    int n;
} found;

static bool is_known(const ap_filter_rec_t *rec)
{
    int n = __atomic_load_n(&found.n, __ATOMIC_ACQUIRE);

    for (int i = 0; i < n; i++) {
        if (found.recs[i] == rec) {
            return true;
        }
    }
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (ap_cstr_casecmp(rec->name, known[i]) == 0) {
            apr_thread_mutex_lock(spot.mutex);
            if (found.n < (int)(sizeof(found.recs) / sizeof(found.recs[0]))) {
                found.recs[found.n] = rec;
                __atomic_add_fetch(&found.n, 1, __ATOMIC_RELEASE);
            }
            apr_thread_mutex_unlock(spot.mutex);
            return true;
        }
    }
    return false;
}

bool bosh_spot_possible(const request_rec *r)
{
    conn_rec *c = r->connection;
    const core_net_rec *net = bosh_whole_net(c);
    apr_interval_time_t blocks = -1;

    apr_socket_timeout_get(ap_get_conn_socket(c), &blocks);
    if (blocks < 0 || c->data_in_output_filters || net == NULL ||
        net->client_socket != ap_get_conn_socket(c)) {
        return false;
    }
    for (const ap_filter_t *f = r->output_filters; f != NULL; f = f->next) {
        if (!is_known(f->frec)) {
            return false;
        }
    }
    return true;
}

bool bosh_spot_begin(request_rec *r, apr_os_sock_t client)
{
    conn_rec *c = r->connection;
    struct pollfd fd = {.fd = client, .events = POLLIN | POLLRDHUP};

    if (poll(&fd, 1, 0) != 0 || apr_thread_mutex_trylock(spot.mutex) != APR_SUCCESS) {
        return false;
    }
    if (apr_os_sock_put(&spot.socket, &client, spot.pool) != APR_SUCCESS) {
        apr_thread_mutex_unlock(spot.mutex);
        return false;
    }
    spot.net = bosh_whole_net(c);
    spot.own = spot.net->client_socket;
    spot.net->client_socket = spot.socket;
    return true;
}

bool bosh_spot_end(request_rec *r, bool written)
{
    conn_rec *c = r->connection;
    ap_filter_t *f = bosh_whole_last(c);
    bool sent = written && f->frec->filter_func.out_func(f, NULL) == APR_SUCCESS &&
                !c->data_in_output_filters;

    spot.net->client_socket = spot.own;
    apr_thread_mutex_unlock(spot.mutex);
    if (written) {
        __atomic_add_fetch(&answers, 1, __ATOMIC_RELAXED);
    }
    return sent && c->keepalive == AP_CONN_KEEPALIVE && !c->aborted;
}

uint64_t bosh_spot_count(void)
{
    return __atomic_load_n(&answers, __ATOMIC_RELAXED);
}
