# SPDX-License-Identifier: Apache-2.0
"""A container's life by the lower layer: each verb, in the right and in the wrong state."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import libpod.launch
from census import settled
from conftest import Dirs, await_output, containers_of, remove_all
from libpod import (
    Container,
    ContainerExists,
    ContainerRemoved,
    ContainerStateInvalid,
    ContainerStopped,
    EmptyID,
    InvalidArgument,
    NoSuchContainer,
    OCIRuntimeFailed,
    Runtime,
    RuntimeStopped,
    Spec,
    Status,
    WaitTimeout,
    execfifo,
    names,
)

SLEEP = ["sleep", "1000"]

# Says "ready" when it serves TERM.
POLITE = ["sh", "-c", 'trap "echo bye; exit 5" TERM; echo ready; while :; do sleep 0.05; done']

# Says "up" when it is what runs, no longer the OCI runtime's own first process;
# as first process of its namespace it ignores TERM.
STUBBORN = ["sh", "-c", "echo up; exec sleep 1000"]


def start_stubborn(runtime: Runtime, spec: Spec, **chosen: Any) -> Container:
    c = runtime.start(spec.but(stop_signal="TERM"), STUBBORN, **chosen)
    await_output(c, b"up")
    return c


def oci_spec(rootfs: str, args: list[str], **process: Any) -> dict[str, Any]:
    """The least that crun and runc take."""
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/bin"],
            "cwd": "/",
            **process,
        },
        "root": {"path": rootfs},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]},
    }


def oci_state(runtime: Runtime, container: Container) -> dict[str, Any]:
    """What the OCI runtime itself says of the container."""
    oci = runtime._engine.oci
    answer = subprocess.run(
        [oci.path, "--root", oci.root, "state", container.id], capture_output=True, check=True
    )
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def is_gone(runtime: Runtime, container: Container) -> bool:
    """Whether the OCI runtime, and the state, know nothing of it."""
    with pytest.raises(subprocess.CalledProcessError):
        oci_state(runtime, container)
    return not runtime.has_container(container.id)


def alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


# --- init and start ------------------------------------------------------------------


def test_init_creates_it_in_the_oci_runtime(rt: Runtime, box: Spec) -> None:
    c = rt.create(box, SLEEP)
    assert c.state.status is Status.CONFIGURED
    assert c.state.pid == 0
    c.init()
    assert c.state.status is Status.CREATED
    assert c.state.started is None
    bundle = os.path.dirname(c.log_path)
    assert {"config.json", "attach", "ctl", "ctr.log"} <= set(os.listdir(bundle))
    with open(f"{bundle}/config.json", encoding="utf-8") as file:
        assert json.load(file)["process"]["args"] == SLEEP
    seen = oci_state(rt, c)
    assert (seen["status"], seen["pid"]) == ("created", c.state.pid)
    with open(
        f"{rt.paths.run_root}/overlay-containers/{c.id}/userdata/pidfile", encoding="ascii"
    ) as file:
        assert int(file.read()) == c.state.pid
    assert c.id[:12] in repr(c) and c.name in repr(c) and "initialized" in repr(c)
    c.remove()
    assert is_gone(rt, c)


def test_init_twice_is_refused(rt: Runtime, box: Spec) -> None:
    c = rt.create(box, SLEEP)
    c.init()
    with pytest.raises(ContainerExists, match="has already been created in runtime"):
        c.init()
    c.start()
    with pytest.raises(ContainerExists) as caught:
        c.init()
    assert caught.value.container_id == c.id


def test_start_from_configured_created_and_stopped(rt: Runtime, box: Spec) -> None:
    c = rt.create(box, ["sh", "-c", "exit 3"])
    before = time.time()
    c.start()
    assert c.wait() == 3
    first = c.state
    assert first.status is Status.EXITED and str(first.status) == "exited"
    assert first.started is not None and first.finished is not None
    assert before - 1 < first.started <= time.time() + 1
    assert before - 1 < first.finished <= time.time() + 1

    c.init()  # from stopped, step by step
    again = c.state
    assert (again.status, again.exit_code, again.finished) == (Status.CREATED, 0, None)
    c.start()
    assert c.wait() == 3

    c.start()  # from stopped at once
    assert c.wait() == 3


def test_start_twice_is_refused(rt: Runtime, box: Spec) -> None:
    c = rt.start(box, SLEEP)
    assert c.state.status is Status.RUNNING
    assert oci_state(rt, c)["status"] == "running"
    with pytest.raises(ContainerStateInvalid, match="must be in Created or Stopped state"):
        c.start()
    c.pause()
    with pytest.raises(ContainerStateInvalid, match="must be in Created or Stopped state"):
        c.start()
    c.unpause()


def test_a_start_that_fails_ends_the_container(rt: Runtime, box: Spec) -> None:
    c = rt.create(box, SLEEP)
    c.init()
    shutil.rmtree(f"{rt._engine.oci.root}/{c.id}")  # the OCI runtime forgets it
    with pytest.raises(OCIRuntimeFailed, match="could not start container") as caught:
        c.start()
    assert caught.value.phase == "start"
    assert caught.value.container_id == c.id
    assert c.state.status is Status.EXITED
    assert caught.value.detail
    c.remove()
    assert is_gone(rt, c)


def test_what_the_oci_runtime_has_forgotten_is_removed_all_the_same(rt: Runtime, box: Spec) -> None:
    c = rt.start(box, SLEEP)
    shutil.rmtree(f"{rt._engine.oci.root}/{c.id}")
    c.remove(force=True)
    assert is_gone(rt, c)


# --- exits ---------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 3, 125, 255])
def test_exit_codes(rt: Runtime, box: Spec, code: int) -> None:
    c = rt.start(box, ["sh", "-c", f"exit {code}"])
    assert c.wait() == code
    assert c.state.exit_code == code
    assert c.state.pid == 0
    assert not c.state.oom_killed


def test_an_exit_by_signal_is_128_and_more(rt: Runtime, box: Spec) -> None:
    c = rt.start(box, SLEEP)
    c.kill(signal.SIGKILL)
    assert c.wait() == 137


def test_wait_only_waits(rt: Runtime, box: Spec) -> None:
    c = rt.create(box, SLEEP)
    with pytest.raises(ContainerStateInvalid):
        c.wait()
    c.start()
    began = time.monotonic()
    with pytest.raises(WaitTimeout):
        c.wait(0.2)
    assert 0.2 <= time.monotonic() - began < 60
    with pytest.raises(WaitTimeout):
        c.wait(wait_timeout=0)
    assert c.state.status is Status.RUNNING
    c.stop()
    assert c.wait() == c.wait(0) == 137


def test_many_wait_for_one(rt: Runtime, box: Spec) -> None:
    c = rt.start(box, ["sh", "-c", "sleep 0.3; exit 9"])
    codes: list[int] = []
    threads = [threading.Thread(target=lambda: codes.append(c.wait())) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert codes == [9] * 5


def test_several_objects_of_one_container_each_see_its_lives(rt: Runtime, box: Spec) -> None:
    c = rt.create(box, ["sleep", "1000"])
    for life in range(3):
        c.start()
        others = [rt.lookup_container(c.id) for _ in range(4)]
        with ThreadPoolExecutor(5) as pool:
            codes = [pool.submit(other.wait, 20) for other in (c, *others)]
            others[life].stop(grace=0)
            assert [code.result() for code in codes] == [137] * 5
        assert {o.state.status for o in others} == {Status.EXITED}
    c.remove()


def test_an_exit_that_nobody_waits_for_is_cleared_up(rt: Runtime, box: Spec) -> None:
    c = rt.start(box, ["sh", "-c", "exit 4"])
    deadline = time.monotonic() + 60
    while rt.state.container(c.id).state.status is not Status.EXITED:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(subprocess.CalledProcessError):
        oci_state(rt, c)
    assert c.state.exit_code == 4


def test_usage_while_it_runs_and_after(rt: Runtime, box: Spec) -> None:
    c = rt.create(box, ["sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 1000"])
    assert c.usage.cpu_seconds is None
    c.start()
    deadline = time.monotonic() + 60
    while (c.usage.cpu_seconds or 0) < 0.005:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    c.stop()
    assert c.usage.cpu_seconds is not None and c.usage.cpu_seconds >= 0.005
    assert c.usage.memory_peak is not None and c.usage.memory_peak > 0


# --- stop and kill -------------------------------------------------------------------


def test_stop_lets_it_end_by_itself(rt: Runtime, box: Spec) -> None:
    c = rt.start(box.but(stop_signal=None), POLITE, stop_timeout=1000)
    await_output(c, b"ready")
    c.stop()
    assert c.wait() == 5
    assert c.state.status is Status.EXITED


def test_stop_just_after_the_start_is_for_the_command(rt: Runtime, box: Spec) -> None:
    """Not for what the OCI runtime has in its place for some milliseconds more."""
    for _ in range(10):
        with rt.start(box.but(stop_signal="TERM"), SLEEP) as c:
            c.stop(grace=0.1)
            assert c.wait() == 137


def test_the_grace_begins_with_the_signal(
    rt: Runtime, box: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it took until the command was there to serve it."""
    c = rt.start(box.but(stop_signal="TERM"), POLITE)
    await_output(c, b"ready")
    launched = c._life.running()
    graces: list[float | None] = []

    def note(timeout: float | None = None) -> bool:
        graces.append(timeout)
        return await_end(60)

    await_end = launched.ended.wait
    launched._stub = "stub"
    seen = ["/bin/sh", *20 * ["stub"]]
    monkeypatch.setattr(libpod.launch, "_program", lambda pid: seen.pop())
    monkeypatch.setattr(launched.ended, "wait", note)
    c.stop(grace=0.001)
    assert (graces, c.wait()) == ([0.001], 5)


