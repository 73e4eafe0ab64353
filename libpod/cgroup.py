# SPDX-License-Identifier: Apache-2.0
"""The cgroup hierarchies of this host: where they are, what they counted, who is in them.

Cgroup paths are absolute inside the hierarchies ("/libpod_parent/libpod-ID");
a path is one directory in each version 1 hierarchy, or one in the version 2
tree.  Nothing here makes the container's own cgroup: the OCI runtime does.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from typing import NamedTuple

from libpod import _spawn
from libpod.spec import CgroupFacts

log = logging.getLogger("libpod.cgroup")

# On version 1 conmon stays in the caller's cpuset: a new cpuset is empty and
# takes no process until somebody chooses its processors and memory nodes.
_NOT_FOR_CONMON = "cpuset"

# The version 1 controllers that list every process of a container, in the
# order in which we would ask them.
_V1_CENSUS = ("pids", "freezer", "memory", "cpuacct", "name=systemd")


class Usage(NamedTuple):
    """What a container consumed; None where this kernel does not count it.

    Read from the cgroup when the container has ended and its cgroup has not
    gone yet.
    """

    cpu_seconds: float | None = None
    memory_peak: int | None = None
    """Bytes."""
    oom_kills: int | None = None
    pids_peak: int | None = None
    block_read: int | None = None
    """Bytes read from block devices."""
    block_written: int | None = None
    """Bytes written to block devices."""


class Cgroups:
    """The mounted hierarchies.

    Attributes:
        mode: "v1", "hybrid" (version 1 with the version 2 tree beside it) or "v2".
        mounts: version 1 controller (or "name=systemd") -> mount point.
        unified: mount point of the version 2 tree, or None.
    """

    def __init__(self, mountinfo: str = "/proc/self/mountinfo") -> None:
        self.mounts: dict[str, str] = {}
        self.unified: str | None = None
        with open(mountinfo, encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                self._add_mount(line)
        if self.mounts:
            self.mode = "hybrid" if self.unified else "v1"
        else:
            self.mode = "v2"

    def _add_mount(self, line: str) -> None:
        fields, _, tail = line.partition(" - ")
        mount_point = fields.split(" ")[4].encode().decode("unicode_escape")
        kind, _, options = tail.strip().split(" ", 2)
        if kind == "cgroup2" and self.unified is None:
            self.unified = mount_point
        elif kind == "cgroup":
            for option in options.split(","):
                if option in _V1_CONTROLLERS or option.startswith("name="):
                    self.mounts.setdefault(option, mount_point)

    def facts(self) -> CgroupFacts:
        """What limits can be enforced."""
        if self.mode == "v2":
            controllers = _words(f"{self.unified}/cgroup.controllers")
            # Only a cgroup below the root has the file.
            swap_limit = "memory" in controllers
        else:
            controllers = frozenset(self.mounts)
            memory = self.mounts.get("memory", "")
            swap_limit = os.path.exists(f"{memory}/memory.memsw.limit_in_bytes")
        return CgroupFacts(
            version=2 if self.mode == "v2" else 1,
            controllers=controllers,
            swap_limit=swap_limit,
            host_swap=_host_has_swap(),
        )

    def directories(self, path: str) -> list[str]:
        """Every directory that `path` is, whether it exists or not."""
        points = dict.fromkeys(self.mounts.values())
        if self.unified is not None:
            points[self.unified] = None
        return [point + path for point in points]

    def for_conmon(self, path: str) -> list[str]:
        """The directories of `path` that a monitor can be moved into."""
        skipped = self.mounts.get(_NOT_FOR_CONMON)
        return [name for name in self.directories(path) if name != f"{skipped}{path}"]

    def usage(self, path: str) -> Usage:
        """The counters of `path` as they stand."""
        return self._usage_v2(path) if self.mode == "v2" else self._usage_v1(path)

    def _usage_v1(self, path: str) -> Usage:
        cpuacct = self.mounts.get("cpuacct", "") + path
        memory = self.mounts.get("memory", "") + path
        cpu = _number(f"{cpuacct}/cpuacct.usage")
        read, written = _v1_block_bytes(self.mounts.get("blkio", "") + path)
        return Usage(
            cpu_seconds=None if cpu is None else cpu / 1e9,
            memory_peak=_number(f"{memory}/memory.max_usage_in_bytes"),
            oom_kills=_pairs(f"{memory}/memory.oom_control").get("oom_kill"),
            pids_peak=_number(f"{self.mounts.get('pids', '')}{path}/pids.peak"),
            block_read=read,
            block_written=written,
        )

    def _usage_v2(self, path: str) -> Usage:
        base = f"{self.unified}{path}"
        cpu = _pairs(f"{base}/cpu.stat").get("usage_usec")
        read, written = _v2_block_bytes(base)
        return Usage(
            cpu_seconds=None if cpu is None else cpu / 1e6,
            memory_peak=_number(f"{base}/memory.peak"),
            oom_kills=_pairs(f"{base}/memory.events").get("oom_kill"),
            pids_peak=_number(f"{base}/pids.peak"),
            block_read=read,
            block_written=written,
        )

    def processes(self, path: str) -> list[int]:
        """The pids in `path` and below it."""
        return [pid for name in _tree(self._census(path)) for pid in _pids(name)]

    def _census(self, path: str) -> str:
        if self.mode == "v2":
            return f"{self.unified}{path}"
        for controller in _V1_CENSUS:
            if controller in self.mounts:
                return self.mounts[controller] + path
        return next(iter(self.mounts.values())) + path

    def frozen(self, path: str) -> bool | None:
        """Whether the processes in `path` are frozen; None where that cannot be told."""
        if self.mode == "v2":
            for line in _read(f"{self.unified}{path}/cgroup.events").splitlines():
                if line.startswith("frozen "):
                    return line == "frozen 1"
            return None
        if "freezer" not in self.mounts:
            return None
        state = _read(f"{self.mounts['freezer']}{path}/freezer.state").strip()
        return state != "THAWED" if state else None

    def kill(self, path: str, timeout: float = 10.0) -> bool:
        """Ends every process in `path` with SIGKILL; whether none is left in time.

        Version 2 does it in one step (Linux 5.14).  Elsewhere the list is read
        again until it is empty, since a process may fork between two readings.
        """
        deadline = time.monotonic() + timeout
        if self.mode == "v2":
            _write(f"{self._census(path)}/cgroup.kill", "1")
        elif "freezer" in self.mounts:  # version 1 kills nothing that is frozen
            _write(f"{self.mounts['freezer']}{path}/freezer.state", "THAWED")
        while True:
            members = [opened for pid in self.processes(path) if (opened := self._open(pid, path))]
            if not members:
                return True
            for process in members:
                _kill(process)
            if not _await_all(members, deadline):
                log.warning("processes %s of cgroup %s did not die", members, path)
                return False

    def _open(self, pid: int, path: str) -> _spawn.Process | None:
        """Opens first and looks then, so that a recycled pid is never hit."""
        try:
            process = _spawn.open_process(pid)
        except ProcessLookupError:
            return None
        alive = path in _read(f"/proc/{pid}/cgroup") and not process.ended()
        if not alive:
            process.close()
        return process if alive else None

    def remove(self, path: str) -> None:
        """Removes the directories of `path` and below; what is busy is logged."""
        for top in self.directories(path):
            try:
                os.rmdir(top)
            except FileNotFoundError:
                continue
            except OSError:  # there are some below, or it is busy
                for directory in reversed(list(_tree(top))):
                    _rmdir(directory)


def _kill(process: _spawn.Process) -> None:
    try:
        process.send_signal(signal.SIGKILL)
    except ProcessLookupError:
        return


def _await_all(processes: list[_spawn.Process], deadline: float) -> bool:
    """Waits for the ends of processes that are not our children, and closes them."""
    ended = True
    for process in processes:
        ended = process.ended(max(0.0, deadline - time.monotonic())) and ended
        process.close()
    return ended


_V1_CONTROLLERS = frozenset(
    "cpu cpuacct cpuset memory devices freezer blkio pids net_cls net_prio perf_event hugetlb "
    "rdma misc".split()
)


def _read(path: str) -> str:
    """A kernel file's text, or "" where it is not there; without Python's file object,
    which makes four more system calls: a dozen files are read for each container."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    parts = []
    try:
        while part := os.read(fd, 65536):
            parts.append(part)
    except OSError:
        return ""
    finally:
        os.close(fd)
    return b"".join(parts).decode("ascii", "replace")


