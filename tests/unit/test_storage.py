# SPDX-License-Identifier: Apache-2.0
"""The container store on disk."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pickle
import random
import re
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from libpod import failpoint
from libpod.errors import (
    InvalidArgument,
    LockTimeout,
    NoSuchImage,
    RuntimeDirError,
    SystemCallError,
    Unsupported,
)
from libpod.lockfile import RecordLock
from libpod.names import new_id
from libpod.storage import (
    CorruptStorage,
    DuplicateID,
    DuplicateName,
    LayerMounted,
    NoSuchStorageContainer,
    StorageContainer,
    StorageFull,
    Store,
    Unowned,
    snapshot,
)
from libpod.storage import table as tables
from libpod.storage.table import Hold

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts, or gives files to another user")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.fixture
def store(place: Path) -> Iterator[Store]:
    store = opened(place)
    yield store
    store.close()


def opened(place: Path, **options: Any) -> Store:
    return Store(f"{place}/graph", f"{place}/run", **options)


def table(place: Path, name: str) -> Path:
    stems = {"containers": "overlay-containers", "layers": "overlay-layers",
             "images": "overlay-images"}  # fmt: skip
    return place / "graph" / stems[name] / f"{name}.json"


def records(place: Path, name: str) -> list[dict[str, Any]]:
    path = table(place, name)
    return list(json.loads(path.read_text())) if path.exists() else []


def token(place: Path, name: str) -> bytes:
    return table(place, name).with_suffix(".lock").read_bytes()


def on_disk(place: Path) -> set[str]:
    """Everything in the store but its files and empty rooms."""
    rooms = {"overlay", "overlay/l", "overlay-layers", "overlay-images", "overlay-containers"}
    found = {
        os.path.relpath(path, root)
        for root in (place / "graph", place / "run")
        for path in root.rglob("*")
    }
    return {path for path in found - rooms if not path.endswith((".lock", "s.json"))}


# --- what is written -----------------------------------------------------------------


def test_a_container_is_written_as_podman_writes_it(place: Path, store: Store) -> None:
    key = new_id()
    before = time.time_ns()
    made = store.create_container(key, "web")
    layer = made.layer_id
    assert re.fullmatch("[0-9a-f]{64}", layer)
    (record,) = records(place, "containers")
    assert list(record) == ["id", "names", "image", "layer", "metadata", "created", "flags"]
    seconds = made.created // 10**9 if made.created else 0
    assert record == {
        "id": key,
        "names": ["web"],
        "image": "",
        "layer": layer,
        "metadata": f'{{"image-name":"","image-id":"","name":"web","created-at":{seconds}}}',
        "created": record["created"],
        "flags": {"MountLabel": "", "ProcessLabel": ""},
    }
    created = record["created"]
    assert records(place, "layers") == [{"id": layer, "names": ["web-layer"], "created": created}]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", created)
    assert before <= (made.created or 0) <= time.time_ns()
    assert store.container(key) == made
    assert (made.name, made.names, made.image_id) == ("web", ("web",), "")


def test_directories_have_the_forms_and_modes_of_podman(place: Path, store: Store) -> None:
    previous = os.umask(0o077)
    try:
        made = store.create_container(new_id(), "web")
    finally:
        os.umask(previous)
    graph, run = place / "graph", place / "run"
    layer = graph / "overlay" / made.layer_id
    link = (layer / "link").read_text()
    assert re.fullmatch("[A-Z2-7]{26}", link)
    assert os.readlink(graph / "overlay/l" / link) == f"../{made.layer_id}/diff"
    assert {path.name for path in layer.iterdir()} == {"diff", "link", "work", "merged", "empty"}
    expected = {
        graph: 0o700,
        run: 0o700,
        graph / "overlay": 0o755,
        graph / "overlay/l": 0o755,
        graph / "overlay-layers": 0o700,
        graph / "overlay-containers": 0o700,
        run / "overlay-containers": 0o700,
        run / "overlay-layers": 0o700,
        layer: 0o700,
        layer / "diff": 0o555,
        layer / "work": 0o700,
        layer / "merged": 0o700,
        layer / "empty": 0o700,
        table(place, "layers"): 0o600,
        table(place, "containers"): 0o600,
        graph / "overlay-layers/layers.lock": 0o644,
        graph / "overlay-containers/containers.lock": 0o644,
        Path(store.container_dir(made.id)): 0o700,
        Path(store.container_run_dir(made.id)): 0o700,
    }
    assert {path: stat.S_IMODE(path.stat().st_mode) for path in expected} == expected
    assert store.container_dir(made.id) == f"{graph}/overlay-containers/{made.id}/userdata"
    assert store.container_run_dir(made.id) == f"{run}/overlay-containers/{made.id}/userdata"


def test_each_change_writes_a_token_of_64_bytes(place: Path, store: Store) -> None:
    seen = set()
    made = store.create_container(new_id(), "web")
    for change in (
        lambda: store.create_container(new_id(), "other"),
        lambda: store.rename_container(made.id, "new"),
        lambda: store.delete_container(made.id),
    ):
        seen.add(token(place, "containers"))
        change()
        seen.add(token(place, "containers"))
    assert len(seen) == 4
    assert {len(one) for one in seen} == {64}
    newest = token(place, "containers")
    assert abs(int.from_bytes(newest[:8], "little") - time.time_ns()) < 60e9
    assert int.from_bytes(newest[16:20], "little") == os.getpid()


def test_deleting_leaves_nothing(place: Path, store: Store) -> None:
    made = store.create_container(new_id(), "web")
    kept = store.create_container(new_id(), "kept")
    Path(store.container_dir(made.id), "shm").mkdir()
    Path(store.container_dir(made.id), "ctr.log").write_text("words")
    store.delete_container(made.id)
    assert [c.id for c in store.containers()] == [kept.id]
    assert [layer.id for layer in store.layers()] == [kept.layer_id]
    with pytest.raises(NoSuchStorageContainer) as caught:
        store.container(made.id)
    assert isinstance(caught.value, KeyError)
    assert caught.value.container_id == made.id
    with pytest.raises(NoSuchStorageContainer):
        store.delete_container(made.id)
    store.delete_container(kept.id)
    assert on_disk(place) == set()
    assert (records(place, "containers"), records(place, "layers")) == ([], [])
    assert list(store.unowned()) == []


# --- names -----------------------------------------------------------------------------


def test_names_and_ids_are_taken_once(store: Store) -> None:
    one = store.create_container(new_id(), "one")
    with pytest.raises(DuplicateName) as caught:
        store.create_container(new_id(), "one")
    assert caught.value.container_id == one.id
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.container_id) == (str(caught.value), one.id)
    with pytest.raises(DuplicateID):
        store.create_container(one.id, "two")
    assert store.containers() == [one]
    assert len(store.layers()) == 1
    assert list(store.unowned()) == []


def test_rename(place: Path, store: Store) -> None:
    one = store.create_container(new_id(), "one")
    two = store.create_container(new_id(), "two")
    with pytest.raises(DuplicateName):
        store.rename_container(one.id, "two")
    store.rename_container(one.id, "one")
    store.rename_container(one.id, "three")
    renamed = store.container(one.id)
    assert renamed == one._replace(names=("three",))
    assert [layer.names for layer in store.layers()] == [("one-layer",), ("two-layer",)]
    with pytest.raises(NoSuchStorageContainer):
        store.rename_container(new_id(), "four")
    # The free name's next owner takes the layer's name over, as in podman.
    new = store.create_container(new_id(), "one")
    assert {layer.id: layer.names for layer in store.layers()} == {
        one.layer_id: (),
        two.layer_id: ("two-layer",),
        new.layer_id: ("one-layer",),
    }
    assert "names" not in records(place, "layers")[0]


def test_a_rename_is_recorded_before_it_is_in_force(place: Path, store: Store) -> None:
    """Under the locks: nobody can take the old name while it is not sure that it is free."""
    made = store.create_container(new_id(), "old")
    seen = []

    def record() -> None:
        seen.append(store.container(made.id).names)
        with pytest.raises(LockTimeout):
            opened(place, lock_timeout=0).create_container(new_id(), "other")

    def refuse() -> None:
        raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        store.rename_container(made.id, "new", refuse)
    assert opened(place).containers() == [made]
    assert list(store.unowned()) == []
    store.rename_container(made.id, "new", record)
    store.rename_container(made.id, "new", record)  # to finish one that was cut short
    assert seen == [("old",), ("new",)]
    assert store.container(made.id).names == ("new",)


@pytest.mark.parametrize(
    ("key", "name"), [("../x", "web"), ("", "web"), ("A" * 64, "web"), (None, ""), (None, "a/b")]
)
def test_bad_names_and_ids(place: Path, store: Store, key: str | None, name: str) -> None:
    with pytest.raises(InvalidArgument):
        store.create_container(new_id() if key is None else key, name)
    assert on_disk(place) == set()


@pytest.mark.parametrize("key", ["", ".", "..", "a/b", "a\0"])
def test_an_id_is_one_component_of_a_path(store: Store, key: str) -> None:
    with pytest.raises(InvalidArgument):
        store.container_dir(key)
    with pytest.raises(InvalidArgument):
        store.container_run_dir(key)


# --- others' records --------------------------------------------------------------------

FOREIGN_CONTAINER = (
    '{"id" : "theirs","names":["a","b"],"layer":"deep","x":[1.50,"\\u003c\\ud800é"]}'
)
FOREIGN_LAYERS = (
    '[ {"id":"base","created":"2024-01-01T00:00:00.5Z","diff-size":1e3,"uidmap":[{"size":1}]} ,\n'
    ' {"created":"x","id":"deep","parent":"base","big-data-names":[",{\\"id\\":\\"q\\"}"]}\n]\n'
)


def put_foreign(place: Path) -> None:
    table(place, "containers").write_text(f"[{FOREIGN_CONTAINER}]")
    table(place, "layers").write_text(FOREIGN_LAYERS)


def test_others_records_are_written_back_byte_by_byte(place: Path, store: Store) -> None:
    put_foreign(place)
    made = store.create_container(new_id(), "web")
    store.rename_container(made.id, "wide")
    for text in (FOREIGN_CONTAINER, '"layer":"deep"'):
        assert text in table(place, "containers").read_text()
    for text in FOREIGN_LAYERS.strip("[]\n ").split(" ,\n "):
        assert text in table(place, "layers").read_text()
    store.delete_container(made.id)
    assert table(place, "containers").read_text() == f"[{FOREIGN_CONTAINER}]"
    assert json.loads(table(place, "layers").read_text()) == json.loads(FOREIGN_LAYERS)


@pytest.mark.parametrize(
    "text",
    [
        '[{"id":"a","x":[1,{"id":"b"}]}, {"id":"b"}]',
        '[{"id":"a","x":[{},{"id":"b"}]} ,{"id":"b","y":1}]',
        '[{"id":"a","x":[{},{"id":"b"}]},{ "id":"b"},{"id":"c"}]',
        '[{"id":"a","x":"{"},{"id":"b","x":",{"}]',
        '[{"x":1,"id":"a"},{"id":"b"}]',
        '[{"id":"\\u0061"},{"id":"b"}]',
    ],
)
def test_records_are_told_apart_whatever_is_in_them(place: Path, store: Store, text: str) -> None:
    table(place, "layers").write_text(text)
    made = store.create_container(new_id(), "web")
    before = json.loads(text)
    assert json.loads(table(place, "layers").read_text())[:-1] == before
    store.discard(Unowned("layer", "b", 0))
    assert records(place, "layers")[:-1] == [r for r in before if r["id"] != "b"]
    store.discard(Unowned("layer", "a", 0))
    store.delete_container(made.id)
    assert [r["id"] for r in records(place, "layers")] == [r["id"] for r in before[2:]]


def test_others_records_read(place: Path, store: Store) -> None:
    put_foreign(place)
    theirs = store.container("theirs")
    assert (theirs.names, theirs.layer_id, theirs.created) == (("a", "b"), "deep", None)
    base, deep = store.layers()
    assert (base.parent_id, deep.parent_id, deep.created) == ("", "base", None)
    assert base.created == 1704067200_500000000
    assert (store.container_count(), store.image_count()) == (1, 0)
    with pytest.raises(DuplicateName):
        store.create_container(new_id(), "b")
    store.rename_container("theirs", "c")
    (record,) = records(place, "containers")
    assert record == {**json.loads(FOREIGN_CONTAINER), "names": ["c"]}


def test_a_layer_that_others_need_is_kept(place: Path, store: Store) -> None:
    put_foreign(place)
    made = store.create_container(new_id(), "web")
    changed = table(place, "containers").read_text().replace(made.layer_id, "base")
    table(place, "containers").write_text(changed)
    store.delete_container(made.id)
    assert {layer.id for layer in store.layers()} == {"base", "deep", made.layer_id}


def test_volatile_records_of_newer_stores(place: Path, store: Store) -> None:
    key, layer = new_id(), new_id()
    volatile = table(place, "containers").with_name("volatile-containers.json")
    text = json.dumps([{"id": key, "names": ["theirs"], "layer": layer}])
    volatile.write_text(text)
    (place / "run/overlay-layers/volatile-layers.json").write_text(json.dumps([{"id": layer}]))
    assert store.container(key).names == ("theirs",)
    assert [found.id for found in store.layers()] == [layer]
    with pytest.raises(DuplicateName):
        store.create_container(new_id(), "theirs")
    for change in (lambda: store.delete_container(key), lambda: store.rename_container(key, "x")):
        with pytest.raises(Unsupported, match="volatile"):
            change()
    store.create_container(new_id(), "ours")
    assert volatile.read_text() == text
    assert "theirs" not in table(place, "containers").read_text()
    assert list(store.unowned()) == []


def test_what_another_process_writes_is_seen(place: Path, store: Store) -> None:
    other = opened(place)
    for turn in range(20):
        made = other.create_container(new_id(), f"c{turn}")
        assert store.container(made.id) == made
        assert len(store.containers()) == 1
        other.delete_container(made.id)
        assert store.containers() == []


# --- images ---------------------------------------------------------------------------


def put_image(place: Path) -> tuple[str, str, str]:
    """An image of two layers: its ID, its top layer, the layer below."""
    image, top, base = new_id(), new_id(), new_id()
    table(place, "images").write_text(json.dumps([{"id": image, "layer": top, "names": ["i"]}]))
    table(place, "layers").write_text(json.dumps([{"id": base}, {"id": top, "parent": base}]))
    for layer, mode in ((base, 0o755), (top, 0o751)):
        diff = place / "graph/overlay" / layer / "diff"
        diff.mkdir(parents=True)
        diff.chmod(mode)
        (diff / "file").write_text("data")
        (diff.parent / "link").write_text(layer[:26].upper())
    (place / "graph/overlay" / top / "lower").write_text(f"l/{base[:26].upper()}")
    return image, top, base


def test_a_container_of_an_image_stands_on_its_layers(place: Path, store: Store) -> None:
    image, top, base = put_image(place)
    made = store.create_container(new_id(), "web", image_id=image, image_name="i:latest")
    directory = place / "graph/overlay" / made.layer_id
    assert (directory / "lower").read_text() == f"l/{top[:26].upper()}:l/{base[:26].upper()}"
    assert stat.S_IMODE((directory / "diff").stat().st_mode) == 0o751
    assert not (directory / "empty").exists()
    assert store.layers()[-1].parent_id == top
    assert json.loads(made.metadata)["image-name"] == "i:latest"
    assert (made.image_id, store.image_count()) == (image, 1)
    store.delete_container(made.id)
    store.repair()
    assert [layer.id for layer in store.layers()] == [base, top]
    assert (place / "graph/overlay" / base / "diff/file").read_text() == "data"
    with pytest.raises(NoSuchImage):
        store.create_container(new_id(), "web", image_id=new_id())


def test_nothing_is_taken_for_unowned_where_layers_of_images_are_lost(
    place: Path, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    _, top, base = put_image(place)
    table(place, "layers").write_text("")
    store.repair()
    assert list(store.unowned()) == []
    assert "lacks layers of images" in caplog.text
    assert (place / "graph/overlay" / top / "diff/file").exists()
    assert (place / "graph/overlay" / base / "diff/file").exists()


# --- what a crash left -------------------------------------------------------------------


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


class _Recorder:
    """Stands for an armed failpoint: notes every place, ends nothing."""

    def __init__(self) -> None:
        self.name = self
        self.reached: list[str] = []

    def __eq__(self, name: object) -> bool:
        self.reached.append(str(name))
        return False

    __hash__ = None  # type: ignore[assignment]


def places_of(work: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The places that `work` reaches, as NAME:COUNT."""
    recorder = _Recorder()
    with monkeypatch.context() as patch:
        patch.setattr(failpoint, "_armed", recorder)
        work()
    reached = recorder.reached
    return [f"{name}:{reached[: at + 1].count(name)}" for at, name in enumerate(reached)]


