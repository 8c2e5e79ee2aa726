/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte strings and item queues: every size around a chunk's, every place of an item's header, every way to
 * run out of chunks. After each test the arena is validated, and at the end of each nothing may be left over.
 */
#include "arena_env.h"
#include "bosh_split.h"

#define DATA   BOSH_CHUNK_DATA
#define CHUNKS 256
#define HEADER BOSH_ITEM_HEADER_SIZE
#define BUF    (12 * DATA)
#define INPUT  BOSH_PRIO_INPUT
#define ANSWER BOSH_PRIO_ANSWER
#define OK(rv) ck_assert_int_eq((rv), APR_SUCCESS)

static arena_env_t env;
static bosh_arena_t *A;
static bosh_session_t *S;
static char text[BUF], got[BUF];

/* Sizes at which something can go wrong. */
static const size_t sizes[] = {1,
                               2,
                               7,
                               8,
                               9,
                               DATA - 9,
                               DATA - 8,
                               DATA - 7,
                               DATA - 1,
                               DATA,
                               DATA + 1,
                               2 * DATA - 1,
                               2 * DATA,
                               2 * DATA + 1,
                               3 * DATA - 8,
                               3 * DATA + 17};
#define NSIZES ((int)(sizeof(sizes) / sizeof(sizes[0])))

static void setup(void)
{
    arena_open(&env, 4, CHUNKS);
    A = &env.a;
    S = arena_session(&env, 1);
    arena_text(text, sizeof(text), 0);
}

static void teardown(void)
{
    arena_check(&env);
    bosh_arena_session_free(A, S);
    ck_assert_uint_eq(A->h->nfree_chunks, CHUNKS);
    arena_close(&env);
}

static bosh_bytes_t *raw(void)
{
    return &S->link.raw;
}

static bosh_queue_t *down(void)
{
    return &S->link.down;
}

static bosh_queue_t *up(void)
{
    return &S->link.up;
}

static uint32_t chunks_used(void)
{
    return CHUNKS - A->h->nfree_chunks;
}

/* The string is exactly this, whichever way it is read. */
static void expect_bytes(const bosh_bytes_t *b, const char *want, size_t n)
{
    size_t off = 0, run;

    ck_assert_uint_eq(b->len, n);
    ck_assert_uint_eq(bosh_bytes_peek(A, b, 0, got, sizeof(got)), n);
    ck_assert_mem_eq(got, want, n);
    for (const char *p; (p = bosh_bytes_run(A, b, off, &run)) != NULL; off += run) {
        ck_assert_uint_gt(run, 0);
        ck_assert_mem_eq(p, want + off, run);
    }
    ck_assert_uint_eq(run, 0);
    ck_assert_uint_eq(off, n);
}

static void append_item(bosh_queue_t *q, bosh_item_t type, const char *p, size_t n)
{
    bosh_slice_t s = {p, n};

    OK(bosh_queue_append(A, q, type, &s, 1, INPUT));
}

static void expect_head(bosh_queue_t *q, bosh_item_t want, size_t n)
{
    bosh_item_t type;
    size_t len;

    ck_assert(bosh_queue_head(A, q, &type, &len));
    ck_assert_int_eq(type, want);
    ck_assert_uint_eq(len, n);
}

static void expect_item(bosh_queue_t *q, bosh_item_t type, const char *want, size_t n)
{
    bosh_bytes_t *out = &S->slots[7].answer;

    expect_head(q, type, n);
    OK(bosh_queue_pop_to(A, q, out, ANSWER));
    expect_bytes(out, want, n);
    bosh_bytes_clear(A, out);
}

/* Takes all but n chunks away. */
static void hoard(uint32_t n)
{
    while (A->h->nfree_chunks > n) {
        OK(bosh_bytes_append(A, &S->slots[6].answer, text, DATA, ANSWER));
    }
}

static void give_back(void)
{
    bosh_bytes_clear(A, &S->slots[6].answer);
}

/* ---- plain bytes ---- */

