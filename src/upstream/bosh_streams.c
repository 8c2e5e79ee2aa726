/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All streams of a loop at once. Called by bosh_loop.c and bosh_peer.c on the loop thread; made and destroyed
 * by the main thread, when there is none.
 *
 * Invariant: the lock is taken for at most SLICE records at a time.
 */
#include "bosh_stream.h"

#include <stdlib.h>

#include "bosh_clock.h"
#include "bosh_dial.h"
#include "bosh_multi.h"
#include "bosh_tls.h"

/* ---- the set ---- */

bosh_streams_t *bosh_streams_create(const bosh_loop_cfg_t *cfg, bosh_lock_t *lock, uint32_t me,
                                    int epfd)
{
    bosh_streams_t *ss = calloc(1, sizeof(*ss));

    if (ss == NULL) {
        return NULL;
    }
    ss->cfg = cfg;
    ss->lock = lock;
    ss->arena = lock->arena;
    ss->me = me;
    ss->epfd = epfd;
    ss->now = bosh_clock_now();
    ss->ntable = lock->arena->h->sizes.sessions;
    ss->table = calloc((size_t)ss->ntable + 1, sizeof(bosh_stream_t *));
    ss->complaints = calloc(cfg->ntargets + 1, sizeof(*ss->complaints));
    ss->sockets = bosh_sockets_create();
    ss->resolver = bosh_resolver_create(cfg->resolver, epfd);
    ss->breaker = bosh_breaker_create(bosh_dial_random, NULL);
    if (ss->table == NULL || ss->complaints == NULL || ss->sockets == NULL ||
        ss->resolver == NULL || ss->breaker == NULL || !bosh_timers_init(&ss->timers, ss->ntable)) {
        if (ss->sockets != NULL) {
            bosh_sockets_destroy(ss->sockets);
        }
        if (ss->resolver != NULL) {
            bosh_resolver_destroy(ss->resolver);
        }
        bosh_breaker_destroy(ss->breaker);
        free(ss->table);
        free(ss->complaints);
        free(ss);
        return NULL;
    }
    bosh_escrow_open(ss);
    return ss;
}

void bosh_streams_destroy(bosh_streams_t *ss)
{
    for (uint32_t i = 1; i <= ss->ntable; i++) {
        if (ss->table[i] != NULL) {
            bosh_stream_free(ss, ss->table[i]);
        }
    }
    while (ss->nspare > 0) {
        bosh_split_destroy(ss->spare[--ss->nspare]);
    }
    bosh_timers_destroy(&ss->timers);
    bosh_resolver_destroy(ss->resolver);
    bosh_breaker_destroy(ss->breaker);
    bosh_sockets_destroy(ss->sockets);
    free(ss->complaints);
    free(ss->table);
    free(ss);
}

apr_time_t bosh_streams_next(const bosh_streams_t *ss)
{
    bosh_timer_t *t = bosh_timers_first(&ss->timers);

    return t != NULL ? t->at : BOSH_NEVER;
}

/* ---- all of them ---- */

#define SLICE 256

typedef struct name_t {
    bosh_ix index;
    uint32_t serial;
} name_t;

/* Lists up to SLICE sessions of ours among the records from *from on, and moves *from. With `cond` set
 * those that live are ended on the way. */
static uint32_t list_ours(bosh_streams_t *ss, bosh_ix *from, name_t *out, bosh_cond_t cond,
                          uint32_t *ended)
{
    uint32_t n = 0, max = SLICE;

    bosh_lock(ss->lock);
    for (; *from < ss->arena->h->fresh_session && max > 0; (*from)++, max--) {
        bosh_session_t *s = bosh_arena_session(ss->arena, *from);
        if (s->state == BOSH_ST_FREE || s->link.owner != ss->me) {
            continue;
        }
        if (cond != BOSH_COND_COUNT && (s->link.flags & BOSH_LINK_TRANSIT)) {
            continue; /* it goes back to its giver when we go */
        }
        if (cond != BOSH_COND_COUNT && bosh_multi_state(s) == BOSH_ST_LIVE) {
            bosh_session_end(ss->arena, ss->now, s, cond);
            (*ended)++;
            max = max > 8 ? max - 7 : 1; /* costs more than a look */
        }
        out[n].index = *from;
        out[n++].serial = s->serial;
    }
    if (*from >= ss->arena->h->fresh_session) {
        *from = ss->ntable + 1; /* the rest was never used: not even touched */
    }
    bosh_unlock(ss->lock);
    return n;
}

