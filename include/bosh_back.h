/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_back: what the client of a session that ends did not get (XEP-0206 section 7). Towards the server it is as
 * if the client had refused each stanza itself, before the end of the stream.
 *
 * Undelivered are the stanzas in link.up, and those in answers that are known not to have arrived: nobody has
 * fetched them, or their connection broke before they were written. An answer that went to a connection of which
 * nothing is known counts as delivered.
 *
 * Under the lock text is moved; what it says is found out in between, without the lock, by bosh_bounce.h. Arena
 * lock held for every function; see bosh_session.h.
 */
#ifndef BOSH_BACK_H
#define BOSH_BACK_H

#include "bosh_session.h"

/* The session ends, its stream is open still: keeps what is to go back, if anything is, and sets BOSH_SESS_BACK.
 * From then on the stream's end waits until the owner has called bosh_back_take() until there is nothing left. */
void bosh_back_begin(bosh_arena_t *a, bosh_session_t *s);

/* Whether the answer of this slot is known not to have arrived, and there is payload in it. */
bool bosh_back_lost(const bosh_slot_t *slot);

/*
 * Takes one text out of the session, oldest first: a stanza, or (*whole) an answer's <body/>. Returns its length;
 * when that is more than size nothing was taken and the caller comes again with more room. 0: that was all;
 * BOSH_SESS_BACK is cleared. The owner's loop.
 */
size_t bosh_back_take(bosh_arena_t *a, bosh_session_t *s, char *dst, size_t size, bool *whole);

/* Puts n bytes of stanzas of the client's behind what is to be sent to the server. Without memory for it they are
 * dropped. The owner's loop. */
void bosh_back_give(bosh_arena_t *a, bosh_session_t *s, const char *text, size_t n);

#endif
