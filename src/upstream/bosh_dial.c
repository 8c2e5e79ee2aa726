/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dialing. Called by bosh_stream.c and bosh_secure.c on the loop thread.
 *
 * Invariant: a stream in phase CONNECT has a dial; while it has no connection either a name is being looked up, or
 * sockets connect, or attempt_at says when the next thing is to be done. link_at bounds it all.
 */
#include "bosh_dial.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <apr_general.h>

#include "bosh_down.h"
#include "bosh_idna.h"
#include "bosh_point.h"
#include "bosh_race.h"
#include "bosh_secure.h"
#include "bosh_tcpinfo.h"
#include "bosh_up.h"

#define XMPP_PORT   5222
#define LEAST_WAIT  5 /* seconds; a shorter wait does not bound dialing */
#define RECORDS_MAX (2 * BOSH_RESOLVER_RECORDS)

typedef enum step_t {
    STEP_SRV,  /* the records are awaited */
    STEP_RACE, /* a place is being connected to */
    STEP_DONE  /* there is a connection */
} step_t;

typedef struct bosh_dial_t {
    step_t step;
    bool alone; /* bosh_dial_elsewhere(): no other target counts */
    bool direct;
    char domain[BOSH_MAX_DOMAIN + 1]; /* A-labels */
    bosh_srv_t *place; /* by SRV: those of st->target, in order; NULL: the target is the place */
    size_t nplaces, at;
    apr_time_t give_up_at; /* on this place */
    bosh_race_t race;
} bosh_dial_t;

uint32_t bosh_dial_random(void *ctx, uint32_t below)
{
    uint64_t bits = 0;

    (void)ctx;
    (void)apr_generate_random_bytes((unsigned char *)&bits, sizeof(bits));
    return (uint32_t)(bits % below);
}

/* ---- the outcome ---- */

/* U-047: who the client is goes first, before TLS and before our header. A new socket has room for it. */
static apr_status_t introduce(bosh_streams_t *ss, bosh_stream_t *st)
{
    char text[BOSH_PROXY_MAX], ip[sizeof(((bosh_session_t *)0)->peer_ip)];
    const bosh_addr_t *to = &st->dial->race.last;
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
    n = bosh_proxy_print(text, st->target->proxy, ip, port, to->len > 0 ? &to->sa.any : NULL);
    rv = st->conn.ops->write(&st->conn, text, n, &put);
    st->base += put;
    return rv == APR_SUCCESS && put < n ? APR_INCOMPLETE : rv;
}

