/* SPDX-License-Identifier: Apache-2.0 */
/* Overactivity and polling sessions (XEP-0124 sections 11, 12) against a fake clock. */
#include "session_env.h"

#include "bosh_pace.h"

#define M(x)    "<message xmlns='jabber:client'><body>" x "</body></message>"
#define GRACE   (BOSH_PACE_GRACE + 100000)
#define POLLING (5 * SEC)

static void open_polling(void)
{
    env_open();
    E->lim.polling = 5;
}

static void open_wide(void)
{
    post("rid='1000' to='example.com' wait='60' hold='2' ver='1.6'", "");
    server_header("id='x' version='1.0'");
    server("<stream:features/>");
    ck_assert_uint_eq(session()->requests, 3);
    pass(POLLING);
}

/* hold 0: each request is answered at once. */
static void open_polled(void)
{
    int c = post("rid='1000' to='example.com' wait='10' hold='0' ver='1.6'", "");

    server_header("id='x' version='1.0'");
    server("<stream:features/>");
    ck_assert(contains(c, "hold='0'") && contains(c, "features"));
    ck_assert(is_empty(req(1001, "", "")));
}

static bool violation(int c)
{
    return is_terminate(c, "policy-violation");
}

/* ---- too many ---- */

START_TEST(test_B_230_four_of_three)
{
    int a, b, c, d;

    open_wide();
    a = req(1001, "", M("1"));
    b = req(1002, "", M("2"));
    c = req(1004, "", M("4"));
    d = req(1005, "", M("5"));
    pass(GRACE);
    ck_assert(violation(d)); /* rows: B-305 */
    ck_assert(is_terminate(a, "other-request"));
    ck_assert(is_terminate(b, "other-request") && is_terminate(c, "other-request"));
    ck_assert_str_eq(sent(), M("1") M("2") "[C]");
    ck_assert(is_terminate(req(1003, "", ""), "item-not-found"));
}
END_TEST

START_TEST(test_B_230_three_of_two)
{
    int a, b, c;

    open_session("");
    a = req(1001, "", "");
    b = req(1003, "", M("3"));
    c = req(1002, "", M("2"));
    pass(GRACE);
    ck_assert(violation(c));
    ck_assert(!held(a) && !held(b));
    ck_assert_str_eq(sent(), "[C]");
}
END_TEST

START_TEST(test_B_230_not_when_the_last_one_ends_the_session)
{
    int a, b, c;

    open_session("");
    a = req(1001, "", "");
    c = req(1003, "type='terminate'", M("3"));
    b = req(1002, "", M("2"));
    ck_assert_str_eq(sent(), M("2") M("3") "[C]");
    ck_assert(is_empty(a) && is_terminate(b, "") && is_empty(c));
}
END_TEST

START_TEST(test_B_219_a_pause_may_be_one_more)
{
    int a, b, c;

    open_session("");
    b = req(1002, "", M("2"));
    c = req(1003, "pause='60'", M("3")); /* with 1001, on its way, both requests are open */
    ck_assert(held(b) && held(c));
    a = req(1001, "", M("1"));
    ck_assert(is_empty(a) && is_empty(b) && is_empty(c));
    ck_assert_str_eq(sent(), M("1") M("2") M("3"));
    pass(59 * SEC);
    ck_assert(session()->state == BOSH_ST_LIVE);
}
END_TEST

START_TEST(test_B_232_requests_is_always_told)
{
    int c;

    ck_assert(contains(open_session(""), " requests='2'"));
    env_close();
    open_polling();
    c = post("rid='1000' to='example.com' wait='0' hold='0'", "");
    ck_assert(contains(c, " requests='1'"));
}
END_TEST

/* ---- too often ---- */

