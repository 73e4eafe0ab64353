# SPDX-License-Identifier: Apache-2.0
"""The store against a plain Python model: nested dicts, copied for a snapshot."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from libpod import kv

KEYS = st.one_of(
    st.binary(min_size=1, max_size=3),
    st.integers(0, 400).map(lambda n: b"key-%04d" % n),
    st.builds(lambda n, c: bytes([c]) * n, st.integers(1, 700), st.integers(0, 255)),
)
VALUES = st.one_of(
    st.binary(max_size=40),
    st.builds(lambda n, c: bytes([c]) * n, st.integers(0, 9000), st.integers(0, 255)),
)


class Model:
    """A bucket: pairs as bytes, buckets as Model."""

    def __init__(self) -> None:
        self.sequence = 0
        self.items: dict[bytes, bytes | Model] = {}

    def lines(self) -> list[str]:
        out = []
        for key in sorted(self.items):
            value = self.items[key]
            if isinstance(value, Model):
                out.append(f"B {len(key)} {key.hex()} {value.sequence}")
                out += value.lines()
                out.append("E")
            else:
                out.append(f"K {key.hex()} {value.hex()}")
        return out

    def pairs(self) -> list[tuple[bytes, bytes | None]]:
        return [
            (key, None if isinstance(self.items[key], Model) else self.items[key])
            for key in sorted(self.items)
        ]


def dump(db: kv.Database) -> str:
    parts: list[bytes] = []
    db.dump(parts.append)
    return b"".join(parts).decode()


def compare(bucket: kv.Bucket, model: Model) -> None:
    assert list(bucket.items()) == model.pairs()
    assert list(bucket.items(reverse=True)) == model.pairs()[::-1]
    assert bucket.count() == len(model.items)
    assert bucket.sequence == model.sequence
    for key, value in model.items.items():
        if isinstance(value, Model):
            compare(bucket.bucket(key), value)
        else:
            assert bucket.get(key) == value


class StoreMachine(RuleBasedStateMachine):
    buckets = Bundle("buckets")

    options: ClassVar[dict[str, object]] = {"sync": False}

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.mkdtemp(prefix="kv-model-")
        self.path = os.path.join(self.directory, "db")
        self.db = kv.Database(self.path, **self.options)
        self.committed = Model()
        self.working = Model()
        self.tx: kv.Transaction | None = None
        self.snapshots: list[tuple[kv.Transaction, Model]] = []

    def teardown(self) -> None:
        self.end_snapshots()
        if self.tx is not None:
            self.tx.rollback()
        assert self.db.check() == []
        self.db.close()
        shutil.rmtree(self.directory)

    def end_snapshots(self) -> None:
        for tx, _ in self.snapshots:
            tx.rollback()
        self.snapshots = []

    def write(self) -> kv.Transaction:
        if self.tx is None:
            self.tx = self.db.begin(write=True)
            self.working = copy.deepcopy(self.committed)
        return self.tx

    def at(self, path: tuple[bytes, ...]) -> tuple[kv.Bucket, Model] | None:
        """The open bucket and its model; None where it was deleted meanwhile."""
        tx = self.write()
        model = self.working
        for name in path:
            inner = model.items.get(name)
            if not isinstance(inner, Model):
                return None
            model = inner
        bucket = tx.bucket(path[0])
        for name in path[1:]:
            bucket = bucket.bucket(name)
        return bucket, model

    @initialize(target=buckets)
    def first(self) -> tuple[bytes, ...]:
        self.write().create_bucket_if_not_exists(b"top")
        self.working.items[b"top"] = Model()
        return (b"top",)

    @rule(target=buckets, parent=buckets, name=KEYS)
    def create(self, parent: tuple[bytes, ...], name: bytes) -> tuple[bytes, ...]:
        found = self.at(parent)
        if found is None or len(parent) > 4:
            return parent
        bucket, model = found
        if name in model.items:
            exists = isinstance(model.items[name], Model)
            with pytest.raises(kv.BucketExists if exists else kv.IncompatibleValue):
                bucket.create_bucket(name)
            return parent
        bucket.create_bucket(name)
        model.items[name] = Model()
        return (*parent, name)

    @rule(path=buckets, pairs=st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=30))
    def put(self, path: tuple[bytes, ...], pairs: list[tuple[bytes, bytes]]) -> None:
        found = self.at(path)
        if found is None:
            return
        bucket, model = found
        for key, value in pairs:
            if isinstance(model.items.get(key), Model):
                continue
            bucket[key] = value
            model.items[key] = value

    @rule(
        path=buckets, start=st.integers(0, 400), count=st.integers(1, 300), size=st.integers(0, 60)
    )
    def put_run(self, path: tuple[bytes, ...], start: int, count: int, size: int) -> None:
        found = self.at(path)
        if found is None:
            return
        bucket, model = found
        for n in range(start, start + count):
            key = b"key-%04d" % n
            if not isinstance(model.items.get(key), Model):
                bucket.put(key, b"v" * size)
                model.items[key] = b"v" * size

    @rule(path=buckets, keys=st.lists(KEYS, max_size=20))
    def delete(self, path: tuple[bytes, ...], keys: list[bytes]) -> None:
        found = self.at(path)
        if found is None:
            return
        bucket, model = found
        for key in keys:
            if isinstance(model.items.get(key), Model):
                continue
            assert bucket.delete(key) == (model.items.pop(key, None) is not None)

    @rule(path=buckets, modulus=st.integers(1, 5), backward=st.booleans())
    def delete_by_cursor(self, path: tuple[bytes, ...], modulus: int, backward: bool) -> None:
        found = self.at(path)
        if found is None:
            return
        bucket, model = found
        cursor = bucket.cursor()
        seen = []
        item = cursor.last() if backward else cursor.first()
        while item is not None:
            seen.append(item)
            if item[1] is not None and len(seen) % modulus == 0:
                assert cursor.delete()
                del model.items[item[0]]
            item = cursor.prev() if backward else cursor.next()
        expected = sorted(seen, reverse=backward)
        assert seen == expected
        kept = [pair for n, pair in enumerate(seen, 1) if pair[1] is None or n % modulus]
        assert (kept[::-1] if backward else kept) == model.pairs()

    @rule(path=buckets, key=KEYS, steps=st.integers(1, 8), backward=st.booleans())
    def seek(self, path: tuple[bytes, ...], key: bytes, steps: int, backward: bool) -> None:
        found = self.at(path)
        if found is None:
            return
        bucket, model = found
        pairs = model.pairs()
        index = sum(1 for name, _ in pairs if name < key)
        cursor = bucket.cursor()
        item = cursor.seek(key)
        assert item == (pairs[index] if index < len(pairs) else None)
        for _ in range(steps):
            index += -1 if backward else 1
            item = cursor.prev() if backward else cursor.next()
            assert item == (pairs[index] if 0 <= index < len(pairs) else None)
            if item is None:
                break

    @rule(path=buckets, prefix=st.binary(max_size=2))
    def count(self, path: tuple[bytes, ...], prefix: bytes) -> None:
        found = self.at(path)
        if found is None:
            return
        bucket, model = found
        hits = [pair for pair in model.pairs() if pair[0].startswith(prefix)]
        size = sum(len(key) + len(value or b"") for key, value in hits)
        assert bucket.total(prefix) == (len(hits), size)
        assert list(bucket.items(prefix=prefix)) == hits
        assert list(bucket.items(prefix=prefix, reverse=True)) == hits[::-1]

    @rule(path=buckets, value=st.integers(0, 2**64 - 1))
    def set_sequence(self, path: tuple[bytes, ...], value: int) -> None:
        found = self.at(path)
        if found is not None:
            found[0].sequence = value
            found[1].sequence = value

    @rule(path=buckets)
    def drop(self, path: tuple[bytes, ...]) -> None:
        if len(path) < 2 or self.at(path) is None:
            return
        parent = self.at(path[:-1])
        inner = self.at(path)
        assert parent is not None
        assert inner is not None
        parent[0].delete_bucket(path[-1])
        del parent[1].items[path[-1]]
        with pytest.raises(kv.BucketNotFound):
            inner[0].get(b"x")

    @rule()
    def commit(self) -> None:
        if self.tx is not None:
            self.tx.commit()
            self.committed = self.working
            self.tx = None

    @rule()
    def rollback(self) -> None:
        if self.tx is not None:
            self.tx.rollback()
            self.tx = None

    def take_snapshot(self) -> None:
        self.snapshots.append((self.db.begin(), copy.deepcopy(self.committed)))

    @precondition(lambda self: self.options.get("lock") != "transaction")
    @rule()
    def snapshot(self) -> None:
        if len(self.snapshots) < 4:
            self.take_snapshot()

    @rule(index=st.integers(0, 3))
    def end_snapshot(self, index: int) -> None:
        if index < len(self.snapshots):
            tx, _ = self.snapshots.pop(index)
            tx.rollback()

    @rule()
    def reopen(self) -> None:
        self.end_snapshots()
        if self.tx is not None:
            self.tx.rollback()
            self.tx = None
        self.db.close()
        self.db = kv.Database(self.path, **self.options)

    @rule()
    def verify(self) -> None:
        """The file: sound, and the same through the dump, a backup and a compaction."""
        if self.tx is not None and self.db.lock == "transaction":
            self.commit()
        expected = "".join(line + "\n" for line in self.committed.lines())
        assert self.db.check() == []
        assert dump(self.db) == expected
        for copy_to in (self.db.backup, self.db.compact):
            copied = self.path + ".copy"
            copy_to(copied)
            with kv.Database(copied, read_only=True) as other:
                assert other.check() == []
                assert dump(other) == expected
            os.unlink(copied)

    @invariant()
    def snapshots_hold(self) -> None:
        for tx, model in self.snapshots:
            assert list(tx.buckets()) == sorted(model.items)
            for name, inner in model.items.items():
                assert isinstance(inner, Model)
                compare(tx.bucket(name), inner)

    @invariant()
    def working_holds(self) -> None:
        if self.tx is not None:
            for name, inner in self.working.items.items():
                assert isinstance(inner, Model)
                compare(self.tx.bucket(name), inner)


class SmallPages(StoreMachine):
    options: ClassVar[dict[str, object]] = {
        "sync": False,
        "page_size": 1024,
        "persist_freelist": False,
    }


class WithoutMap(StoreMachine):
    options: ClassVar[dict[str, object]] = {"sync": False, "map": False, "lock": "transaction"}


PROFILE = settings(
    max_examples=int(os.environ.get("KV_EXAMPLES", "40")),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

TestStore = StoreMachine.TestCase
TestStore.settings = PROFILE
TestSmallPages = SmallPages.TestCase
TestSmallPages.settings = PROFILE
TestWithoutMap = WithoutMap.TestCase
TestWithoutMap.settings = PROFILE


def test_model_lines_are_the_dump() -> None:
    """The model's own form, so that the comparison above means something."""
    model = Model()
    model.items[b"a"] = Model()
    inner = model.items[b"a"]
    assert isinstance(inner, Model)
    inner.items[b"k"] = b""
    assert model.lines() == ["B 1 61 0", "K 6b ", "E"]
