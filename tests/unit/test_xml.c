/* SPDX-License-Identifier: Apache-2.0 */
/* The hardened parser: what it refuses, its limits, its names and offsets. */
#include <check.h>
#include <stdint.h>

#include "bosh_xml.h"
#include "xml_canon.h"

/* ---- a sink that writes everything down ---- */

typedef struct env_t {
    bosh_xml_t *xml;
    text_t log;
    const char *why;
    const char *fail_at; /* local name at whose start tag a callback fails ... */
    const char *stop_at; /* ... or stops */
} env_t;

static env_t E;

static void log_slice(const char *before, bosh_slice_t s)
{
    text_puts(&E.log, before);
    text_add(&E.log, s.p != NULL ? s.p : "", s.n);
}

static void on_start(void *ctx, const bosh_xml_start_t *el)
{
    ck_assert_ptr_eq(ctx, &E);
    text_printf(&E.log, "S%u[%d,%d,%d]", el->depth, (int)el->at, (int)el->name_end, (int)el->end);
    log_slice("", el->name.prefix);
    log_slice("|", el->name.ns);
    log_slice("|", el->name.local);
    for (const char **a = el->atts; *a != NULL; a += 2) {
        bosh_xml_name_t name;

        bosh_xml_name(a[0], &name);
        log_slice(" ", name.prefix);
        log_slice("|", name.ns);
        log_slice("|", name.local);
        text_puts(&E.log, "=");
        text_puts(&E.log, a[1]);
    }
    for (size_t i = 0; i < el->ndecls; i++) {
        text_printf(&E.log, " ns(%s)=%s", el->decls[i].prefix, el->decls[i].uri);
    }
    text_puts(&E.log, "\n");
    if (E.fail_at != NULL && bosh_xml_slice_is(el->name.local, E.fail_at)) {
        bosh_xml_fail(E.xml, APR_EINVAL, "asked to");
    }
    if (E.stop_at != NULL && bosh_xml_slice_is(el->name.local, E.stop_at)) {
        bosh_xml_stop(E.xml);
    }
}

static void on_end(void *ctx, const bosh_xml_end_t *el)
{
    ck_assert_ptr_eq(ctx, &E);
    text_printf(&E.log, "E%u[%d,%d]", el->depth, (int)el->at, (int)el->end);
    text_puts(&E.log, "\n");
}

static void on_space(void *ctx, int64_t end)
{
    ck_assert_ptr_eq(ctx, &E);
    (void)end;
}

static const bosh_xml_sink_t sink = {
    .start = on_start,
    .end = on_end,
    .space = on_space,
};

static void env_open(void)
{
    memset(&E, 0, sizeof(E));
    E.xml = bosh_xml_create(&sink, &E);
    ck_assert_ptr_nonnull(E.xml);
}

static void env_close(void)
{
    bosh_xml_destroy(E.xml);
    free(E.log.p);
}

/* Parses a document in pieces of `step` bytes (0: at once). The log starts anew. */
static apr_status_t parse_n(const char *doc, size_t n, size_t step)
{
    apr_status_t rv = APR_SUCCESS;

    E.log.n = 0;
    text_puts(&E.log, "");
    E.why = NULL;
    ck_assert_int_eq(bosh_xml_reset(E.xml), APR_SUCCESS);
    if (step == 0) {
        return bosh_xml_feed(E.xml, doc, n, true, &E.why);
    }
    for (size_t i = 0; i < n && rv == APR_SUCCESS; i += step) {
        rv = bosh_xml_feed(E.xml, doc + i, n - i < step ? n - i : step, false, &E.why);
    }
    return rv == APR_SUCCESS ? bosh_xml_feed(E.xml, "", 0, true, &E.why) : rv;
}

static apr_status_t parse(const char *doc)
{
    apr_status_t rv = parse_n(doc, strlen(doc), 1);
    char *bytewise = strdup(E.log.p);

    ck_assert_ptr_nonnull(bytewise);
    ck_assert_int_eq(parse_n(doc, strlen(doc), 0), rv);
    ck_assert_str_eq(E.log.p, bytewise);
    free(bytewise);
    ck_assert_msg((E.why == NULL) == (rv == APR_SUCCESS || rv == APR_EOF), "%s: no reason", doc);
    return rv;
}

