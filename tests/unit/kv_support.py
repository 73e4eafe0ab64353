# SPDX-License-Identifier: Apache-2.0
"""What the store's tests share: bbolt's files, and databases with something in them."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import sys
from pathlib import Path

from libpod import kv

DATA = Path(__file__).parent.parent / "data" / "kv"
MANIFEST = json.loads((DATA / "manifest.json").read_text())


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


def environment(**more: str) -> dict[str, str]:
    """For a Python of its own that finds the library where this one does."""
    return dict(os.environ, PYTHONPATH=os.pathsep.join(p or "." for p in sys.path), **more)
