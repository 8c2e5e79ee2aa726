/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking names up. Called by bosh_race.c, bosh_dial.c and bosh_loop.c on the loop thread.
 *
 * Invariants: an entry that is PENDING is known to c-ares and stays; nobody else is called from a callback of
 * c-ares, whose waiters are noted and told later.
 */
#include "bosh_resolve.h"

#define CARES_NO_DEPRECATED
#include <ares.h>
#include <arpa/nameser.h>
#include <errno.h>
#include <netdb.h>
#include <resolv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/time.h>

#include "bosh_clock.h"

#define BUCKETS 128 /* a power of 2 */
#define FD_MASK UINT64_C(0xffffffff)

typedef struct waiter_t {
    uint32_t index, serial;
} waiter_t;

typedef struct waiters_t {
    waiter_t *list;
    size_t n, max;
} waiters_t;

typedef struct entry_t {
    struct entry_t *next; /* in its bucket */
    bosh_resolver_t *home;
    bosh_dns_kind_t kind;
    bosh_dns_t known;
    apr_time_t until;
    waiters_t waiters;
    char name[];
} entry_t;

struct bosh_resolver_t {
    ares_channel channel; /* NULL: nothing was asked yet */
    const char *servers;
    int epfd;
    bool closing;
    size_t entries, pending;
    apr_time_t now, due;
    waiters_t told;
    entry_t *bucket[BUCKETS];
};

/* ---- entries ---- */

static unsigned hash(bosh_dns_kind_t kind, const char *name)
{
    unsigned h = (unsigned)kind + 5381;

    for (; *name != '\0'; name++) {
        h = h * 33 + (unsigned char)*name;
    }
    return h & (BUCKETS - 1);
}

static void forget_records(entry_t *e)
{
    free((void *)e->known.srv);
    free((void *)e->known.addr);
    memset(&e->known, 0, sizeof(e->known));
}

static void free_entry(entry_t *e)
{
    forget_records(e);
    free(e->waiters.list);
    free(e);
}

static entry_t *find(const bosh_resolver_t *r, bosh_dns_kind_t kind, const char *name)
{
    entry_t *e = r->bucket[hash(kind, name)];

    while (e != NULL && (e->kind != kind || strcmp(e->name, name) != 0)) {
        e = e->next;
    }
    return e;
}

/* Makes room for one more: by what is out of date, or else by the answer that is soonest. */
static bool make_room(bosh_resolver_t *r)
{
    entry_t **soonest = NULL;

    for (size_t i = 0; i < BUCKETS; i++) {
        for (entry_t **at = &r->bucket[i]; *at != NULL;) {
            entry_t *e = *at;
            if (e->known.state != BOSH_DNS_PENDING && e->until <= r->now) {
                *at = e->next;
                free_entry(e);
                r->entries--;
                soonest = NULL; /* it may have been the one that is gone, and is not needed */
                continue;
            }
            if (e->known.state != BOSH_DNS_PENDING &&
                (soonest == NULL || e->until < (*soonest)->until)) {
                soonest = at;
            }
            at = &e->next;
        }
    }
    if (r->entries >= BOSH_RESOLVER_ENTRIES && soonest != NULL) {
        entry_t *e = *soonest;
        *soonest = e->next;
        free_entry(e);
        r->entries--;
    }
    return r->entries < BOSH_RESOLVER_ENTRIES;
}

static entry_t *new_entry(bosh_resolver_t *r, bosh_dns_kind_t kind, const char *name)
{
    size_t n = strlen(name) + 1;
    unsigned h = hash(kind, name);
    entry_t *e;

    if (r->entries >= BOSH_RESOLVER_ENTRIES && !make_room(r)) {
        return NULL;
    }
    e = calloc(1, sizeof(*e) + n);
    if (e != NULL) {
        e->home = r;
        e->kind = kind;
        memcpy(e->name, name, n);
        e->next = r->bucket[h];
        r->bucket[h] = e;
        r->entries++;
    }
    return e;
}

static bool note_waiter(waiters_t *w, waiter_t who)
{
    if (w->n == w->max) {
        size_t max = w->max == 0 ? 4 : 2 * w->max;
        waiter_t *grown = realloc(w->list, max * sizeof(*grown));
        if (grown == NULL) {
            return false;
        }
        w->list = grown;
        w->max = max;
    }
    w->list[w->n++] = who;
    return true;
}

