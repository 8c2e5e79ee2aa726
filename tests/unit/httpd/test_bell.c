/* SPDX-License-Identifier: Apache-2.0 */
/* Bells in epoll sets within a set, as the MPM has them: what bosh_bell.h says of the kernel is true of this one. */
#include <check.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bosh_bell.h"

#define MANY 600 /* more than one bell may serve */

static int mpm; /* the outer set */

static void set_up(void)
{
    mpm = epoll_create1(EPOLL_CLOEXEC);
    ck_assert_int_ge(mpm, 0);
}

static void tear_down(void)
{
    close(mpm);
}

/* ---- a connection's set ---- */

static bosh_bell_t make(void)
{
    bosh_bell_t b = {.set = epoll_create1(EPOLL_CLOEXEC)};

    ck_assert_int_ge(b.set, 0);
    ck_assert_int_eq(bosh_bell_join(b.set, &b.fd), APR_SUCCESS);
    return b;
}

static void end(bosh_bell_t b)
{
    close(b.set);
    bosh_bell_leave(b.fd);
}

static void park(bosh_bell_t b)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = b.set};

    ck_assert_int_eq(epoll_ctl(mpm, EPOLL_CTL_ADD, b.set, &ev), 0);
}

static void resume(bosh_bell_t b)
{
    ck_assert_int_eq(epoll_ctl(mpm, EPOLL_CTL_DEL, b.set, NULL), 0);
}

/* What it reports is the bell, and it does so once. */
static int look(bosh_bell_t b)
{
    struct epoll_event ev[2];
    int n = epoll_wait(b.set, ev, 2, 0);

    if (n > 0) {
        ck_assert_int_eq(ev[0].data.fd, b.fd);
    }
    return n;
}

/* The set that the MPM would give a worker, -1: none. */
static int next(void)
{
    struct epoll_event ev;

    return epoll_wait(mpm, &ev, 1, 0) == 1 ? ev.data.fd : -1;
}

/* ---- tests ---- */

START_TEST(a_ring_is_reported_until_somebody_looks)
{
    bosh_bell_t b = make();

    park(b);
    ck_assert_int_eq(next(), -1);
    for (int i = 0; i < 3; i++) {
        bosh_bell_ring(b);
        ck_assert_int_eq(next(), b.set);
        ck_assert_int_eq(next(), b.set);
        ck_assert_int_eq(look(b), 1);
        ck_assert_int_eq(next(), -1);
        ck_assert_int_eq(look(b), 0);
    }
    end(b);
}
END_TEST

START_TEST(two_rings_are_one)
{
    bosh_bell_t b = make();

    park(b);
    bosh_bell_ring(b);
    bosh_bell_ring(b);
    ck_assert_int_eq(look(b), 1);
    ck_assert_int_eq(next(), -1);
    end(b);
}
END_TEST

START_TEST(a_ring_before_the_park_is_there_after_it)
{
    bosh_bell_t b = make();

    park(b);
    resume(b);
    bosh_bell_ring(b);
    park(b);
    ck_assert_int_eq(next(), b.set);
    ck_assert_int_eq(look(b), 1);
    ck_assert_int_eq(next(), -1);
    end(b);
}
END_TEST

START_TEST(many_wait_and_each_is_rung_alone)
{
    bosh_bell_t b[MANY];
    int bells = 0, others;

    for (int i = 0; i < MANY; i++) {
        b[i] = make();
        park(b[i]);
        bells += i == 0 || b[i].fd != b[i - 1].fd;
    }
    ck_assert_int_le(bells, MANY / 4);
    ck_assert_int_eq(next(), -1);
    for (int i = 0; i < MANY; i++) {
        bosh_bell_ring(b[i]);
        ck_assert_int_eq(next(), b[i].set);
        ck_assert_int_eq(look(b[i]), 1);
        ck_assert_int_eq(next(), -1);
    }
    for (int i = 0; i < MANY; i++) {
        end(b[i]);
    }
    /* What has been given back is taken again. */
    others = 0;
    for (int i = 0; i < MANY; i++) {
        bool known = false;
        bosh_bell_t again = make();
        for (int j = 0; j < MANY && !known; j++) {
            known = b[j].fd == again.fd;
        }
        others += !known;
        b[i].set = again.set;
    }
    ck_assert_int_eq(others, 0);
    for (int i = 0; i < MANY; i++) {
        close(b[i].set);
    }
}
END_TEST

/* The number of a set is that of something else by the time it is rung. */
START_TEST(a_late_ring_harms_nobody)
{
    struct epoll_event ev = {.events = EPOLLIN};
    struct pollfd socket;
    bosh_bell_t b = make(), late = b;
    int pair[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    ev.data.fd = pair[0];
    ck_assert_int_eq(epoll_ctl(mpm, EPOLL_CTL_ADD, pair[0], &ev), 0);
    end(b);
    bosh_bell_ring(late); /* closed */
    late.set = pair[0];
    bosh_bell_ring(late);
    socket = (struct pollfd){.fd = pair[1], .events = POLLIN};
    ck_assert_int_eq(poll(&socket, 1, 0), 0); /* nothing was written to it */
    late.set = mpm;
    bosh_bell_ring(late);
    ck_assert_int_eq(next(), -1);
    ck_assert_int_eq(write(pair[1], "x", 1), 1);
    ck_assert_int_eq(next(), pair[0]); /* as it was */
    close(pair[0]);
    close(pair[1]);
}
END_TEST

START_TEST(one_that_is_polled_itself)
{
    bosh_bell_t b = {.set = -1};
    struct pollfd p;
    int again;

    ck_assert_int_eq(bosh_bell_take(&b.fd), APR_SUCCESS);
    p = (struct pollfd){.fd = b.fd, .events = POLLIN};
    ck_assert_int_eq(poll(&p, 1, 0), 0);
    bosh_bell_ring(b);
    ck_assert_int_eq(poll(&p, 1, 0), 1);
    bosh_bell_hush(b.fd);
    ck_assert_int_eq(poll(&p, 1, 0), 0);
    bosh_bell_give(b.fd);
    ck_assert_int_eq(bosh_bell_take(&again), APR_SUCCESS);
    ck_assert_int_eq(again, b.fd);
    bosh_bell_give(again);
    bosh_bell_ring(BOSH_NO_BELL);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("bell");
    TCase *tc = tcase_create("bell");
    SRunner *sr;
    int failed;

    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, a_ring_is_reported_until_somebody_looks);
    tcase_add_test(tc, two_rings_are_one);
    tcase_add_test(tc, a_ring_before_the_park_is_there_after_it);
    tcase_add_test(tc, many_wait_and_each_is_rung_alone);
    tcase_add_test(tc, a_late_ring_harms_nobody);
    tcase_add_test(tc, one_that_is_polled_itself);
    suite_add_tcase(s, tc);
    sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
