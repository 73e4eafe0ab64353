/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commit: from a transaction's nodes to a durable tree.
 *
 *   LAYOUT   every changed bucket, children first, gets its final shape; what
 *            it leaves is in `freed`, what it needs is counted
 *   PLACE    one free run for all of it, or, where there is none, the end of
 *            the file, or single runs; pages are written as they are placed
 *   SYNC     fdatasync: everything the new meta will reach is durable
 *   META     one write of page txid % 2
 *   SYNC     fdatasync: the commit is durable
 *   PUBLISH  the next reader sees it
 *
 * Invariants
 *  1. Until META nothing that any reader or the last durable meta reaches was
 *     written: only pages out of `free`, or past the high-water mark.
 *  2. A failure before META leaves file and freelist as they were; what was
 *     taken goes back, the database stays usable.
 *  3. After a failed sync, or a failed write of the meta, nothing is known of
 *     what is durable.  The handle refuses writes from then on, so that no page
 *     of either candidate is ever overwritten by it, and never tries the sync
 *     again.
 *  4. The freelist that is written holds every page below the high-water mark
 *     that the new tree does not reach: free, pending and freed now.
 */
#include "kv/commit.h"

#include "base/cleanup.h"
#include "kv/bucket.h"
#include "kv/check.h"
#include "kv/layout.h"

#include <stdlib.h>

#define COMMIT_BUFFER ((uint64_t)1 << 20) /* bytes gathered for one write */
#define COMMIT_GROW_MIN ((uint64_t)64 << 10)
#define COMMIT_GROW_MAX ((uint64_t)4 << 20)
/* How many free pages are left lying for the sake of one run: half of the file,
 * but for a commit of few pages not more than a freelist of a few pages names,
 * which it has to write each time. */
#define COMMIT_PATIENCE 2U
#define COMMIT_PATIENCE_MOST 4000U
#define COMMIT_MANY 16U
/* So many pages go into the tightest holes, where one hole takes the rest. */
#define COMMIT_SINGLES 3U
#define COMMIT_FRAGMENTS 480U

struct commit {
    struct lp_tx *tx;
    struct lp_meta meta; /* of the new commit */
    uint64_t need;       /* pages still to be placed */
    bool backward;       /* one run, filled from its end: see commit_plan() */

    uint64_t run;      /* the current run: first page not placed yet */
    uint64_t run_left; /* its pages */
    uint64_t reserved; /* in pieces: the freelist's first page, or 0 */

    uint8_t *buffer; /* pages placed but not written */
    size_t room;
    size_t used;
    uint64_t first; /* page number of the buffer's start */
    uint64_t runs_written;
    uint64_t syncs;
};

/* --- the freelist --------------------------------------------------------- */

/* Loads the freelist on the first commit since it was opened, or since another
 * process committed. */
static int commit_load_freelist(struct lp_tx *tx, struct lp_error *err)
{
    struct lp_freelist *list = &tx->db->freelist;
    struct lp_extents ids = {0};
    const char *reason = NULL;
    int rc;

    if (tx->db->freelist_loaded)
        return LP_OK;
    if (tx->meta.freelist == LP_META_NO_FREELIST) {
        rc = lp_check_find_free(tx, &ids, err);
    } else {
        const uint8_t *data;
        size_t size;

        rc = lp_tx_run(tx, tx->meta.freelist, &data, &size, err);
        if (rc == LP_OK)
            reason = lp_load64(data) != tx->meta.freelist
                         ? "the page names another page number"
                         : lp_freelist_parse(data, size, tx->meta.pages, &ids, err);
        if (reason != NULL)
            rc = lp_tx_corrupt(tx, tx->meta.freelist, reason, err);
    }
    if (rc != LP_OK) {
        lp_extents_free(&ids);
        return rc;
    }
    lp_freelist_clear(list);
    list->free = ids;
    list->free_pages = lp_extents_pages(&ids);
    tx->db->freelist_loaded = true;
    return LP_OK;
}

/* What no open reader can see becomes free. */
static int commit_release(struct lp_tx *tx, struct lp_error *err)
{
    struct lp_db *db = tx->db;
    uint64_t oldest;

    (void)pthread_mutex_lock(&db->mutex);
    oldest = db->readers != NULL ? db->readers->meta.txid : UINT64_MAX;
    (void)pthread_mutex_unlock(&db->mutex);
    return lp_freelist_release(&db->freelist, oldest, err);
}

