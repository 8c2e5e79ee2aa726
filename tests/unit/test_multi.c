/* SPDX-License-Identifier: Apache-2.0 */
/* Several streams in one session: XEP-0124 section 16. */
#include "session_env.h"

#include "bosh_back.h"
#include "bosh_multi.h"

#define MSG(id)  "<message xmlns='jabber:client' id='" id "'/>"
#define FROM(id) "<message xmlns='jabber:client' from='a@b' id='" id "'/>"

/* A stream under test: what session_env.h keeps of the one it works on. */
typedef struct stream_t {
    bosh_ix index;
    uint32_t serial;
    bosh_splitter_t *sp;
    uint64_t raw_base;
    char name[BOSH_SID_LEN + 1];
} stream_t;

static stream_t streams[BOSH_MAX_STREAMS + 2];
static int at, nstreams;

/* From here on server(), sent() and link_over() are about stream n. */
static void use(int n)
{
    streams[at].raw_base = E->raw_base;
    at = n;
    E->index = streams[n].index;
    E->serial = streams[n].serial;
    E->sp = streams[n].sp;
    E->raw_base = streams[n].raw_base;
}

static void setup(void)
{
    env_open();
    E->lim.max_streams = 3;
    bosh_split_destroy(E->sp);
    for (size_t i = 0; i < sizeof(streams) / sizeof(streams[0]); i++) {
        memset(&streams[i], 0, sizeof(streams[i]));
        streams[i].sp = bosh_split_create(1 << 20);
    }
    at = nstreams = 0;
    E->sp = streams[0].sp;
}

static void teardown(void)
{
    use(0);
    for (size_t i = 1; i < sizeof(streams) / sizeof(streams[0]); i++) {
        bosh_split_destroy(streams[i].sp);
    }
    env_close();
}

/* A request as the httpd layer prepares it. */
static int post_opening(const char *attrs, const char *to, bosh_cond_t cond)
{
    static char text[2048];
    const bosh_client_t who = {.ip = "192.0.2.1"};
    bosh_opening_t how = {.to = to, .cond = cond, .owner = E->owner, .upstream = 7};
    bosh_req_t req;
    int i, n = snprintf(text, sizeof(text),
                        "<body xmlns='" BOSH_NS_HTTPBIND "' xmlns:xmpp='" BOSH_NS_XBOSH "' %s/>",
                        attrs);

    ck_assert_int_eq(bosh_body_parse(E->body, text, (size_t)n, &req, NULL), APR_SUCCESS);
    for (size_t k = 0; k < sizeof(how.name); k++) {
        how.name[k] = (uint8_t)rand();
    }
    req.opening = &how;
    i = arrive(&who, &req);
    bosh_arena_print_sid(how.name, streams[nstreams].name);
    return i;
}

static void note_stream(bosh_session_t *s)
{
    streams[nstreams].index = bosh_arena_index(&E->a, s);
    streams[nstreams++].serial = s->serial;
}

static void features(const char *from, const char *lang)
{
    char attrs[256];

    snprintf(attrs, sizeof(attrs), "id='st-%s' from='%s' version='1.0' xml:lang='%s'", from, from,
             lang);
    E->lazy = true; /* they come at once */
    server_header(attrs);
    E->lazy = false;
    server("<stream:features><mechanisms "
           "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/></stream:features>");
}

/* Stream 0, C = 1000; returns the connection of the creation. */
static int open_first(const char *attrs)
{
    char buf[512];
    int c;

    snprintf(buf, sizeof(buf),
             "rid='1000' to='example.com' wait='10' hold='1' ver='1.6' xml:lang='en' "
             "xmpp:version='1.0' %s",
             attrs);
    c = post_opening(buf, NULL, BOSH_COND_NONE);
    note_stream(session());
    use(0);
    features("example.com", "en");
    return c;
}

static int add_with(uint64_t rid, const char *to, const char *attrs, bosh_cond_t cond)
{
    char buf[512];
    bosh_session_t *b;
    int c;

    snprintf(buf, sizeof(buf), "sid='%s' rid='%llu' to='%s' %s", E->sid, (unsigned long long)rid,
             to, attrs);
    c = post_opening(buf, to, cond);
    {
        uint8_t name[BOSH_SID_BYTES];
        ck_assert(bosh_arena_read_sid(streams[nstreams].name, name));
        b = bosh_arena_find_branch(&E->a, name);
    }
    if (b != NULL) {
        note_stream(b);
    }
    return c;
}

static int add(uint64_t rid, const char *to)
{
    return add_with(rid, to, "", BOSH_COND_NONE);
}

/* A further stream, up to its features, which its own request has got. Uses one rid and leaves stream n in use. */
static int add_open(uint64_t rid, const char *to)
{
    int c = add(rid, to);

    ck_assert(held(c));
    use(nstreams - 1);
    features(to, "de");
    ck_assert(!held(c));
    return c;
}

