/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking names up, against a name server that is this test itself, and a clock of its own for what is remembered:
 * U-009, U-010, U-011.
 */
#include <arpa/inet.h>
#include <check.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bosh_resolve.h"

#define WAIT_MS 10000
#define A       1
#define SRV     33
#define AAAA    28

static bosh_resolver_t *R;
static int epfd, server;
static char address[32];
static apr_time_t now;

/* The question that came last, and the answer that is being made. */
static unsigned char question[512], answer[4096];
static ssize_t asked;
static size_t len;
static struct sockaddr_in client;

static void open_all(void)
{
    struct sockaddr_in sin = {.sin_family = AF_INET};
    socklen_t n = sizeof(sin);

    now = apr_time_from_sec(1000000);
    sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    server = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(server, (struct sockaddr *)&sin, sizeof(sin)), 0);
    ck_assert_int_eq(getsockname(server, (struct sockaddr *)&sin, &n), 0);
    snprintf(address, sizeof(address), "127.0.0.1:%u", ntohs(sin.sin_port));
    epfd = epoll_create1(EPOLL_CLOEXEC);
    R = bosh_resolver_create(address, epfd);
    ck_assert_ptr_nonnull(R);
    ck_assert_int_eq(bosh_resolver_next(R), BOSH_NEVER);
}

static void close_all(void)
{
    bosh_resolver_destroy(R);
    close(epfd);
    close(server);
}

/* ---- the name server ---- */

static bool is_asked(int ms)
{
    struct pollfd p = {server, POLLIN, 0};
    socklen_t n = sizeof(client);

    if (poll(&p, 1, ms) != 1) {
        return false;
    }
    asked = recvfrom(server, question, sizeof(question), 0, (struct sockaddr *)&client, &n);
    return asked > 16;
}

static unsigned qtype(void)
{
    size_t n = 12;

    while (question[n] != 0) {
        n += question[n] + 1u;
    }
    return question[n + 2];
}

static void begin_answer(unsigned rcode)
{
    size_t n = 12;

    while (question[n] != 0) {
        n += question[n] + 1u;
    }
    len = n + 5; /* header and question, without what comes behind */
    memcpy(answer, question, len);
    answer[2] = 0x81;
    answer[3] = (unsigned char)(0x80 | rcode);
    memset(answer + 6, 0, 6);
}

static void put16(unsigned v)
{
    answer[len++] = (unsigned char)(v >> 8);
    answer[len++] = (unsigned char)v;
}

static void put_record(unsigned type, uint32_t ttl, const void *data, size_t n)
{
    answer[7]++;
    put16(0xc00c);
    put16(type);
    put16(1);
    put16(ttl >> 16);
    put16(ttl & 0xffff);
    put16((unsigned)n);
    memcpy(answer + len, data, n);
    len += n;
}

static void put_srv(unsigned priority, unsigned port, const char *labels, size_t n, uint32_t ttl)
{
    unsigned char data[300] = {0, (unsigned char)priority,    0,
                               0, (unsigned char)(port >> 8), (unsigned char)port};

    memcpy(data + 6, labels, n);
    put_record(SRV, ttl, data, 6 + n);
}
#define LABELS(text) text, sizeof(text)

static void send_answer(void)
{
    ck_assert_int_eq(sendto(server, answer, len, 0, (struct sockaddr *)&client, sizeof(client)),
                     (ssize_t)len);
}

/* ---- the loop's end ---- */

static void turn(void)
{
    struct epoll_event ev[8];
    int n = epoll_wait(epfd, ev, 8, WAIT_MS);

    ck_assert_int_gt(n, 0);
    for (int i = 0; i < n; i++) {
        ck_assert(bosh_resolver_is_tag(ev[i].data.u64));
        bosh_resolver_event(R, ev[i].data.u64, ev[i].events, now);
    }
}

static bosh_dns_t look(bosh_dns_kind_t kind, const char *name)
{
    return bosh_resolve(R, kind, name, false, now, 7, 8);
}