/* The old freelist's own pages are free after this commit. */
static int commit_free_freelist(struct lp_tx *tx, struct lp_error *err)
{
    const uint8_t *data;
    size_t size;
    int rc;

    if (tx->meta.freelist == LP_META_NO_FREELIST)
        return LP_OK;
    rc = lp_tx_run(tx, tx->meta.freelist, &data, &size, err);
    if (rc != LP_OK)
        return rc;
    return lp_extents_add(&tx->freed, tx->meta.freelist, size / tx->page_size, err);
}

/* --- placing and writing -------------------------------------------------- */

static int commit_flush(struct commit *commit, struct lp_error *err)
{
    struct lp_tx *tx = commit->tx;
    int rc;

    if (commit->used == 0)
        return LP_OK;
    rc = lp_file_write(&tx->db->file, "kv.write", commit->first * tx->page_size, commit->buffer,
                       commit->used, err);
    commit->used = 0;
    commit->runs_written++;
    return rc;
}

static bool commit_fits(const struct commit *commit, uint64_t pages)
{
    uint64_t limit = commit->tx->db->options.max_size;

    return limit == 0 || commit->meta.pages + pages <= limit / commit->tx->page_size;
}

/* Takes `pages` free pages in a row: 1, or 0 where there is no such run. */
static int commit_take(struct commit *commit, uint64_t pages, struct lp_error *err)
{
    struct lp_extents *taken = &commit->tx->taken;
    int rc = lp_extents_add(taken, 0, 0, err);

    if (rc != LP_OK)
        return rc;
    commit->run = lp_freelist_take(&commit->tx->db->freelist, pages);
    if (commit->run == 0) {
        taken->used--;
        return 0;
    }
    taken->at[taken->used - 1] = (struct lp_extent){commit->run, pages};
    commit->run_left = pages;
    return 1;
}

static int commit_append(struct commit *commit, uint64_t pages, struct lp_error *err)
{
    if (!commit_fits(commit, pages))
        return lp_fail(err, LP_KV_EMAXSIZE, "the database would grow past its maximum size");
    commit->run = commit->meta.pages;
    commit->run_left = pages;
    commit->meta.pages += pages;
    return LP_OK;
}

/* The freelist comes last, when no hole may be left that takes all of it. */
static int commit_reserve(struct commit *commit, uint64_t freelist_pages, struct lp_error *err)
{
    uint64_t largest = lp_freelist_largest(&commit->tx->db->freelist);
    int rc;

    if (freelist_pages < 2 || largest + COMMIT_SINGLES >= commit->need) /* it goes with the rest */
        return LP_OK;
    rc = commit_take(commit, freelist_pages, err);
    if (rc == 1) {
        commit->reserved = commit->run;
        commit->run_left = 0;
        commit->need -= freelist_pages;
    }
    return rc < 0 ? rc : LP_OK;
}

/* One run for everything, unless so much lies free in pieces that the file
 * had better not grow; then each node finds its own.
 *
 * A commit leaves a leaf here and there, and always the branches, the root and
 * the freelist of the commit before, which it placed last.  Were every run
 * filled in the same direction, each hole would be one leaf short of the next
 * commit.  So every other one is filled from its end: the pages that go soon
 * lie side by side, and the hole of two commits takes the third. */
static int commit_plan(struct commit *commit, uint64_t freelist_pages, struct lp_error *err)
{
    bool many = commit->need - freelist_pages > COMMIT_MANY;
    uint64_t patience = commit->meta.pages / COMMIT_PATIENCE;
    int rc = commit_take(commit, commit->need, err);

    if (rc < 0)
        return rc;
    if (rc == 0) {
        if (patience > COMMIT_PATIENCE_MOST && !many)
            patience = COMMIT_PATIENCE_MOST;
        if (patience < COMMIT_FRAGMENTS)
            patience = COMMIT_FRAGMENTS;
        if (commit->tx->db->freelist.free_pages > patience || !commit_fits(commit, commit->need))
            return commit_reserve(commit, freelist_pages, err);
        rc = commit_append(commit, commit->need, err);
        if (rc != LP_OK)
            return rc;
    }
    commit->backward =
        commit->meta.txid % 2 != 0 && commit->need * commit->tx->page_size <= commit->room;
    if (commit->backward) {
        commit->first = commit->run;
        commit->used = (size_t)(commit->need * commit->tx->page_size);
    }
    return LP_OK;
}

