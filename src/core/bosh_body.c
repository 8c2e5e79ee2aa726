/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The <body/> wrapper: parses requests, prints the tags of answers. A parser object belongs to one
 * thread at a time (a worker takes it from a pool for one request); the printing functions are pure
 * and also run under the arena lock. Invariant: a bosh_req_t points only into the request buffer
 * and into the parser object, where all strings of the wrapper lie in one block that is sized
 * before the first of them is copied.
 *
 *   <body rid='..' xmlns:f='urn:f'>     wrapper: attributes -> req, declarations -> bosh_xml
 *       <message><f:x/></message>       pieces: "<message", " xmlns:f='urn:f'", "><f:x/></message>"
 *   </body>
 */
#include "bosh_body.h"

#include <stdlib.h>
#include <string.h>

#include "bosh_scope.h"
#include "bosh_xml.h"

#define KEEP_TEXT   (16 * 1024) /* a larger block or array is given back at the next parse */
#define KEEP_PIECES 1024

struct bosh_body_t {
    bosh_xml_t *xml;
    const char *buf;
    size_t len;
    bosh_req_t *req;

    bosh_piece_t *pieces;
    size_t npieces, pieces_cap;
    char *text; /* the wrapper's strings, and the text that repeats its xml:lang */
    size_t text_cap;
    bosh_slice_t lang_text; /* " xml:lang='..'"; n == 0: there is none to repeat */

    /* The child being read. */
    int64_t child_at, child_name_end;
    bool child_has_lang;

    bool open;    /* the text is only the beginning of a body */
    int64_t used; /* where its start tag, or its last complete child, ends */
};

/* ---- the wrapper's attributes ---- */

/* Digits only, at least one; larger values come out as `max`. */
static bool read_number(const char *s, uint64_t max, uint64_t *value)
{
    uint64_t v = 0;

    if (*s == '\0') {
        return false;
    }
    for (; *s != '\0'; s++) {
        if (*s < '0' || *s > '9') {
            return false;
        }
        if (v < max) { /* max is far below UINT64_MAX / 10 */
            v = v * 10 + (uint64_t)(*s - '0');
        }
    }
    *value = v < max ? v : max;
    return true;
}

static bool read_unsigned(const char *s, unsigned max, unsigned *value)
{
    uint64_t v;

    if (!read_number(s, max, &v)) {
        return false;
    }
    *value = (unsigned)v;
    return true;
}

/* MAJOR.MINOR, each at most six digits (B-071). */
static bool read_version(const char *s, unsigned *major, unsigned *minor)
{
    char part[8];
    const char *dot = strchr(s, '.');
    size_t n;

    if (dot == NULL) {
        return false;
    }
    n = (size_t)(dot - s);
    if (n > 6 || strlen(dot + 1) > 6) {
        return false;
    }
    memcpy(part, s, n);
    part[n] = '\0';
    return read_unsigned(part, 999999, major) && read_unsigned(dot + 1, 999999, minor);
}

/* Where the string attributes of no namespace go. */
static const char **string_slot(bosh_req_t *req, bosh_slice_t name)
{
    static const struct {
        const char *name;
        size_t offset;
    } slots[] = {
        {"sid", offsetof(bosh_req_t, sid)},         {"to", offsetof(bosh_req_t, to)},
        {"from", offsetof(bosh_req_t, from)},       {"route", offsetof(bosh_req_t, route)},
        {"content", offsetof(bosh_req_t, content)}, {"key", offsetof(bosh_req_t, key)},
        {"newkey", offsetof(bosh_req_t, newkey)},   {"stream", offsetof(bosh_req_t, stream)},
    };

    for (size_t i = 0; i < sizeof(slots) / sizeof(slots[0]); i++) {
        if (bosh_xml_slice_is(name, slots[i].name)) {
            return (const char **)(void *)((char *)req + slots[i].offset);
        }
    }
    return NULL;
}

/* The same for any namespace; NULL for an attribute that is no string or unknown. */
static const char **slot_of(bosh_req_t *req, const bosh_xml_name_t *name)
{
    if (name->ns.n == 0) {
        return string_slot(req, name->local);
    }
    if (bosh_xml_name_is(name, BOSH_NS_XML, "lang")) {
        return &req->lang;
    }
    if (bosh_xml_name_is(name, BOSH_NS_XBOSH, "version")) {
        return &req->xmpp_version;
    }
    return NULL;
}

