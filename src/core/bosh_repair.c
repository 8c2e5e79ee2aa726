/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking the shared segment, and putting it together again after a holder of the lock has died
 * (bosh_arena_validate and bosh_arena_repair of bosh_arena.h). Called under the arena's lock:
 * validate by tests, fuzzers and debug builds, repair by bosh_lock.c and nobody else.
 *
 * Nothing in a session is believed here before it is checked: a list is walked only as far as its
 * length allows, over indexes in range, so that every walk ends. What a session claims is counted
 * in the mark area, a byte for each chunk; a chunk claimed twice condemns both. Everything else
 * (free lists, buckets, counts) says nothing that the sessions do not say, and repair makes it
 * anew. Only the sizes, and `fresh_session` and `fresh_chunk`, each written in one store, are taken
 * as they are.
 */
#include "bosh_undo.h"

#include "bosh_point.h"

#include <string.h>

#define CHECK(test, text)                                                                          \
    do {                                                                                           \
        if (!(test)) {                                                                             \
            return text;                                                                           \
        }                                                                                          \
    } while (0)

/* ---- one string, one queue, one session: nothing believed ---- */

static bool is_chunk(const bosh_arena_t *a, bosh_ix c)
{
    return c != 0 && c < a->h->fresh_chunk;
}

/* The chunks behind a tail: only those of an open reservation. `steps` are left to walk. */
static const char *check_behind(bosh_arena_t *a, const bosh_chunk_t *tail, uint32_t steps)
{
    const bosh_chunk_t *chunk;
    bosh_ix c;

    for (c = tail->next; c != 0; c = chunk->next) {
        CHECK(tail->state == BOSH_CHUNK_RESERVED,
              "a chunk lies behind a tail without a reservation");
        CHECK(is_chunk(a, c), "a reserved chunk's index is out of range");
        CHECK(steps-- > 0, "the chunks of a reservation go round");
        chunk = bosh_arena_chunk(a, c);
        CHECK(chunk->state == BOSH_CHUNK_RESERVED, "a chunk behind a tail is not reserved");
        CHECK(chunk->used == 0, "a reserved chunk is filled");
    }
    return NULL;
}

/* Where a string's numbers and its chunks disagree, or NULL. */
static const char *check_bytes(bosh_arena_t *a, const bosh_bytes_t *b)
{
    uint64_t want = (uint64_t)b->len + b->off, sum = 0;
    uint32_t steps = a->h->fresh_chunk;
    const bosh_chunk_t *chunk;
    bosh_ix c = b->head;

    if (c == 0) {
        CHECK(b->tail == 0 && b->off == 0 && b->len == 0, "a string without chunks is not empty");
        return NULL;
    }
    for (;;) {
        bool reserved;
        CHECK(is_chunk(a, c), "a string's chunk is out of range");
        CHECK(steps-- > 0, "a string's chunks go round");
        chunk = bosh_arena_chunk(a, c);
        reserved = chunk->state == BOSH_CHUNK_RESERVED && c == b->tail;
        CHECK(chunk->state == BOSH_CHUNK_USED || reserved,
              "a string holds a chunk that is not in use");
        CHECK(chunk->used <= BOSH_CHUNK_DATA, "a chunk holds more than it can");
        CHECK(c != b->head || b->off < chunk->used || (reserved && b->off == chunk->used),
              "a string's head is consumed but not freed");
        CHECK(chunk->used > 0 || (reserved && c == b->head), "a string holds an empty chunk");
        sum += chunk->used;
        CHECK(sum <= want, "a string's chunks hold more than its length");
        if (c == b->tail) {
            break;
        }
        c = chunk->next;
    }
    CHECK(sum == want, "a string's chunks hold less than its length");
    return check_behind(a, chunk, steps);
}

/* Copies n bytes of a checked string from a chunk's place on, and moves the place; dst NULL:
 * skips. */
static void walk(bosh_arena_t *a, bosh_ix *c, uint32_t *at, char *dst, uint32_t n)
{
    while (n > 0) {
        const bosh_chunk_t *chunk = bosh_arena_chunk(a, *c);
        uint32_t k = chunk->used - *at;
        if (k == 0) {
            *c = chunk->next;
            *at = 0;
            continue;
        }
        k = k < n ? k : n;
        if (dst != NULL) {
            memcpy(dst, chunk->data + *at, k);
            dst += k;
        }
        *at += k;
        n -= k;
    }
}

