# SPDX-License-Identifier: Apache-2.0
"""What a state hands out and takes: containers and pods as they are recorded.

A handle keeps the JSON as it was read and decodes it when somebody asks.  It is
a snapshot: `update_container` and `update_pod` of a state bring it up to date.
Handles belong to one thread at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Generic, NamedTuple, TypeVar

from libpod.state.errors import BadRecord
from libpod.state.fields import Record
from libpod.state.records import ContainerConfig, ContainerState, PodConfig, PodState

if TYPE_CHECKING:
    from typing_extensions import Self

R = TypeVar("R", bound=Record)
C = TypeVar("C", ContainerConfig, PodConfig)
S = TypeVar("S", ContainerState, PodState)


class Stored(NamedTuple):
    """An object's JSON as it was read, and where that was."""

    path: str | None
    bucket: str
    config: bytes | None
    state: bytes | None

    @classmethod
    def nowhere(cls, bucket: str, identifier: str) -> Stored:
        """Of an object that no state has yet."""
        return cls(None, f"{bucket}/{identifier}", None, None)

    def decode(self, kind: type[R], key: str, raw: bytes | None) -> R:
        """Raises `BadRecord`."""
        if raw is None:
            raise self.bad(key, "there is no such record")
        try:
            return kind.decode(raw)
        except ValueError as error:
            raise self.bad(key, str(error)) from error

    def bad(self, key: str, complaint: str) -> BadRecord:
        remedy = "remove the object, or restore the database from a copy"
        return BadRecord.at(self.path, self.bucket, key, complaint, remedy=remedy)


class Handle(Generic[C, S]):
    """What containers and pods have in common.

    `id`, `name` and `namespace` are there at once; `config` and `state` are decoded
    at their first use, which raises `BadRecord` where they cannot be.  `valid` is
    False once the state has found the object gone.
    """

    __slots__ = ("_config", "_state", "id", "name", "namespace", "stored", "valid")

    bucket: ClassVar[str]
    config_type: type[C]
    state_type: type[S]
    _kept: ClassVar[tuple[str, ...]] = ("name", "namespace", "stored", "_state")

    def __init__(self, identifier: str, stored: Stored) -> None:
        self.id = identifier
        self.name = ""
        self.namespace = ""
        self.valid = True
        self.stored = stored
        self._config: C | None = None
        self._state: S | None = None

    @property
    def config(self) -> C:
        if self._config is None:
            config = self.stored.decode(self.config_type, "config", self.stored.config)
            if config.id != self.id:
                raise self.stored.bad("config", f"its id is {config.id!r}")
            self._config = config
        return self._config

    @property
    def state(self) -> S:
        """The caller's own until it is saved; an update replaces the object."""
        if self._state is None:
            self._state = self.stored.decode(self.state_type, "state", self.stored.state)
        return self._state

    @state.setter
    def state(self, state: S) -> None:
        self._state = state

    def recall(self, other: Self) -> None:
        """Takes over the config that `other` has decoded from the same text."""
        if self._config is None and other.stored.config == self.stored.config:
            self._config = other._config

    def adopt(self, other: Self) -> None:
        """Becomes what was read anew; a config that is the same stays decoded."""
        if other.stored.config != self.stored.config:
            self._config = None
        for name in self._kept:
            setattr(self, name, getattr(other, name))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.id[:12]}>"


class ContainerRecord(Handle[ContainerConfig, ContainerState]):
    """A container as the state knows it.

    `pod_id` is "" outside a pod, `netns`, the path of its network namespace, ""
    where it has none of its own.
    """

    __slots__ = ("netns", "pod_id")

    bucket = "ctr"
    config_type = ContainerConfig
    state_type = ContainerState
    _kept = (*Handle._kept, "pod_id", "netns")

    pod_id: str
    netns: str

    @classmethod
    def new(
        cls, config: ContainerConfig, state: ContainerState | None = None, netns: str = ""
    ) -> Self:
        """A container for `add_container` or `add_container_to_pod`."""
        record = cls(config.id, Stored.nowhere(cls.bucket, config.id))
        record._config = config
        record._state = state or ContainerState()
        record.name = config.name
        record.namespace = config.namespace
        record.pod_id = config.pod
        record.netns = netns
        return record


class PodRecord(Handle[PodConfig, PodState]):
    """A pod as the state knows it."""

    __slots__ = ()

    bucket = "pod"
    config_type = PodConfig
    state_type = PodState

    @classmethod
    def new(cls, config: PodConfig, state: PodState | None = None) -> Self:
        """A pod for `add_pod`."""
        record = cls(config.id, Stored.nowhere(cls.bucket, config.id))
        record._config = config
        record._state = state or PodState()
        record.name = config.name
        record.namespace = config.namespace
        return record
