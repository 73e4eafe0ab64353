# SPDX-License-Identifier: Apache-2.0
"""The helpers that the original exported beside its runtime, for programs that use them.

Nothing in the library does: it watches files through the kernel, and has no use for
the others.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from typing import Any

from libpod.errors import SystemCallError, WaitTimeout

POLL = 0.025
"""Seconds between two looks for a file (the original's)."""


def wait_for_file(path: str, timeout: float) -> None:
    """Returns once there is something at `path`; looks at once, then every 25 ms.

    Raises `WaitTimeout` after `timeout` seconds, `SystemCallError` where it cannot be
    told.
    """
    end = time.monotonic() + timeout
    while True:
        try:
            os.stat(path)
            return
        except FileNotFoundError:
            pass
        except OSError as error:
            raise _failed("checking file", path, error) from error
        left = end - time.monotonic()
        if left <= 0:
            raise WaitTimeout(f"timed out waiting for file {path}")
        time.sleep(min(POLL, left))


def write_file(content: str, path: str) -> None:
    """Writes text, as UTF-8, over what was at `path`; its directory must be there.

    Raises `SystemCallError`.
    """
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(content)
    except OSError as error:
        raise _failed("writing file", path, error) from error


def mount_exists(mounts: Iterable[Mapping[str, Any]], destination: str) -> bool:
    """Whether one of an OCI spec's mounts is at this destination, by its text."""
    return any(mount.get("destination") == destination for mount in mounts)


def remove_scientific_notation(number: float) -> float:
    """The mantissa of a number that is written with an exponent: 1.04 for 1.04e+10.

    With an exponent are written, as by Go's %g, numbers from 1e6 on and below 1e-4.
    """
    from decimal import Decimal

    exact = Decimal(repr(number))
    if not exact.is_finite() or not exact or -4 <= exact.adjusted() < 6:
        return number
    return float(exact.scaleb(-exact.adjusted()))


def copy_string_map(source: Mapping[str, str]) -> dict[str, str]:
    """A copy that shares nothing with `source`."""
    return dict(source)


def _failed(what: str, path: str, error: OSError) -> SystemCallError:
    return SystemCallError(f"{what} {path}: {error.strerror}", error.errno or 0)
