/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lock files of our own: flock(2) on a file of mode 0600 in a directory of mode
 * 0700, since whoever can open a file, if only for reading, can lock it and
 * freeze us.  Wider ones that are ours are narrowed.
 *
 * A lock file lives as long as the thing that it guards: lp_lockfile_create()
 * makes it, lp_lock_unlink() ends it, and nothing else does either.
 *
 *   LP_EREFUSED  the path is not trusted (sys/path.h), or the directory or the
 *                file is not ours, or the file is a link or not a regular file
 *   LP_EINVALID  the path is not absolute, or not that of a file
 *   LP_ESYSTEM   the rest, EEXIST for a file to be made included
 */
#ifndef LP_SYS_LOCKFILE_H
#define LP_SYS_LOCKFILE_H

#include "base/error.h"
#include "sys/lock.h"

/* Makes the file at the absolute path and opens a lock on it, not held yet.
 * The caller frees *lock. */
int lp_lockfile_create(const char *path, struct lp_lock **lock, struct lp_error *err);

/* The same for a file that is there; LP_EGONE where it or its directory is not. */
int lp_lockfile_open(const char *path, struct lp_lock **lock, struct lp_error *err);

#endif
