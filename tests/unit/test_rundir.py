# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from libpod.errors import LibpodError, RuntimeDirError, SystemCallError
from libpod.rundir import make_dir, make_private_dir, make_tree, rootless_runtime_dir

ROOT = os.geteuid() == 0
FOREIGN = 12345
UID = 3_999_999_999  # nobody's: /run/user/UID is ours to make and remove
RUN_USER = f"/run/user/{UID}"
as_root = pytest.mark.skipif(not ROOT, reason="gives files to another user")


def mode(path: str) -> int:
    return os.lstat(path).st_mode & 0o7777


@pytest.fixture
def room(tmp_path: Any) -> str:
    os.chmod(tmp_path, 0o700)
    return str(tmp_path)


@pytest.fixture
def make(room: str) -> Callable[..., str]:
    """Makes a directory of this mode (and owner) in the room."""

    def make(name: str, mode: int = 0o700, owner: int = -1) -> str:
        path = os.path.join(room, name)
        os.makedirs(path)
        os.chmod(path, mode)
        os.chown(path, owner, -1)
        return path

    return make


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    had_run_user = os.path.isdir("/run/user")
    yield
    assert len(os.listdir("/proc/self/fd")) == before
    if os.path.isdir(RUN_USER):
        os.rmdir(RUN_USER)
    if not had_run_user and os.path.isdir("/run/user"):
        os.rmdir("/run/user")


@pytest.fixture
def no_run_user() -> None:
    """/run/user/UID is unfit: for others to read as root, else not ours to make."""
    if ROOT:
        os.makedirs(RUN_USER)
        os.chmod(RUN_USER, 0o755)


# --- XDG_RUNTIME_DIR --------------------------------------------------------------


def test_xdg_comes_first(make: Any, room: str) -> None:
    xdg = make("xdg")
    environ = {"XDG_RUNTIME_DIR": xdg, "HOME": room, "TMPDIR": room}
    assert rootless_runtime_dir(environ, UID) == xdg
    assert os.listdir(room) == ["xdg"]
    assert not os.path.exists(RUN_USER)


def refused_xdg(path: str, room: str) -> str:
    """The error for this XDG_RUNTIME_DIR, though HOME would do."""
    with pytest.raises(RuntimeDirError) as caught:
        rootless_runtime_dir({"XDG_RUNTIME_DIR": path, "HOME": room, "TMPDIR": room}, UID)
    assert f"XDG_RUNTIME_DIR={path}" in str(caught.value)
    assert caught.value.remedy and isinstance(caught.value, OSError)
    return str(caught.value)


def test_xdg_is_never_passed_over(make: Any, room: str) -> None:
    with open(room + "/file", "w"):
        pass
    assert "Not a directory" in refused_xdg(room + "/file", room)
    assert "No such file" in refused_xdg(room + "/missing", room)
    assert "absolute" in refused_xdg("relative", room)
    assert "writable by others (mode 0770)" in refused_xdg(make("group", 0o770), room)
    assert "writable by others (mode 0702)" in refused_xdg(make("world", 0o702), room)
    assert "writable by others" in refused_xdg(make("sticky", 0o1777), room)


@as_root
def test_xdg_of_somebody_else(make: Any, room: str) -> None:
    assert f"uid {FOREIGN}" in refused_xdg(make("theirs", 0o700, FOREIGN), room)


def test_xdg_of_root(room: str) -> None:
    if ROOT:
        assert rootless_runtime_dir({"XDG_RUNTIME_DIR": "/usr"}, UID) == "/usr"
    else:
        assert "uid 0" in refused_xdg("/usr", room)


