/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Places in a tree, whether it was changed or not.  A node's children are
 * nodes or pages, a page's are pages: from the first page on the way down
 * everything below is as the last commit left it.
 *
 * A change makes nodes of its path, root first, and cuts the long ones on the
 * way, so that none of them grows past LP_NODE_CUT.
 */
#include "kv/tree.h"

static int tree_fault(const struct lp_tree *tree, uint64_t id, struct lp_error *err)
{
    return lp_tx_corrupt(tree->tx, id != 0 ? id : LP_KV_NO_PAGE,
                         "an element points out of its page", err);
}

/* The page of a tree that lies in its parent's leaf. */
static int tree_inline(const struct lp_tree *tree, struct lp_page *page, struct lp_error *err)
{
    const char *reason = lp_page_parse(page, tree->inline_page.data, tree->inline_page.size, 0);

    return reason == NULL ? LP_OK : lp_tx_corrupt(tree->tx, LP_KV_NO_PAGE, reason, err);
}

int lp_spot_root(const struct lp_tree *tree, struct lp_spot *spot, struct lp_error *err)
{
    spot->node = tree->node;
    spot->id = tree->root;
    if (spot->node != NULL)
        return LP_OK;
    if (tree->root != 0)
        return lp_tx_page(tree->tx, tree->root, &spot->page, err);
    return tree_inline(tree, &spot->page, err);
}

int lp_spot_child(const struct lp_tree *tree, const struct lp_spot *spot, uint32_t i,
                  struct lp_spot *child, struct lp_error *err)
{
    uint64_t id;

    if (spot->node != NULL) {
        const struct lp_inode *inode = &spot->node->inodes[i];

        if (inode->child != NULL) {
            child->node = inode->child;
            child->id = 0;
            return LP_OK;
        }
        id = inode->page;
    } else {
        id = lp_page_child(&spot->page, i);
    }
    child->node = NULL;
    child->id = id;
    return lp_tx_page(tree->tx, id, &child->page, err);
}

int lp_spot_item(const struct lp_tree *tree, const struct lp_spot *spot, uint32_t i,
                 struct lp_item *item, struct lp_error *err)
{
    if (spot->node == NULL)
        return lp_page_item(&spot->page, i, item) ? LP_OK : tree_fault(tree, spot->id, err);
    lp_inode_item(&spot->node->inodes[i], item);
    return LP_OK;
}

int lp_spot_key(const struct lp_tree *tree, const struct lp_spot *spot, uint32_t i,
                struct lp_slice *key, struct lp_error *err)
{
    if (spot->node == NULL)
        return lp_page_key(&spot->page, i, key) ? LP_OK : tree_fault(tree, spot->id, err);
    *key = lp_inode_key(&spot->node->inodes[i]);
    return LP_OK;
}

int lp_spot_search(const struct lp_tree *tree, const struct lp_spot *spot, struct lp_slice key,
                   uint32_t *index, bool *exact, struct lp_error *err)
{
    int64_t found;

    if (spot->node != NULL) {
        *index = lp_node_search(spot->node, key, exact);
        return LP_OK;
    }
    found = lp_page_search(&spot->page, key, exact);
    if (found < 0)
        return tree_fault(tree, spot->id, err);
    *index = (uint32_t)found;
    return LP_OK;
}

/* In what was changed: 1 with *item set, 0 where the key is not there, -1
 * where the way leads on to page *id. */
static int tree_find_node(const struct lp_node *node, struct lp_slice key, struct lp_item *item,
                          uint64_t *id)
{
    while (node != NULL) {
        bool exact;
        uint32_t i = lp_node_search(node, key, &exact);

        if (node->leaf) {
            if (exact)
                lp_inode_item(&node->inodes[i], item);
            return exact;
        }
        i -= i > 0 && !exact ? 1 : 0;
        *id = node->inodes[i].page;
        node = node->inodes[i].child;
    }
    return -1;
}

/* From page `id` (0: the inline one) down. */
static int tree_find_page(const struct lp_tree *tree, uint64_t id, struct lp_slice key,
                          struct lp_item *item, struct lp_error *err)
{
    for (unsigned depth = 0;; depth++) {
        struct lp_page page;
        int rc = id == 0 && depth == 0 ? tree_inline(tree, &page, err)
                                       : lp_tx_page(tree->tx, id, &page, err);
        bool exact;
        int64_t i;

        if (rc != LP_OK)
            return rc;
        i = lp_page_search(&page, key, &exact);
        if (i < 0)
            return tree_fault(tree, id, err);
        if (page.leaf && !exact)
            return 0;
        if (page.leaf)
            return lp_page_item(&page, (uint32_t)i, item) ? 1 : tree_fault(tree, id, err);
        if (page.count == 0)
            return lp_tx_corrupt(tree->tx, id, "a branch page without elements", err);
        if (depth == LP_DEPTH_MAX)
            return lp_tx_corrupt(tree->tx, id, "the tree is too deep, or a cycle", err);
        id = lp_page_child(&page, (uint32_t)(i > 0 && !exact ? i - 1 : i));
    }
}

