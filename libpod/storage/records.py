# SPDX-License-Identifier: Apache-2.0
"""The records of containers and layers: what is in the store's JSON, and what we show of it."""

from __future__ import annotations

import json
from typing import NamedTuple

from libpod.state.fields import format_time, parse_time
from libpod.storage.snapshot import Members


class StorageContainer(NamedTuple):
    """A container of the store.

    Attributes:
        image_id: "" for a root file system of its own.
        layer_id: its layer for writing; "" where it has none.
        metadata: what the program that made it wrote about it: for podman's and ours
            a JSON object with image-name, image-id, name and created-at.
        created: nanoseconds since the epoch, None where nobody said.
    """

    id: str
    names: tuple[str, ...]
    image_id: str
    layer_id: str
    metadata: str
    created: int | None

    @property
    def name(self) -> str:
        """Its first name; "" where it has none."""
        return self.names[0] if self.names else ""


class Layer(NamedTuple):
    """A layer of an image or of a container; members as of `StorageContainer`.

    Attributes:
        parent_id: the layer that it stands on, "" for none.
        incomplete: a crash left it half made or half removed.
    """

    id: str
    names: tuple[str, ...]
    parent_id: str
    created: int | None
    incomplete: bool


def new_record(
    container_id: str, name: str, layer_id: str, image_id: str, image_name: str, now: int
) -> Members:
    metadata = {
        "image-name": image_name,
        "image-id": image_id,
        "name": name,
        "created-at": now // 1_000_000_000,
    }
    return {
        "id": container_id,
        "names": [name],
        "image": image_id,
        "layer": layer_id,
        "metadata": json.dumps(metadata, separators=(",", ":")),
        "created": format_time(now),
        "flags": {"MountLabel": "", "ProcessLabel": ""},
    }


def without_name(record: Members, name: str) -> Members:
    names = [other for other in record["names"] if other != name]
    members = {**record, "names": names}
    return members if names else {key: members[key] for key in members if key != "names"}


def container_of(record: Members) -> StorageContainer:
    return StorageContainer(
        record["id"],
        tuple(record.get("names") or ()),
        str(record.get("image") or ""),
        str(record.get("layer") or ""),
        str(record.get("metadata") or ""),
        _time(record),
    )


def layer_of(record: Members) -> Layer:
    return Layer(
        record["id"],
        tuple(record.get("names") or ()),
        str(record.get("parent") or ""),
        _time(record),
        bool((record.get("flags") or {}).get("incomplete")),
    )


def _time(record: Members) -> int | None:
    try:
        return parse_time(record.get("created") or "")
    except (ValueError, TypeError):
        return None
