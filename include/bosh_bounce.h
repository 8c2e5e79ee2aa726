/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_bounce: what a client would say to stanzas that it could not take (XEP-0206 section 7, RFC 6121 section 8).
 * Pure; one thread at a time.
 *
 *   presence                                  nothing
 *   iq get, set                               error, service-unavailable
 *   iq result, error                          nothing
 *   message chat, normal                      error, recipient-unavailable
 *   message error, groupchat, headline        nothing: an error would only meet an error, a room, a program
 *
 * Nothing is said to messages without a sender or from the user's own account either, nor to copies (XEP-0280,
 * XEP-0313): nobody waits for an answer to them.
 */
#ifndef BOSH_BOUNCE_H
#define BOSH_BOUNCE_H

#include "bosh.h"

typedef struct bosh_bounce_t bosh_bounce_t;

bosh_bounce_t *bosh_bounce_create(void); /* NULL: no memory */
void bosh_bounce_destroy(bosh_bounce_t *b);

/*
 * Reads a text of n bytes, one stanza of jabber:client or (whole) a <body/> with some, and adds to the output what
 * is to be said. APR_EGENERAL: it cannot be read, APR_ENOMEM; what was added before stays.
 */
apr_status_t bosh_bounce_add(bosh_bounce_t *b, const char *text, size_t n, bool whole);

/* The output so far: stanzas for a stream whose default namespace is jabber:client. */
const char *bosh_bounce_text(const bosh_bounce_t *b, size_t *n);

#endif
