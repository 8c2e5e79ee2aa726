/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_proxy: the header of HAProxy's PROXY protocol, with which a server learns the address of the real client
 * (https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt). It is the first thing on a connection, before
 * TLS. Pure; any thread.
 */
#ifndef BOSH_PROXY_H
#define BOSH_PROXY_H

#include <sys/socket.h>

#include "bosh.h"

typedef enum bosh_proxy_t {
    BOSH_PROXY_OFF = 0,
    BOSH_PROXY_V1, /* a line of text */
    BOSH_PROXY_V2  /* binary */
} bosh_proxy_t;

#define BOSH_PROXY_MAX 108 /* bytes of the longest header: a line of v1 with its NUL */

/*
 * Prints the header (NUL-terminated in version 1) and returns its length, 0 with BOSH_PROXY_OFF. `ip` and `port` (0:
 * unknown) are the client's; an IPv6 address may have a zone, and one that only wraps an IPv4 address counts as
 * that. Text that is no address makes the header that says "unknown": the server takes our own then. `to` is the
 * server's end of the connection; NULL, or of another family than the client's, it becomes the unspecified address,
 * for both have to be of one family.
 */
size_t bosh_proxy_print(char dst[BOSH_PROXY_MAX], bosh_proxy_t version, const char *ip,
                        uint16_t port, const struct sockaddr *to);

#endif
