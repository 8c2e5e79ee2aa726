/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers. An answer is printed once, whole, into its slot before anybody sends it: whatever dies after
 * that, a resend finds the same bytes (B-161). Answers are composed strictly in rid order, so `answered` is
 * a plain high-water mark. Called under the arena lock, by bosh_session.c and bosh_link.c.
 */
#include "bosh_answer.h"

#include <string.h>

#include "bosh_back.h"
#include "bosh_inflate.h"
#include "bosh_multi.h"
#include "bosh_pace.h"
#include "bosh_point.h"
#include "bosh_undo.h"
#include "bosh_window.h"

void bosh_answer_mail_owner(bosh_arena_t *a, bosh_session_t *s)
{
    if (!(s->link.flags & BOSH_LINK_MAILED)) {
        s->link.flags |= BOSH_LINK_MAILED;
        bosh_arena_mail(a, s->link.owner, BOSH_MAIL_SESSION | bosh_arena_index(a, s), s->serial);
    }
}

void bosh_answer_mail_holder(bosh_arena_t *a, bosh_slot_t *slot)
{
    if (slot->holder.peer != 0 && !(slot->flags & BOSH_SLOT_MAILED)) {
        slot->flags |= BOSH_SLOT_MAILED;
        bosh_arena_mail(a, slot->holder.peer, BOSH_MAIL_WAITER | slot->holder.waiter,
                        slot->holder.gen);
    }
}

bool bosh_answer_pending(bosh_arena_t *a, bosh_session_t *s)
{
    if (s->flags & BOSH_SESS_MULTI) {
        return bosh_multi_pending(a, s);
    }
    return s->link.up.items > 0 || s->state == BOSH_ST_ENDING;
}

/* A request waits on a connection that lives, and not for one before it: that has an end of its own (B-145). */
static bool client_waits(bosh_arena_t *a, bosh_session_t *s)
{
    if (bosh_window_oldest(a, s, true) != NULL) {
        return true;
    }
    for (uint64_t rid = s->processed + 1; rid <= s->received; rid++) {
        const bosh_slot_t *slot = bosh_window_slot(a, s, rid);
        if (slot != NULL && slot->holder.peer != 0) {
            return true;
        }
    }
    return false;
}

void bosh_answer_touch(bosh_arena_t *a, apr_time_t now, bosh_session_t *s)
{
    apr_time_t at;

    if (s->state == BOSH_ST_TOMB) {
        at = now + apr_time_from_sec(BOSH_TOMB_SECONDS);
    } else if (client_waits(a, s)) {
        at = BOSH_NEVER;
    } else if (s->pause_until != 0 && bosh_window_open(a, s, true) == 0) {
        at = s->pause_until; /* B-215: until anything comes, in its turn or not */
    } else if (s->inactivity > 0) {
        at = now + apr_time_from_sec(s->inactivity);
    } else { /* B-209; but a session without a server does not wait for ever to say so */
        at = s->state == BOSH_ST_LIVE ? BOSH_NEVER : now + apr_time_from_sec(BOSH_TOMB_SECONDS);
    }
    s->inactive_at = at;
    if (at < s->armed) {
        bosh_answer_mail_owner(a, s);
    }
}

/* Whether all of `up` may travel in one body: stanzas, perhaps with a stream error behind them. */
static bool all_fits(const bosh_session_t *st, const bosh_limits_t *lim)
{
    const bosh_queue_t *up = &st->link.up;

    if (st->link.up_single > 0) {
        return up->items == 1;
    }
    return up->items <= 1 || BOSH_QUEUE_BYTES(up) <= lim->answer_size;
}

/* Chunks that must be free for an answer besides its start tag: the slack of moving. More is not needed,
 * because moving an element frees as many chunks as it takes. */
#define ANSWER_ROOM 4

/* Moves the head item into the answer: at once when there is room for a copy, else piece by piece, each
 * freed before the next is copied, so that a full arena can always be emptied towards the clients. */
static void move_item(bosh_arena_t *a, bosh_queue_t *up, bosh_bytes_t *answer, size_t len)
{
    char piece[BOSH_CHUNK_DATA];
    size_t n;

    if (bosh_queue_pop_to(a, up, answer, BOSH_PRIO_ANSWER) == APR_SUCCESS) {
        return;
    }
    for (; len > 0; len -= n) {
        n = bosh_queue_peek(a, up, piece, len < sizeof(piece) ? len : sizeof(piece));
        bosh_queue_consume(a, up, n);
        if (n == 0 || bosh_bytes_append(a, answer, piece, n, BOSH_PRIO_ANSWER) != APR_SUCCESS) {
            return; /* cannot happen: ANSWER_ROOM was there */
        }
    }
}

/* Moves what may share one body from the stream's `up` into the answer. */
static void take_payload(bosh_arena_t *a, bosh_session_t *st, const bosh_limits_t *lim,
                         bosh_slot_t *slot, bool all)
{
    bosh_queue_t *up = &st->link.up;
    bosh_item_t type;
    size_t len, taken = 0;

    while (bosh_queue_head(a, up, &type, &len)) {
        bool single = type == BOSH_ITEM_FEATURES || type == BOSH_ITEM_SASL;
        if (taken > 0 && (single || (!all && taken + len > lim->answer_size))) {
            break;
        }
        if (taken > 0 && type == BOSH_ITEM_ERROR && !all) {
            break; /* the error goes with the terminal answer */
        }
        move_item(a, up, &slot->answer, len);
        BOSH_POINT("answer-half");
        a->h->count.stanzas_up++;
        taken += len > 0 ? len : 1;
        if (single) {
            st->link.up_single--;
            break;
        }
    }
}

/* 16.4: which stream the answer is about. One that says nothing is about none. */
static void name_stream(const bosh_session_t *s, const bosh_session_t *st, const bosh_slot_t *slot,
                        bool payload, bosh_ans_t *ans, char name[BOSH_SID_LEN + 1])
{
    bool creation = (ans->flags & BOSH_ANS_CREATION) && (s->flags & BOSH_SESS_STREAMS);
    bool multi = (s->flags & BOSH_SESS_MULTI) != 0;
    bool added = (slot->flags & BOSH_SLOT_ADD) && st->root != 0 && !(st->flags & BOSH_SESS_NAMED);
    bool fatal = (ans->flags & BOSH_ANS_TERMINATE) && s->state == BOSH_ST_LIVE;

    if (creation || added || (multi && (payload || (ans->flags & BOSH_ANS_ANNOUNCE) || fatal))) {
        bosh_multi_name(st, name);
        ans->stream = name;
    }
}

/* The attributes of the start tag. */
static void fill_attributes(bosh_arena_t *a, apr_time_t now, bosh_session_t *s,
                            const bosh_session_t *st, const bosh_slot_t *slot, bool payload,
                            bosh_item_t head, bosh_ans_t *ans, char sid[BOSH_SID_LEN + 1])
{
    const bosh_link_t *link = &st->link;
    bool over = (ans->flags & BOSH_ANS_TERMINATE) != 0;
    size_t n;

    if ((slot->flags & BOSH_SLOT_CREATION) && !over) {
        ans->flags |= BOSH_ANS_CREATION;
        bosh_arena_sid_text(s, sid);
        ans->sid = sid;
        ans->wait = s->wait;
        ans->hold = s->hold;
        ans->requests = s->requests;
        ans->inactivity = s->inactivity;
        ans->polling = s->polling;
        ans->maxpause = s->maxpause;
        ans->ver_major = s->ver_major;
        ans->ver_minor = s->ver_minor;
    }
    if ((link->flags & BOSH_LINK_HAS_HEADER) && !(st->flags & BOSH_SESS_ANNOUNCED) && !over) {
        ans->flags |= BOSH_ANS_ANNOUNCE; /* B-075: as soon as known */
        ans->authid = bosh_bytes_run(a, &link->hello, 0, &n);
        ans->from = ans->authid + strlen(ans->authid) + 1;
        ans->xmpp_version = ans->from + strlen(ans->from) + 1;
        ans->from = ans->from[0] != '\0' ? ans->from : st->to;
    }
    if (payload) {
        ans->lang = link->lang; /* the scope the server's stanzas were written in */
        if (head == BOSH_ITEM_FEATURES || (link->flags & BOSH_LINK_ERROR)) {
            ans->flags |= BOSH_ANS_STREAM_NS;
        }
    }
    if (s->flags & BOSH_SESS_ACKS) { /* B-176..B-178 */
        if ((slot->flags & BOSH_SLOT_CREATION) || s->received != slot->rid) {
            ans->flags |= BOSH_ANS_ACK;
            ans->ack = s->received;
        }
    }
    if ((s->flags & BOSH_SESS_REPORT) && !over && slot->holder.peer != 0) { /* B-181 */
        const bosh_slot_t *lost = bosh_window_slot(a, s, s->client_ack + 1);
        if (lost != NULL && lost->state == BOSH_SLOT_ANSWERED) {
            int64_t ms = apr_time_as_msec(now - lost->answered);
            ans->flags |= BOSH_ANS_REPORT;
            ans->report = lost->rid;
            ans->time = ms < 65535 ? (unsigned)ms : 65535; /* B-183: at least so long ago */
        }
    }
}

/* Prints the answer, about the stream `st`, into the slot. False: not enough chunks. */
static bool print_answer(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, bosh_session_t *st,
                         const bosh_limits_t *lim, bosh_slot_t *slot, bool payload, bool over,
                         bosh_cond_t cond)
{
    char open[BOSH_BODY_OPEN_MAX];
    char sid[BOSH_SID_LEN + 1], name[BOSH_SID_LEN + 1];
    bosh_ans_t ans = {.flags = over ? BOSH_ANS_TERMINATE : 0, .cond = cond};
    bosh_item_t head = BOSH_ITEM_STANZA;
    size_t len, n;

    payload = payload && bosh_queue_head(a, &st->link.up, &head, &len);
    fill_attributes(a, now, s, st, slot, payload, head, &ans, sid);
    name_stream(s, st, slot, payload, &ans, name);
    ans.accept = lim->inflate ? BOSH_ACCEPT : NULL; /* B-091: said with the creation alone */
    if (ans.flags == 0 && ans.stream == NULL && !payload) {
        slot->flags |= BOSH_SLOT_PLAIN;
        return true;
    }
    n = bosh_body_print_open(open, &ans, !payload);
    if (!bosh_arena_room(a, (uint32_t)(n / BOSH_CHUNK_DATA + ANSWER_ROOM), BOSH_PRIO_ANSWER) ||
        bosh_bytes_append(a, &slot->answer, open, n, BOSH_PRIO_ANSWER) != APR_SUCCESS) {
        return false;
    }
    if (ans.flags & BOSH_ANS_ANNOUNCE) {
        st->flags |= BOSH_SESS_ANNOUNCED;
        bosh_bytes_clear(a, &st->link.hello);
    }
    if (ans.stream != NULL && st->root != 0) {
        st->flags |= BOSH_SESS_NAMED;
    }
    if (ans.flags & BOSH_ANS_REPORT) {
        s->flags &= ~BOSH_SESS_REPORT;
    }
    if (payload) {
        take_payload(a, st, lim, slot, all_fits(st, lim));
        if (bosh_bytes_append(a, &slot->answer, BOSH_BODY_CLOSE, BOSH_BODY_CLOSE_LEN,
                              BOSH_PRIO_ANSWER) != APR_SUCCESS) {
            return false; /* cannot happen: the room was checked */
        }
        slot->flags |= BOSH_SLOT_GAVE;
        s->turn = st->root != 0 ? bosh_arena_index(a, st) : 0;
    }
    slot->stream = st->root != 0 ? bosh_arena_index(a, st) : 0;
    slot->stream_serial = st->root != 0 ? st->serial : 0;
    return true;
}

void bosh_answer_finish(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, bosh_slot_t *slot)
{
    slot->state = BOSH_SLOT_ANSWERED;
    slot->answered = now;
    bosh_queue_clear(a, &slot->payload);
    if (slot->rid > s->answered) {
        s->answered = slot->rid;
    }
    bosh_answer_mail_holder(a, slot);
}

/* Whether the queue lets the next answer be the terminal one, of the session or (16.6) of the stream `st`: all that
 * is left goes along with it. */
static bool ends_with(bosh_arena_t *a, bosh_session_t *s, const bosh_session_t *st,
                      const bosh_limits_t *lim, bool payload)
{
    if (!(st->link.up.items == 0 || (payload && all_fits(st, lim)))) {
        return false;
    }
    if (s->state == BOSH_ST_LIVE) {
        return payload && bosh_multi_state(st) == BOSH_ST_ENDING;
    }
    return s->state == BOSH_ST_ENDING && bosh_multi_alone(a, s, st);
}

/* What an answer is about: nearly always the only stream that there is. */
static bosh_session_t *choose_stream(bosh_arena_t *a, bosh_session_t *s, const bosh_slot_t *slot,
                                     bool payload)
{
    bool multi = (s->flags & BOSH_SESS_MULTI) != 0;

    return multi && (payload || (slot->flags & BOSH_SLOT_ADD)) ? bosh_multi_pick(a, s, slot) : s;
}

bool bosh_answer_compose(bosh_arena_t *a, apr_time_t now, bosh_session_t *s,
                         const bosh_limits_t *lim, bosh_slot_t *slot, bool payload)
{
    /* The end is told to somebody who is there to hear it, not to a dead connection (B-261, R-04). */
    bool heard = slot->holder.peer != 0 && !(slot->flags & BOSH_SLOT_EXCUSED);
    bosh_session_t *st = choose_stream(a, s, slot, payload);
    bool told = heard && ends_with(a, s, st, lim, payload);
    bool over = told && s->state != BOSH_ST_LIVE;
    bosh_cond_t cond = over ? (bosh_cond_t)s->cond : bosh_multi_cond(st);

    if (!print_answer(a, now, s, st, lim, slot, payload, told, cond)) {
        return false;
    }
    BOSH_POINT("answer-printed");
    bosh_answer_finish(a, now, s, slot);
    bosh_window_evict(a, s);
    if ((st->link.flags & BOSH_LINK_STALLED) &&
        BOSH_QUEUE_BYTES(&st->link.up) < lim->queue_size / 2) {
        bosh_answer_mail_owner(a, st);
    }
    if (over) {
        slot->flags |= BOSH_SLOT_FINAL;
        slot->cond = s->cond;
        bosh_answer_bury(a, now, s, BOSH_COND_COUNT, BOSH_COND_COUNT);
    } else {
        if (told) {
            bosh_multi_told(a, now, st);
        }
        bosh_answer_touch(a, now, s);
    }
    return true;
}

bool bosh_answer_up_to(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, const bosh_limits_t *lim,
                       bosh_slot_t *slot)
{
    uint64_t rid = slot->rid;
    bosh_slot_t *older;

    while ((older = bosh_window_oldest(a, s, false)) != NULL && older->rid < rid) {
        if (!bosh_answer_compose(a, now, s, lim, older, false)) {
            return false;
        }
    }
    if (slot->state != BOSH_SLOT_HELD || slot->rid != rid) {
        return true; /* an older one ended the session and this one with it */
    }
    return bosh_answer_compose(a, now, s, lim, slot,
                               !(slot->flags & (BOSH_SLOT_EXCUSED | BOSH_SLOT_PAUSE)));
}

void bosh_answer_deliver(bosh_arena_t *a, bosh_session_t *s)
{
    bosh_slot_t *slot = bosh_window_oldest(a, s, true);

    /* A creation request waits for the server's header alone when that promises no features. */
    if (s->flags & BOSH_SESS_MULTI) {
        for (uint64_t rid = s->answered + 1; rid <= s->processed;
             rid++) { /* 16.3: those wait for a server */
            bosh_slot_t *other = bosh_window_slot(a, s, rid);
            if (other != NULL && other->state == BOSH_SLOT_HELD && bosh_multi_ready(a, other)) {
                bosh_answer_mail_holder(a, other);
            }
        }
    }
    if (slot != NULL && (bosh_answer_pending(a, s) ||
                         ((slot->flags & BOSH_SLOT_CREATION) && s->link.phase >= BOSH_LINK_OPEN))) {
        bosh_answer_mail_holder(a, slot);
    }
}

