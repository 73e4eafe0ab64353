/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paths are walked from "/" one name at a time, each name looked up in the
 * open descriptor of the directory before it, so that what was checked is what
 * is used.
 *
 * 1. A name is looked up only in a directory that lp_path_trusted() accepted
 *    on the very descriptor used.
 * 2. No system call follows a link.  A link of root's is read and its text put
 *    in front of the rest of the path, whose names fall under rule 1 again.
 * 3. A directory that we make gets its mode on a descriptor, and is judged
 *    like any other before a name is looked up in it.
 *
 * Messages name the directory at fault by /proc/self/fd, so that they are
 * right behind links too; the caller adds the path that was asked for.
 */
#include "sys/path.h"

#include "base/cleanup.h"
#include "base/failpoint.h"
#include "sys/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define LINKS_MOST 40 /* as the kernel's own limit */

/* openat2(2), which the headers of older systems lack: the kernel's numbers. */
#define NUMBER_OPENAT2 437
#define RESOLVE_NO_MAGICLINKS 0x02
#define RESOLVE_NO_SYMLINKS 0x04
#define RESOLVE_BENEATH 0x08

struct open_how {
    uint64_t flags;
    uint64_t mode;
    uint64_t resolve;
};

/* A path in the middle of its walk. */
struct walk {
    int dir;             /* the directory reached so far, O_PATH */
    const char *rest;    /* what is still to walk, inside text */
    char text[PATH_MAX]; /* the path asked for, or a link's text and the rest */
    char name[NAME_MAX + 1];
    unsigned links;
};

/* Where a descriptor is, for a message. */
struct place {
    char text[256];
};

/* Keeps errno: it is called between a failure and its report. */
static const char *path_place(int fd, struct place *place)
{
    int saved = errno;
    char link[32];
    ssize_t n;

    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, place->text, sizeof place->text - 1);
    errno = saved;
    if (n < 0)
        return "a directory of the path";
    place->text[n] = '\0';
    return place->text;
}

/* Takes the next name of *path into name[NAME_MAX + 1] and moves on: its
 * length, 0 at the end, -1 where it is too long for any file system. */
static ssize_t path_next(const char **path, char *name)
{
    const char *start = *path + strspn(*path, "/");
    size_t length = strcspn(start, "/");

    if (length > NAME_MAX) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(name, start, length);
    name[length] = '\0';
    *path = start + length;
    return (ssize_t)length;
}

/* --- below a directory ------------------------------------------------------ */

/* 0 where the path stays below its start by its text alone. */
static int beneath_check(const char *path)
{
    char name[NAME_MAX + 1];
    ssize_t n;

    if (path[0] == '/') {
        errno = EXDEV;
        return -1;
    }
    while ((n = path_next(&path, name)) > 0) {
        if (strcmp(name, "..") == 0) {
            errno = EXDEV;
            return -1;
        }
    }
    return (int)n;
}

static int beneath_openat2(int dirfd, const char *path, int flags, mode_t mode)
{
    struct open_how how = {
        .flags = (unsigned)flags,
        .mode = (flags & O_CREAT) != 0 ? mode : 0,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };

    errno = lp_failpoint("path.openat2");
    if (errno != 0)
        return -1;
    return (int)LP_RETRY(syscall(NUMBER_OPENAT2, dirfd, path, &how, sizeof how));
}

/* The same for kernels before 5.6, and for seccomp filters that do not know
 * openat2: one name at a time. */
