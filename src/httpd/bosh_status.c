/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The status of the module: one snapshot, printed in four ways from one table of numbers (rows[]), so
 * that no format can lack a number or call it something else.
 *
 * Called on worker threads. The snapshot takes the arena lock for a slice of the table at a time and
 * copies numbers out; between two slices sessions may come and go, so sums can be off by the few that
 * did. Only numbers and the fixed strings below are ever printed: nothing needs escaping.
 */
#include "bosh_status.h"

#include <string.h>

#include <apr_optional_hooks.h>
#include <apr_strings.h>
#include <http_protocol.h>
#include <mod_status.h>
#include <util_filter.h>

#include "bosh_arena.h"
#include "bosh_clock.h"
#include "bosh_config.h"
#include "bosh_hold.h"
#include "bosh_lock.h"
#include "bosh_respond.h"
#include "bosh_spot.h"
#include "bosh_stay.h"

#define SLICE 256 /* records looked at per lock hold */
#define NUM   "%" APR_UINT64_T_FMT

static bosh_loop_t *loop; /* this child's; NULL: it cannot serve */

/* ---- the snapshot ---- */

typedef struct peer_t {
    uint32_t index;
    uint32_t state;
    uint64_t pid, generation, streams, parked, held, mailbox;
    uint64_t heartbeat; /* age, ms */
} peer_t;

typedef struct snap_t {
    uint64_t live, ending, tomb, capacity, held;
    uint64_t used, free, chunks, bytes;
    bosh_counters_t count;
    uint64_t async, blocked, spot, stays, vain_stays, trims, streams, sockets;
    bosh_loop_stats_t loop;
    uint32_t me;
    uint32_t npeers;
    peer_t *peers; /* by index, all of the table, those not in use with state FREE */
} snap_t;

static void count_slot(snap_t *snap, const bosh_slot_t *slot)
{
    if ((slot->state == BOSH_SLOT_HELD || slot->state == BOSH_SLOT_DEFERRED) &&
        slot->holder.peer >= 1 && slot->holder.peer <= snap->npeers) {
        snap->peers[slot->holder.peer - 1].held++;
        snap->held++;
    }
}

/* Requests that wait at somebody's. They lie between what is answered and the end of the window: a few
 * slots, so that most of the record is left alone and the lock held for a short time. */
static void count_held(snap_t *snap, bosh_arena_t *a, bosh_session_t *s)
{
    uint64_t last =
        s->received + s->requests + 1; /* bosh_window_judge(): no request is beyond it */

    for (uint64_t rid = s->answered + 1, n = a->h->sizes.slots; rid <= last && n > 0; rid++, n--) {
        const bosh_slot_t *slot = bosh_arena_slot(a, s, rid);
        if (slot->rid == rid) {
            count_slot(snap, slot);
        }
    }
}

/* Records from fresh_session on were never used: looking at them would make an idle arena big. */
static void scan_sessions(snap_t *snap, bosh_lock_t *lock)
{
    bosh_arena_t *a = lock->arena;
    bosh_ix from = 1;
    bool more;

    do {
        bosh_lock(lock);
        bosh_ix end = a->h->fresh_session - from > SLICE ? from + SLICE : a->h->fresh_session;
        for (; from < end; from++) {
            bosh_session_t *s = bosh_arena_session(a, from);
            if (s->root != 0) {
                continue; /* a further stream of a session */
            }
            snap->live += s->state == BOSH_ST_LIVE;
            snap->ending += s->state == BOSH_ST_ENDING;
            snap->tomb += s->state == BOSH_ST_TOMB;
            if (s->state != BOSH_ST_FREE) {
                count_held(snap, a, s);
            }
        }
        more = from < a->h->fresh_session;
        bosh_unlock(lock);
    } while (more);
}

