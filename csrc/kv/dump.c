/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything in a snapshot, depth first in key order: as text (the canonical
 * dump), or into another database (compaction).  The nesting is a stack of
 * cursors.  A file can hold no more than its size: what gives more goes in
 * circles, or its elements overlap.
 */
#include "base/cleanup.h"
#include "kv/bucket.h"

#include <stdio.h>
#include <stdlib.h>

/* --- the dive ------------------------------------------------------------- */

struct level {
    struct lp_bucket *bucket;
    struct lp_cursor *cursor;
};

/* What a dive does with what it finds. */
struct dive_to {
    int (*enter)(void *context, struct lp_slice name, uint64_t sequence, struct lp_error *err);
    int (*leave)(void *context, struct lp_error *err);
    int (*pair)(void *context, const struct lp_item *item, struct lp_error *err);
    void *context;
};

struct dive {
    const struct dive_to *to;
    struct level *levels;
    size_t depth;
    size_t room;
    uint64_t bytes; /* that the file can still hold */
};

/* Takes over `bucket`. */
static int dive_push(struct dive *dive, struct lp_bucket *bucket, struct lp_error *err)
{
    struct lp_cursor *cursor;
    int rc;

    if (dive->depth == dive->room) {
        size_t room = dive->room == 0 ? 16 : dive->room * 2;
        struct level *levels = reallocarray(dive->levels, room, sizeof *levels);

        if (levels == NULL) {
            lp_bucket_release(bucket);
            return lp_fail(err, LP_ENOMEM, "no memory for %zu nested buckets", room);
        }
        dive->levels = levels;
        dive->room = room;
    }
    rc = lp_cursor_open(&cursor, bucket, err);
    if (rc != LP_OK) {
        lp_bucket_release(bucket);
        return rc;
    }
    dive->levels[dive->depth++] = (struct level){bucket, cursor};
    return LP_OK;
}

static void dive_pop(struct dive *dive)
{
    struct level *level = &dive->levels[--dive->depth];

    lp_cursor_close(level->cursor);
    if (dive->depth > 0) /* the root bucket is the transaction's */
        lp_bucket_release(level->bucket);
}

static int dive_enter(struct dive *dive, struct lp_bucket *parent, const struct lp_item *item,
                      struct lp_error *err)
{
    struct lp_bucket *bucket;
    int rc = lp_bucket_open_item(&bucket, parent, item, err);

    if (rc != LP_OK)
        return rc;
    rc = dive->to->enter(dive->to->context, item->key, bucket->sequence, err);
    if (rc != LP_OK) {
        lp_bucket_release(bucket);
        return rc;
    }
    return dive_push(dive, bucket, err);
}

/* One element of the deepest bucket. */
static int dive_step(struct dive *dive, struct lp_error *err)
{
    struct level level = dive->levels[dive->depth - 1];
    struct lp_item item;
    uint64_t bytes;
    int rc = lp_cursor_next(level.cursor, &item, err);

    if (rc < 0)
        return rc;
    if (rc == 0) {
        dive_pop(dive);
        return dive->depth > 0 ? dive->to->leave(dive->to->context, err) : LP_OK;
    }
    bytes = LP_PAGE_ELEMENT + item.key.size + (item.is_bucket ? 0 : item.value.size);
    if (bytes > dive->bytes)
        return lp_tx_corrupt(level.bucket->tree.tx, LP_KV_NO_PAGE,
                             "more elements than the file can hold: they overlap, or a cycle", err);
    dive->bytes -= bytes;
    return item.is_bucket ? dive_enter(dive, level.bucket, &item, err)
                          : dive->to->pair(dive->to->context, &item, err);
}

static int dive_all(struct lp_tx *tx, const struct dive_to *to, struct lp_error *err)
{
    struct dive dive = {.to = to, .bytes = tx->meta.pages * tx->page_size};
    struct lp_bucket *root = lp_tx_root(tx);
    int rc;

    if (root == NULL)
        return lp_fail(err, LP_ENOMEM, "no memory for a bucket");
    root->users++; /* dive_push() gives one back where it fails */
    rc = dive_push(&dive, root, err);
    if (rc == LP_OK)
        root->users--;
    while (rc == LP_OK && dive.depth > 0)
        rc = dive_step(&dive, err);
    while (dive.depth > 0)
        dive_pop(&dive);
    free(dive.levels);
    return rc;
}

