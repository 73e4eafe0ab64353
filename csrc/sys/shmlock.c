/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The segment's layout is that of podman's C structure as the platform's
 * compiler lays it out, its mutexes are glibc's: both are given, see struct
 * segment.  The kernel walks a dying thread's list of robust mutexes and marks
 * them, so the next one to lock learns that the owner died; what a lock guards
 * is read again under it anyway, so there is nothing to repair but the mutex.
 *
 * 1. `state` counts who uses the mapping, a held lock included; its top bit
 *    says that the object was closed.  The mapping is there while the count is
 *    not 0 or the bit is not set: unmapping a mutex that a thread holds would
 *    leave that thread's list of robust mutexes with a hole.
 * 2. Bitmaps are changed under the segment's own mutex, by one store each, so
 *    they are right whenever their changer dies.
 * 3. A segment appears under its name when it is complete.
 * 4. Only the bits below `limit` are read or set; others are podman's business.
 */
#include "sys/shmlock.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "sys/path.h"
#include "sys/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#define MAGIC 0x87D1
#define GROUP_LOCKS 32 /* locks of a bitmap */
#define SLICE (100 * LP_NS_PER_MS)
#define CLOSED 0x80000000u
#define TID_MASK 0x3fffffff /* of a futex word: the rest are flags */

struct group {
    uint32_t bitmap; /* bit N: lock N is allocated */
    pthread_mutex_t locks[GROUP_LOCKS];
};

struct segment {
    uint16_t magic;
    uint16_t unused;
    pthread_mutex_t mutex; /* guards the bitmaps */
    uint32_t num_bitmaps;
    uint32_t num_locks; /* num_bitmaps * GROUP_LOCKS */
    struct group groups[];
};

#if defined(__GLIBC__) && defined(__x86_64__) && defined(__LP64__)
_Static_assert(offsetof(struct segment, mutex) == 8, "the mutex of the segment");
_Static_assert(offsetof(struct segment, num_bitmaps) == 48, "the number of bitmaps");
_Static_assert(offsetof(struct segment, groups) == 56, "the groups");
_Static_assert(sizeof(struct group) == 1288, "the size of a group");
_Static_assert(offsetof(struct group, locks) == 8, "the locks of a group");
#endif

struct lp_shm {
    struct segment *segment;
    size_t size;
    uint32_t limit;
    int fd;
    atomic_uint state;
};

/* The size of a segment, 0 where it has none. */
static size_t segment_size(uint64_t num_bitmaps)
{
    const size_t most = (SIZE_MAX - sizeof(struct segment)) / sizeof(struct group);

    if (num_bitmaps == 0 || num_bitmaps > UINT32_MAX / GROUP_LOCKS || num_bitmaps > most)
        return 0;
    return sizeof(struct segment) + (size_t)num_bitmaps * sizeof(struct group);
}

static uint32_t bitmaps_for(uint32_t num_locks)
{
    return num_locks / GROUP_LOCKS + (num_locks % GROUP_LOCKS != 0);
}

/* --- mutexes ----------------------------------------------------------------------- */

static pid_t mutex_owner(pthread_mutex_t *mutex)
{
#ifdef __GLIBC__
    return __atomic_load_n(&mutex->__data.__lock, __ATOMIC_ACQUIRE) & TID_MASK;
#else
    (void)mutex;
    return 0;
#endif
}

static bool mutex_is_ours(pthread_mutex_t *mutex)
{
    return mutex_owner(mutex) == (pid_t)syscall(SYS_gettid);
}

/* Waits once, until the deadline or for a slice of time. */
static int mutex_attempt(pthread_mutex_t *mutex, int64_t deadline)
{
    int64_t end = lp_now();
    struct timespec until;
    int code = pthread_mutex_trylock(mutex);

    if (code != EBUSY || deadline <= end)
        return code;
    end = deadline - end > SLICE ? end + SLICE : deadline;
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 30)
    until = (struct timespec){end / LP_NS_PER_S, end % LP_NS_PER_S};
    return pthread_mutex_clocklock(mutex, CLOCK_MONOTONIC, &until);
#else
    (void)clock_gettime(CLOCK_REALTIME, &until);
    end = until.tv_nsec + (end - lp_now());
    until.tv_sec += end / LP_NS_PER_S;
    until.tv_nsec = end % LP_NS_PER_S;
    return pthread_mutex_timedlock(mutex, &until);
#endif
}

