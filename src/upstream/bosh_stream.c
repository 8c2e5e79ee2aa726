/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The streams of a loop: their objects, phases and timers. Called by bosh_loop.c on the loop thread.
 *
 *   CONNECT --connected--> HEADER --<stream:stream>--> FEATURES --features--> OPEN --CLOSE item--> CLOSING
 *      |                     ^                                                  |                     |
 *      |                     +------------- HEADER item (restart) --------------+                     |
 *      +--- failure, end, </stream:stream>, deadline: bosh_stream_over() ---> CLOSED <----------------+
 *
 * Before HEADER there may be TLS (bosh_secure.c).
 *
 * Invariants: table[i] is the only object of session i; it is freed in bosh_stream_settle() alone (and in
 * look(), before it is used), so no function below an entry point (look, event, run, sweep) finds its stream
 * freed under it.
 * After each entry point the epoll registration and the timer agree with the stream's state.
 */
#include "bosh_stream.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "bosh_clock.h"
#include "bosh_dial.h"
#include "bosh_down.h"
#include "bosh_multi.h"
#include "bosh_secure.h"
#include "bosh_tls.h"
#include "bosh_up.h"
#include "bosh_undo.h"

/* ---- one of them ---- */

bosh_stream_t *bosh_stream_new(bosh_streams_t *ss, bosh_ix index, uint32_t serial)
{
    bosh_stream_t *st = calloc(1, sizeof(*st));

    if (st == NULL) {
        ss->recheck = true;
        return NULL;
    }
    st->index = index;
    st->serial = serial;
    st->tick_at = st->link_at = st->attempt_at = st->quiet_at = BOSH_NEVER;
    bosh_conn_init(&st->conn);
    ss->table[index] = st;
    BOSH_STAT_ADD(ss, streams, 1);
    return st;
}

static bosh_stream_t *find_stream(const bosh_streams_t *ss, bosh_ix index, uint32_t serial)
{
    bosh_stream_t *st = index > 0 && index <= ss->ntable ? ss->table[index] : NULL;

    return st != NULL && st->serial == serial ? st : NULL;
}

void bosh_stream_hang_up(bosh_streams_t *ss, bosh_stream_t *st)
{
    bosh_secure_reset(ss, st);
    if (st->conn.state != BOSH_CONN_NONE) {
        ss->bound -= bosh_tls_is_on(&st->conn);
        bosh_escrow_forget(ss, st);
        if (st->registered) { /* before close: a duplicate elsewhere would keep it registered */
            (void)epoll_ctl(ss->epfd, EPOLL_CTL_DEL, st->conn.fd, NULL);
        }
        if (st->given && !bosh_tls_is_on(&st->conn)) {
            bosh_conn_drop(&st->conn);
        } else {
            bosh_conn_close(&st->conn);
        }
        BOSH_STAT_ADD(ss, sockets, -1);
    }
    free(st->pend);
    st->pend = NULL;
    st->pend_off = st->pend_n = 0;
    st->registered = st->hup = st->stalled = st->want_write = false;
    st->attempt_at = st->quiet_at = BOSH_NEVER;
}

void bosh_stream_free(bosh_streams_t *ss, bosh_stream_t *st)
{
    bosh_stream_hang_up(ss, st);
    bosh_dial_end(ss, st);
    bosh_timers_set(&ss->timers, &st->timer, BOSH_NEVER);
    ss->table[st->index] = NULL;
    BOSH_STAT_ADD(ss, streams, -1);
    free(st);
}

void bosh_stream_rest(bosh_streams_t *ss, bosh_stream_t *st)
{
    if (st->registered) {
        (void)epoll_ctl(ss->epfd, EPOLL_CTL_DEL, st->conn.fd, NULL);
        st->registered = false;
    }
    bosh_timers_set(&ss->timers, &st->timer, BOSH_NEVER);
}

/* ---- what the pump needs ---- */

bosh_session_t *bosh_stream_peek(bosh_streams_t *ss, bosh_stream_t *st)
{
    bosh_session_t *s;

    bosh_lock(ss->lock);
    s = bosh_arena_get(ss->arena, st->index, st->serial);
    if (s == NULL || s->link.owner != ss->me) {
        bosh_unlock(ss->lock);
        st->gone = true;
        return NULL;
    }
    return s;
}

bosh_session_t *bosh_stream_lock(bosh_streams_t *ss, bosh_stream_t *st)
{
    bosh_session_t *s = bosh_stream_peek(ss, st);

    if (s != NULL) {
        bosh_arena_touch(ss->arena, s);
    }
    return s;
}

