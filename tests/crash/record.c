/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into a process: writes every change that it makes to one file, in
 * order, to a log.  KV_RECORD_FILE is the file, KV_RECORD_LOG the log.
 *
 * A log entry: u8 kind ('W' write, 'S' sync, 'T' truncate), u64 offset, u64
 * size, then for a write its bytes.  The test appends entries of its own.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static int record_log(void)
{
    static int log_fd = -1;

    if (log_fd < 0)
        log_fd = open(getenv("KV_RECORD_LOG"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    return log_fd;
}

static int record_wanted(int fd)
{
    const char *wanted = getenv("KV_RECORD_FILE");
    char link[64];
    char path[PATH_MAX];
    ssize_t n;

    if (wanted == NULL)
        return 0;
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof path - 1);
    if (n < 0)
        return 0;
    path[n] = '\0';
    return strcmp(path, wanted) == 0;
}

static void record(int fd, char kind, uint64_t offset, const void *data, uint64_t size)
{
    uint8_t head[17];
    struct iovec parts[2] = {{head, sizeof head}, {(void *)(uintptr_t)data, data ? size : 0}};

    if (!record_wanted(fd))
        return;
    head[0] = (uint8_t)kind;
    memcpy(head + 1, &offset, 8);
    memcpy(head + 9, &size, 8);
    if (writev(record_log(), parts, 2) != (ssize_t)(sizeof head + parts[1].iov_len))
        abort();
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    ssize_t (*real)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, "pwrite");
    ssize_t n = real(fd, data, size, offset);

    if (n > 0)
        record(fd, 'W', (uint64_t)offset, data, (uint64_t)n);
    return n;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset)
{
    return pwrite(fd, data, size, offset);
}

int fdatasync(int fd)
{
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    int rc = real(fd);

    if (rc == 0)
        record(fd, 'S', 0, NULL, 0);
    return rc;
}

int ftruncate(int fd, off_t size)
{
    int (*real)(int, off_t) = dlsym(RTLD_NEXT, "ftruncate");
    int rc = real(fd, size);

    if (rc == 0)
        record(fd, 'T', (uint64_t)size, NULL, 0);
    return rc;
}
