/* SPDX-License-Identifier: Apache-2.0 */
/* The route attribute: B-086. */
#include <check.h>
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

int main(void)
{
    Suite *suite = suite_create("route");
    TCase *tc = tcase_create("route");
    SRunner *sr;
    int failed;

    tcase_add_test(tc, test_B_086_routes);
    tcase_add_test(tc, test_B_086_no_routes);
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_NORMAL);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed > 0;
}
