/* SPDX-License-Identifier: Apache-2.0 */
/* Keep-alives to the server: a space when nothing was said for a while, never inside a stanza. */
#include "rig.h"

#define LITTLE apr_time_from_msec(100) /* without a word of ours */

static void open_quiet(void)
{
    open_all(64, 4096, 4);
    for (int i = 0; i < TARGETS; i++) {
        R.target[i].keepalive = LITTLE;
    }
    loop_open();
}

/* What is there, until nothing came for `ms`. */
static size_t collect(int fd, char *dst, size_t size, int ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    size_t n = 0;

    while (n < size && poll(&p, 1, ms) > 0) {
        ssize_t got = read(fd, dst + n, size - n);
        ck_assert_int_gt(got, 0);
        n += (size_t)got;
    }
    return n;
}

/* rows: U-035 */
START_TEST(spaces_when_quiet)
{
    apr_time_t begun;
    bosh_link_t before;
    chat_t c;

    login(&c);
    before = link_of(&c);
    begun = bosh_clock_now();
    for (int i = 0; i < 3; i++) {
        expect(c.fd, " ");
    }
    /* The first may have been due before the clock was read. */
    ck_assert_int_ge(bosh_clock_now() - begun, 2 * LITTLE);
    AWAIT(link_of(&c).out >= before.out + 3);
    ask(&c, "", "<presence xmlns='jabber:client'/>");
    AWAIT(link_of(&c).down.b.len == 0);
    serve(c.fd, "<message><body>x</body></message>");
    ASSERT_HAS(answer(c.held), "<body>x</body>");
    close(c.fd);
}
END_TEST

/* rows: U-035 */
START_TEST(not_before_the_stream_is_open)
{
    char got[2];
    chat_t c;

    create(&c, "", "");
    c.fd = accept_one(lfd);
    expect(c.fd, CLIENT_HEAD);
    ck_assert_uint_eq(collect(c.fd, got, sizeof(got), 5 * (int)(LITTLE / 1000)), 0);
    serve(c.fd, STREAM_HEAD);
    ck_assert_uint_eq(collect(c.fd, got, sizeof(got), 5 * (int)(LITTLE / 1000)), 0);
    serve(c.fd, FEATURES);
    expect(c.fd, " ");
    close(c.fd);
}
END_TEST

#define STANZAS 60
#define BODY    8000 /* together more than a unix socket holds */

/* rows: U-035 */
START_TEST(not_inside_a_stanza)
{
    static char text[STANZAS * (BODY + 100)];
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int ufd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), spaces = 0;
    size_t n = 0, seen = 0;
    bosh_link_t link;
    chat_t c;

    snprintf(un.sun_path, sizeof(un.sun_path), "/tmp/bosh-quiet-%d", (int)getpid());
    unlink(un.sun_path);
    ck_assert_int_eq(bind(ufd, (struct sockaddr *)&un, sizeof(un)), 0);
    ck_assert_int_eq(listen(ufd, 5), 0);
    R.target[1].path = un.sun_path; /* nobody has looked at it yet */
    create(&c, "route='1' ", "");
    c.fd = accept_one(ufd);
    expect(c.fd, CLIENT_HEAD);
    serve(c.fd, STREAM_HEAD FEATURES);
    ASSERT_HAS(answer(c.held), "<stream:features>");
    for (int i = 0; i < STANZAS; i++) {
        n += (size_t)snprintf(text + n, sizeof(text) - n, "<message xmlns='jabber:client'><body>");
        memset(text + n, 'x', BODY);
        n += BODY;
        n += (size_t)snprintf(text + n, sizeof(text) - n, "</body></message>");
    }
    ask(&c, "", text);
    /* Nobody reads: what does not go in is left, and many a keep-alive would be due. */
    loop_settle();
    link = link_of(&c);
    ck_assert_uint_gt(link.down.b.len, 0);
    poll(NULL, 0, 8 * (int)(LITTLE / 1000));
    ck_assert_uint_eq(link_of(&c).out, link.out);
    while (seen < n) {
        char got[4096];
        ssize_t len;
        await_readable(c.fd);
        len = read(c.fd, got, sizeof(got));
        ck_assert_int_gt(len, 0);
        for (ssize_t k = 0; k < len; k++) {
            if (seen < n && got[k] == text[seen]) {
                seen++;
            } else { /* only between them */
                ck_assert_int_eq(got[k], ' ');
                ck_assert(seen == n || strncmp(text + seen, "<message", 8) == 0);
                spaces++;
            }
        }
    }
    ck_assert_int_le(spaces, 3);
    expect(c.fd, " ");
    unlink(un.sun_path);
    close(ufd);
    close(c.fd);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("quiet");
    TCase *t = tcase_create("keep-alive");
    SRunner *r;
    int failed;

    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, open_quiet, close_default);
    tcase_add_test(t, spaces_when_quiet);
    tcase_add_test(t, not_before_the_stream_is_open);
    tcase_add_test(t, not_inside_a_stanza);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
