# SPDX-License-Identifier: Apache-2.0
"""Who waits for which container, and one thread that sees them all end.

An exit is final when conmon's exit file exists.  A monitor that died without
writing one is looked at once more; then the container is lost: code -1.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from libpod import _spawn
from libpod.errors import Closed, InternalError, LibpodError

log = logging.getLogger("libpod.exits")

LOST = -1
"""The exit code of a container whose monitor died without an exit file."""


class Exit(NamedTuple):
    """How a container ended."""

    code: int
    """0 to 255, or `LOST`."""
    finished: float
    """Seconds since the epoch."""
    told: bool = True
    """Whether there was an exit file, be it garbage; else the monitor died without one."""


class _Watched(NamedTuple):
    container_id: str
    monitor: _spawn.Process
    on_exit: Callable[[Exit | None], None]


class ExitWatcher:
    """The exits of one runtime's containers.

    Thread and watch begin with the first container, so that a runtime which only
    looks never has them, and end with `close`.  Each `on_exit` is called once, in
    that thread or inside `add`: it must be quick and must not wait for a container.
    """

    def __init__(self, directory: str) -> None:
        self._path = directory
        self._opened: _spawn.ExitDirectory | None = None
        self._lock = threading.Lock()
        self._by_id: dict[str, int] = {}
        self._by_token: dict[int, _Watched] = {}
        self._next_token = 0
        self._thread: threading.Thread | None = None
        self._closing = False
        self._owner = os.getpid()

    @property
    def _directory(self) -> _spawn.ExitDirectory:
        with self._lock:
            if self._opened is None:
                if self._closing:
                    raise Closed("the watch over containers was closed")
                self._opened = _spawn.ExitDirectory(self._path)
            return self._opened

    def add(
        self, container_id: str, monitor: _spawn.Process, on_exit: Callable[[Exit | None], None]
    ) -> None:
        """Calls `on_exit` when the container has ended, even if it has ended already."""
        directory = self._directory
        with self._lock:
            if self._closing:
                raise Closed("the watch over containers was closed")
            token = self._next_token
            self._next_token += 1
            self._by_token[token] = _Watched(container_id, monitor, on_exit)
            self._by_id[container_id] = token
            # An interrupt may have come between its making and its start.
            if self._thread is None or self._thread.ident is None:
                self._thread = threading.Thread(
                    target=self._watch, args=[directory], name="libpod-exits", daemon=True
                )
                self._thread.start()
        directory.watch(monitor, token)
        self._look(container_id)  # it may have ended before anybody watched

    def forget(self, container_id: str) -> None:
        """Watches it no more; its `on_exit` is not called."""
        self._take(container_id)

    def discard(self, container_id: str) -> None:
        """Forgets a container and its exit file."""
        self._take(container_id)
        try:
            os.unlink(f"{self._path}/{container_id}")
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("cannot remove the exit file of container %s: %s", container_id, error)

    def has(self, container_id: str) -> bool:
        """Whether the container's exit is final; costs no descriptor."""
        return os.path.exists(f"{self._path}/{container_id}")

    def read(self, container_id: str) -> Exit | None:
        """The container's final exit, or None while it has none."""
        try:
            found = self._directory.read(container_id)
        except InternalError as error:
            log.error("%s", error)
            return Exit(LOST, time.time())
        return None if found is None else Exit(found[0], found[1] / 1e9)

    def close(self) -> None:
        """Ends the thread; idempotent.  For containers that have not ended, `on_exit` is
        called with None: they go on, but nobody watches."""
        with self._lock:
            thread, self._thread = self._thread, None
            already, self._closing = self._closing, True
        if already or self._owner != os.getpid():
            return
        if self._opened is None:
            return
        if thread is not None and thread.ident is not None:
            self._opened.wake()
            if thread is not threading.current_thread():
                thread.join()
        self._opened.close()
        left, self._by_token = self._by_token, {}
        for watched in left.values():
            watched.on_exit(None)

    def _take(self, container_id: str) -> _Watched | None:
        """Removes a container from the watch; None where somebody else has."""
        with self._lock:
            token = self._by_id.pop(container_id, None)
            watched = None if token is None else self._by_token.pop(token, None)
        if watched is not None and self._opened is not None:
            self._opened.forget(watched.monitor)
        return watched

    def _watch(self, directory: _spawn.ExitDirectory) -> None:
        while not self._closing:
            names, tokens, rescan = directory.wait()
            if rescan:
                with self._lock:
                    names = list(self._by_id)
            for name in names:
                if name in self._by_id:
                    self._look(name)
            for token in tokens:
                watched = self._by_token.get(token)
                if watched is not None:
                    self._look(watched.container_id, monitor_ended=True)

    def _look(self, container_id: str, *, monitor_ended: bool = False) -> None:
        """Tells the container's exit, if it is final."""
        try:
            ended = self.read(container_id)
        except (LibpodError, OSError) as error:
            log.error("cannot read the exit of container %s: %s", container_id, error)
            ended = None
        if ended is None and monitor_ended:  # or somebody else has recorded it already
            ended = Exit(LOST, time.time(), told=False)
        watched = self._take(container_id) if ended is not None else None
        if ended is None or watched is None:
            return
        try:
            watched.on_exit(ended)
        except Exception:
            log.exception("after the end of container %s", container_id)
