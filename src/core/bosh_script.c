/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text of XEP-0252, both ways. No state; called by workers without a lock.
 */
#include "bosh_script.h"

#include <string.h>

/* ---- requests ---- */

static int hex(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool bosh_script_decode(char *dst, const char *src, size_t len, size_t *n)
{
    char *at = dst;

    for (size_t i = 0; i < len; i++) {
        if (src[i] != '%') {
            *at++ = src[i];
            continue;
        }
        if (len - i < 3 || hex(src[i + 1]) < 0 || hex(src[i + 2]) < 0) {
            return false;
        }
        *at++ = (char)(hex(src[i + 1]) << 4 | hex(src[i + 2]));
        i += 2;
    }
    *n = (size_t)(at - dst);
    return true;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static const char *skip_space(const char *p, const char *end)
{
    while (p < end && is_space(*p)) {
        p++;
    }
    return p;
}

/* Past a byte order mark, an XML declaration and white space; what they are worth the parser says. */
static const char *skip_prolog(const char *p, const char *end)
{
    if (end - p >= 3 && memcmp(p, "\xEF\xBB\xBF", 3) == 0) {
        p += 3;
    }
    if (end - p >= 5 && memcmp(p, "<?xml", 5) == 0) {
        while (end - p >= 2 && memcmp(p, "?>", 2) != 0) {
            p++;
        }
        p = end - p >= 2 ? p + 2 : end;
    }
    return skip_space(p, end);
}

/* Behind the `>` of the tag that p is in: one within quotes is part of a value. NULL: it does not end. */
static const char *tag_end(const char *p, const char *end)
{
    char quote = '\0';

    for (; p < end; p++) {
        if (quote != '\0') {
            quote = *p == quote ? '\0' : quote;
        } else if (*p == '"' || *p == '\'') {
            quote = *p;
        } else if (*p == '>') {
            return p + 1;
        }
    }
    return NULL;
}

/* Where the end tag of this name begins that is the last thing of the text; NULL: something else is. */
static const char *end_tag(const char *from, const char *end, bosh_slice_t name)
{
    const char *p = end;

    while (p > from && is_space(p[-1])) {
        p--;
    }
    if (p == from || *--p != '>') {
        return NULL;
    }
    while (p > from && is_space(p[-1])) {
        p--;
    }
    if ((size_t)(p - from) < name.n + 2) {
        return NULL;
    }
    p -= name.n + 2;
    return memcmp(p, "</", 2) == 0 && memcmp(p + 2, name.p, name.n) == 0 ? p : NULL;
}

bool bosh_script_cut(const char *text, size_t len, bosh_slice_t *head, bosh_slice_t *content)
{
    const char *end = text + len;
    const char *p = skip_prolog(text, end);
    const char *close;
    bosh_slice_t name;

    if (p == end || *p != '<') {
        return false;
    }
    name.p = ++p;
    while (p < end && !is_space(*p) && *p != '/' && *p != '>') {
        p++;
    }
    name.n = (size_t)(p - name.p);
    p = tag_end(p, end);
    if (name.n == 0 || p == NULL) {
        return false;
    }
    head->p = text;
    head->n = (size_t)(p - text);
    if (p[-2] == '/') {
        content->p = NULL;
        content->n = 0;
        return skip_space(p, end) == end;
    }
    close = end_tag(p, end, name);
    if (close == NULL) {
        return false;
    }
    content->p = p;
    content->n = (size_t)(close - p);
    return true;
}

apr_status_t bosh_script_parse(bosh_body_t *b, const char *text, size_t len, bosh_piece_t pieces[2],
                               bosh_req_t *req, const char **why)
{
    bosh_slice_t head, content;
    apr_status_t rv;
    size_t used;

    if (!bosh_script_cut(text, len, &head, &content)) {
        rv = bosh_body_parse(b, text, len, req, why); /* for the reason, and the sid (B-044) */
        if (rv == APR_SUCCESS) {
            *why = "no wrapper";
        }
        return rv == APR_ENOMEM ? rv : APR_EGENERAL;
    }
    rv = content.p == NULL ? bosh_body_parse(b, text, len, req, why)
                           : bosh_body_parse_open(b, head.p, head.n, req, &used, why);
    req->script = true;
    if (rv == APR_SUCCESS && content.n > 0) {
        pieces[0] = (bosh_piece_t){head.p, head.n, true};
        pieces[1] = (bosh_piece_t){content.p, content.n, true};
        req->raw = true;
        req->pieces = pieces;
        req->npieces = 2;
        req->payload_bytes = head.n + content.n;
        if (skip_space(content.p, content.p + content.n) < content.p + content.n) {
            req->has |= BOSH_HAS_PAYLOAD;
        }
    }
    return rv;
}

/* ---- answers ---- */

/* General category Cf of Unicode 15.1, and U+2028, U+2029, which end a line in older ECMAScript. */
static const struct {
    uint32_t first, last;
} escaped[] = {
    {0xAD, 0xAD},       {0x600, 0x605},     {0x61C, 0x61C},     {0x6DD, 0x6DD},
    {0x70F, 0x70F},     {0x890, 0x891},     {0x8E2, 0x8E2},     {0x180E, 0x180E},
    {0x200B, 0x200F},   {0x2028, 0x202E},   {0x2060, 0x2064},   {0x2066, 0x206F},
    {0xFEFF, 0xFEFF},   {0xFFF9, 0xFFFB},   {0x110BD, 0x110BD}, {0x110CD, 0x110CD},
    {0x13430, 0x1343F}, {0x1BCA0, 0x1BCA3}, {0x1D173, 0x1D17A}, {0xE0001, 0xE0001},
    {0xE0020, 0xE007F},
};

static bool is_escaped(uint32_t c)
{
    size_t i = 0;

    while (i < sizeof(escaped) / sizeof(escaped[0]) && c > escaped[i].last) {
        i++;
    }
    return i < sizeof(escaped) / sizeof(escaped[0]) && c >= escaped[i].first;
}

/* The character at p, of more than one byte, and how many; 0: not UTF-8, which expat lets nobody send. */
static size_t read_char(const unsigned char *p, size_t left, uint32_t *c)
{
    size_t n = *p >= 0xF0 ? 4 : *p >= 0xE0 ? 3 : 2;

    if (*p < 0xC2 || *p > 0xF4 || left < n) {
        return 0;
    }
    *c = *p & (0xFFu >> (n + 1));
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xC0) != 0x80) {
            return 0;
        }
        *c = *c << 6 | (p[i] & 0x3Fu);
    }
    return n;
}

