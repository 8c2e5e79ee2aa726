/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_syntax: requests in script syntax (XEP-0252), which come by GET. Worker threads, without the arena's lock.
 */
#ifndef BOSH_SYNTAX_H
#define BOSH_SYNTAX_H

#include "httpd.h"

#include "bosh_config.h"
#include "bosh_desk.h"
#include "bosh_lock.h"

/*
 * The <body/> that a GET brings, as it is encoded, for bosh_syntax_read(); it is taken out of the request, so that
 * no log and no status page shows it. NULL: *status is what to answer.
 */
const char *bosh_syntax_query(request_rec *r, const bosh_config_t *conf, int *status);

/* As bosh_desk_read(), from the query. */
int bosh_syntax_read(request_rec *r, const bosh_config_t *conf, const char *query, bosh_desk_t *d);

/* Joins what `v` says is to be joined (bosh_join.h), and looks again if it says to wait. The desk's buffer is made
 * use of. */
void bosh_syntax_join(request_rec *r, const bosh_config_t *conf, bosh_lock_t *lock, bosh_desk_t *d,
                      bosh_holder_t holder, bool must, bosh_verdict_t *v);

#endif
