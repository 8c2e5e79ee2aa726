/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Returned stanzas. Called by bosh_down.c on a loop's thread, without a lock.
 *
 * Invariant: the output holds whole stanzas only. They carry no `from` (the server knows who we are) and nothing
 * of the original's content.
 */
#include "bosh_bounce.h"

#include <stdlib.h>
#include <string.h>

#include "bosh_xml.h"

#define NS_STANZAS "urn:ietf:params:xml:ns:xmpp-stanzas"
#define NS_CARBONS "urn:xmpp:carbons:"
#define NS_MAM     "urn:xmpp:mam:"

struct bosh_bounce_t {
    bosh_xml_t *xml;
    char *out;
    size_t n, cap;
    size_t stanza_at; /* where the answer to the present stanza begins */
};

/* ---- output ---- */

static void put(bosh_bounce_t *b, const char *text)
{
    size_t n = strlen(text);

    if (!bosh_xml_grow(&b->out, &b->cap, b->n + n, 1)) {
        bosh_xml_fail(b->xml, APR_ENOMEM, "out of memory");
        return;
    }
    memcpy(b->out + b->n, text, n);
    b->n += n;
}

static void put_attribute(bosh_bounce_t *b, const char *name, const char *value)
{
    size_t most = value != NULL ? 6 * strlen(value) : 0;

    if (value == NULL) {
        return;
    }
    put(b, name);
    if (!bosh_xml_grow(&b->out, &b->cap, b->n + most, 1)) {
        bosh_xml_fail(b->xml, APR_ENOMEM, "out of memory");
        return;
    }
    b->n += bosh_xml_escape(b->out + b->n, most, value);
    put(b, "'");
}

static void say(bosh_bounce_t *b, const bosh_xml_start_t *el, const char *stanza, const char *error)
{
    put(b, stanza);
    put_attribute(b, " to='", bosh_xml_attr(el, "", "from"));
    put_attribute(b, " id='", bosh_xml_attr(el, "", "id"));
    put(b, ">");
    put(b, error);
}

/* ---- judgement ---- */

static bool is(const char *value, const char *word)
{
    return value != NULL && strcmp(value, word) == 0;
}

/* `from` is the account of the resource `to`, or says nothing. */
static bool is_own(const char *from, const char *to)
{
    size_t n = from != NULL ? strlen(from) : 0;

    return n == 0 || (to != NULL && strncmp(from, to, n) == 0 && (to[n] == '/' || to[n] == '\0'));
}

static void judge(bosh_bounce_t *b, const bosh_xml_start_t *el)
{
    const char *type = bosh_xml_attr(el, "", "type");

    b->stanza_at = b->n;
    if (bosh_xml_name_is(&el->name, BOSH_NS_CLIENT, "iq")) {
        if (is(type, "get") || is(type, "set")) {
            say(b, el, "<iq type='error'",
                "<error type='cancel'><service-unavailable xmlns='" NS_STANZAS "'/></error></iq>");
        }
    } else if (bosh_xml_name_is(&el->name, BOSH_NS_CLIENT, "message")) {
        if (!is(type, "error") && !is(type, "groupchat") && !is(type, "headline") &&
            !is_own(bosh_xml_attr(el, "", "from"), bosh_xml_attr(el, "", "to"))) {
            say(b, el, "<message type='error'",
                "<error type='wait'><recipient-unavailable xmlns='" NS_STANZAS
                "'/></error></message>");
        }
    }
}

static bool begins(bosh_slice_t s, const char *prefix)
{
    size_t n = strlen(prefix);

    return s.n >= n && memcmp(s.p, prefix, n) == 0;
}

static void on_start(void *vb, const bosh_xml_start_t *el)
{
    bosh_bounce_t *b = vb;

    if (el->depth == 2) {
        judge(b, el);
    } else if (el->depth == 3 && (begins(el->name.ns, NS_CARBONS) || begins(el->name.ns, NS_MAM))) {
        b->n = b->stanza_at; /* a copy */
    }
}

static void on_end(void *vb, const bosh_xml_end_t *el)
{
    (void)vb;
    (void)el;
}

static const bosh_xml_sink_t sink = {.start = on_start, .end = on_end};

/* ---- the object ---- */

bosh_bounce_t *bosh_bounce_create(void)
{
    bosh_bounce_t *b = calloc(1, sizeof(*b));

    if (b != NULL && (b->xml = bosh_xml_create(&sink, b)) == NULL) {
        free(b);
        b = NULL;
    }
    return b;
}

void bosh_bounce_destroy(bosh_bounce_t *b)
{
    if (b != NULL) {
        bosh_xml_destroy(b->xml);
        free(b->out);
        free(b);
    }
}

/* Feeds one of the parts of a document. */
static apr_status_t feed(bosh_bounce_t *b, const char *text, size_t n, bool last)
{
    const char *why;

    return bosh_xml_feed(b->xml, text, n, last, &why);
}

apr_status_t bosh_bounce_add(bosh_bounce_t *b, const char *text, size_t n, bool whole)
{
    static const char open[] = "<body>", close[] = "</body>";
    apr_status_t rv = bosh_xml_reset(b->xml);

    b->stanza_at = b->n;
    if (rv == APR_SUCCESS && !whole) {
        rv = feed(b, open, sizeof(open) - 1, false);
    }
    if (rv == APR_SUCCESS) {
        rv = feed(b, text, n, whole);
    }
    if (rv == APR_SUCCESS && !whole) {
        rv = feed(b, close, sizeof(close) - 1, true);
    }
    if (rv != APR_SUCCESS) { /* what cannot be read to its end is not answered */
        b->n = b->stanza_at;
    }
    return rv;
}

const char *bosh_bounce_text(const bosh_bounce_t *b, size_t *n)
{
    *n = b->n;
    return b->out;
}
