# SPDX-License-Identifier: Apache-2.0
"""A JSON file of containers/storage with its lock file: an array of records.

The protocol is containers/storage's.  Whoever changes the file holds the lock
exclusively, reads the file again once it has the lock, writes a new one beside
it, puts that in its place, and writes a fresh token of 64 bytes into the lock
file, by which long-lived processes see that they must read again.  The token is
first: whoever dies between the two leaves a token too many, not one too few.

A table may have more than one file: newer versions of containers/storage, and we, keep
in the volatile ones what need not outlive a boot.  They share lock and token.

1. What we keep of a record of others is its text: it is written back byte by byte.
2. A file and the spare beside it change places, so that a version costs neither a
   new file nor its blocks.  The spare is written to only when it is on the disk that
   another file is in force: else a power cut could bring it back, half written.
3. Whoever reads without the lock may have opened a file that is the spare by now,
   and is written to.  For that another token was written and another file came into
   force: what he read while both stayed the same is one version, whole.
4. A kept snapshot holds while the token and the file's identity are the same: between
   a token and the exchange that follows it the file is still the one before.
5. A lock file stays open when its lock is released, for whoever locks next: he has
   it to himself.  Where it was removed or replaced meanwhile, which shows when it is
   locked, or belongs to the process that this one was forked from, he opens his own.
"""

from __future__ import annotations

import itertools
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from libpod import _sysface
from libpod._sys import ffi, lib
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


class _File:
    """One of a table's files, and the spare that it changes places with.

    Attributes:
        durable: the token of a version that we know to be in force on the disk.
    """

    __slots__ = ("directory", "durable", "path", "spare_path")

    def __init__(self, directory: str, name: str) -> None:
        self.directory = directory
        self.path = f"{directory}/{name}.json"
        self.spare_path = f"{directory}/.libpod-{name}.json"
        self.durable: bytes | None = None

    def write(self, data: bytes, former: _Identity) -> None:
        """Writes what will follow the version `former` into the spare, durably."""
        fd = -1
        try:
            fd, size = self._open_spare(former)
            _write_all(fd, data)
            if size > len(data):
                os.ftruncate(fd, len(data))
            os.fdatasync(fd)
        except OSError as error:
            error.filename = self.spare_path  # which a failed write does not tell
            raise
        finally:
            if fd >= 0:
                os.close(fd)

    def _open_spare(self, former: _Identity) -> tuple[int, int]:
        """The spare, to be written to, and its size; a new one where there is none that is
        ours alone: a backup may be another name of the same file."""
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(self.spare_path, flags)
        except FileNotFoundError:
            return os.open(self.spare_path, flags | os.O_CREAT | os.O_EXCL, 0o600), 0
        status = os.fstat(fd)
        if stat.S_IMODE(status.st_mode) == 0o600 and status.st_nlink == 1:
            if former[0] != self.durable:
                self.sync(former)
            return fd, status.st_size
        os.close(fd)
        self.drop()
        return os.open(self.spare_path, flags | os.O_CREAT | os.O_EXCL, 0o600), 0

    def drop(self) -> None:
        """Removes the spare."""
        try:
            os.unlink(self.spare_path)
        except FileNotFoundError:
            pass

    def sync(self, identity: _Identity) -> None:
        """Makes the names in the directory durable while this version is in force."""
        fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        self.durable = identity[0]