def test_xdg_open_to_readers(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    xdg = make("xdg", 0o755)
    with caplog.at_level(logging.WARNING, "libpod.rundir"):
        assert rootless_runtime_dir({"XDG_RUNTIME_DIR": xdg}, UID) == xdg
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert xdg in record.getMessage() and "0755" in record.getMessage()
    caplog.clear()
    os.chmod(xdg, 0o700)
    rootless_runtime_dir({"XDG_RUNTIME_DIR": xdg}, UID)
    assert not caplog.records


def test_xdg_below_a_directory_that_others_can_write(make: Any, room: str) -> None:
    wide = make("wide", 0o777)
    make("wide/xdg")
    assert f"{wide} is writable by others" in refused_xdg(wide + "/xdg", room)
    os.chmod(wide, 0o1777)
    assert rootless_runtime_dir({"XDG_RUNTIME_DIR": wide + "/xdg"}, UID) == wide + "/xdg"


@as_root
def test_xdg_below_a_directory_of_somebody_else(make: Any, room: str) -> None:
    theirs = make("theirs")
    make("theirs/xdg")
    os.chown(theirs, FOREIGN, -1)
    assert f"{theirs} belongs to uid {FOREIGN}" in refused_xdg(theirs + "/xdg", room)


def test_links(make: Any, room: str) -> None:
    xdg = make("real/xdg")
    link = room + "/link"
    os.symlink("real", link)
    if ROOT:
        environ = {"XDG_RUNTIME_DIR": link + "/xdg"}
        assert rootless_runtime_dir(environ, UID) == link + "/xdg"
        os.lchown(link, FOREIGN, -1)
    assert "is a link of uid" in refused_xdg(link + "/xdg", room)
    assert rootless_runtime_dir({"XDG_RUNTIME_DIR": xdg}, UID) == xdg


# --- the other candidates -----------------------------------------------------------


@as_root
def test_run_user_is_made_and_taken(room: str) -> None:
    for _ in range(2):
        assert rootless_runtime_dir({"HOME": room, "TMPDIR": room}, UID) == RUN_USER
        assert mode(RUN_USER) == 0o700
    assert os.listdir(room) == []


def test_an_empty_xdg_is_none(room: str) -> None:
    found = rootless_runtime_dir({"XDG_RUNTIME_DIR": "", "TMPDIR": room, "HOME": room}, UID)
    assert found == (RUN_USER if ROOT else f"{room}/user/{UID}")


def test_tmpdir_follows(no_run_user: None, room: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "libpod.rundir"):
        found = rootless_runtime_dir({"TMPDIR": room, "HOME": "/nonexistent"}, UID)
    assert found == f"{room}/user/{UID}"
    assert mode(found) == 0o700 and mode(room + "/user") == 0o700
    assert RUN_USER in caplog.text  # not passed over in silence


def test_tmpdir_is_tmp_by_default(no_run_user: None, room: str) -> None:
    ours = not os.path.lexists("/tmp/user")
    found = rootless_runtime_dir({"HOME": room}, UID)
    if found == f"/tmp/user/{UID}":
        os.rmdir(found)
    else:  # somebody was there before us
        assert not ours and found == room + "/rundir"
    if ours:
        os.rmdir("/tmp/user")


@pytest.mark.parametrize("how", ["wide", "narrow", "file", "relative", "writable parent"])
def test_home_follows(how: str, no_run_user: None, make: Any, room: str) -> None:
    home, temporary = make("home"), make("tmp")
    if how == "relative":
        temporary = "tmp"
    elif how == "file":
        with open(temporary + "/user", "w"):
            pass
    elif how == "writable parent":
        os.chmod(temporary, 0o777)
    else:
        make(f"tmp/user/{UID}", 0o750 if how == "wide" else 0o500)
    found = rootless_runtime_dir({"TMPDIR": temporary, "HOME": home}, UID)
    assert found == home + "/rundir"
    assert mode(found) == 0o700


@as_root
def test_home_follows_where_tmpdir_is_theirs(no_run_user: None, make: Any) -> None:
    home, temporary = make("home"), make("tmp")
    make(f"tmp/user/{UID}", 0o700, FOREIGN)
    environ = {"TMPDIR": temporary, "HOME": home}
    assert rootless_runtime_dir(environ, UID) == home + "/rundir"


def test_home_is_resolved(no_run_user: None, make: Any, room: str) -> None:
    home = make("home")
    os.symlink("home", room + "/link")
    if ROOT:
        os.lchown(room + "/link", FOREIGN, -1)  # whose link it is does not matter here
    environ = {"TMPDIR": "relative", "HOME": room + "/link"}
    assert rootless_runtime_dir(environ, UID) == home + "/rundir"


def test_home_errors_of_the_original(no_run_user: None, room: str) -> None:
    for environ in ({"TMPDIR": "x"}, {"TMPDIR": "x", "HOME": ""}):
        with pytest.raises(RuntimeDirError) as caught:
            rootless_runtime_dir(environ, UID)
        assert caught.value.message == "neither XDG_RUNTIME_DIR nor HOME was set non-empty"
    with pytest.raises(RuntimeDirError) as caught:
        rootless_runtime_dir({"TMPDIR": "x", "HOME": room + "/missing"}, UID)
    assert caught.value.message.startswith(f"cannot resolve {room}/missing")
    os.symlink("loop", room + "/loop")
    with pytest.raises(RuntimeDirError, match=f"cannot resolve {room}/loop"):
        rootless_runtime_dir({"TMPDIR": "x", "HOME": room + "/loop"}, UID)


def test_nothing_fits(no_run_user: None, make: Any) -> None:
    home = make("home")
    make("home/rundir", 0o755)
    with pytest.raises(RuntimeDirError) as caught:
        rootless_runtime_dir({"TMPDIR": "relative", "HOME": home}, UID)
    message = str(caught.value)
    for candidate in (RUN_USER, f"relative/user/{UID}", home + "/rundir has mode 0755"):
        assert candidate in message
    assert "XDG_RUNTIME_DIR" in message  # the remedy


# --- making ------------------------------------------------------------------------------


@pytest.fixture(params=[0o000, 0o022, 0o077])
def any_umask(request: pytest.FixtureRequest) -> Iterator[None]:
    old = os.umask(request.param)
    yield
    os.umask(old)


def test_tree(any_umask: None, room: str) -> None:
    tmp, static = room + "/run/libpod", room + "/lib/libpod"
    for _ in range(2):
        make_tree(tmp, static)
        assert {name: mode(f"{tmp}/{name}") for name in os.listdir(tmp)} == {
            "exits": 0o750,
            "socket": 0o750,
            "lock": 0o700,
        }
        assert mode(tmp) == 0o751 and mode(static) == 0o755


def test_tree_narrows_an_original_lock_directory(room: str) -> None:
    make_tree(room + "/tmp", room + "/static")
    os.chmod(room + "/tmp/lock", 0o755)
    make_tree(room + "/tmp", room + "/static")
    assert mode(room + "/tmp/lock") == 0o700


def test_make_dir_keeps_what_is_there(room: str, make: Any) -> None:
    there = make("there", 0o711)
    make_dir(there + "/a/b", 0o750)
    assert mode(there) == 0o711 and mode(there + "/a") == mode(there + "/a/b") == 0o750
    make_dir(there, 0o700)
    assert mode(there) == 0o711


def test_make_dir_refuses_what_others_can_write(make: Any) -> None:
    wide = make("wide", 0o777)
    for path in (wide, wide + "/new"):
        with pytest.raises(RuntimeDirError, match="writable by others") as caught:
            make_dir(path, 0o700)
        assert caught.value.remedy and path in str(caught.value)
    assert os.listdir(wide) == []


def test_make_private_dir(room: str, make: Any) -> None:
    make_private_dir(room + "/new")
    assert mode(room + "/new") == 0o700
    wide = make("wide", 0o777)
    make_private_dir(wide, 0o750)
    assert mode(wide) == 0o750
    with pytest.raises(RuntimeDirError):
        make_private_dir("/tmp")
    assert mode("/tmp") == 0o1777


@as_root
def test_make_private_dir_refuses_theirs(make: Any) -> None:
    with pytest.raises(RuntimeDirError, match=str(FOREIGN)):
        make_private_dir(make("theirs", 0o700, FOREIGN))


def test_a_planted_link_is_not_followed(make: Any, room: str) -> None:
    make("elsewhere")
    os.symlink("elsewhere", room + "/link")
    if ROOT:
        os.lchown(room + "/link", FOREIGN, -1)
    for function in (make_private_dir, lambda path: make_dir(path, 0o700)):
        for path in (room + "/link", room + "/link/new"):
            with pytest.raises(RuntimeDirError, match="is a link of uid"):
                function(path)
    assert os.listdir(room + "/elsewhere") == []


def test_what_the_system_refuses_keeps_its_errno(room: str) -> None:
    with open(room + "/file", "w"):
        pass
    with pytest.raises(SystemCallError) as caught:
        make_dir(room + "/file/new", 0o700)
    assert caught.value.errno == errno.ENOTDIR
    with pytest.raises(SystemCallError) as caught:
        make_dir("/proc/no-directory-can-be-made-here", 0o700)
    assert caught.value.errno in (errno.ENOENT, errno.EACCES)
    with pytest.raises(LibpodError):
        make_dir(room + "/a\0b", 0o700)


def test_relative_paths(room: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(room)
    make_dir("a/b", 0o755)
    assert os.path.isdir(room + "/a/b")
