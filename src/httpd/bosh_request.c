/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The content handler. A worker reads the body (bosh_desk.c) and parses it without a lock, applies it to the session under
 * the arena lock, and then either sends the answer that is stored or gives the request to bosh_hold.c; a
 * worker that is handed a waiting request asks the session again and does the same. Nothing of the parse
 * survives into the hold, so that a held request stays small.
 *
 * Everything here runs on a worker thread, but wait_more(GONE), which may run in a pool cleanup.
 */
#include "bosh_request.h"

#include <string.h>

#include <apr_strings.h>
#include <http_core.h>
#include <http_log.h>
#include <http_protocol.h>

#include "bosh_access.h"
#include "bosh_body.h"
#include "bosh_check.h"
#include "bosh_clock.h"
#include "bosh_config.h"
#include "bosh_desk.h"
#include "bosh_hold.h"
#include "bosh_lock.h"
#include "bosh_pack.h"
#include "bosh_point.h"
#include "bosh_respond.h"
#include "bosh_route.h"
#include "bosh_script.h"
#include "bosh_session.h"
#include "bosh_syntax.h"
#include "bosh_upstream.h"

APLOG_USE_MODULE(bosh);

#define COPY_STEP      (64 * 1024) /* bytes copied out of the arena per lock hold */
#define FULL_LOG_EVERY apr_time_from_sec(10)

static struct {
    bosh_loop_t *loop;
    bosh_lock_t *lock;
    uint32_t peer;
    apr_time_t full_logged;
} child;

/* A request that waits; lives in r->pool. */
typedef struct wait_t {
    const bosh_config_t *conf;
    bosh_holder_t holder;
    bosh_verdict_t v;
} wait_t;

/* The process ends. Pools of connections may end after that of the child. */
static apr_status_t forget_lock(void *unused)
{
    (void)unused;
    child.lock = NULL;
    return APR_SUCCESS;
}

void bosh_request_child_init(apr_pool_t *pchild, bosh_loop_t *loop)
{
    child.loop = loop;
    apr_pool_cleanup_register(pchild, NULL, forget_lock, apr_pool_cleanup_null);
    if (loop != NULL) {
        child.lock = bosh_loop_lock(loop);
        child.peer = bosh_loop_peer(loop);
        bosh_desk_child_init(pchild);
        bosh_pack_child_init(pchild);
    }
}

/* No memory, or no loop: Strophe and others try the same rid again after a 5xx. */
static int send_busy(request_rec *r)
{
    apr_time_t now = bosh_clock_now();

    if (child.lock != NULL && now - child.full_logged > FULL_LOG_EVERY) {
        child.full_logged = now;
        ap_log_rerror(
            APLOG_MARK, APLOG_WARNING, 0, r,
            "BH002: the shared memory for sessions is full, requests are answered 503 and come "
            "again; raise BoshMemory");
    }
    apr_table_setn(r->err_headers_out, "Retry-After", "1");
    return bosh_respond_text(r, HTTP_SERVICE_UNAVAILABLE, "busy, try again\n");
}

/* A stored answer with payload on its way to the client. */
typedef struct sending_t {
    conn_rec *conn;
    bosh_ix session;
    uint32_t serial;
    uint64_t rid;
} sending_t;

/* The request's pool goes when the answer has been written, or cannot be any more: B-293. */
static apr_status_t sending_ends(void *baton)
{
    const sending_t *w = baton;

    if (w->conn->aborted && child.lock != NULL) {
        bosh_lock(child.lock);
        bosh_session_unsent(child.lock->arena, w->session, w->serial, w->rid);
        bosh_unlock(child.lock);
    }
    return APR_SUCCESS;
}

static void watch_sending(request_rec *r, const bosh_verdict_t *v)
{
    sending_t *w = apr_palloc(r->pool, sizeof(*w));

    w->conn = r->connection;
    w->session = v->session;
    w->serial = v->serial;
    w->rid = v->rid;
    apr_pool_cleanup_register(r->pool, w, sending_ends, apr_pool_cleanup_null);
}

/* The beginning of a stored answer, fetched under the same lock that decided to send it. */
typedef struct start_t {
    size_t n;
    char text[1024];
} start_t;

/* Under the lock. */
static void fetch_start(const bosh_verdict_t *v, start_t *start)
{
    start->n =
        v->act != BOSH_DO_SEND
            ? 0
            : bosh_session_read(child.lock->arena, v->session, v->serial, v->rid, 0, start->text,
                                v->len < sizeof(start->text) ? v->len : sizeof(start->text));
}

