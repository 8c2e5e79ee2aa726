/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counts the workers that have a connection, and lets them wait for a client's next request. Called by bosh_park.c
 * on the worker that has the connection; shared by all workers are nothing but counts.
 */
#include "bosh_stay.h"

#include <poll.h>
#include <unistd.h>

#include <apr_portable.h>

#include <ap_mpm.h>
#include <http_connection.h>
#include <scoreboard.h>

#include "bosh_whole.h"

/* Long enough for a client nearby on a busy machine; looked up now and then, for others may need the worker. */
#define STAY 50 /* ms */
#define LOOK 10

#define MAX_MISSES 6 /* after them one answer in 64 is waited after */

static int busy, most; /* `most` is set once, in child_init */
static uint64_t worth, vain;

void bosh_stay_child_init(int workers)
{
    most = workers * 3 / 4;
}

void bosh_stay_begin(void)
{
    __atomic_add_fetch(&busy, 1, __ATOMIC_RELAXED);
}

void bosh_stay_end(void)
{
    __atomic_sub_fetch(&busy, 1, __ATOMIC_RELAXED);
}

/* Event accepts connections by the number of idle workers (AsyncRequestWorkerFactor), and says here when it has
 * stopped. The parent writes our pid there, and may not have done so yet. */
static bool accepting(void)
{
    static const process_score *found;
    const process_score *ps = __atomic_load_n(&found, __ATOMIC_RELAXED);
    int n = 0;

    if (ps == NULL && ap_mpm_query(AP_MPMQ_HARD_LIMIT_DAEMONS, &n) == APR_SUCCESS) {
        for (int i = 0; i < n && ps == NULL; i++) {
            ps = ap_get_scoreboard_process(i);
            ps = ps != NULL && ps->pid == getpid() ? ps : NULL;
        }
        __atomic_store_n(&found, ps, __ATOMIC_RELAXED);
    }
    return ps == NULL || !ps->not_accepting;
}

bool bosh_stay_affordable(void)
{
    return __atomic_load_n(&busy, __ATOMIC_RELAXED) <= most && accepting();
}

/* As the MPM does it before it waits itself. False: the client is slow, or gone; the MPM will see. */
static bool send_all(conn_rec *c)
{
    ap_filter_t *f = bosh_whole_last(c);

    return f->frec->filter_func.out_func(f, NULL) == APR_SUCCESS && !c->data_in_output_filters;
}

/* True: something has come, if only the end. */
static bool wait_for_client(conn_rec *c)
{
    apr_int64_t most_ms = apr_time_as_msec(c->base_server->keep_alive_timeout);
    struct pollfd fd = {.events = POLLIN};
    int n = 0;

    if (apr_os_sock_get(&fd.fd, ap_get_conn_socket(c)) != APR_SUCCESS) {
        return false;
    }
    if (most_ms > STAY) {
        most_ms = STAY;
    }
    ap_update_child_status(c->sbh, SERVER_BUSY_KEEPALIVE, NULL);
    for (int ms = 0; n == 0 && ms < most_ms && (ms == 0 || bosh_stay_affordable()); ms += LOOK) {
        n = poll(&fd, 1, LOOK);
    }
    return n > 0;
}

static bool expects_more(const conn_rec *c)
{
    return c->cs->state == CONN_STATE_WRITE_COMPLETION && c->keepalive == AP_CONN_KEEPALIVE &&
           !c->aborted && !c->data_in_input_filters;
}

bool bosh_stay_worth(bosh_stay_t *s)
{
    if (s->skip > 0) {
        s->skip--;
        return false;
    }
    return true;
}

void bosh_stay_learn(bosh_stay_t *s, bool came)
{
    __atomic_add_fetch(came ? &worth : &vain, 1, __ATOMIC_RELAXED);
    if (came) {
        s->misses = 0;
        return;
    }
    if (s->misses < MAX_MISSES) {
        s->misses++;
    }
    s->skip = (uint8_t)((1U << s->misses) - 1);
}

void bosh_stay(conn_rec *c, bosh_stay_t *s, bool stopping)
{
    bool came;

    if (!s->ours || stopping || !expects_more(c) || !bosh_stay_worth(s) ||
        !bosh_stay_affordable() || !send_all(c)) {
        return;
    }
    came = wait_for_client(c);
    bosh_stay_learn(s, came);
    if (came) {
        c->data_in_input_filters =
            1; /* the MPM then processes the connection again, instead of polling it */
    }
}

void bosh_stay_count(uint64_t *came, uint64_t *stayed_away)
{
    *came = __atomic_load_n(&worth, __ATOMIC_RELAXED);
    *stayed_away = __atomic_load_n(&vain, __ATOMIC_RELAXED);
}
