# SPDX-License-Identifier: Apache-2.0
"""What all containers of one runtime share: the machinery below them."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from libpod.errors import LibpodError
from libpod.exits import ExitWatcher
from libpod.oci import find_binary
from libpod.owners import Owners
from libpod.settings import RUNTIME_PATH

if TYPE_CHECKING:
    from libpod.host import Host
    from libpod.locks import LockManager
    from libpod.oci import OCIRuntime
    from libpod.settings import RuntimeConfig
    from libpod.state import State
    from libpod.state.paths import RuntimePaths
    from libpod.storage import Store

log = logging.getLogger("libpod.engine")

EXIT_CODES_KEPT = 300.0
"""Seconds for which the exit code of a removed container can be asked for (podman's five
minutes)."""

RESERVED_DESCRIPTORS = 16
"""More than the removal of a container has open at any moment."""

CGROUP_PARENT = "/libpod-core"
"""The parent of all containers' cgroups in private directories.  It and the monitors'
cgroup below it stay, empty: removing them would fail whoever makes one just then."""

PODMAN_CGROUP_PARENT = "/libpod_parent"
"""The same for directories shared with podman (CgroupfsDefaultCgroupParent)."""

_PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")


class Engine:
    """One runtime's rooms, opened.

    Attributes:
        config: the configuration that it was opened with.
        paths: its directories.
        host, oci: the host, and the OCI runtime under conmon.
        state, store, locks: records, layers and directories, locks of containers.
        sharing: why podman and we share state here; None where we do not.
        owners: who looks after which running container.
        exits: sees containers end; releaser: clears up after those nobody waits for.
        reserve: descriptors for clearing up.
    """

    def __init__(
        self,
        config: RuntimeConfig,
        paths: RuntimePaths,
        host: Host,
        oci: OCIRuntime,
        state: State,
        store: Store,
        locks: LockManager,
        sharing: str | None = None,
    ) -> None:
        self.config = config
        self.paths = paths
        self.host = host
        self.oci = oci
        self.state = state
        self.store = store
        self.locks = locks
        self.sharing = sharing
        self.owners = Owners(paths.tmp_dir)
        self.exits = ExitWatcher(oci.exit_dir)
        self.releaser = Releaser()
        self.reserve = Reserve(RESERVED_DESCRIPTORS)
        self.closed = False
        self._pruned = time.monotonic()

    def close(self) -> None:
        """Ends its threads and closes its rooms, in this order; idempotent."""
        self.closed = True
        self.releaser.close()  # first: what it is about needs all the others
        self.exits.close()
        self.owners.close()
        self.locks.close()
        self.store.close()
        self.state.close()
        self.reserve.close()

    @property
    def cgroup_parent(self) -> str:
        """The parent of the cgroups of containers that name none."""
        return PODMAN_CGROUP_PARENT if self.config.share else CGROUP_PARENT

    def oci_of(self, name: str) -> OCIRuntime:
        """The OCI runtime that a container was made for: a name, or a path.

        Raises `InvalidArgument` where it is not there any more.
        """
        if name in ("", self.oci.name, self.oci.path):
            return self.oci
        paths = [name]
        if "/" not in name:
            known = (*self.config.runtime_path, *RUNTIME_PATH)
            paths = [path for path in known if os.path.basename(path) == name]
        return self.oci.another(find_binary(f"OCI runtime {name}", paths))

    def exit_command(self, container_id: str, remove: bool) -> list[str]:
        """What conmon runs after a container that outlives its creator."""
        command = [sys.executable, _PROGRAM, *self._arguments(), "container", "cleanup"]
        return [*command, *(["--rm"] if remove else []), container_id]

    def _arguments(self) -> list[str]:
        flags = {
            "--root": self.paths.graph_root,
            "--runroot": self.paths.run_root,
            "--tmpdir": self.paths.tmp_dir,
            "--static-dir": self.paths.static_dir,
            "--runtime": self.oci.path,
            "--conmon": self.oci.conmon_path,
            "--cgroup-manager": self.config.cgroup_manager,
        }
        if self.config.share:
            flags["--share"] = self.config.share
        return [f"{flag}={value}" for flag, value in flags.items()]

    def prune_exit_codes(self) -> None:
        """Forgets the exit codes of containers that are long gone; now and then."""
        now = time.monotonic()
        if now - self._pruned < EXIT_CODES_KEPT:
            return
        self._pruned = now
        try:
            self.state.prune_exit_codes(time.time_ns() - int(EXIT_CODES_KEPT * 1e9))
        except LibpodError as error:
            log.warning("old exit codes were not forgotten: %s", error)


class Reserve:
    """Descriptors that are kept for clearing up: a program that has reached its limit must
    still be able to remove what it could not finish.

    Others may be faster to take them; then the clearing up fails, and can be done again.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._users = 0
        self._kept: list[int] = []
        self._fill()

    @contextmanager
    def freed(self) -> Iterator[None]:
        """There are so many more to open, inside; for all that are inside together."""
        with self._lock:
            self._users += 1
            self._empty()
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._fill()

    def close(self) -> None:
        """Keeps none any more; idempotent."""
        with self._lock:
            self._size = 0
            self._empty()

    def _fill(self) -> None:
        try:
            while len(self._kept) < self._size:
                self._kept.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:  # next time, perhaps
            log.debug("%d descriptors in reserve: %s", len(self._kept), error)

    def _empty(self) -> None:
        while self._kept:
            os.close(self._kept.pop())


class Releaser:
    """One thread that clears up after containers nobody waits for.

    It starts with the first of them, so that a program which waits for all its
    containers never has it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: list[Callable[[], None]] = []
        self._wanted = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._closing = False

    def submit(self, job: Callable[[], None]) -> None:
        """Has it done, unless this is closing: then it is left to the next runtime."""
        with self._lock:
            if self._closing:
                return
            self._jobs.append(job)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="libpod-release", daemon=True
                )
                self._thread.start()
            self._wanted.notify()

    def close(self) -> None:
        """Does what was submitted, then ends the thread; idempotent."""
        with self._lock:
            self._closing = True
            self._wanted.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _work(self) -> None:
        while True:
            with self._lock:
                while not self._jobs and not self._closing:
                    self._wanted.wait()
                if not self._jobs:
                    return
                job = self._jobs.pop(0)
            try:
                job()
            except Exception:
                log.exception("while releasing a container")
