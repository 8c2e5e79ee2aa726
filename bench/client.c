/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A BOSH client: logs in, keeps one poll waiting, sends its messages over the other connection. Invariants:
 * at most two requests are unanswered; answers are processed in the order of their rids, whichever came first;
 * nothing but a terminal body ends a session.
 */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NS "http://jabber.org/protocol/httpbind"

static int open_requests(const session_t *s)
{
    return (s->req[0].rid != 0) + (s->req[1].rid != 0);
}

static void print_body(session_t *s, buf_t *b)
{
    buf_say(b, "<body rid='%llu' xmlns='" NS "'", (unsigned long long)s->rid);
    if (s->phase == CREATING) {
        buf_say(
            b,
            " to='%s' wait='%d' hold='1' ver='1.6' xml:lang='en'"
            " content='text/xml; charset=utf-8' xmpp:version='1.0' xmlns:xmpp='urn:xmpp:xbosh'/>",
            load.opt.domain, s->kind == IDLER ? load.opt.idle_wait : load.opt.wait);
        return;
    }
    buf_say(b, " sid='%s'", s->sid);
    if (s->restart) {
        buf_say(b, " xmpp:restart='true' to='%s' xmlns:xmpp='urn:xmpp:xbosh'/>", load.opt.domain);
        s->restart = false;
    } else {
        if (s->terminate && !s->terminated) {
            buf_say(b, " type='terminate'");
            s->terminated = true;
        }
        buf_say(b, ">");
        buf_add(b, s->outbox.p, s->outbox.n);
        buf_say(b, "</body>");
        s->outbox.n = 0;
    }
}

static void post(session_t *s, conn_t *c, request_t *req, const buf_t *body)
{
    req->rid = s->rid;
    req->sent_at = now_us();
    req->answered = false;
    req->bytes.n = 0;
    buf_say(
        &req->bytes,
        "POST /http-bind HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml; charset=utf-8\r\n"
        "%sContent-Length: %zu\r\n\r\n",
        load.opt.gzip ? "Accept-Encoding: gzip, deflate, br\r\n" : "", body->n);
    buf_add(&req->bytes, body->p, body->n);
    load.count.requests++;
    http_send(c, req);
}

static void send_request(session_t *s)
{
    request_t *req = &s->req[s->req[0].rid != 0];
    conn_t *c = &s->conn[s->conn[0].req != NULL];
    buf_t body = {0};

    /* An open connection rather than a new one. */
    if (c == &s->conn[0] && c->w.fd < 0 && s->conn[1].req == NULL && s->conn[1].w.fd >= 0) {
        c = &s->conn[1];
    }
    s->rid++;
    print_body(s, &body);
    post(s, c, req, &body);
    buf_free(&body);
}

/* Sends what there is to send, and keeps a poll waiting. */
static void pump(session_t *s)
{
    if (s->stream != NULL) {
        stream_pump(s);
        return;
    }
    while (s->phase != OVER && !s->ended && open_requests(s) < 2 &&
           (s->sid[0] != '\0' || s->rid == s->done_rid)) {
        bool something = s->restart || s->outbox.n > 0 || (s->terminate && !s->terminated);
        if (!something && open_requests(s) > 0) {
            return;
        }
        if (!something && s->terminated && s->phase == LEAVING) {
            return;
        }
        send_request(s);
    }
}

static void finish(session_t *s)
{
    s->phase = OVER;
    for (int i = 0; i < 2; i++) {
        http_close(&s->conn[i]);
        buf_free(&s->req[i].bytes);
        buf_free(&s->req[i].answer);
        s->req[i].rid = 0;
    }
    buf_free(&s->outbox);
    timer_off(&s->talk);
    timer_off(&s->push);
    stream_close(s);
    sink_forget(s);
    load_over(s);
}

/* ---- messages ---- */

static int64_t pace(void)
{
    return (int64_t)(SECOND / load.opt.rate);
}

void client_message(session_t *s)
{
    buf_say(&s->outbox,
            "<message xmlns='jabber:client' to='peer@%s' type='chat'><body>U %u %u %u %lld</body>"
            "</message>",
            load.opt.domain, s->index, s->gen, s->up.sent++, (long long)now_us());
    pump(s);
}

