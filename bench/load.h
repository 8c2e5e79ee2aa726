/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh-load: a number of BOSH clients and the XMPP server behind the connection manager under test, in one
 * process, one thread, on one clock. So it knows of every message when it was sent and when it arrived.
 *
 *   client.c --http.c--> [ connection manager ] --> sink.c         up:   client to server
 *                                                                  down: server to client
 *
 * To compare: with --server a real XMPP server takes the sink's place, and its messages come from streams of
 * ours (pushers); with --tcp the clients are such streams, too, and there is no connection manager (stream.c).
 *
 * loop.c has the event loop, options.c options, load.c commands and the report.
 */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "hist.h"

#define SECOND INT64_C(1000000)

/* ---- loop.c ---- */

/* Something with a descriptor. The first member of what it is part of. */
typedef struct watch_t {
    int fd; /* -1: closed; what is still reported about it is not delivered */
    uint32_t events;
    void (*ready)(struct watch_t *w, uint32_t events);
} watch_t;

void loop_open(void);
void loop_turn(void); /* waits, delivers what happened */

void watch_add(watch_t *w, int fd, uint32_t events);
void watch_set(watch_t *w, uint32_t events);
void watch_close(watch_t *w);
/* Frees memory when the events of this turn of the loop have been delivered. */
void free_later(void *p);

/* Zeroed is a timer that is not set. */
typedef struct clock_timer_t {
    int64_t at;
    size_t place; /* in the heap, from 1; 0: not set */
    void (*fire)(struct clock_timer_t *t);
} clock_timer_t;

#define OWNER(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

void timer_set(clock_timer_t *t, int64_t at); /* again: moves it */
void timer_off(clock_timer_t *t);

int64_t now_us(void); /* of this turn of the loop, CLOCK_MONOTONIC */
uint32_t dice(uint32_t below);
void complain(const char *format, ...)
    __attribute__((format(printf, 1, 2))); /* stderr, with time */

void *grown(void *p, size_t size); /* realloc() or the end */

typedef struct buf_t {
    char *p;
    size_t n, cap;
} buf_t;

