/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Desks: where request bodies are taken in. Called by bosh_request.c on worker threads, without the arena's lock.
 *
 * Invariant: a desk is in the pool or in the hands of one worker, and never belongs to a request that waits. So
 * there are as many as workers have been busy at the same time, and those in the pool are small.
 */
#include "bosh_desk.h"

#include <stdlib.h>

#include <apr_thread_mutex.h>
#include <http_protocol.h>

#include "bosh_inflate.h"

#define KEEP_BUFFER (64 * 1024) /* a buffer that has grown beyond this is given back */

static struct {
    apr_thread_mutex_t *mutex;
    bosh_desk_t *desks; /* free ones */
} pool;

static apr_status_t free_desks(void *unused)
{
    (void)unused;
    while (pool.desks != NULL) {
        bosh_desk_t *d = pool.desks;
        pool.desks = d->next;
        bosh_body_destroy(d->parser);
        free(d->buf);
        free(d);
    }
    return APR_SUCCESS;
}

void bosh_desk_child_init(apr_pool_t *pchild)
{
    apr_thread_mutex_create(&pool.mutex, APR_THREAD_MUTEX_DEFAULT, pchild);
    apr_pool_cleanup_register(pchild, NULL, free_desks, apr_pool_cleanup_null);
}

bosh_desk_t *bosh_desk_take(void)
{
    bosh_desk_t *d;

    apr_thread_mutex_lock(pool.mutex);
    d = pool.desks;
    if (d != NULL) {
        pool.desks = d->next;
    }
    apr_thread_mutex_unlock(pool.mutex);
    if (d == NULL) {
        d = calloc(1, sizeof(*d));
        if (d != NULL && (d->parser = bosh_body_create()) == NULL) {
            free(d);
            d = NULL;
        }
    }
    return d;
}

void bosh_desk_give(bosh_desk_t *d)
{
    if (d->size > KEEP_BUFFER) {
        free(d->buf);
        d->buf = NULL;
        d->size = 0;
    }
    bosh_body_forget(d->parser);
    apr_thread_mutex_lock(pool.mutex);
    d->next = pool.desks;
    pool.desks = d;
    apr_thread_mutex_unlock(pool.mutex);
}

bool bosh_desk_grow(bosh_desk_t *d, size_t need)
{
    size_t size = d->size > 0 ? d->size : 4096;
    char *buf;

    while (size < need) {
        size *= 2;
    }
    if (size > d->size) {
        buf = realloc(d->buf, size);
        if (buf == NULL) {
            return false;
        }
        d->buf = buf;
        d->size = size;
    }
    return true;
}

static int read_body(request_rec *r, size_t most, bosh_desk_t *d)
{
    int rv = ap_setup_client_block(r, REQUEST_CHUNKED_DECHUNK);
    long n;

    d->len = 0;
    if (rv != OK) {
        return rv;
    }
    if (r->remaining > (apr_off_t)most) {
        return HTTP_REQUEST_ENTITY_TOO_LARGE;
    }
    if (!ap_should_client_block(r)) {
        return OK;
    }
    do {
        /* One byte more than may be, to see whether there is more. */
        if (d->len > most ||
            !bosh_desk_grow(d, d->len + (r->remaining > 0 ? (size_t)r->remaining + 1 : 4096))) {
            return d->len > most ? HTTP_REQUEST_ENTITY_TOO_LARGE : HTTP_SERVICE_UNAVAILABLE;
        }
        n = ap_get_client_block(r, d->buf + d->len, d->size - d->len);
        if (n < 0) {
            return BOSH_DESK_BROKEN;
        }
        d->len += (size_t)n;
    } while (n > 0);
    return d->len > most ? HTTP_REQUEST_ENTITY_TOO_LARGE : OK;
}

/* The header is looked at after the body was read: an input filter that has unpacked it takes it away. */
static int unpack(request_rec *r, const bosh_config_t *conf, bosh_desk_t *d)
{
    bosh_coding_t coding = bosh_inflate_coding(apr_table_get(r->headers_in, "Content-Encoding"));
    apr_status_t rv;
    char *text;
    size_t n;

    if (coding == BOSH_CODING_NONE) {
        return OK;
    }
    if (coding == BOSH_CODING_UNKNOWN || !conf->limits.inflate) {
        return HTTP_UNSUPPORTED_MEDIA_TYPE;
    }
    rv = bosh_inflate(coding, d->buf, d->len, (size_t)conf->max_body, &text, &n);
    if (rv != APR_SUCCESS) {
        return APR_STATUS_IS_ENOSPC(rv)   ? HTTP_REQUEST_ENTITY_TOO_LARGE
               : APR_STATUS_IS_ENOMEM(rv) ? HTTP_SERVICE_UNAVAILABLE
                                          : HTTP_BAD_REQUEST;
    }
    free(d->buf);
    d->buf = text;
    d->size = d->len = n;
    return OK;
}

int bosh_desk_read(request_rec *r, const bosh_config_t *conf, bosh_desk_t *d)
{
    int rv = read_body(r, (size_t)conf->max_body, d);

    return rv == OK ? unpack(r, conf, d) : rv;
}
