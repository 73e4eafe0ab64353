# SPDX-License-Identifier: Apache-2.0
"""A container's tree as a tar archive, as `podman export` makes it.

The tree is hostile and may change meanwhile: each entry is held with O_PATH and
looked at before anything is opened, and only regular files and directories ever
are.  Entries come in podman's order, with owners as numbers, whole seconds, hard
links, and the extended attributes that podman keeps.

What is archived is the tree on the host.  Volumes and other mounts of the
container are in its own mount namespace: here their mount points are the empty
directories that they cover.  Where the host itself has mounted something in the
tree, that is left out likewise.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import struct
from contextlib import nullcontext
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from libpod._sys import ffi, lib
from libpod.errors import SystemCallError
from libpod.rootdir import RootDir, reopen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    _Write = Callable[[bytes], None]

log = logging.getLogger("libpod.export")

_BLOCK = 512
_CHUNK = 1 << 20
"""Bytes of a file that are in memory at a time."""

# The largest numbers of the ustar header's octal fields.
_MAX_ID = 0o7777777
_MAX_SIZE = _MAX_TIME = 0o77777777777
_MAX_NAME = 100

_TYPES = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}
_HARD_LINK = b"1"
_DIRECTORY = b"5"
_DEVICES = (b"3", b"4")
_PAX = b"x"

_VANISHED = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP))
"""What opening a path yields whose directories are no longer what they were."""


class _Entry(NamedTuple):
    """One header of the archive."""

    path: bytes
    kind: bytes
    status: os.stat_result
    size: int = 0
    link: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


def export(root: str | RootDir, out: str | BinaryIO) -> None:
    """Writes the tree below `root` as an uncompressed tar (pax where it must).

    Sockets are left out, since tar has none; a file that shrinks while it is
    read is filled up with zeros, one that grows is cut; what vanishes is left
    out.  Each of these is logged.

    Args:
        root: the mounted root file system of the container.
        out: an open binary file, or the path of a file, which is made or
            overwritten; one that was made is removed after a failure.

    Raises:
        SystemCallError: the tree cannot be read (ENAMETOOLONG: it is nested
            deeper than paths reach), or the archive not be written (ENOSPC, ...).
    """
    inside: AbstractContextManager[RootDir] = (
        RootDir(root) if isinstance(root, str) else nullcontext(root)
    )
    with inside as opened:
        if isinstance(out, str):
            _export_to_path(opened, out)
        else:
            _write_archive(opened, _writer(out, "the archive"))


def _export_to_path(root: RootDir, path: str) -> None:
    made = False
    try:
        descriptor, made = _create(path)
        with open(descriptor, "wb", buffering=_CHUNK) as file:
            _write_archive(root, _writer(file, path))
    except BaseException as error:
        if made:
            os.unlink(path)
        if isinstance(error, OSError) and not isinstance(error, SystemCallError):
            raise _failure("write", path, error) from error
        raise


def _create(path: str) -> tuple[int, bool]:
    """A descriptor for writing, and whether the file is a new one."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_EXCL, 0o666), True
    except FileExistsError:
        return os.open(path, flags | os.O_TRUNC, 0o666), False


