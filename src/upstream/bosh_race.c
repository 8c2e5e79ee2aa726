/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Happy eyeballs. Called by bosh_dial.c on the loop thread.
 *
 * Invariant: run[0..n) are the sockets that are connecting, oldest first; each of them is registered with epoll and
 * counted in stats.sockets.
 */
#include "bosh_race.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

#include "bosh_breaker.h"

enum { V6, V4 };

/* A host that is an address already. */
static bool take_literal(bosh_race_t *race, const bosh_goal_t *goal)
{
    bosh_addr_t *v6 = &race->family[V6].addr[0], *v4 = &race->family[V4].addr[0];

    if (inet_pton(AF_INET6, goal->host, &v6->sa.v6.sin6_addr) == 1) {
        v6->len = sizeof(v6->sa.v6);
        v6->sa.v6.sin6_family = AF_INET6;
        v6->sa.v6.sin6_port = htons(goal->port);
        race->family[V6].n = 1;
        return true;
    }
    if (inet_pton(AF_INET, goal->host, &v4->sa.v4.sin_addr) == 1) {
        v4->len = sizeof(v4->sa.v4);
        v4->sa.v4.sin_family = AF_INET;
        v4->sa.v4.sin_port = htons(goal->port);
        race->family[V4].n = 1;
        return true;
    }
    return false;
}

void bosh_race_start(bosh_race_t *race, const bosh_goal_t *goal)
{
    memset(race, 0, sizeof(*race));
    race->goal = *goal;
    race->running = true;
    race->family[V6].state = race->family[V4].state = BOSH_DNS_NONE;
    if (goal->path != NULL) {
        return;
    }
    if (goal->addrs == NULL && goal->host != NULL) {
        if (take_literal(race, goal)) {
            return;
        }
        snprintf(race->name, sizeof(race->name), "%s%s", goal->host, goal->complete ? "." : "");
        race->family[V6].state = race->family[V4].state = BOSH_DNS_PENDING;
        return;
    }
    for (const apr_sockaddr_t *sa = goal->addrs; sa != NULL; sa = sa->next) {
        bosh_family_t *f = &race->family[sa->family == AF_INET6 ? V6 : V4];
        if (f->n < BOSH_RACE_ADDRS) {
            bosh_addr_t *a = &f->addr[f->n++];
            a->len = (socklen_t)sa->salen;
            memcpy(&a->sa, &sa->sa,
                   sizeof(a->sa) < sizeof(sa->sa) ? sizeof(a->sa) : sizeof(sa->sa));
            f->state = BOSH_DNS_FOUND;
        }
    }
}

/* ---- names ---- */

static void note(bosh_race_t *race, const char *what, const char *why)
{
    snprintf(race->why, sizeof(race->why), "%s%s", what, why);
}

/* Asks for what is not known yet. */
static void look_up(bosh_streams_t *ss, const bosh_stream_t *st, bosh_race_t *race, int which)
{
    bosh_family_t *f = &race->family[which];
    bosh_dns_t known;

    if (f->state != BOSH_DNS_PENDING) {
        return;
    }
    known = bosh_resolve(ss->resolver, which == V6 ? BOSH_DNS_AAAA : BOSH_DNS_A, race->name,
                         race->goal.any, ss->now, st->index, st->serial);
    f->state = known.state;
    if (known.state == BOSH_DNS_FAILED) {
        note(race, "the name cannot be looked up: ", known.why);
    }
    for (size_t i = 0; known.state == BOSH_DNS_FOUND && i < known.n && f->n < BOSH_RACE_ADDRS;
         i++) {
        bosh_addr_t *a = &f->addr[f->n++];
        *a = known.addr[i];
        if (which == V6) {
            a->sa.v6.sin6_port = htons(race->goal.port);
        } else {
            a->sa.v4.sin_port = htons(race->goal.port);
        }
    }
}

/* Whether the first address has to wait for a moment, since it had better be one of IPv6. */
static bool holds(const bosh_streams_t *ss, bosh_race_t *race)
{
    if (race->n > 0 || race->family[V6].state != BOSH_DNS_PENDING || race->family[V4].n == 0) {
        return false;
    }
    if (race->hold_until == 0) {
        race->hold_until = ss->now + BOSH_RACE_GRACE;
    }
    return ss->now < race->hold_until;
}

/* ---- sockets ---- */

