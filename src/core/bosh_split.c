/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The splitter. Turns what an XMPP server sends into events that name byte ranges, and into the
 * edits that make each element complete in the browser's <body/>. Used by the loop thread that owns
 * the stream.
 *
 * Invariant: every byte below `boundary` belongs to something finished; a parser that begins at
 * `boundary` with the stream's prime goes on as if it had read everything before. Offsets: absolute
 * = the XML parser's own offset + shift, where shift makes up for the prime (fed to the parser
 * only) and for white space in front of the header (kept from the parser, which wants an XML
 * declaration at its very start).
 *
 *   <s:features>  <starttls ../>  <mechanisms ../>  </s:features >
 *    ^rename ^insert   ^cut                           ^rename     edits of one event, ascending
 */
#include "bosh_split.h"

#include <stdlib.h>
#include <string.h>

#include "bosh_news.h"
#include "bosh_scope.h"
#include "bosh_xml.h"

#define NS_COMPRESS_FEATURE "http://jabber.org/features/compress"

#define DEFAULT_PRIME                                                                              \
    "<stream:stream xmlns='" BOSH_NS_CLIENT "' xmlns:stream='" BOSH_NS_STREAMS "'>"

#define TOO_LARGE "an element larger than the limit"

/* A stream header may be larger than a very small max_stanza. */
#define MIN_HEADER 4096

/* An event list or text block that has grown beyond this is given back when it is empty. */
#define KEEP_ITEMS 512
#define KEEP_TEXT  (16 * 1024)

typedef enum phase_t { PH_HEADER, PH_OPEN, PH_OVER } phase_t;

struct bosh_splitter_t {
    bosh_xml_t *xml;
    size_t max_stanza;
    phase_t phase;
    apr_status_t rv; /* a failure stays until the next begin */
    const char *why;
    bool starved; /* out of memory */
    bool priming;
    bool started; /* something other than white space has been fed */
    int64_t shift;
    uint64_t fed, boundary;

    /* The element at depth 1 of the stream that is being read. */
    bosh_split_event_t cur;
    uint64_t name_end;
    size_t prefix_n;
    bool rename;          /* its prefix has to become `stream` */
    bool names_stream;    /* it names the prefix `stream` of the header */
    bool declares_stream; /* ... which it declares itself */
    bool cutting;
    bool in_other; /* inside of see-other-host */
    uint64_t cut_at;
    bosh_edit_t *cuts;
    size_t ncuts, cuts_cap;

    bosh_split_event_t *events;
    size_t nevents, events_cap;
    bosh_edit_t *edits; /* of all events, in their order */
    size_t nedits, edits_cap;

    bosh_split_header_t header;
    char *text; /* its strings */
    size_t text_cap;
};

static uint64_t absolute(const bosh_splitter_t *sp, int64_t offset)
{
    return (uint64_t)(offset + sp->shift);
}

/* No callback comes after this; the one that runs must not publish what it could not finish. */
static void no_memory(bosh_splitter_t *sp)
{
    sp->starved = true;
    bosh_xml_fail(sp->xml, APR_ENOMEM, "out of memory");
}

/* ---- the lists ---- */

/* The limit for what stands between the boundary and `end`, however it came in. */
static bool fits(const bosh_splitter_t *sp, uint64_t end)
{
    bool header = sp->phase == PH_HEADER && sp->max_stanza < MIN_HEADER;

    return end - sp->boundary <= (header ? MIN_HEADER : sp->max_stanza);
}

/* Publishes an event; everything up to its end is done with. */
static void add_event(bosh_splitter_t *sp, const bosh_split_event_t *ev)
{
    if (!fits(sp, ev->end)) {
        bosh_xml_fail(sp->xml, APR_ENOSPC, TOO_LARGE);
    } else if (sp->starved || !bosh_xml_grow(&sp->events, &sp->events_cap, sp->nevents + 1,
                                             sizeof(sp->events[0]))) {
        no_memory(sp);
    } else {
        sp->events[sp->nevents++] = *ev;
        sp->boundary = ev->end;
    }
}

/* One without edits. */
static void add_plain_event(bosh_splitter_t *sp, bosh_split_type_t type, int64_t start, int64_t end)
{
    bosh_split_event_t ev = {.type = type, .start = absolute(sp, start), .end = absolute(sp, end)};

    ev.out_len = (size_t)(end - start);
    add_event(sp, &ev);
}

/* For the event being made. */
static void add_edit(bosh_splitter_t *sp, uint64_t at, size_t drop, const char *text, size_t n)
{
    bosh_edit_t *edit;

    if (!bosh_xml_grow(&sp->edits, &sp->edits_cap, sp->nedits + 1, sizeof(sp->edits[0]))) {
        no_memory(sp);
        return;
    }
    edit = &sp->edits[sp->nedits++];
    edit->at = at;
    edit->drop = drop;
    edit->text = text;
    edit->n = n;
    sp->cur.nedits++;
    sp->cur.out_len = sp->cur.out_len - drop + n;
}

/* The list of edits may have moved while it grew. */
static void point_to_edits(bosh_splitter_t *sp)
{
    size_t first = 0;

    for (size_t i = 0; i < sp->nevents; i++) {
        sp->events[i].edits = sp->events[i].nedits > 0 ? sp->edits + first : NULL;
        first += sp->events[i].nedits;
    }
}

/* ---- the stream header ---- */

static bool is_default_header(const bosh_xml_start_t *el, const bosh_scope_t *sc)
{
    size_t n;
    const bosh_binding_t *b = bosh_scope_bindings(sc, &n);

    return n == 1 && b[0].known && bosh_xml_slice_is(el->name.prefix, "stream") &&
           bosh_xml_slice_is(bosh_scope_default(sc)->uri, BOSH_NS_CLIENT);
}

static char *put(char *at, const char *p, size_t n)
{
    if (n > 0) {
        memcpy(at, p, n);
    }
    return at + n;
}

/* The name must be the one the end tag will have. */
static char *put_prime(char *at, const bosh_xml_start_t *el, const bosh_scope_t *sc)
{
    size_t n;
    const bosh_binding_t *b = bosh_scope_bindings(sc, &n);
    const bosh_binding_t *dflt = bosh_scope_default(sc);

    *at++ = '<';
    if (el->name.prefix.n > 0) {
        at = put(at, el->name.prefix.p, el->name.prefix.n);
        *at++ = ':';
    }
    at = put(at, "stream", 6);
    at = put(at, dflt->text.p, dflt->text.n);
    for (size_t i = 0; i < n; i++) {
        at = put(at, b[i].text.p, b[i].text.n);
    }
    *at++ = '>';
    return at;
}

/* Copies the header's attributes and makes its prime. */
static void keep_header(bosh_splitter_t *sp, const bosh_xml_start_t *el)
{
    const bosh_scope_t *sc = bosh_xml_scope(sp->xml);
    bosh_split_header_t *h = &sp->header;
    const struct {
        const char **slot;
        const char *value;
    } strings[] = {
        {&h->id, bosh_xml_attr(el, "", "id")},
        {&h->from, bosh_xml_attr(el, "", "from")},
        {&h->version, bosh_xml_attr(el, "", "version")},
        {&h->lang, bosh_xml_attr(el, BOSH_NS_XML, "lang")},
    };
    char *at;

    /* Each character of the tag comes out as at most six bytes, and only once. */
    if (!bosh_xml_grow(&sp->text, &sp->text_cap, 6 * (size_t)(el->end - el->at) + 32, 1)) {
        no_memory(sp);
        return;
    }
    at = sp->text;
    for (size_t i = 0; i < 4; i++) {
        if (strings[i].value != NULL) {
            *strings[i].slot = at;
            at = put(at, strings[i].value, strlen(strings[i].value) + 1);
        }
    }
    if (!is_default_header(el, sc)) {
        h->prime = at;
        at = put_prime(at, el, sc);
        h->prime_len = (size_t)(at - h->prime);
    }
}

/* What the element itself binds the prefix `stream` to; NULL: nothing. */
static const char *own_stream_uri(const bosh_xml_start_t *el)
{
    for (size_t i = 0; i < el->ndecls; i++) {
        if (strcmp(el->decls[i].prefix, "stream") == 0) {
            return el->decls[i].uri;
        }
    }
    return NULL;
}

static bool usurps_stream_prefix(const bosh_xml_start_t *el)
{
    const char *uri = own_stream_uri(el);

    return uri != NULL && strcmp(uri, BOSH_NS_STREAMS) != 0;
}