/* Where a queue's items do not fill its string exactly, or NULL. */
static const char *check_queue(bosh_arena_t *a, const bosh_queue_t *q)
{
    struct {
        uint32_t len;
        uint16_t type, zero;
    } h;
    const char *why = check_bytes(a, &q->b);
    bosh_ix c = q->b.head;
    uint32_t at = q->b.off, left = q->b.len, items = 0;

    CHECK(why == NULL, why);
    if (q->head_open) {
        CHECK(q->head_open == 1 && q->head_left > 0 && q->head_left <= left,
              "a queue's open head is longer than the queue");
        CHECK(q->head_type >= BOSH_ITEM_STANZA && q->head_type <= BOSH_ITEM_CLOSE,
              "a queue's open head has no type");
        walk(a, &c, &at, NULL, q->head_left);
        left -= q->head_left;
        items++;
    } else {
        CHECK(q->head_left == 0 && q->head_type == 0, "a queue's closed head has a length");
    }
    for (; left > 0; items++) {
        CHECK(left >= sizeof(h), "a queue ends in half a header");
        walk(a, &c, &at, (char *)&h, sizeof(h));
        left -= (uint32_t)sizeof(h);
        CHECK(h.type >= BOSH_ITEM_STANZA && h.type <= BOSH_ITEM_CLOSE && h.zero == 0,
              "an item has no type");
        CHECK(h.len <= left, "an item is longer than its queue");
        walk(a, &c, &at, NULL, h.len);
        left -= h.len;
    }
    CHECK(items == q->items, "a queue's items do not add up");
    return NULL;
}

/* Where a session in use does not hold together in itself, or NULL. */
static const char *check_session(bosh_arena_t *a, const bosh_session_t *s)
{
    uint32_t peers = a->h->sizes.peers;
    const char *why;

    CHECK(s->state <= BOSH_ST_TOMB && s->serial != 0, "a session has no state");
    CHECK(s->first <= BOSH_ST_TOMB, "a session's first stream has no state");
    CHECK(s->link.phase <= BOSH_LINK_CLOSED && s->link.owner <= peers && s->link.giver <= peers,
          "a link has no state");
    if ((why = check_queue(a, &s->link.down)) != NULL ||
        (why = check_queue(a, &s->link.up)) != NULL ||
        (why = check_bytes(a, &s->link.raw)) != NULL ||
        (why = check_bytes(a, &s->link.prime)) != NULL ||
        (why = check_bytes(a, &s->link.hello)) != NULL ||
        (why = check_bytes(a, &s->part)) != NULL) {
        return why;
    }
    for (uint32_t i = 0; i < a->h->sizes.slots; i++) {
        const bosh_slot_t *slot = &s->slots[i];
        CHECK(slot->state <= BOSH_SLOT_ANSWERED && slot->holder.peer <= peers,
              "a slot has no state");
        if ((why = check_queue(a, &slot->payload)) != NULL ||
            (why = check_bytes(a, &slot->answer)) != NULL) {
            return why;
        }
    }
    return NULL;
}

/* ---- claims: only over strings that have passed ---- */

/* Counts one list's chunks, those of a reservation included, in the marks: 1, or 2 for more. */
static const char *claim(bosh_arena_t *a, const bosh_bytes_t *b)
{
    for (bosh_ix c = b->head; c != 0; c = bosh_arena_chunk(a, c)->next) {
        a->marks[c - 1] = a->marks[c - 1] == 0 ? 1 : 2;
    }
    return NULL;
}

static const char *contested(bosh_arena_t *a, const bosh_bytes_t *b)
{
    for (bosh_ix c = b->head; c != 0; c = bosh_arena_chunk(a, c)->next) {
        CHECK(a->marks[c - 1] == 1, "a chunk is in two strings");
    }
    return NULL;
}

static void clear_marks(bosh_arena_t *a)
{
    memset(a->marks, 0, a->h->fresh_chunk - 1);
}

static void claim_all(bosh_arena_t *a)
{
    clear_marks(a);
    for (bosh_ix i = 1; i < a->h->fresh_session; i++) {
        bosh_session_t *s = bosh_arena_session(a, i);
        if (s->state != BOSH_ST_FREE) {
            bosh_arena_each_string(a, s, claim);
        }
    }
}

