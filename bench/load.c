/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is counted, who is started when, commands on standard input, the report on standard output (a JSON
 * object a line). Everything runs on this one thread. `bosh-load --help` says how to use it.
 */
#include "load.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

load_t load;

/* ---- messages counted ---- */

bool flow_number(session_t *s, flow_t *f, uint32_t number, const char *what)
{
    if (number >= f->next) { /* those between are missing, until they come late */
        uint32_t step = number + 1 - f->next;
        f->missing = (step < 64 ? f->missing << step : 0) |
                     (((UINT64_C(1) << (step < 64 ? step : 63)) - 1) & ~UINT64_C(1));
        f->next = number + 1;
    } else {
        uint32_t back = f->next - 1 - number;
        if (back < 64 && (f->missing >> back & 1)) {
            f->missing &= ~(UINT64_C(1) << back);
            load.count.disordered++;
            complain("s%u.%u: %s %u is out of order", s->index, s->gen, what, number);
        } else {
            load.count.doubled++;
            complain("s%u.%u: %s %u came twice", s->index, s->gen, what, number);
            return false;
        }
    }
    f->got++;
    return true;
}

void flow_arrive(session_t *s, flow_t *f, bool up, uint32_t number, int64_t sent_at)
{
    int64_t took = now_us() - sent_at;

    if (!flow_number(s, f, number, up ? "message up" : "message down")) {
        return;
    }
    load.count.up += up;
    load.count.down += !up;
    hist_add(up ? &load.up : &load.down, took);
    if (load.mark != 0 && now_us() > load.mark &&
        sent_at < load.mark + (int64_t)(load.opt.window * SECOND)) {
        hist_add(up ? &load.window_up : &load.window_down, took);
        f->worst = took > f->worst ? took : f->worst;
    }
}

void flow_receive(session_t *s, bool up, const xml_t *message)
{
    const char *text = xml_after(message, "<body>");
    unsigned index, gen, number;
    long long at;
    char line[96], direction;
    size_t n = text != NULL ? message->n - (size_t)(text - message->p) : 0;

    n = n < sizeof(line) - 1 ? n : sizeof(line) - 1;
    memcpy(line, text != NULL ? text : "", n);
    line[n] = '\0';
    if (sscanf(line, "%c %u %u %u %lld", &direction, &index, &gen, &number, &at) != 5 ||
        direction != (up ? 'U' : 'D') || index != s->index || gen != s->gen) {
        load.count.misrouted++;
        complain("s%u.%u got what is not its own: %.*s", s->index, s->gen, (int)message->n,
                 message->p);
        return;
    }
    flow_arrive(s, up ? &s->up : &s->down, up, number, at);
}

static uint64_t under_way(const session_t *s)
{
    return (uint64_t)(s->up.sent - s->up.got) + (s->down.sent - s->down.got) +
           (s->ping.sent - s->ping.got);
}

/* ---- sessions ---- */

static uint32_t wanted, started; /* all but guests */
static clock_timer_t guests_timer;
static uint64_t guests_started;

static session_t *new_session(void)
{
    load.sessions = grown(load.sessions, (load.nsessions + 1) * sizeof(*load.sessions));
    load.sessions[load.nsessions] = calloc(1, sizeof(session_t));
    if (load.sessions[load.nsessions] == NULL) {
        abort();
    }
    return load.sessions[load.nsessions++];
}

/* Of the one that is started next: those that make work first. */
static kind_t next_kind(void)
{
    const options_t *o = &load.opt;
    const struct {
        int n;
        kind_t kind;
    } order[] = {
        {o->talkers, TALKER}, {o->listeners, LISTENER}, {o->pingers, PINGER}, {o->posters, POSTER}};
    int before = (int)started;

    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
        if (before < order[i].n) {
            return order[i].kind;
        }
        before -= order[i].n;
    }
    return IDLER;
}

static void start_some(void)
{
    while (started < wanted && load.logging_in < (uint32_t)load.opt.at_once) {
        session_t *s = new_session();
        kind_t kind = next_kind();
        load.logging_in++;
        started++;
        client_start(s, load.nsessions - 1, kind);
    }
}

static void start_guest(void)
{
    uint32_t i = wanted;

    while (i < load.nsessions && load.sessions[i]->phase != OVER) {
        i++;
    }
    if (i == load.nsessions) {
        (void)new_session();
    }
    load.guests++;
    guests_started++;
    client_start(load.sessions[i], i, GUEST);
}

static void guests_due(clock_timer_t *t)
{
    const options_t *o = &load.opt;

    if (load.stopping || started < wanted || load.live < wanted) {
        return;
    }
    if (o->parallel > 0) {
        while (load.guests < (uint32_t)o->parallel && guests_started < (uint64_t)o->logins) {
            start_guest();
        }
    } else if (o->guests > 0) {
        if (load.guests < 1000) {
            start_guest();
        }
        timer_set(t, now_us() + (int64_t)(SECOND / o->guests));
    }
}

static void say_ready(void)
{
    printf("{\"event\": \"ready\", \"live\": %u}\n", load.live);
    timer_set(&guests_timer, now_us());
}

