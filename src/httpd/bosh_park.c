/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_park.c owns what httpd must not know about a parked request: that the descriptor the event
 * MPM polls is not the client's socket. Its hooks run on the worker that has the connection, or
 * wherever the MPM closes it; no other thread touches anything here.
 *
 *     handler --SUSPENDED--> core: CONN_STATE_SUSPENDED --> our wrapper: CONN_STATE_ASYNC_WAITIO
 *        --> suspend hook: the socket's descriptor is replaced
 *        --> the MPM polls it; no thread has the connection
 *        --> readable: the MPM gives a worker --> resume hook: the socket's own descriptor is back
 *        --> our wrapper, called again: asks fn; answers and ends the request, or parks it again
 *
 * What stands in is an epoll descriptor with two entries, the client's socket and a bell. So one poll
 * by the MPM covers the wake (the bell is rung, by any thread), the hang-up and the next request. It is
 * made at the connection's first hold and lives as long as the connection; the bell is one of many
 * connections, so it is the only descriptor that a hold costs.
 *
 * Why this is sound: the MPM polls the very apr_socket_t that ap_get_conn_socket() returns, and APR
 * reads the descriptor out of it when it is added and when it is removed. The suspend hook is the
 * last thing before the add, the resume hook the first thing after the remove, whatever the reason
 * of the resume; a cleanup of the connection's pool resumes as well. Epoll is level-triggered: a
 * wake between suspend and add is not lost. Between suspend and resume nobody has the connection,
 * so there is nothing to race with.
 *
 * Invariants: `swapped` exactly between the two hooks of a parked connection; `holding` from the
 * handler's SUSPENDED to the end of that request; a parked connection's waiter is PARKED exactly
 * while `swapped`.
 */
#include "bosh_park.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <apr_atomic.h>
#include <apr_portable.h>

#include <http_connection.h>
#include <http_core.h>
#include <http_log.h>
#include <http_request.h>
#include <mpm_common.h>
#include <scoreboard.h>

#include "bosh_bell.h"
#include "bosh_clock.h"
#include "bosh_spot.h"
#include "bosh_stay.h"

extern module AP_MODULE_DECLARE_DATA bosh_module;
APLOG_USE_MODULE(bosh);

/* A parked connection is under the virtual host's Timeout like one that is being read. It is taken
 * out and put back this long before, but never later than at three quarters of it. */
#define REARM_BEFORE apr_time_from_sec(4)

/* With less Timeout than this the re-arming costs more than a blocked thread. */
#define MIN_TIMEOUT apr_time_from_sec(1)

/*
 * A request that has waited this long will go on waiting, more often than not: until it is answered, its connection
 * needs a third of the memory that it has come to. Each time costs a wake, and 140 us with what has to be allocated
 * again: where the answer comes sooner than WORTH after it, the next one has to wait twice as long.
 */
#define OLD apr_time_from_sec(3)
#define OLDEST                                                                                     \
    apr_time_from_sec(24) /* a hold of 55 s, the default, is worth it then: back to OLD */
#define WORTH apr_time_from_sec(15)

/* Blocks of a connection's allocator: what headers, body and answer of its requests have needed beyond what a
 * waiting request occupies. */
#define BLOCK      (8192 - APR_MEMNODE_T_SIZE)
#define MAX_BLOCKS 5

/* Our part of a connection, in its pool; also of one that never holds anything. */
typedef struct park_t {
    bool in_wrapper; /* our process_connection hook is on the stack: SUSPENDED comes back to it */
    bool holding;
    bool swapped;
    bool flying; /* a wake of this connection has not landed yet */
    bool watch_input;
    bool spot;            /* this hold may be answered on the spot */
    apr_time_t began;     /* the hold */
    apr_time_t trimmed;   /* during it, or 0 */
    apr_time_t old;       /* how long a hold of this connection lasts before it is trimmed */
    int epoll;            /* -1 until the first hold */
    int wake;             /* the bell in it, which is not ours alone; -1 likewise */
    apr_os_sock_t client; /* the socket's own descriptor */
    apr_interval_time_t timeout;
    bosh_hold_t hold;
    bosh_stay_t stay;
    apr_bucket_brigade *bb;
} park_t;

