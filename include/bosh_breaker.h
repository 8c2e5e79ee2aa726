/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_breaker: addresses that did not answer are left alone for a while, longer each time, and tried by few when
 * the while is over, so that a server that is down gets no storm of connections, nor does one that has just come
 * back (U-039).
 *
 *   CLOSED --BOSH_BREAKER_FAILURES in a row--> OPEN --time--> PROBING --some that worked, 1 then 2 then 4...--> CLOSED
 *                                               ^---- failed ----'
 *
 * What is known is one process's own. Loop thread, no lock; time and chance are arguments. A name is any text that
 * stands for the address.
 */
#ifndef BOSH_BREAKER_H
#define BOSH_BREAKER_H

#include "bosh_srv.h"

#define BOSH_BREAKER_FAILURES 3
#define BOSH_BREAKER_FIRST    apr_time_from_sec(1)  /* how long it is left alone at first */
#define BOSH_BREAKER_LONGEST  apr_time_from_sec(30) /* ... and at last; a quarter more or less */
#define BOSH_BREAKER_PATIENCE apr_time_from_sec(20) /* a probe without a verdict no longer counts */
#define BOSH_BREAKER_FULL     32                    /* as many at once, and all may come */
#define BOSH_BREAKER_MAX      128                   /* addresses remembered */
#define BOSH_BREAKER_NAME     120

typedef struct bosh_breaker_t bosh_breaker_t;

/* NULL: no memory. `random` is for the lengths of the pauses. */
bosh_breaker_t *bosh_breaker_create(bosh_random_t *random, void *ctx);
void bosh_breaker_destroy(bosh_breaker_t *b);

/* Whether the address may be tried now. If so, one of the next three is called about it, sooner or later. */
bool bosh_breaker_may(bosh_breaker_t *b, const char *name, apr_time_t now);

void bosh_breaker_worked(bosh_breaker_t *b, const char *name);
void bosh_breaker_failed(bosh_breaker_t *b, const char *name, apr_time_t now);

/* It was given up for another reason. */
void bosh_breaker_dropped(bosh_breaker_t *b, const char *name);

#endif
