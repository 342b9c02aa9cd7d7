"""A task's signature as a form, and what is typed into it as a job."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pydantic
import pytest
import shop_tasks

from chancy import InvalidArguments, NewJob, Secret, task
from chancy_ops.forms.fields import FormField, fields_of
from chancy_ops.forms.reading import NOT_SHOWN, read, typed_again


class Size(Enum):
    SMALL = "small"
    LARGE = "large"
    ANY = "any"


class Level(IntEnum):
    LOW = 1
    HIGH = 20


class Address(msgspec.Struct):
    street: str
    number: int = 1


class Order(pydantic.BaseModel):
    id: int
    note: str = ""


Years = Annotated[int, msgspec.Meta(ge=18, lt=130, description="Whole years.")]


@task
def everything(
    text: str,
    years: Years,
    ratio: float = 0.5,
    flag: bool = True,
    maybe: bool | None = None,
    size: Size = Size.LARGE,
    level: Level = Level.LOW,
    mode: Literal["slow", "fast", 3] = "slow",
    day: date = date(2026, 1, 2),
    at: datetime | None = None,
    hour: time | None = None,
    who: UUID | None = None,
    price: Decimal = Decimal("1.50"),
    wait: timedelta = timedelta(seconds=90),
    numbers: list[int] = [],  # noqa: B006
    to: Address | None = None,
    order: Order | None = None,
    either: int | str = 1,
    short: Annotated[str, msgspec.Meta(min_length=2, max_length=5, pattern="^[a-z]+$")] = "abc",
    few: Annotated[int, pydantic.Field(ge=3, description="A few.")] = 4,
    note: str | None = "none",
    anything: Any = None,
    password: Annotated[str, Secret()] = "",
) -> None: ...


NEEDED = {"text": "a", "years": "30"}
FIELDS = {field.name: field for field in fields_of(everything)}


@pytest.mark.parametrize(
    "field",
    [
        FormField("text", "text", required=True),
        FormField("years", "number", required=True, least="18", most="129", step="1", doc="Whole years."),
        FormField("ratio", "number", required=False, default="0.5", step="any"),
        FormField("flag", "flag", required=False, default="true"),
        FormField("maybe", "choice", required=False, default="", nullable=True, choices=("true", "false")),
        FormField("size", "choice", required=False, default="large", choices=("small", "large", "any")),
        FormField("level", "choice", required=False, default="1", choices=("1", "20")),
        FormField("mode", "choice", required=False, default="slow", choices=("slow", "fast", "3")),
        FormField("day", "date", required=False, default="2026-01-02"),
        FormField("at", "datetime", required=False, default="", nullable=True),
        FormField("hour", "time", required=False, default="", nullable=True),
        FormField("who", "uuid", required=False, default="", nullable=True),
        FormField("price", "number", required=False, default="1.50", step="any"),
        FormField("wait", "duration", required=False, default="PT90S"),
        FormField("numbers", "json", required=False, default="[]"),
        FormField("to", "json", required=False, default="", nullable=True),
        FormField("order", "json", required=False, default="", nullable=True),
        FormField("either", "json", required=False, default="1"),
        FormField("short", "text", required=False, default="abc", shortest=2, longest=5, pattern="^[a-z]+$"),
        FormField("few", "number", required=False, default="4", least="3", step="1", doc="A few."),
        FormField("note", "text", required=False, default="none", nullable=True),
        FormField("password", "text", required=False, secret=True),
    ],
    ids=lambda field: field.name,
)
def test_each_argument_is_a_field(field):
    assert FIELDS[field.name] == field


def test_the_fields_are_in_the_order_of_the_arguments():
    assert list(FIELDS) == list(everything.signature.struct.__struct_fields__)


@pytest.mark.parametrize(
    ("name", "typed", "value"),
    [
        ("text", "", ""),
        ("text", " 1 ", " 1 "),
        ("text", "a\r\nb", "a\nb"),
        ("text", '"quoted"', '"quoted"'),
        ("years", " 18 ", 18),
        ("ratio", "2", 2.0),
        ("ratio", "", 0.5),
        ("flag", "false", False),
        ("flag", "on", True),
        ("maybe", "false", False),
        ("maybe", "", None),
        ("size", "small", Size.SMALL),
        ("level", "20", Level.HIGH),
        ("mode", "3", 3),
        ("day", "2028-02-29", date(2028, 2, 29)),
        ("at", "2026-02-28T12:00:00Z", datetime(2026, 2, 28, 12, tzinfo=UTC)),
        ("at", "2026-02-28T12:00", datetime(2026, 2, 28, 12)),  # noqa: DTZ001
        ("at", "2026-02-28 12:00+01:00", datetime(2026, 2, 28, 11, tzinfo=UTC)),
        ("hour", "12:30:00", time(12, 30)),
        ("who", "12345678-1234-5678-1234-567812345678", UUID("12345678-1234-5678-1234-567812345678")),
        ("price", "2.50", Decimal("2.50")),
        ("wait", "PT5M", timedelta(minutes=5)),
        ("numbers", "[1, 2]", [1, 2]),
        ("to", '{"street": "Long", "number": 3}', Address("Long", 3)),
        ("order", '{"id": 7, "note": "x"}', Order(id=7, note="x")),
        ("either", '"7"', "7"),
        ("either", "7", 7),
        ("short", "abcde", "abcde"),
        ("few", "3", 3),
        ("note", "", None),
        ("note", "null", "null"),
        ("anything", '{"a": [1]}', {"a": [1]}),
        ("password", "pw", "pw"),
    ],
)
def test_what_is_typed_is_submitted(name, typed, value):
    new = read(everything, NEEDED | {name: typed})
    assert isinstance(new, NewJob), new
    given = everything.signature.named_arguments(new.arguments)[name]
    assert given == value
    assert type(given) is type(value)


@pytest.mark.parametrize(
    ("name", "typed", "words"),
    [
        ("years", "", "is missing"),
        ("years", "many", "expected a whole number"),
        ("years", "17", "Expected `int` >= 18"),
        ("years", "130", "Expected `int` <= 129"),
        ("years", "1.5", "expected a whole number"),
        ("ratio", "a lot", "expected a number"),
        ("ratio", "nan", "NaN and infinity cannot be carried as JSON"),
        ("flag", "perhaps", "expected true or false"),
        ("size", "medium", "expected one of small, large, any"),
        ("level", "2", "expected one of 1, 20"),
        ("mode", "4", "expected one of slow, fast, 3"),
        ("day", "2026-02-30", "Invalid RFC3339 encoded date"),
        ("at", "yesterday", "Invalid RFC3339 encoded datetime"),
        ("who", "me", "Invalid UUID"),
        ("price", "cheap", "expected a number"),
        ("wait", "long", "Invalid ISO8601 duration"),
        ("numbers", "[1, x]", "expected JSON, in which a text has quotes"),
        ("numbers", '["x"]', "Expected `int`, got `str` - at `$[0]`"),
        ("to", '{"number": 3}', "Object missing required field `street`"),
        ("order", '{"id": "x"}', "unable to parse string as an integer - at `$.id`"),
        ("order", "{", "expected JSON, in which a text has quotes: Input data was truncated"),
        ("short", "ABC", "Expected `str` matching regex"),
        ("short", "abcdef", "Expected `str` of length <= 5"),
        ("few", "2", "greater than or equal to 3"),
        ("anything", "a", "expected JSON, in which a text has quotes"),
        ("text", "a\0b\ud800", ""),
    ],
)
def test_what_is_wrong_is_told_beside_its_field(name, typed, words):
    wrong = read(everything, NEEDED | {name: typed})
    assert isinstance(wrong, dict)
    assert list(wrong) == [name]
    assert words in wrong[name]


def test_everything_that_is_wrong_is_told_at_once():
    wrong = read(everything, {"years": "x", "size": "x"}, {"priority": "x", "queue": "slow"})
    assert wrong == {
        "text": "is missing",
        "years": "expected a whole number",
        "size": "expected one of small, large, any",
        "option-priority": "expected a whole number",
    }


@pytest.mark.parametrize(
    ("options", "field", "words"),
    [
        ({"priority": "101"}, "priority", "expected -100 to 100, got 101"),
        ({"max_attempts": "0"}, "max_attempts", "expected 1 to 32767"),
        ({"delay": "1", "run_at": "2026-01-01T00:00Z"}, "delay", "give either run_at or delay"),
        ({"run_at": "2026-01-01T00:00"}, "run_at", "with a time zone"),
        ({"run_at": "soon"}, "run_at", "Invalid RFC3339"),
        ({"delay": "nan"}, "delay", "expected"),
        ({"queue": "q" * 600}, "queue", "expected a name of 1 to 500 bytes"),
    ],
)
def test_an_option_that_does_not_fit_is_told_beside_its_field(options, field, words):
    wrong = read(everything, NEEDED, options)
    assert isinstance(wrong, dict)
    assert list(wrong) == [f"option-{field}"]
    assert words in wrong[f"option-{field}"]


def test_options_go_into_the_job_and_what_is_not_typed_is_as_the_task_declares():
    new = read(shop_tasks.welcome, {"user_id": "1"}, {"queue": "slow", "priority": " 5 ", "delay": "60", "run_at": ""})
    assert isinstance(new, NewJob)
    options = new.options
    assert (options.queue, options.priority, options.max_attempts) == ("slow", 5, 5)
    assert (options.delay, options.run_at) == (timedelta(minutes=1), None)


def test_what_python_takes_by_position_alone_is_typed_like_anything_else():
    new = read(shop_tasks.by_position, {"number": "3", "text": "a"})
    assert isinstance(new, NewJob)
    assert json.loads(new.arguments) == {"number": 3, "text": "a"}


def test_a_job_is_typed_again_from_its_arguments():
    first = read(
        everything,
        NEEDED | {"to": '{"street": "a"}', "order": '{"id": 7}', "size": "any", "mode": "3", "either": '"1"', "flag": "false"}
        | {"at": "2026-02-28T12:00Z", "note": "", "anything": '"x"'},
    )  # fmt: skip
    assert isinstance(first, NewJob)
    again = read(everything, typed_again(everything, first.arguments))
    assert isinstance(again, NewJob)
    assert json.loads(again.arguments) == json.loads(first.arguments)


class Login(msgspec.Struct):
    user: str
    password: Annotated[str, Secret()]


@task
def log_in(
    login: Login, pin: Annotated[str, Secret()], keys: dict[str, Annotated[str, Secret()]] | None = None
) -> None: ...


def test_secrets_are_typed_again_by_whoever_knows_them():
    texts = typed_again(log_in, b'{"login":{"user":"ann","password":"pw"},"pin":"1234","keys":{"a":"k"}}')
    assert "pw" not in str(texts)
    assert "pin" not in texts
    assert read(log_in, texts | {"pin": ""}) == {"pin": "is missing"}
    assert read(log_in, texts | {"pin": "1"}) == {"login": NOT_SHOWN, "keys": NOT_SHOWN}
    new = read(log_in, texts | {"pin": "1", "login": '{"user":"ann","password":"new"}', "keys": ""})
    assert isinstance(new, NewJob)
    assert json.loads(new.arguments)["login"]["password"] == "new"


def test_arguments_that_nobody_can_read_are_not_typed_again():
    with pytest.raises(InvalidArguments):
        typed_again(everything, b'{"text": "\\ud800"}')


def test_an_option_that_there_is_not_is_a_mistake_of_the_program():
    with pytest.raises(KeyError):
        read(everything, NEEDED, {"colour": "red"})


@task
def queued(queue: int, priority: str = "") -> None: ...


def test_an_argument_that_is_called_like_an_option_is_not_taken_for_it():
    wrong = read(queued, {"queue": "x"}, {"queue": "q" * 600, "priority": "y"})
    assert isinstance(wrong, dict)
    assert set(wrong) == {"queue", "option-queue", "option-priority"}
    assert wrong["queue"] == wrong["option-priority"] == "expected a whole number"
    assert list(read(queued, {"queue": "1"}, {"queue": "q" * 600})) == ["option-queue"]
    new = read(queued, {"queue": "1", "priority": "high"}, {"queue": "slow", "priority": "5"})
    assert isinstance(new, NewJob)
    assert (new.options.queue, new.options.priority, json.loads(new.arguments)) == (
        "slow", 5, {"queue": 1, "priority": "high"}
    )  # fmt: skip
