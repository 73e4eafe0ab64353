/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nodes: arrays of elements with sorted keys.
 *
 * Invariants
 *  1. Keys ascend strictly; a branch's key i is not greater than any key below
 *     child i, but for i = 0, which takes everything smaller too.
 *  2. A branch inode has a child node, or a page, never neither.
 *  3. An inode owns its key or value or borrows it from memory that lives as
 *     long as the transaction; moving an inode moves what it owns.
 *  4. Outside a commit no node has more than LP_NODE_CUT elements but what its
 *     page had when it was loaded.
 */
#include "kv/node.h"

#include <stdlib.h>

struct lp_node *lp_node_new(bool leaf, struct lp_error *err)
{
    struct lp_node *node = calloc(1, sizeof *node);

    if (node == NULL)
        (void)lp_fail(err, LP_ENOMEM, "no memory for a node");
    else
        node->leaf = leaf;
    return node;
}

void lp_inode_release(struct lp_inode *inode, bool leaf)
{
    if ((inode->flags & LP_INODE_OWNS_KEY) != 0)
        lp_pair_free(inode->key, (inode->flags & LP_INODE_IN_BLOCK) != 0);
    if (leaf && (inode->flags & LP_INODE_OWNS_VALUE) != 0)
        free((void *)(uintptr_t)inode->value);
}

/* Not deeper than the tree, which LP_DEPTH_MAX bounds. */
void lp_node_free(struct lp_node *node)
{
    if (node == NULL)
        return;
    for (uint32_t i = 0; i < node->count; i++) {
        if (!node->leaf)
            lp_node_free(node->inodes[i].child);
        lp_inode_release(&node->inodes[i], node->leaf);
    }
    free(node->inodes);
    free(node);
}

static int node_reserve(struct lp_node *node, uint64_t count, struct lp_error *err)
{
    uint64_t room = node->room < 8 ? 8 : node->room;
    struct lp_inode *inodes;

    if (count <= node->room)
        return LP_OK;
    while (room < count)
        room += room / 2;
    inodes = room > UINT32_MAX ? NULL : reallocarray(node->inodes, room, sizeof *inodes);
    if (inodes == NULL)
        return lp_fail(err, LP_ENOMEM, "no memory for a node of %llu elements",
                       (unsigned long long)count);
    node->inodes = inodes;
    node->room = (uint32_t)room;
    return LP_OK;
}

static bool node_load_inode(struct lp_inode *inode, const struct lp_page *page, uint32_t i)
{
    struct lp_item item;
    struct lp_slice key;

    if (page->leaf) {
        if (!lp_page_item(page, i, &item))
            return false;
        *inode = (struct lp_inode){.key = item.key.data,
                                   .value = item.value.data,
                                   .value_size = item.value.size,
                                   .key_size = (uint32_t)item.key.size,
                                   .flags = item.is_bucket ? LP_INODE_BUCKET : 0};
        return true;
    }
    if (!lp_page_key(page, i, &key))
        return false;
    *inode = (struct lp_inode){
        .key = key.data, .page = lp_page_child(page, i), .key_size = (uint32_t)key.size};
    return true;
}

int lp_node_load(struct lp_node **out, struct lp_tx *tx, const struct lp_page *page, uint64_t id,
                 struct lp_error *err)
{
    struct lp_node *node = lp_node_new(page->leaf, err);
    int rc;

    if (node == NULL)
        return LP_ENOMEM;
    rc = node_reserve(node, page->count, err);
    for (uint32_t i = 0; rc == LP_OK && i < page->count; i++) {
        if (!node_load_inode(&node->inodes[i], page, i))
            rc = lp_tx_corrupt(tx, id, "an element points out of its page", err);
        else
            node->count++;
    }
    if (rc == LP_OK && !page->leaf && page->count == 0)
        rc = lp_tx_corrupt(tx, id, "a branch page without elements", err);
    if (rc != LP_OK) {
        lp_node_free(node);
        return rc;
    }
    if (id != 0) {
        node->page = id;
        node->run = page->size / tx->page_size;
        lp_tx_pin(tx, id);
    }
    *out = node;
    return LP_OK;
}

