/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The check: every page of the snapshot is reached once or free, never both,
 * never neither; keys ascend inside a page and stay within their parent's
 * bounds; inline buckets too.  It goes on after a fault, and it ends on any
 * file: a page is entered once, inline buckets are paid for by the byte.
 *
 * It looks at the snapshot's pages only, not at what a write transaction
 * changed since.
 */
#include "kv/check.h"

#include "base/cleanup.h"
#include "kv/page.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct check {
    struct lp_tx *tx;
    lp_check_report *report;
    void *context;
    bool lenient; /* a first key may be greater than the parent has it: a walk goes right */
    int faults;
    uint8_t *reached; /* a bit for each page of the file */
    uint8_t *freed;   /* the same, of the freelist */
    uint64_t bytes;   /* of inline buckets, still to be paid */
    uint64_t *roots;  /* trees still to be entered */
    size_t roots_used;
    size_t roots_room;
    struct lp_slice *inlined; /* inline buckets of the leaf at hand */
    size_t inlined_used;
    size_t inlined_room;
};

static bool bit_test(const uint8_t *bits, uint64_t i)
{
    return (bits[i / 8] & (1U << (i % 8))) != 0;
}

static void bit_set(uint8_t *bits, uint64_t i)
{
    bits[i / 8] = (uint8_t)(bits[i / 8] | (1U << (i % 8)));
}

