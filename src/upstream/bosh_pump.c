/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of one stream, both ways. Called by bosh_stream.c on the loop thread.
 *
 * Invariants: the lock is never held across a system call or the parser; one lock section per step. Bytes
 * are consumed from `down` only after the socket took them, and from `raw` only after the session has them.
 * link.raw begins at stream offset raw_base, the parser has seen everything up to `fed`; without a parser
 * both are 0.
 */
#include "bosh_pump.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bosh_dial.h"

#define FIRST_READ 2048 /* most reads find one small stanza: do not take chunks for more */
#define MAX_RUNS   24

/* ---- writing ---- */

/* Writes what the socket takes now, and notes whether to wait for more room or to give up. */
static size_t write_some(bosh_streams_t *ss, bosh_stream_t *st, const char *p, size_t n)
{
    size_t put = 0;
    apr_status_t rv = st->conn.ops->write(&st->conn, p, n, &put);

    BOSH_STAT_ADD(ss, writes, 1);
    if (rv != APR_SUCCESS && !APR_STATUS_IS_EAGAIN(rv)) {
        st->write_dead = true; /* what the server said before it hung up is still worth reading */
        st->want_write = false;
        return 0;
    }
    BOSH_STAT_ADD(ss, bytes_out, put);
    st->want_write = put < n;
    return put;
}

void bosh_pump_say(bosh_streams_t *ss, bosh_stream_t *st, const char *p, size_t n)
{
    size_t put = 0;
    char *grown;

    if (st->conn.state != BOSH_CONN_UP || st->write_dead) {
        return;
    }
    if (st->pend_n == 0) {
        put = write_some(ss, st, p, n);
    }
    if (put == n || st->write_dead) {
        return;
    }
    grown = realloc(st->pend, st->pend_off + st->pend_n + n - put);
    if (grown == NULL) {
        st->write_dead = true;
        return;
    }
    st->pend = grown;
    memcpy(st->pend + st->pend_off + st->pend_n, p + put, n - put);
    st->pend_n += n - put;
    st->want_write = true;
}

/* True when nothing of our own is left to write and the stream can go on. */
static bool flush_pend(bosh_streams_t *ss, bosh_stream_t *st)
{
    size_t put;

    if (st->write_dead || st->conn.state != BOSH_CONN_UP) {
        return false;
    }
    if (st->pend_n == 0) {
        return true;
    }
    put = write_some(ss, st, st->pend + st->pend_off, st->pend_n);
    st->pend_off += put;
    st->pend_n -= put;
    if (st->pend_n > 0) {
        return false;
    }
    free(st->pend);
    st->pend = NULL;
    st->pend_off = 0;
    return true;
}

typedef enum down_t { DOWN_NOTHING, DOWN_WRITE, DOWN_RESTART, DOWN_CLOSE } down_t;

/* What the head of `down` asks for now; for WRITE its bytes are in ss->buf. Lock held. */
static down_t next_down(bosh_streams_t *ss, bosh_session_t *s, size_t *n)
{
    bosh_queue_t *down = &s->link.down;
    bosh_item_t type;
    size_t len;

    /* B-124, X-018: nothing leaves before the features were seen; a second restart waits for the first. */
    while (s->link.phase == BOSH_LINK_OPEN && bosh_queue_head(ss->arena, down, &type, &len)) {
        if (type == BOSH_ITEM_HEADER) {
            return DOWN_RESTART;
        }
        if (type == BOSH_ITEM_CLOSE) {
            return DOWN_CLOSE;
        }
        *n = bosh_queue_peek(ss->arena, down, ss->buf, sizeof(ss->buf));
        if (*n > 0) {
            return DOWN_WRITE;
        }
        bosh_queue_pop(ss->arena, down); /* an empty item: nothing to write */
    }
    /* There may have been no chunk for the CLOSE item. */
    return s->link.phase == BOSH_LINK_OPEN && s->state == BOSH_ST_TOMB ? DOWN_CLOSE : DOWN_NOTHING;
}

/*
 * a new stream on the same connection. What the server had sent on the old one is read and delivered
 * first. False: not yet, or not any more.
 */
