/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_arena: the one shared segment that holds every session.
 *
 *   [ header | peers[P] | buckets[B] | nets[N] | undo | sessions[S] (each with N slots) | chunk marks | chunks[C] ]
 *
 * Made once by the parent, inherited by fork, never grown, free of pointers: records name each other by
 * 1-based 32-bit indexes, processes name a session by (index, serial) and so notice a stale name. All
 * functions need the arena lock unless they say otherwise; none allocates, blocks, logs or calls the
 * system. The lock itself is bosh_lock.h: core is handed a locked arena.
 */
#ifndef BOSH_ARENA_H
#define BOSH_ARENA_H

#include "bosh.h"
#include "bosh_key.h"
#include "bosh_queue.h"

#define BOSH_ARENA_MAGIC  UINT64_C(0x626f73686172656e) /* "bosharen" */
#define BOSH_ARENA_LAYOUT 13u /* raise with every change of a struct below */

#define BOSH_CHUNK_SIZE 512
#define BOSH_CHUNK_DATA (BOSH_CHUNK_SIZE - 12)
#define BOSH_MAILBOX                                                                               \
    1024 /* messages a peer can have waiting; more: it looks at everything it has */
#define BOSH_LOCK_SPACE 128 /* room for the lock, which only bosh_lock.c looks into */
#define BOSH_SLOTS_MIN  8
#define BOSH_SLOTS_MAX  64

typedef enum bosh_chunk_state_t {
    BOSH_CHUNK_FREE = 0,
    BOSH_CHUNK_USED,
    BOSH_CHUNK_RESERVED /* used, and an open reservation lies in it: somebody may be writing there unlocked */
} bosh_chunk_state_t;

typedef struct bosh_chunk_t {
    bosh_ix next;  /* behind it in its string; stays when it is freed */
    bosh_ix after; /* FREE: behind it on a free list; else the section that took it (bosh_undo.h) */
    uint16_t used; /* bytes filled */
    uint16_t state; /* bosh_chunk_state_t */
    char data[BOSH_CHUNK_DATA];
} bosh_chunk_t;

/* ---- peers: one per httpd child that runs a loop ---- */

typedef enum bosh_peer_state_t {
    BOSH_PEER_FREE = 0,
    BOSH_PEER_LIVE,
    BOSH_PEER_DRAINING, /* told to stop; serves its streams until it can give them away */
    BOSH_PEER_LEAVING   /* gone, going, or not ready yet: nobody gives it a stream */
} bosh_peer_state_t;

/* A message is a hint that something is worth a look; the truth is in the session (DESIGN.md section 6). */
#define BOSH_MAIL_SESSION 0u          /* what = session index, tag = its serial */
#define BOSH_MAIL_WAITER  0x80000000u /* what = waiter id | this bit, tag = its generation */

typedef struct bosh_mail_t {
    uint32_t what;
    uint32_t tag;
} bosh_mail_t;

typedef struct bosh_peer_t {
    uint32_t state;
    uint32_t pid;
    uint32_t serial;     /* incarnation: raised at each claim */
    uint32_t generation; /* httpd's */
    int64_t heartbeat;
    uint32_t mail_head, mail_n;
    uint32_t overflow; /* messages were dropped: look at every session and waiter */
    uint32_t asleep;   /* the loop waits in poll: a sender must write its eventfd */
    uint32_t streams;  /* sessions it owns: bosh_arena_own() */
    uint32_t moved;    /* DRAINING: it has given its streams away */
    uint32_t
        parked; /* descriptors in its escrow; written by it alone, read by anyone without the lock */
    bosh_mail_t mail[BOSH_MAILBOX];
} bosh_peer_t;

/* ---- sessions ---- */

/* Who waits for an answer: a waiter (bosh_hold.h) in a peer. peer 0: nobody, the connection is gone. */
typedef struct bosh_holder_t {
    uint32_t peer;
    uint32_t waiter;
    uint32_t gen;
} bosh_holder_t;

