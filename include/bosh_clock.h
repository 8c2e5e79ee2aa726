/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_clock: the one clock of all deadlines. Monotonic, so that setting the system's time neither ends
 * nor prolongs sessions, and common to all processes, so that deadlines in the arena mean the same in each.
 */
#ifndef BOSH_CLOCK_H
#define BOSH_CLOCK_H

#include <time.h>

#include <apr_time.h>

/* Microseconds since an arbitrary moment before boot. Any thread. */
static inline apr_time_t bosh_clock_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (apr_time_t)t.tv_sec * APR_USEC_PER_SEC + t.tv_nsec / 1000;
}

#endif
