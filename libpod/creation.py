# SPDX-License-Identifier: Apache-2.0
"""How a container comes into being: lock, storage, record, in this order.

The record is last: a container that the state knows is complete.  Before that its
creator's claim (`owners`) says that somebody is at work, whatever the kind of the
locks; what a creation that was killed has left belongs to nobody and is found by
an audit.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from libpod import assemble, names
from libpod.container import STOP_TIMEOUT, Container
from libpod.errors import ContainerExists, LibpodError, NoSuchContainer, NoSuchPod
from libpod.failpoint import reach
from libpod.locks import FLOCK
from libpod.settings import RUNTIME_PATH
from libpod.state.handles import ContainerRecord
from libpod.state.records import AUTOREMOVE, ContainerConfig, ContainerState, ContainerStatus
from libpod.storage.errors import DuplicateName, NoSuchStorageContainer

if TYPE_CHECKING:
    from libpod.engine import Engine
    from libpod.locks import ObjectLock

_DRAWS = 8
"""How often a name is drawn that turns out to be taken."""

MakeSpec = Callable[[str, str, str, int], dict[str, Any]]
"""From ID, name, cgroup and time of creation (ns since the epoch) to an OCI spec, which is
then the record's."""


def create(
    engine: Engine,
    make_spec: MakeSpec,
    name: str | None,
    members: dict[str, Any],
    *,
    remove: bool = False,
    container_id: str | None = None,
    detach: bool | None = None,
) -> Container:
    """A configured container.

    `members` are those of `ContainerConfig` that were asked for; `remove` has it go
    at its end.  The ID is drawn where it is None.  A caller who will start the container
    at once, attached or not, says so by `detach`: its monitor is started along, and it
    stays claimed.

    Raises `InvalidArgument`, `ContainerExists` (the name is taken), `BadRecord` (a
    spec that podman could not live with), `LocksExhausted`, `SystemCallError`.
    """
    if name is not None:
        names.check_name(name)
    draws = _DRAWS if name is None else 1
    while True:
        chosen = name or names.unique_name(lambda drawn: is_taken(engine, drawn))
        draws -= 1
        try:
            return _create(engine, make_spec, chosen, members, remove, container_id, detach)
        except ContainerExists:  # of a drawn name: somebody drew it, too, and was faster
            if draws == 0:
                raise


def _create(
    engine: Engine,
    make_spec: MakeSpec,
    chosen: str,
    members: dict[str, Any],
    remove: bool,
    container_id: str | None,
    detach: bool | None,
) -> Container:
    container_id = container_id or names.new_id()
    created = time.time_ns()
    parent = members.get("cgroup_parent") or engine.cgroup_parent
    spec = make_spec(container_id, chosen, f"{parent}/libpod-{container_id}", created)
    _complete(spec, remove)
    directory = engine.store.container_dir(container_id)
    run_dir = engine.store.container_run_dir(container_id)
    shm_dir = f"{directory}/shm"
    chosen_members = {
        "id": container_id,
        "name": chosen,
        "created": created,
        "rootfs": spec["root"].get("path", ""),
        "cgroup_parent": parent,
        "cgroup_manager": engine.config.cgroup_manager,
        "static_dir": directory,
        "shm_dir": shm_dir,
        "mounts": [members.get("shm_dir", shm_dir)],
        "secrets_path": f"{directory}/secrets",
        "log_path": f"{directory}/ctr.log",
        "log_size": max(engine.config.max_log_size, 0),
        "conmon_pid_file": f"{run_dir}/conmon.pid",
        "pid_file": f"{run_dir}/pidfile",
        "oci_runtime": _runtime_name(engine),
        "namespace": engine.state.namespace,
        "stop_timeout": STOP_TIMEOUT,
        **members,
    }
    config = ContainerConfig(spec, **chosen_members)
    assemble.check(config, spec)
    begin = None if detach is None else (lambda made: made.begin(spec, detach))
    return _register(engine, config, run_dir, begin)


