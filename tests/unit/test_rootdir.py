# SPDX-License-Identifier: Apache-2.0
"""What may be read inside a hostile tree: nothing outside it, nothing but regular files."""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from libpod import rootdir
from libpod.errors import Closed, InvalidArgument, SystemCallError, UsedAfterFork
from libpod.rootdir import RootDir

LIMIT = 1 << 16
UP = "../" * 30


@pytest.fixture(autouse=True, params=[True, False], ids=["openat2", "walk"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(rootdir, "openat2", request.param)
    return bool(request.param)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A root with etc/file ("inside") beside a directory with file ("outside")."""
    made = tmp_path / "root"
    (made / "etc").mkdir(parents=True)
    (made / "etc/file").write_text("inside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("outside")
    (tmp_path / "outside/secret").write_text("outside")
    return made


@pytest.fixture
def root(tree: Path) -> Iterator[RootDir]:
    with RootDir(str(tree)) as opened:
        yield opened


def read(root: RootDir, path: str) -> str:
    return root.read_file(path, LIMIT).decode()


def errno_of(root: RootDir, path: str) -> int | None:
    with pytest.raises(SystemCallError) as raised:
        os.close(root.open_path(path))
    return raised.value.errno


@pytest.mark.parametrize(
    "path",
    [
        "etc/file",
        "/etc/file",
        "//etc//./file",
        "../../etc/file",
        "etc/../../etc/file",
        "/../etc/file",
    ],
)
def test_paths(root: RootDir, path: str) -> None:
    assert read(root, path) == "inside"


@pytest.mark.parametrize(
    "target, expected",
    [
        ("file", "inside"),
        ("/etc/file", "inside"),
        ("../etc/file", "inside"),
        (f"{UP}etc/file", "inside"),
        ("/etc/../../etc/./file", "inside"),
        ("/{outside}/secret", errno.ENOENT),
        (f"{UP}{{outside}}/secret", errno.ENOENT),
        ("../../outside/secret", errno.ENOENT),
        ("file/", errno.ENOTDIR),
        ("file/.", errno.ENOTDIR),
        ("file/..", errno.ENOTDIR),
        ("link", errno.ELOOP),
        ("missing", errno.ENOENT),
    ],
)
def test_links(root: RootDir, tree: Path, target: str, expected: str | int) -> None:
    (tree / "etc/link").symlink_to(target.format(outside=f"{tree.parent}/outside".lstrip("/")))
    if isinstance(expected, str):
        assert read(root, "etc/link") == expected
    else:
        assert errno_of(root, "etc/link") == expected


def test_a_directory_that_is_a_link_out(root: RootDir, tree: Path) -> None:
    (tree / "abs").symlink_to(tree.parent / "outside")
    (tree / "up").symlink_to("../outside")
    for path in ("abs/file", "up/secret", "abs/../outside/file", "up/"):
        assert errno_of(root, path) == errno.ENOENT, path


def test_many_links(root: RootDir, tree: Path) -> None:
    """40 are followed, as by the kernel; and each may branch into the next twice."""
    (tree / "l0").symlink_to("etc/file")
    for number in range(1, 41):
        (tree / f"l{number}").symlink_to(f"l{number - 1}")
    assert read(root, "l39") == "inside"
    assert errno_of(root, "l40") == errno.ELOOP
    (tree / "d0").symlink_to(".")
    for number in range(1, 30):
        (tree / f"d{number}").symlink_to(f"d{number - 1}/d{number - 1}")
    assert errno_of(root, "d29/etc/file") == errno.ELOOP


def test_links_of_proc(tree: Path) -> None:
    """A tree with a real /proc in it does not lead to what its links stand for."""
    with RootDir("/") as host:
        own = f"proc/{os.getpid()}"
        descriptor = os.open(tree / "etc/file", os.O_RDONLY)
        try:
            with pytest.raises((SystemCallError, InvalidArgument)):
                host.read_file(f"{own}/root/{tree}/nosuch", LIMIT)
            if rootdir.openat2:
                assert errno_of(host, f"{own}/fd/{descriptor}") == errno.ELOOP
        finally:
            os.close(descriptor)


def test_not_followed_at_the_end(root: RootDir, tree: Path) -> None:
    (tree / "link").symlink_to("etc")
    (tree / "broken").symlink_to("nowhere")
    for path, kind in (
        ("link", stat.S_ISLNK),
        ("broken", stat.S_ISLNK),
        ("link/", stat.S_ISDIR),
        ("link/file", stat.S_ISREG),
        ("etc", stat.S_ISDIR),
    ):
        descriptor = root.open_path(path, follow=False)
        try:
            assert kind(os.fstat(descriptor).st_mode), path
        finally:
            os.close(descriptor)


def test_errors(root: RootDir) -> None:
    assert errno_of(root, "nosuch/deep") == errno.ENOENT
    assert errno_of(root, "etc/file/deep") == errno.ENOTDIR
    assert errno_of(root, "etc/file/") == errno.ENOTDIR
    assert errno_of(root, "x" * 300) == errno.ENAMETOOLONG
    with pytest.raises(InvalidArgument, match="contains a NUL"):
        root.open_path("etc\0file")
    with pytest.raises(SystemCallError, match="cannot open .*root/nosuch: No such file"):
        root.open_file("/nosuch")


def test_the_root_itself(root: RootDir, tree: Path) -> None:
    for path in ("", "/", ".", "..", "/../..", "etc/.."):
        descriptor = root.open_directory(path)
        try:
            assert os.path.samestat(os.fstat(descriptor), os.stat(tree))
            assert os.listdir(descriptor) == ["etc"]
            assert not os.get_inheritable(descriptor)
        finally:
            os.close(descriptor)


@pytest.mark.timeout(5)
@pytest.mark.parametrize("kind", ["fifo", "socket", "directory", "device"])
def test_nothing_but_regular_files_is_opened(root: RootDir, tree: Path, kind: str) -> None:
    place = tree / "etc/odd"
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "directory":
        place.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(place))
    elif os.geteuid() == 0:
        os.mknod(place, 0o600 | stat.S_IFCHR, os.makedev(10, 130))  # a watchdog, if any
    else:
        place = Path("/dev/zero")
    with RootDir(str(place.parent)) as parent:
        with pytest.raises(InvalidArgument, match=f"{place.name} is not a regular file"):
            parent.read_file(place.name, LIMIT)
        if kind != "directory":
            with pytest.raises(InvalidArgument, match="is not a directory"):
                parent.open_directory(place.name)


def test_a_fifo_put_in_place_is_not_opened(
    root: RootDir, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was looked at is read, whatever its name leads to by then."""
    look = os.fstat
    file = tree / "etc/file"

    def swap(descriptor: int) -> os.stat_result:
        status = look(descriptor)
        if stat.S_ISREG(status.st_mode) and stat.S_ISREG(os.lstat(file).st_mode):
            file.unlink()
            os.mkfifo(file)
        return status

    monkeypatch.setattr(os, "fstat", swap)
    assert read(root, "etc/file") == "inside"
    assert stat.S_ISFIFO(os.lstat(file).st_mode)
    with pytest.raises(InvalidArgument, match="not a regular file"):
        read(root, "etc/file")


def test_limit(root: RootDir, tree: Path) -> None:
    file = tree / "etc/file"
    file.write_bytes(b"x" * LIMIT)
    assert len(read(root, "etc/file")) == LIMIT
    with open(file, "ab") as grown:
        grown.write(b"x")
    with pytest.raises(InvalidArgument, match=f"etc/file is larger than {LIMIT} bytes"):
        read(root, "etc/file")
    os.truncate(file, 1 << 40)
    with pytest.raises(InvalidArgument, match="etc/file is larger than 16 MiB"):
        root.read_file("etc/file", 16 << 20)


def test_a_file_that_grows_while_it_is_read(
    root: RootDir, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.read

    def slow(descriptor: int, most: int) -> bytes:
        with open(tree / "etc/file", "ab") as file:
            file.write(b"x" * 1000)
        return real(descriptor, min(most, 100))

    monkeypatch.setattr(os, "read", slow)
    with pytest.raises(InvalidArgument, match="larger than 500 bytes"):
        root.read_file("etc/file", 500)


def test_renames_meanwhile(root: RootDir, tree: Path) -> None:
    """A directory swapped for a link out, again and again: never what is outside."""
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/b/file").write_text("inside")
    (tree / "evil").symlink_to(tree.parent / "outside")
    (tree / "further").symlink_to("../outside")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(tree / "a/b", tree / "a/held")
            os.rename(tree / "evil", tree / "a/b")
            os.rename(tree / "a/b", tree / "evil")
            os.rename(tree / "a/held", tree.parent / "moved")  # out of the root
            os.rename(tree.parent / "moved", tree / "a/b")

    worker = threading.Thread(target=swap)
    worker.start()
    seen = {"inside": 0, "missing": 0}
    rounds = 0
    deadline = time.monotonic() + 60
    try:
        while rounds < 1500 or not all(seen.values()):  # the threads may run in turn for long
            rounds += 1
            assert time.monotonic() < deadline
            try:
                for path in ("a/b/file", "a/b/../../a/b/file", "a/b/../../outside/file"):
                    assert read(root, path) == "inside"
                    seen["inside"] += 1
            except SystemCallError as error:
                assert error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
                seen["missing"] += 1
    finally:
        stop.set()
        worker.join()


def test_a_kernel_without_openat2(root: RootDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where renames on the host keep it from an answer."""
    for number in (errno.ENOSYS, errno.EPERM, errno.EAGAIN):

        class Library:
            @staticmethod
            def lp_inroot_open(*arguments: object) -> int:
                arguments[-1].sys_errno = number  # type: ignore[attr-defined]  # noqa: B023
                return -1

        monkeypatch.setattr(rootdir, "lib", Library)
        assert read(root, "etc/file") == "inside"


def test_closed(tree: Path) -> None:
    root = RootDir(str(tree))
    root.close()
    root.close()
    assert "closed" in repr(root)
    for use in (root.fileno, root.__enter__, lambda: root.open_path("etc")):
        with pytest.raises(Closed):
            use()


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_never_made() -> None:
    """An interrupt came before the first line of its making."""
    unmade = RootDir.__new__(RootDir)
    del unmade


def test_after_fork(root: RootDir) -> None:
    child = os.fork()
    if child == 0:
        try:
            root.read_file("etc/file", LIMIT)
        except UsedAfterFork:
            root.close()
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert read(root, "etc/file") == "inside"


def test_no_such_root(tmp_path: Path) -> None:
    with pytest.raises(SystemCallError, match="the root file system .*nosuch") as raised:
        RootDir(str(tmp_path / "nosuch"))
    assert raised.value.errno == errno.ENOENT
    (tmp_path / "file").touch()
    with pytest.raises(SystemCallError) as raised:
        RootDir(str(tmp_path / "file"))
    assert raised.value.errno == errno.ENOTDIR
