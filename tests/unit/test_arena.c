/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arena: its layout, session table, chunk list, peers and mail; that validate sees every kind of damage
 * and that repair undoes it without touching what is sound.
 */
#include <stdio.h>
#include <unistd.h>

#include "arena_env.h"

#define SESSIONS 40
#define CHUNKS   2048
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

/* ---- layout ---- */

START_TEST(test_sizes)
{
    bosh_arena_sizes_t fine = {.peers = 4, .sessions = 100, .slots = 8, .chunks = 1000};
    bosh_arena_sizes_t s;
    bosh_arena_t a;

    ck_assert_uint_gt(bosh_arena_size(&fine), 1000 * BOSH_CHUNK_SIZE);
#define REFUSED(field, value)                                                                      \
    (s = fine, s.field = (value), ck_assert_uint_eq(bosh_arena_size(&s), 0),                       \
     ck_assert_int_eq(bosh_arena_format(env.mem, &s, &a), APR_EINVAL))
#define TAKEN(field, value) (s = fine, s.field = (value), ck_assert_uint_gt(bosh_arena_size(&s), 0))
    REFUSED(peers, 0);
    REFUSED(peers, 65536);
    REFUSED(sessions, 0);
    REFUSED(sessions, UINT32_MAX);
    REFUSED(chunks, 0);
    REFUSED(chunks, UINT32_MAX);
    REFUSED(slots, 0);
    REFUSED(slots, 4);
    REFUSED(slots, 12);
    REFUSED(slots, 128);
    TAKEN(slots, 64);
    TAKEN(chunks, 1);
    TAKEN(sessions, 4 * 1024 * 1024);
    s = fine;
    s.chunks = 1u << 30; /* more than 32 bits can count, and counted right */
    ck_assert_uint_eq(bosh_arena_size(&s) - bosh_arena_size(&fine) >> 40, 1);
#undef REFUSED
#undef TAKEN
}
END_TEST

START_TEST(test_format_wants_a_page)
{
    bosh_arena_sizes_t sizes = {.peers = 1, .sessions = 1, .slots = 8, .chunks = 1};
    bosh_arena_t a;

    ck_assert_int_eq(bosh_arena_format((char *)env.mem + 8, &sizes, &a), APR_EINVAL);
    ck_assert_int_eq(bosh_arena_attach((char *)env.mem + 8, &a), APR_EINVAL);
}
END_TEST

START_TEST(test_attach)
{
    bosh_session_t *s = arena_session(&env, 7), *same;
    bosh_arena_t a;
    char sid[BOSH_SID_LEN + 1];

    OK(bosh_arena_attach(env.mem, &a));
    bosh_arena_sid_text(s, sid);
    same = bosh_arena_find(&a, sid);
    ck_assert_ptr_eq(same, s);
    ck_assert_uint_eq(a.nwake, 0);

#define REFUSED(field)                                                                             \
    (A->h->field++, ck_assert_int_eq(bosh_arena_attach(env.mem, &a), APR_EINVAL), A->h->field--)
    REFUSED(magic);
    REFUSED(layout);
    REFUSED(session_size);
    REFUSED(sizes.peers);
    REFUSED(sizes.chunks);
    REFUSED(sizes.slots);
    REFUSED(buckets);
    REFUSED(off_peers);
    REFUSED(off_buckets);
    REFUSED(off_sessions);
    REFUSED(off_marks);
    REFUSED(off_chunks);
    REFUSED(total);
#undef REFUSED
}
END_TEST

/* Pages of the mapping that have memory. */
static size_t resident(const arena_env_t *e)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (e->bytes + page - 1) / page, n = 0;
    unsigned char *vec = malloc(pages);

    ck_assert_int_eq(mincore(e->mem, e->bytes, vec), 0);
    for (size_t i = 0; i < pages; i++) {
        n += vec[i] & 1;
    }
    free(vec);
    return n;
}

