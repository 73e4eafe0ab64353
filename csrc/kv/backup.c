/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot as a file of its own: both metas name it, then its pages as they
 * are.  Pages that are free in the snapshot may be written meanwhile and come
 * out as anything; nothing reads them.
 */
#include "base/cleanup.h"
#include "kv/page.h"
#include "kv/snapshot.h"

#include <stdlib.h>
#include <unistd.h>

#define BACKUP_CHUNK ((uint64_t)1 << 20)

static int backup_write(int fd, const uint8_t *data, size_t size, struct lp_error *err)
{
    while (size > 0) {
        ssize_t n = LP_RETRY(write(fd, data, size));

        if (n < 0)
            return lp_fail_errno(err, "cannot write the copy");
        data += n;
        size -= (size_t)n;
    }
    return LP_OK;
}

static int backup_metas(struct lp_tx *tx, int fd, struct lp_error *err)
{
    LP_FREE uint8_t *pages = calloc(2, (size_t)tx->page_size);
    struct lp_meta meta = tx->meta;
    uint64_t newest;

    if (pages == NULL)
        return lp_fail(err, LP_ENOMEM, "no memory for two pages");
    if (tx->writable)
        meta.txid--;
    newest = meta.txid % 2;
    lp_meta_encode(&meta, pages + newest * tx->page_size, newest);
    meta.txid -= meta.txid > 0 ? 1 : 0;
    lp_meta_encode(&meta, pages + (1 - newest) * tx->page_size, 1 - newest);
    return backup_write(fd, pages, 2 * (size_t)tx->page_size, err);
}

int lp_backup(struct lp_tx *tx, int fd, struct lp_error *err)
{
    LP_FREE uint8_t *buffer = NULL;
    uint64_t at = 2 * tx->page_size;
    uint64_t end = tx->meta.pages * tx->page_size;
    int rc = backup_metas(tx, fd, err);

    if (rc == LP_OK && tx->base == NULL) {
        buffer = malloc(BACKUP_CHUNK);
        if (buffer == NULL)
            return lp_fail(err, LP_ENOMEM, "no memory for the copy");
    }
    while (rc == LP_OK && at < end) {
        size_t size = (size_t)(end - at < BACKUP_CHUNK ? end - at : BACKUP_CHUNK);
        const uint8_t *data = buffer;

        if (buffer != NULL)
            rc = lp_file_read(&tx->db->file, at, buffer, size, err);
        else
            data = tx->base + at;
        if (rc == LP_OK)
            rc = backup_write(fd, data, size, err);
        at += size;
    }
    if (rc == LP_OK && fsync(fd) < 0)
        rc = lp_fail_errno(err, "cannot sync the copy");
    return rc;
}
