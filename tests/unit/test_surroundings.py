# SPDX-License-Identifier: Apache-2.0
"""The tests hold in the background and on a busy machine, too."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

INNER = "test_interrupting_what_a_test_starts"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_interrupting_what_a_test_starts(number: int) -> None:
    child = subprocess.Popen(["sleep", "20"])
    child.send_signal(number)
    assert child.wait(60) == -number


def test_tests_in_the_background() -> None:
    """A shell that is not interactive has them ignore Ctrl-C."""
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", INNER]
    done = subprocess.run(
        ["sh", "-c", 'trap "" INT QUIT; exec "$@"', "sh", *tests],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout


@given(st.none())
def test_an_example_takes_as_long_as_the_machine_lets_it(nothing: None) -> None:
    time.sleep(0.3)
