/* SPDX-License-Identifier: Apache-2.0 */
/* The stocks of eventfds: see bosh_bell.h, which says who may do what with one of them. */
#include "bosh_bell.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define MOST 65536 /* no more waiters than that are there; touched as far as used */

/* Sets that share a bell. The walk of the kernel over all of them (bosh_bell.h) is not to be noticed. */
#define SHARES 8

typedef struct stock_t {
    pthread_mutex_t mutex;
    uint32_t n;
    int spare[MOST];
} stock_t;

/* As many as workers have blocked at once. */
static stock_t own = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* A bell stands there once for each set that it has room for. */
static stock_t shared = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static int from(stock_t *s)
{
    int fd = -1;

    pthread_mutex_lock(&s->mutex);
    if (s->n > 0) {
        fd = s->spare[--s->n];
    }
    pthread_mutex_unlock(&s->mutex);
    return fd;
}

static void back(stock_t *s, int fd, int times)
{
    pthread_mutex_lock(&s->mutex);
    while (times-- > 0 && s->n < MOST) {
        s->spare[s->n++] = fd;
    }
    pthread_mutex_unlock(&s->mutex);
}

apr_status_t bosh_bell_take(int *fd)
{
    *fd = from(&own);
    if (*fd < 0) {
        *fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    }
    return *fd >= 0 ? APR_SUCCESS : errno;
}

void bosh_bell_give(int fd)
{
    back(&own, fd, 1);
}

void bosh_bell_hush(int fd)
{
    uint64_t count;
    ssize_t n = read(fd, &count, sizeof(count));

    (void)n;
}

apr_status_t bosh_bell_join(int set, int *fd)
{
    struct epoll_event disarmed = {.events = 0};
    apr_status_t rv;

    *fd = from(&shared);
    if (*fd < 0) {
        *fd = eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC);
        if (*fd < 0) {
            return errno;
        }
        back(&shared, *fd, SHARES - 1);
    }
    disarmed.data.fd = *fd;
    if (epoll_ctl(set, EPOLL_CTL_ADD, *fd, &disarmed) == 0) {
        return APR_SUCCESS;
    }
    rv = errno;
    bosh_bell_leave(*fd);
    *fd = -1;
    return rv;
}

void bosh_bell_leave(int fd)
{
    back(&shared, fd, 1);
}

/* Neither can fail where it matters: a counter that is too full to be written is not 0, and a set that does not know
 * the bell is nobody's who waits for it. */
void bosh_bell_ring(bosh_bell_t bell)
{
    static const uint64_t one = 1;
    struct epoll_event armed = {.events = EPOLLIN | EPOLLONESHOT, .data.fd = bell.fd};

    if (bell.fd < 0) {
        return;
    }
    if (bell.set >= 0) {
        epoll_ctl(bell.set, EPOLL_CTL_MOD, bell.fd, &armed);
    } else {
        ssize_t n = write(bell.fd, &one, sizeof(one));
        (void)n;
    }
}