static uint32_t look_at_all(bosh_streams_t *ss, bosh_cond_t cond)
{
    name_t name[SLICE];
    bosh_ix from = 1;
    uint32_t ended = 0;

    while (from <= ss->ntable) {
        uint32_t n = list_ours(ss, &from, name, cond, &ended);
        for (uint32_t i = 0; i < n; i++) {
            bosh_stream_look(ss, name[i].index, name[i].serial);
        }
    }
    return ended;
}

void bosh_streams_recheck(bosh_streams_t *ss)
{
    for (uint32_t i = 1; i <= ss->ntable; i++) {
        bosh_stream_t *st = ss->table[i];
        if (st != NULL && !st->given) {
            if (bosh_stream_peek(ss, st) != NULL) {
                bosh_stream_unlock(ss);
            }
            bosh_stream_settle(ss, st);
        }
    }
    look_at_all(ss, BOSH_COND_COUNT);
}

uint32_t bosh_streams_end_all(bosh_streams_t *ss, bosh_cond_t cond)
{
    return look_at_all(ss, cond);
}

uint32_t bosh_streams_end_bound(bosh_streams_t *ss, bosh_cond_t cond)
{
    uint32_t n = 0;

    for (uint32_t i = 1; i <= ss->ntable && ss->bound > 0; i++) {
        bosh_stream_t *st = ss->table[i];
        bosh_session_t *s =
            st != NULL && bosh_tls_is_on(&st->conn) ? bosh_stream_lock(ss, st) : NULL;
        if (s == NULL) {
            continue;
        }
        if (bosh_multi_state(s) == BOSH_ST_LIVE) {
            bosh_session_end(ss->arena, ss->now, s, cond);
            n++;
        }
        bosh_stream_unlock(ss);
        bosh_stream_look(ss, st->index, st->serial);
    }
    return n;
}

static bool is_open(const bosh_stream_t *st)
{
    return st != NULL && !st->given && st->phase != BOSH_LINK_CLOSED && st->phase != BOSH_LINK_NONE;
}

uint32_t bosh_streams_open(const bosh_streams_t *ss)
{
    uint32_t n = 0;

    for (uint32_t i = 1; i <= ss->ntable && ss->stats.streams > 0; i++) {
        n += is_open(ss->table[i]);
    }
    return n;
}

uint32_t bosh_streams_leave(bosh_streams_t *ss, uint32_t *lost)
{
    uint32_t kept = 0;

    *lost = 0;
    for (uint32_t i = 1; i <= ss->ntable; i++) {
        bosh_stream_t *st = ss->table[i];
        bool closing = st != NULL && st->phase == BOSH_LINK_CLOSING;
        if (is_open(st) && !st->parked && st->phase != BOSH_LINK_CONNECT) {
            bosh_stream_over(ss, st, BOSH_COND_SYSTEM_SHUTDOWN, "no other process can have it");
            bosh_stream_settle(ss, st);
            *lost += !closing;
        } else if (st != NULL) {
            kept += is_open(st);
            st->given = true; /* not to be shut down */
        }
    }
    return kept;
}

void bosh_streams_abandon(bosh_streams_t *ss)
{
    for (uint32_t i = 1; i <= ss->ntable; i++) {
        bosh_stream_t *st = ss->table[i];
        if (is_open(st)) {
            bosh_stream_over(ss, st, BOSH_COND_SYSTEM_SHUTDOWN, "the server is stopping");
            bosh_stream_settle(ss, st);
        }
    }
}
