/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_secure: from a connected socket to one that is as safe as its BoshUpstream line asks for: at once, by
 * direct TLS (XEP-0368), or by STARTTLS (6120 5).
 *
 * All of it happens in phase CONNECT: what the server says in the clear stays here and never reaches the arena
 * (U-041), nothing of the client's leaves (U-044), and when this process dies another one connects anew.
 *
 * Loop thread only, called by bosh_dial.c and bosh_stream.c; never with the arena lock held. After each call
 * the stream may be over or gone, or on its way: the caller looks.
 */
#ifndef BOSH_SECURE_H
#define BOSH_SECURE_H

#include "bosh_stream.h"

#define BOSH_CLEAR_MAX (64 * 1024) /* bytes that a server may say before TLS */

typedef enum bosh_secure_t {
    BOSH_SECURE_NO = 0, /* not begun, or done with */
    BOSH_SECURE_OFFER,  /* our header was sent in the clear, the features are awaited */
    BOSH_SECURE_ANSWER, /* <starttls/> was sent */
    BOSH_SECURE_SHAKE   /* TLS's handshake */
} bosh_secure_t;

/* The socket is connected. Goes on to bosh_dial_ready(), now or later. */
void bosh_secure_begin(bosh_streams_t *ss, bosh_stream_t *st);

/* The socket polls ready while st->secure says that we are at it. */
void bosh_secure_event(bosh_streams_t *ss, bosh_stream_t *st, uint32_t events);

/* The connection is gone: forgets what was said. */
void bosh_secure_reset(bosh_streams_t *ss, bosh_stream_t *st);

/* We have said a header that the arena does not know of. */
bool bosh_secure_in_the_clear(const bosh_stream_t *st);

/* What we were waiting for, for the log; NULL: none of this. */
const char *bosh_secure_step(const bosh_stream_t *st);

#endif