def test_stop_by_another_signal(rt: Runtime, box: Spec) -> None:
    usr1 = [word.replace("TERM", "USR1") for word in POLITE]
    c = rt.start(box.but(stop_signal="USR1"), usr1)
    await_output(c, b"ready")
    c.stop(grace=1000)
    assert c.wait() == 5


def test_stop_kills_after_the_grace(rt: Runtime, box: Spec) -> None:
    c = start_stubborn(rt, box)
    began = time.monotonic()
    c.stop(grace=0.5)
    assert 0.5 <= time.monotonic() - began < 60
    assert c.wait() == 137


def test_stop_without_grace_kills_at_once(rt: Runtime, box: Spec) -> None:
    c = start_stubborn(rt, box, stop_timeout=1000)
    c.stop(grace=0)
    assert c.wait() == 137


def test_stop_of_a_created_container_does_not_wait_for_the_grace(rt: Runtime, box: Spec) -> None:
    c = rt.create(box.but(stop_signal="TERM"), SLEEP, stop_timeout=1000)
    c.init()
    c.stop()
    assert c.state.status is Status.EXITED


def test_stop_in_the_wrong_state(rt: Runtime, box: Spec) -> None:
    c = rt.create(box, SLEEP)
    with pytest.raises(ContainerStateInvalid, match="can only stop created, running, or stopped"):
        c.stop()
    c.start()
    c.pause()
    with pytest.raises(ContainerStateInvalid):
        c.stop()
    c.unpause()
    c.stop()
    with pytest.raises(ContainerStopped, match="already stopped"):
        c.stop()


