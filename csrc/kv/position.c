/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeping a cursor's place while its tree changes, or the pages under it go.
 *
 * Invariants
 *  1. In state AT, and while the page cache's epoch is the cursor's, every
 *     frame's index is below its count and frames[depth-1] is a leaf.
 *  2. A change of the bucket puts each of its cursors from AT to SAVED, with a
 *     copy of its key.
 */
#include "kv/position.h"

#include <stdlib.h>

int lp_cursor_reload(struct lp_cursor *cursor, struct lp_error *err)
{
    struct lp_tx *tx = cursor->tree->tx;

    for (unsigned i = 0; i < cursor->depth; i++) {
        struct lp_frame *frame = &cursor->frames[i];
        int rc;

        if (frame->spot.node != NULL || frame->spot.id == 0)
            continue;
        rc = lp_tx_page(tx, frame->spot.id, &frame->spot.page, err);
        if (rc == LP_OK && frame->index >= frame->spot.page.count)
            rc = lp_tx_corrupt(tx, frame->spot.id, "the page changed while it was read", err);
        if (rc != LP_OK)
            return rc;
    }
    cursor->epoch = tx->cache.epoch;
    return LP_OK;
}

void lp_cursors_save(struct lp_cursor *cursors)
{
    for (struct lp_cursor *cursor = cursors; cursor != NULL; cursor = cursor->next) {
        const struct lp_frame *frame;
        struct lp_slice key;
        int rc;

        if (cursor->state != LP_CURSOR_AT)
            continue;
        frame = lp_cursor_leaf(cursor);
        rc = lp_cursor_refresh(cursor, NULL);
        if (rc == LP_OK)
            rc = lp_spot_key(cursor->tree, &frame->spot, frame->index, &key, NULL);
        cursor->state = LP_CURSOR_AFTER; /* where the key cannot be kept */
        if (rc != LP_OK)
            continue;
        free(cursor->key);
        cursor->key = lp_node_copy(key, NULL);
        cursor->key_size = key.size;
        if (cursor->key != NULL)
            cursor->state = LP_CURSOR_SAVED;
    }
}

void lp_cursors_forget(struct lp_cursor *cursors)
{
    for (struct lp_cursor *cursor = cursors; cursor != NULL; cursor = cursor->next)
        cursor->state = LP_CURSOR_AFTER;
}

void lp_cursors_free(struct lp_cursor *cursors)
{
    while (cursors != NULL) {
        struct lp_cursor *cursor = cursors;

        cursors = cursor->next;
        free(cursor->key);
        free(cursor);
    }
}
