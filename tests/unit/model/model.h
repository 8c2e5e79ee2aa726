/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A world of several children, clients and XMPP servers around one arena, with a clock of its own and no threads,
 * that is driven by a list of steps. What is random was decided when the list was made, so a list says the same
 * each time, and a shorter list is one, too: each step does what it can, or nothing.
 *
 *   play.c     the steps, time, and the quiet end
 *   client.c   clients: what they send, and what their answers must be
 *   stream.c   what a child's loop does to a stream, and the XMPP server at its other end
 *   core.c     the sections of the lock: the one place that calls src/core. Each may be killed in its middle.
 *
 * The reference is simple-minded and knows nothing of slots and queues: who sent what, in which order, and when.
 */
#ifndef MODEL_H
#define MODEL_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bosh_session.h"
#include "bosh_undo.h"
#include "bosh_window.h"

#define SEC APR_USEC_PER_SEC

#define KIDS  4
#define USERS 6
#define RIDS  320 /* requests of one client */
#define CONNS 4096
#define STEPS 400

typedef enum op_t {
    STEP_OPEN = 0, /* a client creates a session */
    STEP_SEND,     /* ... makes a request, which arrives now or is under way for a while */
    STEP_ARRIVE,   /* one that was under way arrives */
    STEP_RESEND,   /* one is sent again */
    STEP_BREAK,    /* a connection breaks; its holder knows at once, or when it looks */
    STEP_RELOAD,   /* the page: all its connections break, what was asked is never asked again */
    STEP_MAIL,     /* a child takes some of its mail */
    STEP_RUN,      /* some of the requests that were woken get their worker */
    STEP_LOOP,     /* a child's loop reads or writes a little */
    STEP_SERVER,   /* a server says something */
    STEP_SERVER_END,
    STEP_TIME,
    STEP_GIVE,  /* a stream is handed over, and is under way for a while */
    STEP_ADOPT, /* ... arrives, or goes back */
    STEP_CRASH,
    STEP_NOTICE, /* a child sees that another has died */
    STEP_STOP,   /* a child stops in good order */
    STEP_JOIN,
    STEP_VIOLATE, /* a client breaks a rule */
    STEP_UNDO,    /* the process that has the lock next dies in the middle of it */
    STEP_KINDS
} op_t;

typedef struct step_t {
    uint8_t op;
    uint32_t a, b, c;
} step_t;

/* What a seed decides besides the steps. */
typedef struct deal_t {
    bosh_limits_t lim;
    uint32_t chunks, sessions;
    unsigned long_texts; /* one stanza in so many is long */
    uint32_t nsteps;
    step_t step[STEPS];
} deal_t;

/* ---- clients ---- */

typedef struct rq_t {
    uint32_t first, n; /* its stanzas are first .. first + n - 1 */
    bool pause, term, restart;
    bool under_way;      /* made, and not arrived for the first time */
    bool accepted;       /* the manager has taken it */
    bool refused;        /* ... has told its client that the session is over instead */
    bool answered;       /* its client has the answer */
    bool abandoned;      /* its client will never ask again */
    bool normal;         /* answered while the session lived: its payload must reach the server */
    unsigned sends;      /* while unanswered */
    uint64_t ack;        /* 0: none said */
    unsigned pause_time; /* seconds */
    char *made;          /* its answer with payload, as it was made */
    char *text;          /* ... as it was sent, whether it arrived or not */
    int conn;            /* the last one it was sent on; -1: that one is gone */
} rq_t;

#define WHY_CLIENT   0x01u /* it said terminate */
#define WHY_BROKE    0x02u /* it broke a rule */
#define WHY_LINK     0x04u /* the server or the stream ended */
#define WHY_LOST     0x08u /* ... with a process: what was between the two is lost */
#define WHY_TOO_SOON 0x10u /* it may have polled too often */

typedef struct user_t {
    bool exists;
    int nr;
    bosh_ix index;
    uint32_t serial;
    char sid[BOSH_SID_LEN + 1];
    /* As negotiated, by the reference's own reckoning. */
    unsigned wait, hold, requests, inactivity;
    bool polling, acks, keyed;
    uint64_t rid0; /* of the creation: rq[0] */
    uint32_t nrq;
    rq_t rq[RIDS];
    char (*key)[41], (*newkey)[41];
    uint32_t nstanzas; /* made so far */
    bool told_end;     /* the client knows that it is over */
    /* The session as seen from outside. */
    unsigned why; /* reasons it may end for */
    bool ended, tomb, freed, expired;
    uint64_t sign; /* changes with whatever is a sign of the client, or an answer */
    apr_time_t tomb_at;
    apr_time_t quiet_since;             /* last sign of its client, or the last answer */
    apr_time_t pause_least, pause_most; /* when a pause ends; 0: there is none */
    apr_time_t gap_since;               /* some request waits for an earlier one; 0: none does */
    /* The server. */
    bool connected, refuses, srv_ended, srv_dead, heard_end, header_due;
    char *out;       /* what it has said */
    size_t nout, at; /* bytes: said, read by us */
    uint32_t said;   /* stanzas */
    uint32_t hear_rq, hear_n;
    size_t hear_off; /* what it hears next */
    uint64_t heard;  /* bytes */
    /* The stream in its owner's loop. */
    int kid; /* whose object it is; 0: nobody has one */
    bool given;
    int heir; /* the descriptor is on its way to this child; 0: it is not */
    uint32_t heir_serial, transfer;
    bosh_splitter_t *sp;
    uint64_t raw_base, fed;
    size_t ev_done;
    bool blocked; /* the parser has found what there was no memory for */
    bool stirred; /* it has been told to look at `down` */
    bool stalled; /* it does not read: no room */
    uint32_t restarts, got_features;
    uint32_t got_rq, got_up; /* stanzas that answers have carried, in the order of rids */
    bool left;               /* the client has gone for good */
    size_t put, got;         /* written and not consumed, read and not committed */
    bool reading;
    apr_time_t tick_at;
} user_t;

