/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The session's half of the upstream stream: what the owner's loop reads goes up, what the loop has written
 * makes room, and what happens when the stream or the loop's whole process is gone. Called under the arena
 * lock by the loop thread of the owner (peer_died: of the heir).
 */
#include "bosh_session.h"

#include <string.h>

#include "bosh_answer.h"
#include "bosh_multi.h"
#include "bosh_pace.h"
#include "bosh_point.h"
#include "bosh_window.h"
#include "bosh_undo.h"

static size_t print_header(char *dst, const char *to, const char *lang, const char *version)
{
    char *p = dst;
    size_t n;

#define LITERAL(text) (memcpy(p, text, sizeof(text) - 1), p += sizeof(text) - 1)
    LITERAL("<stream:stream xmlns='" BOSH_NS_CLIENT "' xmlns:stream='" BOSH_NS_STREAMS "' to='");
    n = bosh_body_escape(p, 6 * BOSH_MAX_DOMAIN, to);
    p += n;
    LITERAL("' version='");
    n = bosh_body_escape(p, 32, version[0] != '\0' ? version : "1.0"); /* */
    p += n;
    if (lang[0] != '\0') {
        LITERAL("' xml:lang='");
        n = bosh_body_escape(p, 6 * BOSH_MAX_LANG, lang);
        p += n;
    }
    LITERAL("'>");
#undef LITERAL
    return (size_t)(p - dst);
}

size_t bosh_session_print_header(const bosh_session_t *s, char *dst)
{
    return print_header(dst, s->to, s->lang, s->xmpp_version);
}

/* the restart's own lang and version, else those of the creation. Its `to` can only be the session's:
 * another one would reach a domain that no BoshUpstream line names (B-087). */
size_t bosh_session_print_restart(const bosh_session_t *s, const bosh_req_t *req, char *dst)
{
    return print_header(dst, s->to, req->lang != NULL ? req->lang : s->lang,
                        req->xmpp_version != NULL ? req->xmpp_version : s->xmpp_version);
}

/* A server's string with its NUL, empty unless it fits: a cut one would be a wrong one. Returns the bytes. */
static size_t keep_text(char *dst, size_t size, const char *src)
{
    size_t n = src != NULL ? strlen(src) : 0;

    if (n >= size) {
        n = 0;
    }
    if (n > 0) {
        memcpy(dst, src, n);
    }
    dst[n] = '\0';
    return n + 1;
}

/* What the client is to be told of the header, once. All or nothing. */
static apr_status_t keep_hello(bosh_arena_t *a, bosh_link_t *link, const bosh_split_header_t *hdr)
{
    enum { ID = BOSH_MAX_STREAMID + 1, FROM = BOSH_MAX_DOMAIN + 1, VERSION = 8 };
    char text[ID + FROM + VERSION];
    bosh_bytes_t hello = {0};
    size_t n = keep_text(text, ID, hdr->id);
    apr_status_t rv;

    _Static_assert(sizeof(text) <= BOSH_CHUNK_DATA, "it is read as one piece");
    n += keep_text(text + n, FROM, hdr->from);
    n += keep_text(text + n, VERSION, hdr->version);
    rv = bosh_bytes_append(a, &hello, text, n, BOSH_PRIO_INPUT);
    if (rv == APR_SUCCESS) {
        bosh_bytes_clear(a, &link->hello);
        link->hello = hello;
    }
    return rv;
}

static apr_status_t take_header(bosh_arena_t *a, bosh_session_t *s, const bosh_split_header_t *hdr)
{
    bosh_link_t *link = &s->link;

    bosh_bytes_clear(a, &link->prime);
    if (hdr->prime != NULL && bosh_bytes_append(a, &link->prime, hdr->prime, hdr->prime_len,
                                                BOSH_PRIO_INPUT) != APR_SUCCESS) {
        return APR_ENOMEM;
    }
    if (!(s->flags & BOSH_SESS_ANNOUNCED) && keep_hello(a, link, hdr) != APR_SUCCESS) {
        return APR_ENOMEM;
    }
    keep_text(link->lang, sizeof(link->lang), hdr->lang);
    link->flags |= BOSH_LINK_HAS_HEADER;
    /* a server from before XMPP 1.0 names no version and sends no features. */
    link->phase = hdr->version == NULL ? BOSH_LINK_OPEN : BOSH_LINK_FEATURES;
    return APR_SUCCESS;
}

