/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking streams over from another process. Called by bosh_loop.c on the loop thread.
 *
 * Invariant: an entry counts only if the record says that this stream is on its way to us with this serial;
 * whatever else comes, of an earlier time or an earlier owner of our place, has its descriptor closed and
 * nothing more: never shut down, for the connection may live elsewhere.
 */
#include "bosh_adopt.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bosh_dial.h"
#include "bosh_point.h"
#include "bosh_up.h"
#include "bosh_wire.h"
#include "bosh_undo.h"

static void say(const bosh_streams_t *ss, bosh_log_t level, const char *line)
{
    if (ss->cfg->log != NULL) {
        ss->cfg->log(ss->cfg->log_ctx, level, line);
    }
}

/* The session of an entry, if it is on its way to us with just this transfer. Lock held. */
static bosh_session_t *expected(bosh_streams_t *ss, const bosh_entry_t *e)
{
    bosh_session_t *s = bosh_arena_get(ss->arena, e->index, e->serial);

    return s != NULL && s->link.owner == ss->me && (s->link.flags & BOSH_LINK_TRANSIT) &&
                   s->link.transfer == e->transfer
               ? s
               : NULL;
}

/* Ends a stream of ours whose socket is lost. Lock held. */
static void lose(bosh_streams_t *ss, bosh_session_t *s)
{
    bosh_arena_touch(ss->arena, s);
    s->link.flags &= (uint8_t) ~(BOSH_LINK_TRANSIT | BOSH_LINK_MAILED);
    s->link.giver = 0;
    s->armed = BOSH_NEVER;
    ss->arena->h->count.lost++;
    bosh_session_link_over(ss->arena, ss->now, s, BOSH_COND_REMOTE_CONNECTION_FAILED);
}

/* No descriptor, or no memory for it: the giver has it still. */
static void give_back(bosh_streams_t *ss, const bosh_entry_t *e)
{
    bosh_session_t *s;
    bool lost = false;

    bosh_lock(ss->lock);
    s = expected(ss, e);
    if (s != NULL) {
        uint32_t giver = s->link.giver;
        if (giver != 0 && bosh_arena_peer(ss->arena, giver)->state != BOSH_PEER_FREE) {
            s->link.flags &= (uint8_t) ~(BOSH_LINK_TRANSIT | BOSH_LINK_MAILED);
            s->link.giver = 0;
            bosh_arena_own(ss->arena, s, giver);
        } else {
            lose(ss, s);
            lost = true;
        }
    }
    bosh_unlock(ss->lock);
    if (lost) {
        bosh_stream_look(ss, e->index, e->serial);
    }
}

bosh_stream_t *bosh_adopt_wrap(bosh_streams_t *ss, bosh_ix index, uint32_t serial, int fd)
{
    bosh_stream_t *st = ss->table[index];
    int family = AF_INET;
    socklen_t n = sizeof(family);

    if (st != NULL) {
        bosh_stream_free(ss, st); /* of an earlier session, or time */
    }
    (void)getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &n);
    st = bosh_stream_new(ss, index, serial);
    if (st == NULL) {
        close(fd);
        return NULL;
    }
    if (bosh_conn_adopt(&st->conn, ss->sockets, fd, family, BOSH_CONN_UP) != APR_SUCCESS) {
        bosh_stream_free(ss, st);
        return NULL;
    }
    BOSH_STAT_ADD(ss, sockets, 1);
    st->given = true; /* not ours yet: it must not be shut down */
    st->local = family == AF_UNIX;
    return st;
}

void bosh_adopt_derive(bosh_stream_t *st, const bosh_session_t *s)
{
    st->given = false;
    st->phase = s->link.phase;
    st->link_at = s->link.deadline;
    st->midway = s->link.down.head_open != 0;
    st->said_end = st->phase == BOSH_LINK_CLOSING;
    if (st->phase == BOSH_LINK_OPEN && bosh_stream_keepalive(st) > 0) {
        st->quiet_at = s->link.wrote + bosh_stream_keepalive(st);
    }
}

