/* SPDX-License-Identifier: Apache-2.0 */
/* Which stanzas of a session that ends go back to the server, and that each does once: B-290 to B-294. */
#include "session_env.h"

#include "bosh_back.h"

#define FROM(n) "<message xmlns='jabber:client' from='a@b' id='" n "'/>"

/* What the loop would do: takes all that goes back, gives "[text]" for each in its place, and ends the stream. */
static const char *returned(void)
{
    static char all[1 << 20];
    static char text[256 * 1024];
    bosh_session_t *s = session();
    size_t n = 0, len = 0;
    bool whole;

    all[0] = '\0';
    while (s != NULL && (s->flags & BOSH_SESS_BACK)) {
        section_begins(); /* no verdict */
        len = bosh_back_take(&E->a, s, text, sizeof(text), &whole);
        section_dies();
        len = bosh_back_take(&E->a, s, text, sizeof(text), &whole);
        bosh_arena_commit(&E->a);
        ck_assert_uint_le(len, sizeof(text));
        if (len > 0) {
            n += (size_t)snprintf(all + n, sizeof(all) - n, "[%.*s]", (int)len, text);
        }
    }
    if (s != NULL && n > 0) {
        SECTION(NO_VERDICT, bosh_back_give(&E->a, s, "<gone/>", 7));
        ck_assert_str_eq(sent(), "<gone/>"); /* and no end before it; the loop makes it then */
    }
    env_validate();
    return all;
}

static void open_returning(void)
{
    E->lim.returns = true;
    open_session("");
}

START_TEST(test_B_293_what_was_queued)
{
    open_returning();
    server(FROM("1") "<presence xmlns='jabber:client' from='a@b'/>" FROM("2"));
    pass(31 * SEC); /* inactivity */
    ck_assert_int_eq(session()->state, BOSH_ST_TOMB);
    ck_assert_str_eq(
        returned(), "[" FROM("1") "][<presence xmlns='jabber:client' from='a@b'/>][" FROM("2") "]");
    ck_assert_uint_eq(session()->link.up.items, 0);
}
END_TEST

START_TEST(test_B_293_however_it_ends)
{
    /* A request that breaks a rule, */
    open_returning();
    server(FROM("1"));
    ck_assert(is_terminate(req(1009, "", ""), "item-not-found"));
    ck_assert_str_eq(returned(), "[" FROM("1") "]");
    /* or cannot be read; */
    open_returning();
    server(FROM("2"));
    {
        const bosh_client_t who = {.ip = "192.0.2.1"};
        bosh_verdict_t v;
        SECTION(&v, bosh_session_bad_request(&E->a, E->now, E->sid, &who, &v));
    }
    ck_assert_str_eq(returned(), "[" FROM("2") "]");
    /* the end of the server, with nobody there */
    open_returning();
    server(FROM("3"));
    SECTION(NO_VERDICT, bosh_session_end(&E->a, E->now, session(), BOSH_COND_SYSTEM_SHUTDOWN));
    settle();
    ck_assert_str_eq(returned(), "[" FROM("3") "]");
    ck_assert(is_terminate(req(1001, "", ""), "system-shutdown"));
    /* who comes while it is under way gets what is still there, and no one else does. */
    open_returning();
    server(FROM("4"));
    SECTION(NO_VERDICT, bosh_session_end(&E->a, E->now, session(), BOSH_COND_SYSTEM_SHUTDOWN));
    settle();
    {
        int c = req(1001, "", "");
        ck_assert(is_terminate(c, "system-shutdown") && contains(c, "id='4'"));
    }
    ck_assert_str_eq(returned(), "");
}
END_TEST

START_TEST(test_B_293_a_client_that_ends_its_session_gets_it_all)
{
    int c;

    open_returning();
    server(FROM("1"));
    c = req(1001, "type='terminate'", "");
    ck_assert(is_terminate(c, "") && contains(c, "id='1'")); /* B-254 */
    ck_assert_str_eq(returned(), "");
    ck_assert_str_eq(sent(), "[C]");
}
END_TEST

START_TEST(test_B_293_more_than_an_answer_holds)
{
    static char big[60 * 1024], both[130 * 1024];

    open_returning();
    memset(big, 'x', sizeof(big) - 1);
    snprintf(both, sizeof(both),
             "<message xmlns='jabber:client'>%s</message><message xmlns='jabber:client'/>", big);
    server(both);
    E->lim.answer_size = 1000;
    ck_assert(is_terminate(req(1001, "type='terminate'", ""), ""));
    ck_assert_uint_gt(strlen(returned()), sizeof(big));
}
END_TEST

START_TEST(test_B_293_a_held_request_that_broke)
{
    int c;

    open_returning();
    c = req(1001, "", "");
    hang_up(c);
    server(FROM("1"));
    pass(31 * SEC);
    ck_assert_str_eq(returned(), "[" FROM("1") "]");
}
END_TEST

