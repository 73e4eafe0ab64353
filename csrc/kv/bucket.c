/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buckets: opening, reading and changing the pairs of one.
 *
 * Invariants
 *  1. In a write transaction a bucket that is open is open once: every handle
 *     of a name inside one parent is the same object, found by `table`.
 *  2. The transaction's list has children before their parents, because an
 *     open bucket keeps its parent open.  The commit goes through it in this
 *     order, and writes a child's header before its parent is laid out.
 *  3. A bucket with a node was changed.  It stays in the list when its last
 *     handle goes; an unchanged one is freed.
 *  4. Every change tells the bucket's cursors first (lp_cursors_save).
 */
#include "kv/bucket.h"

#include "kv/position.h"

#include <stdlib.h>

#define BUCKETS_KEPT 4U /* memory of closed buckets that a transaction keeps */

/* --- the transaction's table of open buckets ------------------------------ */

static size_t bucket_hash(const struct lp_bucket *parent, struct lp_slice name)
{
    uint64_t hash = (uint64_t)(uintptr_t)parent * UINT64_C(0x9e3779b97f4a7c15);

    for (size_t i = 0; i < name.size; i++)
        hash = (hash ^ name.data[i]) * UINT64_C(0x100000001b3);
    return (size_t)(hash ^ (hash >> 32));
}

static struct lp_bucket **table_slot(struct lp_bucket **table, size_t room,
                                     const struct lp_bucket *parent, struct lp_slice name)
{
    size_t i = bucket_hash(parent, name) & (room - 1);

    for (; table[i] != NULL; i = (i + 1) & (room - 1)) {
        if (table[i]->parent == parent && !table[i]->dropped &&
            lp_key_compare((struct lp_slice){table[i]->name, table[i]->name_size}, name) == 0)
            break;
    }
    return &table[i];
}

static int table_add(struct lp_tx *tx, struct lp_bucket *bucket, struct lp_error *err)
{
    size_t room = tx->table_room == 0 ? 16 : tx->table_room;
    struct lp_slice name = {bucket->name, bucket->name_size};

    if (tx->table_used * 2 >= tx->table_room) {
        struct lp_bucket **table = calloc(room * 2, sizeof(struct lp_bucket *));

        if (table == NULL)
            return lp_fail(err, LP_ENOMEM, "no memory for an open bucket");
        for (size_t i = 0; i < tx->table_room; i++) {
            struct lp_bucket *old = tx->table[i];

            if (old != NULL)
                *table_slot(table, room * 2, old->parent,
                            (struct lp_slice){old->name, old->name_size}) = old;
        }
        free(tx->table);
        tx->table = table;
        tx->table_room = room * 2;
    }
    *table_slot(tx->table, tx->table_room, bucket->parent, name) = bucket;
    tx->table_used++;
    return LP_OK;
}

/* Takes it out and closes the gap, so that no probe ends too early. */
static void table_remove(struct lp_tx *tx, const struct lp_bucket *bucket)
{
    size_t mask = tx->table_room - 1;
    struct lp_slice name = {bucket->name, bucket->name_size};
    size_t i;

    if (tx->table_room == 0)
        return;
    for (i = bucket_hash(bucket->parent, name) & mask; tx->table[i] != bucket; i = (i + 1) & mask) {
        if (tx->table[i] == NULL)
            return;
    }
    tx->table[i] = NULL;
    tx->table_used--;
    for (i = (i + 1) & mask; tx->table[i] != NULL; i = (i + 1) & mask) {
        struct lp_bucket *moved = tx->table[i];

        tx->table[i] = NULL;
        *table_slot(tx->table, tx->table_room, moved->parent,
                    (struct lp_slice){moved->name, moved->name_size}) = moved;
    }
}

/* --- life ----------------------------------------------------------------- */

static void bucket_link(struct lp_bucket *bucket)
{
    struct lp_tx *tx = bucket->tree.tx;

    bucket->next = tx->buckets;
    if (bucket->next != NULL)
        bucket->next->previous = bucket;
    tx->buckets = bucket;
}

static struct lp_bucket *bucket_alloc(struct lp_tx *tx)
{
    struct lp_bucket *bucket = tx->kept.buckets;

