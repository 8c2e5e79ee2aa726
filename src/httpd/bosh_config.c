/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directives: the table, the setters with their checks, the merge, and what follows once all is read.
 * Runs in the parent, in one thread, at configuration time; afterwards everything here is read-only.
 *
 * A setter returns the text that httpd prints behind "Syntax error on line N of FILE: ", so it says what is
 * wrong and what to write instead. A row of the table, conf/bosh.conf and docs/DIRECTIVES.md name the same
 * directives (`make lint`).
 */
#include "bosh_config.h"

#include <apr_lib.h>
#include <apr_strings.h>
#include <http_log.h>

#include "bosh_upstream.h"

APLOG_USE_MODULE(bosh);

#define UNSET (-1)

#define DEFAULT_MAX_WAIT     55 /* under the 60 s of common proxies */
#define DEFAULT_MAX_HOLD     1
#define DEFAULT_MAX_REQUESTS 3
#define DEFAULT_INACTIVITY   60
#define DEFAULT_MAX_PAUSE    120
#define DEFAULT_POLLING      5
#define DEFAULT_MAX_BODY     (1024 * 1024)
#define DEFAULT_MAX_STANZA   (1024 * 1024)
#define DEFAULT_QUEUE_SIZE   (4 * 1024 * 1024)
#define DEFAULT_MAX_SESSIONS 10000
#define DEFAULT_LOGIN_SIZE   (64 * 1024)
#define DEFAULT_DRAIN        300

static bosh_global_t global;

void bosh_config_reset(void)
{
    global.max_sessions = DEFAULT_MAX_SESSIONS;
    global.max_stanza = DEFAULT_MAX_STANZA;
    global.queue_size = DEFAULT_QUEUE_SIZE;
    global.memory = 0;
    global.async = 1;
    global.quick_restart = 1;
    global.escrow = 1;
    global.drain_timeout = DEFAULT_DRAIN;
    bosh_upstream_reset();
}

const bosh_global_t *bosh_config_global(void)
{
    return &global;
}

void *bosh_config_create(apr_pool_t *p, server_rec *s)
{
    bosh_config_t *c = apr_pcalloc(p, sizeof(*c));

    (void)s;
    c->upstreams = apr_array_make(p, 2, sizeof(bosh_upstream_t *));
    c->max_wait = c->max_hold = c->max_requests = c->max_streams = UNSET;
    c->inactivity = c->polling = c->maxpause = c->keys = c->max_body = UNSET;
    c->per_address = c->login_time = c->login_size = c->inflate = c->route = c->returns = UNSET;
    c->script = c->deflate = UNSET;
    return c;
}

void *bosh_config_merge(apr_pool_t *p, void *base, void *add)
{
    const bosh_config_t *b = base, *a = add;
    bosh_config_t *c = apr_pcalloc(p, sizeof(*c));

#define MERGE(field) c->field = a->field != UNSET ? a->field : b->field
    MERGE(max_wait);
    MERGE(max_hold);
    MERGE(max_streams);
    MERGE(max_requests);
    MERGE(inactivity);
    MERGE(polling);
    MERGE(maxpause);
    MERGE(keys);
    MERGE(max_body);
    MERGE(per_address);
    MERGE(login_time);
    MERGE(login_size);
    MERGE(inflate);
    MERGE(deflate);
    MERGE(route);
    MERGE(returns);
    MERGE(script);
#undef MERGE
    c->require_tls = a->require_tls != NULL ? a->require_tls : b->require_tls;
    c->domains = a->domains != NULL ? a->domains : b->domains;
    c->origins = a->origins != NULL ? a->origins : b->origins;
    /* A host's own lines first: they win over the main server's for the same domain. */
    c->upstreams = apr_array_append(p, a->upstreams, b->upstreams);
    return c;
}

/* ---- values ---- */

/* Where an integer directive lives and what it may be: cmd->info. */
typedef struct int_rule_t {
    size_t offset; /* in bosh_config_t, or in bosh_global_t when global */
    bool global;
    int min, max;
} int_rule_t;

