# SPDX-License-Identifier: Apache-2.0
"""Which living process looks after which container, as all processes can see it.

A container that was started attached is cleared up by the process that started
it, which alone knows what it consumed.  Others must leave it alone while that
process lives, and must take it over when it has died.

Each runtime that looks after something has a directory below `tmp_dir/owners`,
locked with flock as long as it lives, with an empty file for each container:

 1. A directory is locked before it gets its name, so one that is not locked has
    lost its owner.
 2. A claim is made before anything of the container runs, and given up after its
    end was recorded.
 3. A dead owner's claim is taken over by a rename: one of those who try succeeds.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

from libpod import rundir
from libpod.errors import SystemCallError

_SCRATCH = "."
"""How the name of a directory begins that is being made."""

_SCRATCH_AGE = 60.0
"""Seconds; nobody takes as long to make one."""


class Owners:
    """The claims of one runtime, and those of others in the same directories.

    Nothing is made before the first claim.  Safe to use from many threads.
    """

    def __init__(self, tmp_dir: str) -> None:
        self._base = f"{tmp_dir}/owners"
        self._lock = threading.Lock()
        self._own: str | None = None
        self._fd = -1

    def claim(self, container_id: str) -> None:
        """This process looks after the container from now on.  Raises `SystemCallError`."""
        try:
            with self._lock:
                path = f"{self._directory()}/{container_id}"
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise SystemCallError(
                f"cannot claim container {container_id}: {error.strerror}",
                error.errno or 0,
                container_id=container_id,
                remedy=f"check the space and the permissions of {self._base}",
            ) from error

    def disclaim(self, container_id: str) -> None:
        """It does no more."""
        if self._own is not None:
            with suppress(FileNotFoundError):
                os.unlink(f"{self._own}/{container_id}")

    def claimed(self, container_id: str) -> bool:
        """Whether anybody looks after the container, or did until he died."""
        return any(os.path.exists(f"{path}/{container_id}") for path in self._directories())

    def another_lives(self, container_id: str) -> bool:
        """Whether another living runtime looks after the container."""
        return any(
            directory != self._own
            and os.path.exists(f"{directory}/{container_id}")
            and not _is_dead(directory)
            for directory in self._directories()
        )

    def inherit(self) -> Iterator[str]:
        """Takes over what dead owners have left: the IDs of the containers."""
        for directory in self._directories():
            if directory == self._own or not _is_dead(directory):
                continue
            for container_id in _names(directory):
                with self._lock:
                    own = self._directory()
                with suppress(FileNotFoundError):
                    os.rename(f"{directory}/{container_id}", f"{own}/{container_id}")
                    yield container_id
            with suppress(OSError):  # somebody else was faster
                os.rmdir(directory)
        self._clear_scratch()

    def _clear_scratch(self) -> None:
        """Those whose maker was killed before they got their name."""
        for name in _names(self._base):
            path = f"{self._base}/{name}"
            with suppress(FileNotFoundError):
                if (
                    name.startswith(_SCRATCH)
                    and time.time() - os.stat(path).st_mtime > _SCRATCH_AGE
                ):
                    os.rmdir(path)

    def close(self) -> None:
        """Gives up what is left, for others to take over; idempotent."""
        with self._lock:
            if self._own is None:
                return
            with suppress(OSError):  # not empty: it is found without an owner
                os.rmdir(self._own)
            os.close(self._fd)
            self._own = None

    def _directory(self) -> str:
        """Our own; made and locked at first."""
        if self._own is None:
            rundir.make_private_dir(self._base)
            name = f"{os.getpid()}-{os.urandom(4).hex()}"
            scratch, own = f"{self._base}/{_SCRATCH}{name}", f"{self._base}/{name}"
            try:
                os.mkdir(scratch, 0o700)
                self._fd = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(self._fd, fcntl.LOCK_EX)
                os.rename(scratch, own)
                self._own = own
            except BaseException:
                self._give_up(scratch, own)
                raise
        return self._own

    def _give_up(self, *paths: str) -> None:
        for path in paths:
            with suppress(FileNotFoundError):
                os.rmdir(path)
        fd, self._fd, self._own = self._fd, -1, None
        if fd >= 0:
            os.close(fd)

    def _directories(self) -> list[str]:
        return [
            f"{self._base}/{name}" for name in _names(self._base) if not name.startswith(_SCRATCH)
        ]


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _is_dead(directory: str) -> bool:
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # gone, so nobody's
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True
