/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_desk: what a worker needs to take one request body in: a buffer and a parser, pooled. Worker threads.
 */
#ifndef BOSH_DESK_H
#define BOSH_DESK_H

#include "httpd.h"

#include "bosh_body.h"
#include "bosh_config.h"

typedef struct bosh_desk_t {
    struct bosh_desk_t *next;
    bosh_body_t *parser;
    char *buf; /* the body as it was written, whatever it was packed in */
    size_t size, len;
} bosh_desk_t;

/* child_init. The desks go with pchild. */
void bosh_desk_child_init(apr_pool_t *pchild);

/* NULL: no memory. To be given back before the request waits. */
bosh_desk_t *bosh_desk_take(void);
void bosh_desk_give(bosh_desk_t *d);

/* Room for at least `need` bytes in the buffer, whose bytes stay. False: no memory. */
bool bosh_desk_grow(bosh_desk_t *d, size_t need);

#define BOSH_DESK_BROKEN (-1) /* no HTTP status */

/*
 * Reads the whole body and unpacks it. OK, or BOSH_DESK_BROKEN for a body that does not arrive whole and so
 * never reaches the session (B-012), or the HTTP status of what is wrong: 413 (larger than BoshMaxBody, packed
 * or not, B-019, B-094), 415 (a Content-Encoding that was not offered, B-093), 400 (damaged), 503 (no memory),
 * or one of httpd's own.
 */
int bosh_desk_read(request_rec *r, const bosh_config_t *conf, bosh_desk_t *d);

#endif