class Table:
    """The file `stem`.json in a directory, the volatile files beside it, and its lock.

    Attributes:
        files: `path` first.
    """

    __slots__ = ("_asked", "_idle", "_kept", "directory", "files", "lock_path", "path",
                 "stem")  # fmt: skip

    def __init__(self, directory: str, stem: str, volatile_dirs: Iterable[str] = ()) -> None:
        """Args:
        directory: where the file and its lock are.
        stem: the file's name without its ending.
        volatile_dirs: where the volatile files are.
        """
        self.directory = directory
        self.stem = stem
        self.path = f"{directory}/{stem}.json"
        self.lock_path = f"{directory}/{stem}.lock"
        volatile = (_File(place, f"volatile-{stem}") for place in volatile_dirs)
        self.files = (_File(directory, stem), *volatile)
        self._kept: tuple[_Identity, Snapshot] | None = None
        self._asked: _Identity | None = None
        self._idle: list[RecordLock] = []  # one; more where threads gave theirs back at once

    def read(self) -> Snapshot:
        """The last version.  Takes no lock.

        Raises:
            CorruptStorage: the file is not an array of records.
            OSError: it cannot be read.
        """
        identity = self._identity()
        kept = self._kept
        if kept is not None and kept[0] == identity:
            return kept[1]
        identity, texts = self._texts()
        snapshot = self._snapshot(texts)
        self._kept = identity, snapshot
        return snapshot

    def _snapshot(self, texts: Iterable[bytes]) -> Snapshot:
        return Snapshot.of(zip((file.path for file in self.files), texts, strict=True))

    def find(self, key: str) -> Members | None:
        """One record of the last version, or None.  Raises as `read()`.

        The first time that a version is asked, the others are not decoded.
        """
        identity = self._identity()
        kept = self._kept
        if self._asked != identity and (kept is None or kept[0] != identity):
            self._asked, texts = self._texts()
            record = versions.find(texts[0], key)
            if record is not None:
                return record
        return self.read().records.get(key)

    def _texts(self) -> tuple[_Identity, list[bytes]]:
        """What is in the files of one version, and which that is.  Takes no lock: it ends
        when no version came into force in the microseconds of a reading."""
        while True:
            before = self._identity()
            texts = [_content(file.path) for file in self.files]
            if self._identity() == before:
                return before, texts

    def hold(self) -> Hold:
        """For a change, or for a look that wants no change meanwhile; not locked yet."""
        return Hold(self)

    def temporaries(self) -> list[str]:
        """podman's versions that never came into force; to be called under the lock."""
        start = f".tmp-{self.stem}.json"  # they end in a number
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

    # --- for a `Hold` ------------------------------------------------------------------

    def read_locked(self, fd: int) -> tuple[_Identity, Snapshot]:
        """The last version, and its identity, by whoever has the lock file locked."""
        identity = os.pread(fd, TOKEN_BYTES, 0), self._files()
        kept = self._kept
        if kept is None or kept[0] != identity:
            texts = (_content(file.path) for file in self.files)
            self._kept = kept = identity, self._snapshot(texts)
        return kept

    def swap_in(
        self, snapshot: Snapshot, changed: Iterable[int], fd: int, former: _Identity
    ) -> _Identity:
        """Puts the spares of the changed files, which have `snapshot`, in force after the
        version `former`."""
        reach(f"storage.{self.stem}.prepared")
        token, files = _new_token(), former[1].copy()
        os.pwrite(fd, token, 0)
        reach(f"storage.{self.stem}.touched")
        for at in changed:
            file = self.files[at]
            _swap(file.spare_path, file.path)
            files[at] = _file_identity(file.path)
        self._kept = (token, files), snapshot
        return token, files

    # --- what it is --------------------------------------------------------------------

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
        return [_file_identity(file.path) for file in self.files]


