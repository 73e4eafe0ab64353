/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Removing a directory whose content somebody else chose: a container.
 */
#ifndef LP_SYS_DIRTREE_H
#define LP_SYS_DIRTREE_H

#include "base/error.h"

/* Removes the directory at `path` and all that is in it; one that is not there
 * is removed.  No link is followed, be it the last name of `path`, and nothing
 * that is mounted in the tree is entered.  However deep the tree is, this takes
 * two descriptors and no recursion.  What an error left is removed by calling
 * it again; the message names what could not be removed.
 *   LP_EINTERRUPTED  much was removed, and there is more: serve signals, then
 *                    call again
 *   LP_ESYSTEM       EBUSY for a mount in the tree, ENOTDIR for a path that is
 *                    no directory, ENOTEMPTY where others add to it, the rest */
int lp_dirtree_remove(const char *path, struct lp_error *err);

#endif
