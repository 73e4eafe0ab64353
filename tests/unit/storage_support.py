# SPDX-License-Identifier: Apache-2.0
"""What the tests of the container store share."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from libpod import failpoint
from libpod.errors import (
    SystemCallError,
)
from libpod.storage import (
    Store,
)


def opened(place: Path, **options: Any) -> Store:
    return Store(f"{place}/graph", f"{place}/run", **options)


def table(place: Path, name: str) -> Path:
    stems = {"containers": "overlay-containers", "layers": "overlay-layers",
             "images": "overlay-images"}  # fmt: skip
    return place / "graph" / stems[name] / f"{name}.json"


def records(place: Path, name: str) -> list[dict[str, Any]]:
    path = table(place, name)
    return list(json.loads(path.read_text())) if path.exists() else []


def token(place: Path, name: str) -> bytes:
    return table(place, name).with_suffix(".lock").read_bytes()


def on_disk(place: Path) -> set[str]:
    """Everything in the store but its files and empty rooms."""
    rooms = {"overlay", "overlay/l", "overlay-layers", "overlay-images", "overlay-containers"}
    found = {
        os.path.relpath(path, root)
        for root in (place / "graph", place / "run")
        for path in root.rglob("*")
    }
    return {path for path in found - rooms if not path.endswith((".lock", "s.json"))}


class _Recorder:
    """Stands for an armed failpoint: notes every place, ends nothing."""

    def __init__(self) -> None:
        self.name = self
        self.reached: list[str] = []

    def __eq__(self, name: object) -> bool:
        self.reached.append(str(name))
        return False

    __hash__ = None  # type: ignore[assignment]


def places_of(work: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The places that `work` reaches, as NAME:COUNT."""
    recorder = _Recorder()
    with monkeypatch.context() as patch:
        patch.setattr(failpoint, "_armed", recorder)
        work()
    reached = recorder.reached
    return [f"{name}:{reached[: at + 1].count(name)}" for at, name in enumerate(reached)]


def ended_at(place: str, action: str, work: Callable[[], object]) -> int:
    """The wait status of a child that does `work`, armed."""
    pid = os.fork()
    if pid == 0:
        try:
            failpoint._armed = failpoint._Armed(f"{place}={action}")
            work()
            os._exit(0)
        except SystemCallError as error:
            os._exit(0 if error.errno == errno.ENOSPC else 3)
        finally:
            os._exit(4)
    return os.waitpid(pid, 0)[1]


def spare(place: Path, name: str) -> Path:
    path = table(place, name)
    return path.with_name(f".libpod-{path.name}")
