# SPDX-License-Identifier: Apache-2.0
"""Processes from Python: what goes in, what comes out, who may wait."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

import pytest

from libpod import (
    Closed,
    ConmonFailed,
    InvalidArgument,
    SpawnFailed,
    SystemCallError,
    UsedAfterFork,
    WaitTimeout,
)
from libpod._spawn import Handshake, open_monitor, open_process, spawn

SH = "/bin/sh"


def output_of(*argv: str, **arguments: object) -> str:
    read, write = os.pipe()
    with spawn(argv, {}, fds={1: write}, **arguments) as process:  # type: ignore[arg-type]
        os.close(write)
        with os.fdopen(read) as stream:
            text = stream.read()
        assert process.wait(60) == 0
    return text


def test_exit_code_and_signal() -> None:
    with spawn([SH, "-c", "exit 7"], {}) as process:
        assert process.wait(60) == 7
        assert process.wait() == process.returncode == 7
    with spawn([SH, "-c", "kill -9 $$"], {}) as process:
        assert process.wait(60) == -signal.SIGKILL


def test_environment_and_directory_are_exact() -> None:
    assert output_of("/usr/bin/env") == ""
    assert output_of(SH, "-c", "pwd", cwd="/usr") == "/usr\n"


def test_only_the_named_descriptors_go_along() -> None:
    leaked, _other = os.pipe()
    os.set_inheritable(leaked, True)
    try:
        listed = output_of(SH, "-c", "ls /proc/$$/fd").split()
    finally:
        os.close(leaked)
        os.close(_other)
    assert set(listed) <= {"0", "1", "2"}


def test_a_program_that_is_not_there_is_an_error_with_its_errno() -> None:
    with pytest.raises(SpawnFailed, match="/no/such") as caught:
        spawn(["/no/such"], {})
    assert caught.value.errno == 2
    with pytest.raises(ChildProcessError):  # and no zombie is left
        os.waitpid(-1, os.WNOHANG)


def test_a_nul_byte_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="NUL"):
        spawn([SH, "a\0b"], {})


def test_a_wait_ends_with_its_deadline() -> None:
    with spawn(["/bin/sleep", "100"], {}) as process:
        began = time.monotonic()
        with pytest.raises(WaitTimeout):
            process.wait(0.05)
        assert time.monotonic() - began < 60
        assert not process.ended()
        process.send_signal(signal.SIGTERM)
        assert process.ended(10)
        assert process.wait() == -signal.SIGTERM
        with pytest.raises(ProcessLookupError):
            process.send_signal(signal.SIGTERM)


def test_an_exit_status_that_somebody_else_took() -> None:
    with spawn(["/bin/true"], {}) as process:
        os.waitpid(process.pid, 0)
        with pytest.raises(SystemCallError, match="another wait"):
            process.wait(60)


def test_asyncio_can_wait_for_it() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        with spawn([SH, "-c", "exit 3"], {}) as process:
            loop.add_reader(process.fileno(), ended.set)
            await asyncio.wait_for(ended.wait(), 60)
            loop.remove_reader(process.fileno())
            return process.wait()

    assert asyncio.run(main()) == 3


def test_many_threads_spawn_at_once() -> None:
    codes: list[int] = []

    def work(code: int) -> None:
        for _ in range(10):
            with spawn([SH, "-c", f"exit {code}"], {}) as process:
                codes.append(process.wait(30) - code)

    threads = [threading.Thread(target=work, args=[n]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * 80


def test_a_forked_child_must_not_use_it() -> None:
    with spawn(["/bin/sleep", "100"], {}) as process:
        child = os.fork()
        if child == 0:
            try:
                process.send_signal(signal.SIGKILL)
            except UsedAfterFork:
                os._exit(0)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert not process.ended()
        process.send_signal(signal.SIGKILL)
        process.wait(60)


def test_processes_that_are_not_ours() -> None:
    with open_process(os.getppid()) as parent:
        assert not parent.ended()
    with spawn(["/bin/true"], {}) as gone:
        gone.wait()
        with pytest.raises(ProcessLookupError):
            open_process(gone.pid)


def await_command_line(pid: int) -> None:
    """An exec lets the parent go on before the new program's arguments can be seen."""
    deadline = time.monotonic() + 10
    while True:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            if file.read():
                return
        assert time.monotonic() < deadline


def test_a_monitor_must_be_what_its_pid_file_says(tmp_path: object) -> None:
    path = f"{tmp_path}/pid"
    for text in ("", "nonsense", "-1", "1", str(os.getpid())):
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        with pytest.raises(ProcessLookupError):
            open_monitor(path, "not-on-any-command-line")
    with spawn([SH, "-c", "sleep 100", "the-id"], {}) as process:
        with open(path, "w", encoding="ascii") as file:
            file.write(str(process.pid))
        await_command_line(process.pid)
        found = open_monitor(path, "the-id")
        assert (found.pid, found.ended()) == (process.pid, False)
        with pytest.raises(ProcessLookupError, match="older"):
            open_monitor(path, "the-id", time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 10**10)
        process.send_signal(signal.SIGKILL)
        process.wait(60)


