/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_up: moves the bytes of one stream from its socket through the splitter into the arena. Loop thread
 * only, never with the arena lock held. After each call the stream may be over (conn NONE) or gone; the
 * caller looks.
 */
#ifndef BOSH_UP_H
#define BOSH_UP_H

#include "bosh_stream.h"

/* Reads what the server has sent, as far as the queues allow, and applies it to the session. True: nothing
 * is left to read now; false: there may be, but this turn's share is used up, or the stream is stalled. */
bool bosh_up_pump(bosh_streams_t *ss, bosh_stream_t *st);

/* A parser at the very beginning of a stream, unless there is one. False: no memory. */
bool bosh_up_expect_header(bosh_streams_t *ss, bosh_stream_t *st);

/* A stream of which link.raw holds what was read and not finished with, by another process or before there
 * was a parser: parses that. */
void bosh_up_resume(bosh_streams_t *ss, bosh_stream_t *st);

/* Gives the parser back, forgets offsets: the stream stands at a boundary with nothing read. */
void bosh_up_rest(bosh_streams_t *ss, bosh_stream_t *st);

#endif
