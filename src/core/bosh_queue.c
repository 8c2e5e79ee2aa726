/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte strings and item queues over the arena's chunks. Called by any thread that holds the arena's
 * lock.
 *
 *   head                                tail
 *   [ off | ......used ] -> [ ..used ] -> [ ..used | free ]   -> [ free ]
 *     consumed                                       \__ reserved __/
 *
 * Invariant of a string: its bytes are [off, used) of the head chunk and [0, used) of those behind
 * it, up to the tail; together they are `len`. A chunk may be filled in part anywhere
 * (bosh_queue_move links whole chunks), but none is empty: the empty string has no chunks, and the
 * head's off < used.
 *
 * A reservation shows in the tail's state, RESERVED; the chunks behind the tail are the rest of it,
 * RESERVED and with used = 0. While it is open the tail stays where it is even when all of it is
 * consumed (off == used), because its owner writes behind `used` without the lock. If the owner
 * dies, the reservation stays and nothing is lost but bytes that were never published: the next
 * reserve, commit, append, move or clear finds the mark, and takes back what is behind the tail.
 *
 * Invariant of a queue: the string is the rest of the head item, if it is open, then whole items,
 * each an 8-byte header and its bytes, which may lie across chunks. An item is open (head_open)
 * from its first consumed byte on; head_left bytes, never 0, are left of it then.
 */
#include "bosh_arena.h"
#include "bosh_split.h"
#include "bosh_undo.h"

#include <string.h>

typedef struct item_header_t {
    uint32_t len;
    uint16_t type;
    uint16_t zero;
} item_header_t;

/* A place in a string: byte `at` of chunk `c`. */
typedef struct cursor_t {
    bosh_ix c;
    uint32_t at;
} cursor_t;

_Static_assert(sizeof(item_header_t) == BOSH_ITEM_HEADER_SIZE, "an item's header has no padding");

static size_t least(size_t x, size_t y)
{
    return x < y ? x : y;
}

/* ---- chunks of a string ---- */

static size_t tail_room(bosh_arena_t *a, const bosh_bytes_t *b)
{
    return b->tail != 0 ? BOSH_CHUNK_DATA - (size_t)bosh_arena_chunk(a, b->tail)->used : 0;
}

static void free_list(bosh_arena_t *a, bosh_ix c)
{
    while (c != 0) {
        bosh_ix next = bosh_arena_chunk(a, c)->next;
        bosh_arena_chunk_free(a, c);
        c = next;
    }
}

/* The head chunk is consumed: drops it, unless a reservation is open in it. */
static void drop_head(bosh_arena_t *a, bosh_bytes_t *b)
{
    bosh_ix c = b->head;
    bosh_chunk_t *chunk = bosh_arena_chunk(a, c);

    if (c != b->tail) {
        b->head = chunk->next;
        b->off = 0;
    } else if (chunk->state == BOSH_CHUNK_RESERVED) {
        b->off = chunk->used;
        return;
    } else {
        b->head = b->tail = 0;
        b->off = 0;
    }
    bosh_arena_chunk_free(a, c);
}

/* Closes an open reservation and gives back what of it was not filled. */
static void close_reservation(bosh_arena_t *a, bosh_bytes_t *b)
{
    bosh_chunk_t *tail;
    bosh_ix rest;

    if (b->tail == 0) {
        return;
    }
    tail = bosh_arena_chunk(a, b->tail);
    if (tail->state != BOSH_CHUNK_RESERVED) {
        return;
    }
    bosh_undo_note(a, b->tail);
    rest = tail->next;
    tail->next = 0;
    tail->state = BOSH_CHUNK_USED;
    free_list(a, rest);
    /* All of the head may have been consumed while the reservation was open. */
    if (b->off == bosh_arena_chunk(a, b->head)->used) {
        drop_head(a, b);
    }
}

