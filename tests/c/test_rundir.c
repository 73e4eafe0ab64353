/* SPDX-License-Identifier: Apache-2.0 */
/* sys/path and sys/rundir.  As root the tests also plant what belongs to
 * somebody else. */
#include "base/failpoint.h"
#include "check.h"
#include "sys/path.h"
#include "sys/rundir.h"
#include "sys/sys.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define FOREIGN 12345 /* a uid that is not ours */

static char room[64]; /* a private directory in /tmp */

static bool is_root(void)
{
    return geteuid() == 0;
}

/* The path of a name in the room; good for the next eight calls. */
static const char *in_room(const char *format, ...) __attribute__((format(printf, 1, 2)));

static const char *in_room(const char *format, ...)
{
    static char paths[8][PATH_MAX];
    static unsigned next;
    char *path = paths[next++ % 8];
    int n = snprintf(path, PATH_MAX, "%s/", room);
    va_list args;

    va_start(args, format);
    (void)vsnprintf(path + n, (size_t)(PATH_MAX - n), format, args);
    va_end(args);
    return path;
}

static int descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;

    CHECK(dir != NULL);
    while (readdir(dir) != NULL)
        n++;
    (void)closedir(dir);
    return n;
}

static unsigned mode_of(const char *name)
{
    struct stat st;

    CHECK(lstat(name, &st) == 0);
    return st.st_mode & 07777;
}

static void make(const char *name, mode_t mode)
{
    CHECK(mkdir(in_room("%s", name), 0700) == 0 && chmod(in_room("%s", name), mode) == 0);
}

static void remove_all(const char *first, ...)
{
    va_list args;

    va_start(args, first);
    for (const char *name = first; name != NULL; name = va_arg(args, const char *))
        CHECK(remove(in_room("%s", name)) == 0);
    va_end(args);
}

/* The code of lp_rundir_open(), and that it leaves nothing open. */
static int open_code(const char *path)
{
    int before = descriptors(), fd = -1;
    int code = lp_rundir_open(path, &fd, NULL);

    CHECK((code == 0) == (fd >= 0));
    if (code == 0) {
        CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
        CHECK(close(fd) == 0);
    }
    CHECK(descriptors() == before);
    return code;
}

static int open_errno(const char *path)
{
    struct lp_error err;
    int fd;

    CHECK(lp_rundir_open(path, &fd, &err) == LP_ESYSTEM);
    return err.sys_errno;
}

static int make_code(const char *path, mode_t mode)
{
    int fd = -1;
    int code = lp_rundir_make(path, mode, &fd, NULL);

    CHECK((code == 0) == (fd >= 0) && (fd < 0 || close(fd) == 0));
    return code;
}

static int private_code(const char *path, mode_t mode)
{
    int fd = -1;
    int code = lp_rundir_make_private(path, mode, &fd, NULL);

    CHECK((code == 0) == (fd >= 0) && (fd < 0 || close(fd) == 0));
    return code;
}

/* --- below a directory ----------------------------------------------------------- */

static int beneath_errno(int dir, const char *path, int flags)
{
    CHECK(lp_path_beneath(dir, path, flags, 0) == -1);
    return errno;
}

