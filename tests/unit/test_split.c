/* SPDX-License-Identifier: Apache-2.0 */
/* The splitter: what kind of thing each element is, exact ranges, edits that keep the meaning, and the same
 * events however the bytes come in. */
#include <check.h>
#include <stdint.h>

#include "bosh_news.h"
#include "split_env.h"

#define HEADER                                                                                     \
    "<stream:stream xmlns='jabber:client' xmlns:stream='" STREAMS "' id='i1' version='1.0'>"

/* ---- the header ---- */

/* rows: X-046 X-032 X-038 */
START_TEST(test_header)
{
    const bosh_split_header_t *h;

    FEEDS("<?xml version='1.0' encoding='UTF-8'?><stream:stream xmlns='jabber:client' "
          "xmlns:stream='" STREAMS "' from='example.com' id='a&lt;b' xml:lang='en' version='1.0'>",
          "header");
    h = bosh_split_header(sp);
    ck_assert_str_eq(h->id, "a<b");
    ck_assert_str_eq(h->from, "example.com");
    ck_assert_str_eq(h->version, "1.0");
    ck_assert_str_eq(h->lang, "en");
    ck_assert_ptr_null(h->prime);
    ck_assert(bosh_split_at_boundary(sp));
    FEEDS(" \r\n\t" HEADER, "header"); /* a stray newline of the old stream */
    ck_assert_uint_eq(bosh_split_boundary(sp), strlen(HEADER) + 4);
    ck_assert_ptr_null(bosh_split_header(sp)->from);
    ck_assert_ptr_null(bosh_split_header(sp)->lang);
    FEEDS("\n\xEF\xBB\xBF<?xml version='1.0'?>\n" HEADER, "header");
    FEEDS("<stream:stream xmlns:stream='" STREAMS "' xmlns='jabber:client'>", "header");
    ck_assert_ptr_null(bosh_split_header(sp)->version);
    ck_assert_ptr_null(bosh_split_header(sp)->id);
    FEEDS("<stream:stream xmlns='jabber:client' xmlns:stream='" STREAMS "'/>", "header end");
}
END_TEST

START_TEST(test_wrong_header)
{
    FAILS("<stream xmlns='jabber:client'>", "", APR_EGENERAL);
    FAILS("<stream:stream xmlns:stream='urn:x'>", "", APR_EGENERAL);
    FAILS("<stream:features xmlns:stream='" STREAMS "'>", "", APR_EGENERAL);
    FAILS("<s:stream xmlns:s='" STREAMS "' xmlns:stream='urn:x'>", "", APR_EGENERAL);
    {
        text_t t = {0};

        text_puts(&t, "<stream:stream xmlns='jabber:client' xmlns:stream='" STREAMS "' id='");
        for (int i = 0; i < 4096; i++) {
            text_puts(&t, "x");
        }
        text_puts(&t, "'><m/>");
        FAILS(t.p, "", APR_ENOSPC);
        free(t.p);
    }
    FAILS("HTTP/1.1 400 Bad Request\r\n", "", APR_EGENERAL);
    FAILS("<?xml version='1.1'?>" HEADER, "", APR_EGENERAL);
    FAILS("<?xml version='1.0'?> <?xml version='1.0'?>" HEADER, "", APR_EGENERAL);
    FAILS("\xFF\xFE<", "", APR_EGENERAL);
    FAILS(" \xFE\xFF", "", APR_EGENERAL);
}
END_TEST

