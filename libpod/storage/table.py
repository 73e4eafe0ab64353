# SPDX-License-Identifier: Apache-2.0
"""A JSON file of containers/storage with its lock file: an array of records.

The protocol is containers/storage's.  Whoever changes the file holds the lock
exclusively, reads the file again once it has the lock, writes a new one beside
it, renames that into place, and writes a fresh token of 64 bytes into the lock
file, by which long-lived processes see that they must read again.

1. A file that was renamed into place is never written to again: what is read
   without the lock is one version, whole.
2. What we keep of a record of others is its text: it is written back byte by byte.
3. A kept snapshot holds while the token and the file's identity are the same.  A
   new version is made while the old file is there, so it has another inode; one
   that has the inode of the version before the last has another token.
4. A lock file stays open when its lock is released, for whoever locks next: he has
   it to himself.  Where it was removed or replaced meanwhile, which shows when it is
   locked, or belongs to the process that this one was forked from, he opens his own.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable

from libpod.errors import InternalError, LibpodError, LockGone, UsedAfterFork
from libpod.failpoint import reach
from libpod.lockfile import RecordLock
from libpod.storage import snapshot as versions
from libpod.storage.snapshot import Members, Snapshot

TOKEN_BYTES = 64
_LOCK_MODE = 0o644  # the original's; no more than the directory's 0700 lets anybody in

# Part of a token, as in containers/storage: no two of a process are the same.
_writes = itertools.count(1)

_FileIdentity = tuple[int, int, int] | None
_Identity = tuple[bytes, list[_FileIdentity]]


class Table:
    """The file `stem`.json in a directory, the volatile files beside it, and its lock."""

    __slots__ = ("_asked", "_idle", "_kept", "directory", "lock_path", "path", "paths",
                 "prepared_path", "stem")  # fmt: skip

    def __init__(self, directory: str, stem: str, volatile_dirs: Iterable[str] = ()) -> None:
        """Args:
        directory: where the file and its lock are.
        stem: the file's name without its ending.
        volatile_dirs: where newer versions keep what need not outlive a boot.
        """
        self.directory = directory
        self.stem = stem
        self.path = f"{directory}/{stem}.json"
        self.lock_path = f"{directory}/{stem}.lock"
        self.prepared_path = f"{directory}/.tmp-{stem}.json-libpod"
        """Where a version is written before it comes into force."""
        self.paths = (self.path, *(f"{place}/volatile-{stem}.json" for place in volatile_dirs))
        self._kept: tuple[_Identity, Snapshot] | None = None
        self._asked: _Identity | None = None
        self._idle: list[RecordLock] = []  # one at most

    def read(self) -> Snapshot:
        """The last version.  Takes no lock.

        Raises:
            CorruptStorage: the file is not an array of records.
            OSError: it cannot be read.
        """
        return self._snapshot(self._identity())

    def find(self, key: str) -> Members | None:
        """One record of the last version, or None.  Raises as `read()`.

        The first time that a version is asked, the others are not decoded.
        """
        identity = self._identity()
        kept = self._kept
        if self._asked != identity and (kept is None or kept[0] != identity):
            self._asked = identity
            record = versions.find(self.path, key)
            if record is not None:
                return record
        return self._snapshot(identity).records.get(key)

    def hold(self) -> Hold:
        """For a change, or for a look that wants no change meanwhile; not locked yet."""
        return Hold(self)

    def temporaries(self) -> list[str]:
        """Versions that never came into force; to be called under the lock."""
        start = f".tmp-{self.stem}.json"  # podman's own end in a number
        return [
            os.path.join(self.directory, name)
            for name in _listed(self.directory)
            if name.startswith(start)
        ]

    def keep(self, lock: RecordLock) -> None:
        """Takes over a lock that is not held."""
        if self._idle:
            lock.close()
        else:
            self._idle.append(lock)

    def kept(self) -> RecordLock | None:
        """A lock, now the caller's."""
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def close(self) -> None:
        """Closes the lock file that it keeps open; the next one who locks opens it anew."""
        while lock := self.kept():
            lock.close()

    def read_locked(self, fd: int) -> Snapshot:
        """The last version, by whoever holds the lock on this open file."""
        return self._snapshot((os.pread(fd, TOKEN_BYTES, 0), self._files()))

    def write(self, snapshot: Snapshot) -> None:
        """Writes a version beside the file, durable; under the exclusive lock."""
        # One name is enough under the lock, and what a crash leaves is overwritten.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = -1
        try:
            fd = os.open(self.prepared_path, flags, 0o600)
            _write_all(fd, snapshot.encoded())
            reach(f"storage.{self.stem}.written")
            os.fdatasync(fd)
        except OSError as error:
            error.filename = self.prepared_path  # which a failed write does not tell
            raise
        finally:
            if fd >= 0:
                os.close(fd)

    def put_in_force(self, snapshot: Snapshot, fd: int) -> None:
        """The version that was prepared; the lock on this open file is held exclusively."""
        reach(f"storage.{self.stem}.prepared")
        os.rename(self.prepared_path, self.path)
        reach(f"storage.{self.stem}.renamed")
        token = _new_token()
        os.pwrite(fd, token, 0)
        self._kept = (token, self._files()), snapshot
        reach(f"storage.{self.stem}.touched")

    def _snapshot(self, identity: _Identity) -> Snapshot:
        kept = self._kept
        if kept is not None and kept[0] == identity:
            return kept[1]
        snapshot = Snapshot.read(self.path, self.paths[1:])
        self._kept = identity, snapshot
        return snapshot

    def _identity(self) -> _Identity:
        # The token first: a snapshot that is newer than its identity is only read again.
        try:
            fd = os.open(self.lock_path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return b"", self._files()
        try:
            return os.pread(fd, TOKEN_BYTES, 0), self._files()
        finally:
            os.close(fd)

    def _files(self) -> list[_FileIdentity]:
        return [_file_identity(path) for path in self.paths]


class Hold:
    """A table for one who locks it, until he releases it: then this is of no use any more.

    Attributes:
        snapshot: the last version, for as long as the lock is held.
    """

    __slots__ = ("_lock", "_prepared", "_snapshot", "table")

    def __init__(self, table: Table) -> None:
        self.table = table
        self._lock: RecordLock | None = None
        self._snapshot: Snapshot | None = None
        self._prepared: Snapshot | None = None

    def take(self, timeout: float, shared: bool = False) -> None:
        """Takes the lock.  Raises as `RecordLock.lock()`; `release()` is due in any case."""
        self._lock = self.table.kept()
        if self._lock is not None:
            try:
                self._lock.lock(timeout, shared)
                return
            except (LockGone, UsedAfterFork):
                self._lock.close()
        self._lock = RecordLock(self.table.lock_path, _LOCK_MODE)
        self._lock.lock(timeout, shared)

    def release(self) -> None:
        """Gives the lock back, wherever taking it was interrupted."""
        lock, self._lock = self._lock, None
        if lock is None:
            return
        try:
            lock.unlock()
        except LibpodError:  # it is not ours: taking it failed, or this is a forked child
            lock.close()
        else:
            self.table.keep(lock)

    @property
    def snapshot(self) -> Snapshot:
        if self._snapshot is None:
            self._snapshot = self.table.read_locked(self._held.fileno())
        return self._snapshot

    @property
    def _held(self) -> RecordLock:
        if self._lock is None:
            raise InternalError(f"{self.table.path} is used without its lock")
        return self._lock

    def prepare(self, snapshot: Snapshot) -> None:
        """Writes a version beside the file, durable but not yet in force.

        The lock is held exclusively.  Raises OSError; `drop()` is due in any case.
        """
        self._prepared = snapshot
        self.table.write(snapshot)

    def commit(self) -> None:
        """Puts in force what was prepared; the rename is durable after `sync()`."""
        if self._prepared is None:
            raise InternalError(f"no version of {self.table.path} was prepared")
        self._snapshot = None  # what is cut short is read again
        self.table.put_in_force(self._prepared, self._held.fileno())
        self._snapshot, self._prepared = self._prepared, None

    def drop(self) -> None:
        """Removes what was prepared and is not in force."""
        if self._prepared is not None:
            self._prepared = None
            _unlink(self.table.prepared_path)

    def replace(self, snapshot: Snapshot) -> None:
        """Puts a version in force; its rename is durable after `sync()`."""
        try:
            self.prepare(snapshot)
            self.commit()
        finally:
            self.drop()

    def sync(self) -> None:
        """Makes the names in the table's directory durable."""
        fd = os.open(self.table.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _new_token() -> bytes:
    """64 bytes that nobody wrote before: time, count, pid, chance (all little endian)."""
    told = (
        time.time_ns().to_bytes(8, "little")
        + next(_writes).to_bytes(8, "little")
        + os.getpid().to_bytes(4, "little")
    )
    return told + os.urandom(TOKEN_BYTES - len(told))


# --- files ---------------------------------------------------------------------------


def _file_identity(path: str) -> _FileIdentity:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
