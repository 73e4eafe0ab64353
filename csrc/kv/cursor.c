/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cursors: how they move.
 *
 * Invariants, beside those of position.c
 *  1. A walk in one direction enters each page once, so that one that entered
 *     more pages than the file has goes in circles.
 *  2. Empty leaves (other writers leave them) are stepped over.
 *  3. From SAVED a move finds the key again, or the gap where it was: next()
 *     then goes to the element after the gap, not past it.
 */
#include "kv/bucket.h"
#include "kv/position.h"

#include <stdlib.h>

int lp_cursor_open(struct lp_cursor **out, struct lp_bucket *bucket, struct lp_error *err)
{
    struct lp_cursor *cursor;
    int rc = lp_bucket_enter(bucket, err);

    if (rc != LP_OK)
        return rc;
    cursor = malloc(sizeof *cursor);
    if (cursor == NULL)
        return lp_fail(err, LP_ENOMEM, "no memory for a cursor");
    memset(cursor, 0, offsetof(struct lp_cursor, frames));
    cursor->bucket = bucket;
    cursor->tree = &bucket->tree;
    cursor->next = bucket->cursors;
    if (cursor->next != NULL)
        cursor->next->previous = cursor;
    bucket->cursors = cursor;
    bucket->users++;
    *out = cursor;
    return LP_OK;
}

static void cursor_unlink(struct lp_cursor *cursor)
{
    *(cursor->previous != NULL ? &cursor->previous->next : &cursor->bucket->cursors) = cursor->next;
    if (cursor->next != NULL)
        cursor->next->previous = cursor->previous;
}

void lp_cursor_close(struct lp_cursor *cursor)
{
    struct lp_bucket *bucket = cursor->bucket;

    cursor_unlink(cursor);
    free(cursor->key);
    free(cursor);
    lp_bucket_release(bucket);
}

/* Goes down from the top frame's child at its index; to the leftmost or the
 * rightmost leaf, or where `key` leads. */
static int cursor_descend(struct lp_cursor *cursor, bool rightmost, const struct lp_slice *key,
                          struct lp_error *err)
{
    const struct lp_tree *tree = cursor->tree;

    for (;;) {
        struct lp_frame *frame = lp_cursor_leaf(cursor);
        uint32_t count = lp_spot_count(&frame->spot);
        bool exact = false;
        int rc;

        if (key != NULL) {
            rc = lp_spot_search(tree, &frame->spot, *key, &frame->index, &exact, err);
            if (rc != LP_OK)
                return rc;
        } else {
            frame->index = rightmost && count > 0 ? count - 1 : 0;
        }
        if (lp_spot_leaf(&frame->spot))
            return LP_OK;
        if (key != NULL && frame->index > 0 && !exact)
            frame->index--;
        if (count == 0)
            return lp_tx_corrupt(tree->tx, frame->spot.id, "a branch page without elements", err);
        if (cursor->depth > LP_DEPTH_MAX || cursor->walked++ > tree->tx->meta.pages + LP_DEPTH_MAX)
            return lp_tx_corrupt(tree->tx, frame->spot.id, "the tree is too deep, or a cycle", err);
        rc = lp_spot_child(tree, &frame->spot, frame->index, &frame[1].spot, err);
        if (rc != LP_OK)
            return rc;
        cursor->depth++;
    }
}

static int cursor_begin(struct lp_cursor *cursor, bool rightmost, const struct lp_slice *key,
                        struct lp_error *err)
{
    int rc = lp_bucket_enter(cursor->bucket, err);

    cursor->state = LP_CURSOR_AFTER;
    cursor->walked = 0;
    cursor->forward = !rightmost;
    cursor->epoch = cursor->tree->tx->cache.epoch;
    cursor->depth = 1;
    if (rc == LP_OK)
        rc = lp_spot_root(cursor->tree, &cursor->frames[0].spot, err);
    return rc == LP_OK ? cursor_descend(cursor, rightmost, key, err) : rc;
}

/* Moves the top frame one element on; where a leaf ends, to the next leaf.
 * 1, or 0 where there is no more. */
static int cursor_step(struct lp_cursor *cursor, bool forward, struct lp_error *err)
{
    for (;;) {
        struct lp_frame *frame = lp_cursor_leaf(cursor);
        int rc;

        while (forward ? frame->index + 1 >= lp_spot_count(&frame->spot) : frame->index == 0) {
            if (cursor->depth == 1)
                return 0;
            cursor->depth--;
            frame = lp_cursor_leaf(cursor);
        }
        frame->index += forward ? 1 : (uint32_t)-1;
        if (lp_spot_leaf(&frame->spot))
            return 1;
        if (cursor->walked++ > cursor->tree->tx->meta.pages + LP_DEPTH_MAX)
            return lp_tx_corrupt(cursor->tree->tx, frame->spot.id, "the tree is a cycle", err);
        rc = lp_spot_child(cursor->tree, &frame->spot, frame->index, &frame[1].spot, err);
        if (rc != LP_OK)
            return rc;
        cursor->depth++;
        rc = cursor_descend(cursor, !forward, NULL, err);
        if (rc != LP_OK)
            return rc;
        if (lp_spot_count(&lp_cursor_leaf(cursor)->spot) > 0)
            return 1;
    }
}