START_TEST(test_empty)
{
    size_t n = 1;

    ck_assert_uint_eq(bosh_bytes_peek(A, raw(), 0, got, sizeof(got)), 0);
    ck_assert_ptr_null(bosh_bytes_run(A, raw(), 0, &n));
    ck_assert_uint_eq(n, 0);
    bosh_bytes_consume(A, raw(), 0);
    bosh_bytes_consume(A, raw(), 5);
    OK(bosh_bytes_append(A, raw(), text, 0, INPUT));
    bosh_bytes_clear(A, raw());
    bosh_bytes_commit(A, raw(), 9);
    ck_assert_uint_eq(raw()->len, 0);
    ck_assert_uint_eq(chunks_used(), 0);
}
END_TEST

static void append_twice_and_consume_twice_one(int nr)
{
    size_t first = sizes[nr / NSIZES], second = sizes[nr % NSIZES];

    OK(bosh_bytes_append(A, raw(), text, first, INPUT));
    OK(bosh_bytes_append(A, raw(), text + first, second, INPUT));
    expect_bytes(raw(), text, first + second);
    ck_assert_uint_eq(chunks_used(), (first + second + DATA - 1) / DATA);
    bosh_bytes_consume(A, raw(), second);
    expect_bytes(raw(), text + second, first);
    arena_check(&env);
    OK(bosh_bytes_append(A, raw(), text + first + second, second, INPUT));
    expect_bytes(raw(), text + second, first + second);
    bosh_bytes_consume(A, raw(), first + second - 1);
    expect_bytes(raw(), text + first + 2 * second - 1, 1);
    arena_check(&env);
    bosh_bytes_consume(A, raw(), 1);
    ck_assert_uint_eq(chunks_used(), 0);
}

START_TEST(test_append_twice_and_consume_twice)
{
    for (int i = 0; i < NSIZES; i++) {
        append_twice_and_consume_twice_one(_i * NSIZES + i);
        arena_check(&env);
    }
}
END_TEST

START_TEST(test_peek_everywhere)
{
    size_t all = 2 * DATA + 40;

    OK(bosh_bytes_append(A, raw(), text, all + 3, INPUT));
    bosh_bytes_consume(A, raw(), 3);
    for (size_t off = 0; off < all; off++) {
        size_t run;
        const char *p = bosh_bytes_run(A, raw(), off, &run);
        ck_assert_mem_eq(p, text + 3 + off, run);
        ck_assert_uint_eq(bosh_bytes_peek(A, raw(), off, got, 20), off + 20 < all ? 20 : all - off);
        ck_assert_mem_eq(got, text + 3 + off, off + 20 < all ? 20 : all - off);
    }
}
END_TEST

static void append_from_one(int nr)
{
    size_t off = sizes[nr / NSIZES] - 1, n = sizes[nr % NSIZES];
    bosh_bytes_t *dst = &S->slots[0].answer;

    OK(bosh_bytes_append(A, raw(), text, 9 * DATA, INPUT));
    bosh_bytes_consume(A, raw(), 11);
    OK(bosh_bytes_append(A, dst, text, 100, INPUT));
    OK(bosh_bytes_append_from(A, dst, raw(), off, n, INPUT));
    bosh_bytes_consume(A, dst, 100);
    expect_bytes(dst, text + 11 + off, n);
    expect_bytes(raw(), text + 11, 9 * DATA - 11);
}

START_TEST(test_append_from)
{
    for (int i = 0; i < NSIZES; i++) {
        append_from_one(_i * NSIZES + i);
        arena_check(&env);
        bosh_bytes_clear(A, raw());
        bosh_bytes_clear(A, &S->slots[0].answer);
    }
}
END_TEST

START_TEST(test_append_from_refuses_what_is_not_there)
{
    bosh_bytes_t *dst = &S->slots[0].answer;

    OK(bosh_bytes_append(A, raw(), text, 100, INPUT));
    ck_assert_int_eq(bosh_bytes_append_from(A, dst, raw(), 0, 101, INPUT), APR_EINVAL);
    ck_assert_int_eq(bosh_bytes_append_from(A, dst, raw(), 101, 0, INPUT), APR_EINVAL);
    ck_assert_int_eq(bosh_bytes_append_from(A, dst, raw(), 50, SIZE_MAX - 10, INPUT), APR_EINVAL);
    ck_assert_int_eq(bosh_bytes_append_from(A, raw(), raw(), 0, 1, INPUT), APR_EINVAL);
    OK(bosh_bytes_append_from(A, dst, raw(), 100, 0, INPUT));
    ck_assert_uint_eq(dst->len, 0);
}
END_TEST

