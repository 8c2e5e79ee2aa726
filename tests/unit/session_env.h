/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole session against a fake clock: real body parser, splitter and arena, no sockets, no threads.
 *
 * Each section of the lock is run twice: after the first time its process is taken for dead and the arena is
 * repaired, which must bring back what was there before it (SECTION).
 *
 * Requests come from numbered connections; a connection is held or has its answer. Peer 1 owns the stream,
 * peer 2 holds the requests. settle() delivers the mail as loops and workers would, after each step.
 */
#ifndef SESSION_ENV_H
#define SESSION_ENV_H

#include <check.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bosh_join.h"
#include "bosh_script.h"
#include "bosh_session.h"
#include "bosh_window.h"
#include "bosh_undo.h"

#pragma GCC diagnostic ignored "-Wunused-function" /* not every test needs everything here */

#define CONNS 4096
#define SEC   APR_USEC_PER_SEC

typedef struct conn_t {
    bosh_verdict_t v;
    bosh_holder_t holder;
    char *answer; /* NULL: held */
    bool gone;
} conn_t;

typedef struct env_t {
    void *mem;
    bosh_arena_t a;
    bosh_limits_t lim;
    apr_time_t now;
    uint32_t owner, peer;
    bosh_body_t *body;
    bosh_splitter_t *sp;
    uint64_t raw_base;
    char sid[BOSH_SID_LEN + 1];
    bosh_ix index;
    uint32_t serial;
    conn_t conns[CONNS];
    int nconns;
    bool unlisted; /* the test keeps chunks to itself: nothing to validate */
    bool lazy;     /* do not deliver mail by itself */
    char *before;  /* the arena as the section found it */
} env_t;

static env_t *E;

static void env_open_sized(uint32_t sessions, uint32_t chunks)
{
    bosh_arena_sizes_t sizes = {.peers = 4, .sessions = sessions, .slots = 8, .chunks = chunks};
    uint64_t bytes = bosh_arena_size(&sizes);

    E = calloc(1, sizeof(*E));
    ck_assert_int_eq(posix_memalign(&E->mem, 4096, bytes), 0);
    memset(E->mem, 0, bytes);
    ck_assert_int_eq(bosh_arena_format(E->mem, &sizes, &E->a), APR_SUCCESS);
    E->now = 1000 * SEC;
    E->owner = bosh_arena_peer_claim(&E->a, 101, 0, E->now);
    E->peer = bosh_arena_peer_claim(&E->a, 102, 0, E->now);
    E->lim = (bosh_limits_t){.max_wait = 60,
                             .max_hold = 2,
                             .max_requests = 3,
                             .inactivity = 30,
                             .polling = 0, /* many tests poll as fast as they can */
                             .maxpause = 120,
                             .queue_size = 1 << 20,
                             .answer_size = 64 * 1024,
                             .max_repeats = 5};
    E->body = bosh_body_create();
    E->sp = bosh_split_create(1 << 20);
}

static void env_open(void)
{
    env_open_sized(64, 4096);
}

static void env_validate(void)
{
    const char *why = NULL;

    bosh_arena_commit(&E->a);
    if (E->unlisted) {
        return;
    }
    ck_assert_msg(bosh_arena_validate(&E->a, &why) == APR_SUCCESS, "arena: %s", why);
}

static void env_close(void)
{
    env_validate();
    for (int i = 0; i < E->nconns; i++) {
        free(E->conns[i].answer);
    }
    bosh_body_destroy(E->body);
    bosh_split_destroy(E->sp);
    free(E->mem);
    free(E->before);
    free(E);
    E = NULL;
}

/* The session under test; NULL once it has been freed. */
static bosh_session_t *session(void)
{
    return E->index != 0 ? bosh_arena_get(&E->a, E->index, E->serial) : NULL;
}

/* ---- a section that its process does not live to end ---- */

/* Header, tables, records and the chunks ever used, but for the bytes of the others. */
static size_t used_part(void)
{
    return (size_t)(E->a.h->off_chunks + (E->a.h->fresh_chunk - 1) * (uint64_t)BOSH_CHUNK_SIZE);
}

