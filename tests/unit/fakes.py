# SPDX-License-Identifier: Apache-2.0
"""A runtime without a host, for the command line: real records in a state in memory,
and containers that only change their records."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from libpod.container import ContainerState
from libpod.errors import ContainerRemoved, ContainerStateInvalid, ContainerStopped, NoSuchContainer
from libpod.names import new_id
from libpod.state.handles import ContainerRecord
from libpod.state.memory import MemoryState
from libpod.state.records import ContainerConfig, ContainerStatus
from libpod.storage import StorageContainer

Status = ContainerStatus
SECOND = 1_000_000_000
_SPEC: dict[str, Any] = {
    "process": {"args": ["true"], "env": [], "cwd": "/", "capabilities": {}},
    "root": {"path": "/r"},
    "linux": {"namespaces": []},
    "mounts": [{"source": "/data", "destination": "/inside"}],
}


class FakeContainer:
    """Does what a `Container` does to its record, and says which verbs were called."""

    def __init__(self, runtime: FakeRuntime, record: ContainerRecord) -> None:
        self.runtime = runtime
        self.record = record
        self.calls: list[tuple[Any, ...]] = []
        self.gone = False

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def spec(self) -> dict[str, Any]:
        return self.record.config.spec

    @property
    def state(self) -> ContainerState:
        if self.gone:
            raise ContainerRemoved(f"container {self.id} has already been removed")
        self.runtime.state.update_container(self.record)
        return self.glance()

    def glance(self) -> ContainerState:
        self.runtime.glances += 1
        state = self.record.state
        seconds = [t if t is None else t / SECOND for t in (state.started, state.finished)]
        return ContainerState(state.status, state.pid, state.exit_code, False, *seconds)

    def _call(self, verb: str, *args: Any) -> Status:
        self.calls.append((verb, *args))
        return self.state.status

    def _become(self, status: Status, **members: Any) -> None:
        for name, value in {"status": status, **members}.items():
            setattr(self.record.state, name, value)
        self.runtime.state.save_container(self.record)

    def _refuse(self, message: str) -> None:
        raise ContainerStateInvalid(f"{self.id}: {message}", container_id=self.id)

    def start(self, detach: bool = False) -> None:
        if self._call("start", detach) is Status.RUNNING:
            self._refuse("runs")
        self._become(Status.RUNNING, pid=1, started=time.time_ns())

    def stop(self, grace: float | None = None) -> None:
        status = self._call("stop", grace)
        if status is Status.EXITED:
            raise ContainerStopped(f"container {self.id} is already stopped")
        if status is not Status.RUNNING:
            self._refuse("can only stop created, running, or stopped containers")
        self._become(Status.EXITED, exit_code=143, pid=0, finished=time.time_ns())

    def restart(self, timeout: float | None = None, detach: bool | None = None) -> None:
        assert detach is True  # whoever calls from the shell does not stay
        self._call("restart", timeout)
        self._become(Status.RUNNING, pid=1)

    def kill(self, number: int) -> None:
        if self._call("kill", number) is not Status.RUNNING:
            self._refuse("can only kill running containers")

    def pause(self) -> None:
        if self._call("pause") is not Status.RUNNING:
            self._refuse("is not running, can't pause")
        self._become(Status.PAUSED)

    def unpause(self) -> None:
        if self._call("unpause") is not Status.PAUSED:
            self._refuse("is not paused, can't unpause")
        self._become(Status.RUNNING)

    def wait(self, wait_timeout: float | None = None) -> int:
        self._call("wait")
        return self.record.state.exit_code

    def rename(self, name: str) -> None:
        self.runtime.state.rename_container(self.record, name)

    def mount(self) -> str:
        if self._call("mount") is Status.PAUSED:
            self._refuse("cannot be mounted")
        return f"/mnt/{self.name}"

    def unmount(self, force: bool = False) -> None:
        if self._call("unmount", force) is Status.RUNNING:
            self._refuse("is running")

    def mounted(self) -> tuple[bool, str]:
        return self.record.state.mounted, self.record.state.mount_point

    def export(self, path: Any) -> None:
        if isinstance(path, str):
            with open(path, "wb") as file:
                file.write(b"tar")
        else:
            path.write(b"tar")

    def inspect(self, size: bool = False) -> dict[str, Any]:
        self.runtime.sized += size
        return {
            "Id": self.id,
            "Name": self.name,
            "State": {"Status": str(self.state.status), "Pid": 0},
            "Config": {"Labels": self.record.config.labels or None, "Cmd": ["a", "b"]},
            **({"SizeRw": 1500, "SizeRootFs": 0} if size else {}),
        }


class FakeRuntime:
    """Stands for `libpod.runtime.Runtime`."""

    def __init__(self) -> None:
        self.state = MemoryState()
        self.store = self
        self.strangers: list[StorageContainer] = []
        self.options: dict[str, Any] = {}
        self.created: list[tuple[Any, dict[str, Any]]] = []
        self.made: dict[str, FakeContainer] = {}
        self.glances = self.sized = 0
        self.leaks: list[Any] = []
        self.done: list[str] = []

    # --- for tests

    def add(self, name: str, status: Status = Status.CONFIGURED, **members: Any) -> FakeContainer:
        of_state = {k: members.pop(k) for k in list(members) if k in _OF_STATE}
        members = {"created": time.time_ns(), "command": ["true"], **members}
        spec = {**_SPEC, "annotations": members.pop("annotations", {})}
        config = ContainerConfig(
            spec,
            id=members.pop("id", None) or new_id(),
            name=name,
            static_dir="/s",
            log_path="/l",
            shm_dir="/m",
            **members,
        )
        record = ContainerRecord.new(config)
        record.state.run_dir = "/run"
        for key, value in {"status": status, **of_state}.items():
            setattr(record.state, key, value)
        self.state.add_container(record)
        self.made.pop(record.id, None)
        return self._known(record)

    def _known(self, record: ContainerRecord) -> FakeContainer:
        found = self.made.setdefault(record.id, FakeContainer(self, record))
        found.record = record
        return found

    def calls(self) -> dict[str, list[tuple[Any, ...]]]:
        return {c.name: c.calls for c in self.made.values() if c.calls}

    # --- what the command line uses

    def __call__(self, **options: Any) -> FakeRuntime:
        self.options = options
        return self

    def __enter__(self) -> FakeRuntime:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.done.append("closed")

    def lookup_container(self, id_or_name: str) -> FakeContainer:
        return self._known(self.state.lookup_container(id_or_name))

    def get_container(self, container_id: str) -> FakeContainer:
        return self._known(self.state.container(container_id))

    def get_all_containers(self) -> list[FakeContainer]:
        return [self._known(record) for record in self.state.all_containers()]

    def get_latest_container(self) -> FakeContainer:
        found = self.get_all_containers()
        if not found:
            raise NoSuchContainer("no container found in database")
        return max(found, key=lambda container: container.record.config.created or 0)

    def remove_container(self, container: FakeContainer, force: bool = False) -> None:
        status = container._call("remove", force)
        if status is Status.PAUSED or (status is Status.RUNNING and not force):
            container._refuse(f"cannot remove: it is {status}")
        self.state.remove_container(container.record)
        container.gone = True

    def create(self, job: Any, *, container_id: str | None = None, **options: Any) -> FakeContainer:
        self.created.append((job, options))
        return self.add(job.name or "drawn", id=container_id, command=list(job.command or ()))

    def containers(self) -> list[StorageContainer]:
        return self.strangers

    def audit(self) -> list[Any]:
        return self.leaks

    def sweep(self) -> list[Any]:
        swept, self.leaks = self.leaks, []
        return swept

    def refresh(self) -> None:
        self.done.append("refreshed")


_OF_STATE = frozenset("pid exit_code started finished mounted mount_point exited".split())