/* Copies the strings: first of all, because a bad number must not hide the sid (B-044). */
static apr_status_t copy_strings(bosh_body_t *b, const bosh_xml_start_t *el)
{
    bosh_req_t *req = b->req;
    bosh_xml_name_t name;
    size_t need = 0;
    char *at;

    for (const char **a = el->atts; *a != NULL; a += 2) {
        bosh_xml_name(a[0], &name);
        if (slot_of(req, &name) != NULL) {
            need += 7 * strlen(a[1]) + 32; /* the string, and escaped as xml:lang */
        }
    }
    if (!bosh_xml_grow(&b->text, &b->text_cap, need, 1)) {
        return APR_ENOMEM;
    }
    at = b->text;
    for (const char **a = el->atts; *a != NULL; a += 2) {
        const char **slot;

        bosh_xml_name(a[0], &name);
        slot = slot_of(req, &name);
        if (slot != NULL) {
            size_t n = strlen(a[1]) + 1;

            *slot = memcpy(at, a[1], n);
            at += n;
        }
    }
    if (req->sid != NULL) {
        req->has |= BOSH_HAS_SID;
        if (req->lang != NULL) { /* X-011; at creation it is the stream's own */
            b->lang_text.p = at;
            memcpy(at, " xml:lang='", 11);
            at += 11;
            at += bosh_xml_escape(at, 6 * strlen(req->lang), req->lang);
            *at++ = '\'';
            b->lang_text.n = (size_t)(at - b->lang_text.p);
        }
    }
    return APR_SUCCESS;
}

/* Everything that is no string. Returns NULL or what is wrong. */
static const char *read_attribute(bosh_req_t *req, const bosh_xml_name_t *name, const char *value)
{
    uint64_t big;

    if (name->ns.n > 0) {
        if (bosh_xml_name_is(name, BOSH_NS_XBOSH, "restart")) {
            req->restart = strcmp(value, "true") == 0 || strcmp(value, "1") == 0;
        }
    } else if (bosh_xml_slice_is(name->local, "rid")) {
        if (!read_number(value, BOSH_RID_MAX + 1, &big) || big == 0 || big > BOSH_RID_MAX) {
            return "rid is not an integer from 1 to 2^53 - 1";
        }
        req->rid = big;
        req->has |= BOSH_HAS_RID;
    } else if (bosh_xml_slice_is(name->local, "ack")) {
        if (!read_number(value, BOSH_RID_MAX + 1, &req->ack)) {
            return "ack is not a non-negative integer";
        }
        req->has |= BOSH_HAS_ACK;
    } else if (bosh_xml_slice_is(name->local, "ver")) {
        req->has |= BOSH_HAS_VER; /* also when malformed: such a client is no legacy client */
        if (!read_version(value, &req->ver_major, &req->ver_minor)) {
            req->ver_major = req->ver_minor = 0;
            return "ver is not MAJOR.MINOR";
        }
    } else if (bosh_xml_slice_is(name->local, "wait")) {
        if (!read_unsigned(value, 65535, &req->wait)) {
            return "wait is not a non-negative integer";
        }
        req->has |= BOSH_HAS_WAIT;
    } else if (bosh_xml_slice_is(name->local, "hold")) {
        if (!read_unsigned(value, 255, &req->hold)) {
            return "hold is not a non-negative integer";
        }
        req->has |= BOSH_HAS_HOLD;
    } else if (bosh_xml_slice_is(name->local, "pause")) {
        if (!read_unsigned(value, UINT32_MAX, &req->pause)) {
            return "pause is not a non-negative integer";
        }
        req->has |= BOSH_HAS_PAUSE;
    } else if (bosh_xml_slice_is(name->local, "type")) {
        /* gloox 1.0 says "terminal", which has no other meaning: its sessions would linger until they expire. */
        req->terminate = strcmp(value, "terminate") == 0 || strcmp(value, "terminal") == 0;
    }
    return NULL;
}

