/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose certificate it is (RFC 6120 13.7.2.1, RFC 6125). Called by bosh_tls.c in the middle of a handshake, on
 * the loop thread. Pure.
 *
 * OpenSSL compares host names; the names that only XMPP has are compared here.
 */
#include "bosh_tls.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <openssl/x509v3.h>

#include "bosh_idna.h"

#define SRV_PREFIX "_xmpp-client."

/* Whether the string is `prefix` and then `name`, without regard to case. No NUL may hide in it. */
static bool says(const ASN1_STRING *str, const char *prefix, const char *name)
{
    const char *p = (const char *)ASN1_STRING_get0_data(str);
    size_t n = (size_t)ASN1_STRING_length(str), plen = strlen(prefix), len = strlen(name);

    return n == plen + len && memchr(p, '\0', n) == NULL && strncasecmp(p, prefix, plen) == 0 &&
           strncasecmp(p + plen, name, len) == 0;
}

/* The same for a domain in UTF-8, which `name` has in A-labels. */
static bool is_domain(const ASN1_STRING *str, const char *name)
{
    char text[4 * BOSH_MAX_DOMAIN + 1], ascii[BOSH_MAX_DOMAIN + 1];
    size_t n = (size_t)ASN1_STRING_length(str);

    if (n >= sizeof(text) || memchr(ASN1_STRING_get0_data(str), '\0', n) != NULL) {
        return false;
    }
    memcpy(text, ASN1_STRING_get0_data(str), n);
    text[n] = '\0';
    return bosh_idna_ascii(text, ascii) && strcasecmp(ascii, name) == 0;
}

static bool is_other_name(const GENERAL_NAME *gen, const char *domain)
{
    const ASN1_TYPE *value;

    if (gen->type != GEN_OTHERNAME || gen->d.otherName->value == NULL) {
        return false;
    }
    value = gen->d.otherName->value;
    switch (OBJ_obj2nid(gen->d.otherName->type_id)) {
    case NID_SRVName:
        return value->type == V_ASN1_IA5STRING && says(value->value.ia5string, SRV_PREFIX, domain);
    case NID_XmppAddr:
        return value->type == V_ASN1_UTF8STRING && is_domain(value->value.utf8string, domain);
    default:
        return false;
    }
}

bool bosh_tls_names(X509 *cert, const char *domain)
{
    unsigned flags = X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT;
    GENERAL_NAMES *names;
    bool found = false;

    if (domain[0] == '\0' || domain[0] == '.') { /* OpenSSL takes such a one for a pattern */
        return false;
    }
    if (X509_check_host(cert, domain, strlen(domain), flags, NULL) == 1 ||
        X509_check_ip_asc(cert, domain, 0) == 1) {
        return true;
    }
    names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; !found && i < sk_GENERAL_NAME_num(names); i++) {
        found = is_other_name(sk_GENERAL_NAME_value(names, i), domain);
    }
    GENERAL_NAMES_free(names);
    return found;
}

/* The text of a name, if it has one. */
static const ASN1_STRING *text_of(const GENERAL_NAME *gen)
{
    const ASN1_TYPE *value;

    if (gen->type == GEN_DNS) {
        return gen->d.dNSName;
    }
    value = gen->type == GEN_OTHERNAME ? gen->d.otherName->value : NULL;
    return value != NULL && (value->type == V_ASN1_IA5STRING || value->type == V_ASN1_UTF8STRING)
               ? value->value.asn1_string
               : NULL;
}

/* It is a stranger's text, and goes to a log. */
static size_t put_clean(char *dst, size_t room, const ASN1_STRING *str)
{
    const unsigned char *p = ASN1_STRING_get0_data(str);
    size_t n = (size_t)ASN1_STRING_length(str), i;

    for (i = 0; i < n && i + 1 < room; i++) {
        dst[i] = p[i] > ' ' && p[i] < 0x7f ? (char)p[i] : '?';
    }
    dst[i] = '\0';
    return i;
}

void bosh_tls_list_names(X509 *cert, char *dst, size_t size)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    size_t at = 0;

    dst[0] = '\0';
    for (int i = 0; i < sk_GENERAL_NAME_num(names) && at + 4 < size; i++) {
        const ASN1_STRING *text = text_of(sk_GENERAL_NAME_value(names, i));
        if (text == NULL) {
            continue;
        }
        if (at > 0) {
            at += (size_t)snprintf(dst + at, size - at, ", ");
        }
        at += put_clean(dst + at, size - at, text);
    }
    GENERAL_NAMES_free(names);
    if (at == 0) {
        snprintf(dst, size, "no name at all");
    }
}
