/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arena: its layout, session table, chunk list, peers and mail. Validated after each test.
 */
#include <stdio.h>
#include <unistd.h>

#include "arena_env.h"
#include "bosh_undo.h"

#define SESSIONS 40
#define CHUNKS   2048
#define INPUT    BOSH_PRIO_INPUT
#define ANSWER   BOSH_PRIO_ANSWER
#define OK(rv)   ck_assert_int_eq((rv), APR_SUCCESS)

static arena_env_t env;
static bosh_arena_t *A;

static void setup(void)
{
    arena_open(&env, SESSIONS, CHUNKS);
    A = &env.a;
}

static void teardown(void)
{
    arena_close(&env);
}

/* ---- layout ---- */

START_TEST(test_sizes)
{
    bosh_arena_sizes_t fine = {.peers = 4, .sessions = 100, .slots = 8, .chunks = 1000};
    bosh_arena_sizes_t s;
    bosh_arena_t a;

    ck_assert_uint_gt(bosh_arena_size(&fine), 1000 * BOSH_CHUNK_SIZE);
#define REFUSED(field, value)                                                                      \
    do {                                                                                           \
        s = fine;                                                                                  \
        s.field = (value);                                                                         \
        ck_assert_uint_eq(bosh_arena_size(&s), 0);                                                 \
        ck_assert_int_eq(bosh_arena_format(env.mem, &s, &a), APR_EINVAL);                          \
    } while (0)
#define TAKEN(field, value)                                                                        \
    do {                                                                                           \
        s = fine;                                                                                  \
        s.field = (value);                                                                         \
        ck_assert_uint_gt(bosh_arena_size(&s), 0);                                                 \
    } while (0)
    REFUSED(peers, 0);
    REFUSED(peers, 65536);
    REFUSED(sessions, 0);
    REFUSED(sessions, UINT32_MAX);
    REFUSED(chunks, 0);
    REFUSED(chunks, UINT32_MAX);
    REFUSED(slots, 0);
    REFUSED(slots, 4);
    REFUSED(slots, 12);
    REFUSED(slots, 128);
    TAKEN(slots, 64);
    TAKEN(chunks, 1);
    TAKEN(sessions, 4 * 1024 * 1024);
    s = fine;
    s.chunks = 1u << 30; /* more than 32 bits can count, and counted right */
    ck_assert_uint_eq((bosh_arena_size(&s) - bosh_arena_size(&fine)) / BOSH_CHUNK_SIZE >> 30, 1);
#undef REFUSED
#undef TAKEN
}
END_TEST

START_TEST(test_format_wants_a_page)
{
    bosh_arena_sizes_t sizes = {.peers = 1, .sessions = 1, .slots = 8, .chunks = 1};
    bosh_arena_t a;

    ck_assert_int_eq(bosh_arena_format((char *)env.mem + 8, &sizes, &a), APR_EINVAL);
    ck_assert_int_eq(bosh_arena_attach((char *)env.mem + 8, &a), APR_EINVAL);
}
END_TEST

START_TEST(test_attach)
{
    bosh_session_t *s = arena_session(&env, 7), *same;
    bosh_arena_t a;
    char sid[BOSH_SID_LEN + 1];

    OK(bosh_arena_attach(env.mem, &a));
    bosh_arena_sid_text(s, sid);
    same = bosh_arena_find(&a, sid);
    ck_assert_ptr_eq(same, s);
    ck_assert_uint_eq(a.nwake, 0);

#define REFUSED(field)                                                                             \
    do {                                                                                           \
        A->h->field++;                                                                             \
        ck_assert_int_eq(bosh_arena_attach(env.mem, &a), APR_EINVAL);                              \
        A->h->field--;                                                                             \
    } while (0)
    REFUSED(magic);
    REFUSED(layout);
    REFUSED(session_size);
    REFUSED(sizes.peers);
    REFUSED(sizes.chunks);
    REFUSED(sizes.slots);
    REFUSED(buckets);
    REFUSED(off_peers);
    REFUSED(off_buckets);
    REFUSED(off_sessions);
    REFUSED(off_marks);
    REFUSED(off_chunks);
    REFUSED(total);
#undef REFUSED
}
END_TEST

