# SPDX-License-Identifier: Apache-2.0
"""The container store after a crash, an error or a kill at any step."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from storage_support import on_disk, opened, records, table

from armed import ended_at, places_of
from libpod import failpoint
from libpod.errors import (
    SystemCallError,
)
from libpod.names import new_id
from libpod.storage import (
    NoSuchStorageContainer,
    StorageContainer,
    Store,
    Unowned,
)

Make = Callable[[Store, str, str], StorageContainer]


def test_unowned_things_are_told_and_discarded(place: Path, store: Store) -> None:
    graph, run = place / "graph", place / "run"
    keep = store.create_container(new_id(), "keep")
    layer, lost, gone, orphan, ran, half = (new_id() for _ in range(6))
    listed = records(place, "layers")
    table(place, "layers").write_text(json.dumps([*listed, {"id": layer}]))
    listed = records(place, "containers")
    table(place, "containers").write_text(json.dumps([*listed, {"id": half, "layer": gone}]))
    (graph / "overlay" / lost / "diff/data").mkdir(parents=True)
    (graph / "overlay/l/ABC").symlink_to(f"../{gone}/diff")
    (graph / "overlay-containers" / orphan / "userdata/ctr").mkdir(parents=True)
    (run / "overlay-containers" / ran / "userdata/pidfile").mkdir(parents=True)
    temporary = graph / "overlay-layers/.tmp-layers.json123"
    temporary.touch()
    found = list(store.unowned())
    told = {one[:2] for one in found}
    assert told == {
        ("layer", layer),
        ("layer-directory", lost),
        ("layer-link", "ABC"),
        ("container", half),
        ("container-directory", orphan),
        ("container-run-directory", ran),
        ("temporary", str(temporary)),
    }
    dated = [one for one in found if one.kind not in ("layer", "container")]
    assert all(abs(time.time_ns() - one.modified) < 60e9 for one in dated)
    store.repair()  # takes what holds no data
    assert {one[:2] for one in store.unowned()} == told - {
        ("layer-link", "ABC"),
        ("temporary", str(temporary)),
    }
    for one in found:
        store.discard(one)
        store.discard(one)
    assert list(store.unowned()) == []
    assert store.containers() == [keep]
    assert {path.split("/")[1] for path in on_disk(place) if path.startswith("overlay/")} - {
        "l"
    } == {keep.layer_id}


def test_what_has_an_owner_by_now_is_not_discarded(place: Path, store: Store) -> None:
    made = store.create_container(new_id(), "web")
    store.discard(Unowned("container", made.id, 0))
    store.discard(Unowned("layer", made.layer_id, 0))
    store.discard(Unowned("layer-directory", made.layer_id, 0))
    store.discard(Unowned("container-directory", made.id, 0))
    assert store.containers() == [made]
    assert Path(store.container_dir(made.id)).is_dir()
    assert (place / "graph/overlay" / made.layer_id / "diff").is_dir()


def test_an_incomplete_layer_goes_at_the_next_change(place: Path, store: Store) -> None:
    made = store.create_container(new_id(), "one")
    (record,) = records(place, "layers")
    table(place, "layers").write_text(json.dumps([{**record, "flags": {"incomplete": True}}]))
    big = place / "graph/overlay-layers" / made.layer_id
    big.mkdir()
    (big / "item").touch()
    big.with_name(f"{big.name}.tar-split.gz").touch()
    assert store.layers()[0].incomplete
    other = store.create_container(new_id(), "two")
    assert [layer.id for layer in store.layers()] == [other.layer_id]
    assert not [path for path in on_disk(place) if made.layer_id in path]
    assert [one[:2] for one in store.unowned()] == [("container", made.id)]
    store.delete_container(made.id)
    assert list(store.unowned()) == []


def test_an_empty_directory_of_the_same_id_is_no_obstacle(store: Store) -> None:
    key = new_id()
    os.makedirs(store.container_dir(key), 0o700)
    store.create_container(key, "web")


def test_data_of_the_same_id_is_not_taken_over(place: Path, store: Store) -> None:
    key = new_id()
    os.makedirs(store.container_dir(key), 0o700)
    log = Path(store.container_dir(key), "ctr.log")
    log.write_text("words")
    with pytest.raises(SystemCallError) as caught:
        store.create_container(key, "web")
    assert caught.value.errno == errno.EEXIST
    assert log.read_text() == "words"
    assert (store.containers(), store.layers()) == ([], [])
    assert not list((place / "graph/overlay/l").iterdir())


@pytest.mark.parametrize(
    ("make", "count"), [(Store.create_container, 16), (Store.create_volatile, 8)]
)
def test_killed_at_each_step_of_a_creation(
    place: Path, make: Make, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(place)
    kept = store.create_container(new_id(), "kept")
    untouched = on_disk(place)
    steps = places_of(lambda: make(store, new_id(), "trial"), monkeypatch)
    store.delete_container(store.containers()[-1].id)
    assert len(steps) >= count
    for step in steps:
        key = new_id()
        status = ended_at(step, "kill", lambda key=key: make(opened(place), key, "web"))
        assert os.waitstatus_to_exitcode(status) == -9, step
        later = opened(place)
        later.repair()
        if any(c.id == key for c in later.containers()):
            later.delete_container(key)
        assert list(later.unowned()) == [], step
        assert on_disk(place) == untouched, step
        assert later.containers() == [kept], step
        assert [layer.id for layer in later.layers()] == [kept.layer_id], step


@pytest.mark.parametrize(
    ("make", "filled", "count"),
    [
        (Store.create_container, False, 15),
        (Store.create_container, True, 18),
        (Store.create_volatile, False, 8),
    ],
)
def test_killed_at_each_step_of_a_deletion(
    place: Path, make: Make, filled: bool, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(place)

    def fill(container: StorageContainer) -> StorageContainer:
        if filled:
            (place / "graph/overlay" / container.layer_id / "diff/file").write_text("x")
        return container

    kept = store.create_container(new_id(), "kept")
    untouched = on_disk(place)
    trial = fill(make(store, new_id(), "trial"))
    steps = places_of(lambda: store.delete_container(trial.id), monkeypatch)
    assert len(steps) >= count
    for step in steps:
        made = fill(make(store, new_id(), "web"))
        status = ended_at(step, "kill", lambda key=made.id: opened(place).delete_container(key))
        assert os.waitstatus_to_exitcode(status) == -9, step
        later = opened(place)
        with contextlib.suppress(NoSuchStorageContainer):
            later.delete_container(made.id)
        later.repair()
        assert list(later.unowned()) == [], step
        assert on_disk(place) == untouched, step
        assert later.containers() == [kept], step


@pytest.mark.parametrize("make", [Store.create_container, Store.create_volatile])
def test_failing_at_each_step(place: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(place)
    trial = make(store, new_id(), "trial")
    deletion = places_of(lambda: store.delete_container(trial.id), monkeypatch)
    creation = places_of(lambda: make(store, new_id(), "trial"), monkeypatch)
    store.delete_container(store.containers()[0].id)
    for step in creation:
        key = new_id()
        monkeypatch.setattr(failpoint, "_armed", failpoint._Armed(f"{step}=error"))
        with pytest.raises(SystemCallError, match="failpoint"):
            make(store, key, "web")
        monkeypatch.setattr(failpoint, "_armed", None)
        assert store.containers() == [], step
        assert (on_disk(place), list(store.unowned()), store.layers()) == (set(), [], []), step
    for step in deletion:
        made = make(store, new_id(), "web")
        monkeypatch.setattr(failpoint, "_armed", failpoint._Armed(f"{step}=error"))
        with pytest.raises(SystemCallError, match="failpoint"):
            store.delete_container(made.id)
        monkeypatch.setattr(failpoint, "_armed", None)
        with contextlib.suppress(NoSuchStorageContainer):
            store.delete_container(made.id)
        store.repair()
        assert (on_disk(place), list(store.unowned()), store.layers()) == (set(), [], []), step
