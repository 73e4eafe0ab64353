# SPDX-License-Identifier: Apache-2.0
"""Locks of objects: every kind keeps the same contract."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libpod import locks
from libpod.errors import (
    Closed,
    ConfigError,
    InternalError,
    InvalidArgument,
    LockGone,
    LocksExhausted,
    LockTaken,
    LockTimeout,
    SystemCallError,
    UsedAfterFork,
)
from libpod.locks import LockManager, open_manager
from libpod.settings import LOCK_TYPES

ID = "a" * 64
OTHER = "b" * 64


@pytest.fixture(params=LOCK_TYPES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def room(tmp_path: Path) -> str:
    os.chmod(tmp_path, 0o700)
    return str(tmp_path)


@pytest.fixture
def manager(kind: str, room: str) -> Iterator[LockManager]:
    made = opened(kind, room)
    yield made
    made.close()


def opened(kind: str, room: str, num_locks: int = 64) -> LockManager:
    return open_manager(kind, f"{room}/tmp", num_locks=num_locks, shm_path=f"{room}/segment")


HOLDER = """
import sys, threading, time
from libpod.locks import open_manager
kind, room, object_id, lock_id, end = sys.argv[1:]
manager = open_manager(kind, room + "/tmp", num_locks=64, shm_path=room + "/segment")
lock = manager.open(object_id, int(lock_id))
lock.lock(20)
print("held", flush=True)
if end == "free":
    time.sleep(0.3)
    lock.free()
    lock.unlock()
elif end == "stay":
    time.sleep(60)
"""


class Holder:
    """Another process that holds a lock."""

    def __init__(
        self, kind: str, room: str, lock_id: int, end: str = "stay", object_id: str = ID
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, kind, room, object_id, str(lock_id), end],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "held\n"

    def __enter__(self) -> Holder:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.process.communicate()


def in_thread(work: Any) -> Any:
    """What `work()` returns, or the error that it raises, in another thread."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


# --- the contract of each kind -------------------------------------------------------


def test_locks_and_unlocks_again(manager: LockManager) -> None:
    lock_id, lock = manager.allocate(ID)
    assert (lock.object_id, lock.lock_id, lock_id) == (ID, 0, 0)
    for _ in range(3):
        with lock.held(1) as inside:
            assert inside is lock
        lock.lock()
        lock.unlock()


def test_two_objects_of_one_id_exclude_each_other_between_threads(manager: LockManager) -> None:
    lock_id, one = manager.allocate(ID)
    two = manager.open(ID, lock_id)
    with one.held():
        assert isinstance(in_thread(lambda: two.lock(0)), LockTimeout)
        assert isinstance(in_thread(lambda: one.lock(0)), LockTimeout)
    assert in_thread(lambda: (two.lock(0), two.unlock())) == (None, None)


def test_two_managers_of_one_process_exclude_each_other(
    manager: LockManager, kind: str, room: str
) -> None:
    lock_id, one = manager.allocate(ID)
    second = opened(kind, room)
    two = second.open(ID, lock_id)
    with one.held():
        assert isinstance(in_thread(lambda: two.lock(0)), LockTimeout)
    with two.held(0):
        assert isinstance(in_thread(lambda: one.lock(0)), LockTimeout)
    second.close()


def test_different_objects_do_not_wait_for_each_other(manager: LockManager) -> None:
    one, two = manager.allocate(ID)[1], manager.allocate(OTHER)[1]
    with one.held(), two.held(0):
        pass


def test_threads_take_turns(manager: LockManager) -> None:
    lock_id, _ = manager.allocate(ID)
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        mine = manager.open(ID, lock_id)
        for _ in range(40):
            with mine.held(30):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 240
    assert set(most) == {1}


def test_taking_it_twice_is_an_error_not_a_deadlock(manager: LockManager) -> None:
    lock_id, one = manager.allocate(ID)
    two = manager.open(ID, lock_id)
    with one.held():
        with pytest.raises(InternalError, match="holds the lock .* already"):
            one.lock()
        with pytest.raises(InternalError, match="holds the lock .* already"):
            two.lock()
        with pytest.raises(InternalError, match="does not hold"):
            two.unlock()
        assert isinstance(in_thread(lambda: one.lock(0)), LockTimeout)
    one.lock(0)
    one.unlock()


