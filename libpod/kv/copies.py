# SPDX-License-Identifier: Apache-2.0
"""Copies of a database: made under another name, synced, moved into place."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from libpod.kv.errors import AlreadyOpen

if TYPE_CHECKING:
    from libpod.kv import Database


def _refuse_itself(db: Database, path: str) -> None:
    if os.path.exists(path) and os.path.samefile(path, db.path):
        raise AlreadyOpen(
            f"{path}: a database cannot be copied onto itself",
            path=path,
            remedy="copy it to another path",
        )


def _place(temporary: str, path: str) -> None:
    """Moves the synced file to its name and makes the name durable."""
    os.replace(temporary, path)
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _temporary(path: str) -> str:
    return f"{path}.{os.urandom(8).hex()}.new"


def backup(db: Database, target: str | os.PathLike[str]) -> None:
    path = os.path.abspath(os.fspath(target))
    _refuse_itself(db, path)
    temporary = _temporary(path)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            db._backup(fd)
        finally:
            os.close(fd)
        _place(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def compact(db: Database, target: str | os.PathLike[str], tx_bytes: int) -> None:
    from libpod.kv import Database

    path = os.path.abspath(os.fspath(target))
    _refuse_itself(db, path)
    temporary = _temporary(path)
    page_size = db.stats()["page_size"] or 0
    if page_size < 1024 or page_size & (page_size - 1):
        page_size = 0  # no size that a new file may have: take the system's
    try:
        with Database(temporary, sync=False, page_size=page_size) as into:
            db._compact(into, tx_bytes)
        fd = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        _place(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