/* The prime of a header makes a parser that reads on as the first one would. */
START_TEST(test_prime)
{
    static const struct {
        const char *header, *prime;
    } rows[] = {
        {"<stream:stream xmlns='jabber:client' xmlns:stream='" STREAMS "' id='x'>", NULL},
        {"<stream:stream xmlns:stream='" STREAMS
         "' xmlns:xml='http://www.w3.org/XML/1998/namespace' xmlns='jabber:client'>",
         NULL},
        {"<s:stream xmlns='jabber:client' xmlns:s='" STREAMS "' id='x'>",
         "<s:stream xmlns='jabber:client' xmlns:s='" STREAMS "'>"},
        {"<stream xmlns='" STREAMS "' xmlns:c='jabber:client'>",
         "<stream xmlns='" STREAMS "' xmlns:c='jabber:client'>"},
        {"<stream:stream xmlns='urn:d' xmlns:stream='" STREAMS "'>",
         "<stream:stream xmlns='urn:d' xmlns:stream='" STREAMS "'>"},
        {"<stream:stream xmlns:stream='" STREAMS "'>",
         "<stream:stream xmlns:stream='" STREAMS "'>"},
        {"<stream:stream xmlns='jabber:client' xmlns:stream='" STREAMS "' xmlns:f=\"urn:'f\">",
         "<stream:stream xmlns='jabber:client' xmlns:f='urn:&apos;f' xmlns:stream='" STREAMS "'>"},
        {"<s:stream xmlns='jabber:client' xmlns:s='" STREAMS "' xmlns:stream='" STREAMS "'>",
         "<s:stream xmlns='jabber:client' xmlns:s='" STREAMS "' xmlns:stream='" STREAMS "'>"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const bosh_split_header_t *h;

        FEEDS(rows[i].header, "header");
        h = bosh_split_header(sp);
        if (rows[i].prime == NULL) {
            ck_assert_ptr_null(h->prime);
        } else {
            ck_assert_uint_eq(h->prime_len, strlen(rows[i].prime));
            ck_assert_msg(memcmp(h->prime, rows[i].prime, h->prime_len) == 0, "%.*s",
                          (int)h->prime_len, h->prime);
        }
    }
}
END_TEST

START_TEST(test_begin_in_the_middle)
{
    size_t len, n;
    const char *prime = bosh_split_default_prime(&len);
    const bosh_split_event_t *ev;

    ck_assert_int_eq(bosh_split_begin(sp, prime, len), APR_SUCCESS);
    ck_assert(bosh_split_at_boundary(sp));
    ck_assert_uint_eq(bosh_split_boundary(sp), 0);
    ck_assert_ptr_null(bosh_split_header(sp)->id);
    ck_assert_int_eq(bosh_split_feed(sp, " <m/>", 5, NULL), APR_SUCCESS);
    ev = bosh_split_events(sp, &n);
    ck_assert_uint_eq(n, 1);
    ck_assert_int_eq(ev[0].type, BOSH_SPLIT_STANZA);
    ck_assert_uint_eq(ev[0].start, 1);
    ck_assert_uint_eq(ev[0].end, 5);
    ck_assert_uint_eq(ev[0].edits[0].at, 3);
    ck_assert_int_eq(bosh_split_begin(sp, "<nonsense>", 10), APR_EGENERAL);
    ck_assert_int_eq(bosh_split_begin(sp, "<stream", 7), APR_EGENERAL);
    ck_assert_int_eq(bosh_split_feed(sp, "<m/>", 4, NULL), APR_EGENERAL);
    FEEDS(HEADER "<m/>", "header stanza");
    bosh_split_destroy(NULL);
}
END_TEST

/* ---- types ---- */

/* rows: X-002 X-013 */
START_TEST(test_types)
{
    FEEDS(
        HEADER "<stream:features/><message/>\n<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"
               "<success xmlns='urn:xmpp:sasl:2'></success><r xmlns='urn:xmpp:sm:3'/>"
               "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
               "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><t:x "
               "xmlns:t='urn:ietf:params:xml:ns:xmpp-tls'/>"
               "<stream:other/><features/><error/></stream:stream>",
        "header features stanza sasl sasl stanza tls+proceed tls stanza stanza stanza stanza end");
    FEEDS(HEADER "<stream:error><x/></stream:error></stream:stream><y>", "header error");
    FAILS(HEADER "<m/><stream:stream>", "header stanza", APR_EGENERAL);
}
END_TEST

/* rows: X-087 */
START_TEST(test_X_087_white_space)
{
    FEEDS(HEADER " ", "header");
    ck_assert(bosh_split_at_boundary(sp));
    FEEDS(HEADER "\n\n <m/> \t<m/>\n", "header stanza stanza");
    ck_assert(bosh_split_at_boundary(sp));
    FEEDS(HEADER " <m> </m> <", "header stanza");
    ck_assert(!bosh_split_at_boundary(sp));
    ck_assert_uint_eq(bosh_split_boundary(sp), strlen(HEADER " <m> </m> "));
}
END_TEST

/* rows: X-086 */
START_TEST(test_X_086_malformed_or_restricted)
{
    static const char *const bad[] = {"<a><b></a>",
                                      "text",
                                      "<!--x-->",
                                      "<?x y?>",
                                      "<a><!--x--></a>",
                                      "<a><?x?></a>",
                                      "<a>&nbsp;</a>",
                                      "<p:a/>",
                                      "<![CDATA[x]]>",
                                      "<![CDATA[ ]]>",
                                      "<!DOCTYPE x>",
                                      "<a x='1' x='1'/>",
                                      "<a>\xFF</a>",
                                      "</s:stream>",
                                      "<?xml version='1.0'?>"};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        text_t t = {0};

        text_printf(&t, "%s<m/> %s<n/>", HEADER, bad[i]);
        FAILS(t.p, "header stanza", APR_EGENERAL);
        free(t.p);
    }
}
END_TEST

