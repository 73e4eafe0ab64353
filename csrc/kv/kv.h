/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store: an embedded, memory-mapped key-value store in bbolt's file
 * format, version 2.  One file, one writer, many readers; a reader sees one
 * commit for its whole life.
 *
 * Ownership is a tree: database, transaction, bucket, cursor.  A transaction
 * owns its buckets and cursors and frees them when it ends; a database cannot
 * be closed while a transaction is open.  Memory that a call hands out (a key,
 * a value) belongs to the transaction and is valid until the transaction ends,
 * is written to, or, with `map` off, makes its next call.
 *
 * Threads: a database may be used from any thread.  A transaction and what it
 * owns may be used from any thread, by one at a time.
 *
 * What a caller must not do:
 *  - open one file twice in a process for writing: the two handles exclude one
 *    another by flock, and a thread can then wait for itself;
 *  - use a handle after fork(): writes and close refuse it with LP_KV_EFORK or
 *    leave the parent's lock alone; a read would wait for threads that are not
 *    there, and is left to the caller to refuse, because asking the kernel for
 *    the process's number costs as much as the read;
 *  - keep a read transaction for long: in lock mode "transaction" it blocks
 *    every writer of every process, in mode "session" it keeps freed pages from
 *    being used again;
 *  - let a stranger truncate the file under the lock: a mapped read then ends in
 *    SIGBUS.  With `map` off it is an error like any other.
 */
#ifndef LP_KV_KV_H
#define LP_KV_KV_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    LP_KV_EINVALID = -300,     /* neither meta page is one of this format */
    LP_KV_EVERSION = -301,     /* written by another version of the format */
    LP_KV_ECHECKSUM = -302,    /* both meta pages are damaged */
    LP_KV_ECORRUPT = -303,     /* a page contradicts the format; lp_tx_fault() has its number */
    LP_KV_EREPLACED = -304,    /* the file was removed, replaced or truncated since it was opened */
    LP_KV_EREADONLY = -305,    /* a write on a read-only database */
    LP_KV_ENOTWRITABLE = -306, /* a write in a read transaction */
    LP_KV_ENOBUCKET = -307,    /* no bucket has this name, or the bucket was deleted */
    LP_KV_EEXISTS = -308,      /* the bucket exists */
    LP_KV_ENAME = -309,        /* the bucket's name is empty */
    LP_KV_EKEY = -310,         /* the key is empty */
    LP_KV_EKEYSIZE = -311,     /* the key is longer than LP_KV_KEY_MAX */
    LP_KV_EVALUESIZE = -312,   /* the value is longer than LP_KV_VALUE_MAX */
    LP_KV_EINCOMPATIBLE = -313, /* a bucket where a pair was meant, or the reverse */
    LP_KV_EMAXSIZE = -314,      /* the commit would pass the maximum size */
    LP_KV_EINDOUBT = -315,      /* this commit may or may not be durable; writes are refused now */
    LP_KV_EREFUSED = -316,      /* writes are refused since a sync failed: open again */
    LP_KV_EDEADLOCK = -317,     /* this thread would wait for itself */
    LP_KV_EFORK = -318,         /* the handle belongs to the parent process */
    LP_KV_EBUSY = -319,         /* transactions are open */
    LP_KV_ESAMEFILE = -320,     /* a copy was asked onto the database itself */
};

#define LP_KV_KEY_MAX 32768U
#define LP_KV_VALUE_MAX 0x7ffffffeU
#define LP_KV_NO_PAGE UINT64_MAX
#define LP_KV_TRY 0

struct lp_db;
struct lp_tx;
struct lp_bucket;
struct lp_cursor;

struct lp_slice {
    const uint8_t *data;
    size_t size;
};

struct lp_item {
    struct lp_slice key;
    struct lp_slice value; /* of a bucket: its header, for the engine only */
    bool is_bucket;
};

enum lp_lock_mode {
    LP_LOCK_SESSION,     /* from open to close, as bbolt does */
    LP_LOCK_TRANSACTION, /* for each transaction */
};

/* All zero is the default of a private, durable, writable database, except
 * that `sync` and `map` are then off: see LP_DB_DEFAULTS. */
