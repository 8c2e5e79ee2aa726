/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions in script syntax (XEP-0252): what their clients send is one text, cut anywhere. */
#include "session_env.h"

#define M(x) "<message xmlns='jabber:client'><body>" x "</body></message>"

/* A GET whose text is this; `whole` false: the tags come from here. */
static int get_text(const char *text)
{
    static bosh_piece_t pieces[2];
    static char kept[1 << 20];
    bosh_client_t who = {.ip = "192.0.2.1"};
    bosh_req_t r;
    const char *why = NULL;

    snprintf(kept, sizeof(kept), "%s", text);
    ck_assert_msg(bosh_script_parse(E->body, kept, strlen(kept), pieces, &r, &why) == APR_SUCCESS,
                  "%s: %s", text, why);
    return arrive(&who, &r);
}

static int get(const char *attrs, const char *content)
{
    static char text[1 << 20];

    snprintf(text, sizeof(text), "<body xmlns='" BOSH_NS_HTTPBIND "' %s>%s</body>", attrs, content);
    return get_text(text);
}

static int get_req(uint64_t rid, const char *attrs, const char *content)
{
    char buf[256];

    snprintf(buf, sizeof(buf), "sid='%s' rid='%llu' %s", E->sid, (unsigned long long)rid, attrs);
    return get(buf, content);
}

static int open_script(const char *content)
{
    int c = get("rid='1000' to='example.com' wait='10' hold='1' ver='1.6'", content);

    if (session() != NULL) {
        server_header("id='st1' from='example.com' version='1.0' xml:lang='en'");
        server("<stream:features><mechanisms "
               "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/></stream:features>");
    }
    return c;
}

START_TEST(test_S_002_a_session_stays_in_its_syntax)
{
    int held_one;

    open_script("");
    held_one = get_req(1001, "", "");
    ck_assert(held(held_one));
    ck_assert(is_terminate(req(1002, "", ""), "bad-request"));
    ck_assert(is_terminate(held_one, "other-request"));
    ck_assert(is_terminate(req(1003, "", ""), "bad-request")); /* after the end as before it */
    ck_assert(is_terminate(get_req(1003, "", ""), "item-not-found"));
}
END_TEST

START_TEST(test_S_002_neither_may_others_change)
{
    open_session("");
    ck_assert(is_terminate(get_req(1001, "", M("x")), "bad-request"));
    ck_assert_str_eq(sent(), "[C]");
}
END_TEST

START_TEST(test_S_006_a_stanza_in_two_requests)
{
    open_script("");
    get_req(1001, "", "<message to='x' xmlns='jabber:client'><bo");
    ck_assert_str_eq(sent(), "");
    get_req(1002, "", "dy>hi</body></message>");
    ck_assert_str_eq(sent(), "<message to='x' xmlns='jabber:client'><body>hi</body></message>");
    get_req(1003, "", M("next"));
    ck_assert_str_eq(sent(), M("next"));
}
END_TEST

/* Every place to cut three stanzas into two, and into three requests. */
START_TEST(test_S_006_cut_anywhere)
{
    static const char text[] =
        "<message xmlns='jabber:client'><body>&lt;\xC3\xA9  </body></message>"
        "<a xmlns='urn:x'/><b xmlns='urn:x'>]]</b>";
    uint64_t rid = 1000;
    size_t n = strlen(text);
    char part[3][256];

    E->lim.queue_size = 1 << 16;
    open_script("");
    for (size_t i = 0; i <= n; i++) {
        size_t j = i + (i * 7) % (n - i + 1);
        snprintf(part[0], sizeof(part[0]), "%.*s", (int)i, text);
        snprintf(part[1], sizeof(part[1]), "%.*s", (int)(j - i), text + i);
        snprintf(part[2], sizeof(part[2]), "%s", text + j);
        for (int k = 0; k < 3; k++) {
            get_req(++rid, "", part[k]);
        }
        ck_assert_str_eq(sent(), text);
        ck_assert_uint_eq(session()->part.len, 0);
    }
}
END_TEST

