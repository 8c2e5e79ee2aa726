/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_upstream: the BoshUpstream lines: what they may say, and what becomes of them once all is read.
 * Read-only after post_config, any thread.
 */
#ifndef BOSH_UPSTREAM_H
#define BOSH_UPSTREAM_H

#include "bosh_config.h"

/* One target of a domain. */
typedef struct bosh_upstream_t {
    const char *domain; /* as A-labels; "*": those of BoshAllowDomain */
    const char *target; /* as written, for messages */
    bool srv;
    const char *host; /* NULL: by SRV, or a unix socket */
    const char *path;
    apr_port_t port;
    apr_interval_time_t timeout, keepalive;
    bosh_proxy_t proxy;
    bosh_tls_policy_t policy;
    bool near; /* see bosh_target_t */
    bosh_tls_options_t options;
    struct ssl_ctx_st *context;   /* NULL: no TLS */
    int row;                      /* in bosh_upstream_targets(), set by bosh_upstream_number() */
    struct bosh_upstream_t *more; /* the domain's next target */
} bosh_upstream_t;

/* The directive's setter (TAKE_ARGV). Reads the files that the line names. */
const char *bosh_upstream_add(cmd_parms *cmd, void *dconf, int argc, char *const argv[]);

/* The setter of BoshAllowDomain (ITERATE). */
const char *bosh_upstream_allow(cmd_parms *cmd, void *dconf, const char *arg);

/* The setter of BoshResolver (ITERATE). */
const char *bosh_upstream_add_resolver(cmd_parms *cmd, void *dconf, const char *arg);

/* pre_config: nothing is known. */
void bosh_upstream_reset(void);

/* check_config: whether each `*` has an allow-list. OK or an HTTP error. */
int bosh_upstream_check(server_rec *main_server);

/* post_config, behind bosh_config_fill(): numbers all targets. Nothing is looked up. APR_ENOSPC: too many. */
apr_status_t bosh_upstream_number(apr_pool_t *p, server_rec *main_server);

/* All targets of all servers, by row; those of one domain follow one another. */
const bosh_target_t *bosh_upstream_targets(size_t *n);

/* The name servers, "address[:port],..."; NULL: the system's. */
const char *bosh_upstream_resolvers(void);

/* Whether a stream to some of them has TLS, and so stays with its child. */
bool bosh_upstream_has_tls(void);

/* The first target of `domain` (in any form) in this server; NULL: host-unknown. */
const bosh_upstream_t *bosh_upstream_find(const bosh_config_t *conf, const char *domain);

/* The target of this server that is, letter for letter, host[0..n):port; NULL: none. */
const bosh_upstream_t *bosh_upstream_at(const bosh_config_t *conf, const char *host, size_t n,
                                        unsigned port);

#endif
