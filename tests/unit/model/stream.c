/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a child's loop does to one stream, in pieces between which anything may happen, and the XMPP server that
 * it leads to. The order of sections and system calls is that of bosh_up.c and bosh_down.c; the socket is two
 * counters, which is what is left of one when its process has died.
 */
#include "model.h"

#define HEADER                                                                                     \
    "<stream:stream xmlns='jabber:client' xmlns:stream='" BOSH_NS_STREAMS                          \
    "' id='s1' from='example.com' version='1.0'"
#define FEATURES                                                                                   \
    "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></stream:features>"
#define END   "</stream:stream>"
#define ERROR "<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>"

/* ---- the server ---- */

static void put_out(user_t *u, const char *text)
{
    size_t n = strlen(text);

    u->out = realloc(u->out, u->nout + n + 1);
    memcpy(u->out + u->nout, text, n + 1);
    u->nout += n;
}

static bool server_can_talk(const user_t *u)
{
    return u->connected && !u->srv_ended && !u->srv_dead;
}

void server_says(user_t *u, uint32_t stanzas)
{
    if (!server_can_talk(u) || u->said > 150) {
        return;
    }
    if (u->header_due) {
        u->header_due = false;
        put_out(u, HEADER);
        put_out(u, u->nr % 2 ? " xmlns:x='urn:x'>" : ">");
        put_out(u, FEATURES);
        note("  server of u%d sends its header", u->nr);
    }
    for (uint32_t i = 0; i < stanzas; i++) {
        static const char ns[] = " xmlns='jabber:client'";
        char *text = client_up_text(u, u->said);
        if (u->said % 2) { /* without it, and it has to be put there */
            char *at = strstr(text, ns);
            memmove(at, at + sizeof(ns) - 1, strlen(at + sizeof(ns) - 1) + 1);
        }
        put_out(u, text);
        if (u->said % 5 == 0) {
            put_out(u, "\n ");
        }
        u->said++;
        free(text);
    }
    if (stanzas > 0) {
        note("  server of u%d says %u stanzas, up to %u", u->nr, stanzas, u->said);
    }
}

void server_ends(user_t *u, unsigned how)
{
    if (!u->connected && how % 4 == 3) {
        u->refuses = true;
        note("  server of u%d refuses", u->nr);
    } else if (server_can_talk(u) && !u->header_due) {
        u->srv_ended = how % 4 < 2;
        u->srv_dead = !u->srv_ended;
        put_out(u, how % 4 == 0 ? END : how % 4 == 1 ? ERROR END : "");
        note("  server of u%d ends: %s", u->nr,
             how % 4 == 0   ? "its stream"
             : how % 4 == 1 ? "with an error"
                            : "the connection");
    }
}

/* Skips what has nothing to say to the server, in the order of rids; none may be missing before it. */
static rq_t *next_to_hear(user_t *u, const char *what)
{
    while (u->hear_rq < u->nrq) {
        rq_t *rq = &u->rq[u->hear_rq];
        EXPECT(rq->accepted, "the server got something before its turn",
               "u%d: %s, and request %u has not come", u->nr, what, u->hear_rq);
        if (rq->restart || u->hear_n < rq->n) {
            return rq;
        }
        u->hear_rq++;
        u->hear_n = 0;
    }
    return NULL;
}

static void server_hears(user_t *u, const char *p, size_t n)
{
    u->heard += n;
    while (n > 0) {
        rq_t *rq = next_to_hear(u, "payload");
        size_t len, k;
        char *text;
        EXPECT(rq != NULL && !rq->restart, "the server got bytes that nobody sent", "u%d: %.*s",
               u->nr, (int)n, p);
        text = client_down_text(u, rq->first + u->hear_n);
        len = strlen(text);
        k = n < len - u->hear_off ? n : len - u->hear_off;
        EXPECT(memcmp(p, text + u->hear_off, k) == 0, "the server got other bytes than were sent",
               "u%d: request %u, stanza %u from %zu: %.*s", u->nr, u->hear_rq,
               rq->first + u->hear_n, u->hear_off, (int)k, p);
        u->hear_off += k;
        p += k;
        n -= k;
        if (u->hear_off == len) {
            u->hear_off = 0;
            u->hear_n++;
        }
        free(text);
    }
}

