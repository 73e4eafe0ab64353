# SPDX-License-Identifier: Apache-2.0
"""The `libpod` command as a process: streams, terminal, signals, exit codes, and each
flag's effect inside the container."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import libpod
from census import processes, settled
from conftest import Dirs, containers_of
from libpod import terminal as in_terminal
from libpod.cli import create, main

pytestmark = pytest.mark.any_runtime

PATIENCE = 60.0
"""Seconds that anything here may take."""

LOOP = "while :; do sleep 0.05; done"


@pytest.fixture
def command(options: dict[str, str], dirs: Dirs) -> list[str]:
    """`libpod` with the test's own directories and none of the host's configuration."""
    config = f"{dirs.work}/libpod.conf"
    with open(config, "w", encoding="utf-8") as file:
        for name in ("static_dir", "tmp_dir"):
            file.write(f"{name} = {json.dumps(options[name])}\n")
    runtime = ["--runtime", options["oci_runtime"]] if "oci_runtime" in options else []
    return [sys.executable, "-m", "libpod", "--config", config, *runtime]


Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def run(command: list[str], rootfs: str) -> Run:
    """`run("-e", "A=B", cmd=["env"])`: `libpod run --rm ... --rootfs DIR env` to its end."""

    def act(*flags: str, cmd: list[str], **how: Any) -> subprocess.CompletedProcess[bytes]:
        how.setdefault("stdin", None if "input" in how else subprocess.DEVNULL)
        words = [*command, "run", "--rm", *flags, "--rootfs", rootfs, *cmd]
        return subprocess.run(
            words,
            stdout=how.pop("stdout", subprocess.PIPE),
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            **how,
        )

    return act


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(command: list[str], rootfs: str) -> Iterator[Start]:
    """The same, left running; killed at the end."""
    started = []

    def act(*flags: str, cmd: list[str], **how: Any) -> subprocess.Popen[bytes]:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
        process = subprocess.Popen(
            [*command, "run", "--rm", *flags, "--rootfs", rootfs, *cmd],
            **{**streams, "stderr": subprocess.PIPE, **how},
        )
        started.append(process)
        return process

    yield act
    for process in started:
        process.kill()
        process.communicate()


def sh(text: str) -> list[str]:
    return ["sh", "-c", text]


def read_until(process: subprocess.Popen[bytes], text: bytes) -> bytes:
    """What it writes to its standard output up to `text`."""
    assert process.stdout is not None
    got = b""
    deadline = time.monotonic() + PATIENCE
    while text not in got:
        ready, _, _ = select.select([process.stdout], [], [], deadline - time.monotonic())
        data = os.read(process.stdout.fileno(), 65536) if ready else b""
        assert data, f"no {text!r} in {got!r}"
        got += data
    return got


# --- streams and exit codes -----------------------------------------------------------


def test_each_stream_goes_its_own_way_and_the_exit_code_is_the_containers(run: Run) -> None:
    done = run(cmd=sh("echo out; echo err >&2; exit 7"))
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 7)


def test_output_comes_as_it_is_written(start: Start) -> None:
    process = start("-i", cmd=sh('echo one; read x; echo "two $x"'), stdin=subprocess.PIPE)
    assert read_until(process, b"\n") == b"one\n"  # it goes on only after we have answered
    assert process.communicate(b"answer\n", timeout=PATIENCE) == (b"two answer\n", b"")
    assert process.returncode == 0


def test_input_larger_than_a_pipe_comes_through(run: Run) -> None:
    data = os.urandom(3 << 20)
    assert run("-i", cmd=["cat"], input=data).stdout == data


def test_the_end_of_the_input_closes_only_the_containers_input(run: Run) -> None:
    done = run("-i", cmd=sh("cat; echo more; sleep 0.2; echo and more"), input=b"x\n")
    assert done.stdout == b"x\nmore\nand more\n"


def test_without_i_the_container_has_no_input(run: Run) -> None:
    done = run(cmd=["cat"], input=b"not for you")
    assert (done.stdout, done.returncode) == (b"", 0)


def test_no_early_output_is_lost(run: Run) -> None:
    data = b"0123456789" * 100
    for _ in range(5):
        assert run(cmd=["printf", "%s", data.decode()]).stdout == data


def test_a_slow_reader_gets_all_of_it(start: Start) -> None:
    process = start(cmd=sh("dd if=/dev/zero bs=64k count=64 2>/dev/null"))
    assert process.stdout is not None
    size = 0
    while data := os.read(process.stdout.fileno(), 65536):
        size += len(data)
        time.sleep(0.002)
    assert size == 64 * 65536
    assert process.wait(PATIENCE) == 0


def test_a_standard_output_that_does_not_block_gets_all_of_it(start: Start) -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    process = start(cmd=sh("dd if=/dev/zero bs=64k count=16 2>/dev/null"), stdout=write)
    os.close(write)
    time.sleep(0.5)  # the pipe is full by now
    size = 0
    with open(read, "rb") as pipe:
        size = len(pipe.read())
    assert process.wait(PATIENCE) == 0
    assert size == 16 * 65536


def test_a_reader_that_goes_away_stops_the_container(start: Start) -> None:
    process = start("--stop-signal", "KILL", cmd=["yes"])
    read_until(process, b"y\n")
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(PATIENCE) == 125
    assert process.stderr is not None
    assert process.stderr.read() == b"Error: cannot write to standard output: Broken pipe\n"


def test_a_full_disk_stops_the_container(run: Run) -> None:
    with open("/dev/full", "wb") as full:
        done = run("--stop-signal", "KILL", cmd=["yes"], stdout=full)
    assert done.returncode == 125
    assert done.stderr.startswith(b"Error: cannot write to standard output: No space left")


def test_a_closed_standard_output_is_no_file_of_ours(command: list[str], rootfs: str) -> None:
    words = [*command, "run", "--rm", "--rootfs", rootfs, *sh("echo out; echo err >&2; exit 3")]
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" <&- >&-', "sh", *words],
        stderr=subprocess.PIPE,
        timeout=PATIENCE,
    )
    assert (done.stderr, done.returncode) == (b"err\n", 3)


@pytest.mark.parametrize(
    ("cmd", "code"),
    [
        (["true"], 0),
        (sh("exit 255"), 255),
        (sh("kill -KILL $$; exit 3"), 3),  # the first process of a namespace is immune
        (sh("exec 2>/dev/null; sleep 1000 & kill -KILL $!; wait $!"), 137),
        (["nosuchcommand"], 127),
        (["/bin/nosuchcommand"], 127),
        (["/etc"], 126),
        (["/etc/passwd"], 126),
    ],
)
def test_exit_codes(run: Run, cmd: list[str], code: int) -> None:
    done = run(cmd=cmd)
    assert done.returncode == code
    ours = code in (126, 127)
    assert len(done.stderr.splitlines()) == (1 if ours else 0)
    assert done.stderr.startswith(b"Error: " if ours else b"")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--nosuch", "--rootfs", "DIR", "true"], "unknown flag: --nosuch"),
        (["-p", "1:1", "--rootfs", "DIR", "true"], "the flag -p is not built yet"),
        (["alpine", "true"], "images are not built yet"),
        (["--rootfs", "/nonexistent", "true"], "'/nonexistent' does not exist"),
        (["--rootfs", "DIR"], "nothing to run"),
        (["--memory", "x", "--rootfs", "DIR", "true"], "memory 'x': is not a size"),
        (["--network", "bridge", "--rootfs", "DIR", "true"], "--network=bridge is not built yet"),
        (["--name", "%", "--rootfs", "DIR", "true"], "name '%'"),
        (["--runtime", "/nonexistent", "--rootfs", "DIR", "true"], "/nonexistent"),
        (["--conmon", "/etc/passwd", "--rootfs", "DIR", "true"], "/etc/passwd is not executable"),
        (["--cgroup-manager", "systemd", "--rootfs", "DIR", "true"], "systemd"),
    ],
)
def test_a_failure_of_ours_is_125_and_one_line(
    command: list[str], rootfs: str, words: list[str], complaint: str
) -> None:
    words = [rootfs if word == "DIR" else word for word in words]
    done = subprocess.run(
        [*command, "run", "--rm", *words], capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stdout) == (125, "")
    assert re.fullmatch(r"Error: [^\n]+\n", done.stderr)
    assert complaint in done.stderr


def test_a_time_that_is_up_kills_the_container(run: Run) -> None:
    began = time.monotonic()
    done = run("--timeout", "3", cmd=sh(f'trap "" TERM; echo up; {LOOP}'))
    assert time.monotonic() - began >= 3
    assert (done.returncode, done.stdout) == (255, b"up\n")
    assert re.fullmatch(rb"Warning: container \S+ ran for 3 s and was killed\n", done.stderr)


def test_a_time_is_up_although_nobody_reads(start: Start) -> None:
    process = start("--timeout", "1", cmd=["yes"])
    time.sleep(2.5)  # it is blocked in a write meanwhile, and the container is dead
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 255


def test_a_time_that_is_not_up_does_nothing(run: Run) -> None:
    done = run("--timeout", "1000", cmd=sh("exit 4"))
    assert (done.returncode, done.stderr) == (4, b"")


# --- signals ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1", "QUIT", "ALRM", "CONT"])
def test_signals_are_passed_on(start: Start, name: str) -> None:
    process = start(cmd=sh(f'trap "echo {name}; exit 5" {name}; echo ready; {LOOP}'))
    read_until(process, b"ready\n")
    process.send_signal(getattr(signal, f"SIG{name}"))
    assert process.communicate(timeout=PATIENCE) == (f"{name}\n".encode(), b"")
    assert process.returncode == 5


def test_a_second_interrupt_is_passed_on_as_the_first(start: Start) -> None:
    process = start(cmd=sh(f'trap "echo again" INT; trap "exit 6" TERM; echo ready; {LOOP}'))
    read_until(process, b"ready\n")
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        read_until(process, b"again\n")
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 6


def test_a_container_that_dies_of_a_signal(start: Start) -> None:
    process = start(cmd=sh("echo ready; exec sleep 1000"))
    read_until(process, b"ready\n")
    for pid in monitored(process):
        os.kill(pid, signal.SIGKILL)
    assert process.wait(PATIENCE) == 137


def monitored(process: subprocess.Popen[bytes]) -> list[int]:
    """The first process of the container that belongs to this `libpod`."""
    config = str(process.args[4])  # type: ignore[index]
    base = os.path.dirname(os.path.dirname(config))
    found = []
    for directory, _, files in os.walk(f"{base}/tmp/storage/overlay-containers"):
        if "pidfile" in files:
            with open(f"{directory}/pidfile", encoding="ascii") as file:
                found.append(int(file.read()))
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay", [0.0, 0.03, 0.06, 0.09, 0.12, 0.15, 0.2])
def test_a_signal_before_the_container_runs_ends_us_cleanly(
    start: Start, number: int, delay: float
) -> None:
    """As first process `cat` ignores signals: where one was passed on to it, it goes on to the
    end of its input."""
    process = start("-i", "--stop-signal", "KILL", cmd=["cat"], stdin=subprocess.PIPE)
    wait_for_handlers(process)
    time.sleep(delay)
    process.send_signal(number)
    assert process.communicate(timeout=PATIENCE) == (b"", b"")
    assert process.returncode in (0, 128 + number)


@pytest.mark.parametrize("flags", [[], ["--detach"]])
def test_an_interrupt_that_loses_the_container(
    command: list[str],
    rootfs: str,
    dirs: Dirs,
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
) -> None:
    """It comes when the container is made, and before anybody has got hold of it."""
    make = create.Request.make

    def lose(*arguments: Any) -> None:
        make(*arguments)
        raise in_terminal.Interrupted(signal.SIGINT)

    monkeypatch.setattr(create.Request, "make", lose)
    options = command[command.index("libpod") + 1 :]
    assert main([*options, "run", "--rm", *flags, "--rootfs", rootfs, "true"]) == 130
    assert containers_of(dirs) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_container_is_made_ends_us(
    command: list[str],
    script: Callable[[str, str], str],
    oci_path: str,
    rootfs: str,
    dirs: Dirs,
    number: int,
) -> None:
    mark = f"{dirs.work}/mark"
    slow = script(
        os.path.basename(oci_path),
        f'case " $* " in *" create "*) : >{mark}; sleep 1000;; esac; exec {oci_path} "$@"',
    )
    words = [*command, "--runtime", slow, "run", "--rm", "--rootfs", rootfs, "cat"]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        assert settled(lambda: [] if os.path.exists(mark) else [mark], PATIENCE) == []
        process.send_signal(number)
        assert process.communicate(timeout=PATIENCE)[1] == b""
        assert process.returncode == 128 + number
    finally:
        process.kill()
        process.communicate()


def wait_for_handlers(process: subprocess.Popen[bytes]) -> None:
    """Until the process has taken SIGTERM over."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
            caught = re.search(r"^SigCgt:\s*(\w+)", status.read(), re.MULTILINE)
        if caught and int(caught[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.002)
    raise AssertionError("it never did")


def test_without_the_proxy_a_signal_leaves_the_container(start: Start, dirs: Dirs) -> None:
    process = start("--sig-proxy=false", cmd=sh(f'trap "echo no; exit 1" TERM; echo up; {LOOP}'))
    read_until(process, b"up\n")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE)
    assert (out, process.returncode) == (b"", 128 + signal.SIGTERM)
    assert err == b""
    end_left_container(dirs)


