/* SPDX-License-Identifier: Apache-2.0 */
/* Errors and security: the checklist's sections 11 and 13, as far as a session alone can prove them. */
#include "session_env.h"

#define M(text) "<message><body>" text "</body></message>"

/* ---- errors (17) ---- */

START_TEST(test_B_260_any_answer_may_end_the_session)
{
    const char *why = NULL;
    int held_one, creation;

    /* The answer to a request that waits, */
    open_session("");
    held_one = req(1001, "", "");
    link_over(BOSH_COND_NONE);
    ck_assert(is_terminate(held_one, ""));
    /* to one that comes afterwards, with what was queued, */
    open_session("");
    server("<message xmlns='jabber:client'/>");
    link_over(BOSH_COND_REMOTE_CONNECTION_FAILED);
    held_one = req(1001, "", "");
    ck_assert(is_terminate(held_one, "remote-connection-failed") && contains(held_one, "<message"));
    /* to the one that breaks a rule, */
    open_session("");
    ck_assert(is_terminate(req(1009, "", ""), "item-not-found"));
    /* and to the creation. */
    creation = post("rid='1000' to='example.com' wait='10' hold='1' ver='1.6'", "");
    ck_assert(held(creation));
    link_over(BOSH_COND_REMOTE_CONNECTION_FAILED);
    ck_assert(is_terminate(creation, "remote-connection-failed"));
    ck_assert_int_eq(bosh_arena_validate(&E->a, &why), APR_SUCCESS);
}
END_TEST

START_TEST(test_B_303_item_not_found)
{
    int kept;

    ck_assert(
        is_terminate(post("sid='00112233445566778899aabbccddeeff' rid='1'", ""), "item-not-found"));
    open_session("");
    ck_assert(is_terminate(req(1003, "", ""), "item-not-found")); /* above the window */
    open_session("");
    E->lim.max_wait = 0;
    for (uint64_t rid = 1001; rid <= 1010; rid++) {
        kept = req(rid, "", M("x"));
        pass(SEC);
        server("<message xmlns='jabber:client'/>");
        ck_assert(answer(kept) != NULL);
    }
    ck_assert(is_terminate(req(1001, "", ""), "item-not-found")); /* no longer kept */
}
END_TEST

/* rows: B-311 */
START_TEST(test_B_311_no_memory_for_a_session)
{
    static char big[240 * 1024];
    bosh_session_t *first;
    uint32_t chunks = E->a.h->nfree_chunks, refused = 0;
    int c;

    open_session("");
    first = session();
    memset(big, 'x', sizeof(big) - 1);
    memcpy(big, "<a>", 3);
    memcpy(big + sizeof(big) - 5, "</a>", 4);
    for (int i = 0; i < 18; i++) { /* each waits for its server, with its payload */
        c = post("rid='1000' to='example.com' wait='10' hold='1' ver='1.6'", big);
        if (!held(c)) {
            ck_assert(is_terminate(c, "internal-server-error"));
            refused++;
        }
    }
    ck_assert_uint_gt(refused, 0);
    ck_assert_uint_gt(E->a.h->nfree_chunks, chunks / 33);
    ck_assert_int_eq(first->state, BOSH_ST_LIVE);
}
END_TEST

/* rows: B-314 B-315 */
START_TEST(test_B_314_an_error_ends_nothing)
{
    int old, again, behind;

    open_session("");
    old = req(1001, "", M("1"));
    again = req(1001, "", M("1"));
    ck_assert(is_error(old) && held(again));
    ck_assert_str_eq(sent(), M("1"));
    server("<message xmlns='jabber:client'/>");
    ck_assert(contains(again, "<message"));
    ck_assert(held(req(1002, "", "")));
    behind = req(1004, "", M("4"));
    pass(11 * SEC); /* nobody has sent 1003 */
    ck_assert(is_error(behind));
    again = req(1003, "", M("3"));
    ck_assert(held(again) || is_empty(again));
    ck_assert_str_eq(sent(), M("3") M("4"));
    ck_assert(held(req(1005, "", "")));
}
END_TEST

/* ---- who asks (19) ---- */

static int create_as(const bosh_client_t *who)
{
    return post_as(who, "rid='1000' to='example.com' wait='10' hold='1' ver='1.6'", "");
}