static const char *store_int(cmd_parms *cmd, void *dconf, apr_int64_t value, const char *unit)
{
    const int_rule_t *rule = cmd->info;
    char *base = rule->global ? (char *)&global : (char *)bosh_config_of(cmd->server);

    (void)dconf;
    if (value < rule->min || value > rule->max) {
        return apr_psprintf(cmd->pool, "%s must be between %d and %d%s", cmd->cmd->name, rule->min,
                            rule->max, unit);
    }
    *(int *)(base + rule->offset) = (int)value;
    return NULL;
}

static const char *check_scope(cmd_parms *cmd)
{
    const int_rule_t *rule = cmd->info;
    const char *err = ap_check_cmd_context(cmd, NOT_IN_DIR_CONTEXT | NOT_IN_FILES);

    if (err == NULL && rule != NULL && rule->global) {
        err = ap_check_cmd_context(cmd, GLOBAL_ONLY);
    }
    return err;
}

static const char *set_number(cmd_parms *cmd, void *dconf, const char *arg)
{
    const char *err = check_scope(cmd);
    char *end;
    apr_int64_t value;

    if (err != NULL) {
        return err;
    }
    value = apr_strtoi64(arg, &end, 10);
    if (!apr_isdigit(arg[0]) || *end != '\0') {
        return apr_psprintf(cmd->pool, "%s takes a whole number, not '%s'", cmd->cmd->name, arg);
    }
    return store_int(cmd, dconf, value, "");
}

static const char *set_seconds(cmd_parms *cmd, void *dconf, const char *arg)
{
    const char *err = check_scope(cmd);
    apr_interval_time_t t;

    if (err != NULL) {
        return err;
    }
    if (!apr_isdigit(arg[0]) || ap_timeout_parameter_parse(arg, &t, "s") != APR_SUCCESS) {
        return apr_psprintf(cmd->pool, "%s takes a time such as 30, 30s or 2min, not '%s'",
                            cmd->cmd->name, arg);
    }
    if (t % APR_USEC_PER_SEC != 0) {
        return apr_psprintf(cmd->pool, "%s takes whole seconds, not '%s'", cmd->cmd->name, arg);
    }
    return store_int(cmd, dconf, apr_time_sec(t), " seconds");
}

/* Bytes, or with K, M, G behind the digits. False: not a size. */
static bool parse_size(const char *arg, apr_int64_t *value)
{
    char *end;
    int shift = 0;

    if (!apr_isdigit(arg[0])) {
        return false;
    }
    *value = apr_strtoi64(arg, &end, 10);
    switch (apr_toupper(*end)) {
    case 'K':
        shift = 10;
        break;
    case 'M':
        shift = 20;
        break;
    case 'G':
        shift = 30;
        break;
    default:
        return *end == '\0';
    }
    if (end[1] != '\0' || *value > (INT64_MAX >> shift)) {
        return false;
    }
    *value <<= shift;
    return true;
}

static const char *set_size(cmd_parms *cmd, void *dconf, const char *arg)
{
    const char *err = check_scope(cmd);
    apr_int64_t value;

    if (err != NULL) {
        return err;
    }
    if (!parse_size(arg, &value)) {
        return apr_psprintf(cmd->pool,
                            "%s takes a size in bytes such as 65536, 64K or 1M, not '%s'",
                            cmd->cmd->name, arg);
    }
    return store_int(cmd, dconf, value, " bytes");
}

static const char *set_memory(cmd_parms *cmd, void *dconf, const char *arg)
{
    const char *err = ap_check_cmd_context(cmd, GLOBAL_ONLY);
    apr_int64_t value;

    (void)dconf;
    if (err != NULL) {
        return err;
    }
    if (!parse_size(arg, &value) || value < 4 * 1024 * 1024) {
        return apr_psprintf(cmd->pool,
                            "BoshMemory takes a size of at least 4M, such as 256M, not '%s'", arg);
    }
    global.memory = value;
    return NULL;
}

/* On or Off; cmd->info is an int_rule_t for its place. */
static const char *set_flag(cmd_parms *cmd, void *dconf, int on)
{
    const char *err = check_scope(cmd);

    return err != NULL ? err : store_int(cmd, dconf, on, "");
}