    if (bucket == NULL) {
        bucket = calloc(1, sizeof *bucket);
    } else {
        tx->kept.buckets = bucket->next;
        tx->kept.count--;
        memset(bucket, 0, sizeof *bucket);
    }
    if (bucket != NULL) {
        bucket->tree.tx = tx;
        bucket->users = 1;
    }
    return bucket;
}

static void bucket_free(struct lp_bucket *bucket)
{
    struct lp_kept *kept = &bucket->tree.tx->kept;

    lp_cursors_free(bucket->cursors);
    lp_node_free(bucket->tree.node);
    free(bucket->inline_copy);
    free(bucket->name);
    if (kept->count == BUCKETS_KEPT) {
        free(bucket);
        return;
    }
    bucket->next = kept->buckets;
    kept->buckets = bucket;
    kept->count++;
}

void lp_buckets_forget(struct lp_tx *tx)
{
    while (tx->kept.buckets != NULL) {
        struct lp_bucket *bucket = tx->kept.buckets;

        tx->kept.buckets = bucket->next;
        free(bucket);
    }
}

void lp_buckets_free(struct lp_tx *tx)
{
    while (tx->buckets != NULL) {
        struct lp_bucket *bucket = tx->buckets;

        tx->buckets = bucket->next;
        bucket_free(bucket);
    }
    free(tx->table);
}

void lp_bucket_release(struct lp_bucket *bucket)
{
    while (bucket != NULL && --bucket->users == 0) {
        struct lp_bucket *parent = bucket->parent;

        if (bucket->tree.node != NULL && !bucket->dropped)
            return; /* the commit needs it */
        if (bucket->tree.tx->writable && !bucket->dropped)
            table_remove(bucket->tree.tx, bucket);
        *(bucket->previous != NULL ? &bucket->previous->next : &bucket->tree.tx->buckets) =
            bucket->next;
        if (bucket->next != NULL)
            bucket->next->previous = bucket->previous;
        bucket_free(bucket);
        bucket = parent;
    }
}

void lp_bucket_bury(struct lp_bucket *bucket)
{
    if (bucket->dropped)
        return;
    table_remove(bucket->tree.tx, bucket);
    bucket->dropped = true;
    lp_cursors_forget(bucket->cursors);
    lp_node_free(bucket->tree.node);
    bucket->tree.node = NULL;
}

struct lp_bucket *lp_tx_root(struct lp_tx *tx)
{
    if (tx->root == NULL) {
        struct lp_bucket *bucket = bucket_alloc(tx);

        if (bucket == NULL)
            return NULL;
        bucket->tree.root = tx->meta.root;
        bucket->sequence = tx->meta.sequence;
        bucket_link(bucket);
        tx->root = bucket;
    }
    return tx->root;
}

/* Reads the header, and where the bucket is inline its page. */
static int bucket_read_header(struct lp_bucket *bucket, struct lp_slice value, struct lp_error *err)
{
    struct lp_tree *tree = &bucket->tree;
    struct lp_page page;
    const char *reason;

    if (value.size < LP_BUCKET_HEADER)
        return lp_tx_corrupt(tree->tx, LP_KV_NO_PAGE, "a bucket's header is cut short", err);
    tree->root = lp_load64(value.data);
    bucket->sequence = lp_load64(value.data + 8);
    if (tree->root != 0)
        return LP_OK;
    tree->inline_page =
        (struct lp_slice){value.data + LP_BUCKET_HEADER, value.size - LP_BUCKET_HEADER};
    reason = lp_page_parse(&page, tree->inline_page.data, tree->inline_page.size, 0);
    if (reason == NULL && !page.leaf)
        reason = "an inline bucket that is no leaf";
    if (reason != NULL)
        return lp_tx_corrupt(tree->tx, LP_KV_NO_PAGE, reason, err);
    if (tree->tx->base == NULL) { /* the page it is in may be dropped */
        bucket->inline_copy = lp_node_copy(tree->inline_page, err);
        if (bucket->inline_copy == NULL)
            return LP_ENOMEM;
        tree->inline_page.data = bucket->inline_copy;
    }
    return LP_OK;
}

static int bucket_new(struct lp_bucket **out, struct lp_bucket *parent, struct lp_slice name,
                      struct lp_slice value, struct lp_error *err)
{
    struct lp_bucket *bucket = bucket_alloc(parent->tree.tx);
    int rc;

