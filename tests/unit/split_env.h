/* SPDX-License-Identifier: Apache-2.0 */
/* split_env: a splitter, ways to feed it, and its events as text. For test_split.c and
 * test_split_edits.c.
 */
#ifndef SPLIT_ENV_H
#define SPLIT_ENV_H

#include <check.h>
#include <stdint.h>

#include "bosh_split.h"
#include "xml_canon.h"

#define STREAMS    "http://etherx.jabber.org/streams"
#define MAX_STANZA 2000

static bosh_splitter_t *sp;

static void split_open(void)
{
    sp = bosh_split_create(MAX_STANZA);
    ck_assert_ptr_nonnull(sp);
}

static void split_close(void)
{
    bosh_split_destroy(sp);
}

static inline void begin(const char *prime, size_t len)
{
    ck_assert_int_eq(bosh_split_begin(sp, prime, len), APR_SUCCESS);
}

/* The event's bytes of `raw` (offset 0 is its first byte) after the edits. Static memory. */
static inline const char *applied(const bosh_split_event_t *ev, const char *raw)
{
    static text_t t;
    uint64_t at = ev->start;

    t.n = 0;
    text_puts(&t, "");
    for (size_t i = 0; i < ev->nedits; i++) {
        const bosh_edit_t *e = &ev->edits[i];

        ck_assert_uint_ge(e->at, at);
        ck_assert_uint_le(e->at + e->drop, ev->end);
        text_add(&t, raw + at, e->at - at);
        text_add(&t, e->text, e->n);
        at = e->at + e->drop;
    }
    text_add(&t, raw + at, ev->end - at);
    ck_assert_uint_eq(t.n, ev->out_len);
    return t.p;
}

static inline const char *type_name(const bosh_split_event_t *ev)
{
    static const char *const names[] = {"?",   "header", "features", "sasl",
                                        "tls", "stanza", "error",    "end"};

    return names[ev->type];
}

/* "header stanza tls+proceed": the events found so far. Static memory. */
static inline const char *seen_types(void)
{
    static text_t t;
    size_t n;
    const bosh_split_event_t *ev = bosh_split_events(sp, &n);

    t.n = 0;
    text_puts(&t, "");
    for (size_t i = 0; i < n; i++) {
        text_printf(&t, "%s%s%s%s%s", i > 0 ? " " : "", type_name(&ev[i]),
                    ev[i].starttls ? "+starttls" : "", ev[i].starttls_required ? "+required" : "",
                    ev[i].proceed ? "+proceed" : "");
    }
    return t.p;
}

/* Everything about the events: type, range (plus base), text after the edits. Static memory. */
static inline const char *seen_with_text(const char *raw, uint64_t base)
{
    static text_t t;
    size_t n;
    const bosh_split_event_t *ev = bosh_split_events(sp, &n);
    uint64_t at = 0;

    t.n = 0;
    text_puts(&t, "");
    for (size_t i = 0; i < n; i++) {
        text_printf(&t, "%s%s%s%s [%d,%d) ", type_name(&ev[i]), ev[i].starttls ? "+starttls" : "",
                    ev[i].starttls_required ? "+required" : "", ev[i].proceed ? "+proceed" : "",
                    (int)(ev[i].start + base), (int)(ev[i].end + base));
        ck_assert_uint_ge(ev[i].start, at);
        at = ev[i].end;
        text_puts(&t, applied(&ev[i], raw));
        text_puts(&t, "\n");
    }
    ck_assert_uint_ge(bosh_split_boundary(sp), at);
    return t.p;
}

/* Feeds a whole stream in two pieces, the first of `cut` bytes, or byte by byte when cut > n. */
static inline apr_status_t feed_cut(const char *doc, size_t n, size_t cut)
{
    apr_status_t rv = APR_SUCCESS;
    const char *why = NULL;

    begin(NULL, 0);
    if (cut <= n) {
        rv = bosh_split_feed(sp, doc, cut, &why);
        if (rv == APR_SUCCESS) {
            rv = bosh_split_feed(sp, doc + cut, n - cut, &why);
        }
    } else {
        for (size_t i = 0; i < n && rv == APR_SUCCESS; i++) {
            rv = bosh_split_feed(sp, doc + i, 1, &why);
        }
    }
    ck_assert_msg((why != NULL) == (rv != APR_SUCCESS), "%d, %s: %.200s", rv,
                  why ? why : "no reason", doc);
    if (rv != APR_SUCCESS) {
        const char *again = NULL;

        ck_assert_int_eq(bosh_split_feed(sp, "<x/>", 4, &again), rv); /* a failure stays */
        ck_assert_ptr_eq(again, why);
    }
    return rv;
}

static inline void feed_and_compare(const char *doc, size_t cut, apr_status_t rv, uint64_t boundary,
                                    const char *want)
{
    ck_assert_msg(feed_cut(doc, strlen(doc), cut) == rv, "another status, cut at %zu: %.300s", cut,
                  doc);
    ck_assert_msg(strcmp(seen_with_text(doc, 0), want) == 0, "cut at %zu: %.300s\n%s\nwhole:\n%s",
                  cut, doc, seen_with_text(doc, 0), want);
    ck_assert_uint_eq(rv == APR_SUCCESS ? bosh_split_boundary(sp) : boundary, boundary);
}

/* Feeds at once, byte by byte, and in two pieces at every split point: all must give the same. */
static inline apr_status_t feed_all_ways(const char *doc)
{
    size_t n = strlen(doc);
    size_t step = n > 1000 ? n / 200 : 1; /* large documents are about limits, not about pieces */
    apr_status_t rv = feed_cut(doc, n, n);
    uint64_t boundary = bosh_split_boundary(sp);
    char *whole = strdup(seen_with_text(doc, 0));

    feed_and_compare(doc, n + 1, rv, boundary, whole);
    for (size_t cut = 0; cut <= n; cut += step) {
        feed_and_compare(doc, cut, rv, boundary, whole);
    }
    free(whole);
    return rv;
}

#define FEEDS(doc, types)                                                                          \
    do {                                                                                           \
        ck_assert_int_eq(feed_all_ways(doc), APR_SUCCESS);                                         \
        ck_assert_str_eq(seen_types(), types);                                                     \
    } while (0)

#define FAILS(doc, types, rv)                                                                      \
    do {                                                                                           \
        ck_assert_msg(feed_all_ways(doc) == (rv), "%.300s", doc);                                  \
        ck_assert_str_eq(seen_types(), types);                                                     \
    } while (0)

static inline int run_split_tests(const char *name, const TTest *const *tests, size_t n)
{
    Suite *suite = suite_create(name);
    TCase *tc = tcase_create(name);
    SRunner *sr;
    int failed;

    tcase_add_checked_fixture(tc, split_open, split_close);
    tcase_set_timeout(tc, 120); /* valgrind is slow */
    for (size_t i = 0; i < n; i++) {
        tcase_add_test(tc, tests[i]);
    }
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_NORMAL);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed > 0;
}

#endif
