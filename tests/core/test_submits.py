"""What an application puts around each submit: when it is entered and left, what it sees, and what it may change."""

from __future__ import annotations

import asyncio
import contextlib
from contextvars import ContextVar

import msgspec
import psycopg
import pytest

import chancy
from chancy import DuplicateJob, InvalidOption, Submit, Unique, current_job, result_of, submit_many, task
from chancy.arguments.submits import functions
from chancy_testing import drain, eager

inside: ContextVar[str] = ContextVar("inside", default="nothing")


@task(name="submits.note")
def note(number: int = 0) -> None: ...


@task(name="submits.once", unique=Unique(on_conflict="raise"))
def once() -> None: ...


@task(name="submits.done")
def done(counts: chancy.BatchCounts) -> None: ...


@pytest.fixture(autouse=True)
def nobody_else():
    before, functions[:] = functions[:], []
    yield
    functions[:] = before


@pytest.fixture
def trail():
    """What was seen around submits, each a line."""
    seen = []

    @chancy.around_submit
    @contextlib.contextmanager
    def told(submit):
        token = inside.set("a submit")
        try:
            yield
        except BaseException as error:
            seen.append(type(error).__name__)
            raise
        else:
            seen.append([job.id for job in submit.made])
        finally:
            inside.reset(token)

    return seen


def labelled(label):
    @contextlib.contextmanager
    def labels(submit):
        submit.jobs = [msgspec.structs.replace(job, meta=b'{"label":"%s"}' % label.encode()) for job in submit.jobs]
        yield

    labels.__qualname__ = label
    return labels


def test_it_is_around_each_way_to_submit_and_sees_the_handles(database, trail):
    alone = note.submit(database.conn)
    many = submit_many(database.conn, [note.bind(), once.bind()])
    unique = once.using(unique=Unique()).submit(database.conn)
    with chancy.batch(database.conn, on_finished=done) as batch:
        batched = [batch.submit(note.bind()), *batch.submit_many([note.bind(), note.bind()])]
    assert trail == [
        [alone.id],
        [job.id for job in many],
        [unique.id],
        [batched[0].id],
        [job.id for job in batched[1:]],
    ]
    assert submit_many(database.conn, []) == []
    assert len(trail) == 5


async def test_around_an_async_submit_its_context_is_that_of_the_caller_and_gone_afterwards(
    database, trail, monkeypatch
):
    seen = []
    plain = chancy.run.Postgres.send_async

    async def sent(self, conn, statement, schema):
        seen.append((statement.name, inside.get()))
        return await plain(self, conn, statement, schema)

    monkeypatch.setattr("chancy.run.Postgres.send_async", sent)
    async with await psycopg.AsyncConnection.connect(database.dsn, autocommit=True) as conn:
        jobs = [await note.submit(conn), *await submit_many(conn, [note.bind()])]
    assert seen == [("insert_job", "a submit"), ("insert_jobs", "a submit")]
    assert trail == [[job.id] for job in jobs]
    assert inside.get() == "nothing"


def test_others_may_be_put_in_the_jobs_places_and_the_first_function_is_outermost(database):
    chancy.around_submit(labelled("first"))
    chancy.around_submit(labelled("second"))
    jobs = [note.submit(database.conn), once.submit(database.conn), *submit_many(database.conn, [note.bind()])]
    assert [job.refresh(database.conn).meta for job in jobs] == [{"label": "second"}] * 3


def test_what_goes_wrong_with_the_statement_is_seen_and_raised_at_once(database, trail):
    once.submit(database.conn)
    with pytest.raises(DuplicateJob):
        once.submit(database.conn)
    with psycopg.connect(database.dsn) as conn:
        with contextlib.suppress(psycopg.Error):
            conn.execute("nonsense")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            note.submit(conn)
        assert inside.get() == "nothing"
    assert trail[1:] == ["DuplicateJob", "InFailedSqlTransaction"]


