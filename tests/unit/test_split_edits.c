/* SPDX-License-Identifier: Apache-2.0 */
/* The splitter's edits: an element moved into a <body/> must mean what it meant in its stream. */
#include <check.h>
#include <stdint.h>

#include "split_env.h"

#define CLIENT   "xmlns='jabber:client'"
#define STREAM   "xmlns:stream='" STREAMS "'"
#define TLS      "xmlns='urn:ietf:params:xml:ns:xmpp-tls'"
#define SASL     "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'"
#define COMPRESS "xmlns='http://jabber.org/features/compress'"
#define HEADER   "<stream:stream " CLIENT " " STREAM ">"

/* Feeds the header and one element in every way; the element after the edits must be `want`. */
static const bosh_split_event_t *expect(const char *header, const char *element, const char *want)
{
    static text_t t;
    const bosh_split_event_t *ev;
    size_t n;

    t.n = 0;
    text_puts(&t, header);
    text_puts(&t, element);
    ck_assert_msg(feed_all_ways(t.p) == APR_SUCCESS, "%s", t.p);
    ev = bosh_split_events(sp, &n);
    ck_assert_uint_eq(n, 2);
    ck_assert_uint_eq(ev[1].start, strlen(header));
    ck_assert_uint_eq(ev[1].end, t.n);
    ck_assert_msg(strcmp(applied(&ev[1], t.p), want) == 0, "%s:\n%s\nwanted:\n%s", t.p,
                  applied(&ev[1], t.p), want);
    return &ev[1];
}

