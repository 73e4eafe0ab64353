# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3, binding=True, auto_pickle=False, autotestdict=False
"""Locks on files and in shared memory: what is called often.

Converts; libpod.lockfile and libpod.locks.shm have the policy and the words.

A free lock is taken and released without giving the GIL up, which would cost as
much as the lock; waits release it and serve signals.  Signals are served only
while nothing is held, so a handler that raises cannot lose a lock.
"""

from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t, uint32_t
from posix.types cimport mode_t, pid_t

cdef extern from "base/error.h":
    cdef struct lp_error:
        int code
        int sys_errno
        char message[512]
    enum:
        LP_EINVALID
        LP_ETIMEOUT
        LP_EINTERRUPTED

cdef extern from "base/clock.h":
    int64_t LP_FOREVER

cdef extern from "sys/sys.h":
    enum:
        LP_EBUSY
        LP_EGONE
        LP_EREFUSED
        LP_ECLOSED
        LP_EHELD
        LP_ENOTHELD
        LP_EFULL
        LP_ETAKEN
        LP_EBROKEN
        LP_EFOREIGN
        LP_ENOTBUILT

cdef extern from "sys/lock.h":
    cdef struct lp_lock
    int lp_lock_take(lp_lock *) noexcept nogil
    int lp_lock_try(lp_lock *, int, lp_error *) noexcept nogil
    int lp_lock_wait(lp_lock *, int, int64_t, lp_error *) noexcept nogil
    int lp_lock_fd(const lp_lock *) noexcept nogil
    int lp_lock_unlock(lp_lock *) noexcept nogil
    int lp_lock_unlink(lp_lock *, lp_error *) noexcept nogil
    void lp_lock_close(lp_lock *) noexcept nogil
    void lp_lock_abandon(lp_lock *) noexcept nogil
    void lp_lock_free(lp_lock *) noexcept nogil

cdef extern from "sys/lockfile.h":
    int lp_lockfile_create(const char *, lp_lock **, lp_error *) noexcept nogil
    int lp_lockfile_open(const char *, lp_lock **, lp_error *) noexcept nogil

cdef extern from "sys/filelock.h":
    int lp_filelock_open(const char *, mode_t, lp_lock **, lp_error *) noexcept nogil

cdef extern from "sys/shmlock.h":
    cdef struct lp_shm
    int lp_shm_open(const char *, uint32_t, lp_shm **, lp_error *) noexcept nogil
    uint32_t lp_shm_limit(const lp_shm *) noexcept nogil
    int lp_shm_allocate(lp_shm *, int64_t, uint32_t *, lp_error *) noexcept nogil
    int lp_shm_allocate_given(lp_shm *, uint32_t, int64_t, lp_error *) noexcept nogil
    int lp_shm_release(lp_shm *, uint32_t, int64_t, lp_error *) noexcept nogil
    int lp_shm_release_all(lp_shm *, int64_t, lp_error *) noexcept nogil
    int lp_shm_allocated(lp_shm *, int64_t, uint32_t *, lp_error *) noexcept nogil
    int lp_shm_lock(lp_shm *, uint32_t, int64_t, lp_error *) noexcept nogil
    int lp_shm_unlock(lp_shm *, uint32_t) noexcept nogil
    pid_t lp_shm_holder(lp_shm *, uint32_t) noexcept nogil
    void lp_shm_close(lp_shm *) noexcept nogil
    void lp_shm_free(lp_shm *) noexcept nogil

INVALID = LP_EINVALID
TIMEOUT = LP_ETIMEOUT
BUSY = LP_EBUSY
GONE = LP_EGONE
REFUSED = LP_EREFUSED
CLOSED = LP_ECLOSED
HELD = LP_EHELD
NOT_HELD = LP_ENOTHELD
FULL = LP_EFULL
TAKEN = LP_ETAKEN
BROKEN = LP_EBROKEN
FOREIGN = LP_EFOREIGN
NOT_BUILT = LP_ENOTBUILT
FOREVER = LP_FOREVER


