/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening paths that nobody else can steer.
 *
 * A directory is trusted when it belongs to root or to us (the effective user)
 * and nobody else can write to it, or when it is sticky, so that nobody can
 * rename or remove what others made in it.  A path is trusted when every
 * directory in which one of its names is looked up is trusted, and every link
 * on the way belongs to root.
 */
#ifndef LP_SYS_PATH_H
#define LP_SYS_PATH_H

#include "base/error.h"

#include <sys/types.h>

/* As openat(2), -1 and errno included, but no name of `path` may be a link or
 * "..", and it may not be absolute: what it opens lies below dirfd.  A link
 * fails with ELOOP (with O_PATH it is opened itself where it comes last and
 * O_DIRECTORY is not asked), "/" or ".." with EXDEV.  O_CLOEXEC and O_NOFOLLOW
 * are implied. */
int lp_path_beneath(int dirfd, const char *path, int flags, mode_t mode);

/* Opens the directory at the absolute path, which must be trusted, with
 * O_PATH.  The last directory itself is not judged: that is the caller's part.
 * With `make` not 0, missing directories are made, each with exactly that mode.
 * The descriptor is the caller's.
 *   LP_EREFUSED  the path is not trusted
 *   LP_EINVALID  the path is not absolute
 *   LP_ESYSTEM   ENOENT, ENOTDIR and the rest */
int lp_path_walk(const char *path, mode_t make, int *dirfd, struct lp_error *err);

/* Opens the trusted directory of the absolute path of a file; *name points at
 * the file's name inside `path`.  Errors as lp_path_walk(). */
int lp_path_parent(const char *path, int *dirfd, const char **name, struct lp_error *err);

/* Makes a file and opens it for reading and writing, with exactly `mode`
 * whatever the umask; -1 and errno (EEXIST for one that is there) as openat(2). */
int lp_path_make_file(int dirfd, const char *name, mode_t mode);

/* Whether the open directory is trusted; where `sticky` is 0 the sticky bit
 * excuses nothing.  LP_EREFUSED where it is not. */
int lp_path_trusted(int dirfd, int sticky, struct lp_error *err);

/* Whether the open file or directory is ours, with no permission beyond
 * `mode`: a wider one is narrowed.  The descriptor may be an O_PATH one only
 * for a directory.  LP_EREFUSED where it is not ours, or where it is a sticky
 * directory, which is meant for others too. */
int lp_path_tighten(int fd, mode_t mode, struct lp_error *err);

#endif
