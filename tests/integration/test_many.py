# SPDX-License-Identifier: Apache-2.0
"""Five hundred launches in one process leave it, and the host, as they were."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from census import Census, children, mounts, settled
from conftest import Dirs
from libpod import Reason, Runtime, Spec

LAUNCHES = 500
IN_FLIGHT = 4


def counts(dirs: Dirs, census: Census) -> dict[str, int]:
    """What must not grow."""
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "children, zombies too": len(children()),
        "mounts": len(mounts()),
        "cgroups": len(census.left_cgroups()),
        "files": sum(len(names) + len(files) for _, names, files in os.walk(dirs.base)),
    }


def grown(before: dict[str, int], after: dict[str, int]) -> list[str]:
    return [f"{what}: {n} -> {after[what]}" for what, n in before.items() if after[what] != n]


@pytest.mark.timeout(300)
def test_five_hundred_launches(rt: Runtime, box: Spec, dirs: Dirs, census: Census) -> None:
    def launch(number: int) -> tuple[int, Reason, int | None, bytes]:
        # Every tenth one ends otherwise: by its time-out, with a failure, by a signal.
        kind = number % 30
        if kind == 0:
            r = rt.run(box, ["sleep", "1000"], timeout=0.05, grace=0)
        elif kind == 10:
            r = rt.run(box, ["sh", "-c", f"cat; exit {number % 100}"], input=b"x")
        elif kind == 20:
            r = rt.run(box, ["sh", "-c", "sh -c 'kill -9 $$'; exit $?"])
        else:
            r = rt.run(box, ["echo", str(number)])
        return number, r.reason, r.exit_code, r.stdout

    def expected(number: int) -> tuple[int, Reason, int | None, bytes]:
        kind = number % 30
        if kind == 0:
            return number, Reason.TIMEOUT, 137, b""
        if kind == 10:
            return number, Reason.EXITED, number % 100, b"x"
        if kind == 20:
            return number, Reason.SIGNALED, 137, b""
        return number, Reason.EXITED, 0, f"{number}\n".encode()

    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        list(pool.map(launch, range(30)))  # what is made once: threads, imports, caches
        before = counts(dirs, census)
        results = list(pool.map(launch, range(LAUNCHES)))
        left = settled(lambda: grown(before, counts(dirs, census)))
    assert results == [expected(number) for number in range(LAUNCHES)]
    assert left == []
    assert rt.get_containers() == []


def test_many_runtimes_in_one_process(
    options: dict[str, str], box: Spec, dirs: Dirs, census: Census
) -> None:
    Runtime(**options).close()
    before = counts(dirs, census)
    for number in range(50):
        with Runtime(**options) as runtime:
            if number % 10 == 0:
                assert runtime.run(box, ["true"]).ok
    del before["files"]
    # A thread that was joined is there for a moment more.
    assert settled(lambda: grown(before, counts(dirs, census))) == []


def test_many_containers_that_are_never_started(rt: Runtime, box: Spec, dirs: Dirs) -> None:
    """A configured container is a directory and a lock file, and no process."""
    containers = [rt.create(box, ["true"], name=f"c{n}") for n in range(200)]
    assert children() == set()
    assert len(rt.get_containers()) == 200
    assert rt.lookup_container("c150") is containers[150]
    for c in containers:
        c.remove()
    assert os.listdir(f"{dirs.tmp}/lock") == []
