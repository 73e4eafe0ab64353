# SPDX-License-Identifier: Apache-2.0
"""Removing a directory whose content a container chose."""

from __future__ import annotations

from libpod import _sysface
from libpod._sys import ffi, lib


def remove_tree(path: str) -> None:
    """Removes a directory and all that is in it; one that is not there is removed.

    Nothing is followed or entered that leads out of the tree: no link, not even as
    the path's last name, and no mount.  Signals are served meanwhile; what an
    interrupt or an error left is removed by calling it again.

    Raises:
        OSError: EBUSY for a mount in the tree, ENOTDIR where the path is no directory,
            ENOTEMPTY where somebody keeps adding to it, and the rest; names the place.
    """
    name = _sysface.encode(path)
    err = ffi.new("struct lp_error *")
    while code := lib.lp_dirtree_remove(name, err):
        if code != lib.LP_EINTERRUPTED:
            raise OSError(err.sys_errno, ffi.string(err.message).decode(errors="replace"))
