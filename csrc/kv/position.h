/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a cursor stands: a path from the root of a tree to one element, or the
 * key of that element while the tree changes.  How a cursor moves is cursor.c's.
 */
#ifndef LP_KV_POSITION_H
#define LP_KV_POSITION_H

#include "kv/tree.h"

enum lp_cursor_state {
    LP_CURSOR_NEW,    /* never moved: next() is first(), prev() is last() */
    LP_CURSOR_AT,     /* on an element; the frames lead to it */
    LP_CURSOR_SAVED,  /* the bucket changed: `key` says where it was */
    LP_CURSOR_BEFORE, /* prev() went past the first: next() is first() */
    LP_CURSOR_AFTER,  /* next() went past the last: prev() is last() */
};

struct lp_frame {
    struct lp_spot spot;
    uint32_t index;
};

struct lp_cursor {
    struct lp_bucket *bucket;
    const struct lp_tree *tree; /* the bucket's */
    struct lp_cursor *next;     /* in the bucket's list */
    struct lp_cursor *previous;
    enum lp_cursor_state state;
    bool forward;    /* the direction of the walk that `walked` counts */
    uint64_t walked; /* pages entered since the walk began: more than there are is a cycle */
    uint64_t epoch;  /* of the page cache, when the frames were filled */
    uint8_t *key;    /* owned; in state SAVED */
    size_t key_size;
    unsigned depth;
    struct lp_frame frames[LP_DEPTH_MAX + 1];
};

/* The leaf that the cursor stands on, after a move that returned 1. */
static inline struct lp_frame *lp_cursor_leaf(struct lp_cursor *cursor)
{
    return &cursor->frames[cursor->depth - 1];
}

/* The slow half of lp_cursor_refresh(). */
int lp_cursor_reload(struct lp_cursor *cursor, struct lp_error *err);

/* Where the page cache dropped pages, reads those of the path again. */
static inline int lp_cursor_refresh(struct lp_cursor *cursor, struct lp_error *err)
{
    if (cursor->epoch == cursor->tree->tx->cache.epoch || cursor->state != LP_CURSOR_AT)
        return LP_OK;
    return lp_cursor_reload(cursor, err);
}

/* Each of these takes a bucket's whole list, NULL where it is empty.
 *
 * Before a change of the bucket: its cursors remember their keys, not places. */
void lp_cursors_save(struct lp_cursor *cursors);

/* The bucket was deleted: its cursors stand nowhere. */
void lp_cursors_forget(struct lp_cursor *cursors);

/* The bucket itself is being freed. */
void lp_cursors_free(struct lp_cursor *cursors);

#endif
