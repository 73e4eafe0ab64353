# SPDX-License-Identifier: Apache-2.0
"""A container taken apart: what all sections of `inspect` begin with."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from libpod.state.fields import decode_object
from libpod.state.handles import ContainerRecord
from libpod.state.records import ContainerConfig, ContainerState

log = logging.getLogger("libpod.inspect")

_ANNOTATION = "io.podman.annotations."


class Seen(NamedTuple):
    """A container, taken apart once for all sections."""

    record: ContainerRecord
    config: ContainerConfig
    state: ContainerState
    spec: Mapping[str, Any]
    process: Mapping[str, Any]
    linux: Mapping[str, Any]
    annotations: Mapping[str, str]
    namespaces: Mapping[str, str]
    """Kind to path, "" for one of its own."""

    def annotation(self, name: str) -> str:
        """What podman noted under this name when it created the container."""
        return self.annotations.get(_ANNOTATION + name, "")

    def noted(self, name: str) -> bool:
        return self.annotation(name) == "TRUE"


def take_apart(record: ContainerRecord) -> Seen:
    spec = current_spec(record)
    linux = spec.get("linux") or {}
    return Seen(
        record,
        record.config,
        record.state,
        spec,
        spec.get("process") or {},
        linux,
        spec.get("annotations") or {},
        {ns["type"]: ns.get("path", "") for ns in linux.get("namespaces") or ()},
    )


def current_spec(record: ContainerRecord) -> dict[str, Any]:
    """The spec that the container's OCI runtime was last given, else that of its
    record; without what is not shown.

    Raises `BadRecord`, ValueError.
    """
    path = record.state.config_path
    if path:
        try:
            with open(path, "rb") as file:
                return _decode_spec(file.read(), _NOT_SHOWN)
        except FileNotFoundError:
            log.debug("%s is gone, the record's spec is shown", path)
        except (OSError, ValueError) as error:
            log.warning("the record's spec is shown instead of %s: %s", path, error)
    config = record.config
    return _decode_spec(config.spec_json, _NOT_SHOWN if config.user_volumes else _PLAIN)


_NOT_SHOWN = (b'"seccomp":{', b'"maskedPaths":[', b'"readonlyPaths":[')
_PLAIN = (*_NOT_SHOWN, b'"mounts":[')
"""Of a container without mounts of its own."""

_known = dict.fromkeys(_PLAIN, b"?")
"""The text behind each mark that was seen last.  Threads may each put theirs here."""


def _decode_spec(raw: bytes, unwanted: Iterable[bytes]) -> dict[str, Any]:
    """The spec in `raw`, with null for the members that are not wanted.

    A mark cannot stand inside a string, where its quotes would be escaped, nor at
    an annotation, whose value is a string; and what begins with the whole text of
    an object or a list ends where that ends.
    """
    for mark in unwanted:
        start = raw.find(mark) + len(mark) - 1
        if start < len(mark) - 1:
            continue
        known = _known[mark]
        if not raw.startswith(known, start):
            known = _known[mark] = _first_value(raw[start:])
        raw = b"null".join((raw[:start], raw[start + len(known) :]))
    return decode_object(raw)


def _first_value(raw: bytes) -> bytes:
    """The text of the JSON value with which `raw` begins.  Raises ValueError."""
    text = raw.decode()
    try:
        _, length = json.JSONDecoder().raw_decode(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return text[:length].encode()
