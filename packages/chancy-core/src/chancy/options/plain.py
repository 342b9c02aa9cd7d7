"""What is given as an option, as its plain kind, or refused by its name.

A subclass of `str` prints itself as it likes, a boolean is an integer, an instant may lie where Postgres or Python
cannot go. So whatever an option says goes through here before it goes anywhere else: of `@task` and `using`, of a
single submit and of many, of each verb. What comes out is exactly a `str`, `int`, `datetime` in UTC or `timedelta`
that a column holds and that both sides read back. Everything raises `InvalidOption`, before any SQL is sent.
"""

from __future__ import annotations

import contextlib
import math
import operator
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from numbers import Real
from types import BuiltinFunctionType, FunctionType
from typing import Any, TypeAlias, TypeVar

from chancy.errors import InvalidOption
from chancy.options.phrases import one_line

E = TypeVar("E", bound=Enum)

Duration: TypeAlias = timedelta | float
"""How long: a `timedelta`, or seconds."""

LONGEST_NAME = 500
"""Bytes of the name of a queue or a task: with a key of its own beside it, it has to fit into a third of a page."""
MOST = 2**31 - 1
LARGEST_ID = 2**63 - 1

LONGEST_DELAY = timedelta(days=36_525)
"""A hundred years."""
EARLIEST = datetime(1, 1, 2, tzinfo=UTC)
WITHOUT_END = datetime(9999, 12, 31, tzinfo=UTC)
"""The latest instant; what is paused until then is paused until somebody resumes it. Postgres reads from 4713 BC to the
year 294276 and has an infinity, Python ends with the years 1 and 9999; and a day is left for the caller's time zone.
"""

_SHOWN = 60
_TOLD = (
    str, bytes, int, float, Decimal, date, time, timedelta, Enum, type, type(None), FunctionType, BuiltinFunctionType,
)  # fmt: skip


class _Real:
    """The kinds themselves, where no library finds them that replaces them in modules to stop the clock."""

    datetime, date, time, timedelta = datetime, date, time, timedelta


def text(option: str, value: object) -> str:
    """A `str` that Postgres can hold and UTF-8 can say, of whatever length."""
    if type(value) is not str:
        if not isinstance(value, str):
            raise InvalidOption(option, f"expected a text, got {shown(value)}{_enum_hint(value, str)}")
        value = str.__str__(value)  # `str()` is what its class makes of it
    if "\0" in value:
        raise InvalidOption(option, f"expected a text without NUL, got {shown(value)}")
    if not value.isascii():
        _size(option, value)
    return value


def beginning(option: str, value: object, longest: int) -> str:
    """The first characters of a text, as UTF-8 can say them: half a surrogate pair is written as its number."""
    if not isinstance(value, str):
        raise InvalidOption(option, f"expected a text, got {shown(value)}{_enum_hint(value, str)}")
    return str.__getitem__(value, slice(longest)).encode("utf-8", "backslashreplace").decode()


def name(option: str, value: object) -> str:
    """A text of 1 to 500 bytes: what queues and tasks are called."""
    plain = text(option, value)
    if not plain or (len(plain) if plain.isascii() else _size(option, plain)) > LONGEST_NAME:
        raise InvalidOption(option, f"expected a name of 1 to {LONGEST_NAME} bytes without NUL, got {shown(plain)}")
    return plain


def number(option: str, value: object, least: int, most: int = MOST, *, why: str = "") -> int:
    """A whole number within these bounds."""
    if type(value) is not int:
        value = _index(option, value)
    if not least <= value <= most:
        bounds = f"{least} to {most}"
        if most in (MOST, LARGEST_ID):
            bounds = f"{least} or more" if value < least else f"at most {most}"
        raise InvalidOption(option, f"expected {bounds}{why}, got {shown(value)}")
    return value


def amount(option: str, value: object) -> float:
    """A number that is neither NaN nor infinite."""
    return _amount(option, value, "a finite number")


def fraction(option: str, value: object) -> float:
    """A number from 0 to 1, of whatever kind: what a handler has counted may be numpy's, or True."""
    if isinstance(value, (Real, Decimal)):
        with contextlib.suppress(Exception):  # of a class that fails to be one
            plain = float(value)
            if 0 <= plain <= 1:
                return plain
    raise InvalidOption(option, f"expected a fraction from 0 to 1, got {shown(value)}")


def identity(option: str, value: object) -> int:
    """The id of a row, from 1."""
    return number(option, value, 1, LARGEST_ID)


def flag(option: str, value: object) -> bool:
    """True or False, and nothing that could be taken for either."""
    if not isinstance(value, bool):
        raise InvalidOption(option, f"expected True or False, got {shown(value)}")
    return value


def instant(option: str, value: object) -> datetime:
    """An instant in UTC."""
    if not isinstance(value, datetime):
        raise InvalidOption(option, f"expected a datetime with a time zone, got {shown(value)}")
    try:
        offset = value.utcoffset()
        at = _Real.datetime(
            value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond, UTC
        )
        at -= _Real.timedelta() if offset is None else _timedelta(option, offset)
    except Exception as error:
        raise InvalidOption(option, f"{shown(value)} is no instant in UTC: {one_line(str(error))}") from None
    if offset is None:
        raise InvalidOption(
            option,
            f"expected a datetime with a time zone, got {shown(value)} (a naive one means a different instant on each "
            f"machine)",
        )
    if not EARLIEST <= at <= WITHOUT_END:
        raise InvalidOption(
            option, f"expected an instant from {EARLIEST:%Y-%m-%d} to {WITHOUT_END:%Y-%m-%d}, got {shown(value)}"
        )
    return at


