/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Towards the server: link.down -> peek a copy -> write -> consume. Called by bosh_stream.c on the loop
 * thread.
 *
 * Invariants: the lock is never held across a system call; bytes are consumed from `down` only after the
 * socket took them. Text of our own (st->pend) goes before anything of the queue, and never into the middle
 * of a stanza.
 */
#include "bosh_down.h"

#include <stdlib.h>
#include <string.h>

#include "bosh_back.h"
#include "bosh_bounce.h"
#include "bosh_dial.h"
#include "bosh_multi.h"
#include "bosh_point.h"
#include "bosh_undo.h"
#include "bosh_up.h"

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

void bosh_down_say(bosh_streams_t *ss, bosh_stream_t *st, const char *p, size_t n)
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
    apr_status_t rv;
    size_t put;

    if (st->write_dead || st->conn.state != BOSH_CONN_UP) {
        return false;
    }
    rv = st->conn.ops->flush(&st->conn);
    if (rv != APR_SUCCESS) {
        st->write_dead = !APR_STATUS_IS_EAGAIN(rv);
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

typedef enum down_t { DOWN_NOTHING, DOWN_WRITE, DOWN_RESTART, DOWN_BACK, DOWN_CLOSE } down_t;

/* What the head of `down` asks for now; for WRITE its bytes are in ss->buf. Lock held. */
static down_t next_down(bosh_streams_t *ss, bosh_session_t *s, size_t *n)
{
    bosh_queue_t *down = &s->link.down;
    bosh_item_t type;
    size_t len;

    /* B-124, R-18: nothing leaves before the features were seen; a second restart waits for the first. */
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
        bosh_arena_touch(ss->arena, s);
        bosh_queue_pop(ss->arena, down); /* an empty item: nothing to write */
    }
    if (s->link.phase == BOSH_LINK_OPEN && (s->flags & BOSH_SESS_BACK)) {
        return DOWN_BACK;
    }
    /* There may have been no chunk for the CLOSE item, or it was to wait. */
    return s->link.phase == BOSH_LINK_OPEN && bosh_multi_state(s) != BOSH_ST_LIVE ? DOWN_CLOSE
                                                                                  : DOWN_NOTHING;
}

/* From here on our header counts as written; what of it was not can be printed again, if it is the usual one.
 * Lock held. */
