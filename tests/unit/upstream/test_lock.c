/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arena's lock between processes: exclusion, wake-ups, and taking over from a holder that was
 * killed. Links src/core and src/upstream/bosh_lock.c.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arena_env.h"
#include "bosh_lock.h"
#include "bosh_undo.h"

#define PEERS 4

static arena_env_t env;
static bosh_arena_t *A;
static bosh_lock_t lock;
static struct {
    bosh_wakers_t w;
    int fd[PEERS];
} wakers;
static uint32_t repairs, lost;
static bool held_in_callback;

static void on_repair(void *ctx, uint32_t sessions_lost)
{
    ARENA_EXPECT(ctx == &env);
    held_in_callback = pthread_mutex_trylock((pthread_mutex_t *)(void *)A->h->lock) != 0;
    if (!held_in_callback) {
        pthread_mutex_unlock((pthread_mutex_t *)(void *)A->h->lock);
    }
    repairs++;
    lost += sessions_lost;
}

static void setup(void)
{
    arena_open(&env, 20, 500);
    A = &env.a;
    ck_assert_int_eq(bosh_lock_init(A), APR_SUCCESS);
    wakers.w.n = PEERS;
    for (uint32_t i = 0; i < PEERS; i++) {
        wakers.w.fd[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        ck_assert_uint_eq(bosh_arena_peer_claim(A, i + 1, 0, 0), i + 1);
    }
    memset(&lock, 0, sizeof(lock));
    lock.arena = A;
    lock.wakers = &wakers.w;
    lock.on_repair = on_repair;
    lock.ctx = &env;
    repairs = lost = 0;
}

static void teardown(void)
{
    for (uint32_t i = 0; i < PEERS; i++) {
        close(wakers.w.fd[i]);
    }
    arena_close(&env);
}

/* Who has been woken since the last look, as a bit set. */
static unsigned woken(void)
{
    unsigned set = 0;

    for (uint32_t i = 0; i < PEERS; i++) {
        uint64_t n;
        if (read(wakers.w.fd[i], &n, sizeof(n)) == (ssize_t)sizeof(n)) {
            set |= 1u << (i + 1);
        }
    }
    return set;
}

/* Runs in a child that has no right to report by itself. */
static pid_t fork_child(void)
{
    pid_t pid = fork();

    ck_assert_int_ge(pid, 0);
    if (pid == 0) { /* not to outlive the test, nor to leave a core */
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        alarm(20);
    }
    return pid;
}

static int wait_for(pid_t pid)
{
    int status;

    while (waitpid(pid, &status, 0) < 0) {
        ck_assert_int_eq(errno, EINTR);
    }
    return status;
}

static bosh_session_t *with_text(uint32_t n)
{
    bosh_session_t *s = arena_session(&env, n);
    char text[5000];

    arena_text(text, sizeof(text), n);
    ck_assert_int_eq(bosh_bytes_append(A, &s->link.raw, text, sizeof(text), BOSH_PRIO_INPUT),
                     APR_SUCCESS);
    return s;
}

static void expect_text(bosh_session_t *s, uint32_t n)
{
    char text[5000], got[5000];

    arena_text(text, sizeof(text), n);
    ck_assert_uint_eq(bosh_bytes_peek(A, &s->link.raw, 0, got, sizeof(got)), sizeof(got));
    ck_assert_mem_eq(got, text, sizeof(text));
}

START_TEST(test_plain_section)
{
    bosh_lock(&lock);
    ck_assert_int_eq(pthread_mutex_trylock((pthread_mutex_t *)(void *)A->h->lock), EBUSY);
    arena_session(&env, 1);
    ck_assert_uint_eq(A->h->busy, 1);
    bosh_unlock(&lock);
    ck_assert_uint_eq(A->h->busy, 0);
    ck_assert_uint_eq(repairs, 0);
    ck_assert_uint_eq(A->h->count.lock_contended, 0);
    ck_assert_uint_eq(woken(), 0);
}
END_TEST

START_TEST(test_wakes_after_release)
{
    bosh_lock(&lock);
    bosh_arena_peer(A, 2)->asleep = 1;
    bosh_arena_peer(A, 4)->asleep = 1;
    bosh_arena_mail(A, 2, 7, 7);
    bosh_arena_mail(A, 2, 8, 8);
    bosh_arena_mail(A, 3, 7, 7);
    bosh_arena_mail(A, 4, 7, 7);
    ck_assert_uint_eq(woken(), 0); /* no system call under the lock */
    bosh_unlock(&lock);
    ck_assert_uint_eq(woken(), 1u << 2 | 1u << 4);
    ck_assert_uint_eq(A->h->count.wakes, 2);
    bosh_lock(&lock);
    bosh_unlock(&lock);
    ck_assert_uint_eq(woken(), 0);
    bosh_lock(&lock);
    A->wake_all = true;
    bosh_unlock(&lock);
    ck_assert_uint_eq(woken(), 0x1e);
    ck_assert_uint_eq(A->h->count.wakes, 2 + PEERS);
}
END_TEST

START_TEST(test_without_wakers)
{
    lock.wakers = NULL;
    bosh_lock(&lock);
    bosh_arena_peer(A, 2)->asleep = 1;
    bosh_arena_mail(A, 2, 7, 7);
    bosh_unlock(&lock);
    ck_assert_uint_eq(A->nwake, 0);
    ck_assert_uint_eq(A->h->count.wakes, 0);
}
END_TEST

/* An eventfd that takes no more blocks nobody. */
START_TEST(test_full_eventfd)
{
    uint64_t most = UINT64_MAX - 1;

    ck_assert_int_eq(write(wakers.w.fd[0], &most, sizeof(most)), sizeof(most));
    bosh_lock(&lock);
    bosh_arena_peer(A, 1)->asleep = 1;
    bosh_arena_mail(A, 1, 7, 7);
    bosh_unlock(&lock);
    ck_assert_uint_eq(woken(), 1u << 1);
}
END_TEST

START_TEST(test_killed_holder)
{
    bosh_session_t *kept, *torn;
    pid_t pid;
    int status;

    bosh_lock(&lock);
    kept = with_text(1);
    torn = with_text(2);
    bosh_arena_mail(A, 1, 7, 7);
    bosh_unlock(&lock);
    pid = fork_child();
    if (pid == 0) {
        bosh_lock(&lock);
        bosh_arena_touch(A, torn);
        torn->link.raw.len += 77;                 /* half of a change */
        bosh_arena_chunk_new(A, BOSH_PRIO_INPUT); /* and a chunk that is nowhere */
        bosh_arena_peer(A, 3)->asleep = 1;
        bosh_arena_mail(A, 3, 7, 7); /* a wake-up that will not be written */
        raise(SIGKILL);
        _exit(1);
    }
    status = wait_for(pid);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);

    bosh_lock(&lock);
    ck_assert_uint_eq(repairs, 0); /* told when the lock is released */
    arena_check(&env);
    expect_text(torn, 2); /* as if the section had not been */
    expect_text(kept, 1);
    ck_assert_uint_eq(bosh_arena_peer(A, 1)->overflow, 1);
    bosh_unlock(&lock);
    ck_assert_uint_eq(repairs, 1);
    ck_assert_uint_eq(lost, 0);
    ck_assert(!held_in_callback);
    ck_assert_uint_eq(woken(), 0x1e); /* everybody looks at what is left */

    bosh_lock(&lock); /* usable again, and told once only */
    bosh_unlock(&lock);
    ck_assert_uint_eq(repairs, 1);
    ck_assert_uint_eq(A->h->count.repairs, 1);
    ck_assert_uint_eq(A->h->count.repaired_sessions, 0);
}
END_TEST