def test_unlocking_what_is_not_held(manager: LockManager) -> None:
    _, lock = manager.allocate(ID)
    with pytest.raises(InternalError, match="does not hold"):
        lock.unlock()
    with pytest.raises(InternalError, match="does not hold"):
        lock.free()
    with lock.held():
        assert isinstance(in_thread(lock.unlock), InternalError)
        assert isinstance(in_thread(lock.free), InternalError)


def test_a_time_out_names_the_holder(manager: LockManager, kind: str, room: str) -> None:
    lock_id, lock = manager.allocate(ID)
    with Holder(kind, room, lock_id) as holder:
        begun = time.monotonic()
        with pytest.raises(LockTimeout, match=rf"held by pid {holder.process.pid} \(") as caught:
            lock.lock(0.3)
        assert 0.3 <= time.monotonic() - begun < 60
        assert caught.value.holder == holder.process.pid
        assert caught.value.retryable
    with lock.held():
        told = in_thread(lambda: lock.lock(0))
    assert isinstance(told, LockTimeout)
    assert told.holder == os.getpid()


def test_the_lock_of_a_dead_process_is_free(manager: LockManager, kind: str, room: str) -> None:
    lock_id, lock = manager.allocate(ID)
    with Holder(kind, room, lock_id) as holder:
        holder.process.kill()
        lock.lock(10)
        lock.unlock()
    lock.lock(0)
    lock.unlock()


def test_a_process_ends_with_the_lock(manager: LockManager, kind: str, room: str) -> None:
    lock_id, lock = manager.allocate(ID)
    with Holder(kind, room, lock_id, end="exit") as holder:
        holder.process.wait()
        with lock.held(10):
            pass


def test_waiting_ends_when_the_other_process_unlocks(
    manager: LockManager, kind: str, room: str
) -> None:
    lock_id, lock = manager.allocate(ID)
    with Holder(kind, room, lock_id, end="free"):
        if kind == locks.SHM:  # it cannot tell
            with lock.held(20):
                assert manager.in_use() == set()
        else:
            with pytest.raises(LockGone):
                lock.lock(20)


def test_free_ends_the_lock_and_keeps_it_held(manager: LockManager, kind: str) -> None:
    lock_id, lock = manager.allocate(ID)
    other = manager.open(ID, lock_id)
    with lock.held():
        lock.free()
        assert manager.in_use() == set()
    if kind != locks.SHM:
        for one in (lock, other):
            with pytest.raises(LockGone):
                one.lock(0)
    assert manager.allocate(OTHER)[0] == lock_id


def test_allocation_is_from_the_lowest(manager: LockManager, kind: str) -> None:
    ids = [character * 64 for character in "0123456"]
    numbers = [manager.allocate(name)[0] for name in ids]
    if kind == locks.FLOCK:
        assert numbers == [0] * 7
        assert manager.in_use() == set(ids)
        return
    assert numbers == list(range(7))
    for free in (5, 2):
        manager.free_given(ids[free], free)
    assert manager.in_use() == {0, 1, 3, 4, 6}
    assert [manager.allocate(ID)[0] for _ in range(3)] == [2, 5, 7]


def test_allocation_of_a_given_number(manager: LockManager, kind: str) -> None:
    lock = manager.allocate_given(ID, 3)
    with lock.held(0):
        pass
    if kind == locks.FLOCK:
        manager.allocate_given(ID, 0)  # its own
        with pytest.raises(SystemCallError):
            manager.allocate(ID)
        return
    assert lock.lock_id == 3
    with pytest.raises(LockTaken, match="3"):
        manager.allocate_given(OTHER, 3)
    assert [manager.allocate(OTHER)[0] for _ in range(4)] == [0, 1, 2, 4]
    with pytest.raises(InvalidArgument):
        manager.allocate_given(OTHER, 1 << 32)
    with pytest.raises(InvalidArgument):
        manager.open(OTHER, -1)


def test_freeing_twice_is_no_error(manager: LockManager) -> None:
    lock_id, _ = manager.allocate(ID)
    manager.free_given(ID, lock_id)
    manager.free_given(ID, lock_id)
    assert manager.in_use() == set()


def test_free_all(manager: LockManager) -> None:
    for name in (ID, OTHER):
        manager.allocate(name)
    manager.free_all()
    assert manager.in_use() == set()
    assert manager.allocate(ID)[0] == 0


