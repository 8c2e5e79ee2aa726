/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the elements of a server are. Called by the splitter on a loop's thread, for each child of the stream
 * once; looks at names and one attribute, and knows nothing else.
 */
#include "bosh_news.h"

#include <string.h>

#define NS_SASL2_PREFIX  "urn:xmpp:sasl:" /* XEP-0388: ...:2, earlier drafts :0 and :1 */
#define NS_STREAM_ERRORS "urn:ietf:params:xml:ns:xmpp-streams"
#define NS_SM_PREFIX     "urn:xmpp:sm:" /* XEP-0198: ...:3, earlier ones :2 */

static bool begins(bosh_slice_t s, const char *prefix)
{
    size_t n = strlen(prefix);

    return s.n > n && memcmp(s.p, prefix, n) == 0;
}

bosh_split_type_t bosh_news_type(const bosh_xml_name_t *name)
{
    if (bosh_xml_slice_is(name->ns, BOSH_NS_STREAMS)) {
        return bosh_xml_slice_is(name->local, "features") ? BOSH_SPLIT_FEATURES
               : bosh_xml_slice_is(name->local, "error")  ? BOSH_SPLIT_ERROR
                                                          : BOSH_SPLIT_STANZA;
    }
    if (bosh_xml_slice_is(name->ns, BOSH_NS_SASL) || begins(name->ns, NS_SASL2_PREFIX)) {
        return BOSH_SPLIT_SASL;
    }
    if (bosh_xml_name_is(name, BOSH_NS_TLS, "proceed") ||
        bosh_xml_name_is(name, BOSH_NS_TLS, "failure")) {
        return BOSH_SPLIT_TLS;
    }
    return BOSH_SPLIT_STANZA;
}

uint8_t bosh_news_of(bosh_split_type_t type, const bosh_xml_start_t *el)
{
    const char *fault;

    if (begins(el->name.ns, NS_SM_PREFIX)) {
        return bosh_xml_slice_is(el->name.local, "enabled") ||
                       bosh_xml_slice_is(el->name.local, "resumed")
                   ? BOSH_NEWS_SM
                   : 0;
    }
    if (el->depth > 2) {
        return 0;
    }
    if (type == BOSH_SPLIT_SASL) {
        return bosh_xml_slice_is(el->name.local, "success") ? BOSH_NEWS_LOGIN : 0;
    }
    if (type != BOSH_SPLIT_STANZA) {
        return 0;
    }
    /* Login without SASL (XEP-0078) looks like any iq; a server has nothing but errors for a stranger. */
    fault = bosh_xml_attr(el, "", "type");
    return bosh_xml_slice_is(el->name.ns, BOSH_NS_CLIENT) &&
                   (fault == NULL || strcmp(fault, "error") != 0)
               ? BOSH_NEWS_LOGIN
               : 0;
}

bool bosh_news_elsewhere(bosh_split_type_t type, const bosh_xml_start_t *el)
{
    return type == BOSH_SPLIT_ERROR && el->depth == 3 &&
           bosh_xml_name_is(&el->name, NS_STREAM_ERRORS, "see-other-host");
}

bosh_slice_t bosh_news_condition(const char *xml, size_t n)
{
    bosh_slice_t name = {"", 0};
    const char *end = xml + n, *p = xml;

    /* No attribute and no text has a bare `<` in it. */
    while (p < end && (p = memchr(p + 1, '<', (size_t)(end - p - 1))) != NULL) {
        const char *q;
        name.p = p + 1;
        for (q = name.p; q < end && strchr(" \t\r\n/>", *q) == NULL; q++) {
            name.p = *q == ':' ? q + 1 : name.p; /* without its prefix */
        }
        name.n = q < end ? (size_t)(q - name.p) : 0;
        if (name.n > 0 && !bosh_xml_slice_is(name, "text")) {
            return name;
        }
    }
    name.n = 0;
    return name;
}
