/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_handover: streams move from the loop of a child that stops to that of a younger one, alive, in
 * whatever phase they are.
 *
 * What a stream is lies in the arena; what moves is the descriptor, over a socketpair of the receiving peer
 * (bosh_wakers_t), up to BOSH_BATCH in a message. The record says who has it: the giver makes the heir its
 * owner, marks it TRANSIT with a new serial and sends; the heir that finds the record like that clears
 * TRANSIT and goes on, else it closes the descriptor. The giver keeps its duplicate and all it knows until
 * TRANSIT is gone, so that whatever goes wrong (the heir dies, or lacks descriptors) the stream comes back
 * to it by a change of the record alone.
 *
 * Loop thread only. Never called with the arena lock held.
 */
#ifndef BOSH_HANDOVER_H
#define BOSH_HANDOVER_H

#include "bosh_stream.h"
#include "bosh_wire.h"

#define BOSH_WINDOW      BOSH_BATCH              /* streams of one giver under way at once */
#define BOSH_RETURN_TIME apr_time_from_msec(200) /* who gave one back is left alone for so long */
#define BOSH_RESEND_TIME apr_time_from_msec(10)  /* a full socketpair */

typedef struct bosh_handover_t bosh_handover_t;

/* NULL: no memory. Everything outlives it. */
bosh_handover_t *bosh_handover_create(const bosh_loop_cfg_t *cfg, bosh_streams_t *ss);
void bosh_handover_destroy(bosh_handover_t *ho);

/*
 * A turn of a loop that has been told to stop: looks after what is under way and gives more away. False:
 * there is nobody to give to.
 */
bool bosh_handover_give(bosh_handover_t *ho);

/* Nothing is left here but records without a socket, and nothing under way. */
bool bosh_handover_done(const bosh_handover_t *ho);

/* Looks after what is under way, as bosh_handover_give() does, and gives nothing. */
void bosh_handover_review(bosh_handover_t *ho);

/* When bosh_handover_give() has something to do of its own accord; BOSH_NEVER. */
apr_time_t bosh_handover_next(const bosh_handover_t *ho);

/* One line for the log about what was given away, 256 bytes at most; false: nothing was. The pause of a stream is the
 * time from our last look at its socket to the moment when we hear that the heir has it, in microseconds. */
bool bosh_handover_report(const bosh_handover_t *ho, char *line, size_t size);

#endif
