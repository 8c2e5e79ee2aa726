/* SPDX-License-Identifier: Apache-2.0 */
/* The session machine against a fake clock: creation, waiting, resends, ends. Rows of the checklist. */
#include "session_env.h"

#define M(x) "<message xmlns='jabber:client'><body>" x "</body></message>"

/* ---- creation ---- */

START_TEST(test_B_063_creation_answer)
{
    int c;

    E->lim.polling = 5;
    c = open_session("");
    ck_assert(contains(c, "sid='"));
    ck_assert(contains(c, "wait='10'"));
    ck_assert(contains(c, "requests='2'"));
    ck_assert(contains(c, "hold='1'"));        /* rows: B-063 B-066 B-067 */
    ck_assert(contains(c, "ver='1.6'"));       /* rows: B-069 */
    ck_assert(contains(c, "inactivity='30'")); /* rows: B-073 */
    ck_assert(contains(c, "polling='5'"));     /* rows: B-072 */
    ck_assert(contains(c, "maxpause='120'"));  /* rows: B-076 */
    ck_assert(contains(c, "from='example.com'"));
    ck_assert(contains(c, "authid='st1'"));
    ck_assert(contains(c, "restartlogic='true'")); /* rows: B-075 X-030 X-031 X-032 */
    ck_assert(contains(c, "<stream:features"));
    ck_assert(contains(c, "xmlns:stream='http://etherx.jabber.org/streams'")); /* rows: X-001 */
}
END_TEST

START_TEST(test_B_064_wait_and_hold_are_never_raised)
{
    static const struct {
        const char *ask, *get;
    } rows[] = {{"wait='5' hold='1'", "wait='5'"},
                {"wait='100000' hold='1'", "wait='60'"},
                {"wait='0' hold='1'", "wait='0'"},
                {"wait='5' hold='0'", "hold='0'"},
                {"wait='5' hold='2'", "requests='3'"},
                {"wait='5' hold='200'", "hold='2'"},
                {"wait='5' hold='255'", "requests='3'"},
                {"hold='1'", "wait='60'"},
                {"wait='5'", "hold='1'"}};

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]);
         i++) { /* rows: B-064 B-065 B-066 B-067 B-068 B-247 */
        char buf[256];
        int c;
        snprintf(buf, sizeof(buf), "rid='1' to='example.com' %s", rows[i].ask);
        c = post(buf, "");
        pass(61 * SEC);
        ck_assert_msg(contains(c, rows[i].get), "%s -> %s", rows[i].ask, answer(c));
    }
}
END_TEST

START_TEST(test_B_070_versions_compare_by_parts)
{
    static const struct {
        const char *ask, *get;
    } rows[] = {{"1.6", "ver='1.6'"},   {"1.8", "ver='1.8'"},   {"1.9", "ver='1.9'"},
                {"1.10", "ver='1.10'"}, {"1.11", "ver='1.11'"}, {"2.0", "ver='1.11'"},
                {"1.12", "ver='1.11'"}};

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char buf[256];
        int c;
        snprintf(buf, sizeof(buf), "rid='1' to='example.com' wait='1' ver='%s'", rows[i].ask);
        c = post(buf, "");
        pass(2 * SEC);
        ck_assert_msg(contains(c, rows[i].get), "%s -> %s", rows[i].ask, answer(c));
    }
}
END_TEST

START_TEST(test_R_12_no_ver_for_a_client_without)
{
    int c = post("rid='1' to='example.com' wait='1'", "");

    pass(2 * SEC);
    ck_assert(!contains(c, "ver="));
    ck_assert(contains(c, "sid="));
}
END_TEST

START_TEST(test_B_074_polling_sessions_live_longer)
{
    int a, b, x = 0, y = 0;

    E->lim.polling = 5;
    a = post("rid='1' to='example.com' wait='1' hold='1'", "");
    pass(2 * SEC);
    b = post("rid='1' to='example.com' wait='1' hold='0'", "");
    pass(2 * SEC);
    ck_assert_int_eq(sscanf(strstr(answer(a), "inactivity="), "inactivity='%d'", &x), 1);
    ck_assert_int_eq(sscanf(strstr(answer(b), "inactivity="), "inactivity='%d'", &y), 1);
    ck_assert_int_gt(y - x, 5);
}
END_TEST

START_TEST(test_B_077_creation_attributes_are_not_repeated)
{
    static const char *const names[] = {
        "sid=",     "wait=",     "requests=", "hold=", "inactivity=",
        "polling=", "maxpause=", "ver=",      "from=", "authid="};
    int c;

    open_session("");
    c = req(1001, "", "");
    server(M("hi"));
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        ck_assert_msg(!contains(c, names[i]), "%s in %s", names[i], answer(c));
    }
}
END_TEST

START_TEST(test_B_090_acks_only_when_asked_for)
{
    int c = open_session("ack='1'");

    ck_assert(contains(c, "ack='1000'")); /* rows: B-090 B-176 */
    env_close();
    env_open();
    c = open_session("");
    ck_assert(!contains(c, "ack=")); /* rows: B-179 R-14 */
}
END_TEST

START_TEST(test_B_101_full_table)
{
    int c = -1;

    for (int i = 0; i < 64; i++) {
        c = post("rid='1' to='example.com' wait='60'", "");
        ck_assert(held(c));
    }
    c = post("rid='1' to='example.com' wait='60'", "");
    ck_assert(is_terminate(c, "internal-server-error"));
}
END_TEST

/* rows: R-18 */
START_TEST(test_B_096_payload_in_the_creation_request)
{
    int c = post("rid='1000' to='example.com' wait='10' hold='1'", M("early"));

    ck_assert(held(c));
    ck_assert_str_eq(sent(),
                     M("early")); /* queued in order; the loop waits for the features */
}
END_TEST

START_TEST(test_X_038_a_server_without_version)
{
    int c = post("rid='1000' to='example.com' wait='10' hold='1'", "");

    server_header("id='old' from='example.com'");
    ck_assert(contains(c, "authid='old'"));
    ck_assert(!contains(c, "features"));
}
END_TEST

START_TEST(test_X_030_features_later)
{
    int c = post("rid='1000' to='example.com' wait='1' hold='1'", ""), d;

    pass(2 * SEC);
    ck_assert(contains(c, "sid="));
    ck_assert(!contains(c, "authid="));
    d = req(1001, "", "");
    server_header("id='late' from='example.com' version='1.0'");
    ck_assert_uint_gt(session()->link.hello.len, 0);
    server("<stream:features/>");
    ck_assert(contains(d, "authid='late'"));
    ck_assert(contains(d, "<stream:features"));
    ck_assert(!contains(d, "sid="));
    ck_assert_uint_eq(session()->link.hello.len, 0); /* said once, and kept no longer */
}
END_TEST

