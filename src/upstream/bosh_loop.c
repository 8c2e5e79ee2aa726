/* SPDX-License-Identifier: Apache-2.0 */
/*
 * THE thread of a child. Owns the epoll set; everything that happens upstream happens in turn(), on this
 * thread: mail, timers, the sweep, sockets, the hand-over. Started in child_init, joined before pchild goes.
 *
 * Invariant: the loop sleeps only after it has set peer.asleep under the lock with an empty mailbox, so
 * whoever mails it afterwards writes its eventfd: no message waits longer than it takes to wake up.
 */
#include "bosh_loop.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "bosh_adopt.h"
#include "bosh_clock.h"
#include "bosh_drain.h"
#include "bosh_handover.h"
#include "bosh_peer.h"
#include "bosh_point.h"
#include "bosh_stream.h"

#define MAIL_MAX   256
#define EVENTS_MAX 256
#define SWEEP      apr_time_from_sec(1)
#define STOP_TIME  apr_time_from_sec(1)
#define WAKE_TAG                                                                                   \
    UINT64_C(0) /* our eventfd, edge-triggered; streams and peers have tags of their own */
#define HAND_TAG UINT64_C(1) /* our socketpair */

struct bosh_loop_t {
    bosh_loop_cfg_t cfg;
    bosh_lock_t lock;
    bosh_peers_t *peers;
    bosh_streams_t *streams;
    bosh_handover_t *handover; /* NULL: no socketpairs */
    pthread_t thread;
    bool running; /* main thread: there is a thread to join */
    sem_t runs;   /* it is on its way */
    uint32_t me;
    int epfd;
    int evfd; /* ours of cfg.wakers */
    pid_t parent;
    int draining, stopping, forced; /* set by other threads, atomically */
    int finished;                   /* ... and by ours */
    bool more;                      /* mail */
    pthread_mutex_t seat;           /* whoever has it is the loop: see bosh_loop_stand_in() */
    apr_time_t wakes_at;            /* when the sleeping loop takes it again, at the latest */
    bosh_drain_t drain;             /* once `draining` was seen */
    apr_time_t now, next_sweep;
    bosh_mail_t mail[MAIL_MAX];
    struct epoll_event events[EVENTS_MAX];
    bosh_loop_stats_t last; /* after the end */
};

static bool is_set(const int *flag)
{
    return __atomic_load_n(flag, __ATOMIC_ACQUIRE) != 0;
}

static void set(int *flag)
{
    __atomic_store_n(flag, 1, __ATOMIC_RELEASE);
}

static void say(bosh_loop_t *l, bosh_log_t level, const char *line)
{
    if (l->cfg.log != NULL) {
        l->cfg.log(l->cfg.log_ctx, level, line);
    }
}

/* ---- what a turn does ---- */

/* True when there may be more mail. */
static bool take_mail(bosh_loop_t *l)
{
    bool overflow = false;
    uint32_t n;

    bosh_lock(&l->lock);
    n = bosh_arena_mail_take(l->lock.arena, l->me, l->mail, MAIL_MAX, &overflow);
    bosh_unlock(&l->lock);
    for (uint32_t i = 0; i < n; i++) {
        if (l->mail[i].what & BOSH_MAIL_WAITER) {
            l->cfg.wake(l->mail[i].what & ~BOSH_MAIL_WAITER, l->mail[i].tag);
        } else {
            bosh_stream_look(l->streams, l->mail[i].what, l->mail[i].tag);
        }
    }
    if (overflow) {
        bosh_streams_recheck(l->streams);
        l->cfg.wake_all();
    }
    return n == MAIL_MAX;
}

/* Timers of streams, and what a look has set going. */
static void serve(bosh_loop_t *l)
{
    bosh_resolver_run(l->streams->resolver, l->now);
    bosh_streams_resolved(l->streams);
    bosh_streams_run(l->streams);
}

