/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Script syntax. Whatever comes in a query: a text that is a whole request gives the server the same as by POST,
 * no more and no less; and whatever goes out is one string of JavaScript that says just that.
 */
#include <stdint.h>

#include "bosh_script.h"
#include "../unit/xml_canon.h"

#define REQUIRE(x)                                                                                 \
    do {                                                                                           \
        if (!(x)) {                                                                                \
            fprintf(stderr, "fuzz_script: not true: %s (line %d)\n", #x, __LINE__);                \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static text_t payload_of(const bosh_req_t *req)
{
    text_t t = {0};

    text_puts(&t, "");
    for (size_t i = 0; i < req->npieces; i++) {
        text_add(&t, req->pieces[i].p, req->pieces[i].n);
    }
    return t;
}

/* As a session joins it: false, or the payload. */
static bool joined(bosh_body_t *b, const char *text, size_t len, bosh_req_t *req, text_t *payload)
{
    bosh_piece_t pieces[2];
    const char *why;
    text_t whole = {0};
    size_t used;
    bool ok;

    if (bosh_script_parse(b, text, len, pieces, req, &why) != APR_SUCCESS) {
        return false;
    }
    REQUIRE(req->script);
    if (!req->raw) {
        *payload = payload_of(req);
        return true;
    }
    text_add(&whole, pieces[0].p, pieces[0].n);
    text_add(&whole, pieces[1].p, pieces[1].n);
    ok = bosh_body_parse_open(b, whole.p, whole.n, req, &used, &why) == APR_SUCCESS;
    REQUIRE(!ok || (used >= pieces[0].n && used <= whole.n));
    ok = ok && strspn(whole.p + used, " \t\r\n") == whole.n - used; /* nothing is left for later */
    if (ok) {
        *payload = payload_of(req);
    }
    free(whole.p);
    return ok;
}

/* Whether the text is a request. */
static bool check_request(const char *text, size_t len)
{
    bosh_body_t *x = bosh_body_create(), *y = bosh_body_create();
    bosh_req_t plain, script;
    text_t one = {0}, other = {0};
    bool whole, same;

    REQUIRE(x != NULL && y != NULL);
    whole = bosh_body_parse(x, text, len, &plain, NULL) == APR_SUCCESS;
    same = joined(y, text, len, &script, &other);
    REQUIRE(whole == same);
    if (whole) {
        one = payload_of(&plain);
        REQUIRE(one.n == other.n && memcmp(one.p, other.p, one.n) == 0);
        REQUIRE(plain.rid == script.rid && plain.nstanzas == script.nstanzas);
    }
    free(one.p);
    free(other.p);
    bosh_body_destroy(x);
    bosh_body_destroy(y);
    return whole;
}

static uint32_t unit(const char *p)
{
    char digits[5] = {p[0], p[1], p[2], p[3], '\0'};

    return (uint32_t)strtoul(digits, NULL, 16);
}

/* The string that the call says. */
static void check_answer(const char *body, size_t len)
{
    size_t n = bosh_script_print(NULL, body, len), at = 0;
    char *script = malloc(n);

    REQUIRE(bosh_script_print(script, body, len) == n && n >= len + 10);
    REQUIRE(memcmp(script, "_BOSH_(\"", 8) == 0 && memcmp(script + n - 2, "\")", 2) == 0);
    for (size_t i = 8; i < n - 2; i++) {
        unsigned char c = (unsigned char)script[i];
        REQUIRE(c != '\n' && c != '\r' && c != '<' && c != '"');
        if (c != '\\') {
            REQUIRE(at < len && body[at++] == script[i]);
        } else if (script[++i] == 'u') {
            uint32_t u = unit(script + i + 1);
            size_t bytes = u < 0x80 ? 1 : u < 0x800 ? 2 : u >= 0xD800 && u < 0xE000 ? 2 : 3;
            REQUIRE(at + bytes <= len && (u != 0x3C || body[at] == '<')); /* a half of a pair: 2 */
            at += bytes;
            i += 4;
        } else {
            REQUIRE(at < len && strchr("\"\\nr/", script[i]) != NULL);
            REQUIRE(body[at] == (script[i] == 'n' ? '\n' : script[i] == 'r' ? '\r' : script[i]));
            at++;
        }
    }
    REQUIRE(at == len);
    free(script);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1), *script;
    size_t n;

    REQUIRE(text != NULL);
    if (bosh_script_decode(text, (const char *)data, size, &n)) {
        REQUIRE(n <= size);
        if (check_request(text, n)) { /* so it is UTF-8, as what goes out is */
            check_answer(text, n);
        }
    }
    n = bosh_script_print(NULL, (const char *)data,
                          size); /* any bytes: nothing is read or written beyond */
    script = malloc(n);
    REQUIRE(script != NULL && bosh_script_print(script, (const char *)data, size) == n);
    free(script);
    free(text);
    return 0;
}
