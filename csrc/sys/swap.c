/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/swap.h"

#include "base/failpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXCHANGE (1 << 1) /* RENAME_EXCHANGE, which older headers lack */

int lp_swap_files(const char *fresh, const char *path, struct lp_error *err)
{
    errno = lp_failpoint("swap.exchange");
    if (errno == 0 && syscall(SYS_renameat2, AT_FDCWD, fresh, AT_FDCWD, path, EXCHANGE) == 0)
        return 0;
    /* ENOENT: there is nothing yet.  EINVAL: not on this file system.  ENOSYS and
     * EPERM: not in this kernel, or past a seccomp filter. */
    if (errno != ENOENT && errno != EINVAL && errno != ENOSYS && errno != EPERM)
        return lp_fail_errno(err, "cannot put %s in force", path);
    return rename(fresh, path) == 0 ? 0 : lp_fail_errno(err, "cannot put %s in force", path);
}
