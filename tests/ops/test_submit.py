"""Arguments that a person types are read as the task's signature has them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import model_shop
import msgspec
import pytest
import shop_tasks

from chancy_ops.terminal import modules

EVERYTHING = {"number": 1, "text": "a"}


def submitted(shell, *said):
    answer = shell("submit", *said)
    assert (answer.code, answer.err) == (0, "")
    return shell.row(int(answer.out))


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("number=-12", -12),
        ("text=1", "1"),
        ("text=", ""),
        ("text=a=b", "a=b"),
        ('text="quoted"', '"quoted"'),
        ('text:="unquoted"', "unquoted"),
        ("text=[1]", "[1]"),
        ("ratio=2", 2.0),
        ("ratio=1e3", 1000.0),
        ("flag=true", True),
        ("flag=1", True),
        ("flag=false", False),
        ("day=2026-02-28", date(2026, 2, 28)),
        ("day:=null", None),
        ("day=null", None),
        ("at=2026-02-28T12:00:00Z", datetime(2026, 2, 28, 12, tzinfo=UTC)),
        ("wait=PT90S", timedelta(seconds=90)),
        ("who=12345678-1234-5678-1234-567812345678", UUID("12345678-1234-5678-1234-567812345678")),
        ("size=large", shop_tasks.Size.LARGE),
        ('to={"street": "Long", "number": 3}', shop_tasks.Address("Long", 3)),
        ("to=null", None),
        ('tags={"a": 1}', {"a": 1}),
        ("note=null", "null"),
        ("note:=null", None),
        ("anything=7", 7),
        ('anything=["a"]', ["a"]),
        ("anything=a", "a"),
    ],
)
def test_a_value_is_read_as_its_annotation_has_it(shell, said, value):
    name = said.partition("=")[0].rstrip(":")
    rest = [f"{other}={text}" for other, text in EVERYTHING.items() if other != name]
    row = submitted(shell, "shop_tasks:everything", said, *rest)
    (_, given) = shop_tasks.everything.signature.decode_arguments(row.arguments)
    names = shop_tasks.everything.signature.named_arguments(row.arguments)
    assert names[name] == value
    assert type(names[name]) is type(value)
    assert given == {}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (["number=one"], "argument 'number' of task shop_tasks.everything: Expected `int`, got `str` (got 'one')"),
        (["number=1.5"], "Expected `int`"),
        (["ratio=nan"], "argument 'ratio'"),
        (["flag=maybe"], "Expected `bool`"),
        (["day=2026-02-30"], "argument 'day' of task shop_tasks.everything: Invalid RFC3339 encoded date"),
        (["size=medium"], "Invalid enum value 'medium'"),
        (["to={"], "argument 'to' of task shop_tasks.everything: Input data was truncated (got '{')"),
        (['to={"street": "Long"}'], "Object missing required field `number`"),
        (['tags={"a": "x"}'], "argument 'tags'"),
        (["tags=x"], "JSON is malformed"),
        (["numbr=1"], "argument 'numbr' of task shop_tasks.everything: there is no such argument by this name (there are:"),
        (["number=2"], "given twice"),
        (["number"], "'number' is no argument: give NAME=VALUE, or NAME:=JSON"),
        (["=1"], "'=1' is no argument"),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_one_line_that_names_it(shell, said, message):
    rest = ["number=1", "text=a"] if said == ["number=2"] or not said[0].startswith("number=") else ["text=a"]
    answer = shell("submit", "shop_tasks:everything", *rest, *said)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1), answer
    assert message in answer.err
    assert shell.rows("SELECT count(*) FROM {}.any_job") == [(0,)]


def test_a_missing_argument_is_named(shell):
    answer = shell("submit", "shop_tasks:everything", "number=1")
    assert (answer.code, answer.err) == (2, "chancy: argument 'text' of task shop_tasks.everything: is missing\n")


def test_arguments_that_python_takes_by_position_only_are_given_by_name(shell):
    row = submitted(shell, "shop_tasks:by_position", "text=a", "number=3")
    assert msgspec.json.decode(row.arguments) == {"number": 3, "text": "a"}


def test_the_task_is_found_by_its_function_its_name_or_an_older_name(shell):
    assert submitted(shell, "shop_tasks:ship", "order=1").task == "shop_tasks.ship"
    assert submitted(shell, "shop_tasks.ship", "--module", "shop_tasks", "order=1").task == "shop_tasks.ship"
    assert submitted(shell, "shop_tasks.send", "--module", "shop_tasks", "order=1").task == "shop_tasks.ship"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (["no_such_module:f"], "there is no module 'no_such_module' here; start it where"),
        (["shop_tasks:nothing"], "'shop_tasks:nothing' is no task (nothing there); there are:"),
        (["shop_tasks:no_task"], "'shop_tasks:no_task' is no task (a function there)"),
        (["shop_tasks.ship"], "where is task 'shop_tasks.ship'? Say MODULE:FUNCTION, or its module with --module"),
        (["ship", "--module", "shop_tasks"], "shop_tasks has no task 'ship'; there are:"),
        (["broken_on_import:f"], "module 'broken_on_import' cannot be imported: ZeroDivisionError: division by zero"),
        (["shop_tasks:welcome", "user_id=1", "--priority", "101"], "expected -100 to 100, got 101"),
        (["shop_tasks:welcome", "user_id=1", "--delay", "2h", "--run-at", "2026-01-01T00:00Z"], "give either run_at or delay"),
    ],
)  # fmt: skip
def test_a_task_that_there_is_not_is_one_line(shell, said, message, tmp_path, monkeypatch):
    (tmp_path / "broken_on_import.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    answer = shell("submit", *said)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1), answer
    assert message in answer.err


def test_the_module_is_looked_for_from_where_one_stands(shell, tmp_path, monkeypatch):
    (tmp_path / "here.py").write_text("import chancy\nprint('imported')\n@chancy.task\ndef f() -> None: ...\n")
    monkeypatch.chdir(tmp_path)
    answer = shell("submit", "here:f")
    assert answer.code == 0
    assert answer.out.strip().isdecimal()  # what the module prints is not in the answer
    assert answer.err == "imported\n"


def test_options_go_into_the_row_and_the_rest_is_as_the_task_declares(shell):
    row = submitted(shell, "shop_tasks:welcome", "user_id=1")
    assert (row.queue, row.priority, row.max_attempts, row.state) == ("mail", 0, 5, "ready")
    row = submitted(
        shell,
        "shop_tasks:welcome",
        "user_id=1",
        "--queue",
        "slow",
        "--priority=-3",
        "--max-attempts",
        2,
        "--delay",
        "2h",
    )
    assert (row.queue, row.priority, row.max_attempts, row.state) == ("slow", -3, 2, "scheduled")
    assert row.run_at - row.submitted_at == timedelta(hours=2)
    row = submitted(shell, "shop_tasks:welcome", "user_id=1", "--run-at", "2030-01-01T00:00+01:00")
    assert row.run_at == datetime(2029, 12, 31, 23, tzinfo=UTC)


def test_a_unique_job_that_is_there_already_is_told(shell):
    first = submitted(shell, "shop_tasks:invoice", "order=7")
    answer = shell("submit", "shop_tasks:invoice", "order=7")
    assert (answer.code, answer.out) == (0, f"{first.id}\n")
    assert answer.err == f"chancy: job {first.id} has the same key and was there already\n"
    told = shell("submit", "shop_tasks:invoice", "order=7", "--json").document
    assert told == {"id": first.id, "task": "shop_tasks.invoice", "queue": "default", "outcome": "existing"}


def test_what_is_read_is_what_a_caller_would_have_given():
    by_position, by_name = modules.parsed(shop_tasks.by_position, ["number=3", "text=a"])
    assert (by_position, by_name) == ([3], {"text": "a"})


@pytest.mark.parametrize(
    ("said", "name", "value"),
    [
        ('order={"id": 7}', "order", model_shop.Order(id=7)),
        ('order:={"id": 7, "note": "x"}', "order", model_shop.Order(id=7, note="x")),
        ('also=[{"id": 1}]', "also", [model_shop.Order(id=1)]),
        ("also=null", "also", None),
        ('to={"id": 1}', "to", model_shop.Order(id=1)),
        ("to=ann", "to", "ann"),
        ('to:="ann"', "to", "ann"),
    ],
)
def test_a_model_is_given_as_its_json(shell, said, name, value):
    rest = [] if name == "order" else ['order={"id": 7}']
    row = submitted(shell, "model_shop:pack", said, *rest)
    assert model_shop.pack.signature.named_arguments(row.arguments)[name] == value


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("order=7", "argument 'order' of task model_shop.pack: Input should be an object"),
        ('order={"id": "x"}', "unable to parse string as an integer"),
        ("order={", "argument 'order' of task model_shop.pack: Input should be an object"),
        ("order:={", "Input data was truncated (got '{')"),
        ('also=[{"id": 1}, {}]', "argument 'also' of task model_shop.pack: Field required - at `$[1].id`"),
    ],
)
def test_what_a_model_does_not_take_is_told(shell, said, message):
    rest = [] if said.startswith("order") else ['order={"id": 7}']
    answer = shell("submit", "model_shop:pack", said, *rest)
    assert answer.code != 0
    assert message in answer.err
