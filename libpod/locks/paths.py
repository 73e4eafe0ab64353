# SPDX-License-Identifier: Apache-2.0
"""A file for each lock: ours with flock, and podman's lock files."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import suppress

from libpod import rundir
from libpod.errors import (
    Closed,
    InternalError,
    InvalidArgument,
    LockGone,
    LockTaken,
    SystemCallError,
)
from libpod.lockfile import LockFile, RecordLock
from libpod.locks.base import Lock, Manager
from libpod.settings import LOCK_TYPES

FLOCK, _, FILE = LOCK_TYPES

_MAX_LOCK_ID = (1 << 32) - 1


_KEPT_OPEN = 8
"""Files of the locks that were released last: opening one takes longer than locking it."""


class _PathManager(Manager):
    """Locks that are files of a directory.

    A released file may stay open for the next one who locks it.  He has it to himself;
    and where it was removed or replaced meanwhile, which shows when it is locked, he
    opens what is there now.
    """

    __slots__ = ("_changing", "_idle")

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self._idle: dict[str, LockFile | RecordLock] = {}
        self._changing = threading.Lock()

    def close(self) -> None:
        super().close()
        if not self.inherited:
            self._trim(0)

    def kept(self, path: str) -> LockFile | RecordLock | None:
        """An open file, now the caller's."""
        with self._changing:
            return self._idle.pop(path, None)

    def keep(self, path: str, file: LockFile | RecordLock) -> None:
        """Takes over an open file that is not locked."""
        with self._changing:
            other = self._idle.get(path)
            self._idle[path] = file
        if other is not None:
            other.close()
        if self._closed or len(self._idle) > _KEPT_OPEN:
            self._trim(0 if self._closed else _KEPT_OPEN)

    def _trim(self, most: int) -> None:
        """Closes those that have been idle for longest."""
        while len(self._idle) > most:
            with self._changing:
                path = next(iter(self._idle), None)
                file = None if path is None else self._idle.pop(path)
            if file is not None:
                file.close()

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

    __slots__ = ("_ended",)

    _manager: _PathManager

    def __init__(self, manager: Manager, object_id: str, lock_id: int, name: str) -> None:
        super().__init__(manager, object_id, lock_id, name)
        self._ended = False

    def _take(self, key: tuple[str, int], timeout: float | None) -> None:
        kept = self._manager.kept(self.name)
        if kept is not None:
            with suppress(LockGone):
                self._take_file(kept, key, timeout)
                return
        self._take_file(self._manager.opened(self.name), key, timeout)

    def _take_file(
        self, file: LockFile | RecordLock, key: tuple[str, int], timeout: float | None
    ) -> None:
        # A signal handler may raise at any moment: then the lock is free, or in `taken`.
        try:
            file.lock(timeout)
            self._manager.taken[key] = self, file
        except BaseException:
            file.close()
            raise

    def _holds(self, file: LockFile | RecordLock) -> bool:
        try:
            if file.try_lock():
                file.unlock()
        except InternalError:
            return True
        except (Closed, LockGone):
            return False
        return False

    def _release(self, file: LockFile | RecordLock) -> None:
        if self._ended:
            file.close()
            return
        file.unlock()
        self._manager.keep(self.name, file)

    def _free(self, file: LockFile | RecordLock) -> None:
        file.remove()
        self._ended = True


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
