/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Peers: joining, watching, clearing up, leaving. Owns a pidfd for each other peer in use. Called by
 * bosh_loop.c.
 *
 * A peer is named by (number, serial), never by its pid alone. Whoever clears up after a dead peer first
 * puts his own pid into its record: so only one does, and when he dies on the way, those who watch the
 * record see that and finish the work.
 */
#include "bosh_peer.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bosh_point.h"
#include "bosh_rescue.h"
#include "bosh_wire.h"

#define SLICE 256 /* sessions per lock section */

typedef struct watch_t {
    uint32_t serial, pid; /* 0: not watched */
    int fd;               /* pidfd, or -1 where the system has none */
} watch_t;

typedef struct sight_t {
    uint32_t state, serial, pid;
} sight_t;

struct bosh_peers_t {
    const bosh_loop_cfg_t *cfg;
    bosh_lock_t *lock;
    bosh_arena_t *arena;
    bosh_streams_t *streams; /* NULL: not yet */
    uint32_t me, n;
    int epfd;
    watch_t *watch;     /* [1..n] */
    sight_t *sight;     /* [1..n]: what the table said at the last look */
    uint32_t siblings;  /* the most peers of our generation that were seen lately, */
    apr_time_t seen_at; /* ... when */
};

bosh_peers_t *bosh_peers_create(const bosh_loop_cfg_t *cfg, bosh_lock_t *lock, int epfd)
{
    bosh_peers_t *ps = calloc(1, sizeof(*ps));

    if (ps == NULL) {
        return NULL;
    }
    ps->cfg = cfg;
    ps->lock = lock;
    ps->arena = lock->arena;
    ps->n = lock->arena->h->sizes.peers;
    ps->epfd = epfd;
    ps->watch = calloc((size_t)ps->n + 1, sizeof(*ps->watch));
    ps->sight = calloc((size_t)ps->n + 1, sizeof(*ps->sight));
    if (ps->watch == NULL || ps->sight == NULL) {
        free(ps->watch);
        free(ps->sight);
        free(ps);
        return NULL;
    }
    for (uint32_t i = 0; i <= ps->n; i++) {
        ps->watch[i].fd = -1;
    }
    return ps;
}

void bosh_peers_serve(bosh_peers_t *ps, bosh_streams_t *ss)
{
    ps->streams = ss;
}

static void unwatch(bosh_peers_t *ps, uint32_t peer)
{
    watch_t *w = &ps->watch[peer];

    if (w->fd >= 0) {
        (void)epoll_ctl(ps->epfd, EPOLL_CTL_DEL, w->fd, NULL);
        close(w->fd);
    }
    w->fd = -1;
    w->serial = w->pid = 0;
}

void bosh_peers_destroy(bosh_peers_t *ps)
{
    for (uint32_t i = 1; i <= ps->n; i++) {
        unwatch(ps, i);
    }
    free(ps->watch);
    free(ps->sight);
    free(ps);
}

static void say(const bosh_peers_t *ps, bosh_log_t level, const char *line)
{
    if (ps->cfg->log != NULL) {
        ps->cfg->log(ps->cfg->log_ctx, level, line);
    }
}

/* ---- who lives ---- */