def test_the_state_can_be_asked_while_a_stop_waits(rt: Runtime, box: Spec) -> None:
    c = start_stubborn(rt, box)
    stopper = threading.Thread(target=c.stop, kwargs={"grace": 1000})
    stopper.start()
    assert settled(lambda: [] if c.state.status is Status.STOPPING else ["not stopping"]) == []
    c.kill(signal.SIGKILL)
    stopper.join(60)
    assert c.wait() == 137


def test_kill_sends_any_signal(rt: Runtime, box: Spec) -> None:
    c = rt.start(box, [word.replace("TERM", "USR2") for word in POLITE])
    await_output(c, b"ready")
    c.kill(signal.SIGUSR2)
    assert c.wait() == 5


def test_kill_in_the_wrong_state(rt: Runtime, box: Spec) -> None:
    c = rt.create(box, SLEEP)
    for prepare in (lambda: None, c.init):
        prepare()
        with pytest.raises(ContainerStateInvalid, match="can only kill running containers"):
            c.kill()
    c.start()
    c.pause()
    with pytest.raises(ContainerStateInvalid):
        c.kill()
    c.unpause()
    c.kill()
    c.wait()
    with pytest.raises(ContainerStateInvalid):
        c.kill()


# --- pause and unpause -----------------------------------------------------------------


