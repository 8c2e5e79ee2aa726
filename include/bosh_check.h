/* SPDX-License-Identifier: Apache-2.0 */
/* bosh_check: what a request's attributes may be that XML lets pass. Internal to bosh_request.c. */
#ifndef BOSH_CHECK_H
#define BOSH_CHECK_H

#include "bosh_body.h"

/* Whether the texts that later steps copy into fixed places or repeat in headers are short and proper enough (7.1,
 * 16.3, XEP-0206). Any thread; pure. */
bool bosh_check_texts(const bosh_req_t *req);

#endif
