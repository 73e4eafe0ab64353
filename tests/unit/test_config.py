# SPDX-License-Identifier: Apache-2.0
"""Configuration: defaults, the file and its search, options, directories, saving."""

from __future__ import annotations

import json
import logging
import os
import resource
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libpod import config, settings
from libpod.config import (
    apply_options,
    find_config,
    from_config,
    load,
    resolve_defaults,
    save_config,
    save_default_config,
)
from libpod.errors import ConfigError, InvalidArgument, SystemCallError
from libpod.settings import FIELDS, IDMap, RuntimeConfig, StateType, StorageConfig

ROOT = 0
USER = 1000
IN_FILE = [field for field in FIELDS if field.in_file]
UNBUILT = {
    "image_default_transport": "oci:",
    "signature_policy_path": "/etc/containers/policy.json",
    "cni_config_dir": "/srv/cni",
    "cni_plugin_dir": ["/srv/plugins"],
    "cni_default_network": "office",
    "hooks_dir": "/srv/hooks",
    "hooks_dir_not_exist_fatal": True,
}


@pytest.fixture
def conf(tmp_path: Path) -> Any:
    """Writes a configuration file; returns its path."""

    def write(text: str | bytes) -> str:
        path = tmp_path / "libpod.conf"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    return write


@pytest.fixture
def rundir(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """In place of the search on this host: /rt; the user IDs it was asked for."""
    asked: list[int] = []
    module = types.ModuleType("libpod.rundir")

    def rootless_runtime_dir(environ: dict[str, str], uid: int) -> str:
        asked.append(uid)
        return "/rt"

    module.rootless_runtime_dir = rootless_runtime_dir  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "libpod.rundir", module)
    return asked


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    records = [r for r in caplog.records if r.name == "libpod.config"]
    assert all(r.levelno == logging.WARNING for r in records)
    return [r.getMessage() for r in records]


# --- defaults ----------------------------------------------------------------


def test_built_in_defaults() -> None:
    c = RuntimeConfig()
    assert c.storage_config == StorageConfig()
    assert c.image_default_transport == "docker://"
    assert c.signature_policy_path == ""
    assert c.state_type is StateType.BOLTDB
    assert c.runtime_path == [
        *(f"/usr/{d}/crun" for d in ("bin", "sbin", "local/bin", "local/sbin")),
        "/usr/bin/runc",
        "/usr/sbin/runc",
        "/sbin/runc",
        "/bin/runc",
        "/usr/lib/cri-o-runc/sbin/runc",
        "/usr/local/bin/runc",
        "/usr/local/sbin/runc",
    ]
    assert c.conmon_path == [
        "/usr/libexec/podman/conmon",
        "/usr/libexec/crio/conmon",
        "/usr/local/libexec/crio/conmon",
        "/usr/bin/conmon",
        "/usr/sbin/conmon",
        "/usr/lib/crio/bin/conmon",
        "/usr/lib/podman/bin/conmon",
        "/usr/local/bin/conmon",
    ]
    assert c.conmon_env_vars == [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    ]
    assert c.cgroup_manager == "cgroupfs"
    assert c.static_dir is None and c.tmp_dir is None
    assert c.max_log_size == -1
    assert c.no_pivot_root is False
    assert c.cni_config_dir == "/etc/cni/net.d/"
    assert c.cni_plugin_dir == ["/usr/libexec/cni", "/usr/lib/cni", "/opt/cni/bin"]
    assert c.cni_default_network == ""
    assert c.hooks_dir == "/usr/share/containers/oci/hooks.d"
    assert c.hooks_dir_not_exist_fatal is False
    assert c.default_mounts_file == ""
    assert c.namespace == ""
    assert c.share is None
    assert c.lock_type is None
    assert c.num_locks == 2048


def test_state_types_have_the_numbers_of_podman() -> None:
    assert {s.name: s.value for s in StateType} == {
        "INVALID": 0,
        "IN_MEMORY": 1,
        "SQLITE": 2,
        "BOLTDB": 3,
    }


@pytest.mark.parametrize("kind", [RuntimeConfig, StorageConfig])
def test_table_and_attributes_agree(kind: type[settings.Settings]) -> None:
    assert list(kind.__annotations__) == [field.name for field in kind.fields]
    for field in kind.fields:
        assert field.complaint(getattr(kind(), field.name)) is None, field.name
        assert field.complaint(field.zero()) is None, field.name


def test_misspelt_attributes_are_refused() -> None:
    with pytest.raises(AttributeError):
        RuntimeConfig().tmpdir = "/x"  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="'tmpdir'; did you mean 'tmp_dir'"):
        RuntimeConfig(tmpdir="/x")


