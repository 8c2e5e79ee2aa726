/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hardened expat. Owns the expat parser; called by bosh_body.c on the workers and by
 * bosh_split.c on the loop thread, one thread at a time per object. Invariant: once `rv` is set no
 * callback reaches the sink until the next reset.
 *
 * Namespaces are left to expat, with triplets switched on: each name arrives as uri, local part and
 * the very prefix it is written with (expat looks the prefix up by its name, so two prefixes of one
 * URI are not mixed up), and so the length of the written name, and the offset behind it, is exact
 * without looking at raw bytes, which may long be gone when a tag comes in pieces. Undeclared and
 * reserved prefixes, repeated expanded attributes and malformed qualified names are then expat's to
 * refuse. The separator cannot occur in XML, so no name can forge it.
 */
#include "bosh_xml.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <expat.h>

#include "bosh_scope.h"

#define SEPARATOR '\x01'

/* A parser that has read more than this is made anew instead of reset: expat never gives back
 * its attribute table and buffers, and the objects are pooled for the life of the process.
 */
#define KEEP_BYTES (64 * 1024)

/* Not every expat 2.5 has it, and the one that is loaded may be newer than the header that the
 * module was built with: so it is asked at run time.
 */
extern XML_Bool XMLCALL XML_SetReparseDeferralEnabled(XML_Parser, XML_Bool) __attribute__((weak));

static unsigned long seed; /* 0: expat asks the system for one at each document */

struct bosh_xml_t {
    XML_Parser parser;
    const bosh_xml_sink_t *sink;
    void *ctx;

    apr_status_t rv; /* APR_SUCCESS while parsing */
    const char *why;
    uint64_t fed;
    unsigned depth;

    bosh_xml_decl_t decls[BOSH_XML_MAX_ATTRS]; /* of the start tag being read */
    size_t ndecls;

    bosh_scope_t scope;
};

/* ---- small helpers ---- */

bool bosh_xml_grow(void *array, size_t *cap, size_t need, size_t size)
{
    size_t n = *cap < 8 ? 8 : *cap;
    void *old, *grown;

    if (need <= *cap) {
        return true;
    }
    while (n < need) {
        if (n > SIZE_MAX / 2 / size) {
            return false;
        }
        n *= 2;
    }
    memcpy(&old, array, sizeof(old)); /* pointers to objects all look alike here */
    grown = realloc(old, n * size);
    if (grown == NULL) {
        return false;
    }
    memcpy(array, &grown, sizeof(grown));
    *cap = n;
    return true;
}

void bosh_xml_trim(void *array, size_t *cap, size_t keep)
{
    void *old;

    if (*cap > keep) {
        memcpy(&old, array, sizeof(old));
        free(old);
        old = NULL;
        memcpy(array, &old, sizeof(old));
        *cap = 0;
    }
}

static const char *reference(char c)
{
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&apos;";
    case '\t':
        return "&#9;";
    case '\n':
        return "&#10;";
    case '\r':
        return "&#13;";
    default:
        return NULL;
    }
}

size_t bosh_xml_escape(char *dst, size_t size, const char *s)
{
    size_t n = 0;

    while (*s != '\0') {
        const char *ref = reference(*s);
        size_t len = ref != NULL ? strlen(ref) : 1;

        if (ref == NULL) { /* as far as nothing needs escaping */
            while (s[len] != '\0' && reference(s[len]) == NULL) {
                len++;
            }
        }
        if (len > size - n) {
            len = ref != NULL ? 0 : size - n;
            while (len > 0 && ((unsigned char)s[len] & 0xC0) == 0x80) { /* no part of a character */
                len--;
            }
            memcpy(dst + n, s, len);
            return n + len;
        }
        memcpy(dst + n, ref != NULL ? ref : s, len);
        n += len;
        s += ref != NULL ? 1 : len;
    }
    return n;
}

