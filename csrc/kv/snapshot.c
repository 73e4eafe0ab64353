/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot's pages.  With a map they are where the map has them.  Without one
 * they come by pread() into a small cache that belongs to the transaction; where
 * a map is allowed it takes over after a few pages, and what was read by then
 * stays.
 */
#include "kv/snapshot.h"

#include "base/cleanup.h"

#define CACHE_LIMIT ((size_t)8 << 20) /* bytes of unpinned pages before they are dropped */
#define CACHE_MAP_AFTER 16U           /* pages read before a map is worth its making */

int lp_tx_corrupt(struct lp_tx *tx, uint64_t page, const char *reason, struct lp_error *err)
{
    tx->fault = page;
    return lp_fail(err, LP_KV_ECORRUPT, "%s", reason);
}

/* --- pages without a map -------------------------------------------------- */

static struct lp_cached *cache_slot(struct lp_cached *slots, size_t room, uint64_t id)
{
    size_t i = (size_t)((id * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & (room - 1);

    while (slots[i].data != NULL && slots[i].id != id)
        i = (i + 1) & (room - 1);
    return &slots[i];
}

/* Moves what is kept into a table of `room` slots. */
static int cache_rebuild(struct lp_cache *cache, size_t room, bool pinned_only,
                         struct lp_error *err)
{
    struct lp_cached *slots = calloc(room, sizeof *slots);

    if (slots == NULL)
        return lp_fail(err, LP_ENOMEM, "no memory for the page cache");
    cache->used = 0;
    cache->bytes = 0;
    for (size_t i = 0; i < cache->room; i++) {
        struct lp_cached *old = &cache->slots[i];

        if (old->data == NULL)
            continue;
        if (pinned_only && !old->pinned) {
            free(old->data);
            continue;
        }
        *cache_slot(slots, room, old->id) = *old;
        cache->used++;
        cache->bytes += old->pinned ? 0 : old->size;
    }
    free(cache->slots);
    cache->slots = slots;
    cache->room = room;
    return LP_OK;
}

void lp_tx_forget_all(struct lp_tx *tx)
{
    for (size_t i = 0; i < tx->cache.room; i++)
        free(tx->cache.slots[i].data);
    free(tx->cache.slots);
}

void lp_tx_trim(struct lp_tx *tx)
{
    if (tx->cache.bytes <= CACHE_LIMIT || tx->db->options.map)
        return;
    if (cache_rebuild(&tx->cache, tx->cache.room, true, NULL) == LP_OK)
        tx->cache.epoch++;
}

void lp_tx_pin(struct lp_tx *tx, uint64_t id)
{
    struct lp_cached *slot;

    if (tx->cache.room == 0)
        return;
    slot = cache_slot(tx->cache.slots, tx->cache.room, id);
    if (slot->data != NULL && !slot->pinned) {
        slot->pinned = true;
        tx->cache.bytes -= slot->size;
    }
}

void lp_tx_forget(struct lp_tx *tx, uint64_t id)
{
    struct lp_cache *cache = &tx->cache;
    struct lp_cached *slot;

    if (cache->room == 0 || tx->db->options.map)
        return;
    slot = cache_slot(cache->slots, cache->room, id);
    if (slot->data == NULL || slot->pinned)
        return;
    free(slot->data);
    slot->data = NULL;
    cache->used--;
    cache->bytes -= slot->size;
    cache->epoch++;
    for (size_t i = (size_t)(slot - cache->slots + 1) & (cache->room - 1);
         cache->slots[i].data != NULL; i = (i + 1) & (cache->room - 1)) {
        struct lp_cached moved = cache->slots[i];

        cache->slots[i].data = NULL;
        *cache_slot(cache->slots, cache->room, moved.id) = moved;
    }
}

/* From the cache to the map: 1, or 0 where it is too early. */
static int cache_map(struct lp_tx *tx, struct lp_error *err)
{
    struct lp_db *db = tx->db;
    int rc;

    if (!db->options.map || tx->cache.used < CACHE_MAP_AFTER)
        return 0;
    (void)pthread_mutex_lock(&db->mutex);
    db->map_wanted = true;
    rc = lp_db_map(db, err);
    if (rc == LP_OK) {
        tx->map = db->map;
        tx->map->users++;
    }
    (void)pthread_mutex_unlock(&db->mutex);
    if (rc != LP_OK)
        return rc;
    tx->base = tx->map->base;
    return 1;
}

int lp_tx_read_page(struct lp_tx *tx, uint64_t id, const uint8_t **data, size_t *size,
                    struct lp_error *err)
{
    struct lp_cache *cache = &tx->cache;
    const struct lp_file *file = &tx->db->file;
    struct lp_cached *slot;
    LP_FREE uint8_t *run = NULL;
    uint8_t header[LP_PAGE_HEADER];
    uint64_t overflow;
    int rc = cache_map(tx, err);

    if (rc == 1)
        return lp_tx_run(tx, id, data, size, err);
    if (rc == 0 && cache->used * 2 >= cache->room)
        rc = cache_rebuild(cache, cache->room == 0 ? 64 : cache->room * 2, false, err);
    if (rc != LP_OK)
        return rc;
    slot = cache_slot(cache->slots, cache->room, id);
    if (slot->data == NULL) {
        rc = lp_file_read(file, id * tx->page_size, header, sizeof header, err);
        if (rc != LP_OK)
            return rc;
        overflow = lp_page_overflow(header);
        if (overflow >= tx->meta.pages - id)
            return lp_tx_corrupt(tx, id, "the page's run goes past the last page", err);
        *size = (size_t)((overflow + 1) * tx->page_size);
        run = malloc(*size);
        if (run == NULL)
            return lp_fail(err, LP_ENOMEM, "no memory for a page of %zu bytes", *size);
        rc = lp_file_read(file, id * tx->page_size, run, *size, err);
        if (rc != LP_OK)
            return rc;
        *slot = (struct lp_cached){.id = id, .data = lp_steal_ptr(&run), .size = *size};
        cache->used++;
        cache->bytes += *size;
    }
    *data = slot->data;
    *size = slot->size;
    return LP_OK;
}

/* --- what it is ----------------------------------------------------------- */

uint64_t lp_tx_id(const struct lp_tx *tx)
{
    return tx->meta.txid;
}

uint64_t lp_tx_pages(const struct lp_tx *tx)
{
    return tx->meta.pages;
}

uint64_t lp_tx_page_size(const struct lp_tx *tx)
{
    return tx->page_size;
}

bool lp_tx_writable(const struct lp_tx *tx)
{
    return tx->writable;
}

uint64_t lp_tx_fault(const struct lp_tx *tx)
{
    return tx->fault;
}

int lp_tx_page_info(struct lp_tx *tx, uint64_t id, struct lp_page_info *info, struct lp_error *err)
{
    uint8_t header[LP_PAGE_HEADER];
    int rc = LP_OK;

    if (id >= tx->meta.pages)
        return lp_fail(err, LP_EINVALID, "the database has %llu pages",
                       (unsigned long long)tx->meta.pages);
    if (tx->base != NULL)
        memcpy(header, tx->base + id * tx->page_size, sizeof header);
    else
        rc = lp_file_read(&tx->db->file, id * tx->page_size, header, sizeof header, err);
    if (rc != LP_OK)
        return rc;
    info->id = lp_load64(header);
    info->count = lp_load16(header + 10);
    info->overflow = lp_page_overflow(header);
    switch (lp_page_flags(header)) {
    case LP_PAGE_BRANCH:
        info->type = "branch";
        break;
    case LP_PAGE_LEAF:
        info->type = "leaf";
        break;
    case LP_PAGE_META:
        info->type = "meta";
        break;
    case LP_PAGE_FREELIST:
        info->type = "freelist";
        break;
    default:
        info->type = "unknown";
    }
    return LP_OK;
}
