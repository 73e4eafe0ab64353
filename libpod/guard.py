# SPDX-License-Identifier: Apache-2.0
"""One container's record, and the lock under which it is changed."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from libpod.errors import (
    Closed,
    ContainerRemoved,
    InternalError,
    LibpodError,
    LockGone,
    NoSuchContainer,
    RuntimeStopped,
    UsedAfterFork,
)
from libpod.state.records import ContainerStatus

if TYPE_CHECKING:
    from libpod.engine import Engine
    from libpod.locks import ObjectLock
    from libpod.state.handles import ContainerRecord

log = logging.getLogger("libpod.guard")

LOCK_TIMEOUT = 300.0
"""Seconds to wait for a container's lock; a creation may hold it for 240."""


class Guard:
    """A container's record and lock, in this process; `Life` says what happens under it.

    Attributes:
        record: as it was read last under the lock.
        name: as it was read last at all: another process may have renamed it.
        removed: whether it was removed, by this object.
    """

    def __init__(self, engine: Engine, record: ContainerRecord, lock: ObjectLock | None) -> None:
        self.engine = engine
        self.record = record
        self.name = record.name
        self.removed = False
        self._lock = lock
        self._opening = threading.Lock()
        self._pid = os.getpid()

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def status(self) -> ContainerStatus:
        return self.record.state.status

    def sync(self) -> None:
        """Brings the record up to date."""
        raise NotImplementedError

    def forget(self) -> None:
        """Gives up what this process holds of a container that is gone."""
        raise NotImplementedError

    # --- the lock ------------------------------------------------------------------

    @contextmanager
    def locked(self, timeout: float | None = None) -> Iterator[None]:
        """Holds the lock, with the record brought up to date."""
        with self.held(timeout):
            self.sync()
            yield

    @contextmanager
    def held(self, timeout: float | None = None) -> Iterator[None]:
        """Holds the lock, with the record as it is; waits `timeout` seconds for it, None
        for LOCK_TIMEOUT.

        A signal handler may raise at any moment, also just after the lock was
        taken: hence the unlocking whatever happened, held or not.
        """
        self.check_process()
        try:
            self._take_lock(LOCK_TIMEOUT if timeout is None else timeout)
            yield
        finally:
            try:
                self._unlock()
            except BaseException:  # interrupted here, too: nobody could take it again
                self._unlock()
                raise

    def _unlock(self) -> None:
        """Held or not."""
        if self._lock is not None:
            with suppress(InternalError, Closed, LockGone):
                self._lock.unlock()

    def check_process(self) -> None:
        """Raises `UsedAfterFork`, `RuntimeStopped`, `ContainerRemoved`."""
        if self._pid != os.getpid():
            raise UsedAfterFork(
                f"container {self.id} belongs to the parent process",
                container_id=self.id,
                remedy="open a runtime in the child",
            )
        if self.removed:
            raise self._gone()
        if self.engine.closed:
            raise RuntimeStopped(
                "runtime has already been stopped",
                container_id=self.id,
                remedy="open another runtime on the same directories",
            )

    def _take_lock(self, timeout: float) -> None:
        """Takes it and reads the record; again where the lock has become another one."""
        while True:
            with self._opening:  # one for all threads, or `_unlock` would miss the other
                lock = self._lock = self._lock or self._open_lock()
            try:
                lock.lock(timeout)
            except Closed:
                raise self._gone() from None
            except LockGone:
                self._replace_lock()
                continue
            self.update()
            if self.engine.locks.kind == "flock" or lock.lock_id == self.record.config.lock_id:
                return
            lock.close()
            self._lock = None

    def _open_lock(self) -> ObjectLock:
        if self.engine.locks.kind != "flock":
            self.update()  # its lock ID may have been given to another object
        return self.engine.locks.open(self.id, self.record.config.lock_id)

    def _replace_lock(self) -> None:
        """A lock goes after its container's record: where that is there, somebody has
        cleared the directory under us."""
        old, self._lock = self._lock, None
        if old is not None:
            old.close()
        self.update()
        log.warning("the lock of container %s was removed: made anew", self.id)
        with suppress(LibpodError):  # another process was faster
            self._lock = self.engine.locks.allocate_given(self.id, self.record.config.lock_id)

    def update(self) -> None:
        """Reads the record anew.  Raises `ContainerRemoved`."""
        try:
            self.engine.state.update_container(self.record)
        except (NoSuchContainer, ContainerRemoved):
            self.forget()  # by another process, which could not
            raise self._gone() from None
        self.name = self.record.name

    def peek(self) -> ContainerRecord:
        """What is recorded now, as a record of its own: whoever holds the lock is at work
        with `record`.  Takes no lock.  Raises `ContainerRemoved`."""
        try:
            read = self.engine.state.container(self.id)
        except NoSuchContainer:
            raise self._gone() from None
        read.recall(self.record)
        self.name = read.name
        return read

    def save(self, exit_code: int | None = None) -> None:
        self.engine.state.save_container(self.record, exit_code)

    def _gone(self) -> ContainerRemoved:
        return ContainerRemoved(
            f"container {self.id} has already been removed", container_id=self.id
        )
