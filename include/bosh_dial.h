/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_dial: from a target to a connected stream whose header is on its way: the addresses of a target one
 * after the other, within one deadline (6120 3.2.1, PROTOCOL U-004, U-012).
 *
 * Loop thread only, called by bosh_stream.c; never with the arena lock held. A stream whose dialing fails
 * is over.
 */
#ifndef BOSH_DIAL_H
#define BOSH_DIAL_H

#include "bosh_stream.h"

/* Begins; the deadline counts from the creation of the session. */
void bosh_dial_start(bosh_streams_t *ss, bosh_stream_t *st);

/* The connection is there and as safe as its line asks for: our header goes out, unless it has (`seen`: what the
 * server has answered to it). */
void bosh_dial_ready(bosh_streams_t *ss, bosh_stream_t *st, const char *seen, size_t len);

/* The connecting socket polls ready. */
void bosh_dial_event(bosh_streams_t *ss, bosh_stream_t *st);

/* st->attempt_at has come: this address had its time, or a full backlog is worth another try. */
void bosh_dial_attempt(bosh_streams_t *ss, bosh_stream_t *st);

/* The line of this process for a domain, and its row (BOSH_ROW_UNKNOWN: none): sessions outlive the configuration
 * that they were made under. */
const bosh_target_t *bosh_dial_target(const bosh_streams_t *ss, const char *domain, uint16_t *row);

/* How long connecting, TLS, header and features of this stream may take together. */
apr_interval_time_t bosh_dial_time(const bosh_stream_t *st);

#endif
