# SPDX-License-Identifier: Apache-2.0
"""What `import libpod` costs beyond the bare interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from bench.rows import Row, median, row

ROUNDS = 40
LIMIT_MS = 40.0

CASES = {
    "bare": "pass",
    "import": "import libpod",
    "names": "from libpod import Runtime, Spec",
}


def seconds(code: str) -> float:
    # An installed package has its bytecode; the first round writes ours.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    return time.perf_counter() - began


def rows() -> list[Row]:
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(ROUNDS):
        for name, code in CASES.items():
            times[name].append(seconds(code) * 1e3)
    bare = median(times["bare"])
    return [
        row("import", f"{CASES[name]}, beyond the bare interpreter", "ms",
            median(times[name]) - bare, "the limit", LIMIT_MS, must)
        for name, must in (("import", 1.0), ("names", None))
    ]  # fmt: skip