static void read_header(bosh_splitter_t *sp, const bosh_xml_start_t *el)
{
    if (!bosh_xml_name_is(&el->name, BOSH_NS_STREAMS, "stream")) {
        bosh_xml_fail(sp->xml, APR_EGENERAL, "the stream header is no stream of etherx.jabber.org");
        return;
    }
    if (usurps_stream_prefix(el)) {
        bosh_xml_fail(sp->xml, APR_EGENERAL,
                      "the stream header gives `stream` to another namespace");
        return;
    }
    if (!sp->priming) {
        keep_header(sp, el);
        add_plain_event(sp, BOSH_SPLIT_HEADER, el->at, el->end);
    }
    sp->phase = PH_OPEN;
}

/* ---- elements ---- */

static void start_element(bosh_splitter_t *sp, const bosh_xml_start_t *el)
{
    memset(&sp->cur, 0, sizeof(sp->cur));
    sp->cur.type = bosh_news_type(&el->name);
    sp->cur.start = absolute(sp, el->at);
    sp->cur.proceed =
        sp->cur.type == BOSH_SPLIT_TLS && bosh_xml_slice_is(el->name.local, "proceed");
    sp->name_end = absolute(sp, el->name_end);
    sp->prefix_n = el->name.prefix.n;
    sp->names_stream = sp->rename = sp->cutting = sp->in_other = false;
    sp->declares_stream = own_stream_uri(el) != NULL;
    sp->ncuts = 0;
    if (bosh_xml_name_is(&el->name, BOSH_NS_STREAMS, "stream")) {
        bosh_xml_fail(sp->xml, APR_EGENERAL, "a stream header inside the stream");
    }
    if (sp->cur.type == BOSH_SPLIT_FEATURES || sp->cur.type == BOSH_SPLIT_ERROR) {
        sp->rename = !bosh_xml_slice_is(el->name.prefix, "stream");
        if (sp->rename && usurps_stream_prefix(el)) {
            bosh_xml_fail(sp->xml, APR_EGENERAL,
                          "an element of the stream's gives `stream` to another namespace");
        }
    }
}

/* Children of <features/> that are not the client's business. */
static void start_feature(bosh_splitter_t *sp, const bosh_xml_start_t *el)
{
    bool starttls = bosh_xml_name_is(&el->name, BOSH_NS_TLS, "starttls");

    if (starttls || bosh_xml_name_is(&el->name, NS_COMPRESS_FEATURE, "compression") ||
        bosh_xml_name_is(&el->name, BOSH_NS_COMPRESS, "compression")) {
        sp->cutting = true;
        sp->cut_at = absolute(sp, el->at);
        sp->cur.starttls = sp->cur.starttls || starttls;
    }
}

/* The header's own `stream` prefix, which nobody but features and errors has reason to use. */
static bool names_stream(const bosh_xml_start_t *el)
{
    bosh_xml_name_t name;

    if (bosh_xml_slice_is(el->name.prefix, "stream")) {
        return true;
    }
    for (const char **a = el->atts; *a != NULL; a += 2) {
        if (a[0][0] == BOSH_NS_STREAMS[0]) {
            bosh_xml_name(a[0], &name);
            if (bosh_xml_slice_is(name.prefix, "stream")) {
                return true;
            }
        }
    }
    return false;
}

static void on_start(void *vsp, const bosh_xml_start_t *el)
{
    bosh_splitter_t *sp = vsp;

    if (el->depth == 1) {
        read_header(sp, el);
        return;
    }
    if (el->depth == 2) {
        start_element(sp, el);
        sp->cur.news = bosh_news_of(sp->cur.type, el);
    } else if (sp->cur.type == BOSH_SPLIT_SASL) {
        sp->cur.news |= bosh_news_of(sp->cur.type, el);
    } else if (sp->cur.type == BOSH_SPLIT_FEATURES) {
        if (el->depth == 3) {
            start_feature(sp, el);
        } else if (el->depth == 4 && sp->cutting &&
                   bosh_xml_name_is(&el->name, BOSH_NS_TLS, "required")) {
            sp->cur.starttls_required = true;
        }
    } else if (sp->cur.other_at == 0 && bosh_news_elsewhere(sp->cur.type, el)) {
        sp->cur.other_at = absolute(sp, el->end);
        sp->in_other = true;
    }
    sp->names_stream = sp->names_stream || names_stream(el);
}