/* Two streams, rids up to 1001 used. */
static void open_two(void)
{
    open_first("");
    add_open(1001, "b.example");
}

static bool names(int conn, int n)
{
    char want[64];

    snprintf(want, sizeof(want), " stream='%s'", streams[n].name);
    return contains(conn, want);
}

static bool names_none(int conn)
{
    return answer(conn) != NULL && !contains(conn, " stream='");
}

static int to_stream(uint64_t rid, int n, const char *attrs, const char *payload)
{
    char buf[256];

    snprintf(buf, sizeof(buf), "stream='%s' %s", streams[n].name, attrs);
    return req(rid, buf, payload);
}

static uint32_t records(void)
{
    return E->a.h->nsessions;
}

/* ---- discovery and adding ---- */

START_TEST(test_B_326_the_name_of_the_first)
{
    int c = open_first("");

    ck_assert(names(c, 0));
    ck_assert(strcmp(streams[0].name, E->sid) != 0);
    ck_assert(names_none(req(1001, "", "")) || held(E->nconns - 1));
    server(FROM("1"));
    ck_assert(names_none(E->nconns - 1)); /* there is no other one */
}
END_TEST

START_TEST(test_B_327_switched_off)
{
    int c;

    E->lim.max_streams = 1;
    c = open_first("");
    ck_assert(names_none(c));
    c = add(1001, "b.example");
    ck_assert(held(c));
    ck_assert_int_eq(records(), 1);
    server(FROM("1"));
    ck_assert(contains(c, "id='1'") && names_none(c));
}
END_TEST

START_TEST(test_B_328_B_330_B_331_X_037_a_second_stream)
{
    static const char *const never[] = {
        " sid=",      " requests=", " polling=", " hold=", " inactivity=",
        " maxpause=", " accept=",   " ver=",     " wait=", " charsets="};
    bosh_session_t *b;
    int c;

    open_first("");
    c = add_with(1001, "b.example", "xml:lang='fr' xmpp:version='1.0' from='u@b.example'",
                 BOSH_COND_NONE);
    ck_assert_int_eq(records(), 2);
    use(1);
    b = session();
    ck_assert_int_eq(b->link.phase, BOSH_LINK_CONNECT);
    ck_assert_int_eq(b->link.upstream, 7);
    features("b.example", "de");
    ck_assert(names(c, 1));
    ck_assert(contains(c, " from='b.example'") && contains(c, " authid='st-b.example'") &&
              contains(c, " xmpp:version='1.0'")); /* */
    for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++) {
        ck_assert_msg(!contains(c, never[i]), "%s: %s", never[i], answer(c));
    }
}
END_TEST

START_TEST(test_B_331_from_may_come_later)
{
    int c, d;

    open_first("");
    c = add(1001, "b.example");
    d = req(1002, "",
            ""); /* more than may be held: the older one is answered, and names the stream */
    ck_assert(names(c, 1) && !contains(c, " from="));
    use(1);
    server_header("id='x' from='b.example' version='1.0'");
    ck_assert(names(d, 1) && contains(d, " from='b.example'") &&
              contains(d, " xmpp:version='1.0'"));
}
END_TEST

START_TEST(test_B_329_B_347_a_restart_adds_nothing)
{
    open_first("");
    use(0);
    sent();
    add_with(1001, "example.com", "xmpp:restart='true'", BOSH_COND_NONE);
    ck_assert_int_eq(records(), 1);
    ck_assert(strncmp(sent(), "[H]", 3) == 0);
}
END_TEST

START_TEST(test_B_332_its_own_header)
{
    char buf[BOSH_STREAM_HEADER_MAX];

    open_first("");
    add_with(1001, "b.example", "xml:lang='fr'", BOSH_COND_NONE);
    use(1);
    buf[bosh_session_print_header(session(), buf)] = '\0';
    ck_assert(strstr(buf, " to='b.example'") != NULL && strstr(buf, " xml:lang='fr'") != NULL &&
              strstr(buf, " version='1.0'") != NULL);
    use(0);
    buf[bosh_session_print_header(session(), buf)] = '\0';
    ck_assert(strstr(buf, " to='example.com'") != NULL && strstr(buf, " xml:lang='en'") != NULL);
}
END_TEST

START_TEST(test_B_345_no_more_than_allowed)
{
    int c;

    open_two();
    add_open(1002, "c.example");
    ck_assert_int_eq(nstreams, 3);
    use(0);
    c = add(1003, "d.example");
    ck_assert(is_terminate(c, "policy-violation"));
    ck_assert_int_eq(session()->state, BOSH_ST_TOMB);
}
END_TEST

