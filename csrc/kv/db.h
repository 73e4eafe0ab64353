/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The open database, for the engine's own modules: its state, and the file
 * under it.  How it is opened and closed is open.c's.
 *
 * `mutex` guards everything that more than one transaction looks at: the
 * current meta, the map, the list of readers, the lock's state.  It is held for
 * moments only, never over a sync or a wait.  `freelist` and what the commit
 * does belong to the one write transaction and need no lock.
 */
#ifndef LP_KV_DB_H
#define LP_KV_DB_H

#include "kv/file.h"
#include "kv/freelist.h"
#include "kv/meta.h"

#include <pthread.h>
#include <time.h>

/* A map that a transaction uses stays until the last one that does ends. */
struct lp_map {
    const uint8_t *base;
    size_t size;
    size_t users; /* transactions, and 1 for the database; under its mutex */
};

enum lp_lock_held {
    LP_HELD_NONE,
    LP_HELD_SHARED,
    LP_HELD_EXCLUSIVE
};

struct lp_db {
    struct lp_file file;
    char *path;
    struct lp_db_options options;
    uint32_t page_size;
    dev_t device;
    ino_t inode;
    pid_t owner; /* the process that opened it */

    pthread_mutex_t mutex;
    pthread_cond_t changed; /* a transaction ended or the lock's state changed */

    /* the sharing state, see share.c */
    enum lp_lock_held held;
    bool lock_moving; /* some thread is inside flock() or looks at the file */
    bool writer;      /* a write transaction is open or being opened */
    pthread_t writer_thread;
    unsigned waiting_writers;
    unsigned waiting;      /* threads in a wait for `changed` */
    struct lp_tx *readers; /* oldest first */
    struct lp_tx *readers_last;
    size_t reader_count;
    struct lp_tx *spare; /* memory of one that ended, or NULL */
    int64_t contended;   /* when the lock was last seen to be wanted by others */
    int64_t released;    /* when it was last let go */

    /* the current commit */
    struct lp_meta meta;
    uint8_t meta_bytes[2][LP_META_SIZE]; /* both metas as last read or written */
    uint64_t file_size;
    struct lp_map *map; /* NULL with `map` off, and before it is worth making */
    bool map_wanted;
    struct timespec path_seen; /* the inode's ctime at which path was found to lead to it */

    /* the writer's */
    struct lp_freelist freelist;
    bool freelist_loaded;
    bool refused; /* writes are refused: a sync failed; under mutex */
    struct lp_db_stats stats;
};

/* Looks at the file: still there, not truncated.  With `changes` (another
 * process may have committed) also reads the metas again and maps what grew.
 * Called with the mutex held. */
int lp_db_look(struct lp_db *db, bool changes, struct lp_error *err);

/* Makes the map cover the current meta's pages, once it is wanted.  With the
 * mutex held. */
int lp_db_map(struct lp_db *db, struct lp_error *err);

/* Drops one user of `map`; with the mutex held. */
void lp_map_release(struct lp_map *map);

#endif