START_TEST(test_B_233_a_poll_behind_a_held_request)
{
    int a, b;

    open_session("");
    a = req(1001, "", "");
    pass(SEC);
    b = req(1002, "", "");
    ck_assert(held(a)); /* rows: B-237: it is not released, for the rule is looked at before */
    pass(GRACE);
    ck_assert(violation(b));
    ck_assert(is_terminate(a, "other-request"));
    ck_assert_str_eq(sent(), "[C]");
    ck_assert(is_terminate(req(1003, "", ""), "item-not-found"));
}
END_TEST

START_TEST(test_B_233_the_third_of_three)
{
    int a, b, c;

    open_wide();
    a = req(1001, "", "");
    b = req(1002, "", ""); /* fewer than `requests` */
    pass(GRACE);
    ck_assert(held(a) && held(b));
    c = req(1003, "", "");
    pass(GRACE);
    ck_assert(violation(c));
}
END_TEST

START_TEST(test_B_234_not_with_payload)
{
    int a, b;

    open_session("");
    a = req(1001, "", "");
    pass(SEC);
    b = req(1002, "", M("x"));
    ck_assert(is_empty(a));
    pass(GRACE);
    ck_assert(held(b));
}
END_TEST

START_TEST(test_B_234_the_order_is_that_of_the_rids)
{
    int a, b;

    open_session("");
    b = req(1002, "", M("x")); /* overtakes the poll that was sent before it */
    a = req(1001, "", "");
    ck_assert(is_empty(a));
    pass(GRACE);
    ck_assert(held(b));
    env_close();
    open_polling();
    open_session("");
    req(1002, "", "");
    a = req(1001, "", M("x"));
    pass(GRACE);
    ck_assert(violation(a));
}
END_TEST

START_TEST(test_B_235_not_after_polling_seconds)
{
    int a, b;

    open_session("");
    a = req(1001, "", "");
    pass(POLLING - BOSH_PACE_JITTER); /* */
    b = req(1002, "", "");
    ck_assert(is_empty(a));
    pass(GRACE);
    ck_assert(held(b));
}
END_TEST

START_TEST(test_R_13_the_limit_is_exact)
{
    int a, b;

    open_session("");
    a = req(1001, "", "");
    pass(POLLING - BOSH_PACE_JITTER - 1);
    b = req(1002, "", "");
    ck_assert(held(a));
    pass(GRACE);
    ck_assert(violation(b));
}
END_TEST

START_TEST(test_B_236_resends_are_not_new)
{
    int a, b;

    open_session("");
    a = req(1001, "", "");
    b = req(1001, "", "");
    ck_assert(is_error(a));
    pass(GRACE);
    ck_assert(held(b));
    server(M("down"));
    for (int i = 0; i < 20; i++) {
        ck_assert(contains(req(1001, "", ""), "down"));
    }
}
END_TEST

START_TEST(test_B_238_not_a_restart)
{
    int a, b;

    open_session("");
    a = req(1001, "", "");
    b = req(1002, "xmpp:restart='true'", "");
    ck_assert(is_empty(a));
    pass(GRACE);
    ck_assert(held(b));
    ck_assert_ptr_nonnull(strstr(sent(), "[H]"));
}
END_TEST

START_TEST(test_B_239_any_frequency_without_polling)
{
    int c;

    E->lim.polling = 0;
    ck_assert(!contains(open_session(""), "polling="));
    c = req(1001, "", "");
    for (uint64_t rid = 1002; rid <= 1100; rid++) { /* all in the same moment */
        int next = req(rid, "", "");
        ck_assert(is_empty(c));
        c = next;
    }
    pass(GRACE);
    ck_assert(held(c));
}
END_TEST

START_TEST(test_R_13_what_clients_do)
{
    int c;

    /* One request at a time, the next as soon as the last is answered; data at once (Strophe, jbosh). */
    open_session("");
    c = req(1001, "", "");
    for (uint64_t rid = 1002; rid < 1060; rid += 2) {
        int d;

        server(M("down"));
        ck_assert(contains(c, "down"));
        c = req(rid, "", "");
        d = req(rid + 1, "", M("up"));
        ck_assert(is_empty(c));
        c = d;
        pass(100000);
    }
    ck_assert(held(c));
}
END_TEST