/* Memory is free until it is used: not making an arena, nor checking it, nor repairing it touches it all. */
START_TEST(test_untouched_until_used)
{
    arena_env_t big;
    bosh_session_t *s;
    char text[100];

    arena_open(&big, 50000, 800 * 1024);
    ck_assert_uint_gt(big.bytes, 800u << 20);
    ck_assert_uint_le(resident(&big), 2);
    s = arena_session(&big, 1);
    arena_text(text, sizeof(text), 0);
    OK(bosh_bytes_append(&big.a, &s->link.raw, text, sizeof(text), INPUT));
    ck_assert_uint_le(resident(&big), 6); /* its record, bucket and chunk */
    arena_check(&big);
    ck_assert_uint_eq(bosh_arena_repair(&big.a), 1); /* s is marked busy */
    arena_check(&big);
    ck_assert_uint_le(resident(&big), 6 + 4 + 65536 * 4 / 4096); /* peers, marks, all buckets */
    arena_close(&big);
}
END_TEST

/* ---- sessions ---- */

START_TEST(test_session_life)
{
    bosh_session_t *s = arena_session(&env, 1), *again;
    bosh_ix i = bosh_arena_index(A, s);
    uint32_t serial = s->serial;
    uint8_t sid[BOSH_SID_BYTES];
    char text[BOSH_SID_LEN + 1];

    ck_assert_uint_eq(i, 1);
    ck_assert_uint_ne(serial, 0);
    ck_assert_int_eq(s->state, BOSH_ST_LIVE);
    ck_assert_uint_eq(A->h->busy, i);
    ck_assert_ptr_eq(bosh_arena_session(A, i), s);
    ck_assert_ptr_eq(bosh_arena_get(A, i, serial), s);
    ck_assert_ptr_null(bosh_arena_get(A, i, serial + 1));
    ck_assert_ptr_null(bosh_arena_get(A, i, 0));
    ck_assert_ptr_null(bosh_arena_get(A, 0, serial));
    ck_assert_ptr_null(bosh_arena_get(A, i + 1, 0)); /* never used */
    ck_assert_ptr_null(bosh_arena_get(A, UINT32_MAX, serial));
    arena_sid(1, sid);
    ck_assert_ptr_null(bosh_arena_session_new(A, sid)); /* it exists */
    bosh_arena_sid_text(s, text);
    strcpy(s->to, "example.com");
    s->slots[7].rid = 12;
    OK(bosh_bytes_append(A, &s->slots[3].answer, text, 32, INPUT));
    OK(bosh_queue_append(A, &s->slots[4].payload, BOSH_ITEM_CLOSE, NULL, 0, INPUT));
    OK(bosh_queue_append(A, &s->link.up, BOSH_ITEM_CLOSE, NULL, 0, INPUT));

    bosh_arena_session_free(A, s);
    arena_check(&env);
    ck_assert_uint_eq(A->h->nfree_chunks, CHUNKS);
    ck_assert_uint_eq(A->h->nsessions, 0);
    ck_assert_ptr_null(bosh_arena_get(A, i, serial));
    ck_assert_ptr_null(bosh_arena_get(A, i, serial + 1));
    ck_assert_ptr_null(bosh_arena_find(A, text));

    again = arena_session(&env, 2);
    ck_assert_ptr_eq(again, s); /* the lowest first */
    ck_assert_uint_eq(again->serial, serial + 1);
    ck_assert_uint_eq(again->slots[7].rid, 0);
    ck_assert_int_eq(again->to[0], '\0');
}
END_TEST

START_TEST(test_serial_never_names_none)
{
    bosh_session_t *s = arena_session(&env, 1);

    s->serial = UINT32_MAX;
    bosh_arena_session_free(A, s);
    s = arena_session(&env, 1);
    ck_assert_uint_eq(s->serial, 1);
}
END_TEST

START_TEST(test_find_takes_any_text)
{
    bosh_session_t *s = arena_session(&env, 5);
    char sid[BOSH_SID_LEN + 1], longer[BOSH_SID_LEN + 2], text[BOSH_SID_LEN + 1];

    bosh_arena_sid_text(s, sid);
    ck_assert_uint_eq(strlen(sid), BOSH_SID_LEN);
    ck_assert_ptr_eq(bosh_arena_find(A, sid), s);
    ck_assert_ptr_null(bosh_arena_find(A, NULL));
    ck_assert_ptr_null(bosh_arena_find(A, ""));
    snprintf(longer, sizeof(longer), "%s0", sid);
    ck_assert_ptr_null(bosh_arena_find(A, longer));
    for (int i = 0; i < BOSH_SID_LEN; i++) {
        static const char strange[] = {'\0', ' ', 'g', '/',    ':',   '`',
                                       '@',  'A', 'F', '\x80', '\xff'};
        for (size_t k = 0; k < sizeof(strange); k++) {
            strcpy(text, sid);
            text[i] = strange[k];
            ck_assert_ptr_null(bosh_arena_find(A, text));
        }
        text[i] = sid[i] == '0' ? '1' : '0'; /* a fine sid, but another */
        ck_assert_ptr_null(bosh_arena_find(A, text));
    }
}
END_TEST

