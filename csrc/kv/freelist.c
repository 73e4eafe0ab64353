/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Free space as extents, not page numbers: a commit asks once for one run, so
 * the tightest fit is one pass over the array, and a file with a long freelist
 * costs 16 bytes a hole.
 *
 * Invariants
 *  1. `free` is ascending; between two extents lies at least one used page.
 *  2. No page is in `free` and in `pending`, or in two pendings.  Whoever adds
 *     pages checks it: a file whose freelist lies is found before it is
 *     written, not after.
 *  3. A page leaves `free` only by take, and comes back only by untake (the
 *     same transaction, which did not use it or was rolled back) or through
 *     `pending`.
 */
#include "kv/freelist.h"

#include "base/cleanup.h"
#include "kv/page.h"

#include <stdlib.h>

static int extents_reserve(struct lp_extents *extents, size_t count, struct lp_error *err)
{
    size_t room = extents->room == 0 ? 16 : extents->room * 2;
    struct lp_extent *at;

    if (count <= extents->room)
        return LP_OK;
    if (room < count)
        room = count;
    at = reallocarray(extents->at, room, sizeof *at);
    if (at == NULL)
        return lp_fail(err, LP_ENOMEM, "no memory for %zu free extents", room);
    extents->at = at;
    extents->room = room;
    return LP_OK;
}

int lp_extents_add(struct lp_extents *extents, uint64_t start, uint64_t count, struct lp_error *err)
{
    int rc = extents_reserve(extents, extents->used + 1, err);

    if (rc == LP_OK)
        extents->at[extents->used++] = (struct lp_extent){start, count};
    return rc;
}

void lp_extents_free(struct lp_extents *extents)
{
    free(extents->at);
    *extents = (struct lp_extents){0};
}

uint64_t lp_extents_pages(const struct lp_extents *extents)
{
    uint64_t pages = 0;

    for (size_t i = 0; i < extents->used; i++)
        pages += extents->at[i].count;
    return pages;
}

static int extent_order(const void *a, const void *b)
{
    const struct lp_extent *x = a;
    const struct lp_extent *y = b;

    return (x->start > y->start) - (x->start < y->start);
}

static int extents_twice(uint64_t page, uint64_t *fault, struct lp_error *err)
{
    *fault = page;
    return lp_fail(err, LP_KV_ECORRUPT, "the page is free twice");
}

/* Appends to an ascending array with room, joining neighbours. */
static void extents_append(struct lp_extents *into, struct lp_extent extent)
{
    struct lp_extent *last = into->used > 0 ? &into->at[into->used - 1] : NULL;

    if (last != NULL && last->start + last->count == extent.start)
        last->count += extent.count;
    else
        into->at[into->used++] = extent;
}

int lp_extents_normalize(struct lp_extents *extents, uint64_t *fault, struct lp_error *err)
{
    size_t used = extents->used;

    if (used > 1)
        qsort(extents->at, used, sizeof *extents->at, extent_order);
    for (size_t i = 1; i < used; i++) {
        if (extents->at[i - 1].start + extents->at[i - 1].count > extents->at[i].start)
            return extents_twice(extents->at[i].start, fault, err);
    }
    extents->used = 0;
    for (size_t i = 0; i < used; i++)
        extents_append(extents, extents->at[i]);
    return LP_OK;
}

