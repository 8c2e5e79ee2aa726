/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sections of the lock, one function each, as a worker or a loop runs them, and what must hold at the end of any.
 *
 * A section may be killed at one of the points of bosh_point.h, or at its end: then the arena is repaired, what is
 * there must be what was there before, and the section runs a second time, by somebody else, on what the repair left.
 */
#include "model.h"

#include <setjmp.h>

#include "bosh_point.h"

/* ---- killed in the middle ---- */

static struct {
    jmp_buf out;
    unsigned left; /* points until it dies; 0: it lives */
    bool mending;
    char *before;
} death;

void bosh_point(const char *name)
{
    (void)name;
    if (death.left > 0 && --death.left == 0) {
        longjmp(death.out, 1);
    }
}

static size_t used_part(void)
{
    return (size_t)(W.a.h->off_chunks + (W.a.h->fresh_chunk - 1) * (uint64_t)BOSH_CHUNK_SIZE);
}

static const bosh_arena_t *then;

static const char *same_string(bosh_arena_t *a, const bosh_bytes_t *b)
{
    const bosh_bytes_t *was =
        (const void *)(then->base + ((const char *)(const void *)b - a->base));
    static char x[1 << 16], y[1 << 16];
    size_t off = 0, n;

    EXPECT(b->len == was->len, "a section that was undone has changed a string", "length");
    do {
        bosh_arena_t past = *then;
        n = bosh_bytes_peek(a, b, off, x, sizeof(x));
        EXPECT(n == bosh_bytes_peek(&past, was, off, y, sizeof(y)) && memcmp(x, y, n) == 0,
               "a section that was undone has changed a string", "bytes");
        off += n;
    } while (n > 0);
    return NULL;
}

/* What repair makes anew is not compared. */
static void neutral(bosh_arena_t *a, bosh_session_t *s)
{
    s->hash_next = s->free_next = 0;
    s->link.flags &= (uint8_t)~BOSH_LINK_MAILED;
    for (uint32_t k = 0; k < a->h->sizes.slots; k++) {
        s->slots[k].flags &= (uint16_t)~BOSH_SLOT_MAILED;
    }
}

static void compare(bosh_arena_t *was)
{
    size_t size = was->h->session_size;
    char *x = malloc(size), *y = malloc(size);

    then = was;
    for (bosh_ix i = 1; i < was->h->fresh_session; i++) {
        bosh_session_t *now = bosh_arena_session(&W.a, i);
        const bosh_session_t *old = bosh_arena_session(was, i);
        EXPECT(now->state == old->state, "a section that was undone has changed a session",
               "state %u, was %u", now->state, old->state);
        if (old->state == BOSH_ST_FREE) {
            continue;
        }
        memcpy(x, now, size);
        memcpy(y, old, size);
        neutral(&W.a, (bosh_session_t *)(void *)x);
        neutral(&W.a, (bosh_session_t *)(void *)y);
        EXPECT(memcmp(x + BOSH_UNDO_FROM, y + BOSH_UNDO_FROM, size - BOSH_UNDO_FROM) == 0,
               "a section that was undone has changed a session", "its record");
        bosh_arena_each_string(&W.a, now, same_string);
    }
    free(x);
    free(y);
}

static void validate(const char *when)
{
    const char *why = NULL;

    EXPECT(bosh_arena_validate(&W.a, &why) == APR_SUCCESS, "the arena does not hold together",
           "%s: %s", when, why);
}

/* Repair may die, too, and is begun again. */
static uint32_t repair(unsigned left)
{
    death.left = left;
    if (setjmp(death.out) == 0) {
        uint32_t lost = bosh_arena_repair(&W.a);
        death.left = 0;
        return lost;
    }
    death.left = 0;
    return bosh_arena_repair(&W.a);
}

static void resurrect(unsigned points)
{
    bosh_arena_t was = W.a;
    bool spoiled = W.a.undo->spoiled != 0 && W.a.h->busy != 0;
    size_t size = death.before != NULL ? (size_t)W.a.h->off_chunks : 0;
    uint32_t lost = repair(points % 3 == 0 ? 1 : 0);

    (void)size;
    validate("after a repair");
    EXPECT(lost == spoiled, "a repair has given a session up", "%u of them", lost);
    was.base = death.before;
    was.h = (bosh_header_t *)(void *)was.base;
    was.sessions = was.base + was.h->off_sessions;
    was.chunks = (bosh_chunk_t *)(void *)(was.base + was.h->off_chunks);
    if (spoiled) { /* memory was full to the last chunk: allowed, and no part of the model */
        memcpy(W.mem, was.base,
               (size_t)(was.h->off_chunks + (was.h->fresh_chunk - 1) * (uint64_t)BOSH_CHUNK_SIZE));
        return;
    }
    compare(&was);
}

