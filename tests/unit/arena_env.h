/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An arena of a test's own, in shared memory as in the server, and what tests of arena, queues and
 * threads have in common. Each test opens one in its setup; the teardown proves that it is still
 * sound.
 */
#ifndef ARENA_ENV_H
#define ARENA_ENV_H

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bosh_arena.h"

/* Check's own assertions write a mark each time, which is slow, and no thing for threads. */
#define ARENA_EXPECT(test)                                                                         \
    do {                                                                                           \
        if (!(test)) {                                                                             \
            ck_abort_msg("not true: %s", #test);                                                   \
        }                                                                                          \
    } while (0)

typedef struct arena_env_t {
    bosh_arena_t a;
    void *mem;
    size_t bytes;
} arena_env_t;

static inline void arena_open(arena_env_t *e, uint32_t sessions, uint32_t chunks)
{
    bosh_arena_sizes_t sizes = {.peers = 4, .sessions = sessions, .slots = 8, .chunks = chunks};

    e->bytes = (size_t)bosh_arena_size(&sizes);
    ck_assert_uint_gt(e->bytes, 0);
    e->mem = mmap(NULL, e->bytes, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ck_assert_ptr_ne(e->mem, MAP_FAILED);
    ck_assert_int_eq(bosh_arena_format(e->mem, &sizes, &e->a), APR_SUCCESS);
}

static inline void arena_check(arena_env_t *e)
{
    const char *why;

    if (bosh_arena_validate(&e->a, &why) != APR_SUCCESS) {
        ck_abort_msg("the arena does not validate: %s", why);
    }
}

static inline void arena_close(arena_env_t *e)
{
    arena_check(e);
    munmap(e->mem, e->bytes);
}

/* A small generator with nothing of the system in it: a seed gives the same test everywhere. */
static inline uint32_t arena_random(uint64_t *seed)
{
    uint64_t x = *seed + UINT64_C(0x9e3779b97f4a7c15);

    *seed = x;
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)(x >> 32);
}

/* The n-th test sid. */
static inline void arena_sid(uint32_t n, uint8_t sid[BOSH_SID_BYTES])
{
    uint64_t seed = n;

    for (int i = 0; i < BOSH_SID_BYTES; i++) {
        sid[i] = (uint8_t)arena_random(&seed);
    }
}

static inline bosh_session_t *arena_session(arena_env_t *e, uint32_t n)
{
    uint8_t sid[BOSH_SID_BYTES];
    bosh_session_t *s;

    arena_sid(n, sid);
    s = bosh_arena_session_new(&e->a, sid);
    ck_assert_ptr_nonnull(s);
    return s;
}

/* Text in which a byte that is one, or one chunk, out of place looks wrong; another for each
 * `which`. */
static inline void arena_text(char *dst, size_t n, uint32_t which)
{
    static char pattern[20000];

    if (pattern[0] == '\0') {
        for (size_t i = 0; i < sizeof(pattern); i++) {
            pattern[i] = (char)('!' + (i * 7 + i / 93) % 93);
        }
    }
    ARENA_EXPECT(n <= sizeof(pattern) - 6000);
    memcpy(dst, pattern + which * 31 % 6000, n);
}

#endif
