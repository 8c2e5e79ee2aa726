/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_bell: what wakes waiting requests, eventfds. Internal to bosh_waiter.c, bosh_hold.c and bosh_park.c.
 *
 * A blocked worker polls a bell of its own, which is rung by writing it and hushed by reading it.
 *
 * Parked requests share theirs. Such a bell is always readable, and nobody reads it; it is in the epoll set of each of
 * its connections, disarmed. To ring it is to arm it in one of these sets, for one report (EPOLL_CTL_MOD,
 * EPOLLONESHOT): the set becomes readable, and with it what the MPM polls, until somebody looks at the set; that look
 * disarms it again. Each resume looks.
 *
 * Bells are rung without any lock, by a loop that may be late: its waiter may have been answered by then, its
 * connection may be closed, the number of its set may name something else. Hence two rules: bells are not closed while
 * the process lives, and whoever finds one rung looks for a reason elsewhere. What a late ring can meet:
 *
 *     another worker's bell                 polls once in vain
 *     the set of this or another connection, parked or not: it looks once in vain, now or right after its next park
 *     an epoll set with other purposes      ENOENT: the kernel knows an entry by file and number, and that bell is in none
 *     no epoll set, nothing                 EINVAL, EBADF
 *
 * It can add a ring and take none away: nothing but its worker's look disarms a bell, and that comes after
 * bosh_waiter_unpark(), when what was asked is in the table.
 *
 * Why not one bell for all that are parked: when the MPM adds a set to its own, the kernel walks all ways from each
 * file in that set up to the outermost set, and refuses more than 500 that pass a set between (EINVAL).
 *
 * Has a mutex of its own, under which nothing is called.
 */
#ifndef BOSH_BELL_H
#define BOSH_BELL_H

#include <apr_errno.h>

typedef struct bosh_bell_t {
    int fd;  /* -1: none */
    int set; /* the epoll set to arm it in; -1: it is polled itself */
} bosh_bell_t;

#define BOSH_NO_BELL ((bosh_bell_t){.fd = -1, .set = -1})

/* One for a worker that is going to block, *fd; it may have been rung already. Any thread. The error of eventfd(). */
apr_status_t bosh_bell_take(int *fd);

/* Gives it back. Any thread. */
void bosh_bell_give(int fd);

/* The worker that polls it, when it is readable. */
void bosh_bell_hush(int fd);

/* One for this epoll set, *fd, which is put into it: as data.fd of the event, too. Any thread. The error of eventfd()
 * or epoll_ctl(); then *fd is -1. */
apr_status_t bosh_bell_join(int set, int *fd);

/* That set is closed. Any thread. */
void bosh_bell_leave(int fd);

/* Any thread; late, too. BOSH_NO_BELL: nothing. */
void bosh_bell_ring(bosh_bell_t bell);

#endif
