/* SPDX-License-Identifier: Apache-2.0 */
/* One XMPP stream through the loop, against a server that says just what the test wants. */
#include "rig.h"

#include "bosh_down.h"

#define SASL(name) "<" name " xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"
#define MSG(text)  "<message><body>" text "</body></message>"
#define END        "</stream:stream>"

START_TEST(login_and_chat)
{
    chat_t c;

    login(&c);
    ASSERT_HAS(R.call[c.held].answer, "authid='s1'");
    ASSERT_HAS(R.call[c.held].answer, "<mechanism>PLAIN</mechanism>");
    ask(&c, "", "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AA==</auth>");
    expect(c.fd, "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AA==</auth>");
    ck_assert(is_held(c.held));
    serve(c.fd, SASL("success"));
    ASSERT_HAS(answer(c.held), SASL("success"));
    ask(&c, "", "");
    serve(c.fd, MSG("hello"));
    ASSERT_HAS(answer(c.held), "<message xmlns='jabber:client'><body>hello</body></message>");
    ask(&c, "", "");
    for (int i = 0; i < 3;
         i++) { /* the loop's read, the wake-up and the answer are three threads' work */
        serve(c.fd, MSG("again"));
        ASSERT_HAS(answer(c.held), "again");
        ask(&c, "", "");
    }
    ck_assert_uint_eq(link_of(&c).raw.len, 0);
    close(c.fd);
}
END_TEST

/* B-124: what comes with the creation waits until the stream is open. */
START_TEST(payload_waits_for_features)
{
    char c1[256];
    chat_t c;

    create(&c, "", "<iq xmlns='jabber:client' type='get' id='1'/>");
    c.fd = accept_one(lfd);
    expect(c.fd, CLIENT_HEAD);
    serve(c.fd, STREAM_HEAD);
    loop_settle();
    ck_assert_int_eq(recv(c.fd, c1, sizeof(c1), MSG_DONTWAIT), -1);
    ck_assert_int_eq(errno, EAGAIN);
    serve(c.fd, FEATURES);
    expect(c.fd, "<iq xmlns='jabber:client' type='get' id='1'/>");
    close(c.fd);
}
END_TEST

/* U-036 */
START_TEST(byte_by_byte)
{
    static const char text[] = STREAM_HEAD FEATURES;
    static const char more[] =
        "<message><body>gr\xc3\xbc\xc3\x9f \xf0\x9f\x90\x9f</body></message>";
    chat_t c;

    create(&c, "", "");
    c.fd = accept_one(lfd);
    expect(c.fd, CLIENT_HEAD);
    for (size_t i = 0; i + 1 < sizeof(text); i++) {
        ck_assert_int_eq(send(c.fd, text + i, 1, MSG_NOSIGNAL), 1);
        loop_settle();
    }
    ASSERT_HAS(answer(c.held), "<mechanism>PLAIN</mechanism>");
    ask(&c, "", "");
    for (size_t i = 0; i + 1 < sizeof(more); i++) {
        ck_assert(is_held(c.held));
        ck_assert_int_eq(send(c.fd, more + i, 1, MSG_NOSIGNAL), 1);
        loop_settle();
    }
    ASSERT_HAS(answer(c.held), "<body>gr\xc3\xbc\xc3\x9f \xf0\x9f\x90\x9f</body></message>");
    close(c.fd);
}
END_TEST

/* A header with namespaces of its own must prime later parsers: each stanza comes with a new one. */
START_TEST(prime_is_kept)
{
    chat_t c;

    create(&c, "", "");
    c.fd = accept_one(lfd);
    expect(c.fd, CLIENT_HEAD);
    serve(c.fd, "<s:stream xmlns='jabber:client' xmlns:s='http://etherx.jabber.org/streams' "
                "xmlns:db='urn:db' "
                "id='7' version='1.0'><s:features/>");
    ASSERT_HAS(answer(c.held), "<stream:features");
    for (int i = 0; i < 3; i++) {
        ask(&c, "", "");
        ck_assert_uint_gt(link_of(&c).prime.len, 0);
        serve(c.fd, "<message db:a='1'/>");
        ASSERT_HAS(answer(c.held), "xmlns:db='urn:db'");
    }
    ask(&c, "", "");
    serve(c.fd, "</s:stream>");
    ASSERT_HAS(answer(c.held), "type='terminate'");
    close(c.fd);
}
END_TEST

