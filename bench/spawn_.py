# SPDX-License-Identifier: Apache-2.0
"""Spawn plus reap of a tiny static binary, from parents of several sizes."""

from __future__ import annotations

import ctypes
import mmap
import subprocess
import time
from collections.abc import Callable

from bench.rows import Row, compile_c, median, row
from libpod import _spawn

ROUNDS = 200
MIB = 1 << 20
SIZES = {"20 MiB": 0, "1 GiB": 1024 * MIB, "8 GiB": 8192 * MIB}


def ours(path: str) -> float:
    began = time.perf_counter_ns()
    with _spawn.spawn([path], {}) as process:
        process.wait()
    return time.perf_counter_ns() - began


def popen(path: str) -> float:
    began = time.perf_counter_ns()
    subprocess.Popen([path], env={}).wait()
    return time.perf_counter_ns() - began


def bare(library: ctypes.CDLL) -> Callable[[str], float]:
    times = (ctypes.c_int64 * 1)()

    def measure(path: str) -> float:
        if library.peer_spawn(path.encode(), 1, times) != 0:
            raise OSError("the C clone failed")
        return float(times[0])

    return measure


def ballast(size: int) -> mmap.mmap | None:
    """Memory that is really there, in small pages."""
    if size == 0:
        return None
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    for offset in range(0, size, mmap.PAGESIZE):
        memory[offset] = 1
    return memory


def measure(path: str, ways: dict[str, Callable[[str], float]]) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            times[name].append(way(path) / 1e3)
    return {name: median(values) for name, values in times.items()}


def rows() -> list[Row]:
    path = compile_c("tiny", "-static")
    library = ctypes.CDLL(compile_c("peers", "-shared", "-fPIC"))
    ways = {"ours": ours, "c": bare(library), "popen": popen}
    found: list[Row] = []
    smallest = 0.0
    for label, size in SIZES.items():
        memory = ballast(size)
        medians = measure(path, ways)
        if memory is not None:
            memory.close()
        smallest = smallest or medians["ours"]
        name = f"spawn and reap from a parent of {label}"
        found += [
            row("spawn", name, "us", medians["ours"], "C clone", medians["c"], 1.3),
            row("spawn", name, "us", medians["ours"], "subprocess.Popen", medians["popen"]),
        ]
        if size:
            found.append(
                row("spawn", name, "us", medians["ours"], "ours from 20 MiB", smallest, 1.3)
            )
    return found
