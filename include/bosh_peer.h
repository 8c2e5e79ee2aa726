/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_peer: this child among the others: its place in the arena's table of peers, watching the others, and
 * what becomes of the sessions of one that dies or leaves.
 *
 * Loop thread only, but for create and join, which run in child_init before the thread exists. Never called
 * with the arena lock held.
 */
#ifndef BOSH_PEER_H
#define BOSH_PEER_H

#include "bosh_loop.h"

typedef struct bosh_peers_t bosh_peers_t;

/* NULL: no memory. cfg and lock outlive it. */
bosh_peers_t *bosh_peers_create(const bosh_loop_cfg_t *cfg, bosh_lock_t *lock, int epfd);
void bosh_peers_destroy(bosh_peers_t *ps);

/* The loop can serve streams now: from here on those of dead peers are rescued into it. */
struct bosh_streams_t;
void bosh_peers_serve(bosh_peers_t *ps, struct bosh_streams_t *ss);

/*
 * Claims a peer for this process, if need be after clearing away a dead one, and takes over the sessions
 * whose owner is nobody (their streams are over; their clients are still owed an answer). Nobody gives it a
 * stream before it has announced itself. APR_ENOSPC: every peer is in use by a living process.
 */
apr_status_t bosh_peers_join(bosh_peers_t *ps, apr_time_t now, uint32_t *me);

/* The first thing a loop does: we are LIVE, and those that are stopping, who wait for somebody like us, are told. */
void bosh_peers_announce(bosh_peers_t *ps);

/* Once a second: our heartbeat; watches peers that have come, forgets those that have gone, clears up after
 * the dead in case their pidfd said nothing. */
void bosh_peers_sweep(bosh_peers_t *ps, apr_time_t now);

/* epoll says that the watched process of this peer has ended (registered as BOSH_PEER_TAG). */
void bosh_peers_event(bosh_peers_t *ps, apr_time_t now, uint32_t peer);
#define BOSH_PEER_TAG(peer) (UINT64_C(0x80000000) | (peer))

/* The most peers of our generation that there were lately, ours included. They are not all told to stop in one
 * moment. */
#define BOSH_SIBLING_TIME apr_time_from_sec(10)
uint32_t bosh_peers_siblings(const bosh_peers_t *ps);

/* This child has been told to stop. */
void bosh_peers_drain(bosh_peers_t *ps);

/* A living peer of the newest generation there is, other than ours; 0: we are the last. */
uint32_t bosh_peers_heir(bosh_peers_t *ps);

/* Whether a living peer of a younger generation is there; done: our streams are with it. *moved: so are those of
 * all that stop with us. */
bool bosh_peers_followed(bosh_peers_t *ps, bool done, bool *moved);

/* From here on nobody gives us anything. */
void bosh_peers_withdraw(bosh_peers_t *ps);

/* The last thing a loop does: another living peer gets what is left of our sessions, ours becomes FREE. */
void bosh_peers_leave(bosh_peers_t *ps, apr_time_t now);

#endif
