/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arena and queues from several threads, under a plain mutex: made for ThreadSanitizer (make unit
 * NAME=threads SANITIZE=thread). It proves that what the contracts let a thread do without the lock
 * (write into a reservation, read a run) races with nothing, and that no item is lost, doubled or
 * out of order.
 *
 * Every thread plays the loop that owns a few sessions, and a worker for all of them: as a worker
 * it appends to `down` and takes from `up` of any session; as the owner it drains `down` and turns
 * what it "reads" into items of `up`. Sessions end and begin anew all the time.
 */
#include <pthread.h>
#include <stdio.h>

#include "arena_env.h"
#include "bosh_split.h"

#define THREADS  4
#define SESSIONS 12
#define CHUNKS   300
#define STEPS    30000
#define LIFE     300 /* items through a session before its owner ends it */
#define ITEM     20  /* at the least: "00000000 00000000 .." */
#define READ     (6 * BOSH_CHUNK_DATA)

/* What is known of a session outside of the arena; guarded by the mutex. */
typedef struct story_t {
    uint32_t serial, number;       /* the session's, 0: none; which test sid */
    uint32_t down_sent, down_seen; /* items appended and drained */
    uint32_t up_sent, up_seen;
} story_t;

typedef struct actor_t {
    pthread_t thread;
    uint32_t me; /* 1..THREADS: also its peer */
    uint64_t seed;
    uint64_t moved, mails, overflows;
    char buf[READ + 1000];
} actor_t;

static arena_env_t env;
static bosh_arena_t *A;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t start;
static story_t stories[SESSIONS + 1];
static uint32_t sids;
static uint64_t mails_sent;

static void setup(void)
{
    arena_open(&env, SESSIONS, CHUNKS);
    A = &env.a;
    memset(stories, 0, sizeof(stories));
    for (uint32_t i = 1; i <= THREADS; i++) {
        ck_assert_uint_eq(bosh_arena_peer_claim(A, i, 0, 0), i);
    }
}

static void teardown(void)
{
    arena_close(&env);
}

static uint32_t owner_of(bosh_ix i)
{
    return 1 + i % THREADS;
}

/* An item says which it is, and is filled up to a length of its own with text of its own. */
static size_t write_item(char *dst, uint32_t number, uint32_t n)
{
    uint64_t seed = (uint64_t)number << 32 | n;
    size_t len = ITEM + arena_random(&seed) % 900;

    arena_text(dst, len, n);
    snprintf(dst, ITEM, "%08x %08x ", number, n);
    return len;
}

static void expect_item(const char *got, size_t len, uint32_t number, uint32_t n)
{
    char want[ITEM + 900];

    ARENA_EXPECT(len == write_item(want, number, n));
    ARENA_EXPECT(memcmp(got, want, len) == 0);
}

static void mail(uint32_t peer, bosh_ix i, uint32_t serial)
{
    bosh_arena_mail(A, peer, BOSH_MAIL_SESSION | i, serial);
    mails_sent++;
}

/* ---- as a worker ---- */

static void work_down(actor_t *me, bosh_ix i)
{
    story_t *story = &stories[i];
    bosh_session_t *s;
    bosh_slice_t item = {me->buf, 0};

    pthread_mutex_lock(&mutex);
    s = bosh_arena_get(A, i, story->serial);
    if (s != NULL && s->link.down.items < 12) {
        bosh_slot_t *slot = &s->slots[me->me];
        item.n = write_item(me->buf, story->number, story->down_sent);
        if (bosh_queue_append(A, &slot->payload, BOSH_ITEM_STANZA, &item, 1, BOSH_PRIO_INPUT) ==
            APR_SUCCESS) {
            ARENA_EXPECT(bosh_queue_move(A, &s->link.down, &slot->payload) == APR_SUCCESS);
            story->down_sent++;
            mail(owner_of(i), i, story->serial);
        }
    }
    pthread_mutex_unlock(&mutex);
}

static void work_up(actor_t *me, bosh_ix i)
{
    story_t *story = &stories[i];
    bosh_session_t *s;
    char sid[BOSH_SID_LEN + 1];

    pthread_mutex_lock(&mutex);
    s = bosh_arena_get(A, i, story->serial);
    if (s != NULL && s->link.up.items > 0) {
        bosh_bytes_t *answer = &s->slots[me->me].answer;
        bosh_arena_sid_text(s, sid);
        ARENA_EXPECT(bosh_arena_find(A, sid) == s);
        if (bosh_queue_pop_to(A, &s->link.up, answer, BOSH_PRIO_ANSWER) == APR_SUCCESS) {
            size_t n = bosh_bytes_peek(A, answer, 0, me->buf, sizeof(me->buf));
            expect_item(me->buf, n, story->number, story->up_seen);
            story->up_seen++;
            me->moved++;
            bosh_bytes_clear(A, answer);
        }
    }
    pthread_mutex_unlock(&mutex);
}

