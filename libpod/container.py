# SPDX-License-Identifier: Apache-2.0
"""Containers: the object that people hold, its state machine, each verb once.

    (new) -> created -init-> initialized -start-> running -exit-> stopped -> exited
                                     running <-pause/unpause-> paused

The states, and the errors of a verb in the wrong one, are those of podman's
libpod.  Each verb takes the container's lock and first looks what has happened
meanwhile, in other processes too; that look costs no process.
"""

from __future__ import annotations

import copy
import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, TypeVar

from libpod import attach
from libpod.cgroup import Usage
from libpod.errors import (
    ContainerExists,
    ContainerRemoved,
    ContainerStateInvalid,
    ContainerStopped,
    NotBuilt,
    RuntimeStopped,
    WaitTimeout,
)
from libpod.facts import ContainerFacts, ContainerState, state_of
from libpod.failpoint import reach
from libpod.life import KILL_TIMEOUT
from libpod.state.records import ContainerStatus

if TYPE_CHECKING:
    import socket

    from libpod.launch import Launch
    from libpod.state.handles import ContainerRecord

log = logging.getLogger("libpod.container")

STOP_TIMEOUT = 10
"""Seconds between the stop signal and SIGKILL (the original's CtrRemoveTimeout)."""

Status = ContainerStatus
__all__ = ["Container", "ContainerState", "Status"]

_ENDED = (Status.STOPPED, Status.EXITED)
_STARTABLE = (Status.CONFIGURED, Status.CREATED, *_ENDED)

T = TypeVar("T")