static int beneath_by_names(int dirfd, const char *path, int flags, mode_t mode)
{
    LP_CLOSE int held = -1;
    char name[NAME_MAX + 1];
    struct stat st;
    int next;

    for (;;) {
        int at = held >= 0 ? held : dirfd;

        if (path_next(&path, name) < 0)
            return -1;
        if (path[strspn(path, "/")] == '\0')
            return LP_RETRY(openat(at, name[0] != '\0' ? name : path, flags, mode));
        next = LP_RETRY(openat(at, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
        if (next < 0) {
            if (errno == ENOTDIR && fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
                errno = S_ISLNK(st.st_mode) ? ELOOP : ENOTDIR;
            return -1;
        }
        lp_close_fd(&held);
        held = next;
    }
}

int lp_path_beneath(int dirfd, const char *path, int flags, mode_t mode)
{
    int fd;

    if (beneath_check(path) < 0)
        return -1;
    flags |= O_CLOEXEC | O_NOFOLLOW;
    fd = beneath_openat2(dirfd, path, flags, mode);
    if (fd >= 0 || (errno != ENOSYS && errno != EPERM))
        return fd;
    return beneath_by_names(dirfd, path, flags, mode);
}

int lp_path_make_file(int dirfd, const char *name, mode_t mode)
{
    LP_CLOSE int fd = lp_path_beneath(dirfd, name, O_RDWR | O_CREAT | O_EXCL, mode);
    struct stat st;

    if (fd < 0)
        return -1;
    if (fstat(fd, &st) < 0 || ((st.st_mode & 07777) != mode && LP_RETRY(fchmod(fd, mode)) < 0)) {
        int saved = errno;

        (void)unlinkat(dirfd, name, 0);
        errno = saved;
        return -1;
    }
    return lp_steal_fd(&fd);
}

/* --- from the root ------------------------------------------------------------ */

int lp_path_trusted(int dirfd, int sticky, struct lp_error *err)
{
    struct place place;
    struct stat st;

    if (fstat(dirfd, &st) < 0)
        return lp_fail_errno(err, "cannot look at %s", path_place(dirfd, &place));
    if (st.st_uid != 0 && st.st_uid != geteuid())
        return lp_fail(err, LP_EREFUSED, "%s belongs to uid %u, not to root or to us",
                       path_place(dirfd, &place), st.st_uid);
    if ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0 && !(sticky && (st.st_mode & S_ISVTX) != 0))
        return lp_fail(err, LP_EREFUSED, "%s is writable by others (mode %04o)",
                       path_place(dirfd, &place), st.st_mode & 07777);
    return 0;
}

static int walk_start(struct walk *walk, const char *path, struct lp_error *err)
{
    if (path[0] != '/')
        return lp_fail(err, LP_EINVALID, "the path is not absolute");
    if (strlen(path) >= sizeof walk->text) {
        errno = ENAMETOOLONG;
        return lp_fail_errno(err, "the path is too long");
    }
    walk->links = 0;
    walk->rest = strcpy(walk->text, path);
    walk->dir = LP_RETRY(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (walk->dir < 0)
        return lp_fail_errno(err, "cannot open /");
    return 0;
}

/* Makes walk->name with exactly this mode, whatever the umask.  Another
 * process that makes it meanwhile is as good. */
static int walk_make(const struct walk *walk, mode_t mode, struct lp_error *err)
{
    LP_CLOSE int fd = -1;
    struct place place;
    struct stat st;

    if (mkdirat(walk->dir, walk->name, mode) < 0) {
        if (errno == EEXIST)
            return 0;
        return lp_fail_errno(err, "cannot make %s in %s", walk->name,
                             path_place(walk->dir, &place));
    }
    fd = lp_path_beneath(walk->dir, walk->name, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0 || fstat(fd, &st) < 0 ||
        ((st.st_mode & 07777) != mode && LP_RETRY(fchmod(fd, mode)) < 0))
        return lp_fail_errno(err, "cannot set the mode of %s in %s", walk->name,
                             path_place(walk->dir, &place));
    return 0;
}

/* walk->name is not a directory: a link of root's is put in front of the rest. */
static int walk_link(struct walk *walk, struct lp_error *err)
{
    LP_CLOSE int link = lp_path_beneath(walk->dir, walk->name, O_PATH, 0);
    char target[PATH_MAX];
    struct place place;
    struct stat st;
    size_t rest = strlen(walk->rest);
    ssize_t n;

    if (link < 0 || fstat(link, &st) < 0)
        return lp_fail_errno(err, "cannot look at %s", walk->name);
    if (!S_ISLNK(st.st_mode)) {
        errno = ENOTDIR;
        return lp_fail_errno(err, "%s", path_place(link, &place));
    }
    if (st.st_uid != 0)
        return lp_fail(err, LP_EREFUSED, "%s is a link of uid %u; only root's are followed",
                       path_place(link, &place), st.st_uid);
    n = readlinkat(link, "", target, sizeof target);
    if (n < 0)
        return lp_fail_errno(err, "cannot read the link %s", path_place(link, &place));
    if (++walk->links > LINKS_MOST || (size_t)n + rest >= sizeof walk->text) {
        errno = walk->links > LINKS_MOST ? ELOOP : ENAMETOOLONG;
        return lp_fail_errno(err, "%s", path_place(link, &place));
    }
    memmove(walk->text + n, walk->rest, rest + 1);
    memcpy(walk->text, target, (size_t)n);
    walk->rest = walk->text;
    if (target[0] == '/') {
        lp_close_fd(&walk->dir);
        walk->dir = LP_RETRY(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    }
    return walk->dir < 0 ? lp_fail_errno(err, "cannot open /") : 0;
}

/* Enters walk->name.  ".." is the true parent of a directory that was reached
 * by trusted ones only. */
static int walk_enter(struct walk *walk, mode_t make, struct lp_error *err)
{
    const int flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    bool up = strcmp(walk->name, "..") == 0;
    struct place place;
    int next, code;

    if (strcmp(walk->name, ".") == 0)
        return 0;
    next = up ? LP_RETRY(openat(walk->dir, "..", flags))
              : lp_path_beneath(walk->dir, walk->name, flags, 0);
    if (next < 0 && errno == ENOENT && make != 0) {
        code = walk_make(walk, make, err);
        if (code != 0)
            return code;
        next = lp_path_beneath(walk->dir, walk->name, flags, 0);
    }
    if (next >= 0) {
        lp_close_fd(&walk->dir);
        walk->dir = next;
        return 0;
    }
    if (errno == ENOTDIR)
        return walk_link(walk, err);
    return lp_fail_errno(err, "cannot open %s in %s", walk->name, path_place(walk->dir, &place));
}

static void walk_end(struct walk *walk)
{
    lp_close_fd(&walk->dir);
}

int lp_path_walk(const char *path, mode_t make, int *dirfd, struct lp_error *err)
{
    __attribute__((cleanup(walk_end))) struct walk walk;
    ssize_t n;
    int code;

    walk.dir = -1;
    code = walk_start(&walk, path, err);
    if (code != 0)
        return code;
    while ((n = path_next(&walk.rest, walk.name)) > 0) {
        code = lp_path_trusted(walk.dir, 1, err);
        if (code == 0)
            code = walk_enter(&walk, make, err);
        if (code != 0)
            return code;
    }
    if (n < 0)
        return lp_fail_errno(err, "a name of the path is too long");
    *dirfd = lp_steal_fd(&walk.dir);
    return 0;
}

int lp_path_parent(const char *path, int *dirfd, const char **name, struct lp_error *err)
{
    const char *slash = strrchr(path, '/');
    LP_CLOSE int dir = -1;
    char parent[PATH_MAX];
    int code;

    if (slash == NULL || slash[1] == '\0' || strcmp(slash, "/.") == 0 || strcmp(slash, "/..") == 0)
        return lp_fail(err, LP_EINVALID, "the path is not that of a file");
    if (slash - path >= PATH_MAX - 1) {
        errno = ENAMETOOLONG;
        return lp_fail_errno(err, "the path is too long");
    }
    memcpy(parent, path, (size_t)(slash + 1 - path));
    parent[slash + 1 - path] = '\0';
    code = lp_path_walk(parent, 0, &dir, err);
    if (code == 0)
        code = lp_path_trusted(dir, 1, err);
    if (code != 0)
        return code;
    *name = slash + 1;
    *dirfd = lp_steal_fd(&dir);
    return 0;
}

int lp_path_tighten(int fd, mode_t mode, struct lp_error *err)
{
    LP_CLOSE int readable = -1;
    struct place place;
    struct stat st;

    if (fstat(fd, &st) < 0)
        return lp_fail_errno(err, "cannot look at %s", path_place(fd, &place));
    if (st.st_uid != geteuid())
        return lp_fail(err, LP_EREFUSED, "%s belongs to uid %u, not to us", path_place(fd, &place),
                       st.st_uid);
    if (S_ISDIR(st.st_mode) && (st.st_mode & S_ISVTX) != 0)
        return lp_fail(err, LP_EREFUSED, "%s is a directory for everybody (mode %04o)",
                       path_place(fd, &place), st.st_mode & 07777);
    if ((st.st_mode & 07777 & ~mode) == 0)
        return 0;
    if (S_ISDIR(st.st_mode)) {
        /* fchmod() refuses O_PATH descriptors. */
        readable = LP_RETRY(openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        if (readable < 0)
            return lp_fail_errno(err, "cannot open %s", path_place(fd, &place));
        fd = readable;
    }
    if (LP_RETRY(fchmod(fd, st.st_mode & mode)) < 0)
        return lp_fail_errno(err, "cannot narrow the mode of %s", path_place(fd, &place));
    return 0;
}
