# SPDX-License-Identifier: Apache-2.0
"""Which containers and pods there are: the protocol of a state.

The contract, and the precedence of the ways to name a container, are those of
podman's `libpod/state.go`; both states keep it by the same rules, `rules.py`.
A state deals in records: a `ContainerRecord` or `PodRecord` is what was
recorded when it was read, and what is recorded when it is saved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from libpod.errors import InvalidArgument
from libpod.settings import StateType

if TYPE_CHECKING:
    from collections.abc import Collection

    from libpod.state.handles import ContainerRecord, PodRecord
    from libpod.state.paths import RuntimePaths


class State(Protocol):
    """A register of containers and pods, safe to use from many threads.

    Every call but `close` raises `DBClosed` once it is closed.  Each change is one
    transaction: it is made whole or not at all.

    In a namespace (`set_namespace`) only what is in it can be found: a full ID of
    another namespace raises `NamespaceMismatch`, lookups and lists pass it over,
    `has_...` say no, and changes are refused.  Without one everything is there.
    Names and IDs are unique over all namespaces, containers and pods alike.

    A handle that the state finds gone gets `valid = False`; one that is not valid
    is refused with `ContainerRemoved` or `PodRemoved`.
    """

    @property
    def namespace(self) -> str: ...
    def set_namespace(self, namespace: str) -> None:
        """Keeps to this namespace from now on; "" is none."""

    def close(self) -> None:
        """Releases the state; once more is no error."""

    def refresh(self) -> None:
        """After a reboot, in all namespaces: no container runs, nothing is mounted, no
        network namespace, exec session or pod cgroup is there.  An object whose
        record cannot be read is logged and left."""

    def known_ids(self) -> set[str]:
        """Those of all containers and pods, in all namespaces."""

    # --- containers

    def container(self, container_id: str) -> ContainerRecord:
        """By full ID.  Raises `EmptyID`, `NoSuchContainer`, `NamespaceMismatch`."""

    def lookup_container(self, id_or_name: str) -> ContainerRecord:
        """By full ID; else by name or by the unique beginning of an ID.

        A name that is also the beginning of another's ID is ambiguous, and so is a
        beginning that a container and a pod have in common.  Raises `EmptyID`,
        `NoSuchContainer`, `ContainerExists` where more than one is meant."""

    def has_container(self, container_id: str) -> bool:
        """By full ID.  Raises `EmptyID`."""

    def all_containers(self) -> list[ContainerRecord]:
        """In the order of their IDs, as one moment saw them, nothing decoded."""

    def add_container(self, container: ContainerRecord) -> None:
        """Adds one that is in no pod.

        All that it depends on must be there (`NoSuchContainer`), in no pod
        (`InvalidArgument`) and in the same namespace (`NamespaceMismatch`).  Raises
        `ContainerExists` where its ID or name is taken, `BadRecord` where podman
        could not manage it."""

    def update_container(self, container: ContainerRecord) -> None:
        """Reads it anew: config, state and network namespace.  Raises `NoSuchContainer`."""

    def save_container(self, container: ContainerRecord, exit_code: int | None = None) -> None:
        """Writes its state and network namespace, and its exit code for those who ask
        when it is gone.  Members of the stored state that are unknown here are kept.
        Raises `NoSuchContainer`, `BadRecord`."""

    def rename_container(self, container: ContainerRecord, name: str) -> None:
        """Gives it another name, everywhere.  Raises `ContainerExists`, `BadRecord`."""

    def remove_container(self, container: ContainerRecord) -> None:
        """Raises `NoSuchContainer`, `PodExists` where it is in a pod, `ContainerExists`
        where others depend on it."""

    def container_in_use(self, container: ContainerRecord) -> list[str]:
        """IDs of the containers that depend on it."""

    def exit_code(self, container_id: str) -> int | None:
        """What the last save with an exit code left, also after the removal; or None."""

    def prune_exit_codes(self, before: int) -> None:
        """Forgets those of containers that ended before this time (ns since the epoch)."""

    # --- pods

    def pod(self, pod_id: str) -> PodRecord:
        """By full ID.  Raises `EmptyID`, `NoSuchPod`, `NamespaceMismatch`."""

    def lookup_pod(self, id_or_name: str) -> PodRecord:
        """Like `lookup_container`.  Raises `EmptyID`, `NoSuchPod`, `PodExists`."""

    def has_pod(self, pod_id: str) -> bool:
        """By full ID.  Raises `EmptyID`."""

    def all_pods(self) -> list[PodRecord]:
        """In the order of their IDs."""

    def add_pod(self, pod: PodRecord) -> None:
        """Raises `PodExists` where its ID or name is taken, `BadRecord`."""

    def update_pod(self, pod: PodRecord) -> None:
        """Reads it anew.  Raises `NoSuchPod`."""

    def save_pod(self, pod: PodRecord) -> None:
        """Writes its state.  Raises `NoSuchPod`, `BadRecord`."""

    def remove_pod(self, pod: PodRecord) -> None:
        """Raises `NoSuchPod`, `ContainerExists` where it is not empty."""

    def pod_has_container(self, pod: PodRecord, container_id: str) -> bool:
        """By full ID.  Raises `EmptyID`, `NoSuchPod`."""

    def pod_containers_by_id(self, pod: PodRecord) -> list[str]:
        """IDs of its containers.  Raises `NoSuchPod`."""

    def pod_containers(self, pod: PodRecord) -> list[ContainerRecord]:
        """Its containers.  Raises `NoSuchPod`."""

    def add_container_to_pod(self, pod: PodRecord, container: ContainerRecord) -> None:
        """Adds a container whose config names this pod.

        Raises what `add_container` does, `NoSuchPod`, and `NamespaceMismatch` where the
        pod's namespace differs; what it depends on must be in this pod."""

    def remove_container_from_pod(self, pod: PodRecord, container: ContainerRecord) -> None:
        """Removes a container of this pod from the state.

        Raises `NoSuchPod` where pod or membership is not there, `NoSuchContainer`,
        `InvalidArgument` where it is in another pod, `ContainerExists` where others
        depend on it."""

    def remove_pod_containers(self, pod: PodRecord) -> None:
        """Removes all containers of a pod at once, whatever depends on what in it.

        Raises `NoSuchPod`, `ContainerExists` where somebody outside depends on one."""


class OpenedState(NamedTuple):
    state: State
    paths: RuntimePaths
    """The directories that hold from now on."""


def open_state(
    state_type: StateType,
    path: str,
    ours: RuntimePaths,
    explicit: Collection[str] = (),
    defaults: RuntimePaths | None = None,
) -> OpenedState:
    """The state of this type; `path` is the database, the rest as for `BoltState`.

    Raises `InvalidArgument` for SQLite, which is disabled as in the original, and for
    a type that is unknown.
    """
    if state_type == StateType.IN_MEMORY:
        from libpod.state.memory import MemoryState

        return OpenedState(MemoryState(), ours)
    if state_type == StateType.BOLTDB:
        from libpod.state.bolt import BoltState

        opened = BoltState(path, ours, explicit, defaults=defaults)
        return OpenedState(opened, opened.paths)
    if state_type == StateType.SQLITE:
        raise InvalidArgument("SQLite state is currently disabled")
    raise InvalidArgument("unrecognized state type passed")
