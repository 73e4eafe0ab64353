# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from libpod.state.bolt import BoltState
from tests.interop.oracle import Oracle, build
from tests.interop.podman import Podman


@pytest.fixture(scope="session")
def oracle_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("oracle"))


@pytest.fixture
def oracle(oracle_binary: Path) -> Iterator[Oracle]:
    found = Oracle(oracle_binary)
    yield found
    found.close()


@pytest.fixture
def fresh() -> Iterator[Podman]:
    """A podman without a database; its run root may have 50 characters only."""
    with tempfile.TemporaryDirectory(prefix="libpod-") as name:
        made = Podman(Path(name))
        try:
            yield made
            for _ in range(4):  # it does not look who depends on whom
                made("rm", "--all", "--force", "--time", "0", fails=True)
        finally:
            # podman binds this directory on itself, and leaves it so.
            unmount = ["umount", "--lazy", f"{name}/root/overlay"]
            subprocess.run(unmount, check=False, capture_output=True)


@pytest.fixture
def podman(fresh: Podman) -> Podman:
    fresh("ps")  # it makes its database
    return fresh


@pytest.fixture
def state(podman: Podman) -> Iterator[BoltState]:
    made = podman.state()
    yield made
    made.close()