def test_pause_freezes_all_processes(rt: Runtime, box: Spec) -> None:
    c = rt.start(box, ["sh", "-c", "while :; do echo tick; sleep 0.02; done"])
    await_output(c, b"tick")
    c.pause()
    assert c.state.status is Status.PAUSED
    assert oci_state(rt, c)["status"] == "paused"
    size = -1
    while size != (size := os.path.getsize(c.log_path)):
        time.sleep(0.3)  # what was under way when it froze
    with pytest.raises(ContainerStateInvalid, match="already paused"):
        c.pause()
    c.unpause()
    assert c.state.status is Status.RUNNING
    deadline = time.monotonic() + 60
    while os.path.getsize(c.log_path) == size:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_pause_and_unpause_in_the_wrong_state(rt: Runtime, box: Spec) -> None:
    c = rt.create(box, SLEEP)
    for prepare in (lambda: None, c.init):
        prepare()
        with pytest.raises(ContainerStateInvalid, match="is not running, can't pause"):
            c.pause()
        with pytest.raises(ContainerStateInvalid, match="is not paused, can't unpause"):
            c.unpause()
    c.start()
    with pytest.raises(ContainerStateInvalid):
        c.unpause()
    c.stop()
    with pytest.raises(ContainerStateInvalid):
        c.pause()


def test_a_paused_container_is_removed_by_the_end_of_its_block(rt: Runtime, box: Spec) -> None:
    with rt.start(box, SLEEP) as c:
        c.pause()
    assert is_gone(rt, c)


# --- removal ---------------------------------------------------------------------------


def test_remove_configured_created_and_stopped(rt: Runtime, box: Spec) -> None:
    for prepare in ([], ["init"], ["start", "stop"]):
        c = rt.create(box, SLEEP)
        for verb in prepare:
            getattr(c, verb)()
        bundle = os.path.dirname(c.log_path)
        assert os.path.isdir(bundle)
        c.remove()
        assert not os.path.exists(bundle)
        assert is_gone(rt, c)


def test_remove_of_a_running_container_needs_force(rt: Runtime, box: Spec) -> None:
    c = rt.start(box, SLEEP)
    pid = c.state.pid
    with pytest.raises(ContainerStateInvalid, match="cannot remove container .* as it is running"):
        c.remove()
    assert c.state.status is Status.RUNNING
    c.remove(force=True)
    assert not alive(pid)
    assert is_gone(rt, c)


def test_remove_of_a_paused_container_is_refused_even_with_force(rt: Runtime, box: Spec) -> None:
    c = rt.start(box, SLEEP)
    c.pause()
    for force in (False, True):
        with pytest.raises(ContainerStateInvalid, match="cannot remove until unpaused"):
            rt.remove_container(c, force=force)
    c.unpause()
    c.delete(force=True)
    assert is_gone(rt, c)


def test_a_removed_container_is_a_name_only(rt: Runtime, box: Spec) -> None:
    c = rt.create(box, SLEEP, name="gone")
    c.start()
    c.remove(force=True)
    verbs: list[Callable[[], object]] = [
        *(c.init, c.start, c.stop, c.kill, c.pause, c.unpause, c.connect, c.wait),
        *(lambda: c.state, lambda: c.usage),
    ]
    for verb in verbs:
        with pytest.raises(ContainerRemoved, match="has already been removed"):
            verb()
    c.remove()  # one that is gone is no error, as in the original
    rt.remove_container(c, force=True)
    assert c.name == "gone" and len(c.id) == 64 and c.spec["process"]["args"] == SLEEP
    with rt.create(box, SLEEP, name="gone"):  # the name is free again
        pass


def test_removing_at_once_from_many_threads(rt: Runtime, box: Spec) -> None:
    failures: list[BaseException] = []
    for verb in ([], ["start"]):
        c = rt.create(box, SLEEP)
        for step in verb:
            getattr(c, step)()

        def remove(c: Container = c) -> None:
            try:
                c.remove(force=True)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=remove) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert is_gone(rt, c)
    assert failures == []


def test_removal_beside_an_exit(rt: Runtime, box: Spec) -> None:
    for delay in (0.0, 0.005, 0.01, 0.02, 0.04):
        c = rt.start(box, ["sleep", "0.05"])
        time.sleep(0.03 + delay)
        c.remove(force=True)
        assert is_gone(rt, c)


