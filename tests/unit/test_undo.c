/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_undo: a process killed at any instruction of a section leaves the session as it was before the
 * section, or, once that is over, as it is after it; nothing in between, and nobody else's touched. The
 * process is stepped to that instruction by ptrace.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arena_env.h"
#include "bosh_undo.h"

#define SESSIONS 6
#define CHUNKS   64

static arena_env_t env;
static bosh_arena_t *const A = &env.a;

static void setup(void)
{
    arena_open(&env, SESSIONS, CHUNKS);
}

static void teardown(void)
{
    arena_close(&env);
}

/* ---- what an arena says ---- */

static uint64_t digest;

static void add(const void *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        digest = (digest ^ ((const uint8_t *)p)[i]) * UINT64_C(0x100000001b3);
    }
}

static const char *add_string(bosh_arena_t *a, const bosh_bytes_t *b)
{
    static char text[CHUNKS * BOSH_CHUNK_SIZE];

    add(&b->len, sizeof(b->len));
    add(text, bosh_bytes_peek(a, b, 0, text, sizeof(text)));
    return NULL;
}

static uint64_t digest_of_all(void)
{
    digest = UINT64_C(0xcbf29ce484222325);
    for (bosh_ix i = 1; i < A->h->fresh_session; i++) {
        const bosh_session_t *s = bosh_arena_session(A, i);
        if (s->serial == 0) {
            continue; /* taken from the fresh ones, and not come to be */
        }
        add(&s->state, sizeof(s->state));
        add(&s->serial, sizeof(s->serial));
        if (s->state != BOSH_ST_FREE) {
            size_t room = bosh_bytes_reserved(A, &s->link.raw);
            add(&room, sizeof(room));
            add(&s->processed, sizeof(s->processed));
            add(&s->link.down.items, sizeof(uint32_t));
            add(&s->link.up.items, sizeof(uint32_t));
            bosh_arena_each_string(A, s, add_string);
        }
    }
    return digest;
}

/* ---- sections ---- */

#define PRIO BOSH_PRIO_ANSWER

/* One change to a session, of any kind there is. */
static void change(bosh_session_t *s, uint64_t *seed)
{
    static char text[9000];
    uint32_t n = arena_random(seed) % 1500;
    bosh_slice_t item = {text, n}, iov[4];
    bosh_slot_t *slot = &s->slots[arena_random(seed) % 8];

    arena_text(text, n, n);
    switch (arena_random(seed) % 14) {
    case 0:
    case 1:
        bosh_bytes_append(A, &s->link.raw, text, n, PRIO);
        break;
    case 2:
    case 3:
        bosh_bytes_reserve(A, &s->link.raw, n * 2, iov, 4, PRIO);
        break;
    case 4:
    case 5: {
        size_t room = bosh_bytes_reserved(A, &s->link.raw);
        bosh_bytes_commit(A, &s->link.raw, room > 0 ? n % room : 0);
        break;
    }
    case 6:
        bosh_bytes_consume(A, &s->link.raw, n);
        break;
    case 7:
        bosh_queue_append(A, &s->link.up, BOSH_ITEM_STANZA, &item, 1, PRIO);
        break;
    case 8:
        bosh_queue_append(A, &slot->payload, BOSH_ITEM_STANZA, &item, 1, PRIO);
        break;
    case 9:
        bosh_queue_move(A, &s->link.down, &slot->payload);
        break;
    case 10:
        bosh_queue_consume(A, &s->link.down, n);
        break;
    case 11:
        bosh_queue_pop_to(A, &s->link.up, &slot->answer, PRIO);
        break;
    case 12:
        bosh_bytes_clear(A, &slot->answer);
        break;
    default:
        bosh_bytes_clear(A, n % 2 ? &s->link.raw : &s->link.prime);
        break;
    }
}

static void section(uint64_t seed)
{
    bosh_session_t *s = bosh_arena_session(A, 1 + arena_random(&seed) % 3);

    if (s->state == BOSH_ST_FREE || arena_random(&seed) % 10 == 0) {
        uint8_t sid[BOSH_SID_BYTES];
        arena_sid(arena_random(&seed), sid);
        s = bosh_arena_session_new(A, sid);
    }
    if (s == NULL) {
        return;
    }
    bosh_arena_touch(A, s);
    for (uint32_t n = 1 + arena_random(&seed) % 4; n > 0; n--) {
        s->processed++;
        change(s, &seed);
    }
    if (arena_random(&seed) % 12 == 0) {
        bosh_arena_session_free(A, s);
    }
}