/* --- as text -------------------------------------------------------------- */

struct dump {
    lp_dump_write *write;
    void *context;
    size_t used;
    char text[64 << 10];
};

static int dump_flush(struct dump *dump, struct lp_error *err)
{
    size_t used = dump->used;

    dump->used = 0;
    return used > 0 ? dump->write(dump->context, dump->text, used, err) : LP_OK;
}

static int dump_text(struct dump *dump, const char *text, struct lp_error *err)
{
    size_t size = strlen(text);
    int rc = dump->used + size > sizeof dump->text ? dump_flush(dump, err) : LP_OK;

    if (rc == LP_OK) {
        memcpy(dump->text + dump->used, text, size);
        dump->used += size;
    }
    return rc;
}

static int dump_hex(struct dump *dump, struct lp_slice bytes, struct lp_error *err)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < bytes.size; i++) {
        int rc = dump->used + 2 > sizeof dump->text ? dump_flush(dump, err) : LP_OK;

        if (rc != LP_OK)
            return rc;
        dump->text[dump->used++] = digits[bytes.data[i] >> 4];
        dump->text[dump->used++] = digits[bytes.data[i] & 15];
    }
    return LP_OK;
}

static int dump_enter(void *context, struct lp_slice name, uint64_t sequence, struct lp_error *err)
{
    char text[32];
    int rc;

    (void)snprintf(text, sizeof text, "B %zu ", name.size);
    rc = dump_text(context, text, err);
    if (rc == LP_OK)
        rc = dump_hex(context, name, err);
    (void)snprintf(text, sizeof text, " %llu\n", (unsigned long long)sequence);
    return rc == LP_OK ? dump_text(context, text, err) : rc;
}

static int dump_leave(void *context, struct lp_error *err)
{
    return dump_text(context, "E\n", err);
}

static int dump_pair(void *context, const struct lp_item *item, struct lp_error *err)
{
    int rc = dump_text(context, "K ", err);

    if (rc == LP_OK)
        rc = dump_hex(context, item->key, err);
    if (rc == LP_OK)
        rc = dump_text(context, " ", err);
    if (rc == LP_OK)
        rc = dump_hex(context, item->value, err);
    return rc == LP_OK ? dump_text(context, "\n", err) : rc;
}

int lp_dump(struct lp_tx *tx, lp_dump_write *write, void *context, struct lp_error *err)
{
    LP_FREE struct dump *dump = malloc(sizeof *dump);
    struct dive_to to = {dump_enter, dump_leave, dump_pair, dump};
    int rc;

    if (dump == NULL)
        return lp_fail(err, LP_ENOMEM, "no memory for a dump");
    dump->write = write;
    dump->context = context;
    dump->used = 0;
    rc = dive_all(tx, &to, err);
    return rc == LP_OK ? dump_flush(dump, err) : rc;
}

/* --- into another database ------------------------------------------------ */

struct compact {
    struct lp_db *into;
    struct lp_tx *tx;
    uint64_t limit;        /* bytes a transaction */
    uint64_t bytes;        /* of this one */
    struct lp_slice *path; /* names of the open buckets, each malloc'd */
    struct lp_bucket **buckets;
    size_t depth;
    size_t room;
};

static struct lp_bucket *compact_here(struct compact *compact)
{
    return compact->depth > 0 ? compact->buckets[compact->depth - 1] : lp_tx_root(compact->tx);
}

/* A new transaction, with the same buckets open. */
static int compact_begin(struct compact *compact, struct lp_error *err)
{
    struct lp_wait wait = {.deadline = INT64_MAX};
    struct lp_bucket *parent;
    int rc = lp_tx_begin(&compact->tx, compact->into, true, &wait, err);

    if (rc != LP_OK) {
        compact->tx = NULL;
        return rc;
    }
    parent = lp_tx_root(compact->tx);
    if (parent == NULL)
        return lp_fail(err, LP_ENOMEM, "no memory for a bucket");
    for (size_t i = 0; rc == LP_OK && i < compact->depth; i++) {
        rc = lp_bucket_open(&compact->buckets[i], parent, compact->path[i], err);
        parent = compact->buckets[i];
    }
    compact->bytes = 0;
    return rc;
}