static unsigned waiters(void)
{
    unsigned n = 0;
    uint32_t index, serial;

    while (bosh_resolver_waiter(R, &index, &serial)) {
        ck_assert_uint_eq(index, 7);
        ck_assert_uint_eq(serial, 8);
        n++;
    }
    return n;
}

static void answer_a(uint32_t ttl)
{
    ck_assert(is_asked(WAIT_MS));
    ck_assert_uint_eq(qtype(), A);
    begin_answer(0);
    put_record(A, ttl, "\x7f\0\0\1", 4);
    send_answer();
    turn();
}

/* ---- answers ---- */

START_TEST(addresses)
{
    bosh_dns_t d = look(BOSH_DNS_A, "a.example.");

    ck_assert_int_eq(d.state, BOSH_DNS_PENDING);
    ck_assert_int_ne(bosh_resolver_next(R), BOSH_NEVER);
    answer_a(60);
    ck_assert_uint_eq(waiters(), 1);
    ck_assert_int_eq(bosh_resolver_next(R), BOSH_NEVER);
    d = look(BOSH_DNS_A, "a.example.");
    ck_assert_int_eq(d.state, BOSH_DNS_FOUND);
    ck_assert_uint_eq(d.n, 1);
    ck_assert_uint_eq(d.addr[0].sa.v4.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
    d = look(BOSH_DNS_AAAA, "a.example.");
    ck_assert_int_eq(d.state, BOSH_DNS_PENDING);
    ck_assert(is_asked(WAIT_MS));
    ck_assert_uint_eq(qtype(), AAAA);
}
END_TEST

START_TEST(service_records)
{
    bosh_dns_t d;

    ck_assert_int_eq(look(BOSH_DNS_SRV, "_s._tcp.a.example").state, BOSH_DNS_PENDING);
    ck_assert(is_asked(WAIT_MS));
    begin_answer(0);
    put_srv(5, 5223, LABELS("\4host\1a\7example"), 60);
    put_srv(6, 0, LABELS(""), 60);
    put_srv(7, 5222, LABELS("\5sp ce\7example"), 60); /* no host */
    put_srv(8, 0, LABELS("\4host\7example"), 60);     /* no port */
    send_answer();
    turn();
    d = look(BOSH_DNS_SRV, "_s._tcp.a.example");
    ck_assert_int_eq(d.state, BOSH_DNS_FOUND);
    ck_assert_uint_eq(d.n, 2);
    ck_assert_uint_eq(d.srv[0].priority, 5);
    ck_assert_uint_eq(d.srv[0].port, 5223);
    ck_assert_str_eq(d.srv[0].host, "host.a.example");
    ck_assert_str_eq(d.srv[1].host, ""); /* no service */
}
END_TEST

/* rows: U-011 */
START_TEST(failures_are_no_empty_answers)
{
    static const struct {
        unsigned rcode;
        bosh_dns_state_t state;
    } cases[] = {{0, BOSH_DNS_NONE},
                 {3, BOSH_DNS_NONE},
                 {2, BOSH_DNS_FAILED},
                 {5, BOSH_DNS_FAILED},
                 {4, BOSH_DNS_FAILED}};
    char name[40];

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (int kind = BOSH_DNS_SRV; kind <= BOSH_DNS_AAAA; kind++) {
            snprintf(name, sizeof(name), "n%u.example.", (unsigned)i);
            while (look((bosh_dns_kind_t)kind, name).state == BOSH_DNS_PENDING) {
                ck_assert(is_asked(WAIT_MS));
                begin_answer(cases[i].rcode);
                send_answer();
                turn();
            }
            ck_assert_msg(look((bosh_dns_kind_t)kind, name).state == cases[i].state,
                          "rcode %u, kind %d", cases[i].rcode, kind);
        }
    }
}
END_TEST

/* ---- what is remembered ---- */