START_TEST(test_sessions_in_one_bucket)
{
    bosh_session_t *s[4];
    uint8_t sid[BOSH_SID_BYTES] = {1, 2, 3, 4};
    char text[4][BOSH_SID_LEN + 1];

    for (int i = 0; i < 4; i++) {
        sid[15] = (uint8_t)i;
        s[i] = bosh_arena_session_new(A, sid);
        bosh_arena_sid_text(s[i], text[i]);
    }
    for (int gone = 0; gone < 4; gone++) { /* out of the middle, the end, the beginning */
        static const int order[] = {1, 0, 3, 2};
        bosh_arena_session_free(A, s[order[gone]]);
        s[order[gone]] = NULL;
        arena_check(&env);
        for (int i = 0; i < 4; i++) {
            ck_assert_ptr_eq(bosh_arena_find(A, text[i]), s[i]);
        }
    }
}
END_TEST

START_TEST(test_table_full)
{
    uint8_t sid[BOSH_SID_BYTES];
    bosh_session_t *s;

    for (uint32_t i = 1; i <= SESSIONS; i++) {
        ck_assert_uint_eq(bosh_arena_index(A, arena_session(&env, i)), i);
    }
    arena_sid(SESSIONS + 1, sid);
    ck_assert_ptr_null(bosh_arena_session_new(A, sid));
    ck_assert_uint_eq(A->h->nsessions, SESSIONS);
    arena_check(&env);
    bosh_arena_session_free(A, bosh_arena_session(A, 17));
    s = bosh_arena_session_new(A, sid);
    ck_assert_uint_eq(bosh_arena_index(A, s), 17);
}
END_TEST

/* New sessions stop first; those there are go on. */
START_TEST(test_no_session_from_the_reserve)
{
    bosh_session_t *s = arena_session(&env, 1);
    uint8_t sid[BOSH_SID_BYTES];
    char text[BOSH_CHUNK_DATA];

    arena_text(text, sizeof(text), 1);
    arena_sid(2, sid);
    while (bosh_arena_room(A, 1, BOSH_PRIO_NEW)) {
        OK(bosh_bytes_append(A, &s->link.raw, text, sizeof(text), INPUT));
    }
    ck_assert_uint_eq(A->h->nfree_chunks, CHUNKS / 8);
    ck_assert_ptr_null(bosh_arena_session_new(A, sid));
    OK(bosh_bytes_append(A, &s->link.raw, text, sizeof(text), INPUT));
    bosh_bytes_consume(A, &s->link.raw, 2 * sizeof(text));
    ck_assert_ptr_nonnull(bosh_arena_session_new(A, sid));
}
END_TEST

START_TEST(test_free_keeps_what_was_busy)
{
    bosh_session_t *s = arena_session(&env, 1), *other = arena_session(&env, 2);

    bosh_arena_touch(A, s);
    bosh_arena_session_free(A, other);
    ck_assert_uint_eq(A->h->busy, bosh_arena_index(A, s));
}
END_TEST

START_TEST(test_slot)
{
    bosh_session_t *s = arena_session(&env, 1);

    for (uint64_t rid = 0; rid < 8; rid++) {
        ck_assert_ptr_eq(bosh_arena_slot(A, s, rid), &s->slots[rid]);
        ck_assert_ptr_eq(bosh_arena_slot(A, s, rid + (UINT64_C(1) << 52)), &s->slots[rid]);
    }
}
END_TEST

START_TEST(test_chunks_low_first)
{
    bosh_ix c[CHUNKS];

    for (uint32_t i = 0; i < CHUNKS; i++) {
        c[i] = bosh_arena_chunk_new(A, ANSWER);
        ck_assert_uint_eq(c[i], i + 1);
    }
    ck_assert_uint_eq(bosh_arena_chunk_new(A, ANSWER), 0);
    ck_assert_uint_eq(A->h->nfree_chunks, 0);
    for (uint32_t i = CHUNKS; i > 0; i--) {
        bosh_arena_chunk_free(A, c[i - 1]);
    }
    ck_assert_uint_eq(bosh_arena_chunk_new(A, ANSWER), 1);
    bosh_arena_chunk_free(A, 1);
}
END_TEST

