/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_access: who sends a request, and whether it may be served at all (XEP-0124 section 19). Worker threads;
 * nothing here needs a lock.
 */
#ifndef BOSH_ACCESS_H
#define BOSH_ACCESS_H

#include "httpd.h"

#include "bosh_config.h"
#include "bosh_session.h"

/* Address (mod_remoteip's, where it is used), TLS and client certificate of a request. who->ip lives as long as
 * the request. */
void bosh_access_client(request_rec *r, const bosh_config_t *conf, bosh_client_t *who);

/* B-360: where sessions must be created when TLS is required, an https: URI in r->pool; NULL: it is not. */
const char *bosh_access_elsewhere(request_rec *r, const bosh_config_t *conf);

/* B-370: false for a request that a page of a foreign origin made a browser send. */
bool bosh_access_origin_ok(request_rec *r, const bosh_config_t *conf);

/* The same for one in script syntax (S-018), which any page may make a browser send, and read the answer of: only
 * pages of the origins in BoshAllowOrigin and of the host that was asked; "*": all. */
bool bosh_access_page_ok(request_rec *r, const bosh_config_t *conf);

#endif
