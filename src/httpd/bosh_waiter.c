/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_waiter.c owns the table of a child's waiting requests: their names, what has been asked of them, their deadlines, and
 * the queue of wakes. Workers come through bosh_hold.c and bosh_park.c, the loop thread through the functions of
 * bosh_hold.h that are defined here and bosh_waiter_seize(), httpd's main and listener threads through
 * bosh_hold_stop(). Everything is under one mutex.
 *
 *     rows    [ waiter | waiter | ... ]   a row is named (index, gen), gen changes with each use
 *     timers  parked rows that nobody has woken, earliest `due` first
 *     queue   row <-> row <-> row         parked rows whose wake must wait, oldest first
 *
 * Invariants, whenever the mutex is free:
 * - A row has its timer set or is on the queue only while PARKED; never both; neither once it is rung.
 * - `rung` means that the row's bell has been rung, and its worker has not come yet. A parked row is rung once.
 * - flying = parked rows that are rung + workers that have unparked a rung row and not landed yet.
 * - A PARKED or BLOCKED row with something asked is rung or queued: no wake can be lost.
 * - A SEIZED row is touched by the thread that has seized it, for as long as that takes; all others only ask.
 *
 * Why wakes are bounded: event shuts idle keep-alive connections down when all workers of a child look busy, so
 * waking thousands of requests at once would cost their clients a reconnect each. The bound is on wakes between the
 * ring of the bell and the moment the worker is about to be free again.
 */
#include "bosh_waiter.h"

#include <pthread.h>
#include <stdlib.h>

#include "bosh_clock.h"
#include "bosh_timer.h"

#define NONE     UINT32_MAX
#define MAX_ROWS 65536 /* as much memory as is used of them: a page at a time */

/* Workers that write to slow clients keep their wakes flying. When none has landed for this long while others queue,
 * the bound is on the wrong side: as many as it allows are let through besides the stuck ones. */
#define STALL apr_time_from_msec(200)

/* The loop is told to look again after this long at the latest, as it does anyway for its sweep. So a hold of the
 * usual length never needs to kick it, which would cost both threads more than the hold itself. */
#define HORIZON apr_time_from_sec(1)

typedef enum hand_t { FREE, WORKER, PARKED, SEIZED, BLOCKED } hand_t;

typedef struct row_t {
    bosh_timer_t timer; /* first: a timer is its row; set while PARKED and nobody has asked */
    uint32_t gen;
    uint32_t next, prev; /* FREE: the free list (next only). PARKED: the queue */
    bosh_bell_t bell; /* PARKED: that of its connection's set, BLOCKED: its worker's; else none */
    uint8_t hand;
    uint8_t asked; /* BOSH_ASKED_* */
    bool rung;
    bool queued;
    bool told_stop;
    bool async;   /* counted in table.async, from its first park on */
    uint8_t was;  /* SEIZED: the hand it was in */
    void *parked; /* PARKED, BLOCKED: what may be seized; NULL: not that */
} row_t;

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t released; /* a row is SEIZED no longer */
    bool open;
    bool stopping;
    bool kick_due; /* the loop must look again: kick it once the mutex is free */
    bosh_waiter_cfg_t cfg;

    row_t *rows;
    uint32_t nrows; /* used at least once */
    uint32_t free_row;

    bosh_timers_t timers;
    apr_time_t announced; /* what the loop was told last: it sleeps at most until then */

    uint32_t queue_head, queue_tail;
    uint32_t flying;
    uint32_t slack;   /* wakes allowed beyond max_wakes, see STALL */
    apr_time_t stall; /* when the queue counts as stalled */

    uint32_t async, blocked;
} table;

/* False when the table is closed, and when this very thread has the mutex: prefork ends a child from within a signal
 * handler, which may have interrupted us here. Such a child has nobody left to serve. */
static bool lock(void)
{
    if (pthread_mutex_lock(&table.mutex) != 0) {
        return false;
    }
    if (!table.open) {
        pthread_mutex_unlock(&table.mutex);
        return false;
    }
    return true;
}

static void unlock(void)
{
    bool kick = table.kick_due;

    table.kick_due = false;
    pthread_mutex_unlock(&table.mutex);
    if (kick && table.cfg.kick != NULL) {
        table.cfg.kick(table.cfg.kick_ctx);
    }
}