/* What is left of the current run goes back: the next node needs more. */
static int commit_give_back(struct commit *commit, struct lp_error *err)
{
    struct lp_extents *taken = &commit->tx->taken;
    struct lp_extent left = {commit->run, commit->run_left};
    struct lp_extents back = {.at = &left, .used = 1, .room = 1};
    int rc;

    if (commit->run_left == 0)
        return LP_OK;
    rc = lp_freelist_untake(&commit->tx->db->freelist, &back, err);
    if (rc != LP_OK)
        return rc;
    taken->at[taken->used - 1].count -= commit->run_left;
    commit->run_left = 0;
    return LP_OK;
}

/* In pieces.  Where a hole takes all but a few pages, these go into the
 * tightest ones: the next commit will free the rest together again, so two such
 * holes serve for ever, and single pages go where single pages were.  A commit
 * that needs more takes the largest holes there are. */
static int commit_find_piece(struct commit *commit, uint64_t pages, struct lp_error *err)
{
    uint64_t largest;
    int rc = commit_give_back(commit, err);

    if (rc == LP_OK)
        rc = commit_take(commit, commit->need, err);
    if (rc != 0)
        return rc < 0 ? rc : LP_OK;
    largest = lp_freelist_largest(&commit->tx->db->freelist);
    if (largest < pages)
        return commit_append(commit, pages, err);
    rc = commit_take(commit, largest + COMMIT_SINGLES < commit->need ? largest : pages, err);
    return rc < 0 ? rc : LP_OK;
}

/* Room in the buffer for `bytes` at page commit->run. */
static int commit_buffer(struct commit *commit, size_t bytes, struct lp_error *err)
{
    uint8_t *buffer;

    if (commit->first + commit->used / commit->tx->page_size != commit->run ||
        commit->used + bytes > commit->room) {
        int rc = commit_flush(commit, err);

        if (rc != LP_OK)
            return rc;
    }
    if (bytes > commit->room) {
        buffer = realloc(commit->buffer, bytes);
        if (buffer == NULL)
            return lp_fail(err, LP_ENOMEM, "no memory for a page of %zu bytes", bytes);
        commit->buffer = buffer;
        commit->room = bytes;
    }
    if (commit->used == 0)
        commit->first = commit->run;
    return LP_OK;
}

/* Places `pages` pages: their number, and memory to fill them in. */
static int commit_place(struct commit *commit, uint64_t pages, uint64_t *id, uint8_t **data,
                        struct lp_error *err)
{
    size_t bytes = (size_t)(pages * commit->tx->page_size);
    int rc = LP_OK;

    if (commit->backward) {
        commit->run_left -= pages;
        *id = commit->run + commit->run_left;
        *data = commit->buffer + commit->run_left * commit->tx->page_size;
        return LP_OK;
    }
    if (commit->run_left < pages)
        rc = commit_find_piece(commit, pages, err);
    if (rc == LP_OK)
        rc = commit_buffer(commit, bytes, err);
    if (rc != LP_OK)
        return rc;
    *id = commit->run;
    *data = commit->buffer + commit->used;
    commit->used += bytes;
    commit->run += pages;
    commit->run_left -= pages;
    commit->need -= pages;
    return LP_OK;
}

/* Children before their parent, which names their pages. */
static int commit_write_node(struct commit *commit, struct lp_node *node, struct lp_error *err)
{
    uint64_t bytes = lp_node_bytes(node);
    uint64_t room = node->run * commit->tx->page_size;
    uint8_t *data;
    int rc;

    for (uint32_t i = 0; !node->leaf && i < node->count; i++) {
        struct lp_inode *inode = &node->inodes[i];

        if (inode->child == NULL)
            continue;
        rc = commit_write_node(commit, inode->child, err);
        if (rc != LP_OK)
            return rc;
        inode->page = inode->child->new_page;
    }
    rc = commit_place(commit, node->run, &node->new_page, &data, err);
    if (rc != LP_OK)
        return rc;
    lp_node_write(node, data, node->new_page, node->run - 1);
    memset(data + bytes, 0, (size_t)(room - bytes));
    return LP_OK;
}

static bool commit_has_tree(const struct lp_bucket *bucket)
{
    return bucket->tree.node != NULL && !bucket->dropped &&
           (bucket->parent == NULL || bucket->header != NULL);
}

static int commit_write_buckets(struct commit *commit, struct lp_error *err)
{
    for (struct lp_bucket *bucket = commit->tx->buckets; bucket != NULL; bucket = bucket->next) {
        int rc;

        if (!commit_has_tree(bucket))
            continue;
        rc = commit_write_node(commit, bucket->tree.node, err);
        if (rc != LP_OK)
            return rc;
        if (bucket->parent != NULL) {
            lp_store64(bucket->header, bucket->tree.node->new_page);
        } else {
            commit->meta.root = bucket->tree.node->new_page;
            commit->meta.sequence = bucket->sequence;
        }
    }
    return LP_OK;
}

