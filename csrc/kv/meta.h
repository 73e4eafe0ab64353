/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The meta page: which tree, which freelist, how many pages, at which commit.
 * Pages 0 and 1 each hold one; commit T writes page T % 2, so that the other
 * one always names the commit before.
 */
#ifndef LP_KV_META_H
#define LP_KV_META_H

#include "kv/kv.h"

#define LP_META_SIZE 64U /* bytes, after the page header */
#define LP_META_END 80U  /* of page header and meta */
#define LP_META_NO_FREELIST UINT64_MAX

struct lp_meta {
    uint32_t page_size;
    uint32_t flags; /* unused by the format, kept as found */
    uint64_t root;
    uint64_t sequence;
    uint64_t freelist; /* or LP_META_NO_FREELIST */
    uint64_t pages;    /* the high-water mark: first page never used */
    uint64_t txid;
};

/* Reads a meta from `page`, LP_META_END bytes with the page header.  0, or
 * LP_KV_EINVALID, LP_KV_EVERSION, LP_KV_ECHECKSUM. */
int lp_meta_decode(struct lp_meta *meta, const uint8_t *page, struct lp_error *err);

/* Writes page header and meta over the first LP_META_END bytes of `page`. */
void lp_meta_encode(const struct lp_meta *meta, uint8_t *page, uint64_t page_id);

#endif