def test_a_closed_process_object_signals_nobody() -> None:
    """Its pid may be somebody else's by now."""
    with spawn(["/bin/sleep", "100"], {}) as process:
        opened = open_process(process.pid)
        opened.close()
        opened.close()
        with pytest.raises((Closed, ProcessLookupError)):
            opened.send_signal(signal.SIGKILL)
        assert not process.ended(0.1)
        process.send_signal(signal.SIGKILL)
        process.wait(60)


def test_descriptors_are_mapped_as_they_are_named() -> None:
    a, b = os.memfd_create("a"), os.memfd_create("b")
    os.pwrite(a, b"a", 0)
    os.pwrite(b, b"b", 0)
    read, write = os.pipe()
    fds = {1: write, a: b, b: a}  # swapped
    with spawn([SH, "-c", f"cat /proc/self/fd/{a} /proc/self/fd/{b}"], {}, fds=fds) as process:
        os.close(write)
        assert process.wait(60) == 0
        assert os.read(read, 10) == b"ba"
    for fd in (a, b, read):
        os.close(fd)


def test_a_session_and_a_group() -> None:
    def ids(**how: bool) -> tuple[bool, bool]:
        """Whether it leads its group, and its session."""
        pid, _, _, _, group, session, *_ = output_of("/bin/cat", "/proc/self/stat", **how).split()
        return pid == group, pid == session

    assert ids() == (False, False)
    assert ids(group=True) == (True, False)
    assert ids(session=True) == (True, True)


def test_a_path_may_be_bytes_that_are_no_text(tmp_path: object) -> None:
    path = os.fsencode(f"{tmp_path}/") + b"\xff\xfe"
    os.symlink("/bin/echo", path)
    read, write = os.pipe()
    with spawn([path, os.fsdecode(path)], {}, fds={1: write}) as process:
        os.close(write)
        assert process.wait(60) == 0
    assert os.read(read, 1000) == path + b"\n"
    os.close(read)


# --- the handshake with conmon ----------------------------------------------------------------

AWAIT_START = "dd bs=1 count=1 of=/dev/null <&4 2>/dev/null; "
PATH = {"PATH": "/usr/bin:/bin"}


def handshake(text: str) -> Handshake:
    begun = Handshake([SH, "-c", AWAIT_START + text, "conmon", "the-id"], PATH)
    begun.go()
    return begun


def end(begun: Handshake) -> int:
    code = begun.process.wait(60)
    begun.process.close()
    begun.close()
    return code


def test_an_answer() -> None:
    begun = handshake("sleep 0.1; echo '{\"pid\": 5}' >&3")
    assert begun.warning is None
    assert begun.started <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    with pytest.raises(WaitTimeout):
        begun.answer(0.01)
    assert begun.answer(10) == b'{"pid": 5}'
    assert end(begun) == 0


def test_no_answer() -> None:
    begun = handshake("exit 3")
    with pytest.raises(ConmonFailed):
        begun.answer(10)
    assert end(begun) == 3


def test_a_handshake_that_is_over() -> None:
    begun = handshake("echo x >&3")
    assert begun.answer(10) == b"x"
    assert end(begun) == 0
    begun.close()
    for call in (begun.fileno, begun.answer):
        with pytest.raises(Closed):
            call()


def test_the_cgroup_that_refuses_is_a_warning(tmp_path: object) -> None:
    begun = Handshake([SH, "-c", AWAIT_START + "echo x >&3"], PATH, cgroups=["/dev/null/x"])
    begun.go()
    assert begun.warning is not None and "/dev/null/x" in begun.warning
    assert begun.answer(10) == b"x"
    assert end(begun) == 0


def test_a_conmon_that_cannot_be_started() -> None:
    with pytest.raises(SpawnFailed, match="/no/such/conmon"):
        Handshake(["/no/such/conmon"], {})


def test_the_monitor_of_a_handshake(tmp_path: object) -> None:
    begun = handshake(f"(sleep 100; :) & echo $! >{tmp_path}/pid; echo x >&3")
    assert begun.answer(10) == b"x"
    with begun.monitor(f"{tmp_path}/pid", "the-id") as monitor:
        assert not monitor.ended()
        assert monitor.start_time > 0
        os.killpg(os.getpgid(monitor.pid), signal.SIGKILL)
        assert monitor.ended(10)
    with pytest.raises(ProcessLookupError):
        begun.monitor(f"{tmp_path}/nothing", "the-id")
    begun.process.wait(60)
    end(begun)


def test_a_handshake_in_a_forked_child() -> None:
    begun = handshake("sleep 0.3; echo x >&3")
    child = os.fork()
    if child == 0:
        try:
            begun.answer(5)
        except UsedAfterFork:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert begun.answer(10) == b"x"
    end(begun)
