# SPDX-License-Identifier: Apache-2.0
"""Who is told of which exit: with real processes as monitors, and files as conmon's."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from libpod import _spawn
from libpod.errors import Closed, SystemCallError, UsedAfterFork, WaitTimeout
from libpod.exits import LOST, Exit, ExitWatcher

PATIENCE = 60.0


class Told:
    """What `on_exit` was called with; `get` waits for it."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Exit | None] = queue.Queue()
        self.thread = ""

    def __call__(self, exit: Exit | None) -> None:
        self.thread = threading.current_thread().name
        self._queue.put(exit)

    def get(self) -> Exit | None:
        return self._queue.get(timeout=PATIENCE)

    def is_silent(self, seconds: float = 0.1) -> bool:
        try:
            self._queue.get(timeout=seconds)
        except queue.Empty:
            return True
        return False


@pytest.fixture
def exits(tmp_path: Path) -> str:
    (tmp_path / "exits").mkdir()
    return str(tmp_path / "exits")


@pytest.fixture
def watcher(exits: str) -> Iterator[ExitWatcher]:
    watching = ExitWatcher(exits)
    yield watching
    watching.close()


@pytest.fixture
def monitor() -> Iterator[_spawn.Process]:
    with _spawn.spawn(["/bin/sleep", "1000"], {}) as process:
        yield process
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            process.wait()


def put(exits: str, name: str, text: str) -> None:
    """As conmon does: written beside, then renamed."""
    beside = f"{exits}/../{name}.new"
    with open(beside, "w", encoding="ascii") as file:
        file.write(text)
    os.rename(beside, f"{exits}/{name}")


def test_an_exit_is_told_once(exits: str, watcher: ExitWatcher, monitor: _spawn.Process) -> None:
    told = Told()
    before = time.time()
    watcher.add("one", monitor, told)
    assert told.is_silent()
    put(exits, "one", "7")
    exit = told.get()
    assert exit is not None and exit.code == 7
    assert before - 1 <= exit.finished <= time.time() + 1
    assert told.thread == "libpod-exits"
    put(exits, "one", "8")
    monitor.send_signal(signal.SIGKILL)
    assert told.is_silent()


def test_a_container_that_has_ended_already(
    exits: str, watcher: ExitWatcher, monitor: _spawn.Process
) -> None:
    put(exits, "one", "3")
    told = Told()
    watcher.add("one", monitor, told)
    exit = told.get()
    assert exit is not None and exit.code == 3
    assert told.is_silent()


def test_a_monitor_that_dies_after_its_last_word(
    exits: str, watcher: ExitWatcher, monitor: _spawn.Process
) -> None:
    """Whichever of both is seen first."""
    told = Told()
    watcher.add("one", monitor, told)
    put(exits, "one", "0")
    monitor.send_signal(signal.SIGKILL)
    exit = told.get()
    assert exit is not None and exit.code == 0
    assert told.is_silent()


def test_a_monitor_that_dies_without_a_word(watcher: ExitWatcher, monitor: _spawn.Process) -> None:
    told = Told()
    watcher.add("one", monitor, told)
    monitor.send_signal(signal.SIGKILL)
    exit = told.get()
    assert exit is not None and exit.code == LOST


def test_a_monitor_that_is_dead_already(
    watcher: ExitWatcher, monitor: _spawn.Process, caplog: pytest.LogCaptureFixture
) -> None:
    monitor.send_signal(signal.SIGKILL)
    assert monitor.ended(PATIENCE)
    told = Told()
    watcher.add("one", monitor, told)
    exit = told.get()
    assert exit is not None and exit.code == LOST


