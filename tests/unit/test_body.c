/* SPDX-License-Identifier: Apache-2.0 */
/* Requests: what is accepted, what is refused, what reaches the server. */
#include <check.h>
#include <stdint.h>

#include "bosh_body.h"
#include "xml_canon.h"

#define HB      "xmlns='http://jabber.org/protocol/httpbind'"
#define STREAMS "http://etherx.jabber.org/streams"
#define XBOSH   "xmlns:xmpp='urn:xmpp:xbosh'"

static bosh_body_t *body;
static bosh_req_t req;
static const char *why;
static char *doc; /* exactly as long as the text: a step beyond it is seen by sanitizers */

static void env_open(void)
{
    body = bosh_body_create();
    ck_assert_ptr_nonnull(body);
    doc = NULL;
}

static void env_close(void)
{
    bosh_body_destroy(body);
    free(doc);
}

static apr_status_t parse_n(const char *text, size_t n)
{
    free(doc);
    doc = malloc(n > 0 ? n : 1);
    ck_assert_ptr_nonnull(doc);
    memcpy(doc, text, n);
    why = NULL;
    return bosh_body_parse(body, doc, n, &req, &why);
}

static apr_status_t parse(const char *text)
{
    return parse_n(text, strlen(text));
}

/* <body rid='7' HB attrs>children</body> */
static apr_status_t post(const char *attrs, const char *children)
{
    text_t t = {0};
    apr_status_t rv;

    text_puts(&t, "<body rid='7' " HB " ");
    text_puts(&t, attrs);
    text_puts(&t, ">");
    text_puts(&t, children);
    text_puts(&t, "</body>");
    rv = parse_n(t.p, t.n);
    free(t.p);
    return rv;
}

#define REFUSED(rv)  ck_assert_msg((rv) == APR_EGENERAL && why != NULL, "not refused: %s", #rv)
#define ACCEPTED(rv) ck_assert_msg((rv) == APR_SUCCESS && why == NULL, "refused: %s: %s", #rv, why)

/* All payload, as it goes to the server; stanzas end with a line feed. */
static const char *payload(void)
{
    static text_t t;
    size_t bytes = 0, stanzas = 0;

    t.n = 0;
    text_puts(&t, "");
    for (size_t i = 0; i < req.npieces; i++) {
        ck_assert_uint_gt(req.pieces[i].n, 0);
        text_add(&t, req.pieces[i].p, req.pieces[i].n);
        bytes += req.pieces[i].n;
        if (req.pieces[i].last) {
            text_puts(&t, "\n");
            stanzas++;
        }
    }
    ck_assert_uint_eq(stanzas, req.nstanzas);
    ck_assert_uint_eq(bytes, req.payload_bytes);
    ck_assert_int_eq((req.has & BOSH_HAS_PAYLOAD) != 0, stanzas > 0);
    ck_assert(req.npieces == 0 || req.pieces[req.npieces - 1].last);
    return t.p;
}

/* ---- the wrapper ---- */

/* rows: B-030 B-031 */
START_TEST(test_B_030_root)
{
    ACCEPTED(parse("<body rid='7' " HB "/>"));
    ck_assert_uint_eq(req.rid, 7);
    ck_assert_uint_eq(req.has, BOSH_HAS_RID);
    ck_assert_uint_eq(req.npieces, 0);
    ACCEPTED(parse("<b:body xmlns:b='http://jabber.org/protocol/httpbind' rid='8'></b:body >\n"));
    ck_assert_uint_eq(req.rid, 8);
    REFUSED(parse("<foo/>"));
    REFUSED(parse("<foo " HB " rid='7'/>"));
    REFUSED(parse("<body rid='7'/>"));
    REFUSED(parse("<body rid='7' xmlns='jabber:client'/>"));
    REFUSED(parse("<b:body xmlns:b='jabber:client' " HB " rid='7'/>"));
    REFUSED(parse("<body rid='7' " HB "/><body rid='8' " HB "/>"));
    REFUSED(parse(""));
    REFUSED(parse("rid=7"));
}
END_TEST