/* */
START_TEST(restart)
{
    chat_t c;
    int first;

    login(&c);
    first = ask(&c, "", "");
    serve(c.fd, SASL("success") "\n");
    ASSERT_HAS(answer(first), SASL("success"));
    ask(&c, "xmpp:restart='true' xml:lang='fr'", "");
    expect(c.fd,
           "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' "
           "to='example.com' version='1.0' xml:lang='fr'>");
    serve(c.fd, "\n" STREAM_HEAD "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>"
                "</stream:features>");
    ASSERT_HAS(answer(c.held), "<bind");
    ask(&c, "", "<iq xmlns='jabber:client'/>");
    expect(c.fd, "<iq xmlns='jabber:client'/>");
    close(c.fd);
}
END_TEST

/* bytes of the old stream that lie in the socket at the restart are delivered. */
START_TEST(restart_after_unread_bytes)
{
    chat_t c;

    login(&c);
    bosh_lock(R.lock); /* the loop gets both at once, or the bytes first; never the restart alone */
    serve(c.fd, MSG("old"));
    bosh_unlock(R.lock);
    ask(&c, "xmpp:restart='true'", "");
    expect(c.fd, CLIENT_HEAD);
    ASSERT_HAS(answer(c.held), "old");
    ask(&c, "", "");
    serve(c.fd, STREAM_HEAD FEATURES);
    ASSERT_HAS(answer(c.held), "<stream:features>");
    close(c.fd);
}
END_TEST

/* */
START_TEST(server_before_xmpp_1)
{
    chat_t c;

    create(&c, "", "<iq xmlns='jabber:client'/>");
    c.fd = accept_one(lfd);
    expect(c.fd, CLIENT_HEAD);
    serve(c.fd, "<stream:stream xmlns='jabber:client' "
                "xmlns:stream='http://etherx.jabber.org/streams' id='old'>");
    ASSERT_HAS(answer(c.held), "authid='old'");
    expect(c.fd, "<iq xmlns='jabber:client'/>");
    close(c.fd);
}
END_TEST

/* white space keeps nothing busy and is not kept. */
START_TEST(whitespace_keepalive)
{
    chat_t c;

    login(&c);
    ask(&c, "", "");
    for (int i = 0; i < 5; i++) {
        uint64_t before = stats().bytes_in;
        serve(c.fd, i % 2 ? " " : "\r\n\t ");
        AWAIT(stats().bytes_in > before);
    }
    loop_settle();
    ck_assert(is_held(c.held));
    ck_assert_uint_eq(link_of(&c).raw.len, 0);
    serve(c.fd, " " MSG("x"));
    ASSERT_HAS(answer(c.held), "<body>x</body>");
    close(c.fd);
}
END_TEST

static void failing(const char *from_server, const char *to_server, const char *wanted)
{
    chat_t c;

    login(&c);
    ask(&c, "", "");
    serve(c.fd, from_server);
    ASSERT_HAS(answer(c.held), wanted);
    ASSERT_HAS(answer(c.held), "type='terminate'");
    expect(c.fd, to_server);
    expect_eof(c.fd);
    AWAIT(link_of(&c).phase == BOSH_LINK_CLOSED);
    AWAIT(stats().sockets == 0);
    close(c.fd);
}

#define SE(condition)                                                                              \
    "<stream:error><" condition " xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></"                 \
    "stream:error>" END

/* */
START_TEST(server_ends_cleanly)
{
    failing(MSG("bye") END, END, "bye");
    ck_assert_ptr_null(strstr(R.call[R.ncalls - 1].answer, "condition="));
}
END_TEST

/* U-034 */
START_TEST(stream_error)
{
    failing(MSG("last") "<stream:error><conflict "
                        "xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>" END,
            END, "condition='remote-stream-error'");
    ASSERT_HAS(R.call[R.ncalls - 1].answer, "<conflict");
    ASSERT_HAS(R.call[R.ncalls - 1].answer, "last");
}
END_TEST

