/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the server: readv into link.raw -> splitter -> link.up. Called by bosh_stream.c on the loop thread.
 *
 * Invariants: the lock is never held across a system call or the parser. link.raw begins at stream offset
 * raw_base, the parser has seen everything up to `fed`; without a parser both are 0. Bytes leave `raw` only
 * after the session has them, so another process could go on from what is in the arena.
 */
#include "bosh_up.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bosh_down.h"
#include "bosh_elsewhere.h"
#include "bosh_news.h"
#include "bosh_point.h"
#include "bosh_tls.h"

#define FIRST_READ                                                                                 \
    (3 * BOSH_CHUNK_DATA) /* most reads find one small stanza: do not take chunks for more */
#define MAX_RUNS (BOSH_IO_SIZE / BOSH_CHUNK_DATA + 2)

/* ---- parsing ---- */

void bosh_up_rest(bosh_streams_t *ss, bosh_stream_t *st)
{
    if (st->sp != NULL) {
        bosh_split_clear(st->sp);
        if (ss->nspare < BOSH_SPARE_SPLITTERS) {
            ss->spare[ss->nspare++] = st->sp;
        } else {
            bosh_split_destroy(st->sp);
        }
    }
    st->sp = NULL;
    st->raw_base = st->fed = 0;
    st->ev_done = 0;
    st->blocked = false;
    st->fault = st->fault_error = NULL;
}

/* The saved header of this stream, for a parser that joins it between two elements. Points into ss->buf or
 * into *heap, which the caller frees; NULL: out of memory, or the stream is gone. */
static const char *load_prime(bosh_streams_t *ss, bosh_stream_t *st, char **heap, size_t *len)
{
    bosh_session_t *s = bosh_stream_peek(ss, st);
    char *dst = ss->buf;

    if (s == NULL) {
        return NULL;
    }
    *len = s->link.prime.len;
    if (*len > sizeof(ss->buf)) { /* only the owner changes it, so it is the same afterwards */
        bosh_stream_unlock(ss);
        dst = *heap = malloc(*len);
        if (dst == NULL || (s = bosh_stream_peek(ss, st)) == NULL) {
            return NULL;
        }
    }
    *len = bosh_bytes_peek(ss->arena, &s->link.prime, 0, dst, *len);
    bosh_stream_unlock(ss);
    return *len > 0 ? dst : bosh_split_default_prime(len);
}

/* A parser of the pool, or a new one; begun with this prime. False: no memory. */
static bool begin_splitter(bosh_streams_t *ss, bosh_stream_t *st, const char *prime, size_t len)
{
    bosh_splitter_t *sp =
        ss->nspare > 0 ? ss->spare[--ss->nspare] : bosh_split_create(ss->cfg->max_stanza);

    if (sp == NULL) {
        return false;
    }
    if (bosh_split_begin(sp, prime, len) != APR_SUCCESS) {
        bosh_split_destroy(sp);
        return false;
    }
    st->sp = sp;
    st->raw_base = st->fed = 0;
    st->ev_done = 0;
    return true;
}

bool bosh_up_expect_header(bosh_streams_t *ss, bosh_stream_t *st)
{
    return st->sp != NULL || begin_splitter(ss, st, NULL, 0);
}

static bool take_splitter(bosh_streams_t *ss, bosh_stream_t *st)
{
    const char *prime;
    char *heap = NULL;
    size_t len = 0;
    bool ok;

    if (st->sp != NULL || st->phase == BOSH_LINK_HEADER) {
        return bosh_up_expect_header(ss, st);
    }
    prime = load_prime(ss, st, &heap, &len);
    ok = prime != NULL && begin_splitter(ss, st, prime, len);
    free(heap);
    return ok;
}

/* The type of the last event found, 0: none. */
static unsigned last_event(const bosh_stream_t *st)
{
    size_t n;
    const bosh_split_event_t *ev = bosh_split_events(st->sp, &n);

    return n > 0 ? ev[n - 1].type : 0;
}

/* The stream error for what the parser refused (6120 4.9.3). bosh_xml marks what only XMPP forbids. */
static const char *error_name(apr_status_t rv, const char *why)
{
    static const char restricted[] = "restricted XML";

    if (rv == APR_ENOSPC) {
        return "policy-violation";
    }
    if (rv != APR_EGENERAL) {
        return "resource-constraint";
    }
    return strncmp(why, restricted, sizeof(restricted) - 1) == 0 ? "restricted-xml"
                                                                 : "not-well-formed";
}