/* After everything else is placed: only now it is known what is left. */
static int commit_write_freelist(struct commit *commit, uint64_t pages, struct lp_error *err)
{
    struct lp_tx *tx = commit->tx;
    struct lp_extents all = {0};
    uint8_t *data;
    int rc;

    if (commit->reserved != 0) {
        commit->run = commit->reserved;
        commit->run_left = pages;
        commit->need += pages;
    }
    rc = commit_place(commit, pages, &commit->meta.freelist, &data, err);
    if (rc == LP_OK)
        rc = lp_freelist_gather(&tx->db->freelist, &tx->freed, &all, &tx->fault, err);
    if (rc == LP_OK) {
        uint64_t count = lp_extents_pages(&all);
        uint64_t bytes = lp_freelist_bytes(count);

        lp_freelist_write(&all, count, data, commit->meta.freelist, pages - 1);
        memset(data + bytes, 0, (size_t)(pages * tx->page_size - bytes));
    }
    lp_extents_free(&all);
    return rc;
}

/* The file grew: write zeros ahead of the next commits, whose syncs then need not
 * wait for the file system's journal too.  A full disk there is no failure, the
 * commit has what it needs. */
static int commit_grow(struct commit *commit, struct lp_error *err)
{
    struct lp_db *db = commit->tx->db;
    uint64_t end = commit->meta.pages * commit->tx->page_size;
    uint64_t ahead = end / 8;
    struct lp_error fault;
    int rc;

    if (end <= commit->tx->file_size || !db->options.sync)
        return LP_OK;
    if (ahead < COMMIT_GROW_MIN)
        ahead = COMMIT_GROW_MIN;
    if (ahead > COMMIT_GROW_MAX)
        ahead = COMMIT_GROW_MAX;
    ahead = lp_pages_for(ahead, commit->tx->page_size) * commit->tx->page_size;
    if (db->options.max_size != 0 && end + ahead > db->options.max_size)
        ahead = 0;
    rc = lp_file_zero(&db->file, end, end + ahead, &fault);
    if (rc == LP_ESYSTEM && fault.sys_errno != ENOSPC && fault.sys_errno != EDQUOT &&
        fault.sys_errno != EFBIG) {
        errno = fault.sys_errno;
        return lp_fail_errno(err, "cannot grow the file");
    }
    return LP_OK;
}

/* --- the three durable steps ---------------------------------------------- */

static void commit_refuse(struct lp_db *db)
{
    (void)pthread_mutex_lock(&db->mutex);
    db->refused = true;
    (void)pthread_mutex_unlock(&db->mutex);
}

static int commit_sync(struct commit *commit, const char *point, struct lp_error *err)
{
    const struct lp_db *db = commit->tx->db;

    if (!db->options.sync)
        return LP_OK;
    commit->syncs++;
    return lp_file_sync(&db->file, point, err);
}

static int commit_write_meta(struct commit *commit, struct lp_error *err)
{
    struct lp_tx *tx = commit->tx;
    struct lp_db *db = tx->db;
    uint64_t slot = commit->meta.txid % 2;
    LP_FREE uint8_t *page = calloc(1, (size_t)tx->page_size);
    struct lp_error fault;
    int rc;

    if (page == NULL)
        return lp_fail(err, LP_ENOMEM, "no memory for the meta page");
    rc = commit_sync(commit, "kv.sync", err);
    if (rc != LP_OK) {
        commit_refuse(db);
        return rc;
    }
    lp_meta_encode(&commit->meta, page, slot);
    rc = lp_file_write(&db->file, "kv.meta", slot * tx->page_size, page, (size_t)tx->page_size,
                       &fault);
    if (rc == LP_OK)
        rc = commit_sync(commit, "kv.meta_sync", &fault);
    if (rc != LP_OK) {
        commit_refuse(db);
        if (err != NULL)
            err->sys_errno = fault.sys_errno;
        rc = lp_fail(err, LP_KV_EINDOUBT, "commit %llu may or may not be durable: %s",
                     (unsigned long long)commit->meta.txid, fault.message);
        if (err != NULL)
            err->sys_errno = fault.sys_errno;
        return rc;
    }
    memcpy(db->meta_bytes[slot], page + LP_PAGE_HEADER, LP_META_SIZE);
    return LP_OK;
}

