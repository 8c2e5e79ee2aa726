/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_whole: a response leaves httpd whole, headers and body in one write. What is not written at once the core
 * keeps, in a pool that its connection then has for good: 4 KB for every client that waits.
 */
#ifndef BOSH_WHOLE_H
#define BOSH_WHOLE_H

#include "httpd.h"

/* Registers the output filter. register_hooks time. */
void bosh_whole_register(void);

/* The response that is about to be passed to r->output_filters. Worker thread. */
void bosh_whole_begin(request_rec *r);

#endif
