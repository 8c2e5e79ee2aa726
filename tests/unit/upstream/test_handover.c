/* SPDX-License-Identifier: Apache-2.0 */
/* Streams move between the loops of several processes, in every phase; some of those processes die. */
#include "bosh_handover.h"
#include "rig.h"

#include <signal.h>
#include <sys/resource.h>

#define STREAM_END "</stream:stream>"
#define MANY       80 /* more than may be under way at once */

typedef struct child_t {
    pid_t pid;
    int fd;
    uint32_t peer;
} child_t;

static child_t spawn(void (*body)(int fd))
{
    child_t c = {0, -1, 0};
    int sv[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
    c.pid = fork();
    ck_assert_int_ge(c.pid, 0);
    if (c.pid == 0) {
        close(sv[0]);
        srand((unsigned)getpid());
        body(sv[1]);
        _exit(0);
    }
    close(sv[1]);
    c.fd = sv[0];
    return c;
}

static char hear_order(int fd)
{
    char c = 'q';

    return read(fd, &c, 1) == 1 ? c : 'q';
}

static void order(const child_t *c, char what)
{
    ck_assert_int_eq(write(c->fd, &what, 1), 1);
}

static void tell_number(int fd, uint32_t n)
{
    ck_assert_int_eq(write(fd, &n, sizeof(n)), sizeof(n));
}

static uint32_t hear_number(const child_t *c)
{
    uint32_t n;

    await_readable(c->fd);
    ck_assert_int_eq(read(c->fd, &n, sizeof(n)), sizeof(n));
    return n;
}

static uint32_t newest(void)
{
    return 1;
}

/* This process may open `n` more descriptors. */
static void limit_files(int n)
{
    struct rlimit r;
    int probe = dup(0);

    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &r), 0);
    r.rlim_cur = n < 0 ? r.rlim_max : (rlim_t)(probe + n);
    close(probe);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &r), 0);
}

/* A child of the next generation: l: starts its loop; f, F: few or many descriptors; q: ends in order. */
static void younger(int fd)
{
    for (;;) {
        switch (hear_order(fd)) {
        case 'l':
            R.cfg.generation = 1;
            loop_open();
            loop_settle();
            tell_number(fd, bosh_loop_peer(R.loop));
            break;
        case 'f':
            limit_files(10);
            tell_number(fd, 0);
            break;
        case 'F':
            limit_files(-1);
            tell_number(fd, 0);
            break;
        case 'w':
            tell_number(fd, warnings());
            break;
        default:
            bosh_loop_stop(R.loop);
            return;
        }
    }
}

static void start(child_t *c)
{
    order(c, 'l');
    c->peer = hear_number(c);
}

/* Stops it and waits until it stands still, which it does outside of the arena's lock (but for bad luck). */
static void freeze(const child_t *c)
{
    int status;

    kill(c->pid, SIGSTOP);
    ck_assert_int_eq(waitpid(c->pid, &status, WUNTRACED), c->pid);
    ck_assert(WIFSTOPPED(status));
}

static void end_child(child_t *c)
{
    kill(c->pid, SIGKILL);
    ck_assert_int_eq(waitpid(c->pid, NULL, 0), c->pid);
    close(c->fd);
}

/* The stream is with this peer, and not on its way any more. */
static bool is_with(const chat_t *c, uint32_t peer)
{
    bosh_link_t link = link_of(c);

    return link.owner == peer && !(link.flags & BOSH_LINK_TRANSIT);
}

/* A stanza each way, and each just once. */
static void check_alive(chat_t *c, unsigned n)
{
    char text[80];

    snprintf(text, sizeof(text), "<message xmlns='jabber:client' id='%u'/>", n);
    ask(c, "", text);
    expect(c->fd, text);
    serve(c->fd, text);
    ASSERT_HAS(answer(c->held), "<message");
}

static void open_handover(void)
{
    open_all(256, 8192, 4);
    R.cfg.running_generation = newest;
}

static void retire(void)
{
    ck_assert_int_eq(bosh_loop_retire(R.loop), APR_SUCCESS);
}

/* ---- in order ---- */

