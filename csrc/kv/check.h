/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the check finds out beside faults, for the engine's own modules; the
 * check itself is in kv.h.
 */
#ifndef LP_KV_CHECK_H
#define LP_KV_CHECK_H

#include "kv/snapshot.h"

/* The pages that the snapshot's tree does not reach, for a file whose freelist
 * was not written.  LP_KV_ECORRUPT at the tree's first fault. */
int lp_check_find_free(struct lp_tx *tx, struct lp_extents *free, struct lp_error *err);

#endif