#define REFUSED(doc)  ck_assert_msg(parse(doc) == APR_EGENERAL, "not refused: %s", doc)
#define ACCEPTED(doc) ck_assert_msg(parse(doc) == APR_SUCCESS, "refused: %s: %s", doc, E.why)

/* ---- offsets and names ---- */

START_TEST(test_offsets)
{
    ACCEPTED("<a><b/><c x='>'></c ></a>");
    ck_assert_str_eq(E.log.p, "S1[0,2,3]||a\n"
                              "S2[3,5,7]||b\nE2[7,7]\n"
                              "S2[7,9,16]||c ||x=>\nE2[16,21]\n"
                              "E1[21,25]\n");
}
END_TEST

START_TEST(test_offsets_behind_a_mark_and_a_declaration)
{
    ACCEPTED("\xEF\xBB\xBF<?xml version='1.0' encoding='utf-8'?>\r\n<a>\r\n<b/></a>");
    ck_assert_str_eq(E.log.p, "S1[43,45,46]||a\nS2[48,50,52]||b\nE2[52,52]\nE1[52,56]\n");
}
END_TEST

/* Two prefixes of one URI, and a default namespace with the same: the one that is written counts. */
START_TEST(test_prefix_as_written)
{
    ACCEPTED("<a xmlns='u' xmlns:p='u' xmlns:long='u'><p:b/><long:b q='' long:q=''/><b\n/></a>");
    ck_assert_str_eq(E.log.p, "S1[0,2,40]|u|a ns()=u ns(p)=u ns(long)=u\n"
                              "S2[40,44,46]p|u|b\nE2[46,46]\n"
                              "S2[46,53,70]long|u|b ||q= long|u|q=\nE2[70,70]\n"
                              "S2[70,72,75]|u|b\nE2[75,75]\n"
                              "E1[75,79]\n");
}
END_TEST

START_TEST(test_prefix_bound_again_inside)
{
    ACCEPTED("<a xmlns:p='u'><p:b xmlns:p='v'><p:c/></p:b><p:b/></a>");
    ck_assert_str_eq(E.log.p, "S1[0,2,15]||a ns(p)=u\n"
                              "S2[15,19,32]p|v|b ns(p)=v\nS3[32,36,38]p|v|c\nE3[38,38]\nE2[38,44]\n"
                              "S2[44,48,50]p|u|b\nE2[50,50]\n"
                              "E1[50,54]\n");
}
END_TEST

START_TEST(test_attr)
{
    bosh_xml_name_t name;

    bosh_xml_name("local", &name);
    ck_assert(bosh_xml_name_is(&name, "", "local"));
    ck_assert(!bosh_xml_name_is(&name, "u", "local"));
    bosh_xml_name("u\x01local\x01p", &name);
    ck_assert(bosh_xml_name_is(&name, "u", "local"));
    ck_assert(bosh_xml_slice_is(name.prefix, "p"));
    bosh_xml_name("u\x01local", &name);
    ck_assert(bosh_xml_name_is(&name, "u", "local"));
    ck_assert(bosh_xml_slice_is(name.prefix, ""));
}
END_TEST

/* ---- what is refused ---- */

/* rows: B-032 */
START_TEST(test_malformed)
{
    static const char *const docs[] = {
        "",
        " ",
        "<a",
        "<a>",
        "<a></b>",
        "<a><b></a></b>",
        "<a x=1/>",
        "<a x/>",
        "<a x='1' x='2'/>",
        "<a>&</a>",
        "<a>&amp</a>",
        "<a x='<'/>",
        "<a/><b/>",
        "<a/>x",
        "x<a/>",
        "<a>]]></a>",
        "<a><![CDATA[x]]</a>",
        "<p:a/>",
        "<a p:x='1'/>",
        "<a><b xmlns:p='u'/><p:c/></a>",
        "<a xmlns:p='u' xmlns:q='u' p:x='1' q:x='2'/>",
        "<a xmlns:p=''/>",
        "<a xmlns:xmlns='u'/>",
        "<a xmlns:xml='u'/>",
        "<a xmlns:p='http://www.w3.org/XML/1998/namespace'/>",
        "<a xmlns='http://www.w3.org/2000/xmlns/'/>",
        "<a:b:c xmlns:a='u'/>",
        "<:a/>",
        "<a:/>",
        "<a:1 xmlns:a='u'/>",
        "<1/>",
        " <?xml version='1.0'?><a/>",
    };

    for (size_t i = 0; i < sizeof(docs) / sizeof(docs[0]); i++) {
        REFUSED(docs[i]);
    }
}
END_TEST

