# SPDX-License-Identifier: Apache-2.0
"""A container in the foreground of this process: on its standard streams, its
terminal, and with the signals that it receives.

All of it happens in the main thread.  A signal handler may run between any two
steps, so what handlers call takes no lock (`Container.send_signal`, `resize`,
`kill_all`).
"""

from __future__ import annotations

import logging
import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from libpod.attach import STDOUT, Pump, PumpEnd
from libpod.errors import SystemCallError

if TYPE_CHECKING:
    from libpod.container import Container

log = logging.getLogger("libpod.terminal")

STDIN_FD, STDOUT_FD, STDERR_FD = 0, 1, 2

_NOT_PASSED = frozenset(
    (
        # Cannot be caught, or are about this process: its children, its pipes, its
        # window, its own faults, and the shell's job control.
        *(signal.SIGKILL, signal.SIGSTOP),
        *(signal.SIGCHLD, signal.SIGPIPE, signal.SIGURG, signal.SIGWINCH),
        *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP),
        *(signal.SIGSYS, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
    )
)


class Interrupted(KeyboardInterrupt):
    """A signal that would end this process came; `number` is its number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


class Signals:
    """What signals do while a container is in the foreground, as a context manager.

    Until `pass_to`, and after it where it is not told to pass them on, a signal
    that would end this process raises `Interrupted`, once; from then on, and
    after `ignore`, no signal has an effect, so that clearing up is not cut short.
    A signal that this process was started to ignore (nohup) stays ignored.
    """

    def __init__(self) -> None:
        self._act: Callable[[int], object] = self._interrupt
        self._before: dict[int, Any] = {}
        self._armed = False

    def __enter__(self) -> Signals:
        for number in sorted(signal.valid_signals() - _NOT_PASSED):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._armed:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def pass_to(self, send: Callable[[int], object]) -> None:
        """From now on signals are passed to `send`."""
        self._act = send

    def ignore(self) -> None:
        self._act = _do_nothing

    def on_resize(self, act: Callable[[], None]) -> None:
        """Calls `act` each time the terminal's window changes its size."""
        self._set(signal.SIGWINCH, lambda number, frame: act())

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Calls `act` once; by a signal, which gets through to a thread that is blocked in
        a write, too."""

        def expire(number: int, frame: FrameType | None) -> None:
            if signal.getitimer(signal.ITIMER_REAL)[0]:  # not ours, which is still to come
                self._act(number)
            else:
                act()

        self._set(signal.SIGALRM, expire)
        self._armed = True
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def _set(self, number: int, handler: Callable[[int, FrameType | None], None]) -> None:
        before = signal.signal(number, handler)
        self._before.setdefault(number, before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._act(number)

    def _interrupt(self, number: int) -> None:
        if number != signal.SIGCONT:  # which ends nobody
            self.ignore()
            raise Interrupted(number)


def _do_nothing(number: int) -> None:
    log.debug("signal %d has no effect: the container has ended or is being ended", number)


# --- the terminal -----------------------------------------------------------------


def window_size(fd: int) -> tuple[int, int] | None:
    """Height and width of a terminal in characters; None where it has none."""
    try:
        width, height = os.get_terminal_size(fd)
    except OSError:
        return None
    return (height, width) if height and width else None


@contextmanager
def raw_mode(fd: int) -> Iterator[None]:
    """The terminal passes every key on as it is typed; restored at the end."""
    import termios
    import tty

    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd, termios.TCSANOW)
        yield
    finally:
        try:
            termios.tcsetattr(fd, termios.TCSANOW, before)
        except termios.error as error:
            log.debug("cannot restore the terminal, which may have hung up: %s", error)


# --- the streams --------------------------------------------------------------------


class _Output:
    """Writes what the container writes to our own streams, as it comes."""

    def __init__(self) -> None:
        self.error: SystemCallError | None = None

    def __call__(self, stream: int, data: bytes) -> bool:
        fd, name = (STDOUT_FD, "output") if stream == STDOUT else (STDERR_FD, "error")
        try:
            _write_all(fd, data)
        except OSError as error:
            self.error = SystemCallError(
                f"cannot write to standard {name}: {error.strerror}", error.errno or 0, phase="run"
            )
        return self.error is None


def _write_all(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(fd, left) :]
        except BlockingIOError:  # somebody we share it with has set O_NONBLOCK
            select.select([], [fd], [])


class Outcome(NamedTuple):
    """How a container in the foreground went."""

    exit_code: int | None
    """-1 where it is lost; None where it was detached from and goes on."""
    timed_out: bool = False


def run(
    container: Container,
    signals: Signals,
    *,
    interactive: bool,
    terminal: bool,
    detach_keys: bytes = b"",
    signal_proxy: bool = True,
    timeout: float | None = None,
    detach: bool = False,
) -> Outcome:
    """Runs a configured container on our own streams until it ends.

    Args:
        interactive: our standard input is the container's; at its end the
            container's is closed.
        terminal: the container's streams are a terminal, which has the size of
            ours.  Where our standard input is a terminal, too, and is the
            container's, it is in raw mode meanwhile.
        detach_keys: see `Pump`; looked for where our input is a terminal.
        signal_proxy: whether signals that we receive are passed on.
        timeout: seconds after which all its processes are killed.
        detach: see `Container.init`.

    Raises `SystemCallError` where our own streams fail, `Interrupted`, and what
    creating and starting a container raises.  The container is left as it is then.
    """
    typed = interactive and os.isatty(STDIN_FD)
    output = _Output()
    deadline = _Deadline(container)
    container.attend()
    if terminal:
        signals.on_resize(lambda: _resize(container))
        _resize(container)
    container.init(detach)
    raw = raw_mode(STDIN_FD) if typed and terminal else nullcontext()
    with container.connect() as connection, raw:
        if terminal:
            _resize(container)  # while it was being created it could not be told
        container.start()
        if signal_proxy:
            signals.pass_to(container.send_signal)
        if timeout:
            signals.after(timeout, deadline.pass_)
        pump = Pump(
            connection,
            output,
            input_fd=STDIN_FD if interactive else None,
            detach_keys=detach_keys if typed else b"",
        )
        end = pump.run()
    if output.error is not None:
        raise output.error
    code = None if end is PumpEnd.DETACHED else container.wait()
    return Outcome(code, deadline.passed)


class _Deadline:
    """The end of a container's time."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self.passed = False

    def pass_(self) -> None:
        if self._container.send_signal(signal.SIGKILL):
            self.passed = True
            self._container.kill_all()


def _resize(container: Container) -> None:
    size = window_size(STDIN_FD) or window_size(STDOUT_FD)
    if size is None:
        return
    try:
        container.resize(*size)
    except OSError as error:
        log.debug("cannot tell container %s its window size: %s", container.id, error)
