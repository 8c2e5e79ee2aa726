/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Printing of PROXY headers. Called by bosh_dial.c on the loop thread.
 */
#include "bosh_proxy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

static const char signature[] = "\r\n\r\n\0\r\nQUIT\n"; /* of version 2 */
#define SIGNATURE_LEN 12

#define V2_PROXY 0x21 /* version and command */
#define V2_LOCAL 0x20
#define V2_TCP4  0x11 /* family and transport */
#define V2_TCP6  0x21
#define V2_NOOP  0x04 /* a type of extension that says nothing */

/* Both ends, of one family: its `n` bytes of each. n == 0: unknown. */
typedef struct ends_t {
    int family;
    size_t n;
    unsigned char from[16], to[16];
    uint16_t from_port, to_port;
} ends_t;

static void find_client(ends_t *e, const char *ip, uint16_t port)
{
    static const unsigned char wrapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    char plain[INET6_ADDRSTRLEN];
    size_t n = strcspn(ip, "%"); /* the zone means nothing elsewhere */

    if (n >= sizeof(plain)) {
        return;
    }
    memcpy(plain, ip, n);
    plain[n] = '\0';
    if (inet_pton(AF_INET, plain, e->from) == 1) {
        e->n = 4;
    } else if (inet_pton(AF_INET6, plain, e->from) == 1) {
        e->n = 16;
        if (memcmp(e->from, wrapped, sizeof(wrapped)) == 0) {
            memmove(e->from, e->from + sizeof(wrapped), 4);
            e->n = 4;
        }
    }
    e->family = e->n == 4 ? AF_INET : AF_INET6;
    e->from_port = port;
}

static void find_server(ends_t *e, const struct sockaddr *to)
{
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;

    if (to == NULL || to->sa_family != e->family) {
        return;
    }
    if (e->n == 4) {
        memcpy(&v4, to, sizeof(v4));
        memcpy(e->to, &v4.sin_addr, 4);
        e->to_port = ntohs(v4.sin_port);
    } else {
        memcpy(&v6, to, sizeof(v6));
        memcpy(e->to, &v6.sin6_addr, 16);
        e->to_port = ntohs(v6.sin6_port);
    }
}

static size_t print_text(char *dst, const ends_t *e)
{
    char from[INET6_ADDRSTRLEN], to[INET6_ADDRSTRLEN];

    if (e->n == 0) {
        return (size_t)snprintf(dst, BOSH_PROXY_MAX, "PROXY UNKNOWN\r\n");
    }
    inet_ntop(e->family, e->from, from, sizeof(from));
    inet_ntop(e->family, e->to, to, sizeof(to));
    return (size_t)snprintf(dst, BOSH_PROXY_MAX, "PROXY TCP%c %s %s %u %u\r\n",
                            e->n == 4 ? '4' : '6', from, to, (unsigned)e->from_port,
                            (unsigned)e->to_port);
}

static char *put16(char *at, size_t value)
{
    *at++ = (char)(value >> 8);
    *at++ = (char)value;
    return at;
}

static size_t print_binary(char *dst, const ends_t *e)
{
    char *at = dst + SIGNATURE_LEN;

    memcpy(dst, signature, SIGNATURE_LEN);
    if (e->n == 0) {
        /* Never without any bytes behind the length: ejabberd would read the stream for them. */
        *at++ = V2_LOCAL;
        *at++ = 0;
        at = put16(at, 3);
        *at++ = V2_NOOP;
        return (size_t)(put16(at, 0) - dst);
    }
    *at++ = V2_PROXY;
    *at++ = e->n == 4 ? V2_TCP4 : V2_TCP6;
    at = put16(at, 2 * e->n + 4);
    memcpy(at, e->from, e->n);
    memcpy(at + e->n, e->to, e->n);
    at = put16(at + 2 * e->n, e->from_port);
    return (size_t)(put16(at, e->to_port) - dst);
}

size_t bosh_proxy_print(char dst[BOSH_PROXY_MAX], bosh_proxy_t version, const char *ip,
                        uint16_t port, const struct sockaddr *to)
{
    ends_t e;

    memset(&e, 0, sizeof(e));
    find_client(&e, ip, port);
    find_server(&e, to);
    return version == BOSH_PROXY_V1   ? print_text(dst, &e)
           : version == BOSH_PROXY_V2 ? print_binary(dst, &e)
                                      : 0;
}
