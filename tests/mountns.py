# SPDX-License-Identifier: Apache-2.0
"""A mount namespace for the tests of this process: what they mount goes with it."""

from __future__ import annotations

import ctypes
import os
from typing import Any

CLONE_NEWNS = 0x20000
MS_RDONLY = 1
MS_REMOUNT = 32
MS_REC = 0x4000
MS_PRIVATE = 1 << 18


def enter() -> None:
    """Mounts made from now on are ours alone."""
    checked("unshare", CLONE_NEWNS)
    checked("mount", b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None)


def mount_tmpfs(path: str, options: str = "mode=1777") -> None:
    nothing = ctypes.c_ulong(0)
    checked("mount", b"tmpfs", path.encode(), b"tmpfs", nothing, options.encode())


def remount(path: str, read_only: bool) -> None:
    flags = MS_REMOUNT | (MS_RDONLY if read_only else 0)
    checked("mount", b"none", path.encode(), None, ctypes.c_ulong(flags), None)


def unmount(path: str) -> None:
    checked("umount", path.encode())


def checked(name: str, *arguments: Any) -> None:
    """Calls a function of the C library."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
