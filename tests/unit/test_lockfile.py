# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from libpod.errors import (
    Closed,
    InternalError,
    InvalidArgument,
    LockGone,
    LockRefused,
    LockTimeout,
    SystemCallError,
    UsedAfterFork,
)
from libpod.lockfile import LockFile, RecordLock

FOREIGN = 12345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")


@pytest.fixture
def room(tmp_path: Any) -> str:
    """A private directory."""
    os.chmod(tmp_path, 0o700)
    return str(tmp_path)


@pytest.fixture
def path(room: str) -> str:
    return room + "/lock"


@pytest.fixture(autouse=True)
def no_descriptor_left() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def lock(path: str) -> Iterator[LockFile]:
    with_lock = LockFile.create(path)
    yield with_lock
    with_lock.close()


@pytest.fixture
def second(lock: LockFile) -> Iterator[LockFile]:
    """Another object on the same file."""
    other = LockFile(lock.path)
    yield other
    other.close()


class Child:
    """A Python program that talks by lines; killed and reaped at the end."""

    def __init__(self, program: str, *args: str, command: tuple[str, ...] = ()) -> None:
        self.process = subprocess.Popen(
            [*command, sys.executable, "-c", program, *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            raise AssertionError(self.process.communicate()[1])
        return line

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.process.communicate()


HOLDER = """
import sys, time
from libpod.lockfile import LockFile, RecordLock
lock = getattr(sys.modules["libpod.lockfile"], sys.argv[2])(sys.argv[1])
lock.lock()
print("held", flush=True)
time.sleep(60)
"""


# --- opening -----------------------------------------------------------------------


def test_create_makes_a_private_file_once(path: str) -> None:
    LockFile.create(path).close()
    assert os.stat(path).st_mode & 0o7777 == 0o600
    with pytest.raises(SystemCallError) as caught:
        LockFile.create(path)
    assert caught.value.errno == errno.EEXIST


def test_open_never_creates(path: str) -> None:
    with pytest.raises(LockGone):
        LockFile(path)
    with pytest.raises(LockGone):
        LockFile(os.path.join(path, "below"))
    assert not os.path.lexists(path)


def test_relative_paths_and_path_objects(room: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import pathlib

    monkeypatch.chdir(room)
    lock = LockFile.create("lock")
    assert lock.path == room + "/lock"
    monkeypatch.chdir("/")
    with lock, pytest.raises(LockTimeout):
        LockFile(pathlib.Path(room, "lock")).lock(timeout=0)
    lock.close()


def test_a_path_with_a_nul(path: str) -> None:
    with pytest.raises(InvalidArgument):
        LockFile(path + "\0x")


def test_wide_file_and_directory_are_narrowed(path: str, room: str) -> None:
    LockFile.create(path).close()
    os.chmod(path, 0o644)
    os.chmod(room, 0o755)
    LockFile(path).close()
    assert os.stat(path).st_mode & 0o7777 == 0o600
    assert os.stat(room).st_mode & 0o7777 == 0o700


def test_a_directory_for_everybody_is_refused() -> None:
    mode = os.stat("/tmp").st_mode
    with pytest.raises(LockRefused):
        LockFile.create("/tmp/libpod-test-lock")
    assert os.stat("/tmp").st_mode == mode


@pytest.mark.parametrize("kind", [LockFile, RecordLock])
def test_links_are_refused(kind: Any, path: str) -> None:
    LockFile.create(path).close()
    os.symlink(path, path + ".link")
    with pytest.raises(LockRefused):
        kind(path + ".link")


@as_root
@pytest.mark.parametrize("kind", [LockFile, RecordLock])
def test_what_belongs_to_others_is_refused(kind: Any, path: str, room: str) -> None:
    LockFile.create(path).close()
    os.chown(path, FOREIGN, -1)
    with pytest.raises(LockRefused, match=str(FOREIGN)):
        kind(path)
    os.chown(path, 0, -1)
    os.chown(room, FOREIGN, -1)
    with pytest.raises(LockRefused, match=str(FOREIGN)):
        kind(path)
    os.chown(room, 0, -1)


def test_record_lock_makes_its_file(path: str) -> None:
    RecordLock(path, 0o644).close()
    assert os.stat(path).st_mode & 0o7777 == 0o644
    RecordLock(path).close()
    assert os.stat(path).st_mode & 0o7777 == 0o644


# --- taking --------------------------------------------------------------------------


def test_exclusive_and_shared(lock: LockFile, second: LockFile) -> None:
    lock.lock()
    assert not second.try_lock()
    assert not second.try_lock(shared=True)
    lock.unlock()
    lock.lock(shared=True)
    assert second.try_lock(shared=True)
    second.unlock()
    assert not second.try_lock()
    lock.unlock()
    assert second.try_lock()
    second.unlock()


def test_context_managers(lock: LockFile, second: LockFile) -> None:
    with lock as entered:
        assert entered is lock
        assert not second.try_lock()
    with second.held(timeout=1) as entered:
        assert entered is second
        assert not lock.try_lock(shared=True)
    with second.held(shared=True):
        assert lock.try_lock(shared=True)
        lock.unlock()
    with pytest.raises(KeyError), lock:
        raise KeyError
    assert second.try_lock()
    second.unlock()


def test_misuse_is_told(lock: LockFile) -> None:
    with pytest.raises(InternalError, match="does not hold"):
        lock.unlock()
    with lock:
        for again in (lock.lock, lock.try_lock, lambda: lock.lock(timeout=1)):
            with pytest.raises(InternalError, match="already"):
                again()
        thread_errors: list[Exception] = []

        def unlock() -> None:
            try:
                lock.unlock()
            except InternalError as error:
                thread_errors.append(error)

        thread = threading.Thread(target=unlock)
        thread.start()
        thread.join()
        assert len(thread_errors) == 1
    with pytest.raises(InvalidArgument), lock:
        LockFile(lock.path).lock(timeout=float("nan"))


@pytest.mark.parametrize("kind", [LockFile, RecordLock])
def test_timeout_names_the_holder(kind: Any, lock: LockFile) -> None:
    waiter = kind(lock.path)
    with Child(HOLDER, lock.path, kind.__name__) as child:
        child.line()
        start = time.monotonic()
        with pytest.raises(LockTimeout) as caught:
            waiter.lock(timeout=0.05)
        assert 0.05 <= time.monotonic() - start < 60
        assert caught.value.holder == child.process.pid
        assert f"pid {child.process.pid}" in str(caught.value)
        assert lock.path in str(caught.value)
        assert caught.value.retryable and isinstance(caught.value, TimeoutError)
        with pytest.raises(LockTimeout) as caught:
            waiter.lock(timeout=0.01, shared=True)
        assert caught.value.holder == child.process.pid
    waiter.lock(timeout=1)
    waiter.close()


def test_timeout_names_a_classic_record_lock(path: str) -> None:
    waiter = RecordLock(path)
    program = """
import fcntl, sys, time
file = open(sys.argv[1], "r+b")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""
    with Child(program, path) as child:
        child.line()
        with pytest.raises(LockTimeout) as caught:
            waiter.lock(timeout=0.01)
        assert caught.value.holder == child.process.pid
    waiter.close()


def test_timeout_names_ourselves(lock: LockFile, second: LockFile) -> None:
    with lock, pytest.raises(LockTimeout, match="this process") as caught:
        second.lock(timeout=0)
    assert caught.value.holder == os.getpid()


@as_root
def test_a_holder_that_cannot_be_seen(lock: LockFile) -> None:
    program = """
import sys
from libpod.errors import LockTimeout
from libpod.lockfile import LockFile
try:
    LockFile(sys.argv[1]).lock(timeout=0.01)
except LockTimeout as error:
    print(error.holder, "unknown" in str(error), flush=True)
"""
    command = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    with lock, Child(program, lock.path, command=command) as child:
        assert child.line() == "None True"


def test_record_lock_excludes_fcntl(path: str) -> None:
    record = RecordLock(path)
    with open(path, "r+b") as file:
        with record, pytest.raises(OSError):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert not record.try_lock()
    record.close()


# --- the file goes -------------------------------------------------------------------


def settle(lock: LockFile) -> None:
    """Until the lock need not look its path up any more."""
    time.sleep(0.02)
    for _ in range(3):
        with lock:
            pass


def gone(lock: LockFile) -> None:
    for take in (lock.lock, lambda: lock.lock(timeout=1), lock.try_lock, lock.remove):
        with pytest.raises(LockGone):
            take()


def test_unlinked(lock: LockFile) -> None:
    settle(lock)
    os.unlink(lock.path)
    gone(lock)


def test_replaced(lock: LockFile, room: str) -> None:
    settle(lock)
    LockFile.create(room + "/new").close()
    os.rename(room + "/new", lock.path)
    gone(lock)


def test_renamed_away(lock: LockFile) -> None:
    settle(lock)
    os.rename(lock.path, lock.path + ".old")
    gone(lock)
    LockFile.create(lock.path).close()
    gone(lock)


def start_waiter(take: Any) -> tuple[threading.Thread, list[BaseException | None]]:
    outcome: list[BaseException | None] = []

    def run() -> None:
        try:
            take()
            outcome.append(None)
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    time.sleep(0.03)
    return thread, outcome


@pytest.mark.parametrize("timeout", [None, 30])
@pytest.mark.parametrize("how", ["replace", "remove"])
def test_gone_while_we_wait(
    timeout: float | None, how: str, lock: LockFile, second: LockFile
) -> None:
    with lock:
        thread, outcome = start_waiter(lambda: second.lock(timeout))
        if how == "remove":
            lock.remove()
        else:
            os.unlink(lock.path)
            LockFile.create(lock.path).close()
    thread.join()
    assert isinstance(outcome[0], LockGone)


def test_remove(lock: LockFile, second: LockFile) -> None:
    with second:
        with pytest.raises(LockTimeout):
            lock.remove(timeout=0.01)
        assert os.path.exists(lock.path)
    lock.remove()
    assert not os.path.exists(lock.path)
    gone(lock)
    gone(second)


def test_remove_keeps_a_lock_that_is_held(lock: LockFile, second: LockFile) -> None:
    with lock:
        lock.remove()
        assert not second.try_lock()
    gone(second)


# --- closing --------------------------------------------------------------------------


def test_close(lock: LockFile, second: LockFile) -> None:
    lock.lock()
    lock.close()
    lock.close()
    assert second.try_lock()
    second.unlock()
    for call in (lock.lock, lock.try_lock, lock.unlock, lock.remove, lock.held().__enter__):
        with pytest.raises(Closed):
            call()
    with second:
        second.close()


def test_garbage_frees(lock: LockFile) -> None:
    dropped = LockFile(lock.path)
    dropped.lock()
    assert not lock.try_lock()
    del dropped
    assert lock.try_lock()


# --- signals -------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", ["None", "60"])
@pytest.mark.parametrize("kind", ["LockFile", "RecordLock"])
def test_ctrl_c_is_served(timeout: str, kind: str, lock: LockFile) -> None:
    program = """
import sys
import libpod.lockfile
lock = getattr(libpod.lockfile, sys.argv[2])(sys.argv[1])
print("waiting", flush=True)
try:
    lock.lock(eval(sys.argv[3]))
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    holder = LockFile(lock.path) if kind == "LockFile" else RecordLock(lock.path)
    with holder, Child(program, lock.path, kind, timeout) as child:
        child.line()
        time.sleep(0.05)
        start = time.monotonic()
        child.process.send_signal(signal.SIGINT)
        assert child.line() == "interrupted"
        assert time.monotonic() - start < 20
        assert child.process.wait(60) == 0
    holder.close()


class Signals:
    """Sends SIGUSR1 to this process again and again."""

    def __init__(self, handler: Any, interval: float) -> None:
        self.interval = interval
        self.stop = threading.Event()
        self.old = signal.signal(signal.SIGUSR1, handler)
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self) -> None:
        while not self.stop.wait(self.interval):
            os.kill(os.getpid(), signal.SIGUSR1)

    def __enter__(self) -> Signals:
        self.thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        self.stop.set()
        self.thread.join()
        signal.signal(signal.SIGUSR1, self.old)


def test_signals_that_raise_leave_nothing_held(lock: LockFile, second: LockFile) -> None:
    class Raised(Exception):
        pass

    inside = False
    raised = 0

    def handler(number: int, frame: object) -> None:
        if inside:
            raise Raised

    with Signals(handler, 0.0007), second:
        while raised < 200:
            try:
                inside = True
                lock.lock(timeout=None if raised % 2 else 10)
            except Raised:
                inside = False
                raised += 1
                with pytest.raises(InternalError, match="does not hold"):
                    lock.unlock()
    assert lock.try_lock()


def test_signals_do_not_shorten_a_wait(lock: LockFile, second: LockFile) -> None:
    seen: list[int] = []
    with Signals(lambda number, frame: seen.append(number), 0.01):
        with lock, pytest.raises(LockTimeout):
            start = time.monotonic()
            second.lock(timeout=0.15)
        assert time.monotonic() - start >= 0.15
    assert len(seen) > 2


# --- threads, processes, forks -----------------------------------------------------

COUNTER = """
import sys, threading
from libpod.lockfile import LockFile
path, counter, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
shared = LockFile(path)
def work(lock, timeout):
    for _ in range(rounds):
        with lock.held(timeout):
            with open(counter) as file: n = int(file.read())
            with open(counter, "w") as file: file.write(str(n + 1))
threads = [threading.Thread(target=work, args=(lock, timeout))
           for lock, timeout in ((shared, None), (shared, 60), (LockFile(path), None))]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("done")
"""


def test_nothing_is_lost(lock: LockFile, room: str) -> None:
    with open(room + "/counter", "w") as file:
        file.write("0")
    children = [Child(COUNTER, lock.path, room + "/counter", "40") for _ in range(4)]
    for child in children:
        with child:
            assert child.line() == "done"
    with open(room + "/counter") as file:
        assert int(file.read()) == 4 * 3 * 40


def test_death_frees_though_children_live(lock: LockFile) -> None:
    program = """
import os, sys, time
from libpod.lockfile import LockFile
lock = LockFile(sys.argv[1])
lock.lock()
spawned = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
ready, told = os.pipe()
forked = os.fork()
if forked == 0:
    os.write(told, b"x")
    time.sleep(60)
os.read(ready, 1)
print(spawned, forked, flush=True)
time.sleep(60)
"""
    with Child(program, lock.path) as child:
        children = [int(pid) for pid in child.line().split()]
        try:
            assert not lock.try_lock()
            child.process.kill()
            child.process.wait()
            for pid in children:
                os.kill(pid, 0)
            assert lock.try_lock()
        finally:
            for pid in children:
                os.kill(pid, signal.SIGKILL)


def in_forked_child(check: Any) -> None:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            check()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def test_forked_child_refuses_and_lets_go(lock: LockFile, second: LockFile) -> None:
    def check() -> None:
        for call in (lock.lock, lock.try_lock, lock.unlock, lock.remove, lock.held().__enter__):
            with pytest.raises(UsedAfterFork):
                call()
        with pytest.raises(UsedAfterFork):
            lock.__exit__()
        lock.close()
        assert lock.path not in [
            os.readlink(f"/proc/self/fd/{fd}")
            for fd in os.listdir("/proc/self/fd")
            if os.path.lexists(f"/proc/self/fd/{fd}")
        ]
        fresh = LockFile(lock.path)
        assert not fresh.try_lock()  # the parent still has it

    with lock:
        in_forked_child(check)
        assert not second.try_lock()
    assert second.try_lock()
    second.unlock()


def test_fork_beside_a_failed_open(path: str) -> None:
    with pytest.raises(LockGone) as caught:  # whose traceback keeps the object
        LockFile(path)
    in_forked_child(lambda: None)
    assert caught.traceback


def test_fork_while_another_thread_holds(lock: LockFile) -> None:
    def check() -> None:
        with pytest.raises(UsedAfterFork):
            lock.lock(timeout=1)

    release = threading.Event()

    def hold() -> None:
        with lock:
            release.wait()

    thread, _ = start_waiter(hold)
    try:
        in_forked_child(check)
    finally:
        release.set()
        thread.join()
    assert lock.try_lock()


def test_forks_and_opens_in_many_threads(lock: LockFile) -> None:
    """Whatever moment a fork hits, the child has no descriptor of a lock file."""
    stop = threading.Event()

    def open_and_close() -> None:
        while not stop.is_set():
            LockFile(lock.path).close()

    def check() -> None:
        for fd in os.listdir("/proc/self/fd"):
            try:
                assert os.readlink(f"/proc/self/fd/{fd}") != lock.path
            except FileNotFoundError:
                pass

    threads = [threading.Thread(target=open_and_close) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            in_forked_child(check)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("timeout", [None, 30])
def test_other_threads_run_while_we_wait(
    timeout: float | None, lock: LockFile, second: LockFile
) -> None:
    def take_and_give_back() -> None:
        with second.held(timeout):
            pass

    with lock:
        thread, outcome = start_waiter(take_and_give_back)
        assert thread.is_alive() and not outcome  # and we run, which the GIL allows
    thread.join()
    assert outcome == [None]
