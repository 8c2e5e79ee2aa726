/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BoshUpstream: DOMAIN TARGET... and key=value words; BoshAllowDomain and BoshResolver. Runs in the parent, in one thread, at configuration time;
 * afterwards everything here is read-only.
 *
 * Invariant: each distinct set of TLS options has one context, however many lines share it.
 */
#include "bosh_upstream.h"

#include <apr_lib.h>
#include <apr_strings.h>
#include <arpa/inet.h>
#include <http_log.h>
#include <netdb.h>

#include "bosh_idna.h"

APLOG_USE_MODULE(bosh);

#define TIMEOUT  apr_time_from_sec(BOSH_UPSTREAM_TIMEOUT)
#define SHORTEST apr_time_from_msec(100)
#define LONGEST  apr_time_from_sec(300)

typedef struct context_t {
    bosh_tls_options_t options;
    struct ssl_ctx_st *ctx;
} context_t;

static apr_array_header_t *targets;  /* bosh_target_t */
static apr_array_header_t *contexts; /* context_t */
static const char *resolvers;

void bosh_upstream_reset(void)
{
    targets = contexts = NULL;
    resolvers = NULL;
}

/* ---- where ---- */

static const char *parse_domain(cmd_parms *cmd, bosh_upstream_t *u, const char *arg)
{
    char domain[BOSH_MAX_DOMAIN + 1];

    if (strcmp(arg, "*") == 0) {
        u->domain = "*";
        return NULL;
    }
    if (!bosh_idna_ascii(arg, domain) || strpbrk(domain, "@/* =") != NULL) {
        return apr_psprintf(cmd->pool, "BoshUpstream: '%s' is not an XMPP domain", arg);
    }
    u->domain = apr_pstrdup(cmd->pool, domain);
    return NULL;
}

static const char *parse_target(cmd_parms *cmd, bosh_upstream_t *u)
{
    char *host, *scope;

    if (strncmp(u->target, "unix:", 5) == 0) {
        u->path = u->target + 5;
        if (u->path[0] != '/') {
            return apr_psprintf(cmd->pool, "BoshUpstream %s: write unix:/absolute/path, not '%s'",
                                u->domain, u->target);
        }
        return NULL;
    }
    if (ap_cstr_casecmp(u->target, "srv") == 0) {
        u->srv = true;
        return NULL;
    }
    if (apr_parse_addr_port(&host, &scope, &u->port, u->target, cmd->pool) != APR_SUCCESS ||
        host == NULL || u->port == 0 || scope != NULL) {
        return apr_psprintf(
            cmd->pool,
            "BoshUpstream %s: a target is srv, host:port, [v6address]:port or unix:/path, "
            "not '%s'",
            u->domain, u->target);
    }
    u->host = host;
    return NULL;
}

/* 127.example.com is a name, and may be anywhere. */
static bool is_loopback(const char *host)
{
    struct in_addr v4;

    return ap_cstr_casecmp(host, "localhost") == 0 || strcmp(host, "::1") == 0 ||
           (strncmp(host, "127.", 4) == 0 && inet_aton(host, &v4) != 0);
}

static bool is_here(const bosh_upstream_t *u)
{
    return u->path != NULL || (u->host != NULL && is_loopback(u->host));
}

/* ---- how ---- */

/* What the words of a line have said so far. */
typedef struct words_t {
    bool policy; /* tls= was written */
    const char *verify;
} words_t;

static const char *parse_policy(cmd_parms *cmd, bosh_upstream_t *u, const char *value)
{
    static const struct {
        const char *name;
        bosh_tls_policy_t policy;
    } known[] = {{"starttls", BOSH_TLS_STARTTLS},
                 {"direct", BOSH_TLS_DIRECT},
                 {"optional", BOSH_TLS_OPTIONAL},
                 {"off", BOSH_TLS_OFF}};

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (ap_cstr_casecmp(value, known[i].name) == 0) {
            u->policy = known[i].policy;
            return NULL;
        }
    }
    return apr_psprintf(cmd->pool,
                        "BoshUpstream %s: tls= is one of starttls, direct, optional and off, "
                        "not '%s'",
                        u->domain, value);
}

