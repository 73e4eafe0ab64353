# SPDX-License-Identifier: Apache-2.0
"""Containers that several processes use: what one creates others see, run, stop and
remove; what a dead one had begun the next one ends."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from census import processes, settled
from conftest import Dirs, Said, await_output, containers_of, heard, read_log
from libpod import (
    Container,
    ContainerExists,
    ContainerRemoved,
    ContainerStateInvalid,
    InvalidArgument,
    LibpodError,
    NoSuchContainer,
    Runtime,
    Spec,
    StateType,
    Status,
)
from libpod.names import new_id
from libpod.storage import Store

pytestmark = pytest.mark.any_runtime

Python = Callable[..., "subprocess.Popen[str]"]

SLEEP = ["sleep", "1000"]
JOB = "job = box.but(stop_signal='KILL')\n"


def finished(child: subprocess.Popen[str], timeout: float = 60) -> list[str]:
    out, err = child.communicate(timeout=timeout)
    assert (child.returncode, err) == (0, "")
    return out.splitlines()


@pytest.fixture
def elsewhere(python: Python) -> Callable[[str], subprocess.Popen[str]]:
    """Runs a text in another process, where `rt` is open and `job` is there."""

    def start(text: str) -> subprocess.Popen[str]:
        indented = "".join(f"    {line}\n" for line in text.splitlines())
        return python(f"{JOB}with Runtime(**options) as rt:\n{indented}")

    return start


Elsewhere = Callable[[str], "subprocess.Popen[str]"]


def await_status(container: Container, status: Status, timeout: float = 60) -> None:
    assert settled(lambda: [] if container.state.status is status else [container], timeout) == []


def await_nothing(dirs: Dirs, timeout: float = 60) -> None:
    assert settled(lambda: containers_of(dirs), timeout) == []


# --- each verb somewhere else --------------------------------------------------------


def test_a_container_goes_from_hand_to_hand(elsewhere: Elsewhere, rt: Runtime) -> None:
    (created,) = finished(elsewhere("say(rt.create(job, ['sleep', '1000'], name='web').id)"))
    c = rt.lookup_container("web")
    assert (c.id, c.state.status) == (created, Status.CONFIGURED)
    pid, status = finished(
        elsewhere(
            "c = rt.lookup_container('web')\n"
            "c.start(detach=True)\n"
            "say(c.state.pid)\n"
            "say(c.state.status.name)"
        )
    )
    assert status == "RUNNING"
    assert (c.state.status, c.state.pid) == (Status.RUNNING, int(pid))
    assert [found.id for found in rt.get_running_containers()] == [created]
    finished(elsewhere("rt.lookup_container('web').pause()"))
    assert c.state.status is Status.PAUSED
    with pytest.raises(ContainerStateInvalid, match="paused"):
        c.remove(force=True)
    finished(elsewhere("rt.lookup_container('web').unpause()"))
    assert c.state.status is Status.RUNNING
    finished(elsewhere("rt.lookup_container('web').stop()"))
    state = c.state
    assert state.status in (Status.STOPPED, Status.EXITED)
    assert (state.exit_code, state.pid) == (137, 0)
    assert state.finished is not None and abs(time.time() - state.finished) < 60
    finished(elsewhere("rt.lookup_container('web').remove()"))
    with pytest.raises(NoSuchContainer):
        rt.lookup_container("web")
    with pytest.raises(ContainerRemoved):
        c.start()
    assert rt.get_all_containers() == []


def test_what_is_started_here_can_be_paused_and_stopped_there(
    elsewhere: Elsewhere, rt: Runtime, box: Spec
) -> None:
    c = rt.start(box, SLEEP, name="web")
    finished(elsewhere("c = rt.lookup_container('web'); c.pause(); say(c.state.status)"))
    assert c.state.status is Status.PAUSED
    c.unpause()
    assert finished(elsewhere("say(rt.lookup_container('web').state.status.name)")) == ["RUNNING"]
    finished(elsewhere("rt.lookup_container('web').kill(9)"))
    assert c.wait(60) == 137
    c.remove()


def test_a_stop_elsewhere_leaves_the_usage_to_the_owner(
    elsewhere: Elsewhere, rt: Runtime, box: Spec
) -> None:
    """Who started it attached knows what it consumed, whoever ends it."""
    c = rt.start(box, ["sh", "-c", "echo up; while :; do :; done"], name="busy")
    await_output(c, b"up")
    assert settled(lambda: [] if (c.usage.cpu_seconds or 0) > 0.1 else ["too little"]) == []
    (code,) = finished(elsewhere("c = rt.lookup_container('busy'); c.stop(); say(c.wait(60))"))
    assert code == "137"
    await_status(c, Status.EXITED)
    assert c.usage.cpu_seconds is not None and c.usage.cpu_seconds > 0.1
    c.remove()


def test_the_result_of_a_job_that_another_process_stops(
    elsewhere: Elsewhere, rt: Runtime, box: Spec
) -> None:
    child = elsewhere(
        "while not rt.get_running_containers(): time.sleep(0.01)\n"
        "rt.get_latest_container().stop()\n"
    )
    result = rt.run(box, ["sh", "-c", "echo out; exec sleep 1000"], timeout=60)
    assert (result.exit_code, result.reason.value) == (137, "signaled")
    assert result.usage.cpu_seconds is not None
    finished(child)


def test_a_wait_in_another_process(elsewhere: Elsewhere, rt: Runtime, box: Spec) -> None:
    c = rt.start(box, SLEEP, name="web")
    child = elsewhere("c = rt.lookup_container('web'); say('go'); say(c.wait())")
    assert heard(child) == "go"
    time.sleep(0.2)
    c.kill(signal.SIGTERM if c.record.config.stop_signal == signal.SIGTERM else signal.SIGKILL)
    assert finished(child) == ["137"]
    assert c.wait(60) == 137
    c.remove()


def test_a_wait_for_one_that_is_removed_at_its_end(
    elsewhere: Elsewhere, rt: Runtime, box: Spec
) -> None:
    for _ in range(3):
        c = rt.start(box, ["sh", "-c", "sleep 0.5; exit 7"], name="web")
        child = elsewhere("c = rt.lookup_container('web'); say('go'); say(c.wait())")
        assert heard(child) == "go"
        assert c.wait(60) == 7
        c.remove()
        assert finished(child) == ["7"]


def test_a_wait_that_begins_after_the_removal(
    rt: Runtime, options: dict[str, str], box: Spec
) -> None:
    """The exit code is kept for some minutes."""
    with Runtime(**options) as other:
        c = rt.start(box, ["sh", "-c", "exit 9"])
        seen = other.get_container(c.id)
        assert c.wait(60) == 9
        c.remove()
        assert seen.wait(1) == 9
        with pytest.raises(ContainerRemoved):
            seen.start()


def test_a_rename_is_seen(elsewhere: Elsewhere, rt: Runtime, box: Spec) -> None:
    c = rt.create(box, SLEEP, name="before")
    other = rt.create(box, SLEEP, name="other")
    finished(elsewhere("rt.lookup_container('before').rename('after')"))
    assert rt.lookup_container("after").id == c.id
    assert c.state.status is Status.CONFIGURED
    with pytest.raises(NoSuchContainer):
        rt.lookup_container("before")
    with pytest.raises(ContainerExists):
        c.rename("other")
    with pytest.raises(InvalidArgument):
        c.rename("not a name")
    assert rt.lookup_container("after").name == "after"
    rt.create(box, SLEEP, name="before").remove()
    assert [stored.names for stored in rt.store.containers() if stored.id == c.id] == [("after",)]
    c.remove()
    other.remove()


def test_a_rename_that_the_state_refuses(
    rt: Runtime, box: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However busy others are with the old name meanwhile, it is the container's."""
    c = rt.create(box, SLEEP, name="before")
    ours = rt.store.container(c.id)
    taken = []

    def refuse(record: object, name: str) -> None:
        with suppress(LibpodError):
            store = Store(rt.store.graph_root, rt.store.run_root, lock_timeout=0)
            taken.append(store.create_container(new_id(), "before").id)
        raise ContainerExists(f"{name} is taken")

    monkeypatch.setattr(rt.state, "rename_container", refuse)
    try:
        with pytest.raises(ContainerExists, match="after is taken"):
            c.rename("after")
        assert rt.store.containers() == [ours]
        assert c.name == "before"
    finally:
        for container_id in taken:
            rt.store.delete_container(container_id)
        c.remove()


