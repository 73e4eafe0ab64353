# SPDX-License-Identifier: Apache-2.0
"""The store's command, python -m libpod.kv."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
from pathlib import Path

from libpod import kv
from tests.unit.kv_support import MANIFEST, environment, reference


def command(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "libpod.kv", *map(str, words)],
        capture_output=True,
        text=True,
        env=environment(),
    )


def test_command_line(tmp_path: Path) -> None:
    path = reference("nested.db", tmp_path)
    assert command("check", path).stdout == "OK\n"
    dump = command("dump", path).stdout
    assert hashlib.sha256(dump.encode()).hexdigest() == MANIFEST["nested.db"]["dump_sha256"]
    name = command("buckets", path).stdout.splitlines()
    assert len(name) == 1
    line = next(line for line in dump.splitlines() if line.startswith("K "))
    key, value = line.split(" ")[1:]
    got = command("get", path, "--hex", name[0].encode().hex(), key)
    assert got.stdout == value + "\n"
    assert command("get", path, name[0], "no-such-key").returncode == 1
    assert command("get", path, "no-such-bucket", "key").returncode == 1
    assert json.loads(command("stats", path).stdout)["buckets"]["buckets"] == 13
    pages = command("pages", path).stdout
    assert "meta" in pages
    assert "leaf" in pages
    for verb in ("compact", "backup"):
        target = tmp_path / verb
        assert command(verb, path, target).returncode == 0
        assert command("dump", target).stdout == dump
        assert command("check", target).stdout == "OK\n"


def test_command_check_lists_faults(tmp_path: Path) -> None:
    path = reference("churn.db", tmp_path)
    with kv.Database(path, read_only=True) as db:
        leaves = [number for number, kind, count, _ in db.pages() if kind == "leaf" and count > 3]
    data = bytearray(path.read_bytes())
    for leaf in leaves:
        struct.pack_into("<I", data, leaf * 4096 + 16 + 4, 0xFFFFFFF0)
    path.write_bytes(data)
    found = command("check", path)
    assert found.returncode == 1
    assert "points out of its page" in found.stdout
    assert "OK" not in found.stdout
    assert command("check", tmp_path / "missing").returncode == 1
    assert command("nonsense", path).returncode == 2