static row_t *find(bosh_waiter_t w)
{
    row_t *x = w.id < table.nrows ? &table.rows[w.id] : NULL;

    return x != NULL && x->gen == w.gen && x->hand != FREE ? x : NULL;
}

/* find(), and if it does, under the lock. settled: the row is in no hand but the caller's or the MPM's. */
static row_t *enter(bosh_waiter_t w, bool settled)
{
    row_t *x;

    if (!lock()) {
        return NULL;
    }
    while ((x = find(w)) != NULL && settled && x->hand == SEIZED) {
        pthread_cond_wait(&table.released, &table.mutex);
    }
    if (x == NULL) {
        unlock();
    }
    return x;
}

static uint32_t id_of(const row_t *x)
{
    return (uint32_t)(x - table.rows);
}

/* The loop need not be told of a deadline that is not before the one it sleeps for. */
static void announce(apr_time_t due)
{
    if (due < table.announced) {
        table.announced = due;
        table.kick_due = true;
    }
}

/* ---- the queue of wakes ---- */

static void queue_add(row_t *x)
{
    x->queued = true;
    x->next = NONE;
    x->prev = table.queue_tail;
    if (table.queue_tail == NONE) {
        table.queue_head = id_of(x);
        table.stall = bosh_clock_now() + STALL;
        announce(table.stall);
    } else {
        table.rows[table.queue_tail].next = id_of(x);
    }
    table.queue_tail = id_of(x);
}

static void queue_remove(row_t *x)
{
    if (!x->queued) {
        return;
    }
    x->queued = false;
    if (x->prev == NONE) {
        table.queue_head = x->next;
    } else {
        table.rows[x->prev].next = x->next;
    }
    if (x->next == NONE) {
        table.queue_tail = x->prev;
    } else {
        table.rows[x->next].prev = x->prev;
    }
    if (table.queue_head == NONE) {
        table.slack = 0;
    }
}

static bool may_fly(void)
{
    return table.flying < table.cfg.max_wakes + table.slack;
}

/* Something was asked of x: sees to it that a worker comes. Returns the bell that the caller has to ring for
 * that, or none. */
static bosh_bell_t summon(row_t *x)
{
    if (x->rung || x->queued || (x->hand != PARKED && x->hand != BLOCKED)) {
        return BOSH_NO_BELL;
    }
    if (x->hand == PARKED) {
        bosh_timers_set(&table.timers, &x->timer, BOSH_NEVER);
        if (!may_fly()) {
            queue_add(x);
            return BOSH_NO_BELL;
        }
        table.flying++;
    }
    x->rung = true;
    return x->bell;
}

/* A system call under the mutex: where one is not called for each stanza. */
static void summon_now(row_t *x)
{
    bosh_bell_ring(summon(x));
}

static void start_queued(void)
{
    while (table.queue_head != NONE && may_fly()) {
        row_t *x = &table.rows[table.queue_head];

        queue_remove(x);
        summon_now(x);
    }
}

static void land(void)
{
    table.flying--;
    if (table.queue_head != NONE) {
        table.stall = bosh_clock_now() + STALL;
        start_queued();
    }
}

/* PARKED or BLOCKED -> WORKER. True: it was rung. */
static bool reclaim(row_t *x)
{
    bool rung = x->rung;

    bosh_timers_set(&table.timers, &x->timer, BOSH_NEVER);
    queue_remove(x);
    x->rung = false;
    x->bell = BOSH_NO_BELL;
    x->hand = WORKER;
    return rung;
}

void bosh_waiter_register(void)
{
    pthread_mutexattr_t attr;

    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutex_init(&table.mutex, &attr);
    pthread_mutexattr_destroy(&attr);
    pthread_cond_init(&table.released, NULL);
}

apr_status_t bosh_waiter_open(const bosh_waiter_cfg_t *cfg)
{
    row_t *rows = calloc(MAX_ROWS, sizeof(*rows));
    bosh_timers_t timers;

    if (rows == NULL) {
        return APR_ENOMEM;
    }
    if (!bosh_timers_init(&timers, MAX_ROWS)) {
        free(rows);
        return APR_ENOMEM;
    }
    pthread_mutex_lock(&table.mutex); /* the loop may run already and ask for deadlines */
    table.cfg = *cfg;
    table.rows = rows;
    table.timers = timers;
    table.nrows = table.flying = table.slack = table.async = table.blocked = 0;
    table.free_row = table.queue_head = table.queue_tail = NONE;
    table.announced = BOSH_NEVER;
    table.stopping = table.kick_due = false;
    table.open = true;
    unlock();
    return APR_SUCCESS;
}

