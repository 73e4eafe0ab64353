/* SPDX-License-Identifier: Apache-2.0 */
/*
 * openat2(2) with RESOLVE_IN_ROOT.  The kernel gives up with EAGAIN where ".."
 * was resolved while anything on the host was renamed or mounted: so we try
 * again, but not for ever.
 */
#include "sys/inroot.h"

#include "base/cleanup.h"
#include "base/failpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TRIES_MOST 128

/* The kernel's own numbers, which the headers of older systems lack. */
#define NUMBER_OPENAT2 437
#define RESOLVE_NO_MAGICLINKS 0x02
#define RESOLVE_IN_ROOT 0x10

struct open_how {
    uint64_t flags;
    uint64_t mode;
    uint64_t resolve;
};

static int inroot_openat2(int root, const char *path, const struct open_how *how)
{
    errno = lp_failpoint("inroot.openat2");
    if (errno != 0)
        return -1;
    return (int)LP_RETRY(syscall(NUMBER_OPENAT2, root, path, how, sizeof *how));
}

int lp_inroot_open(int root, const char *path, int flags, int *fd, struct lp_error *err)
{
    const struct open_how how = {
        .flags = O_PATH | O_CLOEXEC | (unsigned)(flags & (O_DIRECTORY | O_NOFOLLOW)),
        .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };
    int tries = 0;

    do
        *fd = inroot_openat2(root, path, &how);
    while (*fd < 0 && errno == EAGAIN && ++tries < TRIES_MOST);
    if (*fd < 0)
        return lp_fail_errno(err, "cannot open it");
    return 0;
}
