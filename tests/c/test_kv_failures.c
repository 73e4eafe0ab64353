/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A commit that fails at each of its steps.  Before the meta is written it is
 * rolled back and the database goes on; a failed sync or meta makes the handle
 * refuse writes, and what is in the file is one commit or the other.
 */
#include "base/failpoint.h"
#include "kv_support.h"

#include <errno.h>

#define KEYS 400

static struct lp_db_options options = LP_DB_DEFAULTS;

static void put_generation(struct lp_tx *tx, unsigned generation)
{
    struct lp_error err;
    struct lp_bucket *bucket;
    char key[32];
    uint8_t value[500];

    memset(value, (int)generation, sizeof value);
    CHECK(lp_bucket_create(&bucket, lp_tx_root(tx), kv_text("bucket"), true, &err) == LP_OK);
    for (unsigned i = 0; i < KEYS; i++) {
        (void)snprintf(key, sizeof key, "key-%04u", i);
        CHECK(lp_bucket_put(bucket, kv_text(key), (struct lp_slice){value, sizeof value}, &err) ==
              LP_OK);
    }
}

/* The generation that the file has, of all keys alike; 0 for none. */
static unsigned read_generation(struct lp_db *db)
{
    struct lp_error err;
    struct lp_tx *tx;
    struct lp_bucket *bucket;
    unsigned generation = 0;

    CHECK(kv_begin(&tx, db, false, &err) == LP_OK);
    if (lp_bucket_open(&bucket, lp_tx_root(tx), kv_text("bucket"), &err) == LP_OK) {
        for (unsigned i = 0; i < KEYS; i++) {
            struct lp_slice value;
            char key[32];

            (void)snprintf(key, sizeof key, "key-%04u", i);
            CHECK(lp_bucket_get(bucket, kv_text(key), &value, &err) == 1);
            CHECK(value.size == 500);
            CHECK(i == 0 || value.data[0] == generation);
            generation = value.data[0];
        }
    }
    lp_tx_rollback(tx);
    return generation;
}

static int commit_generation(struct lp_db *db, unsigned generation, struct lp_error *err)
{
    struct lp_tx *tx;
    int rc = kv_begin(&tx, db, true, err);

    if (rc != LP_OK)
        return rc;
    put_generation(tx, generation);
    return lp_tx_commit(tx, err);
}

static void test_failure_before_the_meta_rolls_back(void)
{
    static const char *const points[] = {"kv.write", "kv.grow"};
    struct kv_scratch scratch;
    struct lp_error err;
    struct lp_db *db;

    kv_scratch_make(&scratch);
    db = kv_open(scratch.path, &options);
    for (size_t i = 0; i < sizeof points / sizeof points[0]; i++) {
        for (int turn = 0; turn < 3; turn++) {
            unsigned generation = read_generation(db);

            lp_failpoint_set(points[i], EIO, 0);
            if (commit_generation(db, generation + 1, &err) != LP_OK) {
                CHECK(err.code == LP_ESYSTEM);
                CHECK(err.sys_errno == EIO);
                lp_failpoint_set(points[i], 0, 0);
                CHECK(read_generation(db) == generation);
                CHECK(commit_generation(db, generation + 1, &err) == LP_OK);
            }
            lp_failpoint_set(points[i], 0, 0);
            CHECK(read_generation(db) == generation + 1);
            kv_check(db);
        }
    }
    kv_close(db);
    kv_scratch_remove(&scratch);
}

static void test_full_disk_ahead_is_no_failure(void)
{
    struct kv_scratch scratch;
    struct lp_error err;
    struct lp_db *db;

    kv_scratch_make(&scratch);
    db = kv_open(scratch.path, &options);
    lp_failpoint_set("kv.grow", ENOSPC, 0);
    CHECK(commit_generation(db, 1, &err) == LP_OK);
    CHECK(commit_generation(db, 2, &err) == LP_OK);
    lp_failpoint_set("kv.grow", 0, 0);
    kv_check(db);
    kv_close(db);
    kv_scratch_remove(&scratch);
}

