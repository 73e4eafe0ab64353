# SPDX-License-Identifier: Apache-2.0
"""The original's helpers."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path

import pytest

from libpod.errors import SystemCallError, WaitTimeout
from libpod.sundries import (
    copy_string_map,
    mount_exists,
    remove_scientific_notation,
    wait_for_file,
    write_file,
)


def test_waiting_for_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    later = threading.Timer(0.1, path.touch)
    began = time.monotonic()
    later.start()
    wait_for_file(str(path), 10)
    assert 0.09 < time.monotonic() - began < 60
    later.join()
    wait_for_file(str(path), 0)


def test_waiting_in_vain(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=f"timed out waiting for file {tmp_path}/none"):
        wait_for_file(f"{tmp_path}/none", 0.06)
    assert time.monotonic() - began >= 0.06
    with pytest.raises(WaitTimeout):
        wait_for_file(f"{tmp_path}/none", 0)
    (tmp_path / "file").touch()
    with pytest.raises(SystemCallError, match="Not a directory"):
        wait_for_file(f"{tmp_path}/file/below", 1)


def test_writing_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file("longer than what follows", str(path))
    write_file("é", str(path))
    assert path.read_bytes() == "é".encode()
    with pytest.raises(SystemCallError, match=f"writing file {tmp_path}/none/file: No such file"):
        write_file("", f"{tmp_path}/none/file")


def test_mounts() -> None:
    mounts = [{"destination": "/a"}, {"source": "/b"}]
    assert mount_exists(mounts, "/a")
    assert not mount_exists(mounts, "/b")
    assert not mount_exists([], "/a")


@pytest.mark.parametrize(
    ("number", "mantissa"),
    [(1.04e10, 1.04), (-1.04e10, -1.04), (1e6, 1.0), (999999.0, 999999.0), (0.00012, 0.00012),
     (2.5e-5, 2.5), (0.0, 0.0), (98.89, 98.89), (math.inf, math.inf)],
)  # fmt: skip
def test_numbers_without_their_exponents(number: float, mantissa: float) -> None:
    assert remove_scientific_notation(number) == mantissa


def test_a_copied_map() -> None:
    source = {"a": "b"}
    copy = copy_string_map(source)
    copy["c"] = "d"
    assert source == {"a": "b"}
