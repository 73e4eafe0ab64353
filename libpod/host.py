# SPDX-License-Identifier: Apache-2.0
"""The one seam for privilege.

Whatever needs the host's powers is asked of a `Host`: starting conmon and the
OCI runtime, cgroups, the caller's limits and capabilities.  This one calls the
C core in this process, as root.  A rootless one will ask a helper inside a user
namespace, so nothing above this file may assume that it can do these things
itself.
"""

from __future__ import annotations

import logging
import os
import resource
import select
import signal
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from libpod import _spawn, _sysface
from libpod._sys import ffi, lib
from libpod.cgroup import Cgroups
from libpod.errors import (
    Closed,
    InvalidArgument,
    NotBuilt,
    OCIRuntimeTimeout,
    RuntimeDirError,
    WaitTimeout,
)

log = logging.getLogger("libpod.host")

KILL_TIMEOUT = 10.0
"""Seconds in which a process must have ended after SIGKILL."""

TOOL_OUTPUT_LIMIT = 64 * 1024
"""Bytes of each of a tool's streams that are kept; the rest is read and dropped."""


class ToolResult(NamedTuple):
    """What a program that we ran to its end left."""

    code: int
    """Its exit code, or minus the signal that ended it."""
    stdout: str
    stderr: str


class Host:
    """This process, as root, on this machine.

    Attributes:
        cgroups: the hierarchies; cgroup_facts: what they can enforce.
        capabilities: the numbers of those that the caller can give to a container.
    """

    def __init__(self) -> None:
        if os.geteuid() != 0:
            raise NotBuilt(
                "containers can be run by root only",
                fault="host",
                remedy="run this program as root; rootless containers are not built yet",
            )
        self.cgroups = Cgroups()
        self.cgroup_facts = self.cgroups.facts()
        self.capabilities = _bounding_set()

    def hard_limits(self) -> dict[str, int]:
        """The caller's hard resource limits ("RLIMIT_NOFILE" -> number), where there is
        one; a container must not be given more, since that takes CAP_SYS_RESOURCE."""
        names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
        limits = {name: resource.getrlimit(getattr(resource, name))[1] for name in names}
        return {name: hard for name, hard in limits.items() if hard != resource.RLIM_INFINITY}

    def run_tool(
        self, argv: Sequence[str], env: Mapping[str, str], *, timeout: float
    ) -> ToolResult:
        """Runs a program to its end, without a standard input.

        Raises `SpawnFailed`, or `OCIRuntimeTimeout` after `timeout` seconds, when
        it and everything in its session has been killed.
        """
        deadline = time.monotonic() + timeout
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        try:
            os.set_blocking(out_read, False)
            os.set_blocking(err_read, False)
            with _spawn.spawn(argv, env, fds={1: out_write, 2: err_write}, session=True) as process:
                try:
                    texts = _collect(process, (out_read, err_read), deadline)
                    code = process.wait(max(0.0, deadline - time.monotonic()))
                except WaitTimeout:
                    self._end_session(process)
                    raise OCIRuntimeTimeout(
                        f"{argv[0]} did not end within {timeout:g} s and was killed",
                        remedy="look at the load of the host and at what the program waits for",
                    ) from None
                except BaseException:
                    self._end_session(process)
                    raise
                return ToolResult(code, *texts)
        finally:
            for fd in (out_read, out_write, err_read, err_write):
                os.close(fd)

    def _end_session(self, process: _spawn.Process) -> None:
        """Kills a child that leads a session, all in that session, and reaps it."""
        self.kill_session(process.pid)
        process.wait()

    def start_conmon(
        self, argv: Sequence[str], env: Mapping[str, str], *, cwd: str, stderr: int, cgroup: str
    ) -> _spawn.Handshake:
        """Starts a monitor in `cgroup`, in a session of its own; see `_spawn.Handshake`."""
        handshake = _spawn.Handshake(
            argv,
            env,
            cwd=cwd,
            fds={1: stderr, 2: stderr},
            cgroups=self.cgroups.for_conmon(cgroup),
        )
        if handshake.warning is not None:
            log.warning("%s", handshake.warning)
        return handshake

    def sessions_naming(self, words: Collection[str]) -> set[int]:
        """The sessions, but ours, of the processes with all of `words` as arguments.

        conmon forks, and its first process ends: one reading of /proc may come too
        late for the one and too early for the other, so nothing is looked for twice.
        """
        wanted = {os.fsencode(word) for word in words}
        if not wanted:
            return set()
        for _ in range(2):
            found = {_session_of(pid) for pid in _all_pids() if wanted <= _arguments_of(pid)}
            if found := found - {0, os.getsid(0)}:
                break
        return found

    def kill_session(self, *sessions: int, naming: Collection[str] = ()) -> None:
        """Ends every process of these sessions with SIGKILL, and waits until they have ended.

        `naming` adds the sessions of all processes that have these words among
        their arguments.  For what is left when a monitor or a tool did not do its
        work: it reads all of /proc, again until nothing new is found, as a process
        may fork, or leave its session, between two readings.
        """
        killed: dict[int, _spawn.Process] = {}
        leaders = set(sessions)
        quiet = 0
        while quiet < 2:
            # Whoever named it may be dead by now, but not all that it had started.
            leaders |= self.sessions_naming(naming)
            found = {pid for pid in _all_pids() if _session_of(pid) in leaders} - killed.keys()
            quiet = 0 if found else quiet + 1
            killed |= {pid: process for pid in found if (process := _kill_in(leaders, pid))}
        deadline = time.monotonic() + KILL_TIMEOUT
        for process in killed.values():
            if not process.ended(max(0.0, deadline - time.monotonic())):
                log.warning("process %d did not die", process.pid)
            process.close()

    def mount_tmpfs(
        self,
        path: str,
        size_bytes: int,
        mode: int,
        *,
        label: str = "",
        uid: int = 0,
        gid: int = 0,
    ) -> None:
        """Mounts a tmpfs with nosuid, noexec and nodev on a directory of ours.

        A mount that is there already is covered: ask `is_mountpoint` first.

        Args:
            path: a directory, not a link, along a path that nobody else can steer.
            size_bytes: what it may hold; 0 is no limit.
            mode, uid, gid: of its root directory.
            label: SELinux context of all that is in it; "" for none.

        Raises:
            InvalidArgument: a number or label that cannot be.
            RuntimeDirError: somebody else could steer the path.
            SystemCallError: `errno` says why.
        """
        if not 0 <= size_bytes < 1 << 63 or not 0 <= mode <= 0o7777 or "\0" in label:
            raise InvalidArgument(
                f"cannot mount a tmpfs of {size_bytes} bytes with mode {mode:o} and label {label!r}"
            )
        text = ffi.new("char[]", os.fsencode(label))
        tmpfs = ffi.new("struct lp_mount_tmpfs *", (size_bytes, mode, uid, gid, text))
        _mount_call(lib.lp_mount_tmpfs, "mount a tmpfs on", path, tmpfs)

    def bind_private(self, path: str) -> None:
        """Makes the directory a mount point of its own, unless it is one, and private: what
        is mounted below it stays in this mount namespace.

        Raises:
            RuntimeDirError, SystemCallError: as `mount_tmpfs`.
        """
        _mount_call(lib.lp_mount_private, "make a private mount of", path)

    def unmount(self, path: str) -> bool:
        """Detaches what is mounted on top of the path; whoever still uses it keeps it.

        Returns False where nothing is mounted there; a link is not followed.

        Raises:
            RuntimeDirError, SystemCallError: as `mount_tmpfs`.
        """
        was = ffi.new("int *")
        _mount_call(lib.lp_mount_detach, "unmount", path, was)
        return bool(was[0])

    def is_mountpoint(self, path: str) -> bool:
        """Whether the path is the root of a mount; one that is missing or a link is not.

        Raises:
            RuntimeDirError, SystemCallError: as `mount_tmpfs`.
        """
        answer = ffi.new("int *")
        _mount_call(lib.lp_mount_is_point, "look at", path, answer)
        return bool(answer[0])


