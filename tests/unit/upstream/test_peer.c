/* SPDX-License-Identifier: Apache-2.0 */
/* Several processes with a loop each, as httpd's children; some of them die. */
#include "rig.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

typedef struct child_t {
    pid_t pid;
    int fd; /* socketpair: orders down, chat_t up */
} child_t;

typedef void child_fn(int fd);

static child_t spawn(child_fn *body)
{
    child_t c;
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

static void tell(int fd, const chat_t *chat)
{
    ck_assert_int_eq(write(fd, chat, sizeof(*chat)), sizeof(*chat));
}

static chat_t hear(const child_t *c)
{
    chat_t chat;

    await_readable(c->fd);
    ck_assert_int_eq(read(c->fd, &chat, sizeof(chat)), sizeof(chat));
    return chat;
}

static void await_order(int fd)
{
    char c;

    ck_assert_int_eq(read(fd, &c, 1), 1);
}

static void order(const child_t *c)
{
    ck_assert_int_eq(write(c->fd, "x", 1), 1);
}

/* Owns a stream and holds its request, until told to stop, or killed. */
static void owner(int fd)
{
    chat_t c = {.fd = -1};

    loop_open();
    login(&c);
    ask(&c, "", "");
    loop_settle();
    tell(fd, &c);
    await_order(fd);
    bosh_loop_stop(R.loop);
}

/* Holds the next request of somebody else's session. */
static void holder(int fd)
{
    chat_t c = {.fd = -1};

    loop_open();
    tell(fd, &c); /* we are peer 1 */
    ck_assert_int_eq(read(fd, &c, sizeof(c)), sizeof(c));
    ask(&c, "", "");
    tell(fd, &c);
    await_order(fd);
}

/* Dies in the middle of changing somebody's session. */
static void lock_holder(int fd)
{
    chat_t c = {.fd = -1};

    loop_open();
    tell(fd, &c); /* we are peer 1 */
    ck_assert_int_eq(read(fd, &c, sizeof(c)), sizeof(c));
    bosh_lock(R.lock);
    C.arena.h->busy = c.index;
    kill(getpid(), SIGKILL);
}

static void end_of(const child_t *c)
{
    ck_assert_int_eq(waitpid(c->pid, NULL, 0), c->pid);
    close(c->fd);
}

static bool have_pidfd(void)
{
    long fd = syscall(SYS_pidfd_open, getpid(), 0);

    if (fd >= 0) {
        close((int)fd);
    }
    return fd >= 0;
}

static uint32_t owner_of(const chat_t *c)
{
    return link_of(c).owner;
}

/* The dead one's clients are told, quickly, by whoever is left; a zombie counts as dead. */
START_TEST(owner_killed)
{
    child_t child = spawn(owner);
    chat_t c = hear(&child);

    loop_open();
    loop_settle(); /* the first sweep watches the other peer */
    kill(child.pid, SIGKILL);
    if (!have_pidfd()) {
        waitpid(child.pid, NULL, 0); /* then a zombie does not count as dead */
    }
    AWAIT(peer_state(1) == BOSH_PEER_FREE);
    AWAIT(warned("BH204"));
    ck_assert(warned("1 upstream streams were lost"));
    ck_assert_uint_eq(header().count.lost, 1);
    ck_assert_uint_eq(owner_of(&c), bosh_loop_peer(R.loop));
    ck_assert_int_eq(link_of(&c).phase, BOSH_LINK_CLOSED);
    AWAIT(stats().streams == 1); /* its timer */
    c.rid--;                     /* the held request comes again */
    ASSERT_HAS(answer(ask(&c, "", "")), "condition='remote-connection-failed'");
    waitpid(child.pid, NULL, 0);
    close(child.fd);
}
END_TEST

static apr_time_t noticed_after(void)
{
    child_t child = spawn(owner);
    chat_t c = hear(&child);
    uint32_t peer = owner_of(&c);
    apr_time_t start;

    loop_open();
    loop_settle();
    start = bosh_clock_now();
    kill(child.pid, SIGKILL);
    if (!have_pidfd()) {
        waitpid(child.pid, NULL, 0); /* as in owner_killed */
    }
    AWAIT(peer_state(peer) == BOSH_PEER_FREE);
    start = bosh_clock_now() - start;
    waitpid(child.pid, NULL, 0);
    close(child.fd);
    return start;
}

/* Not by the sweep, which was at the start and comes after a second again. The machine may stand still for as long, but
 * not every time. */
START_TEST(the_end_of_a_peer_is_noticed_at_once)
{
    apr_time_t took = noticed_after();

    for (int more = 4; more > 0 && took >= apr_time_from_msec(700) && have_pidfd(); more--) {
        loop_close();
        took = noticed_after();
    }
    ck_assert(took < apr_time_from_msec(700) || !have_pidfd());
}
END_TEST

/* A request held in a dead process is answered when it comes again; the stream lives. */
START_TEST(holder_killed)
{
    chat_t c = {.fd = -1}, theirs;
    child_t child = spawn(holder);

    hear(&child);
    loop_open();
    login(&c);
    tell(child.fd, &c);
    theirs = hear(&child);
    c.rid = theirs.rid;
    loop_settle();
    kill(child.pid, SIGKILL);
    end_of(&child);
    AWAIT(peer_state(1) == BOSH_PEER_FREE);
    ck_assert_uint_eq(warnings(), 0); /* nothing was lost: a notice */
    serve(c.fd, "<message/>");
    loop_settle();
    c.rid--;
    ASSERT_HAS(answer(ask(&c, "", "")), "<message");
    close(c.fd);
}
END_TEST

/* One that stops in order leaves its finished sessions to another. */
START_TEST(heir)
{
    child_t child = spawn(owner);
    chat_t c = hear(&child);

    loop_open();
    order(&child);
    end_of(&child);
    ck_assert_uint_eq(peer_state(1), BOSH_PEER_FREE);
    ck_assert_uint_eq(owner_of(&c), bosh_loop_peer(R.loop));
    AWAIT(stats().streams == 1);
    c.rid--;
    ASSERT_HAS(answer(ask(&c, "", "")), "condition='system-shutdown'");
    ck_assert_uint_eq(header().count.lost, 0);
}
END_TEST

/* ... or, when there is nobody, to the next that comes. */
START_TEST(no_heir)
{
    child_t child = spawn(owner);
    chat_t c = hear(&child);

    order(&child);
    end_of(&child);
    loop_open();
    ck_assert_uint_eq(owner_of(&c), bosh_loop_peer(R.loop));
    AWAIT(stats().streams == 1);
    c.rid--;
    ASSERT_HAS(answer(ask(&c, "", "")), "condition='system-shutdown'");
}
END_TEST

static uint32_t state_while_adopting;

static void look_while_adopting(void *ctx, bosh_log_t level, const char *line)
{
    if (strstr(line, "took over sessions that nobody owned") != NULL) {
        state_while_adopting = C.arena.peers[0].state;
    }
    on_log(ctx, level, line);
}

/* Nobody may give a stream to a peer that is still adopting: it would take that for one of nobody's. */
START_TEST(not_chosen_while_adopting)
{
    child_t child = spawn(owner);

    hear(&child);
    order(&child);
    end_of(&child);
    R.cfg.log = look_while_adopting;
    loop_open();
    ck_assert_uint_eq(bosh_loop_peer(R.loop), 1);
    ck_assert_uint_eq(state_while_adopting, BOSH_PEER_LEAVING);
    ck_assert_uint_eq(peer_state(1), BOSH_PEER_LIVE);
}
END_TEST

static uint32_t state_before_running;

/* The first thing the loop's thread calls; here instead of libc's. */
int pthread_setname_np(pthread_t thread, const char *name)
{
    (void)thread;
    (void)name;
    state_before_running = C.arena.peers[0].state;
    return 0;
}

/* On a busy machine the new thread waits long for its first turn on a processor, and streams that were given to
 * it would wait as long: they stay with their giver. */
START_TEST(not_chosen_before_it_runs)
{
    loop_open();
    ck_assert_uint_eq(bosh_loop_peer(R.loop), 1);
    ck_assert_uint_eq(peer_state(1), BOSH_PEER_LIVE);
    ck_assert_uint_eq(state_before_running, BOSH_PEER_LEAVING);
}
END_TEST

/* The only child is killed: its successor finds the streams' records and tells the clients. */
START_TEST(only_child_killed)
{
    child_t child = spawn(owner);
    chat_t c = hear(&child);

    kill(child.pid, SIGKILL);
    end_of(&child);
    loop_open();
    AWAIT(peer_state(1) == BOSH_PEER_FREE);
    AWAIT(stats().streams == 1);
    c.rid--;
    ASSERT_HAS(answer(ask(&c, "", "")), "condition='remote-connection-failed'");
}
END_TEST

/* All peers in use: only the dead make room. */
START_TEST(no_room)
{
    child_t a = spawn(owner), b, c, d;
    apr_pool_t *pool;

    hear(&a);
    b = spawn(owner);
    hear(&b);
    c = spawn(owner);
    hear(&c);
    d = spawn(owner);
    hear(&d);
    apr_pool_create(&pool, NULL);
    ck_assert_int_eq(bosh_loop_start(&R.loop, &R.cfg, pool), APR_ENOSPC);
    apr_pool_destroy(pool);
    kill(b.pid, SIGKILL);
    kill(c.pid, SIGKILL);
    end_of(&b);
    end_of(&c);
    loop_open();
    order(&a);
    end_of(&a);
    order(&d);
    end_of(&d);
}
END_TEST

/* Two see the same death: each stream is counted once, whoever does the work. */
START_TEST(two_rescuers)
{
    child_t a = spawn(owner), b;
    chat_t ca = hear(&a), cb;

    b = spawn(owner);
    cb = hear(&b);
    loop_open();
    loop_settle();
    kill(a.pid, SIGKILL);
    end_of(&a);
    AWAIT(peer_state(1) == BOSH_PEER_FREE);
    ck_assert_uint_eq(header().count.lost, 1);
    ck_assert(owner_of(&ca) == 2 || owner_of(&ca) == bosh_loop_peer(R.loop));
    ck_assert_uint_eq(owner_of(&cb), 2);
    validate();
    order(&b);
    end_of(&b);
}
END_TEST

/* Killed while it holds the lock: repaired, the session it was changing is over, the others go on. */
START_TEST(lock_holder_killed)
{
    child_t child = spawn(lock_holder);
    chat_t c, victim = {.fd = -1};

    hear(&child);
    loop_open();
    login(&victim);
    login(&c);
    ask(&c, "", "");
    tell(child.fd, &victim);
    end_of(&child);
    AWAIT(warned("BH203") || warned("BH204"));
    AWAIT(peer_state(1) == BOSH_PEER_FREE);
    ck_assert_uint_eq(header().count.repairs, 1);
    expect_eof(victim.fd);
    serve(c.fd, "<message/>");
    ASSERT_HAS(answer(c.held), "<message");
    AWAIT(stats().streams == 1);
    close(c.fd);
    close(victim.fd);
}
END_TEST

/* Without pidfd_open (an old kernel, a strict sandbox) the sweep finds the dead. */
static void forbid_pidfd(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pidfd_open, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = {sizeof(code) / sizeof(code[0]), code};

    ck_assert_int_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    ck_assert_int_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog), 0);
}

START_TEST(without_pidfd)
{
    child_t child = spawn(owner);
    chat_t c = hear(&child);

    forbid_pidfd();
    loop_open();
    loop_settle();
    kill(child.pid, SIGKILL);
    end_of(&child);
    AWAIT(peer_state(1) == BOSH_PEER_FREE);
    c.rid--;
    ASSERT_HAS(answer(ask(&c, "", "")), "condition='remote-connection-failed'");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("peer");
    TCase *t = tcase_create("peer");
    SRunner *r;
    int failed;

    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, open_idle, close_default);
    tcase_add_test(t, owner_killed);
    tcase_add_test(t, the_end_of_a_peer_is_noticed_at_once);
    tcase_add_test(t, holder_killed);
    tcase_add_test(t, heir);
    tcase_add_test(t, no_heir);
    tcase_add_test(t, not_chosen_while_adopting);
    tcase_add_test(t, not_chosen_before_it_runs);
    tcase_add_test(t, only_child_killed);
    tcase_add_test(t, no_room);
    tcase_add_test(t, two_rescuers);
    tcase_add_test(t, lock_holder_killed);
    tcase_add_test(t, without_pidfd);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