def test_a_restart_elsewhere(elsewhere: Elsewhere, rt: Runtime, box: Spec) -> None:
    c = rt.start(box, ["sh", "-c", "echo up; exec sleep 1000"], name="web", detach=True)
    before = c.state
    (pid,) = finished(elsewhere("c = rt.lookup_container('web'); c.restart(); say(c.state.pid)"))
    after = c.state
    assert after.status is Status.RUNNING
    assert after.pid == int(pid) != before.pid
    assert after.started is not None and before.started is not None
    assert after.started > before.started
    c.restart()  # and back in our hands
    assert c.state.pid not in (after.pid, before.pid)
    c.kill_and_remove()


def test_a_batch_keeps_others_out(elsewhere: Elsewhere, rt: Runtime, box: Spec) -> None:
    c = rt.create(box, SLEEP, name="web")
    child: list[subprocess.Popen[str]] = []

    def work(inside: Container) -> Status:
        child.append(
            elsewhere("c = rt.lookup_container('web'); say('go'); c.start(); say('started')")
        )
        assert heard(child[0]) == "go"
        time.sleep(0.3)
        assert inside.state.status is Status.CONFIGURED
        inside.init()
        assert inside.state.status is Status.CREATED
        return inside.state.status

    assert c.batch(work) is Status.CREATED
    assert finished(child[0]) == ["started"]
    assert c.state.status is Status.RUNNING
    c.kill_and_remove()


