# SPDX-License-Identifier: Apache-2.0
"""podman's locks in shared memory (see `libpod.locks`).

One file for each host and user, whatever the root directory: lock IDs are
shared with every podman, and so is their number.
"""

from __future__ import annotations

import logging
import threading

from libpod import _lock, _sysface, lockfile
from libpod._lock import Segment
from libpod.errors import (
    Closed,
    ConfigError,
    InternalError,
    InvalidArgument,
    LibpodError,
    LockBroken,
    LockGone,
    LockRefused,
    LocksExhausted,
    LockTaken,
    LockTimeout,
    Unsupported,
)
from libpod.locks.base import Lock, Manager
from libpod.settings import LOCK_TYPES

_, SHM, _ = LOCK_TYPES

_log = logging.getLogger("libpod.locks")

_TABLE_TIMEOUT = 60.0
"""Seconds to wait for the table of what is allocated, which is held for microseconds."""

_MAX_NUM_LOCKS = (1 << 32) - 1

_KNOWN: dict[int, type[LibpodError]] = {
    _lock.GONE: LockGone,
    _lock.REFUSED: LockRefused,
    _lock.CLOSED: Closed,
    _lock.HELD: InternalError,
    _lock.FULL: LocksExhausted,
    _lock.TAKEN: LockTaken,
    _lock.BROKEN: LockBroken,
    _lock.FOREIGN: ConfigError,
    _lock.NOT_BUILT: Unsupported,
}
_REMEDY = {
    _lock.GONE: "open the runtime again",
    _lock.REFUSED: "give the file to the user that runs this, and nobody else",
    _lock.FULL: "remove containers, pods or volumes; or stop all containers, raise num_locks in "
    "containers.conf and here, remove the file, and renumber; or use the lock_type file",
    _lock.BROKEN: "stop every container and have the locks made anew, as a reboot does",
    _lock.FOREIGN: "with no container running, remove the file: it is made anew",
    _lock.NOT_BUILT: "use the lock_type file",
}


def default_path(rootless_uid: int | None) -> str:
    """podman's file: root's, or that of a rootless user."""
    if rootless_uid is None:
        return "/dev/shm/libpod_lock"
    return f"/dev/shm/libpod_rootless_lock_{rootless_uid}"


class ShmManager(Manager):
    """The segment at a path; made for `num_locks` where it is missing.

    One that is there keeps its number of locks, whatever `num_locks` is.
    """

    kind = SHM
    __slots__ = ("segment",)

    def __init__(self, path: str, num_locks: int) -> None:
        if not 0 < num_locks <= _MAX_NUM_LOCKS:
            raise InvalidArgument(f"num_locks must be from 1 to 2**32 - 1, found {num_locks}")
        super().__init__(path)
        self.segment = Segment()
        failure = self.segment.open(_sysface.encode(path), num_locks)
        if failure:
            raise self.failure(failure, "cannot open the locks in")
        if self.segment.limit() != num_locks:
            _log.warning(
                "%s has %d locks, not %d: remove it with no container running for num_locks to "
                "take effect; podman refuses to work until then",
                path, self.segment.limit(), num_locks,
            )  # fmt: skip

    def allocate(self, object_id: str) -> tuple[int, ShmLock]:
        self.check()
        found = self.segment.allocate(lockfile.deadline(_TABLE_TIMEOUT))
        if isinstance(found, tuple):
            raise self.failure(found, f"cannot allocate a lock for {object_id} in")
        return found, self.open(object_id, found)

    def allocate_given(self, object_id: str, lock_id: int) -> ShmLock:
        self.check()
        lock = self.open(object_id, lock_id)
        failure = self.segment.allocate_given(lock_id, lockfile.deadline(_TABLE_TIMEOUT))
        if failure:
            raise self.failure(failure, f"cannot allocate lock {lock_id} for {object_id} in")
        return lock

    def open(self, object_id: str, lock_id: int) -> ShmLock:
        if not 0 <= lock_id < self.segment.limit():
            raise InvalidArgument(
                f"{self.where} has {self.segment.limit()} locks, and none has the ID {lock_id}"
            )
        return ShmLock(self, object_id, lock_id, f"{lock_id} in {self.where}")

    def free_given(self, object_id: str, lock_id: int) -> None:
        self.check()
        self.open(object_id, lock_id)
        failure = self.segment.release(lock_id, lockfile.deadline(_TABLE_TIMEOUT))
        if failure:
            raise self.failure(failure, f"cannot free lock {lock_id} in")

    def in_use(self) -> set[int]:
        self.check()
        found = self.segment.allocated(lockfile.deadline(_TABLE_TIMEOUT))
        if isinstance(found, tuple):
            raise self.failure(found, "cannot read which locks are allocated in")
        return found

    def free_all(self) -> None:
        self.check()
        failure = self.segment.release_all(lockfile.deadline(_TABLE_TIMEOUT))
        if failure:
            raise self.failure(failure, "cannot free the locks in")

    def close(self) -> None:
        super().close()
        if not self.inherited:
            self.segment.close()

    def failure(self, failure: tuple[int, int, str], doing: str) -> LibpodError:
        message = f"{doing} {self.where}"
        if failure[0] == _lock.TIMEOUT:
            return LockTimeout(f"{message}: the table was not free within {_TABLE_TIMEOUT:g} s")
        if failure[0] == _lock.FULL:
            message += f" (num_locks = {self.segment.limit()})"
        return _sysface.failure(*failure, message, _KNOWN, _REMEDY.get(failure[0]))


class ShmLock(Lock):
    """The lock of an object in shared memory."""

    __slots__ = ()

    _manager: ShmManager

    def _take(self, key: tuple[str, int], timeout: float | None) -> None:
        # A signal handler may raise at any moment: then the lock is free, or in `taken`.
        try:
            failure = self._manager.segment.lock(self.lock_id, lockfile.deadline(timeout))
            if failure is None:
                self._manager.taken[key] = self, None
        except BaseException:
            self._manager.taken.pop(key, None)
            self._manager.segment.unlock(self.lock_id)
            raise
        if failure is None:
            return
        if failure[0] == _lock.TIMEOUT:
            raise self._timeout(timeout)
        raise self._manager.failure(failure, f"cannot take lock {self.lock_id} in")

    def _holds(self, token: None) -> bool:
        return self._manager.segment.holder(self.lock_id) == threading.get_native_id()

    def _release(self, token: None) -> None:
        self._manager.segment.unlock(self.lock_id)

    def _free(self, token: None) -> None:
        self._manager.free_given(self.object_id, self.lock_id)

    def _timeout(self, timeout: float | None) -> LockTimeout:
        thread = self._manager.segment.holder(self.lock_id)
        pid = _process_of(thread)
        who = "an unknown process" if pid is None else lockfile.process(pid)
        if pid is not None and pid != thread:
            who += f", thread {thread}"
        return LockTimeout(
            f"lock {self.name} was not free within {timeout:g} s: it is held by {who}",
            holder=pid,
            remedy="wait longer, or see what that process is doing",
        )


def _process_of(thread: int) -> int | None:
    """The process of a thread of our pid namespace."""
    try:
        with open(f"/proc/{thread}/status", encoding="utf-8", errors="replace") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("Tgid:"))
    except (OSError, StopIteration):  # it ended, or nobody holds the lock by now
        return None
