/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A commit into a file that may not grow and has its free pages in pieces: the
 * freelist keeps a run for itself, and what a node leaves of a hole goes back.
 */
#include "kv_support.h"

#define KEYS 1500U
#define VALUE 3000U /* one pair a leaf */

static struct lp_bucket *open_bucket(struct lp_tx *tx)
{
    struct lp_bucket *bucket;
    struct lp_error err;

    CHECK(lp_bucket_create(&bucket, lp_tx_root(tx), kv_text("bucket"), true, &err) == LP_OK);
    return bucket;
}

static int put(struct lp_bucket *bucket, unsigned key, uint8_t fill, size_t size)
{
    static uint8_t value[16384];
    struct lp_error err;
    char text[16];

    memset(value, fill, size);
    (void)snprintf(text, sizeof text, "key-%06u", key);
    return lp_bucket_put(bucket, kv_text(text), (struct lp_slice){value, size}, &err);
}

static bool holds(struct lp_bucket *bucket, unsigned key, uint8_t fill, size_t size)
{
    struct lp_slice value;
    struct lp_error err;
    char text[16];

    (void)snprintf(text, sizeof text, "key-%06u", key);
    if (lp_bucket_get(bucket, kv_text(text), &value, &err) != 1 || value.size != size)
        return false;
    for (size_t i = 0; i < size; i++) {
        if (value.data[i] != fill)
            return false;
    }
    return true;
}

static void commit(struct lp_tx *tx)
{
    struct lp_error err = {0};

    if (lp_tx_commit(tx, &err) != LP_OK)
        (void)fprintf(stderr, "%s\n", err.message);
    CHECK(err.code == LP_OK);
}

/* A file whose free pages lie singly, every other leaf, but for those of the old
 * branches; opened so that it may not grow by a page. */
static struct lp_db *open_holed(const struct kv_scratch *scratch)
{
    struct lp_db_options options = LP_DB_DEFAULTS;
    struct lp_db_stats stats;
    struct lp_bucket *bucket;
    struct lp_error err;
    struct lp_tx *tx;
    struct lp_db *db;

    options.sync = false;
    db = kv_open(scratch->path, &options);
    CHECK(kv_begin(&tx, db, true, &err) == LP_OK);
    bucket = open_bucket(tx);
    for (unsigned i = 0; i < KEYS; i++)
        CHECK(put(bucket, i, 1, VALUE) == LP_OK);
    commit(tx);
    CHECK(kv_begin(&tx, db, true, &err) == LP_OK);
    bucket = open_bucket(tx);
    for (unsigned i = 0; i < KEYS; i++) {
        char text[16];

        (void)snprintf(text, sizeof text, "key-%06u", i);
        if (i % 2 == 0)
            CHECK(lp_bucket_delete(bucket, kv_text(text), &err) == 1);
    }
    commit(tx);
    lp_db_stats(db, &stats);
    kv_close(db);
    options.max_size = stats.pages * stats.page_size;
    return kv_open(scratch->path, &options);
}

static void check_whole(struct lp_db *db, uint64_t pages)
{
    struct lp_db_stats stats;

    lp_db_stats(db, &stats);
    CHECK(stats.pages == pages);
    kv_check(db); /* a page that was lost is a fault */
}

/* The changed leaves need more than any hole has; the list of more than 511
 * free pages takes two, side by side, after all of them were placed. */
static void test_the_freelist_keeps_a_run(void)
{
    struct lp_db_stats stats;
    struct kv_scratch scratch;
    struct lp_bucket *bucket;
    struct lp_error err;
    struct lp_tx *tx;
    struct lp_db *db;
    uint64_t pages;

    kv_scratch_make(&scratch);
    db = open_holed(&scratch);
    lp_db_stats(db, &stats);
    pages = stats.pages;
    for (uint8_t turn = 2; turn < 12; turn++) {
        lp_db_stats(db, &stats);
        CHECK(kv_begin(&tx, db, true, &err) == LP_OK);
        bucket = open_bucket(tx);
        for (unsigned i = 1; i < KEYS; i += 20)
            CHECK(put(bucket, i, turn, VALUE) == LP_OK);
        commit(tx);
        CHECK(kv_begin(&tx, db, false, &err) == LP_OK);
        CHECK(lp_bucket_open(&bucket, lp_tx_root(tx), kv_text("bucket"), &err) == LP_OK);
        for (unsigned i = 1; i < KEYS; i += 20)
            CHECK(holds(bucket, i, turn, VALUE));
        lp_tx_rollback(tx);
        check_whole(db, pages);
    }
    lp_db_stats(db, &stats);
    CHECK(stats.free_pages + stats.pending_pages > 511);
    CHECK(stats.runs_written > 3 * stats.commits); /* in pieces */
    kv_close(db);
    kv_scratch_remove(&scratch);
}

/* Among leaves of one page one of three, in each place once: a hole that was
 * begun for one page is too small for it. */
static void test_what_is_left_of_a_hole_goes_back(void)
{
    struct lp_db_stats stats;
    struct kv_scratch scratch;
    struct lp_bucket *bucket;
    struct lp_error err;
    struct lp_tx *tx;
    struct lp_db *db;
    uint64_t pages;

    kv_scratch_make(&scratch);
    db = open_holed(&scratch);
    lp_db_stats(db, &stats);
    pages = stats.pages;
    for (uint8_t turn = 2; turn < 22; turn++) {
        size_t large = turn % 2 == 0 ? 9000 : VALUE;
        unsigned where = 1 + turn / 2U % 10 * 60;

        CHECK(kv_begin(&tx, db, true, &err) == LP_OK);
        bucket = open_bucket(tx);
        for (unsigned i = 1; i < 600; i += 60)
            CHECK(put(bucket, i, turn, i == where ? large : VALUE) == LP_OK);
        commit(tx);
        CHECK(kv_begin(&tx, db, false, &err) == LP_OK);
        CHECK(lp_bucket_open(&bucket, lp_tx_root(tx), kv_text("bucket"), &err) == LP_OK);
        for (unsigned i = 1; i < 600; i += 60)
            CHECK(holds(bucket, i, turn, i == where ? large : VALUE));
        lp_tx_rollback(tx);
        check_whole(db, pages);
    }
    kv_close(db);
    kv_scratch_remove(&scratch);
}

int main(void)
{
    CHECK_RUN(test_the_freelist_keeps_a_run);
    CHECK_RUN(test_what_is_left_of_a_hole_goes_back);
    return 0;
}