def test_allocation_in_parallel_gives_each_number_once(
    manager: LockManager, kind: str, room: str
) -> None:
    program = """
import os, sys
from libpod.locks import open_manager
kind, room = sys.argv[1:]
manager = open_manager(kind, room + "/tmp", num_locks=64, shm_path=room + "/segment")
for number in range(10):
    print(manager.allocate(f"{os.getpid()}-{number}")[0])
"""
    command = [sys.executable, "-c", program, kind, room]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    numbers = [int(word) for child in children for word in child.communicate()[0].split()]
    if kind == locks.FLOCK:
        assert len(manager.in_use()) == 40
    else:
        assert sorted(numbers) == list(range(40))
        assert manager.in_use() == set(range(40))


def test_closed_ones_are_refused(manager: LockManager) -> None:
    lock_id, lock = manager.allocate(ID)
    other = manager.open(ID, lock_id)
    lock.lock()
    lock.close()
    lock.close()
    with pytest.raises(Closed):
        lock.lock()
    other.lock(0)
    manager.close()
    manager.close()
    other.unlock()
    for refused in (other.lock, manager.in_use, manager.free_all, lambda: manager.allocate(OTHER)):
        with pytest.raises(Closed):
            refused()


def test_in_a_forked_child(manager: LockManager) -> None:
    lock_id, lock = manager.allocate(ID)
    lock.lock()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            calls = (lock.lock, lock.unlock, lock.free, manager.in_use,
                     manager.open(ID, lock_id).lock, lambda: manager.allocate(OTHER))  # fmt: skip
            for call in calls:
                with pytest.raises(UsedAfterFork):
                    call()
            lock.close()
            manager.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert isinstance(in_thread(lambda: manager.open(ID, lock_id).lock(0)), LockTimeout)
    lock.unlock()


def test_a_signal_handler_that_raises_ends_the_wait(
    manager: LockManager, kind: str, room: str
) -> None:
    lock_id, lock = manager.allocate(ID)

    def ring(_number: int, _frame: object) -> None:
        raise ZeroDivisionError

    before = signal.signal(signal.SIGALRM, ring)
    try:
        with Holder(kind, room, lock_id):
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(ZeroDivisionError):
                lock.lock(30)
        lock.lock(10)
        lock.unlock()
    finally:
        signal.signal(signal.SIGALRM, before)


def test_interrupted_at_every_line_it_can_be_taken_again(manager: LockManager) -> None:
    """A handler may raise between any two lines: after unlocking, whatever that says,
    the lock is free."""
    _, lock = manager.allocate(ID)
    files = {type(lock).lock.__code__.co_filename, locks.__file__}
    steps = 0
    interrupted = True
    while interrupted:
        left = steps

        def trace(frame: Any, event: str, argument: object) -> Any:
            nonlocal left
            if frame.f_code.co_filename not in files:
                return None
            if event == "line":
                left -= 1
                if left < 0:
                    sys.settrace(None)
                    raise ZeroDivisionError
            return trace

        interrupted = False
        sys.settrace(trace)
        try:
            lock.lock(5)
        except ZeroDivisionError:
            interrupted = True
        finally:
            sys.settrace(None)
        try:
            lock.unlock()
        except InternalError:
            assert interrupted
        assert in_thread(lambda: (lock.lock(0), lock.unlock())) == (None, None)
        steps += 1
    assert steps > 5


# --- which kind ----------------------------------------------------------------------


def test_the_kind_is_recorded_and_checked(manager: LockManager, kind: str, room: str) -> None:
    path = f"{room}/tmp/lock_type"
    assert Path(path).read_text() == f"{kind}\n"
    assert os.stat(path).st_mode & 0o7777 == 0o600
    assert manager.kind == kind
    for other in {*LOCK_TYPES} - {kind}:
        with pytest.raises(ConfigError, match=f"of kind '{kind}', not '{other}'.*stop"):
            opened(other, room)
    assert sorted(name for name in os.listdir(f"{room}/tmp") if "type" in name) == ["lock_type"]


def test_no_such_kind(room: str) -> None:
    with pytest.raises(InvalidArgument, match="flock, shm, file"):
        open_manager("fcntl", room)
    assert os.listdir(room) == []