void bosh_waiter_close(void)
{
    if (!lock()) {
        return;
    }
    table.open = false;
    free(table.rows);
    bosh_timers_destroy(&table.timers);
    table.rows = NULL;
    table.nrows = 0;
    unlock();
}

apr_status_t bosh_waiter_new(bosh_waiter_t *w)
{
    row_t *x = NULL;

    if (!lock()) {
        return APR_ENOMEM;
    }
    if (table.free_row != NONE) {
        x = &table.rows[table.free_row];
        table.free_row = x->next;
    } else if (table.nrows < MAX_ROWS) {
        x = &table.rows[table.nrows++];
    }
    if (x != NULL) {
        *x = (row_t){.gen = x->gen + 1, .bell = BOSH_NO_BELL, .hand = WORKER};
        if (x->gen == 0) {
            x->gen = 1; /* 0 is nobody's: a name of zeros names nothing */
        }
        w->id = id_of(x);
        w->gen = x->gen;
    }
    unlock();
    return x != NULL ? APR_SUCCESS : APR_ENOMEM;
}

static void unblock(row_t *x)
{
    bosh_bell_give(x->bell.fd);
    table.blocked--;
}

bool bosh_waiter_free(bosh_waiter_t w)
{
    row_t *x = enter(w, true);

    if (x == NULL) {
        return false;
    }
    if (x->hand == BLOCKED) {
        unblock(x);
    } else if (x->hand == PARKED && x->rung) {
        land();
    }
    if (x->async) {
        table.async--;
    }
    reclaim(x);
    x->hand = FREE;
    x->next = table.free_row;
    table.free_row = w.id;
    unlock();
    return true;
}

unsigned bosh_waiter_take(bosh_waiter_t w)
{
    row_t *x = enter(w, false);
    unsigned asked;

    if (x == NULL) {
        return 0;
    }
    asked = x->asked;
    x->asked = 0;
    if (x->hand == BLOCKED) {
        x->rung = false; /* its worker has hushed the bell before, and will be asked anew */
    }
    if (table.stopping && !x->told_stop) {
        asked |= BOSH_ASKED_STOP;
        x->told_stop = true;
    }
    unlock();
    return asked;
}

/* Something has been asked of x, or will have to be at `due`. Returns the bell to ring. */
static bosh_bell_t rest(row_t *x, apr_time_t due)
{
    if (x->asked || (table.stopping && !x->told_stop)) {
        return summon(x);
    }
    if (x->hand == PARKED) {
        bosh_timers_set(&table.timers, &x->timer, due);
        announce(due);
    }
    return BOSH_NO_BELL;
}

void bosh_waiter_park(bosh_waiter_t w, bosh_bell_t bell, apr_time_t due, void *parked)
{
    row_t *x = enter(w, false);

    if (x == NULL) {
        return;
    }
    x->hand = PARKED;
    x->bell = bell;
    x->parked = parked;
    if (!x->async) {
        x->async = true;
        table.async++;
    }
    bell = rest(x, due);
    unlock();
    bosh_bell_ring(bell);
}

void *bosh_waiter_seize(bosh_waiter_t w)
{
    row_t *x = enter(w, false);
    bosh_bell_t bell = BOSH_NO_BELL;
    void *parked = NULL;

    if (x == NULL) {
        return NULL;
    }
    if ((x->hand == PARKED || x->hand == BLOCKED) && x->parked != NULL && !x->asked && !x->rung) {
        bosh_timers_set(&table.timers, &x->timer, BOSH_NEVER);
        x->was = x->hand;
        x->hand = SEIZED;
        parked = x->parked;
    } else {
        x->asked |= BOSH_ASKED_WAKE;
        bell = summon(x);
    }
    unlock();
    bosh_bell_ring(bell); /* now: whoever wakes up wants the mutex next */
    return parked;
}

