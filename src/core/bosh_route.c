/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading routes. Called by a worker for a creation request. What it takes for a host is never looked up or
 * connected to, only compared with what is configured (B-087).
 */
#include "bosh_route.h"

#include <string.h>

static const char proto[] = "xmpp:";

/* All of s is a port. */
static bool read_port(const char *s, unsigned *port)
{
    size_t n = strspn(s, "0123456789");

    *port = 0;
    if (n == 0 || n > 5 || s[n] != '\0') {
        return false;
    }
    for (; *s != '\0'; s++) {
        *port = *port * 10 + (unsigned)(*s - '0');
    }
    return *port >= 1 && *port <= 65535;
}

bool bosh_route_read(const char *route, bosh_slice_t *host, unsigned *port)
{
    const char *end;

    if (strncmp(route, proto, sizeof(proto) - 1) != 0) {
        return false;
    }
    route += sizeof(proto) - 1;
    if (*route == '[') {
        host->p = ++route;
        host->n = strspn(route, "0123456789abcdefABCDEF:.");
        end = route + host->n;
        if (*end++ != ']') {
            return false;
        }
    } else {
        host->p = route;
        host->n = strcspn(route, ":/[]@?# \t\r\n");
        end = route + host->n;
    }
    return host->n > 0 && *end == ':' && read_port(end + 1, port);
}
