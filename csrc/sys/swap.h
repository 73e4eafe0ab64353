/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that are replaced whole, again and again.
 */
#ifndef LP_SYS_SWAP_H
#define LP_SYS_SWAP_H

#include "base/error.h"

/* Puts the file at `fresh` in the place of the one at `path`, at once for
 * whoever looks.  What was there is at `fresh` then; where there was nothing,
 * or where the kernel or the file system cannot exchange two names, nothing
 * is.  Both paths are on one file system.  LP_ESYSTEM. */
int lp_swap_files(const char *fresh, const char *path, struct lp_error *err);

#endif