/* The element under the cursor, stepping off a leaf's end or an empty leaf. */
static int cursor_settle(struct lp_cursor *cursor, bool forward, struct lp_item *item,
                         struct lp_error *err)
{
    struct lp_frame *frame = lp_cursor_leaf(cursor);
    int rc = 1;

    if (frame->index >= lp_spot_count(&frame->spot))
        rc = cursor_step(cursor, forward, err);
    if (rc == 1) {
        frame = lp_cursor_leaf(cursor);
        rc = lp_spot_item(cursor->tree, &frame->spot, frame->index, item, err);
        if (rc == LP_OK) {
            cursor->state = LP_CURSOR_AT;
            return 1;
        }
    }
    cursor->state = forward ? LP_CURSOR_AFTER : LP_CURSOR_BEFORE;
    return rc;
}

int lp_cursor_first(struct lp_cursor *cursor, struct lp_item *item, struct lp_error *err)
{
    int rc = cursor_begin(cursor, false, NULL, err);

    return rc == LP_OK ? cursor_settle(cursor, true, item, err) : rc;
}

int lp_cursor_last(struct lp_cursor *cursor, struct lp_item *item, struct lp_error *err)
{
    int rc = cursor_begin(cursor, true, NULL, err);

    return rc == LP_OK ? cursor_settle(cursor, false, item, err) : rc;
}

int lp_cursor_seek(struct lp_cursor *cursor, struct lp_slice key, struct lp_item *item,
                   struct lp_error *err)
{
    int rc = cursor_begin(cursor, false, &key, err);

    return rc == LP_OK ? cursor_settle(cursor, true, item, err) : rc;
}

/* From SAVED: finds the key again and moves as asked from there. */
static int cursor_resume(struct lp_cursor *cursor, bool forward, struct lp_item *item,
                         struct lp_error *err)
{
    struct lp_slice key = {cursor->key, cursor->key_size};
    struct lp_slice found;
    struct lp_frame *frame;
    bool same;
    int rc = cursor_begin(cursor, false, &key, err);

    if (rc == LP_OK)
        rc = cursor_settle(cursor, true, item, err);
    if (rc < 0)
        return rc;
    if (rc == 0)
        return forward ? 0 : lp_cursor_last(cursor, item, err);
    frame = lp_cursor_leaf(cursor);
    rc = lp_spot_key(cursor->tree, &frame->spot, frame->index, &found, err);
    if (rc != LP_OK)
        return rc;
    same = lp_key_compare(found, key) == 0;
    if (forward && !same)
        return 1;
    rc = cursor_step(cursor, forward, err);
    if (rc == 1)
        return cursor_settle(cursor, forward, item, err);
    cursor->state = forward ? LP_CURSOR_AFTER : LP_CURSOR_BEFORE;
    return rc;
}

static int cursor_move(struct lp_cursor *cursor, bool forward, struct lp_item *item,
                       struct lp_error *err)
{
    int rc = lp_bucket_enter(cursor->bucket, err);

    if (rc != LP_OK)
        return rc;
    switch (cursor->state) {
    case LP_CURSOR_NEW:
        return forward ? lp_cursor_first(cursor, item, err) : lp_cursor_last(cursor, item, err);
    case LP_CURSOR_BEFORE:
        return forward ? lp_cursor_first(cursor, item, err) : 0;
    case LP_CURSOR_AFTER:
        return forward ? 0 : lp_cursor_last(cursor, item, err);
    case LP_CURSOR_SAVED:
        return cursor_resume(cursor, forward, item, err);
    case LP_CURSOR_AT:
        break;
    }
    rc = lp_cursor_refresh(cursor, err);
    if (rc != LP_OK)
        return rc;
    if (forward != cursor->forward) {
        cursor->forward = forward;
        cursor->walked = 0;
    }
    rc = cursor_step(cursor, forward, err);
    if (rc == 1)
        return cursor_settle(cursor, forward, item, err);
    cursor->state = forward ? LP_CURSOR_AFTER : LP_CURSOR_BEFORE;
    return rc;
}

int lp_cursor_next(struct lp_cursor *cursor, struct lp_item *item, struct lp_error *err)
{
    return cursor_move(cursor, true, item, err);
}

int lp_cursor_prev(struct lp_cursor *cursor, struct lp_item *item, struct lp_error *err)
{
    return cursor_move(cursor, false, item, err);
}

int lp_cursor_delete(struct lp_cursor *cursor, struct lp_error *err)
{
    struct lp_frame *frame;
    struct lp_item item;
    int rc = lp_bucket_enter_write(cursor->bucket, err);

    if (rc != LP_OK)
        return rc;
    if (cursor->state != LP_CURSOR_AT)
        return 0;
    rc = lp_cursor_refresh(cursor, err);
    if (rc != LP_OK)
        return rc;
    frame = lp_cursor_leaf(cursor);
    rc = lp_spot_item(cursor->tree, &frame->spot, frame->index, &item, err);
    if (rc != LP_OK)
        return rc;
    if (item.is_bucket)
        return lp_fail(err, LP_KV_EINCOMPATIBLE, "the cursor is on a bucket");
    lp_cursors_save(cursor->bucket->cursors);
    if (cursor->state != LP_CURSOR_SAVED)
        return lp_fail(err, LP_ENOMEM, "no memory for the cursor's key");
    return lp_bucket_delete(cursor->bucket, (struct lp_slice){cursor->key, cursor->key_size}, err);
}
