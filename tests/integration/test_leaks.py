# SPDX-License-Identifier: Apache-2.0
"""Five hundred launches in one process, and nothing more than before."""

from __future__ import annotations

import threading

import pytest

from census import Census
from conftest import Dirs
from libpod import Runtime, Spec

LAUNCHES = 500
THREADS = 4


@pytest.mark.timeout(400)
def test_five_hundred_launches_leave_nothing(rt: Runtime, box: Spec, dirs: Dirs) -> None:
    assert rt.run(box, ["true"]).ok  # the thread that watches exits is there from now on
    before = Census(dirs.base)
    wrong: list[object] = []
    numbers = iter(range(LAUNCHES))
    turn = threading.Lock()

    def work() -> None:
        while True:
            with turn:
                number = next(numbers, None)
            if number is None:
                return
            result = rt.run(box, ["sh", "-c", f"exit {number % 7}"])
            if result.exit_code != number % 7:
                wrong.append(result)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert before.differences() == []
