/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_whole: a response leaves httpd whole, headers and body in one write. What is not written at once the core
 * keeps, in a pool that its connection then has for good: 4 KB for every client that waits.
 */
#ifndef BOSH_WHOLE_H
#define BOSH_WHOLE_H

#include "httpd.h"

#include <http_core.h>
#include <util_filter.h>

/* Registers the output filter. register_hooks time. */
void bosh_whole_register(void);

/* The response that is about to be passed to r->output_filters. Whoever has the request. */
void bosh_whole_begin(request_rec *r);

/* The last filter of a connection's output, and what it writes with: NULL if it is not the core's. Whoever has the
 * connection. */
ap_filter_t *bosh_whole_last(const conn_rec *c);
core_net_rec *bosh_whole_net(conn_rec *c);

#endif