/* ---- peers and mail ---- */

START_TEST(test_peers)
{
    uint32_t first = bosh_arena_peer_claim(A, 100, 3, 1000);
    bosh_peer_t *p = bosh_arena_peer(A, first);

    ck_assert_uint_eq(first, 1);
    ck_assert_uint_eq(p->state, BOSH_PEER_LIVE);
    ck_assert_uint_eq(p->pid, 100);
    ck_assert_uint_eq(p->generation, 3);
    ck_assert_int_eq(p->heartbeat, 1000);
    for (uint32_t i = 2; i <= 4; i++) {
        ck_assert_uint_eq(bosh_arena_peer_claim(A, 100 + i, 3, 1000), i);
    }
    ck_assert_uint_eq(bosh_arena_peer_claim(A, 200, 3, 1000), 0);
    p = bosh_arena_peer(A, 3);
    p->asleep = 1;
    p->streams = p->holds = 9;
    bosh_arena_mail(A, 3, 1, 1);
    p->overflow = 1;
    p->state = BOSH_PEER_FREE;
    ck_assert_uint_eq(bosh_arena_peer_claim(A, 200, 4, 2000), 3);
    ck_assert_uint_eq(p->serial, 2);
    ck_assert_uint_eq(p->mail_n + p->overflow + p->asleep + p->streams + p->holds, 0);
}
END_TEST

START_TEST(test_mail)
{
    uint32_t peer = bosh_arena_peer_claim(A, 1, 0, 0);
    bosh_mail_t out[8];
    bool overflow = true;

    bosh_arena_mail(A, 0, 1, 1);          /* nobody */
    bosh_arena_mail(A, peer + 1, 1, 1);   /* not in use */
    bosh_arena_mail(A, UINT32_MAX, 1, 1); /* garbage */
    ck_assert_uint_eq(bosh_arena_mail_take(A, peer, out, 8, &overflow), 0);
    ck_assert(!overflow);
    for (uint32_t round = 0; round < 3 * BOSH_MAILBOX; round += 5) { /* round the ring */
        for (uint32_t i = 0; i < 5; i++) {
            bosh_arena_mail(A, peer, round + i, round + i + 9);
        }
        ck_assert_uint_eq(bosh_arena_mail_take(A, peer, out, 3, &overflow), 3);
        ck_assert_uint_eq(bosh_arena_mail_take(A, peer, out + 3, 5, &overflow), 2);
        for (uint32_t i = 0; i < 5; i++) {
            ck_assert_uint_eq(out[i].what, round + i);
            ck_assert_uint_eq(out[i].tag, round + i + 9);
        }
        ck_assert(!overflow);
    }
}
END_TEST

START_TEST(test_mail_overflow)
{
    uint32_t peer = bosh_arena_peer_claim(A, 1, 0, 0);
    static bosh_mail_t out[BOSH_MAILBOX + 1];
    bool overflow;

    for (uint32_t i = 0; i < BOSH_MAILBOX; i++) {
        bosh_arena_mail(A, peer, i, i);
    }
    ck_assert_uint_eq(bosh_arena_mail_take(A, peer, out, 1, &overflow), 1);
    ck_assert(!overflow);
    bosh_arena_mail(A, peer, 1, 1);
    bosh_arena_mail(A, peer, 2, 2); /* one too many */
    ck_assert_uint_eq(bosh_arena_mail_take(A, peer, out, BOSH_MAILBOX + 1, &overflow),
                      BOSH_MAILBOX);
    ck_assert(overflow);
    ck_assert_uint_eq(out[BOSH_MAILBOX - 1].what, 1);
    ck_assert_uint_eq(bosh_arena_mail_take(A, peer, out, 1, &overflow), 0);
    ck_assert(!overflow);
}
END_TEST