typedef void section_t(void *arg);

static void section(section_t *f, void *arg)
{
    unsigned points = W.undo;

    if (points > 0) {
        W.undo = 0;
        bosh_arena_commit(&W.a);
        free(death.before);
        death.before = NULL;
        if (posix_memalign((void **)&death.before, 64, used_part()) != 0) {
            abort();
        }
        memcpy(death.before, W.mem, used_part());
        if (setjmp(death.out) == 0) {
            death.left = points;
            f(arg);
            death.left = 0;
        }
        note("      ... which its process does not live to end");
        resurrect(points);
    }
    f(arg);
    bosh_arena_commit(&W.a);
    W.a.nwake = 0;
    W.a.wake_all = false;
    if (core_low_now()) {
        W.low_at = W.now;
    }
    validate("after a section");
    world_check();
}

/* ---- the arena ---- */

void core_open(void)
{
    bosh_arena_sizes_t sizes = {
        .peers = KIDS, .sessions = W.deal->sessions, .slots = 8, .chunks = W.deal->chunks};
    uint64_t bytes = bosh_arena_size(&sizes);

    if (posix_memalign(&W.mem, 4096, bytes) != 0) {
        abort();
    }
    memset(W.mem, 0, bytes);
    EXPECT(bosh_arena_format(W.mem, &sizes, &W.a) == APR_SUCCESS, "no arena", "format");
    W.lim = W.deal->lim;
    W.now = 1000 * SEC;
    W.low_at = 0;
}

void core_close(void)
{
    free(W.mem);
    W.mem = NULL;
}

void core_join(int kid)
{
    kid_t *k = &W.kid[kid];

    k->peer = bosh_arena_peer_claim(&W.a, (uint32_t)(100 + kid), 0, W.now);
    EXPECT(k->peer != 0, "no place for a child", "%d", kid);
    k->serial = bosh_arena_peer(&W.a, k->peer)->serial;
    k->alive = true;
    k->dead = false;
}

bosh_session_t *core_session(const user_t *u)
{
    return u->exists ? bosh_arena_get(&W.a, u->index, u->serial) : NULL;
}

uint32_t core_owner(const user_t *u)
{
    const bosh_session_t *s = core_session(u);

    return s != NULL ? s->link.owner : 0;
}

bool core_low_now(void)
{
    return W.a.h->nfree_chunks < W.deal->chunks / 8 + 24;
}

bool core_low(void)
{
    return W.low_at + 40 * SEC > W.now && W.low_at != 0;
}

/* ---- requests ---- */

typedef struct ask_t {
    user_t *u;
    conn_t *c;
    const bosh_req_t *req;
    const uint8_t *sid;
    uint32_t owner;
    bool must;
    bosh_verdict_t was;
} ask_t;

static const bosh_client_t *who(const conn_t *c)
{
    static bosh_client_t w;

    w = (bosh_client_t){.ip = "192.0.2.1", .net = (uint64_t)(c->user % 2 + 1)};
    return &w;
}

static void do_create(void *arg)
{
    ask_t *x = arg;

    bosh_session_create(&W.a, W.now, x->req, &W.lim, x->sid, "example.com", who(x->c), x->owner, 0,
                        x->c->holder, &x->c->v);
    x->u->index = x->c->v.session;
    x->u->serial = x->c->v.serial;
    x->u->exists = x->u->index != 0;
}

void core_create(user_t *u, conn_t *c, const bosh_req_t *req, const uint8_t sid[BOSH_SID_BYTES],
                 int owner)
{
    ask_t x = {.u = u, .c = c, .req = req, .sid = sid, .owner = W.kid[owner].peer};

    section(do_create, &x);
}

static void do_request(void *arg)
{
    ask_t *x = arg;

    bosh_session_request(&W.a, W.now, x->req, &W.lim, who(x->c), x->c->holder, &x->c->v);
}

