/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a path inside a tree that somebody else fills.
 */
#ifndef LP_SYS_INROOT_H
#define LP_SYS_INROOT_H

#include "base/error.h"

/* Opens `path` with O_PATH as a process does whose root directory is `root`:
 * absolute links and ".." stay inside, and no link of /proc leads out.  Nothing
 * is opened for reading, so that a device or FIFO there has no effect.
 * `flags` may hold O_DIRECTORY and O_NOFOLLOW, which counts for the last name
 * only; the descriptor is close-on-exec and the caller's.
 *   LP_ESYSTEM  ENOENT, ENOTDIR, ELOOP, ... of openat2(2); ENOSYS or EPERM where
 *               the kernel, or a seccomp filter, lacks it; EAGAIN where renames
 *               on the host prevented an answer again and again */
int lp_inroot_open(int root, const char *path, int flags, int *fd, struct lp_error *err);

#endif
