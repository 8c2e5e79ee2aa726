/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_hold.c owns the decision when a waiting request is answered, and the wait that blocks a
 * worker. It is called by bosh_request.c on worker threads; the wait without a thread is
 * bosh_park.c, the table of waiters and all that other threads call is bosh_waiter.c.
 *
 * A request waits like this, parked or blocked alike:
 *
 *     ask fn while there is a reason --DONE--> answer
 *        ^                     |
 *        |                  no reason
 *        |                     v
 *     somebody came <------ wait: a wake, the clock, the client
 *
 * Invariant: fn of one request is called by one thread at a time, with no lock held, and never
 * again after DONE or GONE; a waiter ends exactly when its fn does.
 */
#include "bosh_park.h"

#include <poll.h>

#include <apr_atomic.h>
#include <apr_portable.h>

#include <http_core.h>
#include <http_log.h>
#include <http_request.h>
#include <ap_mpm.h>

#include "bosh_bell.h"
#include "bosh_clock.h"
#include "bosh_spot.h"
#include "bosh_stay.h"

APLOG_USE_MODULE(bosh);

/* A blocked worker looks up this often for what no descriptor tells it: an HTTP/2 stream that was
 * reset, a prefork child that was told to stop between two looks. So often, too, fn is asked about
 * a deadline that it has let pass. */
#define LOOK_UP apr_time_from_sec(1)

/* Whoever wakes it may want to know whether its client is there (bosh_pace.h), and mod_http2 may be about to see: for
 * this long it looks up more often. */
#define ASKED_FOR    apr_time_from_sec(1)
#define LOOK_UP_SOON apr_time_from_msec(50)

/* Blank lines that a client may send between two requests; as many as httpd's own check lets
 * pass. */
#define MAX_BLANK_LINES 10

/* A parked request that was answered on the spot ends when the next one comes on its connection, or after so long. */
#define END_AFTER apr_time_from_sec(1)

/* The short wait: until an XMPP server nearby has answered, or a busy machine got round to it. Parking instead
 * costs 20 to 30 us of CPU; a short wait in vain up to 20. */
#define BRIEFLY    apr_time_from_msec(50)
#define ALL_HITS   65536
#define WORTH_IT   (ALL_HITS * 6 / 10)
#define TRY_ANYWAY 64

static struct {
    int hits; /* of ALL_HITS */
    unsigned passed;
} brief = {.hits = ALL_HITS};

static volatile apr_uint32_t said_no_eventfd;

/* Set once in child_init. */
static int threaded;
static void (*told_to_stop)(void);

/* ---- a request's end without an answer ---- */

typedef struct last_will_t {
    request_rec *r;
    bosh_waiter_t w;
} last_will_t;

/*
 * The request's pool goes. After an answer its waiter has long ended and there is nothing to do.
 * Otherwise the request dies while parked, e.g. the MPM closed the connection at its Timeout: fn
 * must know. A blocked request gets here only when its whole process ends under it (prefork, from a
 * signal handler): then nothing but the waiter is given back.
 */
static apr_status_t request_dies(void *data)
{
    last_will_t *will = data;
    bosh_hold_t *found = bosh_park_find(will->r);
    bosh_hold_t h;
    apr_time_t deadline = BOSH_NEVER;
    int result = OK;

    if (found != NULL) {
        h = *found;
    }
    bosh_park_forget(will->r);
    if (bosh_waiter_free(will->w) && found != NULL && !h.answered) {
        h.calls->fn(h.r, h.baton, BOSH_WHY_GONE, &deadline, &result);
    }
    return APR_SUCCESS;
}

apr_status_t bosh_hold_new(request_rec *r, bosh_waiter_t *w)
{
    last_will_t *will = apr_palloc(r->pool, sizeof(*will));
    bosh_stay_t *stay;
    apr_status_t rv = bosh_waiter_new(&will->w);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    will->r = r;
    *w = will->w;
    if ((stay = bosh_park_stay(r)) != NULL) {
        stay->ours = true; /* another request is likely to follow on its connection */
    }
    /* A pre-cleanup: it runs while all that the request has, subpools included, is still there for
     * fn. */
    apr_pool_pre_cleanup_register(r->pool, will, request_dies);
    return APR_SUCCESS;
}

