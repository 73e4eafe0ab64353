/* SPDX-License-Identifier: Apache-2.0 */
/* One way to look at a tree that is partly nodes, partly pages. */
#ifndef LP_KV_SPOT_H
#define LP_KV_SPOT_H

#include "kv/node.h"

struct lp_bucket;

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

int lp_spot_root(struct lp_bucket *bucket, struct lp_spot *spot, struct lp_error *err);
/* Child i of a branch; `child` may be `spot`. */
int lp_spot_child(struct lp_bucket *bucket, const struct lp_spot *spot, uint32_t i,
                  struct lp_spot *child, struct lp_error *err);
/* Element i of a leaf. */
int lp_spot_item(struct lp_bucket *bucket, const struct lp_spot *spot, uint32_t i,
                 struct lp_item *item, struct lp_error *err);
/* The key of element i. */
int lp_spot_key(struct lp_bucket *bucket, const struct lp_spot *spot, uint32_t i,
                struct lp_slice *key, struct lp_error *err);
/* As lp_page_search(), with the fault reported. */
int lp_spot_search(struct lp_bucket *bucket, const struct lp_spot *spot, struct lp_slice key,
                   uint32_t *index, bool *exact, struct lp_error *err);

/* 1 with *item set, 0 where the key is not there. */
int lp_bucket_find(struct lp_bucket *bucket, struct lp_slice key, struct lp_item *item,
                   struct lp_error *err);

#endif
