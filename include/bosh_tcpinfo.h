/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_tcpinfo: what the kernel has counted on a TCP socket, so that whoever takes it over from a dead
 * process knows how far that one had got. Loop thread, no lock; system calls only.
 */
#ifndef BOSH_TCPINFO_H
#define BOSH_TCPINFO_H

#include <stdbool.h>
#include <stdint.h>

/* Bytes that the socket has taken for sending since it began to connect: acknowledged or not. Before anything
 * was written it is what connecting itself counts for (1). 0: unknown. */
uint64_t bosh_tcpinfo_taken(int fd);

/*
 * *in: bytes that were read from the socket; *out: as bosh_tcpinfo_taken(). False: the kernel does not tell
 * (other system, Linux before 4.1, not TCP), the connection is gone, or the numbers did not come to rest.
 */
bool bosh_tcpinfo_read(int fd, uint64_t *in, uint64_t *out);

#endif
