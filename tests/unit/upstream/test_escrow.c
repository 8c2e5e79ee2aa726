/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams outlive the process that owned them, killed at any moment. The owners are children with a loop each;
 * this process is the XMPP server and the client, without a loop: it works on the arena as a worker of httpd does.
 */
#include "bosh_handover.h"
#include "rig.h"

#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <time.h>

#include "bosh_escrow.h"
#include "bosh_stream.h"

#define PEERS  8
#define NOBODY PEERS /* a peer without a process: holds our requests, which never wait */

typedef struct child_t {
    pid_t pid;
    int fd;
    uint32_t peer;
} child_t;

/* Runs a loop until it is killed or told something. */
static void serve_loop(int fd)
{
    char c;

    R.own.wakers = C.wakers;
    loop_open();
    loop_settle();
    ck_assert_int_eq(write(fd, &R.me, sizeof(R.me)), sizeof(R.me));
    while (read(fd, &c, 1) == 1) {
        uint32_t n = 0;
        if (c == 'l') { /* dies while it holds the lock */
            bosh_lock(R.lock);
            kill(getpid(), SIGKILL);
        } else if (c == 'd') {
            bosh_loop_drain(R.loop);
        } else if (c == 'r') {
            bosh_loop_drain(R.loop);
            ck_assert_int_eq(bosh_loop_retire(R.loop), APR_SUCCESS);
            _exit(0);
        } else if (c == 'w') {
            n = warned("BH207");
            ck_assert_int_eq(write(fd, &n, sizeof(n)), sizeof(n));
        }
    }
    bosh_loop_stop(R.loop);
}

static uint32_t hear_number(const child_t *c)
{
    uint32_t n;

    await_readable(c->fd);
    ck_assert_int_eq(read(c->fd, &n, sizeof(n)), sizeof(n));
    return n;
}

static child_t spawn(void)
{
    child_t c = {0, -1, 0};
    int sv[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
    c.pid = fork();
    ck_assert_int_ge(c.pid, 0);
    if (c.pid == 0) {
        close(sv[0]);
        serve_loop(sv[1]);
        _exit(0);
    }
    close(sv[1]);
    c.fd = sv[0];
    c.peer = hear_number(&c);
    return c;
}

static void order(const child_t *c, char what)
{
    ck_assert_int_eq(write(c->fd, &what, 1), 1);
}

static void bury(const child_t *c)
{
    ck_assert_int_eq(waitpid(c->pid, NULL, 0), c->pid);
    close(c->fd);
}

static void end_child(const child_t *c)
{
    kill(c->pid, SIGKILL);
    bury(c);
}

static void freeze(const child_t *c)
{
    int status;

    kill(c->pid, SIGSTOP);
    ck_assert_int_eq(waitpid(c->pid, &status, WUNTRACED), c->pid);
    ck_assert(WIFSTOPPED(status));
}

static void open_escrow(void)
{
    open_all(512, 8192, PEERS);
    C.wakers->kept_in = calloc(2 * PEERS, sizeof(int));
    C.wakers->kept_out = C.wakers->kept_in + PEERS;
    for (int i = 0; i < PEERS; i++) {
        int sv[2], size = 1 << 20;
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv),
                         0);
        (void)setsockopt(sv[1], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
        C.wakers->kept_in[i] = sv[0];
        C.wakers->kept_out[i] = sv[1];
    }
    R.cfg.escrow = true;
    R.own.wakers = C.wakers;
    R.me = NOBODY;
    R.lim.inactivity = 60;
}

static void close_escrow(void)
{
    validate();
    for (int i = 0; i < PEERS; i++) {
        close(C.wakers->kept_in[i]);
        close(C.wakers->kept_out[i]);
    }
    free(C.wakers->kept_in);
    close(lfd);
    arena_close();
}

/* ---- sessions without a loop of ours ---- */