static void talk(clock_timer_t *t)
{
    session_t *s = OWNER(t, session_t, talk);

    if (!load.stopping) {
        timer_set(t, t->at + pace());
        client_message(s);
    }
}

static void push(clock_timer_t *t)
{
    session_t *s = OWNER(t, session_t, push);

    if (!load.stopping) {
        timer_set(t, t->at + pace());
        sink_message(s);
    }
}

void client_pushes(session_t *s)
{
    timer_off(&s->push);
    if (s->kind == LISTENER && s->phase == LIVE && load.opt.rate > 0) {
        timer_set(&s->push, now_us() + dice((uint32_t)pace()));
    }
}

/* In a closed loop: the next one when this one is answered. */
static void send_ping(session_t *s)
{
    s->pinged_at = now_us();
    buf_say(
        &s->outbox,
        "<iq xmlns='jabber:client' type='get' to='%s' id='p%u'><ping xmlns='urn:xmpp:ping'/></iq>",
        load.opt.domain, s->ping.sent++);
    pump(s);
}

static void pong(session_t *s, const xml_t *x)
{
    char id[16] = "", type[16] = "";
    unsigned number;

    (void)xml_attr(x, "type", type, sizeof(type));
    if (!xml_attr(x, "id", id, sizeof(id)) || sscanf(id, "p%u", &number) != 1 ||
        number >= s->ping.sent || strcmp(type, "result") != 0) {
        load.count.misrouted++;
        complain("s%u.%u: no answer to a ping of ours: %.*s", s->index, s->gen, (int)x->n, x->p);
        return;
    }
    if (flow_number(s, &s->ping, number, "pong")) {
        load.count.pings++;
        hist_add(&load.ping, now_us() - s->pinged_at);
        if (s->phase == LIVE && !load.stopping && !load.paused) {
            send_ping(s);
        }
    }
}

static void go_live(session_t *s)
{
    s->phase = LIVE;
    hist_add(&load.login, now_us() - s->began);
    load_live(s);
    if (s->kind == TALKER && load.opt.rate > 0) {
        timer_set(&s->talk, now_us() + dice((uint32_t)pace()));
        timer_set(&s->push, now_us() + dice((uint32_t)pace()));
    } else if (s->kind == LISTENER) {
        client_pushes(s);
    } else if (s->kind == PINGER) {
        send_ping(s);
    } else if (s->kind == GUEST && load.opt.guests_talk) {
        client_message(s); /* the sink answers it, then the guest leaves */
    } else if (s->kind == GUEST) {
        client_leave(s);
    }
}

/* ---- logging in ---- */

/* What the login waits for in each phase, and what follows. */
static void log_in(session_t *s, const xml_t *x)
{
    if (s->phase == FEATURES && xml_is(x, "stream:features")) {
        s->phase = AUTH;
        buf_say(&s->outbox,
                "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>");
    } else if (s->phase == AUTH && xml_is(x, "success")) {
        s->phase = RESTART;
        s->restart = true;
    } else if (s->phase == RESTART && xml_is(x, "stream:features")) {
        s->phase = BIND;
        buf_say(&s->outbox,
                "<iq xmlns='jabber:client' type='set' id='bind'><bind "
                "xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
                "<resource>r%u.%u</resource></bind></iq>",
                s->index, s->gen);
    } else if (s->phase == BIND && xml_is(x, "iq") && xml_has(x, "<jid>")) {
        const char *jid = xml_after(x, "<jid>");
        snprintf(s->jid, sizeof(s->jid), "%.*s", (int)strcspn(jid, "<"), jid);
        s->phase = SESSION;
        buf_say(&s->outbox, "<iq xmlns='jabber:client' type='set' id='sess'>"
                            "<session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq>");
    } else if (s->phase == SESSION && xml_is(x, "iq")) {
        go_live(s);
    } else if (s->phase < LIVE) {
        complain("s%u.%u in phase %d: what is this: %.*s", s->index, s->gen, (int)s->phase,
                 (int)(x->n < 200 ? x->n : 200), x->p);
    }
}