# --- several at once -----------------------------------------------------------------

AT_ONCE = """
c = rt.get_container({id!r})
say('ready')
while not os.path.exists({mark!r}): time.sleep(0.001)
try:
    c.{verb}
    say('done')
except ContainerStopped: say('stopped')
except ContainerRemoved: say('removed')
except ContainerStateInvalid: say('invalid')
"""


def at_once(
    elsewhere: Elsewhere, dirs: Dirs, container: Container, verb: str, count: int = 3
) -> list[str]:
    """What each of these processes says of its call."""
    mark = f"{dirs.work}/mark-{container.id}-{verb[:5]}"
    children = [
        elsewhere(AT_ONCE.format(id=container.id, mark=mark, verb=verb)) for _ in range(count)
    ]
    for child in children:
        assert heard(child) == "ready"
    with open(mark, "w", encoding="ascii"):
        pass
    return sorted(line for child in children for line in finished(child))


def test_three_start_stop_and_remove_at_once(
    elsewhere: Elsewhere, rt: Runtime, box: Spec, dirs: Dirs
) -> None:
    c = rt.create(box, SLEEP)
    assert at_once(elsewhere, dirs, c, "start(detach=True)") == ["done", "invalid", "invalid"]
    assert c.state.status is Status.RUNNING
    stopped = at_once(elsewhere, dirs, c, "stop()")
    assert "done" in stopped and set(stopped) <= {"done", "stopped"}
    assert c.state.status is Status.EXITED
    assert at_once(elsewhere, dirs, c, "remove(force=True)") == ["done", "done", "done"]
    assert rt.get_containers() == []


def test_three_remove_one_that_runs_here(
    elsewhere: Elsewhere, rt: Runtime, box: Spec, dirs: Dirs
) -> None:
    c = rt.start(box, SLEEP)
    assert at_once(elsewhere, dirs, c, "remove(force=True)") == ["done", "done", "done"]
    with pytest.raises(ContainerRemoved):
        c.stop()
    assert rt.get_containers() == []