static void read_wrapper(bosh_body_t *b, const bosh_xml_start_t *el)
{
    const char *first_fault = NULL;

    if (!bosh_xml_name_is(&el->name, BOSH_NS_HTTPBIND, "body")) {
        bosh_xml_fail(b->xml, APR_EGENERAL, "the root is not a body element of httpbind");
        return;
    }
    if (copy_strings(b, el) != APR_SUCCESS) {
        bosh_xml_fail(b->xml, APR_ENOMEM, "out of memory");
        return;
    }
    for (const char **a = el->atts; *a != NULL; a += 2) {
        bosh_xml_name_t name;
        const char *fault;

        bosh_xml_name(a[0], &name);
        fault = read_attribute(b->req, &name, a[1]);
        if (first_fault == NULL) {
            first_fault = fault;
        }
    }
    if (first_fault == NULL && !(b->req->has & BOSH_HAS_RID)) {
        first_fault = "rid is missing";
    }
    if (first_fault != NULL) {
        bosh_xml_fail(b->xml, APR_EGENERAL, first_fault);
    }
}

/* ---- the payload ---- */

static void begin_child(bosh_body_t *b, const bosh_xml_start_t *el)
{
    b->req->has |= BOSH_HAS_PAYLOAD;
    if (bosh_xml_slice_is(el->name.ns, BOSH_NS_STREAMS)) {
        bosh_xml_fail(b->xml, APR_EGENERAL, "a payload in the streams namespace");
    } else if (bosh_xml_name_is(&el->name, BOSH_NS_TLS, "starttls")) {
        bosh_xml_fail(b->xml, APR_EGENERAL, "a starttls payload");
    } else if (bosh_xml_name_is(&el->name, BOSH_NS_COMPRESS, "compress")) {
        bosh_xml_fail(b->xml, APR_EGENERAL, "a compress payload");
    }
    b->child_at = el->at;
    b->child_name_end = el->name_end;
    b->child_has_lang = b->lang_text.n > 0 && bosh_xml_attr(el, BOSH_NS_XML, "lang") != NULL;
}

static void add_piece(bosh_body_t *b, const char *p, size_t n, bool last)
{
    bosh_piece_t *piece = &b->pieces[b->npieces++];

    piece->p = p;
    piece->n = n;
    piece->last = last;
    b->req->payload_bytes += n;
}

/* The default namespace a child must be told, since the upstream's own default is jabber:client. */
static bosh_slice_t default_text(const bosh_body_t *b)
{
    static const bosh_slice_t none = {NULL, 0};
    const bosh_scope_t *sc = bosh_xml_scope(b->xml);
    const bosh_binding_t *dflt = bosh_scope_default(sc);

    if (!bosh_scope_inherits(sc, false) || bosh_xml_slice_is(dflt->uri, BOSH_NS_HTTPBIND) ||
        bosh_xml_slice_is(dflt->uri, BOSH_NS_CLIENT)) {
        return none;
    }
    return dflt->text;
}

static void end_child(bosh_body_t *b, const bosh_xml_end_t *el)
{
    size_t ninserts;
    const bosh_slice_t *inserts = bosh_scope_inserts(bosh_xml_scope(b->xml), false, &ninserts);
    bosh_slice_t dflt = default_text(b);
    bool lang = b->lang_text.n > 0 && !b->child_has_lang;
    int64_t at = b->child_at;

    if (b->req->nstanzas >= BOSH_MAX_STANZAS) {
        bosh_xml_fail(b->xml, APR_EGENERAL, "too many payloads in one request");
        return;
    }
    if (!bosh_xml_grow(&b->pieces, &b->pieces_cap, b->npieces + ninserts + 4,
                       sizeof(b->pieces[0]))) {
        bosh_xml_fail(b->xml, APR_ENOMEM, "out of memory");
        return;
    }
    if (dflt.n > 0 || ninserts > 0 || lang) {
        add_piece(b, b->buf + at, (size_t)(b->child_name_end - at), false);
        at = b->child_name_end;
    }
    if (dflt.n > 0) {
        add_piece(b, dflt.p, dflt.n, false);
    }
    for (size_t i = 0; i < ninserts; i++) {
        add_piece(b, inserts[i].p, inserts[i].n, false);
    }
    if (lang) {
        add_piece(b, b->lang_text.p, b->lang_text.n, false);
    }
    add_piece(b, b->buf + at, (size_t)(el->end - at), true);
    b->req->nstanzas++;
    if (b->req->payload_bytes > 2 * b->len + BOSH_MAX_GROWTH) {
        bosh_xml_fail(b->xml, APR_EGENERAL, "namespace declarations make the payload too large");
    }
}

