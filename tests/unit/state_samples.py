# SPDX-License-Identifier: Apache-2.0
"""Containers and pods for the tests of the state.

An object is written by a digit: container 1 has the ID 111... and the name "test1".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from libpod.state.handles import ContainerRecord, PodRecord
from libpod.state.paths import RuntimePaths
from libpod.state.records import (
    ContainerConfig,
    ContainerState,
    ContainerStatus,
    PodConfig,
    PodState,
)

SPEC: dict[str, Any] = {
    "ociVersion": "1.0.0",
    "process": {"args": ["sh"], "env": [], "cwd": "/", "capabilities": {}},
    "root": {"path": "rootfs"},
    "mounts": [],
    "linux": {"namespaces": []},
}


def identifier(text: object) -> str:
    """64 digits: "1" is 111..., "12" is 1222...: the last one goes on."""
    return str(text).ljust(64, str(text)[-1])


def ctr(
    number: object, *, pod: object = None, needs: tuple[object, ...] = (), **members: Any
) -> ContainerRecord:
    key = identifier(number)
    config: dict[str, Any] = {
        "id": key,
        "name": f"test{number}",
        "static_dir": f"/static/{key}",
        "log_path": f"/static/{key}/ctr.log",
        "shm_dir": f"/static/{key}/shm",
        "pod": "" if pod is None else identifier(pod),
        "dependencies": list(map(identifier, needs)),
    }
    state = ContainerState(
        status=ContainerStatus.RUNNING,
        run_dir=f"/run/{key}",
        mounted=True,
        mount_point="/merged",
        pid=1234,
        exec_sessions={"a": {"id": "a"}, "b": {"id": "b"}},
        bind_mounts={"/1/2/3": "/4/5/6", "/test/file.test": "/test2/file2.test"},
    )
    return ContainerRecord.new(ContainerConfig(SPEC, **{**config, **members}), state)


def pod(number: object, **members: Any) -> PodRecord:
    config: dict[str, Any] = {
        "id": identifier(number),
        "name": f"test{number}",
        "labels": {"a": "b"},
        "cgroup_parent": "/hello/world/cgroup/parent",
    }
    return PodRecord.new(PodConfig(**{**config, **members}), PodState(cgroup_path="/a/path"))


def paths_of(directory: Path) -> RuntimePaths:
    return RuntimePaths(
        static_dir=str(directory / "static"),
        tmp_dir=str(directory / "tmp"),
        run_root=str(directory / "run"),
        graph_root=str(directory / "graph"),
        graph_driver="overlay",
        volume_path=str(directory / "volumes"),
    )


def joins(number: object, *kinds: str, **members: Any) -> dict[str, Any]:
    return {**{f"{kind}_ns_from": identifier(number) for kind in kinds}, **members}


def ids(found: list[Any]) -> list[str]:
    return [record.id[:1] for record in found]
