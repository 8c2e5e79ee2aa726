/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_config: the directives, their checks and their merge. Read-only after post_config, any thread.
 */
#ifndef BOSH_CONFIG_H
#define BOSH_CONFIG_H

#include "httpd.h"
#include "http_config.h"

#include "bosh.h"
#include "bosh_loop.h"
#include "bosh_session.h"

extern module AP_MODULE_DECLARE_DATA bosh_module;

/* What a virtual host says; -1 is "not said". */
typedef struct bosh_config_t {
    apr_array_header_t *upstreams; /* bosh_upstream_t *: bosh_upstream.h */
    apr_array_header_t *domains;   /* const char *: what BoshUpstream * serves. NULL: not said */
    apr_array_header_t *origins;   /* const char *; "*" alone: any. NULL: not said */
    int max_wait, max_hold, max_requests, max_streams;
    int inactivity, polling, maxpause, keys;
    int max_body;
    int per_address, login_time, login_size;
    int inflate, deflate, route, returns, script;
    const char *require_tls; /* "": not required; "on"; or the URI to go to. NULL: not said */
    bosh_limits_t limits;    /* made of the above when the configuration is complete */
} bosh_config_t;

/* What only the main server says. */
typedef struct bosh_global_t {
    int max_sessions;
    int max_stanza, queue_size;
    apr_int64_t memory; /* 0: derived from max_sessions */
    int async;
    int quick_restart;
    int escrow;
    int drain_timeout; /* seconds */
} bosh_global_t;

extern const command_rec bosh_config_directives[];

void *bosh_config_create(apr_pool_t *p, server_rec *s);
void *bosh_config_merge(apr_pool_t *p, void *base, void *add);

/* pre_config: the globals back to their defaults. */
void bosh_config_reset(void);
const bosh_global_t *bosh_config_global(void);

static inline bosh_config_t *bosh_config_of(const server_rec *s)
{
    return ap_get_module_config(s->module_config, &bosh_module);
}

/* check_config, also under `httpd -t`: directives that contradict one another. OK or an HTTP error. */
int bosh_config_check(server_rec *main_server);

/* post_config: fills each server's limits. */
void bosh_config_fill(server_rec *main_server);

/* Whether a request with this Origin may be answered with CORS headers; *any: by "*". */
bool bosh_config_origin_allowed(const bosh_config_t *conf, const char *origin, bool *any);

#endif
