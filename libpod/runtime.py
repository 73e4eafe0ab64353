# SPDX-License-Identifier: Apache-2.0
"""The runtime: open it, launch containers with it, look them up, shut it down."""

from __future__ import annotations

import copy
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from libpod import config as configuration
from libpod import foreground, names, rundir, spec
from libpod.container import STOP_TIMEOUT, Container, ContainerConfig, Status
from libpod.errors import (
    ContainerRemoved,
    InvalidArgument,
    LibpodError,
    NoSuchContainer,
    NotBuilt,
    RuntimeStopped,
    SystemCallError,
    UsedAfterFork,
)
from libpod.host import Host
from libpod.job import Spec, parse_cgroup_parent, parse_signal
from libpod.launch import Engine, remove_tree
from libpod.lockfile import LockFile, RecordLock
from libpod.oci import Bundle, OCIRuntime, find_binary, find_runtime
from libpod.result import Result
from libpod.settings import SYSTEMD, RuntimeConfig, StateType
from libpod.state.live import LiveContainers

if TYPE_CHECKING:
    from libpod.doctor import Problem
    from libpod.info import InfoData

log = logging.getLogger("libpod.runtime")

ALIVE_TIMEOUT = 60.0
"""Seconds to wait for another process that is opening the same directories."""

CGROUP_PARENT = "/libpod-core"
"""The parent of all containers' cgroups in private directories.  It and the monitors'
cgroup below it stay, empty: removing them would fail whoever makes one just then."""

PODMAN_CGROUP_PARENT = "/libpod_parent"
"""The same for directories shared with podman (CgroupfsDefaultCgroupParent)."""

DEFAULT_GRACE = 10.0
"""Seconds between the end of a job's time and SIGKILL."""


