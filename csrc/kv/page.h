/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages as they are in the file.  All integers are in the host's byte order.
 *
 *   page     u64 id, u16 flags, u16 count, u32 overflow, then count elements
 *   branch   u32 pos, u32 ksize, u64 child
 *   leaf     u32 flags, u32 pos, u32 ksize, u32 vsize
 *
 * An element's key begins `pos` bytes after the element itself; a leaf's value
 * follows its key.  A run is the page and its `overflow` following pages,
 * which have no header.  An inline bucket's page has the same form inside a
 * value, at any alignment: every load goes through memcpy.
 */
#ifndef LP_KV_PAGE_H
#define LP_KV_PAGE_H

#include "kv/kv.h"

#include <endian.h>
#include <string.h>

enum {
    LP_PAGE_BRANCH = 0x01,
    LP_PAGE_LEAF = 0x02,
    LP_PAGE_META = 0x04,
    LP_PAGE_FREELIST = 0x10,
};

#define LP_PAGE_HEADER 16U
#define LP_PAGE_ELEMENT 16U
#define LP_PAGE_COUNT_MAX 0xfffeU
#define LP_LEAF_BUCKET 0x01U
#define LP_BUCKET_HEADER 16U
#define LP_PAGE_SIZE_MIN 128U
#define LP_PAGE_SIZE_MAX (16U << 20)

/* A tree deeper than this is a cycle: two keys a branch page would already
 * need more pages than a file can hold. */
#define LP_DEPTH_MAX 64U

/* A page that was checked: header sane, element array inside the run. */
struct lp_page {
    const uint8_t *data;
    size_t size; /* of the whole run, bytes */
    uint32_t count;
    bool leaf;
};

static inline uint16_t lp_load16(const uint8_t *at)
{
    uint16_t value;

    memcpy(&value, at, sizeof value);
    return value;
}

static inline uint32_t lp_load32(const uint8_t *at)
{
    uint32_t value;

    memcpy(&value, at, sizeof value);
    return value;
}

static inline uint64_t lp_load64(const uint8_t *at)
{
    uint64_t value;

    memcpy(&value, at, sizeof value);
    return value;
}

static inline void lp_store16(uint8_t *at, uint16_t value)
{
    memcpy(at, &value, sizeof value);
}

static inline void lp_store32(uint8_t *at, uint32_t value)
{
    memcpy(at, &value, sizeof value);
}

static inline void lp_store64(uint8_t *at, uint64_t value)
{
    memcpy(at, &value, sizeof value);
}

static inline uint16_t lp_page_flags(const uint8_t *data)
{
    return lp_load16(data + 8);
}

static inline uint32_t lp_page_overflow(const uint8_t *data)
{
    return lp_load32(data + 12);
}

void lp_page_header(uint8_t *data, uint64_t id, uint16_t flags, size_t count, uint64_t overflow);

/* Fills *page from a run of `size` bytes whose header names page `id`.
 * Returns NULL, or why this is no branch or leaf page. */
static inline const char *lp_page_parse(struct lp_page *page, const uint8_t *data, size_t size,
                                        uint64_t id)
{
    uint16_t flags;

    if (size < LP_PAGE_HEADER)
        return "shorter than a page header";
    if (lp_load64(data) != id)
        return "the page names another page number";
    flags = lp_page_flags(data);
    if (flags != LP_PAGE_LEAF && flags != LP_PAGE_BRANCH)
        return "neither a branch nor a leaf page";
    page->data = data;
    page->size = size;
    page->count = lp_load16(data + 10);
    page->leaf = flags == LP_PAGE_LEAF;
    if (page->count > (size - LP_PAGE_HEADER) / LP_PAGE_ELEMENT)
        return "more elements than fit into the page";
    if (page->count > LP_PAGE_COUNT_MAX)
        return "more elements than a page may have";
    return NULL;
}

/* The first eight bytes of a key as a number of the same order, zero-padded. */
static inline uint64_t lp_key_head(const uint8_t *key, size_t size)
{
    uint64_t head = 0;

    if (size >= sizeof head)
        memcpy(&head, key, sizeof head);
    else if (size > 0)
        memcpy(&head, key, size);
    return be64toh(head);
}

static inline int lp_key_compare(struct lp_slice a, struct lp_slice b)
{
    size_t shorter = a.size < b.size ? a.size : b.size;
    int order = shorter == 0 ? 0 : memcmp(a.data, b.data, shorter);

    if (order != 0)
        return order;
    return (a.size > b.size) - (a.size < b.size);
}

/* Key of element i (i < count).  False where it points out of the run. */
static inline bool lp_page_key(const struct lp_page *page, uint32_t i, struct lp_slice *key)
{
    size_t at = LP_PAGE_HEADER + (size_t)i * LP_PAGE_ELEMENT;
    const uint8_t *element = page->data + at;
    uint64_t pos = lp_load32(element + (page->leaf ? 4 : 0));
    uint64_t size = lp_load32(element + (page->leaf ? 8 : 4));

    if (pos + size > page->size - at)
        return false;
    key->data = element + pos;
    key->size = (size_t)size;
    return true;
}

static inline uint64_t lp_page_child(const struct lp_page *page, uint32_t i)
{
    return lp_load64(page->data + LP_PAGE_HEADER + (size_t)i * LP_PAGE_ELEMENT + 8);
}

/* Element i of a leaf.  False where it points out of the run. */
bool lp_page_item(const struct lp_page *page, uint32_t i, struct lp_item *item);

/* The first element in [0, count] whose key is not less than `key`; *exact
 * tells whether it is equal.  Negative where an element points out of the run. */
int64_t lp_page_search(const struct lp_page *page, struct lp_slice key, bool *exact);

/* The child of a branch page that covers `key`; negative as above. */
static inline int64_t lp_page_route(const struct lp_page *page, struct lp_slice key)
{
    bool exact;
    int64_t i = lp_page_search(page, key, &exact);

    return i > 0 && !exact ? i - 1 : i;
}

#endif
