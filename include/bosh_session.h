/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_session: what XEP-0124 and XEP-0206 say about one session, as operations on its record in the arena.
 *
 * Every function needs the arena lock, takes the time as an argument and is finite and short: no malloc, no
 * log, no system call, no XML. Whoever must be woken is told by bosh_arena_mail() (the wake-ups leave with
 * the lock). Requests arrive in any child and order; the window (bosh_window.c) puts them into rid order and
 * decides replays, this file decides what each one means and when it is answered.
 *
 *   states: FREE -> LIVE -> ENDING -> TOMB -> FREE   (the matrix is in bosh_session.c)
 *
 * A held request is never answered by the event itself: its holder is mailed and calls bosh_session_poll(),
 * which composes the answer into the slot at the last moment, so that a connection that has just died
 * burns nothing, and what arrived meanwhile goes along. Only what leaves no choice (over hold,
 * terminate, end) is composed at once by whoever causes it.
 */
#ifndef BOSH_SESSION_H
#define BOSH_SESSION_H

#include "bosh_arena.h"
#include "bosh_body.h"
#include "bosh_split.h"

/* The negotiation bounds and sizes of a server, from its directives. Times in seconds, sizes in bytes. */
typedef struct bosh_limits_t {
    unsigned max_wait, max_hold, max_requests;
    unsigned inactivity, polling, maxpause;
    size_t queue_size;    /* per session, each way */
    size_t answer_size;   /* soft: an answer stops taking further stanzas beyond it */
    unsigned max_repeats; /* of one unanswered rid (B-168) */
    unsigned max_streams; /* of one session (16); 0 and 1: no more than one */
    bool keys;            /* new sessions may use key sequencing (15, B-278) */
    bool returns;         /* undelivered stanzas of a session go back: bosh_back.h */
    bool inflate;         /* request bodies may come compressed: `accept` (7.2) */
    unsigned per_address; /* sessions of one client address; 0: any number (B-367) */
    unsigned login_time;  /* seconds from its creation for a session to log in; 0: any time */
    size_t
        login_size; /* payload that may wait in a session before it has logged in; 0: as any other */
} bosh_limits_t;

#define BOSH_ANSWER_SIZE (256 * 1024)
#define BOSH_MAX_REPEATS 25
#define BOSH_TOMB_SECONDS                                                                          \
    15 /* how long a finished session's last answers can be fetched again (R-07) */
#define BOSH_REPORT_AGE                                                                            \
    apr_time_from_msec(500) /* a younger answer may be on its way still (B-184) */
#define BOSH_CREATE_WAIT 20 /* a creation request waits at most this long for the stream features */
#define BOSH_STREAM_HEADER_MAX                                                                     \
    2048 /* a printed stream header: `to` and lang at their longest, all escaped */

/* Who sends a request, as far as sessions care (19). */
typedef struct bosh_client_t {
    const char *ip; /* its address as text, below 46 characters */
    uint16_t port;  /* 0: unknown */
    uint64_t
        net;  /* a number for its network (an IPv4 address, an IPv6 /64); 0: not to be counted */
    bool tls; /* between the client and us, or the proxy we trust */
    uint8_t cert[BOSH_CERT_BYTES]; /* fingerprint of its certificate; zeros: none */
} bosh_client_t;

typedef enum bosh_do_t {
    BOSH_DO_HOLD, /* wait; ask again when woken or at `deadline` */
    BOSH_DO_SEND, /* the answer is stored in the slot: bosh_session_read() */
    BOSH_DO_TELL, /* a body that is not stored: terminate with `cond`, or type='error' if `error` */
    BOSH_DO_BUSY, /* no memory for it now: 503, the client sends the same rid again */
    BOSH_DO_CLOSE /* close the connection without an answer (19.1) */
} bosh_do_t;

