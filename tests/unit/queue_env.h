/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests of byte strings and of queues have in common: one session whose strings they fill, and
 * the rule that nothing is left over at the end of a test.
 */
#ifndef QUEUE_ENV_H
#define QUEUE_ENV_H

#include "arena_env.h"
#include "bosh_split.h"

#define DATA   BOSH_CHUNK_DATA
#define CHUNKS 256
#define HEADER BOSH_ITEM_HEADER_SIZE
#define BUF    (12 * DATA)
#define INPUT  BOSH_PRIO_INPUT
#define ANSWER BOSH_PRIO_ANSWER
#define OK(rv) ck_assert_int_eq((rv), APR_SUCCESS)

static arena_env_t env;
static bosh_arena_t *A;
static bosh_session_t *S;
static char text[BUF], got[BUF];

/* Sizes at which something can go wrong. */
static const size_t sizes[] = {1,
                               2,
                               7,
                               8,
                               9,
                               DATA - 9,
                               DATA - 8,
                               DATA - 7,
                               DATA - 1,
                               DATA,
                               DATA + 1,
                               2 * DATA - 1,
                               2 * DATA,
                               2 * DATA + 1,
                               3 * DATA - 8,
                               3 * DATA + 17};
#define NSIZES ((int)(sizeof(sizes) / sizeof(sizes[0])))

static inline void setup(void)
{
    arena_open(&env, 4, CHUNKS);
    A = &env.a;
    S = arena_session(&env, 1);
    arena_text(text, sizeof(text), 0);
}

static inline void teardown(void)
{
    arena_check(&env);
    bosh_arena_session_free(A, S);
    ck_assert_uint_eq(A->h->nfree_chunks, CHUNKS);
    arena_close(&env);
}

static inline bosh_bytes_t *raw(void)
{
    return &S->link.raw;
}

static inline bosh_queue_t *down(void)
{
    return &S->link.down;
}

static inline bosh_queue_t *up(void)
{
    return &S->link.up;
}

static inline uint32_t chunks_used(void)
{
    return CHUNKS - A->h->nfree_chunks;
}

/* The string is exactly this, whichever way it is read. */
static inline void expect_bytes(const bosh_bytes_t *b, const char *want, size_t n)
{
    size_t off = 0, run;

    ck_assert_uint_eq(b->len, n);
    ck_assert_uint_eq(bosh_bytes_peek(A, b, 0, got, sizeof(got)), n);
    ck_assert_mem_eq(got, want, n);
    for (const char *p; (p = bosh_bytes_run(A, b, off, &run)) != NULL; off += run) {
        ck_assert_uint_gt(run, 0);
        ck_assert_mem_eq(p, want + off, run);
    }
    ck_assert_uint_eq(run, 0);
    ck_assert_uint_eq(off, n);
}

static inline void append_item(bosh_queue_t *q, bosh_item_t type, const char *p, size_t n)
{
    bosh_slice_t s = {p, n};

    OK(bosh_queue_append(A, q, type, &s, 1, INPUT));
}

static inline void expect_head(bosh_queue_t *q, bosh_item_t want, size_t n)
{
    bosh_item_t type;
    size_t len;

    ck_assert(bosh_queue_head(A, q, &type, &len));
    ck_assert_int_eq(type, want);
    ck_assert_uint_eq(len, n);
}

static inline void expect_item(bosh_queue_t *q, bosh_item_t type, const char *want, size_t n)
{
    bosh_bytes_t *out = &S->slots[7].answer;

    expect_head(q, type, n);
    OK(bosh_queue_pop_to(A, q, out, ANSWER));
    expect_bytes(out, want, n);
    bosh_bytes_clear(A, out);
}

/* Takes all but n chunks away. */
static inline void hoard(uint32_t n)
{
    while (A->h->nfree_chunks > n) {
        OK(bosh_bytes_append(A, &S->slots[6].answer, text, DATA, ANSWER));
    }
}

static inline void give_back(void)
{
    bosh_bytes_clear(A, &S->slots[6].answer);
}

#endif
