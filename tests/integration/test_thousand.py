# SPDX-License-Identifier: Apache-2.0
"""With a thousand containers in the state, nothing that handles one touches the others:
what is read and decoded for it is counted, and is the same as with ten."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from conftest import Dirs
from libpod import Container, Runtime, Spec
from libpod.state.bolt import BoltState
from libpod.state.records import ContainerConfig, ContainerState

pytestmark = pytest.mark.any_runtime

FEW = 10
MANY = 1000
SLACK = 2048
"""Bytes by which what the kernel tells in /proc and /sys may differ."""


@pytest.fixture
def dirs() -> Iterator[Dirs]:
    """In memory: a thousand creations are no test of the disk."""
    with tempfile.TemporaryDirectory(prefix="lp-", dir="/dev/shm") as base:
        yield Dirs(base, f"{base}/static", f"{base}/tmp")


class Counts(dict[str, int]):
    def add(self, what: str, count: int = 1) -> None:
        self[what] = self.get(what, 0) + count


class Counted:
    """A bucket or transaction that notes what is read of it."""

    def __init__(self, inner: Any, counts: Counts) -> None:
        self._inner = inner
        self._counts = counts

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name in ("bucket", "create_bucket", "create_bucket_if_not_exists"):
            return lambda key: Counted(found(key), self._counts)
        if name == "get":
            return self._get
        if name == "keys":
            return lambda prefix=None: self._counted(found(prefix))
        return found

    def _get(self, key: bytes) -> bytes | None:
        value: bytes | None = self._inner.get(key)
        self._counts.add("pairs")
        self._counts.add("bytes of pairs", len(value or b""))
        return value

    def __iter__(self) -> Iterator[bytes]:
        return self._counted(self._inner)

    def _counted(self, keys: Any) -> Iterator[bytes]:
        for key in keys:
            self._counts.add("keys")
            yield key


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    """Of what is read of the state from now on."""
    counts = Counts()
    begin = BoltState._begin

    @contextmanager
    def counted(self: BoltState, write: bool = False) -> Iterator[Any]:
        with begin(self, write) as tx:
            counts.add("transactions")
            yield Counted(tx, counts)

    monkeypatch.setattr(BoltState, "_begin", counted)
    for kind in (ContainerConfig, ContainerState):
        monkeypatch.setattr(kind, "decode", _noting(kind.decode, kind.__name__, counts))
    return counts


def _noting(decode: Callable[[bytes], Any], name: str, counts: Counts) -> Any:
    def noted(raw: bytes) -> Any:
        counts.add(name)
        return decode(raw)

    return staticmethod(noted)


def bytes_read() -> int:
    """By this process so far, from files of any kind."""
    with open("/proc/self/io", encoding="ascii") as file:
        return int(next(line.split()[1] for line in file if line.startswith("rchar:")))


def verbs(rt: Runtime, c: Container, options: dict[str, str]) -> dict[str, Callable[[], object]]:
    return {
        "lookup by name": lambda: rt.lookup_container(c.name),
        "lookup by prefix": lambda: rt.lookup_container(c.id[:20]),
        "state": lambda: c.state,
        "inspect": c.inspect,
        "start": c.start,
        "pause": c.pause,
        "unpause": c.unpause,
        "stop": c.stop,
        "wait": c.wait,
        "another runtime": lambda: open_and_close(c, options),
    }


def open_and_close(c: Container, options: dict[str, str]) -> None:
    with Runtime(**options) as other:
        assert other.lookup_container(c.name).state.pid == 0


def measured(
    rt: Runtime, c: Container, counts: Counts, options: dict[str, str]
) -> dict[str, dict[str, int]]:
    found = {}
    for name, verb in verbs(rt, c, options).items():
        counts.clear()
        before = bytes_read()
        verb()
        found[name] = {**counts, "bytes read": bytes_read() - before}
    return found


def grown(few: dict[str, int], many: dict[str, int]) -> dict[str, int]:
    """What became more, but for what the digits of a time or of a pid make of bytes."""
    more = {key: many.get(key, 0) - few.get(key, 0) for key in {*few, *many}}
    return {k: v for k, v in more.items() if abs(v) > (SLACK if k.startswith("bytes") else 0)}


@pytest.mark.timeout(240)
def test_a_thousand_containers(
    rt: Runtime, box: Spec, counts: Counts, options: dict[str, str], dirs: Dirs
) -> None:
    def grow(first: int, end: int) -> None:
        for number in range(first, end):
            rt.create(box, ["true"], name=f"idle{number}")

    c = rt.create(box, ["sleep", "1000"], name="web")
    c.attend()  # so that no other thread clears up while we count
    grow(1, FEW)
    measured(rt, c, counts, options)  # what is done once
    few = measured(rt, c, counts, options)
    grow(FEW, MANY)
    rt.store.containers()  # a change of the store is read once
    many = measured(rt, c, counts, options)
    assert len(rt.get_containers()) == MANY
    for name in few:
        assert grown(few[name], many[name]) == {}, name
    c.remove()
    # To remove a thousand one by one proves nothing more.
    rt.close()
    for name in os.listdir(dirs.base):
        shutil.rmtree(f"{dirs.base}/{name}")
