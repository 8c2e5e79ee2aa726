/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xml_canon: what a namespace-aware reader sees of an XML document, as text that can be compared.
 * For the tests and fuzzers of the parsers; uses expat directly, so that it shares no code with
 * what it checks.
 */
#ifndef XML_CANON_H
#define XML_CANON_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <expat.h>

/* ---- growing text ---- */

typedef struct text_t {
    char *p; /* always NUL-terminated once something was added */
    size_t n, cap;
} text_t;

static inline void text_add(text_t *t, const char *p, size_t n)
{
    if (t->n + n + 1 > t->cap) {
        t->cap = 2 * (t->n + n + 1);
        t->p = realloc(t->p, t->cap);
        if (t->p == NULL) {
            abort();
        }
    }
    if (n > 0) {
        memcpy(t->p + t->n, p, n);
    }
    t->n += n;
    t->p[t->n] = '\0';
}

static inline void text_puts(text_t *t, const char *s)
{
    text_add(t, s, strlen(s));
}

__attribute__((format(printf, 2, 3))) static inline void text_printf(text_t *t, const char *fmt,
                                                                     ...)
{
    char buf[512];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(buf, sizeof(buf), fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof(buf)) {
        abort();
    }
    text_add(t, buf, (size_t)n);
}

/* ---- the reader ---- */

#define CANON_SEP '\x02'

typedef struct canon_t {
    text_t *out;
    unsigned depth;
    bool in_text;
} canon_t;

static inline int canon_by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static inline void canon_name(text_t *out, const char *raw)
{
    const char *sep = strchr(raw, CANON_SEP);

    if (sep != NULL) {
        text_puts(out, "{");
        text_add(out, raw, (size_t)(sep - raw));
        text_puts(out, "}");
        raw = sep + 1;
    }
    text_puts(out, raw);
}

static inline void canon_start(void *vc, const XML_Char *name, const XML_Char **atts)
{
    canon_t *c = vc;
    size_t n = 0;

    if (c->depth++ == 0) {
        return;
    }
    c->in_text = false;
    text_printf(c->out, "%*s<", 2 * (int)c->depth, "");
    canon_name(c->out, name);
    while (atts[n] != NULL) {
        n += 2;
    }
    qsort(atts, n / 2, 2 * sizeof(atts[0]), canon_by_name);
    for (size_t i = 0; i < n; i += 2) {
        text_puts(c->out, "\n    @");
        canon_name(c->out, atts[i]);
        text_puts(c->out, "=");
        text_puts(c->out, atts[i + 1]);
    }
    text_puts(c->out, "\n");
}

static inline void canon_end(void *vc, const XML_Char *name)
{
    canon_t *c = vc;

    (void)name;
    if (c->depth-- > 1) {
        text_puts(c->out, c->in_text ? "\n/\n" : "/\n");
        c->in_text = false;
    }
}

static inline void canon_text(void *vc, const XML_Char *s, int n)
{
    canon_t *c = vc;

    if (c->depth > 1) {
        text_puts(c->out, c->in_text ? "" : "\"");
        c->in_text = true;
        text_add(c->out, s, (size_t)n);
    }
}

/*
 * Appends what the children of the root of this document are: names resolved, attributes sorted,
 * text joined. False when it is not well-formed.
 */
static inline bool canon_children(text_t *out, const char *doc, size_t n)
{
    canon_t c = {out, 0, false};
    XML_Parser p = XML_ParserCreateNS("UTF-8", CANON_SEP);
    bool good;

    if (p == NULL) {
        abort();
    }
    text_puts(out, "");
    XML_SetUserData(p, &c);
    XML_SetElementHandler(p, canon_start, canon_end);
    XML_SetCharacterDataHandler(p, canon_text);
    good = XML_Parse(p, doc, (int)n, 1) == XML_STATUS_OK;
    if (!good) {
        text_printf(out, "not well-formed: %s at byte %ld\n", XML_ErrorString(XML_GetErrorCode(p)),
                    (long)XML_GetCurrentByteIndex(p));
    }
    XML_ParserFree(p);
    return good;
}

/* ---- random documents ---- */

typedef struct gen_t {
    uint64_t state; /* the seed at first */
    text_t *out;
    unsigned budget; /* elements left */
} gen_t;

static inline unsigned gen_below(gen_t *g, unsigned n)
{
    g->state ^= g->state << 13;
    g->state ^= g->state >> 7;
    g->state ^= g->state << 17;
    return (unsigned)((g->state >> 16) % n);
}

static inline const char *gen_pick(gen_t *g, const char *const *list, unsigned n)
{
    return list[gen_below(g, n)];
}

