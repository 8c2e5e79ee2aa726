/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Duplicates of streams in the parent's socketpairs. Called by the other files of the loop, on its thread.
 *
 * Invariant: an entry leaves the front of a queue only after its stream, if it lives, has been parked again
 * behind it (or in another queue): at no moment could the death of this process lose it.
 */
#include "bosh_escrow.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "bosh_stream.h"
#include "bosh_tls.h"

/* One descriptor, aligned as cmsghdr wants it. */
typedef union ancillary_t {
    char space[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
} ancillary_t;

/* ---- the queues ---- */

static bool put(const bosh_wakers_t *w, uint32_t peer, bosh_kept_t k, int fd)
{
    ancillary_t anc;
    struct iovec iov = {&k, sizeof(k)};
    struct msghdr h = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = anc.space,
                       .msg_controllen = sizeof(anc.space)};
    struct cmsghdr *c;
    ssize_t r;

    memset(&anc, 0, sizeof(anc));
    c = CMSG_FIRSTHDR(&h);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof(int));
    do {
        r = sendmsg(w->kept_out[peer - 1], &h, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (r < 0 && errno == EINTR);
    return r >= 0;
}

/* The front entry; fd NULL: its name alone. One that makes no sense has index 0. */
static bool look(const bosh_wakers_t *w, uint32_t peer, bosh_kept_t *k, int *fd)
{
    ancillary_t anc;
    struct iovec iov = {k, sizeof(*k)};
    struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
    struct cmsghdr *c;
    ssize_t r;

    if (fd != NULL) {
        *fd = -1;
        memset(&anc, 0, sizeof(anc));
        h.msg_control = anc.space;
        h.msg_controllen = sizeof(anc.space);
    }
    do {
        r = recvmsg(w->kept_in[peer - 1], &h, MSG_DONTWAIT | MSG_PEEK | MSG_CMSG_CLOEXEC);
    } while (r < 0 && errno == EINTR);
    if (r < 0) {
        return false;
    }
    c = fd != NULL ? CMSG_FIRSTHDR(&h) : NULL;
    if (c != NULL && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
        c->cmsg_len >= CMSG_LEN(sizeof(int))) {
        memcpy(fd, CMSG_DATA(c), sizeof(int));
    }
    if (r != sizeof(*k)) {
        k->index = k->serial = 0;
    }
    return true;
}

bool bosh_escrow_next(const bosh_wakers_t *w, uint32_t peer, bosh_kept_t *k, int *fd)
{
    return look(w, peer, k, fd);
}

bool bosh_escrow_drop(const bosh_wakers_t *w, uint32_t peer)
{
    bosh_kept_t k;
    ssize_t r;

    do { /* without room for it the kernel closes the descriptor */
        r = recv(w->kept_in[peer - 1], &k, sizeof(k), MSG_DONTWAIT);
    } while (r < 0 && errno == EINTR);
    return r >= 0;
}

void bosh_escrow_discard(const bosh_wakers_t *w, uint32_t peer)
{
    while (w->kept_in != NULL && bosh_escrow_drop(w, peer)) {
    }
}

/* ---- our own ---- */

static bool is_on(const bosh_streams_t *ss)
{
    return ss->cfg->escrow && ss->cfg->wakers != NULL && ss->cfg->wakers->kept_in != NULL;
}

/* The others read it to know what is left of the limit. */
static void publish(bosh_streams_t *ss)
{
    __atomic_store_n(&bosh_arena_peer(ss->arena, ss->me)->parked, ss->escrow.parked,
                     __ATOMIC_RELAXED);
}

void bosh_escrow_open(bosh_streams_t *ss)
{
    struct rlimit r;
    rlim_t limit = 0;

    memset(&ss->escrow, 0, sizeof(ss->escrow));
    if (!is_on(ss)) {
        return;
    }
    if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
        limit = r.rlim_cur > UINT32_MAX / 100 ? UINT32_MAX / 100 : r.rlim_cur;
    }
    ss->escrow.limit = (uint32_t)limit * BOSH_ESCROW_SHARE / 100;
    bosh_escrow_discard(ss->cfg->wakers, ss->me);
    publish(ss);
}

static bool park(bosh_streams_t *ss, bosh_stream_t *st)
{
    bosh_escrow_t *e = &ss->escrow;
    bosh_kept_t k = {st->index, st->serial};

    if (e->others + e->parked >= e->limit || !put(ss->cfg->wakers, ss->me, k, st->conn.fd)) {
        return false;
    }
    e->parked++;
    st->parked = true;
    publish(ss);
    return true;
}

static void count_missing(bosh_streams_t *ss, bosh_stream_t *st, bool missing)
{
    if (st->unparked != missing) {
        st->unparked = missing;
        ss->escrow.missing += missing ? 1 : (uint32_t)-1;
    }
}