void core_request(conn_t *c, const bosh_req_t *req)
{
    ask_t x = {.c = c, .req = req};

    section(do_request, &x);
}

static void do_poll(void *arg)
{
    ask_t *x = arg;

    x->c->v = x->was;
    bosh_session_poll(&W.a, W.now, &W.lim, x->must, x->c->holder, &x->c->v);
}

void core_poll(conn_t *c, bool must)
{
    ask_t x = {.c = c, .must = must, .was = c->v};

    section(do_poll, &x);
}

static void do_gone(void *arg)
{
    const ask_t *x = arg;

    bosh_session_gone(&W.a, W.now, x->c->v.session, x->c->v.serial, x->c->rid, x->c->holder);
}

void core_gone(conn_t *c)
{
    ask_t x = {.c = c};

    section(do_gone, &x);
}

static void do_unsent(void *arg)
{
    const ask_t *x = arg;

    bosh_session_unsent(&W.a, x->c->v.session, x->c->v.serial, x->c->rid);
}

void core_unsent(conn_t *c)
{
    ask_t x = {.c = c};

    section(do_unsent, &x);
}

static void do_bad(void *arg)
{
    const ask_t *x = arg;

    bosh_session_bad_request(&W.a, W.now, x->u->sid, who(x->c), &x->c->v);
}

void core_bad(user_t *u, conn_t *c)
{
    ask_t x = {.u = u, .c = c};

    section(do_bad, &x);
}

char *core_read(conn_t *c)
{
    const bosh_verdict_t *v = &c->v;
    char *text = calloc(1, v->len + 1);
    size_t have = 0, n;

    do { /* as send_stored() does, with a step that is small enough to matter */
        size_t step = v->len - have < 700 ? v->len - have : 700;
        n = bosh_session_read(&W.a, v->session, v->serial, v->rid, have, text + have, step);
        have += n;
    } while (n > 0 && have < v->len);
    if (have < v->len) {
        free(text);
        return NULL;
    }
    return text;
}

/* ---- the stream ---- */

typedef struct pump_t {
    user_t *u;
    uint64_t base;
    bosh_cond_t cond;
    char *buf;
    size_t n, done, want;
    next_t next;
    bosh_slice_t *iov;
    int niov;
    const bosh_split_event_t *ev;
    apr_status_t rv;
    apr_time_t at;
    int kid;
    bool ok;
} pump_t;

/* As bosh_stream_lock(): the session, touched. */
static bosh_session_t *mine(const pump_t *x)
{
    bosh_session_t *s = core_session(x->u);

    EXPECT(s != NULL, "a session is gone while its stream is not", "u%d", x->u->nr);
    bosh_arena_touch(&W.a, s);
    return s;
}

static void do_tick(void *arg)
{
    pump_t *x = arg;
    bosh_session_t *s = mine(x);

    s->link.flags &= (uint8_t)~BOSH_LINK_MAILED;
    x->at = bosh_session_tick(&W.a, W.now, s, &W.lim);
}

bool core_tick(user_t *u, apr_time_t *at)
{
    pump_t x = {.u = u};

    section(do_tick, &x);
    *at = x.at;
    return core_session(u) != NULL;
}

static void do_consume(void *arg)
{
    const pump_t *x = arg;
    bosh_session_t *s = mine(x);

    bosh_queue_consume(&W.a, &s->link.down, x->u->put);
    s->link.out += x->u->put;
    bosh_session_sent(&W.a, W.now, s, &W.lim);
}

void core_consume(user_t *u)
{
    pump_t x = {.u = u};

    section(do_consume, &x);
    u->put = 0;
}

static void do_next(void *arg)
{
    pump_t *x = arg;
    bosh_session_t *s = mine(x);
    bosh_item_t type;
    size_t len;

    x->next = NEXT_NOTHING;
    if (s->link.phase != BOSH_LINK_OPEN) {
        return;
    }
    if (bosh_queue_head(&W.a, &s->link.down, &type, &len)) {
        x->next = type == BOSH_ITEM_HEADER  ? NEXT_RESTART
                  : type == BOSH_ITEM_CLOSE ? NEXT_CLOSE
                                            : NEXT_WRITE;
        x->done = x->next == NEXT_WRITE ? bosh_queue_peek(&W.a, &s->link.down, x->buf, x->n) : 0;
    } else if (s->state != BOSH_ST_LIVE) {
        x->next = NEXT_CLOSE;
    }
}

