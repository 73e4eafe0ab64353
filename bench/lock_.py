# SPDX-License-Identifier: Apache-2.0
"""Lock and unlock of a lock file that is open, uncontended."""

from __future__ import annotations

import ctypes
import os
import tempfile
import time

from filelock import FileLock

from bench.rows import Row, compile_c, median, row
from libpod.lockfile import LockFile

ROUNDS = 300
BATCH = 100


def ours(lock: LockFile) -> float:
    began = time.perf_counter_ns()
    for _ in range(BATCH):
        lock.lock()
        lock.unlock()
    return (time.perf_counter_ns() - began) / BATCH


def pypi(lock: FileLock) -> float:
    began = time.perf_counter_ns()
    for _ in range(BATCH):
        lock.acquire()
        lock.release()
    return (time.perf_counter_ns() - began) / BATCH


def bare(library: ctypes.CDLL, path: str) -> float:
    times = (ctypes.c_int64 * 1)()
    if library.peer_flock(path.encode(), 1, BATCH, times) != 0:
        raise OSError("the C loop failed")
    return float(times[0])


def rows() -> list[Row]:
    library = ctypes.CDLL(compile_c("peers", "-shared", "-fPIC"))
    times: dict[str, list[float]] = {"ours": [], "c": [], "filelock": []}
    with tempfile.TemporaryDirectory() as directory:
        mine = LockFile.create(os.path.join(directory, "ours"))
        theirs = FileLock(os.path.join(directory, "filelock"))
        other = os.path.join(directory, "c")
        open(other, "w").close()
        for _ in range(ROUNDS):
            times["ours"].append(ours(mine))
            times["c"].append(bare(library, other))
            times["filelock"].append(pypi(theirs))
        mine.close()
    found = {name: median(values) for name, values in times.items()}
    name = "lock and unlock of a held lock file from Python"
    return [
        row("lock", name, "ns", found["ours"], "C loop of flock", found["c"], 2.0),
        row("lock", name, "ns", found["ours"], "filelock", found["filelock"], 1 / 50),
    ]
