# SPDX-License-Identifier: Apache-2.0
# Part of _kv.pyx: transactions.

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
        cdef lp_error err
        cdef int rc = lp_tx_bucket(&bucket.handle, self.live(), slice_of(key), &err)

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
