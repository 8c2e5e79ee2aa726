/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams without a thread: the test is the loop, and its clock stands still until the test moves it. For
 * what depends on the order of things, or takes long.
 */
#include "rig.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>

#include "bosh_peer.h"
#include "bosh_stream.h"

#define MSG "<message xmlns='jabber:client'><body>%06d</body></message>"
#define END "</stream:stream>"

static bosh_streams_t *SS;
static int epfd;

static void open_by_hand(void)
{
    open_all(256, 4096, 4);
    bosh_lock(R.lock);
    R.me = bosh_arena_peer_claim(&C.arena, (uint32_t)getpid(), 0, bosh_clock_now());
    bosh_unlock(R.lock);
    epfd = epoll_create1(EPOLL_CLOEXEC);
    SS = bosh_streams_create(&R.cfg, R.lock, R.me, epfd);
    ck_assert_ptr_nonnull(SS);
    signal(SIGPIPE, SIG_IGN); /* as in httpd; the loop's own thread blocks it */
}

static void close_by_hand(void)
{
    for (unsigned i = 0; i < R.ncalls; i++) {
        free(R.call[i].answer);
    }
    bosh_streams_destroy(SS);
    validate();
    close(epfd);
    close(lfd);
    arena_close();
}

/* Delivers mail, and nothing else: sockets stay unread. */
static void mail(void)
{
    bosh_mail_t m;
    bool overflow;
    uint32_t n;

    do {
        bosh_lock(R.lock);
        n = bosh_arena_mail_take(&C.arena, R.me, &m, 1, &overflow);
        bosh_unlock(R.lock);
        if (n == 1 && (m.what & BOSH_MAIL_WAITER)) {
            on_wake(m.what & ~BOSH_MAIL_WAITER, m.tag);
        } else if (n == 1) {
            bosh_stream_look(SS, m.what, m.tag);
        }
    } while (n == 1);
}

/* What the sockets have, once; false: nothing. */
static bool sockets(void)
{
    struct epoll_event ev[16];
    int n = epoll_wait(epfd, ev, 16, 0);

    for (int i = 0; i < n; i++) {
        bosh_stream_event(SS, (bosh_ix)(ev[i].data.u64 >> 32), (uint32_t)ev[i].data.u64,
                          ev[i].events);
    }
    return n > 0;
}

/* Loopback delivers at once: what was sent before is there. */
static void run_all(void)
{
    int i;

    for (i = 0; i < 1000; i++) {
        mail();
        if (!sockets()) {
            mail();
            return;
        }
    }
    ck_abort_msg("it spins");
}

static void pass(apr_interval_time_t us)
{
    SS->now += us;
    bosh_streams_run(SS);
    run_all();
}

static void login_by_hand(chat_t *c)
{
    create(c, "", "");
    run_all();
    c->fd = accept_one(lfd);
    run_all();
    expect(c->fd, CLIENT_HEAD);
    serve(c->fd, STREAM_HEAD FEATURES);
    run_all();
    ASSERT_HAS(answer(c->held), "<stream:features>");
    mail();
}

static bosh_stream_t *stream_of(const chat_t *c)
{
    return SS->table[c->index];
}

static void fill(char *dst, size_t size, int n)
{
    size_t have = 0;

    for (int i = 0; i < n; i++) {
        have += (size_t)snprintf(dst + have, size - have, MSG, i);
    }
    ck_assert_uint_lt(have, size);
}

static int count(const char *text, const char *part)
{
    int n = 0;

    for (; (text = strstr(text, part)) != NULL; text++) {
        n++;
    }
    return n;
}

/* ---- the restart (X-046) ---- */

/* The restart is seen before the bytes of the old stream are read. */
START_TEST(old_stream_first)
{
    chat_t c;

    login_by_hand(&c);
    serve(c.fd, "<message xmlns='jabber:client'><body>old</body></message>\n");
    ask(&c, "xmpp:restart='true'", "");
    mail();
    ASSERT_HAS(answer(c.held), "old");
    expect(c.fd, CLIENT_HEAD);
    ck_assert_int_eq(link_of(&c).phase, BOSH_LINK_HEADER);
    close(c.fd);
}
END_TEST