static void do_what_is_due(bosh_loop_t *l)
{
    if (l->streams->orphans) {
        bosh_adopt_orphans(l->streams);
    }
    if (is_set(&l->draining) && !is_set(&l->forced)) {
        bosh_drain_turn(&l->drain, is_set(&l->stopping));
    }
    if (l->cfg.next_deadline() <= l->now) {
        l->cfg.expire(l->now);
    }
    serve(l);
    if (l->now >= l->next_sweep) {
        l->next_sweep = l->now + SWEEP;
        bosh_peers_sweep(l->peers, l->now);
        bosh_streams_sweep(l->streams);
    }
}

static apr_time_t next_due(bosh_loop_t *l, apr_time_t until)
{
    apr_time_t at = l->next_sweep, t = l->cfg.next_deadline();

    at = t < at ? t : at;
    t = bosh_streams_next(l->streams);
    at = t < at ? t : at;
    t = bosh_resolver_next(l->streams->resolver);
    at = t < at ? t : at;
    at = until < at ? until : at;
    if (l->drain.began != 0 && !is_set(&l->forced)) {
        t = bosh_drain_next(&l->drain);
        at = t < at ? t : at;
    }
    return at;
}

/* Announces that we sleep; false: there is mail, so we must not. */
static bool may_sleep(bosh_loop_t *l)
{
    bosh_peer_t *p = bosh_arena_peer(l->lock.arena, l->me);
    bool may;

    bosh_lock(&l->lock);
    may = p->mail_n == 0 && !p->overflow;
    p->asleep = may;
    bosh_unlock(&l->lock);
    return may;
}

/* At once: else what we read now would make us write our own eventfd, for a held request of this child. */
static void wake_up(bosh_loop_t *l)
{
    bosh_lock(&l->lock);
    bosh_arena_peer(l->lock.arena, l->me)->asleep = 0;
    bosh_unlock(&l->lock);
}

/* Waits for events; while it sleeps, a worker may stand in. Returns how many there are. */
static int await_events(bosh_loop_t *l, int timeout)
{
    int n;

    if (timeout > 0) {
        pthread_mutex_unlock(&l->seat);
    }
    n = epoll_wait(l->epfd, l->events, EVENTS_MAX, timeout);
    if (n < 0) {
        /* Stopped, and continued: what has come meanwhile goes before what is late by now. */
        n = epoll_wait(l->epfd, l->events, EVENTS_MAX, 0);
    }
    if (timeout > 0) {
        pthread_mutex_lock(&l->seat);
        wake_up(l);
    }
    return n;
}

static void look_at_sockets(bosh_loop_t *l, int timeout)
{
    int n = await_events(l, timeout);

    l->now = l->streams->now = bosh_clock_now();
    BOSH_STAT_ADD(l->streams, turns, 1);
    for (int i = 0; i < n; i++) {
        uint64_t tag = l->events[i].data.u64;
        if (tag == HAND_TAG) {
            bosh_adopt_receive(l->streams);
        } else if (bosh_resolver_is_tag(tag)) {
            bosh_resolver_event(l->streams->resolver, tag, l->events[i].events, l->now);
        } else if (tag >> 32 != 0) {
            bosh_stream_event(l->streams, (bosh_ix)(tag >> 32), (uint32_t)tag, l->events[i].events);
        } else if (tag != WAKE_TAG) {
            bosh_peers_event(l->peers, l->now, (uint32_t)(tag & 0x7fffffff));
        }
    }
}

/* Sleeps first: whether the loop may end shows in what a turn has done. */
static void turn(bosh_loop_t *l, apr_time_t until)
{
    int timeout = 0;

    if (!l->more) {
        l->wakes_at = next_due(l, until);
        timeout = l->wakes_at <= l->now ? 0 : (int)((l->wakes_at - l->now + 999) / 1000);
    }
    if (timeout > 0 && !may_sleep(l)) {
        timeout = 0;
    }
    look_at_sockets(l, timeout);
    l->more = take_mail(l);
    do_what_is_due(l);
}

/* ---- a worker in its place ---- */

/* Rounds of mail before the loop's thread is woken after all. */
#define STAND_IN_ROUNDS 3

