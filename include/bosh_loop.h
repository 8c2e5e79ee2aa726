/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_loop: THE thread of a child. It owns the upstream sockets of the sessions whose link.owner is this
 * child's peer, their timers, this peer's mailbox, and the wake-ups of the child's held requests.
 *
 * Everything of httpd comes in through bosh_loop_cfg_t, so that the layer can be run without httpd. The
 * callbacks run on the loop thread, without the arena lock, and must not block.
 */
#ifndef BOSH_LOOP_H
#define BOSH_LOOP_H

#include <apr_network_io.h>
#include <apr_pools.h>

#include "bosh_lock.h"
#include "bosh_proxy.h"
#include "bosh_session.h"
#include "bosh_tls.h"

typedef enum bosh_log_t {
    BOSH_LOG_ERROR,
    BOSH_LOG_WARNING,
    BOSH_LOG_NOTICE,
    BOSH_LOG_INFO,
    BOSH_LOG_DEBUG
} bosh_log_t;

#define BOSH_UPSTREAM_TIMEOUT                                                                      \
    15 /* seconds, when the line does not say: connect, header and features together */

#define BOSH_UPSTREAM_KEEPALIVE                                                                    \
    150 /* seconds, when the line does not say: Openfire asks after 180 and hangs up after 360 */

/* What httpd's parent process is doing, as far as a child can see. */
typedef enum bosh_parent_t {
    BOSH_PARENT_UNKNOWN,
    BOSH_PARENT_RUNS,
    BOSH_PARENT_STOPS /* no child comes after those there are */
} bosh_parent_t;

/* One target of a BoshUpstream line: srv, or a path, or a host. A session's link.upstream is a row in cfg.targets. */
typedef struct bosh_target_t {
    const char *domain;          /* as A-labels; "*": any domain that no other row has */
    bool more;                   /* the next row is of the same domain: tried when this one fails */
    bool srv;                    /* where the server is, the domain's SRV records say */
    const char *path;            /* a unix socket, or NULL */
    const char *host;            /* to be looked up, and the port; NULL when there are: */
    const apr_sockaddr_t *addrs; /* addresses, by `next` */
    apr_port_t port;
    apr_interval_time_t timeout;   /* from the creation of the session to the stream features */
    apr_interval_time_t keepalive; /* a space after this time without a word of ours; 0: never */
    const bosh_limits_t *limits;   /* of the virtual host; NULL: cfg.limits */
    bosh_proxy_t proxy;            /* how the server is told the client's address */
    bosh_tls_policy_t policy;
    bool
        near; /* policy is OFF because the server is on this host, and not because somebody wrote it */
    bosh_tls_t *tls; /* NULL with policy OFF. Loop thread */
} bosh_target_t;

typedef struct bosh_loop_cfg_t {
    bosh_arena_t *arena;   /* this child's handle; workers use it too, through bosh_loop_lock() */
    bosh_wakers_t *wakers; /* eventfds of all peers, made by the parent, non-blocking */
    const bosh_limits_t *limits;
    const bosh_target_t *targets;
    const char *resolver; /* name servers, "address[:port],..."; NULL: the system's */
    size_t ntargets;
    size_t max_stanza;   /* bytes of one element from the server; below limits->queue_size */
    uint32_t generation; /* httpd's */
    bool escrow;         /* streams are kept so that they survive this process: bosh_escrow.h */
    apr_interval_time_t drain_timeout; /* how long streams that cannot move stay: bosh_linger.h */
    void (*wake)(uint32_t id, uint32_t gen); /* a held request of this child may have something */
    void (*wake_all)(void);
    apr_time_t (*next_deadline)(void); /* when expire() has something to do; BOSH_NEVER: no */
    void (*expire)(apr_time_t now);
    /* The generation that httpd runs or is about to run; NULL: always ours. Any thread. */
    uint32_t (*running_generation)(void);
    /* httpd cannot start another child until one has gone; NULL: it always can. Any thread. */
    bool (*crowded)(void);
    /* NULL: unknown. Loop thread; only asked when this child has been told to stop, some 20 times a second. */
    bosh_parent_t (*parent)(void);
    /* This child stops and others go on: every held request is to be answered now, if with nothing. Once. */
    void (*release)(void);
    /* One complete line without a line end; any thread that releases the arena lock may call it. */
    void (*log)(void *ctx, bosh_log_t level, const char *line);
    void *log_ctx;
    bool stand_in; /* workers may do what the loop would be woken for: bosh_loop_stand_in() */
} bosh_loop_cfg_t;

