/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sharing.  In mode session the file is locked from open to close and only
 * the threads of this process take turns: one writer at a time, readers never
 * wait.  In mode transaction the lock is the handle's:
 *
 *              first reader                       writer, when no reader is open
 *   SHARED  <---------------  NONE  ------------------------------->  EXCLUSIVE
 *           --------------->        <-------------------------------
 *              last reader ends                   writer ends
 *
 * Invariants
 *  1. The lock is never converted: every arrow begins or ends at NONE, because
 *     flock() converts by letting go first, and another process may slip in.
 *  2. Between the arrows' ends `lock_moving` is set and the mutex is free:
 *     nobody enters, nobody else calls flock().
 *  3. While a writer waits no new reader enters, except in a thread that reads
 *     already: the writer waits for that thread.
 *  4. A thread never waits for itself: a write while it reads (mode
 *     transaction), a read while it writes (the same) and a second write are
 *     LP_KV_EDEADLOCK.
 *  5. The current meta is read from the file after NONE is left, before anybody
 *     else enters.
 */
#include "kv/share.h"

#include "base/backoff.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "kv/snapshot.h"

#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define SHARE_SLICE (100 * LP_NS_PER_MS) /* between two calls of poll() */
#define SHARE_PAUSE_EVERY (25 * LP_NS_PER_MS)
#define SHARE_GRACE (60 * INT64_C(1000))
#define SHARE_CONTEST                                                                              \
    (200 * LP_NS_PER_MS) /* others are expected for so long after they were seen */

/* The pid that holds a flock on the file, or 0.  /proc/locks has lines
 * "1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF", waiters with "->". */
static pid_t share_holder(const struct lp_db *db)
{
    FILE *locks = fopen("/proc/locks", "re");
    char line[256];
    pid_t holder = 0;

    if (locks == NULL)
        return 0;
    while (holder == 0 && fgets(line, sizeof line, locks) != NULL) {
        unsigned major_number;
        unsigned minor_number;
        unsigned long long inode;
        int pid;

        if (sscanf(line, "%*d: FLOCK %*s %*s %d %x:%x:%llu", &pid, &major_number, &minor_number,
                   &inode) == 4 &&
            inode == db->inode && major_number == major(db->device) &&
            minor_number == minor(db->device))
            holder = pid;
    }
    (void)fclose(locks);
    return holder;
}

static int share_timeout(struct lp_db *db, struct lp_wait *wait, struct lp_error *err)
{
    wait->holder = wait->deadline == LP_KV_TRY ? 0 : share_holder(db);
    if (wait->holder > 0)
        return lp_fail(err, LP_ETIMEOUT, "the database is locked by process %d", wait->holder);
    return lp_fail(err, LP_ETIMEOUT, "the database is locked by another process");
}

static int share_interrupted(struct lp_wait *wait, struct lp_error *err)
{
    if (wait->poll != NULL && wait->poll(wait->context) != 0)
        return lp_fail(err, LP_EINTERRUPTED, "the wait for the database was interrupted");
    return LP_OK;
}

static void share_sleep(int64_t ns)
{
    struct timespec time = {.tv_sec = ns / LP_NS_PER_S, .tv_nsec = ns % LP_NS_PER_S};

    (void)nanosleep(&time, NULL);
}

/* One attempt; 1 taken, 0 held by others, negative on an error. */
static int share_try(struct lp_db *db, int operation, struct lp_error *err)
{
    if (LP_RETRY(flock(db->file.fd, operation | LOCK_NB)) == 0)
        return 1;
    return errno == EWOULDBLOCK ? 0 : lp_fail_errno(err, "cannot lock the database");
}

/* Without a deadline the kernel queues us; a signal ends flock(), and poll()
 * decides whether it was meant for us. */
static int share_block(struct lp_db *db, int operation, struct lp_wait *wait, struct lp_error *err)
{
    while (flock(db->file.fd, operation) < 0) {
        int rc;

        if (errno != EINTR)
            return lp_fail_errno(err, "cannot lock the database");
        rc = share_interrupted(wait, err);
        if (rc != LP_OK)
            return rc;
    }
    return LP_OK;
}

