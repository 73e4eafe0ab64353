/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From what a transaction changed to a tree that can be written: nodes that
 * became too small are joined, those too large are cut into pages, small
 * buckets go into their parent's leaf.
 */
#ifndef LP_KV_LAYOUT_H
#define LP_KV_LAYOUT_H

#include "kv/bucket.h"

/* Lays out one changed bucket, after the buckets inside it: its nodes get
 * their final shape and `run` (pages each), the pages that it leaves go to the
 * transaction's `freed`, and its parent gets its header or its inline page.
 * *pages grows by what the bucket will take. */
int lp_layout(struct lp_bucket *bucket, uint64_t *pages, struct lp_error *err);

static inline uint64_t lp_pages_for(uint64_t bytes, uint64_t page_size)
{
    return (bytes + page_size - 1) / page_size;
}

#endif
