# SPDX-License-Identifier: Apache-2.0
"""The store and the real bbolt on one file: in turn, and at once.

KV_INTEROP_TURNS transactions are written in turn (400 without it), and the
processes write at once for KV_INTEROP_SECONDS (5 without it).
"""

from __future__ import annotations

import hashlib
import os
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from libpod import kv
from tests.interop.oracle import Oracle

TURNS = int(os.environ.get("KV_INTEROP_TURNS", "400"))
SECONDS = float(os.environ.get("KV_INTEROP_SECONDS", "5"))
Operation = tuple[Any, ...]


def digest(db: kv.Database) -> str:
    sha = hashlib.sha256()
    db.dump(sha.update)
    return sha.hexdigest()


def pick_operations(pick: random.Random) -> list[Operation]:
    """Changes of one transaction, each valid whatever the others did.

    A bucket is deleted in a transaction of its own: bbolt 1.3.6 leaks the pages
    of a bucket that is changed and deleted in one.
    """
    operations: list[Operation] = []
    if pick.random() < 0.15:
        path: tuple[bytes, ...] = (b"bucket-%d" % pick.randrange(6),)
        if pick.random() < 0.7:
            path = (*path, b"\x01inner-%d" % pick.randrange(3))
        return [("drop", path)]
    for _ in range(pick.choice((1, 5, 60))):
        path = (b"bucket-%d" % pick.randrange(6),)
        while pick.random() < 0.3 and len(path) < 4:
            path = (*path, b"\x01inner-%d" % pick.randrange(3))
        what = pick.random()
        key = b"key-%04d" % pick.randrange(500)
        if pick.random() < 0.05:
            key *= pick.randrange(1, 300)
        if what < 0.55:
            value = pick.randbytes(pick.choice((0, 1, 20, 200, 1500, 9000)))
            operations.append(("put", path, key, value))
        elif what < 0.93:
            operations.append(("del", path, key))
        else:
            operations.append(("seq", path, pick.getrandbits(64)))
    return operations


def run_ours(db: kv.Database, operations: list[Operation]) -> None:
    with db.begin(write=True) as tx:
        for verb, path, *rest in operations:
            parent: Any = tx
            for name in path[:-1]:
                parent = parent.create_bucket_if_not_exists(name)
            bucket = parent.create_bucket_if_not_exists(path[-1])
            if verb == "put":
                bucket.put(*rest)
            elif verb == "del":
                bucket.delete(*rest)
            elif verb == "seq":
                bucket.sequence = rest[0]
            else:
                parent.delete_bucket(path[-1])


def run_theirs(
    oracle: Oracle, path: Path, operations: list[Operation], *options: str, end: str = "commit"
) -> str:
    oracle.send("write", path, *options)
    for verb, names, *rest in operations:
        hexed = [name.hex() for name in names]
        for depth in range(1, len(hexed) + 1):
            oracle.send("create", "/".join(hexed[:depth]))
        words = [word.hex() or "." if isinstance(word, bytes) else word for word in rest]
        oracle.send(verb, "/".join(hexed), *words)
    return oracle.ask(end)


@pytest.mark.parametrize(
    "options", [("nosync",), ("nosync", "nofreelist"), ("nosync", "pagesize=1024")]
)
def test_in_turn(options: tuple[str, ...], tmp_path: Path, oracle: Oracle) -> None:
    """The same transactions in two files: one by bbolt alone, one by both in turn."""
    pick = random.Random(repr(options))
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    assert run_theirs(oracle, shared, [], *options) == "OK"
    for turn in range(TURNS):
        operations = pick_operations(pick)
        assert run_theirs(oracle, alone, operations, *options) == "OK"
        if pick.random() < 0.5:
            assert run_theirs(oracle, shared, operations, *options) == "OK"
        else:
            with kv.Database(shared, sync=False, map=turn % 3 != 0) as db:
                run_ours(db, operations)
                if pick.random() < 0.2:
                    tx = db.begin(write=True)
                    tx.create_bucket_if_not_exists(b"rolled back")
                    tx.rollback()
        assert oracle.ask("check", shared) == "OK", f"turn {turn}"
        with kv.Database(shared, read_only=True) as db:
            assert db.check() == [], f"turn {turn}"
            ours = digest(db)
        assert oracle.ask("digest", shared) == f"OK {ours}", f"turn {turn}"
        assert oracle.ask("digest", alone) == f"OK {ours}", f"turn {turn}"
        with kv.Database(alone, read_only=True) as db:
            assert db.check() == [], f"turn {turn}"


