/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The XMPP server behind the connection manager: takes any login (SASL without a look at what it says, bind,
 * session), answers every iq with a result (a ping is one), counts messages in and sends messages out. Which session a stream
 * belongs to is said by the resource it binds.
 */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct sink_t {
    watch_t w;
    session_t *s; /* NULL: not bound, or its session is over */
    bool authed, bound, head;
    buf_t in, out;       /* out: what the socket did not take */
    buf_t rest;          /* the second piece of a message */
    buf_t late;          /* comes after the next one (--fault swap) */
    clock_timer_t later; /* ... is due */
} sink_t;

static watch_t listener;

static void end_of_stream(sink_t *k, bool proper)
{
    if (k->s != NULL && k->s->phase == LIVE && !load.stopping) {
        load.count.streams_broken++;
        complain("s%u.%u: its stream to the server %s", k->s->index, k->s->gen,
                 proper ? "was ended" : "broke");
    }
    if (k->s != NULL && k->s->sink == k) {
        k->s->sink = NULL;
    }
    timer_off(&k->later);
    watch_close(&k->w);
    buf_free(&k->in);
    buf_free(&k->out);
    buf_free(&k->rest);
    buf_free(&k->late);
    free_later(k);
}

/* May end the stream when it is broken: nothing of it may be used afterwards, false says so. */
static bool put(sink_t *k, const char *p, size_t n)
{
    ssize_t sent = 0;

    if (k->out.n == 0) {
        sent = send(k->w.fd, p, n, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) {
            end_of_stream(k, false);
            return false;
        }
        sent = sent < 0 ? 0 : sent;
    }
    if ((size_t)sent < n) {
        buf_add(&k->out, p + sent, n - (size_t)sent);
        watch_set(&k->w, EPOLLIN | EPOLLOUT);
    }
    return true;
}

static bool flush(sink_t *k)
{
    ssize_t n = send(k->w.fd, k->out.p, k->out.n, MSG_NOSIGNAL);

    if (n < 0 && errno != EAGAIN) {
        end_of_stream(k, false);
        return false;
    }
    buf_cut(&k->out, n < 0 ? 0 : (size_t)n);
    if (k->out.n == 0) {
        watch_set(&k->w, EPOLLIN);
    }
    return true;
}

static bool put_text(sink_t *k, const char *text)
{
    return put(k, text, strlen(text));
}

/* ---- messages to the client ---- */

/* Once in fifty times, when this is what it should do wrong (--fault). */
static bool fault(const char *what)
{
    static unsigned turns;

    return strcmp(load.opt.fault, what) == 0 && ++turns % 50 == 0;
}

/* The number and the time are written last, so that the first piece may go whenever. */
static void second_piece(clock_timer_t *t)
{
    sink_t *k = OWNER(t, sink_t, later);
    session_t *s = k->s;
    buf_t b = k->rest;

    memset(&k->rest, 0, sizeof(k->rest));
    if (s != NULL) {
        buf_say(&b, "%u %lld</body></message>", s->down.sent++, (long long)now_us());
        (void)put(k, b.p, b.n);
    }
    buf_free(&b);
}

/* A message or a pong. False as put(). */
static bool put_reply(sink_t *k, const char *p, size_t n)
{
    buf_t late = k->late;
    bool there;

    if (fault("lose")) {
        return true;
    }
    if (late.n == 0 && fault("swap")) {
        buf_add(&k->late, p, n);
        return true;
    }
    memset(&k->late, 0, sizeof(k->late));
    there = put(k, p, n) && (!fault("double") || put(k, p, n)) &&
            (late.n == 0 || put(k, late.p, late.n));
    buf_free(&late);
    return there;
}

void sink_message(session_t *s)
{
    sink_t *k = s->sink;
    buf_t b = {0};

    if (load.opt.server != 0) {
        pusher_message(s);
        return;
    }
    if (k == NULL || k->rest.n > 0) {
        return; /* one message at a time */
    }
    buf_say(&b, "<message from='peer@%s/x' to='r%u.%u@%s' type='chat'><body>D %u %u ",
            load.opt.domain, s->index, s->gen, load.opt.domain, s->index, s->gen);
    if (dice(1000) < load.opt.split * 1000) {
        size_t cut = 1 + dice((uint32_t)b.n - 2);
        buf_add(&k->rest, b.p + cut, b.n - cut);
        if (put(k, b.p, cut)) {
            timer_set(&k->later, now_us() + 1000 + dice(20000));
        }
    } else {
        buf_say(&b, "%u %lld</body></message>", s->down.sent++, (long long)now_us());
        (void)put_reply(k, b.p, b.n);
    }
    buf_free(&b);
}

void sink_forget(session_t *s)
{
    if (s->sink != NULL) {
        s->sink->s = NULL;
        s->sink = NULL;
    }
}

/* ---- what the client says ---- */

