/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_request: one HTTP request from its headers to its answer or its hold (XEP-0124 section 5).
 */
#ifndef BOSH_REQUEST_H
#define BOSH_REQUEST_H

#include "httpd.h"

#include "bosh_loop.h"

/* child_init, after the loop has started; loop NULL: the child cannot serve, requests get 503. */
void bosh_request_child_init(apr_pool_t *pchild, bosh_loop_t *loop);

/* The content handler for `SetHandler bosh`. Worker thread. */
int bosh_request_handler(request_rec *r);

#endif