/* What to do with the HTTP request at hand. */
typedef struct bosh_verdict_t {
    bosh_do_t act;
    bosh_cond_t cond; /* TELL; SEND: what the answer tells, if it ends the session */
    bool error;       /* TELL: type='error' */
    bool join;        /* text of the session waits for a worker: bosh_join.h */
    bool
        legacy; /* the session's client sent no ver >= 1.6: HTTP codes for some conditions (17.1) */
    bosh_ix session; /* 0: none */
    uint32_t serial;
    uint64_t rid;
    apr_time_t deadline;                /* HOLD */
    size_t len;                         /* SEND: bytes of the answer */
    char content[BOSH_MAX_CONTENT + 1]; /* Content-Type for the response; "" = default */
} bosh_verdict_t;

/*
 * 7.1: creates a session for `req` (no sid in it; `to` already checked and folded by the caller) and holds
 * its first request for `holder`. sid: BOSH_SID_BYTES of randomness. The link starts in phase CONNECT, owned
 * by `owner`, which is mailed. v: HOLD, or TELL (internal-server-error when the table is full, bad-request,
 * policy-violation), or SEND for a polling session, whose creation is answered at once.
 */
void bosh_session_create(bosh_arena_t *a, apr_time_t now, const bosh_req_t *req,
                         const bosh_limits_t *lim, const uint8_t sid[BOSH_SID_BYTES],
                         const char *to, const bosh_client_t *who, uint32_t owner,
                         uint16_t upstream, bosh_holder_t holder, bosh_verdict_t *v);

/* Sections 8 to 15: a request with a sid. */
void bosh_session_request(bosh_arena_t *a, apr_time_t now, const bosh_req_t *req,
                          const bosh_limits_t *lim, const bosh_client_t *who, bosh_holder_t holder,
                          bosh_verdict_t *v);

/* A request with this sid could not be parsed: bad-request ends the session (B-044). v: TELL. */
void bosh_session_bad_request(bosh_arena_t *a, apr_time_t now, const char *sid,
                              const bosh_client_t *who, bosh_verdict_t *v);

/*
 * The holder looks again (woken, deadline, more input, stopping): `must` answers now even with nothing to
 * say (E). v->session, serial and rid are input; the rest is set anew. A holder that was replaced by a
 * resend is told TELL error (B-165); a session that is gone: TELL item-not-found.
 */
void bosh_session_poll(bosh_arena_t *a, apr_time_t now, const bosh_limits_t *lim, bool must,
                       bosh_holder_t holder, bosh_verdict_t *v);

/* The holder's connection is gone: the rid is orphaned if it is still this holder's. */
void bosh_session_gone(bosh_arena_t *a, apr_time_t now, bosh_ix session, uint32_t serial,
                       uint64_t rid, bosh_holder_t holder);

/*
 * Copies up to n bytes at offset off of the stored answer (several calls, the lock released in between);
 * 0: the end, or the answer is no longer kept.
 */
size_t bosh_session_read(bosh_arena_t *a, bosh_ix session, uint32_t serial, uint64_t rid,
                         size_t off, char *dst, size_t n);

/* Copies as much of `src` (NULL: nothing) as fits, and a NUL. Pure. */
void bosh_session_copy_text(char *dst, size_t size, const char *src);

/* The answer of v->rid was let go before it was read to its end. v: TELL, error (B-165) in a session that lives, else
 * item-not-found. */
void bosh_session_lost(bosh_arena_t *a, bosh_verdict_t *v);

/* The answer of this rid could not be written to the connection it was read for, or not to its end. Without
 * effect when it has been sent to another one. */
void bosh_session_unsent(bosh_arena_t *a, bosh_ix session, uint32_t serial, uint64_t rid);

/* ---- for the owner's loop: the upstream side ---- */

/* Prints the stream header for `s` (X-023, U-030): `to`, lang, version as created; no `from`. Returns the
 * length; dst has room for BOSH_STREAM_HEADER_MAX. The restart's own header travels as a HEADER item in `down`. */
