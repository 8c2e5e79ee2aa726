/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several streams in one session. Called by bosh_session.c, bosh_answer.c, bosh_end.c and bosh_link.c, under the
 * arena lock. A session that has never had a second stream comes here for nothing but questions of one comparison.
 */
#include "bosh_multi.h"

#include <string.h>

#include "bosh_answer.h"
#include "bosh_back.h"
#include "bosh_undo.h"
#include "bosh_window.h"

bosh_session_t *bosh_multi_root(bosh_arena_t *a, bosh_session_t *st)
{
    bosh_session_t *s;

    if (st->root == 0) {
        return st;
    }
    s = bosh_arena_get(a, st->root, st->root_serial);
    if (s != NULL) {
        bosh_arena_touch_too(a, s);
    }
    return s;
}

bosh_session_t *bosh_multi_next(bosh_arena_t *a, bosh_session_t *s, bosh_session_t *st)
{
    if (st == NULL) {
        return s;
    }
    return st->branch != 0 ? bosh_arena_session(a, st->branch) : NULL;
}

void bosh_multi_name(const bosh_session_t *st, char out[BOSH_SID_LEN + 1])
{
    bosh_arena_print_sid(st->root != 0 ? st->sid : st->name, out);
}

static bool lives(const bosh_session_t *st)
{
    return bosh_multi_state(st) == BOSH_ST_LIVE;
}

/* A branch whose turn to begin has not come: its request waits for one before it. */
static bool is_planned(const bosh_session_t *st)
{
    return st->root != 0 && st->link.phase == BOSH_LINK_NONE;
}

static bool another_lives(bosh_arena_t *a, bosh_session_t *s, const bosh_session_t *st)
{
    for (bosh_session_t *o = s; o != NULL; o = bosh_multi_next(a, s, o)) {
        if (o != st && lives(o)) {
            return true;
        }
    }
    return false;
}

/* ---- adding (16.3) ---- */

/* The branches stand in the order of their indexes, as bosh_arena_repair() finds them. */
static void link_in(bosh_arena_t *a, bosh_session_t *s, bosh_session_t *branch)
{
    bosh_ix i = bosh_arena_index(a, branch);
    bosh_session_t *before = s;

    while (before->branch != 0 && before->branch < i) {
        before = bosh_arena_session(a, before->branch);
    }
    bosh_arena_touch_too(a, before);
    branch->branch = before->branch;
    before->branch = i;
}

static void link_out(bosh_arena_t *a, bosh_session_t *s, bosh_session_t *branch)
{
    bosh_ix i = bosh_arena_index(a, branch);
    bosh_session_t *before = s;

    while (before->branch != 0 && before->branch != i) {
        before = bosh_arena_session(a, before->branch);
    }
    if (before->branch == i) {
        bosh_arena_touch_too(a, before);
        before->branch = branch->branch;
    }
    if (s->turn == i) {
        s->turn = 0;
    }
}

/* Takes a branch's record from the session that is being changed, and gives it back. */
static void release(bosh_arena_t *a, bosh_session_t *s, bosh_session_t *branch)
{
    bosh_arena_touch_too(a, branch);
    link_out(a, s, branch);
    bosh_arena_session_free(a, branch);
}

/* Those that were closed just now have their records still: the oldest one that is done with makes room. False: there
 * is none. */
static bool make_room(bosh_arena_t *a, bosh_session_t *s)
{
    bosh_session_t *oldest = NULL;

    for (bosh_session_t *b = bosh_multi_next(a, s, s); b != NULL; b = bosh_multi_next(a, s, b)) {
        if (b->state == BOSH_ST_TOMB && b->link.phase == BOSH_LINK_CLOSED &&
            (oldest == NULL || b->inactive_at < oldest->inactive_at)) {
            oldest = b;
        }
    }
    if (oldest != NULL) {
        release(a, s, oldest);
    }
    return oldest != NULL;
}

