/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bosh_undo: a section of the lock that its process did not live to end has not happened.
 *
 * One session is being changed at a time. Before its first change the record is copied to the arena's undo
 * part; before a chunk that was there already is relinked, refilled or gets another state, its few words are
 * noted there; and chunks that are given back cannot be handed out again until the section is over. So when
 * the process is killed in it, whoever gets the lock next puts session and chunks back to how the section
 * found them. Nothing has left the process from within a section, so nobody has seen what is undone.
 *
 * All of it under the arena's lock.
 */
#ifndef BOSH_UNDO_H
#define BOSH_UNDO_H

#include <stddef.h>

#include "bosh_arena.h"

/* More than a session has strings, and a reservation has chunks: what one section can have to note. */
#define BOSH_UNDO_NOTES 192

/* A session with all its branches. */
#define BOSH_UNDO_RECORDS (BOSH_MAX_STREAMS + 1)

/* A chunk as the section found it. */
typedef struct bosh_note_t {
    bosh_ix chunk, next;
    uint16_t used, state;
} bosh_note_t;

/* In the arena. */
typedef struct bosh_undo_t {
    bosh_ix session[BOSH_UNDO_RECORDS]; /* whose records are saved, the busy one's first */
    uint32_t records;                   /* how many of them */
    uint32_t section; /* chunks taken in this one bear its number, and need no note */
    uint32_t spoiled; /* something was done that cannot be undone */
    uint32_t n;
    bosh_ix freed, freed_last; /* chunks given back in this section, in the order of a free list */
    bosh_note_t notes[BOSH_UNDO_NOTES];
    char saved[]; /* each record from BOSH_UNDO_FROM on */
} bosh_undo_t;

/* The text before it is not saved: bosh_session_t. */
#define BOSH_UNDO_FROM (offsetof(bosh_session_t, link) + offsetof(bosh_link_t, owner))

/* To be said before the first change to a session in a section of the lock. What was changed before in another
 * session stands from here on. */
void bosh_arena_touch(bosh_arena_t *a, const bosh_session_t *s);

/* The same for one more record, a branch or the session of one, in the section that is under way: what was changed
 * before is undone with it. */
void bosh_arena_touch_too(bosh_arena_t *a, const bosh_session_t *s);

/* What was changed in this section stands: said before the lock is released. */
void bosh_arena_commit(bosh_arena_t *a);

/* To be said before next, used or state of a chunk in use changes. Chunk 0, or no busy session: nothing. */
void bosh_undo_note(bosh_arena_t *a, bosh_ix c);

/* To be said before a change that notes cannot undo: killed after it, the session is given up. */
void bosh_undo_spoil(bosh_arena_t *a);

/* Puts the busy session, if there is one, back to how its section found it, and may be repeated when the
 * process dies over it. False: that cannot be done. For bosh_arena_repair(), which then checks the session like
 * any other, finds the free chunks, and forgets which one was busy. */
bool bosh_undo_rollback(bosh_arena_t *a);

#endif
