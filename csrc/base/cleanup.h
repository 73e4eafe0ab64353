/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ownership by scope.  A local that owns something says so where it is
 * declared and is released on every way out of the scope; what is handed on is
 * taken out of the local with lp_steal_*().
 *
 *     LP_CLOSE int fd = open(...);
 *     ...
 *     *out = lp_steal_fd(&fd);
 */
#ifndef LP_BASE_CLEANUP_H
#define LP_BASE_CLEANUP_H

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* Repeats a call that a signal interrupted.  Not for close(): on Linux the
 * descriptor is gone even after EINTR.  Not for waits that must serve Ctrl-C:
 * those return LP_EINTERRUPTED. */
#define LP_RETRY(expression)                                                                       \
    (__extension__({                                                                               \
        __typeof__(expression) lp_result_;                                                         \
        do                                                                                         \
            lp_result_ = (expression);                                                             \
        while (lp_result_ == -1 && errno == EINTR);                                                \
        lp_result_;                                                                                \
    }))

/* Keeps errno, so that it may run between a failed call and its report. */
static inline void lp_close_fd(int *fd)
{
    if (*fd >= 0) {
        int saved = errno;

        (void)close(*fd);
        *fd = -1;
        errno = saved;
    }
}

static inline void lp_free_ptr(void *where)
{
    void **ptr = where;

    free(*ptr);
    *ptr = NULL;
}

static inline int lp_steal_fd(int *fd)
{
    int stolen = *fd;

    *fd = -1;
    return stolen;
}

static inline void *lp_steal_ptr(void *where)
{
    void **ptr = where;
    void *stolen = *ptr;

    *ptr = NULL;
    return stolen;
}

#define LP_CLOSE __attribute__((cleanup(lp_close_fd)))
#define LP_FREE __attribute__((cleanup(lp_free_ptr)))

#endif
