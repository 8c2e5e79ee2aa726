/* SPDX-License-Identifier: Apache-2.0 */
/* The route attribute: B-086. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "bosh_route.h"

START_TEST(test_B_086_routes)
{
    static const struct {
        const char *route, *host;
        unsigned port;
    } good[] = {
        {"xmpp:host:5222", "host", 5222},
        {"xmpp:10.0.0.1:1", "10.0.0.1", 1},
        {"xmpp:[::1]:5222", "::1", 5222},
        {"xmpp:[2001:db8::1]:65535", "2001:db8::1", 65535},
        {"xmpp:a-b.example:05222", "a-b.example", 5222},
    };

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        bosh_slice_t host;
        unsigned port;
        ck_assert_msg(bosh_route_read(good[i].route, &host, &port), "%s", good[i].route);
        ck_assert_uint_eq(port, good[i].port);
        ck_assert_uint_eq(host.n, strlen(good[i].host));
        ck_assert_int_eq(memcmp(host.p, good[i].host, host.n), 0);
    }
}
END_TEST

START_TEST(test_B_086_no_routes)
{
    static const char *const bad[] = {
        "",
        "xmpp",
        "xmpp:",
        "xmpp::5222",
        "xmpp:host",
        "xmpp:host:",
        "xmpp:host:0",
        "xmpp:host:65536",
        "xmpp:host:99999",
        "xmpp:host:100000",
        "xmpp:host:4294972518", /* 5222 in 32 bits */
        "xmpp:host:-1",
        "xmpp:host:+5222",
        "xmpp:host: 5222",
        "xmpp:host:5222 ",
        "xmpp:host:5222/",
        "xmpp:host:5222:5223",
        "xmpp://host:5222",
        "xmpp:/host:5222",
        "xmpp:user@host:5222",
        "xmpp:host/x:5222",
        "xmpp:ho st:5222",
        "xmpp:::1:5222",
        "xmpp:[::1:5222",
        "xmpp:[::1]5222",
        "xmpp:[]:5222",
        "xmpp:[fe80::1%eth0]:5222",
        "xmpp:[host]:5222",
        "http:host:80",
        "XMPP:host:5222",
        " xmpp:host:5222",
        "host:5222",
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        bosh_slice_t host;
        unsigned port;
        ck_assert_msg(!bosh_route_read(bad[i], &host, &port), "%s", bad[i]);
    }
}
END_TEST

/* rows: X-084 */
START_TEST(other_hosts)
{
    static const struct {
        const char *text, *host;
        unsigned port;
    } good[] = {
        {"host", "host", 0},
        {"host.example:5222", "host.example", 5222},
        {" \t\r\nhost.example:5222\n ", "host.example", 5222},
        {"10.0.0.1", "10.0.0.1", 0},
        {"10.0.0.1:1", "10.0.0.1", 1},
        {"[::1]", "::1", 0},
        {"[2001:db8::1]:65535", "2001:db8::1", 65535},
        {"2001:db8::1", "2001:db8::1", 0},
        {"b\xc3\xbc"
         "cher.example",
         "b\xc3\xbc"
         "cher.example",
         0},
    };

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        size_t n = strlen(good[i].text);
        char *text = malloc(n); /* with no byte behind it */
        bosh_slice_t host;
        unsigned port;
        memcpy(text, good[i].text, n);
        ck_assert_msg(bosh_route_elsewhere(text, n, &host, &port), "%s", good[i].text);
        ck_assert_uint_eq(port, good[i].port);
        ck_assert_uint_eq(host.n, strlen(good[i].host));
        ck_assert_int_eq(memcmp(host.p, good[i].host, host.n), 0);
        free(text);
    }
}
END_TEST

/* rows: X-084 */
START_TEST(no_other_hosts)
{
    static const char *const bad[] = {
        "",           " ",          ":",           ":5222",       "host:",       "host:0",
        "host:65536", "host:52 22", "host:+5222",  "host:x",      "ho st",       "host/x",
        "u@host",     "a<b/>",      "a&amp;b",     "[::1",        "[::1]5222",   "[]:5222",
        "[host]",     "[::1]:",     "[::1]:99999", "a:5222:5223", "xmpp://host", "fe80::1%eth0",
        "host:5222x", "]",          "[",           "[[::1]]",     "a\x01b:5222", "host:123456789",
    };
    char big[BOSH_MAX_DOMAIN + 2];
    bosh_slice_t host;
    unsigned port;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        /* Looks like an IPv6 address, which the resolver will not find. */
        bool may = strcmp(bad[i], "a:5222:5223") == 0;
        ck_assert_msg(bosh_route_elsewhere(bad[i], strlen(bad[i]), &host, &port) == may, "%s",
                      bad[i]);
    }
    memset(big, 'a', sizeof(big));
    ck_assert(bosh_route_elsewhere(big, sizeof(big) - 2, &host, &port));
    ck_assert(!bosh_route_elsewhere(big, sizeof(big) - 1, &host, &port));
    ck_assert(!bosh_route_elsewhere("host\0x:5222", 11, &host, &port));
    ck_assert(!bosh_route_elsewhere("host:52\0", 8, &host, &port));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("route");
    TCase *tc = tcase_create("route");
    SRunner *sr;
    int failed;

    tcase_add_test(tc, test_B_086_routes);
    tcase_add_test(tc, test_B_086_no_routes);
    tcase_add_test(tc, other_hosts);
    tcase_add_test(tc, no_other_hosts);
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_NORMAL);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed > 0;
}
