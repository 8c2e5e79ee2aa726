/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_conn: one non-blocking connection to an XMPP server, behind a table of operations so that a stream
 * does not care whether TLS lies in between.
 *
 * Loop thread of the owner only, no lock. Every call returns at once. The sockets are APR's; their objects
 * are made once and used again, so that an idle stream does not cost a pool of its own. The descriptor stays
 * visible: it is registered with epoll, read from with readv() straight into several chunks of the arena,
 * and will travel between processes.
 */
#ifndef BOSH_CONN_H
#define BOSH_CONN_H

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <apr_network_io.h>

#include "bosh.h"

typedef enum bosh_conn_state_t {
    BOSH_CONN_NONE = 0,
    BOSH_CONN_CONNECTING, /* establish() has more to do: TCP's handshake, or TLS's */
    BOSH_CONN_UP
} bosh_conn_state_t;

/* What the owner wants to wait for; what the backend makes of it. */
#define BOSH_CONN_READ  0x1u
#define BOSH_CONN_WRITE 0x2u

struct bosh_conn_ops_t;

/* Where a server listens, with its port. */
typedef struct bosh_addr_t {
    socklen_t len;
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } sa;
} bosh_addr_t;

/* The apr_socket_t objects of one loop, in use or spare. */
typedef struct bosh_sockets_t bosh_sockets_t;
bosh_sockets_t *bosh_sockets_create(void);       /* NULL: no memory */
void bosh_sockets_destroy(bosh_sockets_t *home); /* every connection of it is closed before */

typedef struct bosh_conn_t {
    const struct bosh_conn_ops_t *ops;
    void *baton; /* the backend's own */
    bosh_sockets_t *home;
    apr_socket_t *sock; /* NULL in state NONE */
    int fd;             /* its descriptor; -1 in state NONE */
    uint8_t state;      /* bosh_conn_state_t */
} bosh_conn_t;

typedef struct bosh_conn_ops_t {
    const char *name;
    /* Goes on with becoming UP. APR_SUCCESS: it is; APR_EAGAIN: wait for wants(); else it failed. */
    apr_status_t (*establish)(bosh_conn_t *c);
    /* Reads what is there. APR_SUCCESS with *got > 0; APR_EAGAIN; APR_EOF: an orderly end; else broken. */
    apr_status_t (*readv)(bosh_conn_t *c, const struct iovec *iov, int n, size_t *got);
    /* Writes a part of p[0..n). APR_SUCCESS with *put > 0; APR_EAGAIN; else broken for writing. */
    apr_status_t (*write)(bosh_conn_t *c, const char *p, size_t n, size_t *put);
    /* Goes on with what write() took and the socket did not. APR_SUCCESS: nothing is left; APR_EAGAIN: wants()
     * asks for what it needs; else broken for writing. */
    apr_status_t (*flush)(bosh_conn_t *c);
    /* What to poll for (BOSH_CONN_*) when the owner is interested in `intent`. WRITE that was not asked for: when it
     * comes, flush, and read. */
    unsigned (*wants)(const bosh_conn_t *c, unsigned intent);
    /* Bytes that can be read, or an end to be noticed, although the descriptor may not poll readable; such bytes
     * are read before any others. */
    size_t (*pending)(const bosh_conn_t *c);
    /* Says goodbye if the backend has a way to, without waiting; frees what baton holds. */
    void (*finish)(bosh_conn_t *c);
} bosh_conn_ops_t;

extern const bosh_conn_ops_t bosh_conn_plain;

/* An unused connection: NONE, fd -1. */
void bosh_conn_init(bosh_conn_t *c);

/*
 * Starts to connect a plain connection to `to`, or to the unix socket `path` when that is not NULL. State
 * becomes UP or CONNECTING (poll for wants(c, 0), then establish). On failure the state is NONE; APR_EAGAIN
 * means that the server's backlog is full (unix sockets only): try again in a moment. The socket is
 * CLOEXEC, non-blocking, without Nagle's delay and with keep-alive probes.
 */
apr_status_t bosh_conn_open(bosh_conn_t *c, bosh_sockets_t *home, const bosh_addr_t *to,
                            const char *path);

/* Takes a descriptor that is connected (UP) or being connected (CONNECTING) already; closes it on failure. */
apr_status_t bosh_conn_adopt(bosh_conn_t *c, bosh_sockets_t *home, int fd, int family,
                             bosh_conn_state_t state);

/* finish(), shutdown both ways (a duplicate elsewhere must not keep the stream open), close. NONE: nothing. */
void bosh_conn_close(bosh_conn_t *c);

/* Closes this process's descriptor alone: the connection lives on in another process. NONE: nothing. */
void bosh_conn_drop(bosh_conn_t *c);

/* Prints the address for the log: "192.0.2.1:5222", "[2001:db8::1]:5222", "unix:/path". */
void bosh_conn_describe(const bosh_addr_t *addr, const char *path, char *dst, size_t size);

#endif