/* ... more of them than are read in one go. On a unix socket, where all that was sent has also arrived. */
START_TEST(much_of_the_old_stream)
{
    static struct sockaddr_un un = {.sun_family = AF_UNIX};
    static char text[60 * 3000 + 1];
    char dir[] = "/tmp/bosh-test-XXXXXX";
    int n = 0, answers;
    chat_t c;

    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(un.sun_path, sizeof(un.sun_path), "%s/s", dir);
    close(lfd);
    lfd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(lfd, (struct sockaddr *)&un, sizeof(un)), 0);
    ck_assert_int_eq(listen(lfd, 5), 0);
    R.target[0].path = un.sun_path;
    R.lim.answer_size = 1 << 20;
    login_by_hand(&c);
    unlink(un.sun_path);
    rmdir(dir);
    fill(text, sizeof(text), 2500);
    serve(c.fd, text);
    ask(&c, "xmpp:restart='true'", "");
    mail();
    ck_assert_int_eq(link_of(&c).phase, BOSH_LINK_OPEN); /* not yet */
    for (answers = 0; n < 2500; answers++) {
        ck_assert_int_lt(answers, 20);
        run_all();
        n += count(answer(c.held), "<body>");
        ask(&c, "", "");
    }
    ck_assert_int_eq(n, 2500);
    expect(c.fd, CLIENT_HEAD);
    serve(c.fd, STREAM_HEAD FEATURES);
    run_all();
    ASSERT_HAS(answer(c.held), "<stream:features>");
    close(c.fd);
}
END_TEST

/* Half an element of the old stream is no part of the new one. */
START_TEST(half_an_element)
{
    chat_t c;

    login_by_hand(&c);
    serve(c.fd, "<message><bo");
    run_all();
    ask(&c, "xmpp:restart='true'", "");
    run_all();
    expect(c.fd, CLIENT_HEAD);
    serve(c.fd, STREAM_HEAD FEATURES);
    run_all();
    ASSERT_HAS(answer(c.held), "<stream:features>");
    ck_assert_uint_eq(link_of(&c).raw.len, 0);
    close(c.fd);
}
END_TEST

/* Two restarts at once: the second waits for the features of the first. */
START_TEST(restart_twice)
{
    char none;
    chat_t c;

    login_by_hand(&c);
    ask(&c, "xmpp:restart='true'", "");
    ask(&c, "xmpp:restart='true'", "");
    run_all();
    expect(c.fd, CLIENT_HEAD);
    ck_assert_int_eq(recv(c.fd, &none, 1, MSG_DONTWAIT), -1);
    serve(c.fd, STREAM_HEAD FEATURES);
    run_all();
    expect(c.fd, CLIENT_HEAD);
    close(c.fd);
}
END_TEST

/* ---- deadlines ---- */

/* Features never come: U-012. */
START_TEST(no_features)
{
    chat_t c;

    create(&c, "", "");
    run_all();
    c.fd = accept_one(lfd);
    run_all();
    serve(c.fd, STREAM_HEAD);
    run_all();
    pass(R.target[0].timeout - apr_time_from_sec(1));
    ck_assert_int_eq(link_of(&c).phase, BOSH_LINK_FEATURES);
    pass(apr_time_from_sec(2));
    ASSERT_HAS(answer(c.held), "condition='remote-connection-failed'");
    ck_assert(warned("no stream features in time"));
    expect(c.fd, CLIENT_HEAD END);
    expect_eof(c.fd);
    close(c.fd);
}
END_TEST