/* Answers at once, with what there is; valid until the next call. */
static const char *now(chat_t *c, const char *payload)
{
    const char *text;

    for (unsigned i = 0; i < R.ncalls; i++) {
        free(R.call[i].answer);
    }
    memset(R.call, 0, R.ncalls * sizeof(R.call[0]));
    R.ncalls = 0;
    ask(c, "", payload);
    text = answer_of(c->held, true);
    ck_assert_msg(strstr(text, "type='terminate'") == NULL, "session %u: %s", c->index, text);
    return text;
}

/* Until the server's text has arrived. */
static void await_text(chat_t *c, const char *part)
{
    for (int i = 0; strstr(now(c, ""), part) == NULL; i++) {
        ck_assert_msg(i < 1000, "in vain: %s", part);
        poll(NULL, 0, 2);
    }
}

static bool is_with(const chat_t *c, uint32_t peer)
{
    bosh_link_t link = link_of(c);

    return link.owner == peer && !(link.flags & BOSH_LINK_TRANSIT);
}

static void begin_with(chat_t *c, const child_t *owner, const char *attrs)
{
    R.me = owner->peer;
    create(c, attrs, "");
    R.me = NOBODY;
}

static void login_with(chat_t *c, const child_t *owner)
{
    begin_with(c, owner, "");
    c->fd = accept_one(lfd);
    expect(c->fd, CLIENT_HEAD);
    serve(c->fd, STREAM_HEAD FEATURES);
    AWAIT(link_of(c).phase == BOSH_LINK_OPEN);
    ASSERT_HAS(answer_of(c->held, true), "<stream:features>");
}

static void check_alive(chat_t *c, unsigned n)
{
    char text[80];

    snprintf(text, sizeof(text), "<message xmlns='jabber:client' id='a%u'/>", n);
    now(c, text);
    expect(c->fd, text);
    serve(c->fd, text);
    await_text(c, "<message");
}

/* ---- one death each ---- */

/* `heir` gets what the dead one had. */
static void kill_and_check(child_t *dead, child_t *heir, chat_t *c)
{
    end_child(dead);
    AWAIT(is_with(c, heir->peer));
    ck_assert_uint_eq(header().count.lost, 0);
}

START_TEST(idle)
{
    child_t a = spawn(), b = spawn();
    static chat_t c[100];

    for (unsigned i = 0; i < 100; i++) {
        login_with(&c[i], &a);
        ck_assert(link_of(&c[i]).flags & BOSH_LINK_KEPT);
    }
    end_child(&a);
    AWAIT(peer_state(a.peer) == BOSH_PEER_FREE);
    ck_assert_uint_eq(header().count.rescued, 100);
    ck_assert_uint_eq(header().count.lost, 0);
    for (unsigned i = 0; i < 100; i++) {
        check_alive(&c[i], i);
    }
    /* And once more, by a child that is started afterwards. */
    end_child(&b);
    a = spawn();
    AWAIT(header().count.rescued == 200);
    for (unsigned i = 0; i < 100; i++) {
        check_alive(&c[i], i);
        close(c[i].fd);
    }
    end_child(&a);
}
END_TEST

START_TEST(in_phases)
{
    child_t a = spawn(), b = spawn();
    char head[] = STREAM_HEAD;
    chat_t header_c, features_c, half_c, closing_c;

    begin_with(&header_c, &a, "");
    header_c.fd = accept_one(lfd);
    expect(header_c.fd, CLIENT_HEAD);
    head[60] = '\0';
    serve(header_c.fd, head);
    begin_with(&features_c, &a, "");
    features_c.fd = accept_one(lfd);
    expect(features_c.fd, CLIENT_HEAD);
    serve(features_c.fd, STREAM_HEAD);
    login_with(&half_c, &a);
    serve(half_c.fd, "<message xmlns='jabber:client' id='ha");
    login_with(&closing_c, &a);
    ask(&closing_c, "type='terminate' ", "");
    expect(closing_c.fd, BOSH_STREAM_END);
    AWAIT(link_of(&closing_c).phase == BOSH_LINK_CLOSING);
    AWAIT(link_of(&half_c).raw.len == 37 && link_of(&header_c).raw.len == 60);
    AWAIT(link_of(&features_c).phase == BOSH_LINK_FEATURES);
    end_child(&a);
    AWAIT(is_with(&closing_c, b.peer) && is_with(&half_c, b.peer));
    serve(header_c.fd, STREAM_HEAD + 60);
    serve(header_c.fd, FEATURES);
    serve(features_c.fd, FEATURES);
    AWAIT(link_of(&header_c).phase == BOSH_LINK_OPEN);
    AWAIT(link_of(&features_c).phase == BOSH_LINK_OPEN);
    check_alive(&header_c, 1);
    check_alive(&features_c, 2);
    serve(half_c.fd, "lf'/>");
    await_text(&half_c, "id='half'");
    serve(closing_c.fd, BOSH_STREAM_END);
    expect_eof(closing_c.fd);
    ck_assert_uint_eq(header().count.rescued, 4);
    ck_assert_uint_eq(header().count.lost, 0);
    end_child(&b);
}
END_TEST

