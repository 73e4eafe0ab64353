# SPDX-License-Identifier: Apache-2.0
"""Which living process looks after which container, as all processes can see it.

A container that was started attached is cleared up by the process that started
it, which alone knows what it consumed.  Others must leave it alone while that
process lives, and must take it over when it has died.  A claim also tells that a
container is just being made, and who was at work when something was cut short.

Each runtime that looks after something has a directory below `tmp_dir/owners`,
locked with flock as long as it lives, with an empty file for each container.  They are
links to one file: where inodes are made and removed at a high rate, ext4 takes ever
longer to find one that is free.

 1. A directory is locked before it gets its name, so one that is not locked has
    lost its owner.
 2. A claim is made before anything of the container runs, and given up after its
    end was recorded, or it was removed if that is to happen at its end.
 3. A claim is made before the first trace of a new container, and given up after
    its record is there: what has neither record nor living claim is abandoned.
 4. A dead owner's claim is taken over by a rename: one of those who try succeeds.
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

_LINKED = ".claim"
"""What a directory's claims are links to."""

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
        self._inherited: set[str] = set()

    def claim(self, container_id: str) -> None:
        """This process looks after the container from now on.  Raises `SystemCallError`."""
        try:
            with self._lock:
                own = self._directory()
                self._inherited.discard(container_id)
            _claim(own, container_id)
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
            self._inherited.discard(container_id)
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

    def lives(self, container_id: str) -> bool:
        """Whether a living runtime, this one too, has claimed the container."""
        return any(
            os.path.exists(f"{directory}/{container_id}") and not _is_dead(directory)
            for directory in self._directories()
        )

    def orphaned(self, container_id: str) -> bool:
        """Whether whoever had claimed the container died, perhaps in the middle of a step."""
        return container_id in self._inherited or any(
            directory != self._own
            and os.path.exists(f"{directory}/{container_id}")
            and _is_dead(directory)
            for directory in self._directories()
        )

    def living_claims(self) -> set[str]:
        """The IDs of all containers for which `lives` holds."""
        living = [path for path in self._directories() if not _is_dead(path)]
        return {container_id for path in living for container_id in _claims(path)}

    def dead(self) -> list[str]:
        """The directories whose owners have died, also those that were never finished."""
        return [path for path in self._directories() if _is_dead(path)] + self._unfinished()

    def forget(self, container_id: str) -> None:
        """Drops the claims that dead owners have on a container of which nothing is left."""
        for directory in self._directories():
            if directory != self._own and _is_dead(directory):
                with suppress(FileNotFoundError):
                    os.unlink(f"{directory}/{container_id}")
                _remove(directory)

    def inherit(self) -> Iterator[str]:
        """Takes over what dead owners have left: the IDs of the containers."""
        for directory in self._directories():
            if directory == self._own or not _is_dead(directory):
                continue
            for container_id in _claims(directory):
                with self._lock:
                    own = self._directory()
                with suppress(FileNotFoundError):
                    os.rename(f"{directory}/{container_id}", f"{own}/{container_id}")
                    self._inherited.add(container_id)
                    yield container_id
            _remove(directory)
        for path in self._unfinished():
            _remove(path)

    def close(self) -> None:
        """Gives up what is left, for others to take over; idempotent."""
        with self._lock:
            if self._own is None:
                return
            _remove(self._own)
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
                _make_empty(f"{scratch}/{_LINKED}")
                os.rename(scratch, own)
                self._own = own
            except BaseException:
                self._give_up(scratch, own)
                raise
        return self._own

    def _give_up(self, *paths: str) -> None:
        for path in paths:
            _remove(path)
        fd, self._fd, self._own = self._fd, -1, None
        if fd >= 0:
            os.close(fd)

    def _directories(self) -> list[str]:
        return [
            f"{self._base}/{name}" for name in _names(self._base) if not name.startswith(_SCRATCH)
        ]

    def _unfinished(self) -> list[str]:
        """Without a name of their own for so long that whoever made them was killed."""
        young = time.time() - _SCRATCH_AGE
        found = []
        for name in _names(self._base):
            path = f"{self._base}/{name}"
            with suppress(FileNotFoundError):
                if name.startswith(_SCRATCH) and os.stat(path).st_mtime < young:
                    found.append(path)
        return found


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _claims(directory: str) -> list[str]:
    return [name for name in _names(directory) if name != _LINKED]


def _claim(directory: str, container_id: str) -> None:
    path = f"{directory}/{container_id}"
    try:
        os.link(f"{directory}/{_LINKED}", path)
    except FileExistsError:
        return
    except OSError:  # too many links, or a file system without them
        _make_empty(path)


def _make_empty(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))


def _remove(directory: str) -> None:
    """One that nobody will claim in any more; with claims in it, it stays."""
    with suppress(OSError):  # somebody else was faster
        os.unlink(f"{directory}/{_LINKED}")
    with suppress(OSError):
        os.rmdir(directory)


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
