/* SPDX-License-Identifier: Apache-2.0 */
/* Reports of lost answers (XEP-0124 9.2), what is kept for resends, and the window (14), against a fake clock. */
#include "session_env.h"

#define M(x) "<message xmlns='jabber:client'><body>" x "</body></message>"

/* Three answers, each with a message: of 1001 to 1003, the last one at E->now. */
static void three_answers(int c[3])
{
    open_session("ack='1'");
    for (int i = 0; i < 3; i++) {
        char text[64];

        snprintf(text, sizeof(text), M("no%d"), i + 1);
        server(text);
        c[i] = req(1001 + (uint64_t)i, i == 0 ? "ack='1000'" : "ack='1001'", "");
        ck_assert(contains(c[i], "<message"));
        ck_assert(!contains(c[i], "report=")); /* rows: B-184 */
    }
}

START_TEST(test_B_181_a_low_ack_is_answered_with_a_report)
{
    int c[3], d;

    three_answers(c);
    pass(SEC);
    d = req(1004, "ack='1001'", "");
    ck_assert(contains(d, " report='1002' time='1000'"));
    ck_assert(is_empty(d)); /* at once, for nothing is there to be told */
    ck_assert_str_eq(answer(req(1002, "ack='1001'", "")), answer(c[1])); /* rows: B-185 */
    d = req(1005, "ack='1004'", "");                                     /* now it has them all */
    ck_assert(held(d));
    server(M("next"));
    ck_assert(contains(d, "next"));
    ck_assert(!contains(d, "report="));
}
END_TEST

START_TEST(test_B_181_with_what_is_queued)
{
    int c[3], d;

    three_answers(c);
    pass(SEC);
    server(M("queued"));
    d = req(1004, "ack='1001'", "");
    ck_assert(contains(d, "report='1002'") && contains(d, M("queued")));
}
END_TEST

START_TEST(test_B_181_on_the_next_answer)
{
    int c[3], d, e;

    three_answers(c);
    d = req(1004, "ack='1003'", "");
    server(M("no4"));
    ck_assert(contains(d, "no4"));
    d = req(1005, "ack='1003'", "");
    ck_assert(held(d));
    pass(SEC);
    e = req(1006, "ack='1003'", "");
    ck_assert(contains(d, "report='1004' time='1000'")); /* it is over hold in any case */
    ck_assert(held(e));
    server(M("more"));
    ck_assert(contains(e, "more") && !contains(e, "report="));
}
END_TEST

START_TEST(test_B_181_before_the_answer_of_another)
{
    int d, e;

    post("rid='1000' to='example.com' wait='60' hold='2' ver='1.6' ack='1'", "");
    server_header("id='x' version='1.0'");
    server("<stream:features/>");
    server(M("lost"));
    d = req(1001, "ack='1000'", "");
    ck_assert(contains(d, "lost"));
    pass(SEC);
    d = req(1002, "ack='1001'", "");
    ck_assert(held(d));
    e = req(1003, "ack='1000'", ""); /* said before the other one came: no news */
    ck_assert(held(d) && held(e));
}
END_TEST

START_TEST(test_B_181_two_are_held)
{
    int c, d, e;

    post("rid='1000' to='example.com' wait='60' hold='2' ver='1.6' ack='1'", "");
    server_header("id='x' version='1.0'");
    server("<stream:features/>");
    d = req(1001, "ack='1000'", "");
    server(M("lost"));
    ck_assert(contains(d, "lost"));
    c = req(1002, "ack='1000'", "");
    ck_assert(held(c));
    pass(SEC);
    e = req(1003, "ack='1000'", ""); /* within hold, yet its news are for now */
    ck_assert(contains(c, "report='1001'"));
    ck_assert(held(e));
}
END_TEST