START_TEST(test_an_unknown_domain_ends_that_stream_only)
{
    int c;

    open_first("");
    c = add_with(1001, "nowhere.example", "", BOSH_COND_HOST_UNKNOWN);
    ck_assert(is_terminate(c, "host-unknown") && names(c, 1));
    use(0);
    ck_assert_int_eq(session()->state, BOSH_ST_LIVE);
    c = req(1002, "", MSG("1"));
    ck_assert_str_eq(sent(), MSG("1"));
    ck_assert(held(c));
}
END_TEST

START_TEST(test_added_in_rid_order)
{
    int c, d;

    open_first("");
    c = add(1002, "b.example");
    ck_assert_int_eq(records(), 2);
    use(1);
    ck_assert_int_eq(session()->link.phase, BOSH_LINK_NONE);
    d = req(1001, "", MSG("early"));
    ck_assert_int_eq(session()->link.phase, BOSH_LINK_CONNECT);
    ck_assert(is_empty(d) && held(c));
    ck_assert_str_eq(sent(), ""); /* it was not open when that came */
    use(0);
    ck_assert_str_eq(sent(), MSG("early"));
}
END_TEST

START_TEST(test_a_session_that_ends_before_it_begins)
{
    open_first("");
    add(1002, "b.example");
    use(0);
    req(1009, "", "");
    ck_assert_int_eq(session()->state, BOSH_ST_TOMB);
    ck_assert_int_eq(records(), 1);
}
END_TEST

/* ---- payloads ---- */

START_TEST(test_B_333_each_answer_has_one_stream)
{
    int c;

    open_two();
    E->lazy = true;
    c = req(1002, "", "");
    use(0);
    server(FROM("a1"));
    server(FROM("a2"));
    use(1);
    server(FROM("b1"));
    E->lazy = false;
    settle();
    ck_assert(contains(c, "id='a1'") && contains(c, "id='a2'") && !contains(c, "id='b1'"));
    ck_assert(names(c, 0) && contains(c, " xml:lang='en'"));
    c = req(1003, "", "");
    ck_assert(contains(c, "id='b1'") && names(c, 1) && contains(c, " xml:lang='de'"));
}
END_TEST

START_TEST(test_B_334_empty_ones_have_none)
{
    int c;

    open_two();
    c = req(1002, "stream='no such'", "");
    ck_assert(held(c));
    ck_assert(held(to_stream(1003, 1, "", "")));
    ck_assert(is_empty(c) && names_none(c));
}
END_TEST

START_TEST(test_B_335_without_a_name_to_all)
{
    open_two();
    add_open(1002, "c.example");
    req(1003, "", MSG("1") MSG("2"));
    for (int i = 0; i < 3; i++) {
        use(i);
        ck_assert_str_eq(sent(), MSG("1") MSG("2"));
    }
}
END_TEST

START_TEST(test_B_335_there_must_be_room_at_all)
{
    int c;

    E->lim.queue_size = 100;
    open_two();
    to_stream(1002, 1, "", MSG("first"));
    E->lim.queue_size = 60;
    c = req(1003, "", MSG("second"));
    ck_assert(held(c));
    use(0);
    ck_assert_str_eq(sent(), ""); /* not to one of them and later to it again */
    use(1);
    ck_assert_str_eq(sent(), MSG("first") MSG("second"));
    use(0);
    ck_assert_str_eq(sent(), MSG("second"));
}
END_TEST

START_TEST(test_B_125_full_both_ways)
{
    int c;

    E->lim.queue_size = 100;
    open_two();
    use(1);
    while (bosh_session_may_read(&E->a, session(), &E->lim)) {
        server(FROM("up"));
    }
    to_stream(1002, 1, "", MSG("first")); /* takes what is up */
    while (bosh_session_may_read(&E->a, session(), &E->lim)) {
        server(FROM("up"));
    }
    c = to_stream(1003, 1, "", MSG("second of many"));
    ck_assert_msg(contains(c, "id='up'"), "neither side can go on");
    ck_assert_str_eq(sent(), MSG("first") MSG("second of many"));
}
END_TEST

START_TEST(test_B_336_B_339_to_the_one_that_is_named)
{
    int c;

    open_two();
    c = to_stream(1002, 1, "", MSG("for b"));
    use(0);
    ck_assert_str_eq(sent(), "");
    server(FROM("from a"));
    ck_assert(contains(c, "from a") && names(c, 0));
    to_stream(1003, 0, "", MSG("for a"));
    ck_assert_str_eq(sent(), MSG("for a"));
    use(1);
    ck_assert_str_eq(sent(), MSG("for b"));
}
END_TEST

