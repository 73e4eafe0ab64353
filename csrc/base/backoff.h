/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting for what cannot be waited for: the kernel has no flock with a
 * deadline, so we try, sleep and try again, from 50 us up to 2 ms.
 */
#ifndef LP_BASE_BACKOFF_H
#define LP_BASE_BACKOFF_H

#include "base/error.h"

#include <stdint.h>

struct lp_backoff {
    int64_t deadline; /* of the wait, on the monotonic clock; see base/clock.h */
    int64_t slice;    /* when to let the caller serve its signals */
    int64_t step;     /* upper bound of the next sleep, ns */
    uint64_t random;  /* state of the jitter */
};

void lp_backoff_start(struct lp_backoff *backoff, int64_t deadline);

/* Sleeps once, never beyond the deadline.  Any thread.
 *   0                try again
 *   LP_ETIMEOUT      the deadline has passed
 *   LP_EINTERRUPTED  a signal arrived, or may have arrived unnoticed between
 *                    two sleeps: serve signals, then start again with the same
 *                    deadline.  This comes at least every 100 ms. */
int lp_backoff_sleep(struct lp_backoff *backoff, struct lp_error *err);

#endif
