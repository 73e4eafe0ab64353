/* SPDX-License-Identifier: Apache-2.0 */
/* sys/dirtree: trees as a container may leave them, and while somebody changes them. */
#include "base/failpoint.h"
#include "check.h"
#include "sys/dirtree.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXCHANGE 2 /* RENAME_EXCHANGE */

static char room[64]; /* a directory where the tests work, in memory: they make 20,000 files */

static void make_dir(const char *name)
{
    CHECK(mkdir(name, 0700) == 0);
}

static void make_file(const char *name)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    CHECK(fd >= 0 && close(fd) == 0);
}

static bool exists(const char *name)
{
    struct stat st;

    return lstat(name, &st) == 0;
}

static unsigned names_in(const char *name)
{
    DIR *dir = opendir(name);
    unsigned n = 0;

    CHECK(dir != NULL);
    while (readdir(dir) != NULL)
        n++;
    (void)closedir(dir);
    return n - 2;
}

static void remove_all(const char *name)
{
    struct lp_error err = {0};
    unsigned descriptors = names_in("/proc/self/fd");

    CHECK(lp_dirtree_remove(name, &err) == 0);
    CHECK(!exists(name) && names_in("/proc/self/fd") == descriptors);
}

static void test_kinds(void)
{
    make_dir("tree");
    make_dir("tree/empty");
    make_dir("tree/full");
    make_dir("tree/full/full");
    make_file("tree/full/full/file");
    make_file("tree/full/.hidden");
    make_file("tree/...");
    CHECK(symlink("nowhere", "tree/link") == 0);
    CHECK(mkfifo("tree/full/fifo", 0600) == 0);
    CHECK(link("tree/...", "tree/full/hard") == 0);
    remove_all("tree");
    remove_all("tree");         /* missing */
    remove_all("missing/tree"); /* more so */
}

static void test_links_are_removed_not_followed(void)
{
    struct lp_error err = {0};

    make_dir("outside");
    make_file("outside/kept");
    make_dir("tree");
    make_dir("tree/full");
    CHECK(symlink("../outside", "tree/link") == 0);
    CHECK(symlink("../../outside", "tree/full/link") == 0);
    remove_all("tree");
    CHECK(exists("outside/kept"));
    CHECK(symlink("outside", "tree") == 0);
    CHECK(lp_dirtree_remove("tree", &err) != 0 && err.sys_errno == ENOTDIR);
    CHECK(strstr(err.message, "tree") != NULL);
    CHECK(exists("tree") && exists("outside/kept"));
    CHECK(lp_dirtree_remove("outside/kept", &err) != 0 && err.sys_errno == ENOTDIR);
    CHECK(unlink("tree") == 0);
    remove_all("outside");
}

/* Deeper than a path can name, with few descriptors, and with our own names in it. */
static void test_depth(void)
{
    struct rlimit before, few;
    int fd;

    make_dir("tree");
    fd = open("tree", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int i = 0; i < 1500; i++) {
        int next;

        CHECK(mkdirat(fd, "deeper", 0700) == 0 && mkdirat(fd, "removed-1", 0700) == 0);
        CHECK(symlinkat("x", fd, "removed-2") == 0 && mkdirat(fd, "removed-1/x", 0700) == 0);
        next = openat(fd, "deeper", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        CHECK(next >= 0 && close(fd) == 0);
        fd = next;
    }
    CHECK(close(fd) == 0 && getrlimit(RLIMIT_NOFILE, &before) == 0);
    few = before;
    few.rlim_cur = names_in("/proc/self/fd") + 3;
    CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
    while (lp_dirtree_remove("tree", NULL) == LP_EINTERRUPTED)
        continue;
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0 && !exists("tree"));
}

/* A call ends now and then, so that signals are served. */
static void test_many(void)
{
    struct lp_error err = {0};
    char name[64];
    int calls = 0;

    make_dir("tree");
    make_dir("tree/inner");
    for (int i = 0; i < 15000; i++) {
        (void)snprintf(name, sizeof name, "tree/inner/%d", i);
        make_file(name);
    }
    while (lp_dirtree_remove("tree", &err) == LP_EINTERRUPTED)
        calls++;
    CHECK(calls == 1 && !exists("tree"));
}