def ended_at(place: str, action: str, work: Callable[[], object]) -> int:
    """The wait status of a child that does `work`, armed."""
    pid = os.fork()
    if pid == 0:
        try:
            failpoint._armed = failpoint._Armed(f"{place}={action}")
            work()
            os._exit(0)
        except SystemCallError as error:
            os._exit(0 if error.errno == errno.ENOSPC else 3)
        finally:
            os._exit(4)
    return os.waitpid(pid, 0)[1]


def test_killed_at_each_step_of_a_creation(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(place)
    kept = store.create_container(new_id(), "kept")
    untouched = on_disk(place)
    steps = places_of(lambda: store.create_container(new_id(), "trial"), monkeypatch)
    store.delete_container(store.containers()[-1].id)
    assert len(steps) >= 16
    for step in steps:
        key = new_id()
        status = ended_at(step, "kill", lambda key=key: opened(place).create_container(key, "web"))
        assert os.waitstatus_to_exitcode(status) == -9, step
        later = opened(place)
        later.repair()
        if any(c.id == key for c in later.containers()):
            later.delete_container(key)
        assert list(later.unowned()) == [], step
        assert on_disk(place) == untouched, step
        assert later.containers() == [kept], step
        assert [layer.id for layer in later.layers()] == [kept.layer_id], step


@pytest.mark.parametrize("filled", [False, True])
def test_killed_at_each_step_of_a_deletion(
    place: Path, filled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(place)

    def fill(container: StorageContainer) -> StorageContainer:
        if filled:
            (place / "graph/overlay" / container.layer_id / "diff/file").write_text("x")
        return container

    kept = store.create_container(new_id(), "kept")
    untouched = on_disk(place)
    trial = fill(store.create_container(new_id(), "trial"))
    steps = places_of(lambda: store.delete_container(trial.id), monkeypatch)
    assert len(steps) >= (18 if filled else 15)
    for step in steps:
        made = fill(store.create_container(new_id(), "web"))
        status = ended_at(step, "kill", lambda key=made.id: opened(place).delete_container(key))
        assert os.waitstatus_to_exitcode(status) == -9, step
        later = opened(place)
        with contextlib.suppress(NoSuchStorageContainer):
            later.delete_container(made.id)
        later.repair()
        assert list(later.unowned()) == [], step
        assert on_disk(place) == untouched, step
        assert later.containers() == [kept], step


def test_failing_at_each_step(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(place)
    trial = store.create_container(new_id(), "trial")
    deletion = places_of(lambda: store.delete_container(trial.id), monkeypatch)
    creation = places_of(lambda: store.create_container(new_id(), "trial"), monkeypatch)
    store.delete_container(store.containers()[0].id)
    for step in creation:
        key = new_id()
        monkeypatch.setattr(failpoint, "_armed", failpoint._Armed(f"{step}=error"))
        with pytest.raises(SystemCallError, match="failpoint"):
            store.create_container(key, "web")
        monkeypatch.setattr(failpoint, "_armed", None)
        assert store.containers() == [], step
        assert (on_disk(place), list(store.unowned()), store.layers()) == (set(), [], []), step
    for step in deletion:
        made = store.create_container(new_id(), "web")
        monkeypatch.setattr(failpoint, "_armed", failpoint._Armed(f"{step}=error"))
        with pytest.raises(SystemCallError, match="failpoint"):
            store.delete_container(made.id)
        monkeypatch.setattr(failpoint, "_armed", None)
        with contextlib.suppress(NoSuchStorageContainer):
            store.delete_container(made.id)
        store.repair()
        assert (on_disk(place), list(store.unowned()), store.layers()) == (set(), [], []), step


# --- bad input ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["{}", "[", "[{]", '[{"id":"a"}', '[{"id":"a"}]]', '[{"id":"a"}{"id":"b"}]', "[1]", "[{}]",
     '[{"id":1}]', '[{"id":"a"},{"id":"a"}]', '[{"id":"a","names":"x"}]', "\0\0\0\0",
     '[{"id":"a","names":[1]}]', '[{"id":"a","flags":[1]}]', "[" * 100_000,
     '[{"id":"a","mapped-layers":1}]'],
)  # fmt: skip
@pytest.mark.parametrize("name", ["containers", "layers"])
def test_damaged_files_are_told_and_left_alone(
    place: Path, store: Store, name: str, text: str
) -> None:
    store.create_container(new_id(), "web")
    before = on_disk(place)
    table(place, name).write_text(text)
    with pytest.raises(CorruptStorage, match=f"{name}.json"):
        store.create_container(new_id(), "other")
    with pytest.raises(CorruptStorage):
        store.repair()
    with pytest.raises(CorruptStorage):
        store.containers() if name == "containers" else store.layers()
    assert table(place, name).read_text() == text
    assert on_disk(place) == before


@pytest.mark.parametrize("text", ["", " \n", "null", "[]", "[ ]"])
def test_files_without_records(place: Path, store: Store, text: str) -> None:
    table(place, "containers").write_text(text)
    assert store.containers() == []
    made = store.create_container(new_id(), "web")
    assert opened(place).containers() == [made]


def test_a_full_disk(place: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made = store.create_container(new_id(), "web")
    before = on_disk(place)

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", full)
        with pytest.raises(StorageFull) as caught:
            store.create_container(new_id(), "other")
        assert caught.value.errno == errno.ENOSPC
        with pytest.raises(StorageFull):
            store.delete_container(made.id)
    assert store.containers() == [made]
    store.delete_container(made.id)
    assert on_disk(place) == set() != before


@as_root
def test_a_disk_that_is_really_full(place: Path) -> None:
    disk = place / "disk"
    disk.mkdir(0o700)
    options = "size=64k,nr_inodes=100,mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", disk], check=True)
    try:
        store = opened(disk)
        made = store.create_container(new_id(), "web")
        with pytest.raises(StorageFull):
            for number in range(100):
                store.create_container(new_id(), f"more-{number}")
        count = len(store.containers())
        filler = disk / "filler"
        with pytest.raises(OSError), filler.open("wb", buffering=0) as file:
            while file.write(b"x" * 512):
                pass
        before = on_disk(disk)
        with pytest.raises(StorageFull):
            store.create_container(new_id(), "other")
        assert on_disk(disk) == before
        assert len(opened(disk).containers()) == count
        filler.unlink()
        for container in store.containers():
            store.delete_container(container.id)
        store.create_container(made.id, "web")
        store.close()
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_lock_that_another_process_holds(place: Path, store: Store) -> None:
    store.create_container(new_id(), "web")
    lock = table(place, "layers").with_suffix(".lock")
    program = (
        "import sys; from libpod.lockfile import RecordLock; lock = RecordLock(sys.argv[1])\n"
        "with lock: print('held', flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", program, str(lock)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LockTimeout) as caught:
            opened(place, lock_timeout=0.2).create_container(new_id(), "other")
        assert caught.value.holder == holder.pid
        assert len(store.containers()) == 1  # reading does not wait
        holder.communicate()


