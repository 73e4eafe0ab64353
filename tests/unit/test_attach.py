# SPDX-License-Identifier: Apache-2.0
"""Moving streams over a socket of packets, with the other side in our hands."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libpod import InvalidArgument, SystemCallError, attach
from libpod.attach import (
    STDERR,
    STDOUT,
    Pump,
    PumpEnd,
    _DetachFilter,
    connect,
    parse_detach_keys,
    resize,
)


class Heard:
    """Takes output; `limit` packets at most."""

    def __init__(self, limit: int = 1_000_000) -> None:
        self.packets: list[tuple[int, bytes]] = []
        self.limit = limit

    def __call__(self, stream: int, data: bytes) -> bool:
        self.packets.append((stream, data))
        return len(self.packets) < self.limit


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Our end, and conmon's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.settimeout(60)
        yield ours, theirs


@pytest.fixture
def keyboard() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    for fd in (read, write):
        try:
            os.close(fd)
        except OSError:
            continue


Ends = tuple[socket.socket, socket.socket]


def soon(seconds: float = 60) -> float:
    return time.monotonic() + seconds


# --- output --------------------------------------------------------------------------


def test_streams_are_told_apart(ends: Ends) -> None:
    ours, theirs = ends
    heard = Heard()
    for packet in (b"\x02one", b"\x03two", b"\x02three", b"\x02"):
        theirs.send(packet)
    theirs.close()
    assert Pump(ours, heard).run(soon()) is PumpEnd.CLOSED
    assert heard.packets == [
        (STDOUT, b"one"),
        (STDERR, b"two"),
        (STDOUT, b"three"),
        (STDOUT, b""),
    ]


def test_unknown_streams_are_passed_over(ends: Ends) -> None:
    ours, theirs = ends
    heard = Heard()
    for packet in (b"\x01input", b"\x00", b"\xff\xff", b"\x02x"):
        theirs.send(packet)
    theirs.close()
    assert Pump(ours, heard).run(soon()) is PumpEnd.CLOSED
    assert heard.packets == [(STDOUT, b"x")]


def test_the_largest_packet_of_conmon_is_not_cut(ends: Ends) -> None:
    ours, theirs = ends
    heard = Heard()
    theirs.send(b"\x02" + b"x" * 32 * 1024)
    theirs.close()
    Pump(ours, heard).run(soon())
    assert heard.packets == [(STDOUT, b"x" * 32 * 1024)]


def test_output_that_is_refused_can_be_gone_on_with(ends: Ends) -> None:
    ours, theirs = ends
    heard = Heard(limit=2)
    for number in range(4):
        theirs.send(b"\x02%d" % number)
    theirs.close()
    pump = Pump(ours, heard)
    assert pump.run(soon()) is PumpEnd.REFUSED
    assert [data for _, data in heard.packets] == [b"0", b"1"]
    heard.limit = 100
    assert pump.run(soon()) is PumpEnd.CLOSED
    assert [data for _, data in heard.packets] == [b"0", b"1", b"2", b"3"]


def test_a_deadline_ends_the_moving_only(ends: Ends) -> None:
    ours, theirs = ends
    heard = Heard()
    pump = Pump(ours, heard)
    deadline = soon(0.05)
    assert pump.run(deadline) is PumpEnd.TIMEOUT
    assert time.monotonic() >= deadline
    theirs.send(b"\x02x")
    assert pump.run(soon(0.05)) is PumpEnd.TIMEOUT
    theirs.close()
    assert pump.run() is PumpEnd.CLOSED
    assert heard.packets == [(STDOUT, b"x")]


def test_a_deadline_holds_where_output_never_ends(ends: Ends) -> None:
    ours, theirs = ends
    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set():
            try:
                theirs.send(b"\x02" + b"y" * 8192)
            except OSError:
                return

    def slowly(stream: int, data: bytes) -> bool:
        time.sleep(0.001)  # never faster than what comes
        return True

    writer = threading.Thread(target=flood)
    writer.start()
    began = time.monotonic()
    try:
        assert Pump(ours, slowly).run(soon(0.1)) is PumpEnd.TIMEOUT
        assert time.monotonic() - began < 60
    finally:
        stop.set()
        ours.close()
        writer.join()


def test_a_deadline_that_has_passed_still_moves_what_is_there(ends: Ends) -> None:
    ours, theirs = ends
    heard = Heard()
    pump = Pump(ours, heard)
    for number in range(3):
        theirs.send(b"\x02%d" % number)
    for _ in range(3):
        assert pump.run(0.0) is PumpEnd.TIMEOUT
    assert len(heard.packets) == 3


# --- input ---------------------------------------------------------------------------


def test_data_is_sent_and_the_input_closed(ends: Ends) -> None:
    ours, theirs = ends
    data = bytes(range(256)) * 100
    pump = Pump(ours, Heard(), data=data)
    received = b""
    closed = threading.Event()

    def read() -> None:
        nonlocal received
        while packet := theirs.recv(65536):
            assert len(packet) <= 8192  # conmon cuts what is longer
            received += packet
        closed.set()
        theirs.close()

    reader = threading.Thread(target=read)
    reader.start()
    assert pump.run(soon()) is PumpEnd.CLOSED
    reader.join(10)
    assert closed.is_set() and received == data


def test_empty_data_closes_the_input_at_once(ends: Ends) -> None:
    ours, theirs = ends
    pump = Pump(ours, Heard(), data=b"")
    assert pump.run(soon(0.05)) is PumpEnd.TIMEOUT
    assert theirs.recv(10) == b""


def test_no_data_leaves_the_input_open(ends: Ends) -> None:
    ours, theirs = ends
    assert Pump(ours, Heard()).run(soon(0.05)) is PumpEnd.TIMEOUT
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(10)


def test_input_that_nobody_reads_does_not_block_output(ends: Ends) -> None:
    ours, theirs = ends
    heard = Heard()
    pump = Pump(ours, heard, data=b"x" * 10_000_000)
    assert pump.run(soon(0.1)) is PumpEnd.TIMEOUT
    theirs.send(b"\x02still here")
    assert pump.run(soon(0.1)) is PumpEnd.TIMEOUT
    assert heard.packets == [(STDOUT, b"still here")]


def test_the_other_side_goes_while_input_is_sent(ends: Ends) -> None:
    ours, theirs = ends
    heard = Heard()
    pump = Pump(ours, heard, data=b"x" * 10_000_000)
    assert pump.run(soon(0.05)) is PumpEnd.TIMEOUT
    theirs.send(b"\x02last words")
    theirs.close()
    assert pump.run(soon()) is PumpEnd.CLOSED
    assert (STDOUT, b"last words") in heard.packets


def test_typing(ends: Ends, keyboard: tuple[int, int]) -> None:
    ours, theirs = ends
    read, write = keyboard
    pump = Pump(ours, Heard(), input_fd=read)
    for word in (b"one\n", b"two\n"):
        os.write(write, word)
        assert pump.run(soon(0.05)) is PumpEnd.TIMEOUT
        assert theirs.recv(100) == word
    os.write(write, b"end")
    os.close(write)
    assert pump.run(soon(0.05)) is PumpEnd.TIMEOUT
    assert (theirs.recv(100), theirs.recv(100)) == (b"end", b"")


def test_nothing_is_read_before_what_was_read_is_sent(
    ends: Ends, keyboard: tuple[int, int]
) -> None:
    ours, theirs = ends
    read, write = keyboard
    pump = Pump(ours, Heard(), input_fd=read)
    os.set_blocking(write, False)
    written = 0
    for _ in range(60):  # until socket and pipe are full
        try:
            written += os.write(write, b"z" * 8192)
        except BlockingIOError:
            if pump.run(soon(0.02)) is not PumpEnd.TIMEOUT:
                pytest.fail("it ended")
    os.close(write)
    received = 0
    theirs.setblocking(False)
    while received < written:
        pump.run(soon(0.01))
        try:
            received += len(theirs.recv(65536))
        except BlockingIOError:
            continue
    assert received == written


# --- detaching ------------------------------------------------------------------------


def test_detach_keys_in_pieces(ends: Ends, keyboard: tuple[int, int]) -> None:
    ours, theirs = ends
    read, write = keyboard
    pump = Pump(ours, Heard(), input_fd=read, detach_keys=b"\x10\x11")
    os.write(write, b"ab\x10")
    assert pump.run(soon(0.05)) is PumpEnd.TIMEOUT
    assert theirs.recv(100) == b"ab"  # the beginning of the keys is held back
    os.write(write, b"c")
    assert pump.run(soon(0.05)) is PumpEnd.TIMEOUT
    assert theirs.recv(100) == b"\x10c"
    os.write(write, b"\x10")
    assert pump.run(soon(0.05)) is PumpEnd.TIMEOUT
    os.write(write, b"\x11rest")
    assert pump.run(soon()) is PumpEnd.DETACHED
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(100)


def test_held_back_keys_are_sent_when_the_typing_ends(
    ends: Ends, keyboard: tuple[int, int]
) -> None:
    ours, theirs = ends
    read, write = keyboard
    pump = Pump(ours, Heard(), input_fd=read, detach_keys=b"\x10\x11")
    os.write(write, b"x\x10")
    os.close(write)
    assert pump.run(soon(0.1)) is PumpEnd.TIMEOUT
    got = b""
    while packet := theirs.recv(100):
        got += packet
    assert got == b"x\x10"


@given(
    keys=st.binary(min_size=1, max_size=4),
    pieces=st.lists(st.binary(max_size=6), max_size=12),
)
def test_however_it_is_cut_the_keys_are_found(keys: bytes, pieces: list[bytes]) -> None:
    typed = b"".join(pieces)
    keys_filter = _DetachFilter(keys)
    passed = b""
    detached = False
    for piece in pieces:
        data, detached = keys_filter.feed(piece)
        passed += data
        if detached:
            break
    at = typed.find(keys)
    assert detached == (at >= 0)
    if detached:
        assert passed == typed[:at]
    else:
        assert passed + keys_filter.rest() == typed


@pytest.mark.parametrize(
    "text, keys",
    [
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("a,b", b"ab"),
        ("ctrl-@", b"\0"),
        ("ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_", b"\x1b\x1c\x1d\x1e\x1f"),
        ("ctrl-a,x,ctrl-z", b"\x01x\x1a"),
        ("", b""),
    ],
)
def test_detach_keys_are_parsed(text: str, keys: bytes) -> None:
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize(
    "text", ["ab", "ctrl-", "ctrl-1", "ctrl-P", "a,,b", ",", "alt-x", "ä", "a,"]
)
def test_wrong_detach_keys(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid detach keys") as caught:
        parse_detach_keys(text)
    assert caught.value.remedy


# --- files in the bundle ------------------------------------------------------------------


@pytest.fixture
def listener(tmp_path: object) -> Iterator[socket.socket]:
    """A monitor that has not accepted yet, in the bundle `tmp_path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        here = os.open(str(tmp_path), os.O_PATH)
        listener.bind(f"/proc/self/fd/{here}/attach")
        os.close(here)
        listener.listen()
        yield listener


def later(work: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(0.1, work)
    timer.start()
    return timer


def test_connecting_to_a_path_that_is_longer_than_a_socket_may_have(
    tmp_path: object, listener: socket.socket
) -> None:
    directory = f"{tmp_path}/{'d' * 200}"
    os.mkdir(directory)
    os.rename(f"{tmp_path}/attach", f"{directory}/attach")
    accepted: list[tuple[socket.socket, object]] = []
    timer = later(lambda: accepted.append(listener.accept()))
    with connect(directory) as connection:
        timer.join()
        with accepted[0][0] as server:
            server.send(b"\x02x")
            assert connection.recv(10) == b"\x02x"


def test_connecting_waits_until_it_is_accepted(tmp_path: object, listener: socket.socket) -> None:
    steps: list[object] = []

    def accept() -> None:
        steps.append("accepting")
        steps.append(listener.accept()[0])

    timer = later(accept)
    with connect(str(tmp_path)):
        steps.append("connected")
        timer.join()
    for step in steps:
        if isinstance(step, socket.socket):
            step.close()
    assert steps[0] == "accepting"


def test_a_monitor_that_does_not_accept(
    tmp_path: object, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attach, "ACCEPT_TIMEOUT", 0.05)
    with pytest.raises(SystemCallError, match="did not accept within 0.05 s") as caught:
        connect(str(tmp_path))
    assert caught.value.errno == errno.ETIMEDOUT and caught.value.remedy


def test_a_monitor_that_goes_before_it_accepts(tmp_path: object, listener: socket.socket) -> None:
    timer = later(listener.close)
    with connect(str(tmp_path)) as connection:
        timer.join()
        assert Pump(connection, Heard()).run(soon()) is PumpEnd.CLOSED


def test_a_kernel_that_cannot_tell_is_not_asked_again(
    tmp_path: object, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attach, "_SOCK_DIAG_BY_FAMILY", 99)
    connect(str(tmp_path)).close()


def test_connecting_where_nobody_listens(tmp_path: object) -> None:
    with pytest.raises(SystemCallError, match="cannot attach") as caught:
        connect(str(tmp_path))
    assert caught.value.errno == 2 and caught.value.remedy
    with pytest.raises(SystemCallError, match="cannot attach"):
        connect(f"{tmp_path}/nothing")


def test_resizing(tmp_path: object) -> None:
    resize(str(tmp_path), 1, 1)  # no fifo: the monitor has ended
    os.mkfifo(f"{tmp_path}/ctl")
    resize(str(tmp_path), 1, 1)  # nobody reads
    reader = os.open(f"{tmp_path}/ctl", os.O_RDONLY | os.O_NONBLOCK)
    resize(str(tmp_path), 24, 80)
    assert os.read(reader, 100) == b"1 24 80\n"
    os.close(reader)


def test_resizing_follows_no_link(tmp_path: object) -> None:
    os.mkfifo(f"{tmp_path}/elsewhere")
    os.symlink("elsewhere", f"{tmp_path}/ctl")
    reader = os.open(f"{tmp_path}/elsewhere", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(OSError):
        resize(str(tmp_path), 24, 80)
    os.close(reader)