/* ---- connections that are gone ---- */

START_TEST(test_R_19_a_reload_that_was_noticed)
{
    int a, b;

    open_session("");
    a = req(1001, "", "");
    hang_up(a);
    b = req(1002, "", "");
    pass(GRACE);
    ck_assert(held(b));
    server(M("down"));
    ck_assert(contains(b, "down"));
}
END_TEST

START_TEST(test_R_19_a_reload_that_is_noticed_later)
{
    int a, b;

    open_session("");
    a = req(1001, "", "");
    b = req(1002, "", "");
    pass(50000);
    hang_up(a);
    server(M("down"));
    ck_assert(contains(b, "down")); /* no later than the hang-up was known */
    ck_assert(!held(b));
    pass(GRACE);
    ck_assert(session()->state == BOSH_ST_LIVE);
}
END_TEST

START_TEST(test_R_19_it_waits_as_any_request_then)
{
    int a, b;

    open_session("");
    a = req(1001, "", "");
    b = req(1002, "", "");
    pass(50000);
    hang_up(a);
    pass(9 * SEC + 900000);
    ck_assert(held(b));
    pass(100000);
    ck_assert(is_empty(b));
}
END_TEST

START_TEST(test_R_19_the_holders_are_asked_to_look)
{
    bosh_mail_t m;
    bool overflow;
    int a;

    open_session("");
    a = req(1001, "", "");
    E->lazy = true;
    req(1002, "", "");
    ck_assert_uint_eq(bosh_arena_mail_take(&E->a, E->peer, &m, 1, &overflow), 1);
    ck_assert_uint_eq(m.what & ~BOSH_MAIL_WAITER, (uint32_t)a);
    ck_assert_uint_eq(bosh_arena_mail_take(&E->a, E->peer, &m, 1, &overflow), 0);
    E->lazy = false;
}
END_TEST

START_TEST(test_R_19_one_too_many)
{
    int a, b, c, d;

    open_wide();
    a = req(1001, "", "");
    b = req(1002, "", "");
    req(1003, "", M("3")); /* of another page: the first two have gone, and nobody knows */
    ck_assert(is_empty(a));
    c = req(1005, "", M("5"));
    d = req(1004, "", M("4")); /* the fourth of three, as far as anybody knows */
    ck_assert(held(b) && held(c) && held(d));
    ck_assert_str_eq(sent(), M("3"));
    hang_up(b);
    ck_assert_str_eq(sent(), M("4") M("5"));
    pass(GRACE);
    ck_assert(session()->state == BOSH_ST_LIVE);
}
END_TEST

START_TEST(test_R_19_the_suspect_itself_goes)
{
    int a, b;

    open_session("");
    a = req(1001, "", "");
    b = req(1002, "", "");
    hang_up(b);
    ck_assert(is_empty(a)); /* it was received, and its connection does not count */
    b = req(1002, "", "");
    pass(GRACE);
    ck_assert(held(b));
}
END_TEST

START_TEST(test_R_19_a_suspect_sent_again)
{
    int a, b, c;

    open_session("");
    a = req(1001, "", "");
    b = req(1002, "", "");
    pass(300000);
    c = req(1002, "", "");
    ck_assert(is_error(b));
    pass(300000);
    hang_up(a);
    pass(GRACE);
    ck_assert(held(c));
    env_close();
    open_polling();
    open_session("");
    req(1001, "", "");
    req(1002, "", "");
    c = req(1002, "", "");
    pass(GRACE);
    ck_assert(violation(c)); /* that is no way out */
}
END_TEST

