/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a child inherits from the root. Called by bosh_xml.c for each tag, and by bosh_body.c and
 * bosh_split.c when a child has ended; same thread as the parser it belongs to. Invariant: the
 * bindings and their texts change only at a root's start tag, so slices of them serve a whole
 * document.
 *
 *   root   <stream xmlns='A' xmlns:p='B' xmlns:q='C'>
 *   child    <x p:a='1'><y xmlns:q='D'/></x>      inherits A; needs p; does not name q
 */
#include "bosh_scope.h"

#include <stdlib.h>
#include <string.h>

#define KEEP_TEXT (16 * 1024)

/* ---- the root ---- */

/* For qsort and bsearch: by length first, because that settles most comparisons. A client may
 * declare hundreds of prefixes and write a colon everywhere; a linear search would let it burn
 * our time.
 */
static int by_prefix(const void *va, const void *vb)
{
    const bosh_binding_t *a = va;
    const bosh_binding_t *b = vb;

    if (a->prefix.n != b->prefix.n) {
        return a->prefix.n < b->prefix.n ? -1 : 1;
    }
    return memcmp(a->prefix.p, b->prefix.p, a->prefix.n);
}

static bosh_binding_t *find(bosh_scope_t *sc, const char *prefix, size_t n)
{
    const bosh_binding_t key = {.prefix = {prefix, n}};

    if (sc->nbindings == 0 || n == 0) {
        return NULL;
    }
    return bsearch(&key, sc->bindings, sc->nbindings, sizeof(key), by_prefix);
}

/* Appends n bytes at *at and returns them as a slice. */
static bosh_slice_t put(char **at, const char *p, size_t n)
{
    bosh_slice_t s = {*at, n};

    memcpy(*at, p, n);
    *at += n;
    return s;
}

/* Room that bind_decl() needs for one declaration. */
static size_t bind_room(const bosh_xml_decl_t *decl)
{
    return 2 * strlen(decl->prefix) + 7 * strlen(decl->uri) + 16;
}

/* Copies one declaration, and the text that repeats it, to *at. */
static void bind_decl(bosh_scope_t *sc, bosh_binding_t *b, const bosh_xml_decl_t *decl, char **at)
{
    char *start;

    memset(b, 0, sizeof(*b));
    b->prefix = put(at, decl->prefix, strlen(decl->prefix));
    b->uri = put(at, decl->uri, strlen(decl->uri));
    *(*at)++ = '\0'; /* the escaping below wants a string */
    b->known = sc->known_prefix != NULL && strcmp(decl->prefix, sc->known_prefix) == 0 &&
               strcmp(decl->uri, sc->known_uri) == 0;
    if (b->uri.n == 0) {
        return;
    }
    start = *at;
    put(at, " xmlns", 6);
    if (b->prefix.n > 0) {
        put(at, ":", 1);
        put(at, b->prefix.p, b->prefix.n);
    }
    put(at, "='", 2);
    *at += bosh_xml_escape(*at, 6 * b->uri.n, b->uri.p);
    put(at, "'", 1);
    b->text.p = start;
    b->text.n = (size_t)(*at - start);
}

static apr_status_t start_root(bosh_scope_t *sc, const bosh_xml_start_t *el)
{
    size_t need = 0;
    char *at;

    for (size_t i = 0; i < el->ndecls; i++) {
        need += bind_room(&el->decls[i]);
    }
    if (!bosh_xml_grow(&sc->text, &sc->text_cap, need, 1) ||
        !bosh_xml_grow(&sc->bindings, &sc->bindings_cap, el->ndecls, sizeof(sc->bindings[0]))) {
        return APR_ENOMEM;
    }
    at = sc->text;
    for (size_t i = 0; i < el->ndecls; i++) {
        if (el->decls[i].prefix[0] == '\0') {
            bind_decl(sc, &sc->dflt, &el->decls[i], &at);
        } else if (strcmp(el->decls[i].prefix, "xml") != 0) { /* bound everywhere */
            bosh_binding_t *b = &sc->bindings[sc->nbindings++];

            bind_decl(sc, b, &el->decls[i], &at);
            sc->scanning = sc->scanning || !b->known;
        }
    }
    if (sc->nbindings > 1) {
        qsort(sc->bindings, sc->nbindings, sizeof(sc->bindings[0]), by_prefix);
    }
    return APR_SUCCESS;
}

/* ---- a child ---- */

static void mark_used(bosh_scope_t *sc, bosh_binding_t *b)
{
    if (b != NULL && !b->known && b->used != sc->child) {
        b->used = sc->child;
        sc->used[sc->nused++] = b;
    }
}

static bool is_name_char(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           c >= 0x80 || c == '-' || c == '_' || c == '.';
}

