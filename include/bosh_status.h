/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_status: what an administrator or a monitoring system may see: the handler `SetHandler bosh-status`
 * (HTML, JSON, Prometheus) and a section on the page of mod_status. Numbers and fixed words only: no session
 * id, no address of a user, nothing that came from a client or a server.
 */
#ifndef BOSH_STATUS_H
#define BOSH_STATUS_H

#include "httpd.h"

#include "bosh_loop.h"

/* Hooks the handler and, when mod_status is there, its page. register_hooks time. */
void bosh_status_register(apr_pool_t *p);

/* child_init, after the loop has started; loop NULL: the child cannot serve, the handler answers 503. */
void bosh_status_child_init(bosh_loop_t *loop);

#endif
