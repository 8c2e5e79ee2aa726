/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Giving streams away. Called by bosh_loop.c on the loop thread.
 *
 * Invariants: a descriptor is polled by one loop at a time (the giver stops before it gives: closing would
 * not stop it while a duplicate lives). Of a stream under way the giver keeps the object, `given`, which
 * nothing touches; each such object has a parcel here. The record is written in an order that leaves it
 * true at every point where the giver may die.
 */
#include "bosh_handover.h"

#include <stdio.h>
#include <stdlib.h>

#include "bosh_clock.h"
#include "bosh_point.h"
#include "bosh_secure.h"
#include "bosh_tls.h"
#include "bosh_wire.h"

typedef struct parcel_t {
    bosh_ix index;
    uint32_t serial, transfer;
    uint32_t to, to_serial; /* the heir */
    apr_time_t since;       /* we stopped polling it */
} parcel_t;

struct bosh_handover_t {
    const bosh_loop_cfg_t *cfg;
    bosh_streams_t *ss;
    bosh_lock_t *lock;
    bosh_arena_t *arena;
    uint32_t me, npeers;
    parcel_t parcel[BOSH_WINDOW];
    uint32_t nparcels;
    bosh_ix cursor;       /* where the search for streams goes on */
    apr_time_t *avoid;    /* [1..npeers]: not to be given to before */
    bool *served;         /* [1..npeers] has got streams of ours */
    apr_time_t resend_at; /* sending failed: not before */
    apr_time_t avoid_at;  /* some peer is left alone until then */
    apr_time_t began, ended;
    uint32_t gave, back;
    uint32_t *pause; /* us that each stream was polled by nobody; NULL: none yet, or no memory */
    uint32_t npause;
};

bosh_handover_t *bosh_handover_create(const bosh_loop_cfg_t *cfg, bosh_streams_t *ss)
{
    bosh_handover_t *ho = calloc(1, sizeof(*ho));

    if (ho == NULL) {
        return NULL;
    }
    ho->cfg = cfg;
    ho->ss = ss;
    ho->lock = ss->lock;
    ho->arena = ss->arena;
    ho->me = ss->me;
    ho->npeers = ss->arena->h->sizes.peers;
    ho->cursor = 1;
    ho->avoid = calloc((size_t)ho->npeers + 1, sizeof(*ho->avoid));
    ho->served = calloc((size_t)ho->npeers + 1, sizeof(*ho->served));
    if (ho->avoid == NULL || ho->served == NULL) {
        bosh_handover_destroy(ho);
        return NULL;
    }
    return ho;
}

void bosh_handover_destroy(bosh_handover_t *ho)
{
    free(ho->avoid);
    free(ho->served);
    free(ho->pause);
    free(ho);
}

/* ---- giving ---- */

/* Whether this stream can go now. What is not in the arena has to be written or read first. */
static bool movable(const bosh_stream_t *st)
{
    if (st == NULL || st->given || st->gone || st->conn.state == BOSH_CONN_NONE ||
        st->phase == BOSH_LINK_CONNECT || bosh_tls_is_on(&st->conn) ||
        st->secure != BOSH_SECURE_NO) {
        return false;
    }
    if (st->pend_n > 0 && !st->write_dead) {
        return false;
    }
    /* Read for the end only, and nothing kept: the parser must not know more than the arena. */
    return st->phase != BOSH_LINK_CLOSING || st->sp == NULL || bosh_split_at_boundary(st->sp);
}

/* The next streams that can go. */
static uint32_t collect(bosh_handover_t *ho, bosh_stream_t **out)
{
    const bosh_streams_t *ss = ho->ss;
    uint32_t n = 0;

    for (uint32_t i = 0; i < ss->ntable && n < BOSH_BATCH && ss->stats.sockets > 0; i++) {
        bosh_stream_t *st = ss->table[ho->cursor];
        if (movable(st)) {
            out[n++] = st;
        }
        ho->cursor = ho->cursor < ss->ntable ? ho->cursor + 1 : 1;
    }
    return n;
}

/*
 * Who may get them: a younger generation; my own only while no younger one is on its way (a child that is
 * recycled, or one too many). When httpd has no room for the younger one before one of us has gone, those of
 * us that are stopping, too, gather them in one place.
 */
static bool may_get(const bosh_handover_t *ho, uint32_t i, bool current, bool crowded)
{
    const bosh_peer_t *p = bosh_arena_peer(ho->arena, i);
    int32_t age = bosh_loop_age(ho->cfg, p->generation);

    if (i == ho->me) {
        return false;
    }
    if (p->state == BOSH_PEER_LIVE) {
        return age > 0 || (age == 0 && current);
    }
    return crowded && p->state == BOSH_PEER_DRAINING && age == 0 && i > ho->me;
}

typedef struct choice_t {
    uint32_t peer, serial; /* 0: none at the moment */
    bool any;              /* there is one, be it one to be left alone for a while */
} choice_t;

