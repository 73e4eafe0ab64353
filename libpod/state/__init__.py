# SPDX-License-Identifier: Apache-2.0
"""Which containers there are: the protocol of a state.

The contract, and the precedence of the ways to name a container, are those of
podman's `libpod/state.go`.  Every state is safe to use from many threads.
"""

from __future__ import annotations

from typing import Protocol, TypeVar


class Entry(Protocol):
    """What a state keeps: anything with an ID and a name."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...


ContainerT = TypeVar("ContainerT", bound=Entry)


class State(Protocol[ContainerT]):
    """A register of containers."""

    def add_container(self, container: ContainerT) -> None:
        """Raises `ContainerExists` where ID or name is taken."""

    def remove_container(self, container: ContainerT) -> None:
        """Raises `NoSuchContainer`."""

    def container(self, container_id: str) -> ContainerT:
        """By full ID.  Raises `EmptyID`, `NoSuchContainer`."""

    def lookup_container(self, id_or_name: str) -> ContainerT:
        """By full ID, by name or by unique beginning of an ID.  Raises `EmptyID`,
        `NoSuchContainer`, and `ContainerExists` where more than one matches."""

    def all_containers(self) -> list[ContainerT]: ...
    def close(self) -> None:
        """Releases the state; every later call raises `DBClosed`."""