static void on_start(void *vb, const bosh_xml_start_t *el)
{
    if (el->depth == 1) {
        ((bosh_body_t *)vb)->used = el->end;
        read_wrapper(vb, el);
    } else if (el->depth == 2) {
        begin_child(vb, el);
    }
}

static void on_end(void *vb, const bosh_xml_end_t *el)
{
    bosh_body_t *b = vb;

    if (el->depth == 2) {
        b->used = el->end;
        end_child(b, el);
    } else if (el->depth == 1 && b->open) {
        bosh_xml_fail(b->xml, APR_EGENERAL, "the end of the wrapper within its text");
    }
}

static const bosh_xml_sink_t sink = {.start = on_start, .end = on_end};

/* ---- the parser object ---- */

bosh_body_t *bosh_body_create(void)
{
    bosh_body_t *b = calloc(1, sizeof(*b));

    if (b != NULL) {
        b->xml = bosh_xml_create(&sink, b);
        if (b->xml == NULL) {
            free(b);
            return NULL;
        }
    }
    return b;
}

void bosh_body_destroy(bosh_body_t *b)
{
    if (b != NULL) {
        bosh_xml_destroy(b->xml);
        free(b->pieces);
        free(b->text);
        free(b);
    }
}

void bosh_body_forget(bosh_body_t *b)
{
    bosh_xml_trim(&b->text, &b->text_cap, KEEP_TEXT);
    bosh_xml_trim(&b->pieces, &b->pieces_cap, KEEP_PIECES);
    b->npieces = 0;
    b->lang_text.n = 0;
}

static apr_status_t parse(bosh_body_t *b, const char *buf, size_t len, bool open, bosh_req_t *req,
                          const char **why)
{
    const char *ignored;
    apr_status_t rv;

    memset(req, 0, sizeof(*req));
    bosh_body_forget(b);
    b->buf = buf;
    b->len = len;
    b->req = req;
    b->open = open;
    b->used = 0;
    if (why == NULL) {
        why = &ignored;
    }
    *why = NULL;
    rv = bosh_xml_reset(b->xml);
    if (rv != APR_SUCCESS) {
        *why = "out of memory";
        return rv;
    }
    rv = bosh_xml_feed(b->xml, buf, len, !open, why);
    req->pieces = b->pieces;
    req->npieces = b->npieces;
    if (rv == APR_SUCCESS && b->used == 0) { /* open: else the parser has seen to that */
        *why = "no start tag";
        rv = APR_EGENERAL;
    }
    if (rv == APR_SUCCESS && (req->key != NULL || req->newkey != NULL)) {
        bosh_key_read(&req->keys, req->key, req->newkey);
    }
    return rv == APR_SUCCESS || rv == APR_ENOMEM ? rv : APR_EGENERAL;
}

apr_status_t bosh_body_parse(bosh_body_t *b, const char *buf, size_t len, bosh_req_t *req,
                             const char **why)
{
    return parse(b, buf, len, false, req, why);
}

apr_status_t bosh_body_parse_open(bosh_body_t *b, const char *buf, size_t len, bosh_req_t *req,
                                  size_t *used, const char **why)
{
    apr_status_t rv = parse(b, buf, len, true, req, why);

    *used = (size_t)b->used;
    return rv;
}

/* ---- answers ---- */

/* In the order of bosh_cond_t. */
static const char *const conditions[BOSH_COND_COUNT] = {
    NULL,
    "bad-request",
    "host-gone",
    "host-unknown",
    "improper-addressing",
    "internal-server-error",
    "item-not-found",
    "other-request",
    "policy-violation",
    "remote-connection-failed",
    "remote-stream-error",
    "see-other-uri",
    "system-shutdown",
    "undefined-condition",
};

