/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connecting. Called by bosh_stream.c on the loop thread, for streams in phase CONNECT.
 *
 * Invariant: while a stream is in this phase either its connection is CONNECTING, or attempt_at says when
 * the next try is; link_at bounds it all.
 */
#include "bosh_dial.h"

#include <string.h>

#include "bosh_down.h"
#include "bosh_point.h"
#include "bosh_secure.h"
#include "bosh_tcpinfo.h"
#include "bosh_up.h"

static void connect_failed(bosh_streams_t *ss, bosh_stream_t *st, apr_status_t rv)
{
    char text[160] = "cannot connect: ";
    size_t n = strlen(text);

    apr_strerror(rv, text + n, sizeof(text) - n);
    bosh_stream_over(ss, st, BOSH_COND_REMOTE_CONNECTION_FAILED, text);
}

/* U-047: who the client is goes first, before TLS and before our header. A new socket has room for it. */
static apr_status_t introduce(bosh_streams_t *ss, bosh_stream_t *st)
{
    char text[BOSH_PROXY_MAX], ip[sizeof(((bosh_session_t *)0)->peer_ip)];
    bosh_session_t *s = bosh_stream_lock(ss, st);
    size_t n, put = 0;
    uint16_t port;
    apr_status_t rv;

    if (s == NULL) {
        return APR_SUCCESS;
    }
    memcpy(ip, s->peer_ip, sizeof(ip));
    port = s->peer_port;
    bosh_stream_unlock(ss);
    n = bosh_proxy_print(text, st->target->proxy, ip, port,
                         st->addr != NULL ? (const struct sockaddr *)&st->addr->sa : NULL);
    rv = st->conn.ops->write(&st->conn, text, n, &put);
    st->base += put;
    return rv == APR_SUCCESS && put < n ? APR_INCOMPLETE : rv;
}

/* The socket is there. */
static void established(bosh_streams_t *ss, bosh_stream_t *st)
{
    apr_status_t rv = APR_SUCCESS;

    st->base = st->local ? 0 : bosh_tcpinfo_taken(st->conn.fd);
    if (st->target->proxy != BOSH_PROXY_OFF) {
        rv = introduce(ss, st);
    }
    if (rv != APR_SUCCESS) {
        connect_failed(ss, st, rv);
    } else if (!st->gone) {
        bosh_secure_begin(ss, st);
    }
}

void bosh_dial_ready(bosh_streams_t *ss, bosh_stream_t *st, const char *seen, size_t len)
{
    apr_status_t rv = APR_SUCCESS;
    bosh_session_t *s;
    size_t n;

    if (!st->local) {
        BOSH_POINT("login-connected");
        bosh_escrow_park(ss, st); /* before the record says that there is a stream to rescue */
    }
    BOSH_POINT("login-parked");
    s = bosh_stream_lock(ss, st);
    if (s == NULL) {
        return;
    }
    n = bosh_session_print_header(s, ss->buf);
    s->link.in = len;
    s->link.out = st->base + n;
    s->link.wrote = ss->now;
    s->link.flags |= st->parked ? BOSH_LINK_KEPT : 0;
    bosh_stream_phase(st, s, BOSH_LINK_HEADER, st->link_at);
    if (seen != NULL) {
        rv = bosh_bytes_append(ss->arena, &s->link.raw, seen, len, BOSH_PRIO_INPUT);
    }
    bosh_stream_unlock(ss);
    st->attempt_at = BOSH_NEVER;
    bosh_stream_log(ss, st, BOSH_LOG_DEBUG, "connected");
    BOSH_POINT("login-unsaid");
    if (rv != APR_SUCCESS) {
        bosh_stream_over(ss, st, BOSH_COND_INTERNAL_SERVER_ERROR, "no memory for the features");
    } else if (seen != NULL) {
        bosh_up_resume(ss, st);
    } else {
        bosh_down_say(ss, st, ss->buf, n);
    }
}

/* Each address gets its share of what is left of the time; the last one all of it. */
static apr_time_t attempt_deadline(const bosh_streams_t *ss, const bosh_stream_t *st)
{
    apr_interval_time_t share;
    const apr_sockaddr_t *sa;
    int left = 0;

    for (sa = st->addr; sa != NULL; sa = sa->next) {
        left++;
    }
    if (left <= 1) {
        return BOSH_NEVER;
    }
    share = (st->link_at - ss->now) / left;
    return ss->now + (share > apr_time_from_sec(1) ? share : apr_time_from_sec(1));
}