START_TEST(test_B_182_only_with_acks_and_only_what_was_sent)
{
    int d;

    open_session("");
    server(M("x"));
    req(1001, "", "");
    pass(SEC);
    d = req(1002, "ack='1000'", "");
    ck_assert(held(d));
    server(M("next"));
    ck_assert(!contains(d, "report="));
    env_close();
    env_open();
    open_session("ack='1'");
    req(1001, "ack='1000'", "");
    pass(SEC);
    d = req(1002, "ack='1000'", ""); /* 1001 was not answered before it came */
    ck_assert(held(d));
    server(M("next"));
    ck_assert(!contains(d, "report="));
}
END_TEST

START_TEST(test_B_182_an_answer_nobody_fetched)
{
    int b, c, d;

    open_session("ack='1'");
    E->lazy = true;
    b = req(1001, "ack='1000'", "");
    c = req(1002, "ack='1000'", ""); /* 1001 has its answer, and its holder is slow */
    pass(SEC);
    d = req(1003, "ack='1000'", "");
    ck_assert(held(d));
    ck_assert(!(session()->flags & BOSH_SESS_REPORT));
    E->lazy = false;
    settle();
    ck_assert(is_empty(b) && is_empty(c) && held(d));
    server(M("next"));
    ck_assert(contains(d, "next"));
    ck_assert(!contains(b, "report=") && !contains(c, "report=") && !contains(d, "report="));
}
END_TEST

START_TEST(test_B_183_time_has_16_bits)
{
    int c[3], d;

    E->lim.inactivity = 300;
    three_answers(c);
    pass(70 * SEC);
    d = req(1004, "ack='1001'", "");
    ck_assert(contains(d, " report='1002' time='65535'"));
}
END_TEST

START_TEST(test_B_184_not_what_may_be_on_its_way)
{
    int c[3], d;

    three_answers(c);
    pass(20000);
    d = req(1004, "ack='1001'", "");
    ck_assert(held(d));
    server(M("next"));
    ck_assert(contains(d, "next") && !contains(d, "report="));
    pass(BOSH_REPORT_AGE - 20001);
    ck_assert(held(req(1005, "ack='1001'", "")));
}
END_TEST

START_TEST(test_B_181_not_to_a_dead_connection)
{
    int c[3], d;

    three_answers(c);
    d = req(1004, "ack='1003'", "");
    server(M("no4"));
    d = req(1005, "ack='1003'", "");
    hang_up(d);
    pass(SEC);
    d = req(1006, "ack='1003'", "");
    ck_assert(contains(d, "report='1004'"));
}
END_TEST

/* ---- what is kept ---- */

START_TEST(test_B_169_pause_answers_do_not_evict)
{
    int a, b, p;

    open_session("");
    server(M("one"));
    a = req(1001, "", "");
    server(M("two"));
    b = req(1002, "", "");
    p = req(1003, "pause='10'", "");
    ck_assert(is_empty(p));
    ck_assert_str_eq(answer(req(1002, "", "")), answer(b));
    ck_assert_str_eq(answer(req(1001, "", "")), answer(a));
    server(M("three"));
    ck_assert(contains(req(1004, "", ""), "three"));
    ck_assert_str_eq(answer(req(1002, "", "")), answer(b));
    ck_assert(is_terminate(req(1001, "", ""), "item-not-found")); /* that one did */
}
END_TEST

START_TEST(test_R_06_a_resent_pause_is_armed_again)
{
    E->lim.inactivity = 2;
    open_session("");
    req(1001, "pause='10'", "");
    pass(9 * SEC);
    ck_assert(is_empty(req(1001, "pause='10'", "")));
    pass(9 * SEC + 900000);
    ck_assert(session()->state == BOSH_ST_LIVE);
    pass(200000);
    ck_assert(session()->state == BOSH_ST_TOMB);
}
END_TEST

START_TEST(test_R_06_only_while_it_is_the_last)
{
    E->lim.inactivity = 2;
    open_session("");
    req(1001, "pause='100'", "");
    server(M("x"));
    req(1002, "", "");
    ck_assert(is_empty(req(1001, "pause='100'", "")));
    pass(3 * SEC);
    ck_assert(session()->state == BOSH_ST_TOMB);
}
END_TEST

