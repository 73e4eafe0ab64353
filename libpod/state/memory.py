# SPDX-License-Identifier: Apache-2.0
"""A state in memory: known to this process and gone with it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from libpod.errors import DBClosed
from libpod.state.rules import Rules
from libpod.state.tables import BUCKETS

Undo = list[Callable[[], object]]
"""What takes back the changes of a transaction, in the order of the changes."""


class MemoryBucket:
    """A table of pairs and buckets; every change leaves in `undo` how to take it back."""

    def __init__(self, undo: Undo) -> None:
        self._undo = undo
        self._pairs: dict[bytes, bytes] = {}
        self._buckets: dict[bytes, MemoryBucket] = {}

    def bucket(self, name: bytes) -> MemoryBucket:
        return self._buckets[name]

    def create_bucket(self, name: bytes) -> MemoryBucket:
        if name in self._buckets or name in self._pairs:
            raise KeyError(name)
        made = self._buckets[name] = MemoryBucket(self._undo)
        self._undo.append(lambda: self._buckets.pop(name))
        return made

    def create_bucket_if_not_exists(self, name: bytes) -> MemoryBucket:
        return self._buckets.get(name) or self.create_bucket(name)

    def delete_bucket(self, name: bytes) -> None:
        gone = self._buckets.pop(name)
        self._undo.append(lambda: self._buckets.update({name: gone}))

    def get(self, key: bytes) -> bytes | None:
        return self._pairs.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self._remember(key)
        self._pairs[key] = value

    def delete(self, key: bytes) -> bool:
        if key not in self._pairs:
            return False
        self._remember(key)
        del self._pairs[key]
        return True

    def __iter__(self) -> Iterator[bytes]:
        return self.keys()

    def keys(self, prefix: bytes | None = None) -> Iterator[bytes]:
        wanted = prefix or b""
        found = (key for names in (self._pairs, self._buckets) for key in names)
        return iter(sorted(key for key in found if key.startswith(wanted)))

    def _remember(self, key: bytes) -> None:
        before = self._pairs.get(key)
        if before is None:
            self._undo.append(lambda: self._pairs.pop(key))
        else:
            self._undo.append(lambda: self._pairs.update({key: before}))


class MemoryState(Rules):
    """`State` over dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._undo: Undo = []
        self._top_bucket = MemoryBucket(self._undo)
        self._closed = False
        for name in BUCKETS:
            self._top_bucket.create_bucket(name)

    @contextmanager
    def _begin(self, write: bool = False) -> Iterator[MemoryBucket]:
        with self._lock:
            if self._closed:
                raise DBClosed("the state was closed")
            self._undo.clear()
            try:
                yield self._top_bucket
            except BaseException:
                while self._undo:
                    self._undo.pop()()
                raise

    def close(self) -> None:
        with self._lock:
            self._closed = True
