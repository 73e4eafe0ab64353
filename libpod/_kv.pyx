# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3, boundscheck=False, wraparound=False
# cython: binding=False, embedsignature=False, autotestdict=False
"""The store's objects over csrc/kv: they convert and raise, no more.

Objects own downwards and look upwards: a cursor knows its bucket, a bucket its
transaction, a transaction its database.  Each asks the one above whether it is
still there before it touches memory.  The GIL is kept for everything that only
reads memory and released for waits, syncs and whole-file work; what runs
without it is taken off its object first, so that no other thread can reach it.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.list cimport PyList_Append
from libc.stdint cimport INT64_MAX, UINT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

cdef extern from "pythread.h":
    unsigned long PyThread_get_thread_ident()

cdef extern from "sched.h" nogil:
    int sched_yield()

import os
from _thread import allocate_lock
from collections import deque


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


# --- errors ------------------------------------------------------------------

cdef dict ERROR_NAMES = {
    LP_KV_EINVALID: "InvalidDatabase",
    LP_KV_EVERSION: "VersionMismatch",
    LP_KV_ECHECKSUM: "ChecksumError",
    LP_KV_ECORRUPT: "CorruptDatabase",
    LP_KV_EREPLACED: "DatabaseReplaced",
    LP_KV_EREADONLY: "DatabaseReadOnly",
    LP_KV_ENOTWRITABLE: "TransactionNotWritable",
    LP_KV_ENOBUCKET: "BucketNotFound",
    LP_KV_EEXISTS: "BucketExists",
    LP_KV_ENAME: "BucketNameRequired",
    LP_KV_EKEY: "KeyRequired",
    LP_KV_EKEYSIZE: "KeyTooLarge",
    LP_KV_EVALUESIZE: "ValueTooLarge",
    LP_KV_EINCOMPATIBLE: "IncompatibleValue",
    LP_KV_EMAXSIZE: "MaxSizeReached",
    LP_KV_EINDOUBT: "CommitInDoubt",
    LP_KV_EREFUSED: "WritesRefused",
    LP_KV_EDEADLOCK: "WouldDeadlock",
    LP_KV_EBUSY: "DatabaseBusy",
    LP_KV_ESAMEFILE: "AlreadyOpen",
}


cdef object make_error(int code, lp_error *err, str path, uint64_t page, int holder):
    from libpod import errors as common
    from libpod.kv import errors

    reason = err.message[:512].split(b"\0", 1)[0].decode("utf-8", "replace")
    text = f"{path}: {reason}"
    if code == LP_ENOMEM:
        return MemoryError(text)
    if code == LP_ETIMEOUT:
        return common.LockTimeout(text, holder=holder if holder > 0 else None)
    if code == LP_EINVALID:
        return common.InvalidArgument(text)
    if code == LP_KV_EFORK:
        return common.UsedAfterFork(text)
    if code == LP_ESYSTEM:
        return common.SystemCallError(text, errno=err.sys_errno)
    cls = getattr(errors, ERROR_NAMES[code])
    if code == LP_KV_EINDOUBT:
        return cls(text, errno=err.sys_errno, path=path,
                   remedy="open the database again and look whether it is there")
    if code in (LP_KV_EINVALID, LP_KV_EVERSION, LP_KV_ECHECKSUM):
        return cls(text, path=path, page=0, reason=reason)
    if code == LP_KV_ECORRUPT:
        if page == LP_KV_NO_PAGE:
            return cls(text, path=path, reason=reason)
        return cls(f"{path}: page {page}: {reason}", path=path, page=page, reason=reason)
    return cls(text, path=path)


cdef object raise_error(int code, lp_error *err, str path, uint64_t page=UINT64_MAX,
                        int holder=0):
    if code == LP_EINTERRUPTED:
        PyErr_CheckSignals()  # the handler has raised already where it meant to
        raise KeyboardInterrupt
    raise make_error(code, err, path, page, holder)


cdef int poll_signals(void *context) noexcept nogil:
    with gil:
        try:
            PyErr_CheckSignals()
            return 0
        except BaseException as error:
            (<list>context).append(error)
            return 1


# --- forks -------------------------------------------------------------------

cdef long forks = 0


def _after_fork():
    global forks
    forks += 1


os.register_at_fork(after_in_child=_after_fork)


# --- the files that are open -------------------------------------------------

cdef object registry_lock = allocate_lock()
cdef dict registry = {}  # (fork generation, device, inode): [readers, writers]


cdef object refuse_twice(str path, key, bint read_only):
    cdef list counts = registry.get(key)

    if counts is not None and (counts[1] or not read_only):
        from libpod.kv.errors import AlreadyOpen

        raise AlreadyOpen(f"{path}: this process has the database open already", path=path,
                          remedy="share the open Database among the threads")


# --- conversions -------------------------------------------------------------

cdef inline int64_t deadline_after(timeout) except -1:
    cdef double seconds

    if timeout is None:
        return INT64_MAX
    seconds = timeout
    if seconds > 1e9:
        return INT64_MAX
    return lp_now() + <int64_t>((seconds if seconds > 0 else 0) * 1e9)


cdef object to_bytes(value):
    """bytes of a bytes-like object; text is refused, not encoded."""
    cdef Py_buffer buffer

    if isinstance(value, bytes):
        return value
    PyObject_GetBuffer(value, &buffer, PyBUF_SIMPLE)
    try:
        return PyBytes_FromStringAndSize(<char *>buffer.buf, buffer.len)
    finally:
        PyBuffer_Release(&buffer)


cdef inline bytes as_bytes(value):
    if type(value) is bytes:
        return <bytes>value
    return <bytes>to_bytes(value)


cdef inline lp_slice slice_of(bytes value) noexcept:
    cdef lp_slice result

    result.data = <const uint8_t *>PyBytes_AS_STRING(value)
    result.size = <size_t>PyBytes_GET_SIZE(value)
    return result


cdef inline bytes bytes_of(lp_slice value):
    return PyBytes_FromStringAndSize(<const char *>value.data, <Py_ssize_t>value.size)


# --- the database ------------------------------------------------------------

@cython.no_gc_clear
cdef class Database:
    """An open database file; any thread may use it.

    Database(path, *, lock="session", read_only=False, create=True, sync=True,
    map=True, persist_freelist=True, timeout=None, page_size=0,
    initial_map_size=0, max_size=0, mode=0o600)

    lock: "session" holds the file's flock from open to close, as bbolt does, and
        readers never wait; "transaction" takes it for each transaction, so that
        processes share the file.
    sync: False gives up durability: a power cut may lose or break the file.
    map: False reads by pread, and survives a file that is truncated meanwhile.
    persist_freelist: False writes no list of free pages; the next first write
        rebuilds it from the whole file.
    timeout: seconds to wait for the lock, here and in begin(); None waits for ever.
    page_size: bytes, for a new file: a power of two; 0 for the system's.
    max_size: bytes the file may reach, 0 for no limit.
    mode: permissions of a new file.

    Raises InvalidDatabase and its subclasses, LockTimeout, AlreadyOpen,
    SystemCallError.
    """
    cdef lp_db *db
    cdef readonly str path
    cdef readonly bint read_only
    cdef readonly str lock
    cdef object timeout
    cdef bint shared  # lock mode "transaction"
    cdef bint mapped
    cdef Py_ssize_t calls  # threads inside the engine without the GIL
    cdef long generation
    cdef tuple key
    cdef void *first  # the open transactions, borrowed
    cdef object queue  # of batch(): tickets that wait for a leader
    cdef bint led
    cdef Py_ssize_t group  # how many the last commit of batch() served
    cdef object __weakref__

    def __cinit__(self, path, *, str lock="session", bint read_only=False, bint create=True,
                  bint sync=True, bint map=True, bint persist_freelist=True, timeout=None,
                  page_size=0, initial_map_size=0, max_size=0, mode=0o600):
        cdef lp_db_options options
        cdef bytes name = os.fsencode(path)

        self.path = os.fsdecode(name)
        if not name.startswith(b"/"):
            self.path = os.path.abspath(self.path)
        self.read_only = read_only
        self.timeout = timeout
        self.mapped = map
        self.generation = forks
        self.queue = deque()
        if lock not in ("session", "transaction"):
            from libpod.errors import InvalidArgument

            raise InvalidArgument(f'the lock mode is "session" or "transaction", not "{lock}"')
        self.lock = lock
        self.shared = lock == "transaction"
        options.lock = LP_LOCK_TRANSACTION if self.shared else LP_LOCK_SESSION
        options.read_only = read_only
        options.create = create
        options.sync = sync
        options.map = map
        options.freelist_in_memory = not persist_freelist
        options.page_size = page_size
        options.mode = mode
        options.initial_map = initial_map_size
        options.max_size = max_size
        self.open(os.fsencode(self.path), &options)

    cdef int open(self, bytes name, lp_db_options *options) except -1:
        cdef lp_error err
        cdef lp_wait wait
        cdef list caught = []
        cdef const char *path = name
        cdef uint64_t device, inode
        cdef int rc

        if registry:  # a second lock would wait for our own
            try:
                found = os.stat(name)
                with registry_lock:
                    refuse_twice(self.path, (forks, found.st_dev, found.st_ino), self.read_only)
            except FileNotFoundError:
                pass
        wait.deadline = deadline_after(self.timeout)
        wait.poll = poll_signals
        wait.context = <void *>caught
        wait.holder = 0
        with nogil:
            rc = lp_db_open(&self.db, path, options, &wait, &err)
        if rc != LP_OK:
            if caught:
                raise caught[0]
            raise_error(rc, &err, self.path, UINT64_MAX, wait.holder)
        lp_db_identity(self.db, &device, &inode)
        with registry_lock:
            key = (forks, device, inode)
            refuse_twice(self.path, key, self.read_only)
            registry.setdefault(key, [0, 0])[0 if self.read_only else 1] += 1
            self.key = key
        return 0

    cdef void forget(self):
        cdef list counts

        if self.key is None:
            return
        with registry_lock:
            counts = registry.get(self.key)
            if counts is not None:
                counts[0 if self.read_only else 1] -= 1
                if counts == [0, 0]:
                    del registry[self.key]
        self.key = None

    def __dealloc__(self):
        if self.db is not NULL:
            lp_db_close(self.db, NULL)
            self.db = NULL
            self.forget()

    def close(self):
        """Rolls back what is open and closes the file.

        Raises BufferError where a view is in use, DatabaseBusy where another
        thread is inside; the database is then still open.
        """
        cdef lp_error err
        cdef lp_db *db = self.db
        cdef int rc

        if db is NULL:
            return
        if self.calls > 0:
            from libpod.kv.errors import DatabaseBusy

            raise DatabaseBusy(f"{self.path}: a thread is inside the database", path=self.path)
        if self.generation == forks:
            self.end_all()
        rc = lp_db_close(db, &err)
        if rc != LP_OK:
            raise_error(rc, &err, self.path)
        self.db = NULL
        self.forget()

    cdef int end_all(self) except -1:
        cdef Transaction tx
        cdef void *at = self.first

        while at is not NULL:
            tx = <Transaction>at
            if tx.exports > 0:
                raise BufferError(f"{self.path}: a view of a transaction is in use")
            at = tx.next
        while self.first is not NULL:
            tx = <Transaction>self.first
            tx.end()
        return 0

    @property
    def closed(self):
        return self.db is NULL

    def __enter__(self):
        self.live()
        return self

    def __exit__(self, *exc_info):
        self.close()

    cdef lp_db *live(self) except NULL:
        if self.db is NULL:
            from libpod.kv.errors import DatabaseNotOpen

            raise DatabaseNotOpen(f"{self.path}: the database was closed", path=self.path)
        if self.generation != forks:
            from libpod.errors import UsedAfterFork

            raise UsedAfterFork(f"{self.path}: the database belongs to the parent process",
                                remedy="open it anew in the child")
        return self.db

    cdef int begin_raw(self, lp_tx **tx, bint write, timeout) except -1:
        cdef lp_db *db = self.live()
        cdef lp_error err
        cdef lp_wait wait
        cdef list caught
        cdef int rc

        wait.holder = 0
        if not write:  # mostly there is nothing to wait for
            wait.poll = NULL
            wait.deadline = LP_KV_TRY
            rc = lp_tx_begin(tx, db, False, &wait, &err)
            if rc == LP_OK:
                return 0
            if rc != LP_ETIMEOUT:
                raise_error(rc, &err, self.path)
        caught = []
        wait.deadline = deadline_after(timeout)
        wait.poll = poll_signals
        wait.context = <void *>caught
        self.calls += 1
        with nogil:
            rc = lp_tx_begin(tx, db, write, &wait, &err)
        self.calls -= 1
        if rc != LP_OK:
            if caught:
                raise caught[0]
            raise_error(rc, &err, self.path, UINT64_MAX, wait.holder)
        return 0

    def begin(self, bint write=False, timeout=None):
        """A transaction: a context manager that commits, or rolls back on an error.

        One writes at a time, in all processes. Raises LockTimeout after
        `timeout` seconds, WouldDeadlock where this thread would wait for itself,
        DatabaseReplaced where the file was moved, replaced or cut short.
        """
        cdef Transaction tx = Transaction.__new__(Transaction)

        tx.database = self
        self.begin_raw(&tx.tx, write, self.timeout if timeout is None else timeout)
        tx.writable = write
        tx.thread = PyThread_get_thread_ident()
        tx.link()
        return tx

    cdef int refuse_own(self) except -1:
        """Refuses to wait for others while they would wait for this thread."""
        cdef void *at = self.first
        cdef Transaction tx

        while at is not NULL:
            tx = <Transaction>at
            if tx.thread == PyThread_get_thread_ident() and (tx.writable or self.shared):
                from libpod.kv.errors import WouldDeadlock

                raise WouldDeadlock(f"{self.path}: this thread's transaction is open",
                                    path=self.path, remedy="end it before batch()")
            at = tx.next
        return 0

    cdef int await_turn(self, _Ticket ticket) except -1:
        try:
            ticket.wake.acquire()
        except BaseException:  # a signal's handler: nobody may wait for this thread now
            if ticket.state == TICKET_LEADER:
                lead(self, ticket)
            elif ticket in self.queue:
                self.queue.remove(ticket)
            raise
        return 0

    def batch(self, fn):
        """Runs fn(tx) in a write transaction together with other threads' calls.

        One thread runs what is queued and commits once for all; returns what fn
        returned when that is durable. fn may run more than once, and in another
        thread. Where it raises, the others go on without it and it runs once
        more, by itself: its error is raised here.
        """
        cdef _Ticket ticket = _Ticket.__new__(_Ticket, fn)

        self.live()
        self.refuse_own()
        if self.led:
            self.queue.append(ticket)
            self.await_turn(ticket)
        else:
            self.led = True
            ticket.state = TICKET_LEADER
        if ticket.state == TICKET_LEADER:
            lead(self, ticket)
        if ticket.state == TICKET_ALONE:
            with self.begin(write=True) as tx:
                return fn(tx)
        if ticket.error is not None:
            raise ticket.error
        return ticket.result

    def stats(self):
        """Counts of the file and of this handle; free pages are None before the first write."""
        cdef lp_db_stats_t stats

        lp_db_get_stats(self.live(), &stats)
        return {
            "page_size": stats.page_size, "pages": stats.pages,
            "free_pages": stats.free_pages if stats.freelist_loaded else None,
            "pending_pages": stats.pending_pages if stats.freelist_loaded else None,
            "txid": stats.txid, "file_size": stats.file_size, "readers": stats.readers,
            "commits": stats.commits, "pages_written": stats.pages_written,
            "runs_written": stats.runs_written, "syncs": stats.syncs,
            "writes_refused": bool(stats.writes_refused),
        }

    def check(self):
        """Every fault of the file as (page or None, what is wrong); empty where it is sound."""
        cdef lp_tx *tx = NULL
        cdef lp_error err
        cdef list faults = []
        cdef uint64_t page
        cdef int rc

        self.begin_raw(&tx, False, self.timeout)
        self.calls += 1
        with nogil:
            rc = lp_check(tx, add_fault, <void *>faults, &err)
            page = lp_tx_fault(tx)
            lp_tx_rollback(tx)
        self.calls -= 1
        if rc < 0:
            raise_error(rc, &err, self.path, page)
        return faults

    def dump(self, write):
        """Calls write(bytes) with the canonical text form of everything, in pieces."""
        cdef lp_tx *tx = NULL
        cdef lp_error err
        cdef list call = [write]
        cdef uint64_t page
        cdef int rc

        self.begin_raw(&tx, False, self.timeout)
        self.calls += 1
        with nogil:
            rc = lp_dump(tx, write_text, <void *>call, &err)
            page = lp_tx_fault(tx)
            lp_tx_rollback(tx)
        self.calls -= 1
        if len(call) > 1:
            raise call[1]
        if rc < 0:
            raise_error(rc, &err, self.path, page)

    def pages(self):
        """What each page is: (number, type, elements, overflow)."""
        cdef lp_tx *tx = NULL
        cdef lp_page_info info
        cdef lp_error err
        cdef uint64_t i = 0
        cdef list pages = []
        cdef int rc = LP_OK

        self.begin_raw(&tx, False, self.timeout)
        try:
            while rc == LP_OK and i < lp_tx_pages(tx):
                rc = lp_tx_page_info(tx, i, &info, &err)
                if rc == LP_OK:
                    pages.append((i, (<bytes>info.type).decode(), info.count, info.overflow))
                    i += 1
        finally:
            lp_tx_rollback(tx)
        if rc != LP_OK:
            raise_error(rc, &err, self.path)
        return pages

    def _backup(self, int fd):
        cdef lp_tx *tx = NULL
        cdef lp_error err
        cdef int rc

        self.begin_raw(&tx, False, self.timeout)
        self.calls += 1
        with nogil:
            rc = lp_backup(tx, fd, &err)
            lp_tx_rollback(tx)
        self.calls -= 1
        if rc < 0:
            raise_error(rc, &err, self.path)

    def _compact(self, Database into, uint64_t tx_bytes):
        cdef lp_tx *tx = NULL
        cdef lp_error err
        cdef lp_db *target = into.live()
        cdef uint64_t page
        cdef int rc

        self.begin_raw(&tx, False, self.timeout)
        self.calls += 1
        into.calls += 1
        with nogil:
            rc = lp_compact(tx, target, tx_bytes, &err)
            page = lp_tx_fault(tx)
            lp_tx_rollback(tx)
        self.calls -= 1
        into.calls -= 1
        if rc < 0:
            raise_error(rc, &err, self.path, page)

    def backup(self, path):
        """Writes the current commit to `path`, page by page, while writers go on."""
        from libpod.kv.copies import backup

        backup(self, path)

    def compact(self, path, *, tx_bytes=1 << 20):
        """Writes everything to a new database at `path`, without free pages."""
        from libpod.kv.copies import compact

        compact(self, path, tx_bytes)

    def __reduce__(self):
        raise TypeError("a database cannot be pickled")


cdef void add_fault(void *context, uint64_t page, const char *text) noexcept nogil:
    with gil:
        (<list>context).append((None if page == LP_KV_NO_PAGE else page, text.decode()))


cdef int write_text(void *context, const char *text, size_t size, lp_error *err) noexcept nogil:
    with gil:
        try:
            (<list>context)[0](text[:size])
            return 0
        except BaseException as error:
            (<list>context).append(error)
            return LP_EINTERRUPTED


# --- group commit ------------------------------------------------------------

cdef enum:
    TICKET_WAITS
    TICKET_LEADER  # its thread runs the next group
    TICKET_DONE
    TICKET_ALONE  # its fn failed in a group: its thread runs it by itself

cdef enum:
    GATHER_IDLE = 100  # offers of the processor that nobody took


@cython.final
cdef class _Ticket:
    cdef object fn
    cdef object wake
    cdef object result
    cdef object error
    cdef int state

    def __cinit__(self, fn):
        self.fn = fn
        self.wake = allocate_lock()
        self.wake.acquire()
        self.state = TICKET_WAITS

    cdef void finish(self, int state):
        self.state = state
        self.wake.release()


cdef _Ticket run_group(Database db, Transaction tx, list group):
    """Runs the group's functions; the ticket whose function failed, or None."""
    cdef _Ticket ticket

    for ticket in group:
        try:
            ticket.result = ticket.fn(tx)
        except Exception:
            return ticket
    return None


