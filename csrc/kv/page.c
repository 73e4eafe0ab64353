/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading pages that may say anything.  The header is checked once when a page
 * is reached, each element when it is touched; nothing is remembered between
 * calls, so that a file that changes under a map can give wrong answers but
 * never a read outside the run.
 */
#include "kv/page.h"

#define PAGE_PREFETCH 8U /* elements */

void lp_page_header(uint8_t *data, uint64_t id, uint16_t flags, size_t count, uint64_t overflow)
{
    lp_store64(data, id);
    lp_store16(data + 8, flags);
    lp_store16(data + 10, (uint16_t)count);
    lp_store32(data + 12, (uint32_t)overflow);
}

bool lp_page_item(const struct lp_page *page, uint32_t i, struct lp_item *item)
{
    size_t at = LP_PAGE_HEADER + (size_t)i * LP_PAGE_ELEMENT;
    const uint8_t *element = page->data + at;
    uint64_t pos = lp_load32(element + 4);
    uint64_t key_size = lp_load32(element + 8);
    uint64_t value_size = lp_load32(element + 12);

    if (pos + key_size + value_size > page->size - at)
        return false;
    item->key.data = element + pos;
    item->key.size = (size_t)key_size;
    item->value.data = element + pos + key_size;
    item->value.size = (size_t)value_size;
    item->is_bucket = (lp_load32(element) & LP_LEAF_BUCKET) != 0;
    return true;
}

/* A leaf of large values has few keys, each in a cache line of its own: fetched
 * side by side they cost one miss.  An address out of the run does no harm. */
static void page_prefetch(const struct lp_page *page)
{
    const uint8_t *element = page->data + LP_PAGE_HEADER;

    for (uint32_t i = 0; i < page->count; i++, element += LP_PAGE_ELEMENT)
        __builtin_prefetch(element + lp_load32(element + 4));
}

int64_t lp_page_search(const struct lp_page *page, struct lp_slice key, bool *exact)
{
    uint64_t head = lp_key_head(key.data, key.size);
    uint32_t low = 0;
    uint32_t high = page->count;

    *exact = false;
    if (page->leaf && page->count <= PAGE_PREFETCH)
        page_prefetch(page);
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        struct lp_slice probe;
        uint64_t probe_head;
        int order;

        if (!lp_page_key(page, middle, &probe))
            return -1;
        probe_head = lp_key_head(probe.data, probe.size);
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
