# SPDX-License-Identifier: Apache-2.0
"""Runtime directories: where a user's own is, and the tree that a runtime needs.

A directory is used only along a trusted path: every directory on it is root's
or ours and writable by nobody else unless sticky, and links (/var/run) must
be root's.  What is checked is the open directory, not its name.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from libpod import _sysface
from libpod._sys import ffi, lib
from libpod.errors import LibpodError, RuntimeDirError

_log = logging.getLogger("libpod.rundir")

_TREE = (  # below TmpDir; the original makes the lock directory 0755
    ("exits", 0o750),
    ("socket", 0o750),
)
_PERMISSIONS = 0o777


def rootless_runtime_dir(environ: Mapping[str, str], uid: int) -> str:
    """The directory for what a user's containers keep until the next boot.

    The original's search: XDG_RUNTIME_DIR, /run/user/UID, TMPDIR/user/UID,
    HOME/rundir.  The last three are made where they are missing and must be
    directories of ours with exactly mode 0700; the first that is, is taken.

    XDG_RUNTIME_DIR, which the original takes unseen, must be a directory of
    ours that nobody else can write to; one that others can read is used with a
    warning.  It is never passed over in silence.

    Args:
        environ: where XDG_RUNTIME_DIR, TMPDIR and HOME are read.
        uid: the user in the names (outside its user namespace); that of the
            process decides what is ours.

    Raises:
        RuntimeDirError: XDG_RUNTIME_DIR is not safe, HOME is empty or cannot be
            resolved, or no candidate is safe; says why for each.
    """
    xdg = environ.get("XDG_RUNTIME_DIR")
    if xdg:
        _check_xdg(xdg)
        return xdg
    temporary = environ.get("TMPDIR") or "/tmp"
    refused = []
    for path in (f"/run/user/{uid}", os.path.join(temporary, "user", str(uid))):
        try:
            _check_private(path)
            return path
        except LibpodError as error:
            _log.info("passed over: %s", error)
            refused.append(str(error))
    path = os.path.join(_resolved_home(environ), "rundir")
    try:
        _check_private(path)
    except LibpodError as error:
        raise RuntimeDirError(
            "; ".join(["no runtime directory is safe", *refused, str(error)]),
            remedy="set XDG_RUNTIME_DIR to a directory of yours with mode 0700",
        ) from error
    return path


def make_dir(path: str, mode: int) -> None:
    """Makes the directory and those above it that are missing, each with exactly `mode`.

    One that is there keeps its mode, but must be root's or ours and writable by
    nobody else.

    Raises:
        RuntimeDirError: somebody else could write to it, or steer the path.
        SystemCallError: it could not be made; `errno` says why.
    """
    os.close(_open(lib.lp_rundir_make, path, mode))


def make_private_dir(path: str, mode: int = 0o700) -> None:
    """As `make_dir()`, for a directory that must be ours: a wider one is narrowed to `mode`."""
    os.close(_open(lib.lp_rundir_make_private, path, mode))


def make_tree(tmp_dir: str, static_dir: str) -> None:
    """The directories of a runtime, with the original's modes.

    TmpDir 0751 with exits and socket 0750, StaticDir 0755; the lock directory is
    0700 where the original has 0755, since whoever can open a lock file can lock it.

    Raises:
        RuntimeDirError, SystemCallError: as `make_dir()`.
    """
    make_dir(tmp_dir, 0o751)
    for name, mode in _TREE:
        make_dir(os.path.join(tmp_dir, name), mode)
    make_dir(static_dir, 0o755)
    make_private_dir(os.path.join(tmp_dir, "lock"))


def _open(opener: Any, path: str, *mode: int) -> int:
    out = ffi.new("int *", -1)
    err = ffi.new("struct lp_error *")
    code = opener(_sysface.encode(path), *mode, out, err)
    if code:
        raise _sysface.failure(
            code,
            err.sys_errno,
            ffi.string(err.message).decode(errors="replace"),
            f"cannot use the directory {path}",
            {lib.LP_EREFUSED: RuntimeDirError},
            "let it and what is above it be writable by its owner only, or name another one",
        )
    return int(out[0])


def _status(fd: int) -> os.stat_result:
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def _check_xdg(path: str) -> None:
    def refuse(why: str, cause: BaseException | None = None) -> RuntimeDirError:
        error = RuntimeDirError(
            f"XDG_RUNTIME_DIR={path}: {why}",
            remedy="make it a directory of yours with mode 0700, or unset XDG_RUNTIME_DIR",
        )
        error.__cause__ = cause
        return error

    if not os.path.isabs(path):
        raise refuse("it is not an absolute path")
    try:
        status = _status(_open(lib.lp_rundir_open, path))
    except LibpodError as error:
        raise refuse(error.message, error) from error
    mode = status.st_mode & _PERMISSIONS
    if status.st_uid != os.geteuid():
        raise refuse(f"it belongs to uid {status.st_uid}, not to us (uid {os.geteuid()})")
    if mode & 0o022:
        raise refuse(f"it is writable by others (mode {mode:04o})")
    if mode & 0o077:
        _log.warning("XDG_RUNTIME_DIR=%s is open to others (mode %04o): chmod 0700 it", path, mode)


def _check_private(path: str) -> None:
    if not os.path.isabs(path):
        raise RuntimeDirError(f"{path} is not an absolute path")
    status = _status(_open(lib.lp_rundir_make, path, 0o700))
    mode = status.st_mode & _PERMISSIONS
    if status.st_uid != os.geteuid():
        raise RuntimeDirError(
            f"{path} belongs to uid {status.st_uid}, not to us (uid {os.geteuid()})"
        )
    if mode != 0o700:
        raise RuntimeDirError(f"{path} has mode {mode:04o}, not 0700")


def _resolved_home(environ: Mapping[str, str]) -> str:
    home = environ.get("HOME")
    if not home:
        raise RuntimeDirError(
            "neither XDG_RUNTIME_DIR nor HOME was set non-empty",
            remedy="set XDG_RUNTIME_DIR to a directory of yours with mode 0700",
        )
    try:
        return os.path.realpath(home, strict=True)
    except OSError as error:
        raise RuntimeDirError(
            f"cannot resolve {home}: {error.strerror}", remedy="set HOME to your home directory"
        ) from error
