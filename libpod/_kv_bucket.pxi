# SPDX-License-Identifier: Apache-2.0
# Part of _kv.pyx: buckets and their pairs.

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
