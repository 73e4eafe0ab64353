/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a write transaction's changes to the current commit: what its end asks
 * for before it lets go of them.
 */
#ifndef LP_KV_COMMIT_H
#define LP_KV_COMMIT_H

#include "kv/snapshot.h"

/* Makes the write transaction the current commit.  Does not end it. */
int lp_commit(struct lp_tx *tx, struct lp_error *err);

#endif
