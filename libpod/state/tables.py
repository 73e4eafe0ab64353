# SPDX-License-Identifier: Apache-2.0
"""The tables of a state: buckets, registries, and the rows of one object in them.

The buckets are podman 4.3.1's, which contain those of 2018; so are keys and
values.  `rules.py` says what is done with them, and has their invariants.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol, TypeVar

from libpod.errors import (
    ContainerExists,
    ContainerRemoved,
    DBBadConfig,
    EmptyID,
    InternalError,
    InvalidArgument,
    LibpodError,
    NamespaceMismatch,
    NoSuchContainer,
    NoSuchPod,
    PodExists,
    PodRemoved,
)
from libpod.state import records
from libpod.state.errors import BadRecord
from libpod.state.fields import Record, format_time
from libpod.state.handles import ContainerRecord, PodRecord, Stored

log = logging.getLogger("libpod.state")

ID_REGISTRY = b"id-registry"
NAME_REGISTRY = b"name-registry"
NS_REGISTRY = b"ns-registry"
CONTAINERS = b"ctr"
ALL_CONTAINERS = b"all-ctrs"
PODS = b"pod"
ALL_PODS = b"allPods"
VOLUMES = b"vol"
ALL_VOLUMES = b"allVolumes"
EXEC_SESSIONS = b"exec"
RUNTIME_CONFIG = b"runtime-config"
EXIT_CODES = b"exit-code"
EXIT_CODE_TIMES = b"exit-code-time-stamp"
VOLUME_CONTAINERS = b"volume-ctrs"

BUCKETS = (
    ID_REGISTRY,
    NAME_REGISTRY,
    NS_REGISTRY,
    CONTAINERS,
    ALL_CONTAINERS,
    PODS,
    ALL_PODS,
    VOLUMES,
    ALL_VOLUMES,
    EXEC_SESSIONS,
    RUNTIME_CONFIG,
    EXIT_CODES,
    EXIT_CODE_TIMES,
    VOLUME_CONTAINERS,
)

CONFIG = b"config"
STATE = b"state"
NAMESPACE = b"namespace"
POD_ID = b"pod-id"
NETNS = b"netns"
DEPENDENCIES = b"dependencies"
MEMBERS = b"containers"
SESSIONS = b"exec"
VOLUME_USERS = b"vol-dependencies"


class Bucket(Protocol):
    """A sorted table of pairs and of further buckets; `libpod.kv.Bucket` is one."""

    def bucket(self, name: bytes) -> Bucket:
        """Raises KeyError."""

    def create_bucket(self, name: bytes) -> Bucket: ...
    def create_bucket_if_not_exists(self, name: bytes) -> Bucket: ...
    def delete_bucket(self, name: bytes) -> None:
        """Raises KeyError."""

    def get(self, key: bytes) -> bytes | None:
        """None where there is no such pair."""

    def put(self, key: bytes, value: bytes) -> None: ...
    def delete(self, key: bytes) -> bool: ...
    def __iter__(self) -> Iterator[bytes]:
        """The keys in order, those of buckets too."""

    def keys(self, prefix: bytes | None = None) -> Iterator[bytes]:
        """Those that begin so."""


class Transaction(Protocol):
    """The top bucket; what was done in it is undone where its block raises."""

    def bucket(self, name: bytes) -> Bucket:
        """Raises KeyError."""

    def create_bucket_if_not_exists(self, name: bytes) -> Bucket: ...


class Kind(NamedTuple):
    """What differs between containers and pods in tables and errors."""

    word: str
    bucket: bytes
    all: bytes
    missing: type[LibpodError]
    exists: type[LibpodError]
    removed: type[LibpodError]


CONTAINER = Kind(
    "container", CONTAINERS, ALL_CONTAINERS, NoSuchContainer, ContainerExists, ContainerRemoved
)
POD = Kind("pod", PODS, ALL_PODS, NoSuchPod, PodExists, PodRemoved)

H = TypeVar("H", ContainerRecord, PodRecord)


def key_of(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"{text!r} is no name, ID or path: {error.reason}") from error


def text_of(key: bytes | None) -> str:
    return "" if key is None else key.decode("utf-8", "surrogateescape")


def inner(bucket: Bucket, name: bytes) -> Bucket | None:
    """The bucket of this name in another one, or None."""
    try:
        return bucket.bucket(name)
    except KeyError:
        return None


class Tables:
    """How objects are found, read, written and struck out in a transaction."""

    path: str | None = None
    """The database file, for messages; None in memory."""

    def __init__(self) -> None:
        self._namespace = ""

    def _begin(self, write: bool = False) -> AbstractContextManager[Transaction]:
        raise NotImplementedError

    # --- finding -----------------------------------------------------------------

    def _top(self, tx: Transaction, name: bytes) -> Bucket:
        try:
            return tx.bucket(name)
        except KeyError:
            raise DBBadConfig(
                f"{self.path or 'memory'}: {text_of(name)} bucket not found in DB",
                remedy="open the state anew: what is missing is made then",
            ) from None

    def _get(self, tx: Transaction, kind: Kind, identifier: str) -> Bucket:
        if not identifier:
            raise EmptyID(f"{kind.word} ID cannot be empty")
        bucket = inner(self._top(tx, kind.bucket), key_of(identifier))
        if bucket is None:
            raise kind.missing(f"no {kind.word} with ID {identifier} found")
        return bucket

    def _has(self, kind: Kind, identifier: str) -> bool:
        try:
            with self._begin() as tx:
                bucket = self._get(tx, kind, identifier)
                return self._sees(text_of(bucket.get(NAMESPACE)))
        except kind.missing:
            return False

    def _lookup(self, tx: Transaction, kind: Kind, wanted: str) -> tuple[str, Bucket]:
        """The full ID wins; a name and the beginnings of IDs, of containers and pods
        alike, must agree."""
        if not wanted:
            raise EmptyID(f"{kind.word} name or ID cannot be empty")
        exact = inner(self._top(tx, kind.bucket), key_of(wanted))
        if exact is not None:
            return wanted, exact
        found = self._matches(tx, key_of(wanted))
        if len(found) > 1:
            raise kind.exists(
                f"more than one result for ID or name {wanted}", remedy="give more of the ID"
            )
        for key in found:
            bucket = inner(self._top(tx, kind.bucket), key)
            if bucket is not None:
                return text_of(key), bucket
        raise kind.missing(f"no {kind.word} with name or ID {wanted} found")

    def _matches(self, tx: Transaction, wanted: bytes) -> set[bytes]:
        """IDs that are meant, in this namespace; at most two, which is one too many."""
        found = set()
        named = self._top(tx, NAME_REGISTRY).get(wanted)
        if named is not None and self._registered_here(tx, named):
            found.add(named)
        for key in self._top(tx, ID_REGISTRY).keys(prefix=wanted):
            if self._registered_here(tx, key):
                found.add(key)
                if len(found) > 1:
                    break
        return found

    def _registered_here(self, tx: Transaction, key: bytes) -> bool:
        return not self._namespace or self._sees(text_of(self._top(tx, NS_REGISTRY).get(key)))

    def _all(self, tx: Transaction, kind: Kind) -> list[tuple[str, Bucket]]:
        """Those of this namespace, by ID."""
        found = []
        for identifier in map(text_of, self._top(tx, kind.all)):
            bucket = self._listed(tx, kind, identifier)
            if not self._namespace or self._sees(text_of(bucket.get(NAMESPACE))):
                found.append((identifier, bucket))
        return found

    def _listed(self, tx: Transaction, kind: Kind, identifier: str) -> Bucket:
        """The bucket of an object that another bucket lists."""
        bucket = inner(self._top(tx, kind.bucket), key_of(identifier))
        if bucket is None:
            raise InternalError(
                f"{self.path or 'memory'}: {kind.word} {identifier} is listed, but there is no "
                f"bucket {text_of(kind.bucket)}/{identifier}"
            )
        return bucket

    def _find(self, tx: Transaction, kind: Kind, handle: ContainerRecord | PodRecord) -> Bucket:
        """The bucket of a handle's object; where it is gone, the handle learns it."""
        bucket = inner(self._top(tx, kind.bucket), key_of(handle.id))
        if bucket is None:
            handle.valid = False
            raise kind.missing(f"no {kind.word} with ID {handle.id} found in the state")
        return bucket

    def _own(self, tx: Transaction, kind: Kind, handle: ContainerRecord | PodRecord) -> Bucket:
        self._check_usable(kind, handle)
        return self._find(tx, kind, handle)

    def _check_usable(self, kind: Kind, handle: ContainerRecord | PodRecord) -> None:
        if not handle.valid:
            raise kind.removed(f"{kind.word} {handle.id} has already been removed")
        self._check_namespace(handle.namespace, handle.id)

    def _sees(self, namespace: str) -> bool:
        return not self._namespace or namespace == self._namespace

    def _check_namespace(self, namespace: str, identifier: str) -> None:
        if not self._sees(namespace):
            raise NamespaceMismatch(
                f'{identifier} is in namespace "{namespace}", but we are in namespace '
                f'"{self._namespace}"',
                remedy="open a runtime in its namespace, or in none",
            )

    # --- reading and writing records ---------------------------------------------

    def _read_container(
        self, tx: Transaction, identifier: str, bucket: Bucket, *, every_namespace: bool = False
    ) -> ContainerRecord:
        stored = Stored(self.path, f"ctr/{identifier}", bucket.get(CONFIG), bucket.get(STATE))
        handle = ContainerRecord(identifier, stored)
        handle.pod_id = text_of(bucket.get(POD_ID))
        handle.netns = text_of(bucket.get(NETNS))
        self._identify(tx, CONTAINER, handle, bucket, every_namespace)
        return handle

    def _read_pod(
        self, tx: Transaction, identifier: str, bucket: Bucket, *, every_namespace: bool = False
    ) -> PodRecord:
        stored = Stored(self.path, f"pod/{identifier}", bucket.get(CONFIG), bucket.get(STATE))
        handle = PodRecord(identifier, stored)
        self._identify(tx, POD, handle, bucket, every_namespace)
        return handle

    def _identify(
        self,
        tx: Transaction,
        kind: Kind,
        handle: ContainerRecord | PodRecord,
        bucket: Bucket,
        every_namespace: bool,
    ) -> None:
        handle.namespace = text_of(bucket.get(NAMESPACE))
        if not every_namespace:
            self._check_namespace(handle.namespace, handle.id)
        key = key_of(handle.id)
        name = self._top(tx, ID_REGISTRY).get(key) or self._top(tx, kind.all).get(key)
        handle.name = text_of(name)

    def _encode(
        self,
        handle: ContainerRecord | PodRecord,
        key: bytes,
        record: Record,
        stored: bytes | None = None,
    ) -> bytes:
        """A record's JSON, after everything about it was checked.  Raises `BadRecord`."""
        try:
            records.check(record)
            return record.encode(stored)
        except ValueError as error:
            raise BadRecord.at(
                self.path, handle.stored.bucket, text_of(key), str(error), fault="job"
            ) from error

    # --- adding and removing -----------------------------------------------------

    def _check_free(self, tx: Transaction, kind: Kind, identifier: str | None, name: str) -> None:
        """That neither a container nor a pod, in any namespace, has this ID or name."""
        if identifier is not None:
            key = key_of(identifier)
            buckets = (self._top(tx, k.bucket) for k in (CONTAINER, POD))
            if self._top(tx, ID_REGISTRY).get(key) is not None or any(
                inner(bucket, key) is not None for bucket in buckets
            ):
                raise kind.exists(f"ID {identifier} is in use", remedy="choose another ID")
        owner = self._top(tx, NAME_REGISTRY).get(key_of(name))
        if owner is not None:
            raise kind.exists(
                f'the {kind.word} name "{name}" is in use by {text_of(owner)}',
                remedy=f"choose another name, or remove that {kind.word}",
            )

    def _register(self, tx: Transaction, kind: Kind, handle: ContainerRecord | PodRecord) -> Bucket:
        """The new object's bucket, with its rows in the registries."""
        self._check_free(tx, kind, handle.id, handle.name)
        key, name = key_of(handle.id), key_of(handle.name)
        self._top(tx, ID_REGISTRY).put(key, name)
        self._top(tx, NAME_REGISTRY).put(name, key)
        self._top(tx, kind.all).put(key, name)
        bucket = self._top(tx, kind.bucket).create_bucket(key)
        if handle.namespace:
            self._top(tx, NS_REGISTRY).put(key, key_of(handle.namespace))
            bucket.put(NAMESPACE, key_of(handle.namespace))
        return bucket

    def _unregister(self, tx: Transaction, kind: Kind, identifier: str) -> None:
        key = key_of(identifier)
        everywhere, ids = self._top(tx, kind.all), self._top(tx, ID_REGISTRY)
        names = self._top(tx, NAME_REGISTRY)
        name = ids.get(key) or everywhere.get(key)
        if name is not None and names.get(name) == key:
            names.delete(name)
        ids.delete(key)
        everywhere.delete(key)
        self._top(tx, NS_REGISTRY).delete(key)
        self._top(tx, kind.bucket).delete_bucket(key)

    def _add_container(self, container: ContainerRecord, pod: PodRecord | None) -> None:
        self._check_usable(CONTAINER, container)
        config = self._encode(container, CONFIG, container.config)
        state = self._encode(container, STATE, container.state)
        with self._begin(write=True) as tx:
            members = None if pod is None else self._joined_pod(tx, pod, container)
            bucket = self._register(tx, CONTAINER, container)
            bucket.put(CONFIG, config)
            bucket.put(STATE, state)
            bucket.create_bucket(DEPENDENCIES)
            if container.netns:
                bucket.put(NETNS, key_of(container.netns))
            for needed in container.config.depends_on:
                self._depend(tx, container, needed)
            if members is not None:
                bucket.put(POD_ID, key_of(container.pod_id))
                members.put(key_of(container.id), key_of(container.name))
        container.stored = Stored(self.path, container.stored.bucket, config, state)

    def _joined_pod(self, tx: Transaction, pod: PodRecord, container: ContainerRecord) -> Bucket:
        """The members of the pod that a new container joins."""
        bucket = self._find(tx, POD, pod)
        namespace = text_of(bucket.get(NAMESPACE))
        if namespace != container.namespace:
            raise NamespaceMismatch(
                f'container {container.id} is in namespace "{container.namespace}" and pod '
                f'{pod.id} in namespace "{namespace}"',
                container_id=container.id,
            )
        return self._members(pod.id, bucket)

    def _depend(self, tx: Transaction, container: ContainerRecord, needed: str) -> None:
        bucket = inner(self._top(tx, CONTAINERS), key_of(needed))
        if bucket is None or needed == container.id:
            raise NoSuchContainer(
                f"container {container.id} depends on {needed}, which is no container",
                container_id=container.id,
            )
        pod_id = text_of(bucket.get(POD_ID))
        if pod_id != container.pod_id:
            raise InvalidArgument(
                f"container {container.id} depends on {needed}, which is "
                + (f"in pod {pod_id}" if pod_id else "in no pod"),
                container_id=container.id,
                remedy="containers depend on containers of their own pod, or all are in none",
            )
        namespace = text_of(bucket.get(NAMESPACE))
        if namespace != container.namespace:
            raise NamespaceMismatch(
                f'container {container.id} is in namespace "{container.namespace}", but depends '
                f'on {needed} in namespace "{namespace}"',
                container_id=container.id,
            )
        users = bucket.create_bucket_if_not_exists(DEPENDENCIES)
        users.put(key_of(container.id), key_of(container.name))

    def _remove_container(
        self, tx: Transaction, container: ContainerRecord, bucket: Bucket
    ) -> None:
        identifier = container.id
        dependents = self._dependents(identifier, bucket)
        if dependents:
            raise ContainerExists(
                f"container {identifier} has dependent containers which must be removed before "
                f"it: {', '.join(dependents)}",
                container_id=identifier,
            )
        self._forget(tx, identifier, bucket, container)

    def _forget(
        self,
        tx: Transaction,
        identifier: str,
        bucket: Bucket,
        known: ContainerRecord | None = None,
    ) -> None:
        """Every row of a container but that in its pod; `known` may have its config decoded."""
        key = key_of(identifier)
        sessions = inner(bucket, SESSIONS)
        for session in list(sessions) if sessions is not None else ():
            self._top(tx, EXEC_SESSIONS).delete(session)
        stored = Stored(self.path, f"ctr/{identifier}", bucket.get(CONFIG), None)
        container = ContainerRecord(identifier, stored)
        if known is not None:
            container.recall(known)
        for mention in self._mentions(tx, container):
            mention.delete(key)
        self._unregister(tx, CONTAINER, identifier)

    def _mentions(self, tx: Transaction, container: ContainerRecord) -> list[Bucket]:
        """The buckets of others that name this container, its pod's aside.

        A container whose config cannot be read can be removed all the same: then
        everybody is asked.
        """
        containers, volumes = self._top(tx, CONTAINERS), self._top(tx, VOLUMES)
        try:
            config = container.config
        except BadRecord as error:
            log.warning("%s; looking everywhere for what it needs", error.message)
            needed, used = list(containers), list(volumes)
        else:
            needed = list(map(key_of, config.depends_on))
            used = list(map(key_of, config.volume_names))
        found = [(containers, name, DEPENDENCIES) for name in needed]
        found += [(volumes, name, VOLUME_USERS) for name in used]
        owners = ((inner(top, name), part) for top, name, part in found)
        parts = (inner(owner, part) for owner, part in owners if owner is not None)
        return [part for part in parts if part is not None]

    def _rename_mentions(self, tx: Transaction, container: ContainerRecord, name: bytes) -> None:
        """A new name in the lists of others; those of volumes have IDs only."""
        for needed in container.config.depends_on:
            bucket = self._listed(tx, CONTAINER, needed)
            bucket.create_bucket_if_not_exists(DEPENDENCIES).put(key_of(container.id), name)
        if container.pod_id:
            pod = self._listed(tx, POD, container.pod_id)
            self._members(container.pod_id, pod).put(key_of(container.id), name)

    def _members(self, identifier: str, bucket: Bucket) -> Bucket:
        members = inner(bucket, MEMBERS)
        if members is None:
            raise InternalError(
                f"{self.path or 'memory'}: bucket pod/{identifier} has no bucket containers"
            )
        return members

    def _dependents(self, identifier: str, bucket: Bucket) -> list[str]:
        users = inner(bucket, DEPENDENCIES)
        if users is None:  # a damaged record must be removable
            log.warning("container %s has no list of dependents; taking it for empty", identifier)
            return []
        return list(map(text_of, users))

    def _put_exit_code(self, tx: Transaction, container: ContainerRecord, exit_code: int) -> None:
        key = key_of(container.id)
        self._top(tx, EXIT_CODES).put(key, str(exit_code).encode())
        moment = format_time(container.state.finished or time.time_ns())
        self._top(tx, EXIT_CODE_TIMES).put(key, moment.encode())