void bosh_stream_unlock(bosh_streams_t *ss)
{
    bosh_unlock(ss->lock);
}

const bosh_limits_t *bosh_stream_limits(const bosh_streams_t *ss, const bosh_stream_t *st)
{
    return st->target != NULL && st->target->limits != NULL ? st->target->limits : ss->cfg->limits;
}

apr_interval_time_t bosh_stream_keepalive(const bosh_stream_t *st)
{
    return st->target != NULL ? st->target->keepalive : apr_time_from_sec(BOSH_UPSTREAM_KEEPALIVE);
}

void bosh_stream_phase(bosh_stream_t *st, bosh_session_t *s, bosh_phase_t phase,
                       apr_time_t deadline)
{
    s->link.phase = st->phase = (uint8_t)phase;
    s->link.deadline = st->link_at = deadline;
}

/* ---- the end of a stream ---- */

void bosh_stream_over(bosh_streams_t *ss, bosh_stream_t *st, bosh_cond_t cond, const char *reason)
{
    bool opened = st->phase == BOSH_LINK_OPEN || st->phase == BOSH_LINK_CLOSING;
    bosh_session_t *s;

    if ((cond == BOSH_COND_REMOTE_CONNECTION_FAILED || cond == BOSH_COND_REMOTE_STREAM_ERROR) &&
        !opened) {
        BOSH_STAT_ADD(ss, connect_failures, 1);
        bosh_stream_complain(ss, st, cond, reason);
    } else {
        bosh_stream_log(ss, st, cond == BOSH_COND_NONE ? BOSH_LOG_DEBUG : BOSH_LOG_INFO,
                        "stream over: %s", reason);
    }
    if ((st->phase >= BOSH_LINK_HEADER || bosh_secure_in_the_clear(st)) && !st->said_end &&
        !st->midway) {
        bosh_down_say(ss, st, BOSH_STREAM_END, sizeof(BOSH_STREAM_END) - 1);
    }
    bosh_stream_hang_up(ss, st);
    s = bosh_stream_lock(ss, st);
    if (s == NULL) {
        return;
    }
    bosh_session_link_over(ss->arena, ss->now, s, cond);
    s->link.deadline = BOSH_NEVER;
    st->tick_at = bosh_session_tick(ss->arena, ss->now, s, bosh_stream_limits(ss, st));
    st->gone = bosh_arena_get(ss->arena, st->index, st->serial) == NULL;
    bosh_stream_unlock(ss);
    st->phase = BOSH_LINK_CLOSED;
    st->link_at = BOSH_NEVER;
}

/* ---- entry points ---- */

static uint32_t poll_events(const bosh_stream_t *st)
{
    unsigned intent = 0, wants;

    if (!st->stalled && !st->blocked) {
        intent |= BOSH_CONN_READ;
    }
    if (st->want_write) {
        intent |= BOSH_CONN_WRITE;
    }
    wants = st->conn.ops->wants(&st->conn, intent);
    return (wants & BOSH_CONN_READ ? (uint32_t)EPOLLIN : 0) |
           (wants & BOSH_CONN_WRITE ? (uint32_t)EPOLLOUT : 0);
}

static void register_poll(bosh_streams_t *ss, bosh_stream_t *st)
{
    struct epoll_event ev;
    int op;

    ev.events = poll_events(st);
    ev.data.u64 = BOSH_STREAM_TAG(st->index, st->serial);
    if (st->hup && ev.events == 0) {
        /* Broken while we may not read: epoll would report that for ever. */
        if (st->registered) {
            (void)epoll_ctl(ss->epfd, EPOLL_CTL_DEL, st->conn.fd, NULL);
            st->registered = false;
        }
        return;
    }
    if (st->registered && st->polled == ev.events) {
        return;
    }
    op = st->registered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (epoll_ctl(ss->epfd, op, st->conn.fd, &ev) != 0) {
        bosh_stream_over(ss, st, BOSH_COND_INTERNAL_SERVER_ERROR, "epoll refuses the socket");
        return;
    }
    st->registered = true;
    st->hup = false;
    st->polled = ev.events;
}