static void scan_peers(snap_t *snap, bosh_lock_t *lock)
{
    uint32_t i = 1;

    while (i <= snap->npeers) {
        uint32_t end = snap->npeers - i >= SLICE ? i + SLICE : snap->npeers + 1;
        bosh_lock(lock);
        apr_time_t now = bosh_clock_now();
        for (; i < end; i++) {
            const bosh_peer_t *from = bosh_arena_peer(lock->arena, i);
            peer_t *to = &snap->peers[i - 1];
            to->index = i;
            to->state = from->state;
            to->pid = from->pid;
            to->generation = from->generation;
            to->streams = from->streams;
            to->parked = __atomic_load_n(&from->parked, __ATOMIC_RELAXED);
            to->mailbox = from->mail_n;
            to->heartbeat =
                now > from->heartbeat ? (uint64_t)apr_time_as_msec(now - from->heartbeat) : 0;
        }
        bosh_unlock(lock);
    }
}

static snap_t *take_snapshot(apr_pool_t *p)
{
    bosh_lock_t *lock = bosh_loop_lock(loop);
    const bosh_header_t *h = lock->arena->h;
    snap_t *snap = apr_pcalloc(p, sizeof(*snap));
    uint32_t async, blocked;

    snap->me = bosh_loop_peer(loop);
    snap->npeers = h->sizes.peers; /* the sizes never change */
    snap->peers = apr_pcalloc(p, snap->npeers * sizeof(peer_t));
    snap->capacity = h->sizes.sessions;
    snap->chunks = h->sizes.chunks;
    snap->bytes = h->total;
    bosh_lock(lock);
    snap->free = h->nfree_chunks;
    snap->count = h->count;
    bosh_unlock(lock);
    snap->used = snap->chunks - snap->free;
    scan_sessions(snap, lock);
    scan_peers(snap, lock);
    bosh_hold_count(&async, &blocked);
    snap->async = async;
    snap->blocked = blocked;
    snap->spot = bosh_spot_count();
    bosh_stay_count(&snap->stays, &snap->vain_stays);
    snap->trims = bosh_hold_trims();
    bosh_loop_stats(loop, &snap->loop);
    snap->streams = snap->loop.streams;
    snap->sockets = snap->loop.sockets;
    return snap;
}

/* ---- what there is to show ---- */

typedef enum group_t { SESSIONS, MEMORY, COUNTERS, CHILD, NGROUPS } group_t;

static const struct {
    const char *key, *title;
} groups[NGROUPS] = {
    [SESSIONS] = {"sessions", "Sessions"},
    [MEMORY] = {"memory", "Shared memory"},
    [COUNTERS] = {"counters", "Since httpd was started"},
    [CHILD] = {"child", "The process that answered this request"},
};

/* One number (uint64_t). Rows of a group, and those of a Prometheus family, stand together. */
typedef struct row_t {
    group_t group;
    const char *key;    /* in JSON */
    const char *text;   /* for people */
    const char *brief;  /* on mod_status's page with ?auto; NULL: not on that page */
    const char *family; /* in Prometheus; ..._total: a counter, else a gauge */
    const char *label;  /* NULL: the only one of its family */
    const char *help;   /* of the family; NULL: the row before has it */
    size_t at;          /* in snap_t */
} row_t;

#define AT(field)    offsetof(snap_t, field)
#define TO_CLIENT    "direction=\"to_client\""
#define TO_SERVER    "direction=\"to_server\""
#define STATE(state) "state=\"" state "\""
#define REASON(why)  "reason=\"" why "\""

