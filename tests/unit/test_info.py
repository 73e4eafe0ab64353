# SPDX-License-Identifier: Apache-2.0
"""`Runtime.info()`: each field, programs that do not answer, and `libpod info`."""

from __future__ import annotations

import os
import platform
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import libpod
from libpod import info
from libpod.cli import system
from libpod.errors import ConfigError, OCIRuntimeFailed, SpawnFailed, SystemCallError
from libpod.host import ToolResult
from libpod.info import InfoData, collect, human_duration
from libpod.state.records import ContainerStatus
from libpod.version import get_version


class Programs:
    """What stands for an `OCIRuntime` and its host: programs with given answers."""

    path = "/opt/runc"
    conmon_path = "/opt/conmon"

    def __init__(self, **answers: Any) -> None:
        self.host = self
        self._answers = answers
        self.asked: list[str] = []

    def version(self) -> str:
        return str(self._answer("runc"))

    def conmon_version(self) -> str:
        return str(self._answer("conmon"))

    def run_tool(self, argv: list[str], env: dict[str, str], *, timeout: float) -> ToolResult:
        self.asked.append(" ".join(argv))
        code, out = self._answer(os.path.basename(argv[0]))
        return ToolResult(code, out, "")

    def _answer(self, name: str) -> Any:
        answer = self._answers[name]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def registries_conf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The only one."""
    path = tmp_path / "registries.conf"
    monkeypatch.setenv("REGISTRIES_CONFIG_PATH", str(path))
    path.write_text("")
    return path


@pytest.fixture
def managers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A host with both package managers."""
    for name in ("rpm", "dpkg"):
        (tmp_path / name).touch(0o755)
    queries = ((f"{tmp_path}/rpm", "-q", "-f"), (f"{tmp_path}/dpkg", "-S"))
    monkeypatch.setattr(info, "_PACKAGE_QUERIES", queries)


def host_of(programs: Programs) -> dict[str, Any]:
    entry = collect(programs)[0]  # type: ignore[arg-type]
    assert isinstance(entry, InfoData)
    assert entry.type == "host"
    return entry.data


