/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_srv: SRV records of an XMPP domain, and the order in which they are tried (RFC 2782, XEP-0368). Pure; any
 * thread.
 */
#ifndef BOSH_SRV_H
#define BOSH_SRV_H

#include "bosh.h"

typedef struct bosh_srv_t {
    uint16_t priority, weight, port;
    bool direct;                    /* of _xmpps-client: TLS from the first byte */
    char host[BOSH_MAX_DOMAIN + 1]; /* without the dot at its end; "": there is no service */
} bosh_srv_t;

/* A number below `below`, which is not 0, each as likely as the others. */
typedef uint32_t bosh_random_t(void *ctx, uint32_t below);

/*
 * Puts n records into the order in which they are to be tried: by priority, and within one by weighted chance. The
 * records of both services may be mixed.
 */
void bosh_srv_sort(bosh_srv_t *rec, size_t n, bosh_random_t *chance, void *ctx);

#endif