/* ---- payload, hold, wait ---- */

START_TEST(test_B_110_payload_goes_up_while_the_request_waits)
{
    int c;

    open_session("");
    c = req(1001, "", M("a") M("b"));
    ck_assert(held(c));
    ck_assert_str_eq(sent(), M("a") M("b"));
}
END_TEST

START_TEST(test_B_111_out_of_order_arrival)
{
    int c2, c1;

    open_session("");
    c2 = req(1002, "", M("2") M("3"));
    ck_assert(held(c2)); /* rows: B-140 B-144 */
    ck_assert_str_eq(sent(), "");
    c1 = req(1001, "", M("1"));
    ck_assert_str_eq(sent(), M("1") M("2") M("3"));
    ck_assert(is_empty(c1)); /* over hold: the older is released at once */
    ck_assert(held(c2));
}
END_TEST

START_TEST(test_B_113_answers_in_rid_order)
{
    int c2, c1;

    post("rid='1000' to='example.com' wait='10' hold='2' ver='1.6'", "");
    server_header("id='x' version='1.0'");
    server("<stream:features/>");
    c2 = req(1002, "", "");
    c1 = req(1001, "", "");
    server(M("one"));
    ck_assert(contains(c1, "one")); /* rows: B-113 B-120 */
    ck_assert(held(c2));
    server(M("two"));
    ck_assert(contains(c2, "two"));
}
END_TEST

START_TEST(test_B_115_wait)
{
    int c;

    open_session("");
    c = req(1001, "", "");
    pass(9 * SEC + 900000);
    ck_assert(held(c));
    pass(200000);
    ck_assert(is_empty(c)); /* rows: B-114 B-115 B-117 */
}
END_TEST

START_TEST(test_B_116_hold)
{
    int c1, c2;

    open_session("");
    c1 = req(1001, "", "");
    c2 = req(1002, "", "");
    ck_assert(is_empty(c1));
    ck_assert(held(c2));
    c1 = req(1003, "", M("x")); /* rows: B-146: the window follows what was received */
    ck_assert(is_empty(c2));
    ck_assert(held(c1));
}
END_TEST

START_TEST(test_B_119_queued_payload_comes_at_once)
{
    int c;

    open_session("");
    for (int i = 0; i < 5; i++) {
        char buf[128];
        snprintf(buf, sizeof(buf), M("n%d"), i);
        server(buf);
    }
    c = req(1001, "", "");
    ck_assert(contains(c, M("n0") M("n1") M("n2") M("n3") M("n4")));
}
END_TEST

START_TEST(test_B_121_each_request_has_its_own_wait)
{
    int c1, c2;

    post("rid='1000' to='example.com' wait='4' hold='2' ver='1.6'", "");
    server_header("id='x' version='1.0'");
    server("<stream:features/>");
    c1 = req(1001, "", "");
    pass(2 * SEC);
    c2 = req(1002, "", "");
    pass(1900000);
    ck_assert(held(c1));
    pass(200000);
    ck_assert(is_empty(c1));
    ck_assert(held(c2));
    pass(2 * SEC);
    ck_assert(is_empty(c2));
}
END_TEST

START_TEST(test_B_123_large_backlog_is_split_between_stanzas)
{
    char *big = malloc(41000);
    int c, n = 0;

    open_session("");
    snprintf(big, 41000, "<message xmlns='jabber:client'><body>%040000d</body></message>", 7);
    for (int i = 0; i < 10; i++) {
        server(big);
    }
    for (uint64_t rid = 1001; session()->link.up.items > 0; rid++) {
        c = req(rid, "", "");
        ck_assert(!held(c));
        ck_assert_uint_le(strlen(answer(c)), 64 * 1024 + 45000);
        for (const char *p = answer(c); (p = strstr(p, "<message")) != NULL; p++) {
            n++;
        }
        ck_assert_str_eq(answer(c) + strlen(answer(c)) - 17, "</message></body>");
    }
    ck_assert_int_eq(n, 10);
    free(big);
}
END_TEST

START_TEST(test_B_125_back_pressure_towards_the_server)
{
    char *big = malloc(70000);
    int c1, c2;

    E->lim.queue_size = 100000;
    open_session("");
    snprintf(big, 70000, M("%060000d"), 1);
    c1 = req(1001, "", big);
    c2 = req(1002, "", big); /* no room: it waits in its slot, nothing is lost */
    ck_assert(held(c1));
    ck_assert(held(c2));
    ck_assert_uint_eq(strlen(sent()), 2 * strlen(big));
    ck_assert(is_empty(c1));
    ck_assert(held(c2));
    free(big);
}
END_TEST

START_TEST(test_B_125_back_pressure_towards_the_client)
{
    char *big = malloc(70000);
    int c;

    E->lim.queue_size = 100000;
    open_session("");
    snprintf(big, 70000, M("%060000d"), 1);
    ck_assert(bosh_session_may_read(&E->a, session(), &E->lim));
    server(big);
    server(big);
    ck_assert(!bosh_session_may_read(&E->a, session(), &E->lim));
    ck_assert(session()->link.flags & BOSH_LINK_STALLED);
    E->lazy = true;
    c = req(1001, "", "");
    ck_assert(contains(c, "<message"));
    c = req(1002, "", "");
    ck_assert(contains(c, "<message"));
    ck_assert(session()->link.flags & BOSH_LINK_MAILED); /* the owner hears that it may read on */
    ck_assert(bosh_session_may_read(&E->a, session(), &E->lim));
    E->lazy = false;
    free(big);
}
END_TEST

/* The server reads nothing before it has been read itself, and what it says goes to requests alone. */
START_TEST(test_B_125_full_both_ways)
{
    char *big = malloc(70000);
    int c;

    E->lim.queue_size = 100000;
    open_session("");
    snprintf(big, 70000, M("%060000d"), 1);
    c = req(1001, "", big);
    server(big);
    ck_assert(contains(c, "<message"));
    server(big);
    server(big);
    ck_assert(!bosh_session_may_read(&E->a, session(), &E->lim));
    c = req(1002, "", big); /* no room for it, and nobody else to take anything */
    ck_assert(contains(c, "<message"));
    c = req(1003, "", ""); /* below the half: the owner may read again */
    ck_assert(bosh_session_may_read(&E->a, session(), &E->lim));
    ck_assert_uint_eq(strlen(sent()), 2 * strlen(big));
    c = req(1004, "", big);
    server(big);
    server(big);
    E->lim.queue_size = 60000;
    c = req(1005, "", big); /* full only now */
    ck_assert(held(c));
    server(big);
    server(big);
    ck_assert(!bosh_session_may_read(&E->a, session(), &E->lim));
    settle();
    ck_assert(contains(c, "<message"));
    free(big);
}
END_TEST