void bosh_escrow_park(bosh_streams_t *ss, bosh_stream_t *st)
{
    if (!is_on(ss) || st->local || st->parked || bosh_tls_is_on(&st->conn)) {
        return;
    }
    if (!park(ss, st)) {
        count_missing(ss, st, true);
        ss->escrow.refused++;
    }
}

void bosh_escrow_forget(bosh_streams_t *ss, bosh_stream_t *st)
{
    count_missing(ss, st, false);
    if (st->parked) {
        st->parked = false;
        ss->escrow.dead++;
    }
}

/* Notes in the record what has changed since it was parked first, for whoever looks at it. */
static void note(bosh_streams_t *ss, bosh_stream_t *st)
{
    bosh_session_t *s = bosh_stream_lock(ss, st);

    if (s != NULL) {
        s->link.flags &= (uint8_t)~BOSH_LINK_KEPT;
        s->link.flags |= st->parked ? BOSH_LINK_KEPT : 0;
        bosh_stream_unlock(ss);
    }
}

static void park_missing(bosh_streams_t *ss)
{
    for (uint32_t i = 1; i <= ss->ntable && ss->escrow.missing > 0; i++) {
        bosh_stream_t *st = ss->table[i];
        if (st == NULL || !st->unparked || st->given || st->conn.state != BOSH_CONN_UP) {
            continue;
        }
        if (!park(ss, st)) {
            return;
        }
        count_missing(ss, st, false);
        note(ss, st);
    }
}

/* Looks at the front of our queue: a living stream goes to the end of it, a dead one goes. False: empty. */
static bool turn_over(bosh_streams_t *ss)
{
    const bosh_wakers_t *w = ss->cfg->wakers;
    bosh_escrow_t *e = &ss->escrow;
    bosh_stream_t *st;
    bosh_kept_t k = {0, 0};

    if (!look(w, ss->me, &k, NULL)) {
        e->parked = e->dead = 0;
        return false;
    }
    st = k.index > 0 && k.index <= ss->ntable ? ss->table[k.index] : NULL;
    if (st == NULL || st->serial != k.serial || !st->parked) {
        e->dead -= e->dead > 0;
        e->parked -= e->parked > 0;
        return bosh_escrow_drop(w, ss->me);
    }
    if (put(w, ss->me, k, st->conn.fd)) {
        return bosh_escrow_drop(w, ss->me);
    }
    /* No room for one more: make it. */
    e->parked -= e->parked > 0;
    st->parked = false;
    if (bosh_escrow_drop(w, ss->me) && !park(ss, st)) {
        count_missing(ss, st, true);
        e->refused++;
        note(ss, st);
    }
    return true;
}

static void tidy(bosh_streams_t *ss)
{
    bosh_escrow_t *e = &ss->escrow;

    if (e->dead <= BOSH_ESCROW_TIDY || e->dead <= e->parked / 2) {
        return;
    }
    for (uint32_t n = 0; n < BOSH_ESCROW_TIDY_MAX && e->dead > 0 && turn_over(ss); n++) {
    }
    publish(ss);
}

static void count_others(bosh_streams_t *ss)
{
    uint32_t n = 0;

    for (uint32_t i = 1; i <= ss->arena->h->sizes.peers; i++) {
        n += i != ss->me ? __atomic_load_n(&bosh_arena_peer(ss->arena, i)->parked, __ATOMIC_RELAXED)
                         : 0;
    }
    ss->escrow.others = n;
}

static void warn(bosh_streams_t *ss)
{
    bosh_escrow_t *e = &ss->escrow;
    char line[300];

    if (e->refused == 0 || (e->told_at != 0 && ss->now - e->told_at < BOSH_ESCROW_TELL_TIME)) {
        return;
    }
    snprintf(
        line, sizeof(line),
        "BH207: %u streams could not be put into escrow, %u are without it now: they would not "
        "survive a crash of this process (%u of at most %u duplicates are parked); raise the "
        "limit of open files",
        e->refused, e->missing, e->parked + e->others, e->limit);
    if (ss->cfg->log != NULL) {
        ss->cfg->log(ss->cfg->log_ctx, BOSH_LOG_WARNING, line);
    }
    e->refused = 0;
    e->told_at = ss->now;
}

void bosh_escrow_sweep(bosh_streams_t *ss)
{
    if (!is_on(ss)) {
        return;
    }
    count_others(ss);
    tidy(ss);
    park_missing(ss);
    warn(ss);
}

void bosh_escrow_close(bosh_streams_t *ss)
{
    if (is_on(ss)) {
        bosh_escrow_discard(ss->cfg->wakers, ss->me);
        ss->escrow.parked = ss->escrow.dead = 0;
        publish(ss);
    }
}
