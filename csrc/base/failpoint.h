/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Places where a test can make a system call fail on demand: a kernel that
 * lacks a call, a full disk, an error between two writes.  Nothing of this is
 * in a normal build; with -DLP_FAILPOINTS the test programs arm them by name.
 *
 *     errno = lp_failpoint("spawn.pidfd");
 *     if (errno != 0 || real_call() < 0) ...
 */
#ifndef LP_BASE_FAILPOINT_H
#define LP_BASE_FAILPOINT_H

#ifdef LP_FAILPOINTS

/* The errno that the place `name` must pretend now, or 0. */
int lp_failpoint(const char *name);

/* Arms `name`: after `skip` passes every pass yields error_number.  An
 * error_number of 0 disarms it.  Not for use while other threads run. */
void lp_failpoint_set(const char *name, int error_number, unsigned skip);

#else

static inline int lp_failpoint(const char *name)
{
    (void)name;
    return 0;
}

#endif
#endif