static bool async;     /* set once in child_init */
static uint64_t trims; /* atomic */
static int no_more;    /* set once, when the child stops; atomic */
static volatile apr_uint32_t said_no_descriptors;

static park_t *park_of(const conn_rec *c)
{
    return ap_get_module_config(c->conn_config, &bosh_module);
}

/* ---- descriptors ---- */

static apr_status_t close_descriptors(void *data)
{
    park_t *p = data;

    if (p->flying) {
        bosh_waiter_landed();
    }
    if (p->epoll >= 0) {
        close(p->epoll);
    }
    if (p->wake >= 0) {
        bosh_bell_leave(p->wake);
    }
    p->flying = false;
    p->epoll = p->wake = -1;
    return APR_SUCCESS;
}

static apr_status_t watch(park_t *p, int op, int fd, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.fd = fd};

    return epoll_ctl(p->epoll, op, fd, &ev) == 0 ? APR_SUCCESS : errno;
}

/* Once a connection. The client's socket stays in for good; the kernel drops it when it is
 * closed. */
static apr_status_t make_descriptors(park_t *p, conn_rec *c, apr_os_sock_t client)
{
    apr_status_t rv;

    p->client = client;
    p->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (p->epoll < 0) {
        return errno;
    }
    rv = bosh_bell_join(p->epoll, &p->wake);
    if (rv == APR_SUCCESS) {
        rv = watch(p, EPOLL_CTL_ADD, client, EPOLLIN | EPOLLRDHUP);
    }
    if (rv != APR_SUCCESS) {
        close_descriptors(p);
        return rv;
    }
    p->watch_input = true;
    p->bb = apr_brigade_create(c->pool, c->bucket_alloc);
    apr_pool_cleanup_register(c->pool, p, close_descriptors, apr_pool_cleanup_null);
    return APR_SUCCESS;
}

/* What the client did while nobody looked. Takes the report of both entries, by which the bell is disarmed. */
static bosh_client_t look(park_t *p)
{
    struct epoll_event ev[2];
    uint32_t events = 0;
    int n = epoll_wait(p->epoll, ev, 2, 0);

    for (int i = 0; i < n; i++) {
        if (ev[i].data.fd != p->wake) {
            events |= ev[i].events;
        }
    }
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
        return BOSH_CLIENT_GONE;
    }
    return (events & EPOLLIN) ? bosh_hold_peek(&p->hold, p->bb) : BOSH_CLIENT_QUIET;
}

/* ---- the way in ---- */

/*
 * The MPM takes the Timeout of one of these two, depending on whether the virtual host has a
 * KeepAliveTimeout of its own; the smaller one is right in both cases.
 */
static apr_interval_time_t timeout_of(const request_rec *r)
{
    apr_interval_time_t a = r->server->timeout, b = r->connection->base_server->timeout;

    return a < b ? a : b;
}

/*
 * The listener leaves when it sees no connection of a stopping child, and may not have seen one that it has
 * just accepted and no worker has begun with. Parked, that would never be looked at again.
 */
void bosh_park_no_more(void)
{
    __atomic_store_n(&no_more, 1, __ATOMIC_RELEASE);
}

static bool stopping(void)
{
    return __atomic_load_n(&no_more, __ATOMIC_ACQUIRE) != 0;
}

/*
 * Without our wrapper on the stack nobody would turn SUSPENDED into a state the MPM can get back from. A stream of
 * HTTP/2, a subrequest, and the target of an internal redirect return to callers that do not know SUSPENDED;
 * behind a clogging filter the MPM does not wait for the descriptor.
 */
