# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C, sudden death and forks: what is killed, what lives on, what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from census import processes, settled
from conftest import Dirs, await_output, containers_of, heard
from libpod import Runtime, RuntimeStopped, Spec, Status, UsedAfterFork
from libpod.engine import Releaser
from libpod.errors import LockTimeout
from libpod.lockfile import LockFile

Python = Callable[..., "subprocess.Popen[str]"]
Script = Callable[[str, str], str]

SLEEP = ["sleep", "1000"]

# The job of the child; it says where it is, and what became of it.  CPython takes an interrupt
# that passed through an exec of text (how a namedtuple is made, of a module that was being
# loaded) for one that nobody caught, and ends by SIGINT: the exec of nothing makes it forget.
CHILD = """
try:
    with Runtime(**options) as rt:
        say("open")
        {body}
except KeyboardInterrupt:
    exec("")
    say("interrupted")
"""


def child_text(body: str) -> str:
    return CHILD.format(body=body)


def expect(process: subprocess.Popen[str], word: str, timeout: float = 60) -> None:
    """Reads lines of the child until one is `word`."""
    watchdog = threading.Timer(timeout, process.kill)
    watchdog.start()
    try:
        while heard(process) != word:
            pass
    finally:
        watchdog.cancel()
        watchdog.join()


def interrupt(process: subprocess.Popen[str]) -> None:
    """Sends Ctrl-C and waits for the child's orderly end; what it was about would have
    taken longer than that may."""
    process.send_signal(signal.SIGINT)
    expect(process, "interrupted")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")


def slow_runtime(script: Script, real: str, verb: str, seconds: float, mark: str) -> str:
    """The real OCI runtime, which takes its time before one verb and tells so by a file."""
    return script(
        os.path.basename(real),
        f'case " $* " in *" {verb} "*) : >{mark}; sleep {seconds};; esac; exec {real} "$@"',
    )