typedef enum bosh_slot_state_t {
    BOSH_SLOT_FREE = 0,
    BOSH_SLOT_DEFERRED, /* arrived, not processed: a gap before it, or no room downstream */
    BOSH_SLOT_HELD,     /* processed, unanswered */
    BOSH_SLOT_ANSWERED  /* the answer is stored */
} bosh_slot_state_t;

#define BOSH_SLOT_EMPTY     0x01u /* carried no payload */
#define BOSH_SLOT_TERMINATE 0x02u
#define BOSH_SLOT_RESTART   0x04u
#define BOSH_SLOT_PAUSE     0x08u
#define BOSH_SLOT_CREATION  0x10u
#define BOSH_SLOT_EXCUSED                                                                          \
    0x20u /* its client has been told type='error': it gets E when due, no payload */
#define BOSH_SLOT_FINAL  0x40u   /* the stored answer ends the session */
#define BOSH_SLOT_MAILED 0x80u   /* its holder has been mailed and has not looked yet */
#define BOSH_SLOT_PLAIN  0x200u  /* the answer is BOSH_BODY_EMPTY: nothing is stored for it */
#define BOSH_SLOT_SENT   0x400u  /* the answer has been read to its end by who sends it */
#define BOSH_SLOT_GAVE   0x100u  /* the stored answer carries payload */
#define BOSH_SLOT_AGAIN  0x1000u /* it was sent once more */
#define BOSH_SLOT_SUSPECT                                                                          \
    0x800u /* DEFERRED: one request too many, unless another's connection is gone (bosh_pace.h) */
#define BOSH_SLOT_ADD   0x2000u /* asks for another stream, `stream`: bosh_multi.h */
#define BOSH_SLOT_STRAY 0x8000u /* DEFERRED: names a stream that the session does not have */
#define BOSH_SLOT_RAW                                                                              \
    0x4000u /* DEFERRED: its payload is text that has to be joined with what came before: bosh_join.h */

/* One request id, from its arrival until its answer leaves the replay window. rid % nslots is its place. */
typedef struct bosh_slot_t {
    uint64_t rid;
    uint8_t state;
    uint8_t cond; /* FINAL: the bosh_cond_t it tells */
    uint16_t flags;
    uint16_t repeats; /* how often it was sent again while unanswered (B-168) */
    uint16_t pause;   /* seconds, with BOSH_SLOT_PAUSE */
    bosh_holder_t holder;
    bosh_ix stream;         /* whose this is; 0: everybody's, once ANSWERED the first stream's */
    uint32_t stream_serial; /* ... of that record; 0: it was the first stream's */
    bosh_key_t keys;        /* section 15, in a session with BOSH_SESS_KEYED */
    int64_t arrived;
    int64_t due;          /* when it must be answered at the latest */
    int64_t answered;     /* when the answer was stored */
    bosh_queue_t payload; /* DEFERRED: what it carries (STANZA, HEADER items) */
    bosh_bytes_t answer;  /* ANSWERED: the whole <body/> */
} bosh_slot_t;

typedef enum bosh_phase_t {
    BOSH_LINK_NONE = 0,
    BOSH_LINK_CONNECT,  /* resolve, connect, TLS: nothing of XMPP said yet */
    BOSH_LINK_HEADER,   /* our header is sent, the server's is awaited */
    BOSH_LINK_FEATURES, /* header seen, features awaited */
    BOSH_LINK_OPEN,
    BOSH_LINK_CLOSING, /* </stream:stream> sent, the server's awaited for a moment */
    BOSH_LINK_CLOSED
} bosh_phase_t;

#define BOSH_LINK_MAILED     0x01u /* a message about it waits in the owner's mailbox */
#define BOSH_LINK_STALLED    0x02u /* the owner stopped reading: `up` is full or no chunks */
#define BOSH_LINK_HAS_HEADER 0x04u /* lang and, until it has been told, hello are known */
#define BOSH_LINK_ERROR      0x08u /* the last item of `up` is a stream error */
#define BOSH_LINK_TRANSIT                                                                          \
    0x10u /* given to `owner`, which has not taken the socket yet: see bosh_handover.h */
