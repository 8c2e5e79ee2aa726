/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stays behind in a child that stops. Called by bosh_drain.c and bosh_loop.c on the loop thread.
 *
 * Invariant: nothing is ended here before it is known that others go on: while httpd itself may be stopping,
 * that decision is not ours.
 */
#include "bosh_linger.h"

#include <stdio.h>

static apr_time_t now_of(const bosh_linger_t *l)
{
    return l->streams->now;
}

/*
 * Whether somebody who has no slot is missing because of us. Of a younger generation there are to be as many
 * as we were, and those that linger go in the order of the table until there are. Our own, which replaces one
 * child at a time or has one too many, is short only when more of it linger than serve.
 */
static bool in_the_way(const bosh_linger_t *l)
{
    bosh_arena_t *a = l->streams->arena;
    uint32_t young = 0, serving = 0, lingering = 0, before_us = 0;

    bosh_lock(l->streams->lock);
    for (uint32_t i = 1; i <= a->h->sizes.peers; i++) {
        const bosh_peer_t *p = bosh_arena_peer(a, i);
        if (p->state == BOSH_PEER_LIVE) {
            young += bosh_loop_age(l->cfg, p->generation) > 0;
            serving += bosh_loop_age(l->cfg, p->generation) == 0;
        } else if (p->state == BOSH_PEER_DRAINING) {
            lingering++;
            before_us += i < l->streams->me;
        }
    }
    bosh_unlock(l->streams->lock);
    return bosh_loop_is_current(l->cfg) ? serving < lingering : young + before_us < l->peers;
}

static uint32_t end_them(const bosh_linger_t *l)
{
    uint32_t n = bosh_streams_end_bound(l->streams, BOSH_COND_REMOTE_CONNECTION_FAILED);

    bosh_lock(l->streams->lock);
    l->streams->arena->h->count.lost_drain += n;
    bosh_unlock(l->streams->lock);
    return n;
}

void bosh_linger_yield(bosh_linger_t *l)
{
    l->yielded += end_them(l);
}

static void look_for_slot(bosh_linger_t *l)
{
    if (l->cfg->crowded == NULL || !l->cfg->crowded() || !in_the_way(l)) {
        l->full_since = 0;
    } else if (l->full_since == 0) {
        l->full_since = now_of(l);
    } else if (now_of(l) - l->full_since >= BOSH_YIELD_TIME) {
        bosh_linger_yield(l);
    }
}

void bosh_linger_turn(bosh_linger_t *l, bool followed)
{
    bosh_streams_t *ss = l->streams;
    apr_time_t end;

    if (l->began == 0) {
        l->began = now_of(l);
    }
    if (ss->bound == 0) {
        l->over_at = l->over_at == 0 && l->most > 0 ? now_of(l) : l->over_at;
        return;
    }
    l->over_at = 0;
    l->most = ss->bound > l->most ? ss->bound : l->most;
    if (!followed || now_of(l) < l->look_at) {
        return;
    }
    l->look_at = now_of(l) + BOSH_LINGER_LOOK;
    end = l->began + l->cfg->drain_timeout;
    if (now_of(l) >= end) {
        l->late += end_them(l);
        return;
    }
    look_for_slot(l);
    l->look_at = end < l->look_at ? end : l->look_at;
}

apr_time_t bosh_linger_next(const bosh_linger_t *l)
{
    return l->streams->bound > 0 && l->look_at > now_of(l) ? l->look_at : BOSH_NEVER;
}

bool bosh_linger_report(const bosh_linger_t *l, char *line, size_t size)
{
    apr_time_t end = l->over_at != 0 ? l->over_at : now_of(l);
    uint32_t ended = l->late + l->yielded;

    snprintf(line, size,
             "peer %u (generation %u): %u streams with TLS stayed for up to %d s; %u ended by "
             "themselves, %u sessions were ended by BoshDrainTimeout, %u to make room for new "
             "children",
             l->streams->me, l->cfg->generation, l->most, (int)apr_time_sec(end - l->began),
             l->most > ended ? l->most - ended : 0, l->late, l->yielded);
    return l->most > 0;
}