cdef object told(int code, lp_error *err):
    """(code, errno, text) of a failed call."""
    return code, err.sys_errno, err.message.decode("utf-8", "replace")


cdef class Handle:
    """A struct lp_lock, for libpod.lockfile to derive from.

    Methods with an underscore return None, or the code, errno and text of their
    failure; the others leave that to the class below.
    """

    cdef lp_lock *lock_
    cdef object __weakref__

    def __dealloc__(self):
        lp_lock_free(self.lock_)

    cdef int check(self, bint is_open) except -1:
        if (self.lock_ is not NULL) != is_open:
            raise RuntimeError("a lock is opened once, and before its use")
        return 0

    def _open(self, bytes path, bint create):
        cdef lp_error err
        cdef const char *name = path
        cdef int code
        self.check(False)
        with nogil:
            if create:
                code = lp_lockfile_create(name, &self.lock_, &err)
            else:
                code = lp_lockfile_open(name, &self.lock_, &err)
        return told(code, &err) if code else None

    def _open_record(self, bytes path, mode_t mode):
        cdef lp_error err
        cdef const char *name = path
        cdef int code
        self.check(False)
        with nogil:
            code = lp_filelock_open(name, mode, &self.lock_, &err)
        return told(code, &err) if code else None

    def lock(self, timeout=None, bint shared=False):
        """Takes the lock; Ctrl-C and other signals are served while it waits.

        Args:
            timeout: seconds to wait, 0 for a single try, None for ever.
            shared: a shared lock instead of an exclusive one.

        Raises:
            LockTimeout: it was not free in time; names the holder where it can be seen.
            LockGone: the file was removed or replaced.
            Closed, UsedAfterFork: this object is of no use any more.
            InternalError: this thread holds the lock already.
        """
        self.check(True)
        if shared or lp_lock_take(self.lock_):
            self._wait(timeout, shared)

    def unlock(self):
        """Releases the lock.

        Raises:
            InternalError: this thread does not hold it.
            Closed, UsedAfterFork: as for `lock()`.
        """
        cdef int code
        self.check(True)
        code = lp_lock_unlock(self.lock_)
        if code:
            raise self._not_unlocked(code)

    def fileno(self):
        """The open file, for whoever holds the lock, until he releases it; not to be closed."""
        self.check(True)
        return lp_lock_fd(self.lock_)

    def __enter__(self):
        self.check(True)
        if lp_lock_take(self.lock_):
            self._wait(None, False)
        return self

    def __exit__(self, *exc_info):
        cdef int code
        self.check(True)
        code = lp_lock_unlock(self.lock_)
        # The block may have closed the lock, which released it.
        if code and (self._forked or code != LP_ECLOSED):
            raise self._not_unlocked(code)

    def _attempt(self, bint shared):
        cdef lp_error err
        cdef int code
        self.check(True)
        code = lp_lock_try(self.lock_, shared, &err)
        return told(code, &err) if code else None

    def _await(self, bint shared, int64_t deadline):
        cdef lp_error err
        cdef int code = LP_EINTERRUPTED
        self.check(True)
        while code == LP_EINTERRUPTED:
            PyErr_CheckSignals()
            with nogil:
                code = lp_lock_wait(self.lock_, shared, deadline, &err)
        return told(code, &err) if code else None

    def _unlink(self):
        cdef lp_error err
        cdef int code
        self.check(True)
        with nogil:
            code = lp_lock_unlink(self.lock_, &err)
        return told(code, &err) if code else None

    def _close(self):
        if self.lock_ is not NULL:
            lp_lock_close(self.lock_)

    def _abandon(self):
        if self.lock_ is not NULL:
            lp_lock_abandon(self.lock_)


