# SPDX-License-Identifier: Apache-2.0
"""A running container's streams: attaching, terminals, detaching, several clients."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import Dirs, await_output, read_log
from libpod import Container, ContainerStateInvalid, Mount, Reason, Runtime, Spec, SystemCallError
from libpod.attach import STDERR, STDOUT, Pump, PumpEnd, parse_detach_keys

SLEEP = ["sleep", "1000"]


class Heard:
    """What a container said on each stream."""

    def __init__(self) -> None:
        self.text = {STDOUT: b"", STDERR: b""}

    def __call__(self, stream: int, data: bytes) -> bool:
        self.text[stream] += data
        return True


@pytest.fixture
def typing() -> Iterator[tuple[int, int]]:
    """A pipe as a keyboard: what is read, what is typed into."""
    read, write = os.pipe()
    yield read, write
    os.close(read)
    if write >= 0:
        os.close(write)


def soon(seconds: float = 60) -> float:
    return time.monotonic() + seconds


def pump_until(pump: Pump, heard: Heard, text: bytes, timeout: float = 60) -> None:
    deadline = soon(timeout)
    while text not in heard.text[STDOUT]:
        assert pump.run(min(deadline, soon(0.05))) is PumpEnd.TIMEOUT
        assert time.monotonic() < deadline, heard.text


# --- attaching ----------------------------------------------------------------------


def test_attaching_before_the_start_hears_all(rt: Runtime, box: Spec) -> None:
    c = rt.create(box, ["sh", "-c", "echo out; echo err >&2"])
    c.init()
    heard = Heard()
    with c.connect() as connection:
        c.start()
        assert Pump(connection, heard).run(soon()) is PumpEnd.CLOSED
    assert heard.text == {STDOUT: b"out\n", STDERR: b"err\n"}
    assert c.wait() == 0


def test_a_monitor_that_is_late_misses_nothing(rt: Runtime, box: Spec) -> None:
    """The command is started when the monitor has accepted: it can end within a moment."""
    c = rt.create(box, ["echo", "out"])
    c.init()
    monitor = c._life.running().monitor_pid
    os.kill(monitor, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        try:
            started = pool.submit(c.start_and_attach)
            time.sleep(0.5)
            assert os.path.exists(f"{c._life.oci.state_dir(c.id)}/exec.fifo")
        finally:
            os.kill(monitor, signal.SIGCONT)
        heard = Heard()
        with started.result(60) as connection:
            assert Pump(connection, heard).run(soon()) is PumpEnd.CLOSED
    assert heard.text[STDOUT] == b"out\n"


def test_attaching_later_hears_the_rest(rt: Runtime, box: Spec, dirs: Dirs) -> None:
    wait = "while [ ! -e /mark/go ]; do sleep 0.05; done"
    job = box.but(mounts=[Mount(dirs.work, "/mark")])
    c = rt.start(job, ["sh", "-c", f"echo early; {wait}; echo late"])
    await_output(c, b"early")
    heard = Heard()
    with c.connect() as connection:
        with open(f"{dirs.work}/go", "w", encoding="ascii"):
            pass
        assert Pump(connection, heard).run(soon()) is PumpEnd.CLOSED
    assert heard.text[STDOUT] == b"late\n"


def test_several_clients_hear_the_same(rt: Runtime, box: Spec) -> None:
    c = rt.create(box, ["sh", "-c", "seq 1 1000"])
    c.init()
    heard = [Heard(), Heard(), Heard()]
    connections = [c.connect() for _ in heard]
    c.start()
    for connection, ear in zip(connections, heard, strict=True):
        with connection:
            assert Pump(connection, ear).run(soon()) is PumpEnd.CLOSED
    expected = "".join(f"{n}\n" for n in range(1, 1001)).encode()
    assert [ear.text[STDOUT] for ear in heard] == [expected] * 3


def test_attaching_in_the_wrong_state(rt: Runtime, box: Spec) -> None:
    c = rt.create(box, SLEEP)
    with pytest.raises(ContainerStateInvalid, match="can only attach to created or running"):
        c.connect()
    c.start()
    c.stop()
    with pytest.raises(ContainerStateInvalid, match="can only attach to created or running"):
        c.connect()


def test_attaching_without_a_socket(rt: Runtime, box: Spec) -> None:
    c = rt.start(box, SLEEP)
    os.unlink(f"{os.path.dirname(c.log_path)}/attach")
    with pytest.raises(SystemCallError, match="cannot attach") as caught:
        c.connect()
    assert isinstance(caught.value, OSError) and caught.value.remedy


def test_a_client_that_goes_does_not_harm(rt: Runtime, box: Spec) -> None:
    c = rt.start(
        box, ["sh", "-c", "i=0; while [ $i -lt 30 ]; do echo $i; sleep 0.01; i=$((i+1)); done"]
    )
    for _ in range(5):
        c.connect().close()
    assert c.wait(60) == 0
    assert b"29\n" in read_log(c)


# --- standard input ----------------------------------------------------------------------


def test_typing_and_the_end_of_it(rt: Runtime, box: Spec, typing: tuple[int, int]) -> None:
    read, write = typing
    c = rt.create(box.but(stdin=True), ["cat"])
    c.init()
    heard = Heard()
    with c.connect() as connection:
        c.start()
        pump = Pump(connection, heard, input_fd=read)
        for word in (b"one\n", b"two\n"):
            os.write(write, word)
            pump_until(pump, heard, word)
        os.write(write, b"last")
        os.dup2(read, write)  # no writer is left
        assert pump.run(soon()) is PumpEnd.CLOSED
    assert heard.text[STDOUT] == b"one\ntwo\nlast"
    assert c.wait() == 0


def test_detaching_and_coming_back(rt: Runtime, box: Spec, typing: tuple[int, int]) -> None:
    read, write = typing
    c = rt.create(box.but(terminal=True, stdin=True), ["cat"])
    c.init()
    heard = Heard()
    with c.connect() as connection:
        c.start()
        keys = parse_detach_keys("ctrl-p,ctrl-q")
        pump = Pump(connection, heard, input_fd=read, detach_keys=keys)
        os.write(write, b"hello\n")
        pump_until(pump, heard, b"hello\r\nhello\r\n")  # the terminal's echo, and cat's
        os.write(write, b"\x10")
        assert pump.run(soon(0.2)) is PumpEnd.TIMEOUT
        os.write(write, b"\x11not for the container")
        assert pump.run(soon()) is PumpEnd.DETACHED
    assert str(c.state.status) == "running"
    again = Heard()
    with c.connect() as connection:
        pump = Pump(connection, again, input_fd=read)
        os.write(write, b"back\n")
        pump_until(pump, again, b"back\r\nback\r\n")
    assert b"not for" not in read_log(c)
    c.stop()


# --- terminals -----------------------------------------------------------------------------


def test_a_terminal(rt: Runtime, box: Spec) -> None:
    r = rt.run(
        box.but(terminal=True),
        ["sh", "-c", "test -t 0 && test -t 1 && test -t 2 && echo $TERM; echo err >&2; exit 4"],
    )
    assert (r.reason, r.exit_code, r.stdout, r.stderr) == (
        Reason.EXITED,
        4,
        b"xterm\r\nerr\r\n",
        b"",
    )


def size_of(container: Container) -> bytes:
    sizes = re.findall(rb"size (\d+ \d+)", read_log(container))
    return sizes[-1] if sizes else b""


def test_the_size_of_a_terminal(rt: Runtime, box: Spec) -> None:
    size = "echo size $(stty size)"
    tell = f"trap '{size}' WINCH; {size}; while :; do sleep 0.05; done"
    c = rt.create(box.but(terminal=True), ["sh", "-c", tell])
    c.resize(30, 100)
    c.start()
    await_output(c, b"size 30 100")
    for height, width in ((40, 120), (20, 50), (24, 80)):
        c.resize(height, width)
        deadline = soon()
        while size_of(c) != f"{height} {width}".encode():
            assert time.monotonic() < deadline, read_log(c)
            time.sleep(0.01)
    c.stop()
    c.resize(10, 10)  # nobody is there to care


def test_input_through_a_terminal(rt: Runtime, box: Spec) -> None:
    r = rt.run(
        box.but(terminal=True, stdin=True),
        ["sh", "-c", "read a; echo got $a"],
        input=b"word\n",
        timeout=60,
    )
    assert r.exit_code == 0
    assert b"got word\r\n" in r.stdout
