/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Damage to the arena: validate sees every kind of it, and repair undoes it without touching what
 * is sound.
 */
#include "arena_env.h"
#include "bosh_undo.h"

#define SESSIONS 40
#define CHUNKS   512
#define INPUT    BOSH_PRIO_INPUT
#define ANSWER   BOSH_PRIO_ANSWER
#define OK(rv)   ck_assert_int_eq((rv), APR_SUCCESS)

static arena_env_t env;
static bosh_arena_t *A;

static void setup(void)
{
    arena_open(&env, SESSIONS, CHUNKS);
    A = &env.a;
}

static void teardown(void)
{
    arena_close(&env);
}

/* ---- a populated arena ---- */

/* What a session of the damage tests holds, from its number; for comparing later. */
static size_t content_of(uint32_t n, int which, char *dst)
{
    uint64_t seed = n * 16 + (uint32_t)which;
    size_t len = 1 + arena_random(&seed) % 3000;

    arena_text(dst, len, n * 16 + (uint32_t)which);
    return len;
}

/* Fills a session: strings and queues in every state there is. */
static void furnish(bosh_session_t *s, uint32_t n)
{
    char text[3001];
    bosh_slice_t item = {text, content_of(n, 0, text)}, iov[4];

    OK(bosh_queue_append(A, &s->link.down, BOSH_ITEM_STANZA, &item, 1, INPUT));
    bosh_queue_consume(A, &s->link.down, item.n / 2);
    OK(bosh_queue_append(A, &s->link.down, BOSH_ITEM_CLOSE, NULL, 0, INPUT));
    item.n = content_of(n, 1, text);
    OK(bosh_queue_append(A, &s->slots[1].payload, BOSH_ITEM_HEADER, &item, 1, INPUT));
    OK(bosh_queue_append(A, &s->link.up, BOSH_ITEM_SASL, &item, 1, INPUT));
    OK(bosh_queue_move(A, &s->link.up, &s->slots[1].payload));
    item.n = content_of(n, 2, text);
    OK(bosh_queue_append(A, &s->slots[2].payload, BOSH_ITEM_STANZA, &item, 1, INPUT));
    OK(bosh_bytes_append(A, &s->slots[3].answer, text, content_of(n, 3, text), INPUT));
    OK(bosh_bytes_append(A, &s->link.raw, text, content_of(n, 4, text), INPUT));
    bosh_bytes_consume(A, &s->link.raw, s->link.raw.len / 3);
    if (n % 2 == 0) {
        ck_assert_int_gt(bosh_bytes_reserve(A, &s->link.raw, 2000, iov, 4, INPUT), 0);
    }
    s->link.flags = BOSH_LINK_MAILED | BOSH_LINK_HAS_HEADER;
    s->slots[2].flags = BOSH_SLOT_MAILED | BOSH_SLOT_EMPTY;
}

/* Sessions 1..n, a few of them freed again, so that all lists have members. */
static void populate(uint32_t n)
{
    for (uint32_t i = 1; i <= n; i++) {
        furnish(arena_session(&env, i), i);
    }
    for (uint32_t i = 5; i <= n; i += 7) {
        bosh_arena_session_free(A, bosh_arena_session(A, i));
    }
    bosh_arena_commit(A);
    arena_check(&env);
}

static void expect_content(const bosh_bytes_t *b, size_t skip, uint32_t n, int which, size_t off)
{
    char want[3001], got[3001];
    size_t len = content_of(n, which, want);

    ck_assert_uint_eq(bosh_bytes_peek(A, b, skip, got, len - off), len - off);
    ck_assert_mem_eq(got, want + off, len - off);
}

/* All that furnish() put there is there. */
static void expect_furnished(bosh_session_t *s, uint32_t n)
{
    char text[3001];
    size_t half = content_of(n, 0, text) / 2;
    size_t item = BOSH_ITEM_HEADER_SIZE + content_of(n, 1, text);
    size_t third = content_of(n, 4, text) / 3;

    expect_content(&s->link.down.b, half > 0 ? 0 : BOSH_ITEM_HEADER_SIZE, n, 0, half);
    ck_assert_uint_eq(s->link.down.items, 2);
    expect_content(&s->link.up.b, BOSH_ITEM_HEADER_SIZE, n, 1, 0);
    expect_content(&s->link.up.b, item + BOSH_ITEM_HEADER_SIZE, n, 1, 0);
    ck_assert_uint_eq(s->link.up.items, 2);
    expect_content(&s->slots[2].payload.b, BOSH_ITEM_HEADER_SIZE, n, 2, 0);
    expect_content(&s->slots[3].answer, 0, n, 3, 0);
    expect_content(&s->link.raw, 0, n, 4, third);
}

