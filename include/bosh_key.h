/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_key: key sequencing (XEP-0124 section 15). A client that asks for it proves with each request that it
 * sent the one before: the SHA-1 of its `key` is what the request before announced. Pure: no lock, no state.
 * The hash is computed when a request is parsed; under the arena lock there are only comparisons, whose
 * duration says nothing about what is compared (B-280).
 */
#ifndef BOSH_KEY_H
#define BOSH_KEY_H

#include "bosh.h"

#define BOSH_KEY_BYTES 20 /* of a SHA-1; on the wire a key is its 40 hex digits */

#define BOSH_KEY_PROVES 0x01u /* `hash` is that of a well-formed key */
#define BOSH_KEY_LEADS  0x02u /* `next` is known */

/* The keys of one request, as much of them as is needed. */
typedef struct bosh_key_t {
    uint8_t hash[BOSH_KEY_BYTES]; /* of the key's text as it was received (B-271) */
    uint8_t next[BOSH_KEY_BYTES]; /* what the next request's key must hash to: newkey, else key */
    uint8_t flags;                /* BOSH_KEY_* */
} bosh_key_t;

/* Takes in the attributes of a request; NULL: absent. A key or newkey that is no SHA-1 in hex counts as none, but
 * one in the place of a newkey leaves nothing to go on with. */
void bosh_key_read(bosh_key_t *k, const char *key, const char *newkey);

/* 15.4: whether a request with these keys may come where `expected` was announced. */
bool bosh_key_follows(const uint8_t expected[BOSH_KEY_BYTES], const bosh_key_t *k);

/* whether a repeated request shows the key of the original. */
bool bosh_key_repeats(const bosh_key_t *original, const bosh_key_t *k);

#endif
