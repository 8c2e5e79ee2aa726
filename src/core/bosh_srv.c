/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order of SRV records. Called by bosh_dial.c for each stream, so that many streams share the load as the
 * weights say.
 */
#include "bosh_srv.h"

#include <stdlib.h>
#include <string.h>

static int by_priority(const void *a, const void *b)
{
    const bosh_srv_t *x = a, *y = b;

    return (x->priority > y->priority) - (x->priority < y->priority);
}

/* RFC 2782: those of weight 0 count from the beginning, so that they have a small chance. */
static size_t draw(const bosh_srv_t *rec, size_t n, bosh_random_t *chance, void *ctx)
{
    uint32_t sum = 0, run = 0, r;

    for (size_t i = 0; i < n; i++) {
        sum += rec[i].weight;
    }
    if (sum == 0) {
        return chance(ctx, (uint32_t)n);
    }
    r = chance(ctx, sum + 1);
    if (r == 0) {
        for (size_t i = 0; i < n; i++) {
            if (rec[i].weight == 0) {
                return i;
            }
        }
    }
    for (size_t i = 0; i < n; i++) {
        run += rec[i].weight;
        if (rec[i].weight > 0 && run >= r) {
            return i;
        }
    }
    return 0;
}

void bosh_srv_sort(bosh_srv_t *rec, size_t n, bosh_random_t *chance, void *ctx)
{
    bosh_srv_t chosen;
    size_t end, i;

    qsort(rec, n, sizeof(*rec), by_priority);
    for (size_t begin = 0; begin < n; begin = end) {
        for (end = begin + 1; end < n && rec[end].priority == rec[begin].priority; end++) {
        }
        for (size_t at = begin; at + 1 < end; at++) {
            i = at + draw(rec + at, end - at, chance, ctx);
            chosen = rec[i];
            rec[i] = rec[at];
            rec[at] = chosen;
        }
    }
}