/* True when n more bytes fit, with as many chunks as this priority may take. */
static bool have_room(bosh_arena_t *a, const bosh_bytes_t *b, uint64_t n, bosh_prio_t prio)
{
    uint64_t room = tail_room(a, b);

    if (n > UINT32_MAX - b->len) {
        return false;
    }
    return n <= room ||
           bosh_arena_room(a, (uint32_t)((n - room + BOSH_CHUNK_DATA - 1) / BOSH_CHUNK_DATA), prio);
}

/* Appends n bytes; have_room() has said yes to them, so the chunks are there. */
static void put(bosh_arena_t *a, bosh_bytes_t *b, const void *from, size_t n)
{
    const char *p = from;

    bosh_undo_note(a, b->tail);
    while (n > 0) {
        size_t k = least(n, tail_room(a, b));
        if (k == 0) {
            bosh_ix c = bosh_arena_chunk_new(a, BOSH_PRIO_ANSWER);
            if (b->tail != 0) {
                bosh_arena_chunk(a, b->tail)->next = c;
            } else {
                b->head = c;
            }
            b->tail = c;
        } else {
            bosh_chunk_t *chunk = bosh_arena_chunk(a, b->tail);
            memcpy(chunk->data + chunk->used, p, k);
            chunk->used = (uint16_t)(chunk->used + k);
            b->len += (uint32_t)k;
            p += k;
            n -= k;
        }
    }
}

/* ---- reading a string ---- */

/* The place of offset off < len. Looks at the tail first: a parser is fed what has come last. */
static cursor_t seek(bosh_arena_t *a, const bosh_bytes_t *b, size_t off)
{
    const bosh_chunk_t *chunk = bosh_arena_chunk(a, b->tail);
    size_t from_end = b->len - off;
    cursor_t cur = {b->tail, 0};

    if (from_end <= chunk->used) {
        cur.at = (uint32_t)(chunk->used - from_end);
        return cur;
    }
    off += b->off;
    cur.c = b->head;
    chunk = bosh_arena_chunk(a, cur.c);
    while (off >= chunk->used) {
        off -= chunk->used;
        cur.c = chunk->next;
        chunk = bosh_arena_chunk(a, cur.c);
    }
    cur.at = (uint32_t)off;
    return cur;
}

/* Copies n bytes, which are there, and moves the cursor behind them; dst NULL: skips them. */
static void take(bosh_arena_t *a, cursor_t *cur, void *dst, size_t n)
{
    char *p = dst;

    while (n > 0) {
        const bosh_chunk_t *chunk = bosh_arena_chunk(a, cur->c);
        size_t k = least(n, chunk->used - cur->at);
        if (k == 0) {
            cur->c = chunk->next;
            cur->at = 0;
            continue;
        }
        if (p != NULL) {
            memcpy(p, chunk->data + cur->at, k);
            p += k;
        }
        cur->at += (uint32_t)k;
        n -= k;
    }
}

/* Copies n bytes, which are there, from offset off of src behind dst, which has the room. */
static void put_from(bosh_arena_t *a, bosh_bytes_t *dst, const bosh_bytes_t *src, size_t off,
                     size_t n)
{
    cursor_t cur;

    if (n == 0) {
        return;
    }
    cur = seek(a, src, off);
    while (n > 0) {
        const bosh_chunk_t *chunk = bosh_arena_chunk(a, cur.c);
        size_t k = least(n, chunk->used - cur.at);
        put(a, dst, chunk->data + cur.at, k);
        cur.c = chunk->next;
        cur.at = 0;
        n -= k;
    }
}

/* ---- plain bytes ---- */

apr_status_t bosh_bytes_append(bosh_arena_t *a, bosh_bytes_t *b, const char *p, size_t n,
                               bosh_prio_t prio)
{
    close_reservation(a, b);
    if (!have_room(a, b, n, prio)) {
        return APR_ENOMEM;
    }
    put(a, b, p, n);
    return APR_SUCCESS;
}

apr_status_t bosh_bytes_append_from(bosh_arena_t *a, bosh_bytes_t *dst, const bosh_bytes_t *src,
                                    size_t off, size_t n, bosh_prio_t prio)
{
    if (dst == src || off > src->len || n > src->len - off) {
        return APR_EINVAL;
    }
    close_reservation(a, dst);
    if (!have_room(a, dst, n, prio)) {
        return APR_ENOMEM;
    }
    put_from(a, dst, src, off, n);
    return APR_SUCCESS;
}

