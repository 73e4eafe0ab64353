# SPDX-License-Identifier: Apache-2.0
"""conmon from its start to its answer: how a container is created.

Until it may go on, conmon has done nothing but load and read its options, so it can
be started before there is anything to create: that takes it longer than our own work.
"""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable, Sequence
from typing import NamedTuple

from libpod import _spawn
from libpod.errors import (
    ConmonFailed,
    ConmonGarbage,
    CreateFailed,
    CreateTimeout,
    SystemCallError,
    WaitTimeout,
)
from libpod.failpoint import reach
from libpod.oci import ABANDON_TIMEOUT, REMEDY, Bundle, OCIRuntime, clean_message, command_error

CREATE_TIMEOUT = 240.0
"""Seconds that a container's creation may take (the original's ContainerCreateTimeout)."""

FORK_TIMEOUT = 30.0
"""Seconds from conmon's answer to the end of the process that we spawned, which the
monitor has forked away from."""


class Created(NamedTuple):
    """A container that waits to be started."""

    pid: int
    monitor: _spawn.Process


class Creation:
    """A conmon that is to have the OCI runtime create one container.

    It loads from when this object is made.  One that is not let go must be given up;
    where this process dies before, it dies too.
    """

    def __init__(self, oci: OCIRuntime, bundle: Bundle) -> None:
        """Raises `SpawnFailed`, `SystemCallError`."""
        self._oci = oci
        self._bundle = bundle
        self._stderr = os.memfd_create("conmon-stderr", os.MFD_CLOEXEC)
        try:
            self._handshake = oci.host.start_conmon(
                arguments(oci, bundle),
                oci.conmon_env,
                cwd=bundle.directory,
                stderr=self._stderr,
                cgroup=bundle.conmon_cgroup,
            )
        except BaseException:
            os.close(self._stderr)
            raise

    def waits(self) -> bool:
        """Whether conmon is there and can go on."""
        return self._stderr >= 0 and not self._handshake.process.ended()

    def finish(self, prepare: Callable[[], None], command: str) -> Created:
        """Has the container created; once.

        `prepare` writes config.json, while the monitor loads, and what it raises is
        raised.  `command` is what errors name where the runtime's own do not.

        Raises `CreateFailed` (`CommandNotFound`, `CommandNotExecutable`),
        `ConmonFailed`, `ConmonGarbage`, `CreateTimeout`; then no process and no cgroup
        of this container is left.
        """
        handshake, bundle = self._handshake, self._bundle
        try:
            prepare()
            reach("init.prepared")
            handshake.go()
            pid = _pid_of(self._await_answer(), bundle, command)
            reach("init.answered")
            # Its last work is to write the monitor's pid file: perhaps after the answer,
            # which comes from the monitor.
            handshake.process.ended(FORK_TIMEOUT)
            return Created(pid, self._monitor())
        except BaseException:
            self._oci.abandon(bundle, handshake.process.pid)
            raise
        finally:
            self._close()

    def give_up(self) -> None:
        """Ends a monitor that was not let go, before it has done anything; idempotent."""
        if self._stderr >= 0:
            if not self._handshake.process.ended():
                self._handshake.process.send_signal(signal.SIGKILL)
            self._close()

    def _close(self) -> None:
        fd, self._stderr = self._stderr, -1
        try:
            _reap(self._handshake.process)
        finally:
            self._handshake.close()
            os.close(fd)

    def _await_answer(self) -> bytes:
        try:
            return self._handshake.answer(CREATE_TIMEOUT)
        except WaitTimeout:
            raise CreateTimeout(
                f"{self._oci.path} did not create the container within {CREATE_TIMEOUT:g} s",
                phase="create",
                container_id=self._bundle.container_id,
                remedy="look at the load of the host; the container was given up",
            ) from None
        except ConmonFailed:
            raise self._failed() from None

    def _failed(self) -> ConmonFailed:
        text = _tail(self._stderr)
        said = f": {clean_message(text)}" if text else ""
        return ConmonFailed(
            f"{self._oci.conmon_path} ended before it answered{said}",
            phase="create",
            container_id=self._bundle.container_id,
            detail=text or None,
            remedy="check that conmon and the OCI runtime work on this host",
        )

    def _monitor(self) -> _spawn.Process:
        bundle = self._bundle
        try:
            return self._handshake.monitor(bundle.conmon_pid_file, bundle.container_id)
        except ProcessLookupError as error:
            raise ConmonFailed(
                f"{self._oci.conmon_path} created the container but is gone: {error}",
                phase="create",
                container_id=bundle.container_id,
                remedy="see who killed it: the kernel's log tells of a lack of memory",
            ) from None


def arguments(oci: OCIRuntime, bundle: Bundle) -> Sequence[str]:
    """conmon's command line."""
    argv = [oci.conmon_path]
    argv += ["-c", bundle.container_id, "-u", bundle.container_id, "-n", bundle.name]
    argv += ["-r", oci.path, "-b", bundle.directory]
    argv += ["-p", bundle.pid_file, "--conmon-pidfile", bundle.conmon_pid_file]
    argv += ["-l", f"k8s-file:{bundle.log_path}", "--exit-dir", oci.exit_dir]
    # The socket lies in the bundle itself: no link to clear, no length limit.
    argv += ["--socket-dir-path", oci.socket_dir, "--full-attach"]
    if bundle.terminal:
        argv.append("-t")
    elif bundle.stdin:
        argv.append("-i")
    if bundle.log_size_max >= 0:
        argv += ["--log-size-max", str(bundle.log_size_max)]
    if not bundle.sync_log:
        argv.append("--no-sync-log")
    if oci.no_pivot_root:
        argv.append("--no-pivot")
    argv += ["--log-level", "warning"]
    for index, word in enumerate(bundle.exit_command):
        argv += ["--exit-command-arg" if index else "--exit-command", word]
    return argv + ["--runtime-arg", "--root", "--runtime-arg", oci.root]


def _reap(process: _spawn.Process) -> None:
    """What we spawned ends once the monitor has forked away from it."""
    try:
        process.wait(ABANDON_TIMEOUT)
    except WaitTimeout:
        process.send_signal(signal.SIGKILL)
        process.wait()
    except SystemCallError as error:
        if error.errno != errno.ECHILD:  # taken by a waitpid(-1) of the program around us
            raise


def _tail(fd: int) -> str:
    size = os.fstat(fd).st_size
    return os.pread(fd, 4096, max(0, size - 4096)).decode("utf-8", "replace")


def _pid_of(line: bytes, bundle: Bundle, command: str) -> int:
    """The container's pid in conmon's answer."""
    try:
        answer = json.loads(line)
        pid = answer["pid"] if "pid" in answer else answer["data"]
        message = answer.get("message", "")
        if type(pid) is not int or not isinstance(message, str):
            raise TypeError
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ConmonGarbage(
            "conmon answered with something that is not its protocol",
            phase="create",
            container_id=bundle.container_id,
            detail=line.decode("utf-8", "backslashreplace"),
            remedy="check that the configured conmon is conmon",
        ) from None
    if pid > 0:
        return pid
    said = clean_message(message)
    error = command_error(message) or CreateFailed
    if error is not CreateFailed and command not in said:
        said = f"{command}: {said}"
    raise error(
        f"container create failed: {said}" if said else "container create failed",
        phase="create",
        container_id=bundle.container_id,
        detail=message or None,
        remedy=REMEDY[error],
    )
