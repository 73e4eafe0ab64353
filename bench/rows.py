# SPDX-License-Identifier: Apache-2.0
"""The form of a figure, and what several benchmarks need to take one."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Iterable
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.join(os.path.dirname(HERE), "build", "bench")

Row = dict[str, Any]


def row(
    bench: str,
    name: str,
    unit: str,
    ours: float,
    peer_name: str,
    peer: float,
    must: float | None = None,
    *,
    more_is_better: bool = False,
) -> Row:
    """A figure; the ratio is below 1 where ours is the better."""
    ratio = peer / ours if more_is_better else ours / peer
    return {
        "bench": bench,
        "name": name,
        "unit": unit,
        "ours": ours,
        "peer_name": peer_name,
        "peer": peer,
        "ratio": ratio,
        "must": must,
    }


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def compile_c(name: str, *flags: str) -> str:
    """Builds bench/c/NAME.c where it is newer than its product, and names that."""
    source = os.path.join(HERE, "c", f"{name}.c")
    target = os.path.join(BUILD, name)
    os.makedirs(BUILD, exist_ok=True)
    if not os.path.exists(target) or os.path.getmtime(target) < os.path.getmtime(source):
        cc = os.environ.get("CC", "cc")
        scratch = f"{target}.{os.getpid()}"
        subprocess.run(
            [cc, "-O2", "-D_GNU_SOURCE", *flags, "-o", scratch, source],
            check=True,
        )
        os.rename(scratch, target)
    return target


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }
