/* SPDX-License-Identifier: Apache-2.0 */
/* sys/mount and sys/hostaddr, in a mount namespace of the test's own; without
 * root, in a user namespace too. */
#include "base/failpoint.h"
#include "check.h"
#include "sys/hostaddr.h"
#include "sys/mount.h"
#include "sys/sys.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static int root; /* not of a user namespace only: other IDs are mapped */

static void write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    (void)close(fd);
}

static void enter_namespace(void)
{
    unsigned uid = geteuid();
    unsigned gid = getegid();
    char map[64];

    root = uid == 0;
    CHECK(unshare(uid == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER) == 0);
    if (uid != 0) {
        (void)snprintf(map, sizeof map, "0 %u 1", uid);
        write_text("/proc/self/uid_map", map);
        write_text("/proc/self/setgroups", "deny");
        (void)snprintf(map, sizeof map, "0 %u 1", gid);
        write_text("/proc/self/gid_map", map);
    }
    CHECK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    /* Our root directory is a tmpfs of ours over /tmp: nothing is left outside, and
     * its owner is one whom we trust in a user namespace too. */
    CHECK(mount("room", "/tmp", "tmpfs", 0, "mode=700") == 0);
    CHECK(mkdir("/tmp/proc", 0755) == 0);
    CHECK(mount("/proc", "/tmp/proc", NULL, MS_BIND | MS_REC, NULL) == 0);
    CHECK(chroot("/tmp") == 0 && chdir("/") == 0);
}

static void make_dir(const char *name)
{
    CHECK(mkdir(name, 0755) == 0 || errno == EEXIST);
}

static int is_point(const char *path)
{
    struct lp_error err = {0};
    int is = -1;

    CHECK(lp_mount_is_point(path, &is, &err) == 0);
    return is;
}

static int detach(const char *path)
{
    int was = -1;

    CHECK(lp_mount_detach(path, &was, NULL) == 0);
    return was;
}

static const struct lp_mount_tmpfs shm = {.size = 1 << 20, .mode = 01777, .label = ""};

static void test_tmpfs(void)
{
    struct lp_error err = {0};
    struct statvfs vfs;
    struct stat st;
    const char *path = "/shm";

    make_dir("/shm");
    CHECK(!is_point(path));
    CHECK(lp_mount_tmpfs(path, &shm, &err) == 0);
    CHECK(is_point(path));
    CHECK(stat(path, &st) == 0 && (st.st_mode & 07777) == 01777);
    CHECK(statvfs(path, &vfs) == 0 && vfs.f_blocks * vfs.f_frsize == shm.size);
    CHECK((vfs.f_flag & (ST_NOSUID | ST_NODEV | ST_NOEXEC)) == (ST_NOSUID | ST_NODEV | ST_NOEXEC));
    CHECK(detach(path) == 1);
    CHECK(!is_point(path));
    CHECK(detach(path) == 0);
}

static void test_unlimited_and_owned(void)
{
    struct lp_mount_tmpfs tmpfs = {.size = 0, .mode = 0750, .label = ""};
    struct statvfs vfs;
    struct stat st;
    const char *path = "/shm";

    make_dir("/shm");
    if (root) {
        tmpfs.uid = 1000;
        tmpfs.gid = 1001;
    }
    CHECK(lp_mount_tmpfs(path, &tmpfs, NULL) == 0);
    CHECK(stat(path, &st) == 0 && (st.st_mode & 07777) == 0750);
    CHECK(st.st_uid == tmpfs.uid && st.st_gid == tmpfs.gid);
    CHECK(statvfs(path, &vfs) == 0 && vfs.f_blocks == 0);
    CHECK(detach(path) == 1);
}

static void test_detach_takes_the_top_one(void)
{
    const char *path = "/twice";
    int held;

    make_dir("/twice");
    CHECK(lp_mount_tmpfs(path, &shm, NULL) == 0);
    CHECK(lp_mount_tmpfs(path, &shm, NULL) == 0);
    held = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* a user does not stop it */
    CHECK(detach(path) == 1 && is_point(path));
    CHECK(detach(path) == 1 && !is_point(path));
    (void)close(held);
}

static void test_links_are_not_followed(void)
{
    struct lp_error err = {0};
    const char *path = "/shm";
    const char *link = "/link";

    make_dir("/shm");
    CHECK(symlink("/shm", link) == 0);
    CHECK(lp_mount_tmpfs(link, &shm, &err) == LP_ESYSTEM);
    CHECK(err.sys_errno == ELOOP || err.sys_errno == ENOTDIR);
    CHECK(lp_mount_private(link, &err) == LP_ESYSTEM);
    CHECK(!is_point(path));
    CHECK(lp_mount_tmpfs(path, &shm, NULL) == 0);
    CHECK(!is_point(link));
    CHECK(detach(link) == 0 && is_point(path));
    CHECK(detach(path) == 1);
    CHECK(unlink(link) == 0);
}

static void test_missing(void)
{
    struct lp_error err = {0};
    const char *path = "/nosuch";

    CHECK(!is_point(path) && detach(path) == 0);
    CHECK(!is_point("/nosuch/deep") && detach("/nosuch/deep") == 0);
    CHECK(lp_mount_tmpfs(path, &shm, &err) == LP_ESYSTEM && err.sys_errno == ENOENT);
    CHECK(lp_mount_private(path, &err) == LP_ESYSTEM && err.sys_errno == ENOENT);
}