def test_wait_ends_when_another_thread_removes(rt: Runtime, box: Spec) -> None:
    c = rt.start(box, SLEEP)
    ended: list[object] = []

    def wait() -> None:
        try:
            ended.append(c.wait())
        except ContainerRemoved as error:
            ended.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.1)
    c.remove(force=True)
    waiter.join(60)
    assert len(ended) == 1
    assert ended[0] == 137 or isinstance(ended[0], ContainerRemoved)


# --- looking them up ---------------------------------------------------------------------


def test_lookup(rt: Runtime, box: Spec) -> None:
    one = rt.create(box, SLEEP, name="one")
    two = rt.create(box, SLEEP, name="two")
    assert rt.get_container(one.id) is one
    assert rt.lookup_container("two") is two
    assert rt.lookup_container(two.id) is two
    assert rt.lookup_container(one.id[:20]) is one
    assert rt.has_container(one.id) and not rt.has_container(one.id[:20])
    assert not rt.has_container("0" * 64)
    with pytest.raises(NoSuchContainer):
        rt.get_container("one")
    with pytest.raises(NoSuchContainer):
        rt.lookup_container("three")
    for lookup in (rt.get_container, rt.lookup_container, rt.has_container):
        with pytest.raises(EmptyID):
            lookup("")
    assert {c.id for c in rt.get_containers()} == {one.id, two.id}
    one.start()
    assert rt.get_containers(lambda c: c.state.status is Status.RUNNING) == [one]
    assert rt.get_containers(lambda c: c.name > "a", lambda c: c.name == "two") == [two]
    one.remove(force=True)
    assert rt.get_containers() == [two]


def test_names(rt: Runtime, box: Spec, dirs: Dirs) -> None:
    c = rt.create(box.but(name="from-spec"), SLEEP)
    assert c.name == "from-spec"
    assert rt.create(box.but(name="from-spec"), SLEEP, name="wins").name == "wins"
    with pytest.raises(ContainerExists, match='the container name "wins" is in use') as caught:
        rt.create(box, SLEEP, name="wins")
    assert caught.value.remedy
    for name in ("-x", "a b", "a/b", "../a", "a\n", "ä"):
        with pytest.raises(InvalidArgument, match="name"):
            rt.create(box, SLEEP, name=name)
    assert {c.name for c in rt.get_containers()} == {"from-spec", "wins"}
    assert len(containers_of(dirs)) == 2
    assert len(os.listdir(f"{dirs.tmp}/lock")) == 2


def test_names_are_drawn(rt: Runtime, box: Spec) -> None:
    containers = [rt.create(box, SLEEP) for _ in range(20)]
    assert len({c.name for c in containers}) == 20
    assert all(c.name.count("_") >= 1 for c in containers)