@pytest.mark.parametrize("inside", ["graph", "graph/overlay", "run/overlay-containers"])
def test_directories_that_others_can_write_to_are_refused(place: Path, inside: str) -> None:
    opened(place)
    (place / inside).chmod(0o777)
    with pytest.raises(RuntimeDirError):
        opened(place)


def test_a_link_in_place_of_a_directory_is_refused(place: Path) -> None:
    opened(place)
    (place / "graph/overlay-images").rmdir()
    (place / "graph/overlay-images").symlink_to(place)
    with pytest.raises(RuntimeDirError):
        opened(place)


@as_root
def test_a_directory_of_another_user_is_refused(place: Path) -> None:
    opened(place)
    os.chown(place / "graph/overlay-layers", 12345, 12345)
    with pytest.raises(RuntimeDirError):
        opened(place)


def test_other_drivers_and_relative_paths() -> None:
    with pytest.raises(Unsupported, match="vfs"):
        Store("/nowhere", "/nowhere", "vfs")
    with pytest.raises(InvalidArgument):
        Store("graph", "/run")


@as_root
def test_a_mounted_layer_is_not_removed(place: Path, store: Store) -> None:
    made = store.create_container(new_id(), "web")
    merged = place / "graph/overlay" / made.layer_id / "merged"
    mounts = place / "run/overlay-layers/mountpoints.json"
    mounts.write_text(json.dumps([{"id": made.layer_id, "path": str(merged), "count": 2}]))
    assert store.mount_count(made.layer_id) == 2
    subprocess.run(["mount", "-t", "tmpfs", "none", merged], check=True)
    try:
        with pytest.raises(LayerMounted):
            store.delete_container(made.id)
        assert not store.layers()[0].incomplete
    finally:
        subprocess.run(["umount", merged], check=True)
    store.delete_container(made.id)
    assert mounts.read_text() == "[]"
    assert store.mount_count(made.layer_id) == 0
    assert on_disk(place) == set()


