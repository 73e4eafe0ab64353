# SPDX-License-Identifier: Apache-2.0
"""The store through its Python face: what it answers, and what it refuses."""

from __future__ import annotations

import gc
import hashlib
import json
import lzma
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from libpod import kv
from libpod.errors import Closed, InvalidArgument, LibpodError, LockTimeout, UsedAfterFork

DATA = Path(__file__).parent.parent / "data" / "kv"
MANIFEST = json.loads((DATA / "manifest.json").read_text())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "db"


def reference(name: str, directory: Path) -> Path:
    path = directory / name
    path.write_bytes(lzma.decompress((DATA / f"{name}.xz").read_bytes()))
    return path


def digest(db: kv.Database) -> str:
    sha = hashlib.sha256()
    db.dump(sha.update)
    return sha.hexdigest()


def fill(db: kv.Database, count: int = 300, size: int = 100) -> None:
    with db.begin(write=True) as tx:
        bucket = tx.create_bucket_if_not_exists(b"b")
        for n in range(count):
            bucket[b"key-%05d" % n] = b"%d" % n * size


# --- bbolt's files


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("name", sorted(MANIFEST))
def test_reference_file(name: str, mapped: bool, tmp_path: Path) -> None:
    expected = MANIFEST[name]
    path = reference(name, tmp_path)
    before = path.read_bytes()
    with kv.Database(path, read_only=True, map=mapped) as db:
        assert digest(db) == expected["dump_sha256"]
        assert db.check() == []
        with db.begin() as tx:
            stats = tx.stats()
            assert stats["buckets"] == expected["buckets"]
            assert stats["keys"] == expected["keys"] + expected["buckets"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", sorted(MANIFEST))
def test_reference_file_stays_right_when_written(name: str, tmp_path: Path) -> None:
    path = reference(name, tmp_path)
    with kv.Database(path) as db:
        for n in range(4):
            with db.begin(write=True) as tx:
                bucket = tx.create_bucket_if_not_exists(b"ours")
                for key in range(200):
                    bucket[b"%d" % key] = bytes([n]) * (key * 7 % 900)
            assert db.check() == []
        with db.begin(write=True) as tx:
            tx.delete_bucket(b"ours")
        assert digest(db) == MANIFEST[name]["dump_sha256"]
        assert db.check() == []


# --- the command


def command(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "libpod.kv", *map(str, words)],
        capture_output=True,
        text=True,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(p or "." for p in sys.path)),
    )


def test_command_line(tmp_path: Path) -> None:
    path = reference("nested.db", tmp_path)
    assert command("check", path).stdout == "OK\n"
    dump = command("dump", path).stdout
    assert hashlib.sha256(dump.encode()).hexdigest() == MANIFEST["nested.db"]["dump_sha256"]
    name = command("buckets", path).stdout.splitlines()
    assert len(name) == 1
    line = next(line for line in dump.splitlines() if line.startswith("K "))
    key, value = line.split(" ")[1:]
    got = command("get", path, "--hex", name[0].encode().hex(), key)
    assert got.stdout == value + "\n"
    assert command("get", path, name[0], "no-such-key").returncode == 1
    assert command("get", path, "no-such-bucket", "key").returncode == 1
    assert json.loads(command("stats", path).stdout)["buckets"]["buckets"] == 13
    pages = command("pages", path).stdout
    assert "meta" in pages
    assert "leaf" in pages
    for verb in ("compact", "backup"):
        target = tmp_path / verb
        assert command(verb, path, target).returncode == 0
        assert command("dump", target).stdout == dump
        assert command("check", target).stdout == "OK\n"


def test_command_check_lists_faults(tmp_path: Path) -> None:
    path = reference("churn.db", tmp_path)
    with kv.Database(path, read_only=True) as db:
        leaves = [number for number, kind, count, _ in db.pages() if kind == "leaf" and count > 3]
    data = bytearray(path.read_bytes())
    for leaf in leaves:
        struct.pack_into("<I", data, leaf * 4096 + 16 + 4, 0xFFFFFFF0)
    path.write_bytes(data)
    found = command("check", path)
    assert found.returncode == 1
    assert "points out of its page" in found.stdout
    assert "OK" not in found.stdout
    assert command("check", tmp_path / "missing").returncode == 1
    assert command("nonsense", path).returncode == 2