cdef class Segment:
    """A struct lp_shm; failures are as of `Handle`.

    Waits are until `deadline`, of the monotonic
    clock; signals are served meanwhile, and while nothing is held.
    """

    cdef lp_shm *shm

    def __dealloc__(self):
        lp_shm_free(self.shm)

    cdef int check(self, bint is_open) except -1:
        if (self.shm is not NULL) != is_open:
            raise RuntimeError("a segment is opened once, and before its use")
        return 0

    def open(self, bytes path, uint32_t num_locks):
        cdef lp_error err
        cdef const char *name = path
        cdef int code
        self.check(False)
        with nogil:
            code = lp_shm_open(name, num_locks, &self.shm, &err)
        return told(code, &err) if code else None

    def limit(self):
        self.check(True)
        return lp_shm_limit(self.shm)

    def allocate(self, int64_t deadline):
        """The number, or the failure."""
        cdef lp_error err
        cdef uint32_t number = 0
        cdef int code = LP_EINTERRUPTED
        self.check(True)
        while code == LP_EINTERRUPTED:
            PyErr_CheckSignals()
            with nogil:
                code = lp_shm_allocate(self.shm, deadline, &number, &err)
        return told(code, &err) if code else number

    def allocate_given(self, uint32_t number, int64_t deadline):
        cdef lp_error err
        cdef int code = LP_EINTERRUPTED
        self.check(True)
        while code == LP_EINTERRUPTED:
            PyErr_CheckSignals()
            with nogil:
                code = lp_shm_allocate_given(self.shm, number, deadline, &err)
        return told(code, &err) if code else None

    def release(self, uint32_t number, int64_t deadline):
        cdef lp_error err
        cdef int code = LP_EINTERRUPTED
        self.check(True)
        while code == LP_EINTERRUPTED:
            PyErr_CheckSignals()
            with nogil:
                code = lp_shm_release(self.shm, number, deadline, &err)
        return told(code, &err) if code else None

    def release_all(self, int64_t deadline):
        cdef lp_error err
        cdef int code = LP_EINTERRUPTED
        self.check(True)
        while code == LP_EINTERRUPTED:
            PyErr_CheckSignals()
            with nogil:
                code = lp_shm_release_all(self.shm, deadline, &err)
        return told(code, &err) if code else None

    def allocated(self, int64_t deadline):
        """The set of the numbers that are allocated, or the failure."""
        cdef lp_error err
        cdef int code = LP_EINTERRUPTED
        cdef uint32_t number
        self.check(True)
        cdef uint32_t limit = lp_shm_limit(self.shm)
        cdef uint32_t *bitmap = <uint32_t *>PyMem_Malloc((limit // 32 + 1) * sizeof(uint32_t))
        if bitmap is NULL:
            raise MemoryError
        try:
            while code == LP_EINTERRUPTED:
                PyErr_CheckSignals()
                with nogil:
                    code = lp_shm_allocated(self.shm, deadline, bitmap, &err)
            if code:
                return told(code, &err)
            found = set()
            for number in range(limit):
                if bitmap[number // 32] >> number % 32 & 1:
                    found.add(number)
            return found
        finally:
            PyMem_Free(bitmap)

    def lock(self, uint32_t number, int64_t deadline):
        cdef lp_error err
        cdef int code
        self.check(True)
        # A single try first: giving the GIL up costs as much as a free lock.
        code = lp_shm_lock(self.shm, number, 0, &err)
        if code == LP_ETIMEOUT:
            code = LP_EINTERRUPTED
        while code == LP_EINTERRUPTED:
            PyErr_CheckSignals()
            with nogil:
                code = lp_shm_lock(self.shm, number, deadline, &err)
        return told(code, &err) if code else None

    def unlock(self, uint32_t number):
        """Whether this thread held it."""
        self.check(True)
        return lp_shm_unlock(self.shm, number) == 0

    def holder(self, uint32_t number):
        self.check(True)
        return lp_shm_holder(self.shm, number)

    def close(self):
        if self.shm is not NULL:
            lp_shm_close(self.shm)
