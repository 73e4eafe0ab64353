/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Readers, writers and openers in threads, in both lock modes; also built with
 * ThreadSanitizer.  Every commit writes one number under every key, so that a
 * reader that ever sees two numbers has seen two commits at once.
 */
#include "kv_support.h"

#include <pthread.h>
#include <stdatomic.h>

#define KEYS 60
#define WRITES 60
#define WRITERS 3
#define READERS 3

struct stage {
    struct kv_scratch scratch;
    struct lp_db_options options;
    struct lp_db *db;
    atomic_bool done;
    atomic_uint reads;
};

static void stage_key(char *key, size_t size, unsigned i)
{
    (void)snprintf(key, size, "key-%04u", i);
}

static uint64_t stage_read_all(struct lp_bucket *bucket)
{
    struct lp_error err;
    uint64_t first = 0;

    for (unsigned i = 0; i < KEYS; i++) {
        struct lp_slice value;
        uint64_t number;
        char key[32];

        stage_key(key, sizeof key, i);
        CHECK(lp_bucket_get(bucket, kv_text(key), &value, &err) == 1);
        CHECK(value.size == 300);
        memcpy(&number, value.data, sizeof number);
        CHECK(i == 0 || number == first);
        first = number;
    }
    return first;
}

static void stage_write_all(struct lp_tx *tx, bool first)
{
    struct lp_error err;
    struct lp_bucket *bucket;
    uint8_t value[300] = {0};
    uint64_t number = 0;

    CHECK(lp_bucket_create(&bucket, lp_tx_root(tx), kv_text("bucket"), true, &err) == LP_OK);
    if (!first)
        number = stage_read_all(bucket) + 1;
    memcpy(value, &number, sizeof number);
    for (unsigned i = 0; i < KEYS; i++) {
        char key[32];

        stage_key(key, sizeof key, i);
        CHECK(lp_bucket_put(bucket, kv_text(key), (struct lp_slice){value, sizeof value}, &err) ==
              LP_OK);
    }
}

static void *stage_writer(void *context)
{
    struct stage *stage = context;

    for (int i = 0; i < WRITES; i++) {
        struct lp_error err;
        struct lp_tx *tx;

        CHECK(kv_begin(&tx, stage->db, true, &err) == LP_OK);
        stage_write_all(tx, false);
        if (i % 7 == 3)
            lp_tx_rollback(tx);
        else
            CHECK(lp_tx_commit(tx, &err) == LP_OK);
    }
    return NULL;
}

static void *stage_reader(void *context)
{
    struct stage *stage = context;

    while (!atomic_load(&stage->done)) {
        struct lp_error err;
        struct lp_bucket *bucket;
        struct lp_tx *tx;
        uint64_t number;

        CHECK(kv_begin(&tx, stage->db, false, &err) == LP_OK);
        CHECK(lp_bucket_open(&bucket, lp_tx_root(tx), kv_text("bucket"), &err) == LP_OK);
        number = stage_read_all(bucket);
        (void)usleep(200);
        CHECK(stage_read_all(bucket) == number); /* the same commit, however long it lasts */
        lp_tx_rollback(tx);
        (void)atomic_fetch_add(&stage->reads, 1);
    }
    return NULL;
}

/* Opens the same file again and again beside the others (mode transaction). */
static void *stage_opener(void *context)
{
    struct stage *stage = context;

    while (!atomic_load(&stage->done)) {
        struct lp_db *db = kv_open(stage->scratch.path, &stage->options);

        kv_check(db);
        kv_close(db);
        (void)usleep(500);
    }
    return NULL;
}

static void stage_run(enum lp_lock_mode lock, bool map)
{
    struct stage stage = {.options = LP_DB_DEFAULTS};
    pthread_t writers[WRITERS];
    pthread_t readers[READERS];
    pthread_t opener;
    struct lp_error err;
    struct lp_tx *tx;

    kv_scratch_make(&stage.scratch);
    stage.options.lock = lock;
    stage.options.map = map;
    stage.options.sync = false;
    stage.db = kv_open(stage.scratch.path, &stage.options);
    CHECK(kv_begin(&tx, stage.db, true, &err) == LP_OK);
    stage_write_all(tx, true);
    CHECK(lp_tx_commit(tx, &err) == LP_OK);
    for (int i = 0; i < READERS; i++)
        CHECK(pthread_create(&readers[i], NULL, stage_reader, &stage) == 0);
    if (lock == LP_LOCK_TRANSACTION)
        CHECK(pthread_create(&opener, NULL, stage_opener, &stage) == 0);
    for (int i = 0; i < WRITERS; i++)
        CHECK(pthread_create(&writers[i], NULL, stage_writer, &stage) == 0);
    for (int i = 0; i < WRITERS; i++)
        CHECK(pthread_join(writers[i], NULL) == 0);
    atomic_store(&stage.done, true);
    for (int i = 0; i < READERS; i++)
        CHECK(pthread_join(readers[i], NULL) == 0);
    if (lock == LP_LOCK_TRANSACTION)
        CHECK(pthread_join(opener, NULL) == 0);
    CHECK(atomic_load(&stage.reads) > 0);
    kv_check(stage.db);
    kv_close(stage.db);
    kv_scratch_remove(&stage.scratch);
}

