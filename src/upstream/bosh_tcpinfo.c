/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte counters of the kernel. Called by bosh_dial.c and bosh_rescue.c on the loop thread.
 *
 * In a file of its own because <netinet/tcp.h>, which APR's headers bring in, has an old struct tcp_info
 * without these counters and cannot be together with <linux/tcp.h>.
 */
#include "bosh_tcpinfo.h"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define TRIES 100 /* of a socket on which bytes keep coming */

/* tcpi_state: the kernel's enum, which no header for programs has. */
enum { FIRST = 1, TIME_WAIT = 6, CLOSED = 7, CLOSE_WAIT = 8, LAST_ACK = 9, CLOSING = 11 };

static bool get_info(int fd, struct tcp_info *info)
{
    socklen_t n = sizeof(*info);

    memset(info, 0, sizeof(*info));
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &n) == 0 &&
           n >= offsetof(struct tcp_info, tcpi_bytes_received) + sizeof(info->tcpi_bytes_received);
}

/* The server's FIN counts as a byte received, which nobody reads. */
static unsigned fins(const struct tcp_info *info)
{
    return info->tcpi_state == CLOSE_WAIT || info->tcpi_state == LAST_ACK ||
           info->tcpi_state == CLOSING || info->tcpi_state == TIME_WAIT;
}

uint64_t bosh_tcpinfo_taken(int fd)
{
    struct tcp_info info;

    return get_info(fd, &info) ? info.tcpi_bytes_acked : 0;
}

bool bosh_tcpinfo_read(int fd, uint64_t *in, uint64_t *out)
{
    struct tcp_info before, after;
    int unread, unacked;

    if (!get_info(fd, &before)) {
        return false;
    }
    for (int i = 0; i < TRIES; i++) {
        if (ioctl(fd, SIOCINQ, &unread) != 0 || ioctl(fd, SIOCOUTQ, &unacked) != 0 ||
            !get_info(fd, &after) || after.tcpi_state < FIRST || after.tcpi_state == CLOSED) {
            return false;
        }
        if (before.tcpi_bytes_received == after.tcpi_bytes_received &&
            before.tcpi_bytes_acked == after.tcpi_bytes_acked &&
            before.tcpi_state == after.tcpi_state) {
            *in = after.tcpi_bytes_received - (unsigned)unread - fins(&after);
            *out = after.tcpi_bytes_acked + (unsigned)unacked;
            return true;
        }
        before = after;
    }
    return false;
}
