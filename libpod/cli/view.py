# SPDX-License-Identifier: Apache-2.0
"""A container as listings and filters look at it: no more is read than is asked for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from libpod.state.records import ContainerStatus

if TYPE_CHECKING:
    from libpod.container import Container, ContainerState
    from libpod.state.handles import ContainerRecord
    from libpod.state.records import ContainerConfig
    from libpod.storage import StorageContainer

ENDED = frozenset((ContainerStatus.STOPPED, ContainerStatus.EXITED))
RUNS = frozenset((ContainerStatus.RUNNING, ContainerStatus.PAUSED, ContainerStatus.STOPPING))


class View:
    """A container whose record was just read, decoded as it is needed; and its state.

    `state` raises `ContainerRemoved` where it has gone since, and both raise
    `BadRecord` where the record cannot be read.
    """

    __slots__ = ("_state", "container", "record")

    def __init__(self, container: Container) -> None:
        self.container = container
        self.record: ContainerRecord = container.record
        self._state: ContainerState | None = None

    @property
    def config(self) -> ContainerConfig:
        return self.record.config

    @property
    def word(self) -> str:
        """podman's for its state."""
        return str(self.state.status)

    @property
    def state(self) -> ContainerState:
        """As it is now; read once."""
        if self._state is None:
            self._state = self.container.glance()
        return self._state


class Stranger(View):
    """A container of the store that the state does not know: some other program's."""

    __slots__ = ()

    word = "storage"

    def __init__(self, stored: StorageContainer) -> None:
        from libpod.container import ContainerState
        from libpod.state.handles import ContainerRecord
        from libpod.state.records import ContainerConfig

        config = ContainerConfig(
            {},
            id=stored.id,
            name=stored.name or "unknown",
            created=stored.created,
            command=["storage"],
            rootfs_image_id=stored.image_id,
            rootfs_image_name=_image_name(stored.metadata),
        )
        self.record = ContainerRecord.new(config)
        self._state = ContainerState(ContainerStatus.UNKNOWN, 0, 0, False, None, None)


def _image_name(metadata: str) -> str:
    try:
        name = json.loads(metadata)["image-name"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""  # each program writes what it likes there
    return name if isinstance(name, str) else ""