/* The streams are spread evenly, the old loop serves the requests it holds until it goes. */
START_TEST(many)
{
    child_t a = spawn(younger), b = spawn(younger);
    static chat_t c[MANY];
    uint32_t with_a = 0;

    loop_open();
    for (unsigned i = 0; i < MANY; i++) {
        login(&c[i]);
    }
    bosh_loop_drain(R.loop);
    AWAIT(peer_state(bosh_loop_peer(R.loop)) == BOSH_PEER_DRAINING);
    check_alive(&c[0], 0); /* it waits for somebody to come */
    start(&a);
    start(&b);
    for (unsigned i = 0; i < MANY; i++) {
        AWAIT(is_with(&c[i], a.peer) || is_with(&c[i], b.peer));
        with_a += is_with(&c[i], a.peer);
    }
    ck_assert_uint_ge(with_a, MANY / 4);
    for (unsigned i = 0; i < MANY; i++) {
        check_alive(&c[i], i);
    }
    ck_assert_uint_eq(header().count.moved, MANY);
    ck_assert_uint_eq(header().count.lost, 0);
    AWAIT(stats().sockets == 0); /* the duplicates are closed */
    retire();
    for (unsigned i = 0; i < MANY; i++) {
        close(c[i].fd);
    }
    end_child(&a);
    end_child(&b);
}
END_TEST

/* How long a loop that has been told to end takes from the moment on when somebody comes. */
static apr_interval_time_t time_to_leave(void)
{
    child_t heir = spawn(younger);
    apr_time_t begin;
    chat_t c;

    loop_open();
    login(&c);
    bosh_loop_drain(R.loop);
    AWAIT(peer_state(bosh_loop_peer(R.loop)) == BOSH_PEER_DRAINING);
    begin = bosh_clock_now();
    order(&heir, 'l');
    retire();
    begin = bosh_clock_now() - begin;
    ck_assert(is_with(&c, hear_number(&heir)));
    close(c.fd);
    end_child(&heir);
    return begin;
}

/* It does not wait for its next sweep. A busy machine may be late, but not each time. */
START_TEST(leaves_at_once)
{
    for (int i = 0; time_to_leave() > apr_time_from_msec(500); i++) {
        ck_assert_int_lt(i, 3);
        apr_pool_destroy(R.pool);
    }
}
END_TEST

/* ---- phases ---- */

static child_t Y;

/* Hands everything over to Y and waits until it is there. */
static void move_all(chat_t *const *c, unsigned n)
{
    loop_settle();
    bosh_loop_drain(R.loop);
    start(&Y);
    for (unsigned i = 0; i < n; i++) {
        AWAIT(is_with(c[i], Y.peer));
    }
    AWAIT(stats().sockets == 0);
}

static void move_one(chat_t *c)
{
    move_all(&c, 1);
}

static void phase_begin(void)
{
    Y = spawn(younger);
    loop_open();
}

static void phase_end(const chat_t *c)
{
    validate();
    if (c != NULL) {
        close(c->fd);
    }
    end_child(&Y);
}

#define HALF 60 /* of STREAM_HEAD */

START_TEST(in_connect)
{
    struct sockaddr_in sin;
    static apr_sockaddr_t sa;
    int full = listen_tcp(&sin, 0), fill = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    chat_t c;

    sa.family = AF_INET;
    sa.salen = sizeof(sin);
    sa.sa.sin = sin;
    R.target[1].addrs = &sa;
    /* No room in its queue any more: the next one's SYN is dropped and comes again in a second. */
    ck_assert_int_eq(connect(fill, (struct sockaddr *)&sin, sizeof(sin)), 0);
    phase_begin();
    create(&c, "route='1' ", "");
    loop_settle();
    ck_assert_int_eq(link_of(&c).phase, BOSH_LINK_CONNECT);
    bosh_loop_drain(R.loop);
    start(&Y);
    loop_settle();
    ck_assert_int_eq(link_of(&c).phase, BOSH_LINK_CONNECT);
    ck_assert(!is_with(&c, Y.peer)); /* it goes when it is connected */
    close(accept_one(full));
    c.fd = accept_one(full);
    expect(c.fd, CLIENT_HEAD);
    AWAIT(is_with(&c, Y.peer));
    serve(c.fd, STREAM_HEAD FEATURES);
    ASSERT_HAS(answer(c.held), "<stream:features>");
    check_alive(&c, 1);
    close(full);
    close(fill);
    phase_end(&c);
}
END_TEST