/* One element of the server's into `up`. For a client that has gone nothing is kept. */
static apr_status_t take_event(bosh_arena_t *a, apr_time_t now, bosh_session_t *s,
                               const bosh_split_event_t *ev, uint64_t raw_base,
                               const bosh_split_header_t *hdr)
{
    bosh_link_t *link = &s->link;
    bosh_item_t type;
    apr_status_t rv;

    switch (ev->type) {
    case BOSH_SPLIT_HEADER:
        return take_header(a, s, hdr);
    case BOSH_SPLIT_FEATURES:
        type = BOSH_ITEM_FEATURES;
        break;
    case BOSH_SPLIT_SASL:
        type = BOSH_ITEM_SASL;
        break;
    case BOSH_SPLIT_ERROR:
        type = BOSH_ITEM_ERROR;
        break;
    case BOSH_SPLIT_STANZA:
        type = BOSH_ITEM_STANZA;
        break;
    default: /* TLS and END concern the loop alone */
        return APR_SUCCESS;
    }
    if (ev->news != 0) {
        s->flags |= (ev->news & BOSH_NEWS_LOGIN ? BOSH_SESS_LOGIN : 0) |
                    (ev->news & BOSH_NEWS_SM ? BOSH_SESS_SM : 0);
    }
    if (bosh_multi_state(s) == BOSH_ST_LIVE) {
        rv = bosh_queue_append_event(a, &link->up, type, &link->raw, raw_base, ev, BOSH_PRIO_INPUT);
        if (rv != APR_SUCCESS) {
            return rv;
        }
        link->up_single += type == BOSH_ITEM_FEATURES || type == BOSH_ITEM_SASL;
    }
    if (type == BOSH_ITEM_FEATURES && link->phase == BOSH_LINK_FEATURES) {
        link->phase = BOSH_LINK_OPEN;
    } else if (type == BOSH_ITEM_ERROR) {
        link->flags |= BOSH_LINK_ERROR;
        /* Now, not when the loop has closed the stream: the error travels in the terminal body, and its
         * holder may look in between. */
        bosh_multi_over(a, now, s, BOSH_COND_REMOTE_STREAM_ERROR);
    }
    return APR_SUCCESS;
}

static void consume_raw(bosh_arena_t *a, bosh_session_t *s, uint64_t upto, uint64_t *raw_base)
{
    if (upto > *raw_base) {
        bosh_bytes_consume(a, &s->link.raw, (size_t)(upto - *raw_base));
        *raw_base = upto;
    }
}

apr_status_t bosh_session_up(bosh_arena_t *a, apr_time_t now, bosh_session_t *s,
                             const bosh_split_event_t *ev, size_t n, const bosh_split_header_t *hdr,
                             uint64_t boundary, uint64_t *raw_base, size_t *done)
{
    apr_status_t rv = APR_SUCCESS;
    size_t i;

    bosh_arena_touch(a, s);
    for (i = 0; i < n; i++) {
        rv = take_event(a, now, s, &ev[i], *raw_base, hdr);
        if (rv != APR_SUCCESS) {
            break;
        }
    }
    *done = i;
    BOSH_POINT("up-appended");
    consume_raw(a, s, rv == APR_SUCCESS ? boundary : ev[i].start, raw_base);
    s = bosh_multi_root(a, s);
    if (s != NULL) {
        bosh_answer_deliver(a, s);
    }
    return rv;
}

bool bosh_session_may_read(bosh_arena_t *a, bosh_session_t *s, const bosh_limits_t *lim)
{
    /* `raw` holds at most one unfinished element, which the splitter bounds; it may not count here, or an
     * element larger than the queue would never be finished. */
    bool may = (size_t)BOSH_QUEUE_BYTES(&s->link.up) < lim->queue_size &&
               bosh_arena_room(a, 1, BOSH_PRIO_INPUT);

    if (may) {
        s->link.flags &= (uint8_t)~BOSH_LINK_STALLED;
    } else {
        bosh_session_t *of = s->root != 0 ? bosh_arena_get(a, s->root, s->root_serial) : s;
        if (!(s->link.flags & BOSH_LINK_STALLED) && of != NULL &&
            bosh_window_slot(a, of, of->processed + 1) != NULL) {
            bosh_answer_mail_owner(a, of); /* full both ways: one more request is let in */
        }
        s->link.flags |= BOSH_LINK_STALLED;
    }
    return may;
}

void bosh_session_sent(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, const bosh_limits_t *lim)
{
    bosh_arena_touch(a, s);
    s = bosh_multi_root(a, s);
    if (s != NULL && bosh_window_slot(a, s, s->processed + 1) != NULL) {
        bosh_answer_settle(a, now, s, lim);
    }
}

void bosh_session_link_over(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, bosh_cond_t cond)
{
    bosh_link_t *link = &s->link;

    bosh_arena_touch(a, s);
    if (link->phase == BOSH_LINK_CLOSED) {
        return;
    }
    link->phase = BOSH_LINK_CLOSED;
    link->flags &= (uint8_t)~BOSH_LINK_STALLED;
    bosh_queue_clear(a, &link->down);
    bosh_bytes_clear(a, &link->raw);
    bosh_bytes_clear(a, &link->prime);
    if (s->flags & BOSH_SESS_BACK) { /* there is nobody left to give it back to */
        s->flags &= ~BOSH_SESS_BACK;
        if (s->state == BOSH_ST_TOMB) {
            bosh_queue_clear(a, &link->up);
            link->up_single = 0;
        }
    }
    bosh_multi_over(a, now, s, cond);
}

