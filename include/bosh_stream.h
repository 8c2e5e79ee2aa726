/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_stream: the XMPP streams of one loop: connect, header, features, open, closing; and the session
 * timers, which live where the stream lives.
 *
 * The truth about a stream is bosh_link_t in the arena; a bosh_stream_t is what one process adds to it: the
 * socket, the parser (only while an element is half read) and its place in the heap of timers. It exists
 * for each session whose link.owner is this peer, with or without a socket, until the record is freed.
 *
 * Loop thread only. No function may be called with the arena lock held; those that take it hold it for one
 * step and never across a system call or a callback.
 */
#ifndef BOSH_STREAM_H
#define BOSH_STREAM_H

#include "bosh_conn.h"
#include "bosh_escrow.h"
#include "bosh_breaker.h"
#include "bosh_loop.h"
#include "bosh_resolve.h"
#include "bosh_split.h"
#include "bosh_timer.h"

#define BOSH_STREAM_END   "</stream:stream>"
#define BOSH_STREAM_SPACE " " /* a keep-alive */

#define BOSH_IO_SIZE (16 * 1024) /* bytes per read or write */
#define BOSH_IO_ROUND                                                                              \
    (64 * 1024) /* per stream and turn of the loop, so that one cannot starve the rest */
#define BOSH_SPARE_SPLITTERS 64 /* parsers kept for later, in a loop */
#define BOSH_CLOSE_TIME                                                                            \
    apr_time_from_sec(2) /* how long we wait for the server's </stream:stream> */
#define BOSH_FLUSH_TIME    apr_time_from_sec(10)  /* ... for it to take what precedes ours */
#define BOSH_RETRY_TIME    apr_time_from_msec(50) /* a unix socket whose backlog is full */
#define BOSH_COMPLAIN_TIME apr_time_from_sec(10)  /* at most one warning per target in this time */

typedef struct bosh_stream_t {
    bosh_timer_t timer; /* must be first: the heap finds the stream by it */
    bosh_ix index;
    uint32_t serial;
    bosh_conn_t conn;
    const bosh_target_t *target; /* the one that is tried, or connected to */
    struct bosh_dial_t *dial; /* until the stream is open; NULL: taken over from another process */
    apr_time_t tick_at;       /* bosh_session_tick() */
    apr_time_t link_at;       /* copy of link.deadline; BOSH_NEVER */
    apr_time_t attempt_at;    /* dialing has something to do */
    apr_time_t quiet_at;      /* OPEN: a keep-alive may be due */
    uint32_t polled;          /* events registered with epoll, if `registered` */
    uint8_t phase;            /* copy of link.phase as of the last lock section */
    uint8_t secure;           /* bosh_secure_t */
    bool registered;
    bool hup; /* the connection broke while we were not reading: not polled until we read again */
    bool stalled;      /* not reading: the client is slow */
    bool blocked;      /* events wait in the splitter: the chunks ran out */
    bool want_write;   /* the socket's buffer is full */
    bool write_dead;   /* writing failed; what can be read is still read */
    bool midway;       /* a part of a stanza was written, the rest was not */
    bool said_end;     /* our </stream:stream> was written */
    bool restart;      /* a HEADER item waits for the old stream to be read to its end */
    bool gone;         /* the session is no longer ours: drop this object */
    bool given;        /* another peer is taking it over; kept, untouched, until that is certain */
    uint32_t transfer; /* ... with this serial */
    bool local;        /* a unix socket */
    bool sent_on;      /* the server has sent us elsewhere once: bosh_elsewhere.h */
    bool parked;       /* a duplicate is in escrow */
    bool unparked;     /* ... should be, but was refused */
    uint64_t base;     /* the kernel's count of bytes written on this connection before our first */
    /* before the stream: what the server has said in the clear (bosh_secure.h) */
    char *clear;
    size_t clear_n;
    /* up: the splitter holds [raw_base, fed) of the stream; link.raw begins at raw_base */
    bosh_splitter_t *sp;
    uint64_t raw_base, fed;
    size_t ev_done;
    const char *fault;       /* the parser refused what came after its events; static text */
    const char *fault_error; /* ... the stream error to send */
    /* down: our own header or end, what of it the socket did not take yet */
    char *pend;
    size_t pend_off, pend_n;
} bosh_stream_t;

/* Warnings about one target are rationed: a dead server must not fill the log. */
typedef struct bosh_complaint_t {
    apr_time_t last;
    unsigned more;
    char text[420];
} bosh_complaint_t;

typedef struct bosh_streams_t {
    const bosh_loop_cfg_t *cfg;
    bosh_lock_t *lock;
    bosh_arena_t *arena;
    uint32_t me;
    int epfd;
    apr_time_t now;        /* of this turn of the loop */
    bosh_stream_t **table; /* by session index */
    uint32_t ntable;
    bosh_timers_t timers;
    bosh_sockets_t *sockets;
    bosh_resolver_t *resolver;
    bosh_breaker_t *breaker;
    bosh_escrow_t escrow;
    bosh_splitter_t *spare[BOSH_SPARE_SPLITTERS];
    unsigned nspare;
    uint32_t bound; /* streams that cannot move: those with TLS, whose state is in this process */
    bosh_complaint_t *complaints; /* by target, and one more for streams without */
    bool recheck;                 /* memory ran out: look at everything at the next sweep */
    bool halted;                  /* since the last sweep a stream was left that may not read */
    bool orphans;                 /* a stream on its way to us has lost its giver */
    bosh_loop_stats_t stats;      /* written by the loop thread with atomic stores, read by any */
    char buf[BOSH_IO_SIZE];
} bosh_streams_t;

