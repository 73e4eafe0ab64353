/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directories of a runtime: a trusted walk, then a verdict on the directory
 * at its end, both on open descriptors.
 */
#include "sys/rundir.h"

#include "base/cleanup.h"
#include "sys/path.h"

int lp_rundir_open(const char *path, int *dirfd, struct lp_error *err)
{
    return lp_path_walk(path, 0, dirfd, err);
}

int lp_rundir_make(const char *path, mode_t mode, int *dirfd, struct lp_error *err)
{
    LP_CLOSE int dir = -1;
    int code = lp_path_walk(path, mode, &dir, err);

    if (code == 0)
        code = lp_path_trusted(dir, 0, err);
    if (code == 0)
        *dirfd = lp_steal_fd(&dir);
    return code;
}

int lp_rundir_make_private(const char *path, mode_t mode, int *dirfd, struct lp_error *err)
{
    LP_CLOSE int dir = -1;
    int code = lp_path_walk(path, mode, &dir, err);

    if (code == 0)
        code = lp_path_tighten(dir, mode, err);
    if (code == 0)
        *dirfd = lp_steal_fd(&dir);
    return code;
}