void bosh_xml_name(const char *raw, bosh_xml_name_t *name)
{
    const char *sep = strchr(raw, SEPARATOR);
    const char *sep2;

    memset(name, 0, sizeof(*name));
    if (sep == NULL) {
        name->local.p = raw;
        name->local.n = strlen(raw);
        return;
    }
    name->ns.p = raw;
    name->ns.n = (size_t)(sep - raw);
    name->local.p = sep + 1;
    sep2 = strchr(sep + 1, SEPARATOR);
    if (sep2 == NULL) {
        name->local.n = strlen(sep + 1);
    } else {
        name->local.n = (size_t)(sep2 - sep - 1);
        name->prefix.p = sep2 + 1;
        name->prefix.n = strlen(sep2 + 1);
    }
}

const char *bosh_xml_attr(const bosh_xml_start_t *el, const char *ns, const char *local)
{
    for (const char **a = el->atts; *a != NULL; a += 2) {
        bosh_xml_name_t name;

        bosh_xml_name(a[0], &name);
        if (bosh_xml_name_is(&name, ns, local)) {
            return a[1];
        }
    }
    return NULL;
}

/* ---- expat's callbacks ---- */

void bosh_xml_fail(bosh_xml_t *x, apr_status_t rv, const char *why)
{
    if (x->rv == APR_SUCCESS) {
        x->rv = rv;
        x->why = why;
        XML_StopParser(x->parser, XML_FALSE);
    }
}

void bosh_xml_stop(bosh_xml_t *x)
{
    bosh_xml_fail(x, APR_EOF, NULL);
}

static void on_text(void *vx, const XML_Char *s, int len)
{
    bosh_xml_t *x = vx;

    if (x->rv != APR_SUCCESS) {
        return;
    }
    if (x->depth > 1) {
        bosh_scope_text(&x->scope, s, (size_t)len);
        return;
    }
    for (int i = 0; i < len; i++) {
        if (s[i] != ' ' && s[i] != '\n' && s[i] != '\t' && s[i] != '\r') {
            bosh_xml_fail(x, APR_EGENERAL, "text directly inside the root element");
            return;
        }
    }
    if (x->sink->space != NULL) {
        x->sink->space(x->ctx,
                       XML_GetCurrentByteIndex(x->parser) + XML_GetCurrentByteCount(x->parser));
    }
}

/* Text costs a call a line: it is listened to only where somebody wants to know. */
static void listen_to_text(bosh_xml_t *x)
{
    XML_SetCharacterDataHandler(x->parser,
                                x->depth == 1 || bosh_scope_scanning(&x->scope) ? on_text : NULL);
}

static void on_decl(void *vx, const XML_Char *prefix, const XML_Char *uri)
{
    bosh_xml_t *x = vx;

    if (x->rv != APR_SUCCESS) {
        return;
    }
    if (x->ndecls == BOSH_XML_MAX_ATTRS) {
        bosh_xml_fail(x, APR_ENOSPC, "too many namespace declarations on an element");
        return;
    }
    x->decls[x->ndecls].prefix = prefix != NULL ? prefix : "";
    x->decls[x->ndecls].uri = uri != NULL ? uri : "";
    x->ndecls++;
}