/* Repairs, validates; every session but `damaged` (0: none) must be as furnish() left it. */
static uint32_t repair_and_compare(uint32_t total, bosh_ix damaged)
{
    uint32_t lost = bosh_arena_repair(A), sessions = 0;

    arena_check(&env);
    for (uint32_t i = 1; i <= total; i++) {
        bosh_session_t *s = bosh_arena_session(A, i);
        char sid[BOSH_SID_LEN + 1];
        sessions += s->state != BOSH_ST_FREE;
        if (i % 7 == 5 || i == damaged) {
            continue;
        }
        ck_assert_msg(s->state == BOSH_ST_LIVE, "session %u is lost", i);
        ck_assert_uint_eq(s->serial, 1);
        expect_furnished(s, i);
        bosh_arena_sid_text(s, sid);
        ck_assert_ptr_eq(bosh_arena_find(A, sid), s);
        ck_assert_uint_eq(s->link.flags, BOSH_LINK_HAS_HEADER);
        ck_assert_uint_eq(s->slots[2].flags, BOSH_SLOT_EMPTY);
    }
    ck_assert_uint_eq(A->h->nsessions, sessions);
    return lost;
}

/* ---- repair ---- */

START_TEST(test_repair_of_what_is_sound)
{
    uint32_t peer = bosh_arena_peer_claim(A, 1, 0, 0), nfree;

    populate(20);
    bosh_arena_peer(A, peer)->asleep = 1;
    bosh_arena_mail(A, peer, 1, 1);
    bosh_arena_peer(A, peer)->asleep = 1;
    A->nwake = 0;
    nfree = A->h->nfree_chunks;
    ck_assert_uint_eq(repair_and_compare(20, 0), 0);
    ck_assert_uint_eq(A->h->nfree_chunks, nfree);
    ck_assert_uint_eq(A->h->count.repairs, 1);
    ck_assert_uint_eq(A->h->count.repaired_sessions, 0);
    ck_assert_uint_eq(bosh_arena_peer(A, peer)->mail_n, 0);
    ck_assert_uint_eq(bosh_arena_peer(A, peer)->overflow, 1);
    ck_assert_uint_eq(bosh_arena_peer(A, peer)->asleep, 0);
    ck_assert_uint_eq(bosh_arena_peer(A, peer + 1)->overflow, 0); /* nobody there */
    ck_assert(A->wake_all);
    ck_assert_uint_eq(bosh_arena_index(A, arena_session(&env, 100)), 5); /* low ones first */
}
END_TEST

START_TEST(test_repair_drops_what_it_cannot_undo)
{
    bosh_session_t *s;

    populate(20);
    s = bosh_arena_session(A, 11);
    bosh_arena_touch(A, s);
    s->link.up.b.len++; /* its killed changer was in the middle of it */
    ck_assert_uint_eq(repair_and_compare(20, 0), 0);
    ck_assert_uint_eq(A->h->busy, 0);
    bosh_arena_touch(A, s);
    bosh_undo_spoil(A);
    ck_assert_uint_eq(repair_and_compare(20, 11), 1);
    ck_assert_uint_eq(s->state, BOSH_ST_FREE);
    ck_assert_uint_eq(s->serial, 2);
    ck_assert_uint_eq(A->h->busy, 0);
    ck_assert_uint_eq(A->h->count.repaired_sessions, 1);
    A->h->busy = UINT32_MAX; /* garbage, and a session that is free already */
    ck_assert_uint_eq(bosh_arena_repair(A), 0);
    A->h->busy = 11;
    ck_assert_uint_eq(bosh_arena_repair(A), 0);
    ck_assert_uint_eq(s->serial, 2);
}
END_TEST

