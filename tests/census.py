# SPDX-License-Identifier: Apache-2.0
"""What a test must not leave behind: everything of ours on this host, counted.

A `Census` is taken before a test and compared with what is there after it.
Other programs may run containers on the same host meanwhile: ours are those
whose ID this process has drawn, or whose monitor mentions the test's directory; what
a living conmon with other directories owns is theirs.
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

from libpod import names

SETTLE = 30.0
"""Seconds for what ends asynchronously: a zombie of init's, the kernel's own removals.
Only what is left for good takes them all."""

PATIENCE = 30.0
"""Seconds in which whoever it belongs to must have cleared what seems to be nobody's."""

CGROUP_PARENT = "/libpod-core"

_CONTAINER = re.compile(r"libpod-([0-9a-f]{64})")

SKELETON = frozenset(
    """
    static static/bolt_state.db static/storage static/storage/defaultNetworkBackend
    static/storage/overlay static/storage/overlay/l static/storage/storage.lock
    static/storage/overlay-containers static/storage/overlay-containers/containers.json
    static/storage/overlay-containers/.libpod-containers.json
    static/storage/overlay-containers/containers.lock
    static/storage/overlay-images static/storage/overlay-images/images.lock
    static/storage/overlay-layers static/storage/overlay-layers/layers.json
    static/storage/overlay-layers/.libpod-layers.json
    static/storage/overlay-layers/layers.lock
    tmp tmp/alive tmp/alive.lck tmp/crun tmp/exits tmp/lock tmp/lock_type tmp/locks tmp/owners
    tmp/runc
    tmp/socket tmp/storage tmp/storage/overlay-containers tmp/storage/overlay-layers
    tmp/storage/overlay-layers/mountpoints.json tmp/storage/overlay-layers/mountpoints.lock
    tmp/storage/overlay-containers/volatile-containers.json
    tmp/storage/overlay-containers/.libpod-volatile-containers.json
    tmp/storage/overlay-layers/.libpod-mountpoints.json
    """.split()
)
"""What a runtime keeps in its directories when it has no container."""


_drawn: set[str] = set()


def record_ids() -> None:
    """From now on, what this process draws as ID of a container is known as ours."""
    draw = names.new_id

    def new_id() -> str:
        drawn = draw()
        _drawn.add(drawn)
        return drawn

    names.new_id = new_id


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


def settled(look: Callable[[], list[str]], seconds: float = SETTLE) -> list[str]:
    """What `look` still finds when all that ends by itself has had time to."""
    deadline = time.monotonic() + seconds
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def mounts() -> dict[str, str]:
    """Each mount's number, and what it is: where it is changes when others rename what is
    above it."""
    lines = _read("/proc/self/mountinfo").splitlines()
    return {line.split()[0]: f"mount {line}" for line in lines}


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
        self._kept = own()
        self._mounts = mounts()
        self._cgroups = cgroups()
        self._processes = set(processes())

    def differences(self) -> list[str]:
        """What has come or gone since; settles first, so it may take a while."""
        return settled(self._look) or self._nobodys()

    def left_outside(self) -> list[str]:
        """The same of what would outlive this process."""
        return settled(self._outside) or self._nobodys()

    def left_cgroups(self) -> set[str]:
        """The cgroups of our containers that were not there."""
        return {path for path in cgroups() - self._cgroups if _ids(path) & self._ours()}

    def clear(self) -> None:
        """Ends and removes what a failed test left, so that the next one starts clean."""
        for path in self.left_cgroups():
            _thaw(path)
        for process in self._left_processes():
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        settled(lambda: [str(process) for process in self._left_processes()])
        for path in sorted(self.left_cgroups(), reverse=True):
            try:
                os.rmdir(path)
            except OSError:
                continue
        for name in os.listdir(self._base):
            shutil.rmtree(os.path.join(self._base, name), ignore_errors=True)

    def _look(self) -> list[str]:
        new_mounts = [f"new: {it}" for number, it in mounts().items() if number not in self._mounts]
        return changes(self._kept, own()) + sorted(new_mounts) + self._outside()

    def _outside(self) -> list[str]:
        found = [f"new: {process}" for process in self._left_processes()]
        found += [f"new: cgroup {path}" for path in self.left_cgroups()]
        found += [f"new: file {path}" for path in self._left_files()]
        return sorted(found)

    def _nobodys(self) -> list[str]:
        """Cgroups that came, have no living monitor and stay: of a process that a test
        started.  Others on this host make and clear up theirs meanwhile."""
        stayed = self._without_monitor()

        def look() -> list[str]:
            stayed.intersection_update(self._without_monitor())
            return sorted(f"nobody's: cgroup {path}" for path in stayed)

        return settled(look, PATIENCE)

    def _without_monitor(self) -> set[str]:
        new = cgroups() - self._cgroups
        owned = {word for process in _monitors() for word in process.argv} if new else set()
        return {path for path in new if not _ids(path) & owned}

    def _ours(self) -> set[str]:
        """IDs of our containers."""
        ours = (process for process in _monitors() if self._mentions_us(process))
        return _drawn | {word for process in ours for word in process.argv}

    def _left_processes(self) -> list[Process]:
        """Those that mention our directory, or are in the cgroup of a container of ours.
        A zombie that is not our child is for init to reap."""
        ours = self._ours()
        return [
            process
            for process in processes().values()
            if process.pid not in self._processes
            and process.pid != os.getpid()
            and process.state not in "ZX"
            and (_ids(process.cgroups) & ours or self._mentions_us(process))
        ]

    def _mentions_us(self, process: Process) -> bool:
        """On its command line, in its environment or as its working directory."""
        try:
            where = os.readlink(f"/proc/{process.pid}/cwd")
        except OSError:
            where = ""
        words = (*process.argv, where, _read(f"/proc/{process.pid}/environ"))
        return any(self._base in word for word in words)

    def _left_files(self) -> Iterator[str]:
        for directory, below, files in os.walk(self._base):
            for name in below + files:
                path = os.path.relpath(os.path.join(directory, name), self._base)
                if path not in SKELETON and not path.startswith("work"):
                    yield path


def _thaw(path: str) -> None:
    """What is frozen under version 1 does not even die."""
    try:
        with open(f"{path}/freezer.state", "w", encoding="ascii") as file:
            file.write("THAWED")
    except OSError:
        return


def _ids(text: str) -> set[str]:
    return set(_CONTAINER.findall(text))


def _monitors() -> Iterator[Process]:
    for process in processes().values():
        if process.argv and os.path.basename(process.argv[0]) == "conmon":
            yield process
