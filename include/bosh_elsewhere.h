/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_elsewhere: servers that send their clients to another host (RFC 6120 4.9.3.19, X-084). The first time, and
 * before the client has seen anything of the stream, we go there ourselves; what the line says of TLS, and that the
 * certificate must be one for the XMPP domain, holds there, too. Else it is the client's affair, as any other stream
 * error.
 *
 * Loop thread only; never with the arena lock held.
 */
#ifndef BOSH_ELSEWHERE_H
#define BOSH_ELSEWHERE_H

#include "bosh_stream.h"

/*
 * The server has said see-other-host with this text (n bytes, which may be those of st->clear). True: the
 * connection to it is closed and another one is being made, or that has failed and the stream is over; the caller
 * looks no further at what the server has said. False: we do not go; nothing has happened.
 */
bool bosh_elsewhere_go(bosh_streams_t *ss, bosh_stream_t *st, const char *text, size_t n);

#endif