START_TEST(test_B_337_an_unknown_name)
{
    char attrs[64];

    open_two();
    ck_assert(is_terminate(req(1002, "stream='nobody'", MSG("1")), "item-not-found"));
    /* the sid is no name, */
    teardown();
    setup();
    open_two();
    snprintf(attrs, sizeof(attrs), "stream='%s'", E->sid);
    ck_assert(is_terminate(req(1002, attrs, MSG("1")), "item-not-found"));
    /* nor is a name a sid, */
    teardown();
    setup();
    open_two();
    snprintf(attrs, sizeof(attrs), "sid='%s' rid='1002'", streams[1].name);
    ck_assert(is_terminate(post(attrs, ""), "item-not-found"));
    /* nor another session's */
    open_first("");
    ck_assert(is_terminate(to_stream(1001, 1, "", MSG("1")), "item-not-found"));
}
END_TEST

START_TEST(test_B_338_closed_just_now)
{
    int c;

    open_two();
    use(1);
    link_over(BOSH_COND_REMOTE_CONNECTION_FAILED);
    c = req(1002, "", "");
    ck_assert(is_terminate(c, "remote-connection-failed") && names(c, 1));
    ck_assert(held(to_stream(1003, 1, "", MSG("late"))));
    use(0);
    ck_assert_str_eq(sent(), "");
    ck_assert_int_eq(session()->state, BOSH_ST_LIVE);
    use(1);
    pass((BOSH_TOMB_SECONDS + 1) * SEC);
    ck_assert_ptr_null(session());
    use(0);
    ck_assert(is_terminate(to_stream(1004, 1, "", MSG("too late")), "item-not-found"));
}
END_TEST

START_TEST(test_B_340_in_turn)
{
    int c;

    E->lim.answer_size = 200;
    open_two();
    E->lazy = true;
    use(0);
    for (int i = 0; i < 50; i++) {
        server(FROM("flood"));
    }
    use(1);
    server(FROM("one"));
    E->lazy = false;
    c = req(1002, "", "");
    ck_assert(names(c, 0));
    c = req(1003, "", "");
    ck_assert(names(c, 1) && contains(c, "id='one'"));
    c = req(1004, "", "");
    ck_assert(names(c, 0));
}
END_TEST

START_TEST(test_B_346_one_rid_for_all)
{
    int c;

    open_two();
    c = to_stream(1003, 1, "", MSG("2"));
    ck_assert(held(c));
    use(1);
    ck_assert_str_eq(sent(), "");
    to_stream(1002, 0, "", MSG("1"));
    ck_assert_str_eq(sent(), MSG("2"));
    /* what was answered is answered again, whichever stream it was about */
    server(FROM("kept"));
    ck_assert(contains(c, "kept") && names(c, 1));
    c = req(1003, "", "");
    ck_assert(contains(c, "kept") && names(c, 1));
}
END_TEST

START_TEST(test_B_347_R_10_restarts)
{
    open_two();
    to_stream(1002, 1, "xmpp:restart='true' xml:lang='it'", "");
    use(0);
    ck_assert_str_eq(sent(), "");
    use(1);
    {
        const char *out = sent();
        ck_assert(strncmp(out, "[H]", 3) == 0 && strstr(out, "to='b.example'") != NULL &&
                  strstr(out, "xml:lang='it'") != NULL);
    }
    req(1003, "xmpp:restart='true'", "");
    use(0);
    {
        const char *out = sent();
        ck_assert(strncmp(out, "[H]", 3) == 0 && strstr(out, "to='example.com'") != NULL);
    }
    use(1);
    {
        const char *out = sent();
        ck_assert(strncmp(out, "[H]", 3) == 0 && strstr(out, "to='b.example'") != NULL);
    }
    use(0);
    ck_assert(is_terminate(req(1004, "stream='x' xmpp:restart='true'", ""), "item-not-found"));
}
END_TEST

#define SUCCESS "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"

/* rows: B-293 */
START_TEST(test_what_was_lost_does_not_go_to_a_stream_that_came_later)
{
    bosh_ix before;
    int c;

    E->lim.returns = true;
    open_first("ack='1'");
    add_open(1001, "b.example");
    before = streams[1].index;
    c = req(1002, "ack='1001'", "");
    server(FROM("lost"));
    ck_assert(contains(c, "lost"));
    use(0);
    SECTION(NO_VERDICT, bosh_session_unsent(&E->a, streams[0].index, streams[0].serial, 1002));
    ck_assert(is_terminate(to_stream(1003, 1, "type='terminate' ack='1001'", ""), ""));
    use(1);
    sent();
    link_over(BOSH_COND_NONE);
    use(0);
    pass(16 * SEC); /* its record is free */
    nstreams = 1;
    add_with(1004, "c.example", "ack='1001'", BOSH_COND_NONE);
    ck_assert_uint_eq(streams[1].index, before); /* and is another's now */
    use(1);
    streams[1].raw_base = E->raw_base = 0;
    features("c.example", "fr");
    pass(40 * SEC);
    ck_assert(session() == NULL || !(session()->flags & BOSH_SESS_BACK));
}
END_TEST