/* ---- answers ---- */

static apr_interval_time_t life(uint32_t ttl)
{
    apr_interval_time_t t = apr_time_from_sec(ttl);

    t = t > BOSH_RESOLVER_MIN ? t : BOSH_RESOLVER_MIN;
    return t < BOSH_RESOLVER_MAX ? t : BOSH_RESOLVER_MAX;
}

/* The question is answered: status of c-ares; with records e->known has them. */
static void settle(entry_t *e, int status, uint32_t ttl)
{
    bosh_resolver_t *r = e->home;
    apr_interval_time_t t;

    if (status == ARES_SUCCESS && e->known.n > 0) {
        e->known.state = BOSH_DNS_FOUND;
        t = life(ttl);
    } else if (status == ARES_SUCCESS || status == ARES_ENODATA || status == ARES_ENOTFOUND) {
        e->known.state = BOSH_DNS_NONE;
        t = BOSH_RESOLVER_NONE;
    } else {
        e->known.state = BOSH_DNS_FAILED;
        /* What c-ares calls "could not contact" is SERVFAIL and REFUSED, too. */
        e->known.why = status == ARES_ECONNREFUSED
                           ? "the name servers fail, refuse, or cannot be reached"
                           : ares_strerror(status);
        t = BOSH_RESOLVER_FAILED;
    }
    e->until = r->now + t;
    r->pending--;
    for (size_t i = 0; i < e->waiters.n && !r->closing; i++) {
        (void)note_waiter(&r->told, e->waiters.list[i]); /* else its own time-out tells it */
    }
    free(e->waiters.list);
    memset(&e->waiters, 0, sizeof(e->waiters));
}

static bool is_host(const char *name)
{
    return name[0] == '\0' ||
           (name[0] != '.' &&
            strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") ==
                strlen(name));
}

static bool read_record(const ns_msg *msg, const ns_rr *rr, bosh_srv_t *out)
{
    const unsigned char *p = ns_rr_rdata(*rr);
    char host[NS_MAXDNAME];
    size_t n;

    if (ns_rr_type(*rr) != ns_t_srv || ns_rr_class(*rr) != ns_c_in || ns_rr_rdlen(*rr) < 7 ||
        dn_expand(ns_msg_base(*msg), ns_msg_end(*msg), p + 6, host, sizeof(host)) < 0) {
        return false;
    }
    n = strlen(host);
    n -= n > 0 && host[n - 1] == '.';
    host[n] = '\0';
    if (n > BOSH_MAX_DOMAIN || !is_host(host)) {
        return false;
    }
    memset(out, 0, sizeof(*out));
    out->priority = (uint16_t)(p[0] << 8 | p[1]);
    out->weight = (uint16_t)(p[2] << 8 | p[3]);
    out->port = (uint16_t)(p[4] << 8 | p[5]);
    memcpy(out->host, host, n);
    return out->port != 0 || n == 0;
}

int bosh_resolver_parse_srv(const unsigned char *msg, size_t len, bosh_srv_t *out, size_t max,
                            uint32_t *ttl)
{
    ns_msg m;
    ns_rr rr;
    size_t n = 0, seen = 0;

    *ttl = UINT32_MAX;
    if (len > 65535 || ns_initparse(msg, (int)len, &m) != 0) {
        return -1;
    }
    for (int i = 0; i < ns_msg_count(m, ns_s_an) && n < max; i++) {
        if (ns_parserr(&m, ns_s_an, i, &rr) != 0) {
            return -1;
        }
        *ttl = ns_rr_ttl(rr) < *ttl ? ns_rr_ttl(rr) : *ttl; /* a CNAME's counts, too */
        seen += ns_rr_type(rr) == ns_t_srv;
        n += read_record(&m, &rr, &out[n]);
    }
    return n > 0 || seen == 0 ? (int)n : -1;
}