static int share_back_off(struct lp_db *db, int operation, struct lp_wait *wait,
                          struct lp_error *err)
{
    struct lp_backoff backoff;

    lp_backoff_start(&backoff, wait->deadline);
    for (;;) {
        int rc = share_try(db, operation, err);

        if (rc != 0)
            return rc < 0 ? rc : LP_OK;
        rc = lp_backoff_sleep(&backoff, err);
        if (rc == LP_ETIMEOUT)
            return share_timeout(db, wait, err);
        if (rc == LP_OK)
            continue;
        rc = share_interrupted(wait, err);
        if (rc != LP_OK)
            return rc;
        lp_backoff_start(&backoff, wait->deadline);
    }
}

/* Lets others in where they want the lock.
 *
 * The kernel wakes who waits in flock() but does not hand the lock over: who
 * releases it and takes it again at once nearly always wins.  So after a
 * release there is a moment of grace, as long as waking up takes.
 *
 * bbolt does not wait in flock() but tries every 50 ms.  For it the lock stays
 * free for a while every 25 ms.  The while is the same in every process of
 * ours, counted off the common clock, or one would use the pause of the other. */
static void share_pause(struct lp_db *db)
{
    int64_t now = lp_now();
    uint64_t period = (uint64_t)(now / SHARE_PAUSE_EVERY);
    uint64_t mixed = period * UINT64_C(0x9e3779b97f4a7c15);
    int64_t length = 50000 + (int64_t)((mixed >> 32) % 150000);
    int64_t into = now % SHARE_PAUSE_EVERY;

    if (now - db->contended > SHARE_CONTEST)
        return;
    if (into < length)
        share_sleep(length - into);
    else if (now - db->released < SHARE_GRACE)
        share_sleep(SHARE_GRACE);
}

static int share_take(struct lp_db *db, bool exclusive, struct lp_wait *wait, struct lp_error *err)
{
    int operation = exclusive ? LOCK_EX : LOCK_SH;
    int rc;

    if (exclusive && db->contended != 0)
        share_pause(db);
    rc = share_try(db, operation, err);
    if (rc != 0)
        return rc < 0 ? rc : LP_OK;
    db->contended = lp_now();
    return wait->deadline == LP_FOREVER ? share_block(db, operation, wait, err)
                                        : share_back_off(db, operation, wait, err);
}

int lp_share_lock(struct lp_db *db, bool exclusive, struct lp_wait *wait, struct lp_error *err)
{
    int rc = share_take(db, exclusive, wait, err);

    if (rc == LP_OK)
        db->held = exclusive ? LP_HELD_EXCLUSIVE : LP_HELD_SHARED;
    return rc;
}

static bool share_reads(const struct lp_db *db)
{
    for (const struct lp_tx *tx = db->readers; tx != NULL; tx = tx->next) {
        if (pthread_equal(tx->thread, pthread_self()))
            return true;
    }
    return false;
}

/* Waits for `changed`; with the mutex held before and after. */
static int share_wait(struct lp_db *db, struct lp_wait *wait, struct lp_error *err)
{
    int64_t now = lp_now();
    int64_t until = now + SHARE_SLICE;
    struct timespec time;
    int rc;

    if (now >= wait->deadline)
        return share_timeout(db, wait, err);
    if (until > wait->deadline)
        until = wait->deadline;
    time = (struct timespec){.tv_sec = until / LP_NS_PER_S, .tv_nsec = until % LP_NS_PER_S};
    db->waiting++;
    rc = pthread_cond_timedwait(&db->changed, &db->mutex, &time);
    db->waiting--;
    if (rc == 0)
        return LP_OK;
    (void)pthread_mutex_unlock(&db->mutex);
    rc = share_interrupted(wait, err);
    (void)pthread_mutex_lock(&db->mutex);
    return rc;
}

/* Leaves NONE.  With the mutex held before and after, free while it waits. */
static int share_acquire(struct lp_db *db, bool exclusive, struct lp_wait *wait,
                         struct lp_error *err)
{
    int rc = 0;

