/* SPDX-License-Identifier: Apache-2.0 */
/* The loop itself: back-pressure, memory, mail, deadlines, sleeping, stopping. */
#include "rig.h"

#define MSG "<message xmlns='jabber:client'><body>%06d</body></message>"
#define END "</stream:stream>"

#define STOPS                                                                                      \
    apr_time_from_sec(5) /* it takes one when a server stands still; on a busy machine more */

/* ---- back-pressure ---- */

/* Sends messages until the loop has stopped reading and the socket is full; returns how many went out whole.
 * What is left of the one behind them is in `tail`. */
static char tail[128];

static int flood(chat_t *c)
{
    struct pollfd p = {c->fd, POLLOUT, 0};
    int whole = -1;

    for (;;) {
        ssize_t put;
        if (tail[0] == '\0') {
            snprintf(tail, sizeof(tail), MSG, ++whole);
        }
        put = send(c->fd, tail, strlen(tail), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (put > 0) {
            memmove(tail, tail + put, strlen(tail + put) + 1);
        } else if ((link_of(c).flags & BOSH_LINK_STALLED) && poll(&p, 1, 10) == 0) {
            return whole;
        }
    }
}

/* Checks that the answers so far carry messages in order, from *next on. */
static void take_messages(const char *text, int *next)
{
    const char *p = text;

    while ((p = strstr(p, "<body>")) != NULL) {
        ck_assert_int_eq(atoi(p + 6), *next);
        (*next)++;
        p += 6;
    }
}

static void drain(chat_t *c, int total, int next)
{
    while (next < total) {
        take_messages(answer(c->held), &next);
        ck_assert_msg(strstr(answer(c->held), "terminate") == NULL, "message %d of %d: %.300s",
                      next, total, answer(c->held));
        free(R.call[c->held].answer);
        R.call[c->held].answer = NULL;
        R.ncalls = next == total ? R.ncalls : R.ncalls % (WAITERS - 8);
        memset(&R.call[R.ncalls], 0, sizeof(call_t));
        ask(c, "", "");
    }
}

/* A slow client stops the server, nothing is lost, the queue stays bounded. */
START_TEST(slow_client)
{
    int total, small = 16 * 1024;
    chat_t c;

    R.lim.queue_size = 32 * 1024;
    loop_open();
    login(&c);
    setsockopt(c.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    total = flood(&c);
    ck_assert_int_gt(total, 500);
    ck_assert_uint_lt(link_of(&c).up.b.len, R.lim.queue_size + 32 * 1024);
    {
        bosh_loop_stats_t before = stats();
        loop_settle();
        ck_assert_uint_eq(stats().reads, before.reads); /* it does not even try */
    }
    ask(&c, "", "");
    {
        int next = 0;
        take_messages(answer(c.held), &next);
        ck_assert_int_gt(next, 10);
        ask(&c, "", "");
        drain(&c, total, next);
        serve(c.fd, tail);
        drain(&c, total + 1, total);
    }
    validate();
    close(c.fd);
}
END_TEST

/* The server goes while we are not reading: no spinning, and what it said first still arrives. */
START_TEST(server_gone_while_stalled)
{
    int total, next = 0, small = 16 * 1024;
    struct linger l = {1, 0};
    bosh_loop_stats_t before;
    chat_t c;

    R.lim.queue_size = 32 * 1024;
    loop_open();
    login(&c);
    setsockopt(c.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    total = flood(&c);
    setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
    close(c.fd); /* a reset: it discards what was not sent yet */
    loop_settle();
    before = stats();
    poll(NULL, 0, 1500); /* time to spin in: the sweep alone may turn the loop */
    ck_assert_uint_le(stats().turns - before.turns, 6);
    ask(&c, "", "");
    for (;;) {
        const char *text = answer(c.held);
        take_messages(text, &next);
        if (strstr(text, "terminate") != NULL) {
            ASSERT_HAS(text, "condition='remote-connection-failed'");
            break;
        }
        ask(&c, "", "");
    }
    ck_assert_int_gt(next, 100);
    ck_assert_int_le(next, total + 1);
    AWAIT(stats().sockets == 0);
}
END_TEST

/* No chunks left: the loop waits and goes on where it stopped, in the middle of a batch of events. */
START_TEST(out_of_chunks)
{
    int total, small = 16 * 1024;
    chat_t c;

    R.lim.answer_size = 4096; /* the reserve for answers is small here, too */
    loop_open();
    login(&c);
    setsockopt(c.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    total = flood(&c);
    validate();
    ask(&c, "", "");
    {
        int next = 0;
        take_messages(answer(c.held), &next);
        ck_assert_int_gt(next, 10);
        ask(&c, "", "");
        drain(&c, total, next);
        serve(c.fd, tail);
        drain(&c, total + 1, total);
    }
    close(c.fd);
}
END_TEST

/* A server that reads slowly gets everything in the end, in pieces. */
START_TEST(slow_server)
{
    size_t each = 50000, have = 0, total;
    char *payload = malloc(each + 100), *got;
    int n, calls = 0, small = 4096;
    chat_t c;

    loop_open();
    create(&c, "", "");
    setsockopt(lfd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    c.fd = accept_one(lfd);
    expect(c.fd, CLIENT_HEAD);
    serve(c.fd, STREAM_HEAD FEATURES);
    answer(c.held);
    n = snprintf(payload, each + 100, "<message xmlns='jabber:client'><body>%0*d</body></message>",
                 (int)each, 1);
    for (calls = 0; calls < 20; calls++) {
        ask(&c, "", payload); /* each answers the one before */
    }
    total = (size_t)n * 20;
    got = calloc(1, total + 1);
    while (have < total) {
        ssize_t r;
        await_readable(c.fd);
        r = read(c.fd, got + have, total - have < 3000 ? total - have : 3000);
        ck_assert_int_gt(r, 0);
        have += (size_t)r;
    }
    for (int i = 0; i < 20; i++) {
        ck_assert_int_eq(memcmp(got + (size_t)n * (size_t)i, payload, (size_t)n), 0);
    }
    AWAIT(link_of(&c).down.b.len == 0);
    free(got);
    free(payload);
    close(c.fd);
}
END_TEST

/* Large payloads for a server that does not read, until the kernel takes no more of them. */
static void block_server(chat_t *c)
{
    size_t each = 200000;
    char *payload = malloc(each + 100);
    int small = 4096;

    setsockopt(lfd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    login(c);
    snprintf(payload, each + 100, "<a xmlns='jabber:client'>%0*d</a>", (int)each, 1);
    for (int i = 0; i < 100 && link_of(c).down.b.len < 300000; i++) {
        ask(c, "", payload);
        loop_settle();
    }
    free(payload);
    ck_assert_uint_ge(link_of(c).down.b.len, 300000);
}

/* The connection breaks while we have much to write: what the server said before still arrives. */
START_TEST(reset_while_writing)
{
    struct linger l = {1, 0};
    chat_t c;

    loop_open();
    block_server(&c);
    serve(c.fd, "<message xmlns='jabber:client'><body>last words</body></message>");
    ASSERT_HAS(answer(c.held), "last words");
    ask(&c, "", "");
    setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
    close(c.fd);
    ASSERT_HAS(answer(c.held), "condition='remote-connection-failed'");
    AWAIT(stats().sockets == 0);
    AWAIT(link_of(&c).down.b.len == 0);
}
END_TEST

/* A server that does not read cannot hold up a stop; nothing goes into the middle of a stanza. */
START_TEST(stop_with_blocked_server)
{
    static char got[8 << 20];
    apr_time_t start;
    size_t have = 0;
    ssize_t n;
    chat_t c;

    loop_open();
    block_server(&c);
    start = bosh_clock_now();
    ck_assert_int_eq(bosh_loop_stop(R.loop), APR_SUCCESS);
    ck_assert_int_lt(bosh_clock_now() - start, STOPS);
    while ((n = read(c.fd, got + have, sizeof(got) - 1 - have)) > 0) {
        have += (size_t)n;
    }
    ck_assert_uint_gt(have, 10000);
    ck_assert_ptr_null(strstr(got, END));
    close(c.fd);
}
END_TEST

/* ---- mail and deadlines ---- */

static bool expired(unsigned n)
{
    bool yes;

    pthread_mutex_lock(&R.mutex);
    yes = R.expires >= n;
    pthread_mutex_unlock(&R.mutex);
    return yes;
}

/* Of a deadline in 50 ms, asked for when the loop has just swept. */
static apr_time_t expires_after(void)
{
    apr_time_t took, start = bosh_clock_now();

    R.expires = 0;
    loop_open();
    __atomic_store_n(&R.deadline, start + apr_time_from_msec(50), __ATOMIC_SEQ_CST);
    bosh_loop_kick(R.loop);
    AWAIT(expired(1));
    took = bosh_clock_now() - start;
    return took;
}

START_TEST(deadlines_of_held_requests)
{
    apr_time_t took = expires_after();

    /* Not by the sweep, which comes after a second. The machine may stand still for as long, but not every time. */
    for (int more = 4; more > 0 && took >= apr_time_from_msec(900); more--) {
        loop_close();
        took = expires_after();
    }
    ck_assert_int_ge(took, apr_time_from_msec(50));
    ck_assert_int_lt(took, apr_time_from_msec(900));
}
END_TEST

static unsigned wake_alls(void)
{
    unsigned n;

    pthread_mutex_lock(&R.mutex);
    n = R.wake_alls;
    pthread_mutex_unlock(&R.mutex);
    return n;
}

/* More mail than the box holds: everything is looked at. */
START_TEST(mailbox_overflow)
{
    chat_t c[3];

    loop_open();
    for (int i = 0; i < 3; i++) {
        login(&c[i]);
    }
    bosh_lock(R.lock);
    for (int i = 0; i < BOSH_MAILBOX + 10; i++) {
        bosh_arena_mail(&C.arena, bosh_loop_peer(R.loop), BOSH_MAIL_WAITER | 4000, 9);
    }
    for (int i = 0; i < 3; i++) { /* these do not get in: only the look at everything finds them */
        bosh_session_t *s = bosh_arena_get(&C.arena, c[i].index, c[i].serial);
        bosh_slice_t text = {"<x/>", 4};
        ck_assert_int_eq(
            bosh_queue_append(&C.arena, &s->link.down, BOSH_ITEM_STANZA, &text, 1, BOSH_PRIO_INPUT),
            APR_SUCCESS);
    }
    bosh_unlock(R.lock);
    for (int i = 0; i < 3; i++) {
        expect(c[i].fd, "<x/>");
        close(c[i].fd);
    }
    AWAIT(wake_alls() == 1);
}
END_TEST

/* Tombstones are freed by the owner's timer. */
START_TEST(records_are_freed)
{
    chat_t c;

    R.lim.inactivity = 1;
    loop_open();
    login(&c);
    expect(c.fd, END); /* nobody polls: inactivity ends it after a second */
    serve(c.fd, END);
    expect_eof(c.fd);
    close(c.fd);
    bosh_lock(R.lock);
    bosh_session_t *s = bosh_arena_get(&C.arena, c.index, c.serial);
    ck_assert_ptr_nonnull(s);
    ck_assert_int_eq((int)s->state, BOSH_ST_TOMB);
    s->inactive_at = bosh_clock_now(); /* its time as a tombstone is over */
    bosh_arena_mail(&C.arena, bosh_loop_peer(R.loop), c.index, c.serial);
    bosh_unlock(R.lock);
    AWAIT(stats().streams == 0);
    AWAIT(header().nsessions == 0);
}
END_TEST

/* 100 idle streams cost a wake-up a second, the sweep's. */
START_TEST(idle_is_idle)
{
    static chat_t c[100];
    uint64_t before;

    loop_open();
    for (int i = 0; i < 100; i++) {
        login(&c[i]);
        ask(&c[i], "", "");
    }
    loop_settle();
    before = stats().turns;
    poll(NULL, 0, 3000);
    ck_assert_uint_le(stats().turns - before, 6);
    for (int i = 0; i < 100; i++) {
        serve(c[i].fd, "<message/>");
        ASSERT_HAS(answer(c[i].held), "<message");
        close(c[i].fd);
    }
}
END_TEST

/* Chunks borrowed for reading come back; an idle session keeps none. */
START_TEST(idle_keeps_nothing)
{
    uint32_t before = header().nfree_chunks;
    chat_t c;

    loop_open();
    login(&c);
    ask(&c, "", "");
    for (int i = 0; i < 10; i++) {
        serve(c.fd, "<message/>");
        answer(c.held);
        ask(&c, "", "");
    }
    loop_settle();
    ck_assert_uint_le(before - header().nfree_chunks, 3); /* the stored answers */
    close(c.fd);
}
END_TEST

/* ---- stopping ---- */

START_TEST(drain_serves_on)
{
    uint32_t me;
    chat_t c;

    loop_open();
    me = bosh_loop_peer(R.loop);
    login(&c);
    ck_assert_int_eq((int)peer_state(me), BOSH_PEER_LIVE);
    bosh_loop_drain(R.loop);
    AWAIT(peer_state(me) == BOSH_PEER_DRAINING);
    ask(&c, "", "<a xmlns='jabber:client'/>");
    expect(c.fd, "<a xmlns='jabber:client'/>");
    serve(c.fd, "<b/>");
    ASSERT_HAS(answer(c.held), "<b ");
    close(c.fd);
}
END_TEST

/* The servers answer our end, or do not: a second in all. */
static void *closing_server(void *arg)
{
    int fd = *(int *)arg;
    char c;
    size_t n = 0;

    while (read(fd, &c, 1) == 1) {
        n += c == '>';
        if (n == 2) { /* our header was read before: <a/> and the end */
            (void)!write(fd, END, sizeof(END) - 1);
        }
    }
    return NULL;
}

START_TEST(stop_ends_sessions)
{
    uint32_t me;
    apr_time_t start;
    pthread_t server;
    chat_t c, silent, early;

    loop_open();
    me = bosh_loop_peer(R.loop);
    login(&c);
    login(&silent);
    create(&early, "", "");
    early.fd = accept_one(lfd);
    ask(&c, "", "<a xmlns='jabber:client'/>");
    pthread_create(&server, NULL, closing_server, &c.fd);
    start = bosh_clock_now();
    ck_assert_int_eq(bosh_loop_stop(R.loop), APR_SUCCESS);
    ck_assert_int_lt(bosh_clock_now() - start, STOPS);
    pthread_join(server, NULL);
    ck_assert_int_eq((int)peer_state(me), BOSH_PEER_FREE);
    c.rid--; /* both come again, to another child */
    early.rid--;
    ASSERT_HAS(answer(ask(&c, "", "")), "condition='system-shutdown'");
    ASSERT_HAS(answer(ask(&early, "", "")), "condition='system-shutdown'");
    expect(silent.fd, END);
    expect_eof(silent.fd);
    close(c.fd);
    close(silent.fd);
    close(early.fd);
    ck_assert_int_eq(bosh_loop_stop(R.loop), APR_SUCCESS); /* again: nothing */
}
END_TEST

static bool is_asleep(void)
{
    bool asleep;

    bosh_lock(R.lock);
    asleep = bosh_arena_peer(&C.arena, R.me)->asleep;
    bosh_unlock(R.lock);
    return asleep;
}

/* A worker takes the turn of a sleeping loop: the stanza is written when its request has been applied. */
START_TEST(a_worker_stands_in)
{
    char text[128];
    chat_t c;

    loop_open();
    login(&c);
    for (int i = 0; stats().stand_ins < 10; i++) {
        ck_assert_int_lt(i, WAIT_MS);
        AWAIT(is_asleep());
        snprintf(text, sizeof(text), MSG, i);
        ask(&c, "", text);
        expect(c.fd, text);
    }
    ck_assert_uint_ge(stats().writes, 10);
    close(c.fd);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("loop");
    TCase *t = tcase_create("loop");
    TCase *m = tcase_create("memory");
    SRunner *r;
    int failed;

    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, open_idle, close_default);
    tcase_add_test(t, slow_client);
    tcase_add_test(t, server_gone_while_stalled);
    tcase_add_test(t, slow_server);
    tcase_add_test(t, reset_while_writing);
    tcase_add_test(t, stop_with_blocked_server);
    tcase_add_test(t, deadlines_of_held_requests);
    tcase_add_test(t, mailbox_overflow);
    tcase_add_test(t, records_are_freed);
    tcase_add_test(t, a_worker_stands_in);
    tcase_add_test(t, idle_is_idle);
    tcase_add_test(t, idle_keeps_nothing);
    tcase_add_test(t, drain_serves_on);
    tcase_add_test(t, stop_ends_sessions);
    suite_add_tcase(s, t);
    tcase_set_timeout(m, 60);
    tcase_add_checked_fixture(m, open_small, close_default);
    tcase_add_test(m, out_of_chunks);
    suite_add_tcase(s, m);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
