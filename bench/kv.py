# SPDX-License-Identifier: Apache-2.0
"""The store against bbolt, py-lmdb and sqlite3: python bench/kv.py [--large] [--json FILE]

All engines do the same chunk of work in turn, round after round, in one run; a
row is the median of the rounds. Keys are 64 hex characters, values 1 KiB, 10,000
of them unless the row says otherwise. Ours is in lock mode "session", as the
peers are, unless the row says otherwise. bbolt runs in a Go program of its own
(Debian's golang-github-coreos-bbolt-dev), which times its chunks itself.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import lmdb

from libpod import kv

HERE = os.path.dirname(os.path.abspath(__file__))
VALUE = b"\0" * 1024
BUCKET = b"bench"
BATCH = 50_000  # keys a transaction, at most, where a database is filled
Row = dict[str, Any]
Chunk = Callable[[], float]
"""Does a fixed amount of work; nanoseconds an operation."""


def median_in_turn(rounds: int, chunks: dict[str, Chunk]) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in chunks}
    for _ in range(rounds):
        for name, chunk in chunks.items():
            times[name].append(chunk())
    return {name: statistics.median(values) for name, values in times.items()}


def keyed(count: int, keys: list[bytes], work: Callable[[list[bytes]], object]) -> Chunk:
    """As timed(), for work on `count` keys that are picked before the clock starts."""

    def chunk() -> float:
        sample = random.sample(keys, count)
        start = time.perf_counter_ns()
        work(sample)
        return (time.perf_counter_ns() - start) / count

    return chunk


def timed(count: int, work: Callable[[], object]) -> Chunk:
    def chunk() -> float:
        start = time.perf_counter_ns()
        work()
        return (time.perf_counter_ns() - start) / count

    return chunk


class Go:
    """The Go program with bbolt in it."""

    def __init__(self, directory: str) -> None:
        binary = os.path.join(directory, "bbolt-peer")
        environment = dict(
            os.environ, GO111MODULE="off", GOPATH="/usr/share/gocode", GOFLAGS="-buildvcs=false"
        )
        environment.setdefault("GOCACHE", os.path.join(directory, "go-cache"))
        subprocess.run(
            ["go", "build", "-o", binary, os.path.join(HERE, "peers", "bbolt.go")],
            check=True,
            env=environment,
        )
        self.process = subprocess.Popen(
            [binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def send(self, *words: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def receive(self) -> list[int]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the Go program ended")
        return [int(word) for word in line.split()]

    def ask(self, *words: object) -> list[int]:
        self.send(*words)
        return self.receive()

    def chunk(self, count: int, *words: object) -> Chunk:
        return lambda: self.ask(*words)[0] / count

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


class Lmdb:
    def __init__(self, path: str, sync: bool = True) -> None:
        self.path = path
        self.env = lmdb.open(path, map_size=8 << 30, max_dbs=8, sync=sync, subdir=False)
        self.table = self.env.open_db(BUCKET)

    def close(self) -> None:
        self.env.close()


class Sqlite:
    def __init__(self, path: str) -> None:
        self.db = sqlite3.connect(path, isolation_level=None, cached_statements=16)
        self.db.execute("pragma journal_mode=wal")
        self.db.execute("pragma synchronous=full")
        self.db.execute("create table if not exists kv (k blob unique, v blob)")

    def close(self) -> None:
        self.db.close()


class Bench:
    def __init__(self, directory: str, count: int, rounds: int) -> None:
        self.directory = directory
        self.count = count
        self.rounds = rounds
        source = random.Random(1)
        self.keys = [b"%064x" % source.getrandbits(256) for _ in range(count)]
        self.sorted = sorted(self.keys)
        self.rows: list[Row] = []
        self.go = Go(directory)
        listing = self.path("keys")
        with open(listing, "wb") as file:
            file.writelines(key + b"\n" for key in self.keys)
        self.go.ask("keys", listing)

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def row(self, name: str, ours: float, peers: dict[str, tuple[float, float | None]]) -> None:
        for peer, (value, must) in peers.items():
            self.rows.append(
                {
                    "bench": "kv",
                    "name": name,
                    "unit": "ns",
                    "ours": round(ours, 1),
                    "peer_name": peer,
                    "peer": round(value, 1),
                    "ratio": round(ours / value, 3),
                    "must": must,
                }
            )

    def bound(self, name: str, unit: str, ours: float, limit: str, must: float) -> None:
        """A figure with a bound of its own: `ratio` is it divided by the bound."""
        self.rows.append(
            {
                "bench": "kv",
                "name": name,
                "unit": unit,
                "ours": round(ours, 3),
                "peer_name": limit,
                "peer": must,
                "ratio": round(ours / must, 3),
                "must": 1.0,
            }
        )

    # --- filling

    def batches_of_keys(self) -> list[list[bytes]]:
        return [self.sorted[at : at + BATCH] for at in range(0, self.count, BATCH)]

    def fill_ours(self, path: str, sync: bool = False) -> None:
        with kv.Database(path, sync=sync) as db:
            for keys in self.batches_of_keys():
                with db.begin(write=True) as tx:
                    put = tx.create_bucket_if_not_exists(BUCKET).put
                    for key in keys:
                        put(key, VALUE)

    def fill_lmdb(self, path: str) -> None:
        peer = Lmdb(path, sync=False)
        for keys in self.batches_of_keys():
            with peer.env.begin(write=True, db=peer.table) as tx:
                for key in keys:
                    tx.put(key, VALUE, append=False)
        peer.close()

    def fill_sqlite(self, path: str) -> None:
        peer = Sqlite(path)
        for keys in self.batches_of_keys():
            peer.db.execute("begin")
            peer.db.executemany("insert into kv values (?, ?)", ((k, VALUE) for k in keys))
            peer.db.execute("commit")
        peer.close()

    def fill_all(self) -> None:
        self.fill_ours(self.path("ours"))
        self.fill_lmdb(self.path("lmdb"))
        self.fill_sqlite(self.path("sqlite"))
        self.go.ask("fill", self.path("bbolt"), "nosync")

    def sample(self, count: int) -> list[bytes]:
        return random.sample(self.keys, min(count, len(self.keys)))

    # --- reading

    def gets(self, label: str, musts: dict[str, float | None]) -> None:
        count = 2000
        db = kv.Database(self.path("ours"))
        peer = Lmdb(self.path("lmdb"))
        sql = Sqlite(self.path("sqlite"))
        tx = db.begin()
        bucket = tx.bucket(BUCKET)
        lmdb_tx = peer.env.begin(db=peer.table)

        def ours(keys: list[bytes]) -> None:
            get = bucket.get
            for key in keys:
                get(key)

        def theirs(keys: list[bytes]) -> None:
            get = lmdb_tx.get
            for key in keys:
                get(key)

        def sqlite(keys: list[bytes]) -> None:
            execute = sql.db.execute
            for key in keys:
                execute("select v from kv where k = ?", (key,)).fetchone()

        result = median_in_turn(
            self.rounds,
            {
                "ours": keyed(count, self.keys, ours),
                "py-lmdb": keyed(count, self.keys, theirs),
                "bbolt": self.go.chunk(count, "get", self.path("bbolt"), count),
                "sqlite3": keyed(count, self.keys, sqlite),
            },
        )
        self.row(
            f"get as bytes in a read transaction{label}",
            result["ours"],
            {peer: (result[peer], musts.get(peer)) for peer in ("py-lmdb", "bbolt", "sqlite3")},
        )
        tx.rollback()
        lmdb_tx.abort()
        db.close()
        peer.close()
        sql.close()
        self.go.ask("close", self.path("bbolt"))

    def begin_gets(self, label: str, musts: dict[str, float | None]) -> None:
        count = 1000
        db = kv.Database(self.path("ours"))
        peer = Lmdb(self.path("lmdb"))

        def through(database: kv.Database) -> Callable[[list[bytes]], None]:
            def work(keys: list[bytes]) -> None:
                begin = database.begin
                for key in keys:
                    tx = begin()
                    tx.bucket(BUCKET).get(key)
                    tx.rollback()

            return work

        def theirs(keys: list[bytes]) -> None:
            begin = peer.env.begin
            table = peer.table
            for key in keys:
                tx = begin(db=table)
                tx.get(key)
                tx.abort()

        result = median_in_turn(
            self.rounds,
            {
                "ours": keyed(count, self.keys, through(db)),
                "py-lmdb": keyed(count, self.keys, theirs),
                "bbolt": self.go.chunk(count, "begin-get", self.path("bbolt"), count),
            },
        )
        self.row(
            f"begin, get, end{label}",
            result["ours"],
            {
                peer_name: (result[peer_name], musts.get(peer_name))
                for peer_name in ("py-lmdb", "bbolt")
            },
        )
        db.close()
        if not label:
            db = kv.Database(self.path("ours"), lock="transaction")
            result = median_in_turn(
                self.rounds,
                {
                    "ours": keyed(count, self.keys, through(db)),
                    "py-lmdb": keyed(count, self.keys, theirs),
                },
            )
            self.row(
                "begin, get, end, lock mode transaction",
                result["ours"],
                {"py-lmdb": (result["py-lmdb"], 1.3)},
            )
            db.close()
        peer.close()
        self.go.ask("close", self.path("bbolt"))

    def open_get_close(self) -> None:
        count = 100

        def ours() -> None:
            for key in self.sample(count):
                with kv.Database(self.path("ours")) as db, db.begin() as tx:
                    tx.bucket(BUCKET).get(key)

        def theirs() -> None:
            for key in self.sample(count):
                peer = Lmdb(self.path("lmdb"))
                with peer.env.begin(db=peer.table) as tx:
                    tx.get(key)
                peer.close()

        result = median_in_turn(
            self.rounds,
            {
                "ours": timed(count, ours),
                "bbolt": self.go.chunk(count, "open-get", self.path("bbolt"), count),
                "py-lmdb": timed(count, theirs),
            },
        )
        self.row(
            "open, one get, close",
            result["ours"],
            {"bbolt": (result["bbolt"], 0.7), "py-lmdb": (result["py-lmdb"], 0.2)},
        )

    def scans(self) -> None:
        db = kv.Database(self.path("ours"))
        peer = Lmdb(self.path("lmdb"))
        tx = db.begin()
        bucket = tx.bucket(BUCKET)

        def ours() -> None:
            for _ in bucket.items():
                pass

        def theirs() -> None:
            with peer.env.begin(db=peer.table) as lmdb_tx:
                for _ in lmdb_tx.cursor():
                    pass

        def prefixes() -> None:
            total = sum(bucket.count(b"%x" % digit) for digit in range(16))
            assert total == self.count

        result = median_in_turn(
            self.rounds,
            {
                "ours": timed(self.count, ours),
                "py-lmdb": timed(self.count, theirs),
                "count": timed(self.count, bucket.count),
                "total": timed(self.count, bucket.total),
                "prefix": timed(self.count, prefixes),
                "bbolt": self.go.chunk(self.count, "scan", self.path("bbolt"), 1),
            },
        )
        name = "full scan with keys and values as bytes, an item"
        self.row(name, result["ours"], {"py-lmdb": (result["py-lmdb"], 1.0)})
        for work, what in (
            ("count", "count"),
            ("total", "count and bytes"),
            ("prefix", "16 prefix counts"),
        ):
            self.row(f"{what} in C, an item", result[work], {"bbolt": (result["bbolt"], 0.5)})
        tx.rollback()
        db.close()
        peer.close()
        self.go.ask("close", self.path("bbolt"))

    # --- writing

    def bulk(self) -> None:
        def fresh(fill: Callable[[str], object]) -> Chunk:
            def chunk() -> float:
                path = self.path("bulk")
                start = time.perf_counter_ns()
                fill(path)
                elapsed = time.perf_counter_ns() - start
                for name in (path, path + "-lock", path + "-wal", path + "-shm"):
                    if os.path.exists(name):
                        os.unlink(name)
                return elapsed / self.count

            return chunk

        result = median_in_turn(
            max(3, self.rounds // 4),
            {
                "ours": fresh(self.fill_ours),
                "py-lmdb": fresh(self.fill_lmdb),
                "bbolt": fresh(lambda path: self.go.ask("fill", path, "nosync")),
                "sqlite3": fresh(self.fill_sqlite),
            },
        )
        self.row(
            "10,000 sorted puts, one transaction, no sync, with open and close, a put",
            result["ours"],
            {
                "py-lmdb": (result["py-lmdb"], 1.0),
                "bbolt": (result["bbolt"], 0.25),
                "sqlite3": (result["sqlite3"], None),
            },
        )

    def durable_puts(self) -> None:
        db = kv.Database(self.path("ours"))
        peer = Lmdb(self.path("lmdb"))
        sql = Sqlite(self.path("sqlite"))
        key = [b""]

        def ours() -> None:
            with db.begin(write=True) as tx:
                tx.bucket(BUCKET).put(key[0], VALUE)

        def theirs() -> None:
            with peer.env.begin(write=True, db=peer.table) as tx:
                tx.put(key[0], VALUE)

        def sqlite() -> None:
            value = os.urandom(8) + VALUE[8:]  # an update to the same value writes nothing
            sql.db.execute("update kv set v = ? where k = ?", (value, key[0]))

        def pick(work: Callable[[], None]) -> Chunk:
            chunk = timed(1, work)

            def picked() -> float:
                key[0] = random.choice(self.keys)
                return chunk()

            return picked

        result = median_in_turn(
            self.rounds * 20,
            {
                "ours": pick(ours),
                "bbolt": self.go.chunk(1, "put", self.path("bbolt"), 1),
                "py-lmdb": pick(theirs),
                "sqlite3": pick(sqlite),
            },
        )
        self.row(
            "one put a transaction, durable",
            result["ours"],
            {
                "bbolt": (result["bbolt"], 0.85),
                "py-lmdb": (result["py-lmdb"], 1.0),
                "sqlite3": (result["sqlite3"], None),
            },
        )
        db.close()
        peer.close()
        sql.close()

    def records(self) -> None:
        db = kv.Database(self.path("records-ours"))
        serial = [0]

        def ours() -> None:
            serial[0] += 1
            ident = b"%064x" % random.getrandbits(64)
            name = b"container-%d" % serial[0]
            with db.begin(write=True) as tx:
                for registry in (b"id-registry", b"all-ctrs"):
                    tx.create_bucket_if_not_exists(registry).put(ident, name)
                tx.create_bucket_if_not_exists(b"name-registry").put(name, ident)
                ctr = tx.create_bucket_if_not_exists(b"ctr").create_bucket(ident)
                ctr.put(b"config", b"\0" * 4096)
                ctr.put(b"state", b"\0" * 512)
                ctr.create_bucket(b"dependencies")

        result = median_in_turn(
            self.rounds * 20,
            {
                "ours": timed(1, ours),
                "bbolt": self.go.chunk(1, "record", self.path("records-bbolt"), 1),
            },
        )
        self.row(
            "a container's record added, durable", result["ours"], {"bbolt": (result["bbolt"], 0.6)}
        )
        db.close()
        self.go.ask("close", self.path("records-bbolt"))

    def batches(self) -> None:
        threads, each = 16, 25
        db = kv.Database(self.path("ours"))

        def worker() -> None:
            for key in self.sample(each):
                db.batch(lambda tx, key=key: tx.bucket(BUCKET).put(key, VALUE))

        def ours() -> None:
            group = [threading.Thread(target=worker) for _ in range(threads)]
            for thread in group:
                thread.start()
            for thread in group:
                thread.join()

        result = median_in_turn(
            max(5, self.rounds // 2),
            {
                "ours": timed(threads * each, ours),
                "bbolt": self.go.chunk(threads * each, "batch", self.path("bbolt"), threads, each),
            },
        )
        self.row(
            "16 threads, one durable put each, batch",
            result["ours"],
            {"bbolt": (result["bbolt"], 0.6)},
        )
        db.close()
        self.go.ask("close", self.path("bbolt"))

    # --- processes

    def writers(self, seconds: float) -> None:
        path = self.path("shared")
        shutil.copy(self.path("ours"), path)
        for beside in (False, True):
            if beside:
                self.go.send("poll", path, seconds)
            command = [sys.executable, os.path.abspath(__file__), "--writer", path, str(seconds)]
            pair = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
            waits = [sorted(json.loads(process.communicate()[0])) for process in pair]
            if beside:
                commits = self.go.receive()[1]
                self.bound(
                    "bbolt beside two writers of ours: seconds a commit of bbolt",
                    "s",
                    seconds / max(commits, 0.001),
                    "bound",
                    1.0,
                )
                continue
            share = max(len(waits[0]), len(waits[1])) / (len(waits[0]) + len(waits[1]))
            name = "two processes writing durably in turn"
            self.bound(f"{name}: larger share of the commits", "1", share, "bound", 0.6)
            for quantile, limit in ((0.99, 2.0), (0.999, 15.0)):
                worst = max(one[int(len(one) * quantile)] for one in waits)
                self.bound(f"{name}: p{quantile * 100:g} of a wait", "ms", worst, "bound", limit)


def writer(path: str, seconds: float) -> None:
    """One of two processes: commits until the time is up; prints its waits in ms."""
    waits = []
    until = time.monotonic() + seconds
    with kv.Database(path, lock="transaction") as db:
        while time.monotonic() < until:
            start = time.perf_counter()
            tx = db.begin(write=True)
            waits.append((time.perf_counter() - start) * 1000)
            tx.bucket(BUCKET).put(b"%d" % os.getpid(), b"%d" % len(waits))
            tx.commit()
    json.dump(waits, sys.stdout)


def rows(large: bool = False, only: str = "", directory: str | None = None) -> list[Row]:
    """All rows; with `large` also those of 1,000,000 keys, which take 6 GB of disk."""
    root = tempfile.mkdtemp(prefix="bench-kv-", dir=directory)
    try:
        bench = Bench(root, 10_000, 40)
        bench.fill_all()
        parts: dict[str, Callable[[], None]] = {
            "get": lambda: bench.gets("", {"py-lmdb": 0.75, "bbolt": 0.45}),
            "begin": lambda: bench.begin_gets("", {"py-lmdb": 0.8, "bbolt": 0.45}),
            "open": bench.open_get_close,
            "scan": bench.scans,
            "bulk": bench.bulk,
            "put": bench.durable_puts,
            "record": bench.records,
            "batch": bench.batches,
            "writers": lambda: bench.writers(5.0),
        }
        for name, part in parts.items():
            if only in ("", name):
                part()
        found = bench.rows
        bench.go.close()
        if large:
            for name in ("ours", "lmdb", "sqlite", "bbolt"):
                os.unlink(bench.path(name))
            bench = Bench(root, 1_000_000, 20)
            bench.fill_all()
            bench.begin_gets(", 1,000,000 keys", {"py-lmdb": 0.85, "bbolt": 0.6})
            bench.gets(", 1,000,000 keys", {"py-lmdb": 0.85, "bbolt": 0.6})
            found += bench.rows
            bench.go.close()
        return found
    finally:
        shutil.rmtree(root)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help="also with 1,000,000 keys")
    parser.add_argument("--only", default="", help="one part: get, begin, open, scan, ...")
    parser.add_argument("--dir", default=None, help="where the files go")
    parser.add_argument("--json", default=None, metavar="FILE")
    parser.add_argument("--writer", nargs=2, default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.writer:
        writer(args.writer[0], float(args.writer[1]))
        return 0
    found = rows(args.large, args.only, args.dir)
    for row in found:
        must = "" if row["must"] is None else f"{row['must']:>6}"
        mark = "" if row["must"] is None or row["ratio"] <= row["must"] else "  MISSED"
        print(
            f"{row['name']:<74} {row['ours']:>11} {row['peer_name']:>8} {row['peer']:>11}"
            f" {row['unit']:<3} {row['ratio']:>7} {must}{mark}"
        )
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"rows": found}, file, indent=2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