void bosh_hold_free(bosh_waiter_t w)
{
    bosh_waiter_free(w);
}

/* ---- reasons ---- */

/*
 * The strongest reason there is. A client that has gone comes first, so that nothing is spent on a
 * dead connection; then what lets fn answer with something; the client's next request last, because
 * it asks for an answer with nothing in it.
 */
static bool pick(const bosh_hold_t *h, unsigned asked, bosh_client_t client, bosh_why_t *why)
{
    if (client == BOSH_CLIENT_GONE) {
        *why = BOSH_WHY_GONE;
    } else if (asked & BOSH_ASKED_STOP) {
        *why = BOSH_WHY_STOPPING;
    } else if (asked & BOSH_ASKED_WAKE) {
        *why = BOSH_WHY_WAKE;
    } else if (h->deadline <= bosh_clock_now()) {
        *why = BOSH_WHY_DEADLINE;
    } else if (client == BOSH_CLIENT_MORE) {
        *why = BOSH_WHY_MORE;
    } else {
        return false;
    }
    return true;
}

static bool done(bosh_hold_t *h, bosh_why_t why, int *result)
{
    apr_time_t deadline = BOSH_NEVER;

    *result = OK;
    if (h->calls->fn(h->r, h->baton, why, &deadline, result) == BOSH_HOLD_DONE ||
        why == BOSH_WHY_GONE) {
        return true;
    }
    h->deadline = deadline;
    if (why == BOSH_WHY_DEADLINE && deadline <= bosh_clock_now()) {
        h->deadline = bosh_clock_now() + LOOK_UP; /* else we would go round in circles */
    }
    return false;
}

bool bosh_hold_ask(bosh_hold_t *h, bosh_client_t client, bosh_why_t *why, int *result)
{
    while (pick(h, bosh_waiter_take(h->w), client, why)) {
        if (done(h, *why, result)) {
            bosh_waiter_free(h->w);
            return true;
        }
        if (*why == BOSH_WHY_MORE) {
            h->told_more = true;
            client = BOSH_CLIENT_QUIET;
        }
    }
    return false;
}

bosh_client_t bosh_hold_peek(bosh_hold_t *h, apr_bucket_brigade *bb)
{
    conn_rec *c = h->r->connection;
    apr_status_t rv;

    if (c->aborted) {
        return BOSH_CLIENT_GONE;
    }
    if (h->told_more || c->keepalive == AP_CONN_CLOSE) {
        h->told_more = true; /* httpd will not read a next request here: bytes mean nothing */
        return BOSH_CLIENT_QUIET;
    }
    rv = ap_check_pipeline(c, bb, MAX_BLANK_LINES);
    apr_brigade_cleanup(bb);
    if (rv == APR_SUCCESS || rv == APR_NOTFOUND) {
        return BOSH_CLIENT_MORE; /* NOTFOUND: too many blank lines, the connection ends with it */
    }
    return APR_STATUS_IS_EAGAIN(rv) ? BOSH_CLIENT_QUIET : BOSH_CLIENT_GONE;
}

/* ---- the wait that blocks ---- */

/* On prefork child_stopping comes when the request is over; the signal handler only changes this
 * state. */
static void notice_stop(void)
{
    int state = AP_MPMQ_RUNNING;

    if (!threaded && ap_mpm_query(AP_MPMQ_MPM_STATE, &state) == APR_SUCCESS &&
        state == AP_MPMQ_STOPPING) {
        told_to_stop();
    }
}

/* The client's socket, if it is ours to watch: that of an HTTP/2 connection belongs to
 * mod_http2. */
static int client_socket(conn_rec *c)
{
    apr_socket_t *s = c->master != NULL ? NULL : ap_get_conn_socket(c);
    apr_os_sock_t fd = -1;

    return s != NULL && apr_os_sock_get(&fd, s) == APR_SUCCESS ? fd : -1;
}