bool bosh_loop_stand_in(void *baton)
{
    bosh_loop_t *l = baton;
    bool done = false, wake;

    if (pthread_mutex_trylock(&l->seat) != 0) {
        return false; /* it is awake, or will be woken by who is in its place */
    }
    BOSH_STAT_ADD(l->streams, stand_ins, 1);
    l->now = l->streams->now = bosh_clock_now();
    for (int i = 0; !done && i < STAND_IN_ROUNDS; i++) {
        done = !take_mail(l);
        serve(l);
        done = done && may_sleep(l);
    }
    wake = !done || l->streams->orphans || next_due(l, BOSH_NEVER) < l->wakes_at;
    pthread_mutex_unlock(&l->seat);
    if (wake) {
        bosh_loop_kick(l);
    }
    return true;
}

/* ---- the thread ---- */

static bool has_mail(bosh_loop_t *l)
{
    const bosh_peer_t *p = bosh_arena_peer(l->lock.arena, l->me);
    bool has;

    bosh_lock(&l->lock);
    has = p->mail_n > 0 || p->overflow;
    bosh_unlock(&l->lock);
    return has;
}

/* Whether there is nothing left to do but to go. */
static bool may_end(bosh_loop_t *l)
{
    if (!is_set(&l->stopping)) {
        return false;
    }
    if (is_set(&l->forced) || !is_set(&l->draining)) {
        return true;
    }
    if (l->drain.over_at != 0) {
        return true;
    }
    /* Mail may be about a new session. */
    return l->drain.began != 0 && !has_mail(l) && bosh_drain_done(&l->drain);
}

static void report(bosh_loop_t *l, uint32_t ended)
{
    char line[320];

    if (l->handover != NULL && bosh_handover_report(l->handover, line, sizeof(line))) {
        say(l, BOSH_LOG_INFO, line);
    }
    if (bosh_linger_report(&l->drain.linger, line, sizeof(line))) {
        say(l, BOSH_LOG_INFO, line);
    }
    if (ended > 0) {
        snprintf(line, sizeof(line), "peer %u stopped: %u sessions ended with system-shutdown",
                 l->me, ended);
        say(l, BOSH_LOG_INFO, line);
    }
}

static void shut_down(bosh_loop_t *l)
{
    apr_time_t deadline;
    uint32_t n;

    l->now = l->streams->now = bosh_clock_now();
    deadline = l->now + STOP_TIME;
    n = bosh_streams_end_all(l->streams, BOSH_COND_SYSTEM_SHUTDOWN);
    bosh_lock(&l->lock);
    l->lock.arena->h->count.lost_stop += n;
    bosh_unlock(&l->lock);
    while (l->streams->stats.sockets > 0 && l->now < deadline) {
        turn(l, deadline);
    }
    (void)take_mail(l); /* those of our own held requests that are still there */
    bosh_streams_abandon(l->streams);
    BOSH_POINT("leaving");
    bosh_escrow_close(l->streams);
    BOSH_POINT("emptied");
    bosh_peers_leave(l->peers, l->now);
    report(l, n);
}

/* As if this process died: what it has is found by those who come. */
static void leave_behind(bosh_loop_t *l)
{
    uint32_t kept, lost;
    char line[160];

    bosh_peers_withdraw(l->peers);
    kept = bosh_streams_leave(l->streams, &lost);
    bosh_lock(&l->lock);
    l->lock.arena->h->count.lost_drain += lost;
    bosh_unlock(&l->lock);
    snprintf(line, sizeof(line),
             "peer %u: no other child has taken over; %u streams stay behind for the next one, "
             "%u sessions end with system-shutdown",
             l->me, kept, lost);
    say(l, BOSH_LOG_INFO, line);
    report(l, 0);
}

static void *run(void *baton)
{
    bosh_loop_t *l = baton;

    pthread_setname_np(pthread_self(), "bosh-loop");
    pthread_mutex_lock(&l->seat); /* and never leaves it: nobody takes it when the loop has ended */
    l->now = l->streams->now = bosh_clock_now();
    bosh_peers_announce(l->peers);
    sem_post(&l->runs);
    while (!may_end(l)) {
        turn(l, BOSH_NEVER);
    }
    if (l->drain.left && !is_set(&l->forced)) {
        leave_behind(l);
    } else {
        shut_down(l);
    }
    set(&l->finished);
    return NULL;
}