START_TEST(test_S_006_in_rid_order)
{
    int late, last;

    open_script("");
    late = get_req(1002, "", "dy>hi</body></message><presence");
    ck_assert(held(late));
    ck_assert_str_eq(sent(), "");
    get_req(1001, "", "<message xmlns='jabber:client'><bo");
    ck_assert_str_eq(sent(), M("hi"));
    last = get_req(1003, "", " xmlns='jabber:client'/>");
    ck_assert_str_eq(sent(), "<presence xmlns='jabber:client'/>");
    ck_assert(held(last) && is_empty(late)); /* hold is 1 */
}
END_TEST

START_TEST(test_S_006_a_gap_that_an_empty_request_fills)
{
    open_script("");
    get_req(1002, "", M("behind"));
    ck_assert_str_eq(sent(), "");
    get_req(1001, "", "");
    ck_assert_str_eq(sent(), M("behind"));
}
END_TEST

START_TEST(test_S_006_white_space_within_a_stanza)
{
    open_script("");
    get_req(1001, "", "\n<message xmlns='jabber:client'><body>a");
    get_req(1002, "", "  ");
    get_req(1003, "", "b</body></message> \n ");
    ck_assert_str_eq(sent(), M("a  b"));
    get_req(1004, "", " ");
    ck_assert_uint_eq(session()->part.len, 0); /* between stanzas it means nothing */
}
END_TEST

START_TEST(test_S_006_text_of_the_creation)
{
    open_script("<message xmlns='jabber:client'><bo");
    ck_assert_str_eq(sent(), "");
    get_req(1001, "", "dy>hi</body></message>");
    ck_assert_str_eq(sent(), M("hi"));
}
END_TEST

START_TEST(test_S_006_repeats_are_not_joined_again)
{
    int first, again;

    open_script("");
    get_req(1001, "", "<message xmlns='jabber:client'><bo");
    first = get_req(1002, "", "dy>hi</body></message>");
    ck_assert_str_eq(sent(), M("hi"));
    again = get_req(1002, "", "dy>hi</body></message>"); /* unanswered */
    ck_assert(is_error(first) && held(again));
    again = get_req(1001, "", "<message xmlns='jabber:client'><bo"); /* answered */
    ck_assert(is_empty(again));
    ck_assert_str_eq(sent(), "");
    ck_assert_uint_eq(session()->part.len, 0);
}
END_TEST

START_TEST(test_S_006_a_restart_between)
{
    open_script("");
    get_req(1001, "", M("before"));
    get_req(1002, "xmlns:xmpp='urn:xmpp:xbosh' xmpp:restart='true'", M("ignored")); /* X-043 */
    ck_assert_ptr_nonnull(strstr(sent(), M("before") "[H]"));
    get_req(1003, "", M("after"));
    ck_assert_str_eq(sent(), M("after"));
}
END_TEST

START_TEST(test_S_006_the_end_of_a_session)
{
    int c;

    open_script("");
    get_req(1001, "", "<message xmlns='jabber:client'><bo");
    c = get_req(1002, "type='terminate'", "dy>bye</body></message><mess");
    ck_assert(is_empty(c));
    ck_assert_str_eq(sent(), M("bye") "[C]");
    ck_assert_uint_eq(session()->part.len, 0);
}
END_TEST

/* Memory for the text runs out: nothing is lost, nothing is half done, and it is tried again. */
START_TEST(test_S_006_no_memory)
{
    bosh_bytes_t all = {.len = 0};
    char byte = 'x';
    int c;

    E->unlisted = true;
    open_script("");
    get_req(1001, "", "<message xmlns='jabber:client'><body>");
    server(M("for 1001"));
    c = get_req(1003, "", "hi</body></message>"); /* stored, its turn has not come */
    while (bosh_bytes_append(&E->a, &all, &byte, 1, BOSH_PRIO_INPUT) == APR_SUCCESS) {
    }
    get_req(1002, "", "");
    ck_assert_msg(held(c), "%s", answer(c));
    ck_assert_uint_eq(session()->processed, 1002);
    ck_assert_uint_eq(session()->part.len, strlen("<message xmlns='jabber:client'><body>"));
    bosh_bytes_clear(&E->a, &all);
    E->unlisted = false;
    pass(SEC);
    ck_assert_str_eq(sent(), M("hi"));
    ck_assert_uint_eq(session()->part.len, 0);
}
END_TEST

