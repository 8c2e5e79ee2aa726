/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Going where a server sends us. Called by bosh_up.c and bosh_secure.c on the loop thread.
 */
#include "bosh_elsewhere.h"

#include <arpa/inet.h>
#include <string.h>

#include "bosh_dial.h"
#include "bosh_down.h"
#include "bosh_route.h"

#define PORT        5222
#define PORT_DIRECT 5223

/* An address or name of this very host. What only looks like an address is looked up in DNS. */
static bool is_here(const char *host)
{
    unsigned char v4[4];

    return strcmp(host, "localhost") == 0 || strcmp(host, "::1") == 0 ||
           (inet_pton(AF_INET, host, v4) == 1 && v4[0] == 127);
}

/* Whether the way there may be taken: without TLS only because the server is on this host, it ends here. */
static bool may_go(const bosh_stream_t *st, const char *host)
{
    return !st->target->near || bosh_dial_policy(st) != BOSH_TLS_OFF || is_here(host);
}

/* Nothing of the old stream is left in the record. False: the session is no longer ours. */
static bool forget(bosh_streams_t *ss, bosh_stream_t *st)
{
    bosh_session_t *s = bosh_stream_lock(ss, st);

    if (s == NULL) {
        return false;
    }
    bosh_bytes_clear(ss->arena, &s->link.raw);
    bosh_bytes_clear(ss->arena, &s->link.prime);
    s->link.flags &= (uint8_t) ~(BOSH_LINK_HAS_HEADER | BOSH_LINK_KEPT);
    s->link.phase = st->phase = BOSH_LINK_CONNECT; /* bosh_dial.c says it, too, with its deadline */
    bosh_stream_unlock(ss);
    return true;
}

bool bosh_elsewhere_go(bosh_streams_t *ss, bosh_stream_t *st, const char *text, size_t n)
{
    char host[BOSH_MAX_DOMAIN + 1];
    bosh_slice_t name;
    unsigned port;

    if (st->sent_on || st->phase >= BOSH_LINK_OPEN || st->dial == NULL || n == 0 ||
        !bosh_route_elsewhere(text, n, &name, &port)) {
        return false;
    }
    memcpy(host, name.p, name.n);
    host[name.n] = '\0';
    if (port == 0) {
        port = bosh_dial_policy(st) == BOSH_TLS_DIRECT ? PORT_DIRECT : PORT;
    }
    if (!may_go(st, host)) {
        bosh_stream_log(ss, st, BOSH_LOG_INFO,
                        "the server sends us to %s, port %u, without TLS; to go there needs tls= "
                        "in its BoshUpstream line",
                        host, port);
        return false;
    }
    bosh_stream_log(ss, st, BOSH_LOG_INFO, "the server sends us to %s, port %u", host, port);
    st->sent_on = true;
    bosh_down_say(ss, st, BOSH_STREAM_END, sizeof(BOSH_STREAM_END) - 1);
    st->write_dead = false; /* that was of the old connection */
    if (forget(ss, st) && !bosh_dial_elsewhere(ss, st, host, (apr_port_t)port)) {
        bosh_stream_over(ss, st, BOSH_COND_INTERNAL_SERVER_ERROR, "no memory to go elsewhere");
    }
    return true;
}