/* */
START_TEST(malformed)
{
    failing(MSG("good") "<a><b></a>", SE("not-well-formed"),
            "condition='remote-connection-failed'");
    ASSERT_HAS(R.call[R.ncalls - 1].answer, "good");
}
END_TEST

/* U-037 */
START_TEST(restricted)
{
    failing("<message><!-- --></message>", SE("restricted-xml"),
            "condition='remote-connection-failed'");
}
END_TEST

/* U-038 */
START_TEST(too_large)
{
    chat_t c;
    char *text = malloc(400000);
    char got[512] = "";
    size_t put = 0, have = 0;

    memset(text, 'x', 400000);
    memcpy(text, "<message><body>", 15);
    login(&c);
    ask(&c, "", "");
    while (put < 400000) { /* the loop hangs up on the way */
        ssize_t n = send(c.fd, text + put, 400000 - put, MSG_NOSIGNAL);
        if (n < 0) {
            break;
        }
        put += (size_t)n;
    }
    ASSERT_HAS(answer(c.held), "condition='remote-connection-failed'");
    for (ssize_t n = 1; n > 0 && have<sizeof(got) - 1; have += n> 0 ? (size_t)n : 0) {
        n = recv(c.fd, got + have, sizeof(got) - 1 - have,
                 0); /* may end with ECONNRESET: we were not read */
    }
    ck_assert(have == 0 || strcmp(got, SE("policy-violation")) == 0);
    close(c.fd);
    free(text);
}
END_TEST

/* */
START_TEST(connection_lost)
{
    chat_t c;

    login(&c);
    serve(c.fd, MSG("before"));
    close(c.fd);
    ask(&c, "", "");
    ASSERT_HAS(answer(c.held), "before");
    if (strstr(answer(c.held), "terminate") == NULL) {
        ask(&c, "", "");
    }
    ASSERT_HAS(answer(c.held), "condition='remote-connection-failed'");
}
END_TEST

/* A reset instead of an end, while we write. */
START_TEST(connection_reset)
{
    struct linger l = {1, 0};
    chat_t c;

    login(&c);
    ask(&c, "", "");
    ck_assert_int_eq(setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l)), 0);
    close(c.fd);
    ASSERT_HAS(answer(c.held), "condition='remote-connection-failed'");
    AWAIT(stats().sockets == 0);
}
END_TEST

/* U-045 */
START_TEST(starttls_required)
{
    chat_t c;

    create(&c, "", "");
    c.fd = accept_one(lfd);
    expect(c.fd, CLIENT_HEAD);
    serve(c.fd, STREAM_HEAD
          "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/>"
          "</starttls></stream:features>");
    ASSERT_HAS(answer(c.held), "condition='remote-connection-failed'");
    ck_assert(warned("requires STARTTLS"));
    expect(c.fd, END);
    expect_eof(c.fd);
    close(c.fd);
}
END_TEST

/* 6120 4.4: payload, our end, the server's, the connection. */
START_TEST(client_terminates)
{
    chat_t c;

    login(&c);
    ask(&c, "type='terminate'", "<presence xmlns='jabber:client' type='unavailable'/>");
    ASSERT_HAS(answer(c.held), "type='terminate'");
    expect(c.fd, "<presence xmlns='jabber:client' type='unavailable'/>" END);
    ck_assert_int_eq(link_of(&c).phase, BOSH_LINK_CLOSING);
    ck_assert_uint_eq(stats().sockets, 1);
    serve(c.fd, MSG("too late") END);
    expect_eof(c.fd);
    AWAIT(link_of(&c).phase == BOSH_LINK_CLOSED);
    close(c.fd);
}
END_TEST