START_TEST(test_all_or_nothing)
{
    bosh_bytes_t before;

    OK(bosh_bytes_append(A, raw(), text, DATA - 10, INPUT));
    hoard(2);
    before = *raw();
    ck_assert_int_eq(bosh_bytes_append(A, raw(), text, 2 * DATA + 11, ANSWER), APR_ENOMEM);
    ck_assert_mem_eq(&before, raw(), sizeof(before));
    ck_assert_uint_eq(A->h->nfree_chunks, 2);
    ck_assert_int_eq(bosh_bytes_append(A, raw(), text, 11, INPUT), APR_ENOMEM);
    OK(bosh_bytes_append(A, raw(), text + DATA - 10, 10, INPUT)); /* in the tail: needs none */
    OK(bosh_bytes_append(A, raw(), text + DATA, 2 * DATA, ANSWER));
    expect_bytes(raw(), text, 3 * DATA);
    ck_assert_int_eq(bosh_bytes_append(A, raw(), text, UINT32_MAX, ANSWER), APR_ENOMEM);
    give_back();
}
END_TEST

START_TEST(test_priorities)
{
    hoard(CHUNKS / 8);

    ck_assert(bosh_arena_room(A, 0, BOSH_PRIO_NEW));
    ck_assert(!bosh_arena_room(A, 1, BOSH_PRIO_NEW));
    ck_assert_int_eq(bosh_bytes_append(A, raw(), text, 1, BOSH_PRIO_NEW), APR_ENOMEM);
    ck_assert(bosh_arena_room(A, CHUNKS / 8 - CHUNKS / 32, INPUT));
    ck_assert(!bosh_arena_room(A, CHUNKS / 8 - CHUNKS / 32 + 1, INPUT));
    give_back();
    hoard(CHUNKS / 32);
    ck_assert_int_eq(bosh_bytes_append(A, raw(), text, 1, INPUT), APR_ENOMEM);
    ck_assert(bosh_arena_room(A, CHUNKS / 32, ANSWER));
    ck_assert(!bosh_arena_room(A, UINT32_MAX, ANSWER));
    OK(bosh_bytes_append(A, raw(), text, 1, ANSWER));
    give_back();
}
END_TEST

/* ---- reserve and commit ---- */

/* Writes into a reservation as readv() would. */
static void fill(const bosh_slice_t *iov, int n, const char *from, size_t bytes)
{
    for (int i = 0; i < n && bytes > 0; i++) {
        size_t k = bytes < iov[i].n ? bytes : iov[i].n;
        memcpy((char *)(uintptr_t)iov[i].p, from, k);
        from += k;
        bytes -= k;
    }
    ck_assert_uint_eq(bytes, 0);
}

static size_t area(const bosh_slice_t *iov, int n)
{
    size_t sum = 0;

    for (int i = 0; i < n; i++) {
        sum += iov[i].n;
    }
    return sum;
}

static void reserve_commit_one(int nr)
{
    size_t have = nr % (NSIZES + 1) == 0 ? 0 : sizes[nr % (NSIZES + 1) - 1];
    size_t bytes = nr / (NSIZES + 1) == 0 ? 0 : sizes[nr / (NSIZES + 1) - 1];
    bosh_slice_t iov[8];
    int n;

    OK(bosh_bytes_append(A, raw(), text, have, INPUT));
    n = bosh_bytes_reserve(A, raw(), 4 * DATA, iov, 8, INPUT);
    ck_assert_int_ge(n, 4);
    ck_assert_uint_ge(area(iov, n), 4 * DATA);
    arena_check(&env);
    expect_bytes(raw(), text, have);
    fill(iov, n, text + have, bytes);
    bosh_bytes_commit(A, raw(), bytes);
    arena_check(&env);
    expect_bytes(raw(), text, have + bytes);
    ck_assert_uint_eq(chunks_used(), (have + bytes + DATA - 1) / DATA);
}

