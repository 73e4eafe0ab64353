/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening and closing.  An open reads the two metas, no more: the freelist is
 * loaded by the first writer.
 *
 * A new file is made whole under a name of its own, synced, and linked to its
 * place, so that no power cut leaves half a database and of two creators one
 * wins.  A file that is there but empty (bbolt creates it before it locks it)
 * is filled in place under the lock, page 0 last; where that was cut short the
 * next writer sees a file of four pages without a meta and fills it again.
 */
#include "base/cleanup.h"
#include "base/clock.h"
#include "kv/db.h"
#include "kv/page.h"
#include "kv/share.h"
#include "kv/tx.h"

#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>

#define NEW_PAGES 4U
#define OPEN_SIZE_PROBES 15U /* page sizes of 1 KiB << 0..14 are looked for */

/* --- a new file ----------------------------------------------------------- */

/* The four pages of an empty database. */
static uint8_t *new_blank(uint32_t page_size)
{
    uint8_t *pages = calloc(NEW_PAGES, page_size);
    struct lp_meta meta = {.page_size = page_size, .root = 3, .freelist = 2, .pages = NEW_PAGES};

    if (pages == NULL)
        return NULL;
    lp_meta_encode(&meta, pages, 0);
    meta.txid = 1;
    lp_meta_encode(&meta, pages + page_size, 1);
    lp_page_header(pages + 2 * (size_t)page_size, 2, LP_PAGE_FREELIST, 0, 0);
    lp_page_header(pages + 3 * (size_t)page_size, 3, LP_PAGE_LEAF, 0, 0);
    return pages;
}

static uint32_t new_page_size(const struct lp_db_options *options)
{
    return options->page_size != 0 ? options->page_size : (uint32_t)sysconf(_SC_PAGESIZE);
}

/* Page 0 goes last: without it the file counts as never filled. */
static int new_fill(const struct lp_file *file, const struct lp_db_options *options,
                    struct lp_error *err)
{
    uint32_t page_size = new_page_size(options);
    LP_FREE uint8_t *pages = new_blank(page_size);
    int rc;

    if (pages == NULL)
        return lp_fail(err, LP_ENOMEM, "no memory for a new database");
    rc = lp_file_write(file, "kv.new", page_size, pages + page_size,
                       (NEW_PAGES - 1) * (size_t)page_size, err);
    if (rc == LP_OK && options->sync)
        rc = lp_file_sync(file, "kv.new_sync", err);
    if (rc == LP_OK)
        rc = lp_file_write(file, "kv.new_meta", 0, pages, page_size, err);
    return rc == LP_OK && options->sync ? lp_file_sync(file, "kv.new_sync", err) : rc;
}

static int new_sync_directory(const char *directory, const struct lp_db_options *options,
                              struct lp_error *err)
{
    LP_CLOSE int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (options->sync && (fd < 0 || fsync(fd) < 0))
        return lp_fail_errno(err, "cannot sync the directory %s", directory);
    return LP_OK;
}

/* Makes the database under another name and moves it to its own; where
 * somebody was faster his file stays and this is no failure. */
static int new_create(const char *path, const struct lp_db_options *options, struct lp_error *err)
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
    rc = new_fill(&file, options, err);
    if (rc == LP_OK && renameat2(AT_FDCWD, name, AT_FDCWD, path, RENAME_NOREPLACE) == 0)
        return new_sync_directory(directory, options, err);
    if (rc == LP_OK && errno != EEXIST) { /* a file system without RENAME_NOREPLACE */
        if (link(name, path) == 0)
            rc = new_sync_directory(directory, options, err);
        else if (errno != EEXIST)
            rc = lp_fail_errno(err, "cannot create the database");
    }
    (void)unlink(name);
    return rc;
}

/* --- open and close ------------------------------------------------------- */

/* Whether the file was created but never filled; see the head of this file. */
static bool open_unfilled(const struct lp_db *db)
{
    uint8_t page[LP_META_END];
    uint64_t page_size = new_page_size(&db->options);

    if (db->file_size == 0)
        return true;
    if (db->file_size > NEW_PAGES * page_size || db->file_size < sizeof page ||
        lp_file_read(&db->file, 0, page, sizeof page, NULL) != LP_OK)
        return false;
    for (size_t i = 0; i < sizeof page; i++) {
        if (page[i] != 0)
            return false;
    }
    return true;
}

/* Finds the page size: meta 0 has it, or else meta 1 is where it says. */
static int open_probe(struct lp_db *db, struct lp_error *err)
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
    for (unsigned i = 0; i < OPEN_SIZE_PROBES; i++) {
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

static int open_path(struct lp_db *db, struct lp_error *err)
{
    int flags = (db->options.read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC;
    bool create = db->options.create && !db->options.read_only;

    for (int tries = 0; tries < 3; tries++) {
        int rc;

        db->file.fd = LP_RETRY(open(db->path, flags));
        if (db->file.fd >= 0 || errno != ENOENT || !create)
            break;
        rc = new_create(db->path, &db->options, err);
        if (rc != LP_OK)
            return rc;
    }
    return db->file.fd >= 0 ? LP_OK : lp_fail_errno(err, "cannot open the database");
}

static int open_identify(struct lp_db *db, struct lp_error *err)
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
static int open_fill(struct lp_db *db, struct lp_error *err)
{
    int rc = open_identify(db, err); /* somebody may have filled it while we waited */

    if (rc == LP_OK && open_unfilled(db))
        rc = new_fill(&db->file, &db->options, err);
    return rc == LP_OK ? open_identify(db, err) : rc;
}

/* Everything that reads or fills the file happens under its lock.  In mode
 * transaction a shared one will do, but where the file has to be filled. */
static int open_start(struct lp_db *db, struct lp_wait *wait, struct lp_error *err)
{
    bool session = db->options.lock == LP_LOCK_SESSION;
    int rc = open_identify(db, err);
    bool fill = rc == LP_OK && db->options.create && !db->options.read_only && open_unfilled(db);

    if (rc == LP_OK)
        rc = lp_share_lock(db, !db->options.read_only && (session || fill), wait, err);
    if (rc == LP_OK && fill)
        rc = open_fill(db, err);
    if (rc == LP_OK)
        rc = open_probe(db, err);
    if (rc == LP_OK)
        rc = lp_db_look(db, true, err); /* no meta begins with 64 zeros: this is a change */
    db->contended = 0;
    if (!session && db->held != LP_HELD_NONE) {
        (void)flock(db->file.fd, LOCK_UN);
        db->held = LP_HELD_NONE;
    }
    return rc;
}

static void open_free(struct lp_db *db)
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

static int open_check_options(const struct lp_db_options *options, struct lp_error *err)
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
    int rc = open_check_options(options, err);

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
        rc = open_path(db, err);
    if (rc == LP_OK)
        rc = open_start(db, wait, err);
    if (rc != LP_OK) {
        open_free(db);
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
    open_free(db);
    return LP_OK;
}
