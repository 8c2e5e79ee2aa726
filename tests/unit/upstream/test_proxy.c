/* SPDX-License-Identifier: Apache-2.0 */
/* The headers of the PROXY protocol, byte by byte. */
#include <arpa/inet.h>
#include <check.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "bosh_proxy.h"

static const struct sockaddr *at(const char *ip, uint16_t port)
{
    static struct sockaddr_storage sa;
    struct sockaddr_in *v4 = (struct sockaddr_in *)&sa;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&sa;

    memset(&sa, 0, sizeof(sa));
    if (inet_pton(AF_INET, ip, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
    } else {
        ck_assert_int_eq(inet_pton(AF_INET6, ip, &v6->sin6_addr), 1);
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
    }
    return (const struct sockaddr *)&sa;
}

static void is_text(const char *ip, uint16_t port, const struct sockaddr *to, const char *expected)
{
    char text[BOSH_PROXY_MAX];

    ck_assert_uint_eq(bosh_proxy_print(text, BOSH_PROXY_V1, ip, port, to), strlen(expected));
    ck_assert_str_eq(text, expected);
}

/* rows: U-047 */
START_TEST(version_1)
{
    is_text("192.0.2.7", 51234, at("127.0.0.1", 5222),
            "PROXY TCP4 192.0.2.7 127.0.0.1 51234 5222\r\n");
    is_text("2001:db8::7", 1, at("::1", 65535), "PROXY TCP6 2001:db8::7 ::1 1 65535\r\n");
    is_text("fe80::1%eth0", 0, at("::1", 5222), "PROXY TCP6 fe80::1 ::1 0 5222\r\n");
    is_text("::ffff:192.0.2.7", 9, at("127.0.0.1", 5222),
            "PROXY TCP4 192.0.2.7 127.0.0.1 9 5222\r\n");
    /* Families that differ, and a unix socket. */
    is_text("192.0.2.7", 9, at("::1", 5222), "PROXY TCP4 192.0.2.7 0.0.0.0 9 0\r\n");
    is_text("2001:db8::7", 9, at("127.0.0.1", 5222), "PROXY TCP6 2001:db8::7 :: 9 0\r\n");
    is_text("192.0.2.7", 9, NULL, "PROXY TCP4 192.0.2.7 0.0.0.0 9 0\r\n");
    is_text("", 9, at("127.0.0.1", 5222), "PROXY UNKNOWN\r\n");
    is_text("somewhere", 9, NULL, "PROXY UNKNOWN\r\n");
    is_text("1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc", 9, NULL,
            "PROXY UNKNOWN\r\n");
    /* The longest there is. */
    is_text("1111:2222:3333:4444:5555:6666:7777:8888", 65535,
            at("1111:2222:3333:4444:5555:6666:7777:8888", 65535),
            "PROXY TCP6 1111:2222:3333:4444:5555:6666:7777:8888 "
            "1111:2222:3333:4444:5555:6666:7777:8888 65535 65535\r\n");
}
END_TEST

static void is_binary(const char *ip, uint16_t port, const struct sockaddr *to,
                      const char *expected, size_t n)
{
    char text[BOSH_PROXY_MAX];

    ck_assert_uint_eq(bosh_proxy_print(text, BOSH_PROXY_V2, ip, port, to), n);
    ck_assert_mem_eq(text, expected, n);
}

#define BYTES(text) text, sizeof(text) - 1
#define SIGNATURE   "\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"

/* rows: U-047 */
START_TEST(version_2)
{
    is_binary("192.0.2.7", 0x1234, at("127.0.0.1", 5222),
              BYTES(SIGNATURE "\x21\x11\x00\x0c\xc0\x00\x02\x07\x7f\x00\x00\x01\x12\x34\x14\x66"));
    is_binary("2001:db8::7", 0xffee, at("::1", 5223),
              BYTES(SIGNATURE
                    "\x21\x21\x00\x24\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
                    "\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\xff\xee"
                    "\x14\x67"));
    is_binary("::ffff:192.0.2.7", 1, at("::1", 5222),
              BYTES(SIGNATURE "\x21\x11\x00\x0c\xc0\x00\x02\x07\x00\x00\x00\x00\x00\x01\x00\x00"));
    is_binary("", 1, at("::1", 5222), BYTES(SIGNATURE "\x20\x00\x00\x03\x04\x00\x00"));
}
END_TEST

START_TEST(off)
{
    char text[BOSH_PROXY_MAX];

    ck_assert_uint_eq(bosh_proxy_print(text, BOSH_PROXY_OFF, "192.0.2.7", 1, NULL), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("proxy");
    TCase *tc = tcase_create("headers");
    SRunner *sr = srunner_create(suite);
    int failed;

    tcase_add_test(tc, version_1);
    tcase_add_test(tc, version_2);
    tcase_add_test(tc, off);
    suite_add_tcase(suite, tc);
    srunner_run_all(sr, CK_NORMAL);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
