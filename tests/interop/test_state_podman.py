# SPDX-License-Identifier: Apache-2.0
"""One database for the real podman and for this library."""

from __future__ import annotations

import json
import os
import random
import threading
from typing import Any

import pytest

from libpod.errors import ContainerExists, DBBadConfig, NoSuchContainer
from libpod.names import new_id
from libpod.state.bolt import BoltState
from libpod.state.handles import ContainerRecord, PodRecord
from libpod.state.paths import RuntimePaths
from libpod.state.records import ContainerStatus, PodConfig
from tests.interop.oracle import Oracle
from tests.interop.podman import Podman

OPERATIONS = int(os.environ.get("STATE_INTEROP_OPERATIONS", "60"))


def twin(record: ContainerRecord, name: str, **members: Any) -> ContainerRecord:
    """A new container like one of podman's, in directories of its own."""
    key = new_id()
    move = {"static_dir": record.config.static_dir.replace(record.id, key)}
    move["log_path"] = record.config.log_path.replace(record.id, key)
    move["shm_dir"] = record.config.shm_dir.replace(record.id, key)
    config = record.config.but(id=key, name=name, mounts=[], **move, **members)
    state = record.state.but(run_dir=record.state.run_dir.replace(record.id, key))
    return ContainerRecord.new(config, state)


def test_every_record_of_podman_reads_and_writes_back_the_same(
    podman: Podman, state: BoltState
) -> None:
    one = podman.create("one", "--label", "a=é", "--env", "X=1", "--umask", "0077", "--tty")
    options = ["--health-cmd", "true", "--restart", "on-failure:3", "--pid", "container:one"]
    two = podman.create("two", "--requires", "one", "--volume", "data:/data:ro", *options)
    three = podman.create("three", "--uidmap", "0:1000:10", "--memory", "64m", "--user", "5:5")
    podman("pod", "create", "--name", "pod", "--infra=false", "--label", "k=v")
    four = podman.create("four", "--pod", "pod", "--add-host", "h:1.2.3.4", "--rm")
    bridged = podman("create", "--name", "five", "--publish", "8081:80", "--dns", "1.1.1.1",
                     "--rootfs", str(podman.directory / "rootfs"), "/bin/sh")  # fmt: skip
    found = {record.name: record for record in state.all_containers()}
    expected = {"one": one, "two": two, "three": three, "four": four, "five": bridged}
    assert {name: record.id for name, record in found.items()} == expected
    pods = state.all_pods()
    for record in (*found.values(), *pods):
        for part, raw in (
            (record.config, record.stored.config),
            (record.state, record.stored.state),
        ):
            assert raw is not None
            assert json.loads(part.encode(raw)) == json.loads(raw)
    assert [record.id for record in state.pod_containers(pods[0])] == [four]
    assert state.lookup_container("four").pod_id == pods[0].id
    assert pods[0].config.labels == {"k": "v"}
    assert state.container_in_use(found["one"]) == [two]
    assert found["two"].config.depends_on == [one]
    assert found["one"].config.labels == {"a": "é"}
    assert found["one"].state.status is ContainerStatus.CONFIGURED
    rows = podman.ps()
    for name, record in found.items():
        assert rows[name]["Created"] == (record.config.created or 0) // 1_000_000_000
        assert rows[name]["Command"] == record.config.command
        assert record.config.spec["process"]["args"] == record.config.command


def test_what_we_save_podman_shows_and_nothing_else_changes(
    podman: Podman, state: BoltState, oracle: Oracle
) -> None:
    podman.create("one")
    podman.create("two", "--requires", "one")
    before = podman.ps()
    inspected = json.loads(podman("inspect", "two"))
    record = state.lookup_container("one")
    record.state.status = ContainerStatus.EXITED
    record.state.exit_code = 42
    record.state.exited = True
    record.state.started = 1_700_000_000 * 10**9
    record.state.finished = 1_700_000_001 * 10**9 + 5
    state.save_container(record, exit_code=42)
    assert oracle.ask("check", podman.database) == "OK"
    after = podman.ps()
    shown = ("State", "ExitCode", "Exited", "StartedAt", "ExitedAt")
    assert [after["one"][key] for key in shown] == ["exited", 42, True, 1700000000, 1700000001]
    for name in before:
        for key in set(before[name]) - {*shown, "Status", "CreatedAt"}:
            assert after[name][key] == before[name][key]
    assert json.loads(podman("inspect", "two")) == inspected
    again = json.loads(podman("inspect", "one"))[0]["State"]
    assert (again["Status"], again["ExitCode"]) == ("exited", 42)


def test_a_container_that_we_rename(podman: Podman, state: BoltState) -> None:
    podman.create("one")
    podman("pod", "create", "--name", "pod", "--infra=false")
    two = podman.create("two", "--pod", "pod")
    state.rename_container(state.lookup_container("two"), "renamed")
    assert set(podman.ps()) == {"one", "renamed"}
    assert json.loads(podman("inspect", "renamed"))[0]["Id"] == two
    with pytest.raises(NoSuchContainer):
        state.lookup_container("two")


