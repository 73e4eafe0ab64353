/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening, mapping and closing.  An open reads the two metas, no more: the
 * freelist is loaded by the first writer.
 *
 * A new file is made whole under a name of its own, synced, and linked to its
 * place, so that no power cut leaves half a database and of two creators one
 * wins.  A file that is there but empty (bbolt creates it before it locks it)
 * is filled in place under the lock, page 0 last; where that was cut short the
 * next writer sees a file of four pages without a meta and fills it again.
 *
 * A map costs more than the few pages that one look-up reads, to make, to fault
 * in and to take down.  So the first transaction reads by pread() until it has
 * read many (tx.c), and whoever opens, looks and closes never maps.
 *
 * The map is one mapping, larger than the file, so that a file that grows is
 * seen without mapping again: pages past the end become readable once they are
 * written.  Nothing past the current meta's last page is ever touched, and a
 * meta is believed only if the file is as long as it says.
 */
#include "kv/db.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "kv/page.h"
#include "kv/share.h"
#include "kv/tx.h"

#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define DB_NEW_PAGES 4U
#define DB_MAP_MIN (UINT64_C(64) << 20)
#define DB_PATH_TRUST (20 * LP_NS_PER_MS)
#define DB_SIZE_PROBES 15U /* page sizes of 1 KiB << 0..14 are looked for */

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

/* Finds the page size: meta 0 has it, or else meta 1 is where it says. */
static int db_probe(struct lp_db *db, struct lp_error *err)
{
    uint8_t page[LP_META_END];
    struct lp_meta meta;
    struct lp_error fault;
    int rc;

    if (db->file_size < LP_META_END)
        return lp_fail(err, LP_KV_EINVALID, "the file is too small for a database");
    rc = lp_file_read(&db->file, 0, page, sizeof page, err);
    if (rc != LP_OK)
        return rc;
    rc = lp_meta_decode(&meta, page, &fault);
    if (rc == LP_OK) {
        db->page_size = meta.page_size;
        return LP_OK;
    }
    for (unsigned i = 0; i < DB_SIZE_PROBES; i++) {
        uint64_t at = UINT64_C(1024) << i;

        if (at + sizeof page > db->file_size ||
            lp_file_read(&db->file, at, page, sizeof page, NULL) != LP_OK)
            break;
        if (lp_meta_decode(&meta, page, NULL) == LP_OK && meta.page_size == at) {
            db->page_size = meta.page_size;
            return LP_OK;
        }
    }
    return lp_fail(err, rc, "%s", fault.message);
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

/* --- a new file ----------------------------------------------------------- */

/* The four pages of an empty database. */
static uint8_t *db_blank(uint32_t page_size)
{
    uint8_t *pages = calloc(DB_NEW_PAGES, page_size);
    struct lp_meta meta = {.page_size = page_size, .root = 3, .freelist = 2, .pages = DB_NEW_PAGES};

    if (pages == NULL)
        return NULL;
    lp_meta_encode(&meta, pages, 0);
    meta.txid = 1;
    lp_meta_encode(&meta, pages + page_size, 1);
    lp_page_header(pages + 2 * (size_t)page_size, 2, LP_PAGE_FREELIST, 0, 0);
    lp_page_header(pages + 3 * (size_t)page_size, 3, LP_PAGE_LEAF, 0, 0);
    return pages;
}

static uint32_t db_new_page_size(const struct lp_db_options *options)
{
    return options->page_size != 0 ? options->page_size : (uint32_t)sysconf(_SC_PAGESIZE);
}

/* Page 0 goes last: without it the file counts as never filled. */
static int db_fill(const struct lp_file *file, const struct lp_db_options *options,
                   struct lp_error *err)
{
    uint32_t page_size = db_new_page_size(options);
    LP_FREE uint8_t *pages = db_blank(page_size);
    int rc;

    if (pages == NULL)
        return lp_fail(err, LP_ENOMEM, "no memory for a new database");
    rc = lp_file_write(file, "kv.new", page_size, pages + page_size,
                       (DB_NEW_PAGES - 1) * (size_t)page_size, err);
    if (rc == LP_OK && options->sync)
        rc = lp_file_sync(file, "kv.new_sync", err);
    if (rc == LP_OK)
        rc = lp_file_write(file, "kv.new_meta", 0, pages, page_size, err);
    return rc == LP_OK && options->sync ? lp_file_sync(file, "kv.new_sync", err) : rc;
}

static int db_sync_directory(const char *directory, const struct lp_db_options *options,
                             struct lp_error *err)
{
    LP_CLOSE int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (options->sync && (fd < 0 || fsync(fd) < 0))
        return lp_fail_errno(err, "cannot sync the directory %s", directory);
    return LP_OK;
}

/* Makes the database under another name and moves it to its own; where
 * somebody was faster his file stays and this is no failure. */
static int db_create(const char *path, const struct lp_db_options *options, struct lp_error *err)
{
    LP_FREE char *copy = strdup(path);
    LP_FREE char *name = NULL;
    LP_CLOSE int fd = -1;
    uint64_t random_part;
    const char *directory;
    struct lp_file file = {0};
    int rc;

    if (copy == NULL)
        return lp_fail(err, LP_ENOMEM, "no memory for a path");
    if (getrandom(&random_part, sizeof random_part, GRND_NONBLOCK) != sizeof random_part)
        random_part = (uint64_t)lp_now();
    if (asprintf(&name, "%s.%016llx.new", path, (unsigned long long)random_part) < 0) {
        name = NULL;
        return lp_fail(err, LP_ENOMEM, "no memory for a path");
    }
    directory = dirname(copy);
    fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, options->mode);
    if (fd < 0)
        return lp_fail_errno(err, "cannot create the database");
    file.fd = fd;
    rc = db_fill(&file, options, err);
    if (rc == LP_OK && renameat2(AT_FDCWD, name, AT_FDCWD, path, RENAME_NOREPLACE) == 0)
        return db_sync_directory(directory, options, err);
    if (rc == LP_OK && errno != EEXIST) { /* a file system without RENAME_NOREPLACE */
        if (link(name, path) == 0)
            rc = db_sync_directory(directory, options, err);
        else if (errno != EEXIST)
            rc = lp_fail_errno(err, "cannot create the database");
    }
    (void)unlink(name);
    return rc;
}