/* The one with the fewest streams; those that are stopping themselves only when there is no other. */
static choice_t choose(const bosh_handover_t *ho)
{
    choice_t c = {0, 0, false};
    bool current = bosh_loop_is_current(ho->cfg);
    bool crowded = ho->cfg->crowded != NULL && ho->cfg->crowded();
    bool live = false;
    uint32_t fewest = 0;

    bosh_lock(ho->lock);
    for (uint32_t i = 1; i <= ho->npeers; i++) {
        const bosh_peer_t *p = bosh_arena_peer(ho->arena, i);
        bool lives = p->state == BOSH_PEER_LIVE;
        if (!may_get(ho, i, current, crowded) || (live && !lives)) {
            continue;
        }
        c.any = true;
        if (ho->avoid[i] <= ho->ss->now &&
            (c.peer == 0 || (lives && !live) || p->streams < fewest)) {
            c.peer = i;
            c.serial = p->serial;
            fewest = p->streams;
            live = lives;
        }
    }
    bosh_unlock(ho->lock);
    return c;
}

/* Notes in the records that they go to `to`; false: that one has gone meanwhile. st->given says which did. */
static bool sign_over(bosh_handover_t *ho, bosh_stream_t **list, uint32_t n, const choice_t *to)
{
    const bosh_peer_t *p = bosh_arena_peer(ho->arena, to->peer);
    bool there;

    bosh_lock(ho->lock);
    there =
        p->serial == to->serial && (p->state == BOSH_PEER_LIVE || p->state == BOSH_PEER_DRAINING);
    for (uint32_t i = 0; i < n && there; i++) {
        bosh_session_t *s = bosh_arena_get(ho->arena, list[i]->index, list[i]->serial);
        if (s == NULL || s->link.owner != ho->me) {
            continue;
        }
        list[i]->given = true;
        list[i]->transfer = ++s->link.transfer;
        s->link.giver = ho->me;
        s->link.flags &= (uint8_t)~BOSH_LINK_MAILED; /* the next hint is for the heir */
        s->link.flags |= BOSH_LINK_TRANSIT;
        BOSH_POINT("giver-signing");
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
        bosh_arena_own(ho->arena, s, to->peer);
    }
    bosh_unlock(ho->lock);
    return there;
}

static bool send_off(const bosh_handover_t *ho, bosh_stream_t **list, uint32_t n, uint32_t to)
{
    bosh_message_t msg = {.giver = ho->me};
    int fds[BOSH_BATCH];

    for (uint32_t i = 0; i < n; i++) {
        const bosh_stream_t *st = list[i];
        if (st->given) {
            bosh_entry_t e = {st->index, st->serial, st->transfer};
            fds[msg.n] = st->conn.fd;
            msg.entry[msg.n++] = e;
        }
    }
    return msg.n == 0 || bosh_wire_send(ho->cfg->wakers, to, &msg, fds);
}

/* Undoes sign_over() for a stream that the heir has not got, or will not take any more. Lock held. */
static void recall(bosh_handover_t *ho, bosh_session_t *s)
{
    bosh_arena_own(ho->arena, s, ho->me);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    s->link.flags &= (uint8_t) ~(BOSH_LINK_TRANSIT | BOSH_LINK_MAILED);
    s->link.giver = 0;
}

/* It is still on its way with this serial. Lock held. */
static bool under_way(const bosh_handover_t *ho, const bosh_session_t *s, uint32_t transfer)
{
    return s != NULL && (s->link.flags & BOSH_LINK_TRANSIT) && s->link.giver == ho->me &&
           s->link.transfer == transfer;
}

static void recall_all(bosh_handover_t *ho, bosh_stream_t **list, uint32_t n)
{
    bosh_lock(ho->lock);
    for (uint32_t i = 0; i < n; i++) {
        bosh_session_t *s = bosh_arena_get(ho->arena, list[i]->index, list[i]->serial);
        if (list[i]->given && under_way(ho, s, list[i]->transfer)) {
            recall(ho, s);
        }
    }
    bosh_unlock(ho->lock);
}

static void note_given(bosh_handover_t *ho, bosh_stream_t **list, uint32_t n, const choice_t *to,
                       apr_time_t since)
{
    for (uint32_t i = 0; i < n; i++) {
        if (list[i]->given) {
            parcel_t p = {list[i]->index, list[i]->serial, list[i]->transfer,
                          to->peer,       to->serial,      since};
            ho->parcel[ho->nparcels++] = p;
            ho->gave++;
        }
    }
    ho->served[to->peer] = true;
}

/* One message. False: not now. */
static bool give_batch(bosh_handover_t *ho, const choice_t *to)
{
    bosh_stream_t *list[BOSH_BATCH];
    uint32_t n = collect(ho, list);
    apr_time_t since = bosh_clock_now();
    bool sent;

    if (n == 0) {
        return false;
    }
    if (ho->began == 0) {
        ho->began = ho->ss->now;
    }
    for (uint32_t i = 0; i < n; i++) {
        bosh_stream_rest(ho->ss, list[i]);
    }
    sent = sign_over(ho, list, n, to);
    BOSH_POINT("giver-signed");
    if (sent && !send_off(ho, list, n, to->peer)) {
        recall_all(ho, list, n); /* its socketpair is full, or too many descriptors are in flight */
        ho->resend_at = ho->ss->now + BOSH_RESEND_TIME;
        sent = false;
    }
    BOSH_POINT("giver-sent");
    if (sent) {
        note_given(ho, list, n, to, since);
    }
    for (uint32_t i = 0; i < n; i++) {
        if (!sent || !list[i]->given) {
            bosh_stream_look(ho->ss, list[i]->index, list[i]->serial);
        }
    }
    return sent;
}