# --- pairs and buckets


def test_pairs(path: Path) -> None:
    with kv.Database(path) as db:
        with db.begin(write=True) as tx:
            bucket = tx.create_bucket(b"b")
            bucket[b"k"] = b"v"
            bucket.put(bytearray(b"empty"), memoryview(b""))
            assert bucket[b"k"] == b"v"
            assert bucket.get(b"empty") == b""
            assert bucket.get(b"none") is None
            assert bucket.get(b"none", b"x") == b"x"
            assert bucket.get_many([b"k", b"none", b"empty"]) == [b"v", None, b""]
            assert b"k" in bucket
            assert b"none" not in bucket
            with pytest.raises(KeyError):
                bucket[b"none"]
            with pytest.raises(KeyError):
                del bucket[b"none"]
            del bucket[b"k"]
            assert not bucket.delete(b"k")
            with pytest.raises(TypeError):
                bucket.put("text", b"v")
        with db.begin() as tx:
            assert list(tx.bucket(b"b")) == [b"empty"]


def test_iteration(path: Path) -> None:
    with kv.Database(path) as db:
        fill(db, 1000, 3)
        with db.begin() as tx:
            bucket = tx.bucket(b"b")
            keys = [b"key-%05d" % n for n in range(1000)]
            assert list(bucket) == keys
            assert list(bucket.keys(reverse=True)) == keys[::-1]
            assert [k for k, _ in bucket[b"key-00010":b"key-00020"]] == keys[10:20]
            assert [k for k, _ in bucket[:b"key-00003"]] == keys[:3]
            assert list(bucket.keys(prefix=b"key-0012")) == keys[120:130]
            assert list(bucket.keys(prefix=b"key-0012", reverse=True)) == keys[120:130][::-1]
            assert list(bucket.keys(start=b"key-00990x")) == keys[991:]
            assert list(bucket.keys(prefix=b"\xff")) == []
            assert list(bucket.values(start=b"key-00998")) == [b"998" * 3, b"999" * 3]
            assert bucket.count() == 1000
            assert bucket.count(b"key-0012") == 10
            assert bucket.total(b"key-0012") == (10, 10 * 18)
            with pytest.raises(ValueError):
                bucket[b"a":b"b":2]
            cursor = bucket.cursor()
            assert cursor.seek(b"key-00500") == (keys[500], b"500" * 3)
            assert cursor.prev()[0] == keys[499]
            assert cursor.last()[0] == keys[999]
            assert cursor.next() is None
            assert cursor.prev()[0] == keys[999]
            assert cursor.first()[0] == keys[0]
            assert cursor.prev() is None
            assert [k for k, _ in cursor] == keys


def test_delete_while_iterating(path: Path) -> None:
    with kv.Database(path) as db:
        fill(db, 2000)
        with db.begin(write=True) as tx:
            bucket = tx.bucket(b"b")
            seen = 0
            for key in bucket:
                seen += 1
                if seen % 3:
                    del bucket[key]
            assert seen == 2000
            assert bucket.count() == 666
        assert db.check() == []


def test_buckets(path: Path) -> None:
    with kv.Database(path) as db:
        with db.begin(write=True) as tx:
            outer = tx.create_bucket(b"outer")
            inner = outer.create_bucket(b"inner")
            inner[b"k"] = b"v"
            assert outer.get(b"inner") is None
            assert list(outer.items()) == [(b"inner", None)]
            assert inner.next_sequence() == 1
            assert inner.next_sequence() == 2
            inner.sequence = 2**64 - 1
            assert inner.next_sequence() == 0
            inner.sequence = 7
            for error, call in (
                (kv.BucketExists, lambda: tx.create_bucket(b"outer")),
                (kv.BucketNameRequired, lambda: tx.create_bucket(b"")),
                (kv.IncompatibleValue, lambda: outer.put(b"inner", b"v")),
                (kv.IncompatibleValue, lambda: outer.delete(b"inner")),
                (kv.IncompatibleValue, lambda: inner.create_bucket(b"k")),
                (kv.IncompatibleValue, lambda: inner.bucket(b"k")),
                (kv.BucketNotFound, lambda: tx.bucket(b"none")),
                (kv.BucketNotFound, lambda: tx.delete_bucket(b"none")),
                (kv.KeyRequired, lambda: inner.put(b"", b"v")),
                (kv.KeyTooLarge, lambda: inner.put(b"k" * 32769, b"v")),
            ):
                with pytest.raises(error):
                    call()
            inner[b"k" * 32768] = b"longest"
        with db.begin() as tx:
            assert list(tx.buckets()) == [b"outer"]
            assert tx.bucket(b"outer").bucket(b"inner").sequence == 7
            with pytest.raises(kv.TransactionNotWritable):
                tx.bucket(b"outer").put(b"k", b"v")
            with pytest.raises(kv.TransactionNotWritable):
                tx.create_bucket(b"x")
        with db.begin(write=True) as tx:
            outer = tx.bucket(b"outer")
            inner = outer.bucket(b"inner")
            outer.delete_bucket(b"inner")
            with pytest.raises(kv.BucketNotFound):
                inner.get(b"k")
            assert outer.create_bucket(b"inner").get(b"k") is None
        assert db.check() == []


