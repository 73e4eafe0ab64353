# SPDX-License-Identifier: Apache-2.0
"""The store's transactions: what they see, how they end, and several in one commit."""

from __future__ import annotations

import gc
import signal
import threading
import time
from pathlib import Path

import pytest

from libpod import kv
from libpod.errors import Closed
from tests.unit.kv_support import fill


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


# --- batches


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
