/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_pack: whether an answer goes compressed, and by whom. Worker threads.
 */
#ifndef BOSH_PACK_H
#define BOSH_PACK_H

#include "httpd.h"

#include "bosh_config.h"

/* child_init. The packers go with pchild. */
void bosh_pack_child_init(apr_pool_t *pchild);

/*
 * BoshDeflate: packs the answer *buf of *len bytes, whose block is of the connection's bucket allocator, when the client
 * accepts that and it pays. Then *buf is another block of the same allocator, the old one is given back, and the
 * headers say so (B-006). Else both stay as they are.
 */
void bosh_pack(request_rec *r, const bosh_config_t *conf, char **buf, size_t *len);

/* What mod_deflate and mod_brotli, where they are set up, may still do with an answer of len bytes. */
void bosh_pack_limit_filters(request_rec *r, size_t len);

#endif
