/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that are locked with a record lock on the whole file, because other
 * programs (podman, containers/storage) lock them by fcntl(2) as well: flock
 * does not exclude those.  Our side is an OFD lock, which threads and other
 * descriptors of the same file cannot lose.
 */
#ifndef LP_SYS_FILELOCK_H
#define LP_SYS_FILELOCK_H

#include "base/error.h"
#include "sys/lock.h"

#include <sys/types.h>

/* Opens a lock on the file at the absolute path, not held yet; makes the file
 * with exactly `mode` where it is missing, or with a mode of 0 does not.  The
 * caller frees *lock.
 *   LP_EGONE     it is missing, and the mode is 0
 *   LP_EREFUSED  the path is not trusted (sys/path.h), or the file is neither
 *                ours nor root's, a link, or not a regular file
 *   LP_EINVALID  the path is not absolute, or not that of a file
 *   LP_ESYSTEM   the rest, a missing directory included */
int lp_filelock_open(const char *path, mode_t mode, struct lp_lock **lock, struct lp_error *err);

#endif