void bosh_waiter_release(bosh_waiter_t w, bosh_seized_t what, apr_time_t due)
{
    row_t *x = enter(w, false);
    bosh_bell_t bell;

    if (x == NULL) {
        return;
    }
    x->hand = x->was;
    if (what == BOSH_SEIZED_FOR_WORKER) {
        x->asked |= BOSH_ASKED_WAKE;
    } else if (what == BOSH_SEIZED_ANSWERED) {
        x->parked = NULL;
        if (x->async) {
            x->async = false;
            table.async--;
        }
    }
    bell = rest(x, due);
    pthread_cond_broadcast(&table.released);
    unlock();
    bosh_bell_ring(bell);
}

bool bosh_waiter_unpark(bosh_waiter_t w)
{
    row_t *x = enter(w, true);
    bool rung;

    if (x == NULL) {
        return false;
    }
    rung = x->hand == PARKED && reclaim(x);
    unlock();
    return rung;
}

void bosh_waiter_landed(void)
{
    if (!lock()) {
        return;
    }
    land();
    unlock();
}

static bool may_block(void)
{
    return table.cfg.max_blocked == 0 || table.blocked < table.cfg.max_blocked;
}

apr_status_t bosh_waiter_block(bosh_waiter_t w, int *fd, void *seizable)
{
    apr_status_t rv = bosh_bell_take(fd);
    row_t *x = rv == APR_SUCCESS ? enter(w, false) : NULL;
    bool may = x != NULL && may_block();

    if (may) {
        table.blocked++;
        x->hand = BLOCKED;
        x->bell = (bosh_bell_t){.fd = *fd, .set = -1};
        x->parked = seizable;
        bosh_bell_ring(rest(x, BOSH_NEVER));
    }
    if (x != NULL) {
        unlock();
    }
    if (rv != APR_SUCCESS || may) {
        return rv;
    }
    bosh_bell_give(*fd);
    return APR_EBUSY;
}

void bosh_waiter_unblock(bosh_waiter_t w)
{
    row_t *x = enter(w, true);

    if (x != NULL) {
        if (x->hand == BLOCKED) {
            unblock(x);
            reclaim(x);
        }
        unlock();
    }
}

/* ---- bosh_hold.h: what the loop and the life cycle call ---- */

/* Everyone that waits is asked `what` and gets a worker; those in a worker's hand will find it. */
static void ask_all(unsigned what)
{
    for (uint32_t i = 0; i < table.nrows; i++) {
        row_t *x = &table.rows[i];

        if (x->hand == FREE) {
            continue;
        }
        x->asked |= (uint8_t)what;
        summon_now(x);
    }
}

void bosh_hold_wake_all(void)
{
    if (!lock()) {
        return;
    }
    ask_all(BOSH_ASKED_WAKE);
    unlock();
}

void bosh_hold_stop(void)
{
    if (!lock()) {
        return;
    }
    if (!table.stopping) {
        table.stopping = true;
        ask_all(0);
    }
    unlock();
}

apr_time_t bosh_hold_next_deadline(void)
{
    apr_time_t next = bosh_clock_now() + HORIZON;
    const bosh_timer_t *first;

    if (!lock()) {
        return BOSH_NEVER;
    }
    first = bosh_timers_first(&table.timers);
    if (first != NULL && first->at < next) {
        next = first->at;
    }
    if (table.queue_head != NONE && table.stall < next) {
        next = table.stall;
    }
    table.announced = next;
    table.kick_due = false;
    unlock();
    return next;
}

void bosh_hold_expire(apr_time_t now)
{
    bosh_timer_t *first;

    if (!lock()) {
        return;
    }
    while ((first = bosh_timers_first(&table.timers)) != NULL && first->at <= now) {
        row_t *x = (row_t *)first;

        x->asked |= BOSH_ASKED_CLOCK;
        summon_now(x); /* ends the timer */
    }
    if (table.queue_head != NONE && table.stall <= now) {
        table.slack = table.flying;
        table.stall = now + STALL;
        start_queued();
    }
    unlock();
}

void bosh_hold_count(uint32_t *async, uint32_t *blocked)
{
    *async = *blocked = 0;
    if (!lock()) {
        return;
    }
    *async = table.async;
    *blocked = table.blocked;
    unlock();
}
