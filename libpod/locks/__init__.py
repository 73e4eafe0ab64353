# SPDX-License-Identifier: Apache-2.0
"""The locks of containers, pods and volumes: one face for three mechanisms.

`flock` has a file for each object and no lock IDs; `file` and `shm` are podman's
lock files and its shared memory of robust mutexes, with lock IDs by podman's
allocation.  `open_manager()` opens one of them and records which it was: two
programs that lock by different means do not exclude each other.

A lock belongs to the thread that took it and is not re-entrant; threads and
processes exclude each other, also where they have an object of their own for the
same ID.  A file is opened when it is locked; a few stay open after, for the next
time.  In a forked child everything of the parent's raises `UsedAfterFork`.
"""

from __future__ import annotations

import errno
import os

from libpod import rundir
from libpod.errors import (
    ConfigError,
    InvalidArgument,
    SystemCallError,
)
from libpod.locks.base import LockManager, ObjectLock
from libpod.locks.paths import FileManager, FlockManager
from libpod.settings import LOCK_TYPES, NUM_LOCKS

__all__ = [
    "FILE",
    "FLOCK",
    "SHM",
    "FileManager",
    "FlockManager",
    "LockManager",
    "ObjectLock",
    "open_manager",
    "recorded_kind",
]

FLOCK, SHM, FILE = LOCK_TYPES

_RECORD = "lock_type"


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
    from libpod.locks.shm import ShmManager, default_path

    return ShmManager(shm_path or default_path(rootless_uid), num_locks)


def recorded_kind(tmp_dir: str) -> str | None:
    """The kind of the locks in a runtime directory; None where there are none yet."""
    return _read_kind(os.path.join(tmp_dir, _RECORD))


# --- which kind --------------------------------------------------------------------


def _record_kind(kind: str, tmp_dir: str) -> None:
    """Notes the kind in the directory, once and at once, or finds it there."""
    path = os.path.join(tmp_dir, _RECORD)
    try:
        recorded = _read_kind(path)
        if recorded is None:
            try:
                _publish(f"{kind}\n", tmp_dir, path)
                return
            except FileExistsError:  # another process was faster
                recorded = _read_kind(path)
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


def _publish(text: str, directory: str, path: str) -> None:
    """Makes a file with all its text at once.  It has no name before, so that a kill
    leaves nothing; where the file system cannot do that, it has another one."""
    try:
        fd = os.open(directory, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        scratch = None
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
            raise
        scratch = f"{path}.{os.urandom(8).hex()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(scratch, flags, 0o600)
    try:
        os.write(fd, text.encode())
        # With a directory, which an absolute path does not need, links are followed.
        os.link(scratch or f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)
    finally:
        os.close(fd)
        if scratch is not None:
            os.unlink(scratch)


def _read_kind(path: str) -> str | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with open(fd, encoding="ascii", errors="replace") as file:
        return file.read(64).strip()