size_t bosh_bytes_peek(bosh_arena_t *a, const bosh_bytes_t *b, size_t off, char *dst, size_t n)
{
    cursor_t cur;

    if (off >= b->len || n == 0) {
        return 0;
    }
    cur = seek(a, b, off);
    n = least(n, b->len - off);
    take(a, &cur, dst, n);
    return n;
}

void bosh_bytes_consume(bosh_arena_t *a, bosh_bytes_t *b, size_t n)
{
    n = least(n, b->len);
    b->len -= (uint32_t)n;
    while (n > 0) {
        size_t k = bosh_arena_chunk(a, b->head)->used - b->off;
        if (n < k) {
            b->off += (uint32_t)n;
            return;
        }
        n -= k;
        drop_head(a, b);
    }
}

void bosh_bytes_clear(bosh_arena_t *a, bosh_bytes_t *b)
{
    free_list(a, b->head);
    memset(b, 0, sizeof(*b));
}

int bosh_bytes_reserve(bosh_arena_t *a, bosh_bytes_t *b, size_t want, bosh_slice_t *iov, int max,
                       bosh_prio_t prio)
{
    bosh_ix last;
    size_t got = 0;
    int n = 0;

    close_reservation(a, b);
    last = b->tail;
    bosh_undo_note(a, last);
    if (max > 0 && tail_room(a, b) > 0) {
        bosh_chunk_t *tail = bosh_arena_chunk(a, last);
        iov[n].p = tail->data + tail->used;
        iov[n].n = got = tail_room(a, b);
        n++;
    }
    while (n < max && (got == 0 || got < want)) {
        bosh_ix c = bosh_arena_chunk_new(a, prio);
        if (c == 0) {
            break;
        }
        bosh_arena_chunk(a, c)->state = BOSH_CHUNK_RESERVED;
        if (last != 0) {
            bosh_arena_chunk(a, last)->next = c;
        } else {
            b->head = b->tail = c;
        }
        last = c;
        iov[n].p = bosh_arena_chunk(a, c)->data;
        iov[n].n = BOSH_CHUNK_DATA;
        got += BOSH_CHUNK_DATA;
        n++;
    }
    if (n > 0) {
        bosh_arena_chunk(a, b->tail)->state = BOSH_CHUNK_RESERVED;
    }
    return n;
}

void bosh_bytes_commit(bosh_arena_t *a, bosh_bytes_t *b, size_t n)
{
    bosh_chunk_t *tail;

    if (b->tail == 0 || bosh_arena_chunk(a, b->tail)->state != BOSH_CHUNK_RESERVED) {
        return; /* somebody has closed the reservation: there is nothing to publish */
    }
    for (;;) {
        size_t k = least(n, tail_room(a, b));
        bosh_undo_note(a, b->tail);
        tail = bosh_arena_chunk(a, b->tail);
        tail->used = (uint16_t)(tail->used + k);
        b->len += (uint32_t)k;
        n -= k;
        if (n == 0 || tail->next == 0) {
            break;
        }
        tail->state = BOSH_CHUNK_USED;
        b->tail = tail->next;
    }
    close_reservation(a, b);
}

size_t bosh_bytes_reserved(bosh_arena_t *a, const bosh_bytes_t *b)
{
    size_t room = 0;

    if (b->tail == 0 || bosh_arena_chunk(a, b->tail)->state != BOSH_CHUNK_RESERVED) {
        return 0;
    }
    for (bosh_ix c = b->tail; c != 0; c = bosh_arena_chunk(a, c)->next) {
        room += BOSH_CHUNK_DATA - (size_t)bosh_arena_chunk(a, c)->used;
    }
    return room;
}

