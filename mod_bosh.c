/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mod_bosh: XMPP over BOSH (XEP-0124, XEP-0206) from httpd itself.
 *
 * The module record, its hooks and the life cycle, nothing else:
 *
 *   parent   pre_config    globals to their defaults, the endpoint's mutex-free tables
 *            post_config   limits and upstreams; once: the arena and the eventfds, which stay for the life of
 *                          the parent and hold nothing that points into this (reloadable) object
 *   child    child_init    the loop thread starts, requests may come
 *            child_stopping  the loop drains, and answers held requests in time: flags only, any thread
 *            pchild's end  the loop has given its streams away and is joined, before this object can be
 *                          unloaded
 */
#include <httpd.h>
#include <http_config.h>
#include <http_core.h>
#include <http_log.h>
#include <ap_mpm.h>
#include <mpm_common.h>
#include <scoreboard.h>
#include <apr_shm.h>
#include <apr_strings.h>

#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "bosh_config.h"
#include "bosh_hold.h"
#include "bosh_lock.h"
#include "bosh_loop.h"
#include "bosh_map.h"
#include "bosh_parent.h"
#include "bosh_request.h"
#include "bosh_sizes.h"
#include "bosh_status.h"
#include "bosh_upstream.h"
#include "bosh_whole.h"
#include "bosh_xml.h"

#define RETAINED_KEY "mod_bosh:retained"
#define PAGE         4096
#define ESCROW_BUFFER                                                                              \
    (8 * 1024 * 1024) /* bytes that a socketpair of the escrow may hold: some 10,000 streams */

#define FDS_PER_PEER  5   /* an eventfd and two socketpairs */
#define FDS_FOR_HTTPD 512 /* what is left to listeners, logs and clients at the least */

/* What outlives every reading of the configuration: process pool, no pointer into this object. */
typedef struct retained_t {
    void *mem; /* page-aligned */
    bosh_arena_sizes_t sizes;
    bosh_wakers_t *wakers;
    bool usable;
} retained_t;

static retained_t *retained;
static bosh_arena_t arena;
static bosh_loop_t *loop;
static bool alone; /* httpd -X: no other child will ever come */

static int pre_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp)
{
    (void)pconf;
    (void)plog;
    (void)ptemp;
    bosh_config_reset();
    return OK;
}

static int check_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp, server_rec *s)
{
    (void)pconf;
    (void)plog;
    (void)ptemp;
    return bosh_config_check(s);
}

/* ---- the segment ---- */

/* A socketpair in which descriptors wait for a long time: room for as many as the system gives. */
static bool make_keeper(int sv[2])
{
    int size = ESCROW_BUFFER;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv) != 0) {
        return false;
    }
    if (setsockopt(sv[1], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) != 0) {
        (void)setsockopt(sv[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    }
    return true;
}

/* An eventfd and two socketpairs for one peer; none of them, if that fails. */
static bool make_waker(bosh_wakers_t *w, uint32_t i)
{
    int sv[2], kept[2];

    w->fd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (w->fd[i] < 0) {
        return false;
    }
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv) != 0) {
        close(w->fd[i]);
        return false;
    }
    if (!make_keeper(kept)) {
        close(w->fd[i]);
        close(sv[0]);
        close(sv[1]);
        return false;
    }
    w->in[i] = sv[0];
    w->out[i] = sv[1];
    w->kept_in[i] = kept[0];
    w->kept_out[i] = kept[1];
    return true;
}

static apr_status_t make_wakers(apr_pool_t *p, uint32_t n, bosh_wakers_t **out)
{
    bosh_wakers_t *w = apr_palloc(p, sizeof(*w) + n * sizeof(int));

    w->n = n;
    w->in = apr_palloc(p, 4 * n * sizeof(int));
    w->out = w->in + n;
    w->kept_in = w->out + n;
    w->kept_out = w->kept_in + n;
    for (uint32_t i = 0; i < n; i++) {
        if (!make_waker(w, i)) {
            apr_status_t rv = apr_get_os_error();
            while (i-- > 0) {
                close(w->fd[i]);
                close(w->in[i]);
                close(w->out[i]);
                close(w->kept_in[i]);
                close(w->kept_out[i]);
            }
            return rv;
        }
    }
    *out = w;
    return APR_SUCCESS;
}