static bool restart_stream(bosh_streams_t *ss, bosh_stream_t *st)
{
    bosh_session_t *s;
    bosh_item_t type;
    size_t len, n;

    st->restart = true;
    if (st->stalled || st->blocked || !bosh_pump_up(ss, st)) {
        return false;
    }
    if (st->gone || st->conn.state != BOSH_CONN_UP || st->phase != BOSH_LINK_OPEN) {
        return false;
    }
    s = bosh_stream_lock(ss, st);
    if (s == NULL) {
        return false;
    }
    if (!bosh_queue_head(ss->arena, &s->link.down, &type, &len) || type != BOSH_ITEM_HEADER) {
        bosh_stream_unlock(ss);
        st->restart = false;
        return true;
    }
    n = bosh_queue_peek(ss->arena, &s->link.down, ss->buf,
                        len < sizeof(ss->buf) ? len : sizeof(ss->buf));
    bosh_queue_pop(ss->arena, &s->link.down);
    bosh_bytes_clear(ss->arena, &s->link.raw);
    bosh_stream_phase(st, s, BOSH_LINK_HEADER, ss->now + bosh_dial_time(st));
    bosh_session_sent(ss->arena, ss->now, s, bosh_stream_limits(ss, st));
    bosh_stream_unlock(ss);
    bosh_pump_rest(ss, st);
    st->restart = false;
    bosh_stream_log(ss, st, BOSH_LOG_DEBUG, "restarting the stream");
    bosh_pump_say(ss, st, ss->buf, n);
    return true;
}

/* 6120 4.4: our end, then wait a moment for theirs. Nothing more is delivered. */
static void close_stream(bosh_streams_t *ss, bosh_stream_t *st)
{
    bosh_session_t *s = bosh_stream_lock(ss, st);

    if (s == NULL) {
        return;
    }
    bosh_queue_clear(ss->arena, &s->link.down);
    bosh_bytes_clear(ss->arena, &s->link.raw);
    bosh_stream_phase(st, s, BOSH_LINK_CLOSING, ss->now + BOSH_CLOSE_TIME);
    bosh_session_sent(ss->arena, ss->now, s, bosh_stream_limits(ss, st));
    bosh_stream_unlock(ss);
    st->stalled = st->blocked = false;
    bosh_pump_say(ss, st, BOSH_STREAM_END, sizeof(BOSH_STREAM_END) - 1);
    st->said_end = true;
    bosh_stream_log(ss, st, BOSH_LOG_DEBUG, "closing the stream");
}

void bosh_pump_down(bosh_streams_t *ss, bosh_stream_t *st)
{
    size_t n = 0, put = 0, round = 0;

    while (flush_pend(ss, st)) {
        bosh_session_t *s = bosh_stream_lock(ss, st);
        down_t next;

        if (s == NULL) {
            return;
        }
        if (put > 0) {
            bosh_queue_consume(ss->arena, &s->link.down, put);
            st->midway = put < n;
            bosh_session_sent(ss->arena, ss->now, s, bosh_stream_limits(ss, st));
        }
        next = put < n ? DOWN_NOTHING : next_down(ss, s, &n);
        bosh_stream_unlock(ss);
        put = 0;
        switch (next) {
        case DOWN_NOTHING:
            return;
        case DOWN_RESTART:
            if (!restart_stream(ss, st)) {
                return;
            }
            n = 0;
            continue;
        case DOWN_CLOSE:
            close_stream(ss, st);
            return;
        case DOWN_WRITE:
            break;
        }
        if (round >= BOSH_IO_ROUND) {
            st->want_write = true; /* the rest in the next turn */
            return;
        }
        put = write_some(ss, st, ss->buf, n);
        round += put;
        if (put == 0) {
            return;
        }
    }
}

/* ---- parsing ---- */

void bosh_pump_rest(bosh_streams_t *ss, bosh_stream_t *st)
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
    bosh_session_t *s = bosh_stream_lock(ss, st);
    char *dst = ss->buf;

    if (s == NULL) {
        return NULL;
    }
    *len = s->link.prime.len;
    if (*len > sizeof(ss->buf)) { /* only the owner changes it, so it is the same afterwards */
        bosh_stream_unlock(ss);
        dst = *heap = malloc(*len);
        if (dst == NULL || (s = bosh_stream_lock(ss, st)) == NULL) {
            return NULL;
        }
    }
    *len = bosh_bytes_peek(ss->arena, &s->link.prime, 0, dst, *len);
    bosh_stream_unlock(ss);
    return *len > 0 ? dst : bosh_split_default_prime(len);
}

static bool take_splitter(bosh_streams_t *ss, bosh_stream_t *st)
{
    bosh_splitter_t *sp;
    apr_status_t rv = APR_ENOMEM;
    const char *prime;
    char *heap = NULL;
    size_t len = 0;

    if (st->sp != NULL) {
        return true;
    }
    sp = ss->nspare > 0 ? ss->spare[--ss->nspare] : bosh_split_create(ss->cfg->max_stanza);
    if (sp == NULL) {
        return false;
    }
    if (st->phase == BOSH_LINK_HEADER) {
        rv = bosh_split_begin(sp, NULL, 0);
    } else if ((prime = load_prime(ss, st, &heap, &len)) != NULL) {
        rv = bosh_split_begin(sp, prime, len);
    }
    free(heap);
    if (rv != APR_SUCCESS) {
        bosh_split_destroy(sp);
        return false;
    }
    st->sp = sp;
    st->raw_base = st->fed = 0;
    st->ev_done = 0;
    return true;
}

