/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_timer: a binary heap of deadlines. A timer is embedded in what it belongs to and knows its place in
 * the heap, so that setting, moving and removing one costs O(log n) and no memory. One thread, no lock.
 */
#ifndef BOSH_TIMER_H
#define BOSH_TIMER_H

#include "bosh.h"

typedef struct bosh_timer_t {
    apr_time_t at;
    uint32_t pos; /* 1-based place in the heap; 0: not set */
} bosh_timer_t;

typedef struct bosh_timers_t {
    bosh_timer_t **heap; /* heap[1..n] */
    uint32_t n, max;
} bosh_timers_t;

/* Room for `max` timers. False: no memory. */
bool bosh_timers_init(bosh_timers_t *h, uint32_t max);
void bosh_timers_destroy(bosh_timers_t *h);

/* Sets or moves `t` (zeroed before its first use); BOSH_NEVER takes it out. At most `max` may be set. */
void bosh_timers_set(bosh_timers_t *h, bosh_timer_t *t, apr_time_t at);

/* The earliest one, or NULL. */
bosh_timer_t *bosh_timers_first(const bosh_timers_t *h);

#endif