static void established(bosh_streams_t *ss, bosh_stream_t *st)
{
    apr_status_t rv = APR_SUCCESS;
    char text[160];

    st->dial->step = STEP_DONE;
    st->local = st->dial->race.goal.path != NULL;
    st->base = st->local ? 0 : bosh_tcpinfo_taken(st->conn.fd);
    if (st->target->proxy != BOSH_PROXY_OFF) {
        rv = introduce(ss, st);
    }
    if (rv != APR_SUCCESS) {
        bosh_dial_failed(ss, st, apr_strerror(rv, text, sizeof(text)));
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

/* ---- what is left to try ---- */

static bool has_more_targets(const bosh_streams_t *ss, const bosh_stream_t *st)
{
    return !st->dial->alone && st->target->more &&
           st->target + 1 < ss->cfg->targets + ss->cfg->ntargets;
}

/* Each place and target gets its share of what is left of the time; the last one all of it. */
static void share_time(const bosh_streams_t *ss, bosh_stream_t *st)
{
    bosh_dial_t *d = st->dial;
    apr_interval_time_t share = BOSH_DIAL_SHARE, left = st->link_at - ss->now;
    const bosh_target_t *end = ss->cfg->targets + ss->cfg->ntargets;
    size_t n = d->place != NULL ? d->nplaces - d->at : 1;

    for (const bosh_target_t *t = st->target; !d->alone && t->more && t + 1 < end; t++) {
        n++;
    }
    d->give_up_at = BOSH_NEVER;
    if (n > 1) {
        share = left / (apr_interval_time_t)n < share ? left / (apr_interval_time_t)n : share;
        d->give_up_at = ss->now + (share > apr_time_from_sec(1) ? share : apr_time_from_sec(1));
    }
}

/* A client has chosen the domain, and thereby what is looked up. */
static bool is_any(const bosh_target_t *t)
{
    return t->srv && strcmp(t->domain, "*") == 0;
}

static void begin_place(bosh_streams_t *ss, bosh_stream_t *st)
{
    bosh_dial_t *d = st->dial;
    const bosh_target_t *t = st->target;
    bosh_goal_t goal = {.path = t->path, .addrs = t->addrs, .host = t->host, .port = t->port};

    d->direct = t->policy == BOSH_TLS_DIRECT;
    if (d->place != NULL) {
        goal = (bosh_goal_t){
            .host = d->place[d->at].host, .port = d->place[d->at].port, .complete = !d->alone};
        d->direct = d->place[d->at].direct;
    }
    goal.any = is_any(t);
    d->step = STEP_RACE;
    share_time(ss, st);
    bosh_race_start(&d->race, &goal);
}

static void begin_target(bosh_streams_t *ss, bosh_stream_t *st)
{
    bosh_dial_t *d = st->dial;

    free(d->place);
    d->place = NULL;
    d->nplaces = d->at = 0;
    memset(&d->race, 0, sizeof(d->race));
    if (st->target->srv) {
        d->step = STEP_SRV;
        share_time(ss, st);
    } else {
        begin_place(ss, st);
    }
}

/* False: there is nothing left. */
static bool begin_next(bosh_streams_t *ss, bosh_stream_t *st)
{
    bosh_dial_t *d = st->dial;

    if (d->place != NULL && d->at + 1 < d->nplaces) {
        d->at++;
        begin_place(ss, st);
        return true;
    }
    if (!has_more_targets(ss, st)) {
        return false;
    }
    st->target++;
    begin_target(ss, st);
    return true;
}

/* Goes on behind a failure. False: the stream is over. */
static bool next(bosh_streams_t *ss, bosh_stream_t *st, const char *reason)
{
    char where[160], why[400];

    bosh_dial_describe(st, where, sizeof(where));
    snprintf(why, sizeof(why), "%s", reason); /* which may be the race's */
    if (begin_next(ss, st)) {
        bosh_stream_log(ss, st, BOSH_LOG_INFO, "is next, for %s was of no use: %s", where, why);
        return true;
    }
    bosh_stream_over(ss, st, BOSH_COND_REMOTE_CONNECTION_FAILED, why);
    return false;
}

/* ---- SRV ---- */

/* The records of one service. False: they are awaited. */
static bool ask_service(bosh_streams_t *ss, bosh_stream_t *st, const char *service, bosh_dns_t *out,
                        bosh_srv_t *rec)
{
    char name[BOSH_MAX_DOMAIN + 32];

    snprintf(name, sizeof(name), "%s._tcp.%s", service, st->dial->domain);
    *out = bosh_resolve(ss->resolver, BOSH_DNS_SRV, name, is_any(st->target), ss->now, st->index,
                        st->serial);
    if (out->state == BOSH_DNS_FOUND) {
        memcpy(rec, out->srv, out->n * sizeof(*rec));
    }
    return out->state != BOSH_DNS_PENDING;
}

/* Both services together, without those that say that there is none (XEP-0368). */
static size_t mix(bosh_srv_t *rec, const bosh_dns_t *plain, const bosh_dns_t *direct)
{
    size_t n = 0;

    for (size_t i = 0; i < plain->n + direct->n; i++) {
        bosh_srv_t *from = i < plain->n ? &rec[i] : &rec[BOSH_RESOLVER_RECORDS + i - plain->n];
        if (from->host[0] != '\0') {
            from->direct = i >= plain->n;
            rec[n++] = *from;
        }
    }
    return n;
}

/* 6120 3.2.2: no records at all; the domain is the host. A record of its own, so that it is a place. */
static size_t fall_back(const bosh_stream_t *st, bosh_srv_t *rec)
{
    memset(rec, 0, sizeof(*rec));
    rec->port = XMPP_PORT;
    memcpy(rec->host, st->dial->domain, sizeof(rec->host));
    return 1;
}

/* True: go on. */
static bool take_records(bosh_streams_t *ss, bosh_stream_t *st, bosh_srv_t *rec,
                         const bosh_dns_t *plain, const bosh_dns_t *direct)
{
    bosh_dial_t *d = st->dial;
    size_t n = mix(rec, plain, direct);
    char why[160];

    if (n == 0 && (plain->state == BOSH_DNS_FAILED || direct->state == BOSH_DNS_FAILED)) {
        snprintf(why, sizeof(why), "the SRV records cannot be looked up: %s",
                 plain->state == BOSH_DNS_FAILED ? plain->why : direct->why);
        return next(ss, st, why);
    }
    if (n == 0 && (plain->n > 0 || direct->n > 0)) {
        return next(ss, st, "its SRV records say that there is no such service");
    }
    if (n == 0 && st->target->policy == BOSH_TLS_DIRECT) {
        return next(ss, st, "it has no SRV records for direct TLS");
    }
    n = n > 0 ? n : fall_back(st, rec);
    bosh_srv_sort(rec, n, bosh_dial_random, NULL);
    d->place = malloc(n * sizeof(*rec));
    if (d->place == NULL) {
        return next(ss, st, "no memory");
    }
    memcpy(d->place, rec, n * sizeof(*rec));
    d->nplaces = n;
    begin_place(ss, st);
    return true;
}

/* True: go on; false: wait, or the stream is over. */
static bool ask_records(bosh_streams_t *ss, bosh_stream_t *st)
{
    bosh_srv_t rec[RECORDS_MAX];
    bosh_dns_t plain = {.state = BOSH_DNS_NONE}, direct = {.state = BOSH_DNS_NONE};
    bosh_tls_policy_t policy = st->target->policy;
    bool known = true;

    /* What `direct` forbids is not even looked up, nor what `off` would not use. */
    if (policy != BOSH_TLS_DIRECT) {
        known &= ask_service(ss, st, "_xmpp-client", &plain, rec);
    }
    if (policy != BOSH_TLS_OFF) {
        known &= ask_service(ss, st, "_xmpps-client", &direct, rec + BOSH_RESOLVER_RECORDS);
    }
    return known && take_records(ss, st, rec, &plain, &direct);
}

/* ---- going on ---- */

/* Whatever can be done now. */
static void go(bosh_streams_t *ss, bosh_stream_t *st)
{
    bosh_dial_t *d = st->dial;
    apr_time_t at;

    for (;;) {
        if (d->step == STEP_SRV) {
            if (!ask_records(ss, st)) {
                break;
            }
            continue;
        }
        switch (bosh_race_go(ss, st, &d->race)) {
        case BOSH_RACE_WON:
            st->attempt_at = d->give_up_at;
            established(ss, st);
            return;
        case BOSH_RACE_LOST:
            if (next(ss, st, d->race.why)) {
                continue;
            }
            return;
        default:
            break;
        }
        break;
    }
    if (st->phase != BOSH_LINK_CONNECT || st->gone) {
        return;
    }
    at = bosh_race_next(&d->race);
    st->attempt_at = at < d->give_up_at ? at : d->give_up_at;
}

/* The row that the session was made with, or the first one of its domain; NULL: there is none. */
static const bosh_target_t *target_of(bosh_streams_t *ss, bosh_stream_t *st,
                                      char domain[BOSH_MAX_DOMAIN + 1])
{
    bosh_session_t *s = bosh_stream_lock(ss, st);
    uint16_t row;

    if (s == NULL) {
        return NULL;
    }
    row = s->link.upstream;
    memcpy(domain, s->to, sizeof(s->to));
    bosh_stream_unlock(ss);
    if (row == BOSH_ROW_UNKNOWN) {
        return bosh_dial_target(ss, domain, &row);
    }
    return row < ss->cfg->ntargets ? &ss->cfg->targets[row] : NULL;
}

/* Notes the target and the deadline in both halves. False: the session is no longer ours. */
static bool note_target(bosh_streams_t *ss, bosh_stream_t *st)
{
    bosh_session_t *s = bosh_stream_lock(ss, st);
    apr_interval_time_t most, wait;

    if (s == NULL) {
        return false;
    }
    /* The client hears of a failure while it waits for its first answer (U-012). */
    most = bosh_dial_time(st);
    wait = apr_time_from_sec(s->wait) / 10 * 9;
    if (s->wait >= LEAST_WAIT && wait < most) {
        most = wait;
    }
    s->link.upstream = (uint16_t)(st->target - ss->cfg->targets);
    bosh_stream_phase(st, s, BOSH_LINK_CONNECT, s->created + most);
    bosh_stream_unlock(ss);
    return true;
}

void bosh_dial_start(bosh_streams_t *ss, bosh_stream_t *st)
{
    char domain[BOSH_MAX_DOMAIN + 1] = "";

    st->target = target_of(ss, st, domain);
    if (st->gone) {
        return;
    }
    if (st->target == NULL) {
        bosh_stream_over(ss, st, BOSH_COND_REMOTE_CONNECTION_FAILED,
                         "its upstream is not configured");
        return;
    }
    st->dial = calloc(1, sizeof(*st->dial));
    if (st->dial == NULL) {
        bosh_stream_over(ss, st, BOSH_COND_INTERNAL_SERVER_ERROR, "no memory for dialing");
        return;
    }
    if (!bosh_idna_ascii(domain, st->dial->domain)) {
        bosh_stream_over(ss, st, BOSH_COND_REMOTE_CONNECTION_FAILED, "its domain is none");
        return;
    }
    if (note_target(ss, st)) {
        begin_target(ss, st);
        go(ss, st);
    }
}

bool bosh_dial_is_on(const bosh_stream_t *st)
{
    return st->dial != NULL && st->dial->step != STEP_DONE && !st->given &&
           st->phase == BOSH_LINK_CONNECT;
}

void bosh_dial_event(bosh_streams_t *ss, bosh_stream_t *st)
{
    go(ss, st);
}

void bosh_dial_failed(bosh_streams_t *ss, bosh_stream_t *st, const char *reason)
{
    if (st->phase != BOSH_LINK_CONNECT || st->dial == NULL) {
        bosh_stream_over(ss, st, BOSH_COND_REMOTE_CONNECTION_FAILED, reason);
        return;
    }
    bosh_race_stop(ss, &st->dial->race, true);
    if (next(ss, st, reason)) {
        if (bosh_secure_in_the_clear(st)) {
            bosh_down_say(ss, st, BOSH_STREAM_END, sizeof(BOSH_STREAM_END) - 1);
        }
        bosh_stream_hang_up(ss, st);
        st->write_dead = st->midway = false;
        go(ss, st);
    }
}

void bosh_dial_attempt(bosh_streams_t *ss, bosh_stream_t *st)
{
    const char *step = bosh_secure_step(st);

    st->attempt_at = BOSH_NEVER;
    if (st->dial == NULL || st->phase != BOSH_LINK_CONNECT) {
        return;
    }
    if (ss->now >= st->dial->give_up_at) {
        bosh_dial_failed(ss, st, step != NULL ? step : "no answer in time");
    } else if (bosh_dial_is_on(st)) {
        go(ss, st);
    }
}

void bosh_dial_late(bosh_streams_t *ss, bosh_stream_t *st)
{
    const char *step = bosh_secure_step(st), *why = "cannot connect in time";

    if (st->dial != NULL) {
        why = strcmp(bosh_dial_step(st), "resolve") == 0 ? "no answer from the name servers in time"
                                                         : why;
        bosh_race_stop(ss, &st->dial->race, true);
    }
    bosh_stream_over(ss, st, BOSH_COND_REMOTE_CONNECTION_FAILED, step != NULL ? step : why);
}

bool bosh_dial_elsewhere(bosh_streams_t *ss, bosh_stream_t *st, const char *host, apr_port_t port)
{
    bosh_srv_t *place = malloc(sizeof(*place));
    bosh_dial_t *d = st->dial;
    bosh_session_t *s;

    if (place == NULL || d == NULL || strlen(host) > BOSH_MAX_DOMAIN) {
        free(place);
        return false;
    }
    memset(place, 0, sizeof(*place));
    place->port = port;
    place->direct = d->direct;
    memcpy(place->host, host, strlen(host) + 1);
    bosh_race_stop(ss, &d->race, false);
    bosh_stream_hang_up(ss, st);
    s = bosh_stream_lock(ss, st);
    if (s == NULL) {
        free(place);
        return true;
    }
    bosh_stream_phase(st, s, BOSH_LINK_CONNECT, st->link_at);
    bosh_stream_unlock(ss);
    free(d->place);
    d->place = place;
    d->nplaces = 1;
    d->at = 0;
    d->alone = true;
    begin_place(ss, st);
    go(ss, st);
    return true;
}

void bosh_dial_end(bosh_streams_t *ss, bosh_stream_t *st)
{
    if (st->dial != NULL) {
        bosh_race_stop(ss, &st->dial->race, false);
        free(st->dial->place);
        free(st->dial);
        st->dial = NULL;
    }
}

/* ---- what others want to know ---- */

bosh_tls_policy_t bosh_dial_policy(const bosh_stream_t *st)
{
    return st->dial != NULL && st->dial->direct ? BOSH_TLS_DIRECT : st->target->policy;
}

const char *bosh_dial_domain(const bosh_stream_t *st)
{
    return st->dial->domain;
}

const char *bosh_dial_step(const bosh_stream_t *st)
{
    return st->dial != NULL && (st->dial->step == STEP_SRV || bosh_race_looks_up(&st->dial->race))
               ? "resolve"
               : "connect";
}

void bosh_dial_describe(const bosh_stream_t *st, char *dst, size_t size)
{
    bosh_addr_t peer = {.len = sizeof(peer.sa)};

    if (st->dial != NULL && st->dial->step == STEP_SRV) {
        snprintf(dst, size, "its SRV records");
    } else if (st->dial != NULL) {
        bosh_race_describe(&st->dial->race, dst, size);
    } else if (st->target != NULL && st->target->path != NULL && st->local) {
        bosh_conn_describe(NULL, st->target->path, dst, size);
    } else {
        if (st->conn.fd < 0 || getpeername(st->conn.fd, &peer.sa.any, &peer.len) != 0) {
            peer.len = 0;
        }
        bosh_conn_describe(&peer, NULL, dst, size);
    }
}

const bosh_target_t *bosh_dial_target(const bosh_streams_t *ss, const char *domain, uint16_t *row)
{
    char ascii[BOSH_MAX_DOMAIN + 1];
    const bosh_target_t *any = NULL;

    *row = BOSH_ROW_UNKNOWN;
    if (!bosh_idna_ascii(domain, ascii)) {
        return NULL;
    }
    for (size_t i = 0; i < ss->cfg->ntargets && i < BOSH_ROW_UNKNOWN; i++) {
        const bosh_target_t *t = &ss->cfg->targets[i];
        if (strcmp(t->domain, ascii) == 0) {
            *row = (uint16_t)i;
            return t;
        }
        any = any == NULL && strcmp(t->domain, "*") == 0 ? t : any;
    }
    if (any != NULL) {
        *row = (uint16_t)(any - ss->cfg->targets);
    }
    return any;
}

apr_interval_time_t bosh_dial_time(const bosh_stream_t *st)
{
    return st->target != NULL && st->target->timeout > 0 ? st->target->timeout
                                                         : apr_time_from_sec(BOSH_UPSTREAM_TIMEOUT);
}
