/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_waiter: the table of a child's waiting requests. Internal to bosh_hold.c and bosh_park.c;
 * what other files may call of it is declared in bosh_hold.h.
 *
 * A waiter is in one of four hands; every function here says whose it is before and after:
 *
 *     WORKER   a worker thread has the request; a wake-up only leaves a flag for it to find
 *     PARKED   nobody has it; a wake-up rings its bell, which makes the MPM give it a worker
 *     SEIZED   parked or blocked, and the thread that wakes it answers it on the spot; others wait for that
 *     BLOCKED  a worker sleeps in poll() on its bell
 *
 * Every function takes the table's mutex itself and holds it for no callback and no blocking call. The wake of a
 * single waiter rings its bell after the mutex is released.
 */
#ifndef BOSH_WAITER_H
#define BOSH_WAITER_H

#include "bosh_bell.h"
#include "bosh_hold.h"

/* What has been asked of a waiter since its worker last looked. */
#define BOSH_ASKED_WAKE  1U
#define BOSH_ASKED_STOP  2U
#define BOSH_ASKED_CLOCK 4U /* `due` has passed: a deadline, or time to re-arm; see the clock */

typedef struct bosh_waiter_cfg_t {
    uint32_t max_wakes;   /* parked waiters rung whose workers have not landed; at least 1 */
    uint32_t max_blocked; /* 0: no bound */
    void (*kick)(void *);
    void *kick_ctx;
} bosh_waiter_cfg_t;

/* register_hooks. Without it nothing here may be called; before open() everything finds an empty
 * table. */
void bosh_waiter_register(void);

/* child_init. The loop thread may run already. APR_ENOMEM. */
apr_status_t bosh_waiter_open(const bosh_waiter_cfg_t *cfg);

/* Cleanup of pchild, when no worker and no loop is left: frees the table. Later calls find
 * nothing. */
void bosh_waiter_close(void);

/* A new one, in a worker's hand. APR_ENOMEM: 65,536 wait already, or the table is closed. */
apr_status_t bosh_waiter_new(bosh_waiter_t *w);

/* Ends it in whatever hand it is. False: it had ended before. */
bool bosh_waiter_free(bosh_waiter_t w);

/* Its worker, WORKER or BLOCKED: what has been asked since the last call; forgets it. STOP is told
 * once. */
unsigned bosh_waiter_take(bosh_waiter_t w);

/*
 * WORKER -> PARKED, from the suspend hook. From here on the bell may be rung at any moment, until
 * bosh_waiter_unpark(); at once if something was asked meanwhile. due: when to ask CLOCK. parked: what
 * bosh_waiter_seize() returns; NULL: it is not to be seized.
 */
void bosh_waiter_park(bosh_waiter_t w, bosh_bell_t bell, apr_time_t due, void *parked);

/*
 * A wake. PARKED or BLOCKED -> SEIZED, if it may be and nothing else has been asked of it: its `parked`; the caller does
 * something about it, without waiting for anything, and calls release(). Else NULL, and a worker
 * comes or finds the flag. Any thread.
 */
void *bosh_waiter_seize(bosh_waiter_t w);

typedef enum bosh_seized_t {
    BOSH_SEIZED_WAITS,    /* for the next wake, or until `due` */
    BOSH_SEIZED_ANSWERED, /* it waits no longer; parked, it shall have a worker at `due` */
    BOSH_SEIZED_FOR_WORKER
} bosh_seized_t;

/* Back to the hand it was in. */
void bosh_waiter_release(bosh_waiter_t w, bosh_seized_t what, apr_time_t due);

/*
 * PARKED -> WORKER, from the resume hook, whatever the reason of the resume. After it nobody rings the
 * bell, but the loop may be late (bosh_bell.h). True: it was rung; the caller owes a bosh_waiter_landed().
 */
bool bosh_waiter_unpark(bosh_waiter_t w);

/* A wake in flight has landed: its worker is about to be free again. Lets the next one start. */
void bosh_waiter_landed(void);

/*
 * WORKER -> BLOCKED. *fd: the bell to poll, which the caller hushes when it is readable, and then takes; it goes
 * back in free() or unblock(). seizable: as `parked` of bosh_waiter_park(). APR_EBUSY: max_blocked are blocked. Else the
 * error of eventfd().
 */
apr_status_t bosh_waiter_block(bosh_waiter_t w, int *fd, void *seizable);

/* BLOCKED -> WORKER, once nobody has seized it. What was asked meanwhile is there to be taken. */
void bosh_waiter_unblock(bosh_waiter_t w);

#endif