static const char *parse_proxy(cmd_parms *cmd, bosh_upstream_t *u, const char *value)
{
    static const char *const known[] = {"off", "v1", "v2"}; /* in the order of bosh_proxy_t */

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (ap_cstr_casecmp(value, known[i]) == 0) {
            u->proxy = (bosh_proxy_t)i;
            return NULL;
        }
    }
    return apr_psprintf(cmd->pool,
                        "BoshUpstream %s: proxyprotocol= is one of v1, v2 and off, not '%s'",
                        u->domain, value);
}

static const char *parse_timeout(cmd_parms *cmd, bosh_upstream_t *u, const char *value)
{
    if (!apr_isdigit(value[0]) ||
        ap_timeout_parameter_parse(value, &u->timeout, "s") != APR_SUCCESS ||
        u->timeout < SHORTEST || u->timeout > LONGEST) {
        return apr_psprintf(cmd->pool,
                            "BoshUpstream %s: timeout= takes a time from 100ms to 300s, not '%s'",
                            u->domain, value);
    }
    return NULL;
}

static const char *parse_keepalive(cmd_parms *cmd, bosh_upstream_t *u, const char *value)
{
    if (!apr_isdigit(value[0]) ||
        ap_timeout_parameter_parse(value, &u->keepalive, "s") != APR_SUCCESS ||
        (u->keepalive != 0 && u->keepalive < apr_time_from_sec(1)) ||
        u->keepalive > apr_time_from_sec(3600)) {
        return apr_psprintf(cmd->pool,
                            "BoshUpstream %s: keepalive= takes a time from 1s to 1h, or 0 for "
                            "never, not '%s'",
                            u->domain, value);
    }
    return NULL;
}

static const char *parse_file(cmd_parms *cmd, const bosh_upstream_t *u, const char *word,
                              const char *value, const char **out)
{
    *out = value[0] != '\0' ? ap_server_root_relative(cmd->pool, value) : NULL;
    return *out != NULL
               ? NULL
               : apr_psprintf(cmd->pool, "BoshUpstream %s: %s names no file", u->domain, word);
}

static const char *parse_word(cmd_parms *cmd, bosh_upstream_t *u, const char *word, words_t *said)
{
    bosh_tls_options_t *o = &u->options;
    const char *value = ap_strchr_c(word, '=');

    value = value != NULL ? value + 1 : "";
    if (ap_cstr_casecmpn(word, "tls=", 4) == 0) {
        said->policy = true;
        return parse_policy(cmd, u, value);
    }
    if (ap_cstr_casecmpn(word, "timeout=", 8) == 0) {
        return parse_timeout(cmd, u, value);
    }
    if (ap_cstr_casecmpn(word, "keepalive=", 10) == 0) {
        return parse_keepalive(cmd, u, value);
    }
    if (ap_cstr_casecmpn(word, "proxyprotocol=", 14) == 0) {
        return parse_proxy(cmd, u, value);
    }
    if (ap_cstr_casecmp(word, "verify=off") == 0 || ap_cstr_casecmp(word, "verify=on") == 0) {
        said->verify = word;
        o->verify = ap_cstr_casecmp(value, "on") == 0;
        return NULL;
    }
    if (ap_cstr_casecmpn(word, "ca=", 3) == 0) {
        return parse_file(cmd, u, word, value, &o->ca);
    }
    if (ap_cstr_casecmpn(word, "cert=", 5) == 0) {
        return parse_file(cmd, u, word, value, &o->cert);
    }
    if (ap_cstr_casecmpn(word, "key=", 4) == 0) {
        return parse_file(cmd, u, word, value, &o->key);
    }
    return apr_psprintf(cmd->pool,
                        "BoshUpstream %s: unknown word '%s'; known are tls=, ca=, verify=on, "
                        "verify=off, cert=, key=, proxyprotocol=, keepalive= and timeout=",
                        u->domain, word);
}