/*
 * Each peer takes FDS_PER_PEER descriptors in every process. Where the soft limit is too low for them and for
 * httpd's own, it is raised; where the hard one is, there are fewer peers.
 */
static void fit_descriptors(bosh_arena_sizes_t *sizes)
{
    struct rlimit lim;
    rlim_t need = (rlim_t)sizes->peers * FDS_PER_PEER + FDS_FOR_HTTPD;

    if (getrlimit(RLIMIT_NOFILE, &lim) != 0 || lim.rlim_cur >= need) {
        return;
    }
    lim.rlim_cur = lim.rlim_max < need ? lim.rlim_max : need;
    (void)setrlimit(RLIMIT_NOFILE, &lim);
    if (lim.rlim_cur < need) {
        rlim_t fit = lim.rlim_cur > 2 * FDS_FOR_HTTPD
                         ? (lim.rlim_cur - FDS_FOR_HTTPD) / FDS_PER_PEER
                         : FDS_FOR_HTTPD / FDS_PER_PEER;
        sizes->peers = fit > 8 ? (uint32_t)fit : 8;
    }
}

/* The first start: shared memory, eventfds and socketpairs, in the process pool. */
static apr_status_t make_retained(server_rec *s, const bosh_arena_sizes_t *sizes, uint64_t bytes)
{
    apr_pool_t *p = s->process->pool;
    apr_shm_t *shm;
    apr_status_t rv;

    retained = apr_pcalloc(p, sizeof(*retained));
    /* APR keeps a word of its own at the start of the segment: one page more, and our own alignment. */
    rv = apr_shm_create(&shm, (apr_size_t)bytes + PAGE, NULL, p);
    if (rv == APR_SUCCESS) {
        retained->mem =
            (void *)(((uintptr_t)apr_shm_baseaddr_get(shm) + PAGE - 1) & ~(uintptr_t)(PAGE - 1));
        rv = bosh_arena_format(retained->mem, sizes, &arena);
    }
    if (rv == APR_SUCCESS) {
        rv = bosh_lock_init(&arena);
    }
    if (rv == APR_SUCCESS) {
        rv = make_wakers(p, sizes->peers, &retained->wakers);
    }
    if (rv == APR_SUCCESS) {
        retained->sizes = *sizes;
        retained->usable = true;
        /* Copies the key: this module may be another one, at another place, when it is looked for. */
        apr_pool_userdata_set(retained, RETAINED_KEY, apr_pool_cleanup_null, p);
    }
    return rv;
}

/* A later reading: the segment stays as it is, whatever the configuration now says about its size. */
static void keep_retained(server_rec *s, const bosh_arena_sizes_t *sizes)
{
    if (bosh_arena_attach(retained->mem, &arena) != APR_SUCCESS) {
        retained->usable = false;
        bosh_arena_abandon(retained->mem);
        ap_log_error(
            APLOG_MARK, APLOG_ERR, 0, s,
            "BH005: the shared memory was laid out by another version of mod_bosh; requests are "
            "answered 503 until httpd is stopped and started");
        return;
    }
    if (sizes->sessions != retained->sizes.sessions || sizes->chunks != retained->sizes.chunks ||
        sizes->slots != retained->sizes.slots) {
        ap_log_error(APLOG_MARK, APLOG_NOTICE, 0, s,
                     "BoshMaxSessions, BoshMemory and BoshMaxRequests size the shared memory and "
                     "change when "
                     "httpd is stopped and started; it goes on with %u sessions",
                     retained->sizes.sessions);
    }
}

/* ---- the parent ---- */

/*
 * A child that stops stays until its streams have been given to one of the next generation, and with TLS until
 * they have ended or BoshDrainTimeout has passed. On event it keeps its place in the scoreboard so long; worker
 * hands the place on. On prefork the limit and the number of children wanted are one, so only what ends
 * because of that can be told.
 */