/* Where output goes, or is only counted. */
typedef struct sink_t {
    char *dst;
    size_t n;
} sink_t;

static void put(sink_t *s, const void *p, size_t n)
{
    if (s->dst != NULL) {
        memcpy(s->dst + s->n, p, n);
    }
    s->n += n;
}

static void put_unit(sink_t *s, uint32_t unit)
{
    static const char digits[] = "0123456789abcdef";
    char text[6] = {'\\',
                    'u',
                    digits[unit >> 12 & 15],
                    digits[unit >> 8 & 15],
                    digits[unit >> 4 & 15],
                    digits[unit & 15]};

    put(s, text, sizeof(text));
}

/* Above the BMP as a surrogate pair. */
static void put_escaped(sink_t *s, uint32_t c)
{
    if (c > 0xFFFF) {
        put_unit(s, 0xD800 + ((c - 0x10000) >> 10));
        put_unit(s, 0xDC00 + ((c - 0x10000) & 0x3FF));
    } else {
        put_unit(s, c);
    }
}

/* What a character of one byte becomes; NULL: itself. */
static const char *replacement(char c, char before)
{
    switch (c) {
    case '"':
        return "\\\"";
    case '\\':
        return "\\\\";
    case '\n':
        return "\\n";
    case '\r':
        return "\\r";
    case '<':
        return "\\u003c";
    case '/':
        return before == '<' ? "\\/" : NULL;
    default:
        return NULL;
    }
}

size_t bosh_script_print(char *dst, const char *body, size_t len)
{
    sink_t s = {dst, 0};
    size_t from = 0, i = 0; /* [from, i) goes as it is */

    put(&s, "_BOSH_(\"", 8);
    while (i < len) {
        const char *text = replacement(body[i], i > 0 ? body[i - 1] : '\0');
        uint32_t c = 0;
        size_t n = 1;

        if ((unsigned char)body[i] >= 0x80) {
            n = read_char((const unsigned char *)body + i, len - i, &c);
            n = n > 0 ? n : 1;
        }
        if (text != NULL || is_escaped(c)) {
            put(&s, body + from, i - from);
            from = i + n;
        }
        if (text != NULL) {
            put(&s, text, strlen(text));
        } else if (is_escaped(c)) {
            put_escaped(&s, c);
        }
        i += n;
    }
    put(&s, body + from, len - from);
    put(&s, "\")", 2);
    return s.n;
}
