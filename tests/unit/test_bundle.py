# SPDX-License-Identifier: Apache-2.0
"""What is written for the OCI runtime: the bundle's files."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from libpod.launch import _write_whole


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    _write_whole(str(path), b"one")
    with path.open("rb") as reader:
        _write_whole(str(path), b"another")
        assert reader.read() == b"one"
    with pytest.raises(OSError, match="File too large"), files_of_at_most(2):
        _write_whole(str(path), b"a third one")
    assert path.read_bytes() == b"another"
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o7777 == 0o600


def test_no_link_is_followed(tmp_path: Path) -> None:
    """Neither one in the file's place nor one where it is written first."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"kept")
    path = tmp_path / "config.json"
    for planted in (path, tmp_path / "config.json.new"):
        planted.symlink_to(victim)
        _write_whole(str(path), b"ours")
        assert victim.read_bytes() == b"kept"
        assert not path.is_symlink() and path.read_bytes() == b"ours"
