/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_route: the `route` attribute, proto:host:port, which looks like a URI and is none (XEP-0124 7.1). Pure.
 */
#ifndef BOSH_ROUTE_H
#define BOSH_ROUTE_H

#include "bosh.h"

/* Takes a route to an XMPP server apart: host is a part of it, an IPv6 address without its brackets; port 1 to
 * 65535. False: it is not of the form xmpp:host:port. */
bool bosh_route_read(const char *route, bosh_slice_t *host, unsigned *port);

#endif
