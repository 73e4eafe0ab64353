# SPDX-License-Identifier: Apache-2.0
"""After a reboot: what was recorded of the last boot is brought up to date, once.

The file `alive` in the tmpdir, which a reboot clears, says that it was done; the
lock beside it, which podman takes too, lets one program do it.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from libpod.errors import LibpodError, LockTaken, SystemCallError
from libpod.failpoint import reach
from libpod.lockfile import RecordLock

if TYPE_CHECKING:
    from libpod.locks import LockManager
    from libpod.state import State
    from libpod.state.handles import ContainerRecord
    from libpod.storage import Store

log = logging.getLogger("libpod.refresh")

ALIVE_TIMEOUT = 60.0
"""Seconds to wait for another process that is opening the same directories."""


def refresh_once(tmp_dir: str, state: State, store: Store, locks: LockManager) -> bool:
    """Refreshes unless that was done since the last boot: whether it did.

    Nobody who opens the same directories goes on before it is done.  An object that
    cannot be refreshed is logged and left: the others matter more (the original of
    summer 2018 gave up).  Raises `LockTimeout`, `SystemCallError`, and what the state
    raises where it cannot be read at all.
    """
    path = f"{tmp_dir}/alive"
    alive = RecordLock(f"{tmp_dir}/alive.lck")
    try:
        with alive.held(ALIVE_TIMEOUT):
            if os.path.exists(path):
                return False
            refresh(state, store, locks)
            _make(path)
            return True
    finally:
        alive.close()


def refresh(state: State, store: Store, locks: LockManager) -> None:
    """Nothing runs, nothing is mounted; each object gets its lock and its run directory."""
    _restore(state, store)
    store.repair()
    state.refresh()
    reach("refresh.reset")
    for container in state.all_containers():
        try:
            _refresh_container(container, state, store, locks)
        except (LibpodError, OSError) as error:
            log.error("error refreshing container %s: %s", container.id, error)
    for pod in state.all_pods():
        try:
            _give_lock(locks, pod.id, pod.config.lock_id)
        except (LibpodError, OSError) as error:
            log.error("error refreshing pod %s: %s", pod.id, error)


def _restore(state: State, store: Store) -> None:
    """What the container store kept in the run root, before what it does not know goes."""
    for container in state.all_containers():
        try:
            if container.config.remove_at_end:
                store.restore_volatile(container.id, container.name)
        except LibpodError as error:
            log.error("error restoring container %s: %s", container.id, error)


def _refresh_container(
    container: ContainerRecord, state: State, store: Store, locks: LockManager
) -> None:
    _give_lock(locks, container.id, container.config.lock_id)
    run_dir = store.container_run_dir(container.id)
    os.makedirs(run_dir, mode=0o700, exist_ok=True)
    for name in ("attach", "ctl", "winsz", "oom"):
        path = f"{container.config.static_dir}/{name}"
        if os.path.lexists(path):
            os.unlink(path)
    reach("refresh.container")
    if container.state.run_dir != run_dir:
        container.state.run_dir = run_dir
        state.save_container(container)


def _give_lock(locks: LockManager, object_id: str, lock_id: int) -> None:
    with suppress(LockTaken):  # by a refresh that was cut short
        locks.allocate_given(object_id, lock_id).close()


def _make(path: str) -> None:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644))
    except OSError as error:
        raise SystemCallError(
            f"error creating runtime status file {path}: {error.strerror}", error.errno or 0
        ) from error