START_TEST(test_R_11_pause_up_to_maxpause)
{
    open_session("");
    ck_assert(is_empty(req(1001, "pause='120'", "")));
    ck_assert(is_terminate(req(1002, "pause='121'", M("x")), "policy-violation"));
    ck_assert_str_eq(sent(), "[C]");
}
END_TEST

/* ---- the window ---- */

START_TEST(test_R_15_a_deferred_rid_again)
{
    int a, b, c;

    open_session("");
    a = req(1002, "", M("first"));
    b = req(1002, "", M("second"));
    ck_assert(is_error(a) && held(b));
    c = req(1001, "", M("before"));
    ck_assert(is_empty(c));
    ck_assert_str_eq(sent(), M("before") M("first")); /* once, and a repeat is not read (B-164) */
    server(M("answer"));
    ck_assert(contains(b, "answer"));
}
END_TEST

START_TEST(test_R_03_the_window_begins_behind_what_has_no_gap)
{
    static const struct {
        uint64_t rid;
        const char *attrs;
        bool inside;
    } rows[] = {{1003, "", true},           {1004, "", false},
                {1004, "pause='5'", true},  {1004, "type='terminate'", true},
                {1005, "pause='5'", false}, {1005, "type='terminate'", false}};

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int c;

        open_session("");
        req(1001, "", ""); /* C = 1001, unanswered */
        if (rows[i].rid != 1003) {
            req(1003, "", M("x")); /* behind a gap: it does not move the window */
        }
        c = req(rows[i].rid, rows[i].attrs, "");
        ck_assert_msg(held(c) == rows[i].inside, "%llu %s", (unsigned long long)rows[i].rid,
                      rows[i].attrs);
        ck_assert(rows[i].inside || is_terminate(c, "item-not-found"));
        env_close();
        env_open();
    }
}
END_TEST

START_TEST(test_R_01_requests_follows_what_was_asked_for)
{
    static const struct {
        unsigned max_hold, max_requests;
        const char *ask, *hold, *requests;
    } rows[] = {{2, 3, "hold='1'", " hold='1'", " requests='2'"},
                {1, 3, "hold='2'", " hold='1'", " requests='3'"},
                {1, 3, "hold='200'", " hold='1'", " requests='3'"},
                {1, 2, "hold='2'", " hold='1'", " requests='2'"},
                {2, 3, "hold='0'", " hold='0'", " requests='1'"},
                {2, 2, "hold='2'", " hold='1'", " requests='2'"},
                {2, 3, "", " hold='1'", " requests='2'"}};

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char buf[128];
        int c;

        E->lim.max_hold = rows[i].max_hold;
        E->lim.max_requests = rows[i].max_requests;
        snprintf(buf, sizeof(buf), "rid='1' to='example.com' wait='0' %s", rows[i].ask);
        c = post(buf, "");
        ck_assert_msg(contains(c, rows[i].hold) && contains(c, rows[i].requests), "%s: %s",
                      rows[i].ask, answer(c));
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_B_181_a_low_ack_is_answered_with_a_report,
        test_B_181_with_what_is_queued,
        test_B_181_on_the_next_answer,
        test_B_181_before_the_answer_of_another,
        test_B_181_two_are_held,
        test_B_182_only_with_acks_and_only_what_was_sent,
        test_B_182_an_answer_nobody_fetched,
        test_B_183_time_has_16_bits,
        test_B_184_not_what_may_be_on_its_way,
        test_B_181_not_to_a_dead_connection,
        test_B_169_pause_answers_do_not_evict,
        test_R_06_a_resent_pause_is_armed_again,
        test_R_06_only_while_it_is_the_last,
        test_R_11_pause_up_to_maxpause,
        test_R_15_a_deferred_rid_again,
        test_R_03_the_window_begins_behind_what_has_no_gap,
        test_R_01_requests_follows_what_was_asked_for,
    };
    Suite *suite = suite_create("acks");
    TCase *tc = tcase_create("acks");
    SRunner *sr;
    int failed;

    tcase_add_checked_fixture(tc, env_open, env_close);
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
