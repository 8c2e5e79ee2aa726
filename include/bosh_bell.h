/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_bell: the eventfds that wake requests, kept for the next one. Internal to bosh_waiter.c and bosh_park.c.
 *
 * A bell is rung without any lock, by the loop thread alone, which may be late: its waiter may have ended by then.
 * Hence two rules. Bells are closed by the loop thread alone, so that what it writes to is never anything else. And
 * whoever finds a bell readable hushes it, and looks for a reason elsewhere; there may be none.
 *
 * Has a mutex of its own, under which nothing is called.
 */
#ifndef BOSH_BELL_H
#define BOSH_BELL_H

#include <apr_errno.h>

/* A bell that may be readable already. Any thread. The error of eventfd(). */
apr_status_t bosh_bell_take(int *fd);

/* Gives it back. Any thread. */
void bosh_bell_give(int fd);

/* Any thread that knows its waiter to be there; the loop thread always. */
void bosh_bell_ring(int fd);

/* Its waiter's worker. */
void bosh_bell_hush(int fd);

/* Loop thread, now and then: closes some of those that too many are kept of. */
void bosh_bell_trim(void);

/* No worker and no loop is left. */
void bosh_bell_close_all(void);

#endif
