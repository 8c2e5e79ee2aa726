/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arena's undo part: what it takes to put the session that is being changed back to how its
 * section found it. Written by whoever holds the arena's lock, read by the one who repairs.
 *
 * Invariant: from the moment `busy` names a session until it is 0 again, `saved` and `notes` say
 * what has changed since; each is complete before the change it covers. A process that is killed
 * has done all its stores in the order of its program, so that only the compiler must be kept from
 * another order: hence the fences.
 *
 * Nothing need be noted of chunks taken in the section: without the section they are free. Nor of
 * the bytes in a chunk: they are only written behind `used`. A chunk that is given back keeps its
 * `next` and `used`, and lies on a list of its own until the section ends, unless the last free
 * chunk is gone before; then it is handed out all the same, and the section cannot be undone.
 */
#include "bosh_undo.h"

#include "bosh_point.h"

#include <string.h>

#define FENCE() __atomic_signal_fence(__ATOMIC_SEQ_CST)

static size_t saved_size(const bosh_arena_t *a)
{
    return a->h->session_size - BOSH_UNDO_FROM;
}

static bool is_saved(const bosh_arena_t *a, bosh_ix i)
{
    const bosh_undo_t *u = a->undo;

    for (uint32_t k = 0; k < u->records; k++) {
        if (u->session[k] == i) {
            return true;
        }
    }
    return false;
}

static void save(bosh_arena_t *a, const bosh_session_t *s, bosh_ix i)
{
    bosh_undo_t *u = a->undo;

    memcpy(u->saved + u->records * saved_size(a), (const char *)s + BOSH_UNDO_FROM, saved_size(a));
    u->session[u->records] = i;
    FENCE();
    u->records++;
    FENCE();
}

void bosh_arena_touch_too(bosh_arena_t *a, const bosh_session_t *s)
{
    bosh_ix i = bosh_arena_index(a, s);
    bosh_undo_t *u = a->undo;

    if (a->h->busy == 0) {
        bosh_arena_touch(a, s);
    } else if (!is_saved(a, i)) {
        if (u->records == BOSH_UNDO_RECORDS) {
            bosh_undo_spoil(a);
        } else {
            save(a, s, i);
        }
    }
}

void bosh_arena_touch(bosh_arena_t *a, const bosh_session_t *s)
{
    bosh_ix i = bosh_arena_index(a, s);
    bosh_undo_t *u = a->undo;

    if (a->h->busy == i || (a->h->busy != 0 && is_saved(a, i))) {
        return;
    }
    bosh_arena_commit(a);
    save(a, s, i);
    u->n = 0;
    u->spoiled = 0;
    if (++u->section == 0) {
        u->section = 1; /* 0 is that of chunks taken without a busy session */
    }
    BOSH_POINT("touching");
    FENCE();
    a->h->busy = i;
    FENCE();
}

void bosh_arena_commit(bosh_arena_t *a)
{
    bosh_undo_t *u = a->undo;

    FENCE();
    a->h->busy = 0;
    FENCE();
    BOSH_POINT("committing");
    u->records = 0;
    if (u->freed != 0) {
        bosh_arena_chunk(a, u->freed_last)->after = a->h->free_chunk;
        a->h->free_chunk = u->freed;
        u->freed = 0;
        u->freed_last = 0;
    }
}

void bosh_undo_note(bosh_arena_t *a, bosh_ix c)
{
    const bosh_chunk_t *chunk;
    bosh_undo_t *u = a->undo;

    if (c == 0 || a->h->busy == 0) {
        return;
    }
    chunk = bosh_arena_chunk(a, c);
    if (chunk->after == u->section) {
        return;
    }
    for (uint32_t i = 0; i < u->n; i++) {
        if (u->notes[i].chunk == c) {
            return;
        }
    }
    if (u->n == BOSH_UNDO_NOTES) {
        bosh_undo_spoil(a);
        return;
    }
    u->notes[u->n] = (bosh_note_t){c, chunk->next, chunk->used, chunk->state};
    FENCE();
    u->n++;
    FENCE();
}

void bosh_undo_spoil(bosh_arena_t *a)
{
    a->undo->spoiled = 1;
    FENCE();
}

/* Takes the chunks of a string, its numbers and their notes restored, back from wherever they were given to: those
 * of a reservation were noted then. Believes no index and follows no circle; what it does not like is left for
 * check_bytes() to see. */
static const char *revive(bosh_arena_t *a, const bosh_bytes_t *b)
{
    uint32_t steps = a->h->fresh_chunk;

    for (bosh_ix c = b->head; c != 0 && c < a->h->fresh_chunk && steps > 0; steps--) {
        bosh_chunk_t *chunk = bosh_arena_chunk(a, c);
        if (chunk->state == BOSH_CHUNK_FREE) {
            chunk->state = BOSH_CHUNK_USED;
        }
        if (c == b->tail) {
            break;
        }
        c = chunk->next;
    }
    return NULL;
}

bool bosh_undo_rollback(bosh_arena_t *a)
{
    const bosh_undo_t *u = a->undo;
    bosh_session_t *s;

    if (a->h->busy == 0) {
        return true;
    }
    if (u->records == 0 || u->records > BOSH_UNDO_RECORDS || u->session[0] != a->h->busy ||
        u->spoiled || u->n > BOSH_UNDO_NOTES) {
        return false;
    }
    for (uint32_t k = 0; k < u->records; k++) {
        if (u->session[k] == 0 || u->session[k] >= a->h->fresh_session) {
            return false;
        }
    }
    for (uint32_t k = 0; k < u->records; k++) {
        s = bosh_arena_session(a, u->session[k]);
        memcpy((char *)s + BOSH_UNDO_FROM, u->saved + k * saved_size(a), saved_size(a));
    }
    for (uint32_t k = 0; k < u->n; k++) {
        const bosh_note_t *note = &u->notes[k];
        if (note->chunk != 0 && note->chunk < a->h->fresh_chunk) {
            bosh_chunk_t *chunk = bosh_arena_chunk(a, note->chunk);
            chunk->next = note->next;
            chunk->used = note->used;
            chunk->state = note->state;
        }
    }
    for (uint32_t k = 0; k < u->records; k++) {
        s = bosh_arena_session(a, u->session[k]);
        if (s->state != BOSH_ST_FREE) {
            bosh_arena_each_string(a, s, revive);
        }
    }
    return true;
}
