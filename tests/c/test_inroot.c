/* SPDX-License-Identifier: Apache-2.0 */
/* sys/inroot: the call and its errors; the trees are tried from Python. */
#include "base/failpoint.h"
#include "check.h"
#include "sys/inroot.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static int root;

static void test_stays_inside(void)
{
    struct lp_error err = {0};
    struct stat there, at;
    int fd = -1;

    CHECK(fstat(root, &there) == 0);
    CHECK(lp_inroot_open(root, "../../..", O_DIRECTORY, &fd, &err) == 0);
    CHECK(fstat(fd, &at) == 0 && at.st_ino == there.st_ino && at.st_dev == there.st_dev);
    CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK((fcntl(fd, F_GETFL) & O_PATH) != 0);
    (void)close(fd);
    CHECK(lp_inroot_open(root, "/tmp", 0, &fd, &err) == -1 && err.sys_errno == ENOENT);
    CHECK(fd == -1);
}

static void test_flags(void)
{
    struct lp_error err = {0};
    struct stat st;
    int fd = -1;

    CHECK(symlinkat("nowhere", root, "link") == 0);
    CHECK(lp_inroot_open(root, "link", 0, &fd, &err) == LP_ESYSTEM && err.sys_errno == ENOENT);
    /* What could have an effect is not passed on. */
    CHECK(lp_inroot_open(root, "link", O_NOFOLLOW | O_CREAT | O_TRUNC | O_RDWR, &fd, &err) == 0);
    CHECK(fstat(fd, &st) == 0 && S_ISLNK(st.st_mode));
    (void)close(fd);
    CHECK(unlinkat(root, "link", 0) == 0);
}

static void test_failures_are_told(void)
{
    const int numbers[] = {ENOSYS, EPERM, EAGAIN};
    struct lp_error err = {0};
    int fd;

    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        lp_failpoint_set("inroot.openat2", numbers[i], 0); /* EAGAIN: for ever */
        CHECK(lp_inroot_open(root, ".", 0, &fd, &err) == LP_ESYSTEM);
        CHECK(err.sys_errno == numbers[i] && fd == -1);
    }
    lp_failpoint_set("inroot.openat2", 0, 0);
}

int main(void)
{
    char room[] = "/tmp/lp-test-inroot-XXXXXX";

    CHECK(mkdtemp(room) != NULL);
    root = open(room, O_PATH | O_DIRECTORY | O_CLOEXEC);
    CHECK(root >= 0);
    CHECK_RUN(test_stays_inside);
    CHECK_RUN(test_flags);
    CHECK_RUN(test_failures_are_told);
    (void)close(root);
    CHECK(rmdir(room) == 0);
    return 0;
}