static void *of_session(bosh_arena_t *a, bosh_ix i)
{
    bosh_session_t *s = bosh_arena_session(a, i);

    s->hash_next = s->free_next = 0; /* what repair makes anew is not compared */
    s->link.flags &= (uint8_t)~BOSH_LINK_MAILED;
    for (uint32_t k = 0; k < a->h->sizes.slots; k++) {
        s->slots[k].flags &= (uint16_t)~BOSH_SLOT_MAILED;
    }
    return (char *)s + BOSH_UNDO_FROM;
}

static bosh_arena_t *compare_with;

/* The string at the same place of the same record in the other arena has the same bytes. */
static const char *compare_string(bosh_arena_t *a, const bosh_bytes_t *b)
{
    const bosh_bytes_t *other =
        (const void *)(compare_with->base + ((const char *)(const void *)b - a->base));
    static char x[4 << 20], y[4 << 20];

    ck_assert_uint_eq(bosh_bytes_peek(a, b, 0, x, sizeof(x)),
                      bosh_bytes_peek(compare_with, other, 0, y, sizeof(y)));
    ck_assert_int_eq(memcmp(x, y, b->len), 0);
    return NULL;
}

static void section_begins(void)
{
    void *before;

    bosh_arena_commit(&E->a);
    free(E->before);
    ck_assert_int_eq(posix_memalign(&before, 64, used_part()), 0); /* the header's alignment */
    E->before = before;
    memcpy(E->before, E->mem, used_part());
}

/* Checks that the section can be undone, and puts all back for its second time. */
static void section_dies(void)
{
    bool spoiled = E->a.undo->spoiled != 0 && E->a.h->busy != 0;
    static bosh_arena_t was;
    const char *why = NULL;
    uint32_t lost = bosh_arena_repair(&E->a);

    ck_assert_msg(bosh_arena_validate(&E->a, &why) == APR_SUCCESS, "undone: %s", why);
    ck_assert_uint_eq(lost, spoiled);
    was = E->a;
    was.base = E->before;
    was.h = (bosh_header_t *)(void *)E->before;
    was.sessions = was.base + was.h->off_sessions;
    was.chunks = (bosh_chunk_t *)(void *)(was.base + was.h->off_chunks);
    compare_with = &was;
    for (bosh_ix i = 1; !spoiled && i < was.h->fresh_session; i++) {
        bosh_session_t kept = *bosh_arena_session(&was, i);
        uint16_t flags[BOSH_SLOTS_MAX];
        for (uint32_t k = 0; k < was.h->sizes.slots; k++) {
            flags[k] = bosh_arena_session(&was, i)->slots[k].flags;
        }
        ck_assert_uint_eq(kept.state, bosh_arena_session(&E->a, i)->state);
        if (kept.state != BOSH_ST_FREE) {
            ck_assert_int_eq(memcmp(of_session(&E->a, i), of_session(&was, i),
                                    was.h->session_size - BOSH_UNDO_FROM),
                             0);
            bosh_arena_each_string(&E->a, bosh_arena_session(&E->a, i), compare_string);
        }
        *bosh_arena_session(&was, i) = kept;
        for (uint32_t k = 0; k < was.h->sizes.slots; k++) {
            bosh_arena_session(&was, i)->slots[k].flags = flags[k];
        }
    }
    memcpy(E->mem, E->before,
           (size_t)(was.h->off_chunks + (was.h->fresh_chunk - 1) * (uint64_t)BOSH_CHUNK_SIZE));
    E->a.nwake = 0;
    E->a.wake_all = false;
}

/* v: the verdict that the call writes, or NULL. */
#define SECTION(v, call)                                                                           \
    do {                                                                                           \
        bosh_verdict_t section_none = {0}, *section_v = (v) != NULL ? (v) : &section_none;         \
        bosh_verdict_t section_was = *section_v;                                                   \
        uint64_t section_base = E->raw_base;                                                       \
        section_begins();                                                                          \
        call;                                                                                      \
        section_dies();                                                                            \
        *section_v = section_was;                                                                  \
        E->raw_base = section_base;                                                                \
        call;                                                                                      \
        bosh_arena_commit(&E->a);                                                                  \
    } while (0)

#define NO_VERDICT ((bosh_verdict_t *)NULL)

