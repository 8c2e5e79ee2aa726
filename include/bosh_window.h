/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_window: the rids of a session: which are new, which are repeats, which answers are kept
 * (XEP-0124 sections 9, 14). Arena lock held for every function; see bosh_session.h.
 */
#ifndef BOSH_WINDOW_H
#define BOSH_WINDOW_H

#include "bosh_arena.h"
#include "bosh_body.h"

typedef enum bosh_win_t {
    BOSH_WIN_NEW,    /* inside the window and not seen before */
    BOSH_WIN_RESEND, /* answered, and the answer is kept: send it again (14.3) */
    BOSH_WIN_REPEAT, /* seen and not answered yet (14.3, 17.3) */
    BOSH_WIN_OUTSIDE /* beyond the window, or its answer is no longer kept: item-not-found */
} bosh_win_t;

/* Payload that may wait behind a gap in one session; what comes beyond it is to come again later. */
#define BOSH_MAX_DEFERRED (512 * 1024)

/* Judges a rid. `extra`: the request pauses or terminates and may go one beyond the window (11, R-03). */
bosh_win_t bosh_window_judge(bosh_arena_t *a, bosh_session_t *s, uint64_t rid, bool extra);

/*
 * Puts a new request into its slot, DEFERRED, with its payload, and counts it into `received`. A restart's
 * payload is left out and replaced by the HEADER item `header`. APR_ENOMEM: no chunks; APR_EOF: the
 * slot still keeps an answer the client has not acknowledged (B-174). On failure nothing has changed.
 */
apr_status_t bosh_window_store(bosh_arena_t *a, bosh_session_t *s, apr_time_t now,
                               const bosh_req_t *req, bosh_slice_t header, bosh_holder_t holder);

/* Appends the request's stanzas, each as one item. APR_ENOMEM: some may have been. */
apr_status_t bosh_window_payload(bosh_arena_t *a, bosh_queue_t *q, const bosh_req_t *req);

/* Bytes of payload that wait in the slots. */
size_t bosh_window_waiting(bosh_arena_t *a, const bosh_session_t *s);

/* The slot of a rid when it is in use for just that rid, else NULL. */
bosh_slot_t *bosh_window_slot(bosh_arena_t *a, bosh_session_t *s, uint64_t rid);

/* Requests received and not answered: HELD ones whose connection lives (or all, with orphans), and DEFERRED. */
unsigned bosh_window_open(bosh_arena_t *a, bosh_session_t *s, bool orphans);

/* The oldest processed request that waits, or NULL; live: skipping those whose connection is gone. */
bosh_slot_t *bosh_window_oldest(bosh_arena_t *a, bosh_session_t *s, bool live);

/* Frees the stored answers that need not be kept: beyond the last `requests` of them (pause answers do not
 * count, B-169), or, when the client acknowledges, those it has acknowledged (B-171, B-172). */
void bosh_window_evict(bosh_arena_t *a, bosh_session_t *s);

/* Frees one slot and everything in it. */
void bosh_window_drop(bosh_arena_t *a, bosh_slot_t *slot);

#endif
