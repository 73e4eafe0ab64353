/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shape of the tree.  The format allows any tree whose keys are in order;
 * this one is chosen so that a page is at least a quarter full, a page that
 * was split in its middle leaves room on both sides, and a load in key order
 * leaves full pages.
 *
 * Invariants
 *  1. After settle no node below the root is empty, and a branch root has two
 *     children at least.
 *  2. After shape every node fits into a page, but for a leaf with few elements
 *     that need no more pages together and a branch with fewer than four, which
 *     take a run.
 *  3. Every branch key is the first key of its child, exactly: bbolt finds a
 *     page in its parent by it, and where it is another one leaves the page's
 *     old element there beside the new one.
 *  4. A page that a node was made from goes to `freed` exactly once: when the
 *     node goes (join, collapse) or when it is measured.
 */
#include "kv/layout.h"

#include <stdlib.h>

#define LAYOUT_WHOLE 4U /* elements of a leaf that may take a run together */

static int layout_leave_page(struct lp_tx *tx, struct lp_node *node, struct lp_error *err)
{
    int rc = node->page != 0 ? lp_extents_add(&tx->freed, node->page, node->run, err) : LP_OK;

    node->page = 0;
    return rc;
}

/* --- settle: join what is too small --------------------------------------- */

static bool layout_small(const struct lp_tree *tree, const struct lp_node *node)
{
    return node->shrunk &&
           (node->count < (node->leaf ? 2U : 3U) || lp_node_bytes(node) < tree->tx->page_size / 4);
}

/* Takes child i, which is empty, out of its parent. */
static int layout_remove_child(struct lp_tree *tree, struct lp_node *parent, uint32_t i,
                               struct lp_error *err)
{
    struct lp_node *child = parent->inodes[i].child;
    int rc = layout_leave_page(tree->tx, child, err);

    if (rc != LP_OK)
        return rc;
    lp_node_remove(parent, i);
    lp_node_free(child);
    return LP_OK;
}

/* Joins children i and i + 1.  The right one's elements keep the keys that they
 * have: of a page that is its exact first key, of a node shape sets it. */
static int layout_join(struct lp_tree *tree, struct lp_node *parent, uint32_t i,
                       struct lp_error *err)
{
    struct lp_node *left;
    struct lp_node *right;
    int rc = lp_tree_child_node(tree, &parent->inodes[i], err);

    if (rc == LP_OK)
        rc = lp_tree_child_node(tree, &parent->inodes[i + 1], err);
    if (rc != LP_OK)
        return rc;
    left = parent->inodes[i].child;
    right = parent->inodes[i + 1].child;
    if (left->leaf != right->leaf)
        return lp_tx_corrupt(tree->tx, right->page, "leaves at different depths", err);
    rc = lp_node_join(left, right, err);
    if (rc != LP_OK)
        return rc;
    left->shrunk = true;
    return layout_remove_child(tree, parent, i + 1, err);
}

static int layout_settle(struct lp_tree *tree, struct lp_node *node, struct lp_error *err)
{
    int rc = LP_OK;

    if (node->leaf)
        return LP_OK;
    for (uint32_t i = 0; rc == LP_OK && i < node->count; i++) {
        if (node->inodes[i].child != NULL)
            rc = layout_settle(tree, node->inodes[i].child, err);
    }
    for (uint32_t i = 0; rc == LP_OK && i < node->count;) {
        const struct lp_node *child = node->inodes[i].child;

        if (child != NULL && child->count == 0) {
            rc = layout_remove_child(tree, node, i, err);
        } else if (child != NULL && node->count > 1 && layout_small(tree, child)) {
            i -= i > 0 ? 1 : 0;
            rc = layout_join(tree, node, i, err);
        } else {
            i++;
        }
    }
    return rc;
}

