# SPDX-License-Identifier: Apache-2.0
"""Running a container in the foreground: its streams, its time-out, its result."""

from __future__ import annotations

import time
from typing import Any

from libpod.attach import STDOUT, Pump, PumpEnd
from libpod.container import Container
from libpod.errors import InternalError, InvalidArgument
from libpod.exits import LOST
from libpod.life import KILL_TIMEOUT
from libpod.result import Reason, Result


class _Capture:
    """Both streams, up to a limit for their sum."""

    def __init__(self, limit: int | None) -> None:
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.truncated = False
        self._left = limit

    def __call__(self, stream: int, data: bytes) -> bool:
        """Whether all of it was within the limit; only the first that was not is told."""
        full = self._left is not None and len(data) > self._left
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        if stream == STDOUT:
            self.stdout += data
        else:
            self.stderr += data
        told, self.truncated = self.truncated, self.truncated or full
        return told or not full


class _Phases:
    """Seconds between marks."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.monotonic()

    def mark(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name] = now - self._since
        self._since = now


class _Ending:
    """How a job is made to end: its time-out, then the grace, then SIGKILL."""

    def __init__(self, container: Container, timeout: float | None, grace: float) -> None:
        self._container = container
        self._grace = grace
        self._killed = False
        self.reason: Reason | None = None
        self.deadline = None if timeout is None else time.monotonic() + timeout

    def next_step(self) -> None:
        """The deadline passed: do the next thing and set the next deadline."""
        if self.reason is None and self._grace > 0:
            self.reason = Reason.TIMEOUT
            self._container.send_stop_signal()
            self.deadline = time.monotonic() + self._grace
        elif self._killed:
            raise InternalError(
                f"container {self._container.id} did not die within {KILL_TIMEOUT:g} s",
                phase="stop",
                container_id=self._container.id,
                remedy="a process of it may be stuck in the kernel",
            )
        else:
            self.kill(self.reason or Reason.TIMEOUT)

    def kill(self, reason: Reason) -> None:
        self.reason = reason
        self._killed = True
        self._container.kill_all()
        self.deadline = time.monotonic() + KILL_TIMEOUT


def run(
    container: Container,
    *,
    data: bytes | None,
    timeout: float | None,
    grace: float,
    output_limit: int | None,
    key: Any,
    phases: dict[str, float],
) -> Result:
    """Runs a configured container to its end and removes it; where this raises, that is
    left to the caller, who has had the arguments checked."""
    clock = _Phases()
    clock.seconds = phases
    capture = _Capture(output_limit)
    container.attend()
    with container.start_and_attach(on_created=lambda: clock.mark("create")) as connection:
        clock.mark("start")
        ending = _Ending(container, timeout, grace)
        pump = Pump(connection, capture, data=data)
        _pump_to_end(pump, ending)
    _await_exit(container, ending)
    clock.mark("run")
    state, usage = container.reap()
    clock.mark("release")
    code = None if state.exit_code == LOST else state.exit_code
    return Result(
        reason=ending.reason or _reason(code, state.oom_killed),
        exit_code=code,
        stdout=bytes(capture.stdout),
        stderr=bytes(capture.stderr),
        truncated=capture.truncated,
        usage=usage,
        phases=clock.seconds,
        id=container.id,
        name=container.name,
        key=key,
    )


def check(data: object, timeout: object, grace: object) -> None:
    """Refuses what would fail in the middle, or end a job in a way that nobody meant."""
    if data is not None and not isinstance(data, (bytes, bytearray, memoryview)):
        raise InvalidArgument(f"input: must be bytes, not {type(data).__name__}")
    for name, value in (("timeout", 0.0 if timeout is None else timeout), ("grace", grace)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
            raise InvalidArgument(f"{name} {value!r}: must be a number of seconds, 0 or more")


def _pump_to_end(pump: Pump, ending: _Ending) -> None:
    """Moves the streams, also while the job is being ended: it may have last words."""
    while True:
        end = pump.run(ending.deadline)
        if end is PumpEnd.CLOSED:
            return
        if end is PumpEnd.REFUSED:
            ending.kill(Reason.OUTPUT_LIMIT)
        else:
            ending.next_step()


def _await_exit(container: Container, ending: _Ending) -> None:
    """The streams may close long before the container ends."""
    while not container.await_exit(
        None if ending.deadline is None else max(0.0, ending.deadline - time.monotonic())
    ):
        ending.next_step()


def _reason(code: int | None, oom_killed: bool) -> Reason:
    if code is None:
        return Reason.LOST
    if oom_killed and code > 128:
        return Reason.OOM
    return Reason.SIGNALED if 128 < code <= 128 + 64 else Reason.EXITED