static void end_feature(bosh_splitter_t *sp, uint64_t end)
{
    if (!sp->cutting) {
        return;
    }
    sp->cutting = false;
    if (!bosh_xml_grow(&sp->cuts, &sp->cuts_cap, sp->ncuts + 1, sizeof(sp->cuts[0]))) {
        no_memory(sp);
        return;
    }
    sp->cuts[sp->ncuts].at = sp->cut_at;
    sp->cuts[sp->ncuts++].drop = (size_t)(end - sp->cut_at);
}

/* The prefix of the name at this offset becomes `stream`. */
static void add_rename(bosh_splitter_t *sp, uint64_t name_at)
{
    if (sp->prefix_n > 0) {
        add_edit(sp, name_at, sp->prefix_n, "stream", 6);
    } else {
        add_edit(sp, name_at, 0, "stream:", 7);
    }
}

static void add_declarations(bosh_splitter_t *sp)
{
    static const char stream_text[] = " xmlns:stream='" BOSH_NS_STREAMS "'";
    bosh_scope_t *sc = bosh_xml_scope(sp->xml);
    const bosh_binding_t *dflt = bosh_scope_default(sc);
    size_t n;
    const bosh_slice_t *inserts = bosh_scope_inserts(sc, sp->rename, &n);

    if (bosh_scope_inherits(sc, sp->rename)) {
        if (dflt->text.n > 0) {
            add_edit(sp, sp->name_end, 0, dflt->text.p, dflt->text.n);
        } else {
            add_edit(sp, sp->name_end, 0, " xmlns=''", 9);
        }
    }
    for (size_t i = 0; i < n; i++) {
        add_edit(sp, sp->name_end, 0, inserts[i].p, inserts[i].n);
    }
    if (sp->names_stream && !sp->declares_stream &&
        (sp->cur.type == BOSH_SPLIT_STANZA || sp->cur.type == BOSH_SPLIT_SASL)) {
        add_edit(sp, sp->name_end, 0, stream_text, sizeof(stream_text) - 1);
    }
}

static void end_element(bosh_splitter_t *sp, const bosh_xml_end_t *el)
{
    bosh_split_event_t *cur = &sp->cur;

    cur->end = absolute(sp, el->end);
    cur->out_len = (size_t)(cur->end - cur->start);
    if (cur->type != BOSH_SPLIT_TLS) {
        if (sp->rename) {
            add_rename(sp, cur->start + 1);
        }
        add_declarations(sp);
        for (size_t i = 0; i < sp->ncuts; i++) {
            add_edit(sp, sp->cuts[i].at, sp->cuts[i].drop, "", 0);
        }
        if (sp->rename && el->end > el->at) {
            add_rename(sp, absolute(sp, el->at) + 2);
        }
    }
    add_event(sp, cur);
    if (cur->type == BOSH_SPLIT_ERROR) {
        sp->phase = PH_OVER;
        bosh_xml_stop(sp->xml);
    }
}

static void on_end(void *vsp, const bosh_xml_end_t *el)
{
    bosh_splitter_t *sp = vsp;

    if (el->depth == 3) {
        end_feature(sp, absolute(sp, el->end));
        sp->cur.other_n += sp->in_other ? absolute(sp, el->at) - sp->cur.other_at : 0;
        sp->in_other = false;
    } else if (el->depth == 2) {
        end_element(sp, el);
    } else if (el->depth == 1) {
        add_plain_event(sp, BOSH_SPLIT_END, el->at, el->end);
        sp->phase = PH_OVER;
        bosh_xml_stop(sp->xml);
    }
}

static void on_space(void *vsp, int64_t end)
{
    bosh_splitter_t *sp = vsp;

    sp->boundary = absolute(sp, end);
}

static const bosh_xml_sink_t sink = {
    .start = on_start,
    .end = on_end,
    .space = on_space,
    .known_prefix = "stream",
    .known_uri = BOSH_NS_STREAMS,
};

/* ---- the object ---- */

