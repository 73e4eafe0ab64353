/* SPDX-License-Identifier: Apache-2.0 */
/* What libpod._sys shows to Python, in cffi's subset of C.  The contracts are
 * in the headers of the same names; the compiler checks that these match. */

typedef int... mode_t;

#define LP_FOREVER ...

enum {
    LP_OK,
    LP_ESYSTEM = ...,
    LP_ENOMEM = ...,
    LP_EINVALID = ...,
    LP_ETIMEOUT = ...,
    LP_EINTERRUPTED = ...,
    LP_EBUSY = ...,
    LP_EGONE = ...,
    LP_EREFUSED = ...,
    LP_ECLOSED = ...,
    LP_EHELD = ...,
    LP_ENOTHELD = ...,
    ...
};

struct lp_error {
    int code;
    int sys_errno;
    char message[...];
};

/* lock.h */
struct lp_lock;
int lp_lock_try(struct lp_lock *lock, int shared, struct lp_error *err);
int lp_lock_wait(struct lp_lock *lock, int shared, int64_t deadline, struct lp_error *err);
int lp_lock_take(struct lp_lock *lock);
int lp_lock_unlock(struct lp_lock *lock);
int lp_lock_unlink(struct lp_lock *lock, struct lp_error *err);
void lp_lock_close(struct lp_lock *lock);
void lp_lock_abandon(struct lp_lock *lock);
void lp_lock_free(struct lp_lock *lock);

/* lockfile.h */
int lp_lockfile_create(const char *path, struct lp_lock **lock, struct lp_error *err);
int lp_lockfile_open(const char *path, struct lp_lock **lock, struct lp_error *err);

/* filelock.h */
int lp_filelock_open(const char *path, mode_t mode, struct lp_lock **lock, struct lp_error *err);

/* rundir.h */
int lp_rundir_open(const char *path, int *dirfd, struct lp_error *err);
int lp_rundir_make(const char *path, mode_t mode, int *dirfd, struct lp_error *err);
int lp_rundir_make_private(const char *path, mode_t mode, int *dirfd, struct lp_error *err);