START_TEST(in_header)
{
    char head[] = STREAM_HEAD;
    chat_t c;

    phase_begin();
    create(&c, "", "");
    c.fd = accept_one(lfd);
    expect(c.fd, CLIENT_HEAD);
    head[HALF] = '\0';
    serve(c.fd, head);
    AWAIT(link_of(&c).raw.len == HALF);
    move_one(&c);
    serve(c.fd, STREAM_HEAD + HALF);
    serve(c.fd, FEATURES);
    ASSERT_HAS(answer(c.held), "<stream:features>");
    check_alive(&c, 1);
    phase_end(&c);
}
END_TEST

START_TEST(in_features)
{
    char features[] = FEATURES;
    chat_t c;

    phase_begin();
    create(&c, "", "");
    c.fd = accept_one(lfd);
    expect(c.fd, CLIENT_HEAD);
    features[HALF] = '\0';
    serve(c.fd, STREAM_HEAD);
    serve(c.fd, features);
    AWAIT(link_of(&c).raw.len == HALF);
    move_one(&c);
    ck_assert_int_eq(link_of(&c).phase, BOSH_LINK_FEATURES);
    serve(c.fd, FEATURES + HALF);
    ASSERT_HAS(answer(c.held), "<stream:features>");
    check_alive(&c, 1);
    phase_end(&c);
}
END_TEST

START_TEST(in_restart)
{
    char head[] = STREAM_HEAD;
    chat_t c;

    phase_begin();
    login(&c);
    ask(&c, "xmpp:restart='true' ", "");
    expect(c.fd, CLIENT_HEAD);
    head[HALF] = '\0';
    serve(c.fd, head);
    AWAIT(link_of(&c).raw.len == HALF);
    move_one(&c);
    serve(c.fd, STREAM_HEAD + HALF);
    serve(c.fd, FEATURES);
    ASSERT_HAS(answer(c.held), "<stream:features>");
    check_alive(&c, 1);
    phase_end(&c);
}
END_TEST

/* Cut at every byte in turn, with a header of unusual prefixes that the second parser must know. */
START_TEST(half_read)
{
    static const char head[] =
        "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' "
        "xmlns:q='urn:q' id='s1' from='example.com' version='1.0'>";
    static const char text[] = "<message><q:x a='1&amp;2'>\xc3\xa4<![CDATA[<]]></q:x></message>";
    static chat_t c[sizeof(text) - 2];
    chat_t *all[sizeof(text) - 2];
    char piece[sizeof(text)];

    phase_begin();
    for (size_t i = 0; i < sizeof(text) - 2; i++) {
        create(&c[i], "", "");
        all[i] = &c[i];
        c[i].fd = accept_one(lfd);
        expect(c[i].fd, CLIENT_HEAD);
        serve(c[i].fd, head);
        serve(c[i].fd, FEATURES);
        ASSERT_HAS(answer(c[i].held), "<stream:features>");
        memcpy(piece, text, i + 1);
        piece[i + 1] = '\0';
        serve(c[i].fd, piece);
        AWAIT(link_of(&c[i]).raw.len == i + 1);
    }
    move_all(all, sizeof(text) - 2);
    for (size_t i = 0; i < sizeof(text) - 2; i++) {
        serve(c[i].fd, text + i + 1);
        ask(&c[i], "", "");
        ASSERT_HAS(answer(c[i].held), "xmlns:q='urn:q'");
        ASSERT_HAS(answer(c[i].held), "a='1&amp;2'>\xc3\xa4<![CDATA[<]]></q:x></message>");
        check_alive(&c[i], 1);
        close(c[i].fd);
    }
    phase_end(NULL);
}
END_TEST

#define BIG (600 * 1024)

static char *big_stanza(unsigned salt)
{
    char *text = malloc(BIG + 100);
    size_t n = (size_t)sprintf(text, "<message xmlns='jabber:client'><body>");

    while (n < BIG) {
        n += (size_t)sprintf(text + n, "%u ", (unsigned)n * 7 + salt);
    }
    strcpy(text + n, "</body></message>");
    return text;
}