/* ---- as the owner ---- */

static void own_birth(bosh_ix i)
{
    story_t *story = &stories[i];

    pthread_mutex_lock(&mutex);
    if (story->serial == 0) {
        uint8_t sid[BOSH_SID_BYTES];
        bosh_session_t *s;
        arena_sid(++sids, sid);
        s = bosh_arena_session_new(A, sid);
        if (s == NULL) {
            sids--;
        } else { /* whichever record it is: its owner goes by the index */
            i = bosh_arena_index(A, s);
            ARENA_EXPECT(stories[i].serial == 0);
            stories[i] = (story_t){.serial = s->serial, .number = sids};
        }
    }
    pthread_mutex_unlock(&mutex);
}

static void own_death(bosh_ix i)
{
    story_t *story = &stories[i];
    bosh_session_t *s;

    pthread_mutex_lock(&mutex);
    s = bosh_arena_get(A, i, story->serial);
    if (s != NULL && story->up_seen > LIFE) {
        bosh_arena_session_free(A, s);
        story->serial = 0;
    }
    pthread_mutex_unlock(&mutex);
}

static void own_down(actor_t *me, bosh_ix i)
{
    story_t *story = &stories[i];
    bosh_session_t *s;
    bosh_item_t type;
    size_t len, n = 0;
    uint32_t number = 0, which = 0;

    pthread_mutex_lock(&mutex);
    s = bosh_arena_get(A, i, story->serial);
    if (s != NULL && bosh_queue_head(A, &s->link.down, &type, &len)) {
        n = bosh_queue_peek(A, &s->link.down, me->buf, len);
        ARENA_EXPECT(n == len);
        number = story->number;
        which = story->down_seen;
    }
    pthread_mutex_unlock(&mutex);
    if (n == 0) {
        return;
    }
    expect_item(me->buf, n, number, which); /* as it is written to the server: without the lock */
    pthread_mutex_lock(&mutex);
    bosh_queue_consume(A, &s->link.down, n / 2); /* a write may be short */
    bosh_queue_consume(A, &s->link.down, n - n / 2);
    story->down_seen++;
    me->moved++;
    pthread_mutex_unlock(&mutex);
}

/* Turns what has been read into items, as the splitter would; the parser reads the runs without the
 * lock. */
static void own_split(actor_t *me, bosh_ix i, size_t total)
{
    story_t *story = &stories[i];
    bosh_session_t *s = bosh_arena_session(A, i); /* nobody but us ends it */
    char head[ITEM + 1], item[ITEM + 900];
    size_t done = 0;

    while (done < total) {
        size_t len, n;
        const char *run;
        bosh_split_event_t ev = {.start = done};
        pthread_mutex_lock(&mutex);
        bosh_bytes_peek(A, &s->link.raw, 0, head, ITEM);
        run = bosh_bytes_run(A, &s->link.raw, 0, &n);
        pthread_mutex_unlock(&mutex);
        head[ITEM] = '\0';
        ARENA_EXPECT(memcmp(run, head, n < ITEM ? n : ITEM) == 0);
        len = write_item(item, (uint32_t)strtoul(head, NULL, 16),
                         (uint32_t)strtoul(head + 9, NULL, 16));
        ev.end = done + len;
        pthread_mutex_lock(&mutex);
        if (bosh_queue_append_event(A, &s->link.up, BOSH_ITEM_STANZA, &s->link.raw, done, &ev,
                                    BOSH_PRIO_ANSWER) != APR_SUCCESS) {
            pthread_mutex_unlock(&mutex); /* no chunks: what is not applied is read again */
            break;
        }
        bosh_bytes_consume(A, &s->link.raw, len);
        story->up_sent++;
        mail(1 + (me->me + i) % THREADS, i, story->serial);
        pthread_mutex_unlock(&mutex);
        done += len;
    }
    pthread_mutex_lock(&mutex);
    bosh_bytes_clear(A, &s->link.raw);
    pthread_mutex_unlock(&mutex);
}

