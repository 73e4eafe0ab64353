# SPDX-License-Identifier: Apache-2.0
"""The podman of a host, and when state can be shared with it, on trees made up here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from libpod import podman
from libpod.errors import ConfigError, OCIRuntimeTimeout, SharingRefused
from libpod.podman import EngineConf, Sharing, check_sharing, engine_conf, version

ROOT = 0
USER = 1000


class World:
    """A host: its files, and a podman that answers."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.static = base / "root/libpod"
        self.graph = base / "root"
        self.static.mkdir(parents=True)
        self.answer = (0, "podman version 4.3.1\n", "")
        self.asked: list[Sequence[str]] = []
        self.program = base / "bin/podman"
        self.environ = {"PATH": str(base / "bin")}
        self.conf("")

    def install(self, text: str) -> None:
        self.program.parent.mkdir(exist_ok=True)
        self.program.write_text(text)
        self.program.chmod(0o755)
        self.answer = (0, f"podman version {text}\n", "")

    def conf(self, text: str) -> None:
        path = self.base / "containers.conf"
        path.write_text(text)
        self.environ["CONTAINERS_CONF"] = str(path)

    def run_tool(
        self, argv: Sequence[str], env: Mapping[str, str], *, timeout: float
    ) -> tuple[int, str, str]:
        assert env == self.environ
        self.asked.append(argv)
        return self.answer

    def share(self, **options: Any) -> Sharing:
        places = str(self.static), str(self.graph)
        return check_sharing(*places, self.environ, ROOT, self.run_tool, **options)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)
    # Not the host's own, wherever the search goes.
    isfile = os.path.isfile
    monkeypatch.setattr(
        os.path, "isfile", lambda path: str(path).startswith(str(tmp_path)) and isfile(path)
    )
    return made


# --- when it is allowed ----------------------------------------------------------------


@pytest.mark.parametrize("text", ["3.4.4", "4.3.1", "4.7.2", "4.7.0-rc1"])
def test_a_podman_of_boltdb_without_state(world: World, text: str) -> None:
    world.install(text)
    sharing = world.share()
    assert sharing[:2] == ("shm", 2048)
    assert sharing.why == (
        f"podman {text} uses BoltDB, and there is no state in {world.static} yet"
    )
    assert os.listdir(world.static) == []  # nothing was made


@pytest.mark.parametrize("text", ["3.4.4", "4.3.1", "4.8.0", "4.9.4", "5.0.0", "5.7.1"])
def test_a_boltdb_that_is_there(world: World, text: str) -> None:
    world.install(text)
    (world.static / "bolt_state.db").write_bytes(b"x")
    assert world.share().why == f"{world.static}/bolt_state.db is there, and podman {text} uses it"


def test_a_boltdb_without_a_podman(world: World) -> None:
    (world.static / "bolt_state.db").write_bytes(b"x")
    sharing = world.share()
    assert sharing.why == f"{world.static}/bolt_state.db is there, and no podman is installed"
    assert world.asked == []


# --- when it is refused ------------------------------------------------------------------


@pytest.mark.parametrize("place", ["root/db.sql", "root/libpod/db.sql", "run/db.sql"])
@pytest.mark.parametrize("bolt", [False, True])
def test_never_beside_sqlite(world: World, place: str, bolt: bool) -> None:
    world.install("4.7.0")
    (world.base / place).parent.mkdir(exist_ok=True)
    (world.base / place).write_bytes(b"x")
    if bolt:
        (world.static / "bolt_state.db").write_bytes(b"x")
    with pytest.raises(SharingRefused, match=r"SQLite here \(.*db.sql\): leave share out"):
        world.share(run_root=str(world.base / "run"))


@pytest.mark.parametrize("text", ["4.8.0", "4.8.0-rc1", "5.0.0", "5.7.1"])
def test_a_podman_that_would_make_sqlite(world: World, text: str) -> None:
    world.install(text)
    with pytest.raises(SharingRefused, match=f"podman {text} makes its state in SQLite"):
        world.share()
    (world.static / "bolt_state.db").touch()  # an empty one is none
    with pytest.raises(SharingRefused, match=f"podman {text} makes its state in SQLite"):
        world.share()


def test_a_podman_that_was_told_to_make_sqlite(world: World) -> None:
    world.install("4.6.0")
    world.conf('[engine]\ndatabase_backend = "sqlite"\n')
    with pytest.raises(SharingRefused, match="SQLite"):
        world.share()


@pytest.mark.parametrize("bolt", [False, True])
@pytest.mark.parametrize(
    "text, reason",
    [
        ("5.8.0", "at the next boot"),
        ("5.10.2", "at the next boot"),
        ("6.0.0-dev", "no BoltDB any more"),
        ("10.1.0", "no BoltDB any more"),
    ],
)
def test_a_podman_that_leaves_boltdb(world: World, text: str, reason: str, bolt: bool) -> None:
    world.install(text)
    if bolt:
        (world.static / "bolt_state.db").write_bytes(b"x")
    with pytest.raises(SharingRefused, match=f"podman {text} .*{reason}") as caught:
        world.share()
    assert isinstance(caught.value, ConfigError)
    assert caught.value.fault == "config"


def test_no_podman_and_no_state(world: World) -> None:
    with pytest.raises(SharingRefused, match="no podman on this host and no state"):
        world.share()


@pytest.mark.parametrize(
    "answer, message",
    [
        ((1, "", "exec format error"), "exit code 1"),
        ((-9, "", ""), "exit code -9"),
        ((0, "", ""), "no version"),
        ((0, "hello world", ""), "no version"),
    ],
)
def test_a_podman_that_does_not_tell(world: World, answer: Any, message: str) -> None:
    world.install("4.3.1")
    world.answer = answer
    (world.static / "bolt_state.db").write_bytes(b"x")
    with pytest.raises(SharingRefused, match=message):
        world.share()