/* The one that takes over is killed in the middle of the repair. */
START_TEST(test_killed_again)
{
    bosh_session_t *kept;
    pid_t pid;

    bosh_lock(&lock);
    kept = with_text(1);
    with_text(2);
    bosh_unlock(&lock);
    for (int i = 0; i < 3; i++) {
        pid = fork_child();
        if (pid == 0) {
            int rv = pthread_mutex_lock((pthread_mutex_t *)(void *)A->h->lock);
            if (rv != (i == 0 ? 0 : EOWNERDEAD)) {
                _exit(1);
            }
            A->h->busy = 2; /* dies before it calls the mutex consistent */
            A->h->nsessions = 99;
            raise(SIGKILL);
            _exit(1);
        }
        ck_assert(WIFSIGNALED(wait_for(pid)));
    }
    bosh_lock(&lock);
    arena_check(&env);
    expect_text(kept, 1);
    bosh_unlock(&lock);
    ck_assert_uint_eq(repairs, 1);
    ck_assert_uint_eq(lost, 1);
}
END_TEST

/* Waiting in lock() when the holder dies. */
START_TEST(test_killed_while_another_waits)
{
    int ready[2];
    pid_t pid;
    char c;

    ck_assert_int_eq(pipe(ready), 0);
    pid = fork_child();
    if (pid == 0) {
        bosh_lock(&lock);
        arena_session(&env, 3);
        if (write(ready[1], "x", 1) != 1) {
            _exit(1);
        }
        for (;;) {
            pause();
        }
    }
    ck_assert_int_eq(read(ready[0], &c, 1), 1);
    if (fork_child() == 0) { /* kills the holder while we wait, or before we do: both must work */
        kill(pid, SIGKILL);
        _exit(0);
    }
    bosh_lock(&lock);
    ck_assert_uint_eq(A->h->nsessions, 0);
    bosh_unlock(&lock);
    ck_assert_uint_eq(repairs, 1);
    wait_for(pid);
    wait_for(-1);
    close(ready[0]);
    close(ready[1]);
}
END_TEST