/* rows: B-345 */
START_TEST(test_one_that_is_closed_makes_room_at_once)
{
    uint64_t rid = 1001;

    E->lim.max_streams = 2;
    open_first("");
    for (int i = 0; i < 30; i++) {
        int c = add(rid++, "b.example"); /* all within the time that records are kept */
        use(1);
        features("b.example", "de");
        ck_assert_msg(names(c, 1) && !is_terminate(c, "policy-violation"), "%d: %s", i, answer(c));
        ck_assert(is_terminate(to_stream(rid++, 1, "type='terminate'", ""), ""));
        sent();
        link_over(BOSH_COND_NONE);
        use(0);
        nstreams = 1;
        streams[1].raw_base = 0;
    }
    ck_assert_uint_le(records(), BOSH_MAX_STREAMS + 1);
}
END_TEST

/* rows: B-367 */
START_TEST(test_each_stream_has_its_time_to_log_in)
{
    bool told = false;

    E->lim.login_time = 20;
    open_first("");
    server(SUCCESS);
    ck_assert(contains(req(1001, "", ""), "success"));
    pass(15 * SEC);
    add_open(1002, "b.example");
    use(0);
    for (uint64_t rid = 1003; rid < 1010 && !told; rid++) {
        int c = req(rid, "", "");
        pass(6 * SEC);
        told = !held(c) && is_terminate(c, "policy-violation") && names(c, 1);
        ck_assert(told || held(c) || is_empty(c));
    }
    ck_assert(told);
    ck_assert_int_eq(session()->state, BOSH_ST_LIVE);
    ck_assert_int_eq(bosh_multi_state(session()), BOSH_ST_LIVE);
}
END_TEST

/* rows: B-367 */
START_TEST(test_a_stream_that_is_over_need_not_log_in)
{
    int c;

    E->lim.login_time = 20;
    open_two();
    server(SUCCESS);
    ck_assert(contains(req(1002, "", ""), "success"));
    use(0);
    ck_assert(is_terminate(to_stream(1003, 0, "type='terminate'", ""), ""));
    for (uint64_t rid = 1004; rid < 1010; rid++) {
        c = req(rid, "", "");
        pass(6 * SEC);
        ck_assert(held(c) || is_empty(c));
    }
    ck_assert_int_eq(session()->state, BOSH_ST_LIVE);
    use(1);
    ck_assert_int_eq(bosh_multi_state(session()), BOSH_ST_LIVE);
}
END_TEST

/* rows: B-367 */
START_TEST(test_payload_before_the_login_of_that_stream)
{
    char big[3000];
    int c;

    snprintf(big, sizeof(big), "<message xmlns='jabber:client'><body>%02500d</body></message>", 1);
    E->lim.login_size = 2000;
    open_two();
    server(SUCCESS);
    ck_assert(contains(req(1002, "", ""), "success"));
    c = to_stream(1003, 1, "", big);
    ck_assert(held(c));
    ck_assert_str_eq(sent(), big);
    c = to_stream(1004, 0, "", big); /* a stranger there */
    ck_assert(is_terminate(c, "policy-violation"));
}
END_TEST

/* ---- ends ---- */

START_TEST(test_B_341_one_stream_is_closed)
{
    int c;

    open_two();
    use(1);
    server(FROM("last words"));
    c = to_stream(1002, 1, "type='terminate'", MSG("bye"));
    ck_assert(is_terminate(c, "") && names(c, 1) && contains(c, "last words"));
    ck_assert_str_eq(sent(), MSG("bye") "[C]");
    link_over(BOSH_COND_NONE);
    use(0);
    ck_assert_str_eq(sent(), "");
    ck_assert_int_eq(session()->state, BOSH_ST_LIVE);
    c = req(1003, "", MSG("on"));
    ck_assert(held(c));
    ck_assert_str_eq(sent(), MSG("on"));
    server(FROM("fine"));
    ck_assert(contains(c, "fine") && names(c, 0)); /* still, for more than one was opened */
}
END_TEST

START_TEST(test_B_341_the_first_stream_is_closed)
{
    int c;

    open_two();
    c = to_stream(1002, 0, "type='terminate'", "");
    ck_assert(is_terminate(c, "") && names(c, 0));
    use(0);
    ck_assert_str_eq(sent(), "[C]");
    link_over(BOSH_COND_NONE);
    pass(5 * SEC);
    ck_assert_int_eq(session()->state, BOSH_ST_LIVE);
    c = req(1003, "", MSG("on"));
    ck_assert_str_eq(sent(), "");
    use(1);
    ck_assert_str_eq(sent(), MSG("on"));
    server(FROM("fine"));
    ck_assert(contains(c, "fine") && names(c, 1));
    /* and the last one */
    c = to_stream(1004, 1, "type='terminate'", MSG("bye"));
    ck_assert(is_terminate(c, ""));
    ck_assert_str_eq(sent(), MSG("bye") "[C]");
    use(0);
    ck_assert_int_eq(session()->state, BOSH_ST_TOMB);
}
END_TEST

