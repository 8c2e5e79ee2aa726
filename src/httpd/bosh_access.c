/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is there. Called by bosh_request.c on worker threads, before a request reaches its session.
 *
 * Invariant: nothing a client can put into a header gives it a right, but for what the administrator's
 * configuration makes of it: the address through mod_remoteip, TLS that a proxy ended through the variable HTTPS
 * (B-364). Origin and the names it is compared with protect users from foreign pages, which cannot set them; a
 * program that can needs no page.
 */
#include "bosh_access.h"

#include <string.h>

#include <apr_sha1.h>
#include <apr_strings.h>
#include <http_core.h>
#include <http_log.h>
#include <http_ssl.h>

APLOG_USE_MODULE(bosh);

/* B-364: TLS of our own, or httpd's word for it: HTTPS=on, as SetEnvIf can set it for a proxy's requests. */
static bool is_secure(request_rec *r)
{
    const char *https = apr_table_get(r->subprocess_env, "HTTPS");

    return ap_ssl_conn_is_ssl(r->connection) ||
           (https != NULL && ap_cstr_casecmp(https, "on") == 0);
}

/* Zeros when the connection showed no certificate. */
static void fingerprint(request_rec *r, uint8_t digest[BOSH_CERT_BYTES])
{
    const char *pem;
    apr_sha1_ctx_t ctx;

    if (!ap_ssl_conn_is_ssl(r->connection)) {
        return;
    }
    pem = ap_ssl_var_lookup(r->pool, r->server, r->connection, r, "SSL_CLIENT_CERT");
    if (pem != NULL && pem[0] != '\0') {
        apr_sha1_init(&ctx);
        apr_sha1_update(&ctx, pem, (unsigned)strlen(pem));
        apr_sha1_final(digest, &ctx);
    }
}

/* An IPv4 address, or the /64 of an IPv6 one, which is what a single customer gets of it; 0: no address. */
static uint64_t network(const apr_sockaddr_t *sa)
{
    uint64_t net = 0;
    const uint8_t *p;
    int from = 0, to = 8;

    if (sa == NULL || (sa->family != APR_INET && sa->family != APR_INET6)) {
        return 0;
    }
    p = sa->ipaddr_ptr;
    if (sa->family == APR_INET) {
        to = 4;
    } else if (IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)sa->ipaddr_ptr)) {
        from = 12;
        to = 16;
    }
    for (int i = from; i < to; i++) {
        net = net << 8 | p[i];
    }
    return to == 8 ? net | 1 : net | UINT64_C(1) << 32;
}

void bosh_access_client(request_rec *r, const bosh_config_t *conf, bosh_client_t *who)
{
    memset(who, 0, sizeof(*who));
    who->ip = r->useragent_ip;
    /* The port of a client behind a proxy is not known: mod_remoteip keeps the proxy's. */
    who->port = r->useragent_addr == r->connection->client_addr ? r->useragent_addr->port : 0;
    who->net = conf->limits.per_address > 0 ? network(r->useragent_addr) : 0;
    who->tls = is_secure(r);
    fingerprint(r, who->cert);
}

const char *bosh_access_elsewhere(request_rec *r, const bosh_config_t *conf)
{
    if (conf->require_tls == NULL || conf->require_tls[0] == '\0') {
        return NULL;
    }
    if (conf->require_tls[0] == 'h') {
        return conf->require_tls;
    }
    return apr_pstrcat(r->pool, "https://", ap_get_server_name_for_url(r),
                       ap_escape_uri(r->pool, r->uri), NULL);
}

/* Whether this origin is the host that was asked, or that a proxy in front of us was asked. Its scheme and the
 * proxy's port are not known here, and a foreign page has another name. */
static bool is_own(request_rec *r, const char *origin)
{
    static const char *const names[] = {"Host", "X-Forwarded-Host"};
    const char *host = strstr(origin, "://");

    for (size_t i = 0; host != NULL && i < sizeof(names) / sizeof(names[0]); i++) {
        const char *asked = apr_table_get(r->headers_in, names[i]);
        if (asked != NULL && ap_cstr_casecmp(host + 3, asked) == 0) {
            return true;
        }
    }
    return false;
}

bool bosh_access_origin_ok(request_rec *r, const bosh_config_t *conf)
{
    const char *origin = apr_table_get(r->headers_in, "Origin");
    bool any;

    if (conf->origins == NULL || origin == NULL || bosh_config_origin_allowed(conf, origin, &any) ||
        is_own(r, origin)) {
        return true;
    }
    ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r,
                  "a page of %s may not use this endpoint; name its origin in BoshAllowOrigin",
                  ap_escape_logitem(r->pool, origin));
    return false;
}

/* The origin of an URI: scheme, host and port. NULL: it has none. */
static const char *origin_of(request_rec *r, const char *uri)
{
    const char *host = uri != NULL ? strstr(uri, "://") : NULL;

    return host != NULL ? apr_pstrmemdup(r->pool, uri, host + 3 + strcspn(host + 3, "/?#") - uri)
                        : NULL;
}

/*
 * Browsers send no Origin with what a <script> asks for. Referer is there unless its page does not want to be
 * known; then it may be any page, unless the browser says that it is one of our own.
 */
bool bosh_access_page_ok(request_rec *r, const bosh_config_t *conf)
{
    const char *origin = apr_table_get(r->headers_in, "Origin");
    const char *site = apr_table_get(r->headers_in, "Sec-Fetch-Site");
    bool any;

    if (origin == NULL) {
        origin = origin_of(r, apr_table_get(r->headers_in, "Referer"));
    }
    if (bosh_config_origin_allowed(conf, origin != NULL ? origin : "", &any) ||
        (origin != NULL && is_own(r, origin)) ||
        (origin == NULL && site != NULL && strcmp(site, "same-origin") == 0)) {
        return true;
    }
    ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r,
                  "a page of %s may not use this endpoint; name its origin in BoshAllowOrigin",
                  origin != NULL ? ap_escape_logitem(r->pool, origin) : "an unknown origin");
    return false;
}
