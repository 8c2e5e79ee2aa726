/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a child that has been told to stop does with held requests and sessions: it depends on the kind of
 * end, which shows in httpd's generation, in its parent, and in who else is there.
 */
#include "rig.h"

static int released, runs; /* atomic */
static uint32_t generation;

static void count_release(void)
{
    __atomic_add_fetch(&released, 1, __ATOMIC_SEQ_CST);
}

static int releases(void)
{
    return __atomic_load_n(&released, __ATOMIC_SEQ_CST);
}

static bosh_parent_t parent(void)
{
    return (bosh_parent_t)__atomic_load_n(&runs, __ATOMIC_SEQ_CST);
}

static void set_parent(bosh_parent_t p)
{
    __atomic_store_n(&runs, (int)p, __ATOMIC_SEQ_CST);
}

static uint32_t newest(void)
{
    return generation;
}

static void open_drain(void)
{
    open_all(256, 8192, 4);
    released = 0;
    generation = 0;
    set_parent(BOSH_PARENT_RUNS);
    R.cfg.release = count_release;
    R.cfg.parent = parent;
    R.cfg.running_generation = newest;
}

/* Another peer, which is nobody. */
static uint32_t join_of(uint32_t gen)
{
    uint32_t p;

    bosh_lock(R.lock);
    p = bosh_arena_peer_claim(R.lock->arena, (uint32_t)getpid(), gen, bosh_clock_now());
    bosh_unlock(R.lock);
    ck_assert_uint_ne(p, 0);
    return p;
}

static uint32_t join_sibling(void)
{
    return join_of(0);
}

static void leave(uint32_t peer)
{
    bosh_lock(R.lock);
    bosh_arena_peer(R.lock->arena, peer)->state = BOSH_PEER_FREE;
    bosh_unlock(R.lock);
}

static apr_time_t drain_now(void)
{
    bosh_loop_drain(R.loop);
    return bosh_clock_now();
}

/* Nothing else but the generation would tell it from a stop. The child that follows is waited for. */
START_TEST(a_restart_releases)
{
    apr_time_t begin;
    uint32_t younger;

    loop_open();
    set_parent(BOSH_PARENT_UNKNOWN);
    generation = 1;
    begin = drain_now();
    poll(NULL, 0, 300); /* longer than it takes once there is one */
    ck_assert_int_eq(releases(), 0);
    younger = join_of(1);
    AWAIT(releases() == 1);
    ck_assert_int_lt(bosh_clock_now() - begin, apr_time_from_msec(1900));
    ck_assert_uint_eq(header().closing, 0);
    leave(younger);
}
END_TEST

/* ... but not for ever. */
START_TEST(a_restart_that_nobody_follows)
{
    apr_time_t begin;

    loop_open();
    generation = 1;
    begin = drain_now();
    AWAIT(releases() == 1);
    ck_assert_int_ge(bosh_clock_now() - begin, apr_time_from_msec(1900));
}
END_TEST

/* The stream stays, its held request is released after a moment of doubt, once. */
START_TEST(recycling_releases)
{
    apr_time_t begin;
    chat_t c;

    loop_open();
    login(&c);
    ask(&c, "", "");
    begin = drain_now();
    AWAIT(releases() == 1);
    ck_assert_int_ge(bosh_clock_now() - begin, apr_time_from_msec(350));
    serve(c.fd, "<message/>");
    ASSERT_HAS(answer(c.held), "<message ");
    poll(NULL, 0,
         3500); /* nobody comes for longer than that would take where the parent is unknown */
    ask(&c, "", "<a xmlns='jabber:client'/>");
    expect(c.fd, "<a xmlns='jabber:client'/>");
    ck_assert_int_eq(releases(), 1);
    ck_assert_uint_eq(header().count.lost_stop + header().count.lost_drain, 0);
    close(c.fd);
}
END_TEST

