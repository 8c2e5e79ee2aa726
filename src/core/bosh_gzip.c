/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing. Called by a worker that has an answer in its hands, without a lock.
 *
 * Making a packer costs as much as packing some kilobytes, so they are kept and used again. Level 1 takes half of the
 * time of zlib's default and makes texts of XMPP 3 to 10 % larger than that; a window of 16 KB and small tables
 * take half of the memory, and make no difference to answers up to 16 KB (docs/PERFORMANCE.md).
 */
#include "bosh_gzip.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define LEVEL  1
#define WINDOW (14 + 16) /* 16 KB, with gzip's header */
#define TABLES 7

bosh_gzip_t *bosh_gzip_create(void)
{
    bosh_gzip_t *g = calloc(1, sizeof(*g));

    if (g != NULL &&
        deflateInit2(&g->z, LEVEL, Z_DEFLATED, WINDOW, TABLES, Z_DEFAULT_STRATEGY) != Z_OK) {
        free(g);
        g = NULL;
    }
    return g;
}

void bosh_gzip_destroy(bosh_gzip_t *g)
{
    deflateEnd(&g->z);
    free(g);
}

size_t bosh_gzip(bosh_gzip_t *g, const char *in, size_t len, char *out, size_t room)
{
    z_stream *z = &g->z;

    if (len > UINT_MAX || room > UINT_MAX || deflateReset(z) != Z_OK) {
        return 0;
    }
    z->next_in = (Bytef *)(uintptr_t)in; /* zlib does not write there */
    z->avail_in = (uInt)len;
    z->next_out = (Bytef *)out;
    z->avail_out = (uInt)room;
    return deflate(z, Z_FINISH) == Z_STREAM_END ? room - z->avail_out : 0;
}

/* ---- Accept-Encoding ---- */

static bool is_word(const char *s, size_t n, const char *word)
{
    size_t i = 0;

    while (i < n && word[i] != '\0' &&
           (s[i] >= 'A' && s[i] <= 'Z' ? (char)(s[i] | 0x20) : s[i]) == word[i]) {
        i++;
    }
    return i == n && word[i] == '\0';
}

/* A qvalue up to a separator: 0, 1, or 0 with up to three digits behind a point. */
static int read_weight(const char *p)
{
    int q, scale = 100;

    if (*p != '0' && *p != '1') {
        return 0;
    }
    q = (*p++ - '0') * 1000;
    if (*p == '.') {
        for (p++; *p >= '0' && *p <= '9' && scale > 0; p++, scale /= 10) {
            q += (*p - '0') * scale;
        }
    }
    p += strspn(p, " \t");
    return (*p == '\0' || *p == ',' || *p == ';') && q <= 1000 ? q : 0;
}

int bosh_gzip_weight(const char *accept, const char *coding)
{
    const char *p = accept != NULL ? accept : "";

    while (*p != '\0') {
        const char *name = p += strspn(p, ", \t");
        bool named = is_word(name, strcspn(name, ",; \t"), coding);
        int q = 1000;

        p += strcspn(p, ",;");
        while (*p == ';') {
            p++;
            p += strspn(p, " \t");
            if ((*p | 0x20) == 'q' && p[1] == '=') {
                q = read_weight(p + 2);
            }
            p += strcspn(p, ",;");
        }
        if (named) {
            return q;
        }
    }
    return -1;
}

bool bosh_gzip_accepted(const char *accept)
{
    int q = bosh_gzip_weight(accept, "gzip");

    if (q < 0) {
        q = bosh_gzip_weight(accept, "*");
    }
    return q > 0 && q >= bosh_gzip_weight(accept, "identity");
}