START_TEST(test_B_342_all_are_closed)
{
    int c;

    open_two();
    c = req(1002, "type='terminate'", MSG("bye"));
    ck_assert(is_terminate(c, "") && names_none(c));
    for (int i = 1; i >= 0; i--) {
        use(i);
        ck_assert_str_eq(sent(), MSG("bye") "[C]");
        link_over(BOSH_COND_NONE);
    }
    pass((BOSH_TOMB_SECONDS + 2) * SEC);
    ck_assert_int_eq(records(), 0);
    ck_assert_uint_eq(E->a.h->nfree_chunks, E->a.h->sizes.chunks);
}
END_TEST

START_TEST(test_B_343_the_fatal_error_of_one)
{
    int c;

    open_two();
    c = req(1002, "", "");
    use(1);
    server(FROM("before"));
    ck_assert(contains(c, "before") && names(c, 1));
    c = req(1003, "", "");
    server("<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>");
    link_over(BOSH_COND_REMOTE_STREAM_ERROR);
    ck_assert(is_terminate(c, "remote-stream-error") && names(c, 1) && contains(c, "<conflict"));
    use(0);
    ck_assert_int_eq(session()->state, BOSH_ST_LIVE);
    c = req(1004, "", "");
    server(FROM("still here"));
    ck_assert(contains(c, "still here"));
}
END_TEST

START_TEST(test_B_343_the_first_dies)
{
    int c;

    open_two();
    c = req(1002, "", "");
    use(0);
    link_over(BOSH_COND_REMOTE_CONNECTION_FAILED);
    ck_assert(is_terminate(c, "remote-connection-failed") && names(c, 0));
    c = req(1003, "", MSG("on"));
    ck_assert(held(c));
    use(1);
    ck_assert_str_eq(sent(), MSG("on"));
    /* and then the other: that is the end of all (B-344) */
    link_over(BOSH_COND_REMOTE_STREAM_ERROR);
    ck_assert(is_terminate(c, "remote-stream-error") && names_none(c));
    use(0);
    ck_assert_int_eq(session()->state, BOSH_ST_TOMB);
}
END_TEST

START_TEST(test_B_344_an_error_of_the_session)
{
    int c;

    open_two();
    c = req(1009, "", "");
    ck_assert(is_terminate(c, "item-not-found") && names_none(c));
    for (int i = 0; i < 2; i++) {
        use(i);
        ck_assert_str_eq(sent(), "[C]");
    }
}
END_TEST

START_TEST(test_nobody_comes)
{
    open_two();
    use(0);
    pass(31 * SEC);
    ck_assert_int_eq(session()->state, BOSH_ST_TOMB);
    use(1);
    ck_assert_int_eq(session()->state, BOSH_ST_TOMB);
    ck_assert_str_eq(sent(), "[C]");
}
END_TEST

START_TEST(test_the_server_ends_all)
{
    int c;

    open_two();
    use(1);
    server(FROM("b1"));
    for (int i = 0; i < 2; i++) {
        use(i);
        SECTION(NO_VERDICT, bosh_session_end(&E->a, E->now, session(), BOSH_COND_SYSTEM_SHUTDOWN));
        settle();
    }
    c = req(1002, "", "");
    ck_assert(is_terminate(c, "system-shutdown") && contains(c, "b1"));
}
END_TEST

START_TEST(test_a_session_given_up_leaves_no_branch)
{
    open_two();
    use(0);
    session()->state = 77; /* no state: repair gives it up */
    ck_assert_uint_eq(bosh_arena_repair(&E->a), 1);
    use(1);
    ck_assert_ptr_nonnull(session());
    env_validate();
    SECTION(NO_VERDICT, bosh_session_tick(&E->a, E->now, session(), &E->lim));
    ck_assert_str_eq(sent(), "[C]");
    link_over(BOSH_COND_NONE);
    ck_assert_int_eq(records(), 0);
}
END_TEST

START_TEST(test_its_owner_dies)
{
    bosh_session_t *b;
    bosh_ix from = 0;
    uint32_t lost = 0, other = bosh_arena_peer_claim(&E->a, 103, 0, E->now);
    int c;

    open_two();
    c = req(1002, "", "");
    use(1);
    b = session();
    bosh_arena_own(&E->a, b, other);
    bosh_arena_peer(&E->a, other)->state = BOSH_PEER_LEAVING;
    while (bosh_session_peer_died(&E->a, E->now, other, E->owner, &from, 10, &lost)) {
    }
    settle();
    ck_assert_uint_eq(lost, 1);
    ck_assert(is_terminate(c, "remote-connection-failed") && names(c, 1));
    use(0);
    ck_assert_int_eq(session()->state, BOSH_ST_LIVE);
}
END_TEST

