/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The steps, what must hold after each section, what must hold when all that was asked for has been done, and
 * when time has passed; and the end, at which everything has arrived and everything is given back.
 */
#include "model.h"

world_t W;

#define LATE (2 * SEC + SEC / 2) /* how late timers are served, and a little */

/* ---- after each section ---- */

static bool waits(const user_t *u, bool in_turn)
{
    uint64_t top = u->rid0 + client_contiguous(u);

    for (int i = 0; i < W.nconns; i++) {
        const conn_t *c = &W.conn[i];
        if (c->user == u->nr && c->waiting && (!in_turn || c->rid < top)) {
            return true;
        }
    }
    return false;
}

/* Something has come that is not in its turn yet: the client is back. */
static bool came_later(const user_t *u)
{
    for (uint32_t i = client_contiguous(u); i < u->nrq; i++) {
        if (u->rq[i].accepted) {
            return true;
        }
    }
    return false;
}

/* Nothing was heard of its client for as long as may be. */
static bool silent(const user_t *u)
{
    unsigned most = u->inactivity > 0 || !u->ended ? u->inactivity : BOSH_TOMB_SECONDS;
    apr_time_t gap = u->gap_since + apr_time_from_sec(u->inactivity);

    if (u->inactivity > 0 && u->gap_since != 0 && W.now >= gap) {
        return true;
    }
    if (u->pause_least != 0 && W.now >= u->pause_least && !waits(u, true) && !came_later(u)) {
        return true;
    }
    return most > 0 && W.now >= u->quiet_since + apr_time_from_sec(most) && !waits(u, true);
}

/* What an answer carries is known when it is made, whether anybody ever gets it or not. */
static void keep_made(user_t *u, const bosh_slot_t *slot)
{
    rq_t *rq = &u->rq[slot->rid - u->rid0];

    if (rq->made == NULL && (slot->flags & BOSH_SLOT_GAVE)) {
        rq->made = calloc(1, slot->answer.len + 1);
        bosh_bytes_peek(&W.a, &slot->answer, 0, rq->made, slot->answer.len);
    }
}

static void check_live(user_t *u, const bosh_session_t *s)
{
    unsigned held = 0, hold = u->polling ? 0 : u->hold;
    bool creation = false;

    EXPECT(s->answered <= s->processed && s->processed <= s->received, "the marks are not in order",
           "u%d", u->nr);
    EXPECT(s->received < u->rid0 + client_contiguous(u), "a request counts that has not come",
           "u%d", u->nr);
    for (uint32_t k = 0; k < W.a.h->sizes.slots; k++) {
        const bosh_slot_t *slot = &s->slots[k];
        bool passed = slot->rid <= s->processed;
        if (slot->state == BOSH_SLOT_FREE) {
            continue;
        }
        EXPECT(slot->state == (!passed                   ? BOSH_SLOT_DEFERRED
                               : slot->rid > s->answered ? BOSH_SLOT_HELD
                                                         : BOSH_SLOT_ANSWERED),
               "requests are not answered in the order of rids",
               "u%d: rid %llu is in state %d, answered up to %llu, processed up to %llu", u->nr,
               (unsigned long long)(slot->rid - u->rid0), slot->state,
               (unsigned long long)(s->answered - u->rid0),
               (unsigned long long)(s->processed - u->rid0));
        held += slot->state == BOSH_SLOT_HELD;
        creation |= slot->state == BOSH_SLOT_HELD && (slot->flags & BOSH_SLOT_CREATION);
    }
    EXPECT(held <= hold || (creation && held == 1) || core_low(),
           "more requests are held than was agreed", "u%d: %u, hold is %u", u->nr, held, hold);
}