/* What the server still says is looked through for its end, in whatever pieces. */
START_TEST(server_closes_slowly)
{
    static const char last[] = "<message><body>too late</body></message> " END;
    chat_t c;

    login(&c);
    serve(c.fd, "<message><bo"); /* half an element is being read */
    loop_settle();
    ask(&c, "type='terminate'", "");
    ASSERT_HAS(answer(c.held), "type='terminate'");
    expect(c.fd, END);
    serve(c.fd, "dy/></message>");
    for (size_t i = 0; i + 1 < sizeof(last); i++) {
        ck_assert_int_eq(send(c.fd, last + i, 1, MSG_NOSIGNAL), 1);
        loop_settle();
    }
    expect_eof(c.fd);
    AWAIT(link_of(&c).phase == BOSH_LINK_CLOSED);
    close(c.fd);
}
END_TEST

/* ... and without the server's: the connection goes after two seconds all the same. */
START_TEST(server_does_not_close)
{
    apr_time_t start;
    chat_t c;

    login(&c);
    ask(&c, "type='terminate'", "");
    ASSERT_HAS(answer(c.held), "type='terminate'");
    expect(c.fd, END);
    start = bosh_clock_now();
    expect_eof(c.fd);
    ck_assert_int_gt(bosh_clock_now() - start, apr_time_from_msec(1000));
    close(c.fd);
}
END_TEST

/* The client gives up before the stream is open. */
START_TEST(terminated_early)
{
    chat_t c;

    create(&c, "", "");
    c.fd = accept_one(lfd);
    expect(c.fd, CLIENT_HEAD);
    ask(&c, "type='terminate'", "");
    ASSERT_HAS(answer(c.held - 1), "type='terminate'"); /* the oldest gets it */
    expect(c.fd, END);
    expect_eof(c.fd);
    close(c.fd);
}
END_TEST

/* Hints may name what does not exist, or no longer. */
START_TEST(stale_mail)
{
    uint32_t me = bosh_loop_peer(R.loop);
    chat_t c;

    login(&c);
    ask(&c, "", "");
    bosh_lock(R.lock);
    bosh_arena_mail(&C.arena, me, 0, 1);
    bosh_arena_mail(&C.arena, me, 77777, 1);
    bosh_arena_mail(&C.arena, me, 60, 1);
    bosh_arena_mail(&C.arena, me, c.index, c.serial + 5);
    bosh_arena_mail(&C.arena, me, BOSH_MAIL_WAITER | 99999, 1);
    bosh_unlock(R.lock);
    loop_settle();
    ck_assert_uint_eq(stats().streams, 1);
    serve(c.fd, MSG("x"));
    ASSERT_HAS(answer(c.held), "<body>x</body>");
    close(c.fd);
}
END_TEST

/* A record that went without asking (the arena was repaired): its socket goes, too. */
START_TEST(record_lost)
{
    chat_t c, next;

    login(&c);
    bosh_lock(R.lock);
    bosh_arena_session_free(&C.arena, bosh_arena_get(&C.arena, c.index, c.serial));
    bosh_unlock(R.lock);
    create(&next, "", ""); /* takes the same record */
    ck_assert_uint_eq(next.index, c.index);
    next.fd = accept_one(lfd);
    expect(next.fd, CLIENT_HEAD);
    serve(next.fd, STREAM_HEAD FEATURES);
    ASSERT_HAS(answer(next.held), "<stream:features>");
    expect_eof(c.fd);
    ck_assert_uint_eq(stats().streams, 1);
    ck_assert_uint_eq(stats().sockets, 1);
    bosh_lock(R.lock);
    bosh_arena_session_free(&C.arena, bosh_arena_get(&C.arena, next.index, next.serial));
    bosh_unlock(R.lock);
    serve(next.fd, MSG("to nobody"));
    expect_eof_or_reset(next.fd);
    AWAIT(stats().streams == 0);
    close(c.fd);
    close(next.fd);
}
END_TEST

