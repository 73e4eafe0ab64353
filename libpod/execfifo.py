# SPDX-License-Identifier: Apache-2.0
"""Starting a created container without a program: all that `start` of crun and runc does.

Both hold a container's first process back with `exec.fifo` in its state directory,
and tell created from running by whether the fifo is there.  crun's process waits
for a byte to read, runc's for somebody to write one to; both have the fifo open
until then.  This is no part of the OCI specification, so it is done for these two
alone (`is_understood`), and whatever looks otherwise is left to the runtime itself.

A fifo that nobody holds is one that was let go by somebody who was killed before
he removed it (`is_held`).
"""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from libpod._spawn import Process

LET_GO_TIMEOUT = 10.0
"""Seconds in which runc's first process must have come to its fifo."""

_LOOK_AGAIN = 100
"""Milliseconds after which one that has not come is looked at."""


def is_understood(runtime: str) -> bool:
    """Whether the program at this path is crun or runc itself: a script of that name may
    do more at a start."""
    if os.path.basename(runtime) not in ("crun", "runc"):
        return False
    try:
        with open(runtime, "rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False


def is_held(fifo: str, pid: int) -> bool:
    """Whether process `pid` has the fifo open; also where that cannot be seen.

    Raises FileNotFoundError where there is no fifo.
    """
    held = os.lstat(fifo)
    directory = f"/proc/{pid}/fd"
    try:
        numbers = os.listdir(directory)
    except FileNotFoundError:
        return False
    except PermissionError:
        return True
    for number in numbers:
        try:
            found = os.stat(f"{directory}/{number}")
        except OSError:
            continue
        if (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino):
            return True
    return False


def let_go(fifo: str, runtime: str, init: Process) -> bool:
    """Lets the first process of a created container go on to its command.

    Returns False where that could not be done: nothing has happened then.  The fifo
    is there still; whoever removes it says that the container runs.
    """
    try:
        if os.path.basename(runtime) == "crun":
            return _write_to(fifo)
        return _read_from(fifo, init)
    except OSError:
        return False


def _write_to(fifo: str) -> bool:
    """Without a reader, that is, where nobody waits, the open fails at once."""
    fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return os.write(fd, b"0") == 1
    finally:
        os.close(fd)


def _read_from(fifo: str, init: Process) -> bool:
    """The writer's open succeeds once we are there to read."""
    fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        deadline = time.monotonic() + LET_GO_TIMEOUT
        while not poller.poll(_LOOK_AGAIN):
            if init.ended() or not is_held(fifo, init.pid) or time.monotonic() > deadline:
                return False
        return os.read(fd, 1) != b""
    finally:
        os.close(fd)
