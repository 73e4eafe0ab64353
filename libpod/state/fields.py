# SPDX-License-Identifier: Apache-2.0
"""Typed members over a JSON object, in Go's forms.

A `Record` keeps the decoded object as it was read, so that members nobody
here knows survive a write, and gives its known members types, names and
defaults by a table of `Field`s.  As Go writes it: a member is either always
there or omitted when it is empty, `null` is the same as absent, and times are
RFC 3339 with nanoseconds, the zero time being 0001-01-01T00:00:00Z.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, TypeVar, overload

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

ZERO_TIME = "0001-01-01T00:00:00Z"
"""Go's zero time: never."""

_TIME = re.compile(
    r"(?!0000)(\d{4})-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
    r"T([01]\d|2[0-3]):([0-5]\d):([0-5]\d|60)(?:\.(\d{1,9}))?"
    r"(?:Z|([+-])([01]\d|2[0-3]):([0-5]\d))",
    re.ASCII,
)
_EPOCH_DAY = 719_163
"""The proleptic Gregorian ordinal of 1970-01-01."""
_SECOND = 1_000_000_000


def parse_time(text: str) -> int | None:
    """Nanoseconds since the epoch of an RFC 3339 time; None for Go's zero time.

    Raises ValueError.
    """
    from datetime import date  # costs an import of this package 3 ms; not all read a record

    if text == ZERO_TIME:
        return None
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an RFC 3339 time")
    year, month, day, hour, minute, second = map(int, match.group(1, 2, 3, 4, 5, 6))
    fraction, sign, offset_hours, offset_minutes = match.group(7, 8, 9, 10)
    days = date(year, month, 1).toordinal() + day - 1 - _EPOCH_DAY
    seconds = days * 86400 + hour * 3600 + minute * 60 + second
    if sign:
        offset = int(offset_hours) * 3600 + int(offset_minutes) * 60
        seconds -= offset if sign == "+" else -offset
    return seconds * _SECOND + int((fraction or "0").ljust(9, "0"))


def format_time(nanoseconds: int | None) -> str:
    """The RFC 3339 form in UTC of nanoseconds since the epoch, as Go writes it."""
    if nanoseconds is None:
        return ZERO_TIME
    seconds, fraction = divmod(nanoseconds, _SECOND)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{text}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)
