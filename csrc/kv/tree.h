/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bucket's tree, partly nodes, partly pages: one way to look at it, and the
 * way to a place that is to be changed.
 */
#ifndef LP_KV_TREE_H
#define LP_KV_TREE_H

#include "kv/node.h"

struct lp_tree {
    struct lp_tx *tx;
    uint64_t root;               /* its first page, 0 where it is inline */
    struct lp_slice inline_page; /* of an inline tree */
    struct lp_node *node;        /* the root, once it was changed */
};

/* One place in a tree: a node where it was changed, else a page. */
struct lp_spot {
    struct lp_node *node;
    struct lp_page page;
    uint64_t id; /* the page's number, 0 for an inline page and for a node */
};

static inline bool lp_spot_leaf(const struct lp_spot *spot)
{
    return spot->node != NULL ? spot->node->leaf : spot->page.leaf;
}

static inline uint32_t lp_spot_count(const struct lp_spot *spot)
{
    return spot->node != NULL ? spot->node->count : spot->page.count;
}

int lp_spot_root(const struct lp_tree *tree, struct lp_spot *spot, struct lp_error *err);
/* Child i of a branch; `child` may be `spot`. */
int lp_spot_child(const struct lp_tree *tree, const struct lp_spot *spot, uint32_t i,
                  struct lp_spot *child, struct lp_error *err);
/* Element i of a leaf. */
int lp_spot_item(const struct lp_tree *tree, const struct lp_spot *spot, uint32_t i,
                 struct lp_item *item, struct lp_error *err);
/* The key of element i. */
int lp_spot_key(const struct lp_tree *tree, const struct lp_spot *spot, uint32_t i,
                struct lp_slice *key, struct lp_error *err);
/* As lp_page_search(), with the fault reported. */
int lp_spot_search(const struct lp_tree *tree, const struct lp_spot *spot, struct lp_slice key,
                   uint32_t *index, bool *exact, struct lp_error *err);

/* 1 with *item set, 0 where the key is not there. */
int lp_tree_find(const struct lp_tree *tree, struct lp_slice key, struct lp_item *item,
                 struct lp_error *err);

/* Makes a node of the root; what was changed has one. */
int lp_tree_root_node(struct lp_tree *tree, struct lp_error *err);
/* Makes a node of a branch inode's child. */
int lp_tree_child_node(struct lp_tree *tree, struct lp_inode *inode, struct lp_error *err);
/* Makes nodes of the path to `key`; *leaf and *index are its place.  Where the
 * leaf `grows`, nodes on the way that are too long are cut. */
int lp_tree_edit(struct lp_tree *tree, struct lp_slice key, bool grows, struct lp_node **leaf,
                 uint32_t *index, bool *exact, struct lp_error *err);

#endif