/* Pages of the mapping that have memory. */
static size_t resident(const arena_env_t *e)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (e->bytes + page - 1) / page, n = 0;
    unsigned char *vec = malloc(pages);

    ck_assert_int_eq(mincore(e->mem, e->bytes, vec), 0);
    for (size_t i = 0; i < pages; i++) {
        n += vec[i] & 1;
    }
    free(vec);
    return n;
}

/* Memory is free until it is used: not making an arena, nor checking it, nor repairing it touches
 * it all. */
START_TEST(test_untouched_until_used)
{
    arena_env_t big;
    bosh_session_t *s;
    char text[100];

    arena_open(&big, 50000, 800 * 1024);
    ck_assert_uint_gt(big.bytes, 800u * 1024 * BOSH_CHUNK_SIZE);
    ck_assert_uint_le(resident(&big), 2);
    s = arena_session(&big, 1);
    arena_text(text, sizeof(text), 0);
    OK(bosh_bytes_append(&big.a, &s->link.raw, text, sizeof(text), INPUT));
    ck_assert_uint_le(resident(&big), 8); /* its record, bucket and chunk, and the undo */
    arena_check(&big);
    ck_assert_uint_eq(bosh_arena_repair(&big.a), 0); /* s was just being made: it never was */
    ck_assert_int_eq(s->state, BOSH_ST_FREE);
    arena_check(&big);
    ck_assert_uint_le(resident(&big), 8 + 4 + 65536 * 4 / 4096); /* peers, marks, all buckets */
    arena_close(&big);
}
END_TEST

/* ---- sessions ---- */

START_TEST(test_session_life)
{
    bosh_session_t *s = arena_session(&env, 1), *again;
    bosh_ix i = bosh_arena_index(A, s);
    uint32_t serial = s->serial;
    uint8_t sid[BOSH_SID_BYTES];
    char text[BOSH_SID_LEN + 1];

    ck_assert_uint_eq(i, 1);
    ck_assert_uint_ne(serial, 0);
    ck_assert_int_eq(s->state, BOSH_ST_LIVE);
    ck_assert_uint_eq(A->h->busy, i);
    ck_assert_ptr_eq(bosh_arena_session(A, i), s);
    ck_assert_ptr_eq(bosh_arena_get(A, i, serial), s);
    ck_assert_ptr_null(bosh_arena_get(A, i, serial + 1));
    ck_assert_ptr_null(bosh_arena_get(A, i, 0));
    ck_assert_ptr_null(bosh_arena_get(A, 0, serial));
    ck_assert_ptr_null(bosh_arena_get(A, i + 1, 0)); /* never used */
    ck_assert_ptr_null(bosh_arena_get(A, UINT32_MAX, serial));
    arena_sid(1, sid);
    ck_assert_ptr_null(bosh_arena_session_new(A, sid)); /* it exists */
    bosh_arena_sid_text(s, text);
    strcpy(s->to, "example.com");
    s->slots[7].rid = 12;
    OK(bosh_bytes_append(A, &s->slots[3].answer, text, 32, INPUT));
    OK(bosh_queue_append(A, &s->slots[4].payload, BOSH_ITEM_CLOSE, NULL, 0, INPUT));
    OK(bosh_queue_append(A, &s->link.up, BOSH_ITEM_CLOSE, NULL, 0, INPUT));

    bosh_arena_session_free(A, s);
    arena_check(&env);
    ck_assert_uint_eq(A->h->nfree_chunks, CHUNKS);
    ck_assert_uint_eq(A->h->nsessions, 0);
    ck_assert_ptr_null(bosh_arena_get(A, i, serial));
    ck_assert_ptr_null(bosh_arena_get(A, i, serial + 1));
    ck_assert_ptr_null(bosh_arena_find(A, text));

    again = arena_session(&env, 2);
    ck_assert_ptr_eq(again, s); /* the lowest first */
    ck_assert_uint_eq(again->serial, serial + 1);
    ck_assert_uint_eq(again->slots[7].rid, 0);
    ck_assert_int_eq(again->to[0], '\0');
}
END_TEST