/* False: nothing can be fed any more. */
static bool feed(bosh_stream_t *st, const char *p, size_t n)
{
    const char *why = NULL;
    apr_status_t rv = bosh_split_feed(st->sp, p, n, &why);
    unsigned last;

    st->fed += n;
    if (rv != APR_SUCCESS) {
        st->fault = why != NULL ? why : "the parser gave up";
        st->fault_error = error_name(rv, st->fault);
        return false;
    }
    last = last_event(st);
    return last != BOSH_SPLIT_END && last != BOSH_SPLIT_ERROR;
}

/* the server broke the rules of XML or our limits. */
static void refuse_input(bosh_streams_t *ss, bosh_stream_t *st)
{
    char text[200];
    int n =
        snprintf(text, sizeof(text),
                 "<stream:error><%s xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
                 st->fault_error);

    if (!st->midway && !st->said_end) {
        bosh_down_say(ss, st, text, (size_t)n);
    }
    bosh_stream_over(ss, st, BOSH_COND_REMOTE_CONNECTION_FAILED, st->fault);
}

/* What the applied events mean for the stream itself. */
static void conclude(bosh_streams_t *ss, bosh_stream_t *st, unsigned last, bool errored,
                     const char *said)
{
    if (last == BOSH_SPLIT_ERROR || (last == BOSH_SPLIT_END && errored)) {
        bosh_stream_over(ss, st, BOSH_COND_REMOTE_STREAM_ERROR, said);
    } else if (last == BOSH_SPLIT_END) {
        if (st->phase < BOSH_LINK_OPEN) {
            bosh_stream_complain(ss, st, BOSH_COND_NONE,
                                 "the server ended the stream at its beginning");
        }
        bosh_stream_over(ss, st, BOSH_COND_NONE, "closed by the server");
    } else if (st->fault != NULL) {
        refuse_input(ss, st);
    } else if (st->phase > BOSH_LINK_HEADER && bosh_split_at_boundary(st->sp)) {
        bosh_up_rest(ss, st);
    }
}

/* Events that may be applied: all of them up to one that this stream cannot go on with (U-045). With TLS an
 * offer of more is passed over (U-024). */
static size_t acceptable(const bosh_stream_t *st, const bosh_split_event_t *ev, size_t n)
{
    size_t i;

    for (i = 0; i < n && !bosh_tls_is_on(&st->conn); i++) {
        if (ev[i].type == BOSH_SPLIT_FEATURES && ev[i].starttls_required) {
            return i;
        }
    }
    return n;
}

/* the server sends us to another host, and we go. */
static bool leave(bosh_streams_t *ss, bosh_stream_t *st, const bosh_split_event_t *ev)
{
    char text[BOSH_MAX_DOMAIN + 32];
    bosh_session_t *s;
    size_t n;

    if (ev->type != BOSH_SPLIT_ERROR || ev->other_n == 0 || ev->other_n > sizeof(text) ||
        st->phase >= BOSH_LINK_OPEN || (s = bosh_stream_lock(ss, st)) == NULL) {
        return false;
    }
    n = bosh_bytes_peek(ss->arena, &s->link.raw, (size_t)(ev->other_at - st->raw_base), text,
                        ev->other_n);
    bosh_stream_unlock(ss);
    return bosh_elsewhere_go(ss, st, text, n);
}

/* For the log: adds the error's condition to `said`. Lock held. */
static void name_error(bosh_streams_t *ss, const bosh_stream_t *st, bosh_session_t *s,
                       const bosh_split_event_t *ev, char *said, size_t size)
{
    char xml[300];
    size_t n = (size_t)(ev->end - ev->start);
    bosh_slice_t name;

    n = bosh_bytes_peek(ss->arena, &s->link.raw, (size_t)(ev->start - st->raw_base), xml,
                        n < sizeof(xml) ? n : sizeof(xml));
    name = bosh_news_condition(xml, n);
    if (name.n > 0) {
        snprintf(said + strlen(said), size - strlen(said), ": %.*s", name.n < 60 ? (int)name.n : 60,
                 name.p);
    }
}

/* Hands what the parser found to the session. False: the chunks ran out; later again, from there on. Or this
 * connection is no more. */