class Hold:
    """A table for one who locks it, until he releases it: then this is of no use any more."""

    __slots__ = ("_changed", "_lock", "_prepared", "_seen", "table")

    def __init__(self, table: Table) -> None:
        self.table = table
        self._lock: RecordLock | None = None
        self._seen: tuple[_Identity, Snapshot] | None = None
        self._prepared: Snapshot | None = None
        self._changed: list[int] = []

    def _take(self, timeout: float, shared: bool) -> None:
        self._lock = self.table.kept()
        if self._lock is not None:
            try:
                self._lock.lock(timeout, shared)
                return
            except (LockGone, UsedAfterFork):
                self._lock.close()
        self._lock = RecordLock(self.table.lock_path, _LOCK_MODE)
        self._lock.lock(timeout, shared)

    @contextmanager
    def locked(self, timeout: float, shared: bool = False) -> Iterator[None]:
        """Holds the lock.  Raises as `RecordLock.lock()`."""
        try:
            self._take(timeout, shared)
            yield
        finally:
            try:
                self._release()
            except BaseException:  # interrupted here, too: nobody could take it again
                self._release()
                raise

    def _release(self) -> None:
        """Gives the lock back, wherever taking it or giving it back was interrupted."""
        lock = self._lock
        if lock is None:
            return
        try:
            lock.unlock()
        except LibpodError:  # it is not ours: taking it failed, or this is a forked child
            lock.close()
            self._lock = None
        else:
            self._lock = None
            self.table.keep(lock)

    @property
    def snapshot(self) -> Snapshot:
        """The last version, for as long as the lock is held.  Raises as `Table.read()`."""
        if self._seen is None:
            self._seen = self.table.read_locked(self._fd)
        return self._seen[1]

    @property
    def _fd(self) -> int:
        if self._lock is None:
            raise InternalError(f"{self.table.path} is used without its lock")
        return self._lock.fileno()

    def prepare(self, snapshot: Snapshot) -> None:
        """Writes a version that comes after `self.snapshot`, durable but not yet in force.

        The lock is held exclusively.  Raises OSError; `drop()` is due in any case.
        """
        if self._seen is None:
            raise InternalError(f"{self.table.path} was not read before it was changed")
        self._prepared = snapshot
        self._changed = snapshot.differing(self._seen[1])
        for at in self._changed:
            self.table.files[at].write(snapshot.encoded(at), self._seen[0])
            reach(f"storage.{self.table.stem}.written")

    def commit(self) -> None:
        """Puts in force what was prepared."""
        if self._seen is None or self._prepared is None:
            raise InternalError(f"no version of {self.table.path} was prepared")
        former, self._seen = self._seen, None  # what is cut short is read again
        identity = self.table.swap_in(self._prepared, self._changed, self._fd, former[0])
        self._seen, self._prepared = (identity, self._prepared), None
        reach(f"storage.{self.table.stem}.swapped")

    def drop(self) -> None:
        """Removes what was prepared and is not in force."""
        if self._prepared is not None:
            self._prepared = None
            for at in self._changed:
                self.table.files[at].drop()

    def replace(self, snapshot: Snapshot) -> None:
        """Puts a version in force; it outlives a power cut after `sync()`."""
        try:
            self.prepare(snapshot)
            self.commit()
        finally:
            self.drop()

    def sync(self) -> None:
        """Has what is in force outlive a power cut."""
        for at in self._changed:
            if self._seen is not None:
                self.table.files[at].sync(self._seen[0])


def put_in_force(
    *versions: tuple[Hold, Snapshot],
    before: Callable[[], None] = lambda: None,
) -> None:
    """New versions, one after the other; all are on the disk before the first is in force,
    and `before` is called between: where it raises, none comes into force.

    The caller holds the locks.  When this returns they outlive a power cut.
    """
    try:
        for hold, version in versions:
            hold.prepare(version)
        before()
        for hold, _ in versions:
            hold.commit()
    finally:
        for hold, _ in versions:
            hold.drop()
    for hold, _ in versions:
        hold.sync()


def forget(hold: Hold, key: str) -> None:
    """Takes a record that came into force out again."""
    if key in hold.snapshot.records:
        hold.replace(hold.snapshot.without([key]))


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


def _content(path: str) -> bytes:
    """What is in a file; of one that is not there, nothing."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except FileNotFoundError:
        return b""


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _swap(spare: str, path: str) -> None:
    err = ffi.new("struct lp_error *")
    if lib.lp_swap_files(_sysface.encode(spare), _sysface.encode(path), err):
        raise OSError(err.sys_errno, os.strerror(err.sys_errno), path)


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