/* The stored answer; what is not in `start` is copied out of the arena in steps so that no lock is held for long. */
static int send_stored(request_rec *r, bosh_verdict_t *v, const start_t *start)
{
    apr_bucket_alloc_t *alloc = r->connection->bucket_alloc;
    char *buf = apr_bucket_alloc(v->len > 0 ? v->len : 1, alloc);
    size_t have = start->n, n = 1;

    memcpy(buf, start->text, have);
    while (n > 0 && have < v->len) {
        size_t step = v->len - have < COPY_STEP ? v->len - have : COPY_STEP;
        bosh_lock(child.lock);
        n = bosh_session_read(child.lock->arena, v->session, v->serial, v->rid, have, buf + have,
                              step);
        bosh_unlock(child.lock);
        have += n;
    }
    if (have < v->len) { /* let go meanwhile: a repeat of the request has got it, or all is over */
        apr_bucket_free(buf);
        bosh_lock(child.lock);
        bosh_session_lost(child.lock->arena, v);
        bosh_unlock(child.lock);
        return bosh_respond_tell(r, v);
    }
    BOSH_POINT("answer-fetched");
    if (have > sizeof(BOSH_BODY_EMPTY)) {
        watch_sending(r, v);
    }
    return bosh_respond_stored(r, v, buf, have);
}

static int send_verdict(request_rec *r, bosh_verdict_t *v, const start_t *start)
{
    BOSH_POINT("answer-unsent");
    switch (v->act) {
    case BOSH_DO_SEND:
        return send_stored(r, v, start);
    case BOSH_DO_TELL:
        ap_log_rerror(APLOG_MARK, APLOG_DEBUG, 0, r, "[s%u.%u rid %" APR_UINT64_T_FMT "] told %s",
                      v->session, v->serial, v->rid,
                      v->error                    ? "error"
                      : v->cond == BOSH_COND_NONE ? "terminate"
                                                  : bosh_body_condition(v->cond));
        if (v->cond == BOSH_COND_SEE_OTHER_URI) {
            return bosh_respond_elsewhere(r, bosh_access_elsewhere(r, bosh_config_of(r->server)));
        }
        return bosh_respond_tell(r, v);
    case BOSH_DO_BUSY:
        return send_busy(r);
    case BOSH_DO_CLOSE:
        return bosh_respond_close(r);
    case BOSH_DO_HOLD:
        break;
    }
    return HTTP_INTERNAL_SERVER_ERROR; /* not reached: holds are the callers' */
}

/* ---- waiting ---- */

/* Text of the session has to be joined, on a desk. */
static void join(request_rec *r, wait_t *w, bool must)
{
    bosh_desk_t *d = bosh_desk_take();

    if (d != NULL) { /* else it is the next one's */
        bosh_syntax_join(r, w->conf, child.lock, d, w->holder, must, &w->v);
        bosh_desk_give(d);
    }
}

/* bosh_hold_spot_fn: a waiting request may have an answer. A small one is sent; whatever else the session says it
 * will say again to wait_more(), on a worker. */
static bosh_hold_spot_t answer_here(request_rec *r, void *baton, apr_time_t *deadline)
{
    wait_t *w = baton;
    start_t start;

    start.n = 0;
    bosh_lock(child.lock);
    bosh_session_poll(child.lock->arena, bosh_clock_now(), &w->conf->limits, false, w->holder,
                      &w->v);
    if (!w->v.join) {
        fetch_start(&w->v, &start);
    }
    bosh_unlock(child.lock);
    if (w->v.join) {
        return BOSH_SPOT_LATER;
    }
    if (w->v.act == BOSH_DO_HOLD) {
        *deadline = w->v.deadline;
        return BOSH_SPOT_AGAIN;
    }
    if (w->v.act == BOSH_DO_SEND && start.n == w->v.len) {
        send_verdict(r, &w->v, &start);
        return BOSH_SPOT_DONE;
    }
    return BOSH_SPOT_LATER;
}

/* bosh_hold_fn: a waiting request gets a worker. */
static bosh_hold_next_t wait_more(request_rec *r, void *baton, bosh_why_t why, apr_time_t *deadline,
                                  int *result)
{
    wait_t *w = baton;
    bool must = why == BOSH_WHY_MORE || why == BOSH_WHY_STOPPING;
    start_t start;

    *result = OK;
    start.n = 0;
    bosh_lock(child.lock);
    if (why == BOSH_WHY_GONE) {
        bosh_session_gone(child.lock->arena, bosh_clock_now(), w->v.session, w->v.serial, w->v.rid,
                          w->holder);
    } else {
        bosh_session_poll(child.lock->arena, bosh_clock_now(), &w->conf->limits, must, w->holder,
                          &w->v);
        fetch_start(&w->v, &start);
    }
    bosh_unlock(child.lock);
    if (why == BOSH_WHY_GONE) {
        return BOSH_HOLD_DONE;
    }
    if (w->v.join) {
        join(r, w, must);
    }
    if (w->v.act == BOSH_DO_HOLD) {
        *deadline = w->v.deadline;
        return BOSH_HOLD_AGAIN;
    }
    *result = send_verdict(r, &w->v, &start);
    return BOSH_HOLD_DONE;
}

