# SPDX-License-Identifier: Apache-2.0
"""What conmon, crun and runc are asked to do, and how they answer."""

from __future__ import annotations

import copy
import json
import logging
import os
import re
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal, NamedTuple

from libpod import execfifo
from libpod.cgroup import Cgroups
from libpod.errors import (
    CommandNotExecutable,
    CommandNotFound,
    CreateFailed,
    InternalError,
    InvalidArgument,
    LibpodError,
    OCIRuntimeFailed,
    Unsupported,
)
from libpod.host import Host, ToolResult

log = logging.getLogger("libpod.oci")

TOOL_TIMEOUT = 60.0
"""Seconds that any other command of the OCI runtime may take."""

ABANDON_TIMEOUT = 10.0
"""Seconds for each step of clearing up after a creation that failed."""


class Bundle(NamedTuple):
    """One container as conmon and the OCI runtime see it.

    `directory` holds config.json, the log and conmon's attach socket; `run_dir` the
    files that are mounted into it.
    """

    container_id: str
    name: str
    directory: str
    run_dir: str
    cgroup: str
    conmon_cgroup: str
    log_path: str
    log_size_max: int
    """Bytes; negative: no limit."""
    terminal: bool
    stdin: bool
    pid_file: str
    conmon_pid_file: str
    exit_command: tuple[str, ...] = ()
    """What conmon runs when the container has ended."""
    sync_log: bool = True
    """Whether the log is durable when the container has ended."""

    @property
    def marks(self) -> tuple[str, str]:
        """Arguments by which this container's monitor is known among all processes."""
        return self.container_id, self.directory


def find_binary(what: str, paths: Sequence[str]) -> str:
    """The first of `paths` that is an executable file.

    The original takes the first that exists and is no directory; one that
    cannot be executed would fail later with less to go by.
    """
    unusable = []
    for path in paths:
        if os.path.isfile(path):
            if os.access(path, os.X_OK):
                return path
            unusable.append(f"{path} is not executable")
        elif os.path.isdir(path):
            unusable.append(f"{path} is a directory")
    reason = f" ({'; '.join(unusable)})" if unusable else ""
    raise InvalidArgument(
        f"could not find a working {what} binary (configured options: {list(paths)}){reason}",
        fault="host",
        remedy=f"install {what}, or configure the path of one",
    )


def find_runtime(cgroups: Cgroups, paths: Sequence[str]) -> str:
    """The first OCI runtime of `paths` that can work on this host.

    One that is there but cannot work is passed over with a logged reason; where
    no other is left, that reason is the error.
    """
    refusals: list[Unsupported] = []
    candidates = list(paths)
    while True:
        try:
            path = find_binary("OCI runtime", candidates)
        except InvalidArgument:
            if refusals:
                raise refusals[0] from None
            raise
        refusal = _refusal(cgroups, path)
        if refusal is None:
            for passed in refusals:
                log.info("%s; using %s", passed.message, path)
            return path
        refusals.append(refusal)
        candidates = candidates[candidates.index(path) + 1 :]


def _refusal(cgroups: Cgroups, path: str) -> Unsupported | None:
    if os.path.basename(path) == "crun" and cgroups.mode == "hybrid":
        return Unsupported(
            f"{path} cannot work on this host: crun refuses hybrid cgroups",
            remedy="use runc, boot with cgroup version 2, or work in a mount namespace "
            f"without {cgroups.unified}",
        )
    return None


