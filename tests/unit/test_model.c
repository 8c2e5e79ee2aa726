/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random walks of whole sessions, several at once, over several children: model/model.h. No stanza is lost, doubled
 * or put out of order, either way; each request is answered once, in the order of rids, and no more are held than
 * was agreed; no timer and no wake-up is forgotten; and all memory comes back.
 *
 *   SEED=n make unit NAME=model     one walk, with its trace
 *   RUNS=n FIRST=n make unit NAME=model     so many walks (5000), from that seed on (1); FIRST=time: others each time
 *
 * A walk that fails is made shorter, step by step, before its trace is shown. Put its seed into model/seeds.txt:
 * those are walked first, always.
 */
#include <check.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "model/model.h"

#define RUNS      5000
#define SHRINK_BY 3000 /* walks to make one shorter */
#define HANG      20   /* seconds, for one walk */
#define ENOUGH    150  /* seconds, for all: a slow machine makes fewer */
#define SEEDS     "tests/unit/model/seeds.txt"

/* Written by the process that walks, read by the one that waits for it. */
static struct {
    uint64_t seed, walks;
    deal_t deal;
    bool tracing;
    char property[160], report[4096];
    size_t ntrace;
    char trace[1 << 20];
} * shared;

/* ---- what the model tells ---- */

void note(const char *fmt, ...)
{
    va_list ap;
    size_t left = sizeof(shared->trace) - shared->ntrace;
    int n;

    if (!shared->tracing || left < 1000) {
        return;
    }
    va_start(ap, fmt);
    n = vsnprintf(shared->trace + shared->ntrace, left - 2, fmt, ap);
    va_end(ap);
    shared->ntrace += (size_t)n < left - 2 ? (size_t)n : left - 3;
    shared->trace[shared->ntrace++] = '\n';
    shared->trace[shared->ntrace] = '\0';
}

void broken(const char *property, const char *fmt, ...)
{
    va_list ap;

    snprintf(shared->property, sizeof(shared->property), "%s", property);
    va_start(ap, fmt);
    vsnprintf(shared->report, sizeof(shared->report), fmt, ap);
    va_end(ap);
    _exit(1);
}

/* ---- from a seed to a walk ---- */

static uint64_t state;

static uint32_t draw(void)
{
    uint64_t x = state += UINT64_C(0x9e3779b97f4a7c15);

    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)(x >> 32);
}

static uint32_t one_of(uint32_t n, const uint32_t *list)
{
    return list[draw() % n];
}

#define ONE_OF(...)                                                                                \
    one_of(sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t),                             \
           (const uint32_t[]){__VA_ARGS__})

static void deal_limits(deal_t *d)
{
    d->lim = (bosh_limits_t){.max_wait = ONE_OF(60, 60, 8, 0),
                             .max_hold = ONE_OF(1, 2, 2, 0),
                             .max_requests = ONE_OF(2, 3, 3, 5),
                             .inactivity = ONE_OF(30, 30, 6, 0),
                             .polling = ONE_OF(0, 0, 0, 2),
                             .maxpause = ONE_OF(120, 20, 0, 3),
                             .queue_size = ONE_OF(1 << 20, 8192, 3000),
                             .answer_size = ONE_OF(65536, 4096, 900),
                             .max_repeats = ONE_OF(60, 60, 5),
                             .keys = draw() % 2};
    d->chunks = ONE_OF(4096, 4096, 4096, 320, 128);
    d->sessions = ONE_OF(8, 8, 3);
    d->long_texts = ONE_OF(1000, 10, 3);
}

/* Which steps come how often: each walk has its own mixture. */
static void deal_walk(uint64_t seed, deal_t *d)
{
    static const unsigned usual[STEP_KINDS] = {
        [STEP_OPEN] = 3,  [STEP_SEND] = 20,      [STEP_ARRIVE] = 8, [STEP_RESEND] = 6,
        [STEP_BREAK] = 4, [STEP_RELOAD] = 1,     [STEP_MAIL] = 14,  [STEP_RUN] = 12,
        [STEP_LOOP] = 30, [STEP_SERVER] = 12,    [STEP_TIME] = 8,   [STEP_GIVE] = 4,
        [STEP_ADOPT] = 4, [STEP_SERVER_END] = 1, [STEP_CRASH] = 1,  [STEP_NOTICE] = 2,
        [STEP_STOP] = 1,  [STEP_JOIN] = 2,       [STEP_UNDO] = 12,  [STEP_VIOLATE] = 0,
    };
    unsigned weight[STEP_KINDS], sum = 0;

    state = seed * UINT64_C(0x2545f4914f6cdd1d);
    memset(d, 0, sizeof(*d));
    deal_limits(d);
    for (int k = 0; k < STEP_KINDS; k++) {
        weight[k] = usual[k] * ONE_OF(0, 1, 1, 1, 1, 3);
    }
    weight[STEP_OPEN] = 3;
    weight[STEP_SEND] += 5;
    weight[STEP_LOOP] += 5;
    weight[STEP_VIOLATE] = draw() % 4 == 0;
    weight[STEP_SERVER_END] = draw() % 2;
    for (int k = 0; k < STEP_KINDS; k++) {
        sum += weight[k];
    }
    d->nsteps = 60 + draw() % (STEPS - 60);
    for (uint32_t i = 0; i < d->nsteps; i++) {
        unsigned at = draw() % sum, k = 0;
        while (at >= weight[k]) {
            at -= weight[k++];
        }
        d->step[i] = (step_t){(uint8_t)(i < 2 ? STEP_OPEN : k), draw(), draw(), draw()};
    }
}

/* ---- walking, in a process of its own ---- */