static void check_user(user_t *u)
{
    const bosh_session_t *s = core_session(u);
    uint64_t sign;

    if (s == NULL) {
        EXPECT(u->freed || (u->tomb && W.now >= u->tomb_at + apr_time_from_sec(BOSH_TOMB_SECONDS)),
               "a session is gone before its time", "u%d", u->nr);
        u->freed = true;
        return;
    }
    sign = s->answered * 64;
    for (uint32_t k = 0; k < W.a.h->sizes.slots; k++) {
        const bosh_slot_t *slot = &s->slots[k];
        if (slot->state == BOSH_SLOT_ANSWERED) {
            keep_made(u, slot);
        }
        sign += (slot->state == BOSH_SLOT_HELD || slot->state == BOSH_SLOT_DEFERRED) &&
                slot->holder.peer != 0;
    }
    if (s->state == BOSH_ST_LIVE) {
        check_live(u, s);
    } else if (!u->ended) {
        EXPECT(u->why != 0 || silent(u), "a session ended for no reason",
               "u%d: condition %d, silent for %.3f s", u->nr, s->cond,
               (double)(W.now - u->quiet_since) / SEC);
        u->ended = true;
        u->quiet_since = W.now; /* its client gets as long again to be told */
        note("      the session of u%d ends, condition %d", u->nr, s->cond);
    }
    if (s->state == BOSH_ST_TOMB && !u->tomb) {
        u->expired = silent(u);
        u->tomb = true;
        u->tomb_at = W.now;
    }
    if (sign != u->sign) {
        u->sign = sign;
        u->quiet_since = W.now;
    }
}

void world_check(void)
{
    for (int i = 0; i < W.nusers; i++) {
        if (W.user[i].exists) {
            check_user(&W.user[i]);
        }
    }
}

/* ---- children ---- */

int kid_pick(uint32_t r)
{
    int alive[KIDS], n = 0;

    for (int k = 1; k <= KIDS; k++) {
        if (W.kid[k].alive) {
            alive[n++] = k;
        }
    }
    return alive[r % (uint32_t)n];
}

static int kids_alive(void)
{
    int n = 0;

    for (int k = 1; k <= KIDS; k++) {
        n += W.kid[k].alive;
    }
    return n;
}

static void take_mail(int kid, uint32_t max)
{
    bosh_mail_t m;
    bool overflow = false;

    while (max-- > 0 && bosh_arena_mail_take(&W.a, W.kid[kid].peer, &m, 1, &overflow) == 1) {
        if (m.what & BOSH_MAIL_WAITER) {
            conn_t *c = &W.conn[m.what & ~BOSH_MAIL_WAITER];
            c->asked |= c->kid == kid && c->holder.gen == m.tag;
        } else {
            user_t *u = stream_user(m.what, m.tag);
            if (u != NULL) {
                stream_look(u, kid);
            }
        }
        if (overflow) {
            break;
        }
    }
    if (!overflow && max > 0) {
        (void)bosh_arena_mail_take(&W.a, W.kid[kid].peer, &m, 0, &overflow);
    }
    for (int i = 0; overflow && i < W.nconns; i++) {
        W.conn[i].asked |= W.conn[i].waiting && W.conn[i].kid == kid;
    }
    for (int i = 0; overflow && i < W.nusers; i++) {
        stream_look(&W.user[i], kid);
    }
}

static int kid_of_peer(uint32_t peer)
{
    for (int k = 1; k <= KIDS; k++) {
        if (W.kid[k].peer == peer && (W.kid[k].alive || W.kid[k].dead)) {
            return k;
        }
    }
    return 0;
}

/* Its streams that will not go on: said before anybody can see it. */
static void note_lost(int dead)
{
    for (int i = 0; i < W.nusers; i++) {
        user_t *u = &W.user[i];
        const bosh_session_t *s = core_session(u);
        bool back;

        if (s == NULL || s->link.owner != W.kid[dead].peer) {
            continue;
        }
        back = (s->link.flags & BOSH_LINK_TRANSIT) && s->link.giver != 0 &&
               s->link.giver != W.kid[dead].peer && kid_of_peer(s->link.giver) != 0;
        if (!back && s->link.phase != BOSH_LINK_CONNECT && s->link.phase != BOSH_LINK_CLOSED) {
            u->why |= WHY_LOST | (s->state == BOSH_ST_LIVE ? WHY_LINK : 0);
        }
    }
}

