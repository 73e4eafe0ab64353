/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole reads and writes: a call that did a part is made again for the rest, and
 * one that a signal interrupted from where it was.
 */
#include "kv/file.h"

#include "base/cleanup.h"
#include "base/failpoint.h"

#include <unistd.h>

#define FILE_ZERO_CHUNK ((size_t)256 << 10)

int lp_file_read(const struct lp_file *file, uint64_t offset, void *data, size_t size,
                 struct lp_error *err)
{
    uint8_t *at = data;

    while (size > 0) {
        ssize_t n = LP_RETRY(pread(file->fd, at, size, (off_t)offset));

        if (n < 0)
            return lp_fail_errno(err, "cannot read %zu bytes at %llu", size,
                                 (unsigned long long)offset);
        if (n == 0)
            return lp_fail(err, LP_KV_EREPLACED, "the file ends at byte %llu, before its last page",
                           (unsigned long long)offset);
        at += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return LP_OK;
}

int lp_file_write(const struct lp_file *file, const char *point, uint64_t offset, const void *data,
                  size_t size, struct lp_error *err)
{
    const uint8_t *at = data;

    errno = lp_failpoint(point);
    if (errno != 0)
        return lp_fail_errno(err, "cannot write %zu bytes at %llu", size,
                             (unsigned long long)offset);
    while (size > 0) {
        ssize_t n = LP_RETRY(pwrite(file->fd, at, size, (off_t)offset));

        if (n < 0)
            return lp_fail_errno(err, "cannot write %zu bytes at %llu", size,
                                 (unsigned long long)offset);
        at += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return LP_OK;
}

int lp_file_zero(const struct lp_file *file, uint64_t from, uint64_t to, struct lp_error *err)
{
    LP_FREE uint8_t *zeros = NULL;

    if (from >= to)
        return LP_OK;
    zeros = calloc(1, FILE_ZERO_CHUNK);
    if (zeros == NULL)
        return lp_fail(err, LP_ENOMEM, "no memory to grow the file");
    while (from < to) {
        size_t size = to - from < FILE_ZERO_CHUNK ? (size_t)(to - from) : FILE_ZERO_CHUNK;
        int rc = lp_file_write(file, "kv.grow", from, zeros, size, err);

        if (rc != LP_OK)
            return rc;
        from += size;
    }
    return LP_OK;
}

int lp_file_sync(const struct lp_file *file, const char *point, struct lp_error *err)
{
    errno = lp_failpoint(point);
    if (errno != 0 || LP_RETRY(fdatasync(file->fd)) < 0)
        return lp_fail_errno(err, "cannot sync the file");
    return LP_OK;
}