START_TEST(test_wake_only_who_sleeps)
{
    for (uint32_t i = 1; i <= 4; i++) {
        bosh_arena_peer_claim(A, i, 0, 0);
    }
    bosh_arena_mail(A, 1, 1, 1);
    ck_assert_uint_eq(A->nwake, 0); /* awake: it will look */
    bosh_arena_peer(A, 2)->asleep = 1;
    bosh_arena_mail(A, 2, 1, 1);
    bosh_arena_mail(A, 2, 2, 2);
    bosh_arena_mail(A, 1, 2, 2);
    ck_assert_uint_eq(A->nwake, 1);
    ck_assert_uint_eq(A->wake[0], 2);
    ck_assert_uint_eq(bosh_arena_peer(A, 2)->asleep, 0);
    for (uint32_t i = 0; i < 15; i++) {
        bosh_arena_peer(A, 3)->asleep = 1;
        bosh_arena_mail(A, 3, 1, 1);
    }
    ck_assert_uint_eq(A->nwake, 16);
    ck_assert(!A->wake_all);
    bosh_arena_peer(A, 4)->asleep = 1;
    bosh_arena_mail(A, 4, 1, 1);
    ck_assert_uint_eq(A->nwake, 16);
    ck_assert(A->wake_all);
}
END_TEST

/* ---- damage ---- */

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
    A->h->busy = 0;
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