/* rows: X-003 X-004 X-012 */
START_TEST(test_X_003_default_namespace)
{
    static const struct {
        const char *in, *out;
    } rows[] = {
        {"<message><body>x</body></message>", "<message " CLIENT "><body>x</body></message>"},
        {"<m/>", "<m " CLIENT "/>"},
        {"<m\n to = 'x' >]]&gt;<![CDATA[<&]]>&#10;'\"</m\t>",
         "<m " CLIENT "\n to = 'x' >]]&gt;<![CDATA[<&]]>&#10;'\"</m\t>"},
        {"<m a='/>' b=\"'>\"/>", "<m " CLIENT " a='/>' b=\"'>\"/>"},
        {"<message " CLIENT "/>", "<message " CLIENT "/>"},
        {"<success " SASL "/>", "<success " SASL "/>"},
        {"<r xmlns='urn:xmpp:sm:3'/>", "<r xmlns='urn:xmpp:sm:3'/>"},
        {"<m xmlns=''><n/></m>", "<m xmlns=''><n/></m>"},
        {"<p:m xmlns:p='u'/>", "<p:m xmlns:p='u'/>"},
        {"<p:m xmlns:p='u'><n/></p:m>", "<p:m " CLIENT " xmlns:p='u'><n/></p:m>"},
        {"<\xC3\xA9/>", "<\xC3\xA9 " CLIENT "/>"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        expect(HEADER, rows[i].in, rows[i].out);
    }
    expect("<s:stream xmlns='urn:d' xmlns:s='" STREAMS "'>", "<m/>", "<m xmlns='urn:d'/>");
    expect("<s:stream xmlns:s='" STREAMS "'>", "<m/>", "<m xmlns=''/>");
    expect("<stream xmlns='" STREAMS "' xmlns:c='jabber:client'>",
           "<c:message><c:body/></c:message>",
           "<c:message xmlns:c='jabber:client'><c:body/></c:message>");
    expect("<stream xmlns='" STREAMS "' xmlns:c='jabber:client'>", "<c:m><x/></c:m>",
           "<c:m xmlns='" STREAMS "' xmlns:c='jabber:client'><x/></c:m>");
}
END_TEST

/* rows: X-010 B-050 */
START_TEST(test_X_010_prefixes_of_the_header)
{
    static const char header[] =
        "<stream:stream " CLIENT " " STREAM " xmlns:foo='urn:foo' xmlns:b='urn:&lt;'>";
    static const struct {
        const char *in, *out;
    } rows[] = {
        {"<m/>", "<m " CLIENT "/>"},
        {"<m><foo:x/></m>", "<m " CLIENT " xmlns:foo='urn:foo'><foo:x/></m>"},
        {"<m b:a='' foo:a=''/>",
         "<m " CLIENT " xmlns:b='urn:&lt;' xmlns:foo='urn:foo' b:a='' foo:a=''/>"},
        {"<foo:m/>", "<foo:m xmlns:foo='urn:foo'/>"},
        {"<foo:m xmlns:foo='urn:bar'/>", "<foo:m xmlns:foo='urn:bar'/>"},
        {"<m t='foo:string'/>", "<m " CLIENT " xmlns:foo='urn:foo' t='foo:string'/>"},
        {"<m>foo:bar</m>", "<m " CLIENT " xmlns:foo='urn:foo'>foo:bar</m>"},
        {"<m>foo :bar</m>", "<m " CLIENT ">foo :bar</m>"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        expect(header, rows[i].in, rows[i].out);
    }
}
END_TEST

/* A stanza that names the prefix `stream` carries its declaration along; text is no reason to. */
START_TEST(test_stream_prefix_in_a_stanza)
{
    expect(HEADER, "<m><stream:x/></m>", "<m " CLIENT " " STREAM "><stream:x/></m>");
    expect(HEADER, "<m stream:a=''/>", "<m " CLIENT " " STREAM " stream:a=''/>");
    expect(HEADER, "<stream:x/>", "<stream:x " STREAM "/>");
    expect(HEADER, "<stream:x " STREAM "/>", "<stream:x " STREAM "/>");
    expect(HEADER, "<m xmlns:stream='urn:x'><stream:x/></m>",
           "<m " CLIENT " xmlns:stream='urn:x'><stream:x/></m>");
    expect(HEADER, "<m a='stream:x'>stream:x</m>", "<m " CLIENT " a='stream:x'>stream:x</m>");
}
END_TEST

/* rows: X-001 X-080 */
START_TEST(test_X_001_stream_prefix)
{
    static const char s[] = "<s:stream " CLIENT " xmlns:s='" STREAMS "'>";
    static const char d[] = "<stream xmlns='" STREAMS "' xmlns:c='jabber:client'>";
    const bosh_split_event_t *ev;

    ev = expect(HEADER, "<stream:features><x xmlns='u'/></stream:features >",
                "<stream:features><x xmlns='u'/></stream:features >");
    ck_assert_int_eq(ev->type, BOSH_SPLIT_FEATURES);
    ck_assert_uint_eq(ev->nedits, 0);
    expect(s, "<s:features/>", "<stream:features/>");
    expect(s, "<s:features\n></s:features >", "<stream:features\n></stream:features >");
    expect(s, "<s:features><s:x/></s:features>",
           "<stream:features xmlns:s='" STREAMS "'><s:x/></stream:features>");
    ev = expect(s, "<s:error><a xmlns='u'/></s:error>",
                "<stream:error><a xmlns='u'/></stream:error>");
    ck_assert_int_eq(ev->type, BOSH_SPLIT_ERROR);
    expect(d, "<features><a xmlns='u'/></features>",
           "<stream:features><a xmlns='u'/></stream:features>");
    expect(d, "<features><a/></features>",
           "<stream:features xmlns='" STREAMS "'><a/></stream:features>");
    expect(d, "<error/>", "<stream:error/>");
    expect(HEADER, "<features xmlns='" STREAMS "'><a/></features>",
           "<stream:features xmlns='" STREAMS "'><a/></stream:features>");
    expect(HEADER, "<t:features xmlns:t='" STREAMS "'></t:features>",
           "<stream:features xmlns:t='" STREAMS "'></stream:features>");
    expect(HEADER, "<stream:error><text>x</text></stream:error>",
           "<stream:error " CLIENT "><text>x</text></stream:error>");
    FAILS(HEADER "<t:features xmlns:t='" STREAMS "' xmlns:stream='urn:x'/>", "header",
          APR_EGENERAL);
}
END_TEST

/* rows: X-033 X-034 X-035 X-036 */
START_TEST(test_X_033_features)
{
#define MECHANISMS                                                                                 \
    "<mechanisms " SASL                                                                            \
    "><mechanism>SCRAM-SHA-1-PLUS</mechanism><mechanism>PLAIN</mechanism></mechanisms>"
    const bosh_split_event_t *ev;

    ev = expect(HEADER, "<stream:features><starttls " TLS "/>" MECHANISMS "</stream:features>",
                "<stream:features>" MECHANISMS "</stream:features>");
    ck_assert(ev->starttls && !ev->starttls_required);
    ev = expect(HEADER,
                "<stream:features>" MECHANISMS "<starttls " TLS
                "><required/></starttls> </stream:features>",
                "<stream:features>" MECHANISMS " </stream:features>");
    ck_assert(ev->starttls && ev->starttls_required);
    ev = expect(
        HEADER,
        "<stream:features> <compression " COMPRESS "><method>zlib</method></compression >\n"
        "<t:starttls xmlns:t='urn:ietf:params:xml:ns:xmpp-tls'><t:optional/></t:starttls>"
        "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><required/></bind>"
        "<c xmlns='http://jabber.org/protocol/caps' hash='sha-1'/></stream:features>",
        "<stream:features> \n<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><required/></bind>"
        "<c xmlns='http://jabber.org/protocol/caps' hash='sha-1'/></stream:features>");
    ck_assert(ev->starttls && !ev->starttls_required);
    ev = expect(
        HEADER,
        "<stream:features>" MECHANISMS "<x xmlns='u'><starttls " TLS "/></x></stream:features>",
        "<stream:features>" MECHANISMS "<x xmlns='u'><starttls " TLS "/></x></stream:features>");
    ck_assert(!ev->starttls);
    ck_assert_uint_eq(ev->nedits, 0);
    ev = expect(HEADER,
                "<stream:features><starttls " TLS "/><compression " COMPRESS "/></stream:features>",
                "<stream:features></stream:features>");
    ck_assert(ev->starttls);
    ev = expect("<s:stream " CLIENT " xmlns:s='" STREAMS "'>",
                "<s:features a='1'><starttls " TLS "/><b/><starttls " TLS "/></s:features>",
                "<stream:features " CLIENT " a='1'><b/></stream:features>");
    ck_assert_uint_eq(ev->nedits, 5);
    expect(HEADER, "<m><starttls " TLS "/></m>",
           "<m " CLIENT "><starttls " TLS "/></m>"); /* not features */
    ev = expect(HEADER, "<proceed " TLS "/>", "<proceed " TLS "/>");
    ck_assert(ev->proceed && ev->nedits == 0);
#undef MECHANISMS
}
END_TEST

/* What Prosody, ejabberd and Openfire send is touched as little as can be. */
START_TEST(test_usual_streams)
{
    FEEDS("<?xml version='1.0'?><stream:stream version='1.0' from='localhost' id='5d3' "
          "xml:lang='en' " STREAM " " CLIENT "><stream:features><mechanisms " SASL
          "><mechanism>PLAIN</mechanism></mechanisms>"
          "<starttls " TLS "/></stream:features><success " SASL ">dj0x</success>",
          "header features+starttls sasl");
    FEEDS("<?xml version='1.0'?><stream:stream id='17' version='1.0' xml:lang='en' " STREAM
          " from='localhost' " CLIENT
          "><stream:features><c xmlns='http://jabber.org/protocol/caps' ver='x='/>"
          "</stream:features><message to='a@b/c'><body>hi</body></message></stream:stream>",
          "header features stanza end");
}
END_TEST

/* ---- documents nobody would think of ---- */

static const struct {
    const char *open, *close;
} streams[] = {
    {"<stream:stream " CLIENT " " STREAM, "</stream:stream>"},
    {"<s:stream " CLIENT " xmlns:s='" STREAMS "'", "</s:stream>"},
    {"<stream xmlns='" STREAMS "' xmlns:c='jabber:client'", "</stream>"},
    {"<stream:stream xmlns='urn:d' " STREAM, "</stream:stream>"},
    {"<stream:stream " STREAM, "</stream:stream>"},
    {"<s:stream " STREAM " " CLIENT " xmlns:s='" STREAMS "'", "</s:stream >"},
};

/* What the browser reads must be what the server meant. rows: X-003 X-004 X-010 X-012 B-050 */
START_TEST(test_random_streams)
{
    gen_t g = {gen_seed(), NULL, 0};

    printf("split: random streams, BOSH_TEST_SEED=%llu\n", (unsigned long long)g.state);
    bosh_split_destroy(sp);
    sp = bosh_split_create(100000);
    for (int i = 0; i < 600; i++) {
        unsigned k = gen_below(&g, 6);
        text_t doc = {0}, meant = {0}, seen = {0}, t = {0};
        const bosh_split_event_t *ev;
        unsigned bound;
        size_t n;

        g.out = &doc;
        g.budget = 10;
        text_puts(&doc, streams[k].open);
        bound = gen_decls(&g, 0, 2);
        text_puts(&doc, ">");
        gen_elements(&g, bound);
        text_puts(&doc, streams[k].close);
        ck_assert_msg(canon_children(&meant, doc.p, doc.n), "%s%s", doc.p, meant.p);
        /* Every split point of some, one of the others: that shortens the test a hundredfold. */
        ck_assert_msg((i < 40 ? feed_all_ways(doc.p)
                              : feed_cut(doc.p, doc.n, gen_below(&g, 500))) == APR_SUCCESS,
                      "%s", doc.p);

        ev = bosh_split_events(sp, &n);
        ck_assert_int_eq(ev[n - 1].type, BOSH_SPLIT_END);
        text_puts(&t, "<body xmlns='http://jabber.org/protocol/httpbind' " STREAM ">");
        for (size_t e = 1; e < n - 1; e++) {
            text_puts(&t, applied(&ev[e], doc.p));
        }
        text_puts(&t, "</body>");
        ck_assert_msg(canon_children(&seen, t.p, t.n), "document %d: %s\n%s\n%s", i, doc.p, t.p,
                      seen.p);
        ck_assert_msg(strcmp(meant.p, seen.p) == 0, "document %d: %s\n%s\nmeant\n%sseen\n%s", i,
                      doc.p, t.p, meant.p, seen.p);
        free(doc.p);
        free(meant.p);
        free(seen.p);
        free(t.p);
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_X_003_default_namespace,
        test_X_010_prefixes_of_the_header,
        test_stream_prefix_in_a_stanza,
        test_X_001_stream_prefix,
        test_X_033_features,
        test_usual_streams,
        test_random_streams,
    };

    return run_split_tests("split_edits", tests, sizeof(tests) / sizeof(tests[0]));
}
