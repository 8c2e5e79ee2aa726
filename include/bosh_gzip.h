/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_gzip: packing of answers, and what Accept-Encoding says about it. Pure; any thread, a packer one at a time.
 */
#ifndef BOSH_GZIP_H
#define BOSH_GZIP_H

#include <zlib.h>

#include "bosh.h"

/* A packer: about 130 KB, for one text after another. */
typedef struct bosh_gzip_t {
    struct bosh_gzip_t *next; /* its owner's */
    z_stream z;
} bosh_gzip_t;

/* NULL: no memory. */
bosh_gzip_t *bosh_gzip_create(void);
void bosh_gzip_destroy(bosh_gzip_t *g);

/* Packs len bytes at in as a whole gzip file of at most `room` bytes. Returns its size; 0: it did not become as small
 * as that, and out holds nothing of use. */
size_t bosh_gzip(bosh_gzip_t *g, const char *in, size_t len, char *out, size_t room);

/* The weight of a coding in an Accept-Encoding header (NULL: there is none) in thousandths, as RFC 9110 12.4.2 has it;
 * 0: refused, or not to be understood; -1: not named. */
int bosh_gzip_weight(const char *accept, const char *coding);

/* Whether gzip may be sent: named or meant by *, not refused, and the client does not prefer identity (B-006). */
bool bosh_gzip_accepted(const char *accept);

#endif