#define BOSH_LINK_KEPT 0x20u /* its owner has a duplicate of the socket in escrow: bosh_escrow.h */
#define BOSH_LINK_ODD_HEADER                                                                       \
    0x40u /* our last stream header is not what bosh_session_print_header() prints */

#define BOSH_ROW_UNKNOWN UINT16_MAX /* the domain tells, if any line does */

/* The arena's half of an upstream stream: all that must outlive its owner. */
typedef struct bosh_link_t {
    char lang[BOSH_MAX_LANG + 1]; /* the server's header's */
    uint32_t owner;               /* peer whose loop has the socket and the session's timers */
    uint32_t giver;    /* with TRANSIT: the peer that has it still; 0: that one is dead */
    uint32_t transfer; /* serial of the last hand-over */
    uint16_t upstream; /* row in the owner's table of BoshUpstream lines, or BOSH_ROW_UNKNOWN */
    uint8_t phase;     /* bosh_phase_t */
    uint8_t flags;
    int64_t deadline; /* of the phase */
    /* What the kernel's counters of the socket say when all is in order: bytes read and committed to `raw`; bytes
     * written, as far as they are consumed from `down`, and our own header and end, written or not. */
    uint64_t in, out;
    int64_t wrote;      /* when we last wrote anything: what a keep-alive waits for */
    bosh_queue_t down;  /* to the server: STANZA, HEADER, CLOSE */
    bosh_queue_t up;    /* to the client: STANZA, SASL, FEATURES, ERROR */
    bosh_bytes_t raw;   /* read from the server since the last element boundary */
    bosh_bytes_t prime; /* the server's header for a later parser; empty: the default prime */
    bosh_bytes_t hello; /* HAS_HEADER, not yet ANNOUNCED: its id, from, version, each with NUL */
    uint32_t up_single; /* items in `up` that travel alone in their body: FEATURES, SASL */
} bosh_link_t;

typedef enum bosh_state_t {
    BOSH_ST_FREE = 0,
    BOSH_ST_LIVE, /* takes requests */
    BOSH_ST_ENDING, /* the upstream is gone or going; what is queued and the terminal answer wait for the client */
    BOSH_ST_TOMB /* over for the client; stored answers are kept for resends */
} bosh_state_t;

#define BOSH_SESS_ACKS      0x01u  /* client and manager acknowledge (9) */
#define BOSH_SESS_TLS       0x02u  /* created over TLS (19.1) */
#define BOSH_SESS_POLLING   0x04u  /* wait or hold is 0 (12) */
#define BOSH_SESS_ANNOUNCED 0x08u  /* from, authid, version have been sent */
#define BOSH_SESS_NAMED     0x10u  /* a branch: its name has been told (16.3) */
#define BOSH_SESS_KEYED     0x20u  /* each request proves itself by a key (15) */
#define BOSH_SESS_SUSPECT   0x40u  /* there may be slots with BOSH_SLOT_SUSPECT */
#define BOSH_SESS_REPORT    0x80u  /* the next answer reports the one after client_ack (9.2) */
#define BOSH_SESS_LOGIN     0x100u /* the client has logged in */
#define BOSH_SESS_SM        0x200u /* client and server have stream management (XEP-0198) */
#define BOSH_SESS_RETURNS                                                                          \
    0x400u /* what the client does not get goes back to the server: bosh_back.h */
#define BOSH_SESS_BACK    0x800u  /* ... and now is the time */
#define BOSH_SESS_STREAMS 0x1000u /* the client knows that it may add streams (16.2) */
#define BOSH_SESS_MULTI   0x2000u /* it has done so: answers name their stream (16.4) */
#define BOSH_SESS_SCRIPT  0x4000u /* in script syntax from its creation to its end (XEP-0252) */

/* Text comes first, the link's included: what is written once, when the session or its stream begins, and
 * need not be saved before each change (bosh_undo.h). */
