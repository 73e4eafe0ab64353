# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterable, Mapping, Sequence
from typing import final

from typing_extensions import Self

@final
class Process:
    """A process, known by its pidfd; a child of ours if it came from `spawn`."""

    start_time: int
    """Clock ticks since boot; 0 for our own children, which need no such proof."""
    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None:
        """What `wait` returned, or None before."""

    def fileno(self) -> int:
        """The pidfd, readable once the process has ended."""

    def wait(self, timeout: float | None = None) -> int:
        """Waits for a child, at most `timeout` seconds, and reaps it.

        Returns its exit code, or minus the signal that ended it.  Raises
        `WaitTimeout`, and `SystemCallError` where somebody else in this process
        reaped it (a `waitpid(-1)`).
        """

    def ended(self, timeout: float | None = 0.0) -> bool:
        """Whether the process, ours or not, has ended, waiting at most `timeout` seconds
        for it (None: for ever).  Reaps nothing."""

    def send_signal(self, number: int) -> None:
        """Sends a signal.  Raises `ProcessLookupError` where the process is gone."""

    def close(self) -> None:
        """Closes the pidfd; the process goes on."""

    def __enter__(self) -> Process: ...
    def __exit__(self, *exc: object) -> None: ...

def spawn(
    argv: Sequence[str | bytes],
    env: Mapping[str, str],
    *,
    executable: str | bytes | None = None,
    cwd: str | None = None,
    fds: Mapping[int, int] | None = None,
    session: bool = False,
    group: bool = False,
) -> Process:
    """Starts a program.

    `env` is the whole environment.  `fds` maps the child's descriptors to ours;
    0, 1 and 2 are /dev/null unless mapped, and nothing else is passed on.
    `executable` (default `argv[0]`) is not searched for in PATH.  Signal
    handlers and mask are reset.

    Raises `SpawnFailed` with the errno of the exec; then no process is left.
    """

def open_process(pid: int) -> Process:
    """Opens a running process.  Raises `ProcessLookupError`."""

@final
class Handshake:
    """One conmon between its start and its answer; `process` is what was spawned."""

    process: Process
    def __new__(
        cls,
        argv: Sequence[str | bytes],
        env: Mapping[str, str],
        *,
        executable: str | bytes | None = None,
        cwd: str | None = None,
        fds: Mapping[int, int] | None = None,
        cgroups: Iterable[str] = (),
    ) -> Self:
        """Spawns conmon in a session of its own, and moves it into `cgroups` (directories,
        made where they are missing).  It loads, and waits for `go`; whoever does not let
        it go kills it.  Raises as `spawn`."""

    @property
    def warning(self) -> str | None:
        """Why a cgroup could not be entered, or None."""

    @property
    def started(self) -> int:
        """When it was spawned, in ns of CLOCK_BOOTTIME."""

    def go(self) -> None:
        """Lets conmon go on: what it and the OCI runtime read must be there; once."""

    def fileno(self) -> int:
        """The sync pipe, readable when the answer comes."""

    def answer(self, timeout: float | None = None) -> bytes:
        """Waits for conmon's line.

        Raises `WaitTimeout` (call again to wait on), or `ConmonFailed` where
        conmon ended without an answer.
        """

    def monitor(self, pid_file: str, container_id: str) -> Process:
        """`open_monitor` for a monitor that cannot be older than this handshake."""

    def close(self) -> None: ...

def open_monitor(pid_file: str, container_id: str, not_before: int = 0) -> Process:
    """Opens the monitor of a container by the pid file that it wrote.

    It must have the container's ID on its command line and must not be older
    than `not_before` (ns of CLOCK_BOOTTIME).  Raises `ProcessLookupError` where
    there is no such process.
    """

@final
class ExitDirectory:
    """The exit files of one directory, and the monitors that write them."""

    def __new__(cls, path: str) -> Self: ...
    def fileno(self) -> int:
        """Readable when there is something to wait for."""

    def watch(self, monitor: Process, token: int) -> None:
        """Tells `token` once when the monitor ends; forget it before you close it."""

    def forget(self, monitor: Process) -> None: ...
    def wake(self) -> None:
        """Makes a `wait` in another thread return."""

    def wait(self, timeout: float | None = None) -> tuple[list[str], list[int], bool]:
        """Names of new exit files, tokens of ended monitors, and whether events were
        lost, so that every container must be looked at; all empty at a time-out."""

    def read(self, container_id: str) -> tuple[int, int] | None:
        """Exit code and finish time in ns since the epoch; None without an exit file.
        Raises `InternalError` where the file holds anything else."""

    def remove(self, container_id: str) -> None:
        """Removes an exit file; it need not exist."""

    def close(self) -> None: ...
