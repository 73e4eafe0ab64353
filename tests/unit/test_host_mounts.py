# SPDX-License-Identifier: Apache-2.0
"""The way to the host's mounts and its errors; the mounts are tried by tests/c and, as
root, by tests/integration."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from libpod.errors import InvalidArgument, RuntimeDirError, SystemCallError
from libpod.host import Host


@pytest.fixture
def host() -> Host:
    return object.__new__(Host)  # its constructor asks for root, these tests do not


@pytest.fixture
def place(tmp_path: Path) -> str:
    made = tmp_path / "shm"
    made.mkdir()
    return str(made)


def test_arguments(host: Host, place: str) -> None:
    for size, mode, label in (
        (-1, 0o700, ""),
        (1 << 63, 0o700, ""),
        (1, 0o10000, ""),
        (1, 0, "\0"),
    ):
        with pytest.raises(InvalidArgument, match="cannot mount a tmpfs of"):
            host.mount_tmpfs(place, size, mode, label=label)
    with pytest.raises(InvalidArgument, match="not an SELinux context"):
        host.mount_tmpfs(place, 1, 0o700, label='a"b')
    with pytest.raises(InvalidArgument, match="NUL"):
        host.unmount(f"{place}\0")


def test_nothing_mounted(host: Host, place: str) -> None:
    assert not host.is_mountpoint(place)
    assert not host.is_mountpoint(f"{place}/missing/deep")
    assert host.is_mountpoint("/proc")
    assert not host.unmount(f"{place}/missing")


def test_errors(host: Host, place: str) -> None:
    with pytest.raises(SystemCallError, match="missing") as raised:
        host.mount_tmpfs(f"{place}/missing", 1, 0o700)
    assert raised.value.errno == errno.ENOENT
    os.chmod(place, 0o777)
    Path(place, "inner").mkdir()
    with pytest.raises(RuntimeDirError, match="writable by others") as refused:
        host.bind_private(f"{place}/inner")
    assert refused.value.remedy is not None
