# SPDX-License-Identifier: Apache-2.0
"""A container's first process where it is not yet the command, or ends just then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import libpod.launch
from census import processes
from libpod import (
    ContainerStateInvalid,
    OCIRuntimeFailed,
    Runtime,
    Spec,
    Status,
    _spawn,
    execfifo,
)
from libpod.launch import Launch

SLEEP = ["sleep", "1000"]


def test_pause_waits_for_the_command(
    rt: Runtime, box: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the OCI runtime's process becomes the command it looks as if it had ended."""
    c = rt.start(box, SLEEP)
    launched = c._life.running()
    seen = ["/bin/sleep", "", launched._stub]
    monkeypatch.setattr(libpod.launch, "_program", lambda pid: seen.pop())
    pause = c._life.oci.pause

    def pause_late(container_id: str) -> None:
        assert seen == []
        pause(container_id)

    monkeypatch.setattr(c._life.oci, "pause", pause_late)
    c.pause()
    assert c.state.status is Status.PAUSED


@pytest.mark.parametrize("verb", ["pause", "unpause"])
def test_a_process_that_ends_while_it_is_frozen_or_thawed(
    rt: Runtime, box: Spec, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = rt.start(box, SLEEP)
    launched = c._life.running()
    if verb == "unpause":
        c.pause()
    name = {"pause": "pause", "unpause": "resume"}[verb]
    call = getattr(c._life.oci, name)

    def too_late(container_id: str) -> None:
        c._life.oci.kill(container_id, signal.SIGKILL)
        if verb == "unpause":
            call(container_id)
        deadline = time.monotonic() + 60
        while launched.has_process() and time.monotonic() < deadline:
            time.sleep(0.01)
        call(container_id)

    monkeypatch.setattr(c._life.oci, name, too_late)
    with pytest.raises(ContainerStateInvalid, match="has ended just now"):
        getattr(c, verb)()
    assert c.wait(60) == 128 + signal.SIGKILL


def test_a_created_one_that_is_ended_while_it_is_started(
    rt: Runtime, box: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = rt.create(box, SLEEP)
    c.init()

    def too_late(fifo: str, runtime: str, init: _spawn.Process) -> bool:
        init.send_signal(signal.SIGKILL)
        assert init.ended(60)
        return False

    monkeypatch.setattr(execfifo, "let_go", too_late)
    with pytest.raises(ContainerStateInvalid, match="has ended just now") as raised:
        c.start()
    assert isinstance(raised.value.__cause__, OCIRuntimeFailed)
    assert c.wait(60) == 128 + signal.SIGKILL


# The first thread ends, and another one becomes `sleep` when a line is typed.
TWO_THREADS = """
import ctypes, os, sys, threading, time
def become():
    sys.stdin.readline()
    time.sleep(0.2)
    os.execv("/bin/sleep", ["sleep", "1000"])
threading.Thread(target=become).start()
ctypes.CDLL(None).pthread_exit(None)
"""


@pytest.fixture
def two_threads() -> Iterator[subprocess.Popen[bytes]]:
    """Its first thread has ended."""
    child = subprocess.Popen([sys.executable, "-c", TWO_THREADS], stdin=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while processes()[child.pid].state != "Z":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield child
    finally:
        child.kill()
        child.communicate()


def go_on(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    child.stdin.write(b"\n")
    child.stdin.flush()


def is_sleep(child: subprocess.Popen[bytes]) -> bool:
    return os.readlink(f"/proc/{child.pid}/exe") == os.path.realpath("/bin/sleep")


def test_a_process_without_its_first_thread_is_not_the_command_yet(
    rt: Runtime, box: Spec, two_threads: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libpod.launch, "STUB_TIMEOUT", 60.0)
    c = rt.start(box, SLEEP)
    launched = Launch(rt.engine, c._life.bundle(), c._life.oci)
    try:
        launched.pid = two_threads.pid
        launched._stub = os.path.realpath(sys.executable)
        launched._init = _spawn.open_process(two_threads.pid)
        go_on(two_threads)
        launched.await_command()
        assert is_sleep(two_threads)
    finally:
        launched.close()


def test_another_process_finds_it_without_its_first_thread(
    rt: Runtime, box: Spec, two_threads: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cgroup and its program cannot be seen then."""
    monkeypatch.setattr(libpod.launch, "STUB_TIMEOUT", 60.0)
    c = rt.start(box, SLEEP)
    cgroup = max(Path("/proc/self/cgroup").read_text().splitlines(), key=len)
    bundle = c._life.bundle()._replace(cgroup=cgroup)
    go_on(two_threads)
    launched = Launch.adopt(rt.engine, bundle, c._life.oci, two_threads.pid)
    try:
        assert launched.has_process()
        assert is_sleep(two_threads)
    finally:
        launched.close()
