# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.oracle import Oracle, build


@pytest.fixture(scope="session")
def oracle_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("oracle"))


@pytest.fixture
def oracle(oracle_binary: Path) -> Iterator[Oracle]:
    found = Oracle(oracle_binary)
    yield found
    found.close()