def test_copy_is_equal_and_shares_nothing() -> None:
    original = RuntimeConfig(
        runtime_path=["/a"], storage_config=StorageConfig(uid_map=[IDMap(0, 1000, 1)])
    )
    twin = original.copy()
    assert twin == original
    twin.runtime_path.append("/b")
    assert twin != original
    twin = original.copy()
    twin.storage_config.uid_map.clear()
    assert twin != original
    assert original.storage_config.uid_map == [IDMap(0, 1000, 1)]
    RuntimeConfig().conmon_path.clear()
    assert RuntimeConfig().conmon_path != []
    assert original != "a configuration"


def test_repr_shows_what_differs() -> None:
    assert repr(RuntimeConfig()) == "RuntimeConfig()"
    c = RuntimeConfig(tmp_dir="/t", storage_config=StorageConfig(graph_root="/g"))
    assert repr(c) == ("RuntimeConfig(storage_config=StorageConfig(graph_root='/g'), tmp_dir='/t')")


# --- the search --------------------------------------------------------------


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, Path]:
    """The override, the host's and the user's file, none of them there yet."""
    override, host = tmp_path / "etc.conf", tmp_path / "usr.conf"
    user = tmp_path / "home/.config/containers/libpod.conf"
    user.parent.mkdir(parents=True)
    monkeypatch.setattr(config, "OVERRIDE_CONFIG_PATH", str(override))
    monkeypatch.setattr(config, "CONFIG_PATH", str(host))
    return override, host, user


def test_no_file_means_defaults(places: tuple[Path, Path, Path]) -> None:
    assert find_config({}, ROOT) is None
    assert load(environ={}, uid=ROOT) == RuntimeConfig()


def test_override_wins_over_the_hosts_file(places: tuple[Path, Path, Path]) -> None:
    override, host, user = places
    host.write_text("max_log_size = 1\nno_pivot_root = true\n")
    user.write_text("max_log_size = 3\n")
    home = {"HOME": str(user.parents[2])}
    assert load(environ=home, uid=ROOT) == RuntimeConfig(max_log_size=1, no_pivot_root=True)
    override.write_text("max_log_size = 2\n")
    assert load(environ=home, uid=ROOT) == RuntimeConfig(max_log_size=2)


def test_rootless_reads_only_the_users_file(places: tuple[Path, Path, Path]) -> None:
    override, host, user = places
    override.write_text("max_log_size = 1\n")
    host.write_text("max_log_size = 2\n")
    home = {"HOME": str(user.parents[2])}
    assert load(environ=home, uid=USER) == RuntimeConfig()
    user.write_text("max_log_size = 3\n")
    assert load(environ=home, uid=USER).max_log_size == 3
    assert load(environ={**home, "_LIBPOD_USERNS_CONFIGURED": "done"}, uid=ROOT).max_log_size == 3


def test_rootless_without_home_reads_nothing_below_the_current_directory(
    places: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    places[2].write_text("max_log_size = 3\n")
    monkeypatch.chdir(places[2].parents[2])
    assert find_config({}, USER) is None
    assert find_config({"HOME": ""}, USER) is None


def test_a_file_that_cannot_be_looked_at_is_an_error(places: tuple[Path, Path, Path]) -> None:
    override, host, _user = places
    host.write_text("max_log_size = 1\n")
    override.symlink_to(override)
    with pytest.raises(ConfigError, match=r"checking existence of configuration file .*etc\.conf"):
        load(environ={}, uid=ROOT)


# --- the file ----------------------------------------------------------------


def test_keys_of_the_file_replace_defaults_and_others_stay(conf: Any) -> None:
    path = conf('runtime_path = ["/opt/crun"]\ntmp_dir = "/run/x"\nmax_log_size = 4096\n')
    expected = RuntimeConfig(runtime_path=["/opt/crun"], tmp_dir="/run/x", max_log_size=4096)
    assert load(path) == expected


@pytest.mark.parametrize(
    "text",
    ["tmp_dir = ", "tmp_dir = 'a'\ntmp_dir = 'b'", b'tmp_dir = "\xff"', "a = " + "[" * 100_000],
)
@pytest.mark.parametrize("reader", [load, from_config])
def test_what_is_not_toml_names_the_file(conf: Any, text: str | bytes, reader: Any) -> None:
    path = conf(text)
    with pytest.raises(ConfigError, match=f"error decoding configuration file {path}: ."):
        reader(path)


@pytest.mark.parametrize("reader", [load, from_config])
def test_what_cannot_be_read_names_the_file(tmp_path: Path, reader: Any) -> None:
    with pytest.raises(ConfigError, match=f"error reading configuration file {tmp_path}: Is a dir"):
        reader(str(tmp_path))


@pytest.mark.parametrize("field", IN_FILE, ids=lambda field: field.name)
def test_a_wrong_type_names_file_and_key(conf: Any, field: settings.Field) -> None:
    wrong = {str: "7", int: "true", bool: "1", list: '"/a"'}[field.kind]
    found = {str: "an integer", int: "a boolean", bool: "an integer", list: "a string"}[field.kind]
    expected = {str: "a string", int: "an integer", bool: "a boolean", list: "a list"}[field.kind]
    path = conf(f"{field.name} = {wrong}\n")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value) == (
        f"configuration file {path}: {field.name}: expected {expected}, found {found}"
    )


