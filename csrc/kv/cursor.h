/* SPDX-License-Identifier: Apache-2.0 */
/* Cursors, for the engine's own modules. */
#ifndef LP_KV_CURSOR_H
#define LP_KV_CURSOR_H

#include "kv/bucket.h"

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
    struct lp_cursor *next;
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

/* Before a change of the bucket: its cursors remember their keys, not places. */
void lp_cursors_save(struct lp_bucket *bucket);

/* The bucket was deleted: its cursors stand nowhere. */
void lp_cursors_forget(struct lp_bucket *bucket);

/* Frees all cursors of a bucket that is itself being freed. */
void lp_cursors_free(struct lp_bucket *bucket);

/* The leaf that the cursor stands on, after a move that returned 1. */
static inline struct lp_frame *lp_cursor_leaf(struct lp_cursor *cursor)
{
    return &cursor->frames[cursor->depth - 1];
}

#endif