bool bosh_park_allowed(const request_rec *r)
{
    conn_rec *c = r->connection;
    const park_t *p = async ? park_of(c) : NULL;

    return p != NULL && p->in_wrapper && !p->holding && ap_get_conn_socket(c) != NULL &&
           c->cs != NULL && c->master == NULL && !c->clogging_input_filters && r->main == NULL &&
           r->prev == NULL && timeout_of(r) >= MIN_TIMEOUT && !stopping();
}

bool bosh_park_possible(const request_rec *r)
{
    conn_rec *c = r->connection;
    park_t *p = park_of(c);
    apr_os_sock_t client;
    apr_status_t rv;

    if (!bosh_park_allowed(r)) {
        return false;
    }
    if (p->epoll >= 0) {
        return true;
    }
    rv = apr_os_sock_get(&client, ap_get_conn_socket(c));
    if (rv == APR_SUCCESS) {
        rv = make_descriptors(p, c, client);
    }
    if (rv != APR_SUCCESS && apr_atomic_xchg32(&said_no_descriptors, 1) == 0) {
        ap_log_rerror(
            APLOG_MARK, APLOG_WARNING, rv, r,
            "BH303: no descriptors to wait without a thread; the request blocks its worker. "
            "Raise the limit of open files of httpd: a session takes three (said once in "
            "a process)");
    }
    return rv == APR_SUCCESS;
}

uint64_t bosh_hold_trims(void)
{
    return __atomic_load_n(&trims, __ATOMIC_RELAXED);
}

void bosh_park_begin(const bosh_hold_t *h)
{
    park_t *p = park_of(h->r->connection);

    p->hold = *h;
    p->hold.client = p->client;
    p->holding = true;
    p->trimmed = 0;
    p->began = bosh_clock_now();
    p->timeout = timeout_of(h->r);
    p->spot = bosh_spot_possible(h->r);
}

bosh_stay_t *bosh_park_stay(const request_rec *r)
{
    park_t *p = async ? park_of(r->connection) : NULL;

    return p != NULL ? &p->stay : NULL;
}

bosh_hold_t *bosh_park_find(const request_rec *r)
{
    park_t *p = async ? park_of(r->connection) : NULL;

    return p != NULL && p->holding && p->hold.r == r ? &p->hold : NULL;
}

void bosh_park_forget(const request_rec *r)
{
    if (bosh_park_find(r) != NULL) {
        park_of(r->connection)->holding = false;
    }
}

/* ---- the worker that has come back ---- */

static void land(park_t *p)
{
    if (!p->flying) {
        return;
    }
    p->flying = false;
    bosh_waiter_landed();
}

/* Of a hold that was trimmed. */
static void learn(park_t *p)
{
    if (bosh_clock_now() - p->trimmed >= WORTH) {
        p->old = OLD;
    } else if (p->old < OLDEST) {
        p->old *= 2;
    }
}

/* What the core does when a handler has returned. The request is gone after it. */
static void end_request(conn_rec *c, park_t *p, bosh_why_t why, int result)
{
    request_rec *r = p->hold.r;

    p->holding = false;
    if (p->trimmed != 0) {
        learn(p);
    }
    if (why == BOSH_WHY_GONE) {
        c->aborted = 1; /* before the log entry is written */
        c->keepalive = AP_CONN_CLOSE;
    } else {
        ap_die(result, r); /* OK: finishes the response */
    }
    ap_process_request_after_handler(r); /* sets c->cs->state */
    if (why == BOSH_WHY_GONE) {
        c->cs->state = CONN_STATE_LINGER;
    }
}

/* The rest of what bosh_park_on_the_spot() has begun. */
static bool end_answered(conn_rec *c, park_t *p)
{
    if (!p->hold.answered) {
        return false;
    }
    if (p->flying) {
        (void)look(p); /* disarms the bell */
    }
    bosh_waiter_free(p->hold.w);
    p->stay.ours = false; /* either its client has sent the next request, or it takes its time */
    end_request(c, p, BOSH_WHY_WAKE, OK);
    return true;
}

