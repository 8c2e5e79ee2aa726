/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_linger: streams that cannot move, those with TLS, in a child that has been told to stop. They go on
 * with its loop, and their requests come from all children as ever, until they end by themselves, until
 * BoshDrainTimeout has passed, or until this process is in the way of its successors: httpd has no slot for
 * those, and there are fewer of them than there were of us. Then their sessions end with
 * remote-connection-failed, which makes clients log in again at once.
 *
 * Loop thread only. Never called with the arena lock held.
 */
#ifndef BOSH_LINGER_H
#define BOSH_LINGER_H

#include "bosh_stream.h"

/* When httpd has no room for another child before this one has gone, nothing is gained by waiting; but the
 * parent may take a second to notice that another one has gone already. */
#define BOSH_YIELD_TIME  apr_time_from_msec(1500)
#define BOSH_LINGER_LOOK apr_time_from_msec(250) /* how often it is seen what is due */

/* Zeroed but for the first three; part of a bosh_drain_t. */
typedef struct bosh_linger_t {
    const bosh_loop_cfg_t *cfg;
    bosh_streams_t *streams;
    uint32_t peers;     /* of our generation when we were told */
    apr_time_t began;   /* 0: not told to stop */
    apr_time_t over_at; /* when nothing lingered any more; 0: something does, or nothing ever did */
    apr_time_t look_at; /* when it is seen what is due */
    apr_time_t full_since;  /* 0: there was a slot at the last look */
    uint32_t most;          /* streams that lingered at once */
    uint32_t late, yielded; /* sessions ended: BoshDrainTimeout; no slot */
} bosh_linger_t;

/* A turn of a loop that has been told to stop. `followed`: others go on serving the sessions, so it is not
 * httpd that stops. */
void bosh_linger_turn(bosh_linger_t *l, bool followed);

/* Ends what lingers: this process has to go now. */
void bosh_linger_yield(bosh_linger_t *l);

/* When the next turn is due of its own accord; BOSH_NEVER. */
apr_time_t bosh_linger_next(const bosh_linger_t *l);

/* One line for the log about what lingered; false: nothing did. */
bool bosh_linger_report(const bosh_linger_t *l, char *line, size_t size);

#endif
