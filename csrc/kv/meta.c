/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encoding of the meta page.  Its checksum is FNV-1a over the 56 bytes before
 * it; a meta that was torn by a power cut fails it, and the other one counts.
 */
#include "kv/meta.h"

#include "kv/page.h"

#define META_MAGIC 0xed0cdaedU
#define META_VERSION 2U
#define META_CHECKED 56U /* bytes under the checksum */

static uint64_t meta_checksum(const uint8_t *meta)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < META_CHECKED; i++)
        hash = (hash ^ meta[i]) * UINT64_C(0x100000001b3);
    return hash;
}

int lp_meta_decode(struct lp_meta *meta, const uint8_t *page, struct lp_error *err)
{
    const uint8_t *at = page + LP_PAGE_HEADER;
    uint32_t page_size = lp_load32(at + 8);

    if (lp_load32(at) != META_MAGIC)
        return lp_fail(err, LP_KV_EINVALID, "the meta page has another magic number");
    if (lp_load32(at + 4) != META_VERSION)
        return lp_fail(err, LP_KV_EVERSION, "the format's version is %u, not %u", lp_load32(at + 4),
                       META_VERSION);
    if (lp_load64(at + 56) != meta_checksum(at))
        return lp_fail(err, LP_KV_ECHECKSUM, "the meta page's checksum is wrong");
    if (page_size < LP_PAGE_SIZE_MIN || page_size > LP_PAGE_SIZE_MAX)
        return lp_fail(err, LP_KV_EINVALID, "the meta page gives a page size of %u", page_size);
    meta->page_size = page_size;
    meta->flags = lp_load32(at + 12);
    meta->root = lp_load64(at + 16);
    meta->sequence = lp_load64(at + 24);
    meta->freelist = lp_load64(at + 32);
    meta->pages = lp_load64(at + 40);
    meta->txid = lp_load64(at + 48);
    if (meta->root >= meta->pages)
        return lp_fail(err, LP_KV_EINVALID, "the meta page's root is past the last page");
    if (meta->freelist >= meta->pages && meta->freelist != LP_META_NO_FREELIST)
        return lp_fail(err, LP_KV_EINVALID, "the meta page's freelist is past the last page");
    return LP_OK;
}

void lp_meta_encode(const struct lp_meta *meta, uint8_t *page, uint64_t page_id)
{
    uint8_t *at = page + LP_PAGE_HEADER;

    lp_page_header(page, page_id, LP_PAGE_META, 0, 0);
    lp_store32(at, META_MAGIC);
    lp_store32(at + 4, META_VERSION);
    lp_store32(at + 8, meta->page_size);
    lp_store32(at + 12, meta->flags);
    lp_store64(at + 16, meta->root);
    lp_store64(at + 24, meta->sequence);
    lp_store64(at + 32, meta->freelist);
    lp_store64(at + 40, meta->pages);
    lp_store64(at + 48, meta->txid);
    lp_store64(at + 56, meta_checksum(at));
}