def test_the_import_is_light() -> None:
    program = "import sys, libpod.storage; print(*sys.modules)"
    command = [sys.executable, "-S", "-c", program]
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(command, env={"PYTHONPATH": path}, check=True, capture_output=True)
    loaded = set(done.stdout.decode().split())
    heavy = "asyncio dataclasses inspect pathlib shutil socket subprocess tempfile urllib"
    assert loaded.isdisjoint(heavy.split())


# --- versions that change places -----------------------------------------------------------


def spare(place: Path, name: str) -> Path:
    path = table(place, name)
    return path.with_name(f".libpod-{path.name}")


def test_two_files_change_places(place: Path, store: Store) -> None:
    store.create_container(new_id(), "first")
    store.create_container(new_id(), "second")
    both = {table(place, "layers").stat().st_ino, spare(place, "layers").stat().st_ino}
    for turn in range(4):
        before = table(place, "layers").stat().st_ino
        store.create_container(new_id(), f"c{turn}")
        assert both - {before} == {table(place, "layers").stat().st_ino}
        assert len(records(place, "layers")) == 3 + turn
    for container in store.containers():
        store.delete_container(container.id)
    assert table(place, "layers").read_text() == "[]"


@pytest.mark.parametrize("other", ["layers", "spare"])
def test_another_name_of_a_file_keeps_its_content(place: Path, store: Store, other: str) -> None:
    """A backup may be a link to the same file."""
    for name in ("one", "two"):
        store.create_container(new_id(), name)
    linked = table(place, "layers") if other == "layers" else spare(place, "layers")
    backup = place / "backup"
    os.link(linked, backup)
    content = backup.read_text()
    for name in ("three", "four", "five"):
        store.create_container(new_id(), name)
    assert backup.read_text() == content