/* ---- the outside ---- */

static void on_repair(void *ctx, uint32_t lost)
{
    bosh_loop_t *l = ctx;
    char line[160];

    snprintf(line, sizeof(line),
             "BH203: a process died while it changed the session table; repaired, %u sessions lost",
             lost);
    say(l, lost > 0 ? BOSH_LOG_WARNING : BOSH_LOG_INFO, line);
    bosh_loop_kick(l); /* mailboxes were emptied: look at everything */
}

static void release(bosh_loop_t *l)
{
    if (l->handover != NULL) {
        bosh_handover_destroy(l->handover);
    }
    if (l->streams != NULL) {
        l->last = l->streams->stats;
        bosh_streams_destroy(l->streams);
    }
    if (l->peers != NULL) {
        bosh_peers_destroy(l->peers);
    }
    if (l->epfd >= 0) {
        close(l->epfd);
    }
    l->handover = NULL;
    l->streams = NULL;
    l->peers = NULL;
    l->epfd = -1;
}

static apr_status_t stop_cleanup(void *baton)
{
    return bosh_loop_retire(baton);
}

/*
 * httpd's signals belong to its own threads. Waits until the thread has a processor: a peer that is LIVE before
 * is given streams that nobody serves, for a third of a second when many children start on a busy machine.
 */
static apr_status_t start_thread(bosh_loop_t *l)
{
    sigset_t all, before;
    int rv;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    sem_init(&l->runs, 0, 0);
    rv = pthread_create(&l->thread, NULL, run, l);
    l->running = rv == 0;
    while (l->running && sem_wait(&l->runs) != 0) {
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rv;
}

static bool join_handover(bosh_loop_t *l)
{
    struct epoll_event ev = {.events = EPOLLIN, .data = {.u64 = HAND_TAG}};

    l->handover = bosh_handover_create(&l->cfg, l->streams);
    return l->handover != NULL &&
           epoll_ctl(l->epfd, EPOLL_CTL_ADD, l->cfg.wakers->in[l->me - 1], &ev) == 0;
}

apr_status_t bosh_loop_start(bosh_loop_t **loop, const bosh_loop_cfg_t *cfg, apr_pool_t *pchild)
{
    bosh_loop_t *l = apr_pcalloc(pchild, sizeof(*l));
    struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data = {.u64 = WAKE_TAG}};
    apr_status_t rv = APR_ENOMEM;

    l->cfg = *cfg;
    l->lock.arena = cfg->arena;
    l->lock.wakers = cfg->wakers;
    l->lock.on_repair = on_repair;
    l->lock.ctx = l;
    l->parent = getppid();
    l->lock.stand_in = cfg->stand_in ? bosh_loop_stand_in : NULL;
    pthread_mutex_init(&l->seat, NULL);
    l->evfd = -1;
    l->epfd = epoll_create1(EPOLL_CLOEXEC);
    if (l->epfd < 0) {
        return apr_get_os_error();
    }
    l->peers = bosh_peers_create(&l->cfg, &l->lock, l->epfd);
    if (l->peers == NULL) {
        goto failed;
    }
    rv = bosh_peers_join(l->peers, bosh_clock_now(), &l->me);
    if (rv != APR_SUCCESS) {
        goto failed;
    }
    rv = APR_ENOMEM;
    l->streams = bosh_streams_create(&l->cfg, &l->lock, l->me, l->epfd);
    if (l->streams == NULL) {
        goto leave;
    }
    l->lock.me = l->me;
    bosh_peers_serve(l->peers, l->streams);
    if (cfg->wakers->in != NULL && !join_handover(l)) {
        goto leave;
    }
    l->drain.cfg = &l->cfg;
    l->drain.peers = l->peers;
    l->drain.streams = l->streams;
    l->drain.handover = l->handover;
    l->drain.me = l->me;
    l->drain.linger.cfg = &l->cfg;
    l->drain.linger.streams = l->streams;
    l->evfd = cfg->wakers->fd[l->me - 1];
    rv =
        epoll_ctl(l->epfd, EPOLL_CTL_ADD, l->evfd, &ev) == 0 ? start_thread(l) : apr_get_os_error();
    if (rv != APR_SUCCESS) {
        goto leave;
    }
    apr_pool_pre_cleanup_register(pchild, l, stop_cleanup);
    *loop = l;
    return APR_SUCCESS;

leave:
    bosh_peers_leave(l->peers, bosh_clock_now());
failed:
    release(l);
    return rv;
}