@pytest.mark.parametrize("seed", range(4))
def test_a_pages_first_key_is_its_parents_key_for_it(seed: int, path: Path) -> None:
    """Exactly: bbolt's next change of a page finds it in its parent by that key."""
    pick = random.Random(seed)
    with kv.Database(path, sync=False, page_size=1024) as db:
        fill(db, 3000)
        left = list(range(3000))
        while left:
            with db.begin(write=True) as tx:
                bucket = tx.bucket(b"b")
                for _ in range(pick.choice((1, 10))):
                    start = pick.randrange(len(left) + 1)
                    for n in left[start : start + pick.choice((1, 20, 150))]:
                        del bucket[b"key-%05d" % n]
                        left.remove(n)
            assert db.check() == []
            with db.begin() as tx:
                assert [int(key[4:]) for key in tx.bucket(b"b")] == left


def test_check_tells_of_a_parents_key_that_is_not_the_first(path: Path) -> None:
    with kv.Database(path, sync=False, page_size=1024, persist_freelist=False) as db:
        with db.begin(write=True) as tx:
            bucket = tx.create_bucket(b"b")
            for n in range(0, 600, 2):
                bucket[b"%05d" % n] = bytes(100)
        branch = next(number for number, kind, _, _ in db.pages() if kind == "branch")
    data = bytearray(path.read_bytes())
    at = branch * 1024 + 2 * 16  # the second element: where its key is, its size
    pos, size = struct.unpack_from("<II", data, at)
    key = bytes(data[at + pos : at + pos + size])
    data[at + pos + size - 1] -= 1  # still in order
    path.write_bytes(data)
    with kv.Database(path, sync=False) as db:
        ((_, fault),) = db.check()
        assert fault == "the first key is not its parent's key for the page"
        with db.begin(write=True) as tx:  # which finds the free pages: the tree is whole
            bucket = tx.bucket(b"b")
            assert [int(key) for key in bucket] == list(range(0, 600, 2))
            bucket[key] = b"changed, and with it its page's key in the parent"
        assert db.check() == []


def test_deep_nesting(path: Path) -> None:
    with kv.Database(path) as db:
        with db.begin(write=True) as tx:
            bucket = tx.create_bucket(b"0")
            for n in range(3000):
                bucket[b"n"] = b"%d" % n
                bucket = bucket.create_bucket(b"b")
        assert db.check() == []
        parts: list[bytes] = []
        db.dump(parts.append)
        assert b"".join(parts).count(b"B ") == 3001
        with db.begin(write=True) as tx:
            tx.delete_bucket(b"0")
        assert db.check() == []
        assert digest(db) == hashlib.sha256(b"").hexdigest()


# --- transactions


def test_a_block_commits_or_rolls_back(path: Path) -> None:
    with kv.Database(path) as db:
        fill(db, 10)
        with pytest.raises(ZeroDivisionError), db.begin(write=True) as tx:
            tx.bucket(b"b").put(b"new", b"v")
            raise ZeroDivisionError
        with db.begin() as tx:
            assert b"new" not in tx.bucket(b"b")
            first = tx.id
        tx = db.begin(write=True)
        assert tx.id == first + 1
        tx.bucket(b"b").put(b"new", b"v")
        tx.commit()
        with pytest.raises(kv.TransactionClosed):
            tx.commit()
        tx.rollback()
        with db.begin() as tx, pytest.raises(kv.TransactionNotWritable):
            tx.commit()


