# SPDX-License-Identifier: Apache-2.0
"""Sessions of processes: who is ended, and who is let go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator

import pytest

from conftest import Dirs, Said, heard
from libpod import _spawn
from libpod.host import Host

pytestmark = pytest.mark.any_runtime

# A session of two; the one that does not lead it leaves it when it is asked to.
LEAVER = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
if os.fork():
    signal.pause()
print(os.getpid(), flush=True)
signal.sigwait([signal.SIGUSR1])
os.setsid()
signal.pause()
"""


# The leader of a session, which starts another process when it is asked to.
PARENT = """
import os, signal, subprocess
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print("ready", flush=True)
signal.sigwait([signal.SIGUSR1])
print(subprocess.Popen(["sleep", "1000"]).pid, flush=True)
signal.pause()
"""


@pytest.fixture
def session() -> Iterator[subprocess.Popen[str]]:
    leader = subprocess.Popen(
        [sys.executable, "-c", LEAVER], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    yield leader
    leader.kill()
    leader.communicate()


def test_who_leaves_the_session_is_not_waited_for(
    session: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    leaver = int(heard(session))
    open_process = _spawn.open_process
    held = open_process(leaver)

    def leaves(pid: int) -> _spawn.Process:
        """Between the listing and the kill."""
        if pid == leaver:
            os.kill(pid, signal.SIGUSR1)
            deadline = time.monotonic() + 60
            while os.getsid(pid) == session.pid:
                assert time.monotonic() < deadline
                time.sleep(0.001)
        return open_process(pid)

    monkeypatch.setattr(_spawn, "open_process", leaves)
    try:
        Host().kill_session(session.pid)
        assert session.wait(60) == -signal.SIGKILL
        assert not held.ended()
        assert said.lines == []
    finally:
        held.send_signal(signal.SIGKILL)
        assert held.ended(60)
        held.close()


def test_what_is_started_while_its_session_is_killed_dies_too(
    dirs: Dirs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all in the session only the one that is dead by then had the words that it is
    known by."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, dirs.base],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    open_process = _spawn.open_process
    children: list[_spawn.Process] = []

    def starts_another(pid: int) -> _spawn.Process:
        """Between the listing and the kill."""
        if pid == parent.pid:
            parent.send_signal(signal.SIGUSR1)
            children.append(open_process(int(heard(parent))))
        return open_process(pid)

    sessions_naming = Host.sessions_naming

    def once_it_is_dead(host: Host, words: Collection[str]) -> set[int]:
        if children:
            assert held.ended(60)
        return sessions_naming(host, words)

    assert heard(parent) == "ready"
    held = open_process(parent.pid)
    monkeypatch.setattr(_spawn, "open_process", starts_another)
    monkeypatch.setattr(Host, "sessions_naming", once_it_is_dead)
    try:
        Host().kill_session(naming=[dirs.base])
        (child,) = children
        assert child.ended()
    finally:
        for child in children:
            if not child.ended():
                child.send_signal(signal.SIGKILL)
            child.close()
        held.close()
        parent.kill()
        parent.communicate()