void buf_add(buf_t *b, const char *p, size_t n);
void buf_say(buf_t *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buf_cut(buf_t *b, size_t n); /* the first n bytes away */
void buf_free(buf_t *b);

/* ---- xml.c ---- */

typedef enum xml_kind_t {
    XML_MORE,    /* not complete */
    XML_HEAD,    /* the start tag of a stream or body */
    XML_ELEMENT, /* a whole element */
    XML_END,     /* the end tag of stream or body */
    XML_BAD
} xml_kind_t;

typedef struct xml_t {
    const char *p;
    size_t n;
    bool closed; /* HEAD: <body/> */
} xml_t;

/* What comes first in p[0..n): a start tag when `head`, else an element or the end tag. `used`: bytes up to its end. */
xml_kind_t xml_next(const char *p, size_t n, bool head, xml_t *out, size_t *used);
bool xml_is(const xml_t *x, const char *name); /* its name, prefix included */
/* An attribute of its start tag, as it stands there; false: there is none, or it does not fit. */
bool xml_attr(const xml_t *x, const char *name, char *out, size_t size);
bool xml_has(const xml_t *x, const char *text);          /* this text occurs in it */
const char *xml_after(const xml_t *x, const char *text); /* what follows the text; NULL */

/* ---- sessions ---- */

/* One direction of one session: messages are numbered from 0. */
typedef struct flow_t {
    uint32_t sent, next, got; /* next: the number that is expected */
    uint64_t missing;         /* bit i: number next-1-i has not come yet */
    int64_t worst;            /* longest latency in the window after the mark */
} flow_t;

typedef enum kind_t {
    TALKER,   /* messages both ways */
    LISTENER, /* messages from the server */
    PINGER,   /* one XEP-0199 ping after the other */
    POSTER,   /* no session at all: one POST after the other */
    IDLER,    /* only polls */
    GUEST,    /* logs in and out again */
    PUSHER    /* ours: with --server its stream carries messages to listeners */
} kind_t;

typedef enum phase_t {
    CREATING,
    FEATURES,
    AUTH,
    RESTART,
    BIND,
    SESSION,
    LIVE,
    LEAVING, /* has sent, or is going to send, type='terminate' */
    OVER
} phase_t;

struct session_t;

typedef struct request_t {
    uint64_t rid; /* 0: none */
    buf_t bytes;
    int64_t sent_at; /* the first time */
    bool answered;   /* ... but not processed: the one before is not */
    buf_t answer;
} request_t;

typedef struct conn_t {
    watch_t w;
    struct session_t *s;
    request_t *req;  /* being sent, or waiting for its answer */
    size_t written;  /* of it */
    bool connecting; /* since `began` */
    int64_t began;
    unsigned failures; /* in a row */
    clock_timer_t retry;
    buf_t in;
} conn_t;

typedef struct session_t {
    uint32_t index, gen; /* what it is called */
    kind_t kind;
    phase_t phase;
    char sid[80];
    uint64_t rid;                        /* the last one sent */
    uint64_t done_rid;                   /* the last one whose answer was processed */
    bool restart, terminate, terminated; /* to be sent; to be sent; was sent */
    bool ended;                          /* has had a terminal body */
    request_t req[2];
    conn_t conn[2];
    buf_t outbox;
    flow_t up, down, ping;
    int64_t pinged_at;
    char jid[128];
    struct sink_t *sink;     /* its stream's other end */
    struct stream_t *stream; /* instead of HTTP connections */
    clock_timer_t talk;      /* the client's next message */
    clock_timer_t push;      /* the server's */
    int64_t began;
} session_t;

/* Number `number` of this flow has arrived. False: not for the first time. */
bool flow_number(session_t *s, flow_t *f, uint32_t number, const char *what);
/* A message of this flow. `at`: what was said about the time of sending. */
void flow_arrive(session_t *s, flow_t *f, bool up, uint32_t number, int64_t sent_at);
/* The text of <body/>: "U 12 1 57 123456" = direction, index, generation, number, microseconds. */
void flow_receive(session_t *s, bool up, const xml_t *message);

/* ---- http.c ---- */

void http_open(conn_t *c, session_t *s);
void http_send(conn_t *c, request_t *req); /* sent again until it is answered */
void http_close(conn_t *c);                /* nothing is sent again */
void http_hang_up(conn_t *c);              /* as if the connection had broken */

/* ---- client.c ---- */

void client_start(session_t *s, uint32_t index, kind_t kind);
/* An answer. True: it has been taken; false: the request is to be sent again. */
bool client_answer(session_t *s, request_t *req, int status, const char *body, size_t n);
/* What came in a <body/> or a stream. May end the session. */
void client_element(session_t *s, const xml_t *x);
/* Its stream (stream.c) is over. */
void client_stream_over(session_t *s, const char *why);
void client_leave(session_t *s); /* type='terminate' */
void client_message(session_t *s);
void client_pushes(session_t *s); /* a listener's messages come at the rate that there is now */
void client_resume(session_t *s); /* of a closed loop: goes on after a pause, within 20 ms */
void client_sweep(session_t *s);  /* once a second: requests without an answer */

/* ---- stream.c ---- */

void stream_open(session_t *s);
void stream_pump(session_t *s);  /* writes what there is to be said */
void stream_close(session_t *s); /* if there is one */
#define PUSHERS 8
void pushers_start(void);
void pusher_message(session_t *to); /* carries the next message to this session */

/* ---- sink.c ---- */

void sink_listen(void);          /* on load.sink_port, which it sets */
void sink_message(session_t *s); /* to the client; by a pusher where there is a server */
void sink_forget(session_t *s);  /* the session is over */

/* ---- all ---- */

typedef struct options_t {
    const char *address; /* of the connection manager */
    int port;
    const char *domain;
    int server;                     /* port of the XMPP server behind it; 0: the sink */
    bool tcp;                       /* clients talk to address:port in plain XMPP */
    int talkers, idlers, listeners; /* sessions */
    int pingers, posters;           /* ... in a closed loop */
    bool paced;                     /* posters at that rate instead */
    bool gzip;                      /* clients say Accept-Encoding */
    double rate;          /* messages a second, each way, of each talker; to each listener */
    double guests;        /* logins a second; or */
    int parallel, logins; /* so many at once, so many in all, then the end */
    bool guests_talk;     /* a message each way before they leave */
    int wait;             /* what talkers ask for */
    int idle_wait;        /* what idlers ask for */
    double split;         /* part of the server's messages that is written in two pieces */
    double window;        /* seconds after a mark */
    int at_once;          /* logins in progress at the start */
    int patience;         /* seconds for what is under way at the end, and for leaving */
    const char *fault;    /* what the sink does wrong, to see that it is found */
} options_t;

typedef struct counts_t {
    uint64_t lost_sessions, logins, logouts, odd_logouts;
    uint64_t up, down;     /* messages that arrived */
    uint64_t pings, posts; /* that were answered */
    uint64_t lost, lost_with_session, doubled, disordered, misrouted;
    uint64_t requests, resent, broken, connects, connect_failures, overtaken, recoverable,
        http_errors, hung, unanswered;
    uint64_t streams, streams_broken;
} counts_t;

typedef struct load_t {
    options_t opt;
    int sink_port; /* 0: any */
    session_t **sessions;
    uint32_t nsessions;
    uint32_t logging_in, live; /* of talkers and idlers */
    uint32_t guests;           /* that are there now */
    bool stopping;
    bool paused;  /* closed loops */
    int64_t mark; /* 0: none */
    counts_t count;
    hist_t login, connect, up, down, ping; /* all the time */
    hist_t window_up, window_down, pause;  /* since the mark */
    hist_t all_up, all_down, all_pause;    /* after all marks */
} load_t;

extern load_t load;

void options_read(int argc, char **argv);

void load_lost(session_t *s, const char *why); /* a session ended that should not have */
void load_live(session_t *s);                  /* has logged in */
void load_over(session_t *s); /* has left, or was lost: nothing of it is used any more */

#endif