void load_live(session_t *s)
{
    static unsigned pushers;

    if (s->kind == PUSHER) {
        if (++pushers == PUSHERS) {
            start_some();
        }
        return;
    }
    load.count.logins++;
    if (s->kind != GUEST) {
        load.logging_in--;
        load.live++;
        start_some();
        if (load.live == wanted) {
            say_ready();
        }
    }
}

void load_lost(session_t *s, const char *why)
{
    load.count.lost_sessions++;
    complain("s%u.%u: LOST in phase %d: %s", s->index, s->gen, (int)s->phase, why);
}

void load_over(session_t *s)
{
    if (s->ended && under_way(s) > 0) {
        load.count.lost_with_session += under_way(s);
        s->up.sent = s->up.got;
        s->down.sent = s->down.got;
        s->ping.sent = s->ping.got;
    }
    if (s->kind == GUEST) {
        load.guests--;
        if (load.opt.parallel > 0) {
            timer_set(&guests_timer, now_us());
        }
    }
}

/* ---- the end ---- */

static int64_t stop_at; /* the latest */
static uint32_t leaving;
static clock_timer_t stop_timer;

static void report(const char *event, bool fold);

static void finish_up(void)
{
    const counts_t *c = &load.count;

    report("end", true);
    fflush(stdout);
    exit(c->lost_sessions + c->lost + c->lost_with_session + c->doubled + c->disordered +
                     c->misrouted + c->http_errors + c->hung + c->unanswered >
                 0
             ? 1
             : 0);
}

/* First all that is under way arrives, then everybody leaves, a few at a time. */
static void stop_step(clock_timer_t *t)
{
    uint64_t open = 0, here = 0;

    for (uint32_t i = 0; i < load.nsessions; i++) {
        session_t *s = load.sessions[i];
        open += s->phase != OVER && under_way(s) > 0;
        here += s->phase != OVER;
    }
    if (leaving == 0 && open > 0 && now_us() < stop_at) {
        timer_set(t, now_us() + 20000);
        return;
    }
    if (leaving == 0) {
        for (uint32_t i = 0; i < load.nsessions; i++) {
            load.count.lost += under_way(load.sessions[i]);
            if (under_way(load.sessions[i]) > 0) {
                const session_t *s = load.sessions[i];
                complain("s%u: up %u of %u, down %u of %u, pings %u of %u arrived", i, s->up.got,
                         s->up.sent, s->down.got, s->down.sent, s->ping.got, s->ping.sent);
            }
        }
        stop_at = now_us() + (load.opt.patience + 20) * SECOND;
    }
    if (here == 0 || (leaving >= load.nsessions && now_us() > stop_at)) {
        if (here > 0) {
            complain("%llu sessions did not leave", (unsigned long long)here);
        }
        finish_up();
    }
    for (int n = 0; n < 20 && leaving < load.nsessions; n++) {
        session_t *s = load.sessions[leaving++];
        if (s->phase == LIVE || s->phase < LIVE) {
            client_leave(s);
        }
    }
    timer_set(t, now_us() + 5000);
}

static void stop(void)
{
    load.stopping = true;
    stop_at = now_us() + load.opt.patience * SECOND;
    stop_timer.fire = stop_step;
    timer_set(&stop_timer, now_us());
}

/* ---- the report ---- */

static void say_hist(const char *name, const hist_t *h)
{
    printf(", \"%s\": {\"n\": %llu, \"p50\": %lld, \"p90\": %lld, \"p99\": %lld, \"max\": %lld}",
           name, (unsigned long long)h->n, (long long)hist_at(h, 0.5), (long long)hist_at(h, 0.9),
           (long long)hist_at(h, 0.99), (long long)h->max);
}

#define SAY(field) printf(", \"" #field "\": %llu", (unsigned long long)load.count.field)

/* The longest latency of each session in the window; its messages in the next one count anew. */
static void close_window(void)
{
    for (uint32_t i = 0; i < load.nsessions; i++) {
        session_t *s = load.sessions[i];
        int64_t worst = s->up.worst > s->down.worst ? s->up.worst : s->down.worst;
        if (s->kind != GUEST && worst > 0) {
            hist_add(&load.pause, worst);
        }
        s->up.worst = s->down.worst = 0;
    }
    hist_join(&load.all_up, &load.window_up);
    hist_join(&load.all_down, &load.window_down);
    hist_join(&load.all_pause, &load.pause);
}