static void check_fault(struct check *check, uint64_t page, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void check_fault(struct check *check, uint64_t page, const char *format, ...)
{
    char text[256];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    check->faults++;
    check->report(check->context, page, text);
}

static int check_add_root(struct check *check, uint64_t root, struct lp_error *err)
{
    if (check->roots_used == check->roots_room) {
        size_t room = check->roots_room == 0 ? 64 : check->roots_room * 2;
        uint64_t *roots = reallocarray(check->roots, room, sizeof *roots);

        if (roots == NULL)
            return lp_fail(err, LP_ENOMEM, "no memory for %zu buckets", room);
        check->roots = roots;
        check->roots_room = room;
    }
    check->roots[check->roots_used++] = root;
    return LP_OK;
}

static int check_add_inline(struct check *check, struct lp_slice page, struct lp_error *err)
{
    if (check->inlined_used == check->inlined_room) {
        size_t room = check->inlined_room == 0 ? 64 : check->inlined_room * 2;
        struct lp_slice *inlined = reallocarray(check->inlined, room, sizeof *inlined);

        if (inlined == NULL)
            return lp_fail(err, LP_ENOMEM, "no memory for %zu inline buckets", room);
        check->inlined = inlined;
        check->inlined_room = room;
    }
    check->inlined[check->inlined_used++] = page;
    return LP_OK;
}

/* A bucket's header in a leaf: a tree, or an inline page. */
static int check_bucket(struct check *check, uint64_t page, struct lp_slice value,
                        struct lp_error *err)
{
    uint64_t root;

    if (value.size < LP_BUCKET_HEADER) {
        check_fault(check, page, "a bucket's header is cut short");
        return LP_OK;
    }
    root = lp_load64(value.data);
    if (root != 0)
        return check_add_root(check, root, err);
    if (value.size > check->bytes) {
        check_fault(check, page, "inline buckets overlap");
        return LP_OK;
    }
    check->bytes -= value.size;
    return check_add_inline(
        check, (struct lp_slice){value.data + LP_BUCKET_HEADER, value.size - LP_BUCKET_HEADER},
        err);
}

/* Order and bounds of a page's keys; false where an element cannot be read. */
static bool check_keys(struct check *check, const struct lp_page *page, uint64_t id,
                       const struct lp_slice *low, const struct lp_slice *high)
{
    struct lp_slice previous = {0};

    for (uint32_t i = 0; i < page->count; i++) {
        struct lp_slice key;

        if (!lp_page_key(page, i, &key)) {
            check_fault(check, id, "element %u points out of its page", i);
            return false;
        }
        if (i == 0 && low != NULL && lp_key_compare(key, *low) < 0)
            check_fault(check, id, "the first key is less than its parent's key for the page");
        if (i == 0 && low != NULL && !check->lenient && lp_key_compare(key, *low) > 0)
            check_fault(check, id, "the first key is not its parent's key for the page");
        if (i > 0 && lp_key_compare(previous, key) >= 0)
            check_fault(check, id, "keys %u and %u are not in order", i - 1, i);
        if (high != NULL && lp_key_compare(key, *high) >= 0)
            check_fault(check, id, "key %u is not less than its parent's next key", i);
        previous = key;
    }
    return true;
}

static int check_leaf(struct check *check, const struct lp_page *page, uint64_t id,
                      struct lp_error *err)
{
    int rc = LP_OK;

    for (uint32_t i = 0; rc == LP_OK && i < page->count; i++) {
        struct lp_item item;

        if (!lp_page_item(page, i, &item)) {
            check_fault(check, id, "element %u points out of its page", i);
            return LP_OK;
        }
        if (item.is_bucket)
            rc = check_bucket(check, id, item.value, err);
    }
    return rc;
}

/* The inline buckets of the leaf at hand, and those inside them. */
static int check_inlined(struct check *check, uint64_t id, struct lp_error *err)
{
    int rc = LP_OK;

    while (rc == LP_OK && check->inlined_used > 0) {
        struct lp_slice slice = check->inlined[--check->inlined_used];
        struct lp_page page;
        const char *reason = lp_page_parse(&page, slice.data, slice.size, 0);

        if (reason == NULL && !page.leaf)
            reason = "is no leaf";
        if (reason != NULL)
            check_fault(check, id, "an inline bucket: %s", reason);
        else if (check_keys(check, &page, id, NULL, NULL))
            rc = check_leaf(check, &page, id, err);
    }
    return rc;
}

/* Marks the run as reached.  False where it was, or where it is free. */
static bool check_mark(struct check *check, uint64_t id, uint64_t pages)
{
    bool first = true;

    for (uint64_t i = id; i < id + pages; i++) {
        if (bit_test(check->reached, i)) {
            check_fault(check, i, "the page is referenced more than once");
            first = false;
        }
        if (bit_test(check->freed, i))
            check_fault(check, i, "the page is in use and in the freelist");
        bit_set(check->reached, i);
    }
    return first;
}

static int check_page(struct check *check, uint64_t id, const struct lp_slice *low,
                      const struct lp_slice *high, unsigned depth, struct lp_error *err)
{
    struct lp_tx *tx = check->tx;
    struct lp_error fault;
    struct lp_page page;
    int rc = lp_tx_page(tx, id, &page, &fault);

    if (rc == LP_KV_ECORRUPT) {
        check_fault(check, id, "%s", fault.message);
        if (id >= 2 && id < tx->meta.pages)
            bit_set(check->reached, id);
        return LP_OK;
    }
    if (rc != LP_OK)
        return lp_fail(err, rc, "%s", fault.message);
    if (!check_mark(check, id, page.size / tx->page_size))
        return LP_OK;
    if (!check_keys(check, &page, id, low, high))
        return LP_OK;
    if (page.leaf) {
        rc = check_leaf(check, &page, id, err);
        if (rc == LP_OK)
            rc = check_inlined(check, id, err);
    } else if (page.count == 0 || depth == LP_DEPTH_MAX) {
        check_fault(check, id,
                    page.count == 0 ? "a branch page without elements" : "the tree is too deep");
    }
    for (uint32_t i = 0; rc == LP_OK && !page.leaf && depth < LP_DEPTH_MAX && i < page.count; i++) {
        struct lp_slice key;
        struct lp_slice next;

        /* check_keys() read them; a file that changes meanwhile may differ */
        if (!lp_page_key(&page, i, &key) ||
            (i + 1 < page.count && !lp_page_key(&page, i + 1, &next)))
            break;
        rc = check_page(check, lp_page_child(&page, i), &key, i + 1 < page.count ? &next : high,
                        depth + 1, err);
    }
    lp_tx_forget(tx, id);
    return rc;
}

static int check_trees(struct check *check, struct lp_error *err)
{
    int rc = check_add_root(check, check->tx->meta.root, err);

    while (rc == LP_OK && check->roots_used > 0)
        rc = check_page(check, check->roots[--check->roots_used], NULL, NULL, 0, err);
    return rc;
}

static int check_freelist(struct check *check, struct lp_error *err)
{
    struct lp_tx *tx = check->tx;
    uint64_t id = tx->meta.freelist;
    struct lp_extents ids = {0};
    struct lp_error fault;
    const uint8_t *data;
    const char *reason;
    size_t size;
    int rc;

    if (id == LP_META_NO_FREELIST)
        return LP_OK;
    rc = lp_tx_run(tx, id, &data, &size, &fault);
    if (rc == LP_KV_ECORRUPT) {
        check_fault(check, id, "%s", fault.message);
        return LP_OK;
    }
    if (rc != LP_OK)
        return lp_fail(err, rc, "%s", fault.message);
    reason = lp_load64(data) != id ? "the page names another page number"
                                   : lp_freelist_parse(data, size, tx->meta.pages, &ids, &fault);
    if (reason != NULL)
        check_fault(check, id, "%s", reason);
    for (size_t i = 0; reason == NULL && i < ids.used; i++) {
        for (uint64_t k = 0; k < ids.at[i].count; k++)
            bit_set(check->freed, ids.at[i].start + k);
    }
    lp_extents_free(&ids);
    (void)check_mark(check, id, size / tx->page_size);
    lp_tx_forget(tx, id);
    return LP_OK;
}

static int check_begin(struct check *check, struct lp_error *err)
{
    size_t bytes = (size_t)(check->tx->meta.pages / 8 + 1);

    check->bytes = check->tx->meta.pages * check->tx->page_size;
    check->reached = calloc(1, bytes);
    check->freed = calloc(1, bytes);
    if (check->reached == NULL || check->freed == NULL)
        return lp_fail(err, LP_ENOMEM, "no memory for a map of %llu pages",
                       (unsigned long long)check->tx->meta.pages);
    return LP_OK;
}

static void check_end(struct check *check)
{
    free(check->reached);
    free(check->freed);
    free(check->roots);
    free(check->inlined);
}

int lp_check(struct lp_tx *tx, lp_check_report *report, void *context, struct lp_error *err)
{
    struct check check = {.tx = tx, .report = report, .context = context};
    int rc = check_begin(&check, err);

    if (rc == LP_OK)
        rc = check_freelist(&check, err);
    if (rc == LP_OK)
        rc = check_trees(&check, err);
    for (uint64_t i = 2;
         rc == LP_OK && tx->meta.freelist != LP_META_NO_FREELIST && i < tx->meta.pages; i++) {
        if (!bit_test(check.reached, i) && !bit_test(check.freed, i))
            check_fault(&check, i, "the page is neither in use nor in the freelist");
    }
    check_end(&check);
    return rc == LP_OK ? check.faults : rc;
}

/* --- the freelist that was not written ------------------------------------ */

struct first_fault {
    uint64_t page;
    char text[256];
    bool found;
};

static void check_keep_first(void *context, uint64_t page, const char *text)
{
    struct first_fault *first = context;

    if (first->found)
        return;
    first->found = true;
    first->page = page;
    (void)snprintf(first->text, sizeof first->text, "%s", text);
}

int lp_check_find_free(struct lp_tx *tx, struct lp_extents *free_pages, struct lp_error *err)
{
    struct first_fault first = {0};
    struct check check = {.tx = tx, .report = check_keep_first, .context = &first, .lenient = true};
    int rc = check_begin(&check, err);

    if (rc == LP_OK)
        rc = check_trees(&check, err);
    if (rc == LP_OK && first.found)
        rc = lp_tx_corrupt(tx, first.page, first.text, err);
    for (uint64_t i = 2; rc == LP_OK && i < tx->meta.pages; i++) {
        struct lp_extent *last =
            free_pages->used > 0 ? &free_pages->at[free_pages->used - 1] : NULL;

        if (bit_test(check.reached, i))
            continue;
        if (last != NULL && last->start + last->count == i)
            last->count++;
        else
            rc = lp_extents_add(free_pages, i, 1, err);
    }
    check_end(&check);
    return rc;
}
