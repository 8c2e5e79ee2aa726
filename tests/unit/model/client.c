/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients, well-behaved but for client_violate(): never more requests than were granted, the same text when one is
 * sent again, no new one that would push an answer out of the window which has not arrived. And what they may get.
 */
#include "model.h"

#include <stdarg.h>

#include <apr_sha1.h>

#define OPEN "<body xmlns='" BOSH_NS_HTTPBIND "' xmlns:xmpp='" BOSH_NS_XBOSH "'"

/* ---- texts ---- */

static uint32_t mix(uint32_t x)
{
    x = (x ^ (x >> 16)) * 0x45d9f3bu;
    x = (x ^ (x >> 16)) * 0x45d9f3bu;
    return x ^ (x >> 16);
}

/* Known from its number alone; a byte that is one out of place looks wrong. */
static char *stanza(const user_t *u, uint32_t n, char way)
{
    uint32_t r = mix((uint32_t)u->nr * 7919u + n * 31u + (uint32_t)way);
    size_t len = r % W.deal->long_texts == 0 ? 500 + r / 7 % 2600 : r / 7 % 24;
    char *text = malloc(len + 128);
    int at = sprintf(text, "<message xmlns='jabber:client' id='%c%d-%u'><body>", way, u->nr, n);

    for (size_t i = 0; i < len; i++) {
        text[at++] = (char)('a' + (n + i * 7 + i / 26) % 26);
    }
    strcpy(text + at, "</body></message>");
    return text;
}

char *client_down_text(const user_t *u, uint32_t n)
{
    return stanza(u, n, 'd');
}

char *client_up_text(const user_t *u, uint32_t n)
{
    return stanza(u, n, 'u');
}

static char text_buf[1 << 16];
static size_t text_n;

