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
    looks never has them, and end with `close`.  Each `on_exit` is called in that thread
    or inside `add` or `glance`, once, but once more where an interrupt came meanwhile:
    the first call knows best.  It must be quick and must not wait for a container.
    """

    def __init__(self, directory: str) -> None:
        self._path = directory
        self._opened: _spawn.ExitDirectory | None = None
        self._lock = threading.Lock()
        self._by_token: dict[int, _Watched] = {}
        self._tokens: dict[str, list[int]] = {}
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
        """Calls `on_exit` when the container has ended, even if it has ended already.

        Several may watch one container, each by a monitor that it has opened: also the one
        of an earlier life, which may linger after it wrote its exit file.
        """
        directory = self._directory
        with self._lock:
            if self._closing:
                raise Closed("the watch over containers was closed")
            token = self._next_token
            self._next_token += 1
            self._by_token[token] = _Watched(container_id, monitor, on_exit)
            self._tokens.setdefault(container_id, []).append(token)
            # An interrupt may have come between its making and its start.
            if self._thread is None or self._thread.ident is None:
                self._thread = threading.Thread(
                    target=self._watch, args=[directory], name="libpod-exits", daemon=True
                )
                self._thread.start()
        directory.watch(monitor, token)
        self._look(container_id)  # it may have ended before anybody watched

    def forget(self, container_id: str, monitor: _spawn.Process) -> None:
        """Watches it by that monitor no more; the `on_exit` is not called."""
        for token in self._tokens_of(container_id):
            watched = self._by_token.get(token)
            if watched is not None and watched.monitor is monitor:
                self._take(token)

    def discard(self, container_id: str) -> None:
        """Removes a container's exit file, once everybody who watches it knows."""
        if container_id in self._tokens:
            self._look(container_id)
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

    def glance(self, container_id: str) -> None:
        """Tells the container's exit if it is there.  Nobody need call this: it saves who
        waits for it the way by another thread."""
        try:
            found = self._directory.read(container_id)
        except (LibpodError, OSError):  # not conmon's, perhaps: its own comes by a rename
            return
        if found is not None:
            self._tell_all(container_id, Exit(found[0], found[1] / 1e9))

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

    def _tokens_of(self, container_id: str) -> list[int]:
        with self._lock:
            return list(self._tokens.get(container_id, ()))

    def _take(self, token: int) -> _Watched | None:
        """Ends one watch; None where somebody else has."""
        with self._lock:
            watched = self._by_token.get(token)
            if watched is None:
                return None
            if self._opened is not None:
                self._opened.forget(watched.monitor)
            left = [other for other in self._tokens.get(watched.container_id, ()) if other != token]
            if left:
                self._tokens[watched.container_id] = left
            else:
                self._tokens.pop(watched.container_id, None)
            del self._by_token[token]  # last: what was cut short can be done again
        return watched

    def _watch(self, directory: _spawn.ExitDirectory) -> None:
        while not self._closing:
            names, tokens, rescan = directory.wait()
            if rescan:
                with self._lock:
                    names = list(self._tokens)
            for name in names:
                if name in self._tokens:
                    self._look(name)
            for token in tokens:
                self._look_after(token)

    def _look(self, container_id: str) -> None:
        """Tells the container's exit, if it is final."""
        ended = self._try_read(container_id)
        if ended is not None:
            self._tell_all(container_id, ended)

    def _tell_all(self, container_id: str, ended: Exit) -> None:
        for token in self._tokens_of(container_id):
            self._tell(token, ended)

    def _look_after(self, token: int) -> None:
        """Tells whoever watched by a monitor that has ended; others have their own."""
        watched = self._by_token.get(token)
        if watched is not None:
            ended = self._try_read(watched.container_id)
            # Without a file, unless somebody else has recorded it already.
            self._tell(token, ended or Exit(LOST, time.time(), told=False))

    def _try_read(self, container_id: str) -> Exit | None:
        try:
            return self.read(container_id)
        except (LibpodError, OSError) as error:
            log.error("cannot read the exit of container %s: %s", container_id, error)
            return None

    def _tell(self, token: int, ended: Exit) -> None:
        found = self._by_token.get(token)
        if found is None:
            return
        try:
            watched = self._take(token)
            if watched is not None:
                watched.on_exit(ended)
        except Exception:
            log.exception("after the end of container %s", found.container_id)
        except BaseException:  # an interrupt, perhaps when it was taken and not told
            self._take(token)
            found.on_exit(ended)
            raise
