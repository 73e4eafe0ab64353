/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lock file can be removed or replaced by whoever holds its lock, so after
 * each locking we ask whether the path still names the file that we locked.
 * Looking the path up costs more than flock(2) and its release together, so
 * that is done only where the file may have changed: removing or replacing a
 * file takes its last name (st_nlink is 0), and renaming or linking it sets
 * its ctime.  `seen` is a ctime at which the path was found right.
 *
 * 1. `turn` is taken before the kernel's lock and given back after it.  All
 *    fields but `closed` and `owner` are touched only by who has the turn.
 * 2. `owner` is not 0 exactly while the kernel's lock is ours.
 * 3. `fd` is closed only by who has the turn, and only when `closed` is set.
 *    Both the closer (after setting `closed`) and whoever gives the turn back
 *    (after that) try to reap, so one of them does.
 * 4. `seen` holds a ctime only if the clock had moved past it when the path was
 *    looked up: then no later change can leave the same ctime.  File systems
 *    that keep coarser times than the clock never qualify.
 * 5. Neither turn nor kernel's lock is kept when a call fails.
 *
 * A directory renamed with its lock files in it is not noticed: only we and
 * root can do that.
 */
#include "sys/lock.h"

#include "base/backoff.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "sys/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

/* Times that end in this many nanoseconds are a coarse file system's (full
 * seconds, or the 10 ms of exFAT). */
#define COARSE_NS 10000000

struct lp_lock {
    sem_t turn;
    _Atomic(pthread_t) owner;
    atomic_bool closed;
    bool shared; /* of the lock that is held */
    enum lp_lock_kind kind;
    int fd;
    dev_t dev; /* of fd */
    ino_t ino;
    struct timespec seen;
    char path[];
};

int lp_lock_new(enum lp_lock_kind kind, int *fd, const char *path, struct lp_lock **lock,
                struct lp_error *err)
{
    size_t size = strlen(path) + 1;
    struct lp_lock *made;
    struct stat st;

    if (fstat(*fd, &st) < 0)
        return lp_fail_errno(err, "cannot look at the lock file");
    made = calloc(1, sizeof *made + size);
    if (made == NULL)
        return lp_fail_errno(err, "cannot make a lock");
    (void)sem_init(&made->turn, 0, 1);
    atomic_init(&made->owner, 0);
    atomic_init(&made->closed, false);
    made->kind = kind;
    made->dev = st.st_dev;
    made->ino = st.st_ino;
    made->seen.tv_nsec = -1; /* no file has this */
    memcpy(made->path, path, size);
    made->fd = lp_steal_fd(fd);
    *lock = made;
    return 0;
}

/* --- the turn among threads ------------------------------------------------ */

static void lock_reap(struct lp_lock *lock)
{
    if (atomic_load(&lock->closed) && sem_trywait(&lock->turn) == 0) {
        /* Forgotten first: a child forked in between must not close a number
         * that stands for something else by then. */
        int fd = lp_steal_fd(&lock->fd);

        lp_close_fd(&fd);
        (void)sem_post(&lock->turn);
    }
}

static void lock_leave(struct lp_lock *lock)
{
    (void)sem_post(&lock->turn);
    lock_reap(lock);
}

static int lock_enter(struct lp_lock *lock, bool wait, struct lp_error *err)
{
    if (atomic_load(&lock->closed))
        return lp_fail(err, LP_ECLOSED, "the lock was closed");
    if (atomic_load(&lock->owner) == pthread_self())
        return lp_fail(err, LP_EHELD, "this thread holds the lock already");
    if ((wait ? sem_wait(&lock->turn) : sem_trywait(&lock->turn)) < 0)
        return errno == EINTR ? lp_fail(err, LP_EINTERRUPTED, "a signal arrived")
                              : lp_fail(err, LP_EBUSY, "another thread has the lock");
    if (!atomic_load(&lock->closed))
        return 0;
    lock_leave(lock);
    return lp_fail(err, LP_ECLOSED, "the lock was closed");
}

/* --- the kernel's lock ------------------------------------------------------- */

static int lock_flock(const struct lp_lock *lock, bool shared, bool wait)
{
    return flock(lock->fd, (shared ? LOCK_SH : LOCK_EX) | (wait ? 0 : LOCK_NB));
}

/* l_start and l_len of 0 are the whole file, whatever its size becomes. */
static int lock_record(const struct lp_lock *lock, short type, bool wait)
{
    struct flock whole = {.l_type = type, .l_whence = SEEK_SET};

    return fcntl(lock->fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &whole);
}

static void lock_drop(struct lp_lock *lock)
{
    atomic_store(&lock->owner, 0);
    if (lock->kind == LP_LOCK_FLOCK)
        (void)flock(lock->fd, LOCK_UN);
    else
        (void)lock_record(lock, F_UNLCK, false);
}

static bool time_before(struct timespec a, struct timespec b)
{
    return a.tv_sec != b.tv_sec ? a.tv_sec < b.tv_sec : a.tv_nsec < b.tv_nsec;
}