static bool apply(bosh_streams_t *ss, bosh_stream_t *st)
{
    size_t n, done = 0;
    const bosh_split_event_t *ev = bosh_split_events(st->sp, &n);
    size_t fit = acceptable(st, ev, n);
    uint64_t boundary = bosh_split_boundary(st->sp);
    unsigned last = last_event(st);
    bosh_session_t *s;
    apr_status_t rv;
    bool errored, opened;
    char said[100] = "stream error from the server";

    if (n == 0 && boundary == st->raw_base && st->fault == NULL) {
        return true; /* in the middle of an element */
    }
    if (n > 0 && leave(ss, st, &ev[n - 1])) {
        return false;
    }
    s = bosh_stream_lock(ss, st);
    if (s == NULL) {
        return true;
    }
    if (last == BOSH_SPLIT_ERROR) {
        name_error(ss, st, s, &ev[n - 1], said, sizeof(said));
    }
    rv = bosh_session_up(ss->arena, ss->now, s, ev + st->ev_done, fit - st->ev_done,
                         bosh_split_header(st->sp), boundary, &st->raw_base, &done);
    opened = st->phase != BOSH_LINK_OPEN && s->link.phase == BOSH_LINK_OPEN;
    bosh_stream_phase(st, s, (bosh_phase_t)s->link.phase, opened ? BOSH_NEVER : st->link_at);
    errored = (s->link.flags & BOSH_LINK_ERROR) != 0;
    if (rv != APR_SUCCESS) {
        s->link.flags |= BOSH_LINK_STALLED; /* a drain of `up` tells us */
    }
    bosh_stream_unlock(ss);
    st->ev_done += done;
    st->blocked = rv != APR_SUCCESS;
    if (st->blocked) {
        return false;
    }
    bosh_split_clear(st->sp);
    st->ev_done = 0;
    if (opened) {
        bosh_stream_log(ss, st, BOSH_LOG_DEBUG, "stream open");
    }
    if (fit < n) {
        bosh_stream_over(ss, st, BOSH_COND_REMOTE_CONNECTION_FAILED,
                         "the server requires STARTTLS and this upstream does not use TLS; "
                         "write tls=starttls");
    } else {
        conclude(ss, st, last, errored, said);
    }
    return true;
}

/* ---- reading ---- */

/* Room in the arena to read into; 0: not now (stalled), or not ours. */
static int make_room(bosh_streams_t *ss, bosh_stream_t *st, size_t want, struct iovec *iov,
                     size_t *room)
{
    bosh_slice_t free_tail[MAX_RUNS];
    bosh_session_t *s = bosh_stream_lock(ss, st);
    int i, n = 0;

    *room = 0;
    if (s == NULL) {
        return 0;
    }
    if (bosh_session_may_read(ss->arena, s, bosh_stream_limits(ss, st))) {
        n = bosh_bytes_reserve(ss->arena, &s->link.raw, want, free_tail, MAX_RUNS, BOSH_PRIO_INPUT);
        if (n == 0) { /* no chunks: the sweep tries again, or a client that reads */
            s->link.flags |= BOSH_LINK_STALLED;
        }
    }
    bosh_stream_unlock(ss);
    st->stalled = n == 0;
    for (i = 0; i < n; i++) {
        iov[i].iov_base = (void *)(uintptr_t)free_tail[i].p;
        iov[i].iov_len = free_tail[i].n;
        *room += free_tail[i].n;
    }
    return n;
}

static bool is_space(const bosh_slice_t *run, int n)
{
    int i;

    for (i = 0; i < n; i++) {
        size_t k;
        for (k = 0; k < run[i].n; k++) {
            char c = run[i].p[k];
            if (c != ' ' && c != '\n' && c != '\r' && c != '\t') {
                return false;
            }
        }
    }
    return true;
}

/* Publishes what was read and lists the bytes the parser has not seen; false: the session is gone. */
static bool commit(bosh_streams_t *ss, bosh_stream_t *st, size_t got, bosh_slice_t *run, int *nrun)
{
    bosh_session_t *s = bosh_stream_lock(ss, st);
    size_t off = (size_t)(st->fed - st->raw_base);

    *nrun = 0;
    if (s == NULL) {
        return false;
    }
    bosh_bytes_commit(ss->arena, &s->link.raw, got);
    BOSH_POINT("read-committed");
    s->link.in += got;
    while (*nrun < MAX_RUNS && off < s->link.raw.len) {
        run[*nrun].p = bosh_bytes_run(ss->arena, &s->link.raw, off, &run[*nrun].n);
        off += run[*nrun].n;
        (*nrun)++;
    }
    bosh_stream_unlock(ss);
    return true;
}

/* Shortens the list to `most` bytes. */
static int trim(struct iovec *iov, int n, size_t most, size_t *room)
{
    int i;

    *room = 0;
    for (i = 0; i < n && *room < most; i++) {
        if (iov[i].iov_len > most - *room) {
            iov[i].iov_len = most - *room;
        }
        *room += iov[i].iov_len;
    }
    return i;
}

/* a keep-alive between stanzas is not worth a parser. */
static void swallow(bosh_streams_t *ss, bosh_stream_t *st, size_t n)
{
    bosh_session_t *s = bosh_stream_lock(ss, st);

    if (s != NULL) {
        bosh_bytes_consume(ss->arena, &s->link.raw, n);
        bosh_stream_unlock(ss);
    }
}