def test_a_podman_that_hangs(world: World) -> None:
    world.install("4.3.1")

    def hang(argv: Sequence[str], env: Mapping[str, str], *, timeout: float) -> Any:
        raise OCIRuntimeTimeout(f"{argv[0]} did not end within {timeout:g} s")

    with pytest.raises(SharingRefused, match="cannot be told: .* did not end within 30 s"):
        version(str(world.program), {}, hang)


def test_what_cannot_be_looked_at(world: World) -> None:
    world.install("4.3.1")
    loop = world.static / "db.sql"
    loop.symlink_to(loop)
    with pytest.raises(SharingRefused, match="cannot tell whether"):
        world.share()


# --- locks ---------------------------------------------------------------------------------


def test_locks_are_podmans(world: World) -> None:
    world.install("4.3.1")
    world.conf('[engine]\nlock_type = "file"\nnum_locks = 4096\nruntime = "runc"\n')
    assert world.share()[:2] == ("file", 4096)
    assert world.share(lock_type="file").engine.runtime == "runc"
    for other in ("shm", "flock"):
        with pytest.raises(SharingRefused, match=f"by 'file' here, and '{other}'.*to 'file'"):
            world.share(lock_type=other)
    world.conf('[engine]\nlock_type = "posix"\n')
    with pytest.raises(ConfigError, match="shm or file"):
        world.share()


# --- containers.conf -----------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The host's and a user's files, none of them there yet."""
    found = {
        "system": tmp_path / "usr.conf",
        "admin": tmp_path / "etc.conf",
        "admin.d/10": tmp_path / "etc.conf.d/10.conf",
        "admin.d/9": tmp_path / "etc.conf.d/9.conf",
        "user": tmp_path / ".config/containers/containers.conf",
        "user.d": tmp_path / ".config/containers/containers.conf.d/x.conf",
    }
    monkeypatch.setattr(podman, "SYSTEM_CONF", str(found["system"]))
    monkeypatch.setattr(podman, "ADMIN_CONF", str(found["admin"]))
    for path in found.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    return found


def test_a_later_file_wins_key_by_key(files: dict[str, Path], tmp_path: Path) -> None:
    assert engine_conf({}, ROOT) == EngineConf()
    files["system"].write_text('[engine]\nruntime = "crun"\nnum_locks = 1\n[containers]\na = 1\n')
    files["admin"].write_text("[engine]\nnum_locks = 2\n")
    assert engine_conf({}, ROOT) == EngineConf(runtime="crun", num_locks=2)
    files["admin.d/10"].write_text('[engine]\nnum_locks = 3\nlock_type = "file"\n')
    files["admin.d/9"].write_text("[engine]\nnum_locks = 4\n")
    (tmp_path / "etc.conf.d/note.txt").write_text("not TOML")
    home = {"HOME": str(tmp_path)}
    files["user"].write_text("[engine]\nnum_locks = 5\n")
    files["user.d"].write_text("[engine]\nnum_locks = 6\n")
    system = EngineConf(runtime="crun", lock_type="file", num_locks=4)
    assert engine_conf(home, ROOT) == system
    assert engine_conf(home, USER) == system._replace(num_locks=6)
    assert engine_conf({"XDG_CONFIG_HOME": "/no/where", **home}, USER) == system
    only = tmp_path / "only.conf"
    only.write_text('[engine]\nlock_type = ""\ncgroup_manager = "cgroupfs"\n')
    assert engine_conf({"CONTAINERS_CONF": str(only), **home}, USER) == EngineConf(
        cgroup_manager="cgroupfs"
    )


@pytest.mark.parametrize(
    "text, message",
    [
        ("[engine]\nnum_locks = true\n", "engine.num_locks: expected an integer"),
        ("[engine]\nlock_type = 3\n", "engine.lock_type: expected a string"),
        ("engine = 1\n", "engine: expected a table"),
        ("[engine", "error decoding"),
    ],
)
def test_nonsense_names_the_file(files: dict[str, Path], text: str, message: str) -> None:
    files["admin"].write_text(text)
    with pytest.raises(ConfigError, match=f"{files['admin']}: {message}|{message}"):
        engine_conf({}, ROOT)


def test_a_file_that_was_named_must_be_there() -> None:
    with pytest.raises(ConfigError, match="/no/such.conf"):
        engine_conf({"CONTAINERS_CONF": "/no/such.conf"}, ROOT)


# --- the version is asked once ----------------------------------------------------------------


def test_the_version_is_kept_while_the_program_stays(world: World, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    world.install("4.3.1")
    for _ in range(3):
        found = version(str(world.program), world.environ, world.run_tool, cache)
        assert found == (4, 3, 1, "4.3.1")
    assert world.asked == [[str(world.program), "--version"]]
    assert os.stat(cache).st_mode & 0o7777 == 0o600
    world.install("5.0.0-dev (built here)")
    found = version(str(world.program), world.environ, world.run_tool, cache)
    assert found[:3] == (5, 0, 0)
    for spoiled in ("", "{", "[]", '{"program": 1}', "\0"):
        Path(cache).write_text(spoiled)
        asked = len(world.asked)
        assert version(str(world.program), world.environ, world.run_tool, cache) == found
        assert len(world.asked) == asked + 1
    version(str(world.program), world.environ, world.run_tool, "/no/where/cache")
    assert sorted(name for name in os.listdir(tmp_path) if "cache" in name) == ["cache"]