static void bury(int dead, int heir)
{
    note_lost(dead);
    core_bury_kid(dead, heir);
    for (int i = 0; i < W.nusers; i++) {
        if (W.user[i].kid == dead) {
            stream_drop(&W.user[i]);
        }
        if (W.user[i].heir == dead) {
            W.user[i].heir = 0;
        }
    }
}

static void notice(int dead, int by, bool escrow)
{
    note("  child %d sees that %d has died%s", by, dead, escrow ? "" : ", and rescues nothing");
    for (int i = 0; escrow && i < W.nusers; i++) {
        user_t *u = &W.user[i];
        const bosh_session_t *s = core_session(u);
        if (s != NULL && s->link.owner == W.kid[dead].peer && u->kid == dead &&
            !(s->link.flags & BOSH_LINK_TRANSIT) && s->link.phase >= BOSH_LINK_HEADER &&
            s->link.phase <= BOSH_LINK_CLOSING) {
            stream_rescue(u, by);
        }
    }
    bury(dead, by);
}

static void crash(int kid)
{
    if (kids_alive() < 2 || !W.kid[kid].alive) {
        return;
    }
    note("  child %d dies", kid);
    W.kid[kid].alive = false;
    W.kid[kid].dead = true;
    for (int i = 0; i < W.nconns; i++) {
        conn_t *c = &W.conn[i];
        if (c->waiting && c->kid == kid) {
            c->waiting = false;
            conn_breaks(c, false);
        }
    }
}

static void stop(int kid, uint32_t r)
{
    int heir;

    if (kids_alive() < 2 || !W.kid[kid].alive) {
        return;
    }
    note("  child %d stops", kid);
    for (int i = 0; i < W.nusers; i++) {
        if (W.user[i].heir == kid) {
            stream_adopt(&W.user[i], true);
        }
    }
    W.kid[kid].alive = false; /* not to be given anything */
    heir = kid_pick(r);
    W.kid[kid].alive = true;
    for (int i = 0; i < W.nconns; i++) {
        if (W.conn[i].waiting && W.conn[i].kid == kid) {
            conn_poll(&W.conn[i], true);
        }
    }
    for (int i = 0; i < W.nusers; i++) {
        if (W.user[i].kid == kid && stream_give(&W.user[i], heir) && (r >> i & 1)) {
            stream_adopt(&W.user[i], true);
        }
    }
    bury(kid, heir);
}

static void join(uint32_t r)
{
    for (int k = 1; k <= KIDS; k++) {
        int i = 1 + (int)((r + (uint32_t)k) % KIDS);
        if (!W.kid[i].alive && !W.kid[i].dead) {
            note("  child %d comes", i);
            core_join(i);
            return;
        }
    }
}

/* ---- all that can be done now ---- */