/* rows: B-033 B-034 B-035 */
START_TEST(test_restricted)
{
    static const char *const docs[] = {
        "<!--x--><a/>",
        "<a><!--x--></a>",
        "<a><b><c><!--x--></c></b></a>",
        "<a/><!--x-->",
        "<?foo bar?><a/>",
        "<a><?foo bar?></a>",
        "<a><b><c><?foo?></c></b></a>",
        "<a/><?foo?>",
        "<!DOCTYPE a><a/>",
        "<!DOCTYPE a SYSTEM 'x'><a/>",
        "<!DOCTYPE a PUBLIC 'x' 'y'><a/>",
        "<!DOCTYPE a [<!ENTITY e 'x'>]><a>&e;</a>",
        "<!DOCTYPE a [<!ELEMENT a ANY>]><a/>",
        "<!DOCTYPE a [<!ENTITY % p SYSTEM 'x'>%p;]><a/>",
    };

    for (size_t i = 0; i < sizeof(docs) / sizeof(docs[0]); i++) {
        REFUSED(docs[i]);
        ck_assert_msg(strncmp(E.why, "restricted XML", 14) == 0, "%s: %s", docs[i], E.why);
    }
}
END_TEST

/* rows: B-036 B-037 */
START_TEST(test_references)
{
    ACCEPTED(
        "<a><b x='&lt;&gt;&amp;&quot;&apos;'>&lt;&gt;&amp;&quot;&apos;&#233;&#x1F600;&#9;</b></a>");
    ck_assert_ptr_nonnull(strstr(E.log.p, "x=<>&\"'\n"));
    REFUSED("<a><b>&nbsp;</b></a>");
    REFUSED("<a><b x='&nbsp;'/></a>");
    REFUSED("<?xml version='1.0' standalone='yes'?><a><b>&nbsp;</b></a>");
    REFUSED("<a><b>&#0;</b></a>");
    REFUSED("<a><b>&#x1F;</b></a>");
    REFUSED("<a><b>&#xD800;</b></a>");
    REFUSED("<a><b>&#xFFFE;</b></a>");
    REFUSED("<a><b>&#x110000;</b></a>");
    REFUSED("<a><b x='&#0;'/></a>");
    REFUSED("<a><b>&#99999999999999999999;</b></a>");
}
END_TEST

/* rows: B-041 B-051 */
START_TEST(test_versions_and_encodings)
{
    ACCEPTED("<?xml version='1.0'?><a/>");
    ACCEPTED("<?xml version=\"1.0\" encoding=\"UTF-8\" standalone='no'?><a/>");
    ACCEPTED("<?xml version='1.0' encoding='uTf-8' ?> <a/>");
    ACCEPTED("\xEF\xBB\xBF<a/>");
    ACCEPTED(" \r\n<a/>\n ");
    REFUSED("<?xml version='1.1'?><a/>");
    REFUSED("<?xml version='1.0' encoding='UTF-80'?><a/>");
    REFUSED("<?xml version='1.0' encoding='UTF'?><a/>");
    REFUSED("<?xml version='1.0' encoding='ISO-8859-1'?><a/>");
    REFUSED("<?xml version='1.0' encoding='UTF-16'?><a/>");
    REFUSED("<?xml encoding='UTF-8'?><a/>");
    REFUSED("<a>\xC0\xAF</a>");
    REFUSED("<a><b>\xE0\x80\xAF</b></a>");
    REFUSED("<a><b>\xED\xA0\x80</b></a>");
    REFUSED("<a><b>\xF4\x90\x80\x80</b></a>");
    REFUSED("<a><b>\xE9</b></a>");
    REFUSED("<a><b>\xEF\xBF\xBF</b></a>");
    REFUSED("<a><b x='\xC3'/></a>");
    REFUSED("<a><b>\x01</b></a>");
}
END_TEST

