/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages are free, and which will be once no reader can see them.
 *
 * A page that commit T frees was part of the snapshots before T.  It is
 * pending until every open reader is at T or later, then free.  The file's
 * freelist page lists both kinds: after a restart there are no readers.
 */
#ifndef LP_KV_FREELIST_H
#define LP_KV_FREELIST_H

#include "kv/kv.h"

struct lp_extent {
    uint64_t start; /* first page */
    uint64_t count;
};

/* A growing array of extents, in no order unless said. */
struct lp_extents {
    struct lp_extent *at;
    size_t used;
    size_t room;
};

struct lp_pending {
    uint64_t txid; /* the commit that freed them */
    struct lp_extents pages;
};

struct lp_freelist {
    struct lp_extents free; /* ascending, never touching one another */
    uint64_t free_pages;
    struct lp_pending *pending; /* ascending txid */
    size_t pending_used;
    size_t pending_room;
    uint64_t pending_pages;
};

int lp_extents_add(struct lp_extents *extents, uint64_t start, uint64_t count,
                   struct lp_error *err);
void lp_extents_free(struct lp_extents *extents);
uint64_t lp_extents_pages(const struct lp_extents *extents);

/* Sorts ascending and joins neighbours.  LP_KV_ECORRUPT where two overlap;
 * *fault is then the page that is there twice. */
int lp_extents_normalize(struct lp_extents *extents, uint64_t *fault, struct lp_error *err);

/* Fails as above where the two, both normalized, have a page in common. */
int lp_extents_apart(const struct lp_extents *extents, const struct lp_extents *more,
                     uint64_t *fault, struct lp_error *err);

/* Adds the normalized `more` to the normalized `into`, which stays as it was
 * after an error; errors as above. */
int lp_extents_merge(struct lp_extents *into, const struct lp_extents *more, uint64_t *fault,
                     struct lp_error *err);

void lp_freelist_clear(struct lp_freelist *list);

/* Reads the freelist page in `data` (a whole run of `size` bytes) of a file
 * of `pages` pages.  Returns NULL or what is wrong with it; ids are appended
 * to `ids`, normalized. */
const char *lp_freelist_parse(const uint8_t *data, size_t size, uint64_t pages,
                              struct lp_extents *ids, struct lp_error *err);

/* Takes a contiguous run of `count` pages, the tightest there is.  0 where
 * there is none (page 0 is never free). */
uint64_t lp_freelist_take(struct lp_freelist *list, uint64_t count);

/* Pages of the largest run there is. */
uint64_t lp_freelist_largest(const struct lp_freelist *list);

/* Gives back what lp_freelist_take() gave and nobody used. */
int lp_freelist_untake(struct lp_freelist *list, struct lp_extents *taken, struct lp_error *err);

/* Makes room for one lp_freelist_defer(). */
int lp_freelist_reserve(struct lp_freelist *list, struct lp_error *err);

/* Records what commit `txid` freed; takes over `pages`, normalized. */
void lp_freelist_defer(struct lp_freelist *list, uint64_t txid, struct lp_extents *pages);

/* Frees what no reader at `oldest` or later can see. */
int lp_freelist_release(struct lp_freelist *list, uint64_t oldest, struct lp_error *err);

/* All pages of the list and `freed`, normalized, into *all. */
int lp_freelist_gather(const struct lp_freelist *list, const struct lp_extents *freed,
                       struct lp_extents *all, uint64_t *fault, struct lp_error *err);

/* Bytes of a freelist page with `count` ids, and its content. */
uint64_t lp_freelist_bytes(uint64_t count);
void lp_freelist_write(const struct lp_extents *all, uint64_t count, uint8_t *data, uint64_t id,
                       uint64_t overflow);

#endif