void client_element(session_t *s, const xml_t *x)
{
    if (xml_is(x, "message")) {
        flow_receive(s, false, x);
        if (s->kind == GUEST && s->phase == LIVE) {
            client_leave(s);
        }
    } else if (s->kind == PINGER && s->phase >= LIVE && xml_is(x, "iq")) {
        pong(s, x);
    } else {
        log_in(s, x);
    }
}

/* ---- answers ---- */

/* A terminal body. */
static void over(session_t *s, const xml_t *body)
{
    char condition[64] = "none";

    s->ended = true;
    (void)xml_attr(body, "condition", condition, sizeof(condition));
    if (s->phase == LEAVING && s->terminated) {
        load.count.odd_logouts += strcmp(condition, "none") != 0;
        return;
    }
    load_lost(s, condition);
}

/* One answer, in its turn. */
static void process(session_t *s, const char *p, size_t n)
{
    xml_t x;
    size_t used;
    char type[32] = "";

    if (xml_next(p, n, true, &x, &used) != XML_HEAD || !xml_is(&x, "body")) {
        complain("s%u: no body: %.*s", s->index, (int)(n < 200 ? n : 200), p);
        load.count.http_errors++;
        return;
    }
    xml_t body = x;
    if (s->phase == CREATING && xml_attr(&x, "sid", s->sid, sizeof(s->sid))) {
        s->phase = FEATURES;
    }
    (void)xml_attr(&x, "type", type, sizeof(type));
    while (!body.closed) {
        p += used;
        n -= used;
        xml_kind_t kind = xml_next(p, n, false, &x, &used);
        if (kind == XML_END) {
            break;
        }
        if (kind != XML_ELEMENT) {
            complain("s%u: a body that is not whole", s->index);
            load.count.http_errors++;
            break;
        }
        client_element(s, &x);
    }
    if (strcmp(type, "terminate") == 0) {
        over(s, &body);
    }
}

/* All answers whose turn it is; after a terminal one there are no more. */
static void process_ready(session_t *s)
{
    bool more = true;

    while (more) {
        more = false;
        for (int i = 0; i < 2; i++) {
            request_t *req = &s->req[i];
            if (!s->ended && req->rid == s->done_rid + 1 && req->answered) {
                buf_t answer = req->answer;
                memset(&req->answer, 0, sizeof(req->answer));
                req->rid = 0;
                s->done_rid++;
                process(s, answer.p, answer.n);
                buf_free(&answer);
                more = true;
            }
        }
    }
}

/* ---- no session ---- */

static void send_post(session_t *s)
{
    request_t *req = &s->req[0];
    buf_t body = {0};

    buf_say(&body, "<body rid='%llu' xmlns='" NS "' sid='%s'>", (unsigned long long)++s->rid,
            s->sid);
    buf_say(
        &body,
        "<iq xmlns='jabber:client' type='get' to='%s' id='p%u'><ping xmlns='urn:xmpp:ping'/></iq>",
        load.opt.domain, s->ping.sent++);
    buf_say(&body, "</body>");
    post(s, &s->conn[0], req, &body);
    buf_free(&body);
}

/* A whole answer of the trivial handler's. */
static void post_answered(session_t *s, request_t *req, const char *body, size_t n)
{
    req->rid = 0;
    s->done_rid++;
    s->ping.got++;
    load.count.posts++;
    if (n < 7 || memcmp(body, "<body ", 6) != 0 || memcmp(body + n - 7, "</body>", 7) != 0) {
        load.count.http_errors++;
    }
    if (s->phase == CREATING) {
        s->phase = LIVE;
        load_live(s);
    }
    if (!load.stopping && load.opt.paced) {
        timer_set(&s->talk, s->talk.at + pace());
    } else if (!load.stopping && !load.paused) {
        send_post(s);
    }
}

static void go_on(clock_timer_t *t)
{
    session_t *s = OWNER(t, session_t, push);
    bool idle = s->phase == LIVE && s->ping.sent == s->ping.got && !load.paused && !load.stopping;

    if (idle && s->kind == PINGER) {
        send_ping(s);
    } else if (idle && s->kind == POSTER) {
        send_post(s);
    }
}

