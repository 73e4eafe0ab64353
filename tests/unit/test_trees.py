# SPDX-License-Identifier: Apache-2.0
"""Removing trees; the C tests have the cases that race."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from libpod import launch
from libpod.trees import remove_tree


def test_a_tree_as_deep_as_a_path_cannot_name(tmp_path: Path) -> None:
    top = tmp_path / "tree"
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deeper", dir_fd=fd)
        os.close(os.open("removed-1", os.O_CREAT, dir_fd=fd))
        below = os.open("deeper", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    remove_tree(str(top))
    assert list(tmp_path.iterdir()) == []


def test_no_link_is_followed_out_of_a_tree(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "kept").mkdir(parents=True)
    top = tmp_path / "tree"
    (top / "a/removed-1/c").mkdir(parents=True)
    (top / "removed-1/full").mkdir(parents=True)
    (top / "link").symlink_to(outside)
    (top / "a/link").symlink_to(outside)
    os.mkfifo(top / "a/fifo")
    remove_tree(str(top))
    assert (outside / "kept").is_dir()
    assert not top.exists()
    remove_tree(str(top))
    top.symlink_to(outside)
    with pytest.raises(NotADirectoryError, match=str(top)):
        remove_tree(str(top))
    assert (outside / "kept").is_dir()


def test_a_name_that_has_no_utf8_form(tmp_path: Path) -> None:
    inside = os.fsencode(tmp_path / "tree") + b"/\xff\n"
    os.makedirs(inside + b"/\xfe")
    remove_tree(os.fsdecode(inside))
    remove_tree(str(tmp_path / "tree"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
@pytest.mark.parametrize("mounted", ["tree", "tree/a/b"])
def test_what_is_mounted_in_a_tree_is_left_alone(tmp_path: Path, mounted: str) -> None:
    """A directory of the same file system, too."""
    outside = tmp_path / "outside"
    (outside / "kept").mkdir(parents=True)
    (tmp_path / "tree/a/b").mkdir(parents=True)
    point = tmp_path / mounted
    subprocess.run(["mount", "--bind", outside, point], check=True)
    try:
        with pytest.raises(OSError, match="Device or resource busy") as caught:
            remove_tree(str(tmp_path / "tree"))
        assert caught.value.errno == errno.EBUSY
        assert (outside / "kept").is_dir()
    finally:
        subprocess.run(["umount", point], check=True)
    remove_tree(str(tmp_path / "tree"))
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]


class _Stop(Exception):
    pass


def test_signals_are_served_meanwhile(tmp_path: Path) -> None:
    """However long it takes; the rest is there to be removed later."""
    top = tmp_path / "tree"
    top.mkdir()
    for number in range(15_000):
        os.close(os.open(f"{top}/{number}", os.O_CREAT))

    def stop(*_: object) -> None:
        raise _Stop

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        begun = threading.Event()

        def send() -> None:
            begun.wait()
            os.kill(os.getpid(), signal.SIGUSR1)

        sender = threading.Thread(target=send)
        sender.start()
        with pytest.raises(_Stop):
            begun.set()
            remove_tree(str(top))
            pytest.fail("it served no signal")
    finally:
        signal.signal(signal.SIGUSR1, before)
        sender.join()
    assert os.listdir(top)
    remove_tree(str(top))


def test_one_way_to_remove_a_tree() -> None:
    assert launch.remove_tree is remove_tree