next_t core_next(user_t *u, char *buf, size_t *n)
{
    pump_t x = {.u = u, .buf = buf, .n = *n};

    section(do_next, &x);
    *n = x.done;
    return x.next;
}

static void do_restart(void *arg)
{
    pump_t *x = arg;
    bosh_session_t *s = mine(x);

    x->n = bosh_queue_peek(&W.a, &s->link.down, x->buf, BOSH_STREAM_HEADER_MAX);
    bosh_queue_pop(&W.a, &s->link.down);
    bosh_bytes_clear(&W.a, &s->link.raw);
    s->link.out += x->n;
    s->link.phase = BOSH_LINK_HEADER;
    bosh_session_sent(&W.a, W.now, s, &W.lim);
}

void core_restart(user_t *u, char *header, size_t *n)
{
    pump_t x = {.u = u, .buf = header};

    section(do_restart, &x);
    *n = x.n;
}

static void do_hang_up(void *arg)
{
    const pump_t *x = arg;
    bosh_session_t *s = mine(x);

    bosh_queue_clear(&W.a, &s->link.down);
    bosh_bytes_clear(&W.a, &s->link.raw);
    s->link.out += x->n;
    s->link.phase = BOSH_LINK_CLOSING;
    bosh_session_sent(&W.a, W.now, s, &W.lim);
}

void core_hang_up(user_t *u, size_t n)
{
    pump_t x = {.u = u, .n = n};

    section(do_hang_up, &x);
}

static void do_header(void *arg)
{
    const pump_t *x = arg;
    char header[BOSH_STREAM_HEADER_MAX];
    bosh_session_t *s = mine(x);

    s->link.out += bosh_session_print_header(s, header);
    s->link.phase = BOSH_LINK_HEADER;
}

void core_header(user_t *u)
{
    pump_t x = {.u = u};

    section(do_header, &x);
}

static void do_reserve(void *arg)
{
    pump_t *x = arg;
    bosh_session_t *s = mine(x);

    x->niov = 0;
    if (bosh_session_may_read(&W.a, s, &W.lim)) {
        x->niov = bosh_bytes_reserve(&W.a, &s->link.raw, x->want, x->iov, 4, BOSH_PRIO_INPUT);
        if (x->niov == 0) {
            s->link.flags |= BOSH_LINK_STALLED;
        }
    }
}

size_t core_reserve(user_t *u, size_t want, bosh_slice_t *iov, int *n)
{
    pump_t x = {.u = u, .want = want, .iov = iov};
    size_t room = 0;

    section(do_reserve, &x);
    for (int i = 0; i < x.niov; i++) {
        room += iov[i].n;
    }
    *n = x.niov;
    return room;
}

static void do_commit(void *arg)
{
    const pump_t *x = arg;
    bosh_session_t *s = mine(x);

    bosh_bytes_commit(&W.a, &s->link.raw, x->u->got);
    s->link.in += x->u->got;
}

void core_commit(user_t *u)
{
    pump_t x = {.u = u};

    section(do_commit, &x);
    u->got = 0;
    u->reading = false;
}

static void do_up(void *arg)
{
    pump_t *x = arg;
    bosh_session_t *s = mine(x);

    x->u->raw_base = x->base;
    x->rv = bosh_session_up(&W.a, W.now, s, x->ev, x->n, bosh_split_header(x->u->sp),
                            bosh_split_boundary(x->u->sp), &x->u->raw_base, &x->done);
    if (x->rv != APR_SUCCESS) {
        s->link.flags |= BOSH_LINK_STALLED;
    }
}

apr_status_t core_up(user_t *u, const bosh_split_event_t *ev, size_t n, size_t *done)
{
    pump_t x = {.u = u, .ev = ev, .n = n, .base = u->raw_base};

    section(do_up, &x);
    *done = x.done;
    return x.rv;
}

const char *core_raw(user_t *u, size_t off, size_t *n)
{
    return bosh_bytes_run(&W.a, &core_session(u)->link.raw, off, n);
}

size_t core_prime(user_t *u, char *buf, size_t size)
{
    return bosh_bytes_peek(&W.a, &core_session(u)->link.prime, 0, buf, size);
}

