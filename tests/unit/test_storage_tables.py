# SPDX-License-Identifier: Apache-2.0
"""The tables of the container store: files that change places."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from storage_support import on_disk, opened, records, spare, table, token

from armed import ended_at
from libpod import failpoint
from libpod.errors import (
    SystemCallError,
)
from libpod.names import new_id
from libpod.storage import (
    Store,
)
from libpod.storage import table as tables


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
