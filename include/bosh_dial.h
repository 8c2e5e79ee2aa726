/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_dial: from a domain to a connected stream whose header is on its way (6120 3.2, XEP-0368, PROTOCOL U-001 to
 * U-012). The BoshUpstream targets of the domain are tried in order, each of them one place or, by SRV, several; a
 * place is a host whose addresses are raced (bosh_race.h), or a unix socket. All of it within one deadline.
 *
 *   target --srv--> records, sorted --.
 *      '------------------------------+--> place --race--> connected --TLS--> ready
 *                                          next place, next target <--'--------'  failed
 *
 * Loop thread only, called by bosh_stream.c and bosh_secure.c; never with the arena lock held. A stream whose
 * dialing fails is over.
 */
#ifndef BOSH_DIAL_H
#define BOSH_DIAL_H

#include "bosh_stream.h"

#define BOSH_DIAL_SHARE                                                                            \
    apr_time_from_sec(5) /* the most that one place may take while there are others */

/* Begins; the deadline counts from the creation of the session. */
void bosh_dial_start(bosh_streams_t *ss, bosh_stream_t *st);

/* The connection is there and as safe as its line asks for: our header goes out, unless it has (`seen`: what the
 * server has answered to it). */
void bosh_dial_ready(bosh_streams_t *ss, bosh_stream_t *st, const char *seen, size_t len);

/* The stream is being dialed and has no connection yet: events and time belong to the next two. */
bool bosh_dial_is_on(const bosh_stream_t *st);

/* A connecting socket polls ready, or a name has been looked up. */
void bosh_dial_event(bosh_streams_t *ss, bosh_stream_t *st);

/* st->attempt_at has come. */
void bosh_dial_attempt(bosh_streams_t *ss, bosh_stream_t *st);

/* Phase CONNECT: this place is of no use, for this reason. Goes on with the next one, or the stream is over. */
void bosh_dial_failed(bosh_streams_t *ss, bosh_stream_t *st, const char *reason);

/* Phase CONNECT: the deadline has passed, and the stream is over. */
void bosh_dial_late(bosh_streams_t *ss, bosh_stream_t *st);

/*
 * Starts once more, with `host` (a name or an address) and `port` in the place of all that is configured; what the
 * line says of TLS still holds, and so does the deadline. The connection that there is is closed. False: no memory;
 * nothing has happened.
 */
bool bosh_dial_elsewhere(bosh_streams_t *ss, bosh_stream_t *st, const char *host, apr_port_t port);

/* Forgets what the dialing needed, once the stream is open or over. */
void bosh_dial_end(bosh_streams_t *ss, bosh_stream_t *st);

/* How this connection is to be made safe. While the stream is being dialed. */
bosh_tls_policy_t bosh_dial_policy(const bosh_stream_t *st);

/* The domain as A-labels: what SNI and the certificate are about. While the stream is being dialed. */
const char *bosh_dial_domain(const bosh_stream_t *st);

/* What is being done, for the log: "resolve" or "connect". */
const char *bosh_dial_step(const bosh_stream_t *st);

/* Where the stream is connected to or was tried last, for the log. */
void bosh_dial_describe(const bosh_stream_t *st, char *dst, size_t size);

/* The first target of this process for a domain (in any form), and its row (BOSH_ROW_UNKNOWN: none): sessions
 * outlive the configuration that they were made under. */
const bosh_target_t *bosh_dial_target(const bosh_streams_t *ss, const char *domain, uint16_t *row);

/* How long connecting, TLS, header and features of this stream may take together. */
apr_interval_time_t bosh_dial_time(const bosh_stream_t *st);

/* A number below `below`: bosh_random_t. */
uint32_t bosh_dial_random(void *ctx, uint32_t below);

#endif
