# SPDX-License-Identifier: Apache-2.0
"""Users of a foreign root file system: podman's rules, and that nothing leads out of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from libpod import rootdir, users
from libpod.errors import InvalidArgument, SystemCallError
from libpod.rootdir import RootDir
from libpod.users import User, groups, lookup

PASSWD = """\
root:x:0:0:root:/root:/bin/sh

broken
badid:x:zero:0::/:
badgid:x:7:::/:
app:x:1000:1001:App:/home/app:/bin/sh
nohome:x:5:5
nul:x:6:6::/a\0b:
2000:x:3000:3000::/n:
"""
GROUP = """\
root:x:0:
app:x:1001:
staff:x:50:root,app
extra:x:60:app
twice:x:1001:app
bad:x:ten:app
empty:x:70
"""


@pytest.fixture(autouse=True, params=[True, False], ids=["openat2", "walk"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rootdir, "openat2", request.param)


@pytest.fixture
def root(tmp_path: Path) -> str:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    return str(tmp_path)


@pytest.fixture(autouse=True)
def no_descriptor_left() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    "user, expected",
    [
        (None, User(0, 0, (50,), "/root")),
        ("root", User(0, 0, (0, 50), "/root")),
        ("0", User(0, 0, (0, 50), "/root")),
        ("app", User(1000, 1001, (1001, 50, 60), "/home/app")),
        ("1000", User(1000, 1001, (1001, 50, 60), "/home/app")),
        ("app:staff", User(1000, 50, (50,), "/home/app")),
        ("app:50", User(1000, 50, (50,), "/home/app")),
        ("app:77", User(1000, 77, (77,), "/home/app")),
        ("app:", User(1000, 1001, (1001, 50, 60), "/home/app")),
        (":staff", User(0, 50, (50,), "/root")),
        ("1234", User(1234, 0, (0,), "/")),
        ("1234:1234", User(1234, 1234, (1234,), "/")),
        ("nohome", User(5, 5, (5,), "/")),
        ("2000", User(3000, 3000, (3000,), "/n")),
        ("2147483647", User(2147483647, 0, (0,), "/")),
    ],
)
def test_podmans_rules(root: str, user: str | None, expected: User) -> None:
    assert lookup(root, user) == expected


@pytest.mark.parametrize(
    "user, message",
    [
        ("nosuch", "unable to find user nosuch: no matching entries in passwd file"),
        ("broken", "unable to find user broken"),
        ("badid", "unable to find user badid"),  # must not be root
        ("nul", "unable to find user nul"),
        ("badgid", "unable to find user badgid"),
        ("-1", "unable to find user -1"),
        ("app:nosuch", "unable to find group nosuch: no matching entries in group file"),
        ("app:bad", "unable to find group bad"),
        ("2147483648", "user and group IDs are 0 to 2147483647"),
        ("0:2147483648", "user and group IDs are 0 to 2147483647"),
        ("9" * 5000, "user and group IDs are 0 to 2147483647"),
    ],
)
def test_unknown_users(root: str, user: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        lookup(root, user)


def test_groups(root: str) -> None:
    assert groups(root, ["staff", "60", "77", "app", "staff", "50"]) == (50, 60, 77, 1001)
    assert groups(root, []) == ()
    with pytest.raises(InvalidArgument, match="unable to find group nosuch"):
        groups(root, ["staff", "nosuch"])
    with pytest.raises(InvalidArgument, match="user and group IDs are 0 to 2147483647"):
        groups(root, ["2147483648"])


def test_an_open_root_is_used_and_left_open(root: str) -> None:
    with RootDir(root) as inside:
        os.rename(root, f"{root}.moved")
        assert lookup(inside, "app").uid == 1000
        assert groups(inside, iter(["staff"])) == (50,)
        os.rename(f"{root}.moved", root)
        inside.fileno()
    with pytest.raises(SystemCallError, match="the root file system .*nosuch"):
        lookup(f"{root}/nosuch", "0")


def test_without_files(tmp_path: Path) -> None:
    assert lookup(str(tmp_path), None) == User(0, 0, (), "/")
    assert lookup(str(tmp_path), "5:6") == User(5, 6, (6,), "/")
    (tmp_path / "etc").write_text("not a directory")
    assert lookup(str(tmp_path), "5") == User(5, 0, (0,), "/")


def test_text_that_is_not_utf8(root: str) -> None:
    Path(root, "etc/passwd").write_bytes(b"caf\xe9:x:9:9::/h\xe9:\napp:x:8:8::/app:\n")
    assert lookup(root, "app").uid == 8
    assert lookup(root, "9").home.encode() == "/h\ufffd".encode()


# --- what a hostile root file system may hold -----------------------------------


@pytest.fixture
def trap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A passwd file outside the root, which must never be read."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "passwd").write_text("app:x:666:666::/trapped:\n")
    return outside


def test_links_resolve_inside(root: str, trap: Path) -> None:
    passwd = Path(root, "etc/passwd")
    inner = Path(root, "usr/lib/deep")
    inner.mkdir(parents=True)
    passwd.rename(inner / "passwd")
    for target in (
        "/usr/lib/deep/passwd",
        "../usr/lib/deep/passwd",
        "../../../../../usr/./lib//deep/passwd",
        "/usr/lib/link/../deep/passwd",
        "/chain",
    ):
        passwd.unlink(missing_ok=True)
        passwd.symlink_to(target)
        if "link" in target:
            Path(root, "usr/lib/link").symlink_to("/usr/lib/deep")
        if target == "/chain":
            Path(root, "chain").symlink_to("usr/lib/link/passwd")
        assert lookup(root, "app").uid == 1000, target


def test_links_do_not_lead_out(root: str, trap: Path) -> None:
    passwd = Path(root, "etc/passwd")
    up = "../" * 20
    for target in (f"{trap}/passwd", f"{up}{trap}/passwd".replace("//", "/")):
        passwd.unlink()
        passwd.symlink_to(target)
        with pytest.raises(InvalidArgument, match="unable to find user app"):
            lookup(root, "app")
    passwd.unlink()
    Path(root, "etc/group").unlink()
    Path(root, "etc").rmdir()
    Path(root, "etc").symlink_to(trap)
    with pytest.raises(InvalidArgument, match="unable to find user app"):
        lookup(root, "app")


def test_a_loop_of_links_ends(root: str) -> None:
    passwd = Path(root, "etc/passwd")
    passwd.unlink()
    passwd.symlink_to("passwd")
    with pytest.raises(OSError, match=r"etc/passwd: Too many levels of symbolic links"):
        lookup(root, "app")


@pytest.mark.timeout(5)
def test_only_regular_files_are_opened(root: str) -> None:
    passwd = Path(root, "etc/passwd")
    passwd.unlink()
    os.mkfifo(passwd)
    with pytest.raises(InvalidArgument, match="etc/passwd is not a regular file"):
        lookup(root, "app")
    passwd.unlink()
    passwd.mkdir()
    with pytest.raises(InvalidArgument, match="not a regular file"):
        lookup(root, "app")
    passwd.rmdir()
    passwd.symlink_to("/")
    with pytest.raises(InvalidArgument, match="not a regular file"):
        lookup(root, "app")


def test_a_huge_file_is_refused(root: str) -> None:
    with open(f"{root}/etc/passwd", "r+b") as file:
        file.truncate(users.MAX_FILE + 1)
    with pytest.raises(InvalidArgument, match="larger than 16 MiB"):
        lookup(root, "app")