START_TEST(test_B_293_an_answer_that_was_not_written)
{
    int c;
    const char *got;

    open_returning();
    c = req(1001, "", "");
    server(FROM("1"));
    ck_assert(contains(c, "id='1'"));
    SECTION(NO_VERDICT, bosh_session_unsent(&E->a, E->index, E->serial, 1001));
    server(FROM("2"));
    pass(31 * SEC);
    got = returned();
    /* The whole answer, and then what came later. */
    ck_assert_ptr_nonnull(strstr(got, "[" NSB));
    ck_assert_ptr_nonnull(strstr(got, FROM("1") "</body>][" FROM("2") "]"));
    ck_assert_ptr_null(bosh_window_slot(&E->a, session(), 1001));
}
END_TEST

START_TEST(test_B_293_an_answer_that_was_written)
{
    int c;

    open_returning();
    c = req(1001, "", "");
    server(FROM("1"));
    ck_assert(contains(c, "id='1'"));
    pass(31 * SEC);
    ck_assert_str_eq(returned(), "");
    ck_assert_str_eq(sent(), "[C]");
    /* Not to the first connection, but to the second. */
    open_returning();
    req(1001, "", "");
    server(FROM("2"));
    SECTION(NO_VERDICT, bosh_session_unsent(&E->a, E->index, E->serial, 1001));
    ck_assert(contains(req(1001, "", ""), "id='2'"));
    pass(31 * SEC);
    ck_assert_str_eq(returned(), "");
    /* To the second before it is known that the first was broken. */
    open_returning();
    req(1001, "", "");
    server(FROM("3"));
    ck_assert(contains(req(1001, "", ""), "id='3'"));
    SECTION(NO_VERDICT, bosh_session_unsent(&E->a, E->index, E->serial, 1001));
    pass(31 * SEC);
    ck_assert_str_eq(returned(), "");
}
END_TEST

START_TEST(test_B_293_a_server_that_has_gone)
{
    /* Nobody to return it to; the client can still come for it (B-261). */
    open_returning();
    server(FROM("1"));
    link_over(BOSH_COND_REMOTE_CONNECTION_FAILED);
    ck_assert_str_eq(returned(), "");
    ck_assert(contains(req(1001, "", ""), "id='1'"));
    open_returning();
    server(FROM("2") "<stream:error><conflict "
                     "xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>");
    pass(31 * SEC);
    ck_assert_str_eq(returned(), "");
    /* It goes while things are on their way back. */
    open_returning();
    server(FROM("3"));
    pass(31 * SEC);
    ck_assert(session()->flags & BOSH_SESS_BACK);
    link_over(BOSH_COND_REMOTE_CONNECTION_FAILED);
    ck_assert_str_eq(returned(), "");
    ck_assert_uint_eq(session()->link.up.items, 0);
}
END_TEST

START_TEST(test_B_294_stream_management)
{
    static const char *const enabled[] = {
        "<enabled xmlns='urn:xmpp:sm:3' id='x' resume='true'/>",
        "<resumed xmlns='urn:xmpp:sm:3' h='1' previd='x'/>",
        "<success xmlns='urn:xmpp:sasl:2'><bound xmlns='urn:xmpp:bind:0'>"
        "<enabled xmlns='urn:xmpp:sm:3'/></bound></success>",
    };
    static const char *const not_enabled[] = {
        "<failed xmlns='urn:xmpp:sm:3'/>",
        "<message xmlns='jabber:client' from='evil@b'><enabled xmlns='urn:xmpp:sm:3'/></message>",
        "<enabled xmlns='urn:example:other'/>",
    };

    for (size_t i = 0; i < sizeof(enabled) / sizeof(enabled[0]); i++) {
        open_returning();
        server(enabled[i]);
        ck_assert(answer(req(1001, "", "")) != NULL);
        server(FROM("1"));
        pass(31 * SEC);
        ck_assert_str_eq(returned(), "");
        ck_assert_str_eq(sent(), "[C]");
    }
    for (size_t i = 0; i < sizeof(not_enabled) / sizeof(not_enabled[0]); i++) {
        open_returning();
        server(not_enabled[i]);
        ck_assert(answer(req(1001, "", "")) != NULL);
        server(FROM("1"));
        pass(31 * SEC);
        ck_assert_str_eq(returned(), "[" FROM("1") "]");
    }
}
END_TEST

START_TEST(test_turned_off)
{
    open_session("");
    server(FROM("1"));
    pass(31 * SEC);
    ck_assert_str_eq(returned(), "");
    ck_assert_uint_eq(session()->link.up.items, 0);
    ck_assert_str_eq(sent(), "[C]");
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_B_293_what_was_queued,
        test_B_293_however_it_ends,
        test_B_293_a_client_that_ends_its_session_gets_it_all,
        test_B_293_more_than_an_answer_holds,
        test_B_293_a_held_request_that_broke,
        test_B_293_an_answer_that_was_not_written,
        test_B_293_an_answer_that_was_written,
        test_B_293_a_server_that_has_gone,
        test_B_294_stream_management,
        test_turned_off,
    };
    Suite *suite = suite_create("back");
    TCase *tc = tcase_create("back");
    SRunner *sr;
    int failed;

    tcase_add_checked_fixture(tc, env_open, env_close);
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        tcase_add_test(tc, tests[i]);
    }
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_NORMAL);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed > 0;
}
