/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a lock file: the trusted way to its directory, the directory ours and
 * private, the file opened below it without following a link, and judged on
 * the descriptor that will be locked.
 */
#include "sys/lockfile.h"

#include "base/cleanup.h"
#include "sys/path.h"
#include "sys/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

/* The file's directory, made private, and the file's name in it. */
static int lockfile_directory(const char *path, int *dirfd, const char **name, struct lp_error *err)
{
    LP_CLOSE int dir = -1;
    int code = lp_path_parent(path, &dir, name, err);

    if (code == 0)
        code = lp_path_tighten(dir, 0700, err);
    if (code == 0)
        *dirfd = lp_steal_fd(&dir);
    return code;
}

int lp_lockfile_create(const char *path, struct lp_lock **lock, struct lp_error *err)
{
    LP_CLOSE int dir = -1;
    LP_CLOSE int fd = -1;
    const char *name;
    int code = lockfile_directory(path, &dir, &name, err);

    if (code != 0)
        return code;
    fd = lp_path_make_file(dir, name, 0600);
    if (fd < 0)
        return lp_fail_errno(err, "cannot make the lock file");
    code = lp_lock_new(LP_LOCK_FLOCK, &fd, path, lock, err);
    if (code != 0)
        (void)unlinkat(dir, name, 0);
    return code;
}

/* A name that cannot be opened because of what it is, or whose it is. */
static int lockfile_refuse(struct lp_error *err)
{
    switch (errno) {
    case ENOENT:
        return lp_fail(err, LP_EGONE, "there is no such lock file");
    case ELOOP:
        return lp_fail(err, LP_EREFUSED, "the lock file is a link");
    case EISDIR:
    case ENXIO:
        return lp_fail(err, LP_EREFUSED, "the lock file is not a regular file");
    case EACCES:
        return lp_fail(err, LP_EREFUSED, "the lock file is not readable and writable for us");
    default:
        return lp_fail_errno(err, "cannot open the lock file");
    }
}

int lp_lockfile_open(const char *path, struct lp_lock **lock, struct lp_error *err)
{
    LP_CLOSE int dir = -1;
    LP_CLOSE int fd = -1;
    const char *name;
    struct lp_error why;
    struct stat st;
    int code = lockfile_directory(path, &dir, &name, &why);

    if (code == LP_ESYSTEM && why.sys_errno == ENOENT)
        return lp_fail(err, LP_EGONE, "there is no such directory");
    if (code != 0) {
        if (err != NULL)
            *err = why;
        return code;
    }
    /* O_NONBLOCK: a planted FIFO must not hold us up. */
    fd = lp_path_beneath(dir, name, O_RDWR | O_NONBLOCK | O_NOCTTY, 0);
    if (fd < 0)
        return lockfile_refuse(err);
    if (fstat(fd, &st) < 0)
        return lp_fail_errno(err, "cannot look at the lock file");
    if (!S_ISREG(st.st_mode))
        return lp_fail(err, LP_EREFUSED, "the lock file is not a regular file");
    code = lp_path_tighten(fd, 0600, err);
    if (code != 0)
        return code;
    return lp_lock_new(LP_LOCK_FLOCK, &fd, path, lock, err);
}