typedef enum fate_t { WAITS, TAKEN, RETURNED } fate_t;

/* What has become of a parcel. Lock held. */
static fate_t judge(bosh_handover_t *ho, const parcel_t *p)
{
    bosh_session_t *s = bosh_arena_get(ho->arena, p->index, p->serial);
    const bosh_peer_t *heir = bosh_arena_peer(ho->arena, p->to);

    if (under_way(ho, s, p->transfer)) {
        if (s->link.owner == p->to && heir->serial == p->to_serial &&
            heir->state != BOSH_PEER_FREE) {
            return WAITS;
        }
        recall(ho, s); /* that one has gone, and nobody saw this stream */
        return RETURNED;
    }
    return s != NULL && s->link.owner == ho->me && !(s->link.flags & BOSH_LINK_TRANSIT) ? RETURNED
                                                                                        : TAKEN;
}

/* Until we hear of it, which is a little later than the heir has it. */
static void note_taken(bosh_handover_t *ho, const parcel_t *p, apr_time_t now)
{
    if (ho->pause == NULL) {
        ho->pause = calloc(ho->ss->ntable, sizeof(*ho->pause));
    }
    if (ho->pause != NULL && ho->npause < ho->ss->ntable) {
        ho->pause[ho->npause++] = (uint32_t)(now - p->since);
    }
}

void bosh_handover_review(bosh_handover_t *ho)
{
    fate_t fate[BOSH_WINDOW];
    uint32_t n = ho->nparcels, left = 0;
    apr_time_t now = bosh_clock_now();

    if (n == 0) {
        return;
    }
    bosh_lock(ho->lock);
    for (uint32_t i = 0; i < n; i++) {
        fate[i] = judge(ho, &ho->parcel[i]);
    }
    bosh_unlock(ho->lock);
    for (uint32_t i = 0; i < n; i++) {
        parcel_t p = ho->parcel[i];
        bosh_stream_t *st = ho->ss->table[p.index];
        if (fate[i] == WAITS) {
            ho->parcel[left++] = p;
            continue;
        }
        ho->ended = ho->ss->now;
        if (fate[i] == RETURNED) {
            ho->back++;
            ho->avoid[p.to] = ho->ss->now + BOSH_RETURN_TIME;
            ho->avoid_at = ho->avoid[p.to];
            bosh_stream_look(ho->ss, p.index, p.serial);
            continue;
        }
        note_taken(ho, &p, now);
        if (st != NULL && st->serial == p.serial && st->given) {
            bosh_stream_free(ho->ss, st);
        }
    }
    ho->nparcels = left;
}

bool bosh_handover_give(bosh_handover_t *ho)
{
    choice_t to;

    bosh_handover_review(ho);
    to = choose(ho);
    while (to.peer != 0 && ho->ss->now >= ho->resend_at &&
           ho->nparcels + BOSH_BATCH <= BOSH_WINDOW && give_batch(ho, &to)) {
        to = choose(ho);
    }
    return to.any;
}

bool bosh_handover_done(const bosh_handover_t *ho)
{
    return ho->nparcels == 0 && bosh_streams_open(ho->ss) == 0;
}

apr_time_t bosh_handover_next(const bosh_handover_t *ho)
{
    apr_time_t now = ho->ss->now;

    if (ho->resend_at > now) {
        return ho->resend_at;
    }
    return ho->avoid_at > now ? ho->avoid_at : BOSH_NEVER;
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

bool bosh_handover_report(const bosh_handover_t *ho, char *line, size_t size)
{
    apr_time_t end = ho->ended != 0 ? ho->ended : ho->ss->now;
    uint32_t peers = 0, n = ho->npause;
    const uint32_t *pause = ho->pause;
    int len;

    for (uint32_t i = 1; i <= ho->npeers; i++) {
        peers += ho->served[i];
    }
    len = snprintf(line, size,
                   "peer %u (generation %u) gave %u streams to %u peers in %d ms, %u came back",
                   ho->me, ho->cfg->generation, ho->gave - ho->back, peers,
                   (int)((end - ho->began) / 1000), ho->back);
    if (n > 0 && len > 0 && (size_t)len < size) {
        qsort(ho->pause, n, sizeof(*pause), compare);
        snprintf(line + len, size - (size_t)len,
                 "; pause of a stream %u us (half of them), %u us (99 in 100), %u us (longest)",
                 pause[n / 2], pause[(uint64_t)n * 99 / 100], pause[n - 1]);
    }
    return ho->gave > 0;
}
