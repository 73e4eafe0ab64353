# SPDX-License-Identifier: Apache-2.0
"""A container's streams, through conmon's attach socket.

The socket carries packets: to conmon raw bytes of the standard input, from
conmon one byte that names the stream (2 standard output, 3 standard error) and
then its data.  conmon closes it when the container has ended and its output is
drained.  Connecting before the start loses no early byte.
"""

from __future__ import annotations

import enum
import errno
import logging
import os
import select
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from libpod.errors import InvalidArgument, SystemCallError

if TYPE_CHECKING:
    import socket

log = logging.getLogger("libpod.attach")

STDOUT = 2
STDERR = 3

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"

_PACKET = 32 * 1024 + 1
"""More than conmon ever sends in one packet."""

_CHUNK = 8 * 1024
"""What we send in one packet; conmon cuts longer ones."""


ACCEPT_TIMEOUT = 20.0
"""Seconds in which a monitor must have accepted a connection."""

# The kernel's: <linux/sock_diag.h>, <linux/unix_diag.h>.
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_UDIAG_SHOW_PEER = 4
_UNIX_DIAG_PEER = 2
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_REQUEST = struct.Struct("=BBHIIIQ")  # unix_diag_req: ..., inode, what to show, any cookie
_UNIX_DIAG_MSG_BYTES = 16
_ATTRIBUTE = struct.Struct("=HHI")  # nlattr: length, type; the inode of the peer


class PumpEnd(enum.Enum):
    """Why `Pump.run` returned."""

    CLOSED = "closed"
    """The container has ended (or closed both its output streams)."""
    DETACHED = "detached"
    """The detach keys were typed."""
    TIMEOUT = "timeout"
    """The deadline passed; run it again to go on."""
    REFUSED = "refused"
    """The output took no more; run it again to go on."""


