/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_lock: the arena's lock, a robust process-shared mutex inside the segment (never with priority
 * inheritance, which is ten times slower), and the wake-ups that follow it.
 *
 * Held for microseconds: no malloc, log, system call, XML or callback under it.
 */
#ifndef BOSH_LOCK_H
#define BOSH_LOCK_H

#include "bosh_arena.h"

/* The ways to the peers, made by the parent and inherited by every child: where the wake-ups go, and the
 * two ends of a socketpair for streams (bosh_handover.h), and of one for those in escrow (bosh_escrow.h). */
typedef struct bosh_wakers_t {
    uint32_t n;
    int *in;  /* in[peer - 1]: only that peer's loop reads it; NULL: no hand-over (tests) */
    int *out; /* out[peer - 1]: others write to it */
    int *kept_in, *kept_out; /* escrow, both ends in every process; NULL: there is none */
    int fd[];                /* fd[peer - 1]: eventfds */
} bosh_wakers_t;

typedef struct bosh_lock_t {
    bosh_arena_t *arena;
    bosh_wakers_t *wakers; /* NULL: nobody to wake (tests) */
    /* Called after the lock was taken over from a dead holder and the arena repaired, without the lock. */
    void (*on_repair)(void *ctx, uint32_t sessions_lost);
    /* Does what the peer `me` would be woken for; false: wake it. NULL: always wake it. */
    bool (*stand_in)(void *ctx);
    uint32_t me;
    void *ctx;      /* of both */
    uint64_t since; /* nanoseconds: when it was taken, if this taking is measured */
    bool repaired;  /* a repair happened in the section under way */
    uint32_t lost;
} bosh_lock_t;

/* Initializes the mutex in a freshly formatted arena; once, by the parent, before any fork. */
apr_status_t bosh_lock_init(bosh_arena_t *a);

/* Any thread of any child. Repairs the arena when the last holder died in it. Aborts the process only if
 * the mutex itself is unusable. */
void bosh_lock(bosh_lock_t *l);

/* Releases, then writes the eventfds of the peers noted in arena->wake, then reports a repair. */
void bosh_unlock(bosh_lock_t *l);

/* The same, but what our own loop would be woken for is done by the calling thread, when that can be: a worker that
 * has time for a turn of the loop. */
void bosh_unlock_and_do(bosh_lock_t *l);

#endif
