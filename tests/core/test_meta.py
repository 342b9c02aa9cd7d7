"""What travels beside the arguments: who says it, how much it may be, and where it goes."""

from __future__ import annotations

import contextlib
import re
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import MagicMock

import psycopg
import pytest

import chancy
from chancy import InvalidArguments, InvalidOption, Unique, current_job, submit_many, task
from chancy.arguments import submits
from chancy.arguments.meta import MAX_META_BYTES, functions
from chancy.schedules.schedule import job_of
from chancy_testing import eager


@task(name="meta.note")
def note(number: int = 0) -> None: ...


@task(name="meta.once", unique=Unique())
def once(number: int = 0) -> None: ...


@contextlib.contextmanager
def saying(*said):
    """Within the block these are the functions that say what goes with a job, and no others."""
    before, functions[:] = functions[:], []
    try:
        for each in said:
            chancy.meta(each)
        yield
    finally:
        functions[:] = before


@contextlib.contextmanager
def submits_restored():
    before = submits.functions[:]
    try:
        yield
    finally:
        submits.functions[:] = before


@pytest.fixture(autouse=True)
def nobody_else():
    with saying():
        yield


def request():
    return {"request": "r-7", "tenant": "none"}


def tenant():
    return {"tenant": "acme"}


def nothing():
    return None


def test_several_functions_say_what_goes_with_a_job_and_the_later_one_is_right():
    with saying(request, nothing, tenant):
        assert note.bind().meta == b'{"request":"r-7","tenant":"acme"}'
    with saying(nothing):
        assert note.bind().meta is None
    assert note.bind().meta is None


def test_what_a_function_says_is_none_is_taken_back(database):
    def takes_back():
        return {"request": None, "nobody": None}

    with saying(request, tenant, takes_back):
        assert note.bind().meta == b'{"tenant":"acme"}'
    with saying(takes_back):
        assert note.bind().meta is None
    with saying(request):
        chancy.schedule(database.conn, "nightly", note.bind(), chancy.every(days=1))
    ((changes,),) = database.rows("SELECT convert_to(changes::text, 'UTF8') FROM {}.schedule")
    with saying(takes_back):
        assert job_of(note, b'{"number":1}', changes, datetime.now(UTC)).meta == b'{"tenant":"none"}'


def test_the_same_function_again_takes_its_own_place():
    def again():
        def tenant():
            return {"tenant": "later"}

        tenant.__qualname__ = "tenant"
        return tenant

    with saying(tenant, request, again()):
        assert note.bind().meta == b'{"tenant":"none","request":"r-7"}'


@pytest.mark.parametrize("given", [None, {"tenant": 1}, "tenant"])
def test_what_cannot_be_called_is_refused(given):
    with pytest.raises(InvalidOption, match="meta: expected a function without arguments"):
        chancy.meta(given)


ODD = {
    "a list": lambda: [1],
    "keys that are none": lambda: {1: 2},
    "what JSON cannot say": lambda: {"a": object()},
    "half of a surrogate pair": lambda: {"a": "\ud800"},
    "an argument too much": lambda x: {},
    "one that raises": lambda: 1 / 0,
    "too much": lambda: {"a": "x" * MAX_META_BYTES},
    "too many bytes": lambda: {"a": "ž" * (MAX_META_BYTES // 2)},
}


@pytest.mark.parametrize("odd", ODD)
def test_what_cannot_go_with_a_job_is_told_before_anything_is_sent(database, odd):
    with (
        saying(ODD[odd], tenant),
        database.connect() as conn,
        pytest.raises(InvalidArguments, match=r"argument 'meta' of task meta\.note"),
    ):
        note.submit(conn)
    assert database.ids() == []


def test_as_much_as_fits_is_taken_from_python_and_from_sql(database):
    full = {"a": "x" * (MAX_META_BYTES - len('{"a":""}'))}
    with saying(lambda: full):
        assert note.submit(database.conn).refresh(database.conn).meta == full
    submit = "SELECT {}.submit('t', meta => json_build_object('a', repeat('x', %s)){})"
    most = MAX_META_BYTES - len('{"a" : ""}')
    for key in ("", ", unique_key => 'k'"):
        text = submit.replace("){}", ")" + key)
        ((id_,),) = database.rows(text, most)
        assert len(chancy.get(database.conn, id_).meta["a"]) == most
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="meta has at most 4096 bytes, got 4097"):
            database.rows(text, most + 1)


@pytest.mark.parametrize("meta", ["[1]", "7", "null"])
def test_sql_takes_nothing_but_an_object(database, meta):
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="meta is a JSON object, got a JSON"):
        database.rows("SELECT {}.submit('t', meta => %s)", meta)


