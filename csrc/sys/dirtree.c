/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A directory that is not empty moves up to the top of the tree, where its turn
 * comes: so the top and one directory in it are open, whatever the depth.
 *
 * 1. Every name is looked up in the open descriptor of its directory, and no
 *    call follows a link: where somebody puts a link in the place of a
 *    directory meanwhile, the link is removed.
 * 2. A directory is opened only after rmdir(2) said that it is not empty.  Of a
 *    mount point that says EBUSY, whatever is in it: so none is entered.
 * 3. A directory is read again while the last pass moved something up into it,
 *    and a few times more where somebody else adds to it.
 */
#include "sys/dirtree.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PASSES_MOST 8      /* over a directory to which somebody adds */
#define REMOVED_MOST 10000 /* names in one call: some tenths of a second */

/* What getdents64(2) writes; older libraries have neither the call nor this. */
struct entry {
    uint64_t ino;
    int64_t next;
    uint16_t size; /* of the whole entry */
    uint8_t type;  /* DT_UNKNOWN where the file system does not tell */
    char name[];
};

struct removal {
    int top;          /* the open directory that is removed */
    unsigned removed; /* names, in this call */
    unsigned moved;   /* counts the directories that moved up, and names them */
    struct lp_error *err;
};

static int dirtree_pass(struct removal *removal, int dir);

/* Reports errno for a name in an open directory, or in none: the whole path. */
static int dirtree_failed(const struct removal *removal, int dir, const char *name)
{
    int saved = errno;
    char place[256];
    char link[32];
    ssize_t n;

    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
    n = dir < 0 ? -1 : readlink(link, place, sizeof place - 1);
    place[n < 0 ? 0 : n] = '\0';
    errno = saved;
    return lp_fail_errno(removal->err, "cannot remove %s%s%s", place, n < 0 ? "" : "/", name);
}

/* 1 where there is no such directory any more, 0 where there is something in it. */
static int dirtree_rmdir(int dir, const char *name)
{
    if (unlinkat(dir, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
        return 1;
    return errno == ENOTEMPTY || errno == EEXIST ? 0 : -1;
}

/* The same for what may be anything by now. */
static int dirtree_unlink(int dir, const char *name, bool directory)
{
    int gone = directory ? dirtree_rmdir(dir, name) : -1;

    if (directory && (gone >= 0 || errno != ENOTDIR))
        return gone;
    if (unlinkat(dir, name, 0) == 0 || errno == ENOENT)
        return 1;
    return errno == EISDIR && !directory ? dirtree_rmdir(dir, name) : -1;
}

/* Empties and removes an open directory: the top, or the one of this name in it. */
static int dirtree_clear(struct removal *removal, int fd, const char *name)
{
    unsigned passes = 0;

    while (passes < PASSES_MOST) {
        unsigned moved = removal->moved;
        int gone, code;

        code = dirtree_pass(removal, fd);
        if (code != 0)
            return code;
        gone = fd == removal->top ? dirtree_rmdir(AT_FDCWD, name)
                                  : dirtree_unlink(removal->top, name, true);
        if (gone > 0)
            return 0;
        if (gone < 0 || lseek(fd, 0, SEEK_SET) < 0)
            break;
        if (fd != removal->top || removal->moved == moved)
            passes++;
    }
    return dirtree_failed(removal, fd == removal->top ? -1 : removal->top, name);
}

/* A directory of the top that is not empty. */
static int dirtree_enter(struct removal *removal, const char *name)
{
    LP_CLOSE int fd = -1;

    fd = LP_RETRY(openat(removal->top, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (fd >= 0)
        return dirtree_clear(removal, fd, name);
    /* Something else by now, which goes; or a directory of which errno is true. */
    if ((errno == ENOTDIR || errno == ELOOP || errno == ENOENT) &&
        dirtree_unlink(removal->top, name, true) > 0)
        return 0;
    return dirtree_failed(removal, removal->top, name);
}

static int dirtree_move_up(struct removal *removal, int dir, const char *name)
{
    char number[32];

    for (;;) {
        (void)snprintf(number, sizeof number, "removed-%u", removal->moved++);
        if (renameat(dir, name, removal->top, number) == 0 || errno == ENOENT)
            return 0;
        if (errno != ENOTEMPTY && errno != EEXIST && errno != ENOTDIR && errno != EISDIR)
            return dirtree_failed(removal, dir, name);
        /* that name is taken, by a directory or by a file */
    }
}

static int dirtree_entry(struct removal *removal, int dir, const char *name, bool directory)
{
    int gone = dirtree_unlink(dir, name, directory);

    if (gone < 0)
        return dirtree_failed(removal, dir, name);
    if (gone == 0)
        return dir == removal->top ? dirtree_enter(removal, name)
                                   : dirtree_move_up(removal, dir, name);
    if (++removal->removed < REMOVED_MOST)
        return 0;
    return lp_fail(removal->err, LP_EINTERRUPTED, "there is more");
}

/* Goes once over an open directory.  That of the top goes over one in it; that one
 * over no other. */
static int dirtree_pass(struct removal *removal, int dir)
{
    _Alignas(struct entry) char entries[8192];
    long n;

    while ((n = syscall(SYS_getdents64, dir, entries, sizeof entries)) > 0) {
        for (long at = 0; at < n;) {
            const struct entry *entry = (const struct entry *)(const void *)(entries + at);
            int code = 0;

            if (strcmp(entry->name, ".") != 0 && strcmp(entry->name, "..") != 0)
                code = dirtree_entry(removal, dir, entry->name, entry->type == DT_DIR);
            if (code != 0)
                return code;
            at += entry->size;
        }
    }
    /* Of a directory that somebody else removed it says ENOENT. */
    return n < 0 && errno != ENOENT ? dirtree_failed(removal, dir, ".") : 0;
}

int lp_dirtree_remove(const char *path, struct lp_error *err)
{
    struct removal removal = {.top = -1, .err = err};
    LP_CLOSE int top = -1;
    int gone = dirtree_rmdir(AT_FDCWD, path);

    if (gone != 0)
        return gone > 0 ? 0 : dirtree_failed(&removal, -1, path);
    top = LP_RETRY(open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (top < 0)
        return errno == ENOENT ? 0 : dirtree_failed(&removal, -1, path);
    removal.top = top;
    /* Not from 1: an earlier call may have left names that begin there. */
    removal.moved = (unsigned)lp_now();
    return dirtree_clear(&removal, top, path);
}
