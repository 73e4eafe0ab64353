# SPDX-License-Identifier: Apache-2.0
"""The options of a new container: which member each fills, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from libpod import options
from libpod.errors import ContainerRemoved, InvalidArgument, NotBuilt
from libpod.names import new_id
from libpod.state.records import ContainerConfig


class Record:
    valid = True


class Other:
    """As much of a container as an option looks at."""

    def __init__(self, pod_id: str = "", valid: bool = True) -> None:
        self.id = new_id()
        self.pod_id = pod_id
        self.record = Record()
        self.record.valid = valid


OTHER = Other()
ROWS: list[tuple[str, Any, str, Any]] = [
    ("labels", {"a": "b"}, "labels", {"a": "b"}),
    ("stdin", True, "stdin", True),
    ("stop_signal", "HUP", "stop_signal", 1),
    ("stop_signal", 9, "stop_signal", 9),
    ("stop_timeout", 0, "stop_timeout", 0),
    ("stop_timeout", 1.2, "stop_timeout", 2),
    ("log_path", "/l", "log_path", "/l"),
    ("log_size_max", 7, "log_size", 7),
    ("cgroup_parent", "/p", "cgroup_parent", "/p"),
    ("shm_dir", Path("/s"), "shm_dir", "/s"),
    ("shm_size", 4096, "shm_size", 4096),
    ("shm_private", True, "no_shm_share", True),
    ("privileged", True, "privileged", True),
    ("user", "1:2", "user", "1:2"),
    ("groups", ("a", "b"), "groups", ["a", "b"]),
    ("hosts", ["a:1.2.3.4"], "hosts", ["a:1.2.3.4"]),
    ("dns_servers", ["1.1.1.1", "::1"], "dns_servers", ["1.1.1.1", "::1"]),
    ("dns_search", ["x.org"], "dns_search", ["x.org"]),
    ("dns_options", ["ndots:2"], "dns_options", ["ndots:2"]),
    ("conmon_pid_file", "/c.pid", "conmon_pid_file", "/c.pid"),
    ("pid_file", "/p.pid", "pid_file", "/p.pid"),
    ("namespace", "n", "namespace", "n"),
    ("process_label", "p", "process_label", "p"),
    ("mount_label", "m", "mount_label", "m"),
    ("network_mode", "host", "network_mode", "host"),
    ("user_volumes", ["/v"], "user_volumes", ["/v"]),
    ("entrypoint", [], "entrypoint", []),
    ("command", ["sh", "-c"], "command", ["sh", "-c"]),
    ("create_command", ["libpod", "create"], "create_command", ["libpod", "create"]),
    ("dependencies", [OTHER, OTHER], "dependencies", [OTHER.id]),
    *(
        (f"{kind}_ns_from", OTHER, f"{kind}_ns_from", OTHER.id)
        for kind in ("ipc", "mount", "net", "pid", "user", "uts", "cgroup")
    ),
]


@pytest.mark.parametrize(("name", "value", "member", "expected"), ROWS)
def test_each_option_fills_its_member(name: str, value: Any, member: str, expected: Any) -> None:
    found = options.members({name: value})
    assert found == {member: expected}
    config = ContainerConfig({}, id=new_id(), name="x", **found)
    assert getattr(config, member) == expected


def test_every_option_has_a_test() -> None:
    assert {row[0] for row in ROWS} == set(options.OPTIONS)


def test_what_is_none_is_not_given() -> None:
    assert options.members(dict.fromkeys((*options.OPTIONS, "image", "pod"))) == {}


def test_what_is_given_is_copied() -> None:
    labels, words = {"a": "b"}, ["x"]
    found = options.members({"labels": labels, "command": words})
    labels["a"] = words[0] = "changed"
    assert found == {"labels": {"a": "b"}, "command": ["x"]}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("labels", ["a=b"]),
        ("labels", {"a": 1}),
        ("stdin", 1),
        ("stop_signal", 0),
        ("stop_signal", 65),
        ("stop_signal", "NOSUCH"),
        ("stop_timeout", -1),
        ("stop_timeout", float("nan")),
        ("stop_timeout", "5"),
        ("log_path", ""),
        ("log_path", "/a:b"),
        ("cgroup_parent", ""),
        ("cgroup_parent", "/system.slice"),
        ("shm_size", -1),
        ("shm_size", True),
        ("user", "a\0b"),
        ("groups", "wheel"),
        ("hosts", 3),
        ("dns_servers", ["1.1.1"]),
        ("dns_servers", "1.1.1.1"),
        ("command", [1]),
        ("net_ns_from", "a-name"),
        ("net_ns_from", Other(pod_id="p")),
        ("dependencies", ["a-name"]),
    ],
)
def test_what_has_no_meaning_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=f"create option {name}"):
        options.members({name: value})


@pytest.mark.parametrize("name", ["ipc_ns_from", "dependencies"])
def test_a_container_that_is_gone_cannot_be_joined(name: str) -> None:
    gone = Other(valid=False)
    with pytest.raises(ContainerRemoved):
        options.members({name: [gone] if name == "dependencies" else gone})


@pytest.mark.parametrize(
    "name", ["image", "id_mappings", "net_ns", "pod", "local_volumes", "exit_command"]
)
def test_what_comes_later_says_so(name: str) -> None:
    with pytest.raises(NotBuilt, match=name):
        options.members({name: "x"})


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(TypeError, match="'lables'; did you mean 'labels'"):
        options.members({"lables": {}})
