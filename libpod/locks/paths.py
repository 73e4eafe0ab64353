# SPDX-License-Identifier: Apache-2.0
"""A file for each lock: ours with flock, and podman's lock files."""

from __future__ import annotations

import os
from collections.abc import Iterable

from libpod import rundir
from libpod.errors import (
    Closed,
    InternalError,
    InvalidArgument,
    LockTaken,
    SystemCallError,
)
from libpod.lockfile import LockFile, RecordLock
from libpod.locks.base import Lock, Manager
from libpod.settings import LOCK_TYPES

FLOCK, _, FILE = LOCK_TYPES

_MAX_LOCK_ID = (1 << 32) - 1


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
