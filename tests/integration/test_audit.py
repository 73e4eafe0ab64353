# SPDX-License-Identifier: Apache-2.0
"""`Runtime.audit` and `sweep`: each kind of leak, made on purpose; and what is no leak."""

from __future__ import annotations

import os
import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from conftest import Dirs, Said
from libpod import Container, Runtime, Spec, Status, audit
from libpod.audit import Leak

pytestmark = pytest.mark.any_runtime

OLD = time.time() - 100


def new_id() -> str:
    return secrets.token_hex(32)


def only(leaks: list[Leak], kind: str) -> Leak:
    """The one leak there is."""
    assert [leak.kind for leak in leaks] == [kind], leaks
    assert leaks[0].what and leaks[0].remedy
    return leaks[0]


def swept(runtime: Runtime, *kinds: str) -> list[Leak]:
    """A sweep clears what the audit tells, each once, and leaves nothing."""
    told = runtime.audit()
    assert sorted(leak.kind for leak in told) == sorted(kinds), told
    assert len({(leak.kind, leak.what) for leak in told}) == len(told)
    cleared = runtime.sweep()
    assert {(leak.kind, leak.what) for leak in told} <= {(leak.kind, leak.what) for leak in cleared}
    assert runtime.audit() == []
    return told


def write(path: str, text: str = "", age: float = 100) -> str:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
    os.utime(path, (time.time() - age,) * 2)
    return path


@contextmanager
def claimed(runtime: Runtime, container_id: str) -> Iterator[None]:
    """As by a creation that is going on."""
    runtime.engine.owners.claim(container_id)
    yield
    runtime.engine.owners.disclaim(container_id)


def forget(runtime: Runtime, container: Container) -> None:
    """Takes its record alone away."""
    runtime.state.remove_container(container.record)


# --- nothing wrong -----------------------------------------------------------------------


def test_healthy_containers_are_no_leaks(rt: Runtime, box: Spec) -> None:
    assert rt.audit() == []
    configured = rt.create(box, ["true"])
    created = rt.create(box, ["true"], shm_private=False)
    created.init()
    running = rt.start(box, ["sleep", "1000"], shm_private=False)
    paused = rt.start(box, ["sleep", "1000"])
    paused.pause()
    exited = rt.start(box, ["true"])
    exited.wait(60)
    detached = rt.start(box, ["sleep", "1000"], detach=True)
    assert rt.audit() == []
    assert rt.sweep() == []
    statuses = [c.state.status for c in (configured, created, running, paused, exited, detached)]
    assert statuses == [
        Status.CONFIGURED,
        Status.CREATED,
        Status.RUNNING,
        Status.PAUSED,
        Status.EXITED,
        Status.RUNNING,
    ]


def test_another_namespace_is_not_touched(rt: Runtime, options: dict[str, str], box: Spec) -> None:
    container = rt.start(box, ["sleep", "1000"], namespace="theirs", detach=True)
    with Runtime(**options, namespace="ours") as other:
        assert other.sweep() == []
    assert container.state.status is Status.RUNNING


def test_another_runtime_is_not_touched(
    rt: Runtime, options: dict[str, str], box: Spec, dirs: Dirs
) -> None:
    """Its cgroups and processes are beside ours, whatever state it is in."""
    theirs = {**options, "static_dir": f"{dirs.work}/static", "tmp_dir": f"{dirs.work}/tmp"}
    with Runtime(**theirs) as other:
        container = other.start(box, ["sleep", "1000"])
        lost = other.start(box, ["sleep", "1000"])
        forget(other, lost)
        assert rt.audit() == [] and rt.sweep() == []
        assert container.state.status is Status.RUNNING
        assert {leak.container_id for leak in other.audit()} == set()  # it is claimed
        other.engine.owners.disclaim(lost.id)
        assert {leak.container_id for leak in other.audit()} == {lost.id}
        assert "process" in {leak.kind for leak in other.sweep()}
        assert other.audit() == []
        container.kill_and_remove()


# --- each kind -----------------------------------------------------------------------------


def test_container_without_a_record(rt: Runtime, box: Spec) -> None:
    container = rt.start(box, ["sleep", "1000"], detach=True, shm_private=False)
    forget(rt, container)
    told = swept(rt, "monitor", "process", "oci-state", "cgroup", "mount", "storage", "lock")
    assert {leak.container_id for leak in told} == {container.id}
    ages = {leak.kind: leak.age for leak in told}
    assert ages.pop("mount") is None
    assert all(age is not None and age < 60 for age in ages.values())