static void on_start(void *vx, const XML_Char *raw, const XML_Char **atts)
{
    bosh_xml_t *x = vx;
    bosh_xml_start_t el;

    if (x->rv != APR_SUCCESS) {
        return;
    }
    if (x->depth == BOSH_XML_MAX_DEPTH) {
        bosh_xml_fail(x, APR_ENOSPC, "elements nested too deeply");
        return;
    }
    if ((size_t)XML_GetSpecifiedAttributeCount(x->parser) / 2 + x->ndecls > BOSH_XML_MAX_ATTRS) {
        bosh_xml_fail(x, APR_ENOSPC, "too many attributes on an element");
        return;
    }
    el.depth = ++x->depth;
    bosh_xml_name(raw, &el.name);
    el.at = XML_GetCurrentByteIndex(x->parser);
    el.end = el.at + XML_GetCurrentByteCount(x->parser);
    el.name_end = el.at + 1 + (int64_t)el.name.local.n;
    if (el.name.prefix.n > 0) {
        el.name_end += (int64_t)el.name.prefix.n + 1;
    }
    el.atts = atts;
    el.decls = x->decls;
    el.ndecls = x->ndecls;
    if (bosh_scope_start(&x->scope, &el) != APR_SUCCESS) {
        bosh_xml_fail(x, APR_ENOMEM, "out of memory");
        return;
    }
    if (el.depth <= 2) {
        listen_to_text(x);
    }
    x->sink->start(x->ctx, &el);
    x->ndecls = 0;
}

static void on_end(void *vx, const XML_Char *raw)
{
    bosh_xml_t *x = vx;
    bosh_xml_end_t el;

    (void)raw;
    if (x->rv != APR_SUCCESS) {
        return;
    }
    el.depth = x->depth--;
    el.at = XML_GetCurrentByteIndex(x->parser);
    el.end = el.at + XML_GetCurrentByteCount(x->parser);
    bosh_scope_end(&x->scope, el.depth);
    if (el.depth == 2) {
        listen_to_text(x);
    }
    x->sink->end(x->ctx, &el);
}

/* Directly inside the root not even blank ones: an offset in the middle of a section would be no
 * boundary.
 */
static void on_cdata(void *vx)
{
    bosh_xml_t *x = vx;

    if (x->depth == 1) {
        bosh_xml_fail(x, APR_EGENERAL, "a CDATA section directly inside the root element");
    }
}

static void on_comment(void *vx, const XML_Char *text)
{
    (void)text;
    bosh_xml_fail(vx, APR_EGENERAL, "restricted XML: a comment");
}

static void on_instruction(void *vx, const XML_Char *target, const XML_Char *data)
{
    (void)target;
    (void)data;
    bosh_xml_fail(vx, APR_EGENERAL, "restricted XML: a processing instruction");
}

static void on_doctype(void *vx, const XML_Char *name, const XML_Char *sysid, const XML_Char *pubid,
                       int has_internal)
{
    (void)name;
    (void)sysid;
    (void)pubid;
    (void)has_internal;
    bosh_xml_fail(vx, APR_EGENERAL, "restricted XML: a document type declaration");
}

/* Belt and braces: without a DTD expat itself refuses an unknown entity. */
static void on_entity(void *vx, const XML_Char *name, int is_parameter)
{
    (void)name;
    (void)is_parameter;
    bosh_xml_fail(vx, APR_EGENERAL, "restricted XML: an entity reference");
}

/* Comes before expat acts upon the encoding. */
static void on_xml_decl(void *vx, const XML_Char *version, const XML_Char *encoding, int standalone)
{
    static const char utf8[] = "UTF-8";
    size_t i = 0;

    (void)standalone;
    if (version == NULL || strcmp(version, "1.0") != 0) {
        bosh_xml_fail(vx, APR_EGENERAL, "an XML version other than 1.0");
    }
    if (encoding != NULL) {
        while (i < sizeof(utf8) && (encoding[i] == utf8[i] || encoding[i] == (utf8[i] | 0x20))) {
            i++;
        }
        if (i < sizeof(utf8)) {
            bosh_xml_fail(vx, APR_EGENERAL, "an encoding other than UTF-8");
        }
    }
}

/* ---- the object ---- */

bosh_scope_t *bosh_xml_scope(bosh_xml_t *x)
{
    return &x->scope;
}

void bosh_xml_seed(unsigned long secret)
{
    seed = secret;
}