static int req_as(const bosh_client_t *who, uint64_t rid, const char *payload)
{
    char buf[200];

    snprintf(buf, sizeof(buf), "sid='%s' rid='%llu'", E->sid, (unsigned long long)rid);
    return post_as(who, buf, payload);
}

static void features(void)
{
    server_header("id='x' version='1.0'");
    server("<stream:features/>");
}

START_TEST(test_B_363_another_certificate)
{
    const bosh_client_t mine = {.ip = "192.0.2.1", .tls = true, .cert = "certificate A"};
    const bosh_client_t other = {.ip = "192.0.2.1", .tls = true, .cert = "certificate B"};
    const bosh_client_t none = {.ip = "192.0.2.1", .tls = true};
    bosh_verdict_t v;
    int c;

    create_as(&mine);
    features();
    ck_assert_str_eq(answer(req_as(&other, 1001, M("x"))), "closed");
    ck_assert_str_eq(answer(req_as(&none, 1001, M("x"))), "closed");
    ck_assert_str_eq(answer(req_as(&other, 1009, "")), "closed"); /* would end the session */
    bosh_session_bad_request(&E->a, E->now, E->sid, &none, &v);
    ck_assert_int_eq(v.act, BOSH_DO_CLOSE);
    ck_assert_str_eq(sent(), "");
    c = req_as(&mine, 1001, M("mine"));
    ck_assert(held(c));
    ck_assert_str_eq(sent(), M("mine"));
    ck_assert_str_eq(answer(req_as(&other, 1001, M("x"))), "closed"); /* a repeat */
    ck_assert(held(c));
}
END_TEST

START_TEST(test_B_363_refused_requests_keep_nothing_alive)
{
    const bosh_client_t mine = {.ip = "192.0.2.1", .tls = true, .cert = "certificate A"};
    const bosh_client_t none = {.ip = "192.0.2.1", .tls = true};

    create_as(&mine);
    features();
    for (int i = 0; i < 10; i++) { /* B-208 */
        pass(4 * SEC);
        if (session() != NULL && session()->state == BOSH_ST_LIVE) {
            ck_assert_str_eq(answer(req_as(&none, 1001, "")), "closed");
        }
    }
    ck_assert(session() == NULL || session()->state == BOSH_ST_TOMB);
}
END_TEST

START_TEST(test_B_363_a_session_without_a_certificate)
{
    const bosh_client_t none = {.ip = "192.0.2.1", .tls = true};
    const bosh_client_t some = {.ip = "192.0.2.1", .tls = true, .cert = "certificate B"};

    create_as(&none);
    features();
    ck_assert(held(req_as(&some, 1001, "")));
}
END_TEST

START_TEST(test_B_367_sessions_of_an_address)
{
    const bosh_client_t one = {.ip = "192.0.2.1", .net = 1}, two = {.ip = "192.0.2.2", .net = 2};
    bosh_ix first;
    uint32_t serial;

    E->lim.per_address = 3;
    create_as(&one);
    first = E->index;
    serial = E->serial;
    ck_assert(held(create_as(&one)));
    ck_assert(held(create_as(&one)));
    ck_assert(is_terminate(create_as(&one), "policy-violation"));
    ck_assert(held(create_as(&two)));
    /* What a repair makes anew counts the same. */
    ck_assert_uint_eq(bosh_arena_repair(&E->a), 0);
    ck_assert(is_terminate(create_as(&one), "policy-violation"));
    ck_assert_uint_eq(bosh_arena_net_count(&E->a, 1), 3);
    /* A session that has been ended counts until its record is free again: that bounds the rate, too. */
    E->index = first;
    E->serial = serial;
    bosh_session_end(&E->a, E->now, session(), BOSH_COND_NONE);
    settle();
    ck_assert(is_terminate(create_as(&one), "policy-violation"));
    E->index = first;
    E->serial = serial;
    link_over(BOSH_COND_NONE);
    pass((BOSH_TOMB_SECONDS + 2) * SEC);
    ck_assert_ptr_null(session());
    ck_assert_uint_eq(bosh_arena_net_count(&E->a, 1), 2);
    ck_assert(held(create_as(&one)));
    E->lim.per_address = 0;
    ck_assert(held(create_as(&one)));
}
END_TEST