    if (bucket == NULL)
        return lp_fail(err, LP_ENOMEM, "no memory for a bucket");
    rc = bucket_read_header(bucket, value, err);
    if (rc == LP_OK && parent->tree.tx->writable) {
        bucket->parent = parent;
        bucket->name = lp_node_copy(name, err);
        bucket->name_size = name.size;
        rc = bucket->name == NULL ? LP_ENOMEM : table_add(parent->tree.tx, bucket, err);
    }
    if (rc != LP_OK) {
        bucket_free(bucket);
        return rc;
    }
    if (bucket->parent != NULL)
        parent->users++;
    bucket_link(bucket);
    *out = bucket;
    return LP_OK;
}

int lp_bucket_enter(struct lp_bucket *bucket, struct lp_error *err)
{
    if (bucket->dropped)
        return lp_fail(err, LP_KV_ENOBUCKET, "the bucket was deleted");
    lp_tx_trim(bucket->tree.tx);
    return LP_OK;
}

int lp_bucket_enter_write(struct lp_bucket *bucket, struct lp_error *err)
{
    if (!bucket->tree.tx->writable)
        return lp_fail(err, LP_KV_ENOTWRITABLE, "the transaction is read-only");
    return lp_bucket_enter(bucket, err);
}

static struct lp_bucket *bucket_opened(struct lp_bucket *parent, struct lp_slice name)
{
    struct lp_tx *tx = parent->tree.tx;

    return tx->table_room == 0 ? NULL : *table_slot(tx->table, tx->table_room, parent, name);
}

int lp_bucket_open_item(struct lp_bucket **out, struct lp_bucket *parent,
                        const struct lp_item *item, struct lp_error *err)
{
    *out = bucket_opened(parent, item->key);
    if (*out == NULL)
        return bucket_new(out, parent, item->key, item->value, err);
    (*out)->users++;
    return LP_OK;
}

int lp_bucket_open(struct lp_bucket **out, struct lp_bucket *parent, struct lp_slice name,
                   struct lp_error *err)
{
    struct lp_item item;
    int rc = lp_bucket_enter(parent, err);

    if (rc != LP_OK)
        return rc;
    *out = bucket_opened(parent, name);
    if (*out != NULL) {
        (*out)->users++;
        return LP_OK;
    }
    rc = lp_tree_find(&parent->tree, name, &item, err);
    if (rc < 0)
        return rc;
    if (rc == 0)
        return lp_fail(err, LP_KV_ENOBUCKET, "no such bucket");
    if (!item.is_bucket)
        return lp_fail(err, LP_KV_EINCOMPATIBLE, "the name is a key's, not a bucket's");
    return bucket_new(out, parent, name, item.value, err);
}

/* --- the bucket that was opened last ---------------------------------------
 *
 * Most transactions open the same bucket first.  Where its header is depends on
 * the snapshot only, so that it need not be looked for again until a commit. */

static struct lp_bucket *bucket_recall(struct lp_tx *tx, struct lp_slice name)
{
    const struct lp_kept *kept = &tx->kept;
    struct lp_bucket *bucket;

    if (tx->writable || name.size != kept->name_size || name.size == 0 ||
        memcmp(name.data, kept->name, name.size) != 0 ||
        memcmp(&kept->meta, &tx->meta, sizeof kept->meta) != 0)
        return NULL;
    bucket = bucket_alloc(tx);
    if (bucket == NULL)
        return NULL;
    bucket->tree.root = kept->root;
    bucket->sequence = kept->sequence;
    bucket_link(bucket);
    return bucket;
}

static void bucket_remember(struct lp_slice name, const struct lp_bucket *bucket)
{
    struct lp_tx *tx = bucket->tree.tx;
    struct lp_kept *kept = &tx->kept;

    if (tx->writable || bucket->tree.root == 0 || name.size > sizeof kept->name)
        return;
    memcpy(kept->name, name.data, name.size);
    kept->name_size = name.size;
    kept->meta = tx->meta;
    kept->root = bucket->tree.root;
    kept->sequence = bucket->sequence;
}

int lp_tx_bucket(struct lp_bucket **out, struct lp_tx *tx, struct lp_slice name,
                 struct lp_error *err)
{
    struct lp_bucket *root;
    int rc;