/* rows: X-085 */
START_TEST(test_X_085_end)
{
    FEEDS(HEADER "</stream:stream>", "header end");
    ck_assert(bosh_split_at_boundary(sp));
    FEEDS(HEADER "<m/></stream:stream\n> \n", "header stanza end");
    FEEDS(HEADER "</stream:stream><m/>garbage & <", "header end"); /* what follows is ignored */
    ck_assert(bosh_split_at_boundary(sp));
    ck_assert_int_eq(bosh_split_feed(sp, "more", 4, NULL), APR_SUCCESS);
    ck_assert(bosh_split_at_boundary(sp));
}
END_TEST

/* ---- limits ---- */

static void element_of(text_t *t, size_t bytes)
{
    text_puts(t, "<m x='");
    while (bytes-- > 9) {
        text_puts(t, "y");
    }
    text_puts(t, "'/>");
}

START_TEST(test_max_stanza)
{
    text_t good = {0}, bad = {0}, endless = {0};

    text_puts(&good, HEADER);
    element_of(&good, MAX_STANZA);
    element_of(&good, MAX_STANZA);
    FEEDS(good.p, "header stanza stanza");
    text_puts(&bad, HEADER "<m/>");
    element_of(&bad, MAX_STANZA + 1);
    FAILS(bad.p, "header stanza", APR_ENOSPC);
    bad.n = 0;
    text_puts(&bad, HEADER "<m/><a>");
    for (int i = 0; i < MAX_STANZA; i++) {
        text_puts(&bad, "text");
    }
    FAILS(bad.p, "header stanza", APR_ENOSPC);
    text_puts(&endless, HEADER "<m/><!--"); /* nothing is reported of it, but it counts */
    for (int i = 0; i < MAX_STANZA; i++) {
        text_puts(&endless, " ");
    }
    FAILS(endless.p, "header stanza", APR_ENOSPC);
    endless.n = 0;
    text_puts(&endless, "<?xml version='1.0'");
    for (int i = 0; i < 3 * 4096; i++) {
        text_puts(&endless, " ");
    }
    FAILS(endless.p, "", APR_ENOSPC);
    endless.n = 0;
    for (int i = 0; i < 3 * 4096; i++) {
        text_puts(&endless, " ");
    }
    FEEDS(endless.p, ""); /* keepalives, nothing to keep */
    ck_assert(bosh_split_at_boundary(sp));
    free(good.p);
    free(bad.p);
    free(endless.p);
}
END_TEST

START_TEST(test_depth)
{
    text_t t = {0};

    text_puts(&t, HEADER);
    for (int i = 1; i < BOSH_XML_MAX_DEPTH; i++) {
        text_puts(&t, "<a>");
    }
    FEEDS(t.p, "header");
    text_puts(&t, "<a>");
    FAILS(t.p, "header", APR_ENOSPC);
    free(t.p);
}
END_TEST

/* An element is known with its last byte; none is kept back. */
START_TEST(test_nothing_is_deferred)
{
    text_t t = {0};
    size_t n;

    text_puts(&t, HEADER);
    element_of(&t, MAX_STANZA);
    ck_assert_int_eq(bosh_split_begin(sp, NULL, 0), APR_SUCCESS);
    for (size_t i = 0; i < t.n; i++) {
        ck_assert_int_eq(bosh_split_feed(sp, t.p + i, 1, NULL), APR_SUCCESS);
        bosh_split_events(sp, &n);
        ck_assert_uint_eq(n, i + 1 == t.n ? 2 : i + 1 >= strlen(HEADER) ? 1 : 0);
    }
    free(t.p);
}
END_TEST

/* ---- events and edits, taken off in between ---- */

