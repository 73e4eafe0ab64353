/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a file for a record lock.  Its directory is shared with other
 * programs and may be readable by others; that the path to it is trusted is
 * enough for nobody else to have put the file there.
 */
#include "sys/filelock.h"

#include "base/cleanup.h"
#include "sys/path.h"
#include "sys/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

/* Opens the file, or with a mode makes it: whoever loses the race to make it opens it. */
static int filelock_open_or_make(int dir, const char *name, mode_t mode)
{
    const int flags = O_RDWR | O_NONBLOCK | O_NOCTTY;
    int fd = lp_path_beneath(dir, name, flags, 0);

    if (fd >= 0 || errno != ENOENT || mode == 0)
        return fd;
    fd = lp_path_make_file(dir, name, mode);
    if (fd < 0 && errno == EEXIST)
        return lp_path_beneath(dir, name, flags, 0);
    return fd;
}

int lp_filelock_open(const char *path, mode_t mode, struct lp_lock **lock, struct lp_error *err)
{
    LP_CLOSE int dir = -1;
    LP_CLOSE int fd = -1;
    const char *name;
    struct lp_error why;
    struct stat st;
    int code = lp_path_parent(path, &dir, &name, &why);

    if (code == LP_ESYSTEM && why.sys_errno == ENOENT && mode == 0)
        return lp_fail(err, LP_EGONE, "there is no such directory");
    if (code != 0) {
        if (err != NULL)
            *err = why;
        return code;
    }
    fd = filelock_open_or_make(dir, name, mode);
    if (fd < 0 && errno == ENOENT && mode == 0)
        return lp_fail(err, LP_EGONE, "there is no such lock file");
    if (fd < 0 && (errno == ELOOP || errno == EISDIR || errno == ENXIO))
        return lp_fail(err, LP_EREFUSED, "the lock file is not a regular file");
    if (fd < 0 || fstat(fd, &st) < 0)
        return lp_fail_errno(err, "cannot open or make the lock file");
    if (!S_ISREG(st.st_mode))
        return lp_fail(err, LP_EREFUSED, "the lock file is not a regular file");
    if (st.st_uid != 0 && st.st_uid != geteuid())
        return lp_fail(err, LP_EREFUSED, "the lock file belongs to uid %u, not to root or to us",
                       st.st_uid);
    return lp_lock_new(LP_LOCK_RECORD, &fd, path, lock, err);
}