static void commit_publish(struct commit *commit, uint64_t pages)
{
    struct lp_tx *tx = commit->tx;
    struct lp_db *db = tx->db;
    uint64_t end = commit->meta.pages * tx->page_size;

    lp_freelist_defer(&db->freelist, commit->meta.txid, &tx->freed);
    (void)pthread_mutex_lock(&db->mutex);
    db->meta = commit->meta;
    if (db->file_size < end)
        db->file_size = end;
    db->stats.commits++;
    db->stats.pages_written += pages + 1;
    db->stats.runs_written += commit->runs_written;
    db->stats.syncs += commit->syncs;
    db->stats.free_pages = db->freelist.free_pages;
    db->stats.pending_pages = db->freelist.pending_pages;
    db->stats.freelist_loaded = true;
    (void)pthread_mutex_unlock(&db->mutex);
}

/* --- all of it ------------------------------------------------------------ */

/* LAYOUT: what must be placed, and what becomes free. */
static int commit_layout(struct commit *commit, uint64_t *freelist_pages, struct lp_error *err)
{
    struct lp_tx *tx = commit->tx;
    const struct lp_freelist *list = &tx->db->freelist;
    uint64_t ids;
    int rc = LP_OK;

    for (struct lp_bucket *bucket = tx->buckets; rc == LP_OK && bucket != NULL;
         bucket = bucket->next) {
        if (bucket->tree.node != NULL && !bucket->dropped)
            rc = lp_layout(bucket, &commit->need, err);
    }
    if (rc == LP_OK)
        rc = commit_load_freelist(tx, err);
    if (rc == LP_OK)
        rc = commit_release(tx, err);
    if (rc == LP_OK)
        rc = commit_free_freelist(tx, err);
    if (rc == LP_OK)
        rc = lp_extents_normalize(&tx->freed, &tx->fault, err);
    if (rc == LP_OK)
        rc = lp_freelist_reserve(&tx->db->freelist, err);
    if (rc == LP_OK) /* a freelist that names used pages is found before anything is written */
        rc = lp_extents_apart(&list->free, &tx->freed, &tx->fault, err);
    ids = list->free_pages + list->pending_pages + lp_extents_pages(&tx->freed);
    *freelist_pages = tx->db->options.freelist_in_memory
                          ? 0
                          : lp_pages_for(lp_freelist_bytes(ids), tx->page_size);
    commit->need += *freelist_pages;
    return rc;
}

static int commit_place_all(struct commit *commit, uint64_t freelist_pages, struct lp_error *err)
{
    uint64_t bytes = commit->need * commit->tx->page_size;
    int rc;

    commit->room = (size_t)(bytes < COMMIT_BUFFER ? bytes : COMMIT_BUFFER);
    commit->buffer = malloc(commit->room);
    if (commit->buffer == NULL)
        return lp_fail(err, LP_ENOMEM, "no memory for the pages of a commit");
    rc = commit_plan(commit, freelist_pages, err);
    if (rc == LP_OK)
        rc = commit_write_buckets(commit, err);
    if (rc == LP_OK && freelist_pages == 0)
        commit->meta.freelist = LP_META_NO_FREELIST;
    else if (rc == LP_OK)
        rc = commit_write_freelist(commit, freelist_pages, err);
    if (rc == LP_OK)
        rc = commit_flush(commit, err);
    return rc == LP_OK ? commit_grow(commit, err) : rc;
}

/* Invariant 2.  Where even this fails the handle cannot know what is free. */
static void commit_undo(struct lp_tx *tx)
{
    if (lp_freelist_untake(&tx->db->freelist, &tx->taken, NULL) != LP_OK)
        commit_refuse(tx->db);
}

static bool commit_changed(const struct lp_tx *tx)
{
    for (const struct lp_bucket *bucket = tx->buckets; bucket != NULL; bucket = bucket->next) {
        if (bucket->tree.node != NULL)
            return true;
    }
    return false;
}

int lp_commit(struct lp_tx *tx, struct lp_error *err)
{
    struct commit commit = {.tx = tx, .meta = tx->meta};
    uint64_t freelist_pages;
    uint64_t pages;
    int rc;

    if (!commit_changed(tx))
        return LP_OK;
    rc = commit_layout(&commit, &freelist_pages, err);
    pages = commit.need;
    if (rc == LP_OK)
        rc = commit_place_all(&commit, freelist_pages, err);
    free(commit.buffer);
    if (rc == LP_OK)
        rc = commit_write_meta(&commit, err);
    if (rc == LP_OK)
        commit_publish(&commit, pages);
    else if (rc != LP_KV_EINDOUBT)
        commit_undo(tx);
    return rc;
}
