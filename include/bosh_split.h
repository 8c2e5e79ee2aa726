/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_split: the bytes of an upstream XMPP stream -> header, features, stanza, error, end.
 *
 * The splitter never owns the bytes: they lie in the arena (bosh_link_t.raw) and it answers with
 * offsets and edits, so that stanzas are copied verbatim from the raw bytes and a half-read stanza
 * can be handed to another process and fed there again. An idle stream at a stanza boundary needs
 * no splitter: it can be given to another stream (bosh_split_begin()).
 *
 * Offsets are absolute: byte 0 is the first byte fed after bosh_split_begin(). Used by one thread
 * at a time (the loop thread that owns the stream). Pure.
 */
#ifndef BOSH_SPLIT_H
#define BOSH_SPLIT_H

#include "bosh.h"

typedef enum bosh_split_type_t {
    BOSH_SPLIT_HEADER = 1, /* the <stream:stream ...> start tag: see bosh_split_header() */
    BOSH_SPLIT_FEATURES,   /* {streams}features */
    BOSH_SPLIT_SASL,       /* any element in the SASL or SASL2 namespace (X-002: never mixed) */
    BOSH_SPLIT_TLS,        /* {xmpp-tls}proceed or failure, for the stream's own use */
    BOSH_SPLIT_STANZA,     /* anything else at depth 1 */
    BOSH_SPLIT_ERROR,      /* {streams}error */
    BOSH_SPLIT_END         /* </stream:stream> */
} bosh_split_type_t;

/* One change to the verbatim bytes: at absolute offset `at` drop `drop` bytes, then insert
 * `text`. Several insertions may stand at the same offset; they follow each other in the order
 * of the list.
 */
typedef struct bosh_edit_t {
    uint64_t at;
    size_t drop;
    const char *text; /* lives in the splitter until the next bosh_split_begin() */
    size_t n;
} bosh_edit_t;

/* What an element tells about the session. */
#define BOSH_NEWS_LOGIN 0x01u /* the client has logged in: the server sends what no stranger gets */
#define BOSH_NEWS_SM                                                                               \
    0x02u /* stream management is on (XEP-0198): the server knows what was not delivered */

typedef struct bosh_split_event_t {
    bosh_split_type_t type;
    uint64_t start, end;      /* the element's bytes are [start, end) */
    const bosh_edit_t *edits; /* ascending, not overlapping */
    size_t nedits;
    size_t out_len;         /* length after the edits */
    bool starttls;          /* FEATURES: the server offered starttls (cut out) */
    bool starttls_required; /* ... with <required/> */
    bool proceed;           /* TLS: it is <proceed/> */
    uint8_t news;           /* BOSH_NEWS_* */
    uint64_t other_at;      /* ERROR see-other-host: where the text of that element begins */
    size_t other_n;         /* ... its length, as it is written; 0: no such error, or empty */
} bosh_split_event_t;

/* The server's stream header; strings live in the splitter until the next begin. */
typedef struct bosh_split_header_t {
    const char *id, *from, *version, *lang; /* NULL when absent */
    const char *
        prime; /* text to prime a later parser with; NULL when bosh_split_default_prime() will do */
    size_t prime_len;
} bosh_split_header_t;

typedef struct bosh_splitter_t bosh_splitter_t;

/* max_stanza bounds one element in bytes (BoshMaxStanza). NULL: no memory. */
bosh_splitter_t *bosh_split_create(size_t max_stanza);
void bosh_split_destroy(bosh_splitter_t *sp);

/*
 * Starts on a new stream. prime == NULL: a stream header is expected next (white space and an XML
 * declaration may precede it, X-046). Otherwise the stream is already open and stands at a stanza
 * boundary: `prime` is what bosh_split_header() gave (or the default prime); it is fed internally
 * and does not count in offsets. Expat's parser is kept and reset, not made anew. APR_ENOMEM
 * possible.
 */
apr_status_t bosh_split_begin(bosh_splitter_t *sp, const char *prime, size_t prime_len);

/* The prime of a header that declares nothing beyond jabber:client and `stream`: needs no
 * storage.
 */
const char *bosh_split_default_prime(size_t *len);

/*
 * Feeds bytes. Events are added to the list behind bosh_split_events(). What comes after ERROR or
 * END is ignored (APR_SUCCESS); a failure stays. Returns APR_SUCCESS; APR_EGENERAL: malformed or
 * restricted XML, wrong namespace of the stream header, text outside elements; APR_ENOSPC: an
 * element beyond max_stanza or too deep; APR_ENOMEM. `*why` (may be NULL) gets static text for the
 * log. Events found before the fault are in the list all the same. White space between elements
 * makes no event.
 *
 * Every STANZA, SASL, FEATURES and ERROR event's edits make the element namespace-complete inside a
 * <body xmlns=httpbind xmlns:stream=streams>: xmlns='jabber:client' (or the stream's default
 * namespace) when the element or a descendant is unprefixed and inherits it, the stream header's
 * other prefixes when used and not declared there; STANZA and SASL also
 * declare `stream` in the unusual case that they use it, so that they need no help from the body.
 * FEATURES and ERROR always come out with the prefix `stream` and no own declaration of it is
 * needed. starttls and compression are cut out of FEATURES, nothing else is
 * touched.
 */
apr_status_t bosh_split_feed(bosh_splitter_t *sp, const char *data, size_t len, const char **why);

const bosh_split_event_t *bosh_split_events(const bosh_splitter_t *sp, size_t *n);
const bosh_split_header_t *bosh_split_header(const bosh_splitter_t *sp);

/* Forgets the events once they are applied. */
void bosh_split_clear(bosh_splitter_t *sp);

/* All bytes before this absolute offset are done with: header, whole elements, white space
 * between.
 */
uint64_t bosh_split_boundary(const bosh_splitter_t *sp);

/* True when every byte fed lies before the boundary: the parser may be given to another stream. */
bool bosh_split_at_boundary(const bosh_splitter_t *sp);

#endif