static const row_t rows[] = {
    {SESSIONS, "live", "Live sessions", "BoshSessions", "bosh_sessions", STATE("live"),
     "Sessions in the table, by state.", AT(live)},
    {SESSIONS, "ending", "Sessions whose stream is over, their client yet to be told",
     "BoshSessionsEnding", "bosh_sessions", STATE("ending"), NULL, AT(ending)},
    {SESSIONS, "tomb", "Sessions that are over, answers kept for repeated requests",
     "BoshSessionsEnded", "bosh_sessions", STATE("tomb"), NULL, AT(tomb)},
    {SESSIONS, "capacity", "Room for sessions (BoshMaxSessions)", "BoshSessionsMax",
     "bosh_sessions_capacity", NULL, "Sessions there is room for.", AT(capacity)},
    {SESSIONS, "held", "Requests held, in all processes", "BoshRequestsHeld", "bosh_held_requests",
     NULL, "Requests that wait for an answer, in all processes.", AT(held)},

    {MEMORY, "chunks_used", "Chunks of memory in use", "BoshChunksUsed", "bosh_chunks",
     STATE("used"), "Chunks of shared memory for stanzas and answers, by state.", AT(used)},
    {MEMORY, "chunks_free", "Chunks of memory free", "BoshChunksFree", "bosh_chunks", STATE("free"),
     NULL, AT(free)},
    {MEMORY, "chunks_total", "Chunks of memory, all", NULL, "bosh_chunks_capacity", NULL,
     "Chunks of shared memory there are.", AT(chunks)},
    {MEMORY, "arena_bytes", "Bytes of memory reserved (BoshMemory)", "BoshMemoryBytes",
     "bosh_arena_bytes", NULL,
     "Size of the shared memory, most of which is not touched until used.", AT(bytes)},

    {COUNTERS, "created", "Sessions created", "BoshSessionsCreated", "bosh_sessions_created_total",
     NULL, "Sessions created.", AT(count.created)},
    {COUNTERS, "refused", "Sessions refused: no room", "BoshSessionsRefused",
     "bosh_sessions_refused_total", NULL, "Sessions refused for want of room.", AT(count.refused)},
    {COUNTERS, "ended", "Sessions over, for any reason", NULL, "bosh_sessions_ended_total", NULL,
     "Sessions that are over, for any reason.", AT(count.ended)},
    {COUNTERS, "expired", "Sessions over because the client was silent", "BoshSessionsExpired",
     "bosh_sessions_expired_total", NULL, "Sessions that ended because their client was silent.",
     AT(count.expired)},
    {COUNTERS, "lost_crash", "Sessions lost with a process that died", "BoshSessionsLostCrash",
     "bosh_sessions_lost_total", REASON("crash"),
     "Sessions that ended because of what happened to a process of httpd, by reason.",
     AT(count.lost)},
    {COUNTERS, "lost_repair", "Sessions lost because a process died while it changed them",
     "BoshSessionsLostRepair", "bosh_sessions_lost_total", REASON("repair"), NULL,
     AT(count.repaired_sessions)},
    {COUNTERS, "lost_drain", "Sessions lost because no process took them over",
     "BoshSessionsLostDrain", "bosh_sessions_lost_total", REASON("drain"), NULL,
     AT(count.lost_drain)},
    {COUNTERS, "lost_stop", "Sessions lost because their process was stopped",
     "BoshSessionsLostStop", "bosh_sessions_lost_total", REASON("stop"), NULL, AT(count.lost_stop)},
    {COUNTERS, "requests", "Requests", "BoshRequests", "bosh_requests_total", NULL,
     "Requests, all but those for a new session.", AT(count.requests)},
    {COUNTERS, "resends", "Requests repeated", "BoshResends", "bosh_resends_total", NULL,
     "Requests that clients sent again.", AT(count.resends)},
    {COUNTERS, "stanzas_down", "Stanzas to servers", "BoshStanzasToServer", "bosh_stanzas_total",
     TO_SERVER, "Stanzas passed on, those of logins included.", AT(count.stanzas_down)},
    {COUNTERS, "stanzas_up", "Stanzas to clients", "BoshStanzasToClient", "bosh_stanzas_total",
     TO_CLIENT, NULL, AT(count.stanzas_up)},
    {COUNTERS, "moved", "Streams handed over to another process", "BoshStreamsMoved",
     "bosh_streams_moved_total", NULL, "Streams that another process has taken over alive.",
     AT(count.moved)},
    {COUNTERS, "rescued", "Streams rescued from a dead process", "BoshStreamsRescued",
     "bosh_streams_rescued_total", NULL, "Streams that went on after their process had died.",
     AT(count.rescued)},
    {COUNTERS, "repairs", "Repairs of the shared memory", "BoshRepairs", "bosh_repairs_total", NULL,
     "Repairs of the shared memory after a process died in it.", AT(count.repairs)},
    {COUNTERS, "lock_taken", "Takings of the lock", NULL, "bosh_lock_taken_total", NULL,
     "Times the lock of the shared memory was taken.", AT(count.lock_taken)},
    {COUNTERS, "lock_held_ns", "Nanoseconds the lock was held", NULL,
     "bosh_lock_held_nanoseconds_total", NULL, "How long it was held, estimated from a sample.",
     AT(count.lock_held)},
    {COUNTERS, "lock_contended", "Waits for the lock", NULL, "bosh_lock_contended_total", NULL,
     "Times the lock of the shared memory was not free at once.", AT(count.lock_contended)},
    {COUNTERS, "lock_waited_ns", "Nanoseconds of waiting for the lock", NULL,
     "bosh_lock_waited_nanoseconds_total", NULL, "How long it was waited for, in all.",
     AT(count.lock_waited)},
    {COUNTERS, "wakes", "Wake-ups between processes", NULL, "bosh_wakes_total", NULL,
     "Wake-ups of loop threads.", AT(count.wakes)},

    {CHILD, "held_async", "Requests held without a thread", NULL, "bosh_child_held_requests",
     "kind=\"async\"",
     "Requests the process that answers this holds, without a thread and with one.", AT(async)},
    {CHILD, "held_blocked", "Requests held by a blocked thread", NULL, "bosh_child_held_requests",
     "kind=\"blocked\"", NULL, AT(blocked)},
    {CHILD, "on_the_spot", "Answers sent without a worker", NULL, "bosh_child_spot_answers_total",
     NULL, "Answers that the process that answers this sent on the spot, without a worker.",
     AT(spot)},
    {CHILD, "stays", "Waits for a client's next request", NULL, "bosh_child_stays_total",
     "end=\"request\"",
     "Waits of workers for the next request of a client, in the process that answers this, by "
     "their end.",
     AT(stays)},
    {CHILD, "stays_in_vain", "Such waits in vain", NULL, "bosh_child_stays_total",
     "end=\"nothing\"", NULL, AT(vain_stays)},
    {CHILD, "trims", "Old holds trimmed", NULL, "bosh_child_trims_total", NULL,
     "Held requests whose connection gave back memory, in the process that answers this.",
     AT(trims)},
    {CHILD, "streams", "Stream objects", NULL, "bosh_loop_streams", NULL,
     "Streams of the process that answers this.", AT(streams)},
    {CHILD, "sockets", "Streams with a socket", NULL, "bosh_loop_sockets", NULL,
     "Streams of the process that answers this that have a socket.", AT(sockets)},
    {CHILD, "turns", "Turns of its loop", NULL, "bosh_loop_turns_total", NULL,
     "Returns from poll in the process that answers this.", AT(loop.turns)},
    {CHILD, "reads", "Reads from servers", NULL, "bosh_loop_reads_total", NULL,
     "Reads from servers in the process that answers this.", AT(loop.reads)},
    {CHILD, "writes", "Writes to servers", NULL, "bosh_loop_writes_total", NULL,
     "Writes to servers in the process that answers this.", AT(loop.writes)},
    {CHILD, "bytes_in", "Bytes from servers", NULL, "bosh_loop_bytes_total", TO_CLIENT,
     "Bytes from and to servers in the process that answers this.", AT(loop.bytes_in)},
    {CHILD, "bytes_out", "Bytes to servers", NULL, "bosh_loop_bytes_total", TO_SERVER, NULL,
     AT(loop.bytes_out)},
    {CHILD, "connects", "Connections made", NULL, "bosh_loop_connects_total", NULL,
     "Connections to servers that the process that answers this has made.", AT(loop.connects)},
    {CHILD, "connect_failures", "Connections that failed", NULL, "bosh_loop_connect_failures_total",
     NULL, "Those that failed.", AT(loop.connect_failures)},
    {CHILD, "handshakes", "TLS handshakes", NULL, "bosh_loop_tls_handshakes_total", NULL,
     "TLS handshakes with servers that succeeded.", AT(loop.handshakes)},
    {CHILD, "resumed", "TLS sessions resumed", NULL, "bosh_loop_tls_resumed_total", NULL,
     "Those that resumed an earlier session.", AT(loop.resumed)},
};