/* A chunk somebody may still be reading into goes to nobody else as long as there are others. */
START_TEST(test_repair_hands_reserved_chunks_out_last)
{
    bosh_session_t *s = arena_session(&env, 1);
    bosh_slice_t iov[4];
    bosh_ix first, second, c = 0;

    ck_assert_int_eq(bosh_bytes_reserve(A, &s->link.raw, 2 * BOSH_CHUNK_DATA, iov, 4, INPUT), 2);
    first = s->link.raw.head;
    second = bosh_arena_chunk(A, first)->next;
    bosh_undo_spoil(A);
    ck_assert_uint_eq(bosh_arena_repair(A), 1);
    arena_check(&env);
    ck_assert_uint_eq(A->h->nfree_chunks, CHUNKS);
    for (uint32_t i = 0; i < CHUNKS; i++) {
        c = bosh_arena_chunk_new(A, ANSWER);
        ck_assert_uint_ne(c, 0);
        ck_assert(i < CHUNKS - 2 ? c != first && c != second : c == first || c == second);
    }
    ck_assert_uint_eq(bosh_arena_chunk_new(A, ANSWER), 0);
    bosh_arena_repair(A); /* nobody has them: they come back */
    ck_assert_uint_eq(A->h->nfree_chunks, CHUNKS);
}
END_TEST

/* Two sessions that claim a chunk are both gone: neither may read what was the other's. */
START_TEST(test_repair_of_a_contested_chunk)
{
    bosh_session_t *thief;

    populate(20);
    thief = bosh_arena_session(A, 8);
    bosh_bytes_clear(A, &thief->link.prime);
    thief->link.prime = bosh_arena_session(A, 13)->slots[3].answer;
    ck_assert_uint_eq(bosh_arena_repair(A), 2);
    ck_assert_uint_eq(thief->state, BOSH_ST_FREE);
    ck_assert_uint_eq(bosh_arena_session(A, 13)->state, BOSH_ST_FREE);
    arena_check(&env);
}
END_TEST

START_TEST(test_repair_of_nonsense_in_the_header)
{
    populate(20);
    A->h->free_chunk = 0x77777777;
    A->h->late_chunk = 3;
    A->h->free_session = 2;
    A->h->nsessions = 999;
    A->h->nfree_chunks = 0;
    memset(A->buckets, 0xff, A->h->buckets * sizeof(*A->buckets));
    bosh_arena_peer(A, 2)->state = 55;
    ck_assert_uint_eq(repair_and_compare(20, 0), 0);
    ck_assert_uint_eq(bosh_arena_peer(A, 2)->state, BOSH_PEER_FREE);
    A->h->fresh_session = UINT32_MAX; /* without these two marks all there is has to be looked at */
    A->h->fresh_chunk = 0;
    ck_assert_uint_eq(repair_and_compare(20, 0), 0);
    ck_assert_uint_eq(A->h->fresh_session, SESSIONS + 1);
}
END_TEST

/* A word worth trying: small, in range, huge, or one that is right somewhere else. */
static uint32_t evil_word(uint64_t *seed)
{
    switch (arena_random(seed) % 6) {
    case 0:
        return arena_random(seed) % 4;
    case 1:
        return arena_random(seed) % A->h->fresh_chunk;
    case 2:
        return UINT32_MAX - arena_random(seed) % 3;
    case 3:
        return arena_random(seed) % 4000;
    case 4:
        return A->h->sizes.chunks + arena_random(seed) % 3;
    default:
        return arena_random(seed);
    }
}

static void damage_queue(bosh_queue_t *q, uint64_t *seed)
{
    uint32_t word = evil_word(seed);

    switch (arena_random(seed) % 8) {
    case 0:
        q->b.head = word;
        break;
    case 1:
        q->b.tail = word;
        break;
    case 2:
        q->b.off = word;
        break;
    case 3:
        q->b.len = word;
        break;
    case 4:
        q->items = word;
        break;
    case 5:
        q->head_left = word;
        break;
    case 6:
        q->head_open = (uint16_t)word;
        break;
    default:
        q->head_type = (uint16_t)word;
        break;
    }
}

/* The chunks of one session, found while it was sound. */
typedef struct chunks_t {
    bosh_ix c[128];
    uint32_t n;
} chunks_t;

static void list_chunks(bosh_session_t *s, chunks_t *own)
{
    const bosh_bytes_t *strings[] = {&s->link.down.b, &s->link.up.b, &s->link.raw,
                                     &s->slots[2].payload.b, &s->slots[3].answer};

    own->n = 0;
    for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++) {
        for (bosh_ix c = strings[i]->head; c != 0; c = bosh_arena_chunk(A, c)->next) {
            ck_assert_uint_lt(own->n, 128);
            own->c[own->n++] = c;
        }
    }
}

