/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections to XMPP servers: opening, closing, and the plain backend (TCP and unix sockets). Owns the
 * descriptor of each bosh_conn_t. Called by the loop thread only.
 *
 * Invariant: state NONE <=> fd -1; nothing here ever blocks or raises SIGPIPE.
 */
#include "bosh_conn.h"

#include <arpa/inet.h>
#include <apr_portable.h>
#include <apr_tables.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct bosh_sockets_t {
    apr_pool_t *pool;
    apr_array_header_t *spare; /* apr_socket_t *, all closed */
};

bosh_sockets_t *bosh_sockets_create(void)
{
    apr_pool_t *pool;
    bosh_sockets_t *home;

    if (apr_pool_create(&pool, NULL) != APR_SUCCESS) {
        return NULL;
    }
    home = apr_palloc(pool, sizeof(*home));
    home->pool = pool;
    home->spare = apr_array_make(pool, 64, sizeof(apr_socket_t *));
    return home;
}

void bosh_sockets_destroy(bosh_sockets_t *home)
{
    apr_pool_destroy(home->pool);
}

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
    apr_size_t len =
        n; /* a broken pipe raises SIGPIPE, which httpd ignores and this thread blocks */
    apr_status_t rv = apr_socket_send(c->sock, p, &len);

    *put = rv == APR_SUCCESS ? len : 0;
    return APR_STATUS_IS_EAGAIN(rv) ? APR_EAGAIN : rv;
}

static apr_status_t plain_flush(bosh_conn_t *c)
{
    (void)c;
    return APR_SUCCESS;
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

const bosh_conn_ops_t bosh_conn_plain = {"plain",     plain_establish, plain_readv,   plain_write,
                                         plain_flush, plain_wants,     plain_pending, plain_finish};

/* ---- opening and closing ---- */

/* An APR socket for this descriptor, which is closed if that fails. */
static apr_status_t adopt_fd(bosh_conn_t *c, int fd, int family)
{
    apr_os_sock_info_t info = {.os_sock = &fd, .family = family, .type = SOCK_STREAM};
    apr_socket_t **spare;
    apr_status_t rv;

    if (fd < 0) {
        return errno;
    }
    spare = apr_array_pop(c->home->spare);
    if (spare != NULL) {
        c->sock = *spare;
        rv = apr_os_sock_put(&c->sock, &fd, c->home->pool);
    } else {
        rv = apr_os_sock_make(&c->sock, &info, c->home->pool);
    }
    if (rv != APR_SUCCESS) {
        close(fd);
        return rv;
    }
    c->fd = fd;
    return apr_socket_timeout_set(c->sock, 0);
}

static apr_status_t connect_started(bosh_conn_t *c, apr_status_t rv)
{
    if (rv == APR_SUCCESS) {
        c->state = BOSH_CONN_UP;
        return APR_SUCCESS;
    }
    /* Interrupted: the connection goes on being made, as with EINPROGRESS. */
    if (APR_STATUS_IS_EINPROGRESS(rv) || APR_STATUS_IS_EINTR(rv)) {
        c->state = BOSH_CONN_CONNECTING;
        return APR_SUCCESS;
    }
    return rv;
}

static apr_status_t open_unix(bosh_conn_t *c, const char *path)
{
    struct sockaddr_un un;
    apr_status_t rv;

    memset(&un, 0, sizeof(un));
    un.sun_family = AF_UNIX;
    if (strlen(path) >= sizeof(un.sun_path)) {
        return APR_ENAMETOOLONG;
    }
    memcpy(un.sun_path, path, strlen(path));
    rv = adopt_fd(c, socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), AF_UNIX);
    if (rv == APR_SUCCESS) {
        rv = connect(c->fd, (const struct sockaddr *)&un, sizeof(un)) == 0 ? APR_SUCCESS : errno;
        rv = connect_started(c, rv);
    }
    return rv;
}

static apr_status_t open_tcp(bosh_conn_t *c, const bosh_addr_t *to)
{
    int on = 1, family = to->sa.any.sa_family;
    apr_status_t rv =
        adopt_fd(c, socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), family);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    /* Not by apr_socket_opt_set(): the object of an earlier socket believes that it has them already. Neither
     * is worth failing for. */
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)setsockopt(c->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    return connect_started(c, connect(c->fd, &to->sa.any, to->len) == 0 ? APR_SUCCESS : errno);
}

apr_status_t bosh_conn_adopt(bosh_conn_t *c, bosh_sockets_t *home, int fd, int family,
                             bosh_conn_state_t state)
{
    apr_status_t rv;

    bosh_conn_init(c);
    c->home = home;
    rv = adopt_fd(c, fd, family);
    if (rv == APR_SUCCESS) {
        c->state = (uint8_t)state;
    }
    return rv;
}

/* Closes the socket and keeps its object for the next one. */
static void give_back(bosh_conn_t *c)
{
    apr_socket_close(c->sock);
    APR_ARRAY_PUSH(c->home->spare, apr_socket_t *) = c->sock;
    bosh_conn_init(c);
}

apr_status_t bosh_conn_open(bosh_conn_t *c, bosh_sockets_t *home, const bosh_addr_t *to,
                            const char *path)
{
    apr_status_t rv;

    bosh_conn_init(c);
    c->home = home;
    rv = path != NULL ? open_unix(c, path) : to != NULL ? open_tcp(c, to) : APR_EINVAL;
    if (rv != APR_SUCCESS && c->sock != NULL) {
        give_back(c);
    }
    return rv;
}

void bosh_conn_close(bosh_conn_t *c)
{
    if (c->state == BOSH_CONN_NONE) {
        return;
    }
    c->ops->finish(c);
    (void)apr_socket_shutdown(c->sock, APR_SHUTDOWN_READWRITE);
    give_back(c);
}

void bosh_conn_drop(bosh_conn_t *c)
{
    if (c->state != BOSH_CONN_NONE) {
        give_back(c);
    }
}

void bosh_conn_describe(const bosh_addr_t *addr, const char *path, char *dst, size_t size)
{
    char ip[INET6_ADDRSTRLEN] = "?";

    if (path != NULL) {
        snprintf(dst, size, "unix:%s", path);
    } else if (addr == NULL || addr->len == 0) {
        snprintf(dst, size, "no address");
    } else if (addr->sa.any.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &addr->sa.v6.sin6_addr, ip, sizeof(ip));
        snprintf(dst, size, "[%s]:%u", ip, (unsigned)ntohs(addr->sa.v6.sin6_port));
    } else {
        inet_ntop(AF_INET, &addr->sa.v4.sin_addr, ip, sizeof(ip));
        snprintf(dst, size, "%s:%u", ip, (unsigned)ntohs(addr->sa.v4.sin_port));
    }
}