static const char *set_require_tls(cmd_parms *cmd, void *dconf, const char *arg)
{
    bosh_config_t *c = bosh_config_of(cmd->server);
    const char *err = ap_check_cmd_context(cmd, NOT_IN_DIR_CONTEXT | NOT_IN_FILES);

    (void)dconf;
    if (err != NULL) {
        return err;
    }
    if (ap_cstr_casecmp(arg, "off") == 0 || ap_cstr_casecmp(arg, "on") == 0) {
        c->require_tls = ap_cstr_casecmp(arg, "on") == 0 ? "on" : "";
    } else if (strncmp(arg, "https://", 8) == 0 && arg[8] != '\0') {
        c->require_tls = arg;
    } else {
        return apr_psprintf(cmd->pool,
                            "BoshRequireTLS takes On, Off, or the https:// URI of the endpoint, "
                            "not '%s'",
                            arg);
    }
    return NULL;
}

static const char *add_origin(cmd_parms *cmd, void *dconf, const char *arg)
{
    bosh_config_t *c = bosh_config_of(cmd->server);
    const char *err = ap_check_cmd_context(cmd, NOT_IN_DIR_CONTEXT | NOT_IN_FILES);
    const char *rest;

    (void)dconf;
    if (err != NULL) {
        return err;
    }
    if (strcmp(arg, "*") != 0) {
        rest = strstr(arg, "://");
        if (rest == NULL || rest == arg || rest[3] == '\0' || strchr(rest + 3, '/') != NULL) {
            return apr_psprintf(
                cmd->pool,
                "BoshAllowOrigin takes origins such as https://chat.example.com (scheme "
                "and host, no path), or *, not '%s'",
                arg);
        }
    }
    if (c->origins == NULL) {
        c->origins = apr_array_make(cmd->pool, 2, sizeof(const char *));
    }
    APR_ARRAY_PUSH(c->origins, const char *) = apr_pstrdup(cmd->pool, arg);
    return NULL;
}

/* ---- after reading ---- */

/* Script syntax gives answers to every page that may ask, so it has to be said which may; and what it gives
 * them runs as their own code (S-018). */
static int check_script(server_rec *main_server)
{
    for (server_rec *s = main_server; s != NULL; s = s->next) {
        const bosh_config_t *c = bosh_config_of(s);
        if (c->script > 0 && c->origins == NULL) {
            ap_log_error(APLOG_MARK, APLOG_STARTUP | APLOG_CRIT, 0, s,
                         "BH012: BoshScriptSyntax needs BoshAllowOrigin, the origins whose pages "
                         "may use it, such as https://chat.example.com");
            return HTTP_INTERNAL_SERVER_ERROR;
        }
    }
    for (server_rec *s = main_server; s != NULL; s = s->next) {
        const bosh_config_t *c = bosh_config_of(s);
        if (c->script > 0 && (c->require_tls == NULL || c->require_tls[0] == '\0')) {
            ap_log_error(APLOG_MARK, APLOG_STARTUP | APLOG_WARNING, 0, s,
                         "BH013: BoshScriptSyntax without BoshRequireTLS: over plain HTTP anybody "
                         "on the way can put code into the pages that use it");
            break;
        }
    }
    return OK;
}

int bosh_config_check(server_rec *main_server)
{
    int rv;

    if (global.max_stanza > global.queue_size) {
        ap_log_error(
            APLOG_MARK, APLOG_STARTUP | APLOG_CRIT, 0, main_server,
            "BH010: BoshMaxStanza (%d bytes) is larger than BoshQueueSize (%d bytes), which would "
            "never have room for it; raise BoshQueueSize",
            global.max_stanza, global.queue_size);
        return HTTP_INTERNAL_SERVER_ERROR;
    }
    rv = check_script(main_server);
    return rv == OK ? bosh_upstream_check(main_server) : rv;
}

static int or_default(int value, int fallback)
{
    return value != UNSET ? value : fallback;
}