START_TEST(test_reserve_commit)
{
    for (int i = 0; i < NSIZES + 1; i++) {
        reserve_commit_one(_i * (NSIZES + 1) + i);
        arena_check(&env);
        bosh_bytes_clear(A, raw());
    }
}
END_TEST

static void consume_while_reserved_one(int nr)
{
    size_t have = sizes[nr / NSIZES], bytes = sizes[nr % NSIZES];
    bosh_slice_t iov[8];
    int n;

    for (size_t eat = have > 3 ? have - 3 : 0; eat <= have; eat++) {
        OK(bosh_bytes_append(A, raw(), text, have, INPUT));
        n = bosh_bytes_reserve(A, raw(), 4 * DATA, iov, 8, INPUT);
        bosh_bytes_consume(A, raw(), eat);
        arena_check(&env);
        fill(iov, n, text + have, bytes);
        bosh_bytes_commit(A, raw(), bytes);
        arena_check(&env);
        expect_bytes(raw(), text + eat, have - eat + bytes);
        bosh_bytes_consume(A, raw(), have - eat + bytes);
        ck_assert_uint_eq(chunks_used(), 0);
    }
}

START_TEST(test_consume_while_reserved)
{
    for (int i = 0; i < NSIZES; i++) {
        consume_while_reserved_one(_i * NSIZES + i);
        arena_check(&env);
    }
}
END_TEST

START_TEST(test_commit_nothing_after_all_is_consumed)
{
    bosh_slice_t iov[4];

    OK(bosh_bytes_append(A, raw(), text, DATA,
                         INPUT)); /* a full tail: the reservation lies behind it */
    ck_assert_int_eq(bosh_bytes_reserve(A, raw(), 1, iov, 4, INPUT), 1);
    bosh_bytes_consume(A, raw(), DATA);
    arena_check(&env);
    bosh_bytes_commit(A, raw(), 0);
    ck_assert_uint_eq(chunks_used(), 0);
}
END_TEST

START_TEST(test_reserve_within_limits)
{
    bosh_slice_t iov[4];

    ck_assert_int_eq(bosh_bytes_reserve(A, raw(), 9999, iov, 0, INPUT), 0);
    ck_assert_int_eq(bosh_bytes_reserve(A, raw(), 0, iov, 4, INPUT), 1); /* one byte at least */
    ck_assert_int_eq(bosh_bytes_reserve(A, raw(), 9 * DATA, iov, 2, INPUT), 2);
    bosh_bytes_commit(A, raw(), 0);
    OK(bosh_bytes_append(A, raw(), text, DATA - 1, INPUT));
    hoard(1);
    ck_assert_int_eq(bosh_bytes_reserve(A, raw(), DATA, iov, 4, INPUT), 1);
    ck_assert_uint_eq(iov[0].n, 1);
    ck_assert_int_eq(bosh_bytes_reserve(A, raw(), DATA, iov, 4, ANSWER), 2);
    fill(iov, 1, text + DATA - 1, 1);
    bosh_bytes_commit(A, raw(), 1);
    ck_assert_int_eq(bosh_bytes_reserve(A, raw(), 1, iov, 4, INPUT),
                     0); /* full, and none to be had */
    expect_bytes(raw(), text, DATA);
    give_back();
}
END_TEST

