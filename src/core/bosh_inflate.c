/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unpacking. Called by a worker that has read a compressed request body, without a lock.
 *
 * Invariant: the output grows by doubling, with what was really unpacked, and never beyond its bound, so that
 * a few bytes that stand for gigabytes cost no more than a request of the largest size.
 */
#include "bosh_inflate.h"

#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#define FIRST 16384
/* zlib's window of 32 KB, and which header is expected. */
#define WINDOW_GZIP (15 + 16)
#define WINDOW_ZLIB 15
#define WINDOW_RAW  (-15)

static bool same_word(const char *s, size_t n, const char *word)
{
    if (strlen(word) != n) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        char c = s[i] >= 'A' && s[i] <= 'Z' ? (char)(s[i] - 'A' + 'a') : s[i];
        if (c != word[i]) {
            return false;
        }
    }
    return true;
}

bosh_coding_t bosh_inflate_coding(const char *value)
{
    size_t n;

    if (value == NULL) {
        return BOSH_CODING_NONE;
    }
    value += strspn(value, " \t");
    n = strlen(value);
    while (n > 0 && (value[n - 1] == ' ' || value[n - 1] == '\t')) {
        n--;
    }
    if (n == 0 || same_word(value, n, "identity")) {
        return BOSH_CODING_NONE;
    }
    if (same_word(value, n, "gzip") || same_word(value, n, "x-gzip")) {
        return BOSH_CODING_GZIP;
    }
    return same_word(value, n, "deflate") ? BOSH_CODING_DEFLATE : BOSH_CODING_UNKNOWN;
}

/* What all of it may become. */
static size_t bound(size_t len, size_t most)
{
    size_t fair = len > (SIZE_MAX - BOSH_INFLATE_FREE) / BOSH_INFLATE_RATIO
                      ? SIZE_MAX
                      : len * BOSH_INFLATE_RATIO + BOSH_INFLATE_FREE;

    return fair < most ? fair : most;
}

/* One byte more than the bound has room, which shows that there is more. */
static bool grow(char **buf, size_t *cap, size_t limit)
{
    size_t size = *cap == 0 ? FIRST : *cap * 2;
    char *bigger;

    if (size > limit + 1) {
        size = limit + 1;
    }
    bigger = realloc(*buf, size);
    if (bigger == NULL) {
        return false;
    }
    *buf = bigger;
    *cap = size;
    return true;
}

static apr_status_t unpack(z_stream *z, size_t limit, char **buf, size_t *n)
{
    size_t cap = 0;
    int rv = Z_OK;

    while (rv != Z_STREAM_END) {
        if (*n > limit) {
            return APR_ENOSPC;
        }
        if (*n == cap && !grow(buf, &cap, limit)) {
            return APR_ENOMEM;
        }
        z->next_out = (Bytef *)*buf + *n;
        z->avail_out = (uInt)(cap - *n);
        rv = inflate(z, Z_NO_FLUSH);
        *n = cap - z->avail_out;
        if (rv == Z_MEM_ERROR) {
            return APR_ENOMEM;
        }
        if (rv != Z_OK && rv != Z_STREAM_END && !(rv == Z_BUF_ERROR && z->avail_out == 0)) {
            return APR_EGENERAL; /* Z_BUF_ERROR otherwise: cut off */
        }
    }
    if (*n > limit) {
        return APR_ENOSPC;
    }
    return z->avail_in == 0 ? APR_SUCCESS : APR_EGENERAL;
}

static apr_status_t inflate_as(int window, const char *in, size_t len, size_t limit, char **out,
                               size_t *n)
{
    z_stream z;
    apr_status_t rv;

    memset(&z, 0, sizeof(z));
    z.next_in = (Bytef *)(uintptr_t)in; /* zlib does not write there */
    z.avail_in = (uInt)len;
    *out = NULL;
    *n = 0;
    if (len > UINT32_MAX) {
        return APR_ENOSPC;
    }
    if (inflateInit2(&z, window) != Z_OK) {
        return APR_ENOMEM;
    }
    rv = unpack(&z, limit, out, n);
    inflateEnd(&z);
    if (rv != APR_SUCCESS) {
        free(*out);
        *out = NULL;
        *n = 0;
    }
    return rv;
}

/* RFC 1950: the method, and a check of the first two bytes. */
static bool has_zlib_header(const char *in, size_t len)
{
    const unsigned char *p = (const unsigned char *)in;

    return len >= 2 && (p[0] & 0x0f) == 8 && (p[0] << 8 | p[1]) % 31 == 0;
}

apr_status_t bosh_inflate(bosh_coding_t coding, const char *in, size_t len, size_t most, char **out,
                          size_t *n)
{
    size_t limit = bound(len, most);
    apr_status_t rv = APR_EGENERAL;

    if (coding == BOSH_CODING_GZIP) {
        return inflate_as(WINDOW_GZIP, in, len, limit, out, n);
    }
    *out = NULL;
    *n = 0;
    if (has_zlib_header(in, len)) {
        rv = inflate_as(WINDOW_ZLIB, in, len, limit, out, n);
    }
    /* A text without the header can begin like one. */
    return rv == APR_EGENERAL ? inflate_as(WINDOW_RAW, in, len, limit, out, n) : rv;
}