static bosh_client_t client_says(bosh_hold_t *h, short events, apr_bucket_brigade *bb)
{
    if (events & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)) {
        return BOSH_CLIENT_GONE;
    }
    return (events & POLLIN) ? bosh_hold_peek(h, bb) : BOSH_CLIENT_QUIET;
}

static bosh_client_t sleep_once(bosh_hold_t *h, int wake_fd, apr_bucket_brigade *bb,
                                apr_time_t until)
{
    conn_rec *c = h->r->connection;
    apr_time_t left = until - bosh_clock_now(), limit;
    struct pollfd fds[2] = {
        {.fd = wake_fd, .events = POLLIN},
        {.fd = client_socket(c), .events = POLLRDHUP}, /* poll() ignores -1 */
    };
    int n;

    if (!h->told_more) {
        fds[1].events |= POLLIN;
    }
    limit = bosh_clock_now() < h->asked + ASKED_FOR ? LOOK_UP_SOON : LOOK_UP;
    if (left > limit) {
        left = limit;
    }
    n = left <= 0 ? 0 : poll(fds, 2, (int)apr_time_as_msec(left + 999));
    if (n <= 0) {
        notice_stop(); /* a signal, or time to look up */
    }
    if (n > 0 && (fds[0].revents & POLLIN)) {
        bosh_bell_hush(wake_fd);
        h->asked = c->master != NULL ? bosh_clock_now() : 0;
    }
    if (c->aborted || (c->master != NULL && c->master->aborted)) {
        return BOSH_CLIENT_GONE; /* HTTP/2: the stream was reset, the connection lost */
    }
    if (n <= 0) {
        return BOSH_CLIENT_QUIET;
    }
    return client_says(h, fds[1].revents, bb);
}

/* No thread to spare: fn is asked to answer now. A request that cannot be answered yet, because it
 * came before its turn, is given up for the client to send again. */
static int turn_away(bosh_hold_t *h)
{
    int result;

    if (!done(h, BOSH_WHY_STOPPING, &result)) {
        done(h, BOSH_WHY_GONE, &result);
        result = HTTP_SERVICE_UNAVAILABLE;
    }
    bosh_waiter_free(h->w);
    return result;
}

static void give_up_connection(conn_rec *c)
{
    c->aborted = 1;
    c->keepalive = AP_CONN_CLOSE;
}

/* The answer to an earlier request of this connection may still sit in the filters: the synchronous
 * MPMs do not flush it while they know of a next request, and that one is going to wait. */
static void flush_earlier(conn_rec *c, apr_bucket_brigade *bb)
{
    if (c->master != NULL || !c->data_in_output_filters) {
        return;
    }
    APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_flush_create(c->bucket_alloc));
    ap_pass_brigade(c->output_filters, bb);
    apr_brigade_cleanup(bb);
}

static int wait_blocked(bosh_hold_t *h, apr_bucket_brigade *bb)
{
    conn_rec *c = h->r->connection;
    bosh_client_t client;
    bosh_why_t why;
    int result, fd;
    apr_status_t rv = bosh_waiter_block(h->w, &fd, NULL);

    if (rv != APR_SUCCESS) {
        if (rv != APR_EBUSY && apr_atomic_xchg32(&said_no_eventfd, 1) == 0) {
            ap_log_rerror(
                APLOG_MARK, APLOG_WARNING, rv, h->r,
                "BH301: no eventfd for a request that has to wait; it is answered at once. "
                "Raise the limit of open files of httpd (said once in a process)");
        }
        return turn_away(h);
    }
    flush_earlier(c, bb);
    do {
        client = sleep_once(h, fd, bb, h->deadline);
    } while (!bosh_hold_ask(h, client, &why, &result));
    if (why == BOSH_WHY_GONE) {
        give_up_connection(c);
        return OK;
    }
    return result;
}

/* ---- the wait that blocks for a moment ---- */

/* Whether the last short waits were worth it: a moving average over some 64 of them. */
static bool worth_waiting(void)
{
    return __atomic_load_n(&brief.hits, __ATOMIC_RELAXED) >= WORTH_IT ||
           __atomic_fetch_add(&brief.passed, 1, __ATOMIC_RELAXED) % TRY_ANYWAY == 0;
}