/* The type of the last event found, 0: none. */
static unsigned last_event(const bosh_stream_t *st)
{
    size_t n;
    const bosh_split_event_t *ev = bosh_split_events(st->sp, &n);

    return n > 0 ? ev[n - 1].type : 0;
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
        st->fault_error = rv == APR_EGENERAL ? "not-well-formed"
                          : rv == APR_ENOSPC ? "policy-violation"
                                             : "resource-constraint";
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
        bosh_pump_say(ss, st, text, (size_t)n);
    }
    bosh_stream_over(ss, st, BOSH_COND_REMOTE_CONNECTION_FAILED, st->fault);
}

/* What the applied events mean for the stream itself. */
static void conclude(bosh_streams_t *ss, bosh_stream_t *st, unsigned last, bool errored)
{
    if (last == BOSH_SPLIT_ERROR || (last == BOSH_SPLIT_END && errored)) {
        bosh_stream_over(ss, st, BOSH_COND_REMOTE_STREAM_ERROR, "stream error from the server");
    } else if (last == BOSH_SPLIT_END) {
        bosh_stream_over(ss, st, BOSH_COND_NONE, "closed by the server");
    } else if (st->fault != NULL) {
        refuse_input(ss, st);
    } else if (st->phase > BOSH_LINK_HEADER && bosh_split_at_boundary(st->sp)) {
        bosh_pump_rest(ss, st);
    }
}

/* Events that may be applied: all of them up to one that this stream cannot go on with (U-045). */
static size_t acceptable(const bosh_split_event_t *ev, size_t n)
{
    size_t i;

    for (i = 0; i < n; i++) {
        if (ev[i].type == BOSH_SPLIT_FEATURES && ev[i].starttls_required) {
            break;
        }
    }
    return i;
}

/* Hands what the parser found to the session. False: the chunks ran out; later again, from there on. */
static bool apply(bosh_streams_t *ss, bosh_stream_t *st)
{
    size_t n, done = 0;
    const bosh_split_event_t *ev = bosh_split_events(st->sp, &n);
    size_t fit = acceptable(ev, n);
    uint64_t boundary = bosh_split_boundary(st->sp);
    unsigned last = last_event(st);
    bosh_session_t *s;
    apr_status_t rv;
    bool errored, opened;

    if (n == 0 && boundary == st->raw_base && st->fault == NULL) {
        return true; /* in the middle of an element */
    }
    s = bosh_stream_lock(ss, st);
    if (s == NULL) {
        return true;
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
                         "the server requires STARTTLS and this upstream does not use TLS");
    } else {
        conclude(ss, st, last, errored);
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
    while (*nrun < MAX_RUNS && off < s->link.raw.len) {
        run[*nrun].p = bosh_bytes_run(ss->arena, &s->link.raw, off, &run[*nrun].n);
        off += run[*nrun].n;
        (*nrun)++;
    }
    bosh_stream_unlock(ss);
    return true;
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

/* The server's last words after our end are looked through for its own end only. */
static void drain_closing(bosh_streams_t *ss, bosh_stream_t *st)
{
    size_t round = 0, got = 0;

    while (round < BOSH_IO_ROUND && st->conn.state == BOSH_CONN_UP) {
        struct iovec iov = {ss->buf, sizeof(ss->buf)};
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

bool bosh_pump_up(bosh_streams_t *ss, bosh_stream_t *st)
{
    struct iovec iov[MAX_RUNS];
    size_t round = 0, room, got, want = FIRST_READ;

    if (st->phase == BOSH_LINK_CLOSING) {
        drain_closing(ss, st);
        return true;
    }
    if (st->blocked && !apply(ss, st)) {
        return false;
    }
    while (st->conn.state == BOSH_CONN_UP && !st->gone && round < BOSH_IO_ROUND) {
        int n = make_room(ss, st, want, iov, &room);
        apr_status_t rv;

        if (n == 0) {
            return false;
        }
        rv = st->conn.ops->readv(&st->conn, iov, n, &got);
        BOSH_STAT_ADD(ss, reads, 1);
        BOSH_STAT_ADD(ss, bytes_in, got);
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