START_TEST(test_full_memory_loses_nothing)
{
    char *big = malloc(70000);
    int c;

    env_close();
    env_open_sized(8, 400);
    E->lim.queue_size = 4 << 20;
    open_session("");
    snprintf(big, 70000, M("%060000d"), 1);
    for (uint64_t rid = 1001;; rid++) { /* fill `down`: the loop does not write */
        c = req(rid, "", big);
        if (answer(c) != NULL && strcmp(answer(c), "503") == 0) {
            ck_assert_uint_gt(rid, 1003);
            ck_assert_uint_eq(strlen(sent()), (rid - 1001) * strlen(big));
            c = req(rid, "", big); /* the same rid again, once there is room */
            ck_assert(held(c));
            ck_assert_uint_eq(strlen(sent()), strlen(big));
            break;
        }
    }
    free(big);
}
END_TEST

START_TEST(test_a_full_arena_can_be_emptied)
{
    bosh_ix taken[1600];
    char *big = malloc(10000);
    size_t got = 0, put = 0, ntaken = 0;
    int c;

    env_close();
    env_open_sized(8, 1600);
    E->lim.queue_size = 4 << 20;
    open_session("");
    snprintf(big, 10000, M("%09000d"), 1);
    while (bosh_session_may_read(&E->a, session(), &E->lim) &&
           bosh_arena_room(&E->a, 24 * 1024 / BOSH_CHUNK_SIZE, BOSH_PRIO_INPUT)) {
        server(big);
        put++;
    }
    while ((taken[ntaken] = bosh_arena_chunk_new(&E->a, BOSH_PRIO_INPUT)) != 0) {
        ntaken++; /* others have taken the rest */
    }
    E->unlisted = true; /* those are on no list */
    ck_assert_uint_gt(put, 30);
    for (uint64_t rid = 1001; session()->link.up.items > 0; rid++) {
        bosh_slot_t *slot;
        c = req(rid, "", "");
        ck_assert(!held(c));
        slot = bosh_window_slot(&E->a, session(), rid);
        ck_assert_ptr_nonnull(slot);
        for (const char *p = answer(c); (p = strstr(p, "<message")) != NULL; p++) {
            got++;
        }
    }
    ck_assert_uint_eq(got, put);
    while (ntaken > 0) {
        bosh_arena_chunk_free(&E->a, taken[--ntaken]);
    }
    E->unlisted = false;
    free(big);
}
END_TEST