/* Nothing was said yet: the heir connects anew. */
START_TEST(in_connect)
{
    child_t a = spawn(), b = spawn();
    chat_t c;

    freeze(&a);
    begin_with(&c, &a, "");
    kill_and_check(&a, &b, &c);
    c.fd = accept_one(lfd);
    expect(c.fd, CLIENT_HEAD);
    serve(c.fd, STREAM_HEAD FEATURES);
    AWAIT(link_of(&c).phase == BOSH_LINK_OPEN);
    check_alive(&c, 1);
    end_child(&b);
}
END_TEST

/* What a frozen owner has in escrow: we do with its socket what it would have done. */
static int socket_of(const child_t *owner)
{
    bosh_kept_t k = {0, 0};
    int fd;

    ck_assert(bosh_escrow_next(C.wakers, owner->peer, &k, &fd));
    ck_assert_int_ge(fd, 0);
    return fd;
}

START_TEST(read_not_committed)
{
    static const char text[] = "<message xmlns='jabber:client' id='1'/><message id='2'/><mess";
    child_t a = spawn(), b = spawn();
    bosh_slice_t room[4];
    bosh_session_t *s;
    chat_t c;
    int fd, n;

    login_with(&c, &a);
    freeze(&a);
    serve(c.fd, text);
    fd = socket_of(&a);
    await_readable(fd);
    bosh_lock(R.lock);
    s = bosh_arena_get(&C.arena, c.index, c.serial);
    n = bosh_bytes_reserve(&C.arena, &s->link.raw, 2000, room, 4, BOSH_PRIO_INPUT);
    bosh_unlock(R.lock);
    ck_assert_int_gt(n, 0);
    ck_assert_int_eq(read(fd, (void *)(uintptr_t)room[0].p, room[0].n), sizeof(text) - 1);
    close(fd);
    kill_and_check(&a, &b, &c);
    await_text(&c, "id='2'");
    serve(c.fd, "age id='3'/>");
    await_text(&c, "id='3'");
    check_alive(&c, 1);
    end_child(&b);
}
END_TEST

/* Half of the first stanza, or it and half of the next one. */
START_TEST(written_not_consumed)
{
    static const char *const text[] = {"<message xmlns='jabber:client' id='1'/>",
                                       "<message xmlns='jabber:client' id='22'/>"};
    child_t a = spawn(), b = spawn();
    char all[200];
    chat_t c;
    int fd;

    login_with(&c, &a);
    freeze(&a);
    now(&c, text[0]);
    now(&c, text[1]);
    snprintf(all, sizeof(all), "%s%s", text[0], text[1]);
    fd = socket_of(&a);
    ck_assert_int_eq(write(fd, all, (size_t)_i), _i);
    close(fd);
    kill_and_check(&a, &b, &c);
    expect(c.fd, all);
    check_alive(&c, 1);
    end_child(&b);
}
END_TEST

