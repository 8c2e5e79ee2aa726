/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Responses: the headers that all of them carry, and their bodies, each sent as one bucket and EOS so that
 * httpd knows the length. Called by bosh_request.c on worker threads; touches nothing but the request.
 */
#include "bosh_respond.h"

#include <string.h>

#include <apr_strings.h>
#include <http_protocol.h>
#include <util_filter.h>

#include "bosh_body.h"
#include "bosh_pack.h"
#include "bosh_script.h"
#include "bosh_whole.h"

#define DEFAULT_CONTENT "text/xml; charset=utf-8"
#define SCRIPT_CONTENT  "text/javascript; charset=utf-8"
#define MAX_AGE         "86400"
#define ALLOW           "GET, HEAD, POST, OPTIONS"

/* ---- headers every response carries ---- */

void bosh_respond_headers(request_rec *r, const bosh_config_t *conf)
{
    const char *origin = apr_table_get(r->headers_in, "Origin");
    apr_table_t *h = r->err_headers_out; /* on errors as well (B-017) */
    bool any;

    apr_table_setn(h, "Cache-Control", "no-store"); /* B-018 */
    /* B-020: payloads are written by strangers and may not run as a page of this origin. */
    apr_table_setn(h, "X-Content-Type-Options", "nosniff");
    apr_table_setn(h, "Content-Security-Policy", "default-src 'none'; sandbox");
    if (conf->origins == NULL) {
        return;
    }
    if (origin == NULL || !bosh_config_origin_allowed(conf, origin, &any)) {
        apr_table_mergen(h, "Vary", "Origin");
        return;
    }
    apr_table_setn(h, "Access-Control-Allow-Origin", any ? "*" : apr_pstrdup(r->pool, origin));
    if (!any) {
        apr_table_mergen(h, "Vary", "Origin");
    }
    if (r->method_number == M_OPTIONS) {
        apr_table_setn(h, "Access-Control-Allow-Methods", "POST, OPTIONS");
        apr_table_setn(h, "Access-Control-Allow-Headers", "Content-Type");
        apr_table_setn(h, "Access-Control-Max-Age", MAX_AGE);
    }
}

/* ---- sending ---- */

/* Passes a whole response on: one data bucket (or none) and EOS, so that its length is known (B-003). */
static int send_bucket(request_rec *r, int status, const char *type, apr_bucket *data, size_t len)
{
    apr_bucket_brigade *bb = apr_brigade_create(r->pool, r->connection->bucket_alloc);

    apr_table_unset(r->headers_in,
                    "Range"); /* else httpd cuts the answer to a POST as it would a file */
    r->status = status;
    ap_set_content_type(r, type);
    ap_set_content_length(r, (apr_off_t)len);
    bosh_pack_limit_filters(r, len);
    if (data != NULL) {
        APR_BRIGADE_INSERT_TAIL(bb, data);
    }
    APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_eos_create(bb->bucket_alloc));
    bosh_whole_begin(r);
    ap_pass_brigade(r->output_filters, bb);
    return OK; /* an error here means that the client has gone; the answer waits for its resend */
}

int bosh_respond_text(request_rec *r, int status, const char *text)
{
    size_t len = strlen(text);
    apr_bucket *b =
        len > 0 ? apr_bucket_immortal_create(text, len, r->connection->bucket_alloc) : NULL;

    return send_bucket(r, status, "text/plain; charset=utf-8", b, len);
}

/* 17.1: the HTTP codes that clients from before 1.6 understand instead of a condition. */
static int legacy_status(bosh_cond_t cond)
{
    switch (cond) {
    case BOSH_COND_BAD_REQUEST:
        return HTTP_BAD_REQUEST;
    case BOSH_COND_POLICY_VIOLATION:
        return HTTP_FORBIDDEN;
    case BOSH_COND_ITEM_NOT_FOUND:
        return HTTP_NOT_FOUND;
    default:
        return HTTP_OK;
    }
}

/* By the method, and not by the session: an answer that tells of the wrong one has to be understood. */
static bool in_script(const request_rec *r)
{
    return r->method_number == M_GET;
}

/* Whether a media type is one of XML: text/xml, application/xml, and all that end in +xml. */
static bool is_xml(const char *type)
{
    size_t n = strcspn(type, "; ");

    return n >= 4 && (type[n - 4] == '/' || type[n - 4] == '+') &&
           ap_cstr_casecmpn(type + n - 3, "xml", 3) == 0;
}