/* The owner died between reserve and commit; its heir goes on in one of these ways. */
static void stale_reservation_one(int nr)
{
    size_t have = nr / 5 == 0 ? 0 : sizes[nr / 5 - 1];
    bosh_bytes_t *b = &up()->b;
    bosh_slice_t iov[8], item = {text, have};
    int n;

    if (have > 0) {
        OK(bosh_queue_append(A, up(), BOSH_ITEM_STANZA, &item, 1, INPUT));
    }
    n = bosh_bytes_reserve(A, b, 3 * DATA, iov, 8, INPUT);
    fill(iov, n, text + have, 2 * DATA); /* never published */
    arena_check(&env);
    switch (nr % 5) {
    case 0: /* reserves anew */
        n = bosh_bytes_reserve(A, b, 3 * DATA, iov, 8, INPUT);
        ck_assert_uint_ge(area(iov, n), 3 * DATA);
        bosh_bytes_commit(A, b, 0);
        break;
    case 1: /* clears */
        bosh_queue_clear(A, up());
        have = 0;
        break;
    case 2: /* appends, and the old owner's commit is void */
        append_item(up(), BOSH_ITEM_SASL, text + 1, 2 * DATA);
        bosh_bytes_commit(A, b, 100);
        break;
    case 3: /* moves it, behind something and into nothing */
        append_item(down(), BOSH_ITEM_CLOSE, text, 0);
        OK(bosh_queue_move(A, down(), up()));
        bosh_queue_pop(A, down());
        OK(bosh_queue_move(A, up(), down()));
        break;
    case 4: /* commits nothing, as after a failed read */
        bosh_bytes_commit(A, b, 0);
        break;
    }
    arena_check(&env);
    if (have > 0) {
        expect_item(up(), BOSH_ITEM_STANZA, text, have);
    }
    if (nr % 5 == 2) {
        expect_item(up(), BOSH_ITEM_SASL, text + 1, 2 * DATA);
    }
    ck_assert_uint_eq(up()->items, 0);
    ck_assert_uint_eq(chunks_used(), 0);
}

START_TEST(test_stale_reservation)
{
    for (int i = 0; i < 5; i++) {
        stale_reservation_one(_i * 5 + i);
        arena_check(&env);
    }
}
END_TEST

/* ---- items ---- */

/* A first item of every length makes the second one's header lie at every place of a chunk. */
START_TEST(test_header_everywhere)
{
    for (size_t n = DATA - 3 * HEADER; n <= DATA + HEADER; n++) {
        append_item(down(), BOSH_ITEM_STANZA, text, n);
        append_item(down(), BOSH_ITEM_HEADER, text + n, 20);
        append_item(down(), BOSH_ITEM_CLOSE, text, 0);
        arena_check(&env);
        ck_assert_uint_eq(BOSH_QUEUE_BYTES(down()), n + 20 + 3 * HEADER);
        ck_assert_uint_eq(bosh_queue_peek(A, down(), got, sizeof(got)), n);
        ck_assert_mem_eq(got, text, n);
        expect_item(down(), BOSH_ITEM_STANZA, text, n);
        expect_item(down(), BOSH_ITEM_HEADER, text + n, 20);
        expect_head(down(), BOSH_ITEM_CLOSE, 0);
        ck_assert_uint_eq(bosh_queue_peek(A, down(), got, sizeof(got)), 0);
        bosh_queue_pop(A, down());
        ck_assert_uint_eq(chunks_used(), 0);
    }
}
END_TEST

START_TEST(test_item_of_slices)
{
    bosh_slice_t s[4] = {{text, 5}, {NULL, 0}, {text + 5, DATA}, {text + 5 + DATA, 1}};

    OK(bosh_queue_append(A, down(), BOSH_ITEM_STANZA, s, 4, INPUT));
    OK(bosh_queue_append(A, down(), BOSH_ITEM_CLOSE, NULL, 0, INPUT));
    expect_item(down(), BOSH_ITEM_STANZA, text, DATA + 6);
    expect_item(down(), BOSH_ITEM_CLOSE, text, 0);
    ck_assert_int_eq(bosh_queue_pop_to(A, down(), &S->slots[0].answer, ANSWER), APR_EOF);
    bosh_queue_pop(A, down());
    bosh_queue_consume(A, down(), 1);
    ck_assert_uint_eq(down()->items, 0);
}
END_TEST

/* peek and consume in steps of every size, over several items of one type, stopping at another. */
START_TEST(test_consume_in_steps)
{
    static const size_t lens[] = {700, 0, 1, DATA, 3};
    size_t step = (size_t)_i, all = 700 + 1 + DATA + 3, at = 0;

    for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        append_item(down(), BOSH_ITEM_STANZA, text + at, lens[i]);
        at += lens[i];
    }
    append_item(down(), BOSH_ITEM_HEADER, "other", 5);
    for (at = 0; at < all;) {
        size_t n = bosh_queue_peek(A, down(), got, step), all_left;
        ck_assert_uint_eq(n, all - at < step ? all - at : step);
        ck_assert_mem_eq(got, text + at, n);
        all_left = bosh_queue_peek(A, down(), got, sizeof(got));
        ck_assert_uint_eq(all_left, all - at);
        ck_assert_mem_eq(got, text + at, all_left);
        bosh_queue_consume(A, down(), n);
        at += n;
        arena_check(&env);
    }
    expect_item(down(), BOSH_ITEM_HEADER, "other", 5);
    ck_assert_uint_eq(chunks_used(), 0);
}
END_TEST