/* Our header had been promised and not been written to its end. */
START_TEST(header_not_written)
{
    child_t a = spawn(), b = spawn();
    bosh_session_t *s;
    chat_t c;

    begin_with(&c, &a, "");
    c.fd = accept_one(lfd);
    expect(c.fd, CLIENT_HEAD);
    freeze(&a);
    bosh_lock(R.lock);
    s = bosh_arena_get(&C.arena, c.index, c.serial);
    s->link.out += 20;
    bosh_unlock(R.lock);
    kill_and_check(&a, &b, &c);
    expect(c.fd, CLIENT_HEAD + sizeof(CLIENT_HEAD) - 1 - 20);
    serve(c.fd, STREAM_HEAD FEATURES);
    AWAIT(link_of(&c).phase == BOSH_LINK_OPEN);
    check_alive(&c, 1);
    end_child(&b);
}
END_TEST

/* A keep-alive had been promised and was not written. */
START_TEST(keep_alive_not_written)
{
    child_t a = spawn(), b = spawn();
    bosh_session_t *s;
    chat_t c;

    login_with(&c, &a);
    freeze(&a);
    bosh_lock(R.lock);
    s = bosh_arena_get(&C.arena, c.index, c.serial);
    s->link.out += 1;
    bosh_unlock(R.lock);
    kill_and_check(&a, &b, &c);
    expect(c.fd, " ");
    check_alive(&c, 1);
    end_child(&b);
}
END_TEST

/* Record and socket do not agree: the client is told, and the server, although a copy is parked. */
START_TEST(disagreement)
{
    child_t a = spawn(), b = spawn();
    bosh_session_t *s;
    chat_t c;

    login_with(&c, &a);
    freeze(&a);
    bosh_lock(R.lock);
    s = bosh_arena_get(&C.arena, c.index, c.serial);
    s->link.in += 7;
    bosh_unlock(R.lock);
    end_child(&a);
    AWAIT(header().count.lost == 1);
    expect_eof_or_reset(c.fd);
    ask(&c, "", "");
    ASSERT_HAS(answer_of(c.held, true), "condition='remote-connection-failed'");
    end_child(&b);
}
END_TEST

/* The server closed its side: its last words are delivered. */
START_TEST(server_closed)
{
    child_t a = spawn(), b = spawn();
    chat_t c;

    login_with(&c, &a);
    freeze(&a);
    serve(c.fd, "<message xmlns='jabber:client' id='last'/></stream:stream>");
    shutdown(c.fd, SHUT_WR);
    end_child(&a);
    AWAIT(link_of(&c).phase == BOSH_LINK_CLOSED);
    ask(&c, "", "");
    ASSERT_HAS(answer_of(c.held, true), "id='last'");
    ck_assert_uint_eq(header().count.lost, 0);
    ck_assert_uint_eq(header().count.rescued, 1);
    end_child(&b);
}
END_TEST

START_TEST(with_the_lock)
{
    child_t a = spawn(), b = spawn();
    static chat_t c[20];

    for (unsigned i = 0; i < 20; i++) {
        login_with(&c[i], i % 2 ? &a : &b);
        serve(c[i].fd, "<message xmlns='jabber:client' id='ha");
    }
    order(&a, 'l');
    bury(&a);
    AWAIT(peer_state(a.peer) == BOSH_PEER_FREE);
    ck_assert_uint_eq(header().count.repairs, 1);
    ck_assert_uint_eq(header().count.rescued, 10);
    for (unsigned i = 0; i < 20; i++) {
        serve(c[i].fd, "lf'/>");
        await_text(&c[i], "id='half'");
        check_alive(&c[i], i);
    }
    end_child(&b);
}
END_TEST

static uint32_t newest(void)
{
    return 1;
}