static void fill_limits(bosh_config_t *c)
{
    bosh_limits_t *l = &c->limits;

    c->max_body = or_default(c->max_body, DEFAULT_MAX_BODY);
    c->deflate = or_default(c->deflate, 1);
    l->max_wait = (unsigned)or_default(c->max_wait, DEFAULT_MAX_WAIT);
    l->max_hold = (unsigned)or_default(c->max_hold, DEFAULT_MAX_HOLD);
    l->max_streams = (unsigned)or_default(c->max_streams, 1);
    l->max_requests = (unsigned)or_default(c->max_requests, DEFAULT_MAX_REQUESTS);
    l->inactivity = (unsigned)or_default(c->inactivity, DEFAULT_INACTIVITY);
    l->polling = (unsigned)or_default(c->polling, DEFAULT_POLLING);
    l->maxpause = (unsigned)or_default(c->maxpause, DEFAULT_MAX_PAUSE);
    l->keys = or_default(c->keys, 1) != 0;
    l->returns = or_default(c->returns, 1) != 0;
    l->inflate = or_default(c->inflate, 1) != 0;
    l->per_address = (unsigned)or_default(c->per_address, 0);
    l->login_time = (unsigned)or_default(c->login_time, 0);
    l->login_size = (size_t)or_default(c->login_size, DEFAULT_LOGIN_SIZE);
    l->queue_size = (size_t)global.queue_size;
    l->answer_size = BOSH_ANSWER_SIZE;
    l->max_repeats = BOSH_MAX_REPEATS;
}

void bosh_config_fill(server_rec *main_server)
{
    for (server_rec *s = main_server; s != NULL; s = s->next) {
        fill_limits(bosh_config_of(s));
    }
}

bool bosh_config_origin_allowed(const bosh_config_t *conf, const char *origin, bool *any)
{
    *any = false;
    for (int i = 0; conf->origins != NULL && i < conf->origins->nelts; i++) {
        const char *o = APR_ARRAY_IDX(conf->origins, i, const char *);
        if (strcmp(o, "*") == 0) {
            *any = true;
            return true;
        }
        if (ap_cstr_casecmp(o, origin) == 0) {
            return true;
        }
    }
    return false;
}

/* ---- the table ---- */

#define HOST(field)   offsetof(bosh_config_t, field), false
#define SERVER(field) offsetof(bosh_global_t, field), true

static const int_rule_t max_wait_rule = {HOST(max_wait), 0, 3600};
static const int_rule_t max_streams_rule = {HOST(max_streams), 1, BOSH_MAX_STREAMS};
static const int_rule_t max_hold_rule = {HOST(max_hold), 0, (BOSH_SLOTS_MAX - 2) / 2 - 1};
static const int_rule_t max_requests_rule = {HOST(max_requests), 2, (BOSH_SLOTS_MAX - 2) / 2};
static const int_rule_t inactivity_rule = {HOST(inactivity), 0, 32767};
static const int_rule_t max_pause_rule = {HOST(maxpause), 0, 32767};
static const int_rule_t polling_rule = {HOST(polling), 0, 3600};
static const int_rule_t keys_rule = {HOST(keys), 0, 1};
static const int_rule_t max_body_rule = {HOST(max_body), 1024, 256 * 1024 * 1024};
static const int_rule_t returns_rule = {HOST(returns), 0, 1};
static const int_rule_t inflate_rule = {HOST(inflate), 0, 1};
static const int_rule_t deflate_rule = {HOST(deflate), 0, 1};
static const int_rule_t route_rule = {HOST(route), 0, 1};
static const int_rule_t script_rule = {HOST(script), 0, 1};
static const int_rule_t per_address_rule = {HOST(per_address), 0, 4 * 1024 * 1024};
static const int_rule_t login_time_rule = {HOST(login_time), 0, 32767};
static const int_rule_t login_size_rule = {HOST(login_size), 0, 256 * 1024 * 1024};
static const int_rule_t max_stanza_rule = {SERVER(max_stanza), 10000, 256 * 1024 * 1024};
static const int_rule_t queue_size_rule = {SERVER(queue_size), 16384, 1024 * 1024 * 1024};
static const int_rule_t async_rule = {SERVER(async), 0, 1};
static const int_rule_t quick_restart_rule = {SERVER(quick_restart), 0, 1};
static const int_rule_t escrow_rule = {SERVER(escrow), 0, 1};
static const int_rule_t drain_rule = {SERVER(drain_timeout), 0, 24 * 3600};
static const int_rule_t max_sessions_rule = {SERVER(max_sessions), 1, 4 * 1024 * 1024};