/* ---- validate ---- */

static const char *validate_sessions(bosh_arena_t *a)
{
    const bosh_header_t *h = a->h;
    uint32_t used = 0, listed = 0;
    const char *why;
    bosh_ix i;

    for (i = 1; i < h->fresh_session; i++) {
        bosh_session_t *s = bosh_arena_session(a, i);
        if (s->state != BOSH_ST_FREE) {
            used++;
            why = check_session(a, s);
            CHECK(why == NULL, why);
        }
    }
    CHECK(used == h->nsessions, "the number of sessions is wrong");
    /* As many steps as there are free sessions, each over a free one: a list that goes round is
     * longer. */
    for (i = h->free_session; i != 0; i = bosh_arena_session(a, i)->free_next) {
        CHECK(i < h->fresh_session, "a free session's index is out of range");
        CHECK(bosh_arena_session(a, i)->state == BOSH_ST_FREE,
              "a session in use is on the free list");
        CHECK(++listed + used < h->fresh_session, "the free sessions go round");
    }
    CHECK(listed + used + 1 == h->fresh_session, "a session is on no list");
    return NULL;
}

/* Each session in use in one bucket, and that the right one. */
static const char *validate_buckets(bosh_arena_t *a)
{
    uint32_t found = 0;

    for (uint32_t n = 0; n < a->h->buckets; n++) {
        const bosh_session_t *s;
        for (bosh_ix i = a->buckets[n]; i != 0; i = s->hash_next) {
            uint32_t hash;
            CHECK(i < a->h->fresh_session, "a bucket's session is out of range");
            s = bosh_arena_session(a, i);
            CHECK(s->state != BOSH_ST_FREE, "a free session is in a bucket");
            memcpy(&hash, s->sid, sizeof(hash));
            CHECK((hash & (a->h->buckets - 1)) == n, "a session is in the wrong bucket");
            CHECK(++found <= a->h->nsessions, "a bucket goes round");
        }
    }
    CHECK(found == a->h->nsessions, "a session is in no bucket");
    return NULL;
}

/* The session of a branch; NULL: it has been given up. */
static bosh_session_t *root_of(bosh_arena_t *a, const bosh_session_t *s)
{
    bosh_session_t *root = bosh_arena_get(a, s->root, s->root_serial);

    return root != NULL && root->root == 0 ? root : NULL;
}

/* Each session lists its branches in the order of their indexes. */
static const char *validate_branches(bosh_arena_t *a)
{
    uint32_t listed = 0, there = 0;

    for (bosh_ix i = 1; i < a->h->fresh_session; i++) {
        const bosh_session_t *s = bosh_arena_session(a, i), *b;
        if (s->state == BOSH_ST_FREE || s->root != 0) {
            there += s->state != BOSH_ST_FREE && root_of(a, s) != NULL;
            continue;
        }
        for (bosh_ix k = s->branch, last = 0; k != 0; last = k, k = b->branch) {
            CHECK(k > last && k < a->h->fresh_session, "a session's branches are not in order");
            b = bosh_arena_session(a, k);
            CHECK(b->state != BOSH_ST_FREE && b->root == i && b->root_serial == s->serial,
                  "a session lists a branch that is not its own");
            listed++;
        }
    }
    CHECK(listed == there, "a branch is in no session's list");
    return NULL;
}

/* The sum is right, and nobody is counted too low. */
static const char *validate_nets(bosh_arena_t *a)
{
    uint64_t want = 0, have = 0;
    uint32_t *cell[2];

    for (bosh_ix i = 1; i < a->h->fresh_session; i++) {
        const bosh_session_t *s = bosh_arena_session(a, i);
        if (s->state != BOSH_ST_FREE && s->net != 0) {
            bosh_arena_net_cells(a, s->net, cell);
            CHECK(*cell[0] > 0 && *cell[1] > 0, "a session is not counted for its network");
            want += 2;
        }
    }
    for (uint32_t i = 0; a->h->counting && i < a->h->nets; i++) {
        have += a->nets[i];
    }
    CHECK(have == want, "the sessions of networks do not add up");
    return NULL;
}

