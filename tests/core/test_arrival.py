"""What is carried arrives as it was given, or it is refused at submit by the argument's name."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple, TypedDict
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chancy import InvalidArguments, InvalidResult, Job, Unique, submit_many, task
from chancy.arguments.codec import signature_of
from chancy.carried.arrival import Trust, difference, trust
from chancy_testing import eager

PRAGUE = ZoneInfo("Europe/Prague")


@dataclass
class Shape:
    name: str


@dataclass
class Circle(Shape):
    radius: float


@dataclass
class Alike(Shape):
    """Has no more than its base, and would be that."""


class Event(msgspec.Struct):
    id: int


class Paid(Event):
    amount: int


@dataclass
class ById:
    """Equal to whatever has its id."""

    id: int
    note: str = ""

    def __eq__(self, other):
        return isinstance(other, ById) and other.id == self.id


class OfNote(ById):
    def __init__(self, number: int, note: str, more: str) -> None:
        super().__init__(number, note)
        self.more = more


@dataclass
class Detailed(ById):
    more: str = "more"

    __eq__ = ById.__eq__


@dataclass
class Uncompared:
    id: int
    seen: float = field(default=0.0, compare=False)


class Loose(msgspec.Struct, eq=False):
    x: int


class Pair(NamedTuple):
    left: int
    right: str


class Film(TypedDict):
    title: str


class Size(enum.Enum):
    SMALL = "small"


class Colour(str, enum.Enum):  # noqa: UP042 (not a StrEnum on purpose)
    RED = "red"


class Safe(str):
    __slots__ = ()


class Count(int):
    pass


class Price(float):
    pass


class Moment(datetime):
    pass


class Day(date):
    pass


class Clock(time):
    pass


class Span(timedelta):
    pass


class Data(bytes):
    pass


class Amount(Decimal):
    pass


def taking(annotation):
    """The signature of a task with one argument of this type."""

    def takes(x): ...

    takes.__annotations__ = {"x": annotation, "return": annotation}
    return signature_of(takes, "takes")


def arrives(annotation, value):
    signature = taking(annotation)
    ((arrived,), _) = signature.decode_arguments(signature.encode_arguments((value,), {}))
    return arrived


NESTED = [1, [2.5, {"a": [None, True, "x"]}], []]

CARRIED = [
    (Any, NESTED),
    (Any, -0.0),
    (Any, 2**63),
    (Any, OrderedDict(a=1)),
    (Any, defaultdict(list, a=[1])),
    (Any, Colour.RED),
    (int, 2**53 + 1),
    (float, 1),
    (float, 1e308),
    (int | str, "1"),
    (dict[int, int], {1: 2}),
    (dict[float, int], {1.5: 2}),
    (dict[date, int], {date(2031, 1, 1): 1}),
    (list[tuple[int, str]], [(1, "a")]),
    (Sequence[int], [1, 2]),
    (Sequence[int], (1, 2)),
    (Collection[int], (1, 2)),
    (Mapping[str, Sequence[int]], {"a": (1,)}),
    (set[int], frozenset([3, 1, 2])),
    (frozenset[str], {"a", "b"}),
    (Pair, Pair(1, "a")),
    (Pair, (1, "a")),
    (Film, {"title": "Ran"}),
    (Shape, Shape("a")),
    (list[Shape], [Shape("a"), Shape("b")]),
    (Shape | None, None),
    (Event, Event(1)),
    (ById, ById(1, "a")),
    (Uncompared, Uncompared(1, 2.5)),
    (Loose, Loose(1)),
    (Size, Size.SMALL),
    (Colour, Colour.RED),
    (str, Colour.RED),
    (bytes, b"\x00\xff"),
    (bytes, bytearray(b"ab")),
    (UUID, UUID(int=5)),
    (Decimal, Decimal("1.00")),
    (Decimal, Decimal("NaN")),
    (Decimal, Decimal("sNaN")),
    (Decimal, Decimal("-Infinity")),
    (Decimal, 5),
    (timedelta, timedelta.max),
    (timedelta, -timedelta(microseconds=1)),
    (date, date.min),
    (datetime, datetime(2031, 1, 1)),  # noqa: DTZ001
    (datetime, datetime(2031, 1, 1, tzinfo=UTC)),
    (datetime, datetime(2031, 7, 1, tzinfo=PRAGUE)),
    (datetime, datetime(2031, 10, 26, 2, 30, tzinfo=PRAGUE)),
    (datetime, datetime(2031, 10, 26, 2, 30, tzinfo=PRAGUE, fold=1)),
    (datetime, datetime(2031, 3, 30, 2, 30, tzinfo=PRAGUE)),
    (datetime, datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))),
    (time, time(1, 2, tzinfo=timezone(timedelta(hours=1)))),
    (str, Safe("<b>")),
    (int, Count(5)),
    (float, Price(5.5)),
    (datetime, Moment(2031, 1, 1, tzinfo=PRAGUE)),
    (date, Day(2031, 1, 1)),
    (time, Clock(1, 2)),
    (timedelta, Span(days=1)),
    (bytes, Data(b"x")),
    (Decimal, Amount("1.5")),
    (dict[str, str], {Safe("a"): Safe("b")}),
    (dict[int, int], {Count(1): Count(2)}),
    (list[str], [Safe("a")]),
    (Any, [Safe("a"), Count(1), Price(0.5)]),
    (Shape, Shape(Safe("a"))),
    (int, True),
    (float, False),
    (list[int], [True, 0]),
    (dict[str, int], {"a": True}),
]


@pytest.mark.parametrize(("annotation", "value"), CARRIED, ids=range(len(CARRIED)))
def test_what_is_carried_arrives_as_an_argument_and_as_a_result(annotation, value):
    arrived = arrives(annotation, value)
    assert difference(value, arrived, loosely=True) is None
    if isinstance(arrived, (str, int, float, datetime, date, time, bytes)) and not isinstance(arrived, enum.Enum):
        assert type(arrived).__module__ in ("builtins", "datetime")
    signature = taking(annotation)
    assert difference(value, signature.decode_result(signature.encode_result(value)), loosely=True) is None


LOST = [
    (Shape, Circle("c", 2.0), "a Circle would arrive as a Shape"),
    (Shape, Alike("c"), "an Alike would arrive as a Shape"),
    (list[Shape], [Shape("a"), Circle("c", 2.0)], r"a Circle would arrive as a Shape, at \[1\]"),
    (dict[str, list[Shape]], {"a": [Circle("c", 2.0)]}, r"a Circle would arrive as a Shape, at \[…\]\[0\]"),
    (Shape | None, Circle("c", 2.0), "a Circle would arrive as a Shape"),
    (Event, Paid(1, 99), "a Paid would arrive as an Event"),
    (ById, Detailed(1, "a", "b"), "a Detailed would arrive as a ById"),
    (ById, OfNote(1, "a", "b"), "an OfNote would arrive as a ById"),
    (Uncompared, Uncompared(1, math.nan), "NaN and infinity cannot be carried"),
    (dict[int | str, int], {1: 10, "1": 20}, "2 keys would arrive as 1"),
    (dict[int | str, int], {1: 10, "x": 20}, "its keys would arrive as others"),
    (dict[str, int], {1: 10}, "its keys would arrive as others"),
    (Any, {1: 10}, "its keys would arrive as others"),
    (Any, {"a": {1: 10}}, r"its keys would arrive as others, at \[…\]"),
    (Any, {True: 1}, "its keys would arrive as others"),
    (Any, (1, 2), "a tuple would arrive as a list"),
    (Any, Pair(1, "a"), "a Pair would arrive as a list"),
    (list[int], (1, 2), "a tuple would arrive as a list"),
    (tuple[int, ...], [1, 2], "a list would arrive as a tuple"),
    (Pair, [1, "a"], "a list would arrive as a Pair"),
    (set[int], [1, 1], "a list would arrive as a set"),
    (list[int], {1, 2}, "a set would arrive as a list"),
    (Any, {1, 2}, "a set would arrive as a list"),
    (Any, datetime(2031, 1, 1, tzinfo=UTC), "a datetime would arrive as a str"),
    (Any, Size.SMALL, "a Size would arrive as a str"),
    (Any, UUID(int=5), "an UUID would arrive as a str"),
    (Any, Decimal(1), "a Decimal would arrive as a str"),
    (Any, Shape("a"), "a Shape would arrive as a dict"),
    (Any, b"ab", "a bytes would arrive as a str"),
    (str, b"ab", "a bytes would arrive as a str"),
    (str, UUID(int=5), "an UUID would arrive as a str"),
    (str, Decimal(1), "a Decimal would arrive as a str"),
    (str, date(2031, 1, 1), "a date would arrive as a str"),
    (str, timedelta(1), "a timedelta would arrive as a str"),
    (bytes, "YWJj", "a str would arrive as a bytes"),
    (datetime, "2031-01-01T00:00:00Z", "a str would arrive as a datetime"),
    (UUID, str(UUID(int=5)), "a str would arrive as an UUID"),
    (Size, "small", "a str would arrive as a Size"),
    (Shape, {"name": "a"}, "a dict would arrive as a Shape"),
    (Shape, {"name": "a", "more": 1}, "a dict would arrive as a Shape"),
    (Film, {"title": "Ran", "year": 1985}, "2 keys would arrive as 1"),
    (float, 2**53 + 1, "an int would arrive as a float"),
    (Decimal, 0.1, "a float would arrive as a Decimal"),
    (datetime, datetime(1890, 1, 1, tzinfo=PRAGUE), "a datetime would arrive as another one"),
    (float | None, math.nan, "NaN and infinity cannot be carried"),
    (Any, {"a": [math.inf]}, "NaN and infinity cannot be carried"),
    (list[float | None], [1.0, -math.inf], "NaN and infinity cannot be carried"),
]


@pytest.mark.parametrize(("annotation", "value", "reason"), LOST, ids=range(len(LOST)))
def test_what_would_arrive_as_something_else_is_refused_at_submit_by_the_arguments_name(annotation, value, reason):
    with pytest.raises(InvalidArguments, match=rf"argument 'x' of task takes: {reason}"):
        arrives(annotation, value)


def test_an_attribute_that_its_class_keeps_to_itself_is_not_lost_silently():
    class Settings:  # as attrs makes it
        __attrs_attrs__ = ()

        def __init__(self, url: str, retries: int = 3) -> None:
            self.url = url
            self._retries = retries

    name = lambda name: dataclasses.make_dataclass("Attribute", ["name"])(name)  # noqa: E731
    Settings.__attrs_attrs__ = (name("url"), name("_retries"))
    assert difference(Settings("u", 3), Settings("u", 3)) is None
    assert str(difference(Settings("u", 9), Settings("u", 3))) == "an int would arrive as another one, at ._retries"


def test_attributes_of_attrs_are_compared_too():
    attrs = pytest.importorskip("attrs")

    @attrs.define
    class Settings:
        url: str
        _retries: int = 3

    assert arrives(Settings, Settings("u")) == Settings("u")
    with pytest.raises(InvalidArguments, match=r"at \._retries"):
        arrives(Settings, Settings("u", retries=9))


def test_the_errors_tell_kinds_and_places_and_no_values():
    with pytest.raises(InvalidArguments) as caught:
        arrives(list[Shape], [Circle("the password", 2.0)])
    assert "password" not in str(caught.value)
    assert "annotate it as what it is, or give what its annotation says" in str(caught.value)


def test_whether_equal_is_the_same_is_known_at_decoration():
    assert trust([int, dict[str, list[float]], datetime, Size, Any]) is Trust.FULL
    assert trust([Shape, list[Event]]) is Trust.OF_WRITTEN
    for own in (ById, Uncompared, Loose, Decimal, list[ById], Shape | Decimal):
        assert trust([own]) is Trust.NONE, own


# Results. What a job has done is done, so that its result is refused only where a part of it would be lost.


def result_of(annotation, value):
    signature = taking(annotation)
    return signature.decode_result(signature.encode_result(value))


@pytest.mark.parametrize(
    ("annotation", "value", "arrived"),
    [
        (Any, (1, 2), [1, 2]),
        (Any, {1: "a"}, {"1": "a"}),
        (Any, {"at": datetime(2031, 1, 1, tzinfo=UTC)}, {"at": "2031-01-01T00:00:00Z"}),
        (Any, Shape("a"), {"name": "a"}),
        (Any, {3, 1, 2}, [1, 2, 3]),
        (list[int], (1, 2), [1, 2]),
        (list[str], {"a"}, ["a"]),
        (str, UUID(int=0), "00000000-0000-0000-0000-000000000000"),
        (str, Safe("<b>"), "<b>"),
        (int, True, 1),
        (Shape, Alike("a"), Shape("a")),
        (Shape, {"name": "a"}, Shape("a")),
        (datetime, "2031-01-01T00:00:00Z", datetime(2031, 1, 1, tzinfo=UTC)),
    ],
    ids=str,
)
def test_a_result_may_be_of_another_kind_while_nothing_of_it_is_lost(annotation, value, arrived):
    assert result_of(annotation, value) == arrived


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Shape, Circle("c", 2.0)),
        (Event, Paid(1, 99)),
        (list[Shape], [Circle("c", 2.0)]),
        (dict[int | str, int], {1: 10, "1": 20}),
        (Any, {1: 10, "1": 20}),
        (Film, {"title": "Ran", "year": 1985}),
        (Any, {"a": math.nan}),
        (float | None, math.inf),
        (Any, (1, {1: (math.nan,)})),
    ],
    ids=str,
)
def test_a_result_of_which_a_part_would_be_lost_is_refused(annotation, value):
    with pytest.raises(InvalidResult, match=r"would arrive as|NaN and infinity"):
        result_of(annotation, value)


# Property: what is taken is what arrives, of values made of everything that JSON nearly knows.

LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=5), st.binary(max_size=3),
    st.datetimes(timezones=st.none() | st.just(UTC) | st.just(PRAGUE)), st.dates(), st.timedeltas(), st.decimals(),
    st.uuids(), st.sampled_from([Size.SMALL, Colour.RED, Safe("a"), Count(1), Price(1.5), Shape("a"), Circle("c", 1.0)]),
)  # fmt: skip
KEYS = st.text(max_size=3) | st.integers(-3, 3) | st.booleans() | st.floats(allow_nan=False) | st.just(Safe("k"))
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3), st.tuples(inner, inner)
    ),
    max_leaves=8,
)
ANNOTATIONS = [
    Any, int, float, str, bytes, bool, datetime, date, timedelta, Decimal, UUID, Size, Colour, Shape, Any | None,
    list[int], list[Any], list[float | None], dict[str, Any], dict[int, Any], dict[str, float | None], set[int],
    tuple[Any, ...], Sequence[Any], Mapping[str, Any], int | str | None, Shape | None,
]  # fmt: skip
SIGNATURES = {str(annotation): taking(annotation) for annotation in ANNOTATIONS}


@pytest.mark.long
@settings(max_examples=500, deadline=None, derandomize=True)
@given(which=st.sampled_from(sorted(SIGNATURES)), value=VALUES)
def test_whatever_is_taken_arrives_as_it_was(which, value):
    signature = SIGNATURES[which]
    try:
        payload = signature.encode_arguments((value,), {})
    except InvalidArguments as error:
        (argument, said) = error.argument, str(error).encode()
        assert (argument, len(said) < 500) == ("x", True)
        return
    ((arrived,), _) = signature.decode_arguments(payload)
    assert is_the_same(value, arrived), (value, arrived)


def is_the_same(one: Any, other: Any) -> bool:
    """Said once more, in another way than the library says it."""
    if isinstance(one, (list, tuple)):
        return (
            isinstance(other, (list, tuple))
            and len(one) == len(other)
            and all(is_the_same(a, b) for a, b in zip(one, other, strict=True))
        )
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(is_the_same(one[k], other[k]) for k in one)
    if isinstance(one, Decimal):
        return isinstance(other, Decimal) and str(one) == str(other)
    if isinstance(one, datetime):
        walls = one.replace(tzinfo=None, fold=0), other.replace(tzinfo=None, fold=0)
        return walls[0] == walls[1] and one.utcoffset() == other.utcoffset()
    if isinstance(one, (bool, int, float, str)) and not isinstance(one, enum.Enum):
        return isinstance(other, (bool, int, float, str, Decimal)) and one == other
    return (type(one) is type(other) and one == other) or (one is Colour.RED and other in ("red", Colour.RED))


# Keys: what is equal has one, what is not has two.


@task(unique=Unique())
def by_all(at: datetime, price: Decimal, table: dict[str, Any], names: set[str]) -> None: ...


@task(unique=Unique(key=lambda x: x))
def by_one(x: Any) -> None: ...


@task(unique=Unique(key=lambda at, price: (at, [price], {"at": at})))
def by_two(at: datetime, price: Decimal) -> None: ...


AT = datetime(2031, 7, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (by_all.bind(AT, Decimal("1.0"), {"a": 1, "b": 2}, {"x", "y"}),
         by_all.bind(AT.astimezone(PRAGUE), Decimal("1.00"), {"b": 2, "a": 1}, {"y", "x"})),
        (by_two.bind(AT, Decimal(100)), by_two.bind(AT.astimezone(PRAGUE), Decimal("1E+2"))),
        (by_two.bind(AT, Decimal(0)), by_two.bind(AT, Decimal("-0.000"))),
        (by_two.bind(AT, Decimal("1e999999")), by_two.bind(AT, Decimal("10e999998"))),
        (by_one.bind(0.0), by_one.bind(-0.0)),
    ],
    ids=range(5),
)  # fmt: skip
def test_what_is_equal_has_one_key(one, other):
    assert one.unique == other.unique


def test_what_is_not_equal_has_a_key_of_its_own():
    values = [1, "1", '"1"', None, "null", "None", "", 1.5, "1.5", "true", "[1]", "x", '"x"', "-", "-1", -1, " 1", "01"]
    keys = [by_one.bind(value).unique.text for value in values]
    assert len(set(keys)) == len(values)
    assert keys[11] == "x"  # as it is, for SQL
    assert keys[0] == "1"
    long = [by_two.bind(AT, Decimal(f"1.{'0' * 30}{n}")).unique.text for n in (1, 2)]
    assert long[0] != long[1]


def test_a_key_that_has_no_order_is_refused_by_its_option():
    with pytest.raises(InvalidArguments, match=r"argument 'unique'.*its key function failed: TypeError"):
        by_mixed.bind(1)


@task(unique=Unique(key=lambda x: {1: x, "a": x}))
def by_mixed(x: int) -> None: ...


# The whole way


@task
def echo(text: str, at: datetime, n: int) -> tuple[str, str, str]:
    return type(text).__name__, type(at).__name__, Safe(n)


def test_values_of_subclasses_go_the_whole_way(database):
    given = Safe("a"), Moment(2031, 1, 1, tzinfo=UTC), Count(5)
    jobs = [echo.submit(database.conn, *given), *submit_many(database.conn, [echo.bind(*given)])]
    for job in jobs:
        args, _ = echo.signature.decode_arguments(job.refresh(database.conn).arguments)
        assert args == given
        assert [type(value) for value in args] == [str, datetime, int]
    with eager() as backend:
        job: Job[tuple[str, str, str]] = echo.submit(backend.conn, *given)
        assert job.result(backend.conn) == ("str", "datetime", "5")