static void adopt(bosh_streams_t *ss, const bosh_entry_t *e, int fd)
{
    char to[BOSH_MAX_DOMAIN + 1];
    const bosh_target_t *target;
    bosh_stream_t *st;
    bosh_session_t *s;
    uint16_t row;
    size_t raw = 0;

    bosh_lock(ss->lock);
    s = expected(ss, e);
    if (s != NULL) {
        memcpy(to, s->to, sizeof(to));
    }
    bosh_unlock(ss->lock);
    if (s == NULL) {
        close(fd); /* of another time */
        return;
    }
    target = bosh_dial_target(ss, to, &row);
    st = bosh_adopt_wrap(ss, e->index, e->serial, fd);
    if (st == NULL) {
        give_back(ss, e);
        return;
    }
    st->target = target;
    bosh_escrow_park(ss, st); /* while the giver has it in its own, too */
    BOSH_POINT("heir-parked");
    bosh_lock(ss->lock);
    s = expected(ss, e);
    if (s != NULL) {
        bosh_arena_touch(ss->arena, s);
        s->link.flags &= (uint8_t) ~(BOSH_LINK_TRANSIT | BOSH_LINK_MAILED | BOSH_LINK_KEPT);
        s->link.flags |= st->parked ? BOSH_LINK_KEPT : 0;
        BOSH_POINT("heir-taking");
        s->link.giver = 0;
        s->link.upstream = row;
        ss->arena->h->count.moved++;
        bosh_adopt_derive(st, s);
        raw = s->link.raw.len;
    }
    bosh_unlock(ss->lock);
    if (s == NULL) {
        bosh_stream_free(ss, st);
        return;
    }
    BOSH_POINT("heir-took");
    bosh_stream_log(ss, st, BOSH_LOG_DEBUG, "taken over with %u bytes half read", (unsigned)raw);
    if (raw > 0) {
        bosh_up_resume(ss, st);
    }
    bosh_stream_look(ss, e->index, e->serial);
}

static void take_message(bosh_streams_t *ss, const bosh_message_t *msg, const int *fds,
                         uint32_t nfds)
{
    char line[160];
    uint32_t i;

    BOSH_POINT("heir-received");
    for (i = 0; i < msg->n; i++) {
        if (i < nfds) {
            adopt(ss, &msg->entry[i], fds[i]);
        } else {
            give_back(ss, &msg->entry[i]);
        }
    }
    for (; i < nfds; i++) {
        close(fds[i]);
    }
    bosh_lock(ss->lock);
    bosh_arena_mail(ss->arena, msg->giver, BOSH_MAIL_SESSION, 0); /* to look at its parcels */
    bosh_unlock(ss->lock);
    if (nfds < msg->n) {
        snprintf(line, sizeof(line),
                 "BH205: no descriptors for %u of %u streams from peer %u, which goes on serving "
                 "them; raise the limit of open files",
                 msg->n - nfds, msg->n, msg->giver);
        say(ss, BOSH_LOG_WARNING, line);
    }
}

void bosh_adopt_receive(bosh_streams_t *ss)
{
    bosh_message_t msg = {0};
    int fds[BOSH_BATCH];
    uint32_t nfds;

    for (int i = 0; i < BOSH_RECEIVE_MAX; i++) {
        if (!bosh_wire_receive(ss->cfg->wakers, ss->me, &msg, fds, &nfds)) {
            return;
        }
        take_message(ss, &msg, fds, nfds);
    }
}

/* Ends those among the next records that will not come any more; false: that was all. */
static bool lose_some(bosh_streams_t *ss, bosh_ix *from, uint32_t *lost)
{
    uint32_t max = 256;
    bool more;

    bosh_lock(ss->lock);
    for (; *from < ss->arena->h->fresh_session && max > 0; (*from)++, max--) {
        bosh_session_t *s = bosh_arena_session(ss->arena, *from);
        if (s->state != BOSH_ST_FREE && s->link.owner == ss->me && s->link.giver == 0 &&
            (s->link.flags & BOSH_LINK_TRANSIT)) {
            lose(ss, s);
            bosh_arena_mail(ss->arena, ss->me, BOSH_MAIL_SESSION | *from, s->serial);
            (*lost)++;
        }
    }
    more = *from < ss->arena->h->fresh_session;
    bosh_unlock(ss->lock);
    return more;
}

void bosh_adopt_orphans(bosh_streams_t *ss)
{
    bosh_message_t msg = {0};
    int fds[BOSH_BATCH];
    uint32_t nfds, lost = 0;
    bosh_ix from = 1;
    char line[160];

    ss->orphans = false;
    /* What the dead giver sent is all in the queue. */
    while (bosh_wire_receive(ss->cfg->wakers, ss->me, &msg, fds, &nfds)) {
        take_message(ss, &msg, fds, nfds);
    }
    while (lose_some(ss, &from, &lost)) {
    }
    if (lost > 0) {
        snprintf(line, sizeof(line),
                 "BH206: a process died while it gave streams away: %u of them were lost, their "
                 "clients get remote-connection-failed",
                 lost);
        say(ss, BOSH_LOG_WARNING, line);
    }
}