/* A unix socket, whose buffer takes only a part of the first stanza; another waits behind it. */
START_TEST(half_written)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int ufd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char *big[2] = {big_stanza(1), big_stanza(2)};
    chat_t c;

    snprintf(un.sun_path, sizeof(un.sun_path), "/tmp/bosh-handover-%d", (int)getpid());
    unlink(un.sun_path);
    ck_assert_int_eq(bind(ufd, (struct sockaddr *)&un, sizeof(un)), 0);
    ck_assert_int_eq(listen(ufd, 5), 0);
    R.target[1].path = un.sun_path;
    R.lim.queue_size = 4 << 20;
    phase_begin();
    create(&c, "route='1' ", "");
    c.fd = accept_one(ufd);
    expect(c.fd, CLIENT_HEAD);
    serve(c.fd, STREAM_HEAD FEATURES);
    ASSERT_HAS(answer(c.held), "<stream:features>");
    ask(&c, "", big[0]);
    AWAIT(link_of(&c).down.head_open != 0);
    ask(&c, "", big[1]);
    move_one(&c);
    ck_assert_uint_eq(link_of(&c).down.head_open, 1);
    expect(c.fd, big[0]);
    expect(c.fd, big[1]);
    check_alive(&c, 1);
    unlink(un.sun_path);
    close(ufd);
    free(big[0]);
    free(big[1]);
    phase_end(&c);
}
END_TEST

/* The client does not fetch: nothing is read any more, here and there. */
START_TEST(stalled)
{
    char *big = big_stanza(3);
    chat_t c;

    R.lim.queue_size = 300 * 1024;
    R.cfg.max_stanza = 1 << 20;
    phase_begin();
    login(&c);
    serve(c.fd, big);
    AWAIT(link_of(&c).up.items == 1);
    serve(c.fd, "<message xmlns='jabber:client' id='next'/>");
    AWAIT(link_of(&c).flags & BOSH_LINK_STALLED);
    move_one(&c);
    ask(&c, "", "");
    ASSERT_HAS(answer(c.held), "4199 ");
    ask(&c, "", "");
    ASSERT_HAS(answer(c.held), "id='next'");
    check_alive(&c, 1);
    free(big);
    phase_end(&c);
}
END_TEST

START_TEST(in_closing)
{
    chat_t c;

    phase_begin();
    login(&c);
    ask(&c, "type='terminate' ", "");
    expect(c.fd, STREAM_END);
    ck_assert_int_eq(link_of(&c).phase, BOSH_LINK_CLOSING);
    move_one(&c);
    serve(c.fd, "</stream:stream>");
    expect_eof(c.fd); /* and no second end */
    AWAIT(link_of(&c).phase == BOSH_LINK_CLOSED);
    phase_end(&c);
}
END_TEST

/* Ended by the client while it is on its way. */
START_TEST(ended_in_transit)
{
    chat_t c;

    phase_begin();
    login(&c);
    start(&Y);
    freeze(&Y);
    bosh_loop_drain(R.loop);
    AWAIT(link_of(&c).flags & BOSH_LINK_TRANSIT);
    ask(&c, "type='terminate' ", "<presence xmlns='jabber:client' type='unavailable'/>");
    ASSERT_HAS(answer(c.held), "type='terminate'");
    kill(Y.pid, SIGCONT);
    expect(c.fd, "<presence xmlns='jabber:client' type='unavailable'/>" STREAM_END);
    phase_end(&c);
}
END_TEST

/* ---- deaths ---- */

START_TEST(heir_killed)
{
    child_t a = spawn(younger), b = spawn(younger);
    static chat_t c[MANY];
    unsigned under_way = 0;

    loop_open();
    for (unsigned i = 0; i < MANY; i++) {
        login(&c[i]);
        serve(c[i].fd, "<message xmlns='jabber:client'><body>ha");
    }
    start(&a);
    freeze(&a);
    bosh_loop_drain(R.loop);
    AWAIT(stats().turns > 0 && (link_of(&c[BOSH_WINDOW - 1]).flags & BOSH_LINK_TRANSIT));
    loop_settle();
    for (unsigned i = 0; i < MANY; i++) {
        under_way += (link_of(&c[i]).flags & BOSH_LINK_TRANSIT) != 0;
    }
    ck_assert_uint_eq(under_way, BOSH_WINDOW);
    end_child(&a);
    for (unsigned i = 0; i < MANY; i++) {
        AWAIT(is_with(&c[i], bosh_loop_peer(R.loop)));
    }
    serve(c[0].fd, "lf</body></message>");
    ask(&c[0], "", "");
    ASSERT_HAS(answer(c[0].held), "<body>half</body>");
    start(&b);
    for (unsigned i = 0; i < MANY; i++) {
        AWAIT(is_with(&c[i], b.peer));
        if (i > 0) {
            serve(c[i].fd, "lf</body></message>");
            ask(&c[i], "", "");
            ASSERT_HAS(answer(c[i].held), "<body>half</body>");
        }
        check_alive(&c[i], i);
        close(c[i].fd);
    }
    ck_assert_uint_eq(header().count.lost, 0);
    end_child(&b);
}
END_TEST

