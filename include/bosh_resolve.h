/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_resolve: names to records, by c-ares, without waiting: SRV, A and AAAA, remembered for as long as their TTL
 * says (U-010).
 *
 * Whoever asks gets what is known, or is noted and found by bosh_resolver_waiter() when the answer is there, and
 * asks again. Questions about one name are asked once, however many wait. One per loop, on its thread; no lock. The
 * descriptors of c-ares are in the loop's epoll set under BOSH_RESOLVER_TAG.
 */
#ifndef BOSH_RESOLVE_H
#define BOSH_RESOLVE_H

#include "bosh_conn.h"
#include "bosh_srv.h"

#define BOSH_RESOLVER_TRY     apr_time_from_sec(1) /* for an answer; twice that the second time */
#define BOSH_RESOLVER_TRIES   3                    /* of each name server */
#define BOSH_RESOLVER_ENTRIES 512                  /* names remembered or being looked up */
#define BOSH_RESOLVER_RECORDS 32                   /* of one answer */
/* How long answers live: what there is, at least and at most; that there is nothing; that it failed. */
#define BOSH_RESOLVER_MIN    apr_time_from_sec(1)
#define BOSH_RESOLVER_MAX    apr_time_from_sec(3600)
#define BOSH_RESOLVER_NONE   apr_time_from_sec(10)
#define BOSH_RESOLVER_FAILED apr_time_from_sec(2)

typedef enum bosh_dns_kind_t { BOSH_DNS_SRV, BOSH_DNS_A, BOSH_DNS_AAAA } bosh_dns_kind_t;

typedef enum bosh_dns_state_t {
    BOSH_DNS_PENDING,
    BOSH_DNS_FOUND, /* n > 0 */
    BOSH_DNS_NONE,  /* the name servers say that there is no such name or record */
    BOSH_DNS_FAILED /* `why` */
} bosh_dns_state_t;

typedef struct bosh_dns_t {
    bosh_dns_state_t state;
    const char *why;
    size_t n;
    const bosh_srv_t *srv;   /* SRV; `direct` is not set */
    const bosh_addr_t *addr; /* A, AAAA; without a port */
} bosh_dns_t;

typedef struct bosh_resolver_t bosh_resolver_t;

/*
 * `servers`: "address[:port],..."; NULL: those of the system, which are read at the first question. NULL: no
 * memory. Main thread.
 */
bosh_resolver_t *bosh_resolver_create(const char *servers, int epfd);
void bosh_resolver_destroy(bosh_resolver_t *r);

/*
 * What is known of this name, or (PENDING) that it is being looked up for the waiter (index, serial). A name with a
 * dot at its end is complete; another one may be one of the hosts file, or be completed by the system's list of
 * domains. `any`: a client has chosen the domain (BoshUpstream *), and half of the table is enough for all such that
 * are being looked up. The answer is good until the next call of anything here.
 */
bosh_dns_t bosh_resolve(bosh_resolver_t *r, bosh_dns_kind_t kind, const char *name, bool any,
                        apr_time_t now, uint32_t index, uint32_t serial);

/* The next waiter whose answer has come; false: none. */
bool bosh_resolver_waiter(bosh_resolver_t *r, uint32_t *index, uint32_t *serial);

/* A descriptor polls ready. */
void bosh_resolver_event(bosh_resolver_t *r, uint64_t tag, uint32_t events, apr_time_t now);
#define BOSH_RESOLVER_TAG UINT64_C(0xffffffff00000000)
static inline bool bosh_resolver_is_tag(uint64_t tag)
{
    return (tag & BOSH_RESOLVER_TAG) == BOSH_RESOLVER_TAG;
}

/* When bosh_resolver_run() has something to do; BOSH_NEVER. */
apr_time_t bosh_resolver_next(const bosh_resolver_t *r);
void bosh_resolver_run(bosh_resolver_t *r, apr_time_t now);

/* Reads the SRV records of an answer. Those without a host name or port are left out. -1: it is not to be read, or
 * all of them are of that kind. */
int bosh_resolver_parse_srv(const unsigned char *msg, size_t len, bosh_srv_t *out, size_t max,
                            uint32_t *ttl);

#endif
