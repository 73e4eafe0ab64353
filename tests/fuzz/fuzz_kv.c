/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opens, walks, checks and writes a file of arbitrary bytes; one that was sound
 * must be so after it was written.  The metas' checksums are made right first, or
 * nothing behind them would be reached; with the first byte odd they are left as
 * they are.
 */
#include "base/clock.h"
#include "kv/kv.h"
#include "kv/meta.h"
#include "kv/page.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                  \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static void fuzz_seal(uint8_t *page)
{
    uint8_t *meta = page + LP_PAGE_HEADER;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    lp_store32(meta, 0xed0cdaed);
    lp_store32(meta + 4, 2);
    for (size_t i = 0; i < 56; i++)
        hash = (hash ^ meta[i]) * UINT64_C(0x100000001b3);
    lp_store64(meta + 56, hash);
}

static void fuzz_write_file(const char *path, const uint8_t *data, size_t size)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool seal = size > 0 && (data[0] & 1) == 0;
    uint8_t page[LP_META_END];
    uint64_t second;

    REQUIRE(fd >= 0);
    REQUIRE(pwrite(fd, data, size, 0) == (ssize_t)size);
    if (seal && pread(fd, page, sizeof page, 0) == sizeof page) {
        fuzz_seal(page);
        REQUIRE(pwrite(fd, page, sizeof page, 0) == sizeof page);
        second = lp_load32(page + LP_PAGE_HEADER + 8);
        if (second < (64U << 10) && pread(fd, page, sizeof page, (off_t)second) == sizeof page) {
            fuzz_seal(page);
            REQUIRE(pwrite(fd, page, sizeof page, (off_t)second) == sizeof page);
        }
    }
    REQUIRE(close(fd) == 0);
}

static void fuzz_report(void *context, uint64_t page, const char *text)
{
    bool show = *(bool *)context;

    if (show)
        (void)fprintf(stderr, "page %llu: %s\n", (unsigned long long)page, text);
}

static int fuzz_sink(void *context, const char *text, size_t size, struct lp_error *err)
{
    (void)text;
    (void)err;
    *(uint64_t *)context += size;
    return LP_OK;
}

/* Both ways through a bucket, as far as it goes. */
static void fuzz_walk(struct lp_bucket *bucket)
{
    struct lp_bucket_stats stats;
    struct lp_cursor *cursor;
    struct lp_item item;
    uint64_t count;
    uint64_t bytes;
    int steps = 0;

    (void)lp_bucket_count(bucket, (struct lp_slice){NULL, 0}, &count, &bytes, NULL);
    (void)lp_bucket_stats(bucket, &stats, NULL);
    if (lp_cursor_open(&cursor, bucket, NULL) != LP_OK)
        return;
    while (lp_cursor_next(cursor, &item, NULL) == 1 && steps++ < 2000) {
        struct lp_bucket *inner;
        struct lp_slice value;

        (void)lp_bucket_get(bucket, item.key, &value, NULL);
        if (item.is_bucket && lp_bucket_open(&inner, bucket, item.key, NULL) == LP_OK) {
            (void)lp_bucket_count(inner, (struct lp_slice){NULL, 0}, &count, &bytes, NULL);
            lp_bucket_release(inner);
        }
    }
    while (lp_cursor_prev(cursor, &item, NULL) == 1 && steps-- > 0)
        ;
    lp_cursor_close(cursor);
}

/* Whether the file is sound; with `expected` says what is not. */
static bool fuzz_read(const char *path, bool map, bool expected)
{
    struct lp_db_options options = LP_DB_DEFAULTS;
    struct lp_wait wait = {.deadline = LP_FOREVER};
    struct lp_error err;
    struct lp_db *db;
    struct lp_tx *tx;
    uint64_t total = 0;
    bool sound = false;

    options.read_only = true;
    options.map = map;
    if (lp_db_open(&db, path, &options, &wait, &err) != LP_OK)
        return false;
    if (lp_tx_begin(&tx, db, false, &wait, &err) == LP_OK) {
        sound = lp_check(tx, fuzz_report, &expected, &err) == 0;
        (void)lp_dump(tx, fuzz_sink, &total, &err);
        fuzz_walk(lp_tx_root(tx));
        lp_tx_rollback(tx);
    }
    REQUIRE(lp_db_close(db, &err) == LP_OK);
    return sound;
}

