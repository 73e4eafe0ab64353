# SPDX-License-Identifier: Apache-2.0
"""Containers and layers on disk, in containers/storage's own form.

What `Store` writes is read, changed and removed by podman 4.3.1 on the same
directories, and the other way round, both at the same time.
"""

from libpod.storage.errors import (
    CorruptStorage,
    DuplicateID,
    DuplicateName,
    LayerMounted,
    NoSuchStorageContainer,
    StorageError,
    StorageFull,
)
from libpod.storage.records import Layer, StorageContainer
from libpod.storage.store import Store
from libpod.storage.unowned import Unowned, UnownedKind

__all__ = [
    "CorruptStorage",
    "DuplicateID",
    "DuplicateName",
    "Layer",
    "LayerMounted",
    "NoSuchStorageContainer",
    "StorageContainer",
    "StorageError",
    "StorageFull",
    "Store",
    "Unowned",
    "UnownedKind",
]
