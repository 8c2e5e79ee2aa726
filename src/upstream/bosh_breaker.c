/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which addresses are left alone. Called by bosh_race.c.
 *
 * Invariant: an address that works has no entry, so that usually there are none.
 */
#include "bosh_breaker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct entry_t {
    char name[BOSH_BREAKER_NAME];
    unsigned failures;  /* in a row */
    unsigned allowed;   /* probes at once */
    unsigned under_way; /* of them */
    apr_time_t until;   /* OPEN before */
    apr_time_t probed;  /* the last one began */
    apr_interval_time_t pause;
} entry_t;

struct bosh_breaker_t {
    bosh_random_t *random;
    void *ctx;
    size_t n;
    entry_t entry[BOSH_BREAKER_MAX];
};

bosh_breaker_t *bosh_breaker_create(bosh_random_t *random, void *ctx)
{
    bosh_breaker_t *b = calloc(1, sizeof(*b));

    if (b != NULL) {
        b->random = random;
        b->ctx = ctx;
    }
    return b;
}

void bosh_breaker_destroy(bosh_breaker_t *b)
{
    free(b);
}

static entry_t *find(bosh_breaker_t *b, const char *name)
{
    for (size_t i = 0; i < b->n; i++) {
        if (strncmp(b->entry[i].name, name, BOSH_BREAKER_NAME - 1) == 0) {
            return &b->entry[i];
        }
    }
    return NULL;
}

static bool is_closed(const entry_t *e)
{
    return e->failures < BOSH_BREAKER_FAILURES;
}

/* A new entry; with too many the one that is free again soonest makes room. */
static entry_t *add(bosh_breaker_t *b, const char *name)
{
    entry_t *e = &b->entry[0];

    if (b->n < BOSH_BREAKER_MAX) {
        e = &b->entry[b->n++];
    } else {
        for (size_t i = 1; i < b->n; i++) {
            if (b->entry[i].until < e->until) {
                e = &b->entry[i];
            }
        }
    }
    memset(e, 0, sizeof(*e));
    snprintf(e->name, sizeof(e->name), "%s", name);
    return e;
}

bool bosh_breaker_may(bosh_breaker_t *b, const char *name, apr_time_t now)
{
    entry_t *e = find(b, name);

    if (e == NULL || is_closed(e)) {
        return true;
    }
    if (now < e->until) {
        return false;
    }
    if (now - e->probed > BOSH_BREAKER_PATIENCE) {
        e->under_way = 0;
    }
    if (e->under_way >= e->allowed) {
        return false;
    }
    e->under_way++;
    e->probed = now;
    return true;
}

void bosh_breaker_worked(bosh_breaker_t *b, const char *name)
{
    entry_t *e = find(b, name);

    if (e == NULL) {
        return;
    }
    e->under_way -= e->under_way > 0;
    e->allowed *= 2;
    if (is_closed(e) || e->allowed > BOSH_BREAKER_FULL) {
        *e = b->entry[--b->n];
    }
}

/* A quarter more or less, lest many processes come back at the same moment. */
static apr_interval_time_t jitter(bosh_breaker_t *b, apr_interval_time_t t)
{
    return t - t / 4 + (apr_interval_time_t)b->random(b->ctx, (uint32_t)(t / 2) + 1);
}

void bosh_breaker_failed(bosh_breaker_t *b, const char *name, apr_time_t now)
{
    entry_t *e = find(b, name);

    if (e == NULL) {
        e = add(b, name);
    }
    if (!is_closed(e) && now < e->until) {
        return; /* it was under way before: nothing new */
    }
    e->failures++;
    if (!is_closed(e)) {
        e->pause = e->pause == 0 ? BOSH_BREAKER_FIRST : 2 * e->pause;
        e->pause = e->pause < BOSH_BREAKER_LONGEST ? e->pause : BOSH_BREAKER_LONGEST;
        e->until = now + jitter(b, e->pause);
        e->allowed = 1;
        e->under_way = 0;
    }
}

void bosh_breaker_dropped(bosh_breaker_t *b, const char *name)
{
    entry_t *e = find(b, name);

    if (e != NULL) {
        e->under_way -= e->under_way > 0;
    }
}
