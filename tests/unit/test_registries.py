# SPDX-License-Identifier: Apache-2.0
"""registries.conf: which file is read, both of its forms, and what has no meaning."""

from __future__ import annotations

from pathlib import Path

import pytest

from libpod import registries
from libpod.errors import ConfigError
from libpod.registries import Registries, find, load

OLD = """
[registries.search]
registries = ["docker.io", "quay.io/", "docker.io"]
[registries.insecure]
registries = ["localhost:5000"]
[registries.block]
registries = ["bad.io"]
"""

NEW = """
unqualified-search-registries = ["docker.io", "quay.io/"]
[[registry]]
prefix = "example.com/foo"
location = "internal.example.com/bar"
insecure = true
[[registry]]
location = "bad.io/"
blocked = true
[[registry]]
location = "plain.io"
"""


@pytest.fixture(autouse=True)
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the system's file would be; it is not there."""
    path = tmp_path / "etc/registries.conf"
    path.parent.mkdir()
    monkeypatch.setattr(registries, "SYSTEM_PATH", str(path))
    return path


def test_which_file_is_read(tmp_path: Path, system: Path) -> None:
    user = tmp_path / "home" / registries.USER_PATH
    user.parent.mkdir(parents=True)
    home = {"HOME": str(tmp_path / "home")}
    named = {"REGISTRIES_CONFIG_PATH": "/named", **home}
    assert find(home, 1000) is None
    system.touch()
    assert find(home, 1000) == str(system)
    user.touch()
    assert find(home, 1000) == str(user)
    assert find(home, 0) == str(system)  # root's HOME is not looked at, for any list
    assert find({**home, "_LIBPOD_USERNS_CONFIGURED": "done"}, 0) == str(user)
    assert find({}, 1000) == str(system)
    for uid in (0, 1000):
        assert find(named, uid) == "/named"
        assert find({**home, "REGISTRIES_CONFIG_PATH": ""}, uid) in (str(system), str(user))


def test_the_form_of_2018(system: Path) -> None:
    system.write_text(OLD)
    assert load({}, 0) == Registries(["docker.io", "quay.io"], ["localhost:5000"], ["bad.io"])
    system.write_text("[registries.search]\n")
    assert load({}, 0) == Registries([], [], [])


def test_todays_form(system: Path) -> None:
    system.write_text(NEW)
    assert load({}, 0) == Registries(["docker.io", "quay.io"], ["example.com/foo"], ["bad.io"])


def test_no_file_and_an_empty_one(system: Path) -> None:
    assert load({}, 0) == Registries([], [], [])
    system.touch()
    assert load({}, 0) == Registries([], [], [])


def test_the_files_beside_it(system: Path) -> None:
    system.write_text(NEW)
    beside = system.with_name("registries.conf.d")
    beside.mkdir()
    (beside / "20-last.conf").write_text('unqualified-search-registries = ["last.io"]')
    (beside / "10-first.conf").write_text(
        'unqualified-search-registries = ["first.io"]\n'
        '[[registry]]\nlocation = "bad.io"\nblocked = false\n'
        '[[registry]]\nlocation = "new.io"\ninsecure = true\n'
    )
    (beside / "30-readme.txt").write_text("not TOML")
    assert load({}, 0) == Registries(["last.io"], ["example.com/foo", "new.io"], [])
    (beside / "20-last.conf").write_text("unqualified-search-registries = []")
    assert load({}, 0).search == []
    (beside / "40.conf").write_text(OLD)
    with pytest.raises(ConfigError, match=r"40\.conf: it has the old form"):
        load({}, 0)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[[", "Invalid"),
        ("registries = 3", "registries is not a table"),
        ("[registries]\nsearch = 3", "registries.search is not a table"),
        ('[registries.block]\nregistries = "a.io"', "registries is not a list of texts"),
        ("[registries.insecure]\nregistries = [1]", "registries is not a list of texts"),
        (OLD + '[[registry]]\nlocation = "a"', "mixes the old form"),
        ("unqualified-search-registries = 3", "not a list of texts"),
        ('unqualified-search-registries = ["https://a.io"]', "https://a.io must be named without"),
        ("registry = 3", "registry is not a list of tables"),
        ("[registry]\nlocation = 'a'", "registry is not a list of tables"),
        ("[[registry]]\ninsecure = true", "neither a prefix nor a location"),
        ("[[registry]]\nlocation = 3", "neither a prefix nor a location"),
        ('[[registry]]\nlocation = "a"\ninsecure = "yes"', "registry a: insecure is neither"),
        ('[[registry]]\nlocation = "a"\nblocked = 1', "registry a: blocked is neither"),
    ],
)
def test_what_has_no_meaning(content: str, complaint: str, system: Path) -> None:
    system.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load({}, 0)
    assert complaint in str(caught.value)
    assert f"unable to parse the registries.conf file {system}" in str(caught.value)


def test_what_cannot_be_read(system: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(ConfigError, match=f"{missing}: No such file"):
        load({"REGISTRIES_CONFIG_PATH": str(missing)}, 0)
    system.write_bytes(b'x = "\xff"')
    with pytest.raises(ConfigError, match=str(system)):
        load({}, 0)
    system.unlink()
    system.mkdir()
    with pytest.raises(ConfigError, match=f"{system}: Is a directory"):
        load({}, 0)


def test_a_directory_beside_it_that_is_none(system: Path) -> None:
    system.touch()
    system.with_name("registries.conf.d").touch()
    with pytest.raises(ConfigError, match="registries.conf.d: Not a directory"):
        load({}, 0)