static int open_pidfd(uint32_t pid)
{
#ifdef SYS_pidfd_open
    return (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
#else
    (void)pid;
    errno = ENOSYS;
    return -1;
#endif
}

/* A zombie counts as dead for a pidfd; for kill() it lives until its parent has reaped it. */
static bool has_ended(const watch_t *w)
{
    struct pollfd p = {w->fd, POLLIN, 0};

    if (w->fd >= 0) {
        return poll(&p, 1, 0) == 1 && (p.revents & POLLIN);
    }
    return kill((pid_t)w->pid, 0) != 0 && errno == ESRCH;
}

static void look_at_peers(bosh_peers_t *ps, apr_time_t now)
{
    uint32_t same = 0;

    bosh_lock(ps->lock);
    for (uint32_t i = 1; i <= ps->n; i++) {
        const bosh_peer_t *p = bosh_arena_peer(ps->arena, i);
        ps->sight[i].state = p->state;
        ps->sight[i].serial = p->serial;
        ps->sight[i].pid = p->pid;
        same += p->state != BOSH_PEER_FREE && p->generation == ps->cfg->generation;
    }
    if (ps->me != 0) {
        bosh_arena_peer(ps->arena, ps->me)->heartbeat = now;
    }
    bosh_unlock(ps->lock);
    if (same >= ps->siblings || now - ps->seen_at > BOSH_SIBLING_TIME) {
        ps->siblings = same;
        ps->seen_at = now;
    }
}

/* Watches the process this peer has now; false: it has ended already. */
static bool watch_peer(bosh_peers_t *ps, uint32_t peer)
{
    watch_t *w = &ps->watch[peer];
    const sight_t *now = &ps->sight[peer];
    struct epoll_event ev = {.events = EPOLLIN, .data = {.u64 = BOSH_PEER_TAG(peer)}};

    if (w->serial != now->serial || w->pid != now->pid) {
        unwatch(ps, peer);
        w->serial = now->serial;
        w->pid = now->pid;
        w->fd = open_pidfd(now->pid);
        if (w->fd >= 0) {
            (void)epoll_ctl(ps->epfd, EPOLL_CTL_ADD, w->fd, &ev); /* the sweep looks, too */
        }
    }
    return !has_ended(w);
}

/* ---- after a death ---- */

/* Hands everything of `from` to `heir` (0: nobody yet); returns the streams that are lost by that. */
static uint32_t inherit(bosh_peers_t *ps, apr_time_t now, uint32_t dead, uint32_t heir)
{
    bosh_ix from = 1;
    uint32_t lost = 0;
    bool more;

    do {
        bosh_lock(ps->lock);
        bosh_ix left = ps->arena->h->fresh_session - from; /* what follows was never touched */
        more = left > 0 && bosh_session_peer_died(ps->arena, now, dead, heir, &from,
                                                  left < SLICE ? left : SLICE, &lost);
        bosh_unlock(ps->lock);
    } while (more);
    return lost;
}

static void free_peer(bosh_peers_t *ps, uint32_t peer, uint32_t serial)
{
    bosh_peer_t *p = bosh_arena_peer(ps->arena, peer);

    bosh_lock(ps->lock);
    if (p->serial == serial) {
        p->state = BOSH_PEER_FREE;
        p->streams = p->parked = 0;
    }
    bosh_unlock(ps->lock);
}

/* What waits for a dead peer reaches nobody; and whomever it did not get to wake is woken. */
static void discard(bosh_peers_t *ps, uint32_t peer)
{
    const bosh_wakers_t *w = ps->cfg->wakers;

    if (w == NULL) {
        return;
    }
    if (w->in != NULL) {
        bosh_wire_discard(w, peer);
    }
    bosh_escrow_discard(w, peer);
    bosh_lock(ps->lock);
    ps->arena->wake_all = true;
    bosh_unlock(ps->lock);
}

/* The process in ps->watch[peer] has ended: clears up after it unless somebody else does. */
static void clear_up(bosh_peers_t *ps, apr_time_t now, uint32_t peer)
{
    bosh_peer_t *p = bosh_arena_peer(ps->arena, peer);
    uint32_t serial = ps->watch[peer].serial, pid = ps->watch[peer].pid, rescued = 0, lost;
    char line[240];
    bool mine;

    unwatch(ps, peer);
    bosh_lock(ps->lock);
    mine = p->state != BOSH_PEER_FREE && p->serial == serial && p->pid == pid;
    if (mine) {
        p->pid = (uint32_t)getpid();
        p->state = BOSH_PEER_LEAVING; /* nobody gives it a stream any more */
    }
    bosh_unlock(ps->lock);
    if (!mine) {
        return;
    }
    BOSH_POINT("clearing-up");
    if (ps->streams != NULL) {
        rescued = bosh_rescue(ps->streams, peer);
    }
    lost = inherit(ps, now, peer, ps->me);
    BOSH_POINT("cleared-up");
    discard(ps, peer);
    free_peer(ps, peer, serial);
    snprintf(line, sizeof(line),
             "BH204: peer %u (process %u) died without leaving: %u streams were rescued, "
             "%u upstream streams were lost, their clients get remote-connection-failed",
             peer, pid, rescued, lost);
    say(ps, lost > 0 ? BOSH_LOG_WARNING : BOSH_LOG_NOTICE, line);
}

void bosh_peers_event(bosh_peers_t *ps, apr_time_t now, uint32_t peer)
{
    if (peer >= 1 && peer <= ps->n && ps->watch[peer].serial != 0 && has_ended(&ps->watch[peer])) {
        clear_up(ps, now, peer);
    }
}

void bosh_peers_sweep(bosh_peers_t *ps, apr_time_t now)
{
    look_at_peers(ps, now);
    for (uint32_t i = 1; i <= ps->n; i++) {
        if (i == ps->me) {
            continue;
        }
        if (ps->sight[i].state == BOSH_PEER_FREE) {
            unwatch(ps, i);
        } else if (!watch_peer(ps, i)) {
            clear_up(ps, now, i);
        }
    }
}

/* ---- joining and leaving ---- */

/* Marks in `of` the owners of sessions that are no living peers: 0, a FREE one, or ours, which is new. */
static bool find_orphans(bosh_peers_t *ps, bool *of)
{
    bosh_ix i = 1;
    bool any = false, more;

    do {
        bosh_lock(ps->lock);
        uint32_t max = SLICE;
        for (; i < ps->arena->h->fresh_session && max > 0; i++, max--) {
            const bosh_session_t *s = bosh_arena_session(ps->arena, i);
            uint32_t o = s->link.owner;
            if (s->state != BOSH_ST_FREE && o <= ps->n &&
                (o == 0 || o == ps->me || bosh_arena_peer(ps->arena, o)->state == BOSH_PEER_FREE)) {
                of[o] = any = true;
            }
        }
        more = i < ps->arena->h->fresh_session;
        bosh_unlock(ps->lock);
    } while (more);
    return any;
}

static void adopt_orphans(bosh_peers_t *ps, apr_time_t now)
{
    bool *of = calloc((size_t)ps->n + 1, sizeof(*of));
    uint32_t lost = 0;
    char line[120];

    if (of != NULL && find_orphans(ps, of)) {
        for (uint32_t i = 0; i <= ps->n; i++) {
            lost += of[i] ? inherit(ps, now, i, ps->me) : 0;
        }
        snprintf(line, sizeof(line),
                 "peer %u took over sessions that nobody owned (%u streams lost)", ps->me, lost);
        say(ps, BOSH_LOG_INFO, line);
    }
    free(of);
}

void bosh_peers_announce(bosh_peers_t *ps)
{
    bosh_lock(ps->lock);
    bosh_arena_peer(ps->arena, ps->me)->state = BOSH_PEER_LIVE;
    ps->arena->h->closing = 0;
    for (uint32_t i = 1; i <= ps->n; i++) {
        if (bosh_arena_peer(ps->arena, i)->state == BOSH_PEER_DRAINING) {
            bosh_arena_mail(ps->arena, i, BOSH_MAIL_SESSION, 0);
        }
    }
    bosh_unlock(ps->lock);
}

apr_status_t bosh_peers_join(bosh_peers_t *ps, apr_time_t now, uint32_t *me)
{
    int tries;

    for (tries = 0; tries < 2; tries++) {
        bosh_lock(ps->lock);
        ps->me = bosh_arena_peer_claim(ps->arena, (uint32_t)getpid(), ps->cfg->generation, now);
        if (ps->me != 0) {
            /* Not to be chosen yet: a stream given to us now would look like an orphan of our number. */
            bosh_arena_peer(ps->arena, ps->me)->state = BOSH_PEER_LEAVING;
        }
        bosh_unlock(ps->lock);
        if (ps->me != 0) {
            BOSH_POINT("joining");
            adopt_orphans(ps, now);
            *me = ps->me;
            return APR_SUCCESS;
        }
        bosh_peers_sweep(ps, now); /* are they all alive? */
    }
    return APR_ENOSPC;
}

static void set_state(bosh_peers_t *ps, bosh_peer_state_t state)
{
    bosh_lock(ps->lock);
    bosh_arena_peer(ps->arena, ps->me)->state = state;
    bosh_unlock(ps->lock);
}

uint32_t bosh_peers_siblings(const bosh_peers_t *ps)
{
    return ps->siblings;
}

void bosh_peers_drain(bosh_peers_t *ps)
{
    set_state(ps, BOSH_PEER_DRAINING);
}

void bosh_peers_withdraw(bosh_peers_t *ps)
{
    set_state(ps, BOSH_PEER_LEAVING);
}

uint32_t bosh_peers_heir(bosh_peers_t *ps)
{
    uint32_t heir = 0, newest = 0;

    bosh_lock(ps->lock);
    for (uint32_t i = 1; i <= ps->n; i++) {
        const bosh_peer_t *p = bosh_arena_peer(ps->arena, i);
        if (i != ps->me && p->state == BOSH_PEER_LIVE && (heir == 0 || p->generation > newest)) {
            heir = i;
            newest = p->generation;
        }
    }
    bosh_unlock(ps->lock);
    return heir;
}

bool bosh_peers_followed(bosh_peers_t *ps, bool done, bool *moved)
{
    bool found = false;

    *moved = true;
    bosh_lock(ps->lock);
    bosh_arena_peer(ps->arena, ps->me)->moved = done;
    for (uint32_t i = 1; i <= ps->n; i++) {
        const bosh_peer_t *p = bosh_arena_peer(ps->arena, i);
        bool younger = bosh_loop_age(ps->cfg, p->generation) > 0;
        found = found || (p->state == BOSH_PEER_LIVE && younger);
        *moved = *moved && (p->state != BOSH_PEER_DRAINING || younger || p->moved);
    }
    bosh_unlock(ps->lock);
    return found;
}

void bosh_peers_leave(bosh_peers_t *ps, apr_time_t now)
{
    uint32_t serial = bosh_arena_peer(ps->arena, ps->me)->serial;

    bosh_peers_withdraw(ps);
    (void)inherit(ps, now, ps->me, bosh_peers_heir(ps));
    free_peer(ps, ps->me, serial);
    ps->me = 0;
}