def duration(
    option: str, value: object, least: timedelta = -LONGEST_DELAY, most: timedelta = LONGEST_DELAY
) -> timedelta:
    """How long, of a `timedelta` or of seconds, within these bounds."""
    plain = _timedelta(option, value)
    if not least <= plain <= most:
        raise InvalidOption(option, f"expected {_lasting(least)} to {_lasting(most)}, got {shown(value)}")
    return plain


def one_of(option: str, value: object, kind: type[E]) -> E:
    """A member of an enumeration of texts, also where its text is given."""
    if type(value) is kind:
        return value
    try:
        return kind(text(option, value))
    except ValueError:
        words = ", ".join(str(member.value) for member in kind)
        raise InvalidOption(option, f"expected one of {words}, got {shown(value)}") from None


def word(option: str, value: object, words: Iterable[str]) -> Any:
    """One of a few texts."""
    known = tuple(words)
    if (type(value) is not str and not isinstance(value, str)) or (plain := text(option, value)) not in known:
        raise InvalidOption(option, f"expected {either_of(known)}, got {shown(value)}")
    return plain


def several(option: str, values: object, what: str) -> tuple[Any, ...]:
    """What a list, a tuple or a generator has. A single text is none: it would be taken for its letters."""
    if isinstance(values, (str, bytes, bytearray, Mapping)) or not isinstance(values, Iterable):
        raise InvalidOption(option, f"expected a list of {what}, got {shown(values)}")
    return tuple(values)


def kept(values: Any) -> Any:
    """What comes only once, for the next function of the same decorator."""
    return tuple(values) if isinstance(values, Iterator) else values


def base_of(value: object) -> object:
    """What JSON can say of a value of a subclass: the same as its base. Of anything else it raises `TypeError`.

    Members of enumerations never come here: JSON says their values.
    """
    match value:
        case str():
            return str.__str__(value)
        case int():
            return int.__int__(value)
        case float():
            return float.__float__(value)
        case datetime():
            return _Real.datetime(
                value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond,
                value.tzinfo, fold=value.fold,
            )  # fmt: skip
        case date():
            return _Real.date(value.year, value.month, value.day)
        case time():
            return _Real.time(value.hour, value.minute, value.second, value.microsecond, value.tzinfo, fold=value.fold)
        case timedelta():
            return _timedelta("", value)
        case Decimal():
            return Decimal(value)
        case bytes():
            return bytes(value)
    raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")


def either_of(words: tuple[str, ...]) -> str:
    """`"a", "b" or "c"`"""
    quoted = [f'"{each}"' for each in words]
    return " or ".join(filter(None, [", ".join(quoted[:-1]), *quoted[-1:]]))


def shown(value: object) -> str:
    """A value of somebody else's, in an error: on one line, and not all of it. Of what has parts only the kind, since
    errors go into logs.
    """
    if isinstance(value, _TOLD):
        with contextlib.suppress(Exception):  # an int of more digits than Python says, or a class that says nothing
            return one_line(repr(value), _SHOWN)
    return a_kind(value)


def a_kind(value: object) -> str:
    """`a list`, `an int`: by the name of its class."""
    name = type(value).__qualname__
    return f"{'an' if name[:1] in 'aeiouAEIOU' else 'a'} {name}"


def _size(option: str, value: str) -> int:
    """Bytes of UTF-8."""
    try:
        return len(value.encode())
    except UnicodeEncodeError:
        raise InvalidOption(
            option, f"expected a text of Unicode, got {shown(value)}, which has half of a surrogate pair in it"
        ) from None


def _index(option: str, value: object) -> int:
    if isinstance(value, bool):
        raise InvalidOption(option, f"expected a whole number, got {value}")
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except Exception:
        raise InvalidOption(option, f"expected a whole number, got {shown(value)}{_enum_hint(value, int)}") from None


def _timedelta(option: str, value: object) -> timedelta:
    if isinstance(value, timedelta):
        if type(value) is _Real.timedelta:
            return value
        kind = _Real.timedelta  # a subclass may say something else by these names
        return kind(kind.days.__get__(value), kind.seconds.__get__(value), kind.microseconds.__get__(value))
    seconds = _amount(option, value, "seconds or a timedelta")
    try:
        return _Real.timedelta(seconds=seconds)
    except OverflowError:
        raise InvalidOption(option, f"{shown(value)} seconds are longer than anything lasts") from None


def _amount(option: str, value: object, what: str) -> float:
    if not isinstance(value, bool):
        with contextlib.suppress(Exception):  # of no number, or of a class that fails to be one
            plain = float.__float__(value) if isinstance(value, float) else operator.index(value)  # type: ignore[arg-type]
            if isinstance(plain, int) or math.isfinite(plain):
                return plain
    raise InvalidOption(option, f"expected {what}, got {shown(value)}")


def _lasting(length: timedelta) -> str:
    return f"{length.days:,} days" if length and not length % timedelta(days=1) else f"{length.total_seconds():g} s"


def _enum_hint(value: object, kind: type) -> str:
    return "; give its value" if isinstance(value, Enum) and isinstance(value.value, kind) else ""