def test_a_removal_here_and_a_start_there(
    elsewhere: Elsewhere, rt: Runtime, box: Spec, dirs: Dirs
) -> None:
    for _ in range(3):
        c = rt.create(box, SLEEP)
        child = elsewhere(
            f"c = rt.get_container({c.id!r}); say('go')\n"
            "try:\n"
            "    c.start(detach=True); say('started')\n"
            "except ContainerRemoved: say('removed')"
        )
        assert heard(child) == "go"
        c.remove(force=True)
        assert finished(child)[0] in ("started", "removed")
        for left in rt.get_containers():
            left.remove(force=True)


# --- meant to outlive their creator ------------------------------------------------------


def test_a_detached_container_leaves_nothing(python: Python, dirs: Dirs) -> None:
    """With no other command run: its monitor has it cleared up and removed."""
    text = (
        "with Runtime(**options) as rt:\n"
        "    rt.start(box, ['sh', '-c', 'sleep 0.5; exit 3'], detach=True, remove=True)\n"
    )
    assert finished(python(text)) == []
    assert len(containers_of(dirs)) == 1
    await_nothing(dirs)


def test_a_short_detached_container_leaves_nothing(python: Python, dirs: Dirs) -> None:
    text = (
        "with Runtime(**options) as rt:\n"
        "    for _ in range(3): rt.start(box, ['true'], detach=True, remove=True)\n"
    )
    assert finished(python(text)) == []
    await_nothing(dirs)


def test_the_end_of_a_detached_container_is_recorded(
    python: Python, options: dict[str, str]
) -> None:
    (container_id,) = finished(
        python(
            "with Runtime(**options) as rt:\n"
            "    say(rt.start(box, ['sh', '-c', 'sleep 0.3; exit 3'], detach=True).id)\n"
        )
    )
    with Runtime(**options) as rt:
        c = rt.get_container(container_id)
        assert c.wait(60) == 3
        await_status(c, Status.EXITED)
        c.remove()


def test_a_detached_container_in_a_runtime_that_stays(rt: Runtime, box: Spec, dirs: Dirs) -> None:
    """Whoever comes first clears up; the other finds nothing to do."""
    c = rt.start(box, ["sh", "-c", "exit 4"], detach=True, remove=True)
    assert c.wait(60) == 4
    await_nothing(dirs)
    c = rt.start(box, SLEEP, detach=True, remove=True)
    c.stop()
    await_nothing(dirs)


# --- sudden death ------------------------------------------------------------------------


def killed(child: subprocess.Popen[str]) -> str:
    """What a process said before it was killed without a warning."""
    said = heard(child)
    child.kill()
    child.wait(60)
    return said


def test_the_next_runtime_takes_over(python: Python, options: dict[str, str], dirs: Dirs) -> None:
    container_id = killed(
        python(
            "rt = Runtime(**options)\n"
            f"job = box.but(mounts=[Mount({dirs.work!r}, '/mark')])\n"
            "wait = 'while [ ! -e /mark/end ]; do sleep 0.05; done; exit 5'\n"
            "c = rt.start(job, ['sh', '-c', wait])\n"
            "say(c.id); time.sleep(1000)"
        )
    )
    with Runtime(**options) as rt:
        c = rt.get_container(container_id)
        assert c.state.status is Status.RUNNING  # it goes on
        with open(f"{dirs.work}/end", "w", encoding="ascii"):
            pass
        # Nobody asks: the one that took over records the end and clears up.
        record = settled(
            lambda: (
                []
                if rt.state.container(container_id).state.status is Status.EXITED
                else [container_id]
            ),
            60,
        )
        assert record == []
        assert settled(lambda: os.listdir(f"{dirs.tmp}/exits"), 60) == []  # after the record
        assert c.wait(0) == 5
        c.remove()


def test_one_that_ended_while_nobody_was_there(
    python: Python, options: dict[str, str], dirs: Dirs
) -> None:
    container_id = killed(
        python(
            "rt = Runtime(**options); c = rt.start(box, ['sh', '-c', 'sleep 0.5; exit 6'])\n"
            "say(c.id); time.sleep(1000)"
        )
    )
    assert settled(lambda: [] if os.listdir(f"{dirs.tmp}/exits") else ["no exit file"], 60) == []
    with Runtime(**options) as rt:
        c = rt.get_container(container_id)
        assert c.wait(60) == 6
        await_status(c, Status.EXITED)
        c.remove()