static int mutex_lock(pthread_mutex_t *mutex, int64_t deadline, struct lp_error *err)
{
    switch (mutex_attempt(mutex, deadline)) {
    case 0:
        return 0;
    case EOWNERDEAD:
        (void)pthread_mutex_consistent(mutex);
        return 0;
    case EBUSY:
    case ETIMEDOUT:
        if (deadline != LP_FOREVER && lp_now() >= deadline)
            return lp_fail(err, LP_ETIMEOUT, "the lock is held");
        return lp_fail(err, LP_EINTERRUPTED, "a signal may have arrived");
    case ENOTRECOVERABLE:
        return lp_fail(err, LP_EBROKEN, "its holder died and the next one gave it up");
    default:
        return lp_fail(err, LP_EBROKEN, "it is no mutex of this platform");
    }
}

static int mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes,
                      struct lp_error *err)
{
    errno = pthread_mutex_init(mutex, attributes);
    return errno == 0 ? 0 : lp_fail_errno(err, "cannot make a lock");
}

/* --- making a segment ---------------------------------------------------------------- */

static int segment_fill(struct segment *segment, uint32_t num_bitmaps, struct lp_error *err)
{
    pthread_mutexattr_t attributes;
    int code;

    (void)pthread_mutexattr_init(&attributes);
    (void)pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    (void)pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    segment->magic = MAGIC;
    segment->num_bitmaps = num_bitmaps;
    segment->num_locks = num_bitmaps * GROUP_LOCKS;
    code = mutex_init(&segment->mutex, &attributes, err);
    for (uint32_t i = 0; code == 0 && i < segment->num_locks; i++)
        code =
            mutex_init(&segment->groups[i / GROUP_LOCKS].locks[i % GROUP_LOCKS], &attributes, err);
    (void)pthread_mutexattr_destroy(&attributes);
    return code;
}

static struct segment *segment_map(int fd, size_t size)
{
    void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    return map == MAP_FAILED ? NULL : map;
}

/* Gives the complete file its name: errno is EEXIST where another was faster. */
static int segment_publish(int fd, int dir, const char *name)
{
    char self[32];

    (void)snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    return linkat(AT_FDCWD, self, dir, name, AT_SYMLINK_FOLLOW);
}

static int segment_make(int dir, const char *name, uint32_t num_locks, struct lp_error *err)
{
    uint32_t num_bitmaps = bitmaps_for(num_locks);
    size_t size = segment_size(num_bitmaps);
    struct segment *segment;
    LP_CLOSE int fd = -1;
    int code;

    fd = openat(dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 || fchmod(fd, 0600) < 0)
        return lp_fail_errno(err, "cannot make the segment");
    /* Memory that is not there when it is touched would be a SIGBUS. */
    errno = posix_fallocate(fd, 0, (off_t)size);
    if (errno != 0 || (segment = segment_map(fd, size)) == NULL)
        return lp_fail_errno(err, "cannot make a segment of %zu bytes", size);
    code = segment_fill(segment, num_bitmaps, err);
    (void)munmap(segment, size);
    if (code == 0 && segment_publish(fd, dir, name) < 0 && errno != EEXIST)
        return lp_fail_errno(err, "cannot give the segment its name");
    return code;
}

/* --- opening ----------------------------------------------------------------------- */

static int segment_open(int dir, const char *name, uint32_t num_locks, int *fd,
                        struct lp_error *err)
{
    const int flags = O_RDWR | O_NONBLOCK | O_NOCTTY;
    int code = 0;

    *fd = lp_path_beneath(dir, name, flags, 0);
    if (*fd < 0 && errno == ENOENT) {
        code = segment_make(dir, name, num_locks, err);
        *fd = code == 0 ? lp_path_beneath(dir, name, flags, 0) : -1;
    }
    if (code != 0)
        return code;
    if (*fd < 0 && (errno == ELOOP || errno == EISDIR || errno == ENXIO || errno == EACCES))
        return lp_fail(err, LP_EREFUSED, "the segment is not a regular file of ours");
    return *fd < 0 ? lp_fail_errno(err, "cannot open the segment") : 0;
}

static int segment_check(const struct segment *segment, size_t size, struct lp_error *err)
{
    if (segment->magic != MAGIC)
        return lp_fail(err, LP_EFOREIGN, "its magic number is 0x%04x", segment->magic);
    if (segment->num_locks != (uint64_t)segment->num_bitmaps * GROUP_LOCKS)
        return lp_fail(err, LP_EFOREIGN, "it has %u bitmaps for %u locks", segment->num_bitmaps,
                       segment->num_locks);
    if (segment_size(segment->num_bitmaps) != size)
        return lp_fail(err, LP_EFOREIGN, "it has %zu bytes for %u locks", size, segment->num_locks);
    return 0;
}