@pytest.mark.parametrize(
    "line, complaint",
    [
        ("max_log_size = 1.5", "expected an integer, found a float"),
        ("max_log_size = 9223372036854775808", "does not fit into 64 bits"),
        ("tmp_dir = 1979-05-27", "expected a string, found date"),
        ("[static_dir]", "expected a string, found a table"),
        ('runtime_path = ["/a", 3]', "expected a list of strings, found an integer in it"),
        ('runtime_path = ["/a", ["/b"]]', "expected a list of strings, found a list in it"),
        ("runtime_path = []", "must provide a valid path"),
        ("conmon_path = []", "must provide a valid path"),
        ('conmon_path = ["conmon"]', "must be an absolute path, found 'conmon'"),
        ('conmon_path = ["/a", ""]', "must be an absolute path, found ''"),
        ('tmp_dir = ""', "must be an absolute path, found ''"),
        ('static_dir = "libpod"', "must be an absolute path, found 'libpod'"),
        ('static_dir = "/a\\u0000b"', "contains a NUL character"),
        ('cni_plugin_dir = ["/a\\u0000"]', "contains a NUL character"),
        ('hooks_dir = "hooks.d"', "must be an absolute path, found 'hooks.d'"),
        ('cgroup_manager = "cgroup"', "CGroup manager must be one of cgroupfs and systemd"),
        ('conmon_env_vars = ["A=1", "B"]', "must be NAME=VALUE, found 'B'"),
        ('conmon_env_vars = ["=1"]', "must be NAME=VALUE, found '=1'"),
        ('lock_type = "posix"', "must be one of flock, shm, file, found 'posix'"),
        ("num_locks = 0", "must be from 1 to 2**32 - 1, found 0"),
        ("num_locks = 4294967296", "must be from 1 to 2**32 - 1, found 4294967296"),
        ('share = "docker"', "must be 'podman' or absent, found 'docker'"),
    ],
)
def test_a_value_without_meaning_names_file_and_key(conf: Any, line: str, complaint: str) -> None:
    path = conf(line)
    key = line.strip("[]").split(" =")[0]
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value) == f"configuration file {path}: {key}: {complaint}"