size_t bosh_session_print_header(const bosh_session_t *s, char *dst);

/* The same for a restart, with what `req` says of it. Needs no owner. */
size_t bosh_session_print_restart(const bosh_session_t *s, const bosh_req_t *req, char *dst);

/*
 * Applies what the splitter found to the session: queues elements in link.up, moves the phase, stores the
 * header's id, from, lang and prime, and consumes link.raw up to the splitter's boundary; *raw_base is kept.
 * Then mails the holder of the oldest held request. Returns APR_ENOMEM when the chunks ran out: nothing of
 * the events from the first that did not fit on was applied, *done tells how many were; the caller stalls
 * and applies the rest (events from *done on) when mailed or at its next sweep.
 */
apr_status_t bosh_session_up(bosh_arena_t *a, apr_time_t now, bosh_session_t *s,
                             const bosh_split_event_t *ev, size_t n, const bosh_split_header_t *hdr,
                             uint64_t boundary, uint64_t *raw_base, size_t *done);

/* True while the owner should read from the server: `up` and `raw` are below the queue size. Sets or clears
 * BOSH_LINK_STALLED; a later drain of `up` mails the owner when it is set. */
bool bosh_session_may_read(bosh_arena_t *a, bosh_session_t *s, const bosh_limits_t *lim);

/* The owner has written n bytes of the head of `down`, or taken a HEADER or CLOSE item off it (n = 0):
 * requests that waited for room are processed. */
void bosh_session_sent(bosh_arena_t *a, apr_time_t now, bosh_session_t *s,
                       const bosh_limits_t *lim);

/*
 * The upstream stream is over. cond: BOSH_COND_NONE for a clean </stream:stream> (X-085),
 * REMOTE_STREAM_ERROR after a stream error, REMOTE_CONNECTION_FAILED, SYSTEM_SHUTDOWN, ... The link
 * becomes CLOSED, what is still in `up` goes to the client first, the terminal answer follows it.
 */
void bosh_session_link_over(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, bosh_cond_t cond);

/* Ends the session from our side with `cond`: everybody who waits is told, the link gets a CLOSE. */
void bosh_session_end(bosh_arena_t *a, apr_time_t now, bosh_session_t *s, bosh_cond_t cond);

/*
 * The owner's timer: does what is due (inactivity, gap, end of a tombstone: the record may be FREED, then
 * BOSH_NEVER is returned and `s` must not be touched) and returns when to call again (also stored in
 * s->armed). A link that is not CLOSED keeps the record: the loop closes it and calls again.
 */
apr_time_t bosh_session_tick(bosh_arena_t *a, apr_time_t now, bosh_session_t *s,
                             const bosh_limits_t *lim);

/*
 * For a stream that is taken over from a dead owner: `in` and `out` are what the kernel has counted on its
 * socket (bosh_tcpinfo.h). Commits to link.raw what was read and not committed, consumes from link.down what
 * was written and not consumed. *unsaid: bytes of our own header or end that were not written. False: record
 * and socket do not agree; the stream cannot go on.
 */
bool bosh_session_reconcile(bosh_arena_t *a, bosh_session_t *s, uint64_t in, uint64_t out,
                            uint64_t *unsaid);

/*
 * A peer died: the links it owned are over (remote-connection-failed) unless they were only connecting, which the heir begins anew; its
 * holders are gone; the sessions'
 * timers go to `heir`, which is mailed for each. Streams that were on their way to it go back to their
 * giver; those that it was giving away are left to their new owner, which is mailed and looks whether it
 * still gets the socket. Works on sessions [*from, *from + max) and moves *from, so
 * that the caller can release the lock in between; returns true while there is more. *lost counts.
 */
bool bosh_session_peer_died(bosh_arena_t *a, apr_time_t now, uint32_t dead, uint32_t heir,
                            bosh_ix *from, uint32_t max, uint32_t *lost);

#endif
