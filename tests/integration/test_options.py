# SPDX-License-Identifier: Apache-2.0
"""What a container is made with, what is made for it, and the verbs that few need."""

from __future__ import annotations

import logging
import os
import stat
import tarfile
from typing import Any

import pytest

from conftest import Dirs, Said, containers_of
from libpod import (
    Container,
    ContainerExists,
    ContainerRemoved,
    ContainerStateInvalid,
    ContainerStopped,
    InvalidArgument,
    LibpodError,
    NoSuchContainer,
    Runtime,
    Spec,
    Status,
    SystemCallError,
    conmon,
)
from libpod.locks import FlockManager
from libpod.state.bolt import BoltState

pytestmark = pytest.mark.any_runtime

SLEEP = ["sleep", "1000"]


def test_what_is_there_by_default(rt: Runtime, box: Spec) -> None:
    config = rt.create(box.but(stop_signal=None), SLEEP).record.config
    directory = rt.store.container_dir(config.id)
    assert config.static_dir == directory
    assert config.log_path == f"{directory}/ctr.log"
    assert (config.shm_dir, config.mounts) == (f"{directory}/shm", [f"{directory}/shm"])
    assert config.shm_size == 65_536_000
    assert (config.stop_signal, config.stop_timeout) == (15, 10)
    assert config.cgroup_parent == "/libpod-core"
    assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
    assert os.listdir(directory) == []  # what is mounted there is made when it is
    assert rt.store.container(config.id).name == config.name


def test_options_reach_the_record(rt: Runtime, box: Spec) -> None:
    c = rt.create(box, SLEEP, name="x", stop_timeout=3, labels={"a": "b"}, log_size_max=77)
    config = rt.state.container(c.id).config
    assert (config.stop_timeout, config.labels, config.log_size) == (3, {"a": "b"}, 77)
    with pytest.raises(AttributeError):  # once it is there, it is as it is
        config.stop_timeout = 4
    with pytest.raises(InvalidArgument, match="dns_servers"):
        rt.create(box, SLEEP, dns_servers=["nonsense"])
    with pytest.raises(InvalidArgument, match="bad"):
        rt.create(box, SLEEP, hosts=["bad"])
    assert [found.id for found in rt.get_containers()] == [c.id] == containers_of_store(rt)


def containers_of_store(rt: Runtime) -> list[str]:
    return [stored.id for stored in rt.store.containers()]


def test_a_name_that_is_taken_leaves_no_storage_behind(rt: Runtime, box: Spec, dirs: Dirs) -> None:
    c = rt.create(box, SLEEP, name="web")
    with pytest.raises(ContainerExists, match="web"):
        rt.create(box, SLEEP, name="web")
    with (
        pytest.raises(ContainerExists, match="web"),
        Runtime(static_dir=dirs.static, tmp_dir=dirs.tmp, namespace="elsewhere") as other,
    ):
        other.create(box, SLEEP, name="web")
    assert containers_of(dirs) == containers_of_store(rt) == [c.id]


def test_a_namespace_keeps_to_its_own(rt: Runtime, box: Spec, dirs: Dirs) -> None:
    outside = rt.create(box, SLEEP)
    with Runtime(static_dir=dirs.static, tmp_dir=dirs.tmp, namespace="n") as other:
        inside = other.create(box, SLEEP)
        assert inside.namespace == "n"
        assert [c.id for c in other.get_containers()] == [inside.id]
        with pytest.raises(NoSuchContainer):
            other.lookup_container(outside.name)
    assert {c.id for c in rt.get_containers()} == {inside.id, outside.id}


def test_artifacts(rt: Runtime, box: Spec) -> None:
    c = rt.create(box, SLEEP)
    c.add_artifact("notes", b"one")
    c.add_artifact("notes", b"two")
    path = f"{c.record.config.static_dir}/artifacts/notes"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o740
    assert c.get_artifact("notes") == b"two"
    c.remove_artifact("notes")
    with pytest.raises(SystemCallError) as caught:
        c.get_artifact("notes")
    assert caught.value.errno == 2
    for name in ("", ".", "..", "a/b", "a\0b"):
        with pytest.raises(InvalidArgument):
            c.add_artifact(name, b"")
    c.remove()
    for call in (lambda: c.add_artifact("x", b""), lambda: c.get_artifact("notes")):
        with pytest.raises(ContainerRemoved):
            call()


def test_what_it_depends_on_must_run(rt: Runtime, box: Spec) -> None:
    base = rt.create(box, SLEEP)
    c = rt.create(box, SLEEP, dependencies=[base], net_ns_from=base)
    assert c.dependencies == [base.id]
    for verb in (c.init, c.start, c.restart):
        with pytest.raises(ContainerStateInvalid, match=f"not started: {base.id}"):
            verb()
    with pytest.raises(ContainerExists, match=f"must be removed before it: {c.id}"):
        base.remove()
    base.start()
    c.start()
    assert c.state.status is Status.RUNNING