static void server_hears_restart(user_t *u, size_t n)
{
    rq_t *rq = next_to_hear(u, "a restart");

    EXPECT(rq != NULL && rq->restart && u->hear_off == 0, "a restart that nobody asked for", "u%d",
           u->nr);
    u->heard += n;
    u->hear_rq++;
    u->hear_n = 0;
    u->header_due = true;
}

bool server_done(const user_t *u)
{
    for (uint32_t i = u->hear_rq; i < u->nrq; i++) {
        const rq_t *rq = &u->rq[i];
        if (!rq->accepted) {
            return true; /* what comes behind it waits for it */
        }
        if (rq->restart || (i == u->hear_rq ? u->hear_n : 0) < rq->n) {
            return false;
        }
    }
    return true;
}

static void server_hears_end(user_t *u)
{
    u->heard += sizeof(END) - 1;
    u->heard_end = true;
    for (uint32_t i = u->hear_rq; i < u->nrq; i++) {
        const rq_t *rq = &u->rq[i];
        EXPECT(!rq->normal || (!rq->restart && (i == u->hear_rq ? u->hear_n : 0) >= rq->n),
               "a stanza was lost on its way to the server",
               "u%d: the stream is ended and request %u, which was answered, has not been sent",
               u->nr, i);
    }
}

/* ---- the object ---- */

static void parser_rests(user_t *u)
{
    if (u->sp != NULL) {
        bosh_split_destroy(u->sp);
    }
    u->sp = NULL;
    u->raw_base = u->fed = 0;
    u->ev_done = 0;
    u->blocked = false;
}

void stream_drop(user_t *u)
{
    parser_rests(u);
    u->kid = 0;
    u->given = u->reading = u->stirred = u->stalled = false;
    u->put = u->got = 0;
    u->tick_at = BOSH_NEVER;
}

user_t *stream_user(bosh_ix index, uint32_t serial)
{
    for (int i = 0; i < W.nusers; i++) {
        if (W.user[i].exists && W.user[i].index == index && W.user[i].serial == serial) {
            return &W.user[i];
        }
    }
    return NULL;
}

static void tick(user_t *u)
{
    apr_time_t at;

    if (!core_tick(u, &at)) {
        stream_drop(u);
        return;
    }
    u->tick_at = at > W.now ? at : W.now + 1000;
}

static void over(user_t *u, bosh_cond_t cond)
{
    note("  stream of u%d is over", u->nr);
    if (core_session(u)->state == BOSH_ST_LIVE) {
        u->why |= WHY_LINK;
    }
    parser_rests(u);
    u->reading = false;
    u->put = u->got = 0;
    core_over(u, cond);
    tick(u);
}

static bosh_phase_t phase_of(const user_t *u)
{
    const bosh_session_t *s = core_session(u);

    return s != NULL ? (bosh_phase_t)s->link.phase : BOSH_LINK_NONE;
}

static void begin_parser(user_t *u)
{
    char prime[2048];
    const char *p = NULL;
    size_t n = 0;

    if (u->sp != NULL) {
        return;
    }
    u->sp = bosh_split_create(1 << 20);
    u->raw_base = u->fed = 0;
    u->ev_done = 0;
    if (phase_of(u) != BOSH_LINK_HEADER) {
        n = core_prime(u, prime, sizeof(prime));
        p = n > 0 ? prime : bosh_split_default_prime(&n);
    }
    EXPECT(bosh_split_begin(u->sp, p, n) == APR_SUCCESS, "a splitter does not begin", "u%d", u->nr);
}

/* Hands on what the parser has found. False: the chunks ran out. */
static bool apply(user_t *u)
{
    size_t n, done = 0;
    const bosh_split_event_t *ev = bosh_split_events(u->sp, &n);
    unsigned last = n > 0 ? ev[n - 1].type : 0;
    bool errored;

    if (n == 0 && bosh_split_boundary(u->sp) == u->raw_base) {
        return true;
    }
    for (size_t i = u->ev_done; i < n && core_session(u)->state == BOSH_ST_LIVE; i++) {
        if (ev[i].type == BOSH_SPLIT_ERROR) {
            u->why |= WHY_LINK;
        }
    }
    u->blocked = core_up(u, ev + u->ev_done, n - u->ev_done, &done) != APR_SUCCESS;
    u->ev_done += done;
    if (u->blocked) {
        EXPECT(core_low(), "no memory for what a server said, and there is memory", "u%d", u->nr);
        u->stalled = true;
        return false;
    }
    bosh_split_clear(u->sp);
    u->ev_done = 0;
    errored = (core_session(u)->link.flags & BOSH_LINK_ERROR) != 0;
    if (last == BOSH_SPLIT_ERROR || (last == BOSH_SPLIT_END && errored)) {
        over(u, BOSH_COND_REMOTE_STREAM_ERROR);
    } else if (last == BOSH_SPLIT_END) {
        over(u, BOSH_COND_NONE);
    } else if (phase_of(u) > BOSH_LINK_HEADER && bosh_split_at_boundary(u->sp)) {
        parser_rests(u);
    }
    return true;
}