def test_the_kind_is_recorded_once_by_many_at_once(room: str) -> None:
    program = """
import sys
from libpod.errors import ConfigError
from libpod.locks import open_manager
try:
    print(open_manager(sys.argv[1], sys.argv[2] + "/tmp").kind)
except ConfigError:
    pass
"""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program, ("flock", "file")[number % 2], room],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(6)
    ]
    won = {child.communicate()[0].strip() for child in children} - {""}
    assert len(won) == 1


def test_a_record_of_nonsense_is_no_kind(room: str) -> None:
    Path(room, "tmp").mkdir()
    Path(room, "tmp/lock_type").write_text("x" * 1000)
    with pytest.raises(ConfigError, match="xxx"):
        opened("flock", room)


def test_a_record_that_is_a_link_is_not_followed(room: str) -> None:
    Path(room, "tmp").mkdir()
    os.symlink("/etc/hostname", f"{room}/tmp/lock_type")
    with pytest.raises(SystemCallError):
        opened("flock", room)


# --- flock and file --------------------------------------------------------------------


def test_an_id_is_no_path(room: str) -> None:
    manager = opened("flock", room)
    for name in ("../x", "", ".", ".."):
        with pytest.raises(InvalidArgument):
            manager.allocate(name)
        with pytest.raises(InvalidArgument):
            manager.open(name, 0)


def test_modes(room: str) -> None:
    opened("flock", room).allocate(ID)
    assert os.stat(f"{room}/tmp/lock").st_mode & 0o7777 == 0o700
    assert os.stat(f"{room}/tmp/lock/{ID}").st_mode & 0o7777 == 0o600


def test_a_lock_file_without_its_object_is_gone(room: str) -> None:
    manager = opened("file", room)
    with pytest.raises(LockGone):
        manager.open(ID, 5).lock()
    assert manager.in_use() == set()  # looking made nothing
    lock_id, lock = manager.allocate(ID)
    Path(room, "tmp/locks/note").write_text("")  # not ours to count
    assert manager.in_use() == {lock_id}
    with lock.held():
        os.unlink(f"{room}/tmp/locks/0")
        manager.allocate_given(OTHER, 0)  # a new file of the same name is another lock
        again = manager.open(OTHER, 0)
        assert in_thread(lambda: (again.lock(0), again.unlock())) == (None, None)


def test_few_descriptors_for_locks_that_nobody_holds(manager: LockManager) -> None:
    before = len(os.listdir("/proc/self/fd"))
    known = [manager.allocate(f"{number:064}")[1] for number in range(20)]
    for lock in known * 2:
        with lock.held():
            pass
    most = 0 if manager.kind == "shm" else 8
    assert len(os.listdir("/proc/self/fd")) == before + most
    manager.close()
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("kind", ["flock", "file"])
def test_a_file_that_stayed_open_is_not_that_of_another_life(kind: str, room: str) -> None:
    manager, other = opened(kind, room), opened(kind, room)
    lock_id, lock = manager.allocate(ID)
    path = f"{room}/tmp/lock/{ID}" if kind == "flock" else f"{room}/tmp/locks/{lock_id}"
    with lock.held():
        pass
    other.free_given(ID, lock_id)
    with pytest.raises(LockGone):
        lock.lock(0)
    with pytest.raises(LockGone):  # also once nothing is open any more
        lock.lock(0)
    same = other.allocate_given(ID, lock_id)
    with lock.held():
        assert isinstance(in_thread(lambda: same.lock(0)), LockTimeout)
    os.rename(path, f"{path}.old")
    other.allocate_given(ID, lock_id)
    with lock.held():  # the file that is there now
        assert isinstance(in_thread(lambda: same.lock(0)), LockTimeout)


@pytest.mark.parametrize("kind", ["flock", "file"])
def test_a_file_that_stayed_open_is_one_thread_s(kind: str, room: str) -> None:
    manager = opened(kind, room)
    lock = manager.allocate(ID)[1]
    inside: list[int] = []

    def work() -> None:
        for _ in range(300):
            with lock.held(20):
                inside.append(1)
                assert len(inside) == 1
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert inside == []
    with lock.held(0):  # nobody kept it
        pass


