/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Anything in any order, in a session with several streams: requests with and without a stream, repeats, broken
 * connections, adds, closes, servers that talk, end or die, time. What must hold: the arena (checked after each step,
 * each section done twice), the order of what goes through each stream and that nothing of it comes twice or to
 * another, one stream in an answer, and that nothing is left behind.
 */
#include "session_env.h"

#include "bosh_back.h"
#include "bosh_multi.h"

#define MOST 64

/* A stream, and what went through it. */
typedef struct stream_t {
    bosh_ix index;
    uint32_t serial;
    bosh_splitter_t *sp;
    uint64_t raw_base;
    char name[BOSH_SID_LEN + 1];
    bool over;            /* its server has ended it, or its connection is closed */
    unsigned said, heard; /* by its server, and how far the client has got */
    unsigned last_down;   /* the number of the last message that its server got */
} stream_t;

static stream_t streams[MOST];
static int nstreams, at;
static bosh_ix root;
static uint32_t root_serial;
static uint64_t rid;
static unsigned down;
static int target[1024]; /* of that message to the servers: a stream, or all of them: -1 */
static int seen;         /* connections whose answers have been looked at */

static uint64_t seed;

static unsigned pick(unsigned n)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(seed >> 33) % n;
}

static bosh_session_t *trunk(void)
{
    return bosh_arena_get(&E->a, root, root_serial);
}

static void use(int n)
{
    streams[at].raw_base = E->raw_base;
    at = n;
    E->index = streams[n].index;
    E->serial = streams[n].serial;
    E->sp = streams[n].sp;
    E->raw_base = streams[n].raw_base;
}

static void note_stream(const bosh_session_t *s)
{
    stream_t *st = &streams[nstreams++];

    memset(st, 0, sizeof(*st));
    st->index = bosh_arena_index(&E->a, s);
    st->serial = s->serial;
    st->sp = bosh_split_create(1 << 20);
    bosh_multi_name(s, st->name);
}

static void note_new_streams(void)
{
    bosh_session_t *s = trunk();

    for (bosh_session_t *b = s != NULL && s->branch != 0 ? bosh_arena_session(&E->a, s->branch)
                                                         : NULL;
         b != NULL; b = b->branch != 0 ? bosh_arena_session(&E->a, b->branch) : NULL) {
        bool known = false;
        for (int i = 0; i < nstreams; i++) {
            known = known || (streams[i].index == bosh_arena_index(&E->a, b) &&
                              streams[i].serial == b->serial);
        }
        if (!known) {
            note_stream(b);
        }
    }
}

/* ---- what the client sees ---- */

static int named_in(const char *text)
{
    const char *p = strstr(text, " stream='"), *end = strchr(text, '>');

    for (int i = 0; p != NULL && p < end && i < nstreams; i++) {
        if (strncmp(p + 9, streams[i].name, BOSH_SID_LEN) == 0) {
            return i;
        }
    }
    return -1;
}

/* Messages are "<message ... id='STREAM.NUMBER'/>". */
static void look_at_answer(const char *text)
{
    int n = named_in(text);

    for (const char *p = strstr(text, "id='m"); p != NULL; p = strstr(p + 1, "id='m")) {
        unsigned number;
        int of;
        ck_assert_int_eq(sscanf(p, "id='m%d.%u'", &of, &number), 2);
        ck_assert_msg(n < 0 || n == of, "of stream %d in an answer of %d: %s", of, n, text);
        ck_assert_msg(n == of || nstreams == 1, "nobody's: %s", text);
        ck_assert_msg(number == streams[of].heard + 1, "stream %d: %u after %u", of, number,
                      streams[of].heard);
        streams[of].heard = number;
    }
}

static void look_at_answers(void)
{
    /* In the order of their rids, which is how they were composed. */
    for (;;) {
        int first = -1;
        for (int i = seen; i < E->nconns; i++) {
            conn_t *c = &E->conns[i];
            if (c->answer != NULL && c->v.serial != UINT32_MAX &&
                (first < 0 || c->v.rid < E->conns[first].v.rid)) {
                first = i;
            }
        }
        if (first < 0) {
            return;
        }
        look_at_answer(answer(first));
        E->conns[first].v.serial = UINT32_MAX; /* done */
        while (seen < E->nconns && E->conns[seen].v.serial == UINT32_MAX) {
            seen++;
        }
    }
}

/* ---- what the servers see ---- */

static void take_down(int n)
{
    const char *text;

    use(n);
    if (session() == NULL || session()->link.phase != BOSH_LINK_OPEN) {
        use(0);
        return;
    }
    text = sent();
    for (const char *p = strstr(text, "id='d"); p != NULL; p = strstr(p + 1, "id='d")) {
        unsigned number;
        ck_assert_int_eq(sscanf(p, "id='d%u", &number), 1);
        ck_assert_uint_gt(number, streams[n].last_down);
        ck_assert(target[number] < 0 || target[number] == n);
        streams[n].last_down = number;
    }
    if (strstr(text, "[C]") != NULL && session() != NULL) {
        session()->link.phase = BOSH_LINK_CLOSING;
    }
    use(0);
}

