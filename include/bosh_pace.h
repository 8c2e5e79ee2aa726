/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_pace: more requests, or more often, than a session was allowed (XEP-0124 sections 11, 12). For
 * bosh_session.c, bosh_answer.c and bosh_link.c only; arena lock held; see bosh_session.h.
 *
 * A request whose connection has died does not count: a page that is loaded again aborts its held
 * request and sends an empty one at once. The end of the one connection and the request on the other race, so
 * a request that breaks the rule of section 11 is only suspected at first: it waits, unprocessed, while the
 * holders of the others look at their connections. It is processed as soon as one of them is gone, and
 * convicted when BOSH_PACE_GRACE has passed.
 */
#ifndef BOSH_PACE_H
#define BOSH_PACE_H

#include "bosh_arena.h"

#define BOSH_PACE_GRACE  apr_time_from_sec(1)
#define BOSH_PACE_JITTER apr_time_from_msec(500) /* forgiven in `polling`: what a network does */

/* Looks at a new request that has just been stored in `slot`, before anything is released for it (B-237). */
void bosh_pace_arrived(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, bosh_slot_t *slot);

/* Looks at the suspects again: frees or convicts them. True: the session has been ended. */
bool bosh_pace_review(bosh_arena_t *a, apr_time_t now, bosh_session_t *s);

/* A holder is gone: has the suspects looked at again soon, by the owner's loop. */
void bosh_pace_holder_gone(bosh_arena_t *a, bosh_session_t *s);

/* 12: whether `slot`, whose turn it is, follows another empty one too soon in a polling session (B-241). */
bool bosh_pace_hasty(bosh_arena_t *a, bosh_session_t *s, const bosh_slot_t *slot);

#endif
