/* SPDX-License-Identifier: Apache-2.0 */
/* What libpod._sys shows to Python, in cffi's subset of C.  The contracts are
 * in the headers of the same names; the compiler checks that these match. */

typedef int... mode_t;
typedef int... uid_t;
typedef int... gid_t;

#define LP_EINTERRUPTED ...
#define LP_EREFUSED ...

struct lp_error {
    int code;
    int sys_errno;
    char message[...];
};

/* rundir.h */
int lp_rundir_open(const char *path, int *dirfd, struct lp_error *err);
int lp_rundir_make(const char *path, mode_t mode, int *dirfd, struct lp_error *err);
int lp_rundir_make_private(const char *path, mode_t mode, int *dirfd, struct lp_error *err);

/* mount.h */
struct lp_mount_tmpfs {
    uint64_t size;
    mode_t mode;
    uid_t uid;
    gid_t gid;
    const char *label;
};
int lp_mount_tmpfs(const char *path, const struct lp_mount_tmpfs *tmpfs, struct lp_error *err);
int lp_mount_private(const char *path, struct lp_error *err);
int lp_mount_detach(const char *path, int *was, struct lp_error *err);
int lp_mount_is_point(const char *path, int *is, struct lp_error *err);
int lp_mount_id(int fd, int *id, struct lp_error *err);

/* path.h */
int lp_path_beneath(int dirfd, const char *path, int flags, mode_t mode);

/* hostaddr.h */
int lp_hostaddr_first(char *text, size_t size, struct lp_error *err);
int lp_hostaddr_family(const char *text);

/* inroot.h */
int lp_inroot_open(int root, const char *path, int flags, int *fd, struct lp_error *err);

/* dirtree.h */
int lp_dirtree_remove(const char *path, struct lp_error *err);

/* swap.h */
int lp_swap_files(const char *fresh, const char *path, struct lp_error *err);
