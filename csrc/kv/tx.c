/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transactions: a snapshot's life.  What a transaction sees is fixed by its
 * copy of the meta (snapshot.c); a map that it uses stays until it ends.
 *
 *   begin(read)  -> open -> rollback                        the snapshot is let go
 *   begin(write) -> open -> commit: see commit.c            ended in every case
 *                        -> rollback                        nothing was written
 *
 * A write transaction writes nothing before its commit, so that a rollback has
 * nothing to undo in the file.
 */
#include "kv/tx.h"

#include "kv/bucket.h"
#include "kv/commit.h"
#include "kv/share.h"
#include "kv/snapshot.h"

#include <unistd.h>

/* With the mutex held. */
static void tx_join(struct lp_tx *tx)
{
    struct lp_db *db = tx->db;

    tx->meta = db->meta;
    tx->page_size = db->page_size;
    tx->file_size = db->file_size;
    tx->map = db->map;
    db->map_wanted = true; /* by the next one */
    if (tx->map != NULL) {
        tx->map->users++;
        tx->base = tx->map->base;
    }
    if (tx->writable) {
        tx->meta.txid++;
        return;
    }
    tx->previous = db->readers_last;
    if (tx->previous != NULL)
        tx->previous->next = tx;
    else
        db->readers = tx;
    db->readers_last = tx;
    db->reader_count++;
}

static void tx_leave(struct lp_tx *tx)
{
    struct lp_db *db = tx->db;

    if (!tx->writable) {
        *(tx->previous != NULL ? &tx->previous->next : &db->readers) = tx->next;
        *(tx->next != NULL ? &tx->next->previous : &db->readers_last) = tx->previous;
        db->reader_count--;
    }
    lp_map_release(tx->map);
}

/* Memory for a transaction, that of the last one where it is not in use.  With
 * the mutex held. */
static struct lp_tx *tx_new(struct lp_db *db)
{
    struct lp_tx *tx = db->spare;

    if (tx == NULL)
        return calloc(1, sizeof *tx);
    db->spare = NULL;
    memset(tx, 0, offsetof(struct lp_tx, kept));
    return tx;
}

void lp_tx_free(struct lp_tx *tx)
{
    if (tx == NULL)
        return;
    lp_buckets_forget(tx);
    free(tx);
}

int lp_tx_begin(struct lp_tx **out, struct lp_db *db, bool writable, struct lp_wait *wait,
                struct lp_error *err)
{
    int rc = lp_share_enter(db, writable, wait, err);
    struct lp_tx *tx;

    if (rc != LP_OK)
        return rc;
    tx = tx_new(db);
    if (tx != NULL) {
        tx->db = db;
        tx->writable = writable;
        tx->thread = pthread_self();
        tx->fault = LP_KV_NO_PAGE;
        tx_join(tx);
        *out = tx;
    } else {
        lp_share_leave(db, writable);
        rc = lp_fail(err, LP_ENOMEM, "no memory for a transaction");
    }
    (void)pthread_mutex_unlock(&db->mutex);
    return rc;
}

static void tx_end(struct lp_tx *tx)
{
    struct lp_db *db = tx->db;

    lp_buckets_free(tx);
    lp_tx_forget_all(tx);
    lp_pairs_end(&tx->pairs);
    lp_extents_free(&tx->freed);
    lp_extents_free(&tx->taken);
    if (!tx->writable || db->owner == getpid()) {
        (void)pthread_mutex_lock(&db->mutex);
        tx_leave(tx);
        lp_share_leave(db, tx->writable);
        if (db->spare == NULL) {
            db->spare = tx;
            tx = NULL;
        }
        (void)pthread_mutex_unlock(&db->mutex);
    }
    lp_tx_free(tx);
}

void lp_tx_rollback(struct lp_tx *tx)
{
    tx_end(tx);
}

int lp_tx_commit(struct lp_tx *tx, struct lp_error *err)
{
    int rc;

    if (!tx->writable)
        rc = lp_fail(err, LP_KV_ENOTWRITABLE, "a read transaction cannot be committed");
    else if (tx->db->owner != getpid())
        rc = lp_fail(err, LP_KV_EFORK, "the transaction belongs to process %d", tx->db->owner);
    else
        rc = lp_commit(tx, err);
    tx_end(tx);
    return rc;
}
