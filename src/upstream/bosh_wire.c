/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages with descriptors (SCM_RIGHTS) between the loops of two children. Called by bosh_handover.c,
 * bosh_adopt.c and bosh_peer.c.
 *
 * Invariant: every descriptor received is CLOEXEC and reaches the caller, whatever the message looks like.
 */
#include "bosh_wire.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Room for the descriptors of a message, aligned as cmsghdr wants it. */
typedef union ancillary_t {
    char space[CMSG_SPACE(BOSH_BATCH * sizeof(int))];
    struct cmsghdr align;
} ancillary_t;

#define HEAD offsetof(bosh_message_t, entry)

bool bosh_wire_send(const bosh_wakers_t *w, uint32_t to, const bosh_message_t *msg, const int *fds)
{
    ancillary_t anc;
    struct iovec iov = {(void *)(uintptr_t)msg, HEAD + msg->n * sizeof(bosh_entry_t)};
    struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = anc.space};
    struct cmsghdr *c;
    ssize_t r;

    memset(&anc, 0, sizeof(anc));
    h.msg_controllen = CMSG_SPACE(msg->n * sizeof(int));
    c = CMSG_FIRSTHDR(&h);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(msg->n * sizeof(int));
    memcpy(CMSG_DATA(c), fds, msg->n * sizeof(int));
    do {
        r = sendmsg(w->out[to - 1], &h, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (r < 0 && errno == EINTR);
    return r >= 0;
}

/* MSG_CTRUNC shows in the number of descriptors: the kernel passes the first ones on. */
static uint32_t take_fds(struct msghdr *h, int *fds)
{
    struct cmsghdr *c;
    size_t n = 0;

    for (c = CMSG_FIRSTHDR(h); c != NULL; c = CMSG_NXTHDR(h, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
            n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            memcpy(fds, CMSG_DATA(c), n * sizeof(int));
        }
    }
    return (uint32_t)n;
}

bool bosh_wire_receive(const bosh_wakers_t *w, uint32_t me, bosh_message_t *msg, int *fds,
                       uint32_t *nfds)
{
    ancillary_t anc;
    struct iovec iov = {msg, sizeof(*msg)};
    struct msghdr h = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = anc.space,
                       .msg_controllen = sizeof(anc.space)};
    ssize_t r;

    *nfds = 0;
    memset(&anc, 0, sizeof(anc));
    do {
        r = recvmsg(w->in[me - 1], &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (r < 0 && errno == EINTR);
    if (r <= 0) {
        return false;
    }
    *nfds = take_fds(&h, fds);
    if ((size_t)r < HEAD || msg->n > BOSH_BATCH ||
        (size_t)r != HEAD + msg->n * sizeof(bosh_entry_t)) {
        msg->giver = msg->n = 0;
    }
    return true;
}

void bosh_wire_discard(const bosh_wakers_t *w, uint32_t peer)
{
    bosh_message_t msg = {0};
    int fds[BOSH_BATCH];
    uint32_t n;

    while (bosh_wire_receive(w, peer, &msg, fds, &n)) {
        while (n > 0) {
            close(fds[--n]);
        }
    }
}