cdef int gather(Database db) except -1:
    """Lets those come whom the last commit served: most of them have more to do.

    No time is waited: the processor is offered to them, until as many queue as
    were served, or nobody came of it for a while.
    """
    cdef Py_ssize_t queued = len(db.queue)
    cdef Py_ssize_t before
    cdef int idle = 0

    while queued + 1 < db.group and idle < GATHER_IDLE:
        with nogil:
            sched_yield()
        before = queued
        queued = len(db.queue)
        idle = 0 if queued > before else idle + 1
    return 0


cdef void lead(Database db, _Ticket own) noexcept:
    """Commits what is queued, then hands the lead to the next in the queue.

    The queue is taken once the transaction is open: everybody who came while
    the commit before was synced is in this one.
    """
    cdef list group = [own]
    cdef _Ticket ticket, failed
    cdef Transaction tx = None
    cdef object error = None

    try:
        while group:
            tx = db.begin(True)
            gather(db)
            while db.queue:
                group.append(db.queue.popleft())
            db.group = len(group)
            failed = run_group(db, tx, group)
            if failed is None:
                tx.commit()
                break
            tx.rollback()
            group.remove(failed)
            if failed is own:
                own.state = TICKET_ALONE
            else:
                failed.finish(TICKET_ALONE)
    except BaseException as caught:
        error = caught
        if tx is not None:
            tx.rollback()
    for ticket in group:
        ticket.error = error
        if ticket is own:
            own.state = TICKET_DONE
        else:
            ticket.finish(TICKET_DONE)
    if db.queue:
        ticket = db.queue.popleft()
        ticket.finish(TICKET_LEADER)
    else:
        db.led = False