/* The same for the numbers of a peer; `at` is in peer_t. */
static const struct {
    const char *key, *text, *family, *help;
    size_t at;
} columns[] = {
    {"pid", "Process", "bosh_peer_pid", "Process id.", offsetof(peer_t, pid)},
    {"generation", "Generation", "bosh_peer_generation", "Generation of httpd it belongs to.",
     offsetof(peer_t, generation)},
    {"streams", "Streams", "bosh_peer_streams", "Sessions whose stream it has.",
     offsetof(peer_t, streams)},
    {"parked", "Descriptors in escrow", "bosh_peer_escrow_descriptors",
     "Duplicates of streams in its escrow, those of ended streams included.",
     offsetof(peer_t, parked)},
    {"held", "Requests held", "bosh_peer_held_requests", "Requests it holds.",
     offsetof(peer_t, held)},
    {"mailbox", "Messages waiting", "bosh_peer_mailbox_messages",
     "Messages waiting in its mailbox.", offsetof(peer_t, mailbox)},
};

#define NROWS    (sizeof(rows) / sizeof(rows[0]))
#define NCOLUMNS (sizeof(columns) / sizeof(columns[0]))

static uint64_t value(const snap_t *snap, const row_t *row)
{
    return *(const uint64_t *)(const void *)((const char *)snap + row->at);
}