def test_every_field(managers: None) -> None:
    programs = Programs(
        runc="runc 1\nspec: 2", conmon="conmon 3", rpm=(1, "not owned\n"), dpkg=(0, "x: /opt\n")
    )
    host = host_of(programs)
    assert list(host) == [
        *("os", "arch", "cpus", "MemTotal", "MemFree", "SwapTotal", "SwapFree"),
        *("Conmon", "OCIRuntime", "kernel", "uptime", "hostname"),
    ]
    assert host["os"] == "linux"
    assert host["cpus"] == len(os.sched_getaffinity(0))
    assert host["MemTotal"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < host["MemFree"] < host["MemTotal"]
    assert host["SwapFree"] <= host["SwapTotal"]
    assert host["Conmon"] == {"path": "/opt/conmon", "package": "x: /opt", "version": "conmon 3"}
    assert host["OCIRuntime"] == {
        "path": "/opt/runc",
        "package": "x: /opt",
        "version": "runc 1\nspec: 2",
    }
    assert host["kernel"] == os.uname().release
    assert host["hostname"] == socket.gethostname()
    assert host["uptime"].partition(" (")[0].endswith("s")


def test_rpm_is_asked_first_and_dpkg_only_if_it_does_not_know(managers: None) -> None:
    programs = Programs(runc="", conmon="", rpm=(0, "runc-1.fc\n"), dpkg=(0, "never"))
    assert host_of(programs)["OCIRuntime"]["package"] == "runc-1.fc"
    assert all("rpm -q -f /opt/" in asked for asked in programs.asked)


@pytest.mark.parametrize("answer", [(1, "x"), (0, "\n"), (-9, "x"), SpawnFailed("no")])
def test_a_file_of_no_package(managers: None, answer: object) -> None:
    programs = Programs(runc="", conmon="", rpm=answer, dpkg=answer)
    assert host_of(programs)["Conmon"]["package"] == "Unknown"


def test_a_host_without_package_managers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(info, "_PACKAGE_QUERIES", ((f"{tmp_path}/rpm", "-q", "-f"),))
    assert host_of(Programs(runc="", conmon=""))["Conmon"]["package"] == "Unknown"


def test_a_version_that_cannot_be_had_is_empty(
    managers: None, caplog: pytest.LogCaptureFixture
) -> None:
    failure = OCIRuntimeFailed("/opt/runc --version failed")
    programs = Programs(runc=failure, conmon="conmon 3", rpm=(1, ""), dpkg=(1, ""))
    host = host_of(programs)
    assert host["OCIRuntime"]["version"] == ""
    assert host["Conmon"]["version"] == "conmon 3"
    assert "/opt/runc --version failed" in caplog.text


def test_a_host_without_proc(managers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: str) -> str:
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr(info, "_read", read)
    with pytest.raises(SystemCallError, match=r"error getting host info: .*meminfo"):
        host_of(Programs(runc="", conmon=""))


@pytest.mark.parametrize(
    ("machine", "name"),
    [("x86_64", "amd64"), ("aarch64", "arm64"), ("armv7l", "arm"), ("i686", "386"),
     ("ppc64le", "ppc64le"), ("s390x", "s390x"), ("riscv64", "riscv64")],
)  # fmt: skip
def test_architectures_have_gos_names(
    machine: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*real[:4], machine)))
    assert info.architecture() == name


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (3.4, "3.4s"),
        (59.99, "59.99s"),
        (59.999, "1m 0s"),
        (60.0, "1m 0s"),
        (3599.5, "59m 59.5s"),
        (3600.0, "1h 0m 0s (Approximately 0.04 days)"),
        (50 * 3600 + 12 * 60 + 3.4, "50h 12m 3.4s (Approximately 2.08 days)"),
        (1000 * 3600 + 0.05, "1000h 0m 0.05s (Approximately 41.67 days)"),
    ],
)
def test_an_uptime_as_people_read_it(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


class Store:
    graph_root, run_root, driver = "/graph", "/run", "overlay"

    def graph_status(self) -> list[tuple[str, str]]:
        return [("Supports d_type", "true"), ("Backing Filesystem", "extfs")]

    def image_count(self) -> int:
        return 2

    def container_count(self) -> int:
        return 3


def entries_of(**options: Any) -> list[InfoData]:
    programs = Programs(runc="runc 1", conmon="conmon 3", rpm=(1, ""), dpkg=(1, ""))
    return collect(programs, **options)  # type: ignore[arg-type]


def test_the_store(managers: None) -> None:
    store = entries_of(store=Store())[1]
    assert store == (
        "store",
        {
            "GraphRoot": "/graph",
            "RunRoot": "/run",
            "GraphDriverName": "overlay",
            "GraphOptions": {},
            "GraphStatus": {"Supports d_type": "true", "Backing Filesystem": "extfs"},
            "ImageStore": {"number": 2},
            "ContainerStore": {"number": 3},
        },
    )
    shared = entries_of(store=Store(), sharing="everything, since it was asked for")[1]
    assert shared.data["Sharing"] == "everything, since it was asked for"


def test_a_store_that_cannot_be_read(managers: None) -> None:
    class Broken(Store):
        def image_count(self) -> int:
            raise OSError(5, "Input/output error")

    with pytest.raises(SystemCallError, match="error getting store info: .*Input/output error"):
        entries_of(store=Broken())


def test_the_entries_and_their_order(managers: None, registries_conf: Path) -> None:
    registries_conf.write_text(
        '[registries.search]\nregistries = ["a.io", "b.io/"]\n'
        '[registries.insecure]\nregistries = ["c.io"]\n'
    )
    found = entries_of(store=Store())
    assert [entry.type for entry in found] == [
        *("host", "store", "registries", "insecure registries"),
    ]
    assert found[2].data == {"registries": ["a.io", "b.io"]}
    assert found[3].data == {"registries": ["c.io"]}


def test_a_registries_conf_that_has_no_meaning(managers: None, registries_conf: Path) -> None:
    registries_conf.write_text("registries = 1")
    with pytest.raises(ConfigError, match=str(registries_conf)):
        entries_of(store=Store())


class Opened:
    """What stands for a `Runtime`."""

    def __init__(self, entries: list[InfoData]) -> None:
        self.info = lambda: entries

    def get_containers(self) -> list[Any]:
        statuses = tuple(map(ContainerStatus, (3, 5, 3, 1)))
        return [SimpleNamespace(state=SimpleNamespace(status=status)) for status in statuses]


def test_the_report_in_podmans_layout(managers: None, registries_conf: Path) -> None:
    registries_conf.write_text(
        'unqualified-search-registries = ["a.io"]\n[[registry]]\nlocation="b.io"\ninsecure=true\n'
    )
    report = system.report(Opened(entries_of(store=Store(), sharing="why")))  # type: ignore[arg-type]
    assert list(report) == ["host", "registries", "store", "version"]
    assert report["host"]["ociRuntime"]["name"] == "runc"
    assert report["host"]["ociRuntime"]["path"] == "/opt/runc"
    assert report["registries"] == {
        "b.io": {"Prefix": "b.io", "Location": "b.io", "Insecure": True, "Blocked": False},
        "search": ["a.io"],
    }
    assert report["store"] == {
        "containerStore": {"number": 3, "paused": 1, "running": 2, "stopped": 1},
        "graphDriverName": "overlay",
        "graphOptions": {},
        "graphRoot": "/graph",
        "graphStatus": {"Backing Filesystem": "extfs", "Supports d_type": "true"},
        "imageStore": {"number": 2},
        "runRoot": "/run",
        "sharing": "why",
    }
    assert report["version"]["Version"] == libpod.__version__
    assert "store" not in system.report(Opened(entries_of()))  # type: ignore[arg-type]


def test_the_version() -> None:
    found = get_version()
    assert found.version == libpod.__version__
    assert found.python_version == platform.python_version()
    assert found.os_arch == f"linux/{info.architecture()}"
    assert 1_600_000_000 < found.built <= time.time()
    assert found.git_commit == ""