START_TEST(test_B_367_many_addresses_do_not_disturb_one_another)
{
    bosh_client_t who = {.ip = "192.0.2.1"};

    E->lim.per_address = 2;
    for (unsigned i = 0; i < 60; i++) {
        who.net = UINT64_C(0x100000000) + (i % 30);
        ck_assert(held(create_as(&who)));
    }
}
END_TEST

START_TEST(test_B_367_time_to_log_in)
{
    int c;

    E->lim.login_time = 20;
    open_session("");
    c = req(1001, "", "");
    pass(9 * SEC);
    ck_assert(held(c));
    pass(2 * SEC);
    ck_assert(is_empty(c));
    c = req(1002, "", "");
    pass(10 * SEC);
    ck_assert(is_terminate(c, "policy-violation"));
    ck_assert_str_eq(sent(), "[C]");
    /* Nobody there: the next request is told. */
    open_session("");
    pass(21 * SEC);
    ck_assert(is_terminate(req(1001, "", ""), "policy-violation"));
    ck_assert_str_eq(sent(), "[C]");
}
END_TEST

static void log_in(const char *success)
{
    int c = req(1001, "", "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");

    server(success);
    ck_assert(answer(c) != NULL);
}

START_TEST(test_B_367_logged_in_in_time)
{
    static const char *const successes[] = {
        "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>",
        "<success xmlns='urn:xmpp:sasl:2'><authorization-identifier>a</authorization-identifier>"
        "</success>",
        "<iq type='result' id='auth2'/>", /* XEP-0078 */
    };

    E->lim.login_time = 20;
    for (size_t i = 0; i < sizeof(successes) / sizeof(successes[0]); i++) {
        open_session("");
        log_in(successes[i]);
        pass(25 * SEC);
        ck_assert(held(req(1002, "", "")));
    }
}
END_TEST

START_TEST(test_B_367_what_is_no_login)
{
    static const char *const failures[] = {
        "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/></failure>",
        "<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>x</challenge>",
        "<iq type='error' id='a'><error type='auth'/></iq>",
        "<failure xmlns='urn:xmpp:sasl:2'><success "
        "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/></failure>",
        "<success xmlns='urn:example:other'/>",
    };

    E->lim.login_time = 20;
    for (size_t i = 0; i < sizeof(failures) / sizeof(failures[0]); i++) {
        open_session("");
        log_in(failures[i]);
        pass(25 * SEC);
        ck_assert(is_terminate(req(1002, "", ""), "policy-violation"));
    }
}
END_TEST

START_TEST(test_B_367_payload_before_login)
{
    static char big[3000];

    snprintf(big, sizeof(big), "<message><body>%01500d</body></message>", 0);
    E->lim.login_size = 2000;
    open_session("");
    ck_assert(held(req(1001, "", big)));
    ck_assert(is_terminate(req(1002, "", big), "policy-violation")); /* nothing was sent yet */
    open_session("");
    ck_assert(held(req(1001, "", big)));
    ck_assert_str_eq(sent(), big);
    ck_assert(held(req(1002, "", big))); /* the server has taken the first */
    open_session("");
    ck_assert(held(req(1002, "", big))); /* behind a gap */
    ck_assert(is_terminate(req(1001, "", big), "policy-violation"));
    /* A creation request that is larger makes no session. */
    snprintf(big, sizeof(big), "<message><body>%02500d</body></message>", 0);
    ck_assert(is_terminate(post("rid='1' to='example.com' ver='1.6'", big), "policy-violation"));
    /* After the login the queue's size is the bound. */
    open_session("");
    log_in("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    ck_assert(held(req(1002, "", big)));
    ck_assert(held(req(1003, "", big)));
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_B_260_any_answer_may_end_the_session,
        test_B_303_item_not_found,
        test_B_311_no_memory_for_a_session,
        test_B_314_an_error_ends_nothing,
        test_B_363_another_certificate,
        test_B_363_refused_requests_keep_nothing_alive,
        test_B_363_a_session_without_a_certificate,
        test_B_367_sessions_of_an_address,
        test_B_367_many_addresses_do_not_disturb_one_another,
        test_B_367_time_to_log_in,
        test_B_367_logged_in_in_time,
        test_B_367_what_is_no_login,
        test_B_367_payload_before_login,
    };
    Suite *suite = suite_create("access");
    TCase *tc = tcase_create("access");
    SRunner *sr;
    int failed;

    tcase_add_checked_fixture(tc, env_open, env_close);
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