uint32_t lp_node_search(const struct lp_node *node, struct lp_slice key, bool *exact)
{
    uint64_t head = lp_key_head(key.data, key.size);
    uint32_t low = 0;
    uint32_t high = node->count;

    *exact = false;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        struct lp_slice probe = lp_inode_key(&node->inodes[middle]);
        uint64_t probe_head = lp_key_head(probe.data, probe.size);
        int order;

        if (probe_head != head)
            order = probe_head < head ? -1 : 1;
        else
            order = lp_key_compare(probe, key);
        if (order == 0) {
            *exact = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint32_t lp_node_route(const struct lp_node *node, struct lp_slice key)
{
    bool exact;
    uint32_t i = lp_node_search(node, key, &exact);

    return i > 0 && !exact ? i - 1 : i;
}

uint8_t *lp_node_copy(struct lp_slice bytes, struct lp_error *err)
{
    uint8_t *copy = malloc(bytes.size > 0 ? bytes.size : 1);

    if (copy == NULL)
        (void)lp_fail(err, LP_ENOMEM, "no memory for %zu bytes", bytes.size);
    else if (bytes.size > 0)
        memcpy(copy, bytes.data, bytes.size);
    return copy;
}

int lp_node_insert(struct lp_node *node, uint32_t index, struct lp_inode inode,
                   struct lp_error *err)
{
    int rc = node_reserve(node, (uint64_t)node->count + 1, err);

    if (rc != LP_OK)
        return rc;
    if (index < node->count)
        node->scattered = true;
    memmove(&node->inodes[index + 1], &node->inodes[index],
            (node->count - index) * sizeof *node->inodes);
    node->inodes[index] = inode;
    node->count++;
    return LP_OK;
}

void lp_node_remove(struct lp_node *node, uint32_t index)
{
    lp_inode_release(&node->inodes[index], node->leaf);
    node->count--;
    memmove(&node->inodes[index], &node->inodes[index + 1],
            (node->count - index) * sizeof *node->inodes);
    node->shrunk = true;
}

int lp_node_split(struct lp_node *node, uint32_t index, struct lp_node **right,
                  struct lp_error *err)
{
    uint32_t moved = node->count - index;
    struct lp_node *other = lp_node_new(node->leaf, err);
    int rc;

    if (other == NULL)
        return LP_ENOMEM;
    rc = node_reserve(other, moved, err);
    if (rc != LP_OK) {
        lp_node_free(other);
        return rc;
    }
    memcpy(other->inodes, &node->inodes[index], moved * sizeof *node->inodes);
    other->count = moved;
    other->shrunk = node->shrunk;
    other->scattered = node->scattered;
    node->count = index;
    *right = other;
    return LP_OK;
}

int lp_node_join(struct lp_node *left, struct lp_node *right, struct lp_error *err)
{
    int rc;

    if (right->count == 0) /* without an array, it may be */
        return LP_OK;
    rc = node_reserve(left, (uint64_t)left->count + right->count, err);
    if (rc != LP_OK)
        return rc;
    memcpy(&left->inodes[left->count], right->inodes, right->count * sizeof *right->inodes);
    left->count += right->count;
    left->shrunk = left->shrunk || right->shrunk;
    left->scattered = true;
    right->count = 0;
    return LP_OK;
}

uint64_t lp_node_bytes(const struct lp_node *node)
{
    uint64_t bytes = LP_PAGE_HEADER;

    for (uint32_t i = 0; i < node->count; i++)
        bytes += lp_inode_bytes(&node->inodes[i], node->leaf);
    return bytes;
}

void lp_node_write(const struct lp_node *node, uint8_t *data, uint64_t id, uint64_t overflow)
{
    uint8_t *element = data + LP_PAGE_HEADER;
    uint8_t *content = element + (size_t)node->count * LP_PAGE_ELEMENT;

    lp_page_header(data, id, node->leaf ? LP_PAGE_LEAF : LP_PAGE_BRANCH, node->count, overflow);
    for (uint32_t i = 0; i < node->count; i++, element += LP_PAGE_ELEMENT) {
        const struct lp_inode *inode = &node->inodes[i];
        uint32_t pos = (uint32_t)(content - element);

        memcpy(content, inode->key, inode->key_size);
        content += inode->key_size;
        if (node->leaf) {
            lp_store32(element, (inode->flags & LP_INODE_BUCKET) != 0 ? LP_LEAF_BUCKET : 0);
            lp_store32(element + 4, pos);
            lp_store32(element + 8, inode->key_size);
            lp_store32(element + 12, (uint32_t)inode->value_size);
            if (inode->value_size > 0)
                memcpy(content, inode->value, (size_t)inode->value_size);
            content += inode->value_size;
        } else {
            lp_store32(element, pos);
            lp_store32(element + 4, inode->key_size);
            lp_store64(element + 8, inode->page);
        }
    }
}
