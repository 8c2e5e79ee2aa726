/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_rescue: the streams of a dead peer live on in this loop, taken from escrow (bosh_escrow.h).
 *
 * Loop thread, never with the arena lock held.
 */
#ifndef BOSH_RESCUE_H
#define BOSH_RESCUE_H

#include "bosh_stream.h"

/*
 * Takes over whatever can be had of a dead peer, of which every thread is gone (a pidfd says that), and
 * returns how many streams that were. What is left with it afterwards is lost. Should we die on the way,
 * another peer finds the rest where it was.
 */
uint32_t bosh_rescue(bosh_streams_t *ss, uint32_t dead);

#endif