/* Owns streams whose server is the test, gives them away when told to. */
static void giver(int fd)
{
    static chat_t c[MANY];

    loop_open();
    for (unsigned i = 0; i < MANY; i++) {
        create(&c[i], "", "");
        answer(c[i].held);
    }
    ck_assert_int_eq(write(fd, c, sizeof(c)), sizeof(c));
    (void)hear_order(fd);
    bosh_loop_drain(R.loop);
    (void)hear_order(fd);
}

/* As if the giver had died between writing the record and sending. */
static void take_unsent(const chat_t *c, uint32_t from, uint32_t to)
{
    bosh_session_t *s;

    bosh_lock(R.lock);
    s = bosh_arena_get(&C.arena, c->index, c->serial);
    s->link.giver = from;
    s->link.transfer++;
    s->link.flags |= BOSH_LINK_TRANSIT;
    bosh_arena_own(&C.arena, s, to);
    bosh_unlock(R.lock);
}

static bool is_asleep(uint32_t peer)
{
    bool asleep;

    bosh_lock(R.lock);
    asleep = bosh_arena_peer(&C.arena, peer)->asleep != 0;
    bosh_unlock(R.lock);
    return asleep;
}

START_TEST(giver_killed)
{
    child_t g = spawn(giver), a = spawn(younger);
    static chat_t c[MANY];
    int fd[MANY];
    unsigned alive = 0, told = 0;
    size_t have = 0;

    for (unsigned i = 0; i < MANY; i++) {
        fd[i] = accept_one(lfd);
        expect(fd[i], CLIENT_HEAD);
        serve(fd[i], STREAM_HEAD FEATURES);
    }
    while (have < sizeof(c)) {
        ssize_t n;
        await_readable(g.fd);
        n = read(g.fd, (char *)c + have, sizeof(c) - have);
        ck_assert_int_gt(n, 0);
        have += (size_t)n;
    }
    loop_open(); /* of the giver's age: no heir, but whoever sees its death */
    loop_settle();
    g.peer = 1;
    start(&a);
    freeze(&a);
    order(&g, 'd');
    for (unsigned i = 0; i < MANY; i++) {
        c[i].fd = fd[i];
    }
    AWAIT(link_of(&c[BOSH_WINDOW - 1]).flags & BOSH_LINK_TRANSIT);
    AWAIT(is_asleep(g.peer)); /* all is sent */
    freeze(&g);
    for (unsigned i = 0; i < MANY && told == 0; i++) {
        if (!(link_of(&c[i]).flags & BOSH_LINK_TRANSIT)) {
            take_unsent(&c[i], g.peer, a.peer);
            told = 1;
        }
    }
    end_child(&g);
    AWAIT(peer_state(g.peer) == BOSH_PEER_FREE);
    ck_assert_uint_eq(header().count.lost, MANY - BOSH_WINDOW - 1);
    kill(a.pid, SIGCONT);
    AWAIT(header().count.lost == MANY - BOSH_WINDOW);
    AWAIT(header().count.moved == BOSH_WINDOW);
    for (unsigned i = 0; i < MANY; i++) {
        if (link_of(&c[i]).phase == BOSH_LINK_OPEN) {
            alive++;
            check_alive(&c[i], i);
        } else {
            ask(&c[i], "", "");
            ASSERT_HAS(answer(c[i].held), "condition='remote-connection-failed'");
        }
        close(c[i].fd);
    }
    ck_assert_uint_eq(alive, BOSH_WINDOW);
    end_child(&a);
}
END_TEST