const char *bosh_bytes_run(bosh_arena_t *a, const bosh_bytes_t *b, size_t off, size_t *n)
{
    const bosh_chunk_t *chunk;
    cursor_t cur;

    *n = 0;
    if (off >= b->len) {
        return NULL;
    }
    cur = seek(a, b, off);
    chunk = bosh_arena_chunk(a, cur.c);
    *n = chunk->used - cur.at;
    return chunk->data + cur.at;
}

/* ---- items ---- */

/* Makes room for an item of len bytes and writes its header; the caller puts the bytes. */
static apr_status_t begin_item(bosh_arena_t *a, bosh_queue_t *q, bosh_item_t type, uint64_t len,
                               bosh_prio_t prio)
{
    item_header_t h = {(uint32_t)len, (uint16_t)type, 0};

    close_reservation(a, &q->b);
    if (len > UINT32_MAX || !have_room(a, &q->b, len + sizeof(h), prio)) {
        return APR_ENOMEM;
    }
    put(a, &q->b, &h, sizeof(h));
    q->items++;
    return APR_SUCCESS;
}

apr_status_t bosh_queue_append(bosh_arena_t *a, bosh_queue_t *q, bosh_item_t type,
                               const bosh_slice_t *s, int n, bosh_prio_t prio)
{
    uint64_t len = 0;
    apr_status_t rv;

    for (int i = 0; i < n; i++) {
        len += s[i].n;
    }
    rv = begin_item(a, q, type, len, prio);
    for (int i = 0; rv == APR_SUCCESS && i < n; i++) {
        put(a, &q->b, s[i].p, s[i].n);
    }
    return rv;
}

/* Checks that the edits lie in the event and the event in the string; gives the length after
 * them. */
static bool measure_event(const bosh_bytes_t *raw, uint64_t raw_base, const bosh_split_event_t *ev,
                          uint64_t *len)
{
    uint64_t at = ev->start;

    if (ev->start < raw_base || ev->end < ev->start || ev->end - raw_base > raw->len) {
        return false;
    }
    *len = ev->end - ev->start;
    for (size_t i = 0; i < ev->nedits; i++) {
        const bosh_edit_t *e = &ev->edits[i];
        if (e->at < at || e->at > ev->end || e->drop > ev->end - e->at) {
            return false;
        }
        at = e->at + e->drop;
        *len = *len - e->drop + e->n;
    }
    return true;
}

apr_status_t bosh_queue_append_event(bosh_arena_t *a, bosh_queue_t *q, bosh_item_t type,
                                     const bosh_bytes_t *raw, uint64_t raw_base,
                                     const bosh_split_event_t *ev, bosh_prio_t prio)
{
    uint64_t len, at = ev->start;
    apr_status_t rv;

    if (raw == &q->b || !measure_event(raw, raw_base, ev, &len)) {
        return APR_EINVAL;
    }
    rv = begin_item(a, q, type, len, prio);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    for (size_t i = 0; i < ev->nedits; i++) {
        const bosh_edit_t *e = &ev->edits[i];
        put_from(a, &q->b, raw, (size_t)(at - raw_base), (size_t)(e->at - at));
        put(a, &q->b, e->text, e->n);
        at = e->at + e->drop;
    }
    put_from(a, &q->b, raw, (size_t)(at - raw_base), (size_t)(ev->end - at));
    return APR_SUCCESS;
}

/* The head item's type and what is left of it; there is one. */
static item_header_t head_of(bosh_arena_t *a, const bosh_queue_t *q)
{
    item_header_t h = {q->head_left, q->head_type, 0};

    if (!q->head_open) {
        bosh_bytes_peek(a, &q->b, 0, (char *)&h, sizeof(h));
    }
    return h;
}

bool bosh_queue_head(bosh_arena_t *a, const bosh_queue_t *q, bosh_item_t *type, size_t *len)
{
    item_header_t h;

    if (q->items == 0) {
        return false;
    }
    h = head_of(a, q);
    *type = (bosh_item_t)h.type;
    *len = h.len;
    return true;
}

