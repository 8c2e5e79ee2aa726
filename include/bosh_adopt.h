/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_adopt: the receiving end of a hand-over; bosh_handover.h says how it goes.
 *
 * Loop thread only. Never called with the arena lock held.
 */
#ifndef BOSH_ADOPT_H
#define BOSH_ADOPT_H

#include "bosh_stream.h"

#define BOSH_RECEIVE_MAX 8 /* messages taken in one turn */

/* The socketpair is readable: takes over what has come, gives back what cannot be taken, and mails the
 * giver. */
void bosh_adopt_receive(bosh_streams_t *ss);

/* When ss->orphans is set: streams on their way to us have lost their giver. What it sent is taken over,
 * what it did not is over. */
void bosh_adopt_orphans(bosh_streams_t *ss);

/* ---- for bosh_rescue.c ---- */

/* An object around a connected descriptor, which is closed if that fails (NULL). It is `given`: not ours
 * until the record says so. */
bosh_stream_t *bosh_adopt_wrap(bosh_streams_t *ss, bosh_ix index, uint32_t serial, int fd);

/* Makes a wrapped stream ours: what its last owner knew follows from the record. Lock held. */
void bosh_adopt_derive(bosh_stream_t *st, const bosh_session_t *s);

#endif