def connect(bundle_directory: str) -> socket.socket:
    """Connects to the monitor of the container in `bundle_directory`.

    Returns when the monitor has accepted, since only then does it pass output on: a
    container that is started before may have written all of its own by then.  Nothing
    tells of that moment, so the kernel is asked again and again.

    Raises `SystemCallError`; `errno` is ETIMEDOUT where the monitor did not accept within
    ACCEPT_TIMEOUT.
    """
    try:
        # Through the descriptor: a socket's path may have 107 bytes only.
        directory = os.open(bundle_directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return _connect(f"/proc/self/fd/{directory}/attach")
        finally:
            os.close(directory)
    except OSError as error:
        raise SystemCallError(
            f"cannot attach to the container in {bundle_directory}: {error.strerror}",
            error.errno or 0,
            remedy="its monitor is gone or hangs, or the container has ended",
        ) from error


def _connect(path: str) -> socket.socket:
    import socket

    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(path)
        _await_accepted(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _await_accepted(connection: socket.socket) -> None:
    """Also returns where the monitor has gone, since whoever reads then sees that, and
    where the kernel cannot tell (without CONFIG_UNIX_DIAG)."""
    import socket

    poller = select.poll()
    poller.register(connection, select.POLLIN)
    deadline = time.monotonic() + ACCEPT_TIMEOUT
    pause = 0.0001
    try:
        kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
    except OSError as error:
        log.info("whether a connection is accepted cannot be asked: %s", error)
        return
    with kernel:
        while not poller.poll(0) and not _is_accepted(connection, kernel):
            if time.monotonic() >= deadline:
                raise TimeoutError(
                    errno.ETIMEDOUT, f"its monitor did not accept within {ACCEPT_TIMEOUT:g} s"
                )
            time.sleep(pause)
            pause = min(2 * pause, 0.01)


def _is_accepted(connection: socket.socket, kernel: socket.socket) -> bool:
    """Whether the other end is somebody's: until it is accepted it has no inode.  Taken for
    accepted where the kernel cannot tell."""
    import socket

    inode = os.fstat(connection.fileno()).st_ino
    request = _REQUEST.pack(socket.AF_UNIX, 0, 0, 0, inode, _UDIAG_SHOW_PEER, (1 << 64) - 1)
    header = _HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, 1, 0, 0)
    try:
        kernel.send(header + request)
        answer = kernel.recv(4096, socket.MSG_DONTWAIT)
        if _HEADER.unpack_from(answer)[1] != _SOCK_DIAG_BY_FAMILY:
            raise OSError("it answers with an error")
        # The one attribute that was asked for comes first.
        _, kind, peer = _ATTRIBUTE.unpack_from(answer, _HEADER.size + _UNIX_DIAG_MSG_BYTES)
    except (OSError, struct.error) as error:
        log.info("the kernel does not tell whether a connection is accepted: %s", error)
        return True
    return bool(kind != _UNIX_DIAG_PEER or peer)


def parse_detach_keys(text: str) -> bytes:
    """Docker's notation ("ctrl-p,ctrl-q", "a,b"); "" means that there are none."""
    keys = bytearray()
    for key in text.split(",") if text else []:
        if len(key) == 1 and key.isascii():
            keys += key.encode()
        elif len(key) == 6 and key.startswith("ctrl-") and "a" <= key[5] <= "z":
            keys.append(ord(key[5]) - ord("a") + 1)
        elif len(key) == 6 and key.startswith("ctrl-") and key[5] in "@[\\]^_":
            keys.append(ord(key[5]) - ord("@"))
        else:
            raise InvalidArgument(
                f"invalid detach keys {text!r}",
                remedy="write single characters or ctrl-X, separated by commas",
            )
    return bytes(keys)


class _DetachFilter:
    """Finds the detach keys in what is typed, however the reads cut it."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, typed: bytes) -> tuple[bytes, bool]:
        """What to pass on, and whether the keys were complete.

        A beginning of the keys is held back until it is clear what it is.
        """
        if not self._keys:
            return typed, False
        data = self._held + typed
        at = data.find(self._keys)
        if at >= 0:
            self._held = b""
            return data[:at], True
        held = next(
            (
                n
                for n in range(min(len(self._keys) - 1, len(data)), 0, -1)
                if data.endswith(self._keys[:n])
            ),
            0,
        )
        self._held = data[len(data) - held :]
        return data[: len(data) - held], False

    def rest(self) -> bytes:
        """What was held back, when nothing more is typed."""
        held, self._held = self._held, b""
        return held


class Pump:
    """Moves a container's streams until it ends; one thread, no polling.

    Args:
        connection: from `connect`; stays the caller's.
        output: called with STDOUT or STDERR and the bytes; False ends `run`.
        data: sent as standard input, then closed; or
        input_fd: read as it comes and sent, then closed; neither sends nothing.
        detach_keys: from `parse_detach_keys`, looked for in `input_fd`.
    """

    def __init__(
        self,
        connection: socket.socket,
        output: Callable[[int, bytes], bool],
        *,
        data: bytes | None = None,
        input_fd: int | None = None,
        detach_keys: bytes = b"",
    ) -> None:
        self._connection = connection
        self._output = output
        self._unsent = memoryview(data or b"")
        self._input_fd = input_fd
        self._input_open = data is not None or input_fd is not None
        self._filter = _DetachFilter(detach_keys)
        self._detached = False
        self._reset = False
        self._poller = select.poll()

    def run(self, deadline: float | None = None) -> PumpEnd:
        """Until the container ends, detaches, or time.monotonic() reaches the deadline."""
        sock = self._connection.fileno()
        while True:
            self._poller.register(sock, self._interest())
            self._watch_input()
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            ready = dict(self._poller.poll(left))
            if ready.get(sock, 0) & (select.POLLIN | select.POLLHUP | select.POLLERR):
                end = self._receive()
                if end is not None:
                    return end
            if ready.get(sock, 0) & select.POLLOUT:
                self._send()
            if self._input_fd is not None and self._input_fd in ready:
                self._read_input(self._input_fd)
            if self._detached and not self._unsent:
                return PumpEnd.DETACHED
            # Also where there is always something to move.
            if deadline is not None and time.monotonic() >= deadline:
                return PumpEnd.TIMEOUT

    def _interest(self) -> int:
        sending = self._input_open and (self._unsent or self._input_fd is None)
        return select.POLLIN | (select.POLLOUT if sending else 0)

    def _watch_input(self) -> None:
        """Nothing more is read before what was read has been sent."""
        if self._input_fd is None:
            return
        if self._input_open and not self._unsent and not self._detached:
            self._poller.register(self._input_fd, select.POLLIN)
        else:
            try:
                self._poller.unregister(self._input_fd)
            except KeyError:
                return

    def _receive(self) -> PumpEnd | None:
        import socket

        try:
            packet = self._connection.recv(_PACKET, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except ConnectionError:
            # Told once, and before what lies there still: conmon has gone without
            # reading the last of our input.
            again, self._reset = self._reset, True
            return PumpEnd.CLOSED if again else None
        if not packet:
            return PumpEnd.CLOSED
        taken = packet[0] not in (STDOUT, STDERR) or self._output(packet[0], packet[1:])
        return None if taken else PumpEnd.REFUSED

    def _send(self) -> None:
        import socket

        try:
            if self._unsent:
                sent = self._connection.send(self._unsent[:_CHUNK], socket.MSG_DONTWAIT)
                self._unsent = self._unsent[sent:]
            if not self._unsent and self._input_fd is None:
                self._close_input()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
                raise
            self._unsent = memoryview(b"")  # the container no longer reads
            self._input_open = False

    def _close_input(self) -> None:
        import socket

        self._input_open = False
        try:
            self._connection.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise

    def _read_input(self, fd: int) -> None:
        try:
            typed = os.read(fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:  # a terminal that hung up
                log.warning("cannot read the standard input: %s", error.strerror)
            typed = b""
        data, self._detached = self._filter.feed(typed)
        if not typed:
            data = self._filter.rest()
            self._poller.unregister(fd)
            self._input_fd = None  # has the container's closed once all is sent
        self._unsent = memoryview(data)


def resize(bundle_directory: str, height: int, width: int) -> None:
    """Tells the container's terminal its size in characters."""
    try:
        fd = os.open(
            f"{bundle_directory}/ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
        )
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):  # the monitor has ended
            return
        raise
    try:
        os.write(fd, f"1 {height} {width}\n".encode())
    finally:
        os.close(fd)