/* Text of our own that the socket does not take waits, and goes before anything else. */
START_TEST(own_text_waits)
{
    static char big[300000];
    static char got[2 * sizeof(big)];
    size_t have = 0, total = 2 * sizeof(big) - 2;
    bosh_streams_t *ss = bosh_streams_create(&R.cfg, R.lock, 2, -1);
    bosh_stream_t st;
    int sv[2];

    memset(&st, 0, sizeof(st));
    memset(big, 'a', sizeof(big) - 1);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv), 0);
    ck_assert_int_eq(bosh_conn_adopt(&st.conn, ss->sockets, sv[0], AF_UNIX, BOSH_CONN_UP),
                     APR_SUCCESS);
    signal(SIGPIPE, SIG_IGN); /* as in httpd, and blocked in the loop's thread */
    bosh_down_say(ss, &st, big, sizeof(big) - 1);
    ck_assert(st.want_write);
    memset(big, 'b', sizeof(big) - 1);
    bosh_down_say(ss, &st, big, sizeof(big) - 1);
    ck_assert_uint_gt(st.pend_n, sizeof(big));
    while (have < total) {
        ssize_t n = read(sv[1], got + have, total - have);
        ck_assert_int_gt(n, 0);
        have += (size_t)n;
        bosh_down_pump(ss, &st); /* no such session: gone, once the text is out */
    }
    ck_assert(st.gone);
    ck_assert_ptr_null(st.pend);
    ck_assert_ptr_eq(memchr(got, 'b', total), got + total / 2);
    ck_assert_int_eq(got[total - 1], 'b');
    close(sv[1]);
    bosh_down_say(ss, &st, "x", 1);
    ck_assert(st.write_dead);
    bosh_conn_close(&st.conn);
    bosh_streams_destroy(ss);
}
END_TEST

START_TEST(addresses_in_the_log)
{
    bosh_addr_t addr = {.len = sizeof(addr.sa.v6)};
    char text[100];

    addr.sa.v6.sin6_family = AF_INET6;
    addr.sa.v6.sin6_port = htons(5222);
    inet_pton(AF_INET6, "2001:db8::1", &addr.sa.v6.sin6_addr);
    bosh_conn_describe(&addr, NULL, text, sizeof(text));
    ck_assert_str_eq(text, "[2001:db8::1]:5222");
    bosh_conn_describe(NULL, "/run/s", text, sizeof(text));
    ck_assert_str_eq(text, "unix:/run/s");
}
END_TEST

/* ---- connecting ---- */

static const char *create_and_wait(const char *attrs)
{
    chat_t c;

    create(&c, attrs, "");
    return answer(c.held);
}

START_TEST(refused)
{
    struct sockaddr_in sin;
    int fd = listen_tcp(&sin, 1);

    close(fd);
    R.target[1].addrs = address(R.pool, &sin);
    for (int i = 0; i < 5; i++) {
        ASSERT_HAS(create_and_wait("route='1'"), "condition='remote-connection-failed'");
    }
    ck_assert_uint_eq(warnings(), 1); /* rationed */
    ck_assert(warned("BH201"));
    ck_assert(warned("127.0.0.1:"));
    ck_assert(warned("refused"));
    ck_assert_uint_eq(stats().connect_failures, 5);
}
END_TEST

START_TEST(no_address)
{
    ASSERT_HAS(create_and_wait("route='1'"), "condition='remote-connection-failed'");
    ASSERT_HAS(create_and_wait("route='99'"), "condition='remote-connection-failed'");
    ck_assert(warned("not configured"));
}
END_TEST

/* U-004 */
START_TEST(second_address)
{
    struct sockaddr_in dead, alive;
    apr_sockaddr_t *first;
    int fd = listen_tcp(&dead, 1), live = listen_tcp(&alive, 5);
    chat_t c;

    close(fd);
    first = address(R.pool, &dead);
    first->next = address(R.pool, &alive);
    R.target[1].addrs = first;
    create(&c, "route='1'", "");
    c.fd = accept_one(live);
    expect(c.fd, CLIENT_HEAD);
    serve(c.fd, STREAM_HEAD FEATURES);
    ASSERT_HAS(answer(c.held), "<stream:features>");
    ck_assert_uint_eq(warnings(), 0);
    close(c.fd);
    close(live);
}
END_TEST