static void do_over(void *arg)
{
    const pump_t *x = arg;

    bosh_session_link_over(&W.a, W.now, mine(x), x->cond);
}

void core_over(user_t *u, bosh_cond_t cond)
{
    pump_t x = {.u = u, .cond = cond};

    section(do_over, &x);
}

/* ---- from one child to another: bosh_handover.c, bosh_adopt.c, bosh_rescue.c ---- */

static void do_give(void *arg)
{
    const pump_t *x = arg;
    bosh_session_t *s = mine(x);

    ++s->link.transfer;
    s->link.giver = s->link.owner;
    s->link.flags &= (uint8_t)~BOSH_LINK_MAILED;
    s->link.flags |= BOSH_LINK_TRANSIT;
    bosh_arena_own(&W.a, s, W.kid[x->kid].peer);
}

void core_give(user_t *u, int to)
{
    pump_t x = {.u = u, .kid = to};

    section(do_give, &x);
    u->transfer = core_session(u)->link.transfer;
}

static void do_adopt(void *arg)
{
    pump_t *x = arg;
    bosh_session_t *s = core_session(x->u);

    x->ok = s != NULL && s->link.owner == W.kid[x->kid].peer &&
            (s->link.flags & BOSH_LINK_TRANSIT) && s->link.transfer == x->u->transfer;
    if (x->ok) {
        bosh_arena_touch(&W.a, s);
        s->link.flags &= (uint8_t) ~(BOSH_LINK_TRANSIT | BOSH_LINK_MAILED);
        s->link.giver = 0;
    }
}

bool core_adopt(user_t *u, int kid)
{
    pump_t x = {.u = u, .kid = kid};

    section(do_adopt, &x);
    return x.ok;
}

static void do_recall(void *arg)
{
    const pump_t *x = arg;
    bosh_session_t *s = core_session(x->u);

    if (s != NULL && (s->link.flags & BOSH_LINK_TRANSIT) && s->link.giver != 0) {
        bosh_arena_touch(&W.a, s);
        bosh_arena_own(&W.a, s, s->link.giver);
        s->link.flags &= (uint8_t) ~(BOSH_LINK_TRANSIT | BOSH_LINK_MAILED);
        s->link.giver = 0;
    }
}

void core_recall(user_t *u)
{
    pump_t x = {.u = u};

    section(do_recall, &x);
}

static void do_rescue(void *arg)
{
    pump_t *x = arg;
    bosh_session_t *s = mine(x);
    uint64_t unsaid;

    x->ok = bosh_session_reconcile(&W.a, s, x->u->at, x->u->heard, &unsaid);
    EXPECT(x->ok && unsaid == 0, "record and socket do not agree at a rescue",
           "read %zu, record %llu; written %llu, record %llu", x->u->at,
           (unsigned long long)s->link.in, (unsigned long long)x->u->heard,
           (unsigned long long)s->link.out);
    s->link.flags &= (uint8_t) ~(BOSH_LINK_TRANSIT | BOSH_LINK_MAILED);
    s->link.giver = 0;
    s->armed = BOSH_NEVER;
    bosh_arena_own(&W.a, s, W.kid[x->kid].peer);
    bosh_session_sent(&W.a, W.now, s, &W.lim);
}

bool core_rescue(user_t *u, int kid)
{
    pump_t x = {.u = u, .kid = kid};

    section(do_rescue, &x);
    return x.ok;
}

static void do_bury(void *arg)
{
    pump_t *x = arg;
    bosh_ix from = (bosh_ix)x->n;
    uint32_t lost = 0;

    bosh_session_peer_died(&W.a, W.now, (uint32_t)x->done, W.kid[x->kid].peer, &from, 1, &lost);
}

void core_bury_kid(int dead, int heir)
{
    kid_t *k = &W.kid[dead];

    W.undo = 0; /* each record is a section of its own here, which ends in the function itself */
    for (bosh_ix i = 1; i <= W.deal->sessions; i++) {
        pump_t x = {.n = i, .done = k->peer, .kid = heir};
        section(do_bury, &x);
    }
    bosh_arena_peer(&W.a, k->peer)->state = BOSH_PEER_FREE;
    bosh_arena_peer(&W.a, k->peer)->streams = 0;
    k->dead = k->alive = false;
}