static void check_settled(const user_t *u)
{
    bosh_session_t *s = core_session(u);
    const bosh_slot_t *slot;
    bool served, over;

    if (s == NULL || s->state == BOSH_ST_TOMB) {
        EXPECT(!waits(u, false), "a session is over and a request was left waiting", "u%d", u->nr);
        return;
    }
    served = u->kid != 0 && W.kid[u->kid].alive && !u->given && s->link.phase == BOSH_LINK_OPEN;
    over = s->state != BOSH_ST_LIVE;
    if (!over) {
        EXPECT(s->received + 1 == u->rid0 + client_contiguous(u),
               "a request that came is forgotten", "u%d: %llu, and %u have come", u->nr,
               (unsigned long long)(s->received - u->rid0), client_contiguous(u));
    }
    if (served && !u->srv_dead) {
        EXPECT(s->link.down.items == 0 || u->stalled,
               "there is something to be sent and the owner was not woken", "u%d", u->nr);
        slot = bosh_window_slot(&W.a, s, s->processed + 1);
        EXPECT(slot == NULL || (slot->flags & BOSH_SLOT_SUSPECT) || s->link.down.items > 0,
               "it is a request's turn and it waits", "u%d", u->nr);
        EXPECT(!over || u->stalled, "a session is over and its stream goes on", "u%d", u->nr);
    }
    slot = bosh_window_oldest(&W.a, s, true);
    if (slot != NULL && (s->link.up.items > 0 || over) && !core_low()) {
        int kid = kid_of_peer(slot->holder.peer);
        EXPECT(kid == 0 || !W.kid[kid].alive,
               "there is something to be told and the waiting request was not woken",
               "u%d rid %llu", u->nr, (unsigned long long)(slot->rid - u->rid0));
    }
}

static void settle(void)
{
    bool more = true;

    for (int round = 0; more; round++) {
        more = false;
        EXPECT(round < 3000, "the world does not come to rest", "%d", round);
        for (int k = 1; k <= KIDS; k++) {
            const bosh_peer_t *p = W.kid[k].alive ? bosh_arena_peer(&W.a, W.kid[k].peer) : NULL;
            if (p != NULL && (p->mail_n > 0 || p->overflow)) {
                take_mail(k, UINT32_MAX);
                more = true;
            }
        }
        for (int i = 0; i < W.nconns; i++) {
            conn_t *c = &W.conn[i];
            if (c->waiting && c->asked && W.kid[c->kid].alive) {
                conn_poll(c, false);
                more = true;
            }
        }
        for (int i = 0; i < W.nusers; i++) {
            more |= stream_io(&W.user[i], 4096);
        }
    }
    for (int i = 0; i < W.nusers; i++) {
        if (W.user[i].exists) {
            check_settled(&W.user[i]);
        }
    }
}

/* ---- time ---- */

/* What everybody does within a second or so, whatever happens. */
static void sweep(uint32_t r)
{
    for (int k = 1; k <= KIDS; k++) {
        if (W.kid[k].dead) {
            notice(k, kid_pick(r), r % 8 != 0);
        }
    }
    for (int i = 0; i < W.nusers; i++) {
        stream_adopt(&W.user[i], true);
        W.user[i].stalled = false;
    }
    settle();
}

static void check_clock(const user_t *u)
{
    const bosh_session_t *s = core_session(u);
    apr_time_t end = u->quiet_since + apr_time_from_sec(u->inactivity);

    if (core_low()) {
        return;
    }
    for (int i = 0; i < W.nconns; i++) {
        const conn_t *c = &W.conn[i];
        EXPECT(c->user != u->nr || !c->waiting ||
                   W.now <= c->since + apr_time_from_sec(u->wait) + LATE,
               "a request waits longer than was agreed", "u%d rid %llu", u->nr,
               (unsigned long long)(c->rid - u->rid0));
    }
    if (s == NULL) {
        return;
    }
    if (s->state == BOSH_ST_TOMB) {
        EXPECT(W.now <= u->tomb_at + apr_time_from_sec(BOSH_TOMB_SECONDS + 60),
               "what is left of a session stays", "u%d", u->nr);
        return;
    }
    if (u->inactivity == 0 || s->processed + 1 != u->rid0 + client_contiguous(u)) {
        return;
    }
    end = u->pause_most > end ? u->pause_most : end;
    EXPECT(waits(u, true) || W.now <= end + LATE, "a session outlives its client's silence",
           "u%d: silent for %.3f s", u->nr, (double)(W.now - u->quiet_since) / SEC);
    EXPECT(u->gap_since == 0 || W.now <= u->gap_since + apr_time_from_sec(u->inactivity) + LATE ||
               s->state != BOSH_ST_LIVE,
           "a session outlives a request that never comes", "u%d", u->nr);
}

