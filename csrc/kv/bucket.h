/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buckets, for the engine's own modules: a tree with a name, handles, and
 * cursors that stand in it.
 */
#ifndef LP_KV_BUCKET_H
#define LP_KV_BUCKET_H

#include "kv/tree.h"

struct lp_bucket {
    struct lp_tree tree;
    struct lp_bucket *parent; /* NULL for the root bucket, and in read transactions */
    uint8_t *name;            /* NULL likewise */
    size_t name_size;
    size_t users; /* handles, and open buckets inside it */
    bool dropped; /* deleted in this transaction: touches nothing any more */

    uint64_t sequence;
    uint8_t *inline_copy; /* owns the inline page's memory, or NULL */
    uint8_t *header;      /* at commit: where its parent's leaf keeps the header */

    struct lp_cursor *cursors;
    struct lp_bucket *next; /* in the transaction's list */
    struct lp_bucket *previous;
};

/* Refuses a dropped bucket; drops cached pages where there are many. */
int lp_bucket_enter(struct lp_bucket *bucket, struct lp_error *err);
/* The same for a change: refuses a read transaction. */
int lp_bucket_enter_write(struct lp_bucket *bucket, struct lp_error *err);

/* As lp_bucket_open(), for an element of `parent` that is in hand. */
int lp_bucket_open_item(struct lp_bucket **out, struct lp_bucket *parent,
                        const struct lp_item *item, struct lp_error *err);

/* Puts a bucket's header (and inline page) under an existing name, at commit. */
int lp_bucket_set_header(struct lp_bucket *parent, struct lp_slice name, uint8_t *value,
                         size_t size, struct lp_error *err);

/* Marks a deleted bucket: its name may be taken anew, its handles are dead. */
void lp_bucket_bury(struct lp_bucket *bucket);

/* Frees every bucket of the transaction with its cursors and nodes. */
void lp_buckets_free(struct lp_tx *tx);
/* Frees the memory that was kept of closed ones. */
void lp_buckets_forget(struct lp_tx *tx);

#endif
