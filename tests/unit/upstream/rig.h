/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A loop as a child of httpd runs it, without httpd: a shared arena, eventfds, the thread. The test's main
 * thread plays both ends: the workers (requests come from numbered waiters, which the loop wakes) and the
 * XMPP server (blocking sockets, every wait bounded by WAIT_MS).
 */
#ifndef RIG_H
#define RIG_H

#include <check.h>
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <apr_general.h>

#include "bosh_clock.h"
#include "bosh_loop.h"

#define WAIT_MS 10000
#define WAITERS 4096
#define TARGETS 4

#define STREAM_HEAD                                                                                \
    "<?xml version='1.0'?><stream:stream xmlns='jabber:client' "                                   \
    "xmlns:stream='http://etherx.jabber.org/streams' id='s1' from='example.com' version='1.0'>"
#define FEATURES                                                                                   \
    "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN"       \
    "</mechanism></mechanisms></stream:features>"
#define CLIENT_HEAD                                                                                \
    "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' "        \
    "to='example.com' version='1.0' xml:lang='en'>"

/* One HTTP request, as the httpd layer would carry it. */
typedef struct call_t {
    bosh_verdict_t v;
    bosh_holder_t holder;
    unsigned wakes; /* guarded by rig_t.mutex */
    unsigned seen;
    char *answer;
} call_t;

/* What fork() shares. */
typedef struct common_t {
    bosh_arena_t arena; /* this process's handle */
    bosh_wakers_t *wakers;
    void *mem;
    uint64_t bytes;
} common_t;

typedef struct rig_t {
    apr_pool_t *pool;
    bosh_lock_t *lock; /* the loop's; before there is one, `own` */
    bosh_lock_t own;
    bosh_loop_t *loop;
    uint32_t me; /* the loop's peer */
    bosh_loop_cfg_t cfg;
    bosh_limits_t lim;
    bosh_target_t target[TARGETS];
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    call_t call[WAITERS];
    unsigned ncalls;
    unsigned wake_alls, expires, warnings;
    apr_time_t deadline; /* what next_deadline() says */
    char last_warning[800];
    bool loud;
} rig_t;

static common_t C;
static rig_t R;

/* A session under test and its server side. */
typedef struct chat_t {
    char sid[BOSH_SID_LEN + 1];
    bosh_ix index;
    uint32_t serial;
    uint64_t rid;
    int fd;
    int held; /* the request that waits */
} chat_t;

/* ---- callbacks: loop thread ---- */

static inline void on_wake(uint32_t id, uint32_t gen)
{
    pthread_mutex_lock(&R.mutex);
    if (gen == 7 && id < WAITERS) {
        R.call[id].wakes++;
        pthread_cond_broadcast(&R.cond);
    }
    pthread_mutex_unlock(&R.mutex);
}

static inline void on_wake_all(void)
{
    pthread_mutex_lock(&R.mutex);
    R.wake_alls++;
    for (unsigned i = 0; i < WAITERS; i++) {
        R.call[i].wakes++;
    }
    pthread_cond_broadcast(&R.cond);
    pthread_mutex_unlock(&R.mutex);
}

static inline apr_time_t on_deadline(void)
{
    return __atomic_load_n(&R.deadline, __ATOMIC_SEQ_CST);
}

static inline void on_expire(apr_time_t now)
{
    pthread_mutex_lock(&R.mutex);
    if (R.deadline <= now) {
        __atomic_store_n(&R.deadline, BOSH_NEVER, __ATOMIC_SEQ_CST);
        R.expires++;
        pthread_cond_broadcast(&R.cond);
    }
    pthread_mutex_unlock(&R.mutex);
}

static inline void on_log(void *ctx, bosh_log_t level, const char *line)
{
    (void)ctx;
    pthread_mutex_lock(&R.mutex);
    if (level <= BOSH_LOG_WARNING) {
        R.warnings++;
        snprintf(R.last_warning, sizeof(R.last_warning), "%s", line);
    }
    if (R.loud || getenv("BOSH_TEST_LOG") != NULL) {
        fprintf(stderr, "%d: %s\n", level, line);
    }
    pthread_cond_broadcast(&R.cond);
    pthread_mutex_unlock(&R.mutex);
}

static inline unsigned warnings(void)
{
    unsigned n;

    pthread_mutex_lock(&R.mutex);
    n = R.warnings;
    pthread_mutex_unlock(&R.mutex);
    return n;
}

static inline bool warned(const char *text)
{
    bool found;

    pthread_mutex_lock(&R.mutex);
    found = strstr(R.last_warning, text) != NULL;
    pthread_mutex_unlock(&R.mutex);
    return found;
}

/* ---- the arena and the loop ---- */

