# SPDX-License-Identifier: Apache-2.0
"""What is in a container store and belongs to nobody: what crashes left."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from libpod.storage.overlay import LINKS, Overlay
from libpod.storage.records import container_of, layer_of
from libpod.storage.snapshot import Snapshot
from libpod.storage.table import Hold

log = logging.getLogger("libpod.storage")

_ID = re.compile("[0-9a-f]{64}")

UnownedKind = Literal[
    "layer", "layer-directory", "layer-link", "container", "container-directory",
    "container-run-directory", "temporary",
]  # fmt: skip


class Unowned(NamedTuple):
    """Something in the store that nobody refers to, or that lacks its other half.

    Attributes:
        kind: "layer" (a record of no image and no container, or an incomplete
            one), "layer-directory", "layer-link", "container" (a record without
            its layer), "container-directory", "container-run-directory" or
            "temporary" (a version of a file that never came into force).
        name: the ID; of a link its name, of a temporary file its path.
        modified: nanoseconds since the epoch; 0 where it is not known.
    """

    kind: UnownedKind
    name: str
    modified: int


def find_unowned(
    layers: Hold, images: Hold, containers: Hold, overlay: Overlay, run_containers: str
) -> list[Unowned]:
    """All of it, by a caller that has the three tables locked.

    Args:
        overlay: where the layers are.
        run_containers: the parent of the containers' run directories.
    """
    known = containers.snapshot
    found = [
        *_records(layers.snapshot, images.snapshot, known),
        *_layers_on_disk(layers, images.snapshot, overlay),
        *_directories("container-directory", containers.table.directory, known),
        *_directories("container-run-directory", run_containers, known),
    ]
    for hold in (layers, images, containers):
        temporaries = hold.table.temporaries()
        found += [Unowned("temporary", path, _modified(path)) for path in temporaries]
    return found


def _records(layers: Snapshot, images: Snapshot, containers: Snapshot) -> Iterator[Unowned]:
    owned = images.used | containers.used | layers.used
    for key in layers.records:
        if key not in owned or key in layers.incomplete:
            yield Unowned("layer", key, layer_of(layers.records[key]).created or 0)
    for key in containers.records:
        container = container_of(containers.records[key])
        if container.layer_id and container.layer_id not in layers.records:
            yield Unowned("container", key, container.created or 0)


def _layers_on_disk(hold: Hold, images: Snapshot, overlay: Overlay) -> Iterator[Unowned]:
    layers = hold.snapshot
    lost = images.used.keys() - layers.records.keys()
    if lost:
        # Records of layers are missing: what is on the disk may be theirs.
        log.warning("%s lacks layers of images: %s", hold.table.path, ", ".join(sorted(lost)))
        return
    home = overlay.home
    for key in overlay.layers():
        if key not in layers.records:
            yield Unowned("layer-directory", key, _modified(f"{home}/{key}"))
    for link, key in overlay.links():
        if key not in layers.records and not os.path.lexists(f"{home}/{key}"):
            yield Unowned("layer-link", link, _modified(f"{home}/{LINKS}/{link}"))


def _directories(kind: UnownedKind, place: str, containers: Snapshot) -> Iterator[Unowned]:
    for key in filter(_ID.fullmatch, os.listdir(place)):
        if key not in containers.records:
            yield Unowned(kind, key, _modified(f"{place}/{key}"))


def _modified(path: str) -> int:
    try:
        return os.lstat(path).st_mtime_ns
    except OSError:  # it is gone by now
        return 0
