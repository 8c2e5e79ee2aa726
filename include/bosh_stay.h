/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_stay: a worker of the event MPM stays with a connection for a moment when its client is likely to send the
 * next request at once: between two steps of a login, after a message that it polls again for. To give the
 * connection back to the MPM and to be given it again costs three times as much as to wait. Internal to
 * bosh_hold.c and bosh_park.c.
 *
 * Who stays is missing elsewhere, so that a quarter of the workers must be free of connections, those that
 * wait for a client included; and a connection that let its worker wait in vain is not waited for again soon.
 */
#ifndef BOSH_STAY_H
#define BOSH_STAY_H

#include "httpd.h"

#include "bosh.h"

/* What a connection knows of its client; zeros to begin with. Its worker's. */
typedef struct bosh_stay_t {
    bool ours; /* its last request was one of the protocol */
    uint8_t misses,
        skip; /* waits in vain, one after the other; answers that are not waited after */
} bosh_stay_t;

/* child_init. workers: ThreadsPerChild. */
void bosh_stay_child_init(int workers);

/* A worker takes a connection of HTTP/1 up, and is done with it. Worker; atomic. */
void bosh_stay_begin(void);
void bosh_stay_end(void);

/* Whether so many workers are free that one which has a connection may wait for some milliseconds, and the child
 * accepts connections, which event makes depend on idle workers. Any worker. */
bool bosh_stay_affordable(void);

/* Whether this client is worth waiting for, after this answer; and that it was, or was not. Worker. */
bool bosh_stay_worth(bosh_stay_t *s);
void bosh_stay_learn(bosh_stay_t *s, bool came);

/*
 * When process_connection is over for now: sends what there is to send, waits for the next request if that is
 * worth it, and when it comes has the MPM go on with it at once. Worker. stopping: the child is to end.
 */
void bosh_stay(conn_rec *c, bosh_stay_t *s, bool stopping);

/* How often that was worth it, and how often not. Any thread. */
void bosh_stay_count(uint64_t *came, uint64_t *stayed_away);

#endif