def _runtime_name(engine: Engine) -> str:
    """podman's: a path only where the name would not lead to it."""
    oci = engine.oci
    places = (path for path in RUNTIME_PATH if os.path.basename(path) == oci.name)
    return oci.name if next(filter(os.path.isfile, places), None) == oci.path else oci.path


def is_taken(engine: Engine, name: str) -> bool:
    """Also by the beginning of an ID: nobody could find the container by its name."""
    for lookup in (engine.state.lookup_container, engine.state.lookup_pod):
        with suppress(NoSuchContainer, NoSuchPod):
            lookup(name)
            return True
    return False


def _complete(spec: dict[str, Any], remove: bool) -> None:
    """What podman takes for granted in a spec, empty where nothing was said."""
    process = spec.setdefault("process", {})
    for key, nothing in (("env", []), ("cwd", "/"), ("capabilities", {})):
        process.setdefault(key, nothing)
    spec.setdefault("root", {})
    spec.setdefault("mounts", [])
    spec.setdefault("linux", {}).setdefault("namespaces", [])
    annotations = spec["annotations"] = dict(spec.get("annotations") or {})
    annotations[AUTOREMOVE] = "TRUE" if remove else "FALSE"


def _register(
    engine: Engine,
    config: ContainerConfig,
    run_dir: str,
    begin: Callable[[Container], None] | None,
) -> Container:
    """An interrupt may come at any moment, so what was made is undone by its name; nobody
    else knows the ID yet."""
    lock_id, lock, made = 0, None, None
    try:
        engine.owners.claim(config.id)
        reach("create.claimed")
        lock_id, lock = engine.locks.allocate(config.id)
        reach("create.locked")
        state = ContainerState(status=ContainerStatus.CONFIGURED, run_dir=run_dir)
        record = ContainerRecord.new(config.but(lock_id=lock_id), state)
        made = Container(engine, record, lock)
        _make_storage(engine, config, (lambda: None) if begin is None else partial(begin, made))
        reach("create.stored")
        engine.state.add_container(record)
        reach("create.recorded")
        if begin is None:
            engine.owners.disclaim(config.id)
        return made
    except BaseException as error:
        if isinstance(error, LibpodError):
            error.phase = error.phase or "prepare"
        with engine.reserve.freed():
            _undo(engine, config.id, lock_id, lock, made)
        raise


def _make_storage(engine: Engine, config: ContainerConfig, begin: Callable[[], None]) -> None:
    try:
        _store(engine, config, begin)
    except DuplicateName as error:
        raise ContainerExists(
            f'the container name "{config.name}" is in use by {error.container_id}',
            remedy="choose another name, or remove that container",
        ) from error
    reach("create.layered")
    if engine.config.share:  # podman looks there also where nothing is mounted
        assemble.make_shm_dir(config)


def _store(engine: Engine, config: ContainerConfig, begin: Callable[[], None]) -> None:
    """A name that only a creation which was killed has left is free."""
    # What goes at its end need not outlive a boot; where podman works on the same
    # store it must see the name.
    volatile = config.remove_at_end and not engine.config.share
    make = engine.store.create_volatile if volatile else engine.store.create_container
    try:
        make(config.id, config.name, begin=begin)
    except DuplicateName as error:
        from libpod import audit

        if not audit.clear(engine, error.container_id or ""):
            raise
        make(config.id, config.name, begin=begin)


def _undo(
    engine: Engine,
    container_id: str,
    lock_id: int,
    lock: ObjectLock | None,
    made: Container | None,
) -> None:
    if made is not None:
        made.abandon_begun()
        with suppress(LibpodError):
            engine.state.remove_container(made.record)
    with suppress(NoSuchStorageContainer):
        engine.store.delete_container(container_id)
    if lock is not None:  # the error's traceback may keep it for long
        lock.close()
    if lock is not None or engine.locks.kind == FLOCK:  # else 0 is another's lock
        engine.locks.free_given(container_id, lock_id)
    engine.owners.disclaim(container_id)