# --- transactions ------------------------------------------------------------

@cython.final
@cython.no_gc
@cython.freelist(16)
cdef class Transaction:
    cdef Database database
    cdef lp_tx *tx
    cdef readonly bint writable
    cdef unsigned long thread  # that began it
    cdef Py_ssize_t exports  # of views
    cdef void *next  # in the database's list, borrowed
    cdef void *previous

    cdef void link(self) noexcept:
        self.next = self.database.first
        self.previous = NULL
        if self.next is not NULL:
            (<Transaction>self.next).previous = <void *>self
        self.database.first = <void *>self

    cdef lp_tx *take(self) noexcept:
        """The engine's transaction, off this object and off the list."""
        cdef lp_tx *tx = self.tx

        self.tx = NULL
        if self.previous is not NULL:
            (<Transaction>self.previous).next = self.next
        else:
            self.database.first = self.next
        if self.next is not NULL:
            (<Transaction>self.next).previous = self.previous
        self.next = NULL
        self.previous = NULL
        return tx

    cdef void end(self) noexcept:
        if self.tx is NULL:
            return
        if self.database.generation != forks:  # the parent's: it is not ours to end
            self.take()
        else:
            lp_tx_rollback(self.take())

    def __dealloc__(self):
        self.end()

    cdef int refuse(self) except -1:
        from libpod.kv.errors import TransactionClosed

        raise TransactionClosed(f"{self.database.path}: the transaction has ended",
                                path=self.database.path)

    cdef inline lp_tx *live(self) except NULL:
        if self.tx is NULL:
            self.refuse()
        if self.database.generation != forks:
            self.database.live()
        return self.tx

    cdef int fail(self, int code, lp_error *err) except -1:
        raise_error(code, err, self.database.path, lp_tx_fault(self.tx))

    cdef int refuse_exports(self) except -1:
        raise BufferError(f"{self.database.path}: a view of the transaction is in use")

    def __enter__(self):
        self.live()
        return self

    def __exit__(self, kind, value, traceback):
        if self.tx is NULL:
            return
        if kind is None and self.writable:
            self.commit()
        else:
            self.rollback()

    def commit(self):
        cdef lp_error err
        cdef lp_tx *tx = self.live()
        cdef int rc

        if not self.writable:
            from libpod.kv.errors import TransactionNotWritable

            raise TransactionNotWritable(
                f"{self.database.path}: a read transaction cannot be committed",
                path=self.database.path)
        tx = self.take()
        self.database.calls += 1
        with nogil:
            rc = lp_tx_commit(tx, &err)
        self.database.calls -= 1
        if rc != LP_OK:
            raise_error(rc, &err, self.database.path)

    def rollback(self):
        if self.tx is NULL:
            return
        if self.exports > 0:
            self.refuse_exports()
        self.end()

    @property
    def closed(self):
        return self.tx is NULL

    @property
    def id(self):
        return lp_tx_id(self.live())

    @property
    def size(self):
        return lp_tx_pages(self.live()) * lp_tx_page_size(self.tx)

    cdef Bucket root(self):
        cdef Bucket bucket = Bucket.__new__(Bucket)

        bucket.handle = lp_tx_root(self.live())
        if bucket.handle is NULL:
            raise MemoryError
        bucket.transaction = self
        bucket.is_root = True
        return bucket

    def bucket(self, name):
        cdef bytes key = as_bytes(name)
        cdef Bucket bucket = Bucket.__new__(Bucket)
        cdef lp_bucket *root = lp_tx_root(self.live())
        cdef lp_error err
        cdef int rc

        if root is NULL:
            raise MemoryError
        rc = lp_bucket_open(&bucket.handle, root, slice_of(key), &err)
        bucket.transaction = self
        if rc != LP_OK:
            bucket.handle = NULL
            self.fail(rc, &err)
        return bucket

    def create_bucket(self, name):
        return self.root().create(as_bytes(name), False)

    def create_bucket_if_not_exists(self, name):
        return self.root().create(as_bytes(name), True)

    def delete_bucket(self, name):
        self.root().delete_bucket(name)

    def buckets(self):
        """The names of the buckets, in order."""
        return self.root().iterate(ITER_KEYS, None, None, None, False)

    def cursor(self):
        return self.root().cursor()

    def stats(self):
        return self.root().stats()


