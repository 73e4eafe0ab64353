/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file under an open database: its map, its current meta, whether it is
 * still the one that was opened.
 *
 * A map costs more than the few pages that one look-up reads, to make, to fault
 * in and to take down.  So the first transaction reads by pread() until it has
 * read many (snapshot.c), and whoever opens, looks and closes never maps.
 *
 * The map is one mapping, larger than the file, so that a file that grows is
 * seen without mapping again: pages past the end become readable once they are
 * written.  Nothing past the current meta's last page is ever touched, and a
 * meta is believed only if the file is as long as it says.
 */
#include "kv/db.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "kv/page.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define DB_MAP_MIN (UINT64_C(64) << 20)
#define DB_PATH_TRUST (20 * LP_NS_PER_MS)

/* --- the map -------------------------------------------------------------- */

void lp_map_release(struct lp_map *map)
{
    if (map == NULL || --map->users > 0)
        return;
    (void)munmap((void *)(uintptr_t)map->base, map->size);
    free(map);
}

int lp_db_map(struct lp_db *db, struct lp_error *err)
{
    uint64_t need = db->meta.pages * db->page_size;
    uint64_t size = DB_MAP_MIN;
    struct lp_map *map;
    void *base;

    if (!db->options.map || (db->map == NULL ? !db->map_wanted : need <= db->map->size))
        return LP_OK;
    if (size < db->options.initial_map)
        size = db->options.initial_map;
    while (size < need * 2)
        size *= 2;
    map = malloc(sizeof *map);
    if (map == NULL)
        return lp_fail(err, LP_ENOMEM, "no memory to map the database");
    base = mmap(NULL, size, PROT_READ, MAP_SHARED, db->file.fd, 0);
    if (base == MAP_FAILED) { /* a limit on address space: ask for no more than there is */
        size = need;
        base = mmap(NULL, size, PROT_READ, MAP_SHARED, db->file.fd, 0);
    }
    if (base == MAP_FAILED) {
        free(map);
        return lp_fail_errno(err, "cannot map %llu bytes of the database",
                             (unsigned long long)size);
    }
    *map = (struct lp_map){.base = base, .size = size, .users = 1};
    lp_map_release(db->map);
    db->map = map;
    return LP_OK;
}

/* --- the metas ------------------------------------------------------------ */

/* Takes the newer valid meta of the two whose bytes are given.  Fails with
 * meta 0's fault where both are bad. */
static int db_choose(struct lp_db *db, uint8_t pages[2][LP_META_END], struct lp_meta *meta,
                     struct lp_error *err)
{
    struct lp_meta other;
    struct lp_error fault;
    int first = lp_meta_decode(meta, pages[0], &fault);
    int second = lp_meta_decode(&other, pages[1], NULL);

    if (first != LP_OK && second != LP_OK)
        return lp_fail(err, first, "%s", fault.message);
    if (first != LP_OK || (second == LP_OK && other.txid > meta->txid))
        *meta = other;
    for (int i = 0; i < 2; i++)
        memcpy(db->meta_bytes[i], pages[i] + LP_PAGE_HEADER, LP_META_SIZE);
    return LP_OK;
}

/* Reads both metas; *changed tells whether another process committed. */
static int db_reload(struct lp_db *db, bool *changed, struct lp_error *err)
{
    uint8_t pages[2][LP_META_END];
    struct lp_meta meta;
    int rc = LP_OK;

    if (db->file_size < 2 * (uint64_t)db->page_size)
        return lp_fail(err, LP_KV_EINVALID, "the file is too small for a database");
    for (unsigned i = 0; i < 2 && rc == LP_OK; i++) {
        if (db->map != NULL)
            memcpy(pages[i], db->map->base + (size_t)i * db->page_size, LP_META_END);
        else
            rc = lp_file_read(&db->file, (uint64_t)i * db->page_size, pages[i], LP_META_END, err);
    }
    if (rc != LP_OK)
        return rc;
    *changed = memcmp(pages[0] + LP_PAGE_HEADER, db->meta_bytes[0], LP_META_SIZE) != 0 ||
               memcmp(pages[1] + LP_PAGE_HEADER, db->meta_bytes[1], LP_META_SIZE) != 0;
    if (!*changed)
        return LP_OK;
    rc = db_choose(db, pages, &meta, err);
    if (rc != LP_OK)
        return rc;
    if (meta.page_size != db->page_size)
        return lp_fail(err, LP_KV_EINVALID, "the two meta pages give different page sizes");
    db->meta = meta;
    return LP_OK;
}