/* The heir has descriptors for some of them only: the others stay where they are, and go later. */
START_TEST(few_descriptors)
{
    child_t a = spawn(younger);
    static chat_t c[40];
    unsigned moved = 0;

    loop_open();
    for (unsigned i = 0; i < 40; i++) {
        login(&c[i]);
    }
    start(&a);
    order(&a, 'f');
    hear_number(&a);
    bosh_loop_drain(R.loop);
    AWAIT(header().count.moved > 0);
    order(&a, 'w');
    AWAIT(hear_number(&a) > 0 || (order(&a, 'w'), false)); /* BH205 */
    for (unsigned i = 0; i < 40; i++) {
        check_alive(&c[i], i);
        moved += is_with(&c[i], a.peer);
    }
    ck_assert_uint_gt(moved, 0);
    ck_assert_uint_lt(moved, 40);
    order(&a, 'F');
    hear_number(&a);
    for (unsigned i = 0; i < 40; i++) {
        AWAIT(is_with(&c[i], a.peer));
        check_alive(&c[i], i);
        close(c[i].fd);
    }
    ck_assert_uint_eq(header().count.lost, 0);
    end_child(&a);
}
END_TEST

/* What was left in the queue of a dead peer concerns nobody who gets its place. */
START_TEST(stale_messages)
{
    child_t a = spawn(younger), b = spawn(younger);
    chat_t c;

    loop_open();
    login(&c);
    start(&a);
    freeze(&a);
    bosh_loop_drain(R.loop);
    AWAIT(link_of(&c).flags & BOSH_LINK_TRANSIT);
    end_child(&a);
    AWAIT(is_with(&c, bosh_loop_peer(R.loop)));
    start(&b);
    ck_assert_uint_eq(b.peer, a.peer);
    AWAIT(is_with(&c, b.peer));
    ck_assert_uint_eq(header().count.moved, 1);
    check_alive(&c, 1);
    close(c.fd);
    end_child(&b);
}
END_TEST

/* ---- nobody to give to ---- */

START_TEST(nobody_comes)
{
    apr_time_t begin;
    chat_t c;

    R.cfg.running_generation = NULL;
    loop_open();
    login(&c);
    begin = bosh_clock_now();
    bosh_loop_drain(R.loop);
    expect(c.fd, STREAM_END);
    serve(c.fd, "</stream:stream>");
    expect_eof(c.fd);
    ck_assert_int_ge(bosh_clock_now() - begin, BOSH_ALONE_TIME - apr_time_from_msec(100));
    ck_assert_int_le(bosh_clock_now() - begin,
                     BOSH_ALONE_TIME + apr_time_from_sec(10)); /* not BOSH_LATE_TIME */
    ck_assert_uint_eq(header().closing, 1);
    ask(&c, "", "");
    ASSERT_HAS(answer(c.held), "condition='system-shutdown'");
    retire();
    close(c.fd);
}
END_TEST

static void *terminate_soon(void *baton)
{
    (void)baton;
    poll(NULL, 0, 200);
    kill(getpid(), SIGTERM);
    return NULL;
}

/* SIGTERM ends the wait, whatever httpd's handler thinks of it. */
START_TEST(terminated)
{
    apr_time_t begin;
    pthread_t thread;
    sigset_t all, before;
    chat_t c;

    loop_open();
    login(&c);
    bosh_loop_drain(R.loop);
    signal(SIGTERM, SIG_IGN);
    kill(getpid(), SIGTERM); /* ignored: nothing */
    loop_settle();
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    ck_assert_int_eq(pthread_create(&thread, NULL, terminate_soon, NULL), 0);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    begin = bosh_clock_now();
    retire();
    ck_assert_int_lt(bosh_clock_now() - begin, BOSH_ALONE_TIME);
    expect(c.fd, STREAM_END);
    expect_eof(c.fd);
    pthread_join(thread, NULL);
    close(c.fd);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("handover");
    TCase *t = tcase_create("handover");
    SRunner *r;
    int failed;

    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, open_handover, close_default);
    tcase_add_test(t, many);
    tcase_add_test(t, leaves_at_once);
    tcase_add_test(t, in_connect);
    tcase_add_test(t, in_header);
    tcase_add_test(t, in_features);
    tcase_add_test(t, in_restart);
    tcase_add_test(t, half_read);
    tcase_add_test(t, half_written);
    tcase_add_test(t, stalled);
    tcase_add_test(t, in_closing);
    tcase_add_test(t, ended_in_transit);
    tcase_add_test(t, heir_killed);
    tcase_add_test(t, giver_killed);
    tcase_add_test(t, few_descriptors);
    tcase_add_test(t, stale_messages);
    tcase_add_test(t, nobody_comes);
    tcase_add_test(t, terminated);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