def test_unknown_keys_warn_once_with_the_nearest(
    conf: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = conf('tmpdir = "/x"\nqqqq = 1\nmax_log_size = 5\n[hooks]\na = 1\n')
    assert load(path) == RuntimeConfig(max_log_size=5)
    assert warnings(caplog) == [
        f"configuration file {path}: unknown key 'tmpdir'; did you mean 'tmp_dir'?",
        f"configuration file {path}: unknown key 'qqqq'",
        f"configuration file {path}: unknown key 'hooks'; did you mean 'hooks_dir'?",
    ]


@pytest.mark.parametrize("key", ["state_type", "storage_config", "default_mounts_file"])
def test_what_is_not_in_the_files_format_is_an_unknown_key(
    conf: Any, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert load(conf(f"{key} = 3\n")) == RuntimeConfig()
    assert len(warnings(caplog)) == 1 and f"unknown key '{key}'" in warnings(caplog)[0]


def test_from_config_starts_from_zero(conf: Any, caplog: pytest.LogCaptureFixture) -> None:
    c = from_config(conf('namespace = "n"\n'))
    default = RuntimeConfig()
    assert c == RuntimeConfig(
        image_default_transport="",
        conmon_env_vars=[],
        max_log_size=0,
        cni_config_dir="",
        cni_plugin_dir=[],
        hooks_dir="",
        namespace="n",
        # what could not work at zero
        state_type=default.state_type,
        runtime_path=default.runtime_path,
        conmon_path=default.conmon_path,
        cgroup_manager=default.cgroup_manager,
        static_dir=None,
        tmp_dir=None,
    )
    c.namespace = ""
    resolve_defaults(c, {}, ROOT)
    assert c.static_dir == "/var/lib/libpod-core"
    assert warnings(caplog) == []


def test_from_config_needs_its_file(tmp_path: Path) -> None:
    path = tmp_path / "none.conf"
    with pytest.raises(ConfigError) as caught:
        from_config(str(path))
    assert f"error checking existence of configuration file {path}" in str(caught.value)
    assert isinstance(caught.value.__cause__, FileNotFoundError)


# --- what has no effect yet --------------------------------------------------


def test_the_unbuilt_settings_are_these() -> None:
    assert {f.name for f in IN_FILE if not f.built} == set(UNBUILT)


@pytest.mark.parametrize("key", UNBUILT)
def test_an_unbuilt_key_is_kept_saved_and_logged_once(
    conf: Any, tmp_path: Path, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    c = load(conf(f"{key} = {json.dumps(UNBUILT[key])}\n"))
    assert getattr(c, key) == UNBUILT[key]
    save_config(c, str(tmp_path / "saved"))
    assert load(str(tmp_path / "saved")) == c
    resolve_defaults(c, {}, ROOT)
    assert warnings(caplog) == [
        f"{key} = {UNBUILT[key]!r} is kept but has no effect in this version"
    ]


def test_the_hosts_own_file_informs_and_an_option_warns(
    conf: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = conf('cni_default_network = "of-the-host"\nhooks_dir = "/of-the-host"\n')
    monkeypatch.setattr(config, "OVERRIDE_CONFIG_PATH", path)
    c = load(environ={}, uid=ROOT)
    apply_options(c, {"hooks_dir": "/asked-for"})
    resolve_defaults(c, {}, ROOT, {"hooks_dir"})
    assert {(r.levelname, r.getMessage().split(" = ")[0]) for r in caplog.records} == {
        ("INFO", "cni_default_network"),
        ("WARNING", "hooks_dir"),
    }


def test_the_lock_type_of_the_hosts_own_file_does_not_count(
    conf: Any, places: tuple[Path, Path, Path]
) -> None:
    places[0].write_text('lock_type = "shm"\nnum_locks = 4096\n')
    for share in (None, "podman"):
        c = load(environ={}, uid=ROOT)
        apply_options(c, {"share": share})
        resolve_defaults(c, {}, ROOT, {"share"})
        assert (c.lock_type, c.num_locks) == (None, 4096)
    c = load(environ={}, uid=ROOT)
    apply_options(c, {"lock_type": "file"})
    resolve_defaults(c, {}, ROOT, {"lock_type"})
    assert c.lock_type == "file"
    c = load(conf('lock_type = "file"\n'))
    resolve_defaults(c, {}, ROOT)
    assert c.lock_type == "file"


def test_podmans_directories_need_share(conf: Any, caplog: pytest.LogCaptureFixture) -> None:
    c = load(conf('tmp_dir = "/run/libpod"\nstatic_dir = "/var/lib/containers/storage/libpod"\n'))
    resolve_defaults(c, {}, ROOT)
    assert (c.tmp_dir, c.static_dir) == ("/run/libpod-core", "/var/lib/libpod-core")
    for option in (
        {"tmp_dir": "/var/run/libpod"},
        {"static_dir": "/var/lib/containers/storage/libpod"},
    ):
        c = RuntimeConfig()
        apply_options(c, option)
        with pytest.raises(ConfigError, match="podman's own directory") as caught:
            resolve_defaults(c, {}, ROOT, option)
        assert 'share="podman"' in str(caught.value)
    c = load(conf('share = "podman"\ntmp_dir = "/run/libpod"\n'))
    resolve_defaults(c, {}, ROOT)
    assert c.tmp_dir == "/run/libpod"


def test_keys_of_later_podmans_are_no_mistake(conf: Any, caplog: pytest.LogCaptureFixture) -> None:
    load(conf('runtime = "crun"\nlabel = true\n'))
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_defaults_and_built_settings_do_not_warn(
    conf: Any, caplog: pytest.LogCaptureFixture
) -> None:
    c = load(conf('hooks_dir = "/x"\nmax_log_size = 7\ncgroup_manager = "systemd"\n'))
    apply_options(c, {"hooks_dir": RuntimeConfig().hooks_dir, "tmp_dir": "/t"})
    resolve_defaults(c, {}, ROOT)
    assert warnings(caplog) == []


def test_unbuilt_parts_of_the_storage_warn(caplog: pytest.LogCaptureFixture) -> None:
    c = RuntimeConfig()
    storage = StorageConfig(graph_root="/g", graph_driver_options=["overlay.x=y"])
    apply_options(c, {"storage_config": storage, "default_mounts_file": "/m"})
    resolve_defaults(c, {}, ROOT)
    assert [w.split(" = ")[0] for w in warnings(caplog)] == [
        "storage_config.graph_driver_options",
        "default_mounts_file",
    ]


# --- options -----------------------------------------------------------------

OPTIONS: list[tuple[str, Any, str, Any]] = [
    ("default_transport", "oci:", "image_default_transport", "oci:"),
    ("signature_policy", "/p.json", "signature_policy_path", "/p.json"),
    ("signature_policy", "", "signature_policy_path", ""),
    ("state_type", StateType.BOLTDB, "state_type", StateType.BOLTDB),
    ("state_type", 2, "state_type", StateType.SQLITE),
    ("oci_runtime", "/opt/bin/youki", "runtime_path", ["/opt/bin/youki"]),
    ("conmon_path", Path("/opt/conmon"), "conmon_path", ["/opt/conmon"]),
    ("conmon_env", ["A=1", "B="], "conmon_env_vars", ["A=1", "B="]),
    ("conmon_env", ("A=1",), "conmon_env_vars", ["A=1"]),
    ("conmon_env", [], "conmon_env_vars", []),
    ("cgroup_manager", "systemd", "cgroup_manager", "systemd"),
    ("static_dir", "/s", "static_dir", "/s"),
    ("static_dir", None, "static_dir", None),
    ("tmp_dir", Path("/t"), "tmp_dir", "/t"),
    ("max_log_size", 0, "max_log_size", 0),
    ("cni_config_dir", "/c", "cni_config_dir", "/c"),
    ("cni_plugin_dir", "/p", "cni_plugin_dir", ["/p"]),
    ("hooks_dir", "/h", "hooks_dir", "/h"),
    ("hooks_dir_not_exist_fatal", True, "hooks_dir_not_exist_fatal", True),
    ("default_mounts_file", "/m", "default_mounts_file", "/m"),
    ("no_pivot_root", True, "no_pivot_root", True),
    ("no_pivot_root", False, "no_pivot_root", False),
    ("namespace", "n", "namespace", "n"),
    ("share", "podman", "share", "podman"),
    ("share", None, "share", None),
    ("lock_type", "file", "lock_type", "file"),
    ("lock_type", None, "lock_type", None),
]


def test_every_option_has_a_test() -> None:
    keywords = {field.option for field in FIELDS if field.option}
    assert {row[0] for row in OPTIONS} | {"storage_config"} == keywords
    # podman's seventeen, the second of WithHooksDir, share and lock_type
    assert len(keywords) == 20


@pytest.mark.parametrize("keyword, value, attribute, expected", OPTIONS)
def test_options_set_their_field_and_no_other(
    keyword: str, value: Any, attribute: str, expected: Any
) -> None:
    c = RuntimeConfig(no_pivot_root=not expected if attribute == "no_pivot_root" else False)
    apply_options(c, {keyword: value})
    assert getattr(c, attribute) == expected
    assert c == RuntimeConfig(**{attribute: expected})


@pytest.mark.parametrize(
    "keyword, value, complaint",
    [
        ("state_type", StateType.INVALID, "must provide a valid state store type"),
        ("state_type", 7, "unrecognized state type passed"),
        ("state_type", "bolt", "unrecognized state type passed"),
        ("oci_runtime", "", "must provide a valid path"),
        ("oci_runtime", ["/a"], "expected a path, found a list"),
        ("oci_runtime", "/a\0b", "contains a NUL character"),
        ("conmon_path", "", "must provide a valid path"),
        ("conmon_path", None, "expected a path, found nothing"),
        ("conmon_env", "A=1", "expected a list, found a string"),
        ("conmon_env", ["A"], "must be NAME=VALUE, found 'A'"),
        ("conmon_env", [1], "expected a list of strings, found an integer in it"),
        ("cgroup_manager", "none", "CGroup manager must be one of cgroupfs and systemd"),
        ("cgroup_manager", None, "expected a string, found nothing"),
        ("static_dir", "", "must provide a valid path"),
        ("tmp_dir", b"/t", "expected a path, found bytes"),
        ("max_log_size", "1", "expected an integer, found a string"),
        ("max_log_size", True, "expected an integer, found a boolean"),
        ("max_log_size", 1 << 63, "does not fit into 64 bits"),
        ("hooks_dir", "", "empty-string hook directories are not supported"),
        ("default_mounts_file", "", "must provide a valid path"),
        ("no_pivot_root", 1, "expected a boolean, found an integer"),
        ("namespace", None, "expected a string, found nothing"),
        ("share", "docker", "must be 'podman' or absent, found 'docker'"),
        ("storage_config", {}, "expected StorageConfig, found a table"),
        (
            "storage_config",
            StorageConfig(graph_driver_name=1),
            "graph_driver_name: expected a string, found an integer",
        ),
        (
            "storage_config",
            StorageConfig(uid_map=[(0, 0, 1)]),
            "uid_map: expected a list of IDMap, found tuple in it",
        ),
        (
            "storage_config",
            StorageConfig(gid_map=[IDMap(0, 0, 0)]),
            "gid_map: not a range of IDs: IDMap(container_id=0, host_id=0, size=0)",
        ),
    ],
)
def test_options_are_checked(keyword: str, value: Any, complaint: str) -> None:
    c = RuntimeConfig()
    with pytest.raises(InvalidArgument) as caught:
        apply_options(c, {keyword: value})
    assert str(caught.value) == f"error configuring runtime: {complaint} (option {keyword})"
    assert caught.value.fault == "config"
    assert c == RuntimeConfig()


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(TypeError, match="unknown option 'tmpdir'; did you mean 'tmp_dir'"):
        apply_options(RuntimeConfig(), {"tmpdir": "/t"})


def test_options_win_over_the_file(conf: Any) -> None:
    c = load(conf('cgroup_manager = "systemd"\nmax_log_size = 1\n'))
    apply_options(c, {"cgroup_manager": "cgroupfs"})
    assert c == RuntimeConfig(max_log_size=1)


def test_storage_config_derives_the_static_directory_and_later_options_win() -> None:
    storage = StorageConfig(graph_root="/g")
    c = RuntimeConfig()
    apply_options(c, {"static_dir": "/s", "storage_config": storage})
    assert c.static_dir == "/g/libpod"
    apply_options(c, {"storage_config": storage, "static_dir": "/s"})
    assert c.static_dir == "/s"


@pytest.mark.parametrize("empty", ["", None])
def test_storage_config_without_graph_root_leaves_the_static_directory(empty: Any) -> None:
    c = RuntimeConfig(static_dir="/s")
    apply_options(c, {"storage_config": StorageConfig(run_root="/r", graph_root=empty)})
    assert c.static_dir == "/s"
    assert c.storage_config == StorageConfig(run_root="/r")


def test_what_is_given_is_copied() -> None:
    storage = StorageConfig(graph_root="/g", graph_driver_options=["a=b"])
    env = ["A=1"]
    c = RuntimeConfig()
    apply_options(c, {"storage_config": storage, "conmon_env": env})
    storage.graph_driver_options.append("c=d")
    storage.graph_root = "/h"
    env.append("B=2")
    assert c.storage_config == StorageConfig(graph_root="/g", graph_driver_options=["a=b"])
    assert c.conmon_env_vars == ["A=1"]


def test_a_bare_runtime_name_is_searched_in_the_known_directories() -> None:
    c = RuntimeConfig()
    apply_options(c, {"oci_runtime": "runc"})
    assert c.runtime_path[:2] == ["/usr/bin/runc", "/usr/sbin/runc"]
    assert {os.path.dirname(path) for path in c.runtime_path} == {
        os.path.dirname(path) for path in settings.RUNTIME_PATH
    }
    assert all(os.path.basename(path) == "runc" for path in c.runtime_path)
    assert len(set(c.runtime_path)) == len(c.runtime_path)


def test_a_bare_runtime_name_prefers_the_configured_paths() -> None:
    c = RuntimeConfig(runtime_path=["/opt/runc-dev/runc", "/opt/crun"])
    apply_options(c, {"oci_runtime": "crun"})
    assert c.runtime_path[:2] == ["/opt/crun", "/usr/bin/crun"]


def test_relative_paths_are_taken_from_the_directory_of_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = os.getcwd()
    c = RuntimeConfig()
    apply_options(
        c,
        {
            "storage_config": StorageConfig(run_root="r", graph_root="g"),
            "oci_runtime": "./crun",
            "tmp_dir": "t/../u",
        },
    )
    assert c.static_dir == f"{here}/g/libpod"
    assert (c.storage_config.run_root, c.storage_config.graph_root) == (f"{here}/r", f"{here}/g")
    assert c.runtime_path == [f"{here}/./crun"]
    assert c.tmp_dir == f"{here}/t/../u"  # links make it another directory than u


def test_a_relative_path_in_a_directory_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(InvalidArgument, match="'t' is relative to the current directory, which is"):
        apply_options(RuntimeConfig(), {"tmp_dir": "t"})


# --- directories that nobody set ---------------------------------------------


def test_private_directories_of_root() -> None:
    c = RuntimeConfig()
    assert resolve_defaults(c, {"HOME": "/x", "XDG_DATA_HOME": "/y"}, ROOT) == (
        "/var/lib/libpod-core",
        "/run/libpod-core",
        "/run/libpod-core/storage",
        "/var/lib/libpod-core/storage",
    )
    assert c == RuntimeConfig(
        static_dir="/var/lib/libpod-core",
        tmp_dir="/run/libpod-core",
        storage_config=StorageConfig(
            run_root="/run/libpod-core/storage", graph_root="/var/lib/libpod-core/storage"
        ),
    )


def test_podmans_directories_of_root() -> None:
    assert resolve_defaults(RuntimeConfig(share="podman"), {}, ROOT) == (
        "/var/lib/containers/storage/libpod",
        "/var/run/libpod",
        "/var/run/containers/storage",
        "/var/lib/containers/storage",
    )


def test_private_directories_of_a_user(tmp_path: Path, rundir: list[int]) -> None:
    (tmp_path / "real").mkdir()
    home = tmp_path / "home"
    home.symlink_to("real")
    data = os.path.realpath(tmp_path / "real") + "/.local/share"
    c = RuntimeConfig()
    assert resolve_defaults(c, {"HOME": str(home)}, USER) == (
        f"{data}/libpod-core",
        "/rt/libpod-core",
        "/rt/libpod-core/storage",
        f"{data}/libpod-core/storage",
    )
    assert rundir == [USER]
    assert c.storage_config.graph_driver_name == ""
    c = RuntimeConfig()
    resolve_defaults(c, {"XDG_DATA_HOME": "/data"}, USER)
    assert c.static_dir == "/data/libpod-core"


def test_podmans_directories_of_a_user(rundir: list[int], caplog: pytest.LogCaptureFixture) -> None:
    environ = {
        "XDG_DATA_HOME": "/data",
        "_LIBPOD_USERNS_CONFIGURED": "done",
        "_LIBPOD_ROOTLESS_UID": "1001",
    }
    c = RuntimeConfig(share="podman")
    assert resolve_defaults(c, environ, ROOT) == (
        "/data/containers/storage/libpod",
        "/rt/libpod/tmp",
        "/rt/run",
        "/data/containers/storage",
    )
    assert rundir == [1001]
    assert c.storage_config.graph_driver_name == "vfs"
    assert warnings(caplog) == []


def test_only_what_nobody_set_is_resolved() -> None:
    c = RuntimeConfig(tmp_dir="/t", storage_config=StorageConfig(graph_root="/g"))
    assert resolve_defaults(c, {}, ROOT) == (
        "/var/lib/libpod-core",
        "/t",
        "/t/storage",
        "/g",
    )
    c = RuntimeConfig(share="podman", storage_config=StorageConfig(graph_root="/g"))
    assert resolve_defaults(c, {}, ROOT).static_dir == "/g/libpod"
    everything = RuntimeConfig(
        static_dir="/s",
        tmp_dir="/t",
        storage_config=StorageConfig(run_root="/r", graph_root="/g"),
    )
    before = everything.copy()
    assert resolve_defaults(everything, {}, USER) == ("/s", "/t", "/r", "/g")  # HOME not needed
    assert everything == before


@pytest.mark.parametrize(
    "environ, complaint",
    [
        ({}, "neither XDG_DATA_HOME nor HOME was set non-empty"),
        ({"HOME": "", "XDG_DATA_HOME": ""}, "neither XDG_DATA_HOME nor HOME was set non-empty"),
        ({"HOME": "/nowhere/at/all"}, "cannot resolve /nowhere/at/all: No such file"),
        ({"XDG_DATA_HOME": "data"}, "XDG_DATA_HOME must be an absolute path, found 'data'"),
    ],
)
def test_a_user_without_a_home(environ: dict[str, str], complaint: str, rundir: list[int]) -> None:
    with pytest.raises(ConfigError, match=complaint):
        resolve_defaults(RuntimeConfig(), environ, USER)


# --- the user ----------------------------------------------------------------


def test_is_rootless(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not config.is_rootless({}, ROOT)
    assert not config.is_rootless({"_LIBPOD_USERNS_CONFIGURED": ""}, ROOT)
    assert config.is_rootless({"_LIBPOD_USERNS_CONFIGURED": "done"}, ROOT)
    assert config.is_rootless({}, USER)
    monkeypatch.setattr(os, "getuid", lambda: USER)
    assert config.is_rootless()


def test_rootless_uid(monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.rootless_uid({}, USER) == USER
    assert config.rootless_uid({"_LIBPOD_ROOTLESS_UID": "1001"}, ROOT) == 1001
    monkeypatch.setenv("_LIBPOD_ROOTLESS_UID", "1002")
    assert config.rootless_uid() == 1002
    for bad in ("root", "-1", "1e3", "\u0661"):
        with pytest.raises(ConfigError, match="_LIBPOD_ROOTLESS_UID must be a user ID"):
            config.rootless_uid({"_LIBPOD_ROOTLESS_UID": bad}, ROOT)


def test_the_runtime_directory_is_exported_when_rootless(rundir: list[int]) -> None:
    environ = {"HOME": "/x"}
    config.export_runtime_dir(environ, ROOT)
    assert environ == {"HOME": "/x"}
    config.export_runtime_dir(environ, USER)
    assert environ == {"HOME": "/x", "XDG_RUNTIME_DIR": "/rt"}


# --- saving ------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_the_saved_defaults_load_again(
    tmp_path: Path, umask: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "libpod.conf"
    before = os.umask(umask)
    try:
        save_default_config(str(path))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o7777 == 0o644
    assert os.listdir(tmp_path) == ["libpod.conf"]
    assert load(str(path)) == RuntimeConfig()
    text = path.read_text()
    assert all(f"{field.name} " in text for field in IN_FILE)
    assert warnings(caplog) == []


def test_a_bare_file_name_is_saved_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_default_config("libpod.conf")
    assert load("libpod.conf") == RuntimeConfig()


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("root")
    (tmp_path / "libpod.conf").symlink_to("passwd")
    save_default_config(str(tmp_path / "libpod.conf"))
    assert (tmp_path / "passwd").read_text() == "root"
    assert not (tmp_path / "libpod.conf").is_symlink()


@pytest.mark.parametrize("name", ["directory", "missing/libpod.conf", "file/libpod.conf", ""])
def test_a_place_that_cannot_be_written_leaves_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_text("old")
    with pytest.raises(SystemCallError, match="cannot write configuration file") as caught:
        save_default_config(f"{tmp_path}/{name}")
    assert caught.value.errno != 0
    assert sorted(os.listdir(tmp_path)) == ["directory", "file"]
    assert os.listdir(tmp_path / "directory") == []


def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "libpod.conf"
    path.write_text("max_log_size = 5\n")
    descriptors = os.listdir("/proc/self/fd")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        with pytest.raises(SystemCallError, match="File too large"):
            save_default_config(str(path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "max_log_size = 5\n"
    assert os.listdir(tmp_path) == ["libpod.conf"]
    assert os.listdir("/proc/self/fd") == descriptors


def test_what_would_not_load_again_is_not_saved(tmp_path: Path) -> None:
    for bad in ({"max_log_size": None}, {"tmp_dir": "t"}, {"static_dir": "/\udcff"}):
        with pytest.raises(InvalidArgument):
            save_config(RuntimeConfig(**bad), str(tmp_path / "libpod.conf"))
    assert os.listdir(tmp_path) == []


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
paths = text.map(lambda t: "/" + t)


@hypothesis.settings(deadline=None)  # each example syncs a file
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "image_default_transport": text,
            "signature_policy_path": st.just("") | paths,
            "runtime_path": st.lists(paths, min_size=1),
            "conmon_path": st.lists(paths, min_size=1),
            "conmon_env_vars": st.lists(text.map(lambda t: "A=" + t)),
            "cgroup_manager": st.sampled_from(["cgroupfs", "systemd"]),
            "static_dir": st.none() | paths,
            "tmp_dir": st.none() | paths,
            "max_log_size": st.integers(-(1 << 63), (1 << 63) - 1),
            "no_pivot_root": st.booleans(),
            "cni_config_dir": paths,
            "cni_plugin_dir": st.lists(paths),
            "cni_default_network": text,
            "hooks_dir": st.just("") | paths,
            "hooks_dir_not_exist_fatal": st.booleans(),
            "namespace": text,
            "share": st.sampled_from([None, "podman"]),
        },
    )
)
def test_every_value_survives_saving(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]
) -> None:
    path = str(tmp_path_factory.getbasetemp() / "round-trip.conf")
    saved = RuntimeConfig(**values)
    save_config(saved, path)
    assert load(path) == saved


# --- import ------------------------------------------------------------------


def test_rarely_needed_modules_are_not_imported() -> None:
    script = "import sys, libpod.config; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    )
    assert not {"difflib", "tomllib", "tomli", "libpod.rundir"} & set(done.stdout.split())