static void finish(conn_t *c)
{
    size_t have = 0, n;

    switch (c->v.act) {
    case BOSH_DO_HOLD:
        return;
    case BOSH_DO_SEND:
        c->answer = calloc(1, c->v.len + 1);
        while ((n = bosh_session_read(&E->a, c->v.session, c->v.serial, c->v.rid, have,
                                      c->answer + have, c->v.len - have)) > 0) {
            have += n;
        }
        ck_assert_uint_eq(have, c->v.len);
        break;
    case BOSH_DO_TELL: {
        bosh_ans_t ans = {.flags = c->v.error ? BOSH_ANS_ERROR : BOSH_ANS_TERMINATE,
                          .cond = c->v.cond};
        c->answer = calloc(1, BOSH_BODY_OPEN_MAX + 1);
        bosh_body_print_open(c->answer, &ans, true);
        break;
    }
    case BOSH_DO_BUSY:
        c->answer = strdup("503");
        break;
    case BOSH_DO_CLOSE:
        c->answer = strdup("closed");
        break;
    }
}

/* Reads what is to be joined, as a worker does; text: room for it. Its stanzas come in `req`. */
static apr_status_t read_joined(const bosh_join_t *j, char *text, bosh_req_t *req, size_t *used)
{
    size_t len = j->head + j->begun + j->text;

    for (size_t off = 0; off < len; off += 5) { /* in pieces that fit none of its parts */
        size_t n = len - off < 5 ? len - off : 5;
        ck_assert_uint_eq(bosh_join_read(&E->a, j, off, text + off, n), n);
    }
    ck_assert_uint_eq(bosh_join_read(&E->a, j, len, text + len, 1), 0);
    return bosh_body_parse_open(E->body, text, len, req, used, NULL);
}

/* The worker of a request that is told to join. */
static void join_all(conn_t *c)
{
    static char text[1 << 20];
    bosh_join_t j;
    bosh_req_t req;
    apr_status_t rv = APR_SUCCESS;
    size_t used;

    while (rv == APR_SUCCESS && c->v.join && bosh_join_next(&E->a, &c->v, &j)) {
        if (read_joined(&j, text, &req, &used) == APR_SUCCESS) {
            SECTION(NO_VERDICT, rv = bosh_join_done(&E->a, E->now, &E->lim, &j, &req, text, used));
        } else {
            SECTION(NO_VERDICT, bosh_join_fail(&E->a, E->now, &j, BOSH_COND_BAD_REQUEST));
        }
    }
    if (rv != APR_SUCCESS) {
        c->v.deadline = E->now + apr_time_from_msec(200);
    } else if (c->v.join && c->v.act == BOSH_DO_HOLD) {
        SECTION(&c->v, bosh_session_poll(&E->a, E->now, &E->lim, false, c->holder, &c->v));
    }
}

static void poll_conn(int i, bool must)
{
    conn_t *c = &E->conns[i];

    if (c->answer == NULL && !c->gone) {
        SECTION(&c->v, bosh_session_poll(&E->a, E->now, &E->lim, must, c->holder, &c->v));
        join_all(c);
        finish(c);
    }
}

static void deliver(const bosh_mail_t *m)
{
    bosh_session_t *s;

    if (m->what & BOSH_MAIL_WAITER) {
        poll_conn((int)(m->what & ~BOSH_MAIL_WAITER), false);
    } else if ((s = bosh_arena_get(&E->a, m->what, m->tag)) != NULL) {
        s->link.flags &= (uint8_t)~BOSH_LINK_MAILED;
        SECTION(NO_VERDICT, bosh_session_tick(&E->a, E->now, s, &E->lim));
    }
}

/* Delivers all mail until there is none; the owner's part is a tick. */
static void settle(void)
{
    bosh_mail_t m;
    bool overflow, more = true;

    while (more && !E->lazy) {
        more = false;
        while (bosh_arena_mail_take(&E->a, E->peer, &m, 1, &overflow) == 1 ||
               bosh_arena_mail_take(&E->a, E->owner, &m, 1, &overflow) == 1) {
            deliver(&m);
            more = true;
        }
    }
    env_validate();
}

