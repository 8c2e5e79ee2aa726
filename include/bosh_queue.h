/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_queue: byte strings and item queues over the arena's chunks.
 *
 * bosh_bytes_t is a plain byte FIFO in a list of chunks. bosh_queue_t lays items on top: each item is an
 * 8-byte header {length, type} and its bytes. Both are a few words inside a session, hold only indexes, and
 * own their chunks exclusively. Every function needs the arena lock (_locked by contract, the whole file)
 * unless it says otherwise; none allocates from the heap, blocks or logs.
 *
 * Growth is all or nothing: when the chunk list cannot give enough, nothing changes and APR_ENOMEM comes
 * back. `prio` says how deep into the reserve an allocation may dig (see BOSH_PRIO_*).
 */
#ifndef BOSH_QUEUE_H
#define BOSH_QUEUE_H

#include "bosh.h"

struct bosh_arena_t;
struct bosh_split_event_t;

typedef uint32_t bosh_ix; /* 1-based index of a record in the arena; 0 is none */

/* Who may take the last chunks: new work first stops (sessions), then input, answers never do. */
typedef enum bosh_prio_t {
    BOSH_PRIO_NEW = 0, /* a new session: keeps 1/8 of the chunks free */
    BOSH_PRIO_INPUT,   /* request payloads and bytes read upstream: keeps 1/32 free */
    BOSH_PRIO_ANSWER   /* an answer to print: may take the last chunk */
} bosh_prio_t;

typedef struct bosh_bytes_t {
    bosh_ix head, tail; /* chunks */
    uint32_t off;       /* bytes of the head chunk already consumed */
    uint32_t len;       /* bytes in the string */
} bosh_bytes_t;

typedef enum bosh_item_t {
    BOSH_ITEM_STANZA = 1, /* payload text, forwarded as it is */
    BOSH_ITEM_SASL,       /* up only: not to be mixed with stanzas in one body */
    BOSH_ITEM_FEATURES,   /* up only: needs xmlns:stream on the body, alone in its body */
    BOSH_ITEM_ERROR,      /* up only: a stream error, needs xmlns:stream */
    BOSH_ITEM_HEADER,     /* down only: a stream header: open or restart the stream */
    BOSH_ITEM_CLOSE       /* down only: end the stream; no bytes follow */
} bosh_item_t;

#define BOSH_ITEM_HEADER_SIZE 8 /* length, type, zero: in front of each item's bytes */

typedef struct bosh_queue_t {
    bosh_bytes_t b;
    uint32_t items;     /* items not wholly consumed */
    uint32_t head_left; /* bytes of the head item not yet consumed, when head_open is set */
    uint16_t head_type; /* ... and its type */
    uint16_t head_open; /* the head item is consumed in part, so its header is no longer in b */
} bosh_queue_t;

/* ---- plain bytes ---- */

apr_status_t bosh_bytes_append(struct bosh_arena_t *a, bosh_bytes_t *b, const char *p, size_t n,
                               bosh_prio_t prio);

/* Appends bytes [off, off+n) of src (offset 0 is its first unconsumed byte); src != dst; src unchanged. */
apr_status_t bosh_bytes_append_from(struct bosh_arena_t *a, bosh_bytes_t *dst,
                                    const bosh_bytes_t *src, size_t off, size_t n,
                                    bosh_prio_t prio);

/* Copies up to n bytes from offset off into dst, consuming nothing; returns the bytes copied. */
size_t bosh_bytes_peek(struct bosh_arena_t *a, const bosh_bytes_t *b, size_t off, char *dst,
                       size_t n);

/* Drops n bytes (n <= len) from the front and frees emptied chunks. */
void bosh_bytes_consume(struct bosh_arena_t *a, bosh_bytes_t *b, size_t n);

void bosh_bytes_clear(struct bosh_arena_t *a, bosh_bytes_t *b);