/* One change to one session: a word of its lists, or of its own chunks' headers. */
static void damage(bosh_session_t *s, const chunks_t *own, uint64_t *seed)
{
    bosh_queue_t *queues[] = {&s->link.down, &s->link.up, &s->slots[1].payload,
                              &s->slots[2].payload};
    uint32_t word = evil_word(seed);
    bosh_chunk_t *chunk = bosh_arena_chunk(A, own->c[arena_random(seed) % own->n]);

    switch (arena_random(seed) % 8) {
    case 0:
        s->slots[3].answer.head = word;
        break;
    case 1:
        s->link.raw.tail = word;
        break;
    case 2:
        chunk->next = word;
        break;
    case 3:
        chunk->used = (uint16_t)word;
        break;
    case 4:
        chunk->state = (uint16_t)(word % 5);
        break;
    case 5: /* an item's header, perhaps */
        memcpy(chunk->data + arena_random(seed) % 16, &word, sizeof(word));
        break;
    default:
        damage_queue(queues[arena_random(seed) % 4], seed);
        break;
    }
}

/*
 * Random damage to one session, thousands of times. Repair must end, and leave an arena that
 * validates with every other session as it was; a session that is damaged so that it does not show
 * may stay.
 */
START_TEST(test_repair_of_random_damage)
{
    uint32_t dropped = 0;

    for (uint32_t i = 0; i < 500; i++) {
        uint64_t seed = (uint64_t)_i * 1000000 + i;
        bosh_ix victim;
        chunks_t own;
        const char *why;
        uint32_t lost;
        memset(env.mem, 0, env.bytes);
        OK(bosh_arena_format(env.mem, &(bosh_arena_sizes_t){4, SESSIONS, 8, CHUNKS}, A));
        populate(9);
        do {
            victim = 1 + arena_random(&seed) % 9;
        } while (victim % 7 == 5);
        list_chunks(bosh_arena_session(A, victim), &own);
        for (uint32_t n = 1 + arena_random(&seed) % 4; n > 0; n--) {
            damage(bosh_arena_session(A, victim), &own, &seed);
        }
        bosh_arena_validate(A, &why); /* says what it will, but ends */
        if (why != NULL && strcmp(why, "a chunk is in two strings") == 0) {
            ck_assert_uint_le(bosh_arena_repair(A),
                              2); /* its owner cannot be told from the other */
            arena_check(&env);
            continue;
        }
        lost = repair_and_compare(9, victim);
        ck_assert_uint_le(lost, 1);
        ck_assert_uint_eq(A->h->count.repaired_sessions, lost);
        dropped += lost;
        ck_assert_ptr_nonnull(arena_session(&env, 1000 + i));
        arena_check(&env);
    }
    ck_assert_uint_gt(dropped, 250); /* most damage shows */
}
END_TEST

/* Garbage all over the records of several sessions: whatever they claim, repair ends and the arena
 * is sound. */
START_TEST(test_repair_of_wild_damage)
{
    for (uint32_t i = 0; i < 500; i++) {
        uint64_t seed = (uint64_t)_i * 7000000 + i;
        const char *why;
        chunks_t own[9];
        memset(env.mem, 0, env.bytes);
        OK(bosh_arena_format(env.mem, &(bosh_arena_sizes_t){4, SESSIONS, 8, CHUNKS}, A));
        populate(9);
        for (bosh_ix n = 1; n <= 8; n++) {
            list_chunks(bosh_arena_session(A, n), &own[n]);
        }
        for (int n = 0; n < 300; n++) {
            bosh_ix victim = 1 + arena_random(&seed) % 8;
            bosh_session_t *s = bosh_arena_session(A, victim);
            uint32_t word = evil_word(&seed);
            memcpy((char *)s + arena_random(&seed) % (A->h->session_size - 4), &word, sizeof(word));
            if (own[victim].n > 0) { /* 5 is free */
                damage(s, &own[victim], &seed);
            }
        }
        bosh_arena_validate(A, &why);
        bosh_arena_repair(A);
        arena_check(&env);
        bosh_arena_repair(A); /* and once more finds nothing */
        arena_check(&env);
        ck_assert_uint_eq(A->h->count.repairs, 2);
    }
}
END_TEST

/* A killed changer leaves a session half changed and chunks on no list: each point of an append. */
START_TEST(test_repair_of_lost_chunks)
{
    populate(20);
    for (int i = 0; i < 10; i++) {
        ck_assert_uint_ne(bosh_arena_chunk_new(A, ANSWER), 0); /* taken, never linked */
    }
    ck_assert_uint_eq(repair_and_compare(20, 0), 0);
    A->h->free_chunk = 0; /* the list itself is lost */
    ck_assert_uint_eq(repair_and_compare(20, 0), 0);
}
END_TEST

