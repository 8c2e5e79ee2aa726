/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a session that no request brings about: by us, and by its clock. Called under the arena lock by
 * the loop thread of the owner. bosh_answer_bury() is what all ends have in common.
 */
#include "bosh_session.h"

#include "bosh_answer.h"
#include "bosh_back.h"
#include "bosh_undo.h"
#include "bosh_window.h"

void bosh_session_end(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, bosh_cond_t cond)
{
    bosh_arena_touch(a, s);
    s->cond = (uint8_t)cond;
    if (bosh_window_open(a, s, false) > 0 || s->state != BOSH_ST_LIVE) {
        bosh_answer_bury(a, now, s, cond, BOSH_COND_COUNT);
    } else {                   /* nobody is there to be told: the next request is */
        bosh_back_begin(a, s); /* the stream ends now; who comes later may find less */
        bosh_answer_close(a, s);
        s->state = BOSH_ST_ENDING;
        bosh_answer_touch(a, now, s);
    }
}

/* Drops the stored answers but those that may not have been sent yet (B-221), or are to go back. */
static void forget_answers(bosh_arena_t *a, apr_time_t now, bosh_session_t *s)
{
    for (uint32_t i = 0; i < a->h->sizes.slots; i++) {
        bool back = (s->flags & BOSH_SESS_BACK) && bosh_back_lost(&s->slots[i]);
        if (s->slots[i].state == BOSH_SLOT_ANSWERED && !back &&
            now - s->slots[i].answered >= apr_time_from_sec(1)) {
            bosh_window_drop(a, &s->slots[i]);
        }
    }
}

/* R-05, B-145: a gap may stay open for as long as silence may last, whatever is sent again meanwhile. */
static apr_time_t gap_ends(const bosh_session_t *s)
{
    return s->gap_since != 0 && s->inactivity > 0 && s->state == BOSH_ST_LIVE
               ? s->gap_since + apr_time_from_sec(s->inactivity)
               : BOSH_NEVER;
}

static apr_time_t sooner(apr_time_t x, apr_time_t y)
{
    return x < y ? x : y;
}

/* B-367: by when it must have logged in. */
static apr_time_t login_ends(const bosh_session_t *s, const bosh_limits_t *lim)
{
    return lim->login_time > 0 && !(s->flags & BOSH_SESS_LOGIN) && s->state == BOSH_ST_LIVE
               ? s->created + apr_time_from_sec(lim->login_time)
               : BOSH_NEVER;
}

apr_time_t bosh_session_tick(bosh_arena_t *a, apr_time_t now, bosh_session_t *s,
                             const bosh_limits_t *lim)
{
    bool closed = s->link.phase == BOSH_LINK_CLOSED || s->link.phase == BOSH_LINK_NONE;
    apr_time_t next;

    bosh_arena_touch(a, s);
    if (now >= login_ends(s, lim)) {
        bosh_session_end(a, now, s, BOSH_COND_POLICY_VIOLATION);
    }
    if (now >= s->inactive_at || now >= gap_ends(s)) {
        if (s->state == BOSH_ST_TOMB) {
            if (closed) {
                bosh_arena_session_free(a, s);
                return BOSH_NEVER;
            }
        } else { /* 10: nothing is said; whoever comes later finds no session (B-201), B-145 */
            a->h->count.expired++;
            bosh_answer_bury(a, now, s, BOSH_COND_ITEM_NOT_FOUND, BOSH_COND_ITEM_NOT_FOUND);
            forget_answers(a, now, s);
        }
    }
    bosh_answer_settle(a, now, s, lim);
    if (s->inactive_at == BOSH_NEVER) {
        /* A request is held now, so the session lives at least that much longer; then look again. */
        next = now + apr_time_from_sec(s->inactivity > 0 ? s->inactivity : 3600);
    } else if (now >= s->inactive_at) {
        next = now +
               apr_time_from_sec(1); /* the loop is closing the link; it calls again at once then */
    } else {
        next = s->inactive_at;
    }
    next = sooner(next, sooner(gap_ends(s), login_ends(s, lim)));
    s->armed = next;
    return next;
}
