# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import signal
import subprocess
import sys

import pytest

PROGRAM = """
from libpod.failpoint import reach
for count in range(1, 4):
    reach("here")
    reach("elsewhere")
    print(count, flush=True)
"""


def run(setting: str | None) -> subprocess.CompletedProcess[str]:
    environment = {} if setting is None else {"LIBPOD_FAILPOINT": setting}
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("setting", [None, "", "other=kill", "here:4=kill"])
def test_nothing_happens_elsewhere(setting: str | None) -> None:
    assert run(setting).stdout.split() == ["1", "2", "3"]


@pytest.mark.parametrize(("setting", "passed"), [("here=kill", []), ("here:3=kill", ["1", "2"])])
def test_kill(setting: str, passed: list[str]) -> None:
    done = run(setting)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == passed


def test_error() -> None:
    done = run("elsewhere:2=error")
    assert done.stdout.split() == ["1"]
    assert "OSError: [Errno 5] failpoint elsewhere" in done.stderr


@pytest.mark.parametrize("setting", ["here", "=kill", "here=stop", "here:x=kill"])
def test_a_setting_without_a_meaning_is_refused(setting: str) -> None:
    done = run(setting)
    assert "ValueError" in done.stderr
    assert done.stdout == ""