/* --- looking at the file -------------------------------------------------- */

/* Whether path still leads to the open file.  Replacing, renaming and removing
 * a file changes its inode's ctime, so that the path is walked only after that
 * moved.  A ctime younger than the clock's own step is not believed. */
static int db_look_path(struct lp_db *db, const struct stat *open_file, struct lp_error *err)
{
    struct stat named;
    struct timespec now;

    if (open_file->st_ctim.tv_sec == db->path_seen.tv_sec &&
        open_file->st_ctim.tv_nsec == db->path_seen.tv_nsec)
        return LP_OK;
    if (stat(db->path, &named) < 0) {
        if (errno != ENOENT && errno != ENOTDIR)
            return lp_fail_errno(err, "cannot look at the database");
        return lp_fail(err, LP_KV_EREPLACED, "the file was removed");
    }
    if (named.st_dev != db->device || named.st_ino != db->inode)
        return lp_fail(err, LP_KV_EREPLACED, "the file was replaced by another one");
    (void)clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if ((now.tv_sec - open_file->st_ctim.tv_sec) * LP_NS_PER_S + now.tv_nsec -
            open_file->st_ctim.tv_nsec >
        DB_PATH_TRUST)
        db->path_seen = open_file->st_ctim;
    return LP_OK;
}

/* fstat(): from glibc 2.33 to 2.38 that goes by way of an empty path, which
 * costs the kernel a tenth more, at each begin. */
static int db_fstat(int fd, struct stat *found)
{
#if defined(SYS_fstat) && defined(__LP64__)
    return (int)syscall(SYS_fstat, fd, found);
#else
    return fstat(fd, found);
#endif
}

int lp_db_look(struct lp_db *db, bool changes, struct lp_error *err)
{
    struct stat open_file;
    bool changed = false;
    int rc;

    if (db_fstat(db->file.fd, &open_file) < 0)
        return lp_fail_errno(err, "cannot look at the database");
    if (open_file.st_nlink == 0)
        return lp_fail(err, LP_KV_EREPLACED, "the file was removed or replaced");
    rc = db_look_path(db, &open_file, err);
    if (rc != LP_OK)
        return rc;
    db->file_size = (uint64_t)open_file.st_size;
    if (db->file_size < 2 * (uint64_t)db->page_size)
        return lp_fail(err, LP_KV_EREPLACED, "the file was truncated to %llu bytes",
                       (unsigned long long)db->file_size);
    if (changes) {
        rc = db_reload(db, &changed, err);
        if (rc != LP_OK)
            return rc;
    }
    if (db->meta.pages > db->file_size / db->page_size)
        return lp_fail(err, LP_KV_EREPLACED,
                       "the file was truncated to %llu bytes, %llu pages short",
                       (unsigned long long)db->file_size,
                       (unsigned long long)(db->meta.pages - db->file_size / db->page_size));
    if (changed) {
        lp_freelist_clear(&db->freelist);
        db->freelist_loaded = false;
        db->contended = lp_now();
    }
    return lp_db_map(db, err);
}

/* --- what it is ----------------------------------------------------------- */

void lp_db_identity(const struct lp_db *db, uint64_t *device, uint64_t *inode)
{
    *device = db->device;
    *inode = db->inode;
}

void lp_db_stats(struct lp_db *db, struct lp_db_stats *stats)
{
    (void)pthread_mutex_lock(&db->mutex);
    *stats = db->stats;
    stats->page_size = db->page_size;
    stats->pages = db->meta.pages;
    stats->txid = db->meta.txid;
    stats->file_size = db->file_size;
    stats->readers = db->reader_count;
    stats->writes_refused = db->refused;
    (void)pthread_mutex_unlock(&db->mutex);
}