static unsigned fuzz_pick(uint64_t *state, unsigned below)
{
    *state = *state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (unsigned)(*state >> 33) % below;
}

/* Deletes a run of pairs, so that pages are left empty or are joined. */
static void fuzz_thin(struct lp_bucket *bucket, uint64_t *state)
{
    unsigned keep = fuzz_pick(state, 600);
    unsigned drop = fuzz_pick(state, 200);
    struct lp_cursor *cursor;
    struct lp_item item;

    if (lp_cursor_open(&cursor, bucket, NULL) != LP_OK)
        return;
    for (unsigned i = 0; i < keep + drop && lp_cursor_next(cursor, &item, NULL) == 1; i++) {
        if (i >= keep && !item.is_bucket)
            (void)lp_cursor_delete(cursor, NULL);
    }
    lp_cursor_close(cursor);
}

static void fuzz_change(struct lp_tx *tx, unsigned round, uint64_t *state)
{
    struct lp_bucket *root = lp_tx_root(tx);
    struct lp_bucket *bucket;
    struct lp_cursor *cursor;
    struct lp_item item;
    uint8_t key[8] = {0};
    uint8_t value[700] = {0};

    if (lp_cursor_open(&cursor, root, NULL) != LP_OK)
        return;
    for (unsigned i = 0; i < 4 && lp_cursor_next(cursor, &item, NULL) == 1; i++) {
        if (!item.is_bucket) {
            (void)lp_cursor_delete(cursor, NULL);
        } else if (fuzz_pick(state, 16) == 0) {
            (void)lp_bucket_drop(root, item.key, NULL);
        } else if (lp_bucket_open(&bucket, root, item.key, NULL) == LP_OK) {
            for (key[0] = 0; key[0] < 200; key[0] = (uint8_t)(key[0] + 7))
                (void)lp_bucket_put(bucket, (struct lp_slice){key, sizeof key},
                                    (struct lp_slice){value, sizeof value}, NULL);
            (void)lp_bucket_set_sequence(bucket, round, NULL);
            fuzz_thin(bucket, state);
            lp_bucket_release(bucket);
        }
    }
    lp_cursor_close(cursor);
    if (lp_bucket_create(&bucket, root, (struct lp_slice){(const uint8_t *)"fuzz", 4}, true,
                         NULL) == LP_OK) {
        (void)lp_bucket_put(bucket, (struct lp_slice){key, 1}, (struct lp_slice){value, 9}, NULL);
        (void)lp_bucket_delete(bucket, (struct lp_slice){key, sizeof key}, NULL);
    }
}

static void fuzz_write(const char *path, bool map, uint64_t state)
{
    struct lp_db_options options = LP_DB_DEFAULTS;
    struct lp_wait wait = {.deadline = LP_FOREVER};
    struct lp_error err;
    struct lp_db *db;
    struct lp_tx *tx;

    options.sync = false;
    options.map = map;
    options.max_size = 8U << 20;
    if (lp_db_open(&db, path, &options, &wait, &err) != LP_OK)
        return;
    for (unsigned round = 0; round < 6; round++) {
        if (lp_tx_begin(&tx, db, true, &wait, &err) != LP_OK)
            break;
        fuzz_change(tx, round, &state);
        (void)lp_tx_commit(tx, &err);
    }
    REQUIRE(lp_db_close(db, &err) == LP_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    bool map = size < 2 || (data[1] & 1) == 0;
    uint64_t state = size; /* what is changed follows from the bytes too */
    bool sound;

    for (size_t i = 0; i < size; i += 64)
        state = state * 31 + data[i];
    (void)snprintf(path, sizeof path, "/dev/shm/fuzz-kv-%d", (int)getpid());
    fuzz_write_file(path, data, size);
    sound = fuzz_read(path, map, false);
    fuzz_write(path, map, state);
    REQUIRE(!sound || fuzz_read(path, map, true));
    REQUIRE(unlink(path) == 0);
    return 0;
}
