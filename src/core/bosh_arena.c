/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shared segment: its layout, the session table, the chunk list, peers and their mailboxes.
 * Called by any thread of any child that holds the arena's lock (bosh_lock.h).
 *
 *   [ header | peers | buckets | nets | undo | sessions | marks | chunks ]    each part begins on a page
 *
 * Sessions and chunks are handed out from a free list of what has come back, else from `fresh`, the
 * first record never used. So making an arena writes the header alone, and memory that was never
 * needed is never touched, not even by validate and repair (bosh_repair.c).
 *
 * Invariant, whenever the lock is free: each chunk below fresh_chunk is on exactly one list: a
 * session's, free_chunk's or late_chunk's; each session below fresh_session is in the bucket of its
 * sid, or FREE and on free_session's list.
 */
#include "bosh_arena.h"
#include "bosh_point.h"
#include "bosh_undo.h"

#include <string.h>

#define PAGE         4096u
#define MAX_PEERS    65535u
#define MAX_SESSIONS (1u << 24)
#define MAX_CHUNKS   (1u << 30)

/* The module with kill points passes for one of another layout, too: a test goes over to it. */
#ifdef BOSH_POINTS
#define LAYOUT (BOSH_ARENA_LAYOUT | 1u << 16)
#else
#define LAYOUT BOSH_ARENA_LAYOUT
#endif

_Static_assert(sizeof(bosh_chunk_t) == BOSH_CHUNK_SIZE, "a chunk has no padding");
_Static_assert(BOSH_CHUNK_DATA <= UINT16_MAX, "bosh_chunk_t.used can count a full chunk");
_Static_assert(MAX_SESSIONS < BOSH_MAIL_WAITER, "a session's index leaves the waiter bit alone");

/* ---- layout ---- */

static uint64_t place(uint64_t *end, uint64_t bytes)
{
    uint64_t at = (*end + PAGE - 1) & ~(uint64_t)(PAGE - 1);

    *end = at + bytes;
    return at;
}

/* Where everything lies for these sizes; false: out of range. With the limits above nothing
 * overflows. */
static bool lay_out(const bosh_arena_sizes_t *sizes, bosh_header_t *h)
{
    uint64_t end = sizeof(*h);

    if (sizes->peers < 1 || sizes->peers > MAX_PEERS || sizes->sessions < 1 ||
        sizes->sessions > MAX_SESSIONS || sizes->chunks < 1 || sizes->chunks > MAX_CHUNKS ||
        sizes->slots < BOSH_SLOTS_MIN || sizes->slots > BOSH_SLOTS_MAX ||
        (sizes->slots & (sizes->slots - 1)) != 0) {
        return false;
    }
    h->sizes = *sizes;
    h->session_size = (uint32_t)(sizeof(bosh_session_t) + sizes->slots * sizeof(bosh_slot_t));
    h->session_size = (h->session_size + 63) & ~63u;
    for (h->buckets = 64; h->buckets < sizes->sessions; h->buckets *= 2) {
    }
    h->off_peers = place(&end, (uint64_t)sizes->peers * sizeof(bosh_peer_t));
    h->off_buckets = place(&end, (uint64_t)h->buckets * sizeof(bosh_ix));
    h->nets = 4 * h->buckets;
    h->off_nets = place(&end, (uint64_t)h->nets * sizeof(uint32_t));
    h->off_undo = place(&end, sizeof(bosh_undo_t) + (uint64_t)BOSH_UNDO_RECORDS * h->session_size);
    h->off_sessions = place(&end, (uint64_t)sizes->sessions * h->session_size);
    h->off_marks = place(&end, sizes->chunks);
    h->off_chunks = place(&end, (uint64_t)sizes->chunks * BOSH_CHUNK_SIZE);
    h->total = end;
    return end <= SIZE_MAX;
}

uint64_t bosh_arena_size(const bosh_arena_sizes_t *sizes)
{
    bosh_header_t h;

    return lay_out(sizes, &h) ? h.total : 0;
}

