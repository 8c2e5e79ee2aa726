/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_sizes: how large an arena the configuration asks for.
 */
#ifndef BOSH_SIZES_H
#define BOSH_SIZES_H

#include "httpd.h"

#include "bosh_arena.h"

/* post_config, after bosh_upstream_resolve(), main thread. */
void bosh_sizes_of(server_rec *main_server, bosh_arena_sizes_t *sizes);

#endif