/* ---- validate sees it ---- */

static void expect_why(const char *want)
{
    const char *why;

    ck_assert_int_eq(bosh_arena_validate(A, &why), APR_EGENERAL);
    ck_assert_str_eq(why, want);
}

/* Changes a word, expects the complaint, changes it back. */
#define SEEN(word, value, want)                                                                    \
    do {                                                                                           \
        __typeof__(word) seen_before = (word);                                                     \
        (word) = (value);                                                                          \
        expect_why(want);                                                                          \
        (word) = seen_before;                                                                      \
    } while (0)

START_TEST(test_validate_sees_broken_strings)
{
    bosh_session_t *s;
    bosh_bytes_t *b;
    bosh_chunk_t *head, *tail;
    char text[2 * BOSH_CHUNK_DATA];

    populate(20);
    s = bosh_arena_session(A, 3);
    b = &s->link.prime;
    arena_text(text, sizeof(text), 0);
    OK(bosh_bytes_append(A, b, text, sizeof(text) - 50, INPUT));
    head = bosh_arena_chunk(A, b->head);
    tail = bosh_arena_chunk(A, b->tail);
    SEEN(b->head, 0, "a string without chunks is not empty");
    SEEN(b->head, A->h->fresh_chunk, "a string's chunk is out of range");
    SEEN(head->next, b->head, "a string's chunks hold more than its length");
    SEEN(head->state, BOSH_CHUNK_FREE, "a string holds a chunk that is not in use");
    SEEN(head->state, BOSH_CHUNK_RESERVED, "a string holds a chunk that is not in use");
    SEEN(head->used, BOSH_CHUNK_DATA + 1, "a chunk holds more than it can");
    SEEN(b->off, BOSH_CHUNK_DATA, "a string's head is consumed but not freed");
    SEEN(tail->used, 0, "a string holds an empty chunk");
    SEEN(b->len, b->len - 1, "a string's chunks hold more than its length");
    SEEN(b->len, b->len + 1, "a string's chunks hold less than its length");
    SEEN(tail->next, b->head, "a chunk lies behind a tail without a reservation");
    tail->state = BOSH_CHUNK_RESERVED;
    SEEN(tail->next, UINT32_MAX, "a reserved chunk's index is out of range");
    SEEN(tail->next, b->head, "a chunk behind a tail is not reserved");
    SEEN(tail->next, b->tail, "a reserved chunk is filled");
    tail->state = BOSH_CHUNK_USED;
    head->next = b->head; /* round for ever, within its length */
    SEEN(b->len, UINT32_MAX, "a string's chunks go round");
    head->next = b->tail;
    expect_furnished(s, 3);
}
END_TEST

START_TEST(test_validate_sees_a_round_reservation)
{
    bosh_session_t *s = arena_session(&env, 1);
    bosh_slice_t iov[4];
    bosh_chunk_t *second;

    ck_assert_int_eq(bosh_bytes_reserve(A, &s->link.raw, 2 * BOSH_CHUNK_DATA, iov, 4, INPUT), 2);
    arena_check(&env);
    second = bosh_arena_chunk(A, bosh_arena_chunk(A, s->link.raw.head)->next);
    SEEN(second->next, bosh_arena_chunk(A, s->link.raw.head)->next,
         "the chunks of a reservation go round");
    second->next = s->link.raw.head;
    bosh_arena_commit(A);
    ck_assert_uint_eq(bosh_arena_repair(A), 1);
    ck_assert_uint_eq(A->h->nfree_chunks, CHUNKS);
}
END_TEST

START_TEST(test_validate_sees_broken_queues)
{
    bosh_session_t *s;
    bosh_queue_t *open, *q;
    char *header;

    populate(20);
    s = bosh_arena_session(A, 4);
    open = &s->link.down;
    q = &s->link.up;
    header = bosh_arena_chunk(A, q->b.head)->data + q->b.off;
    SEEN(open->head_left, 0, "a queue's open head is longer than the queue");
    SEEN(open->head_left, UINT32_MAX, "a queue's open head is longer than the queue");
    SEEN(open->head_open, 2, "a queue's open head is longer than the queue");
    SEEN(open->head_type, 0, "a queue's open head has no type");
    SEEN(open->head_open, 0, "a queue's closed head has a length");
    SEEN(open->head_left, open->head_left + 4, "a queue ends in half a header");
    SEEN(q->items, 3, "a queue's items do not add up");
    SEEN(q->items, 0, "a queue's items do not add up");
    SEEN(header[4], 0, "an item has no type");
    SEEN(header[4], BOSH_ITEM_CLOSE + 1, "an item has no type");
    SEEN(header[6], 1, "an item has no type");
    SEEN(header[3], 1, "an item is longer than its queue");
}
END_TEST