/* What a half-read element needs survives the events before it being taken away. */
START_TEST(test_clear_in_the_middle_of_an_element)
{
    const char *first = HEADER "<m/><s:features xmlns:s='" STREAMS
                               "'><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><b";
    const char *second = "/></s:features><m/>";
    text_t out = {0};
    const bosh_split_event_t *ev;
    size_t n;

    ck_assert_int_eq(bosh_split_begin(sp, NULL, 0), APR_SUCCESS);
    ck_assert_int_eq(bosh_split_feed(sp, first, strlen(first), NULL), APR_SUCCESS);
    bosh_split_clear(sp);
    bosh_split_events(sp, &n);
    ck_assert_uint_eq(n, 0);
    ck_assert_int_eq(bosh_split_feed(sp, second, strlen(second), NULL), APR_SUCCESS);
    ev = bosh_split_events(sp, &n);
    ck_assert_uint_eq(n, 2);
    ck_assert(ev[0].starttls && !ev[0].starttls_required);
    text_puts(&out, first);
    text_puts(&out, second);
    ck_assert_str_eq(applied(&ev[0], out.p),
                     "<stream:features xmlns='jabber:client' xmlns:s='" STREAMS
                     "'><b/></stream:features>");
    ck_assert_str_eq(applied(&ev[1], out.p), "<m xmlns='jabber:client'/>");
    free(out.p);
}
END_TEST

/* A stream that is given up in the middle of something leaves nothing to the next one. */
START_TEST(test_begin_after_a_cut_off_stream)
{
    static const char cut_off[] =
        HEADER "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'>";
    static const char next[] = HEADER "<m><a/></m>";
    const bosh_split_event_t *ev;
    size_t n;

    begin(NULL, 0);
    ck_assert_int_eq(bosh_split_feed(sp, cut_off, strlen(cut_off), NULL), APR_SUCCESS);
    begin(NULL, 0);
    ck_assert_int_eq(bosh_split_feed(sp, next, strlen(next), NULL), APR_SUCCESS);
    ev = bosh_split_events(sp, &n);
    ck_assert_uint_eq(n, 2);
    ck_assert_int_eq(ev[1].type, BOSH_SPLIT_STANZA);
    ck_assert_uint_eq(ev[1].nedits, 1);
}
END_TEST

/* Handing over: the bytes from the boundary on, fed to a parser with the prime, give what is left. */
START_TEST(test_hand_over_at_every_byte)
{
    static const char *const headers[] = {HEADER,
                                          "<s:stream xmlns:s='" STREAMS "' xmlns:f='urn:f'>",
                                          "<stream xmlns='" STREAMS "' xmlns:c='jabber:client'>"};
    static const char *const ends[] = {"</stream:stream>", "</s:stream>", "</stream>"};

    for (size_t k = 0; k < 3; k++) {
        text_t t = {0};
        char *whole;

        text_printf(&t, "%s<f:a xmlns:f='urn:g'/> <message to='x'><body>f:x</body></message>%s",
                    headers[k], ends[k]);
        begin(NULL, 0);
        ck_assert_int_eq(bosh_split_feed(sp, t.p, t.n, NULL), APR_SUCCESS);
        whole = strdup(seen_with_text(t.p, 0));
        for (size_t cut = strlen(headers[k]); cut < t.n; cut++) {
            text_t prime = {0};
            char *before;
            uint64_t at;
            size_t len;

            begin(NULL, 0);
            ck_assert_int_eq(bosh_split_feed(sp, t.p, cut, NULL), APR_SUCCESS);
            before = strdup(seen_with_text(t.p, 0));
            at = bosh_split_boundary(sp);
            if (bosh_split_header(sp)->prime != NULL) {
                text_add(&prime, bosh_split_header(sp)->prime, bosh_split_header(sp)->prime_len);
            } else {
                text_puts(&prime, bosh_split_default_prime(&len));
            }
            begin(prime.p, prime.n);
            ck_assert_int_eq(bosh_split_feed(sp, t.p + at, t.n - at, NULL), APR_SUCCESS);
            ck_assert(strncmp(whole, before, strlen(before)) == 0);
            ck_assert_str_eq(seen_with_text(t.p + at, at), whole + strlen(before));
            free(prime.p);
            free(before);
        }
        free(whole);
        free(t.p);
    }
}
END_TEST