/* ENOTRECOVERABLE: nobody can go on, and the message says what to do. */
START_TEST(test_unusable_mutex)
{
    pthread_mutex_t *mutex = (pthread_mutex_t *)(void *)A->h->lock;
    char text[500];
    int err[2], status;
    ssize_t n;
    pid_t pid;

    pid = fork_child();
    if (pid == 0) {
        pthread_mutex_lock(mutex);
        _exit(0);
    }
    wait_for(pid);
    ck_assert_int_eq(pthread_mutex_lock(mutex), EOWNERDEAD);
    pthread_mutex_unlock(mutex); /* without calling it consistent */
    ck_assert_int_eq(pipe(err), 0);
    pid = fork_child();
    if (pid == 0) {
        dup2(err[1], STDERR_FILENO);
        signal(SIGABRT, SIG_DFL);
        bosh_lock(&lock);
        _exit(0);
    }
    close(err[1]);
    status = wait_for(pid);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    n = read(err[0], text, sizeof(text) - 1);
    ck_assert_int_gt(n, 0);
    text[n] = '\0';
    ck_assert_ptr_nonnull(strstr(text, "Restart the server"));
    close(err[0]);
}
END_TEST

/* Processes and threads count together; the contended ones are counted, too. */
#define ROUNDS 20000

static void *count_up(void *arg)
{
    (void)arg;
    for (int i = 0; i < ROUNDS; i++) {
        bosh_lock(&lock);
        A->h->count.requests++;
        bosh_unlock(&lock);
    }
    return NULL;
}

START_TEST(test_exclusion)
{
    pid_t pid[2];

    for (int i = 0; i < 2; i++) {
        pid[i] = fork_child();
        if (pid[i] == 0) {
            pthread_t other;
            pthread_create(&other, NULL, count_up, NULL);
            count_up(NULL);
            pthread_join(other, NULL);
            _exit(0);
        }
    }
    count_up(NULL);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(wait_for(pid[i]), 0);
    }
    ck_assert_uint_eq(A->h->count.requests, 5 * ROUNDS);
}
END_TEST

