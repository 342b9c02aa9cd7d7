"""Instants and ages, as people type and read them. Instants are UTC by the database's clock."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import click

from chancy.model import WITHOUT_END

T = TypeVar("T")

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
LONGEST = 36_525 * UNITS["d"]
_AGE = re.compile(r"(?:\d+(?:\.\d+)?[smhdw])+")


def age(ctx: click.Context, param: click.Parameter, text: str | None) -> timedelta | None:
    """How long: `90s`, `10m`, `2h`, `3d`, `1w`, `1h30m`. A callback for an option."""
    return _told(ctx, param, read_age, text)


def read_age(text: str) -> timedelta:
    """The same of a text. Raises `ValueError`."""
    if not _AGE.fullmatch(text):
        raise ValueError(f"expected how long, as 90s, 10m, 2h, 3d or 1w, got {text!r}")
    parts = re.findall(r"([\d.]+)([smhdw])", text)
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    if seconds > LONGEST:
        raise ValueError(f"{text!r} is more than a hundred years")
    return timedelta(seconds=seconds)


def instant(ctx: click.Context, param: click.Parameter, text: str | None) -> datetime | None:
    """An instant with a time zone, in ISO 8601: `2026-11-25T18:00Z`. A callback for an option."""
    return _told(ctx, param, read_instant, text)


def read_instant(text: str) -> datetime:
    """The same of a text. Raises `ValueError`."""
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"expected an instant as 2026-11-25T18:00Z, got {text!r}") from None
    if read.tzinfo is None:
        raise ValueError(f"{text} is another instant in each time zone: add Z, or +01:00")
    try:
        return read.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{text} is before the year 1 or after 9999 in UTC") from None


def _told(ctx: click.Context, param: click.Parameter, read: Callable[[str], T], text: str | None) -> T | None:
    try:
        return None if text is None else read(text)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def instant_or_age(ctx: click.Context, param: click.Parameter, text: str | None) -> datetime | timedelta | None:
    """Either of the two; an age is one ago. A callback for an option."""
    return _told(ctx, param, read_instant_or_age, text)


def read_instant_or_age(text: str) -> datetime | timedelta:
    """The same of a text. Raises `ValueError`."""
    return read_age(text) if _AGE.fullmatch(text) else read_instant(text)


def moment(given: datetime | timedelta | None, now: datetime) -> datetime | None:
    """The instant; so long ago by the database's clock, if an age was given."""
    return now - given if isinstance(given, timedelta) else given


def is_endless(instant: datetime) -> bool:
    """Whether it stands for "until somebody says so"."""
    return instant == WITHOUT_END


def until(instant: datetime | None) -> str:
    """Until when something is paused, to be read by itself or behind the word "paused"."""
    if instant is None:
        return "-"
    return f"until {'resumed' if is_endless(instant) else written(instant)}"


def written(instant: datetime) -> str:
    """Whole seconds, UTC."""
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def a_second(rate: float) -> str:
    """How many a second: `0`, `0.4`, `12`, `3,400`."""
    return f"{rate:,.0f}" if rate >= 10 or rate == 0 else f"{rate:.1f}"


def lasting(seconds: float) -> str:
    """How long, by its largest unit or two: `350 ms`, `12 s`, `4 min`, `2 h 10 min`, `3 d`."""
    if seconds < 1:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 90:
        return f"{whole} s"
    if whole < 5400:
        return f"{whole // 60} min"
    hours, minutes = divmod(whole // 60, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d"
