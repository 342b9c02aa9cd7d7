"""Arguments are checked at submit, before any SQL is sent, and come back as what they were."""

from __future__ import annotations

import socket
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import InitVar, dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, Literal, NamedTuple, Optional, TypedDict
from uuid import UUID

import attrs
import msgspec
import peewee
import psycopg
import pytest
from sqlalchemy import orm

import chancy
from chancy import InvalidArguments, InvalidConnection, InvalidResult, InvalidTask, task
from chancy.arguments.codec import signature_of


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


@dataclass
class Point:
    x: float
    y: float | None = None


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    name: str


class Film(TypedDict):
    title: str
    year: int


class Pair(NamedTuple):
    left: int
    right: str


@task
def everything(
    at: datetime,
    day: date,
    span: timedelta,
    key: UUID,
    price: Decimal,
    size: Size,
    raw: bytes,
    point: Point,
    pet: Cat | Dog,
    film: Film,
    pair: Pair,
    tags: set[int],
    maybe: Optional[int],  # noqa: UP045
    choice: Literal["a", "b"] = "a",
) -> None: ...


@task
def shaped(first: int, /, second: str = "two", *, third: float = 3.0, fourth: Size = Size.SMALL) -> tuple[Any, ...]:
    return first, second, third, fourth


@task
def risky(
    text: str = "", number: float = 0.0, maybe: float | None = None, point: Point | None = None, any_: Any = None
) -> None: ...


@task
def measured(number: int) -> float | None: ...


EVERYTHING: dict[str, Any] = {
    "at": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    "day": date(2024, 2, 29),
    "span": timedelta(days=3, seconds=4, microseconds=5),
    "key": UUID("12345678-1234-5678-1234-567812345678"),
    "price": Decimal("0.100000000000000000001"),
    "size": Size.LARGE,
    "raw": b"\x00\xff'\"\\",
    "point": Point(0.1, None),
    "pet": Dog("Rex"),
    "film": {"title": "Ran", "year": 1985},
    "pair": Pair(1, "r"),
    "tags": {3, 1, 2},
    "maybe": None,
    "choice": "b",
}


@pytest.mark.parametrize("changes", [{}, {"pet": Cat(9), "maybe": 2**53 + 1}])
def test_every_kind_of_argument_comes_back_from_postgres_as_it_was(database, changes):
    given = EVERYTHING | changes
    job = everything.submit(database.conn, **given)
    args, kwargs = everything.signature.decode_arguments(job.refresh(database.conn).arguments)
    assert args == tuple(given.values())
    assert [type(value) for value in args] == [type(value) for value in given.values()]
    assert kwargs == {}


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((1,), {}, (1, "two", 3.0, Size.SMALL)),
        ((1, "b"), {"third": 4}, (1, "b", 4.0, Size.SMALL)),
        ((1,), {"fourth": Size.LARGE, "second": "c"}, (1, "c", 3.0, Size.LARGE)),
    ],
)
def test_defaults_positional_only_and_keyword_only_arguments_reach_the_function(args, kwargs, expected):
    decoded_args, decoded_kwargs = shaped.signature.decode_arguments(shaped.bind(*args, **kwargs).arguments)
    assert shaped(*decoded_args, **decoded_kwargs) == expected == shaped(*args, **kwargs)


LOOP: list[Any] = []
LOOP.append(LOOP)

WRONG = [
    (shaped, (), {}, "first"),
    (shaped, (1,), {"extra": 1}, "extra"),
    (shaped, (), {"first": 1}, "first"),
    (shaped, (1, "a"), {"second": "b"}, "second"),
    (shaped, (1, "a", 3.0), {}, None),
    (shaped, ("1",), {}, "first"),
    (shaped, (1,), {"fourth": "huge"}, "fourth"),
    (risky, (), {"number": float("nan")}, "number"),
    (risky, (), {"number": float("inf")}, "number"),
    (risky, (), {"maybe": float("nan")}, "maybe"),
    (risky, (), {"point": Point(0.0, float("nan"))}, "point"),
    (risky, (), {"point": Point("0")}, "point"),
    (risky, (), {"any_": {"deep": [1, (float("-inf"),)]}}, "any_"),
    (risky, (), {"any_": object()}, "any_"),
    (risky, (), {"any_": LOOP}, "any_"),
    (risky, (), {"text": "lone \ud800"}, "text"),
    (risky, (), {"text": b"bytes that look like text"[0]}, "text"),
    (risky, (), {"text": "x" * (16 * 1024**2)}, "text"),
]


