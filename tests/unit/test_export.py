# SPDX-License-Identifier: Apache-2.0
"""Archives of hostile trees, read back by GNU tar and Python's own."""

from __future__ import annotations

import errno
import io
import logging
import os
import shutil
import socket
import stat
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from libpod import export as exporting
from libpod import rootdir
from libpod.errors import SystemCallError
from libpod.export import export
from libpod.rootdir import RootDir

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes devices and gives files away")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    made.mkdir()
    return made


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.tar"


def members(archive: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(archive, mode="r:", errors="surrogateescape") as tar:
        return {member.name: member for member in tar}


def content(archive: Path, name: str) -> bytes:
    with tarfile.open(archive, "r:") as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


def fill(tree: Path) -> None:
    """Something of everything that needs no root."""
    (tree / "bin").mkdir()
    (tree / "bin/sh").write_bytes(os.urandom(3000))
    (tree / "bin/sh").chmod(0o6755)
    os.link(tree / "bin/sh", tree / "bin/hard")
    (tree / "bin/link").symlink_to("/etc/../outside")
    os.link(tree / "bin/link", tree / "link2", follow_symlinks=False)
    os.mkfifo(tree / "fifo", 0o640)
    (tree / "empty").touch()
    (tree / "block").write_bytes(b"x" * 512)
    deep = tree / "ü" / ("d" * 120) / ("e" * 200)
    deep.mkdir(parents=True)
    (deep / "file").write_text("deep")
    (tree / ("f" * 100)).write_text("100")
    (tree / ("g" * 99)).mkdir()
    (tree / ("h" * 100)).mkdir()
    (tree / "to").symlink_to("t" * 300)
    (tree / "line\nbreak").touch()
    os.close(os.open(os.fsencode(tree) + b"/n\xe9", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC))
    os.utime(tree / "empty", ns=(0, 1_600_000_000_999_999_999))
    os.utime(tree / "block", (-5.5, -5.5))
    os.setxattr(tree / "bin", "user.odd", b"\0\xff\n=\n")
    (tree / "sticky").mkdir()
    (tree / "sticky").chmod(0o1777)


def described(tree: Path, times: bool = True) -> dict[str, tuple[object, ...]]:
    """What must be the same after a round trip, by path."""
    found: dict[str, tuple[object, ...]] = {}
    for directory, names, files in os.walk(tree):
        for name in names + files:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            if stat.S_ISSOCK(status.st_mode):
                continue
            extra: tuple[object, ...] = ()
            if stat.S_ISREG(status.st_mode):
                extra = (Path(path).read_bytes(), status.st_nlink)
            elif stat.S_ISLNK(status.st_mode):
                extra = (os.readlink(path), status.st_nlink)
            xattrs = {
                name: os.getxattr(path, name, follow_symlinks=False)
                for name in os.listxattr(path, follow_symlinks=False)
            }
            found[os.path.relpath(path, tree)] = (
                status.st_mode,
                status.st_uid,
                status.st_gid,
                status.st_rdev,
                status.st_mtime_ns // 10**9,
                xattrs,
                *extra,
            )
    return found


def unpack(archive: Path, place: Path) -> None:
    place.mkdir()
    words = ["tar", "-C", str(place), "--xattrs", "--xattrs-include=*", "--numeric-owner"]
    done = subprocess.run(
        [*words, "-xpf", str(archive)], capture_output=True, text=True, check=False
    )
    # Its one remark may be on the time before 1970.
    assert done.returncode == 0 and "implausibly" in (done.stderr or "implausibly"), done.stderr


@pytest.mark.parametrize("openat2", [True, False])
def test_round_trip_with_gnu_tar(
    tree: Path, out: Path, tmp_path: Path, openat2: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rootdir, "openat2", openat2)
    fill(tree)
    export(str(tree), str(out))
    unpack(out, tmp_path / "back")
    assert described(tmp_path / "back") == described(tree)


@as_root
def test_round_trip_of_what_takes_root(tree: Path, out: Path, tmp_path: Path) -> None:
    os.mknod(tree / "null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(tree / "blk", 0o660 | stat.S_IFBLK, os.makedev(4095, 1048575))
    os.link(tree / "null", tree / "null2")
    (tree / "big").write_text("x")
    os.chown(tree / "big", 3_000_000_000, 4_000_000)
    (tree / "cap").touch()
    os.setxattr(tree / "cap", "security.capability", CAPABILITY)
    os.setxattr(tree / "cap", "trusted.not", b"x")  # podman leaves it out
    (tree / "link").symlink_to("cap")
    export(str(tree), str(out))
    unpack(out, tmp_path / "back")
    os.removexattr(tree / "cap", "trusted.not")
    assert described(tmp_path / "back") == described(tree)
    found = members(out)
    assert not found["link"].pax_headers
    assert found["null2"].islnk() and found["null2"].linkname == "null"


def test_order_and_names(tree: Path, out: Path) -> None:
    """podman's: by bytes within a directory, what is in it right after it."""
    for name in ("b", "b/2", "b/1", "a.c", "a", "a/x"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    (tree / "B").touch()
    export(str(tree), str(out))
    assert list(members(out)) == ["B", "a", "a/x", "a.c", "b", "b/1", "b/2"]
    assert out.read_bytes()[-1024:] == bytes(1024)
    assert out.stat().st_size % 512 == 0


def test_an_empty_tree(tree: Path, out: Path) -> None:
    export(str(tree), str(out))
    assert out.read_bytes() == bytes(1024)


@pytest.mark.timeout(10)
def test_sockets_are_left_out(tree: Path, out: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tree / "sock"))
    os.mkfifo(tree / "fifo")
    with caplog.at_level(logging.DEBUG, "libpod.export"):
        export(str(tree), str(out))
    assert list(members(out)) == ["fifo"]
    assert "sock is a socket: left out" in caplog.text


def test_nothing_outside_is_read(tree: Path, out: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    (tree / "dir").symlink_to(tmp_path / "outside")
    (tree / "up").symlink_to("../outside")
    (tree / "file").symlink_to("../outside/secret")
    export(str(tree), str(out))
    assert {name: member.issym() for name, member in members(out).items()} == {
        "dir": True,
        "up": True,
        "file": True,
    }
    assert b"secret\0" not in out.read_bytes().replace(b"outside/secret", b"")


def test_a_directory_swapped_for_a_link(
    tree: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/inner").write_text("secret")
    (tree / "dir").mkdir()
    (tree / "dir/inner").write_text("public")
    hold = RootDir.hold

    def swap(self: RootDir, path: bytes) -> int:
        if path == b"dir/inner":
            os.rename(tree / "dir", tree / "moved")
            (tree / "dir").symlink_to("../outside")
        return hold(self, path)

    monkeypatch.setattr(RootDir, "hold", swap)
    export(str(tree), str(out))
    assert list(members(out)) == ["dir"]
    assert b"secret" not in out.read_bytes()


@pytest.mark.timeout(10)
def test_a_file_swapped_for_a_fifo(tree: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was looked at is archived."""
    (tree / "file").write_text("text")
    reopen = exporting.reopen

    def swap(held: int, flags: int = 0) -> int:
        if not flags:
            (tree / "file").unlink()
            os.mkfifo(tree / "file")
        return reopen(held, flags)

    monkeypatch.setattr(exporting, "reopen", swap)
    export(str(tree), str(out))
    assert content(out, "file") == b"text"


def at_first_read(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    real = os.read
    actions = [action]

    def read(descriptor: int, most: int) -> bytes:
        if actions:
            actions.pop()()
        return real(descriptor, most)

    monkeypatch.setattr(os, "read", read)


def test_a_file_that_shrinks(
    tree: Path, out: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tree / "file").write_bytes(b"x" * 5_000_000)
    (tree / "later").write_text("later")
    at_first_read(monkeypatch, lambda: os.truncate(tree / "file", 700))
    export(str(tree), str(out))
    assert content(out, "file") == b"x" * 700 + bytes(5_000_000 - 700)
    assert content(out, "later") == b"later"
    assert "shrank by 4999300 bytes" in caplog.text


def test_a_file_that_grows(
    tree: Path, out: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tree / "file").write_bytes(b"x" * 700)
    (tree / "later").write_text("later")
    at_first_read(monkeypatch, lambda: os.truncate(tree / "file", 5_000_000))
    export(str(tree), str(out))
    assert content(out, "file") == b"x" * 700
    assert content(out, "later") == b"later"
    assert "grew while it was read: cut after 700 bytes" in caplog.text


def test_what_vanishes_is_left_out(
    tree: Path, out: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b", "c"):
        (tree / name).write_text(name)
    at_first_read(monkeypatch, (tree / "b").unlink)
    with caplog.at_level(logging.DEBUG, "libpod.export"):
        export(str(tree), str(out))
    assert list(members(out)) == ["a", "c"]
    assert "b vanished" in caplog.text


def test_a_tree_deeper_than_paths(tree: Path, out: Path) -> None:
    here = os.open(tree, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for _ in range(30):
            os.mkdir("d" * 200, dir_fd=here)
            below = os.open("d" * 200, os.O_RDONLY | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = below
    finally:
        os.close(here)
    with pytest.raises(SystemCallError, match="cannot open") as raised:
        export(str(tree), str(out))
    assert raised.value.errno == errno.ENAMETOOLONG
    assert not out.exists()
    shutil.rmtree(tree)


def test_an_attribute_that_tar_cannot_name(
    tree: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tree / "file").touch()
    os.setxattr(tree / "file", "user.a=b", b"x")
    os.setxattr(tree / "file", "user.c", b"")
    export(str(tree), str(out))
    assert members(out)["file"].pax_headers == {"SCHILY.xattr.user.c": ""}
    assert "'user.a=b' cannot be archived" in caplog.text


@pytest.mark.parametrize("length", [1, 80, 85, 86, 87, 88, 89, 90, 980, 984, 985, 986, 990])
def test_lengths_of_pax_records(length: int) -> None:
    record = exporting._pax_record(b"path", b"x" * length)
    assert int(record.split(b" ")[0]) == len(record)


def test_large_numbers(tree: Path, out: Path) -> None:
    with open(tree / "sparse", "wb") as file:
        file.truncate(1)
    status = os.stat(tree / "sparse")
    header = exporting._header(exporting._Entry(b"sparse", b"0", status, size=1 << 40))
    with tarfile.open(fileobj=io.BytesIO(header), mode="r:") as tar:
        member = tar.next()
    assert member is not None
    assert (member.name, member.size) == ("sparse", 1 << 40)


# --- where it goes -----------------------------------------------------------------


class Short(io.RawIOBase):
    """A raw file that takes little at a time."""

    def __init__(self) -> None:
        self.data = b""

    def writable(self) -> bool:
        return True

    def write(self, data: memoryview) -> int:  # type: ignore[override]
        part = bytes(data[:100])
        self.data += part
        return len(part)


def test_open_files(tree: Path, out: Path) -> None:
    fill(tree)
    export(str(tree), str(out))
    buffered = io.BytesIO()
    with RootDir(str(tree)) as root:
        export(root, buffered)
        root.fileno()  # still open
    assert buffered.getvalue() == out.read_bytes()
    short = Short()
    export(str(tree), short)  # type: ignore[arg-type]
    assert short.data == out.read_bytes()


def test_an_old_archive_is_overwritten(tree: Path, out: Path) -> None:
    out.write_bytes(b"x" * 100_000)
    export(str(tree), str(out))
    assert out.read_bytes() == bytes(1024)


def test_a_full_disk(tree: Path, tmp_path: Path) -> None:
    (tree / "file").write_bytes(b"x" * 3_000_000)
    with pytest.raises(SystemCallError, match="cannot write '/dev/full'") as raised:
        export(str(tree), "/dev/full")
    assert raised.value.errno == errno.ENOSPC
    assert os.path.exists("/dev/full")
    with pytest.raises(SystemCallError, match="cannot write") as raised:
        export(str(tree), str(tmp_path / "nosuch/out.tar"))
    assert raised.value.errno == errno.ENOENT


def test_a_failure_leaves_no_archive(
    tree: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "file").write_text("x")

    def fail() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    at_first_read(monkeypatch, fail)
    with pytest.raises(SystemCallError, match="cannot read .*root/file.*Input/output error"):
        export(str(tree), str(out))
    assert not out.exists()


def test_memory_is_bounded(tree: Path) -> None:
    with open(tree / "large", "wb") as file:
        file.truncate(100 << 20)
    for number in range(500):
        (tree / f"file{number}").touch()

    class Nowhere:
        written = 0

        def write(self, data: memoryview) -> int:
            self.written += len(data)
            return len(data)

    export(str(tree), Nowhere())  # type: ignore[arg-type]  # what it imports is not counted
    tracemalloc.start()
    try:
        sink = Nowhere()
        export(str(tree), sink)  # type: ignore[arg-type]
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
        assert sink.written > 100 << 20
    finally:
        tracemalloc.stop()