START_TEST(test_R_19_several_suspects)
{
    int a, b, c;

    open_session("");
    a = req(1001, "", "");
    b = req(1002, "", "");      /* the new page's */
    c = req(1003, "", M("hi")); /* its first words */
    ck_assert(held(b) && held(c));
    ck_assert_str_eq(sent(), "");
    hang_up(a);
    ck_assert_str_eq(sent(), M("hi"));
    ck_assert(is_empty(b));
    pass(GRACE);
    ck_assert(held(c));
}
END_TEST

START_TEST(test_R_19_a_process_that_died)
{
    uint32_t lost = 0;
    bosh_ix from = 0;
    int a, b;

    open_session("");
    a = req(1001, "", "");
    E->conns[a].gone = true; /* it lived in a process of its own */
    bosh_window_slot(&E->a, session(), 1001)->holder.peer = 3;
    b = req(1002, "", "");
    while (bosh_session_peer_died(&E->a, E->now, 3, E->owner, &from, 8, &lost)) {
    }
    settle();
    server(M("down"));
    ck_assert(contains(b, "down"));
    ck_assert_uint_eq(lost, 0);
}
END_TEST

START_TEST(test_R_19_answered_meanwhile)
{
    int a, b;

    open_session("");
    a = req(1001, "", "");
    b = req(1002, "", "");
    server(M("down"));
    ck_assert(contains(a, "down"));
    pass(GRACE);
    ck_assert(held(b));
}
END_TEST

START_TEST(test_a_suspect_of_a_child_that_stops)
{
    int a, b;

    open_session("");
    a = req(1001, "", "");
    b = req(1002, "", M("x"));
    ck_assert(is_empty(a));
    a = req(1003, "", "");
    poll_conn(a, true); /* it may not wait, whatever comes out */
    settle();
    ck_assert(is_error(a));
    ck_assert(is_empty(b));
    pass(GRACE);
    ck_assert(session()->state == BOSH_ST_LIVE);
}
END_TEST

/* ---- polling sessions ---- */

START_TEST(test_B_241_two_polls)
{
    open_polled();
    pass(POLLING);
    ck_assert(is_empty(req(1002, "", "")));
    pass(SEC);
    ck_assert(violation(req(1003, "", "")));
    ck_assert_str_eq(sent(), "[C]");
}
END_TEST

START_TEST(test_B_241_exact)
{
    open_polled();
    pass(POLLING);
    ck_assert(is_empty(req(1002, "", "")));
    pass(POLLING - BOSH_PACE_JITTER);
    ck_assert(is_empty(req(1003, "", "")));
    pass(POLLING - BOSH_PACE_JITTER - 1);
    ck_assert(violation(req(1004, "", "")));
}
END_TEST

START_TEST(test_B_242_not_after_payload)
{
    open_polled();
    pass(POLLING);
    for (uint64_t rid = 1002; rid < 1010; rid++) {
        server(M("down"));
        ck_assert(contains(req(rid, "", ""), "down"));
    }
    ck_assert(is_empty(req(1010, "", "")));
}
END_TEST

START_TEST(test_B_243_not_with_payload_nor_resent)
{
    int c;

    open_polled();
    ck_assert(is_empty(req(1002, "", M("a"))));
    ck_assert(is_empty(req(1003, "", "")));
    ck_assert(is_empty(req(1004, "", M("b"))));
    c = req(1005, "", "");
    ck_assert(is_empty(c));
    ck_assert_str_eq(answer(req(1005, "", "")), answer(c));
    ck_assert(session()->state == BOSH_ST_LIVE);
}
END_TEST

START_TEST(test_B_243_nor_when_a_pause_begins)
{
    open_polled();
    pass(POLLING);
    ck_assert(is_empty(req(1002, "", "")));
    ck_assert(is_empty(req(1003, "pause='60'", "")));
    ck_assert(is_empty(req(1004, "", "")));
}
END_TEST

START_TEST(test_B_244_any_polling_without_polling)
{
    E->lim.polling = 0;
    open_polled();
    for (uint64_t rid = 1002; rid < 1100; rid++) {
        ck_assert(is_empty(req(rid, "", "")));
    }
}
END_TEST

