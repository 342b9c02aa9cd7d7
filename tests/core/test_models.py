"""Models of Pydantic as arguments and results: what is carried arrives as it was, or is refused by its name."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import attrs
import msgspec
import pydantic
import pytest
import sqlmodel
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, PrivateAttr, RootModel, SecretStr, TypeAdapter
from sqlmodel import SQLModel
from typing_extensions import TypedDict

from chancy import InvalidArguments, InvalidResult, InvalidTask, Limit, Unique, task
from chancy.arguments.codec import signature_of
from chancy.carried.arrival import difference

AT = datetime(2031, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


class Address(BaseModel):
    street: str
    zip: str = Field(pattern=r"^\d{5}$")


class User(BaseModel):
    id: int
    name: str = Field(alias="userName")
    email: str | None = None
    at: datetime = AT
    address: Address | None = None
    tags: list[str] = []


class Admin(User):
    rights: list[str] = []


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")
    at: datetime
    key: UUID
    price: Decimal
    days: dict[date, timedelta] = {}


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str = ""


class Owner(BaseModel):
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]] = []


T = TypeVar("T")


class Page(BaseModel, Generic[T]):
    items: Sequence[T]
    next: int | None = None


class Names(RootModel[dict[str, int]]):
    pass


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int = 1


class Tree(BaseModel):
    value: int
    inner: list[Tree] = []


class Area(BaseModel):
    width: float
    height: float

    @pydantic.computed_field
    @property
    def size(self) -> float:
        return self.width * self.height


class Net(BaseModel):
    address: IPv4Address
    url: HttpUrl
    path: Path


class Event(BaseModel):
    id: UUID = Field(default_factory=uuid4)
    day: date = Field(default_factory=date.today)
    note: str = ""


class Change(BaseModel):
    name: str | None = None
    email: str | None = None
    tags: list[str] = Field(default_factory=list)


class ById(BaseModel):
    """Equal to whatever has its id."""

    id: int
    note: str = ""

    def __eq__(self, other):
        return isinstance(other, ById) and self.id == other.id

    __hash__ = None


class Kept(BaseModel):
    id: int
    _secret: int = PrivateAttr(default=1)


class HeroChange(SQLModel):
    name: str | None = None
    age: int | None = None


class Hero(SQLModel, table=True):
    id: int | None = sqlmodel.Field(default=None, primary_key=True)


class Colour(str, Enum):  # noqa: UP042
    RED = "red"


@pydantic.dataclasses.dataclass
class Positive:
    n: int = Field(ge=0)
    user: User | None = None


@dataclasses.dataclass
class Order:
    user: User
    n: int = 1


class Film(TypedDict):
    title: str
    owner: User


class Pair(NamedTuple):
    user: User
    n: int


class Bill(msgspec.Struct):
    user: User
    n: int = 1
    others: list[User] = []
    strict: Strict | None = None


@attrs.define
class Parcel:
    to: Address
    weight: float = 1.0


def taking(annotation, result=None):
    """The signature of a task with one argument of this type."""

    def takes(x): ...

    takes.__annotations__ = {"x": annotation, "return": annotation if result is None else result}
    return signature_of(takes, "takes")


def arrives(annotation, value):
    signature = taking(annotation)
    ((arrived,), _) = signature.decode_arguments(signature.encode_arguments((value,), {}))
    return arrived


def user(**changes):
    given = {"id": 3, "userName": "Ada", "address": Address(street="Long", zip="12345")} | changes
    return User(**given)


STRICT = Strict(at=AT, key=UUID(int=5), price=Decimal("1.10"), days={date(2031, 1, 1): timedelta(days=1)})

CARRIED = [
    (User, user()),
    (User, user(email="a@b.c", tags=["x"])),
    (Strict, STRICT),
    (Owner, Owner(pets=[Cat(), Dog(name="Rex"), Cat(lives=1)])),
    (Cat | Dog, Dog()),
    (Annotated[Cat | Dog, Field(discriminator="kind")], Cat(lives=8)),
    (Page[int], Page[int](items=[1, 2])),
    (Page[User], Page[User](items=[user()])),
    (Page[int], Page(items=[1])),
    (Names, Names({"a": 1})),
    (Open, Open(a=2, b={"c": [1, None]})),
    (Tree, Tree(value=1, inner=[Tree(value=2, inner=[Tree(value=3)])])),
    (Area, Area(width=2, height=0.5)),
    (Net, Net(address="10.0.0.1", url="http://a.b/c", path="/tmp")),
    (Event, Event()),
    (ById, ById(id=1, note="x")),
    (Kept, Kept(id=1)),
    (Positive, Positive(3, user())),
    (Order, Order(user(), 7)),
    (Film, {"title": "Ran", "owner": user()}),
    (Pair, Pair(user(), 1)),
    (Bill, Bill(user(), 2, [user(id=4)], STRICT)),
    (Parcel, Parcel(Address(street="x", zip="12345"), 2.5)),
    (list[Bill], [Bill(user())]),
    (list[User] | None, [user(), user()]),
    (list[User] | None, None),
    (dict[str, User], {"a": user()}),
    (dict[int, list[User]], {1: [user()]}),
    (tuple[User, int], (user(), 1)),
    (User | str, "somebody"),
    (User | Address, Address(street="x", zip="12345")),
    (Sequence[User], (user(),)),
    (HttpUrl, HttpUrl("https://example.com/a?b=c")),
    (Annotated[int, Field(gt=0)], 3),
    (HeroChange, HeroChange(name="x")),
    (User, User.model_construct(id=3, name="Ada", email=None, at=AT, address=None, tags=[])),
]


@pytest.mark.parametrize(("annotation", "value"), CARRIED, ids=range(len(CARRIED)))
def test_what_is_carried_arrives_as_an_argument_and_as_a_result(annotation, value):
    arrived = arrives(annotation, value)
    assert difference(value, arrived, loosely=True) is None
    assert type(arrived) is (list if isinstance(value, tuple) and annotation == Sequence[User] else type(arrived))
    signature = taking(annotation)
    assert difference(value, signature.decode_result(signature.encode_result(value)), loosely=True) is None


@pytest.mark.parametrize(("annotation", "value"), CARRIED, ids=range(len(CARRIED)))
def test_what_was_set_of_a_model_is_what_was_set_there(annotation, value):
    if isinstance(value, BaseModel) and type(value) not in (Owner, Event, Cat, Dog):
        assert arrives(annotation, value).model_fields_set == value.model_fields_set


class Picky(BaseModel):
    name: str

    @pydantic.field_validator("name")
    @classmethod
    def _shouts(cls, name: str) -> str:
        return f"{name}!"


class Hidden(BaseModel):
    a: int = 1
    b: int = Field(default=1, exclude=True)


class Rounded(BaseModel):
    price: float

    @pydantic.field_serializer("price")
    def _rounds(self, price: float) -> float:
        return round(price, 1)


class Renamed(BaseModel):
    a: int = 1

    @pydantic.model_serializer
    def _renames(self) -> dict[str, Any]:
        return {"A": self.a}


class Slot(BaseModel):
    at: Any = None


class Number(BaseModel):
    value: float | None = None


class ByIdFrozen(ById):
    model_config = ConfigDict(frozen=True)
    x: int = Field(default=0, exclude=True)

    def __hash__(self):
        return self.id


class Node(BaseModel):
    next: Node | None = None


LOOP = Node()
LOOP.next = LOOP
DEEP = Node()
for _ in range(2_000):
    DEEP = Node(next=DEEP)

LOST = [
    (User, {"id": 3, "userName": "Ada"}, "a dict would arrive as an User"),
    (User, Admin(id=3, userName="Ada"), "an Admin would arrive as an User"),
    (list[User], [user(), Admin(id=3, userName="Ada")], r"an Admin would arrive as an User, at \[1\]"),
    (Order, Order(Admin(id=3, userName="Ada")), r"an Admin would arrive as an User, at \.user"),
    (Bill, Bill(Admin(id=3, userName="Ada")), r"an Admin would arrive as an User, at \.user"),
    (Hidden, Hidden(b=2), r"an int would arrive as another one, at \.b"),
    (ById, ById.model_construct(id=1, note=(1,)), "Input should be a valid string, at x.note"),
    (list[Hidden], [Hidden(b=2)], r"at \[0\]\.b"),
    (Picky, Picky(name="x"), r"a str would arrive as another one, at \.name"),
    (Rounded, Rounded(price=0.25), r"a float would arrive as another one, at \.price"),
    (Renamed, Renamed(a=2), r"an int would arrive as another one, at \.a"),
    (Slot, Slot(at=AT), r"a datetime would arrive as a str, at \.at"),
    (Slot, Slot(at=(1, 2)), r"a tuple would arrive as a list, at \.at"),
    (Slot, Slot(at=SecretStr("x")), "SecretStr"),
    (Open, Open(b=AT), r"a datetime would arrive as a str, at \.model_extra"),
    (Number, Number(value=math.nan), "NaN and infinity cannot be carried"),
    (Order, Order(user(), "7"), r"a str would arrive as an int, at \.n"),
    (set[ByIdFrozen], {ByIdFrozen(id=1, x=5)}, r"an int would arrive as another one, at \[…\]\.x"),
    (
        dict[str, frozenset[ByIdFrozen]],
        {"a": frozenset({ByIdFrozen(id=1, x=5)})},
        r"an int would arrive as another one",
    ),
    (Node, LOOP, "Circular reference"),
    (Node, DEEP, "Maximum serialization depth"),
    (Positive, Positive(3), None),
    (User, User.model_construct(id="three", name="Ada"), "Input should be a valid integer"),
    (User, User.model_construct(id=3), "Field required"),
    (User, user().model_copy(update={"id": object()}), "Unable to serialize unknown type"),
    (User | str, 7, "Input should be"),
    (Annotated[int, Field(gt=0)], -1, "Input should be greater than 0"),
]


@pytest.mark.parametrize(("annotation", "value", "reason"), LOST, ids=range(len(LOST)))
def test_what_would_arrive_as_something_else_is_refused_at_submit_by_the_arguments_name(annotation, value, reason):
    if reason is None:
        value.n, reason = -5, "Input should be greater than or equal to 0, at x.n"
    with pytest.raises(InvalidArguments, match=rf"argument 'x' of task takes: .*{reason}"):
        arrives(annotation, value)


def test_a_private_attribute_that_is_not_what_a_new_model_has_is_not_lost_silently():
    kept = Kept(id=1)
    kept._secret = 7
    with pytest.raises(
        InvalidArguments, match=r"an int would arrive as another one, at \._secret; .*private attribute"
    ):
        arrives(Kept, kept)


class Secret(BaseModel):
    key: SecretStr


class Told(BaseModel):
    key: SecretStr

    @pydantic.field_serializer("key", when_used="json")
    def _tells(self, key: SecretStr) -> str:
        return key.get_secret_value()


class Outer(BaseModel):
    inner: list[Secret] = []


class Excluded(BaseModel):
    a: int = Field(exclude=True)


class OneWay(BaseModel):
    a: int = Field(serialization_alias="b")


class OtherWay(BaseModel):
    a: int = Field(validation_alias="b")


class Late(BaseModel):
    later: Later  # noqa: F821


@pydantic.dataclasses.dataclass(config=ConfigDict(extra="allow"))
class OpenOne:
    a: int


@pydantic.dataclasses.dataclass
class UsedUp:
    a: int
    seed: dataclasses.InitVar[int] = 0


@dataclasses.dataclass
class AlsoUsedUp:
    user: User
    seed: dataclasses.InitVar[int] = 0


class Wrong(msgspec.Struct):
    positive: Positive


class Either(msgspec.Struct):
    pet: Cat | Dog


@attrs.define
class Shut:
    _hidden: int


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (Secret, "Secret: field 'key': a secret says asterisks"),
        (list[Outer], "Secret: field 'key'"),
        (SecretStr, "a secret says asterisks"),
        (dict[str, SecretStr], "a secret says asterisks"),
        (Excluded, "Excluded: field 'a' is required, and exclude=True"),
        (OneWay, "OneWay: field 'a' is written as '.*', and not read by that name: give it one alias="),
        (OtherWay, "OtherWay: field 'a' is written as '.*', and not read by that name: give it one alias="),
        (BaseModel, "it is the base of all models"),
        (Late, "Late: it is not fully defined .*Later"),
        (Hero, "a row of your database: pass its id"),
        (OpenOne, "OpenOne: a dataclass with extra='allow'"),
        (Wrong, "Positive is a dataclass of Pydantic, which nobody would ask within Wrong"),
        (Either, "make Either a dataclass or a model"),
        (list[User | int] | Bill, "make Bill a dataclass or a model"),
        (type[User], "is made of code"),
        (list[Iterator[User]], "is made of code"),
        (UsedUp, "an InitVar is used up"),
        (AlsoUsedUp, "an InitVar is used up"),
        (Shut, "Shut keeps '_hidden' to itself"),
    ],
    ids=str,
)
def test_what_can_never_arrive_as_it_was_is_refused_at_decoration(annotation, reason):
    def function(x) -> None: ...

    for given_as in ({"x": annotation, "return": None}, {"x": int, "return": annotation}):
        function.__annotations__ = given_as
        with pytest.raises(
            InvalidTask, match=rf"(argument 'x'|its result) has a type that cannot be carried.*{reason}"
        ):
            signature_of(function, "takes")


def test_a_secret_that_has_a_serializer_of_its_own_is_carried():
    assert arrives(Told, Told(key="k")).key.get_secret_value() == "k"


def test_the_errors_tell_kinds_and_places_and_no_values():
    signature = taking(dict[str, User])
    given = {"the password": {"id": "the password", "userName": "the password"}}
    with pytest.raises(InvalidArguments) as caught:
        signature.decode_arguments(json.dumps({"x": given}).encode())
    assert "password" not in str(caught.value)
    assert str(caught.value).endswith("unable to parse string as an integer, at x[…].id")
    with pytest.raises(InvalidArguments) as caught:
        arrives(list[User], [user(), User.model_construct(id="the password")])
    assert "password" not in str(caught.value)


@pytest.mark.parametrize(
    ("payload", "argument", "said"),
    [
        (b'{"x": {"id": "no", "userName": "a"}}', "x", "unable to parse string as an integer, at x.id"),
        (b'{"x": {"id": 1}}', "x", "Field required, at x.userName"),
        (
            b'{"x": {"id": 1, "userName": "a", "address": {"street": 1, "zip": "1"}}}',
            "x",
            r"\(and 1 more\), at x.address.street",
        ),
        (b"{}", "x", "missing required field"),
        (b'{"x": {"id": 1, "userName": "a"}, "y": 1}', "y", "unknown field"),
        (b'{"x": NaN}', None, "JSON is malformed"),
        (b"[]", None, "Expected `object`"),
    ],
)
def test_arguments_that_this_version_of_a_model_does_not_take_are_named(payload, argument, said):
    with pytest.raises(InvalidArguments, match=said) as caught:
        taking(User).decode_arguments(payload)
    assert caught.value.argument == argument


def test_which_fields_were_set_is_carried():
    """So that `model_dump(exclude_unset=True)` says there what it said here."""
    signature = taking(Change)
    payload = signature.encode_arguments((Change(email=None),), {})
    assert payload == b'{"x":{"email":null}}'
    ((arrived,), _) = signature.decode_arguments(payload)
    assert arrived.model_dump(exclude_unset=True) == {"email": None}
    changed = Change(name="x")
    changed.tags.append("y")  # which does not set it
    assert arrives(Change, changed).tags == ["y"]
    inner = arrives(dict[str, list[Change]], {"a": [Change(name="x"), Change()]})
    assert [each.model_fields_set for each in inner["a"]] == [{"name"}, set()]


def test_a_default_that_another_day_makes_another_one_is_carried():
    payload = taking(Event).encode_arguments((event := Event(note="x"),), {})
    assert json.loads(payload)["x"] == {"id": str(event.id), "day": str(event.day), "note": "x"}


def test_a_model_that_looks_elsewhere_for_what_it_is_not_given_is_carried_whole(monkeypatch):
    class Settings(BaseModel):
        retries: int = 1

        def __init__(self, **given):
            super().__init__(**{"retries": ELSEWHERE[0]} | given)

    signature = taking(Settings)
    payload = signature.encode_arguments((Settings(),), {})
    monkeypatch.setitem(ELSEWHERE, 0, 2)
    assert signature.decode_arguments(payload)[0][0].retries == 1


ELSEWHERE = {0: 1}


def test_a_union_that_a_field_tells_apart_which_nobody_set_is_carried():
    assert arrives(Owner, Owner(pets=[Dog(), Cat()])).pets == [Dog(), Cat()]
    assert type(arrives(Cat | Dog, Dog())) is Dog


def test_a_deprecated_field_is_compared_without_a_warning():
    class Old(BaseModel):
        a: int = Field(default=1, deprecated=True)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert arrives(Old, Old(a=2)) == Old(a=2)


def test_arguments_beside_models_are_carried_as_ever():
    def mixed(
        first: User,
        /,
        n: int,
        *,
        at: datetime = AT,
        users: list[User] | None = None,
        page: Page[int] = Page[int](items=[1]),  # noqa: B008
    ): ...

    signature = signature_of(mixed, "mixed")
    for args, kwargs in [
        ((user(), 1), {}),
        ((user(), True), {"users": [user()]}),
        ((user(),), {"page": Page[int](items=[2]), "n": 2}),
    ]:
        payload = signature.encode_arguments(args, kwargs)
        assert set(json.loads(payload)) == {"first", "n"} | kwargs.keys()
        (first, n), more = signature.decode_arguments(payload)
        assert (first, n) == (user(), args[1] if len(args) > 1 else 2)
        assert more == {"at": AT, "users": kwargs.get("users"), "page": kwargs.get("page", Page[int](items=[1]))}
    for args, kwargs, named in [
        ((user(), "1"), {}, "n"),
        ((user(), object()), {}, "n"),
        ((object(), 1), {}, "first"),
        ((user(), 1), {"users": [object()]}, "users"),
        ((user(), 1), {"users": (user(),)}, "users"),
        ((user(), 1), {"at": "2031"}, "at"),
        ((user(), "x" * 17 * 1024**2), {}, "n"),
        ((user(tags=["x" * 17 * 1024**2]), 1), {}, "first"),
    ]:
        with pytest.raises(InvalidArguments) as caught:
            signature.encode_arguments(args, kwargs)
        assert caught.value.argument == named, str(caught.value)[:200]


@pytest.mark.parametrize(
    ("annotation", "value", "arrived"),
    [
        (User, {"id": 3, "name": "Ada", "userName": "Ada"}, None),
        (Address, {"street": "x", "zip": "12345"}, Address(street="x", zip="12345")),
        (Change, {"name": "x"}, Change(name="x")),
        (list[Address], (Address(street="x", zip="12345"),), [Address(street="x", zip="12345")]),
        (Order, Order(user(), 7), Order(user(), 7)),
        (Hidden, Hidden(b=2), None),
        (User, Admin(id=3, userName="Ada", rights=["all"]), None),
        (Slot, Slot(at=AT), Slot(at="2031-01-02T03:04:05.678901Z")),
        (Slot, Slot(at=SecretStr("x")), None),
        (Number, Number(value=math.inf), None),
        (User, "no", None),
        (
            Net,
            Net(address="10.0.0.1", url="http://a.b/c", path="/tmp"),
            Net(address="10.0.0.1", url="http://a.b/c", path="/tmp"),
        ),
    ],
    ids=range(12),
)
def test_a_result_may_be_of_another_kind_while_nothing_of_it_is_lost(annotation, value, arrived):
    signature = taking(annotation)
    if arrived is None:
        with pytest.raises(InvalidResult):
            signature.encode_result(value)
    else:
        assert signature.decode_result(signature.encode_result(value)) == arrived


def test_a_model_where_nothing_is_annotated_is_refused_as_an_argument_with_the_way_out():
    with pytest.raises(InvalidArguments, match=r"there is a User in it, .* annotate it"):
        arrives(Any, user())


@pytest.mark.parametrize(
    ("value", "arrived"),
    [
        (Address(street="x", zip="12345"), {"street": "x", "zip": "12345"}),
        ([Names({"a": 1}), Open(a=1, z=5)], [{"a": 1}, {"a": 1, "z": 5}]),
        ({"slot": Slot(at=AT)}, {"slot": {"at": "2031-01-02T03:04:05.678901Z"}}),
        (Hidden(b=2), {"a": 1, "b": 2}),
        (Slot(at=SecretStr("x")), None),
        (Hero(name="x"), None),
    ],
    ids=range(6),
)
def test_a_model_is_a_result_of_its_fields_where_nothing_is_annotated(value, arrived):
    """The work is done: of a function without an annotation it is read as a dict, and only what is lost is refused."""
    for signature in (taking(int, Any), taking(int, type(arrived or {}))):
        if arrived is None:
            with pytest.raises(InvalidResult, match=r"SecretStr|a row of your database"):
                signature.encode_result(value)
        else:
            assert signature.decode_result(signature.encode_result(value)) == arrived


# Keys get the model.


@task(
    unique=Unique(key=lambda user: user.id),
    group=lambda user: user.name,
    limits=[Limit.concurrency(1, key=lambda user: user.tags)],
)
def by_id(user: User) -> None: ...


@task(unique=Unique())
def by_all(strict: Strict, n: int = 1) -> None: ...


def test_key_functions_get_the_model():
    one, same, other = by_id.bind(user()), by_id.bind(user(email="x")), by_id.bind(user(id=4))
    assert one.unique.text == same.unique.text == "3"
    assert other.unique.text == "4"
    assert b"Ada" in one.gates


def test_what_is_equal_has_one_key_within_models_too():
    prague = STRICT.model_copy(update={"at": AT.astimezone(ZoneInfo("Europe/Prague")), "price": Decimal("1.100")})
    assert by_all.bind(STRICT).unique == by_all.bind(prague).unique == by_all.bind(prague, 1).unique
    other = STRICT.model_copy(update={"price": Decimal("1.2")})
    assert by_all.bind(other).unique != by_all.bind(STRICT).unique


def test_nothing_of_pydantic_or_attrs_is_imported_for_a_task_without_them():
    program = "import sys, chancy\n@chancy.task(name='x')\ndef f(a: int) -> None: ...\nf.signature.encode_arguments((1,), {})\nprint(*{'pydantic', 'attrs', 'attr', 'annotated_types'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


# Property: what is taken is what arrives, and what Pydantic's own round trip gives.


class Everything(BaseModel):
    a: int = 0
    b: float = 0.0
    c: str = ""
    d: bool | None = None
    e: datetime | None = None
    f: Decimal | None = None
    g: list[int] | dict[str, int] | None = None
    h: Colour | None = None
    i: set[int] = Field(default_factory=set)
    j: tuple[int, str] | None = None
    k: timedelta | None = None
    l: Cat | Dog | None = None  # noqa: E741
    m: bytes | None = None
    n: Any = None
    o: int | str | float | None = None
    p: Everything | None = None
    q: int = Field(default=0, exclude=True)
    r: date | datetime | None = None


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2) | st.tuples(inner)
    ),
    max_leaves=4,
)
FIELDS = {
    "a": st.integers(-(2**80), 2**80), "b": st.floats(), "c": st.text(max_size=4), "d": st.none() | st.booleans(),
    "e": st.datetimes(timezones=st.none() | st.just(UTC) | st.just(ZoneInfo("Europe/Prague"))), "f": st.decimals(allow_nan=False, allow_infinity=False),
    "g": st.lists(st.integers(), max_size=2) | st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    "h": st.just(Colour.RED), "i": st.sets(st.integers(), max_size=2), "j": st.tuples(st.integers(), st.text(max_size=2)),
    "k": st.timedeltas(), "l": st.just(Cat()) | st.builds(Dog, name=st.text(max_size=2)) | st.builds(Cat, lives=st.integers()),
    "m": st.binary(max_size=3), "n": JSONS, "o": st.integers() | st.text(max_size=3) | st.floats(),
    "q": st.integers(0, 1), "r": st.dates() | st.datetimes(),
}  # fmt: skip
MODELS = st.fixed_dictionaries({}, optional=FIELDS).map(lambda fields: Everything(**fields))
NESTED = st.builds(
    lambda outer, inner: outer.model_copy(update={"p": inner}) if inner else outer, MODELS, st.none() | MODELS
)
SHAPES = {
    "one": (Everything, NESTED),
    "list": (list[Everything], st.lists(NESTED, max_size=2)),
    "dict": (dict[str, Everything | None], st.dictionaries(st.text(max_size=2), NESTED | st.none(), max_size=2)),
    "pair": (tuple[Everything, int], st.tuples(NESTED, st.integers())),
}
COMPILED = {name: (taking(annotation), TypeAdapter(annotation)) for name, (annotation, _) in SHAPES.items()}


@pytest.mark.long
@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.one_of(*[st.tuples(st.just(name), values) for name, (_, values) in SHAPES.items()]))
def test_whatever_is_taken_arrives_as_it_was_and_is_what_pydantics_own_round_trip_gives(shape_and_value):
    shape, value = shape_and_value
    signature, adapter = COMPILED[shape]
    try:
        own = adapter.validate_json(adapter.dump_json(value, round_trip=True, by_alias=True))
        comes_back = same(value, own)
    except ValueError:
        comes_back = False
    try:
        payload = signature.encode_arguments((value,), {})
    except InvalidArguments as error:
        refused = error.argument, comes_back
        assert refused == ("x", False)
        return
    assert comes_back
    ((arrived,), _) = signature.decode_arguments(payload)
    assert same(value, arrived)


def same(one: Any, other: Any) -> bool:
    """Said once more, in another way than the library says it."""
    if isinstance(one, BaseModel):
        return type(one) is type(other) and same(dict(one), dict(other))
    if isinstance(one, dict):
        return type(other) is dict and list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, datetime) and isinstance(other, datetime):
        return (
            one.replace(tzinfo=None, fold=0) == other.replace(tzinfo=None, fold=0)
            and one.utcoffset() == other.utcoffset()
        )
    if isinstance(one, (bool, int, float)) and isinstance(other, (bool, int, float)):
        return one == other and (isinstance(one, bool) is isinstance(other, bool))
    if isinstance(one, Decimal):
        return isinstance(other, Decimal) and str(one) == str(other)
    return type(one) is type(other) and one == other