# --- buckets -----------------------------------------------------------------

cdef enum:
    ITER_ITEMS
    ITER_KEYS
    ITER_VALUES


@cython.final
@cython.no_gc
@cython.freelist(16)
cdef class Bucket:
    cdef readonly Transaction transaction
    cdef lp_bucket *handle
    cdef bint is_root

    def __dealloc__(self):
        if (self.handle is not NULL and not self.is_root and self.transaction.tx is not NULL
                and self.transaction.database.generation == forks):
            lp_bucket_release(self.handle)

    cdef inline lp_bucket *live(self) except NULL:
        self.transaction.live()
        return self.handle

    # --- buckets in it

    cdef Bucket create(self, bytes name, bint exist_ok):
        cdef Bucket bucket = Bucket.__new__(Bucket)
        cdef lp_error err
        cdef int rc = lp_bucket_create(&bucket.handle, self.live(), slice_of(name), exist_ok, &err)

        bucket.transaction = self.transaction
        if rc != LP_OK:
            bucket.handle = NULL
            self.transaction.fail(rc, &err)
        return bucket

    def bucket(self, name):
        cdef bytes key = as_bytes(name)
        cdef Bucket bucket = Bucket.__new__(Bucket)
        cdef lp_error err
        cdef int rc = lp_bucket_open(&bucket.handle, self.live(), slice_of(key), &err)

        bucket.transaction = self.transaction
        if rc != LP_OK:
            bucket.handle = NULL
            self.transaction.fail(rc, &err)
        return bucket

    def create_bucket(self, name):
        return self.create(as_bytes(name), False)

    def create_bucket_if_not_exists(self, name):
        return self.create(as_bytes(name), True)

    def delete_bucket(self, name):
        cdef bytes key = as_bytes(name)
        cdef lp_error err
        cdef int rc = lp_bucket_drop(self.live(), slice_of(key), &err)

        if rc != LP_OK:
            self.transaction.fail(rc, &err)

    # --- pairs

    def get(self, key, default=None):
        """The value, or `default` where there is none; a bucket is no value."""
        cdef bytes name = as_bytes(key)
        cdef lp_slice value
        cdef lp_error err
        cdef int rc = lp_bucket_get(self.live(), slice_of(name), &value, &err)

        if rc == 1:
            return PyBytes_FromStringAndSize(<const char *>value.data, <Py_ssize_t>value.size)
        if rc < 0:
            self.transaction.fail(rc, &err)
        return default

    def get_many(self, keys, default=None):
        cdef list values = []
        cdef lp_slice value
        cdef lp_error err
        cdef bytes name
        cdef int rc

        for key in keys:
            name = as_bytes(key)
            rc = lp_bucket_get(self.live(), slice_of(name), &value, &err)
            if rc < 0:
                self.transaction.fail(rc, &err)
            PyList_Append(values, bytes_of(value) if rc == 1 else default)
        return values

    def get_view(self, key):
        """The value without a copy, or None.

        A buffer taken of the view keeps the transaction open until it is
        released. In a write transaction, or without a map, it is a copy.
        """
        cdef bytes name = as_bytes(key)
        cdef lp_slice value
        cdef lp_error err
        cdef View view
        cdef int rc

        self.live()
        if self.transaction.database.shared:
            from libpod.kv.errors import ViewUnavailable

            raise ViewUnavailable(
                f'{self.transaction.database.path}: no views in lock mode "transaction"',
                path=self.transaction.database.path, remedy="use get()")
        rc = lp_bucket_get(self.handle, slice_of(name), &value, &err)
        if rc < 0:
            self.transaction.fail(rc, &err)
        if rc == 0:
            return None
        view = View.__new__(View)
        view.transaction = self.transaction
        if self.transaction.writable or not self.transaction.database.mapped:
            view.copy = bytes_of(value)  # the memory does not stay as it is
            value = slice_of(view.copy)
        view.value = value
        return view

    def __getitem__(self, key):
        cdef bytes name
        cdef lp_slice value
        cdef lp_error err
        cdef int rc

        if type(key) is slice:
            if key.step is not None and key.step != 1:
                raise ValueError("a slice of a bucket has no step")
            return self.iterate(ITER_ITEMS, None, key.start, key.stop, False)
        name = as_bytes(key)
        rc = lp_bucket_get(self.live(), slice_of(name), &value, &err)
        if rc == 1:
            return PyBytes_FromStringAndSize(<const char *>value.data, <Py_ssize_t>value.size)
        if rc < 0:
            self.transaction.fail(rc, &err)
        raise KeyError(key)

    def __contains__(self, key):
        cdef bytes name = as_bytes(key)
        cdef lp_slice value
        cdef lp_error err
        cdef int rc = lp_bucket_get(self.live(), slice_of(name), &value, &err)

        if rc < 0:
            self.transaction.fail(rc, &err)
        return rc == 1

    cdef int store(self, key, value) except -1:
        cdef bytes name = as_bytes(key)
        cdef bytes content = as_bytes(value)
        cdef lp_error err
        cdef int rc = lp_bucket_put(self.live(), slice_of(name), slice_of(content), &err)

        if rc != LP_OK:
            self.transaction.fail(rc, &err)
        return 0

    def put(self, key, value):
        self.store(key, value)

    def __setitem__(self, key, value):
        self.store(key, value)

    def delete(self, key):
        """Whether the key was there."""
        cdef bytes name = as_bytes(key)
        cdef lp_error err
        cdef int rc = lp_bucket_delete(self.live(), slice_of(name), &err)

        if rc < 0:
            self.transaction.fail(rc, &err)
        return rc == 1

    def __delitem__(self, key):
        if not self.delete(key):
            raise KeyError(key)

    # --- going through

    cdef Iterator iterate(self, int kind, prefix, start, stop, bint reverse):
        cdef Iterator iterator = Iterator.__new__(Iterator)
        cdef lp_error err
        cdef int rc = lp_cursor_open(&iterator.handle, self.live(), &err)

        iterator.bucket = self
        if rc != LP_OK:
            iterator.handle = NULL
            self.transaction.fail(rc, &err)
        iterator.kind = kind
        iterator.reverse = reverse
        iterator.prefix = b"" if prefix is None else as_bytes(prefix)
        iterator.start = None if start is None else as_bytes(start)
        iterator.stop = None if stop is None else as_bytes(stop)
        return iterator

    def items(self, prefix=None, start=None, stop=None, bint reverse=False):
        """Pairs in key order, from `start` to before `stop`; a bucket's value is None."""
        return self.iterate(ITER_ITEMS, prefix, start, stop, reverse)

    def keys(self, prefix=None, start=None, stop=None, bint reverse=False):
        return self.iterate(ITER_KEYS, prefix, start, stop, reverse)

    def values(self, prefix=None, start=None, stop=None, bint reverse=False):
        return self.iterate(ITER_VALUES, prefix, start, stop, reverse)

    def __iter__(self):
        return self.iterate(ITER_KEYS, None, None, None, False)

    def cursor(self):
        cdef Cursor cursor = Cursor.__new__(Cursor)
        cdef lp_error err
        cdef int rc = lp_cursor_open(&cursor.handle, self.live(), &err)

        cursor.bucket = self
        if rc != LP_OK:
            cursor.handle = NULL
            self.transaction.fail(rc, &err)
        return cursor

    cdef uint64_t measure(self, prefix, uint64_t *size) except? 0xffffffffffffffff:
        cdef bytes head = b"" if prefix is None else as_bytes(prefix)
        cdef lp_error err
        cdef uint64_t count = 0
        cdef int rc = lp_bucket_count(self.live(), slice_of(head), &count, size, &err)

        if rc != LP_OK:
            self.transaction.fail(rc, &err)
        return count

    def count(self, prefix=None):
        """How many keys begin with `prefix`, buckets among them."""
        return self.measure(prefix, NULL)

    def total(self, prefix=None):
        """How many keys begin with `prefix`, and the bytes of those keys and values."""
        cdef uint64_t size = 0
        cdef uint64_t count = self.measure(prefix, &size)

        return count, size

    # --- sequence and shape

    @property
    def sequence(self):
        cdef uint64_t sequence = 0
        cdef lp_error err
        cdef int rc = lp_bucket_sequence(self.live(), &sequence, &err)

        if rc != LP_OK:
            self.transaction.fail(rc, &err)
        return sequence

    @sequence.setter
    def sequence(self, uint64_t value):
        cdef lp_error err
        cdef int rc = lp_bucket_set_sequence(self.live(), value, &err)

        if rc != LP_OK:
            self.transaction.fail(rc, &err)

    def next_sequence(self):
        value = (self.sequence + 1) & UINT64_MAX
        self.sequence = value
        return value

    def stats(self):
        cdef lp_bucket_stats_t stats
        cdef lp_error err
        cdef int rc = lp_bucket_get_stats(self.live(), &stats, &err)

        if rc != LP_OK:
            self.transaction.fail(rc, &err)
        return {
            "keys": stats.keys, "buckets": stats.buckets, "inline_buckets": stats.inline_buckets,
            "depth": stats.depth, "branch_pages": stats.branch_pages,
            "branch_overflow": stats.branch_overflow, "leaf_pages": stats.leaf_pages,
            "leaf_overflow": stats.leaf_overflow, "branch_bytes": stats.branch_bytes,
            "leaf_bytes": stats.leaf_bytes, "inline_bytes": stats.inline_bytes,
        }