static const bosh_hold_calls_t waiting = {wait_more, answer_here};

/* ---- the way to a server ---- */

static void tell_now(bosh_verdict_t *v, bosh_cond_t cond)
{
    memset(v, 0, sizeof(*v));
    v->act = BOSH_DO_TELL;
    v->cond = cond;
}

/* B-082: the domain, folded; NULL when there is none. */
static const char *fold_domain(request_rec *r, const char *to)
{
    size_t n = to != NULL ? strlen(to) : 0;
    char *d;

    if (n > 0 && to[n - 1] == '.') {
        n--;
    }
    if (n == 0) {
        return NULL;
    }
    d = apr_pstrmemdup(r->pool, to, n);
    ap_str_tolower(d);
    return d;
}

/*
 * The server for this domain and route (B-085 to B-087); NULL: *cond says why. A client may choose between those
 * that are configured, and nothing else: its text is compared, and connected to is what the line says.
 */
static const bosh_upstream_t *choose_server(request_rec *r, const bosh_config_t *conf,
                                            const char *domain, const char *route,
                                            bosh_cond_t *cond)
{
    const bosh_upstream_t *u = bosh_upstream_find(conf, domain);
    bosh_slice_t host;
    unsigned port;

    *cond = BOSH_COND_HOST_UNKNOWN;
    if (u == NULL) {
        ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r, "no BoshUpstream serves the domain '%s'",
                      ap_escape_logitem(r->pool, domain));
        return NULL;
    }
    if (conf->route <= 0 || route == NULL) {
        return u;
    }
    if (!bosh_route_read(route, &host, &port)) {
        *cond = BOSH_COND_BAD_REQUEST;
        return NULL;
    }
    u = bosh_upstream_at(conf, host.p, host.n, port);
    if (u != NULL) {
        return u;
    }
    ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r, "no BoshUpstream line has the target of route '%s'",
                  ap_escape_logitem(r->pool, route));
    return NULL;
}

/* Random names for what a request opens. */
static bool make_name(request_rec *r, uint8_t name[BOSH_SID_BYTES])
{
    if (apr_generate_random_bytes(name, BOSH_SID_BYTES) == APR_SUCCESS) {
        return true;
    }
    ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, "BH003: no random bytes for a session id");
    return false;
}

/* 16.3: a request that may add a stream to its session, if that has more than one; the session decides. False: no
 * random bytes. */
static bool prepare_stream(request_rec *r, const bosh_config_t *conf, const bosh_req_t *req,
                           bosh_opening_t *how)
{
    const bosh_upstream_t *u;

    if (req->opening == NULL || !bosh_body_adds_stream(req)) {
        return true;
    }
    how->cond = BOSH_COND_IMPROPER_ADDRESSING;
    how->to = fold_domain(r, req->to);
    how->owner = child.peer;
    if (how->to != NULL && (u = choose_server(r, conf, how->to, req->route, &how->cond)) != NULL) {
        how->cond = BOSH_COND_NONE;
        how->upstream = (uint16_t)u->row;
    }
    return make_name(r, how->name);
}