    if (!exclusive || db->contended == 0) /* mostly the lock is free */
        rc = share_try(db, exclusive ? LOCK_EX : LOCK_SH, err);
    if (rc == 0) {
        db->lock_moving = true;
        (void)pthread_mutex_unlock(&db->mutex);
        rc = share_take(db, exclusive, wait, err);
        (void)pthread_mutex_lock(&db->mutex);
    }
    if (rc >= LP_OK) {
        db->held = exclusive ? LP_HELD_EXCLUSIVE : LP_HELD_SHARED;
        rc = lp_db_look(db, true, err);
        if (rc != LP_OK) {
            (void)flock(db->file.fd, LOCK_UN);
            db->held = LP_HELD_NONE;
        }
    }
    db->lock_moving = false;
    if (db->waiting > 0)
        (void)pthread_cond_broadcast(&db->changed);
    return rc;
}

static int share_enter_read(struct lp_db *db, struct lp_wait *wait, struct lp_error *err)
{
    bool shared = db->options.lock == LP_LOCK_TRANSACTION;

    if (!shared)
        return lp_db_look(db, false, err);
    if (db->writer && pthread_equal(db->writer_thread, pthread_self()))
        return lp_fail(err, LP_KV_EDEADLOCK,
                       "this thread's write transaction is open: end it before you read");
    while (db->lock_moving || db->writer || (db->waiting_writers > 0 && !share_reads(db))) {
        int rc = share_wait(db, wait, err);

        if (rc != LP_OK)
            return rc;
    }
    return db->held == LP_HELD_NONE ? share_acquire(db, false, wait, err) : LP_OK;
}

static int share_enter_write(struct lp_db *db, struct lp_wait *wait, struct lp_error *err)
{
    bool shared = db->options.lock == LP_LOCK_TRANSACTION;
    int rc = LP_OK;

    if (db->options.read_only)
        return lp_fail(err, LP_KV_EREADONLY, "the database is open read-only");
    if (db->writer && pthread_equal(db->writer_thread, pthread_self()))
        return lp_fail(err, LP_KV_EDEADLOCK,
                       "this thread's write transaction is open: end it before the next one");
    if (shared && share_reads(db))
        return lp_fail(err, LP_KV_EDEADLOCK,
                       "this thread's read transaction is open: end it before you write");
    db->waiting_writers++;
    while (rc == LP_OK && (db->lock_moving || db->writer || (shared && db->readers != NULL)))
        rc = share_wait(db, wait, err);
    db->waiting_writers--;
    if (rc == LP_OK && db->refused)
        rc = lp_fail(err, LP_KV_EREFUSED,
                     "an earlier sync failed: close the database and open it again");
    if (rc == LP_OK) {
        db->writer = true;
        db->writer_thread = pthread_self();
        rc = shared ? share_acquire(db, true, wait, err) : lp_db_look(db, false, err);
        if (rc != LP_OK)
            db->writer = false;
    }
    if (rc != LP_OK)
        (void)pthread_cond_broadcast(&db->changed);
    return rc;
}

int lp_share_enter(struct lp_db *db, bool writable, struct lp_wait *wait, struct lp_error *err)
{
    int rc;

    if (writable && db->owner != getpid())
        return lp_fail(err, LP_KV_EFORK, "the database was opened by process %d: open it anew",
                       db->owner);
    (void)pthread_mutex_lock(&db->mutex);
    rc = writable ? share_enter_write(db, wait, err) : share_enter_read(db, wait, err);
    if (rc != LP_OK)
        (void)pthread_mutex_unlock(&db->mutex);
    return rc;
}

void lp_share_leave(struct lp_db *db, bool writable)
{
    if (writable)
        db->writer = false;
    if (db->options.lock == LP_LOCK_TRANSACTION && !db->writer && db->readers == NULL &&
        !db->lock_moving) {
        (void)flock(db->file.fd, LOCK_UN);
        db->held = LP_HELD_NONE;
        if (db->contended != 0)
            db->released = lp_now();
    }
    if (db->waiting > 0 && (writable || db->readers == NULL))
        (void)pthread_cond_broadcast(&db->changed);
}