/* Words that do not go together. */
static const char *check_words(cmd_parms *cmd, bosh_upstream_t *u, const words_t *said)
{
    const bosh_tls_options_t *o = &u->options;
    const char *word = o->ca != NULL     ? "ca="
                       : o->cert != NULL ? "cert="
                       : o->key != NULL  ? "key="
                                         : said->verify;

    if (!said->policy) {
        u->near = is_here(u);
        u->policy = u->near ? BOSH_TLS_OFF : BOSH_TLS_STARTTLS;
    }
    if (u->policy == BOSH_TLS_OFF && word != NULL) {
        return apr_psprintf(cmd->pool,
                            "BoshUpstream %s: %s is of no use without TLS, which is off%s; write "
                            "tls=starttls or tls=direct, or leave it out",
                            u->domain, word,
                            said->policy ? "" : " for this host unless it is written");
    }
    if (o->key != NULL && o->cert == NULL) {
        return apr_psprintf(cmd->pool,
                            "BoshUpstream %s: key= is of no use without cert=", u->domain);
    }
    if (o->ca != NULL && !o->verify) {
        return apr_psprintf(cmd->pool,
                            "BoshUpstream %s: verify=off would not look at what ca= says; leave "
                            "one of them out",
                            u->domain);
    }
    return NULL;
}