static int compact_turn(struct compact *compact, uint64_t bytes, struct lp_error *err)
{
    struct lp_tx *tx = compact->tx;
    int rc;

    compact->bytes += bytes;
    if (compact->limit == 0 || compact->bytes < compact->limit)
        return LP_OK;
    compact->tx = NULL;
    rc = lp_tx_commit(tx, err);
    return rc == LP_OK ? compact_begin(compact, err) : rc;
}

static int compact_room(struct compact *compact, struct lp_error *err)
{
    size_t room = compact->room == 0 ? 16 : compact->room * 2;
    struct lp_slice *path;
    struct lp_bucket **buckets;

    if (compact->depth < compact->room)
        return LP_OK;
    path = reallocarray(compact->path, room, sizeof *path);
    if (path != NULL)
        compact->path = path;
    buckets = reallocarray(compact->buckets, room, sizeof(struct lp_bucket *));
    if (buckets != NULL)
        compact->buckets = buckets;
    if (path == NULL || buckets == NULL)
        return lp_fail(err, LP_ENOMEM, "no memory for %zu nested buckets", room);
    compact->room = room;
    return LP_OK;
}

static int compact_enter(void *context, struct lp_slice name, uint64_t sequence,
                         struct lp_error *err)
{
    struct compact *compact = context;
    LP_FREE uint8_t *copy = lp_node_copy(name, err);
    struct lp_bucket *bucket;
    int rc = copy == NULL ? LP_ENOMEM : compact_turn(compact, name.size, err);

    if (rc == LP_OK)
        rc = compact_room(compact, err);
    if (rc == LP_OK)
        rc = lp_bucket_create(&bucket, compact_here(compact), (struct lp_slice){copy, name.size},
                              false, err);
    if (rc == LP_OK && sequence != 0)
        rc = lp_bucket_set_sequence(bucket, sequence, err);
    if (rc != LP_OK)
        return rc;
    compact->path[compact->depth] = (struct lp_slice){lp_steal_ptr(&copy), name.size};
    compact->buckets[compact->depth++] = bucket;
    return LP_OK;
}

static int compact_leave(void *context, struct lp_error *err)
{
    struct compact *compact = context;

    (void)err;
    lp_bucket_release(compact->buckets[--compact->depth]);
    free((void *)(uintptr_t)compact->path[compact->depth].data);
    return LP_OK;
}

static int compact_pair(void *context, const struct lp_item *item, struct lp_error *err)
{
    struct compact *compact = context;
    int rc = compact_turn(compact, item->key.size + item->value.size, err);

    return rc == LP_OK ? lp_bucket_put(compact_here(compact), item->key, item->value, err) : rc;
}

int lp_compact(struct lp_tx *from, struct lp_db *into, uint64_t tx_bytes, struct lp_error *err)
{
    struct compact compact = {.into = into, .limit = tx_bytes};
    struct dive_to to = {compact_enter, compact_leave, compact_pair, &compact};
    struct lp_bucket *root;
    int rc;

    if (from->db == into)
        return lp_fail(err, LP_KV_ESAMEFILE, "a database cannot be compacted into itself");
    rc = compact_begin(&compact, err);
    root = lp_tx_root(from);
    if (rc == LP_OK && root == NULL)
        rc = lp_fail(err, LP_ENOMEM, "no memory for a bucket");
    if (rc == LP_OK && root->sequence != 0)
        rc = lp_bucket_set_sequence(lp_tx_root(compact.tx), root->sequence, err);
    if (rc == LP_OK)
        rc = dive_all(from, &to, err);
    while (compact.depth > 0)
        free((void *)(uintptr_t)compact.path[--compact.depth].data);
    free(compact.path);
    free(compact.buckets);
    if (compact.tx == NULL)
        return rc;
    if (rc == LP_OK)
        return lp_tx_commit(compact.tx, err);
    lp_tx_rollback(compact.tx);
    return rc;
}