START_TEST(test_consume_stops_at_another_type)
{
    append_item(down(), BOSH_ITEM_STANZA, text, 10);
    append_item(down(), BOSH_ITEM_CLOSE, text, 0);
    append_item(down(), BOSH_ITEM_STANZA, text, 10);
    bosh_queue_consume(A, down(), 15);
    expect_head(down(), BOSH_ITEM_CLOSE, 0);
    ck_assert_uint_eq(down()->items, 2);
    bosh_queue_clear(A, down());
}
END_TEST

START_TEST(test_pop_what_is_half_consumed)
{
    append_item(down(), BOSH_ITEM_STANZA, text, 2 * DATA);
    append_item(down(), BOSH_ITEM_STANZA, text, 30);
    bosh_queue_consume(A, down(), DATA + 1);
    expect_item(down(), BOSH_ITEM_STANZA, text + DATA + 1, DATA - 1);
    bosh_queue_consume(A, down(), 29);
    bosh_queue_pop(A, down());
    ck_assert_uint_eq(chunks_used(), 0);
}
END_TEST

START_TEST(test_item_all_or_nothing)
{
    bosh_slice_t s[2] = {{text, DATA}, {text, DATA - HEADER}};
    bosh_bytes_t *answer = &S->slots[0].answer;
    bosh_queue_t before;

    append_item(down(), BOSH_ITEM_STANZA, text, DATA - HEADER); /* one chunk, full */
    hoard(2);
    before = *down();
    s[1].n++;
    ck_assert_int_eq(bosh_queue_append(A, down(), BOSH_ITEM_STANZA, s, 2, ANSWER), APR_ENOMEM);
    s[1].n = SIZE_MAX / 2;
    ck_assert_int_eq(bosh_queue_append(A, down(), BOSH_ITEM_STANZA, s, 2, ANSWER), APR_ENOMEM);
    ck_assert_mem_eq(&before, down(), sizeof(before));
    s[1].n = DATA - HEADER;
    OK(bosh_queue_append(A, down(), BOSH_ITEM_STANZA, s, 2, ANSWER));
    before = *down();
    ck_assert_int_eq(bosh_queue_pop_to(A, down(), answer, ANSWER), APR_ENOMEM);
    ck_assert_mem_eq(&before, down(), sizeof(before));
    ck_assert_uint_eq(answer->len, 0);
    bosh_queue_pop(A, down()); /* its chunk is enough for a part of the next */
    ck_assert_int_eq(bosh_queue_pop_to(A, down(), answer, ANSWER), APR_ENOMEM);
    expect_head(down(), BOSH_ITEM_STANZA, 2 * DATA - HEADER);
    give_back();
}
END_TEST

/* ---- move ---- */

/* dst has an item of one size, half consumed or not; src has one before it consumed, so that its first
 * chunk has an offset, or not. */
static void move_one(int nr)
{
    size_t d = sizes[nr / NSIZES], s = sizes[nr % NSIZES];

    for (int how = 0; how < 4; how++) {
        uint32_t used;
        size_t eat = how & 1 ? d / 2 : 0;
        append_item(down(), BOSH_ITEM_STANZA, text, d);
        bosh_queue_consume(A, down(), eat);
        if (how & 2) {
            append_item(up(), BOSH_ITEM_STANZA, text, 50);
        }
        append_item(up(), BOSH_ITEM_SASL, text + 1, s);
        append_item(up(), BOSH_ITEM_ERROR, text + 2, 3);
        if (how & 2) {
            bosh_queue_pop(A, up());
        }
        used = chunks_used();
        OK(bosh_queue_move(A, down(), up()));
        ck_assert_uint_le(chunks_used(), used);
        ck_assert_uint_eq(up()->items, 0);
        ck_assert_uint_eq(BOSH_QUEUE_BYTES(up()), 0);
        arena_check(&env);
        append_item(down(), BOSH_ITEM_FEATURES, text + 3, DATA); /* the tail is where it belongs */
        ck_assert_uint_eq(down()->items, 4);
        expect_item(down(), BOSH_ITEM_STANZA, text + eat, d - eat);
        expect_item(down(), BOSH_ITEM_SASL, text + 1, s);
        expect_item(down(), BOSH_ITEM_ERROR, text + 2, 3);
        expect_item(down(), BOSH_ITEM_FEATURES, text + 3, DATA);
        ck_assert_uint_eq(chunks_used(), 0);
    }
}