static bool same(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static const char *find_context(cmd_parms *cmd, bosh_upstream_t *u)
{
    const bosh_tls_options_t *o = &u->options;
    const char *err;
    context_t *c;

    if (contexts == NULL) {
        contexts = apr_array_make(cmd->pool, 2, sizeof(context_t));
    }
    for (int i = 0; i < contexts->nelts; i++) {
        c = &APR_ARRAY_IDX(contexts, i, context_t);
        if (same(c->options.ca, o->ca) && same(c->options.cert, o->cert) &&
            same(c->options.key, o->key) && c->options.verify == o->verify) {
            u->context = c->ctx;
            return NULL;
        }
    }
    err = bosh_tls_context(&u->context, o, cmd->pool);
    if (err != NULL) {
        return apr_psprintf(cmd->pool, "BoshUpstream %s: %s", u->domain, err);
    }
    c = apr_array_push(contexts);
    c->options = *o;
    c->ctx = u->context;
    return NULL;
}

/* Not a target, of which only unix:/path may have a '=' in it, and only srv has no ':'. */
static bool is_word(const char *arg)
{
    if (strncmp(arg, "unix:", 5) == 0 || ap_cstr_casecmp(arg, "srv") == 0) {
        return false;
    }
    return ap_strchr_c(arg, '=') != NULL || ap_strchr_c(arg, ':') == NULL;
}

/* One target with what the line says. */
static const char *add_target(cmd_parms *cmd, const bosh_upstream_t *line, const char *target,
                              const words_t *said)
{
    const bosh_config_t *c = bosh_config_of(cmd->server);
    bosh_upstream_t *u = apr_pmemdup(cmd->pool, line, sizeof(*line));
    const char *err;

    u->target = target;
    err = parse_target(cmd, u);
    if (err == NULL) {
        err = check_words(cmd, u, said);
    }
    if (err == NULL && u->policy != BOSH_TLS_OFF) {
        err = find_context(cmd, u);
    }
    if (err != NULL) {
        return err;
    }
    for (int i = 0; i < c->upstreams->nelts; i++) { /* behind the domain's others */
        bosh_upstream_t *first = APR_ARRAY_IDX(c->upstreams, i, bosh_upstream_t *);
        if (strcmp(first->domain, u->domain) == 0) {
            for (; err == NULL; first = first->more) {
                if (strcmp(first->target, target) == 0) {
                    err = apr_psprintf(cmd->pool, "BoshUpstream %s: %s is there twice", u->domain,
                                       target);
                } else if (first->more == NULL) {
                    first->more = u;
                    break;
                }
            }
            return err;
        }
    }
    APR_ARRAY_PUSH(c->upstreams, bosh_upstream_t *) = u;
    return NULL;
}

const char *bosh_upstream_add(cmd_parms *cmd, void *dconf, int argc, char *const argv[])
{
    bosh_upstream_t *line = apr_pcalloc(cmd->pool, sizeof(*line));
    const char *err = ap_check_cmd_context(cmd, NOT_IN_DIR_CONTEXT | NOT_IN_FILES);
    words_t said = {false, NULL};
    int end = 2;

    (void)dconf;
    if (err != NULL) {
        return err;
    }
    while (end < argc && !is_word(argv[end])) {
        end++;
    }
    if (argc < 2) {
        return "BoshUpstream takes a domain and a target, such as: BoshUpstream example.com "
               "127.0.0.1:5222";
    }
    line->timeout = TIMEOUT;
    line->keepalive = apr_time_from_sec(BOSH_UPSTREAM_KEEPALIVE);
    line->options.verify = true;
    line->row = -1;
    err = parse_domain(cmd, line, argv[0]);
    for (int i = end; err == NULL && i < argc; i++) {
        err = parse_word(cmd, line, argv[i], &said);
    }
    for (int i = 1; err == NULL && i < end; i++) {
        err = add_target(cmd, line, argv[i], &said);
    }
    return err;
}

/* ---- which, and by whom ---- */

const char *bosh_upstream_allow(cmd_parms *cmd, void *dconf, const char *arg)
{
    bosh_config_t *c = bosh_config_of(cmd->server);
    const char *err = ap_check_cmd_context(cmd, NOT_IN_DIR_CONTEXT | NOT_IN_FILES);
    bool below = strncmp(arg, "*.", 2) == 0;
    char domain[BOSH_MAX_DOMAIN + 1] = "*";

    (void)dconf;
    if (err != NULL) {
        return err;
    }
    if (strcmp(arg, "*") != 0 &&
        (!bosh_idna_ascii(below ? arg + 2 : arg, domain) || strpbrk(domain, "@/*:= ") != NULL)) {
        return apr_psprintf(cmd->pool,
                            "BoshAllowDomain takes domains such as example.com, *.example.com for "
                            "all below it, or * for any, not '%s'",
                            arg);
    }
    if (c->domains == NULL) {
        c->domains = apr_array_make(cmd->pool, 4, sizeof(const char *));
    }
    APR_ARRAY_PUSH(c->domains, const char *) =
        apr_pstrcat(cmd->pool, below ? "." : "", domain, NULL);
    return NULL;
}

const char *bosh_upstream_add_resolver(cmd_parms *cmd, void *dconf, const char *arg)
{
    const char *err = ap_check_cmd_context(cmd, GLOBAL_ONLY);
    unsigned char address[sizeof(struct in6_addr)];
    char *host = NULL, *scope = NULL;
    apr_port_t port = 0;

    (void)dconf;
    if (err != NULL) {
        return err;
    }
    if (inet_pton(AF_INET6, arg, address) == 1) { /* APR would take its end for a port */
        host = apr_pstrdup(cmd->pool, arg);
    } else if (apr_parse_addr_port(&host, &scope, &port, arg, cmd->pool) != APR_SUCCESS ||
               host == NULL || scope != NULL ||
               (arg[0] == '[') != (ap_strchr_c(host, ':') != NULL) ||
               (inet_pton(AF_INET, host, address) != 1 &&
                inet_pton(AF_INET6, host, address) != 1)) {
        return apr_psprintf(cmd->pool,
                            "BoshResolver takes addresses of name servers such as 192.0.2.1, "
                            "192.0.2.1:5353 or [2001:db8::1]:53, not '%s'",
                            arg);
    }
    arg = apr_psprintf(cmd->pool, ap_strchr_c(host, ':') != NULL ? "[%s]:%u" : "%s:%u", host,
                       (unsigned)(port != 0 ? port : 53));
    resolvers = resolvers != NULL ? apr_pstrcat(cmd->pool, resolvers, ",", arg, NULL) : arg;
    return NULL;
}

const char *bosh_upstream_resolvers(void)
{
    return resolvers;
}

/* ---- after reading ---- */

int bosh_upstream_check(server_rec *main_server)
{
    for (server_rec *s = main_server; s != NULL; s = s->next) {
        const bosh_config_t *c = bosh_config_of(s);
        for (int i = 0; i < c->upstreams->nelts; i++) {
            const bosh_upstream_t *u = APR_ARRAY_IDX(c->upstreams, i, bosh_upstream_t *);
            if (strcmp(u->domain, "*") == 0 && c->domains == NULL) {
                ap_log_error(APLOG_MARK, APLOG_STARTUP | APLOG_CRIT, 0, s,
                             "BH014: BoshUpstream * serves the domains that BoshAllowDomain names, "
                             "and there is none; add, for instance: BoshAllowDomain example.com "
                             "*.example.com");
                return HTTP_INTERNAL_SERVER_ERROR;
            }
        }
    }
    return OK;
}

/* The host as an address, if it is one: nothing is looked up. */
static const apr_sockaddr_t *literal(apr_pool_t *p, const bosh_upstream_t *u)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM}, *found = NULL;
    apr_sockaddr_t *sa = NULL;

    if (u->host == NULL || getaddrinfo(u->host, NULL, &hints, &found) != 0) {
        return NULL;
    }
    freeaddrinfo(found);
    return apr_sockaddr_info_get(&sa, u->host, APR_UNSPEC, u->port, 0, p) == APR_SUCCESS ? sa
                                                                                         : NULL;
}

