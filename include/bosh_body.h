/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_body: the <body/> wrapper, both directions. Pure: works on the caller's buffers.
 *
 * Requests: one complete XML document (XEP-0124 section 6) becomes a bosh_req_t whose strings and
 * payload pieces point into the request buffer or into the parser object; all stay valid until the
 * next parse with the same object. Responses: the start and end tags are printed from a bosh_ans_t.
 */
#ifndef BOSH_BODY_H
#define BOSH_BODY_H

#include "bosh.h"
#include "bosh_key.h"

/* What the request carried (bosh_req_t.has). */
#define BOSH_HAS_RID     0x0001u
#define BOSH_HAS_SID     0x0002u /* also when empty: an empty sid is an invalid sid (B-061) */
#define BOSH_HAS_WAIT    0x0004u
#define BOSH_HAS_HOLD    0x0008u
#define BOSH_HAS_VER     0x0010u
#define BOSH_HAS_ACK     0x0020u
#define BOSH_HAS_PAUSE   0x0040u
#define BOSH_HAS_PAYLOAD 0x0080u /* at least one child element, forwardable or not */

/* One piece of payload text. A stanza is one or more pieces; the last one has `last` set. */
typedef struct bosh_piece_t {
    const char *p;
    size_t n;
    bool last;
} bosh_piece_t;

/* What the caller adds to a request that may open a stream: a creation, or one that adds a stream (16.3). */
typedef struct bosh_opening_t {
    uint8_t name[BOSH_SID_BYTES]; /* random: what the stream will be called */
    /* Adding: */
    const char *to;    /* checked and folded */
    bosh_cond_t cond;  /* why there is no server for it; BOSH_COND_NONE: there is one */
    uint32_t owner;    /* the peer that is to connect to it */
    uint16_t upstream; /* row in its table */
} bosh_opening_t;

typedef struct bosh_req_t {
    unsigned has;        /* BOSH_HAS_* */
    uint64_t rid;        /* 1..BOSH_RID_MAX */
    uint64_t ack;        /* valid with BOSH_HAS_ACK */
    unsigned wait, hold; /* clamped to 65535 / 255 when larger */
    unsigned pause;      /* seconds */
    unsigned ver_major, ver_minor;
    bool terminate; /* type='terminate', or 'terminal' as gloox writes it */
    bool restart;   /* {urn:xmpp:xbosh}restart is true or 1 */
    bool script;    /* set by the caller: it came in script syntax (XEP-0252) */
    bool raw;       /* ... and its pieces are the start tag and text to be joined: bosh_join.h */
    /* NUL-terminated, UTF-8, entities resolved; NULL when the attribute is absent. */
    const char *sid;
    const char *to;
    const char *from;
    const char *route;
    const char *lang; /* xml:lang */
    const char *content;
    const char *key;
    const char *newkey;
    bosh_key_t keys; /* those two, ready to be compared */
    const char *stream;
    const bosh_opening_t *opening; /* set by the caller; NULL: sessions have one stream each */
    const char *xmpp_version;      /* {urn:xmpp:xbosh}version */
    /* The payload: complete child elements made namespace-complete for a jabber:client stream. */
    const bosh_piece_t *pieces;
    size_t npieces;
    size_t nstanzas;
    size_t payload_bytes;
} bosh_req_t;

typedef struct bosh_body_t bosh_body_t;

/* Makes a parser that can be used for any number of requests, by one thread at a time. NULL: no memory. */
bosh_body_t *bosh_body_create(void);
void bosh_body_destroy(bosh_body_t *b);

/* Gives back the memory that an unusually large request has made the parser take; the results of the last
 * parse are gone. */
void bosh_body_forget(bosh_body_t *b);

/*
 * Parses one whole request body of `len` bytes at `buf`, which must stay unchanged while `req` is in use.
 *
 * Returns APR_SUCCESS, or APR_EGENERAL when the text breaks a rule of XEP-0124 section 6 or a schema
 * type (answer: bad-request), or APR_ENOMEM. `*why` (may be NULL) gets a short English reason, static
 * text, for the log. On APR_EGENERAL `req->has & BOSH_HAS_SID`, `req->sid` and `req->has & BOSH_HAS_VER`
 * are still set if the start tag had been read, so that the session named there can be ended (B-044).
 *
 * Rules (PROTOCOL.md section 2): root is exactly one {httpbind}body with any prefix; no comment, PI, DTD;
 * only the five predefined entities; XML 1.0, UTF-8 only (declaration and BOM accepted); no character data
 * but white space directly inside the wrapper; depth <= BOSH_XML_MAX_DEPTH, attributes per element <=
 * BOSH_XML_MAX_ATTRS; rid required, 1..BOSH_RID_MAX, digits only; wait, hold, pause, ack digits only;
 * ver is MAJOR.MINOR digits only, else APR_EGENERAL; unknown attributes ignored; type other than
 * 'terminate' ignored (B-259).
 *
 * Payload (X-005..X-015): a child slice is the verbatim text of the element with, inserted behind its
 * name, (a) xmlns='..' when it inherits from the wrapper a default namespace that is neither httpbind nor
 * jabber:client (a prefixed wrapper's own default, X-009), (b) each prefix declared on the wrapper whose
 * "prefix:" occurs in the slice and which the child does not declare itself, (c) xml:lang of the
 * wrapper when the child has none and the request is not a session creation (no sid).
 * payload_bytes counts the insertions: many small children that each use a long namespace of the wrapper
 * can make it exceed `len` a thousandfold, so compare it with a limit before copying.
 * More than BOSH_MAX_STANZAS children, or more than 2 * len + BOSH_MAX_GROWTH bytes of payload: APR_EGENERAL.
 * A child in the streams namespace, or {xmpp-tls}starttls, or {compress}compress: APR_EGENERAL (X-013..015).
 */
