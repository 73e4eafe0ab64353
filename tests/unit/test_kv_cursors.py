# SPDX-License-Identifier: Apache-2.0
"""The store's cursors and iterators."""

from __future__ import annotations

from pathlib import Path

import pytest

from libpod import kv
from tests.unit.kv_support import fill


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