def test_a_snapshot_holds(path: Path) -> None:
    with kv.Database(path, sync=False) as db:
        fill(db, 500)
        with db.begin() as tx:
            old = list(tx.bucket(b"b").items())
            for n in range(30):
                fill(db, 500, n)
            assert list(tx.bucket(b"b").items()) == old
        fill(db)
        before = db.stats()["file_size"]
        for n in range(100):
            fill(db, 500, n % 20)
        assert db.stats()["file_size"] == before


@pytest.mark.parametrize("mapped", [True, False])
def test_the_bucket_opened_last_is_that_of_the_snapshot(path: Path, mapped: bool) -> None:
    """A transaction may remember where a bucket was, but only for its own commit."""

    def look(name: bytes) -> tuple[list[tuple[bytes, bytes | None]], int]:
        with db.begin() as tx:
            bucket = tx.bucket(name)
            return list(bucket.items()), bucket.sequence

    with kv.Database(path, map=mapped) as db:
        for turn in range(5):
            pairs = [(b"%04d" % n, b"%d" % turn * 20) for n in range(100 * turn)]
            with db.begin(write=True) as tx:
                for name in (b"one", b"two"):
                    bucket = tx.create_bucket(name)
                    bucket.sequence = turn
                    for key, value in pairs:
                        bucket[key] = value
            old = db.begin()
            for _ in range(3):
                assert look(b"one") == look(b"two") == (pairs, turn)
            with db.begin(write=True) as tx:
                tx.delete_bucket(b"one")
                tx.bucket(b"two").sequence = 77
            with pytest.raises(kv.BucketNotFound):
                look(b"one")
            assert look(b"two") == (pairs, 77)
            assert list(old.bucket(b"one").items()) == list(old.bucket(b"two").items()) == pairs
            old.rollback()
            with db.begin(write=True) as tx:
                tx.delete_bucket(b"two")


def test_objects_invalidate_downwards(path: Path) -> None:
    db = kv.Database(path)
    fill(db, 10)
    tx = db.begin()
    bucket = tx.bucket(b"b")
    cursor = bucket.cursor()
    items = bucket.items()
    view = bucket.get_view(b"key-00001")
    next(items)
    db.close()
    db.close()
    assert db.closed
    assert tx.closed
    for use in (
        lambda: bucket.get(b"k"),
        lambda: bucket.count(),
        lambda: cursor.next(),
        lambda: next(items),
        lambda: tx.bucket(b"b"),
        lambda: list(bucket),
        lambda: memoryview(view),
        lambda: bytes(view),
        lambda: tx.id,
    ):
        with pytest.raises(kv.TransactionClosed) as caught:
            use()
        assert isinstance(caught.value, Closed)
    with pytest.raises(kv.DatabaseNotOpen):
        db.begin()
    with pytest.raises(kv.DatabaseNotOpen):
        db.check()


def test_dropped_objects_leave_nothing_open(path: Path) -> None:
    with kv.Database(path) as db:
        fill(db, 10)
        items = db.begin().bucket(b"b").items()
        assert db.stats()["readers"] == 1
        assert next(items)
        del items
        gc.collect()
        assert db.stats()["readers"] == 0
        db.begin(write=True).create_bucket(b"lost")
        gc.collect()
        with db.begin(write=True) as tx:
            assert list(tx.buckets()) == [b"b"]


# --- views


def test_views_pin_the_snapshot(path: Path) -> None:
    with kv.Database(path) as db:
        fill(db)
        tx = db.begin()
        bucket = tx.bucket(b"b")
        assert bucket.get_view(b"none") is None
        view = bucket.get_view(b"key-00007")
        assert len(view) == 100
        memory = memoryview(view)
        assert memory.readonly
        assert memory == b"7" * 100
        with pytest.raises(BufferError):
            tx.rollback()
        with pytest.raises(BufferError):
            db.close()
        for n in range(20):
            fill(db, 300, n)
        assert memory == b"7" * 100
        memory.release()
        tx.rollback()
        with pytest.raises(kv.TransactionClosed):
            memoryview(view)
        with db.begin(write=True) as tx:
            view = tx.bucket(b"b").get_view(b"key-00009")
            tx.bucket(b"b")[b"key-00009"] = b"changed"
        assert bytes(view) == b"9" * 19


