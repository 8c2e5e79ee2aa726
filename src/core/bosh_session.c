/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One session: creation, requests, waiting, end. The guard ladder of bosh_session_request() stands in the
 * order of XEP-0124; each rung cites its section. Called under the arena lock by workers of any child and,
 * for tick, by the loop of the owner.
 *
 * States, and what moves them (nothing else assigns `state`; FREE <-> LIVE is bosh_arena.c's):
 *
 *              request           upstream over        ended by us or client   timer
 *   LIVE       LIVE              ENDING (link.c)      TOMB (bury)             TOMB: inactivity
 *   ENDING     TOMB once told    -                    TOMB (bury)             TOMB: nobody came
 *   TOMB       TOMB: resends     TOMB                 -                       FREE
 *
 * Whose turn it is to answer is never decided twice: verdicts come from look(), for a request that has just
 * arrived and for one that has waited alike.
 */
#include "bosh_session.h"

#include <string.h>

#include "bosh_answer.h"
#include "bosh_join.h"
#include "bosh_multi.h"
#include "bosh_pace.h"
#include "bosh_point.h"
#include "bosh_window.h"
#include "bosh_undo.h"

void bosh_session_copy_text(char *dst, size_t size, const char *src)
{
    size_t n = src != NULL ? strlen(src) : 0;

    if (n >= size) {
        n = size - 1;
    }
    memcpy(dst, src != NULL ? src : "", n);
    dst[n] = '\0';
}

static bool same_holder(const bosh_holder_t *x, const bosh_holder_t *y)
{
    return x->peer == y->peer && x->waiter == y->waiter && x->gen == y->gen;
}

/* ---- verdicts ---- */

static void begin_verdict(bosh_arena_t *a, const bosh_session_t *s, uint64_t rid, bosh_verdict_t *v)
{
    memset(v, 0, sizeof(*v));
    v->rid = rid;
    if (s != NULL) {
        v->session = bosh_arena_index(a, s);
        v->serial = s->serial;
        v->legacy = bosh_body_legacy(s->ver_major, s->ver_minor);
        memcpy(v->content, s->content, sizeof(v->content));
    }
}

static void tell(bosh_verdict_t *v, bosh_cond_t cond)
{
    v->act = BOSH_DO_TELL;
    v->cond = cond;
    v->error = false;
}

static void tell_error(bosh_verdict_t *v)
{
    v->act = BOSH_DO_TELL;
    v->cond = BOSH_COND_NONE;
    v->error = true;
}

static void send_slot(const bosh_slot_t *slot, bosh_verdict_t *v)
{
    v->act = BOSH_DO_SEND;
    v->len = slot->flags & BOSH_SLOT_PLAIN ? sizeof(BOSH_BODY_EMPTY) - 1 : slot->answer.len;
    v->rid = slot->rid;
    v->cond = (bosh_cond_t)slot->cond;
}

/* A request broke a rule that ends the session: it is told `cond` itself, the others other-request (B-151). */
static void fail(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, bosh_cond_t cond,
                 bosh_verdict_t *v)
{
    bosh_answer_bury(a, now, s, BOSH_COND_OTHER_REQUEST, BOSH_COND_OTHER_REQUEST);
    s->cond = (uint8_t)cond;
    tell(v, cond);
}

/*
 * The one place that decides what the request in `slot`, whose holder asks, gets now. `must`: it may not
 * wait. While it looks the holder counts as mailed, so that nothing mails it about what it is seeing.
 */
static void look(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, const bosh_limits_t *lim,
                 bosh_slot_t *slot, bool must, bosh_verdict_t *v)
{
    bool due, tried;

    if (slot->state == BOSH_SLOT_DEFERRED && (must || now >= slot->due)) {
        bosh_answer_settle(a, now, s, lim); /* whatever it waits for may be over */
    }
    tried = due = must || now >= slot->due;
    if (slot->state == BOSH_SLOT_HELD) {
        bool first = bosh_window_oldest(a, s, true) == slot;
        bool creation = (slot->flags & BOSH_SLOT_CREATION) && s->link.phase >= BOSH_LINK_OPEN;
        tried = due || creation || (first && bosh_answer_pending(a, s)) ||
                ((slot->flags & BOSH_SLOT_ADD) && bosh_multi_ready(a, slot));
        if (tried) {
            bosh_answer_up_to(a, now, s, lim, slot);
            bosh_answer_deliver(a, s); /* what is left may go to the next one */
        }
    }
    slot->flags &= (uint16_t)~BOSH_SLOT_MAILED;
    v->join = bosh_join_due(a, s);
    if (slot->state == BOSH_SLOT_FREE) { /* refused */
        tell(v, (bosh_cond_t)s->cond);
    } else if (slot->state == BOSH_SLOT_ANSWERED) {
        send_slot(slot, v);
    } else if (slot->state == BOSH_SLOT_DEFERRED && due) {
        /* the gap stays open, so this rid may not be answered; type='error' is the one answer 17.3
         * allows. The payload stays, the rid stays received. */
        slot->flags |= BOSH_SLOT_EXCUSED;
        slot->holder.peer = 0;
        bosh_answer_touch(a, now, s); /* B-203 */
        bosh_pace_holder_gone(a, s);
        tell_error(v);
    } else {
        v->act = BOSH_DO_HOLD;
        /* To be answered and not answered: the chunks ran out; try again soon. */
        v->deadline = tried ? now + apr_time_from_msec(200) : slot->due;
    }
}

/* B-277, R-17: what a request got is only for those who can show its key again. */
static bool repeats(const bosh_session_t *s, const bosh_slot_t *slot, const bosh_req_t *req)
{
    return !(s->flags & BOSH_SESS_KEYED) || bosh_key_repeats(&slot->keys, &req->keys);
}

/* ---- creation (7) ---- */

static unsigned lower(unsigned x, unsigned y)
{
    return x < y ? x : y;
}

static unsigned higher(unsigned x, unsigned y)
{
    return x > y ? x : y;
}

static void negotiate(bosh_arena_t *a, bosh_session_t *s, const bosh_req_t *req,
                      const bosh_limits_t *lim)
{
    unsigned hold = req->has & BOSH_HAS_HOLD ? req->hold : 1;
    unsigned most = lower(lim->max_requests, (a->h->sizes.slots - 2) / 2);

    s->wait =
        (uint16_t)(req->has & BOSH_HAS_WAIT ? lower(req->wait, lim->max_wait) : lim->max_wait);
    s->hold = (uint16_t)lower(lower(hold, lim->max_hold), most - 1);
    /* more than the hold that was asked for, as far as the server's bound allows. */
    s->requests = (uint16_t)higher(s->hold + 1u, lower(hold + 1u, most));
    s->polling = (uint16_t)lim->polling;
    s->maxpause = (uint16_t)lim->maxpause;
    s->inactivity = (uint16_t)lim->inactivity;
    s->login_time = (uint16_t)lower(lim->login_time, UINT16_MAX);
    if (s->wait == 0 || s->hold == 0) {
        s->flags |= BOSH_SESS_POLLING;
        if (lim->inactivity > 0) { /* 12: the increase exceeds `polling` (B-074) */
            s->inactivity = (uint16_t)lower(lim->inactivity + 2 * lim->polling + 1, 65535);
        }
    }
    if (req->has & BOSH_HAS_VER) { /* B-069, B-070: the lower one, part by part */
        bool theirs = req->ver_major < BOSH_VER_MAJOR ||
                      (req->ver_major == BOSH_VER_MAJOR && req->ver_minor < BOSH_VER_MINOR);
        s->ver_major = (uint8_t)(theirs ? req->ver_major : BOSH_VER_MAJOR);
        s->ver_minor = (uint8_t)(theirs ? req->ver_minor : BOSH_VER_MINOR);
    }
    if ((req->has & BOSH_HAS_ACK) && req->ack == 1) { /* */
        s->flags |= BOSH_SESS_ACKS;
        s->client_ack = req->rid - 1;
    }
    if (lim->keys && req->newkey != NULL) { /* B-102; later requests cannot start a chain (B-279) */
        s->flags |= BOSH_SESS_KEYED;
        memcpy(s->key, req->keys.next, sizeof(s->key));
    }
    s->flags |= lim->returns ? BOSH_SESS_RETURNS : 0;
    bosh_session_copy_text(s->lang, sizeof(s->lang), req->lang);
    bosh_session_copy_text(s->content, sizeof(s->content), req->content);
    bosh_session_copy_text(s->xmpp_version, sizeof(s->xmpp_version), req->xmpp_version);
}

/* Whether a stranger may have one more session, and one with this much in it. */
static bool welcome(bosh_arena_t *a, const bosh_req_t *req, const bosh_limits_t *lim,
                    const bosh_client_t *who)
{
    if (lim->per_address > 0 && who->net != 0 &&
        bosh_arena_net_count(a, who->net) >= lim->per_address) {
        return false;
    }
    return lim->login_size == 0 || req->payload_bytes <= lim->login_size;
}

void bosh_session_create(bosh_arena_t *a, apr_time_t now, const bosh_req_t *req,
                         const bosh_limits_t *lim, const uint8_t sid[BOSH_SID_BYTES],
                         const char *to, const bosh_client_t *who, uint32_t owner,
                         uint16_t upstream, bosh_holder_t holder, bosh_verdict_t *v)
{
    bosh_slice_t none = {NULL, 0};
    bosh_session_t *s;
    bosh_slot_t *slot;

    begin_verdict(a, NULL, req->rid, v);
    v->legacy = bosh_body_legacy(req->ver_major, req->ver_minor);
    if (a->h->closing) {
        tell(v, BOSH_COND_SYSTEM_SHUTDOWN);
        return;
    }
    if (lim->keys && req->newkey != NULL && !(req->keys.flags & BOSH_KEY_LEADS)) {
        tell(v, BOSH_COND_BAD_REQUEST); /* no key could ever follow */
        return;
    }
    if (!welcome(a, req, lim, who)) { /* B-367 */
        a->h->count.refused++;
        tell(v, BOSH_COND_POLICY_VIOLATION);
        return;
    }
    s = bosh_arena_session_new(a, sid);
    if (s == NULL) {
        a->h->count.refused++;
        tell(v, BOSH_COND_INTERNAL_SERVER_ERROR);
        return;
    }
    bosh_arena_touch(a, s);
    negotiate(a, s, req, lim);
    bosh_session_copy_text(s->to, sizeof(s->to), to);
    bosh_session_copy_text(s->peer_ip, sizeof(s->peer_ip), who->ip);
    s->peer_port = who->port;
    memcpy(s->cert, who->cert, sizeof(s->cert));
    if (req->opening != NULL && lim->max_streams > 1) { /* B-326 */
        s->flags |= BOSH_SESS_STREAMS;
        memcpy(s->name, req->opening->name, sizeof(s->name));
    }
    bosh_arena_net_add(a, s, who->net);
    s->flags |= (who->tls ? BOSH_SESS_TLS : 0) | (req->script ? BOSH_SESS_SCRIPT : 0);
    s->created = now;
    s->armed = BOSH_NEVER;
    s->inactive_at = BOSH_NEVER;
    s->received = s->processed = s->answered = req->rid - 1;
    bosh_arena_own(a, s, owner);
    s->link.upstream = upstream;
    s->link.phase = BOSH_LINK_CONNECT;
    if (bosh_window_store(a, s, now, req, none, holder) != APR_SUCCESS) {
        bosh_arena_session_free(a, s);
        a->h->count.refused++;
        tell(v, BOSH_COND_INTERNAL_SERVER_ERROR);
        return;
    }
    a->h->count.created++;
    slot = bosh_window_slot(a, s, req->rid);
    slot->flags |= BOSH_SLOT_CREATION | BOSH_SLOT_MAILED;
    slot->due = now + apr_time_from_sec(lower(s->wait, BOSH_CREATE_WAIT));
    begin_verdict(a, s, req->rid, v);
    bosh_answer_settle(a, now, s, lim);
    bosh_answer_mail_owner(a, s);
    look(a, now, s, lim, slot, false, v);
}

/* ---- requests (8 to 14) ---- */

/* 9.2: what the client says it has. Missing means all before this request (B-173); nonsense is ignored. An answer
 * that it should have by now and has not will be reported. */
static void take_ack(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, const bosh_req_t *req)
{
    uint64_t ack = req->has & BOSH_HAS_ACK ? req->ack : req->rid - 1;

    if ((s->flags & BOSH_SESS_ACKS) && ack < req->rid && ack <= s->answered &&
        ack > s->client_ack) {
        s->client_ack = ack;
        bosh_window_evict(a, s);
    }
    if ((s->flags & BOSH_SESS_ACKS) && (req->has & BOSH_HAS_ACK) && ack == s->client_ack) {
        const bosh_slot_t *lost = bosh_window_slot(a, s, ack + 1);
        if (lost != NULL && lost->state == BOSH_SLOT_ANSWERED && (lost->flags & BOSH_SLOT_SENT) &&
            now - lost->answered >= BOSH_REPORT_AGE) {
            s->flags |= BOSH_SESS_REPORT; /* B-181 */
        }
    }
}

/* 14.3, 17.3: the rid is known and unanswered. The old connection is told type='error' at once, this one
 * takes its place; nothing is processed again (B-165, B-166, B-148). */
static void repeat(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, const bosh_limits_t *lim,
                   bosh_slot_t *slot, bosh_holder_t holder, bosh_verdict_t *v)
{
    if (++slot->repeats > lim->max_repeats) { /* B-168 */
        fail(a, now, s, BOSH_COND_POLICY_VIOLATION, v);
        return;
    }
    if (slot->holder.peer != 0) {
        bosh_arena_mail(a, slot->holder.peer, BOSH_MAIL_WAITER | slot->holder.waiter,
                        slot->holder.gen);
    }
    slot->holder = holder;
    slot->due =
        now + (slot->flags & BOSH_SLOT_SUSPECT ? BOSH_PACE_GRACE : apr_time_from_sec(s->wait));
    slot->flags &= (uint16_t)~BOSH_SLOT_EXCUSED;
    slot->flags |= BOSH_SLOT_MAILED;
    bosh_answer_touch(a, now, s);
    bosh_answer_settle(a, now, s, lim);
    look(a, now, s, lim, slot, false, v);
}

/* 14.3: an answer sent once more, as it was. A repeated pause pauses again. */
static void resend(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, bosh_slot_t *slot,
                   bosh_verdict_t *v)
{
    a->h->count.resends++;
    slot->flags |= BOSH_SLOT_AGAIN;
    if ((slot->flags & BOSH_SLOT_PAUSE) && slot->rid == s->paused_rid && slot->rid == s->received) {
        s->pause_until = now + apr_time_from_sec(slot->pause);
    }
    bosh_answer_touch(a, now, s); /* B-204 */
    send_slot(slot, v);
}

/* 16.3: nothing in it but a domain. A restart has one, too, and is not meant (B-329). */
static bool adds_stream(const bosh_session_t *s, const bosh_req_t *req)
{
    return (s->flags & BOSH_SESS_STREAMS) && req->opening != NULL && s->state == BOSH_ST_LIVE &&
           bosh_body_adds_stream(req);
}

/* B-367: more payload than may wait for a stream before it has logged in. st: the one it is for; NULL: all. */
static bool too_early(bosh_arena_t *a, bosh_session_t *s, const bosh_session_t *st,
                      const bosh_req_t *req, const bosh_limits_t *lim)
{
    size_t waits;

    return lim->login_size > 0 && (req->has & BOSH_HAS_PAYLOAD) &&
           (s->flags & (BOSH_SESS_LOGIN | BOSH_SESS_MULTI)) != BOSH_SESS_LOGIN &&
           bosh_multi_early(a, s, st, &waits) &&
           bosh_window_waiting(a, s) + waits + s->part.len + req->payload_bytes > lim->login_size;
}

static void request_new(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, const bosh_req_t *req,
                        const bosh_limits_t *lim, bosh_holder_t holder, bosh_verdict_t *v)
{
    bool add = adds_stream(s, req), names = (s->flags & BOSH_SESS_STREAMS) && req->stream != NULL;
    bosh_session_t *st = names ? bosh_multi_find(a, s, req->stream) : NULL;
    char buf[BOSH_STREAM_HEADER_MAX];
    bosh_slice_t header = {buf, 0};
    bosh_slot_t *slot;
    apr_status_t rv;

    if ((req->has & BOSH_HAS_PAUSE) && s->maxpause > 0 && req->pause > s->maxpause) { /* */
        fail(a, now, s, BOSH_COND_POLICY_VIOLATION, v);
        return;
    }
    if (req->restart) {
        header.n = bosh_session_print_restart(st != NULL ? st : s, req, buf);
    }
    if (too_early(a, s, st, req, lim)) {
        fail(a, now, s, BOSH_COND_POLICY_VIOLATION, v);
        return;
    }
    if (add) {
        bosh_cond_t cond;
        st = bosh_multi_open(a, now, s, req, lim, &cond);
        if (st == NULL && cond != BOSH_COND_NONE) {
            fail(a, now, s, cond, v);
            return;
        }
        if (st == NULL) {
            v->act = BOSH_DO_BUSY;
            return;
        }
    }
    take_ack(a, now, s, req);
    rv = bosh_window_store(a, s, now, req, header, holder);
    if (rv != APR_SUCCESS && add) {
        bosh_multi_drop(a, st);
    }
    if (rv == APR_EOF) { /* B-174: the client never acknowledges */
        fail(a, now, s, BOSH_COND_POLICY_VIOLATION, v);
        return;
    }
    if (rv != APR_SUCCESS) {
        v->act = BOSH_DO_BUSY;
        return;
    }
    BOSH_POINT("request-stored");
    slot = bosh_window_slot(a, s, req->rid);
    slot->flags |= BOSH_SLOT_MAILED;
    if (st != NULL) {
        slot->stream = bosh_arena_index(a, st);
        slot->stream_serial = st->serial;
        slot->flags |= add ? BOSH_SLOT_ADD : 0;
    } else if (names && !bosh_body_is_empty(req)) { /* an empty one's means nothing (B-334) */
        slot->flags |= BOSH_SLOT_STRAY;
    }
    bosh_pace_arrived(a, now, s, slot);
    bosh_answer_settle(a, now, s, lim);
    if (slot->state == BOSH_SLOT_DEFERRED) { /* else that has been done */
        bosh_answer_touch(a, now, s);
    }
    look(a, now, s, lim, slot, false, v);
}

/* 19.1: a session made over TLS, or with a client certificate, neither answers nor counts requests without it
 * (B-361..B-363, B-208). One made without a certificate does not mind that another connection shows one. */
static bool wrong_channel(const bosh_session_t *s, const bosh_client_t *who, bosh_verdict_t *v)
{
    static const uint8_t none[BOSH_CERT_BYTES];

    if (((s->flags & BOSH_SESS_TLS) && !who->tls) ||
        (memcmp(s->cert, none, sizeof(none)) != 0 &&
         memcmp(s->cert, who->cert, sizeof(s->cert)) != 0)) {
        v->act = BOSH_DO_CLOSE;
        return true;
    }
    return false;
}

void bosh_session_request(bosh_arena_t *a, apr_time_t now, const bosh_req_t *req,
                          const bosh_limits_t *lim, const bosh_client_t *who, bosh_holder_t holder,
                          bosh_verdict_t *v)
{
    bool extra = req->terminate || (req->has & BOSH_HAS_PAUSE);
    bosh_session_t *s = bosh_arena_find(a, req->sid);
    bosh_slot_t *slot;

    a->h->count.requests++;
    begin_verdict(a, s, req->rid, v);
    if (s == NULL) { /* 17.2; the client's version is not known then */
        tell(v, BOSH_COND_ITEM_NOT_FOUND);
        return;
    }
    bosh_arena_touch(a, s);
    if (wrong_channel(s, who, v)) {
        return;
    }
    if (req->script != ((s->flags & BOSH_SESS_SCRIPT) != 0)) { /* XEP-0252 2.1 */
        if (s->state == BOSH_ST_TOMB) {
            tell(v, BOSH_COND_BAD_REQUEST);
        } else {
            fail(a, now, s, BOSH_COND_BAD_REQUEST, v);
        }
        return;
    }
    slot = bosh_window_slot(a, s, req->rid);
    if (s->state == BOSH_ST_TOMB) { /* 13, R-07: only what has been said can be said again */
        if (slot != NULL && slot->state == BOSH_SLOT_ANSWERED && repeats(s, slot, req)) {
            slot->flags |= BOSH_SLOT_AGAIN;
            send_slot(slot, v);
        } else {
            tell(v, BOSH_COND_ITEM_NOT_FOUND);
        }
        return;
    }
    if (slot != NULL && !repeats(s, slot, req)) {
        fail(a, now, s, BOSH_COND_ITEM_NOT_FOUND, v);
        return;
    }
    switch (bosh_window_judge(a, s, req->rid, extra)) {
    case BOSH_WIN_OUTSIDE: /* 14.2, 14.3 */
        fail(a, now, s, BOSH_COND_ITEM_NOT_FOUND, v);
        break;
    case BOSH_WIN_RESEND: /* 14.3 */
        resend(a, now, s, slot, v);
        break;
    case BOSH_WIN_REPEAT: /* 14.3, 17.3 */
        repeat(a, now, s, lim, slot, holder, v);
        break;
    case BOSH_WIN_NEW: /* 8, 10, 13 */
        request_new(a, now, s, req, lim, holder, v);
        break;
    }
}

void bosh_session_bad_request(bosh_arena_t *a, apr_time_t now, const char *sid,
                              const bosh_client_t *who, bosh_verdict_t *v)
{
    bosh_session_t *s = bosh_arena_find(a, sid);

    begin_verdict(a, s, 0, v);
    if (s == NULL || s->state == BOSH_ST_TOMB) {
        tell(v, BOSH_COND_BAD_REQUEST);
        return;
    }
    bosh_arena_touch(a, s);
    if (wrong_channel(s, who, v)) {
        return;
    }
    fail(a, now, s, BOSH_COND_BAD_REQUEST, v);
}

/* ---- waiting ---- */

void bosh_session_poll(bosh_arena_t *a, apr_time_t now, const bosh_limits_t *lim, bool must,
                       bosh_holder_t holder, bosh_verdict_t *v)
{
    uint64_t rid = v->rid;
    bosh_session_t *s = bosh_arena_get(a, v->session, v->serial);
    bosh_slot_t *slot = s != NULL ? bosh_window_slot(a, s, rid) : NULL;

    begin_verdict(a, s, rid, v);
    if (slot == NULL && s != NULL && s->state != BOSH_ST_TOMB) {
        tell_error(
            v); /* sent again, and that one has fetched the answer, which is let go (B-165) */
        return;
    }
    if (slot == NULL) { /* refused, or there was no memory for its answer */
        bool why = s != NULL && s->state == BOSH_ST_TOMB && s->cond != BOSH_COND_NONE;
        tell(v, why ? (bosh_cond_t)s->cond : BOSH_COND_ITEM_NOT_FOUND);
        return;
    }
    bosh_arena_touch(a, s);
    if (!same_holder(&slot->holder, &holder)) { /* a repeat took over (B-165) */
        tell_error(v);
        return;
    }
    slot->flags |= BOSH_SLOT_MAILED;
    look(a, now, s, lim, slot, must, v);
}

void bosh_session_gone(bosh_arena_t *a, apr_time_t now, bosh_ix session, uint32_t serial,
                       uint64_t rid, bosh_holder_t holder)
{
    bosh_session_t *s = bosh_arena_get(a, session, serial);
    bosh_slot_t *slot = s != NULL ? bosh_window_slot(a, s, rid) : NULL;

    if (slot == NULL || !same_holder(&slot->holder, &holder)) {
        return;
    }
    bosh_arena_touch(a, s);
    slot->holder.peer = 0;
    slot->flags &= (uint16_t)~BOSH_SLOT_MAILED;
    if (slot->state != BOSH_SLOT_ANSWERED) {
        bosh_answer_touch(a, now, s); /* B-207 */
        bosh_answer_deliver(a, s);    /* another held request may take what waits */
        bosh_pace_holder_gone(a, s);
    }
}

size_t bosh_session_read(bosh_arena_t *a, bosh_ix session, uint32_t serial, uint64_t rid,
                         size_t off, char *dst, size_t n)
{
    bosh_session_t *s = bosh_arena_get(a, session, serial);
    bosh_slot_t *slot = s != NULL ? bosh_window_slot(a, s, rid) : NULL;
    size_t len;

    if (slot == NULL || slot->state != BOSH_SLOT_ANSWERED) {
        return 0;
    }
    len = slot->flags & BOSH_SLOT_PLAIN ? sizeof(BOSH_BODY_EMPTY) - 1 : slot->answer.len;
    if (slot->flags & BOSH_SLOT_PLAIN) {
        n = off >= len ? 0 : n < len - off ? n : len - off;
        memcpy(dst, BOSH_BODY_EMPTY + off, n);
    } else {
        n = bosh_bytes_peek(a, &slot->answer, off, dst, n);
    }
    if (off + n >= len) {
        slot->flags |= BOSH_SLOT_SENT;
    }
    return n;
}

void bosh_session_lost(bosh_arena_t *a, bosh_verdict_t *v)
{
    const bosh_session_t *s = bosh_arena_get(a, v->session, v->serial);

    if (s != NULL && s->state != BOSH_ST_TOMB) {
        tell_error(v);
    } else {
        tell(v, BOSH_COND_ITEM_NOT_FOUND);
    }
}

void bosh_session_unsent(bosh_arena_t *a, bosh_ix session, uint32_t serial, uint64_t rid)
{
    bosh_session_t *s = bosh_arena_get(a, session, serial);
    bosh_slot_t *slot = s != NULL ? bosh_window_slot(a, s, rid) : NULL;

    if (slot != NULL && slot->state == BOSH_SLOT_ANSWERED && !(slot->flags & BOSH_SLOT_AGAIN)) {
        bosh_arena_touch(a, s);
        slot->flags &= (uint16_t)~BOSH_SLOT_SENT;
        slot->holder.peer = 0;
    }
}
