# SPDX-License-Identifier: Apache-2.0
"""Starting by the fifo, with shells in the place of the first processes."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from libpod import _spawn, execfifo

PATH = {"PATH": os.defpath}


@pytest.fixture
def fifo(tmp_path: Path) -> str:
    path = tmp_path / "exec.fifo"
    os.mkfifo(path)
    return str(path)


class Held:
    """A process that waits at the fifo."""

    def __init__(self, fifo: str, script: str) -> None:
        self.process = _spawn.spawn(["/bin/sh", "-c", script, "sh", fifo], PATH)

    def at(self, fifo: str) -> _spawn.Process:
        """That process, once it is there."""
        deadline = time.monotonic() + 60
        while not execfifo.is_held(fifo, self.process.pid):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return self.process

    def end(self) -> None:
        if not self.process.ended():
            self.process.send_signal(9)
        self.process.wait(60)
        self.process.close()


@pytest.fixture
def reader(fifo: str) -> Iterator[Held]:
    """As crun's: it has the fifo open, and reads."""
    held = Held(fifo, 'exec 3<>"$1"; head -c1 <&3 >/dev/null; exit 3')
    yield held
    held.end()


@pytest.fixture
def writer(fifo: str) -> Iterator[Held]:
    """As runc's: it writes when it comes to it."""
    held = Held(fifo, 'exec 3<>"$1"; sleep 0.2; printf 0 >&3; exec sleep 1000')
    yield held
    held.end()


def test_understood(tmp_path: Path) -> None:
    for name in ("crun", "runc", "youki"):
        shutil.copy("/bin/true", tmp_path / name)
    (tmp_path / "script").mkdir()
    (tmp_path / "script/crun").write_text("#!/bin/sh\nexec /usr/bin/crun-is-not-here\n")
    assert execfifo.is_understood(str(tmp_path / "crun"))
    assert execfifo.is_understood(str(tmp_path / "runc"))
    assert not execfifo.is_understood(str(tmp_path / "youki"))
    assert not execfifo.is_understood(str(tmp_path / "script/crun"))
    assert not execfifo.is_understood(str(tmp_path / "missing/crun"))


def test_crun_is_written_to(fifo: str, reader: Held) -> None:
    assert execfifo.let_go(fifo, "/usr/bin/crun", reader.at(fifo))
    assert reader.process.wait(60) == 3
    assert os.path.exists(fifo)  # who removes it says that the container runs


def test_runc_is_read_from(fifo: str, writer: Held) -> None:
    assert execfifo.let_go(fifo, "/usr/bin/runc", writer.at(fifo))


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_nobody_is_there(runtime: str, fifo: str, tmp_path: Path) -> None:
    gone = _spawn.spawn(["/bin/true"], PATH)
    pid = gone.pid
    assert gone.wait(60) == 0
    with _spawn.spawn(["/bin/sleep", "60"], PATH) as stranger:
        assert not execfifo.is_held(fifo, stranger.pid)
        assert not execfifo.let_go(fifo, runtime, stranger)
        stranger.send_signal(9)
        stranger.wait(60)
    assert not execfifo.is_held(fifo, pid)
    assert not execfifo.let_go(fifo, runtime, gone)
    assert not execfifo.let_go(str(tmp_path / "missing"), runtime, gone)
    with pytest.raises(FileNotFoundError):
        execfifo.is_held(str(tmp_path / "missing"), pid)
    gone.close()


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_a_link_is_not_followed(runtime: str, fifo: str, tmp_path: Path, reader: Held) -> None:
    link = tmp_path / "link"
    link.symlink_to(fifo)
    assert not execfifo.let_go(str(link), runtime, reader.at(fifo))