def test_no_views_in_mode_transaction(path: Path) -> None:
    with kv.Database(path, lock="transaction") as db:
        fill(db)
        with db.begin() as tx, pytest.raises(kv.ViewUnavailable):
            tx.bucket(b"b").get_view(b"key-00001")


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
    data[page * size + 40] ^= 1
    path.write_bytes(data)
    with kv.Database(path, read_only=True) as db:
        assert db.stats()["page_size"] == 16384
        assert db.check() == [] or page == 0 or page == 1


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


# --- the file under somebody else's hands


@pytest.mark.parametrize("lock", ["session", "transaction"])
@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("what", ["replace", "remove", "truncate", "rename"])
def test_file_changed_underneath(lock: str, mapped: bool, what: str, path: Path) -> None:
    db = kv.Database(path, lock=lock, map=mapped)
    fill(db)
    time.sleep(0.05)
    db.begin().rollback()
    if what == "replace":
        other = path.with_name("other")
        kv.Database(other).close()
        os.replace(other, path)
    elif what == "remove":
        path.unlink()
    elif what == "rename":
        path.rename(path.with_name("elsewhere"))
    else:
        os.truncate(path, 16384)
    for write in (False, True):
        with pytest.raises(kv.DatabaseReplaced):
            db.begin(write)
    db.close()


def test_truncated_under_a_read_without_a_map(path: Path) -> None:
    with kv.Database(path, map=False) as db:
        fill(db, 3000)
        with db.begin() as tx:
            os.truncate(path, 16384)
            with pytest.raises(kv.DatabaseReplaced):
                list(tx.bucket(b"b").items())


def test_truncated_under_a_map_is_a_signal(path: Path) -> None:
    """What the documentation says: with a map this cannot be survived."""
    with kv.Database(path) as db:
        fill(db, 3000)
    script = (
        "import os, sys\nfrom libpod import kv\n"
        "db = kv.Database(sys.argv[1])\ndb.begin().rollback()\n"
        "tx = db.begin()\nos.truncate(sys.argv[1], 16384)\n"
        "list(tx.bucket(b'b').items())\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        env=dict(
            os.environ,
            PYTHONPATH=os.pathsep.join(p or "." for p in sys.path),
            ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "") + ":handle_sigbus=0",
        ),
    )
    assert child.returncode == -signal.SIGBUS


# --- locks


HOLD = """
import sys, time
from libpod import kv
db = kv.Database(sys.argv[1], lock=sys.argv[2], read_only=sys.argv[3] == "read")
tx = db.begin(write=sys.argv[3] == "write")
print("held", flush=True)
sys.stdin.readline()
"""


def holder(path: Path, lock: str, how: str) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), lock, how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(p or "." for p in sys.path)),
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


def release(child: subprocess.Popen[str]) -> None:
    child.communicate("\n")


def test_timeout_names_the_holder(path: Path) -> None:
    kv.Database(path).close()
    child = holder(path, "session", "write")
    try:
        start = time.monotonic()
        with pytest.raises(LockTimeout) as caught:
            kv.Database(path, timeout=0.1)
        assert 0.09 < time.monotonic() - start < 2
        assert caught.value.holder == child.pid
        assert str(child.pid) in str(caught.value)
        with pytest.raises(LockTimeout):
            kv.Database(path, timeout=0.1, read_only=True)
    finally:
        release(child)
    kv.Database(path, timeout=5).close()


def test_transaction_locks_between_processes(path: Path) -> None:
    with kv.Database(path, lock="transaction") as db:
        fill(db)
        child = holder(path, "transaction", "read")
        with db.begin(timeout=1) as tx:
            assert tx.bucket(b"b").count() == 300
        with pytest.raises(LockTimeout):
            db.begin(write=True, timeout=0.05)
        release(child)
        child = holder(path, "transaction", "write")
        with pytest.raises(LockTimeout):
            db.begin(timeout=0.05)
        release(child)
        fill(db)
        assert db.check() == []