static void find_parts(void *mem, bosh_arena_t *a)
{
    bosh_header_t *h = mem;

    memset(a, 0, sizeof(*a));
    a->base = mem;
    a->h = h;
    a->peers = (bosh_peer_t *)(void *)(a->base + h->off_peers);
    a->buckets = (uint32_t *)(void *)(a->base + h->off_buckets);
    a->nets = (uint32_t *)(void *)(a->base + h->off_nets);
    a->undo = (bosh_undo_t *)(void *)(a->base + h->off_undo);
    a->sessions = a->base + h->off_sessions;
    a->marks = (uint8_t *)a->base + h->off_marks;
    a->chunks = (bosh_chunk_t *)(void *)(a->base + h->off_chunks);
}

apr_status_t bosh_arena_format(void *mem, const bosh_arena_sizes_t *sizes, bosh_arena_t *a)
{
    bosh_header_t *h = mem;

    if ((uintptr_t)mem % PAGE != 0 || !lay_out(sizes, h)) {
        return APR_EINVAL;
    }
    h->magic = BOSH_ARENA_MAGIC;
    h->layout = LAYOUT;
    h->fresh_session = 1;
    h->fresh_chunk = 1;
    h->nfree_chunks = sizes->chunks;
    find_parts(mem, a);
    return APR_SUCCESS;
}

apr_status_t bosh_arena_attach(void *mem, bosh_arena_t *a)
{
    const bosh_header_t *h = mem;
    bosh_header_t want;

    if ((uintptr_t)mem % PAGE != 0 || h->magic != BOSH_ARENA_MAGIC || h->layout != LAYOUT ||
        !lay_out(&h->sizes, &want) || h->session_size != want.session_size ||
        h->buckets != want.buckets || h->off_peers != want.off_peers ||
        h->off_buckets != want.off_buckets || h->nets != want.nets ||
        h->off_nets != want.off_nets || h->off_undo != want.off_undo ||
        h->off_sessions != want.off_sessions || h->off_marks != want.off_marks ||
        h->off_chunks != want.off_chunks || h->total != want.total) {
        return APR_EINVAL;
    }
    find_parts(mem, a);
    return APR_SUCCESS;
}

void bosh_arena_abandon(void *mem)
{
    bosh_header_t *h = mem;

    if (h->magic == BOSH_ARENA_MAGIC) {
        __atomic_store_n(&h->abandoned, 1, __ATOMIC_RELAXED);
    }
}

/* ---- chunks ---- */

/* The part of the chunks that this priority must leave alone. */
static uint32_t kept_back(const bosh_header_t *h, bosh_prio_t prio)
{
    switch (prio) {
    case BOSH_PRIO_NEW:
        return h->sizes.chunks / 8;
    case BOSH_PRIO_INPUT:
        return h->sizes.chunks / 32;
    case BOSH_PRIO_ANSWER:
        break;
    }
    return 0;
}

bool bosh_arena_room(bosh_arena_t *a, uint32_t n, bosh_prio_t prio)
{
    return (uint64_t)kept_back(a->h, prio) + n <= a->h->nfree_chunks;
}

/* The next one from a list; 0: it is empty. */
static bosh_ix unlist(bosh_arena_t *a, bosh_ix *list)
{
    bosh_ix c = *list;

    if (c != 0) {
        *list = bosh_arena_chunk(a, c)->after;
    }
    return c;
}

bosh_ix bosh_arena_chunk_new(bosh_arena_t *a, bosh_prio_t prio)
{
    bosh_header_t *h = a->h;
    bosh_chunk_t *chunk;
    bosh_ix c;

    if (!bosh_arena_room(a, 1, prio)) {
        return 0;
    }
    c = unlist(a, &h->free_chunk);
    if (c == 0 && h->fresh_chunk <= h->sizes.chunks) {
        c = h->fresh_chunk++;
    }
    if (c == 0) {
        c = unlist(a, &h->late_chunk);
    }
    if (c == 0) { /* none but what this very section has given back */
        bosh_undo_spoil(a);
        c = unlist(a, &a->undo->freed);
    }
    h->nfree_chunks--;
    BOSH_POINT("chunk-taken");
    chunk = bosh_arena_chunk(a, c);
    chunk->next = 0;
    chunk->after = h->busy != 0 ? a->undo->section : 0;
    chunk->used = 0;
    chunk->state = BOSH_CHUNK_USED;
    return c;
}