START_TEST(test_B_245_login_of_a_polling_session)
{
    const char *auth = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>";
    int c = post("rid='1000' to='example.com' wait='0' hold='1' ver='1.6'", "");

    ck_assert(contains(c, "sid="));         /* before anything is known of the server */
    ck_assert(is_empty(req(1001, "", ""))); /* the first look may come at once */
    pass(POLLING);
    server_header("id='x' version='1.0'");
    server("<stream:features/>");
    ck_assert(contains(req(1002, "", ""), "features"));
    ck_assert(is_empty(req(1003, "", auth)));
    server("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    pass(POLLING);
    ck_assert(contains(req(1004, "", ""), "<success"));
    ck_assert(is_empty(req(1005, "xmpp:restart='true'", "")));
    server_header("id='y' version='1.0'");
    server("<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></stream:features>");
    ck_assert(contains(req(1006, "", ""), "<bind"));
    for (uint64_t rid = 1007; rid < 1012; rid++) { /* as often as may be, give or take a network */
        pass(POLLING + (rid & 1 ? 200000 : -200000));
        ck_assert(is_empty(req(rid, "", "")));
    }
}
END_TEST

START_TEST(test_B_241_is_not_told_instead_of_the_end)
{
    open_polled();
    pass(POLLING);
    ck_assert(is_empty(req(1002, "", "")));
    link_over(BOSH_COND_REMOTE_CONNECTION_FAILED);
    ck_assert(is_terminate(req(1003, "", ""), "remote-connection-failed"));
}
END_TEST

START_TEST(test_B_230_legacy_clients)
{
    int b;

    post("rid='1000' to='example.com' wait='10' hold='1'", "");
    server_header("id='x' version='1.0'");
    server("<stream:features/>");
    req(1001, "", "");
    b = req(1002, "", "");
    pass(GRACE);
    ck_assert(violation(b));
    ck_assert(E->conns[b].v.legacy && E->conns[b].v.act == BOSH_DO_TELL); /* rows: B-320 */
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_B_230_four_of_three,
        test_B_230_three_of_two,
        test_B_230_not_when_the_last_one_ends_the_session,
        test_B_219_a_pause_may_be_one_more,
        test_B_232_requests_is_always_told,
        test_B_233_a_poll_behind_a_held_request,
        test_B_233_the_third_of_three,
        test_B_234_not_with_payload,
        test_B_234_the_order_is_that_of_the_rids,
        test_B_235_not_after_polling_seconds,
        test_R_13_the_limit_is_exact,
        test_B_236_resends_are_not_new,
        test_B_238_not_a_restart,
        test_B_239_any_frequency_without_polling,
        test_R_13_what_clients_do,
        test_R_19_a_reload_that_was_noticed,
        test_R_19_a_reload_that_is_noticed_later,
        test_R_19_it_waits_as_any_request_then,
        test_R_19_the_holders_are_asked_to_look,
        test_R_19_one_too_many,
        test_R_19_the_suspect_itself_goes,
        test_R_19_a_suspect_sent_again,
        test_R_19_several_suspects,
        test_R_19_a_process_that_died,
        test_R_19_answered_meanwhile,
        test_a_suspect_of_a_child_that_stops,
        test_B_241_two_polls,
        test_B_241_exact,
        test_B_242_not_after_payload,
        test_B_243_not_with_payload_nor_resent,
        test_B_243_nor_when_a_pause_begins,
        test_B_244_any_polling_without_polling,
        test_B_245_login_of_a_polling_session,
        test_B_241_is_not_told_instead_of_the_end,
        test_B_230_legacy_clients,
    };
    Suite *suite = suite_create("pace");
    TCase *tc = tcase_create("pace");
    SRunner *sr;
    int failed;

    tcase_add_checked_fixture(tc, open_polling, env_close);
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