class OCIRuntime:
    """An OCI runtime under conmon.

    Attributes:
        path, name: the runtime's binary.
        root: where it keeps its containers' state.
        is_plain: whether it is crun or runc itself, whose start is understood.
        conmon_path, conmon_env: the monitor's binary and its whole environment.
        exit_dir, socket_dir, no_pivot_root: what the monitor is told.
    """

    def __init__(
        self,
        host: Host,
        *,
        path: str,
        conmon_path: str,
        conmon_env: Sequence[str],
        tmp_dir: str,
        no_pivot_root: bool,
        roots: str | None = None,
    ) -> None:
        """`roots` has a directory of its own for each OCI runtime; `tmp_dir` where None."""
        self.host = host
        self.path = path
        self.name = os.path.basename(path)
        self.is_plain = execfifo.is_understood(path)
        self.conmon_path = conmon_path
        self.exit_dir = f"{tmp_dir}/exits"
        self.socket_dir = f"{tmp_dir}/socket"
        self._roots = roots or tmp_dir
        self.root = f"{self._roots}/{self.name}"
        self.no_pivot_root = no_pivot_root
        self._env = {"XDG_RUNTIME_DIR": tmp_dir, "PATH": os.defpath}
        self.conmon_env = dict(entry.split("=", 1) for entry in conmon_env)
        self.conmon_env |= {
            "_OCI_SYNCPIPE": "3",
            "_OCI_STARTPIPE": "4",
            "XDG_RUNTIME_DIR": tmp_dir,
        }

    def another(self, path: str) -> OCIRuntime:
        """The same, but with another runtime's binary."""
        other = copy.copy(self)
        other.path = path
        other.name = os.path.basename(path)
        other.is_plain = execfifo.is_understood(path)
        other.root = f"{self._roots}/{other.name}"
        return other

    def state_dirs(self) -> list[str]:
        """Those of all containers, of whichever runtime, in the places that this one shares
        with its like."""
        places = (f"{self._roots}/{name}" for name in ("crun", "runc"))
        return [entry for place in places for entry in _entries(place)]

    def state_dir(self, container_id: str) -> str:
        """Where crun and runc keep what they know of a container."""
        return f"{self.root}/{container_id}"

    def fifo(self, container_id: str) -> str:
        """What holds a created container's first process back (see `libpod.execfifo`)."""
        return f"{self.state_dir(container_id)}/exec.fifo"

    def was_started(self, container_id: str) -> bool:
        """Whether a created container's command was started: the fifo goes with the start;
        the runtime itself is asked only where that is not there."""
        if os.path.exists(self.fifo(container_id)):
            return False
        return self.status(container_id) in ("running", "paused")

    def status(self, container_id: str) -> str:
        """The runtime's word for how a container stands; "" where it does not know it."""
        result = self._run("state", container_id)
        try:
            return str(json.loads(result.stdout)["status"]) if result.code == 0 else ""
        except (ValueError, TypeError, KeyError) as error:
            raise OCIRuntimeFailed(
                f"{self.path} state {container_id} answered with something else",
                container_id=container_id,
                detail=result.stdout,
            ) from error

    def abandon(self, bundle: Bundle, *spawned: int) -> None:
        """Ends all that a creation which did not succeed may have left.

        conmon leaves the process that we spawned, at this very moment perhaps, so it
        is known by its arguments; it and the runtime are in sessions of their own,
        and what the runtime made is in the container's cgroup.
        """
        self.host.kill_session(*spawned, naming=bundle.marks)
        try:
            self._run("delete", "--force", bundle.container_id, timeout=ABANDON_TIMEOUT)
        except LibpodError as error:
            log.debug("container %s: %s", bundle.container_id, error)
        self.host.cgroups.kill(bundle.cgroup, ABANDON_TIMEOUT)
        self.host.cgroups.remove(bundle.cgroup)
        with suppress(FileNotFoundError):
            os.unlink(bundle.conmon_pid_file)

    # --- the container's life ----------------------------------------------------

    def start(self, container_id: str) -> None:
        self._ask("start", container_id)

    def kill(self, container_id: str, signal_number: int) -> None:
        self._ask("kill", container_id, str(int(signal_number)))

    def pause(self, container_id: str) -> None:
        self._ask("pause", container_id)

    def resume(self, container_id: str) -> None:
        self._ask("resume", container_id)

    def delete(self, container_id: str) -> None:
        """Removes what the runtime keeps of a container, which it ends if need be.
        One that it does not know is no error."""
        self._ask("delete", "--force", container_id)

    def version(self) -> str:
        """The runtime's `--version` text without its last newline."""
        return self._version(self.path)

    def conmon_version(self) -> str:
        """conmon's `--version` text on one line, as the original shows it."""
        return self._version(self.conmon_path).replace("\n", ", ", 1)

    def _version(self, path: str) -> str:
        result = self.host.run_tool([path, "--version"], self._env, timeout=10.0)
        if result.code != 0:
            raise OCIRuntimeFailed(f"{path} --version failed", detail=result.stderr)
        return result.stdout.rstrip("\n")

    def _run(self, verb: str, *arguments: str, timeout: float = TOOL_TIMEOUT) -> ToolResult:
        argv = [self.path, "--root", self.root, verb, *arguments]
        return self.host.run_tool(argv, self._env, timeout=timeout)

    def _ask(self, verb: Literal["start", "kill", "pause", "resume", "delete"], *args: str) -> None:
        result = self._run(verb, *args)
        if result.code == 0:
            return
        text = result.stderr or result.stdout
        if result.code < 0:
            said = f"was killed by {_signal_name(-result.code)}"
        else:
            said = clean_message(text) or f"exit code {result.code}"
        container_id = next(word for word in args if not word.startswith("-"))
        message = f"{self.path} could not {verb} container {container_id}: {said}"
        error = command_error(text) if verb == "start" else None
        raise (error or OCIRuntimeFailed)(
            message,
            phase="start" if verb == "start" else None,
            container_id=container_id,
            detail=text or None,
            remedy=REMEDY[error or OCIRuntimeFailed],
        )


def _entries(directory: str) -> list[str]:
    try:
        return [f"{directory}/{name}" for name in os.listdir(directory)]
    except FileNotFoundError:
        return []


# runc's log lines look like `time="..." level=error msg="..."`.
_LOG_LINE = re.compile(r'^time="[^"]*" level=(\w+) msg="((?:[^"\\]|\\.)*)"', re.MULTILINE)


def clean_message(text: str) -> str:
    """The error in a runtime's output: the last one, without the log's trimmings."""
    errors = [m for level, m in _LOG_LINE.findall(text) if level in ("error", "fatal")]
    if errors:
        return re.sub(r"\\(.)", r"\1", errors[-1])
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


# What crun and runc say of a command that is not there, or cannot be executed;
# neither offers anything but text.
_NOT_FOUND = re.compile(
    r"executable file .*not found in \$PATH|exec: \\?\"[^\"]*\\?\": stat [^:]+: no such file|"
    r"exec: .*no such file or directory|exec .*: No such file or directory",
    re.IGNORECASE | re.DOTALL,
)
_NOT_EXECUTABLE = re.compile(
    r"open executable: |exec: .*(permission denied|is a directory|exec format error)|"
    r"exec .*: (Permission denied|Exec format error)",
    re.IGNORECASE | re.DOTALL,
)


REMEDY: dict[type[InternalError], str] = {
    CommandNotFound: "check the command's name, and where it is in the root file system",
    CommandNotExecutable: "give it the x bit, and see that it is a program for this machine",
    CreateFailed: "correct what the OCI runtime complains of",
    OCIRuntimeFailed: "correct what the OCI runtime complains of",
}


def command_error(text: str) -> type[CreateFailed] | None:
    if _NOT_FOUND.search(text):
        return CommandNotFound
    if _NOT_EXECUTABLE.search(text):
        return CommandNotExecutable
    return None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