    *out = bucket_recall(tx, name);
    if (*out != NULL)
        return LP_OK;
    root = lp_tx_root(tx);
    if (root == NULL)
        return lp_fail(err, LP_ENOMEM, "no memory for a bucket");
    rc = lp_bucket_open(out, root, name, err);
    if (rc == LP_OK)
        bucket_remember(name, *out);
    return rc;
}

int lp_bucket_create(struct lp_bucket **out, struct lp_bucket *parent, struct lp_slice name,
                     bool exist_ok, struct lp_error *err)
{
    uint8_t empty[LP_BUCKET_HEADER + LP_PAGE_HEADER] = {0};
    struct lp_inode inode = {.value_size = sizeof empty,
                             .key_size = (uint32_t)name.size,
                             .flags = LP_INODE_BUCKET | LP_INODE_OWNS_KEY | LP_INODE_OWNS_VALUE};
    struct lp_node *leaf;
    uint32_t index;
    bool exact;
    int rc = lp_bucket_enter_write(parent, err);

    if (rc != LP_OK)
        return rc;
    if (name.size == 0)
        return lp_fail(err, LP_KV_ENAME, "a bucket's name is empty");
    if (name.size > LP_KV_KEY_MAX)
        return lp_fail(err, LP_KV_EKEYSIZE, "a bucket's name of %zu bytes, more than %u", name.size,
                       LP_KV_KEY_MAX);
    lp_cursors_save(parent->cursors);
    rc = lp_tree_edit(&parent->tree, name, true, &leaf, &index, &exact, err);
    if (rc != LP_OK)
        return rc;
    if (exact) {
        bool is_bucket = (leaf->inodes[index].flags & LP_INODE_BUCKET) != 0;

        if (is_bucket && exist_ok)
            return lp_bucket_open(out, parent, name, err);
        return is_bucket ? lp_fail(err, LP_KV_EEXISTS, "the bucket exists")
                         : lp_fail(err, LP_KV_EINCOMPATIBLE, "the name is a key's");
    }
    lp_page_header(empty + LP_BUCKET_HEADER, 0, LP_PAGE_LEAF, 0, 0);
    inode.key = lp_node_copy(name, err);
    inode.value = lp_node_copy((struct lp_slice){empty, sizeof empty}, err);
    rc = inode.key == NULL || inode.value == NULL ? LP_ENOMEM
                                                  : lp_node_insert(leaf, index, inode, err);
    if (rc != LP_OK) {
        lp_inode_release(&inode, true);
        return rc;
    }
    return lp_bucket_open(out, parent, name, err);
}

/* --- pairs ------------------------------------------------------------- */

int lp_bucket_get(struct lp_bucket *bucket, struct lp_slice key, struct lp_slice *value,
                  struct lp_error *err)
{
    struct lp_item item;
    int rc = lp_bucket_enter(bucket, err);

    if (rc == LP_OK)
        rc = lp_tree_find(&bucket->tree, key, &item, err);
    if (rc <= 0)
        return rc;
    if (item.is_bucket)
        return 0;
    for (size_t at = 64; at < item.value.size && at < 2048; at += 64)
        __builtin_prefetch(item.value.data + at);
    *value = item.value;
    return 1;
}

/* --- changing ------------------------------------------------------------- */

/* A pair that this transaction put has its value behind its key, in one
 * allocation, unless a longer one came later. */
static bool bucket_is_pair(const struct lp_inode *inode)
{
    return (inode->flags & (LP_INODE_OWNS_KEY | LP_INODE_OWNS_VALUE)) == LP_INODE_OWNS_KEY;
}

static int bucket_replace(struct lp_inode *inode, struct lp_slice value, struct lp_error *err)
{
    uint8_t *copy;

    if (bucket_is_pair(inode) && value.size > 0 && value.size <= inode->value_size) {
        memmove((uint8_t *)(uintptr_t)inode->value, value.data, value.size);
        inode->value_size = value.size;
        return LP_OK;
    }
    copy = lp_node_copy(value, err);
    if (copy == NULL)
        return LP_ENOMEM;
    if ((inode->flags & LP_INODE_OWNS_VALUE) != 0)
        free((void *)(uintptr_t)inode->value);
    inode->value = copy;
    inode->value_size = value.size;
    inode->flags |= LP_INODE_OWNS_VALUE;
    return LP_OK;
}