/* Looks for QNames; the token carries over to the next piece of the same text. */
void bosh_scope_text(bosh_scope_t *sc, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (is_name_char((unsigned char)p[i])) {
            if (sc->token_len < BOSH_SCOPE_TOKEN) {
                sc->token[sc->token_len++] = p[i];
            } else {
                sc->token_len = BOSH_SCOPE_TOKEN + 1;
            }
        } else {
            if (p[i] == ':' && sc->token_len <= BOSH_SCOPE_TOKEN) {
                mark_used(sc, find(sc, sc->token, sc->token_len));
            }
            sc->token_len = 0;
        }
    }
}

/* The names and attribute values of a start tag; the child's own name is kept apart. */
static void scan_tag(bosh_scope_t *sc, const bosh_xml_start_t *el)
{
    bosh_binding_t *b = find(sc, el->name.prefix.p, el->name.prefix.n);

    if (el->depth == 2) {
        sc->name_binding = b;
    } else {
        mark_used(sc, b);
    }
    for (const char **a = el->atts; *a != NULL; a += 2) {
        bosh_xml_name_t name;

        bosh_xml_name(a[0], &name);
        mark_used(sc, find(sc, name.prefix.p, name.prefix.n));
        sc->token_len = 0;
        bosh_scope_text(sc, a[1], strlen(a[1]));
    }
    sc->token_len = 0;
}

static void start_child(bosh_scope_t *sc, const bosh_xml_start_t *el)
{
    sc->child++;
    sc->dflt_depth = 0;
    sc->inherits = sc->inherits_below = false;
    sc->nused = 0;
    sc->name_binding = NULL;
    if (!sc->scanning) {
        return;
    }
    for (size_t i = sc->nbindings; i > 0 && sc->bindings[i - 1].prefix.n > BOSH_SCOPE_TOKEN; i--) {
        mark_used(sc, &sc->bindings[i - 1]); /* the longest stand last */
    }
    for (size_t i = 0; i < el->ndecls; i++) {
        bosh_binding_t *b = find(sc, el->decls[i].prefix, strlen(el->decls[i].prefix));

        if (b != NULL) {
            b->declared = sc->child;
        }
    }
}

static void track_default(bosh_scope_t *sc, const bosh_xml_start_t *el)
{
    for (size_t i = 0; i < el->ndecls && sc->dflt_depth == 0; i++) {
        if (el->decls[i].prefix[0] == '\0') {
            sc->dflt_depth = el->depth;
        }
    }
    if (sc->dflt_depth == 0 && el->name.prefix.n == 0) {
        if (el->depth == 2) {
            sc->inherits = true;
        } else {
            sc->inherits_below = true;
        }
    }
}

/* ---- for bosh_xml.c ---- */

void bosh_scope_reset(bosh_scope_t *sc)
{
    bosh_xml_trim(&sc->text, &sc->text_cap, KEEP_TEXT);
    memset(&sc->dflt, 0, sizeof(sc->dflt));
    sc->nbindings = 0;
    sc->scanning = false;
    sc->child = 0;
    sc->dflt_depth = 0;
    sc->nused = 0;
    sc->token_len = 0;
}

void bosh_scope_free(bosh_scope_t *sc)
{
    free(sc->text);
    free(sc->bindings);
    memset(sc, 0, sizeof(*sc));
}

bool bosh_scope_scanning(const bosh_scope_t *sc)
{
    return sc->scanning;
}

apr_status_t bosh_scope_start(bosh_scope_t *sc, const bosh_xml_start_t *el)
{
    if (el->depth == 1) {
        return start_root(sc, el);
    }
    if (el->depth == 2) {
        start_child(sc, el);
    }
    track_default(sc, el);
    if (sc->scanning) {
        scan_tag(sc, el);
    }
    return APR_SUCCESS;
}

void bosh_scope_end(bosh_scope_t *sc, unsigned depth)
{
    sc->token_len = 0;
    if (sc->dflt_depth == depth) {
        sc->dflt_depth = 0;
    }
}

/* ---- for the users ---- */

const bosh_binding_t *bosh_scope_default(const bosh_scope_t *sc)
{
    return &sc->dflt;
}

const bosh_binding_t *bosh_scope_bindings(const bosh_scope_t *sc, size_t *n)
{
    *n = sc->nbindings;
    return sc->bindings;
}

bool bosh_scope_inherits(const bosh_scope_t *sc, bool renamed)
{
    return sc->inherits_below || (sc->inherits && !renamed);
}

const bosh_slice_t *bosh_scope_inserts(bosh_scope_t *sc, bool renamed, size_t *n)
{
    const bosh_binding_t *own = sc->name_binding;

    *n = 0;
    if (own != NULL && !renamed && !own->known && own->used != sc->child &&
        own->declared != sc->child) {
        sc->inserts[(*n)++] = own->text;
    }
    for (size_t i = 0; i < sc->nused; i++) {
        if (sc->used[i]->declared != sc->child) {
            sc->inserts[(*n)++] = sc->used[i]->text;
        }
    }
    return sc->inserts;
}
