# SPDX-License-Identifier: Apache-2.0
"""What the tests of the container store share."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from libpod.storage import (
    Store,
)

_opened: list[Store] = []


def opened(place: Path, **options: Any) -> Store:
    """A store, closed at the test's end: an error that a test keeps may keep it for longer."""
    _opened.append(Store(f"{place}/graph", f"{place}/run", **options))
    return _opened[-1]


def close_opened() -> None:
    while _opened:
        _opened.pop().close()


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


def spare(place: Path, name: str) -> Path:
    path = table(place, name)
    return path.with_name(f".libpod-{path.name}")