/* A root with one child is not needed; one without any is an empty leaf. */
static int layout_collapse(struct lp_tree *tree, struct lp_error *err)
{
    int rc = LP_OK;

    while (rc == LP_OK && !tree->node->leaf && tree->node->count == 1) {
        struct lp_node *root = tree->node;

        rc = lp_tree_child_node(tree, &root->inodes[0], err);
        if (rc == LP_OK)
            rc = layout_leave_page(tree->tx, root, err);
        if (rc == LP_OK) {
            tree->node = root->inodes[0].child;
            root->inodes[0].child = NULL;
            lp_node_free(root);
        }
    }
    if (tree->node->count == 0)
        tree->node->leaf = true;
    return rc;
}

/* --- shape: cut what is too large ----------------------------------------- */

/* Whether a leaf of few elements takes fewer pages as one run than in two
 * pieces, as one with a value of a page and some small ones does. */
static bool layout_better_whole(const struct lp_node *node, uint64_t bytes, uint64_t page_size)
{
    uint64_t size = LP_PAGE_HEADER;

    if (!node->leaf || node->count > LAYOUT_WHOLE)
        return false;
    for (uint32_t i = 0; i + 1 < node->count; i++) {
        size += lp_inode_bytes(&node->inodes[i], true);
        if (lp_pages_for(size, page_size) +
                lp_pages_for(bytes - size + LP_PAGE_HEADER, page_size) <=
            lp_pages_for(bytes, page_size))
            return false;
    }
    return true;
}

/* Where to cut a node of `bytes`; 0 where it stays whole. */
static uint32_t layout_cut_at(const struct lp_node *node, uint64_t bytes, uint64_t page_size)
{
    uint32_t least = node->leaf ? 1 : 2;
    uint64_t size = LP_PAGE_HEADER;
    uint64_t limit = page_size - page_size / 16;
    uint32_t i;

    if (node->count < 2 * least || (bytes <= page_size && node->count <= LP_PAGE_COUNT_MAX))
        return 0;
    if (layout_better_whole(node, bytes, page_size))
        return 0;
    if (node->scattered)
        limit = bytes <= 2 * page_size ? bytes / 2 : page_size * 7 / 10;
    for (i = 0; i < node->count - least && i < LP_PAGE_COUNT_MAX; i++) {
        size += lp_inode_bytes(&node->inodes[i], node->leaf);
        if (i >= least && size > limit)
            break;
    }
    return i;
}

/* Cuts child i of `parent` into as many pages as it needs. */
static int layout_cut(struct lp_tree *tree, struct lp_node *parent, uint32_t i,
                      struct lp_error *err)
{
    struct lp_node *node = parent->inodes[i].child;
    uint64_t bytes = lp_node_bytes(node);
    bool scattered = parent->scattered;

    for (;;) {
        uint32_t at = layout_cut_at(node, bytes, tree->tx->page_size);
        struct lp_inode inode = {0};
        struct lp_node *right;
        int rc;

        if (at == 0)
            return LP_OK;
        rc = lp_node_split(node, at, &right, err);
        if (rc != LP_OK)
            return rc;
        inode.key = right->inodes[0].key;
        inode.key_size = right->inodes[0].key_size;
        inode.child = right;
        rc = lp_node_insert(parent, ++i, inode, err);
        if (rc != LP_OK) {
            lp_node_free(right);
            return rc;
        }
        parent->scattered = scattered;
        bytes -= lp_node_bytes(node) - LP_PAGE_HEADER;
        node = right;
    }
}

static int layout_shape(struct lp_tree *tree, struct lp_node *node, struct lp_error *err)
{
    int rc = LP_OK;

    for (uint32_t i = node->leaf ? 0 : node->count; rc == LP_OK && i-- > 0;) {
        struct lp_inode *inode = &node->inodes[i];

        if (inode->child == NULL)
            continue;
        rc = layout_shape(tree, inode->child, err);
        if (rc == LP_OK) {
            const struct lp_inode *first = &inode->child->inodes[0];

            lp_inode_release(inode, false);
            inode->key = first->key;
            inode->key_size = first->key_size;
            inode->flags = 0;
            rc = layout_cut(tree, node, i, err);
        }
    }
    return rc;
}

