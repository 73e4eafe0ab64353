# SPDX-License-Identifier: Apache-2.0
"""The rules of a state, over any store of nested buckets.

Both states, in memory and on disk, are this class over their store.

Invariants, each held by every transaction:
 1. A container has a bucket in `ctr`, and a row in `all-ctrs`, `id-registry` and
    `name-registry`; a pod the same with `pod` and `allPods`.  Names and IDs are
    unique over both, whatever their namespaces.
 2. An object in a namespace has a row in `ns-registry` and the same in its bucket.
 3. `ctr/X/dependencies` lists who depends on X: a container is there once for
    each it needs, and none can be removed while this list has somebody.
 4. A container in a pod has the pod's ID in its bucket and is in the pod's
    `containers`; what it needs is in the same pod.
"""

from __future__ import annotations

import logging

from libpod.errors import (
    ContainerExists,
    EmptyID,
    InternalError,
    InvalidArgument,
    NoSuchPod,
    PodExists,
)
from libpod.state import records
from libpod.state.errors import BadRecord
from libpod.state.fields import parse_time
from libpod.state.handles import ContainerRecord, PodRecord
from libpod.state.tables import (
    ALL_CONTAINERS,
    CONFIG,
    CONTAINER,
    CONTAINERS,
    EXEC_SESSIONS,
    EXIT_CODE_TIMES,
    EXIT_CODES,
    ID_REGISTRY,
    MEMBERS,
    NAME_REGISTRY,
    NETNS,
    POD,
    POD_ID,
    PODS,
    SESSIONS,
    STATE,
    VOLUMES,
    Bucket,
    Tables,
    Transaction,
    inner,
    key_of,
    text_of,
)

log = logging.getLogger("libpod.state")


