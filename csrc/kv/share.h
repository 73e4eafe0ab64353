/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may read and write when: threads of this process by the database's
 * mutex, other processes by flock() on the file.
 */
#ifndef LP_KV_SHARE_H
#define LP_KV_SHARE_H

#include "kv/db.h"

/* Waits for the right to read or to write.  On success the database's mutex is
 * HELD, so that the caller takes its snapshot in the same breath, and the
 * current meta is the file's.  On failure it is not. */
int lp_share_enter(struct lp_db *db, bool writable, struct lp_wait *wait, struct lp_error *err);

/* Gives the right back; with the mutex held, after the transaction was taken
 * off the list of readers. */
void lp_share_leave(struct lp_db *db, bool writable);

/* Takes flock() on `fd` for a session. */
int lp_share_lock(struct lp_db *db, bool exclusive, struct lp_wait *wait, struct lp_error *err);

#endif
