/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fixed script of the session machine, for callgrind to count (tests/tools/budget.py): what a stanza costs on
 * its way down (parse, apply, collect) and up (append, print). No clock, no socket, no randomness.
 *
 * Each part is a function of its own that callgrind is told to look at, and calls src/core alone.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bosh_session.h"
#include "bosh_undo.h"

#define ROUNDS 200
#define PART   __attribute__((noinline, noclone, used))
#define BODY   "<body xmlns='" BOSH_NS_HTTPBIND "' sid='%s' rid='%llu'"
#define MESSAGE                                                                                    \
    "<message xmlns='jabber:client' to='juliet@example.com' type='chat'><body>Art thou not Romeo," \
    " and a Montague?</body></message>"
#define PRESENCE                                                                                   \
    "<presence xmlns='jabber:client' "                                                             \
    "to='room@example.com/me'><x:x>1</x:x><show>away</show></presence>"
#define HEADER                                                                                     \
    "<stream:stream xmlns='jabber:client' xmlns:stream='" BOSH_NS_STREAMS                          \
    "' id='s1' from='example.com' version='1.0'><stream:features/>"

static bosh_arena_t arena;
static bosh_body_t *body;
static bosh_splitter_t *sp;
static bosh_req_t req;
static bosh_verdict_t v;
static bosh_ix session_index;
static uint32_t session_serial;
static uint64_t raw_base;
static char text[16384], out[65536];
static size_t text_n;
static const bosh_limits_t lim = {.max_wait = 60,
                                  .max_hold = 1,
                                  .max_requests = 2,
                                  .inactivity = 30,
                                  .maxpause = 120,
                                  .queue_size = 1 << 20,
                                  .answer_size = 65536,
                                  .max_repeats = 25};
static const bosh_client_t client = {.ip = "192.0.2.1"};

static void must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "script: %s\n", what);
        exit(1);
    }
}

static bosh_session_t *session(void)
{
    bosh_session_t *s = bosh_arena_get(&arena, session_index, session_serial);

    must(s != NULL, "the session is gone");
    return s;
}

static bosh_holder_t holder(uint64_t rid)
{
    return (bosh_holder_t){1, (uint32_t)rid, 1};
}

/* ---- the parts ---- */

PART void part_parse(void)
{
    must(bosh_body_parse(body, text, text_n, &req, NULL) == APR_SUCCESS, "parse");
}

PART void part_apply(apr_time_t now)
{
    bosh_session_request(&arena, now, &req, &lim, &client, holder(req.rid), &v);
    bosh_arena_commit(&arena);
}

PART size_t part_collect(apr_time_t now)
{
    bosh_session_t *s = session();
    size_t n;

    bosh_arena_touch(&arena, s);
    n = bosh_queue_peek(&arena, &s->link.down, out, sizeof(out));
    bosh_queue_consume(&arena, &s->link.down, n);
    bosh_session_sent(&arena, now, s, &lim);
    bosh_arena_commit(&arena);
    return n;
}

PART void part_append(apr_time_t now, const char *p, size_t n)
{
    bosh_session_t *s = session();
    const bosh_split_event_t *ev;
    size_t nev, done;

    bosh_arena_touch(&arena, s);
    must(bosh_bytes_append(&arena, &s->link.raw, p, n, BOSH_PRIO_INPUT) == APR_SUCCESS, "raw");
    must(bosh_split_feed(sp, p, n, NULL) == APR_SUCCESS, "feed");
    ev = bosh_split_events(sp, &nev);
    must(bosh_session_up(&arena, now, s, ev, nev, bosh_split_header(sp), bosh_split_boundary(sp),
                         &raw_base, &done) == APR_SUCCESS,
         "up");
    bosh_split_clear(sp);
    bosh_arena_commit(&arena);
}

PART size_t part_print(apr_time_t now, uint64_t rid)
{
    v.rid = rid;
    v.session = session_index;
    v.serial = session_serial;
    bosh_session_poll(&arena, now, &lim, true, holder(rid), &v);
    must(v.act == BOSH_DO_SEND, "print");
    bosh_arena_commit(&arena);
    return bosh_session_read(&arena, v.session, v.serial, v.rid, 0, out, sizeof(out));
}

/* ---- the script ---- */

static void begin(void)
{
    static const uint8_t sid[BOSH_SID_BYTES] = {1, 2, 3};
    bosh_arena_sizes_t sizes = {.peers = 2, .sessions = 16, .slots = 8, .chunks = 1024};
    void *mem = aligned_alloc(4096, (bosh_arena_size(&sizes) + 4095) / 4096 * 4096);

    memset(mem, 0, bosh_arena_size(&sizes));
    must(bosh_arena_format(mem, &sizes, &arena) == APR_SUCCESS, "format");
    bosh_arena_peer_claim(&arena, 1, 0, 1);
    bosh_arena_peer_claim(&arena, 2, 0, 1);
    body = bosh_body_create();
    sp = bosh_split_create(1 << 20);
    text_n = (size_t)snprintf(text, sizeof(text),
                              "<body xmlns='" BOSH_NS_HTTPBIND "' rid='1000' to='example.com' "
                              "wait='60' hold='1' ver='1.6' xml:lang='en'/>");
    part_parse();
    bosh_session_create(&arena, 1000, &req, &lim, sid, "example.com", &client, 2, 0, holder(1000),
                        &v);
    session_index = v.session;
    session_serial = v.serial;
    session()->link.phase = BOSH_LINK_HEADER;
    must(bosh_split_begin(sp, NULL, 0) == APR_SUCCESS, "begin");
}

static void request(uint64_t rid, int kind)
{
    static const char *const payload[] = {
        "/>", ">" MESSAGE "</body>",
        " xmlns:x='urn:x'>" PRESENCE PRESENCE PRESENCE PRESENCE MESSAGE MESSAGE MESSAGE MESSAGE
        "</body>"};
    char sid[BOSH_SID_LEN + 1];

    bosh_arena_sid_text(session(), sid);
    text_n = (size_t)snprintf(text, sizeof(text), BODY "%s", sid, (unsigned long long)rid,
                              payload[kind]);
}

static void no_mail(void)
{
    bosh_mail_t m[64];
    bool overflow;

    for (uint32_t peer = 1; peer <= 2; peer++) {
        while (bosh_arena_mail_take(&arena, peer, m, 64, &overflow) > 0) {
        }
    }
    session()->link.flags &= (uint8_t)~BOSH_LINK_MAILED;
}

int main(void)
{
    static const char up[] = MESSAGE MESSAGE "<presence from='a@example.com/b'/>";
    apr_time_t now = 2000;
    uint64_t rid = 1000;

    begin();
    part_append(now, HEADER, sizeof(HEADER) - 1);
    must(part_print(now, rid) > 0, "creation");
    for (int i = 0; i < ROUNDS; i++) {
        now += APR_USEC_PER_SEC;
        request(++rid, i % 3);
        part_parse();
        part_apply(now);
        must(v.act == BOSH_DO_HOLD, "hold");
        must((part_collect(now) > 0) == (i % 3 != 0), "collect");
        part_append(now, up, sizeof(up) - 1);
        must(part_print(now, rid) > sizeof(up), "answer");
        no_mail();
    }
    return 0;
}