class Rules(Tables):
    """`libpod.state.State`, but for where the buckets are."""

    @property
    def namespace(self) -> str:
        return self._namespace

    def set_namespace(self, namespace: str) -> None:
        self._namespace = namespace

    def known_ids(self) -> set[str]:
        with self._begin() as tx:
            return set(map(text_of, self._top(tx, ID_REGISTRY)))

    # --- containers ------------------------------------------------------------

    def container(self, container_id: str) -> ContainerRecord:
        with self._begin() as tx:
            return self._read_container(tx, container_id, self._get(tx, CONTAINER, container_id))

    def lookup_container(self, id_or_name: str) -> ContainerRecord:
        with self._begin() as tx:
            found, bucket = self._lookup(tx, CONTAINER, id_or_name)
            return self._read_container(tx, found, bucket)

    def has_container(self, container_id: str) -> bool:
        return self._has(CONTAINER, container_id)

    def all_containers(self) -> list[ContainerRecord]:
        with self._begin() as tx:
            found = self._all(tx, CONTAINER)
            return [self._read_container(tx, i, bucket) for i, bucket in found]

    def add_container(self, container: ContainerRecord) -> None:
        if container.pod_id:
            raise InvalidArgument(
                f"cannot add a container that belongs to a pod: {container.id}",
                container_id=container.id,
                remedy="use add_container_to_pod",
            )
        self._add_container(container, None)

    def update_container(self, container: ContainerRecord) -> None:
        with self._begin() as tx:
            bucket = self._own(tx, CONTAINER, container)
            container.adopt(self._read_container(tx, container.id, bucket))

    def save_container(self, container: ContainerRecord, exit_code: int | None = None) -> None:
        with self._begin(write=True) as tx:
            bucket = self._own(tx, CONTAINER, container)
            state = self._encode(container, STATE, container.state, bucket.get(STATE))
            bucket.put(STATE, state)
            if container.netns:
                bucket.put(NETNS, key_of(container.netns))
            else:
                bucket.delete(NETNS)
            if exit_code is not None:
                self._put_exit_code(tx, container, exit_code)

    def remove_container(self, container: ContainerRecord) -> None:
        with self._begin(write=True) as tx:
            self._check_namespace(container.namespace, container.id)
            bucket = self._find(tx, CONTAINER, container)
            pod_id = text_of(bucket.get(POD_ID))
            if pod_id:
                raise PodExists(
                    f"container {container.id} is part of pod {pod_id}",
                    container_id=container.id,
                    remedy="use remove_container_from_pod",
                )
            self._remove_container(tx, container, bucket)

    def rename_container(self, container: ContainerRecord, name: str) -> None:
        with self._begin(write=True) as tx:
            bucket = self._own(tx, CONTAINER, container)
            stored = self._read_container(tx, container.id, bucket)
            if name == stored.name:
                return
            config = stored.config.but(name=name)
            self._check_free(tx, CONTAINER, None, name)
            raw = self._encode(container, CONFIG, config, stored.stored.config)
            bucket.put(CONFIG, raw)
            identifier, new = key_of(container.id), key_of(name)
            names = self._top(tx, NAME_REGISTRY)
            names.delete(key_of(stored.name))
            names.put(new, identifier)
            self._top(tx, ID_REGISTRY).put(identifier, new)
            self._top(tx, ALL_CONTAINERS).put(identifier, new)
            self._rename_mentions(tx, stored, new)
            container.adopt(self._read_container(tx, container.id, bucket))

    def container_in_use(self, container: ContainerRecord) -> list[str]:
        with self._begin() as tx:
            bucket = self._own(tx, CONTAINER, container)
            return self._dependents(container.id, bucket)

    # --- pods --------------------------------------------------------------------

    def pod(self, pod_id: str) -> PodRecord:
        with self._begin() as tx:
            return self._read_pod(tx, pod_id, self._get(tx, POD, pod_id))

    def lookup_pod(self, id_or_name: str) -> PodRecord:
        with self._begin() as tx:
            found, bucket = self._lookup(tx, POD, id_or_name)
            return self._read_pod(tx, found, bucket)

    def has_pod(self, pod_id: str) -> bool:
        return self._has(POD, pod_id)

    def all_pods(self) -> list[PodRecord]:
        with self._begin() as tx:
            return [self._read_pod(tx, i, bucket) for i, bucket in self._all(tx, POD)]

    def add_pod(self, pod: PodRecord) -> None:
        self._check_usable(POD, pod)
        config = self._encode(pod, CONFIG, pod.config)
        state = self._encode(pod, STATE, pod.state)
        with self._begin(write=True) as tx:
            bucket = self._register(tx, POD, pod)
            bucket.put(CONFIG, config)
            bucket.put(STATE, state)
            bucket.create_bucket(MEMBERS)

    def update_pod(self, pod: PodRecord) -> None:
        with self._begin() as tx:
            bucket = self._own(tx, POD, pod)
            pod.adopt(self._read_pod(tx, pod.id, bucket))

    def save_pod(self, pod: PodRecord) -> None:
        with self._begin(write=True) as tx:
            bucket = self._own(tx, POD, pod)
            bucket.put(STATE, self._encode(pod, STATE, pod.state, bucket.get(STATE)))

    def remove_pod(self, pod: PodRecord) -> None:
        with self._begin(write=True) as tx:
            bucket = self._own(tx, POD, pod)
            if next(iter(self._members(pod.id, bucket)), None) is not None:
                raise ContainerExists(
                    f"pod {pod.id} is not empty", remedy="remove its containers first"
                )
            self._unregister(tx, POD, pod.id)

    def pod_has_container(self, pod: PodRecord, container_id: str) -> bool:
        if not container_id:
            raise EmptyID("container ID cannot be empty")
        with self._begin() as tx:
            members = self._members(pod.id, self._own(tx, POD, pod))
            return members.get(key_of(container_id)) is not None

    def pod_containers_by_id(self, pod: PodRecord) -> list[str]:
        with self._begin() as tx:
            return list(map(text_of, self._members(pod.id, self._own(tx, POD, pod))))

    def pod_containers(self, pod: PodRecord) -> list[ContainerRecord]:
        with self._begin() as tx:
            members = self._members(pod.id, self._own(tx, POD, pod))
            found = [(i, self._listed(tx, CONTAINER, i)) for i in map(text_of, members)]
            return [self._read_container(tx, i, bucket) for i, bucket in found]

    def add_container_to_pod(self, pod: PodRecord, container: ContainerRecord) -> None:
        self._check_usable(POD, pod)
        if container.pod_id != pod.id:
            raise InvalidArgument(
                f"container {container.id} is not part of pod {pod.id}", container_id=container.id
            )
        self._add_container(container, pod)

    def remove_container_from_pod(self, pod: PodRecord, container: ContainerRecord) -> None:
        with self._begin(write=True) as tx:
            members = self._members(pod.id, self._own(tx, POD, pod))
            self._check_namespace(container.namespace, container.id)
            bucket = self._find(tx, CONTAINER, container)
            if not container.pod_id:
                raise NoSuchPod(f"container {container.id} is not part of a pod")
            if members.get(key_of(container.id)) is None:
                raise InvalidArgument(
                    f"container {container.id} is not part of pod {pod.id}",
                    container_id=container.id,
                )
            self._remove_container(tx, container, bucket)
            members.delete(key_of(container.id))

    def remove_pod_containers(self, pod: PodRecord) -> None:
        with self._begin(write=True) as tx:
            pod_bucket = self._own(tx, POD, pod)
            inside = list(map(text_of, self._members(pod.id, pod_bucket)))
            for identifier in inside:
                bucket = self._listed(tx, CONTAINER, identifier)
                outside = [i for i in self._dependents(identifier, bucket) if i not in inside]
                if outside:
                    raise ContainerExists(
                        f"container {identifier} has dependents outside pod {pod.id}: "
                        + ", ".join(outside),
                        container_id=identifier,
                    )
            for identifier in inside:
                self._forget(tx, identifier, self._listed(tx, CONTAINER, identifier))
            pod_bucket.delete_bucket(MEMBERS)
            pod_bucket.create_bucket(MEMBERS)

    # --- exit codes: they outlive their containers -----------------------------------

    def exit_code(self, container_id: str) -> int | None:
        with self._begin() as tx:
            raw = self._top(tx, EXIT_CODES).get(key_of(container_id))
        if raw is None:
            return None
        try:
            return int(raw)
        except ValueError as error:
            complaint = f"{raw!r:.40} is no number"
            raise BadRecord.at(self.path, "exit-code", container_id, complaint) from error

    def prune_exit_codes(self, before: int) -> None:
        with self._begin(write=True) as tx:
            codes, times = self._top(tx, EXIT_CODES), self._top(tx, EXIT_CODE_TIMES)
            for key in list(codes):
                if _older(times.get(key), before):
                    codes.delete(key)
                    times.delete(key)

    # --- after a reboot ---------------------------------------------------------------

    def refresh(self) -> None:
        with self._begin(write=True) as tx:
            for key in self._top(tx, ID_REGISTRY):
                try:
                    self._refresh_one(tx, key)
                except (BadRecord, InternalError) as error:
                    log.error("error refreshing %s: %s", text_of(key), error)
            volumes = self._top(tx, VOLUMES)
            for name in volumes:
                self._refresh_volume(volumes.bucket(name), text_of(name))
            for gone in (EXEC_SESSIONS, EXIT_CODES, EXIT_CODE_TIMES):
                bucket = self._top(tx, gone)
                for key in list(bucket):
                    bucket.delete(key)

    def _refresh_one(self, tx: Transaction, key: bytes) -> None:
        container = inner(self._top(tx, CONTAINERS), key)
        if container is not None:
            handle = self._read_container(tx, text_of(key), container, every_namespace=True)
            handle.state.reset()
            container.put(STATE, handle.state.encode())
            container.delete(NETNS)
            if inner(container, SESSIONS) is not None:
                container.delete_bucket(SESSIONS)
            return
        pod = inner(self._top(tx, PODS), key)
        if pod is None:
            raise InternalError(f"ID {text_of(key)} is neither a container nor a pod")
        found = self._read_pod(tx, text_of(key), pod, every_namespace=True)
        found.state.cgroup_path = ""
        pod.put(STATE, found.state.encode())

    def _refresh_volume(self, volume: Bucket, name: str) -> None:
        raw = volume.get(STATE)
        if raw is None:
            return
        try:
            fresh = records.reset_volume(raw)
        except ValueError as error:
            log.error("error refreshing volume %s: %s", name, error)
        else:
            volume.put(STATE, fresh)


def _older(moment: bytes | None, before: int) -> bool:
    """Whether a time is before this one; one that nobody can read is."""
    try:
        when = parse_time(text_of(moment))
    except ValueError:
        return True
    return when is None or when < before
