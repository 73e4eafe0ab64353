# SPDX-License-Identifier: Apache-2.0
"""What csrc/kv offers: the declarations of its header."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "base/error.h" nogil:
    enum:
        LP_OK
        LP_ESYSTEM
        LP_ENOMEM
        LP_EINVALID
        LP_ETIMEOUT
        LP_EINTERRUPTED

    struct lp_error:
        int code
        int sys_errno
        char message[512]

cdef extern from "base/clock.h" nogil:
    int64_t lp_now()

cdef extern from "kv/kv.h" nogil:
    enum:
        LP_KV_EINVALID
        LP_KV_EVERSION
        LP_KV_ECHECKSUM
        LP_KV_ECORRUPT
        LP_KV_EREPLACED
        LP_KV_EREADONLY
        LP_KV_ENOTWRITABLE
        LP_KV_ENOBUCKET
        LP_KV_EEXISTS
        LP_KV_ENAME
        LP_KV_EKEY
        LP_KV_EKEYSIZE
        LP_KV_EVALUESIZE
        LP_KV_EINCOMPATIBLE
        LP_KV_EMAXSIZE
        LP_KV_EINDOUBT
        LP_KV_EREFUSED
        LP_KV_EDEADLOCK
        LP_KV_EFORK
        LP_KV_EBUSY
        LP_KV_ESAMEFILE

    uint64_t LP_KV_NO_PAGE
    int64_t LP_KV_TRY

    struct lp_db:
        pass
    struct lp_tx:
        pass
    struct lp_bucket:
        pass
    struct lp_cursor:
        pass

    struct lp_slice:
        const uint8_t *data
        size_t size

    struct lp_item:
        lp_slice key
        lp_slice value
        bint is_bucket

    enum lp_lock_mode:
        LP_LOCK_SESSION
        LP_LOCK_TRANSACTION

    struct lp_db_options:
        lp_lock_mode lock
        bint read_only
        bint create
        bint sync
        bint map
        bint freelist_in_memory
        uint32_t page_size
        unsigned int mode
        uint64_t initial_map
        uint64_t max_size

    struct lp_wait:
        int64_t deadline
        int (*poll)(void *context) noexcept nogil
        void *context
        int holder

    struct lp_db_stats_t "lp_db_stats":
        uint64_t page_size
        uint64_t pages
        uint64_t free_pages
        uint64_t pending_pages
        uint64_t txid
        uint64_t file_size
        uint64_t readers
        uint64_t commits
        uint64_t pages_written
        uint64_t runs_written
        uint64_t syncs
        bint freelist_loaded
        bint writes_refused

    struct lp_bucket_stats_t "lp_bucket_stats":
        uint64_t keys
        uint64_t buckets
        uint64_t inline_buckets
        uint64_t depth
        uint64_t branch_pages
        uint64_t branch_overflow
        uint64_t leaf_pages
        uint64_t leaf_overflow
        uint64_t branch_bytes
        uint64_t leaf_bytes
        uint64_t inline_bytes

    struct lp_page_info:
        uint64_t id
        const char *type
        uint64_t count
        uint64_t overflow

    int lp_db_open(lp_db **, const char *, const lp_db_options *, lp_wait *, lp_error *)
    int lp_db_close(lp_db *, lp_error *)
    void lp_db_identity(const lp_db *, uint64_t *, uint64_t *)
    void lp_db_get_stats "lp_db_stats"(lp_db *, lp_db_stats_t *)
    int lp_tx_begin(lp_tx **, lp_db *, bint, lp_wait *, lp_error *)
    int lp_tx_commit(lp_tx *, lp_error *)
    void lp_tx_rollback(lp_tx *)
    uint64_t lp_tx_id(const lp_tx *)
    uint64_t lp_tx_pages(const lp_tx *)
    uint64_t lp_tx_page_size(const lp_tx *)
    uint64_t lp_tx_fault(const lp_tx *)
    int lp_tx_page_info(lp_tx *, uint64_t, lp_page_info *, lp_error *)
    lp_bucket *lp_tx_root(lp_tx *)
    int lp_tx_bucket(lp_bucket **, lp_tx *, lp_slice, lp_error *)
    int lp_bucket_open(lp_bucket **, lp_bucket *, lp_slice, lp_error *)
    int lp_bucket_create(lp_bucket **, lp_bucket *, lp_slice, bint, lp_error *)
    void lp_bucket_release(lp_bucket *)
    int lp_bucket_drop(lp_bucket *, lp_slice, lp_error *)
    int lp_bucket_get(lp_bucket *, lp_slice, lp_slice *, lp_error *)
    int lp_bucket_put(lp_bucket *, lp_slice, lp_slice, lp_error *)
    int lp_bucket_delete(lp_bucket *, lp_slice, lp_error *)
    int lp_bucket_sequence(lp_bucket *, uint64_t *, lp_error *)
    int lp_bucket_set_sequence(lp_bucket *, uint64_t, lp_error *)
    int lp_bucket_count(lp_bucket *, lp_slice, uint64_t *, uint64_t *, lp_error *)
    int lp_bucket_get_stats "lp_bucket_stats"(lp_bucket *, lp_bucket_stats_t *, lp_error *)
    int lp_cursor_open(lp_cursor **, lp_bucket *, lp_error *)
    void lp_cursor_close(lp_cursor *)
    int lp_cursor_first(lp_cursor *, lp_item *, lp_error *)
    int lp_cursor_last(lp_cursor *, lp_item *, lp_error *)
    int lp_cursor_next(lp_cursor *, lp_item *, lp_error *)
    int lp_cursor_prev(lp_cursor *, lp_item *, lp_error *)
    int lp_cursor_seek(lp_cursor *, lp_slice, lp_item *, lp_error *)
    int lp_cursor_delete(lp_cursor *, lp_error *)
    int lp_check(lp_tx *, void (*)(void *, uint64_t, const char *) noexcept nogil, void *,
                 lp_error *)
    int lp_dump(lp_tx *, int (*)(void *, const char *, size_t, lp_error *) noexcept nogil, void *,
                lp_error *)
    int lp_backup(lp_tx *, int, lp_error *)
    int lp_compact(lp_tx *, lp_db *, uint64_t, lp_error *)
