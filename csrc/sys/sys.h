/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The codes of this room, beside those of base/error.h.
 */
#ifndef LP_SYS_SYS_H
#define LP_SYS_SYS_H

enum {
    LP_EBUSY = -100,     /* somebody else holds the lock */
    LP_EGONE = -101,     /* the file is no longer, or never was, what its path names */
    LP_EREFUSED = -102,  /* others could reach or steer the file, directory or link */
    LP_ECLOSED = -103,   /* the lock object was closed */
    LP_EHELD = -104,     /* this thread holds the lock already */
    LP_ENOTHELD = -105,  /* this thread does not hold the lock as it would have to */
    LP_EFULL = -106,     /* every lock is allocated */
    LP_ETAKEN = -107,    /* that lock is allocated already */
    LP_EBROKEN = -108,   /* a lock that nobody can take any more */
    LP_EFOREIGN = -109,  /* the file is not what it should be */
    LP_ENOTBUILT = -110, /* not on this platform */
};

#endif
