# SPDX-License-Identifier: Apache-2.0
"""The store's file among several: other processes, other threads, other hands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from libpod import kv
from libpod.errors import LockTimeout, UsedAfterFork
from tests.unit.kv_support import environment, fill

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
        env=environment(ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "") + ":handle_sigbus=0"),
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
        env=environment(),
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
            env=environment(),
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
