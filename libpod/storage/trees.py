# SPDX-License-Identifier: Apache-2.0
"""Removing a directory whose content a container chose."""

from __future__ import annotations

import errno
import os

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: str) -> None:
    """Removes a directory and what is in it; one that is not there is removed.

    However deep it is, this takes two descriptors and no recursion: a directory
    that is not empty moves up to the top, where its turn comes.  Nothing is
    followed out of the tree.  Raises OSError (EBUSY for a mount in it).
    """
    try:
        top = os.open(path, _OPEN)
    except FileNotFoundError:
        return
    try:
        _Clearing(top).run()
    finally:
        os.close(top)
    os.rmdir(path)


class _Clearing:
    """One removal; `top` is the open directory that is emptied."""

    __slots__ = ("_count", "_top")

    def __init__(self, top: int) -> None:
        self._top = top
        self._count = 0

    def run(self) -> None:
        while pending := self._directories(self._top):
            for name in pending:
                if not _removed(name, self._top):
                    self._empty(name)

    def _empty(self, name: str) -> None:
        fd = os.open(name, _OPEN, dir_fd=self._top)
        try:
            for below in self._directories(fd):
                if not _removed(below, fd):
                    self._raise_up(below, fd)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=self._top)

    def _directories(self, fd: int) -> list[str]:
        """Removes the files in a directory; the directories that are left."""
        with os.scandir(fd) as entries:
            listed = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_directory in listed:
            if not is_directory:
                os.unlink(name, dir_fd=fd)
        return [name for name, is_directory in listed if is_directory]

    def _raise_up(self, name: str, fd: int) -> None:
        while True:
            self._count += 1
            try:
                os.rename(name, f"removed-{self._count}", src_dir_fd=fd, dst_dir_fd=self._top)
                return
            except OSError as error:  # the name is taken, by a file or by a directory
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise


def _removed(name: str, fd: int) -> bool:
    try:
        os.rmdir(name, dir_fd=fd)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True
