/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses that are left alone, against a clock and chance of the test's own: U-039. */
#include <check.h>
#include <stdio.h>

#include "bosh_breaker.h"

#define NAME "192.0.2.1:5222"

static bosh_breaker_t *B;
static apr_time_t now;
static uint32_t chance; /* in thousandths of what is possible */

static uint32_t by_chance(void *ctx, uint32_t below)
{
    (void)ctx;
    return (uint32_t)((uint64_t)(below - 1) * chance / 1000);
}

static void open_breaker(void)
{
    now = apr_time_from_sec(1000);
    chance = 500;
    B = bosh_breaker_create(by_chance, NULL);
    ck_assert_ptr_nonnull(B);
}

static void close_breaker(void)
{
    bosh_breaker_destroy(B);
}

static bool may(void)
{
    return bosh_breaker_may(B, NAME, now);
}

static void fail_until_open(void)
{
    for (int i = 0; i < BOSH_BREAKER_FAILURES; i++) {
        ck_assert(may());
        bosh_breaker_failed(B, NAME, now);
    }
    ck_assert(!may());
}

/* How long it is left alone from now on. */
static apr_interval_time_t pause_of(void)
{
    apr_interval_time_t t = 0;

    while (!bosh_breaker_may(B, NAME, now + t)) {
        t += apr_time_from_msec(10);
        ck_assert_int_lt(t, apr_time_from_sec(60));
    }
    bosh_breaker_dropped(B, NAME);
    return t;
}

START_TEST(three_failures_in_a_row)
{
    for (int i = 0; i < 20; i++) {
        ck_assert(may());
        bosh_breaker_failed(B, NAME, now);
        bosh_breaker_failed(B, NAME, now);
        ck_assert(may());
        bosh_breaker_worked(B, NAME); /* begins anew */
    }
    fail_until_open();
    ck_assert(bosh_breaker_may(B, "192.0.2.2:5222", now)); /* it alone */
}
END_TEST

/* rows: U-039 */
START_TEST(pauses_grow_and_end)
{
    apr_interval_time_t pause, last = 0;

    fail_until_open();
    ck_assert_int_eq(pause_of(), BOSH_BREAKER_FIRST);
    for (int i = 0; i < 12; i++) {
        pause = pause_of();
        ck_assert_int_ge(pause, last);
        last = pause;
        now += pause;
        ck_assert(may());
        bosh_breaker_failed(B, NAME, now);
    }
    ck_assert_int_eq(last, BOSH_BREAKER_LONGEST);
}
END_TEST

/* rows: U-039 */
START_TEST(pauses_differ_by_chance)
{
    chance = 0;
    fail_until_open();
    ck_assert_int_eq(pause_of(), BOSH_BREAKER_FIRST * 3 / 4);
    now += BOSH_BREAKER_FIRST;
    chance = 1000;
    ck_assert(may());
    bosh_breaker_failed(B, NAME, now);
    ck_assert_int_eq(pause_of(), 2 * BOSH_BREAKER_FIRST * 5 / 4);
}
END_TEST

/* rows: U-039 */
START_TEST(few_find_out_whether_it_is_back)
{
    unsigned together = 0;

    fail_until_open();
    now += BOSH_BREAKER_FIRST;
    for (unsigned allowed = 1; allowed <= BOSH_BREAKER_FULL; allowed *= 2) {
        for (unsigned i = together; i < allowed; i++) {
            ck_assert(may());
        }
        ck_assert(!may());
        together = allowed - 1;
        bosh_breaker_worked(B, NAME);
    }
    for (int i = 0; i < 1000; i++) { /* it works: no bound any more */
        ck_assert(may());
    }
}
END_TEST

START_TEST(a_probe_without_a_verdict_does_not_block)
{
    fail_until_open();
    now += BOSH_BREAKER_FIRST;
    ck_assert(may());
    ck_assert(!may());
    bosh_breaker_dropped(B, NAME);
    ck_assert(may());
    ck_assert(!may());
    now += BOSH_BREAKER_PATIENCE + 1;
    ck_assert(may());
}
END_TEST

/* Hundreds that were under way when it died are one failure. */
START_TEST(late_failures_do_not_lengthen_the_pause)
{
    fail_until_open();
    for (int i = 0; i < 500; i++) {
        bosh_breaker_failed(B, NAME, now + apr_time_from_msec(100));
    }
    ck_assert_int_eq(pause_of(), BOSH_BREAKER_FIRST);
}
END_TEST

START_TEST(memory_is_bounded)
{
    char name[40];

    for (int i = 0; i < 10 * BOSH_BREAKER_MAX; i++) {
        snprintf(name, sizeof(name), "[2001:db8::%x]:5222", i);
        for (int k = 0; k < BOSH_BREAKER_FAILURES; k++) {
            bosh_breaker_failed(B, name, now + i);
        }
        ck_assert(!bosh_breaker_may(B, name, now + i));
        bosh_breaker_worked(B, "unknown");
        bosh_breaker_dropped(B, "unknown");
    }
    ck_assert(bosh_breaker_may(B, "[2001:db8::0]:5222", now)); /* forgotten */
}
END_TEST

int main(void)
{
    Suite *s = suite_create("breaker");
    TCase *t = tcase_create("breaker");
    SRunner *r;
    int failed;

    tcase_add_checked_fixture(t, open_breaker, close_breaker);
    tcase_add_test(t, three_failures_in_a_row);
    tcase_add_test(t, pauses_grow_and_end);
    tcase_add_test(t, pauses_differ_by_chance);
    tcase_add_test(t, few_find_out_whether_it_is_back);
    tcase_add_test(t, a_probe_without_a_verdict_does_not_block);
    tcase_add_test(t, late_failures_do_not_lengthen_the_pause);
    tcase_add_test(t, memory_is_bounded);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