/* Shapes the whole tree; a root that is too large gets a root above it. */
static int layout_shape_root(struct lp_tree *tree, struct lp_error *err)
{
    int rc = layout_shape(tree, tree->node, err);

    while (rc == LP_OK) {
        struct lp_node *old = tree->node;
        struct lp_node *root;
        struct lp_inode inode = {0};

        if (layout_cut_at(old, lp_node_bytes(old), tree->tx->page_size) == 0)
            return LP_OK;
        root = lp_node_new(false, err);
        if (root == NULL)
            return LP_ENOMEM;
        inode.key = old->inodes[0].key;
        inode.key_size = old->inodes[0].key_size;
        inode.child = old;
        rc = lp_node_insert(root, 0, inode, err);
        if (rc != LP_OK) {
            lp_node_free(root);
            return rc;
        }
        root->scattered = old->scattered;
        tree->node = root;
        rc = layout_cut(tree, root, 0, err);
    }
    return rc;
}

/* --- measure -------------------------------------------------------------- */

static int layout_measure(struct lp_tree *tree, struct lp_node *node, uint64_t *pages,
                          struct lp_error *err)
{
    int rc = LP_OK;

    for (uint32_t i = 0; !node->leaf && rc == LP_OK && i < node->count; i++) {
        if (node->inodes[i].child != NULL)
            rc = layout_measure(tree, node->inodes[i].child, pages, err);
    }
    if (rc == LP_OK)
        rc = layout_leave_page(tree->tx, node, err);
    node->run = lp_pages_for(lp_node_bytes(node), tree->tx->page_size);
    *pages += node->run;
    return rc;
}

static bool layout_fits_inline(const struct lp_bucket *bucket)
{
    const struct lp_node *node = bucket->tree.node;

    if (bucket->parent == NULL || !node->leaf ||
        lp_node_bytes(node) > bucket->tree.tx->page_size / 4)
        return false;
    for (uint32_t i = 0; i < node->count; i++) {
        if ((node->inodes[i].flags & LP_INODE_BUCKET) != 0)
            return false;
    }
    return true;
}

/* Gives the parent's leaf the bucket's header, with its page where inline. */
static int layout_set_header(struct lp_bucket *bucket, bool inlined, struct lp_error *err)
{
    size_t size = LP_BUCKET_HEADER + (inlined ? (size_t)lp_node_bytes(bucket->tree.node) : 0);
    uint8_t *value = calloc(1, size);
    int rc;

    if (value == NULL)
        return lp_fail(err, LP_ENOMEM, "no memory for a bucket's header");
    lp_store64(value + 8, bucket->sequence);
    if (inlined)
        lp_node_write(bucket->tree.node, value + LP_BUCKET_HEADER, 0, 0);
    rc = lp_bucket_set_header(bucket->parent, (struct lp_slice){bucket->name, bucket->name_size},
                              value, size, err);
    if (rc != LP_OK) {
        free(value);
        return rc;
    }
    bucket->header = inlined ? NULL : value;
    return LP_OK;
}

int lp_layout(struct lp_bucket *bucket, uint64_t *pages, struct lp_error *err)
{
    bool inlined;
    int rc = layout_settle(&bucket->tree, bucket->tree.node, err);

    if (rc == LP_OK)
        rc = layout_collapse(&bucket->tree, err);
    if (rc != LP_OK)
        return rc;
    inlined = layout_fits_inline(bucket);
    if (inlined) {
        rc = layout_leave_page(bucket->tree.tx, bucket->tree.node, err);
    } else {
        rc = layout_shape_root(&bucket->tree, err);
        if (rc == LP_OK)
            rc = layout_measure(&bucket->tree, bucket->tree.node, pages, err);
    }
    return rc == LP_OK && bucket->parent != NULL ? layout_set_header(bucket, inlined, err) : rc;
}
