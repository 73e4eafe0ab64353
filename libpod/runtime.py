# SPDX-License-Identifier: Apache-2.0
"""The runtime: open it, launch containers with it, look them up, shut it down."""

from __future__ import annotations

import copy
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn
from weakref import WeakValueDictionary

from libpod import config as configuration
from libpod import creation, foreground, names, options, refresh, spec
from libpod.container import STOP_TIMEOUT, Container, Status
from libpod.errors import (
    ContainerRemoved,
    ContainerStopped,
    InvalidArgument,
    LibpodError,
    NoSuchContainer,
    NotBuilt,
    RuntimeStopped,
    UsedAfterFork,
)
from libpod.job import Spec
from libpod.opening import open_engine
from libpod.result import Result
from libpod.settings import RuntimeConfig, StateType

if TYPE_CHECKING:
    from libpod.audit import Leak
    from libpod.doctor import Problem
    from libpod.engine import Engine
    from libpod.info import InfoData
    from libpod.locks import LockManager
    from libpod.state import State
    from libpod.state.handles import ContainerRecord
    from libpod.state.paths import RuntimePaths
    from libpod.storage import Store

log = logging.getLogger("libpod.runtime")

DEFAULT_GRACE = 10.0
"""Seconds between the end of a job's time and SIGKILL."""