bosh_splitter_t *bosh_split_create(size_t max_stanza)
{
    bosh_splitter_t *sp = calloc(1, sizeof(*sp));

    if (sp != NULL) {
        sp->max_stanza = max_stanza;
        sp->rv = APR_EGENERAL;
        sp->why = "not begun";
        sp->xml = bosh_xml_create(&sink, sp);
        if (sp->xml == NULL) {
            free(sp);
            return NULL;
        }
    }
    return sp;
}

void bosh_split_destroy(bosh_splitter_t *sp)
{
    if (sp != NULL) {
        bosh_xml_destroy(sp->xml);
        free(sp->cuts);
        free(sp->events);
        free(sp->edits);
        free(sp->text);
        free(sp);
    }
}

const char *bosh_split_default_prime(size_t *len)
{
    *len = sizeof(DEFAULT_PRIME) - 1;
    return DEFAULT_PRIME;
}

apr_status_t bosh_split_begin(bosh_splitter_t *sp, const char *prime, size_t prime_len)
{
    bosh_split_clear(sp);
    memset(&sp->header, 0, sizeof(sp->header));
    bosh_xml_trim(&sp->text, &sp->text_cap, KEEP_TEXT);
    bosh_xml_trim(&sp->cuts, &sp->cuts_cap, KEEP_ITEMS);
    sp->phase = PH_HEADER;
    sp->why = NULL;
    sp->starved = false;
    sp->shift = 0;
    sp->fed = sp->boundary = 0;
    sp->started = prime != NULL;
    sp->rv = bosh_xml_reset(sp->xml);
    if (prime != NULL && sp->rv == APR_SUCCESS) {
        sp->priming = true;
        sp->rv = bosh_xml_feed(sp->xml, prime, prime_len, false, &sp->why);
        sp->priming = false;
        sp->shift = -(int64_t)prime_len;
        if (sp->rv == APR_SUCCESS && sp->phase != PH_OPEN) {
            sp->rv = APR_EGENERAL;
            sp->why = "the prime is no stream header";
        }
    }
    return sp->rv;
}

/* White space in front of the header; returns its length. */
static size_t skip_space(bosh_splitter_t *sp, const char *data, size_t len)
{
    size_t n = 0;

    if (!sp->started) {
        while (n < len && strchr(" \t\r\n", data[n]) != NULL && data[n] != '\0') {
            n++;
        }
        sp->started = n < len;
        sp->shift += (int64_t)n;
        sp->boundary += n;
    }
    return n;
}

apr_status_t bosh_split_feed(bosh_splitter_t *sp, const char *data, size_t len, const char **why)
{
    const char *reason = sp->why;
    size_t skipped;

    if (sp->rv == APR_SUCCESS && sp->phase != PH_OVER) {
        sp->fed += len;
        skipped = skip_space(sp, data, len);
        if (skipped < len) {
            sp->rv = bosh_xml_feed(sp->xml, data + skipped, len - skipped, false, &reason);
        }
        if (sp->rv == APR_EOF) {
            sp->rv = APR_SUCCESS; /* our own stop */
        } else if (sp->rv == APR_SUCCESS && !fits(sp, sp->fed)) {
            sp->rv = APR_ENOSPC;
            reason = TOO_LARGE;
        }
        sp->why = reason;
        point_to_edits(sp);
    } else if (sp->rv == APR_SUCCESS) {
        sp->fed += len;
    }
    if (sp->rv == APR_SUCCESS && sp->phase == PH_OVER) {
        sp->boundary = sp->fed; /* what follows the end concerns nobody */
    }
    if (why != NULL && sp->rv != APR_SUCCESS) {
        *why = sp->why;
    }
    return sp->rv;
}

const bosh_split_event_t *bosh_split_events(const bosh_splitter_t *sp, size_t *n)
{
    *n = sp->nevents;
    return sp->events;
}

const bosh_split_header_t *bosh_split_header(const bosh_splitter_t *sp)
{
    return &sp->header;
}

void bosh_split_clear(bosh_splitter_t *sp)
{
    sp->nevents = sp->nedits = 0;
    bosh_xml_trim(&sp->events, &sp->events_cap, KEEP_ITEMS);
    bosh_xml_trim(&sp->edits, &sp->edits_cap, KEEP_ITEMS);
}

uint64_t bosh_split_boundary(const bosh_splitter_t *sp)
{
    return sp->boundary;
}

bool bosh_split_at_boundary(const bosh_splitter_t *sp)
{
    return sp->boundary == sp->fed;
}
