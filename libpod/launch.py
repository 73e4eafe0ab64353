# SPDX-License-Identifier: Apache-2.0
"""One launch: directories, config.json, create, start, exit, release.

A `Launch` is one life of a container's processes.  It is driven by its
container, under the container's lock; only `on_exit` comes from the thread that
watches exits.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from libpod import _spawn, attach, execfifo
from libpod.cgroup import Usage
from libpod.conmon import Creation
from libpod.errors import Closed, LibpodError, SystemCallError
from libpod.exits import LOST, Exit
from libpod.failpoint import reach
from libpod.oci import Bundle, OCIRuntime
from libpod.trees import remove_tree

if TYPE_CHECKING:
    import socket

    from libpod.engine import Engine

log = logging.getLogger("libpod.launch")

STUB_TIMEOUT = 2.0
"""Seconds that the OCI runtime may take from `start` to the command."""

MONITOR_TIMEOUT = 10.0
"""Seconds that a monitor may go on after it wrote the exit file."""


class Launch:
    """The processes, files and cgroup of one container.

    Attributes:
        bundle: what conmon and the OCI runtime are told; oci: that runtime.
        pid: of the container's first process once created.
        ended: set when the exit is final, or nobody watches any more.
        exit: how it ended, once it has.
    """

    def __init__(self, engine: Engine, bundle: Bundle, oci: OCIRuntime) -> None:
        self.engine = engine
        self.oci = oci
        self.bundle = bundle
        self.pid = 0
        self.ended = threading.Event()
        self.exit: Exit | None = None
        self._creation: Creation | None = None
        self._plain = False  # start and delete take nothing that only the runtime can do
        self._own_pids = False  # in a PID namespace of its own none outlives the first process
        self._stub = ""
        self._init: _spawn.Process | None = None
        self._monitor: _spawn.Process | None = None
        self._watched = False

    @classmethod
    def adopt(cls, engine: Engine, bundle: Bundle, oci: OCIRuntime, pid: int) -> Launch:
        """That of a container which another process has created; `pid` is 0 where its
        first process is known to have ended."""
        launch = cls(engine, bundle, oci)
        launch.pid = pid
        if pid > 0:
            launch._init = launch._open_init(pid)
            if not _is_stub(launch._stub):
                launch._stub = ""
        with suppress(ProcessLookupError):
            launch._monitor = _spawn.open_monitor(bundle.conmon_pid_file, bundle.container_id)
        return launch

    def _prepare(self, spec: Mapping[str, Any]) -> None:
        """Writes config.json."""
        # Of the hooks some are run at the start and after the end.
        linux = spec.get("linux") or {}
        self._plain = self.oci.is_plain and not (spec.get("hooks") or linux.get("intelRdt"))
        self._own_pids = {"type": "pid"} in (linux.get("namespaces") or ())
        try:
            _write_whole(
                f"{self.bundle.directory}/config.json",
                json.dumps(spec, separators=(",", ":")).encode(),
            )
        except OSError as error:
            raise SystemCallError(
                f"cannot write the bundle {self.bundle.directory}: {error.strerror}",
                error.errno or 0,
                phase="prepare",
                container_id=self.bundle.container_id,
                remedy="check the space on that file system",
            ) from error

    @property
    def monitor_pid(self) -> int:
        """0 where there is none."""
        return 0 if self._monitor is None else self._monitor.pid

    def has_monitor(self) -> bool:
        """Whether somebody is there who will write the exit file."""
        return self._monitor is not None and not self._monitor.ended()

    def begin(self) -> Creation:
        """Starts the monitor, which loads until `create`."""
        creation = self._creation = Creation(self.oci, self.bundle)
        reach("init.spawned")
        return creation

    def waits(self) -> bool:
        """Whether it has begun and can go on."""
        return self._creation is not None and self._creation.waits()

    def create(
        self, command: str, make_spec: Callable[[], Mapping[str, Any]], on_exit: Callable[[], None]
    ) -> None:
        """Has the container created; `on_exit` is called from another thread when its
        exit is final.  On a failure nothing of it is left but the bundle's files.

        `make_spec` is called, and config.json written, while the monitor loads; `command`
        is what errors name where the OCI runtime's own do not.
        """
        creation = self._creation or self.begin()
        created = creation.finish(lambda: self._prepare(make_spec()), command)
        self.pid = created.pid
        self._monitor = created.monitor
        self._init = self._open_init(created.pid)
        self.watch(on_exit)

    def watch(self, on_exit: Callable[[], None]) -> None:
        """Has `exit` and `ended` set when the exit is final, and calls `on_exit` then, in
        another thread or at once; see `ExitWatcher` for how often."""
        if self._watched:
            return
        self._watched = True

        def ended(exit: Exit | None) -> None:
            self.exit = self.exit or exit
            self.ended.set()
            if exit is not None:
                on_exit()
            else:  # the runtime is closed: nobody can ask for anything here any more
                self.close()

        if self._monitor is not None:
            self.engine.exits.add(self.bundle.container_id, self._monitor, ended)
        else:
            ended(
                self.engine.exits.read(self.bundle.container_id)
                or Exit(LOST, time.time(), told=False)
            )

    def is_awaited(self) -> bool:
        """Whether its exit is watched for and has not been seen: what lies in the place of
        the exit file until then is not conmon's."""
        return self._watched and not self.ended.is_set()

    def clear_unfinished(self, orphaned: bool) -> None:
        """Ends what a creator that died in the middle has left.

        Where it is known that he died, nothing need be there yet: a monitor may have
        been started that has made no file.
        """
        bundle = self.bundle
        left = (bundle.conmon_pid_file, bundle.pid_file)
        if orphaned or any(map(os.path.exists, (*left, self.oci.state_dir(bundle.container_id)))):
            log.info("container %s: clearing an unfinished creation", bundle.container_id)
            self.abandon()

    def abandon(self) -> None:
        """Ends and removes whatever a creation that was cut short has left: an interrupt
        may come at any moment, so this goes by what lies on disk and what runs."""
        bundle = self.bundle
        self._unwatch()  # nobody asks how it ends
        if self._creation is not None:
            self._creation.give_up()
        state_dir = self.oci.state_dir(bundle.container_id)
        if any(
            map(os.path.exists, (bundle.conmon_pid_file, state_dir))
        ) or self.engine.host.sessions_naming(bundle.marks):
            self.oci.abandon(bundle)
        remove_tree(state_dir)
        self.close()
        self.forget_files()

    def close(self) -> None:
        """Gives back what this process holds of it; whoever still waits for it is woken."""
        self._unwatch()
        if self._creation is not None:
            self._creation.give_up()
        self.ended.set()
        init, self._init = self._init, None
        monitor, self._monitor = self._monitor, None
        for process in (init, monitor):
            if process is not None:
                process.close()

    def _unwatch(self) -> None:
        if self._watched and self._monitor is not None:
            self.engine.exits.forget(self.bundle.container_id, self._monitor)

    def _open_init(self, pid: int) -> _spawn.Process | None:
        """The first process, opened and then checked: the number may be somebody else's
        by now if the container was killed at once."""
        try:
            process = _spawn.open_process(pid)
        except ProcessLookupError:
            return None
        program = _await_program(process, pid)  # without one its cgroup is "/"
        try:
            with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
                if self.bundle.cgroup in file.read():
                    self._stub = program
                    return process
        except OSError as error:
            log.debug("container %s: %s", self.bundle.container_id, error)
        process.close()
        return None

    def connect(self) -> socket.socket:
        """Connects to the container's streams; before `start` for all of them."""
        return attach.connect(self.bundle.directory)

    def start(self) -> None:
        """Starts the command, without a program where none is needed."""
        container_id = self.bundle.container_id
        fifo = self.oci.fifo(container_id)
        init = self._init
        if self._plain and init is not None and execfifo.let_go(fifo, self.oci.path, init):
            reach("start.let-go")
            _unlink(fifo)
        else:
            self.oci.start(container_id)

    def was_let_go(self) -> bool:
        """Whether a created container's command goes on although the fifo is there: whoever
        let it go was killed before he removed that.  It is removed."""
        fifo = self.oci.fifo(self.bundle.container_id)
        try:
            if not self.has_process() or execfifo.is_held(fifo, self.pid):
                return False
        except FileNotFoundError:
            return False
        _unlink(fifo)
        return True

    def send_signal(self, number: int) -> bool:
        """Signals the first process; whether it was still there."""
        init = self._init
        if init is None:
            return False
        try:
            init.send_signal(number)
        except (ProcessLookupError, Closed):  # it has ended, or another thread let go of it
            return False
        return True

    def has_process(self) -> bool:
        """Whether the first process has not ended; the exit becomes final a little later."""
        init = self._init
        return init is not None and not init.ended()

    def await_command(self) -> None:
        """Waits until the first process is the command: what the OCI runtime has in its
        place lives on for some milliseconds after `start`, and dies of a signal that
        the command would have served, or loses it."""
        init, stub = self._init, self._stub
        if stub and init is not None and _await_program(init, self.pid, stub) != stub:
            self._stub = ""

    def kill_all(self) -> bool:
        """Ends every process of the container with SIGKILL; whether none is left."""
        self.send_signal(signal.SIGKILL)
        return self.engine.host.cgroups.kill(self.bundle.cgroup)

    def kill_monitor(self) -> None:
        """Ends a monitor that hangs; the exit is lost with it."""
        monitor = self._monitor
        if monitor is None:
            return
        log.warning(
            "monitor %d of container %s hangs: killed", monitor.pid, self.bundle.container_id
        )
        with suppress(ProcessLookupError):
            monitor.send_signal(signal.SIGKILL)
        self.engine.host.kill_session(monitor.pid)

    def usage(self) -> Usage:
        return self.engine.host.cgroups.usage(self.bundle.cgroup)

    def release(self, lost: bool) -> tuple[Usage, bool]:
        """Gives back what the ended container still holds but its files; returns what it
        consumed, and whether the kernel killed for want of memory.

        Waits for a monitor of our own, which is about to end; `lost` says that it ended
        too early.  A failure is logged and the rest is released all the same.  Can be
        done again where it was cut short.
        """
        bundle = self.bundle
        cgroups = self.engine.host.cgroups
        if lost:  # without a monitor the container's processes may well go on
            cgroups.kill(bundle.cgroup)
        usage = self.usage()
        self._end_monitor()
        reach("exit.monitor-ended")
        # Where the cgroup does not count, conmon leaves a file in its directory.
        oom = bool(usage.oom_kills) or os.path.exists(f"{bundle.directory}/oom")
        self._delete()
        reach("exit.deleted")
        cgroups.remove(bundle.cgroup)
        return usage, oom

    def _delete(self) -> None:
        """Ends what is left of it and has the OCI runtime forget it, without a program
        where none is needed."""
        container_id, cgroup = self.bundle.container_id, self.bundle.cgroup
        if not self._plain:
            try:
                self.oci.delete(container_id)
            except LibpodError as error:
                log.warning("%s; clearing up without it", error.message)
                self.engine.host.cgroups.kill(cgroup)
        elif not self._own_pids:
            self.engine.host.cgroups.kill(cgroup)
        # The runtime leaves it where a removal was cut short.
        remove_tree(self.oci.state_dir(container_id))

    def forget_files(self) -> None:
        """Removes what conmon and the runtime keep for a running container, the exit file
        too: its end has been recorded."""
        bundle = self.bundle
        self.engine.exits.discard(bundle.container_id)
        reach("exit.discarded")
        for name in ("attach", "ctl", "winsz", "oom"):
            _unlink(f"{bundle.directory}/{name}")
        for path in (bundle.pid_file, bundle.conmon_pid_file):
            _unlink(path)

    def _end_monitor(self) -> None:
        """A monitor with an exit command waits for that, which may wait for us."""
        monitor = self._monitor
        if monitor is None or self._creation is None or self.bundle.exit_command:
            return
        if not monitor.ended(MONITOR_TIMEOUT):
            self.kill_monitor()
            monitor.ended(MONITOR_TIMEOUT)


def _program(pid: int) -> str:
    """What a process executes; "" where that cannot be seen."""
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def _await_program(process: _spawn.Process, pid: int, before: str = "") -> str:
    """What a process executes after `before`, or when it ends or stays the same for long.

    Where another thread than the first one executes the command there is a moment at which
    the process is a zombie and has no program, but has not ended.
    """
    deadline = time.monotonic() + STUB_TIMEOUT
    while (program := _program(pid)) in (before, "") and not process.ended():
        if time.monotonic() >= deadline:
            break
        time.sleep(0.001)
    return program


def _is_stub(program: str) -> bool:
    """Whether it is what the OCI runtimes have in the command's place: a copy of theirs
    in memory, or on a mount that nobody can reach."""
    return program == "/" or program.startswith("/memfd:")


def _write_whole(path: str, data: bytes) -> None:
    """Writes a file that nobody else can have prepared, and that others see whole or not
    at all."""
    new = f"{path}.new"
    _unlink(new)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(data)
        os.rename(new, path)
    except BaseException:
        _unlink(new)
        raise


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
