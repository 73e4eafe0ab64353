# SPDX-License-Identifier: Apache-2.0
"""The places of `libpod.failpoint` that some work reaches, and what ends it there."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest

from libpod import failpoint
from libpod.errors import SystemCallError


class _Recorder:
    """Stands for an armed failpoint: notes every place, ends nothing."""

    def __init__(self) -> None:
        self.name = self
        self.reached: list[str] = []

    def __eq__(self, name: object) -> bool:
        self.reached.append(str(name))
        return False

    __hash__ = None  # type: ignore[assignment]


def places_of(work: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The places that `work` reaches, as NAME:COUNT."""
    recorder = _Recorder()
    with monkeypatch.context() as patch:
        patch.setattr(failpoint, "_armed", recorder)
        work()
    reached = recorder.reached
    return [f"{name}:{reached[: at + 1].count(name)}" for at, name in enumerate(reached)]


def ended_at(place: str, action: str, work: Callable[[], object]) -> int:
    """The wait status of a child that does `work`, armed."""
    pid = os.fork()
    if pid == 0:
        try:
            failpoint._armed = failpoint._Armed(f"{place}={action}")
            work()
            os._exit(0)
        except SystemCallError as error:
            os._exit(0 if error.errno == errno.ENOSPC else 3)
        finally:
            os._exit(4)
    return os.waitpid(pid, 0)[1]
