# SPDX-License-Identifier: Apache-2.0
"""The library's own figures over time: `pytest bench --benchmark-autosave`, and
`--benchmark-compare` after a change.  The comparison with peers is `python -m bench`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.launch_ import make_rootfs
from bench.rows import compile_c
from libpod import Runtime, Spec, _spawn
from libpod.lockfile import LockFile


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    with Runtime(static_dir=str(tmp_path / "static"), tmp_dir=str(tmp_path / "tmp")) as opened:
        yield opened


def test_spawn_and_reap(benchmark: Any) -> None:
    program = compile_c("tiny", "-static")

    def once() -> int:
        with _spawn.spawn([program], {}) as process:
            return process.wait()

    assert benchmark(once) == 0


def test_lock_and_unlock(benchmark: Any, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    lock = LockFile.create(str(tmp_path / "lock"))

    def once() -> None:
        lock.lock()
        lock.unlock()

    benchmark(once)
    lock.close()


def test_create_and_remove(benchmark: Any, runtime: Runtime, tmp_path: Path) -> None:
    job = Spec(rootfs=make_rootfs(str(tmp_path)), command=["/bin/true"])
    benchmark(lambda: runtime.create(job).remove())


def test_launch_to_recorded_exit(benchmark: Any, runtime: Runtime, tmp_path: Path) -> None:
    job = Spec(rootfs=make_rootfs(str(tmp_path)), command=["/bin/true"])
    result = benchmark.pedantic(lambda: runtime.run(job), rounds=20, warmup_rounds=2)
    assert result.ok
