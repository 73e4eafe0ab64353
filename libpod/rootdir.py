# SPDX-License-Identifier: Apache-2.0
"""Reading inside a container's root file system.

The tree is foreign data, and the container may change it while we look: its
links may point anywhere, its files may be devices, FIFOs or terabytes.  So
paths are resolved inside the root as the container itself would, by openat2(2)
or, where the kernel lacks it or renames keep it from an answer, one component
at a time.  What a path leads to is held with O_PATH first, which touches
nothing; only what then proves to be a regular file or a directory is opened,
and that very object, whatever its name leads to by now.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from libpod._sys import ffi, lib
from libpod.errors import Closed, InvalidArgument, SystemCallError, UsedAfterFork

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_LINKS = 40
"""Links followed in one path at most (the kernel's own number)."""

_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_WITHOUT_OPENAT2 = frozenset((errno.ENOSYS, errno.EPERM, errno.EAGAIN))

openat2 = True
"""Whether openat2(2) is asked first; without it the walk does all."""


class RootDir:
    """The root directory of a container's tree, held open.

    Paths are the container's: relative ones start at the root, too.  Descriptors
    that methods return are close-on-exec and the caller's.  Threads may share an
    object, but not with `close()`.

    Args:
        path: the directory; that of the host, so links in it are followed.

    Raises:
        SystemCallError: it cannot be opened; `errno` says why.
    """

    __slots__ = ("_fd", "_pid", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._pid = os.getpid()
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _failure(f"the root file system {path}", error) from error

    def __enter__(self) -> RootDir:
        self.fileno()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_fd"):  # else an interrupt came before it was made
            self.close()

    def __repr__(self) -> str:
        return f"<RootDir {self.path!r}{' (closed)' if self._fd < 0 else ''}>"

    def close(self) -> None:
        """Idempotent; in a forked child it closes the child's copy."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def fileno(self) -> int:
        """The root's O_PATH descriptor.

        Raises:
            Closed, UsedAfterFork: the object is no longer usable here.
        """
        if self._fd < 0:
            raise Closed(f"the root directory {self.path} was closed")
        if self._pid != os.getpid():
            raise UsedAfterFork(
                f"the root directory {self.path} was opened before this process was forked",
                remedy="open it again in the child",
            )
        return self._fd

    def open_path(self, path: str, *, follow: bool = True) -> int:
        """An O_PATH descriptor of whatever the path leads to; nothing there is touched.

        Args:
            follow: whether a link that comes last is followed.

        Raises:
            SystemCallError: `errno` ENOENT, ENOTDIR, ELOOP and the rest.
        """
        if "\0" in path:
            raise InvalidArgument(f"the path {path!r} contains a NUL")
        try:
            return _resolve(self.fileno(), path, follow)
        except OSError as error:
            raise _failure(self._place(path), error) from error

    def hold(self, path: bytes) -> int:
        """An O_PATH descriptor of what is at exactly this path below the root: no link on
        the way is followed, one at the end is what is opened.  For walking the tree.

        Raises:
            OSError: FileNotFoundError where it has vanished, ELOOP or ENOTDIR where a
                directory was replaced meanwhile, and the rest.
        """
        fd = int(lib.lp_path_beneath(self.fileno(), path, os.O_PATH, 0))
        if fd < 0:
            raise OSError(ffi.errno, os.strerror(ffi.errno))
        return fd

    def open_file(self, path: str) -> int:
        """A descriptor for reading the regular file that the path leads to.

        Raises:
            InvalidArgument: it is no regular file.
            SystemCallError: as `open_path`.
        """
        return self._reopen(path, stat.S_ISREG, "a regular file", 0)

    def open_directory(self, path: str) -> int:
        """A descriptor for listing the directory that the path leads to.

        Raises:
            InvalidArgument: it is no directory.
            SystemCallError: as `open_path`.
        """
        return self._reopen(path, stat.S_ISDIR, "a directory", os.O_DIRECTORY)

    def read_file(self, path: str, limit: int) -> bytes:
        """What is in a regular file of at most `limit` bytes.

        Raises:
            InvalidArgument: it is no regular file, or larger, or grows beyond that.
            SystemCallError: as `open_path`.
        """
        descriptor = self.open_file(path)
        try:
            size = os.fstat(descriptor).st_size
            data = b"" if size > limit else _read(descriptor, limit + 1, size)
        except OSError as error:
            raise _failure(self._place(path), error) from error
        finally:
            os.close(descriptor)
        if max(size, len(data)) > limit:
            raise InvalidArgument(f"{self._place(path)} is larger than {_size(limit)}")
        return data

    def _reopen(self, path: str, is_wanted: Callable[[int], bool], what: str, flags: int) -> int:
        held = self.open_path(path)
        try:
            if not is_wanted(os.fstat(held).st_mode):
                raise InvalidArgument(f"{self._place(path)} is not {what}")
            return reopen(held, flags)
        except OSError as error:
            raise _failure(self._place(path), error) from error
        finally:
            os.close(held)

    def _place(self, path: str) -> str:
        return os.path.join(self.path, path.lstrip("/"))


def reopen(held: int, flags: int = 0) -> int:
    """A readable descriptor of what an O_PATH one holds: the very object, not what its
    name is by now.  Only for what was seen to be a regular file or a directory.

    Raises:
        OSError: it cannot be read.
    """
    return os.open(f"/proc/self/fd/{held}", _READ | flags)


def _failure(place: str, error: OSError) -> SystemCallError:
    return SystemCallError(f"cannot open {place}: {error.strerror}", error.errno or 0)


def _size(limit: int) -> str:
    return f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit} bytes"


def _read(fd: int, most: int, size: int) -> bytes:
    """Up to `most` bytes of a file that said it had `size`."""
    chunks = []
    while most and (chunk := os.read(fd, min(most, size + 1))):
        chunks.append(chunk)
        most -= len(chunk)
    return b"".join(chunks)


# --- resolving a path inside a root ---------------------------------------------------


def _resolve(root: int, path: str, follow: bool) -> int:
    if openat2:
        fd = ffi.new("int *")
        err = ffi.new("struct lp_error *")
        flags = 0 if follow else os.O_NOFOLLOW
        if not lib.lp_inroot_open(root, os.fsencode(path) or b".", flags, fd, err):
            return int(fd[0])
        if err.sys_errno not in _WITHOUT_OPENAT2:
            raise OSError(err.sys_errno, os.strerror(err.sys_errno))
    walked = [os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)]
    try:
        return _walk(walked, path, follow)
    finally:
        _close(walked)


def _walk(walked: list[int], path: str, follow: bool) -> int:
    """Opens what `path` leads to, by O_PATH steps of one component each.

    `walked` holds the root's descriptor and, after it, those of the directories
    on the way to where the walk is; the caller closes them.  ".." steps back
    along them, never through the kernel's parent link: a directory that is moved
    out of the tree meanwhile leads nowhere else.
    """
    todo = _components(path)
    links = 0
    while todo:
        part = todo.pop()
        if part == ".":
            continue
        if part == "..":
            if len(walked) > 1:
                os.close(walked.pop())
            continue
        walked.append(os.open(part, _STEP, dir_fd=walked[-1]))
        mode = os.fstat(walked[-1]).st_mode
        if stat.S_ISLNK(mode) and (todo or follow):
            links += 1
            if links > MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            target = os.readlink("", dir_fd=walked[-1])
            os.close(walked.pop())
            if target.startswith("/"):
                _close(walked[1:])
                del walked[1:]
            todo += _components(target)
        elif not stat.S_ISDIR(mode) and todo:
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    return walked.pop()


def _components(path: str) -> list[str]:
    """The parts of a path, the first one last; a final "/" counts as "/."."""
    parts = [part for part in path.split("/") if part]
    if path.endswith("/"):
        parts.append(".")
    return parts[::-1]


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