void bosh_stream_settle(bosh_streams_t *ss, bosh_stream_t *st)
{
    apr_time_t at;

    if (st->write_dead && !st->gone && st->conn.state == BOSH_CONN_UP &&
        bosh_secure_in_the_clear(st)) {
        bosh_dial_failed(ss, st, "writing failed");
    }
    if (st->write_dead && !st->gone && st->conn.state == BOSH_CONN_UP && !st->stalled &&
        !st->blocked) {
        /* The server's last words, then the end; if it said nothing, ours. */
        if (bosh_up_pump(ss, st) && st->conn.state == BOSH_CONN_UP && !st->gone) {
            bosh_stream_over(ss, st,
                             st->phase == BOSH_LINK_CLOSING ? BOSH_COND_NONE
                                                            : BOSH_COND_REMOTE_CONNECTION_FAILED,
                             "writing failed");
        }
    }
    if (!st->gone && st->conn.state != BOSH_CONN_NONE) {
        register_poll(ss, st);
    }
    if (st->gone) {
        bosh_stream_free(ss, st);
        return;
    }
    ss->halted = ss->halted || st->stalled || st->blocked;
    if (st->phase > BOSH_LINK_FEATURES) {
        bosh_dial_end(ss, st);
    }
    if (st->phase == BOSH_LINK_OPEN && st->quiet_at == BOSH_NEVER &&
        bosh_stream_keepalive(st) > 0) {
        st->quiet_at = ss->now + bosh_stream_keepalive(st);
    }
    at = st->tick_at < st->link_at ? st->tick_at : st->link_at;
    at = at < st->attempt_at ? at : st->attempt_at;
    bosh_timers_set(&ss->timers, &st->timer, at < st->quiet_at ? at : st->quiet_at);
}

/* Both directions as far as they go. */
static void move_bytes(bosh_streams_t *ss, bosh_stream_t *st)
{
    if (st->stalled || st->blocked) {
        bosh_up_pump(ss, st);
    }
    /* With want_write poll will tell; trying at each message would only cost a system call. */
    if (st->phase == BOSH_LINK_OPEN && st->conn.state == BOSH_CONN_UP && !st->gone &&
        !st->want_write) {
        bosh_down_pump(ss, st);
    }
}

/* The session is over for its client; the stream follows. */
static void wind_down(bosh_streams_t *ss, bosh_stream_t *st)
{
    if (st->phase < BOSH_LINK_OPEN) {
        bosh_stream_over(ss, st, BOSH_COND_NONE, "the session ended before the stream was open");
        return;
    }
    move_bytes(ss, st);
    if (st->phase == BOSH_LINK_OPEN && st->link_at == BOSH_NEVER && !st->gone) {
        st->link_at = ss->now + BOSH_FLUSH_TIME; /* what precedes the CLOSE item takes its time */
    }
}

/* Whether there is nothing to see yet: the session's socket is on its way, from us or to us. */
static bool in_transit(bosh_streams_t *ss, bosh_ix index, uint32_t serial)
{
    bosh_session_t *s;
    bool transit = false;

    bosh_lock(ss->lock);
    s = bosh_arena_get(ss->arena, index, serial);
    if (s != NULL && (s->link.flags & BOSH_LINK_TRANSIT)) {
        transit = true;
        if (s->link.owner == ss->me) {
            s->link.flags &= (uint8_t)~BOSH_LINK_MAILED;
            ss->orphans = ss->orphans || s->link.giver == 0;
        }
    }
    bosh_unlock(ss->lock);
    return transit;
}

void bosh_stream_look(bosh_streams_t *ss, bosh_ix index, uint32_t serial)
{
    bosh_stream_t *st = index > 0 && index <= ss->ntable ? ss->table[index] : NULL;
    bosh_session_t *s;
    apr_time_t tick;
    uint8_t phase;
    bool over;

    if (index == 0 || index > ss->ntable) {
        return;
    }
    if (st != NULL && st->serial != serial) { /* one of them is old; the arena knows which */
        bosh_lock(ss->lock);
        over = bosh_arena_get(ss->arena, index, serial) == NULL;
        bosh_unlock(ss->lock);
        if (over) {
            return;
        }
        bosh_stream_free(ss, st);
        st = NULL;
    }
    if ((st == NULL || st->given) && in_transit(ss, index, serial)) {
        return;
    }
    if (st == NULL && (st = bosh_stream_new(ss, index, serial)) == NULL) {
        return;
    }
    s = bosh_stream_lock(ss, st);
    if (s == NULL) {
        bosh_stream_settle(ss, st);
        return;
    }
    st->given = false; /* it has come back */
    s->link.flags &= (uint8_t)~BOSH_LINK_MAILED;
    tick = bosh_session_tick(ss->arena, ss->now, s, bosh_stream_limits(ss, st));
    st->gone = bosh_arena_get(ss->arena, index, serial) == NULL;
    phase = s->link.phase;
    over = bosh_multi_state(s) != BOSH_ST_LIVE;
    bosh_stream_unlock(ss);
    if (!st->gone) {
        st->tick_at = tick > ss->now ? tick : ss->now + 1000; /* run() must come to an end */
        st->phase = phase;
        if (phase == BOSH_LINK_CLOSED || phase == BOSH_LINK_NONE) {
            bosh_stream_hang_up(ss, st);
            st->link_at = BOSH_NEVER;
        } else if (over && phase != BOSH_LINK_CLOSING) {
            wind_down(ss, st);
        } else if (phase == BOSH_LINK_CONNECT) {
            if (st->dial == NULL && st->conn.state == BOSH_CONN_NONE) {
                bosh_dial_start(ss, st);
            }
        } else {
            move_bytes(ss, st);
        }
    }
    bosh_stream_settle(ss, st);
}