def test_podman_refreshes_a_handle(podman: Podman, state: BoltState) -> None:
    podman.create("one")
    record = state.lookup_container("one")
    assert record.config.name == "one"
    podman("rename", "one", "uno")
    state.update_container(record)
    assert (record.name, record.config.name) == ("uno", "uno")


def test_what_we_add_podman_lists_and_removes(
    podman: Podman, state: BoltState, oracle: Oracle
) -> None:
    podman.create("model")
    model = state.lookup_container("model")
    one = twin(model, "one", labels={"made": "here"}, lock_id=900)
    state.add_container(one)
    state.add_container(twin(model, "two", dependencies=[one.id], lock_id=901))
    holder = PodRecord.new(
        PodConfig(id=new_id(), name="pod", cgroup_parent="/libpod_parent", lock_id=902)
    )
    state.add_pod(holder)
    state.add_container_to_pod(holder, twin(model, "three", pod=holder.id, lock_id=903))
    assert oracle.ask("check", podman.database) == "OK"
    rows = podman.ps()
    assert set(rows) == {"model", "one", "two", "three"}
    assert (rows["one"]["Labels"], rows["one"]["State"]) == ({"made": "here"}, "created")
    assert rows["three"]["Pod"] == holder.id
    assert podman("pod", "ps", "--format", "{{.Name}} {{.NumberOfContainers}}") == "pod 1"
    assert "dependent containers" in _refusal(podman, "rm", "one")
    for name in ("two", "one", "three"):
        podman("rm", name)
    podman("pod", "rm", "pod")
    assert [record.name for record in state.all_containers()] == ["model"]
    assert state.all_pods() == []
    assert oracle.ask("check", podman.database) == "OK"


def _refusal(podman: Podman, *words: str) -> str:
    with pytest.raises(AssertionError) as caught:
        podman(*words)
    return str(caught.value)


def test_what_we_remove_podman_no_longer_knows(podman: Podman, state: BoltState) -> None:
    podman.create("one", "--volume", "data:/data")
    podman.create("two", "--requires", "one")
    with pytest.raises(ContainerExists):
        state.remove_container(state.lookup_container("one"))
    state.remove_container(state.lookup_container("two"))
    state.remove_container(state.lookup_container("one"))
    assert podman.ps() == {}
    podman("volume", "rm", "data")
    podman("rm", "--force", "one", "two", fails=True)  # their storage


def test_a_refresh_of_ours_is_one_of_podmans(podman: Podman, state: BoltState) -> None:
    podman.create("one")
    record = state.lookup_container("one")
    record.state.status = ContainerStatus.RUNNING
    record.state.pid = 1
    state.save_container(record)
    state.refresh()
    row = podman.ps()["one"]
    assert (row["State"], row["Pid"]) == ("created", 0)


def test_podmans_directories_are_adopted_or_refused(podman: Podman) -> None:
    podman.create("one")
    elsewhere = RuntimePaths("/s", "/t", "/r", "/g", "vfs", "/v")
    state = BoltState(str(podman.database), elsewhere)
    assert state.paths == podman.paths()._replace(graph_driver="vfs")  # podman recorded none
    state.close()
    for member in ("static_dir", "tmp_dir", "run_root", "graph_root", "volume_path"):
        with pytest.raises(DBBadConfig):
            BoltState(str(podman.database), elsewhere, {member})
    assert set(podman.ps()) == {"one"}


def test_a_database_of_ours_opens_in_podman(fresh: Podman, oracle: Oracle) -> None:
    fresh.database.parent.mkdir(parents=True)
    state = fresh.state()
    assert oracle.ask("check", fresh.database) == "OK"
    assert fresh.ps() == {}
    fresh.create("one")
    assert [record.name for record in state.all_containers()] == ["one"]
    state.close()


def test_both_at_once(podman: Podman, state: BoltState, oracle: Oracle) -> None:
    podman.create("model")
    model = state.lookup_container("model")
    ours: set[str] = set()
    theirs: set[str] = set()
    failures: list[BaseException] = []
    draw = random.Random(4)

    def as_podman() -> None:
        try:
            for number in range(OPERATIONS // 6):
                podman.create(f"podman{number}")
                theirs.add(f"podman{number}")
                if number % 3 == 1:
                    podman("rm", f"podman{number}")
                    theirs.remove(f"podman{number}")
        except BaseException as error:
            failures.append(error)

    other = threading.Thread(target=as_podman)
    other.start()
    for number in range(OPERATIONS):
        record = twin(model, f"ours{number}", lock_id=1000 + number)
        state.add_container(record)
        ours.add(record.name)
        record.state.exit_code = number
        state.save_container(record)
        if draw.random() < 0.4:
            gone = state.lookup_container(draw.choice(sorted(ours)))
            state.remove_container(gone)
            ours.remove(gone.name)
    other.join()
    assert failures == []
    assert oracle.ask("check", podman.database) == "OK"
    everybody = {"model"} | ours | theirs
    assert set(podman.ps()) == everybody
    assert {record.name for record in state.all_containers()} == everybody
    for record in state.all_containers():
        if record.name in ours:
            assert record.state.exit_code == int(record.name.removeprefix("ours"))
