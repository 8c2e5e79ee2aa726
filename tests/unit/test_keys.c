/* SPDX-License-Identifier: Apache-2.0 */
/* Key sequencing (XEP-0124 section 15): what is compared, and what a session does about it. */
#include "session_env.h"

#include <ctype.h>

#include <apr_sha1.h>

#define M(x)   "<message xmlns='jabber:client'><body>" x "</body></message>"
#define LENGTH 8

/* A chain as a client makes it: k[1] is the hash of a secret, k[n] that of the text of k[n-1]; used from its
 * end. Upper case where `upper` says so: that text is what the next one is the hash of. */
typedef struct chain_t {
    char k[LENGTH + 1][41];
} chain_t;

static void sha1_hex(const char *text, char out[41])
{
    unsigned char digest[APR_SHA1_DIGESTSIZE];
    apr_sha1_ctx_t ctx;

    apr_sha1_init(&ctx);
    apr_sha1_update(&ctx, text, (unsigned)strlen(text));
    apr_sha1_final(digest, &ctx);
    for (int i = 0; i < APR_SHA1_DIGESTSIZE; i++) {
        snprintf(out + 2 * i, 3, "%02x", digest[i]);
    }
}

static chain_t make_chain(const char *secret, int upper)
{
    chain_t c;

    snprintf(c.k[0], sizeof(c.k[0]), "%s", secret);
    for (int i = 1; i <= LENGTH; i++) {
        sha1_hex(c.k[i - 1], c.k[i]);
        for (char *p = c.k[i]; upper == i && *p != '\0'; p++) {
            *p = (char)toupper((unsigned char)*p);
        }
    }
    return c;
}

static void open_keyed(const char *newkey)
{
    char buf[128];

    snprintf(buf, sizeof(buf), "newkey='%s'", newkey);
    open_session(buf);
}

static int key_req(uint64_t rid, const char *key, const char *newkey, const char *payload)
{
    char buf[256];

    snprintf(buf, sizeof(buf), newkey != NULL ? "key='%s' newkey='%s'" : "key='%s'", key, newkey);
    return req(rid, buf, payload);
}

static void keys_on(void)
{
    env_open();
    E->lim.keys = true;
}

START_TEST(test_B_270_keys_are_hashes_of_their_successors)
{
    /* sha1("secret"), and then of the 40 characters each: not made by the code under test. */
    static const char *const k[] = {
        "e5e9fa1ba31ecd1ae84f75caaa474f3a663f05f4", "8e2ad3b8e7ee8cdf34d66b120fae70625ab1a4ae",
        "2a789497c1b4cd581427145b24a6cbb2ca68790c", "54856416df8ed54d56327a7c8f0b99fd93ecff4c"};

    open_keyed(k[3]); /* rows: B-102 */
    ck_assert(held(key_req(1001, k[2], NULL, M("1"))));
    ck_assert(held(key_req(1002, k[1], NULL, M("2"))));
    ck_assert(held(key_req(1003, k[0], NULL, M("3"))));
    ck_assert_str_eq(sent(), M("1") M("2") M("3"));
}
END_TEST

START_TEST(test_B_271_any_case)
{
    for (int upper = 1; upper <= LENGTH; upper++) {
        chain_t c = make_chain("x", upper); /* LENGTH: the newkey, below it one of the keys */

        open_keyed(c.k[LENGTH]);
        for (int i = 1; i < LENGTH; i++) {
            ck_assert(held(key_req(1000 + (uint64_t)i, c.k[LENGTH - i], NULL, M("x"))));
        }
        env_close();
        keys_on();
    }
}
END_TEST

START_TEST(test_B_271_the_text_is_hashed_as_it_came)
{
    chain_t c = make_chain("x", 0);
    char other[41];

    open_keyed(c.k[5]);
    strcpy(other, c.k[4]);
    for (char *p = other; *p != '\0'; p++) {
        *p = (char)toupper((unsigned char)*p); /* another text with another hash */
    }
    ck_assert(is_terminate(key_req(1001, other, NULL, M("x")), "item-not-found"));
}
END_TEST

START_TEST(test_B_272_a_wrong_key_ends_the_session)
{
    chain_t c = make_chain("x", 0), other = make_chain("y", 0);
    int a, b;

    open_keyed(c.k[5]);
    a = key_req(1001, c.k[4], NULL, "");
    b = key_req(1002, other.k[3], NULL, M("injected"));
    ck_assert(is_terminate(b, "item-not-found"));
    ck_assert(is_terminate(a, "other-request"));
    ck_assert_str_eq(sent(), "[C]");
    ck_assert(session()->state == BOSH_ST_TOMB);
    ck_assert(is_terminate(key_req(1002, c.k[3], NULL, M("too late")), "item-not-found"));
}
END_TEST

START_TEST(test_B_273_a_missing_key_ends_the_session)
{
    chain_t c = make_chain("x", 0);

    open_keyed(c.k[5]); /* after a newkey */
    ck_assert(is_terminate(req(1001, "", M("x")), "item-not-found"));
    ck_assert_str_eq(sent(), "[C]");
    env_close();
    keys_on();
    open_keyed(c.k[5]); /* after a key */
    key_req(1001, c.k[4], NULL, "");
    ck_assert(is_terminate(req(1002, "", M("x")), "item-not-found"));
    ck_assert_str_eq(sent(), "[C]");
}
END_TEST

