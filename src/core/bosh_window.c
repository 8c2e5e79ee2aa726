/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rid window. A rid lives in slot rid % nslots from its arrival until its answer is let go.
 *
 *   rid:   ... answered | answered+1 .. processed | processed+1 .. received | (gap) .. received+requests
 *   slot:  ANSWERED       HELD                      DEFERRED: no room         DEFERRED: after a gap
 *
 * Invariant: nslots >= 2 * (requests + 1), so that kept answers and open requests never share a slot,
 * but for a client that acknowledges nothing. Called under the arena lock by bosh_session.c only.
 */
#include "bosh_window.h"

#include <string.h>

bosh_slot_t *bosh_window_slot(bosh_arena_t *a, bosh_session_t *s, uint64_t rid)
{
    bosh_slot_t *slot = bosh_arena_slot(a, s, rid);

    return slot->state != BOSH_SLOT_FREE && slot->rid == rid ? slot : NULL;
}

bosh_win_t bosh_window_judge(bosh_arena_t *a, bosh_session_t *s, uint64_t rid, bool extra)
{
    const bosh_slot_t *slot = bosh_window_slot(a, s, rid);

    if (slot != NULL) {
        return slot->state == BOSH_SLOT_ANSWERED ? BOSH_WIN_RESEND : BOSH_WIN_REPEAT;
    }
    /* 14.2: too small and too large get the same answer, whoever asks (B-147). */
    if (rid <= s->received || rid > s->received + s->requests + (extra ? 1u : 0u)) {
        return BOSH_WIN_OUTSIDE;
    }
    return BOSH_WIN_NEW;
}

void bosh_window_drop(bosh_arena_t *a, bosh_slot_t *slot)
{
    bosh_queue_clear(a, &slot->payload);
    bosh_bytes_clear(a, &slot->answer);
    memset(slot, 0, sizeof(*slot));
}

apr_status_t bosh_window_payload(bosh_arena_t *a, bosh_queue_t *q, const bosh_req_t *req)
{
    enum {
        MAX = BOSH_XML_MAX_ATTRS + 8
    }; /* a piece for each declaration of the wrapper, and the rest */
    bosh_slice_t parts[MAX];
    int n = 0;

    for (size_t i = 0; i < req->npieces; i++) {
        if (n == MAX) {
            return APR_EINVAL; /* the parser's limits do not let that happen */
        }
        parts[n].p = req->pieces[i].p;
        parts[n].n = req->pieces[i].n;
        n++;
        if (req->pieces[i].last) {
            apr_status_t rv = bosh_queue_append(a, q, BOSH_ITEM_STANZA, parts, n, BOSH_PRIO_INPUT);
            if (rv != APR_SUCCESS) {
                return rv;
            }
            n = 0;
        }
    }
    return APR_SUCCESS;
}

size_t bosh_window_waiting(bosh_arena_t *a, const bosh_session_t *s)
{
    size_t n = 0;

    for (uint32_t i = 0; i < a->h->sizes.slots; i++) {
        n += BOSH_QUEUE_BYTES(&s->slots[i].payload);
    }
    return n;
}

apr_status_t bosh_window_store(bosh_arena_t *a, bosh_session_t *s, apr_time_t now,
                               const bosh_req_t *req, bosh_slice_t header, bosh_holder_t holder)
{
    bosh_slot_t *slot = bosh_arena_slot(a, s, req->rid);
    bosh_slot_t fresh = {.rid = req->rid, .state = BOSH_SLOT_DEFERRED};
    apr_status_t rv;

    if (req->rid > s->received + 1 &&
        bosh_window_waiting(a, s) + req->payload_bytes > BOSH_MAX_DEFERRED) {
        return APR_ENOMEM;
    }
    if (slot->state != BOSH_SLOT_FREE) {
        if (slot->state != BOSH_SLOT_ANSWERED ||
            ((s->flags & BOSH_SESS_ACKS) && slot->rid > s->client_ack)) {
            return APR_EOF;
        }
    }
    fresh.holder = holder;
    fresh.keys = req->keys;
    fresh.arrived = now;
    fresh.due = now + apr_time_from_sec(s->wait);
    fresh.flags = (uint16_t)((req->terminate ? BOSH_SLOT_TERMINATE : 0) |
                             (req->restart ? BOSH_SLOT_RESTART : 0) |
                             (req->raw && !req->restart ? BOSH_SLOT_RAW : 0) |
                             (req->has & BOSH_HAS_PAYLOAD ? 0 : BOSH_SLOT_EMPTY));
    if ((req->has & BOSH_HAS_PAUSE) && s->maxpause > 0) { /* B-217 */
        fresh.flags |= BOSH_SLOT_PAUSE;
        fresh.pause = (uint16_t)req->pause;
    }
    rv = req->restart
             ? bosh_queue_append(a, &fresh.payload, BOSH_ITEM_HEADER, &header, 1, BOSH_PRIO_INPUT)
             : bosh_window_payload(a, &fresh.payload, req);
    if (rv != APR_SUCCESS) {
        bosh_queue_clear(a, &fresh.payload);
        return rv;
    }
    bosh_window_drop(a, slot);
    *slot = fresh;
    while (bosh_window_slot(a, s, s->received + 1) != NULL) {
        s->received++;
    }
    return APR_SUCCESS;
}

unsigned bosh_window_open(bosh_arena_t *a, bosh_session_t *s, bool orphans)
{
    unsigned n = 0;

    for (uint32_t i = 0; i < a->h->sizes.slots; i++) {
        const bosh_slot_t *slot = &s->slots[i];
        if (slot->state == BOSH_SLOT_DEFERRED ||
            (slot->state == BOSH_SLOT_HELD && (orphans || slot->holder.peer != 0))) {
            n++;
        }
    }
    return n;
}

bosh_slot_t *bosh_window_oldest(bosh_arena_t *a, bosh_session_t *s, bool live)
{
    for (uint64_t rid = s->answered + 1; rid <= s->processed; rid++) {
        bosh_slot_t *slot = bosh_window_slot(a, s, rid);
        if (slot != NULL && slot->state == BOSH_SLOT_HELD && (!live || slot->holder.peer != 0)) {
            return slot;
        }
    }
    return NULL;
}

void bosh_window_evict(bosh_arena_t *a, bosh_session_t *s)
{
    unsigned kept = 0;
    uint64_t floor = s->answered >= a->h->sizes.slots ? s->answered - a->h->sizes.slots : 0;

    for (uint64_t rid = s->answered; rid > floor; rid--) {
        bosh_slot_t *slot = bosh_window_slot(a, s, rid);
        if (slot == NULL || slot->state != BOSH_SLOT_ANSWERED) {
            continue;
        }
        /* While its holder is on the way to fetch it, an answer stays, whatever else there is. */
        bool fetched = slot->holder.peer == 0 || (slot->flags & BOSH_SLOT_SENT);
        bool enough = s->flags & BOSH_SESS_ACKS ? rid <= s->client_ack : kept >= s->requests;
        if (fetched && enough) {
            bosh_window_drop(a, slot);
        } else if (!(slot->flags & BOSH_SLOT_PAUSE)) { /* B-169 */
            kept++;
        }
    }
}
