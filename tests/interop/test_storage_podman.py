# SPDX-License-Identifier: Apache-2.0
"""One container store for the real podman and for this library."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from armed import ended_at, places_of
from libpod.names import new_id
from libpod.storage import DuplicateName, NoSuchStorageContainer, Store
from tests.interop.podman import Podman


@pytest.fixture
def store(podman: Podman) -> Iterator[Store]:
    store = opened(podman)
    yield store
    store.close()


def opened(podman: Podman) -> Store:
    return Store(str(podman.directory / "root"), str(podman.directory / "run"))


def external(podman: Podman) -> dict[str, dict[str, Any]]:
    """What `podman ps` shows of all the store's containers, by name."""
    rows = json.loads(podman("ps", "--all", "--external", "--format", "json") or "[]")
    return {row["Names"][0]: row for row in rows}


def on_disk(podman: Podman) -> set[str]:
    """Layers, links and containers' directories, in both roots."""
    rooms = ("root/overlay", "root/overlay/l", "root/overlay-containers", "run/overlay-containers")
    found = {f"{room}/{name}" for room in rooms for name in os.listdir(podman.directory / room)}
    known = {"root/overlay/l", "root/overlay/.has-mount-program"}
    return {path for path in found - known if not path.endswith((".json", ".lock"))}


# --- the same on the disk ------------------------------------------------------------------


def shape(podman: Podman, store: Store, container_id: str) -> dict[str, Any]:
    """What the store has for a container, without what differs between any two."""
    made = store.container(container_id)
    random = {made.id: "ID", made.layer_id: "LAYER", made.name: "NAME"}
    root = podman.directory / "root"
    layer = root / "overlay" / made.layer_id
    random[(layer / "link").read_text()] = "LINK"

    def plain(text: str) -> str:
        for word, stands_for in random.items():
            text = text.replace(word, stands_for)
        return re.sub(r'("created":)"[^"]*"|("created-at\\*":)\d+', r"\1\2TIME", text)

    def record(file: str, key: str) -> str:
        # As it stands in the file: order and spacing count.
        (found,) = (r for r in json.loads((root / file).read_text()) if r["id"] == key)
        text = json.dumps(found, separators=(",", ":"))
        assert text in (root / file).read_text()
        return plain(text)

    trees = [layer, root / "overlay-containers" / made.id]
    trees.append(podman.directory / "run/overlay-containers" / made.id)
    paths = [path for tree in trees for path in (tree, *tree.rglob("*"))]
    paths.append(root / "overlay/l" / (layer / "link").read_text())
    program = {"artifacts", "secrets", "shm"}  # of podman itself, not of the store
    return {
        "container": record("overlay-containers/containers.json", made.id),
        "layer": record("overlay-layers/layers.json", made.layer_id),
        "tree": {
            plain(str(path)): (
                oct(path.lstat().st_mode),
                plain(str(path.readlink())) if path.is_symlink() else None,
            )
            for path in paths
            if path.name not in program
        },
    }


def test_ours_is_like_podmans(podman: Podman, store: Store) -> None:
    theirs = podman.create("theirs")
    ours = store.create_container(new_id(), "ours")
    assert shape(podman, store, ours.id) == shape(podman, store, theirs)


def test_files_and_rooms_have_podmans_modes(podman: Podman, tmp_path: Path) -> None:
    podman.create("one")
    store = Store(f"{tmp_path}/root", f"{tmp_path}/run")
    store.create_container(new_id(), "one")

    def modes(top: Path) -> dict[str, str]:
        rooms = [path for path in top.rglob("overlay*") if path.parent.name in ("root", "run")]
        files = [path for path in top.rglob("overlay-*/*") if path.suffix in (".json", ".lock")]
        files = [path for path in files if not path.name.startswith(".")]  # a spare of ours
        return {str(p.relative_to(top)): oct(p.stat().st_mode) for p in rooms + files}

    theirs, ours = modes(podman.directory), modes(tmp_path)
    assert ours.items() <= theirs.items()
    more = {path for path in theirs.keys() - ours.keys() if path.startswith("root")}
    assert more == {"root/overlay-images/images.lock"}  # we had no need of it yet


