# SPDX-License-Identifier: Apache-2.0
"""Spans and moments as people type them: "1h30m", "2026-11-22T21:30", 1795383038.5."""

from __future__ import annotations

import re
import time

from libpod.errors import InvalidArgument

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)"


def parse_duration(text: str) -> float:
    """Seconds from Go's form of a span, "1h30m" or "250ms".  Raises `InvalidArgument`."""
    sign = -1 if text.startswith("-") else 1
    body = text[1:] if text.startswith(("+", "-")) else text
    if body == "0":
        return 0.0
    if not re.fullmatch(f"(?:{_PART})+", body, re.ASCII):
        raise InvalidArgument(f"invalid duration {text!r}", remedy='write "250ms", "5s", "1h30m"')
    return sign * sum(float(n) * _UNITS[unit] for n, unit in re.findall(_PART, body, re.ASCII))


def parse_moment(text: str) -> int:
    """Nanoseconds since the epoch from a span before now, a date or seconds since the
    epoch.  A date without a zone is local.  Raises `InvalidArgument`."""
    now = time.time_ns()
    if re.fullmatch(r"\d+(\.\d*)?", text, re.ASCII):
        whole, _, fraction = text.partition(".")
        return int(whole) * 1_000_000_000 + int(fraction[:9].ljust(9, "0"))
    try:
        return now - int(parse_duration(text) * 1e9)
    except InvalidArgument:
        pass  # then it is a date
    from datetime import datetime

    try:
        # Python 3.10 has neither "Z" nor fractions of other than 3 or 6 digits.
        zoned = re.sub(r"Z$", "+00:00", text)
        plain = re.sub(r"\.(\d+)", lambda found: "." + found[1][:6].ljust(6, "0"), zoned)
        return int(datetime.fromisoformat(plain).astimezone().timestamp() * 1e6) * 1000
    except (ValueError, OverflowError, OSError):
        raise InvalidArgument(f"failed to parse value as time or duration: {text!r}") from None