@pytest.mark.parametrize("command", ["sleep 1000", "exit 3"])
def test_one_that_was_to_be_removed_is_removed(
    python: Python, options: dict[str, str], dirs: Dirs, command: str
) -> None:
    container_id = killed(
        python(
            "rt = Runtime(**options)\n"
            f"c = rt.start(box, ['sh', '-c', {command!r}], remove=True)\n"
            "say(c.id); os.kill(os.getpid(), 9)"
        )
    )
    with Runtime(**options) as rt:
        if command.startswith("sleep"):
            rt.get_container(container_id).kill(signal.SIGKILL)
        await_nothing(dirs)


def test_two_take_over_at_once(python: Python, elsewhere: Elsewhere, dirs: Dirs) -> None:
    for _ in range(3):
        killed(
            python(
                "rt = Runtime(**options)\n"
                "c = rt.start(box, ['true'], remove=True)\n"
                "say(c.id); time.sleep(1000)"
            )
        )
    children = [elsewhere("time.sleep(1)") for _ in range(3)]
    for child in children:
        assert finished(child) == []
    await_nothing(dirs)


def test_a_job_whose_process_was_killed(
    python: Python, options: dict[str, str], dirs: Dirs
) -> None:
    """`run` removes its container; if it cannot, the next runtime does."""
    child = python("rt = Runtime(**options); rt.run(box, ['sleep', '1000'])")
    with Runtime(**options) as rt:
        assert settled(lambda: [] if rt.get_running_containers() else ["none runs"], 60) == []
    child.kill()
    child.wait(60)
    with Runtime(**options) as rt:
        (c,) = rt.get_containers()
        assert c.state.status is Status.RUNNING
        c.kill(signal.SIGKILL)
        await_nothing(dirs)


def on_its_way_out(rt: Runtime) -> list[str]:
    found = []
    for c in rt.get_containers():
        with suppress(ContainerRemoved):
            if c.state.status not in (Status.CONFIGURED, Status.CREATED):
                found.append(c.id)
    return found


@pytest.mark.parametrize("delay", [0.01, 0.04, 0.08, 0.16])
def test_a_job_whose_process_is_killed_as_it_starts(
    python: Python, options: dict[str, str], dirs: Dirs, delay: float
) -> None:
    """However far it has come: it goes on and is removed at its end, or is there to be
    started or removed, or what it had made is swept."""
    child = python("rt = Runtime(**options); say('go'); rt.run(box, ['sleep', '1000'])")
    assert heard(child) == "go"
    time.sleep(delay)
    child.kill()
    child.wait(60)
    with Runtime(**options) as rt:
        for c in rt.get_running_containers():
            c.kill(signal.SIGKILL)
        assert settled(lambda: on_its_way_out(rt)) == []
        for c in rt.get_containers():  # not started: for whoever finds it to start or remove
            c.remove(force=True)
        assert len(containers_of(dirs)) <= 1
        rt.sweep()
        assert rt.audit() == []


# --- namespaces and files of others ----------------------------------------------------------


def namespace_of(container: Container, kind: str) -> str:
    return os.readlink(container.namespace_path(kind))


@pytest.mark.parametrize("kind", ["net", "ipc", "pid", "uts"])
def test_a_shared_namespace(rt: Runtime, options: dict[str, str], box: Spec, kind: str) -> None:
    first = rt.create(box, SLEEP)
    with Runtime(**options) as other:
        needed = other.get_container(first.id)
        second = other.create(box, SLEEP, **{f"{kind}_ns_from": needed})
        assert second.dependencies == [first.id]
        with pytest.raises(ContainerStateInvalid, match=first.id):
            second.start()
        first.start()
        second.start()
        assert namespace_of(second, kind) == namespace_of(first, kind)
        for own in {"net", "ipc", "pid", "uts", "mnt"} - {kind}:
            assert namespace_of(second, own) != namespace_of(first, own), own
        with pytest.raises(ContainerExists, match=second.id):
            first.remove(force=True)
        assert first.state.status is Status.RUNNING  # refused before anything is done
        second.remove(force=True)
    first.remove(force=True)


