# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from storage_support import opened

from libpod.storage import Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a database may be made."""
    return tmp_path / "db"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a container store may be made."""
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.fixture
def store(place: Path) -> Iterator[Store]:
    store = opened(place)
    yield store
    store.close()