apr_status_t bosh_body_parse(bosh_body_t *b, const char *buf, size_t len, bosh_req_t *req,
                             const char **why);

/*
 * The same for the beginning of a request body, which ends anywhere behind the wrapper's start tag: `req` has the
 * children that are complete. *used: how much of the text they, or the start tag, end with. APR_EGENERAL, too, when
 * the wrapper's end tag is there, or its start tag is not.
 */
apr_status_t bosh_body_parse_open(bosh_body_t *b, const char *buf, size_t len, bosh_req_t *req,
                                  size_t *used, const char **why);

/* Whether it transmits nothing for any stream. */
static inline bool bosh_body_is_empty(const bosh_req_t *req)
{
    return !(req->has & BOSH_HAS_PAYLOAD) && !req->restart && !req->terminate;
}

/* 16.3: an empty request in a session that names a domain. */
static inline bool bosh_body_adds_stream(const bosh_req_t *req)
{
    return bosh_body_is_empty(req) && (req->has & BOSH_HAS_SID) && !(req->has & BOSH_HAS_PAUSE) &&
           req->to != NULL && req->to[0] != '\0';
}

/* What an answer's start tag says. Zero-initialize, then set what is needed. */
#define BOSH_ANS_CREATION                                                                          \
    0x01u /* sid, wait, requests, hold, inactivity, polling, maxpause, ver, accept, restartlogic */
#define BOSH_ANS_ANNOUNCE  0x02u /* from, authid, xmpp:version */
#define BOSH_ANS_STREAM_NS 0x04u /* xmlns:stream, for features and errors */
#define BOSH_ANS_TERMINATE 0x08u /* type='terminate', condition unless BOSH_COND_NONE */
#define BOSH_ANS_ERROR     0x10u /* type='error' (17.3), called RB in the checklist */
#define BOSH_ANS_ACK       0x20u
#define BOSH_ANS_REPORT    0x40u

typedef struct bosh_ans_t {
    unsigned flags; /* BOSH_ANS_* */
    bosh_cond_t cond;
    const char *sid;
    const char *stream; /* NULL: omitted (16.2, 16.4) */
    unsigned wait, requests, hold;
    unsigned inactivity, polling, maxpause;   /* 0: attribute omitted */
    unsigned ver_major, ver_minor;            /* major 0: omitted */
    const char *from, *authid, *xmpp_version; /* NULL or "": omitted */
    const char *lang;                         /* xml:lang, NULL or "": omitted */
    const char *accept;                       /* NULL: omitted */
    uint64_t ack;
    uint64_t report;
    unsigned time;
} bosh_ans_t;

/* 17.1: a client of this version (major 0: it sent none) knows HTTP codes in place of conditions (B-324). */
static inline bool bosh_body_legacy(unsigned major, unsigned minor)
{
    return major == 0 || (major == 1 && minor < 6);
}

/* Longest text bosh_body_print_open() can make, all attributes at their longest, all escaped. */
#define BOSH_BODY_OPEN_MAX 8192

/*
 * Prints `<body ...>` (or `<body .../>` when `empty`) into dst without a trailing NUL.
 * Attribute values are escaped. No allocation; safe under the arena lock. Returns the bytes written;
 * dst must have room for BOSH_BODY_OPEN_MAX.
 */
size_t bosh_body_print_open(char *dst, const bosh_ans_t *ans, bool empty);

/* What bosh_body_print_open() makes of an answer that says nothing: most of them. */
#define BOSH_BODY_EMPTY     "<body xmlns='" BOSH_NS_HTTPBIND "'/>"
#define BOSH_BODY_CLOSE     "</body>"
#define BOSH_BODY_CLOSE_LEN 7

/* The condition's name on the wire ("item-not-found"); NULL for BOSH_COND_NONE. */
const char *bosh_body_condition(bosh_cond_t cond);

/* Copies `s` into dst with & < > " ' escaped and TAB, LF, CR as references, at most `size` bytes and whole
 * characters, without NUL; returns the bytes written. Also used for upstream stream headers. */
size_t bosh_body_escape(char *dst, size_t size, const char *s);

#endif