int lp_tree_find(const struct lp_tree *tree, struct lp_slice key, struct lp_item *item,
                 struct lp_error *err)
{
    uint64_t id = tree->root;
    int rc = tree->node != NULL ? tree_find_node(tree->node, key, item, &id) : -1;

    return rc >= 0 ? rc : tree_find_page(tree, id, key, item, err);
}

/* --- changing ------------------------------------------------------------- */

int lp_tree_root_node(struct lp_tree *tree, struct lp_error *err)
{
    struct lp_spot spot;
    int rc = lp_spot_root(tree, &spot, err);

    if (rc != LP_OK || tree->node != NULL)
        return rc;
    return lp_node_load(&tree->node, tree->tx, &spot.page, tree->root, err);
}

int lp_tree_child_node(struct lp_tree *tree, struct lp_inode *inode, struct lp_error *err)
{
    struct lp_page page;
    int rc;

    if (inode->child != NULL)
        return LP_OK;
    rc = lp_tx_page(tree->tx, inode->page, &page, err);
    return rc == LP_OK ? lp_node_load(&inode->child, tree->tx, &page, inode->page, err) : rc;
}

/* Cuts child i of `parent` in two.  A node that only ever grew at its end is
 * cut there: the left half stays full. */
static int tree_cut(struct lp_node *parent, uint32_t i, struct lp_error *err)
{
    struct lp_node *left = parent->inodes[i].child;
    uint32_t at = left->scattered ? left->count / 2 : left->count - 1;
    struct lp_inode inode = {.flags = LP_INODE_OWNS_KEY};
    bool scattered = parent->scattered;
    uint8_t *key;
    int rc;

    if (!left->leaf && at > left->count - 2)
        at = left->count - 2;
    key = lp_node_copy(lp_inode_key(&left->inodes[at]), err);
    if (key == NULL)
        return LP_ENOMEM;
    inode.key = key;
    inode.key_size = left->inodes[at].key_size;
    rc = lp_node_insert(parent, i + 1, inode, err);
    if (rc != LP_OK) {
        free(key);
        return rc;
    }
    rc = lp_node_split(left, at, &parent->inodes[i + 1].child, err);
    if (rc != LP_OK)
        lp_node_remove(parent, i + 1);
    else if (i + 2 == parent->count)
        parent->scattered = scattered;
    return rc;
}

/* Puts a new root above the old one, so that the old one can be cut. */
static int tree_raise(struct lp_tree *tree, struct lp_error *err)
{
    struct lp_node *old = tree->node;
    struct lp_node *root = lp_node_new(false, err);
    struct lp_inode inode = {.flags = LP_INODE_OWNS_KEY};
    int rc;

    if (root == NULL)
        return LP_ENOMEM;
    inode.key = lp_node_copy(lp_inode_key(&old->inodes[0]), err);
    inode.key_size = old->inodes[0].key_size;
    rc = inode.key == NULL ? LP_ENOMEM : lp_node_insert(root, 0, inode, err);
    if (rc != LP_OK) {
        lp_inode_release(&inode, false);
        lp_node_free(root);
        return rc;
    }
    root->inodes[0].child = old;
    tree->node = root;
    return LP_OK;
}

int lp_tree_edit(struct lp_tree *tree, struct lp_slice key, bool grows, struct lp_node **leaf,
                 uint32_t *index, bool *exact, struct lp_error *err)
{
    struct lp_node *node;
    int rc = lp_tree_root_node(tree, err);

    if (rc == LP_OK && grows && tree->node->count >= LP_NODE_CUT)
        rc = tree_raise(tree, err);
    if (rc != LP_OK)
        return rc;
    node = tree->node;
    for (unsigned depth = 0; !node->leaf; depth++) {
        uint32_t i = lp_node_route(node, key);

        if (depth == LP_DEPTH_MAX)
            return lp_tx_corrupt(tree->tx, node->page, "the tree is too deep, or a cycle", err);
        rc = lp_tree_child_node(tree, &node->inodes[i], err);
        if (rc == LP_OK && grows && node->inodes[i].child->count >= LP_NODE_CUT) {
            rc = tree_cut(node, i, err);
            i = lp_node_route(node, key);
        }
        if (rc != LP_OK)
            return rc;
        node = node->inodes[i].child;
    }
    *leaf = node;
    *index = lp_node_search(node, key, exact);
    return LP_OK;
}