/* Nobody answers the SYN. */
START_TEST(black_hole)
{
    struct sockaddr_in hole;
    int fd = listen_tcp(&hole, 0), filler[3];
    static apr_sockaddr_t sa;
    chat_t c;

    for (int i = 0; i < 3; i++) { /* the backlog of one is full: later SYNs are dropped */
        filler[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(filler[i], (struct sockaddr *)&hole, sizeof(hole));
    }
    sa.family = AF_INET;
    sa.salen = sizeof(hole);
    sa.sa.sin = hole;
    R.target[1].addrs = &sa;
    create(&c, "route='1'", "");
    run_all();
    pass(R.target[1].timeout - apr_time_from_sec(1));
    ck_assert_uint_eq(SS->stats.sockets, 1);
    pass(apr_time_from_sec(2));
    ck_assert_uint_eq(SS->stats.sockets, 0);
    ASSERT_HAS(answer(c.held), "condition='remote-connection-failed'");
    ck_assert(warned("cannot connect in time"));
    for (int i = 0; i < 3; i++) {
        close(filler[i]);
    }
    close(fd);
}
END_TEST

/* A client that ends its session does not keep a stream open whose server takes nothing. */
START_TEST(flush_has_an_end)
{
    static char big[200000];
    chat_t c;

    login_by_hand(&c);
    snprintf(big, sizeof(big), "<a xmlns='jabber:client'>%0150000d</a>", 1);
    for (int i = 0; i < 100 && link_of(&c).down.b.len < 300000; i++) {
        ask(&c, "", big);
        run_all();
    }
    ck_assert_uint_ge(link_of(&c).down.b.len, 300000);
    ask(&c, "type='terminate'", "");
    mail();
    ck_assert_int_eq(link_of(&c).phase, BOSH_LINK_OPEN);
    pass(BOSH_FLUSH_TIME - 1000);
    ck_assert_uint_eq(SS->stats.sockets, 1);
    pass(1000);
    ck_assert_uint_eq(SS->stats.sockets, 0);
    ck_assert_int_eq(link_of(&c).phase, BOSH_LINK_CLOSED);
    close(c.fd);
}
END_TEST

/* The record of a finished session goes by itself. */
START_TEST(tombstone)
{
    chat_t c;

    login_by_hand(&c);
    ask(&c, "type='terminate'", "");
    run_all();
    expect(c.fd, END);
    close(c.fd);
    run_all();
    ck_assert_uint_eq(SS->stats.sockets, 0);
    ck_assert_uint_eq(header().nsessions, 1);
    pass(apr_time_from_sec(BOSH_TOMB_SECONDS + 2));
    ck_assert_uint_eq(header().nsessions, 0);
    ck_assert_uint_eq(SS->stats.streams, 0);
    ck_assert_int_eq(bosh_streams_next(SS), BOSH_NEVER);
}
END_TEST

/* A dead server: one warning at once, then one with the number of the others. */
START_TEST(rationed_warnings)
{
    chat_t c;

    for (int i = 0; i < 20; i++) {
        create(&c, "route='1'", ""); /* has no address */
    }
    run_all();
    ck_assert_uint_eq(warnings(), 1);
    bosh_streams_sweep(SS);
    ck_assert_uint_eq(warnings(), 1);
    SS->now += BOSH_COMPLAIN_TIME;
    bosh_streams_sweep(SS);
    ck_assert_uint_eq(warnings(), 2);
    ck_assert(warned("BH202: example.com: 19 more"));
    SS->now += BOSH_COMPLAIN_TIME;
    bosh_streams_sweep(SS);
    ck_assert_uint_eq(warnings(), 2);
}
END_TEST

/* ---- the connection ---- */

static apr_status_t broken_write(bosh_conn_t *c, const char *p, size_t n, size_t *put)
{
    (void)c, (void)p, (void)n;
    *put = 0;
    return EPIPE;
}

/* Writing fails and poll says nothing: what was said is delivered, then the stream is over. */
START_TEST(write_fails)
{
    bosh_conn_ops_t ops = bosh_conn_plain;
    chat_t c;

    ops.write = broken_write;
    login_by_hand(&c);
    serve(c.fd, "<message><body>last words</body></message>");
    stream_of(&c)->conn.ops = &ops;
    ask(&c, "", "<a xmlns='jabber:client'/>");
    mail();
    mail();
    ASSERT_HAS(answer(c.held), "last words");
    if (strstr(answer(c.held), "terminate") == NULL) {
        ask(&c, "", "");
        mail();
    }
    ASSERT_HAS(answer(c.held), "condition='remote-connection-failed'");
    ck_assert_uint_eq(SS->stats.sockets, 0);
    close(c.fd);
}
END_TEST

static int tcp_option(int fd, int level, int name)
{
    int on = 0;
    socklen_t n = sizeof(on);

    ck_assert_int_eq(getsockopt(fd, level, name, &on, &n), 0);
    return on;
}

/* An object that is used again has no memory of the socket before. */
START_TEST(sockets_used_again)
{
    for (int i = 0; i < 3; i++) {
        chat_t c;
        int dup_fd;
        login_by_hand(&c);
        ck_assert_int_ne(tcp_option(stream_of(&c)->conn.fd, IPPROTO_TCP, TCP_NODELAY), 0);
        ck_assert_int_ne(tcp_option(stream_of(&c)->conn.fd, SOL_SOCKET, SO_KEEPALIVE), 0);
        ck_assert_int_ne(fcntl(stream_of(&c)->conn.fd, F_GETFL) & O_NONBLOCK, 0);
        ck_assert_int_ne(fcntl(stream_of(&c)->conn.fd, F_GETFD) & FD_CLOEXEC, 0);
        dup_fd = dup(stream_of(&c)->conn.fd);
        serve(c.fd, END);
        run_all();
        ck_assert_uint_eq(SS->stats.sockets, 0);
        expect(c.fd, END);
        expect_eof(c.fd); /* the duplicate does not keep it open */
        close(dup_fd);
        close(c.fd);
    }
}
END_TEST

/* ---- peers ---- */

/* A dead peer whom somebody else is clearing up already is left to him, and to nobody when he has died. */
START_TEST(one_rescuer)
{
    bosh_peers_t *ps = bosh_peers_create(&R.cfg, R.lock, epfd);
    pid_t pid = fork(), other;
    uint32_t me, victim;

    if (pid == 0) {
        pause();
        _exit(0);
    }
    ck_assert_int_eq(bosh_peers_join(ps, SS->now, &me), APR_SUCCESS);
    bosh_lock(R.lock);
    victim = bosh_arena_peer_claim(&C.arena, (uint32_t)pid, 0, SS->now);
    bosh_unlock(R.lock);
    bosh_peers_sweep(ps, SS->now);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    other = fork();
    if (other == 0) {
        pause();
        _exit(0);
    }
    bosh_lock(R.lock);
    bosh_arena_peer(&C.arena, victim)->pid = (uint32_t)other;
    bosh_unlock(R.lock);
    bosh_peers_event(ps, SS->now, victim);
    bosh_peers_sweep(ps, SS->now);
    ck_assert_uint_eq(peer_state(victim), BOSH_PEER_LIVE);
    kill(other, SIGKILL);
    waitpid(other, NULL, 0);
    bosh_peers_sweep(ps, SS->now);
    ck_assert_uint_eq(peer_state(victim), BOSH_PEER_FREE);
    ck_assert_uint_eq(bosh_arena_peer(&C.arena, victim)->pid, (uint32_t)getpid());
    bosh_peers_leave(ps, SS->now);
    bosh_peers_destroy(ps);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("clock");
    TCase *t = tcase_create("clock");
    SRunner *r;
    int failed;

    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, open_by_hand, close_by_hand);
    tcase_add_test(t, old_stream_first);
    tcase_add_test(t, much_of_the_old_stream);
    tcase_add_test(t, half_an_element);
    tcase_add_test(t, restart_twice);
    tcase_add_test(t, no_features);
    tcase_add_test(t, black_hole);
    tcase_add_test(t, flush_has_an_end);
    tcase_add_test(t, tombstone);
    tcase_add_test(t, rationed_warnings);
    tcase_add_test(t, write_fails);
    tcase_add_test(t, sockets_used_again);
    tcase_add_test(t, one_rescuer);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