/* 7.1: a session for this request; false: `v` is the answer, no session was made. */
static void create(request_rec *r, const bosh_config_t *conf, const bosh_req_t *req,
                   bosh_opening_t *how, const bosh_client_t *who, bosh_holder_t holder,
                   bosh_verdict_t *v)
{
    const char *to = fold_domain(r, req->to);
    const bosh_upstream_t *u;
    bosh_cond_t cond;
    uint8_t sid[BOSH_SID_BYTES];

    if (!who->tls && bosh_access_elsewhere(r, conf) != NULL) { /* B-308 */
        tell_now(v, BOSH_COND_SEE_OTHER_URI);
        return;
    }
    if (to == NULL) {
        tell_now(v, BOSH_COND_IMPROPER_ADDRESSING);
        return;
    }
    u = choose_server(r, conf, to, req->route, &cond);
    if (u == NULL) {
        tell_now(v, cond);
        v->legacy = bosh_body_legacy(req->ver_major, req->ver_minor);
        return;
    }
    if (req->terminate) { /* B-097 */
        tell_now(v, BOSH_COND_NONE);
        return;
    }
    if (!make_name(r, sid) || (req->opening != NULL && !make_name(r, how->name))) {
        tell_now(v, BOSH_COND_INTERNAL_SERVER_ERROR);
        return;
    }
    bosh_lock(child.lock);
    bosh_session_create(child.lock->arena, bosh_clock_now(), req, &conf->limits, sid, to, who,
                        child.peer, (uint16_t)u->row, holder, v);
    bosh_unlock(child.lock);
    if (v->act == BOSH_DO_TELL && v->cond == BOSH_COND_POLICY_VIOLATION) {
        ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r,
                      "no session: more than BoshMaxSessionsPerAddress of this address, or more "
                      "payload than BoshLoginSize");
    } else if (v->act == BOSH_DO_TELL && v->cond == BOSH_COND_INTERNAL_SERVER_ERROR &&
               bosh_clock_now() - child.full_logged > FULL_LOG_EVERY) {
        child.full_logged = bosh_clock_now();
        ap_log_rerror(
            APLOG_MARK, APLOG_WARNING, 0, r,
            "BH004: no room for another session; raise BoshMaxSessions (%d) or BoshMemory",
            bosh_config_global()->max_sessions);
    } else {
        ap_log_rerror(APLOG_MARK, APLOG_DEBUG, 0, r, "[s%u.%u] created for %s", v->session,
                      v->serial, to);
    }
}

/* ---- a request ---- */

static int refuse_body(request_rec *r, const bosh_config_t *conf, int status)
{
    bosh_verdict_t v;

    switch (status) {
    case BOSH_DESK_BROKEN: /* a 4xx would end the client's session; so it sends the request again */
        return bosh_respond_close(r);
    case HTTP_REQUEST_ENTITY_TOO_LARGE: /* B-019: no session is touched */
        ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r,
                      "request body larger than BoshMaxBody (%d bytes)", conf->max_body);
        r->connection->keepalive = AP_CONN_CLOSE; /* the rest is not worth reading */
        return bosh_respond_text(r, status, "request body larger than BoshMaxBody\n");
    case HTTP_SERVICE_UNAVAILABLE:
        return send_busy(r);
    case HTTP_UNSUPPORTED_MEDIA_TYPE: /* B-093; whose it was nobody can read */
    case HTTP_BAD_REQUEST:
        ap_log_rerror(APLOG_MARK, APLOG_DEBUG, 0, r,
                      "bad request: it is not encoded as it says, or as it may be");
        tell_now(&v, BOSH_COND_BAD_REQUEST);
        return bosh_respond_tell(r, &v);
    default:
        return status;
    }
}

/* Whether the XMPP server has something to answer: to an iq, a step of SASL or a stream's beginning. Nobody owes
 * an answer to a message or presence. */
static bool asks(const bosh_req_t *req)
{
    bool begins = true;

    for (size_t i = 0; i < req->npieces; i++) {
        const bosh_piece_t *p = &req->pieces[i];
        if (begins && !(p->n > 8 && memcmp(p->p, "<message", 8) == 0) &&
            !(p->n > 9 && memcmp(p->p, "<presence", 9) == 0)) {
            return true;
        }
        begins = p->last;
    }
    return req->restart || !(req->has & BOSH_HAS_SID);
}