static void on_srv(void *arg, int status, int timeouts, unsigned char *msg, int len)
{
    bosh_srv_t rec[BOSH_RESOLVER_RECORDS];
    entry_t *e = arg;
    uint32_t ttl = 0;
    int n = 0;

    (void)timeouts;
    if (status == ARES_SUCCESS) {
        n = bosh_resolver_parse_srv(msg, (size_t)len, rec, BOSH_RESOLVER_RECORDS, &ttl);
        status = n < 0 ? ARES_EBADRESP : ARES_SUCCESS;
    }
    if (n > 0) {
        bosh_srv_t *kept = malloc((size_t)n * sizeof(*kept));
        if (kept != NULL) {
            memcpy(kept, rec, (size_t)n * sizeof(*kept));
            e->known.srv = kept;
            e->known.n = (size_t)n;
        }
        status = kept != NULL ? ARES_SUCCESS : ARES_ENOMEM;
    }
    settle(e, status, ttl);
}

/* All addresses of the family asked for; their number. */
static size_t read_addresses(const struct ares_addrinfo *info, int family, bosh_addr_t *out,
                             uint32_t *ttl)
{
    size_t n = 0;

    for (const struct ares_addrinfo_cname *c = info->cnames; c != NULL; c = c->next) {
        *ttl = c->ttl >= 0 && (uint32_t)c->ttl < *ttl ? (uint32_t)c->ttl : *ttl;
    }
    for (const struct ares_addrinfo_node *a = info->nodes; a != NULL; a = a->ai_next) {
        if (a->ai_family != family || n >= BOSH_RESOLVER_RECORDS ||
            (size_t)a->ai_addrlen > sizeof(out->sa)) {
            continue;
        }
        *ttl = a->ai_ttl >= 0 && (uint32_t)a->ai_ttl < *ttl ? (uint32_t)a->ai_ttl : *ttl;
        memset(&out[n], 0, sizeof(out[n]));
        out[n].len = (socklen_t)a->ai_addrlen;
        memcpy(&out[n].sa, a->ai_addr, (size_t)a->ai_addrlen);
        n++;
    }
    return n;
}

static void on_addresses(void *arg, int status, int timeouts, struct ares_addrinfo *info)
{
    bosh_addr_t addr[BOSH_RESOLVER_RECORDS], *kept;
    entry_t *e = arg;
    uint32_t ttl = UINT32_MAX;
    size_t n = 0;

    (void)timeouts;
    if (status == ARES_SUCCESS && info != NULL) {
        n = read_addresses(info, e->kind == BOSH_DNS_A ? AF_INET : AF_INET6, addr, &ttl);
    }
    if (info != NULL) {
        ares_freeaddrinfo(info);
    }
    if (n > 0) {
        kept = malloc(n * sizeof(*kept));
        if (kept != NULL) {
            memcpy(kept, addr, n * sizeof(*kept));
            e->known.addr = kept;
            e->known.n = n;
        }
        status = kept != NULL ? ARES_SUCCESS : ARES_ENOMEM;
    }
    settle(e, status, ttl);
}

/* ---- c-ares ---- */

/* c-ares wants to wait for this descriptor, or no longer. */
static void on_socket(void *data, ares_socket_t fd, int readable, int writable)
{
    const bosh_resolver_t *r = data;
    struct epoll_event ev;

    ev.events = (readable ? (uint32_t)EPOLLIN : 0) | (writable ? (uint32_t)EPOLLOUT : 0);
    ev.data.u64 = BOSH_RESOLVER_TAG | (uint32_t)fd;
    if (ev.events == 0) {
        (void)epoll_ctl(r->epfd, EPOLL_CTL_DEL, fd, NULL);
    } else if (epoll_ctl(r->epfd, EPOLL_CTL_MOD, fd, &ev) != 0 && errno == ENOENT) {
        (void)epoll_ctl(r->epfd, EPOLL_CTL_ADD, fd, &ev); /* if not, its time-out helps */
    }
}

static int open_channel(bosh_resolver_t *r)
{
    struct ares_options opt = {0};
    int mask = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB, status;

    opt.timeout = (int)apr_time_as_msec(BOSH_RESOLVER_TRY);
    opt.tries = BOSH_RESOLVER_TRIES;
    opt.sock_state_cb = on_socket;
    opt.sock_state_cb_data = r;
    status = ares_init_options(&r->channel, &opt, mask);
    if (status == ARES_SUCCESS && r->servers != NULL) {
        status = ares_set_servers_ports_csv(r->channel, r->servers);
        if (status != ARES_SUCCESS) {
            ares_destroy(r->channel);
        }
    }
    if (status != ARES_SUCCESS) {
        r->channel = NULL;
    }
    return status;
}

