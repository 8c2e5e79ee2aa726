/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Script syntax, the way in. Called by bosh_request.c on worker threads. What makes it different from a POST:
 * the text is in the request line, where it would be logged; and it is a piece of a stream of text, which is
 * put together between sections of the lock.
 */
#include "bosh_syntax.h"

#include <string.h>

#include <apr_strings.h>
#include <http_log.h>
#include <http_protocol.h>
#include <scoreboard.h>

#include "bosh_access.h"
#include "bosh_clock.h"
#include "bosh_join.h"
#include "bosh_script.h"

APLOG_USE_MODULE(bosh);

#define COPY_STEP   (64 * 1024) /* bytes copied out of the arena per lock hold */
#define TRY_AGAIN   apr_time_from_msec(200)
#define ASK_IF_HERE "isBoshAvailable" /* what Openfire's clients ask, and get 200 for */

static void hide_query_of(request_rec *r)
{
    const char *mark = ap_strchr_c(r->the_request, '?');

    r->args = NULL;
    r->parsed_uri.query = NULL;
    r->unparsed_uri = apr_pstrdup(r->pool, r->unparsed_uri);
    r->unparsed_uri[strcspn(r->unparsed_uri, "?")] = '\0';
    if (mark != NULL) {
        r->the_request =
            apr_pstrcat(r->pool, apr_pstrmemdup(r->pool, r->the_request, mark - r->the_request),
                        r->assbackwards ? NULL : " ", r->protocol, NULL);
    }
}

/* Keys, passwords and messages: the request line goes into access logs and mod_status, of an internal redirect that
 * of the first request. */
static void hide_query(request_rec *r)
{
    for (request_rec *each = r; each != NULL; each = each->prev) {
        hide_query_of(each);
    }
    ap_update_child_status(r->connection->sbh, SERVER_BUSY_WRITE, r);
}

const char *bosh_syntax_query(request_rec *r, const bosh_config_t *conf, int *status)
{
    const char *query = r->args;
    bool body;

    *status = HTTP_OK;
    if (query == NULL || *query == '\0') {
        return NULL;
    }
    body = *query == '<' || ap_cstr_casecmpn(query, "%3C", 3) == 0;
    if (body) {
        hide_query(r);
    }
    if (conf->script <= 0 || !body) {
        *status =
            conf->script > 0 && strcmp(query, ASK_IF_HERE) == 0 ? HTTP_NO_CONTENT : HTTP_NOT_FOUND;
        return NULL;
    }
    if (r->header_only) { /* HEAD may have no effect */
        return NULL;
    }
    if (!bosh_access_page_ok(r, conf)) {
        *status = HTTP_FORBIDDEN;
        return NULL;
    }
    return query;
}

int bosh_syntax_read(request_rec *r, const bosh_config_t *conf, const char *query, bosh_desk_t *d)
{
    size_t len = strlen(query);
    int rv = ap_discard_request_body(r); /* what of it is left would pass for a next request */

    if (rv != OK) {
        return rv;
    }
    if (!bosh_desk_grow(d, len)) {
        return HTTP_SERVICE_UNAVAILABLE;
    }
    if (!bosh_script_decode(d->buf, query, len, &d->len)) {
        return HTTP_BAD_REQUEST;
    }
    return d->len > (size_t)conf->max_body ? HTTP_REQUEST_ENTITY_TOO_LARGE : OK;
}

/* The whole text onto the desk. False: somebody else has joined it. */
static bool fetch(bosh_lock_t *lock, const bosh_join_t *j, bosh_desk_t *d)
{
    size_t n;

    d->len = 0;
    do {
        size_t left = j->head + j->begun + j->text - d->len;
        bosh_lock(lock);
        n = bosh_join_read(lock->arena, j, d->len, d->buf + d->len,
                           left < COPY_STEP ? left : COPY_STEP);
        bosh_unlock(lock);
        d->len += n;
    } while (n > 0 && d->len < j->head + j->begun + j->text);
    return d->len == j->head + j->begun + j->text;
}

/* Reads the text on the desk; BOSH_COND_NONE: it is in order. */
static bosh_cond_t read_text(request_rec *r, const bosh_config_t *conf, bosh_desk_t *d,
                             bosh_req_t *req, size_t *used, apr_status_t *rv)
{
    const char *why = NULL;

    *rv = bosh_body_parse_open(d->parser, d->buf, d->len, req, used, &why);
    if (*rv == APR_EGENERAL) {
        ap_log_rerror(APLOG_MARK, APLOG_DEBUG, 0, r, "bad request: %s", why);
        return BOSH_COND_BAD_REQUEST;
    }
    if (*rv == APR_SUCCESS &&
        (req->payload_bytes > conf->limits.queue_size || d->len - *used > (size_t)conf->max_body)) {
        ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r,
                      "a stanza in several requests is larger than BoshMaxBody (%d bytes)",
                      conf->max_body);
        return BOSH_COND_POLICY_VIOLATION;
    }
    return BOSH_COND_NONE;
}

/* Joins one text. APR_ENOMEM: it has to be tried again. */
static apr_status_t join_one(request_rec *r, const bosh_config_t *conf, bosh_lock_t *lock,
                             const bosh_join_t *j, bosh_desk_t *d)
{
    bosh_req_t req;
    bosh_cond_t cond;
    apr_status_t rv;
    size_t used;

    if (!bosh_desk_grow(d, j->head + j->begun + j->text)) {
        return APR_ENOMEM;
    }
    if (!fetch(lock, j, d)) {
        return APR_SUCCESS;
    }
    cond = read_text(r, conf, d, &req, &used, &rv);
    if (rv == APR_ENOMEM) {
        return rv;
    }
    bosh_lock(lock);
    if (cond != BOSH_COND_NONE) {
        bosh_join_fail(lock->arena, bosh_clock_now(), j, cond);
        rv = APR_SUCCESS;
    } else {
        rv = bosh_join_done(lock->arena, bosh_clock_now(), &conf->limits, j, &req, d->buf, used);
    }
    bosh_unlock(lock);
    return rv;
}

/* All that has its turn. False: not for now. */
static bool join_all(request_rec *r, const bosh_config_t *conf, bosh_lock_t *lock, bosh_desk_t *d,
                     const bosh_verdict_t *v)
{
    bosh_join_t j;
    bool there;

    do {
        bosh_lock(lock);
        there = bosh_join_next(lock->arena, v, &j);
        bosh_unlock(lock);
        if (there && join_one(r, conf, lock, &j, d) != APR_SUCCESS) {
            return false;
        }
    } while (there);
    return true;
}

void bosh_syntax_join(request_rec *r, const bosh_config_t *conf, bosh_lock_t *lock, bosh_desk_t *d,
                      bosh_holder_t holder, bool must, bosh_verdict_t *v)
{
    apr_time_t soon = bosh_clock_now() + TRY_AGAIN;

    while (v->join) {
        v->join = false;
        if (!join_all(r, conf, lock, d, v)) {
            v->deadline = v->deadline < soon ? v->deadline : soon;
        } else if (v->act == BOSH_DO_HOLD) {
            bosh_lock(lock);
            bosh_session_poll(lock->arena, bosh_clock_now(), &conf->limits, must, holder, v);
            bosh_unlock(lock);
        }
    }
}