typedef struct conn_t {
    int user, kid;
    uint64_t rid;
    bool waiting, asked, broken; /* broken: and nobody has noticed */
    bool replaced;               /* the same request has come on another one */
    uint8_t fate;                /* what becomes of the answer: FATE_* */
    bosh_holder_t holder;
    bosh_verdict_t v;
    apr_time_t since;
} conn_t;

#define FATE_FINE    0
#define FATE_UNSENT  1 /* it breaks while the answer is written */
#define FATE_UNHEARD 2 /* ... is on its way, and nobody ever knows */

typedef struct kid_t {
    bool alive;
    bool dead; /* crashed, and nobody has noticed */
    uint32_t peer;
    uint32_t serial; /* of the peer */
} kid_t;

typedef struct world_t {
    const deal_t *deal;
    bosh_arena_t a;
    void *mem;
    bosh_limits_t lim;
    apr_time_t now;
    apr_time_t low_at;   /* when memory was short the last time */
    kid_t kid[KIDS + 1]; /* [1..KIDS] */
    user_t user[USERS];
    int nusers;
    conn_t conn[CONNS];
    int nconns;
    bosh_body_t *body;
    unsigned undo; /* how many points the next section lives; 0: to its end */
    uint32_t gens;
    bool quiet_end;
} world_t;

extern world_t W;

/* ---- test_model.c ---- */

/* The property that does not hold, in words whose first sentence is always the same; does not return. */
void broken(const char *property, const char *fmt, ...)
    __attribute__((noreturn, format(printf, 2, 3)));
/* A line of the trace. */
void note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#define EXPECT(test, ...)                                                                          \
    do {                                                                                           \
        if (!(test)) {                                                                             \
            broken(__VA_ARGS__);                                                                   \
        }                                                                                          \
    } while (0)

/* ---- core.c: sections of the lock ---- */

void core_open(void);
void core_close(void);
void core_join(int kid);
bosh_session_t *core_session(const user_t *u);
uint32_t core_owner(const user_t *u);
/* Memory is, or was a moment ago, too short for promises about time. */
bool core_low(void);
bool core_low_now(void);

void core_create(user_t *u, conn_t *c, const bosh_req_t *req, const uint8_t sid[BOSH_SID_BYTES],
                 int owner);
void core_request(conn_t *c, const bosh_req_t *req);
void core_poll(conn_t *c, bool must);
void core_gone(conn_t *c);
void core_unsent(conn_t *c);
void core_bad(user_t *u, conn_t *c);
/* The whole stored answer, to be freed; NULL: it is no longer there. */
char *core_read(conn_t *c);

typedef enum next_t { NEXT_NOTHING, NEXT_WRITE, NEXT_RESTART, NEXT_CLOSE } next_t;

bool core_tick(user_t *u, apr_time_t *at); /* false: the record is free now */
void core_consume(user_t *u);
next_t core_next(user_t *u, char *buf, size_t *n);
void core_restart(user_t *u, char *header, size_t *n);
void core_hang_up(user_t *u, size_t n);
void core_header(user_t *u);
size_t core_reserve(user_t *u, size_t want, bosh_slice_t *iov, int *n);
void core_commit(user_t *u);
apr_status_t core_up(user_t *u, const bosh_split_event_t *ev, size_t n, size_t *done);
const char *core_raw(user_t *u, size_t off, size_t *n);
size_t core_prime(user_t *u, char *buf, size_t size);
void core_over(user_t *u, bosh_cond_t cond);
void core_give(user_t *u, int to);
bool core_adopt(user_t *u, int kid);
void core_recall(user_t *u);
bool core_rescue(user_t *u, int kid);
void core_bury_kid(int dead, int heir);

/* ---- stream.c ---- */

user_t *stream_user(bosh_ix index, uint32_t serial);
/* Look at a session of this child's. */
void stream_look(user_t *u, int kid);
/* A little reading and writing, at most n bytes each; true: something moved. */
bool stream_io(user_t *u, size_t n);
void stream_drop(user_t *u); /* the object goes, and what its process knew of it */
bool stream_give(user_t *u, int to);
void stream_adopt(user_t *u, bool takes);
void stream_rescue(user_t *u, int kid);
void server_says(user_t *u, uint32_t stanzas);
void server_ends(user_t *u, unsigned how);
bool server_done(const user_t *u);

/* ---- client.c ---- */

char *client_down_text(const user_t *u, uint32_t n);
char *client_up_text(const user_t *u, uint32_t n);
void client_open(uint32_t a, uint32_t b, uint32_t c);
void client_send(user_t *u, uint32_t a, uint32_t b, uint32_t c);
bool client_arrive(user_t *u, uint32_t which, uint32_t b);
void client_resend(user_t *u, uint32_t which, uint32_t b, bool eager);
void client_violate(user_t *u, uint32_t how, uint32_t b);
unsigned client_open_requests(const user_t *u);
/* The connection is gone and its holder knows. */
void conn_gone(conn_t *c);
void conn_breaks(conn_t *c, bool noticed);
void conn_poll(conn_t *c, bool must);
/* Follows the answers in the order of rids as far as they are known (all: and beyond those that nobody will ever
 * ask for); fails when the server's stanzas in them are not in its order, each once. */
void client_got(user_t *u, bool all);
/* Its index in u->rq, one behind the last that was accepted with all before it. */
uint32_t client_contiguous(const user_t *u);

/* ---- play.c ---- */

void play(const deal_t *deal);
int kid_pick(uint32_t r); /* a living one */
void world_check(void);

#endif
