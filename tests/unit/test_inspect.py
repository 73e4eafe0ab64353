# SPDX-License-Identifier: Apache-2.0
"""`inspect`: what the comparison with podman cannot show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from libpod.inspect import Memo, Size, container_data, current_spec
from libpod.inspect.host import human_size
from libpod.state.errors import BadRecord
from libpod.state.handles import ContainerRecord, Stored
from libpod.state.paths import RuntimePaths
from libpod.state.records import ContainerConfig, ContainerState, ContainerStatus
from tests.unit.state_samples import SPEC, ctr

PATHS = RuntimePaths("/static", "/tmp", "/run", "/graph", "overlay", "/volumes")


class Stores(NamedTuple):
    layer_id: str = "layer"


def made(spec: dict[str, Any] | None = None, **members: Any) -> ContainerRecord:
    record = ctr(1)
    if spec is not None:
        record._config = ContainerConfig(spec, **{"id": record.id, "name": "one", **members})
    elif members:
        record._config = record.config.but(**members)
    return record


def inspect(record: ContainerRecord, **options: Any) -> dict[str, Any]:
    return container_data(record, paths=PATHS, **options)


def change(value: Any) -> None:
    """Everything that can be changed in it."""
    if isinstance(value, dict):
        for inner in value.values():
            change(inner)
        value["changed"] = True
    elif isinstance(value, list):
        for inner in value:
            change(inner)
        value.append("changed")


def test_the_answer_is_the_callers_own() -> None:
    record = made(
        {**SPEC, "process": {**SPEC["process"], "rlimits": [], "env": ["A=b"]}},
        command=["sh"],
        dns_servers=["1.1.1.1"],
        dns_options=["o"],
        dns_search=["s"],
        hosts=["h:1.1.1.1"],
        groups=["g"],
        labels={"k": "v"},
        create_command=["libpod"],
        chroot_directories=["/c"],
        entrypoint=["e"],
        health_check={"Test": ["CMD", "true"]},
        user_volumes=["/v", "/i"],
        named_volumes=[{"volumeName": "v", "dest": "/v", "options": ["ro", "rprivate"]}],
        image_volumes=[{"source": "i", "dest": "/i"}],
        port_mappings=[{"container_port": 80, "host_port": 8080}],
        exposed_ports={"81": ["tcp"]},
        secrets=[{"name": "n", "id": "i", "UID": 0, "GID": 0, "Mode": 292}],
    )
    before = record.config.encode(), record.state.encode()
    aliases = {"podman": {"aliases": ["a"]}}
    first = inspect(record, networks=aliases, storage=Stores())
    text = json.dumps(first)
    change(first)
    assert (record.config.encode(), record.state.encode()) == before
    assert aliases == {"podman": {"aliases": ["a"]}}
    assert json.dumps(inspect(record, networks=aliases, storage=Stores())) == text


@pytest.mark.parametrize("missing", ["process", "root", "mounts", "linux", "ociVersion"])
def test_a_spec_with_a_part_missing_or_null(missing: str) -> None:
    without = {key: value for key, value in SPEC.items() if key != missing}
    expected = inspect(made(without))
    assert inspect(made({**without, missing: None}))["HostConfig"] == expected["HostConfig"]
    assert inspect(made({}))["Config"]["Hostname"] == "111111111111"
    if missing == "process":
        assert (expected["Path"], expected["Args"], expected["ProcessLabel"]) == ("", [], "")
        assert expected["EffectiveCaps"] is None


@pytest.mark.parametrize(
    "spec",
    [
        {"linux": {"namespaces": [{"path": "/p"}]}},
        {"linux": ["x"]},
        {"process": {"rlimits": [{"type": "RLIMIT_NOFILE"}]}},
        {"linux": {"resources": {"cpu": {"quota": "much", "period": 1}}}},
        {"annotations": 7},
    ],
)
def test_a_spec_that_cannot_be_shown(spec: dict[str, Any]) -> None:
    with pytest.raises(BadRecord, match="memory: bucket ctr/1+, key config: it cannot be shown"):
        inspect(made(spec))


def test_a_record_that_cannot_be_read() -> None:
    record = ContainerRecord("1" * 64, Stored("/db", "ctr/1", b"{", b"{}"))
    with pytest.raises(BadRecord, match="^/db: bucket ctr/1, key config: Expecting"):
        inspect(record)


def test_what_is_not_shown_is_cut_out_and_nothing_else() -> None:
    """Also where an annotation has the name of such a member, and where profiles differ."""
    for number in (1, 2, 1, 1):
        profile = {"defaultAction": "x" * number, "syscalls": [{"names": ['"]}']}] * number}
        spec = {
            **SPEC,
            "annotations": {"seccomp": "s", "mounts": "m", "maskedPaths": '"mounts":[1'},
            "linux": {
                "namespaces": [{"type": "pid"}],
                "seccomp": profile,
                "maskedPaths": ["/proc/kcore"] * number,
                "resources": {"pids": {"limit": 5}},
            },
            "mounts": [{"destination": "/v", "source": "/s", "type": "bind"}],
        }
        for user_volumes in ([], ["/v"]):
            record = made(spec, user_volumes=user_volumes)
            expected = json.loads(json.dumps(spec))
            expected["linux"] |= {"seccomp": None, "maskedPaths": None}
            if not user_volumes:
                expected["mounts"] = None
            assert current_spec(record) == expected
            data = inspect(record)
            assert data["Config"]["Annotations"] == dict(sorted(spec["annotations"].items()))
            assert data["HostConfig"]["PidsLimit"] == 5
            assert data["HostConfig"]["PidMode"] == "private"
            assert data["HostConfig"]["Binds"] == (["/s:/v"] if user_volumes else [])


def test_a_profile_that_is_nested_too_deeply() -> None:
    record = made()
    deep = b'{"linux":{"seccomp":{"a":' + b"[" * 100_000 + b"}}"
    record.config._spec_json = deep
    with pytest.raises(BadRecord, match="nested too deeply"):
        inspect(record)


def test_the_spec_of_the_last_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record = made()
    path = tmp_path / "config.json"
    record.state.config_path = str(path)
    path.write_text(json.dumps({**SPEC, "hostname": "started"}))
    assert inspect(record)["Config"]["Hostname"] == "started"
    assert inspect(record)["OCIConfigPath"] == str(path)
    assert caplog.records == []
    path.write_text('{"hostname":')
    assert inspect(record)["Config"]["Hostname"] == "111111111111"
    assert f"{path}: Expecting value" in caplog.text
    caplog.clear()
    path.unlink()
    assert inspect(record)["Config"]["Hostname"] == "111111111111"
    assert caplog.records == []


@pytest.mark.parametrize(
    ("content", "status"),
    [(None, ""), ("garbage", ""), ('{"Status":"healthy","FailingStreak":2,"X":1}', "healthy")],
)
def test_health(
    content: str | None, status: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = made(health_check={"Test": ["CMD", "true"]})
    record.state.run_dir = str(tmp_path / "userdata")
    if content is not None:
        (tmp_path / "healthcheck.log").write_text(content)
    health = inspect(record)["State"]["Health"]
    assert (health["Status"], list(health)) == (status, ["Status", "FailingStreak", "Log"])
    assert ("healthcheck.log" in caplog.text) is (content == "garbage")


def test_a_systemd_cgroup() -> None:
    record = made(cgroup_manager="systemd", cgroup_parent="machine.slice")
    record.state.status = ContainerStatus.PAUSED
    data = inspect(record)
    assert data["State"]["CgroupPath"] == f"machine.slice/libpod-{record.id}.scope"
    assert data["HostConfig"]["CgroupParent"] == ""


def test_storage() -> None:
    record = made()
    layers = "/graph/overlay"
    assert inspect(record)["GraphDriver"] == {"Name": "overlay", "Data": None}
    record.state.mount_point = f"{layers}/layer/merged"
    assert inspect(record, storage=Stores(), lower=["a", "b"])["GraphDriver"]["Data"] == {
        "LowerDir": f"{layers}/a/diff:{layers}/b/diff",
        "MergedDir": f"{layers}/layer/merged",
        "UpperDir": f"{layers}/layer/diff",
        "WorkDir": f"{layers}/layer/work",
    }
    vfs = container_data(record, paths=PATHS._replace(graph_driver="vfs"), storage=Stores())
    assert vfs["GraphDriver"] == {"Name": "vfs", "Data": None}
    sized = inspect(record, size=Size(1, 2))
    assert (sized["SizeRw"], sized["SizeRootFs"]) == (1, 2)
    assert "SizeRootFs" not in inspect(record, size=Size(1))


def test_the_order_of_mounts() -> None:
    """By kind, then as they were noted; a volume is no bind, too."""
    binds = [
        {"destination": at, "source": f"/src{at}", "type": "bind", "options": ["ro", "z"]}
        for at in ("/b", "/a", "/volume", "/not-asked-for")
    ]
    shown = inspect(
        made(
            {**SPEC, "mounts": binds},
            user_volumes=["/a", "/volume", "/image", "/b", "/gone"],
            named_volumes=[{"volumeName": "v", "dest": "/volume", "options": ["rslave"]}],
            image_volumes=[{"source": "i", "dest": "/image"}],
        )
    )
    mounts = [(m["Type"], m["Destination"], m["RW"], m["Mode"]) for m in shown["Mounts"]]
    assert mounts == [
        ("volume", "/volume", True, ""),
        ("image", "/image", False, ""),
        ("bind", "/a", False, "z"),
        ("bind", "/b", False, "z"),
    ]
    assert shown["HostConfig"]["Binds"] == [
        *("v:/volume:rslave", "/src/a:/a:ro,z", "/src/b:/b:ro,z"),
    ]


def test_a_block_device_that_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    limit = {"major": 4000, "minor": 4, "rate": 5}
    spec = {**SPEC, "linux": {"resources": {"blockIO": {"throttleReadBpsDevice": [limit]}}}}
    host = inspect(made(spec))["HostConfig"]
    assert host["BlkioDeviceReadBps"] == [{"Path": "", "Rate": 5}]
    assert "4000:4" in caplog.text


def test_the_runtime_that_a_record_does_not_name() -> None:
    assert inspect(made(), oci_path="/usr/bin/crun")["OCIRuntime"] == "crun"


def test_a_fresh_record() -> None:
    config = ContainerConfig(SPEC, id="2" * 64, name="two")
    data = inspect(ContainerRecord.new(config, ContainerState()))
    assert (data["State"]["Status"], data["State"]["Running"]) == ("created", False)
    assert data["State"]["StartedAt"] == "0001-01-01T00:00:00Z"
    assert data["Created"].endswith("Z")


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1kB"), (10000, "10kB"), (1234567, "1.235MB"),
     (2**63 - 1, "9.223EB")],
)  # fmt: skip
def test_sizes_as_people_read_them(size: int, text: str) -> None:
    assert human_size(size) == text


# --- the answer that is kept ----------------------------------------------------------


def read_anew(record: ContainerRecord) -> ContainerRecord:
    """What another reading of the same database gives."""
    stored = Stored("/db", "ctr/1", record.config.encode(), record.state.encode())
    anew = ContainerRecord(record.id, stored)
    for name in ("name", "namespace", "pod_id", "netns"):
        setattr(anew, name, getattr(record, name))
    return anew


def test_an_answer_is_kept_while_nothing_changes() -> None:
    memo, made = Memo(), []

    def ask(record: ContainerRecord) -> dict[str, Any]:
        def make() -> dict[str, Any]:
            made.append(record)
            return inspect(record)

        return memo.ask(record, make)

    record = made_record = read_anew(ctr(1))
    first = ask(record)
    text = json.dumps(first)
    change(first)
    assert json.dumps(ask(read_anew(record))) == text
    assert len(made) == 1
    record = read_anew(record)
    record.state.exit_code = 7
    assert ask(read_anew(record))["State"]["ExitCode"] == 7
    assert ask(read_anew(made_record))["State"]["ExitCode"] == 0
    other = read_anew(ctr(1))
    other.netns = "/run/netns/one"
    assert ask(other)["NetworkSettings"]["SandboxKey"] == "/run/netns/one"
    assert len(made) == 4


def test_an_answer_is_not_kept_when_the_config_json_changes(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    record = ctr(1)
    record.state.config_path = str(path)
    memo = Memo()
    for hostname in ("one", "two"):
        path.write_text(json.dumps({**SPEC, "hostname": hostname}))
        for _ in range(2):
            found = memo.ask(record, lambda: inspect(record))
            assert found["Config"]["Hostname"] == hostname
    path.unlink()
    assert memo.ask(record, lambda: {"made": "anew"}) == {"made": "anew"}


def test_an_answer_with_health_checks_is_not_kept() -> None:
    record = made(SPEC, health_check={"Test": ["CMD", "true"]})
    memo = Memo()
    assert memo.ask(record, lambda: {"asked": 1}) != memo.ask(record, lambda: {"asked": 2})
