/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A child that has been told to stop. Called by bosh_loop.c on the loop thread.
 *
 * Here, and nowhere else, is decided what kind of end it is. A restart shows in httpd's generation. A
 * graceful-stop shows in the parent's pid file, which is gone; where a child cannot see that file, it is one
 * when nobody who could take over has been there for BOSH_ALONE_TIME. A restart into a version of the module
 * that cannot read this memory shows in the arena, and is a stop.
 *
 * Invariant: a held request is released with an empty answer only when somebody will serve its session, or
 * the session has ended; in doubt it waits.
 */
#include "bosh_drain.h"

#include <stdio.h>

static void say(const bosh_drain_t *d, const char *line)
{
    if (d->cfg->log != NULL) {
        d->cfg->log(d->cfg->log_ctx, BOSH_LOG_INFO, line);
    }
}

static apr_time_t now_of(const bosh_drain_t *d)
{
    return d->streams->now;
}

static bool is_crowded(const bosh_drain_t *d)
{
    return d->cfg->crowded != NULL && d->cfg->crowded();
}

/* ---- what kind of end ---- */

static bool is_abandoned(const bosh_drain_t *d)
{
    return __atomic_load_n(&d->streams->arena->h->abandoned, __ATOMIC_RELAXED) != 0;
}

static void look_at_parent(bosh_drain_t *d)
{
    if (now_of(d) < d->look_at) {
        return;
    }
    if (is_abandoned(d)) {
        d->parent = BOSH_PARENT_STOPS; /* for those who know this memory it is the same */
    } else if (d->cfg->parent != NULL) {
        d->parent = d->cfg->parent();
    }
    /* A stop is one for all. Where others stay, somebody has removed the file of a server that runs. */
    d->doubted = d->parent == BOSH_PARENT_STOPS && bosh_peers_heir(d->peers) != 0;
    if (d->doubted) {
        d->parent = BOSH_PARENT_UNKNOWN;
    }
    d->look_at = now_of(d) + (d->released ? BOSH_TELL_TIME : BOSH_LOOK_TIME);
}

/*
 * A restart: until there is a younger child, whoever asks anew meets a server that takes no connection, and what
 * comes for him has to wait; and a hundred clients that come back at once take the processor from those who
 * hand over and take over. So held requests stay, and are answered as ever, until all streams are there.
 */
static bool is_followed(const bosh_drain_t *d)
{
    apr_interval_time_t waited = now_of(d) - d->began;
    bool moved;

    if (bosh_peers_followed(d->peers, bosh_drain_done(d), &moved) &&
        (moved || waited >= BOSH_MOVE_TIME)) {
        return true;
    }
    return waited >= BOSH_FOLLOW_TIME || is_crowded(d);
}

/* Somebody goes on serving the sessions for certain. */
static bool goes_on(const bosh_drain_t *d)
{
    if (!bosh_loop_is_current(d->cfg)) {
        return is_followed(d);
    }
    return now_of(d) - d->began >= (d->doubted ? BOSH_ALONE_TIME : BOSH_DOUBT_TIME) &&
           (d->parent == BOSH_PARENT_RUNS ||
            (d->parent == BOSH_PARENT_UNKNOWN && bosh_peers_heir(d->peers) != 0));
}

/* That nobody comes is the only sign of a graceful-stop. */
static bool is_unseen(const bosh_drain_t *d)
{
    return bosh_loop_is_current(d->cfg) && d->parent == BOSH_PARENT_UNKNOWN;
}

/* The next child finds the streams, even if we have gone by then. */
static bool may_leave(const bosh_drain_t *d)
{
    return d->cfg->escrow && !is_unseen(d);
}

/* How long to wait for somebody to give to. When httpd has no room for another child we are in the way. */
static apr_interval_time_t patience(const bosh_drain_t *d)
{
    if (!is_unseen(d) && !is_crowded(d)) {
        return BOSH_LATE_TIME;
    }
    return may_leave(d) ? BOSH_YIELD_TIME : BOSH_ALONE_TIME;
}

/* ---- what follows ---- */

static void release(bosh_drain_t *d)
{
    d->released = true;
    if (d->cfg->release != NULL) {
        d->cfg->release();
    }
}