static inline void arena_open(uint32_t sessions, uint32_t chunks, uint32_t peers)
{
    bosh_arena_sizes_t sizes = {.peers = peers, .sessions = sessions, .slots = 8, .chunks = chunks};

    apr_initialize();
    C.bytes = bosh_arena_size(&sizes);
    C.mem = mmap(NULL, C.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(C.mem, MAP_FAILED);
    ck_assert_int_eq(bosh_arena_format(C.mem, &sizes, &C.arena), APR_SUCCESS);
    ck_assert_int_eq(bosh_lock_init(&C.arena), APR_SUCCESS);
    C.wakers = calloc(1, sizeof(*C.wakers) + peers * sizeof(int));
    C.wakers->n = peers;
    C.wakers->in = calloc(2 * peers, sizeof(int));
    C.wakers->out = C.wakers->in + peers;
    for (uint32_t i = 0; i < peers; i++) {
        int sv[2];
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv),
                         0);
        C.wakers->in[i] = sv[0];
        C.wakers->out[i] = sv[1];
        C.wakers->fd[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        ck_assert_int_ge(C.wakers->fd[i], 0);
    }
}

static inline void rig_init(void)
{
    memset(&R, 0, sizeof(R));
    R.deadline = BOSH_NEVER;
    R.own.arena = &C.arena;
    R.lock = &R.own;
    pthread_mutex_init(&R.mutex, NULL);
    pthread_cond_init(&R.cond, NULL);
    R.lim = (bosh_limits_t){.max_wait = 60,
                            .max_hold = 2,
                            .max_requests = 3,
                            .inactivity = 30,
                            .polling = 5,
                            .maxpause = 120,
                            .queue_size = 1 << 20,
                            .answer_size = 64 * 1024,
                            .max_repeats = 5};
    R.cfg = (bosh_loop_cfg_t){.arena = &C.arena,
                              .wakers = C.wakers,
                              .limits = &R.lim,
                              .targets = R.target,
                              .ntargets = TARGETS,
                              .max_stanza = 256 * 1024,
                              .stand_in = true,
                              .wake = on_wake,
                              .wake_all = on_wake_all,
                              .next_deadline = on_deadline,
                              .expire = on_expire,
                              .log = on_log};
    for (int i = 0; i < TARGETS; i++) {
        R.target[i].domain = "example.com";
        R.target[i].timeout = apr_time_from_sec(10);
    }
}

/* After rig_init() and whatever the test changes in R. */
static inline void loop_open(void)
{
    apr_pool_create(&R.pool, NULL);
    ck_assert_int_eq(bosh_loop_start(&R.loop, &R.cfg, R.pool), APR_SUCCESS);
    R.lock = bosh_loop_lock(R.loop);
    R.me = bosh_loop_peer(R.loop);
}

static inline void validate(void)
{
    const char *why = NULL;
    apr_status_t rv;

    bosh_lock(R.lock);
    rv = bosh_arena_validate(&C.arena, &why);
    bosh_unlock(R.lock);
    ck_assert_msg(rv == APR_SUCCESS, "arena: %s", why);
}

static inline void loop_close(void)
{
    for (unsigned i = 0; i < R.ncalls; i++) {
        free(R.call[i].answer);
    }
    ck_assert_int_eq(bosh_loop_stop(R.loop), APR_SUCCESS);
    validate();
    apr_pool_destroy(R.pool);
}

static inline void arena_close(void)
{
    for (uint32_t i = 0; i < C.wakers->n; i++) {
        close(C.wakers->fd[i]);
        close(C.wakers->in[i]);
        close(C.wakers->out[i]);
    }
    free(C.wakers->in);
    free(C.wakers);
    munmap(C.mem, C.bytes);
    apr_terminate();
}

static inline bosh_loop_stats_t stats(void)
{
    bosh_loop_stats_t s;

    bosh_loop_stats(R.loop, &s);
    return s;
}

/* The loop has done all it can do with what happened before this call. */
static inline void loop_settle(void)
{
    for (int i = 0; i < 3; i++) {
        uint64_t before = stats().turns;
        bosh_loop_kick(R.loop);
        for (int k = 0; stats().turns == before; k++) {
            ck_assert_int_lt(k, WAIT_MS);
            poll(NULL, 0, 1);
        }
    }
}