START_TEST(test_contention_is_counted)
{
    pthread_t other;
    uint64_t before, waited, taken;

    bosh_lock(&lock);
    taken = A->h->count.lock_taken;
    before = A->h->count.lock_contended;
    waited = A->h->count.lock_waited;
    pthread_create(&other, NULL, count_up, NULL);
    while (A->h->count.requests == 0 && before == 0) { /* until it waits in the kernel */
        uint32_t word = __atomic_load_n((uint32_t *)(void *)A->h->lock, __ATOMIC_RELAXED);
        if (word & 0x80000000u) { /* FUTEX_WAITERS */
            break;
        }
    }
    bosh_unlock(&lock);
    pthread_join(other, NULL);
    ck_assert_uint_ge(A->h->count.lock_contended, 1);
    ck_assert_uint_gt(A->h->count.lock_waited, waited);
    ck_assert_uint_eq(A->h->count.lock_taken, taken + ROUNDS);
    ck_assert_uint_gt(A->h->count.lock_held, 0);
}
END_TEST

/* What a child does until it is killed: makes, changes and ends sessions. Says once that it is at
 * it. */
static void work_for_ever(uint64_t seed, int ready)
{
    static char text[3000];
    bosh_slice_t item = {text, 0};

    for (uint32_t n = 0;; n++) {
        uint8_t sid[BOSH_SID_BYTES];
        if (n <= 20) {
            bosh_lock(&lock);
        }
        arena_sid(arena_random(&seed), sid);
        bosh_arena_session_new(A, sid);
        for (bosh_ix i = 1; i < A->h->fresh_session; i++) {
            bosh_session_t *s = bosh_arena_session(A, i);
            if (s->state == BOSH_ST_FREE) {
                continue;
            }
            bosh_arena_touch(A, s);
            item.n = arena_random(&seed) % sizeof(text);
            bosh_queue_append(A, &s->link.up, BOSH_ITEM_STANZA, &item, 1, BOSH_PRIO_INPUT);
            bosh_queue_pop_to(A, &s->link.up, &s->link.raw, BOSH_PRIO_ANSWER);
            bosh_bytes_consume(A, &s->link.raw, arena_random(&seed) % sizeof(text));
            if (arena_random(&seed) % 8 == 0) {
                bosh_arena_session_free(A, s);
            }
        }
        if (n == 20 && write(ready, "x", 1) != 1) { /* the killer sets out while we hold the lock */
            _exit(1);
        }
        if (n < 20) {
            bosh_unlock(&lock);
        } /* and from then on never without it: each death is one inside */
    }
}

/* Killed at any moment of real work, many times over: what is left is always sound. */
START_TEST(test_killed_at_random)
{
    for (uint32_t round = 1; round <= 60; round++) {
        int ready[2];
        pid_t pid;
        char c;
        ck_assert_int_eq(pipe(ready), 0);
        pid = fork_child();
        if (pid == 0) {
            work_for_ever(round, ready[1]);
        }
        ck_assert_int_eq(read(ready[0], &c, 1), 1);
        kill(pid, SIGKILL);
        wait_for(pid);
        bosh_lock(&lock);
        arena_check(&env);
        bosh_unlock(&lock);
        ck_assert_uint_eq(repairs, round);
        ck_assert_uint_le(lost, repairs); /* the one that was being changed, and no other */
        close(ready[0]);
        close(ready[1]);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("lock");
    TCase *tc = tcase_create("lock");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, test_plain_section);
    tcase_add_test(tc, test_wakes_after_release);
    tcase_add_test(tc, test_without_wakers);
    tcase_add_test(tc, test_full_eventfd);
    tcase_add_test(tc, test_killed_holder);
    tcase_add_test(tc, test_killed_again);
    tcase_add_test(tc, test_killed_while_another_waits);
    tcase_add_test(tc, test_unusable_mutex);
    tcase_add_test(tc, test_exclusion);
    tcase_add_test(tc, test_contention_is_counted);
    tcase_add_test(tc, test_killed_at_random);
    suite_add_tcase(suite, tc);

    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
