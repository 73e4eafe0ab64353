/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole buckets: deleting, counting, measuring.  The recursion is as deep as
 * one tree, which LP_DEPTH_MAX bounds; buckets inside buckets go through a
 * list, because a file may nest them as deep as it likes.
 */
#include "kv/walk.h"

#include "kv/position.h"

#include <stdlib.h>

/* --- the walk ------------------------------------------------------------- */

struct walk {
    lp_walk_visit *visit;
    void *context;
    uint64_t *budget;
};

static int walk_spot(const struct walk *walk, struct lp_bucket *bucket, struct lp_spot *spot,
                     unsigned depth, struct lp_error *err)
{
    struct lp_tx *tx = bucket->tree.tx;
    uint64_t epoch = tx->cache.epoch;
    int rc;

    if (depth > LP_DEPTH_MAX || *walk->budget == 0)
        return lp_tx_corrupt(tx, spot->id, "the tree is too deep, or a cycle", err);
    --*walk->budget;
    rc = walk->visit(walk->context, bucket, spot, depth, err);
    if (rc != LP_OK || lp_spot_leaf(spot))
        return rc;
    for (uint32_t i = 0; rc == LP_OK && i < lp_spot_count(spot); i++) {
        struct lp_spot child;

        lp_tx_trim(tx);
        if (epoch != tx->cache.epoch && spot->node == NULL && spot->id != 0) {
            epoch = tx->cache.epoch;
            rc = lp_tx_page(tx, spot->id, &spot->page, err);
            if (rc == LP_OK && i >= spot->page.count)
                rc = lp_tx_corrupt(tx, spot->id, "the page changed while it was read", err);
        }
        if (rc == LP_OK)
            rc = lp_spot_child(&bucket->tree, spot, i, &child, err);
        if (rc == LP_OK)
            rc = walk_spot(walk, bucket, &child, depth + 1, err);
    }
    return rc;
}

int lp_walk(struct lp_bucket *bucket, lp_walk_visit *visit, void *context, uint64_t *budget,
            struct lp_error *err)
{
    struct walk walk = {visit, context, budget};
    struct lp_spot root;
    int rc = lp_bucket_enter(bucket, err);

    if (rc == LP_OK)
        rc = lp_spot_root(&bucket->tree, &root, err);
    return rc == LP_OK ? walk_spot(&walk, bucket, &root, 0, err) : rc;
}

int lp_todo_add(struct lp_todo *todo, struct lp_bucket *bucket, struct lp_error *err)
{
    if (todo->used == todo->room) {
        size_t room = todo->room == 0 ? 16 : todo->room * 2;
        struct lp_bucket **buckets = reallocarray(todo->buckets, room, sizeof(struct lp_bucket *));

        if (buckets == NULL)
            return lp_fail(err, LP_ENOMEM, "no memory for %zu buckets", room);
        todo->buckets = buckets;
        todo->room = room;
    }
    todo->buckets[todo->used++] = bucket;
    return LP_OK;
}

int lp_todo_add_leaf(struct lp_todo *todo, struct lp_bucket *bucket, const struct lp_spot *spot,
                     struct lp_error *err)
{
    int rc = LP_OK;

    for (uint32_t i = 0; rc == LP_OK && i < lp_spot_count(spot); i++) {
        struct lp_bucket *inner;
        struct lp_item item;

        rc = lp_spot_item(&bucket->tree, spot, i, &item, err);
        if (rc != LP_OK || !item.is_bucket)
            continue;
        if (item.value.size > todo->bytes)
            return lp_tx_corrupt(bucket->tree.tx, spot->id, "inline buckets overlap", err);
        todo->bytes -= item.value.size;
        rc = lp_bucket_open_item(&inner, bucket, &item, err);
        if (rc == LP_OK) {
            rc = lp_todo_add(todo, inner, err);
            if (rc != LP_OK)
                lp_bucket_release(inner);
        }
    }
    return rc;
}

/* Latest first: a bucket goes before the one it is in. */
void lp_todo_free(struct lp_todo *todo)
{
    while (todo->used > 0)
        lp_bucket_release(todo->buckets[--todo->used]);
    free(todo->buckets);
}

/* --- deleting ------------------------------------------------------------- */

struct drop {
    struct lp_todo todo;
    struct lp_extents pages;
};

static int drop_visit(void *context, struct lp_bucket *bucket, const struct lp_spot *spot,
                      unsigned depth, struct lp_error *err)
{
    struct drop *drop = context;
    uint64_t id = spot->node != NULL ? spot->node->page : spot->id;
    uint64_t run = 0;
    int rc = LP_OK;

    (void)depth;
    if (id != 0) {
        run = spot->node != NULL ? spot->node->run : spot->page.size / bucket->tree.tx->page_size;
        rc = lp_extents_add(&drop->pages, id, run, err);
    }
    if (rc == LP_OK && lp_spot_leaf(spot))
        rc = lp_todo_add_leaf(&drop->todo, bucket, spot, err);
    return rc;
}

