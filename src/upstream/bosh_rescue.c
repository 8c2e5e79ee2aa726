/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking streams over from a dead process. Called by bosh_peer.c on the loop thread.
 *
 * The dead one may have read what it did not commit to the arena, and written what it did not consume there.
 * Nobody has to guess: the kernel counts the bytes that went through a socket, the record says how many of
 * them it knows of (link.in, link.out), what was read lies in the reserved tail of link.raw, and what was
 * written is the head of link.down. Text of our own that was not written follows from the phase.
 *
 * Invariant: an entry is removed from the dead one's queue after its stream has been parked in ours and the
 * record names us, or when it is of no use to anybody.
 */
#include "bosh_rescue.h"

#include <string.h>
#include <unistd.h>

#include "bosh_adopt.h"
#include "bosh_dial.h"
#include "bosh_down.h"
#include "bosh_point.h"
#include "bosh_tcpinfo.h"
#include "bosh_up.h"
#include "bosh_undo.h"

/* The session of an entry, if the dead peer had its stream. Lock held. */
static bosh_session_t *orphaned(bosh_streams_t *ss, const bosh_kept_t *k, uint32_t dead)
{
    bosh_session_t *s = bosh_arena_get(ss->arena, k->index, k->serial);
    const bosh_link_t *link;
    bool transit;

    if (s == NULL) {
        return NULL;
    }
    link = &s->link;
    transit = (link->flags & BOSH_LINK_TRANSIT) != 0;
    if (link->phase < BOSH_LINK_HEADER || link->phase > BOSH_LINK_CLOSING) {
        return NULL;
    }
    /* On its way to the dead one its giver has it still; on its way from it nobody may have it. */
    if (transit && link->giver != dead) {
        return NULL;
    }
    return link->owner == dead || transit ? s : NULL;
}

/* The end of our own text that the socket has not got; false: who knows what it was. Lock held. */
static bool find_unsaid(const bosh_session_t *s, uint64_t unsaid, char *dst, size_t *n)
{
    size_t len;

    *n = (size_t)unsaid;
    if (unsaid == 0) {
        return true;
    }
    if (s->link.phase == BOSH_LINK_CLOSING) {
        len = sizeof(BOSH_STREAM_END) - 1;
        memcpy(dst, BOSH_STREAM_END, len);
    } else if (s->link.phase == BOSH_LINK_OPEN) { /* a keep-alive, and nothing was written since */
        len = sizeof(BOSH_STREAM_SPACE) - 1;
        memcpy(dst, BOSH_STREAM_SPACE, len);
    } else if (s->link.flags & BOSH_LINK_ODD_HEADER) {
        return false;
    } else {
        len = bosh_session_print_header(s, dst);
    }
    if (unsaid > len) {
        return false;
    }
    memmove(dst, dst + len - unsaid, *n);
    return true;
}

/* Makes the record ours. False: it does not agree with the socket. Lock held. */
static bool take(bosh_streams_t *ss, bosh_stream_t *st, bosh_session_t *s, uint64_t in,
                 uint64_t out, char *text, size_t *n)
{
    uint64_t unsaid;

    bosh_arena_touch(ss->arena, s);
    if (!bosh_session_reconcile(ss->arena, s, in, out, &unsaid) ||
        !find_unsaid(s, unsaid, text, n)) {
        return false;
    }
    s->link.flags &= (uint8_t) ~(BOSH_LINK_TRANSIT | BOSH_LINK_MAILED | BOSH_LINK_KEPT);
    s->link.flags |= st->parked ? BOSH_LINK_KEPT : 0;
    s->link.giver = 0;
    s->armed = BOSH_NEVER;
    BOSH_POINT("rescue-taking");
    bosh_arena_own(ss->arena, s, ss->me);
    bosh_session_sent(ss->arena, ss->now, s, bosh_stream_limits(ss, st));
    ss->arena->h->count.rescued++;
    bosh_adopt_derive(st, s);
    return true;
}

/* An object around the descriptor, parked. NULL: no memory; the descriptor is closed. */
static bosh_stream_t *wrap(bosh_streams_t *ss, const bosh_kept_t *k, int fd, const char *to,
                           uint16_t *row)
{
    bosh_stream_t *st = bosh_adopt_wrap(ss, k->index, k->serial, fd);

    if (st != NULL) {
        st->target = bosh_dial_target(ss, to, row);
        bosh_escrow_park(ss, st);
    }
    return st;
}

static bool rescue(bosh_streams_t *ss, const bosh_kept_t *k, int fd, uint32_t dead)
{
    char to[BOSH_MAX_DOMAIN + 1], text[BOSH_STREAM_HEADER_MAX];
    uint64_t in = 0, out = 0;
    bosh_stream_t *st;
    bosh_session_t *s;
    uint16_t row;
    size_t n = 0, raw = 0;
    bool sure;

    bosh_lock(ss->lock);
    s = orphaned(ss, k, dead);
    if (s != NULL) {
        memcpy(to, s->to, sizeof(to));
    }
    bosh_unlock(ss->lock);
    if (s == NULL) {
        close(fd);
        return false;
    }
    sure = bosh_tcpinfo_read(fd, &in, &out);
    st = wrap(ss, k, fd, to, &row);
    if (st == NULL) {
        return false;
    }
    BOSH_POINT("rescue-parked");
    bosh_lock(ss->lock);
    s = orphaned(ss, k, dead);
    sure = s != NULL && sure && take(ss, st, s, in, out, text, &n);
    if (sure) {
        s->link.upstream = row;
        raw = s->link.raw.len;
    }
    bosh_unlock(ss->lock);
    if (!sure) {
        st->given = s == NULL; /* ours to shut down, or somebody else's connection */
        bosh_stream_free(ss, st);
        return false;
    }
    BOSH_POINT("rescue-took");
    bosh_stream_log(ss, st, BOSH_LOG_DEBUG, "rescued with %u bytes half read", (unsigned)raw);
    if (n > 0) {
        bosh_down_say(ss, st, text, n);
    }
    if (raw > 0) {
        bosh_up_resume(ss, st);
    }
    bosh_stream_look(ss, k->index, k->serial);
    return true;
}

uint32_t bosh_rescue(bosh_streams_t *ss, uint32_t dead)
{
    const bosh_wakers_t *w = ss->cfg->wakers;
    bosh_kept_t k = {0, 0};
    uint32_t n = 0;
    int fd;

    if (!ss->cfg->escrow || w == NULL || w->kept_in == NULL) {
        return 0;
    }
    while (bosh_escrow_next(w, dead, &k, &fd)) {
        n += fd >= 0 && rescue(ss, &k, fd, dead);
        (void)bosh_escrow_drop(w, dead);
    }
    return n;
}