@pytest.mark.parametrize(("wrong", "args", "kwargs", "argument"), WRONG, ids=range(len(WRONG)))
def test_wrong_arguments_are_named_and_nothing_is_sent(database, wrong, args, kwargs, argument):
    closed = database.connect()
    closed.close()
    with pytest.raises(InvalidArguments) as caught:
        wrong.submit(closed, *args, **kwargs)
    assert (caught.value.task, caught.value.argument) == (wrong.name, argument)
    str(caught.value).encode()
    assert len(str(caught.value)) < 1000
    with pytest.raises(InvalidConnection, match="closed"):
        risky.submit(closed)


async def test_the_callers_transaction_is_still_usable_after_wrong_arguments(caller, database):
    conn = await caller.connect()
    kept = await caller.now(risky.submit(conn, "kept"))
    with pytest.raises(InvalidArguments):
        await caller.now(risky.submit(conn, "lone \ud800"))
    assert conn.info.transaction_status is psycopg.pq.TransactionStatus.INTRANS
    await caller.now(conn.commit())
    assert database.ids() == [kept.id]


async def test_five_megabytes_of_text_arrive_bit_for_bit(caller, database):
    text = ('ab"\\\x00\nЖ\U0001f40d,' * 400_000)[: 5 * 1024**2]
    conn = await caller.connect(autocommit=True)
    job = await caller.now(risky.submit(conn, text))
    args, _ = risky.signature.decode_arguments((await caller.now(job.refresh(conn))).arguments)
    assert args[0] == text


def test_null_where_null_was_meant_is_no_nan():
    args, _ = risky.signature.decode_arguments(risky.bind(maybe=None, point=Point(1.0), any_=[None]).arguments)
    assert args == ("", 0.0, None, Point(1.0), [None])


@pytest.mark.parametrize(
    "value", ["text", float("nan"), object(), "\ud800"], ids=["text", "nan", "object", "surrogate"]
)
def test_a_result_that_is_not_as_promised_is_refused(value):
    with pytest.raises(InvalidResult, match=r"result of task .*measured"):
        measured.signature.encode_result(value)


def test_arguments_that_no_longer_fit_the_signature_are_named():
    with pytest.raises(InvalidArguments, match="'first'"):
        shaped.signature.decode_arguments(b'{"first": "one"}')
    with pytest.raises(InvalidArguments, match="'gone'"):
        shaped.signature.decode_arguments(b'{"first": 1, "gone": 2}')


@dataclass
class Picky:
    name: str

    def __post_init__(self) -> None:
        _ = {"known": 1}[self.name]


@task
def takes(anything: Any = None, picky: Picky | None = None) -> Any: ...


DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    ("payload", "said"),
    [(b'{"anything": %s}' % DEEP, "RecursionError"), (b'{"picky": {"name": "unknown"}}', "KeyError: 'unknown'")],
)
def test_arguments_that_cannot_be_read_are_told_as_such_whatever_reading_them_raises(payload, said):
    with pytest.raises(InvalidArguments, match=f"of task .*takes: {said}"):
        takes.signature.decode_arguments(payload)


def test_a_result_that_cannot_be_read_is_told_as_such():
    with pytest.raises(InvalidResult, match=r"result of task .*takes: RecursionError"):
        takes.signature.decode_result(DEEP)


def stars(*numbers: int) -> None: ...
def double_stars(**numbers: int) -> None: ...
def bare(number) -> None: ...
def wired(wire: socket.socket) -> None: ...
def nested(wires: dict[str, list[socket.socket]]) -> None: ...
def returns_a_wire() -> socket.socket: ...
def mutable(numbers: list[int] = [1]) -> None: ...  # noqa: B006
def unresolved(x: Nowhere) -> None: ...  # noqa: F821


class Klass:
    def method(self, number: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (stars, "numbers"),
        (double_stars, "numbers"),
        (bare, "'number' needs a type annotation"),
        (wired, "'wire'"),
        (nested, "'wires'"),
        (returns_a_wire, "its result"),
        (mutable, "'numbers' has a mutable default"),
        (unresolved, "Nowhere"),
        (Klass.method, "method"),
    ],
)
def test_a_function_that_cannot_be_carried_is_refused_at_decoration(function, named):
    with pytest.raises(InvalidTask, match=named):
        task(function)
    assert f"{__name__}.{function.__qualname__}" not in chancy.registry.registered()