@pytest.mark.parametrize("value", ["'[]'", "'null'", "json_build_object('a', repeat('a', 4097))"])
def test_the_table_itself_refuses_them_too(database, value):
    note.submit(database.conn)
    with pytest.raises(psycopg.errors.CheckViolation):
        database.rows("UPDATE {}.job SET meta = " + value + " RETURNING id")


def test_what_somebody_else_has_written_into_the_history_hides_no_job(database):
    job = note.submit(database.conn)
    database.finish(job.id)
    database.rows("UPDATE {}.history SET meta = '[1]' RETURNING id")
    assert job.refresh(database.conn).meta == {}


def test_it_is_no_part_of_a_key(database):
    with saying(request):
        first = once.submit(database.conn)
    with saying(tenant):
        assert once.submit(database.conn).id == first.id


@pytest.mark.parametrize("how", [once.bind, note.bind])
def test_the_statement_for_other_drivers_takes_it_along(database, how):
    with saying(tenant):
        text, params = how().sql()
    ((id_, *_),) = database.conn.execute(text, params).fetchall()
    assert chancy.get(database.conn, id_).meta == {"tenant": "acme"}


def test_a_schedule_keeps_what_it_was_made_with_and_its_ticks_take_what_there_is_then(database):
    with saying(request):
        chancy.schedule(database.conn, "s", note.bind(1), chancy.every(timedelta(hours=1)))
    ((arguments, changes),) = database.rows("SELECT arguments::text, changes::text FROM {}.schedule")
    at = datetime(2026, 1, 1, tzinfo=UTC)
    assert job_of(note, arguments.encode(), changes.encode(), at).meta == b'{"request":"r-7","tenant":"none"}'
    with saying(tenant):
        assert job_of(note, arguments.encode(), changes.encode(), at).meta == b'{"request":"r-7","tenant":"acme"}'
        assert job_of(note, b"{}", b"{}", at).meta == b'{"tenant":"acme"}'


def test_a_job_that_was_not_claimed_here_says_so():
    with pytest.raises(chancy.ChancyError, match="was not claimed here"):
        _ = chancy.CurrentJob(7, "t", "q", 1, 3).meta


GUIDE = Path(__file__).parents[2] / "docs/guides/around-a-job.md"


def test_what_the_guide_shows_is_so(database):
    code = "\n".join(re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE))
    tenant, request_id, closed = ContextVar("tenant", default=""), ContextVar("request_id", default=""), []
    names = {"tenant": tenant, "request_id": request_id, "close_idle_connections": lambda: closed.append(1)}
    seconds, number = MagicMock(), MagicMock()
    names |= {"submit_seconds": seconds, "submitted": number}
    seen = []
    with saying(), submits_restored():
        exec(code, guide := names | {"__name__": "guide"})

        @task(name="guide.parent")
        def parent() -> None:
            seen.append((tenant.get(), current_job().meta, note.bind().meta))

        with eager(surround=guide["in_its_tenant"]) as backend:
            request_id.set("r-7")
            tenant.set("acme")
            job = parent.bind()
            request_id.set("")
            tenant.set("")
            submit_many(backend.conn, [job])
    meta = {"request": "r-7", "tenant": "acme"}
    assert seen == [("acme", meta, b'{"request":"r-7","tenant":"acme"}')]
    assert closed == [1]
    seconds.time.assert_called_once_with()
    number.inc.assert_called_once_with(1)