static void add(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void add(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    text_n += (size_t)vsnprintf(text_buf + text_n, sizeof(text_buf) - text_n, fmt, ap);
    va_end(ap);
}

/* The same each time. */
static void print_request(const user_t *u, uint32_t i)
{
    const rq_t *rq = &u->rq[i];

    text_n = 0;
    add(OPEN " rid='%llu'", (unsigned long long)(u->rid0 + i));
    if (i > 0) {
        add(" sid='%s'", u->sid);
    } else {
        add(" to='example.com' ver='1.6' wait='%u' hold='%u' xml:lang='en' xmpp:version='1.0'",
            u->wait, u->hold);
    }
    if (u->acks && i == 0) {
        add(" ack='1'");
    } else if (rq->ack != 0) {
        add(" ack='%llu'", (unsigned long long)rq->ack);
    }
    if (u->keyed && i > 0) {
        add(" key='%s'", u->key[i]);
    }
    if (u->keyed && u->newkey[i][0] != '\0') {
        add(" newkey='%s'", u->newkey[i]);
    }
    if (rq->pause) {
        add(" pause='%u'", rq->pause_time);
    }
    add("%s%s>", rq->term ? " type='terminate'" : "", rq->restart ? " xmpp:restart='true'" : "");
    for (uint32_t k = 0; k < rq->n; k++) {
        char *text = client_down_text(u, rq->first + k);
        add("%s", text);
        free(text);
    }
    add("</body>");
}

/* Keys in chains of four: a chain is used from its end. */
static void make_keys(user_t *u)
{
    u->key = calloc(RIDS + 1, sizeof(*u->key));
    u->newkey = calloc(RIDS + 1, sizeof(*u->newkey));
    for (int i = RIDS; i >= 0; i--) {
        uint8_t hash[APR_SHA1_DIGESTSIZE];
        bool fresh = i == RIDS || i % 4 == 0;
        apr_sha1_ctx_t ctx;
        char hex[41];

        apr_sha1_init(&ctx);
        if (i < RIDS) {
            apr_sha1_update(&ctx, u->key[i + 1], 40);
        }
        apr_sha1_final(hash, &ctx);
        for (int k = 0; k < APR_SHA1_DIGESTSIZE; k++) {
            sprintf(hex + 2 * k, "%02x", hash[k]);
        }
        if (fresh && i < RIDS) {
            memcpy(u->newkey[i], hex, sizeof(hex));
        }
        if (fresh) {
            snprintf(u->key[i], sizeof(u->key[i]), "%040x", mix((uint32_t)(i + u->nr)));
        } else {
            memcpy(u->key[i], hex, sizeof(hex));
        }
    }
}

/* ---- what the reference knows ---- */

static bool is_open(const rq_t *rq)
{
    return !rq->answered && !rq->abandoned && !rq->refused;
}

unsigned client_open_requests(const user_t *u)
{
    unsigned n = 0;

    for (uint32_t i = 0; i < u->nrq; i++) {
        n += is_open(&u->rq[i]);
    }
    return n;
}

uint32_t client_contiguous(const user_t *u)
{
    uint32_t i = 0;

    while (i < u->nrq && u->rq[i].accepted) {
        i++;
    }
    return i;
}

/* How far the oldest open request is behind the next one. */
static uint32_t span(const user_t *u)
{
    for (uint32_t i = 0; i < u->nrq; i++) {
        if (is_open(&u->rq[i])) {
            return u->nrq - i;
        }
    }
    return 0;
}

static void seen(user_t *u, uint32_t i, uint32_t before)
{
    uint32_t top = client_contiguous(u);
    bool gap = false;

    u->quiet_since = W.now;
    for (uint32_t k = top; k < u->nrq; k++) {
        gap |= u->rq[k].accepted;
    }
    u->gap_since = !gap ? 0 : u->gap_since != 0 ? u->gap_since : W.now;
    if (top > 0 && (top != before || i == top - 1)) {
        const rq_t *rq = &u->rq[top - 1];
        u->pause_least = u->pause_most = rq->pause ? W.now + apr_time_from_sec(rq->pause_time) : 0;
    }
}

/* ---- answers ---- */

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* It has its answer, with nothing in it, or will never have one. */
static bool settled(const user_t *u, uint32_t i)
{
    const bosh_session_t *s = core_session(u);

    return s == NULL || s->state != BOSH_ST_LIVE || u->rid0 + i <= s->answered;
}

void client_got(user_t *u, bool all)
{
    for (; u->got_rq < u->nrq; u->got_rq++) {
        const rq_t *rq = &u->rq[u->got_rq];
        const char *p = rq->text != NULL ? rq->text : rq->made;
        unsigned n = 0;

        if (p == NULL) {
            if (all && (rq->abandoned || rq->refused) && settled(u, u->got_rq)) {
                continue;
            }
            return;
        }
        p = strchr(p, '>');
        if (p[-1] == '/') {
            continue;
        }
        for (p++; !begins(p, "</body>"); n++) {
            char *text = client_up_text(u, u->got_up);
            const char *end = strstr(p, "</stream:");

            if (begins(p, "<stream:features>")) {
                EXPECT(n == 0 && begins(end, "</stream:features></body>"),
                       "features are not alone in their body", "u%d: %s", u->nr, rq->text);
                p = strchr(end, '>') + 1;
                u->got_features++;
            } else if (begins(p, "<stream:error>")) {
                p = strchr(end, '>') + 1;
            } else {
                EXPECT(begins(p, text),
                       "a stanza was lost, doubled or changed on its way to the client",
                       "u%d: answer %u has not stanza %u next: %.200s", u->nr, u->got_rq, u->got_up,
                       p);
                u->got_up++;
                p += strlen(text);
            }
            free(text);
        }
    }
}

/* What a creation's answer says must be what the reference has reckoned. */
static void check_creation(const user_t *u, const char *text)
{
    char want[128];

    snprintf(want, sizeof(want), " wait='%u'", u->wait);
    EXPECT(strstr(text, want) != NULL, "the granted wait is wrong", "u%d: %s", u->nr, text);
    snprintf(want, sizeof(want), " hold='%u'", u->hold);
    EXPECT(strstr(text, want) != NULL, "the granted hold is wrong", "u%d: %s", u->nr, text);
    snprintf(want, sizeof(want), " requests='%u'", u->requests);
    EXPECT(strstr(text, want) != NULL, "the granted requests are wrong", "u%d: %s", u->nr, text);
    EXPECT(strstr(text, u->sid) != NULL, "a creation's answer without its sid", "u%d: %s", u->nr,
           text);
}

static void check_ack(const user_t *u, uint32_t i, const char *text)
{
    const char *end = strchr(text, '>'), *at = strstr(text, " ack='");
    uint64_t most = u->rid0 + client_contiguous(u) - 1;

    if (at != NULL && at < end) {
        uint64_t ack = strtoull(at + 6, NULL, 10);
        EXPECT(
            u->acks && ack <= most && ack >= u->rid0 + i, "an answer acknowledges what it may not",
            "u%d: request %u, up to %llu have come: %s", u->nr, i, (unsigned long long)most, text);
    }
}

static bool lives(const user_t *u)
{
    const bosh_session_t *s = core_session(u);

    return s != NULL && s->state == BOSH_ST_LIVE;
}

static void check_answer(user_t *u, uint32_t i, char *text)
{
    rq_t *rq = &u->rq[i];
    const char *end = strchr(text, '>'), *type = strstr(text, " type='");
    bool over = type != NULL && type < end;

    if (rq->text != NULL) {
        EXPECT(strcmp(rq->text, text) == 0, "an answer sent again is not the same",
               "u%d: request %u: first %s, now %s", u->nr, i, rq->text, text);
        free(text);
        return;
    }
    EXPECT(rq->made == NULL || strcmp(rq->made, text) == 0, "an answer is not what was made",
           "u%d: request %u: %s, now %s", u->nr, i, rq->made, text);
    rq->text = text;
    if (over) {
        EXPECT(!lives(u), "the end is told and the session lives", "u%d: %s", u->nr, text);
    } else {
        if (i == 0) {
            check_creation(u, text);
        }
        check_ack(u, i, text);
        rq->normal = rq->normal || !u->ended;
    }
    for (uint32_t k = 0; k < i && !u->ended; k++) {
        EXPECT(u->rq[k].accepted, "a request was answered before an earlier one came",
               "u%d: request %u before %u", u->nr, i, k);
    }
    client_got(u, false);
}

static void deliver(conn_t *c)
{
    user_t *u = &W.user[c->user];
    uint32_t i = (uint32_t)(c->rid - u->rid0);
    char *text = core_read(c);
    bool over;

    EXPECT(text != NULL, "an answer was let go before it was fetched", "u%d: request %u", u->nr, i);
    over = strstr(text, " type='terminate'") != NULL;
    note("        %.500s", text);
    check_answer(u, i, text);
    if (c->fate == FATE_UNSENT) {
        core_unsent(c);
    }
    if (c->fate != FATE_FINE) {
        note("      ... and the answer of u%d rid %u is lost", u->nr, i);
        if (i == 0) {
            u->left = true; /* it never learns the sid */
        }
        return;
    }
    u->rq[i].answered = true;
    u->told_end |= over;
}

/* A connection has its verdict. */
static void outcome(conn_t *c, bool arrival)
{
    user_t *u = &W.user[c->user];
    uint32_t i = (uint32_t)(c->rid - u->rid0);
    rq_t *rq = &u->rq[i];

    c->waiting = c->v.act == BOSH_DO_HOLD;
    if (!c->waiting && rq->conn == (int)(c - W.conn)) {
        rq->conn = -1;
    }
    switch (c->v.act) {
    case BOSH_DO_HOLD:
        EXPECT(lives(u) || core_session(u)->state == BOSH_ST_ENDING,
               "a request is held and its session is over", "u%d: request %u", u->nr, i);
        break;
    case BOSH_DO_SEND:
        note("      u%d rid %u is answered", u->nr, i);
        deliver(c);
        break;
    case BOSH_DO_TELL:
        note("      u%d rid %u is told %s", u->nr, i, c->v.error ? "error" : "the end");
        if (!c->v.error) {
            EXPECT(!lives(u), "the end is told and the session lives", "u%d: request %u", u->nr, i);
            u->told_end = true;
            rq->refused = true;
        } else {
            EXPECT(c->replaced || rq->accepted, "an error is told for nothing", "u%d: request %u",
                   u->nr, i);
            EXPECT(c->replaced || W.now >= c->since + apr_time_from_sec(u->wait) || !arrival,
                   "an error is told for nothing", "u%d: request %u", u->nr, i);
        }
        break;
    case BOSH_DO_BUSY:
        note("      u%d rid %u comes at a bad time", u->nr, i);
        EXPECT(core_low(), "no memory for a request, and there is memory", "u%d: request %u", u->nr,
               i);
        break;
    case BOSH_DO_CLOSE:
        broken("a connection is closed without an answer", "u%d: request %u", u->nr, i);
    }
}

/* ---- connections ---- */

void conn_gone(conn_t *c)
{
    user_t *u = &W.user[c->user];
    uint32_t i = (uint32_t)(c->rid - u->rid0);

    c->waiting = false;
    if (u->rq[i].conn == (int)(c - W.conn)) {
        u->rq[i].conn = -1;
    }
    u->left |= i == 0 && !u->rq[0].answered;
    core_gone(c);
}

void conn_breaks(conn_t *c, bool noticed)
{
    user_t *u = &W.user[c->user];
    uint32_t i = (uint32_t)(c->rid - u->rid0);

    note("      u%d rid %u loses its connection%s", u->nr, i, noticed ? "" : ", unnoticed");
    c->broken = true;
    if (u->rq[i].conn == (int)(c - W.conn)) {
        u->rq[i].conn = -1;
    }
    u->left |= i == 0 && !u->rq[0].answered;
    if (noticed) {
        conn_gone(c);
    }
}

void conn_poll(conn_t *c, bool must)
{
    c->asked = false;
    if (c->broken) {
        conn_gone(c);
        return;
    }
    core_poll(c, must);
    if (c->v.act == BOSH_DO_HOLD && c->v.deadline <= W.now) {
        c->v.deadline = W.now + SEC; /* as bosh_hold.c does */
    }
    outcome(c, false);
    if (must && c->waiting) { /* as turn_away() does */
        conn_gone(c);
    }
}

static conn_t *connect_to(user_t *u, uint64_t rid, uint32_t r)
{
    conn_t *c = &W.conn[W.nconns];
    uint32_t fate = r >> 8 & 31;

    if (W.nconns == CONNS) {
        return NULL;
    }
    W.nconns++;
    *c = (conn_t){.user = u->nr, .kid = kid_pick(r), .rid = rid, .since = W.now};
    c->fate = fate < 2 && !W.quiet_end ? (uint8_t)(fate + 1) : FATE_FINE;
    c->holder = (bosh_holder_t){
        .peer = W.kid[c->kid].peer, .waiter = (uint32_t)(c - W.conn), .gen = ++W.gens};
    return c;
}

static void parse(bosh_req_t *req)
{
    const char *why = NULL;

    EXPECT(bosh_body_parse(W.body, text_buf, text_n, req, &why) == APR_SUCCESS,
           "a request is refused", "%s: %s", why, text_buf);
}

/* A request arrives, for the first time or again. */
static void submit(user_t *u, uint32_t i, uint32_t r)
{
    rq_t *rq = &u->rq[i];
    uint32_t before = client_contiguous(u);
    bool again = rq->accepted;
    int old = rq->conn;
    conn_t *c = connect_to(u, u->rid0 + i, r);
    unsigned why = u->why;
    bosh_req_t req;

    if (c == NULL) {
        return;
    }
    print_request(u, i);
    parse(&req);
    note("    u%d rid %u%s%s%s%s, %u stanzas, at child %d", u->nr, i, again ? " again" : "",
         rq->pause ? " pause" : "", rq->term ? " terminate" : "", rq->restart ? " restart" : "",
         rq->n, c->kid);
    rq->under_way = false;
    u->why |= rq->term ? WHY_CLIENT : 0;
    u->why |= ++rq->sends > W.lim.max_repeats ? WHY_BROKE : 0;
    rq->conn = (int)(c - W.conn);
    if (old >= 0 && W.conn[old].waiting) {
        W.conn[old].replaced = true;
    }
    for (int k = 0; k < W.nconns - 1; k++) { /* an older one may be dead without anybody knowing */
        W.conn[k].replaced |= W.conn[k].user == u->nr && W.conn[k].rid == c->rid;
    }
    rq->accepted = true; /* before the section: an answer may be made in it */
    core_request(c, &req);
    if (!again && (c->v.act == BOSH_DO_BUSY || (c->v.act == BOSH_DO_TELL && !c->v.error))) {
        rq->accepted = false;
    }
    if (c->v.act == BOSH_DO_BUSY) {
        rq->under_way = true;
        u->why = why;
    }
    if (c->v.act != BOSH_DO_BUSY) {
        seen(u, i, before);
    }
    outcome(c, true);
}

bool client_arrive(user_t *u, uint32_t which, uint32_t b)
{
    uint32_t found[RIDS], n = 0;

    for (uint32_t i = 1; i < u->nrq; i++) {
        if (u->rq[i].under_way && !u->rq[i].abandoned) {
            found[n++] = i;
        }
    }
    if (n == 0 || u->told_end) {
        return false;
    }
    which = found[which % n];
    submit(u, which, b);
    return !u->rq[which].under_way; /* it is when there was no memory for it */
}

void client_resend(user_t *u, uint32_t which, uint32_t b, bool eager)
{
    uint32_t found[RIDS], n = 0;
    rq_t *last = &u->rq[u->nrq - 1];

    for (uint32_t i = 1; i < u->nrq; i++) {
        const rq_t *rq = &u->rq[i];
        if (is_open(rq) && !rq->under_way && (rq->conn < 0 || (eager && rq->sends < 3))) {
            found[n++] = i;
        }
    }
    if (eager && n == 0 && u->nrq > 1 && last->answered && last->sends < 4) {
        found[n++] = u->nrq - 1; /* its answer is kept still */
    }
    if (n > 0 && !u->left) {
        submit(u, found[which % n], b);
    }
}

/* ---- sessions ---- */

static unsigned lower(unsigned x, unsigned y)
{
    return x < y ? x : y;
}

void client_open(uint32_t a, uint32_t b, uint32_t c)
{
    user_t *u = &W.user[W.nusers];
    unsigned wait = (unsigned[]){10, 60, 3, 0}[a % 8 < 7 ? a % 3 : 3], hold = a >> 4 & 3;
    unsigned most = lower(W.lim.max_requests, 3);
    uint8_t sid[BOSH_SID_BYTES];
    bosh_req_t req;
    conn_t *conn;

    if (W.nusers == USERS) {
        return;
    }
    *u = (user_t){.nr = W.nusers, .tick_at = BOSH_NEVER, .rid0 = 1000 + b % 100};
    u->acks = a >> 6 & 1;
    u->keyed = W.lim.keys && (a >> 7 & 1);
    if (u->keyed) {
        make_keys(u);
    }
    u->wait = wait;
    u->hold = hold;
    u->nrq = 1;
    print_request(u, 0);
    parse(&req);
    conn = connect_to(u, u->rid0, c);
    if (conn == NULL) {
        return;
    }
    /* What section 7 and the bounds make of it. */
    u->wait = lower(wait, W.lim.max_wait);
    u->hold = lower(lower(hold, W.lim.max_hold), most - 1);
    u->requests = lower(hold + 1, most);
    u->requests = u->requests > u->hold + 1 ? u->requests : u->hold + 1;
    u->polling = u->wait == 0 || u->hold == 0;
    u->inactivity = W.lim.inactivity;
    if (u->polling && u->inactivity > 0) {
        u->inactivity += 2 * W.lim.polling + 1;
    }
    for (size_t i = 0; i < sizeof(sid); i++) {
        sid[i] = (uint8_t)mix(b + (uint32_t)i * 77u + (uint32_t)W.nusers);
    }
    u->rq[0] = (rq_t){.accepted = true, .conn = (int)(conn - W.conn), .sends = 1};
    W.nusers++;
    note("    u%d is created at child %d: wait %u hold %u requests %u%s%s", u->nr, conn->kid,
         u->wait, u->hold, u->requests, u->acks ? ", acks" : "", u->keyed ? ", keys" : "");
    core_create(u, conn, &req, sid, conn->kid);
    if (!u->exists) {
        EXPECT(core_low() || W.a.h->nsessions >= W.deal->sessions, "a session is refused",
               "condition %d", conn->v.cond);
        u->told_end = u->left = u->ended = u->freed = true;
        u->rq[0].refused = true;
        return;
    }
    bosh_arena_sid_text(core_session(u), u->sid);
    u->quiet_since = W.now;
    outcome(conn, true);
}

void client_send(user_t *u, uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t i = u->nrq, k = 0;
    unsigned kind = a % 64;
    bool ready;
    rq_t rq = {.conn = -1, .first = u->nstanzas};

    if (!u->rq[0].answered || u->told_end || u->left || u->nrq == RIDS || u->rq[u->nrq - 1].term) {
        return;
    }
    rq.pause = kind < 3 && W.lim.maxpause > 0;
    rq.term = kind == 3;
    /* After a restart, and a good half of them at first, clients wait for the features. */
    ready = u->got_features > u->restarts;
    rq.restart = ready && (kind == 4 || kind == 5);
    if (span(u) >= u->requests + (rq.pause || rq.term)) {
        return;
    }
    rq.n = rq.restart || !(ready || (u->restarts == 0 && u->nr % 2)) ? 0
           : (a >> 8) % 4 > 1                                        ? (a >> 10) % 4
                                                                     : 0;
    rq.pause_time = 1 + (a >> 12) % (W.lim.maxpause > 0 ? W.lim.maxpause : 1);
    while (k < i && u->rq[k].answered) {
        k++;
    }
    rq.ack = u->acks && k < i ? u->rid0 + k - 1 : 0;
    u->restarts += rq.restart;
    u->nstanzas += rq.n;
    u->rq[i] = rq;
    u->nrq++;
    if (W.lim.polling > 0) {
        u->why |= WHY_TOO_SOON;
    }
    if (b % 4 == 0 && !W.quiet_end) {
        u->rq[i].under_way = true;
        note("    u%d rid %u is under way", u->nr, i);
    } else {
        submit(u, i, c);
    }
}

void client_violate(user_t *u, uint32_t how, uint32_t b)
{
    bool wrong_key = how % 4 == 1 && u->keyed, too_long = how % 4 == 2 && W.lim.maxpause > 0;
    uint64_t rid = u->rid0 + u->nrq +
                   (wrong_key || too_long ? 0
                    : how % 4 == 3        ? u->requests + 9
                                          : 0);
    conn_t *c;
    bosh_req_t req;

    if (!u->rq[0].answered || u->told_end || u->left || span(u) > 0) {
        return;
    }
    if (core_session(u) != NULL && core_session(u)->processed + 1 != u->rid0 + u->nrq) {
        return; /* something of before is not in its turn yet, and nor would this be */
    }
    if ((c = connect_to(u, rid, b)) == NULL) {
        return;
    }
    c->fate = FATE_FINE;
    u->why |= WHY_BROKE;
    u->told_end = true;
    if (!wrong_key && !too_long && how % 4 != 3) {
        note("    u%d sends nonsense", u->nr);
        core_bad(u, c);
    } else {
        text_n = 0;
        add(OPEN " sid='%s' rid='%llu'%s", u->sid, (unsigned long long)rid,
            too_long ? " pause='60000'" : "");
        if (u->keyed) {
            add(" key='%s'",
                wrong_key ? "0123456789012345678901234567890123456789" : u->key[u->nrq]);
        }
        add("/>");
        parse(&req);
        note("    u%d breaks a rule (%u)", u->nr, how % 4);
        core_request(c, &req);
    }
    EXPECT(c->v.act == BOSH_DO_TELL && !c->v.error, "a rule was broken without a word", "u%d: %d",
           u->nr, c->v.act);
}
