/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Overactivity. Counts and times the requests of one session by their slots; ends it with policy-violation.
 * Called under the arena lock by workers and, for reviews, by the owner's loop. Invariant: a slot with
 * BOSH_SLOT_SUSPECT is DEFERRED and its session has BOSH_SESS_SUSPECT, so a session without it is not
 * searched.
 */
#include "bosh_pace.h"

#include "bosh_answer.h"
#include "bosh_window.h"

/* Empty by design, or the end of a conversation: no poll (11, B-238). */
#define NO_POLL (BOSH_SLOT_PAUSE | BOSH_SLOT_TERMINATE | BOSH_SLOT_RESTART | BOSH_SLOT_CREATION)

static bool is_poll(const bosh_slot_t *slot)
{
    return (slot->flags & BOSH_SLOT_EMPTY) && !(slot->flags & NO_POLL);
}

/* Whether two requests came too soon one after the other. Without `polling` any frequency is allowed (B-239). */
static bool too_soon(const bosh_session_t *s, int64_t one, int64_t other)
{
    int64_t apart = one > other ? one - other : other - one;

    return s->polling > 0 && apart < apr_time_from_sec(s->polling) - BOSH_PACE_JITTER;
}

/* A request that waits on a connection which, as far as anybody knows, is alive. */
static bool counts(const bosh_slot_t *slot)
{
    return (slot->state == BOSH_SLOT_DEFERRED || slot->state == BOSH_SLOT_HELD) &&
           slot->holder.peer != 0;
}

/*
 * 11, with the others that were there when `slot` came: more than `requests` unanswered (B-230), or just as
 * many and the last of them is a poll that came too soon (B-233). The one with the highest rid decides.
 */
static bool crowded(bosh_arena_t *a, const bosh_session_t *s, const bosh_slot_t *slot)
{
    const bosh_slot_t *last = slot;
    int64_t before = 0;
    unsigned open = 1;

    for (uint32_t i = 0; i < a->h->sizes.slots; i++) {
        const bosh_slot_t *other = &s->slots[i];
        if (other != slot && counts(other) && !(other->flags & BOSH_SLOT_SUSPECT)) {
            open++;
            last = other->rid > last->rid ? other : last;
            before = other->arrived > before ? other->arrived : before;
        }
    }
    if (open > s->requests) {
        return !(last->flags & (BOSH_SLOT_PAUSE | BOSH_SLOT_TERMINATE));
    }
    return open == s->requests && open > 1 && is_poll(last) && too_soon(s, slot->arrived, before);
}

void bosh_pace_arrived(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, bosh_slot_t *slot)
{
    /* The usual case, without counting: no gap, and fewer than may be. */
    if ((slot->rid <= s->received && s->gap_since == 0 &&
         s->received - s->answered < s->requests) ||
        !crowded(a, s, slot)) {
        return;
    }
    slot->flags |= BOSH_SLOT_SUSPECT;
    slot->due = now + BOSH_PACE_GRACE;
    s->flags |= BOSH_SESS_SUSPECT;
    for (uint32_t i = 0; i < a->h->sizes.slots; i++) {
        if (&s->slots[i] != slot && counts(&s->slots[i])) {
            bosh_answer_mail_holder(a, &s->slots[i]);
        }
    }
}

bool bosh_pace_review(bosh_arena_t *a, apr_time_t now, bosh_session_t *s)
{
    bool left = false;

    if (!(s->flags & BOSH_SESS_SUSPECT)) {
        return false;
    }
    for (uint32_t i = 0; i < a->h->sizes.slots; i++) {
        bosh_slot_t *slot = &s->slots[i];
        if (!(slot->flags & BOSH_SLOT_SUSPECT)) {
            continue;
        }
        if (!counts(slot) || !crowded(a, s, slot)) {
            slot->flags &= (uint16_t)~BOSH_SLOT_SUSPECT;
            slot->due = slot->arrived + apr_time_from_sec(s->wait);
        } else if (now >= slot->due) {
            bosh_answer_refuse(a, now, s, slot, BOSH_COND_POLICY_VIOLATION);
            return true;
        } else {
            left = true;
        }
    }
    if (!left) {
        s->flags &= ~BOSH_SESS_SUSPECT;
    }
    return false;
}

void bosh_pace_holder_gone(bosh_arena_t *a, bosh_session_t *s)
{
    if (s->flags & BOSH_SESS_SUSPECT) {
        bosh_answer_mail_owner(a, s);
    }
}

bool bosh_pace_hasty(bosh_arena_t *a, bosh_session_t *s, const bosh_slot_t *slot)
{
    const bosh_slot_t *before;

    if (!(s->flags & BOSH_SESS_POLLING) || s->state != BOSH_ST_LIVE || !is_poll(slot)) {
        return false;
    }
    before = bosh_window_slot(a, s, slot->rid - 1);
    return before != NULL && before->state == BOSH_SLOT_ANSWERED && is_poll(before) &&
           !(before->flags & BOSH_SLOT_GAVE) && too_soon(s, slot->arrived, before->arrived);
}