/* Waits until the condition holds, which another thread brings about. */
#define AWAIT(condition)                                                                           \
    do {                                                                                           \
        int ms_;                                                                                   \
        for (ms_ = 0; !(condition); ms_++) {                                                       \
            ck_assert_msg(ms_ < WAIT_MS, "in vain: %s", #condition);                               \
            poll(NULL, 0, 1);                                                                      \
        }                                                                                          \
    } while (0)

/* ---- the workers' end ---- */

static inline int request(const char *attrs, const char *payload)
{
    unsigned i = R.ncalls++;
    call_t *c = &R.call[i];
    size_t size = strlen(payload) + strlen(attrs) + 256;
    char *text = malloc(size);
    const bosh_client_t who = {.ip = "127.0.0.1"};
    bosh_body_t *body = bosh_body_create();
    bosh_req_t req;
    const char *why = NULL;
    int n =
        snprintf(text, size,
                 "<body xmlns='" BOSH_NS_HTTPBIND "' xmlns:xmpp='" BOSH_NS_XBOSH "' %s>%s</body>",
                 attrs, payload);

    ck_assert_uint_lt(i, WAITERS);
    c->holder = (bosh_holder_t){.peer = R.me, .waiter = i, .gen = 7};
    ck_assert_msg(bosh_body_parse(body, text, (size_t)n, &req, &why) == APR_SUCCESS, "%s", why);
    bosh_lock(R.lock);
    if (req.has & BOSH_HAS_SID) {
        bosh_session_request(&C.arena, bosh_clock_now(), &req, &R.lim, &who, c->holder, &c->v);
    } else {
        uint8_t sid[BOSH_SID_BYTES];
        for (size_t k = 0; k < sizeof(sid); k++) {
            sid[k] = (uint8_t)rand();
        }
        bosh_session_create(&C.arena, bosh_clock_now(), &req, &R.lim, sid, req.to, &who, R.me,
                            (uint16_t)(req.route != NULL ? atoi(req.route) : 0), c->holder, &c->v);
    }
    bosh_unlock_and_do(R.lock);
    bosh_body_destroy(body);
    free(text);
    return (int)i;
}

/* The verdict is in: fetches the answer, if there is one. */
static inline bool finished(call_t *c)
{
    size_t have = 0, n;

    if (c->v.act == BOSH_DO_HOLD) {
        return false;
    }
    c->answer = calloc(1, c->v.len + BOSH_BODY_OPEN_MAX);
    if (c->v.act == BOSH_DO_TELL) {
        bosh_ans_t ans = {.flags = c->v.error ? BOSH_ANS_ERROR : BOSH_ANS_TERMINATE,
                          .cond = c->v.cond};
        bosh_body_print_open(c->answer, &ans, true);
    } else if (c->v.act == BOSH_DO_SEND) {
        do {
            bosh_lock(R.lock);
            n = bosh_session_read(&C.arena, c->v.session, c->v.serial, c->v.rid, have,
                                  c->answer + have, c->v.len - have);
            bosh_unlock(R.lock);
            have += n;
        } while (n > 0);
    } else {
        snprintf(c->answer, 32, "busy %d", (int)c->v.act);
    }
    return true;
}

/* Waits for the answer of a request as its holder does; `must`: does not let it wait any longer. */
static inline const char *answer_of(int i, bool must)
{
    call_t *c = &R.call[i];
    struct timespec end;

    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += WAIT_MS / 1000;
    while (c->answer == NULL && !finished(c)) {
        pthread_mutex_lock(&R.mutex);
        while (c->seen == c->wakes && !must) {
            ck_assert_msg(pthread_cond_timedwait(&R.cond, &R.mutex, &end) == 0,
                          "request %d waits in vain", i);
        }
        c->seen = c->wakes;
        pthread_mutex_unlock(&R.mutex);
        bosh_lock(R.lock);
        bosh_session_poll(&C.arena, bosh_clock_now(), &R.lim, must, c->holder, &c->v);
        bosh_unlock(R.lock);
    }
    return c->answer;
}

static inline const char *answer(int i)
{
    return answer_of(i, false);
}

static inline bool is_held(int i)
{
    call_t *c = &R.call[i];
    bool woken;

    pthread_mutex_lock(&R.mutex);
    woken = c->seen != c->wakes;
    pthread_mutex_unlock(&R.mutex);
    return c->answer == NULL && c->v.act == BOSH_DO_HOLD && !woken;
}

#define ASSERT_HAS(text, part) ck_assert_msg(strstr(text, part) != NULL, "no %s in: %s", part, text)

/* ---- the server's end ---- */

static inline int listen_tcp(struct sockaddr_in *sin, int backlog)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t n = sizeof(*sin);

    memset(sin, 0, sizeof(*sin));
    sin->sin_family = AF_INET;
    sin->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)sin, sizeof(*sin)), 0);
    ck_assert_int_eq(listen(fd, backlog), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)sin, &n), 0);
    return fd;
}

static inline apr_sockaddr_t *address(apr_pool_t *pool, const struct sockaddr_in *sin)
{
    apr_sockaddr_t *sa = apr_pcalloc(pool, sizeof(*sa));

    sa->family = AF_INET;
    sa->salen = sizeof(*sin);
    sa->sa.sin = *sin;
    return sa;
}

