/* SPDX-License-Identifier: Apache-2.0 */
/* What the store's C tests share: a scratch file and short calls. */
#ifndef LP_TESTS_KV_SUPPORT_H
#define LP_TESTS_KV_SUPPORT_H

#include "base/clock.h"
#include "check.h"
#include "kv/kv.h"

#include <stdio.h>
#include <unistd.h>

struct kv_scratch {
    char directory[64];
    char path[80];
};

static inline void kv_scratch_make(struct kv_scratch *scratch)
{
    (void)snprintf(scratch->directory, sizeof scratch->directory, "/tmp/test-kv-XXXXXX");
    CHECK(mkdtemp(scratch->directory) != NULL);
    (void)snprintf(scratch->path, sizeof scratch->path, "%s/db", scratch->directory);
}

static inline void kv_scratch_remove(struct kv_scratch *scratch)
{
    (void)unlink(scratch->path);
    CHECK(rmdir(scratch->directory) == 0);
}

static inline struct lp_slice kv_text(const char *text)
{
    return (struct lp_slice){(const uint8_t *)text, strlen(text)};
}

static inline struct lp_db *kv_open(const char *path, const struct lp_db_options *options)
{
    struct lp_wait wait = {.deadline = LP_FOREVER};
    struct lp_error err = {0};
    struct lp_db *db = NULL;

    if (lp_db_open(&db, path, options, &wait, &err) != LP_OK)
        (void)fprintf(stderr, "%s\n", err.message);
    CHECK(db != NULL);
    return db;
}

static inline void kv_close(struct lp_db *db)
{
    struct lp_error err;

    CHECK(lp_db_close(db, &err) == LP_OK);
}

static inline int kv_begin(struct lp_tx **tx, struct lp_db *db, bool writable, struct lp_error *err)
{
    struct lp_wait wait = {.deadline = LP_FOREVER};

    return lp_tx_begin(tx, db, writable, &wait, err);
}

static inline void kv_print_fault(void *context, uint64_t page, const char *text)
{
    (void)context;
    (void)fprintf(stderr, "page %llu: %s\n", (unsigned long long)page, text);
}

static inline void kv_check(struct lp_db *db)
{
    struct lp_error err;
    struct lp_tx *tx;

    CHECK(kv_begin(&tx, db, false, &err) == LP_OK);
    CHECK(lp_check(tx, kv_print_fault, NULL, &err) == 0);
    lp_tx_rollback(tx);
}

#endif