def test_what_podman_says_of_the_driver(podman: Podman, store: Store, tmp_path: Path) -> None:
    theirs = json.loads(podman("info", "--format", "json"))["store"]["graphStatus"]
    assert dict(store.graph_status()) == theirs
    assert dict(Store(f"{tmp_path}/root", f"{tmp_path}/run").graph_status()) == theirs


# --- each with the other's -------------------------------------------------------------------


def test_podman_lists_and_removes_ours(podman: Podman, store: Store) -> None:
    made = store.create_container(new_id(), "ours")
    shown = external(podman)["ours"]
    assert (shown["Id"], shown["Status"]) == (made.id, "Storage")
    refused = podman("create", "--name", "ours", "--rootfs", "/", "sh", fails=True)
    assert refused == ""
    store.rename_container(made.id, "renamed")
    assert set(external(podman)) == {"renamed"}
    podman("rm", "renamed")
    assert external(podman) == {}
    assert on_disk(podman) == set()
    with pytest.raises(NoSuchStorageContainer):
        store.container(made.id)


def test_podmans_read_and_are_removed_here(podman: Podman, store: Store) -> None:
    one, two = podman.create("one"), podman.create("two", "--uidmap", "0:1000:10")
    podman("rename", "one", "uno")
    assert {c.id: c.names for c in store.containers()} == {one: ("uno",), two: ("two",)}
    assert json.loads(store.container(one).metadata)["name"] == "one"
    assert abs((store.container(two).created or 0) - time.time_ns()) < 60e9
    assert {layer.names for layer in store.layers()} == {("one-layer",), ("two-layer",)}
    assert list(store.unowned()) == []
    with pytest.raises(DuplicateName):
        store.create_container(new_id(), "uno")
    third = store.create_container(new_id(), "one")
    store.delete_container(one)
    assert set(podman.ps()) == {"uno", "two"}  # podman's own record is there still
    podman("rm", "uno", "two")
    podman("rm", "one")
    assert third.id not in {c.id for c in store.containers()}
    assert on_disk(podman) == set()