START_TEST(test_B_274_a_new_chain)
{
    chain_t k = make_chain("x", 0), m = make_chain("y", 0);

    open_keyed(k.k[3]);
    ck_assert(held(key_req(1001, k.k[2], NULL, "")));
    ck_assert(held(key_req(1002, k.k[1], m.k[8], M("1"))));
    ck_assert(held(key_req(1003, m.k[7], NULL, M("2"))));
    ck_assert_str_eq(sent(), M("1") M("2"));
    ck_assert(is_terminate(key_req(1004, k.k[0], NULL, M("3")), "item-not-found"));
    ck_assert_str_eq(sent(), "[C]");
}
END_TEST

START_TEST(test_B_274_the_old_chain_is_over)
{
    chain_t k = make_chain("x", 0), m = make_chain("y", 0);

    open_keyed(k.k[5]);
    ck_assert(held(key_req(1001, k.k[4], m.k[8], "")));
    ck_assert(is_terminate(key_req(1002, k.k[3], NULL, ""), "item-not-found"));
}
END_TEST

START_TEST(test_B_275_newkey_needs_a_key)
{
    chain_t k = make_chain("x", 0), m = make_chain("y", 0);
    char buf[128];

    open_keyed(k.k[5]);
    snprintf(buf, sizeof(buf), "newkey='%s'", m.k[8]);
    ck_assert(is_terminate(req(1001, buf, M("x")), "item-not-found"));
    env_close();
    keys_on();
    open_keyed(k.k[5]);
    ck_assert(is_terminate(key_req(1001, m.k[4], m.k[8], M("x")), "item-not-found"));
    ck_assert_str_eq(sent(), "[C]");
}
END_TEST

START_TEST(test_B_276_keys_in_rid_order)
{
    chain_t c = make_chain("x", 0);
    int a, b;

    open_keyed(c.k[5]);
    b = key_req(1002, c.k[3], NULL, M("2"));
    ck_assert(held(b));
    a = key_req(1001, c.k[4], NULL, M("1"));
    ck_assert(is_empty(a));
    ck_assert(held(b));
    ck_assert_str_eq(sent(), M("1") M("2"));
}
END_TEST

START_TEST(test_B_276_a_wrong_key_behind_a_gap)
{
    chain_t c = make_chain("x", 0), other = make_chain("y", 0);
    int a, b;

    open_keyed(c.k[5]);
    b = key_req(1002, other.k[3], NULL, M("injected"));
    ck_assert(held(b)); /* nobody can know yet */
    a = key_req(1001, c.k[4], NULL, M("1"));
    ck_assert(is_terminate(b, "item-not-found"));
    ck_assert(!held(a));
    ck_assert_str_eq(sent(), M("1") "[C]");
}
END_TEST

START_TEST(test_B_276_no_room_downstream)
{
    chain_t c = make_chain("x", 0);
    char *big = malloc(70000);

    E->lim.queue_size = 100000;
    open_keyed(c.k[5]);
    snprintf(big, 70000, M("%060000d"), 1);
    key_req(1001, c.k[4], NULL, big);
    ck_assert(held(key_req(1002, c.k[3], NULL, big))); /* its key is due when there is room */
    ck_assert_uint_eq(strlen(sent()), 2 * strlen(big));
    ck_assert(held(key_req(1003, c.k[2], NULL, M("3"))));
    ck_assert_str_eq(sent(), M("3"));
    free(big);
}
END_TEST

START_TEST(test_B_277_a_resend_shows_its_key)
{
    chain_t c = make_chain("x", 0), other = make_chain("y", 0);
    int a;

    open_keyed(c.k[5]);
    server(M("secret"));
    a = key_req(1001, c.k[4], NULL, "");
    ck_assert(contains(a, "secret"));
    ck_assert_str_eq(answer(key_req(1001, c.k[4], NULL, "")), answer(a)); /* rows: R-17 */
    a = key_req(1001, other.k[4], NULL, "");
    ck_assert(is_terminate(a, "item-not-found"));
    ck_assert(!contains(a, "secret"));
    ck_assert(session()->state == BOSH_ST_TOMB);
    a = req(1001, "", ""); /* nor in what is left of the session */
    ck_assert(is_terminate(a, "item-not-found"));
    ck_assert(contains(key_req(1001, c.k[4], NULL, ""), "secret"));
}
END_TEST

START_TEST(test_B_277_a_held_request_is_not_taken_over)
{
    chain_t c = make_chain("x", 0), other = make_chain("y", 0);
    int a, b;

    open_keyed(c.k[5]);
    a = key_req(1001, c.k[4], NULL, "");
    b = key_req(1001, c.k[4], NULL, "");
    ck_assert(is_error(a));
    ck_assert(held(b));
    a = key_req(1001, other.k[4], NULL, "");
    ck_assert(is_terminate(a, "item-not-found"));
    ck_assert(is_terminate(b, "other-request"));
}
END_TEST

