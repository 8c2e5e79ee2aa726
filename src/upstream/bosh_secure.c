/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS before the stream. Called by bosh_dial.c and bosh_stream.c on the loop thread.
 *
 *   direct:              connected --------------------------------------------> SHAKE --> bosh_dial_ready()
 *   starttls, optional:  connected --header--> OFFER --<starttls/>--> ANSWER --<proceed/>--^
 *   optional, no offer:                          +---> bosh_dial_ready() with what was read
 *
 * Invariant: with `starttls` and `direct` nothing but a header and <starttls/> is written before the
 * handshake has succeeded and the certificate is verified.
 */
#include "bosh_secure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "bosh_dial.h"
#include "bosh_down.h"
#include "bosh_elsewhere.h"
#include "bosh_news.h"
#include "bosh_tls.h"
#include "bosh_up.h"

static const char starttls_text[] = "<starttls xmlns='" BOSH_NS_TLS "'/>";

static void fail(bosh_streams_t *ss, bosh_stream_t *st, const char *reason)
{
    bosh_dial_failed(ss, st, reason);
}

/* ---- TLS itself ---- */

static void shake(bosh_streams_t *ss, bosh_stream_t *st)
{
    apr_status_t rv = st->conn.ops->establish(&st->conn);
    char text[400];

    if (APR_STATUS_IS_EAGAIN(rv)) {
        return;
    }
    if (rv != APR_SUCCESS) {
        snprintf(text, sizeof(text), "TLS failed: %s", bosh_tls_reason(&st->conn));
        fail(ss, st, text);
        return;
    }
    BOSH_STAT_ADD(ss, handshakes, 1);
    BOSH_STAT_ADD(ss, resumed, bosh_tls_resumed(&st->conn));
    bosh_stream_log(ss, st, BOSH_LOG_DEBUG, "%s%s", bosh_tls_version(&st->conn),
                    bosh_tls_resumed(&st->conn) ? ", resumed" : "");
    st->secure = BOSH_SECURE_NO;
    bosh_dial_ready(ss, st, NULL, 0);
}

static void begin_tls(bosh_streams_t *ss, bosh_stream_t *st)
{
    bool direct = bosh_dial_policy(st) == BOSH_TLS_DIRECT;

    bosh_secure_reset(ss, st);
    /* The domain that the client asked for, which need not be the line's. */
    if (!bosh_tls_start(&st->conn, st->target->tls, bosh_dial_domain(st), direct)) {
        bosh_stream_over(ss, st, BOSH_COND_INTERNAL_SERVER_ERROR, "no memory for TLS");
        return;
    }
    ss->bound++;
    st->secure = BOSH_SECURE_SHAKE;
    shake(ss, st);
}

/* ---- STARTTLS ---- */

/* A stream of which only its features count, if they offer STARTTLS. */
static void ask_for_features(bosh_streams_t *ss, bosh_stream_t *st)
{
    bosh_session_t *s = bosh_stream_lock(ss, st);
    size_t n;

    if (s == NULL) {
        return;
    }
    n = bosh_session_print_header(s, ss->buf);
    bosh_stream_unlock(ss);
    st->secure = BOSH_SECURE_OFFER;
    bosh_down_say(ss, st, ss->buf, n);
}

static void not_offered(bosh_streams_t *ss, bosh_stream_t *st)
{
    char *seen = st->clear;
    size_t n = st->clear_n;

    if (bosh_dial_policy(st) != BOSH_TLS_OPTIONAL) {
        fail(ss, st, "the server does not offer STARTTLS, without which this upstream is not used");
        return;
    }
    st->clear = NULL;
    bosh_secure_reset(ss, st);
    bosh_dial_ready(ss, st, seen, n);
    free(seen);
}

static void offered(bosh_streams_t *ss, bosh_stream_t *st)
{
    st->secure = BOSH_SECURE_ANSWER;
    bosh_down_say(ss, st, starttls_text, sizeof(starttls_text) - 1);
}

static void answered(bosh_streams_t *ss, bosh_stream_t *st, const bosh_split_event_t *ev)
{
    if (!ev->proceed) {
        fail(ss, st, "the server refuses STARTTLS, which it offered");
    } else if (st->pend_n > 0) {
        fail(ss, st, "the server sent <proceed/> before it was asked");
    } else if (ev->end != st->fed) {
        fail(ss, st, "the server went on in the clear behind <proceed/>");
    } else {
        begin_tls(ss, st);
    }
}

static void refused(bosh_streams_t *ss, bosh_stream_t *st, const bosh_split_event_t *ev)
{
    char text[120];
    bosh_slice_t name = bosh_news_condition(st->clear + ev->start, (size_t)(ev->end - ev->start));

    if (!bosh_elsewhere_go(ss, st, st->clear + ev->other_at, ev->other_n)) {
        snprintf(text, sizeof(text), "a stream error from the server instead of TLS: %.*s",
                 name.n < 60 ? (int)name.n : 60, name.p);
        fail(ss, st, text);
    }
}

