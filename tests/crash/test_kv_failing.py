# SPDX-License-Identifier: Apache-2.0
"""Runs kv_failing_model.py where writes and syncs can be made to fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_the_model_holds_where_calls_fail(tmp_path: Path) -> None:
    shim = tmp_path / "fail.so"
    subprocess.run(
        ["cc", "-D_GNU_SOURCE", "-shared", "-fPIC", "-O1", "-o", shim, HERE / "fail.c", "-ldl"],
        check=True,
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        + ["--override-ini", "python_files=kv_failing_model.py", HERE / "kv_failing_model.py"],
        env=dict(os.environ, LD_PRELOAD=str(shim)),
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