/* Whether key sequencing applies to this request: the creation only announces the first key. */
static bool has_key(const bosh_session_t *s, const bosh_slot_t *slot)
{
    return (s->flags & BOSH_SESS_KEYED) && !(slot->flags & BOSH_SLOT_CREATION);
}

bool bosh_answer_stuck(bosh_arena_t *a, bosh_session_t *s, const bosh_session_t *st)
{
    return (st->link.flags & BOSH_LINK_STALLED) && st->link.up.items > 0 &&
           bosh_window_oldest(a, s, true) == NULL;
}

/*
 * Applies one request, in rid order. False: no room towards the server, it stays DEFERRED and the window
 * stands still behind it until the loop has written (back-pressure, B-125).
 */
static bool apply(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, const bosh_limits_t *lim,
                  bosh_slot_t *slot)
{
    bosh_queue_t *down = &s->link.down;

    if (s->flags & BOSH_SESS_MULTI) {
        if (s->state == BOSH_ST_LIVE && !bosh_multi_send(a, s, lim, slot)) {
            return false;
        }
    } else if (s->state == BOSH_ST_LIVE && slot->payload.items > 0) {
        if (down->items > 0 &&
            (size_t)BOSH_QUEUE_BYTES(down) + BOSH_QUEUE_BYTES(&slot->payload) > lim->queue_size &&
            !bosh_answer_stuck(a, s, s)) {
            return false;
        }
        a->h->count.stanzas_down += slot->payload.items;
        if (bosh_queue_move(a, down, &slot->payload) != APR_SUCCESS) {
            return false;
        }
        BOSH_POINT("payload-moved");
        bosh_answer_mail_owner(a, s);
    }
    if (slot->flags & BOSH_SLOT_ADD) {
        bosh_multi_start(a, now, s, slot);
    }
    bosh_queue_clear(a, &slot->payload); /* ENDING: there is no server left to tell */
    slot->state = BOSH_SLOT_HELD;
    s->processed = slot->rid;
    if (has_key(s, slot)) {
        memcpy(s->key, slot->keys.next, sizeof(s->key));
    }
    s->pause_until = slot->flags & BOSH_SLOT_PAUSE ? now + apr_time_from_sec(slot->pause) : 0;
    return true;
}

/* How many processed requests wait, orphans included: what `hold` bounds (8, B-116). */
static unsigned count_held(bosh_arena_t *a, bosh_session_t *s)
{
    unsigned n = 0;

    for (uint64_t rid = s->answered + 1; rid <= s->processed; rid++) {
        const bosh_slot_t *slot = bosh_window_slot(a, s, rid);
        n += slot != NULL && slot->state == BOSH_SLOT_HELD;
    }
    return n;
}

/* Answers the oldest while more wait than may: E for one whose successor is here to take the payload. */
static void release(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, const bosh_limits_t *lim)
{
    bosh_slot_t *slot;
    unsigned held = count_held(a, s);
    unsigned hold = s->flags & BOSH_SESS_POLLING ? 0 : s->hold; /* 12: answered at once */

    while (held > 0 && (slot = bosh_window_oldest(a, s, false)) != NULL) {
        bool creation = (slot->flags & BOSH_SLOT_CREATION) != 0;
        bool over = held > hold && !(creation && held == 1 && s->wait > 0);
        if (!over && !(slot->flags & BOSH_SLOT_EXCUSED)) {
            break;
        }
        /* Payload goes to a request that has just come, so its client is there, or to the only one (a
         * polling session). Else to the newer one that takes this one's place: the connection of the older
         * may be dead without anybody knowing yet. */
        bool there = slot->holder.peer != 0 && (held == 1 || slot->arrived == now);
        if (!bosh_answer_compose(a, now, s, lim, slot, there)) {
            break;
        }
        held--;
    }
}

