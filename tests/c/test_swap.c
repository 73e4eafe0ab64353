/* SPDX-License-Identifier: Apache-2.0 */
/* sys/swap. */
#include "base/failpoint.h"
#include "check.h"
#include "sys/swap.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static char room[64]; /* a directory in /tmp, where the tests work */

static void put(const char *name, char content)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    CHECK(fd >= 0 && write(fd, &content, 1) == 1 && close(fd) == 0);
}

/* The only character of a file; 0 where there is none. */
static char content(const char *name)
{
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    char found = 0;

    if (fd < 0)
        return 0;
    CHECK(read(fd, &found, 1) == 1 && close(fd) == 0);
    return found;
}

static void test_exchange(void)
{
    put("fresh", 'f');
    put("path", 'p');
    CHECK(lp_swap_files("fresh", "path", NULL) == 0);
    CHECK(content("path") == 'f' && content("fresh") == 'p');
    CHECK(unlink("path") == 0);
    CHECK(lp_swap_files("fresh", "path", NULL) == 0);
    CHECK(content("path") == 'p' && content("fresh") == 0);
    CHECK(unlink("path") == 0);
}

/* Where two names cannot be exchanged the old file goes. */
static void test_without_exchange(void)
{
    static const int lacking[] = {EINVAL, ENOSYS, EPERM};

    for (size_t i = 0; i < sizeof lacking / sizeof lacking[0]; i++) {
        put("fresh", 'f');
        put("path", 'p');
        lp_failpoint_set("swap.exchange", lacking[i], 0);
        CHECK(lp_swap_files("fresh", "path", NULL) == 0);
        lp_failpoint_set("swap.exchange", 0, 0);
        CHECK(content("path") == 'f' && content("fresh") == 0);
        CHECK(unlink("path") == 0);
    }
}

static void test_failures(void)
{
    struct lp_error err = {0};

    CHECK(lp_swap_files("fresh", "path", &err) == LP_ESYSTEM && err.sys_errno == ENOENT);
    put("fresh", 'f');
    put("path", 'p');
    lp_failpoint_set("swap.exchange", EIO, 0);
    CHECK(lp_swap_files("fresh", "path", &err) == LP_ESYSTEM && err.sys_errno == EIO);
    lp_failpoint_set("swap.exchange", 0, 0);
    CHECK(strstr(err.message, "path") != NULL);
    CHECK(content("path") == 'p' && content("fresh") == 'f');
    CHECK(unlink("path") == 0 && unlink("fresh") == 0);
}

int main(void)
{
    (void)snprintf(room, sizeof room, "/tmp/lp-swap-XXXXXX");
    CHECK(mkdtemp(room) != NULL && chdir(room) == 0);
    CHECK_RUN(test_exchange);
    CHECK_RUN(test_without_exchange);
    CHECK_RUN(test_failures);
    CHECK(chdir("/") == 0 && rmdir(room) == 0);
    return 0;
}