/* Behind a request that waits for room towards the server, too: the loop, which makes it, joins nothing. */
START_TEST(test_S_006_no_room_towards_the_server)
{
    E->lim.queue_size = 120;
    open_script("");
    get_req(1001, "", M("first, which fills the queue"));
    get_req(1002, "", M("second, which has no room in it"));
    server(M("for 1001"));
    get_req(1003, "", M("third"));
    ck_assert_uint_eq(session()->processed, 1001);
    ck_assert_str_eq(sent(), M("first, which fills the queue") M("second, which has no room in it")
                                 M("third"));
}
END_TEST

/* The worker that should join dies: the text is still there for the next one that looks. */
START_TEST(test_S_006_a_worker_that_dies)
{
    static bosh_piece_t pieces[2];
    char text[512];
    bosh_client_t who = {.ip = "192.0.2.1"};
    bosh_holder_t dead = {.peer = E->peer, .waiter = CONNS, .gen = 1};
    bosh_verdict_t v;
    bosh_req_t r;
    int c;

    open_script("");
    snprintf(text, sizeof(text), NSB " sid='%s' rid='1001'>" M("hi") "</body>", E->sid);
    ck_assert_int_eq(bosh_script_parse(E->body, text, strlen(text), pieces, &r, NULL), APR_SUCCESS);
    SECTION(&v, bosh_session_request(&E->a, E->now, &r, &E->lim, &who, dead, &v));
    ck_assert(v.join && v.act == BOSH_DO_HOLD);
    SECTION(NO_VERDICT, bosh_session_gone(&E->a, E->now, v.session, v.serial, v.rid, dead));
    ck_assert_str_eq(sent(), "");
    c = get_req(1001, "", M("hi"));
    ck_assert(held(c));
    ck_assert_str_eq(sent(), M("hi"));
}
END_TEST

/* Two workers read the same text: one of them joins it. */
START_TEST(test_S_006_the_first_to_come_back_counts)
{
    static char text[1 << 16];
    static bosh_piece_t pieces[2];
    bosh_client_t who = {.ip = "192.0.2.1"};
    bosh_holder_t other = {.peer = E->peer, .waiter = CONNS, .gen = 1};
    bosh_verdict_t v;
    bosh_join_t j;
    bosh_req_t r;
    size_t used;
    char get_it[512];

    open_script("");
    snprintf(get_it, sizeof(get_it), NSB " sid='%s' rid='1001'>" M("hi") "<a</body>", E->sid);
    ck_assert_int_eq(bosh_script_parse(E->body, get_it, strlen(get_it), pieces, &r, NULL),
                     APR_SUCCESS);
    SECTION(&v, bosh_session_request(&E->a, E->now, &r, &E->lim, &who, other, &v));
    ck_assert(bosh_join_next(&E->a, &v, &j));
    ck_assert_int_eq(read_joined(&j, text, &r, &used), APR_SUCCESS);
    for (int i = 0; i < 2; i++) {
        SECTION(NO_VERDICT,
                ck_assert_int_eq(bosh_join_done(&E->a, E->now, &E->lim, &j, &r, text, used),
                                 APR_SUCCESS));
    }
    SECTION(NO_VERDICT, bosh_join_fail(&E->a, E->now, &j, BOSH_COND_BAD_REQUEST));
    ck_assert(!bosh_join_next(&E->a, &v, &j));
    ck_assert_str_eq(sent(), M("hi"));
    ck_assert_uint_eq(session()->part.len, 2);
    ck_assert_uint_eq(session()->state, BOSH_ST_LIVE);
}
END_TEST