/* In the middle of giving its streams away: some are with the heir, some on their way, some not. */
START_TEST(giver)
{
    child_t a, b;
    static chat_t c[100];
    unsigned under_way = 0;

    R.cfg.running_generation = newest;
    a = spawn();
    for (unsigned i = 0; i < 100; i++) {
        login_with(&c[i], &a);
    }
    R.cfg.generation = 1;
    b = spawn();
    freeze(&b);
    order(&a, 'd');
    AWAIT(link_of(&c[BOSH_WINDOW - 1]).flags & BOSH_LINK_TRANSIT);
    for (unsigned i = 0; i < 100; i++) {
        under_way += (link_of(&c[i]).flags & BOSH_LINK_TRANSIT) != 0;
    }
    ck_assert_uint_gt(under_way, 0);
    ck_assert_uint_lt(under_way, 100);
    end_child(&a);
    kill(b.pid, SIGCONT);
    for (unsigned i = 0; i < 100; i++) {
        AWAIT(is_with(&c[i], b.peer));
        check_alive(&c[i], i);
    }
    ck_assert_uint_eq(header().count.lost, 0);
    end_child(&b);
}
END_TEST

static bool full(void)
{
    return true;
}

/* There is no room for the next child before the old one has gone: it goes, and the streams wait. */
START_TEST(left_behind)
{
    child_t a, b;
    static chat_t c[20];

    R.cfg.running_generation = newest;
    R.cfg.crowded = full;
    a = spawn();
    for (unsigned i = 0; i < 20; i++) {
        login_with(&c[i], &a);
        serve(c[i].fd, "<message xmlns='jabber:client' id='ha");
    }
    order(&a, 'r');
    bury(&a);
    for (unsigned i = 0; i < 20; i++) {
        serve(c[i].fd, "lf'/>");
    }
    R.cfg.generation = 1;
    b = spawn();
    for (unsigned i = 0; i < 20; i++) {
        await_text(&c[i], "id='half'");
        check_alive(&c[i], i);
    }
    ck_assert_uint_eq(header().count.lost + header().count.lost_drain, 0);
    ck_assert_uint_eq(header().count.rescued, 20);
    end_child(&b);
}
END_TEST

/* ---- housekeeping ---- */

static uint32_t parked(uint32_t peer)
{
    return __atomic_load_n(&bosh_arena_peer(&C.arena, peer)->parked, __ATOMIC_RELAXED);
}

/* An ended stream is closed although its duplicate is parked, which is swept out when there are many. */
START_TEST(ended_ones_are_swept)
{
    child_t a = spawn(), b = spawn();
    static chat_t c[200];

    for (unsigned i = 0; i < 200; i++) {
        login_with(&c[i], &a);
    }
    ck_assert_uint_eq(parked(a.peer), 200);
    for (unsigned i = 0; i < 150; i++) {
        ask(&c[i], "type='terminate' ", "");
        expect(c[i].fd, BOSH_STREAM_END);
        serve(c[i].fd, BOSH_STREAM_END);
        expect_eof(c[i].fd);
        close(c[i].fd);
    }
    AWAIT(parked(a.peer) == 50);
    for (unsigned i = 150; i < 200; i++) {
        check_alive(&c[i], i);
    }
    end_child(&a);
    AWAIT(header().count.rescued == 50);
    for (unsigned i = 150; i < 200; i++) {
        check_alive(&c[i], i);
        close(c[i].fd);
    }
    ck_assert_uint_eq(parked(a.peer), 0);
    close(b.fd); /* ends in order: nothing stays behind */
    ck_assert_int_eq(waitpid(b.pid, NULL, 0), b.pid);
    ck_assert_uint_eq(parked(b.peer), 0);
    ck_assert(!bosh_escrow_drop(C.wakers, b.peer));
}
END_TEST

/* The limit of open files leaves room for a few: the others are lost, as without escrow, and that is reported. */
START_TEST(refused)
{
    struct rlimit before, few;
    child_t a, b;
    static chat_t c[60];
    unsigned alive = 0;

    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = before;
    few.rlim_cur = 50;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
    R.cfg.next_deadline = on_deadline;
    a = spawn();
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    b = spawn();
    few.rlim_cur = 500;
    ck_assert_int_eq(prlimit(a.pid, RLIMIT_NOFILE, &few, NULL), 0);
    for (unsigned i = 0; i < 60; i++) {
        login_with(&c[i], &a);
    }
    ck_assert_uint_eq(parked(a.peer), 40); /* 80 % of what it saw at its start */
    AWAIT((order(&a, 'w'), hear_number(&a)) == 1);
    end_child(&a);
    AWAIT(peer_state(a.peer) == BOSH_PEER_FREE);
    for (unsigned i = 0; i < 60; i++) {
        alive += link_of(&c[i]).phase == BOSH_LINK_OPEN;
    }
    ck_assert_uint_eq(alive, 40);
    ck_assert_uint_eq(header().count.lost, 20);
    end_child(&b);
}
END_TEST

