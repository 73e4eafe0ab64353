# SPDX-License-Identifier: Apache-2.0
"""What a command prints: JSON, YAML, tables, and the useful part of podman's
templates, in one place.

A template is text in which `{{.Field}}`, `{{.Outer.Inner}}`, `{{json .Field}}`
and `{{json .}}` are replaced and `\\t` and `\\n` are tab and newline.  After the
word `table` its columns, which tabs or spaces separate, are aligned under heads.
A field is found whatever its case: podman writes `{{.Host.OCIRuntime.Name}}` for
what its JSON calls `host.ociRuntime.name`.  A value that is no text is written as
Go writes it: `[a b]`, `map[k:v]`, `true`, `<no value>`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from libpod.errors import InvalidArgument

_PADDING = 2
_MIN_WIDTH = 12
_WORKS = "what works is json, {{.Field}}, {{.Outer.Inner}}, {{json .}}, {{json .Field}}, table"

_BRACES = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_INSIDE = re.compile(r"\s*(json\s+)?\.((?:\w+(?:\.\w+)*)?)\s*", re.ASCII)
_ESCAPES = {"\\t": "\t", "\\n": "\n", "\\\\": "\\"}


def to_json(value: object, indent: int = 2) -> str:
    """Indented JSON without a newline at its end."""
    return json.dumps(value, indent=indent, ensure_ascii=False)


def table(rows: Iterable[Sequence[str]]) -> str:
    """Lines of columns as podman's: two spaces behind the widest cell, a column at least
    12 wide.  The first row is the heads."""
    cells = [[cell if cell.isprintable() else _one_line(cell) for cell in row] for row in rows]
    widths = [max(_MIN_WIDTH, max(map(len, c)) + _PADDING) for c in zip(*cells, strict=True)]
    widths[-1] = 0
    return "\n".join("".join(map(str.ljust, row, widths)) for row in cells)


def _one_line(text: str) -> str:
    """What cannot break a table, or write on a terminal what nobody meant."""
    return "".join(char if char.isprintable() else " " for char in " ".join(text.split()))


# --- templates ------------------------------------------------------------------


class _Action(NamedTuple):
    """What stands between two pairs of braces."""

    as_json: bool
    names: tuple[str, ...]

    def fill(self, row: Mapping[str, Any]) -> str:
        value: Any = row
        for name in self.names:
            value = _field(value, name)
        if self.as_json:
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=dict)
        return value if isinstance(value, str) else go_text(value)


def go_text(value: Any) -> str:
    """A decoded JSON value as Go's templates write it."""
    if isinstance(value, str):
        return value
    if value is None:
        return "<no value>"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{go_text(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(map(go_text, value)) + "]"
    return json.dumps(value)


def is_json(form: str | None) -> bool:
    """Whether a format asks for everything as JSON, as podman's listings see it."""
    return form is not None and re.fullmatch(r"json|\{\{\s*json\s*\.?\s*\}\}", form) is not None


def is_table(form: str) -> bool:
    return re.match(r"\s*table\s", form) is not None


def render(
    form: str,
    rows: Iterable[Mapping[str, Any]],
    heads: Mapping[str, str] | None = None,
    *,
    noheading: bool = False,
) -> str:
    """Each row by a template, one below the other; `heads` are those of a table's
    columns that are not the field's name in upper case.

    Raises `InvalidArgument` for what is not a template, and for a field that a row
    does not have.
    """
    if not is_table(form):
        parts = list(_parts(form))
        return "\n".join(_fill(parts, row) for row in rows)
    parts = list(_parts(re.sub(r"\s*table\s+", "", form, count=1), columns=True))
    head = "".join(part if isinstance(part, str) else _head(part, heads or {}) for part in parts)
    texts = [] if noheading else [head]
    lines = [text.split("\t") for text in (*texts, *(_fill(parts, row) for row in rows))]
    width = max(map(len, lines), default=0)
    return table([*line, *[""] * (width - len(line))] for line in lines) if lines else ""


def _fill(parts: Iterable[str | _Action], row: Mapping[str, Any]) -> str:
    return "".join(part if isinstance(part, str) else part.fill(row) for part in parts)


def _head(action: _Action, heads: Mapping[str, str]) -> str:
    name = "".join(action.names[-1:])
    return heads.get(name.casefold(), name.upper())


def _parts(template: str, *, columns: bool = False) -> Iterator[str | _Action]:
    for index, part in enumerate(_BRACES.split(template)):
        inside = _INSIDE.fullmatch(part) if index % 2 else None
        if inside is not None:
            names = inside[2].split(".") if inside[2] else []
            yield _Action(inside[1] is not None, tuple(names))
        elif index % 2 or "{{" in part or "}}" in part:
            part = "{{" + part + "}}" if index % 2 else part
            raise InvalidArgument(f"--format: cannot understand {part!r}", remedy=_WORKS)
        else:
            text = re.sub(r"\\[tn\\]", lambda found: _ESCAPES[found[0]], part)
            yield text.replace(" ", "\t") if columns else text


def _field(value: Any, name: str) -> Any:
    fields = value if isinstance(value, Mapping) else {}
    for known in fields:
        if known.casefold() == name.casefold():
            return fields[known]
    raise InvalidArgument(
        f"--format: there is no field {name!r}",
        remedy=f"there are {', '.join(fields)}" if fields else "it is not a group of fields",
    )


# --- times and sizes for people ---------------------------------------------------

_SECOND, _MINUTE, _HOUR, _DAY = 1, 60, 3600, 86400

# (below this many seconds, the word, or the seconds of one unit and its name)
_AGES: tuple[tuple[float, str | tuple[int, str]], ...] = (
    (1, "Less than a second"),
    (2, "1 second"),
    (_MINUTE, (_SECOND, "seconds")),
    (2 * _MINUTE, "About a minute"),
    (_HOUR, (_MINUTE, "minutes")),
    (1.5 * _HOUR, "About an hour"),
    (47.5 * _HOUR, (_HOUR, "hours")),
    (14 * _DAY, (_DAY, "days")),
    (60 * _DAY, (7 * _DAY, "weeks")),
    (730 * _DAY, (30 * _DAY, "months")),
)


def ago(seconds: float) -> str:
    """How long ago, in podman's words: "About an hour ago"."""
    return f"{age(seconds)} ago"


def age(seconds: float) -> str:
    """A span in podman's words: whole units, hours and what is longer by the nearest hour."""
    if seconds >= _HOUR:
        seconds = (seconds + _HOUR / 2) // _HOUR * _HOUR
    for below, words in _AGES:
        if seconds < below:
            if isinstance(words, str):
                return words
            unit, name = words
            return f"{int(seconds // unit)} {name}"
    return f"{int(seconds // (365 * _DAY))} years"


def size(number: float) -> str:
    """Bytes in podman's words, by powers of 1000 and with three digits: "533MB"."""
    units = iter(("B", "kB", "MB", "GB", "TB", "PB"))
    unit = next(units)
    while number >= 1000:
        number, unit = number / 1000, next(units)
    return f"{number:.3g}{unit}"


def go_time(moment_ns: int) -> str:
    """A moment (ns since the epoch) as Go prints it: "2026-11-22 21:29:52.88 +0000 UTC"."""
    seconds, fraction = divmod(moment_ns, 1_000_000_000)
    local = time.localtime(seconds)
    digits = f".{fraction:09}".rstrip("0").rstrip(".")
    return time.strftime("%Y-%m-%d %H:%M:%S", local) + digits + time.strftime(" %z %Z", local)


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