START_TEST(test_B_277_the_creation_cannot_be_fetched_again)
{
    chain_t c = make_chain("x", 0);

    open_keyed(c.k[5]);
    ck_assert(is_terminate(req(1000, "", ""), "item-not-found"));
}
END_TEST

START_TEST(test_B_278_verification_turned_off)
{
    E->lim.keys = false;
    open_keyed("no hash at all");
    ck_assert(held(key_req(1001, "wrong", "too", M("1"))));
    ck_assert(held(req(1002, "", M("2"))));
    ck_assert_str_eq(sent(), M("1") M("2"));
}
END_TEST

START_TEST(test_B_279_keys_in_a_session_without)
{
    chain_t c = make_chain("x", 0);

    open_session("");
    ck_assert(held(key_req(1001, c.k[4], NULL, M("1"))));
    ck_assert(held(key_req(1002, "nonsense", c.k[8], M("2"))));
    ck_assert(held(req(1003, "", M("3"))));
    ck_assert_str_eq(sent(), M("1") M("2") M("3"));
    server(M("x"));
    ck_assert(contains(req(1003, "key='other'", ""), ">x<"));
}
END_TEST

START_TEST(test_B_280_keys_of_wrong_length)
{
    static const size_t lengths[] = {0, 1, 39, 41, 80};
    chain_t c = make_chain("x", 0);

    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        char key[128] = "";

        for (size_t n = 0; n < lengths[i]; n++) {
            key[n] = c.k[4][n % 40];
        }
        open_keyed(c.k[5]);
        ck_assert(is_terminate(key_req(1001, key, NULL, M("x")), "item-not-found"));
        ck_assert_str_eq(sent(), "[C]");
        env_close();
        keys_on();
    }
    open_keyed(c.k[5]); /* 40 characters, but no hash */
    ck_assert(is_terminate(key_req(1001, "g706a7eee4be3adf5ca9e3fbd0e0ac6fbb57cb5x", NULL, ""),
                           "item-not-found"));
    env_close();
    keys_on();
    open_keyed(c.k[5]); /* a chain that cannot go on */
    ck_assert(is_terminate(key_req(1001, c.k[4], "short", M("x")), "item-not-found"));
}
END_TEST

START_TEST(test_a_newkey_that_is_none)
{
    ck_assert(is_terminate(post("rid='1000' to='example.com' newkey='short' ver='1.6'", ""),
                           "bad-request"));
    ck_assert_uint_eq(E->a.h->nsessions, 0);
}
END_TEST

START_TEST(test_B_280_comparisons)
{
    chain_t c = make_chain("x", 0);
    bosh_key_t k, same, none;
    uint8_t expected[BOSH_KEY_BYTES];

    bosh_key_read(&k, c.k[4], NULL);
    memcpy(expected, k.hash, sizeof(expected));
    bosh_key_read(&same, c.k[4], c.k[8]);
    bosh_key_read(&none, NULL, NULL);
    ck_assert(bosh_key_follows(expected, &k));
    ck_assert(bosh_key_follows(expected, &same));
    ck_assert(bosh_key_repeats(&k, &same));
    ck_assert(!bosh_key_follows(expected, &none));
    ck_assert(!bosh_key_repeats(&k, &none));
    ck_assert(!bosh_key_repeats(&none, &none));
    for (int i = 0; i < BOSH_KEY_BYTES; i++) { /* every byte counts */
        expected[i] ^= 0x10;
        same.hash[i] ^= 0x01;
        ck_assert(!bosh_key_follows(expected, &k));
        ck_assert(!bosh_key_repeats(&k, &same));
        expected[i] ^= 0x10;
        same.hash[i] ^= 0x01;
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_B_270_keys_are_hashes_of_their_successors,
        test_B_271_any_case,
        test_B_271_the_text_is_hashed_as_it_came,
        test_B_272_a_wrong_key_ends_the_session,
        test_B_273_a_missing_key_ends_the_session,
        test_B_274_a_new_chain,
        test_B_274_the_old_chain_is_over,
        test_B_275_newkey_needs_a_key,
        test_B_276_keys_in_rid_order,
        test_B_276_a_wrong_key_behind_a_gap,
        test_B_276_no_room_downstream,
        test_B_277_a_resend_shows_its_key,
        test_B_277_a_held_request_is_not_taken_over,
        test_B_277_the_creation_cannot_be_fetched_again,
        test_B_278_verification_turned_off,
        test_B_279_keys_in_a_session_without,
        test_B_280_keys_of_wrong_length,
        test_a_newkey_that_is_none,
        test_B_280_comparisons,
    };
    Suite *suite = suite_create("keys");
    TCase *tc = tcase_create("keys");
    SRunner *sr;
    int failed;

    tcase_add_checked_fixture(tc, keys_on, env_close);
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        tcase_add_test(tc, tests[i]);
    }
    tcase_set_timeout(tc, 60); /* each section of the lock runs twice: session_env.h */
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_NORMAL);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed > 0;
}