def test_waiting_serves_signals(path: Path) -> None:
    with kv.Database(path, lock="transaction") as db:
        child = holder(path, "transaction", "write")

        def interrupt(*args: object) -> None:
            raise InterruptedError

        old = signal.signal(signal.SIGALRM, interrupt)
        try:
            for timeout in (None, 30):
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                with pytest.raises(InterruptedError):
                    db.begin(timeout=timeout)
        finally:
            signal.signal(signal.SIGALRM, old)
            release(child)
        db.begin(timeout=5).rollback()


def test_another_process_commits_are_seen(path: Path) -> None:
    script = (
        "import sys\nfrom libpod import kv\n"
        "with kv.Database(sys.argv[1], lock='transaction') as db:\n"
        "  with db.begin(write=True) as tx:\n"
        "    b = tx.create_bucket_if_not_exists(b'b')\n"
        "    for n in range(20000): b[b'other-%d' % n] = b'x' * 1000\n"
    )
    with kv.Database(path, lock="transaction", sync=False) as db:
        fill(db)
        subprocess.run(
            [sys.executable, "-c", script, str(path)],
            check=True,
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(p or "." for p in sys.path)),
        )
        with db.begin() as tx:  # grown past the first map by then
            assert tx.bucket(b"b").count(b"other-") == 20000
        fill(db, 10)
        assert db.check() == []


def test_a_thread_never_waits_for_itself(path: Path) -> None:
    with kv.Database(path, lock="transaction") as db:
        with db.begin(), pytest.raises(kv.WouldDeadlock):
            db.begin(write=True)
        with db.begin(write=True):
            with pytest.raises(kv.WouldDeadlock):
                db.begin()
            with pytest.raises(kv.WouldDeadlock):
                db.begin(write=True)
    with kv.Database(path) as db, db.begin(write=True) as tx:
        with pytest.raises(kv.WouldDeadlock):
            db.begin(write=True)
        tx.create_bucket(b"x")
        with db.begin() as other:
            assert list(other.buckets()) == []