/* Maps the open file and looks whether it is a segment. */
static int shm_map(struct lp_shm *shm, uint32_t num_locks, struct lp_error *err)
{
    struct stat st;
    int code;

    if (fstat(shm->fd, &st) < 0)
        return lp_fail_errno(err, "cannot look at the segment");
    if (!S_ISREG(st.st_mode))
        return lp_fail(err, LP_EREFUSED, "the segment is not a regular file");
    code = lp_path_tighten(shm->fd, 0600, err);
    if (code != 0)
        return code;
    if (st.st_size < (off_t)sizeof(struct segment) || (uint64_t)st.st_size > SIZE_MAX)
        return lp_fail(err, LP_EFOREIGN, "it has %lld bytes", (long long)st.st_size);
    shm->size = (size_t)st.st_size;
    shm->segment = segment_map(shm->fd, shm->size);
    if (shm->segment == NULL)
        return lp_fail_errno(err, "cannot map the segment");
    code = segment_check(shm->segment, shm->size, err);
    shm->limit = shm->segment->num_locks;
    if (bitmaps_for(num_locks) == shm->segment->num_bitmaps)
        shm->limit = num_locks;
    return code;
}

int lp_shm_open(const char *path, uint32_t num_locks, struct lp_shm **shm, struct lp_error *err)
{
    LP_CLOSE int dir = -1;
    struct lp_shm *made;
    const char *name;
    int code;

#ifndef __GLIBC__
    return lp_fail(err, LP_ENOTBUILT, "podman's locks are mutexes of glibc");
#endif
    if (segment_size(bitmaps_for(num_locks)) == 0)
        return lp_fail(err, LP_EINVALID, "there can be no %u locks", num_locks);
    code = lp_path_parent(path, &dir, &name, err);
    if (code != 0)
        return code;
    made = calloc(1, sizeof *made);
    if (made == NULL)
        return lp_fail_errno(err, "cannot open locks");
    made->fd = -1;
    atomic_init(&made->state, 0);
    code = segment_open(dir, name, num_locks, &made->fd, err);
    if (code == 0)
        code = shm_map(made, num_locks, err);
    if (code != 0) {
        lp_shm_free(made);
        return code;
    }
    *shm = made;
    return 0;
}

uint32_t lp_shm_limit(const struct lp_shm *shm)
{
    return shm->limit;
}

/* --- who uses the mapping ------------------------------------------------------------ */

static void shm_unmap(struct lp_shm *shm)
{
    if (shm->segment != NULL)
        (void)munmap(shm->segment, shm->size);
    shm->segment = NULL;
    lp_close_fd(&shm->fd);
}

static int shm_enter(struct lp_shm *shm, struct lp_error *err)
{
    unsigned state = atomic_load(&shm->state);

    do {
        if ((state & CLOSED) != 0)
            return lp_fail(err, LP_ECLOSED, "the locks were closed");
    } while (!atomic_compare_exchange_weak(&shm->state, &state, state + 1));
    return 0;
}

/* Also after a close, while something is held. */
static bool shm_enter_again(struct lp_shm *shm)
{
    unsigned state = atomic_load(&shm->state);

    do {
        if (state == CLOSED)
            return false;
    } while (!atomic_compare_exchange_weak(&shm->state, &state, state + 1));
    return true;
}

static void shm_leave(struct lp_shm *shm)
{
    if (atomic_fetch_sub(&shm->state, 1) == (CLOSED | 1))
        shm_unmap(shm);
}

void lp_shm_close(struct lp_shm *shm)
{
    if (atomic_fetch_or(&shm->state, CLOSED) == 0)
        shm_unmap(shm);
}

void lp_shm_free(struct lp_shm *shm)
{
    if (shm == NULL)
        return;
    lp_shm_close(shm);
    /* Where a thread still holds a lock the mapping stays, for its list's sake. */
    lp_close_fd(&shm->fd);
    free(shm);
}

/* --- the bitmaps --------------------------------------------------------------------- */

static int shm_begin(struct lp_shm *shm, int64_t deadline, struct lp_error *err)
{
    int code = shm_enter(shm, err);

    if (code != 0)
        return code;
    code = mutex_lock(&shm->segment->mutex, deadline, err);
    if (code != 0)
        shm_leave(shm);
    return code;
}

static void shm_end(struct lp_shm *shm)
{
    (void)pthread_mutex_unlock(&shm->segment->mutex);
    shm_leave(shm);
}

static int shm_check_id(const struct lp_shm *shm, uint32_t id, struct lp_error *err)
{
    if (id >= shm->limit)
        return lp_fail(err, LP_EINVALID, "there are %u locks, and none has the ID %u", shm->limit,
                       id);
    return 0;
}

/* The bits of a group that are below the limit. */
static uint32_t group_mask(const struct lp_shm *shm, uint32_t group)
{
    uint32_t left = shm->limit - group * GROUP_LOCKS;

    return left >= GROUP_LOCKS ? UINT32_MAX : (UINT32_C(1) << left) - 1;
}

