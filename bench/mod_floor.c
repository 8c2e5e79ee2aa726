/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The floor of `make bench`: the least that httpd does for a POST when a handler reads its body and answers it
 * with as many bytes as an answer of mod_bosh to a ping has. Reached as most handlers are: <Location> and
 * SetHandler. Any thread; it has no state.
 */
#include "httpd.h"
#include "http_config.h"
#include "http_protocol.h"

#include <string.h>

static const char answer[] =
    "<body xmlns='http://jabber.org/protocol/httpbind' ack='1234567890'>"
    "<iq xmlns='jabber:client' type='result' id='p123456' from='example.com' "
    "to='r1234.1@example.com/r1234.1'/></body>";

static int handle(request_rec *r)
{
    char room[4096];
    long n;
    int rv;

    if (r->handler == NULL || strcmp(r->handler, "floor") != 0) {
        return DECLINED;
    }
    rv = ap_setup_client_block(r, REQUEST_CHUNKED_DECHUNK);
    if (rv != OK) {
        return rv;
    }
    if (ap_should_client_block(r)) {
        while ((n = ap_get_client_block(r, room, sizeof(room))) > 0) {
        }
        if (n < 0) {
            return HTTP_BAD_REQUEST;
        }
    }
    ap_set_content_type(r, "text/xml; charset=utf-8");
    ap_set_content_length(r, sizeof(answer) - 1);
    ap_rwrite(answer, sizeof(answer) - 1, r);
    return OK;
}

static void register_hooks(apr_pool_t *p)
{
    (void)p;
    ap_hook_handler(handle, NULL, NULL, APR_HOOK_MIDDLE);
}

AP_DECLARE_MODULE(floor) = {
    STANDARD20_MODULE_STUFF, NULL, NULL, NULL, NULL, NULL, register_hooks, 0,
};