bosh_session_t *bosh_multi_open(bosh_arena_t *a, apr_time_t now, bosh_session_t *s,
                                const bosh_req_t *req, const bosh_limits_t *lim, bosh_cond_t *cond)
{
    const bosh_opening_t *how = req->opening;
    unsigned open = 0, records = 0;
    bosh_session_t *b;

    for (b = s; b != NULL; b = bosh_multi_next(a, s, b)) {
        open += bosh_multi_state(b) != BOSH_ST_TOMB;
        records++;
    }
    *cond = BOSH_COND_NONE;
    if (open >= lim->max_streams || (records > BOSH_MAX_STREAMS && !make_room(a, s))) {
        *cond = BOSH_COND_POLICY_VIOLATION;
        return NULL;
    }
    b = bosh_arena_session_new(a, how->name);
    if (b == NULL) {
        return NULL;
    }
    bosh_session_copy_text(b->to, sizeof(b->to), how->to);
    bosh_session_copy_text(b->lang, sizeof(b->lang), req->lang != NULL ? req->lang : s->lang);
    bosh_session_copy_text(b->xmpp_version, sizeof(b->xmpp_version),
                           req->xmpp_version != NULL ? req->xmpp_version : s->xmpp_version);
    memcpy(b->peer_ip, s->peer_ip, sizeof(b->peer_ip));
    b->peer_port = s->peer_port;
    b->flags = s->flags & BOSH_SESS_RETURNS;
    b->login_time = s->login_time;
    b->root = bosh_arena_index(a, s);
    b->root_serial = s->serial;
    b->created = now;
    b->armed = BOSH_NEVER;
    b->inactive_at = BOSH_NEVER;
    b->cond = (uint8_t)how->cond;
    b->link.upstream = how->upstream;
    bosh_arena_own(a, b, how->owner);
    link_in(a, s, b);
    return b;
}

void bosh_multi_drop(bosh_arena_t *a, bosh_session_t *branch)
{
    release(a, bosh_arena_session(a, branch->root), branch);
}

void bosh_multi_start(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, const bosh_slot_t *slot)
{
    bosh_session_t *b = bosh_multi_of(a, slot);

    s->flags |= BOSH_SESS_MULTI;
    if (b == NULL || !is_planned(b)) {
        return; /* its owner has died before it began: that is told like any other end */
    }
    bosh_arena_touch_too(a, b);
    b->created = now;
    if (b->cond != BOSH_COND_NONE) { /* nobody serves that domain */
        b->link.phase = BOSH_LINK_CLOSED;
        bosh_multi_over(a, now, b, (bosh_cond_t)b->cond);
    } else {
        b->link.phase = BOSH_LINK_CONNECT;
        bosh_answer_mail_owner(a, b);
    }
}

/* ---- names (16.2, 16.4) ---- */

bosh_session_t *bosh_multi_find(bosh_arena_t *a, bosh_session_t *s, const char *name)
{
    uint8_t bytes[BOSH_SID_BYTES];
    bosh_session_t *b;

    if (!bosh_arena_read_sid(name, bytes)) {
        return NULL;
    }
    if (memcmp(s->name, bytes, sizeof(bytes)) == 0) {
        return s;
    }
    b = bosh_arena_find_branch(a, bytes);
    return b != NULL && b->root == bosh_arena_index(a, s) && b->root_serial == s->serial ? b : NULL;
}

bosh_session_t *bosh_multi_of(bosh_arena_t *a, const bosh_slot_t *slot)
{
    return slot->stream != 0 ? bosh_arena_get(a, slot->stream, slot->stream_serial) : NULL;
}

/* ---- towards the servers ---- */

bool bosh_multi_early(bosh_arena_t *a, bosh_session_t *s, const bosh_session_t *only, size_t *waits)
{
    bool early = false;

    *waits = 0;
    for (const bosh_session_t *st = s; st != NULL;
         st = st->branch != 0 ? bosh_arena_session(a, st->branch) : NULL) {
        if (lives(st) && !(st->flags & BOSH_SESS_LOGIN) && (only == NULL || st == only)) {
            early = true;
            *waits += BOSH_QUEUE_BYTES(&st->link.down);
        }
    }
    return early;
}

static bool has_room(const bosh_session_t *st, const bosh_limits_t *lim, size_t more)
{
    const bosh_queue_t *down = &st->link.down;

    return down->items == 0 || BOSH_QUEUE_BYTES(down) + more <= lim->queue_size;
}

/* Behind what is there already: the text with the headers of its items. */
static void copy_queue(bosh_arena_t *a, bosh_queue_t *dst, const bosh_queue_t *src)
{
    if (bosh_bytes_append_from(a, &dst->b, &src->b, 0, src->b.len, BOSH_PRIO_INPUT) ==
        APR_SUCCESS) { /* there was room: bosh_multi_send() */
        dst->items += src->items;
    }
}

/* A restart without a name is one of every stream, each with its own header. */
static void send_header(bosh_arena_t *a, const bosh_session_t *st, bosh_queue_t *down)
{
    char buf[BOSH_STREAM_HEADER_MAX];
    bosh_slice_t header = {buf, bosh_session_print_header(st, buf)};

    (void)bosh_queue_append(a, down, BOSH_ITEM_HEADER, &header, 1, BOSH_PRIO_INPUT);
}