def test_one_file_is_not_opened_twice(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    with kv.Database(path):
        link.symlink_to(path)
        for again in (path, link):
            with pytest.raises(kv.AlreadyOpen):
                kv.Database(again)
            with pytest.raises(kv.AlreadyOpen):
                kv.Database(again, read_only=True)
    with kv.Database(path, read_only=True), kv.Database(path, read_only=True) as db:
        assert db.check() == []
    kv.Database(path).close()


@pytest.mark.parametrize("lock", ["session", "transaction"])
def test_use_after_fork_is_refused(lock: str, path: Path) -> None:
    db = kv.Database(path, lock=lock)
    fill(db)
    tx = db.begin()
    bucket = tx.bucket(b"b")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        results = []
        for use in (
            db.begin,
            lambda: db.begin(write=True),
            lambda: bucket.get(b"key-00001"),
            db.check,
        ):
            try:
                use()
                results.append("allowed")
            except UsedAfterFork:
                results.append("refused")
        tx.rollback()
        db.close()
        os.write(write, ",".join(results).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answers:
        assert answers.read() == "refused,refused,refused,refused"
    os.waitpid(child, 0)
    assert bucket.get(b"key-00001") == b"1" * 100
    if lock == "session":  # the child's close left our lock alone
        other = subprocess.run(
            ["flock", "--exclusive", "--nonblock", str(path), "true"], check=False
        )
        assert other.returncode == 1
    tx.rollback()
    fill(db)
    db.close()


# --- the rest of the database


def test_batch_from_many_threads(path: Path) -> None:
    with kv.Database(path) as db:
        with db.begin(write=True) as tx:
            tx.create_bucket(b"b")
        failures: list[Exception] = []

        def work(thread: int) -> None:
            for n in range(20):

                def change(tx: kv.Transaction, n: int = n) -> int:
                    if n == 7:
                        raise ZeroDivisionError
                    tx.bucket(b"b")[b"%d-%d" % (thread, n)] = b"v"
                    return n

                try:
                    assert db.batch(change) == n
                except ZeroDivisionError as error:
                    failures.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(failures) == 8
        with db.begin() as tx:
            assert tx.bucket(b"b").count() == 8 * 19
        assert db.stats()["commits"] < 8 * 19
        assert db.check() == []


@pytest.mark.parametrize("lock", ["session", "transaction"])
def test_batch_refuses_to_wait_for_itself(lock: str, path: Path) -> None:
    with kv.Database(path, lock=lock) as db:
        fill(db, 10)
        with db.begin(write=True), pytest.raises(kv.WouldDeadlock):
            db.batch(lambda tx: None)
        with pytest.raises(kv.WouldDeadlock):
            db.batch(lambda tx: db.batch(lambda inner: None))
        assert db.batch(lambda tx: tx.bucket(b"b").count()) == 10


def test_an_interrupted_batch_stops_nobody(path: Path) -> None:
    with kv.Database(path) as db:
        fill(db, 10)
        ready, release_it = threading.Event(), threading.Event()

        def hold() -> None:
            with db.begin(write=True):
                ready.set()
                release_it.wait(10)

        holder_thread = threading.Thread(target=hold)
        holder_thread.start()
        ready.wait(10)
        done: list[int] = []
        others = [
            threading.Thread(target=lambda: done.append(db.batch(lambda tx: 1))) for _ in range(3)
        ]
        for thread in others:  # the first leads and waits, the others wait for it
            thread.start()
        time.sleep(0.1)

        def interrupt(*args: object) -> None:
            raise InterruptedError

        old = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(InterruptedError):
                db.batch(lambda tx: done.append(2))
        finally:
            signal.signal(signal.SIGALRM, old)
        release_it.set()
        for thread in (holder_thread, *others):
            thread.join(10)
            assert not thread.is_alive()
        assert done == [1, 1, 1]


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


def test_options(path: Path) -> None:
    for bad in (1000, 3000, 1 << 25):
        with pytest.raises(InvalidArgument):
            kv.Database(path, page_size=bad)
    with pytest.raises(InvalidArgument):
        kv.Database(path, lock="none")
    with pytest.raises(OSError):
        kv.Database(path, create=False)
    with kv.Database(path, page_size=65536, mode=0o640) as db:
        assert db.stats()["page_size"] == 65536
        fill(db)
    assert path.stat().st_mode & 0o777 == 0o640
    with kv.Database(path, read_only=True) as db:
        with pytest.raises(kv.DatabaseReadOnly):
            db.begin(write=True)
        with db.begin() as tx:
            assert tx.bucket(b"b").count() == 300
    with kv.Database(path, max_size=1 << 20) as db:
        with pytest.raises(kv.MaxSizeReached), db.begin(write=True) as tx:
            tx.bucket(b"b")[b"large"] = bytes(1 << 20)
        fill(db)
        assert db.check() == []


def test_an_empty_file_becomes_a_database(path: Path) -> None:
    for content in (b"", bytes(4096 * 4)):
        path.write_bytes(content)
        with kv.Database(path) as db:
            fill(db, 10)
            assert db.check() == []
    path.write_bytes(bytes(4096 * 5))  # not what an open left behind
    with pytest.raises(kv.InvalidDatabase):
        kv.Database(path)


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


def test_a_value_of_a_page_and_small_ones_take_one_run(path: Path) -> None:
    with kv.Database(path, sync=False) as db:
        with db.begin(write=True) as tx:
            bucket = tx.create_bucket(b"record")
            bucket[b"config"] = b"c" * 4096
            bucket[b"state"] = b"s" * 512
            bucket.create_bucket(b"dependencies")
        with db.begin() as tx:
            stats = tx.bucket(b"record").stats()
            assert (stats["leaf_pages"], stats["leaf_overflow"], stats["branch_pages"]) == (1, 1, 0)
        with db.begin(write=True) as tx:  # where two pages do, there are two
            bucket = tx.create_bucket(b"even")
            for n in range(4):
                bucket[b"%d" % n] = b"v" * 1100
        with db.begin() as tx:
            stats = tx.bucket(b"even").stats()
            assert (stats["leaf_pages"], stats["leaf_overflow"], stats["branch_pages"]) == (2, 0, 1)
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
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(p or "." for p in sys.path)),
        ).stdout
        size, grown = map(int, out.split())
        assert size == 16000 * 4000
        assert grown < limit
