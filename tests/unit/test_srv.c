/* SPDX-License-Identifier: Apache-2.0 */
/* The order of SRV records: U-002, U-020. */
#include <check.h>
#include <string.h>

#include "bosh_srv.h"

/* Chance that is the same in every run. */
static uint32_t numbers(void *ctx, uint32_t below)
{
    uint64_t *seed = ctx;

    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((*seed >> 33) % below);
}

static uint32_t as_told(void *ctx, uint32_t below)
{
    uint32_t **next = ctx;

    ck_assert_uint_lt(**next, below);
    return *(*next)++;
}

static bosh_srv_t record(uint16_t priority, uint16_t weight, uint16_t port)
{
    return (bosh_srv_t){.priority = priority, .weight = weight, .port = port, .host = "h"};
}

/* rows: U-002 */
START_TEST(by_weight)
{
    static const uint16_t weight[] = {0, 10, 90};
    /* 10000 draws, 3 sigma round 99, 990 and 8911. */
    static const unsigned least[] = {69, 900, 8817}, most[] = {129, 1080, 9005};
    unsigned first[3] = {0, 0, 0};
    uint64_t seed = 1;

    for (int i = 0; i < 10000; i++) {
        bosh_srv_t rec[3];
        for (uint16_t k = 0; k < 3; k++) {
            rec[k] = record(10, weight[(k + i) % 3], (uint16_t)((k + i) % 3));
        }
        bosh_srv_sort(rec, 3, numbers, &seed);
        first[rec[0].port]++;
        ck_assert_uint_eq(rec[0].port + rec[1].port + rec[2].port, 3); /* each of them once */
    }
    for (int k = 0; k < 3; k++) {
        ck_assert_msg(first[k] >= least[k] && first[k] <= most[k], "weight %u: %u times", weight[k],
                      first[k]);
    }
}
END_TEST

/* rows: U-002 */
START_TEST(of_no_weight_each_is_as_likely)
{
    unsigned first[4] = {0};
    uint64_t seed = 2;

    for (int i = 0; i < 4000; i++) {
        bosh_srv_t rec[4] = {record(1, 0, 0), record(1, 0, 1), record(1, 0, 2), record(1, 0, 3)};
        bosh_srv_sort(rec, 4, numbers, &seed);
        first[rec[0].port]++;
    }
    for (int k = 0; k < 4; k++) {
        ck_assert_msg(first[k] > 900 && first[k] < 1100, "%d: %u", k, first[k]);
    }
}
END_TEST

/* Each number leads to the record that RFC 2782 says. */
START_TEST(running_sums)
{
    static const uint16_t expected[] = {2, 0, 0, 0, 1, 1, 1, 1, 1}; /* by 0 ... 8 */

    for (uint32_t r = 0; r <= 8; r++) {
        bosh_srv_t rec[3] = {record(1, 3, 0), record(1, 5, 1), record(1, 0, 2)};
        uint32_t told[] = {r, 0, 0}, *next = told;
        bosh_srv_sort(rec, 3, as_told, &next);
        ck_assert_uint_eq(rec[0].port, expected[r]);
    }
}
END_TEST

/* rows: U-002 U-020 */
START_TEST(priority_goes_before_weight)
{
    uint64_t seed = 3;

    for (int i = 0; i < 500; i++) {
        bosh_srv_t rec[6] = {record(20, 65535, 5), record(0, 0, 0),      record(10, 7, 2),
                             record(65535, 1, 6),  record(10, 65535, 2), record(10, 0, 2)};
        rec[2].direct = true;
        bosh_srv_sort(rec, 6, numbers, &seed);
        for (int k = 1; k < 6; k++) {
            ck_assert_uint_le(rec[k - 1].priority, rec[k].priority);
        }
        ck_assert_uint_eq(rec[1].direct + rec[2].direct + rec[3].direct, 1);
    }
}
END_TEST

START_TEST(few_or_none)
{
    bosh_srv_t rec = record(1, 2, 3);
    uint32_t none[] = {0}, *next = none;

    bosh_srv_sort(NULL, 0, as_told, &next);
    bosh_srv_sort(&rec, 1, as_told, &next);
    ck_assert_uint_eq(rec.port, 3);
    ck_assert_ptr_eq(next, none);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("srv");
    TCase *t = tcase_create("srv");
    SRunner *r;
    int failed;

    tcase_add_test(t, by_weight);
    tcase_add_test(t, of_no_weight_each_is_as_likely);
    tcase_add_test(t, running_sums);
    tcase_add_test(t, priority_goes_before_weight);
    tcase_add_test(t, few_or_none);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
