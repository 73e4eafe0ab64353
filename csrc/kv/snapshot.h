/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a transaction sees: the commit that it began at, and that commit's pages.
 * How it begins and ends is tx.c's.
 */
#ifndef LP_KV_SNAPSHOT_H
#define LP_KV_SNAPSHOT_H

#include "kv/db.h"
#include "kv/page.h"
#include "kv/pairs.h"

#include <stdlib.h>

/* Pages read by pread(), where there is no map. */
struct lp_cached {
    uint64_t id;
    uint8_t *data; /* NULL: the slot is empty */
    size_t size;
    bool pinned; /* a node points into it: stays until the transaction ends */
};

struct lp_cache {
    struct lp_cached *slots; /* open addressing, `room` a power of two */
    size_t room;
    size_t used;
    size_t bytes;
    uint64_t epoch; /* grows whenever pages are dropped */
};

/* What the memory of an ended transaction keeps for the next one. */
struct lp_kept {
    struct lp_bucket *buckets; /* memory of closed ones, linked by `next` */
    unsigned count;

    struct lp_meta meta; /* of the snapshot that the rest is about */
    uint8_t name[40];    /* of a bucket in the root bucket: the last that was opened */
    size_t name_size;    /* 0: none */
    uint64_t root;
    uint64_t sequence;
};

struct lp_tx {
    struct lp_db *db;
    struct lp_meta meta; /* the snapshot; of a write transaction, with its own txid */
    struct lp_map *map;
    const uint8_t *base; /* of the map, NULL without one */
    uint64_t page_size;
    uint64_t file_size; /* bytes, when it began */
    bool writable;
    pthread_t thread; /* that began it */
    struct lp_tx *next;
    struct lp_tx *previous; /* in the list of readers */
    uint64_t fault;
    struct lp_cache cache;

    struct lp_bucket *root;
    struct lp_bucket *buckets; /* all that are open, latest first: children before parents */
    struct lp_bucket **table;  /* a write transaction's, by parent and name */
    size_t table_room;
    size_t table_used;

    struct lp_pairs pairs;   /* that it put */
    struct lp_extents freed; /* pages of the snapshot that this commit leaves behind */
    struct lp_extents taken; /* pages out of the freelist that it writes */

    struct lp_kept kept; /* last: a new transaction clears what is before it */
};

/* LP_KV_ECORRUPT, with the page at fault recorded in the transaction. */
int lp_tx_corrupt(struct lp_tx *tx, uint64_t page, const char *reason, struct lp_error *err);

/* The slow half of lp_tx_page(): by pread, through the cache. */
int lp_tx_read_page(struct lp_tx *tx, uint64_t id, const uint8_t **data, size_t *size,
                    struct lp_error *err);

/* Keeps page `id`'s memory until the transaction ends. */
void lp_tx_pin(struct lp_tx *tx, uint64_t id);

/* Called on entry of every operation: drops cached pages past a limit.  After
 * it only pinned pages are where they were; cursors look at the epoch. */
void lp_tx_trim(struct lp_tx *tx);

/* Drops page `id` from the cache, unless it is pinned. */
void lp_tx_forget(struct lp_tx *tx, uint64_t id);

/* Frees the cache, at the transaction's end. */
void lp_tx_forget_all(struct lp_tx *tx);

/* The whole run that begins at page `id`, header unchecked but for its size. */
static inline int lp_tx_run(struct lp_tx *tx, uint64_t id, const uint8_t **data, size_t *size,
                            struct lp_error *err)
{
    uint64_t overflow;

    if (id < 2 || id >= tx->meta.pages)
        return lp_tx_corrupt(tx, id, "a page number past the last page", err);
    if (tx->base == NULL)
        return lp_tx_read_page(tx, id, data, size, err);
    *data = tx->base + id * tx->page_size;
    overflow = lp_page_overflow(*data);
    if (overflow >= tx->meta.pages - id)
        return lp_tx_corrupt(tx, id, "the page's run goes past the last page", err);
    *size = (size_t)((overflow + 1) * tx->page_size);
    return LP_OK;
}

/* The branch or leaf page `id`. */
static inline int lp_tx_page(struct lp_tx *tx, uint64_t id, struct lp_page *page,
                             struct lp_error *err)
{
    const uint8_t *data;
    size_t size;
    const char *reason;
    int rc = lp_tx_run(tx, id, &data, &size, err);

    if (rc != LP_OK)
        return rc;
    reason = lp_page_parse(page, data, size, id);
    return reason == NULL ? LP_OK : lp_tx_corrupt(tx, id, reason, err);
}

#endif
