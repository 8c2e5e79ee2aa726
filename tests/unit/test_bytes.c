/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte strings: every size around a chunk's, every way to run out of chunks, reservations kept, closed
 * and left behind.
 */
#include "queue_env.h"

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
    bosh_bytes_consume(A, raw(), 3 * DATA - 1);
    OK(bosh_bytes_append(A, raw(), text, 10, INPUT));
    before = *raw();
    raw()->len = UINT32_MAX - 20; /* a string never wraps, however many chunks there are */
    ck_assert_int_eq(bosh_bytes_append(A, raw(), text, 21, ANSWER), APR_ENOMEM);
    *raw() = before;
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
#define WAYS 7

static void stale_reservation_one(int nr)
{
    size_t have = nr / WAYS == 0 ? 0 : sizes[nr / WAYS - 1];
    bosh_bytes_t *b = &up()->b;
    bosh_slice_t iov[8], item = {text, have};
    int n;

    if (have > 0) {
        OK(bosh_queue_append(A, up(), BOSH_ITEM_STANZA, &item, 1, INPUT));
    }
    n = bosh_bytes_reserve(A, b, 3 * DATA, iov, 8, INPUT);
    fill(iov, n, text + have, 2 * DATA); /* never published */
    arena_check(&env);
    switch (nr % WAYS) {
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
    case 5: /* moves something behind it */
        append_item(down(), BOSH_ITEM_SASL, text + 1, 2 * DATA);
        OK(bosh_queue_move(A, up(), down()));
        break;
    case 6: /* appends plain bytes */
        append_item(down(), BOSH_ITEM_SASL, text + 1, 2 * DATA);
        OK(bosh_bytes_append_from(A, b, &down()->b, 0, 10, INPUT));
        OK(bosh_bytes_append(A, b, text, 10, INPUT));
        ck_assert_uint_eq(chunks_used(), 3 + (b->len + DATA - 1) / DATA);
        bosh_queue_clear(A, down());
        up()->items = have > 0;
        bosh_bytes_peek(A, b, b->len - 10, got, 10);
        ck_assert_mem_eq(got, text, 10);
        bosh_queue_clear(A, up()); /* no items, but the bytes were what this is about */
        have = 0;
        break;
    }
    arena_check(&env);
    if (have > 0) {
        expect_item(up(), BOSH_ITEM_STANZA, text, have);
    }
    if (nr % WAYS == 2 || nr % WAYS == 5) {
        expect_item(up(), BOSH_ITEM_SASL, text + 1, 2 * DATA);
    }
    ck_assert_uint_eq(up()->items, 0);
    ck_assert_uint_eq(chunks_used(), 0);
}

START_TEST(test_stale_reservation)
{
    for (int i = 0; i < WAYS; i++) {
        stale_reservation_one(_i * WAYS + i);
        arena_check(&env);
    }
}
END_TEST
int main(void)
{
    Suite *suite = suite_create("bytes");
    TCase *bytes = tcase_create("bytes");
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

    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