static void close_run(bosh_streams_t *ss, bosh_race_t *race, unsigned i)
{
    (void)epoll_ctl(ss->epfd, EPOLL_CTL_DEL, race->run[i].conn.fd, NULL);
    bosh_conn_close(&race->run[i].conn);
    BOSH_STAT_ADD(ss, sockets, -1);
    memmove(&race->run[i], &race->run[i + 1], (race->n - i - 1) * sizeof(race->run[0]));
    race->n--;
}

static void name_of(const bosh_race_t *race, const bosh_addr_t *addr, char *dst, size_t size)
{
    bosh_conn_describe(addr, race->goal.path, dst, size);
}

/* Held against the address only if it is the address's fault. */
static void failed(bosh_streams_t *ss, bosh_race_t *race, const bosh_addr_t *addr, apr_status_t rv)
{
    char name[BOSH_BREAKER_NAME], text[120];

    name_of(race, addr, name, sizeof(name));
    apr_strerror(rv, text, sizeof(text));
    race->last = *addr;
    note(race, "cannot connect: ", rv == ETIMEDOUT ? "no answer in time" : text);
    if (rv == ECONNREFUSED || rv == ETIMEDOUT || rv == EHOSTUNREACH || rv == ECONNRESET ||
        rv == ENOENT) {
        bosh_breaker_failed(ss->breaker, name, ss->now);
    } else {
        bosh_breaker_dropped(ss->breaker, name);
    }
}

void bosh_race_stop(bosh_streams_t *ss, bosh_race_t *race, bool late)
{
    char name[BOSH_BREAKER_NAME];

    while (race->n > 0) {
        bosh_addr_t addr = race->run[0].addr;
        if (late && ss->now - race->run[0].since >= BOSH_RACE_DELAY) {
            failed(ss, race, &addr, ETIMEDOUT);
        } else {
            name_of(race, &addr, name, sizeof(name));
            bosh_breaker_dropped(ss->breaker, name);
        }
        close_run(ss, race, 0);
    }
    race->running = false;
}

static void win(bosh_streams_t *ss, bosh_stream_t *st, bosh_race_t *race, const bosh_conn_t *conn,
                const bosh_addr_t *addr)
{
    char name[BOSH_BREAKER_NAME];

    name_of(race, addr, name, sizeof(name));
    bosh_breaker_worked(ss->breaker, name);
    st->conn = *conn;
    bosh_race_stop(ss, race, false);
    race->last = *addr;
}

/* True: the stream has its connection. */
static bool look_at_runs(bosh_streams_t *ss, bosh_stream_t *st, bosh_race_t *race)
{
    for (unsigned i = 0; i < race->n;) {
        bosh_conn_t *c = &race->run[i].conn;
        bosh_addr_t addr = race->run[i].addr;
        apr_status_t rv = c->ops->establish(c);
        if (rv == APR_SUCCESS) {
            bosh_conn_t conn = *c;
            (void)epoll_ctl(ss->epfd, EPOLL_CTL_DEL, c->fd, NULL);
            memmove(&race->run[i], &race->run[i + 1], (race->n - i - 1) * sizeof(race->run[0]));
            race->n--;
            win(ss, st, race, &conn, &addr);
            return true;
        }
        if (APR_STATUS_IS_EAGAIN(rv)) {
            i++;
            continue;
        }
        close_run(ss, race, i);
        failed(ss, race, &addr, rv);
        race->next_at = 0; /* no need to wait for this one */
    }
    return false;
}

/* The next address, of both families in turn; NULL: none at the moment. */
static const bosh_addr_t *next_address(bosh_race_t *race)
{
    for (int i = 0; i < 2; i++) {
        bosh_family_t *f = &race->family[(race->turn + i) & 1];
        if (f->at < f->n) {
            race->turn = (uint8_t)((race->turn + i + 1) & 1);
            return &f->addr[f->at++];
        }
    }
    return NULL;
}