struct lp_db_options {
    enum lp_lock_mode lock;
    bool read_only;
    bool create;             /* make the file where there is none */
    bool sync;               /* make every commit durable before it returns */
    bool map;                /* read through a map, not by pread */
    bool freelist_in_memory; /* write no freelist; the next open rebuilds it */
    uint32_t page_size;      /* bytes, for a new file; 0 for the system's */
    mode_t mode;             /* permissions of a new file */
    uint64_t initial_map;    /* bytes to map at least */
    uint64_t max_size;       /* bytes the file may reach, 0 for no limit */
};

#define LP_DB_DEFAULTS                                                                             \
    {                                                                                              \
        .create = true, .sync = true, .map = true, .mode = 0600                                    \
    }

/* How long a call may wait, and who is asked in between.  `poll` (may be NULL)
 * is called now and then while the call waits, without any lock held; where it
 * returns non-zero the call ends with LP_EINTERRUPTED.  After LP_ETIMEOUT
 * `holder` is the pid that holds the file's lock, or 0. */
struct lp_wait {
    int64_t deadline; /* lp_now() scale, LP_FOREVER for none, LP_KV_TRY for no wait */
    int (*poll)(void *context);
    void *context;
    pid_t holder;
};

/* --- database ------------------------------------------------------------ */

/* Opens the file at `path` and, in mode session, takes its lock.  *db is set
 * on success only.  Reads two meta pages and maps; loads nothing else. */
int lp_db_open(struct lp_db **db, const char *path, const struct lp_db_options *options,
               struct lp_wait *wait, struct lp_error *err);

/* Releases everything; LP_KV_EBUSY while a transaction is open.  No other
 * thread may be inside a call on the database.  In a forked
 * child it closes the child's descriptor only: the lock is the parent's. */
int lp_db_close(struct lp_db *db, struct lp_error *err);

/* Which file it is, for whoever must not open one twice. */
void lp_db_identity(const struct lp_db *db, uint64_t *device, uint64_t *inode);

struct lp_db_stats {
    uint64_t page_size;
    uint64_t pages;      /* the high-water mark */
    uint64_t free_pages; /* usable now; valid where freelist_loaded */
    uint64_t pending_pages;
    uint64_t txid;
    uint64_t file_size;
    uint64_t readers; /* open read transactions of this handle */
    uint64_t commits; /* of this handle */
    uint64_t pages_written;
    uint64_t runs_written; /* contiguous runs: 1 a commit where space allows */
    uint64_t syncs;
    bool freelist_loaded;
    bool writes_refused;
};

void lp_db_stats(struct lp_db *db, struct lp_db_stats *stats);

/* --- transactions -------------------------------------------------------- */

int lp_tx_begin(struct lp_tx **tx, struct lp_db *db, bool writable, struct lp_wait *wait,
                struct lp_error *err);

/* Ends the transaction in every case.  0: durable (with `sync`).
 * LP_KV_EINDOUBT: a reader sees this commit or its predecessor.  Any other
 * code: rolled back. */
int lp_tx_commit(struct lp_tx *tx, struct lp_error *err);

/* Ends the transaction; nothing of it is kept. */
void lp_tx_rollback(struct lp_tx *tx);

uint64_t lp_tx_id(const struct lp_tx *tx);
uint64_t lp_tx_pages(const struct lp_tx *tx);
uint64_t lp_tx_page_size(const struct lp_tx *tx);
bool lp_tx_writable(const struct lp_tx *tx);

/* The page at fault after LP_KV_ECORRUPT, LP_KV_NO_PAGE where none is known. */
uint64_t lp_tx_fault(const struct lp_tx *tx);

/* What page `id` is by its own header; that of a free page is what it was. */
struct lp_page_info {
    uint64_t id;
    const char *type; /* "meta", "branch", "leaf", "freelist" or "unknown" */
    uint64_t count;
    uint64_t overflow;
};

int lp_tx_page_info(struct lp_tx *tx, uint64_t id, struct lp_page_info *info, struct lp_error *err);

/* The bucket of the buckets; belongs to the transaction, never released. */
struct lp_bucket *lp_tx_root(struct lp_tx *tx);

/* --- buckets ------------------------------------------------------------- */

/* Each opened bucket is released once, or with its transaction.
 *
 * As lp_bucket_open() in the root bucket; the bucket that the last transaction
 * opened is found without a search. */
int lp_tx_bucket(struct lp_bucket **out, struct lp_tx *tx, struct lp_slice name,
                 struct lp_error *err);
int lp_bucket_open(struct lp_bucket **out, struct lp_bucket *parent, struct lp_slice name,
                   struct lp_error *err);
