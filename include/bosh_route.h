/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_route: addresses of XMPP servers that others tell us. The `route` attribute, proto:host:port, which looks like a
 * URI and is none (XEP-0124 7.1), and a server's see-other-host (RFC 6120 4.9.3.19). Pure; any thread.
 */
#ifndef BOSH_ROUTE_H
#define BOSH_ROUTE_H

#include "bosh.h"

/* Takes a route to an XMPP server apart: host is a part of it, an IPv6 address without its brackets; port 1 to
 * 65535. False: it is not of the form xmpp:host:port. */
bool bosh_route_read(const char *route, bosh_slice_t *host, unsigned *port);

/*
 * Takes host, host:port, [v6], [v6]:port or v6 apart, with white space around it: host is a part of `text` (n bytes,
 * no NUL needed), an IPv6 address without its brackets; port 0: none was named. False: it is none of them, or the
 * host is longer than BOSH_MAX_DOMAIN.
 */
bool bosh_route_elsewhere(const char *text, size_t n, bosh_slice_t *host, unsigned *port);

#endif
