/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the points of bosh_point.h do in the module that `make points` builds. Called on any thread of any
 * child, under the arena's lock or not.
 */
#include "bosh_point.h"

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bosh_arena.h"

void bosh_point(const char *name)
{
    const char *dir = getenv("BOSH_POINT_DIR");
    char path[PATH_MAX];

    if (dir == NULL) {
        return;
    }
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    if (unlink(path) == 0) {
        kill(getpid(), SIGKILL);
        for (;;) {
            pause(); /* not a step further */
        }
    }
    snprintf(path, sizeof(path), "%s/%s.stop", dir, name);
    if (unlink(path) == 0) {
        raise(SIGSTOP); /* for this thread, which is to go no further */
    }
}

void bosh_point_check(bosh_arena_t *a)
{
    const char *why;

    if (bosh_arena_validate(a, &why) != APR_SUCCESS) {
        fprintf(stderr, "mod_bosh: the shared memory is broken: %s\n", why);
        abort();
    }
}
