/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_scope: what a child of a document's root inherits from the root, and which declarations must
 * be repeated on the child when it is moved under another root (X-003..X-010). Pure; belongs to a
 * bosh_xml_t, which feeds it; the users ask in their end callback of a child (depth 2).
 */
#ifndef BOSH_SCOPE_H
#define BOSH_SCOPE_H

#include "bosh_xml.h"

#define BOSH_SCOPE_TOKEN 64 /* longer prefixes on a root are always repeated */

/*
 * One declaration of the root. `text` is ready to be inserted into a start tag: " xmlns:p='uri'",
 * escaped; empty for xmlns=''. All slices are valid from the root's start callback until the next
 * reset.
 */
typedef struct bosh_binding_t {
    bosh_slice_t prefix, uri, text;
    uint32_t declared,
        used;   /* private: the child (its number) that declares it itself, that uses it */
    bool known; /* private: nobody needs it repeated */
} bosh_binding_t;

/* Embedded by bosh_xml.c; to everybody else its fields are private. All zero is a valid empty
 * scope.
 */
struct bosh_scope_t {
    const char *known_prefix, *known_uri;

    bosh_binding_t dflt;
    bosh_binding_t *bindings; /* ordered by by_prefix() in bosh_scope.c */
    size_t nbindings, bindings_cap;
    char *text; /* what the slices of the bindings point to */
    size_t text_cap;
    bool scanning; /* there is a binding that may have to be repeated */

    uint32_t child;      /* number of the child being read */
    unsigned dflt_depth; /* depth of the outermost element in it that declares a default; 0: none */
    bool inherits, inherits_below;
    const bosh_binding_t *name_binding; /* the one its own name needs */
    const bosh_binding_t *used[BOSH_XML_MAX_ATTRS];
    size_t nused;
    bosh_slice_t inserts[BOSH_XML_MAX_ATTRS];
    char token[BOSH_SCOPE_TOKEN]; /* the name characters just before this point of the text */
    size_t token_len;             /* BOSH_SCOPE_TOKEN + 1: too long to matter */
};

/* ---- for bosh_xml.c ---- */

/* Forgets the document; keeps memory, unless it has become unusually large. */
void bosh_scope_reset(bosh_scope_t *sc);
void bosh_scope_free(bosh_scope_t *sc);

/* A start tag, the root's first. APR_ENOMEM possible at the root. */
apr_status_t bosh_scope_start(bosh_scope_t *sc, const bosh_xml_start_t *el);

/* An end tag. */
void bosh_scope_end(bosh_scope_t *sc, unsigned depth);

/* Text anywhere inside a child; only needed while bosh_scope_scanning(). */
void bosh_scope_text(bosh_scope_t *sc, const char *p, size_t n);
bool bosh_scope_scanning(const bosh_scope_t *sc);

/* ---- for the users of bosh_xml ---- */

/* The root's default namespace; uri.n and text.n are 0 when it has none. */
const bosh_binding_t *bosh_scope_default(const bosh_scope_t *sc);

/* The prefixes declared on the root, except `xml`. */
const bosh_binding_t *bosh_scope_bindings(const bosh_scope_t *sc, size_t *n);

/*
 * In the end callback of a child of the root: whether the root's default namespace, or its absence,
 * reaches the child's name or that of a descendant. renamed: the child's own name does not count.
 */
bool bosh_scope_inherits(const bosh_scope_t *sc, bool renamed);

/*
 * There also: the texts of the root's prefixes that occur in the child and that it does not declare
 * itself: in the names of elements and attributes, and followed by a colon in attribute values and
 * text (QNames in content). The known declaration is left out. renamed: the child's own name does
 * not count.
 */
const bosh_slice_t *bosh_scope_inserts(bosh_scope_t *sc, bool renamed, size_t *n);

#endif
