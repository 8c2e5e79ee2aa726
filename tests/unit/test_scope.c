/* SPDX-License-Identifier: Apache-2.0 */
/* What a child inherits from the root: defaults, prefixes in names and in QNames, and what is in the way. */
#include <check.h>
#include <stdint.h>

#include "bosh_scope.h"
#include "bosh_xml.h"
#include "xml_canon.h"

/* A parser, and for each child of the root a line: whether it inherits, and its inserts. */
static bosh_xml_t *xml;
static bool renamed;
static text_t found;

static void on_start(void *ctx, const bosh_xml_start_t *el)
{
    (void)ctx;
    (void)el;
}

static void on_end(void *ctx, const bosh_xml_end_t *el)
{
    bosh_scope_t *sc = bosh_xml_scope(xml);
    const bosh_slice_t *inserts;
    size_t n;

    (void)ctx;
    if (el->depth == 2) {
        text_puts(&found, bosh_scope_inherits(sc, renamed) ? "inherits" : "");
        inserts = bosh_scope_inserts(sc, renamed, &n);
        for (size_t i = 0; i < n; i++) {
            text_add(&found, inserts[i].p, inserts[i].n);
        }
        text_puts(&found, "\n");
    }
}

static const bosh_xml_sink_t sink = {
    .start = on_start,
    .end = on_end,
    .known_prefix = "known",
    .known_uri = "urn:known",
};

static void env_open(void)
{
    memset(&found, 0, sizeof(found));
    renamed = false;
    xml = bosh_xml_create(&sink, NULL);
    ck_assert_ptr_nonnull(xml);
}

static void env_close(void)
{
    bosh_xml_destroy(xml);
    free(found.p);
}

/* Parses `<a decls>children</a>`, at once and byte by byte, and checks the lines. */
static void expect(const char *decls, const char *children, const char *want)
{
    text_t t = {0};
    const char *why = NULL;

    text_puts(&t, "<a ");
    text_puts(&t, decls);
    text_puts(&t, ">");
    text_puts(&t, children);
    text_puts(&t, "</a>");
    for (size_t step = 1; step <= t.n; step += t.n - 1) {
        found.n = 0;
        text_puts(&found, "");
        ck_assert_int_eq(bosh_xml_reset(xml), APR_SUCCESS);
        for (size_t i = 0; i < t.n; i += step) {
            ck_assert_msg(bosh_xml_feed(xml, t.p + i, step, i + step == t.n, &why) == APR_SUCCESS,
                          "%s: %s", t.p, why);
        }
        ck_assert_msg(strcmp(found.p, want) == 0, "%s:\n%swanted:\n%s", t.p, found.p, want);
    }
    free(t.p);
}

/* rows: X-003 X-005 X-009 */
START_TEST(test_inherits)
{
    static const struct {
        const char *child;
        bool plain, renamed;
    } rows[] = {{"<b/>", true, false},
                {"<b xmlns='u'/>", false, false},
                {"<b xmlns=''/>", false, false},
                {"<known:b/>", false, false},
                {"<known:b><c/></known:b>", true, true},
                {"<known:b><c xmlns='v'/></known:b>", false, false},
                {"<known:b><c xmlns='v'/><c/></known:b>", true, true},
                {"<known:b><c xmlns='v'><d xmlns='w'/><d/></c><known:c/></known:b>", false, false},
                {"<known:b x='1'/>", false, false}};

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (int k = 0; k < 2; k++) {
            renamed = k == 1;
            expect("xmlns='d' xmlns:known='urn:known'", rows[i].child,
                   (renamed ? rows[i].renamed : rows[i].plain) ? "inherits\n" : "\n");
        }
    }
}
END_TEST

/* rows: X-004 X-008 X-010 B-050 */
START_TEST(test_inserts)
{
    static const char decls[] =
        "xmlns:known='urn:known' xmlns:q=\"a'&lt;&amp;&#10;\" xmlns:p='u' xmlns:\xC3\xA9='e'";
    static const struct {
        const char *child, *inserts;
    } rows[] = {{"<known:b/>", ""},
                {"<p:b/>", " xmlns:p='u'"},
                {"<p:b></p:b>", " xmlns:p='u'"},
                {"<p:b xmlns:p='v'/>", ""},
                {"<known:b><p:c/></known:b>", " xmlns:p='u'"},
                {"<known:b><p:c xmlns:p='v'/></known:b>", " xmlns:p='u'"}, /* needless, harmless */
                {"<known:b p:x=''/>", " xmlns:p='u'"},
                {"<known:b x='p:y'/>", " xmlns:p='u'"},
                {"<known:b x='(p:y)'/>", " xmlns:p='u'"},
                {"<known:b x='pp:y xp:y -p:y p :y p'/>", ""},
                {"<known:b x='p' y=':y'/>", ""},
                {"<known:b>p:y</known:b>", " xmlns:p='u'"},
                {"<known:b>\xC3\xA9:y</known:b>", " xmlns:\xC3\xA9='e'"},
                {"<known:b>\xC3\xA9p:y</known:b>", ""},
                {"<known:b>p<![CDATA[:y]]></known:b>", " xmlns:p='u'"},
                {"<known:b>&#112;:y</known:b>", " xmlns:p='u'"},
                {"<known:b>p<known:c/>:y</known:b>", ""},
                {"<known:b><known:c>p</known:c>:y</known:b>", ""},
                {"<known:b>\n p:y</known:b>", " xmlns:p='u'"},
                {"<known:b known:x='known:y'>known:z</known:b>", ""},
                {"<known:b x='xml:lang xmlns:y :p'/>", ""},
                {"<q:b p:x='q:y'/>", " xmlns:p='u' xmlns:q='a&apos;&lt;&amp;&#10;'"}};

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        text_t children = {0}, want = {0};

        text_puts(&children, rows[i].child); /* twice: the second child starts anew */
        text_puts(&children, "<known:none/>");
        text_puts(&children, rows[i].child);
        text_puts(&want, rows[i].inserts);
        text_puts(&want, "\n\n");
        text_puts(&want, rows[i].inserts);
        text_puts(&want, "\n");
        expect(decls, children.p, want.p);
        free(children.p);
        free(want.p);
    }
}
END_TEST