class Container(ContainerFacts):
    """A container of a `Runtime`.

    Made by `Runtime.new_container`, `create` or `start`, or found by a lookup,
    never made directly.  Safe to use from many threads; other processes may use the
    same container at the same time.  As a context manager it kills and removes the
    container at the end of the block; for a graceful end call `stop` before.
    """

    # --- verbs -------------------------------------------------------------------

    def init(self, detach: bool = False) -> None:
        """Has the OCI runtime create it: namespaces, cgroup, mounts, and a first process
        that waits for `start`.

        One that is detached is meant to outlive this process: its monitor has it
        cleared up, and removed if it was made so.  Of any other this process is in
        charge while its runtime is open.

        Raises `ContainerExists` where it was created already, `ContainerStateInvalid`
        where one that it depends on does not run, and what `OCIRuntime.create` raises.
        """
        with self._locked():
            if not self._is(Status.CONFIGURED, *_ENDED):
                raise ContainerExists(
                    f"container {self.id} has already been created in runtime",
                    container_id=self.id,
                )
            self._init(detach)

    def start(self, detach: bool = False) -> None:
        """Starts its command, after `init` where that was not done; `detach` as there.

        Raises `ContainerStateInvalid` where it runs or is paused, or was ended by somebody
        else before it could start.
        """
        with self._locked():
            self._check_startable()
            if not self._is(Status.CREATED):
                self._init(detach, save=False)
            self._life.start()

    def start_and_attach(
        self, detach: bool = False, on_created: Callable[[], None] | None = None
    ) -> socket.socket:
        """Starts it with a connection to its streams that misses no early byte; see
        `libpod.attach`.  `on_created` is called when it was created and before it starts."""
        with self._locked():
            self._check_startable()
            if not self._is(Status.CREATED):
                self._init(detach, save=False)
            if on_created is not None:
                on_created()
            connection = self._life.running().connect()
            try:
                self._life.start()
            except BaseException:
                connection.close()
                raise
            return connection

    def connect(self) -> socket.socket:
        """Connects to its streams (see `libpod.attach`); before `start` for all of them.

        Raises `ContainerStateInvalid` unless it is created or running.
        """
        with self._locked():
            if not self._is(Status.CREATED, Status.RUNNING):
                self._refuse("can only attach to created or running containers")
            return self._life.running().connect()

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
        try:
            return self.state.exit_code
        except ContainerRemoved:  # by somebody who did not wait for us
            code = self._engine.state.exit_code(self.id)
            if code is None:
                raise
            return code

    def await_exit(self, timeout: float | None = None) -> bool:
        """Whether its exit became final within `timeout` seconds; clears up nothing.

        Raises `RuntimeStopped` where the runtime was shut down and nobody will know."""
        launched = self._life.launch
        if launched is not None and launched.is_awaited():
            # That ends, whatever anybody has done to the container meanwhile.
            self._life.check_process()
            self._engine.exits.glance(self.id)
        elif launched is None or launched.exit is None:
            launched = self._to_await()
        if launched is None:
            return True
        ended = launched.ended.wait(timeout)
        if ended and launched.exit is None and self._engine.closed:
            raise RuntimeStopped(
                f"the runtime was shut down; container {self.id} goes on under its monitor",
                container_id=self.id,
            )
        return ended

    def _to_await(self) -> Launch | None:
        """What there is to wait for; None where it has ended already."""
        try:
            with self._locked():
                if self._is(*_ENDED):
                    return None
                if self._is(Status.CONFIGURED, Status.UNKNOWN):
                    self._refuse(f"container {self.id} was never started")
                return self._life.watched()
        except ContainerRemoved:
            if self._life.removed or self._engine.state.exit_code(self.id) is None:
                raise
            return None

    def kill(self, signal_number: int = signal.SIGKILL) -> None:
        """Sends a signal to its first process.

        Raises `ContainerStateInvalid` unless it runs.
        """
        with self._locked():
            if not self._is(Status.RUNNING, Status.STOPPING):
                self._refuse("can only kill running containers")
            if not self._life.running().send_signal(signal_number):
                self._refuse(f"container {self.id} has ended just now")

    def stop(self, grace: float | None = None) -> None:
        """Ends it: its stop signal, `grace` seconds (default: its stop time-out), then
        SIGKILL to all its processes.  Its lock is free while it waits.

        Raises `ContainerStateInvalid` where it was never created or is paused, and
        `ContainerStopped` where it has ended.
        """
        with self._locked():
            if self._is(*_ENDED):
                raise ContainerStopped(
                    f"container {self.id} is already stopped", container_id=self.id
                )
            if not self._is(Status.CREATED, Status.RUNNING, Status.STOPPING):
                self._refuse("can only stop created, running, or stopped containers")
            launched, grace = self._begin_stop(grace)
        self._life.end(launched, grace, self._stop_signal)
        reach("stop.ended")
        try:
            with self._locked():
                return
        except ContainerRemoved:
            return  # it was to be removed at its end

    def _begin_stop(self, grace: float | None) -> tuple[Launch, float]:
        life = self._life
        launched = life.watched()
        if self._is(Status.CREATED):
            return launched, 0  # its first process does not serve signals yet
        life.record.state.status = Status.STOPPING
        life.record.state.stopped_by_user = True
        life.save()
        reach("stop.saved")
        return launched, self._stop_timeout if grace is None else grace

    def restart(self, timeout: float | None = None, detach: bool | None = None) -> None:
        """Stops it, with `timeout` seconds (default: its stop time-out) of grace, where it
        runs, and starts it; `detach` as in `init`, None as it was.

        Raises `ContainerStateInvalid` where it is paused.
        """
        with self._locked():
            if self._is(Status.PAUSED, Status.UNKNOWN):
                self._refuse("unable to restart a container in a paused or unknown state")
            self._check_dependencies()
            detached = self._life.is_detached()
            runs = self._is(Status.RUNNING, Status.STOPPING)
        if runs:
            try:
                self.stop(timeout)
            except ContainerStopped:
                log.debug("container %s ended before it was stopped", self.id)
        self.start(detach=detached if detach is None else detach)

    def pause(self) -> None:
        """Freezes all its processes."""
        with self._locked():
            if self._is(Status.PAUSED):
                self._refuse(f"container {self.id} is already paused")
            if not self._is(Status.RUNNING):
                self._refuse(f"container {self.id} is not running, can't pause")
            self._life.pause(self._life.running())

    def unpause(self) -> None:
        """Lets its processes go on."""
        with self._locked():
            if not self._is(Status.PAUSED):
                self._refuse(f"container {self.id} is not paused, can't unpause")
            self._life.unpause(self._life.running())

    def cleanup(self) -> None:
        """Gives back what an ended container still holds; once more is no error.

        Raises `ContainerStateInvalid` while it runs.
        """
        self._life.finish(remove=False)

    def refresh(self) -> None:
        """Ends it and brings it back to where it was: created, running or paused."""
        with self._locked():
            before = self._life.status
            detached = self._life.is_detached()
            if before is Status.PAUSED:
                with suppress(ContainerStateInvalid):  # it has ended
                    self._life.unpause(self._life.running())
            if before in (Status.CREATED, Status.RUNNING, Status.PAUSED, Status.STOPPING):
                grace = 0 if before is Status.CREATED else self._stop_timeout
                self._life.end(self._life.watched(), grace, self._stop_signal)
                self._life.sync()
            if before not in (Status.CREATED, Status.RUNNING, Status.PAUSED):
                return
            self._init(detached)
            if before is not Status.CREATED:
                self._life.start()
            if before is Status.PAUSED:
                with suppress(ContainerStateInvalid):
                    self._life.pause(self._life.running())

    def batch(self, work: Callable[[Container], T]) -> T:
        """Calls `work` with this container, its lock held all the time; what is done to it
        in there takes no lock and looks for nothing new, until `sync` is called."""
        with self._locked():
            inside = copy.copy(self)
            inside._batched = True
            try:
                return work(inside)
            finally:
                inside._batched = False
                if not self._life.removed:
                    self._life.save()

    def sync(self) -> None:
        """Looks what has happened meanwhile; of use inside `batch` only."""
        if self._batched:
            self._life.sync()

    def mount(self) -> str:
        """The directory of its root file system on the host."""
        with self._locked():
            return self.record.config.rootfs

    def unmount(self, force: bool = False) -> None:
        """Undoes `mount`, which for a root file system of one's own is nothing.

        Raises `ContainerStateInvalid` while it runs.
        """
        with self._locked():
            if self._is(Status.RUNNING, Status.PAUSED, Status.STOPPING):
                self._refuse(f"cannot unmount storage for container {self.id} as it is running")

    def mounted(self) -> tuple[bool, str]:
        """Whether its root file system is in use, and where it is."""
        with self._locked():
            return self.record.state.mounted, self.record.state.mount_point

    def export(self, path: str | os.PathLike[str] | BinaryIO) -> None:
        """Writes its root file system as a tar archive to a file."""
        from libpod import export

        with self._locked():
            root = self.record.config.rootfs
        export.export(root, os.fspath(path) if isinstance(path, os.PathLike) else path)

    def rename(self, name: str) -> None:
        """Gives it another name.  Raises `ContainerExists`, `InvalidArgument`."""
        from libpod.names import check_name

        check_name(name)
        with self._locked():
            self._life.rename(name)

    def resize(self, height: int, width: int) -> None:
        """Tells its terminal its size in characters; before `init`, the one that it is made
        with.  Takes no lock, so that a handler of SIGWINCH can call it."""
        if self._life.launch is None:
            self._life.console_size = (height, width)
        else:
            attach.resize(self.record.config.static_dir, height, width)

    def remove(self, force: bool = False) -> None:
        """Removes it with all its files; `force` ends one that runs.  One that is gone
        already is no error, as in the original.

        Raises `ContainerStateInvalid` where it runs (without `force`) or is paused,
        `ContainerExists` where others depend on it.
        """
        try:
            self._remove(force)
        except ContainerRemoved:
            log.debug("container %s was removed before", self.id)

    def _remove(self, force: bool) -> None:
        with self._locked():
            if self._is(Status.PAUSED):
                self._refuse(f"container {self.id} is paused, cannot remove until unpaused")
            if self._is(Status.RUNNING, Status.STOPPING) and not force:
                self._refuse(
                    f"cannot remove container {self.id} as it is {self._life.status} - "
                    "running or paused containers cannot be removed"
                )
            if self._is(Status.CREATED, Status.RUNNING, Status.STOPPING):
                self._life.check_unneeded()
                grace = 0 if self._is(Status.CREATED) else self._stop_timeout
                self._life.end(self._life.watched(), grace, self._stop_signal)
                self._life.sync()
            if self._is(Status.STOPPED):
                self._life.release()
            self._life.remove()
        self._life.close()

    def kill_and_remove(self) -> None:
        """Ends it at once, whatever it does, and removes it."""
        with self._engine.reserve.freed():
            self.kill_all()
            if self._life.launch is not None:
                self._life.launch.ended.wait(KILL_TIMEOUT)
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

    # --- for the runtime, and for those who drive a job in the foreground ---------------

    def listed(self, record: ContainerRecord) -> None:
        """Notes what was read just now, for `glance`."""
        self._listed = record
        self._life.name = record.name

    def take_over(self) -> None:
        """Looks after it from now on, in place of a process that died."""
        self._life.take_over()

    def begin(self, spec: dict[str, Any], detach: bool) -> None:
        """Has its monitor load while it is being made; `start` is next."""
        self._life.begin(spec, detach)

    def abandon_begun(self) -> None:
        """Undoes `begin`, where nothing else will."""
        self._life.abandon_begun()

    def attend(self) -> None:
        """Says that the caller waits for the exit and then clears up itself, so that no
        other thread has to."""
        self._life.attended = True

    def reap(self) -> tuple[ContainerState, Usage]:
        """Removes a container that has ended: how it stood, and what it had consumed."""
        with self._life.held():
            self._life.reap()
        self._life.close()
        return state_of(self.record), self._life.usage

    def send_signal(self, signal_number: int) -> bool:
        """Sends a signal to its first process, if that is there: whether it was.  Takes no
        lock and does not wait, so that signal handlers can call it."""
        launched = self._life.launch
        # Once it has ended, its process object is closed and its pid may be another's.
        if launched is None or launched.ended.is_set():
            return False
        return launched.send_signal(signal_number)

    def send_stop_signal(self) -> None:
        """Sends its stop signal, if it is there; takes no lock and does not wait."""
        self.send_signal(self._stop_signal)

    def kill_all(self) -> None:
        """Ends all its processes with SIGKILL at once, whatever its state; takes no lock
        and waits for no monitor."""
        if self._life.launch is not None:
            self._life.launch.kill_all()

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

    def _refuse(self, message: str) -> NoReturn:
        raise ContainerStateInvalid(
            message,
            container_id=self.id,
            remedy=f"the container is {self._life.status}",
        )

    @property
    def _stop_signal(self) -> int:
        return self.record.config.stop_signal or signal.SIGTERM

    @property
    def _stop_timeout(self) -> float:
        return self.record.config.stop_timeout

    def _check_startable(self) -> None:
        if not self._is(*_STARTABLE):
            self._refuse(f"container {self.id} must be in Created or Stopped state to be started")

    def _check_dependencies(self) -> None:
        """All that it depends on must run."""
        missing = []
        for other_id in self.dependencies:
            other = Container(self._engine, self._engine.state.container(other_id))
            if other.glance().status not in (Status.RUNNING, Status.PAUSED):
                missing.append(other_id)
        if missing:
            raise ContainerStateInvalid(
                f"some dependencies of container {self.id} are not started: {','.join(missing)}",
                container_id=self.id,
                remedy="start them first",
            )

    def _init(self, detach: bool, save: bool = True) -> None:
        self._check_dependencies()
        if self._is(Status.STOPPED):
            self._life.release()
        self._life.init(detach, save)
