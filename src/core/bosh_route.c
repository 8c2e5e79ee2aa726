/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading addresses. The host of a client's route is never looked up or connected to, only compared with what is
 * configured (B-087), by a worker; a server's other host is, once, by a loop (bosh_up.c).
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

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* What neither a name nor an address has: white space, and what would be markup or another part of a URI. */
static bool odd(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)s[i] <= ' ' || strchr("/[]@?#<>&'\"\\%", s[i]) != NULL) {
            return true;
        }
    }
    return false;
}

bool bosh_route_elsewhere(const char *text, size_t n, bosh_slice_t *host, unsigned *port)
{
    char tail[8] = "";
    const char *colon, *end;

    while (n > 0 && is_space(text[0])) {
        text++;
        n--;
    }
    while (n > 0 && is_space(text[n - 1])) {
        n--;
    }
    *port = 0;
    host->p = text;
    host->n = n;
    end = text + n;
    if (n > 0 && text[0] == '[') {
        const char *close = memchr(text, ']', n);
        if (close == NULL) {
            return false;
        }
        host->p = text + 1;
        host->n = strspn(host->p, "0123456789abcdefABCDEF:.");
        if (host->p + host->n != close) {
            return false;
        }
        colon = close + 1;
        if (colon < end && *colon != ':') {
            return false;
        }
    } else {
        colon = memchr(text, ':', n);
        if (colon == NULL || memchr(colon + 1, ':', (size_t)(end - colon - 1)) != NULL) {
            colon = end; /* none, or an IPv6 address */
        }
        host->n = (size_t)(colon - text);
    }
    if (host->n == 0 || host->n > BOSH_MAX_DOMAIN || odd(host->p, host->n)) {
        return false;
    }
    if (colon == end) {
        return true;
    }
    n = (size_t)(end - colon - 1);
    if (n >= sizeof(tail)) {
        return false;
    }
    memcpy(tail, colon + 1, n);
    return strlen(tail) == n && read_port(tail, port);
}