static inline void gen_space(gen_t *g)
{
    static const char *const spaces[] = {"", "", "", " ", "\n ", "\t"};

    text_puts(g->out, gen_pick(g, spaces, 6));
}

/* The prefixes documents play with; a bit in a mask for each that is bound. */
#define GEN_PREFIXES 4
static const char *const gen_prefix[GEN_PREFIXES] = {"p", "q", "pq", "\xC3\xA9"};

/* Declares a random choice of them; returns the mask with what is bound now. */
static inline unsigned gen_decls(gen_t *g, unsigned bound, unsigned odds)
{
    static const char *const uris[] = {"urn:p", "urn:q", "urn:a'b&amp;c", "jabber:client",
                                       "http://jabber.org/protocol/httpbind"};

    for (unsigned i = 0; i < GEN_PREFIXES; i++) {
        if (gen_below(g, odds) == 0) {
            text_printf(g->out, " xmlns:%s%s=\"%s\"", gen_prefix[i], gen_below(g, 2) ? " " : "",
                        gen_pick(g, uris, 5));
            bound |= 1u << i;
        }
    }
    return bound;
}

static inline void gen_text(gen_t *g)
{
    static const char *const texts[] = {"hello", " ",
                                        "\r\n",  "&lt;&amp;&#233;&#x1F600;",
                                        "p:x",   "<![CDATA[a<b]]&amp;]]>",
                                        "a>b",   "\xE2\x82\xAC",
                                        "'\"",   "q:",
                                        "]]",    ":p",
                                        "pq:y",  "/>"};

    for (unsigned n = gen_below(g, 3); n > 0; n--) {
        text_puts(g->out, gen_pick(g, texts, 14));
    }
}

static inline void gen_attrs(gen_t *g, unsigned bound)
{
    static const char *const values[] = {"",        "1",  "a>b", "&#10;x&#9;",
                                         "p:v q:w", "\"", "/>",  "&amp;lt;"};
    unsigned n = gen_below(g, 4);

    for (unsigned i = 0; i < n; i++) {
        unsigned k = gen_below(g, GEN_PREFIXES + 1);

        text_puts(g->out, gen_below(g, 3) ? " " : "\n\t");
        if (k < GEN_PREFIXES && (bound & (1u << k))) {
            text_printf(g->out, "%s:", gen_prefix[k]);
        }
        text_printf(g->out, "n%u", i); /* never twice */
        gen_space(g);
        text_puts(g->out, "=");
        gen_space(g);
        text_printf(g->out, "'%s'", gen_pick(g, values, 8));
    }
}

/* One element with everything in it. */
static inline void gen_element(gen_t *g, unsigned bound, unsigned depth)
{
    static const char *const names[] = {"a", "message", "b.c-d", "\xC3\xA9t\xC3\xA9"};
    static const char *const defaults[] = {"", "urn:d", "jabber:client",
                                           "http://jabber.org/protocol/httpbind"};
    const char *local = gen_pick(g, names, 4);
    unsigned k = gen_below(g, 2 * GEN_PREFIXES);
    size_t at = g->out->n + 1;
    text_t tag = {0};

    text_puts(g->out, "<");
    if (k < GEN_PREFIXES && (bound & (1u << k))) {
        text_printf(g->out, "%s:", gen_prefix[k]);
    }
    text_puts(g->out, local);
    text_add(&tag, g->out->p + at, g->out->n - at);
    bound = gen_decls(g, bound, 8);
    if (gen_below(g, 5) == 0) {
        text_printf(g->out, " xmlns = '%s'", gen_pick(g, defaults, 4));
    }
    gen_attrs(g, bound);
    gen_space(g);
    if (g->budget == 0 || depth > 6 || gen_below(g, 4) == 0) {
        text_puts(g->out, "/>");
    } else {
        text_puts(g->out, ">");
        gen_text(g);
        for (unsigned n = gen_below(g, 4); n > 0 && g->budget > 0; n--) {
            g->budget--;
            gen_element(g, bound, depth + 1);
            gen_text(g);
        }
        text_printf(g->out, "</%s", tag.p);
        gen_space(g);
        text_puts(g->out, ">");
    }
    free(tag.p);
}

/* A few elements with white space between them. */
static inline void gen_elements(gen_t *g, unsigned bound)
{
    for (unsigned n = gen_below(g, 4); n > 0; n--) {
        gen_space(g);
        gen_element(g, bound, 0);
    }
    gen_space(g);
}

/* The seed of random tests: BOSH_TEST_SEED, or a fixed one. Printed by the tests. */
static inline uint64_t gen_seed(void)
{
    const char *s = getenv("BOSH_TEST_SEED");
    uint64_t seed = s != NULL ? strtoull(s, NULL, 10) : 0;

    return seed != 0 ? seed : 20261124;
}

#endif
