/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sizes of the shared segment. Called by mod_bosh.c in the parent, once the configuration is complete.
 */
#include "bosh_sizes.h"

#include <ap_mpm.h>

#include "bosh_config.h"

/* Chunks provided for each session when BoshMemory does not say: payload on its way, kept answers. */
#define CHUNKS_PER_SESSION 16
#define CHUNKS_LEAST       32768

/* The power of two that keeps answers and open requests of the largest window apart (bosh_window.c). */
static uint32_t slots_for(unsigned requests)
{
    uint32_t n = BOSH_SLOTS_MIN;

    while (n < 2 * (requests + 1) && n < BOSH_SLOTS_MAX) {
        n *= 2;
    }
    return n;
}

void bosh_sizes_of(server_rec *main_server, bosh_arena_sizes_t *sizes)
{
    const bosh_global_t *global = bosh_config_global();
    unsigned requests = 0;
    int daemons = 0;
    bosh_arena_sizes_t empty;

    for (server_rec *s = main_server; s != NULL; s = s->next) {
        const bosh_limits_t *l = &bosh_config_of(s)->limits;
        requests = l->max_requests > requests ? l->max_requests : requests;
    }
    ap_mpm_query(AP_MPMQ_HARD_LIMIT_DAEMONS, &daemons);
    /* Every child of the largest server, and as many of the generation before that linger. */
    sizes->peers = (uint32_t)(daemons < 4 ? 8 : daemons > 512 ? 1024 : 2 * daemons);
    sizes->sessions = (uint32_t)global->max_sessions;
    sizes->slots = slots_for(requests);
    sizes->chunks = sizes->sessions * CHUNKS_PER_SESSION;
    if (sizes->chunks < CHUNKS_LEAST) {
        sizes->chunks = CHUNKS_LEAST;
    }
    if (global->memory > 0) {
        uint64_t fixed;
        empty = *sizes;
        empty.chunks = 1;
        fixed = bosh_arena_size(&empty);
        sizes->chunks = (uint64_t)global->memory > fixed + 1024 * 1024
                            ? (uint32_t)(((uint64_t)global->memory - fixed) / (BOSH_CHUNK_SIZE + 1))
                            : 0;
    }
}