# --- cursors and iterators ---------------------------------------------------

cdef inline object pair_of(lp_item *item):
    return (bytes_of(item.key), None if item.is_bucket else bytes_of(item.value))


@cython.final
@cython.no_gc
cdef class Cursor:
    """A place in a bucket: each move gives (key, value or None), or None at the end.

    It stays right under every change: where its pair was deleted, next() gives
    the one that followed and prev() the one before.
    """

    cdef readonly Bucket bucket
    cdef lp_cursor *handle

    def __dealloc__(self):
        if self.handle is not NULL and self.bucket.transaction.tx is not NULL:
            lp_cursor_close(self.handle)

    cdef inline lp_cursor *live(self) except NULL:
        self.bucket.transaction.live()
        return self.handle

    cdef object result(self, int rc, lp_item *item, lp_error *err):
        if rc == 1:
            return pair_of(item)
        if rc < 0:
            self.bucket.transaction.fail(rc, err)
        return None

    def first(self):
        cdef lp_item item
        cdef lp_error err
        return self.result(lp_cursor_first(self.live(), &item, &err), &item, &err)

    def last(self):
        cdef lp_item item
        cdef lp_error err
        return self.result(lp_cursor_last(self.live(), &item, &err), &item, &err)

    def next(self):
        cdef lp_item item
        cdef lp_error err
        return self.result(lp_cursor_next(self.live(), &item, &err), &item, &err)

    def prev(self):
        cdef lp_item item
        cdef lp_error err
        return self.result(lp_cursor_prev(self.live(), &item, &err), &item, &err)

    def seek(self, key):
        cdef bytes name = as_bytes(key)
        cdef lp_item item
        cdef lp_error err
        return self.result(lp_cursor_seek(self.live(), slice_of(name), &item, &err), &item, &err)

    def delete(self):
        cdef lp_error err
        cdef int rc = lp_cursor_delete(self.live(), &err)

        if rc < 0:
            self.bucket.transaction.fail(rc, &err)
        return rc == 1

    def __iter__(self):
        return self

    def __next__(self):
        cdef lp_item item
        cdef lp_error err
        cdef int rc = lp_cursor_next(self.live(), &item, &err)

        if rc == 1:
            return pair_of(&item)
        if rc < 0:
            self.bucket.transaction.fail(rc, &err)
        raise StopIteration


