/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_respond: the responses of the endpoint (XEP-0124 sections 5, 17). Worker threads; each function but
 * the first sends a whole response and returns what the handler shall return. A <body/> in answer to a GET goes
 * in script syntax (XEP-0252 2.3).
 */
#ifndef BOSH_RESPOND_H
#define BOSH_RESPOND_H

#include "httpd.h"

#include "bosh_config.h"
#include "bosh_session.h"

/* Sets what every response carries, errors included: no caching, no sniffing, CORS (B-017, B-018, B-020). */
void bosh_respond_headers(request_rec *r, const bosh_config_t *conf);

/* `status` with a line of static text for people. */
int bosh_respond_text(request_rec *r, int status, const char *text);

/* BOSH_DO_TELL: a body that is stored nowhere, or its HTTP code for clients from before 1.6 (17.1). */
int bosh_respond_tell(request_rec *r, const bosh_verdict_t *v);

/* TELL see-other-uri (17.2): the client may go on at `uri`. */
int bosh_respond_elsewhere(request_rec *r, const char *uri);

/* BOSH_DO_SEND: the bytes of a stored answer; buf is of the connection's bucket allocator and taken over. */
int bosh_respond_stored(request_rec *r, const bosh_verdict_t *v, char *buf, size_t len);

/* BOSH_DO_CLOSE: ends the connection without an answer (19.1). */
int bosh_respond_close(request_rec *r);

/* "Script syntax is there": an empty script. */
int bosh_respond_here(request_rec *r);

/* OPTIONS, and any method that has no place here (B-015, B-017). */
int bosh_respond_options(request_rec *r);
int bosh_respond_not_allowed(request_rec *r);

#endif
