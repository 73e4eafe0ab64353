# SPDX-License-Identifier: Apache-2.0
"""A state in a database in bbolt's format, which podman 4.3.1 can have open, too.

The file is locked for each transaction only.  A process may have it open once,
so states of one process on the same file share the open database.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import cast

from libpod import kv
from libpod.errors import DBBadConfig, DBClosed
from libpod.state.paths import RuntimePaths, reconcile
from libpod.state.rules import Rules
from libpod.state.tables import BUCKETS, ID_REGISTRY, RUNTIME_CONFIG, Transaction, inner

LOCK_TIMEOUT = 60.0
"""Seconds to wait for another process that is inside the database."""


class _Shared:
    """An open database, and how many use it: states, and calls on their way.

    The last one closes it, so that no call loses it under its hands.
    """

    def __init__(self, database: kv.Database) -> None:
        self.database = database
        self.users = 1


_lock = threading.Lock()
_open: dict[tuple[int, int, int], _Shared] = {}
"""By process, device and inode: a forked child opens its own."""

os.register_at_fork(
    before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
)


def _identify(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None  # whoever opens it says why
    return os.getpid(), found.st_dev, found.st_ino


def _acquire(path: str, timeout: float) -> _Shared:
    with _lock:
        key = _identify(path)
        shared = _open.get(key) if key else None
        if shared is not None:
            shared.users += 1
            return shared
        shared = _Shared(kv.Database(path, lock="transaction", timeout=timeout))
        key = _identify(path)
        if key:
            _open[key] = shared
        return shared


def _release(shared: _Shared) -> None:
    with _lock:
        shared.users -= 1
        if shared.users:
            return
        for key in [key for key, value in _open.items() if value is shared]:
            del _open[key]
        shared.database.close()


class BoltState(Rules):
    """`State` over a database file.

    `path` is the file; it is made, with its buckets, where there is none.  `ours`
    are this runtime's directories, of which the user has set those named in
    `explicit`, and `defaults` what "" stands for.  `paths` is what holds: see
    `libpod.state.paths.reconcile`.  `timeout` (seconds) is how long each call may
    wait for another process.

    Raises `DBBadConfig` (other directories, or no database of a state),
    `libpod.kv.InvalidDatabase` and its kin, `LockTimeout`, `SystemCallError`.
    """

    path: str

    def __init__(
        self,
        path: str,
        ours: RuntimePaths,
        explicit: Collection[str] = (),
        *,
        defaults: RuntimePaths | None = None,
        timeout: float = LOCK_TIMEOUT,
    ) -> None:
        super().__init__()
        self.path = os.path.abspath(path)
        self._shared = _acquire(self.path, timeout)
        self._timeout = timeout
        self._closed = False
        try:
            self.paths = self._prepare(ours, explicit, defaults or ours)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        with _lock:
            if self._closed:
                return
            self._closed = True
        _release(self._shared)

    @contextmanager
    def _begin(self, write: bool = False) -> Iterator[Transaction]:
        with _lock:
            if self._closed:
                raise DBClosed(f"{self.path}: the state was closed")
            self._shared.users += 1
        try:
            with self._shared.database.begin(write, self._timeout) as tx:
                yield cast("Transaction", tx)
        finally:
            _release(self._shared)

    def _prepare(
        self, ours: RuntimePaths, explicit: Collection[str], defaults: RuntimePaths
    ) -> RuntimePaths:
        """Makes what is missing; mostly nothing is, and then nothing is written."""
        with self._begin() as tx:
            found = self._inspect(tx, ours, explicit, defaults)
        if found is not None:
            return found
        with self._begin(write=True) as tx:
            for name in BUCKETS:
                tx.create_bucket_if_not_exists(name)
            config = tx.bucket(RUNTIME_CONFIG)
            result = reconcile(_recorded(tx), ours, explicit, defaults, self.path)
            for key, value in result.missing.items():
                config.put(key.encode(), os.fsencode(value))
            return result.paths

    def _inspect(
        self,
        tx: Transaction,
        ours: RuntimePaths,
        explicit: Collection[str],
        defaults: RuntimePaths,
    ) -> RuntimePaths | None:
        """The paths that hold; None where the database lacks something."""
        names = set(cast("kv.Transaction", tx).buckets())
        if names and not names & {RUNTIME_CONFIG, ID_REGISTRY}:
            raise DBBadConfig(
                f"{self.path}: this database belongs to another program: it has "
                + ", ".join(sorted(name.decode(errors="replace") for name in names)),
                remedy="name another root directory",
            )
        result = reconcile(_recorded(tx), ours, explicit, defaults, self.path)
        return None if result.missing or not names.issuperset(BUCKETS) else result.paths


def _recorded(tx: Transaction) -> dict[str, str]:
    config = inner(cast("kv.Bucket", tx), RUNTIME_CONFIG)
    if config is None:
        return {}
    return {key.decode(): os.fsdecode(config.get(key) or b"") for key in config}
