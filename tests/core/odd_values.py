"""Values that options are given: plain, odd and hostile ones."""

from __future__ import annotations

import enum
import math
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from chancy import State
from chancy.model import WITHOUT_END
from chancy.options.plain import EARLIEST, LONGEST_NAME


class Stream(str, enum.Enum):  # noqa: UP042 (what a StrEnum is not: its `str` is another)
    MAIL = "mail"


class Level(int, enum.Enum):
    HIGH = 50


class Colour(enum.Enum):
    RED = "red"


class Loud(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "LOUD"

    __repr__ = __str__


class Wrong(int):
    def __str__(self) -> str:
        return "wrong"

    def __index__(self) -> int:
        return 7


class Precise(datetime):
    """As libraries have it that know more of time, or that stop it."""


class Nowhere(tzinfo):
    def utcoffset(self, at):
        return None


class Broken(tzinfo):
    def utcoffset(self, at):
        raise RuntimeError("no offset")


class Longer(timedelta):
    def total_seconds(self) -> float:
        return 0.0


SPRING = datetime(2031, 3, 30, 12, tzinfo=UTC)
LONE = "half \ud800"
HUGE = 10**5_000


LMT = timezone(timedelta(hours=1, minutes=57, seconds=44, microseconds=5))


NO_TEXT = [5, None, b"bytes", ["mail"], Colour.RED, "a\0b", LONE, Loud("\0")]
NO_NAME = [*NO_TEXT, "", "x" * (LONGEST_NAME + 1), "\U0001f41f" * 126]
NO_NUMBER = [True, 1.0, 1.5, math.nan, "1", None, b"1", Decimal(1), Colour.RED, HUGE, -HUGE, [1]]
NO_INSTANT = [
    5, 1.5, "tomorrow", "infinity", True, date(2031, 1, 1), timedelta(1), datetime(2031, 1, 1),  # noqa: DTZ001
    datetime(2031, 1, 1, tzinfo=Nowhere()), datetime(2031, 1, 1, tzinfo=Broken()), datetime.max.replace(tzinfo=UTC),
    datetime.min.replace(tzinfo=UTC), datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))),
]  # fmt: skip
NO_DURATION = [True, "5", math.nan, math.inf, -math.inf, 1e300, HUGE, timedelta.max, timedelta.min, b"5", [5], SPRING]
NO_LIST = ["text", b"bytes", 5, {"a": 1}]


ODD_TEXTS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["", "mail", "a\0b", LONE, "NULL", "{}", 'a"b\\c{d},e', "%s %(a)s {schema} $1", "x" * 500, "x" * 501]
    ),
    st.sampled_from([Stream.MAIL, Loud("quiet"), State.READY, "\U0001f41f" * 125, "\U0001f41f" * 126, "\x1f", "a\nb"]),
)
ODD_NUMBERS = st.one_of(
    st.integers(),
    st.integers(-101, 101),
    st.sampled_from([0, 1, 2**15 - 1, 2**15, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 10**400, -(10**400)]),
    st.sampled_from([True, False, Level.HIGH, Wrong(5), 1.0, 5.6, math.nan, math.inf, -0.0, Decimal(1)]),
)
ODD_ZONES = st.one_of(
    st.none(),
    st.just(UTC),
    st.sampled_from([ZoneInfo("Europe/Prague"), ZoneInfo("America/New_York"), LMT]),
    st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone),
)
ODD_INSTANTS = st.one_of(
    st.datetimes(timezones=ODD_ZONES),
    st.datetimes(timezones=ODD_ZONES).map(
        lambda at: Precise(at.year, at.month, at.day, at.hour, tzinfo=at.tzinfo, fold=at.fold)
    ),
    st.sampled_from([EARLIEST, WITHOUT_END, datetime.min, datetime.max]),  # noqa: DTZ901
    st.sampled_from([at for at in NO_INSTANT if not isinstance(getattr(at, "tzinfo", None), Broken)]),
)
ODD_DURATIONS = st.one_of(
    st.timedeltas(),
    st.timedeltas(timedelta(days=-36_600), timedelta(days=36_600)),
    st.floats(),
    st.sampled_from([value for value in NO_DURATION if value is not HUGE] + [Longer(5), Level.HIGH]),
)
ANYTHING = st.one_of(
    ODD_TEXTS, ODD_NUMBERS, ODD_INSTANTS, ODD_DURATIONS, st.none(), st.binary(max_size=5), st.sampled_from(NO_LIST)
)


def mostly(valid, odd):
    """One in ten is odd, so that many jobs with several options are taken."""
    return st.sampled_from([valid] * 9 + [odd]).flatmap(lambda strategy: strategy)


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40) | st.sampled_from(
    [Stream.MAIL, Loud("quiet"), "NULL", "{}", 'a"b\\c{d},e', "%s %(a)s {schema} $1", "x" * 500, "\U0001f41f" * 125]
)
FIRST, LAST = EARLIEST.replace(tzinfo=None, year=2), WITHOUT_END.replace(tzinfo=None, year=9998)
INSTANTS = st.datetimes(FIRST, LAST, timezones=st.just(UTC)) | st.datetimes(FIRST, LAST, timezones=ODD_ZONES).filter(
    lambda at: at.utcoffset() is not None
)
DURATIONS = st.one_of(
    st.timedeltas(timedelta(days=-36_525), timedelta(days=36_525)), st.floats(-1e9, 1e9), st.integers(-(10**9), 10**9)
)
