"""Steps: what a job has done it does not do again; it sleeps, and waits for what it is told."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Generator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

import chancy
from chancy import (
    InvalidConnection,
    InvalidOption,
    InvalidResult,
    LeaseLost,
    NotSignalled,
    State,
    StepKind,
    UnknownJob,
    current_job,
    task,
)
from conformance.cases import block, case, ground, is_async, seen
from conformance.grounds import Ground, Steps, transaction
from conformance.tasks import Point, note

Script = Callable[[Any, Any], Generator[Any, Any, Any]]
SCRIPTS: dict[str, Script] = {}


def script(function: Script) -> str:
    """What a handler does, written once for sync and async: it yields what the current job gives. Its name."""
    SCRIPTS[function.__name__] = function
    return function.__name__


@task(name="conformance.stepwise", max_attempts=4)
def stepwise(name: str) -> Any:
    """Does what a script says."""
    steps, value = SCRIPTS[name](current_job(), ground[0].conn), None
    while True:
        try:
            value = steps.send(value)
        except StopIteration as end:
            return end.value


@task(name="conformance.stepwise_async", max_attempts=4)
async def stepwise_async(name: str) -> Any:
    """The same, async."""
    steps = SCRIPTS[name](current_job(), ground[0].conn)
    value: Any = None
    error: Exception | None = None
    while True:
        try:
            asked = steps.send(value) if error is None else steps.throw(error)
        except StopIteration as end:
            return end.value
        value, error = None, None
        try:
            value = await asked if inspect.isawaitable(asked) else asked
        except Exception as raised:
            error = raised


def submitted(g: Ground, name: str) -> Any:
    """A job that does this, performed as far as it goes."""
    job = yield (stepwise_async if is_async(g) else stepwise).submit(g.conn, name)
    yield g.perform()
    return job


def performed(g: Ground, name: str) -> Any:
    """The same; its row."""
    job = yield from submitted(g, name)
    row = yield job.refresh(g.conn)
    return row


def does(value: str) -> str:
    """A step's function."""
    seen.append(value)
    return value


async def does_async(value: str) -> str:
    """The same, async."""
    await asyncio.sleep(0)
    seen.append(value)
    return value


def done(conn: Any) -> Any:
    """That of the connection's kind."""
    return does_async if chancy.run.awaited(conn) else does


def fail_in(*attempts: int) -> None:
    """In these attempts."""
    if current_job().attempt in attempts:
        raise ValueError("not yet")


@script
def three_steps(job: Any, conn: Any) -> Any:
    a = yield job.step(conn, "a", done(conn), "a")
    fail_in(1)
    b = yield job.step(conn, "b", done(conn), "b")
    fail_in(2)
    c = yield job.step(conn, "c", done(conn), value="c")
    return a + b + c


@case
def a_step_that_is_done_is_not_done_again_in_the_next_attempt(g: Ground) -> Steps:
    row = yield from performed(g, "three_steps")
    assert (row.state, row.attempt, row.result, seen) == (State.SUCCEEDED, 3, b'"abc"', ["a", "b", "c"])
    steps = yield chancy.steps(g.conn, row.id)
    assert [(step.name, step.kind, step.attempt, step.until, step.result) for step in steps] == [
        (name, StepKind.STEP, attempt, None, f'"{name}"'.encode()) for attempt, name in enumerate("abc", 1)
    ]
    assert all(timedelta(0) <= datetime.now(UTC) - step.at < timedelta(minutes=1) for step in steps)
    assert (yield chancy.steps(g.conn, row.id, limit=1)) == steps[:1]


def fails_at_first() -> int:
    """A step's function that fails in the first attempt."""
    seen.append(current_job().attempt)
    fail_in(1)
    return current_job().attempt


@script
def one_that_fails(job: Any, conn: Any) -> Any:
    return (yield job.step(conn, "a", fails_at_first))


@case
def a_step_that_raises_is_tried_again_in_the_next_attempt(g: Ground) -> Steps:
    row = yield from performed(g, "one_that_fails")
    assert (row.state, row.attempt, row.result, seen) == (State.SUCCEEDED, 2, b"2", [1, 2])