size_t bosh_queue_peek(bosh_arena_t *a, const bosh_queue_t *q, char *dst, size_t n)
{
    item_header_t h;
    uint16_t type;
    cursor_t cur;
    size_t done = 0;

    if (q->items == 0) {
        return 0;
    }
    h = head_of(a, q);
    type = h.type;
    cur = seek(a, &q->b, 0);
    if (!q->head_open) {
        take(a, &cur, NULL, sizeof(h));
    }
    for (uint32_t left = q->items; h.type == type; take(a, &cur, &h, sizeof(h))) {
        size_t k = least(h.len, n - done);
        take(a, &cur, dst + done, k);
        done += k;
        if (k < h.len || --left == 0) {
            break;
        }
    }
    return done;
}

static void close_head(bosh_queue_t *q)
{
    q->items--;
    q->head_left = 0;
    q->head_type = 0;
    q->head_open = 0;
}

size_t bosh_queue_consume(bosh_arena_t *a, bosh_queue_t *q, size_t n)
{
    uint16_t type = q->items > 0 ? head_of(a, q).type : 0;
    size_t done = 0;

    while (n > 0 && q->items > 0) {
        item_header_t h = head_of(a, q);
        size_t k = least(n, h.len);
        if (h.type != type) {
            break; /* not peeked: the next one's type is another */
        }
        bosh_bytes_consume(a, &q->b, k + (q->head_open ? 0 : sizeof(h)));
        n -= k;
        done += k;
        if (k == h.len) {
            close_head(q);
        } else {
            q->head_left = h.len - (uint32_t)k;
            q->head_type = h.type;
            q->head_open = 1;
        }
    }
    return done;
}

void bosh_queue_pop(bosh_arena_t *a, bosh_queue_t *q)
{
    item_header_t h;

    if (q->items > 0) {
        h = head_of(a, q);
        bosh_bytes_consume(a, &q->b, (size_t)h.len + (q->head_open ? 0 : sizeof(h)));
        close_head(q);
    }
}

apr_status_t bosh_queue_pop_to(bosh_arena_t *a, bosh_queue_t *q, bosh_bytes_t *dst,
                               bosh_prio_t prio)
{
    item_header_t h;
    apr_status_t rv;

    if (q->items == 0) {
        return APR_EOF;
    }
    h = head_of(a, q);
    rv = bosh_bytes_append_from(a, dst, &q->b, q->head_open ? 0 : sizeof(h), h.len, prio);
    if (rv == APR_SUCCESS) {
        bosh_queue_pop(a, q);
    }
    return rv;
}

/* Links src's chunks behind dst's; both have some. */
static void link_chunks(bosh_arena_t *a, bosh_bytes_t *dst, const bosh_bytes_t *src)
{
    bosh_chunk_t *head = bosh_arena_chunk(a, src->head);

    bosh_undo_note(a, dst->tail);
    if (src->off > 0) { /* only a head can have consumed bytes, and this one will not be one */
        bosh_undo_spoil(a);
        head->used = (uint16_t)(head->used - src->off);
        memmove(head->data, head->data + src->off, head->used);
    }
    bosh_arena_chunk(a, dst->tail)->next = src->head;
    dst->tail = src->tail;
    dst->len += src->len;
}

apr_status_t bosh_queue_move(bosh_arena_t *a, bosh_queue_t *dst, bosh_queue_t *src)
{
    if (dst == src || src->head_open || src->b.len > UINT32_MAX - dst->b.len) {
        return APR_EINVAL;
    }
    close_reservation(a, &dst->b);
    close_reservation(a, &src->b);
    if (src->items == 0) {
        return APR_SUCCESS;
    }
    if (dst->items == 0) {
        dst->b = src->b;
    } else if (src->b.len <= tail_room(a, &dst->b)) { /* small ones share a chunk */
        put_from(a, &dst->b, &src->b, 0, src->b.len);
        free_list(a, src->b.head);
    } else {
        link_chunks(a, &dst->b, &src->b);
    }
    dst->items += src->items;
    memset(src, 0, sizeof(*src));
    return APR_SUCCESS;
}

void bosh_queue_clear(bosh_arena_t *a, bosh_queue_t *q)
{
    bosh_bytes_clear(a, &q->b);
    memset(q, 0, sizeof(*q));
}