@pytest.mark.parametrize("seed", range(16))
def test_a_deep_tree_shrinks_in_turn(seed: int, tmp_path: Path, oracle: Oracle) -> None:
    """Runs of keys are deleted, so that pages are left empty and are joined; others
    are changed, for which bbolt looks for their pages in the pages above."""
    pick = random.Random(seed)
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    options = ("nosync", "pagesize=1024")
    left = list(range(2000))
    filling: list[Operation] = [("put", (b"b",), b"key-%05d" % n, b"v" * 100) for n in left]
    for path in (alone, shared):
        assert run_theirs(oracle, path, filling, *options) == "OK"
    while left:
        operations: list[Operation] = []
        for _ in range(pick.choice((1, 6))):
            start, length = pick.randrange(len(left) + 1), pick.choice((1, 20, 150))
            operations += [("del", (b"b",), b"key-%05d" % n) for n in left[start : start + length]]
            del left[start : start + length]
        operations += [
            ("put", (b"b",), b"key-%05d" % n, b"w" * pick.randrange(200))
            for n in pick.sample(left, len(left) // 10)
        ]
        assert run_theirs(oracle, alone, operations, *options) == "OK"
        if pick.random() < 0.5:
            assert run_theirs(oracle, shared, operations, *options) == "OK"
        else:
            with kv.Database(shared, sync=False) as db:
                run_ours(db, operations)
        digests = set()
        for path in (alone, shared):
            assert oracle.ask("check", path) == "OK", path
            with kv.Database(path, read_only=True) as db:
                assert db.check() == [], path
            digests.add(oracle.ask("digest", path))
        assert len(digests) == 1


@pytest.mark.parametrize("seed", range(5))
def test_what_bbolt_writes_opens_here(seed: int, tmp_path: Path, oracle: Oracle) -> None:
    pick = random.Random(seed)
    path = tmp_path / "db"
    options = pick.choice(((), ("nofreelist",), ("pagesize=16384",), ("pagesize=65536",)))
    for _ in range(30):
        assert run_theirs(oracle, path, pick_operations(pick), "nosync", *options) == "OK"
    expected = oracle.ask("digest", path)
    for how in (["check"], ["dump"]):
        done = subprocess.run(
            [sys.executable, "-m", "libpod.kv", *how, path],
            capture_output=True,
            check=True,
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(p or "." for p in sys.path)),
        )
        if how == ["check"]:
            assert done.stdout == b"OK\n"
        else:
            assert f"OK {hashlib.sha256(done.stdout).hexdigest()}" == expected


def test_a_long_freelist_goes_both_ways(tmp_path: Path, oracle: Oracle) -> None:
    """More than 65534 free pages: the count has its second form."""
    path = tmp_path / "db"
    with kv.Database(path, sync=False, page_size=1024) as db:
        with db.begin(write=True) as tx:
            bucket = tx.create_bucket(b"large")
            for n in range(70):
                bucket[b"%d" % n] = bytes(1 << 20)
        with db.begin(write=True) as tx:
            tx.delete_bucket(b"large")
        with db.begin(write=True) as tx:
            tx.create_bucket(b"x")
        assert db.stats()["free_pages"] > 0xFFFF
        assert db.check() == []
    assert oracle.ask("check", path) == "OK"
    operations: list[Operation] = [("put", (b"x",), b"k", b"v")]
    assert run_theirs(oracle, path, operations, "nosync") == "OK"
    assert oracle.ask("check", path) == "OK"
    with kv.Database(path, sync=False) as db:
        assert db.check() == []
        run_ours(db, [("put", (b"x",), b"k2", b"v" * 100000)])
        assert db.check() == []
    assert oracle.ask("check", path) == "OK"


COUNT = """
import struct, sys, time
from libpod import kv
name, until, done = sys.argv[2].encode(), time.monotonic() + float(sys.argv[3]), 0
with kv.Database(sys.argv[1], lock="transaction") as db:
    while time.monotonic() < until:
        with db.begin(write=True) as tx:
            for counter in (name, b"all"):
                bucket = tx.create_bucket_if_not_exists(counter)
                old = bucket.get(b"n")
                n = struct.unpack(">Q", old)[0] + 1 if old else 1
                bucket[b"n"] = struct.pack(">Q", n)
            filling = tx.create_bucket_if_not_exists(b"filling")
            for k in range(20):
                filling[b"%d" % k] = b"%d" % n * 200
        done += 1
print(done)
"""


def environment() -> dict[str, str]:
    return dict(os.environ, PYTHONPATH=os.pathsep.join(p or "." for p in sys.path))


def test_three_processes_lose_no_update(
    tmp_path: Path, oracle: Oracle, oracle_binary: Path
) -> None:
    """Two of ours and bbolt count, while this one reads and compares every byte."""
    path = tmp_path / "db"
    kv.Database(path).close()
    children = [
        subprocess.Popen(
            [sys.executable, "-c", COUNT, path, f"ours{n}", str(SECONDS)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        for n in range(2)
    ]
    oracle.send("count", path, "bbolt", SECONDS)
    assert oracle.process.stdin is not None
    oracle.process.stdin.flush()
    reads = 0
    with kv.Database(path, lock="transaction") as db:
        last = 0
        while any(child.poll() is None for child in children):
            with db.begin() as tx:
                if b"all" not in list(tx.buckets()):
                    continue
                n = struct.unpack(">Q", tx.bucket(b"all")[b"n"])[0]
                assert n >= last
                last = n
                values = {value for _, value in tx.bucket(b"filling").items()}
                assert values == {b"%d" % n * 200}
                reads += 1
    done = [int(child.communicate()[0]) for child in children]
    theirs = int(oracle.receive().split()[1])
    assert reads > 10
    assert theirs >= 1
    with kv.Database(path, read_only=True) as db:
        assert db.check() == []
        with db.begin() as tx:
            counters = {
                name: struct.unpack(">Q", tx.bucket(name)[b"n"])[0]
                for name in (b"ours0", b"ours1", b"all", b"bbolt")
            }
    assert counters == {b"ours0": done[0], b"ours1": done[1], b"all": sum(done), b"bbolt": theirs}
    assert oracle.ask("check", path) == "OK"
