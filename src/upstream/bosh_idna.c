/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Domains as A-labels, by libidn2. Called for each configured domain, each creation request and each stream that
 * is dialed.
 */
#include "bosh_idna.h"

#include <string.h>

#include <apr_lib.h>
#include <idn2.h>

static bool is_ascii(const char *p)
{
    for (; *p != '\0'; p++) {
        if ((unsigned char)*p >= 0x80) {
            return false;
        }
    }
    return true;
}

/* As they are, in lower case. */
static bool fold(const char *p, char dst[BOSH_MAX_DOMAIN + 1])
{
    size_t n = strlen(p);

    if (n > 0 && p[n - 1] == '.') {
        n--;
    }
    if (n == 0 || n > BOSH_MAX_DOMAIN) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        dst[i] = (char)apr_tolower(p[i]);
    }
    dst[n] = '\0';
    return true;
}

bool bosh_idna_ascii(const char *domain, char dst[BOSH_MAX_DOMAIN + 1])
{
    char *made = NULL;
    bool ok;

    dst[0] = '\0';
    if (is_ascii(domain)) {
        return fold(domain, dst);
    }
    ok = idn2_to_ascii_8z(domain, &made, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) == IDN2_OK &&
         fold(made, dst);
    idn2_free(made);
    return ok;
}