bosh_xml_t *bosh_xml_create(const bosh_xml_sink_t *sink, void *ctx)
{
    bosh_xml_t *x = calloc(1, sizeof(*x));

    if (x != NULL) {
        x->sink = sink;
        x->ctx = ctx;
        x->scope.known_prefix = sink->known_prefix;
        x->scope.known_uri = sink->known_uri;
        x->rv = APR_EGENERAL; /* until the first reset */
        x->why = "not reset";
    }
    return x;
}

void bosh_xml_destroy(bosh_xml_t *x)
{
    if (x != NULL) {
        if (x->parser != NULL) {
            XML_ParserFree(x->parser);
        }
        bosh_scope_free(&x->scope);
        free(x);
    }
}

/* Handlers and settings: a reset drops them all. */
static void equip(bosh_xml_t *x)
{
    XML_Parser p = x->parser;

    XML_SetUserData(p, x);
    XML_SetReturnNSTriplet(p, XML_TRUE);
    XML_SetElementHandler(p, on_start, on_end);
    XML_SetStartNamespaceDeclHandler(p, on_decl);
    XML_SetStartCdataSectionHandler(p, on_cdata);
    XML_SetCommentHandler(p, on_comment);
    XML_SetProcessingInstructionHandler(p, on_instruction);
    XML_SetStartDoctypeDeclHandler(p, on_doctype);
    XML_SetSkippedEntityHandler(p, on_entity);
    XML_SetXmlDeclHandler(p, on_xml_decl);
    if (seed != 0) {
        XML_SetHashSalt(p, seed);
    }
    /* Deferral (expat 2.6, and Debian's 2.5) would keep back a stanza that is already complete
     * until more bytes come. The quadratic cost it guards against is bounded by the size limits
     * of the callers.
     */
    if (XML_SetReparseDeferralEnabled != NULL)
        XML_SetReparseDeferralEnabled(p, XML_FALSE);
}

apr_status_t bosh_xml_reset(bosh_xml_t *x)
{
    if (x->parser != NULL && (x->fed > KEEP_BYTES || !XML_ParserReset(x->parser, "UTF-8"))) {
        XML_ParserFree(x->parser);
        x->parser = NULL;
    }
    if (x->parser == NULL) {
        x->parser = XML_ParserCreateNS("UTF-8", SEPARATOR);
        if (x->parser == NULL) {
            x->rv = APR_ENOMEM;
            x->why = "out of memory";
            return x->rv;
        }
    }
    equip(x);
    x->rv = APR_SUCCESS;
    x->why = NULL;
    x->fed = 0;
    x->depth = 0;
    x->ndecls = 0;
    bosh_scope_reset(&x->scope);
    return APR_SUCCESS;
}

/* Expat takes UTF-16 by its byte order mark or its zero bytes, whatever encoding it was told. */
static bool looks_like_utf16(const bosh_xml_t *x, const char *data, size_t len)
{
    for (size_t i = 0; i < len && x->fed + i < 2; i++) {
        unsigned char c = (unsigned char)data[i];

        if (c == 0x00 || c >= 0xFE) {
            return true;
        }
    }
    return false;
}

apr_status_t bosh_xml_feed(bosh_xml_t *x, const char *data, size_t len, bool last, const char **why)
{
    if (x->rv == APR_SUCCESS) {
        if (len > INT_MAX / 2) {
            x->rv = APR_ENOSPC;
            x->why = "more bytes at once than the parser takes";
        } else if (looks_like_utf16(x, data, len)) {
            x->rv = APR_EGENERAL;
            x->why = "not UTF-8";
        } else {
            x->fed += len;
            if (XML_Parse(x->parser, data, (int)len, last) != XML_STATUS_OK &&
                x->rv == APR_SUCCESS) {
                enum XML_Error code = XML_GetErrorCode(x->parser);

                x->rv = code == XML_ERROR_NO_MEMORY ? APR_ENOMEM : APR_EGENERAL;
                x->why = XML_ErrorString(code);
            }
        }
    }
    if (x->why != NULL && why != NULL) {
        *why = x->why;
    }
    return x->rv;
}
