# SPDX-License-Identifier: Apache-2.0
"""`libpod info` against the real podman's, on the same host."""

from __future__ import annotations

import json
from typing import Any

from libpod.cli import system
from libpod.host import Host
from libpod.info import InfoData, collect
from libpod.oci import OCIRuntime
from libpod.registries import load
from tests.interop.podman import Podman

VARIES = {"memFree", "swapFree", "uptime"}
OTHERWISE = {
    "cgroupControllers": "podman lists them in the kernel's order",
    "capabilities": "podman's come from its containers.conf",
    "package": "podman asks dpkg for the version, too; here it is what 2018 showed",
}


class Opened:
    """What stands for a `Runtime` without containers."""

    def __init__(self, entries: list[InfoData]) -> None:
        self.info = lambda: entries

    def get_containers(self) -> list[Any]:
        return []


class Store:
    def __init__(self, podman: Podman) -> None:
        self.graph_root = str(podman.directory / "root")
        self.run_root = str(podman.directory / "run")
        self.driver = "overlay"

    def graph_status(self) -> list[tuple[str, str]]:
        return []

    def image_count(self) -> int:
        return 0

    def container_count(self) -> int:
        return 0


def test_what_both_know_is_the_same(podman: Podman) -> None:
    theirs = json.loads(podman("info", "--format", "json"))
    oci = OCIRuntime(
        Host(),
        path=theirs["host"]["ociRuntime"]["path"],
        conmon_path=theirs["host"]["conmon"]["path"],
        conmon_env=[],
        tmp_dir=str(podman.directory),
        no_pivot_root=False,
    )
    ours = system.report(Opened(collect(oci, Store(podman))))  # type: ignore[arg-type]
    ours = json.loads(json.dumps(ours))
    del ours["version"], ours["store"]["graphStatus"]
    found = list(_differences(theirs, ours))
    assert found == []
    assert set(ours["host"]["cgroupControllers"]) >= set(theirs["host"]["cgroupControllers"])


def test_the_registries_that_podman_searches(podman: Podman) -> None:
    assert load().search == json.loads(podman("info", "--format", "json"))["registries"].get(
        "search", []
    )


def _differences(theirs: dict[str, Any], ours: dict[str, Any], path: str = "") -> Any:
    for key, value in ours.items():
        if key in VARIES or key in OTHERWISE:
            assert key in theirs
        elif isinstance(value, dict) and isinstance(theirs.get(key), dict):
            yield from _differences(theirs[key], value, f"{path}{key}.")
        elif theirs.get(key) != value:
            yield f"{path}{key}: {theirs.get(key)!r} and ours {value!r}"
