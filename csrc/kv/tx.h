/* SPDX-License-Identifier: Apache-2.0 */
/* A transaction's life, for the engine's own modules; the rest of it is in kv.h. */
#ifndef LP_KV_TX_H
#define LP_KV_TX_H

#include "kv/kv.h"

/* Frees an ended transaction's memory; NULL is fine. */
void lp_tx_free(struct lp_tx *tx);

#endif
