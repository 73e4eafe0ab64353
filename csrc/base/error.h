/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How every C function of the project reports a failure.
 *
 * A function that can fail returns 0 or a negative code and takes a
 * `struct lp_error *` as its last argument.  The struct lives on the caller's
 * stack: nothing to free, no allocation on the error path, usable without the
 * GIL and from any thread.  It is untouched on success and may be NULL where
 * the caller wants the code only.
 *
 * Codes from 1 to 99 belong to base/; each room numbers its own from a
 * hundred of its own (sys 100, proc 200, kv 300), in its own headers.
 */
#ifndef LP_BASE_ERROR_H
#define LP_BASE_ERROR_H

enum {
    LP_OK = 0,
    LP_ESYSTEM = -1,      /* a system call failed; sys_errno says how */
    LP_ENOMEM = -2,       /* an allocation failed */
    LP_EINVALID = -3,     /* the caller's argument is wrong */
    LP_ETIMEOUT = -4,     /* the deadline passed */
    LP_EINTERRUPTED = -5, /* a signal arrived: serve it, then call again */
};

struct lp_error {
    int code;          /* the code that the function returned */
    int sys_errno;     /* errno at the failure, 0 where none applies */
    char message[512]; /* NUL-terminated, cut where it is longer */
};

/* Fills *err (when not NULL) and returns code, so that a failure is one line:
 *     return lp_fail(err, LP_EINVALID, "the name %s is empty", what); */
int lp_fail(struct lp_error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4), cold));

/* The same for a failed system call: records errno, appends its text, and
 * returns LP_ESYSTEM, or LP_ENOMEM for ENOMEM. */
int lp_fail_errno(struct lp_error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold));

#endif