def test_a_table_that_somebody_opened_to_others_is_closed_to_them(
    place: Path, store: Store
) -> None:
    store.create_container(new_id(), "one")
    table(place, "layers").chmod(0o644)
    for name in ("two", "three"):
        store.create_container(new_id(), name)
        assert stat.S_IMODE(table(place, "layers").stat().st_mode) == 0o600


def test_a_file_system_that_cannot_exchange_names(
    place: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_swap", os.rename)
    made = [store.create_container(new_id(), f"c{turn}") for turn in range(3)]
    assert opened(place).containers() == made
    for container in made:
        store.delete_container(container.id)
    assert on_disk(place) == set()
    assert not spare(place, "layers").exists()


def test_a_link_in_place_of_the_spare_is_not_written_through(place: Path, store: Store) -> None:
    store.create_container(new_id(), "web")
    outside = place / "outside"
    outside.write_text("words")
    spare(place, "layers").unlink(missing_ok=True)
    spare(place, "layers").symlink_to(outside)
    with pytest.raises(SystemCallError) as caught:
        store.create_container(new_id(), "other")
    assert caught.value.errno == errno.ELOOP
    assert outside.read_text() == "words"


def test_a_reader_without_a_lock_sees_one_version(
    place: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the file that he opened is the spare, and written to, before he reads it."""
    other = opened(place)
    made = [other.create_container(new_id(), f"c{turn}") for turn in range(3)]
    content = tables._content
    path = str(table(place, "containers"))
    changes = iter([2, 1, 0])

    def torn(name: str) -> bytes:
        if name != path:
            return content(name)
        with open(name, "rb") as file:
            start = file.read(10) if os.path.getsize(name) else b""
            for _ in range(next(changes, 0)):
                monkeypatch.setattr(tables, "_content", content)
                made.append(other.create_container(new_id(), f"c{len(made)}"))
                monkeypatch.setattr(tables, "_content", torn)
            return start + os.pread(file.fileno(), 1 << 20, len(start))

    monkeypatch.setattr(tables, "_content", torn)
    found = store.containers()
    assert next(changes, None) is None
    assert found == made
    assert len(made) == 6
    other.close()


def test_whoever_dies_leaves_a_token_with_the_version(place: Path, store: Store) -> None:
    """A podman that runs on goes by the token alone."""
    store.create_container(new_id(), "web")
    before = token(place, "containers")
    key = new_id()
    status = ended_at(
        "storage.containers.swapped", "kill", lambda: opened(place).create_container(key, "other")
    )
    assert os.waitstatus_to_exitcode(status) == -9
    assert key in {record["id"] for record in records(place, "containers")}
    assert token(place, "containers") != before


def test_what_a_killed_writer_left_in_the_spare_does_not_matter(place: Path, store: Store) -> None:
    """Whatever it is, and however long."""
    made = [store.create_container(new_id(), f"c{turn}") for turn in range(40)]
    path = spare(place, "containers")
    for content in (b"", b"[", b"x" * 5000, path.read_bytes() + b"x" * 20_000, None):
        old = bytearray(table(place, "containers").read_bytes()) if content is None else content
        if isinstance(old, bytearray):
            old[5000] ^= 1
        path.write_bytes(old)
        made.append(store.create_container(new_id(), f"c{len(made)}"))
        assert [record["id"] for record in records(place, "containers")] == [c.id for c in made]
        path = spare(place, "containers")


class _PowerCut:
    """What may be on the disk at each moment, of one table.

    Names are on the disk as they were at the last sync of their directory or at any time
    since; a file that was written to since its last sync may be torn.
    """

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.in_force = {self._file()}
        self.torn: set[int] = set()
        self.writes = 0
        for name in ("write", "ftruncate", "fdatasync", "fsync"):
            monkeypatch.setattr(os, name, self._watched(name, getattr(os, name)))
        swap = tables._swap

        def swapped(fresh: str, path: str) -> None:
            swap(fresh, path)
            self.in_force.add(self._file())
            self._check()

        monkeypatch.setattr(tables, "_swap", swapped)

    def _file(self) -> int:
        return self.path.stat().st_ino if self.path.exists() else 0

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(fd: int, *args: Any) -> Any:
            file = os.fstat(fd)
            if name in ("write", "ftruncate"):
                self.torn.add(file.st_ino)
                self._check()
            done = call(fd, *args)
            if name == "fdatasync":
                self.torn.discard(file.st_ino)
            elif name == "fsync" and os.path.samestat(file, os.stat(self.path.parent)):
                self.in_force = {self._file()}
            return done

        return watched

    def _check(self) -> None:
        self.writes += 1
        assert not self.in_force & self.torn, "after a power cut now the table may be torn"


@pytest.mark.parametrize("name", ["layers", "containers"])
def test_a_power_cut_at_any_time_leaves_a_whole_table(
    place: Path, store: Store, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [store.create_container(new_id(), f"c{turn}").id for turn in range(3)]
    disk = _PowerCut(table(place, name), monkeypatch)
    for turn in range(3):
        # One process in turn with another one, and one that is cut short before its sync.
        made.append(store.create_container(new_id(), f"d{turn}").id)
        opened(place).rename_container(made[0], f"e{turn}")
        monkeypatch.setattr(failpoint, "_armed", failpoint._Armed(f"storage.{name}.swapped=error"))
        with pytest.raises(SystemCallError, match="failpoint"):
            opened(place).delete_container(made.pop())
        monkeypatch.setattr(failpoint, "_armed", None)
        store.rename_container(made[1], f"f{turn}")
        monkeypatch.setattr(failpoint, "_armed", failpoint._Armed(f"storage.{name}.swapped=error"))
        with pytest.raises(SystemCallError, match="failpoint"):
            store.create_container(new_id(), f"g{turn}")
        monkeypatch.setattr(failpoint, "_armed", None)
        opened(place).delete_container(made.pop(0))
        made.append(store.create_container(new_id(), f"h{turn}").id)
    assert disk.writes > 20


# --- many at once ----------------------------------------------------------------------------


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


def test_an_interrupt_leaves_no_lock_held(
    place: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may come when a lock has just been taken."""
    store.create_container(new_id(), "web")
    take = Hold.take

    def interrupted(hold: Hold, timeout: float, shared: bool = False) -> None:
        take(hold, timeout, shared)
        if hold.table.stem == "containers":
            raise _Interrupt

    monkeypatch.setattr(Hold, "take", interrupted)
    with pytest.raises(_Interrupt) as caught:
        store.create_container(new_id(), "other")
    monkeypatch.undo()
    assert caught.value.__traceback__ is not None  # it keeps what the frames refer to
    opened(place, lock_timeout=0).create_container(new_id(), "other")
    opened_like(store, 0).create_container(new_id(), "third")


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


def test_what_the_driver_says(store: Store, place: Path) -> None:
    names = [name for name, _ in store.graph_status()]
    assert names == ["Backing Filesystem", "Supports d_type", "Native Overlay Diff",
                     "Using metacopy"]  # fmt: skip
    (place / "run/overlay").mkdir()
    for answer in ("metacopy()-true", "native-diff()-false", "overlay-true"):
        (place / "run/overlay" / answer).touch()
    answers = dict(store.graph_status())
    assert (answers["Using metacopy"], answers["Native Overlay Diff"]) == ("true", "false")