def test_shm_has_a_fixed_number(room: str) -> None:
    manager = opened("shm", room, num_locks=33)
    ids = [manager.allocate(f"{number:064}")[0] for number in range(33)]
    assert ids == list(range(33))
    with pytest.raises(LocksExhausted, match="33.*num_locks"):
        manager.allocate(ID)
    manager.free_given("", 7)
    assert manager.allocate(ID)[0] == 7
    manager.close()


def test_shm_keeps_the_number_that_it_was_made_with(
    room: str, caplog: pytest.LogCaptureFixture
) -> None:
    opened("shm", room, num_locks=64).close()
    assert caplog.records == []
    manager = opened("shm", room, num_locks=2048)
    assert "has 64 locks, not 2048" in caplog.text
    with pytest.raises(InvalidArgument, match="64 locks"):
        manager.open(ID, 64)
    with pytest.raises(InvalidArgument, match="64 locks"):
        manager.free_given(ID, 64)
    manager.close()
    for number in (0, -1, 1 << 32):
        with pytest.raises(InvalidArgument):
            opened("shm", room, num_locks=number)


def test_a_removed_segment_is_gone(room: str) -> None:
    manager = opened("shm", room)
    _, lock = manager.allocate(ID)
    os.unlink(f"{room}/segment")
    with pytest.raises(LockGone, match="removed: open the runtime again"):
        lock.lock(0)
    manager.close()


def test_a_segment_of_nonsense(room: str) -> None:
    Path(room, "segment").write_bytes(bytes(82488))
    with pytest.raises(ConfigError, match=f"{room}/segment: its magic number is 0x0000"):
        opened("shm", room)


def test_the_segment_is_podmans_own() -> None:
    from libpod.locks.shm import default_path

    assert default_path(None) == "/dev/shm/libpod_lock"
    assert default_path(1000) == "/dev/shm/libpod_rootless_lock_1000"


# --- killed at any moment ------------------------------------------------------------------


def work_until_killed(kind: str, room: str) -> None:
    """Takes the lock and a number again and again; ends with 1 if another was inside, too."""
    manager = opened(kind, room)
    lock = manager.open(ID, 0)
    inside = os.open(f"{room}/inside", os.O_RDWR)
    while True:
        with lock.held(30):
            other = os.pread(inside, 20, 0).strip()
            if other and not ended(int(other)):
                os._exit(1)
            os.pwrite(inside, f"{os.getpid():20}".encode(), 0)
            number, _ = manager.allocate(f"{os.getpid()}-{time.monotonic_ns()}")
            if kind != "flock":
                manager.free_given("", number)
            os.pwrite(inside, b" " * 20, 0)


PF_EXITING = 0x4


def ended(pid: int) -> bool:
    """Whether it is dead or dying: a process frees its locks before it becomes a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return True
    return bool(int(fields[6]) & PF_EXITING)


@pytest.fixture
def workers(kind: str, room: str) -> Iterator[Workers]:
    made = Workers(kind, room)
    yield made
    made.end()


class Workers:
    """Four processes that work until they are killed."""

    def __init__(self, kind: str, room: str) -> None:
        self.kind = kind
        self.room = room
        self.running: list[int] = []
        Path(room, "inside").write_text("")

    def fill(self) -> None:
        while len(self.running) < 4:
            child = os.fork()
            if child == 0:
                try:
                    signal.alarm(60)  # whatever becomes of the tests
                    work_until_killed(self.kind, self.room)
                finally:
                    os._exit(2)
            self.running.append(child)

    def kill(self, index: int) -> int:
        """How it ended, by `wait`'s status."""
        victim = self.running.pop(index)
        os.kill(victim, signal.SIGKILL)
        return os.waitpid(victim, 0)[1]

    def end(self) -> set[int]:
        return {self.kill(0) for _ in range(len(self.running))}


def test_killed_at_any_moment_nothing_stays_held(manager: LockManager, workers: Workers) -> None:
    _, lock = manager.allocate(ID)
    draw = random.Random(8)
    for _ in range(40):
        workers.fill()
        time.sleep(draw.uniform(0.005, 0.03))
        assert workers.kill(draw.randrange(4)) == signal.SIGKILL
    assert workers.end() == {signal.SIGKILL}
    with lock.held(5):
        number = manager.allocate(OTHER)[0]
        manager.free_given(OTHER, number)
