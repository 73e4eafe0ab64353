/* SPDX-License-Identifier: Apache-2.0 */
/* What libpod._sys shows to Python, in cffi's subset of C.  The contracts are
 * in the headers of the same names; the compiler checks that these match. */

typedef int... mode_t;

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
