/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Places in a tree, whether it was changed or not.  A node's children are
 * nodes or pages, a page's are pages: from the first page on the way down
 * everything below is as the last commit left it.
 */
#include "kv/bucket.h"

static int spot_fault(struct lp_bucket *bucket, const struct lp_spot *spot, struct lp_error *err)
{
    return lp_tx_corrupt(bucket->tx, spot->id != 0 ? spot->id : LP_KV_NO_PAGE,
                         "an element points out of its page", err);
}

int lp_spot_root(struct lp_bucket *bucket, struct lp_spot *spot, struct lp_error *err)
{
    const char *reason;

    spot->node = bucket->node;
    spot->id = bucket->root;
    if (spot->node != NULL)
        return LP_OK;
    if (bucket->root != 0)
        return lp_tx_page(bucket->tx, bucket->root, &spot->page, err);
    reason = lp_page_parse(&spot->page, bucket->inline_page.data, bucket->inline_page.size, 0);
    return reason == NULL ? LP_OK : lp_tx_corrupt(bucket->tx, LP_KV_NO_PAGE, reason, err);
}

int lp_spot_child(struct lp_bucket *bucket, const struct lp_spot *spot, uint32_t i,
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
    return lp_tx_page(bucket->tx, id, &child->page, err);
}

int lp_spot_item(struct lp_bucket *bucket, const struct lp_spot *spot, uint32_t i,
                 struct lp_item *item, struct lp_error *err)
{
    const struct lp_inode *inode;

    if (spot->node == NULL)
        return lp_page_item(&spot->page, i, item) ? LP_OK : spot_fault(bucket, spot, err);
    inode = &spot->node->inodes[i];
    item->key = lp_inode_key(inode);
    item->value = (struct lp_slice){inode->value, (size_t)inode->value_size};
    item->is_bucket = (inode->flags & LP_INODE_BUCKET) != 0;
    return LP_OK;
}

int lp_spot_key(struct lp_bucket *bucket, const struct lp_spot *spot, uint32_t i,
                struct lp_slice *key, struct lp_error *err)
{
    if (spot->node == NULL)
        return lp_page_key(&spot->page, i, key) ? LP_OK : spot_fault(bucket, spot, err);
    *key = lp_inode_key(&spot->node->inodes[i]);
    return LP_OK;
}

int lp_spot_search(struct lp_bucket *bucket, const struct lp_spot *spot, struct lp_slice key,
                   uint32_t *index, bool *exact, struct lp_error *err)
{
    int64_t found;

    if (spot->node != NULL) {
        *index = lp_node_search(spot->node, key, exact);
        return LP_OK;
    }
    found = lp_page_search(&spot->page, key, exact);
    if (found < 0)
        return spot_fault(bucket, spot, err);
    *index = (uint32_t)found;
    return LP_OK;
}

int lp_bucket_find(struct lp_bucket *bucket, struct lp_slice key, struct lp_item *item,
                   struct lp_error *err)
{
    struct lp_spot spot;
    int rc = lp_spot_root(bucket, &spot, err);

    for (unsigned depth = 0; rc == LP_OK; depth++) {
        uint32_t index;
        bool exact;

        rc = lp_spot_search(bucket, &spot, key, &index, &exact, err);
        if (rc != LP_OK)
            break;
        if (lp_spot_leaf(&spot)) {
            if (!exact)
                return 0;
            rc = lp_spot_item(bucket, &spot, index, item, err);
            return rc == LP_OK ? 1 : rc;
        }
        if (lp_spot_count(&spot) == 0)
            return lp_tx_corrupt(bucket->tx, spot.id, "a branch page without elements", err);
        if (depth == LP_DEPTH_MAX)
            return lp_tx_corrupt(bucket->tx, spot.id, "the tree is too deep, or a cycle", err);
        rc = lp_spot_child(bucket, &spot, index > 0 && !exact ? index - 1 : index, &spot, err);
    }
    return rc;
}