/* Feeds what of `raw` the parser has not seen. */
static void digest(user_t *u)
{
    const char *p, *why = NULL;
    size_t n;

    begin_parser(u);
    while ((p = core_raw(u, (size_t)(u->fed - u->raw_base), &n)) != NULL) {
        EXPECT(bosh_split_feed(u->sp, p, n, &why) == APR_SUCCESS,
               "the splitter refuses what a server said", "u%d: %s", u->nr, why);
        u->fed += n;
    }
    apply(u);
}

static void connect_stream(user_t *u)
{
    char header[BOSH_STREAM_HEADER_MAX];

    if (u->refuses) {
        over(u, BOSH_COND_REMOTE_CONNECTION_FAILED);
        return;
    }
    core_header(u);
    u->connected = u->header_due = true;
    u->heard += bosh_session_print_header(core_session(u), header);
    note("  stream of u%d connects", u->nr);
}

static bool read_some(user_t *u, size_t most)
{
    bosh_slice_t iov[4];
    size_t room, n, k;
    int parts;

    if (u->reading) {
        core_commit(u);
        digest(u);
        return true;
    }
    if (u->blocked) {
        return !u->stalled && apply(u);
    }
    if (u->at == u->nout) {
        if (u->srv_dead) {
            over(u, BOSH_COND_REMOTE_CONNECTION_FAILED);
            return true;
        }
        return false;
    }
    room = u->stalled ? 0 : core_reserve(u, most, iov, &parts);
    if (room == 0) {
        u->stalled = true; /* until somebody tells, or the sweep tries again */
        return false;
    }
    n = u->nout - u->at;
    n = n < room ? n : room;
    n = n < most ? n : most;
    u->got = n;
    for (int i = 0; n > 0; i++, n -= k) {
        k = n < iov[i].n ? n : iov[i].n;
        memcpy((char *)(uintptr_t)iov[i].p, u->out + u->at, k);
        u->at += k;
    }
    u->reading = true;
    return true;
}

/* Whether all that the server has said is with the session. */
static bool read_all(user_t *u)
{
    while (phase_of(u) == BOSH_LINK_OPEN && (u->at < u->nout || u->reading || u->blocked)) {
        if (!read_some(u, 4096)) {
            return false;
        }
    }
    return phase_of(u) == BOSH_LINK_OPEN;
}

static bool write_some(user_t *u, size_t most)
{
    char buf[4096];
    size_t n = most < sizeof(buf) ? most : sizeof(buf);

    if (u->put > 0) {
        core_consume(u);
        return true;
    }
    if (!u->stirred) {
        return false; /* nobody has said that there is anything */
    }
    switch (core_next(u, buf, &n)) {
    case NEXT_NOTHING:
        u->stirred = false;
        return false;
    case NEXT_WRITE:
        if (u->srv_dead) {
            return false; /* its last words are to be read still */
        }
        server_hears(u, buf, n);
        u->put = n;
        return true;
    case NEXT_RESTART:
        if (!read_all(u)) {
            return false;
        }
        core_restart(u, buf, &n);
        parser_rests(u);
        server_hears_restart(u, n);
        note("  stream of u%d restarts", u->nr);
        return true;
    case NEXT_CLOSE:
        core_hang_up(u, sizeof(END) - 1);
        parser_rests(u);
        u->reading = false;
        u->got = 0;
        server_hears_end(u);
        note("  stream of u%d says its end", u->nr);
        return true;
    }
    return false;
}