/* Nothing is changed before everything was found. */
static int drop_collect(struct drop *drop, struct lp_bucket *bucket, struct lp_error *err)
{
    const struct lp_tx *tx = bucket->tree.tx;
    uint64_t budget = tx->meta.pages + LP_DEPTH_MAX;
    int rc;

    drop->todo.bytes = tx->meta.pages * tx->page_size;
    rc = lp_todo_add(&drop->todo, bucket, err);
    if (rc != LP_OK) {
        lp_bucket_release(bucket);
        return rc;
    }
    for (size_t i = 0; rc == LP_OK && i < drop->todo.used; i++) {
        uint64_t nodes = budget; /* an inline bucket has no page to pay with */

        rc = lp_walk(drop->todo.buckets[i], drop_visit, drop,
                     drop->todo.buckets[i]->tree.root != 0 ? &budget : &nodes, err);
    }
    return rc;
}

int lp_bucket_drop(struct lp_bucket *parent, struct lp_slice name, struct lp_error *err)
{
    struct drop drop = {0};
    struct lp_bucket *bucket;
    struct lp_node *leaf;
    uint32_t index;
    bool exact;
    int rc = lp_bucket_enter_write(parent, err);

    if (rc == LP_OK)
        rc = lp_bucket_open(&bucket, parent, name, err);
    if (rc == LP_OK)
        rc = drop_collect(&drop, bucket, err);
    lp_cursors_save(parent->cursors);
    if (rc == LP_OK)
        rc = lp_tree_edit(&parent->tree, name, false, &leaf, &index, &exact, err);
    for (size_t i = 0; rc == LP_OK && i < drop.pages.used; i++)
        rc = lp_extents_add(&parent->tree.tx->freed, drop.pages.at[i].start, drop.pages.at[i].count,
                            err);
    if (rc == LP_OK) {
        for (size_t i = 0; i < drop.todo.used; i++)
            lp_bucket_bury(drop.todo.buckets[i]);
        lp_node_remove(leaf, index);
    }
    lp_todo_free(&drop.todo);
    lp_extents_free(&drop.pages);
    return rc;
}

/* --- counting ------------------------------------------------------------- */

static bool has_prefix(struct lp_slice key, struct lp_slice prefix)
{
    return key.size >= prefix.size &&
           (prefix.size == 0 || memcmp(key.data, prefix.data, prefix.size) == 0);
}

/* Whether every key of the leaf begins with the prefix if its first one does:
 * the parent's next key tells, without a look into the leaf. */
static bool count_covered(struct lp_cursor *cursor, struct lp_slice prefix)
{
    const struct lp_frame *parent = lp_cursor_leaf(cursor) - 1;
    struct lp_slice next;

    if (prefix.size == 0)
        return true;
    if (cursor->depth < 2 || parent->index + 1 >= lp_spot_count(&parent->spot))
        return false;
    return lp_spot_key(cursor->tree, &parent->spot, parent->index + 1, &next, NULL) == LP_OK &&
           has_prefix(next, prefix);
}

/* How many elements of the leaf, from where the cursor is on, begin with the
 * prefix. */
static int count_leaf(struct lp_cursor *cursor, struct lp_slice prefix, uint32_t *matches,
                      struct lp_error *err)
{
    const struct lp_frame *leaf = lp_cursor_leaf(cursor);
    uint32_t low = leaf->index;
    uint32_t high = lp_spot_count(&leaf->spot);
    int rc = LP_OK;

    if (count_covered(cursor, prefix))
        low = high;
    while (rc == LP_OK && low < high) {
        uint32_t middle = low + (high - low) / 2;
        struct lp_slice key;

        rc = lp_spot_key(cursor->tree, &leaf->spot, middle, &key, err);
        if (rc == LP_OK && has_prefix(key, prefix))
            low = middle + 1;
        else
            high = middle;
    }
    *matches = low - leaf->index;
    return rc;
}

static int count_bytes(const struct lp_tree *tree, const struct lp_spot *spot, uint32_t from,
                       uint32_t matches, uint64_t *bytes, struct lp_error *err)
{
    int rc = LP_OK;

    for (uint32_t i = from; rc == LP_OK && i < from + matches; i++) {
        struct lp_item item;

        rc = lp_spot_item(tree, spot, i, &item, err);
        if (rc == LP_OK)
            *bytes += item.key.size + (item.is_bucket ? 0 : item.value.size);
    }
    return rc;
}

/* Goes on through the leaves beside this one, as far as their parent's keys
 * tell that they belong: without the cursor's steps in between, the processor
 * fetches several pages at a time. */