/* Time passes: waiting requests and the owner's timer come due, in order of time. */
static void pass(apr_time_t us)
{
    apr_time_t end = E->now + us;

    for (;;) {
        apr_time_t next = end;
        bosh_session_t *s = session();
        int who = -1;
        bool timer = false;

        for (int i = 0; i < E->nconns; i++) {
            conn_t *c = &E->conns[i];
            if (c->answer == NULL && !c->gone && c->v.deadline <= next) {
                next = c->v.deadline;
                who = i;
            }
        }
        for (bosh_session_t *st = s != NULL && s->root != 0 ? bosh_arena_session(&E->a, s->root)
                                                            : s;
             st != NULL; st = st->branch != 0 ? bosh_arena_session(&E->a, st->branch) : NULL) {
            if (st->armed <= next) {
                next = st->armed;
                timer = true;
                s = st;
            }
        }
        if (who < 0 && !timer) {
            break;
        }
        E->now = next > E->now ? next : E->now;
        if (timer) {
            SECTION(NO_VERDICT, bosh_session_tick(&E->a, E->now, s, &E->lim));
        } else {
            poll_conn(who, false);
        }
        settle();
        if (E->now >= end) {
            break;
        }
    }
    E->now = end;
    settle();
}

/* A parsed request on a new connection, which it returns. */
static int arrive(const bosh_client_t *who, const bosh_req_t *req)
{
    int i = E->nconns++;
    conn_t *c = &E->conns[i];

    ck_assert_int_lt(i, CONNS);
    c->holder = (bosh_holder_t){.peer = E->peer, .waiter = (uint32_t)i, .gen = 7};
    if (req->has & BOSH_HAS_SID) {
        SECTION(&c->v, bosh_session_request(&E->a, E->now, req, &E->lim, who, c->holder, &c->v));
    } else {
        uint8_t sid[BOSH_SID_BYTES];
        for (size_t k = 0; k < sizeof(sid); k++) {
            sid[k] = (uint8_t)rand();
        }
        SECTION(&c->v, bosh_session_create(&E->a, E->now, req, &E->lim, sid, req->to, who, E->owner,
                                           0, c->holder, &c->v));
        E->index = c->v.session;
        E->serial = c->v.serial;
        E->raw_base = 0;
        if (E->index != 0) {
            bosh_arena_sid_text(session(), E->sid);
        }
    }
    join_all(c);
    finish(c);
    settle();
    return i;
}

/* A POST on a new connection; attrs go into the body's start tag. Returns the connection. */
static int post_as(const bosh_client_t *who, const char *attrs, const char *payload)
{
    static char text[4 << 20];
    bosh_req_t req;
    const char *why = NULL;
    int n;

    n = snprintf(text, sizeof(text),
                 "<body xmlns='" BOSH_NS_HTTPBIND "' xmlns:xmpp='" BOSH_NS_XBOSH "' %s>%s</body>",
                 attrs, payload);
    ck_assert_int_lt(n, (int)sizeof(text));
    ck_assert_msg(bosh_body_parse(E->body, text, (size_t)n, &req, &why) == APR_SUCCESS, "%s: %s",
                  text, why);
    return arrive(who, &req);
}

static int post_tls(bool tls, const char *attrs, const char *payload)
{
    bosh_client_t who = {.ip = "192.0.2.1", .tls = tls};

    return post_as(&who, attrs, payload);
}

static int post(const char *attrs, const char *payload)
{
    return post_tls(false, attrs, payload);
}

/* A request of the session under test. */
static int req(uint64_t rid, const char *attrs, const char *payload)
{
    char buf[1024];

    snprintf(buf, sizeof(buf), "sid='%s' rid='%llu' %s", E->sid, (unsigned long long)rid, attrs);
    return post(buf, payload);
}

static const char *answer(int i)
{
    return E->conns[i].answer;
}

static bool held(int i)
{
    return E->conns[i].answer == NULL && !E->conns[i].gone;
}

/* The connection breaks and its holder notices. */
static void hang_up(int i)
{
    conn_t *c = &E->conns[i];

    c->gone = true;
    SECTION(NO_VERDICT,
            bosh_session_gone(&E->a, E->now, c->v.session, c->v.serial, c->v.rid, c->holder));
    settle();
}

