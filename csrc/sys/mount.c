/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mount calls take paths only, so each place is opened first, and named to
 * the kernel by its descriptor: "/proc/self/fd/N" for the directory itself,
 * "/proc/self/fd/PARENT/name" where what counts is the mount on top of it.
 */
#include "sys/mount.h"

#include "base/cleanup.h"
#include "base/failpoint.h"
#include "sys/path.h"
#include "sys/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

/* linux/stat.h of 5.8; older headers lack it. */
#ifndef STATX_ATTR_MOUNT_ROOT
#define STATX_ATTR_MOUNT_ROOT 0x00002000
#endif

#define OPTIONS_MOST 4096 /* the kernel reads one page of them */

/* A descriptor's name for calls that take a path. */
struct fd_path {
    char text[sizeof "/proc/self/fd/" + 12 + NAME_MAX + 1];
};

static const char *mount_fd_path(struct fd_path *path, int fd, const char *name)
{
    (void)snprintf(path->text, sizeof path->text,
                   name[0] != '\0' ? "/proc/self/fd/%d/%s" : "/proc/self/fd/%d", fd, name);
    return path->text;
}

/* Opens the directory that the last name of the path is; never a link. */
static int mount_open_dir(int parent, const char *name, int *fd, struct lp_error *err)
{
    *fd = lp_path_beneath(parent, name, O_PATH | O_DIRECTORY, 0);
    if (*fd < 0)
        return lp_fail_errno(err, "cannot open %s", name);
    return 0;
}

static int mount_options(char *text, const struct lp_mount_tmpfs *tmpfs, struct lp_error *err)
{
    int n;

    /* What is quoted here must not be able to end the quotation. */
    for (const char *c = tmpfs->label; *c != '\0'; c++)
        if (*c == '"' || *c == '\\' || *c < ' ')
            return lp_fail(err, LP_EINVALID, "the label is not an SELinux context");
    n = snprintf(text, OPTIONS_MOST, "mode=%o,size=%" PRIu64 ",uid=%u,gid=%u",
                 (unsigned)tmpfs->mode, tmpfs->size, tmpfs->uid, tmpfs->gid);
    if (tmpfs->label[0] != '\0')
        n += snprintf(text + n, (size_t)(OPTIONS_MOST - n), ",context=\"%s\"", tmpfs->label);
    if (n >= OPTIONS_MOST)
        return lp_fail(err, LP_EINVALID, "the label is too long");
    return 0;
}

int lp_mount_tmpfs(const char *path, const struct lp_mount_tmpfs *tmpfs, struct lp_error *err)
{
    LP_CLOSE int parent = -1;
    LP_CLOSE int dir = -1;
    char options[OPTIONS_MOST];
    struct fd_path place;
    const char *name;
    int code = mount_options(options, tmpfs, err);

    if (code == 0)
        code = lp_path_parent(path, &parent, &name, err);
    if (code == 0)
        code = mount_open_dir(parent, name, &dir, err);
    if (code != 0)
        return code;
    if (mount("shm", mount_fd_path(&place, dir, ""), "tmpfs", MS_NOSUID | MS_NOEXEC | MS_NODEV,
              options) < 0)
        return lp_fail_errno(err, "cannot mount a tmpfs");
    return 0;
}

/* --- is it a mount point? ----------------------------------------------------- */

/* The mount that an open file is on, or -1 and errno. */
static int mount_id(int fd)
{
    LP_CLOSE int info = -1;
    char path[48];
    char text[256];
    const char *found;
    ssize_t n;

    (void)snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    info = LP_RETRY(open(path, O_RDONLY | O_CLOEXEC));
    n = info < 0 ? -1 : LP_RETRY(read(info, text, sizeof text - 1));
    if (n < 0)
        return -1;
    text[n] = '\0';
    found = strstr(text, "mnt_id:");
    if (found == NULL) {
        errno = ENOSYS;
        return -1;
    }
    return atoi(found + strlen("mnt_id:"));
}