static int count_siblings(struct lp_cursor *cursor, struct lp_slice prefix, uint64_t *total,
                          uint64_t *bytes, struct lp_error *err)
{
    struct lp_frame *leaf = lp_cursor_leaf(cursor);
    struct lp_frame *parent = leaf - 1;
    int rc = LP_OK;

    if (cursor->depth < 2 || parent->spot.node != NULL)
        return LP_OK;
    while (rc == LP_OK && parent->index + 2 < parent->spot.page.count) {
        struct lp_spot next = {.id = lp_page_child(&parent->spot.page, parent->index + 1)};
        struct lp_slice key;

        if (!lp_page_key(&parent->spot.page, parent->index + 2, &key) || !has_prefix(key, prefix))
            break;
        rc = lp_tx_page(cursor->tree->tx, next.id, &next.page, err);
        if (rc != LP_OK || !next.page.leaf || next.page.count == 0 ||
            cursor->walked > cursor->tree->tx->meta.pages)
            break; /* the cursor knows what to do with it */
        cursor->walked++;
        parent->index++;
        leaf->spot = next;
        leaf->index = next.page.count - 1;
        *total += next.page.count;
        if (bytes != NULL)
            rc = count_bytes(cursor->tree, &next, 0, next.page.count, bytes, err);
    }
    return rc;
}

static int count_from(struct lp_cursor *cursor, struct lp_slice prefix, uint64_t *total,
                      uint64_t *bytes, struct lp_error *err)
{
    struct lp_item item;
    int rc = lp_cursor_seek(cursor, prefix, &item, err);

    while (rc == 1) {
        struct lp_frame *leaf = lp_cursor_leaf(cursor);
        uint32_t matches;
        bool whole;

        rc = count_leaf(cursor, prefix, &matches, err);
        whole = leaf->index + matches == lp_spot_count(&leaf->spot);
        if (rc == LP_OK && bytes != NULL)
            rc = count_bytes(cursor->tree, &leaf->spot, leaf->index, matches, bytes, err);
        *total += matches;
        if (rc != LP_OK || !whole)
            return rc;
        leaf->index += matches - 1;
        rc = count_siblings(cursor, prefix, total, bytes, err);
        if (rc == LP_OK)
            rc = lp_cursor_next(cursor, &item, err);
    }
    return rc;
}

int lp_bucket_count(struct lp_bucket *bucket, struct lp_slice prefix, uint64_t *count,
                    uint64_t *bytes, struct lp_error *err)
{
    struct lp_cursor *cursor;
    int rc = lp_cursor_open(&cursor, bucket, err);

    if (rc != LP_OK)
        return rc;
    *count = 0;
    if (bytes != NULL)
        *bytes = 0;
    rc = count_from(cursor, prefix, count, bytes, err);
    lp_cursor_close(cursor);
    return rc;
}

/* --- measuring ------------------------------------------------------------ */

struct measure {
    struct lp_bucket_stats *stats;
    struct lp_todo todo;
};

static int measure_visit(void *context, struct lp_bucket *bucket, const struct lp_spot *spot,
                         unsigned depth, struct lp_error *err)
{
    const struct lp_tree *tree = &bucket->tree;
    struct measure *measure = context;
    struct lp_bucket_stats *stats = measure->stats;
    bool leaf = lp_spot_leaf(spot);
    uint64_t bytes = LP_PAGE_HEADER;
    uint64_t pages = spot->node != NULL ? spot->node->run : spot->page.size / tree->tx->page_size;
    int rc = LP_OK;

    for (uint32_t i = 0; rc == LP_OK && i < lp_spot_count(spot); i++) {
        struct lp_item item = {0};

        rc = leaf ? lp_spot_item(tree, spot, i, &item, err)
                  : lp_spot_key(tree, spot, i, &item.key, err);
        bytes += LP_PAGE_ELEMENT + item.key.size + item.value.size;
        stats->keys += leaf ? 1 : 0;
    }
    if (rc != LP_OK)
        return rc;
    if (depth + 1 > stats->depth)
        stats->depth = depth + 1;
    if (spot->node == NULL && spot->id == 0) {
        stats->inline_bytes += bytes;
        stats->inline_buckets++;
    } else if (leaf) {
        stats->leaf_pages++;
        stats->leaf_overflow += pages > 0 ? pages - 1 : 0;
        stats->leaf_bytes += bytes;
    } else {
        stats->branch_pages++;
        stats->branch_overflow += pages > 0 ? pages - 1 : 0;
        stats->branch_bytes += bytes;
    }
    return leaf ? lp_todo_add_leaf(&measure->todo, bucket, spot, err) : LP_OK;
}

int lp_bucket_stats(struct lp_bucket *bucket, struct lp_bucket_stats *stats, struct lp_error *err)
{
    struct measure measure = {.stats = stats};
    const struct lp_tx *tx = bucket->tree.tx;
    uint64_t budget = tx->meta.pages + LP_DEPTH_MAX;
    int rc;

    memset(stats, 0, sizeof *stats);
    measure.todo.bytes = tx->meta.pages * tx->page_size;
    rc = lp_walk(bucket, measure_visit, &measure, &budget, err);
    while (rc == LP_OK && measure.todo.used > 0) {
        struct lp_bucket *inner = measure.todo.buckets[--measure.todo.used];
        uint64_t nodes = budget;

        stats->buckets++;
        rc = lp_walk(inner, measure_visit, &measure, inner->tree.root != 0 ? &budget : &nodes, err);
        lp_bucket_release(inner);
    }
    lp_todo_free(&measure.todo);
    return rc;
}