class Runtime:
    """A container engine on this host, in this process.

    Options are the original's runtime options as keywords (see
    `libpod.config.apply_options`): `oci_runtime`, `conmon_path`, `static_dir`,
    `tmp_dir`, `cgroup_manager`, ...; a later one wins over an earlier one and
    over the configuration file.  `libpod.opening` says in which order it opens.

    Containers are recorded in its directories, where other processes find them.
    Of those that were started in this process, attached, it is in charge while it
    is open; they go on when it is closed, and the next runtime on the same
    directories takes them over.  With a state in memory nobody could find them, so
    they are stopped and removed.

    Safe to use from many threads; in a forked child every call raises
    `UsedAfterFork`.  Leaving the block closes it.

    Raises `ConfigError`, `InvalidArgument`, `NotBuilt`, `Unsupported`,
    `RuntimeDirError`, `LockTimeout`, `DBBadConfig`, `libpod.kv.InvalidDatabase`.
    """

    def __init__(self, **options: Any) -> None:
        self._open(configuration.load(), options)

    @classmethod
    def from_config(cls, path: str, **options: Any) -> Runtime:
        """A runtime from this file alone, without the built-in defaults (the
        original's NewRuntimeFromConfig).  Raises `ConfigError` where it cannot be
        read."""
        runtime = cls.__new__(cls)
        runtime._open(configuration.from_config(path), options)
        return runtime

    def _open(self, config: RuntimeConfig, options: Mapping[str, Any]) -> None:
        configuration.apply_options(config, options)
        self._owner = os.getpid()
        self._valid = False
        self._config = config
        self._lock = threading.Lock()
        self._known = WeakValueDictionary[str, Container]()
        self._engine = open_engine(config, options)
        self._valid = True
        self._take_over()

    def _take_over(self) -> None:
        """Becomes the one in charge of containers whose runtime has died."""
        for container_id in self._engine.owners.inherit():
            try:
                container = self.get_container(container_id)
            except LibpodError as error:
                log.debug("nothing to take over of %s: %s", container_id, error)
                self._engine.owners.disclaim(container_id)
                continue
            log.info("container %s is taken over from a process that died", container_id)
            self._engine.releaser.submit(container.take_over)

    # --- what is below, for the rooms above --------------------------------------------

    @property
    def engine(self) -> Engine:
        return self._engine

    @property
    def state(self) -> State:
        return self._engine.state

    @property
    def store(self) -> Store:
        return self._engine.store

    @property
    def locks(self) -> LockManager:
        return self._engine.locks

    @property
    def paths(self) -> RuntimePaths:
        """The directories that hold, see `libpod.state.paths`."""
        return self._engine.paths

    # --- the upper layer ------------------------------------------------------------

    def run(
        self,
        job: Spec,
        command: Sequence[str] | None = None,
        *,
        input: bytes | None = None,
        timeout: float | None = None,
        grace: float = DEFAULT_GRACE,
        name: str | None = None,
    ) -> Result:
        """Runs a job to its end and removes its container.

        `command` replaces the job's own.  `input` is its standard input; None is
        an empty one.  `timeout` (seconds) ends the work: the stop signal, `grace`
        seconds, then SIGKILL to all its processes; the result's reason says so.
        An exception that arrives meanwhile (Ctrl-C) ends and removes it, too, and
        goes on.

        How the job ends is the `Result`'s matter; raised is what keeps it from
        starting: `InvalidArgument`, `Unsupported`, `NotBuilt`, `CreateFailed`
        (`CommandNotFound`, `CommandNotExecutable`), `ConmonFailed`, ...
        """
        began = time.monotonic()
        foreground.check(input, timeout, grace)
        stdin = job.stdin or bool(input)
        container_id = names.new_id()
        try:
            container = self._create(
                job,
                command,
                name,
                stdin=stdin,
                remove=True,
                container_id=container_id,
                detach=False,
            )
            return foreground.run(
                container,
                data=(input or b"") if stdin else None,
                timeout=timeout,
                grace=grace,
                output_limit=job.limits.output,
                key=job.key,
                phases={"prepare": time.monotonic() - began},
            )
        except BaseException:
            self._undo(container_id)
            raise

    def create(
        self,
        job: Spec,
        command: Sequence[str] | None = None,
        *,
        name: str | None = None,
        remove: bool = False,
        container_id: str | None = None,
        **chosen: Any,
    ) -> Container:
        """A configured container for a job, not started.  `remove` has it go at its end,
        whoever sees that.  `container_id` (64 hexadecimal digits) is drawn where it is None;
        who draws it himself can find what an interrupt has lost.  The other keywords are
        those of `new_container`."""
        return self._create(
            job,
            command,
            name,
            stdin=job.stdin,
            remove=remove,
            members=options.members(chosen),
            container_id=container_id,
        )

    def start(
        self,
        job: Spec,
        command: Sequence[str] | None = None,
        *,
        name: str | None = None,
        remove: bool = False,
        detach: bool = False,
        **chosen: Any,
    ) -> Container:
        """A running container; use it in a `with` block to have it removed at its end.

        `remove` and the other keywords are those of `create`.  One that is detached is
        meant to outlive this process: its monitor clears it up.
        """
        members = options.members(chosen)
        container_id = names.new_id()
        try:
            container = self._create(
                job,
                command,
                name,
                stdin=job.stdin,
                remove=remove,
                members=members,
                container_id=container_id,
                detach=detach,
            )
            container.start(detach)
            return container
        except BaseException:
            self._undo(container_id)
            raise

    def doctor(self) -> list[Problem]:
        """What is wrong with this host or configuration, and what to do about it."""
        from libpod import doctor

        self._check()
        paths = self.paths
        return doctor.examine(self._config, paths.tmp_dir, paths.static_dir, paths.graph_root)

    def run_many(self, specs: Iterable[Spec], **options: Any) -> NoReturn:
        """Many jobs at once: not built yet."""
        raise NotBuilt("run_many is not built yet", remedy="call run from a few threads")

    def pool(self, job: Spec, size: int) -> NoReturn:
        """Containers created ahead: not built yet."""
        raise NotBuilt("pool is not built yet", remedy="use run or start")

    def events(self, **options: Any) -> NoReturn:
        """What happens to containers: not built yet."""
        raise NotBuilt("events is not built yet")

    def audit(self) -> list[Leak]:
        """What is in this runtime's directories, or was made from them, and belongs to nobody:
        see `libpod.audit`.  Changes nothing."""
        from libpod import audit

        self._check()
        return audit.audit(self._engine)

    def sweep(self) -> list[Leak]:
        """Clears what `audit` finds: what it cleared.  What cannot be cleared is logged and
        stays."""
        from libpod import audit

        self._check()
        return audit.sweep(self._engine, self._take_over)

    # --- the lower layer: the original's methods ---------------------------------------

    def new_container(
        self,
        oci_spec: Mapping[str, Any],
        *,
        rootfs: str | None = None,
        name: str | None = None,
        remove: bool = False,
        **chosen: Any,
    ) -> Container:
        """A configured container from an OCI runtime spec, which is copied.

        `rootfs` replaces the spec's root path; `remove` has the container go at its
        end.  The other keywords are the original's container options, see
        `libpod.options`: `stop_timeout` in seconds, `log_size_max` in bytes, ...

        Raises `InvalidArgument` (no spec, no root file system, an option's value),
        `ContainerExists` (name taken), `NotBuilt`.
        """
        self._check()
        if not oci_spec:
            raise InvalidArgument("must provide a valid runtime spec to create container")
        members = options.members(chosen)
        kept = copy.deepcopy(dict(oci_spec))
        if rootfs is not None:
            kept.setdefault("root", {})["path"] = os.path.abspath(rootfs)
        root = (kept.get("root") or {}).get("path", "")
        if not os.path.isdir(root):
            raise InvalidArgument(
                f"error checking path {root!r}: the root file system is not a directory",
                remedy="name a directory that holds one",
            )
        return self._add(lambda *_: kept, name, {**members, "rootfs": root}, remove)

    def remove_container(self, container: Container, force: bool = False) -> None:
        """Removes a container and its files; `force` stops a running one first.

        Raises as `Container.remove`.
        """
        self._check()
        container.remove(force)

    def get_container(self, container_id: str) -> Container:
        """By full ID.  Raises `EmptyID`, `NoSuchContainer`, `NamespaceMismatch`."""
        self._check()
        return self._object(self.state.container(container_id))

    def lookup_container(self, id_or_name: str) -> Container:
        """By full ID, unique beginning of an ID, or name.

        Raises `EmptyID`, `NoSuchContainer`, and `ContainerExists` where more than
        one container matches.
        """
        self._check()
        return self._object(self.state.lookup_container(id_or_name))

    def has_container(self, container_id: str) -> bool:
        """Whether there is a container with this full ID.  Raises `EmptyID`."""
        self._check()
        return self.state.has_container(container_id)

    def get_containers(self, *filters: Callable[[Container], bool]) -> list[Container]:
        """The containers for which all filters hold, in the order of their IDs."""
        self._check()
        found = map(self._object, self.state.all_containers())
        return [c for c in found if all(holds(c) for holds in filters)]

    def get_all_containers(self) -> list[Container]:
        """In the order of their IDs."""
        return self.get_containers()

    def get_running_containers(self) -> list[Container]:
        """Those that run just now."""
        return self.get_containers(_runs)

    def get_containers_by_list(self, names: Iterable[str]) -> list[Container]:
        """Those of these names or IDs, in this order.

        Raises what `lookup_container` does for the first that cannot be found.
        """
        return [self.lookup_container(name) for name in names]

    def get_latest_container(self) -> Container:
        """The one that was created last.  Raises `NoSuchContainer` where there is none."""
        found = self.get_containers()
        if not found:
            raise NoSuchContainer("no containers exist")
        return max(found, key=lambda c: c.created)

    def generate_name(self) -> str:
        """A random name that no container or pod has."""
        self._check()
        return names.unique_name(self._is_taken)

    def get_config(self) -> RuntimeConfig | None:
        """A copy of the configuration; None once it is shut down."""
        return self._config.copy() if self._valid else None

    def info(self) -> list[InfoData]:
        """What this host and this runtime are."""
        from libpod import info

        self._check()
        return info.collect(self._engine.oci, self.store, sharing=self._engine.sharing)

    def refresh(self) -> None:
        """Does what is done after a reboot: nothing is taken to run, or to be mounted.

        Only for when no container runs: one that did would be nobody's.
        """
        self._check()
        refresh.refresh(self.state, self.store, self.locks)

    def shutdown(self, force: bool = False) -> None:
        """Ends this object.  `force` stops (10 s, then SIGKILL) all containers first;
        without it they go on under conmon.

        Raises `RuntimeStopped` where that was done before.
        """
        with self._lock:
            self._check()
            self._valid = False
        if force:
            for record in self.state.all_containers():
                _stop(self._object(record))
        self._engine.close()

    def close(self) -> None:
        """`shutdown`, once.  Containers of a state in memory are removed, since nobody could
        find them after."""
        if not self._valid or self._owner != os.getpid():
            return
        if self._config.state_type is StateType.IN_MEMORY:
            for container in self.get_containers():
                _discard(container)
        self.shutdown()

    def __enter__(self) -> Runtime:
        self._check()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- inside ---------------------------------------------------------------------

    def _check(self) -> None:
        if self._owner != os.getpid():
            raise UsedAfterFork(
                "this runtime belongs to the parent process", remedy="open a new one"
            )
        if not self._valid:
            raise RuntimeStopped("runtime has already been stopped")

    def _object(self, record: ContainerRecord) -> Container:
        """The one object that this runtime has of a container."""
        with self._lock:
            known = self._known.get(record.id)
            if known is None:
                known = self._known[record.id] = Container(self._engine, record)
            known.listed(record)
            return known

    def _create(
        self,
        job: Spec,
        command: Sequence[str] | None,
        name: str | None,
        *,
        stdin: bool,
        remove: bool,
        members: Mapping[str, Any] = MappingProxyType({}),
        container_id: str | None = None,
        detach: bool | None = None,
    ) -> Container:
        """`detach` says how the caller starts it at once; None: he does not."""
        self._check()
        host = self._engine.host
        asked = {
            "labels": dict(job.labels),
            "stdin": stdin,
            "user": job.user or "",
            "privileged": job.privileged,
            "command": list((job.command if command is None else command) or ()),
            "entrypoint": list(job.entrypoint or ()),
            "network_mode": "" if job.network == "none" else job.network,
            "no_shm_share": True,
        }
        if job.stop_signal is not None:
            asked["stop_signal"] = job.stop_signal
        if job.cgroup_parent is not None:
            asked["cgroup_parent"] = job.cgroup_parent
        if job.limits.output is not None:
            asked["log_size"] = job.limits.output
        return self._add(
            lambda container_id, chosen, cgroup, created: spec.generate(
                job,
                command,
                container_id=container_id,
                name=chosen,
                cgroup_path=cgroup,
                cgroups=host.cgroup_facts,
                rlimits=host.hard_limits(),
                bounding=host.capabilities,
                created_ns=created,
            ),
            name or job.name,
            {**asked, **members},
            remove,
            container_id,
            detach,
        )

    def _add(
        self,
        make_spec: creation.MakeSpec,
        name: str | None,
        members: dict[str, Any],
        remove: bool,
        container_id: str | None = None,
        detach: bool | None = None,
    ) -> Container:
        container = creation.create(
            self._engine,
            make_spec,
            name,
            members,
            remove=remove,
            container_id=container_id,
            detach=detach,
        )
        with self._lock:
            self._known[container.id] = container
        return container

    def _undo(self, container_id: str) -> None:
        """Ends and removes what a call has made that fails, however far it came: by the ID,
        since an interrupt may have lost the object."""
        try:
            container = self.get_container(container_id)
        except (NoSuchContainer, RuntimeStopped):
            return
        container.kill_and_remove()

    def _is_taken(self, name: str) -> bool:
        return creation.is_taken(self._engine, name)


def _runs(container: Container) -> bool:
    try:
        return container.glance().status is Status.RUNNING
    except ContainerRemoved:
        return False


def _stop(container: Container) -> None:
    try:
        status = container.state.status
        if status is Status.PAUSED:
            container.unpause()
        if status in (Status.CREATED, Status.RUNNING, Status.PAUSED, Status.STOPPING):
            container.stop(STOP_TIMEOUT)
    except (ContainerRemoved, ContainerStopped):
        return
    except LibpodError as error:
        log.error("error stopping container %s: %s", container.id, error)


def _discard(container: Container) -> None:
    try:
        if container.state.status is Status.PAUSED:
            container.unpause()
        container.remove(force=True)
    except ContainerRemoved:
        return
    except LibpodError as error:
        log.error("error removing container %s: %s", container.id, error)