static void test_beneath(void)
{
    int dir = open(room, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int before = descriptors(), fd;
    char long_name[NAME_MAX + 2];

    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    make("a", 0700);
    make("a/b", 0700);
    CHECK(symlink("a", in_room("link")) == 0);
    CHECK(symlink("../a/b", in_room("a/up")) == 0);

    fd = lp_path_beneath(dir, "a//./b/file", O_RDWR | O_CREAT | O_EXCL, 0640);
    CHECK(fd >= 0 && (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0 && close(fd) == 0);
    CHECK(mode_of(in_room("a/b/file")) == 0640);
    fd = lp_path_beneath(dir, "a/b", O_PATH | O_DIRECTORY, 0);
    CHECK(fd >= 0 && close(fd) == 0);
    fd = lp_path_beneath(dir, "link", O_PATH, 0); /* the link itself */
    CHECK(fd >= 0 && close(fd) == 0);

    CHECK(beneath_errno(dir, "link", O_RDONLY) == ELOOP);
    CHECK(beneath_errno(dir, "link/b", O_RDONLY) == ELOOP);
    CHECK(beneath_errno(dir, "a/up/file", O_RDONLY) == ELOOP);
    CHECK(beneath_errno(dir, "link", O_PATH | O_DIRECTORY) == ENOTDIR);
    CHECK(beneath_errno(dir, "a/../a", O_RDONLY) == EXDEV);
    CHECK(beneath_errno(dir, "..", O_RDONLY) == EXDEV);
    CHECK(beneath_errno(dir, "/tmp", O_RDONLY) == EXDEV);
    CHECK(beneath_errno(dir, "", O_RDONLY) == ENOENT);
    CHECK(beneath_errno(dir, "a/no/file", O_RDONLY) == ENOENT);
    CHECK(beneath_errno(dir, "a/b/file/x", O_RDONLY) == ENOTDIR);
    CHECK(beneath_errno(dir, long_name, O_RDONLY) == ENAMETOOLONG);
    CHECK(descriptors() == before && close(dir) == 0);
    remove_all("a/b/file", "a/b", "a/up", "a", "link", NULL);
}

/* --- who may be on the way ---------------------------------------------------- */

static void test_paths(void)
{
    char deep[PATH_MAX + 2], long_name[NAME_MAX + 2];

    make("a", 0700);
    make("a/b", 0700);
    CHECK(open_code("/") == 0 && open_code("/tmp") == 0);
    CHECK(open_code(in_room("a/./b/../b//")) == 0);
    CHECK(open_code(in_room("a/../../../../..")) == 0);
    CHECK(open_code("tmp") == LP_EINVALID && open_code("") == LP_EINVALID);
    CHECK(open_errno(in_room("a/no")) == ENOENT);
    memset(deep, '/', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    CHECK(open_errno(deep) == ENAMETOOLONG);
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    CHECK(open_errno(in_room("%s", long_name)) == ENAMETOOLONG);
    CHECK(close(creat(in_room("a/file"), 0600)) == 0);
    CHECK(open_errno(in_room("a/file")) == ENOTDIR);
    CHECK(open_errno(in_room("a/file/b")) == ENOTDIR);
    remove_all("a/file", "a/b", "a", NULL);
}

static void test_ancestors(void)
{
    make("a", 0755);
    make("a/b", 0777); /* the last one is the caller's to judge */
    CHECK(open_code(in_room("a/b")) == 0);
    CHECK(chmod(in_room("a"), 0777) == 0);
    CHECK(open_code(in_room("a/b")) == LP_EREFUSED);
    CHECK(open_code(in_room("a/no")) == LP_EREFUSED);
    CHECK(open_code(in_room("a/..")) == LP_EREFUSED);
    CHECK(make_code(in_room("a/new"), 0700) == LP_EREFUSED);
    CHECK(access(in_room("a/new"), F_OK) < 0);
    CHECK(chmod(in_room("a"), 0770) == 0);
    CHECK(open_code(in_room("a/b")) == LP_EREFUSED);
    CHECK(chmod(in_room("a"), 01777) == 0);
    CHECK(open_code(in_room("a/b")) == 0);
    if (is_root()) {
        CHECK(chown(in_room("a"), FOREIGN, 0) == 0);
        CHECK(open_code(in_room("a/b")) == LP_EREFUSED);
        CHECK(chmod(in_room("a"), 0700) == 0);
        CHECK(open_code(in_room("a/b")) == LP_EREFUSED);
        CHECK(open_code(in_room("a")) == 0);
    }
    remove_all("a/b", "a", NULL);
}

/* Run as root: a link of ours is root's.  Otherwise nobody's link but root's
 * is followed, ours neither. */
static void test_links(void)
{
    const int code = is_root() ? 0 : LP_EREFUSED;

    make("a", 0700);
    make("a/b", 0700);
    make("wide", 0777);
    make("wide/b", 0700);
    CHECK(symlink("a", in_room("relative")) == 0);
    CHECK(symlink(in_room("a/b"), in_room("absolute")) == 0);
    CHECK(symlink("../relative/b", in_room("a/up")) == 0);
    CHECK(symlink("loop", in_room("loop")) == 0);
    CHECK(symlink("wide", in_room("to-wide")) == 0);
    CHECK(symlink("a/new", in_room("dangling")) == 0);
    CHECK(open_code(in_room("relative")) == code);
    CHECK(open_code(in_room("relative/b/")) == code);
    CHECK(open_code(in_room("absolute")) == code);
    CHECK(open_code(in_room("a/up")) == code);
    CHECK(open_code(in_room("to-wide/b")) == LP_EREFUSED);
    CHECK(make_code(in_room("dangling"), 0700) == code);
    if (is_root()) {
        CHECK(open_errno(in_room("loop/x")) == ELOOP);
        CHECK(mode_of(in_room("a/new")) == 0700);
        remove_all("a/new", NULL);
        CHECK(lchown(in_room("relative"), FOREIGN, 0) == 0);
        CHECK(open_code(in_room("relative")) == LP_EREFUSED);
        CHECK(open_code(in_room("relative/b")) == LP_EREFUSED);
        CHECK(open_code(in_room("a/up")) == LP_EREFUSED);
        CHECK(private_code(in_room("relative"), 0700) == LP_EREFUSED);
    }
    if (!is_root()) /* a link of ours, which the kernel would jump through */
        CHECK(open_code("/proc/self/cwd") == LP_EREFUSED);
    remove_all("a/up", "a/b", "a", "wide/b", "wide", "relative", "absolute", NULL);
    remove_all("loop", "to-wide", "dangling", NULL);
}

/* Links that grow the path beyond any limit. */
static void test_growing_links(void)
{
    char target[PATH_MAX] = "";

    if (!is_root())
        return; /* no link of ours is followed */
    for (int i = 0; i < 300; i++)
        (void)strcat(target, "grow/.../../");
    CHECK(symlink(target, in_room("grow")) == 0);
    CHECK(open_errno(in_room("grow")) == ENAMETOOLONG);
    remove_all("grow", NULL);
}

/* --- making -------------------------------------------------------------------- */

static void test_make(void)
{
    const mode_t masks[] = {0, 022, 077};

    for (size_t i = 0; i < sizeof masks / sizeof masks[0]; i++) {
        mode_t old = umask(masks[i]);

        CHECK(make_code(in_room("a/b/c"), 0751) == 0);
        (void)umask(old);
        CHECK(mode_of(in_room("a")) == 0751 && mode_of(in_room("a/b")) == 0751);
        CHECK(mode_of(in_room("a/b/c")) == 0751);
        CHECK(make_code(in_room("a/b"), 0700) == 0 && mode_of(in_room("a/b")) == 0751);
        remove_all("a/b/c", "a/b", "a", NULL);
    }
    make("wide", 0770);
    CHECK(make_code(in_room("wide"), 0700) == LP_EREFUSED);
    CHECK(chmod(in_room("wide"), 01777) == 0);
    CHECK(make_code(in_room("wide"), 0700) == LP_EREFUSED);
    remove_all("wide", NULL);
    make("setgid", 02755); /* handed down to what is made in it, on most file systems */
    CHECK(make_code(in_room("setgid/a"), 0755) == 0 && mode_of(in_room("setgid/a")) == 0755);
    remove_all("setgid/a", "setgid", NULL);
    if (is_root()) {
        make("theirs", 0755);
        CHECK(chown(in_room("theirs"), FOREIGN, 0) == 0);
        CHECK(make_code(in_room("theirs"), 0755) == LP_EREFUSED);
        remove_all("theirs", NULL);
    }
}

static void test_make_private(void)
{
    CHECK(private_code(in_room("new"), 0700) == 0 && mode_of(in_room("new")) == 0700);
    CHECK(chmod(in_room("new"), 0777) == 0);
    CHECK(private_code(in_room("new"), 0700) == 0 && mode_of(in_room("new")) == 0700);
    CHECK(chmod(in_room("new"), 0500) == 0);
    CHECK(private_code(in_room("new"), 0700) == 0 && mode_of(in_room("new")) == 0500);
    CHECK(private_code("/tmp", 0700) == LP_EREFUSED && mode_of("/tmp") == 01777);
    if (is_root()) {
        CHECK(chown(in_room("new"), FOREIGN, 0) == 0);
        CHECK(private_code(in_room("new"), 0700) == LP_EREFUSED);
    } else {
        CHECK(private_code("/usr", 0755) == LP_EREFUSED); /* root's is not ours */
        CHECK(make_code("/usr", 0755) == 0);
    }
    remove_all("new", NULL);
}

static void test_make_at_once(void)
{
    for (int i = 0; i < 20; i++) {
        pid_t children[3];

        for (int k = 0; k < 3; k++) {
            children[k] = fork();
            CHECK(children[k] >= 0);
            if (children[k] == 0)
                _exit(make_code(in_room("race/b/c/d"), 0750) != 0);
        }
        for (int k = 0; k < 3; k++) {
            int status;

            CHECK(waitpid(children[k], &status, 0) == children[k] && status == 0);
        }
        CHECK(mode_of(in_room("race/b")) == 0750);
        remove_all("race/b/c/d", "race/b/c", "race/b", "race", NULL);
    }
}

static void test_messages_name_the_culprit(void)
{
    struct lp_error err;
    int fd;

    make("a", 0777);
    make("a/b", 0700);
    CHECK(lp_rundir_open(in_room("a/b"), &fd, &err) == LP_EREFUSED);
    CHECK(strstr(err.message, in_room("a ")) != NULL && strstr(err.message, "0777") != NULL);
    remove_all("a/b", "a", NULL);
}

static void test_all(void)
{
    CHECK_RUN(test_beneath);
    CHECK_RUN(test_paths);
    CHECK_RUN(test_ancestors);
    CHECK_RUN(test_links);
    CHECK_RUN(test_growing_links);
    CHECK_RUN(test_make);
    CHECK_RUN(test_make_private);
    CHECK_RUN(test_make_at_once);
    CHECK_RUN(test_messages_name_the_culprit);
}

int main(void)
{
    int before = descriptors();

    (void)strcpy(room, "/tmp/test_rundir.XXXXXX");
    CHECK(mkdtemp(room) != NULL);
    test_all();
    lp_failpoint_set("path.openat2", ENOSYS, 0); /* a kernel before 5.6 */
    test_all();
    lp_failpoint_set("path.openat2", EPERM, 0); /* a seccomp filter that does not know it */
    test_all();
    CHECK(rmdir(room) == 0);
    CHECK(descriptors() == before);
    return 0;
}