START_TEST(test_move)
{
    for (int i = 0; i < NSIZES; i++) {
        move_one(_i * NSIZES + i);
        arena_check(&env);
    }
}
END_TEST

START_TEST(test_move_edges)
{
    bosh_queue_t before;

    OK(bosh_queue_move(A, down(), up())); /* nothing into nothing */
    append_item(up(), BOSH_ITEM_STANZA, text, 40);
    OK(bosh_queue_move(A, down(), up()));
    OK(bosh_queue_move(A, down(), up())); /* nothing behind something */
    ck_assert_uint_eq(down()->items, 1);
    append_item(up(), BOSH_ITEM_STANZA, text, 40);
    bosh_queue_consume(A, up(), 1);
    before = *up();
    ck_assert_int_eq(bosh_queue_move(A, down(), up()), APR_EINVAL);
    ck_assert_int_eq(bosh_queue_move(A, down(), down()), APR_EINVAL);
    ck_assert_mem_eq(&before, up(), sizeof(before));
    bosh_queue_clear(A, up());
    expect_item(down(), BOSH_ITEM_STANZA, text, 40);
}
END_TEST

/* Many small queues moved into one take few chunks, and it works when no chunk is free. */
START_TEST(test_move_packs_and_needs_nothing)
{

    for (uint32_t i = 0; i < 100; i++) {
        append_item(up(), BOSH_ITEM_STANZA, text + i, 90);
        OK(bosh_queue_move(A, down(), up()));
    }
    ck_assert_uint_le(chunks_used(), 11);
    append_item(up(), BOSH_ITEM_STANZA, text + 100, 3 * DATA);
    hoard(0);
    OK(bosh_queue_move(A, down(), up()));
    arena_check(&env);
    for (uint32_t i = 0; i < 100; i++) {
        expect_head(down(), BOSH_ITEM_STANZA, 90);
        ck_assert_uint_ge(bosh_queue_peek(A, down(), got, 90), 90);
        ck_assert_mem_eq(got, text + i, 90);
        bosh_queue_pop(A, down());
    }
    give_back();
    expect_item(down(), BOSH_ITEM_STANZA, text + 100, 3 * DATA);
}
END_TEST

/* ---- the splitter's events ---- */

START_TEST(test_event)
{
    static const bosh_edit_t edits[] = {{.at = 1000, .drop = 0, .text = "<<", .n = 2},
                                        {.at = 1010, .drop = 4, .text = "", .n = 0},
                                        {.at = 1010 + DATA, .drop = 2000, .text = "cut", .n = 3},
                                        {.at = 1000 + 4 * DATA, .drop = 0, .text = ">>", .n = 2}};
    bosh_split_event_t ev = {.start = 1000, .end = 1000 + 4 * DATA, .edits = edits, .nedits = 4};
    char *p = got;
    bosh_bytes_t *out = &S->slots[0].answer;

    OK(bosh_bytes_append(A, raw(), text, 5 * DATA, INPUT)); /* text[100] is the stream's byte 970 */
    bosh_bytes_consume(A, raw(), 100);
    OK(bosh_queue_append_event(A, up(), BOSH_ITEM_STANZA, raw(), 970, &ev, INPUT));
    OK(bosh_queue_pop_to(A, up(), out, ANSWER));
    ck_assert_uint_eq(out->len, 2 + 10 + (DATA - 4) + 3 + (4 * DATA - DATA - 10 - 2000) + 2);
#define TAKE(from, n) (memcpy(p, from, n), p += (n))
    TAKE("<<", 2);
    TAKE(text + 130, 10);
    TAKE(text + 144, DATA - 4);
    TAKE("cut", 3);
    TAKE(text + 140 + DATA + 2000, 3 * DATA - 2010);
    TAKE(">>", 2);
#undef TAKE
    for (size_t off = 0, n; off < out->len; off += n) {
        const char *run = bosh_bytes_run(A, out, off, &n);
        ck_assert_mem_eq(run, got + off, n);
    }
}
END_TEST