/* 13: T on the oldest, with what was queued for the client (B-254), E on the others. */
static void end_by_client(bosh_arena_t *a, apr_time_t now, bosh_session_t *s,
                          const bosh_limits_t *lim)
{
    bosh_slot_t *oldest = bosh_window_oldest(a, s, true);

    s->cond = BOSH_COND_NONE;
    if (s->state == BOSH_ST_LIVE && oldest != NULL && s->link.up.items > 0 && all_fits(s, lim) &&
        bosh_multi_alone(a, s, s)) {
        s->state = BOSH_ST_ENDING;
        s->first = 0;
        bosh_answer_close(a, s);
        if (bosh_answer_compose(a, now, s, lim, oldest, true)) {
            return;
        }
    }
    bosh_answer_bury(a, now, s, BOSH_COND_NONE, BOSH_COND_COUNT);
}

/* Since when a request waits for one before it that has not come. */
static void note_gap(bosh_arena_t *a, apr_time_t now, bosh_session_t *s)
{
    bool gap = false;

    for (uint32_t i = 0; i < a->h->sizes.slots && !gap; i++) {
        gap = s->slots[i].state == BOSH_SLOT_DEFERRED && s->slots[i].rid > s->received;
    }
    if (!gap) {
        s->gap_since = 0;
    } else if (s->gap_since == 0) {
        s->gap_since = now;
        bosh_answer_mail_owner(a, s); /* its timer was armed for silence */
    }
}

/* Why the request whose turn it is may not be processed; BOSH_COND_NONE: it may. */
static bosh_cond_t objection(bosh_arena_t *a, bosh_session_t *s, const bosh_slot_t *slot)
{
    if (has_key(s, slot) &&
        !bosh_key_follows(s->key, &slot->keys)) { /* 15.4, in rid order (B-276) */
        return BOSH_COND_ITEM_NOT_FOUND;
    }
    if (slot->flags & BOSH_SLOT_STRAY) { /* B-337 */
        return BOSH_COND_ITEM_NOT_FOUND;
    }
    return bosh_pace_hasty(a, s, slot) ? BOSH_COND_POLICY_VIOLATION : BOSH_COND_NONE;
}

void bosh_answer_settle(bosh_arena_t *a, apr_time_t now, bosh_session_t *s,
                        const bosh_limits_t *lim)
{
    uint64_t processed = s->processed;
    bosh_slot_t *slot;

    if (bosh_pace_review(a, now, s)) {
        return;
    }
    while (s->state != BOSH_ST_TOMB && (slot = bosh_window_slot(a, s, s->processed + 1)) != NULL &&
           slot->state == BOSH_SLOT_DEFERRED &&
           !(slot->flags & (BOSH_SLOT_SUSPECT | BOSH_SLOT_RAW))) {
        bosh_cond_t why = objection(a, s, slot);

        if (why != BOSH_COND_NONE) {
            bosh_answer_refuse(a, now, s, slot, why);
            return;
        }
        if (!apply(a, now, s, lim, slot)) {
            break;
        }
        if ((slot->flags & BOSH_SLOT_TERMINATE) && !bosh_multi_close(a, now, s, slot)) {
            end_by_client(a, now, s, lim);
            return;
        }
        if (slot->flags &
            BOSH_SLOT_PAUSE) { /* 10: all pending requests at once, this one included */
            bosh_answer_up_to(a, now, s, lim, slot);
            s->paused_rid = slot->rid;
        } else {
            release(a, now, s, lim);
        }
    }
    if ((s->flags & BOSH_SESS_REPORT) && (slot = bosh_window_oldest(a, s, true)) != NULL) {
        bosh_answer_up_to(a, now, s, lim, slot); /* 9.2: without waiting for payload */
        s->flags &= ~BOSH_SESS_REPORT;
    }
    note_gap(a, now, s);
    if (s->processed != processed) {
        bosh_answer_touch(a, now,
                          s); /* a request is held now: no silence, whenever it came (B-202) */
    }
    bosh_answer_deliver(a, s);
}
