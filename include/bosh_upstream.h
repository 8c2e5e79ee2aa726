/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_upstream: the BoshUpstream lines: what they may say, and what becomes of them once all is read.
 * Read-only after post_config, any thread.
 */
#ifndef BOSH_UPSTREAM_H
#define BOSH_UPSTREAM_H

#include "bosh_config.h"

/* One line. */
typedef struct bosh_upstream_t {
    const char *domain; /* lower case */
    const char *target; /* as written, for messages */
    const char *host;   /* NULL: a unix socket */
    const char *path;
    apr_port_t port;
    apr_interval_time_t timeout, keepalive;
    bosh_proxy_t proxy;
    bosh_tls_policy_t policy;
    bosh_tls_options_t options;
    struct ssl_ctx_st *context; /* NULL: no TLS */
    int row;                    /* in bosh_upstream_targets(), set by bosh_upstream_resolve() */
} bosh_upstream_t;

/* The directive's setter (TAKE_ARGV). Reads the files that the line names. */
const char *bosh_upstream_add(cmd_parms *cmd, void *dconf, int argc, char *const argv[]);

/* pre_config: nothing is known. */
void bosh_upstream_reset(void);

/*
 * post_config, behind bosh_config_fill(): resolves the addresses of all lines and numbers them. An address that
 * cannot be resolved is reported (BH001) and its sessions fail until the next restart. APR_ENOSPC: too many.
 */
apr_status_t bosh_upstream_resolve(apr_pool_t *p, server_rec *main_server);

/* All lines of all servers, by row. */
const bosh_target_t *bosh_upstream_targets(size_t *n);

/* Whether a stream to some of them has TLS, and so stays with its child. */
bool bosh_upstream_has_tls(void);

/* The line that serves `domain` (lower case) in this server; NULL: host-unknown. */
const bosh_upstream_t *bosh_upstream_find(const bosh_config_t *conf, const char *domain);

#endif
