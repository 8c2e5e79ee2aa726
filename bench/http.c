/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.1 connections of a session, kept alive. Invariant: a request that was handed to http_send() is sent,
 * byte for byte the same, over one connection after the other until an answer has come; the first new attempt
 * is made at once, later ones after a growing pause, as browsers' BOSH libraries do.
 */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define LONGEST_PAUSE (SECOND / 2)

static void ready(watch_t *w, uint32_t events);

static void drop(conn_t *c)
{
    watch_close(&c->w);
    c->connecting = false;
    c->in.n = 0;
}

/* The connection is gone; what waits on it goes over the next one. */
static void broken(conn_t *c)
{
    int64_t pause = 0;

    drop(c);
    if (c->req == NULL) {
        return;
    }
    c->failures++;
    load.count.resent++;
    if (c->failures > 1) {
        pause = c->failures > 7 ? LONGEST_PAUSE : 10000 << (c->failures - 2);
    }
    timer_set(&c->retry, now_us() + pause);
}

static void write_more(conn_t *c)
{
    while (c->written < c->req->bytes.n) {
        ssize_t n =
            send(c->w.fd, c->req->bytes.p + c->written, c->req->bytes.n - c->written, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            watch_set(&c->w, EPOLLIN | EPOLLOUT);
            return;
        }
        if (n < 0) {
            load.count.broken++;
            broken(c);
            return;
        }
        c->written += (size_t)n;
    }
    watch_set(&c->w, EPOLLIN);
}

static void start_connect(conn_t *c)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)load.opt.port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;

    to.sin_addr.s_addr = inet_addr(load.opt.address);
    if (fd < 0) {
        complain("socket: %s", strerror(errno));
        exit(2);
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    load.count.connects++;
    c->began = now_us();
    c->connecting = true;
    watch_add(&c->w, fd, EPOLLIN | EPOLLOUT);
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0 && errno != EINPROGRESS) {
        load.count.connect_failures++;
        broken(c);
    }
}

static void transmit(conn_t *c)
{
    c->written = 0;
    if (c->w.fd < 0) {
        start_connect(c);
    } else if (!c->connecting) {
        write_more(c);
    }
}

static void retry(clock_timer_t *t)
{
    conn_t *c = OWNER(t, conn_t, retry);

    if (c->req != NULL && c->w.fd < 0) {
        transmit(c);
    }
}

static void connected(conn_t *c)
{
    int err = 0;
    socklen_t n = sizeof(err);

    c->connecting = false;
    getsockopt(c->w.fd, SOL_SOCKET, SO_ERROR, &err, &n);
    if (err != 0) {
        load.count.connect_failures++;
        broken(c);
        return;
    }
    hist_add(&load.connect, now_us() - c->began);
    watch_set(&c->w, EPOLLIN);
    if (c->req != NULL) {
        write_more(c);
    }
}

/* The value of a header, or NULL. The head ends with an empty line, so nothing runs over. */
static const char *header(const char *head, const char *end, const char *name)
{
    size_t len = strlen(name);

    for (const char *line = head; line < end; line = memchr(line, '\n', (size_t)(end - line)) + 1) {
        if (strncasecmp(line, name, len) == 0 && line[len] == ':') {
            return line + len + 1 + strspn(line + len + 1, " ");
        }
    }
    return NULL;
}

/* Takes one whole answer out of what was read; false: it is not whole. */
static bool take_answer(conn_t *c)
{
    char *end = memmem(c->in.p, c->in.n, "\r\n\r\n", 4);
    const char *len, *keep;
    size_t size, body;
    bool last;
    request_t *req = c->req;
    int status;

    if (end == NULL) {
        return false;
    }
    end += 4;
    len = header(c->in.p, end, "Content-Length");
    body = len != NULL ? strtoul(len, NULL, 10) : 0;
    size = (size_t)(end - c->in.p) + body;
    if (c->in.n < size) {
        return false;
    }
    status = (int)strtol(c->in.p + strlen("HTTP/1.1 "), NULL, 10);
    if (len == NULL || c->in.n > size) {
        complain("s%u: an answer without Content-Length, or more than one", c->s->index);
        load.count.http_errors++;
    }
    keep = header(c->in.p, end, "Connection");
    last = keep != NULL && strncasecmp(keep, "close", 5) == 0;
    c->req = NULL; /* the connection is free for what the answer brings about */
    c->failures = 0;
    buf_t in = c->in;
    memset(&c->in, 0, sizeof(c->in));
    if (last) {
        drop(c);
    }
    if (!client_answer(c->s, req, status, in.p + (end - in.p), body)) {
        load.count.resent++;
        c->req = req;
        c->failures++;
        timer_set(&c->retry, now_us() + 20000);
        drop(c);
    }
    buf_free(&in);
    return true;
}

static void ready(watch_t *w, uint32_t events)
{
    static char room[65536];
    conn_t *c = OWNER(w, conn_t, w);
    ssize_t n;

    if (c->connecting) {
        connected(c);
        return;
    }
    if ((events & EPOLLOUT) && c->req != NULL) {
        write_more(c);
        if (c->w.fd < 0) {
            return;
        }
    }
    if (!(events & ~(uint32_t)EPOLLOUT)) {
        return;
    }
    n = recv(c->w.fd, room, sizeof(room), 0);
    if (n < 0 && errno == EAGAIN) {
        return;
    }
    if (n <= 0) {
        load.count.broken += c->req != NULL;
        broken(c);
        return;
    }
    if (c->req == NULL) {
        complain("s%u: bytes that nobody asked for", c->s->index);
        load.count.http_errors++;
        broken(c);
        return;
    }
    buf_add(&c->in, room, (size_t)n);
    take_answer(c);
}

void http_open(conn_t *c, session_t *s)
{
    memset(c, 0, sizeof(*c));
    c->w.fd = -1;
    c->w.ready = ready;
    c->s = s;
    c->retry.fire = retry;
}

void http_send(conn_t *c, request_t *req)
{
    c->req = req;
    c->failures = 0;
    transmit(c);
}

void http_hang_up(conn_t *c)
{
    broken(c);
}

void http_close(conn_t *c)
{
    c->req = NULL;
    timer_off(&c->retry);
    drop(c);
    buf_free(&c->in);
}