START_TEST(test_what_was_not_delivered_goes_back_where_it_came_from)
{
    char text[4096];
    bool whole;

    E->lim.returns = true;
    open_two();
    use(0);
    server(FROM("a1"));
    use(1);
    server(FROM("b1"));
    use(0);
    pass(31 * SEC);
    for (int i = 0; i < 2; i++) {
        size_t n;
        use(i);
        ck_assert(session()->flags & BOSH_SESS_BACK);
        n = bosh_back_take(&E->a, session(), text, sizeof(text), &whole);
        text[n] = '\0';
        ck_assert_str_eq(text, i == 0 ? FROM("a1") : FROM("b1"));
        ck_assert_uint_eq(bosh_back_take(&E->a, session(), text, sizeof(text), &whole), 0);
    }
    env_validate();
}
END_TEST

/* ---- all of it in any order ---- */

#define ROUNDS 100

static unsigned pick(unsigned n)
{
    return (unsigned)rand() % n;
}

/* What each stream was sent and what came of it: messages are numbered, the next one expected is noted. */
typedef struct tally_t {
    int up_sent, up_got, down_sent, down_got;
    bool alive;
} tally_t;

static tally_t tally[BOSH_MAX_STREAMS + 2];

/* The numbers in `text`, which go on where those before ended. */
static void follow(const char *text, const char *mark, int *next)
{
    for (const char *p = strstr(text, mark); p != NULL; p = strstr(p + 1, mark)) {
        ck_assert_int_eq(atoi(p + strlen(mark)), *next);
        (*next)++;
    }
}

static int read_answers(int from)
{
    for (; from < E->nconns && !held(from); from++) {
        for (int i = 0; i < nstreams; i++) {
            /* Until there is a second one, answers are the first one's. */
            if (names(from, i) || (i == 0 && names_none(from))) {
                char mark[32];
                snprintf(mark, sizeof(mark), "id='u%d.", i);
                follow(answer(from), mark, &tally[i].up_got);
                ck_assert(!contains(from, "id='u") || contains(from, mark));
                tally[i].alive = tally[i].alive && !contains(from, "type='terminate'");
            }
        }
        ck_assert_msg(!contains(from, "type='terminate'") || !names_none(from), "%s", answer(from));
    }
    return from;
}

/* How many streams live in truth. */
static unsigned lively(void)
{
    bosh_session_t *s = bosh_arena_session(&E->a, streams[0].index);
    unsigned n = 0;

    for (bosh_session_t *st = s; st != NULL; st = bosh_multi_next(&E->a, s, st)) {
        n += bosh_multi_state(st) == BOSH_ST_LIVE;
    }
    return n;
}

static void write_down(int i)
{
    const char *out;
    char mark[32];

    use(i);
    out = session() != NULL ? sent() : "";
    snprintf(mark, sizeof(mark), "id='d%d.", i);
    follow(out, mark, &tally[i].down_got);
}

