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
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from typing import NamedTuple

import pytest
from killed import NAME, ONCE, RENAMED, UNUSED

import libpod
from conftest import Said, remove_all
from libpod import (
    Container,
    ContainerRemoved,
    ContainerStateInvalid,
    NoSuchContainer,
    Runtime,
    Spec,
    Status,
    kv,
)
from libpod.audit import Leak

HERE = os.path.dirname(os.path.abspath(__file__))
LONG = os.environ.get("LIBPOD_KILLS") == "all"

_REACH = re.compile(r'\breach\(f?"([^"]+)"\)')
_STEM = re.compile(r"\{[a-z.]+\.stem\}")
_TABLES = ("layers", "containers")

_TWICE = (1, 2)
_TABLE = (1, 2, 3, 5)
PASSES = {
    # In the life of the container that is removed by hand; of the one that goes at its end.
    "exit.monitor-ended": _TWICE,
    "exit.deleted": _TWICE,
    "exit.released": _TWICE,
    "exit.unmounted": _TWICE,
    "remove.begun": _TWICE,
    "remove.unmounted": _TWICE,
    "remove.stored": _TWICE,
    "remove.forgotten": _TWICE,
    "remove.disclaimed": _TWICE,
    "remove.unlocked": _TWICE,
    # The container's directory and its run directory.
    "storage.create.directory": _TWICE,
    "storage.delete.directory": _TWICE,
    # Creation, renaming or flagging, removal; of what is volatile, or has an empty layer, the
    # creation once less, and the removal.
    **{
        f"storage.{table}.{step}": _TABLE
        for table in _TABLES
        for step in ("written", "prepared", "touched", "swapped")
    },
}
"""The passes of a place at which to kill, where that is not the first one alone."""

LOST = "died without an exit code|the lock of container .* was removed"
"""What may be said of a container whose monitor went with the program."""

ELSEWHERE = {"refresh.reset", "refresh.container"}
"""Passed when a tmpdir is new: see the test of their own."""


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
                found |= {_STEM.sub(table, name) for table in _TABLES}
    return [
        f"{name}:{count}" if count > 1 else name
        for name in sorted(found)
        for count in PASSES.get(name, (1,))
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
        for _ in range(5):
            done = subprocess.run(
                [sys.executable, f"{HERE}/killed.py", json.dumps(given)],
                env={**os.environ, "LIBPOD_FAILPOINT": f"{place}=kill"},
                capture_output=True,
                text=True,
                timeout=60,
            )
            if done.returncode != 0 or not detach:
                break
            # It ended as it should: conmon's exit command was faster at its end.
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
            # One that is to go at its end may go at any moment: the runtime took it over.
            with suppress(ContainerRemoved, NoSuchContainer):
                look(runtime, container)
                if not kill.undo:
                    go_on(container)
        if kill.undo:
            assert swept(runtime) == []
            remove_all(runtime)
        # What was begun can be begun again, whatever was left of it.
        again = runtime.create(box, ["true"], name=NAME)
        again.start()
        assert again.wait(60) == 0
        again.remove()
        assert swept(runtime) == []
        assert runtime.get_containers() == []
    assert faults(database) == []
    said.allow(LOST)


@pytest.mark.parametrize("place", sorted(ELSEWHERE))
def test_killed_after_a_reboot(
    place: str, program: Program, options: dict[str, str], said: Said
) -> None:
    program.run("start.saved")
    with Runtime(**options) as runtime:
        for container in runtime.get_containers():
            container.stop(grace=5)
    shutil.rmtree(options["tmp_dir"])
    program.run(place)
    with Runtime(**options) as runtime:
        (container,) = runtime.get_containers()
        look(runtime, container)
        go_on(container)
        assert swept(runtime) == []
    said.allow(LOST)


def swept(runtime: Runtime) -> list[Leak]:
    """What a sweep leaves.  It passes over a container that somebody is at work with, as a
    runtime that takes it over in the background, so it is done again."""
    deadline = time.monotonic() + 60
    while True:
        runtime.sweep()
        left = runtime.audit()
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


def faults(database: str) -> list[str]:
    with kv.Database(database, read_only=True, create=False) as opened:
        return list(opened.check())


def look(runtime: Runtime, container: Container) -> None:
    """It is found by all its names, and says how it stands."""
    assert container.name in (NAME, RENAMED, ONCE, UNUSED)
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
    if container.name in (ONCE, UNUSED):
        assert container.wait(60) == 0
    else:
        assert container.state.status in (Status.RUNNING, Status.STOPPING)
        container.stop(grace=5)
        assert container.wait(60) == 128 + signal.SIGKILL
    container.remove()