/* Ends what is ours now; again and again, for a stream may have been on its way to us. */
static void end_sessions(bosh_drain_t *d, const char *why, bool stops)
{
    bosh_arena_t *a = d->streams->arena;
    char line[200];
    uint32_t n;

    d->look_at = now_of(d) + BOSH_TELL_TIME;
    bosh_lock(d->streams->lock);
    a->h->closing = stops || bosh_loop_is_current(d->cfg); /* until a new child joins */
    bosh_unlock(d->streams->lock);
    n = bosh_streams_end_all(d->streams, BOSH_COND_SYSTEM_SHUTDOWN);
    if (n == 0) {
        return;
    }
    bosh_lock(d->streams->lock);
    *(stops ? &a->h->count.lost_stop : &a->h->count.lost_drain) += n;
    bosh_unlock(d->streams->lock);
    snprintf(line, sizeof(line), "peer %u: %s; %u sessions end with system-shutdown", d->me, why,
             n);
    say(d, line);
}

static void give_up(bosh_drain_t *d)
{
    if (d->handover != NULL) {
        bosh_handover_review(d->handover); /* what nobody took comes back, and ends here */
    }
    if (d->over_at == 0) {
        d->over_at = now_of(d);
    }
    if (is_abandoned(d)) {
        end_sessions(d, "the new version of mod_bosh cannot take over", true);
    } else if (d->parent == BOSH_PARENT_STOPS) {
        end_sessions(d, "the server is stopping", true);
    } else if (is_unseen(d)) {
        end_sessions(d, "no other child is there, so the server is stopping", true);
    } else {
        end_sessions(d, "no other child has taken over", false);
    }
}

/* True: nobody to give to, for too long. */
static bool is_alone(bosh_drain_t *d)
{
    if (d->handover != NULL && bosh_handover_give(d->handover)) {
        d->alone_since = 0;
    } else if (d->alone_since == 0) {
        d->alone_since = now_of(d);
    }
    return d->alone_since != 0 && now_of(d) - d->alone_since >= patience(d);
}

/* All else here is done, for long, and still there are streams that somebody might have. */
static bool is_stuck(const bosh_drain_t *d)
{
    return d->asked_at != 0 && now_of(d) - d->asked_at >= BOSH_DRAIN_TIME &&
           bosh_streams_open(d->streams) > d->streams->bound;
}

/* The sessions have ended, and each child ends its own: the last held requests get their answers. */
static void linger(bosh_drain_t *d)
{
    if (now_of(d) >= d->look_at) {
        give_up(d);
    }
    if (!d->released && now_of(d) - d->over_at >= BOSH_FAREWELL_TIME) {
        release(d);
    }
}

void bosh_drain_turn(bosh_drain_t *d, bool asked)
{
    bool alone;

    if (d->began == 0) {
        d->began = now_of(d);
        bosh_peers_drain(d->peers);
        bosh_peers_sweep(d->peers, now_of(d)); /* watches those who have just come */
        d->linger.peers = bosh_peers_siblings(d->peers);
    }
    if (d->over_at != 0) {
        linger(d);
        return;
    }
    if (asked && d->asked_at == 0) {
        d->asked_at = now_of(d);
    }
    look_at_parent(d);
    if (d->parent == BOSH_PARENT_STOPS) {
        give_up(d);
        return;
    }
    /* In doubt nothing is given to those who may be told to stop in the next moment. */
    alone = (!d->doubted || d->released) && is_alone(d);
    if (!d->released && goes_on(d)) {
        release(d);
    }
    bosh_linger_turn(&d->linger, d->released);
    if (alone || is_stuck(d)) {
        if (!may_leave(d)) {
            give_up(d);
        } else if (d->asked_at != 0) {
            bosh_linger_yield(&d->linger);
            d->left = true;
        }
    }
}

apr_time_t bosh_drain_next(const bosh_drain_t *d)
{
    apr_time_t at, t;

    if (d->over_at != 0) {
        return d->look_at;
    }
    at = d->cfg->parent != NULL || !d->released ? d->look_at : BOSH_NEVER;
    t = d->handover != NULL ? bosh_handover_next(d->handover) : BOSH_NEVER;
    at = t < at ? t : at;
    t = bosh_linger_next(&d->linger);
    at = t < at ? t : at;
    t = d->alone_since + patience(d);
    /* Past it, we are being asked to go when all else here is done, which wakes the loop. */
    return d->alone_since != 0 && t > now_of(d) && t < at ? t : at;
}

bool bosh_drain_done(const bosh_drain_t *d)
{
    if (d->over_at != 0 || d->left) {
        return true;
    }
    return d->handover != NULL ? bosh_handover_done(d->handover)
                               : bosh_streams_open(d->streams) == 0;
}