/* Two at once may lose one of their contributions; it is an estimate. */
static void learn(bool hit)
{
    int hits = __atomic_load_n(&brief.hits, __ATOMIC_RELAXED);

    __atomic_store_n(&brief.hits, hits + ((hit ? ALL_HITS : 0) - hits) / 64, __ATOMIC_RELAXED);
}

/* Until the bell is rung, the client does something, or time is up; returns what the client's socket says. Touches
 * nothing else: the request may be in the hands of who answers it on the spot. */
static short sleep_briefly(int client, int bell, apr_time_t until)
{
    apr_time_t left = until - bosh_clock_now();
    struct pollfd fds[2] = {
        {.fd = bell, .events = POLLIN},
        {.fd = client, .events = POLLIN | POLLRDHUP},
    };

    if (left <= 0 || poll(fds, 2, (int)apr_time_as_msec(left + 999)) <= 0) {
        return 0;
    }
    if (fds[0].revents & POLLIN) {
        bosh_bell_hush(bell);
    }
    return fds[1].revents;
}

/*
 * A request that the server will probably answer at once is not worth parking, which costs the listener and a
 * second worker a turn each. It may be answered on the spot, as if it were parked; then its worker sleeps on, for the
 * client's next request. True: it is over, as bosh_hold_ask() says.
 */
static bool wait_briefly(bosh_hold_t *h, apr_bucket_brigade *bb, bosh_why_t *why, int *result)
{
    apr_time_t until = bosh_clock_now() + BRIEFLY;
    bosh_stay_t *stay = bosh_park_stay(h->r);
    bool over = false, waited = false, spot;
    short events = 0;
    int bell;

    if (h->deadline <= until || !bosh_park_allowed(h->r) || !bosh_stay_affordable() ||
        !worth_waiting()) {
        return false;
    }
    flush_earlier(h->r->connection, bb);
    h->client = client_socket(h->r->connection);
    spot = stay->skip == 0 && bosh_spot_possible(h->r);
    while (!over && !h->answered && bosh_clock_now() < until &&
           bosh_waiter_block(h->w, &bell, spot ? h : NULL) == APR_SUCCESS) {
        waited = true;
        events = sleep_briefly(h->client, bell, until);
        bosh_waiter_unblock(h->w);
        over = !h->answered && bosh_hold_ask(h, client_says(h, events, bb), why, result);
    }
    if (waited) {
        learn(h->answered || (over && *why == BOSH_WHY_WAKE));
    }
    if (h->answered) {
        bosh_waiter_free(h->w);
        bosh_stay_learn(stay, events != 0);
        stay->ours = false; /* it has been waited for */
        *why = BOSH_WHY_WAKE;
        *result = OK;
    }
    return over || h->answered;
}

/* Whether the client has closed the connection. bosh_hold_peek() may not tell: httpd's filters say "nothing
 * yet" when they meet the end for the first time. */
static bool hung_up(conn_rec *c)
{
    struct pollfd fd = {.fd = client_socket(c), .events = POLLRDHUP};

    return poll(&fd, 1, 0) > 0;
}

/* ---- the contract ---- */

int bosh_hold_wait(request_rec *r, bosh_waiter_t w, apr_time_t deadline, bool soon,
                   const bosh_hold_calls_t *calls, void *baton)
{
    bosh_hold_t h = {
        .r = r, .w = w, .deadline = deadline, .calls = calls, .baton = baton, .rearm = BOSH_NEVER};
    conn_rec *c = r->connection;
    apr_bucket_brigade *bb = apr_brigade_create(r->pool, c->bucket_alloc);
    bosh_client_t client = c->aborted ? BOSH_CLIENT_GONE : BOSH_CLIENT_QUIET;
    bosh_why_t why = BOSH_WHY_WAKE;
    bool over;
    int result;

    over = soon && client == BOSH_CLIENT_QUIET && wait_briefly(&h, bb, &why, &result);
    /* A next request may be in the filters already, where no descriptor tells of it; and a client that has
     * gone meanwhile shall get nothing of what was asked for since bosh_hold_new(). */
    if (!over) {
        if (c->master == NULL) {
            client = hung_up(c) ? BOSH_CLIENT_GONE : bosh_hold_peek(&h, bb);
        }
        over = bosh_hold_ask(&h, client, &why, &result);
    }
    if (over) {
        if (why != BOSH_WHY_GONE) {
            return result;
        }
        give_up_connection(c);
        return OK;
    }
    if (bosh_park_possible(r)) {
        bosh_park_begin(&h);
        return SUSPENDED;
    }
    return wait_blocked(&h, bb);
}

