/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Key sequencing. bosh_key_read() runs where a request is parsed, on any thread, without a lock; the
 * comparisons under the arena lock, in bosh_session.c and bosh_answer.c. Invariant: what is compared has
 * been reduced to BOSH_KEY_BYTES before, so every comparison takes the same time.
 */
#include "bosh_key.h"

#include <string.h>

#include <apr_sha1.h>

/* -1: not a hex digit. Either case (B-271). */
static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Exactly 40 hex digits, else false. Reads no further than the first that is wrong. */
static bool read_hex(const char *s, uint8_t out[BOSH_KEY_BYTES])
{
    for (int i = 0; i < BOSH_KEY_BYTES; i++) {
        int high = hex_value(s[2 * i]);
        int low = high < 0 ? -1 : hex_value(s[2 * i + 1]);

        if (low < 0) {
            return false;
        }
        out[i] = (uint8_t)(high << 4 | low);
    }
    return s[2 * BOSH_KEY_BYTES] == '\0';
}

void bosh_key_read(bosh_key_t *k, const char *key, const char *newkey)
{
    memset(k, 0, sizeof(*k));
    if (key != NULL && read_hex(key, k->next)) {
        apr_sha1_ctx_t ctx;

        apr_sha1_init(&ctx);
        apr_sha1_update(&ctx, key, 2 * BOSH_KEY_BYTES);
        apr_sha1_final(k->hash, &ctx);
        k->flags = BOSH_KEY_PROVES | BOSH_KEY_LEADS;
    }
    if (newkey != NULL) { /* 15.5 */
        if (read_hex(newkey, k->next)) {
            k->flags |= BOSH_KEY_LEADS;
        } else {
            k->flags &= (uint8_t)~BOSH_KEY_LEADS;
        }
    }
}

static bool equal(const uint8_t *x, const uint8_t *y)
{
    unsigned differ = 0;

    for (int i = 0; i < BOSH_KEY_BYTES; i++) {
        differ |= (unsigned)(x[i] ^ y[i]);
    }
    return differ == 0;
}

bool bosh_key_follows(const uint8_t expected[BOSH_KEY_BYTES], const bosh_key_t *k)
{
    const unsigned both = BOSH_KEY_PROVES | BOSH_KEY_LEADS;

    return (k->flags & both) == both && equal(expected, k->hash);
}

bool bosh_key_repeats(const bosh_key_t *original, const bosh_key_t *k)
{
    return (original->flags & BOSH_KEY_PROVES) && (k->flags & BOSH_KEY_PROVES) &&
           equal(original->hash, k->hash);
}