/* rows: B-051 */
START_TEST(test_utf16_is_not_guessed)
{
    static const struct {
        const char *bytes;
        size_t n;
    } docs[] = {{"\xFE\xFF\0<\0a\0/\0>", 10},
                {"\xFF\xFE<\0a\0/\0>\0", 10},
                {"<\0a\0/\0>\0", 8},
                {"\0<\0a\0/\0>", 8},
                {"<a>\0</a>", 8}};

    for (size_t i = 0; i < sizeof(docs) / sizeof(docs[0]); i++) {
        ck_assert_int_eq(parse_n(docs[i].bytes, docs[i].n, 0), APR_EGENERAL);
        ck_assert_int_eq(parse_n(docs[i].bytes, docs[i].n, 1), APR_EGENERAL);
    }
}
END_TEST

/* rows: B-038 B-039 B-040 */
START_TEST(test_text_in_the_root)
{
    ACCEPTED("<a> \t\r\n<b>text <![CDATA[<>&]]></b>\n</a>");
    REFUSED("<a>x</a>");
    REFUSED("<a><b/>x<b/></a>");
    REFUSED("<a><![CDATA[x]]></a>");
    REFUSED("<a><![CDATA[ ]]></a>");
    REFUSED("<a><b/><![CDATA[]]></a>");
    REFUSED("<a>&#65;</a>");
    REFUSED("<a>\xC2\xA0</a>");
}
END_TEST

/* ---- limits ---- */

static char *nested(unsigned depth)
{
    text_t t = {0};

    for (unsigned i = 0; i < depth; i++) {
        text_puts(&t, "<a>");
    }
    for (unsigned i = 0; i < depth; i++) {
        text_puts(&t, "</a>");
    }
    return t.p;
}

/* rows: B-054 */
START_TEST(test_depth)
{
    char *good = nested(BOSH_XML_MAX_DEPTH);
    char *bad = nested(BOSH_XML_MAX_DEPTH + 1);
    char *worse = nested(10000);

    ACCEPTED(good);
    ck_assert_int_eq(parse(bad), APR_ENOSPC);
    ck_assert_int_eq(parse(worse), APR_ENOSPC);
    ACCEPTED(good);
    free(good);
    free(bad);
    free(worse);
}
END_TEST

static char *broad(unsigned attributes, unsigned declarations)
{
    text_t t = {0};

    text_puts(&t, "<a><b");
    for (unsigned i = 0; i < attributes; i++) {
        text_printf(&t, " a%u=''", i);
    }
    for (unsigned i = 0; i < declarations; i++) {
        text_printf(&t, " xmlns:n%u='u%u'", i, i);
    }
    text_puts(&t, "/></a>");
    return t.p;
}

/* rows: B-054 */
START_TEST(test_attributes)
{
    static const struct {
        unsigned attributes, declarations;
        apr_status_t rv;
    } rows[] = {{BOSH_XML_MAX_ATTRS, 0, APR_SUCCESS},
                {0, BOSH_XML_MAX_ATTRS, APR_SUCCESS},
                {BOSH_XML_MAX_ATTRS - 1, 1, APR_SUCCESS},
                {BOSH_XML_MAX_ATTRS + 1, 0, APR_ENOSPC},
                {0, BOSH_XML_MAX_ATTRS + 1, APR_ENOSPC},
                {BOSH_XML_MAX_ATTRS, 1, APR_ENOSPC},
                {10000, 0, APR_ENOSPC},
                {0, 10000, APR_ENOSPC}};

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char *doc = broad(rows[i].attributes, rows[i].declarations);

        ck_assert_int_eq(parse_n(doc, strlen(doc), 0), rows[i].rv);
        free(doc);
    }
}
END_TEST

/* ---- callbacks that end it ---- */

START_TEST(test_fail_and_stop)
{
    E.fail_at = "b";
    ck_assert_int_eq(parse("<a><b/><c/></a>"), APR_EINVAL);
    ck_assert_str_eq(E.why, "asked to");
    ck_assert_str_eq(E.log.p, "S1[0,2,3]||a\nS2[3,5,7]||b\n"); /* not even the end of b */
    ck_assert_int_eq(bosh_xml_feed(E.xml, "<d/>", 4, false, &E.why), APR_EINVAL);
    ck_assert_str_eq(E.why, "asked to");
    E.fail_at = NULL;
    E.stop_at = "b";
    ck_assert_int_eq(parse("<a><b/><c/></a>"), APR_EOF);
    ck_assert_int_eq(bosh_xml_feed(E.xml, "<!--", 4, false, &E.why), APR_EOF);
    E.stop_at = NULL;
    ACCEPTED("<a><b/><c/></a>");
}
END_TEST