START_TEST(test_X_002_kinds_do_not_mix)
{
    int c;

    open_session("");
    server("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    server(M("a"));
    server(M("b"));
    c = req(1001, "", "");
    ck_assert(contains(c, "<success"));
    ck_assert(!contains(c, "<message"));
    c = req(1002, "", "");
    ck_assert(contains(c, M("a") M("b")));
}
END_TEST

/* ---- window, resends ---- */

START_TEST(test_B_141_beyond_the_window)
{
    int c, d;

    open_session("");
    c = req(1003, "", M("x"));
    ck_assert(is_terminate(c, "item-not-found"));
    d = req(1001, "", "");
    ck_assert(is_terminate(d, "item-not-found"));
    ck_assert_str_eq(answer(c), answer(d));
    ck_assert_str_eq(sent(), "[C]"); /* rows: B-141 B-312 */
}
END_TEST

START_TEST(test_B_142_one_more_for_terminate)
{
    int t, a, b;

    open_session("");
    t = req(1003, "type='terminate'", "");
    a = req(1001, "", M("1"));
    b = req(1002, "", M("2"));
    ck_assert(!held(t) && !held(a) && !held(b));
    ck_assert_str_eq(sent(), M("1") M("2") "[C]");
}
END_TEST

START_TEST(test_B_143_window_scales_with_requests)
{
    int c4, c3, c2, c1;

    E->lim.max_hold = 3;
    E->lim.max_requests = 3;
    post("rid='1000' to='example.com' wait='10' hold='2' ver='1.6'", "");
    server_header("id='x' version='1.0'");
    server("<stream:features/>");
    c4 = req(1003, "", M("3"));
    c2 = req(1002, "", M("2"));
    c3 = req(1001, "", M("1"));
    ck_assert_str_eq(sent(), M("1") M("2") M("3"));
    ck_assert(is_empty(c3));
    ck_assert(held(c2));
    ck_assert(held(c4));
    c1 = req(1007, "", "");
    ck_assert(is_terminate(c1, "item-not-found"));
}
END_TEST

START_TEST(test_B_145_a_gap_that_stays_open)
{
    int c;

    open_session("");
    c = req(1002, "", M("late"));
    pass(11 * SEC);
    ck_assert(is_error(c)); /* RB after wait */
    pass(25 * SEC);
    ck_assert(is_terminate(req(1001, "", ""), "item-not-found"));
    ck_assert_str_eq(sent(), "[C]");
}
END_TEST

START_TEST(test_R_05_payload_behind_an_excused_gap_is_kept)
{
    int c2, c1;

    open_session("");
    c2 = req(1002, "", M("2"));
    pass(11 * SEC);
    ck_assert(is_error(c2));
    c1 = req(1001, "", M("1"));
    ck_assert_str_eq(sent(), M("1") M("2"));
    server(M("x"));
    ck_assert(contains(c1, ">x<") ||
              is_empty(c1)); /* never on 1002: its client takes RB for the answer */
    ck_assert(is_empty(req(1002, "", M("2"))));
}
END_TEST

START_TEST(test_B_147_too_old_and_too_new_alike)
{
    int a, b;

    open_session("");
    a = req(999, "", "");
    env_close();
    env_open();
    open_session("");
    b = req(1003, "", "");
    ck_assert(is_terminate(b, "item-not-found"));
    (void)a;
}
END_TEST

START_TEST(test_B_148_the_same_future_rid_twice)
{
    int c1, a, b;

    open_session("");
    a = req(1002, "", M("x"));
    b = req(1002, "", M("x"));
    ck_assert(is_error(a));
    ck_assert(held(b));
    c1 = req(1001, "", "");
    ck_assert_str_eq(sent(), M("x"));
    ck_assert(is_empty(c1));
    ck_assert(held(b));
}
END_TEST

START_TEST(test_B_149_large_rids)
{
    uint64_t rid = 9007199254740000ULL;
    int c;

    post("rid='9007199254740000' to='example.com' wait='10' hold='1' ver='1.6'", "");
    server_header("id='x' version='1.0'");
    server("<stream:features/>");
    for (int i = 1; i <= 900; i++) {
        server(M("x"));
        c = req(rid + (uint64_t)i, "", "");
        ck_assert(contains(c, ">x<"));
    }
}
END_TEST

START_TEST(test_B_151_other_requests_of_a_session_that_was_ended)
{
    int c, d;

    open_session("");
    c = req(1001, "", "");
    d = req(1004, "", "");
    ck_assert(is_terminate(d, "item-not-found"));
    ck_assert(is_terminate(c, "other-request")); /* rows: B-151 B-304 */
}
END_TEST

START_TEST(test_B_160_the_last_answers_are_kept)
{
    char *kept[2] = {NULL, NULL};
    int c;

    open_session("");
    for (uint64_t rid = 1001; rid <= 1010; rid++) {
        server(M("x"));
        c = req(rid, "", M("up"));
        if (rid >= 1009) {
            kept[rid - 1009] = strdup(answer(c));
        }
    }
    sent();
    ck_assert_str_eq(answer(req(1009, "", M("up"))), kept[0]);         /* rows: B-160 B-161 */
    ck_assert_str_eq(answer(req(1010, "", M("other"))), kept[1]);      /* rows: B-164 */
    ck_assert_str_eq(sent(), "");                                      /* rows: B-163 */
    ck_assert(is_terminate(req(1001, "", M("up")), "item-not-found")); /* rows: B-162 */
    ck_assert(session()->state == BOSH_ST_TOMB);
    free(kept[0]);
    free(kept[1]);
}
END_TEST

START_TEST(test_B_112_an_answer_waits_for_its_holder)
{
    int c[5];

    open_session("");
    E->lazy = true; /* the holders are slow: none looks before all are answered */
    for (int i = 0; i < 5; i++) {
        c[i] = req(1001 + (uint64_t)i, "", "");
    }
    E->lazy = false;
    settle();
    for (int i = 0; i < 4; i++) {
        ck_assert(is_empty(c[i]));
    }
    ck_assert(held(c[4]));
}
END_TEST

/* The answer is there, its holder has not come for it yet, and the same request comes on another connection. */
START_TEST(test_B_165_a_holder_that_comes_too_late)
{
    int a, b;

    open_session("");
    a = req(1001, "", "");
    E->lazy = true; /* nobody fetches what is stored */
    b = req(1002, "", "");
    ck_assert(held(a));
    ck_assert(is_empty(req(1001, "", ""))); /* fetched here, and let go below */
    for (uint64_t rid = 1003; rid < 1007; rid++) {
        int c = req(rid, "", "");
        poll_conn(b, false);
        b = c;
    }
    {
        bosh_verdict_t v = E->conns[a].v; /* one that has had its verdict, but has not read yet */
        bosh_session_lost(&E->a, &v);
        ck_assert_int_eq(v.act, BOSH_DO_TELL);
        ck_assert(v.error);
    }
    poll_conn(a, false);
    ck_assert(is_error(a)); /* and no end: the session lives */
    ck_assert_uint_eq(session()->state, BOSH_ST_LIVE);
    E->lazy = false;
    settle();
}
END_TEST

START_TEST(test_B_165_a_repeat_takes_over)
{
    int a, b, c;

    open_session("");
    a = req(1001, "", M("once"));
    b = req(1001, "", M("once"));
    ck_assert(is_error(a));
    ck_assert(held(b));
    server(M("for b"));
    ck_assert(contains(b, "for b"));
    ck_assert_str_eq(sent(), M("once")); /* rows: B-166 */
    c = req(1001, "", M("once"));
    ck_assert_str_eq(answer(c), answer(b)); /* rows: B-167 */
}
END_TEST

START_TEST(test_B_168_too_many_repeats)
{
    int c = -1;

    open_session("");
    req(1001, "", "");
    for (int i = 0; i < 6; i++) {
        c = req(1001, "", "");
    }
    ck_assert(is_terminate(c, "policy-violation"));
}
END_TEST

START_TEST(test_B_180_an_answer_lost_with_its_connection)
{
    int a, b;

    open_session("");
    a = req(1001, "", "");
    hang_up(a);
    server(M("kept"));
    ck_assert_uint_eq(session()->link.up.items, 1); /* rows: B-126 R-04: not burned */
    b = req(1001, "", "");
    ck_assert(contains(b, "kept"));
    a = req(1002, "", "");
    server(M("written"));
    ck_assert(contains(a, "written")); /* into a connection that is dead without anybody knowing */
    b = req(1002, "", "");
    ck_assert(contains(b, "written"));
}
END_TEST

START_TEST(test_a_page_reload_loses_nothing)
{
    int a, b;

    open_session("");
    a = req(1001, "", "");
    hang_up(a);
    server(M("meanwhile"));
    b = req(1002, "", ""); /* Strophe's restore() goes on with the next rid */
    ck_assert(contains(b, "meanwhile"));
}
END_TEST

START_TEST(test_a_reload_with_undetected_hang_up_loses_nothing)
{
    int a, b;

    open_session("");
    a = req(1001, "", "");
    pass(SEC);
    E->lazy = true; /* the holder of 1001 has been mailed and has not looked yet */
    server(M("in between"));
    b = req(1002, "", "");
    E->lazy = false;
    settle();
    ck_assert(is_empty(a));
    ck_assert(contains(b, "in between"));
}
END_TEST

START_TEST(test_B_171_acks_keep_what_is_unacknowledged)
{
    char *first = NULL;
    int c;

    open_session("ack='1'");
    for (uint64_t rid = 1001; rid <= 1005; rid++) {
        server(M("x"));
        c = req(rid, "ack='1000'", "");
        if (rid == 1001) {
            first = strdup(answer(c));
        }
    }
    ck_assert_str_eq(answer(req(1001, "ack='1000'", "")), first);
    req(1006, "ack='1005'", "");
    c = req(1001, "ack='1000'", "");
    ck_assert(is_terminate(c, "item-not-found")); /* rows: B-172 */
    free(first);
}
END_TEST

START_TEST(test_B_173_a_missing_ack_acknowledges)
{
    open_session("ack='1'");
    for (uint64_t rid = 1001; rid <= 3000; rid++) {
        server(M("x"));
        ck_assert(contains(req(rid, "", ""), ">x<"));
    }
}
END_TEST

START_TEST(test_B_174_a_client_that_never_acknowledges)
{
    int c = -1;

    open_session("ack='1'");
    for (uint64_t rid = 1001; rid <= 1020 && session()->state == BOSH_ST_LIVE; rid++) {
        server(M("x"));
        c = req(rid, "ack='1000'", "");
    }
    ck_assert(is_terminate(c, "policy-violation"));
}
END_TEST

/* Nothing of what is kept is let go for them: neither now nor when the next answer looks for room. */
START_TEST(test_B_175_impossible_acks)
{
    int c;

    open_session("ack='1'");
    c = req(1001, "ack='99999'", "");
    ck_assert(held(c));
    server(M("x"));
    ck_assert(contains(c, ">x<"));
    req(1002, "ack='99999'", "");
    req(1003, "ack='1003'", ""); /* its own */
    server(M("y"));
    ck_assert(contains(req(1001, "", ""), ">x<"));
    ck_assert(contains(req(1003, "", ""), ">y<"));
}
END_TEST

START_TEST(test_B_175_an_ack_of_what_is_not_answered)
{
    int c;

    open_session("ack='1'");
    c = req(1001, "ack='1000'", "");
    req(1002, "ack='1001'", M("z")); /* 1001 is answered because of this one, and not before */
    ck_assert(is_empty(c));
    server(M("y"));
    ck_assert(is_empty(req(1001, "", "")));
    ck_assert_uint_eq(session()->state, BOSH_ST_LIVE);
}
END_TEST

START_TEST(test_B_178_ack_names_only_news)
{
    int c1, c2;

    open_session("ack='1'");
    c1 = req(1001, "", "");
    server(M("x"));
    ck_assert(!contains(c1, "ack="));
    c1 = req(1002, "", "");
    c2 = req(1003, "", "");
    ck_assert(contains(c1, "ack='1003'")); /* rows: B-177 B-178 */
    ck_assert(held(c2));
}
END_TEST

/* ---- inactivity and pause ---- */

START_TEST(test_B_200_inactivity)
{
    int c;

    open_session("");
    c = req(1001, "", "");
    pass(10 * SEC); /* answered at its wait */
    ck_assert(is_empty(c));
    pass(29 * SEC);
    ck_assert(session()->state == BOSH_ST_LIVE); /* rows: B-203 */
    pass(2 * SEC);
    ck_assert(session()->state == BOSH_ST_TOMB);
    ck_assert_str_eq(sent(), "[C]");
    ck_assert(is_terminate(req(1002, "", ""), "item-not-found")); /* rows: B-201 */
    ck_assert(is_terminate(req(1001, "", ""), "item-not-found"));
    link_over(BOSH_COND_NONE);
    pass(16 * SEC);
    ck_assert_ptr_null(session());
    ck_assert_uint_eq(E->a.h->nsessions, 0);
    ck_assert(is_terminate(req(1002, "", ""), "item-not-found")); /* rows: B-201, for ever */
}
END_TEST

START_TEST(test_B_202_no_inactivity_while_held)
{
    int c;

    E->lim.inactivity = 2;
    open_session("");
    c = req(1001, "", "");
    pass(9 * SEC);
    ck_assert(held(c));
    ck_assert(session()->state == BOSH_ST_LIVE);
}
END_TEST

START_TEST(test_B_202_a_request_that_had_to_wait_for_room)
{
    char *big = malloc(70000);
    int c;

    E->lim.queue_size = 100000;
    E->lim.inactivity = 2;
    open_session("");
    snprintf(big, 70000, M("%060000d"), 1);
    req(1001, "pause='9'", big);
    c = req(1002, "", big); /* no room towards the server: it is not held yet */
    pass(SEC);
    sent();
    pass(8 * SEC);
    ck_assert(held(c));
    ck_assert(session()->state == BOSH_ST_LIVE);
    free(big);
}
END_TEST

/* rows: B-203 */
START_TEST(test_B_202_a_request_that_waits_for_room)
{
    char *big = malloc(70000);
    int c;

    E->lim.queue_size = 100000;
    E->lim.inactivity = 5;
    E->lim.max_hold = 0; /* nothing else is held; a polling session gets a second more */
    open_session("");
    snprintf(big, 70000, M("%060000d"), 1);
    req(1001, "", big);
    c = req(1002, "", big); /* the server does not read: its client waits all the same */
    pass(9 * SEC);
    ck_assert(held(c));
    ck_assert(session()->state == BOSH_ST_LIVE);
    pass(2 * SEC);
    ck_assert(is_error(c)); /* R-05, after `wait`; from here on it is silent */
    pass(4 * SEC);
    ck_assert(session()->state == BOSH_ST_LIVE);
    pass(2 * SEC);
    ck_assert(session()->state == BOSH_ST_TOMB);
    free(big);
}
END_TEST

START_TEST(test_B_204_resends_count_as_activity)
{
    open_session("");
    server(M("x"));
    req(1001, "", "");
    pass(29 * SEC);
    ck_assert(contains(req(1001, "", ""), ">x<"));
    pass(29 * SEC);
    ck_assert(session()->state == BOSH_ST_LIVE);
    pass(2 * SEC);
    ck_assert(session()->state == BOSH_ST_TOMB);
}
END_TEST

START_TEST(test_B_205_inactivity_after_creation)
{
    open_session("");
    pass(29 * SEC);
    ck_assert(session()->state == BOSH_ST_LIVE);
    pass(2 * SEC);
    ck_assert(session()->state == BOSH_ST_TOMB);
}
END_TEST

START_TEST(test_B_206_server_traffic_is_no_activity)
{
    open_session("");
    for (int i = 0; i < 29; i++) {
        pass(SEC);
        server(M("x"));
    }
    pass(2 * SEC);
    ck_assert(session()->state == BOSH_ST_TOMB);
}
END_TEST

START_TEST(test_B_207_inactivity_from_a_hang_up)
{
    int c;

    E->lim.inactivity = 3;
    open_session("");
    c = req(1001, "", "");
    pass(SEC);
    hang_up(c);
    pass(2900000);
    ck_assert(session()->state == BOSH_ST_LIVE);
    pass(200000);
    ck_assert(session()->state == BOSH_ST_TOMB);
}
END_TEST

START_TEST(test_B_209_no_inactivity)
{
    int c;

    E->lim.inactivity = 0;
    c = open_session("");
    ck_assert(!contains(c, "inactivity="));
    pass(100000 * SEC);
    ck_assert(session()->state == BOSH_ST_LIVE);
}
END_TEST

START_TEST(test_B_211_pause)
{
    int c1, c2;

    E->lim.inactivity = 5;
    open_session("");
    c1 = req(1001, "", "");
    c2 = req(1002, "pause='20'", M("bye"));
    ck_assert(is_empty(c1));
    ck_assert(is_empty(c2));            /* rows: B-211 B-212 */
    ck_assert_str_eq(sent(), M("bye")); /* rows: B-218 */
    server(M("later"));
    pass(19 * SEC);
    ck_assert(session()->state == BOSH_ST_LIVE); /* rows: B-213 */
    c1 = req(1003, "", "");
    ck_assert(contains(c1, "later")); /* rows: B-220 */
    pass(4 * SEC);
    ck_assert(session()->state == BOSH_ST_LIVE);
    pass(2 * SEC);
    ck_assert(session()->state == BOSH_ST_TOMB); /* rows: B-215 */
}
END_TEST

/* rows: B-204 */
START_TEST(test_B_215_a_request_before_its_turn_ends_a_pause)
{
    E->lim.inactivity = 5;
    open_session("");
    req(1001, "pause='20'", "");
    pass(19 * SEC);
    req(1003, "", ""); /* the client is back, and its requests overtake each other */
    pass(2 * SEC);
    ck_assert(session()->state == BOSH_ST_LIVE);
    req(1002, "", "");
    pass(4 * SEC);
    ck_assert(session()->state == BOSH_ST_LIVE);
}
END_TEST

START_TEST(test_B_212_pause_answers_carry_nothing)
{
    int c;

    open_session("");
    server(M("x"));
    c = req(1001, "pause='5'", "");
    ck_assert(is_empty(c));
    ck_assert(contains(req(1002, "", ""), ">x<"));
}
END_TEST

START_TEST(test_B_214_a_short_pause)
{
    open_session("");
    req(1001, "pause='2'", "");
    pass(3 * SEC);
    ck_assert(session()->state == BOSH_ST_TOMB);
}
END_TEST

START_TEST(test_B_216_pause_too_long)
{
    open_session("");
    ck_assert(is_terminate(req(1001, "pause='121'", ""), "policy-violation"));
}
END_TEST

START_TEST(test_B_217_pause_not_offered)
{
    int c;

    E->lim.maxpause = 0;
    open_session("");
    c = req(1001, "pause='5'", "");
    ck_assert(held(c));
}
END_TEST

START_TEST(test_B_170_a_resent_pause)
{
    E->lim.inactivity = 2;
    open_session("");
    req(1001, "pause='10'", "");
    pass(9 * SEC);
    ck_assert(is_empty(req(1001, "pause='10'", "")));
    pass(9 * SEC);
    ck_assert(session()->state == BOSH_ST_LIVE);
}
END_TEST

START_TEST(test_B_222_pause_waits_for_its_turn)
{
    int c1, c2;

    open_session("");
    c2 = req(1002, "pause='50'", "");
    ck_assert(held(c2));
    c1 = req(1001, "", "");
    ck_assert(is_empty(c1));
    ck_assert(is_empty(c2));
    pass(45 * SEC);
    ck_assert(session()->state == BOSH_ST_LIVE);
}
END_TEST

START_TEST(test_B_240_polling_sessions)
{
    int c = post("rid='1000' to='example.com' wait='0' hold='1' ver='1.6'", "");

    ck_assert(contains(c, "sid=")); /* at once */
    server_header("id='x' version='1.0'");
    server("<stream:features/>");
    ck_assert(contains(req(1001, "", ""), "features"));
    ck_assert(is_empty(req(1002, "", M("hi"))));
    server(M("x"));
    ck_assert(contains(req(1003, "", ""), ">x<"));
}
END_TEST

/* ---- termination ---- */

START_TEST(test_B_250_terminate)
{
    int c1, c2;

    open_session("");
    c1 = req(1001, "", "");
    c2 = req(1002, "type='terminate'", M("bye"));
    ck_assert(is_terminate(c1, "")); /* rows: B-251 R-02 */
    ck_assert(is_empty(c2));
    ck_assert_str_eq(sent(), M("bye") "[C]");
    ck_assert(is_terminate(req(1003, "", ""), "item-not-found")); /* rows: B-255 */
    ck_assert(is_empty(req(1002, "type='terminate'", "")));       /* rows: B-256 R-07 */
}
END_TEST

START_TEST(test_B_252_terminate_alone)
{
    open_session("");
    ck_assert(is_terminate(req(1001, "type='terminate' condition='bad-request'", ""),
                           "")); /* rows: B-258 */
}
END_TEST

START_TEST(test_B_254_terminate_brings_what_was_queued)
{
    int c;

    open_session("");
    server(M("one"));
    server(M("two"));
    c = req(1001, "type='terminate'", M("bye"));
    ck_assert(is_terminate(c, ""));
    ck_assert(contains(c, M("one") M("two")));
    ck_assert_str_eq(sent(), M("bye") "[C]");
}
END_TEST

START_TEST(test_B_127_terminate_in_its_turn)
{
    int t, c;

    open_session("");
    t = req(1002, "type='terminate'", "");
    ck_assert(held(t));
    c = req(1001, "", M("first"));
    ck_assert_str_eq(sent(), M("first") "[C]"); /* rows: B-257 */
    ck_assert(!held(t) && !held(c));
}
END_TEST

START_TEST(test_B_261_the_end_waits_for_the_next_request)
{
    int c;

    open_session("");
    server(M("last words"));
    server("<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>");
    link_over(BOSH_COND_REMOTE_STREAM_ERROR);
    c = req(1001, "", "");
    ck_assert(is_terminate(c, "remote-stream-error"));
    ck_assert(contains(c, "last words")); /* rows: X-081 */
    ck_assert(contains(c, "<stream:error><conflict"));
    ck_assert(contains(c, "xmlns:stream=")); /* rows: X-080 X-083 */
    ck_assert(is_terminate(req(1002, "", ""), "item-not-found"));
    ck_assert_str_eq(answer(req(1001, "", "")), answer(c));
}
END_TEST

START_TEST(test_X_080_the_error_comes_with_the_end)
{
    int c;

    open_session("");
    c = req(1001, "", "");
    server("<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>");
    ck_assert(is_terminate(c, "remote-stream-error")); /* before the loop has closed the stream */
    ck_assert(contains(c, "<stream:error><conflict"));
    link_over(BOSH_COND_REMOTE_STREAM_ERROR);
    ck_assert(is_terminate(req(1002, "", ""), "item-not-found"));
}
END_TEST

START_TEST(test_B_262_every_open_request_is_answered_at_the_end)
{
    int c1, c2;

    post("rid='1000' to='example.com' wait='10' hold='2' ver='1.6'", "");
    server_header("id='x' version='1.0'");
    server("<stream:features/>");
    c1 = req(1001, "", "");
    c2 = req(1002, "", "");
    link_over(BOSH_COND_REMOTE_CONNECTION_FAILED);
    ck_assert(is_terminate(c1, "remote-connection-failed"));
    ck_assert(is_empty(c2)); /* rows: X-082 X-085 */
}
END_TEST

START_TEST(test_B_261_the_end_is_not_told_to_a_dead_connection)
{
    int a, b;

    open_session("");
    a = req(1001, "", "");
    hang_up(a);
    link_over(BOSH_COND_REMOTE_CONNECTION_FAILED);
    b = req(1002, "", "");
    ck_assert(is_terminate(b, "remote-connection-failed"));
}
END_TEST

START_TEST(test_B_100_failure_at_creation)
{
    int c = post("rid='1000' to='example.com' wait='10' hold='1' ver='1.6'", "");

    link_over(BOSH_COND_REMOTE_CONNECTION_FAILED);
    ck_assert(is_terminate(c, "remote-connection-failed"));
    pass(16 * SEC);
    ck_assert_ptr_null(session());
}
END_TEST

START_TEST(test_B_309_shutdown)
{
    int c;

    open_session("");
    c = req(1001, "", "");
    bosh_session_end(&E->a, E->now, session(), BOSH_COND_SYSTEM_SHUTDOWN);
    settle();
    ck_assert(is_terminate(c, "system-shutdown"));
    env_close();
    env_open();
    open_session("");
    bosh_session_end(&E->a, E->now, session(), BOSH_COND_SYSTEM_SHUTDOWN);
    settle();
    ck_assert_str_eq(sent(), "[C]");
    ck_assert(is_terminate(req(1001, "", ""), "system-shutdown")); /* nobody was there to be told */
    ck_assert_str_eq(sent(), "");
    E->a.h->closing = 1;
    ck_assert(is_terminate(post("rid='1' to='example.com'", ""), "system-shutdown"));
    E->a.h->closing = 0;
}
END_TEST

START_TEST(test_a_dead_owner)
{
    uint32_t lost = 0;
    bosh_ix from = 0;
    int c;

    open_session("");
    c = req(1001, "", "");
    while (bosh_session_peer_died(&E->a, E->now, E->owner, E->peer, &from, 8, &lost)) {
    }
    ck_assert_uint_eq(lost, 1);
    poll_conn(c, false);
    ck_assert(is_terminate(c, "remote-connection-failed"));
    ck_assert_uint_eq(session()->link.owner, E->peer);
}
END_TEST

/* Nothing was said yet, so the heir begins again: by the line that was chosen, if it has the same lines, for the first
 * one of that domain may be another virtual host's. */
START_TEST(test_a_dead_owner_that_was_connecting)
{
    for (uint32_t later = 0; later < 2; later++) {
        uint32_t lost = 0;
        bosh_ix from = 0;

        if (later > 0) {
            env_close();
            env_open();
        }
        post("rid='1000' to='example.com'", "");
        session()->link.upstream = 7;
        bosh_arena_peer(&E->a, E->peer)->generation = later;
        while (bosh_session_peer_died(&E->a, E->now, E->owner, E->peer, &from, 8, &lost)) {
        }
        ck_assert_uint_eq(lost, 0);
        ck_assert_uint_eq(session()->link.owner, E->peer);
        ck_assert_int_eq(session()->link.phase, BOSH_LINK_CONNECT);
        ck_assert_uint_eq(session()->link.upstream, later == 0 ? 7 : BOSH_ROW_UNKNOWN);
    }
}
END_TEST

START_TEST(test_a_dead_holder)
{
    uint32_t lost = 0;
    bosh_ix from = 0;
    int c, d;

    open_session("");
    c = req(1001, "", "");
    while (bosh_session_peer_died(&E->a, E->now, E->peer, E->owner, &from, 8, &lost)) {
    }
    E->conns[c].gone = true;
    ck_assert_uint_eq(lost, 0);
    server(M("kept"));
    d = req(1001, "", "");
    ck_assert(contains(d, "kept"));
}
END_TEST

/* ---- restart ---- */

START_TEST(test_X_040_restart)
{
    int c;

    open_session("");
    server("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    ck_assert(
        contains(req(1001, "", "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"), "<success"));
    sent();
    c = req(1002, "xmpp:restart='true' to='example.com' xml:lang='fr'", "<iq/>");
    ck_assert_str_eq(
        sent(), "[H]<stream:stream xmlns='jabber:client' "
                "xmlns:stream='http://etherx.jabber.org/streams' to='example.com' version='1.0' "
                "xml:lang='fr'>"); /* rows: X-040 X-042 X-043 */
    server_header("id='st2' version='1.0'");
    server("<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></stream:features>");
    ck_assert(contains(c, "<bind")); /* rows: X-044 */
    ck_assert(!contains(c, "authid="));
    ck_assert(!contains(c, "sid=")); /* rows: X-045 */
    ck_assert_uint_eq(session()->link.hello.len, 0);
}
END_TEST

START_TEST(test_B_361_http_for_an_https_session)
{
    char buf[256];
    int c;

    post_tls(true, "rid='1000' to='example.com' wait='10' hold='1' ver='1.6'", "");
    server_header("id='x' version='1.0'");
    server("<stream:features/>");
    c = req(1001, "", "");
    ck_assert_str_eq(answer(c), "closed");
    snprintf(buf, sizeof(buf), "sid='%s' rid='1001'", E->sid);
    c = post_tls(true, buf, ""); /* rows: B-361 B-362 */
    ck_assert(held(c));
}
END_TEST

START_TEST(test_B_320_legacy_clients)
{
    int c;

    post("rid='1000' to='example.com' wait='1' hold='1'", "");
    pass(2 * SEC);
    c = req(1009, "", "");
    ck_assert(E->conns[c].v.legacy); /* rows: B-320 */
    env_close();
    env_open();
    post("rid='1000' to='example.com' wait='1' hold='1' ver='1.5'", "");
    pass(2 * SEC);
    ck_assert(E->conns[req(1009, "", "")].v.legacy); /* rows: B-324 */
    env_close();
    env_open();
    open_session("");
    ck_assert(!E->conns[req(1009, "", "")].v.legacy);
}
END_TEST

START_TEST(test_B_145_resends_do_not_keep_a_gap_alive)
{
    open_session("");
    server(M("x"));
    req(1001, "", "");
    req(1003, "", M("late"));
    for (int i = 0; i < 3; i++) {
        pass(9 * SEC);
        req(1001, "", "");
    }
    ck_assert(session()->state == BOSH_ST_LIVE);
    pass(4 * SEC);
    ck_assert(session()->state == BOSH_ST_TOMB);
}
END_TEST

START_TEST(test_payload_behind_a_gap_is_bounded)
{
    char *big = malloc(400000);
    int c;

    open_session("");
    snprintf(big, 400000, M("%0390000d"), 1);
    ck_assert(held(req(1002, "", big)));
    c = req(1003, "type='terminate'", big); /* one more than the window, and too much to keep */
    ck_assert_str_eq(answer(c), "503");
    c = req(1001, "", big); /* what closes the gap is always taken */
    ck_assert(is_empty(c));
    free(big);
}
END_TEST

START_TEST(test_B_221_pause_zero)
{
    int c;

    open_session("");
    E->lazy = true;
    c = req(1001, "pause='0'", "");
    ck_assert(is_empty(c));
    bosh_session_tick(&E->a, E->now, session(), &E->lim); /* before the worker has copied it out */
    ck_assert(is_empty(req(1001, "pause='0'", "")));
    E->lazy = false;
    settle();
}
END_TEST

START_TEST(test_an_error_nobody_hears_does_not_stay_for_ever)
{
    E->lim.inactivity = 0;
    open_session("");
    server("<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>");
    link_over(BOSH_COND_REMOTE_STREAM_ERROR);
    pass(100 * SEC);
    ck_assert_ptr_null(session());
}
END_TEST

START_TEST(test_B_087_a_restart_cannot_go_elsewhere)
{
    open_session("");
    req(1001, "xmpp:restart='true' to='internal.example'", "");
    ck_assert_ptr_nonnull(strstr(sent(), " to='example.com'"));
}
END_TEST

START_TEST(test_B_362_bad_requests_without_tls_do_no_harm)
{
    const bosh_client_t plain = {.ip = "192.0.2.1"}, secure = {.ip = "192.0.2.1", .tls = true};
    bosh_verdict_t v;

    post_tls(true, "rid='1000' to='example.com' wait='10' hold='1' ver='1.6'", "");
    server_header("id='x' version='1.0'");
    server("<stream:features/>");
    bosh_session_bad_request(&E->a, E->now, E->sid, &plain, &v);
    ck_assert_int_eq(v.act, BOSH_DO_CLOSE);
    ck_assert(session()->state == BOSH_ST_LIVE);
    bosh_session_bad_request(&E->a, E->now, E->sid, &secure, &v);
    ck_assert_int_eq(v.act, BOSH_DO_TELL);
    ck_assert(session()->state == BOSH_ST_TOMB);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_B_063_creation_answer,
        test_B_064_wait_and_hold_are_never_raised,
        test_B_070_versions_compare_by_parts,
        test_R_12_no_ver_for_a_client_without,
        test_B_074_polling_sessions_live_longer,
        test_B_077_creation_attributes_are_not_repeated,
        test_B_090_acks_only_when_asked_for,
        test_B_101_full_table,
        test_B_096_payload_in_the_creation_request,
        test_X_038_a_server_without_version,
        test_X_030_features_later,
        test_B_110_payload_goes_up_while_the_request_waits,
        test_B_111_out_of_order_arrival,
        test_B_113_answers_in_rid_order,
        test_B_115_wait,
        test_B_116_hold,
        test_B_119_queued_payload_comes_at_once,
        test_B_121_each_request_has_its_own_wait,
        test_B_123_large_backlog_is_split_between_stanzas,
        test_B_125_back_pressure_towards_the_server,
        test_B_125_back_pressure_towards_the_client,
        test_B_125_full_both_ways,
        test_full_memory_loses_nothing,
        test_a_full_arena_can_be_emptied,
        test_X_002_kinds_do_not_mix,
        test_B_141_beyond_the_window,
        test_B_142_one_more_for_terminate,
        test_B_143_window_scales_with_requests,
        test_B_145_a_gap_that_stays_open,
        test_R_05_payload_behind_an_excused_gap_is_kept,
        test_B_147_too_old_and_too_new_alike,
        test_B_148_the_same_future_rid_twice,
        test_B_149_large_rids,
        test_B_151_other_requests_of_a_session_that_was_ended,
        test_B_160_the_last_answers_are_kept,
        test_B_112_an_answer_waits_for_its_holder,
        test_B_165_a_repeat_takes_over,
        test_B_165_a_holder_that_comes_too_late,
        test_B_168_too_many_repeats,
        test_B_180_an_answer_lost_with_its_connection,
        test_a_page_reload_loses_nothing,
        test_a_reload_with_undetected_hang_up_loses_nothing,
        test_B_171_acks_keep_what_is_unacknowledged,
        test_B_173_a_missing_ack_acknowledges,
        test_B_174_a_client_that_never_acknowledges,
        test_B_175_impossible_acks,
        test_B_175_an_ack_of_what_is_not_answered,
        test_B_178_ack_names_only_news,
        test_B_200_inactivity,
        test_B_202_no_inactivity_while_held,
        test_B_202_a_request_that_had_to_wait_for_room,
        test_B_202_a_request_that_waits_for_room,
        test_B_204_resends_count_as_activity,
        test_B_205_inactivity_after_creation,
        test_B_206_server_traffic_is_no_activity,
        test_B_207_inactivity_from_a_hang_up,
        test_B_209_no_inactivity,
        test_B_211_pause,
        test_B_215_a_request_before_its_turn_ends_a_pause,
        test_B_212_pause_answers_carry_nothing,
        test_B_214_a_short_pause,
        test_B_216_pause_too_long,
        test_B_217_pause_not_offered,
        test_B_170_a_resent_pause,
        test_B_222_pause_waits_for_its_turn,
        test_B_240_polling_sessions,
        test_B_250_terminate,
        test_B_252_terminate_alone,
        test_B_254_terminate_brings_what_was_queued,
        test_B_127_terminate_in_its_turn,
        test_B_261_the_end_waits_for_the_next_request,
        test_X_080_the_error_comes_with_the_end,
        test_B_262_every_open_request_is_answered_at_the_end,
        test_B_261_the_end_is_not_told_to_a_dead_connection,
        test_B_100_failure_at_creation,
        test_B_309_shutdown,
        test_a_dead_owner,
        test_a_dead_owner_that_was_connecting,
        test_a_dead_holder,
        test_X_040_restart,
        test_B_361_http_for_an_https_session,
        test_B_320_legacy_clients,
        test_B_145_resends_do_not_keep_a_gap_alive,
        test_payload_behind_a_gap_is_bounded,
        test_B_221_pause_zero,
        test_an_error_nobody_hears_does_not_stay_for_ever,
        test_B_087_a_restart_cannot_go_elsewhere,
        test_B_362_bad_requests_without_tls_do_no_harm,
    };
    Suite *suite = suite_create("session");
    TCase *tc = tcase_create("session");
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
