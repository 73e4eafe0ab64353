# SPDX-License-Identifier: Apache-2.0
"""kill -9 at every step: the next process finds everything in order, or puts it so.

A program goes through the life of a container, attached or detached, and is killed
at one of the places that the library names with `reach`.  Then a new runtime on
the same directories finds a sound database and containers that can be looked up;
the container can be started or removed, its name is free for another one, and
after a sweep nothing is anybody's.  LIBPOD_KILLS=all kills at all places, attached
and detached, to be finished and to be undone; without it the places are shared out.
"""

from __future__ import annotations

import glob
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import pytest
from killed import NAME, RENAMED

import libpod
from conftest import Said
from libpod import Container, ContainerStateInvalid, Runtime, Spec, Status, kv

HERE = os.path.dirname(os.path.abspath(__file__))
LONG = os.environ.get("LIBPOD_KILLS") == "all"

_REACH = re.compile(r'\breach\(f?"([^"]+)"\)')
_TABLES = ("layers", "containers")

PASSES = {
    "storage.create.directory": 2,
    "storage.delete.directory": 2,
    "storage.layers.written": 3,
    "storage.layers.prepared": 3,
    "storage.layers.renamed": 3,
    "storage.layers.touched": 3,
    "storage.containers.written": 3,
    "storage.containers.prepared": 3,
    "storage.containers.renamed": 3,
    "storage.containers.touched": 3,
}
"""How often a life passes a place, where that is more than once: the store's files change at
creation, renaming (containers.json) and removal (layers.json twice)."""

ELSEWHERE = {"refresh.container"}
"""Passed only where there are containers already: see the test of their own."""


class Kill(NamedTuple):
    place: str
    detach: bool
    undo: bool
    """Whether what was begun is undone, not finished."""

    def __str__(self) -> str:
        attached = "detached" if self.detach else "attached"
        return f"{self.place}-{attached}-{'undone' if self.undo else 'finished'}"


def places() -> list[str]:
    """Every place in the library, by name and pass."""
    sources = glob.glob(f"{os.path.dirname(libpod.__file__)}/**/*.py", recursive=True)
    found: set[str] = set()
    for path in sources:
        with open(path, encoding="utf-8") as file:
            for name in _REACH.findall(file.read()):
                found |= {name.replace("{table.stem}", table) for table in _TABLES}
    return [
        f"{name}:{count}" if count > 1 else name
        for name in sorted(found)
        for count in range(1, PASSES.get(name, 1) + 1)
    ]


def kills() -> Iterator[Kill]:
    for number, place in enumerate(name for name in places() if name not in ELSEWHERE):
        for turn, (detach, undo) in enumerate(product((False, True), repeat=2)):
            if LONG or turn == number % 4:
                yield Kill(place, detach, undo)


@pytest.fixture
def program(options: dict[str, str], rootfs: str) -> Program:
    return Program(options, rootfs)


class Program:
    """Runs killed.py with this test's directories."""

    def __init__(self, options: dict[str, str], rootfs: str) -> None:
        self._options = options
        self._rootfs = rootfs

    def run(self, place: str, detach: bool = False) -> int:
        """Its exit code."""
        grace = 0 if place == "stop.killed" else 5
        given = {"options": self._options, "rootfs": self._rootfs, "detach": detach, "grace": grace}
        done = subprocess.run(
            [sys.executable, f"{HERE}/killed.py", json.dumps(given)],
            env={**os.environ, "LIBPOD_FAILPOINT": f"{place}=kill"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode != -signal.SIGKILL:
            pytest.fail(f"{place}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.returncode


def test_there_are_enough_places() -> None:
    assert len(places()) >= 60


@pytest.mark.parametrize("kill", list(kills()), ids=str)
def test_killed_and_taken_up_again(
    kill: Kill, program: Program, options: dict[str, str], box: Spec, said: Said
) -> None:
    program.run(kill.place, kill.detach)
    database = f"{options['static_dir']}/bolt_state.db"
    if os.path.exists(database):
        assert faults(database) == []
    with Runtime(**options) as runtime:
        for container in runtime.get_containers():
            look(runtime, container)
            if not kill.undo:
                go_on(container)
        if kill.undo:
            runtime.sweep()
            assert runtime.audit() == []
            for container in runtime.get_containers():
                container.remove(force=True)
        # What was begun can be begun again, whatever was left of it.
        again = runtime.create(box, ["true"], name=NAME)
        again.start()
        assert again.wait(20) == 0
        again.remove()
        runtime.sweep()
        assert runtime.audit() == []
        assert runtime.get_containers() == []
    assert faults(database) == []
    with open("/tmp/aud/said", "a") as f:
        for line in said.lines:
            print(kill, line[:300], file=f)
    said.lines.clear()


def faults(database: str) -> list[str]:
    with kv.Database(database, read_only=True, create=False) as opened:
        return list(opened.check())


def look(runtime: Runtime, container: Container) -> None:
    """It is found by all its names, and says how it stands."""
    assert container.name in (NAME, RENAMED)
    assert runtime.lookup_container(container.name).id == container.id
    assert runtime.lookup_container(container.id[:12]).id == container.id
    assert container.inspect()["Id"] == container.id


def go_on(container: Container) -> None:
    """Whatever was cut short, it can be brought to its end."""
    status = container.state.status
    if status is Status.PAUSED:
        container.unpause()
    if status in (Status.CONFIGURED, Status.CREATED, Status.STOPPED, Status.EXITED):
        try:
            container.start()
        except ContainerStateInvalid as error:
            assert "removed in part" in str(error)
            container.remove()
            return
    assert container.state.status in (Status.RUNNING, Status.STOPPING)
    container.stop(grace=5)
    assert container.wait(20) == 128 + signal.SIGKILL
    container.remove()
