/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_wire: the messages of a hand-over and the descriptors that travel with them, over the socketpairs
 * that the parent made (bosh_wakers_t). Never blocks; no lock, no log.
 */
#ifndef BOSH_WIRE_H
#define BOSH_WIRE_H

#include "bosh_lock.h"

/* Streams in one message. All that are under way stand still until the heir has taken the last of them, and on a
 * busy machine until its thread has a processor again: with 32, and two messages at once, half of the streams
 * paused for more than 10 ms where it is 1 ms with 8, and the whole took no less time. */
#define BOSH_BATCH 8

typedef struct bosh_entry_t {
    uint32_t index, serial; /* the session */
    uint32_t transfer;
} bosh_entry_t;

typedef struct bosh_message_t {
    uint32_t giver; /* a peer */
    uint32_t n;
    bosh_entry_t entry[BOSH_BATCH];
} bosh_message_t;

/* Sends msg->n entries (at least one) and as many descriptors to a peer; the caller keeps his. False: not
 * now (the socketpair is full, too many descriptors are in flight). */
bool bosh_wire_send(const bosh_wakers_t *w, uint32_t to, const bosh_message_t *msg, const int *fds);

/*
 * The next message for peer `me`. fds has room for BOSH_BATCH; *nfds is less than msg->n when this process
 * had no descriptors for the rest. A message that makes no sense comes as one of no entries. False: none.
 */
bool bosh_wire_receive(const bosh_wakers_t *w, uint32_t me, bosh_message_t *msg, int *fds,
                       uint32_t *nfds);

/* Closes what waits for a peer that is dead. By whoever clears up after it. */
void bosh_wire_discard(const bosh_wakers_t *w, uint32_t peer);

#endif
