"""When a schedule ticks, and which of its ticks are run: arithmetic on instants, without a clock and without I/O."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import chain, islice, takewhile
from types import ModuleType
from typing import Literal, TypeAlias, TypeVar, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from chancy.arguments.codec import Signature
from chancy.errors import InvalidArguments, InvalidOption, InvalidTask
from chancy.options.plain import Duration, amount, duration, shown, text, word

Missed: TypeAlias = Literal["skip", "one", "all"]
Overlap: TypeAlias = Literal["skip", "allow"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SHORTEST, LONGEST = timedelta(seconds=1), timedelta(days=366)
ON_TIME = timedelta(seconds=15)
"""A tick that a worker gets to later than this was missed."""
MOST_AT_ONCE = 1_000
"""Of the missed ticks that all run, so many are submitted at a look."""


class Cron(msgspec.Struct, frozen=True, tag="cron", omit_defaults=True):
    """Ticks at the times of a cron expression, by the clock on the wall in a time zone. Made by `cron`."""

    expression: str
    timezone: str = "UTC"
    missed: Missed = "one"
    overlap: Overlap = "skip"


class Every(msgspec.Struct, frozen=True, tag="every", omit_defaults=True):
    """Ticks at the multiples of an interval since 1970-01-01 UTC. Made by `every`."""

    interval: timedelta
    """From a second to 366 days."""
    missed: Missed = "one"
    overlap: Overlap = "skip"


When: TypeAlias = Cron | Every
W = TypeVar("W", bound=Cron | Every)


def cron(expression: str, *, timezone: str = "UTC", missed: Missed = "one", overlap: Overlap | None = None) -> Cron:
    """Minute, hour, day of month, month, day of week, in `timezone`: `"0 9 * * 1-5"`. Before them may be the second.

    On the night when clocks go forward a time that does not exist is the first that does; on the night when they go
    back a time that exists twice is the first of the two. So it is for a fixed minute and hour in five fields. With a
    star at the beginning of either, or with seconds, it goes by time that passes: what does not exist is left out, and
    what exists twice ticks twice.

    A tick that no worker got to within 15 s was missed: "skip" drops those; with "one" the latest of them runs if none
    is on time; with "all" each runs. `overlap="skip"` drops a tick while the job of the tick before is live, "allow"
    does not; by default it is "skip", and "allow" where all missed ones are to run.

    Raises `InvalidOption`, a `ValueError`, for an unknown zone, and for such an expression where the package
    cronsim is installed, which comes with the worker: elsewhere it is the worker and `chancy check` that refuse it.
    """
    return checked(Cron(expression, timezone, missed, _overlap(missed, overlap)))


def every(
    interval: Duration | None = None,
    *,
    days: float = 0,
    hours: float = 0,
    minutes: float = 0,
    seconds: float = 0,
    missed: Missed = "one",
    overlap: Overlap | None = None,
) -> Every:
    """Each multiple of the interval since 1970-01-01 UTC, whoever counts, from a second to 366 days.

    `seconds`, `minutes`, `hours` and `days` are added up. `every(hours=1)` ticks on the hour, `every(days=1)` at
    midnight UTC, and `every(days=7)` on Thursdays. An interval is a `timedelta`, or seconds. `missed` and `overlap`
    as for `cron`. Raises `InvalidOption`, a `ValueError`, for an interval that is out of bounds.
    """
    named = {"days": days, "hours": hours, "minutes": minutes, "seconds": seconds}
    try:
        parts = timedelta(**{unit: amount(unit, value) for unit, value in named.items()})
    except OverflowError:
        raise InvalidOption("interval", f"expected 1 s to {LONGEST.days} days, got more than anything lasts") from None
    if interval is not None and parts:
        raise InvalidOption("interval", "give either an interval or its days, hours, minutes and seconds")
    if interval is None and not parts:
        raise InvalidOption("interval", f"it says nothing that lasts: {_AS_IN}")
    return checked(
        Every(parts if interval is None else duration("interval", interval), missed, _overlap(missed, overlap))
    )


_AS_IN = "say how long it is from tick to tick, as in every(minutes=5), every(hours=1) or every(timedelta(seconds=30))"


def _overlap(missed: Missed, overlap: Overlap | None) -> Overlap:
    return overlap or ("allow" if missed == "all" else "skip")


def checked(when: W) -> W:
    """The same in its plain kinds, or an `InvalidOption` that says what is wrong with it."""
    missed = word("missed", when.missed, get_args(Missed))
    overlap = word("overlap", when.overlap, get_args(Overlap))
    if (missed, overlap) == ("all", "skip"):
        raise InvalidOption(
            "overlap",
            'missed="all" runs each tick, and overlap="skip" drops those whose turn comes too soon: '
            'give overlap="allow"',
        )
    if isinstance(when, Every):
        interval = duration("interval", when.interval, SHORTEST, LONGEST)
        return msgspec.structs.replace(when, interval=interval, missed=missed, overlap=overlap)
    plain = msgspec.structs.replace(
        when,
        expression=text("expression", when.expression),
        timezone=text("timezone", when.timezone),
        missed=missed,
        overlap=overlap,
    )
    if cronsim() is None:
        _zone(plain.timezone)
    else:
        next(ticks(plain, EPOCH))
    return plain


@functools.cache
def cronsim() -> ModuleType | None:
    """The package that reads cron expressions, where it is installed. Whoever only submits does without it."""
    try:
        import cronsim
    except ImportError:
        return None
    return cronsim


def ticks(when: When, after: datetime) -> Iterator[datetime]:
    """The instants after this one at which it ticks, in order, in UTC, without an end.

    Raises `ValueError` for an expression or a zone that is unknown here, and `ImportError` for a cron expression
    where the package cronsim is not installed.
    """
    if isinstance(when, Every):
        number = (after - EPOCH) // when.interval
        while True:
            number += 1
            yield EPOCH + number * when.interval
    zone, reader = _zone(when.timezone), cronsim()
    if reader is None:
        raise ImportError(
            "cron expressions are read by the package cronsim: install it, or chancy-worker, which brings it"
        )
    try:
        found = reader.CronSim(when.expression, after.astimezone(zone))
    except (reader.CronSimError, AttributeError) as error:
        raise InvalidOption(
            "expression",
            f"cron expression {shown(when.expression)}: {str(error).lower()}; it has five fields (minute, hour, "
            f"day of month, month, day of week), or six with the second before them",
        ) from None
    last = after.astimezone(UTC)
    for tick in found:
        # Times that do not exist become one that does, and other ticks may be there already; and what exists twice is
        # its first, which may have been before `after`.
        if (instant := tick.astimezone(UTC)) > last:
            last = instant
            yield instant
    raise InvalidOption("expression", f"cron expression {when.expression!r}: there is no such day in fifty years")


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, TypeError, ValueError, OSError):
        raise InvalidOption(
            "timezone",
            f"there is no time zone {name!r} here: say it as in 'Europe/Prague', and where the system has none at all "
            f"install the package tzdata",
        ) from None


class Look(msgspec.Struct, frozen=True):
    """What is to be done about one schedule now: which ticks get a job, and when to look again."""

    run: tuple[datetime, ...]
    """The ticks that get a job, in order."""
    next_at: datetime
    """The first tick that this look was not about."""
    dropped: tuple[datetime, datetime] | None
    """Ticks from the first to before the second get none, because nobody looked in time."""


def look(when: When, first: datetime, at: datetime) -> Look:
    """What to do at the instant `at` about the ticks that are due, of which the `first` need not be one of `when`."""
    if first > at:
        return Look((), first, None)
    begin = max(first, at - ON_TIME)
    if when.missed == "all":
        run = tuple(islice(_from(when, first, at), MOST_AT_ONCE))
    elif first >= begin:
        run = tuple(_from(when, first, at))
    else:
        run = tuple(takewhile(lambda tick: tick <= at, ticks(when, begin - datetime.resolution)))
        if not run and when.missed == "one":
            run = (_latest(when, first, at),)
    if when.overlap == "skip":
        run = run[-1:]
    until = run[0] if run else begin
    next_at = next(ticks(when, run[-1] if run else at))
    return Look(run, next_at, None if first == until else (first, until))


def _from(when: When, first: datetime, at: datetime) -> Iterator[datetime]:
    return takewhile(lambda tick: tick <= at, chain((first,), ticks(when, first)))


def _latest(when: When, first: datetime, at: datetime) -> datetime:
    """The last tick that is due, of a schedule that may have missed a year of seconds."""
    low, high = first, at
    while (tick := next(ticks(when, low))) <= at:
        low = tick
        middle = low + (high - low) / 2
        if (tick := next(ticks(when, middle))) <= at:
            low = tick
        else:
            high = middle
    return low


def declared(when: When | None, signature: Signature) -> When | None:
    """Of a task, which has to do without arguments then. Raises `InvalidTask`."""
    if when is None:
        return None
    if not isinstance(when, (Cron, Every)):
        raise InvalidTask(signature.task, f"schedule: expected cron(…) or every(…), got {when!r}")
    try:
        signature.encode_arguments((), {})
        return checked(when)
    except InvalidArguments as error:
        raise InvalidTask(
            signature.task,
            f"schedule: argument {error.argument!r} {error.reason}, and a schedule gives none: every "
            f"argument needs a default; `chancy.schedule` makes schedules with arguments",
        ) from None
    except ValueError as error:
        raise InvalidTask(signature.task, f"schedule: {error}") from None