@cython.final
@cython.no_gc
cdef class Iterator:
    """Keys, values or items of a bucket from `start` up to, not including, `stop`."""

    cdef Bucket bucket
    cdef lp_cursor *handle
    cdef int kind
    cdef bint reverse
    cdef bint started
    cdef bytes prefix
    cdef bytes start
    cdef bytes stop

    def __dealloc__(self):
        if self.handle is not NULL and self.bucket.transaction.tx is not NULL:
            lp_cursor_close(self.handle)

    def __iter__(self):
        return self

    cdef int begin(self, lp_item *item, lp_error *err) except? -1:
        cdef bytes low = self.prefix
        cdef bytes high = self.stop
        cdef int rc

        self.started = True
        if not self.reverse:
            if self.start is not None and self.start > low:
                low = self.start
            return lp_cursor_seek(self.handle, slice_of(low), item, err)
        after = prefix_end(self.prefix)
        if after is not None and (high is None or after < high):
            high = after
        if high is None:
            return lp_cursor_last(self.handle, item, err)
        rc = lp_cursor_seek(self.handle, slice_of(high), item, err)
        if rc < 0:
            return rc
        return lp_cursor_prev(self.handle, item, err)

    cdef bint inside(self, lp_slice key):
        cdef lp_slice bound = slice_of(self.prefix)

        if bound.size > 0 and (key.size < bound.size
                               or memcmp(key.data, bound.data, bound.size) != 0):
            return False
        if self.reverse:
            return self.start is None or not less(key, slice_of(self.start))
        return self.stop is None or less(key, slice_of(self.stop))

    def __next__(self):
        cdef lp_item item
        cdef lp_error err
        cdef int rc

        if self.handle is NULL:
            raise StopIteration
        self.bucket.transaction.live()
        if not self.started:
            rc = self.begin(&item, &err)
        elif self.reverse:
            rc = lp_cursor_prev(self.handle, &item, &err)
        else:
            rc = lp_cursor_next(self.handle, &item, &err)
        if rc < 0:
            self.bucket.transaction.fail(rc, &err)
        if rc == 0 or not self.inside(item.key):
            lp_cursor_close(self.handle)
            self.handle = NULL
            raise StopIteration
        if self.kind == ITER_KEYS:
            return bytes_of(item.key)
        if self.kind == ITER_VALUES:
            return None if item.is_bucket else bytes_of(item.value)
        return pair_of(&item)