void client_resume(session_t *s)
{
    if (s->kind == PINGER || (s->kind == POSTER && !load.opt.paced)) {
        s->push.fire = go_on;
        timer_set(&s->push, now_us() + dice(SECOND / 50)); /* not all at once */
    }
}

static void post_due(clock_timer_t *t)
{
    session_t *s = OWNER(t, session_t, talk);

    if (!load.stopping) {
        send_post(s);
    }
}

bool client_answer(session_t *s, request_t *req, int status, const char *body, size_t n)
{
    xml_t x;
    size_t used;
    char type[16] = "";

    if (status != 200) {
        complain("s%u: HTTP status %d", s->index, status);
        load.count.http_errors++;
        return s->phase == OVER;
    }
    if (s->kind == POSTER) {
        post_answered(s, req, body, n);
        return true;
    }
    if (xml_next(body, n, true, &x, &used) == XML_HEAD &&
        xml_attr(&x, "type", type, sizeof(type)) && strcmp(type, "error") == 0) {
        load.count.recoverable++; /* 17.3: the same request once more */
        return false;
    }
    req->answered = true;
    buf_add(&req->answer, body, n);
    load.count.overtaken += req->rid != s->done_rid + 1;
    process_ready(s);
    if (s->ended || (s->terminated && open_requests(s) == 0)) {
        load.count.logouts += s->phase == LEAVING;
        finish(s);
    } else {
        pump(s);
    }
    return true;
}

void client_leave(session_t *s)
{
    if (s->phase == OVER) {
        return;
    }
    s->phase = LEAVING;
    s->terminate = true;
    timer_off(&s->talk);
    timer_off(&s->push);
    if (s->kind == POSTER) { /* nothing is under way any more */
        load.count.logouts++;
        finish(s);
    } else {
        pump(s);
    }
}

void client_stream_over(session_t *s, const char *why)
{
    s->ended = true;
    if (s->phase == LEAVING) {
        load.count.logouts++;
    } else {
        load_lost(s, why);
    }
    finish(s);
}

/* Some managers answer the terminate request and forget the one that they hold, or forget both. */
static bool left_unanswered(const session_t *s)
{
    for (int i = 0; i < 2; i++) {
        const request_t *req = &s->req[i];
        if (s->terminated && req->rid == s->rid &&
            now_us() - req->sent_at > load.opt.patience * SECOND) {
            return true;
        }
    }
    return false;
}

void client_sweep(session_t *s)
{
    int64_t limit = (s->kind == IDLER ? load.opt.idle_wait : load.opt.wait) + 15;

    if (left_unanswered(s)) {
        load.count.unanswered++;
        finish(s);
    }
    for (int i = 0; i < 2; i++) {
        request_t *req = s->conn[i].req;
        if (req != NULL && now_us() - req->sent_at > limit * SECOND) {
            complain("s%u.%u: no answer to rid %llu within %lld s, phase %d", s->index, s->gen,
                     (unsigned long long)req->rid, (long long)limit, (int)s->phase);
            load.count.hung++;
            req->sent_at = now_us();
            http_hang_up(&s->conn[i]);
        }
    }
}

void client_start(session_t *s, uint32_t index, kind_t kind)
{
    uint32_t gen = s->gen;

    memset(s, 0, sizeof(*s));
    s->index = index;
    s->gen = gen + 1;
    s->kind = kind;
    s->rid = s->done_rid = 1000000 + dice(1 << 30);
    s->talk.fire = talk;
    s->push.fire = push;
    s->began = now_us();
    http_open(&s->conn[0], s);
    http_open(&s->conn[1], s);
    if (kind == POSTER) {
        memset(s->sid, 'a', 32);
        s->talk.fire = post_due;
        s->talk.at = now_us() + dice((uint32_t)pace());
        send_post(s);
    } else if (load.opt.tcp || kind == PUSHER) {
        stream_open(s);
    } else {
        pump(s);
    }
}