def _mount_call(function: Any, doing: str, path: str, *arguments: Any) -> None:
    err = ffi.new("struct lp_error *")
    code = function(_sysface.encode(path), *arguments, err)
    if code:
        raise _sysface.failure(
            code,
            err.sys_errno,
            ffi.string(err.message).decode(errors="replace"),
            f"cannot {doing} {path}",
            {lib.LP_EREFUSED: RuntimeDirError},
            "let what is above it be writable by its owner only, or name another directory",
        )


def _collect(process: _spawn.Process, pipes: tuple[int, int], deadline: float) -> tuple[str, str]:
    """Reads both pipes until the program has ended, whoever still holds their other ends."""
    kept = {fd: bytearray() for fd in pipes}
    pidfd = _pidfd_of(process)
    poller = select.poll()
    for fd in pipes if pidfd is None else (*pipes, pidfd):
        poller.register(fd, select.POLLIN)
    ended = False
    while not ended:
        left = max(0.0, deadline - time.monotonic())
        ready = poller.poll(left * 1000 if pidfd is not None else 1)
        if not ready and left == 0.0:
            raise WaitTimeout(f"process {process.pid} did not end in time")
        for fd, _ in ready:
            if fd == pidfd:
                ended = True
            elif not _drain(fd, kept[fd]):
                poller.unregister(fd)
        if pidfd is None:
            ended = _has_ended(process)
    for fd in pipes:
        _drain(fd, kept[fd])
    out, err = (bytes(kept[fd]).decode("utf-8", "replace") for fd in pipes)
    return out, err


def _pidfd_of(process: _spawn.Process) -> int | None:
    """None on kernels before 5.3, which must be asked again and again."""
    try:
        return process.fileno()
    except Closed:
        return None


def _has_ended(child: _spawn.Process) -> bool:
    try:
        child.wait(0)
    except WaitTimeout:
        return False
    return True


def _drain(fd: int, kept: bytearray) -> bool:
    """Reads what is there; False at the end of file."""
    try:
        data = os.read(fd, TOOL_OUTPUT_LIMIT)
    except BlockingIOError:
        return True
    kept += data[: TOOL_OUTPUT_LIMIT - len(kept)]
    return bool(data)


def _bounding_set() -> frozenset[int]:
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("CapBnd:"):
                bits = int(line.split()[1], 16)
                return frozenset(number for number in range(64) if bits >> number & 1)
    return frozenset()


def _kill_in(sessions: Collection[int], pid: int) -> _spawn.Process | None:
    """Kills a process that is in one of the sessions: what there is to wait for.  One that
    has left them meanwhile goes on, as one that had left them before."""
    try:
        process = _spawn.open_process(pid)
    except ProcessLookupError:
        return None
    # The number is looked at while the process is held: before, it may be another's.
    if _session_of(pid) in sessions:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        return process
    process.close()
    return None


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _arguments_of(pid: int) -> set[bytes]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return set(file.read().split(b"\0"))
    except OSError:
        return set()


def _session_of(pid: int) -> int:
    """The session of a process that has not ended, or 0."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[3])