static uint64_t peer_value(const peer_t *peer, size_t column)
{
    return *(const uint64_t *)(const void *)((const char *)peer + columns[column].at);
}

static const char *state_name(uint32_t state)
{
    static const char *const names[] = {"free", "live", "draining", "leaving"};

    return state < sizeof(names) / sizeof(names[0]) ? names[state] : "unknown";
}

/* The next peer in use from index `i` (0: the first); NULL: no more. */
static const peer_t *next_peer(const snap_t *snap, uint32_t i)
{
    for (; i < snap->npeers; i++) {
        if (snap->peers[i].state != BOSH_PEER_FREE) {
            return &snap->peers[i];
        }
    }
    return NULL;
}

/* ---- the formats ---- */

#define SAY(...) (void)apr_brigade_printf(bb, NULL, NULL, __VA_ARGS__)

static void print_html(apr_bucket_brigade *bb, const snap_t *snap)
{
    SAY("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
        "<meta name=\"viewport\" content=\"width=device-width\">\n<title>mod_bosh status</title>\n"
        "</head>\n<body>\n<main>\n<h1>mod_bosh " BOSH_VERSION "</h1>\n"
        "<p>The same as <a href=\"?format=json\">JSON</a> and for "
        "<a href=\"?format=prometheus\">Prometheus</a>.</p>\n");
    for (size_t i = 0; i < NROWS; i++) {
        if (i == 0 || rows[i].group != rows[i - 1].group) {
            SAY("%s<h2>%s</h2>\n<table>\n", i > 0 ? "</table>\n" : "", groups[rows[i].group].title);
        }
        SAY("<tr><th scope=\"row\">%s</th><td>" NUM "</td></tr>\n", rows[i].text,
            value(snap, &rows[i]));
    }
    SAY("</table>\n<h2>Processes</h2>\n<table>\n<tr><th scope=\"col\">Number</th><th "
        "scope=\"col\">State</th><th scope=\"col\">Last heartbeat</th>");
    for (size_t c = 0; c < NCOLUMNS; c++) {
        SAY("<th scope=\"col\">%s</th>", columns[c].text);
    }
    SAY("</tr>\n");
    for (const peer_t *p = next_peer(snap, 0); p != NULL; p = next_peer(snap, p->index)) {
        SAY("<tr><th scope=\"row\">%u%s</th><td>%s</td><td>" NUM " ms ago</td>", p->index,
            p->index == snap->me ? " (this one)" : "", state_name(p->state), p->heartbeat);
        for (size_t c = 0; c < NCOLUMNS; c++) {
            SAY("<td>" NUM "</td>", peer_value(p, c));
        }
        SAY("</tr>\n");
    }
    SAY("</table>\n</main>\n</body>\n</html>\n");
}