START_TEST(test_serial_never_names_none)
{
    bosh_session_t *s = arena_session(&env, 1);

    s->serial = UINT32_MAX;
    bosh_arena_session_free(A, s);
    s = arena_session(&env, 1);
    ck_assert_uint_eq(s->serial, 1);
}
END_TEST

START_TEST(test_find_takes_any_text)
{
    bosh_session_t *s = arena_session(&env, 5);
    char sid[BOSH_SID_LEN + 1], longer[BOSH_SID_LEN + 2], text[BOSH_SID_LEN + 1];

    bosh_arena_sid_text(s, sid);
    ck_assert_uint_eq(strlen(sid), BOSH_SID_LEN);
    ck_assert_ptr_eq(bosh_arena_find(A, sid), s);
    ck_assert_ptr_null(bosh_arena_find(A, NULL));
    ck_assert_ptr_null(bosh_arena_find(A, ""));
    snprintf(longer, sizeof(longer), "%s0", sid);
    ck_assert_ptr_null(bosh_arena_find(A, longer));
    for (int i = 0; i < BOSH_SID_LEN; i++) {
        static const char strange[] = {'\0', ' ', 'g', '/',    ':',   '`',
                                       '@',  'A', 'F', '\x80', '\xff'};
        for (size_t k = 0; k < sizeof(strange); k++) {
            strcpy(text, sid);
            text[i] = strange[k];
            ck_assert_ptr_null(bosh_arena_find(A, text));
        }
        text[i] = sid[i] == '0' ? '1' : '0'; /* a fine sid, but another */
        ck_assert_ptr_null(bosh_arena_find(A, text));
    }
}
END_TEST

START_TEST(test_sessions_in_one_bucket)
{
    bosh_session_t *s[4];
    uint8_t sid[BOSH_SID_BYTES] = {1, 2, 3, 4};
    char text[4][BOSH_SID_LEN + 1];

    for (int i = 0; i < 4; i++) {
        sid[15] = (uint8_t)i;
        s[i] = bosh_arena_session_new(A, sid);
        bosh_arena_sid_text(s[i], text[i]);
    }
    for (int gone = 0; gone < 4; gone++) { /* out of the middle, the end, the beginning */
        static const int order[] = {1, 0, 3, 2};
        bosh_arena_session_free(A, s[order[gone]]);
        s[order[gone]] = NULL;
        arena_check(&env);
        for (int i = 0; i < 4; i++) {
            ck_assert_ptr_eq(bosh_arena_find(A, text[i]), s[i]);
        }
    }
}
END_TEST

START_TEST(test_table_full)
{
    uint8_t sid[BOSH_SID_BYTES];
    bosh_session_t *s;

    for (uint32_t i = 1; i <= SESSIONS; i++) {
        ck_assert_uint_eq(bosh_arena_index(A, arena_session(&env, i)), i);
    }
    arena_sid(SESSIONS + 1, sid);
    ck_assert_ptr_null(bosh_arena_session_new(A, sid));
    ck_assert_uint_eq(A->h->nsessions, SESSIONS);
    arena_check(&env);
    bosh_arena_session_free(A, bosh_arena_session(A, 17));
    s = bosh_arena_session_new(A, sid);
    ck_assert_uint_eq(bosh_arena_index(A, s), 17);
}
END_TEST