# Text beyond ASCII is escaped: what has no UTF-8 form, as an argument with stray
# bytes, can then be written, too.
_encoder = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def decode_object(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`.  Raises ValueError."""
    text = raw.decode()
    try:
        value, end = _decoder.raw_decode(text) if text[:1] == "{" else (None, 0)
        if end != len(text):  # with white space around it, or wrong
            value = _decoder.decode(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if type(value) is not dict:
        raise ValueError("it is not a JSON object")
    return value


def encode_json(value: Any) -> bytes:
    """Compact JSON.  Raises ValueError where there is no JSON for it."""
    try:
        return _encoder.encode(value).encode()
    except (TypeError, RecursionError) as error:
        raise ValueError(f"it has no JSON form: {error}") from error


class Field(Generic[T]):
    """A member of a record.

    `empty` makes the value that stands for "not there".  Where `always`, JSON's
    `nothing` is written for it: Go writes null for a list or table never made.
    """

    __slots__ = ("always", "check", "empty", "json_name", "kind", "nothing", "zero")

    def __init__(
        self,
        json_name: str,
        kind: type,
        empty: Callable[[], T],
        always: bool,
        check: Callable[[Any], bool] | None = None,
    ) -> None:
        self.json_name = json_name
        self.kind = kind
        self.empty = empty
        self.always = always
        self.check = check
        made = empty()
        self.zero = made
        self.nothing: Any = None if made in ([], {}) else self.dump(made)

    @overload
    def __get__(self, record: None, owner: type[Record]) -> Self: ...
    @overload
    def __get__(self, record: Record, owner: type[Record]) -> T: ...
    def __get__(self, record: Record | None, owner: type[Record]) -> Self | T:
        if record is None:
            return self
        value = record.values.get(self.json_name)
        return self.zero if value is None else value

    def __set__(self, record: Record, value: T) -> None:
        if record.frozen:
            raise AttributeError(f"{type(record).__name__} does not change: derive with but()")
        record.values[self.json_name] = self.dump(value)

    def dump(self, value: T) -> Any:
        """From the member's value to JSON's."""
        return value


class Collection(Field[T]):
    """A member that can be changed in place: it stays with its record once it was read."""

    __slots__ = ()

    @overload
    def __get__(self, record: None, owner: type[Record]) -> Self: ...
    @overload
    def __get__(self, record: Record, owner: type[Record]) -> T: ...
    def __get__(self, record: Record | None, owner: type[Record]) -> Self | T:
        if record is None:
            return self
        value = record.values.get(self.json_name)
        if value is None:
            value = self.empty()
            if not record.frozen:
                record.values[self.json_name] = value
        loaded: T = value
        return loaded

    def dump(self, value: T) -> Any:
        """A copy: what the caller does with his own is his matter."""
        return value.copy() if isinstance(value, (list, dict)) else value


class Converted(Field[T]):
    """A member whose value is not JSON's."""

    __slots__ = ()

    @overload
    def __get__(self, record: None, owner: type[Record]) -> Self: ...
    @overload
    def __get__(self, record: Record, owner: type[Record]) -> T: ...
    def __get__(self, record: Record | None, owner: type[Record]) -> Self | T:
        if record is None:
            return self
        value = record.values.get(self.json_name)
        return self.zero if value is None else self.load(value)

    def load(self, value: Any) -> T:
        """From JSON's value to the member's."""
        raise NotImplementedError


class TimeField(Converted["int | None"]):
    """A time: nanoseconds since the epoch, None for never."""

    __slots__ = ()

    def load(self, value: Any) -> int | None:
        return parse_time(value)

    def dump(self, value: int | None) -> str:
        return format_time(value)

    def written(self, record: Record) -> str:
        """As it is in the record, with the offset that whoever wrote it chose."""
        return record.values.get(self.json_name) or ZERO_TIME


def _in_range(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: low <= value <= high


_STRINGS = {str}


def _is_words(value: Any) -> bool:
    return set(map(type, value)) <= _STRINGS


def _is_table(value: Any) -> bool:
    return set(map(type, value.values())) <= _STRINGS


def _is_time(value: Any) -> bool:
    return value == ZERO_TIME or _TIME.fullmatch(value) is not None


INT32 = _in_range(-(1 << 31), (1 << 31) - 1)
INT64 = _in_range(-(1 << 63), (1 << 63) - 1)
UINT32 = _in_range(0, (1 << 32) - 1)
UINT64 = _in_range(0, (1 << 64) - 1)


def text(name: str, *, always: bool = False) -> Field[str]:
    return Field(name, str, str, always)


def flag(name: str, *, always: bool = False) -> Field[bool]:
    return Field(name, bool, bool, always)


def number(name: str, check: Callable[[Any], bool] = INT64, *, always: bool = False) -> Field[int]:
    return Field(name, int, int, always, check)


def words(name: str, *, always: bool = False) -> Collection[list[str]]:
    return Collection(name, list, list, always, _is_words)


def table(name: str, *, always: bool = False) -> Collection[dict[str, str]]:
    return Collection(name, dict, dict, always, _is_table)


def objects(name: str, *, always: bool = False) -> Collection[list[dict[str, Any]]]:
    return Collection(name, list, list, always)


def tree(name: str, *, always: bool = False) -> Collection[dict[str, Any]]:
    return Collection(name, dict, dict, always)


def never_null(field: Collection[T]) -> Collection[T]:
    """A list or table that Go always makes."""
    field.nothing = field.empty()
    return field


def moment(name: str) -> TimeField:
    return TimeField(name, str, lambda: None, True, _is_time)


_OMITTED = object()


class Record:
    """A JSON object with typed members; see the module.

    `values` is the object itself, by JSON names, and belongs to this package; `origin`
    the text that it was read from, if any, whose unknown members it has.
    """

    __slots__ = ("origin", "values")

    frozen: ClassVar[bool] = False
    fields: ClassVar[dict[str, Field[Any]]]
    """By JSON name, in the order in which they are written."""
    names: ClassVar[dict[str, Field[Any]]]
    """By attribute."""
    _forms: ClassVar[dict[str, tuple[type, Callable[[Any], bool] | None]]]
    _written: ClassVar[list[tuple[str, Any]]]
    """By JSON name in the order of writing: what stands for an empty value, or _OMITTED."""

    values: dict[str, Any]

    def __init_subclass__(cls) -> None:
        cls.names = {name: f for name, f in vars(cls).items() if isinstance(f, Field)}
        cls.fields = {f.json_name: f for f in cls.names.values()}
        cls._forms = {name: (f.kind, f.check) for name, f in cls.fields.items()}
        cls._written = [
            (name, f.nothing if f.always else _OMITTED) for name, f in cls.fields.items()
        ]

    def __init__(self, **members: Any) -> None:
        self.origin: bytes | None = None
        self.values = {}
        self._put(members)

    def but(self, **members: Any) -> Self:
        """A copy in which these members differ; what is inside the others is shared."""
        copy = object.__new__(type(self))
        copy.origin = self.origin
        copy.values = dict(self.values)
        copy._put(members)
        return copy

    def _put(self, members: dict[str, Any]) -> None:
        for name, value in members.items():
            field = self.names.get(name)
            if field is None:
                raise TypeError(f"{type(self).__name__} has no member {name!r}")
            self.values[field.json_name] = field.dump(value)

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Raises ValueError where it is no such object."""
        record = object.__new__(cls)
        record.origin = raw
        record.values = decode_object(raw)
        record.check()
        return record

    def check(self) -> None:
        """Raises ValueError for the first member that has the wrong form; null has none,
        as in Go."""
        forms = self._forms
        for name, value in self.values.items():
            form = forms.get(name)
            if form is None or value is None:
                continue
            kind, check = form
            if type(value) is not kind or (check is not None and not check(value)):
                raise ValueError(f"{name} cannot be {value!r:.100}")

    def encode(self, stored: bytes | None = None) -> bytes:
        """The JSON of it.  Members that are unknown here are taken over, its own and
        those of `stored`, the form that it replaces.  Raises ValueError."""
        self.check()
        get = self.values.get
        written = {
            name: get(name) or nothing
            for name, nothing in self._written
            if get(name) or nothing is not _OMITTED
        }
        sources = [self.values]
        if stored and stored != self.origin:
            sources.insert(0, type(self).decode(stored).values)
        for values in sources:
            if not values.keys() <= self.fields.keys():
                written.update((n, v) for n, v in values.items() if n not in self.fields)
        return encode_json(written)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.encode() == other.encode()

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {str(self.values)[:200]}>"
