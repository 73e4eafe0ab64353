# SPDX-License-Identifier: Apache-2.0
"""What a command prints: JSON, YAML, tables, and the useful part of podman's
templates, in one place.

A template is text in which `{{.Field}}`, `{{.Outer.Inner}}`, `{{json .Field}}`
and `{{json .}}` are replaced and `\\t` and `\\n` are tab and newline.  After the
word `table` its columns, which tabs separate, are aligned under upper-case heads.
A field is found whatever its case: podman writes `{{.Host.OCIRuntime.Name}}` for
what its JSON calls `host.ociRuntime.name`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from libpod.errors import InvalidArgument

_GUTTER = "  "
_WORKS = "what works is json, {{.Field}}, {{.Outer.Inner}}, {{json .}}, {{json .Field}}, table"

_BRACES = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_INSIDE = re.compile(r"\s*(json\s+)?\.((?:\w+(?:\.\w+)*)?)\s*", re.ASCII)
_ESCAPES = {"\\t": "\t", "\\n": "\n", "\\\\": "\\"}


def to_json(value: object) -> str:
    """Indented JSON without a newline at its end."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def table(rows: Iterable[Sequence[str]]) -> str:
    """Lines of columns, each as wide as its widest cell; the first row is the heads."""
    cells = [[" ".join(cell.split()) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        _GUTTER.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)


# --- templates ------------------------------------------------------------------


class _Action(NamedTuple):
    """What stands between two pairs of braces."""

    as_json: bool
    names: tuple[str, ...]

    def fill(self, row: Mapping[str, Any]) -> str:
        value: Any = row
        for name in self.names:
            value = _field(value, name)
        if isinstance(value, str) and not self.as_json:
            return value
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def render(form: str, rows: Iterable[Mapping[str, Any]]) -> str:
    """Each row by a template, one below the other.

    Raises `InvalidArgument` for what is not a template, and for a field that a row
    does not have.
    """
    word = re.match(r"\s*table\s+", form)
    parts = list(_parts(form[word.end() :] if word else form))
    texts = [
        "".join(part if isinstance(part, str) else part.fill(row) for part in parts) for row in rows
    ]
    if word is None:
        return "\n".join(texts)
    head = "".join(
        part if isinstance(part, str) else "".join(part.names[-1:]).upper() for part in parts
    )
    lines = [text.split("\t") for text in (head, *texts)]
    width = max(map(len, lines))
    return table([*line, *[""] * (width - len(line))] for line in lines)


def _parts(template: str) -> Iterator[str | _Action]:
    for index, part in enumerate(_BRACES.split(template)):
        inside = _INSIDE.fullmatch(part) if index % 2 else None
        if inside is not None:
            names = inside[2].split(".") if inside[2] else []
            yield _Action(inside[1] is not None, tuple(names))
        elif index % 2 or "{{" in part or "}}" in part:
            part = "{{" + part + "}}" if index % 2 else part
            raise InvalidArgument(f"--format: cannot understand {part!r}", remedy=_WORKS)
        else:
            yield re.sub(r"\\[tn\\]", lambda found: _ESCAPES[found[0]], part)


def _field(value: Any, name: str) -> Any:
    fields = value if isinstance(value, Mapping) else {}
    for known in fields:
        if known.casefold() == name.casefold():
            return fields[known]
    raise InvalidArgument(
        f"--format: there is no field {name!r}",
        remedy=f"there are {', '.join(fields)}" if fields else "it is not a group of fields",
    )


# --- YAML -----------------------------------------------------------------------

# Text that every reader of YAML takes for itself, without quotes: numbers and dates
# begin otherwise, and the words with a meaning are listed.
_PLAIN = re.compile(r"[A-Za-z_/(][ -\"$-9;-~]*(?<! )", re.ASCII)
_WORDS = frozenset("true false yes no on off y n null".split())
_BLOCK = re.compile(r"[!-~][ -~\n]*[!-~]", re.ASCII)


def to_yaml(value: Mapping[str, Any]) -> str:
    """Block YAML of mappings, lists and scalars, without a newline at its end."""
    return "\n".join(_yaml_lines(value))


def _yaml_lines(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _yaml_entry(f"{_yaml_text(key)}:", inner)
    else:
        for inner in value:
            yield from _yaml_entry("-", inner)


def _yaml_entry(lead: str, value: Any) -> Iterator[str]:
    if isinstance(value, str) and "\n" in value and _BLOCK.fullmatch(value):
        yield f"{lead} |-"
        yield from (f"  {line}" for line in value.split("\n"))
    elif isinstance(value, (Mapping, list, tuple)) and value:
        yield lead
        yield from (f"  {line}" for line in _yaml_lines(value))
    else:
        yield f"{lead} {_yaml_text(value) if isinstance(value, str) else json.dumps(value)}"


def _yaml_text(text: str) -> str:
    """As it is where that is safe, else in quotes: JSON's strings are YAML's."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return json.dumps(text)
