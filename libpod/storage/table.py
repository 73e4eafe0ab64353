# SPDX-License-Identifier: Apache-2.0
"""A JSON file of containers/storage with its lock file: an array of records.

The protocol is containers/storage's.  Whoever changes the file holds the lock
exclusively, reads the file again once it has the lock, writes a new one beside
it, renames that into place, and writes a fresh token of 64 bytes into the lock
file, by which long-lived processes see that they must read again.

1. A file that was renamed into place is never written to again: what is read
   without the lock is one version, whole.
2. A `Snapshot` is never changed, so threads share it.
3. What we keep of a record of others is its text: it is written back byte by byte.
4. A kept snapshot holds while the token and the file's identity are the same.  A
   new version is made while the old file is there, so it has another inode; one
   that has the inode of the version before the last has another token.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from libpod.failpoint import reach
from libpod.lockfile import RecordLock
from libpod.storage.errors import CorruptStorage

log = logging.getLogger("libpod.storage")

Members = dict[str, Any]

TOKEN_BYTES = 64
_LOCK_MODE = 0o644  # the original's; no more than the directory's 0700 lets anybody in
_START = '{"id":"'
"""How a record begins in what containers/storage writes."""
_BETWEEN = re.compile(r"[ \t\r\n,]*")

_decoder = json.JSONDecoder()
# Text beyond ASCII is escaped, so that what has no UTF-8 form can be written, too.
_encode = json.JSONEncoder(separators=(",", ":")).encode

# Part of a token, as in containers/storage: no two of a process are the same.
_writes = itertools.count(1)


class Snapshot(NamedTuple):
    """One version of a table.

    Attributes:
        texts: a record's JSON by its ID, in the file's order.
        records: the same records decoded, and those of the volatile file.
        names: ID by name.
        incomplete: IDs of the records that a crash left half made or half removed.
    """

    texts: dict[str, str]
    records: dict[str, Members]
    names: dict[str, str]
    incomplete: frozenset[str]

    def is_volatile(self, key: str) -> bool:
        """Whether the record is in the volatile file, which newer versions write."""
        return key in self.records and key not in self.texts

    def put(self, *changed: Members) -> Snapshot:
        """The version with these records, new or in the place of older ones."""
        texts, records, names = dict(self.texts), dict(self.records), dict(self.names)
        for record in changed:
            key = record["id"]
            _drop_names(names, records.get(key))
            texts[key] = _encode(record)
            records[key] = record
            names.update(dict.fromkeys(record.get("names") or (), key))
        keys = {record["id"] for record in changed}
        incomplete = self.incomplete - keys | {r["id"] for r in changed if _is_incomplete(r)}
        return Snapshot(texts, records, names, incomplete)

    def without(self, keys: Iterable[str]) -> Snapshot:
        texts, records, names = dict(self.texts), dict(self.records), dict(self.names)
        for key in keys:
            _drop_names(names, records.pop(key, None))
            texts.pop(key, None)
        return Snapshot(texts, records, names, self.incomplete.intersection(records))


def _drop_names(names: dict[str, str], record: Members | None) -> None:
    if record is not None:
        for name in record.get("names") or ():
            if names.get(name) == record["id"]:
                del names[name]


def _is_incomplete(record: Members) -> bool:
    flags = record.get("flags")
    return bool(flags and flags.get("incomplete"))


def _snapshot(texts: dict[str, str], records: dict[str, Members]) -> Snapshot:
    names = {name: key for key, record in records.items() for name in record.get("names") or ()}
    incomplete = frozenset(key for key, record in records.items() if _is_incomplete(record))
    return Snapshot(texts, records, names, incomplete)


class Table:
    """The file `stem`.json in a directory, the volatile files beside it, and its lock."""

    __slots__ = ("_asked", "_kept", "directory", "lock_path", "path", "stem", "volatile_paths")

    def __init__(self, directory: str, stem: str, volatile_dirs: Iterable[str] = ()) -> None:
        """Args:
        directory: where the file and its lock are.
        stem: the file's name without its ending.
        volatile_dirs: where newer versions keep what need not outlive a boot.
        """
        self.directory = directory
        self.stem = stem
        self.path = f"{directory}/{stem}.json"
        self.lock_path = f"{directory}/{stem}.lock"
        self.volatile_paths = tuple(f"{place}/volatile-{stem}.json" for place in volatile_dirs)
        self._kept: tuple[object, Snapshot] | None = None
        self._asked: object = None

    @property
    def prepared_path(self) -> str:
        """Where a version is written before it comes into force."""
        return f"{self.directory}/.tmp-{self.stem}.json-libpod"

    def lock(self) -> RecordLock:
        return RecordLock(self.lock_path, _LOCK_MODE)

    def read(self) -> Snapshot:
        """The last version; whoever holds the lock has the last for as long as it does.

        Raises:
            CorruptStorage: the file is not an array of records.
            OSError: it cannot be read.
        """
        identity = self._identity()
        kept = self._kept
        if kept is not None and kept[0] == identity:
            return kept[1]
        texts, records = _parse(self.path)
        for path in self.volatile_paths:
            for key, record in _parse(path)[1].items():
                records.setdefault(key, record)
        snapshot = _snapshot(texts, records)
        self._kept = identity, snapshot
        return snapshot

    def find(self, key: str) -> Members | None:
        """One record of the last version, or None.  Raises as `read()`.

        The first time that a version is asked, the others are not decoded.
        """
        identity = self._identity()
        kept = self._kept
        if self._asked != identity and (kept is None or kept[0] != identity):
            self._asked = identity
            record = _find(self.path, key)
            if record is not None:
                return record
        return self.read().records.get(key)

    def _identity(self) -> object:
        # The token first: a snapshot that is newer than its identity is only read again.
        paths = (self.path, *self.volatile_paths)
        return self._token(), [_file_identity(path) for path in paths]

    def _token(self) -> bytes:
        try:
            fd = os.open(self.lock_path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return b""
        try:
            return os.pread(fd, TOKEN_BYTES, 0)
        finally:
            os.close(fd)

    def prepare(self, snapshot: Snapshot) -> Prepared:
        """Writes a version beside the file, durable but not yet in force.

        The caller holds the lock exclusively.  Raises OSError.
        """
        return Prepared(self, snapshot)

    def replace(self, snapshot: Snapshot) -> None:
        """Puts a version in force; its rename is durable after `sync()`."""
        try:
            self.prepare(snapshot).commit()
        finally:
            self.drop()

    def drop(self) -> None:
        """Removes a version that was prepared, if there is one.  Under the lock."""
        _unlink(self.prepared_path)

    def sync(self) -> None:
        """Makes the names in the directory durable."""
        fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def temporaries(self) -> list[str]:
        """Versions that never came into force; to be called under the lock."""
        start = f".tmp-{self.stem}.json"  # podman's own end in a number
        return [
            os.path.join(self.directory, name)
            for name in _listed(self.directory)
            if name.startswith(start)
        ]


class Prepared:
    """A version of a table that waits to be put in force, or dropped by its table."""

    __slots__ = ("_path", "_snapshot", "_table")

    def __init__(self, table: Table, snapshot: Snapshot) -> None:
        self._table = table
        self._snapshot = snapshot
        # One name is enough under the lock, and what a crash leaves is overwritten.
        self._path = table.prepared_path
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = -1
        try:
            fd = os.open(self._path, flags, 0o600)
            text = f"[{','.join(snapshot.texts.values())}]"
            _write_all(fd, text.encode(errors="surrogateescape"))
            reach(f"storage.{table.stem}.written")
            os.fdatasync(fd)
        except BaseException as error:
            if isinstance(error, OSError):
                error.filename = self._path  # which a failed write does not tell
            table.drop()
            raise
        finally:
            if fd >= 0:
                os.close(fd)

    def commit(self) -> None:
        table = self._table
        reach(f"storage.{table.stem}.prepared")
        os.rename(self._path, table.path)
        reach(f"storage.{table.stem}.renamed")
        token = _new_token()
        fd = os.open(table.lock_path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.pwrite(fd, token, 0)
        finally:
            os.close(fd)
        table._kept = table._identity(), self._snapshot
        reach(f"storage.{table.stem}.touched")


# --- the text ------------------------------------------------------------------------


def _parse(path: str) -> tuple[dict[str, str], dict[str, Members]]:
    try:
        text = _text(path)
    except FileNotFoundError:
        return {}, {}
    try:
        return _split(text)
    except (ValueError, RecursionError) as error:
        why = str(error) if type(error) is ValueError else f"it is not valid JSON ({error})"
        raise CorruptStorage(
            f"{path}: {why}",
            remedy="restore the file from a backup, or have podman check the store",
        ) from error


def _split(text: str) -> tuple[dict[str, str], dict[str, Members]]:
    """The records of a JSON array, as text and decoded.  An empty file has none.

    Raises ValueError.
    """
    values = _decoder.decode(text) if text.strip() else None
    if values is None:
        return {}, {}
    if type(values) is not list:
        raise ValueError("it is not an array")
    records = {_checked(value): value for value in values}
    if len(records) != len(values):
        raise ValueError("two records have one ID")
    return dict(zip(records, _pieces(text, list(records)), strict=True)), records


def _pieces(text: str, keys: list[str]) -> list[str]:
    """The text of each element of a valid array of records with these IDs."""
    body = text.strip()[1:-1]
    pieces = body.split(f",{_START}")
    if len(pieces) == len(keys) and pieces[0].startswith(_START):  # as Go writes them
        pieces[1:] = [_START + piece for piece in pieces[1:]]
        # An object inside another one may begin so, too: then a brace is open.
        if all(
            piece.startswith(f'{_START}{key}"') and piece.count("{") == piece.count("}")
            for piece, key in zip(pieces, keys, strict=True)
        ):
            return pieces
    pieces, at = [], 0
    for _ in keys:
        at = _BETWEEN.match(body, at).end()  # type: ignore[union-attr]  # it matches always
        end = _decoder.raw_decode(body, at)[1]
        pieces.append(body[at:end])
        at = end
    return pieces


def _find(path: str, key: str) -> Members | None:
    """The record as Go writes it, without decoding the others; None if it is not found so.

    A quotation mark inside a JSON string is escaped, so what is found is no string.
    """
    try:
        text = _text(path)
    except FileNotFoundError:
        return None
    at = text.find(f'{_START}{key}"')
    if at < 1 or text[at - 1] not in "[,":
        return None
    try:
        record = _decoder.raw_decode(text, at)[0]
        return record if _checked(record) == key else None
    except (ValueError, RecursionError):  # let the reading of the whole say what is wrong
        return None


def _checked(record: Any) -> str:
    """The ID of a record that has the form that the rest of the store relies on."""
    if type(record) is not dict:
        raise ValueError("it has an element that is not an object")
    key = record.get("id")
    names = record.get("names")
    if type(key) is not str or not key:
        raise ValueError("a record has no ID")
    if names is not None and (type(names) is not list or any(type(n) is not str for n in names)):
        raise ValueError(f"the names of {key} are not a list of words")
    if type(record.get("flags") or {}) is not dict:
        raise ValueError(f"the flags of {key} are not an object")
    return key


def _new_token() -> bytes:
    """64 bytes that nobody wrote before: time, count, pid, chance (all little endian)."""
    told = (
        time.time_ns().to_bytes(8, "little")
        + next(_writes).to_bytes(8, "little")
        + os.getpid().to_bytes(4, "little")
    )
    return told + os.urandom(TOKEN_BYTES - len(told))


def _text(path: str) -> str:
    with open(path, "rb") as file:
        return file.read().decode(errors="surrogateescape")


# --- files ---------------------------------------------------------------------------


def _file_identity(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
