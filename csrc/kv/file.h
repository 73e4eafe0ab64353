/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The only door to the database file.  Whole reads and writes, EINTR retried;
 * in test builds every change is a failpoint.
 */
#ifndef LP_KV_FILE_H
#define LP_KV_FILE_H

#include "kv/kv.h"

struct lp_file {
    int fd;
};

/* Reads exactly `size` bytes; LP_KV_EREPLACED where the file ends before. */
int lp_file_read(const struct lp_file *file, uint64_t offset, void *data, size_t size,
                 struct lp_error *err);

/* `point` names the failpoint of this write. */
int lp_file_write(const struct lp_file *file, const char *point, uint64_t offset, const void *data,
                  size_t size, struct lp_error *err);

/* Writes zeros over [from, to): blocks that exist, where ftruncate() would
 * leave a hole that the next sync has to allocate. */
int lp_file_zero(const struct lp_file *file, uint64_t from, uint64_t to, struct lp_error *err);

/* fdatasync().  Never to be retried after a failure: the kernel may have
 * dropped the pages and say 0 the next time. */
int lp_file_sync(const struct lp_file *file, const char *point, struct lp_error *err);

#endif