/*
 * B-078: the session's `content` on every response of it. S-013: a script is not XML, and with nosniff no browser
 * would run it as such; clients that say so do out of habit, as in XEP-0252's own example.
 */
static const char *content_of(request_rec *r, const bosh_verdict_t *v)
{
    if (v->content[0] == '\0' || (in_script(r) && is_xml(v->content))) {
        return in_script(r) ? SCRIPT_CONTENT : DEFAULT_CONTENT;
    }
    return apr_pstrdup(r->pool, v->content);
}

/* S-014: those words for caches of HTTP/1.0, too. */
static void forbid_caching(request_rec *r)
{
    apr_table_setn(r->err_headers_out, "Cache-Control", "no-store, no-cache");
    apr_table_setn(r->err_headers_out, "Pragma", "no-cache");
}

/* Sends a body of len bytes, in the syntax of the request, compressed or not; buf is of the connection's bucket allocator and taken
 * over. */
static int send_body(request_rec *r, int status, const bosh_verdict_t *v, char *buf, size_t len)
{
    apr_bucket_alloc_t *alloc = r->connection->bucket_alloc;

    if (in_script(r)) {
        size_t n = bosh_script_print(NULL, buf, len);
        char *script = apr_bucket_alloc(n, alloc);
        bosh_script_print(script, buf, len);
        apr_bucket_free(buf);
        buf = script;
        len = n;
        status = HTTP_OK; /* S-017: a browser tells a page nothing about a script that failed */
        forbid_caching(r);
    }
    bosh_pack(r, bosh_config_of(r->server), &buf, &len);
    return send_bucket(r, status, content_of(r, v),
                       apr_bucket_heap_create(buf, len, apr_bucket_free, alloc), len);
}

/* A body that is not stored in a session: terminate with a condition, or type='error'. */
int bosh_respond_tell(request_rec *r, const bosh_verdict_t *v)
{
    bosh_ans_t ans = {.flags = v->error ? BOSH_ANS_ERROR : BOSH_ANS_TERMINATE, .cond = v->cond};
    char *buf = apr_bucket_alloc(BOSH_BODY_OPEN_MAX, r->connection->bucket_alloc);
    size_t len = bosh_body_print_open(buf, &ans, true);

    return send_body(r, v->legacy && !v->error ? legacy_status(v->cond) : HTTP_OK, v, buf, len);
}

int bosh_respond_elsewhere(request_rec *r, const char *uri)
{
    static const char child[] = "<uri>", end[] = "</uri>" BOSH_BODY_CLOSE;
    static const bosh_verdict_t none = {.act = BOSH_DO_TELL};
    bosh_ans_t ans = {.flags = BOSH_ANS_TERMINATE, .cond = BOSH_COND_SEE_OTHER_URI};
    size_t most = 6 * strlen(uri);
    char *buf = apr_bucket_alloc(BOSH_BODY_OPEN_MAX + most + sizeof(child) + sizeof(end),
                                 r->connection->bucket_alloc);
    size_t len = bosh_body_print_open(buf, &ans, false);

    memcpy(buf + len, child, sizeof(child) - 1);
    len += sizeof(child) - 1;
    len += bosh_body_escape(buf + len, most, uri);
    memcpy(buf + len, end, sizeof(end) - 1);
    len += sizeof(end) - 1;
    return send_body(r, HTTP_OK, &none, buf, len);
}

/* 19.1: the connection ends without an answer. */
int bosh_respond_close(request_rec *r)
{
    r->connection->aborted = 1;
    r->connection->keepalive = AP_CONN_CLOSE;
    return OK;
}

int bosh_respond_stored(request_rec *r, const bosh_verdict_t *v, char *buf, size_t len)
{
    return send_body(r, v->legacy ? legacy_status(v->cond) : HTTP_OK, v, buf, len);
}

int bosh_respond_here(request_rec *r)
{
    forbid_caching(r);
    return send_bucket(r, HTTP_OK, SCRIPT_CONTENT, NULL, 0);
}

int bosh_respond_options(request_rec *r)
{
    apr_table_setn(r->err_headers_out, "Allow", ALLOW);
    return send_bucket(r, HTTP_NO_CONTENT, NULL, NULL, 0);
}

int bosh_respond_not_allowed(request_rec *r)
{
    apr_table_setn(r->err_headers_out, "Allow", ALLOW);
    return bosh_respond_text(r, HTTP_METHOD_NOT_ALLOWED, "POST is the method here\n");
}
