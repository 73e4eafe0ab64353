# SPDX-License-Identifier: Apache-2.0
"""The container store's own errors."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from libpod.errors import Fault, LibpodError, SystemCallError


class StorageError(LibpodError):
    """Root of the container store's own errors."""


class DuplicateName(StorageError, FileExistsError):
    """Another storage container has this name; `container_id` is its ID.

    It need not be one of a runtime: `podman ps --all --external` shows them all.
    """

    fault: Fault = "job"


class DuplicateID(StorageError, FileExistsError):
    """There is a storage container with this ID."""

    fault: Fault = "job"


class NoSuchStorageContainer(StorageError, KeyError):
    """The container store has no container with this ID."""

    fault: Fault = "job"


class LayerMounted(StorageError, RuntimeError):
    """The container's layer is mounted: it cannot be removed now."""

    fault: Fault = "job"


class CorruptStorage(StorageError, ValueError):
    """A file of the store is not what containers/storage writes; nothing was changed."""


class StorageFull(SystemCallError, StorageError):
    """The file system of the store, or the user's share of it, is full."""


FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
"""What a system call says then."""


@contextmanager
def translated(doing: str, container_id: str | None = None) -> Iterator[None]:
    """Raises OSError of the block as `StorageFull` or `SystemCallError`."""
    try:
        yield
    except LibpodError:
        raise
    except OSError as error:
        path = error.filename2 or error.filename  # a link's own is the second
        at = f" ({os.fsdecode(path)})" if path else ""
        message = f"{doing}: {error.strerror or error}{at}"
        if error.errno in FULL:
            raise StorageFull(
                message,
                error.errno,
                container_id=container_id,
                remedy="make room there, then try again: nothing was lost",
            ) from error
        raise SystemCallError(message, error.errno or 0, container_id=container_id) from error
