/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory for the pairs that a write transaction puts.  Few are allocated each by
 * itself; many are cut from blocks, which costs no search when they come and none
 * when they go.  A block is freed when the last pair in it is.
 */
#ifndef LP_KV_PAIRS_H
#define LP_KV_PAIRS_H

#include "kv/kv.h"

struct lp_pairs {
    struct lp_block *block; /* that the next pair is cut from, or NULL */
    uint64_t bytes;         /* of all pairs so far */
};

/* A copy of the key with one of the value behind it; NULL without memory.
 * *in_block tells lp_pair_free() what it is. */
uint8_t *lp_pair_copy(struct lp_pairs *pairs, struct lp_slice key, struct lp_slice value,
                      bool *in_block, struct lp_error *err);
void lp_pair_free(const uint8_t *pair, bool in_block);

/* At the transaction's end, before or after its pairs are freed. */
void lp_pairs_end(struct lp_pairs *pairs);

#endif
