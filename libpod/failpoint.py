# SPDX-License-Identifier: Apache-2.0
"""For tests only: places at which a test can end or fail this process.

    LIBPOD_FAILPOINT=storage.create.link=kill       # SIGKILL at the first pass
    LIBPOD_FAILPOINT=storage.create.link:3=error    # EIO at the third pass

The variable is read once, when this module is imported.  Where it is not set a
place costs one function call and one test of a module's variable.
"""

from __future__ import annotations

import errno
import os
import signal
import threading

VARIABLE = "LIBPOD_FAILPOINT"


class _Armed:
    """What the variable asks for.  Raises ValueError for one that has no meaning."""

    def __init__(self, text: str) -> None:
        place, equals, self.action = text.partition("=")
        self.name, colon, count = place.partition(":")
        if not self.name or not equals or self.action not in ("kill", "error"):
            raise ValueError(f"{VARIABLE}={text!r} is not NAME[:COUNT]=kill|error")
        self._left = int(count) if colon else 1
        self._counting = threading.Lock()

    def passed(self) -> None:
        with self._counting:
            self._left -= 1
            due = self._left == 0
        if not due:
            return
        if self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.EIO, f"failpoint {self.name}")


_setting = os.environ.get(VARIABLE)
_armed = _Armed(_setting) if _setting else None


def reach(name: str) -> None:
    """The place `name`: nothing happens unless a test armed it."""
    if _armed is not None and name == _armed.name:
        _armed.passed()