void bosh_arena_chunk_free(bosh_arena_t *a, bosh_ix c)
{
    bosh_chunk_t *chunk = bosh_arena_chunk(a, c);
    bosh_ix *list = &a->h->free_chunk;

    if (a->h->busy != 0) { /* not to be handed out while it may be needed to undo the section */
        list = &a->undo->freed;
        if (chunk->state == BOSH_CHUNK_RESERVED) {
            bosh_undo_note(a, c);
        }
        if (*list == 0) {
            a->undo->freed_last = c;
        }
    }
    chunk->state = BOSH_CHUNK_FREE;
    chunk->after = *list;
    BOSH_POINT("chunk-freed");
    *list = c;
    a->h->nfree_chunks++;
}

/* ---- sessions ---- */

bosh_session_t *bosh_arena_get(bosh_arena_t *a, bosh_ix i, uint32_t serial)
{
    bosh_session_t *s;

    if (i == 0 || i >= a->h->fresh_session) {
        return NULL;
    }
    s = bosh_arena_session(a, i);
    return s->state != BOSH_ST_FREE && s->serial == serial ? s : NULL;
}

/* Sids are random and made by us, so their own bits spread them: no client chooses its bucket. */
static bosh_ix *bucket_of(bosh_arena_t *a, const uint8_t sid[BOSH_SID_BYTES])
{
    uint32_t hash;

    memcpy(&hash, sid, sizeof(hash));
    return &a->buckets[hash & (a->h->buckets - 1)];
}

static bool same_sid(const uint8_t *x, const uint8_t *y)
{
    unsigned differ = 0;

    for (int i = 0; i < BOSH_SID_BYTES; i++) {
        differ |= (unsigned)(x[i] ^ y[i]);
    }
    return differ == 0;
}