static void pass(apr_time_t dt, uint32_t r)
{
    apr_time_t end = W.now + dt;

    note("  %.3f s pass", (double)dt / SEC);
    for (;;) {
        apr_time_t late = (apr_time_t)(r % 400) * 1000, next = end;

        sweep(r);
        for (int i = 0; i < W.nconns; i++) {
            const conn_t *c = &W.conn[i];
            if (c->waiting && c->v.deadline < end - late && c->v.deadline + late < next) {
                next = c->v.deadline + late;
            }
        }
        for (int i = 0; i < W.nusers; i++) {
            const user_t *u = &W.user[i];
            if (u->tick_at < end - late && u->tick_at + late < next) {
                next = u->tick_at + late;
            }
            if (u->stalled && W.now + SEC < next) {
                next = W.now + SEC;
            }
        }
        if (next >= end) {
            break;
        }
        W.now = next > W.now ? next : W.now;
        for (int i = 0; i < W.nconns; i++) {
            conn_t *c = &W.conn[i];
            if (c->waiting && c->v.deadline <= W.now) {
                conn_poll(c, false);
            }
        }
        for (int i = 0; i < W.nusers; i++) {
            user_t *u = &W.user[i];
            if (u->kid != 0 && !u->given && u->tick_at <= W.now) {
                stream_look(u, u->kid);
            }
        }
        r = r * 1664525u + 1013904223u;
    }
    W.now = end > W.now ? end : W.now;
    sweep(r);
    for (int i = 0; i < W.nusers; i++) {
        if (W.user[i].exists) {
            check_clock(&W.user[i]);
        }
    }
}

/* ---- steps ---- */

static conn_t *some_conn(uint32_t r)
{
    for (int i = 0; i < W.nconns; i++) {
        conn_t *c = &W.conn[((uint32_t)i + r) % (uint32_t)W.nconns];
        if (c->waiting && !c->broken) {
            return c;
        }
    }
    return NULL;
}

/* A page that is loaded again: its connections are gone, and it goes on with the next rid. */
static void reload(user_t *u)
{
    if (!u->rq[0].answered || u->told_end) {
        return;
    }
    for (uint32_t i = 0; i < u->nrq; i++) {
        if (u->rq[i].under_way) {
            return; /* it would have to know which of them came */
        }
    }
    note("  u%d loads its page again", u->nr);
    u->why |= WHY_TOO_SOON;
    for (uint32_t i = 0; i < u->nrq; i++) {
        rq_t *rq = &u->rq[i];
        rq->abandoned = rq->abandoned || !rq->answered;
        if (rq->conn >= 0 && W.conn[rq->conn].waiting && !W.conn[rq->conn].broken) {
            conn_breaks(&W.conn[rq->conn], false);
        }
    }
}

static void run_some(uint32_t from, uint32_t n)
{
    for (int i = 0; i < W.nconns && n > 0; i++) {
        conn_t *c = &W.conn[((uint32_t)i + from) % (uint32_t)W.nconns];
        if (c->waiting && c->asked && W.kid[c->kid].alive) {
            conn_poll(c, false);
            n--;
        }
    }
}

static void user_step(const step_t *t, user_t *u)
{
    switch (t->op) {
    case STEP_SEND:
        client_send(u, t->b, t->c, t->a >> 8);
        break;
    case STEP_ARRIVE:
        client_arrive(u, t->b, t->c);
        break;
    case STEP_RESEND:
        client_resend(u, t->b, t->c, t->b & 0x100);
        break;
    case STEP_RELOAD:
        reload(u);
        break;
    case STEP_LOOP:
        if (u->kid != 0 && W.kid[u->kid].alive) {
            stream_io(u, 1 + t->b % (t->c % 4 == 0 ? 40 : 3000));
        }
        break;
    case STEP_SERVER:
        server_says(u, t->b % 8 < 6 ? t->b % 4 : t->b % 24);
        break;
    case STEP_SERVER_END:
        server_ends(u, t->b);
        break;
    case STEP_GIVE:
        if (u->kid != 0 && W.kid[u->kid].alive) {
            stream_give(u, kid_pick(t->b));
        }
        break;
    case STEP_ADOPT:
        stream_adopt(u, t->b % 4 != 0);
        break;
    case STEP_VIOLATE:
        client_violate(u, t->b, t->c);
        break;
    default:
        break;
    }
}