def test_creation_that_was_killed(
    rt: Runtime, python: Callable[..., subprocess.Popen[str]]
) -> None:
    process = python(
        "with Runtime(**options) as rt: rt.create(box, ['true'], name='web')",
        env={**os.environ, "LIBPOD_FAILPOINT": "create.stored=kill"},
    )
    assert process.wait(60) != 0
    told = swept(rt, "storage", "lock")
    assert '"web"' in next(leak.what for leak in told if leak.kind == "storage")


def test_name_of_a_killed_creation_is_free(
    rt: Runtime, box: Spec, python: Callable[..., subprocess.Popen[str]]
) -> None:
    process = python(
        "with Runtime(**options) as rt: rt.create(box, ['true'], name='web')",
        env={**os.environ, "LIBPOD_FAILPOINT": "create.stored=kill"},
    )
    assert process.wait(60) != 0
    assert rt.create(box, ["true"], name="web").name == "web"
    assert rt.audit() == []


def test_init_that_was_killed(
    rt: Runtime, box: Spec, python: Callable[..., subprocess.Popen[str]]
) -> None:
    """The container has a record, and what it has of a launch belongs to nobody."""
    container = rt.create(box, ["true"], name="web", shm_private=False)
    process = python(
        "with Runtime(**options) as rt: rt.lookup_container('web').init()",
        env={**os.environ, "LIBPOD_FAILPOINT": "init.created=kill"},
    )
    assert process.wait(60) != 0
    swept(rt, "monitor", "process", "oci-state", "cgroup", "mount")
    assert container.state.status is Status.CONFIGURED
    container.start()
    assert container.wait(60) == 0


def test_exit_file(rt: Runtime, dirs: Dirs) -> None:
    container_id = new_id()
    write(f"{dirs.tmp}/exits/{container_id}", "0")
    (leak,) = swept(rt, "exit-file")
    assert leak.container_id == container_id
    assert leak.age is not None and 100 <= leak.age < 200


def test_lock_file(rt: Runtime, dirs: Dirs) -> None:
    container_id = new_id()
    write(f"{dirs.tmp}/lock/{container_id}")
    (leak,) = swept(rt, "lock")
    assert leak.container_id == container_id


def test_lock_that_is_held_is_somebodys(rt: Runtime) -> None:
    container_id = new_id()
    _, lock = rt.locks.allocate(container_id)
    taken, done = threading.Event(), threading.Event()

    def work() -> None:
        with lock.held():
            taken.set()
            done.wait(60)
            lock.free()

    thread = threading.Thread(target=work)
    thread.start()
    assert taken.wait(60)
    try:
        assert rt.audit() == [] and rt.sweep() == []
    finally:
        done.set()
        thread.join()
    lock.close()
    assert rt.audit() == []


def test_lock_number(options: dict[str, str], box: Spec) -> None:
    with Runtime(**options, lock_type="file") as rt:
        container = rt.create(box, ["true"])
        number, lock = rt.locks.allocate("")
        assert number != container.record.config.lock_id
        only(rt.audit(), "lock")
        with claimed(rt, new_id()):
            assert rt.audit() == []  # it may be that of an object which is just being made
        swept(rt, "lock")
        assert rt.locks.in_use() == {container.record.config.lock_id}
        lock.close()
        container.remove()
        os.rmdir(f"{rt.paths.tmp_dir}/locks")


def test_oci_state(rt: Runtime, dirs: Dirs, oci_path: str) -> None:
    for name in ("crun", "runc"):
        os.makedirs(f"{dirs.tmp}/{name}/{new_id()}")
    swept(rt, "oci-state", "oci-state")


def test_mount(rt: Runtime, box: Spec) -> None:
    container = rt.create(box, ["true"], shm_private=False)
    shm = container.record.config.shm_dir
    os.mkdir(shm)
    rt.engine.host.mount_tmpfs(shm, 0, 0o1777)
    (leak,) = swept(rt, "mount")
    assert leak.container_id == container.id and shm in leak.what
    assert not os.path.ismount(shm)


def test_cgroup(rt: Runtime, box: Spec) -> None:
    container = rt.create(box, ["true"])
    for directory in rt.engine.host.cgroups.directories(container.cgroup_path):
        os.makedirs(directory)
    (leak,) = swept(rt, "cgroup")
    assert leak.container_id == container.id