/* A process that does one section; killed before instruction `at` of it. False: it came to its end before. */
static bool killed_at(uint64_t seed, uint32_t at)
{
    pid_t pid = fork();
    int status;

    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) {
            _exit(2);
        }
        raise(SIGSTOP);
        section(seed);
        bosh_arena_commit(A);
        raise(SIGSTOP);
        _exit(1);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFSTOPPED(status), "the process cannot be traced: status %d", status);
    for (uint32_t n = 0; n < at; n++) {
        ck_assert_int_eq(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert(WIFSTOPPED(status));
        if (WSTOPSIG(status) == SIGSTOP) {
            break;
        }
    }
    kill(pid, SIGKILL);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) && A->h->busy != 0;
}

START_TEST(test_killed_at_any_instruction)
{
    uint64_t seed = (uint64_t)_i * 7919;
    uint32_t inside = 0, undone = 0, stood = 0;
    char *image = malloc(env.bytes);

    for (uint32_t n = 1; n <= 3; n++) {
        arena_session(&env, n);
    }
    for (int n = 0; n < 24; n++) {
        uint64_t step = arena_random(&seed), before, after, got;
        bosh_ix busy;
        bosh_arena_commit(A);
        memcpy(image, env.mem, env.bytes);
        before = digest_of_all();
        section(step);
        bosh_arena_commit(A);
        after = digest_of_all();
        memcpy(env.mem, image, env.bytes);
        /* The first instructions are those of raise(); a section has hundreds to some thousands. */
        inside += killed_at(step, 150 + arena_random(&seed) % (n % 4 == 0 ? 5000 : 1200));
        busy = A->h->busy;
        ck_assert_uint_eq(bosh_arena_repair(A), 0);
        arena_check(&env);
        got = digest_of_all();
        ck_assert_msg(got == before || (busy == 0 && got == after),
                      "seed %d, step %d: neither before nor after", _i, n);
        undone += got == before && before != after;
        stood += got == after;
        memcpy(env.mem, image, env.bytes); /* and on with a sound one */
        section(step);
    }
    ck_assert_uint_gt(inside, 5);
    ck_assert_uint_gt(undone, 5);
    ck_assert_uint_gt(stood, 0);
    free(image);
}
END_TEST

/* Full memory: a section that hands out what it has given back cannot be undone, and says so. */
START_TEST(test_the_last_chunks_spoil)
{
    bosh_session_t *s = arena_session(&env, 1), *other = arena_session(&env, 2);
    char text[BOSH_CHUNK_DATA] = {0};

    bosh_arena_commit(A);
    for (uint32_t n = 0; n < CHUNKS; n++) {
        ck_assert_int_eq(bosh_bytes_append(A, &s->link.raw, text, sizeof(text), PRIO), APR_SUCCESS);
    }
    ck_assert_uint_eq(A->h->nfree_chunks, 0);
    bosh_arena_touch(A, s);
    bosh_bytes_consume(A, &s->link.raw, sizeof(text));
    ck_assert(!A->undo->spoiled);
    ck_assert_int_eq(bosh_bytes_append(A, &s->link.prime, text, sizeof(text), PRIO), APR_SUCCESS);
    ck_assert(A->undo->spoiled);
    arena_check(&env);
    bosh_arena_touch(A, other); /* the first one stands from here on */
    other->processed = 77;
    ck_assert_uint_eq(bosh_arena_repair(A), 0);
    ck_assert_uint_eq(other->processed, 0);
    ck_assert_uint_eq(s->link.raw.len, (CHUNKS - 1) * sizeof(text));
    ck_assert_uint_eq(s->link.prime.len, sizeof(text));
}
END_TEST

/* The one that repairs is killed, too, wherever: the next one finds the same. */
START_TEST(test_undone_twice)
{
    bosh_session_t *s = arena_session(&env, 1);
    uint64_t before;

    bosh_arena_commit(A);
    for (uint32_t n = 0; n < 30; n++) {
        uint64_t seed = n + 1;
        change(s, &seed);
    }
    before = digest_of_all();
    bosh_arena_touch(A, s);
    for (uint32_t n = 0; n < 10; n++) {
        uint64_t seed = n + 100;
        change(s, &seed);
    }
    ck_assert(digest_of_all() != before);
    for (int n = 0; n < 3; n++) {
        bosh_ix busy = A->h->busy;
        bosh_undo_t undo = *A->undo;
        ck_assert_uint_eq(bosh_arena_repair(A), 0);
        ck_assert(digest_of_all() == before);
        A->h->busy = busy; /* it did not come to the end of the repair */
        memcpy(A->undo->session, undo.session, sizeof(undo.session));
        A->undo->records = undo.records;
        A->undo->n = undo.n;
    }
    bosh_arena_repair(A);
    ck_assert(digest_of_all() == before);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("undo");
    TCase *tc = tcase_create("undo");
    SRunner *sr;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, test_killed_at_any_instruction, 0, 6);
    tcase_add_test(tc, test_the_last_chunks_spoil);
    tcase_add_test(tc, test_undone_twice);
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