/* rows: B-032 B-039 B-040 B-041 */
START_TEST(test_B_032_malformed)
{
    static const char *const children[] = {
        "<m",    "<m></n>",       "<p:m/>",    "<m a='1' a='2'/>", "<m>&</m>",
        "hello", "<![CDATA[x]]>", "<m/>x<m/>", "<m/>&#65;",        "<m>\xED\xA0\x80</m>"};

    for (size_t i = 0; i < sizeof(children) / sizeof(children[0]); i++) {
        REFUSED(post("sid='s'", children[i]));
        ck_assert_str_eq(req.sid, "s");
    }
    REFUSED(parse("<body rid='7' " HB ">"));
    REFUSED(parse("<body rid='7' " HB "/>x"));
    REFUSED(parse("<?xml version='1.1'?><body rid='7' " HB "/>"));
    ACCEPTED(parse("\xEF\xBB\xBF<?xml version='1.0' encoding='UTF-8'?>\n<body rid='7' " HB "/>"));
    ACCEPTED(post("", "\n <m/>\r\n\t<n/> "));
    ck_assert_str_eq(payload(), "<m/>\n<n/>\n");
}
END_TEST

/* rows: B-033 B-034 B-035 B-036 */
START_TEST(test_B_033_restricted)
{
    static const char *const parts[] = {"<!--x-->", "<?foo bar?>"};

    for (size_t i = 0; i < 2; i++) {
        text_t t[4] = {{0}};

        text_printf(&t[0], "%s<body rid='7' " HB "/>", parts[i]);
        text_printf(&t[1], "<body rid='7' " HB ">%s</body>", parts[i]);
        text_printf(&t[2], "<body rid='7' " HB "><m><n>%s</n></m></body>", parts[i]);
        text_printf(&t[3], "<body rid='7' " HB "/>%s", parts[i]);
        for (size_t k = 0; k < 4; k++) {
            REFUSED(parse(t[k].p));
            free(t[k].p);
        }
    }
    REFUSED(parse("<!DOCTYPE body [<!ENTITY a 'b'>]><body rid='7' " HB "/>"));
    REFUSED(parse("<!DOCTYPE body SYSTEM 'x'><body rid='7' " HB "/>"));
    REFUSED(post("", "<m>&nbsp;</m>"));
    ACCEPTED(post("", "<m>&lt;&gt;&amp;&quot;&apos;</m>"));
    ck_assert_str_eq(payload(), "<m>&lt;&gt;&amp;&quot;&apos;</m>\n");
}
END_TEST

/* rows: B-054 */
START_TEST(test_B_054_limits)
{
    text_t t = {0};

    for (int i = 0; i < 10000; i++) {
        text_puts(&t, "<a>");
    }
    REFUSED(post("", t.p));
    t.n = 0;
    text_puts(&t, "<a");
    for (int i = 0; i < 10000; i++) {
        text_printf(&t, " a%d=''", i);
    }
    text_puts(&t, "/>");
    REFUSED(post("", t.p));
    free(t.p);
}
END_TEST

/* ---- attributes ---- */

/* rows: B-044 B-045 */
START_TEST(test_B_045_rid)
{
    static const char *const bad[] = {"0",
                                      "-1",
                                      "+1",
                                      "1.5",
                                      "1e3",
                                      "abc",
                                      "",
                                      " 1",
                                      "1 ",
                                      "0x1",
                                      "9007199254740992",
                                      "99999999999999999999",
                                      "00",
                                      "18446744073709551617"};
    char buf[128];

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(buf, sizeof(buf), "<body " HB " sid='x' rid='%s'/>", bad[i]);
        REFUSED(parse(buf));
        ck_assert_str_eq(req.sid, "x"); /* whatever the order of the attributes */
        snprintf(buf, sizeof(buf), "<body rid='%s' ver='1.6' " HB " sid='x'/>", bad[i]);
        REFUSED(parse(buf));
        ck_assert(req.has & BOSH_HAS_SID);
        ck_assert(req.has & BOSH_HAS_VER);
        ck_assert_uint_eq(req.ver_minor, 6);
    }
    REFUSED(parse("<body " HB " sid='x'/>"));
    ck_assert(req.has & BOSH_HAS_SID);
    REFUSED(parse("<body " HB " xmlns:p='u' p:rid='7'/>"));
    ACCEPTED(parse("<body " HB " rid='9007199254740991'/>"));
    ck_assert_uint_eq(req.rid, BOSH_RID_MAX);
    ACCEPTED(parse("<body " HB " rid='000000000000000000000000000042'/>"));
    ck_assert_uint_eq(req.rid, 42);
}
END_TEST