/* Of a seized waiter: answers it if that can be done here. due: when it must have a worker if nothing else happens. */
static bosh_seized_t on_the_spot(bosh_hold_t *h, apr_time_t *due)
{
    bosh_hold_spot_t next;
    bool stays;

    if (!bosh_spot_begin(h->r, h->client)) {
        return BOSH_SEIZED_FOR_WORKER;
    }
    next = h->calls->on_the_spot(h->r, h->baton, &h->deadline);
    stays = bosh_spot_end(h->r, next == BOSH_SPOT_DONE);
    h->answered = next == BOSH_SPOT_DONE;
    *due = h->answered ? bosh_clock_now() + END_AFTER : h->deadline;
    if (h->rearm < *due) {
        *due = h->rearm;
    }
    if (next == BOSH_SPOT_AGAIN) {
        return BOSH_SEIZED_WAITS;
    }
    return h->answered && stays && !h->told_more ? BOSH_SEIZED_ANSWERED : BOSH_SEIZED_FOR_WORKER;
}

void bosh_hold_wake(uint32_t id, uint32_t gen)
{
    bosh_waiter_t w = {id, gen};
    bosh_hold_t *h = bosh_waiter_seize(w);
    apr_time_t due = BOSH_NEVER;

    if (h != NULL) {
        bosh_seized_t what = on_the_spot(h, &due);
        bosh_waiter_release(w, what, due);
    }
}

void bosh_hold_block(void)
{
    bosh_park_no_more();
}

void bosh_hold_register(apr_pool_t *p)
{
    (void)p;
    bosh_waiter_register();
    bosh_park_register();
}

static apr_status_t close_table(void *ignored)
{
    (void)ignored;
    bosh_waiter_close();
    return APR_SUCCESS;
}

apr_status_t bosh_hold_child_init(apr_pool_t *pchild, server_rec *s, bool async, int max_wakes,
                                  int max_blocked, void (*told)(void), void (*kick)(void *),
                                  void *kick_ctx)
{
    bosh_waiter_cfg_t cfg = {
        .max_wakes = max_wakes > 0 ? (uint32_t)max_wakes : 1,
        .max_blocked = max_blocked > 0 ? (uint32_t)max_blocked : 0,
        .kick = kick,
        .kick_ctx = kick_ctx,
    };
    int is_async = 0, can_waitio = 0, workers = 1;
    apr_status_t rv = bosh_waiter_open(&cfg);

    if (rv != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_CRIT, rv, s,
                     "BH302: the table of waiting requests cannot be made");
        return rv;
    }
    told_to_stop = told;
    ap_mpm_query(AP_MPMQ_IS_THREADED, &threaded);
    apr_pool_cleanup_register(pchild, NULL, close_table, apr_pool_cleanup_null);
    async = async && ap_mpm_query(AP_MPMQ_IS_ASYNC, &is_async) == APR_SUCCESS && is_async &&
            ap_mpm_query(AP_MPMQ_CAN_WAITIO, &can_waitio) == APR_SUCCESS && can_waitio;
    ap_mpm_query(AP_MPMQ_MAX_THREADS, &workers);
    bosh_stay_child_init(workers);
    bosh_park_child_init(async);
    if (async && bosh_spot_child_init(pchild) != APR_SUCCESS) {
        return APR_ENOMEM;
    }
    ap_log_error(APLOG_MARK, APLOG_DEBUG, 0, s, "held requests %s",
                 async ? "wait without a thread" : "block a worker each");
    return APR_SUCCESS;
}
