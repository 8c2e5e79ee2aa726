/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of a request's texts, before any of them is copied. Called by bosh_request.c; touches nothing. */
#include "bosh_check.h"

#include <string.h>

#include <apr_lib.h>

/* A media type and nothing else: it becomes a header (B-079). */
static bool content_ok(const char *s)
{
    if (s == NULL) {
        return true;
    }
    if (s[0] == '\0' || strlen(s) > BOSH_MAX_CONTENT || strchr(s, '/') == NULL) {
        return false;
    }
    for (; *s != '\0'; s++) {
        if (!apr_isalnum(*s) && strchr("/+-._;= \"", *s) == NULL) {
            return false;
        }
    }
    return true;
}

static bool short_enough(const char *s, size_t most)
{
    return s == NULL || strlen(s) <= most;
}

/* Digits, a dot, digits: what a stream header's version may be. */
static bool version_ok(const char *s)
{
    return s == NULL || (s[0] != '\0' && strlen(s) < 8 && strspn(s, "0123456789.") == strlen(s));
}

/* Checks what later steps copy into fixed places. Attributes of the creation mean nothing later (B-047), but
 * for those that a restart takes up again. */
bool bosh_check_texts(const bosh_req_t *req)
{
    bool creates = !(req->has & BOSH_HAS_SID), adds = bosh_body_adds_stream(req);

    return (!creates || content_ok(req->content)) &&
           (!(creates || adds) || short_enough(req->to, BOSH_MAX_DOMAIN)) &&
           (!(creates || adds || req->restart) ||
            (short_enough(req->lang, BOSH_MAX_LANG) && version_ok(req->xmpp_version)));
}
