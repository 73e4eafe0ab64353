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

    @classmethod
    def at(
        cls, path: str | None, bucket: str, key: str, complaint: str, **context: Any
    ) -> BadRecord:
        """The error about the record in this place."""
        message = f"{path or 'memory'}: bucket {bucket}, key {key}: {complaint}"
        return cls(message, path=path, bucket=bucket, key=key, **context)
