/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte strings and item queues against a model. The input is a program: each operation is a byte
 * and its operands, over three queues and two strings of one session in an arena so small that
 * chunks run out. After each operation the model and the arena must agree and the arena must
 * validate; at the end of each input no chunk may be missing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bosh_arena.h"
#include "bosh_split.h"

#define QUEUES  3
#define STRINGS 2
#define CHUNKS  40
#define ROOM    (CHUNKS * BOSH_CHUNK_SIZE)
#define ITEMS   (ROOM / BOSH_ITEM_HEADER_SIZE + 1)
#define MAX_OPS 400

#define CHECK(test)                                                                                \
    do {                                                                                           \
        if (!(test)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #test);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

typedef struct model_string_t {
    char text[ROOM];
    size_t n;
} model_string_t;

/* What is left of each item, one behind the other. */
typedef struct model_queue_t {
    model_string_t bytes;
    struct {
        bosh_item_t type;
        size_t n;
    } item[ITEMS];
    size_t items;
    bool open; /* the first one is consumed in part */
} model_queue_t;

typedef struct program_t {
    const uint8_t *p;
    size_t n;
} program_t;

static bosh_arena_t arena;
static bosh_queue_t *queue[QUEUES];
static bosh_bytes_t *string[STRINGS];
static model_queue_t model_queue[QUEUES];
static model_string_t model_string[STRINGS];
static char pattern[4096 + 65536], scratch[ROOM];

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- the model ---- */

static void model_put(model_string_t *m, const char *p, size_t n)
{
    CHECK(n <= sizeof(m->text) - m->n);
    memcpy(m->text + m->n, p, n);
    m->n += n;
}

static void model_drop(model_string_t *m, size_t n)
{
    CHECK(n <= m->n);
    m->n -= n;
    memmove(m->text, m->text + n, m->n);
}

static void model_pop(model_queue_t *m)
{
    model_drop(&m->bytes, m->item[0].n);
    m->items--;
    memmove(&m->item[0], &m->item[1], m->items * sizeof(m->item[0]));
    m->open = false;
}

static void model_append(model_queue_t *m, bosh_item_t type, size_t n)
{
    CHECK(m->items < ITEMS);
    m->item[m->items].type = type;
    m->item[m->items].n = n;
    m->items++;
}

/* ---- agreement ---- */

static void compare_string(int i)
{
    const model_string_t *m = &model_string[i];
    size_t off = 0, n;

    CHECK(string[i]->len == m->n);
    for (const char *p; (p = bosh_bytes_run(&arena, string[i], off, &n)) != NULL; off += n) {
        CHECK(n > 0 && n <= m->n - off && memcmp(p, m->text + off, n) == 0);
    }
    CHECK(off == m->n);
}

/* The bytes that a peek may return: the first items as long as the type is the same. */
static size_t peekable(const model_queue_t *m)
{
    size_t sum = 0;

    for (size_t i = 0; i < m->items && m->item[i].type == m->item[0].type; i++) {
        sum += m->item[i].n;
    }
    return sum;
}

static void compare_queue(int i)
{
    const model_queue_t *m = &model_queue[i];
    bosh_item_t type = BOSH_ITEM_CLOSE;
    size_t n = 0;

    CHECK(bosh_queue_head(&arena, queue[i], &type, &n) == (m->items > 0));
    CHECK(queue[i]->items == m->items);
    if (m->items > 0) {
        CHECK(type == m->item[0].type && n == m->item[0].n);
    }
    n = bosh_queue_peek(&arena, queue[i], scratch, sizeof(scratch));
    CHECK(n == peekable(m) && memcmp(scratch, m->bytes.text, n) == 0);
    CHECK(BOSH_QUEUE_BYTES(queue[i]) ==
          m->bytes.n + (m->items - (m->open ? 1 : 0)) * BOSH_ITEM_HEADER_SIZE);
}

static void compare(void)
{
    const char *why = NULL;

    if (bosh_arena_validate(&arena, &why) != APR_SUCCESS) {
        fprintf(stderr, "the arena does not validate: %s\n", why);
        abort();
    }
    for (int i = 0; i < QUEUES; i++) {
        compare_queue(i);
    }
    for (int i = 0; i < STRINGS; i++) {
        compare_string(i);
    }
}

/* APR_ENOMEM is true when the chunks that this priority may take do not hold n bytes, and never
 * else. */
static bool grew(apr_status_t rv, size_t n, bosh_prio_t prio)
{
    uint32_t keep = prio == BOSH_PRIO_INPUT ? CHUNKS / 32 : prio == BOSH_PRIO_NEW ? CHUNKS / 8 : 0;
    uint32_t nfree = arena.h->nfree_chunks;

    CHECK(rv == APR_SUCCESS || rv == APR_ENOMEM);
    if (rv == APR_ENOMEM) {
        CHECK(nfree <= keep || n > (size_t)(nfree - keep) * BOSH_CHUNK_DATA);
    }
    return rv == APR_SUCCESS;
}

/* ---- operands ---- */

static uint8_t byte(program_t *in)
{
    if (in->n == 0) {
        return 0;
    }
    in->n--;
    return *in->p++;
}

/* Often about a chunk, at times large. */
static size_t length(program_t *in)
{
    uint8_t kind = byte(in), low = byte(in);

    switch (kind % 4) {
    case 0:
        return low;
    case 1:
        return BOSH_CHUNK_DATA - 128 + low;
    case 2:
        return (size_t)(kind / 4) * 256 + low;
    default:
        return (size_t)(kind / 4) * BOSH_CHUNK_DATA / 2 + low % 32;
    }
}

static bosh_slice_t text(program_t *in)
{
    bosh_slice_t s;

    s.n = length(in);
    s.p = pattern + byte(in) * 16;
    return s;
}

static bosh_prio_t prio(program_t *in)
{
    return (bosh_prio_t)(byte(in) % 3);
}

/* ---- operations ---- */

static void run_append(program_t *in, int i)
{
    bosh_slice_t s = text(in);
    bosh_prio_t how = prio(in);

    if (grew(bosh_bytes_append(&arena, string[i], s.p, s.n, how), s.n, how)) {
        model_put(&model_string[i], s.p, s.n);
    }
}

static void run_append_from(program_t *in, int i)
{
    model_string_t *to = &model_string[i], *from = &model_string[(i + 1) % STRINGS];
    size_t off = length(in), n = length(in);
    bosh_prio_t how = prio(in);
    apr_status_t rv =
        bosh_bytes_append_from(&arena, string[i], string[(i + 1) % STRINGS], off, n, how);

    if (off > from->n || n > from->n - off) {
        CHECK(rv == APR_EINVAL);
    } else if (grew(rv, n, how)) {
        model_put(to, from->text + off, n);
    }
}

static void run_consume(program_t *in, int i)
{
    size_t n = length(in);

    n = n < model_string[i].n ? n : model_string[i].n;
    bosh_bytes_consume(&arena, string[i], n);
    model_drop(&model_string[i], n);
}

static void run_peek(program_t *in, int i)
{
    const model_string_t *m = &model_string[i];
    size_t off = length(in), n = length(in) % sizeof(scratch), want;

    want = off >= m->n ? 0 : m->n - off < n ? m->n - off : n;
    CHECK(bosh_bytes_peek(&arena, string[i], off, scratch, n) == want);
    CHECK(want == 0 || memcmp(scratch, m->text + off, want) == 0);
}

/* Reserves; consumes meanwhile; commits, or leaves it open as one who has died. */
static void run_reserve(program_t *in, int i)
{
    bosh_slice_t iov[6], s = text(in);
    size_t area = 0, done = 0;
    uint8_t how = byte(in);
    int n = bosh_bytes_reserve(&arena, string[i], length(in), iov, how % 7, (bosh_prio_t)(how % 3));

    for (int k = 0; k < n; k++) {
        CHECK(iov[k].n > 0);
        area += iov[k].n;
    }
    s.n = s.n < area ? s.n : area;
    for (int k = 0; k < n; k++) { /* all of it is ours to write */
        memset((char *)(uintptr_t)iov[k].p, 0xee, iov[k].n);
    }
    compare();
    if (how & 0x40) {
        run_consume(in, i);
        compare();
    }
    for (int k = 0; k < n && done < s.n; k++) {
        size_t part = s.n - done < iov[k].n ? s.n - done : iov[k].n;
        memcpy((char *)(uintptr_t)iov[k].p, s.p + done, part);
        done += part;
    }
    if (!(how & 0x80)) {
        bosh_bytes_commit(&arena, string[i], s.n);
        model_put(&model_string[i], s.p, s.n);
    }
}

static void run_queue_append(program_t *in, int i)
{
    bosh_slice_t s[3] = {{NULL, 0}, {NULL, 0}, {NULL, 0}};
    uint8_t how = byte(in);
    bosh_item_t type = (bosh_item_t)(1 + how % BOSH_ITEM_CLOSE);
    int n = how / 8 % 4;
    bosh_prio_t level = prio(in);
    size_t sum = 0;

    for (int k = 0; k < n; k++) {
        s[k] = text(in);
        sum += s[k].n;
    }
    if (grew(bosh_queue_append(&arena, queue[i], type, s, n, level), sum + BOSH_ITEM_HEADER_SIZE,
             level)) {
        model_append(&model_queue[i], type, sum);
        for (int k = 0; k < n; k++) {
            if (s[k].n > 0) {
                model_put(&model_queue[i].bytes, s[k].p, s[k].n);
            }
        }
    }
}

/* An event over a string, with up to three edits; only now and then one that is out of range. */
static void run_event(program_t *in, int i)
{
    const model_string_t *raw = &model_string[i % STRINGS];
    uint64_t base = (uint64_t)byte(in) << 33, at = 0;
    bosh_edit_t edits[3];
    bosh_split_event_t ev = {.edits = edits};
    size_t from = length(in), n = length(in), sum = 0;
    bosh_prio_t how = prio(in);
    bool fits;
    apr_status_t rv;

    ev.nedits = byte(in) % 4;
    for (size_t k = 0; k < ev.nedits; k++) {
        bosh_slice_t s = text(in);
        edits[k].at = base + from + at + byte(in);
        edits[k].drop = byte(in);
        at = edits[k].at + edits[k].drop - base - from;
        edits[k].text = s.p;
        edits[k].n = s.n % 64;
        sum += edits[k].n;
    }
    ev.start = base + from;
    ev.end = ev.start + n;
    fits = from <= raw->n && n <= raw->n - from && at <= n;
    rv = bosh_queue_append_event(&arena, queue[i], BOSH_ITEM_STANZA, string[i % STRINGS], base, &ev,
                                 how);
    if (!fits) {
        CHECK(rv == APR_EINVAL);
    } else if (grew(rv, n + sum + BOSH_ITEM_HEADER_SIZE, how)) {
        model_queue_t *m = &model_queue[i];
        size_t before = m->bytes.n;
        at = ev.start;
        for (size_t k = 0; k < ev.nedits; k++) {
            model_put(&m->bytes, raw->text + (at - base), (size_t)(edits[k].at - at));
            model_put(&m->bytes, edits[k].text, edits[k].n);
            at = edits[k].at + edits[k].drop;
        }
        model_put(&m->bytes, raw->text + (at - base), (size_t)(ev.end - at));
        model_append(m, BOSH_ITEM_STANZA, m->bytes.n - before);
    }
}

static void run_queue_consume(program_t *in, int i)
{
    model_queue_t *m = &model_queue[i];
    size_t n = length(in), most = peekable(m);

    n = n < most ? n : most;
    bosh_queue_consume(&arena, queue[i], n);
    while (n > 0) {
        if (n < m->item[0].n) {
            model_drop(&m->bytes, n);
            m->item[0].n -= n;
            m->open = true;
            break;
        }
        n -= m->item[0].n;
        model_pop(m);
    }
}

static void run_pop(int i)
{
    bosh_queue_pop(&arena, queue[i]);
    if (model_queue[i].items > 0) {
        model_pop(&model_queue[i]);
    }
}

static void run_pop_to(program_t *in, int i)
{
    model_queue_t *m = &model_queue[i];
    int to = byte(in) % STRINGS;
    bosh_prio_t how = prio(in);
    apr_status_t rv = bosh_queue_pop_to(&arena, queue[i], string[to], how);

    if (m->items == 0) {
        CHECK(rv == APR_EOF);
    } else if (grew(rv, m->item[0].n, how)) {
        model_put(&model_string[to], m->bytes.text, m->item[0].n);
        model_pop(m);
    }
}

static void run_move(program_t *in, int i)
{
    int from = byte(in) % QUEUES;
    model_queue_t *dst = &model_queue[i], *src = &model_queue[from];
    uint32_t nfree = arena.h->nfree_chunks;
    apr_status_t rv = bosh_queue_move(&arena, queue[i], queue[from]);

    if (from == i || src->open) {
        CHECK(rv == APR_EINVAL);
        return;
    }
    CHECK(rv == APR_SUCCESS && arena.h->nfree_chunks >= nfree);
    model_put(&dst->bytes, src->bytes.text, src->bytes.n);
    for (size_t k = 0; k < src->items; k++) {
        model_append(dst, src->item[k].type, src->item[k].n);
    }
    src->items = 0;
    src->bytes.n = 0;
}

static void run_clear(int i)
{
    bosh_queue_clear(&arena, queue[i]);
    model_queue[i].items = 0;
    model_queue[i].bytes.n = 0;
    model_queue[i].open = false;
    bosh_bytes_clear(&arena, string[i % STRINGS]);
    model_string[i % STRINGS].n = 0;
}

static void run_one(program_t *in)
{
    uint8_t op = byte(in);
    int q = op / 16 % QUEUES, s = op / 16 % STRINGS;

    switch (op % 16) {
    case 0:
        run_append(in, s);
        break;
    case 1:
        run_append_from(in, s);
        break;
    case 2:
        run_consume(in, s);
        break;
    case 3:
        run_peek(in, s);
        break;
    case 4:
    case 5:
        run_reserve(in, s);
        break;
    case 6:
    case 7:
        run_event(in, q);
        break;
    case 8:
    case 9:
        run_queue_append(in, q);
        break;
    case 10:
    case 11:
        run_queue_consume(in, q);
        break;
    case 12:
        run_pop(q);
        break;
    case 13:
        run_pop_to(in, q);
        break;
    case 14:
        run_move(in, q);
        break;
    default:
        run_clear(q);
        break;
    }
    compare();
}

/* ---- one input ---- */

static void make_arena(void)
{
    bosh_arena_sizes_t sizes = {.peers = 1, .sessions = 1, .slots = 8, .chunks = CHUNKS};
    void *mem;

    CHECK(posix_memalign(&mem, 4096, (size_t)bosh_arena_size(&sizes)) == 0);
    memset(mem, 0, (size_t)bosh_arena_size(&sizes));
    CHECK(bosh_arena_format(mem, &sizes, &arena) == APR_SUCCESS);
    for (size_t i = 0; i < sizeof(pattern); i++) {
        pattern[i] = (char)('!' + (i * 7 + i / 93) % 93);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t sid[BOSH_SID_BYTES] = {1};
    program_t in = {data, size};
    bosh_session_t *s;

    if (arena.base == NULL) {
        make_arena();
    }
    s = bosh_arena_session_new(&arena, sid);
    CHECK(s != NULL);
    queue[0] = &s->link.down;
    queue[1] = &s->link.up;
    queue[2] = &s->slots[0].payload;
    string[0] = &s->link.raw;
    string[1] = &s->slots[0].answer;
    for (int ops = 0; in.n > 0 && ops < MAX_OPS; ops++) {
        run_one(&in);
    }
    bosh_arena_session_free(&arena, s);
    CHECK(arena.h->nfree_chunks == CHUNKS);
    memset(model_string, 0, sizeof(model_string));
    for (int i = 0; i < QUEUES; i++) {
        model_queue[i].items = 0;
        model_queue[i].bytes.n = 0;
        model_queue[i].open = false;
    }
    return 0;
}