/* S-007: each is an error only when the texts are put together. */
static const struct {
    const char *first, *second;
} forbidden[] = {
    {"<message xmlns='jabber:client'><!-", "- x --></message>"},
    {"<!", "-- x -->"},
    {"<", "?x y?>"},
    {"<", "!DOCTYPE a>"},
    {"<a xmlns='urn:x'><b", "></a>"},
    {"<a xmlns='urn:x'/", "x>"},
    {"<a xmlns='urn:x'>&n", "bsp;</a>"},
    {"<a xmlns='urn:x'>&#", "0;</a>"},
    {"<a xmlns='urn:x'>\xC3", "(</a>"},
    {"<", "/body>"},
    {"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tl", "s'/>"},
    {"<stream:error xmlns:stream='http://etherx.jabber.org/stream", "s'/>"},
    {"<![CDATA", "[x]]>"},
};

START_TEST(test_S_007_rules_hold_for_the_whole_text)
{
    int first, second;

    open_script("");
    first = get_req(1001, "", forbidden[_i].first);
    ck_assert(held(first));
    second = get_req(1002, "", forbidden[_i].second);
    ck_assert_msg(is_terminate(second, "bad-request"), "%s", answer(second));
    ck_assert(answer(first) != NULL);
    ck_assert_str_eq(sent(), "[C]");
}
END_TEST

START_TEST(test_S_007_alone)
{
    static const char *const bad[] = {"text",       "<a xmlns='urn:x'></b>",
                                      "</body>",    "</body><body>",
                                      "<!-- x -->", "<x:a/>",
                                      "&amp;",      "]]>"};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        open_script("");
        ck_assert_msg(is_terminate(get_req(1001, "", bad[i]), "bad-request"), "%s", bad[i]);
        ck_assert_str_eq(sent(), "[C]");
    }
}
END_TEST

/* B-367: before the login a text that has only begun counts as what waits. */
START_TEST(test_S_006_B_367_text_before_the_login)
{
    char some[600];

    memset(some, 'x', sizeof(some) - 1);
    some[sizeof(some) - 1] = '\0';
    E->lim.login_size = 1500;
    open_script("");
    get_req(1001, "", "<message xmlns='jabber:client'><body>");
    get_req(1002, "", some);
    get_req(1003, "", some);
    ck_assert(is_terminate(get_req(1004, "", some), "policy-violation"));
}
END_TEST

START_TEST(test_S_006_namespaces_of_the_wrapper)
{
    open_script("");
    get_req(1001, "xmlns:f='urn:f'", "<message><f:x");
    get_req(1002, "xmlns:f='urn:f'", "/></message>");
    ck_assert_str_eq(sent(), "<message xmlns:f='urn:f'><f:x/></message>"); /* X-005, X-008 */
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_S_002_a_session_stays_in_its_syntax,
        test_S_002_neither_may_others_change,
        test_S_006_a_stanza_in_two_requests,
        test_S_006_cut_anywhere,
        test_S_006_in_rid_order,
        test_S_006_a_gap_that_an_empty_request_fills,
        test_S_006_white_space_within_a_stanza,
        test_S_006_text_of_the_creation,
        test_S_006_repeats_are_not_joined_again,
        test_S_006_a_restart_between,
        test_S_006_the_end_of_a_session,
        test_S_006_no_memory,
        test_S_006_no_room_towards_the_server,
        test_S_006_a_worker_that_dies,
        test_S_006_the_first_to_come_back_counts,
        test_S_007_alone,
        test_S_006_B_367_text_before_the_login,
        test_S_006_namespaces_of_the_wrapper,
    };
    Suite *suite = suite_create("join");
    TCase *tc = tcase_create("join");
    SRunner *sr;
    int failed;

    tcase_add_checked_fixture(tc, env_open, env_close);
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        tcase_add_test(tc, tests[i]);
    }
    tcase_add_loop_test(tc, test_S_007_rules_hold_for_the_whole_text, 0,
                        (int)(sizeof(forbidden) / sizeof(forbidden[0])));
    tcase_set_timeout(tc, 60); /* each section of the lock runs twice: session_env.h */
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_NORMAL);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed > 0;
}