START_TEST(test_event_that_does_not_fit_its_bytes)
{
    bosh_edit_t edits[2] = {{.at = 10, .drop = 5, .text = "", .n = 0},
                            {.at = 20, .drop = 5, .text = "", .n = 0}};
    bosh_split_event_t ev = {.start = 10, .end = 50, .edits = edits, .nedits = 2};

#define REFUSED(base)                                                                              \
    ck_assert_int_eq(bosh_queue_append_event(A, up(), BOSH_ITEM_STANZA, raw(), base, &ev, INPUT),  \
                     APR_EINVAL)
    OK(bosh_bytes_append(A, raw(), text, 50, INPUT));
    OK(bosh_queue_append_event(A, up(), BOSH_ITEM_STANZA, raw(), 0, &ev, INPUT));
    REFUSED(11); /* begins before the string */
    ev.end = 51; /* ends behind it */
    REFUSED(0);
    ev.end = 9; /* ends before it begins */
    REFUSED(0);
    ev.end = 50;
    edits[0].at = 9; /* an edit before the event */
    REFUSED(0);
    edits[0].at = 16; /* edits overlap */
    REFUSED(0);
    edits[0].at = 10;
    edits[1].drop = 31; /* an edit behind the end */
    REFUSED(0);
    edits[1].drop = UINT32_MAX;
    REFUSED(0);
#undef REFUSED
    edits[1].drop = 30;
    hoard(0);
    edits[0].n = 2 * DATA;
    edits[0].text = text;
    ck_assert_int_eq(bosh_queue_append_event(A, up(), BOSH_ITEM_STANZA, raw(), 0, &ev, ANSWER),
                     APR_ENOMEM);
    ck_assert_uint_eq(up()->items, 1);
    give_back();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("queue");
    TCase *bytes = tcase_create("bytes"), *items = tcase_create("items");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(bytes, setup, teardown);
    tcase_add_test(bytes, test_empty);
    tcase_add_loop_test(bytes, test_append_twice_and_consume_twice, 0, NSIZES);
    tcase_add_test(bytes, test_peek_everywhere);
    tcase_add_loop_test(bytes, test_append_from, 0, NSIZES);
    tcase_add_test(bytes, test_append_from_refuses_what_is_not_there);
    tcase_add_test(bytes, test_all_or_nothing);
    tcase_add_test(bytes, test_priorities);
    tcase_add_loop_test(bytes, test_reserve_commit, 0, NSIZES + 1);
    tcase_add_loop_test(bytes, test_consume_while_reserved, 0, NSIZES);
    tcase_add_test(bytes, test_commit_nothing_after_all_is_consumed);
    tcase_add_test(bytes, test_reserve_within_limits);
    tcase_add_loop_test(bytes, test_stale_reservation, 0, NSIZES + 1);
    suite_add_tcase(suite, bytes);

    tcase_add_checked_fixture(items, setup, teardown);
    tcase_add_test(items, test_header_everywhere);
    tcase_add_test(items, test_item_of_slices);
    tcase_add_loop_test(items, test_consume_in_steps, 1, 24);
    tcase_add_test(items, test_consume_stops_at_another_type);
    tcase_add_test(items, test_pop_what_is_half_consumed);
    tcase_add_test(items, test_item_all_or_nothing);
    tcase_add_loop_test(items, test_move, 0, NSIZES);
    tcase_add_test(items, test_move_edges);
    tcase_add_test(items, test_move_packs_and_needs_nothing);
    tcase_add_test(items, test_event);
    tcase_add_test(items, test_event_that_does_not_fit_its_bytes);
    suite_add_tcase(suite, items);

    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