static bool header(sink_t *k)
{
    static uint64_t streams;
    char text[512];

    snprintf(text, sizeof(text),
             "<?xml version='1.0'?><stream:stream xmlns='jabber:client' "
             "xmlns:stream='http://etherx.jabber.org/streams' id='x%llu' from='%s' version='1.0'>"
             "<stream:features>%s</stream:features>",
             (unsigned long long)++streams, load.opt.domain,
             k->authed ? "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>"
                         "<session xmlns='urn:ietf:params:xml:ns:xmpp-session'/>"
                       : "<mechanisms "
                         "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>ANONYMOUS</mechanism>"
                         "<mechanism>PLAIN</mechanism></mechanisms>");
    return put_text(k, text);
}

static bool bind_resource(sink_t *k, const xml_t *x, const char *id)
{
    const char *resource = xml_after(x, "<resource>r");
    unsigned index = 0, gen = 0;
    char text[512];

    if (resource != NULL && sscanf(resource, "%u.%u", &index, &gen) == 2 &&
        index < load.nsessions && load.sessions[index]->gen == gen) {
        k->s = load.sessions[index];
        k->s->sink = k;
    }
    k->bound = true;
    snprintf(text, sizeof(text),
             "<iq type='result' id='%s'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
             "<jid>r%u.%u@%s/r%u.%u</jid></bind></iq>",
             id, index, gen, load.opt.domain, index, gen);
    return put_text(k, text);
}

static bool element(sink_t *k, const xml_t *x)
{
    char id[64] = "", text[128];

    if (xml_is(x, "message")) {
        if (k->s == NULL) {
            load.count.misrouted++;
            return true;
        }
        flow_receive(k->s, true, x);
        if (k->s->kind == GUEST && k->s->phase == LIVE) {
            sink_message(k->s);
        }
        return true;
    }
    if (xml_is(x, "auth")) {
        k->authed = k->head = true;
        return put_text(k, "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    }
    if (!xml_is(x, "iq")) {
        return true; /* presence */
    }
    (void)xml_attr(x, "id", id, sizeof(id));
    if (xml_has(x, "<bind ")) {
        return bind_resource(k, x, id);
    }
    snprintf(text, sizeof(text), "<iq type='result' id='%s'/>", id);
    return put_reply(k, text, strlen(text));
}

/* False: the stream is over. */
static bool take(sink_t *k)
{
    size_t at = 0, used = 0;
    bool goes_on = true;
    xml_t x;

    while (goes_on && at < k->in.n) {
        bool head = k->head;
        xml_kind_t kind = xml_next(k->in.p + at, k->in.n - at, head, &x, &used);
        if (kind == XML_MORE) {
            break;
        }
        if (kind == XML_BAD) {
            complain("no XML from the connection manager: %.*s", (int)(k->in.n - at), k->in.p + at);
            end_of_stream(k, false);
            return false;
        }
        at += used;
        if (kind == XML_END) {
            if (put_text(k, "</stream:stream>")) {
                end_of_stream(k, true);
            }
            return false;
        }
        k->head = false;
        goes_on = kind == XML_HEAD ? header(k) : element(k, &x);
    }
    if (goes_on) {
        buf_cut(&k->in, at);
        if (k->in.n == 0) {
            buf_free(&k->in);
        }
    }
    return goes_on;
}

static void ready(watch_t *w, uint32_t events)
{
    static char room[65536];
    sink_t *k = OWNER(w, sink_t, w);
    ssize_t n;

    if ((events & EPOLLOUT) && !flush(k)) {
        return;
    }
    if (!(events & ~(uint32_t)EPOLLOUT)) {
        return;
    }
    n = recv(k->w.fd, room, sizeof(room), 0);
    if (n < 0 && errno == EAGAIN) {
        return;
    }
    if (n <= 0) {
        end_of_stream(k, false);
        return;
    }
    buf_add(&k->in, room, (size_t)n);
    (void)take(k);
}

static void accept_some(watch_t *w, uint32_t events)
{
    int fd, on = 1;

    (void)events;
    while ((fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        sink_t *k = calloc(1, sizeof(*k));
        if (k == NULL) {
            abort();
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        k->w.ready = ready;
        k->later.fire = second_piece;
        k->head = true;
        load.count.streams++;
        watch_add(&k->w, fd, EPOLLIN);
    }
    if (errno != EAGAIN && errno != ECONNABORTED) {
        complain("accept: %s", strerror(errno));
        exit(2);
    }
}

void sink_listen(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)load.sink_port)};
    socklen_t n = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, n) != 0 || listen(fd, 4096) != 0 ||
        getsockname(fd, (struct sockaddr *)&at, &n) != 0) {
        complain("cannot listen: %s", strerror(errno));
        exit(2);
    }
    load.sink_port = ntohs(at.sin_port);
    listener.ready = accept_some;
    watch_add(&listener, fd, EPOLLIN);
}