def test_a_name_that_somebody_else_draws_at_the_same_time(
    rt: Runtime, box: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = rt.create(box, SLEEP, name="taken")
    drawn = iter(["taken", "taken", "free"])
    monkeypatch.setattr(names, "unique_name", lambda _is_taken: next(drawn))
    assert rt.create(box, SLEEP).name == "free"
    monkeypatch.setattr(names, "unique_name", lambda _is_taken: "taken")
    with pytest.raises(ContainerExists, match=taken.id):
        rt.create(box, SLEEP)
    with pytest.raises(ContainerExists, match=taken.id):
        rt.create(box, SLEEP, name="taken")


# --- from an OCI spec ------------------------------------------------------------------------


def test_new_container_from_an_oci_spec(rt: Runtime, rootfs: str) -> None:
    given = oci_spec(rootfs, ["sh", "-c", "echo $X; exit 6"], env=["PATH=/bin", "X=y"])
    c = rt.new_container(given, name="raw", labels={"a": "b"})
    given["process"]["args"] = ["never"]
    assert c.spec["process"]["args"][0] == "sh"
    assert c.labels == {"a": "b"}
    c.start()
    assert c.wait() == 6
    with open(c.log_path, "rb") as log:
        assert b" stdout F y\n" in log.read()


def test_new_container_with_another_root(rt: Runtime, rootfs: str) -> None:
    given = oci_spec("/nowhere", ["true"])
    with rt.new_container(given, rootfs=rootfs) as c:
        c.start()
        assert c.wait() == 0
    assert given["root"]["path"] == "/nowhere"


def test_new_container_wants_a_spec_and_a_root(rt: Runtime, rootfs: str, dirs: Dirs) -> None:
    with pytest.raises(InvalidArgument, match="must provide a valid runtime spec"):
        rt.new_container({})
    for root in ("/no/such/directory", "/dev/null", ""):
        with pytest.raises(InvalidArgument, match="root file system"):
            rt.new_container(oci_spec(root, ["true"]))
    with pytest.raises(InvalidArgument):
        rt.new_container(oci_spec(rootfs, ["true"]), stop_signal="NOSUCH")
    assert containers_of(dirs) == []


def test_stop_options_of_the_lower_layer(rt: Runtime, rootfs: str) -> None:
    c = rt.new_container(oci_spec(rootfs, STUBBORN), stop_signal="USR1", stop_timeout=0.3)
    c.start()
    await_output(c, b"up")
    began = time.monotonic()
    c.stop()
    assert 0.3 <= time.monotonic() - began < 60
    assert c.wait() == 137


def test_log_size_is_bounded(rt: Runtime, rootfs: str) -> None:
    chatty = ["sh", "-c", "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done"]
    c = rt.new_container(oci_spec(rootfs, chatty), log_size_max=4096)
    c.start()
    assert c.wait() == 0
    assert os.path.getsize(c.log_path) <= 4096
    with open(c.log_path, "rb") as log:
        assert b"line 1999\n" in log.read()


# --- the runtime ---------------------------------------------------------------------------


def test_shutdown_with_force_ends_all(options: dict[str, str], box: Spec) -> None:
    runtime = Runtime(**options)
    running = runtime.start(box, SLEEP)
    paused = runtime.start(box, SLEEP)
    paused.pause()
    runtime.create(box, SLEEP)
    runtime.create(box, SLEEP).init()
    pids = [running.state.pid, paused.state.pid]
    runtime.shutdown(force=True)
    assert not any(map(alive, pids))
    with pytest.raises(RuntimeStopped, match="has already been stopped"):
        runtime.shutdown()
    runtime.close()
    with Runtime(**options) as again:
        assert {c.state.status for c in again.get_containers()} <= {
            Status.CONFIGURED,
            Status.EXITED,
        }
        remove_all(again)


def test_every_call_on_a_stopped_runtime_is_refused(options: dict[str, str], box: Spec) -> None:
    runtime = Runtime(**options)
    c = runtime.create(box, SLEEP)
    runtime.close()
    calls: list[Callable[[], object]] = [
        lambda: runtime.run(box, ["true"]),
        lambda: runtime.start(box, ["true"]),
        lambda: runtime.create(box, ["true"]),
        lambda: runtime.new_container(oci_spec("/", ["true"])),
        lambda: runtime.remove_container(c),
        lambda: runtime.get_container(c.id),
        lambda: runtime.lookup_container(c.id),
        lambda: runtime.has_container(c.id),
        runtime.get_containers,
        runtime.shutdown,
        runtime.__enter__,
    ]
    for call in calls:
        with pytest.raises(RuntimeStopped):
            call()
    assert runtime.get_config() is None
    runtime.close()  # idempotent
    with Runtime(**options) as again:
        remove_all(again)


def test_two_runtimes_on_the_same_directories(options: dict[str, str], box: Spec) -> None:
    with Runtime(**options) as one, Runtime(**options) as two:
        with (
            one.start(box, ["sh", "-c", "exit 1"]) as a,
            two.start(box, ["sh", "-c", "exit 2"]) as b,
        ):
            assert (a.wait(), b.wait()) == (1, 2)
        for expected in range(3):
            assert one.run(box, ["sh", "-c", f"exit {expected}"]).exit_code == expected
            assert two.run(box, ["sh", "-c", f"exit {expected}"]).exit_code == expected


def test_opening_and_closing_beside_a_running_one(
    rt: Runtime, options: dict[str, str], box: Spec
) -> None:
    """A closing runtime removes the cgroups that are empty: the others go on all the same."""
    with rt.start(box, SLEEP) as c:
        for _ in range(3):
            with Runtime(**options) as other:
                assert other.run(box, ["true"]).exit_code == 0
        assert c.state.status is Status.RUNNING


def test_closing_beside_launches(options: dict[str, str], box: Spec) -> None:
    stop = threading.Event()

    def open_and_close() -> None:
        while not stop.is_set():
            Runtime(**options).close()

    closer = threading.Thread(target=open_and_close)
    closer.start()
    try:
        with Runtime(**options) as runtime:
            for _ in range(10):
                assert runtime.run(box, ["true"]).exit_code == 0
    finally:
        stop.set()
        closer.join(60)


def test_directories_and_their_modes(rt: Runtime, dirs: Dirs, box: Spec) -> None:
    c = rt.start(box, SLEEP)

    def mode(path: str) -> int:
        return os.stat(path).st_mode & 0o7777

    assert mode(dirs.tmp) == 0o751
    assert mode(f"{dirs.tmp}/exits") == mode(f"{dirs.tmp}/socket") == 0o750
    assert mode(f"{dirs.tmp}/lock") == 0o700
    assert mode(f"{dirs.tmp}/lock/{c.id}") == 0o600
    assert mode(f"{dirs.static}/storage/overlay-containers") == 0o700
    assert mode(os.path.dirname(c.log_path)) == 0o700
    assert mode(c.log_path) & 0o077 == 0
    assert mode(f"{os.path.dirname(c.log_path)}/config.json") == 0o600


def test_a_second_opener_does_not_refresh(options: dict[str, str], dirs: Dirs) -> None:
    Runtime(**options).close()
    first = os.stat(f"{dirs.tmp}/alive")
    Runtime(**options).close()
    second = os.stat(f"{dirs.tmp}/alive")
    assert (first.st_ino, first.st_mtime_ns) == (second.st_ino, second.st_mtime_ns)
    assert first.st_mode & 0o7777 == 0o644


# --- with and without a program ------------------------------------------------------------


def test_no_program_for_start_and_delete(
    rt: Runtime, box: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    run = rt._engine.host.run_tool

    def run_tool(argv: list[str], *args: Any, **named: Any) -> Any:
        asked.append(argv[3])
        return run(argv, *args, **named)

    monkeypatch.setattr(rt._engine.host, "run_tool", run_tool)
    c = rt.create(box, SLEEP)
    c.init()
    assert oci_state(rt, c)["status"] == "created"
    c.start()
    assert oci_state(rt, c)["status"] == "running"
    c.stop(grace=5)
    c.cleanup()
    assert asked == []
    assert rt._engine.oci.status(c.id) == ""
    assert not any(map(os.path.exists, rt._engine.host.cgroups.directories(c._life.cgroup)))


def test_hooks_are_the_runtimes(rt: Runtime, rootfs: str, dirs: Dirs) -> None:
    given = oci_spec(rootfs, ["true"])
    for name in ("poststart", "poststop"):
        script = f"touch {dirs.work}/{name}"
        given.setdefault("hooks", {})[name] = [
            {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}
        ]
    c = rt.new_container(given, rootfs=rootfs)
    c.start()
    assert c.wait(20) == 0
    c.cleanup()
    assert os.path.exists(f"{dirs.work}/poststart")
    assert os.path.exists(f"{dirs.work}/poststop")
    c.remove()


def test_a_start_that_was_cut_short_is_seen(
    rt: Runtime, options: dict[str, str], box: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by whoever is killed after he let the first process go."""
    c = rt.create(box, SLEEP)
    c.init(detach=True)
    launched = c._life.running()
    fifo = rt._engine.oci.fifo(c.id)
    assert launched._init is not None
    assert execfifo.let_go(fifo, rt._engine.oci.path, launched._init)
    launched.await_command()
    with Runtime(**options) as another:
        found = another.get_container(c.id)
        assert found.state.status is Status.RUNNING
    assert not os.path.exists(fifo)
    assert oci_state(rt, c)["status"] == "running"
    c.stop(grace=5)


@pytest.mark.parametrize("remove", [False, True])
def test_a_log_that_goes_at_the_end_is_not_synced(rt: Runtime, rootfs: str, remove: bool) -> None:
    c = rt.new_container(oci_spec(rootfs, SLEEP), remove=remove)
    c.init()
    with open(f"/proc/{c.record.state.conmon_pid}/cmdline", "rb") as file:
        assert (b"--no-sync-log" in file.read().split(b"\0")) is remove
    c.start()
    c.kill()