/* rows: B-048 B-068 */
START_TEST(test_B_048_numbers)
{
    static const char *const names[] = {"wait", "hold", "pause", "ack"};
    static const char *const bad[] = {"abc", "-1", "", " 1", "1.0", "0x1", "\xD9\xA1"};
    char buf[64];

    for (size_t i = 0; i < 4; i++) {
        for (size_t k = 0; k < sizeof(bad) / sizeof(bad[0]); k++) {
            snprintf(buf, sizeof(buf), "%s='%s'", names[i], bad[k]);
            REFUSED(post(buf, ""));
        }
    }
    ACCEPTED(post("wait='60' hold='1' pause='120' ack='1573741824'", ""));
    ck_assert_uint_eq(req.has,
                      BOSH_HAS_RID | BOSH_HAS_WAIT | BOSH_HAS_HOLD | BOSH_HAS_PAUSE | BOSH_HAS_ACK);
    ck_assert_uint_eq(req.wait, 60);
    ck_assert_uint_eq(req.hold, 1);
    ck_assert_uint_eq(req.pause, 120);
    ck_assert_uint_eq(req.ack, 1573741824);
    ACCEPTED(post("wait='0' hold='0' pause='0' ack='0'", ""));
    ck_assert_uint_eq(req.wait + req.hold + req.pause + req.ack, 0);
    ACCEPTED(post("wait='100000' hold='256' pause='99999999999' ack='99999999999999999999'", ""));
    ck_assert_uint_eq(req.wait, 65535);
    ck_assert_uint_eq(req.hold, 255);
    ck_assert_uint_eq(req.pause, UINT32_MAX);
    ck_assert_uint_gt(req.ack, BOSH_RID_MAX);
}
END_TEST

/* rows: B-070 B-071 */
START_TEST(test_B_071_version)
{
    static const char *const bad[] = {
        "1",     "x.y",  "1.",   ".1", ".", "", "99999999999.1", "1.99999999999",
        "1.1.1", "-1.1", "1. 1", "1,6"};
    char buf[64];

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(buf, sizeof(buf), "ver='%s'", bad[i]);
        REFUSED(post(buf, ""));
        ck_assert(req.has & BOSH_HAS_VER);
    }
    ACCEPTED(post("ver='1.10'", ""));
    ck_assert_uint_eq(req.ver_major, 1);
    ck_assert_uint_eq(req.ver_minor, 10);
    REFUSED(post("ver='1000000.1'", "")); /* seven digits */
    ACCEPTED(post("ver='999999.000001'", ""));
}
END_TEST

/* rows: B-046 B-061 B-095 X-020 */
START_TEST(test_B_046_strings)
{
    ACCEPTED(
        post("sid='' to='example.com' from='a@b' route='xmpp:h:1' xml:lang='de' content='text/xml'"
             " key='k&amp;1' newkey='n' stream='s1' foo='1' " XBOSH
             " xmpp:version='1.0' xmlns:y='u' y:sid='no' y:to='no' secure='true' type='set'",
             ""));
    ck_assert(req.has & BOSH_HAS_SID);
    ck_assert_str_eq(req.sid, "");
    ck_assert_str_eq(req.to, "example.com");
    ck_assert_str_eq(req.from, "a@b");
    ck_assert_str_eq(req.route, "xmpp:h:1");
    ck_assert_str_eq(req.lang, "de");
    ck_assert_str_eq(req.content, "text/xml");
    ck_assert_str_eq(req.key, "k&1");
    ck_assert_str_eq(req.newkey, "n");
    ck_assert_str_eq(req.stream, "s1");
    ck_assert_str_eq(req.xmpp_version, "1.0");
    ck_assert(!req.terminate && !req.restart); /* rows: B-259 */
    ACCEPTED(post("lang='x' version='1.0' xmlns:z='urn:xmpp:xbosh' z:version='2.0'", ""));
    ck_assert_ptr_null(req.lang);
    ck_assert_str_eq(req.xmpp_version, "2.0"); /* by namespace, not by prefix */
    ACCEPTED(post("", ""));
    ck_assert_ptr_null(req.sid);
    ck_assert_ptr_null(req.to);
    ck_assert_ptr_null(req.xmpp_version);
    ck_assert_uint_eq(req.has, BOSH_HAS_RID);
}
END_TEST

/* rows: B-079 */
START_TEST(test_B_079_control_characters_arrive)
{
    ACCEPTED(post("content='text/xml&#13;&#10;X-Evil: 1' to='\xC3\xA9&#9;'", ""));
    ck_assert_str_eq(req.content, "text/xml\r\nX-Evil: 1");
    ck_assert_str_eq(req.to, "\xC3\xA9\t");
}
END_TEST