/* rows: U-010 */
START_TEST(for_the_ttl)
{
    static const struct {
        uint32_t ttl, seconds;
    } cases[] = {{0, 1}, {1, 1}, {60, 60}, {3600, 3600}, {0x7fffffff, 3600}};
    char name[40];

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        snprintf(name, sizeof(name), "ttl%u.example.", (unsigned)i);
        (void)look(BOSH_DNS_A, name);
        answer_a(cases[i].ttl);
        now += apr_time_from_sec(cases[i].seconds) - 1;
        ck_assert_int_eq(look(BOSH_DNS_A, name).state, BOSH_DNS_FOUND);
        ck_assert(!is_asked(0));
        now += 1;
        ck_assert_int_eq(look(BOSH_DNS_A, name).state, BOSH_DNS_PENDING);
        answer_a(cases[i].ttl);
        ck_assert_int_eq(look(BOSH_DNS_A, name).state, BOSH_DNS_FOUND);
    }
}
END_TEST

/* rows: U-010 */
START_TEST(nothing_for_a_moment)
{
    static const unsigned rcode[] = {3, 2};
    static const apr_interval_time_t life[] = {BOSH_RESOLVER_NONE, BOSH_RESOLVER_FAILED};

    for (int i = 0; i < 2; i++) {
        const char *name = i == 0 ? "_none.example" : "_failed.example";
        while (look(BOSH_DNS_SRV, name).state == BOSH_DNS_PENDING) {
            ck_assert(is_asked(WAIT_MS));
            begin_answer(rcode[i]);
            send_answer();
            turn();
        }
        now += life[i] - 1;
        ck_assert_int_ne(look(BOSH_DNS_SRV, name).state, BOSH_DNS_PENDING);
        now += 1;
        ck_assert_int_eq(look(BOSH_DNS_SRV, name).state, BOSH_DNS_PENDING);
        ck_assert(is_asked(WAIT_MS));
    }
}
END_TEST

/* rows: U-010 */
START_TEST(one_question_for_all)
{
    for (int i = 0; i < 100; i++) {
        ck_assert_int_eq(look(BOSH_DNS_A, "many.example.").state, BOSH_DNS_PENDING);
    }
    answer_a(60);
    ck_assert_uint_eq(waiters(), 100);
    ck_assert(!is_asked(0));
}
END_TEST

/* Names that anybody may choose cost no more memory than this, and the running ones stay. */
START_TEST(memory_is_bounded)
{
    char name[40];
    unsigned refused = 0;

    (void)look(BOSH_DNS_A, "known.example.");
    answer_a(600);
    for (int i = 0; i < BOSH_RESOLVER_ENTRIES + 10; i++) {
        bosh_dns_t d;
        snprintf(name, sizeof(name), "n%d.example.", i);
        d = look(BOSH_DNS_A, name);
        refused += d.state == BOSH_DNS_FAILED;
        ck_assert(d.state == BOSH_DNS_PENDING || strstr(d.why, "too many") != NULL);
    }
    ck_assert_uint_eq(refused, 10); /* "known" made room for the last */
    answer_a(60);                   /* one of them, which makes room for another */
    ck_assert_int_eq(look(BOSH_DNS_A, "one.more.example.").state, BOSH_DNS_PENDING);
}
END_TEST

/* Clients that make up domains whose servers never answer are in nobody's way but each other's. */
START_TEST(names_of_strangers_leave_room)
{
    char name[40];
    int begun = 0;

    (void)look(BOSH_DNS_A, "known.example.");
    answer_a(600);
    for (int i = 0; i < BOSH_RESOLVER_ENTRIES + 10; i++) {
        snprintf(name, sizeof(name), "n%d.example.", i);
        begun += bosh_resolve(R, BOSH_DNS_A, name, true, now, 7, 8).state == BOSH_DNS_PENDING;
    }
    ck_assert_int_eq(begun, BOSH_RESOLVER_ENTRIES / 2);
    ck_assert_int_eq(look(BOSH_DNS_A, "known.example.").state, BOSH_DNS_FOUND);
    ck_assert_int_eq(bosh_resolve(R, BOSH_DNS_A, "n0.example.", true, now, 7, 8).state,
                     BOSH_DNS_PENDING);
    ck_assert_int_eq(look(BOSH_DNS_A, "line.example.").state, BOSH_DNS_PENDING);
    now += apr_time_from_sec(601); /* what is out of date is begun for anew, or not */
    ck_assert_int_eq(bosh_resolve(R, BOSH_DNS_A, "known.example.", true, now, 7, 8).state,
                     BOSH_DNS_FAILED);
    ck_assert_int_eq(look(BOSH_DNS_A, "known.example.").state, BOSH_DNS_PENDING);
}
END_TEST

