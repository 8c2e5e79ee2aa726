/* SPDX-License-Identifier: Apache-2.0 */
/* Packing of answers, and who gets them packed: B-006. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "bosh_gzip.h"
#include "bosh_inflate.h"

#define MOST (1024 * 1024)

static char text[MOST], packed[MOST + 1000];

/* Words, or bytes of which each is like any other. */
static void fill(size_t len, int letters)
{
    for (size_t i = 0; i < len; i++) {
        text[i] = letters == 256 ? (char)(rand() >> 7) : (char)('a' + rand() % letters);
    }
}

static void check_same(size_t n, size_t len)
{
    size_t back;
    char *out;

    ck_assert_uint_gt(n, 0);
    ck_assert_int_eq(bosh_inflate(BOSH_CODING_GZIP, packed, n, MOST, &out, &back), APR_SUCCESS);
    ck_assert_uint_eq(back, len);
    ck_assert_int_eq(memcmp(out, text, len), 0);
    free(out);
}

START_TEST(test_one_after_another)
{
    static const size_t lengths[] = {2048, 4096, 5, 65536, 16385, 2048, MOST, 1, 16384};
    bosh_gzip_t *g = bosh_gzip_create();

    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        fill(lengths[i], 4);
        check_same(bosh_gzip(g, text, lengths[i], packed, sizeof(packed)), lengths[i]);
    }
    bosh_gzip_destroy(g);
}
END_TEST

/* A resend is packed anew, and has the same bytes all the same. */
START_TEST(test_the_same_again)
{
    bosh_gzip_t *g = bosh_gzip_create(), *other = bosh_gzip_create();
    size_t n;
    char *first;

    fill(50000, 5);
    n = bosh_gzip(g, text, 50000, packed, sizeof(packed));
    first = malloc(n);
    memcpy(first, packed, n);
    bosh_gzip(other, "something else", 14, packed, sizeof(packed));
    ck_assert_uint_eq(bosh_gzip(other, text, 50000, packed, sizeof(packed)), n);
    ck_assert_int_eq(memcmp(first, packed, n), 0);
    free(first);
    bosh_gzip_destroy(g);
    bosh_gzip_destroy(other);
}
END_TEST

START_TEST(test_room)
{
    bosh_gzip_t *g = bosh_gzip_create();
    size_t n;

    fill(20000, 4);
    n = bosh_gzip(g, text, 20000, packed, sizeof(packed));
    for (size_t room = 0; room < n; room += room < 40 ? 1 : n / 20) {
        ck_assert_uint_eq(bosh_gzip(g, text, 20000, packed, room), 0);
    }
    ck_assert_uint_eq(bosh_gzip(g, text, 20000, packed, n - 1), 0);
    packed[n] = 'x';
    ck_assert_uint_eq(bosh_gzip(g, text, 20000, packed, n),
                      n); /* and it is none the worse for it */
    ck_assert_int_eq(packed[n], 'x');
    check_same(n, 20000);
    /* What cannot become smaller does not. */
    fill(20000, 256);
    ck_assert_uint_eq(bosh_gzip(g, text, 20000, packed, 20000 - 1), 0);
    bosh_gzip_destroy(g);
}
END_TEST

START_TEST(test_B_006_weights)
{
    static const struct {
        const char *accept, *coding;
        int weight;
    } cases[] = {
        {NULL, "gzip", -1},
        {"", "gzip", -1},
        {"gzip", "gzip", 1000},
        {"deflate, GZip", "gzip", 1000},
        {"gzip", "br", -1},
        {"gzipped", "gzip", -1},
        {"gzi", "gzip", -1},
        {"br;q=1, gzip;q=0.5", "gzip", 500},
        {"br\t;\tQ=1.000 ,\tgzip ; q=0.125 , x", "gzip", 125},
        {"gzip;q=0", "gzip", 0},
        {"gzip;q=0.", "gzip", 0},
        {"gzip; q=0.000, identity", "gzip", 0},
        {"gzip;q=0.001", "gzip", 1},
        {"gzip;level=1;q=0.3", "gzip", 300},
        {"*;q=0", "*", 0},
        {"*", "gzip", -1},
        {",,gzip,,", "gzip", 1000},
        {";q=0.2,gzip", "gzip", 1000},
        {" , ;, ", "gzip", -1},
        /* What cannot be understood does not ask for anything. */
        {"gzip;q=", "gzip", 0},
        {"gzip;q=1.5", "gzip", 0},
        {"gzip;q=2", "gzip", 0},
        {"gzip;q=0.1234", "gzip", 0},
        {"gzip;q=-1", "gzip", 0},
        {"gzip;q=0.5x", "gzip", 0},
        {"gzip;q=\"1\"", "gzip", 0},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int weight = bosh_gzip_weight(cases[i].accept, cases[i].coding);
        ck_assert_msg(weight == cases[i].weight, "%s in \"%s\": %d", cases[i].coding,
                      cases[i].accept, weight);
    }
}
END_TEST

START_TEST(test_B_006_accepted)
{
    static const char *const yes[] = {
        "gzip",
        "gzip, deflate, br, zstd",
        "deflate, gzip;q=0.5",
        "*",
        "br;q=0, *;q=0.1",
        "gzip, identity",
        "gzip;q=0.5, identity;q=0.5",
        "identity;q=0, *",
        "gzip;q=0.001, *;q=0",
    };
    static const char *const no[] = {
        "",
        "identity",
        "deflate",
        "br",
        "gzip;q=0",
        "gzip;q=0, *",
        "*;q=0, identity",
        "*;q=0",
        "identity, gzip;q=0.5",
        "identity;q=0.2, *;q=0.1",
    };

    ck_assert(!bosh_gzip_accepted(NULL));
    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++) {
        ck_assert_msg(bosh_gzip_accepted(yes[i]), "%s", yes[i]);
    }
    for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++) {
        ck_assert_msg(!bosh_gzip_accepted(no[i]), "%s", no[i]);
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_one_after_another, test_the_same_again, test_room,
        test_B_006_weights,     test_B_006_accepted,
    };
    Suite *suite = suite_create("gzip");
    TCase *tc = tcase_create("gzip");
    SRunner *sr;
    int failed;

    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        tcase_add_test(tc, tests[i]);
    }
    tcase_set_timeout(tc, 60);
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_NORMAL);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed > 0;
}