START_TEST(switched_off)
{
    child_t a, b;
    chat_t c;

    R.cfg.escrow = false;
    a = spawn();
    b = spawn();
    login_with(&c, &a);
    ck_assert_uint_eq(parked(a.peer), 0);
    end_child(&a);
    AWAIT(header().count.lost == 1);
    expect_eof_or_reset(c.fd);
    end_child(&b);
}
END_TEST

/* A unix socket has no counters. */
START_TEST(unix_socket)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int ufd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    child_t a, b;
    chat_t c;

    snprintf(un.sun_path, sizeof(un.sun_path), "/tmp/bosh-escrow-%d", (int)getpid());
    unlink(un.sun_path);
    ck_assert_int_eq(bind(ufd, (struct sockaddr *)&un, sizeof(un)), 0);
    ck_assert_int_eq(listen(ufd, 5), 0);
    R.target[1].path = un.sun_path;
    a = spawn();
    b = spawn();
    begin_with(&c, &a, "route='1' ");
    c.fd = accept_one(ufd);
    expect(c.fd, CLIENT_HEAD);
    ck_assert_uint_eq(parked(a.peer), 0);
    end_child(&a);
    AWAIT(header().count.lost == 1);
    expect_eof(c.fd);
    unlink(un.sun_path);
    close(ufd);
    end_child(&b);
}
END_TEST

/* ---- deaths at random ---- */

#define TALKERS 24

typedef struct talker_t {
    chat_t c;
    unsigned said, heard_up; /* client to server: sent, seen at the server */
    unsigned told, heard;    /* server to client */
    size_t said_off;         /* bytes seen of stanza heard_up */
    size_t told_off;         /* bytes sent of stanza `told` */
} talker_t;

static talker_t T[TALKERS];

/* Stanza n, each way; some are larger than a read. */
static size_t stanza(char *dst, unsigned n)
{
    size_t len = (size_t)sprintf(dst, "<message xmlns='jabber:client' id='%u'><body>", n);
    size_t fill = n % 7 == 3 ? 3000 + n % 2000 : n % 11 == 5 ? 20000 : n % 50;

    memset(dst + len, 'a' + (int)(n % 26), fill);
    return len + fill + (size_t)sprintf(dst + len + fill, "</body></message>");
}

/* What has come to the server must go on just where it was. */
static void hear_client(talker_t *t)
{
    static char want[32768], got[65536];
    ssize_t r;

    while ((r = recv(t->c.fd, got, sizeof(got), MSG_DONTWAIT)) > 0) {
        for (size_t at = 0; at < (size_t)r;) {
            size_t n = stanza(want, t->heard_up), k = n - t->said_off;
            k = k < (size_t)r - at ? k : (size_t)r - at;
            ck_assert_msg(memcmp(got + at, want + t->said_off, k) == 0,
                          "session %u, stanza %u to the server: %.60s", t->c.index, t->heard_up,
                          got + at);
            at += k;
            t->said_off += k;
            if (t->said_off == n) {
                t->said_off = 0;
                t->heard_up++;
            }
        }
    }
    ck_assert_msg(r < 0 && errno == EAGAIN, "session %u: the stream has ended", t->c.index);
}

static void hear_server(talker_t *t, const char *answer_text)
{
    static char want[32768];
    const char *p = answer_text;

    while ((p = strstr(p, "<message")) != NULL) {
        size_t n = stanza(want, t->heard);
        ck_assert_msg(strncmp(p, want, n) == 0, "session %u, stanza %u to the client: %.60s",
                      t->c.index, t->heard, p);
        t->heard++;
        p += n;
    }
}

