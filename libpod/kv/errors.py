# SPDX-License-Identifier: Apache-2.0
"""The store's errors: bbolt's set, one class per cause."""

from __future__ import annotations

from typing import Any

from libpod.errors import Closed, Fault, LibpodError


class StoreError(LibpodError):
    """Root of the store's own errors.

    Attributes:
        path: the database file.
    """

    def __init__(self, message: str, *, path: str | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.path = path


class InvalidDatabase(StoreError, ValueError):
    """The file is no database of this format (bbolt: "invalid database").

    Attributes:
        page: the page at fault, or None where none is known.
        reason: what is wrong with it.
    """

    def __init__(
        self,
        message: str,
        *,
        page: int | None = None,
        reason: str | None = None,
        **context: Any,
    ) -> None:
        super().__init__(message, **context)
        self.page = page
        self.reason = reason


class VersionMismatch(InvalidDatabase):
    """The file has another version of the format (bbolt: "version mismatch")."""


class ChecksumError(InvalidDatabase):
    """Both meta pages are damaged (bbolt: "checksum error")."""


class CorruptDatabase(InvalidDatabase):
    """A page contradicts the format; bbolt panics there."""


class DatabaseReplaced(StoreError, FileNotFoundError):
    """The file was removed, replaced or truncated while it was open."""


class DatabaseNotOpen(StoreError, Closed):
    """The database was closed (bbolt: "database not open")."""

    fault: Fault = "job"


class DatabaseReadOnly(StoreError, PermissionError):
    """A write on a database that is open read-only (bbolt: "database is in read-only mode")."""

    fault: Fault = "job"


class DatabaseBusy(StoreError, RuntimeError):
    """Another thread is inside the database: it cannot be closed now."""

    fault: Fault = "job"
    retryable = True


class AlreadyOpen(StoreError, RuntimeError):
    """This process has the file open already; two handles could wait for one another."""

    fault: Fault = "job"


class TransactionClosed(StoreError, Closed):
    """The transaction has ended (bbolt: "tx closed")."""

    fault: Fault = "job"


class TransactionNotWritable(StoreError, PermissionError):
    """A write in a read transaction (bbolt: "tx not writable")."""

    fault: Fault = "job"


class WouldDeadlock(StoreError, RuntimeError):
    """This thread has a transaction open that the new one would wait for."""

    fault: Fault = "job"


class BucketNotFound(StoreError, KeyError):
    """No bucket has this name (bbolt: "bucket not found")."""

    fault: Fault = "job"


class BucketExists(StoreError, FileExistsError):
    """The bucket exists (bbolt: "bucket already exists")."""

    fault: Fault = "job"


class BucketNameRequired(StoreError, ValueError):
    """A bucket's name is empty (bbolt: "bucket name required")."""

    fault: Fault = "job"


class KeyRequired(StoreError, ValueError):
    """The key is empty (bbolt: "key required")."""

    fault: Fault = "job"


class KeyTooLarge(StoreError, ValueError):
    """The key is longer than 32768 bytes (bbolt: "key too large")."""

    fault: Fault = "job"


class ValueTooLarge(StoreError, ValueError):
    """The value is longer than 2147483646 bytes (bbolt: "value too large")."""

    fault: Fault = "job"


class IncompatibleValue(StoreError, TypeError):
    """A bucket where a pair was meant, or the reverse (bbolt: "incompatible value")."""

    fault: Fault = "job"


class MaxSizeReached(StoreError, OSError):
    """The commit would pass the maximum size (bbolt: "database reached maximum size")."""

    fault: Fault = "config"


class CommitInDoubt(StoreError, OSError):
    """The commit may or may not be durable: a reader sees it or its predecessor.

    The handle refuses further writes; open the database again and look.
    """

    def __init__(self, message: str, errno: int = 0, **context: Any) -> None:
        super().__init__(message, **context)
        self.errno = errno


class WritesRefused(StoreError, RuntimeError):
    """A sync failed earlier on this handle: it writes no more until it is opened again."""


class ViewUnavailable(StoreError, TypeError):
    """Views exist in lock mode "session" only: elsewhere they would block every writer."""

    fault: Fault = "job"
