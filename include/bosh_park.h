/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_park: a request that waits without a thread, on a connection of the event MPM. Internal to
 * src/httpd: bosh_hold.c decides when a request waits and when it is answered, bosh_park.c moves
 * the connection out of the workers' hands and back.
 */
#ifndef BOSH_PARK_H
#define BOSH_PARK_H

#include <apr_portable.h>

#include "bosh_stay.h"
#include "bosh_waiter.h"

/* What is to be seen of the client without answering it. */
typedef enum bosh_client_t {
    BOSH_CLIENT_QUIET,
    BOSH_CLIENT_MORE, /* bytes of a next request are there, in the socket or in the filters */
    BOSH_CLIENT_GONE  /* it has hung up, or closed its half */
} bosh_client_t;

/* A request that waits: what bosh_hold_wait() was told. Touched by the worker that has the
 * request. */
typedef struct bosh_hold_t {
    request_rec *r;
    bosh_waiter_t w;
    apr_time_t deadline;
    const bosh_hold_calls_t *calls;
    void *baton;
    bool told_more; /* fn knows of the next request and goes on waiting: input means nothing now */
    bool answered;  /* on the spot: only its end is left to do */
    apr_os_sock_t client; /* its descriptor */
    apr_time_t rearm;     /* parked: when the MPM must see it again, at the latest */
    apr_time_t asked;     /* blocked, HTTP/2: when it was woken last */
} bosh_hold_t;

/* register_hooks and child_init. */
void bosh_park_register(void);
void bosh_park_child_init(bool async);

/* From now on no request is parked that is not yet. Any thread. */
void bosh_park_no_more(void);

/* Whether this request may be parked, if descriptors can be had; and whether it can be: makes those of the
 * connection at its first time. Worker. */
bool bosh_park_allowed(const request_rec *r);
bool bosh_park_possible(const request_rec *r);

/* Takes *h over; the handler must return SUSPENDED next. Only after bosh_park_possible().
 * Worker. */
void bosh_park_begin(const bosh_hold_t *h);

/* What the connection knows of its client; NULL: it is none that a worker stays with. Worker. */
bosh_stay_t *bosh_park_stay(const request_rec *r);

/* The hold of this request, if it was parked and has not ended. Worker, or a pool cleanup. */
bosh_hold_t *bosh_park_find(const request_rec *r);

/* Forgets a hold whose request somebody else ends. Worker, or a pool cleanup. */
void bosh_park_forget(const request_rec *r);

/* ---- bosh_hold.c, for bosh_park.c ---- */

/*
 * Calls fn as long as there is a reason to. True: fn is DONE, *why is its last reason and *result
 * its result (undefined for GONE), the waiter has ended. False: nothing to do but to wait.
 */
bool bosh_hold_ask(bosh_hold_t *h, bosh_client_t client, bosh_why_t *why, int *result);

/*
 * What the input filters have to say, without blocking. Blank lines between requests are eaten, a
 * TLS record that carries no data is digested. bb: an empty brigade of this connection.
 */
bosh_client_t bosh_hold_peek(bosh_hold_t *h, apr_bucket_brigade *bb);

#endif
