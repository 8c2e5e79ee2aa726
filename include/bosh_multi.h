/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_multi: several streams in one session (XEP-0124 section 16).
 *
 * Each stream is a link in a record of the table of sessions. The first one is in the session's own record; each
 * further one has a record of its own, a *branch*, which has no requests, no timers of a client's and no state but
 * that of its stream. So whoever owns, hands over, rescues or closes a stream need not know what it belongs to.
 * The requests are the session's: rid, keys, acknowledgements, hold and stored answers are one for all (B-346).
 *
 *   a stream's state: LIVE -> ENDING (over, the client is to hear it) -> TOMB (it has; kept for a while, so that what
 *   is still sent there is dropped and does not end the session, B-338) -> the record is freed
 *
 * The session ends with its last stream. Called under the arena lock; see bosh_session.h. What changes a branch
 * has it in its section (bosh_arena_touch_too()), and so have these functions.
 */
#ifndef BOSH_MULTI_H
#define BOSH_MULTI_H

#include "bosh_session.h"

/* The state of the stream that is in this record. */
static inline bosh_state_t bosh_multi_state(const bosh_session_t *st)
{
    return st->root == 0 && st->first != 0 ? (bosh_state_t)st->first : (bosh_state_t)st->state;
}

/* How that stream ended: ENDING. */
static inline bosh_cond_t bosh_multi_cond(const bosh_session_t *st)
{
    return st->root == 0 && st->first != 0 ? (bosh_cond_t)st->first_cond : (bosh_cond_t)st->cond;
}

/* The session that the stream in this record belongs to, taken into the section; NULL: it has been lost. */
bosh_session_t *bosh_multi_root(bosh_arena_t *a, bosh_session_t *st);

/* One stream of a session after the other, NULL before the first and behind the last; TOMB ones included. */
bosh_session_t *bosh_multi_next(bosh_arena_t *a, bosh_session_t *s, bosh_session_t *st);

/* The name of this stream (B-326), as text. */
void bosh_multi_name(const bosh_session_t *st, char out[BOSH_SID_LEN + 1]);

/*
 * 16.3: a branch for the stream that `req` asks for, which begins with bosh_multi_start(). NULL: no memory, *cond is
 * BOSH_COND_NONE; or it has as many as it may: *cond says what ends the session (B-345).
 */
bosh_session_t *bosh_multi_open(bosh_arena_t *a, apr_time_t now, bosh_session_t *s,
                                const bosh_req_t *req, const bosh_limits_t *lim, bosh_cond_t *cond);
void bosh_multi_start(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, const bosh_slot_t *slot);

/* Gives a branch back that has not been started. */
void bosh_multi_drop(bosh_arena_t *a, bosh_session_t *branch);

/* The stream named by a request's `stream`; NULL: none of this session's. */
bosh_session_t *bosh_multi_find(bosh_arena_t *a, bosh_session_t *s, const char *name);

/* The stream that a slot is about, for as long as there is a record of it; NULL: everybody. */
bosh_session_t *bosh_multi_of(bosh_arena_t *a, const bosh_slot_t *slot);

/* Whether payload for `only`, or (NULL) for every stream, is for one that has not logged in; *waits: what such streams
 * have waiting already. */
bool bosh_multi_early(bosh_arena_t *a, bosh_session_t *s, const bosh_session_t *only,
                      size_t *waits);

/* Towards the servers (B-335, B-336): the slot's payload goes to the stream it names, or to all that live. False: no
 * room for it now, nothing changed. */
bool bosh_multi_send(bosh_arena_t *a, bosh_session_t *s, const bosh_limits_t *lim,
                     bosh_slot_t *slot);

/* 16.5: the slot, a terminate, names one of several streams: that one is told to close, and is ENDING. False: the
 * whole session is meant. */
bool bosh_multi_close(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, const bosh_slot_t *slot);

/* The same from our side. False: no other stream lives. */
bool bosh_multi_end(bosh_arena_t *a, apr_time_t now, bosh_session_t *st, bosh_cond_t cond);

/* The session is ENDING from our side: so are its branches. */
void bosh_multi_end_all(bosh_arena_t *a, bosh_session_t *s);

/* The stream of this record is over; with the last one its session is. */
void bosh_multi_over(bosh_arena_t *a, apr_time_t now, bosh_session_t *st, bosh_cond_t cond);

/* Something is to be said to the client: bosh_answer_pending(). */
bool bosh_multi_pending(bosh_arena_t *a, bosh_session_t *s);

/* The stream that an answer for `slot` is to be about, in turn (B-340), taken into the section. */
bosh_session_t *bosh_multi_pick(bosh_arena_t *a, bosh_session_t *s, const bosh_slot_t *slot);

/* Whether no other stream than `st` has anything left for the client. */
bool bosh_multi_alone(bosh_arena_t *a, bosh_session_t *s, const bosh_session_t *st);

/* Whether the answer to this request, for a further stream, need not wait any longer: its server has answered, or
 * will not. */
bool bosh_multi_ready(bosh_arena_t *a, const bosh_slot_t *slot);

/* The client has been told the end of this stream, another lives. */
void bosh_multi_told(bosh_arena_t *a, apr_time_t now, bosh_session_t *st);

/* The session ends: its branches end with it. */
void bosh_multi_bury(bosh_arena_t *a, apr_time_t now, bosh_session_t *s);

/* bosh_session_tick() of a branch. login: by when it must have logged in. */
apr_time_t bosh_multi_tick(bosh_arena_t *a, apr_time_t now, bosh_session_t *branch,
                           apr_time_t login);

#endif
