/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XMPP over plain TCP, the client's side: what a server costs without any connection manager (--tcp), and the
 * streams that bring messages into a real server (--server). Invariant: a session with a stream uses no HTTP
 * connection; client.c decides what is said in either case.
 */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct stream_t {
    watch_t w;
    session_t *s; /* NULL: it is closed */
    bool connecting;
    bool head; /* the server's header comes next */
    buf_t in, out;
} stream_t;

static void flush(stream_t *k)
{
    ssize_t n = k->out.n > 0 ? send(k->w.fd, k->out.p, k->out.n, MSG_NOSIGNAL) : 0;

    if (n < 0 && errno != EAGAIN) {
        client_stream_over(k->s, "its stream broke");
        return;
    }
    buf_cut(&k->out, n < 0 ? 0 : (size_t)n);
    watch_set(&k->w, k->out.n > 0 ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void say_header(stream_t *k)
{
    buf_say(&k->out,
            "<?xml version='1.0'?><stream:stream to='%s' xmlns='jabber:client' version='1.0' "
            "xml:lang='en' xmlns:stream='http://etherx.jabber.org/streams'>",
            load.opt.domain);
    k->head = true;
}

void stream_pump(session_t *s)
{
    stream_t *k = s->stream;

    if (s->restart) {
        s->restart = false;
        say_header(k);
    }
    buf_add(&k->out, s->outbox.p, s->outbox.n);
    s->outbox.n = 0;
    if (s->terminate && !s->terminated) {
        s->terminated = true;
        buf_say(&k->out, "</stream:stream>");
    }
    if (!k->connecting) {
        flush(k);
    }
}

/* All that is whole, and what is to be said to it. Either may close the stream. */
static void take(stream_t *k)
{
    size_t at = 0, used = 0;
    xml_t x;

    while (k->s != NULL && at < k->in.n) {
        xml_kind_t kind = xml_next(k->in.p + at, k->in.n - at, k->head, &x, &used);
        if (kind == XML_MORE) {
            break;
        }
        at += used;
        if (kind == XML_ELEMENT) {
            client_element(k->s, &x);
        } else if (kind == XML_HEAD) {
            k->head = false;
            k->s->phase = k->s->phase == CREATING ? FEATURES : k->s->phase;
        } else {
            client_stream_over(k->s, "the server ended its stream");
        }
    }
    if (k->s != NULL) {
        buf_cut(&k->in, at);
        stream_pump(k->s); /* what they brought about */
    }
}

static void ready(watch_t *w, uint32_t events)
{
    static char room[65536];
    stream_t *k = OWNER(w, stream_t, w);
    ssize_t n;

    if (events & EPOLLOUT) {
        k->connecting = false;
        flush(k);
        if (k->s == NULL) {
            return;
        }
    }
    if (!(events & ~(uint32_t)EPOLLOUT)) {
        return;
    }
    n = recv(k->w.fd, room, sizeof(room), 0);
    if (n < 0 && errno == EAGAIN) {
        return;
    }
    if (n <= 0) {
        client_stream_over(k->s, "the server closed its stream");
        return;
    }
    buf_add(&k->in, room, (size_t)n);
    take(k);
    if (k->s != NULL && k->in.n == 0) {
        buf_free(&k->in);
    }
}

void stream_open(session_t *s)
{
    bool pusher = s->kind == PUSHER;
    struct sockaddr_in to = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    stream_t *k = calloc(1, sizeof(*k));

    if (k == NULL || fd < 0) {
        complain("socket: %s", strerror(errno));
        exit(2);
    }
    to.sin_addr.s_addr = inet_addr(pusher ? "127.0.0.1" : load.opt.address);
    to.sin_port = htons((uint16_t)(pusher ? load.opt.server : load.opt.port));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    k->s = s;
    k->w.ready = ready;
    k->connecting = true;
    s->stream = k;
    load.count.connects++;
    watch_add(&k->w, fd, EPOLLIN | EPOLLOUT);
    say_header(k);
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0 && errno != EINPROGRESS) {
        load.count.connect_failures++;
        client_stream_over(s, "connect failed");
    }
}

/* Somebody may be reading in its buffer. */
void stream_close(session_t *s)
{
    stream_t *k = s->stream;

    if (k != NULL) {
        s->stream = NULL;
        k->s = NULL;
        watch_close(&k->w);
        free_later(k->in.p);
        free_later(k->out.p);
        free_later(k);
    }
}

/* ---- pushers ---- */

static session_t pushers[PUSHERS];

void pushers_start(void)
{
    for (uint32_t i = 0; i < PUSHERS; i++) {
        client_start(&pushers[i], 1000000 + i, PUSHER);
    }
}

/* Always the same one for a session: its messages stay in order. */
void pusher_message(session_t *to)
{
    session_t *s = &pushers[to->index % PUSHERS];

    if (s->phase != LIVE) {
        complain("a pusher is gone");
        exit(2);
    }
    buf_say(
        &s->outbox,
        "<message xmlns='jabber:client' to='%s' type='chat'><body>D %u %u %u %lld</body></message>",
        to->jid, to->index, to->gen, to->down.sent++, (long long)now_us());
    stream_pump(s);
}