static void check_slots(server_rec *s)
{
    int places = 0, used = 0, async = 0;
    bool linger = bosh_upstream_has_tls() && bosh_config_global()->drain_timeout > 0;

    ap_mpm_query(AP_MPMQ_HARD_LIMIT_DAEMONS, &places);
    ap_mpm_query(AP_MPMQ_MAX_DAEMONS, &used);
    ap_mpm_query(AP_MPMQ_IS_ASYNC, &async);
    if (async && places < 2 * used && (linger || places <= used)) {
        ap_log_error(
            APLOG_MARK, APLOG_WARNING, 0, s,
            "BH011: ServerLimit (%d) leaves no room for the children of the generation before "
            "during a graceful restart, which %s; set it to %d",
            places,
            linger ? "have to end sessions whose stream has TLS when a new child lacks it"
                   : "will take seconds",
            2 * used);
    }
}

static int post_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp, server_rec *s)
{
    bosh_arena_sizes_t sizes;
    uint64_t bytes;
    apr_status_t rv;
    void *data = NULL;

    (void)plog;
    (void)ptemp;
    if (ap_state_query(AP_SQ_MAIN_STATE) == AP_SQ_MS_CREATE_PRE_CONFIG) {
        return OK; /* the trial pass; another follows */
    }
    bosh_config_fill(s);
    rv = bosh_upstream_number(pconf, s);
    if (rv != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_CRIT, rv, s, "BH006: too many BoshUpstream targets");
        return HTTP_INTERNAL_SERVER_ERROR;
    }
    bosh_sizes_of(s, &sizes);
    apr_pool_userdata_get(&data, RETAINED_KEY, s->process->pool);
    retained = data;
    if (retained != NULL) {
        keep_retained(s, &sizes);
        if (retained->usable && bosh_config_global()->quick_restart) {
            bosh_parent_start_nudging(pconf, s);
        }
        return OK;
    }
    check_slots(s);
    fit_descriptors(&sizes);
    bytes = bosh_arena_size(&sizes);
    if (bytes == 0 || sizes.chunks < 1024) {
        ap_log_error(
            APLOG_MARK, APLOG_CRIT, 0, s,
            "BH007: BoshMemory is too small for %u sessions; raise it or lower BoshMaxSessions",
            sizes.sessions);
        return HTTP_INTERNAL_SERVER_ERROR;
    }
    rv = make_retained(s, &sizes, bytes);
    if (rv != APR_SUCCESS) {
        ap_log_error(
            APLOG_MARK, APLOG_CRIT, rv, s,
            "BH008: cannot make %" APR_UINT64_T_FMT " bytes of shared memory and %u eventfds for "
            "mod_bosh; lower BoshMaxSessions or BoshMemory, or raise the limit of open files",
            bytes, sizes.peers);
        return HTTP_INTERNAL_SERVER_ERROR;
    }
    ap_log_error(APLOG_MARK, APLOG_INFO, 0, s,
                 "mod_bosh " BOSH_VERSION ": room for %u sessions in %" APR_UINT64_T_FMT
                 " MB of shared memory, used as needed",
                 sizes.sessions, bytes >> 20);
    return OK;
}

/* ---- the child ---- */

static void log_line(void *ctx, bosh_log_t level, const char *line)
{
    static const int levels[] = {APLOG_ERR, APLOG_WARNING, APLOG_NOTICE, APLOG_INFO, APLOG_DEBUG};

    ap_log_error(APLOG_MARK, levels[level], 0, (server_rec *)ctx, "%s", line);
}

static uint32_t running_generation(void)
{
    return (uint32_t)ap_get_scoreboard_global()->running_generation;
}

/* How many workers may sit in a blocking wait, and how many held requests may be under way to a worker. */
static void worker_bounds(int *wakes, int *blocked)
{
    int threads = 1;

    ap_mpm_query(AP_MPMQ_MAX_THREADS, &threads);
    *wakes = threads > 2 ? threads / 2 : 1;
    *blocked =
        threads > 1 ? threads - (threads + 3) / 4 : 0; /* a quarter stays free; prefork: no bound */
}

