# SPDX-License-Identifier: Apache-2.0
"""Sixteen processes use the same containers at random, under each kind of locks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import census
import mountns
from conftest import Dirs, Said
from libpod import Container, ContainerRemoved, Runtime, Status

pytestmark = pytest.mark.any_runtime

PROCESSES = 16
SECONDS = float(os.environ.get("STRESS_SECONDS", "8"))
"""For each kind; `make stress` takes a minute."""

WORKER = Path(__file__).with_name("stress_worker.py")
RUNNING = (Status.CREATED, Status.RUNNING, Status.PAUSED, Status.STOPPING)


class Told:
    """What the workers have done: IDs."""

    def __init__(self, outputs: list[str]) -> None:
        rows = [json.loads(line) for output in outputs for line in output.splitlines()]
        of = {word: {row[1]: row[2] for row in rows if row[0] == word} for word, *_ in rows}
        self.created = set(of.get("created", {}))
        self.removed = set(of.get("removed", {}))
        started = set(of.get("started", {}))
        goes = {key for key, remove in of.get("created", {}).items() if remove}
        self.may_go = goes & started
        """Those that are removed at their end, which may have come."""
        self.steps = sum(row[2] for row in rows if row[0] == "done")


@pytest.fixture(params=["flock", "shm", "file"])
def lock_type(request: pytest.FixtureRequest) -> Iterator[str]:
    """podman's shared memory is the host's: here is one of the test's own."""
    mountns.mount_tmpfs("/dev/shm")
    yield request.param
    mountns.unmount("/dev/shm")


@pytest.mark.timeout(SECONDS + 240)
def test_sixteen_processes(
    lock_type: str, options: dict[str, str], rootfs: str, dirs: Dirs, said: Said
) -> None:
    told = Told(run_workers({**options, "lock_type": lock_type}, rootfs))
    time.sleep(0.5)  # the short commands end
    assert census.settled(lambda: cleaning(dirs.base), 30) == [], "an exit command hangs"
    with Runtime(**options) as rt:
        # What ended owners have left is taken over.
        assert census.settled(lambda: ended(rt, told.may_go), 30) == []
        assert rt.locks.kind == lock_type
        known = {c.id for c in rt.get_containers()}
        assert told.created - told.removed - told.may_go <= known, "a record is lost"
        assert known <= told.created - told.removed, "a ghost"
        check_consistent(rt, dirs, told.created)
        for container in rt.get_containers():
            remove(container)
        assert rt.get_containers() == []
        assert rt.locks.in_use() == set()
        check_consistent(rt, dirs, told.created)
    # Whether an owner ended while somebody else did his work is a matter of time.
    said.allow("taken over|lock of container .* was removed")
    assert len(told.created) > PROCESSES / 2
    assert told.steps > 3 * PROCESSES


def run_workers(options: dict[str, str], rootfs: str) -> list[str]:
    """What each of them said."""
    workers = []
    try:
        for seed in range(PROCESSES):
            arguments = json.dumps([seed, SECONDS, options, rootfs])
            workers.append(
                subprocess.Popen(
                    [sys.executable, str(WORKER), arguments],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        told = [worker.stdout.readline() for worker in workers if worker.stdout]
        assert len(told) == PROCESSES
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("\n")
            worker.stdin.flush()
        ended = [worker.communicate(timeout=SECONDS + 150) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    complaints = [line for _, error in ended for line in error.splitlines()]
    codes = [worker.returncode for worker in workers]
    assert (codes, complaints) == ([0] * PROCESSES, []), "\n".join(complaints)
    return [output for output, _ in ended]


def cleaning(base: str) -> list[str]:
    return [
        str(process)
        for process in census.processes().values()
        if {"container", "cleanup"} <= set(process.argv) and process.argv[0] != "conmon"
        if any(base in word for word in process.argv) and "--exit-command" not in process.argv
    ]


def ended(rt: Runtime, ids: set[str]) -> list[str]:
    found = []
    for container in rt.get_containers():
        with suppress(ContainerRemoved):
            if container.id in ids and container.state.status in (Status.STOPPED, Status.EXITED):
                found.append(container.id)
    return found


def remove(container: Container) -> None:
    if container.state.status is Status.PAUSED:
        container.unpause()
    container.remove(force=True)


def check_consistent(rt: Runtime, dirs: Dirs, everybody: set[str]) -> None:
    """Records, storage, locks, processes and cgroups tell the same."""
    containers = rt.get_containers()
    known = {c.id for c in containers}
    stored = rt.store.containers()
    assert {c.id for c in stored} == known
    assert {c.layer_id for c in stored if c.layer_id} == {layer.id for layer in rt.store.layers()}
    assert list(rt.store.unowned()) == []
    assert {c.id: c.name for c in containers} == {c.id: c.names[0] for c in stored}
    if rt.locks.kind == "flock":
        assert rt.locks.in_use() == known
    else:
        numbers = [c.record.config.lock_id for c in containers]
        assert len(set(numbers)) == len(numbers)
        assert rt.locks.in_use() == set(numbers)
    runs = {c.id for c in containers if c.state.status in RUNNING}
    assert {key for key in everybody if os.path.exists(f"{dirs.tmp}/exits/{key}")} <= known
    found = census.settled(lambda: sorted(alive(everybody) ^ runs))
    assert found == [], "processes and cgroups are not those of running containers"
    check_database(dirs)


def alive(everybody: set[str]) -> set[str]:
    """Those of the containers that have a monitor or a cgroup."""
    words = {word for process in census.processes().values() for word in process.argv}
    groups = {os.path.basename(path).removeprefix("libpod-") for path in census.cgroups()}
    return everybody & (words | groups)


def check_database(dirs: Dirs) -> None:
    check: list[Any] = [sys.executable, "-m", "libpod.kv", "check", f"{dirs.static}/bolt_state.db"]
    assert subprocess.run(check, capture_output=True, text=True).stdout.strip() == "OK"