bool bosh_multi_send(bosh_arena_t *a, bosh_session_t *s, const bosh_limits_t *lim,
                     bosh_slot_t *slot)
{
    const bosh_session_t *only = bosh_multi_of(a, slot);
    bool named = slot->stream != 0, restart = (slot->flags & BOSH_SLOT_RESTART) != 0;
    uint32_t each = BOSH_QUEUE_BYTES(&slot->payload) / BOSH_CHUNK_DATA + 3;
    bosh_session_t *to[BOSH_MAX_STREAMS + 1];
    unsigned n = 0;

    if (slot->payload.items == 0) {
        return true;
    }
    for (bosh_session_t *st = s; st != NULL; st = bosh_multi_next(a, s, st)) {
        if (lives(st) && !is_planned(st) && (!named || st == only)) {
            if (!has_room(st, lim, BOSH_QUEUE_BYTES(&slot->payload)) &&
                !bosh_answer_stuck(a, s, st)) {
                return false;
            }
            to[n++] = st;
        }
    }
    if (n > 1 && !bosh_arena_room(a, (n - 1) * each, BOSH_PRIO_INPUT)) {
        return false;
    }
    for (unsigned i = 0; i < n; i++) { /* none: dropped, its stream was closed just now (B-338) */
        bosh_arena_touch_too(a, to[i]);
        a->h->count.stanzas_down += slot->payload.items;
        if (restart && !named && to[i] != s) {
            send_header(a, to[i], &to[i]->link.down);
        } else if (i + 1 < n) {
            copy_queue(a, &to[i]->link.down, &slot->payload);
        } else {
            (void)bosh_queue_move(a, &to[i]->link.down, &slot->payload);
        }
        bosh_answer_mail_owner(a, to[i]);
    }
    return true;
}

/* ---- ends (16.5, 16.6) ---- */

void bosh_multi_over(bosh_arena_t *a, apr_time_t now, bosh_session_t *st, bosh_cond_t cond)
{
    bosh_session_t *s = bosh_multi_root(a, st);

    if (!lives(st)) {
        return;
    }
    if (st->root != 0) {
        st->state = BOSH_ST_ENDING;
        st->cond = (uint8_t)cond;
    }
    if (s == NULL || s->state != BOSH_ST_LIVE) {
        return;
    }
    if (!another_lives(a, s, st)) {
        s->state = BOSH_ST_ENDING;
        s->cond = (uint8_t)cond;
    } else if (st == s) {
        s->first = BOSH_ST_ENDING;
        s->first_cond = (uint8_t)cond;
    }
    bosh_answer_touch(a, now, s);
    bosh_answer_deliver(a, s);
}

bool bosh_multi_close(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, const bosh_slot_t *slot)
{
    bosh_session_t *st = bosh_multi_of(a, slot);

    return (s->flags & BOSH_SESS_MULTI) && slot->stream != 0 &&
           (st == NULL || bosh_multi_end(a, now, st, BOSH_COND_NONE));
}

bool bosh_multi_end(bosh_arena_t *a, apr_time_t now, bosh_session_t *st, bosh_cond_t cond)
{
    bosh_session_t *s = bosh_multi_root(a, st);

    if (s == NULL || s->state != BOSH_ST_LIVE || !another_lives(a, s, st)) {
        return s == NULL; /* its own clock ends that one */
    }
    if (lives(st)) {
        bosh_arena_touch_too(a, st);
        bosh_back_begin(a, st);
        bosh_answer_close(a, st);
        bosh_multi_over(a, now, st, cond);
    }
    return true;
}

void bosh_multi_end_all(bosh_arena_t *a, bosh_session_t *s)
{
    for (bosh_session_t *b = bosh_multi_next(a, s, s); b != NULL; b = bosh_multi_next(a, s, b)) {
        if (lives(b)) {
            bosh_arena_touch_too(a, b);
            bosh_back_begin(a, b);
            bosh_answer_close(a, b);
            b->state = BOSH_ST_ENDING;
        }
    }
}

void bosh_multi_told(bosh_arena_t *a, apr_time_t now, bosh_session_t *st)
{
    if (st->root == 0) {
        st->first = BOSH_ST_TOMB;
        return;
    }
    st->state = BOSH_ST_TOMB;
    st->inactive_at = now + apr_time_from_sec(BOSH_TOMB_SECONDS);
    bosh_answer_mail_owner(a, st);
}