/* Many events at once, and again after they have been cleared. */
START_TEST(test_many)
{
    text_t t = {0};
    size_t n;

    for (int i = 0; i < 3000; i++) {
        text_printf(&t, "<m%d/>", i);
    }
    begin(NULL, 0);
    ck_assert_int_eq(bosh_split_feed(sp, HEADER, strlen(HEADER), NULL), APR_SUCCESS);
    for (int round = 0; round < 3; round++) {
        uint64_t base = bosh_split_boundary(sp);
        const bosh_split_event_t *ev;

        bosh_split_clear(sp);
        ck_assert_int_eq(bosh_split_feed(sp, t.p, t.n, NULL), APR_SUCCESS);
        ev = bosh_split_events(sp, &n);
        ck_assert_uint_eq(n, 3000);
        for (size_t i = 0; i < n; i++) {
            char want[64];

            snprintf(want, sizeof(want), "<m%zu xmlns='jabber:client'/>", i);
            ck_assert_str_eq(applied(&ev[i], t.p - base), want);
        }
    }
    free(t.p);
}
END_TEST

/* What the error names, as it is written. NULL: nothing. */
static void names(const char *conditions, const char *expected)
{
    char doc[800];
    const bosh_split_event_t *ev;
    size_t n;

    snprintf(doc, sizeof(doc), HEADER "<stream:error>%s</stream:error></stream:stream>",
             conditions);
    FEEDS(doc, "header error");
    ev = bosh_split_events(sp, &n);
    ck_assert_uint_eq(n, 2);
    if (expected == NULL) {
        ck_assert_uint_eq(ev[1].other_n, 0);
        return;
    }
    ck_assert_uint_eq(ev[1].other_n, strlen(expected));
    ck_assert_int_eq(memcmp(doc + ev[1].other_at, expected, ev[1].other_n), 0);
}

#define NS_ERRORS "xmlns='urn:ietf:params:xml:ns:xmpp-streams'"
#define OTHER     "see-other-host " NS_ERRORS

/* rows: X-084 */
START_TEST(test_see_other_host)
{
    names("<" OTHER ">a:5222</see-other-host>", "a:5222");
    names("<" OTHER "> [::1]:1\n</see-other-host><text " NS_ERRORS ">t</text>", " [::1]:1\n");
    names("<text " NS_ERRORS ">t</text><e:see-other-host "
          "xmlns:e='urn:ietf:params:xml:ns:xmpp-streams'>b</e:see-other-host>",
          "b");
    names("<" OTHER ">a<b/></see-other-host>", "a<b/>");
    names("<" OTHER ">a</see-other-host><" OTHER ">b</see-other-host>", "a");
    names("<" OTHER "/><text " NS_ERRORS ">t</text>", NULL);
    names("<" OTHER "></see-other-host><text " NS_ERRORS ">t</text>", NULL);
    names("<see-other-host xmlns='urn:x'>a</see-other-host>", NULL);
    names("<x xmlns='urn:x'><" OTHER ">a</see-other-host></x>", NULL);
    names("<host-gone " NS_ERRORS "/>", NULL);
    FEEDS(HEADER "<message><" OTHER ">a</see-other-host></message>", "header stanza");
}
END_TEST

static void condition_is(const char *xml, const char *expected)
{
    size_t n = strlen(xml);
    char *copy = malloc(n > 0 ? n : 1); /* with no byte behind it */
    bosh_slice_t name;

    memcpy(copy, xml, n);
    name = bosh_news_condition(copy, n);
    ck_assert_msg(name.n == strlen(expected) && memcmp(name.p, expected, name.n) == 0, "%s", xml);
    free(copy);
}

START_TEST(test_condition_of_an_error)
{
    condition_is("<stream:error><host-unknown xmlns='u'/></stream:error>", "host-unknown");
    condition_is("<stream:error a='>'>\n<e:conflict>\n</e:conflict></stream:error>", "conflict");
    condition_is("<error><text>a</text><x y='1'></x></error>", "x");
    condition_is("<error><text\n/><textual/></error>", "textual");
    condition_is("<error><text>only</text></error>", "");
    condition_is("<error/>", "");
    condition_is("<error>", "");
    condition_is("<error><host-unkno", "");
    condition_is("", "");
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_condition_of_an_error,
        test_see_other_host,
        test_header,
        test_wrong_header,
        test_prime,
        test_begin_in_the_middle,
        test_types,
        test_X_087_white_space,
        test_X_086_malformed_or_restricted,
        test_X_085_end,
        test_max_stanza,
        test_depth,
        test_nothing_is_deferred,
        test_clear_in_the_middle_of_an_element,
        test_begin_after_a_cut_off_stream,
        test_hand_over_at_every_byte,
        test_many,
    };

    return run_split_tests("split", tests, sizeof(tests) / sizeof(tests[0]));
}