@dataclass
class UsedUp:
    number: int
    seed: InitVar[int]


@attrs.define
class OfItself:
    number: int
    double: int = attrs.field(default=attrs.Factory(lambda self: self.number * 2, takes_self=True))


class Base(orm.DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "row"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)


class DataclassBase(orm.MappedAsDataclass, orm.DeclarativeBase):
    pass


class RowThatIsADataclass(DataclassBase):
    __tablename__ = "row"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)


class RowOfPeewee(peewee.Model):
    pass


@dataclass
class OtherPoint:
    x: int


CARRIED_NOWHERE = [
    (Row, "Row is a row of your database: pass its id"),
    (list[RowThatIsADataclass], "RowThatIsADataclass is a row of your database: pass its id"),
    (RowOfPeewee, "RowOfPeewee is a row of your database: pass its id"),
    (orm.Session, r"sqlalchemy\.orm\.session\.Session belongs to this process: make one in the function"),
    (psycopg.Connection, "belongs to this process: make one in the function"),
    (Path, r"pathlib\.Path: pass its text, a str"),
    (deque[int], r"collections\.deque: annotate a list, a dict or a set"),
    (Callable[[], int], "is made of code, and has no JSON: pass what the function needs to find it"),
    (complex, "complex: pass a text, a number or an id, or make it a dataclass, a Struct or a model of Pydantic"),
    (UsedUp, "an InitVar is used up when the object is made, .*: make it a field"),
    (OfItself, "OfItself makes the default of 'double' of its other fields: set it in __attrs_post_init__"),
    (Point | OtherPoint, "JSON cannot tell them apart: make them models of Pydantic, or Structs with tag=True"),
    (str | bytes, "JSON cannot tell them apart: take one of them"),
]


@pytest.mark.parametrize(("annotation", "way_out"), CARRIED_NOWHERE, ids=lambda given: str(given)[:30])
def test_a_type_that_cannot_be_carried_is_refused_with_the_way_out(annotation, way_out):
    def function(x) -> None: ...

    for given_as in ({"x": annotation, "return": None}, {"x": int, "return": annotation}):
        function.__annotations__ = given_as
        with pytest.raises(InvalidTask, match=way_out) as refused:
            signature_of(function, "takes")
        assert "github" not in str(refused.value).lower()


@dataclass
class Louder:
    word: str

    def __post_init__(self) -> None:
        self.word += "!"


@task(name="core.louder")
def louder(word: Louder) -> None: ...


def test_a_row_in_the_place_of_its_id_is_refused_with_the_way_out():
    with pytest.raises(InvalidArguments, match=r"argument 'second' .*Row is a row of your database: pass its id$"):
        shaped.bind(1, Row(id=7))
    with pytest.raises(InvalidResult, match=r"Row is a row of your database: pass its id$"):
        shaped.signature.encode_result(Row(id=7))


def test_what_its_class_changes_on_its_way_is_refused_with_the_way_out():
    with pytest.raises(InvalidArguments, match=r"at \.word; its class changes it .*__post_init__.*: carry what it is"):
        louder.bind(Louder("hey"))


WITH_TYPE_STATEMENTS = """
type UserId = int
type Pair[T] = tuple[T, T]
type Words = list[str]
def by_alias(user: UserId, pair: Pair[int], words: Words) -> UserId: ...
def generic[T: int](number: T) -> T: ...
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the statement is of Python 3.12")
def test_what_a_type_statement_names_is_carried_as_what_it_stands_for():
    written: dict[str, Any] = {"__name__": "typed_tasks"}
    exec(WITH_TYPE_STATEMENTS, written)
    by_alias = task(written["by_alias"])
    payload = by_alias.signature.encode_arguments((1, (2, 3), ["a"]), {})
    assert by_alias.signature.decode_arguments(payload) == ((1, (2, 3), ["a"]), {})
    with pytest.raises(InvalidArguments, match="'user'"):
        by_alias.bind("one", (2, 3), [])
    assert task(written["generic"]).bind(1).arguments == b'{"number":1}'
