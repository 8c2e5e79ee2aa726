/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_drain: a child that has been told to stop: what kind of end it is, and what becomes of the requests
 * that are held here and of the sessions whose stream this peer owns.
 *
 * httpd tells every child the same, whatever the reason. The reasons differ in who serves the sessions next:
 *
 *     graceful restart      children of a younger generation: held requests are answered with nothing as soon as
 *                           they have the streams
 *     recycling, reaping    another child of this generation: the same, as soon as that is certain
 *     graceful-stop         nobody: the sessions end with system-shutdown, and held requests get that answer
 *
 * When somebody is to come, but does not (httpd has no slot for another child before this one has gone), and
 * there is an escrow, the streams stay there for whoever comes in the end.
 *
 * Loop thread only. Never called with the arena lock held.
 */
#ifndef BOSH_DRAIN_H
#define BOSH_DRAIN_H

#include "bosh_handover.h"
#include "bosh_linger.h"
#include "bosh_peer.h"

/* What differs between recycling and graceful-stop shows within this time. */
#define BOSH_DOUBT_TIME apr_time_from_msec(400)
/* How long held requests wait at a restart: for the streams to move, and for a child to move them to. */
#define BOSH_MOVE_TIME   apr_time_from_msec(500)
#define BOSH_FOLLOW_TIME apr_time_from_sec(2)
/* How often httpd's parent is looked at in doubt, and how often stragglers are told that all is over. */
#define BOSH_LOOK_TIME apr_time_from_msec(50)
#define BOSH_TELL_TIME apr_time_from_msec(250)
/* What is still held so long after the end of this child's own sessions belongs to nobody. */
#define BOSH_FAREWELL_TIME apr_time_from_sec(2)

/* Zeroed but for the first five and what bosh_linger.h says; part of a bosh_loop_t. */
typedef struct bosh_drain_t {
    const bosh_loop_cfg_t *cfg;
    bosh_peers_t *peers;
    bosh_streams_t *streams;
    bosh_handover_t *handover; /* NULL: no socketpairs */
    uint32_t me;
    bool released;          /* held requests have been answered with nothing */
    bosh_parent_t parent;   /* at the last look */
    bool doubted;           /* it seemed to stop, but another child did not */
    apr_time_t look_at;     /* the next one; after the end: when stragglers are told */
    apr_time_t began;       /* 0: not told to stop */
    apr_time_t asked_at;    /* all else in this process is done; 0: not yet */
    apr_time_t alone_since; /* nobody to give to; 0: there is somebody */
    apr_time_t over_at;     /* the sessions were ended; 0: not */
    bosh_linger_t linger;   /* what cannot be given away */
    bool left;              /* the streams are to stay behind in escrow */
} bosh_drain_t;

/* A turn of a loop that has been told to stop. `asked`: the process waits for nothing but this loop. */
void bosh_drain_turn(bosh_drain_t *d, bool asked);

/* When the next turn is due of its own accord. Only after the first turn. */
apr_time_t bosh_drain_next(const bosh_drain_t *d);

/* Nothing of ours is left to be given away, or nobody takes it. With d->left, the loop is to end without
 * leaving, as if this process died: whoever comes rescues the streams (bosh_streams_leave()). */
bool bosh_drain_done(const bosh_drain_t *d);

#endif
