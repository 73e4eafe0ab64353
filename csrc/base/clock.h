/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time, in one unit: nanoseconds of CLOCK_MONOTONIC in an int64_t.  A deadline
 * is a point on that clock; LP_FOREVER is none.
 */
#ifndef LP_BASE_CLOCK_H
#define LP_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define LP_FOREVER INT64_MAX
#define LP_NS_PER_S INT64_C(1000000000)
#define LP_NS_PER_MS INT64_C(1000000)

static inline int64_t lp_now(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * LP_NS_PER_S + now.tv_nsec;
}

/* The time-out for poll() that ends at the deadline: -1 for none, rounded up,
 * so that a wait never ends before its deadline. */
static inline int lp_poll_timeout(int64_t deadline)
{
    int64_t left;

    if (deadline == LP_FOREVER)
        return -1;
    left = deadline - lp_now();
    if (left <= 0)
        return 0;
    left = (left + LP_NS_PER_MS - 1) / LP_NS_PER_MS;
    return left > INT32_MAX ? INT32_MAX : (int)left;
}

#endif
