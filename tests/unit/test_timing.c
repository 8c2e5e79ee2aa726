/* SPDX-License-Identifier: Apache-2.0 */
/* That looking up a session id takes as many instructions however much of the id is right: counted, not timed. */
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arena_env.h"

/* In the child: looks each of them up between two stops. */
static void look_up(bosh_arena_t *a, const char *const *sids, size_t n)
{
    static char sid[BOSH_SID_LEN + 1]; /* one place for all: a sanitizer looks at addresses */
    volatile const void *found =
        bosh_arena_find(a, sids[0]); /* whatever is done once only is done */

    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) {
        _exit(2);
    }
    for (size_t i = 0; i < n; i++) {
        memcpy(sid, sids[i], sizeof(sid));
        kill(getpid(), SIGSTOP);
        found = bosh_arena_find(a, sid);
        kill(getpid(), SIGSTOP);
    }
    (void)found;
    _exit(0);
}

static bool stopped_itself(pid_t pid)
{
    int status = 0;

    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFSTOPPED(status), "the traced process ended: %d", WEXITSTATUS(status));
    return WSTOPSIG(status) == SIGSTOP;
}

/* Instructions until it stops itself again. */
static unsigned long count(pid_t pid)
{
    unsigned long n = 0;

    do {
        ck_assert_int_eq(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
        n++;
    } while (!stopped_itself(pid));
    return n;
}

/* Another one of its kind: what a digit costs the one who wrote it does not matter. */
static char other_digit(char c)
{
    return c <= '9' ? (char)(c ^ 1) : c == 'a' ? 'b' : 'a';
}

START_TEST(test_B_368_looking_up_a_sid)
{
    arena_env_t e;
    char right[BOSH_SID_LEN + 1], sids[4][BOSH_SID_LEN + 1];
    const char *list[4];
    unsigned long n[4];
    int status;
    pid_t pid;

    arena_open(&e, 4, 64);
    bosh_arena_sid_text(arena_session(&e, 1), right);
    for (int i = 0; i < 4; i++) { /* the first eight digits choose the bucket */
        strcpy(sids[i], right);
        sids[i][8 * i + 7] = other_digit(right[8 * i + 7]);
        list[i] = sids[i];
    }
    strcpy(sids[0], right);
    pid = fork();
    if (pid == 0) {
        look_up(&e.a, list, 4);
    }
    for (int i = 0; i < 4; i++) {
        ck_assert(stopped_itself(pid));
        n[i] = count(pid);
        ck_assert_int_eq(ptrace(PTRACE_CONT, pid, NULL, NULL), 0);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    /* Wrong in the second, third or last quarter. */
    ck_assert_uint_eq(n[1], n[2]);
    ck_assert_uint_eq(n[2], n[3]);
    /* It did look: hex digits were read and sixteen bytes compared. */
    ck_assert_uint_gt(n[1], 64);
    arena_close(&e);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("timing");
    TCase *tc = tcase_create("timing");
    SRunner *sr;
    int failed;

    tcase_add_test(tc, test_B_368_looking_up_a_sid);
    tcase_set_timeout(tc, 60);
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_NORMAL);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed > 0;
}
