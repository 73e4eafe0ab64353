# SPDX-License-Identifier: Apache-2.0
"""One container under its lock: its record, its processes, and how these agree.

`Container` says which verb is allowed when; here is what a verb does.  All but
what says otherwise is called with the lock held (`with life.locked()`), which
begins by bringing the record up to date:

 1. What is recorded may be behind what has happened, never ahead of it: a step is
    saved after it was done, and can be done again by whoever finds it unsaved.
 2. An exit is final with conmon's exit file, which is removed after the exit was
    recorded.
 3. The process that started a container attached looks after it (`owners`), and
    alone gives back what an ended one held; others record that it ended.  Once
    that process is gone, or where there was none (detached), whoever comes first
    does it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from libpod import assemble
from libpod.cgroup import Usage
from libpod.errors import (
    Closed,
    ContainerExists,
    ContainerRemoved,
    ContainerStateInvalid,
    InternalError,
    LockGone,
    NoSuchContainer,
    OCIRuntimeFailed,
    RuntimeStopped,
    SystemCallError,
)
from libpod.exits import LOST, Exit
from libpod.failpoint import reach
from libpod.guard import Guard
from libpod.launch import Launch
from libpod.oci import Bundle
from libpod.state.records import ContainerState, ContainerStatus
from libpod.storage.errors import DuplicateName, NoSuchStorageContainer

if TYPE_CHECKING:
    from libpod.engine import Engine
    from libpod.locks import ObjectLock
    from libpod.oci import OCIRuntime
    from libpod.state.handles import ContainerRecord

log = logging.getLogger("libpod.life")

KILL_TIMEOUT = 10.0
"""Seconds in which a container must have ended after SIGKILL."""

LIVE = frozenset(
    (
        ContainerStatus.CREATED,
        ContainerStatus.RUNNING,
        ContainerStatus.PAUSED,
        ContainerStatus.STOPPING,
    )
)
"""There is a first process, or was until a moment ago."""


class _Begun(NamedTuple):
    """A launch whose monitor loads, and the spec for it, which may be changed."""

    launch: Launch
    spec: dict[str, Any]


class Life(Guard):
    """A container's record, lock and launch, in this process.

    Attributes:
        launch: its processes, where this process knows them.
        usage: what it had consumed at its end.
        attended: whether somebody waits for the exit and then clears up.
        console_size: height and width of the terminal that it is made with.
    """

    def __init__(
        self, engine: Engine, record: ContainerRecord, lock: ObjectLock | None = None
    ) -> None:
        super().__init__(engine, record, lock)
        self.launch: Launch | None = None
        self.usage = Usage()
        self.attended = False
        self.console_size: tuple[int, int] | None = None
        self._begun: _Begun | None = None
        self._owned = False
        self._to_disclaim = False

    # --- what has happened meanwhile ---------------------------------------------------

    def sync(self) -> None:
        """Takes note of what happened since the record was saved; costs no process."""
        if self.status in LIVE:
            self._drop_stale_launch()
            ended = self._find_exit()
            if ended is None:
                self._sync_running()
            elif self._cleans_up():
                self.release(ended)
            else:
                self._note_exit(ended)
                self.save(ended.code)
        elif self.status is ContainerStatus.STOPPED and self._cleans_up():
            self.release()
        elif self.launch is not None and self.status is not ContainerStatus.STOPPED:
            self._let_go()  # somebody else has cleared up

    def is_settled(self, record: ContainerRecord) -> bool:
        """Whether a `sync` of what was just read would find nothing new; needs no lock."""
        status = record.state.status
        if status is ContainerStatus.STOPPED:
            return not self._cleans_up()
        if status not in LIVE:
            return True
        if status is ContainerStatus.CREATED:
            return False
        if self.launch is not None and self.launch.ended.is_set():
            return False
        # By somebody who was killed before he recorded it, or who asked the OCI runtime.
        frozen = self.engine.host.cgroups.frozen(self.cgroup)
        if frozen is not None and frozen is not (status is ContainerStatus.PAUSED):
            return False
        return not self.engine.exits.has(self.id) and is_monitor(record.state.conmon_pid, self.id)

    def _drop_stale_launch(self) -> None:
        """Another process may have started it anew."""
        if self.launch is not None and self.launch.pid != self.record.state.pid:
            self._let_go()

    def _find_exit(self) -> Exit | None:
        """How it ended, where that is final."""
        launch = self.launch
        if launch is not None and (launch.exit is not None or launch.is_awaited()):
            return launch.exit
        found = self.engine.exits.read(self.id)
        if found is not None:
            return found
        if launch is None:
            launch = self._adopt()
        try:
            if launch.has_monitor() or is_monitor(self.record.state.conmon_pid, self.id):
                return None
        finally:
            if launch is not self.launch:
                launch.close()
        # It may have written the file and ended between our two looks.
        found = self.engine.exits.read(self.id)
        return found or Exit(LOST, time.time(), told=False)

    def _sync_running(self) -> None:
        """A start, pause or unpause that was not recorded, by a caller who was killed or by
        somebody who asked the OCI runtime."""
        before = self.status
        state = self.record.state
        if before is ContainerStatus.CREATED and self._was_started():
            state.started = state.started or time.time_ns()
            state.status = ContainerStatus.RUNNING
        if self.status is not ContainerStatus.CREATED:
            frozen = self.engine.host.cgroups.frozen(self.cgroup)
            if frozen and self.status is ContainerStatus.RUNNING:
                state.status = ContainerStatus.PAUSED
            elif frozen is False and self.status is ContainerStatus.PAUSED:
                state.status = ContainerStatus.RUNNING
        if self.status is not before:
            self.save()

    def _was_started(self) -> bool:
        if self.oci.was_started(self.id):
            return True
        launched = self.launch or self._adopt()
        try:
            return launched.was_let_go()
        finally:
            if launched is not self.launch:
                launched.close()

    def _cleans_up(self) -> bool:
        return self._owned or not self.engine.owners.another_lives(self.id)

    def _note_exit(self, ended: Exit) -> None:
        if not ended.told:
            log.error("the monitor of container %s died without an exit code", self.id)
        state = self.record.state
        state.status = ContainerStatus.STOPPED
        state.exit_code = ended.code
        state.exited = True
        state.finished = int(ended.finished * 1e9)
        state.oom_killed = os.path.exists(f"{self.record.config.static_dir}/oom")
        state.pid = 0
        state.conmon_pid = 0

    # --- its processes -------------------------------------------------------------

    @property
    def oci(self) -> OCIRuntime:
        """The runtime that it was made for, whatever this process prefers."""
        return self.engine.oci_of(self.record.config.oci_runtime)

    @property
    def remove_at_end(self) -> bool:
        """Whether it is to go when it has ended."""
        return self.record.config.remove_at_end

    def is_detached(self) -> bool:
        """Whether it runs and no process looks after it."""
        return self.status in LIVE and not self.engine.owners.claimed(self.id)

    def bundle(
        self, terminal: bool = False, detached: bool = False, sync_log: bool = True
    ) -> Bundle:
        """What conmon and the OCI runtime are told of it; the arguments matter for its
        creation alone."""
        config, state = self.record.config, self.record.state
        command = self.engine.exit_command(self.id, self.remove_at_end) if detached else ()
        return Bundle(
            container_id=self.id,
            name=self.record.name,
            directory=config.static_dir,
            run_dir=state.run_dir,
            cgroup=self.cgroup,
            conmon_cgroup=f"{config.cgroup_parent}/conmon",
            log_path=config.log_path,
            log_size_max=config.log_size or -1,
            terminal=terminal,
            stdin=config.stdin,
            pid_file=config.pid_file or f"{state.run_dir}/pidfile",
            conmon_pid_file=config.conmon_pid_file or f"{state.run_dir}/conmon.pid",
            exit_command=tuple(command),
            sync_log=sync_log,
        )

    @property
    def cgroup(self) -> str:
        return f"{self.record.config.cgroup_parent}/libpod-{self.id}"

    def running(self) -> Launch:
        """Its processes, also those that another process has started."""
        if self.launch is None:
            self.launch = self._adopt()
        return self.launch

    def _adopt(self) -> Launch:
        return Launch.adopt(self.engine, self.bundle(), self.oci, self.record.state.pid)

    def watched(self) -> Launch:
        """The same, with its `ended` set when the exit is final."""
        launch = self.running()
        launch.watch(self._on_exit)
        return launch

    def begin(self, spec: dict[str, Any], detached: bool) -> None:
        """Starts the monitor of one that is being made and will be started at once, by this
        object and with the claim kept: it loads until `init`.

        `spec` is the recorded one, for this object to change.
        """
        self._begun = _Begun(self._new_launch(spec, detached), spec)
        self._begun.launch.begin()

    def abandon_begun(self) -> None:
        """Ends and removes what `begin` has left, however far it came."""
        begun, self._begun = self._begun, None
        if begun is not None:
            begun.launch.abandon()

    def _new_launch(self, spec: dict[str, Any], detached: bool) -> Launch:
        terminal = bool(spec["process"].get("terminal"))
        # A log that goes with its container at its end need not outlive a power cut.
        bundle = self.bundle(terminal, detached, sync_log=not self.remove_at_end)
        return Launch(self.engine, bundle, self.oci)

    def init(self, detached: bool, save: bool = True) -> None:
        """Has the OCI runtime create it; a caller who starts it before he gives the lock
        back need not `save` it."""
        launched, spec = self._take_begun(detached) or self._prepared(detached)
        if self.console_size:
            size = dict(zip(("height", "width"), self.console_size, strict=True))
            spec["process"]["consoleSize"] = size
        reach("init.cleared")
        before = self.record.state.but()
        try:
            self.engine.owners.claim(self.id)
            reach("init.claimed")
            command = next(iter(spec["process"].get("args") or ()), "")
            launched.create(command, lambda: self._finished(spec), self._on_exit)
            reach("init.created")
            self._note_created(launched)
            if save:
                self.save()
            reach("init.saved")
            if detached and save:
                self.engine.owners.disclaim(self.id)
            self._owned = not detached
            self._to_disclaim = detached and not save
            self.launch = launched
        except BaseException:
            with self.engine.reserve.freed():
                self._undo_init(launched, before)
            raise

    def _take_begun(self, detached: bool) -> _Begun | None:
        """What has begun, where it is of use: others may have started or renamed the
        container meanwhile."""
        begun, self._begun = self._begun, None
        if begun is None:
            return None
        wanted = self._new_launch(begun.spec, detached).bundle
        fresh = self.status is ContainerStatus.CONFIGURED and begun.launch.bundle == wanted
        if fresh and begun.launch.waits():
            return begun
        begun.launch.close()
        return None

    def _drop_begun(self) -> None:
        begun, self._begun = self._begun, None
        if begun is not None:
            begun.launch.close()

    def _prepared(self, detached: bool) -> _Begun:
        """The same for a container of any age; nothing has begun."""
        self._check_whole()
        self.clear_unfinished()
        spec = self.record.config.spec
        return _Begun(self._new_launch(spec, detached), spec)

    def _check_whole(self) -> None:
        """A removal that was cut short has left a record and little else."""
        if not os.path.isdir(self.record.config.static_dir):
            raise ContainerStateInvalid(
                f"container {self.id} has been removed in part: its directory is gone",
                container_id=self.id,
                remedy="remove it",
            )
        os.makedirs(self.record.state.run_dir, mode=0o700, exist_ok=True)

    def _finished(self, spec: dict[str, Any]) -> dict[str, Any]:
        """What goes into config.json."""
        finished, self.record.state.bind_mounts = assemble.assemble(self.engine, self.record, spec)
        reach("init.mounted")
        return finished

    def _note_created(self, launched: Launch) -> None:
        state = self.record.state
        state.status = ContainerStatus.CREATED
        state.config_path = f"{launched.bundle.directory}/config.json"
        state.mounted = True
        state.mount_point = self.record.config.rootfs
        state.pid = launched.pid
        state.conmon_pid = launched.monitor_pid
        state.exit_code = 0
        state.exited = state.oom_killed = state.stopped_by_user = False
        state.started = state.finished = None

    def _undo_init(self, launched: Launch, before: ContainerState) -> None:
        launched.abandon()
        self.unmount()
        self.engine.owners.disclaim(self.id)
        saved = self.record.state.status is ContainerStatus.CREATED
        self.launch = None
        self._owned = False
        self.record.state = before
        if saved:  # perhaps, so that nobody takes it for created
            with suppress(NoSuchContainer, ContainerRemoved):
                self.save()

    def start(self) -> None:
        """Starts the command of a created container.  One whose start failed is of no use:
        it is ended, and the caller has the error."""
        try:
            launched = self.running()
            with self._unless_ended(launched):
                launched.start()
        except BaseException:
            self.end(self.watched(), 0, None)
            self.sync()
            raise
        reach("start.started")
        self.record.state.started = time.time_ns()
        self.record.state.status = ContainerStatus.RUNNING
        self.save()
        reach("start.saved")
        if self._to_disclaim:  # so far it said that this process was at work
            self._to_disclaim = False
            self.engine.owners.disclaim(self.id)

    def end(self, launched: Launch, grace: float, stop_signal: int | None) -> None:
        """The stop signal, the grace, then SIGKILL; returns when the exit is final.  Needs
        no lock."""
        if grace > 0 and stop_signal is not None:
            launched.await_command()
            signalled = launched.send_signal(stop_signal)
            reach("stop.signalled")
            if signalled and launched.ended.wait(grace):
                return
            log.debug("container %s did not end within %g s", self.id, grace)
        none_left = launched.kill_all()
        reach("stop.killed")
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

    def pause(self, launched: Launch) -> None:
        """Freezes it.  runc takes a process that is becoming the command for one that has
        ended, so that is waited for."""
        launched.await_command()
        with self._unless_ended(launched):
            self.oci.pause(self.id)
        reach("pause.paused")
        self.record.state.status = ContainerStatus.PAUSED
        self.save()
        reach("pause.saved")

    def unpause(self, launched: Launch) -> None:
        """Thaws it; it may end while it is frozen."""
        with self._unless_ended(launched):
            self.oci.resume(self.id)
        reach("unpause.resumed")
        self.record.state.status = ContainerStatus.RUNNING
        self.save()
        reach("unpause.saved")

    @contextmanager
    def _unless_ended(self, launched: Launch) -> Iterator[None]:
        """The OCI runtime's complaint about a container that has ended just now, perhaps by
        another process's hand, is `ContainerStateInvalid`: nothing is wrong with the host."""
        try:
            yield
        except OCIRuntimeFailed as error:
            if type(error) is not OCIRuntimeFailed or launched.has_process():
                raise
            raise ContainerStateInvalid(
                f"container {self.id} has ended just now",
                container_id=self.id,
                phase=error.phase,
                detail=error.detail,
                remedy="look at its exit code",
            ) from error

    # --- its end -----------------------------------------------------------------------

    def release(self, ended: Exit | None = None) -> None:
        """Gives back what an ended container held, and records its end."""
        launched = self._give_back(ended)
        self.save(self.record.state.exit_code)
        reach("exit.saved")
        # One that is to go now stays claimed until it has: whoever inherits removes it.
        self._let_go(disclaim=not (self._owned and self.remove_at_end))
        launched.forget_files()
        reach("exit.forgotten")
        self.engine.prune_exit_codes()

    def reap(self) -> None:
        """Gives back what a container held that has ended and is to go, and removes it:
        the record of its end would be gone with the next step."""
        ended = self._find_exit() if self.status in LIVE else None
        if self.status is ContainerStatus.EXITED:
            self._let_go()
            self.remove()
            return
        self.remove(self._give_back(ended))
        self._let_go()

    def _give_back(self, ended: Exit | None) -> Launch:
        launched = self.running()
        lost = (ended.code if ended else self.record.state.exit_code) == LOST
        self.usage, oom_killed = launched.release(lost)
        reach("exit.released")
        if ended is not None:
            self._note_exit(ended)
        self.unmount()
        reach("exit.unmounted")
        state = self.record.state
        state.status = ContainerStatus.EXITED
        state.oom_killed = oom_killed or state.oom_killed
        state.mounted = False
        state.mount_point = ""
        return launched

    def forget(self) -> None:
        self._let_go()

    def _let_go(self, disclaim: bool = True) -> None:
        """This process has nothing to do with its processes any more."""
        launched, self.launch = self.launch, None
        if launched is not None:
            launched.close()
        self._drop_begun()
        self._owned = False
        if disclaim:
            self.engine.owners.disclaim(self.id)

    def rename(self, name: str) -> None:
        """Gives it another name, in the state and in the container store, whose locks are
        held meanwhile.  Cut short between the two, it can be done again."""

        def record() -> None:
            self.engine.state.rename_container(self.record, name)
            self.name = self.record.name
            reach("rename.recorded")

        try:
            self.engine.store.rename_container(self.id, name, record)
        except DuplicateName as error:
            raise ContainerExists(
                f'the container name "{name}" is in use by {error.container_id}',
                container_id=self.id,
                remedy="choose another name, or remove that container",
            ) from error
        reach("rename.stored")

    def unmount(self) -> None:
        """Unmounts what was mounted for it on the host; once more is no error."""
        for path in self.record.config.mounts:
            if not os.path.lexists(path):
                continue  # made by whoever mounts it
            try:
                self.engine.host.unmount(path)
            except SystemCallError as error:
                log.warning("container %s: %s", self.id, error)

    def remove(self, ended: Launch | None = None) -> None:
        """Removes one that does not run, with all its files; the lock is gone after.

        `ended` is a launch that was given back and whose files go as well, after the record
        that needs them; without it what a creation that was cut short may have left is looked for.
        Where the removal is cut short, it can be done again.
        """
        engine = self.engine
        self.check_unneeded()
        reach("remove.begun")
        if ended is None:
            self.clear_unfinished()
            self.unmount()
        reach("remove.unmounted")
        with suppress(NoSuchStorageContainer):  # by podman, or at our last attempt
            engine.store.delete_container(self.id)
        reach("remove.stored")
        try:
            self._remove_record()
            reach("remove.forgotten")
            self._forget_id(ended)
        except BaseException:
            # Nobody can do again what an interrupt cuts short after the record is gone.
            if not engine.state.has_container(self.id):
                self._forget_id(ended)
            raise
        reach("remove.unlocked")
        self.removed = True

    def check_unneeded(self) -> None:
        """Raises `ContainerExists` where other containers depend on it."""
        dependents = self.engine.state.container_in_use(self.record)
        if dependents:
            raise ContainerExists(
                f"container {self.id} has dependent containers which must be removed before it: "
                + ", ".join(dependents),
                container_id=self.id,
                remedy="remove those first",
            )

    def _forget_id(self, ended: Launch | None) -> None:
        """Gives back what there is beside the record; the lock, which tells others that
        somebody is at work here, at last.  Once more is no error."""
        if ended is not None:
            ended.forget_files()
            reach("reap.forgotten")
        self.engine.owners.disclaim(self.id)
        reach("remove.disclaimed")
        if self._lock is not None:
            with suppress(LockGone):
                self._lock.free()

    def clear_unfinished(self) -> None:
        """Ends what an `init` that was cut short, or never came, has left; none may be going
        on."""
        self._drop_begun()
        launched = Launch(self.engine, self.bundle(), self.oci)
        launched.clear_unfinished(self.engine.owners.orphaned(self.id))

    def _remove_record(self) -> None:
        state = self.engine.state
        if self.record.pod_id:
            state.remove_container_from_pod(state.pod(self.record.pod_id), self.record)
        else:
            state.remove_container(self.record)

    def close(self) -> None:
        """Closes the lock of a container that was removed."""
        if self._lock is not None:
            self._lock.close()

    # --- watching ----------------------------------------------------------------------

    def _on_exit(self) -> None:
        """In the watching thread: nothing that waits."""
        if self._owned and not self.attended:
            self.engine.releaser.submit(self.settle)

    def settle(self, timeout: float | None = None) -> None:
        """Clears up after an exit that nobody waits for."""
        with suppress(ContainerRemoved, RuntimeStopped):
            with self.locked(timeout):
                remove = self.status is ContainerStatus.EXITED and self.remove_at_end
                if remove:
                    self.remove()
            if remove:
                self.close()

    def finish(self, remove: bool) -> None:
        """Clears up after one that has ended, and removes it if that is wanted.

        Raises `ContainerStateInvalid` while it runs.
        """
        with self.locked():
            if self.status in LIVE:
                raise ContainerStateInvalid(
                    f"container {self.id} is {self.status}, refusing to clean up",
                    container_id=self.id,
                    remedy="stop it first",
                )
            if self.status is ContainerStatus.STOPPED:
                self.release()
            if remove:
                self.remove()
        if remove:
            self.close()

    def take_over(self) -> None:
        """Makes this process the one in charge; it has the claim of one that died."""
        self._owned = True
        # Whoever closes the runtime meanwhile leaves it to the next one.
        with suppress(ContainerRemoved, RuntimeStopped, Closed):
            with self.locked():
                if self.status in LIVE:
                    self.watched()
                    return
                # Perhaps in the middle of its creation.
                self.clear_unfinished()
                self.unmount()
                self._let_go()
                if self.remove_at_end:
                    self.remove()
            if self.removed:
                self.close()


def is_monitor(pid: int, container_id: str) -> bool:
    """Whether a process is there and is the container's monitor."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return container_id.encode() in file.read().split(b"\0")
    except OSError:
        return False
