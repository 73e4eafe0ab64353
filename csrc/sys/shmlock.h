/* SPDX-License-Identifier: Apache-2.0 */
/*
 * podman's locks: a file in /dev/shm, shared by every podman of this host and
 * user, with a fixed number of robust process-shared mutexes and a bitmap of
 * those that are allocated.  Taking a lock does not ask the bitmap.
 *
 * A lock belongs to the thread that took it and is not recursive.  That of a
 * dead thread is free.  All functions may be called from any thread;
 * lp_shm_free() only when no other call is under way.  In a forked child only
 * lp_shm_free() is of use.
 *
 * Deadlines are of the monotonic clock, or LP_FOREVER.  What waits returns
 *   LP_ETIMEOUT      it was not free in time
 *   LP_EINTERRUPTED  nothing is held: serve signals, then call again with the
 *                    same deadline.  This comes at least every 100 ms
 *   LP_EBROKEN       the mutex was left beyond repair
 *   LP_ECLOSED       the object was closed
 */
#ifndef LP_SYS_SHMLOCK_H
#define LP_SYS_SHMLOCK_H

#include "base/error.h"

#include <stdint.h>
#include <sys/types.h>

struct lp_shm;

/* Opens the segment at the absolute path, of mode 0600 and ours, or makes it,
 * whole or not at all, for `num_locks` rounded up to a multiple of 32.  The
 * caller frees *shm.
 *   LP_EREFUSED   somebody else could reach or steer the file
 *   LP_EFOREIGN   it is no segment of locks
 *   LP_EINVALID   the path is not absolute, or no such number of locks
 *   LP_ENOTBUILT  the C library is not glibc, whose mutexes podman's are */
int lp_shm_open(const char *path, uint32_t num_locks, struct lp_shm **shm, struct lp_error *err);

/* How many locks can be allocated here: as many as were asked for where the
 * segment was made for that number (podman refuses IDs beyond its own), else
 * all that it has. */
uint32_t lp_shm_limit(const struct lp_shm *shm);

/* Allocates the lowest lock that is not; LP_EFULL where there is none. */
int lp_shm_allocate(struct lp_shm *shm, int64_t deadline, uint32_t *id, struct lp_error *err);

/* Allocates this lock.  LP_ETAKEN, or LP_EINVALID where there is no such one. */
int lp_shm_allocate_given(struct lp_shm *shm, uint32_t id, int64_t deadline, struct lp_error *err);

/* Makes this lock one that is not allocated, whatever it was. */
int lp_shm_release(struct lp_shm *shm, uint32_t id, int64_t deadline, struct lp_error *err);

/* The same for all locks. */
int lp_shm_release_all(struct lp_shm *shm, int64_t deadline, struct lp_error *err);

/* Sets a bit in `bitmap`, of (lp_shm_limit() + 31) / 32 words, for each lock
 * that is allocated: lock N is bit N % 32 of word N / 32. */
int lp_shm_allocated(struct lp_shm *shm, int64_t deadline, uint32_t *bitmap, struct lp_error *err);

/* Takes a lock.  A deadline of 0 is a single try.  Besides the above:
 *   LP_EHELD     this thread has it already
 *   LP_EGONE     the segment was removed: others use a new one by now
 *   LP_EINVALID  there is no such lock */
int lp_shm_lock(struct lp_shm *shm, uint32_t id, int64_t deadline, struct lp_error *err);

/* LP_ENOTHELD where this thread does not have it.  Works after a close. */
int lp_shm_unlock(struct lp_shm *shm, uint32_t id);

/* The ID of the thread that holds the lock, 0 where none does or can be told. */
pid_t lp_shm_holder(struct lp_shm *shm, uint32_t id);

/* Every later call but lp_shm_unlock() fails; the memory is unmapped when the
 * last lock that this process holds is released. */
void lp_shm_close(struct lp_shm *shm);

/* Closes it and frees the object.  NULL is fine. */
void lp_shm_free(struct lp_shm *shm);

#endif