static void note_header(bosh_session_t *s, apr_time_t now, const char *p, size_t n)
{
    char usual[BOSH_STREAM_HEADER_MAX];

    s->link.out += n;
    s->link.wrote = now;
    if (bosh_session_print_header(s, usual) == n && memcmp(usual, p, n) == 0) {
        s->link.flags &= (uint8_t)~BOSH_LINK_ODD_HEADER;
    } else {
        s->link.flags |= BOSH_LINK_ODD_HEADER;
    }
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
    if (st->stalled || st->blocked || !bosh_up_pump(ss, st)) {
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
    note_header(s, ss->now, ss->buf, n);
    bosh_stream_phase(st, s, BOSH_LINK_HEADER, ss->now + bosh_dial_time(st));
    bosh_session_sent(ss->arena, ss->now, s, bosh_stream_limits(ss, st));
    bosh_stream_unlock(ss);
    bosh_up_rest(ss, st);
    st->restart = false;
    bosh_stream_log(ss, st, BOSH_LOG_DEBUG, "restarting the stream");
    BOSH_POINT("restart-unsaid");
    bosh_down_say(ss, st, ss->buf, n);
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
    s->link.out += sizeof(BOSH_STREAM_END) - 1;
    bosh_stream_phase(st, s, BOSH_LINK_CLOSING, ss->now + BOSH_CLOSE_TIME);
    bosh_session_sent(ss->arena, ss->now, s, bosh_stream_limits(ss, st));
    bosh_stream_unlock(ss);
    st->stalled = st->blocked = false;
    BOSH_POINT("end-unsaid");
    bosh_down_say(ss, st, BOSH_STREAM_END, sizeof(BOSH_STREAM_END) - 1);
    st->said_end = true;
    bosh_stream_log(ss, st, BOSH_LOG_DEBUG, "closing the stream");
}

/*
 * 0206 7: some of what the client did not get is answered in its place, before the end of the stream. Each text is
 * taken out under the lock, read without it, and what is to be said goes the way of all stanzas. Returns the bytes
 * that were read; 0: that was all, or the session is no longer ours.
 */
static size_t return_some(bosh_streams_t *ss, bosh_stream_t *st)
{
    bosh_bounce_t *bounce = bosh_bounce_create();
    char *text = malloc(BOSH_IO_SIZE);
    size_t size = BOSH_IO_SIZE, done = 0, len = 0, n;
    bosh_session_t *s;
    bool whole;

    while (bounce != NULL && text != NULL && done < BOSH_IO_ROUND &&
           (s = bosh_stream_lock(ss, st)) != NULL) {
        len = bosh_back_take(ss->arena, s, text, size, &whole);
        bosh_stream_unlock(ss);
        if (len > size) {
            free(text);
            text = malloc(size = len);
            continue;
        }
        if (len == 0) {
            break;
        }
        done += len;
        if (bosh_bounce_add(bounce, text, len, whole) != APR_SUCCESS) {
            bosh_stream_log(ss, st, BOSH_LOG_DEBUG, "a stanza cannot be returned");
        }
    }
    s = bosh_stream_lock(ss, st);
    if (s != NULL) {
        if (bounce == NULL || text == NULL) { /* no memory: without it, then */
            s->flags &= ~BOSH_SESS_BACK;
        } else {
            const char *said = bosh_bounce_text(bounce, &n);
            bosh_back_give(ss->arena, s, said, n);
        }
        bosh_stream_unlock(ss);
    }
    free(text);
    bosh_bounce_destroy(bounce);
    return done;
}

void bosh_down_pump(bosh_streams_t *ss, bosh_stream_t *st)
{
    size_t n = 0, put = 0, round = 0;

    while (flush_pend(ss, st)) {
        bosh_session_t *s = put > 0 ? bosh_stream_lock(ss, st) : bosh_stream_peek(ss, st);
        down_t next;

        if (s == NULL) {
            return;
        }
        if (put > 0) {
            bosh_queue_consume(ss->arena, &s->link.down, put);
            BOSH_POINT("write-consumed");
            s->link.out += put;
            s->link.wrote = ss->now;
            st->midway = s->link.down.head_open != 0;
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
        case DOWN_BACK:
            round += return_some(ss, st);
            n = 0;
            if (round >= BOSH_IO_ROUND) {
                st->want_write = true; /* the rest in the next turn */
                return;
            }
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
        BOSH_POINT("written");
        round += put;
        if (put == 0) {
            return;
        }
    }
}

void bosh_down_keep_alive(bosh_streams_t *ss, bosh_stream_t *st)
{
    bool due = st->phase == BOSH_LINK_OPEN && st->conn.state == BOSH_CONN_UP;
    bosh_session_t *s = due ? bosh_stream_lock(ss, st) : NULL;

    st->quiet_at = BOSH_NEVER;
    if (s == NULL) {
        return;
    }
    st->quiet_at = s->link.wrote + bosh_stream_keepalive(st);
    due = st->quiet_at <= ss->now;
    if (due) {
        st->quiet_at = ss->now + bosh_stream_keepalive(st);
        due = !st->midway && !st->want_write &&
              st->pend_n == 0; /* else there is something on its way */
    }
    if (due) { /* counts as written from here on, like a header: bosh_rescue.c says it if we do not */
        s->link.out++;
        s->link.wrote = ss->now;
    }
    bosh_stream_unlock(ss);
    BOSH_POINT("keep-alive-unsaid");
    if (due) {
        bosh_down_say(ss, st, BOSH_STREAM_SPACE, sizeof(BOSH_STREAM_SPACE) - 1);
    }
}