START_TEST(the_oldest_make_room)
{
    char name[40];

    for (int i = 0; i < 2 * BOSH_RESOLVER_ENTRIES; i++) {
        snprintf(name, sizeof(name), "n%d.example.", i);
        ck_assert_int_eq(look(BOSH_DNS_A, name).state, BOSH_DNS_PENDING);
        answer_a(600 + (uint32_t)i);
        ck_assert_int_eq(look(BOSH_DNS_A, name).state, BOSH_DNS_FOUND);
    }
    ck_assert_int_eq(look(BOSH_DNS_A, "n0.example.").state, BOSH_DNS_PENDING);
}
END_TEST

/* What is not answered when the loop ends is forgotten. */
START_TEST(end_in_the_middle)
{
    ck_assert_int_eq(look(BOSH_DNS_A, "a.example.").state, BOSH_DNS_PENDING);
    ck_assert_int_eq(look(BOSH_DNS_SRV, "a.example.").state, BOSH_DNS_PENDING);
}
END_TEST

/* ---- reading ---- */

/* Whatever is cut off or changed, nothing outside is read and nothing made up. */
START_TEST(broken_messages)
{
    bosh_srv_t rec[BOSH_RESOLVER_RECORDS];
    unsigned char *copy;
    uint32_t ttl;

    memcpy(question, "\1\2\1\0\0\1\0\0\0\0\0\0\1s\7example\0\0\x21\0\1", asked = 27);
    begin_answer(0);
    put_srv(1, 5222, LABELS("\1a\7example"), 30);
    put_srv(2, 5222, "\1b\xc0\x0e", 4, 20);
    ck_assert_int_eq(bosh_resolver_parse_srv(answer, len, rec, BOSH_RESOLVER_RECORDS, &ttl), 2);
    ck_assert_uint_eq(ttl, 20);
    ck_assert_str_eq(rec[1].host, "b.example");
    ck_assert_int_eq(bosh_resolver_parse_srv(answer, len, rec, 1, &ttl), 1);
    for (size_t n = 0; n < len; n++) {
        copy = malloc(n > 0 ? n : 1); /* its end is noticed by sanitizers and valgrind */
        memcpy(copy, answer, n);
        ck_assert_int_eq(bosh_resolver_parse_srv(copy, n, rec, BOSH_RESOLVER_RECORDS, &ttl), -1);
        free(copy);
    }
    srand(1);
    copy = malloc(len);
    for (int i = 0; i < 20000; i++) {
        int n;
        memcpy(copy, answer, len);
        for (int k = 1 + rand() % 4; k > 0; k--) {
            copy[(size_t)rand() % len] = (unsigned char)rand();
        }
        n = bosh_resolver_parse_srv(copy, len, rec, BOSH_RESOLVER_RECORDS, &ttl);
        ck_assert_int_ge(n, -1);
        ck_assert_int_le(n, BOSH_RESOLVER_RECORDS);
        for (int k = 0; k < n; k++) {
            ck_assert_uint_le(strlen(rec[k].host), BOSH_MAX_DOMAIN);
            ck_assert(rec[k].port != 0 || rec[k].host[0] == '\0');
        }
    }
    free(copy);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("resolve");
    TCase *t = tcase_create("resolve");
    SRunner *r;
    int failed;

    tcase_add_checked_fixture(t, open_all, close_all);
    tcase_add_test(t, addresses);
    tcase_add_test(t, service_records);
    tcase_add_test(t, failures_are_no_empty_answers);
    tcase_add_test(t, for_the_ttl);
    tcase_add_test(t, nothing_for_a_moment);
    tcase_add_test(t, one_question_for_all);
    tcase_add_test(t, memory_is_bounded);
    tcase_add_test(t, names_of_strangers_leave_room);
    tcase_add_test(t, the_oldest_make_room);
    tcase_add_test(t, end_in_the_middle);
    tcase_add_test(t, broken_messages);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