static void test_refused(void)
{
    struct lp_error err = {0};
    struct lp_mount_tmpfs tmpfs = shm;
    int answer;

    make_dir("/open");
    make_dir("/open/dir");
    CHECK(chmod("/open", 0777) == 0);
    CHECK(lp_mount_tmpfs("/open/dir", &shm, &err) == LP_EREFUSED);
    CHECK(lp_mount_private("/open/dir", &err) == LP_EREFUSED);
    CHECK(lp_mount_detach("/open/dir", &answer, &err) == LP_EREFUSED);
    CHECK(lp_mount_is_point("/open/dir", &answer, &err) == LP_EREFUSED);
    CHECK(strstr(err.message, "writable by others") != NULL);
    CHECK(lp_mount_tmpfs("relative", &shm, &err) == LP_EINVALID);
    make_dir("/shm");
    tmpfs.label = "a\",size=1,context=\"b";
    CHECK(lp_mount_tmpfs("/shm", &tmpfs, &err) == LP_EINVALID);
    CHECK(!is_point("/shm"));
}

static int propagation_is_private(const char *path)
{
    char line[4096];
    int private = -1;
    FILE *info = fopen("/proc/self/mountinfo", "re");

    CHECK(info != NULL);
    while (fgets(line, sizeof line, info) != NULL) {
        char point[PATH_MAX];

        if (sscanf(line, "%*s %*s %*s %*s %4095s", point) == 1 && strcmp(point, path) == 0)
        private = strstr(line, " shared:") == NULL && strstr(line, " master:") == NULL;
    }
    (void)fclose(info);
    return private;
}

static void test_private(void)
{
    const char *path = "/home";
    const char *inner = "/home/inner";

    make_dir("/home");
    make_dir("/home/inner");
    CHECK(mount(NULL, "/", NULL, MS_SHARED, NULL) == 0);
    CHECK(lp_mount_private(path, NULL) == 0);
    CHECK(is_point(path) && propagation_is_private(path) == 1);
    CHECK(access(inner, F_OK) == 0);          /* the same directory is seen */
    CHECK(lp_mount_private(path, NULL) == 0); /* and no second mount */
    CHECK(detach(path) == 1 && !is_point(path));
    CHECK(lp_mount_tmpfs(path, &shm, NULL) == 0);
    CHECK(propagation_is_private(path) == 0); /* of a shared parent */
    CHECK(lp_mount_private(path, NULL) == 0);
    CHECK(propagation_is_private(path) == 1);
    CHECK(detach(path) == 1 && !is_point(path));
    CHECK(mount(NULL, "/", NULL, MS_PRIVATE, NULL) == 0);
}

/* Kernels before 5.8 have no mount root in statx(2), seccomp filters no statx. */
static void test_without_statx(void)
{
    lp_failpoint_set("mount.statx", ENOSYS, 0);
    test_tmpfs();
    test_detach_takes_the_top_one();
    test_links_are_not_followed();
    test_missing();
    test_private();
    lp_failpoint_set("mount.statx", 0, 0);
}

static void test_id(void)
{
    struct lp_error err = {0};
    int root_fd = open("/", O_PATH | O_CLOEXEC);
    int fd, same, other;

    make_dir("/shm");
    CHECK(lp_mount_tmpfs("/shm", &shm, NULL) == 0);
    fd = open("/shm", O_PATH | O_CLOEXEC);
    CHECK(lp_mount_id(root_fd, &same, &err) == 0 && lp_mount_id(fd, &other, &err) == 0);
    CHECK(same != other);
    (void)close(fd);
    CHECK(detach("/shm") == 1);
    fd = open("/shm", O_PATH | O_CLOEXEC);
    CHECK(lp_mount_id(fd, &other, &err) == 0 && same == other);
    (void)close(fd);
    (void)close(root_fd);
    CHECK(lp_mount_id(-1, &other, &err) == LP_ESYSTEM && err.sys_errno == ENOENT);
}

static void test_address(void)
{
    struct lp_error err = {0};
    struct in_addr address;
    char text[INET_ADDRSTRLEN];

    CHECK(lp_hostaddr_first(text, sizeof text, &err) == 0);
    CHECK(text[0] == '\0' || (inet_pton(AF_INET, text, &address) == 1 &&
                              ntohl(address.s_addr) >> 24 != IN_LOOPBACKNET));
    if (unshare(CLONE_NEWNET) == 0) { /* nothing but a loopback that is down */
        CHECK(lp_hostaddr_first(text, sizeof text, &err) == 0);
        CHECK(text[0] == '\0');
    }
}

int main(void)
{
    enter_namespace();
    CHECK_RUN(test_tmpfs);
    CHECK_RUN(test_unlimited_and_owned);
    CHECK_RUN(test_detach_takes_the_top_one);
    CHECK_RUN(test_links_are_not_followed);
    CHECK_RUN(test_missing);
    CHECK_RUN(test_refused);
    CHECK_RUN(test_private);
    CHECK_RUN(test_without_statx);
    CHECK_RUN(test_id);
    CHECK_RUN(test_address);
    return 0;
}