static void compute_due(bosh_resolver_t *r)
{
    struct timeval tv;

    r->due = BOSH_NEVER;
    if (r->pending > 0 && r->channel != NULL && ares_timeout(r->channel, NULL, &tv) != NULL) {
        r->due = r->now + apr_time_make(tv.tv_sec, tv.tv_usec) + 1000;
    }
}

static void ask(bosh_resolver_t *r, entry_t *e)
{
    struct ares_addrinfo_hints hints = {0};
    int status = r->channel != NULL ? ARES_SUCCESS : open_channel(r);

    r->pending++;
    if (status != ARES_SUCCESS) {
        settle(e, status, 0);
        return;
    }
    hints.ai_flags = ARES_AI_NOSORT;
    hints.ai_family = e->kind == BOSH_DNS_A ? AF_INET : AF_INET6;
    hints.ai_socktype = SOCK_STREAM;
    if (e->kind == BOSH_DNS_SRV) {
        ares_query(r->channel, e->name, ns_c_in, ns_t_srv, on_srv, e);
    } else {
        ares_getaddrinfo(r->channel, e->name, NULL, &hints, on_addresses, e);
    }
}

/* ---- the outside ---- */

bosh_resolver_t *bosh_resolver_create(const char *servers, int epfd)
{
    bosh_resolver_t *r = calloc(1, sizeof(*r));

    if (r == NULL || ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS) {
        free(r);
        return NULL;
    }
    r->servers = servers;
    r->epfd = epfd;
    r->due = BOSH_NEVER;
    return r;
}

void bosh_resolver_destroy(bosh_resolver_t *r)
{
    r->closing = true;
    if (r->channel != NULL) {
        ares_destroy(r->channel); /* what is pending is called back */
    }
    for (size_t i = 0; i < BUCKETS; i++) {
        while (r->bucket[i] != NULL) {
            entry_t *e = r->bucket[i];
            r->bucket[i] = e->next;
            free_entry(e);
        }
    }
    free(r->told.list);
    free(r);
    ares_library_cleanup();
}

bosh_dns_t bosh_resolve(bosh_resolver_t *r, bosh_dns_kind_t kind, const char *name, bool any,
                        apr_time_t now, uint32_t index, uint32_t serial)
{
    static const bosh_dns_t full = {.state = BOSH_DNS_FAILED,
                                    .why = "too many names are being looked up"};
    waiter_t who = {index, serial};
    entry_t *e;

    r->now = now;
    e = find(r, kind, name);
    if (any && r->pending >= BOSH_RESOLVER_ENTRIES / 2 &&
        (e == NULL || (e->known.state != BOSH_DNS_PENDING && e->until <= now))) {
        return full;
    }
    if (e == NULL) {
        e = new_entry(r, kind, name);
        if (e == NULL) {
            return full;
        }
        ask(r, e);
    } else if (e->known.state != BOSH_DNS_PENDING && e->until <= now) {
        forget_records(e);
        ask(r, e);
    }
    if (e->known.state == BOSH_DNS_PENDING) {
        (void)note_waiter(&e->waiters, who);
        compute_due(r);
    }
    return e->known;
}

bool bosh_resolver_waiter(bosh_resolver_t *r, uint32_t *index, uint32_t *serial)
{
    if (r->told.n == 0) {
        return false;
    }
    r->told.n--;
    *index = r->told.list[r->told.n].index;
    *serial = r->told.list[r->told.n].serial;
    return true;
}

void bosh_resolver_event(bosh_resolver_t *r, uint64_t tag, uint32_t events, apr_time_t now)
{
    ares_socket_t fd = (ares_socket_t)(tag & FD_MASK);

    r->now = now;
    if (r->channel != NULL) {
        ares_process_fd(r->channel, events & ~(uint32_t)EPOLLOUT ? fd : ARES_SOCKET_BAD,
                        events & EPOLLOUT ? fd : ARES_SOCKET_BAD);
        compute_due(r);
    }
}

apr_time_t bosh_resolver_next(const bosh_resolver_t *r)
{
    return r->told.n > 0 ? 0 : r->due;
}

void bosh_resolver_run(bosh_resolver_t *r, apr_time_t now)
{
    r->now = now;
    if (r->channel != NULL && r->due <= now) {
        ares_process_fd(r->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
        compute_due(r);
    }
}