/* Leaves the connection to the MPM until somebody comes. */
static void wait_again(conn_rec *c, park_t *p)
{
    /* Input that fn has been told of would keep the descriptor readable for good. */
    if (p->watch_input == p->hold.told_more) {
        p->watch_input = !p->hold.told_more;
        watch(p, EPOLL_CTL_MOD, p->client, p->watch_input ? EPOLLIN | EPOLLRDHUP : EPOLLRDHUP);
    }
    c->cs->state = CONN_STATE_ASYNC_WAITIO;
    c->cs->sense = CONN_SENSE_WANT_READ;
}

/*
 * Gives back what lies on the free list of the connection's allocator, which keeps up to MaxMemFree: the blocks are
 * taken from it and freed while it may keep nothing. Such as are not there are made by that, and go with the others.
 */
static void trim(conn_rec *c)
{
    apr_allocator_t *a = apr_pool_allocator_get(c->pool);
    apr_memnode_t *list = NULL;

    for (int i = 0; i < MAX_BLOCKS; i++) {
        apr_memnode_t *node = apr_allocator_alloc(a, BLOCK);
        if (node != NULL) {
            node->next = list;
            list = node;
        }
    }
    if (list != NULL) {
        apr_allocator_max_free_set(a, 1);
        apr_allocator_free(a, list);
        apr_allocator_max_free_set(a, ap_max_mem_free);
    }
}

static void resumed(conn_rec *c, park_t *p)
{
    bosh_why_t why;
    int result;

    /* The scoreboard says "idle" of a worker that the MPM has just given a connection. */
    ap_update_child_status(c->sbh, SERVER_BUSY_WRITE, p->hold.r);
    if (ap_extended_status) {
        ap_time_process_request(c->sbh, START_PREQUEST);
    }
    if (end_answered(c, p)) {
        return;
    }
    if (bosh_hold_ask(&p->hold, look(p), &why, &result)) {
        end_request(c, p, why, result);
        return;
    }
    if (p->trimmed == 0 && bosh_clock_now() - p->began >= p->old) {
        trim(c);
        p->trimmed = bosh_clock_now();
        __atomic_fetch_add(&trims, 1, __ATOMIC_RELAXED);
    }
    wait_again(c, p);
}

/*
 * The request was not left to us: something between the handler and our wrapper has taken SUSPENDED
 * for an answer and ended, or will end, the request itself. We can only let go of it.
 */
static void disowned(conn_rec *c, park_t *p)
{
    bosh_hold_t h = p->hold;
    apr_time_t deadline = BOSH_NEVER;
    int result;

    p->holding = false;
    ap_log_cerror(APLOG_MARK, APLOG_ERR, 0, c,
                  "BH304: another module ended a request that was to wait (connection state %d). "
                  "Set BoshAsync off",
                  (int)c->cs->state);
    if (bosh_waiter_free(h.w)) {
        h.calls->fn(h.r, h.baton, BOSH_WHY_GONE, &deadline, &result);
    }
}

/* ---- hooks ---- */

/* Lets the other modules process the connection. */
static int process(conn_rec *c, park_t *p)
{
    int rc;

    land(p); /* the MPM goes straight on to a pipelined request: no suspend hook in between */
    p->in_wrapper = true;
    p->stay.ours = false;
    rc = ap_run_process_connection(c);
    p->in_wrapper = false;
    if (p->holding) {
        if (c->cs->state == CONN_STATE_SUSPENDED) {
            wait_again(c, p); /* a wake that has come meanwhile brings it back, with a look first */
        } else {
            disowned(c, p);
        }
    }
    return rc;
}