int lp_shm_allocate(struct lp_shm *shm, int64_t deadline, uint32_t *id, struct lp_error *err)
{
    int code = shm_begin(shm, deadline, err);

    if (code != 0)
        return code;
    code = LP_EFULL;
    for (uint32_t i = 0; code != 0 && i < bitmaps_for(shm->limit); i++) {
        uint32_t *bitmap = &shm->segment->groups[i].bitmap;
        uint32_t clear = ~*bitmap & group_mask(shm, i);

        if (clear == 0)
            continue;
        *bitmap |= clear & -clear;
        *id = i * GROUP_LOCKS + (uint32_t)__builtin_ctz(clear);
        code = 0;
    }
    shm_end(shm);
    return code == 0 ? 0 : lp_fail(err, code, "all %u locks are allocated", shm->limit);
}

int lp_shm_allocate_given(struct lp_shm *shm, uint32_t id, int64_t deadline, struct lp_error *err)
{
    uint32_t bit = UINT32_C(1) << id % GROUP_LOCKS;
    uint32_t *bitmap;
    int code = shm_check_id(shm, id, err);

    if (code == 0)
        code = shm_begin(shm, deadline, err);
    if (code != 0)
        return code;
    bitmap = &shm->segment->groups[id / GROUP_LOCKS].bitmap;
    if ((*bitmap & bit) != 0)
        code = lp_fail(err, LP_ETAKEN, "lock %u is allocated already", id);
    *bitmap |= bit;
    shm_end(shm);
    return code;
}

int lp_shm_release(struct lp_shm *shm, uint32_t id, int64_t deadline, struct lp_error *err)
{
    int code = shm_check_id(shm, id, err);

    if (code == 0)
        code = shm_begin(shm, deadline, err);
    if (code != 0)
        return code;
    shm->segment->groups[id / GROUP_LOCKS].bitmap &= ~(UINT32_C(1) << id % GROUP_LOCKS);
    shm_end(shm);
    return 0;
}

int lp_shm_release_all(struct lp_shm *shm, int64_t deadline, struct lp_error *err)
{
    int code = shm_begin(shm, deadline, err);

    if (code != 0)
        return code;
    for (uint32_t i = 0; i < bitmaps_for(shm->limit); i++)
        shm->segment->groups[i].bitmap &= ~group_mask(shm, i);
    shm_end(shm);
    return 0;
}

int lp_shm_allocated(struct lp_shm *shm, int64_t deadline, uint32_t *bitmap, struct lp_error *err)
{
    int code = shm_begin(shm, deadline, err);

    if (code != 0)
        return code;
    for (uint32_t i = 0; i < bitmaps_for(shm->limit); i++)
        bitmap[i] = shm->segment->groups[i].bitmap & group_mask(shm, i);
    shm_end(shm);
    return 0;
}

/* --- the locks ----------------------------------------------------------------------- */

static pthread_mutex_t *shm_mutex(struct lp_shm *shm, uint32_t id)
{
    return &shm->segment->groups[id / GROUP_LOCKS].locks[id % GROUP_LOCKS];
}

/* Takes it, unless it is the lock of a segment that nobody else can open. */
static int shm_take(struct lp_shm *shm, pthread_mutex_t *mutex, int64_t deadline,
                    struct lp_error *err)
{
    struct stat st;
    int code;

    if (mutex_is_ours(mutex))
        return lp_fail(err, LP_EHELD, "this thread holds the lock already");
    code = mutex_lock(mutex, deadline, err);
    if (code != 0)
        return code;
    if (fstat(shm->fd, &st) < 0)
        code = lp_fail_errno(err, "cannot look at the segment");
    else if (st.st_nlink == 0)
        code = lp_fail(err, LP_EGONE, "the segment was removed");
    if (code != 0)
        (void)pthread_mutex_unlock(mutex);
    return code;
}

int lp_shm_lock(struct lp_shm *shm, uint32_t id, int64_t deadline, struct lp_error *err)
{
    int code = shm_check_id(shm, id, err);

    if (code == 0)
        code = shm_enter(shm, err);
    if (code != 0)
        return code;
    code = shm_take(shm, shm_mutex(shm, id), deadline, err);
    if (code != 0)
        shm_leave(shm);
    return code;
}

int lp_shm_unlock(struct lp_shm *shm, uint32_t id)
{
    int code = LP_ENOTHELD;

    if (id >= shm->limit || !shm_enter_again(shm))
        return code;
    if (mutex_is_ours(shm_mutex(shm, id)) && pthread_mutex_unlock(shm_mutex(shm, id)) == 0) {
        shm_leave(shm); /* who held it */
        code = 0;
    }
    shm_leave(shm);
    return code;
}

pid_t lp_shm_holder(struct lp_shm *shm, uint32_t id)
{
    pid_t holder;

    if (id >= shm->limit || !shm_enter_again(shm))
        return 0;
    holder = mutex_owner(shm_mutex(shm, id));
    shm_leave(shm);
    return holder;
}