/* Parses and applies what was read; false: reading has to stop. */
static bool digest(bosh_streams_t *ss, bosh_stream_t *st, size_t got)
{
    bosh_slice_t run[MAX_RUNS];
    int i, n;

    if (!commit(ss, st, got, run, &n)) {
        return false;
    }
    if (n == 0) {
        return true;
    }
    if (st->sp == NULL && st->phase != BOSH_LINK_HEADER && is_space(run, n)) {
        swallow(ss, st, got);
        return true;
    }
    if (!take_splitter(ss, st)) {
        if (!st->gone) {
            bosh_stream_over(ss, st, BOSH_COND_INTERNAL_SERVER_ERROR, "no memory for a parser");
        }
        return false;
    }
    for (i = 0; i < n; i++) {
        if (!feed(st, run[i].p, run[i].n)) {
            break;
        }
    }
    return apply(ss, st) && !st->gone && st->conn.state == BOSH_CONN_UP;
}

/* How much of this turn's share is left; beyond it only what poll would not tell about in the next one. */
static size_t may_read(const bosh_stream_t *st, size_t round)
{
    return round < BOSH_IO_ROUND ? SIZE_MAX : st->conn.ops->pending(&st->conn);
}

/* The server's last words after our end are looked through for its own end only. */
static void drain_closing(bosh_streams_t *ss, bosh_stream_t *st)
{
    size_t round = 0, got = 0, left;

    while ((left = may_read(st, round)) > 0 && st->conn.state == BOSH_CONN_UP) {
        struct iovec iov = {ss->buf, left < sizeof(ss->buf) ? left : sizeof(ss->buf)};
        apr_status_t rv;

        /* Before reading: a new parser is primed by way of ss->buf. */
        if (!take_splitter(ss, st)) {
            bosh_stream_over(ss, st, BOSH_COND_NONE, "no memory for a parser");
            return;
        }
        rv = st->conn.ops->readv(&st->conn, &iov, 1, &got);
        if (APR_STATUS_IS_EAGAIN(rv)) {
            return;
        }
        if (rv != APR_SUCCESS || !feed(st, ss->buf, got)) {
            bosh_stream_over(ss, st, BOSH_COND_NONE, "closed");
            return;
        }
        bosh_split_clear(st->sp);
        round += got;
    }
}

static void read_failed(bosh_streams_t *ss, bosh_stream_t *st, apr_status_t rv)
{
    char text[120];

    if (APR_STATUS_IS_EOF(rv)) {
        snprintf(text, sizeof(text), "the server closed the connection without ending the stream");
    } else {
        apr_strerror(rv, text, sizeof(text));
    }
    bosh_stream_over(ss, st, BOSH_COND_REMOTE_CONNECTION_FAILED, text);
}

bool bosh_up_pump(bosh_streams_t *ss, bosh_stream_t *st)
{
    struct iovec iov[MAX_RUNS];
    size_t round = 0, room, got, want = FIRST_READ, left;

    if (st->phase == BOSH_LINK_CLOSING) {
        drain_closing(ss, st);
        return true;
    }
    if (st->blocked && !apply(ss, st)) {
        return false;
    }
    while (st->conn.state == BOSH_CONN_UP && !st->gone && (left = may_read(st, round)) > 0) {
        int n = make_room(ss, st, want, iov, &room);
        apr_status_t rv;

        if (n == 0) {
            return false;
        }
        n = trim(iov, n, left, &room);
        rv = st->conn.ops->readv(&st->conn, iov, n, &got);
        BOSH_STAT_ADD(ss, reads, 1);
        BOSH_STAT_ADD(ss, bytes_in, got);
        BOSH_POINT("read");
        if (!digest(ss, st, got)) {
            return false;
        }
        if (APR_STATUS_IS_EAGAIN(rv)) {
            return true;
        }
        if (rv != APR_SUCCESS) {
            read_failed(ss, st, rv);
            return true;
        }
        if (got < room && st->conn.ops->pending(&st->conn) == 0) {
            return true; /* that was all; poll tells about more */
        }
        round += got;
        want = BOSH_IO_SIZE;
    }
    return false;
}

void bosh_up_resume(bosh_streams_t *ss, bosh_stream_t *st)
{
    bool more = take_splitter(ss, st);

    if (!more) {
        if (!st->gone) {
            bosh_stream_over(ss, st, BOSH_COND_INTERNAL_SERVER_ERROR, "no memory for a parser");
        }
        return;
    }
    while (more) {
        bosh_session_t *s = bosh_stream_peek(ss, st);
        const char *p;
        size_t n;

        if (s == NULL) {
            return;
        }
        p = bosh_bytes_run(ss->arena, &s->link.raw, (size_t)st->fed, &n);
        bosh_stream_unlock(ss);
        more = p != NULL && feed(st, p, n);
    }
    (void)apply(ss, st);
}
