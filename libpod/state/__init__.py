# SPDX-License-Identifier: Apache-2.0
"""Which containers there are: the protocol of a state.

The contract, and the precedence of the ways to name a container, are those of
podman's `libpod/state.go`.  Every state is safe to use from many threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from libpod.container import Container


class State(Protocol):
    """A register of containers."""

    def add_container(self, container: Container) -> None:
        """Raises `ContainerExists` where ID or name is taken."""

    def remove_container(self, container: Container) -> None:
        """Raises `NoSuchContainer`."""

    def container(self, container_id: str) -> Container:
        """By full ID.  Raises `EmptyID`, `NoSuchContainer`."""

    def lookup_container(self, id_or_name: str) -> Container:
        """By full ID, by name or by unique beginning of an ID.  Raises `EmptyID`,
        `NoSuchContainer`, and `ContainerExists` where more than one matches."""

    def all_containers(self) -> list[Container]: ...
    def close(self) -> None:
        """Releases the state; every later call raises `DBClosed`."""