/* Its loop: gives back, connects, closes. */
static void step_of_loop(int n)
{
    static char text[1 << 20];
    bosh_session_t *s;
    bool whole;

    use(n);
    s = session();
    if (s != NULL && s->link.phase == BOSH_LINK_CONNECT) {
        if (pick(4) == 0) {
            link_over(BOSH_COND_REMOTE_CONNECTION_FAILED);
        } else {
            char attrs[80];
            snprintf(attrs, sizeof(attrs), "id='i%d' from='s%d' version='1.0'", n, n);
            server_header(attrs);
        }
    } else if (s != NULL && s->link.phase == BOSH_LINK_FEATURES) {
        server("<stream:features><x xmlns='urn:x'/></stream:features>");
    } else if (s != NULL && s->link.phase == BOSH_LINK_CLOSING) {
        link_over(BOSH_COND_NONE);
    }
    s = session();
    while (s != NULL && (s->flags & BOSH_SESS_BACK)) {
        size_t len = bosh_back_take(&E->a, s, text, sizeof(text), &whole);
        bosh_arena_commit(&E->a);
        if (len > 0 && !whole) { /* the client may not get this any more */
            unsigned number;
            int of;
            const char *p = strstr(text, "id='m");
            text[len] = '\0';
            if (p != NULL && sscanf(p, "id='m%d.%u'", &of, &number) == 2) {
                ck_assert_int_eq(of, n);
                ck_assert_uint_gt(number, streams[n].heard);
                streams[n].heard = number;
            }
        }
        if (len == 0) {
            break;
        }
    }
    s = session();
    if (s != NULL && s->link.phase == BOSH_LINK_OPEN && bosh_multi_state(s) != BOSH_ST_LIVE &&
        s->link.down.items == 0) {
        s->link.phase = BOSH_LINK_CLOSING;
    }
    use(0);
    settle();
}

static void speak(int n)
{
    char text[4000];
    bosh_session_t *s;

    use(n);
    s = session();
    if (s != NULL && s->link.phase == BOSH_LINK_OPEN) {
        snprintf(text, sizeof(text),
                 "<message xmlns='jabber:client' id='m%d.%u'><body>%0*d</body></message>", n,
                 ++streams[n].said, (int)(1 + pick(3) * 1500), 7);
        server(text);
    }
    use(0);
}

static void end_of(int n)
{
    use(n);
    if (session() != NULL && session()->link.phase != BOSH_LINK_CLOSED &&
        session()->link.phase != BOSH_LINK_NONE) {
        if (session()->link.phase == BOSH_LINK_OPEN && pick(2) == 0) {
            server("<stream:error><reset "
                   "xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>");
        }
        link_over(pick(2) == 0 ? BOSH_COND_NONE : BOSH_COND_REMOTE_CONNECTION_FAILED);
    }
    use(0);
}

/* ---- requests ---- */

static void request(uint64_t r, const char *attrs, const char *payload, bool adds)
{
    static char text[8192];
    const bosh_client_t who = {.ip = "192.0.2.1"};
    bosh_opening_t how = {.to = "x.example",
                          .cond = adds && pick(8) == 0 ? BOSH_COND_HOST_UNKNOWN : BOSH_COND_NONE,
                          .owner = pick(2) ? E->owner : E->peer};
    bosh_req_t q;
    int n;

    n = snprintf(text, sizeof(text),
                 "<body xmlns='" BOSH_NS_HTTPBIND "' xmlns:xmpp='" BOSH_NS_XBOSH
                 "' sid='%s' rid='%llu' %s>%s</body>",
                 E->sid, (unsigned long long)r, attrs, payload);
    ck_assert_int_eq(bosh_body_parse(E->body, text, (size_t)n, &q, NULL), APR_SUCCESS);
    for (size_t k = 0; k < sizeof(how.name); k++) {
        how.name[k] = (uint8_t)pick(256);
    }
    q.opening = adds ? &how : NULL;
    arrive(&who, &q);
    note_new_streams();
}

static unsigned open_requests(void)
{
    unsigned n = 0;

    for (int c = E->nconns > 12 ? E->nconns - 12 : 0; c < E->nconns; c++) {
        n += held(c);
    }
    return n;
}

static unsigned open_streams(void)
{
    unsigned n = 0;

    for (int i = 0; i < nstreams; i++) {
        const bosh_session_t *s = bosh_arena_get(&E->a, streams[i].index, streams[i].serial);
        n += s != NULL && bosh_multi_state(s) != BOSH_ST_TOMB;
    }
    return n;
}

