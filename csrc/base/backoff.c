/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sleeps that double from 50 us to 2 ms.  Each is drawn evenly from the upper
 * half of its bound, so that processes which began to wait together do not go
 * on colliding.
 */
#include "base/backoff.h"

#include "base/clock.h"

#include <errno.h>
#include <time.h>

#define SLEEP_LEAST INT64_C(50000)
#define SLEEP_MOST (2 * LP_NS_PER_MS)

/* A signal that lands between two sleeps interrupts neither. */
#define SLICE (100 * LP_NS_PER_MS)

void lp_backoff_start(struct lp_backoff *backoff, int64_t deadline)
{
    int64_t now = lp_now();

    backoff->deadline = deadline;
    backoff->slice = now + SLICE;
    backoff->step = 2 * SLEEP_LEAST;
    /* The address differs between threads, the time between processes. */
    backoff->random = (uint64_t)now ^ (uint64_t)(uintptr_t)backoff;
}

/* The next value of a splitmix64 sequence. */
static uint64_t backoff_random(struct lp_backoff *backoff)
{
    uint64_t z = backoff->random += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

int lp_backoff_sleep(struct lp_backoff *backoff, struct lp_error *err)
{
    int64_t now = lp_now();
    int64_t half = backoff->step / 2;
    int64_t until = now + half + (int64_t)(backoff_random(backoff) % (uint64_t)half);
    struct timespec at;

    if (now >= backoff->deadline)
        return lp_fail(err, LP_ETIMEOUT, "the deadline passed");
    if (now >= backoff->slice)
        return lp_fail(err, LP_EINTERRUPTED, "a pause to serve signals");
    if (until > backoff->deadline)
        until = backoff->deadline;
    if (backoff->step < SLEEP_MOST)
        backoff->step = backoff->step * 2 < SLEEP_MOST ? backoff->step * 2 : SLEEP_MOST;
    at.tv_sec = (time_t)(until / LP_NS_PER_S);
    at.tv_nsec = (long)(until % LP_NS_PER_S);
    if (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR)
        return lp_fail(err, LP_EINTERRUPTED, "a signal arrived");
    return 0;
}