typedef struct bosh_session_t {
    char to[BOSH_MAX_DOMAIN + 1];
    char lang[BOSH_MAX_LANG + 1];
    char content[BOSH_MAX_CONTENT + 1];
    char xmpp_version[8];
    char peer_ip[46];   /* the client's address, for the PROXY protocol */
    uint16_t peer_port; /* ... and port; 0: unknown */
    uint8_t cert
        [BOSH_CERT_BYTES]; /* fingerprint of the certificate it was created with; zeros: none (19.1) */
    uint8_t name[BOSH_SID_BYTES]; /* STREAMS: the first stream's; a branch's is its sid */
    bosh_link_t link;
    uint32_t serial; /* raised when the record is freed */
    uint32_t state;  /* bosh_state_t */
    bosh_ix hash_next, free_next;
    uint8_t sid[BOSH_SID_BYTES];
    uint64_t
        net; /* the client's network, while it is counted: bosh_arena_net_add(); 0: it is not */
    uint32_t flags;
    uint16_t wait, hold, requests, inactivity, polling, maxpause;
    uint16_t login_time;          /* bosh_limits_t's, of the virtual host that was asked */
    uint8_t ver_major, ver_minor; /* major 0: the client sent no ver */
    uint8_t cond;                 /* bosh_cond_t of the terminal answer */
    uint8_t first;      /* bosh_state_t of the first stream, while others live; 0: as `state` */
    uint8_t first_cond; /* ... and how it ended */
    uint8_t key[BOSH_KEY_BYTES]; /* KEYED: what the next request's key must hash to, in rid order */
    uint64_t received;           /* C: every rid up to it has arrived */
    uint64_t processed;          /* every rid up to it has been applied */
    uint64_t answered;           /* every rid up to it has its answer stored */
    uint64_t client_ack;
    uint64_t paused_rid;
    int64_t
        inactive_at; /* when the session dies unless a request comes; BOSH_NEVER while one is held */
    int64_t pause_until;
    int64_t gap_since; /* when the oldest open gap was seen; 0: none */
    int64_t armed;     /* the owner's timer for this session; an earlier deadline needs a message */
    int64_t created;
    bosh_ix
        root; /* a branch: the session whose stream this is (bosh_multi.h); 0: it is a session */
    uint32_t root_serial;
    bosh_ix branch;      /* the session's first branch, in a branch the next one: by index */
    bosh_ix turn;        /* whose stream's payload went last; 0: the first one's */
    bosh_bytes_t part;   /* SCRIPT: the beginning of a stanza whose end has not come: bosh_join.h */
    bosh_slot_t slots[]; /* header.nslots of them */
} bosh_session_t;

/* ---- the segment ---- */

typedef struct bosh_arena_sizes_t {
    uint32_t peers, sessions, slots, chunks;
} bosh_arena_sizes_t;

#define BOSH_LOCK_SAMPLE 64u

typedef struct bosh_counters_t {
    uint64_t created, refused, ended, expired, lost, requests, resends, stanzas_down, stanzas_up;
    uint64_t repairs, repaired_sessions, lock_contended;
    uint64_t lock_taken;
    uint64_t lock_held;   /* nanoseconds, of one taking in BOSH_LOCK_SAMPLE, times that */
    uint64_t lock_waited; /* nanoseconds, of those that were contended */
    uint64_t wakes;   /* eventfds written after an unlock, or turns that a worker took instead */
    uint64_t moved;   /* streams that another process has taken over alive */
    uint64_t rescued; /* ... from a dead one */
    /* Sessions lost for other reasons than the client's, the XMPP server's or the administrator's: `lost`
     * with a process that died, `repaired_sessions`, and: */
    uint64_t lost_drain; /* nobody took them from a child that had to stop */
    uint64_t lost_stop;  /* their child was stopped at once, or httpd itself */
} bosh_counters_t;