/* Runs first and calls the whole hook again from inside, so that it sees what the others return. */
static int process_connection(conn_rec *c)
{
    park_t *p;
    int rc = OK;

    if (!async || c->master != NULL || c->cs == NULL) {
        return DECLINED;
    }
    p = park_of(c);
    if (p == NULL) {
        p = apr_pcalloc(c->pool, sizeof(*p));
        p->epoll = p->wake = -1;
        p->old = OLD;
        ap_set_module_config(c->conn_config, &bosh_module, p);
    }
    if (p->in_wrapper) {
        return DECLINED;
    }
    bosh_stay_begin();
    if (p->holding) {
        resumed(c, p);
    } else {
        rc = process(c, p);
    }
    if (!p->holding && rc == OK) {
        land(p);
        bosh_stay(c, &p->stay, stopping());
    }
    bosh_stay_end();
    return rc;
}

static void suspend_connection(conn_rec *c, request_rec *r)
{
    park_t *p = async && c->master == NULL ? park_of(c) : NULL;
    apr_socket_t *s;
    apr_time_t now, due;

    (void)r;
    if (p == NULL) {
        return;
    }
    land(p); /* before the park below, which may want to start a wake of its own */
    if (!p->holding || p->swapped || c->cs->state != CONN_STATE_ASYNC_WAITIO) {
        return;
    }
    s = ap_get_conn_socket(c);
    apr_os_sock_put(&s, &p->epoll, c->pool);
    p->swapped = true;
    now = bosh_clock_now();
    due = now + p->timeout - (p->timeout < 4 * REARM_BEFORE ? p->timeout / 4 : REARM_BEFORE);
    if (p->trimmed == 0 && p->began + p->old < due) {
        due = p->began + p->old;
    }
    p->hold.rearm = due;
    bosh_waiter_park(p->hold.w, (bosh_bell_t){.fd = p->wake, .set = p->epoll},
                     due < p->hold.deadline ? due : p->hold.deadline, p->spot ? &p->hold : NULL);
}

static void resume_connection(conn_rec *c, request_rec *r)
{
    park_t *p = async && c->master == NULL ? park_of(c) : NULL;
    apr_socket_t *s;
    apr_os_sock_t fd = -1;

    (void)r;
    if (p == NULL || !p->swapped) {
        return;
    }
    if (bosh_waiter_unpark(p->hold.w)) {
        p->flying = true;
    }
    p->swapped = false;
    s = ap_get_conn_socket(c);
    if (apr_os_sock_get(&fd, s) == APR_SUCCESS && fd == p->epoll) {
        apr_os_sock_put(&s, &p->client, c->pool);
        return;
    }
    /* The MPM could not poll and has closed what it took for the client: our descriptor, whose
     * number may be somebody else's by now. The client's own is left to us; the connection's pool
     * is being cleared. */
    p->epoll = -1;
    close(p->client);
}

/* The MPM closes the connection while the request waits, e.g. at its Timeout because the loop was
 * too late with re-arming. Ends the request while it can still be logged. */
static int pre_close_connection(conn_rec *c)
{
    park_t *p = async && c->master == NULL ? park_of(c) : NULL;
    bosh_why_t why;
    int result;

    if (p != NULL && p->holding && c->cs != NULL && !end_answered(c, p) &&
        bosh_hold_ask(&p->hold, BOSH_CLIENT_GONE, &why, &result)) {
        end_request(c, p, why, result);
    }
    return OK;
}

void bosh_park_register(void)
{
    ap_hook_process_connection(process_connection, NULL, NULL, APR_HOOK_REALLY_FIRST);
    ap_hook_suspend_connection(suspend_connection, NULL, NULL, APR_HOOK_REALLY_LAST);
    ap_hook_resume_connection(resume_connection, NULL, NULL, APR_HOOK_REALLY_FIRST);
    ap_hook_pre_close_connection(pre_close_connection, NULL, NULL, APR_HOOK_REALLY_FIRST);
}

void bosh_park_child_init(bool possible)
{
    async = possible;
}