def test_directories(rt: Runtime) -> None:
    container_id = new_id()
    for path in (rt.store.container_dir(container_id), rt.store.container_run_dir(container_id)):
        os.makedirs(path)
        write(f"{path}/kept")
    swept(rt, "directory", "run-directory")


def test_layer(rt: Runtime) -> None:
    os.makedirs(f"{rt.paths.graph_root}/overlay/{new_id()}/diff")
    os.symlink(f"../{new_id()}/diff", f"{rt.paths.graph_root}/overlay/l/{'A' * 26}")
    write(f"{rt.paths.graph_root}/overlay-layers/.tmp-layers.json-libpod")
    swept(rt, "layer-directory", "layer-link", "temporary")


def test_what_was_just_being_made(rt: Runtime, dirs: Dirs) -> None:
    path = write(f"{dirs.tmp}/lock_type.{secrets.token_hex(8)}", age=0)
    assert rt.audit() == []
    write(path)
    swept(rt, "temporary")


def test_record_without_storage(rt: Runtime, box: Spec) -> None:
    container = rt.create(box, ["true"])
    rt.store.delete_container(container.id)
    (leak,) = swept(rt, "record")
    assert leak.container_id == container.id
    assert rt.get_containers() == []


def test_record_without_storage_that_runs_is_left(rt: Runtime, box: Spec, said: Said) -> None:
    container = rt.start(box, ["sleep", "1000"])
    rt.store.delete_container(container.id)
    only(rt.audit(), "record")
    assert rt.sweep() == []
    said.expect("has lost its storage")
    assert container.state.status is Status.RUNNING


def test_renaming_that_was_cut_short(rt: Runtime, box: Spec) -> None:
    container = rt.create(box, ["true"], name="before")
    rt.store.rename_container(container.id, "after")
    (leak,) = swept(rt, "name")
    assert '"after"' in leak.what
    assert rt.store.container(container.id).name == "before"


def test_container_that_lost_its_monitor(rt: Runtime, box: Spec, said: Said) -> None:
    container = rt.start(box, ["sleep", "1000"], detach=True)
    os.kill(container.record.state.conmon_pid, 9)
    _await(lambda: [leak.kind for leak in rt.audit()] == ["ended"])
    swept(rt, "ended")
    said.expect("died without an exit code")
    said.allow("")
    assert container.state.status is Status.EXITED


def test_end_that_nobody_has_seen(
    options: dict[str, str], box: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner has died, and so has whoever was to remove it at its end."""
    monkeypatch.setattr(audit, "GRACE", 0.5)
    with Runtime(**options) as rt:
        container = rt.start(box, ["sleep", "1000"], remove=True)
        launch = container._life.launch
        assert launch is not None
        launch._unwatch()
        rt.engine.owners.disclaim(container.id)
        container._life._owned = False
        container.send_signal(9)
        _await(lambda: [leak.kind for leak in rt.audit()] == ["ended"])
        swept(rt, "ended")
        assert rt.get_containers() == []


def test_dead_owner(options: dict[str, str], dirs: Dirs) -> None:
    with Runtime(**options) as rt:
        path = f"{dirs.tmp}/owners/1-dead"
        os.makedirs(f"{dirs.tmp}/owners/.1-unfinished")
        os.mkdir(path)
        write(f"{path}/{new_id()}")
        for name in ("1-dead", ".1-unfinished"):
            os.utime(f"{dirs.tmp}/owners/{name}", (OLD, OLD))
        swept(rt, "owner", "owner")
        assert not os.path.exists(path)


# --- beside others ----------------------------------------------------------------------


def test_sweep_beside_creations_loses_nothing(
    rt: Runtime, options: dict[str, str], python: Callable[..., subprocess.Popen[str]]
) -> None:
    text = (
        "with Runtime(**options) as rt:\n"
        "    for number in range(40):\n"
        "        c = rt.create(box, ['true'])\n"
        "        if number % 2: c.remove()\n"
        "        elif number % 8 == 0: c.start(); assert c.wait(60) == 0\n"
        "say('done')\n"
    )
    started = [python(text) for _ in range(3)]
    found: list[Leak] = []
    while any(process.poll() is None for process in started):
        found += rt.audit() + rt.sweep()
    for process in started:
        out, err = process.communicate(timeout=60)
        assert out == "done\n", err
    assert found == []
    assert len(rt.get_containers()) == 60
    assert rt.audit() == []


def _await(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
