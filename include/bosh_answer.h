/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_answer: composes what a request is answered with, and decides which request must be answered
 * (XEP-0124 sections 8, 9.1, 13, 17; XEP-0206 section 2). Shared by bosh_session.c and bosh_link.c only;
 * arena lock held; see bosh_session.h.
 */
#ifndef BOSH_ANSWER_H
#define BOSH_ANSWER_H

#include "bosh_session.h"

/* Asks the holder of an open or answered request to look at it, unless it has been asked already. */
void bosh_answer_mail_holder(bosh_arena_t *a, bosh_slot_t *slot);

/*
 * An open request that may not be processed: the session ends with `cond`, its other requests are told
 * other-request (B-151). Its slot is dropped, so its holder, who finds it gone, tells `cond` itself and nobody
 * can fetch anything there.
 */
void bosh_answer_refuse(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, bosh_slot_t *slot,
                        bosh_cond_t cond);

/* Something is queued for the client, or the session is over and it has to hear of it. */
bool bosh_answer_pending(bosh_arena_t *a, bosh_session_t *s);

/*
 * Stores the answer of the HELD slot that is first in rid order: empty, or with what is queued. The
 * terminal attributes go along when the upstream is over and nothing is left in the queue; the session then
 * is TOMB and every other open request has got its E. False: no chunks for it now, nothing changed.
 */
bool bosh_answer_compose(bosh_arena_t *a, apr_time_t now, bosh_session_t *s,
                         const bosh_limits_t *lim, bosh_slot_t *slot, bool payload);

/* Answers `slot` with what there is, those before it with E first, so that rid order holds (B-113). */
bool bosh_answer_up_to(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, const bosh_limits_t *lim,
                       bosh_slot_t *slot);

/* Applies what has arrived in rid order and answers whatever may not wait any longer (hold, pause, end);
 * mails the holder of the request that payload can go to. */
void bosh_answer_settle(bosh_arena_t *a, apr_time_t now, bosh_session_t *s,
                        const bosh_limits_t *lim);

/* The session's stream `st` is full both ways: its server may wait to be read before it reads, and only a processed
 * request can take what it has said. So one more is let in (B-125). */
bool bosh_answer_stuck(bosh_arena_t *a, bosh_session_t *s, const bosh_session_t *st);

/* Mails the holder of the oldest living held request when something is pending for it. */
void bosh_answer_deliver(bosh_arena_t *a, bosh_session_t *s);

/* The slot has its answer: moves the marks, tells the holder, frees what need not be kept any longer. */
void bosh_answer_finish(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, bosh_slot_t *slot);

/*
 * Ends the session for the client: the oldest open request gets terminate with `first`, all others with
 * `rest` (BOSH_COND_COUNT: a plain E); everybody is mailed; state TOMB. The link gets a CLOSE item.
 */
void bosh_answer_bury(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, bosh_cond_t first,
                      bosh_cond_t rest);

/* Lets the link end once all that is queued towards the server has been written. */
void bosh_answer_close(bosh_arena_t *a, bosh_session_t *s);

/* Sets when the session dies of inactivity: never while a request is held on a living connection (10). */
void bosh_answer_touch(bosh_arena_t *a, apr_time_t now, bosh_session_t *s);

/* Tells the owner's loop that this session wants a look (one message at a time). */
void bosh_answer_mail_owner(bosh_arena_t *a, bosh_session_t *s);

#endif