bool bosh_session_reconcile(bosh_arena_t *a, bosh_session_t *s, uint64_t in, uint64_t out,
                            uint64_t *unsaid)
{
    bosh_link_t *link = &s->link;
    uint64_t more;

    *unsaid = out < link->out ? link->out - out : 0;
    if (link->phase == BOSH_LINK_CLOSING) {
        return true; /* nothing is delivered any more, either way */
    }
    if (in != link->in) {
        if (in < link->in || in - link->in > bosh_bytes_reserved(a, &link->raw)) {
            return false;
        }
        bosh_bytes_commit(a, &link->raw, (size_t)(in - link->in));
        link->in = in;
    }
    more = out > link->out ? out - link->out : 0;
    if (more == 0) {
        return true;
    }
    if (link->phase != BOSH_LINK_OPEN || more > link->down.b.len) {
        return false;
    }
    link->out = out;
    return bosh_queue_consume(a, &link->down, (size_t)more) == more;
}

/* The holders that lived in the dead peer are gone; says whether one of them held an open request. */
static bool orphan_slots(bosh_arena_t *a, bosh_session_t *s, uint32_t dead)
{
    bool open = false;

    for (uint32_t i = 0; i < a->h->sizes.slots; i++) {
        bosh_slot_t *slot = &s->slots[i];
        if (slot->state != BOSH_SLOT_FREE && slot->holder.peer == dead) {
            open = open || slot->state != BOSH_SLOT_ANSWERED;
            slot->holder.peer = 0;
            slot->flags &= (uint16_t)~BOSH_SLOT_MAILED;
        }
    }
    return open;
}

/* The dead peer was giving this stream away, or was to get it. True: the stream goes back to its giver. */
static bool survives(bosh_arena_t *a, bosh_session_t *s, uint32_t dead)
{
    bosh_link_t *link = &s->link;
    uint32_t giver = link->giver;

    if (!(link->flags & BOSH_LINK_TRANSIT)) {
        return false;
    }
    if (giver == dead) {
        link->giver = giver = 0;
        bosh_answer_mail_owner(a, s);
    }
    if (link->owner != dead) {
        return false;
    }
    link->flags &= (uint8_t) ~(BOSH_LINK_TRANSIT | BOSH_LINK_MAILED);
    if (giver == 0 || bosh_arena_peer(a, giver)->state == BOSH_PEER_FREE) {
        return false;
    }
    link->giver = 0;
    bosh_arena_own(a, s, giver);
    bosh_answer_mail_owner(a, s);
    return true;
}

/* Whether both have read the same configuration, so that a row of the one's table is one of the other's. */
static bool same_rows(bosh_arena_t *a, uint32_t dead, uint32_t heir)
{
    return bosh_arena_peer(a, dead)->generation == bosh_arena_peer(a, heir)->generation;
}

bool bosh_session_peer_died(bosh_arena_t *a, apr_time_t now, uint32_t dead, uint32_t heir,
                            bosh_ix *from, uint32_t max, uint32_t *lost)
{
    bosh_ix end = a->h->sizes.sessions;

    if (*from == 0) {
        *from = 1;
    }
    for (; *from <= end && max > 0; (*from)++, max--) {
        bosh_session_t *s = bosh_arena_session(a, *from);
        if (s->state == BOSH_ST_FREE) {
            continue;
        }
        bosh_arena_touch(a, s);
        if (orphan_slots(a, s, dead)) {
            bosh_answer_touch(a, now, s);
            bosh_answer_deliver(a, s);
            bosh_pace_holder_gone(a, s);
        }
        if (!survives(a, s, dead) && s->link.owner == dead) {
            bosh_arena_own(a, s, heir);
            s->link.flags &= (uint8_t)~BOSH_LINK_MAILED;
            s->armed = BOSH_NEVER;
            if (s->link.phase == BOSH_LINK_CONNECT && heir != 0) {
                if (!same_rows(a, dead, heir)) { /* nothing was said yet: once more */
                    s->link.upstream = BOSH_ROW_UNKNOWN;
                }
            } else if (s->link.phase != BOSH_LINK_CLOSED) {
                (*lost)++;
                a->h->count.lost++;
                bosh_session_link_over(a, now, s, BOSH_COND_REMOTE_CONNECTION_FAILED);
            }
            bosh_answer_mail_owner(a, s);
        }
    }
    bosh_arena_commit(a);
    return *from <= end;
}