bool stream_io(user_t *u, size_t n)
{
    bool moved;

    if (u->kid == 0 || u->given || core_owner(u) != W.kid[u->kid].peer) {
        return false;
    }
    switch (phase_of(u)) {
    case BOSH_LINK_CONNECT:
        if (core_session(u)->state != BOSH_ST_LIVE) {
            over(u, BOSH_COND_NONE);
        } else {
            connect_stream(u);
        }
        return true;
    case BOSH_LINK_HEADER:
    case BOSH_LINK_FEATURES:
        if (core_session(u)->state != BOSH_ST_LIVE) {
            over(u, BOSH_COND_NONE);
            return true;
        }
        moved = read_some(u, n);
        u->stirred |= phase_of(u) == BOSH_LINK_OPEN;
        return moved;
    case BOSH_LINK_OPEN:
        moved = read_some(u, n);
        if (phase_of(u) == BOSH_LINK_OPEN) {
            moved |= write_some(u, n);
        }
        return moved;
    case BOSH_LINK_CLOSING:
        u->at = u->nout;
        over(u, BOSH_COND_NONE);
        return true;
    default:
        return false;
    }
}

void stream_look(user_t *u, int kid)
{
    bosh_session_t *s = core_session(u);
    bool has = u->kid == kid;

    if (s == NULL) {
        if (has) {
            stream_drop(u);
        }
        return;
    }
    if ((!has || u->given) && (s->link.flags & BOSH_LINK_TRANSIT)) {
        if (s->link.owner == W.kid[kid].peer) {
            s->link.flags &= (uint8_t)~BOSH_LINK_MAILED;
        }
        return;
    }
    if (s->link.owner != W.kid[kid].peer) {
        if (has) {
            stream_drop(u);
        }
        return;
    }
    if (!has) {
        EXPECT(u->kid == 0 || u->given || !W.kid[u->kid].alive, "a stream has two owners",
               "u%d: %d and %d", u->nr, u->kid, kid);
        stream_drop(u);
    }
    u->kid = kid;
    if (u->given) {
        u->heir = 0;
    }
    u->given = u->stalled = false;
    u->stirred = true;
    tick(u);
}

/* ---- from one child to another ---- */

bool stream_give(user_t *u, int to)
{
    if (u->kid == 0 || u->given || u->heir != 0 || to == u->kid ||
        core_owner(u) != W.kid[u->kid].peer || phase_of(u) < BOSH_LINK_HEADER ||
        phase_of(u) > BOSH_LINK_CLOSING) {
        return false;
    }
    if (u->put > 0) {
        core_consume(u);
    }
    if (u->reading) {
        core_commit(u);
        digest(u);
        if (u->kid == 0 || phase_of(u) == BOSH_LINK_CLOSED) {
            return false;
        }
    }
    note("  stream of u%d is given by child %d to %d", u->nr, u->kid, to);
    core_give(u, to);
    u->given = true;
    u->heir = to;
    u->heir_serial = W.kid[to].serial;
    return true;
}

/* Another process has the socket: it knows what stands in the arena, and nothing else. */
static void goes_on(user_t *u, int kid)
{
    stream_drop(u);
    u->kid = kid;
    u->heir = 0;
    if (core_session(u)->link.raw.len > 0 && phase_of(u) != BOSH_LINK_CLOSING) {
        digest(u);
    }
    if (u->kid != 0) {
        stream_look(u, kid);
    }
}

void stream_adopt(user_t *u, bool takes)
{
    int to = u->heir;

    if (to == 0) {
        return;
    }
    if (!W.kid[to].alive || W.kid[to].serial != u->heir_serial) {
        u->heir = 0;
        return;
    }
    if (!takes && u->kid != 0 && W.kid[u->kid].alive) {
        note("  stream of u%d goes back", u->nr);
        u->heir = 0;
        core_recall(u);
        if (core_session(u) != NULL) {
            stream_look(u, u->kid);
        }
        return;
    }
    u->heir = 0;
    if (core_adopt(u, to)) {
        note("  stream of u%d is taken by child %d", u->nr, to);
        goes_on(u, to);
    }
}

void stream_rescue(user_t *u, int kid)
{
    note("  stream of u%d is rescued by child %d", u->nr, kid);
    if (phase_of(u) == BOSH_LINK_CLOSING) {
        u->at = u->nout;
    }
    core_rescue(u, kid);
    goes_on(u, kid);
}