static void print_json(apr_bucket_brigade *bb, const snap_t *snap)
{
    const char *comma = "";

    SAY("{\n  \"version\": \"" BOSH_VERSION "\",\n  \"peer\": %u", snap->me);
    for (size_t i = 0; i < NROWS; i++) {
        if (i == 0 || rows[i].group != rows[i - 1].group) {
            SAY("%s,\n  \"%s\": {", i > 0 ? "}" : "", groups[rows[i].group].key);
            comma = "";
        }
        SAY("%s\"%s\": " NUM, comma, rows[i].key, value(snap, &rows[i]));
        comma = ", ";
    }
    SAY("},\n  \"peers\": [");
    comma = "";
    for (const peer_t *p = next_peer(snap, 0); p != NULL; p = next_peer(snap, p->index)) {
        SAY("%s\n    {\"peer\": %u, \"state\": \"%s\", \"heartbeat_age_ms\": " NUM, comma, p->index,
            state_name(p->state), p->heartbeat);
        for (size_t c = 0; c < NCOLUMNS; c++) {
            SAY(", \"%s\": " NUM, columns[c].key, peer_value(p, c));
        }
        SAY("}");
        comma = ",";
    }
    SAY("\n  ]\n}\n");
}

static void say_family(apr_bucket_brigade *bb, const char *family, const char *help)
{
    size_t len = strlen(family);
    bool counter = len > 6 && strcmp(family + len - 6, "_total") == 0;

    SAY("# HELP %s %s\n# TYPE %s %s\n", family, help, family, counter ? "counter" : "gauge");
}

static void say_sample(apr_bucket_brigade *bb, const snap_t *snap, const row_t *row)
{
    const char *label = row->label != NULL ? row->label : "";

    if (row->group ==
        CHILD) { /* each scrape may meet another process: the label keeps them apart */
        SAY("%s{peer=\"%u\"%s%s} " NUM "\n", row->family, snap->me, label[0] != '\0' ? "," : "",
            label, value(snap, row));
    } else if (label[0] != '\0') {
        SAY("%s{%s} " NUM "\n", row->family, label, value(snap, row));
    } else {
        SAY("%s " NUM "\n", row->family, value(snap, row));
    }
}

static void print_prometheus(apr_bucket_brigade *bb, const snap_t *snap)
{
    say_family(bb, "bosh_info", "Version of mod_bosh.");
    SAY("bosh_info{version=\"" BOSH_VERSION "\"} 1\n");
    for (size_t i = 0; i < NROWS; i++) {
        if (rows[i].help != NULL) {
            say_family(bb, rows[i].family, rows[i].help);
        }
        say_sample(bb, snap, &rows[i]);
    }
    say_family(bb, "bosh_peer_state", "1 for the state a process is in.");
    for (const peer_t *p = next_peer(snap, 0); p != NULL; p = next_peer(snap, p->index)) {
        SAY("bosh_peer_state{peer=\"%u\",state=\"%s\"} 1\n", p->index, state_name(p->state));
    }
    say_family(bb, "bosh_peer_heartbeat_age_seconds", "Since the last heartbeat of its loop.");
    for (const peer_t *p = next_peer(snap, 0); p != NULL; p = next_peer(snap, p->index)) {
        SAY("bosh_peer_heartbeat_age_seconds{peer=\"%u\"} " NUM ".%03u\n", p->index,
            p->heartbeat / 1000, (unsigned)(p->heartbeat % 1000));
    }
    for (size_t c = 0; c < NCOLUMNS; c++) {
        say_family(bb, columns[c].family, columns[c].help);
        for (const peer_t *p = next_peer(snap, 0); p != NULL; p = next_peer(snap, p->index)) {
            SAY("%s{peer=\"%u\"} " NUM "\n", columns[c].family, p->index, peer_value(p, c));
        }
    }
}

/* ---- the handler ---- */

