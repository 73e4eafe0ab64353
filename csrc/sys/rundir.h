/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directories that we put things in: found or made along a trusted path (see
 * sys/path.h).  All paths are absolute; all descriptors are O_PATH and the
 * caller's.
 *   LP_EREFUSED  somebody else could steer the path or write to the directory
 *   LP_EINVALID  the path is not absolute
 *   LP_ESYSTEM   ENOENT, ENOTDIR, EACCES, ENOSPC and the rest
 */
#ifndef LP_SYS_RUNDIR_H
#define LP_SYS_RUNDIR_H

#include "base/error.h"

#include <sys/types.h>

/* Opens the directory at the end of a trusted path.  Its own owner and mode
 * are for the caller to judge, on the descriptor. */
int lp_rundir_open(const char *path, int *dirfd, struct lp_error *err);

/* Opens or makes the directory and every missing one above it; each that is
 * made gets exactly `mode`.  One that was there keeps its mode, but must be
 * root's or ours and writable by nobody else. */
int lp_rundir_make(const char *path, mode_t mode, int *dirfd, struct lp_error *err);

/* The same for a directory that is ours alone: one that was there must be
 * ours, and is narrowed to `mode` where it is wider. */
int lp_rundir_make_private(const char *path, mode_t mode, int *dirfd, struct lp_error *err);

#endif
