/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Giving back. bosh_back_begin() is part of every end of a session; the rest is called by bosh_down.c on the
 * owner's loop, under the arena lock.
 *
 * Invariant: a stanza is in link.up, in an answer, or with the loop that is returning it: whoever takes it out
 * does so in one section, so no client gets what is also returned.
 */
#include "bosh_back.h"

#include "bosh_multi.h"
#include "bosh_undo.h"
#include "bosh_window.h"

bool bosh_back_lost(const bosh_slot_t *slot)
{
    return slot->state == BOSH_SLOT_ANSWERED && (slot->flags & BOSH_SLOT_GAVE) &&
           !(slot->flags & (BOSH_SLOT_SENT | BOSH_SLOT_AGAIN)) && slot->holder.peer == 0;
}

/* The lost answer of this stream with the lowest rid; NULL: none. */
static bosh_slot_t *lost_slot(bosh_arena_t *a, bosh_session_t *st)
{
    bosh_session_t *s = bosh_multi_root(a, st);
    bosh_ix of = st->root != 0 ? bosh_arena_index(a, st) : 0;
    uint32_t serial = st->root != 0 ? st->serial : 0; /* the record may have been another's */
    bosh_slot_t *first = NULL;

    for (uint32_t i = 0; s != NULL && i < a->h->sizes.slots; i++) {
        bosh_slot_t *slot = &s->slots[i];
        if (slot->stream == of && slot->stream_serial == serial && bosh_back_lost(slot) &&
            (first == NULL || slot->rid < first->rid)) {
            first = slot;
        }
    }
    return first;
}

void bosh_back_begin(bosh_arena_t *a, bosh_session_t *s)
{
    /* With stream management the server itself knows what was not acknowledged (B-294). */
    bool may = (s->flags & BOSH_SESS_RETURNS) && !(s->flags & BOSH_SESS_SM) &&
               s->link.phase == BOSH_LINK_OPEN && !(s->link.flags & BOSH_LINK_ERROR);

    if (may && (s->link.up.items > 0 || lost_slot(a, s) != NULL)) {
        s->flags |= BOSH_SESS_BACK;
    }
}

static size_t take_answer(bosh_arena_t *a, bosh_slot_t *slot, char *dst, size_t size)
{
    size_t len = slot->answer.len;

    if (len <= size) {
        bosh_bytes_peek(a, &slot->answer, 0, dst, len);
        bosh_window_drop(a, slot);
    }
    return len;
}

size_t bosh_back_take(bosh_arena_t *a, bosh_session_t *s, char *dst, size_t size, bool *whole)
{
    bosh_queue_t *up = &s->link.up;
    bosh_slot_t *slot;
    bosh_item_t type;
    size_t len;

    bosh_arena_touch(a, s);
    slot = lost_slot(a, s);
    *whole = slot != NULL;
    if (slot != NULL) {
        return take_answer(a, slot, dst, size);
    }
    while (bosh_queue_head(a, up, &type, &len)) {
        if (type == BOSH_ITEM_STANZA && len > size) {
            return len;
        }
        if (type == BOSH_ITEM_STANZA && len > 0) {
            bosh_queue_peek(a, up, dst, len);
            bosh_queue_consume(a, up, len);
            return len;
        }
        bosh_queue_pop(a, up); /* what a server says of its stream alone */
    }
    s->link.up_single = 0;
    s->flags &= ~BOSH_SESS_BACK;
    return 0;
}

void bosh_back_give(bosh_arena_t *a, bosh_session_t *s, const char *text, size_t n)
{
    const bosh_slice_t part = {text, n};

    bosh_arena_touch(a, s);
    if (n > 0) {
        (void)bosh_queue_append(a, &s->link.down, BOSH_ITEM_STANZA, &part, 1, BOSH_PRIO_INPUT);
    }
}