typedef struct bosh_header_t {
    /* These three are where they are in every layout. `abandoned`: the server goes on with a version of the
     * module that cannot read this memory. */
    uint64_t magic;
    uint32_t layout;
    uint32_t abandoned;
    uint32_t session_size;
    bosh_arena_sizes_t sizes;
    uint32_t buckets, nets;
    uint64_t off_peers, off_buckets, off_nets, off_undo, off_sessions, off_marks, off_chunks, total;
    /* Records from `fresh` on have never been handed out and their memory was never touched; the free lists
     * (last in, first out) hold only what has come back. */
    bosh_ix free_session, fresh_session;
    bosh_ix free_chunk, fresh_chunk;
    bosh_ix late_chunk;    /* list of those to hand out last: see bosh_arena_repair() */
    uint32_t nsessions;    /* not FREE */
    uint32_t nfree_chunks; /* on the lists, the undo's included, and the fresh ones */
    bosh_ix busy;          /* session being changed right now: see bosh_undo.h */
    uint32_t closing;      /* the server is shutting down: no new sessions */
    uint32_t counting;     /* sessions have been counted by network: `nets` has been touched */
    bosh_counters_t count;
    char lock[BOSH_LOCK_SPACE] __attribute__((aligned(64)));
} bosh_header_t;

/* A process's view of the segment. The handle is private to the process; `wake` is guarded by the lock. */
typedef struct bosh_arena_t {
    char *base;
    bosh_header_t *h;
    bosh_peer_t *peers;
    uint32_t *buckets;
    uint32_t *nets; /* header.nets counters: bosh_arena_net_count() */
    struct bosh_undo_t *undo;
    char *sessions;
    uint8_t *marks;
    bosh_chunk_t *chunks;
    uint32_t nwake; /* peers whose eventfd is to be written once the lock is released */
    uint16_t wake[16];
    bool wake_all; /* ... too many to list */
} bosh_arena_t;

/* Bytes needed for these sizes, 64-bit checked; 0: too large or out of range (slots: power of two). No lock. */
uint64_t bosh_arena_size(const bosh_arena_sizes_t *sizes);

/* Lays a fresh arena out in zeroed memory (page-aligned) of at least bosh_arena_size(). No lock: before any fork. */
apr_status_t bosh_arena_format(void *mem, const bosh_arena_sizes_t *sizes, bosh_arena_t *a);

/* Takes an existing one. APR_EINVAL: another layout or not an arena. No lock. */
apr_status_t bosh_arena_attach(void *mem, bosh_arena_t *a);

/* Tells those who use an arena of another layout that nobody will take it over. No lock: a single word. */
void bosh_arena_abandon(void *mem);

static inline bosh_session_t *bosh_arena_session(bosh_arena_t *a, bosh_ix i)
{
    return (bosh_session_t *)(a->sessions + (uint64_t)(i - 1) * a->h->session_size);
}

static inline bosh_ix bosh_arena_index(bosh_arena_t *a, const bosh_session_t *s)
{
    return (bosh_ix)(((const char *)s - a->sessions) / a->h->session_size) + 1;
}

/* The session (index, serial) names, or NULL when it has been freed since. */
bosh_session_t *bosh_arena_get(bosh_arena_t *a, bosh_ix i, uint32_t serial);

/* Calls visit with each string of a session, those inside of queues included, until one complains; what it says,
 * or NULL. */
typedef const char *bosh_arena_visit_t(bosh_arena_t *a, const bosh_bytes_t *b);
const char *bosh_arena_each_string(bosh_arena_t *a, const bosh_session_t *s,
                                   bosh_arena_visit_t *visit);

/* Finds by the sid text of a request (any text is safe); compares in constant time (B-368). NULL: none. */
bosh_session_t *bosh_arena_find(bosh_arena_t *a, const char *sid);

/* The same for a further stream of a session, by its name. */
bosh_session_t *bosh_arena_find_branch(bosh_arena_t *a, const uint8_t name[BOSH_SID_BYTES]);

/* Writes the 32 hex digits and a NUL. */
void bosh_arena_sid_text(const bosh_session_t *s, char out[BOSH_SID_LEN + 1]);
void bosh_arena_print_sid(const uint8_t sid[BOSH_SID_BYTES], char out[BOSH_SID_LEN + 1]);

/* The other way. False: that is no sid. No lock. */
bool bosh_arena_read_sid(const char *sid, uint8_t bytes[BOSH_SID_BYTES]);