int lp_bucket_create(struct lp_bucket **out, struct lp_bucket *parent, struct lp_slice name,
                     bool exist_ok, struct lp_error *err);
void lp_bucket_release(struct lp_bucket *bucket);

/* Deletes the bucket with all that is in it; open handles to it answer
 * LP_KV_ENOBUCKET from then on. */
int lp_bucket_drop(struct lp_bucket *parent, struct lp_slice name, struct lp_error *err);

/* 1 with *value set, 0 where there is no such pair (a bucket is not one). */
int lp_bucket_get(struct lp_bucket *bucket, struct lp_slice key, struct lp_slice *value,
                  struct lp_error *err);
int lp_bucket_put(struct lp_bucket *bucket, struct lp_slice key, struct lp_slice value,
                  struct lp_error *err);
/* 1 where the key was there, 0 where not. */
int lp_bucket_delete(struct lp_bucket *bucket, struct lp_slice key, struct lp_error *err);

int lp_bucket_sequence(struct lp_bucket *bucket, uint64_t *sequence, struct lp_error *err);
int lp_bucket_set_sequence(struct lp_bucket *bucket, uint64_t sequence, struct lp_error *err);

/* Elements whose key begins with `prefix` (all for an empty one), buckets
 * among them; *bytes (may be NULL) gets the sum of their keys and values. */
int lp_bucket_count(struct lp_bucket *bucket, struct lp_slice prefix, uint64_t *count,
                    uint64_t *bytes, struct lp_error *err);

struct lp_bucket_stats {
    uint64_t keys, buckets, inline_buckets, depth;
    uint64_t branch_pages, branch_overflow, leaf_pages, leaf_overflow;
    uint64_t branch_bytes, leaf_bytes, inline_bytes;
};

/* Of this bucket and all below it, as the last commit left them. */
int lp_bucket_stats(struct lp_bucket *bucket, struct lp_bucket_stats *stats, struct lp_error *err);

/* --- cursors ------------------------------------------------------------- */

/* A cursor stands before the first element until it is moved.  It stays right
 * under every change of its bucket: where its element was deleted, next() goes
 * to the one that followed and prev() to the one before. */
int lp_cursor_open(struct lp_cursor **out, struct lp_bucket *bucket, struct lp_error *err);
void lp_cursor_close(struct lp_cursor *cursor);

/* Each returns 1 with *item set, or 0 at the end. */
int lp_cursor_first(struct lp_cursor *cursor, struct lp_item *item, struct lp_error *err);
int lp_cursor_last(struct lp_cursor *cursor, struct lp_item *item, struct lp_error *err);
int lp_cursor_next(struct lp_cursor *cursor, struct lp_item *item, struct lp_error *err);
int lp_cursor_prev(struct lp_cursor *cursor, struct lp_item *item, struct lp_error *err);
/* The first element whose key is not less than `key`. */
int lp_cursor_seek(struct lp_cursor *cursor, struct lp_slice key, struct lp_item *item,
                   struct lp_error *err);
/* Deletes the pair under the cursor: 1, or 0 where it stands on none. */
int lp_cursor_delete(struct lp_cursor *cursor, struct lp_error *err);

/* --- whole files --------------------------------------------------------- */

/* One fault of the file; `page` is LP_KV_NO_PAGE where none is to blame. */
typedef void lp_check_report(void *context, uint64_t page, const char *text);

/* Everything that bbolt's check verifies, the order inside inline buckets, and
 * that a branch key is exactly the first key of its page, by which bbolt's next
 * change of that page finds it.  Returns the number of faults reported, or a negative code. */
int lp_check(struct lp_tx *tx, lp_check_report *report, void *context, struct lp_error *err);

/* The canonical text form of everything in the snapshot.  `write` returns 0,
 * or a negative code that ends the dump. */
typedef int lp_dump_write(void *context, const char *text, size_t size, struct lp_error *err);
int lp_dump(struct lp_tx *tx, lp_dump_write *write, void *context, struct lp_error *err);

/* Writes the snapshot of `tx` as a database of its own to the empty file fd
 * and syncs it. */
int lp_backup(struct lp_tx *tx, int fd, struct lp_error *err);

/* Copies everything into `into`, a new and empty database, in transactions of
 * about `tx_bytes` bytes. */
int lp_compact(struct lp_tx *from, struct lp_db *into, uint64_t tx_bytes, struct lp_error *err);

#endif