class Runtime:
    """A container engine on this host, in this process.

    Options are the original's runtime options as keywords (see
    `libpod.config.apply_options`): `oci_runtime`, `conmon_path`, `static_dir`,
    `tmp_dir`, `cgroup_manager`, ...; a later one wins over an earlier one and
    over the configuration file.  It opens in the original's order: OCI runtime
    and conmon, directories, state, the lock against a second opener, refresh
    after a reboot.

    Safe to use from many threads; in a forked child every call raises
    `UsedAfterFork`.  Leaving the block shuts it down.  Containers are known to
    this process only so far, so what it still has then is stopped and removed.

    Raises `ConfigError`, `InvalidArgument`, `NotBuilt`, `Unsupported`,
    `RuntimeDirError`, `LockTimeout`.
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
        _check_built(config, options)
        configuration.export_runtime_dir(os.environ, os.getuid())
        self._owner = os.getpid()
        self._valid = False
        self._config = config
        self._lock = threading.Lock()
        self._host = Host()
        oci_path = find_runtime(self._host.cgroups, config.runtime_path)
        conmon_path = find_binary("conmon", config.conmon_path)
        directories = configuration.resolve_defaults(config, os.environ, os.getuid(), options)
        self._static_dir = directories.static_dir
        self._tmp_dir = directories.tmp_dir
        rundir.make_tree(self._tmp_dir, self._static_dir)
        rundir.make_dir(f"{self._static_dir}/containers", 0o700)
        rundir.make_dir(f"{self._tmp_dir}/containers", 0o700)
        oci = OCIRuntime(
            self._host,
            path=oci_path,
            conmon_path=conmon_path,
            conmon_env=config.conmon_env_vars,
            tmp_dir=self._tmp_dir,
            no_pivot_root=config.no_pivot_root,
        )
        self._cgroup_parent = PODMAN_CGROUP_PARENT if config.share else CGROUP_PARENT
        self._state = LiveContainers[Container]()
        alive = RecordLock(f"{self._tmp_dir}/alive.lck")
        try:
            with alive.held(ALIVE_TIMEOUT):
                if not os.path.exists(f"{self._tmp_dir}/alive"):
                    self._refresh()
        finally:
            alive.close()
        self._engine = Engine(self._host, oci)
        self._valid = True

    def _refresh(self) -> None:
        """After a reboot.  A state in memory has nothing to bring up to date, so this
        makes the file that tells the next opener that it was done."""
        path = f"{self._tmp_dir}/alive"
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644))
        except OSError as error:
            raise SystemCallError(
                f"error creating runtime status file {path}: {error.strerror}", error.errno or 0
            ) from error

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
        stdin = job.stdin or bool(input)
        container = self._create(job, command, name, stdin=stdin)
        return foreground.run(
            container,
            data=(input or b"") if stdin else None,
            timeout=timeout,
            grace=grace,
            output_limit=job.limits.output,
            key=job.key,
            phases={"prepare": time.monotonic() - began},
        )

    def create(
        self, job: Spec, command: Sequence[str] | None = None, *, name: str | None = None
    ) -> Container:
        """A configured container for a job, not started."""
        return self._create(job, command, name, stdin=job.stdin)

    def start(
        self, job: Spec, command: Sequence[str] | None = None, *, name: str | None = None
    ) -> Container:
        """A running container; use it in a `with` block to have it removed at its end."""
        container = self.create(job, command, name=name)
        try:
            container.start()
        except BaseException:
            container.remove(force=True)
            raise
        return container

    def doctor(self) -> list[Problem]:
        """What is wrong with this host or configuration, and what to do about it."""
        from libpod import doctor

        self._check()
        return doctor.examine(self._config, self._tmp_dir, self._static_dir)

    def run_many(self, specs: Iterable[Spec], **options: Any) -> NoReturn:
        """Many jobs at once: not built yet."""
        raise NotBuilt("run_many is not built yet", remedy="call run from a few threads")

    def pool(self, job: Spec, size: int) -> NoReturn:
        """Containers created ahead: not built yet."""
        raise NotBuilt("pool is not built yet", remedy="use run or start")

    def events(self, **options: Any) -> NoReturn:
        """What happens to containers: not built yet."""
        raise NotBuilt("events is not built yet")

    def audit(self) -> NoReturn:
        """What nobody owns: not built yet."""
        raise NotBuilt("audit is not built yet")

    # --- the lower layer: the original's methods ---------------------------------------

    def new_container(
        self,
        oci_spec: Mapping[str, Any],
        *,
        rootfs: str | None = None,
        name: str | None = None,
        stdin: bool = False,
        labels: Mapping[str, str] | None = None,
        stop_signal: int | str = "TERM",
        stop_timeout: float = STOP_TIMEOUT,
        log_size_max: int | None = None,
        cgroup_parent: str | None = None,
    ) -> Container:
        """A configured container from an OCI runtime spec, which is copied.

        `rootfs` replaces the spec's root path.  `stop_timeout` is in seconds,
        `log_size_max` in bytes (None: the configured one).  Raises `InvalidArgument`
        (no spec, no root file system), `ContainerExists` (name taken).
        """
        if not oci_spec:
            raise InvalidArgument("must provide a valid runtime spec to create container")
        kept = copy.deepcopy(dict(oci_spec))
        if rootfs is not None:
            kept.setdefault("root", {})["path"] = os.path.abspath(rootfs)
        root = kept.get("root", {}).get("path", "")
        if not os.path.isdir(root):
            raise InvalidArgument(
                f"error checking path {root!r}: the root file system is not a directory",
                remedy="name a directory that holds one",
            )
        return self._new_container(
            lambda container_id, chosen, cgroup, created: kept,
            name,
            cgroup_parent=None if cgroup_parent is None else parse_cgroup_parent(cgroup_parent),
            stdin=stdin,
            labels=labels or {},
            stop_signal=parse_signal(stop_signal),
            stop_timeout=stop_timeout,
            log_size_max=log_size_max,
        )

    def remove_container(self, container: Container, force: bool = False) -> None:
        """Removes a container and its files; `force` stops a running one first.

        Raises `ContainerStateInvalid` where it runs (without `force`) or is paused.
        One that is gone already is no error, as in the original.
        """
        self._check()
        try:
            container.remove_under_lock(force)
        except ContainerRemoved:
            return
        try:
            self._state.remove_container(container)
        except NoSuchContainer:
            log.debug("container %s was not in the state", container.id)

    def get_container(self, container_id: str) -> Container:
        """By full ID.  Raises `EmptyID`, `NoSuchContainer`."""
        self._check()
        return self._state.container(container_id)

    def lookup_container(self, id_or_name: str) -> Container:
        """By full ID, unique beginning of an ID, or name.

        Raises `EmptyID`, `NoSuchContainer`, and `ContainerExists` where more than
        one container matches.
        """
        self._check()
        return self._state.lookup_container(id_or_name)

    def has_container(self, container_id: str) -> bool:
        """Whether there is a container with this full ID."""
        try:
            self.get_container(container_id)
        except NoSuchContainer:
            return False
        return True

    def get_containers(self, *filters: Callable[[Container], bool]) -> list[Container]:
        """The containers for which all filters hold."""
        self._check()
        return [c for c in self._state.all_containers() if all(f(c) for f in filters)]

    def get_config(self) -> RuntimeConfig | None:
        """A copy of the configuration; None once it is shut down."""
        return self._config.copy() if self._valid else None

    def info(self) -> list[InfoData]:
        """What this host and this runtime are."""
        from libpod import info

        self._check()
        return info.collect(self._engine.oci)

    def shutdown(self, force: bool = False) -> None:
        """Ends this object.  `force` stops (10 s, then SIGKILL) and removes its
        containers first; without it they go on under conmon.

        Raises `RuntimeStopped` where that was done before.
        """
        with self._lock:
            self._check()
            self._valid = False
        if force:
            for container in self._state.all_containers():
                self._shut_down(container)
        self._engine.close()
        self._state.close()

    def _shut_down(self, container: Container) -> None:
        try:
            if container.state.status is Status.PAUSED:
                container.unpause()
            container.remove_under_lock(force=True)
        except ContainerRemoved:
            return
        except LibpodError as error:
            log.error("error stopping container %s: %s", container.id, error)

    def close(self) -> None:
        """`shutdown`, once; with force, since nobody could find its containers after."""
        if self._valid and self._owner == os.getpid():
            self.shutdown(force=True)

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

    def _create(
        self, job: Spec, command: Sequence[str] | None, name: str | None, *, stdin: bool
    ) -> Container:
        limit = job.limits.output
        return self._new_container(
            lambda container_id, chosen, cgroup, created: spec.generate(
                job,
                command,
                container_id=container_id,
                name=chosen,
                cgroup_path=cgroup,
                cgroups=self._host.cgroup_facts,
                rlimits=self._host.hard_limits(),
                bounding=self._host.capabilities,
                created_ns=int(created * 1e9),
            ),
            name or job.name,
            cgroup_parent=job.cgroup_parent,
            stdin=stdin,
            labels=job.labels,
            stop_signal=parse_signal(job.stop_signal or "TERM"),
            stop_timeout=STOP_TIMEOUT,
            log_size_max=limit,
        )

    def _new_container(
        self,
        make_spec: Callable[[str, str, str, float], dict[str, Any]],
        name: str | None,
        *,
        cgroup_parent: str | None,
        stdin: bool,
        labels: Mapping[str, str],
        stop_signal: int,
        stop_timeout: float,
        log_size_max: int | None,
    ) -> Container:
        self._check()
        if name is not None and not names.valid_name(name):
            raise InvalidArgument(
                f"the name {name!r} is not valid",
                remedy="begin with a letter or digit, go on with these, dots, dashes, underscores",
            )
        container_id = names.new_id()
        chosen = name or names.unique_name(self._name_is_taken)
        created = time.time()
        parent = cgroup_parent or self._cgroup_parent
        cgroup = f"{parent}/libpod-{container_id}"
        oci_spec = make_spec(container_id, chosen, cgroup, created)
        oci_spec.setdefault("linux", {})["cgroupsPath"] = cgroup
        directory = f"{self._static_dir}/containers/{container_id}"
        bundle = Bundle(
            container_id=container_id,
            name=chosen,
            directory=directory,
            run_dir=f"{self._tmp_dir}/containers/{container_id}",
            cgroup=cgroup,
            conmon_cgroup=f"{parent}/conmon",
            log_path=f"{directory}/ctr.log",
            log_size_max=self._config.max_log_size if log_size_max is None else log_size_max,
            terminal=bool(oci_spec.get("process", {}).get("terminal")),
            stdin=stdin,
        )
        return self._register(
            ContainerConfig(
                id=container_id,
                name=chosen,
                spec=oci_spec,
                bundle=bundle,
                stop_signal=stop_signal,
                stop_timeout=stop_timeout,
                labels=dict(labels),
                created=created,
            )
        )

    def _register(self, config: ContainerConfig) -> Container:
        """Gives the container its directory, its lock and its place in the state.

        An interrupt may come at any moment, so what was made is undone by its
        path; nobody else knows the ID yet.
        """
        directory = config.bundle.directory
        lock_path = f"{self._tmp_dir}/lock/{config.id}"
        lock: LockFile | None = None
        try:
            _make_directory(directory)
            lock = LockFile.create(lock_path)
            container = Container(self._engine, config, lock, self.remove_container)
            self._state.add_container(container)
            return container
        except BaseException:
            if lock is not None:  # the error's traceback may keep it for long
                lock.close()
            with suppress(FileNotFoundError):
                os.unlink(lock_path)
            remove_tree(directory)
            raise

    def _name_is_taken(self, name: str) -> bool:
        try:
            self._state.lookup_container(name)
        except NoSuchContainer:
            return False
        return True


def _make_directory(path: str) -> None:
    try:
        os.mkdir(path, 0o700)
    except OSError as error:
        raise SystemCallError(
            f"cannot make the container's directory {path}: {error.strerror}",
            error.errno or 0,
            phase="prepare",
            remedy="check the space and the permissions of the file system",
        ) from error


@cache
def _tell_systemd(level: int) -> None:
    """Once a process: Debian's podman ships a file that says so, and it must not keep us
    from working."""
    log.log(level, "cgroup_manager: systemd is not built yet, cgroups are made by cgroupfs")


def _check_built(config: RuntimeConfig, options: Mapping[str, Any]) -> None:
    """Refuses what is asked for but is not there yet."""
    if config.state_type is StateType.SQLITE:
        raise InvalidArgument("SQLite state is currently disabled")
    if config.state_type is StateType.BOLTDB:
        raise NotBuilt("the BoltDB state is not built yet", remedy="leave state_type alone")
    if config.state_type is not StateType.IN_MEMORY:
        raise InvalidArgument("unrecognized state type passed")
    if config.cgroup_manager == SYSTEMD:
        if "cgroup_manager" in options:
            raise NotBuilt(
                "the systemd cgroup manager is not built yet",
                remedy='use cgroup_manager="cgroupfs"',
            )
        _tell_systemd(logging.INFO if config.of_host else logging.WARNING)
    if config.share is not None:
        raise NotBuilt("sharing with podman is not built yet", remedy="leave share alone")
