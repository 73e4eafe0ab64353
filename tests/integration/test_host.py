# SPDX-License-Identifier: Apache-2.0
"""Sessions of processes: which are ended, and which are let go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from conftest import Said
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
    assert session.stdout is not None
    leaver = int(session.stdout.readline())
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
