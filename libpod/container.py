# SPDX-License-Identifier: Apache-2.0
"""Containers: the object that people hold, its state machine, each verb once.

    (new) -> configured -init-> created -start-> running -exit-> exited
                                   running <-pause/unpause-> paused

The states, and the errors of a verb in the wrong one, are those of podman's
libpod.  Each verb takes the container's lock and first looks whether the
container has ended meanwhile; that look costs no process.
"""

from __future__ import annotations

import copy
import enum
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from libpod import attach, launch
from libpod.cgroup import Usage
from libpod.errors import (
    Closed,
    ContainerExists,
    ContainerRemoved,
    ContainerStateInvalid,
    ContainerStopped,
    InternalError,
    LockGone,
    NotBuilt,
    OCIRuntimeFailed,
    RuntimeStopped,
    UsedAfterFork,
    WaitTimeout,
)
from libpod.launch import Engine, Launch
from libpod.lockfile import LockFile
from libpod.oci import Bundle

if TYPE_CHECKING:
    import socket

log = logging.getLogger("libpod.container")

STOP_TIMEOUT = 10
"""Seconds between the stop signal and SIGKILL (the original's CtrRemoveTimeout)."""

KILL_TIMEOUT = 10.0
"""Seconds in which a container must have ended after SIGKILL."""

LOCK_TIMEOUT = 300.0
"""Seconds to wait for a container's lock; a creation may hold it for 240."""


class Status(enum.IntEnum):
    """A container's state, with the original's numbers."""

    UNKNOWN = 0
    CONFIGURED = 1
    CREATED = 2
    RUNNING = 3
    STOPPED = 4
    PAUSED = 5

    def __str__(self) -> str:
        return "exited" if self is Status.STOPPED else self.name.lower()


class ContainerConfig(NamedTuple):
    """What a container is; it never changes."""

    id: str
    name: str
    spec: dict[str, Any]
    bundle: Bundle
    stop_signal: int
    stop_timeout: float
    """Seconds."""
    labels: Mapping[str, str]
    created: float
    """Seconds since the epoch."""


class ContainerState(NamedTuple):
    """How a container stands; `Container.state` reads it."""

    status: Status
    pid: int
    """0 unless created, running or paused."""
    exit_code: int
    """-1 where the monitor died without one."""
    oom_killed: bool
    started: float | None
    """Seconds since the epoch."""
    finished: float | None


