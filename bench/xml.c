/* SPDX-License-Identifier: Apache-2.0 */
/*
 * As much of XML as a stream or a <body/> of well-formed stanzas needs: where an element ends. No comments,
 * no CDATA, no DTD: what the connection manager passes on has none. Pure functions.
 */
#include "load.h"

#include <string.h>

/* The '>' that ends the tag at p, or NULL. */
static const char *tag_end(const char *p, const char *end)
{
    char quote = 0;

    for (; p < end; p++) {
        if (quote != 0) {
            quote = *p == quote ? 0 : quote;
        } else if (*p == '\'' || *p == '"') {
            quote = *p;
        } else if (*p == '>') {
            return p;
        }
    }
    return NULL;
}

/* The end of the element at p, or NULL. */
static const char *element_end(const char *p, const char *end)
{
    int depth = 0;

    while (p < end) {
        const char *close;
        if (*p != '<') {
            p++;
            continue;
        }
        close = tag_end(p, end);
        if (close == NULL) {
            return NULL;
        }
        if (p[1] == '/') {
            depth--;
        } else if (close[-1] != '/') {
            depth++;
        }
        p = close + 1;
        if (depth == 0) {
            return p;
        }
    }
    return NULL;
}

xml_kind_t xml_next(const char *p, size_t n, bool head, xml_t *out, size_t *used)
{
    const char *start = p, *end = p + n, *close;

    *used = 0;
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) {
        p++;
    }
    if (end - p < 2) {
        return XML_MORE;
    }
    if (p[0] == '<' && p[1] == '?') {
        close = tag_end(p, end);
        if (close == NULL) {
            return XML_MORE;
        }
        xml_kind_t kind = xml_next(close + 1, (size_t)(end - close - 1), head, out, used);
        *used += (size_t)(close + 1 - start);
        return kind;
    }
    if (p[0] != '<') {
        return XML_BAD;
    }
    bool last = p[1] == '/';
    close = head || last ? tag_end(p, end) : NULL;
    const char *after = close != NULL ? close + 1 : head || last ? NULL : element_end(p, end);
    if (after == NULL) {
        return XML_MORE;
    }
    out->p = p;
    out->n = (size_t)(after - p);
    out->closed = after[-2] == '/';
    *used = (size_t)(after - start);
    return last ? XML_END : head ? XML_HEAD : XML_ELEMENT;
}

bool xml_is(const xml_t *x, const char *name)
{
    size_t n = strlen(name);

    return x->n > n + 1 && memcmp(x->p + 1, name, n) == 0 &&
           strchr(" />\t\r\n", x->p[n + 1]) != NULL;
}

bool xml_attr(const xml_t *x, const char *name, char *out, size_t size)
{
    const char *end = tag_end(x->p, x->p + x->n);
    size_t len = strlen(name);

    for (const char *p = x->p; end != NULL && p + len + 2 < end; p++) {
        if ((*p == ' ' || *p == '\n' || *p == '\t') && memcmp(p + 1, name, len) == 0 &&
            p[len + 1] == '=') {
            const char *from = p + len + 3, *to = memchr(from, p[len + 2], (size_t)(end - from));
            if (to == NULL || (size_t)(to - from) >= size) {
                return false;
            }
            memcpy(out, from, (size_t)(to - from));
            out[to - from] = '\0';
            return true;
        }
    }
    return false;
}

const char *xml_after(const xml_t *x, const char *text)
{
    const char *at = memmem(x->p, x->n, text, strlen(text));

    return at != NULL ? at + strlen(text) : NULL;
}

bool xml_has(const xml_t *x, const char *text)
{
    return xml_after(x, text) != NULL;
}
