"""`@verb`: each verb is written once, and is shown, called and awaited as if it had been written twice."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import pydoc
import re
from pathlib import Path

import psycopg
import pytest

import chancy
import chancy_ops
from chancy import InvalidConnection, InvalidOption
from chancy.model import Statement
from chancy.options.plain import text
from chancy.run import answered_by
from chancy.verb import verb

VERBS = {
    name: found
    for package in (chancy, chancy_ops)
    for name in package.__all__
    if inspect.isfunction(found := getattr(package, name))
    and next(iter(inspect.signature(found).parameters), "") == "conn"
}


def test_there_are_verbs():
    assert {"get", "jobs", "schedule", "logs", "pause", "count", "why"} <= VERBS.keys()


@pytest.mark.parametrize("name", sorted(VERBS))
def test_help_shows_the_connection_first_and_what_either_kind_gives(name):
    signature = inspect.signature(VERBS[name])
    first = next(iter(signature.parameters.values()))
    assert first.kind is first.POSITIONAL_ONLY
    assert first.annotation == "SyncConn | AsyncConn"
    assert signature.parameters["schema"].default is None
    assert "Async" in (told := signature.return_annotation) or "Coroutine[Any, Any, " in told
    text = pydoc.plain(pydoc.render_doc(VERBS[name]))
    # since 3.13 in several lines, since 3.14 without the quotes
    assert re.search(rf"{name}\(\s*conn: '?SyncConn \| AsyncConn'?,\s", text)
    assert "Steps" not in text
    assert "Statement[" not in text
    assert inspect.getdoc(VERBS[name]).splitlines()[0] in text


@pytest.mark.parametrize("name", sorted(VERBS))
def test_a_verb_is_found_by_its_name_as_any_function_is(name):
    assert VERBS[name].__name__ == name
    assert pickle.loads(pickle.dumps(VERBS[name])) is VERBS[name]


class Silent:
    """A backend that notes who asks it."""

    elsewhere = True

    def __init__(self):
        self.asked = []

    def send(self, conn, statement, schema):
        self.asked.append(schema)
        return statement.parse([])

    async def send_async(self, conn, statement, schema):
        return self.send(conn, statement, schema)


@pytest.fixture
def silent():
    with answered_by(backend := Silent()):
        yield backend


@pytest.fixture
def aconn():
    return object.__new__(psycopg.AsyncConnection)


WRONG = {
    "get": lambda conn: chancy.get(conn, "1"),
    "jobs": lambda conn: chancy.jobs(conn, limit=-1),
    "cancel": lambda conn: chancy.cancel(conn, 2**63),
    "schedule": lambda conn: chancy.schedule(conn, "", 1, 1),
    "pause": lambda conn: chancy_ops.pause(conn),
    "pause of a schedule": lambda conn: chancy_ops.pause(conn, schedule="nightly", until="soon"),
    "cancel_many": lambda conn: chancy_ops.cancel_many(conn, chancy_ops.JobFilter()),
    "edit": lambda conn: chancy_ops.edit(conn, 1, priority=101),
    "why": lambda conn: chancy_ops.why(conn, None),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_raised_at_the_call_and_not_at_the_await(silent, aconn, call):
    with pytest.raises(InvalidOption):
        call(aconn)
    with pytest.raises(InvalidOption):
        call("no connection")
    assert silent.asked == []


@pytest.mark.parametrize("call", [lambda: chancy.schedules("dsn"), lambda: chancy_ops.why(7, 7)])
def test_what_is_no_connection_is_refused_in_words(call):
    with pytest.raises(InvalidConnection, match="the first argument is your connection"):
        call()


def test_nothing_is_sent_before_the_await(silent, aconn):
    asked = [chancy.schedules(aconn, schema="other"), chancy_ops.delete_many(aconn, chancy_ops.JobFilter(queue="q"))]
    assert silent.asked == []
    assert asyncio.run(asked[0]) == []
    assert silent.asked == ["other"]
    asked[1].close()


def test_the_schema_is_that_of_the_call_and_not_of_the_await(silent, aconn):
    chancy.configure(schema="first")
    try:
        asked = chancy.get(aconn, 7)
        chancy.configure(schema="second")
        with pytest.raises(chancy.UnknownJob, match="first"):
            asyncio.run(asked)
    finally:
        chancy.configure(schema=None)
    assert silent.asked == ["first"]


@chancy.task
def note(number: int) -> None: ...


CONTRIBUTING = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")


async def test_the_verb_that_contributing_shows_is_all_of_one(database):
    (example,) = re.findall(r"^## Adding a verb\n.*?```python\n(.*?)```", CONTRIBUTING, re.DOTALL | re.MULTILINE)
    written = {"Statement": Statement, "text": text, "verb": verb, "__name__": __name__}
    exec(example, written)
    count_due, here = written["count_due"], {"schema": database.schema}
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        tasks = [note.using(queue="mail"), note.using(queue="mail", delay=60), note]
        chancy.submit_many(conn, [task.bind(1) for task in tasks], **here)
        assert count_due(conn, "mail", **here) == 1
        with pytest.raises(InvalidOption):
            count_due(conn, 7, **here)
    async with await psycopg.AsyncConnection.connect(database.dsn) as aconn:
        assert await count_due(aconn, "default", **here) == 1


PLACES = re.findall(r"`((?:chancy\w*|tests|docs|options|sql|in_memory|history)/[\w/.]+)`", CONTRIBUTING)


@pytest.mark.parametrize("place", sorted({*PLACES}))
def test_a_place_that_contributing_names_is_there(place):
    root = Path(__file__).parents[2]
    found = [*root.glob(place), *root.glob(f"packages/*/src/{place}*"), *root.glob(f"packages/*/src/*/{place}*")]
    assert found or place.endswith("census.py")
