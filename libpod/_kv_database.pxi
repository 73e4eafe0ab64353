# SPDX-License-Identifier: Apache-2.0
# Part of _kv.pyx: databases, and which files are open.

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
