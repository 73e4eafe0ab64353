# SPDX-License-Identifier: Apache-2.0
"""Unpacks the reference files that a fuzzer can begin with: `seeds.py DIRECTORY`."""

import lzma
import sys
from pathlib import Path

DATA = Path(__file__).parent.parent / "data" / "kv"
LARGEST = 270_000
"""Bytes; what is larger slows the fuzzer down without reaching more."""

for packed in sorted(DATA.glob("*.db.xz")):
    data = lzma.decompress(packed.read_bytes())
    if len(data) <= LARGEST:
        Path(sys.argv[1], packed.stem).write_bytes(data)