def await_file(path: str, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not os.path.exists(path):
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


# --- Ctrl-C ------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["create", "start"])
def test_ctrl_c_while_the_oci_runtime_works(
    python: Python, script: Script, oci_path: str, options: dict[str, str], dirs: Dirs, verb: str
) -> None:
    mark = f"{dirs.work}/mark"
    options["oci_runtime"] = slow_runtime(script, oci_path, verb, 1000, mark)
    child = python(child_text('rt.run(box, ["sleep", "1000"])'))
    await_file(mark)
    interrupt(child)


def test_ctrl_c_while_the_job_runs(python: Python, dirs: Dirs) -> None:
    job = ["sh", "-c", "trap '' TERM INT; : >/mark/up; while :; do sleep 0.1; done"]
    child = python(
        child_text(
            f"rt.run(box.but(stop_signal='TERM', mounts=[Mount({dirs.work!r}, '/mark')]), {job!r}, "
            "grace=1000)"
        )
    )
    await_file(f"{dirs.work}/up")
    interrupt(child)  # killed at once: the grace is a time-out's


def test_ctrl_c_during_the_grace(python: Python, dirs: Dirs) -> None:
    job = ["sh", "-c", "trap ': >/mark/asked' TERM; while :; do sleep 0.05; done"]
    child = python(
        child_text(
            f"rt.run(box.but(stop_signal='TERM', mounts=[Mount({dirs.work!r}, '/mark')]), {job!r}, "
            "timeout=1, grace=1000)"
        )
    )
    await_file(f"{dirs.work}/asked")
    interrupt(child)


def test_ctrl_c_while_input_and_output_flow(python: Python) -> None:
    child = python(child_text("say('go'); rt.run(box, ['cat'], input=bytes(200_000_000))"))
    expect(child, "go")
    time.sleep(0.5)
    interrupt(child)


def test_ctrl_c_in_a_wait_leaves_the_container_to_its_block(python: Python) -> None:
    child = python(
        child_text(
            "with rt.start(box, ['sleep', '1000'], stop_timeout=1000) as c: say('go'); c.wait()"
        )
    )
    expect(child, "go")
    time.sleep(0.1)
    interrupt(child)


def test_ctrl_c_in_a_stop(python: Python) -> None:
    child = python(
        child_text(
            "with rt.start(box.but(stop_signal='WINCH'), ['sleep', '1000']) as c: "
            "say('go'); c.stop(grace=1000)"
        )
    )
    expect(child, "go")
    time.sleep(0.2)
    interrupt(child)


def test_ctrl_c_at_any_time(python: Python) -> None:
    """A real signal, a little later each time."""
    for step in range(8):
        child = python(child_text("say('go'); rt.run(box, ['sleep', '1000'])"))
        expect(child, "go")
        time.sleep(step * 0.016)
        interrupt(child)


@pytest.mark.timeout(330)
def test_an_interrupt_at_any_line(dirs: Dirs, rootfs: str, oci_path: str) -> None:
    """A part of the lines, another one each day; `interrupts.py 0 1 ...` does all."""
    parts = 32
    part = int(time.time() // 86400) % parts
    program = os.path.join(os.path.dirname(__file__), "interrupts.py")
    done = subprocess.run(
        [sys.executable, program, str(part), str(parts), dirs.base, rootfs, oci_path],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    *places, last = done.stdout.splitlines() or [""]
    assert (done.returncode, places) == (0, []), done.stderr
    assert last.endswith(" places") and int(last.split()[0]) > 20


# --- sudden death ---------------------------------------------------------------------------


def find(dirs: Dirs, *words: str) -> list[int]:
    """Our processes with all of these words on their command line."""
    return [
        p.pid
        for p in processes().values()
        if any(dirs.base in word for word in p.argv)
        and all(any(word in given for given in p.argv) for word in words)
    ]


def test_a_container_outlives_our_sudden_death(
    python: Python, options: dict[str, str], dirs: Dirs
) -> None:
    child = python(
        "rt = Runtime(**options); c = rt.start(box.but(stop_signal='KILL'), ['sleep', '1000'])\n"
        "say(c.id); say(c.state.pid); say('go'); time.sleep(1000)"
    )
    container_id, pid = heard(child), int(heard(child))
    expect(child, "go")
    child.kill()
    child.wait(60)
    assert processes()[pid].state not in "ZX"
    assert find(dirs, "conmon", container_id)
    lock = LockFile(f"{dirs.tmp}/lock/{container_id}")
    assert lock.try_lock()  # at once, although conmon lives
    lock.close()
    with Runtime(**options) as rt:
        rt.get_container(container_id).remove(force=True)


def test_a_lock_dies_with_its_holder(
    python: Python, script: Script, oci_path: str, options: dict[str, str], dirs: Dirs
) -> None:
    """Killed in the middle of a creation, with the lock held and conmon and runtime alive;
    the next runtime ends these and what they have made."""
    mark = f"{dirs.work}/mark"
    real = dict(options)
    options["oci_runtime"] = slow_runtime(script, oci_path, "create", 1000, mark)
    child = python("rt = Runtime(**options); rt.run(box, ['sleep', '1000'])")
    await_file(mark)
    (container_id,) = containers_of(dirs)
    lock = LockFile(f"{dirs.tmp}/lock/{container_id}")
    with pytest.raises(LockTimeout) as caught:
        lock.lock(0.05)
    assert caught.value.holder == child.pid
    child.kill()
    child.wait(60)
    assert lock.try_lock()
    lock.close()
    assert find(dirs, "conmon", container_id)
    with Runtime(**real) as rt:
        assert settled(lambda: [c.id for c in rt.get_containers()]) == []
        assert find(dirs, "conmon", container_id) == []


# --- forks -----------------------------------------------------------------------------------


def in_a_fork(check: Callable[[], None]) -> None:
    """Runs `check` in a forked child, which must end well."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            check()
            code = 0
        except BaseException as error:
            os.write(2, f"in the child: {error!r}\n".encode())
        finally:
            os._exit(code)
    deadline = time.monotonic() + 60
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            pytest.fail("a call in the forked child did not return")
        time.sleep(0.01)
    assert status == 0


def test_every_call_in_a_forked_child_is_refused(rt: Runtime, box: Spec) -> None:
    c = rt.start(box, SLEEP)
    created = rt.create(box, SLEEP)
    calls: dict[str, Callable[[], Any]] = {
        "run": lambda: rt.run(box, ["true"]),
        "start": lambda: rt.start(box, ["true"]),
        "create": lambda: rt.create(box, ["true"]),
        "doctor": rt.doctor,
        "info": rt.info,
        "new_container": lambda: rt.new_container({"root": {"path": "/"}}),
        "get_container": lambda: rt.get_container(c.id),
        "lookup_container": lambda: rt.lookup_container(c.id),
        "has_container": lambda: rt.has_container(c.id),
        "get_containers": rt.get_containers,
        "remove_container": lambda: rt.remove_container(c, force=True),
        "shutdown": rt.shutdown,
        "with": rt.__enter__,
        "Container.init": created.init,
        "Container.start": created.start,
        "Container.state": lambda: c.state,
        "Container.usage": lambda: c.usage,
        "Container.wait": c.wait,
        "Container.kill": c.kill,
        "Container.stop": c.stop,
        "Container.pause": c.pause,
        "Container.unpause": c.unpause,
        "Container.connect": c.connect,
        "Container.remove": lambda: c.remove(force=True),
    }

    def check() -> None:
        for name, call in calls.items():
            try:
                call()
            except UsedAfterFork as error:
                assert error.remedy, name
            except BaseException as error:
                raise AssertionError(f"{name} raised {error!r}") from error
            else:
                raise AssertionError(f"{name} returned")
        rt.close()  # the child's clean-up may call it: it does nothing

    in_a_fork(check)
    assert c.state.status is Status.RUNNING
    assert rt.run(box, ["echo", "on"]).stdout == b"on\n"


def test_leaving_a_block_in_a_forked_child_touches_nothing(rt: Runtime, box: Spec) -> None:
    c = rt.start(box, SLEEP)

    def leave() -> None:
        with pytest.raises(UsedAfterFork):
            c.__exit__(None, None, None)
        rt.__exit__(None, None, None)

    in_a_fork(leave)
    assert c.state.status is Status.RUNNING
    c.kill()
    assert c.wait() == 137


def test_a_fork_while_others_work(rt: Runtime, box: Spec) -> None:
    """Neither side waits for a lock that another thread held at the fork."""
    import threading

    stop = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        while not stop.is_set():
            try:
                assert rt.run(box, ["echo", "x"]).stdout == b"x\n"
            except BaseException as error:
                failures.append(error)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()

    def check() -> None:
        for call in (lambda: rt.run(box, ["true"]), rt.get_containers):
            try:
                call()
            except UsedAfterFork:
                continue
            raise AssertionError("it returned")
        rt.close()

    try:
        for _ in range(20):
            in_a_fork(check)
            time.sleep(0.02)
    finally:
        stop.set()
        for worker in workers:
            worker.join(60)
    assert failures == []


def test_a_new_runtime_in_a_forked_child(rt: Runtime, options: dict[str, str], box: Spec) -> None:
    def check() -> None:
        with Runtime(**options) as own:
            assert own.run(box, ["echo", "child"]).stdout == b"child\n"

    assert rt.run(box, ["echo", "parent"]).stdout == b"parent\n"
    in_a_fork(check)
    assert rt.run(box, ["echo", "parent"]).stdout == b"parent\n"


# --- the end of the process ---------------------------------------------------------------------


def test_an_exit_without_closing(python: Python, options: dict[str, str], dirs: Dirs) -> None:
    """The interpreter ends although a watching thread waits; the container goes on."""
    child = python(
        "rt = Runtime(**options); c = rt.start(box.but(stop_signal='KILL'), ['sleep', '1000'])\n"
        "say(c.id)"
    )
    out, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (0, "")
    container_id = out.strip()
    assert find(dirs, "conmon", container_id)
    with Runtime(**options) as rt:
        rt.get_container(container_id).remove(force=True)


def test_shutdown_without_force_leaves_containers(options: dict[str, str], box: Spec) -> None:
    rt = Runtime(**options)
    c = rt.start(box, ["sh", "-c", "echo up; exec sleep 1000"])
    await_output(c, b"up")
    pid = c.state.pid
    rt.shutdown()
    assert processes()[pid].state not in "ZX"
    for call in (c.wait, c.stop, lambda: c.state):
        with pytest.raises(RuntimeStopped):
            call()
    with Runtime(**options) as other:
        again = other.get_container(c.id)
        assert again.state.pid == pid
        again.remove(force=True)


def test_shutdown_ends_the_waiting_of_other_threads(
    options: dict[str, str], box: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    rt = Runtime(**options)
    c = rt.start(box, SLEEP)
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            c.wait()
        except RuntimeStopped as error:
            ended.append(error)

    waits = threading.Event()
    await_end = c._life.running().ended.wait

    def noted_wait(timeout: float | None = None) -> bool:
        waits.set()
        return await_end(timeout)

    monkeypatch.setattr(c._life.running().ended, "wait", noted_wait)
    waiter = threading.Thread(target=wait)
    waiter.start()
    assert waits.wait(60)
    rt.shutdown()
    waiter.join(60)
    assert not waiter.is_alive() and len(ended) == 1
    assert "goes on under its monitor" in str(ended[0])
    with Runtime(**options) as other:
        other.get_container(c.id).remove(force=True)


def test_shutdown_lets_a_release_end(options: dict[str, str], box: Spec) -> None:
    """It has all that it needs to its end."""
    rt = Runtime(**options)
    c = rt.start(box, SLEEP)
    engine = rt.engine
    done: list[str] = []

    def release() -> None:
        deadline = time.monotonic() + 60
        while not engine.releaser._closing:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        assert engine.exits.read(c.id) is None
        done.append("in time")

    engine.releaser.submit(release)
    rt.shutdown()
    assert done == ["in time"]
    with Runtime(**options) as other:
        other.get_container(c.id).remove(force=True)


def test_what_comes_after_the_shutdown_is_not_released() -> None:
    """The next runtime does it."""
    releaser = Releaser()
    done: list[str] = []
    releaser.close()
    releaser.submit(lambda: done.append("too late"))
    releaser.close()
    assert done == []
