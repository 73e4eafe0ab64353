/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounts at fixed places of ours.  Every path is absolute and trusted (see
 * sys/path.h), and its last name is never followed where it is a link.  All of
 * this takes CAP_SYS_ADMIN and a mounted /proc.
 *   LP_EREFUSED  somebody else could steer the path
 *   LP_EINVALID  the path is not absolute, or an argument is wrong
 *   LP_ESYSTEM   ENOENT, ENOTDIR (a link too), EPERM and the rest
 */
#ifndef LP_SYS_MOUNT_H
#define LP_SYS_MOUNT_H

#include "base/error.h"

#include <stdint.h>
#include <sys/types.h>

/* The tmpfs of a container's shared memory. */
struct lp_mount_tmpfs {
    uint64_t size; /* bytes; 0 is no limit */
    mode_t mode;   /* of its root directory */
    uid_t uid;     /* and its owner */
    gid_t gid;
    const char *label; /* SELinux context of all of it; "" for none */
};

/* Mounts a tmpfs with nosuid, noexec and nodev on a directory, over whatever
 * is mounted there. */
int lp_mount_tmpfs(const char *path, const struct lp_mount_tmpfs *tmpfs, struct lp_error *err);

/* Lets mounts below the directory reach no other mount namespace, nor come from
 * one: binds it on itself unless it is a mount point, and makes that private. */
int lp_mount_private(const char *path, struct lp_error *err);

/* Detaches what is mounted on top of the path; who still uses it keeps it.
 * *was tells whether there was something: a path that is missing is not mounted. */
int lp_mount_detach(const char *path, int *was, struct lp_error *err);

/* Whether the path is the root of a mount; one that is missing is not. */
int lp_mount_is_point(const char *path, int *is, struct lp_error *err);

/* Which mount an open file is on: *id is the kernel's number, good for
 * comparing with those of other open files. */
int lp_mount_id(int fd, int *id, struct lp_error *err);

#endif