/* Marks one free list; none of it may be marked before. */
static const char *validate_free(bosh_arena_t *a, bosh_ix c, uint32_t *n)
{
    for (; c != 0; c = bosh_arena_chunk(a, c)->after) {
        CHECK(is_chunk(a, c), "a free chunk's index is out of range");
        CHECK(bosh_arena_chunk(a, c)->state == BOSH_CHUNK_FREE,
              "a chunk in use is on the free list");
        CHECK(a->marks[c - 1] == 0, "a free chunk is on two lists");
        a->marks[c - 1] = 1;
        (*n)++;
    }
    return NULL;
}

static const char *validate_chunks(bosh_arena_t *a)
{
    const bosh_header_t *h = a->h;
    uint32_t n = h->sizes.chunks - (h->fresh_chunk - 1);
    const char *why;
    bosh_ix i;

    claim_all(a);
    for (i = 1; i < h->fresh_session; i++) {
        bosh_session_t *s = bosh_arena_session(a, i);
        why = s->state != BOSH_ST_FREE ? bosh_arena_each_string(a, s, contested) : NULL;
        CHECK(why == NULL, why);
    }
    why = validate_free(a, h->free_chunk, &n);
    CHECK(why == NULL, why);
    why = validate_free(a, h->late_chunk, &n);
    CHECK(why == NULL, why);
    why = validate_free(a, a->undo->freed, &n);
    CHECK(why == NULL, why);
    for (i = 1; i < h->fresh_chunk; i++) {
        CHECK(a->marks[i - 1] == 1, "a chunk is on no list");
    }
    CHECK(n == h->nfree_chunks, "the number of free chunks is wrong");
    return NULL;
}

static const char *validate_rest(bosh_arena_t *a)
{
    const bosh_header_t *h = a->h;

    CHECK(h->fresh_session >= 1 && h->fresh_session <= h->sizes.sessions + 1 &&
              h->fresh_chunk >= 1 && h->fresh_chunk <= h->sizes.chunks + 1,
          "a mark of fresh records is out of range");
    for (uint32_t i = 1; i <= h->sizes.peers; i++) {
        const bosh_peer_t *p = bosh_arena_peer(a, i);
        CHECK(p->state <= BOSH_PEER_LEAVING, "a peer has no state");
        CHECK(p->mail_head < BOSH_MAILBOX && p->mail_n <= BOSH_MAILBOX,
              "a mailbox is out of range");
    }
    return NULL;
}

apr_status_t bosh_arena_validate(bosh_arena_t *a, const char **why)
{
    *why = validate_rest(a);
    if (*why == NULL) {
        *why = validate_sessions(a);
    }
    if (*why == NULL) {
        *why = validate_buckets(a);
    }
    if (*why == NULL) {
        *why = validate_branches(a);
    }
    if (*why == NULL) {
        *why = validate_nets(a);
    }
    if (*why == NULL) {
        *why = validate_chunks(a);
    }
    return *why == NULL ? APR_SUCCESS : APR_EGENERAL;
}

/* ---- repair ---- */

/* Gives a session up; its chunks are on no list then and found by rebuild_chunks(). */
static void drop(bosh_arena_t *a, bosh_session_t *s, uint32_t *lost)
{
    s->state = BOSH_ST_FREE;
    if (++s->serial == 0) {
        s->serial = 1;
    }
    memset(s->sid, 0, sizeof(s->sid));
    a->h->count.repaired_sessions++;
    (*lost)++;
}

static uint32_t drop_broken(bosh_arena_t *a)
{
    bosh_header_t *h = a->h;
    bosh_ix spoiled = bosh_undo_rollback(a) ? 0 : h->busy;
    uint32_t lost = 0;
    bosh_ix i;

    BOSH_POINT("undone");
    for (i = 1; i < h->fresh_session; i++) {
        bosh_session_t *s = bosh_arena_session(a, i);
        if (s->state != BOSH_ST_FREE && (i == spoiled || check_session(a, s) != NULL)) {
            drop(a, s, &lost);
        }
    }
    claim_all(a);
    for (i = 1; i < h->fresh_session; i++) {
        bosh_session_t *s = bosh_arena_session(a, i);
        if (s->state != BOSH_ST_FREE && bosh_arena_each_string(a, s, contested) != NULL) {
            drop(a, s, &lost);
        }
    }
    return lost;
}