@pytest.fixture
def image(podman: Podman) -> str:
    """The ID of an image of one layer, with a file."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("greeting")
        member.size = 5
        tar.addfile(member, io.BytesIO(b"hello"))
    (podman.directory / "image.tar").write_bytes(archive.getvalue())
    return podman("import", "--quiet", str(podman.directory / "image.tar"), "test:1").split(":")[-1]


def test_a_container_of_podmans_image(podman: Podman, store: Store, image: str) -> None:
    assert store.image_count() == 1
    theirs = podman.create("rootless")
    made = store.create_container(new_id(), "web", image_id=image, image_name="localhost/test:1")
    assert external(podman)["web"]["Image"] == "localhost/test:1"
    merged = Path(podman("mount", "web"))
    assert (merged / "greeting").read_text() == "hello"
    assert store.mount_count(made.layer_id) == 1
    podman("unmount", "web")
    refused = podman("rmi", "test:1", fails=True)
    assert refused == ""
    store.delete_container(made.id)
    assert [c.id for c in store.containers()] == [theirs]
    podman("rm", "rootless")
    podman("rmi", "test:1")
    assert (store.layers(), on_disk(podman)) == ([], set())


def test_podman_made_from_an_image_is_removed_here(
    podman: Podman, store: Store, image: str
) -> None:
    made = podman("create", "--name", "web", "--network", "none", "test:1", "/bin/sh")
    before = len(store.layers())
    layer = store.container(made).layer_id
    inside = podman.directory / "root/overlay" / layer / "diff/deep/er"
    inside.mkdir(parents=True)
    (inside / "file").write_text("x")
    store.delete_container(made)
    assert len(store.layers()) == before - 1
    assert list(store.unowned()) == []
    podman("rm", "web")
    podman("rmi", "test:1")
    assert on_disk(podman) == set()


# --- at the same time ------------------------------------------------------------------------


def test_both_create_at_once(podman: Podman, store: Store) -> None:
    failures: list[BaseException] = []

    def work(create: Callable[[str], str], remove: Callable[[str], object], prefix: str) -> None:
        try:
            for turn in range(5):
                key = create(f"{prefix}-{turn}")
                if turn % 2:
                    remove(key)
        except BaseException as error:
            failures.append(error)

    def make(name: str) -> str:
        return opened(podman).create_container(new_id(), name).id

    threads = [
        threading.Thread(target=work, args=(podman.create, lambda key: podman("rm", key), f"p{n}"))
        for n in range(2)
    ]
    threads += [
        threading.Thread(target=work, args=(make, store.delete_container, f"o{n}"))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    expected = {f"{kind}{n}-{turn}" for kind, count in (("p", 2), ("o", 4))
                for n in range(count) for turn in (0, 2, 4)}  # fmt: skip
    assert set(external(podman)) == expected == {c.name for c in store.containers()}
    assert {c.layer_id for c in store.containers()} == {layer.id for layer in store.layers()}
    assert list(store.unowned()) == []
    podman("rm", *sorted(expected))
    assert on_disk(podman) == set()


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("podman")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


@pytest.fixture
def service(podman: Podman) -> Iterator[str]:
    """The socket of a podman that keeps the store open."""
    path = f"{podman.directory}/socket"
    places = {"root": "root", "runroot": "run", "tmpdir": "tmp", "network-config-dir": "net"}
    options = [f"--{name}={podman.directory / place}" for name, place in places.items()]
    command = ["podman", *options, "system", "service", "--time", "0", f"unix://{path}"]
    environment = {**os.environ, "CONTAINERS_CONF": str(podman.directory / "containers.conf")}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as running:
        end = time.monotonic() + 60
        while not os.path.exists(path) and time.monotonic() < end:
            time.sleep(0.02)
        yield path
        running.terminate()


def test_a_podman_that_runs_on_sees_our_changes(podman: Podman, store: Store, service: str) -> None:
    def listed() -> set[str]:
        connection = _Connection(service)
        try:
            connection.request("GET", "/v4.0.0/libpod/containers/json?all=true&external=true")
            return {row["Names"][0] for row in json.load(connection.getresponse())}
        finally:
            connection.close()

    assert listed() == set()
    one = store.create_container(new_id(), "one")
    assert listed() == {"one"}
    store.rename_container(one.id, "two")
    assert listed() == {"two"}
    store.delete_container(one.id)
    assert listed() == set()


# --- killed ---------------------------------------------------------------------------------


def killed_at(place: str, work: Callable[[], object]) -> None:
    assert os.waitstatus_to_exitcode(ended_at(place, "kill", work)) == -9, place


def test_podman_after_a_kill_in_a_creation(
    podman: Podman, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = new_id()
    steps = places_of(lambda: store.create_container(trial, "trial"), monkeypatch)
    store.delete_container(trial)
    assert len(steps) >= 16
    for number, step in enumerate(steps):
        key = new_id()
        killed_at(step, lambda key=key: opened(podman).create_container(key, "web"))  # type: ignore[misc]
        known = external(podman)
        assert set(known) <= {"web"}, step
        podman.create("theirs")
        if known and number % 2:
            podman("rm", "web")
        elif known:
            opened(podman).delete_container(key)
        podman("rm", "theirs")
        opened(podman).repair()
        assert list(store.unowned()) == [], step
        assert (store.containers(), store.layers(), on_disk(podman)) == ([], [], set()), step


def test_podman_after_a_kill_in_a_deletion(
    podman: Podman, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = store.create_container(new_id(), "trial").id
    steps = places_of(lambda: store.delete_container(trial), monkeypatch)
    assert len(steps) >= 15
    for number, step in enumerate(steps):
        key = store.create_container(new_id(), "web").id
        killed_at(step, lambda key=key: opened(podman).delete_container(key))  # type: ignore[misc]
        known = external(podman)
        assert set(known) <= {"web"}, step
        if known and number % 2:
            podman("rm", "web")
        elif known:
            opened(podman).delete_container(key)
        podman("rm", podman.create("theirs"))
        opened(podman).repair()
        assert list(store.unowned()) == [], step
        assert (store.containers(), store.layers(), on_disk(podman)) == ([], [], set()), step