uint32_t bosh_loop_peer(const bosh_loop_t *loop)
{
    return loop->me;
}

bosh_lock_t *bosh_loop_lock(bosh_loop_t *loop)
{
    return &loop->lock;
}

void bosh_loop_kick(void *loop)
{
    const bosh_loop_t *l = loop;
    uint64_t one = 1;

    if (l->evfd >= 0 && write(l->evfd, &one, sizeof(one)) < 0) {
        /* Full: it is readable then, which is all we want. */
        return;
    }
}

void bosh_loop_drain(bosh_loop_t *loop)
{
    set(&loop->draining);
    bosh_loop_kick(loop);
}

/* prefork leaves from inside its handlers of SIGTERM and SIGHUP, each blocked there and nowhere else; the
 * other MPMs block everything but SIGTERM. */
static bool in_signal_handler(void)
{
    sigset_t now;

    return pthread_sigmask(SIG_BLOCK, NULL, &now) == 0 && sigismember(&now, SIGUSR2) == 0 &&
           (sigismember(&now, SIGTERM) == 1 || sigismember(&now, SIGHUP) == 1);
}

/* Waits for the end of a draining loop. httpd's own handlers would swallow SIGTERM here; blocked, it queues. */
static void await_end(bosh_loop_t *l, bool forced)
{
    struct timespec slice = {0, 50000000};
    apr_time_t since = bosh_clock_now();
    sigset_t term, before;

    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &term, &before);
    while (!is_set(&l->finished)) {
        if (!is_set(&l->forced) && forced) {
            set(&l->forced);
            since = bosh_clock_now();
            bosh_loop_kick(l);
        }
        if (forced && bosh_clock_now() - since > BOSH_FORCE_TIME) {
            _exit(
                0); /* the signal has interrupted this very thread while it held the arena's lock */
        }
        if (sigtimedwait(&term, NULL, &slice) == SIGTERM || getppid() != l->parent) {
            forced = true;
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

apr_status_t bosh_loop_retire(bosh_loop_t *loop)
{
    BOSH_POINT("exit");
    if (loop->running && is_set(&loop->draining)) {
        set(&loop->stopping);
        bosh_loop_kick(loop);
        await_end(loop, in_signal_handler());
    }
    return bosh_loop_stop(loop);
}

apr_status_t bosh_loop_stop(bosh_loop_t *loop)
{
    int rv;

    if (!loop->running) {
        return APR_SUCCESS;
    }
    set(&loop->forced);
    set(&loop->stopping);
    bosh_loop_kick(loop);
    rv = pthread_join(loop->thread, NULL);
    loop->running = false;
    release(loop);
    return rv;
}

void bosh_loop_stats(const bosh_loop_t *loop, bosh_loop_stats_t *out)
{
    const bosh_loop_stats_t *s = loop->streams != NULL ? &loop->streams->stats : &loop->last;

#define COPY(field) out->field = __atomic_load_n(&s->field, __ATOMIC_RELAXED)
    COPY(turns);
    COPY(stand_ins);
    COPY(reads);
    COPY(writes);
    COPY(bytes_in);
    COPY(bytes_out);
    COPY(connects);
    COPY(connect_failures);
    COPY(handshakes);
    COPY(resumed);
    COPY(streams);
    COPY(sockets);
#undef COPY
}