/* What the loop has done since it started; numbers only ever grow, but for the last two. */
typedef struct bosh_loop_stats_t {
    uint64_t stand_ins; /* turns that workers took in the loop's place */
    uint64_t turns;     /* returns from poll */
    uint64_t reads, writes, bytes_in, bytes_out;
    uint64_t connects, connect_failures;
    uint64_t handshakes, resumed; /* of TLS; of them with an earlier session */
    uint32_t streams;             /* stream objects: sessions whose timers run here */
    uint32_t sockets;             /* of them with a socket */
} bosh_loop_stats_t;

typedef struct bosh_loop_t bosh_loop_t;

/* The generation that httpd wants is ours. Any thread. */
static inline bool bosh_loop_is_current(const bosh_loop_cfg_t *cfg)
{
    return cfg->running_generation == NULL || cfg->running_generation() == cfg->generation;
}

/* How many generations younger than ours another peer's is; they wrap around. */
static inline int32_t bosh_loop_age(const bosh_loop_cfg_t *cfg, uint32_t generation)
{
    return (int32_t)(generation - cfg->generation);
}

#define BOSH_ALONE_TIME apr_time_from_sec(5)  /* no peer to give to, and none can be expected */
#define BOSH_LATE_TIME  apr_time_from_sec(30) /* ... one is to come, but does not */
#define BOSH_DRAIN_TIME apr_time_from_sec(60) /* everything else is done, and still streams */
#define BOSH_FORCE_TIME apr_time_from_sec(2)  /* for a loop that was told to end at once */

/*
 * child_init, main thread: claims a peer, takes over sessions that nobody owns, starts the thread with all
 * signals blocked, and registers bosh_loop_retire() to run before pchild is destroyed. Copies *cfg; what it
 * points to must outlive the loop. APR_ENOSPC: no peer is free (more children than the arena was made for).
 */
apr_status_t bosh_loop_start(bosh_loop_t **loop, const bosh_loop_cfg_t *cfg, apr_pool_t *pchild);

/* This child's peer: `owner` of new sessions, `peer` of its holders. Any thread. */
uint32_t bosh_loop_peer(const bosh_loop_t *loop);

/* The lock with which every thread of this child uses cfg.arena. Any thread. */
bosh_lock_t *bosh_loop_lock(bosh_loop_t *loop);

/*
 * A worker does what mail asks of the sleeping loop, in its place, instead of waking it: so a stanza is on its way
 * to the server without a change of threads. Objects of the loop (streams, sockets, timers) belong to whoever has
 * the seat: the loop's thread, but for the time of its epoll_wait(), or the worker, which does nothing that blocks.
 * False: the seat is taken; then the loop is to be woken as ever. Worker thread, without the lock; `loop` is a
 * bosh_loop_t.
 */
bool bosh_loop_stand_in(void *loop);

/* Makes the loop look at next_deadline() again. Any thread; `loop` is a bosh_loop_t (bosh_hold's kick). */
void bosh_loop_kick(void *loop);

/*
 * child_stopping: the peer becomes DRAINING. Its streams go on being served, and are given to a younger peer
 * (or one of the same age, if there is no younger generation) as soon as there is one. When httpd itself is
 * stopping, the sessions end with system-shutdown. What becomes of held requests: bosh_drain.h. Any thread,
 * also a signal's.
 */
void bosh_loop_drain(bosh_loop_t *loop);

/*
 * The way a draining loop ends: waits until it has given everything away, or has given up. While it waits
 * it takes SIGTERM for this process, and ends at once when that comes or the parent is gone. Then as
 * bosh_loop_stop(). Main thread; bosh_loop_start() registers it to run before pchild goes, and for a loop
 * that was not told to drain it is bosh_loop_stop().
 */
apr_status_t bosh_loop_retire(bosh_loop_t *loop);

/*
 * Ends the sessions this peer owns with system-shutdown, closes their streams (waiting at most a second for
 * slow servers), leaves what clients may still fetch to another peer, frees the peer and joins the thread.
 * Idempotent; main thread.
 */
apr_status_t bosh_loop_stop(bosh_loop_t *loop);

/* Any thread; a snapshot. */
void bosh_loop_stats(const bosh_loop_t *loop, bosh_loop_stats_t *out);

#endif