/* New sessions stop first; those there are go on. */
START_TEST(test_no_session_from_the_reserve)
{
    bosh_session_t *s = arena_session(&env, 1);
    uint8_t sid[BOSH_SID_BYTES];
    char text[BOSH_CHUNK_DATA];

    arena_text(text, sizeof(text), 1);
    arena_sid(2, sid);
    while (bosh_arena_room(A, 1, BOSH_PRIO_NEW)) {
        OK(bosh_bytes_append(A, &s->link.raw, text, sizeof(text), INPUT));
    }
    ck_assert_uint_eq(A->h->nfree_chunks, CHUNKS / 8);
    ck_assert_ptr_null(bosh_arena_session_new(A, sid));
    OK(bosh_bytes_append(A, &s->link.raw, text, sizeof(text), INPUT));
    bosh_bytes_consume(A, &s->link.raw, 2 * sizeof(text));
    ck_assert_ptr_nonnull(bosh_arena_session_new(A, sid));
}
END_TEST

START_TEST(test_slot)
{
    bosh_session_t *s = arena_session(&env, 1);

    for (uint64_t rid = 0; rid < 8; rid++) {
        ck_assert_ptr_eq(bosh_arena_slot(A, s, rid), &s->slots[rid]);
        ck_assert_ptr_eq(bosh_arena_slot(A, s, rid + (UINT64_C(1) << 52)), &s->slots[rid]);
    }
}
END_TEST

START_TEST(test_chunks_low_first)
{
    bosh_ix c[CHUNKS];

    for (uint32_t i = 0; i < CHUNKS; i++) {
        c[i] = bosh_arena_chunk_new(A, ANSWER);
        ck_assert_uint_eq(c[i], i + 1);
    }
    ck_assert_uint_eq(bosh_arena_chunk_new(A, ANSWER), 0);
    ck_assert_uint_eq(A->h->nfree_chunks, 0);
    for (uint32_t i = CHUNKS; i > 0; i--) {
        bosh_arena_chunk_free(A, c[i - 1]);
    }
    ck_assert_uint_eq(bosh_arena_chunk_new(A, ANSWER), 1);
    bosh_arena_chunk_free(A, 1);
}
END_TEST

/* ---- peers and mail ---- */

START_TEST(test_peers)
{
    uint32_t first = bosh_arena_peer_claim(A, 100, 3, 1000);
    bosh_peer_t *p = bosh_arena_peer(A, first);

    ck_assert_uint_eq(first, 1);
    ck_assert_uint_eq(p->state, BOSH_PEER_LIVE);
    ck_assert_uint_eq(p->pid, 100);
    ck_assert_uint_eq(p->generation, 3);
    ck_assert_int_eq(p->heartbeat, 1000);
    for (uint32_t i = 2; i <= 4; i++) {
        ck_assert_uint_eq(bosh_arena_peer_claim(A, 100 + i, 3, 1000), i);
    }
    ck_assert_uint_eq(bosh_arena_peer_claim(A, 200, 3, 1000), 0);
    p = bosh_arena_peer(A, 3);
    p->asleep = 1;
    p->streams = p->parked = 9;
    bosh_arena_mail(A, 3, 1, 1);
    p->overflow = 1;
    p->state = BOSH_PEER_FREE;
    ck_assert_uint_eq(bosh_arena_peer_claim(A, 200, 4, 2000), 3);
    ck_assert_uint_eq(p->serial, 2);
    ck_assert_uint_eq(p->mail_n + p->overflow + p->asleep + p->streams + p->parked, 0);
}
END_TEST

START_TEST(test_mail)
{
    uint32_t peer = bosh_arena_peer_claim(A, 1, 0, 0);
    bosh_mail_t out[8];
    bool overflow = true;

    bosh_arena_mail(A, 0, 1, 1);          /* nobody */
    bosh_arena_mail(A, peer + 1, 1, 1);   /* not in use */
    bosh_arena_mail(A, UINT32_MAX, 1, 1); /* garbage */
    ck_assert_uint_eq(bosh_arena_mail_take(A, peer, out, 8, &overflow), 0);
    ck_assert(!overflow);
    for (uint32_t round = 0; round < 3 * BOSH_MAILBOX; round += 5) { /* round the ring */
        for (uint32_t i = 0; i < 5; i++) {
            bosh_arena_mail(A, peer, round + i, round + i + 9);
        }
        ck_assert_uint_eq(bosh_arena_mail_take(A, peer, out, 3, &overflow), 3);
        ck_assert_uint_eq(bosh_arena_mail_take(A, peer, out + 3, 5, &overflow), 2);
        for (uint32_t i = 0; i < 5; i++) {
            ck_assert_uint_eq(out[i].what, round + i);
            ck_assert_uint_eq(out[i].tag, round + i + 9);
        }
        ck_assert(!overflow);
    }
}
END_TEST

