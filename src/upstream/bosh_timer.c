/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The heap of deadlines of a loop. Owns nothing but the array; the timers live in the streams.
 *
 * Invariant: heap[i]->pos == i for all i in 1..n, and no timer is earlier than its parent heap[i / 2].
 */
#include "bosh_timer.h"

#include <assert.h>
#include <stdlib.h>

bool bosh_timers_init(bosh_timers_t *h, uint32_t max)
{
    h->heap = calloc((size_t)max + 1, sizeof(*h->heap));
    h->n = 0;
    h->max = max;
    return h->heap != NULL;
}

void bosh_timers_destroy(bosh_timers_t *h)
{
    free(h->heap);
    h->heap = NULL;
    h->n = 0;
}

static void put(bosh_timers_t *h, uint32_t pos, bosh_timer_t *t)
{
    h->heap[pos] = t;
    t->pos = pos;
}

static void sift_up(bosh_timers_t *h, bosh_timer_t *t)
{
    uint32_t pos = t->pos;

    while (pos > 1 && h->heap[pos / 2]->at > t->at) {
        put(h, pos, h->heap[pos / 2]);
        pos /= 2;
    }
    put(h, pos, t);
}

static void sift_down(bosh_timers_t *h, bosh_timer_t *t)
{
    uint32_t pos = t->pos;

    while (pos * 2 <= h->n) {
        uint32_t child = pos * 2;
        if (child < h->n && h->heap[child + 1]->at < h->heap[child]->at) {
            child++;
        }
        if (h->heap[child]->at >= t->at) {
            break;
        }
        put(h, pos, h->heap[child]);
        pos = child;
    }
    put(h, pos, t);
}

static void take_out(bosh_timers_t *h, bosh_timer_t *t)
{
    uint32_t pos = t->pos;
    bosh_timer_t *last = h->heap[h->n];

    h->heap[h->n--] = NULL;
    t->pos = 0;
    if (last != t) {
        put(h, pos, last);
        sift_up(h, last);
        sift_down(h, last);
    }
}

void bosh_timers_set(bosh_timers_t *h, bosh_timer_t *t, apr_time_t at)
{
    if (at == BOSH_NEVER) {
        if (t->pos != 0) {
            take_out(h, t);
        }
        t->at = at;
        return;
    }
    t->at = at;
    if (t->pos == 0) {
        assert(h->n < h->max);
        put(h, ++h->n, t);
    }
    sift_up(h, t);
    sift_down(h, t);
}

bosh_timer_t *bosh_timers_first(const bosh_timers_t *h)
{
    return h->n > 0 ? h->heap[1] : NULL;
}
