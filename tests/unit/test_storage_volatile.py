# SPDX-License-Identifier: Apache-2.0
"""Containers that need not outlive a boot: their records are in the run root."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from storage_support import on_disk, opened, records, table, token

from libpod.errors import InvalidArgument
from libpod.names import new_id
from libpod.storage import DuplicateID, DuplicateName, NoSuchStorageContainer, Store


def volatile(place: Path) -> Path:
    return place / "run/overlay-containers/volatile-containers.json"


def test_it_has_a_record_in_the_run_root_and_no_layer(place: Path, store: Store) -> None:
    store.create_container(new_id(), "stable")
    before, written = records(place, "containers"), token(place, "containers")
    made = store.create_volatile(new_id(), "job")
    assert (made.names, made.layer_id, made.image_id) == (("job",), "", "")
    assert store.container(made.id) == made
    assert [container.name for container in store.containers()] == ["stable", "job"]
    assert [record["id"] for record in json.loads(volatile(place).read_text())] == [made.id]
    assert stat.S_IMODE(volatile(place).stat().st_mode) == 0o600
    assert records(place, "containers") == before
    assert token(place, "containers") != written
    assert len(store.layers()) == 1
    for path in (store.container_dir(made.id), store.container_run_dir(made.id)):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    assert list(store.unowned()) == []
    assert opened(place).containers() == store.containers()


def test_nothing_of_it_is_synced(
    place: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = os.stat(place / "graph/overlay-containers")

    def refuse(fd: int) -> None:
        status = os.fstat(fd)
        assert not os.path.samestat(status, graph)
        assert os.path.samestat(status, os.stat(place / "run/overlay-containers")) or any(
            os.path.samestat(status, entry.stat())
            for entry in os.scandir(place / "run/overlay-containers")
        )

    monkeypatch.setattr(os, "fsync", refuse)
    monkeypatch.setattr(os, "fdatasync", refuse)
    made = store.create_volatile(new_id(), "job")
    store.delete_container(made.id)


def test_deleting_leaves_nothing(place: Path, store: Store) -> None:
    made = store.create_volatile(new_id(), "job")
    Path(store.container_dir(made.id), "ctr.log").write_text("words")
    store.delete_container(made.id)
    assert (on_disk(place), store.containers(), list(store.unowned())) == (set(), [], [])
    with pytest.raises(NoSuchStorageContainer):
        store.delete_container(made.id)


def test_names_and_ids_are_those_of_all_containers(place: Path, store: Store) -> None:
    stable, job = store.create_container(new_id(), "stable"), store.create_volatile(new_id(), "job")
    before = on_disk(place)
    for make in (store.create_container, store.create_volatile):
        for name in ("stable", "job"):
            with pytest.raises(DuplicateName):
                make(new_id(), name)
        for key in (stable.id, job.id):
            with pytest.raises(DuplicateID):
                make(key, "other")
        with pytest.raises(InvalidArgument):
            make("0" * 63, "other")
        with pytest.raises(InvalidArgument):
            make(new_id(), "a/b")
    assert on_disk(place) == before


def test_rename(place: Path, store: Store) -> None:
    made = store.create_volatile(new_id(), "job")
    store.rename_container(made.id, "task")
    assert store.container(made.id).name == "task"
    assert records(place, "containers") == []
    store.create_volatile(new_id(), "job")
    with pytest.raises(DuplicateName):
        store.rename_container(made.id, "job")


def test_what_begins_with_it_ends_with_it(place: Path, store: Store) -> None:
    """`begin` finds both directories; where it fails, nothing was made."""
    seen: list[Any] = []

    def begin() -> None:
        seen.append((sorted(on_disk(place)), store.containers()))
        raise KeyboardInterrupt

    for make in (store.create_container, store.create_volatile):
        key = new_id()
        with pytest.raises(KeyboardInterrupt):
            make(key, "job", begin=begin)
        paths, containers = seen.pop()
        assert (set(paths), containers) == (
            {f"overlay-containers/{key}", f"overlay-containers/{key}/userdata"},
            [],
        )
        assert (on_disk(place), store.containers(), store.layers()) == (set(), [], [])


def test_a_boot_forgets_it(place: Path, store: Store) -> None:
    kept = store.create_container(new_id(), "stable")
    job, filled = (store.create_volatile(new_id(), f"job-{n}") for n in range(2))
    Path(store.container_dir(filled.id), "ctr.log").write_text("words")
    store.close()
    shutil.rmtree(place / "run")
    later = opened(place)
    assert later.containers() == [kept]
    later.create_volatile(new_id(), "job-1")
    assert {(found.kind, found.name) for found in later.unowned()} == {
        ("container-directory", job.id),
        ("container-directory", filled.id),
    }
    later.repair()
    assert [found.name for found in later.unowned()] == [filled.id]
    with pytest.raises(NoSuchStorageContainer):  # but what is left of it has gone
        later.delete_container(filled.id)
    assert list(later.unowned()) == []


def test_one_can_be_restored_after_a_boot(place: Path, store: Store) -> None:
    made = store.create_volatile(new_id(), "job")
    store.restore_volatile(made.id, "job")
    assert store.containers() == [made]
    store.close()
    shutil.rmtree(place / "run")
    later = opened(place)
    later.create_volatile(new_id(), "other")
    with pytest.raises(DuplicateName):
        later.restore_volatile(made.id, "other")
    later.restore_volatile(made.id, "job")
    assert later.container(made.id)._replace(created=None) == made._replace(created=None)
    later.delete_container(made.id)
    assert not os.path.exists(later.container_dir(made.id))


def test_records_of_newer_stores(place: Path, store: Store) -> None:
    """They keep theirs in the graph root, too; members that we do not know stay."""
    key, other, layer = new_id(), new_id(), new_id()
    theirs = table(place, "containers").with_name("volatile-containers.json")
    member = {"id": other, "names": ["other"], "new": {"a": [1.50, "\u00e9"]}}
    texts = [json.dumps({"id": key, "names": ["theirs"], "layer": layer}), json.dumps(member)]
    theirs.write_text(f"[{','.join(texts)}]")
    layers = place / "run/overlay-layers/volatile-layers.json"
    layers.write_text(json.dumps([{"id": layer}]))
    (place / "graph/overlay" / layer / "diff").mkdir(parents=True)
    assert store.container(key).names == ("theirs",)
    assert [found.id for found in store.layers()] == [layer]
    for make in (store.create_container, store.create_volatile):
        with pytest.raises(DuplicateName):
            make(new_id(), "theirs")
    store.create_container(new_id(), "ours")
    assert theirs.read_text() == f"[{','.join(texts)}]"
    store.rename_container(key, "renamed")
    names = [record["names"] for record in json.loads(theirs.read_text())]
    assert names == [["renamed"], ["other"]]
    assert texts[1] in theirs.read_text()
    store.delete_container(key)
    assert theirs.read_text() == f"[{texts[1]}]"
    assert json.loads(layers.read_text()) == []
    assert not (place / "graph/overlay" / layer).exists()
    assert [record["names"] for record in records(place, "containers")] == [["ours"]]
    assert list(store.unowned()) == []
