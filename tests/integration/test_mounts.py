# SPDX-License-Identifier: Apache-2.0
"""Mounts made and taken away by a Host, and what an archive makes of them."""

from __future__ import annotations

import logging
import os
import tarfile
from pathlib import Path

import pytest

from libpod.export import export
from libpod.host import Host

pytestmark = pytest.mark.any_runtime


def test_tmpfs(tmp_path: Path) -> None:
    host = Host()
    place = str(tmp_path)
    host.mount_tmpfs(place, 1 << 20, 0o1777, uid=5, gid=6)
    try:
        assert host.is_mountpoint(place)
        status, file_system = os.stat(place), os.statvfs(place)
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o1777, 5, 6)
        assert file_system.f_blocks * file_system.f_frsize == 1 << 20
        wanted = os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC
        assert file_system.f_flag & wanted == wanted
    finally:
        assert host.unmount(place)
    assert not host.unmount(place)
    assert not host.is_mountpoint(place)


def test_bind_private(tmp_path: Path) -> None:
    host = Host()
    place = str(tmp_path)
    (tmp_path / "inner").mkdir()
    host.bind_private(place)
    try:
        assert host.is_mountpoint(place)
        assert os.listdir(place) == ["inner"]
        host.bind_private(place)  # once
    finally:
        assert host.unmount(place)
    assert not host.is_mountpoint(place)


def test_an_archive_leaves_mounts_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    host = Host()
    mounted = tmp_path / "root/mnt"
    mounted.mkdir(parents=True)
    host.mount_tmpfs(str(mounted), 1 << 20, 0o755)
    try:
        (mounted / "inner").touch()
        with caplog.at_level(logging.INFO, "libpod.export"):
            export(str(tmp_path / "root"), str(tmp_path / "outer.tar"))
        export(str(mounted), str(tmp_path / "inner.tar"))  # the root may be a mount
    finally:
        assert host.unmount(str(mounted))
    assert "mnt is a mount point" in caplog.text
    for name, expected in (("outer", ["mnt"]), ("inner", ["inner"])):
        with tarfile.open(tmp_path / f"{name}.tar", "r:") as tar:
            assert tar.getnames() == expected
