/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections to XMPP servers: opening, closing, and the plain backend (TCP and unix sockets). Owns the
 * descriptor of each bosh_conn_t. Called by the loop thread only.
 *
 * Invariant: state NONE <=> fd -1; nothing here ever blocks or raises SIGPIPE.
 */
#include "bosh_conn.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void bosh_conn_init(bosh_conn_t *c)
{
    memset(c, 0, sizeof(*c));
    c->ops = &bosh_conn_plain;
    c->fd = -1;
}

/* ---- the plain backend ---- */

static apr_status_t plain_establish(bosh_conn_t *c)
{
    int err = 0;
    socklen_t n = sizeof(err);
    struct sockaddr_storage peer;
    socklen_t peer_n = sizeof(peer);

    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &n) != 0) {
        return errno;
    }
    if (err != 0) {
        return err;
    }
    /* No error does not mean connected: a spurious wake-up would pass for success. */
    if (getpeername(c->fd, (struct sockaddr *)&peer, &peer_n) != 0) {
        return errno == ENOTCONN ? APR_EAGAIN : errno;
    }
    c->state = BOSH_CONN_UP;
    return APR_SUCCESS;
}

static apr_status_t plain_readv(bosh_conn_t *c, const struct iovec *iov, int n, size_t *got)
{
    ssize_t r;

    *got = 0;
    do {
        r = readv(c->fd, iov, n);
    } while (r < 0 && errno == EINTR);
    if (r > 0) {
        *got = (size_t)r;
        return APR_SUCCESS;
    }
    if (r == 0) {
        return APR_EOF;
    }
    return errno == EWOULDBLOCK ? APR_EAGAIN : errno;
}

static apr_status_t plain_write(bosh_conn_t *c, const char *p, size_t n, size_t *put)
{
    ssize_t r;

    *put = 0;
    do {
        r = send(c->fd, p, n, MSG_NOSIGNAL);
    } while (r < 0 && errno == EINTR);
    if (r >= 0) {
        *put = (size_t)r;
        return APR_SUCCESS;
    }
    return errno == EWOULDBLOCK ? APR_EAGAIN : errno;
}

static unsigned plain_wants(const bosh_conn_t *c, unsigned intent)
{
    return c->state == BOSH_CONN_CONNECTING ? BOSH_CONN_WRITE : intent;
}

static size_t plain_pending(const bosh_conn_t *c)
{
    (void)c;
    return 0;
}

static void plain_finish(bosh_conn_t *c)
{
    (void)c;
}

const bosh_conn_ops_t bosh_conn_plain = {"plain",     plain_establish, plain_readv, plain_write,
                                         plain_wants, plain_pending,   plain_finish};

/* ---- opening and closing ---- */

static apr_status_t connect_fd(bosh_conn_t *c, const struct sockaddr *sa, socklen_t n)
{
    if (connect(c->fd, sa, n) == 0) {
        c->state = BOSH_CONN_UP;
        return APR_SUCCESS;
    }
    /* Interrupted: the connection goes on being made, as with EINPROGRESS. */
    if (errno == EINPROGRESS || errno == EINTR) {
        c->state = BOSH_CONN_CONNECTING;
        return APR_SUCCESS;
    }
    return errno;
}

static apr_status_t open_unix(bosh_conn_t *c, const char *path)
{
    struct sockaddr_un un;

    memset(&un, 0, sizeof(un));
    un.sun_family = AF_UNIX;
    if (strlen(path) >= sizeof(un.sun_path)) {
        return APR_ENAMETOOLONG;
    }
    memcpy(un.sun_path, path, strlen(path));
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) {
        return errno;
    }
    return connect_fd(c, (const struct sockaddr *)&un, sizeof(un));
}

static apr_status_t open_tcp(bosh_conn_t *c, const apr_sockaddr_t *sa)
{
    int on = 1;

    c->fd = socket(sa->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) {
        return errno;
    }
    /* Neither is worth failing for. */
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)setsockopt(c->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    return connect_fd(c, (const struct sockaddr *)&sa->sa, sa->salen);
}

apr_status_t bosh_conn_open(bosh_conn_t *c, const apr_sockaddr_t *sa, const char *path)
{
    apr_status_t rv;

    bosh_conn_init(c);
    rv = path != NULL ? open_unix(c, path) : sa != NULL ? open_tcp(c, sa) : APR_EINVAL;
    if (rv != APR_SUCCESS && c->fd >= 0) {
        close(c->fd);
        bosh_conn_init(c);
    }
    return rv;
}

void bosh_conn_close(bosh_conn_t *c)
{
    if (c->state == BOSH_CONN_NONE) {
        return;
    }
    c->ops->finish(c);
    (void)shutdown(c->fd, SHUT_RDWR);
    close(c->fd);
    bosh_conn_init(c);
}

void bosh_conn_describe(const apr_sockaddr_t *sa, const char *path, char *dst, size_t size)
{
    char ip[INET6_ADDRSTRLEN] = "?";

    if (path != NULL) {
        snprintf(dst, size, "unix:%s", path);
    } else if (sa == NULL) {
        snprintf(dst, size, "no address");
    } else if (sa->family == AF_INET6) {
        inet_ntop(AF_INET6, &sa->sa.sin6.sin6_addr, ip, sizeof(ip));
        snprintf(dst, size, "[%s]:%u", ip, (unsigned)ntohs(sa->sa.sin6.sin6_port));
    } else {
        inet_ntop(AF_INET, &sa->sa.sin.sin_addr, ip, sizeof(ip));
        snprintf(dst, size, "%s:%u", ip, (unsigned)ntohs(sa->sa.sin.sin_port));
    }
}