async def test_a_submit_that_is_cancelled_leaves_it(database, trail):
    async with await psycopg.AsyncConnection.connect(database.dsn) as conn:
        database.conn.execute(f"BEGIN; LOCK TABLE {database.schema}.job")
        try:
            submit = asyncio.create_task(note.submit(conn))
            while conn.pgconn.transaction_status != psycopg.pq.TransactionStatus.ACTIVE:
                await asyncio.sleep(0)
            submit.cancel()
            with pytest.raises(asyncio.CancelledError):
                await submit
        finally:
            database.conn.execute("ROLLBACK")
    assert trail == ["CancelledError"]


def test_one_that_swallows_an_error_hides_no_submit_that_failed(database):
    @chancy.around_submit
    @contextlib.contextmanager
    def swallows(submit):
        with contextlib.suppress(Exception):
            yield

    once.submit(database.conn)
    with pytest.raises(DuplicateJob):
        once.submit(database.conn)


def test_what_it_raises_on_the_way_in_is_raised_and_nothing_is_sent(database, trail):
    @chancy.around_submit
    def raises(submit):
        raise ArithmeticError("on enter")

    with pytest.raises(ArithmeticError):
        note.submit(database.conn)
    assert database.ids() == []
    assert trail == ["ArithmeticError"]


def test_the_same_function_again_takes_its_own_place(database):
    for _ in range(2):
        chancy.around_submit(labelled("one"))
    assert len(functions) == 1
    assert isinstance(Submit([]), Submit)


@pytest.mark.parametrize("given", [None, "told", 7])
def test_what_cannot_be_called_is_refused(given):
    with pytest.raises(InvalidOption, match="around_submit: expected a function of the submit"):
        chancy.around_submit(given)


@task(name="submits.count")
def count(values: list[int]) -> int:
    return len(values)


@task(name="submits.fan")
def fan(values: list[int]) -> int:
    return result_of(count.bind([result_of(each.bind(value)) for value in values]))


@task(name="submits.each")
def each(value: int) -> int:
    return value


@task(name="submits.in_its_own")
def in_its_own(values: list[int]) -> int:
    with psycopg.connect(here[0]) as conn:
        current_job().complete(conn, fan.function(values))
    return 0


here = [""]


@pytest.mark.parametrize("outer", [fan, in_its_own], ids=["returned", "completed"])
@pytest.mark.parametrize("where", ["postgres", "memory"])
def test_it_is_around_a_graph_that_a_handler_returns_and_what_it_puts_there_is_sent(
    outer, where, chancy_dsn, chancy_conn, chancy_schema
):
    here[0], seen = chancy_dsn, []

    @chancy.around_submit
    @contextlib.contextmanager
    def labelled(submit):
        seen.append(([job.task for job in submit.jobs], chancy.current_job().task if len(submit.jobs) > 1 else ""))
        meta = b'{"seen":%d}' % len(seen)
        submit.jobs = [msgspec.structs.replace(job, meta=meta) for job in submit.jobs]
        yield
        seen.append(len(submit.made))

    if where == "memory":
        if outer is in_its_own:
            pytest.skip("it has a connection of its own")
        with eager() as backend:
            job = outer.submit(backend.conn, [1, 2])
            rows = chancy.jobs(backend.conn)
            assert job.result(backend.conn) == 2
    else:
        job = outer.submit(chancy_conn, [1, 2])
        chancy_conn.commit()
        drain(chancy_conn)
        rows = chancy.jobs(chancy_conn)
        assert job.result(chancy_conn) == 2
    assert seen == [
        ([outer.name], ""),
        *([1] if where == "postgres" else []),
        (["submits.each", "submits.each", "submits.count"], outer.name),
        0,
        *([1] if where == "memory" else []),
    ]  # fmt: skip
    assert {row.meta["seen"] for row in rows if row.task != outer.name} == {len(seen) - 1 if where == "postgres" else 2}
