/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_idna: domains in the one form in which they are compared, looked up and found in certificates (RFC 5890
 * A-labels, in lower case). Pure; any thread.
 */
#ifndef BOSH_IDNA_H
#define BOSH_IDNA_H

#include "bosh.h"

/*
 * Writes the A-labels of a domain in UTF-8, U-labels or A-labels, without a dot at its end. Nothing is demanded of
 * a domain in ASCII: it need not be one of DNS. False: it has no such form, or is too long; dst is "".
 */
bool bosh_idna_ascii(const char *domain, char dst[BOSH_MAX_DOMAIN + 1]);

#endif
