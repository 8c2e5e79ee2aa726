/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_xml: expat, hardened for the XML that XEP-0124 section 6 and RFC 6120 section 11 allow.
 * Pure.
 *
 * One object reads one document at a time and reports elements with their exact byte offsets, so
 * that its users (bosh_body, bosh_split) can copy verbatim text instead of printing XML again.
 * Refused: DTD, comment, processing instruction, entities other than the five predefined, any
 * encoding but UTF-8, any version but 1.0, undeclared prefixes, text other than white space
 * directly inside the root, more than BOSH_XML_MAX_DEPTH levels (the root is the first), more than
 * BOSH_XML_MAX_ATTRS attributes and namespace declarations on an element.
 *
 * What a child of the root inherits from the root, bosh_scope.h tells.
 *
 * Used by one thread at a time. No heap of its own per document in the steady state (expat's own is
 * small).
 */
#ifndef BOSH_XML_H
#define BOSH_XML_H

#include <string.h>

#include "bosh.h"

typedef struct bosh_xml_t bosh_xml_t;
typedef struct bosh_scope_t bosh_scope_t;

/* A name, resolved. ns.n == 0: no namespace; prefix.n == 0: written without a prefix. */
typedef struct bosh_xml_name_t {
    bosh_slice_t ns, local, prefix;
} bosh_xml_name_t;

/* xmlns:prefix='uri'; prefix "" is the default namespace, uri "" takes it back (xmlns=''). */
typedef struct bosh_xml_decl_t {
    const char *prefix;
    const char *uri;
} bosh_xml_decl_t;

/* A start tag. Everything it points to is gone when the callback returns. */
typedef struct bosh_xml_start_t {
    bosh_xml_name_t name;
    unsigned depth;    /* the root is 1 */
    int64_t at;        /* offset of `<` */
    int64_t name_end;  /* offset behind the name as it is written, prefix included */
    int64_t end;       /* offset behind `>` */
    const char **atts; /* name, value, name, value, ..., NULL; names for bosh_xml_name() */
    const bosh_xml_decl_t *decls; /* the namespace declarations, in their order */
    size_t ndecls;
} bosh_xml_start_t;

/* The end of an element. For `<a/>` at == end, and both lie behind the tag. */
typedef struct bosh_xml_end_t {
    unsigned depth;
    int64_t at;  /* offset of `</` */
    int64_t end; /* offset behind `>` */
} bosh_xml_end_t;

/* Callbacks; they may call bosh_xml_fail() and bosh_xml_stop(), after which no further one
 * comes.
 */
typedef struct bosh_xml_sink_t {
    void (*start)(void *ctx, const bosh_xml_start_t *el);
    void (*end)(void *ctx, const bosh_xml_end_t *el);
    void (*space)(void *ctx,
                  int64_t end); /* white space directly inside the root, up to `end`; or NULL */
    const char *known_prefix, *known_uri; /* on the root: need not be repeated; or NULL */
} bosh_xml_sink_t;

/*
 * Random bits that nobody else knows, for expat's hash tables in this process (names chosen by an attacker must
 * not meet in one bucket). Said before the first document and before there are threads; unsaid, or 0, expat calls
 * the system for new ones at each document, which costs as much as a small document itself.
 */
void bosh_xml_seed(unsigned long secret);

/* The sink and ctx are kept, not copied. NULL: no memory. */
bosh_xml_t *bosh_xml_create(const bosh_xml_sink_t *sink, void *ctx);
void bosh_xml_destroy(bosh_xml_t *x);

/* Makes ready for the first byte (offset 0) of a new document. Not from a callback. APR_ENOMEM
 * possible.
 */
apr_status_t bosh_xml_reset(bosh_xml_t *x);

/*
 * Feeds bytes; `last` says that the document ends with them. Returns APR_SUCCESS; APR_EOF after
 * bosh_xml_stop(); APR_EGENERAL for malformed or restricted XML; APR_ENOSPC beyond depth, attribute
 * or size limits; APR_ENOMEM; or what a callback gave to bosh_xml_fail(). Anything but APR_SUCCESS
 * stays until the next reset. `*why` is set to static text on failure. Not from a callback.
 */
apr_status_t bosh_xml_feed(bosh_xml_t *x, const char *data, size_t len, bool last,
                           const char **why);

/* From a callback: ends parsing with this status and reason (static text), or without a fault. */
void bosh_xml_fail(bosh_xml_t *x, apr_status_t rv, const char *why);
void bosh_xml_stop(bosh_xml_t *x);

/* Takes a name of `atts` apart; the slices point into `raw`. */
void bosh_xml_name(const char *raw, bosh_xml_name_t *name);

/* Inline, so that the length of a literal costs nothing: these are most of what we do per
 * attribute.
 */
static inline bool bosh_xml_slice_is(bosh_slice_t s, const char *text)
{
    size_t n = strlen(text);

    return s.n == n && (n == 0 || memcmp(s.p, text, n) == 0);
}

static inline bool bosh_xml_name_is(const bosh_xml_name_t *name, const char *ns, const char *local)
{
    return bosh_xml_slice_is(name->local, local) && bosh_xml_slice_is(name->ns, ns);
}

/* The value of the attribute {ns}local; ns "" for no namespace. NULL: absent. */
const char *bosh_xml_attr(const bosh_xml_start_t *el, const char *ns, const char *local);

/* What the children of the present root inherit from it: see bosh_scope.h. */
bosh_scope_t *bosh_xml_scope(bosh_xml_t *x);

/*
 * Copies s into dst with & < > " ' escaped, and TAB, LF and CR as character references, so that an
 * attribute value survives being read again. At most `size` bytes, never a part of a character or
 * reference, no NUL. Returns the bytes written; 6 times the length always suffices.
 */
size_t bosh_xml_escape(char *dst, size_t size, const char *s);

/*
 * Makes room for at least `need` items of `size` bytes in the array at *array (a pointer to a
 * pointer), by doubling. False, and nothing is changed, when there is no memory.
 */
bool bosh_xml_grow(void *array, size_t *cap, size_t need, size_t size);

/* Gives such an array back when it has room for more than `keep` items: pooled objects stay
 * small.
 */
void bosh_xml_trim(void *array, size_t *cap, size_t keep);

#endif
