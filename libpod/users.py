# SPDX-License-Identifier: Apache-2.0
"""Who a container's process runs as, looked up in its own root file system.

The root file system is foreign data: its links may point anywhere and its
`/etc/passwd` may be a device.  Every path is therefore walked one component
at a time from a descriptor of the root; links are resolved inside the root
as the container itself would, and `..` steps back along the descriptors that
the walk came by, never through the kernel's parent link.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from libpod.errors import InvalidArgument, SystemCallError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_FILE = 16 << 20
"""Bytes of a passwd or group file that are read at most; a larger one is refused."""

MAX_LINKS = 40
"""Links followed in one path at most (the kernel's own number)."""

MAX_ID = 2**31 - 1
"""The largest user or group ID that podman takes."""

_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class User(NamedTuple):
    """A user as the OCI spec wants it."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    """Supplementary group IDs; with a user that was asked for, its gid is the first."""
    home: str


class _Account(NamedTuple):
    name: str
    uid: int
    gid: int
    home: str


class _Group(NamedTuple):
    name: str
    gid: int
    members: tuple[str, ...]


def lookup(root: str, user: str | None) -> User:
    """Resolve `user` in `root`'s /etc/passwd and /etc/group, as podman does.

    `user` is "name", "uid", "name:group" or "uid:gid" in any mixture; None is
    root.  A user ID without an entry gets group 0 and the home "/".  Without
    an explicit group the process also gets the groups that list the user.

    Raises `InvalidArgument` for an unknown name, an ID out of range, or a
    passwd or group file that is no regular file or too large, and
    `SystemCallError` where reading fails.
    """
    wanted, _, group = (user or "0").partition(":")
    account = _find_account(root, wanted or "0")
    if group:
        gid = _find_gid(root, group)
        return User(account.uid, gid, (gid,), account.home)
    groups = [entry.gid for entry in _groups(root) if account.name in entry.members]
    if user is not None:
        groups.insert(0, account.gid)
    return User(account.uid, account.gid, tuple(dict.fromkeys(groups)), account.home)


def _find_account(root: str, wanted: str) -> _Account:
    for account in _accounts(root):
        if wanted in (account.name, str(account.uid)):
            return account
    uid = _numeric_id(wanted)
    if uid is None:
        raise InvalidArgument(
            f"unable to find user {wanted}: no matching entries in passwd file",
            remedy=f"add it to etc/passwd below {root}, or give a numeric user ID",
        )
    return _Account("", uid, 0, "/")


def _find_gid(root: str, wanted: str) -> int:
    for group in _groups(root):
        if wanted in (group.name, str(group.gid)):
            return group.gid
    gid = _numeric_id(wanted)
    if gid is None:
        raise InvalidArgument(
            f"unable to find group {wanted}: no matching entries in group file",
            remedy=f"add it to etc/group below {root}, or give a numeric group ID",
        )
    return gid


def _numeric_id(text: str) -> int | None:
    """The ID that `text` spells, or None where it is a name."""
    if not (text.isascii() and text.isdigit()):
        return None
    value = int(text[:11])
    if len(text) > 11 or value > MAX_ID:
        raise InvalidArgument(f"ID {text[:32]}: user and group IDs are 0 to {MAX_ID}")
    return value


def _accounts(root: str) -> Iterator[_Account]:
    for fields in _lines(root, "etc/passwd"):
        # A malformed ID must not read as 0, which is root: such a line names nobody.
        if len(fields) >= 4 and fields[0] and _is_id(fields[2]) and _is_id(fields[3]):
            home = fields[5] if len(fields) > 5 else ""
            yield _Account(fields[0], int(fields[2]), int(fields[3]), home or "/")


def _groups(root: str) -> Iterator[_Group]:
    for fields in _lines(root, "etc/group"):
        if len(fields) >= 3 and fields[0] and _is_id(fields[2]):
            members = tuple(filter(None, fields[3].split(","))) if len(fields) > 3 else ()
            yield _Group(fields[0], int(fields[2]), members)


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= MAX_ID


def _lines(root: str, path: str) -> Iterator[list[str]]:
    for line in _read(root, path).split("\n"):
        if (text := line.strip()) and "\0" not in text:
            yield text.split(":")


def _read(root: str, path: str) -> str:
    """The text of a file inside `root`; empty where there is none."""
    where = f"{root}/{path}"
    try:
        with _open_inside(root, path) as file:
            # The name was a regular file's a moment ago; what was opened counts.
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InvalidArgument(f"{where} is not a regular file")
            if status.st_size > MAX_FILE:
                raise InvalidArgument(f"{where} is larger than {MAX_FILE >> 20} MiB")
            return file.read(status.st_size).decode("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        text = f"cannot read {where}: {error.strerror}"
        raise SystemCallError(text, error.errno or 0) from error


def _open_inside(root: str, path: str) -> BinaryIO:
    """Open the regular file `path` below `root` for reading."""
    walked = [os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
    try:
        descriptor = _walk(walked, path)
    finally:
        _close(walked)
    if descriptor is None:
        raise InvalidArgument(f"{root}/{path} is not a regular file")
    return open(descriptor, "rb")


def _walk(walked: list[int], path: str) -> int | None:
    """Open the last component of `path`, or None where it is no regular file.

    `walked` holds the root's descriptor and, after it, those of the
    directories on the way to where the walk is; the caller closes them.
    """
    todo = _components(path)
    links = 0
    while todo:
        part = todo.pop()
        if part == "..":
            if len(walked) > 1:
                os.close(walked.pop())
            continue
        mode = os.stat(part, dir_fd=walked[-1], follow_symlinks=False).st_mode
        if stat.S_ISLNK(mode):
            links += 1
            if links > MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            target = os.readlink(part, dir_fd=walked[-1])
            if target.startswith("/"):
                _close(walked[1:])
                del walked[1:]
            todo += _components(target)
        elif todo:
            walked.append(os.open(part, _STEP, dir_fd=walked[-1]))
        elif stat.S_ISREG(mode):
            return os.open(part, _READ, dir_fd=walked[-1])
        else:
            return None
    return None


def _components(path: str) -> list[str]:
    """The parts of a path that matter, the first one last."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
