/* SPDX-License-Identifier: Apache-2.0 */
/* What is said to undelivered stanzas: B-290 to B-292. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bosh_bounce.h"

#define NS      "xmlns='jabber:client'"
#define STANZAS "urn:ietf:params:xml:ns:xmpp-stanzas"
#define MESSAGE(attrs)                                                                             \
    "<message type='error'" attrs "><error type='wait'><recipient-unavailable xmlns='" STANZAS     \
    "'/></error></message>"
#define IQ(attrs)                                                                                  \
    "<iq type='error'" attrs "><error type='cancel'><service-unavailable xmlns='" STANZAS          \
    "'/></error></iq>"

static bosh_bounce_t *bounce;

static void setup(void)
{
    bounce = bosh_bounce_create();
    ck_assert_ptr_nonnull(bounce);
}

static void teardown(void)
{
    bosh_bounce_destroy(bounce);
}

static void check_output(const char *what, const char *want)
{
    size_t n;
    const char *text = bosh_bounce_text(bounce, &n);

    ck_assert_msg(n == strlen(want) && (n == 0 || memcmp(text, want, n) == 0), "%s: %.*s, not %s",
                  what, (int)n, text, want);
}

static void check_said(const char *stanza, const char *want)
{
    teardown();
    setup();
    ck_assert_msg(bosh_bounce_add(bounce, stanza, strlen(stanza), false) == APR_SUCCESS, "%s",
                  stanza);
    check_output(stanza, want);
}

START_TEST(test_B_290_presence)
{
    check_said("<presence " NS " from='a@b/c'/>", "");
    check_said("<presence " NS " from='a@b' type='subscribe'/>", "");
    check_said("<presence " NS " from='a@b/c' type='error'/>", "");
}
END_TEST

START_TEST(test_B_291_iq)
{
    check_said("<iq " NS
               " type='get' id='1' from='a@b/c' to='me@b/r'><ping xmlns='urn:xmpp:ping'/></iq>",
               IQ(" to='a@b/c' id='1'"));
    check_said("<iq " NS " type='set' id='p' to='me@b/r'><query xmlns='jabber:iq:roster'/></iq>",
               IQ(" id='p'"));
    check_said("<iq " NS " type='result' id='1' from='a@b/c'/>", "");
    check_said("<iq " NS " type='error' id='1' from='a@b/c'><error/></iq>", "");
    check_said("<iq " NS " id='1' from='a@b/c'/>", "");
}
END_TEST

START_TEST(test_B_292_messages)
{
    const char *body = "<body>hi</body></message>";
    char text[400];
    static const struct {
        const char *attrs, *want;
    } cases[] = {
        {"type='chat' id='m1' from='a@b/c' to='me@b/r'", MESSAGE(" to='a@b/c' id='m1'")},
        {"from='a@b/c'", MESSAGE(" to='a@b/c'")},
        {"type='normal' from='a@b/c'", MESSAGE(" to='a@b/c'")},
        {"type='unheard-of' from='a@b/c'", MESSAGE(" to='a@b/c'")}, /* RFC 6121 5.2.2: normal */
        {"type='error' id='m1' from='a@b/c'", ""},
        {"type='groupchat' from='room@b/nick'", ""},
        {"type='headline' from='a@b/c'", ""},
        {"type='chat' id='m1'", ""}, /* of the server itself */
        {"from='me@b' to='me@b/r'", ""},
        {"from='me@b/r' to='me@b/r'", ""},
        {"from='me@b/other' to='me@b/r'", MESSAGE(" to='me@b/other'")},
        {"from='me@b' to='me@bb/r'", MESSAGE(" to='me@b'")},
        {"from='&lt;&apos;&quot;&amp;' id='&#10;x'",
         MESSAGE(" to='&lt;&apos;&quot;&amp;' id='&#10;x'")},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        snprintf(text, sizeof(text), "<message " NS " %s>%s", cases[i].attrs, body);
        check_said(text, cases[i].want);
    }
}
END_TEST

START_TEST(test_copies)
{
    check_said("<message " NS
               " from='x@b' to='me@b/r'><received xmlns='urn:xmpp:carbons:2'/></message>",
               "");
    check_said(
        "<message " NS " from='room@b' to='me@b/r'><result xmlns='urn:xmpp:mam:2'/></message>", "");
    /* Only as a child of the message. */
    check_said("<message " NS
               " from='a@b' to='me@b/r'><x><result xmlns='urn:xmpp:mam:2'/></x></message>",
               MESSAGE(" to='a@b'"));
}
END_TEST

START_TEST(test_other_elements)
{
    check_said("<r xmlns='urn:xmpp:sm:3'/>", "");
    check_said("<message xmlns='urn:other' from='a@b'/>", "");
    check_said("<x:message xmlns:x='jabber:client' from='a@b'/>", MESSAGE(" to='a@b'"));
}
END_TEST

START_TEST(test_a_whole_answer)
{
    const char *text = "<body xmlns='http://jabber.org/protocol/httpbind' xml:lang='en'>"
                       "<message " NS " from='a@b'><message from='no@b'/></message>"
                       "<presence " NS " from='c@b'/>"
                       "<iq " NS " type='get' id='1' from='d@b'/></body>";

    ck_assert_int_eq(bosh_bounce_add(bounce, text, strlen(text), true), APR_SUCCESS);
    check_output("body", MESSAGE(" to='a@b'") IQ(" to='d@b' id='1'"));
}
END_TEST

START_TEST(test_what_cannot_be_read)
{
    const char *good = "<message " NS " from='a@b'/>",
               *bad = "<message " NS " from='x@b'><!-- --></message>";
    const char *cut = "<message " NS " from='x@b'>",
               *two = "<message " NS " from='x@b'/></body><body>";

    ck_assert_int_eq(bosh_bounce_add(bounce, good, strlen(good), false), APR_SUCCESS);
    ck_assert_int_ne(bosh_bounce_add(bounce, bad, strlen(bad), false), APR_SUCCESS);
    ck_assert_int_ne(bosh_bounce_add(bounce, cut, strlen(cut), false), APR_SUCCESS);
    ck_assert_int_ne(bosh_bounce_add(bounce, two, strlen(two), false), APR_SUCCESS);
    check_output("good", MESSAGE(" to='a@b'"));
    ck_assert_int_eq(bosh_bounce_add(bounce, good, strlen(good), false), APR_SUCCESS);
    check_output("again", MESSAGE(" to='a@b'") MESSAGE(" to='a@b'"));
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_B_290_presence, test_B_291_iq,       test_B_292_messages,      test_copies,
        test_other_elements, test_a_whole_answer, test_what_cannot_be_read,
    };
    Suite *suite = suite_create("bounce");
    TCase *tc = tcase_create("bounce");
    SRunner *sr;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
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