static void test_refused(void)
{
    struct lp_error err = {0};

    if (geteuid() == 0)
        return;
    make_dir("tree");
    make_dir("tree/closed");
    make_file("tree/closed/file");
    CHECK(chmod("tree/closed", 0500) == 0);
    CHECK(lp_dirtree_remove("tree", &err) != 0 && err.sys_errno == EACCES);
    CHECK(strstr(err.message, "/closed/file") != NULL);
    CHECK(chmod("tree/closed", 0700) == 0);
    remove_all("tree");
}

/* --- while somebody changes the tree --------------------------------------------- */

static atomic_bool finished;

/* In turn a full directory and a link to one outside. */
static void *swap(void *unused)
{
    (void)unused;
    while (!atomic_load(&finished))
        (void)syscall(SYS_renameat2, AT_FDCWD, "tree/victim", AT_FDCWD, "lure", EXCHANGE);
    return NULL;
}

static void test_a_directory_becomes_a_link(void)
{
    pthread_t swapper;

    make_dir("outside");
    make_dir("outside/kept");
    make_file("outside/kept/file");
    atomic_store(&finished, false);
    CHECK(pthread_create(&swapper, NULL, swap, NULL) == 0);
    for (int i = 0; i < 1000; i++) {
        make_dir("tree");
        make_dir("tree/victim");
        make_dir("tree/victim/deep");
        make_file("tree/victim/deep/file");
        CHECK(symlink("../outside", "lure") == 0);
        /* It may fail where a thing changes its kind between two calls, and often in
         * a row where the two threads keep step. */
        for (int again = 0; lp_dirtree_remove("tree", NULL) != 0; again++)
            CHECK(again < 10000 && usleep((unsigned)again % 7) == 0);
        CHECK(exists("outside/kept/file"));
        if (unlink("lure") != 0) /* it ended up as the directory */
            remove_all("lure");
    }
    atomic_store(&finished, true);
    CHECK(pthread_join(swapper, NULL) == 0);
    remove_all("outside");
}

static void *add(void *unused)
{
    int fd = open("tree", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char name[32];

    (void)unused;
    CHECK(fd >= 0);
    for (unsigned i = 0; !atomic_load(&finished); i++) {
        (void)snprintf(name, sizeof name, "%u", i);
        (void)mkdirat(fd, name, 0700);
    }
    (void)close(fd);
    return NULL;
}

static void test_an_end_though_others_add(void)
{
    struct lp_error err = {0};
    pthread_t adder;
    int code;

    make_dir("tree");
    atomic_store(&finished, false);
    CHECK(pthread_create(&adder, NULL, add, NULL) == 0);
    while (names_in("tree") == 0)
        (void)usleep(100);
    code = lp_dirtree_remove("tree", &err);
    CHECK(code == 0 || code == LP_EINTERRUPTED || err.sys_errno == ENOTEMPTY);
    atomic_store(&finished, true);
    CHECK(pthread_join(adder, NULL) == 0);
    while (lp_dirtree_remove("tree", NULL) == LP_EINTERRUPTED)
        continue;
    CHECK(!exists("tree"));
}

int main(void)
{
    (void)snprintf(room, sizeof room, "%s/lp-tree-XXXXXX",
                   access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    CHECK(mkdtemp(room) != NULL && chdir(room) == 0);
    CHECK_RUN(test_kinds);
    CHECK_RUN(test_links_are_removed_not_followed);
    CHECK_RUN(test_depth);
    CHECK_RUN(test_many);
    CHECK_RUN(test_refused);
    CHECK_RUN(test_a_directory_becomes_a_link);
    CHECK_RUN(test_an_end_though_others_add);
    CHECK(chdir("/") == 0 && rmdir(room) == 0);
    return 0;
}