/* Whether the path names the file whose state is *st. */
static int lock_look_up(struct lp_lock *lock, const struct stat *st, struct lp_error *err)
{
    struct timespec now;
    struct stat at;

    (void)clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (lstat(lock->path, &at) < 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return lp_fail(err, LP_EGONE, "the lock file was removed");
        return lp_fail_errno(err, "cannot look at the lock file");
    }
    if (at.st_dev != lock->dev || at.st_ino != lock->ino)
        return lp_fail(err, LP_EGONE, "the lock file was replaced");
    if (st->st_ctim.tv_nsec % COARSE_NS != 0 && time_before(st->st_ctim, now))
        lock->seen = st->st_ctim;
    return 0;
}

static int lock_verify(struct lp_lock *lock, struct lp_error *err)
{
    struct stat st;

    if (fstat(lock->fd, &st) < 0)
        return lp_fail_errno(err, "cannot look at the lock file");
    if (st.st_nlink == 0)
        return lp_fail(err, LP_EGONE, "the lock file was removed or replaced");
    if (st.st_ctim.tv_sec == lock->seen.tv_sec && st.st_ctim.tv_nsec == lock->seen.tv_nsec)
        return 0;
    return lock_look_up(lock, &st, err);
}

/* For whoever has the turn. */
static int lock_acquire(struct lp_lock *lock, bool shared, bool wait, struct lp_error *err)
{
    int code = lock->kind == LP_LOCK_FLOCK ? lock_flock(lock, shared, wait)
                                           : lock_record(lock, shared ? F_RDLCK : F_WRLCK, wait);

    if (code < 0 && (errno == EAGAIN || errno == EACCES))
        return lp_fail(err, LP_EBUSY, "the lock is held");
    if (code < 0 && errno == EINTR)
        return lp_fail(err, LP_EINTERRUPTED, "a signal arrived");
    if (code < 0)
        return lp_fail_errno(err, "cannot lock");
    code = lock_verify(lock, err);
    if (code != 0) {
        lock_drop(lock);
        return code;
    }
    lock->shared = shared;
    atomic_store(&lock->owner, pthread_self());
    return 0;
}

static int lock_attempt(struct lp_lock *lock, bool shared, bool wait, struct lp_error *err)
{
    int code = lock_enter(lock, wait, err);

    if (code != 0)
        return code;
    code = lock_acquire(lock, shared, wait, err);
    if (code != 0)
        lock_leave(lock);
    return code;
}

/* --- the verbs ----------------------------------------------------------------- */

int lp_lock_try(struct lp_lock *lock, int shared, struct lp_error *err)
{
    return lock_attempt(lock, shared != 0, false, err);
}

int lp_lock_take(struct lp_lock *lock)
{
    return lock_attempt(lock, false, false, NULL);
}

int lp_lock_wait(struct lp_lock *lock, int shared, int64_t deadline, struct lp_error *err)
{
    struct lp_backoff backoff;
    int code;

    if (deadline == LP_FOREVER)
        return lock_attempt(lock, shared != 0, true, err);
    lp_backoff_start(&backoff, deadline);
    for (;;) {
        code = lock_attempt(lock, shared != 0, false, err);
        if (code != LP_EBUSY)
            return code;
        code = lp_backoff_sleep(&backoff, err);
        if (code != 0)
            return code;
    }
}

int lp_lock_fd(const struct lp_lock *lock)
{
    return lock->fd;
}

int lp_lock_unlock(struct lp_lock *lock)
{
    if (atomic_load(&lock->owner) != pthread_self())
        return atomic_load(&lock->closed) ? LP_ECLOSED : LP_ENOTHELD;
    lock_drop(lock);
    lock_leave(lock);
    return 0;
}

int lp_lock_unlink(struct lp_lock *lock, struct lp_error *err)
{
    struct stat st;
    int code;

    if (atomic_load(&lock->owner) != pthread_self() || lock->shared)
        return lp_fail(err, LP_ENOTHELD, "this thread does not hold the lock exclusively");
    if (fstat(lock->fd, &st) < 0)
        return lp_fail_errno(err, "cannot look at the lock file");
    code = lock_look_up(lock, &st, err);
    if (code != 0)
        return code;
    errno = lp_failpoint("lock.unlink");
    if (errno != 0 || unlink(lock->path) < 0)
        return lp_fail_errno(err, "cannot remove the lock file");
    return 0;
}

void lp_lock_close(struct lp_lock *lock)
{
    atomic_store(&lock->closed, true);
    if (lp_lock_unlock(lock) != 0)
        lock_reap(lock);
}

void lp_lock_abandon(struct lp_lock *lock)
{
    atomic_store(&lock->closed, true);
    atomic_store(&lock->owner, 0);
    lp_close_fd(&lock->fd);
}

void lp_lock_free(struct lp_lock *lock)
{
    if (lock == NULL)
        return;
    if (atomic_load(&lock->owner) != 0)
        lock_drop(lock); /* a raw copy of the descriptor elsewhere must not keep it */
    lp_close_fd(&lock->fd);
    (void)sem_destroy(&lock->turn);
    free(lock);
}
