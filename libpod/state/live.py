# SPDX-License-Identifier: Apache-2.0
"""The containers that live in this process, as objects and not as records."""

from __future__ import annotations

import threading
from typing import Generic, Protocol, TypeVar

from libpod.errors import ContainerExists, DBClosed, EmptyID, NoSuchContainer


class Entry(Protocol):
    """What can be registered: anything with an ID and a name."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...


ContainerT = TypeVar("ContainerT", bound=Entry)


class LiveContainers(Generic[ContainerT]):
    """A register by ID and name; safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_id: dict[str, ContainerT] = {}
        self._by_name: dict[str, ContainerT] = {}
        self._closed = False

    def add_container(self, container: ContainerT) -> None:
        with self._lock:
            self._check()
            if container.id in self._by_id:
                raise ContainerExists(f"ID {container.id} is in use")
            if container.name in self._by_name:
                raise ContainerExists(
                    f'the container name "{container.name}" is in use by '
                    f"{self._by_name[container.name].id}",
                    remedy="choose another name, or remove that container",
                )
            self._by_id[container.id] = container
            self._by_name[container.name] = container

    def remove_container(self, container: ContainerT) -> None:
        with self._lock:
            self._check()
            if self._by_id.pop(container.id, None) is None:
                raise NoSuchContainer(f"no container with ID {container.id} found")
            del self._by_name[container.name]

    def container(self, container_id: str) -> ContainerT:
        with self._lock:
            self._check(container_id)
            found = self._by_id.get(container_id)
            if found is None:
                raise NoSuchContainer(f"no container with ID {container_id} found")
            return found

    def lookup_container(self, id_or_name: str) -> ContainerT:
        with self._lock:
            self._check(id_or_name)
            if id_or_name in self._by_id:
                return self._by_id[id_or_name]
            found = [c for i, c in self._by_id.items() if i.startswith(id_or_name)]
            named = self._by_name.get(id_or_name)
            if named is not None and named not in found:
                found.append(named)
            if len(found) > 1:
                raise ContainerExists(f"more than one result for ID or name {id_or_name}")
            if not found:
                raise NoSuchContainer(f"no container with name or ID {id_or_name} found")
            return found[0]

    def all_containers(self) -> list[ContainerT]:
        with self._lock:
            self._check()
            return [self._by_id[key] for key in sorted(self._by_id)]

    def close(self) -> None:
        with self._lock:
            self._closed = True

    def _check(self, wanted: str = "any") -> None:
        if self._closed:
            raise DBClosed("the state was closed")
        if not wanted:
            raise EmptyID("name or ID cannot be empty")