def test_garbage_is_lost(
    exits: str, watcher: ExitWatcher, monitor: _spawn.Process, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told()
    watcher.add("one", monitor, told)
    put(exits, "one", "garbage")
    exit = told.get()
    assert exit is not None and exit.code == LOST
    assert "holds no exit code" in caplog.text


def test_other_files_are_nobody_s(
    exits: str, watcher: ExitWatcher, monitor: _spawn.Process
) -> None:
    told = Told()
    watcher.add("one", monitor, told)
    for name in ("two", "one.tmp", "o", "ö", "x" * 200):
        put(exits, name, "1")
    assert told.is_silent()
    put(exits, "one", "5")
    exit = told.get()
    assert exit is not None and exit.code == 5


def test_many_containers_each_its_own(exits: str, watcher: ExitWatcher) -> None:
    monitors = [_spawn.spawn(["/bin/sleep", "1000"], {}) for _ in range(50)]
    told = [Told() for _ in monitors]
    for number, (process, ear) in enumerate(zip(monitors, told, strict=True)):
        watcher.add(f"c{number}", process, ear)
    for number in reversed(range(50)):
        put(exits, f"c{number}", str(number))
    for number, ear in enumerate(told):
        exit = ear.get()
        assert exit is not None and exit.code == number
        watcher.discard(f"c{number}")
    assert os.listdir(exits) == []
    for process in monitors:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.close()


def test_adding_from_many_threads(exits: str, watcher: ExitWatcher) -> None:
    codes: list[int] = []

    def work(thread: int) -> None:
        for number in range(10):
            name = f"{thread}-{number}"
            told = Told()
            with _spawn.spawn(["/bin/sleep", "1000"], {}) as process:
                if number % 2:
                    put(exits, name, str(number))
                watcher.add(name, process, told)
                if not number % 2:
                    put(exits, name, str(number))
                exit = told.get()
                assert exit is not None
                codes.append(exit.code - number)
                watcher.discard(name)
                process.send_signal(signal.SIGKILL)
                process.wait()

    threads = [threading.Thread(target=work, args=[n]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * 40


def test_a_listener_that_fails_does_not_end_the_watch(
    exits: str, watcher: ExitWatcher, monitor: _spawn.Process, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(exit: Exit | None) -> None:
        raise RuntimeError("a listener's own mistake")

    told = Told()
    watcher.add("bad", monitor, fail)
    with _spawn.spawn(["/bin/sleep", "1000"], {}) as other:
        watcher.add("good", other, told)
        put(exits, "bad", "1")
        put(exits, "good", "2")
        exit = told.get()
        assert exit is not None and exit.code == 2
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert "a listener's own mistake" in caplog.text


def test_what_is_forgotten_is_not_told(
    exits: str, watcher: ExitWatcher, monitor: _spawn.Process
) -> None:
    told = Told()
    watcher.add("one", monitor, told)
    watcher.forget("one", monitor)
    put(exits, "one", "1")
    monitor.send_signal(signal.SIGKILL)
    assert told.is_silent()
    watcher.forget("one", monitor)
    watcher.discard("one")  # its file, then nothing: no error
    watcher.discard("one")
    assert os.listdir(exits) == []


def test_what_is_discarded_has_been_told(
    exits: str, watcher: ExitWatcher, monitor: _spawn.Process
) -> None:
    """Though the thread that watches has had no time to look."""
    for number in range(50):
        told = Told()
        watcher.add("one", monitor, told)
        put(exits, "one", str(number))
        watcher.discard("one")
        exit = told.get()
        assert exit is not None and exit.code == number
    watcher.add("one", monitor, told)
    watcher.discard("one")  # nothing to tell as yet
    assert told.is_silent()
    put(exits, "one", "50")
    exit = told.get()
    assert exit is not None and exit.code == 50


def test_several_watch_one_container(
    exits: str, watcher: ExitWatcher, monitor: _spawn.Process
) -> None:
    told = [Told() for _ in range(3)]
    others = [_spawn.open_process(monitor.pid) for _ in told[1:]]
    for process, ear in zip([monitor, *others], told, strict=True):
        watcher.add("one", process, ear)
    watcher.forget("one", others[0])
    put(exits, "one", "9")
    for ear in (told[0], told[2]):
        exit = ear.get()
        assert exit is not None and exit.code == 9
    assert told[1].is_silent()
    for process in others:
        process.close()


def test_the_monitor_of_an_earlier_life_lingers(
    exits: str, watcher: ExitWatcher, monitor: _spawn.Process
) -> None:
    """It ends when its container has been started anew, and somebody else has recorded
    the first end: that says nothing of the second life."""
    earlier, later = Told(), Told()
    watcher.add("one", monitor, earlier)
    with _spawn.spawn(["/bin/sleep", "1000"], {}) as second:
        watcher.add("one", second, later)
        monitor.send_signal(signal.SIGKILL)
        exit = earlier.get()
        assert exit is not None and exit.code == LOST
        assert later.is_silent()
        put(exits, "one", "6")
        exit = later.get()
        assert exit is not None and exit.code == 6
        second.send_signal(signal.SIGKILL)
        second.wait()


def test_a_file_that_cannot_be_discarded_is_logged(
    exits: str, watcher: ExitWatcher, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkdir(f"{exits}/one")
    watcher.discard("one")
    assert "cannot remove the exit file of container one" in caplog.text


@pytest.mark.parametrize("line", range(16))
def test_an_interrupt_while_it_is_told(
    exits: str, monitor: _spawn.Process, monkeypatch: pytest.MonkeyPatch, line: int
) -> None:
    """At any line of what tells it, in the thread of a caller: the exit is not lost."""
    monkeypatch.setattr(ExitWatcher, "_watch", lambda self, directory: None)
    watcher = ExitWatcher(exits)
    told = Told()
    watcher.add("one", monitor, told)
    put(exits, "one", "4")
    left = line
    lines: set[int] = set()  # each once: where a lock is let go an interrupt keeps it

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if frame.f_code.co_name not in ("_tell", "_take"):
            return trace if frame.f_code.co_name in ("glance", "_tell_all") else None
        if event == "line" and frame.f_lineno not in lines:
            lines.add(frame.f_lineno)
            left -= 1
            if left == -1:
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        watcher.glance("one")
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    watcher.glance("one")
    exit = told.get()
    assert exit is not None and exit.code == 4
    watcher.close()
    while not told.is_silent(0):
        pass
    assert not watcher._tokens and not watcher._by_token


def test_closing_tells_who_still_waits(watcher: ExitWatcher, monitor: _spawn.Process) -> None:
    told = Told()
    watcher.add("one", monitor, told)
    watcher.close()
    assert told.get() is None
    watcher.close()
    with pytest.raises(Closed):
        watcher.add("two", monitor, told)
    assert threading.active_count() == 1


def test_closing_from_a_listener(exits: str, watcher: ExitWatcher, monitor: _spawn.Process) -> None:
    told = Told()

    def close(exit: Exit | None) -> None:
        watcher.close()
        told(exit)

    watcher.add("one", monitor, close)
    put(exits, "one", "4")
    exit = told.get()
    assert exit is not None and exit.code == 4


def test_a_watcher_that_only_looks_costs_nothing(exits: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    watcher = ExitWatcher(exits)
    assert len(os.listdir("/proc/self/fd")) == before
    assert threading.active_count() == 1
    watcher.close()


def test_a_directory_that_is_not_there(tmp_path: Path, monitor: _spawn.Process) -> None:
    watcher = ExitWatcher(f"{tmp_path}/nothing")
    with pytest.raises(SystemCallError, match="nothing"):
        watcher.add("one", monitor, Told())
    watcher.discard("one")
    watcher.close()


def test_a_directory_that_goes(
    exits: str, watcher: ExitWatcher, monitor: _spawn.Process, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told()
    watcher.add("one", monitor, told)
    shutil.rmtree(exits)
    assert told.is_silent()
    monitor.send_signal(signal.SIGKILL)
    exit = told.get()
    assert exit is not None and exit.code == LOST


def test_in_a_forked_child(watcher: ExitWatcher, monitor: _spawn.Process) -> None:
    watcher.add("one", monitor, Told())
    child = os.fork()
    if child == 0:
        code = 1
        try:
            watcher.close()  # must not wake or wait for the parent's thread
            watcher.read("one")
        except UsedAfterFork:
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# --- the C side, through Cython ----------------------------------------------------------


def test_the_exit_directory(exits: str, monitor: _spawn.Process) -> None:
    directory = _spawn.ExitDirectory(exits)
    assert directory.wait(0.01) == ([], [], False)
    put(exits, "one", "7")
    assert directory.wait(PATIENCE) == (["one"], [], False)
    found = directory.read("one")
    assert found is not None and found[0] == 7
    assert directory.read("two") is None
    directory.remove("one")
    directory.remove("one")
    directory.watch(monitor, 5)
    monitor.send_signal(signal.SIGKILL)
    assert directory.wait(PATIENCE) == ([], [5], False)
    directory.forget(monitor)
    directory.wake()
    assert directory.wait(PATIENCE) == ([], [], False)
    directory.close()
    directory.close()
    for call in (directory.fileno, directory.wake, directory.wait, lambda: directory.read("one")):
        with pytest.raises(Closed):
            call()


def test_a_signal_handler_ends_the_wait(exits: str, monitor: _spawn.Process) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    directory = _spawn.ExitDirectory(exits)
    try:
        for wait in (directory.wait, monitor.wait, lambda: monitor.ended(None)):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(KeyboardInterrupt):
                wait()
    finally:
        signal.signal(signal.SIGALRM, before)
        directory.close()
    assert not monitor.ended()
    with pytest.raises(WaitTimeout):
        monitor.wait(0)
