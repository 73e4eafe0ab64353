# SPDX-License-Identifier: Apache-2.0
"""The store's file: damaged, copied, and what a commit writes to it."""

from __future__ import annotations

import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from libpod import kv
from libpod.errors import LibpodError
from tests.unit.kv_support import digest, environment, fill, reference

# --- files that are at fault


def meta_break(data: bytearray, *pages: int) -> None:
    for page in pages:
        data[page * 4096 + 20] ^= 1


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda d: d.__delitem__(slice(50, None)), kv.InvalidDatabase),
        (lambda d: meta_break(d, 0, 1), kv.VersionMismatch),
        (lambda d: d.__setitem__(slice(0, 8192), bytes(8192)), kv.InvalidDatabase),
        (
            lambda d: (d.__setitem__(40, d[40] ^ 1), d.__setitem__(4136, d[4136] ^ 1)),
            kv.ChecksumError,
        ),
        (lambda d: d.__delitem__(slice(5 * 4096, None)), kv.DatabaseReplaced),
    ],
)
def test_damaged_file(
    damage: Callable[[bytearray], object], error: type[Exception], tmp_path: Path
) -> None:
    path = reference("churn.db", tmp_path)
    data = bytearray(path.read_bytes())
    damage(data)
    path.write_bytes(data)
    with pytest.raises(error) as caught:
        kv.Database(path)
    assert isinstance(caught.value, LibpodError)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == data


@pytest.mark.parametrize("page", [0, 1])
def test_one_meta_is_enough(page: int, tmp_path: Path) -> None:
    path = reference("page16k.db", tmp_path)
    data = bytearray(path.read_bytes())
    size = struct.unpack_from("<I", data, 24)[0]
    newest = max(struct.unpack_from("<Q", data, at + 64)[0] for at in (0, size))
    data[page * size + 40] ^= 1
    path.write_bytes(data)
    with kv.Database(path, read_only=True) as db:
        assert db.stats()["page_size"] == 16384
        assert db.check() == []
        assert db.stats()["txid"] == newest - (page == newest % 2)


def test_corrupt_page_names_file_page_and_reason(tmp_path: Path) -> None:
    path = reference("nested.db", tmp_path)
    with kv.Database(path, read_only=True) as db:
        with db.begin() as tx:
            name = next(tx.buckets())
        leaves = [n for n, kind, count, _ in db.pages() if kind == "leaf" and count > 1]
    data = bytearray(path.read_bytes())
    for leaf in leaves:
        data[leaf * 4096] ^= 0xFF
    path.write_bytes(data)
    with kv.Database(path) as db, db.begin() as tx, pytest.raises(kv.CorruptDatabase) as caught:
        list(tx.bucket(name).items())
    assert caught.value.page in leaves
    assert caught.value.path == str(path)
    assert caught.value.reason == "the page names another page number"
    assert path.read_bytes() == data


def test_a_freelist_with_used_pages_is_found_before_anything_is_written(tmp_path: Path) -> None:
    path = reference("churn.db", tmp_path)
    with kv.Database(path, read_only=True) as db:
        pages = db.pages()
    data = bytearray(path.read_bytes())
    root = struct.unpack_from("<Q", data, 4096 + 32)[0]
    freelist = struct.unpack_from("<Q", data, 4096 + 48)[0]
    assert pages[freelist][1] == "freelist"
    struct.pack_into("<Q", data, freelist * 4096 + 16, root)
    path.write_bytes(data)
    with kv.Database(path) as db:
        assert any("freelist" in reason for _, reason in db.check())
        with pytest.raises(kv.CorruptDatabase), db.begin(write=True) as tx:
            for name in list(tx.buckets()):
                tx.bucket(name).put(b"k", b"v")
    assert path.read_bytes() == data


# --- copies


def test_backup_while_writing(path: Path, tmp_path: Path) -> None:
    with kv.Database(path, sync=False) as db:
        fill(db, 2000)
        stop = threading.Event()

        def write() -> None:
            n = 0
            while not stop.is_set():
                n += 1
                fill(db, 2000, n % 50)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for n in range(10):
                target = tmp_path / f"copy{n}"
                db.backup(target)
                with kv.Database(target) as other:
                    assert other.check() == []
                    with other.begin() as tx:
                        lengths = {
                            len(v) // len(k.lstrip(b"key-0") or b"0")
                            for k, v in tx.bucket(b"b").items()
                        }
                        assert len(lengths) == 1
                    fill(other, 10)
                    assert other.check() == []
        finally:
            stop.set()
            writer.join()
        with pytest.raises(kv.AlreadyOpen):
            db.backup(path)
        with pytest.raises(kv.AlreadyOpen):
            db.compact(path)


def test_compact_is_smaller_and_the_same(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "small"
    with kv.Database(path, sync=False) as db:
        fill(db, 5000)
        with db.begin(write=True) as tx:
            bucket = tx.bucket(b"b")
            bucket.sequence = 99
            for n in range(0, 5000, 2):
                del bucket[b"key-%05d" % n]
        db.compact(target, tx_bytes=10000)
        with kv.Database(target) as small:
            assert digest(small) == digest(db)
            assert small.check() == []
            assert small.stats()["pages"] < db.stats()["pages"]


# --- what a commit writes, and keeps in memory


def test_one_write_for_a_commit(path: Path) -> None:
    """The pages of a commit lie side by side where there is room."""
    with kv.Database(path) as db:
        fill(db, 2000)
        before = db.stats()
        for n in range(50):
            with db.begin(write=True) as tx:
                tx.bucket(b"b")[b"key-%05d" % (n * 37)] = b"new"
        after = db.stats()
        assert after["commits"] - before["commits"] == 50
        assert after["runs_written"] - before["runs_written"] == 50
        assert after["syncs"] - before["syncs"] == 100


@pytest.mark.parametrize("sync", [True, False])
def test_zeros_are_written_ahead_for_syncs_only(sync: bool, path: Path) -> None:
    with kv.Database(path, sync=sync) as db:
        fill(db, 2000)
        written = db.stats()["pages"] * 4096
        size = path.stat().st_size
        assert size > written if sync else size == written
        assert path.read_bytes()[written:].strip(b"\0") == b""
        fill(db, 3000)
        assert db.check() == []


def test_memory_follows_the_dirty_pages(path: Path) -> None:
    """Not the file: 64 MiB are read, and one value is changed, in a few MiB."""
    with kv.Database(path, sync=False) as db:
        for n in range(16):
            with db.begin(write=True) as tx:
                bucket = tx.create_bucket_if_not_exists(b"b")
                for k in range(1000):
                    bucket[b"%d-%d" % (n, k)] = bytes(4000)
    script = (
        "import sys\nfrom libpod import kv\n"
        "def anonymous():\n"
        "  return int(next(l for l in open('/proc/self/status') if 'RssAnon' in l).split()[1])\n"
        "db = kv.Database(sys.argv[1], map=sys.argv[2] == 'map')\n"
        "start = anonymous()\n"
        "with db.begin(write=True) as tx:\n"
        "  n = sum(len(v) for v in tx.bucket(b'b').values())\n"
        "  tx.bucket(b'b')[b'1-1'] = b'x'\n"
        "  print(n, anonymous() - start)\n"
        "  tx.rollback()\n"
    )
    for how, limit in (("map", 4096), ("pread", 24576)):
        out = subprocess.run(
            [sys.executable, "-c", script, str(path), how],
            check=True,
            capture_output=True,
            text=True,
            env=environment(),
        ).stdout
        size, grown = map(int, out.split())
        assert size == 16000 * 4000
        assert grown < limit
