/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arena's lock, and what has to follow its release. Any thread of any child; one bosh_lock_t
 * for each child, its fields and the handle's list of wake-ups guarded by the lock itself.
 *
 * It lives outside of core, which knows no locks. The mutex lies in the segment (header->lock):
 * shared between processes, robust, so that the next one in hears of a holder's death (EOWNERDEAD)
 * and repairs.
 */
#include "bosh_lock.h"
#include "bosh_undo.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bosh_point.h"

_Static_assert(sizeof(pthread_mutex_t) <= BOSH_LOCK_SPACE,
               "the mutex fits its place in the header");

static pthread_mutex_t *mutex_of(bosh_arena_t *a)
{
    return (pthread_mutex_t *)(void *)a->h->lock;
}

apr_status_t bosh_lock_init(bosh_arena_t *a)
{
    pthread_mutexattr_t attr;
    int rv = pthread_mutexattr_init(&attr);

    if (rv != 0) {
        return APR_FROM_OS_ERROR(rv);
    }
    rv = pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    if (rv == 0) {
        rv = pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    }
    if (rv == 0) {
        rv = pthread_mutex_init(mutex_of(a), &attr);
    }
    pthread_mutexattr_destroy(&attr);
    return APR_FROM_OS_ERROR(rv);
}

/* There is no way on without the lock, and no other process can do better. */
static void give_up(int rv)
{
    fprintf(stderr,
            "mod_bosh: the lock of the shared segment is unusable (%s); process %ld stops. "
            "Restart the server to make a new segment.\n",
            strerror(rv), (long)getpid());
    abort();
}

static void take_over(bosh_lock_t *l)
{
    int rv;

    l->lost += bosh_arena_repair(l->arena);
    l->repaired = true;
    BOSH_POINT("repaired");
    rv = pthread_mutex_consistent(
        mutex_of(l->arena)); /* last: who dies before it leaves the repair to the next */
    if (rv != 0) {
        give_up(rv);
    }
}

static uint64_t nanoseconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* A section takes less than half a microsecond, to sleep and be woken ten: so a holder that has a processor is
 * waited for awake, for a few sections. One that has lost its processor is not worth that. */
#define SPINS 40

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield" ::: "memory");
#endif
}

void bosh_lock(bosh_lock_t *l)
{
    pthread_mutex_t *mutex = mutex_of(l->arena);
    int rv = pthread_mutex_trylock(mutex);
    bool waited = rv == EBUSY;
    uint64_t since = 0;

    if (waited) { /* only then does the clock cost anything */
        since = nanoseconds();
        for (int i = 0; i < SPINS && rv == EBUSY; i++) {
            relax();
            rv = pthread_mutex_trylock(mutex);
        }
        if (rv == EBUSY) {
            rv = pthread_mutex_lock(mutex);
        }
    }
    if (rv == EOWNERDEAD) {
        take_over(l);
    } else if (rv != 0) {
        give_up(rv);
    }
    if (++l->arena->h->count.lock_taken % BOSH_LOCK_SAMPLE == 0) {
        l->since = nanoseconds();
    }
    if (waited) {
        l->arena->h->count.lock_contended++;
        l->arena->h->count.lock_waited += nanoseconds() - since;
    }
}

/* An eventfd that cannot take more is awake enough: errors mean nothing. */
static void wake(int fd)
{
    static const uint64_t one = 1;
    ssize_t n;

    BOSH_POINT("unlocked");
    do {
        n = write(fd, &one, sizeof(one));
    } while (n < 0 && errno == EINTR);
}

static void wake_all(const bosh_wakers_t *w)
{
    for (uint32_t i = 0; i < w->n; i++) {
        wake(w->fd[i]);
    }
}

/* stand_in: what the peer `me` would be woken for may be done here. */
static void wake_listed(const bosh_lock_t *l, const uint16_t *peers, uint32_t n, bool stand_in)
{
    const bosh_wakers_t *w = l->wakers;

    for (uint32_t i = 0; i < n; i++) {
        bool done = stand_in && peers[i] == l->me && l->stand_in(l->ctx);
        if (!done && peers[i] >= 1 && peers[i] <= w->n) {
            wake(w->fd[peers[i] - 1]);
        }
    }
}

static void unlock(bosh_lock_t *l, bool stand_in)
{
    bosh_arena_t *a = l->arena;
    const bosh_wakers_t *wakers = l->wakers;
    uint16_t peers[sizeof(a->wake) / sizeof(a->wake[0])];
    uint32_t n = a->nwake, lost = l->lost;
    bool all = a->wake_all, repaired = l->repaired;
    int rv;

    memcpy(peers, a->wake, n * sizeof(peers[0]));
    a->nwake = 0;
    a->wake_all = false;
    l->repaired = false;
    l->lost = 0;
    if (wakers != NULL) {
        a->h->count.wakes += all ? wakers->n : n;
    }
    if (l->since != 0) {
        a->h->count.lock_held += (nanoseconds() - l->since) * BOSH_LOCK_SAMPLE;
        l->since = 0;
    }
    BOSH_POINT_CHECK(a);
    bosh_arena_commit(a);
    rv = pthread_mutex_unlock(mutex_of(a));
    if (rv != 0) {
        give_up(rv);
    }
    if (wakers != NULL && all) {
        wake_all(wakers);
    } else if (wakers != NULL) {
        wake_listed(l, peers, n, stand_in);
    }
    if (repaired && l->on_repair != NULL) {
        l->on_repair(l->ctx, lost);
    }
}

void bosh_unlock(bosh_lock_t *l)
{
    unlock(l, false);
}

void bosh_unlock_and_do(bosh_lock_t *l)
{
    unlock(l, l->stand_in != NULL);
}
