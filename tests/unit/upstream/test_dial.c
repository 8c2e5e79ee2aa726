/* SPDX-License-Identifier: Apache-2.0 */
/* Several targets, and addresses that are left alone: U-004, U-012, U-039. What needs names: test_943_dns.py. */
#include "rig.h"

#include "bosh_breaker.h"

static int dead_port(struct sockaddr_in *sin)
{
    int fd = listen_tcp(sin, 1);

    close(fd);
    return ntohs(sin->sin_port);
}

static void open_roomy(void)
{
    open_idle();
    loop_open();
}

/* Rows 1 to 3 are one domain's targets. */
static void chain(void)
{
    R.target[1].more = R.target[2].more = true;
}

static void goes_to(int fd, const char *attrs)
{
    chat_t c;

    create(&c, attrs, "");
    c.fd = accept_one(fd);
    expect(c.fd, CLIENT_HEAD);
    serve(c.fd, STREAM_HEAD FEATURES);
    ASSERT_HAS(answer(c.held), "<stream:features>");
    close(c.fd);
}

static const char *fails(const char *attrs)
{
    chat_t c;

    create(&c, attrs, "");
    return answer(c.held);
}

/* rows: U-004 */
START_TEST(the_next_target)
{
    struct sockaddr_in dead, alive;
    int live = listen_tcp(&alive, 5);

    (void)dead_port(&dead);
    chain();
    R.target[1].addrs = address(R.pool, &dead);
    R.target[2].path = "/nonexistent/socket";
    R.target[3].addrs = address(R.pool, &alive);
    goes_to(live, "route='1'");
    ck_assert_uint_eq(warnings(), 0);
    close(live);
}
END_TEST

START_TEST(no_further_than_its_own)
{
    struct sockaddr_in dead, alive;
    int live = listen_tcp(&alive, 5);

    (void)dead_port(&dead);
    R.target[1].more = true;
    R.target[1].addrs = R.target[2].addrs = address(R.pool, &dead);
    R.target[3].addrs = address(R.pool, &alive); /* another domain's */
    ASSERT_HAS(fails("route='1'"), "condition='remote-connection-failed'");
    ASSERT_HAS(fails("route='2'"), "condition='remote-connection-failed'");
    R.target[3].more = true; /* and there is no row 4 */
    R.target[3].addrs = NULL;
    ASSERT_HAS(fails("route='3'"), "condition='remote-connection-failed'");
    ck_assert_uint_eq(stats().connects, 3);
    close(live);
}
END_TEST

/* A full backlog drops what comes. */
static void fill(int *filler, int n, const struct sockaddr_in *hole)
{
    for (int i = 0; i < n; i++) {
        filler[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)connect(filler[i], (const struct sockaddr *)hole, sizeof(*hole));
    }
}

/* rows: U-004 U-012 */
START_TEST(a_target_that_does_not_answer_gets_its_share)
{
    struct sockaddr_in hole, alive;
    int filler[3], fd = listen_tcp(&hole, 0), live = listen_tcp(&alive, 5);

    fill(filler, 3, &hole);
    chain();
    R.target[1].addrs = R.target[2].addrs = address(R.pool, &hole);
    R.target[3].addrs = address(R.pool, &alive);
    R.target[1].timeout = apr_time_from_sec(6);
    goes_to(live, "route='1'");
    for (int i = 0; i < 3; i++) {
        close(filler[i]);
    }
    close(live);
    close(fd);
}
END_TEST

/* rows: U-012 */
START_TEST(all_of_them_within_one_time)
{
    struct sockaddr_in hole;
    int filler[3], fd = listen_tcp(&hole, 0);
    apr_time_t began = bosh_clock_now();

    fill(filler, 3, &hole);
    chain();
    R.target[1].addrs = R.target[2].addrs = R.target[3].addrs = address(R.pool, &hole);
    R.target[1].timeout = apr_time_from_msec(1500);
    ASSERT_HAS(fails("route='1'"), "condition='remote-connection-failed'");
    ck_assert_int_ge(bosh_clock_now() - began, apr_time_from_msec(1400));
    ck_assert(warned("in time"));
    ck_assert(warned("connect]"));
    for (int i = 0; i < 3; i++) {
        close(filler[i]);
    }
    close(fd);
}
END_TEST

/* rows: U-039 */
START_TEST(a_dead_address_is_left_alone)
{
    struct sockaddr_in sin;
    uint64_t tried;
    int fd;

    (void)dead_port(&sin);
    R.target[1].addrs = address(R.pool, &sin);
    for (int i = 0; i < 60; i++) {
        ASSERT_HAS(fails("route='1'"), "condition='remote-connection-failed'");
    }
    tried = stats().connects;
    ck_assert_uint_ge(tried, BOSH_BREAKER_FAILURES);
    ck_assert_uint_lt(tried, 20);
    /* It comes back, and is found. */
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)), 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
    ck_assert_int_eq(listen(fd, 5), 0);
    for (int i = 0;; i++) {
        struct pollfd p = {fd, POLLIN, 0};
        chat_t c;
        create(&c, "route='1'", "");
        loop_settle();
        if (poll(&p, 1, 0) == 1) {
            c.fd = accept_one(fd);
            serve(c.fd, STREAM_HEAD FEATURES);
            ASSERT_HAS(answer(c.held), "<stream:features>");
            close(c.fd);
            break;
        }
        ASSERT_HAS(answer(c.held), "condition='remote-connection-failed'");
        ck_assert_int_lt(i, WAIT_MS / 50);
        poll(NULL, 0, 50);
    }
    close(fd);
}
END_TEST

/* The one that is left alone costs nothing where there is another. */
START_TEST(a_dead_target_is_passed_by)
{
    struct sockaddr_in dead, alive;
    int live = listen_tcp(&alive, 5);
    uint64_t before;

    (void)dead_port(&dead);
    R.target[1].more = true;
    R.target[1].addrs = address(R.pool, &dead);
    R.target[2].addrs = address(R.pool, &alive);
    for (int i = 0; i < BOSH_BREAKER_FAILURES; i++) {
        goes_to(live, "route='1'");
    }
    before = stats().connects;
    goes_to(live, "route='1'");
    ck_assert_uint_le(stats().connects - before, 2); /* 1, but for a machine that took a second */
    close(live);
}
END_TEST

/* The client goes away in the middle of it. */
START_TEST(the_end_of_the_session_ends_it)
{
    struct sockaddr_in hole;
    int filler[3], fd = listen_tcp(&hole, 0);
    chat_t c;

    fill(filler, 3, &hole);
    R.target[1].addrs = address(R.pool, &hole);
    create(&c, "route='1'", "");
    loop_settle();
    ck_assert_uint_eq(stats().sockets, 1);
    ask(&c, "type='terminate'", "");
    AWAIT(stats().sockets == 0);
    for (int i = 0; i < 3; i++) {
        close(filler[i]);
    }
    close(fd);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("dial");
    TCase *t = tcase_create("dial");
    SRunner *r;
    int failed;

    tcase_add_checked_fixture(t, open_roomy, close_default);
    tcase_add_test(t, the_next_target);
    tcase_add_test(t, no_further_than_its_own);
    tcase_add_test(t, a_target_that_does_not_answer_gets_its_share);
    tcase_add_test(t, all_of_them_within_one_time);
    tcase_add_test(t, a_dead_address_is_left_alone);
    tcase_add_test(t, a_dead_target_is_passed_by);
    tcase_add_test(t, the_end_of_the_session_ends_it);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