START_TEST(test_inserts_for_a_renamed_child)
{
    renamed = true;
    expect("xmlns:p='u'", "<p:b/>", "\n");
    expect("xmlns:p='u'", "<p:b p:x=''/>", " xmlns:p='u'\n");
    expect("xmlns:p='u'", "<p:b><p:c/></p:b>", " xmlns:p='u'\n");
    renamed = false;
    expect("xmlns:p='u'", "<p:b><p:c/></p:b>", " xmlns:p='u'\n");
}
END_TEST

START_TEST(test_a_known_prefix_with_another_meaning)
{
    expect("xmlns:known='v'", "<known:b/>", " xmlns:known='v'\n");
    expect("xmlns:other='urn:known'", "<other:b/>", " xmlns:other='urn:known'\n");
}
END_TEST

/* Prefixes at the length of the token and beyond it. */
START_TEST(test_long_prefixes)
{
    for (int n = BOSH_SCOPE_TOKEN - 1; n <= BOSH_SCOPE_TOKEN + 2; n++) {
        text_t decl = {0}, child = {0}, want = {0};
        char prefix[BOSH_SCOPE_TOKEN + 3];

        memset(prefix, 'x', (size_t)n);
        prefix[n] = '\0';
        text_printf(&decl, "xmlns:p='u' xmlns:%s='v'", prefix);
        text_printf(&child, "<p:b y='%s:z'/><p:b y='x%s:z'/>", prefix, prefix);
        if (n <= BOSH_SCOPE_TOKEN) {
            text_printf(&want, " xmlns:p='u' xmlns:%s='v'\n xmlns:p='u'\n", prefix);
        } else {
            text_printf(&want, " xmlns:p='u' xmlns:%s='v'\n xmlns:p='u' xmlns:%s='v'\n", prefix,
                        prefix);
        }
        expect(decl.p, child.p, want.p);
        free(decl.p);
        free(child.p);
        free(want.p);
    }
}
END_TEST

START_TEST(test_root_declarations)
{
    const bosh_scope_t *sc = bosh_xml_scope(xml);
    const bosh_binding_t *b;
    size_t n;

    expect("xmlns='d' xmlns:xml='http://www.w3.org/XML/1998/namespace' xmlns:pp='v' xmlns:p='u'",
           "<b xml:lang='xml:x'/>", "inherits\n");
    ck_assert(bosh_xml_slice_is(bosh_scope_default(sc)->uri, "d"));
    ck_assert(bosh_xml_slice_is(bosh_scope_default(sc)->text, " xmlns='d'"));
    b = bosh_scope_bindings(sc, &n);
    ck_assert_uint_eq(n, 2);
    ck_assert(bosh_xml_slice_is(b[0].text, " xmlns:p='u'"));
    ck_assert(bosh_xml_slice_is(b[1].prefix, "pp"));
    expect("xmlns=''", "", "");
    ck_assert_uint_eq(bosh_scope_default(sc)->text.n, 0);
    bosh_scope_bindings(sc, &n);
    ck_assert_uint_eq(n, 0);
}
END_TEST

/* rows: B-054 */
START_TEST(test_many_prefixes)
{
    text_t decls = {0};

    for (int i = BOSH_XML_MAX_ATTRS; i > 0; i--) {
        text_printf(&decls, " xmlns:n%d='u%d'", i, i);
    }
    expect(decls.p, "<n256:b n1:x='n77:q n0:q'/><n2:b/>",
           " xmlns:n256='u256' xmlns:n1='u1' xmlns:n77='u77'\n xmlns:n2='u2'\n");
    free(decls.p);
}
END_TEST

/* Work that grows with the square of the input would not end in time. */
START_TEST(test_many_prefixes_and_colons)
{
    text_t t = {0};
    const char *why;

    text_puts(&t, "<a");
    for (int i = 0; i < BOSH_XML_MAX_ATTRS; i++) {
        text_printf(&t, " xmlns:n%dx='u'", i);
    }
    text_puts(&t, "><b>");
    for (int i = 0; i < 300000; i++) {
        text_puts(&t, "n:");
    }
    text_puts(&t, "</b></a>");
    ck_assert_int_eq(bosh_xml_reset(xml), APR_SUCCESS);
    ck_assert_int_eq(bosh_xml_feed(xml, t.p, t.n, true, &why), APR_SUCCESS);
    free(t.p);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_inherits,
        test_inserts,
        test_inserts_for_a_renamed_child,
        test_a_known_prefix_with_another_meaning,
        test_long_prefixes,
        test_root_declarations,
        test_many_prefixes,
        test_many_prefixes_and_colons,
    };
    Suite *suite = suite_create("scope");
    TCase *tc = tcase_create("scope");
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
