"""What is `Annotated[…, Secret()]` arrives, and is hidden where people look."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Generic, NamedTuple, NewType, TypedDict, TypeVar

import msgspec
import pydantic
import pytest

from chancy import Secret, Unique, task
from chancy.carried.secrets import HIDDEN, Secrets, hidden, secrets_in

Password = Annotated[str, Secret()]
Token = NewType("Token", Password)
T = TypeVar("T")


class Login(msgspec.Struct, rename="camel"):
    user_name: str
    pass_word: Password
    before: list[Login] | None = None


class Row(msgspec.Struct, array_like=True):
    name: str
    password: Password


class Pair(NamedTuple):
    name: str
    password: Password


@dataclass
class Card:
    number: Annotated[int, Secret()]
    name: str = ""


class Extra(TypedDict):
    key: Password
    name: str


class Box(msgspec.Struct, Generic[T]):
    content: T


class Account(pydantic.BaseModel):
    name: str
    iban: Annotated[str, Secret()] = pydantic.Field(alias="IBAN")
    cards: list[Card] = []


class Harmless(msgspec.Struct):
    again: Harmless | None = None


def takes(annotation):
    def function(given): ...

    function.__annotations__ = {"given": annotation}
    return function


LOGIN = {"userName": "ann", "passWord": "pw", "before": [{"userName": "ann", "passWord": "old"}]}
CARD = {"number": 4111, "name": "visa"}


@pytest.mark.parametrize(
    ("annotation", "value", "seen"),
    [
        (Password, "pw", HIDDEN),
        (Annotated[str, Secret], "pw", HIDDEN),
        (Token, "pw", HIDDEN),
        (Password | None, None, None),
        (Password | None, "pw", HIDDEN),
        (list[Password], ["a", "b"], [HIDDEN, HIDDEN]),
        (tuple[str, Password], ["a", "pw"], ["a", HIDDEN]),
        (dict[str, Password], {"a": "pw"}, {"a": HIDDEN}),
        (dict[Password, int], {"pw": 1}, HIDDEN),
        (Annotated[dict[str, int], Secret()], {"pw": 1}, HIDDEN),
        (Login, LOGIN, {"userName": "ann", "passWord": HIDDEN, "before": [HIDDEN]}),
        (list[Login], [{"userName": "ann", "passWord": "pw"}], [{"userName": "ann", "passWord": HIDDEN}]),
        (Row, ["ann", "pw"], [HIDDEN, HIDDEN]),
        (Pair, ["ann", "pw"], ["ann", HIDDEN]),
        (Card, CARD, {"number": HIDDEN, "name": "visa"}),
        (str | Card, CARD, {"number": HIDDEN, "name": "visa"}),
        (str | Card, "visa", "visa"),
        (Extra, {"key": "pw", "name": "a"}, {"key": HIDDEN, "name": "a"}),
        (Box[Password], {"content": "pw"}, HIDDEN),
        (Box[str], {"content": "pw"}, {"content": "pw"}),
        (
            Account,
            {"name": "ann", "IBAN": "CZ65", "cards": [CARD]},
            {"name": "ann", "IBAN": HIDDEN, "cards": [{"number": HIDDEN, "name": "visa"}]},
        ),
        (Harmless, {"again": {"again": None}}, {"again": {"again": None}}),
        (str, "pw", "pw"),
    ],
    ids=str,
)
def test_a_secret_is_hidden_wherever_it_is_in_an_argument(annotation, value, seen):
    secrets = secrets_in(takes(annotation))
    assert json.loads(hidden(json.dumps({"given": value}).encode(), secrets.arguments)) == {"given": seen}


def test_a_position_of_a_tuple_is_hidden_and_its_neighbours_are_not():
    places = secrets_in(takes(tuple[str, Password])).arguments
    assert hidden(b'{"given":["a","pw","c"]}', places) == b'{"given":["a","[secret]","c"]}'


def test_of_a_result_it_is_said_as_well():
    def function() -> Login: ...

    function.__annotations__ = {"return": Login}
    assert secrets_in(function).result == (("before", "*"), ("passWord",))
    assert secrets_in(function).arguments == ()


def test_where_secrets_are_travels_as_json():
    secrets = secrets_in(takes(Account))
    assert msgspec.json.decode(msgspec.json.encode(secrets), type=Secrets) == secrets
    assert bool(secrets)
    assert not secrets_in(takes(str))


@pytest.mark.parametrize(
    "payload", [b"", b"{", b'{"given":"\\ud800"}', b'{"given":' + b"[" * 5000 + b"]" * 5000 + b"}"]
)
def test_what_cannot_be_read_is_not_shown_at_all(payload):
    assert hidden(payload, (("given",),)) == b'"[secret]"'


def test_without_secrets_the_bytes_are_as_they_were():
    payload = b'{ "given": 1.00, "given": 2 }'
    assert hidden(payload, ()) is payload
    assert hidden(b'{"given":"a","given":"b"}', (("given",),)) == b'{"given":"[secret]"}'


def test_what_has_another_shape_than_today_is_shown_as_far_as_it_is_no_secret():
    assert hidden(b'{"given":7}', (("given", "passWord"), ("other", "*"))) == b'{"given":7}'


@task
def log_in(user: str, password: Annotated[str, Secret()], login: Login | None = None) -> Annotated[str, Secret()]:
    return password


def test_a_secret_is_carried_as_it_is():
    assert log_in("ann", "pw") == "pw"
    new = log_in.bind("ann", "pw", Login("ann", "pw"))
    (given, _) = log_in.signature.decode_arguments(new.arguments)
    assert given == ("ann", "pw", Login("ann", "pw"))
    assert log_in.signature.encode_result("pw") == b'"pw"'


@task(unique=Unique())
def once(user: str, password: Annotated[str, Secret()]) -> None: ...


@task(unique=Unique())
def plainly_once(user: str, password: str) -> None: ...


def test_the_key_of_a_unique_job_holds_no_secret_unless_its_function_says_so():
    key, other = once.bind("ann", "hunter2").unique, once.bind("ann", "hunter3").unique
    assert key is not None
    assert other is not None
    assert "hunter2" not in key.text
    assert "ann" not in key.text
    assert key.text == once.bind("ann", "hunter2").unique.text != other.text
    assert "hunter2" in plainly_once.bind("ann", "hunter2").unique.text
