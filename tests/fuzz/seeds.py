# SPDX-License-Identifier: Apache-2.0
"""What a fuzzer begins with: `seeds.py DIRECTORY`; the reference files, and a deep tree."""

import lzma
import sys
from pathlib import Path

from libpod import kv

DATA = Path(__file__).parent.parent / "data" / "kv"
LARGEST = 270_000
"""Bytes; what is larger slows the fuzzer down without reaching more."""

for packed in sorted(DATA.glob("*.db.xz")):
    data = lzma.decompress(packed.read_bytes())
    if len(data) <= LARGEST:
        Path(sys.argv[1], packed.stem).write_bytes(data)

deep = Path(sys.argv[1], "deep.db")
deep.unlink(missing_ok=True)
with kv.Database(deep, sync=False, page_size=1024) as db, db.begin(write=True) as tx:
    bucket = tx.create_bucket(b"deep")
    for n in range(900):
        bucket[b"%040d" % n] = b"v" * 60