START_TEST(test_in_any_order)
{
    uint64_t rid = 1000;
    int read = 0;

    srand((unsigned)_i + 1);
    E->lim.queue_size = 2000;
    E->lim.answer_size = 300;
    memset(tally, 0, sizeof(tally));
    open_first("");
    tally[0].alive = true;
    for (int round = 0; round < ROUNDS; round++) {
        int i = (int)pick((unsigned)nstreams), living = 0;
        char text[128], attrs[128] = "";
        bool open = false;

        for (int k = 0; k < nstreams; k++) {
            living += tally[k].alive; /* as far as the client knows */
        }
        use(i);
        open = session() != NULL && bosh_multi_state(session()) == BOSH_ST_LIVE;
        switch (pick(8)) {
        case 0:
            if (living < 3 && nstreams < BOSH_MAX_STREAMS) {
                int before = nstreams;
                add(++rid, "b.example");
                ck_assert_int_eq(nstreams, before + 1);
                use(before);
                features("b.example", "en");
                tally[before].alive = true;
            }
            break;
        case 1:
        case 2: /* from a server */
            if (open) {
                snprintf(text, sizeof(text), "<message xmlns='jabber:client' id='u%d.%d'/>", i,
                         tally[i].up_sent++);
                server(text);
            }
            break;
        case 3:
        case 4: /* to one of them */
            if (open) {
                snprintf(attrs, sizeof(attrs), "stream='%s'", streams[i].name);
                snprintf(text, sizeof(text), "<message xmlns='jabber:client' id='d%d.%d'/>", i,
                         tally[i].down_sent++);
                use(0);
                req(++rid, attrs, text);
            }
            break;
        case 5:
            req(++rid, "", "");
            break;
        case 6:
            write_down(i);
            break;
        default: /* one that is not the last ends, by its server or by the client */
            if (open && lively() > 1 && pick(4) == 0) {
                if (pick(2) == 0) {
                    write_down(i);
                    link_over(BOSH_COND_REMOTE_CONNECTION_FAILED);
                    tally[i].down_sent = tally[i].down_got;
                } else {
                    snprintf(attrs, sizeof(attrs), "type='terminate' stream='%s'", streams[i].name);
                    req(++rid, attrs, "");
                    write_down(i);
                    link_over(BOSH_COND_NONE);
                }
            }
            break;
        }
        read = read_answers(read);
        ck_assert_int_eq(bosh_arena_session(&E->a, streams[0].index)->state, BOSH_ST_LIVE);
    }
    for (int n = 0; n < 200 && read < 3000; n++) { /* what is left */
        req(++rid, "", "");
        read = read_answers(read);
        for (int i = 0; i < nstreams; i++) {
            write_down(i);
        }
    }
    for (int i = 0; i < nstreams; i++) {
        ck_assert_int_eq(tally[i].up_got, tally[i].up_sent);
        ck_assert_int_eq(tally[i].down_got, tally[i].down_sent);
    }
    use(0);
    req(++rid, "type='terminate'", "");
    for (int i = nstreams - 1; i >= 0; i--) {
        use(i);
        if (session() != NULL) {
            sent();
            link_over(BOSH_COND_NONE);
        }
    }
    use(0);
    pass((BOSH_TOMB_SECONDS + 3) * SEC);
    ck_assert_int_eq(records(), 0);
    ck_assert_uint_eq(E->a.h->nfree_chunks, E->a.h->sizes.chunks);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("multi");
    TCase *tc = tcase_create("multi");
    SRunner *sr;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_B_326_the_name_of_the_first);
    tcase_add_test(tc, test_B_327_switched_off);
    tcase_add_test(tc, test_B_328_B_330_B_331_X_037_a_second_stream);
    tcase_add_test(tc, test_B_331_from_may_come_later);
    tcase_add_test(tc, test_B_329_B_347_a_restart_adds_nothing);
    tcase_add_test(tc, test_B_332_its_own_header);
    tcase_add_test(tc, test_B_345_no_more_than_allowed);
    tcase_add_test(tc, test_an_unknown_domain_ends_that_stream_only);
    tcase_add_test(tc, test_added_in_rid_order);
    tcase_add_test(tc, test_a_session_that_ends_before_it_begins);
    tcase_add_test(tc, test_B_333_each_answer_has_one_stream);
    tcase_add_test(tc, test_B_334_empty_ones_have_none);
    tcase_add_test(tc, test_B_335_without_a_name_to_all);
    tcase_add_test(tc, test_B_335_there_must_be_room_at_all);
    tcase_add_test(tc, test_B_125_full_both_ways);
    tcase_add_test(tc, test_B_336_B_339_to_the_one_that_is_named);
    tcase_add_test(tc, test_B_337_an_unknown_name);
    tcase_add_test(tc, test_B_338_closed_just_now);
    tcase_add_test(tc, test_B_340_in_turn);
    tcase_add_test(tc, test_B_346_one_rid_for_all);
    tcase_add_test(tc, test_B_347_R_10_restarts);
    tcase_add_test(tc, test_what_was_lost_does_not_go_to_a_stream_that_came_later);
    tcase_add_test(tc, test_one_that_is_closed_makes_room_at_once);
    tcase_add_test(tc, test_each_stream_has_its_time_to_log_in);
    tcase_add_test(tc, test_a_stream_that_is_over_need_not_log_in);
    tcase_add_test(tc, test_payload_before_the_login_of_that_stream);
    tcase_add_test(tc, test_B_341_one_stream_is_closed);
    tcase_add_test(tc, test_B_341_the_first_stream_is_closed);
    tcase_add_test(tc, test_B_342_all_are_closed);
    tcase_add_test(tc, test_B_343_the_fatal_error_of_one);
    tcase_add_test(tc, test_B_343_the_first_dies);
    tcase_add_test(tc, test_B_344_an_error_of_the_session);
    tcase_add_test(tc, test_nobody_comes);
    tcase_add_test(tc, test_the_server_ends_all);
    tcase_add_test(tc, test_a_session_given_up_leaves_no_branch);
    tcase_add_test(tc, test_its_owner_dies);
    tcase_add_test(tc, test_what_was_not_delivered_goes_back_where_it_came_from);
    tcase_add_loop_test(tc, test_in_any_order, 0, 12);
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_NORMAL);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed > 0;
}
