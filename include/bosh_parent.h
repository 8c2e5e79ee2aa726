/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_parent: httpd's parent process: what a child can see of it, and how its sleep is cut short.
 */
#ifndef BOSH_PARENT_H
#define BOSH_PARENT_H

#include "httpd.h"

#include "bosh_loop.h"

/*
 * BoshQuickRestart. post_config of a later reading, in the parent: until the first child of the new
 * generation has been started, or there is no slot for one, SIGALRM cuts the parent's sleep into pieces of
 * 60 ms, for a second at most. Does nothing when another module uses SIGALRM. Ends with pconf.
 */
void bosh_parent_start_nudging(apr_pool_t *pconf, server_rec *s);

/* child_init: SIGALRM is as httpd left it; notes whether the pid file can be relied upon. */
void bosh_parent_child_init(apr_pool_t *pchild);

/*
 * Whether the parent runs. STOPS: its pid file is gone or another's, which it is from the beginning of a
 * graceful-stop on. UNKNOWN: this child cannot read that file, or could not when it started. Reads a small
 * file; one thread.
 */
bosh_parent_t bosh_parent_look(void);

/* httpd has no slot for another child until one of those there are has gone. Any thread. */
bool bosh_parent_crowded(void);

#endif
