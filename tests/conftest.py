# SPDX-License-Identifier: Apache-2.0
"""For all tests: none leaves a descriptor, a thread or a process behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import census as counting


@pytest.fixture(autouse=True)
def census() -> Iterator[None]:
    """Fails a test that left something in this process; the integration tests' counts more."""
    before = counting.own()
    yield
    left = counting.settled(lambda: counting.changes(before, counting.own()))
    if left:
        pytest.fail("\n".join(["the test left behind:", *left]), pytrace=False)