typedef struct format_t {
    const char *name, *type;
    void (*print)(apr_bucket_brigade *bb, const snap_t *snap);
} format_t;

static const format_t formats[] = {
    {"html", "text/html; charset=utf-8", print_html},
    {"json", "application/json", print_json},
    {"prometheus", "text/plain; version=0.0.4; charset=utf-8", print_prometheus},
};

/* The format that `format=` in the query asks for, the first when it does not; NULL: no such one. */
static const format_t *choose_format(request_rec *r)
{
    char *args = r->args != NULL ? apr_pstrdup(r->pool, r->args) : NULL, *rest = NULL;

    for (char *word = args != NULL ? apr_strtok(args, "&", &rest) : NULL; word != NULL;
         word = apr_strtok(NULL, "&", &rest)) {
        if (strncmp(word, "format=", 7) != 0) {
            continue;
        }
        for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
            if (strcmp(word + 7, formats[i].name) == 0) {
                return &formats[i];
            }
        }
        return NULL;
    }
    return &formats[0];
}

static int handle(request_rec *r)
{
    apr_table_t *h = r->err_headers_out;
    const format_t *format;
    apr_bucket_brigade *bb;
    apr_off_t len = 0;

    if (r->handler == NULL || strcmp(r->handler, "bosh-status") != 0) {
        return DECLINED;
    }
    apr_table_setn(h, "Cache-Control", "no-store");
    apr_table_setn(h, "X-Content-Type-Options", "nosniff");
    apr_table_setn(
        h, "Content-Security-Policy",
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
    if (r->method_number != M_GET) { /* which is HEAD as well */
        apr_table_setn(h, "Allow", "GET, HEAD");
        return bosh_respond_text(r, HTTP_METHOD_NOT_ALLOWED, "GET and HEAD are the methods here\n");
    }
    format = choose_format(r);
    if (format == NULL) {
        return bosh_respond_text(r, HTTP_BAD_REQUEST, "format= is html, json or prometheus\n");
    }
    if (loop == NULL) {
        return bosh_respond_text(r, HTTP_SERVICE_UNAVAILABLE,
                                 "This process cannot serve BOSH; the error log says why.\n");
    }
    bb = apr_brigade_create(r->pool, r->connection->bucket_alloc);
    format->print(bb, take_snapshot(r->pool));
    apr_brigade_length(bb, 1, &len);
    ap_set_content_type(r, format->type);
    ap_set_content_length(r, len);
    APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_eos_create(bb->bucket_alloc));
    ap_pass_brigade(r->output_filters, bb);
    return OK;
}

/* ---- mod_status ---- */

/* Its page is plain text of "Name: value" lines with ?auto, else HTML in which we are a section. */
static int add_to_mod_status(request_rec *r, int flags)
{
    bool brief = (flags & AP_STATUS_SHORT) != 0;
    const snap_t *snap;

    if (loop == NULL) {
        if (!brief) {
            ap_rputs("<hr />\n<h2>mod_bosh</h2>\n<p>This process cannot serve BOSH.</p>\n", r);
        }
        return OK;
    }
    snap = take_snapshot(r->pool);
    if (!brief) {
        ap_rputs("<hr />\n<h2>mod_bosh " BOSH_VERSION "</h2>\n<dl>\n", r);
    }
    for (size_t i = 0; i < NROWS; i++) {
        if (rows[i].brief != NULL) {
            ap_rprintf(r, brief ? "%s: " NUM "\n" : "<dt>%s: " NUM "</dt>\n",
                       brief ? rows[i].brief : rows[i].text, value(snap, &rows[i]));
        }
    }
    if (!brief) {
        ap_rputs("</dl>\n", r);
    }
    return OK;
}

void bosh_status_child_init(bosh_loop_t *with)
{
    loop = with;
}

void bosh_status_register(apr_pool_t *p)
{
    (void)p;
    ap_hook_handler(handle, NULL, NULL, APR_HOOK_MIDDLE);
    APR_OPTIONAL_HOOK(ap, status_hook, add_to_mod_status, NULL, NULL, APR_HOOK_MIDDLE);
}
