/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BOSH_POINT_H
#define BOSH_POINT_H

/*
 * Places at which a test kills a process, or stops it. In the module they compile to nothing. `make points` builds
 * a second one with -DBOSH_POINTS (tests/points/point.c): there BOSH_POINT("name") removes the file `name` from
 * the directory that the environment variable BOSH_POINT_DIR names and, if it was there, sends SIGKILL to its
 * own process; SIGSTOP when there was a file `name.stop`. A file can be removed once, so this happens to one
 * process. BOSH_POINT_CHECK proves at each unlock that the arena holds together, and aborts when it does not.
 * Any thread; both may stand under the arena's lock: the rule against system calls there is not for that build.
 */
#ifdef BOSH_POINTS
struct bosh_arena_t;
void bosh_point(const char *name);
void bosh_point_check(struct bosh_arena_t *a);
#define BOSH_POINT(name)    bosh_point(name)
#define BOSH_POINT_CHECK(a) bosh_point_check(a)
#else
#define BOSH_POINT(name)    ((void)0)
#define BOSH_POINT_CHECK(a) ((void)0)
#endif

#endif
