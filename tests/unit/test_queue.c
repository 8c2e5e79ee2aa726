/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Item queues: every place of an item's header, every way to consume, move and run out of chunks.
 */
#include "queue_env.h"

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
    ck_assert_uint_eq(bosh_queue_peek(A, down(), got, sizeof(got)), 0);
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
    s[1].n = SIZE_MAX - DATA; /* with the header it would wrap */
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

/* dst has an item of one size, half consumed or not; src has one before it consumed, so that its
 * first chunk has an offset, or not. */
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
    ck_assert_uint_le(chunks_used(), 100 * (HEADER + 90) / DATA + 2);
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
    static const bosh_edit_t edits[] = {
        {.at = 1000, .drop = 0, .text = "<<", .n = 2},
        {.at = 1010, .drop = 4, .text = "", .n = 0},
        {.at = 1010 + DATA, .drop = 2 * DATA, .text = "cut", .n = 3},
        {.at = 1000 + 4 * DATA, .drop = 0, .text = ">>", .n = 2}};
    bosh_split_event_t ev = {.start = 1000, .end = 1000 + 4 * DATA, .edits = edits, .nedits = 4};
    char *p = got;
    bosh_bytes_t *out = &S->slots[0].answer;

    OK(bosh_bytes_append(A, raw(), text, 5 * DATA, INPUT)); /* text[100] is the stream's byte 970 */
    bosh_bytes_consume(A, raw(), 100);
    OK(bosh_queue_append_event(A, up(), BOSH_ITEM_STANZA, raw(), 970, &ev, INPUT));
    OK(bosh_queue_pop_to(A, up(), out, ANSWER));
    ck_assert_uint_eq(out->len, 2 + 10 + (DATA - 4) + 3 + (4 * DATA - DATA - 10 - 2 * DATA) + 2);
#define TAKE(from, n) (memcpy(p, from, n), p += (n))
    TAKE("<<", 2);
    TAKE(text + 130, 10);
    TAKE(text + 144, DATA - 4);
    TAKE("cut", 3);
    TAKE(text + 140 + 3 * DATA, DATA - 10);
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
    TCase *items = tcase_create("items");
    SRunner *runner;
    int failed;

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
