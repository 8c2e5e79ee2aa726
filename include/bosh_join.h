/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_join: what clients of script syntax send is one stream of text, which they may cut anywhere (XEP-0252 2.2).
 *
 * The text of such a request waits in its slot, RAW and DEFERRED, until it is that rid's turn. Then whoever is
 * told to join (bosh_verdict_t) takes it out together with the beginning that the requests before have left, parses
 * both without the lock, and puts back the stanzas that are complete, and what is left as the next beginning:
 *
 *     s->part "<message><bo"  +  slot 1002 "dy>hi</body></message><presence"
 *       ->  slot 1002: one stanza, RAW no more;  s->part "<presence"
 *
 * Several workers may do so at the same time; the first to come back counts. Who dies in it leaves all as it was.
 * Arena lock held for each function.
 */
#ifndef BOSH_JOIN_H
#define BOSH_JOIN_H

#include "bosh_session.h"

/* A text to be joined, as it was when bosh_join_next() found it. */
typedef struct bosh_join_t {
    bosh_ix session;
    uint32_t serial;
    uint64_t rid;
    size_t head;  /* the start tag of its wrapper, which comes first */
    size_t begun; /* what came before */
    size_t text;  /* what the request brought */
} bosh_join_t;

/* Whether there is text whose turn it is. */
bool bosh_join_due(bosh_arena_t *a, bosh_session_t *s);

/* The next one of the session that the verdict names; false: there is none. */
bool bosh_join_next(bosh_arena_t *a, const bosh_verdict_t *v, bosh_join_t *j);

/* Copies up to n bytes at offset off of start tag, beginning and text; 0: the end, or it has been joined. */
size_t bosh_join_read(bosh_arena_t *a, const bosh_join_t *j, size_t off, char *dst, size_t n);

/*
 * `req` has the stanzas of the text as read, of j's length, and `used` is where the last of them ends
 * (bosh_body_parse_open). Applies what has its turn then. APR_ENOMEM: no chunks, nothing has changed.
 */
apr_status_t bosh_join_done(bosh_arena_t *a, apr_time_t now, const bosh_limits_t *lim,
                            const bosh_join_t *j, const bosh_req_t *req, const char *text,
                            size_t used);

/* The text breaks a rule: the session ends with `cond`. */
void bosh_join_fail(bosh_arena_t *a, apr_time_t now, const bosh_join_t *j, bosh_cond_t cond);

#endif