def _writer(file: BinaryIO, name: str) -> _Write:
    """A function that writes all of its argument, also to a raw file, which may take less."""

    def write(data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[file.write(view) :]
        except OSError as error:
            raise _failure("write", name, error) from error

    return write


def _write_archive(root: RootDir, write: _Write) -> None:
    links: dict[tuple[int, int], bytes] = {}
    for path, held in _walk(root):
        try:
            _write_entry(root, path, held, links, write)
        except SystemCallError:
            raise
        except OSError as error:
            raise _failure("read", _place(root, path), error) from error
    write(bytes(2 * _BLOCK))


def _write_entry(
    root: RootDir,
    path: bytes,
    held: int,
    links: dict[tuple[int, int], bytes],
    write: _Write,
) -> None:
    """Archives what `held` is; `links` knows where the files with several names are."""
    status = os.fstat(held)
    kind = _TYPES.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        log.debug("%s is a socket: left out", _place(root, path))
        return
    entry = _Entry(path, kind, status, xattrs=_xattrs(root, path, held))
    if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
        first = links.setdefault((status.st_dev, status.st_ino), path)
        if first != path:
            write(_header(entry._replace(kind=_HARD_LINK, link=first)))
            return
    if stat.S_ISLNK(status.st_mode):
        entry = entry._replace(link=os.readlink(b"", dir_fd=held))
    if not stat.S_ISREG(status.st_mode):
        write(_header(entry))
        return
    source = reopen(held)
    try:
        write(_header(entry._replace(size=status.st_size)))
        _copy(source, status.st_size, write, _place(root, path))
    finally:
        os.close(source)


def _copy(source: int, size: int, write: _Write, place: str) -> None:
    """Exactly `size` bytes, and what fills the last block."""
    left = size
    while left and (chunk := os.read(source, min(left, _CHUNK))):
        write(chunk)
        left -= len(chunk)
    if left:
        log.warning("%s shrank by %d bytes while it was read: filled with zeros", place, left)
    while left:
        write(bytes(min(left, _CHUNK)))
        left -= min(left, _CHUNK)
    write(bytes(-size % _BLOCK))
    if os.fstat(source).st_size > size:
        log.warning("%s grew while it was read: cut after %d bytes", place, size)


# --- the tree -----------------------------------------------------------------------


def _walk(root: RootDir) -> Iterator[tuple[bytes, int]]:
    """Every path below the root with its O_PATH descriptor, which is closed after it.

    A directory comes before what is in it, and the names in it by their bytes.
    """
    mount = _mount_of(root.fileno())
    todo = _names(root, b"", root.fileno())
    while todo:
        path = todo.pop()
        try:
            held = root.hold(path)
        except OSError as error:
            if error.errno not in _VANISHED:
                raise _failure("open", _place(root, path), error) from error
            log.debug("%s vanished while the tree was read: left out", _place(root, path))
            continue
        try:
            yield path, held
            if stat.S_ISDIR(os.fstat(held).st_mode):
                if _mount_of(held) == mount:
                    todo += _names(root, path, held)
                else:
                    log.info("%s is a mount point: what is in it is left out", _place(root, path))
        finally:
            os.close(held)


def _names(root: RootDir, path: bytes, held: int) -> list[bytes]:
    """The paths of what is in a directory, the first one last."""
    try:
        directory = reopen(held, os.O_DIRECTORY)
        try:
            names = [os.fsencode(name) for name in os.listdir(directory)]
        finally:
            os.close(directory)
    except OSError as error:
        raise _failure("read", _place(root, path), error) from error
    names.sort(reverse=True)
    return [b"%s/%s" % (path, name) if path else name for name in names]


def _mount_of(fd: int) -> int:
    number = ffi.new("int *")
    err = ffi.new("struct lp_error *")
    if lib.lp_mount_id(fd, number, err):
        raise SystemCallError(ffi.string(err.message).decode(errors="replace"), err.sys_errno)
    return int(number[0])


def _xattrs(root: RootDir, path: bytes, held: int) -> tuple[tuple[bytes, bytes], ...]:
    """The extended attributes that podman archives: a file's capabilities and user.*."""
    place = f"/proc/self/fd/{held}"
    found = []
    try:
        names = os.listxattr(place)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return ()
        raise
    for name in sorted(names):
        if name != "security.capability" and not name.startswith("user."):
            continue
        if "=" in name:  # which ends a keyword in a pax header
            log.warning("%s: attribute %r cannot be archived", _place(root, path), name)
            continue
        try:
            found.append((os.fsencode(name), os.getxattr(place, name)))
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise
            log.debug("%s: attribute %r vanished", _place(root, path), name)
    return tuple(found)


def _place(root: RootDir, path: bytes) -> str:
    return os.path.join(root.path, os.fsdecode(path))


def _failure(doing: str, place: str, error: OSError) -> SystemCallError:
    return SystemCallError(f"cannot {doing} {place!r}: {error.strerror}", error.errno or 0)


# --- headers ------------------------------------------------------------------------


def _header(entry: _Entry) -> bytes:
    """The ustar header, after a pax header with what does not fit into it."""
    status = entry.status
    more = [(b"SCHILY.xattr." + name, value) for name, value in entry.xattrs]

    def number(keyword: bytes, value: int, most: int) -> int:
        if 0 <= value <= most:
            return value
        more.append((keyword, b"%d" % value))
        return 0

    def text(keyword: bytes, value: bytes) -> bytes:
        if len(value) > _MAX_NAME or not value.isascii():
            more.append((keyword, value))
        return value[:_MAX_NAME]

    block = _ustar(
        text(b"path", entry.path + b"/" if entry.kind == _DIRECTORY else entry.path),
        entry.kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=number(b"uid", status.st_uid, _MAX_ID),
        gid=number(b"gid", status.st_gid, _MAX_ID),
        size=number(b"size", entry.size, _MAX_SIZE),
        mtime=number(b"mtime", status.st_mtime_ns // 1_000_000_000, _MAX_TIME),
        link=text(b"linkpath", entry.link),
        device=status.st_rdev if entry.kind in _DEVICES else 0,
    )
    if not more:
        return block
    records = b"".join(_pax_record(keyword, value) for keyword, value in more)
    pax = _ustar(b"PaxHeaders/0", _PAX, mode=0o644, size=len(records))
    return pax + records + bytes(-len(records) % _BLOCK) + block


def _ustar(
    name: bytes,
    kind: bytes,
    *,
    mode: int,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = 0,
    link: bytes = b"",
    device: int = 0,
) -> bytes:
    """A header block of POSIX.1-1988: octal numbers, and a sum over itself."""
    block = struct.pack(
        "100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x",
        name,
        b"%07o" % mode,
        b"%07o" % uid,
        b"%07o" % gid,
        b"%011o" % size,
        b"%011o" % mtime,
        b" " * 8,  # the sum's own place counts as blanks
        kind,
        link,
        b"ustar\x0000",
        b"",
        b"",
        b"%07o" % os.major(device),
        b"%07o" % os.minor(device),
        b"",
    )
    return b"%s%06o\0 %s" % (block[:148], sum(block), block[156:])


def _pax_record(keyword: bytes, value: bytes) -> bytes:
    """ "LENGTH KEYWORD=VALUE\n", where the length counts its own digits."""
    rest = len(b" %s=%s\n" % (keyword, value))
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, keyword, value)
