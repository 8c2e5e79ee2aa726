/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_hold: one HTTP request waits, without a thread where httpd can do that, else by blocking its
 * worker.
 *
 * Event MPM with AP_MPMQ_CAN_WAITIO: the handler returns SUSPENDED, our process_connection wrapper
 * turns the connection into CONN_STATE_ASYNC_WAITIO, our suspend hook puts a per-connection epoll
 * descriptor in the place of the client's socket; see docs/DESIGN.md.
 * Elsewhere (worker, prefork, HTTP/2 streams, clogging input filters, BoshAsync Off) the worker
 * polls an eventfd and the client socket.
 *
 * A waiter is named by (id, gen). All waiter state of a child is under one mutex
 * (bosh_waiter.c), which is never taken while the arena lock is held, nor the reverse.
 */
#ifndef BOSH_HOLD_H
#define BOSH_HOLD_H

#include "httpd.h"
#include "http_config.h"

#include "bosh.h"

typedef struct bosh_waiter_t {
    uint32_t id, gen;
} bosh_waiter_t;

/* Why a waiting request gets a worker. */
typedef enum bosh_why_t {
    BOSH_WHY_WAKE,     /* bosh_hold_wake(): there may be something to answer */
    BOSH_WHY_DEADLINE, /* its deadline has passed */
    BOSH_WHY_MORE,     /* the client sent more on this connection: answer now (pipelining) */
    BOSH_WHY_STOPPING, /* the child goes, others stay, or too many workers are blocked: answer now */
    BOSH_WHY_GONE      /* the connection is gone: clean up, write nothing */
} bosh_why_t;

/*
 * Called on a worker (or, for GONE, from a pool cleanup on whatever thread clears the pool), never
 * with a lock of this file held. Return AGAIN with *deadline set to go on waiting, or DONE after
 * having written the whole response to r->output_filters as a handler would (status, headers,
 * brigade with EOS) - nothing for GONE. DONE's int result goes where a handler's return value goes:
 * OK, or an HTTP status (then r->status must be untouched and nothing written).
 *
 * - Wakes add up: several are one call. A wake during fn leads to another call, never to none.
 * - MORE and STOPPING are told once each; after AGAIN the request waits for the other reasons.
 * - STOPPING because no worker can be spared is answered or given up: on AGAIN fn is called with
 *   GONE, and the client gets 503.
 * - GONE comes once and is the last call, whatever it returns. It must not wait for anything: it
 *   may run on the MPM's listener. A process that ends without draining (SIGTERM, a crash) calls
 *   nothing.
 * - fn must not wait for another request, and must not call functions of this file for its own
 *   waiter but bosh_hold_wake().
 */
typedef enum bosh_hold_next_t { BOSH_HOLD_DONE, BOSH_HOLD_AGAIN } bosh_hold_next_t;
typedef bosh_hold_next_t bosh_hold_fn(request_rec *r, void *baton, bosh_why_t why,
                                      apr_time_t *deadline, int *result);

/*
 * The same, called instead of fn for a wake of a parked request, on the thread that wakes it: the loop, or a worker
 * in its place. DONE: a small answer was written to r->output_filters; fn is never called again, and r ends later. AGAIN:
 * as above. LATER: fn will be called, on a worker, for this or a better reason. It must not wait for anything.
 */
typedef enum bosh_hold_spot_t { BOSH_SPOT_DONE, BOSH_SPOT_AGAIN, BOSH_SPOT_LATER } bosh_hold_spot_t;
typedef bosh_hold_spot_t bosh_hold_spot_fn(request_rec *r, void *baton, apr_time_t *deadline);

/* What a request waits with. Lives as long as the process. */
typedef struct bosh_hold_calls_t {
    bosh_hold_fn *fn;
    bosh_hold_spot_fn *on_the_spot;
} bosh_hold_calls_t;

/* Hooks process_connection, suspend_connection, resume_connection and pre_close_connection, and
 * takes the module's slot in conn_rec's conn_config. register_hooks time. */
void bosh_hold_register(apr_pool_t *p);

/*
 * child_init. `async` is the wish of BoshAsync; whether it can be met is found out from the MPM.
 * kick: wakes the loop so that it looks at bosh_hold_next_deadline() again; may be called by any
 * thread and from inside any function of this file, the loop's own calls included. The loop may run
 * already. told: a process that holds one request at a time has been told to stop while it does (called
 * again and again, worker thread); the MPM says so (child_stopping) only after the request. max_blocked bounds workers blocked in bosh_hold_wait (0: no bound); beyond it a request
 * is told STOPPING at once, so that some workers stay free.
 */
apr_status_t bosh_hold_child_init(apr_pool_t *pchild, server_rec *s, bool async, int max_wakes,
                                  int max_blocked, void (*told)(void), void (*kick)(void *),
                                  void *kick_ctx);

/* A waiter for this request, before anything can want to wake it. Worker thread. Never fails but
 * with APR_ENOMEM (65,536 at once are the most). A wake that comes between this call and
 * bosh_hold_wait() is not lost. */
apr_status_t bosh_hold_new(request_rec *r, bosh_waiter_t *w);

/* Gives an unused waiter back (the answer was there at once). Worker thread. */
void bosh_hold_free(bosh_waiter_t w);

/*
 * Waits until woken, `deadline`, hang-up, more input, or stop; then calls->fn(r, baton, why, ...), again
 * and again until it returns DONE. baton must live as long as r. Returns what the handler shall
 * return: SUSPENDED (thread-less; r belongs to others from then on), or fn's result after blocking.
 * The waiter is freed inside. The request's body must have been read to its end: what is left of it
 * would pass for a next request. soon: the wake is likely to come within milliseconds; then the worker waits for a
 * moment itself, which is cheaper, as long as that turns out to be true and there are workers enough.
 */
int bosh_hold_wait(request_rec *r, bosh_waiter_t w, apr_time_t deadline, bool soon,
                   const bosh_hold_calls_t *calls, void *baton);

/* Loop thread (any thread will do): the named waiter gets a worker soon. Unknown or old names:
 * ignored. At most max_wakes are under way at once; the others follow as those finish. Never
 * blocks. */
void bosh_hold_wake(uint32_t id, uint32_t gen);

/* Loop thread, before each sleep: when to call bosh_hold_expire() next. At most a second from now,
 * so that holds of the usual length need not kick; BOSH_NEVER: not in this process. Both are times
 * of bosh_clock. */
apr_time_t bosh_hold_next_deadline(void);
void bosh_hold_expire(apr_time_t now);

/* Wakes every waiter with WAKE (a mailbox overflowed, the arena was repaired). */
void bosh_hold_wake_all(void);

/* child_stopping: from now on a request that has to wait blocks its worker. The MPM may have stopped polling when
 * the last connections that it has accepted get there. Cheap, any thread. */
void bosh_hold_block(void);

/* Every waiter now and later gets STOPPING. Cheap, any thread. */
void bosh_hold_stop(void);

/* Requests waiting now: thread-less and blocked. */
void bosh_hold_count(uint32_t *async, uint32_t *blocked);

/* How many of this process got so old that their connection gave back the memory it did not need. Any thread. */
uint64_t bosh_hold_trims(void);

#endif
