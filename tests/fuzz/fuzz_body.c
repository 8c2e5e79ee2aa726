/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Request bodies. Whatever comes in: what is accepted goes to the server as that many well-formed
 * elements, none of which is the stream's own; and a second parse with the same object gives the
 * same.
 */
#include <stdint.h>

#include "bosh_body.h"
#include "bosh_split.h"
#include "../unit/xml_canon.h"

#define REQUIRE(x)                                                                                 \
    do {                                                                                           \
        if (!(x)) {                                                                                \
            fprintf(stderr, "fuzz_body: not true: %s (line %d)\n", #x, __LINE__);                  \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* The payload as text; touches every string of the request. */
static text_t describe(const bosh_req_t *req, text_t *payload)
{
    const char *const strings[] = {req->sid,    req->to,          req->from, req->route,
                                   req->lang,   req->content,     req->key,  req->newkey,
                                   req->stream, req->xmpp_version};
    text_t t = {0};
    size_t bytes = 0, stanzas = 0;

    text_printf(&t, "%x %llu %llu %u %u %u %u.%u %d %d\n", req->has, (unsigned long long)req->rid,
                (unsigned long long)req->ack, req->wait, req->hold, req->pause, req->ver_major,
                req->ver_minor, req->terminate, req->restart);
    for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++) {
        text_puts(&t, strings[i] != NULL ? strings[i] : "-");
        text_puts(&t, "\n");
    }
    text_puts(payload, "");
    for (size_t i = 0; i < req->npieces; i++) {
        text_add(payload, req->pieces[i].p, req->pieces[i].n);
        bytes += req->pieces[i].n;
        stanzas += req->pieces[i].last;
    }
    REQUIRE(bytes == req->payload_bytes && stanzas == req->nstanzas);
    text_puts(&t, payload->p);
    return t;
}

static void check_payload(const bosh_req_t *req, const text_t *payload)
{
    bosh_splitter_t *sp = bosh_split_create(SIZE_MAX);
    text_t doc = {0}, canon = {0};
    const bosh_split_event_t *ev;
    const char *prime, *why = "";
    size_t len, n;

    REQUIRE(sp != NULL);
    prime = bosh_split_default_prime(&len);
    REQUIRE(bosh_split_begin(sp, prime, len) == APR_SUCCESS);
    /* A wrapper's depth is a stream's depth, so what one takes the other must take. */
    REQUIRE(bosh_split_feed(sp, payload->p, payload->n, &why) == APR_SUCCESS ||
            strstr(why, "too many"));
    ev = bosh_split_events(sp, &n);
    if (strstr(why, "too many") ==
        NULL) { /* declarations are added to what may already be the maximum */
        REQUIRE(n == req->nstanzas);
        REQUIRE(bosh_split_at_boundary(sp));
    }
    for (size_t i = 0; i < n; i++) {
        REQUIRE(ev[i].type == BOSH_SPLIT_STANZA || ev[i].type == BOSH_SPLIT_SASL ||
                ev[i].type == BOSH_SPLIT_TLS);
    }
    text_add(&doc, prime, len);
    text_add(&doc, payload->p, payload->n);
    text_puts(&doc, "</stream:stream>");
    REQUIRE(canon_children(&canon, doc.p, doc.n));
    free(doc.p);
    free(canon.p);
    bosh_split_destroy(sp);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bosh_body_t *b = bosh_body_create();
    bosh_req_t req;
    text_t payload = {0}, first, second;
    const char *why = NULL;
    apr_status_t rv;

    REQUIRE(b != NULL);
    rv = bosh_body_parse(b, (const char *)data, size, &req, &why);
    REQUIRE((rv == APR_SUCCESS && why == NULL) || (rv == APR_EGENERAL && why != NULL));
    first = describe(&req, &payload);
    if (rv == APR_SUCCESS) {
        REQUIRE((req.has & BOSH_HAS_RID) && req.rid >= 1 && req.rid <= BOSH_RID_MAX);
        check_payload(&req, &payload);
    }
    REQUIRE(bosh_body_parse(b, (const char *)data, size, &req, NULL) == rv);
    payload.n = 0;
    second = describe(&req, &payload);
    REQUIRE(strcmp(first.p, second.p) == 0);
    free(first.p);
    free(second.p);
    free(payload.p);
    bosh_body_destroy(b);
    return 0;
}