def test_clean_up_is_refused_while_it_runs(rt: Runtime, box: Spec) -> None:
    c = rt.start(box, SLEEP)
    with pytest.raises(ContainerStateInvalid, match="refusing to clean up"):
        c.cleanup()
    c.stop()
    c.cleanup()
    assert c.state.status is Status.EXITED
    c.cleanup()  # once more is no error


@pytest.mark.parametrize("before", ["created", "running", "paused", "ended"])
def test_refreshing_brings_it_back_to_where_it_was(rt: Runtime, box: Spec, before: str) -> None:
    c = rt.create(box, SLEEP)
    c.init() if before == "created" else c.start()
    if before == "paused":
        c.pause()
    if before == "ended":
        c.stop()
    then = c.state
    c.refresh()
    now = c.state
    assert now.status is then.status
    assert (now.pid != then.pid) is (before != "ended")
    if before == "paused":
        c.unpause()


def test_a_batch_takes_one_lock_and_saves_once(rt: Runtime, box: Spec) -> None:
    c = rt.start(box, SLEEP)
    pid = c.state.pid

    def work(inside: Container) -> int:
        os.kill(inside.state.pid, 9)
        while not inside._life.running().ended.wait(60):
            pass
        assert inside.state.status is Status.RUNNING  # it looks for nothing new
        inside.sync()
        assert inside.state.status is Status.EXITED
        return inside.state.exit_code

    assert c.batch(work) == 137
    assert (pid, c.state.status) != (c.state.pid, Status.RUNNING)
    with pytest.raises(ZeroDivisionError):
        c.batch(lambda inside: 1 // 0)
    c.remove()  # the lock is free


def test_the_path_of_a_namespace(rt: Runtime, box: Spec) -> None:
    c = rt.create(box, SLEEP)
    with pytest.raises(ContainerStopped, match="cannot get namespace path"):
        c.namespace_path("net")
    c.start()
    assert c.namespace_path("net") == f"/proc/{c.state.pid}/ns/net"
    assert os.stat(c.namespace_path("mnt")).st_ino != os.stat("/proc/self/ns/mnt").st_ino
    with pytest.raises(InvalidArgument, match="nonsense"):
        c.namespace_path("nonsense")


def test_mount_and_export(rt: Runtime, own_rootfs: str, dirs: Dirs) -> None:
    c = rt.create(Spec(rootfs=own_rootfs, stop_signal="KILL"), SLEEP)
    assert c.mount() == own_rootfs
    assert c.mounted() == (False, "")
    c.start()
    assert c.mounted() == (True, own_rootfs)
    with pytest.raises(ContainerStateInvalid, match="cannot unmount"):
        c.unmount()
    c.export(f"{dirs.work}/tree.tar")
    with tarfile.open(f"{dirs.work}/tree.tar") as archive:
        assert {"bin/busybox", "etc/passwd"} <= set(archive.getnames())
    c.stop()
    c.unmount()


def test_queries(rt: Runtime, box: Spec) -> None:
    with pytest.raises(NoSuchContainer):
        rt.get_latest_container()
    one, two = rt.create(box, SLEEP, name="one"), rt.start(box, SLEEP, name="two")
    assert rt.get_latest_container() is two
    assert rt.get_running_containers() == [two]
    assert rt.get_containers_by_list(["two", one.id[:20]]) == [two, one]
    with pytest.raises(NoSuchContainer, match="three"):
        rt.get_containers_by_list(["one", "three"])
    assert rt.get_containers(lambda c: c.name == "one") == [one]
    assert rt.has_container(one.id) and not rt.has_container("f" * 64)
    assert rt.generate_name() not in ("one", "two")


def test_what_cannot_be_refreshed_holds_up_nobody(
    options: dict[str, str], box: Spec, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Runtime(**options) as rt:
        bad, good = (rt.create(box, SLEEP, name=name) for name in ("bad", "good"))
        os.unlink(f"{rt.paths.tmp_dir}/alive")
        give = FlockManager.allocate_given

        def refuse(self: FlockManager, object_id: str, lock_id: int) -> Any:
            if object_id == bad.id:
                raise LibpodError("not this one")
            return give(self, object_id, lock_id)

        monkeypatch.setattr(FlockManager, "allocate_given", refuse)
        with Runtime(**options) as again:
            said.expect(f"error refreshing container {bad.id}: not this one")
            assert again.get_container(good.id).state.status is Status.CONFIGURED
        monkeypatch.undo()
        bad.remove()
        good.remove()


def test_an_opening_that_fails_late_closes_what_it_had_opened(
    options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []
    close = BoltState.close
    monkeypatch.setattr(BoltState, "close", lambda self: (closed.append(self), close(self))[1])
    monkeypatch.setattr(BoltState, "refresh", lambda self: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        Runtime(**options)
    assert len(closed) == 1


def test_no_pivot_root_is_passed_on(options: dict[str, Any], box: Spec, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    with Runtime(**options, no_pivot_root=True) as rt:
        c = rt.create(box, SLEEP)
        assert "--no-pivot" in conmon.arguments(rt.engine.oci, c._life.bundle())
        c.remove()