START_TEST(test_mail_overflow)
{
    uint32_t peer = bosh_arena_peer_claim(A, 1, 0, 0);
    static bosh_mail_t out[BOSH_MAILBOX + 1];
    bool overflow;

    for (uint32_t i = 0; i < BOSH_MAILBOX; i++) {
        bosh_arena_mail(A, peer, i, i);
    }
    ck_assert_uint_eq(bosh_arena_mail_take(A, peer, out, 1, &overflow), 1);
    ck_assert(!overflow);
    bosh_arena_mail(A, peer, 1, 1);
    bosh_arena_mail(A, peer, 2, 2); /* one too many */
    ck_assert_uint_eq(bosh_arena_mail_take(A, peer, out, BOSH_MAILBOX + 1, &overflow),
                      BOSH_MAILBOX);
    ck_assert(overflow);
    ck_assert_uint_eq(out[BOSH_MAILBOX - 1].what, 1);
    ck_assert_uint_eq(bosh_arena_mail_take(A, peer, out, 1, &overflow), 0);
    ck_assert(!overflow);
}
END_TEST

START_TEST(test_wake_only_who_sleeps)
{
    for (uint32_t i = 1; i <= 4; i++) {
        bosh_arena_peer_claim(A, i, 0, 0);
    }
    bosh_arena_mail(A, 1, 1, 1);
    ck_assert_uint_eq(A->nwake, 0); /* awake: it will look */
    bosh_arena_peer(A, 2)->asleep = 1;
    bosh_arena_mail(A, 2, 1, 1);
    bosh_arena_mail(A, 2, 2, 2);
    bosh_arena_mail(A, 1, 2, 2);
    ck_assert_uint_eq(A->nwake, 1);
    ck_assert_uint_eq(A->wake[0], 2);
    ck_assert_uint_eq(bosh_arena_peer(A, 2)->asleep, 0);
    for (uint32_t i = 0; i < 15; i++) {
        bosh_arena_peer(A, 3)->asleep = 1;
        bosh_arena_mail(A, 3, 1, 1);
    }
    ck_assert_uint_eq(A->nwake, 16);
    ck_assert(!A->wake_all);
    bosh_arena_peer(A, 4)->asleep = 1;
    bosh_arena_mail(A, 4, 1, 1);
    ck_assert_uint_eq(A->nwake, 16);
    ck_assert(A->wake_all);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("arena");
    TCase *tables = tcase_create("tables");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tables, setup, teardown);
    tcase_add_test(tables, test_sizes);
    tcase_add_test(tables, test_format_wants_a_page);
    tcase_add_test(tables, test_attach);
    tcase_add_test(tables, test_untouched_until_used);
    tcase_add_test(tables, test_session_life);
    tcase_add_test(tables, test_serial_never_names_none);
    tcase_add_test(tables, test_find_takes_any_text);
    tcase_add_test(tables, test_sessions_in_one_bucket);
    tcase_add_test(tables, test_table_full);
    tcase_add_test(tables, test_no_session_from_the_reserve);
    tcase_add_test(tables, test_slot);
    tcase_add_test(tables, test_chunks_low_first);
    tcase_add_test(tables, test_peers);
    tcase_add_test(tables, test_mail);
    tcase_add_test(tables, test_mail_overflow);
    tcase_add_test(tables, test_wake_only_who_sleeps);
    suite_add_tcase(suite, tables);

    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
