/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compression of answers, by ourselves or by a filter of httpd's, and never twice. Called by bosh_respond.c on worker
 * threads, without the arena's lock; touches the request and the pool of packers.
 *
 * Invariant: a packer is in the pool or in the hands of one worker, for as long as it packs. So there are as many as
 * answers have been packed at the same time: far fewer than workers.
 */
#include "bosh_pack.h"

#include <apr_thread_mutex.h>

#include "bosh_gzip.h"

#define FROM 2048 /* bytes; below, packing costs more than it saves */
/* What the header costs has to be saved at least. */
#define LABEL (sizeof("Content-Encoding: gzip\r\n") - 1)

static struct {
    apr_thread_mutex_t *mutex;
    bosh_gzip_t *packers; /* free ones */
} pool;

static apr_status_t free_packers(void *unused)
{
    (void)unused;
    while (pool.packers != NULL) {
        bosh_gzip_t *g = pool.packers;
        pool.packers = g->next;
        bosh_gzip_destroy(g);
    }
    return APR_SUCCESS;
}

void bosh_pack_child_init(apr_pool_t *pchild)
{
    apr_thread_mutex_create(&pool.mutex, APR_THREAD_MUTEX_DEFAULT, pchild);
    apr_pool_cleanup_register(pchild, NULL, free_packers, apr_pool_cleanup_null);
}

static bosh_gzip_t *take(void)
{
    bosh_gzip_t *g;

    apr_thread_mutex_lock(pool.mutex);
    g = pool.packers;
    if (g != NULL) {
        pool.packers = g->next;
    }
    apr_thread_mutex_unlock(pool.mutex);
    return g != NULL ? g : bosh_gzip_create();
}

static void give(bosh_gzip_t *g)
{
    apr_thread_mutex_lock(pool.mutex);
    g->next = pool.packers;
    pool.packers = g;
    apr_thread_mutex_unlock(pool.mutex);
}

/* From one block into another, which becomes the bucket: nothing is copied. */
static bool pack(request_rec *r, char **buf, size_t *len)
{
    bosh_gzip_t *g = take();
    char *out;
    size_t n;

    if (g == NULL) {
        return false;
    }
    out = apr_bucket_alloc(*len, r->connection->bucket_alloc);
    n = bosh_gzip(g, *buf, *len, out, *len - LABEL);
    give(g);
    apr_bucket_free(n > 0 ? *buf : out);
    if (n > 0) {
        *buf = out;
        *len = n;
    }
    return n > 0;
}

/*
 * The administrator's no-gzip (SetEnvIf, BrowserMatch) counts here as for mod_deflate. Vary says that it was asked
 * what the client accepts, whatever the answer was.
 */
void bosh_pack(request_rec *r, const bosh_config_t *conf, char **buf, size_t *len)
{
    apr_table_t *env = r->subprocess_env;

    if (!conf->deflate || *len < FROM || apr_table_get(env, "no-gzip") != NULL) {
        return;
    }
    apr_table_mergen(r->err_headers_out, "Vary", "Accept-Encoding");
    if (bosh_gzip_accepted(apr_table_get(r->headers_in, "Accept-Encoding"))) {
        if (pack(r, buf, len)) {
            apr_table_setn(r->headers_out, "Content-Encoding", "gzip");
        }
        apr_table_setn(env, "no-brotli", "1");
    }
    apr_table_setn(env, "no-gzip", "1");
}

/* They do not read weights (B-006), and for a small answer they cost more than they save. */
static void limit(request_rec *r, size_t len, const char *coding, const char *variable)
{
    if (len < FROM ||
        bosh_gzip_weight(apr_table_get(r->headers_in, "Accept-Encoding"), coding) == 0) {
        apr_table_setn(r->subprocess_env, variable, "1");
    }
}

void bosh_pack_limit_filters(request_rec *r, size_t len)
{
    limit(r, len, "gzip", "no-gzip");
    limit(r, len, "br", "no-brotli");
}