/* An address that does not answer at all gets its share of the time only. */
START_TEST(black_hole_then_second)
{
    struct sockaddr_in hole, alive;
    int filler[3], fd = listen_tcp(&hole, 0), live = listen_tcp(&alive, 5);
    apr_sockaddr_t *first;
    chat_t c;

    for (int i = 0; i < 3; i++) { /* the backlog of one is full: later SYNs are dropped */
        filler[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(filler[i], (struct sockaddr *)&hole, sizeof(hole));
    }
    first = address(R.pool, &hole);
    first->next = address(R.pool, &alive);
    R.target[1].addrs = first;
    R.target[1].timeout = apr_time_from_sec(4);
    create(&c, "route='1'", "");
    c.fd = accept_one(live);
    expect(c.fd, CLIENT_HEAD);
    serve(c.fd, STREAM_HEAD FEATURES);
    ASSERT_HAS(answer(c.held), "<stream:features>");
    for (int i = 0; i < 3; i++) {
        close(filler[i]);
    }
    close(c.fd);
    close(live);
    close(fd);
}
END_TEST

/* One deadline for connect, header and features. */
START_TEST(silent_server)
{
    chat_t c;

    R.target[0].timeout = apr_time_from_msec(300);
    create(&c, "", "");
    c.fd = accept_one(lfd);
    ASSERT_HAS(answer(c.held), "condition='remote-connection-failed'");
    ck_assert(warned("no stream header in time"));
    expect(c.fd, CLIENT_HEAD END);
    expect_eof(c.fd);
    close(c.fd);
}
END_TEST

START_TEST(unix_socket)
{
    static struct sockaddr_un un = {.sun_family = AF_UNIX}; /* the loop reads it until the end */
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    char dir[] = "/tmp/bosh-test-XXXXXX";
    chat_t c;

    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(un.sun_path, sizeof(un.sun_path), "%s/s", dir);
    R.target[1].path = un.sun_path;
    ASSERT_HAS(create_and_wait("route='1'"), "condition='remote-connection-failed'");
    ck_assert(warned("unix:/"));
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
    ck_assert_int_eq(listen(fd, 0), 0);
    for (int i = 0; i < 3; i++) { /* more than the backlog takes: the rest tries again */
        create(&c, "route='1'", "");
    }
    for (int i = 0; i < 3; i++) {
        c.fd = accept_one(fd);
        expect(c.fd, CLIENT_HEAD);
        serve(c.fd, STREAM_HEAD FEATURES);
    }
    ASSERT_HAS(answer(c.held), "<stream:features>");
    ASSERT_HAS(answer(c.held - 1), "<stream:features>");
    ASSERT_HAS(answer(c.held - 2), "<stream:features>");
    close(fd);
    unlink(un.sun_path);
    rmdir(dir);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("stream");
    TCase *t = tcase_create("stream");
    TCase *d = tcase_create("dial");
    SRunner *r;
    int failed;

    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, open_default, close_default);
    tcase_add_test(t, login_and_chat);
    tcase_add_test(t, payload_waits_for_features);
    tcase_add_test(t, byte_by_byte);
    tcase_add_test(t, prime_is_kept);
    tcase_add_test(t, restart);
    tcase_add_test(t, restart_after_unread_bytes);
    tcase_add_test(t, server_before_xmpp_1);
    tcase_add_test(t, whitespace_keepalive);
    tcase_add_test(t, server_ends_cleanly);
    tcase_add_test(t, stream_error);
    tcase_add_test(t, malformed);
    tcase_add_test(t, restricted);
    tcase_add_test(t, too_large);
    tcase_add_test(t, connection_lost);
    tcase_add_test(t, connection_reset);
    tcase_add_test(t, starttls_required);
    tcase_add_test(t, client_terminates);
    tcase_add_test(t, server_closes_slowly);
    tcase_add_test(t, server_does_not_close);
    tcase_add_test(t, stale_mail);
    tcase_add_test(t, record_lost);
    tcase_add_test(t, own_text_waits);
    tcase_add_test(t, addresses_in_the_log);
    tcase_add_test(t, terminated_early);
    suite_add_tcase(s, t);
    tcase_set_timeout(d, 60);
    tcase_add_checked_fixture(d, open_default, close_default);
    tcase_add_test(d, refused);
    tcase_add_test(d, no_address);
    tcase_add_test(d, second_address);
    tcase_add_test(d, black_hole_then_second);
    tcase_add_test(d, silent_server);
    tcase_add_test(d, unix_socket);
    suite_add_tcase(s, d);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
