/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_pump: moves the bytes of one stream between its socket and the arena's two queues.
 *
 *   down: link.down -> peek a copy -> write -> consume          up: readv into link.raw -> splitter -> link.up
 *
 * Loop thread only, called by bosh_stream.c; never with the arena lock held. After each call the stream may
 * be over (conn NONE) or gone; the caller looks.
 */
#ifndef BOSH_PUMP_H
#define BOSH_PUMP_H

#include "bosh_stream.h"

/* Writes what `down` holds as far as the phase allows and the socket takes it; restarts or closes the stream
 * when that is the next item (X-040, 6120 4.4). */
void bosh_pump_down(bosh_streams_t *ss, bosh_stream_t *st);

/* Reads what the server has sent, as far as the queues allow, and applies it to the session. True: nothing
 * is left to read now; false: there may be, but this turn's share is used up, or the stream is stalled. */
bool bosh_pump_up(bosh_streams_t *ss, bosh_stream_t *st);

/* Writes text of our own (header, error, end) before anything else; what does not fit waits in st->pend. */
void bosh_pump_say(bosh_streams_t *ss, bosh_stream_t *st, const char *p, size_t n);

/* Gives the parser back, forgets offsets: the stream stands at a boundary with nothing read. */
void bosh_pump_rest(bosh_streams_t *ss, bosh_stream_t *st);

#endif
