/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_inflate: request bodies that came compressed (XEP-0124 7.2: `accept`). Pure; any thread.
 */
#ifndef BOSH_INFLATE_H
#define BOSH_INFLATE_H

#include "bosh.h"

/* What the `accept` attribute of a creation answer says. */
#define BOSH_ACCEPT "gzip,deflate"

typedef enum bosh_coding_t {
    BOSH_CODING_NONE = 0,
    BOSH_CODING_GZIP,
    BOSH_CODING_DEFLATE, /* the zlib format, or what some clients send by that name: without its header */
    BOSH_CODING_UNKNOWN
} bosh_coding_t;

/* Of a Content-Encoding header's value, in any case; NULL: NONE. Several codings one upon the other: UNKNOWN. */
bosh_coding_t bosh_inflate_coding(const char *value);

/* More than this many times its size no text may become, but for BOSH_INFLATE_FREE bytes (B-094). */
#define BOSH_INFLATE_RATIO 100
#define BOSH_INFLATE_FREE  65536

/*
 * Unpacks len bytes at in, GZIP or DEFLATE, into a new block of at most `most` bytes; *out is malloc'd and the
 * caller's, NULL unless APR_SUCCESS comes back. APR_EGENERAL: damaged, cut off, or with something behind it;
 * APR_ENOSPC: larger than `most` or than the ratio allows, found out before it is in memory; APR_ENOMEM.
 */
apr_status_t bosh_inflate(bosh_coding_t coding, const char *in, size_t len, size_t most, char **out,
                          size_t *n);

#endif