static void test_threads_session(void)
{
    stage_run(LP_LOCK_SESSION, true);
}

static void test_threads_transaction(void)
{
    stage_run(LP_LOCK_TRANSACTION, true);
}

static void test_threads_without_map(void)
{
    stage_run(LP_LOCK_SESSION, false);
    stage_run(LP_LOCK_TRANSACTION, false);
}

/* --- one thread that would wait for itself -------------------------------- */

static void test_deadlocks_are_refused(void)
{
    struct kv_scratch scratch;
    struct lp_db_options options = LP_DB_DEFAULTS;
    struct lp_error err;
    struct lp_tx *first;
    struct lp_tx *second;
    struct lp_db *db;

    kv_scratch_make(&scratch);
    options.lock = LP_LOCK_TRANSACTION;
    db = kv_open(scratch.path, &options);
    CHECK(kv_begin(&first, db, false, &err) == LP_OK);
    CHECK(kv_begin(&second, db, true, &err) == LP_KV_EDEADLOCK);
    CHECK(kv_begin(&second, db, false, &err) == LP_OK); /* two reads are fine */
    CHECK(lp_db_close(db, &err) == LP_KV_EBUSY);
    lp_tx_rollback(second);
    lp_tx_rollback(first);
    CHECK(kv_begin(&first, db, true, &err) == LP_OK);
    CHECK(kv_begin(&second, db, false, &err) == LP_KV_EDEADLOCK);
    CHECK(kv_begin(&second, db, true, &err) == LP_KV_EDEADLOCK);
    lp_tx_rollback(first);
    kv_close(db);
    options.lock = LP_LOCK_SESSION;
    db = kv_open(scratch.path, &options);
    CHECK(kv_begin(&first, db, true, &err) == LP_OK);
    CHECK(kv_begin(&second, db, false, &err) == LP_OK); /* readers never wait here */
    CHECK(lp_tx_commit(first, &err) == LP_OK);
    lp_tx_rollback(second);
    kv_close(db);
    kv_scratch_remove(&scratch);
}

/* A reader that comes after a waiting writer waits for it. */
struct queue {
    struct lp_db *db;
    atomic_int order;
    int writer_place;
    int reader_place;
};

static void *queue_writer(void *context)
{
    struct queue *queue = context;
    struct lp_error err;
    struct lp_tx *tx;

    CHECK(kv_begin(&tx, queue->db, true, &err) == LP_OK);
    queue->writer_place = atomic_fetch_add(&queue->order, 1);
    (void)usleep(20000);
    lp_tx_rollback(tx);
    return NULL;
}

static void *queue_reader(void *context)
{
    struct queue *queue = context;
    struct lp_error err;
    struct lp_tx *tx;

    CHECK(kv_begin(&tx, queue->db, false, &err) == LP_OK);
    queue->reader_place = atomic_fetch_add(&queue->order, 1);
    lp_tx_rollback(tx);
    return NULL;
}

static void test_readers_queue_behind_a_writer(void)
{
    struct kv_scratch scratch;
    struct lp_db_options options = LP_DB_DEFAULTS;
    struct queue queue = {0};
    struct lp_error err;
    struct lp_tx *tx;
    pthread_t writer;
    pthread_t reader;

    kv_scratch_make(&scratch);
    options.lock = LP_LOCK_TRANSACTION;
    queue.db = kv_open(scratch.path, &options);
    CHECK(kv_begin(&tx, queue.db, false, &err) == LP_OK);
    CHECK(pthread_create(&writer, NULL, queue_writer, &queue) == 0);
    (void)usleep(50000);
    CHECK(pthread_create(&reader, NULL, queue_reader, &queue) == 0);
    (void)usleep(50000);
    CHECK(atomic_load(&queue.order) == 0);
    lp_tx_rollback(tx);
    CHECK(pthread_join(writer, NULL) == 0);
    CHECK(pthread_join(reader, NULL) == 0);
    CHECK(queue.writer_place == 0);
    CHECK(queue.reader_place == 1);
    kv_close(queue.db);
    kv_scratch_remove(&scratch);
}

int main(void)
{
    CHECK_RUN(test_threads_session);
    CHECK_RUN(test_threads_transaction);
    CHECK_RUN(test_threads_without_map);
    CHECK_RUN(test_deadlocks_are_refused);
    CHECK_RUN(test_readers_queue_behind_a_writer);
    return 0;
}