/* True: all is well. */
static bool walk(const deal_t *deal)
{
    int status;
    pid_t pid;

    shared->property[0] = shared->report[0] = '\0';
    shared->ntrace = 0;
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        signal(SIGALRM, SIG_DFL); /* Check's would kill us all */
        alarm(HANG);
        play(deal);
        _exit(0);
    }
    ck_assert_int_gt(pid, 0);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    if (status != 0 && shared->property[0] == '\0') { /* of 14: see HANG */
        snprintf(shared->property, sizeof(shared->property), "the process ended with status %d",
                 status);
    }
    return status == 0;
}

/* Many in one process; false: that of shared->seed failed. */
static bool walk_all(uint64_t first, uint64_t n)
{
    int status;
    pid_t pid;

    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        signal(SIGALRM, SIG_DFL);
        time_t end = time(NULL) + ENOUGH;
        for (uint64_t i = 0; i < n && (i == 0 || time(NULL) < end); i++) {
            shared->walks = i + 1;
            shared->seed = first + i;
            deal_walk(shared->seed, &shared->deal);
            alarm(HANG);
            play(&shared->deal);
        }
        _exit(0);
    }
    ck_assert_int_gt(pid, 0);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return status == 0;
}

/* Leaves steps out, and less, as long as the same property does not hold. */
static void shrink(deal_t *d)
{
    char property[sizeof(shared->property)];
    static deal_t shorter;
    unsigned walks = 0;

    memcpy(property, shared->property, sizeof(property));
    shared->tracing = false;
    for (uint32_t size = d->nsteps / 2; size > 0 && walks < SHRINK_BY;) {
        bool less = false;
        for (uint32_t at = 0; at + size <= d->nsteps && walks < SHRINK_BY; walks++) {
            shorter = *d;
            memmove(&shorter.step[at], &shorter.step[at + size],
                    (d->nsteps - at - size) * sizeof(step_t));
            shorter.nsteps -= size;
            if (!walk(&shorter) && strcmp(property, shared->property) == 0) {
                *d = shorter;
                less = true;
            } else {
                at += size;
            }
        }
        size = less && size == 1 ? 1 : size / 2;
    }
}

static uint64_t base; /* of this run's seeds */

static void fail_with(uint64_t seed)
{
    static deal_t deal;
    uint32_t before;

    deal_walk(seed, &deal);
    before = deal.nsteps;
    fprintf(stderr, "seed %llu fails\n", (unsigned long long)seed);
    if (walk(&deal)) {
        ck_abort_msg("seed %llu fails, and not when it is walked alone", (unsigned long long)seed);
    }
    if (shared->report[0] != '\0') { /* else it crashed or hung: that may take its time */
        shrink(&deal);
    }
    shared->tracing = true;
    walk(&deal);
    printf("%s\n", shared->trace);
    printf("wait %u hold %u requests %u inactivity %u polling %u maxpause %u queue %zu answer %zu, "
           "%u chunks, %u sessions\n",
           deal.lim.max_wait, deal.lim.max_hold, deal.lim.max_requests, deal.lim.inactivity,
           deal.lim.polling, deal.lim.maxpause, deal.lim.queue_size, deal.lim.answer_size,
           deal.chunks, deal.sessions);
    printf("%u of %u steps are enough. Again, with its trace: SEED=%llu make unit NAME=model\n"
           "Keep it: echo %llu >>" SEEDS "\n",
           deal.nsteps, before, (unsigned long long)seed, (unsigned long long)seed);
    fflush(stdout);
    ck_abort_msg("seed %llu, walk %llu: %s: %s", (unsigned long long)seed,
                 (unsigned long long)(seed - base + 1), shared->property, shared->report);
}

/* ---- tests ---- */

START_TEST(test_seeds_that_failed_once)
{
    const char *one = getenv("SEED");
    FILE *f = fopen(SEEDS, "r");
    unsigned long long seed;
    char line[200];

    ck_assert_msg(f != NULL, SEEDS " cannot be read: run from the top of the tree");
    while (one == NULL && fgets(line, sizeof(line), f) != NULL) {
        if (sscanf(line, "%llu", &seed) == 1 && !walk_all(seed, 1)) {
            fail_with(seed);
        }
    }
    fclose(f);
}
END_TEST

START_TEST(test_random_walks)
{
    const char *one = getenv("SEED"), *runs = getenv("RUNS");
    uint64_t n = runs != NULL ? strtoull(runs, NULL, 10) : RUNS;

    if (one != NULL) {
        base = strtoull(one, NULL, 10);
        n = 1;
        shared->tracing = true;
    }
    if (!walk_all(base, n)) {
        fail_with(shared->seed);
    }
    if (one != NULL) {
        printf("%s\n", shared->trace);
    }
    printf("%llu walks from seed %llu\n", (unsigned long long)shared->walks,
           (unsigned long long)base);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("model");
    TCase *tc = tcase_create("walks");
    SRunner *runner;
    int failed;

    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        return 1;
    }
    /* The same ones each time, lest a build fails that has changed nothing; more are for who goes looking. */
    base = 1;
    if (getenv("FIRST") != NULL) {
        base = strcmp(getenv("FIRST"), "time") == 0
                   ? (uint64_t)time(NULL) * 100000 + (uint64_t)getpid() % 100000
                   : strtoull(getenv("FIRST"), NULL, 10);
    }
    suite_add_tcase(suite, tc);
    tcase_set_timeout(tc, 280); /* a slow machine's: check.sh ends a program after 300 s */
    tcase_add_test(tc, test_seeds_that_failed_once);
    tcase_add_test(tc, test_random_walks);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