@script
def tried_again_at_once(job: Any, conn: Any) -> Any:
    for number in (0, 1):
        try:
            return (yield job.step(conn, "a", ten_by, number))
        except ZeroDivisionError:
            seen.append("again")
    return None


def ten_by(number: int) -> float:
    """A step's function."""
    return 10 / number


@case
def a_step_that_raises_may_be_tried_again_in_the_same_attempt(g: Ground) -> Steps:
    row = yield from performed(g, "tried_again_at_once")
    assert (row.state, row.attempt, row.result, seen) == (State.SUCCEEDED, 1, b"10.0", ["again"])


@script
def twice_the_same(job: Any, conn: Any) -> Any:
    yield job.step(conn, "page", done(conn), "a")
    yield job.step(conn, "page", done(conn), "b")


@case
def a_name_is_used_once_in_an_attempt(g: Ground) -> Steps:
    row = yield from performed(g, "twice_the_same")
    assert (row.state, seen) == (State.FAILED, ["a"])
    assert {error.kind for error in row.errors} == {"InvalidOption"}
    assert 'as f"page {n}"' in row.errors[0].message


def point_of(x: int) -> Point:
    """A step's function."""
    return Point(x, 1)


def price() -> Decimal:
    """A step's function."""
    return Decimal("1.50")


def nothing() -> None:
    """A step's function."""
    seen.append("nothing")


@script
def of_several_types(job: Any, conn: Any) -> Any:
    seen.append((yield job.step(conn, "point", point_of, 7)))
    seen.append((yield job.step(conn, "price", price)))
    seen.append((yield job.step(conn, "nothing", nothing)))
    fail_in(1)


@case
def the_result_of_a_step_is_of_the_functions_type_in_each_attempt(g: Ground) -> Steps:
    row = yield from performed(g, "of_several_types")
    values = [Point(7, 1), Decimal("1.50")]
    assert (row.state, seen) == (State.SUCCEEDED, [*values, "nothing", None, *values, None])


@script
def of_a_task(job: Any, conn: Any) -> Any:
    return (yield job.step(conn, "note", note, 5))


@case
def a_task_may_be_a_step_and_is_called_here(g: Ground) -> Steps:
    row = yield from performed(g, "of_a_task")
    assert (row.state, row.result, seen) == (State.SUCCEEDED, b"5", [5])


@script
def refused(job: Any, conn: Any) -> Any:
    wrong: list[Any] = [lambda: 1, 5, says_nothing, says_what_cannot_be]
    for function in wrong:
        with pytest.raises(InvalidOption, match="function"):
            job.step(conn, "a", function)
    for name in ["", "a\0b", 5, None, "x" * 501]:
        with pytest.raises(InvalidOption, match="name"):
            job.step(conn, name, done(conn), "a")
    for delay in ["1 h", None, timedelta(days=36_526)]:
        with pytest.raises(InvalidOption, match="delay"):
            job.sleep(conn, "a", delay)
    with pytest.raises(InvalidOption, match="kind"):
        job.wait(conn, "a", Ground)
    with pytest.raises(InvalidConnection):
        job.step(None, "a", done(conn), "a")
    yield None


def says_nothing():  # type: ignore[no-untyped-def]
    """Has no annotation."""


def says_what_cannot_be() -> Ground:
    """Returns what JSON has no word for."""
    return ground[0]


@case
def what_cannot_be_a_step_is_refused_at_the_call_and_nothing_is_sent(g: Ground) -> Steps:
    row = yield from performed(g, "refused")
    assert row.state is State.SUCCEEDED, row.errors
    assert (yield chancy.steps(g.conn, row.id)) == []


def number() -> int:
    """Returns what it does not promise."""
    seen.append("called")
    return "one"  # type: ignore[return-value]


@script
def with_a_wrong_result(job: Any, conn: Any) -> Any:
    with pytest.raises(InvalidResult, match="step 'a'"):
        yield job.step(conn, "a", number)


@case
def a_result_that_is_not_what_the_function_promises_is_refused(g: Ground) -> Steps:
    row = yield from performed(g, "with_a_wrong_result")
    assert (row.state, seen) == (State.SUCCEEDED, ["called"])
    assert (yield chancy.steps(g.conn, row.id)) == []