/* TLS has to write before it can read on. */
static bool crossed(const bosh_stream_t *st, uint32_t events)
{
    return (events & EPOLLOUT) && !st->stalled && !st->blocked &&
           (st->conn.ops->wants(&st->conn, BOSH_CONN_READ) & BOSH_CONN_WRITE);
}

void bosh_stream_event(bosh_streams_t *ss, bosh_ix index, uint32_t serial, uint32_t events)
{
    bosh_stream_t *st = find_stream(ss, index, serial);
    bool was_open;

    if (st != NULL && bosh_dial_is_on(st)) {
        bosh_dial_event(ss, st);
        bosh_stream_settle(ss, st);
        return;
    }
    if (st == NULL || st->given || st->conn.state == BOSH_CONN_NONE) {
        return; /* of a socket that this turn has closed */
    }
    if (st->secure != BOSH_SECURE_NO) {
        bosh_secure_event(ss, st, events);
        bosh_stream_settle(ss, st);
        return;
    }
    was_open = st->phase == BOSH_LINK_OPEN;
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) || crossed(st, events)) {
        if (st->stalled || st->blocked) {
            st->hup = true;
        } else {
            bosh_up_pump(ss, st);
        }
    }
    if (st->conn.state == BOSH_CONN_UP && !st->gone &&
        ((events & EPOLLOUT) || st->restart || (!was_open && st->phase == BOSH_LINK_OPEN))) {
        st->want_write = false;
        bosh_down_pump(ss, st);
    }
    bosh_stream_settle(ss, st);
}

void bosh_streams_resolved(bosh_streams_t *ss)
{
    uint32_t index, serial;
    bosh_stream_t *st;

    while (bosh_resolver_waiter(ss->resolver, &index, &serial)) {
        st = find_stream(ss, index, serial);
        if (st != NULL && bosh_dial_is_on(st)) {
            bosh_dial_event(ss, st);
            bosh_stream_settle(ss, st);
        }
    }
}

/* A deadline of the phase has passed. */
static void out_of_time(bosh_streams_t *ss, bosh_stream_t *st)
{
    switch (st->phase) {
    case BOSH_LINK_CONNECT:
        bosh_dial_late(ss, st);
        break;
    case BOSH_LINK_HEADER:
        bosh_stream_over(ss, st, BOSH_COND_REMOTE_CONNECTION_FAILED, "no stream header in time");
        break;
    case BOSH_LINK_FEATURES:
        bosh_stream_over(ss, st, BOSH_COND_REMOTE_CONNECTION_FAILED, "no stream features in time");
        break;
    default:
        bosh_stream_over(ss, st, BOSH_COND_NONE, "the server did not close its side in time");
        break;
    }
}

void bosh_streams_run(bosh_streams_t *ss)
{
    bosh_timer_t *t;

    while ((t = bosh_timers_first(&ss->timers)) != NULL && t->at <= ss->now) {
        bosh_stream_t *st = (bosh_stream_t *)t;

        if (ss->now >= st->link_at) {
            out_of_time(ss, st);
            bosh_stream_settle(ss, st);
        } else if (ss->now >= st->attempt_at) {
            bosh_dial_attempt(ss, st);
            bosh_stream_settle(ss, st);
        } else if (ss->now >= st->quiet_at) {
            bosh_down_keep_alive(ss, st);
            bosh_stream_settle(ss, st);
        } else {
            bosh_stream_look(ss, st->index, st->serial);
        }
    }
}

void bosh_streams_sweep(bosh_streams_t *ss)
{
    bool halted = ss->halted;

    ss->halted = false;
    if (ss->recheck) {
        ss->recheck = false;
        bosh_streams_recheck(ss);
    }
    for (uint32_t i = 1; halted && i <= ss->ntable; i++) {
        bosh_stream_t *st = ss->table[i];
        if (st != NULL && !st->given && (st->stalled || st->blocked)) {
            move_bytes(ss, st);
            bosh_stream_settle(ss, st);
        }
    }
    bosh_escrow_sweep(ss);
    bosh_streams_complaints(ss);
}
