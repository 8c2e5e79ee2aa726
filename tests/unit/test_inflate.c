/* SPDX-License-Identifier: Apache-2.0 */
/* Unpacking of request bodies: B-092, B-094. */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "bosh_inflate.h"

#define MOST (1024 * 1024)

enum { RAW = -15, ZLIB = 15, GZIP = 31 };

/* Packs; malloc'd. */
static char *pack(int window, const char *text, size_t len, size_t *n)
{
    z_stream z;
    size_t size = len + len / 100 + 1000;
    char *out = malloc(size);

    memset(&z, 0, sizeof(z));
    ck_assert_int_eq(deflateInit2(&z, 9, Z_DEFLATED, window, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (Bytef *)(uintptr_t)text;
    z.avail_in = (uInt)len;
    z.next_out = (Bytef *)out;
    z.avail_out = (uInt)size;
    ck_assert_int_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
    *n = size - z.avail_out;
    deflateEnd(&z);
    return out;
}

static void check_roundtrip(int window, bosh_coding_t coding, const char *text, size_t len)
{
    size_t n, back;
    char *packed = pack(window, text, len, &n), *out;

    ck_assert_int_eq(bosh_inflate(coding, packed, n, MOST, &out, &back), APR_SUCCESS);
    ck_assert_uint_eq(back, len);
    ck_assert_int_eq(memcmp(out, text, len), 0);
    free(out);
    /* Cut off anywhere, or with something behind it, it is refused. */
    for (size_t cut = 0; cut < n; cut += 1 + n / 50) {
        ck_assert_int_eq(bosh_inflate(coding, packed, cut, MOST, &out, &back), APR_EGENERAL);
        ck_assert_ptr_null(out);
    }
    packed = realloc(packed, n + 1);
    packed[n] = 'x';
    ck_assert_int_eq(bosh_inflate(coding, packed, n + 1, MOST, &out, &back), APR_EGENERAL);
    free(packed);
}

START_TEST(test_B_092_all_forms)
{
    static const size_t lengths[] = {1, 50, 16383, 16384, 16385, 300000};
    static char text[300000];

    for (size_t i = 0; i < sizeof(text); i++) {
        text[i] = (char)('a' + rand() % 16);
    }
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        check_roundtrip(GZIP, BOSH_CODING_GZIP, text, lengths[i]);
        check_roundtrip(ZLIB, BOSH_CODING_DEFLATE, text, lengths[i]);
        check_roundtrip(RAW, BOSH_CODING_DEFLATE, text, lengths[i]);
    }
}
END_TEST

START_TEST(test_B_092_raw_that_begins_like_zlib)
{
    /* A stored block, and an empty one that is the last. The five bits above the first three mean nothing. */
    static const char end[] = {0x01, 0x00, 0x00, (char)0xff, (char)0xff};
    enum { LEN = 0x7f01 };
    char in[5 + LEN + sizeof(end)], *out;
    size_t n;

    memset(in, 'x', sizeof(in));
    in[0] = 0x78;
    in[1] = (char)(LEN & 0xff);
    in[2] = (char)(LEN >> 8);
    in[3] = (char)(~LEN & 0xff);
    in[4] = (char)((~LEN >> 8) & 0xff);
    memcpy(in + 5 + LEN, end, sizeof(end));
    ck_assert_int_eq((in[0] << 8 | in[1]) % 31, 0); /* what zlib's format begins with */
    ck_assert_int_eq(bosh_inflate(BOSH_CODING_DEFLATE, in, sizeof(in), MOST, &out, &n),
                     APR_SUCCESS);
    ck_assert_uint_eq(n, LEN);
    free(out);
}
END_TEST

START_TEST(test_B_092_damaged)
{
    static char text[20000];
    size_t n, back;
    char *packed, *out;

    for (size_t i = 0; i < sizeof(text); i++) {
        text[i] = (char)('a' + rand() % 26);
    }
    packed = pack(GZIP, text, sizeof(text), &n);
    for (int i = 0; i < 500; i++) {
        size_t at = (size_t)rand() % n;
        char was = packed[at];
        packed[at] = (char)(was ^ (1 << rand() % 8));
        /* Name, time and system in gzip's header mean nothing; anything else is noticed. */
        if (at >= 10) {
            ck_assert_int_ne(bosh_inflate(BOSH_CODING_GZIP, packed, n, MOST, &out, &back),
                             APR_SUCCESS);
        } else if (bosh_inflate(BOSH_CODING_GZIP, packed, n, MOST, &out, &back) == APR_SUCCESS) {
            free(out);
        }
        packed[at] = was;
    }
    free(packed);
    ck_assert_int_eq(bosh_inflate(BOSH_CODING_GZIP, "plain text", 10, MOST, &out, &back),
                     APR_EGENERAL);
    ck_assert_int_eq(bosh_inflate(BOSH_CODING_DEFLATE, "<body/>", 7, MOST, &out, &back),
                     APR_EGENERAL);
}
END_TEST

START_TEST(test_B_094_bounds)
{
    size_t zeros = 10 * 1000 * 1000, n, back;
    char *text = calloc(1, zeros), *packed = pack(GZIP, text, zeros, &n), *out;

    ck_assert_uint_lt(n, 20000);
    ck_assert_int_eq(bosh_inflate(BOSH_CODING_GZIP, packed, n, MOST, &out, &back), APR_ENOSPC);
    ck_assert_ptr_null(out);
    /* As large as may be: too many times its size all the same. */
    ck_assert_int_eq(bosh_inflate(BOSH_CODING_GZIP, packed, n, 16 * MOST, &out, &back), APR_ENOSPC);
    free(packed);
    /* A small one may shrink as it likes, */
    packed = pack(ZLIB, text, BOSH_INFLATE_FREE, &n);
    ck_assert_int_eq(bosh_inflate(BOSH_CODING_DEFLATE, packed, n, MOST, &out, &back), APR_SUCCESS);
    ck_assert_uint_eq(back, BOSH_INFLATE_FREE);
    free(out);
    /* and the bound is exact. */
    ck_assert_int_eq(
        bosh_inflate(BOSH_CODING_DEFLATE, packed, n, BOSH_INFLATE_FREE - 1, &out, &back),
        APR_ENOSPC);
    ck_assert_int_eq(bosh_inflate(BOSH_CODING_DEFLATE, packed, n, BOSH_INFLATE_FREE, &out, &back),
                     APR_SUCCESS);
    free(out);
    free(packed);
    free(text);
}
END_TEST

START_TEST(test_codings)
{
    ck_assert_int_eq(bosh_inflate_coding(NULL), BOSH_CODING_NONE);
    ck_assert_int_eq(bosh_inflate_coding(""), BOSH_CODING_NONE);
    ck_assert_int_eq(bosh_inflate_coding("Identity"), BOSH_CODING_NONE);
    ck_assert_int_eq(bosh_inflate_coding("gzip"), BOSH_CODING_GZIP);
    ck_assert_int_eq(bosh_inflate_coding(" X-GZIP\t"), BOSH_CODING_GZIP);
    ck_assert_int_eq(bosh_inflate_coding("Deflate"), BOSH_CODING_DEFLATE);
    ck_assert_int_eq(bosh_inflate_coding("br"), BOSH_CODING_UNKNOWN);
    ck_assert_int_eq(bosh_inflate_coding("gzip, gzip"), BOSH_CODING_UNKNOWN);
    ck_assert_int_eq(bosh_inflate_coding("gzi"), BOSH_CODING_UNKNOWN);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_B_092_all_forms, test_B_092_raw_that_begins_like_zlib,
        test_B_092_damaged,   test_B_094_bounds,
        test_codings,
    };
    Suite *suite = suite_create("inflate");
    TCase *tc = tcase_create("inflate");
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