static void world_step(const step_t *t)
{
    conn_t *c = W.nconns > 0 ? some_conn(t->b) : NULL;

    switch (t->op) {
    case STEP_OPEN:
        client_open(t->a, t->b, t->c);
        break;
    case STEP_BREAK:
        if (c != NULL) {
            conn_breaks(c, t->c % 2 && W.kid[c->kid].alive);
        }
        break;
    case STEP_MAIL:
        take_mail(kid_pick(t->a), 1 + t->b % 8);
        break;
    case STEP_RUN:
        if (W.nconns > 0) {
            run_some(t->a, 1 + t->b % 4);
        }
        break;
    case STEP_TIME:
        if (t->a % 3 > 0) {
            W.now += (apr_time_t)(t->b % 150) * 1000;
        } else {
            pass((apr_time_t)(t->b % (t->c % 4 == 0 ? 45000 : 6000)) * 1000, t->c >> 4);
        }
        break;
    case STEP_CRASH:
        crash(1 + (int)(t->a % KIDS));
        break;
    case STEP_NOTICE:
        if (W.kid[1 + t->a % KIDS].dead) {
            notice(1 + (int)(t->a % KIDS), kid_pick(t->b), t->c % 8 != 0);
        }
        break;
    case STEP_STOP:
        stop(1 + (int)(t->a % KIDS), t->b);
        break;
    case STEP_JOIN:
        join(t->a);
        break;
    case STEP_UNDO:
        W.undo = 1 + t->a % (t->b % 4 == 0 ? 40 : 12);
        break;
    default:
        if (W.nusers > 0) {
            user_step(t, &W.user[t->a % (uint32_t)W.nusers]);
        }
        break;
    }
}

/* ---- the quiet end ---- */

/* Everything that belongs to this client has arrived, both ways. */
static bool complete(const user_t *u)
{
    if (u->told_end || u->left || !u->exists) {
        return true;
    }
    if (core_session(u) == NULL || u->ended) { /* it has to be told, if it asks */
        return client_open_requests(u) == 0 && u->rq[u->nrq - 1].term;
    }
    for (uint32_t i = 0; i < u->nrq; i++) {
        const rq_t *rq = &u->rq[i];
        if (!rq->accepted || (!rq->answered && !rq->abandoned && rq->conn < 0)) {
            return false;
        }
    }
    return server_done(u) && u->got_up == u->said;
}

static void hurry(user_t *u)
{
    uint32_t n = u->nrq;

    server_says(u, 0);
    if (u->told_end || u->left || !u->exists) {
        return;
    }
    while (client_arrive(u, 0, 1)) {
    }
    for (uint32_t i = 0; i < n; i++) {
        client_resend(u, i, 2, false);
    }
    if (!complete(u)) {
        client_send(u, 63, 1, 3); /* a poll */
    }
}

static bool all_complete(void)
{
    for (int i = 0; i < W.nusers; i++) {
        client_got(&W.user[i], true);
        if (!complete(&W.user[i])) {
            return false;
        }
    }
    return true;
}

static uint32_t progress(void)
{
    uint32_t n = 0;

    for (int i = 0; i < W.nusers; i++) {
        client_got(&W.user[i], true);
        n += W.user[i].got_up + W.user[i].hear_rq + W.user[i].got_rq;
    }
    return n;
}

