# SPDX-License-Identifier: Apache-2.0
"""The state's own errors."""

from __future__ import annotations

from typing import Any

from libpod.errors import LibpodError


class BadRecord(LibpodError, ValueError):
    """A record is not what podman and this library can read.

    Raised when it is read, and before it is written: one malformed record ends
    `podman ps` for a whole host.

    Attributes:
        path: the database file, or None for a state in memory.
        bucket: the bucket's name, with those above it ("ctr/<ID>").
        key: the record's key in it ("config", "state").
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        bucket: str | None = None,
        key: str | None = None,
        **context: Any,
    ) -> None:
        super().__init__(message, **context)
        self.path = path
        self.bucket = bucket
        self.key = key
