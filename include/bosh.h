/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh.h: names, limits and enums that every layer shares. Nothing here has behavior.
 *
 * Time is apr_time_t (microseconds) everywhere, also in the arena; BOSH_NEVER is "no deadline".
 */
#ifndef BOSH_H
#define BOSH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <apr_errno.h>
#include <apr_time.h>

#define BOSH_VERSION "0.1.0"

/* The version of XEP-0124 that the module speaks; `ver` is negotiated down from it (7.2). */
#define BOSH_VER_MAJOR 1
#define BOSH_VER_MINOR 11

#define BOSH_NS_HTTPBIND "http://jabber.org/protocol/httpbind"
#define BOSH_NS_XBOSH    "urn:xmpp:xbosh"
#define BOSH_NS_STREAMS  "http://etherx.jabber.org/streams"
#define BOSH_NS_CLIENT   "jabber:client"
#define BOSH_NS_TLS      "urn:ietf:params:xml:ns:xmpp-tls"
#define BOSH_NS_SASL     "urn:ietf:params:xml:ns:xmpp-sasl"
#define BOSH_NS_COMPRESS "http://jabber.org/protocol/compress"
#define BOSH_NS_XML      "http://www.w3.org/XML/1998/namespace"

#define BOSH_RID_MAX UINT64_C(9007199254740991) /* 14.1: 2^53 - 1 */

/* XML limits (B-054): far above what real clients and servers send. */
#define BOSH_XML_MAX_DEPTH 128
#define BOSH_XML_MAX_ATTRS 256

/* Payloads in one request, and by how much declarations copied from its wrapper may make them grow beyond
 * twice the request: what one client may ask the others to wait for. */
#define BOSH_MAX_STANZAS 4096
#define BOSH_MAX_GROWTH  65536

/* Sizes of strings kept in a session; longer ones are refused where they come in. */
#define BOSH_SID_BYTES    16 /* random bytes; the sid on the wire is their lower-case hex */
#define BOSH_SID_LEN      32
#define BOSH_CERT_BYTES   20 /* a client certificate's SHA-1 */
#define BOSH_MAX_DOMAIN   255
#define BOSH_MAX_LANG     35
#define BOSH_MAX_CONTENT  79
#define BOSH_MAX_STREAMID 127

#define BOSH_MAX_STREAMS 8 /* of one session (16): the most that BoshMaxStreams allows */

#define BOSH_NEVER INT64_MAX

/* A piece of text that lives elsewhere. */
typedef struct bosh_slice_t {
    const char *p;
    size_t n;
} bosh_slice_t;

/* Terminal binding conditions, XEP-0124 17.2, in the order of the schema. */
typedef enum bosh_cond_t {
    BOSH_COND_NONE = 0, /* type=terminate without a condition: a clean end */
    BOSH_COND_BAD_REQUEST,
    BOSH_COND_HOST_GONE,
    BOSH_COND_HOST_UNKNOWN,
    BOSH_COND_IMPROPER_ADDRESSING,
    BOSH_COND_INTERNAL_SERVER_ERROR,
    BOSH_COND_ITEM_NOT_FOUND,
    BOSH_COND_OTHER_REQUEST,
    BOSH_COND_POLICY_VIOLATION,
    BOSH_COND_REMOTE_CONNECTION_FAILED,
    BOSH_COND_REMOTE_STREAM_ERROR,
    BOSH_COND_SEE_OTHER_URI,
    BOSH_COND_SYSTEM_SHUTDOWN,
    BOSH_COND_UNDEFINED_CONDITION,
    BOSH_COND_COUNT
} bosh_cond_t;

#endif