static void check_complete(const user_t *u)
{
    bool lost = (u->why & WHY_LOST) != 0;

    if (!u->exists || u->left || core_low()) {
        return;
    }
    EXPECT(complete(u), "not everything arrives in the end",
           "u%d: %u of %u stanzas from its server, %u of %u requests done by it", u->nr, u->got_up,
           u->said, u->hear_rq, u->nrq);
    /* Its server's last words come before the end that the server has brought about. */
    if (u->why == WHY_LINK && u->connected && !lost && !u->expired && u->got_rq == u->nrq) {
        EXPECT(u->got_up == u->said, "a stanza was lost before the end of a stream",
               "u%d: %u of %u", u->nr, u->got_up, u->said);
    }
    if (u->why == WHY_CLIENT && u->heard_end) {
        EXPECT(server_done(u), "a stanza was lost before the end that its client wanted",
               "u%d: %u of %u requests", u->nr, u->hear_rq, u->nrq);
    }
}

static void finish(void)
{
    uint32_t cells = 0;

    W.quiet_end = true;
    W.undo = 0;
    note("the quiet end");
    for (int round = 0; round < 40 && !all_complete(); round++) {
        uint32_t before = progress();
        for (int i = 0; i < W.nusers; i++) {
            hurry(&W.user[i]);
        }
        settle();
        round = progress() > before ? 0 : round;
        pass(round % 4 == 3 ? 1100 * 1000 : 10 * 1000, 1);
    }
    for (int i = 0; i < W.nusers; i++) {
        check_complete(&W.user[i]);
    }
    note("everybody goes");
    for (int i = 0; i < W.nusers; i++) {
        user_t *u = &W.user[i];
        if (u->exists && core_session(u) != NULL && core_session(u)->state == BOSH_ST_LIVE &&
            u->inactivity == 0) {
            client_violate(u, 0, 0);
            if (core_session(u)->state == BOSH_ST_LIVE) {
                u->why |= WHY_BROKE;
                conn_t c = {.user = u->nr};
                core_bad(u, &c);
            }
        }
    }
    for (int i = 0; i < W.nconns; i++) {
        if (W.conn[i].waiting) {
            conn_breaks(&W.conn[i], true);
        }
    }
    for (int i = 0; i < 12 && W.a.h->nsessions > 0; i++) {
        pass(30 * SEC, 2);
    }
    settle();
    EXPECT(W.a.h->nsessions == 0, "sessions are left in the end", "%u", W.a.h->nsessions);
    EXPECT(W.a.h->nfree_chunks == W.deal->chunks, "memory is not returned", "%u chunks",
           W.deal->chunks - W.a.h->nfree_chunks);
    for (int k = 1; k <= KIDS; k++) {
        EXPECT(!W.kid[k].alive || bosh_arena_peer(&W.a, W.kid[k].peer)->streams == 0,
               "a child counts streams that are gone", "child %d", k);
    }
    for (uint32_t i = 0; i < W.a.h->nets; i++) {
        cells += W.a.nets[i];
    }
    EXPECT(cells == 0, "a network counts sessions that are gone", "%u", cells);
}

static void clean(void)
{
    for (int i = 0; i < W.nusers; i++) {
        user_t *u = &W.user[i];
        stream_drop(u);
        for (uint32_t k = 0; k < u->nrq; k++) {
            free(u->rq[k].text);
            free(u->rq[k].made);
        }
        free(u->key);
        free(u->newkey);
        free(u->out);
    }
    bosh_body_destroy(W.body);
    core_close();
}

void play(const deal_t *deal)
{
    memset(&W, 0, sizeof(W));
    W.deal = deal;
    core_open();
    W.body = bosh_body_create();
    core_join(1);
    core_join(2);
    for (uint32_t i = 0; i < deal->nsteps; i++) {
        note("step %u", i);
        W.now++;
        world_step(&deal->step[i]);
    }
    finish();
    clean();
}
