"""What a test asks about submits, in memory and on Postgres, on its own uncommitted transaction."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime, timedelta

import pytest

from chancy import Job, task
from chancy_testing import assert_submitted, eager, refute_submitted, submitted


@task(aliases=["old.name.of.send"])
def send(to: str, copies: int = 1, tags: set[str] = frozenset()) -> str:
    return to * copies


@task
def other(x: int) -> int:
    return x


@pytest.fixture(params=["postgres", "async postgres", "memory", "async memory"])
def conn(request):
    if "postgres" in request.param:
        yield request.getfixturevalue("chancy_aconn" if "async" in request.param else "chancy_conn")
    else:
        with eager() as backend:
            yield backend.aconn if "async" in request.param else backend.conn


async def now(value):
    return await value if inspect.isawaitable(value) else value


async def test_a_submit_is_found_before_it_is_committed(conn):
    job = await now(send.submit(conn, "ann", copies=2))
    found = await now(assert_submitted(conn, send, to="ann"))
    assert found == job
    assert isinstance(found, Job)
    assert await now(assert_submitted(conn, send, "ann", copies=2)) == job
    assert await now(assert_submitted(conn, send)) == job
    assert await now(submitted(conn, send)) == [job]
    assert await now(submitted(conn, other)) == []


async def test_an_argument_that_was_not_given_has_its_default(conn):
    job = await now(send.submit(conn, "ann"))
    assert await now(assert_submitted(conn, send, "ann", copies=1, tags=set())) == job
    await now(refute_submitted(conn, send, copies=2))
    with pytest.raises(AssertionError, match="copies=1"):
        await now(assert_submitted(conn, send, copies=2))


async def test_a_miss_shows_what_comes_nearest(conn):
    await now(send.submit(conn, "bob", copies=2))
    await now(send.submit(conn, "cid", copies=3))
    with pytest.raises(AssertionError) as missed:
        await now(assert_submitted(conn, send, to="ann", copies=2))
    lines = str(missed.value).splitlines()
    assert lines[0] == f"no job of {send.name} was submitted with to='ann', copies=2"
    assert 'has to="bob"' in lines[1]
    assert 'has to="cid"; copies=3' in lines[2]


async def test_a_miss_without_any_job_of_the_task_says_what_there_is(conn):
    with pytest.raises(AssertionError, match="this connection sees no job at all"):
        await now(assert_submitted(conn, send, to="ann"))
    await now(other.submit(conn, 1))
    with pytest.raises(AssertionError, match=rf"sees jobs of {other.name}"):
        await now(assert_submitted(conn, send))


async def test_a_refutal_fails_with_what_was_submitted(conn):
    await now(send.submit(conn, "ann"))
    await now(refute_submitted(conn, send, to="bob"))
    await now(refute_submitted(conn, other))
    with pytest.raises(AssertionError, match=r'1 jobs of .*send were submitted with to=\'ann\'(.|\n)*"to":"ann"'):
        await now(refute_submitted(conn, send, to="ann"))


async def test_options_count_where_they_are_named(conn):
    at = datetime(2040, 1, 1, tzinfo=UTC)
    await now(send.using(queue="mail", run_at=at).submit(conn, "ann"))
    await now(assert_submitted(conn, send, to="ann"))
    await now(assert_submitted(conn, send.using(queue="mail"), to="ann"))
    await now(assert_submitted(conn, send.using(run_at=at)))
    with pytest.raises(AssertionError, match="has queue=mail"):
        await now(assert_submitted(conn, send.using(queue="post"), to="ann"))
    await now(send.using(delay=timedelta(hours=2)).submit(conn, "bob"))
    await now(assert_submitted(conn, send.using(delay=timedelta(hours=2)), to="bob"))
    with pytest.raises(AssertionError, match="delay=2:00:00"):
        await now(assert_submitted(conn, send.using(delay=timedelta(hours=3)), to="bob"))


async def test_values_are_compared_as_the_function_would_get_them(conn):
    await now(send.submit(conn, "ann", tags={"a", "b", "c"}))
    await now(assert_submitted(conn, send, to="ann", tags={"c", "b", "a"}))
    with pytest.raises(AssertionError):
        await now(assert_submitted(conn, send, to="ann", tags=object()))


async def test_an_argument_that_the_task_does_not_have_is_an_error_of_the_test(conn):
    with pytest.raises(TypeError, match="takes"):
        await now(assert_submitted(conn, send, adress="ann"))


def test_what_is_no_task_of_chancys_is_refused_by_its_kind(chancy_conn):
    for ask in submitted, assert_submitted, refute_submitted:
        with pytest.raises(TypeError, match=r"expected what `chancy\.task` has made, got a function"):
            ask(chancy_conn, now)
