/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_escrow: a duplicate of each plain TCP stream lies in the queue of a socketpair that the parent made
 * (bosh_wakers_t.kept_*), one pair for each peer. Nobody reads it while the owner lives; when it dies whoever
 * notices takes the streams over from there (bosh_rescue.h).
 *
 * So nobody's descriptor table grows, no process has to guard them, and they outlive the death of every
 * child. A parked duplicate keeps a connection open: the end of a stream shuts it down. What has been parked
 * counts, with everything that travels in messages, against the limit of open files, over all processes of
 * a user: a part of that limit is left to others.
 *
 * Loop thread of the owner, never with the arena lock held; next, drop and discard: by whoever clears up
 * after a dead peer.
 */
#ifndef BOSH_ESCROW_H
#define BOSH_ESCROW_H

#include "bosh_lock.h"

#define BOSH_ESCROW_SHARE     80   /* per cent of the limit of open files that may be parked */
#define BOSH_ESCROW_TIDY      64   /* fewer dead duplicates are not worth the work */
#define BOSH_ESCROW_TIDY_MAX  2048 /* entries looked at in one sweep */
#define BOSH_ESCROW_TELL_TIME apr_time_from_sec(60)

struct bosh_streams_t;
struct bosh_stream_t;

/* What travels with a parked descriptor. All copies of one session's stream are the same connection, so
 * nothing more is needed. */
typedef struct bosh_kept_t {
    uint32_t index, serial; /* the session */
} bosh_kept_t;

/* One loop's view of its own queue. */
typedef struct bosh_escrow_t {
    uint32_t parked;    /* duplicates in it */
    uint32_t dead;      /* of them: of streams that have ended or gone elsewhere */
    uint32_t others;    /* in the queues of other peers, as of the last sweep */
    uint32_t limit;     /* of all of them together */
    uint32_t missing;   /* streams that were refused, and live */
    uint32_t refused;   /* since the last warning */
    apr_time_t told_at; /* when that was; 0: never */
} bosh_escrow_t;

/* At the start of a loop: the limit, and an empty queue. */
void bosh_escrow_open(struct bosh_streams_t *ss);

/* Parks a duplicate of a connected stream; st->parked says whether that succeeded. With escrow off, or for a
 * unix socket: nothing. */
void bosh_escrow_park(struct bosh_streams_t *ss, struct bosh_stream_t *st);

/* This stream has ended here, or lives elsewhere: its duplicate is dead. */
void bosh_escrow_forget(struct bosh_streams_t *ss, struct bosh_stream_t *st);

/* Once a second: parks what was refused, sweeps dead duplicates out, warns. */
void bosh_escrow_sweep(struct bosh_streams_t *ss);

/* The last thing but leaving: the queue is emptied. */
void bosh_escrow_close(struct bosh_streams_t *ss);

/* The first entry in the queue of a peer, which stays there, and a duplicate of its descriptor (CLOEXEC; -1:
 * this process has none left). False: the queue is empty. */
bool bosh_escrow_next(const bosh_wakers_t *w, uint32_t peer, bosh_kept_t *k, int *fd);

/* Removes the first entry. False: there is none. */
bool bosh_escrow_drop(const bosh_wakers_t *w, uint32_t peer);

void bosh_escrow_discard(const bosh_wakers_t *w, uint32_t peer);

#endif