/* Connects to st->addr, or to the next one that does not fail at once. */
static void try_addresses(bosh_streams_t *ss, bosh_stream_t *st)
{
    for (;;) {
        apr_status_t rv = bosh_conn_open(&st->conn, ss->sockets, st->addr, st->target->path);

        BOSH_STAT_ADD(ss, connects, 1);
        if (rv == APR_SUCCESS) {
            BOSH_STAT_ADD(ss, sockets, 1);
            st->attempt_at = attempt_deadline(ss, st);
            if (st->conn.state == BOSH_CONN_UP) {
                established(ss, st);
            }
            return;
        }
        if (APR_STATUS_IS_EAGAIN(rv)) { /* a unix socket's backlog; link_at bounds the retries */
            st->attempt_at = ss->now + BOSH_RETRY_TIME;
            return;
        }
        if (st->addr == NULL || st->addr->next == NULL) {
            connect_failed(ss, st, rv);
            return;
        }
        st->addr = st->addr->next;
    }
}

/* This attempt came to nothing. */
static void next_address(bosh_streams_t *ss, bosh_stream_t *st, apr_status_t rv)
{
    if (st->addr == NULL || st->addr->next == NULL) {
        connect_failed(ss, st, rv);
        return;
    }
    bosh_stream_log(ss, st, BOSH_LOG_DEBUG, "cannot connect (%d), trying the next address", rv);
    bosh_stream_hang_up(ss, st);
    st->addr = st->addr->next;
    try_addresses(ss, st);
}

const bosh_target_t *bosh_dial_target(const bosh_streams_t *ss, const char *domain, uint16_t *row)
{
    for (size_t i = 0; i < ss->cfg->ntargets && i < BOSH_ROW_UNKNOWN; i++) {
        if (strcmp(ss->cfg->targets[i].domain, domain) == 0) {
            *row = (uint16_t)i;
            return &ss->cfg->targets[i];
        }
    }
    *row = BOSH_ROW_UNKNOWN;
    return NULL;
}

/* The line that the session was made with; NULL: there is none. */
static const bosh_target_t *target_of(bosh_streams_t *ss, bosh_stream_t *st)
{
    bosh_session_t *s = bosh_stream_lock(ss, st);
    char to[BOSH_MAX_DOMAIN + 1];
    uint16_t row;

    if (s == NULL) {
        return NULL;
    }
    row = s->link.upstream;
    memcpy(to, s->to, sizeof(to));
    bosh_stream_unlock(ss);
    if (row == BOSH_ROW_UNKNOWN) {
        return bosh_dial_target(ss, to, &row);
    }
    return row < ss->cfg->ntargets ? &ss->cfg->targets[row] : NULL;
}

void bosh_dial_start(bosh_streams_t *ss, bosh_stream_t *st)
{
    const bosh_target_t *target = target_of(ss, st);
    bosh_session_t *s = !st->gone ? bosh_stream_lock(ss, st) : NULL;

    if (s == NULL) {
        return;
    }
    if (target != NULL) {
        s->link.upstream = (uint16_t)(target - ss->cfg->targets);
        st->target = target;
        st->addr = target->addrs;
        st->local = target->path != NULL;
        bosh_stream_phase(st, s, BOSH_LINK_CONNECT, s->created + bosh_dial_time(st));
    }
    bosh_stream_unlock(ss);
    if (st->target == NULL) {
        bosh_stream_over(ss, st, BOSH_COND_REMOTE_CONNECTION_FAILED,
                         "its upstream is not configured");
    } else if (st->addr == NULL && st->target->path == NULL) {
        bosh_stream_over(ss, st, BOSH_COND_REMOTE_CONNECTION_FAILED, "its upstream has no address");
    } else {
        try_addresses(ss, st);
    }
}

void bosh_dial_event(bosh_streams_t *ss, bosh_stream_t *st)
{
    apr_status_t rv = st->conn.ops->establish(&st->conn);

    if (rv == APR_SUCCESS) {
        established(ss, st);
    } else if (!APR_STATUS_IS_EAGAIN(rv)) {
        next_address(ss, st, rv);
    }
}

void bosh_dial_attempt(bosh_streams_t *ss, bosh_stream_t *st)
{
    st->attempt_at = BOSH_NEVER;
    if (st->conn.state == BOSH_CONN_NONE) {
        try_addresses(ss, st);
    } else {
        next_address(ss, st, APR_TIMEUP);
    }
}

apr_interval_time_t bosh_dial_time(const bosh_stream_t *st)
{
    return st->target != NULL && st->target->timeout > 0 ? st->target->timeout
                                                         : apr_time_from_sec(BOSH_UPSTREAM_TIMEOUT);
}