def _write(path: str, text: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        log.debug("cannot write %r to %s: %s", text, path, error)


def _words(path: str) -> frozenset[str]:
    return frozenset(_read(path).split())


def _number(path: str) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() else None


def _pairs(path: str) -> dict[str, int]:
    """The "name number" lines of a file."""
    found = {}
    for line in _read(path).splitlines():
        name, _, value = line.partition(" ")
        if value.isdigit():
            found[name] = int(value)
    return found


def _pids(directory: str) -> list[int]:
    return [int(word) for word in _read(f"{directory}/cgroup.procs").split() if word.isdigit()]


def _tree(directory: str) -> Iterator[str]:
    """The directory and all below it, parents first; nothing where it is not there."""
    try:
        with os.scandir(directory) as entries:
            below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    yield directory
    for name in below:
        yield from _tree(name)


def _rmdir(directory: str, attempts: int = 50) -> None:
    """A cgroup is busy for a moment after its last process has died."""
    for attempt in range(attempts):
        try:
            os.rmdir(directory)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if attempt == attempts - 1:
                log.warning("cannot remove the cgroup %s: %s", directory, error)
            else:
                time.sleep(0.002)


def _v1_block_bytes(directory: str) -> tuple[int | None, int | None]:
    text = _read(f"{directory}/blkio.throttle.io_service_bytes_recursive") or _read(
        f"{directory}/blkio.throttle.io_service_bytes"
    )
    if not text:
        return None, None
    sums = {"Read": 0, "Write": 0}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[1] in sums:
            sums[words[1]] += int(words[2])
    return sums["Read"], sums["Write"]


def _v2_block_bytes(directory: str) -> tuple[int | None, int | None]:
    if not os.path.exists(f"{directory}/io.stat"):
        return None, None
    read = written = 0
    for line in _read(f"{directory}/io.stat").splitlines():
        for word in line.split()[1:]:
            name, _, value = word.partition("=")
            if name == "rbytes":
                read += int(value)
            elif name == "wbytes":
                written += int(value)
    return read, written


def _host_has_swap() -> bool:
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("SwapTotal:"):
            return line.split()[1] != "0"
    return False
