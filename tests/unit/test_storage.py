# SPDX-License-Identifier: Apache-2.0
"""The container store on disk: what is written, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import pickle
import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from storage_support import on_disk, opened, records, table, token

from libpod.errors import (
    InvalidArgument,
    LockTimeout,
    NoSuchImage,
    RuntimeDirError,
    Unsupported,
)
from libpod.names import new_id
from libpod.storage import (
    CorruptStorage,
    DuplicateID,
    DuplicateName,
    LayerMounted,
    NoSuchStorageContainer,
    StorageFull,
    Store,
    Unowned,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts, or gives files to another user")


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


def test_what_the_driver_says(store: Store, place: Path) -> None:
    names = [name for name, _ in store.graph_status()]
    assert names == ["Backing Filesystem", "Supports d_type", "Native Overlay Diff",
                     "Using metacopy"]  # fmt: skip
    (place / "run/overlay").mkdir()
    for answer in ("metacopy()-true", "native-diff()-false", "overlay-true"):
        (place / "run/overlay" / answer).touch()
    answers = dict(store.graph_status())
    assert (answers["Using metacopy"], answers["Native Overlay Diff"]) == ("true", "false")