cdef inline bint less(lp_slice a, lp_slice b) noexcept:
    cdef int order = memcmp(a.data, b.data, a.size if a.size < b.size else b.size)

    return order < 0 or (order == 0 and a.size < b.size)


cdef object prefix_end(bytes prefix):
    """The smallest key greater than all that begin with the prefix, or None."""
    head = prefix.rstrip(b"\xff")
    if not head:
        return None
    last = len(head) - 1
    return head[:last] + bytes([head[last] + 1])


# --- views -------------------------------------------------------------------

@cython.final
@cython.no_gc
cdef class View:
    cdef Transaction transaction
    cdef lp_slice value
    cdef bytes copy  # where the view has memory of its own

    cdef int live(self) except -1:
        if self.copy is None:
            if self.transaction is None:
                from libpod.errors import Closed

                raise Closed("the view was released")
            self.transaction.live()
        return 0

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        self.live()
        PyBuffer_FillInfo(buffer, self, <void *>self.value.data, <Py_ssize_t>self.value.size, 1,
                          flags)
        if self.copy is None:
            self.transaction.exports += 1

    def __releasebuffer__(self, Py_buffer *buffer):
        if self.copy is None:
            self.transaction.exports -= 1

    def __len__(self):
        self.live()
        return <Py_ssize_t>self.value.size

    def __bytes__(self):
        self.live()
        return bytes_of(self.value)
