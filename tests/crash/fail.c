/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into a process: makes its writes and syncs at an offset fail on
 * demand.  A write that fails has written the first half of its sectors.
 */
#include <dlfcn.h>
#include <errno.h>
#include <unistd.h>

#define SECTOR 512U

static long fail_skip;
static long fail_calls;
static int fail_error;

/* After `skip` more calls, `calls` of them fail with `error`.  Returns how many
 * of those that were asked for before are left. */
long kv_fail(long skip, long calls, int error)
{
    long left = fail_calls;

    fail_skip = skip;
    fail_calls = calls;
    fail_error = error;
    return left;
}

static int fail_now(void)
{
    if (fail_calls == 0 || fail_skip-- > 0)
        return 0;
    fail_skip = 0;
    fail_calls--;
    return 1;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    ssize_t (*real)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, "pwrite");
    int fails = fail_now();
    ssize_t n = real(fd, data, fails ? size / SECTOR / 2 * SECTOR : size, offset);

    if (fails && n >= 0) {
        errno = fail_error;
        return -1;
    }
    return n;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset)
{
    return pwrite(fd, data, size, offset);
}

int fdatasync(int fd)
{
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");

    if (fail_now()) {
        errno = fail_error;
        return -1;
    }
    return real(fd);
}
