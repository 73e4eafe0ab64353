# SPDX-License-Identifier: Apache-2.0
"""The container store under many threads and processes."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from storage_support import on_disk, opened, table, token

from armed import ended_at
from libpod.errors import (
    LockTimeout,
)
from libpod.lockfile import RecordLock
from libpod.names import new_id
from libpod.storage import (
    DuplicateName,
    Store,
    snapshot,
)
from libpod.storage.table import Hold


def test_threads_share_a_store(place: Path, store: Store) -> None:
    failures: list[BaseException] = []
    kept: list[str] = []

    def work(number: int) -> None:
        try:
            for turn in range(8):
                made = store.create_container(new_id(), f"c{number}-{turn}")
                assert store.container(made.id) == made
                if turn % 2:
                    store.delete_container(made.id)
                else:
                    kept.append(made.id)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert {c.id for c in opened(place).containers()} == set(kept)
    assert list(store.unowned()) == []


def _churn(place: Path, seed: int, seconds: float) -> None:
    chance = random.Random(seed)
    store = opened(place)
    mine: list[str] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if len(mine) < 4 and chance.random() < 0.6:
            key = new_id()
            try:
                store.create_container(key, f"c{chance.randrange(12)}")
                mine.append(key)
            except DuplicateName:
                pass
        elif mine and chance.random() < 0.7:
            store.delete_container(mine.pop(chance.randrange(len(mine))))
        elif mine:
            try:
                store.rename_container(mine[0], f"c{chance.randrange(12)}")
            except DuplicateName:
                pass
        if chance.random() < 0.2:
            store.repair()
        assert {c.id for c in store.containers()} >= set(mine)
    (place / f"left-{seed}").write_text(json.dumps(mine))


@pytest.fixture
def children() -> Iterator[list[int]]:
    pids: list[int] = []
    yield pids
    for pid in pids:  # of a test that failed
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def test_processes_share_a_store(place: Path, children: list[int]) -> None:
    store = opened(place)
    for seed in range(6):
        pid = os.fork()
        if pid == 0:
            try:
                _churn(place, seed, 4.0)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(pid)
    while children:
        assert os.waitpid(children[0], 0)[1] == 0
        children.pop(0)
    left = {key for seed in range(6) for key in json.loads((place / f"left-{seed}").read_text())}
    assert {c.id for c in store.containers()} == left
    assert len({c.name for c in store.containers()}) == len(left)
    assert {c.layer_id for c in store.containers()} == {layer.id for layer in store.layers()}
    assert list(store.unowned()) == []
    for key in left:
        store.delete_container(key)
    assert on_disk(place) == set()


def test_a_store_works_on_in_a_forked_child(place: Path, store: Store) -> None:
    store.create_container(new_id(), "parent")
    assert ended_at("none", "kill", lambda: store.create_container(new_id(), "child")) == 0
    assert {c.name for c in store.containers()} == {"parent", "child"}


def test_a_store_holds_no_lock_between_calls(place: Path, store: Store) -> None:
    made = store.create_container(new_id(), "web")
    for change in (store.containers, store.repair, lambda: store.delete_container(made.id)):
        change()
        for name in ("layers", "images", "containers"):
            lock = RecordLock(table(place, name).with_suffix(".lock"))
            try:
                assert lock.try_lock(), name
                lock.unlock()
            finally:
                lock.close()


def lock_files(place: Path) -> int:
    """How many lock files of the store this process has open."""
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    paths = [os.readlink(link) for link in links if os.path.lexists(link)]
    return sum(path.startswith(str(place)) and path.endswith(".lock") for path in paths)


def test_lock_files_stay_open_until_the_store_is_closed(place: Path, store: Store) -> None:
    for _ in range(3):
        made = store.create_container(new_id(), "web")
        store.delete_container(made.id)
        assert lock_files(place) == 3
        store.close()
        assert lock_files(place) == 0
        assert store.containers() == []


def test_a_lock_file_that_was_replaced_is_opened_anew(place: Path, store: Store) -> None:
    store.create_container(new_id(), "web")
    path = table(place, "layers").with_suffix(".lock")
    path.unlink()
    other = RecordLock(path)
    with other, pytest.raises(LockTimeout):
        opened_like(store, 0).create_container(new_id(), "other")
    other.close()
    store.create_container(new_id(), "other")
    assert len(token(place, "layers")) == 64


def opened_like(store: Store, patience: float) -> Store:
    """The same object, with less patience."""
    store._patience = patience
    return store


def test_a_forked_child_has_locks_of_its_own(place: Path, store: Store) -> None:
    """The parent's open files are its own: a lock on them would be the parent's, too."""
    store.create_container(new_id(), "web")
    told, tell = os.pipe()
    go_on, end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(end)
            with store._changing():
                os.write(tell, b"x")
                os.read(go_on, 1)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(tell)
    try:
        assert os.read(told, 1) == b"x"
        with pytest.raises(LockTimeout) as caught:
            opened_like(store, 0.1).create_container(new_id(), "other")
        assert caught.value.holder == pid
    finally:
        for fd in (told, go_on, end):
            os.close(fd)
        assert os.waitpid(pid, 0)[1] == 0
    store.create_container(new_id(), "other")


class _Interrupt(BaseException):
    pass


@pytest.mark.parametrize("method", ["_take", "_release"])
@pytest.mark.parametrize("before", [False, True])
def test_an_interrupt_leaves_no_lock_held(
    place: Path, store: Store, method: str, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may come when a lock is about to be taken or given back, or has just been."""
    store.create_container(new_id(), "web")
    whole = getattr(Hold, method)

    def interrupted(hold: Hold, *args: Any) -> None:
        chosen = hold.table.stem == "containers"
        if chosen:
            monkeypatch.setattr(Hold, method, whole)
        if not (chosen and before):
            whole(hold, *args)
        if chosen:
            raise _Interrupt

    for make in (store.create_container, store.create_volatile):
        monkeypatch.setattr(Hold, method, interrupted)
        with pytest.raises(_Interrupt) as caught:
            make(new_id(), "interrupted")
        assert caught.value.__traceback__ is not None  # it keeps what the frames refer to
        opened(place, lock_timeout=0).create_container(new_id(), f"other-{make.__name__}")
        opened_like(store, 0).create_container(new_id(), f"third-{make.__name__}")
        for container in store.containers():
            store.delete_container(container.id)


def test_nothing_is_read_twice_where_nobody_else_writes(
    place: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.delete_container(store.create_container(new_id(), "first").id)
    read = []
    parse = snapshot._parse
    monkeypatch.setattr(snapshot, "_parse", lambda *file: (read.append(file[0]), parse(*file))[1])
    made = store.create_container(new_id(), "web")
    store.rename_container(made.id, "other")
    store.delete_container(made.id)
    assert read == []
    opened(place).create_container(new_id(), "theirs")
    del read[:]
    with pytest.raises(DuplicateName):
        store.create_container(new_id(), "theirs")
    assert str(table(place, "containers")) in read
