/* SPDX-License-Identifier: Apache-2.0 */
/* The heap of deadlines against a plain search. */
#include <check.h>
#include <stdlib.h>

#include "bosh_timer.h"

#define N 200

static bosh_timers_t heap;
static bosh_timer_t timer[N];

static void open_heap(void)
{
    ck_assert(bosh_timers_init(&heap, N));
}

static void close_heap(void)
{
    bosh_timers_destroy(&heap);
}

static void check_heap(void)
{
    apr_time_t least = BOSH_NEVER;
    uint32_t set = 0;

    for (uint32_t i = 1; i <= heap.n; i++) {
        ck_assert_uint_eq(heap.heap[i]->pos, i);
        ck_assert(i == 1 || heap.heap[i / 2]->at <= heap.heap[i]->at);
    }
    for (int i = 0; i < N; i++) {
        set += timer[i].pos != 0;
        least = timer[i].pos != 0 && timer[i].at < least ? timer[i].at : least;
    }
    ck_assert_uint_eq(heap.n, set);
    ck_assert(set == 0 ? bosh_timers_first(&heap) == NULL : bosh_timers_first(&heap)->at == least);
}

START_TEST(random_changes)
{
    srand(1);
    for (int i = 0; i < 2000; i++) {
        bosh_timer_t *t = &timer[rand() % N];
        bosh_timers_set(&heap, t, rand() % 3 == 0 ? BOSH_NEVER : rand() % 1000);
        check_heap();
    }
}
END_TEST

START_TEST(comes_out_sorted)
{
    apr_time_t last = -1;

    srand(2);
    for (int i = 0; i < N; i++) {
        bosh_timers_set(&heap, &timer[i], rand());
    }
    for (int i = 0; i < N; i++) {
        bosh_timer_t *t = bosh_timers_first(&heap);
        ck_assert_int_ge(t->at, last);
        last = t->at;
        bosh_timers_set(&heap, t, BOSH_NEVER);
        bosh_timers_set(&heap, t, BOSH_NEVER); /* not set: stays out */
        check_heap();
    }
    ck_assert_ptr_null(bosh_timers_first(&heap));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("timer");
    TCase *t = tcase_create("timer");
    SRunner *r;
    int failed;

    tcase_add_checked_fixture(t, open_heap, close_heap);
    tcase_add_test(t, random_changes);
    tcase_add_test(t, comes_out_sorted);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