/* Parses and applies the body on the desk; `v` says what to do, `start` has what it takes. True: an answer is likely to come soon. */
static bool apply_body(request_rec *r, const bosh_config_t *conf, bosh_desk_t *d, bool script,
                       bosh_holder_t holder, bosh_verdict_t *v, start_t *start)
{
    bosh_piece_t pieces[2];
    bosh_opening_t opening = {.cond = BOSH_COND_NONE};
    bosh_client_t who;
    bosh_req_t req;
    const char *why = NULL;
    apr_status_t rv;
    bool legacy;

    bosh_access_client(r, conf, &who);
    rv = script ? bosh_script_parse(d->parser, d->buf, d->len, pieces, &req, &why)
                : bosh_body_parse(d->parser, d->buf, d->len, &req, &why);
    req.opening = conf->limits.max_streams > 1 ? &opening : NULL;
    /* What cannot be read may be of any version. */
    legacy = rv == APR_SUCCESS && bosh_body_legacy(req.ver_major, req.ver_minor);
    if (rv == APR_SUCCESS && !bosh_check_texts(&req)) {
        rv = APR_EGENERAL;
        why = "an attribute of the body is too long or not what it should be";
    }
    if (rv == APR_SUCCESS && req.payload_bytes > conf->limits.queue_size) {
        /* Declarations of the wrapper are repeated on each payload and can multiply its size. */
        rv = APR_EGENERAL;
        why = "the payload with its namespaces is larger than BoshQueueSize";
    }
    if (rv == APR_ENOMEM) {
        memset(v, 0, sizeof(*v));
        v->act = BOSH_DO_BUSY;
    } else if (rv != APR_SUCCESS) {
        ap_log_rerror(APLOG_MARK, APLOG_DEBUG, 0, r, "bad request: %s", why);
        tell_now(v, BOSH_COND_BAD_REQUEST);
        v->legacy = legacy && !(req.has & BOSH_HAS_SID);
        if (req.has & BOSH_HAS_SID) { /* B-044 */
            bosh_lock(child.lock);
            bosh_session_bad_request(child.lock->arena, bosh_clock_now(), req.sid, &who, v);
            bosh_unlock(child.lock);
        }
    } else if (!(req.has & BOSH_HAS_SID)) {
        create(r, conf, &req, &opening, &who, holder, v);
    } else if (!prepare_stream(r, conf, &req, &opening)) {
        memset(v, 0, sizeof(*v));
        v->act = BOSH_DO_BUSY;
    } else {
        bosh_lock(child.lock);
        bosh_session_request(child.lock->arena, bosh_clock_now(), &req, &conf->limits, &who, holder,
                             v);
        fetch_start(v, start);
        bosh_unlock_and_do(child.lock);
    }
    return rv == APR_SUCCESS && asks(&req);
}

/* A request of the protocol; query: of a GET, else NULL. */
static int take(request_rec *r, const bosh_config_t *conf, const char *query)
{
    bosh_desk_t *d = bosh_desk_take();
    bosh_waiter_t waiter;
    bosh_holder_t holder;
    bosh_verdict_t v;
    start_t start;
    wait_t *w;
    bool soon;
    int rv;

    if (d == NULL) {
        return send_busy(r);
    }
    rv = query != NULL ? bosh_syntax_read(r, conf, query, d) : bosh_desk_read(r, conf, d);
    if (rv != OK) {
        bosh_desk_give(d);
        return refuse_body(r, conf, rv);
    }
    if (bosh_hold_new(r, &waiter) != APR_SUCCESS) {
        bosh_desk_give(d);
        return send_busy(r);
    }
    holder.peer = child.peer;
    holder.waiter = waiter.id;
    holder.gen = waiter.gen;
    start.n = 0;
    soon = apply_body(r, conf, d, query != NULL, holder, &v, &start);
    bosh_syntax_join(r, conf, child.lock, d, holder, false, &v);
    bosh_desk_give(d);
    if (v.act != BOSH_DO_HOLD) {
        bosh_hold_free(waiter);
        return send_verdict(r, &v, &start);
    }
    w = apr_palloc(r->pool, sizeof(*w));
    w->conf = conf;
    w->holder = holder;
    w->v = v;
    return bosh_hold_wait(r, waiter, v.deadline, soon, &waiting, w);
}

static int get(request_rec *r, const bosh_config_t *conf)
{
    int status;
    const char *query = bosh_syntax_query(r, conf, &status);

    if (query != NULL) {
        return child.loop != NULL ? take(r, conf, query) : send_busy(r);
    }
    switch (status) {
    case HTTP_NO_CONTENT:
        return bosh_respond_here(r);
    case HTTP_NOT_FOUND: /* S-001, S-019 */
        return bosh_respond_text(r, status, "script syntax is not here\n");
    case HTTP_FORBIDDEN:
        return bosh_respond_text(r, status, "this page may not use the endpoint\n");
    default:
        return bosh_respond_text(
            r, HTTP_OK,
            "This is a BOSH endpoint (XEP-0124). Point an XMPP web client at this URL.\n");
    }
}

int bosh_request_handler(request_rec *r)
{
    const bosh_config_t *conf;

    if (r->handler == NULL || strcmp(r->handler, "bosh") != 0) {
        return DECLINED;
    }
    conf = bosh_config_of(r->server);
    bosh_respond_headers(r, conf);
    switch (r->method_number) {
    case M_POST:
        if (!bosh_access_origin_ok(r, conf)) { /* B-370 */
            return bosh_respond_text(r, HTTP_FORBIDDEN, "this origin may not use the endpoint\n");
        }
        return child.loop != NULL ? take(r, conf, NULL) : send_busy(r);
    case M_OPTIONS:
        return bosh_respond_options(r);
    case M_GET: /* HEAD as well */
        return get(r, conf);
    default:
        return bosh_respond_not_allowed(r);
    }
}
