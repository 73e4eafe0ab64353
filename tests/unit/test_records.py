# SPDX-License-Identifier: Apache-2.0
"""The JSON of records: names, forms and defaults of podman 4.3.1."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from state_samples import SPEC, identifier

from libpod.state.fields import ZERO_TIME, decode_object, format_time, parse_time
from libpod.state.records import (
    ContainerConfig,
    ContainerState,
    ContainerStatus,
    PodConfig,
    PodState,
    reset_volume,
)

TIMES = [
    (ZERO_TIME, None),
    ("1970-01-01T00:00:00Z", 0),
    ("1970-01-01T00:00:00.000000001Z", 1),
    ("2026-11-22T10:41:20.916247925Z", 1795344080_916247925),
    ("2026-11-22T10:41:20.9Z", 1795344080_900000000),
    ("2024-02-29T23:59:59Z", 1709251199_000000000),
    ("1969-12-31T23:59:59.5Z", -500_000_000),
]


@pytest.mark.parametrize(("text", "nanoseconds"), TIMES)
def test_times(text: str, nanoseconds: int | None) -> None:
    assert parse_time(text) == nanoseconds
    assert format_time(nanoseconds) == text


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2026-11-22T12:41:20+02:00", "2026-11-22T10:41:20Z"),
        ("2026-11-21T23:11:20.25-11:30", "2026-11-22T10:41:20.25Z"),
    ],
)
def test_times_of_other_zones(text: str, same: str) -> None:
    assert parse_time(text) == parse_time(same)


@pytest.mark.parametrize(
    "text",
    """yesterday 2026-11-22 2026-11-22T10:41:20 2026-13-22T10:41:20Z 2026-11-32T10:41:20Z
    2026-11-22T24:00:00Z 0000-01-01T00:00:00Z 2026-11-22T10:41:20.Z 2026-11-22T10:41:20+25:00
    2026-11-22T10:41:20.1234567890Z ٢٠٢٦-11-22T10:41:20Z""".split()
    + [""],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="RFC 3339"):
        parse_time(text)


@given(st.integers(min_value=-(2**61), max_value=2**62))
def test_every_time_comes_back(nanoseconds: int) -> None:
    assert parse_time(format_time(nanoseconds)) == nanoseconds


def test_a_new_container_has_podmans_members_and_defaults() -> None:
    before = time.time_ns()
    config = ContainerConfig(SPEC, id=identifier(1), name="web")
    written = json.loads(config.encode())
    created = parse_time(written.pop("createdTime"))
    assert created is not None
    assert before <= created <= time.time_ns()
    assert list(written)[:3] == ["spec", "id", "name"]
    assert written == {
        "spec": SPEC,
        "id": identifier(1),
        "name": "web",
        "lockID": 0,
        "idMappingsOptions": {
            "HostUIDMapping": True,
            "HostGIDMapping": True,
            "UIDMap": None,
            "GIDMap": None,
            "AutoUserNs": False,
            "AutoUserNsOpts": {
                "Size": 0,
                "InitialSize": 0,
                "PasswdFile": "",
                "GroupFile": "",
                "AdditionalUIDMappings": None,
                "AdditionalGIDMappings": None,
            },
        },
        "Dependencies": None,
        "shmSize": 65536000,
        "staticDir": "",
        "secretsPath": "",
        "storageOpts": None,
        "privileged": False,
        "createNetNS": False,
        "UseImageResolvConf": False,
        "UseImageHosts": False,
        "stopSignal": 15,
        "stopTimeout": 10,
        "cgroupsMode": "enabled",
        "cgroupParent": "",
        "logPath": "",
        "logTag": "",
        "logSize": 0,
        "logDriver": "k8s-file",
        "postConfigureNetNS": False,
        "pause": False,
        "isService": False,
        "sdnotifyMode": "container",
        "healthcheck": None,
        "healthcheck_on_failure_action": 0,
        "umask": "0022",
        "mountAllDevices": False,
    }


def test_a_new_containers_state() -> None:
    assert json.loads(ContainerState(run_dir="/run/1").encode()) == {
        "state": 1,
        "runDir": "/run/1",
        "startedTime": ZERO_TIME,
        "finishedTime": ZERO_TIME,
        "Service": {"servicePods": None},
        "checkpointedTime": ZERO_TIME,
        "restoredTime": ZERO_TIME,
    }


def test_a_new_pod() -> None:
    config = PodConfig(id=identifier(1), name="p", created=0)
    assert json.loads(config.encode()) == {
        "id": identifier(1),
        "name": "p",
        "labels": {},
        "cgroupParent": "",
        "created": "1970-01-01T00:00:00Z",
        "ExitPolicy": "continue",
        "lockID": 0,
        "ResourceLimits": {},
    }
    assert json.loads(PodState().encode()) == {"cgroupPath": "", "InfraContainerID": ""}


RUNNING: dict[str, Any] = {
    "state": 3,
    "configPath": "/U/config.json",
    "runDir": "/RU",
    "mounted": True,
    "mountPoint": "/merged",
    "startedTime": "2026-11-22T12:41:20.123456789+02:00",
    "finishedTime": ZERO_TIME,
    "pid": 77,
    "conmonPid": 76,
    "newExecSessions": {"s": {"id": "s", "containerId": "c", "state": 2, "pid": 9}},
    "networkStatus": {"podman": {"interfaces": {"eth0": {"mac_address": "aa:bb:cc:dd:ee:ff"}}}},
    "bindMounts": {"/dev/shm": "/U/shm"},
    "Service": {"servicePods": None},
    "checkpointedTime": ZERO_TIME,
    "restoredTime": ZERO_TIME,
    "unheardOf": [1, 2.5, None, True, {"x": "ü"}],
}


def test_reading_and_writing_change_nothing() -> None:
    raw = json.dumps(RUNNING).encode()
    state = ContainerState.decode(raw)
    assert json.loads(state.encode()) == RUNNING
    read = [getattr(state, name) for name in ContainerState.names]
    assert len(read) == len(ContainerState.fields)
    assert json.loads(state.encode(raw)) == RUNNING


def test_members_have_types() -> None:
    state = ContainerState.decode(json.dumps(RUNNING).encode())
    assert state.status is ContainerStatus.RUNNING
    assert str(state.status) == "running"
    assert state.started == parse_time("2026-11-22T10:41:20.123456789Z")
    assert state.finished is None
    assert (state.exit_code, state.oom_killed, state.network_results) == (0, False, [])
    state.bind_mounts["/x"] = "/y"
    state.exec_sessions.clear()
    state.finished = 0
    state.status = ContainerStatus.STOPPED
    written = json.loads(state.encode())
    assert written["bindMounts"] == {"/dev/shm": "/U/shm", "/x": "/y"}
    assert "newExecSessions" not in written
    assert (written["state"], written["finishedTime"]) == (4, "1970-01-01T00:00:00Z")


def test_null_is_the_same_as_absent() -> None:
    state = ContainerState.decode(b'{"state":null,"bindMounts":null,"startedTime":null}')
    assert (state.status, state.bind_mounts, state.started) == (ContainerStatus.UNKNOWN, {}, None)
    assert json.loads(state.encode())["state"] == 0


def test_text_without_utf8_can_be_written() -> None:
    stray = b"caf\xe9".decode("utf-8", "surrogateescape")
    config = ContainerConfig(SPEC, id=identifier(1), command=["echo", stray])
    assert ContainerConfig.decode(config.encode()).command == ["echo", stray]


def test_a_config_does_not_change() -> None:
    config = ContainerConfig(SPEC, id=identifier(1), labels={"a": "b"})
    with pytest.raises(AttributeError):
        config.name = "x"
    derived = config.but(name="x")
    assert (config.name, derived.name, derived.id) == ("", "x", config.id)
    assert derived.spec == SPEC
    spec = config.spec
    spec["process"]["args"].append("-x")
    assert config.spec == SPEC
    labels = {"a": "b"}
    derived = config.but(labels=labels)
    labels["c"] = "d"
    assert derived.labels == {"a": "b"}
    for make in (config.but, ContainerState, PodConfig, PodState):
        with pytest.raises(TypeError, match="nmae"):
            make(nmae="x")


ODD_SPECS: dict[str, dict[str, Any]] = {
    "empty": {},
    "an ID inside": {"id": "1", "name": "2"},
    "an ID behind something": {"a": 1, "id": "1", "name": "2"},
    "nested": {"a": {"b": 1, "id": "x", "name": "y"}, "c": {"id": "z"}},
    "the mark as text": {"annotations": {"a": ',"id":"x","name":"'}},
    "the mark as text, escaped": {"annotations": {"a": '\\",\\"id\\":\\"x\\",\\"name\\":\\"'}},
}


@pytest.mark.parametrize("spec", ODD_SPECS.values(), ids=ODD_SPECS)
@pytest.mark.parametrize(
    "order", [["spec", "id", "name"], ["id", "name", "spec"], ["spec", "name", "id"]]
)
def test_the_spec_is_found_wherever_it_stands(spec: dict[str, Any], order: list[str]) -> None:
    values = {"spec": spec, "id": identifier(1), "name": "n"}
    rest = {"lockID": 5, "labels": {"l": "v"}}
    raw = json.dumps({**{name: values[name] for name in order}, **rest}, separators=(",", ":"))
    config = ContainerConfig.decode(raw.encode())
    assert (config.spec, config.id, config.name) == (spec, identifier(1), "n")
    assert (config.lock_id, config.labels) == (5, {"l": "v"})
    again = json.loads(config.but(lock_id=6).encode(raw.encode()))
    assert again["spec"] == spec
    assert again["lockID"] == 6


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["id", "name"]), inner)
        ),
    )
)
def test_any_spec_comes_back(part: Any) -> None:
    config = ContainerConfig({"part": part, "id": part}, id=identifier(1), name="n")
    read = ContainerConfig.decode(config.encode())
    assert read.spec == {"part": part, "id": part}
    assert read == config


def test_a_config_without_a_spec() -> None:
    config = ContainerConfig.decode(b'{"id":"1","name":"n"}')
    with pytest.raises(ValueError, match="spec"):
        _ = config.spec


def test_what_has_no_json_form() -> None:
    with pytest.raises(ValueError, match="JSON"):
        ContainerConfig({"process": object()}, id=identifier(1))
    with pytest.raises(ValueError, match="JSON"):
        ContainerState(run_dir="/r", service={"a": float("nan")}).encode()


def test_what_a_container_needs() -> None:
    config = ContainerConfig(
        SPEC, id="x", dependencies=["d", "a"], ipc_ns_from="a", net_ns_from="b", user_ns_from="a"
    )
    assert config.depends_on == ["a", "b", "d"]
    assert ContainerConfig(SPEC, id="x").depends_on == []


def test_a_volume_after_a_reboot() -> None:
    raw = b'{"mountPoint":"/x","mountCount":3,"uidChowned":5}'
    assert json.loads(reset_volume(raw)) == {"mountCount": 0, "uidChowned": 5}


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_a_value_error(raw: bytes) -> None:
    for kind in (ContainerConfig, ContainerState, PodConfig, PodState):
        try:
            kind.decode(raw)
        except ValueError:
            continue
        assert type(decode_object(raw)) is dict
