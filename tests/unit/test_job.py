# SPDX-License-Identifier: Apache-2.0
"""The values that people write: what they accept, refuse, print and compare as."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libpod.errors import InvalidArgument, NotBuilt
from libpod.job import CAPABILITIES, Limits, Mount, Spec, parse_signal, parse_size, tmpfs_options

FULL: dict[str, Any] = {
    "rootfs": "rootfs",
    "command": ["sh", "-c", "exit 1"],
    "entrypoint": ["/init"],
    "name": "web-1",
    "env": {"CI": "1"},
    "workdir": "/src",
    "user": "1000:1000",
    "hostname": "box",
    "read_only": True,
    "tmpfs": {"/tmp": "64M", "/run": ""},
    "mounts": [Mount("/etc", "/host/etc", read_only=True)],
    "network": "host",
    "cap_add": ["net_raw"],
    "cap_drop": ["CAP_CHOWN"],
    "privileged": True,
    "limits": Limits(memory="512M", swap=0, cpus=1, pids=128, output="4M"),
    "ulimits": {"nofile": "10:20", "core": 0, "stack": (5, -1)},
    "labels": {"a": "b"},
    "stop_signal": "INT",
    "terminal": True,
    "stdin": True,
    "key": ("job", 1),
}


# --- words ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, size",
    [
        ("0", 0),
        ("7b", 7),
        ("1k", 1024),
        ("512M", 512 << 20),
        ("512MiB", 512 << 20),
        ("2 gb", 2 << 30),
        ("1.5g", 3 << 29),
        ("1t", 1 << 40),
        (42, 42),
        (2**63 - 1, 2**63 - 1),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "M", "-1", "1x", "1.k", "0x10", "1e3", -1, True, 1.5, None, 2**63, "9" * 5000, "9p" * 2],
)
def test_what_is_no_size(text: Any) -> None:
    with pytest.raises(InvalidArgument, match="memory"):
        parse_size(text, "memory")


@given(st.integers(0, 2**53), st.sampled_from(["", "k", "m", "g"]))
def test_sizes_scale_by_1024(number: int, unit: str) -> None:
    expected = number * 1024 ** ["", "k", "m", "g"].index(unit)
    if expected < 2**63:
        assert parse_size(f"{number}{unit}") == expected == parse_size(f"{number}{unit.upper()}")


@pytest.mark.parametrize(
    "value, number",
    [
        ("TERM", 15),
        ("SIGTERM", 15),
        ("sigint", 2),
        ("9", 9),
        (64, 64),
        ("RTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("rtmax-1", 63),
    ],
)
def test_signals(value: str | int, number: int) -> None:
    assert parse_signal(value) == number


@pytest.mark.parametrize(
    "value",
    [
        "",
        "0",
        "65",
        "NOSUCH",
        "TERM+1",
        "RTMIN-1",
        "RTMAX+1",
        "RTMIN+31",
        "-1",
        0,
        65,
        True,
        None,
        1.0,
    ],
)
def test_what_is_no_signal(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="signal"):
        parse_signal(value)


def test_capabilities_are_in_the_kernels_order() -> None:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    assert len(set(CAPABILITIES)) == len(CAPABILITIES) == 41
    assert last <= 40, "the kernel has capabilities that the table lacks"
    assert [CAPABILITIES.index(f"CAP_{name}") for name in ("CHOWN", "SYS_ADMIN", "BPF")] == [
        0,
        21,
        39,
    ]


# --- tmpfs ----------------------------------------------------------------------

PODMAN_TMPFS = {"rw", "rprivate", "nosuid", "nodev", "tmpcopyup"}


@pytest.mark.parametrize(
    "value, options",
    [
        ("", PODMAN_TMPFS),
        ("64M", PODMAN_TMPFS | {"size=67108864"}),
        (4096, PODMAN_TMPFS | {"size=4096"}),
        ("rw,size=64m,mode=1777", PODMAN_TMPFS | {"size=67108864", "mode=1777"}),
        ("size=50%", PODMAN_TMPFS | {"size=50%"}),
        ("ro,noexec", PODMAN_TMPFS - {"rw"} | {"ro", "noexec"}),
        ("exec,suid,dev,notmpcopyup", {"rw", "rprivate", "exec", "suid", "dev"}),
    ],
)
def test_tmpfs_options(value: str | int, options: set[str]) -> None:
    found = tmpfs_options("/tmp", value)
    assert set(found) == options
    assert len(found) == len(options)


@pytest.mark.parametrize(
    "value",
    ["uid=3", "size=", "size=0", 0, "0", "mode=9", "rw,ro", "exec,noexec", None, True, b"1"],
)
def test_bad_tmpfs_options_name_the_path(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="/scratch"):
        Spec(rootfs="r", tmpfs={"/scratch": value})


# --- limits ---------------------------------------------------------------------


def test_limits_are_parsed() -> None:
    limits = Limits(memory="512M", swap="1g", cpus=1.5, pids=128, output="4M")
    assert (limits.memory, limits.swap, limits.cpus) == (512 << 20, 1 << 30, 1.5)
    assert (limits.pids, limits.output) == (128, 4 << 20)
    assert repr(Limits()) == "Limits()"
    assert repr(Limits(memory=1, swap=0)) == "Limits(memory=1, swap=0)"


@pytest.mark.parametrize(
    "field, value",
    [
        ("memory", 0),
        ("memory", "lots"),
        ("memory", True),
        ("swap", -1),
        ("cpus", 0),
        ("cpus", 0.001),
        ("cpus", float("nan")),
        ("cpus", float("inf")),
        ("cpus", "1"),
        ("cpus", True),
        ("pids", -2),
        ("pids", 1.0),
        ("pids", "5"),
        ("output", -1),
    ],
)
def test_bad_limits_name_the_field(field: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=rf"^{field} "):
        Limits(**{"memory": "1M", field: value})


def test_swap_needs_memory() -> None:
    with pytest.raises(InvalidArgument, match=r"^swap .*set memory too"):
        Limits(swap="1M")


def test_memory_and_swap_fit_together() -> None:
    with pytest.raises(InvalidArgument, match="memory plus swap"):
        Limits(memory=2**62, swap=2**62)


# --- mounts ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, mount",
    [
        ("/src:/dst", Mount("/src", "/dst")),
        ("/src:/dst:ro", Mount("/src", "/dst", read_only=True)),
        ("./src:/a/../dst/:rw,z", Mount("./src", "/dst", options=["z"])),
        ("/s:/d:ro,Z,rshared,nosuid", Mount("/s", "/d", True, ("Z", "rshared", "nosuid"))),
        ("/s:/d:", Mount("/s", "/d")),
    ],
)
def test_volumes(text: str, mount: Mount) -> None:
    assert Mount.parse(text) == mount


@pytest.mark.parametrize(
    "text",
    [
        "/s:/d:bad",
        "/s:d",
        "/s:/",
        "/s:/..",
        "/s:",
        ":/d",
        "/s:/d:ro:z",
        "/s:/d:ro,rw",
        "/s:/d:shared,private",
        "/s:/d:bind,rbind",
        "/s\0:/d",
    ],
)
def test_bad_volumes(text: str) -> None:
    with pytest.raises(InvalidArgument):
        Mount.parse(text)


@pytest.mark.parametrize("text", ["data:/d", "/anonymous", "/s:/d:U", "/s:/d:O", "/s:/d:idmap=x"])
def test_volumes_that_are_not_built(text: str) -> None:
    with pytest.raises(NotBuilt):
        Mount.parse(text)


def test_read_only_is_no_option() -> None:
    with pytest.raises(InvalidArgument, match="read_only"):
        Mount("/s", "/d", options=["ro"])


# --- spec -----------------------------------------------------------------------


def test_what_was_given_is_kept() -> None:
    spec = Spec(**FULL)
    assert spec.command == ("sh", "-c", "exit 1")
    assert spec.cap_add == ("CAP_NET_RAW",)
    assert spec.ulimits == {"nofile": (10, 20), "core": (0, 0), "stack": (5, -1)}
    assert spec.stop_signal == 2
    assert spec.limits.pids == 128


def test_repr_shows_only_what_was_set() -> None:
    assert repr(Spec("alpine")) == "Spec(image='alpine')"
    spec = Spec(rootfs="r", limits=Limits(cpus=1), key=0)
    assert repr(spec) == "Spec(rootfs='r', limits=Limits(cpus=1), key=0)"
    assert eval(repr(Spec(**FULL))) == Spec(**FULL)


def test_equal_specs_are_one_key() -> None:
    a, b = Spec(**FULL), Spec(**FULL)
    assert a == b
    assert hash(a) == hash(b)
    assert len({a, b, a.but(name="other"), a.but(env={})}) == 3
    assert a != FULL
    assert Limits() != Mount("/s", "/d")


def test_specs_are_frozen() -> None:
    spec = Spec(**FULL)
    with pytest.raises(AttributeError, match=r"frozen.*but"):
        spec.name = "other"
    with pytest.raises(AttributeError, match="frozen"):
        del spec.name
    with pytest.raises(AttributeError):
        spec.unknown = 1
    with pytest.raises(TypeError):
        spec.env["CI"] = "2"  # type: ignore[index]


def test_later_changes_of_the_source_do_not_reach_the_spec() -> None:
    env, command = {"A": "1"}, ["sh"]
    spec = Spec(rootfs="r", env=env, command=command)
    env["A"] = "2"
    command.append("-c")
    assert spec.env == {"A": "1"}
    assert spec.command == ("sh",)


@pytest.mark.parametrize("value", [Spec(**FULL), Spec("i"), Limits(memory=1), Mount("/s", "/d")])
def test_values_pickle_and_copy(value: Any) -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(value, protocol)) == value
    assert copy.deepcopy(value) == copy.copy(value) == value


def test_but_changes_and_checks() -> None:
    spec = Spec(**FULL)
    derived = spec.but(command=["true"], key=2)
    assert (derived.command, derived.key) == (("true",), 2)
    assert derived.but(command=spec.command, key=spec.key) == spec
    assert Spec("a").but(image=None, rootfs="r") == Spec(rootfs="r")
    assert spec.but(env=None, limits=Limits()).env == {}
    with pytest.raises(InvalidArgument):
        spec.but(workdir="here")
    with pytest.raises(TypeError):
        spec.but(comand=["true"])


def test_image_or_rootfs() -> None:
    neither: dict[str, Any] = {}
    for arguments in (neither, {"image": "a", "rootfs": "b"}):
        with pytest.raises(InvalidArgument, match="image and rootfs"):
            Spec(**arguments)
    assert Spec(rootfs=Path("/a/b")).rootfs == "/a/b"
    assert Spec("localhost/python:3").image == "localhost/python:3"


@pytest.mark.parametrize(
    "field, value",
    [
        ("image", 5),
        ("rootfs", ""),
        ("rootfs", 5),
        ("command", "ls"),
        ("command", ["a", 1]),
        ("command", ["a\0b"]),
        ("command", ["\udcff"]),
        ("command", 5),
        ("entrypoint", "ls"),
        ("name", "-a"),
        ("name", "a/b"),
        ("env", {"": "x"}),
        ("env", {"A=B": "x"}),
        ("env", {"A": 1}),
        ("env", ["A=1"]),
        ("workdir", "src"),
        ("user", ""),
        ("user", True),
        ("hostname", "a b"),
        ("hostname", "a" * 65),
        ("read_only", 1),
        ("tmpfs", {"tmp": ""}),
        ("tmpfs", {"/": ""}),
        ("mounts", ["/a:/b"]),
        ("cap_add", ["NOSUCH"]),
        ("cap_add", "CHOWN"),
        ("cap_drop", [""]),
        ("limits", {"memory": 1}),
        ("ulimits", {"nosuch": 1}),
        ("ulimits", {"core": "5:2"}),
        ("ulimits", {"core": "-1:2"}),
        ("ulimits", {"core": "1:2:3"}),
        ("ulimits", {"core": "x"}),
        ("ulimits", {"core": -2}),
        ("ulimits", {"core": True}),
        ("ulimits", {"core": ()}),
        ("labels", {"a": None}),
        ("stop_signal", "NOSUCH"),
        ("terminal", None),
        ("key", []),
        ("key", ([],)),
    ],
)
def test_bad_fields_are_named(field: str, value: Any) -> None:
    arguments = {field: value} if field in ("image", "rootfs") else {"rootfs": "r", field: value}
    named = {"stop_signal": "signal"}.get(field, field)
    with pytest.raises(InvalidArgument, match=named):
        Spec(**arguments)


def test_a_long_value_does_not_flood_the_message() -> None:
    with pytest.raises(InvalidArgument) as caught:
        Spec(rootfs="r", workdir="x" * 100_000)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("network", ["bridge", "container:x", "slirp4netns", ""])
def test_other_networks_are_not_built(network: str) -> None:
    with pytest.raises(NotBuilt, match=repr(network)):
        Spec(rootfs="r", network=network)


def test_contradicting_capabilities() -> None:
    with pytest.raises(InvalidArgument, match="CAP_CHOWN"):
        Spec(rootfs="r", cap_add=["chown"], cap_drop=["CAP_CHOWN"])
    with pytest.raises(InvalidArgument, match="all caps"):
        Spec(rootfs="r", cap_add=["all"], cap_drop=["ALL"])
    assert Spec(rootfs="r", cap_add=["all", "chown", "Chown"]).cap_add == ("ALL", "CAP_CHOWN")


def test_two_things_at_one_place() -> None:
    here = Mount("/s", "/a")
    for arguments in (
        {"mounts": [here, Mount("/t", "/b/../a")]},
        {"mounts": [here], "tmpfs": {"/a/": ""}},
        {"tmpfs": {"/a/": "", "/a": ""}},
    ):
        with pytest.raises(InvalidArgument, match="/a: duplicate mount destination"):
            Spec(rootfs="r", **arguments)


def test_a_numeric_user() -> None:
    assert Spec(rootfs="r", user=0).user == "0"