/* Whether the file was created but never filled; see the head of this file. */
static bool db_unfilled(const struct lp_db *db)
{
    uint8_t page[LP_META_END];
    uint64_t page_size = db_new_page_size(&db->options);

    if (db->file_size == 0)
        return true;
    if (db->file_size > DB_NEW_PAGES * page_size || db->file_size < sizeof page ||
        lp_file_read(&db->file, 0, page, sizeof page, NULL) != LP_OK)
        return false;
    for (size_t i = 0; i < sizeof page; i++) {
        if (page[i] != 0)
            return false;
    }
    return true;
}

/* --- open and close ------------------------------------------------------- */

static int db_open_file(struct lp_db *db, struct lp_error *err)
{
    int flags = (db->options.read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC;
    bool create = db->options.create && !db->options.read_only;

    for (int tries = 0; tries < 3; tries++) {
        int rc;

        db->file.fd = LP_RETRY(open(db->path, flags));
        if (db->file.fd >= 0 || errno != ENOENT || !create)
            break;
        rc = db_create(db->path, &db->options, err);
        if (rc != LP_OK)
            return rc;
    }
    return db->file.fd >= 0 ? LP_OK : lp_fail_errno(err, "cannot open the database");
}

static int db_identify(struct lp_db *db, struct lp_error *err)
{
    struct stat open_file;

    if (fstat(db->file.fd, &open_file) < 0)
        return lp_fail_errno(err, "cannot look at the database");
    if (!S_ISREG(open_file.st_mode))
        return lp_fail(err, LP_EINVALID, "not a regular file");
    db->device = open_file.st_dev;
    db->inode = open_file.st_ino;
    db->file_size = (uint64_t)open_file.st_size;
    return LP_OK;
}

/* Fills a file that is there but was never filled. */
static int db_fill_in_place(struct lp_db *db, struct lp_error *err)
{
    int rc = db_identify(db, err); /* somebody may have filled it while we waited */

    if (rc == LP_OK && db_unfilled(db))
        rc = db_fill(&db->file, &db->options, err);
    return rc == LP_OK ? db_identify(db, err) : rc;
}

/* Everything that reads or fills the file happens under its lock.  In mode
 * transaction a shared one will do, but where the file has to be filled. */
static int db_start(struct lp_db *db, struct lp_wait *wait, struct lp_error *err)
{
    bool session = db->options.lock == LP_LOCK_SESSION;
    int rc = db_identify(db, err);
    bool fill = rc == LP_OK && db->options.create && !db->options.read_only && db_unfilled(db);

    if (rc == LP_OK)
        rc = lp_share_lock(db, !db->options.read_only && (session || fill), wait, err);
    if (rc == LP_OK && fill)
        rc = db_fill_in_place(db, err);
    if (rc == LP_OK)
        rc = db_probe(db, err);
    if (rc == LP_OK)
        rc = lp_db_look(db, true, err); /* no meta begins with 64 zeros: this is a change */
    db->contended = 0;
    if (!session && db->held != LP_HELD_NONE) {
        (void)flock(db->file.fd, LOCK_UN);
        db->held = LP_HELD_NONE;
    }
    return rc;
}

static void db_free(struct lp_db *db)
{
    lp_tx_free(db->spare);
    lp_freelist_clear(&db->freelist);
    lp_map_release(db->map);
    lp_close_fd(&db->file.fd);
    (void)pthread_cond_destroy(&db->changed);
    (void)pthread_mutex_destroy(&db->mutex);
    free(db->path);
    free(db);
}

static int db_check_options(const struct lp_db_options *options, struct lp_error *err)
{
    uint32_t size = options->page_size;

    if (size != 0 && (size < 1024 || size > LP_PAGE_SIZE_MAX || (size & (size - 1)) != 0))
        return lp_fail(err, LP_EINVALID,
                       "the page size must be a power of two from 1024 to 16777216");
    return LP_OK;
}

int lp_db_open(struct lp_db **out, const char *path, const struct lp_db_options *options,
               struct lp_wait *wait, struct lp_error *err)
{
    struct lp_db *db;
    pthread_condattr_t attributes;
    int rc = db_check_options(options, err);

    if (rc != LP_OK)
        return rc;
    db = calloc(1, sizeof *db);
    if (db == NULL)
        return lp_fail(err, LP_ENOMEM, "no memory for a database");
    db->file.fd = -1;
    db->options = *options;
    db->owner = getpid();
    (void)pthread_mutex_init(&db->mutex, NULL);
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&db->changed, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    db->path = strdup(path);
    if (db->path == NULL)
        rc = lp_fail(err, LP_ENOMEM, "no memory for a path");
    if (rc == LP_OK)
        rc = db_open_file(db, err);
    if (rc == LP_OK)
        rc = db_start(db, wait, err);
    if (rc != LP_OK) {
        db_free(db);
        return rc;
    }
    *out = db;
    return LP_OK;
}

int lp_db_close(struct lp_db *db, struct lp_error *err)
{
    bool busy;

    if (db->owner != getpid()) { /* the lock is the parent's: close(), never LOCK_UN */
        lp_close_fd(&db->file.fd);
        return LP_OK;
    }
    (void)pthread_mutex_lock(&db->mutex);
    busy = db->readers != NULL || db->writer || db->lock_moving || db->waiting_writers > 0;
    (void)pthread_mutex_unlock(&db->mutex);
    if (busy)
        return lp_fail(err, LP_KV_EBUSY, "transactions are open");
    /* A child that was forked from here shares the lock until it is let go. */
    if (db->held != LP_HELD_NONE)
        (void)flock(db->file.fd, LOCK_UN);
    db_free(db);
    return LP_OK;
}

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
