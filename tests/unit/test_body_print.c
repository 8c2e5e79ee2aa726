/* SPDX-License-Identifier: Apache-2.0 */
/* Answers: every attribute of the start tag, the conditions, escaping. */
#include <check.h>
#include <stdint.h>

#include "bosh_body.h"
#include "xml_canon.h"

#define HB      "xmlns='http://jabber.org/protocol/httpbind'"
#define STREAMS "http://etherx.jabber.org/streams"
#define XBOSH   "xmlns:xmpp='urn:xmpp:xbosh'"

static const char *opened(const bosh_ans_t *ans, bool empty)
{
    static char buf[BOSH_BODY_OPEN_MAX + 1];
    text_t out = {0}, t = {0};
    size_t n = bosh_body_print_open(buf, ans, empty);

    ck_assert_uint_le(n, BOSH_BODY_OPEN_MAX);
    buf[n] = '\0';
    text_puts(&t, buf);
    text_puts(&t, empty ? "" : BOSH_BODY_CLOSE);
    ck_assert_msg(canon_children(&out, t.p, t.n), "%s: %s", t.p, out.p); /* rows: B-049 */
    free(t.p);
    free(out.p);
    return buf;
}

/* rows: B-049 B-063 B-077 X-001 X-031 X-032 */
START_TEST(test_B_049_answers)
{
    bosh_ans_t ans = {.flags = 0};

    ck_assert_str_eq(opened(&ans, true), "<body " HB "/>");
    ck_assert_str_eq(opened(&ans, false), "<body " HB ">");
    ck_assert_uint_eq(strlen(BOSH_BODY_CLOSE), BOSH_BODY_CLOSE_LEN);
    ans = (bosh_ans_t){.flags = BOSH_ANS_CREATION | BOSH_ANS_ANNOUNCE | BOSH_ANS_STREAM_NS |
                                BOSH_ANS_ACK,
                       .sid = "0123",
                       .wait = 60,
                       .requests = 2,
                       .hold = 1,
                       .inactivity = 30,
                       .polling = 5,
                       .maxpause = 120,
                       .ver_major = 1,
                       .ver_minor = 10,
                       .from = "example.com",
                       .authid = "<'id&",
                       .xmpp_version = "1.0",
                       .lang = "en",
                       .ack = BOSH_RID_MAX};
    ck_assert_str_eq(opened(&ans, false),
                     "<body " HB " " XBOSH " xmlns:stream='" STREAMS "'"
                     " sid='0123' wait='60' requests='2' hold='1' inactivity='30' polling='5'"
                     " maxpause='120' ver='1.10' xmpp:restartlogic='true' from='example.com'"
                     " authid='&lt;&apos;id&amp;' xmpp:version='1.0' xml:lang='en'"
                     " ack='9007199254740991'>");
    ans = (bosh_ans_t){.flags = BOSH_ANS_CREATION, .sid = "0123", .wait = 0, .requests = 1};
    ck_assert_str_eq(opened(&ans, true),
                     "<body " HB " " XBOSH " sid='0123' wait='0' requests='1' hold='0'"
                     " xmpp:restartlogic='true'/>");
    ans =
        (bosh_ans_t){.flags = BOSH_ANS_ANNOUNCE, .from = "", .authid = "id"}; /* before XMPP 1.0 */
    ck_assert_str_eq(opened(&ans, true), "<body " HB " authid='id'/>");
    ans = (bosh_ans_t){.flags = BOSH_ANS_ANNOUNCE, .xmpp_version = "1.0"};
    ck_assert_str_eq(opened(&ans, true), "<body " HB " " XBOSH " xmpp:version='1.0'/>");
    ans = (bosh_ans_t){.flags = BOSH_ANS_TERMINATE, .cond = BOSH_COND_ITEM_NOT_FOUND};
    ck_assert_str_eq(opened(&ans, true),
                     "<body " HB " type='terminate' condition='item-not-found'/>");
    ans = (bosh_ans_t){.flags = BOSH_ANS_TERMINATE};
    ck_assert_str_eq(opened(&ans, true), "<body " HB " type='terminate'/>");
    ans = (bosh_ans_t){.flags = BOSH_ANS_ERROR};
    ck_assert_str_eq(opened(&ans, true), "<body " HB " type='error'/>");
    ans = (bosh_ans_t){.flags = BOSH_ANS_REPORT, .report = 1573741820, .time = 852};
    ck_assert_str_eq(opened(&ans, true), "<body " HB " report='1573741820' time='852'/>");
}
END_TEST

/* rows: B-049 */
START_TEST(test_longest_answer)
{
    char longest[2000];
    bosh_ans_t ans = {.flags = 0xFF,
                      .cond = BOSH_COND_REMOTE_CONNECTION_FAILED,
                      .wait = UINT32_MAX,
                      .requests = UINT32_MAX,
                      .hold = UINT32_MAX,
                      .inactivity = UINT32_MAX,
                      .polling = UINT32_MAX,
                      .maxpause = UINT32_MAX,
                      .ver_major = UINT32_MAX,
                      .ver_minor = UINT32_MAX,
                      .ack = UINT64_MAX,
                      .report = UINT64_MAX,
                      .time = UINT32_MAX};

    memset(longest, '"', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    ans.sid = ans.from = ans.authid = ans.xmpp_version = ans.lang = longest;
    opened(&ans, false);
}
END_TEST

START_TEST(test_conditions)
{
    static const char *const names[] = {"bad-request",
                                        "host-gone",
                                        "host-unknown",
                                        "improper-addressing",
                                        "internal-server-error",
                                        "item-not-found",
                                        "other-request",
                                        "policy-violation",
                                        "remote-connection-failed",
                                        "remote-stream-error",
                                        "see-other-uri",
                                        "system-shutdown",
                                        "undefined-condition"};

    ck_assert_ptr_null(bosh_body_condition(BOSH_COND_NONE));
    for (int i = 1; i < BOSH_COND_COUNT; i++) {
        ck_assert_str_eq(bosh_body_condition((bosh_cond_t)i), names[i - 1]);
    }
    ck_assert_ptr_null(bosh_body_condition(BOSH_COND_COUNT));
    ck_assert_ptr_null(bosh_body_condition((bosh_cond_t)-1));
}
END_TEST

/* rows: B-049 */
START_TEST(test_escape)
{
    static const char text[] = "a<b>'\"&\n\xC3\xA9";
    static const char want[] = "a&lt;b&gt;&apos;&quot;&amp;&#10;\xC3\xA9";
    char buf[64];

    ck_assert_uint_eq(bosh_body_escape(buf, sizeof(buf), text), sizeof(want) - 1);
    ck_assert_mem_eq(buf, want, sizeof(want) - 1);
    ck_assert_uint_eq(bosh_body_escape(buf, 4, text), 1); /* `&lt;` does not fit any more */
    ck_assert_uint_eq(bosh_body_escape(buf, 5, text), 5);
    ck_assert_uint_eq(bosh_body_escape(buf, sizeof(want) - 2, text), sizeof(want) - 3);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_B_049_answers,
        test_longest_answer,
        test_conditions,
        test_escape,
    };
    Suite *suite = suite_create("body_print");
    TCase *tc = tcase_create("body_print");
    SRunner *sr;
    int failed;

    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        tcase_add_test(tc, tests[i]);
    }
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_NORMAL);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed > 0;
}
