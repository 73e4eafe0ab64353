# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from storage_support import close_opened, opened

from libpod.storage import Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a database may be made."""
    return tmp_path / "db"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Where a container store may be made."""
    tmp_path.chmod(0o700)
    yield tmp_path
    close_opened()


@pytest.fixture
def store(place: Path) -> Store:
    return opened(place)