def end_left_container(dirs: Dirs) -> None:
    """Checks that the container that was left still runs, and ends it: then it goes, since
    its monitor sees to that."""
    (container_id,) = containers_of(dirs)
    run_dir = f"{dirs.tmp}/storage/overlay-containers/{container_id}/userdata"
    with open(f"{run_dir}/pidfile", encoding="ascii") as file:
        pid = int(file.read())
    with open(f"/proc/{pid}/cgroup", encoding="ascii") as file:
        assert f"libpod-{container_id}" in file.read()
    os.kill(pid, signal.SIGKILL)
    await_monitors(dirs)
    assert containers_of(dirs) == []


# --- the terminal -------------------------------------------------------------------------


class Terminal:
    """A process on a terminal of its own, of which we hold the other side."""

    def __init__(self, words: list[str], size: tuple[int, int] = (31, 97)) -> None:
        self._master, slave = pty.openpty()
        self.resize(*size)
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.process = subprocess.Popen(
            words, stdin=slave, stdout=slave, stderr=slave, preexec_fn=self._own
        )
        self.got = b""

    def _own(self) -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def resize(self, height: int, width: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def expect(self, text: bytes) -> bytes:
        """What is shown up to and with `text`, from where the last one ended."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.got:
            ready, _, _ = select.select([self._master], [], [], deadline - time.monotonic())
            assert ready, f"no {text!r} in {self.got!r}"
            self.got += os.read(self._master, 65536)
        end = self.got.index(text) + len(text)
        shown, self.got = self.got[:end], self.got[end:]
        return shown

    def end(self) -> tuple[int, bytes]:
        """Waits for the process: its exit code and the rest of what it showed."""
        code = self.process.wait(PATIENCE)
        os.set_blocking(self._master, False)
        try:
            while data := os.read(self._master, 65536):
                self.got += data
        except OSError as error:
            assert error.errno in (errno.EAGAIN, errno.EIO)
        assert termios.tcgetattr(self.slave) == self.before, "the terminal was not restored"
        return code, self.got

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self.slave)


@pytest.fixture
def terminal(command: list[str], rootfs: str, dirs: Dirs) -> Iterator[Callable[..., Terminal]]:
    opened = []

    def act(*flags: str, cmd: list[str]) -> Terminal:
        words = [*command, "run", "--rm", *flags, "--rootfs", rootfs, *cmd]
        opened.append(Terminal(words))
        return opened[-1]

    yield act
    for one in opened:
        one.close()
    await_monitors(dirs)


def await_monitors(dirs: Dirs) -> None:
    """One that can be detached from has its monitor clear up, which takes a moment."""
    deadline = time.monotonic() + PATIENCE
    while any(dirs.base in str(process) for process in processes().values()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_terminal_has_our_size_from_the_start_and_follows_it(
    terminal: Callable[..., Terminal],
) -> None:
    text = 'trap "stty size; echo resized" WINCH; trap "exit 0" TERM; stty size; echo ready; '
    t = terminal("-it", cmd=sh(text + LOOP))
    assert t.expect(b"ready\r\n") == b"31 97\r\nready\r\n"
    t.resize(12, 34)
    assert t.expect(b"resized\r\n") == b"12 34\r\nresized\r\n"
    t.resize(50, 132)
    assert t.expect(b"resized\r\n") == b"50 132\r\nresized\r\n"
    t.process.send_signal(signal.SIGTERM)
    assert t.end()[0] == 0


def test_what_is_typed_is_the_containers(terminal: Callable[..., Terminal]) -> None:
    t = terminal("-it", cmd=sh("tty; test -t 1 -a -t 2 && echo both; read line; echo got $line"))
    assert t.expect(b"both\r\n") == b"/dev/pts/0\r\nboth\r\n"
    t.type(b"hello\r")
    assert t.end() == (0, b"hello\r\ngot hello\r\n")


def test_ctrl_c_is_typed_in_the_container(terminal: Callable[..., Terminal]) -> None:
    t = terminal("-it", cmd=sh('trap "echo INT; exit 9" INT; echo ready; read line'))
    t.expect(b"ready\r\n")
    t.type(b"\x03")
    code, shown = t.end()
    assert (code, shown.endswith(b"INT\r\n")) == (9, True)


def test_without_i_ctrl_c_is_a_signal_that_is_passed_on(terminal: Callable[..., Terminal]) -> None:
    t = terminal("-t", cmd=sh(f'trap "echo INT; exit 9" INT; echo ready; {LOOP}'))
    t.expect(b"ready\r")
    t.type(b"\x03")
    code, shown = t.end()
    assert (code, b"INT" in shown) == (9, True)


@pytest.mark.parametrize(
    ("flags", "keys"),
    [
        ([], [b"\x10\x11"]),
        ([], [b"\x10", b"\x11"]),
        ([], [b"\x10", b"\x10\x11"]),
        (["--detach-keys", "ctrl-a,x"], [b"\x10\x11", b"\x01x"]),
    ],
)
def test_detaching_leaves_the_container_running(
    terminal: Callable[..., Terminal], dirs: Dirs, flags: list[str], keys: list[bytes]
) -> None:
    t = terminal("-it", *flags, cmd=sh(f"stty raw -echo; echo ready; {LOOP}"))
    t.expect(b"ready")
    for key in keys:
        t.type(key)
        time.sleep(0.2)
    assert t.end()[0] == 0
    end_left_container(dirs)


def test_detach_keys_can_be_turned_off(terminal: Callable[..., Terminal]) -> None:
    text = "stty raw -echo; echo ready; dd bs=1 count=2 2>/dev/null | od -An -tx1"
    t = terminal("-it", "--detach-keys=", cmd=sh(text))
    t.expect(b"ready")
    t.type(b"\x10\x11")
    code, shown = t.end()
    assert (code, shown.split()[-2:]) == (0, [b"10", b"11"])


def test_piped_input_may_contain_the_detach_keys(run: Run) -> None:
    data = b"a\x10\x11b\x10"
    assert run("-i", cmd=["cat"], input=data).stdout == data


@pytest.mark.parametrize("cmd", [["nosuchcommand"], ["/etc/passwd"]])
def test_a_failed_start_restores_the_terminal(
    terminal: Callable[..., Terminal], cmd: list[str]
) -> None:
    code, shown = terminal("-it", cmd=cmd).end()
    assert code in (126, 127)
    assert shown.startswith(b"Error: ")


def test_a_signal_that_ends_the_container_restores_the_terminal(
    terminal: Callable[..., Terminal],
) -> None:
    t = terminal("-it", cmd=sh(f'trap "exit 3" TERM; echo ready; {LOOP}'))
    t.expect(b"ready")
    t.process.send_signal(signal.SIGTERM)
    assert t.end()[0] == 3


def test_a_terminal_that_hangs_up_is_passed_on(terminal: Callable[..., Terminal]) -> None:
    t = terminal("-it", cmd=sh(f'trap "exit 4" HUP; echo ready; {LOOP}'))
    t.expect(b"ready")
    t.process.send_signal(signal.SIGHUP)
    assert t.end()[0] == 4


def test_a_terminal_without_ours_is_warned_about_and_works(run: Run) -> None:
    done = run("-it", cmd=sh("tty; exit 8"))
    assert (done.returncode, done.stdout) == (8, b"/dev/pts/0\r\n")
    assert done.stderr.startswith(b"Warning: The input device is not a TTY")
    assert run("-t", cmd=["tty"]).stderr == b""


# --- each flag's effect ------------------------------------------------------------------

CAPS = "grep CapEff /proc/self/status | cut -f2"


@pytest.mark.parametrize(
    ("flags", "text", "shown"),
    [
        (["-e", "A=1", "-e", "B=x y"], "echo $A-$B", "1-x y"),
        (["-e", "OUTER"], "echo $OUTER", "from outside"),
        (["-w", "/tmp"], "pwd", "/tmp"),
        (["-u", "1000:2000"], "id -u; id -g", "1000\n2000"),
        (["-u", "worker"], "id -un", "worker"),
        (["--hostname", "box"], "hostname; echo $HOSTNAME", "box\nbox"),
        (["--entrypoint", "/bin/echo"], None, "sh -c x"),
        (["--entrypoint", '["/bin/echo", "-n"]'], None, "sh -c x"),
        (["--network", "none"], "ls /sys/class/net", "lo"),
        (["--read-only"], "touch /x 2>/dev/null || echo no; for d in /run /tmp /var/tmp; do "
         "touch $d/x && echo $d; done", "no\n/run\n/tmp\n/var/tmp"),
        (["--read-only", "--tmpfs", "/tmp:ro"], "touch /tmp/x 2>/dev/null || echo no; "
         "touch /run/x && echo yes", "no\nyes"),
        (["--tmpfs", "/mnt:size=1m,mode=0700"], "stat -f -c %T /mnt; stat -c %a /mnt; "
         "df -k /mnt | tail -1 | awk '{print $2}'", "tmpfs\n700\n1024"),
        (["--cap-drop", "ALL"], CAPS, "0000000000000000"),
        (["--cap-drop", "ALL", "--cap-add", "CHOWN,kill"], CAPS, "0000000000000021"),
        (["--ulimit", "nofile=100:200", "--ulimit", "core=0"],
         "ulimit -Sn; ulimit -Hn; ulimit -c", "100\n200\n0"),
        (["--pids-limit", "7"], "cat $(dirname $(find /sys/fs/cgroup -name pids.max | head -1))"
         "/pids.max", "7"),
        (["-m", "32m"], "cat $(find /sys/fs/cgroup -name memory.limit_in_bytes -o "
         "-name memory.max | head -1)", str(32 << 20)),
        (["--cpus", "0.5"], "cat $(find /sys/fs/cgroup -name cpu.cfs_quota_us | head -1) "
         "$(find /sys/fs/cgroup -name cpu.max | head -1) | cut -d' ' -f1", "50000"),
    ],
)  # fmt: skip
def test_a_flag_has_its_effect_inside(
    run: Run, flags: list[str], text: str | None, shown: str
) -> None:
    environment = {**os.environ, "OUTER": "from outside"}
    done = run(*flags, cmd=sh(text or "x"), env=environment)
    assert (done.stdout.decode().rstrip("\n"), done.stderr) == (shown, b"")


def test_swap_is_limited_with_memory(run: Run) -> None:
    text = "cat $(find /sys/fs/cgroup -name memory.memsw.limit_in_bytes -o -name memory.swap.max)"
    swap_only = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
    for flags, memory, swap in (([], 32, 0), (["--memory-swap", "48m"], 32, 16)):
        done = run("-m", "32m", *flags, cmd=sh(text))
        assert int(done.stdout) == ((0 if swap_only else memory) + swap) << 20


def test_the_hosts_network_is_the_hosts(run: Run) -> None:
    namespace = os.readlink("/proc/self/ns/net")
    inside = run("--network", "host", cmd=["readlink", "/proc/self/ns/net"]).stdout
    assert inside.decode().strip() == namespace
    assert run(cmd=["readlink", "/proc/self/ns/net"]).stdout.decode().strip() != namespace


def test_privileged_has_the_callers_capabilities_and_devices(run: Run) -> None:
    with open("/proc/self/status", encoding="ascii") as file:
        bounding = re.search(r"CapBnd:\s*(\w+)", file.read())
    assert bounding is not None
    done = run("--privileged", cmd=sh(f"{CAPS}; ls /dev | wc -l"))
    capabilities, devices = done.stdout.split()
    assert int(capabilities, 16) == int(bounding[1], 16)
    assert int(devices) > int(run(cmd=sh("ls /dev | wc -l")).stdout)


def test_a_volume_is_shared_with_the_host(run: Run, dirs: Dirs) -> None:
    with open(f"{dirs.work}/file", "w", encoding="ascii") as file:
        file.write("of the host\n")
    done = run("-v", f"{dirs.work}:/mnt", cmd=sh("cat /mnt/file; echo hi >/mnt/new"))
    assert done.stdout == b"of the host\n"
    with open(f"{dirs.work}/new", encoding="ascii") as file:
        assert file.read() == "hi\n"
    done = run("-v", f"{dirs.work}:/mnt:ro", cmd=sh("touch /mnt/other 2>/dev/null || echo no"))
    assert done.stdout == b"no\n"


def test_a_name_label_and_stop_signal_are_the_containers(start: Start, dirs: Dirs) -> None:
    process = start(
        *("--name", "web", "-l", "a=b", "--stop-signal", "INT"),
        cmd=sh(f'trap "exit 1" INT; echo ready; {LOOP}'),
    )
    read_until(process, b"ready")
    (container_id,) = containers_of(dirs)
    with open(
        f"{dirs.static}/storage/overlay-containers/{container_id}/userdata/config.json",
        encoding="utf-8",
    ) as file:
        annotations = json.load(file)["annotations"]
    assert annotations["io.container.name"] == "web"
    assert annotations["org.opencontainers.image.stopSignal"] == str(signal.SIGINT.value)
    assert process.stdout is not None
    process.stdout.close()  # the next output fails: INT ends it at once, not KILL after a grace
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 1


def test_the_directories_can_be_given_one_by_one(rootfs: str, dirs: Dirs) -> None:
    root, tmp = f"{dirs.work}/root", f"{dirs.work}/run"
    words = [sys.executable, "-m", "libpod", "--root", root, "--log-level", "error", "run"]
    words += ["--tmpdir", tmp, "--rm", "--rootfs", rootfs, *sh("exit 2")]
    assert subprocess.run(words, timeout=PATIENCE).returncode == 2
    assert os.listdir(f"{root}/libpod") == ["bolt_state.db"]
    assert "lock" in os.listdir(tmp)


def test_a_runtime_by_its_name(run: Run, options: dict[str, str]) -> None:
    name = os.path.basename(options.get("oci_runtime", "runc"))
    done = run("--runtime", name, "--log-level", "debug", cmd=["true"])
    assert done.returncode == 0
    assert run("--runtime", "nosuchruntime", cmd=["true"]).returncode == 125


# --- the other verbs -------------------------------------------------------------------------


def test_the_host_is_sound_and_the_doctor_says_what_is_not(command: list[str], dirs: Dirs) -> None:
    done = subprocess.run(
        [*command, "doctor", "--format", "json"], capture_output=True, timeout=PATIENCE
    )
    problems = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, b"")
    assert all(problem["severity"] in ("warning", "info") for problem in problems)
    assert any(dirs.tmp in problem["what"] for problem in problems) == (not on_tmpfs(dirs.base))
    assert not os.path.exists(dirs.tmp)  # it looks and makes nothing
    done = subprocess.run(
        [*command, "--conmon", "/nonexistent", "doctor"], capture_output=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stderr) == (1, b"")
    assert re.search(rb"^error +there is no conmon in /nonexistent ", done.stdout, re.MULTILINE)


def on_tmpfs(path: str) -> bool:
    kind = subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, check=True)
    return kind.stdout == b"tmpfs\n"


def test_the_doctor_of_a_runtime_says_the_same(command: list[str], options: dict[str, str]) -> None:
    done = subprocess.run(
        [*command, "doctor", "--format", "json"], capture_output=True, timeout=PATIENCE
    )
    with libpod.Runtime.from_config(command[4], **options) as runtime:
        assert [problem._asdict() for problem in runtime.doctor()] == json.loads(done.stdout)


def test_versions_and_the_host(command: list[str], options: dict[str, str]) -> None:
    done = subprocess.run([*command, "version"], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Version:         {libpod.__version__}\n" in done.stdout
    assert re.search(r"^Conmon: +conmon version \d+\.\d+", done.stdout, re.MULTILINE)
    form = "{{.host.OCIRuntime.path}}"
    done = subprocess.run(
        [*command, "info", "-f", form], capture_output=True, text=True, timeout=PATIENCE
    )
    version = subprocess.run(
        [*command, "version", "-f", "{{.OCIRuntime.Path}}"], capture_output=True, text=True
    )
    assert done.stdout == version.stdout
    if "oci_runtime" in options:
        assert done.stdout == f"{options['oci_runtime']}\n"
    with libpod.Runtime(**options) as runtime:
        entry = runtime.info()[0]
    assert entry.type == "host"
    assert entry.data["Conmon"]["version"].startswith("conmon version ")


@pytest.mark.parametrize("words", [["version", "--format", "json"], ["--version"]])
def test_a_reader_that_goes_away_ends_a_listing_quietly(
    command: list[str], words: list[str]
) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*command, *words], stdout=write, stderr=subprocess.PIPE, timeout=PATIENCE
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")
