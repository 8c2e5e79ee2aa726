/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_spot: a small answer to a waiting request is written on the spot, by the thread that brings the news: the loop,
 * or a worker in its place. Its request is ended later, by the worker that its connection gets anyway when the
 * client's next request comes, or that has slept on it for a moment. So a stanza reaches its client one change of
 * threads after it has come from the server, instead of three, and the way through the MPM's queue is gone once for each.
 *
 * What is written goes through the request's output filters as any answer does, but only where each of them is known
 * to do no more than to pass it on; and it must neither block nor touch what the MPM looks at while it polls
 * the connection. Internal to bosh_hold.c and bosh_park.c.
 */
#ifndef BOSH_SPOT_H
#define BOSH_SPOT_H

#include "httpd.h"

#include <apr_portable.h>

#include "bosh.h"

/* child_init. */
apr_status_t bosh_spot_child_init(apr_pool_t *pchild);

/* Whether an answer to this request may be written by another thread than a worker. Worker, before the request
 * waits: nobody may change its filters while it does. */
bool bosh_spot_possible(const request_rec *r);

/*
 * Between these two the caller, who alone has the waiting connection, may write a small answer to r->output_filters;
 * `client` is its own descriptor. False: not now: the client has gone or has sent something, or another thread is
 * about it. end: true when what was `written` is sent and the connection stays open. Any thread; never blocks.
 */
bool bosh_spot_begin(request_rec *r, apr_os_sock_t client);
bool bosh_spot_end(request_rec *r, bool written);

/* Answers that were written on the spot. Any thread. */
uint64_t bosh_spot_count(void);

#endif
