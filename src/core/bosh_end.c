/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a session: by its clock, by us, and bosh_answer_bury(), what all ends have in common. Called under the
 * arena lock.
 */
#include "bosh_session.h"

#include "bosh_answer.h"
#include "bosh_back.h"
#include "bosh_multi.h"
#include "bosh_undo.h"
#include "bosh_window.h"

/* Stores `ans` as the answer of an open slot while the session is being buried. Without chunks for it the
 * slot is dropped: its holder, mailed, finds nothing and tells item-not-found, which is terminal, too. */
static void bury_slot(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, bosh_slot_t *slot,
                      bosh_cond_t cond)
{
    char open[BOSH_BODY_OPEN_MAX];
    bosh_ans_t ans = {.flags = 0};
    bosh_holder_t holder = slot->holder;
    size_t n;

    if (cond != BOSH_COND_COUNT) {
        ans.flags = BOSH_ANS_TERMINATE;
        ans.cond = cond;
    }
    n = bosh_body_print_open(open, &ans, true);
    if (cond == BOSH_COND_COUNT) {
        slot->flags |= BOSH_SLOT_PLAIN;
        bosh_answer_finish(a, now, s, slot);
    } else if (bosh_bytes_append(a, &slot->answer, open, n, BOSH_PRIO_ANSWER) == APR_SUCCESS) {
        slot->flags |= BOSH_SLOT_FINAL;
        slot->cond = (uint8_t)cond;
        bosh_answer_finish(a, now, s, slot);
    } else {
        bosh_window_drop(a, slot);
        bosh_arena_mail(a, holder.peer, BOSH_MAIL_WAITER | holder.waiter, holder.gen);
    }
}

/* The open request with the lowest rid, deferred ones included, or only those whose connection lives. */
static bosh_slot_t *oldest_open(bosh_arena_t *a, bosh_session_t *s, bool live)
{
    bosh_slot_t *oldest = NULL;

    for (uint32_t i = 0; i < a->h->sizes.slots; i++) {
        bosh_slot_t *slot = &s->slots[i];
        if ((slot->state == BOSH_SLOT_HELD || slot->state == BOSH_SLOT_DEFERRED) &&
            (!live || slot->holder.peer != 0) && (oldest == NULL || slot->rid < oldest->rid)) {
            oldest = slot;
        }
    }
    return oldest;
}

void bosh_answer_close(bosh_arena_t *a, bosh_session_t *s)
{
    /* What is to go back precedes it: then the loop finds the end by itself. */
    if (s->link.phase != BOSH_LINK_CLOSED && s->link.phase != BOSH_LINK_NONE &&
        !(s->flags & BOSH_SESS_BACK)) {
        bosh_queue_append(a, &s->link.down, BOSH_ITEM_CLOSE, NULL, 0, BOSH_PRIO_ANSWER);
    }
    bosh_answer_mail_owner(a, s);
}

void bosh_answer_bury(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, bosh_cond_t first,
                      bosh_cond_t rest)
{
    bool ending = s->state == BOSH_ST_ENDING; /* its link is closed, or has been told to close */
    bosh_slot_t *slot;

    if (s->state == BOSH_ST_TOMB) {
        return;
    }
    s->state = BOSH_ST_TOMB;
    a->h->count.ended++;
    slot = oldest_open(a, s, true);
    if (slot == NULL) {
        slot = oldest_open(a, s, false);
    }
    if (slot != NULL) {
        bury_slot(a, now, s, slot, first);
    }
    while ((slot = oldest_open(a, s, false)) != NULL) {
        bury_slot(a, now, s, slot, rest);
    }
    bosh_bytes_clear(a, &s->part);
    if (!ending) {
        bosh_back_begin(a, s);
    }
    if (!(s->flags & BOSH_SESS_BACK)) {
        bosh_queue_clear(a, &s->link.up);
        s->link.up_single = 0;
    }
    if (!ending) {
        bosh_answer_close(a, s);
    }
    bosh_multi_bury(a, now, s);
    bosh_answer_touch(a, now, s);
}

void bosh_answer_refuse(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, bosh_slot_t *slot,
                        bosh_cond_t cond)
{
    bosh_answer_mail_holder(a, slot);
    bosh_window_drop(a, slot);
    s->cond = (uint8_t)cond;
    bosh_answer_bury(a, now, s, BOSH_COND_OTHER_REQUEST, BOSH_COND_OTHER_REQUEST);
}

/* All its streams. */
static void end_session(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, bosh_cond_t cond)
{
    s->cond = (uint8_t)cond;
    if (bosh_window_open(a, s, false) > 0 || s->state != BOSH_ST_LIVE) {
        bosh_answer_bury(a, now, s, cond, BOSH_COND_COUNT);
    } else {                   /* nobody is there to be told: the next request is */
        bosh_back_begin(a, s); /* the stream ends now; who comes later may find less */
        bosh_answer_close(a, s);
        bosh_multi_end_all(a, s);
        s->state = BOSH_ST_ENDING;
        bosh_answer_touch(a, now, s);
    }
}

void bosh_session_end(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, bosh_cond_t cond)
{
    bosh_arena_touch(a, s);
    if (!bosh_multi_end(a, now, s, cond)) {
        end_session(a, now, bosh_multi_root(a, s), cond);
    }
}

/* Drops the stored answers but those that may not have been sent yet (B-221), or are to go back. */
static void forget_answers(bosh_arena_t *a, apr_time_t now, bosh_session_t *s)
{
    for (uint32_t i = 0; i < a->h->sizes.slots; i++) {
        const bosh_session_t *of = bosh_multi_of(a, &s->slots[i]);
        bool back = ((of != NULL ? of : s)->flags & BOSH_SESS_BACK) && bosh_back_lost(&s->slots[i]);
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

/* B-367: by when this stream must have logged in. */
static apr_time_t login_ends(const bosh_session_t *s)
{
    return s->login_time > 0 && !(s->flags & BOSH_SESS_LOGIN) && bosh_multi_state(s) == BOSH_ST_LIVE
               ? s->created + apr_time_from_sec(s->login_time)
               : BOSH_NEVER;
}

apr_time_t bosh_session_tick(bosh_arena_t *a, apr_time_t now, bosh_session_t *s,
                             const bosh_limits_t *lim)
{
    bool closed = s->link.phase == BOSH_LINK_CLOSED || s->link.phase == BOSH_LINK_NONE;
    apr_time_t next;

    bosh_arena_touch(a, s);
    if (now >= login_ends(s)) {
        bosh_session_end(a, now, s, BOSH_COND_POLICY_VIOLATION);
    }
    if (s->root != 0) {
        return bosh_multi_tick(a, now, s, login_ends(s));
    }
    if (now >= s->inactive_at || now >= gap_ends(s)) {
        if (s->state == BOSH_ST_TOMB) {
            if (closed && s->branch == 0) {
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
    next = sooner(next, sooner(gap_ends(s), login_ends(s)));
    s->armed = next;
    return next;
}