/* The parent's word is enough, once every child has been told. */
START_TEST(a_stop_ends_the_sessions)
{
    uint32_t other;
    chat_t c;

    loop_open();
    other = join_sibling();
    login(&c);
    ask(&c, "", "");
    set_parent(BOSH_PARENT_STOPS);
    (void)drain_now();
    leave(other);
    ASSERT_HAS(answer(c.held), "condition='system-shutdown'");
    ck_assert_int_eq(releases(), 0);
    expect(c.fd, "</stream:stream>");
    ck_assert_uint_eq(header().closing, 1);
    ck_assert_uint_eq(header().count.lost_stop, 1);
    AWAIT(releases() == 1); /* whatever else is held here is not held for ever */
    close(c.fd);
}
END_TEST

/* The pid file is gone, but another child stays: somebody has removed it, and this is recycling. */
START_TEST(a_lost_pid_file)
{
    uint32_t other;
    chat_t c;

    loop_open();
    other = join_sibling();
    login(&c);
    ask(&c, "", "");
    set_parent(BOSH_PARENT_STOPS);
    (void)drain_now();
    AWAIT(releases() == 1);
    ck_assert_uint_eq(header().closing, 0);
    ck_assert_uint_eq(header().count.lost_stop + header().count.lost_drain, 0);
    leave(other);
    close(c.fd);
}
END_TEST

/* It shows a little later than the order to stop. */
START_TEST(a_stop_that_shows_late)
{
    chat_t c;

    loop_open();
    set_parent(BOSH_PARENT_UNKNOWN);
    login(&c);
    ask(&c, "", "");
    (void)drain_now();
    poll(NULL, 0, 150);
    ck_assert_int_eq(releases(), 0);
    set_parent(BOSH_PARENT_STOPS);
    ASSERT_HAS(answer(c.held), "condition='system-shutdown'");
    ck_assert_int_eq(releases(), 0);
    close(c.fd);
}
END_TEST

/* A session that comes to us after all has been ended is ended, too. */
START_TEST(a_straggler_is_told)
{
    chat_t c;

    loop_open();
    set_parent(BOSH_PARENT_STOPS);
    (void)drain_now();
    AWAIT(header().closing == 1);
    bosh_lock(R.lock);
    R.lock->arena->h->closing = 0; /* a child that has just joined does that */
    bosh_unlock(R.lock);
    create(&c, "", "");
    ASSERT_HAS(answer(c.held), "condition='system-shutdown'");
    AWAIT(header().closing == 1);
}
END_TEST

/* Where the parent cannot be seen, another child of our age that stays says that it is no stop. */
START_TEST(unseen_with_a_sibling)
{
    uint32_t other;

    loop_open();
    set_parent(BOSH_PARENT_UNKNOWN);
    other = join_sibling();
    (void)drain_now();
    AWAIT(releases() == 1);
    ck_assert_uint_eq(header().closing, 0);
    leave(other);
}
END_TEST

/* ... and nobody for five seconds says that it is one. */
START_TEST(unseen_and_alone)
{
    apr_time_t begin;
    chat_t c;

    loop_open();
    set_parent(BOSH_PARENT_UNKNOWN);
    login(&c);
    ask(&c, "", "");
    begin = drain_now();
    ASSERT_HAS(answer(c.held), "condition='system-shutdown'");
    ck_assert_int_ge(bosh_clock_now() - begin, BOSH_ALONE_TIME - apr_time_from_msec(100));
    ck_assert_int_eq(releases(), 0);
    ck_assert_uint_eq(header().count.lost_stop, 1);
    close(c.fd);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("drain");
    TCase *t = tcase_create("drain");
    SRunner *r;
    int failed;

    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, open_drain, close_default);
    tcase_add_test(t, a_restart_releases);
    tcase_add_test(t, a_restart_that_nobody_follows);
    tcase_add_test(t, recycling_releases);
    tcase_add_test(t, a_stop_ends_the_sessions);
    tcase_add_test(t, a_lost_pid_file);
    tcase_add_test(t, a_stop_that_shows_late);
    tcase_add_test(t, a_straggler_is_told);
    tcase_add_test(t, unseen_with_a_sibling);
    tcase_add_test(t, unseen_and_alone);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
