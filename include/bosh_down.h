/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_down: moves the bytes of one stream from the arena to its socket. Loop thread only, never with the
 * arena lock held. After each call the stream may be over (conn NONE) or gone; the caller looks.
 */
#ifndef BOSH_DOWN_H
#define BOSH_DOWN_H

#include "bosh_stream.h"

/* Writes what link.down holds as far as the phase allows and the socket takes it; restarts or closes the
 * stream when that is the next item (X-040, 6120 4.4). */
void bosh_down_pump(bosh_streams_t *ss, bosh_stream_t *st);

/* Writes text of our own (header, error, end) before anything else; what does not fit waits in st->pend. */
void bosh_down_say(bosh_streams_t *ss, bosh_stream_t *st, const char *p, size_t n);

/* st->quiet_at has come (U-035): a space, between stanzas, if nothing of ours was written for long enough. Sets
 * quiet_at to when to come again; BOSH_NEVER: bosh_stream_settle() does. */
void bosh_down_keep_alive(bosh_streams_t *ss, bosh_stream_t *st);

#endif