class Container:
    """A container of a `Runtime`.

    Made by `Runtime.new_container`, `create` or `start`, never directly.  Safe
    to use from many threads.  As a context manager it kills and removes the
    container at the end of the block; for a graceful end call `stop` before.
    """

    def __init__(
        self,
        engine: Engine,
        config: ContainerConfig,
        lock: LockFile,
        remove: Callable[[Container, bool], None],
    ) -> None:
        """`remove` takes it out of the runtime's state, too."""
        self._engine = engine
        self._config = config
        self._lock = lock
        self._remove_from_runtime = remove
        self._launch: Launch | None = None
        self._usage = Usage()
        self._attended = False
        self._removed = False
        self._owner = os.getpid()
        self._state = ContainerState(Status.CONFIGURED, 0, 0, False, None, None)

    # --- what it is ------------------------------------------------------------

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self._config.id

    @property
    def name(self) -> str:
        return self._config.name

    @property
    def labels(self) -> dict[str, str]:
        return dict(self._config.labels)

    @property
    def spec(self) -> dict[str, Any]:
        """A copy of the OCI runtime spec that it was made from."""
        return copy.deepcopy(self._config.spec)

    @property
    def created(self) -> float:
        """Seconds since the epoch."""
        return self._config.created

    @property
    def log_path(self) -> str:
        """conmon's log of both streams, in the k8s-file format."""
        return self._config.bundle.log_path

    @property
    def state(self) -> ContainerState:
        """How it stands now."""
        with self._locked():
            return self._state

    @property
    def usage(self) -> Usage:
        """What it has consumed: so far while it runs, at its end afterwards."""
        with self._locked():
            if self._launch is not None and self._is(Status.RUNNING, Status.PAUSED):
                return self._launch.usage()
            return self._usage

    def __repr__(self) -> str:
        return f"<Container {self.name} {self.id[:12]} {self._state.status}>"

    # --- verbs -------------------------------------------------------------------

    def init(self) -> None:
        """Has the OCI runtime create it: namespaces, cgroup, mounts, and a first process
        that waits for `start`.

        Raises `ContainerExists` where it was created already, and what
        `OCIRuntime.create` raises.
        """
        with self._locked():
            if not self._is(Status.CONFIGURED, Status.STOPPED):
                raise ContainerExists(
                    f"container {self.id} has already been created in runtime",
                    container_id=self.id,
                )
            self._init()

    def start(self) -> None:
        """Starts its command, after `init` where that was not done.

        Raises `ContainerStateInvalid` where it runs or is paused.
        """
        with self._locked():
            if not self._is(Status.CONFIGURED, Status.CREATED, Status.STOPPED):
                self._refuse(
                    f"container {self.id} must be in Created or Stopped state to be started"
                )
            if not self._is(Status.CREATED):
                self._init()
            self._start()

    def connect(self) -> socket.socket:
        """Connects to its streams (see `libpod.attach`); before `start` for all of them.

        Raises `ContainerStateInvalid` unless it is created or running.
        """
        with self._locked():
            if not self._is(Status.CREATED, Status.RUNNING):
                self._refuse("can only attach to created or running containers")
            return self._running().connect()

    def wait(self, wait_timeout: float | None = None) -> int:
        """Waits until it has ended: its exit code, 128+n after signal n, -1 where it is lost.

        `wait_timeout` (seconds) ends the waiting only: `WaitTimeout`.  Raises
        `ContainerStateInvalid` where it was never created in the runtime.
        """
        if not self.await_exit(wait_timeout):
            raise WaitTimeout(
                f"container {self.id} did not end within {wait_timeout:g} s",
                container_id=self.id,
            )
        with self._locked():
            return self._state.exit_code

    def await_exit(self, timeout: float | None = None) -> bool:
        """Whether its exit became final within `timeout` seconds; takes no lock and
        clears up nothing.  Raises `RuntimeStopped` where the runtime was shut down and
        nobody will know."""
        if self._owner != os.getpid():
            raise UsedAfterFork(
                f"container {self.id} belongs to the parent process",
                container_id=self.id,
                remedy="open a runtime in the child",
            )
        launched = self._launch
        if launched is None:
            raise ContainerStateInvalid(
                f"container {self.id} was never started", container_id=self.id
            )
        ended = launched.ended.wait(timeout)
        if ended and launched.exit is None:
            raise RuntimeStopped(
                f"the runtime was shut down; container {self.id} goes on under its monitor",
                container_id=self.id,
            )
        return ended

    def kill(self, signal_number: int = signal.SIGKILL) -> None:
        """Sends a signal to its first process.

        Raises `ContainerStateInvalid` unless it runs.
        """
        with self._locked():
            if not self._is(Status.RUNNING):
                self._refuse("can only kill running containers")
            if not self._running().send_signal(signal_number):
                self._refuse(f"container {self.id} has ended just now")

    def stop(self, grace: float | None = None) -> None:
        """Ends it: its stop signal, `grace` seconds (default: its stop time-out), then
        SIGKILL to all its processes.  Its lock is free while it waits.

        Raises `ContainerStateInvalid` where it was never created or is paused, and
        `ContainerStopped` where it has ended.
        """
        with self._locked():
            if self._is(Status.STOPPED):
                raise ContainerStopped(
                    f"container {self.id} is already stopped", container_id=self.id
                )
            if not self._is(Status.CREATED, Status.RUNNING):
                self._refuse("can only stop created, running, or stopped containers")
            launched = self._running()
            # A created container's first process does not serve signals.
            if self._is(Status.CREATED):
                grace = 0
        self._end(launched, self._config.stop_timeout if grace is None else grace)
        with self._locked():
            return

    def pause(self) -> None:
        """Freezes all its processes."""
        with self._locked():
            if self._is(Status.PAUSED):
                self._refuse(f"container {self.id} is already paused")
            if not self._is(Status.RUNNING):
                self._refuse(f"container {self.id} is not running, can't pause")
            launched = self._running()
            try:
                self._engine.oci.pause(self.id)
            except OCIRuntimeFailed:
                if launched.has_process():
                    raise
                self._refuse(f"container {self.id} has ended just now")
            self._state = self._state._replace(status=Status.PAUSED)

    def unpause(self) -> None:
        """Lets its processes go on."""
        with self._locked():
            if not self._is(Status.PAUSED):
                self._refuse(f"container {self.id} is not paused, can't unpause")
            self._engine.oci.resume(self.id)
            self._state = self._state._replace(status=Status.RUNNING)

    def resize(self, height: int, width: int) -> None:
        """Tells its terminal its size in characters; before `init`, the one that it is made
        with.  Takes no lock, so that a handler of SIGWINCH can call it."""
        if self._launch is None:
            size = {"height": height, "width": width}
            self._config.spec.setdefault("process", {})["consoleSize"] = size
        else:
            attach.resize(self._config.bundle.directory, height, width)

    def remove(self, force: bool = False) -> None:
        """Removes it with all its files; `Runtime.remove_container`."""
        self._remove_from_runtime(self, force)

    def kill_and_remove(self) -> None:
        """Ends it at once, whatever it does, and removes it."""
        self.kill_all()
        if self._launch is not None:
            self._launch.ended.wait(KILL_TIMEOUT)
        self.remove(force=True)

    def delete(self, force: bool = False) -> None:
        """`remove`, by the OCI runtimes' word for it."""
        self.remove(force)

    def __enter__(self) -> Container:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.kill_and_remove()
        except ContainerRemoved:
            log.debug("container %s was removed inside its block", self.id)

    def attend(self) -> None:
        """Says that the caller waits for the exit and then clears up itself, so that no
        other thread has to."""
        self._attended = True

    def send_signal(self, signal_number: int) -> bool:
        """Sends a signal to its first process, if that is there: whether it was.  Takes no
        lock and does not wait, so that signal handlers can call it."""
        launched = self._launch
        # Once it has ended, its process object is closed and its pid may be another's.
        if launched is None or launched.ended.is_set():
            return False
        return launched.send_signal(signal_number)

    def send_stop_signal(self) -> None:
        """Sends its stop signal, if it is there; takes no lock and does not wait."""
        self.send_signal(self._config.stop_signal)

    def kill_all(self) -> None:
        """Ends all its processes with SIGKILL at once, whatever its state; takes no lock
        and waits for no monitor."""
        if self._launch is not None:
            self._launch.kill_all()

    # --- not built yet -------------------------------------------------------------

    def exec(self, command: list[str], **options: Any) -> NoReturn:
        """Runs another command inside it: not built yet."""
        raise NotBuilt("exec is not built yet", container_id=self.id)

    def logs(self, **options: Any) -> NoReturn:
        """Reads its log: not built yet."""
        raise NotBuilt(
            "logs is not built yet", container_id=self.id, remedy=f"read {self.log_path}"
        )

    def wait_for_log(self, text: bytes, **options: Any) -> NoReturn:
        """Waits for a line of its log: not built yet."""
        raise NotBuilt(
            "wait_for_log is not built yet", container_id=self.id, remedy=f"read {self.log_path}"
        )

    # --- inside, the lock held ---------------------------------------------------------

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Holds the lock, with the state brought up to date.

        A signal handler may raise at any moment, also just after the lock was
        taken: hence the unlocking whatever happened, held or not.
        """
        try:
            self._take_lock()
            if self._removed:
                raise self._gone()
            self._sync()
            yield
        finally:
            with suppress(InternalError, Closed, LockGone):
                self._lock.unlock()

    def _take_lock(self) -> None:
        try:
            self._lock.lock(LOCK_TIMEOUT)
        except (LockGone, Closed):
            raise self._gone() from None

    def _gone(self) -> ContainerRemoved:
        return ContainerRemoved(
            f"container {self.id} has already been removed", container_id=self.id
        )

    def _sync(self) -> None:
        """Takes note of an exit, and gives back what the container held."""
        launched = self._launch
        if launched is None or launched.exit is None:
            return
        if not self._is(Status.CREATED, Status.RUNNING, Status.PAUSED):
            return
        self._usage, oom_killed = launched.release()
        self._state = ContainerState(
            Status.STOPPED,
            0,
            launched.exit.code,
            oom_killed,
            self._state.started,
            launched.exit.finished,
        )

    def _is(self, *statuses: Status) -> bool:
        return self._state.status in statuses

    def _refuse(self, message: str) -> NoReturn:
        raise ContainerStateInvalid(
            message,
            container_id=self.id,
            remedy=f"the container is {self._state.status}",
        )

    def _running(self) -> Launch:
        if self._launch is None:
            raise InternalError(f"container {self.id} has no launch", container_id=self.id)
        return self._launch

    def _init(self) -> None:
        launched = Launch(self._engine, self._config.bundle)
        before = self._state
        try:
            launched.prepare(self._config.spec)
            launched.create(self._on_exit)
            self._state = ContainerState(Status.CREATED, launched.pid, 0, False, None, None)
            self._launch = launched
        except BaseException:
            launched.abandon()
            self._state = before
            raise

    def _start(self) -> None:
        launched = self._running()
        try:
            launched.start()
        except BaseException:
            # A container whose start failed is of no use: end it, and let the
            # caller have the error.
            self._end(launched, 0)
            self._sync()
            raise
        self._state = self._state._replace(status=Status.RUNNING, started=time.time())

    def _end(self, launched: Launch, grace: float) -> None:
        """The stop signal, the grace, then SIGKILL; returns when the exit is final."""
        if grace > 0:
            deadline = time.monotonic() + grace
            launched.await_command(deadline)
            if launched.send_signal(self._config.stop_signal) and launched.ended.wait(
                max(0.0, deadline - time.monotonic())
            ):
                return
            log.debug("container %s did not end within %g s", self.id, grace)
        none_left = launched.kill_all()
        if launched.ended.wait(KILL_TIMEOUT):
            return
        if none_left:  # only the monitor did not see it
            launched.kill_monitor()
        if not launched.ended.wait(KILL_TIMEOUT):
            raise InternalError(
                f"container {self.id} did not die within {KILL_TIMEOUT:g} s",
                phase="stop",
                container_id=self.id,
                remedy="a process of it may be stuck in the kernel",
            )

    def _on_exit(self) -> None:
        """In the watching thread: nothing that waits."""
        if not self._attended:
            self._engine.releaser.submit(self._settle)

    def _settle(self) -> None:
        """Clears up after an exit that nobody waits for."""
        try:
            with self._locked():
                return
        except ContainerRemoved:
            return

    def remove_under_lock(self, force: bool) -> None:
        """All of `Runtime.remove_container` but the state's entry."""
        with self._locked():
            self._remove(force)
            self._lock.remove()  # whoever waits for it now gets LockGone
            self._removed = True  # last, so that a removal cut short can be done again
        self._lock.close()

    def _remove(self, force: bool) -> None:
        if self._is(Status.PAUSED):
            self._refuse(f"container {self.id} is paused, cannot remove until unpaused")
        if self._is(Status.RUNNING, Status.CREATED):
            if not force and self._is(Status.RUNNING):
                self._refuse(
                    f"cannot remove container {self.id} as it is running - "
                    "running or paused containers cannot be removed"
                )
            running = self._is(Status.RUNNING)
            self._end(self._running(), self._config.stop_timeout if running else 0)
            self._sync()
        launch.remove_tree(self._config.bundle.directory)