static void number_one(apr_pool_t *p, server_rec *s, bosh_upstream_t *u)
{
    bosh_target_t *t = apr_array_push(targets);

    u->row = targets->nelts - 1;
    t->domain = u->domain;
    t->more = u->more != NULL;
    t->srv = u->srv;
    t->path = u->path;
    t->addrs = literal(p, u);
    t->host = u->host;
    t->port = u->port;
    t->timeout = u->timeout;
    t->keepalive = u->keepalive;
    t->limits = &bosh_config_of(s)->limits;
    t->proxy = u->proxy;
    t->policy = u->policy;
    t->near = u->near;
    t->tls = u->context != NULL ? bosh_tls_create(u->context, u->domain, p) : NULL;
}

apr_status_t bosh_upstream_number(apr_pool_t *p, server_rec *main_server)
{
    targets = apr_array_make(p, 4, sizeof(bosh_target_t));
    for (server_rec *s = main_server; s != NULL; s = s->next) {
        const bosh_config_t *c = bosh_config_of(s);
        for (int i = 0; i < c->upstreams->nelts; i++) {
            bosh_upstream_t *u = APR_ARRAY_IDX(c->upstreams, i, bosh_upstream_t *);
            /* A line inherited from the main server has its row already. */
            for (; u != NULL && u->row < 0; u = u->more) {
                number_one(p, s, u);
            }
        }
    }
    return targets->nelts < UINT16_MAX ? APR_SUCCESS : APR_ENOSPC;
}

const bosh_target_t *bosh_upstream_targets(size_t *n)
{
    *n = targets != NULL ? (size_t)targets->nelts : 0;
    return targets != NULL ? (const bosh_target_t *)targets->elts : NULL;
}

bool bosh_upstream_has_tls(void)
{
    size_t n;
    const bosh_target_t *t = bosh_upstream_targets(&n);

    for (size_t i = 0; i < n; i++) {
        if (t[i].policy != BOSH_TLS_OFF) {
            return true;
        }
    }
    return false;
}

static bool is_allowed(const bosh_config_t *conf, const char *domain)
{
    size_t n = strlen(domain);

    /* A client's text, to be looked up: nothing that DNS reads in another way than the list does, such as a "\." */
    if (strspn(domain, "abcdefghijklmnopqrstuvwxyz0123456789-_.:") != n) {
        return false;
    }
    for (int i = 0; conf->domains != NULL && i < conf->domains->nelts; i++) {
        const char *d = APR_ARRAY_IDX(conf->domains, i, const char *);
        size_t len = strlen(d);
        if (strcmp(d, "*") == 0 || strcmp(d, domain) == 0 ||
            (d[0] == '.' && n > len && strcmp(domain + n - len, d) == 0)) {
            return true;
        }
    }
    return false;
}

const bosh_upstream_t *bosh_upstream_find(const bosh_config_t *conf, const char *domain)
{
    char ascii[BOSH_MAX_DOMAIN + 1];
    const bosh_upstream_t *any = NULL;

    if (!bosh_idna_ascii(domain, ascii) || strcmp(ascii, "*") == 0) {
        return NULL;
    }
    for (int i = 0; i < conf->upstreams->nelts; i++) {
        const bosh_upstream_t *u = APR_ARRAY_IDX(conf->upstreams, i, bosh_upstream_t *);
        if (strcmp(u->domain, ascii) == 0) {
            return u;
        }
        any = any == NULL && strcmp(u->domain, "*") == 0 ? u : any;
    }
    return any != NULL && is_allowed(conf, ascii) ? any : NULL;
}

const bosh_upstream_t *bosh_upstream_at(const bosh_config_t *conf, const char *host, size_t n,
                                        unsigned port)
{
    for (int i = 0; i < conf->upstreams->nelts; i++) {
        const bosh_upstream_t *u = APR_ARRAY_IDX(conf->upstreams, i, bosh_upstream_t *);
        for (; u != NULL; u = u->more) {
            if (u->host != NULL && u->port == port && strlen(u->host) == n &&
                ap_cstr_casecmpn(u->host, host, n) == 0) {
                return u;
            }
        }
    }
    return NULL;
}
