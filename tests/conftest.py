# SPDX-License-Identifier: Apache-2.0
"""For all tests: none leaves a descriptor, a thread or a process behind."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import hypothesis
import pytest

import census as counting


def pytest_configure() -> None:
    # What a shell that is not interactive starts in the background ignores Ctrl-C, and so
    # would all that the tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    # How long an example takes is the machine's matter.
    hypothesis.settings.register_profile(
        "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("busy")


@pytest.fixture(autouse=True)
def census() -> Iterator[None]:
    """Fails a test that left something in this process; the integration tests' counts more."""
    before = counting.own()
    yield
    left = counting.settled(lambda: counting.changes(before, counting.own()))
    if left:
        pytest.fail("\n".join(["the test left behind:", *left]), pytrace=False)