def text_of(size: int) -> str:
    """A step's function."""
    seen.append(size)
    return "ž" * (size // 2)


@script
def of_large_results(job: Any, conn: Any) -> Any:
    for size in (10_000, 100_000, 1_048_570):
        assert len((yield job.step(conn, str(size), text_of, size))) == size // 2
    with pytest.raises(InvalidResult, match="at most 1,048,576 fit"):
        yield job.step(conn, "too large", text_of, 1_048_576)
    fail_in(1)


@case
def a_result_of_up_to_a_mebibyte_is_kept(g: Ground) -> Steps:
    row = yield from performed(g, "of_large_results")
    assert (row.state, row.attempt) == (State.SUCCEEDED, 2)
    assert seen == [10_000, 100_000, 1_048_570, 1_048_576, 1_048_576]


def inner(conn: Any) -> str:
    """A step's function that has a step of its own."""
    value = current_job().step(conn, "inner", does, "inner")
    fail_in(1)
    return value + "!"


async def inner_async(conn: Any) -> str:
    """The same, async."""
    value = await current_job().step(conn, "inner", does_async, "inner")
    fail_in(1)
    return value + "!"


@script
def one_within_the_other(job: Any, conn: Any) -> Any:
    value = yield job.step(conn, "outer", inner_async if chancy.run.awaited(conn) else inner, conn)
    fail_in(2)
    return value


@case
def a_step_may_have_steps_of_its_own(g: Ground) -> Steps:
    row = yield from performed(g, "one_within_the_other")
    assert (row.state, row.attempt, row.result, seen) == (State.SUCCEEDED, 3, b'"inner!"', ["inner"])


def in_a_transaction(conn: Any) -> int:
    """A step and its effect, committed in the second attempt."""
    with transaction(conn):
        note.submit(conn, f"effect {current_job().attempt}")
        current_job().step(conn, "a", does, "a")
        fail_in(1)
    return 1


async def in_a_transaction_async(conn: Any) -> int:
    """The same, async."""
    async with transaction(conn):
        await note.submit(conn, f"effect {current_job().attempt}")
        await current_job().step(conn, "a", does_async, "a")
        fail_in(1)
    return 1


@script
def with_an_effect(job: Any, conn: Any) -> Any:
    yield (in_a_transaction_async if chancy.run.awaited(conn) else in_a_transaction)(conn)
    fail_in(2)


@case
def what_a_step_has_written_and_that_it_is_done_are_committed_together_or_not_at_all(g: Ground) -> Steps:
    row = yield from performed(g, "with_an_effect")
    assert (row.state, row.attempt) == (State.SUCCEEDED, 3)
    notes = yield chancy.jobs(g.conn, task=note)
    assert {job.arguments for job in notes} <= {b'{"value":"effect 2"}', b'{"value":"effect 3"}'}
    assert seen.count("a") == 2  # in the first attempt, and in the second: the third submits a note and does no step


@script
def sleeps(job: Any, conn: Any) -> Any:
    yield job.step(conn, "a", done(conn), "a")
    yield job.sleep(conn, "settle", timedelta(days=365))
    return (yield job.step(conn, "b", done(conn), "b"))


@case
def a_job_sleeps_for_a_year_and_no_attempt_is_burnt(g: Ground) -> Steps:
    job = yield from submitted(g, "sleeps")
    row = yield job.refresh(g.conn)
    assert (row.state, row.attempt, row.errors, seen) == (State.SCHEDULED, 0, (), ["a"])
    assert timedelta(days=364) < row.run_at - datetime.now(UTC) <= timedelta(days=365)
    rest = (yield chancy.steps(g.conn, job.id))[-1]
    assert (rest.name, rest.kind, rest.until, rest.result) == ("settle", StepKind.SLEEP, row.run_at, None)
    yield g.perform_snoozed(job)
    row = yield job.refresh(g.conn)
    assert (row.state, row.attempt, row.result, seen) == (State.SUCCEEDED, 1, b'"b"', ["a", "b"])


@case
def a_sleep_goes_on_to_the_same_instant_where_its_job_is_woken_too_early(g: Ground) -> Steps:
    job = yield from submitted(g, "sleeps")
    first = yield job.refresh(g.conn)
    yield chancy.cancel(g.conn, job.id)
    yield chancy.requeue(g.conn, job.id)
    yield g.perform()
    row = yield job.refresh(g.conn)
    assert (row.state, row.run_at, seen) == (State.SCHEDULED, first.run_at, ["a"])


@script
def sleeps_no_time(job: Any, conn: Any) -> Any:
    yield job.sleep(conn, "a", 0)
    yield job.sleep(conn, "b", timedelta(days=-1))
    return 1


@case
def a_sleep_of_no_time_does_not_end_the_attempt(g: Ground) -> Steps:
    row = yield from performed(g, "sleeps_no_time")
    assert (row.state, row.attempt, row.result) == (State.SUCCEEDED, 1, b"1")


def rest_in_a_transaction(conn: Any, rest: Callable[[], Any]) -> str:
    """What is said of it."""
    with pytest.raises(InvalidConnection) as told, transaction(conn):
        rest()
    return str(told.value)


async def rest_in_a_transaction_async(conn: Any, rest: Callable[[], Any]) -> str:
    """The same, async."""
    with pytest.raises(InvalidConnection) as told:
        async with transaction(conn):
            await rest()
    return str(told.value)


@script
def rests_in_a_transaction(job: Any, conn: Any) -> Any:
    within = rest_in_a_transaction_async if chancy.run.awaited(conn) else rest_in_a_transaction
    seen.append((yield within(conn, lambda: job.sleep(conn, "a", 60))))
    seen.append((yield within(conn, lambda: job.wait(conn, "b", int))))


@case
def a_job_cannot_sleep_or_wait_inside_a_transaction_which_would_be_rolled_back(g: Ground) -> Steps:
    row = yield from performed(g, "rests_in_a_transaction")
    if row.state is State.FAILED and not seen:  # in memory a connection of another stack stands nowhere
        return
    assert row.state is State.SUCCEEDED, row.errors
    assert ["sleep in 'a'" in seen[0], "wait in 'b'" in seen[1]] == [True, True]
    assert (yield chancy.steps(g.conn, row.id)) == []


@case
def a_signal_ends_a_sleep(g: Ground) -> Steps:
    job = yield from submitted(g, "sleeps")
    assert (yield chancy.signal(g.conn, job.id, "settle"))
    yield g.perform()
    row = yield job.refresh(g.conn)
    assert (row.state, row.attempt, seen) == (State.SUCCEEDED, 1, ["a", "b"])


@script
def catches_everything(job: Any, conn: Any) -> Any:
    for name in ("a", "b"):
        try:
            yield job.sleep(conn, name, 3600)
        except Exception:
            seen.append("caught")
    yield job.step(conn, "c", done(conn), "c")


@case
def an_attempt_that_goes_on_after_its_sleep_begins_no_step(g: Ground) -> Steps:
    row = yield from performed(g, "catches_everything")
    assert (row.state, row.attempt, seen) == (State.SCHEDULED, 0, ["caught", "caught"])
    assert [step.name for step in (yield chancy.steps(g.conn, row.id))] == ["a"]


@script
def fails_at_last(job: Any, conn: Any) -> Any:
    yield job.step(conn, "a", done(conn), "a")
    yield job.step(conn, "b", done(conn), "b")
    if current_job().attempt <= 4:
        raise ValueError("never")
    return (yield job.step(conn, "c", done(conn), "c"))


@case
def a_failed_job_that_is_requeued_goes_on_after_the_steps_that_are_done(g: Ground) -> Steps:
    job = yield from submitted(g, "fails_at_last")
    assert (yield job.refresh(g.conn)).state is State.FAILED
    yield chancy.requeue(g.conn, job.id)
    yield g.perform()
    row = yield job.refresh(g.conn)
    assert (row.state, row.attempt, seen) == (State.SUCCEEDED, 5, ["a", "b", "c"])


@case
def steps_that_are_forgotten_are_done_again(g: Ground) -> Steps:
    job = yield from submitted(g, "fails_at_last")
    assert (yield chancy.forget_steps(g.conn, job.id, names=["b", "unknown"])) == 1
    yield chancy.requeue(g.conn, job.id)
    yield g.perform()
    assert ((yield job.refresh(g.conn)).state, seen) == (State.SUCCEEDED, ["a", "b", "b", "c"])
    assert (yield chancy.forget_steps(g.conn, job.id)) == 3
    assert (yield chancy.forget_steps(g.conn, job.id)) == 0
    assert (yield chancy.steps(g.conn, job.id)) == []
    yield chancy.requeue(g.conn, job.id)
    yield g.perform()
    assert seen == ["a", "b", "b", "c", "a", "b", "c"]


@script
def forgets(job: Any, conn: Any) -> Any:
    yield job.step(conn, "a", done(conn), "a")
    return (yield chancy.forget_steps(conn, job.id))


@case
def of_a_job_that_runs_no_step_is_forgotten(g: Ground) -> Steps:
    row = yield from performed(g, "forgets")
    assert (row.state, row.result) == (State.SUCCEEDED, b"0")
    assert len((yield chancy.steps(g.conn, row.id))) == 1
    with pytest.raises(UnknownJob):
        yield chancy.forget_steps(g.conn, 999_999)


@script
def completes_and_goes_on(job: Any, conn: Any) -> Any:
    yield (complete_async if chancy.run.awaited(conn) else complete)(conn)
    with pytest.raises(LeaseLost):
        yield job.step(conn, "a", done(conn), "a")
    with pytest.raises(LeaseLost):
        yield job.sleep(conn, "b", 60)
    with pytest.raises(LeaseLost):
        yield job.wait(conn, "c", int)
    seen.append("refused")


def complete(conn: Any) -> None:
    """In a transaction of its own."""
    with transaction(conn):
        current_job().complete(conn, None)


async def complete_async(conn: Any) -> None:
    """The same, async."""
    async with transaction(conn):
        await current_job().complete(conn, None)


@case
def an_attempt_whose_job_is_not_its_own_any_more_cannot_write_a_step(g: Ground) -> Steps:
    row = yield from performed(g, "completes_and_goes_on")
    assert (row.state, seen) == (State.SUCCEEDED, ["a", "refused"])
    assert (yield chancy.steps(g.conn, row.id)) == []


def last_step(conn: Any) -> None:
    """A step and the completion in one transaction."""
    with transaction(conn):
        current_job().step(conn, "a", does, "a")
        current_job().complete(conn, 5)


async def last_step_async(conn: Any) -> None:
    """The same, async."""
    async with transaction(conn):
        await current_job().step(conn, "a", does_async, "a")
        await current_job().complete(conn, 5)


@script
def completes_with_its_last_step(job: Any, conn: Any) -> Any:
    yield (last_step_async if chancy.run.awaited(conn) else last_step)(conn)


@case
def the_last_step_and_the_end_of_the_job_may_be_one_transaction(g: Ground) -> Steps:
    row = yield from performed(g, "completes_with_its_last_step")
    assert (row.state, row.result, seen) == (State.SUCCEEDED, b"5", ["a"])
    assert [step.name for step in (yield chancy.steps(g.conn, row.id))] == ["a"]


@script
def waits(job: Any, conn: Any) -> Any:
    yield job.step(conn, "a", done(conn), "a")
    seen.append((yield job.wait(conn, "approved", Point)))
    yield job.sleep(conn, "settle", 3600)
    return 1


@case
def a_job_waits_until_it_is_told(g: Ground) -> Steps:
    job = yield from submitted(g, "waits")
    row = yield job.refresh(g.conn)
    assert (row.state, row.attempt, seen) == (State.SCHEDULED, 0, ["a"])
    rest = (yield chancy.steps(g.conn, job.id))[-1]
    assert (rest.name, rest.kind, rest.until, rest.result) == ("approved", StepKind.WAIT, None, None)
    assert (yield chancy.signal(g.conn, job.id, "something else", 1))
    assert (yield job.refresh(g.conn)).state is State.SCHEDULED
    assert (yield chancy.signal(g.conn, job.id, "approved", Point(3, 4)))
    yield g.perform()
    assert ((yield job.refresh(g.conn)).state, seen) == (State.SCHEDULED, ["a", Point(3, 4)])
    yield g.perform_snoozed(job)
    row = yield job.refresh(g.conn)
    assert (row.state, row.attempt, seen) == (State.SUCCEEDED, 1, ["a", Point(3, 4), Point(3, 4)])


@script
def sleeps_before_it_waits(job: Any, conn: Any) -> Any:
    yield job.sleep(conn, "settle", 3600)
    return (yield job.wait(conn, "approved", Point))


@case
def a_job_may_be_told_before_it_waits(g: Ground) -> Steps:
    job = yield from submitted(g, "sleeps_before_it_waits")
    assert (yield chancy.signal(g.conn, job.id, "approved", Point(1, 1)))
    yield g.perform()
    assert (yield job.refresh(g.conn)).state is State.SCHEDULED
    yield g.perform_snoozed(job)
    row = yield job.refresh(g.conn)
    assert (row.state, row.attempt, row.result) == (State.SUCCEEDED, 1, b'{"x":1,"y":1}')


@case
def of_two_signals_the_first_counts(g: Ground) -> Steps:
    job = yield from submitted(g, "sleeps")
    assert (yield chancy.signal(g.conn, job.id, "approved", 1))
    assert not (yield chancy.signal(g.conn, job.id, "approved", 2))
    (told,) = [step for step in (yield chancy.steps(g.conn, job.id)) if step.kind is StepKind.SIGNAL]
    assert (told.name, told.result, told.attempt) == ("approved", b"1", 0)


@case
def a_signal_to_a_finished_job_changes_nothing_and_to_an_unknown_one_is_an_error(g: Ground) -> Steps:
    row = yield from performed(g, "sleeps_no_time")
    assert not (yield chancy.signal(g.conn, row.id, "approved", 1))
    with pytest.raises(UnknownJob):
        yield chancy.signal(g.conn, 999_999, "approved", 1)


@case
def a_signal_that_cannot_be_carried_is_refused_and_nothing_is_sent(g: Ground) -> Steps:
    job = yield from submitted(g, "waits")
    for value in (object(), g, float("nan"), "x" * 1_048_576):
        with pytest.raises(InvalidOption, match="value"):
            yield chancy.signal(g.conn, job.id, "approved", value)
    with pytest.raises(InvalidOption, match="name"):
        yield chancy.signal(g.conn, job.id, "", 1)
    assert (yield job.refresh(g.conn)).state is State.SCHEDULED


@case
def a_signal_that_is_rolled_back_never_was(g: Ground) -> Steps:
    job = yield from submitted(g, "waits")
    yield block(g, lambda: chancy.signal(g.conn, job.id, "approved", Point(1)), roll_back=True)
    assert (yield job.refresh(g.conn)).state is State.SCHEDULED
    (told,) = yield block(g, lambda: chancy.signal(g.conn, job.id, "approved", Point(2)))
    yield g.perform()
    assert told
    assert seen[-1] == Point(2)


@script
def waits_for_an_hour(job: Any, conn: Any) -> Any:
    try:
        return (yield job.wait(conn, "approved", int, timeout=timedelta(hours=1)))
    except NotSignalled as error:
        seen.append(error.name)
    yield job.sleep(conn, "settle", 3600)
    return -1


@case
def a_wait_that_is_over_is_over_in_each_attempt_and_for_each_signal(g: Ground) -> Steps:
    job = yield from submitted(g, "waits_for_an_hour")
    row = yield job.refresh(g.conn)
    assert row.state is State.SCHEDULED
    assert timedelta(minutes=58) < row.run_at - datetime.now(UTC) <= timedelta(hours=1)
    yield g.perform_snoozed(job)
    assert not (yield chancy.signal(g.conn, job.id, "approved", 5))
    yield g.perform_snoozed(job)
    row = yield job.refresh(g.conn)
    assert (row.state, row.attempt, row.result, seen) == (State.SUCCEEDED, 1, b"-1", ["approved", "approved"])
    kinds = [step.kind for step in (yield chancy.steps(g.conn, job.id))]
    assert kinds == [StepKind.WAIT, StepKind.TIMEOUT, StepKind.SLEEP]


@case
def a_job_that_is_told_in_time_has_the_value(g: Ground) -> Steps:
    job = yield from submitted(g, "waits_for_an_hour")
    assert (yield chancy.signal(g.conn, job.id, "approved", 5))
    yield g.perform()
    row = yield job.refresh(g.conn)
    assert (row.state, row.result, seen) == (State.SUCCEEDED, b"5", [])


@script
def waits_for_a_number(job: Any, conn: Any) -> Any:
    with pytest.raises(InvalidResult, match="step 'approved'"):
        yield job.wait(conn, "approved", int)


@case
def a_signal_of_another_type_is_told_where_it_is_waited_for(g: Ground) -> Steps:
    job = yield from submitted(g, "waits_for_a_number")
    assert (yield chancy.signal(g.conn, job.id, "approved", "five"))
    yield g.perform()
    assert (yield job.refresh(g.conn)).state is State.SUCCEEDED


@script
def tells_itself(job: Any, conn: Any) -> Any:
    yield chancy.signal(conn, job.id, "approved", 7)
    return (yield job.wait(conn, "approved", int))


@case
def a_job_that_is_told_while_it_runs_need_not_wait(g: Ground) -> Steps:
    row = yield from performed(g, "tells_itself")
    assert (row.state, row.attempt, row.result) == (State.SUCCEEDED, 1, b"7")


@script
def is_told_while_its_attempt_ends(job: Any, conn: Any) -> Any:
    try:
        value = yield job.wait(conn, "approved", int)
    except chancy.Suspended:
        yield chancy.signal(conn, job.id, "approved", 7)
        raise
    return value


@case
def a_word_that_comes_between_the_wait_and_the_end_of_its_attempt_is_not_lost(g: Ground) -> Steps:
    row = yield from performed(g, "is_told_while_its_attempt_ends")
    assert (row.state, row.attempt, row.result) == (State.SUCCEEDED, 1, b"7")


@case
def a_job_that_sleeps_or_waits_can_be_cancelled(g: Ground) -> Steps:
    for name in ("sleeps", "waits"):
        job = yield from submitted(g, name)
        assert (yield chancy.cancel(g.conn, job.id))
        assert (yield job.refresh(g.conn)).state is State.CANCELLED
        assert not (yield chancy.signal(g.conn, job.id, "approved", 1))


def carries_two_at_once(conn: Any) -> bool:
    """psycopg has the second wait for the first. Connections of other stacks refuse it."""
    return chancy.run.awaited(conn) and type(conn).__module__.partition(".")[0] in ("psycopg", "chancy_testing")


@script
def several_at_once(job: Any, conn: Any) -> Any:
    if not carries_two_at_once(conn):
        do = does_async if chancy.run.awaited(conn) else does
        a = yield job.step(conn, "a", do, "a")
        return [a, (yield job.step(conn, "b", do, "b"))]
    values = yield asyncio.gather(*(job.step(conn, name, does_async, name) for name in "ab"))
    fail_in(1)
    return values


@case
def steps_may_be_done_at_once(g: Ground) -> Steps:
    row = yield from performed(g, "several_at_once")
    assert (row.state, row.result, sorted(seen)) == (State.SUCCEEDED, b'["a","b"]', ["a", "b"])


@script
def a_sleep_and_a_wait_at_once(job: Any, conn: Any) -> Any:
    if carries_two_at_once(conn):
        yield asyncio.gather(job.sleep(conn, "settle", timedelta(days=3)), job.wait(conn, "approved", int))
    else:
        yield job.sleep(conn, "settle", timedelta(days=3))
    seen.append("over")


@case
def of_a_sleep_and_a_wait_at_once_whichever_comes_first_wakes_the_job(g: Ground) -> Steps:
    job = yield from submitted(g, "a_sleep_and_a_wait_at_once")
    row = yield job.refresh(g.conn)
    assert (row.state, row.attempt) == (State.SCHEDULED, 0)
    assert timedelta(days=2) < row.run_at - datetime.now(UTC) <= timedelta(days=3)
    assert (yield chancy.signal(g.conn, job.id, "approved", 1))
    assert (yield chancy.signal(g.conn, job.id, "settle"))
    yield g.perform()
    assert ((yield job.refresh(g.conn)).state, seen) == (State.SUCCEEDED, ["over"])
