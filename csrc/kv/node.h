/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nodes: the pages that a write transaction changes, in memory.  A node is
 * made from a page on the way down to a change, so that every node's parent is
 * a node too.  Keys and values stay where they are (in the map, in a pinned
 * page) until they are replaced; what the transaction itself wrote is owned by
 * its inode.
 */
#ifndef LP_KV_NODE_H
#define LP_KV_NODE_H

#include "kv/snapshot.h"

enum {
    LP_INODE_BUCKET = 1,     /* leaf: the value is a bucket's header */
    LP_INODE_OWNS_KEY = 2,   /* it goes with the inode; the value may lie behind it */
    LP_INODE_OWNS_VALUE = 4, /* leaf */
    LP_INODE_IN_BLOCK = 8,   /* the key it owns is a pair of kv/pairs.h, in a block */
};

struct lp_inode {
    const uint8_t *key;
    union {
        const uint8_t *value;  /* leaf */
        struct lp_node *child; /* branch: the child's node, NULL while it is a page */
    };
    union {
        uint64_t value_size;
        uint64_t page; /* branch: the child's page; of a child node, set at commit */
    };
    uint32_t key_size;
    uint32_t flags;
};

struct lp_node {
    struct lp_inode *inodes; /* ascending keys */
    uint32_t count;
    uint32_t room;
    uint64_t page;     /* the page it was made from, 0 for none */
    uint64_t run;      /* pages of that */
    uint64_t new_page; /* at commit: where it goes */
    bool leaf;
    bool shrunk;    /* lost an element: may be too small now */
    bool scattered; /* got an element that was not the last: expect more in between */
};

/* Past this many elements a node is cut in two while the transaction runs, so
 * that an insert never moves more. */
#define LP_NODE_CUT 512U

struct lp_node *lp_node_new(bool leaf, struct lp_error *err);
/* Frees the node and all nodes below it. */
void lp_node_free(struct lp_node *node);

/* A node with the elements of `page`, which is page `id` (0: inline). */
int lp_node_load(struct lp_node **out, struct lp_tx *tx, const struct lp_page *page, uint64_t id,
                 struct lp_error *err);

/* As lp_page_search() and lp_page_route(). */
uint32_t lp_node_search(const struct lp_node *node, struct lp_slice key, bool *exact);
uint32_t lp_node_route(const struct lp_node *node, struct lp_slice key);

static inline struct lp_slice lp_inode_key(const struct lp_inode *inode)
{
    return (struct lp_slice){inode->key, inode->key_size};
}

/* Of a leaf. */
static inline void lp_inode_item(const struct lp_inode *inode, struct lp_item *item)
{
    item->key = lp_inode_key(inode);
    item->value = (struct lp_slice){inode->value, (size_t)inode->value_size};
    item->is_bucket = (inode->flags & LP_INODE_BUCKET) != 0;
}

/* An owned copy. */
uint8_t *lp_node_copy(struct lp_slice bytes, struct lp_error *err);

/* Opens a gap at `index`; the caller fills it. */
int lp_node_insert(struct lp_node *node, uint32_t index, struct lp_inode inode,
                   struct lp_error *err);
/* Closes it, and frees what the inode owns but its child. */
void lp_node_remove(struct lp_node *node, uint32_t index);
void lp_inode_release(struct lp_inode *inode, bool leaf);

/* Moves the elements from `index` on into a new node. */
int lp_node_split(struct lp_node *node, uint32_t index, struct lp_node **right,
                  struct lp_error *err);
/* Moves all elements of `right` behind those of `left`. */
int lp_node_join(struct lp_node *left, struct lp_node *right, struct lp_error *err);

/* Bytes of the node as a page, and of one element. */
uint64_t lp_node_bytes(const struct lp_node *node);
static inline uint64_t lp_inode_bytes(const struct lp_inode *inode, bool leaf)
{
    return LP_PAGE_ELEMENT + (uint64_t)inode->key_size + (leaf ? inode->value_size : 0);
}

/* Writes the node as page `id` to `data`; lp_node_bytes() bytes. */
void lp_node_write(const struct lp_node *node, uint8_t *data, uint64_t id, uint64_t overflow);

#endif
