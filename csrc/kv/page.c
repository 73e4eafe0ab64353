/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading pages that may say anything.  The header is checked once when a page
 * is reached, each element when it is touched; nothing is remembered between
 * calls, so that a file that changes under a map can give wrong answers but
 * never a read outside the run.
 */
#include "kv/page.h"

void lp_page_header(uint8_t *data, uint64_t id, uint16_t flags, size_t count, uint64_t overflow)
{
    lp_store64(data, id);
    lp_store16(data + 8, flags);
    lp_store16(data + 10, (uint16_t)count);
    lp_store32(data + 12, (uint32_t)overflow);
}

const char *lp_page_parse(struct lp_page *page, const uint8_t *data, size_t size, uint64_t id)
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

int64_t lp_page_search(const struct lp_page *page, struct lp_slice key, bool *exact)
{
    uint64_t head = lp_key_head(key.data, key.size);
    uint32_t low = 0;
    uint32_t high = page->count;

    *exact = false;
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
