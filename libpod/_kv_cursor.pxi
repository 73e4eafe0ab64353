# SPDX-License-Identifier: Apache-2.0
# Part of _kv.pyx: cursors, iterators, and views of values.

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