/* The first extent in [from, used) that begins at `page` or later. */
static size_t extents_find(const struct lp_extents *extents, size_t from, uint64_t page)
{
    size_t to = extents->used;

    while (from < to) {
        size_t middle = from + (to - from) / 2;

        if (extents->at[middle].start < page)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

int lp_extents_apart(const struct lp_extents *extents, const struct lp_extents *more,
                     uint64_t *fault, struct lp_error *err)
{
    size_t at = 0;

    for (size_t i = 0; i < more->used; i++) {
        struct lp_extent extent = more->at[i];

        at = extents_find(extents, at, extent.start);
        if (at > 0 && extents->at[at - 1].start + extents->at[at - 1].count > extent.start)
            return extents_twice(extent.start, fault, err);
        if (at < extents->used && extents->at[at].start < extent.start + extent.count)
            return extents_twice(extents->at[at].start, fault, err);
    }
    return LP_OK;
}

/* In place, and in blocks: mostly a few extents go into many.  What is there
 * moves to the end of the array and from there back between the new ones. */
int lp_extents_merge(struct lp_extents *into, const struct lp_extents *more, uint64_t *fault,
                     struct lp_error *err)
{
    size_t end = into->used + more->used;
    struct lp_extents rest;
    size_t next = 0;
    int rc = lp_extents_apart(into, more, fault, err);

    if (rc == LP_OK)
        rc = extents_reserve(into, end, err);
    if (rc != LP_OK || more->used == 0)
        return rc;
    rest = (struct lp_extents){.at = into->at + more->used, .used = into->used};
    memmove(rest.at, into->at, rest.used * sizeof *rest.at);
    into->used = 0;
    for (size_t i = 0; i <= more->used; i++) {
        size_t until = i < more->used ? extents_find(&rest, next, more->at[i].start) : rest.used;

        if (next < until) { /* only the first of a block can touch what is before it */
            extents_append(into, rest.at[next++]);
            memmove(into->at + into->used, rest.at + next, (until - next) * sizeof *rest.at);
            into->used += until - next;
            next = until;
        }
        if (i < more->used)
            extents_append(into, more->at[i]);
    }
    return LP_OK;
}

void lp_freelist_clear(struct lp_freelist *list)
{
    lp_extents_free(&list->free);
    for (size_t i = 0; i < list->pending_used; i++)
        lp_extents_free(&list->pending[i].pages);
    free(list->pending);
    *list = (struct lp_freelist){0};
}

const char *lp_freelist_parse(const uint8_t *data, size_t size, uint64_t pages,
                              struct lp_extents *ids, struct lp_error *err)
{
    uint64_t count = lp_load16(data + 10);
    size_t at = LP_PAGE_HEADER;
    uint64_t fault;

    if (lp_page_flags(data) != LP_PAGE_FREELIST)
        return "not a freelist page";
    if (count == 0xffff) {
        if (size < LP_PAGE_HEADER + 8)
            return "the freelist is cut short";
        count = lp_load64(data + at);
        at += 8;
    }
    if (count > (size - at) / 8)
        return "the freelist has more pages than fit into it";
    for (uint64_t i = 0; i < count; i++, at += 8) {
        uint64_t id = lp_load64(data + at);
        struct lp_extent *last = ids->used > 0 ? &ids->at[ids->used - 1] : NULL;

        if (id < 2 || id >= pages)
            return "the freelist names a page that cannot be free";
        if (last != NULL && last->start + last->count == id)
            last->count++;
        else if (lp_extents_add(ids, id, 1, err) != LP_OK)
            return "no memory for the freelist";
    }
    if (lp_extents_normalize(ids, &fault, err) != LP_OK)
        return "the freelist names a page twice";
    return NULL;
}

uint64_t lp_freelist_take(struct lp_freelist *list, uint64_t count)
{
    struct lp_extent *best = NULL;
    uint64_t start;

    for (size_t i = 0; i < list->free.used; i++) {
        struct lp_extent *extent = &list->free.at[i];

        if (extent->count >= count && (best == NULL || extent->count < best->count)) {
            best = extent;
            if (best->count == count)
                break;
        }
    }
    if (best == NULL)
        return 0;
    start = best->start;
    best->start += count;
    best->count -= count;
    if (best->count == 0) {
        size_t index = (size_t)(best - list->free.at);

        memmove(best, best + 1, (list->free.used - index - 1) * sizeof *best);
        list->free.used--;
    }
    list->free_pages -= count;
    return start;
}

uint64_t lp_freelist_largest(const struct lp_freelist *list)
{
    uint64_t largest = 0;

    for (size_t i = 0; i < list->free.used; i++) {
        if (list->free.at[i].count > largest)
            largest = list->free.at[i].count;
    }
    return largest;
}

int lp_freelist_untake(struct lp_freelist *list, struct lp_extents *taken, struct lp_error *err)
{
    uint64_t fault;
    int rc = lp_extents_normalize(taken, &fault, err);

    if (rc == LP_OK)
        rc = lp_extents_merge(&list->free, taken, &fault, err);
    if (rc == LP_OK)
        list->free_pages += lp_extents_pages(taken);
    return rc;
}

int lp_freelist_reserve(struct lp_freelist *list, struct lp_error *err)
{
    if (list->pending_used == list->pending_room) {
        size_t room = list->pending_room == 0 ? 8 : list->pending_room * 2;
        struct lp_pending *pending = reallocarray(list->pending, room, sizeof *pending);

        if (pending == NULL)
            return lp_fail(err, LP_ENOMEM, "no memory for the freed pages");
        list->pending = pending;
        list->pending_room = room;
    }
    return LP_OK;
}

void lp_freelist_defer(struct lp_freelist *list, uint64_t txid, struct lp_extents *pages)
{
    list->pending_pages += lp_extents_pages(pages);
    list->pending[list->pending_used++] = (struct lp_pending){txid, *pages};
    *pages = (struct lp_extents){0};
}

int lp_freelist_release(struct lp_freelist *list, uint64_t oldest, struct lp_error *err)
{
    size_t done = 0;
    uint64_t fault;
    int rc = LP_OK;

    while (rc == LP_OK && done < list->pending_used && list->pending[done].txid <= oldest) {
        struct lp_extents *pages = &list->pending[done].pages;

        rc = lp_extents_merge(&list->free, pages, &fault, err);
        if (rc == LP_OK) {
            list->free_pages += lp_extents_pages(pages);
            list->pending_pages -= lp_extents_pages(pages);
            lp_extents_free(pages);
            done++;
        }
    }
    if (done > 0) {
        list->pending_used -= done;
        memmove(list->pending, list->pending + done, list->pending_used * sizeof *list->pending);
    }
    return rc;
}

int lp_freelist_gather(const struct lp_freelist *list, const struct lp_extents *freed,
                       struct lp_extents *all, uint64_t *fault, struct lp_error *err)
{
    size_t most = list->free.used + freed->used;
    int rc;

    for (size_t i = 0; i < list->pending_used; i++)
        most += list->pending[i].pages.used;
    rc = extents_reserve(all, most, err);
    if (rc == LP_OK)
        rc = lp_extents_merge(all, &list->free, fault, err);
    for (size_t i = 0; rc == LP_OK && i < list->pending_used; i++)
        rc = lp_extents_merge(all, &list->pending[i].pages, fault, err);
    return rc == LP_OK ? lp_extents_merge(all, freed, fault, err) : rc;
}

uint64_t lp_freelist_bytes(uint64_t count)
{
    return LP_PAGE_HEADER + 8 * (count < 0xffff ? count : count + 1);
}

void lp_freelist_write(const struct lp_extents *all, uint64_t count, uint8_t *data, uint64_t id,
                       uint64_t overflow)
{
    uint8_t *at = data + LP_PAGE_HEADER;

    lp_page_header(data, id, LP_PAGE_FREELIST, count < 0xffff ? count : 0xffff, overflow);
    if (count >= 0xffff) {
        lp_store64(at, count);
        at += 8;
    }
    for (size_t i = 0; i < all->used; i++) {
        for (uint64_t k = 0; k < all->at[i].count; k++, at += 8)
            lp_store64(at, all->at[i].start + k);
    }
}