const char *bosh_body_condition(bosh_cond_t cond)
{
    return (unsigned)cond < BOSH_COND_COUNT ? conditions[cond] : NULL;
}

size_t bosh_body_escape(char *dst, size_t size, const char *s)
{
    return bosh_xml_escape(dst, size, s);
}

static char *put(char *at, const char *s)
{
    size_t n = strlen(s);

    memcpy(at, s, n);
    return at + n;
}

static char *put_number(char *at, const char *name, uint64_t v)
{
    char digits[20];
    size_t n = sizeof(digits);

    do {
        digits[--n] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    at = put(at, name);
    memcpy(at, digits + n, sizeof(digits) - n);
    at += sizeof(digits) - n;
    *at++ = '\'';
    return at;
}

/* name is " attribute='"; max is the longest value in characters, which BOSH_BODY_OPEN_MAX
 * relies on.
 */
static char *put_string(char *at, const char *name, const char *value, size_t max)
{
    if (value == NULL || *value == '\0') {
        return at;
    }
    at = put(at, name);
    at += bosh_xml_escape(at, 6 * max, value);
    *at++ = '\'';
    return at;
}

static char *put_creation(char *at, const bosh_ans_t *ans)
{
    at = put_string(at, " sid='", ans->sid, BOSH_SID_LEN);
    at = put_number(at, " wait='", ans->wait);
    at = put_number(at, " requests='", ans->requests);
    at = put_number(at, " hold='", ans->hold);
    if (ans->inactivity > 0) {
        at = put_number(at, " inactivity='", ans->inactivity);
    }
    if (ans->polling > 0) {
        at = put_number(at, " polling='", ans->polling);
    }
    if (ans->maxpause > 0) {
        at = put_number(at, " maxpause='", ans->maxpause);
    }
    if (ans->ver_major > 0) {
        at = put_number(at, " ver='", ans->ver_major);
        at[-1] = '.';
        at = put_number(at, "", ans->ver_minor);
    }
    return put_string(at, " accept='", ans->accept, 32);
}

static char *put_fate(char *at, const bosh_ans_t *ans)
{
    const char *name = bosh_body_condition(ans->cond);

    if (ans->flags & BOSH_ANS_TERMINATE) {
        at = put(at, " type='terminate'");
        at = put_string(at, " condition='", name, 32);
    } else if (ans->flags & BOSH_ANS_ERROR) {
        at = put(at, " type='error'");
    }
    return at;
}

size_t bosh_body_print_open(char *dst, const bosh_ans_t *ans, bool empty)
{
    bool announce = (ans->flags & BOSH_ANS_ANNOUNCE) != 0;
    bool creation = (ans->flags & BOSH_ANS_CREATION) != 0;
    bool version = announce && ans->xmpp_version != NULL && ans->xmpp_version[0] != '\0';
    char *at = put(dst, "<body xmlns='" BOSH_NS_HTTPBIND "'");

    if (creation || version) {
        at = put(at, " xmlns:xmpp='" BOSH_NS_XBOSH "'");
    }
    if (ans->flags & BOSH_ANS_STREAM_NS) {
        at = put(at, " xmlns:stream='" BOSH_NS_STREAMS "'");
    }
    if (creation) {
        at = put_creation(at, ans);
        at = put(at, " xmpp:restartlogic='true'"); /* in this answer and in no other */
    }
    at = put_string(at, " stream='", ans->stream, BOSH_SID_LEN);
    if (announce) {
        at = put_string(at, " from='", ans->from, BOSH_MAX_DOMAIN);
        at = put_string(at, " authid='", ans->authid, BOSH_MAX_STREAMID);
    }
    if (version) {
        at = put_string(at, " xmpp:version='", ans->xmpp_version, 32);
    }
    at = put_string(at, " xml:lang='", ans->lang, BOSH_MAX_LANG);
    at = put_fate(at, ans);
    if (ans->flags & BOSH_ANS_ACK) {
        at = put_number(at, " ack='", ans->ack);
    }
    if (ans->flags & BOSH_ANS_REPORT) {
        at = put_number(at, " report='", ans->report);
        at = put_number(at, " time='", ans->time);
    }
    at = put(at, empty ? "/>" : ">");
    return (size_t)(at - dst);
}
