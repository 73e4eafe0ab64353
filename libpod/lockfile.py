# SPDX-License-Identifier: Apache-2.0
"""Locks between processes and threads, on files.

`LockFile` is a lock file of our own (flock); `RecordLock` is a record lock on
a file that podman or containers/storage lock as well.  Both belong to the open
file: the kernel frees them when their holder dies, and no program that we start
inherits them.

Threads that share one object exclude each other, also where they ask for a
shared lock: a shared lock is shared between objects, not inside one.  A lock is
released by the thread that took it and is not re-entrant.

In a forked child the objects of the parent are dead: the child's copies of the
descriptors are closed at once, the parent keeps its locks, and every call in the
child but `close()` raises `UsedAfterFork`.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import Any

from libpod import _lock, _sysface
from libpod._lock import Handle
from libpod.errors import (
    Closed,
    InternalError,
    InvalidArgument,
    LibpodError,
    LockGone,
    LockRefused,
    LockTimeout,
    UsedAfterFork,
)

_KNOWN: dict[int, type[LibpodError]] = {
    _lock.GONE: LockGone,
    _lock.REFUSED: LockRefused,
    _lock.CLOSED: Closed,
    _lock.HELD: InternalError,
}
_REMEDY = {
    _lock.REFUSED: "give the file and its directory to the user that runs this, and nobody else",
    _lock.HELD: "a lock is not re-entrant: take it once",
}

# A timeout from here on (30 years, in seconds) is none.
_FOREVER_S = 1e9


class _Lock(Handle):
    """What both kinds of lock have in common."""

    __slots__ = ("_forked", "path")

    path: str
    """The absolute path of the file."""

    def _start(self, opener: Any, path: str | os.PathLike[str], *args: int) -> None:
        encoded = _sysface.encode(path)
        self.path = os.fsdecode(encoded)
        self._forked = False
        with _opening:
            _live.add(self)
            failure = opener(self, encoded, *args)
        if failure:
            raise self._failure(failure, "cannot open the lock file")

    def _wait(self, timeout: float | None, shared: bool) -> None:
        failure = self._await(shared, deadline(timeout))
        if failure and failure[0] == _lock.TIMEOUT:
            raise self._timeout(timeout)
        if failure:
            raise self._failure(failure, "cannot lock")

    def try_lock(self, shared: bool = False) -> bool:
        """Takes the lock if it is free: whether it was.  Raises as `lock()`."""
        failure = self._attempt(shared)
        if failure and failure[0] != _lock.BUSY:
            raise self._failure(failure, "cannot lock")
        return failure is None

    def held(self, timeout: float | None = None, shared: bool = False) -> _Held:
        """`with lock.held(timeout=5):`, the lock for a block; arguments as of `lock()`."""
        return _Held(self, timeout, shared)

    def remove(self, timeout: float | None = None) -> None:
        """Unlinks the file under its exclusive lock; whoever waits for it gets `LockGone`.

        A lock that this thread holds exclusively stays held; otherwise it is taken
        for the removal, with `timeout` and the errors of `lock()`.
        """
        failure = self._unlink()
        if failure and failure[0] == _lock.NOT_HELD:
            with self.held(timeout):
                failure = self._unlink()
        if failure:
            raise self._failure(failure, "cannot remove the lock file")

    def close(self) -> None:
        """Releases the lock if this thread holds it, and closes the file.

        Where another thread holds it or waits for it, the file is closed as soon
        as that thread is done.  Closing twice, or in a forked child, does nothing.
        """
        if not self._forked:
            with _opening:
                self._close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r})"

    def _not_unlocked(self, code: int) -> LibpodError:
        if self._forked:
            return self._used_after_fork("cannot unlock")
        if code == _lock.CLOSED:
            return Closed(f"cannot unlock {self.path}: the lock was closed")
        return InternalError(
            f"cannot unlock {self.path}: this thread does not hold the lock",
            fault="job",
            remedy="release a lock in the thread that took it, and once",
        )

    def _used_after_fork(self, doing: str) -> UsedAfterFork:
        return UsedAfterFork(
            f"{doing} {self.path}: the lock belongs to the parent process",
            remedy="open the file again in the child",
        )

    def _failure(self, failure: tuple[int, int, str], doing: str) -> LibpodError:
        if self._forked:
            return self._used_after_fork(doing)
        return _sysface.failure(*failure, f"{doing} {self.path}", _KNOWN, _REMEDY.get(failure[0]))

    def _timeout(self, timeout: float | None) -> LockTimeout:
        pid = _holder(self.path)
        who = "an unknown process" if pid is None else process(pid)
        return LockTimeout(
            f"{self.path} was not free within {timeout:g} s: it is held by {who}",
            holder=pid,
            remedy="wait longer, or see what that process is doing",
        )


class _Held:
    """The context of `held()`."""

    __slots__ = ("_lock", "_shared", "_timeout")

    def __init__(self, lock: _Lock, timeout: float | None, shared: bool) -> None:
        self._lock = lock
        self._timeout = timeout
        self._shared = shared

    def __enter__(self) -> _Lock:
        self._lock.lock(self._timeout, self._shared)
        return self._lock

    def __exit__(self, *exc_info: object) -> None:
        self._lock.__exit__()


class LockFile(_Lock):
    """A lock file of mode 0600 in a directory of mode 0700, locked with flock.

    Whoever can open a file can lock it, so nobody else may: file and directory
    must be ours and are narrowed where they are wider (the original makes the
    directory 0755).  The path is trusted only if every directory on it is root's
    or ours and writable by nobody else unless sticky; links must be root's.

    `LockFile(path)` opens a file that is there and never makes one;
    `LockFile.create(path)` makes it, `remove()` ends it.

    Raises:
        LockGone: there is no such file.
        LockRefused: somebody else could reach or steer it.
    """

    __slots__ = ()

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._start(Handle._open, path, False)

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> LockFile:
        """Makes the file of a new object; not locked yet.

        Raises:
            LockRefused: as for the class.
            SystemCallError: with errno EEXIST where the file is there already.
        """
        made = cls.__new__(cls)
        made._start(Handle._open, path, True)
        return made


class RecordLock(_Lock):
    """A record lock on a whole file, made with exactly `mode` where it is missing.

    For files that podman or containers/storage lock with fcntl too: they and this
    exclude each other (OFD locks on our side).  The file must be ours or root's.
    With a mode of 0 a missing file is not made.

    Raises:
        LockGone: there is no such file, and the mode is 0.
        LockRefused: the file belongs to somebody else, is no regular file, or
            somebody else could steer the path.
    """

    __slots__ = ()

    def __init__(self, path: str | os.PathLike[str], mode: int = 0o600) -> None:
        self._start(Handle._open_record, path, mode)


# --- forks -----------------------------------------------------------------------

# No fork while a descriptor is open that is not in the list.
_opening = threading.RLock()
_live: weakref.WeakSet[_Lock] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for lock in list(_live):
        lock._forked = True
        lock._abandon()
    _live.clear()
    _opening.release()


os.register_at_fork(
    before=_opening.acquire,
    after_in_parent=_opening.release,
    after_in_child=_after_fork_in_child,
)


# --- time-outs ---------------------------------------------------------------------


def deadline(timeout: float | None) -> int:
    """The end of a wait that begins now, for C."""
    if timeout is None or timeout >= _FOREVER_S:
        return _lock.FOREVER
    if timeout != timeout:
        raise InvalidArgument("a timeout must be a number of seconds, not NaN")
    return time.monotonic_ns() + int(max(timeout, 0) * 1e9)


def process(pid: int) -> str:
    if pid == os.getpid():
        return f"this process (pid {pid})"
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
            return f"pid {pid} ({comm.read().strip()})"
    except OSError:  # it is gone, or hidden
        return f"pid {pid}"


def _holder(path: str) -> int | None:
    """The pid of a process that holds a lock on the file, as far as can be seen.

    /proc/locks has flock and classic record locks of our pid namespace; OFD locks
    have no owner there and are looked for behind every descriptor that we may see.
    """
    try:
        status = os.lstat(path)
        with open("/proc/locks", encoding="ascii") as locks:
            table = [line.split() for line in locks]
    except OSError:  # the file is gone by now, or there is no /proc
        return None
    file = f"{_device(path, status)}:{status.st_ino}"
    for fields in table:  # "1: FLOCK ADVISORY WRITE 612 fe:00:4711 0 EOF"; "->" marks who waits
        if fields[1] == "->" or fields[5] != file:
            continue
        if int(fields[4]) > 0:
            return int(fields[4])
        return _descriptor_holder(path, status)
    return None


def _device(path: str, status: os.stat_result) -> str:
    """The file system of the file as /proc/locks writes it.

    That is the mount's device, which on btrfs and overlayfs differs from st_dev.
    """
    try:
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as info:
                mount = next(line.split()[1] for line in info if line.startswith("mnt_id:"))
        finally:
            os.close(fd)
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
            device = next(f[2] for f in map(str.split, mounts) if f[0] == mount)
        major, minor = map(int, device.split(":"))
    except (OSError, StopIteration):
        major, minor = os.major(status.st_dev), os.minor(status.st_dev)
    return f"{major:02x}:{minor:02x}"


def _descriptor_holder(path: str, status: os.stat_result) -> int | None:
    name = "/" + os.path.basename(path)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            fds = os.listdir(f"/proc/{pid}/fd")
        except OSError:  # it ended, or is somebody else's
            continue
        for fd in fds:
            try:
                # The name first: stat() on a dead network file system hangs.
                if not os.readlink(f"/proc/{pid}/fd/{fd}").endswith(name):
                    continue
                if not os.path.samestat(os.stat(f"/proc/{pid}/fd/{fd}"), status):
                    continue
                with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii") as info:
                    if any(line.startswith("lock:") for line in info):
                        return int(pid)
            except OSError:  # closed meanwhile
                continue
    return None