/* Figures of all time and of the window since the mark, which ends with this unless it is a mere look. */
static void report(const char *event, bool fold)
{
    if (fold && load.mark != 0) {
        close_window();
    }
    printf("{\"event\": \"%s\", \"live\": %u, \"guests\": %u", event, load.live, load.guests);
    SAY(lost_sessions), SAY(lost), SAY(lost_with_session), SAY(doubled), SAY(disordered);
    SAY(misrouted), SAY(up), SAY(down), SAY(pings), SAY(posts), SAY(logins), SAY(logouts),
        SAY(odd_logouts);
    SAY(requests), SAY(resent), SAY(broken), SAY(connects), SAY(connect_failures), SAY(overtaken);
    SAY(recoverable), SAY(http_errors), SAY(hung), SAY(unanswered), SAY(streams),
        SAY(streams_broken);
    say_hist("login_us", &load.login);
    say_hist("connect_us", &load.connect);
    say_hist("up_us", &load.up);
    say_hist("down_us", &load.down);
    say_hist("ping_us", &load.ping);
    say_hist("window_up_us", &load.window_up);
    say_hist("window_down_us", &load.window_down);
    say_hist("window_session_us", &load.pause);
    say_hist("windows_up_us", &load.all_up);
    say_hist("windows_down_us", &load.all_down);
    say_hist("windows_session_us", &load.all_pause);
    printf("}\n");
    if (fold) {
        hist_clear(&load.window_up);
        hist_clear(&load.window_down);
        hist_clear(&load.pause);
    }
}

/* ---- commands ---- */

static void poke(clock_timer_t *t)
{
    session_t *s = OWNER(t, session_t, push);

    sink_message(s);
}

/* One message to each idle session, at a random moment of the next seconds. */
static void poke_all(double seconds)
{
    for (uint32_t i = 0; i < load.nsessions; i++) {
        session_t *s = load.sessions[i];
        if ((s->kind == IDLER || s->kind == LISTENER) && s->phase == LIVE) {
            s->push.fire = poke;
            timer_set(&s->push, now_us() + dice((uint32_t)(seconds * SECOND)));
        }
    }
}

static void command(const char *line)
{
    if (strncmp(line, "mark", 4) == 0) {
        double at = atof(line + 4);
        load.mark = at > 0 ? (int64_t)(at * SECOND) : now_us();
    } else if (strncmp(line, "report", 6) == 0) {
        report("report", true);
    } else if (strncmp(line, "look", 4) == 0) {
        report("look", false);
    } else if (strncmp(line, "poke", 4) == 0) {
        poke_all(atof(line + 4));
    } else if (strncmp(line, "rate", 4) == 0) {
        load.opt.rate = atof(line + 4);
        for (uint32_t i = 0; i < load.nsessions; i++) {
            client_pushes(load.sessions[i]);
        }
    } else if (strncmp(line, "pause", 5) == 0) {
        load.paused = true;
    } else if (strncmp(line, "resume", 6) == 0) {
        load.paused = false;
        for (uint32_t i = 0; i < load.nsessions; i++) {
            client_resume(load.sessions[i]);
        }
    } else if (strncmp(line, "stop", 4) == 0) {
        stop();
    } else {
        complain("no such command: %s", line);
    }
}

static void commands(watch_t *w, uint32_t events)
{
    static char line[256];
    static size_t n;
    ssize_t got = read(w->fd, line + n, sizeof(line) - 1 - n);
    char *end;

    (void)events;
    if (got <= 0) {
        watch_close(w);
        if (!load.stopping) {
            stop();
        }
        return;
    }
    n += (size_t)got;
    line[n] = '\0';
    while ((end = strchr(line, '\n')) != NULL) {
        *end = '\0';
        command(line);
        n -= (size_t)(end + 1 - line);
        memmove(line, end + 1, n + 1);
    }
}

/* ---- start ---- */

static void prepare(void)
{
    struct rlimit files;

    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    loop_open();
    sink_listen();
    printf("{\"event\": \"sink\", \"port\": %d}\n", load.sink_port);
}

/* The manager is started when it knows the sink's port; its own is told with "go PORT". */
static void wait_for_go(void)
{
    char line[64];

    if (fgets(line, sizeof(line), stdin) == NULL || strncmp(line, "go", 2) != 0) {
        exit(2);
    }
    if (atoi(line + 2) > 0) {
        load.opt.port = atoi(line + 2);
    }
}

static void sweep(clock_timer_t *t)
{
    for (uint32_t i = 0; i < load.nsessions; i++) {
        if (load.sessions[i]->phase != OVER) {
            client_sweep(load.sessions[i]);
        }
    }
    if (load.opt.parallel > 0 && !load.stopping && guests_started >= (uint64_t)load.opt.logins &&
        load.guests == 0) {
        stop();
    }
    timer_set(t, now_us() + (load.opt.parallel > 0 ? 20000 : SECOND));
}

int main(int argc, char **argv)
{
    static watch_t input;
    static clock_timer_t sweeper;

    options_read(argc, argv);
    prepare();
    wait_for_go();
    input.ready = commands;
    watch_add(&input, 0, EPOLLIN);
    sweeper.fire = sweep;
    timer_set(&sweeper, now_us());
    loop_turn(); /* waiting for "go" has taken time */
    wanted = (uint32_t)(load.opt.talkers + load.opt.listeners + load.opt.pingers +
                        load.opt.posters + load.opt.idlers);
    guests_timer.fire = guests_due;
    if (wanted == 0) {
        say_ready();
    }
    if (load.opt.server != 0) {
        pushers_start(); /* the others when these are there */
    } else {
        start_some();
    }
    for (;;) {
        loop_turn();
    }
}