/* Bytes from the XMPP server. */
static void server(const char *text)
{
    bosh_session_t *s = session();
    const char *why = NULL;
    const bosh_split_event_t *ev;
    size_t n, done;

    ck_assert_ptr_nonnull(s);
    ck_assert_int_eq(bosh_bytes_append(&E->a, &s->link.raw, text, strlen(text), BOSH_PRIO_INPUT),
                     APR_SUCCESS);
    ck_assert_msg(bosh_split_feed(E->sp, text, strlen(text), &why) == APR_SUCCESS, "%s: %s", text,
                  why);
    ev = bosh_split_events(E->sp, &n);
    SECTION(NO_VERDICT,
            ck_assert_int_eq(bosh_session_up(&E->a, E->now, s, ev, n, bosh_split_header(E->sp),
                                             bosh_split_boundary(E->sp), &E->raw_base, &done),
                             APR_SUCCESS));
    bosh_split_clear(E->sp);
    settle();
}

static void server_header(const char *attrs)
{
    char buf[1024];

    bosh_split_begin(E->sp, NULL, 0);
    E->raw_base = 0;
    session()->link.phase = BOSH_LINK_HEADER;
    snprintf(
        buf, sizeof(buf),
        "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' %s>",
        attrs);
    server(buf);
}

/* What the loop would write: all of `down`, HEADER as [H]..., CLOSE as [C]. Consumes it. */
static const char *sent(void)
{
    static char out[8 << 20];
    bosh_session_t *s = session();
    bosh_item_t type;
    size_t len, n = 0;

    out[0] = '\0';
    while (s != NULL && bosh_queue_head(&E->a, &s->link.down, &type, &len)) {
        if (type == BOSH_ITEM_CLOSE) {
            bosh_queue_pop(&E->a, &s->link.down);
            n += (size_t)sprintf(out + n, "[C]");
        } else {
            if (type == BOSH_ITEM_HEADER) {
                n += (size_t)sprintf(out + n, "[H]");
            }
            ck_assert_uint_eq(bosh_queue_peek(&E->a, &s->link.down, out + n, len), len);
            bosh_queue_consume(&E->a, &s->link.down, len);
            n += len;
            out[n] = '\0';
        }
        SECTION(NO_VERDICT, bosh_session_sent(&E->a, E->now, s, &E->lim));
    }
    settle();
    return out;
}

static void link_over(bosh_cond_t cond)
{
    SECTION(NO_VERDICT, bosh_session_link_over(&E->a, E->now, session(), cond));
    if (session() != NULL) {
        SECTION(NO_VERDICT, bosh_session_tick(&E->a, E->now, session(), &E->lim));
    }
    settle();
}

/* A session after creation and features; C = 1000. */
static int open_session(const char *attrs)
{
    char buf[512];
    int c;

    snprintf(buf, sizeof(buf),
             "rid='1000' to='example.com' wait='10' hold='1' ver='1.6' xml:lang='en' "
             "xmpp:version='1.0' %s",
             attrs);
    c = post(buf, "");
    if (session() != NULL) {
        server_header("id='st1' from='example.com' version='1.0' xml:lang='en'");
        server("<stream:features><mechanisms "
               "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/></stream:features>");
    }
    return c;
}

#define NSB "<body xmlns='http://jabber.org/protocol/httpbind'"

/* The checklist's shorthand: E, T, TB(x), RB. */
static bool is_empty(int i)
{
    const char *s = answer(i);
    return s != NULL && strstr(s, "type=") == NULL && strstr(s, "</body>") == NULL;
}

static bool is_terminate(int i, const char *cond)
{
    const char *s = answer(i);
    char want[64];

    if (s == NULL || strstr(s, "type='terminate'") == NULL) {
        return false;
    }
    snprintf(want, sizeof(want), "condition='%s'", cond);
    return cond[0] != '\0' ? strstr(s, want) != NULL : strstr(s, "condition=") == NULL;
}

static bool is_error(int i)
{
    return answer(i) != NULL && strstr(answer(i), "type='error'") != NULL;
}

static bool contains(int i, const char *text)
{
    return answer(i) != NULL && strstr(answer(i), text) != NULL;
}

#endif
