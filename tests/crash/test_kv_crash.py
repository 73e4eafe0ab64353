# SPDX-License-Identifier: Apache-2.0
"""The store after a power cut: every image that the disk could hold must open.

A workload's writes and syncs are recorded. For each image a point in the record
is chosen: what was synced before it is there, each write since may be there, be
missing, be torn into 512-byte sectors, or have overtaken an earlier one. The
image must hold exactly the last commit that was reported, or the next one.

KV_CRASH_IMAGES images are built, 500 without it.
"""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from libpod import kv
from tests.interop.oracle import Oracle

HERE = Path(__file__).parent
IMAGES = int(os.environ.get("KV_CRASH_IMAGES", "500"))
KILLS = int(os.environ.get("KV_CRASH_KILLS", "15"))
SECTOR = 512


class Event(NamedTuple):
    kind: bytes
    offset: int
    data: bytes


def read_log(path: Path) -> list[Event]:
    events = []
    raw = path.read_bytes()
    at = 0
    while at + 17 <= len(raw):
        kind = raw[at : at + 1]
        offset, size = struct.unpack_from("<QQ", raw, at + 1)
        at += 17
        data = b""
        if kind in (b"W", b"M"):
            data = raw[at : at + size]
            at += size
            if at > len(raw):  # the process was killed while it wrote this
                break
        events.append(Event(kind, offset, data))
    return events


def apply(image: bytearray, offset: int, data: bytes) -> None:
    if len(image) < offset:
        image.extend(bytes(offset - len(image)))
    image[offset : offset + len(data)] = data


def tear(image: bytearray, event: Event, pick: random.Random) -> None:
    """Applies some of the write's sectors, in any order."""
    starts = list(range(0, len(event.data), SECTOR))
    for start in pick.sample(starts, pick.randrange(len(starts) + 1)):
        apply(image, event.offset + start, event.data[start : start + SECTOR])


def lose(image: bytearray, unsynced: list[Event], pick: random.Random) -> None:
    """What a disk may have kept of writes that no sync followed."""
    events = list(unsynced)
    if pick.random() < 0.5:
        pick.shuffle(events)
    for event in events:
        fate = pick.random()
        if fate < 0.4:
            apply(image, event.offset, event.data)
        elif fate < 0.7:
            tear(image, event, pick)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[Event]]:
    """The file before the workload, and everything that was done to it."""
    work = tmp_path_factory.mktemp("record")
    shim = work / "record.so"
    subprocess.run(
        ["cc", "-D_GNU_SOURCE", "-shared", "-fPIC", "-O1", "-o", shim, HERE / "record.c", "-ldl"],
        check=True,
    )
    path, log = work / "db", work / "log"
    kv.Database(path).close()
    before = path.read_bytes()
    commits = max(60, IMAGES // 40)
    subprocess.run(
        [sys.executable, HERE / "kv_workload.py", path, "7", str(commits), log],
        check=True,
        env=dict(
            os.environ,
            LD_PRELOAD=str(shim),
            KV_RECORD_FILE=str(path),
            KV_RECORD_LOG=str(log),
            PYTHONPATH=os.pathsep.join(sys.path),
        ),
    )
    events = read_log(log)
    assert sum(event.kind == b"M" for event in events) == commits
    assert sum(event.kind == b"S" for event in events) == 2 * commits
    return before, events


def contents(path: Path) -> bytes:
    parts: list[bytes] = []
    with kv.Database(path, read_only=True) as db:
        db.dump(parts.append)
        assert db.check() == []
    return b"".join(parts)


def test_every_image_opens_to_one_commit(
    record: tuple[bytes, list[Event]], tmp_path: Path, oracle: Oracle
) -> None:
    before, events = record
    pick = random.Random(11)
    path = Path("/dev/shm") / f"kv-crash-{os.getpid()}"
    points = sorted(pick.randrange(len(events) + 1) for _ in range(IMAGES))
    durable = bytearray(before)
    unsynced: list[Event] = []
    last, at, old, new = b"", 0, 0, 0
    try:
        for point in points:
            for event in events[at:point]:
                if event.kind == b"W":
                    unsynced.append(event)
                elif event.kind == b"S":
                    for write in unsynced:
                        apply(durable, write.offset, write.data)
                    unsynced = []
                elif event.kind == b"M":
                    last = event.data
            at = point
            following = next((e.data for e in events[point:] if e.kind == b"M"), last)
            image = bytearray(durable)
            lose(image, unsynced, pick)
            path.write_bytes(image)
            found = contents(path)
            assert found in (last, following), f"at event {point}"
            if found == last:
                old += 1
            else:
                new += 1
            assert oracle.ask("check", path) == "OK", f"at event {point}"
            with kv.Database(path, sync=False) as db:  # and it can be written
                with db.begin(write=True) as tx:
                    tx.create_bucket_if_not_exists(b"after").put(b"k", b"v" * 5000)
                assert db.check() == []
    finally:
        path.unlink(missing_ok=True)
    print(f"{IMAGES} images: {old} at the commit before, {new} at the one in flight")
    assert old > 0
    assert new > 0


def test_kill_loses_no_reported_commit(tmp_path: Path, oracle: Oracle) -> None:
    pick = random.Random(5)
    for n in range(KILLS):
        path, log = tmp_path / f"db{n}", tmp_path / f"log{n}"
        child = subprocess.Popen(
            [sys.executable, HERE / "kv_workload.py", path, str(n), "100000", log],
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
        )
        while not log.exists() or log.stat().st_size == 0:
            assert child.poll() is None
            time.sleep(0.01)
        time.sleep(pick.random() * 0.15)
        child.send_signal(signal.SIGKILL)
        child.wait()
        marks = [event for event in read_log(log) if event.kind == b"M"]
        found = contents(path)
        with kv.Database(path, read_only=True) as db, db.begin() as tx:
            assert tx.id in (marks[-1].offset, marks[-1].offset + 1)
            if tx.id == marks[-1].offset:
                assert found == marks[-1].data
        assert oracle.ask("check", path) == "OK"
        assert [name for name in os.listdir(tmp_path) if name.endswith(".new")] == []
