/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A histogram of microseconds: 32 steps in each power of two, so a figure is off by 3 % at most; the
 * largest value is kept as it is. Any number of values in constant memory, no allocation.
 */
#ifndef BENCH_HIST_H
#define BENCH_HIST_H

#include <stdint.h>
#include <string.h>

#define HIST_STEPS 32
#define HIST_CELLS (HIST_STEPS * 28) /* up to 2^32 us: more than an hour */

typedef struct hist_t {
    uint64_t n;
    int64_t max;
    uint32_t cell[HIST_CELLS];
} hist_t;

static inline void hist_add(hist_t *h, int64_t us)
{
    uint64_t v = us > 0 ? (uint64_t)us : 0;
    unsigned shift = 0;

    if (v > UINT32_MAX) {
        v = UINT32_MAX;
    }
    while (v >> shift >= 2 * HIST_STEPS) {
        shift++;
    }
    h->cell[shift * HIST_STEPS + (v >> shift)]++;
    h->n++;
    h->max = us > h->max ? us : h->max;
}

/* The value below which this part (0..1) of the values lies. */
static inline int64_t hist_at(const hist_t *h, double part)
{
    uint64_t want = (uint64_t)(part * (double)h->n), seen = 0;

    for (unsigned i = 0; i < HIST_CELLS; i++) {
        seen += h->cell[i];
        if (seen > want) {
            unsigned shift = i < 2 * HIST_STEPS ? 0 : i / HIST_STEPS - 1;
            int64_t v = (int64_t)(i - shift * HIST_STEPS) << shift;
            return v < h->max ? v : h->max;
        }
    }
    return h->max;
}

static inline void hist_join(hist_t *to, const hist_t *from)
{
    for (unsigned i = 0; i < HIST_CELLS; i++) {
        to->cell[i] += from->cell[i];
    }
    to->n += from->n;
    to->max = from->max > to->max ? from->max : to->max;
}

static inline void hist_clear(hist_t *h)
{
    memset(h, 0, sizeof(*h));
}

#endif
