# SPDX-License-Identifier: Apache-2.0
"""Commits random changes until it is killed or done; after each commit it says so.

python kv_workload.py FILE SEED COMMITS LOG appends to LOG, after each commit, a
mark: b"M", the commit's id and the size of the expected dump as u64, the dump.
"""

from __future__ import annotations

import random
import struct
import sys
from typing import Any

from libpod import kv

Tree = dict[bytes, Any]


def lines(tree: Tree, sequences: dict[tuple[bytes, ...], int], path: tuple[bytes, ...] = ()) -> str:
    out = []
    for key in sorted(tree):
        value = tree[key]
        if isinstance(value, dict):
            inner = (*path, key)
            out.append(f"B {len(key)} {key.hex()} {sequences.get(inner, 0)}\n")
            out.append(lines(value, sequences, inner))
            out.append("E\n")
        else:
            out.append(f"K {key.hex()} {value.hex()}\n")
    return "".join(out)


class Workload:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.tree: Tree = {}
        self.sequences: dict[tuple[bytes, ...], int] = {}

    def change(self, tx: kv.Transaction) -> None:
        pick = self.random
        name = b"bucket-%d" % pick.randrange(4)
        bucket = tx.create_bucket_if_not_exists(name)
        tree: Tree = self.tree.setdefault(name, {})
        for _ in range(pick.randrange(1, 12)):
            key = b"key-%03d" % pick.randrange(200)
            what = pick.random()
            if isinstance(tree.get(key), dict):
                if what < 0.3:
                    bucket.delete_bucket(key)
                    del tree[key]
                else:
                    value = pick.randbytes(pick.randrange(2000))
                    bucket.bucket(key).put(b"inner", value)
                    tree[key][b"inner"] = value
            elif what < 0.6:
                value = pick.randbytes(pick.choice((10, 100, 1000, 6000)))
                bucket.put(key, value)
                tree[key] = value
            elif what < 0.9:
                assert bucket.delete(key) == (tree.pop(key, None) is not None)
            elif key not in tree:
                bucket.create_bucket(key)
                tree[key] = {}
        self.sequences[(name,)] = bucket.next_sequence()


def main() -> None:
    path, seed, commits, log = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    work = Workload(seed)
    with kv.Database(path) as db, open(log, "ab", buffering=0) as marks:
        for _ in range(commits):
            with db.begin(write=True) as tx:
                work.change(tx)
                txid = tx.id
            dump = lines(work.tree, work.sequences).encode()
            marks.write(b"M" + struct.pack("<QQ", txid, len(dump)) + dump)


if __name__ == "__main__":
    main()