/* After any failure, and after a large document, a reset makes all new. */
START_TEST(test_reset)
{
    text_t big = {0};

    text_puts(&big, "<a>");
    for (int i = 0; i < 20000; i++) {
        text_printf(&big, "<n%d/>", i);
    }
    text_puts(&big, "</a>");
    REFUSED("<a xmlns:p='u'><p:b");
    REFUSED("<a xmlns='u'><b");
    REFUSED("<p:a/>");
    ACCEPTED("<a><b/></a>");
    ck_assert_str_eq(E.log.p, "S1[0,2,3]||a\nS2[3,5,7]||b\nE2[7,7]\nE1[7,11]\n");
    ck_assert_int_eq(parse_n(big.p, big.n, 0), APR_SUCCESS);
    REFUSED("<p:a/>");
    ACCEPTED("<a><b/></a>");
    free(big.p);
}
END_TEST

/* A finished tag is reported with its last byte, however long it took to come. */
START_TEST(test_nothing_is_deferred)
{
    text_t t = {0};
    const char *why;

    text_puts(&t, "<a><b x='");
    for (int i = 0; i < 500; i++) {
        text_puts(&t, "0123456789");
    }
    text_puts(&t, "'/>");
    ck_assert_int_eq(bosh_xml_reset(E.xml), APR_SUCCESS);
    for (size_t i = 0; i < t.n; i++) {
        ck_assert_ptr_null(E.log.p != NULL ? strstr(E.log.p, "E2") : NULL);
        ck_assert_int_eq(bosh_xml_feed(E.xml, t.p + i, 1, false, &why), APR_SUCCESS);
    }
    ck_assert_ptr_nonnull(strstr(E.log.p, "E2"));
    free(t.p);
}
END_TEST

/* ---- escape and arrays ---- */

START_TEST(test_escape)
{
    static const char text[] = "a&<>\"'\t\n\r\xC3\xA9\xF0\x9F\x98\x80";
    static const char want[] = "a&amp;&lt;&gt;&quot;&apos;&#9;&#10;&#13;\xC3\xA9\xF0\x9F\x98\x80";
    char buf[128];
    size_t whole = bosh_xml_escape(buf, sizeof(buf), text);

    ck_assert_uint_eq(whole, sizeof(want) - 1);
    ck_assert_int_eq(memcmp(buf, want, whole), 0);
    for (size_t size = 0; size < whole; size++) { /* never a part of a character or reference */
        text_t doc = {0}, out = {0};
        size_t n = bosh_xml_escape(buf, size, text);

        ck_assert_uint_le(n, size);
        ck_assert_int_eq(memcmp(buf, want, n), 0);
        text_puts(&doc, "<a><b x='");
        text_add(&doc, buf, n);
        text_puts(&doc, "'/></a>");
        ck_assert_msg(canon_children(&out, doc.p, doc.n), "%s", doc.p);
        free(doc.p);
        free(out.p);
    }
    ck_assert_uint_eq(bosh_xml_escape(buf, sizeof(buf), ""), 0);
}
END_TEST

START_TEST(test_grow_and_trim)
{
    int *array = NULL;
    size_t cap = 0;

    ck_assert(bosh_xml_grow(&array, &cap, 0, sizeof(int)));
    ck_assert(bosh_xml_grow(&array, &cap, 9, sizeof(int)));
    ck_assert_uint_ge(cap, 9);
    array[8] = 7;
    ck_assert(!bosh_xml_grow(&array, &cap, SIZE_MAX / 2, sizeof(int)));
    ck_assert_int_eq(array[8], 7);
    bosh_xml_trim(&array, &cap, 100);
    ck_assert_ptr_nonnull(array);
    bosh_xml_trim(&array, &cap, 4);
    ck_assert_ptr_null(array);
    ck_assert_uint_eq(cap, 0);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_offsets,
        test_offsets_behind_a_mark_and_a_declaration,
        test_prefix_as_written,
        test_prefix_bound_again_inside,
        test_attr,
        test_malformed,
        test_restricted,
        test_references,
        test_versions_and_encodings,
        test_utf16_is_not_guessed,
        test_text_in_the_root,
        test_depth,
        test_attributes,
        test_fail_and_stop,
        test_reset,
        test_nothing_is_deferred,
        test_escape,
        test_grow_and_trim,
    };
    Suite *suite = suite_create("xml");
    TCase *tc = tcase_create("xml");
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
