/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams of XMPP servers. Whatever comes in: the same events at once, byte by byte and in two
 * pieces; and each element, edited and moved into a <body/>, is what a namespace-aware reader saw
 * in the stream.
 */
#include <stdint.h>

#include "bosh_split.h"
#include "../unit/xml_canon.h"

#define MAX_STANZA 400

#define REQUIRE(x)                                                                                 \
    do {                                                                                           \
        if (!(x)) {                                                                                \
            fprintf(stderr, "fuzz_split: not true: %s (line %d)\n", #x, __LINE__);                 \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static text_t applied(const bosh_split_event_t *ev, const char *raw)
{
    text_t t = {0};
    uint64_t at = ev->start;

    text_puts(&t, "");
    for (size_t i = 0; i < ev->nedits; i++) {
        const bosh_edit_t *e = &ev->edits[i];

        REQUIRE(e->at >= at && e->at + e->drop <= ev->end);
        text_add(&t, raw + at, e->at - at);
        text_add(&t, e->text, e->n);
        at = e->at + e->drop;
    }
    text_add(&t, raw + at, ev->end - at);
    REQUIRE(t.n == ev->out_len);
    return t;
}

static void describe_string(text_t *t, const char *s)
{
    text_puts(t, s != NULL ? s : "-");
    text_puts(t, "\n");
}

/* Events and header as text. */
static text_t describe(const bosh_splitter_t *sp, const char *raw)
{
    const bosh_split_header_t *h = bosh_split_header(sp);
    text_t t = {0};
    uint64_t at = 0;
    size_t n;
    const bosh_split_event_t *ev = bosh_split_events(sp, &n);

    text_puts(&t, "");
    for (size_t i = 0; i < n; i++) {
        text_t out = applied(&ev[i], raw);

        REQUIRE(ev[i].start >= at && ev[i].end >= ev[i].start);
        at = ev[i].end;
        text_printf(&t, "%d %d%d%d [%d,%d) ", ev[i].type, ev[i].starttls, ev[i].starttls_required,
                    ev[i].proceed, (int)ev[i].start, (int)ev[i].end);
        text_puts(&t, out.p);
        text_puts(&t, "\n");
        free(out.p);
    }
    REQUIRE(bosh_split_boundary(sp) >= at);
    if (n > 0) {
        describe_string(&t, h->id);
        describe_string(&t, h->from);
        describe_string(&t, h->version);
        describe_string(&t, h->lang);
        text_add(&t, h->prime, h->prime_len);
    }
    return t;
}

/* Feeds pieces of `step` bytes, after a first one of `cut`. */
static apr_status_t feed(bosh_splitter_t *sp, const char *raw, size_t n, size_t cut, size_t step)
{
    apr_status_t rv = bosh_split_begin(sp, NULL, 0);
    const char *why = NULL;

    REQUIRE(rv == APR_SUCCESS);
    rv = bosh_split_feed(sp, raw, cut, &why);
    for (size_t at = cut; at < n && rv == APR_SUCCESS; at += step) {
        rv = bosh_split_feed(sp, raw + at, n - at < step ? n - at : step, &why);
    }
    REQUIRE(rv == APR_SUCCESS || ((rv == APR_EGENERAL || rv == APR_ENOSPC) && why != NULL));
    REQUIRE(rv != APR_SUCCESS || bosh_split_boundary(sp) <= n);
    return rv;
}

static void check_meaning(const bosh_splitter_t *sp, const char *raw)
{
    static const char body[] = "<body xmlns='http://jabber.org/protocol/httpbind'"
                               " xmlns:stream='http://etherx.jabber.org/streams'>";
    size_t n, len;
    const bosh_split_event_t *ev = bosh_split_events(sp, &n);
    const char *prime = bosh_split_header(sp)->prime;

    if (prime == NULL) {
        prime = bosh_split_default_prime(&len);
    } else {
        len = bosh_split_header(sp)->prime_len;
    }
    for (size_t i = 1; i < n && ev[i].type != BOSH_SPLIT_END; i++) {
        text_t was = {0}, is = {0}, meant = {0}, seen = {0};
        text_t out = applied(&ev[i], raw);
        bool cut = false;

        for (size_t k = 0; k < ev[i].nedits; k++) {
            cut = cut || (ev[i].edits[k].drop > 0 && ev[i].edits[k].n == 0);
        }
        text_add(&was, prime, len);
        text_add(&was, raw + ev[i].start, ev[i].end - ev[i].start);
        text_puts(&was, "</");
        text_add(&was, prime + 1, strcspn(prime + 1, " \t\r\n>"));
        text_puts(&was, ">");
        text_puts(&is, body);
        text_add(&is, out.p, out.n);
        text_puts(&is, "</body>");
        REQUIRE(canon_children(&meant, was.p, was.n));
        REQUIRE(canon_children(&seen, is.p, is.n));
        REQUIRE(cut || strcmp(meant.p, seen.p) == 0);
        if (ev[i].type == BOSH_SPLIT_FEATURES || ev[i].type == BOSH_SPLIT_ERROR) {
            REQUIRE(strncmp(out.p, "<stream:", 8) == 0);
        }
        free(was.p);
        free(is.p);
        free(meant.p);
        free(seen.p);
        free(out.p);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bosh_splitter_t *sp = bosh_split_create(MAX_STANZA);
    const char *raw = (const char *)data;
    uint32_t mix = 2166136261u;
    apr_status_t rv;
    text_t whole;

    REQUIRE(sp != NULL);
    for (size_t i = 0; i < size; i++) {
        mix = (mix ^ data[i]) * 16777619u;
    }
    rv = feed(sp, raw, size, size, 1);
    whole = describe(sp, raw);
    check_meaning(sp, raw);
    for (int way = 0; way < 3; way++) {
        size_t cut = way == 0 ? 0 : (mix >> (way * 8)) % (size + 1);
        size_t step = way == 0 ? 1 : way == 1 ? size + 1 : 7;
        apr_status_t again = feed(sp, raw, size, cut, step);
        text_t pieces = describe(sp, raw);

        REQUIRE(strcmp(whole.p, pieces.p) == 0);
        REQUIRE((again == APR_SUCCESS) ==
                (rv == APR_SUCCESS)); /* the limit may be met before the fault */
        free(pieces.p);
    }
    free(whole.p);
    bosh_split_destroy(sp);
    return 0;
}
