# SPDX-License-Identifier: Apache-2.0
"""Who a container's process runs as, looked up in its own root file system.

The root file system is foreign data, read as `libpod.rootdir` does; what its
files say is taken by podman's rules.
"""

from __future__ import annotations

import errno
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

from libpod.errors import InvalidArgument, SystemCallError
from libpod.rootdir import RootDir

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

MAX_FILE = 16 << 20
"""Bytes of a passwd or group file that are read at most; a larger one is refused."""

MAX_ID = 2**31 - 1
"""The largest user or group ID that podman takes."""


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


def lookup(root: str | RootDir, user: str | None) -> User:
    """Resolve `user` in `root`'s /etc/passwd and /etc/group, as podman does.

    `user` is "name", "uid", "name:group" or "uid:gid" in any mixture; None is
    root.  A user ID without an entry gets group 0 and the home "/".  Without
    an explicit group the process also gets the groups that list the user.

    Raises `InvalidArgument` for an unknown name, an ID out of range, or a
    passwd or group file that is no regular file or too large, and
    `SystemCallError` where reading fails.
    """
    wanted, _, group = (user or "0").partition(":")
    with _opened(root) as inside:
        account = _find_account(inside, wanted or "0")
        if group:
            gid = _find_gid(inside, list(_groups(inside)), group)
            return User(account.uid, gid, (gid,), account.home)
        groups = [entry.gid for entry in _groups(inside) if account.name in entry.members]
    if user is not None:
        groups.insert(0, account.gid)
    return User(account.uid, account.gid, tuple(dict.fromkeys(groups)), account.home)


def groups(root: str | RootDir, names: Iterable[str]) -> tuple[int, ...]:
    """The IDs of groups given by name or ID, each once, in that order.

    Raises as `lookup` does.
    """
    wanted = list(names)
    if not wanted:
        return ()
    with _opened(root) as inside:
        known = list(_groups(inside))
        return tuple(dict.fromkeys(_find_gid(inside, known, name) for name in wanted))


def _opened(root: str | RootDir) -> AbstractContextManager[RootDir]:
    """`root` as a RootDir, which ends with the block only where it was a path."""
    return RootDir(root) if isinstance(root, str) else nullcontext(root)


def _find_account(root: RootDir, wanted: str) -> _Account:
    for account in _accounts(root):
        if wanted in (account.name, str(account.uid)):
            return account
    uid = _numeric_id(wanted)
    if uid is None:
        raise InvalidArgument(
            f"unable to find user {wanted}: no matching entries in passwd file",
            remedy=f"add it to etc/passwd below {root.path}, or give a numeric user ID",
        )
    return _Account("", uid, 0, "/")


def _find_gid(root: RootDir, known: list[_Group], wanted: str) -> int:
    for group in known:
        if wanted in (group.name, str(group.gid)):
            return group.gid
    gid = _numeric_id(wanted)
    if gid is None:
        raise InvalidArgument(
            f"unable to find group {wanted}: no matching entries in group file",
            remedy=f"add it to etc/group below {root.path}, or give a numeric group ID",
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


def _accounts(root: RootDir) -> Iterator[_Account]:
    for fields in _lines(root, "etc/passwd"):
        # A malformed ID must not read as 0, which is root: such a line names nobody.
        if len(fields) >= 4 and fields[0] and _is_id(fields[2]) and _is_id(fields[3]):
            home = fields[5] if len(fields) > 5 else ""
            yield _Account(fields[0], int(fields[2]), int(fields[3]), home or "/")


def _groups(root: RootDir) -> Iterator[_Group]:
    for fields in _lines(root, "etc/group"):
        if len(fields) >= 3 and fields[0] and _is_id(fields[2]):
            members = tuple(filter(None, fields[3].split(","))) if len(fields) > 3 else ()
            yield _Group(fields[0], int(fields[2]), members)


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= MAX_ID


def _lines(root: RootDir, path: str) -> Iterator[list[str]]:
    for line in _read(root, path).split("\n"):
        if (text := line.strip()) and "\0" not in text:
            yield text.split(":")


def _read(root: RootDir, path: str) -> str:
    """The text of a file inside `root`; empty where there is none."""
    try:
        return root.read_file(path, MAX_FILE).decode("utf-8", "replace")
    except SystemCallError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return ""
        raise