/*
 * Direct reading from a socket into the arena (DESIGN.md section 7, escrow). reserve: makes at least one
 * free byte, and up to `want` where cheap, available behind the end; fills iov[0..max) with the free
 * tail in order and returns their number (0: no memory). The reserved area belongs to the caller, who may
 * write to it WITHOUT the lock, until commit, which publishes n bytes and gives unused chunks back.
 * Nobody else may append to this string in between; consuming is allowed. A reservation whose owner died
 * before commit does no harm: the next reserve, append, move or clear of the string takes it back.
 */
int bosh_bytes_reserve(struct bosh_arena_t *a, bosh_bytes_t *b, size_t want, bosh_slice_t *iov,
                       int max, bosh_prio_t prio);
void bosh_bytes_commit(struct bosh_arena_t *a, bosh_bytes_t *b, size_t n);

/* The bytes that an open reservation has room for; 0: there is none. */
size_t bosh_bytes_reserved(struct bosh_arena_t *a, const bosh_bytes_t *b);

/*
 * The contiguous run of bytes at offset off (for feeding a parser); *n = 0 at the end. The memory stays
 * valid without the lock as long as only the caller consumes from this string.
 */
const char *bosh_bytes_run(struct bosh_arena_t *a, const bosh_bytes_t *b, size_t off, size_t *n);

/* ---- items ---- */

/* Appends one item made of n slices. */
apr_status_t bosh_queue_append(struct bosh_arena_t *a, bosh_queue_t *q, bosh_item_t type,
                               const bosh_slice_t *s, int n, bosh_prio_t prio);

/*
 * Appends one item: the splitter's event `ev` applied to `raw`, whose first unconsumed byte has the
 * absolute offset raw_base (bosh_split.h).
 */
apr_status_t bosh_queue_append_event(struct bosh_arena_t *a, bosh_queue_t *q, bosh_item_t type,
                                     const bosh_bytes_t *raw, uint64_t raw_base,
                                     const struct bosh_split_event_t *ev, bosh_prio_t prio);

/* Type and unconsumed length of the head item; false when the queue is empty. A queue whose head item
 * has length 0 (CLOSE) is not empty. */
bool bosh_queue_head(struct bosh_arena_t *a, const bosh_queue_t *q, bosh_item_t *type, size_t *len);

/*
 * Copies, without consuming, up to n bytes of the head item and of the items behind it as long as they
 * have the same type; returns the bytes copied.
 */
size_t bosh_queue_peek(struct bosh_arena_t *a, const bosh_queue_t *q, char *dst, size_t n);

/* Consumes n bytes of item content as peeked; finished items disappear. One of length 0 does when more is
 * consumed behind it; at the head with nothing to consume it waits for bosh_queue_pop(). Returns how many were
 * there to consume. */
size_t bosh_queue_consume(struct bosh_arena_t *a, bosh_queue_t *q, size_t n);

/* Drops the head item, whatever is left of it. */
void bosh_queue_pop(struct bosh_arena_t *a, bosh_queue_t *q);

/* Appends the rest of the head item's bytes to dst and drops the item. On APR_ENOMEM nothing changes; APR_EOF:
 * the queue is empty. */
apr_status_t bosh_queue_pop_to(struct bosh_arena_t *a, bosh_queue_t *q, bosh_bytes_t *dst,
                               bosh_prio_t prio);

/* Moves all items of src behind those of dst; src becomes empty. Takes no chunks: relinks src's, or copies
 * what fits into dst's last. src must have no half-consumed head, and both together no more than 4 GiB, else
 * APR_EINVAL and nothing changes; there is no other failure. */
apr_status_t bosh_queue_move(struct bosh_arena_t *a, bosh_queue_t *dst, bosh_queue_t *src);

void bosh_queue_clear(struct bosh_arena_t *a, bosh_queue_t *q);

/* Bytes a queue holds, headers included: what the limits are compared with. */
#define BOSH_QUEUE_BYTES(q) ((q)->b.len)

#endif
