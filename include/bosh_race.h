/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_race: from one host to a connected socket: its A and AAAA records are looked up at the same time, and its
 * addresses tried one after the other, of both families in turn, a quarter of a second apart and without giving up
 * those before (RFC 8305). Those that failed lately are left out (bosh_breaker.h).
 *
 * Loop thread only, called by bosh_dial.c; never with the arena lock held. The sockets are in the loop's epoll set
 * under the stream's tag until one of them has won and becomes st->conn.
 */
#ifndef BOSH_RACE_H
#define BOSH_RACE_H

#include "bosh_stream.h"

#define BOSH_RACE_MAX   4  /* sockets of one stream at once */
#define BOSH_RACE_ADDRS 16 /* addresses of one host and family */
#define BOSH_RACE_DELAY apr_time_from_msec(250)
#define BOSH_RACE_GRACE apr_time_from_msec(50) /* for AAAA, when A is there first */
#define BOSH_RACE_PATIENCE                                                                         \
    apr_time_from_sec(2) /* with an address, when others wait for its place */

/* What is to be connected to. */
typedef struct bosh_goal_t {
    const char *path;            /* a unix socket; or */
    const apr_sockaddr_t *addrs; /* addresses that need no look-up, by `next`; or */
    const char *host;            /* a name, and */
    apr_port_t port;
    bool complete; /* the host is not to be looked for in the hosts file or the system's domains */
    bool any;      /* see bosh_resolve() */
} bosh_goal_t;

typedef struct bosh_family_t {
    bosh_dns_state_t state;
    uint8_t n, at; /* at: the next one to try */
    bosh_addr_t addr[BOSH_RACE_ADDRS];
} bosh_family_t;

typedef struct bosh_race_t {
    bosh_goal_t goal;
    char name[BOSH_MAX_DOMAIN + 2]; /* what is asked for */
    bosh_family_t family[2];        /* IPv6, IPv4 */
    uint8_t turn;                   /* of which the next address is */
    bool running;
    bool path_tried;
    unsigned passed;       /* addresses that were left out */
    apr_time_t hold_until; /* for AAAA; 0: the first A has not come */
    apr_time_t next_at;    /* the next address may be tried */
    uint8_t n;
    struct {
        bosh_conn_t conn;
        bosh_addr_t addr;
        apr_time_t since;
    } run[BOSH_RACE_MAX];
    bosh_addr_t last; /* tried */
    char why[160];    /* ... and what became of it, or of looking it up */
} bosh_race_t;

typedef enum bosh_race_state_t {
    BOSH_RACE_ON,
    BOSH_RACE_WON, /* st->conn is UP */
    BOSH_RACE_LOST /* race->why */
} bosh_race_state_t;

/* Begins anew; nothing happens before bosh_race_go(). */
void bosh_race_start(bosh_race_t *race, const bosh_goal_t *goal);

/* Whatever can be done now: an answer is there, a socket polls ready, or it is time. */
bosh_race_state_t bosh_race_go(bosh_streams_t *ss, bosh_stream_t *st, bosh_race_t *race);

/* When to come again at the latest. */
apr_time_t bosh_race_next(const bosh_race_t *race);

/* Lets go of all sockets. `late`: they have had their time, which is held against their addresses. */
void bosh_race_stop(bosh_streams_t *ss, bosh_race_t *race, bool late);

/* The address that was tried last, or the host, for the log. */
void bosh_race_describe(const bosh_race_t *race, char *dst, size_t size);

/* No address has been tried yet, and the host had to be looked up. */
bool bosh_race_looks_up(const bosh_race_t *race);

#endif