static void some_request(void)
{
    char attrs[200], payload[3200] = "";
    uint64_t r = ++rid;

    int of = -1;

    attrs[0] = '\0';
    if (pick(2)) {
        do { /* nearly always one that there is */
            of = (int)pick((unsigned)nstreams);
        } while (bosh_arena_get(&E->a, streams[of].index, streams[of].serial) == NULL &&
                 pick(50) != 0);
        snprintf(attrs, sizeof(attrs), "stream='%s'", streams[of].name);
    }
    switch (pick(12)) {
    case 0:
    case 1:
        if (open_streams() >= E->lim.max_streams && pick(40) != 0) {
            return (void)--rid;
        }
        request(r, "to='x.example' xml:lang='de'", "", true);
        return;
    case 2:
        strcat(attrs, " type='terminate'");
        if ((of < 0 || open_streams() < 2) && pick(20) != 0) { /* all of it: now and then */
            return (void)--rid;
        }
        break;
    case 3:
        strcat(attrs, " xmpp:restart='true' to='y'");
        request(r, attrs, "", false);
        return;
    case 4:
        strcat(attrs, " pause='5'");
        request(r, attrs, "", false);
        return;
    case 5:
        request(r, attrs, "", false);
        return;
    default:
        break;
    }
    target[down + 1] = of;
    snprintf(payload, sizeof(payload),
             "<message xmlns='jabber:client' id='d%u'><body>%0*d</body></message>", ++down,
             (int)(1 + pick(2) * 3000), 5);
    request(r, attrs, payload, false);
}

static void step(void)
{
    int n =
        pick(2) ? (int)pick((unsigned)nstreams) : nstreams - 1 - (int)pick(nstreams > 2 ? 3 : 1);

    switch (pick(12)) {
    case 0:
    case 1:
    case 2:
        if (open_requests() < 2 || pick(60) == 0) { /* nearly always what it may */
            some_request();
        }
        break;
    case 3:
    case 4:
        speak(n);
        break;
    case 5:
        take_down(n);
        break;
    case 6:
    case 7:
        step_of_loop(n);
        break;
    case 8:
        if (pick(10) == 0) {
            end_of(n);
        }
        break;
    case 9:
        pass((apr_time_t)((pick(20) == 0 ? 17 : pick(4)) * SEC));
        break;
    case 10:
        if (E->nconns > 0 && pick(4) == 0) {
            int c = E->nconns - 1 - (int)pick(2);
            if (c >= 0 && held(c)) {
                hang_up(c);
                request(E->conns[c].v.rid, "", "", false); /* and again */
            }
        }
        break;
    default:
        for (int c = E->nconns - 3; c < E->nconns; c++) {
            if (c >= 0 && held(c) && pick(4) == 0) {
                poll_conn(c, true);
                settle();
            }
        }
        break;
    }
    look_at_answers();
}

START_TEST(test_anything_in_any_order)
{
    seed = (uint64_t)_i * 7919 + 1;
    env_open_sized(64, 4096);
    E->lim.max_streams = 2 + pick(3);
    E->lim.returns = pick(2) != 0;
    E->lim.queue_size = 20000;
    E->lim.answer_size = pick(2) ? 2000 : 65536;
    E->lim.login_time = pick(3) == 0 ? 40 : 0;
    nstreams = at = seen = 0;
    down = 0;
    rid = 1000;
    {
        const bosh_client_t who = {.ip = "192.0.2.1"};
        const char *text =
            "<body xmlns='" BOSH_NS_HTTPBIND "' rid='1000' to='example.com' wait='5' "
            "hold='1' ver='1.6'/>";
        bosh_opening_t how = {.name = {1, 2, 3, (uint8_t)_i}};
        bosh_req_t q;
        bosh_splitter_t *sp = E->sp;
        ck_assert_int_eq(bosh_body_parse(E->body, text, strlen(text), &q, NULL), APR_SUCCESS);
        q.opening = &how;
        arrive(&who, &q);
        root = E->index;
        root_serial = E->serial;
        note_stream(session());
        bosh_split_destroy(sp);
        E->sp = streams[0].sp;
    }
    for (int i = 0; i < 600 && trunk() != NULL && trunk()->state != BOSH_ST_TOMB &&
                    nstreams < MOST - 2 && E->nconns < CONNS - 8;
         i++) {
        step();
    }
    /* Everybody leaves. */
    for (int i = 0; i < 200 && E->a.h->nsessions > 0; i++) {
        pass(5 * SEC);
        for (int n = 0; n < nstreams; n++) {
            take_down(n);
            step_of_loop(n);
        }
        look_at_answers();
    }
    ck_assert_uint_eq(E->a.h->nsessions, 0);
    use(0);
    for (int n = 1; n < nstreams; n++) {
        bosh_split_destroy(streams[n].sp);
    }
    env_close();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("multi_random");
    TCase *tc = tcase_create("multi_random");
    SRunner *sr;
    int failed;

    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, test_anything_in_any_order, 0, 40);
    suite_add_tcase(suite, tc);
    sr = srunner_create(suite);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