static void test_failed_sync_refuses_writes(void)
{
    static const struct {
        const char *point;
        int code;
    } steps[] = {
        {"kv.sync", LP_ESYSTEM}, {"kv.meta", LP_KV_EINDOUBT}, {"kv.meta_sync", LP_KV_EINDOUBT}};

    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        struct kv_scratch scratch;
        struct lp_db_stats stats;
        struct lp_error err;
        struct lp_db *db;
        unsigned after;

        kv_scratch_make(&scratch);
        db = kv_open(scratch.path, &options);
        CHECK(commit_generation(db, 1, &err) == LP_OK);
        lp_failpoint_set(steps[i].point, EIO, 0);
        CHECK(commit_generation(db, 2, &err) == steps[i].code);
        CHECK(err.sys_errno == EIO);
        lp_failpoint_set(steps[i].point, 0, 0);
        CHECK(commit_generation(db, 3, &err) == LP_KV_EREFUSED);
        lp_db_stats(db, &stats);
        CHECK(stats.writes_refused);
        CHECK(read_generation(db) == 1); /* a session's readers stay where they were */
        kv_check(db);
        kv_close(db);
        db = kv_open(scratch.path, &options);
        after = read_generation(db);
        CHECK(after == 1 || (after == 2 && steps[i].code == LP_KV_EINDOUBT));
        CHECK(commit_generation(db, 3, &err) == LP_OK);
        CHECK(read_generation(db) == 3);
        kv_check(db);
        kv_close(db);
        kv_scratch_remove(&scratch);
    }
}

static void test_failed_creation_leaves_nothing(void)
{
    static const char *const points[] = {"kv.new", "kv.new_sync", "kv.new_meta"};

    for (size_t i = 0; i < sizeof points / sizeof points[0]; i++) {
        struct lp_wait wait = {.deadline = LP_FOREVER};
        struct kv_scratch scratch;
        struct lp_error err;
        struct lp_db *db;

        kv_scratch_make(&scratch);
        lp_failpoint_set(points[i], ENOSPC, 0);
        CHECK(lp_db_open(&db, scratch.path, &options, &wait, &err) == LP_ESYSTEM);
        CHECK(err.sys_errno == ENOSPC);
        lp_failpoint_set(points[i], 0, 0);
        CHECK(access(scratch.path, F_OK) < 0);
        kv_scratch_remove(&scratch); /* rmdir(): no other name either */
    }
}

static void test_maximum_size_rolls_back(void)
{
    struct lp_db_options limited = options;
    struct kv_scratch scratch;
    struct lp_error err;
    struct lp_db_stats stats;
    struct lp_db *db;
    unsigned generation = 0;

    limited.max_size = 2U << 20;
    kv_scratch_make(&scratch);
    db = kv_open(scratch.path, &limited);
    for (unsigned i = 1; i < 30; i++) { /* fits, if what is freed is used again */
        CHECK(commit_generation(db, i, &err) == LP_OK);
        generation = i;
    }
    lp_db_stats(db, &stats);
    CHECK(stats.file_size <= limited.max_size);
    for (unsigned i = 0; i < 3; i++) {
        struct lp_tx *tx;
        struct lp_bucket *bucket;
        uint8_t *large = calloc(1, 3U << 20);

        CHECK(large != NULL);
        CHECK(kv_begin(&tx, db, true, &err) == LP_OK);
        CHECK(lp_bucket_open(&bucket, lp_tx_root(tx), kv_text("bucket"), &err) == LP_OK);
        CHECK(lp_bucket_put(bucket, kv_text("large"), (struct lp_slice){large, 3U << 20}, &err) ==
              LP_OK);
        CHECK(lp_tx_commit(tx, &err) == LP_KV_EMAXSIZE);
        free(large);
        CHECK(read_generation(db) == generation);
        CHECK(commit_generation(db, ++generation, &err) == LP_OK);
        kv_check(db);
    }
    kv_close(db);
    kv_scratch_remove(&scratch);
}

int main(void)
{
    for (int map = 0; map < 2; map++) {
        options.map = map == 1;
        CHECK_RUN(test_failure_before_the_meta_rolls_back);
        CHECK_RUN(test_full_disk_ahead_is_no_failure);
        CHECK_RUN(test_failed_sync_refuses_writes);
        CHECK_RUN(test_failed_creation_leaves_nothing);
        CHECK_RUN(test_maximum_size_rolls_back);
    }
    return 0;
}