/* rows: X-041 X-047 B-250 */
START_TEST(test_X_041_restart_and_terminate)
{
    ACCEPTED(post("xmlns:z='urn:xmpp:xbosh' z:restart='1'", ""));
    ck_assert(req.restart);
    ACCEPTED(post(XBOSH " xmpp:restart='true' type='terminate'", ""));
    ck_assert(req.restart && req.terminate);
    ACCEPTED(post("type='terminal'", "")); /* gloox 1.0 */
    ck_assert(req.terminate);
    ACCEPTED(post("type='terminate '", ""));
    ck_assert(!req.terminate);
    ACCEPTED(post(XBOSH " xmpp:restart='false'", ""));
    ck_assert(!req.restart);
    ACCEPTED(post("restart='true' xmlns:xmpp='urn:other' xmpp:restart='true' xmpp:type='terminate'",
                  ""));
    ck_assert(!req.restart && !req.terminate);
}
END_TEST

/* ---- payload ---- */

/* rows: B-042 B-043 B-038 X-005 X-006 X-007 X-012 */
START_TEST(test_B_042_verbatim)
{
    static const char *const stanzas[] = {
        "<message><body>hi</body></message>",
        "<message xmlns='jabber:client'><x " HB "/></message>",
        "<json:json xmlns:json='http://json.org/'>{}</json:json>",
        "<message\n to = 'x' \t>a<![CDATA[<b>]]>]]&gt;'\"&#10;&#x1F600;</message >",
        "<m a='>' b=\"/>\" c='&#10;&#9;'/>",
        "<m  />",
        "<\xC3\xA9/>",
        "<body " HB "/>",
    };
    text_t all = {0}, want = {0};

    for (size_t i = 0; i < sizeof(stanzas) / sizeof(stanzas[0]); i++) {
        ACCEPTED(post("sid='s'", stanzas[i]));
        ck_assert_uint_eq(req.npieces, 1);
        text_puts(&all, stanzas[i]);
        text_puts(&want, stanzas[i]);
        text_puts(&want, "\n");
    }
    ACCEPTED(post("sid='s'", all.p));
    ck_assert_str_eq(payload(), want.p);
    free(all.p);
    free(want.p);
}
END_TEST