START_TEST(test_validate_sees_broken_tables)
{
    bosh_session_t *s, *gone;
    bosh_peer_t *p = bosh_arena_peer(A, bosh_arena_peer_claim(A, 1, 0, 0));
    bosh_chunk_t *c;
    bosh_bytes_t b;
    uint32_t bucket;
    bosh_ix i;

    populate(20);
    s = bosh_arena_session(A, 3);
    gone = bosh_arena_session(A, 5);
    SEEN(s->state, 9, "a session has no state");
    SEEN(s->serial, 0, "a session has no state");
    SEEN(s->link.phase, 99, "a link has no state");
    SEEN(s->link.owner, 5, "a link has no state");
    SEEN(s->slots[0].state, 99, "a slot has no state");
    SEEN(s->slots[0].holder.peer, 5, "a slot has no state");
    SEEN(A->h->nsessions, 3, "the number of sessions is wrong");
    SEEN(A->h->free_session, UINT32_MAX, "a free session's index is out of range");
    SEEN(A->h->free_session, 3, "a session in use is on the free list");
    SEEN(gone->free_next, 5, "the free sessions go round");
    SEEN(A->h->free_session, 0, "a session is on no list");
    SEEN(s->sid[0], s->sid[0] ^ 1, "a session is in the wrong bucket");
    memcpy(&bucket, s->sid, sizeof(bucket));
    bucket &= A->h->buckets - 1;
    SEEN(A->buckets[bucket], 0, "a session is in no bucket");
    SEEN(A->buckets[bucket], UINT32_MAX, "a bucket's session is out of range");
    SEEN(A->buckets[bucket], 5, "a free session is in a bucket");
    SEEN(s->hash_next, 3, "a bucket goes round");
    SEEN(A->h->nfree_chunks, 3, "the number of free chunks is wrong");
    SEEN(A->h->free_chunk, UINT32_MAX, "a free chunk's index is out of range");
    SEEN(A->h->free_chunk, s->link.up.b.head, "a chunk in use is on the free list");
    i = A->h->free_chunk;
    c = bosh_arena_chunk(A, i);
    SEEN(c->after, i, "a free chunk is on two lists");
    SEEN(A->h->late_chunk, i, "a free chunk is on two lists");
    SEEN(A->h->free_chunk, c->after, "a chunk is on no list");
    b = s->link.prime;
    SEEN(s->link.prime, s->slots[3].answer, "a chunk is in two strings");
    s->link.prime = b;
    SEEN(A->h->fresh_chunk, CHUNKS + 2, "a mark of fresh records is out of range");
    SEEN(A->h->fresh_session, 0, "a mark of fresh records is out of range");
    SEEN(p->state, 4, "a peer has no state");
    SEEN(p->mail_head, BOSH_MAILBOX, "a mailbox is out of range");
    SEEN(p->mail_n, BOSH_MAILBOX + 1, "a mailbox is out of range");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("repair");
    TCase *damaged = tcase_create("damage");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(damaged, setup, teardown);
    tcase_set_timeout(damaged, 60);
    tcase_add_test(damaged, test_repair_of_what_is_sound);
    tcase_add_test(damaged, test_repair_drops_what_it_cannot_undo);
    tcase_add_test(damaged, test_repair_hands_reserved_chunks_out_last);
    tcase_add_test(damaged, test_repair_of_a_contested_chunk);
    tcase_add_test(damaged, test_repair_of_nonsense_in_the_header);
    tcase_add_test(damaged, test_repair_of_lost_chunks);
    tcase_add_loop_test(damaged, test_repair_of_random_damage, 0, 8);
    tcase_add_loop_test(damaged, test_repair_of_wild_damage, 0, 4);
    tcase_add_test(damaged, test_validate_sees_broken_strings);
    tcase_add_test(damaged, test_validate_sees_a_round_reservation);
    tcase_add_test(damaged, test_validate_sees_broken_queues);
    tcase_add_test(damaged, test_validate_sees_broken_tables);
    suite_add_tcase(suite, damaged);

    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
