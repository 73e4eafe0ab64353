# SPDX-License-Identifier: Apache-2.0
"""The locks of containers, pods and volumes: one face for three mechanisms.

`flock` has a file for each object and no lock IDs; `file` and `shm` are podman's
lock files and its shared memory of robust mutexes, with lock IDs by podman's
allocation.  `open_manager()` opens one of them and records which it was: two
programs that lock by different means do not exclude each other.

A lock belongs to the thread that took it and is not re-entrant; threads and
processes exclude each other, also where they have an object of their own for the
same ID.  A lock that nobody holds costs no descriptor: a file is opened when it
is locked.  In a forked child everything of the parent's raises `UsedAfterFork`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import Any, Protocol

from libpod import rundir
from libpod.errors import (
    Closed,
    ConfigError,
    InternalError,
    InvalidArgument,
    LockTaken,
    SystemCallError,
    UsedAfterFork,
)
from libpod.lockfile import LockFile, RecordLock
from libpod.settings import LOCK_TYPES, NUM_LOCKS

FLOCK, SHM, FILE = LOCK_TYPES

_RECORD = "lock_type"
_MAX_LOCK_ID = (1 << 32) - 1


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


def open_manager(
    kind: str,
    tmp_dir: str,
    *,
    num_locks: int = NUM_LOCKS,
    rootless_uid: int | None = None,
    shm_path: str | None = None,
) -> LockManager:
    """Opens the locks of a runtime directory, and makes what is missing.

    Args:
        kind: "flock", "shm" or "file".
        tmp_dir: the runtime directory; the kind is recorded in its file lock_type.
        num_locks: how many locks shared memory is made with.
        rootless_uid: whose shared memory it is; None: root's.
        shm_path: the shared memory's file, where it is not podman's.

    Raises:
        ConfigError: the directory's locks are of another kind.
        InvalidArgument: there is no such kind, or such a number of locks.
        RuntimeDirError, LockRefused: somebody else could reach the locks.
        Unsupported: shared memory without glibc.
    """
    if kind not in LOCK_TYPES:
        raise InvalidArgument(f"lock_type must be one of {', '.join(LOCK_TYPES)}, found {kind!r}")
    rundir.make_dir(tmp_dir, 0o751)
    _record_kind(kind, tmp_dir)
    if kind == FLOCK:
        return FlockManager(os.path.join(tmp_dir, "lock"))
    if kind == FILE:
        return FileManager(os.path.join(tmp_dir, "locks"))
    from libpod.shmlocks import ShmManager, default_path

    return ShmManager(shm_path or default_path(rootless_uid), num_locks)


def recorded_kind(tmp_dir: str) -> str | None:
    """The kind of the locks in a runtime directory; None where there are none yet."""
    return _read_kind(os.path.join(tmp_dir, _RECORD))


# --- which kind --------------------------------------------------------------------


def _record_kind(kind: str, tmp_dir: str) -> None:
    """Notes the kind in the directory, once and at once, or finds it there."""
    path = os.path.join(tmp_dir, _RECORD)
    scratch = f"{path}.{os.urandom(8).hex()}"
    try:
        recorded = _read_kind(path)
        if recorded is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(scratch, flags, 0o600), "w", encoding="ascii") as file:
                file.write(f"{kind}\n")
            try:
                os.link(scratch, path)
                return
            except FileExistsError:  # another process was faster
                recorded = _read_kind(path)
            finally:
                os.unlink(scratch)
    except OSError as error:
        raise SystemCallError(
            f"cannot record the kind of locks in {path}: {error.strerror}", error.errno or 0
        ) from error
    if recorded != kind:
        raise ConfigError(
            f"the locks in {tmp_dir} are of kind {recorded!r}, not {kind!r}",
            remedy=f"use lock_type {recorded!r}; or stop every container and remove {tmp_dir}, "
            "as a reboot does, and the locks are made anew",
        )


def _read_kind(path: str) -> str | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with open(fd, encoding="ascii", errors="replace") as file:
        return file.read(64).strip()


# --- what the kinds have in common ---------------------------------------------------

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


# --- a file for each lock --------------------------------------------------------------


class _PathManager(Manager):
    """Locks that are files of a directory."""

    __slots__ = ()

    def _path(self, name: str | int) -> str:
        return os.path.join(self.where, str(name))

    def opened(self, path: str) -> LockFile | RecordLock:
        raise NotImplementedError

    def _names(self) -> list[str]:
        self.check()
        try:
            return os.listdir(self.where)
        except OSError as error:
            raise _failed("read", self.where, error) from error

    def _remove(self, names: Iterable[str | int]) -> None:
        self.check()
        for name in names:
            try:
                os.unlink(self._path(name))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise _failed("remove", self._path(name), error) from error


class PathLock(Lock):
    """The lock of an object that is a file; what is taken is the open file."""

    __slots__ = ()

    _manager: _PathManager

    def _take(self, key: tuple[str, int], timeout: float | None) -> None:
        file = self._manager.opened(self.name)
        # A signal handler may raise at any moment: then the lock is free, or in `taken`.
        try:
            file.lock(timeout)
            self._manager.taken[key] = self, file
        except BaseException:
            file.close()
            raise

    def _holds(self, file: LockFile | RecordLock) -> bool:
        try:
            return file.try_lock()
        except InternalError:
            return True
        except Closed:
            return False

    def _release(self, file: LockFile | RecordLock) -> None:
        file.close()

    def _free(self, file: LockFile | RecordLock) -> None:
        file.remove()


def _failed(doing: str, path: str, error: OSError) -> SystemCallError:
    return SystemCallError(f"cannot {doing} {path}: {error.strerror}", error.errno or 0)


class FlockManager(_PathManager):
    """A file of its own for each object, named by its ID, locked with flock.

    The kernel frees the lock of a process that died, and there is no fixed number.
    """

    kind = FLOCK
    __slots__ = ()

    def __init__(self, directory: str) -> None:
        rundir.make_private_dir(directory)
        super().__init__(directory)

    def allocate(self, object_id: str) -> tuple[int, PathLock]:
        self.check()
        LockFile.create(self._path(object_id)).close()
        return 0, self.open(object_id, 0)

    def allocate_given(self, object_id: str, lock_id: int) -> PathLock:
        self.check()
        try:
            LockFile.create(self._path(object_id)).close()
        except SystemCallError as error:
            if not os.path.isfile(self._path(object_id)):
                raise error
        return self.open(object_id, 0)

    def open(self, object_id: str, lock_id: int) -> PathLock:
        return PathLock(self, object_id, 0, self._path(object_id))

    def _path(self, name: str | int) -> str:
        if name in ("", ".", "..") or "/" in str(name):
            raise InvalidArgument(f"{name!r} cannot be the ID of an object")
        return super()._path(name)

    def opened(self, path: str) -> LockFile:
        return LockFile(path)

    def free_given(self, object_id: str, lock_id: int) -> None:
        self._remove([object_id])

    def in_use(self) -> set[str]:
        return set(self._names())

    def free_all(self) -> None:
        self._remove(self._names())


class FileManager(_PathManager):
    """podman's lock files: a lock ID is the name of an empty file, its lock an OFD lock.

    A file that comes back after it was freed is podman's doing: whoever of its
    processes still waited makes it again.  It shows in `in_use()`.
    """

    kind = FILE
    __slots__ = ()

    def __init__(self, directory: str) -> None:
        rundir.make_dir(directory, 0o700)
        super().__init__(directory)

    def allocate(self, object_id: str) -> tuple[int, PathLock]:
        used = self.in_use()
        lock_id = next(number for number in range(len(used) + 1) if number not in used)
        while not self._made(lock_id):  # another process was faster
            lock_id += 1
        return lock_id, self.open(object_id, lock_id)

    def allocate_given(self, object_id: str, lock_id: int) -> PathLock:
        self.check()
        opened = self.open(object_id, lock_id)
        if not self._made(lock_id):
            raise LockTaken(f"lock {lock_id} of {object_id} is taken already: {opened.name}")
        return opened

    def open(self, object_id: str, lock_id: int) -> PathLock:
        if not 0 <= lock_id <= _MAX_LOCK_ID:
            raise InvalidArgument(f"there is no lock with the ID {lock_id}")
        return PathLock(self, object_id, lock_id, self._path(lock_id))

    def opened(self, path: str) -> RecordLock:
        return RecordLock(path, 0)

    def free_given(self, object_id: str, lock_id: int) -> None:
        self._remove([lock_id])

    def in_use(self) -> set[int]:
        return {int(name) for name in self._names() if name.isascii() and name.isdigit()}

    def free_all(self) -> None:
        self._remove(self.in_use())

    def _made(self, lock_id: int) -> bool:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            os.close(os.open(self._path(lock_id), flags, 0o600))
        except FileExistsError:
            return False
        except OSError as error:
            raise _failed("make", self._path(lock_id), error) from error
        return True