START_TEST(test_repair_drops_the_busy_one)
{
    bosh_session_t *s;

    populate(20);
    s = bosh_arena_session(A, 11);
    bosh_arena_touch(A, s);
    s->link.up.b.len++; /* its killed changer was in the middle of it */
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

/* A chunk of one of the session's strings, or 0. */
static bosh_ix some_chunk(bosh_session_t *s, uint64_t *seed)
{
    const bosh_bytes_t *strings[] = {&s->link.down.b, &s->link.up.b, &s->link.raw,
                                     &s->slots[2].payload.b, &s->slots[3].answer};
    bosh_ix c = strings[arena_random(seed) % 5]->head;

    for (uint32_t hops = arena_random(seed) % 4; hops > 0 && c > 0 && c < A->h->fresh_chunk;
         hops--) {
        bosh_ix next = bosh_arena_chunk(A, c)->next;
        c = next != 0 ? next : c;
    }
    return c < A->h->fresh_chunk ? c : 0;
}

/* One change to one session: a word of its lists, or of its own chunks' headers. */
static void damage(bosh_session_t *s, uint64_t *seed)
{
    bosh_queue_t *queues[] = {&s->link.down, &s->link.up, &s->slots[1].payload,
                              &s->slots[2].payload};
    uint32_t word = evil_word(seed);
    bosh_ix c = some_chunk(s, seed);

    switch (arena_random(seed) % 8) {
    case 0:
        s->slots[3].answer.head = word;
        break;
    case 1:
        s->link.raw.tail = word;
        break;
    case 2:
        if (c != 0) {
            bosh_arena_chunk(A, c)->next = word;
        }
        break;
    case 3:
        if (c != 0) {
            bosh_arena_chunk(A, c)->used = (uint16_t)word;
        }
        break;
    case 4:
        if (c != 0) {
            bosh_arena_chunk(A, c)->state = (uint16_t)(word % 5);
        }
        break;
    case 5:
        if (c != 0) { /* an item's header, perhaps */
            memcpy(bosh_arena_chunk(A, c)->data + arena_random(seed) % 16, &word, sizeof(word));
        }
        break;
    default:
        damage_queue(queues[arena_random(seed) % 4], seed);
        break;
    }
}

/*
 * Random damage to one session, thousands of times. Repair must end, and leave an arena that validates
 * with every other session as it was; a session that is damaged so that it does not show may stay.
 */
START_TEST(test_repair_of_random_damage)
{
    uint32_t dropped = 0;

    for (uint32_t i = 0; i < 500; i++) {
        uint64_t seed = (uint64_t)_i * 1000000 + i;
        bosh_ix victim;
        const char *why;
        uint32_t lost;
        memset(env.mem, 0, env.bytes);
        OK(bosh_arena_format(env.mem, &(bosh_arena_sizes_t){4, SESSIONS, 8, CHUNKS}, A));
        populate(20);
        do {
            victim = 1 + arena_random(&seed) % 20;
        } while (victim % 7 == 5);
        for (uint32_t n = 1 + arena_random(&seed) % 4; n > 0; n--) {
            damage(bosh_arena_session(A, victim), &seed);
        }
        bosh_arena_validate(A, &why); /* says what it will, but ends */
        lost = repair_and_compare(20, victim);
        ck_assert_uint_le(lost, 1);
        ck_assert_uint_eq(A->h->count.repaired_sessions, lost);
        dropped += lost;
        ck_assert_ptr_nonnull(arena_session(&env, 1000 + i));
        arena_check(&env);
    }
    ck_assert_uint_gt(dropped, 250); /* most damage shows */
}
END_TEST

/* Garbage all over the records of several sessions: whatever they claim, repair ends and the arena is sound. */
START_TEST(test_repair_of_wild_damage)
{
    for (uint32_t i = 0; i < 500; i++) {
        uint64_t seed = (uint64_t)_i * 7000000 + i;
        const char *why;
        memset(env.mem, 0, env.bytes);
        OK(bosh_arena_format(env.mem, &(bosh_arena_sizes_t){4, SESSIONS, 8, CHUNKS}, A));
        populate(20);
        for (int n = 0; n < 300; n++) {
            bosh_session_t *s = bosh_arena_session(A, 1 + arena_random(&seed) % 8);
            uint32_t word = evil_word(&seed);
            memcpy((char *)s + arena_random(&seed) % (A->h->session_size - 4), &word, sizeof(word));
            damage(bosh_arena_session(A, 1 + arena_random(&seed) % 8), &seed);
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
    SEEN(c->next, i, "a free chunk is on two lists");
    SEEN(A->h->late_chunk, i, "a free chunk is on two lists");
    SEEN(A->h->free_chunk, c->next, "a chunk is on no list");
    b = s->link.prime;
    SEEN(s->link.prime, s->slots[3].answer, "a chunk is in two strings");
    s->link.prime = b;
    SEEN(A->h->fresh_chunk, CHUNKS + 2, "a mark of fresh records is out of range");
    SEEN(A->h->fresh_session, 0, "a mark of fresh records is out of range");
    SEEN(p->state, 3, "a peer has no state");
    SEEN(p->mail_head, BOSH_MAILBOX, "a mailbox is out of range");
    SEEN(p->mail_n, BOSH_MAILBOX + 1, "a mailbox is out of range");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("arena");
    TCase *tables = tcase_create("tables"), *damaged = tcase_create("damage");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tables, setup, teardown);
    tcase_add_test(tables, test_sizes);
    tcase_add_test(tables, test_format_wants_a_page);
    tcase_add_test(tables, test_attach);
    tcase_add_test(tables, test_untouched_until_used);
    tcase_add_test(tables, test_session_life);
    tcase_add_test(tables, test_serial_never_names_none);
    tcase_add_test(tables, test_find_takes_any_text);
    tcase_add_test(tables, test_sessions_in_one_bucket);
    tcase_add_test(tables, test_table_full);
    tcase_add_test(tables, test_no_session_from_the_reserve);
    tcase_add_test(tables, test_free_keeps_what_was_busy);
    tcase_add_test(tables, test_slot);
    tcase_add_test(tables, test_chunks_low_first);
    tcase_add_test(tables, test_peers);
    tcase_add_test(tables, test_mail);
    tcase_add_test(tables, test_mail_overflow);
    tcase_add_test(tables, test_wake_only_who_sleeps);
    suite_add_tcase(suite, tables);

    tcase_add_checked_fixture(damaged, setup, teardown);
    tcase_set_timeout(damaged, 60);
    tcase_add_test(damaged, test_repair_of_what_is_sound);
    tcase_add_test(damaged, test_repair_drops_the_busy_one);
    tcase_add_test(damaged, test_repair_hands_reserved_chunks_out_last);
    tcase_add_test(damaged, test_repair_of_a_contested_chunk);
    tcase_add_test(damaged, test_repair_of_nonsense_in_the_header);
    tcase_add_test(damaged, test_repair_of_lost_chunks);
    tcase_add_loop_test(damaged, test_repair_of_random_damage, 0, 8);
    tcase_add_loop_test(damaged, test_repair_of_wild_damage, 0, 4);
    tcase_add_test(damaged, test_validate_sees_broken_strings);
    tcase_add_test(damaged, test_validate_sees_broken_queues);
    tcase_add_test(damaged, test_validate_sees_broken_tables);
    suite_add_tcase(suite, damaged);

    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