/* rows: X-008 */
START_TEST(test_X_008_prefixes_of_the_wrapper)
{
    static const struct {
        const char *child, *out;
    } rows[] = {
        {"<m/>", "<m/>"},
        {"<m xmlns='jabber:client'><f:x f:a='1'/></m>",
         "<m xmlns:f='urn:f' xmlns='jabber:client'><f:x f:a='1'/></m>"},
        {"<m g:a='1'><f:x/></m>", "<m xmlns:g='urn:&apos;g' xmlns:f='urn:f' g:a='1'><f:x/></m>"},
        {"<f:m\n/>", "<f:m xmlns:f='urn:f'\n/>"},
        {"<f:m></f:m>", "<f:m xmlns:f='urn:f'></f:m>"},
        {"<f:m xmlns:f='urn:f'/>", "<f:m xmlns:f='urn:f'/>"},
        {"<m><f:x xmlns:f='urn:f2'/></m>", "<m xmlns:f='urn:f'><f:x xmlns:f='urn:f2'/></m>"},
        {"<m t='f:string'/>", "<m xmlns:f='urn:f' t='f:string'/>"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        text_t want = {0};

        text_printf(&want, "%s\n%s\n", rows[i].out, rows[i].out);
        {
            text_t twice = {0};

            text_printf(&twice, "%s %s", rows[i].child, rows[i].child);
            ACCEPTED(post("xmlns:f='urn:f' xmlns:g=\"urn:'g\" " XBOSH, twice.p));
            free(twice.p);
        }
        ck_assert_str_eq(payload(), want.p);
        free(want.p);
    }
}
END_TEST

/* rows: X-009 B-031 */
START_TEST(test_X_009_default_of_a_prefixed_wrapper)
{
#define PREFIXED(dflt, child)                                                                      \
    parse("<b:body rid='7' xmlns:b='http://jabber.org/protocol/httpbind' " dflt ">" child          \
          "</b:body>")
    ACCEPTED(PREFIXED("xmlns='jabber:client'", "<m/>"));
    ck_assert_str_eq(payload(), "<m/>\n");
    ACCEPTED(PREFIXED("", "<m/>"));
    ck_assert_str_eq(payload(), "<m/>\n");
    ACCEPTED(PREFIXED("xmlns=''", "<m/>"));
    ck_assert_str_eq(payload(), "<m/>\n");
    ACCEPTED(PREFIXED("xmlns='urn:d'", "<m><n/></m><m xmlns='jabber:client'/><b:x><n/></b:x>"));
    ck_assert_str_eq(
        payload(), "<m xmlns='urn:d'><n/></m>\n<m xmlns='jabber:client'/>\n"
                   "<b:x xmlns='urn:d' xmlns:b='http://jabber.org/protocol/httpbind'><n/></b:x>\n");
    ACCEPTED(PREFIXED("xmlns='urn:d' xmlns:f='urn:f' sid='s' xml:lang='de'", "<m f:a=''/>"));
    ck_assert_str_eq(payload(), "<m xmlns='urn:d' xmlns:f='urn:f' xml:lang='de' f:a=''/>\n");
#undef PREFIXED
}
END_TEST

/* rows: X-011 */
START_TEST(test_X_011_lang)
{
    ACCEPTED(post("sid='s' xml:lang='de'", "<m/><m xml:lang='fr'/><m lang='x'><n/></m>"));
    ck_assert_str_eq(payload(), "<m xml:lang='de'/>\n<m xml:lang='fr'/>\n"
                                "<m xml:lang='de' lang='x'><n/></m>\n");
    ACCEPTED(post("xml:lang='de'", "<m/>")); /* creation: it is the stream's own */
    ck_assert_str_eq(payload(), "<m/>\n");
    ACCEPTED(post("sid='s' xml:lang='&lt;&apos;&#10;'", "<m/>"));
    ck_assert_str_eq(payload(), "<m xml:lang='&lt;&apos;&#10;'/>\n");
}
END_TEST

/* rows: X-013 X-014 X-015 */
START_TEST(test_X_013_never_forwarded)
{
    REFUSED(post("", "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"));
    REFUSED(post("", "<t:starttls xmlns:t='urn:ietf:params:xml:ns:xmpp-tls'/>"));
    REFUSED(post(
        "",
        "<compress xmlns='http://jabber.org/protocol/compress'><method>zlib</method></compress>"));
    REFUSED(post("", "<stream:stream xmlns:stream='" STREAMS "' to='x'/>"));
    REFUSED(post("xmlns:s='" STREAMS "'", "<m/><s:error/>"));
    REFUSED(post("", "<features xmlns='" STREAMS "'/>"));
    ACCEPTED(post("", "<m><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></m>"));
    ACCEPTED(post("xmlns:stream='" STREAMS "'", "<m><stream:error/></m>"));
    ck_assert_str_eq(payload(), "<m xmlns:stream='" STREAMS "'><stream:error/></m>\n");
}
END_TEST

/* Any request again in the same object, after any other; strings of the last are gone, not mixed up. */
START_TEST(test_B_054_what_one_request_may_hold)
{
    text_t many = {0}, bomb = {0}, decls = {0};

    for (int i = 0; i < BOSH_MAX_STANZAS; i++) {
        text_puts(&many, "<a/>");
    }
    ck_assert_int_eq(post("", many.p), APR_SUCCESS);
    ck_assert_uint_eq(req.nstanzas, BOSH_MAX_STANZAS);
    text_puts(&many, "<a/>");
    ck_assert_int_eq(post("", many.p), APR_EGENERAL);
    /* Each child uses every prefix of the wrapper, so each gets all its declarations. */
    text_puts(&bomb, "<a x='");
    for (int i = 0; i < 200; i++) {
        char buf[100];
        snprintf(buf, sizeof(buf), "xmlns:p%d='urn:a-name-that-is-rather-long-%d' ", i, i);
        text_puts(&decls, buf);
        snprintf(buf, sizeof(buf), "p%d: ", i);
        text_puts(&bomb, buf);
    }
    text_puts(&bomb, "'/>");
    ck_assert_int_eq(post(decls.p, bomb.p), APR_SUCCESS); /* 200 prefixes used once are no harm */
    many.n = 0;
    for (int i = 0; i < 100; i++) {
        text_puts(&many, bomb.p);
    }
    ck_assert_int_eq(post(decls.p, many.p), APR_EGENERAL);
    free(many.p);
    free(bomb.p);
    free(decls.p);
}
END_TEST

START_TEST(test_reuse)
{
    text_t big = {0};

    for (int i = 0; i < 4000; i++) {
        text_printf(&big, "<f:n%d/>", i);
    }
    for (int i = 0; i < 3; i++) {
        ACCEPTED(post("sid='0123456789' xmlns:f='urn:f'", big.p));
        ck_assert_uint_eq(req.nstanzas, 4000);
        ck_assert_uint_eq(req.npieces, 12000);
        payload();
        REFUSED(post("sid='abc' xmlns:f='urn:f'", "<f:x>"));
        ck_assert_str_eq(req.sid, "abc");
        ACCEPTED(post("to='x'", "<m/>"));
        ck_assert_ptr_null(req.sid);
        ck_assert_str_eq(payload(), "<m/>\n");
    }
    free(big.p);
    bosh_body_destroy(NULL);
}
END_TEST

/* What the server sees is what the client meant, for documents nobody would think of. */
/* rows: X-005 X-006 X-007 X-008 X-012 */
START_TEST(test_random_payloads)
{
    static const char *const defaults[] = {HB, HB, "xmlns='urn:d'", "xmlns='jabber:client'", ""};
    gen_t g = {gen_seed(), NULL, 0};

    printf("body: random payloads, BOSH_TEST_SEED=%llu\n", (unsigned long long)g.state);
    for (int i = 0; i < 1500; i++) {
        unsigned d = gen_below(&g, 5);
        text_t children = {0}, decls = {0}, t = {0}, meant = {0}, seen = {0};
        unsigned bound;

        g.out = &decls;
        text_puts(&decls, "");
        bound = gen_decls(&g, 0, 2);
        g.out = &children;
        g.budget = 20;
        text_puts(&children, "");
        gen_elements(&g, bound);
        text_puts(&t, d < 2 ? "<body " : "<b:body xmlns:b='http://jabber.org/protocol/httpbind' ");
        text_puts(&t, defaults[d]);
        text_puts(&t, " rid='1' ");
        text_puts(&t, decls.p);
        text_puts(&t, ">");
        text_puts(&t, children.p);
        text_puts(&t, d < 2 ? "</body>" : "</b:body>");
        ck_assert_msg(parse_n(t.p, t.n) == APR_SUCCESS, "document %d: %s: %s", i, t.p, why);

        /* a default that is httpbind, or none, means jabber:client. */
        t.n = 0;
        text_puts(&t, d == 2 ? "<w xmlns='urn:d' " : "<w xmlns='jabber:client' ");
        text_puts(&t, decls.p);
        text_puts(&t, ">");
        text_puts(&t, children.p);
        text_puts(&t, "</w>");
        ck_assert_msg(canon_children(&meant, t.p, t.n), "%s%s", t.p, meant.p);

        t.n = 0;
        text_puts(&t, "<stream:stream xmlns='jabber:client' xmlns:stream='" STREAMS "'>");
        text_puts(&t, payload());
        text_puts(&t, "</stream:stream>");
        ck_assert_msg(canon_children(&seen, t.p, t.n), "document %d: %s\n%s", i, t.p, seen.p);
        ck_assert_msg(strcmp(meant.p, seen.p) == 0, "document %d: meant\n%sseen\n%s%s", i, meant.p,
                      seen.p, t.p);
        free(children.p);
        free(decls.p);
        free(t.p);
        free(meant.p);
        free(seen.p);
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_B_030_root,
        test_B_032_malformed,
        test_B_033_restricted,
        test_B_054_limits,
        test_B_045_rid,
        test_B_048_numbers,
        test_B_071_version,
        test_B_046_strings,
        test_B_079_control_characters_arrive,
        test_X_041_restart_and_terminate,
        test_B_042_verbatim,
        test_X_008_prefixes_of_the_wrapper,
        test_X_009_default_of_a_prefixed_wrapper,
        test_X_011_lang,
        test_X_013_never_forwarded,
        test_B_054_what_one_request_may_hold,
        test_reuse,
        test_random_payloads,
    };
    Suite *suite = suite_create("body");
    TCase *tc = tcase_create("body");
    SRunner *sr;
    int failed;

    tcase_add_checked_fixture(tc, env_open, env_close);
    tcase_set_timeout(tc, 60); /* valgrind is slow */
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
