# SPDX-License-Identifier: Apache-2.0
"""What a test must not leave behind: everything of ours on this host, counted.

A `Census` is taken before a test and compared with what is there after it.
Other programs may run containers on the same host meanwhile: what a living
conmon with other directories than the test's owns is theirs.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

SETTLE = 2.0
"""Seconds for what ends asynchronously: a zombie of init's, the kernel's own removals."""

CGROUP_PARENT = "/libpod-core"

_CONTAINER = re.compile(r"libpod-([0-9a-f]{64})")

SKELETON = frozenset(
    (
        "static",
        "static/containers",
        "tmp",
        "tmp/alive",
        "tmp/alive.lck",
        "tmp/containers",
        "tmp/crun",
        "tmp/exits",
        "tmp/lock",
        "tmp/runc",
        "tmp/socket",
    )
)
"""What a runtime keeps in its directories when it has no container."""


class Process(NamedTuple):
    pid: int
    parent: int
    state: str
    argv: tuple[str, ...]
    cgroups: str

    def __str__(self) -> str:
        return f"process {self.pid} ({self.state}) {' '.join(self.argv) or '(no command line)'}"


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _process(pid: int) -> Process | None:
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if not fields:
        return None
    return Process(
        pid,
        int(fields[1]),
        fields[0],
        tuple(filter(None, _read(f"/proc/{pid}/cmdline").split("\0"))),
        _read(f"/proc/{pid}/cgroup"),
    )


def processes() -> dict[int, Process]:
    """All processes of the host."""
    found = (_process(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {process.pid: process for process in found if process is not None}


def descriptors() -> set[str]:
    """Open descriptors of this process, each with what it is."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add(f"descriptor {fd} -> {os.readlink(f'/proc/self/fd/{fd}')}")
        except FileNotFoundError:  # that of the listing itself
            continue
    return found


def threads() -> set[str]:
    return {f"thread {thread.name}" for thread in threading.enumerate()} | {
        f"task {task}" for task in os.listdir("/proc/self/task")
    }


def children() -> set[str]:
    """Our children, zombies too."""
    pids = [
        int(word)
        for task in os.listdir("/proc/self/task")
        for word in _read(f"/proc/self/task/{task}/children").split()
    ]
    return {f"child: {_process(pid) or pid}" for pid in pids}


def own() -> set[str]:
    """What belongs to this process."""
    return descriptors() | threads() | children()


def changes(before: set[str], now: set[str]) -> list[str]:
    return sorted(
        {f"new: {thing}" for thing in now - before} | {f"gone: {thing}" for thing in before - now}
    )


def settled(look: Callable[[], list[str]]) -> list[str]:
    """What `look` still finds when all that ends by itself has had time to."""
    deadline = time.monotonic() + SETTLE
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def mounts() -> set[str]:
    return {f"mount {line}" for line in _read("/proc/self/mountinfo").splitlines()}


def cgroup_mounts() -> list[str]:
    """Every mounted cgroup hierarchy."""
    found = []
    for line in _read("/proc/self/mountinfo").splitlines():
        fields, _, kind = line.partition(" - ")
        if kind.startswith(("cgroup ", "cgroup2 ")):
            found.append(fields.split()[4])
    return found


def cgroups(parent: str = CGROUP_PARENT) -> set[str]:
    """Directories of containers below `parent` in every hierarchy."""
    return {
        os.path.join(directory, name)
        for mount in cgroup_mounts()
        for directory, names, _ in os.walk(mount + parent)
        for name in names
        if directory != mount + parent or name != "conmon"
    }


class Census:
    """What is there now.

    Args:
        base: the directory of the test, with "static" and "tmp" in it.
    """

    def __init__(self, base: str) -> None:
        self._base = base
        self._kept = own() | mounts()
        self._cgroups = cgroups()
        self._processes = set(processes())

    def differences(self) -> list[str]:
        """What has come or gone since; settles first, so it may take `SETTLE` seconds."""
        return settled(self._look)

    def left_outside(self) -> list[str]:
        """The same of what would outlive this process."""
        return settled(self._look_outside)

    def _look(self) -> list[str]:
        return changes(self._kept, own() | mounts()) + self._look_outside()

    def _look_outside(self) -> list[str]:
        found = [f"new: {process}" for process in self._left_processes()]
        found += [f"new: cgroup {path}" for path in self.left_cgroups()]
        found += [f"new: file {path}" for path in self._left_files()]
        return sorted(found)

    def clear(self) -> None:
        """Ends and removes what a failed test left, so that the next one starts clean."""
        for process in self._left_processes():
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + SETTLE
        while self._left_processes() and time.monotonic() < deadline:
            time.sleep(0.02)
        for path in sorted(self.left_cgroups(), reverse=True):
            try:
                os.rmdir(path)
            except OSError:
                continue
        for name in os.listdir(self._base):
            shutil.rmtree(os.path.join(self._base, name), ignore_errors=True)

    def _left_processes(self) -> list[Process]:
        """Those that have our directories on their command line, or are in a container's
        cgroup that is not somebody else's."""
        everything = processes()
        strange = self._strange(everything)
        left = []
        for process in everything.values():
            if process.pid in self._processes or process.pid == os.getpid():
                continue
            ids = set(_CONTAINER.findall(process.cgroups))
            if self._mentions_us(process) or (ids and not ids <= strange):
                left.append(process)
        return left

    def _mentions_us(self, process: Process) -> bool:
        return any(self._base in word for word in process.argv)

    def _strange(self, everything: dict[int, Process]) -> set[str]:
        """IDs of containers whose living monitor has other directories."""
        return {
            word
            for process in everything.values()
            if process.argv and os.path.basename(process.argv[0]) == "conmon"
            if not self._mentions_us(process)
            for word in process.argv
            if len(word) == 64
        }

    def left_cgroups(self) -> set[str]:
        new = cgroups() - self._cgroups
        if not new:
            return new
        strange = self._strange(processes())
        return {path for path in new if not set(_CONTAINER.findall(path)) & strange}

    def _left_files(self) -> Iterator[str]:
        for directory, names, files in os.walk(self._base):
            for name in names + files:
                path = os.path.relpath(os.path.join(directory, name), self._base)
                if path not in SKELETON and not path.startswith("work"):
                    yield path
