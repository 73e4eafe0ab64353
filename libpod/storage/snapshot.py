# SPDX-License-Identifier: Apache-2.0
"""One version of a table: the text of an array of records, and what is in them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from libpod.storage.errors import CorruptStorage

Members = dict[str, Any]

_START = '{"id":"'
"""How a record begins in what containers/storage writes."""
_BETWEEN = re.compile(r"[ \t\r\n,]*")

_decoder = json.JSONDecoder()
# Text beyond ASCII is escaped, so that what has no UTF-8 form can be written, too.
_encode = json.JSONEncoder(separators=(",", ":")).encode


class Snapshot(NamedTuple):
    """One version of a table.  It is never changed, so threads share it.

    Attributes:
        texts: of each of the table's files, its records' JSON by ID, in their order.
        records: the same records decoded; of one ID that of the first file.
        names: ID by name.
        used: how often a layer is referred to, by its ID.
        incomplete: IDs of the records that a crash left half made or half removed.
    """

    texts: list[dict[str, bytes]]
    records: dict[str, Members]
    names: dict[str, str]
    used: Counter[str]
    incomplete: set[str]

    @classmethod
    def of(cls, files: Iterable[tuple[str, bytes]]) -> Snapshot:
        """What is in the table's files: path and content of each.

        Raises `CorruptStorage` where one is not an array of records.
        """
        new = cls([], {}, {}, Counter(), set())
        for path, text in files:
            texts, records = _parse(path, text)
            new.texts.append(texts)
            for key, record in records.items():
                if key not in new.records:
                    new._add(record)
        return new

    def differing(self, other: Snapshot) -> list[int]:
        """The files that are not the same in both, of which one was made from the other."""
        return [at for at, texts in enumerate(self.texts) if texts is not other.texts[at]]

    def encoded(self, at: int) -> bytes:
        """The content of a file."""
        texts = [*self.texts[at].values()] or [b""]
        texts[0] = b"[" + texts[0]
        texts[-1] += b"]"
        return b",".join(texts)  # the only copy of it all

    def put(self, *changed: Members, at: int = 0) -> Snapshot:
        """The version with these records, in the place of older ones or new in one file."""
        new = self._copy()
        for record in changed:
            key = record["id"]
            new._drop(key)
            new._add(record)
            home = next((n for n, texts in enumerate(new.texts) if key in texts), at)
            new.texts[home] = {**new.texts[home], key: _encode(record).encode()}
        return new

    def without(self, keys: Iterable[str]) -> Snapshot:
        new = self._copy()
        for key in keys:
            new._drop(key)
            for at, texts in enumerate(new.texts):
                if key in texts:
                    new.texts[at] = {other: texts[other] for other in texts if other != key}
        return new

    def _copy(self) -> Snapshot:
        return Snapshot(
            self.texts.copy(),
            self.records.copy(),
            self.names.copy(),
            self.used.copy(),
            self.incomplete.copy(),
        )

    def _add(self, record: Members) -> None:
        key = record["id"]
        self.records[key] = record
        self.names.update(dict.fromkeys(record.get("names") or (), key))
        for layer in _layers_of(record):
            self.used[layer] += 1
        if (record.get("flags") or {}).get("incomplete"):
            self.incomplete.add(key)

    def _drop(self, key: str) -> None:
        """All of a record but its text, whose place another one may take."""
        record = self.records.pop(key, None)
        if record is None:
            return
        for name in record.get("names") or ():
            if self.names.get(name) == key:
                del self.names[name]
        for layer in _layers_of(record):
            self.used[layer] -= 1
            if not self.used[layer]:
                del self.used[layer]
        self.incomplete.discard(key)


def _layers_of(record: Members) -> Iterator[str]:
    """The layers that a container, an image, or a layer on top of another one needs."""
    for layer in (record.get("layer"), record.get("parent"), *(record.get("mapped-layers") or ())):
        if type(layer) is str and layer:
            yield layer


# --- the text ------------------------------------------------------------------------


def find(content: bytes, key: str) -> Members | None:
    """A file's record as Go writes it, without decoding the others; None if it is not found so.

    A quotation mark inside a JSON string is escaped, so what is found is no string.
    """
    text = content.decode(errors="surrogateescape")
    at = text.find(f'{_START}{key}"')
    if at < 1 or text[at - 1] not in "[,":
        return None
    try:
        record = _decoder.raw_decode(text, at)[0]
        return record if _checked(record) == key else None
    except (ValueError, RecursionError):  # let the reading of the whole say what is wrong
        return None


def _parse(path: str, content: bytes) -> tuple[dict[str, bytes], dict[str, Members]]:
    try:
        return _split(content.decode(errors="surrogateescape"))
    except (ValueError, RecursionError) as error:
        why = str(error) if type(error) is ValueError else f"it is not valid JSON ({error})"
        raise CorruptStorage(
            f"{path}: {why}",
            remedy="restore the file from a backup, or have podman check the store",
        ) from error


def _split(text: str) -> tuple[dict[str, bytes], dict[str, Members]]:
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
    pieces = (piece.encode(errors="surrogateescape") for piece in _pieces(text, list(records)))
    return dict(zip(records, pieces, strict=True)), records


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
    if type(record.get("mapped-layers") or []) is not list:
        raise ValueError(f"the mapped layers of {key} are not a list")
    return key