/* Without a seed the parsers only cost more. */
static void seed_parsers(void)
{
    unsigned long seed = 0;

    (void)apr_generate_random_bytes((unsigned char *)&seed, sizeof(seed));
    bosh_xml_seed(seed);
}

/* A stream in escrow counts against this limit, whose lower bound is for programs that use select(). */
static void raise_file_limit(void)
{
    struct rlimit r;

    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &r);
    }
}

/* Told to stop, but not at once: the loop finds out why, and what that means for held requests. */
static void stop_in_time(void)
{
    if (alone) {
        bosh_hold_stop();
    } else {
        bosh_loop_drain(loop);
    }
}

static void child_init(apr_pool_t *pchild, server_rec *s)
{
    const bosh_global_t *global = bosh_config_global();
    bosh_loop_cfg_t cfg = {0};
    int wakes, blocked, generation = 0;
    apr_status_t rv;

    if (retained == NULL || !retained->usable) {
        bosh_request_child_init(pchild, NULL);
        return;
    }
    alone = ap_exists_config_define("ONE_PROCESS") || ap_exists_config_define("DEBUG");
    ap_mpm_query(AP_MPMQ_GENERATION, &generation);
    worker_bounds(&wakes, &blocked);
    cfg.arena = &arena;
    cfg.wakers = retained->wakers;
    cfg.limits = &bosh_config_of(s)->limits;
    cfg.targets = bosh_upstream_targets(&cfg.ntargets);
    cfg.resolver = bosh_upstream_resolvers();
    cfg.max_stanza = (size_t)global->max_stanza;
    cfg.generation = (uint32_t)generation;
    cfg.escrow = global->escrow != 0;
    cfg.drain_timeout = apr_time_from_sec(global->drain_timeout);
    cfg.wake = bosh_hold_wake;
    cfg.wake_all = bosh_hold_wake_all;
    cfg.next_deadline = bosh_hold_next_deadline;
    cfg.expire = bosh_hold_expire;
    cfg.running_generation = running_generation;
    cfg.crowded = bosh_parent_crowded;
    cfg.parent = bosh_parent_look;
    cfg.release = bosh_hold_stop;
    cfg.stand_in =
        blocked > 0; /* not on prefork, which ends a child from within a signal handler */
    cfg.log = log_line;
    cfg.log_ctx = s;
    bosh_parent_child_init(pchild);
    raise_file_limit();
    seed_parsers();
    rv = bosh_loop_start(&loop, &cfg, pchild);
    if (rv == APR_SUCCESS) {
        rv = bosh_hold_child_init(pchild, s, global->async != 0, wakes, blocked, stop_in_time,
                                  bosh_loop_kick, loop);
    }
    if (rv != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_ERR, rv, s, "BH009: this child cannot serve BOSH: %s",
                     rv == APR_ENOSPC ? "more children than the shared memory was made for"
                                      : "its loop thread did not start");
        loop = NULL;
    }
    bosh_request_child_init(pchild, loop);
    bosh_status_child_init(loop);
}

/* On event this may run on the listener: flags and one write, nothing that waits. */
static void child_stopping(apr_pool_t *pool, int graceful)
{
    int threaded = 0;

    (void)pool;
    if (loop == NULL) {
        return;
    }
    bosh_hold_block();
    /* prefork always says 0; its loop finds out for itself (bosh_loop_retire). */
    ap_mpm_query(AP_MPMQ_IS_THREADED, &threaded);
    if (graceful || !threaded) {
        stop_in_time();
    } else {
        bosh_hold_stop();
    }
}

static void register_hooks(apr_pool_t *p)
{
    bosh_hold_register(p);
    bosh_map_register();
    bosh_whole_register();
    bosh_status_register(p);
    ap_hook_pre_config(pre_config, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_check_config(check_config, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_post_config(post_config, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_child_init(child_init, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_child_stopping(child_stopping, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_handler(bosh_request_handler, NULL, NULL, APR_HOOK_MIDDLE);
}

AP_DECLARE_MODULE(bosh) = {
    STANDARD20_MODULE_STUFF, NULL,           NULL, bosh_config_create, bosh_config_merge,
    bosh_config_directives,  register_hooks, 0,
};
