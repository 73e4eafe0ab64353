/* SPDX-License-Identifier: Apache-2.0 */
/* Going through every page of a bucket, and what is made of it. */
#ifndef LP_KV_WALK_H
#define LP_KV_WALK_H

#include "kv/bucket.h"

/* Called for each page or node, a branch before its children. */
typedef int lp_walk_visit(void *context, struct lp_bucket *bucket, const struct lp_spot *spot,
                          unsigned depth, struct lp_error *err);

/* `budget` counts pages down over several walks: a file that has more ways
 * than pages goes in circles. */
int lp_walk(struct lp_bucket *bucket, lp_walk_visit *visit, void *context, uint64_t *budget,
            struct lp_error *err);

/* Buckets that are still to be gone through: nesting without recursion.
 * `bytes` starts as the file's size and is used up by inline buckets, which
 * could otherwise overlap and multiply. */
struct lp_todo {
    uint64_t bytes;
    struct lp_bucket **buckets;
    size_t used;
    size_t room;
};

int lp_todo_add(struct lp_todo *todo, struct lp_bucket *bucket, struct lp_error *err);
/* Opens and adds every bucket in the leaf. */
int lp_todo_add_leaf(struct lp_todo *todo, struct lp_bucket *bucket, const struct lp_spot *spot,
                     struct lp_error *err);
/* Releases what is left. */
void lp_todo_free(struct lp_todo *todo);

#endif