static bosh_session_t *find(bosh_arena_t *a, const uint8_t sid[BOSH_SID_BYTES])
{
    bosh_ix i = *bucket_of(a, sid);

    while (i != 0) {
        bosh_session_t *s = bosh_arena_session(a, i);
        if (same_sid(s->sid, sid)) {
            return s;
        }
        i = s->hash_next;
    }
    return NULL;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool bosh_arena_read_sid(const char *sid, uint8_t bytes[BOSH_SID_BYTES])
{
    if (sid == NULL) {
        return false;
    }
    for (int i = 0; i < BOSH_SID_BYTES; i++) {
        int high = hex_digit(sid[2 * i]);
        int low = high < 0 ? -1 : hex_digit(sid[2 * i + 1]);
        if (low < 0) {
            return false;
        }
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    return sid[BOSH_SID_LEN] == '\0';
}

bosh_session_t *bosh_arena_find(bosh_arena_t *a, const char *sid)
{
    uint8_t bytes[BOSH_SID_BYTES];
    bosh_session_t *s = bosh_arena_read_sid(sid, bytes) ? find(a, bytes) : NULL;

    return s != NULL && s->root == 0 ? s : NULL; /* a stream's name is no sid */
}

bosh_session_t *bosh_arena_find_branch(bosh_arena_t *a, const uint8_t name[BOSH_SID_BYTES])
{
    bosh_session_t *s = find(a, name);

    return s != NULL && s->root != 0 ? s : NULL;
}

void bosh_arena_print_sid(const uint8_t sid[BOSH_SID_BYTES], char out[BOSH_SID_LEN + 1])
{
    static const char digits[] = "0123456789abcdef";

    for (int i = 0; i < BOSH_SID_BYTES; i++) {
        out[2 * i] = digits[sid[i] >> 4];
        out[2 * i + 1] = digits[sid[i] & 15];
    }
    out[BOSH_SID_LEN] = '\0';
}

void bosh_arena_sid_text(const bosh_session_t *s, char out[BOSH_SID_LEN + 1])
{
    bosh_arena_print_sid(s->sid, out);
}

bosh_session_t *bosh_arena_session_new(bosh_arena_t *a, const uint8_t sid[BOSH_SID_BYTES])
{
    bosh_header_t *h = a->h;
    bosh_ix i = h->free_session != 0 ? h->free_session : h->fresh_session;
    bosh_ix *bucket = bucket_of(a, sid);
    bosh_session_t *s;
    uint32_t serial;

    if (i > h->sizes.sessions || !bosh_arena_room(a, 1, BOSH_PRIO_NEW) || find(a, sid) != NULL) {
        return NULL;
    }
    s = bosh_arena_session(a, i);
    bosh_arena_touch_too(a, s);
    if (h->free_session != 0) {
        h->free_session = s->free_next;
    } else {
        h->fresh_session++;
    }
    serial =
        s->serial != 0 ? s->serial : 1; /* 0 names no session, so that zeroed memory names none */
    memset(s, 0, h->session_size);
    s->serial = serial;
    s->state = BOSH_ST_LIVE;
    memcpy(s->sid, sid, BOSH_SID_BYTES);
    BOSH_POINT("session-made");
    s->hash_next = *bucket;
    *bucket = i;
    h->nsessions++;
    return s;
}

static void free_chunks(bosh_arena_t *a, bosh_session_t *s)
{
    bosh_queue_clear(a, &s->link.down);
    bosh_queue_clear(a, &s->link.up);
    bosh_bytes_clear(a, &s->link.raw);
    bosh_bytes_clear(a, &s->link.prime);
    bosh_bytes_clear(a, &s->link.hello);
    bosh_bytes_clear(a, &s->part);
    for (uint32_t i = 0; i < a->h->sizes.slots; i++) {
        bosh_queue_clear(a, &s->slots[i].payload);
        bosh_bytes_clear(a, &s->slots[i].answer);
    }
}

static void unhash(bosh_arena_t *a, const bosh_session_t *s, bosh_ix i)
{
    bosh_ix *at = bucket_of(a, s->sid);

    while (*at != 0) {
        if (*at == i) {
            *at = s->hash_next;
            return;
        }
        at = &bosh_arena_session(a, *at)->hash_next;
    }
}

/* ---- sessions of a client's network ---- */

/* Two counters that a network shares with few others, and both with hardly any: enough to tell who has many. */
void bosh_arena_net_cells(bosh_arena_t *a, uint64_t net, uint32_t *cell[2])
{
    uint64_t x = net * UINT64_C(0x9e3779b97f4a7c15);

    x = (x ^ (x >> 29)) * UINT64_C(0xbf58476d1ce4e5b9);
    x ^= x >> 32;
    cell[0] = &a->nets[(uint32_t)x & (a->h->nets / 2 - 1)];
    cell[1] = &a->nets[a->h->nets / 2 + ((uint32_t)(x >> 32) & (a->h->nets / 2 - 1))];
}

uint32_t bosh_arena_net_count(bosh_arena_t *a, uint64_t net)
{
    uint32_t *cell[2];

    bosh_arena_net_cells(a, net, cell);
    return *cell[0] < *cell[1] ? *cell[0] : *cell[1];
}

void bosh_arena_net_add(bosh_arena_t *a, bosh_session_t *s, uint64_t net)
{
    uint32_t *cell[2];

    s->net = net;
    if (net != 0) {
        a->h->counting = 1;
        bosh_arena_net_cells(a, net, cell);
        ++*cell[0];
        ++*cell[1];
    }
}

static void net_remove(bosh_arena_t *a, bosh_session_t *s)
{
    uint32_t *cell[2];

    if (s->net != 0) {
        bosh_arena_net_cells(a, s->net, cell);
        --*cell[0];
        --*cell[1];
        s->net = 0;
    }
}

void bosh_arena_session_free(bosh_arena_t *a, bosh_session_t *s)
{
    bosh_ix i = bosh_arena_index(a, s);

    bosh_arena_touch(a, s);
    net_remove(a, s);
    bosh_arena_own(a, s, 0);
    free_chunks(a, s);
    unhash(a, s, i);
    BOSH_POINT("session-freed");
    if (++s->serial == 0) {
        s->serial = 1;
    }
    s->state = BOSH_ST_FREE;
    memset(s->sid, 0, sizeof(s->sid));
    s->hash_next = 0;
    s->free_next = a->h->free_session;
    a->h->free_session = i;
    a->h->nsessions--;
}

const char *bosh_arena_each_string(bosh_arena_t *a, const bosh_session_t *s,
                                   bosh_arena_visit_t *visit)
{
    const bosh_link_t *link = &s->link;
    const char *why = NULL;

    if ((why = visit(a, &link->down.b)) != NULL || (why = visit(a, &link->up.b)) != NULL ||
        (why = visit(a, &link->raw)) != NULL || (why = visit(a, &link->prime)) != NULL ||
        (why = visit(a, &link->hello)) != NULL || (why = visit(a, &s->part)) != NULL) {
        return why;
    }
    for (uint32_t i = 0; i < a->h->sizes.slots; i++) {
        if ((why = visit(a, &s->slots[i].payload.b)) != NULL ||
            (why = visit(a, &s->slots[i].answer)) != NULL) {
            return why;
        }
    }
    return NULL;
}

bosh_slot_t *bosh_arena_slot(bosh_arena_t *a, bosh_session_t *s, uint64_t rid)
{
    return &s->slots[rid & (a->h->sizes.slots - 1)];
}

/* ---- peers ---- */

void bosh_arena_own(bosh_arena_t *a, bosh_session_t *s, uint32_t peer)
{
    uint32_t before = s->link.owner;

    if (before >= 1 && before <= a->h->sizes.peers && bosh_arena_peer(a, before)->streams > 0) {
        bosh_arena_peer(a, before)->streams--;
    }
    s->link.owner = peer;
    if (peer >= 1 && peer <= a->h->sizes.peers) {
        bosh_arena_peer(a, peer)->streams++;
    }
}

uint32_t bosh_arena_peer_claim(bosh_arena_t *a, uint32_t pid, uint32_t generation, apr_time_t now)
{
    for (uint32_t i = 1; i <= a->h->sizes.peers; i++) {
        bosh_peer_t *peer = bosh_arena_peer(a, i);
        if (peer->state != BOSH_PEER_FREE) {
            continue;
        }
        peer->pid = pid;
        peer->serial++;
        peer->generation = generation;
        peer->heartbeat = now;
        peer->mail_head = 0;
        peer->mail_n = 0;
        peer->overflow = 0;
        peer->asleep = 0;
        peer->streams = 0;
        peer->parked = 0;
        peer->moved = 0;
        peer->state = BOSH_PEER_LIVE;
        return i;
    }
    return 0;
}

static void note_wake(bosh_arena_t *a, uint32_t peer)
{
    if (a->nwake < sizeof(a->wake) / sizeof(a->wake[0])) {
        a->wake[a->nwake++] = (uint16_t)peer;
    } else {
        a->wake_all = true;
    }
}

void bosh_arena_mail(bosh_arena_t *a, uint32_t peer, uint32_t what, uint32_t tag)
{
    bosh_peer_t *p;

    if (peer == 0 || peer > a->h->sizes.peers) {
        return;
    }
    p = bosh_arena_peer(a, peer);
    if (p->state == BOSH_PEER_FREE) {
        return;
    }
    if (p->mail_n < BOSH_MAILBOX) {
        bosh_mail_t *m = &p->mail[(p->mail_head + p->mail_n) % BOSH_MAILBOX];
        m->what = what;
        m->tag = tag;
        p->mail_n++;
        BOSH_POINT("mail-put");
    } else {
        p->overflow = 1;
    }
    if (p->asleep) { /* whoever sends first wakes it; the others rely on that */
        p->asleep = 0;
        note_wake(a, peer);
    }
}

uint32_t bosh_arena_mail_take(bosh_arena_t *a, uint32_t peer, bosh_mail_t *out, uint32_t max,
                              bool *overflow)
{
    bosh_peer_t *p = bosh_arena_peer(a, peer);
    uint32_t n = 0;

    while (n < max && p->mail_n > 0) {
        out[n++] = p->mail[p->mail_head];
        p->mail_head = (p->mail_head + 1) % BOSH_MAILBOX;
        p->mail_n--;
    }
    *overflow = p->overflow != 0;
    p->overflow = 0;
    return n;
}