def test_a_hostname_is_shared_with_its_namespace(rt: Runtime, box: Spec) -> None:
    with rt.start(box.but(hostname="mainframe"), SLEEP) as first:
        second = rt.create(box, ["hostname"], uts_ns_from=first)
        second.start()
        assert second.wait(60) == 0
        assert b"mainframe" in read_log(second)
        second.remove()


def test_processes_are_seen_in_a_shared_pid_namespace(rt: Runtime, box: Spec) -> None:
    with rt.start(box, ["sleep", "12345"]) as first:
        second = rt.create(box, ["ps", "-o", "args"], pid_ns_from=first)
        second.start()
        assert second.wait(60) == 0
        assert b"sleep 12345" in read_log(second)
        second.remove()


def test_shared_memory_goes_with_the_ipc_namespace(rt: Runtime, box: Spec) -> None:
    write, read = "echo hello >/dev/shm/word; sleep 1000", "cat /dev/shm/word"
    first = rt.start(box, ["sh", "-c", write], shm_private=False)
    second = rt.create(box, ["sh", "-c", read], ipc_ns_from=first)
    alone = rt.create(box, ["sh", "-c", read])
    deadline = time.monotonic() + 60
    while not os.path.exists(f"{first.record.config.shm_dir}/word"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for c, code in (second, 0), (alone, 1):
        c.start()
        assert c.wait(60) == code
        assert (b"hello" in read_log(c)) is (code == 0)
        c.remove()
    first.remove(force=True)
    assert not os.path.exists(first.record.config.shm_dir)


def test_the_size_of_the_shared_memory(rt: Runtime, box: Spec) -> None:
    c = rt.create(box, ["df", "-k", "/dev/shm"], shm_private=False, shm_size=1 << 20)
    c.start()
    assert c.wait(60) == 0
    assert b" 1024 " in read_log(c)
    c.remove()


def test_the_files_of_etc(rt: Runtime, box: Spec) -> None:
    look = "cat /etc/hosts; echo -; cat /etc/hostname; echo -; ls -l /run/.containerenv"
    c = rt.create(box.but(hostname="crate"), ["sh", "-c", look], name="web", hosts=["db:10.1.2.3"])
    c.start()
    assert c.wait(60) == 0
    said = read_log(c).decode()
    assert "10.1.2.3\tdb" in said
    assert "127.0.0.1\tcrate web" in said
    assert ".containerenv" in said
    c.remove()


def test_the_containerenv_of_a_privileged_one(rt: Runtime, box: Spec) -> None:
    c = rt.create(box, ["cat", "/run/.containerenv"], name="web", privileged=True)
    c.start()
    assert c.wait(60) == 0
    assert f'id="{c.id}"'.encode() in read_log(c) and b'name="web"' in read_log(c)
    c.remove()


def test_resolv_conf_in_the_hosts_network(rt: Runtime, box: Spec) -> None:
    c = rt.create(
        box.but(network="host"),
        ["cat", "/etc/resolv.conf"],
        dns_servers=["10.9.8.7"],
        dns_search=["example.org"],
    )
    c.start()
    assert c.wait(60) == 0
    assert b"nameserver 10.9.8.7" in read_log(c) and b"search example.org" in read_log(c)
    c.remove()


# --- reboots --------------------------------------------------------------------------------


@pytest.fixture
def reboot(dirs: Dirs) -> Iterator[Callable[[Runtime], None]]:
    """Ends what a reboot ends: processes, cgroups, mounts, and all below the tmpdir."""

    def end(rt: Runtime) -> None:
        cgroups = rt.engine.host.cgroups
        groups = {c.id: c.cgroup_path for c in rt.get_containers()}
        shm = [f"{rt.store.container_dir(container_id)}/shm" for container_id in groups]
        host = rt.engine.host
        rt.shutdown()  # nobody sees them end
        for process in processes().values():
            program = os.path.basename((process.argv or ("",))[0])
            if program == "conmon" and set(process.argv) & set(groups):
                os.kill(process.pid, signal.SIGKILL)
        for group in groups.values():
            cgroups.kill(group)
            cgroups.remove(group)
        for path in shm:
            host.unmount(path)
        subprocess.run(["rm", "-r", dirs.tmp], check=True)

    yield end


def test_a_reboot(
    options: dict[str, str], box: Spec, reboot: Callable[[Runtime], None], said: Said
) -> None:
    rt = Runtime(**options)
    configured = rt.create(box, SLEEP)
    once = rt.create(box, SLEEP, name="once", remove=True)
    initialized = rt.create(box, SLEEP)
    initialized.init()
    running = rt.start(box, SLEEP, shm_private=False)
    detached = rt.start(box, SLEEP, detach=True)
    paused = rt.start(box, SLEEP)
    exited = rt.start(box, ["sh", "-c", "exit 3"])
    assert exited.wait(60) == 3
    await_status(exited, Status.EXITED)
    paused.pause()
    paused.unpause()
    reboot(rt)
    expected = {
        configured.id: (Status.CONFIGURED, 0),
        once.id: (Status.CONFIGURED, 0),
        initialized.id: (Status.CONFIGURED, 0),
        running.id: (Status.CONFIGURED, 0),
        detached.id: (Status.CONFIGURED, 0),
        paused.id: (Status.CONFIGURED, 0),
        exited.id: (Status.EXITED, 3),
    }
    with Runtime(**options) as rt:
        found = rt.get_all_containers()
        assert {c.id: (c.state.status, c.state.exit_code) for c in found} == expected
        assert all(c.state.pid == 0 for c in found)
        assert rt.audit() == []
        assert rt.store.container(once.id).name == "once"
        for c in found:
            c.start()
            assert c.state.status is (Status.RUNNING if c.id != exited.id else c.state.status)
            c.remove(force=True)


def test_a_reboot_is_noticed_once(
    options: dict[str, str],
    box: Spec,
    reboot: Callable[[Runtime], None],
    python: Python,
    said: Said,
) -> None:
    rt = Runtime(**options)
    ids = sorted(rt.start(box, SLEEP).id for _ in range(2))
    reboot(rt)
    text = """
from libpod import refresh
original = refresh.refresh
def slow(*arguments):
    say("refreshes")
    time.sleep(0.5)
    original(*arguments)
refresh.refresh = slow
with Runtime(**options) as rt:
    say(*(c.state.status.name for c in rt.get_containers()))
    say(*(c.id for c in rt.get_containers()))
"""
    children = [python(text) for _ in range(3)]
    lines = [line for child in children for line in finished(child)]
    assert lines.count("refreshes") == 1
    assert lines.count("CONFIGURED CONFIGURED") == 3
    assert lines.count(" ".join(ids)) == 3
    with Runtime(**options) as rt:
        for container_id in ids:
            rt.get_container(container_id).remove()


# --- a state in memory ----------------------------------------------------------------------


def test_containers_of_a_state_in_memory_end_with_it(
    options: dict[str, Any], box: Spec, dirs: Dirs
) -> None:
    with Runtime(**options, state_type=StateType.IN_MEMORY) as rt:
        running = rt.start(box, SLEEP, name="web")
        rt.create(box, SLEEP)
        paused = rt.start(box, SLEEP)
        paused.pause()
        assert rt.lookup_container("web").id == running.id
        assert len(rt.get_containers()) == 3
        assert rt.run(box, ["echo", "x"]).stdout == b"x\n"
        with Runtime(**options, state_type=StateType.IN_MEMORY) as other:
            assert other.get_containers() == []
    assert containers_of(dirs) == []
    assert not os.path.exists(f"{dirs.static}/bolt_state.db")
