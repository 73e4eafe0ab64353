# SPDX-License-Identifier: Apache-2.0
"""The store through its Python face: pairs, buckets, and the files that bbolt wrote."""

from __future__ import annotations

import hashlib
import random
import struct
from pathlib import Path

import pytest

from libpod import kv
from libpod.errors import InvalidArgument
from tests.unit.kv_support import MANIFEST, digest, fill, reference

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


# --- the shape of the tree


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
        db.compact(path.with_name("copy"))
        with kv.Database(path.with_name("copy")) as copy:
            assert copy.check() == []
        with db.begin(write=True) as tx:  # which finds the free pages: the tree is whole
            bucket = tx.bucket(b"b")
            assert [int(key) for key in bucket] == list(range(0, 600, 2))
            bucket[key] = b"changed, and with it its page's key in the parent"
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


# --- opening


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