/* No message waits any longer, so nobody may think that one does. */
static void forget_mail(bosh_arena_t *a, bosh_session_t *s)
{
    s->link.flags &= (uint8_t)~BOSH_LINK_MAILED;
    for (uint32_t i = 0; i < a->h->sizes.slots; i++) {
        s->slots[i].flags &= (uint16_t)~BOSH_SLOT_MAILED;
    }
}

static void rebuild_sessions(bosh_arena_t *a)
{
    bosh_header_t *h = a->h;

    memset(a->buckets, 0, (size_t)h->buckets * sizeof(*a->buckets));
    if (h->counting) {
        memset(a->nets, 0, (size_t)h->nets * sizeof(*a->nets));
    }
    h->free_session = 0;
    h->nsessions = 0;
    for (bosh_ix i = h->fresh_session - 1; i > 0; i--) { /* downward, to hand out low ones first */
        bosh_session_t *s = bosh_arena_session(a, i);
        uint32_t hash;
        s->hash_next = 0;
        s->free_next = 0;
        if (s->state == BOSH_ST_FREE) {
            s->free_next = h->free_session;
            h->free_session = i;
            continue;
        }
        memcpy(&hash, s->sid, sizeof(hash));
        hash &= h->buckets - 1;
        s->hash_next = a->buckets[hash];
        a->buckets[hash] = i;
        h->nsessions++;
        bosh_arena_net_add(a, s, s->net);
        forget_mail(a, s);
    }
}

/* Those of a session that was given up end when their owner looks at them. */
static void rebuild_branches(bosh_arena_t *a)
{
    for (bosh_ix i = 1; i < a->h->fresh_session; i++) {
        bosh_arena_session(a, i)->branch = 0;
    }
    for (bosh_ix i = a->h->fresh_session - 1; i > 0; i--) {
        bosh_session_t *s = bosh_arena_session(a, i), *root;
        if (s->state != BOSH_ST_FREE && s->root != 0 && (root = root_of(a, s)) != NULL) {
            s->branch = root->branch;
            root->branch = i;
        }
    }
}

static void rebuild_chunks(bosh_arena_t *a)
{
    bosh_header_t *h = a->h;
    bosh_ix late = 0;

    h->nfree_chunks = h->sizes.chunks - (h->fresh_chunk - 1);
    h->free_chunk = 0;
    a->undo->freed = 0;
    claim_all(a);
    for (bosh_ix c = h->fresh_chunk - 1; c > 0; c--) {
        bosh_chunk_t *chunk = bosh_arena_chunk(a, c);
        bosh_ix *list = chunk->state == BOSH_CHUNK_RESERVED ? &late : &h->free_chunk;
        if (a->marks[c - 1] == 0) {
            chunk->state = BOSH_CHUNK_FREE;
            chunk->used = 0;
            chunk->after = *list;
            *list = c;
            h->nfree_chunks++;
        }
    }
    h->late_chunk = late;
}

static void rebuild_peers(bosh_arena_t *a)
{
    for (uint32_t i = 1; i <= a->h->sizes.peers; i++) {
        bosh_peer_t *p = bosh_arena_peer(a, i);
        if (p->state > BOSH_PEER_LEAVING) {
            p->state = BOSH_PEER_FREE;
        }
        p->streams = 0;
        if (p->state != BOSH_PEER_FREE) {
            p->mail_head = 0;
            p->mail_n = 0;
            p->overflow = 1;
            p->asleep = 0;
        }
    }
    for (bosh_ix i = 1; i < a->h->fresh_session; i++) {
        const bosh_session_t *s = bosh_arena_session(a, i);
        if (s->state != BOSH_ST_FREE && s->link.owner != 0) {
            bosh_arena_peer(a, s->link.owner)->streams++;
        }
    }
    a->wake_all = true;
}

uint32_t bosh_arena_repair(bosh_arena_t *a)
{
    bosh_header_t *h = a->h;
    uint32_t lost;

    if (h->fresh_session < 1 || h->fresh_session > h->sizes.sessions + 1) {
        h->fresh_session = h->sizes.sessions + 1;
    }
    if (h->fresh_chunk < 1 || h->fresh_chunk > h->sizes.chunks + 1) {
        h->fresh_chunk = h->sizes.chunks + 1;
    }
    lost = drop_broken(a);
    rebuild_chunks(a);
    rebuild_sessions(a);
    rebuild_branches(a);
    rebuild_peers(a);
    h->count.repairs++;
    h->busy = 0;
    return lost;
}
