/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lock on an open file, as both kinds of the kernel have it: flock(2), or an
 * OFD record lock on the whole file.  Either belongs to the open file, so it is
 * free when its holder dies, and it does not exclude the threads that share
 * one descriptor: here one thread at a time has the turn, whatever it holds,
 * so a shared lock is shared between objects, not inside one.
 *
 * A lock is taken and released by the same thread.  All functions may be
 * called from any thread; lp_lock_free() only when no other call is under way,
 * lp_lock_abandon() only in a forked child.
 */
#ifndef LP_SYS_LOCK_H
#define LP_SYS_LOCK_H

#include "base/error.h"

#include <stdint.h>

enum lp_lock_kind {
    LP_LOCK_FLOCK,
    LP_LOCK_RECORD,
};

struct lp_lock;

/* A lock on the open file *fd, which is at the absolute `path`.  Takes *fd over
 * on success (and sets it to -1).  The caller frees *lock. */
int lp_lock_new(enum lp_lock_kind kind, int *fd, const char *path, struct lp_lock **lock,
                struct lp_error *err);

/* Takes the lock if it is free; `shared` is a truth value.
 *   LP_EBUSY    it is not free
 *   LP_EGONE    the path names another file or none: open it again, or give up
 *   LP_EHELD    this thread has it already
 *   LP_ECLOSED  the object was closed */
int lp_lock_try(struct lp_lock *lock, int shared, struct lp_error *err);

/* lp_lock_try() for an exclusive lock, by its code alone: the path that must
 * cost nothing, since a call from Python with one argument is half a call. */
int lp_lock_take(struct lp_lock *lock);

/* lp_lock_try(), waiting until `deadline` (of the monotonic clock, or LP_FOREVER):
 *   LP_ETIMEOUT      it was not free in time
 *   LP_EINTERRUPTED  serve signals, then call again with the same deadline */
int lp_lock_wait(struct lp_lock *lock, int shared, int64_t deadline, struct lp_error *err);

/* The open file, for whoever holds the lock, until he releases it; not to be closed. */
int lp_lock_fd(const struct lp_lock *lock);

/* LP_ENOTHELD where this thread does not have the lock, LP_ECLOSED where that
 * is because the object was closed; the code says all. */
int lp_lock_unlock(struct lp_lock *lock);

/* Unlinks the file, of which this thread has the lock exclusively and keeps it:
 * whoever waits for it finds LP_EGONE.  LP_ENOTHELD, LP_EGONE, LP_ESYSTEM. */
int lp_lock_unlink(struct lp_lock *lock, struct lp_error *err);

/* Every later call fails.  A lock that this thread holds is released; where
 * another thread has the turn the file is closed when it gives it back. */
void lp_lock_close(struct lp_lock *lock);

/* In a forked child: closes the child's descriptor and leaves the parent's
 * lock alone.  Every later call fails with LP_ECLOSED. */
void lp_lock_abandon(struct lp_lock *lock);

/* Releases what is left, whoever held it, and the memory.  NULL is fine. */
void lp_lock_free(struct lp_lock *lock);

#endif
