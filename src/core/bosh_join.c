/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Joining the texts of script syntax in rid order. Called under the arena lock by bosh_session.c and, between
 * its parses, by a worker. Invariant: s->part is empty or begins with the first byte of an element.
 */
#include "bosh_join.h"

#include <string.h>

#include "bosh_answer.h"
#include "bosh_undo.h"
#include "bosh_window.h"

/* A RAW slot's payload has two items: the start tag, and the text. */
static size_t head_of(bosh_arena_t *a, bosh_slot_t *slot)
{
    bosh_item_t type;
    size_t len = 0;

    bosh_queue_head(a, &slot->payload, &type, &len);
    return len;
}

/* The first RAW one that nothing is missing before. */
static bosh_slot_t *first_raw(bosh_arena_t *a, bosh_session_t *s)
{
    if (!(s->flags & BOSH_SESS_SCRIPT) || s->state == BOSH_ST_TOMB) {
        return NULL;
    }
    for (uint64_t rid = s->processed + 1; rid <= s->received; rid++) {
        bosh_slot_t *slot = bosh_window_slot(a, s, rid);
        if (slot != NULL && (slot->flags & BOSH_SLOT_RAW)) {
            return slot;
        }
    }
    return NULL;
}

bool bosh_join_due(bosh_arena_t *a, bosh_session_t *s)
{
    return first_raw(a, s) != NULL;
}

static void describe(bosh_arena_t *a, const bosh_session_t *s, bosh_slot_t *slot, bosh_join_t *j)
{
    j->rid = slot->rid;
    j->head = head_of(a, slot);
    j->begun = s->part.len;
    j->text = BOSH_QUEUE_BYTES(&slot->payload) - j->head - (size_t)2 * BOSH_ITEM_HEADER_SIZE;
}

bool bosh_join_next(bosh_arena_t *a, const bosh_verdict_t *v, bosh_join_t *j)
{
    bosh_session_t *s = bosh_arena_get(a, v->session, v->serial);
    bosh_slot_t *slot = s != NULL ? first_raw(a, s) : NULL;

    if (slot == NULL) {
        return false;
    }
    j->session = v->session;
    j->serial = v->serial;
    describe(a, s, slot, j);
    return true;
}

/* The session, if it is still that text's turn. */
static bosh_session_t *still(bosh_arena_t *a, const bosh_join_t *j, bosh_slot_t **slot)
{
    bosh_session_t *s = bosh_arena_get(a, j->session, j->serial);

    *slot = s != NULL ? first_raw(a, s) : NULL;
    return *slot != NULL && (*slot)->rid == j->rid ? s : NULL;
}

/* Up to n bytes at offset off of the three strings one behind the other. */
static size_t copy(bosh_arena_t *a, const bosh_bytes_t *const b[3], const size_t from[3],
                   const size_t len[3], size_t off, char *dst, size_t n)
{
    size_t done = 0;

    for (int i = 0; i < 3; i++) {
        size_t want = off >= len[i] ? 0 : len[i] - off;
        if (want > n - done) {
            want = n - done;
        }
        if (want > 0) {
            done += bosh_bytes_peek(a, b[i], from[i] + off, dst + done, want);
        }
        off = off >= len[i] ? off - len[i] : 0;
    }
    return done;
}

size_t bosh_join_read(bosh_arena_t *a, const bosh_join_t *j, size_t off, char *dst, size_t n)
{
    bosh_slot_t *slot;
    bosh_session_t *s = still(a, j, &slot);

    if (s == NULL) {
        return 0;
    }
    const bosh_bytes_t *const b[3] = {&slot->payload.b, &s->part, &slot->payload.b};
    const size_t from[3] = {BOSH_ITEM_HEADER_SIZE, 0, (size_t)2 * BOSH_ITEM_HEADER_SIZE + j->head};
    const size_t len[3] = {j->head, j->begun, j->text};

    return copy(a, b, from, len, off, dst, n);
}

static bosh_slice_t without_space(bosh_slice_t s)
{
    while (s.n > 0 && strchr(" \t\r\n", *s.p) != NULL) {
        s.p++;
        s.n--;
    }
    return s;
}

apr_status_t bosh_join_done(bosh_arena_t *a, apr_time_t now, const bosh_limits_t *lim,
                            const bosh_join_t *j, const bosh_req_t *req, const char *text,
                            size_t used)
{
    size_t len = j->head + j->begun + j->text;
    bool more = used == j->head; /* nothing is complete: there is more of the beginning now */
    bosh_slice_t rest = {text + used, len - used};
    bosh_queue_t stanzas = {.items = 0};
    bosh_bytes_t begun = {.len = 0};
    bosh_slot_t *slot;
    bosh_session_t *s = still(a, j, &slot);
    apr_status_t rv;

    if (s == NULL) {
        return APR_SUCCESS; /* somebody was faster */
    }
    bosh_arena_touch(a, s);
    if (more && j->begun > 0) {
        rest.p += j->begun;
        rest.n -= j->begun;
    } else {
        rest = without_space(rest);
    }
    rv = bosh_window_payload(a, &stanzas, req);
    if (rv == APR_SUCCESS && rest.n > 0) {
        rv = bosh_bytes_append(a, more ? &s->part : &begun, rest.p, rest.n, BOSH_PRIO_INPUT);
    }
    if (rv != APR_SUCCESS) {
        bosh_queue_clear(a, &stanzas);
        return rv;
    }
    if (!more) {
        bosh_bytes_clear(a, &s->part);
        s->part = begun;
    }
    bosh_queue_clear(a, &slot->payload);
    slot->payload = stanzas;
    slot->flags &= (uint16_t)~BOSH_SLOT_RAW;
    bosh_answer_settle(a, now, s, lim);
    return APR_SUCCESS;
}

void bosh_join_fail(bosh_arena_t *a, apr_time_t now, const bosh_join_t *j, bosh_cond_t cond)
{
    bosh_slot_t *slot;
    bosh_session_t *s = still(a, j, &slot);

    if (s != NULL) {
        bosh_arena_touch(a, s);
        bosh_answer_refuse(a, now, s, slot, cond);
    }
}