/* True: look at the next event. */
static bool consider(bosh_streams_t *ss, bosh_stream_t *st, const bosh_split_event_t *ev)
{
    bool offer = st->secure == BOSH_SECURE_OFFER;

    if (ev->type == BOSH_SPLIT_HEADER && bosh_split_header(st->sp)->version != NULL) {
        return true;
    }
    if (ev->type == BOSH_SPLIT_FEATURES && offer && ev->starttls) {
        offered(ss, st);
        return true;
    }
    /* before XMPP 1.0 there were no features. */
    if ((ev->type == BOSH_SPLIT_FEATURES || ev->type == BOSH_SPLIT_HEADER) && offer) {
        not_offered(ss, st);
    } else if (ev->type == BOSH_SPLIT_TLS && !offer) {
        answered(ss, st, ev);
    } else if (ev->type == BOSH_SPLIT_ERROR) {
        refused(ss, st, ev);
    } else if (ev->type == BOSH_SPLIT_END) {
        fail(ss, st, "the server ended the stream instead of TLS");
    } else {
        fail(ss, st, "the server sent something else instead of TLS");
    }
    return false;
}

/* For a stream that may go on without TLS, or elsewhere. False: no memory. */
static bool keep(bosh_stream_t *st, const char *p, size_t n)
{
    char *grown;

    grown = realloc(st->clear, st->clear_n + n);
    if (grown == NULL) {
        return false;
    }
    memcpy(grown + st->clear_n, p, n);
    st->clear = grown;
    st->clear_n += n;
    return true;
}

static void digest(bosh_streams_t *ss, bosh_stream_t *st, size_t got)
{
    const bosh_split_event_t *ev;
    const char *why = NULL;
    apr_status_t rv;
    size_t n;

    if (!bosh_up_expect_header(ss, st) || !keep(st, ss->buf, got)) {
        bosh_stream_over(ss, st, BOSH_COND_INTERNAL_SERVER_ERROR, "no memory");
        return;
    }
    rv = bosh_split_feed(st->sp, ss->buf, got, &why);
    st->fed += got;
    ev = bosh_split_events(st->sp, &n);
    for (size_t i = 0; i < n; i++) {
        if (!consider(ss, st, &ev[i])) {
            return; /* and the parser is gone */
        }
    }
    bosh_split_clear(st->sp);
    if (rv != APR_SUCCESS) {
        fail(ss, st, why != NULL ? why : "the parser gave up");
    } else if (st->clear_n > BOSH_CLEAR_MAX) {
        fail(ss, st, "the server says too much before TLS");
    }
}

/* Once per turn: poll tells about more. */
static void read_clear(bosh_streams_t *ss, bosh_stream_t *st)
{
    struct iovec iov = {ss->buf, sizeof(ss->buf)};
    size_t got = 0;
    apr_status_t rv = st->conn.ops->readv(&st->conn, &iov, 1, &got);
    char text[160] = "before TLS: ";

    if (rv == APR_SUCCESS) {
        digest(ss, st, got);
    } else if (APR_STATUS_IS_EOF(rv)) {
        fail(ss, st, "the server closed the connection before TLS");
    } else if (!APR_STATUS_IS_EAGAIN(rv)) {
        apr_strerror(rv, text + strlen(text), sizeof(text) - strlen(text));
        fail(ss, st, text);
    }
}

/* ---- the outside ---- */

void bosh_secure_begin(bosh_streams_t *ss, bosh_stream_t *st)
{
    switch (bosh_dial_policy(st)) {
    case BOSH_TLS_OFF:
        bosh_dial_ready(ss, st, NULL, 0);
        break;
    case BOSH_TLS_DIRECT:
        begin_tls(ss, st);
        break;
    default:
        ask_for_features(ss, st);
        break;
    }
}

void bosh_secure_event(bosh_streams_t *ss, bosh_stream_t *st, uint32_t events)
{
    if (st->secure == BOSH_SECURE_SHAKE) {
        shake(ss, st);
        return;
    }
    if (events & EPOLLOUT) {
        st->want_write = false;
        bosh_down_pump(ss, st); /* our header, if it did not fit */
    }
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        read_clear(ss, st);
    }
}

void bosh_secure_reset(bosh_streams_t *ss, bosh_stream_t *st)
{
    bosh_up_rest(ss, st);
    free(st->clear);
    st->clear = NULL;
    st->clear_n = 0;
    st->secure = BOSH_SECURE_NO;
}

bool bosh_secure_in_the_clear(const bosh_stream_t *st)
{
    return st->secure == BOSH_SECURE_OFFER || st->secure == BOSH_SECURE_ANSWER;
}

const char *bosh_secure_step(const bosh_stream_t *st)
{
    switch (st->secure) {
    case BOSH_SECURE_OFFER:
        return "no stream features in time";
    case BOSH_SECURE_ANSWER:
        return "no answer to STARTTLS in time";
    case BOSH_SECURE_SHAKE:
        return "TLS did not come about in time";
    default:
        return NULL;
    }
}