/* A piece of what the server has to say; all: the rest of it. */
static void tell(talker_t *t, bool all)
{
    static char text[32768];
    size_t n = stanza(text, t->told), k = n - t->told_off;
    ssize_t r;

    if (!all && rand() % 2) {
        k = 1 + (size_t)rand() % k;
    }
    r = send(t->c.fd, text + t->told_off, k, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (r > 0) {
        t->told_off += (size_t)r;
    }
    if (t->told_off == n) {
        t->told_off = 0;
        t->told++;
    }
}

static void talk(talker_t *t)
{
    static char text[32768];

    tell(t, false);
    stanza(text, t->said);
    if (t->said - t->heard_up < 10) {
        t->said++;
        hear_server(t, now(&t->c, text));
    }
    hear_client(t);
}

static void finish(talker_t *t)
{
    if (t->told_off > 0) {
        for (unsigned n = t->told; t->told == n;) {
            tell(t, true);
            hear_server(t, now(&t->c, ""));
        }
    }
    for (int i = 0; t->heard < t->told || t->heard_up < t->said; i++) {
        ck_assert_msg(i < 5000, "session %u: %u of %u to the client, %u of %u to the server",
                      t->c.index, t->heard, t->told, t->heard_up, t->said);
        hear_server(t, now(&t->c, ""));
        hear_client(t);
        poll(NULL, 0, 1);
    }
    ck_assert(t->told == t->heard && t->said == t->heard_up);
    close(t->c.fd);
}

START_TEST(at_random)
{
    int kills = getenv("BOSH_KILLS") != NULL ? atoi(getenv("BOSH_KILLS")) : 200;
    child_t child[2] = {spawn(), spawn()};
    uint64_t stanzas = 0;

    srand((unsigned)time(NULL));
    for (int i = 0; i < TALKERS; i++) {
        login_with(&T[i].c, &child[i % 2]);
    }
    for (int n = 0; n < kills; n++) {
        int victim = rand() % 2;
        for (int k = 20 + rand() % 100; k > 0; k--) {
            talk(&T[rand() % TALKERS]);
        }
        kill(child[victim].pid, SIGKILL);
        if (n % 5 == 0) { /* both, the second one perhaps in the middle of its rescue */
            for (int k = rand() % 30; k > 0; k--) {
                sched_yield();
            }
            kill(child[1 - victim].pid, SIGKILL);
            bury(&child[1 - victim]);
            child[1 - victim] = spawn();
        }
        bury(&child[victim]);
        child[victim] = spawn();
    }
    for (int i = 0; i < TALKERS; i++) {
        stanzas += T[i].said + T[i].told;
        finish(&T[i]);
    }
    ck_assert_uint_eq(header().count.lost, 0);
    ck_assert_uint_eq(header().count.repaired_sessions, 0);
    printf(
        "%d kills, %llu rescues, %llu in the middle of a change, 0 lost, %llu stanzas in order\n",
        kills, (unsigned long long)header().count.rescued,
        (unsigned long long)header().count.repairs, (unsigned long long)stanzas);
    end_child(&child[0]);
    end_child(&child[1]);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("escrow");
    TCase *t = tcase_create("escrow");
    SRunner *r;
    int failed;

    tcase_set_timeout(t, 100);
    tcase_add_checked_fixture(t, open_escrow, close_escrow);
    tcase_add_test(t, idle);
    tcase_add_test(t, in_phases);
    tcase_add_test(t, in_connect);
    tcase_add_test(t, read_not_committed);
    tcase_add_loop_test(t, written_not_consumed, 1, 80);
    tcase_add_test(t, header_not_written);
    tcase_add_test(t, keep_alive_not_written);
    tcase_add_test(t, disagreement);
    tcase_add_test(t, server_closed);
    tcase_add_test(t, with_the_lock);
    tcase_add_test(t, giver);
    tcase_add_test(t, left_behind);
    tcase_add_test(t, ended_ones_are_swept);
    tcase_add_test(t, refused);
    tcase_add_test(t, switched_off);
    tcase_add_test(t, unix_socket);
    tcase_add_test(t, at_random);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