#define BOSH_STAT_ADD(ss, field, n)                                                                \
    __atomic_store_n(&(ss)->stats.field, (ss)->stats.field + (n), __ATOMIC_RELAXED)

/* NULL: no memory. cfg and lock outlive it. */
bosh_streams_t *bosh_streams_create(const bosh_loop_cfg_t *cfg, bosh_lock_t *lock, uint32_t me,
                                    int epfd);

/* Closes every socket without a word; says nothing to the arena. */
void bosh_streams_destroy(bosh_streams_t *ss);

/* A hint that this session wants a look: mail, or its timer. Does whatever its record asks for. */
void bosh_stream_look(bosh_streams_t *ss, bosh_ix index, uint32_t serial);

/* Names that streams wait for have been looked up: they go on. */
void bosh_streams_resolved(bosh_streams_t *ss);

/* epoll says so about the stream registered as BOSH_STREAM_TAG. */
void bosh_stream_event(bosh_streams_t *ss, bosh_ix index, uint32_t serial, uint32_t events);
#define BOSH_STREAM_TAG(index, serial) ((uint64_t)(index) << 32 | (serial))

/* The earliest timer; runs those that are due. */
apr_time_t bosh_streams_next(const bosh_streams_t *ss);
void bosh_streams_run(bosh_streams_t *ss);

/* Once a second: tries stalled streams again, writes rationed complaints. */
void bosh_streams_sweep(bosh_streams_t *ss);

/* The mailbox overflowed or the arena was repaired: looks at every session that is ours, and drops what no
 * longer is. Takes the lock for 256 records at a time. */
void bosh_streams_recheck(bosh_streams_t *ss);

/* Ends each session that is ours with `cond` and begins to close its stream; returns how many. */
uint32_t bosh_streams_end_all(bosh_streams_t *ss, bosh_cond_t cond);

/* The same for those that cannot move to another process. */
uint32_t bosh_streams_end_bound(bosh_streams_t *ss, bosh_cond_t cond);

/* Before this process ends without leaving: ends what is not in escrow (*lost), and sees to it that nothing
 * else is shut down. Returns how many live on. Nothing but bosh_streams_destroy() may follow. */
uint32_t bosh_streams_leave(bosh_streams_t *ss, uint32_t *lost);

/* Closes what is still open, at once. */
void bosh_streams_abandon(bosh_streams_t *ss);

/* ---- for bosh_handover.c and bosh_streams.c ---- */

/* What every entry point of a stream ends with: its registration and timer agree with its state; frees it when
 * it is gone. */
void bosh_stream_settle(bosh_streams_t *ss, bosh_stream_t *st);

/* An object for this session, in the table. NULL: no memory. */
bosh_stream_t *bosh_stream_new(bosh_streams_t *ss, bosh_ix index, uint32_t serial);

/* Closes what it has and takes it out of the table; given: without harm to the connection. */
void bosh_stream_free(bosh_streams_t *ss, bosh_stream_t *st);

/* No longer polled, no timer: nothing happens to it until bosh_stream_look(). */
void bosh_stream_rest(bosh_streams_t *ss, bosh_stream_t *st);

/* How many streams are not closed yet, those given away not counted. */
uint32_t bosh_streams_open(const bosh_streams_t *ss);

/* ---- for bosh_dial.c, bosh_down.c and bosh_up.c ---- */

/* Takes the lock and returns the session's record if it is still ours; else the lock is NOT held, NULL is
 * returned and the stream is marked gone. */
bosh_session_t *bosh_stream_lock(bosh_streams_t *ss, bosh_stream_t *st);

/* The same for a section that changes nothing in the session, or says bosh_arena_touch() before it does: it costs no
 * copy of the record. */
bosh_session_t *bosh_stream_peek(bosh_streams_t *ss, bosh_stream_t *st);
void bosh_stream_unlock(bosh_streams_t *ss);

const bosh_limits_t *bosh_stream_limits(const bosh_streams_t *ss, const bosh_stream_t *st);

/* After how much time without a word of ours the server gets a space; 0: never. */
apr_interval_time_t bosh_stream_keepalive(const bosh_stream_t *st);

/* Notes the phase and its deadline in both halves. Lock held. */
void bosh_stream_phase(bosh_stream_t *st, bosh_session_t *s, bosh_phase_t phase,
                       apr_time_t deadline);

/*
 * The stream is over: says </stream:stream> where that still makes sense, closes the socket and tells the
 * session, whose client gets `cond`. `reason` goes to the log; a failure before the stream was open is a
 * (rationed) warning.
 */
void bosh_stream_over(bosh_streams_t *ss, bosh_stream_t *st, bosh_cond_t cond, const char *reason);

/* Takes the socket away, and everything that goes with it; the arena is not told. */
void bosh_stream_hang_up(bosh_streams_t *ss, bosh_stream_t *st);

void bosh_stream_log(bosh_streams_t *ss, const bosh_stream_t *st, bosh_log_t level, const char *fmt,
                     ...) __attribute__((format(printf, 4, 5)));

/* A stream never opened, for this reason; its client is told `cond`: a warning, at most one per target in
 * BOSH_COMPLAIN_TIME. */
void bosh_stream_complain(bosh_streams_t *ss, const bosh_stream_t *st, bosh_cond_t cond,
                          const char *reason);

/* Once a second: sums up the warnings that were held back. */
void bosh_streams_complaints(bosh_streams_t *ss);

#endif