/* For kernels before 5.8: the root of a mount is on another one than its parent. */
static int mount_is_other(int parent, const char *name, int *is)
{
    LP_CLOSE int fd = LP_RETRY(openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
    int above = fd < 0 ? -1 : mount_id(parent);
    int here = above < 0 ? -1 : mount_id(fd);

    if (here < 0)
        return -1;
    *is = here != above;
    return 0;
}

static int mount_look(int parent, const char *name, int *is)
{
    struct statx st = {0};

    errno = lp_failpoint("mount.statx");
    if (errno == 0 &&
        statx(parent, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_TYPE, &st) < 0 &&
        errno != ENOSYS && errno != EPERM) /* seccomp filters that do not know it */
        return -1;
    if ((st.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) == 0)
        return mount_is_other(parent, name, is);
    *is = (st.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
    return 0;
}

/* As lp_path_parent(); *name is NULL where the directory is missing. */
static int mount_find_parent(const char *path, int *parent, const char **name, struct lp_error *err)
{
    struct lp_error problem;
    int code = lp_path_parent(path, parent, name, &problem);

    if (code == LP_ESYSTEM && (problem.sys_errno == ENOENT || problem.sys_errno == ENOTDIR)) {
        *name = NULL;
        return 0;
    }
    if (code != 0 && err != NULL)
        *err = problem;
    return code;
}

int lp_mount_id(int fd, int *id, struct lp_error *err)
{
    *id = mount_id(fd);
    if (*id < 0)
        return lp_fail_errno(err, "cannot tell the mount of descriptor %d", fd);
    return 0;
}

int lp_mount_is_point(const char *path, int *is, struct lp_error *err)
{
    LP_CLOSE int parent = -1;
    const char *name;
    int code = mount_find_parent(path, &parent, &name, err);

    *is = 0;
    if (code != 0 || name == NULL)
        return code;
    if (mount_look(parent, name, is) < 0 && errno != ENOENT)
        return lp_fail_errno(err, "cannot look at %s", name);
    return 0;
}

/* --- the rest ------------------------------------------------------------------ */

static int mount_detach_at(int parent, const char *name)
{
    struct fd_path place;

    return umount2(mount_fd_path(&place, parent, name), MNT_DETACH | UMOUNT_NOFOLLOW);
}

int lp_mount_detach(const char *path, int *was, struct lp_error *err)
{
    LP_CLOSE int parent = -1;
    const char *name;
    int code = mount_find_parent(path, &parent, &name, err);

    *was = 0;
    if (code != 0 || name == NULL)
        return code;
    if (mount_detach_at(parent, name) == 0)
        *was = 1;
    else if (errno != EINVAL && errno != ENOENT) /* EINVAL: not a mount point, or a link */
        return lp_fail_errno(err, "cannot unmount");
    return 0;
}

int lp_mount_private(const char *path, struct lp_error *err)
{
    LP_CLOSE int parent = -1;
    LP_CLOSE int dir = -1;
    LP_CLOSE int top = -1;
    struct fd_path place;
    const char *name;
    int bound = 0;
    int is = 0;
    int code = lp_path_parent(path, &parent, &name, err);

    if (code == 0)
        code = mount_open_dir(parent, name, &dir, err);
    if (code != 0)
        return code;
    if (mount_look(parent, name, &is) < 0)
        return lp_fail_errno(err, "cannot look at %s", name);
    if (!is) {
        mount_fd_path(&place, dir, "");
        if (mount(place.text, place.text, NULL, MS_BIND, NULL) < 0)
            return lp_fail_errno(err, "cannot bind it on itself");
        bound = 1;
    }
    code = mount_open_dir(parent, name, &top, err); /* dir is what lies below it */
    if (code == 0 && mount(NULL, mount_fd_path(&place, top, ""), NULL, MS_PRIVATE, NULL) < 0)
        code = lp_fail_errno(err, "cannot make the mount private");
    if (code != 0 && bound)
        (void)mount_detach_at(parent, name);
    return code;
}
