# SPDX-License-Identifier: Apache-2.0
"""What a container is and how it stands: the side of `Container` that changes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from libpod.cgroup import Usage
from libpod.errors import ContainerStopped, InvalidArgument
from libpod.life import Life
from libpod.state.records import ContainerStatus as Status
from libpod.storage.errors import NoSuchStorageContainer

if TYPE_CHECKING:
    from libpod.engine import Engine
    from libpod.inspect.memo import Memo
    from libpod.locks import ObjectLock
    from libpod.state.handles import ContainerRecord
    from libpod.storage import StorageContainer


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


class ContainerFacts:
    """A container as it can be looked at; see `libpod.container.Container`."""

    def __init__(
        self, engine: Engine, record: ContainerRecord, lock: ObjectLock | None = None
    ) -> None:
        self._life = Life(engine, record, lock)
        self._engine = engine
        self._batched = False
        self._listed: ContainerRecord | None = None
        self._stored: StorageContainer | None = None
        self._shown: Memo | None = None

    @property
    def record(self) -> ContainerRecord:
        """What the state has of it, as this object read it last; for reading only."""
        return self._life.record

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self.record.id

    @property
    def name(self) -> str:
        return self._life.name

    @property
    def namespace(self) -> str:
        """libpod's own, "" where it is in none."""
        return self.record.namespace

    @property
    def pod_id(self) -> str:
        """ "" outside a pod."""
        return self.record.pod_id

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.record.config.labels)

    @property
    def spec(self) -> dict[str, Any]:
        """A copy of the OCI runtime spec that it was made from."""
        return self.record.config.spec

    @property
    def created(self) -> float:
        """Seconds since the epoch."""
        return (self.record.config.created or 0) / 1e9

    @property
    def log_path(self) -> str:
        """conmon's log of both streams, in the k8s-file format."""
        return self.record.config.log_path

    @property
    def dependencies(self) -> list[str]:
        """IDs of all containers that it needs, each once."""
        return self.record.config.depends_on

    @property
    def hostname(self) -> str:
        """The spec's, else the first twelve characters of the ID."""
        return self.spec.get("hostname") or self.id[:12]

    @property
    def cgroup_path(self) -> str:
        """Its cgroup, absolute inside the hierarchies."""
        return self._life.cgroup

    @property
    def runtime_name(self) -> str:
        """The OCI runtime that it was made for."""
        return self.record.config.oci_runtime

    @property
    def state(self) -> ContainerState:
        """How it stands now."""
        return state_of(self._current())

    def glance(self) -> ContainerState:
        """`state`, but what a list has just read is not read again."""
        return state_of(self._current(self._listed))

    def _current(self, read: ContainerRecord | None = None) -> ContainerRecord:
        """What holds now; `read` is what was just read.  The lock is taken only where
        something has happened that nobody has recorded."""
        self._listed = None
        if self._batched:
            return self.record
        self._life.check_process()
        read = read or self._life.peek()
        if self._life.is_settled(read):
            return read
        with self._life.locked():
            read.state = self.record.state.but()
            return read

    @property
    def usage(self) -> Usage:
        """What it has consumed: so far while it runs, at its end afterwards, as far as
        this process has seen that."""
        with self._locked():
            if self._is(Status.RUNNING, Status.PAUSED, Status.STOPPING):
                return self._life.running().usage()
            return self._life.usage

    def inspect(self, size: bool = False) -> dict[str, Any]:
        """All that is known of it, as `podman inspect` shows it.  `size` adds the bytes of
        its root file system, which are counted."""
        from libpod import inspect

        engine = self._engine
        record = self._current()
        if self._stored is None:  # its layer stays the same
            with suppress(NoSuchStorageContainer):
                self._stored = engine.store.container(self.id)

        def data() -> dict[str, Any]:
            return inspect.container_data(
                record,
                paths=engine.paths,
                oci_path=engine.oci.path,
                storage=self._stored,
                size=inspect.Size(tree_size(record.config.rootfs)) if size else None,
            )

        if self._shown is None:
            self._shown = inspect.Memo()
        asked_anew = size or self._stored is None  # the store may know it next time
        shown = data() if asked_anew else self._shown.ask(record, data)
        self.record.recall(record)  # what was decoded serves the next time, too
        return shown

    def namespace_path(self, kind: str) -> str:
        """The file of one of its namespaces: "cgroup", "ipc", "mnt", "net", "pid", "user"
        or "uts".

        Raises `InvalidArgument`, and `ContainerStopped` unless it runs or is paused.
        """
        if kind not in ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts"):
            raise InvalidArgument(f"there is no namespace {kind!r}")
        state = self.state
        if state.status not in (Status.RUNNING, Status.PAUSED):
            raise ContainerStopped(
                f"cannot get namespace path as container {self.id} is {state.status}",
                container_id=self.id,
            )
        return f"/proc/{state.pid}/ns/{kind}"

    def __repr__(self) -> str:
        return f"<Container {self.name} {self.id[:12]} {self._life.status}>"

    # --- artifacts: small files that are kept with it ---------------------------------

    def add_artifact(self, name: str, data: bytes) -> None:
        """Keeps `data` under this name, mode 0740.  Raises `InvalidArgument` for a name that
        is no file name, `ContainerRemoved`, `SystemCallError`."""
        from libpod import artifacts

        artifacts.write(self._artifacts(), name, data)

    def get_artifact(self, name: str) -> bytes:
        """What was kept.  Raises `SystemCallError` (ENOENT), `ContainerRemoved`."""
        from libpod import artifacts

        return artifacts.read(self._artifacts(), name)

    def remove_artifact(self, name: str) -> None:
        """Forgets it.  Raises as `get_artifact`."""
        from libpod import artifacts

        artifacts.remove(self._artifacts(), name)

    def _artifacts(self) -> str:
        self._life.check_process()
        return f"{self.record.config.static_dir}/artifacts"

    # --- inside -------------------------------------------------------------------

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if self._batched:
            yield
        else:
            with self._life.locked():
                yield

    def _is(self, *statuses: Status) -> bool:
        return self._life.status in statuses


def state_of(record: ContainerRecord) -> ContainerState:
    state = record.state
    return ContainerState(
        state.status,
        state.pid,
        state.exit_code,
        state.oom_killed,
        None if state.started is None else state.started / 1e9,
        None if state.finished is None else state.finished / 1e9,
    )


def tree_size(path: str) -> int:
    """Bytes of the regular files below a directory."""
    total = 0
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                total += tree_size(entry.path)
            elif entry.is_file(follow_symlinks=False):
                total += entry.stat(follow_symlinks=False).st_size
    return total
