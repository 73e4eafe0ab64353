# SPDX-License-Identifier: Apache-2.0
"""What crosses the border to the C core: paths into it, failures out of it."""

from __future__ import annotations

import os

from libpod._lock import INVALID
from libpod.errors import InvalidArgument, LibpodError, SystemCallError


def encode(path: str | os.PathLike[str]) -> bytes:
    """The absolute path for C; links and ".." in it are left to the C core."""
    encoded = os.fsencode(path)
    if not encoded.startswith(b"/"):
        encoded = os.path.join(os.getcwdb(), encoded)
    if b"\0" in encoded:
        raise InvalidArgument(f"the path {os.fspath(path)!r} contains a NUL")
    return encoded


def failure(
    code: int,
    errno: int,
    text: str,
    doing: str,
    known: dict[int, type[LibpodError]],
    remedy: str | None = None,
) -> LibpodError:
    """The exception for a failed call.

    Args:
        code: what the function returned.
        errno, text: of its struct lp_error.
        doing: what was tried, and on which path.
        known: the codes that have a class of their own here.
        remedy: what to do about those.
    """
    message = f"{doing}: {text}"
    if code in known:
        return known[code](message, remedy=remedy)
    if code == INVALID:
        return InvalidArgument(message)
    return SystemCallError(message, errno)