int lp_bucket_put(struct lp_bucket *bucket, struct lp_slice key, struct lp_slice value,
                  struct lp_error *err)
{
    struct lp_inode inode = {
        .value_size = value.size, .key_size = (uint32_t)key.size, .flags = LP_INODE_OWNS_KEY};
    struct lp_node *leaf;
    uint32_t index;
    bool in_block;
    bool exact;
    int rc = lp_bucket_enter_write(bucket, err);

    if (rc != LP_OK)
        return rc;
    if (key.size == 0)
        return lp_fail(err, LP_KV_EKEY, "the key is empty");
    if (key.size > LP_KV_KEY_MAX)
        return lp_fail(err, LP_KV_EKEYSIZE, "a key of %zu bytes, more than %u", key.size,
                       LP_KV_KEY_MAX);
    if (value.size > LP_KV_VALUE_MAX)
        return lp_fail(err, LP_KV_EVALUESIZE, "a value of %zu bytes, more than %u", value.size,
                       LP_KV_VALUE_MAX);
    lp_cursors_save(bucket->cursors);
    rc = lp_tree_edit(&bucket->tree, key, true, &leaf, &index, &exact, err);
    if (rc != LP_OK)
        return rc;
    if (exact) {
        if ((leaf->inodes[index].flags & LP_INODE_BUCKET) != 0)
            return lp_fail(err, LP_KV_EINCOMPATIBLE, "the key is a bucket's name");
        return bucket_replace(&leaf->inodes[index], value, err);
    }
    inode.key = lp_pair_copy(&bucket->tree.tx->pairs, key, value, &in_block, err);
    if (inode.key == NULL)
        return LP_ENOMEM;
    inode.flags |= in_block ? LP_INODE_IN_BLOCK : 0;
    inode.value = inode.key + key.size;
    rc = lp_node_insert(leaf, index, inode, err);
    if (rc != LP_OK)
        lp_inode_release(&inode, true);
    return rc;
}

int lp_bucket_delete(struct lp_bucket *bucket, struct lp_slice key, struct lp_error *err)
{
    struct lp_item item;
    struct lp_node *leaf;
    uint32_t index;
    bool exact;
    int rc = lp_bucket_enter_write(bucket, err);

    if (rc == LP_OK)
        rc = lp_tree_find(&bucket->tree, key, &item, err);
    if (rc <= 0)
        return rc;
    if (item.is_bucket)
        return lp_fail(err, LP_KV_EINCOMPATIBLE, "the key is a bucket's name");
    lp_cursors_save(bucket->cursors);
    rc = lp_tree_edit(&bucket->tree, key, false, &leaf, &index, &exact, err);
    if (rc != LP_OK)
        return rc;
    lp_node_remove(leaf, index);
    return 1;
}

int lp_bucket_set_header(struct lp_bucket *parent, struct lp_slice name, uint8_t *value,
                         size_t size, struct lp_error *err)
{
    struct lp_node *leaf;
    struct lp_inode *inode;
    uint32_t index;
    bool exact;
    int rc = lp_tree_edit(&parent->tree, name, false, &leaf, &index, &exact, err);

    if (rc != LP_OK)
        return rc;
    if (!exact || (leaf->inodes[index].flags & LP_INODE_BUCKET) == 0)
        return lp_tx_corrupt(parent->tree.tx, leaf->page, "an open bucket is not in its parent",
                             err);
    inode = &leaf->inodes[index];
    if ((inode->flags & LP_INODE_OWNS_VALUE) != 0)
        free((void *)(uintptr_t)inode->value);
    inode->value = value;
    inode->value_size = size;
    inode->flags |= LP_INODE_OWNS_VALUE;
    return LP_OK;
}

/* --- sequences ------------------------------------------------------------ */

int lp_bucket_sequence(struct lp_bucket *bucket, uint64_t *sequence, struct lp_error *err)
{
    int rc = lp_bucket_enter(bucket, err);

    if (rc == LP_OK)
        *sequence = bucket->sequence;
    return rc;
}

int lp_bucket_set_sequence(struct lp_bucket *bucket, uint64_t sequence, struct lp_error *err)
{
    int rc = lp_bucket_enter_write(bucket, err);

    if (rc == LP_OK)
        rc = lp_tree_root_node(&bucket->tree, err); /* what was changed has a node */
    if (rc == LP_OK)
        bucket->sequence = sequence;
    return rc;
}
