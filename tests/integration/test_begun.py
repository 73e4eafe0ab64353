# SPDX-License-Identifier: Apache-2.0
"""A monitor that is started along with its container's making, and what may come between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import census
from conftest import Dirs, containers_of
from libpod import (
    ConmonFailed,
    Container,
    ContainerRemoved,
    ContainerStateInvalid,
    Runtime,
    SpawnFailed,
    Spec,
)
from libpod.host import Host
from libpod.state.bolt import BoltState

pytestmark = pytest.mark.any_runtime

Between = Callable[[Callable[[Container], None]], None]


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Between:
    """Has something happen to a container that is made and not yet started."""

    def set_up(happens: Callable[[Container], None]) -> None:
        for name in ("start", "start_and_attach"):
            method = getattr(Container, name)

            def started(self: Container, *args: Any, method: Any = method, **options: Any) -> Any:
                monkeypatch.undo()
                happens(self)
                return method(self, *args, **options)

            monkeypatch.setattr(Container, name, started)

    return set_up


def monitors(container_id: str) -> list[int]:
    """conmons of the container that are our children: they were not let go."""
    return [
        process.pid
        for process in census.processes().values()
        if process.parent == os.getpid() and container_id in process.argv
    ]


@pytest.mark.parametrize("detach", [False, True])
def test_it_waits_for_its_container(rt: Runtime, box: Spec, between: Between, detach: bool) -> None:
    seen: list[int] = []

    def look(container: Container) -> None:
        assert rt.has_container(container.id)
        seen.extend(monitors(container.id))

    between(look)
    with rt.start(box, ["sleep", "1000"], detach=detach) as container:
        assert len(seen) == 1
        assert monitors(container.id) == []  # it has forked away from it
    between(look)
    assert rt.run(box, ["echo", "out"]).stdout == b"out\n"
    assert len(seen) == 2


def test_one_that_was_not_asked_for_is_not_started(rt: Runtime, box: Spec) -> None:
    container = rt.create(box, ["true"])
    assert monitors(container.id) == []
    container.remove()


def test_one_that_was_killed_is_replaced(rt: Runtime, box: Spec, between: Between) -> None:
    def kill(container: Container) -> None:
        (pid,) = monitors(container.id)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    between(kill)
    assert rt.run(box, ["echo", "out"]).stdout == b"out\n"


def test_another_process_renames_the_container(
    rt: Runtime, box: Spec, options: dict[str, Any], between: Between
) -> None:
    def rename(container: Container) -> None:
        with Runtime(**options) as other:
            other.get_container(container.id).rename("renamed")

    between(rename)
    result = rt.run(box, ["true"], name="first")
    assert (result.exit_code, result.name) == (0, "renamed")


def test_another_process_starts_the_container(
    rt: Runtime, box: Spec, options: dict[str, Any], between: Between
) -> None:
    other = Runtime(**options)

    def start(container: Container) -> None:
        other.get_container(container.id).start()

    between(start)
    with pytest.raises(ContainerStateInvalid):
        rt.start(box, ["sleep", "1000"])
    other.close()


def test_another_process_removes_the_container(
    rt: Runtime, box: Spec, options: dict[str, Any], dirs: Dirs, between: Between
) -> None:
    def remove(container: Container) -> None:
        with Runtime(**options) as other:
            other.get_container(container.id).remove()

    between(remove)
    with pytest.raises(ContainerRemoved):
        rt.run(box, ["true"])
    assert containers_of(dirs) == []


def test_the_making_fails_after_it_was_started(
    rt: Runtime, box: Spec, dirs: Dirs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: BoltState, record: Any) -> None:
        assert len(monitors(record.id)) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(BoltState, "add_container", fail)
    for make in (rt.run, rt.start):
        with pytest.raises(KeyboardInterrupt):
            make(box, ["true"])
        assert containers_of(dirs) == []
    assert rt.audit() == []


def test_it_cannot_be_started(
    options: dict[str, Any], box: Spec, dirs: Dirs, script: Callable[[str, str], str]
) -> None:
    conmon = script("conmon", "exit 3")
    with Runtime(**{**options, "conmon_path": conmon}) as rt:
        with pytest.raises(ConmonFailed):
            rt.run(box, ["true"])
        os.unlink(conmon)
        with pytest.raises(SpawnFailed):
            rt.run(box, ["true"])
    assert containers_of(dirs) == []


def test_it_dies_with_whoever_started_it(options: dict[str, Any], box: Spec, dirs: Dirs) -> None:
    """Before it has done anything but open its log: no container runs that nobody knows of."""
    program = (
        "import json, sys\nfrom libpod import Runtime, Spec\n"
        "Runtime(**json.loads(sys.argv[1])).run(Spec(rootfs=sys.argv[2]), ['sleep', '1000'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(options), box.rootfs],
        env={**os.environ, "LIBPOD_FAILPOINT": "create.recorded=kill"},
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    (container_id,) = containers_of(dirs)
    assert not Host().sessions_naming([container_id])
    bundle = f"{dirs.static}/storage/overlay-containers/{container_id}/userdata"
    assert set(os.listdir(bundle)) <= {"ctr.log"}
    Runtime(**options).close()  # which has taken it over
    assert containers_of(dirs) == []