static inline void await_readable(int fd)
{
    struct pollfd p = {fd, POLLIN, 0};

    ck_assert_msg(poll(&p, 1, WAIT_MS) == 1, "nothing to read");
}

static inline int accept_one(int lfd)
{
    int fd;

    await_readable(lfd);
    fd = accept4(lfd, NULL, NULL, SOCK_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    return fd;
}

/* Reads exactly the text, and nothing else. */
static inline void expect(int fd, const char *text)
{
    size_t have = 0, n = strlen(text);
    char *got = calloc(1, n + 1);

    while (have < n) {
        ssize_t r;
        await_readable(fd);
        r = read(fd, got + have, n - have);
        ck_assert_msg(r > 0, "the stream ended after: %s", got);
        have += (size_t)r;
    }
    ck_assert_str_eq(got, text);
    free(got);
}

static inline void expect_eof(int fd)
{
    char c;

    await_readable(fd);
    ck_assert_int_eq(read(fd, &c, 1), 0);
}

/* ... or a reset, when we had sent what nobody read. */
static inline void expect_eof_or_reset(int fd)
{
    char c;
    ssize_t n;

    await_readable(fd);
    n = read(fd, &c, 1);
    ck_assert(n == 0 || (n < 0 && errno == ECONNRESET));
}

static inline void serve(int fd, const char *text)
{
    size_t n = strlen(text);

    ck_assert_int_eq(send(fd, text, n, MSG_NOSIGNAL), (ssize_t)n);
}

/* ---- both together ---- */

static int lfd = -1; /* of target 0 */

static inline void open_all(uint32_t sessions, uint32_t chunks, uint32_t peers)
{
    struct sockaddr_in sin;
    static apr_sockaddr_t sa;

    arena_open(sessions, chunks, peers);
    rig_init();
    lfd = listen_tcp(&sin, 1000);
    memset(&sa, 0, sizeof(sa));
    sa.family = AF_INET;
    sa.salen = sizeof(sin);
    sa.sa.sin = sin;
    R.target[0].addrs = &sa;
}

/* For tests that change R before they call loop_open(). */
static inline void open_idle(void)
{
    open_all(256, 4096, 4);
}

static inline void open_small(void)
{
    open_all(4, 600, 2);
}

static inline void open_default(void)
{
    open_all(64, 4096, 4);
    loop_open();
}

static inline void close_default(void)
{
    loop_close();
    close(lfd);
    arena_close();
}

#define CREATE                                                                                     \
    "rid='1000' to='example.com' wait='60' hold='1' ver='1.6' xml:lang='en' xmpp:version='1.0' "

/* Creates a session; its request is held and the server side has seen nothing yet. */
static inline void create(chat_t *c, const char *attrs, const char *payload)
{
    char buf[512];
    const bosh_session_t *s;

    snprintf(buf, sizeof(buf), CREATE "%s", attrs);
    c->held = request(buf, payload);
    c->rid = 1000;
    c->index = R.call[c->held].v.session;
    c->serial = R.call[c->held].v.serial;
    bosh_lock(R.lock);
    s = bosh_arena_get(&C.arena, c->index, c->serial);
    if (s != NULL) {
        bosh_arena_sid_text(s, c->sid);
    }
    bosh_unlock(R.lock);
    ck_assert_ptr_nonnull(s);
}

/* The next request of a session; becomes c->held. */
static inline int ask(chat_t *c, const char *attrs, const char *payload)
{
    char buf[512];

    snprintf(buf, sizeof(buf), "sid='%.32s' rid='%llu' %s", c->sid, (unsigned long long)++c->rid,
             attrs);
    c->held = request(buf, payload);
    return c->held;
}

/* A session whose stream is open and whose creation has been answered. */
static inline void login(chat_t *c)
{
    create(c, "", "");
    c->fd = accept_one(lfd);
    expect(c->fd, CLIENT_HEAD);
    serve(c->fd, STREAM_HEAD FEATURES);
    ASSERT_HAS(answer(c->held), "<stream:features>");
}

static inline uint32_t peer_state(uint32_t peer)
{
    uint32_t state;

    bosh_lock(R.lock);
    state = bosh_arena_peer(&C.arena, peer)->state;
    bosh_unlock(R.lock);
    return state;
}

static inline bosh_header_t header(void)
{
    bosh_header_t h;

    bosh_lock(R.lock);
    h = *C.arena.h;
    bosh_unlock(R.lock);
    return h;
}

static inline bosh_link_t link_of(const chat_t *c)
{
    bosh_link_t link;
    bosh_session_t *s;

    memset(&link, 0, sizeof(link));
    bosh_lock(R.lock);
    s = bosh_arena_get(&C.arena, c->index, c->serial);
    if (s != NULL) {
        link = s->link;
    }
    bosh_unlock(R.lock);
    return link;
}

#endif