/* The stream's end, when nobody asks for anything of it any more. */
static void end_branch(bosh_arena_t *a, apr_time_t now, bosh_session_t *b)
{
    bool ending = b->state == BOSH_ST_ENDING;

    bosh_arena_touch_too(a, b);
    b->state = BOSH_ST_TOMB;
    b->inactive_at = now;
    if (!ending) {
        bosh_back_begin(a, b);
    }
    if (!(b->flags & BOSH_SESS_BACK)) {
        bosh_queue_clear(a, &b->link.up);
        b->link.up_single = 0;
    }
    bosh_answer_close(a, b);
}

void bosh_multi_bury(bosh_arena_t *a, apr_time_t now, bosh_session_t *s)
{
    for (bosh_session_t *b = bosh_multi_next(a, s, s); b != NULL; b = bosh_multi_next(a, s, b)) {
        if (b->state != BOSH_ST_TOMB) {
            end_branch(a, now, b);
        }
    }
}

apr_time_t bosh_multi_tick(bosh_arena_t *a, apr_time_t now, bosh_session_t *branch,
                           apr_time_t login)
{
    bosh_session_t *s = bosh_multi_root(a, branch);
    bool closed = branch->link.phase == BOSH_LINK_CLOSED || branch->link.phase == BOSH_LINK_NONE;
    apr_time_t next = now + apr_time_from_sec(3600);

    if (branch->state != BOSH_ST_TOMB && (s == NULL || s->state == BOSH_ST_TOMB)) {
        end_branch(a, now, branch);
    }
    if (branch->state == BOSH_ST_TOMB) {
        bool alone = s == NULL || s->state == BOSH_ST_TOMB;
        if (closed && (alone || now >= branch->inactive_at)) {
            if (s != NULL) {
                link_out(a, s, branch);
                bosh_answer_mail_owner(a, s);
            }
            bosh_arena_session_free(a, branch);
            return BOSH_NEVER;
        }
        next = now < branch->inactive_at ? branch->inactive_at : now + apr_time_from_sec(1);
    }
    next = next < login ? next : login;
    branch->armed = next;
    return next;
}

/* ---- towards the client ---- */

/* Something of this stream is to be said. */
static bool has_news(const bosh_session_t *s, const bosh_session_t *st)
{
    if (st->root != 0 && !(st->flags & BOSH_SESS_NAMED)) {
        return false; /* the answer to its request comes first */
    }
    return st->link.up.items > 0 ||
           (s->state == BOSH_ST_LIVE && bosh_multi_state(st) == BOSH_ST_ENDING) ||
           (st->root != 0 && (st->link.flags & BOSH_LINK_HAS_HEADER) &&
            !(st->flags & BOSH_SESS_ANNOUNCED));
}

bool bosh_multi_pending(bosh_arena_t *a, bosh_session_t *s)
{
    for (bosh_session_t *st = s; st != NULL; st = bosh_multi_next(a, s, st)) {
        if (has_news(s, st)) {
            return true;
        }
    }
    return s->state == BOSH_ST_ENDING;
}

bool bosh_multi_ready(bosh_arena_t *a, const bosh_slot_t *slot)
{
    const bosh_session_t *b = slot->flags & BOSH_SLOT_ADD ? bosh_multi_of(a, slot) : NULL;

    return b != NULL && ((b->link.flags & BOSH_LINK_HAS_HEADER) || b->state != BOSH_ST_LIVE);
}

bosh_session_t *bosh_multi_pick(bosh_arena_t *a, bosh_session_t *s, const bosh_slot_t *slot)
{
    bosh_session_t *st = slot->flags & BOSH_SLOT_ADD ? bosh_multi_of(a, slot) : NULL;
    bosh_session_t *best = NULL, *after = NULL;

    if (st == NULL || (st->flags & BOSH_SESS_NAMED)) {
        /* The first one with news behind the one whose turn it was last, else the first of all. */
        for (st = s; st != NULL; st = bosh_multi_next(a, s, st)) {
            if (has_news(s, st)) {
                bosh_ix i = st->root != 0 ? bosh_arena_index(a, st) : 0;
                best = best != NULL ? best : st;
                after = after == NULL && i > s->turn ? st : after;
            }
        }
        st = after != NULL ? after : best != NULL ? best : s;
    }
    bosh_arena_touch_too(a, st);
    return st;
}

bool bosh_multi_alone(bosh_arena_t *a, bosh_session_t *s, const bosh_session_t *st)
{
    for (bosh_session_t *o = s; o != NULL; o = bosh_multi_next(a, s, o)) {
        if (o != st && o->link.up.items > 0) {
            return false;
        }
    }
    return true;
}