#define FLAG(name, rule, help)    AP_INIT_FLAG(name, set_flag, (void *)&rule, RSRC_CONF, help)
#define NUMBER(name, rule, help)  AP_INIT_TAKE1(name, set_number, (void *)&rule, RSRC_CONF, help)
#define SECONDS(name, rule, help) AP_INIT_TAKE1(name, set_seconds, (void *)&rule, RSRC_CONF, help)
#define SIZE(name, rule, help)    AP_INIT_TAKE1(name, set_size, (void *)&rule, RSRC_CONF, help)

const command_rec bosh_config_directives[] = {
    AP_INIT_TAKE_ARGV("BoshUpstream", bosh_upstream_add, NULL, RSRC_CONF,
                      "an XMPP domain or *, its servers as srv, host:port or unix:/path, and "
                      "key=value words"),
    AP_INIT_ITERATE("BoshAllowDomain", bosh_upstream_allow, NULL, RSRC_CONF,
                    "domains that BoshUpstream * serves: names, *.names for what is below, or *"),
    AP_INIT_ITERATE("BoshResolver", bosh_upstream_add_resolver, NULL, RSRC_CONF,
                    "name servers to be asked instead of the system's, as address[:port]"),
    SECONDS("BoshMaxWait", max_wait_rule, "longest time a request is held"),
    NUMBER("BoshMaxHold", max_hold_rule, "most requests of a session held at once"),
    NUMBER("BoshMaxStreams", max_streams_rule, "most XMPP streams in one session, 1 to 8"),
    NUMBER("BoshMaxRequests", max_requests_rule, "most requests of a session open at once"),
    SECONDS("BoshInactivity", inactivity_rule,
            "how long a session lives without a request; 0: for ever"),
    SECONDS("BoshMaxPause", max_pause_rule, "longest pause a client may ask for; 0: none"),
    SECONDS("BoshPolling", polling_rule, "shortest time between empty requests; 0: any"),
    FLAG("BoshKeys", keys_rule, "whether the keys of clients that send some are verified"),
    SIZE("BoshMaxBody", max_body_rule, "largest request body"),
    FLAG("BoshInflate", inflate_rule, "whether request bodies may be compressed"),
    FLAG("BoshDeflate", deflate_rule, "whether answers from 2 KB up are compressed"),
    FLAG("BoshRoute", route_rule,
         "whether clients may choose between the servers that are configured"),
    NUMBER("BoshMaxSessionsPerAddress", per_address_rule,
           "most sessions at once of one client address; 0: any number"),
    SECONDS("BoshLoginTimeout", login_time_rule, "time for a new session to log in; 0: any"),
    SIZE("BoshLoginSize", login_size_rule,
         "most payload that may wait in a session before it has logged in; 0: as later"),
    AP_INIT_TAKE1("BoshRequireTLS", set_require_tls, NULL, RSRC_CONF,
                  "whether sessions are created over TLS alone, or the URI to go to for that"),
    FLAG("BoshReturnUndelivered", returns_rule,
         "whether senders are told what the client of a session that ends did not get"),
    SIZE("BoshMaxStanza", max_stanza_rule, "largest element from an XMPP server"),
    SIZE("BoshQueueSize", queue_size_rule, "most bytes waiting in a session, each way"),
    NUMBER("BoshMaxSessions", max_sessions_rule, "most sessions at once"),
    AP_INIT_TAKE1("BoshMemory", set_memory, NULL, RSRC_CONF,
                  "size of the shared memory for sessions"),
    AP_INIT_ITERATE("BoshAllowOrigin", add_origin, NULL, RSRC_CONF,
                    "origins whose pages may use this server, or *"),
    FLAG("BoshScriptSyntax", script_rule,
         "whether clients may send requests by GET and get scripts (XEP-0252)"),
    FLAG("BoshAsync", async_rule,
         "whether requests are held without a thread where httpd can do that"),
    FLAG("BoshQuickRestart", quick_restart_rule,
         "whether a graceful restart starts its new children without a second's delay"),
    SECONDS(
        "BoshDrainTimeout", drain_rule,
        "how long streams with TLS stay with a child that has been told to stop; 0: not at all"),
    FLAG("BoshEscrow", escrow_rule,
         "whether sessions survive the crash of the child that has their stream"),
    {NULL}};