/* A cleared session under this random sid, in the hash, state LIVE; NULL: table full, or chunks below the
 * BOSH_PRIO_NEW reserve, or the sid exists. Low indexes first, so that an idle arena stays small. It has been
 * touched (bosh_undo.h). */
bosh_session_t *bosh_arena_session_new(bosh_arena_t *a, const uint8_t sid[BOSH_SID_BYTES]);

/* Frees all its chunks and the record; raises its serial. */
void bosh_arena_session_free(bosh_arena_t *a, bosh_session_t *s);

/*
 * How many sessions `net` has (any number but 0 that stands for a client's network), those that are kept for
 * repeats after their end included; may rarely be too high, never too low. Each session counts from
 * bosh_arena_net_add() until it is freed.
 */
uint32_t bosh_arena_net_count(bosh_arena_t *a, uint64_t net);
void bosh_arena_net_add(bosh_arena_t *a, bosh_session_t *s, uint64_t net);
/* The two counters of `net`. */
void bosh_arena_net_cells(bosh_arena_t *a, uint64_t net, uint32_t *cell[2]);

bosh_slot_t *bosh_arena_slot(bosh_arena_t *a, bosh_session_t *s,
                             uint64_t rid); /* its place, whoever is in it */

bosh_ix bosh_arena_chunk_new(bosh_arena_t *a,
                             bosh_prio_t prio); /* 0: none left for this priority */
void bosh_arena_chunk_free(bosh_arena_t *a, bosh_ix c);
static inline bosh_chunk_t *bosh_arena_chunk(bosh_arena_t *a, bosh_ix c)
{
    return &a->chunks[c - 1];
}
/* True when n chunks can be had at this priority. */
bool bosh_arena_room(bosh_arena_t *a, uint32_t n, bosh_prio_t prio);

/* Makes `peer` (0: nobody) the owner of the session's link. Every change of an owner goes through here. */
void bosh_arena_own(bosh_arena_t *a, bosh_session_t *s, uint32_t peer);

/* Claims a FREE peer: state LIVE, mailbox empty, serial raised. 0: all taken. */
uint32_t bosh_arena_peer_claim(bosh_arena_t *a, uint32_t pid, uint32_t generation, apr_time_t now);
static inline bosh_peer_t *bosh_arena_peer(bosh_arena_t *a, uint32_t peer)
{
    return &a->peers[peer - 1];
}

/* Sends a hint; never blocks, never fails: a full mailbox sets `overflow`. Notes in a->wake that the
 * peer's eventfd wants writing when its loop is asleep. peer 0 or not in use: ignored. */
void bosh_arena_mail(bosh_arena_t *a, uint32_t peer, uint32_t what, uint32_t tag);

/* Takes up to max messages; *overflow is set (and reset in the peer) when some were dropped. */
uint32_t bosh_arena_mail_take(bosh_arena_t *a, uint32_t peer, bosh_mail_t *out, uint32_t max,
                              bool *overflow);

/*
 * Proves that each chunk is on exactly one list, each queue's numbers agree with its chunks, each session
 * that is in use is in exactly one bucket and each free one on the free list, and the counts agree.
 * APR_SUCCESS, or APR_EGENERAL with *why (static text). Uses the mark area; changes nothing else.
 */
apr_status_t bosh_arena_validate(bosh_arena_t *a, const char **why);

/*
 * After a holder of the lock has died: puts the session it was changing back to how it was before (bosh_undo.h),
 * and frees every session whose lists do not hold together; rebuilds the free lists, buckets and counts from what is left, empties mailboxes and sets
 * `overflow` on every peer in use, so that each looks at everything it has, and notes them all in a->wake.
 * Returns the sessions freed, and counts them. Never follows an index it has not checked; two sessions that
 * claim one chunk are both freed, for nobody's words may reach another. A chunk that lay in an open
 * reservation of a session freed here may still be written to by a process in the middle of read(): it is
 * handed out last of all. Afterwards bosh_arena_validate() succeeds.
 */
uint32_t bosh_arena_repair(bosh_arena_t *a);

#endif
