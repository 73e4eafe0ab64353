# SPDX-License-Identifier: Apache-2.0
"""Locks of objects: what the kinds have in common, and the faces that they keep."""

from __future__ import annotations

import os
import threading
from typing import Any, Protocol

from libpod.errors import (
    Closed,
    InternalError,
    UsedAfterFork,
)


class ObjectLock(Protocol):
    """The lock of one object."""

    @property
    def object_id(self) -> str: ...

    @property
    def lock_id(self) -> int:
        """Its number for the object's record; 0 under flock."""
        ...

    def lock(self, timeout: float | None = None) -> None:
        """Takes the lock; signals are served while it waits.

        Args:
            timeout: seconds to wait, 0 for a single try, None for ever.

        Raises:
            LockTimeout: it was not free in time; names the holder where it can be seen.
            LockGone: it went with its object (flock, file), or the whole shared
                memory was removed (shm).  Under shm a removed object shows in
                the state only, so read that again after locking.
            LockBroken: its holder left it beyond repair (shm).
            InternalError: this thread holds it already.
            Closed, UsedAfterFork: this object is of no use any more.
        """

    def unlock(self) -> None:
        """Releases the lock.

        Raises:
            InternalError: this thread did not take it through this object.
            UsedAfterFork: as for `lock()`.
        """

    def held(self, timeout: float | None = None) -> Held:
        """`with lock.held(5):`, the lock for a block; arguments and errors of `lock()`."""
        ...

    def free(self) -> None:
        """Ends the lock of a removed object; this thread holds it, and still does after.

        Whoever waits for it gets `LockGone` under flock and file; under shm the
        waiter gets a lock that may be another object's by then.

        Raises:
            InternalError: this thread does not hold it.
        """

    def close(self) -> None:
        """Releases the lock if this thread holds it; the object is of no use after."""


class LockManager(Protocol):
    """The locks of one runtime directory (flock, file), or of the host and user (shm)."""

    @property
    def kind(self) -> str:
        """ "flock", "shm" or "file"."""
        ...

    def allocate(self, object_id: str) -> tuple[int, ObjectLock]:
        """Makes the lock of a new object; gives its lock ID too, 0 under flock.

        Raises:
            LocksExhausted: there are as many objects as locks (shm).
        """
        ...

    def allocate_given(self, object_id: str, lock_id: int) -> ObjectLock:
        """Makes the lock of an object that is in the state, after a reboot.

        Raises:
            LockTaken: the lock ID is allocated already (shm, file).
            InvalidArgument: there can be no such lock ID.
        """
        ...

    def open(self, object_id: str, lock_id: int) -> ObjectLock:
        """The lock of an object that exists; looks at nothing before it is locked."""
        ...

    def free_given(self, object_id: str, lock_id: int) -> None:
        """Ends the lock of an object that is gone or was never finished.

        Takes no lock; one that is not there is no error.  The caller makes sure
        that no object of the state has this lock ID.
        """

    def in_use(self) -> set[str] | set[int]:
        """What is allocated: object IDs under flock, lock IDs under shm and file."""
        ...

    def free_all(self) -> None:
        """Ends every lock: under shm those of all roots of this host and user.

        Only for when no container exists or runs, and every object is given a
        lock again (what podman calls renumbering).
        """

    def close(self) -> None:
        """No lock can be taken any more; those that are held are released as usual."""


# How often this process was forked from another one.
_forks = 0


def _after_fork_in_child() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_after_fork_in_child)


class Held:
    """The context of `held()`."""

    __slots__ = ("_lock", "_timeout")

    def __init__(self, lock: ObjectLock, timeout: float | None) -> None:
        self._lock = lock
        self._timeout = timeout

    def __enter__(self) -> ObjectLock:
        self._lock.lock(self._timeout)
        return self._lock

    def __exit__(self, *exc_info: object) -> None:
        self._lock.unlock()


class Manager:
    """What has a life time: open, closed, or of the process that this one was forked from.

    Attributes:
        where: the directory or file of the locks.
        taken: what is held, by the lock's name and thread: through which object,
            and what was taken.  A thread touches its own keys only.
    """

    __slots__ = ("_closed", "_forks", "taken", "where")

    taken: dict[tuple[str, int], tuple[Lock, Any]]

    def __init__(self, where: str) -> None:
        self.where = where
        self.taken = {}
        self._closed = False
        self._forks = _forks

    @property
    def inherited(self) -> bool:
        """Whether it is the parent's, and this is a forked child."""
        return self._forks != _forks

    def check(self) -> None:
        """Raises where it is closed or inherited."""
        self.check_fork()
        if self._closed:
            raise Closed(f"the locks in {self.where} were closed")

    def check_fork(self) -> None:
        if self.inherited:
            raise UsedAfterFork(
                f"the locks in {self.where} belong to the parent process",
                remedy="open a new runtime in the child",
            )

    def close(self) -> None:
        self._closed = True


class Lock:
    """What the locks of all kinds have in common (see `ObjectLock`)."""

    __slots__ = ("_closed", "_manager", "lock_id", "name", "object_id")

    def __init__(self, manager: Manager, object_id: str, lock_id: int, name: str) -> None:
        self._manager = manager
        self.object_id = object_id
        self.lock_id = lock_id
        self.name = name
        self._closed = False

    def lock(self, timeout: float | None = None) -> None:
        key = self.name, threading.get_ident()
        self._manager.check()
        if self._closed:
            raise Closed(f"the lock {self.name} was closed")
        # What is in `taken` is not held where `unlock()` was interrupted half-way.
        if key in self._manager.taken and self._holds(self._manager.taken[key][1]):
            raise InternalError(
                f"this thread holds the lock {self.name} already",
                remedy="a lock is not re-entrant: take it once",
            )
        self._take(key, timeout)

    def unlock(self) -> None:
        self._release(self._mine())
        del self._manager.taken[self.name, threading.get_ident()]

    def held(self, timeout: float | None = None) -> Held:
        return Held(self, timeout)

    def free(self) -> None:
        self._free(self._mine())

    def close(self) -> None:
        self._closed = True
        key = self.name, threading.get_ident()
        if not self._manager.inherited and self._manager.taken.get(key, (None,))[0] is self:
            self.unlock()

    def _mine(self) -> Any:
        """What this thread took through this object."""
        self._manager.check_fork()
        holder, token = self._manager.taken.get((self.name, threading.get_ident()), (None, None))
        if holder is not self:
            raise InternalError(
                f"this thread does not hold the lock {self.name}",
                fault="job",
                remedy="release a lock in the thread that took it, and once",
            )
        return token

    def _take(self, key: tuple[str, int], timeout: float | None) -> None:
        """Takes the lock and notes it in `taken`, both or neither, whatever interrupts."""
        raise NotImplementedError

    def _holds(self, token: Any) -> bool:
        """Whether this thread still holds what is in `taken`."""
        raise NotImplementedError

    def _release(self, token: Any) -> None:
        raise NotImplementedError

    def _free(self, token: Any) -> None:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"