/* Begins with one address. True: the stream has its connection. */
static bool begin(bosh_streams_t *ss, bosh_stream_t *st, bosh_race_t *race, const bosh_addr_t *addr)
{
    struct epoll_event ev = {.events = EPOLLOUT,
                             .data = {.u64 = BOSH_STREAM_TAG(st->index, st->serial)}};
    char name[BOSH_BREAKER_NAME];
    bosh_conn_t *c = &race->run[race->n].conn;
    apr_status_t rv;

    name_of(race, addr, name, sizeof(name));
    if (!bosh_breaker_may(ss->breaker, name, ss->now)) {
        race->passed++;
        race->last = *addr;
        return false;
    }
    BOSH_STAT_ADD(ss, connects, 1);
    rv = bosh_conn_open(c, ss->sockets, addr, race->goal.path);
    if (rv == APR_SUCCESS && c->state != BOSH_CONN_UP &&
        epoll_ctl(ss->epfd, EPOLL_CTL_ADD, c->fd, &ev) != 0) {
        rv = errno;
        bosh_conn_close(c);
    }
    if (rv != APR_SUCCESS) {
        if (race->goal.path != NULL && APR_STATUS_IS_EAGAIN(rv)) { /* its backlog is full */
            race->path_tried = false;
            race->next_at = ss->now + BOSH_RETRY_TIME;
            bosh_breaker_dropped(ss->breaker, name);
        } else {
            failed(ss, race, addr, rv);
        }
        return false;
    }
    BOSH_STAT_ADD(ss, sockets, 1);
    if (c->state == BOSH_CONN_UP) {
        bosh_conn_t conn = *c;
        win(ss, st, race, &conn, addr);
        return true;
    }
    race->run[race->n].addr = *addr;
    race->run[race->n++].since = ss->now;
    race->last = *addr;
    race->next_at = ss->now + BOSH_RACE_DELAY;
    return false;
}

/* A place for one more; with all taken, that of an address that has had its time. */
static bool has_place(bosh_streams_t *ss, bosh_race_t *race)
{
    bosh_addr_t addr = race->run[0].addr;

    if (race->n < BOSH_RACE_MAX) {
        return true;
    }
    if (ss->now - race->run[0].since < BOSH_RACE_PATIENCE) {
        race->next_at = race->run[0].since + BOSH_RACE_PATIENCE;
        return false;
    }
    close_run(ss, race, 0);
    failed(ss, race, &addr, ETIMEDOUT);
    return true;
}

static bool has_more(const bosh_race_t *race)
{
    return race->family[V6].at < race->family[V6].n || race->family[V4].at < race->family[V4].n;
}

/* True: the stream has its connection. */
static bool begin_more(bosh_streams_t *ss, bosh_stream_t *st, bosh_race_t *race)
{
    static const bosh_addr_t none;

    if (race->goal.path != NULL) {
        if (race->path_tried || ss->now < race->next_at) {
            return false;
        }
        race->path_tried = true;
        return begin(ss, st, race, &none);
    }
    while (has_more(race) && !holds(ss, race) && (race->n == 0 || ss->now >= race->next_at) &&
           has_place(ss, race)) {
        if (begin(ss, st, race, next_address(race))) {
            return true;
        }
    }
    return false;
}

static bool is_lost(const bosh_race_t *race)
{
    if (race->goal.path != NULL) {
        return race->path_tried && race->n == 0;
    }
    return race->n == 0 && !has_more(race) && race->family[V6].state != BOSH_DNS_PENDING &&
           race->family[V4].state != BOSH_DNS_PENDING;
}

/* ---- the outside ---- */

bosh_race_state_t bosh_race_go(bosh_streams_t *ss, bosh_stream_t *st, bosh_race_t *race)
{
    look_up(ss, st, race, V6);
    look_up(ss, st, race, V4);
    if (look_at_runs(ss, st, race) || begin_more(ss, st, race)) {
        return BOSH_RACE_WON;
    }
    if (!is_lost(race)) {
        return BOSH_RACE_ON;
    }
    if (race->why[0] == '\0') {
        note(race, "",
             race->passed > 0
                 ? "it is left alone for a while, after it could not be reached several times"
             : race->goal.host != NULL ? "its host has no address"
                                       : "its upstream has no address");
    }
    race->running = false;
    return BOSH_RACE_LOST;
}

apr_time_t bosh_race_next(const bosh_race_t *race)
{
    if (!race->running) {
        return BOSH_NEVER;
    }
    if (race->goal.path != NULL) {
        return race->path_tried ? BOSH_NEVER : race->next_at;
    }
    if (!has_more(race)) {
        return BOSH_NEVER;
    }
    return race->n == 0 ? race->hold_until : race->next_at;
}

void bosh_race_describe(const bosh_race_t *race, char *dst, size_t size)
{
    if (race->goal.path == NULL && race->last.len == 0 && race->goal.host != NULL) {
        snprintf(dst, size, "%s:%u", race->goal.host, (unsigned)race->goal.port);
    } else {
        bosh_conn_describe(&race->last, race->goal.path, dst, size);
    }
}

bool bosh_race_looks_up(const bosh_race_t *race)
{
    return race->name[0] != '\0' && race->last.len == 0;
}
