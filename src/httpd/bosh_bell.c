/* SPDX-License-Identifier: Apache-2.0 */
/* The stock of eventfds: see bosh_bell.h, which says who may do what with one of them. */
#include "bosh_bell.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define MOST    65536 /* no more waiters than that are there; touched as far as used */
#define KEEP    64
#define AT_ONCE 64

static struct {
    pthread_mutex_t mutex;
    uint32_t n;
    int spare[MOST];
} stock = {.mutex = PTHREAD_MUTEX_INITIALIZER};

apr_status_t bosh_bell_take(int *fd)
{
    *fd = -1;
    pthread_mutex_lock(&stock.mutex);
    if (stock.n > 0) {
        *fd = stock.spare[--stock.n];
    }
    pthread_mutex_unlock(&stock.mutex);
    if (*fd < 0) {
        *fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    }
    return *fd >= 0 ? APR_SUCCESS : errno;
}

void bosh_bell_give(int fd)
{
    pthread_mutex_lock(&stock.mutex);
    if (stock.n < MOST) {
        stock.spare[stock.n++] = fd;
    }
    pthread_mutex_unlock(&stock.mutex);
}

/* The descriptor is non-blocking and its counter far from full: the write cannot fail, and if it did, a counter
 * that is not 0 is what we want. */
void bosh_bell_ring(int fd)
{
    static const uint64_t one = 1;
    ssize_t n = write(fd, &one, sizeof(one));

    (void)n;
}

void bosh_bell_hush(int fd)
{
    uint64_t count;
    ssize_t n = read(fd, &count, sizeof(count));

    (void)n;
}

/* The most that are to stay after this call. */
static void shrink(uint32_t most)
{
    int fd[AT_ONCE];
    uint32_t n = 0;

    pthread_mutex_lock(&stock.mutex);
    while (stock.n > most && n < AT_ONCE) {
        fd[n++] = stock.spare[--stock.n];
    }
    pthread_mutex_unlock(&stock.mutex);
    while (n > 0) {
        close(fd[--n]);
    }
}

void bosh_bell_trim(void)
{
    shrink(KEEP);
}

void bosh_bell_close_all(void)
{
    while (stock.n > 0) {
        shrink(0);
    }
}
