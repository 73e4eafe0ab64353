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
from libc.stdint cimport INT64_MAX, UINT64_MAX, int64_t, uint8_t, uint64_t
from libc.string cimport memcmp

cdef extern from "pythread.h":
    unsigned long PyThread_get_thread_ident()

cdef extern from "sched.h" nogil:
    int sched_yield()

import os
from _thread import allocate_lock
from collections import deque

from libpod._kv_engine cimport *


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


include "_kv_errors.pxi"
include "_kv_database.pxi"
include "_kv_batch.pxi"
include "_kv_transaction.pxi"
include "_kv_bucket.pxi"
include "_kv_cursor.pxi"