/* Reads from the server straight into the arena: reserve, write without the lock, commit. */
static void own_read(actor_t *me, bosh_ix i)
{
    story_t *story = &stories[i];
    bosh_session_t *s;
    bosh_slice_t iov[6];
    size_t area = 0, total = 0, done = 0;
    uint32_t number = 0, next = 0;
    int n = 0;

    pthread_mutex_lock(&mutex);
    s = bosh_arena_get(A, i, story->serial);
    if (s != NULL && s->link.up.b.len < 8000) {
        n = bosh_bytes_reserve(A, &s->link.raw, 3000, iov, 6, BOSH_PRIO_INPUT);
        number = story->number;
        next = story->up_sent;
    }
    pthread_mutex_unlock(&mutex);
    for (int k = 0; k < n; k++) {
        area += iov[k].n;
    }
    for (size_t len; area > 0; total += len) {
        len = write_item(me->buf + total, number, next++);
        if (total + len > area) {
            break;
        }
    }
    for (int k = 0; k < n && done < total; k++) {
        size_t part = total - done < iov[k].n ? total - done : iov[k].n;
        memcpy((char *)(uintptr_t)iov[k].p, me->buf + done, part);
        done += part;
    }
    if (n > 0) {
        pthread_mutex_lock(&mutex);
        bosh_bytes_commit(A, &s->link.raw, total);
        pthread_mutex_unlock(&mutex);
        own_split(me, i, total);
    }
}

static void own_mail(actor_t *me)
{
    bosh_mail_t out[50];
    bool overflow;

    pthread_mutex_lock(&mutex);
    me->mails += bosh_arena_mail_take(A, me->me, out, 50, &overflow);
    me->overflows += overflow;
    if (arena_random(&me->seed) % 100 == 0) {
        arena_check(&env);
    }
    pthread_mutex_unlock(&mutex);
}

/* ---- the play ---- */

static void *act(void *arg)
{
    actor_t *me = arg;

    pthread_barrier_wait(&start);
    for (int step = 0; step < STEPS; step++) {
        bosh_ix any = 1 + arena_random(&me->seed) % SESSIONS;
        bosh_ix mine = 1 + arena_random(&me->seed) % SESSIONS;
        while (owner_of(mine) != me->me) {
            mine = 1 + mine % SESSIONS;
        }
        work_down(me, any);
        own_birth(mine);
        own_read(me, mine);
        work_up(me, any);
        work_up(me, 1 + any % SESSIONS);
        own_down(me, mine);
        own_mail(me);
        own_death(mine);
    }
    return NULL;
}

START_TEST(test_threads)
{
    static actor_t actors[THREADS];
    uint64_t moved = 0, mails = 0, overflows = 0;
    bool overflow;

    pthread_barrier_init(&start, NULL, THREADS);
    for (uint32_t i = 0; i < THREADS; i++) {
        actors[i].me = i + 1;
        actors[i].seed = i + 77;
        ck_assert_int_eq(pthread_create(&actors[i].thread, NULL, act, &actors[i]), 0);
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        pthread_join(actors[i].thread, NULL);
        moved += actors[i].moved;
        mails += actors[i].mails;
        overflows += actors[i].overflows;
    }
    for (uint32_t i = 1; i <= THREADS; i++) {
        static bosh_mail_t out[BOSH_MAILBOX];
        mails += bosh_arena_mail_take(A, i, out, BOSH_MAILBOX, &overflow);
        overflows += overflow;
    }
    arena_check(&env);
    ck_assert(mails == mails_sent || (mails < mails_sent && overflows > 0));
    ck_assert_uint_gt(moved, STEPS); /* it was not idle */
    ck_assert_uint_gt(sids, SESSIONS);
    for (bosh_ix i = 1; i <= SESSIONS; i++) {
        bosh_session_t *s = bosh_arena_get(A, i, stories[i].serial);
        if (s != NULL) {
            ck_assert_uint_eq(s->link.down.items, stories[i].down_sent - stories[i].down_seen);
            ck_assert_uint_eq(s->link.up.items, stories[i].up_sent - stories[i].up_seen);
            bosh_arena_session_free(A, s);
        }
    }
    ck_assert_uint_eq(A->h->nfree_chunks, CHUNKS);
    printf("%llu items, %llu sessions, %llu messages\n", (unsigned long long)moved,
           (unsigned long long)sids, (unsigned long long)mails);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("threads");
    TCase *tc = tcase_create("threads");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, test_threads);
    suite_add_tcase(suite, tc);

    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
