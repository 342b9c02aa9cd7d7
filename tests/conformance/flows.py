"""Graphs of jobs: results as arguments, and as results."""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

import chancy
import chancy_ops
from chancy import (
    ChancyError,
    Discard,
    InvalidArguments,
    InvalidOption,
    JobCancelled,
    JobFailed,
    Limit,
    Outcome,
    Snooze,
    State,
    Unique,
    current_job,
    outcome_of,
    result_of,
    task,
)
from conformance.cases import block, case, ground, is_async, seen
from conformance.grounds import Ground, Steps, transaction


class Sum(msgspec.Struct, frozen=True):
    """A Struct on its way along an edge."""

    total: int
    of: tuple[int, ...] = ()


@task(name="flows.leaf")
def leaf(value: int = 1) -> int:
    """What it is given."""
    seen.append(("leaf", value))
    return value


@task(name="flows.total")
async def total(values: list[int], *, plus: int = 0) -> Sum:
    """Their sum."""
    seen.append(("total", values))
    return Sum(sum(values) + plus, tuple(values))


@task(name="flows.named")
def named(values: dict[str, Sum], other: Sum | None = None) -> str:
    """What it was given, as a text."""
    return ",".join(f"{name}={value.total}" for name, value in values.items()) + f" {other and other.total}"


@task(name="flows.text")
def text(value: str) -> str:
    """The same."""
    return value


@task(name="flows.nothing")
def nothing(value: Any) -> None:
    """None."""
    seen.append(("nothing", value))


@task(name="flows.lost", max_attempts=2)
def lost(value: int, how: str = "fail") -> int:
    """Fails, or is discarded; or is not, once `mended`."""
    seen.append(("lost", value))
    if how == "discard":
        raise Discard("no")
    if value not in mended:
        raise ArithmeticError(f"lost {value}")
    return value


mended: set[int] = set()


@task(name="flows.told")
def told(outcome: Outcome[int], before: int = 0) -> str:
    """How another one has ended."""
    seen.append(("told", outcome.state))
    return f"{outcome.state} {outcome.result} {[error.message for error in outcome.errors]}"


@task(name="flows.graph")
def graph(values: list[int]) -> Sum:
    """As wide as what it is given."""
    seen.append("graph")
    return result_of(total.bind([result_of(leaf.bind(value)) for value in values]))


@task(name="flows.nested")
async def nested(depth: int) -> Sum:
    """As deep as it is told."""
    if depth == 0:
        return Sum(0)
    return result_of(nested.bind(depth - 1))


@task(name="flows.in_vain", max_attempts=1)
def in_vain(value: int) -> Sum:
    """Becomes what fails."""
    seen.append("in vain")
    return result_of(total.bind([result_of(lost.bind(value))]))


@task(name="flows.outcome_returned", max_attempts=1)
def outcome_returned() -> int:
    """Returns what cannot be returned."""
    return outcome_of(leaf.bind(1))  # type: ignore[return-value]


@task(name="flows.in_a_list", max_attempts=1)
def in_a_list() -> list[int]:
    """Returns a list of what is not known yet."""
    return [result_of(leaf.bind(1))]


@task(name="flows.completes_as")
def completes_as() -> Sum:
    """Completes itself with a graph."""
    with transaction(ground[0].conn):
        current_job().complete(ground[0].conn, result_of(total.bind([result_of(leaf.bind(4))])))
    return Sum(99)


@task(name="flows.completes_as_async")
async def completes_as_async() -> Sum:
    """The same, awaited."""
    conn: Any = ground[0].conn
    async with transaction(conn):
        await current_job().complete(conn, result_of(total.bind([result_of(leaf.bind(4))])))
    return Sum(99)


@task(name="flows.slow", max_attempts=1)
def slow(value: int) -> int:
    """Snoozes the first time."""
    if not mended:
        mended.add(value)
        raise Snooze(timedelta(hours=1))
    return value


@task(name="flows.only_one", unique=Unique(key=lambda value: value))
def only_one(value: int) -> int:
    """One of each value."""
    return value


@task(name="flows.whole_once", unique=Unique(key=lambda value: value))
def whole_once(value: int) -> Sum:
    """A whole of which there is one."""
    return result_of(total.bind([result_of(slow.bind(value))]))


@task(name="flows.limited", limits=[Limit.concurrency(1, key=lambda customer: customer)])
def limited(customer: str, value: int) -> int:
    """Shares a limit with others of its customer."""
    return value


@task(name="flows.keyed_by_hole", limits=[Limit.concurrency(1, key=lambda value: value)])
def keyed_by_hole(value: int) -> int:
    """Shares a limit by its only argument."""
    return value


@case
def a_job_is_given_the_result_of_another_one(g: Ground) -> Steps:
    job = yield total.submit(g.conn, [result_of(leaf.bind(3)), 4, result_of(leaf.bind(5))], plus=1)
    yield g.perform()
    assert (yield job.result(g.conn)) == Sum(13, (3, 4, 5))


@case
def results_go_into_lists_dicts_and_keywords(g: Ground) -> Steps:
    one = total.bind([1])
    job = yield named.submit(
        g.conn, {"a": result_of(one), "b": Sum(7)}, other=result_of(total.bind([result_of(leaf.bind(5))]))
    )
    yield g.perform()
    assert (yield job.result(g.conn)) == "a=1,b=7 5"


@case
def one_bound_job_is_one_job_however_many_need_it(g: Ground) -> Steps:
    one = leaf.bind(2)
    left, right = total.bind([result_of(one)]), total.bind([result_of(one), result_of(one)])
    job = yield named.submit(g.conn, {"l": result_of(left), "r": result_of(right)})
    yield g.perform()
    assert (yield job.result(g.conn)) == "l=2,r=4 None"
    assert seen.count(("leaf", 2)) == 1


@case
def several_ends_are_submitted_in_one_call(g: Ground) -> Steps:
    one = leaf.bind(2)
    jobs = yield chancy.submit_many(g.conn, [total.bind([result_of(one)]), one, total.bind([result_of(one)], plus=1)])
    yield g.perform()
    for job, expected in zip(jobs, [Sum(2, (2,)), 2, Sum(3, (2,))], strict=True):
        assert (yield job.result(g.conn)) == expected


@case
def a_job_may_need_one_that_is_submitted(g: Ground) -> Steps:
    one = yield leaf.submit(g.conn, 6)
    job = yield total.submit(g.conn, [result_of(one)])
    yield g.perform()
    assert (yield job.result(g.conn)) == Sum(6, (6,))


@case
def a_job_may_need_one_that_has_succeeded(g: Ground) -> Steps:
    one = yield leaf.submit(g.conn, 6)
    yield g.perform()
    job = yield total.submit(g.conn, [result_of(one)])
    yield g.perform()
    assert (yield job.result(g.conn)) == Sum(6, (6,))


@case
def a_job_that_needs_one_that_has_failed_is_cancelled(g: Ground) -> Steps:
    mended.clear()
    one = yield lost.submit(g.conn, 6)
    yield g.perform()
    job = yield total.submit(g.conn, [result_of(one)])
    yield g.perform()
    row = yield job.refresh(g.conn)
    assert (row.state, row.errors[-1].kind) == (State.CANCELLED, "NeedFailed")
    assert row.errors[-1].message == f"it needs job {one.id} (flows.lost), which failed"


@case
def a_need_that_fails_ends_all_that_come_after_it(g: Ground) -> Steps:
    mended.clear()
    middle = total.bind([result_of(lost.bind(1))])
    job = yield named.submit(g.conn, {"m": result_of(middle)})
    yield g.perform()
    with pytest.raises(JobCancelled):
        yield job.result(g.conn)
    row = yield job.refresh(g.conn)
    assert "which was cancelled" in row.errors[-1].message


@case
def a_need_that_is_discarded_ends_what_needs_it(g: Ground) -> Steps:
    job = yield total.submit(g.conn, [result_of(lost.bind(1, how="discard"))])
    yield g.perform()
    row = yield job.refresh(g.conn)
    assert (row.state, row.errors[-1].message[-13:]) == (State.CANCELLED, "was discarded")


@case
def an_outcome_is_told_of_a_success(g: Ground) -> Steps:
    job = yield told.submit(g.conn, outcome_of(leaf.bind(3)))
    yield g.perform()
    assert (yield job.result(g.conn)) == "succeeded 3 []"


@case
def an_outcome_is_told_of_a_failure(g: Ground) -> Steps:
    mended.clear()
    job = yield told.submit(g.conn, outcome_of(lost.bind(3)))
    yield g.perform()
    assert (yield job.result(g.conn)) == "failed None ['lost 3', 'lost 3']"


@case
def an_outcome_is_told_of_a_cancel(g: Ground) -> Steps:
    mended.clear()
    first = total.bind([result_of(lost.bind(3))])
    job = yield told.submit(g.conn, outcome_of(first))  # type: ignore[arg-type]
    yield g.perform()
    assert (yield job.result(g.conn)).startswith("cancelled None ['it needs job")


@case
def what_needs_a_result_and_an_outcome_of_one_job_needs_its_success(g: Ground) -> Steps:
    mended.clear()
    one = lost.bind(3)
    job = yield told.submit(g.conn, outcome_of(one), result_of(one))
    yield g.perform()
    assert (yield job.refresh(g.conn)).state is State.CANCELLED


@case
def a_job_comes_after_others_without_being_told(g: Ground) -> Steps:
    first = leaf.bind(1)
    job = yield leaf.using(after=[first]).submit(g.conn, 2)
    yield g.perform()
    assert (yield job.result(g.conn)) == 2
    assert seen == [("leaf", 1), ("leaf", 2)]


@case
def a_job_that_comes_after_one_that_fails_is_cancelled(g: Ground) -> Steps:
    mended.clear()
    job = yield leaf.using(after=[lost.bind(1)]).submit(g.conn, 2)
    yield g.perform()
    assert (yield job.refresh(g.conn)).state is State.CANCELLED
    assert ("leaf", 2) not in seen


@case
def a_job_comes_after_the_end_of_another_whatever_that_is(g: Ground) -> Steps:
    mended.clear()
    job = yield leaf.using(after=[outcome_of(lost.bind(1))]).submit(g.conn, 2)
    yield g.perform()
    assert (yield job.result(g.conn)) == 2


@case
def a_function_may_return_a_graph(g: Ground) -> Steps:
    job = yield graph.submit(g.conn, [1, 2, 3])
    yield g.perform()
    assert (yield job.result(g.conn)) == Sum(6, (1, 2, 3))
    row = yield job.refresh(g.conn)
    assert (row.state, row.attempt, row.becomes is not None) == (State.SUCCEEDED, 1, True)


@case
def an_empty_graph_is_an_empty_list(g: Ground) -> Steps:
    job = yield graph.submit(g.conn, [])
    yield g.perform()
    assert (yield job.result(g.conn)) == Sum(0)


@case
def graphs_are_nested(g: Ground) -> Steps:
    job = yield nested.submit(g.conn, 5)
    yield g.perform()
    assert (yield job.result(g.conn)) == Sum(0)


@case
def what_needs_a_job_that_returns_a_graph_waits_for_the_graph(g: Ground) -> Steps:
    job = yield named.submit(g.conn, {"g": result_of(graph.bind([4, 5]))})
    yield g.perform()
    assert (yield job.result(g.conn)) == "g=9 None"


@case
def a_job_whose_graph_fails_has_failed(g: Ground) -> Steps:
    mended.clear()
    job = yield in_vain.submit(g.conn, 1)
    yield g.perform()
    with pytest.raises(JobFailed, match="it became job"):
        yield job.result(g.conn)


@case
def a_handler_completes_with_a_graph(g: Ground) -> Steps:
    job = yield (completes_as_async if is_async(g) else completes_as).submit(g.conn)
    yield g.perform()
    assert (yield job.result(g.conn)) == Sum(4, (4,))


@case
def an_outcome_cannot_be_returned(g: Ground) -> Steps:
    job = yield outcome_returned.submit(g.conn)
    yield g.perform()
    with pytest.raises(JobFailed, match="not its outcome"):
        yield job.result(g.conn)


@case
def results_in_a_list_cannot_be_returned(g: Ground) -> Steps:
    job = yield in_a_list.submit(g.conn)
    yield g.perform()
    with pytest.raises(JobFailed):
        yield job.result(g.conn)


@case
def none_is_a_result(g: Ground) -> Steps:
    job = yield nothing.submit(g.conn, result_of(nothing.bind(1)))
    yield g.perform()
    assert (yield job.result(g.conn)) is None
    assert seen == [("nothing", 1), ("nothing", None)]


@case
def texts_go_along_an_edge_as_they_are(g: Ground) -> Steps:
    given = 'a\0b \x1f "quoted" \\ é 💡 \x7f {0} %s \' $$'
    job = yield text.submit(g.conn, result_of(text.bind(given)))
    yield g.perform()
    assert (yield job.result(g.conn)) == given


@case
def constants_beside_a_result_stay_as_they_are(g: Ground) -> Steps:
    given = "\0\x1f1\x1f é"
    job = yield nothing.submit(g.conn, [given, result_of(leaf.bind(1)), {given: -1}])
    yield g.perform()
    assert (yield job.result(g.conn)) is None
    assert seen[-1] == ("nothing", [given, 1, {given: -1}])


@case
def what_is_known_is_checked_at_once(g: Ground) -> Steps:
    with pytest.raises(InvalidArguments, match="plus"):
        total.bind([result_of(leaf.bind(1))], plus="x")  # type: ignore[arg-type]
    with pytest.raises(InvalidArguments, match="missing"):
        named.bind(other=result_of(total.bind([1])))  # type: ignore[call-arg]
    with pytest.raises(InvalidArguments, match="no such argument"):
        total.bind([result_of(leaf.bind(1))], minus=1)  # type: ignore[call-arg]
    yield None


@task(name="flows.large")
def large(mebibytes: int) -> str:
    """A text of so many."""
    return "x" * mebibytes * 1024**2


@task(name="flows.shrunk")
def shrunk(size: int) -> str:
    """So many MiB, or nothing once `mended`."""
    return "" if size in mended else "x" * size * 1024**2


@task(name="flows.told_texts")
def told_texts(parts: list[str]) -> int:
    """How long they are."""
    return sum(map(len, parts))


@task(name="flows.untyped")
def untyped(value: int) -> Any:
    """A text, which nobody knows who looks at its annotations."""
    return f"no number but {value}"


@case
def what_is_too_large_when_it_is_filled_ends_that_job_alone(g: Ground) -> Steps:
    parts = [large.bind(9), large.bind(9)]
    both = nothing.bind([result_of(part) for part in parts])
    jobs = yield chancy.submit_many(g.conn, [both, leaf.using(after=[both]).bind(1), text.bind(result_of(parts[0]))])
    yield g.perform()
    rows = yield block(g, *[functools.partial(job.refresh, g.conn) for job in jobs])
    assert [row.state for row in rows] == [State.FAILED, State.CANCELLED, State.SUCCEEDED]
    (error,) = rows[0].errors
    assert (error.kind, error.attempt) == ("InvalidArguments", 0)
    assert error.message == (
        f"what it needs has come to {2 * 9 * 1024**2 + 17} bytes of arguments, at most 16777216 fit: store it elsewhere "
        f"and return where it is"
    )
    assert rows[1].errors[-1].message == f"it needs job {jobs[0].id} (flows.nothing), which failed"
    assert not [name for name, *_ in seen]


@case
def what_was_given_too_much_comes_back_with_a_need_that_gives_less(g: Ground) -> Steps:
    mended.clear()
    parts = [shrunk.bind(9), shrunk.bind(8)]
    end, first, _ = yield chancy.submit_many(g.conn, [told_texts.bind([result_of(part) for part in parts]), *parts])
    yield g.perform()
    assert (yield end.refresh(g.conn)).errors[-1].kind == "InvalidArguments"
    mended.add(9)
    assert (yield chancy.requeue(g.conn, first.id)) is True
    yield g.perform()
    assert (yield end.result(g.conn)) == 8 * 1024**2


@case
def what_does_not_fit_when_it_is_filled_ends_that_job_alone(g: Ground) -> Steps:
    need = untyped.bind(1)
    wrong = leaf.using(max_attempts=5).bind(result_of(need))
    jobs = yield chancy.submit_many(g.conn, [wrong, total.bind([result_of(wrong)]), text.bind(result_of(need))])
    yield g.perform()
    rows = yield block(g, *[functools.partial(job.refresh, g.conn) for job in jobs])
    assert [row.state for row in rows] == [State.FAILED, State.CANCELLED, State.SUCCEEDED]
    (error,) = rows[0].errors
    assert error.kind == "InvalidArguments"
    assert "argument 'value' of task flows.leaf: Expected `int`, got `str`" in error.message
    assert not seen


@case
def what_is_no_job_has_no_result(g: Ground) -> Steps:
    for wrong in (leaf, 1, None, "job"):
        with pytest.raises(InvalidOption, match="expected a job"):
            result_of(wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidArguments, match="expected a job"):
            leaf.using(after=[wrong])
    yield None


@case
def a_job_that_waits_is_blocked(g: Ground) -> Steps:
    made = yield block(g, lambda: total.submit(g.conn, [result_of(leaf.bind(1))]), lambda: chancy.jobs(g.conn))
    _, rows = made
    assert [(row.task, row.state) for row in rows] == [
        ("flows.total", State.BLOCKED),
        ("flows.leaf", State.READY),
    ]
    assert rows[0].needs == (rows[1].id,)
    yield g.perform()
    assert (yield chancy.jobs(g.conn, state=State.BLOCKED)) == []


@case
def nothing_of_a_graph_is_there_after_a_rollback(g: Ground) -> Steps:
    yield block(g, lambda: total.submit(g.conn, [result_of(leaf.bind(1))]), roll_back=True)
    assert (yield chancy.jobs(g.conn)) == []
    yield g.perform()
    assert seen == []


@case
def a_blocked_job_can_be_cancelled_and_what_needs_it_follows(g: Ground) -> Steps:
    mended.clear()
    first = yield slow.submit(g.conn, 1)
    yield g.perform()
    middle = yield total.submit(g.conn, [result_of(first)])
    end = yield named.submit(g.conn, {"m": result_of(middle)})
    assert (yield middle.cancel(g.conn)) is True
    assert (yield middle.refresh(g.conn)).state is State.CANCELLED
    assert (yield end.refresh(g.conn)).state is State.CANCELLED
    assert (yield first.refresh(g.conn)).state is State.SCHEDULED


@case
def a_cancel_takes_along_what_nobody_else_needs_if_it_is_told_to(g: Ground) -> Steps:
    mended.clear()
    first = yield slow.submit(g.conn, 1)
    yield g.perform()
    end = yield total.submit(g.conn, [result_of(first)])
    assert (yield chancy.cancel(g.conn, end.id, needs=True)) is True
    assert (yield first.refresh(g.conn)).state is State.CANCELLED


@case
def what_somebody_else_needs_is_not_taken_along(g: Ground) -> Steps:
    mended.clear()
    first = yield slow.submit(g.conn, 1)
    yield g.perform()
    end = yield total.submit(g.conn, [result_of(first)])
    other = yield total.submit(g.conn, [result_of(first)])
    assert (yield chancy.cancel(g.conn, end.id, needs=True)) is True
    assert (yield first.refresh(g.conn)).state is State.SCHEDULED
    assert (yield other.refresh(g.conn)).state is State.BLOCKED


@case
def a_cancelled_workflow_takes_what_it_became_along(g: Ground) -> Steps:
    mended.clear()
    job = yield whole_once.submit(g.conn, 1)
    yield g.perform()
    other = (yield job.refresh(g.conn)).becomes
    assert (yield job.cancel(g.conn)) is True
    assert (yield job.refresh(g.conn)).state is State.CANCELLED
    assert (yield chancy.get(g.conn, other)).state is State.CANCELLED


@case
def a_workflow_holds_its_key_until_its_end(g: Ground) -> Steps:
    mended.clear()
    job = yield whole_once.submit(g.conn, 1)
    yield g.perform()
    again = yield whole_once.submit(g.conn, 1)
    assert again.id == job.id
    assert (yield job.refresh(g.conn)).state is State.BLOCKED


@case
def a_unique_job_in_a_graph_is_refused(g: Ground) -> Steps:
    with pytest.raises(InvalidOption, match="unique"):
        yield total.submit(g.conn, [result_of(only_one.bind(1))])
    one = yield only_one.submit(g.conn, 1)
    job = yield total.submit(g.conn, [result_of(one)])
    yield g.perform()
    assert (yield job.result(g.conn)) == Sum(1, (1,))


@case
def a_key_may_be_made_of_what_is_known(g: Ground) -> Steps:
    job = yield limited.submit(g.conn, "ann", result_of(leaf.bind(2)))
    yield g.perform()
    assert (yield job.result(g.conn)) == 2


@case
def a_key_of_what_is_not_known_is_refused(g: Ground) -> Steps:
    with pytest.raises(InvalidArguments, match="not known when"):
        keyed_by_hole.bind(result_of(leaf.bind(1)))
    yield None


@case
def a_batch_has_all_jobs_of_a_graph(g: Ground) -> Steps:
    conn: Any = g.conn

    def one_batch() -> Any:
        with chancy.batch(conn) as batch:
            batch.submit(total.bind([result_of(leaf.bind(1)), result_of(leaf.bind(2))]))
        return batch

    async def one_async_batch() -> Any:
        async with chancy.batch(conn) as batch:
            await batch.submit(total.bind([result_of(leaf.bind(1)), result_of(leaf.bind(2))]))
        return batch

    made = yield (one_async_batch() if is_async(g) else one_batch())
    yield g.perform()
    progress = yield made.progress(g.conn)
    assert (progress.total, progress.succeeded, progress.finished_at is not None) == (3, 3, True)


@case
def a_delay_counts_from_when_the_needs_are_met(g: Ground) -> Steps:
    job = yield leaf.using(after=[leaf.bind(1)], delay=timedelta(hours=2)).submit(g.conn, 2)
    row = yield job.refresh(g.conn)
    assert row.state is State.BLOCKED or row.run_at > datetime.now(UTC)
    yield g.perform()
    row = yield job.refresh(g.conn)
    assert (row.state, seen) in (
        (State.SCHEDULED, [("leaf", 1)]),
        (State.SUCCEEDED, [("leaf", 1), ("leaf", 2)]),  # nobody waits for a time here
    )


@case
def a_requeue_of_what_failed_brings_back_what_needed_it(g: Ground) -> Steps:
    mended.clear()
    one = yield lost.submit(g.conn, 5)
    end = yield named.submit(g.conn, {"t": result_of(total.bind([result_of(one), result_of(leaf.bind(1))]))})
    yield g.perform()
    assert (yield end.refresh(g.conn)).state is State.CANCELLED
    mended.add(5)
    assert (yield chancy.requeue(g.conn, one.id)) is True
    yield g.perform()
    assert (yield end.result(g.conn)) == "t=6 None"
    assert seen.count(("leaf", 1)) <= 1


@case
def what_was_submitted_for_a_job_that_had_failed_comes_back_with_it(g: Ground) -> Steps:
    mended.clear()
    one = yield lost.submit(g.conn, 5)
    yield g.perform()
    end = yield total.submit(g.conn, [result_of(one)])
    yield g.perform()
    assert (yield end.refresh(g.conn)).state is State.CANCELLED
    mended.add(5)
    assert (yield chancy.requeue(g.conn, one.id)) is True
    yield g.perform()
    assert (yield end.result(g.conn)) == Sum(5, (5,))


@case
def a_requeue_of_an_end_runs_again_what_is_to_blame_and_nothing_else(g: Ground) -> Steps:
    mended.clear()
    middle = total.bind([result_of(leaf.bind(1)), result_of(lost.bind(5))])
    end = yield named.submit(g.conn, {"t": result_of(middle)})
    yield g.perform()
    mended.add(5)
    assert (yield chancy.requeue(g.conn, end.id)) is True
    yield g.perform()
    assert (yield end.result(g.conn)) == "t=6 None"
    assert (seen.count(("leaf", 1)), seen.count(("lost", 5))) == (1, 3)


@case
def a_requeue_of_a_workflow_resumes_its_graph_and_not_its_function(g: Ground) -> Steps:
    mended.clear()
    job = yield in_vain.submit(g.conn, 7)
    yield g.perform()
    mended.add(7)
    assert (yield chancy.requeue(g.conn, job.id)) is True
    yield g.perform()
    assert (yield job.result(g.conn)) == Sum(7, (7,))
    assert seen.count("in vain") == 1


@case
def a_requeue_of_a_workflow_that_succeeded_runs_its_function(g: Ground) -> Steps:
    job = yield graph.submit(g.conn, [1])
    yield g.perform()
    assert (yield chancy.requeue(g.conn, job.id)) is True
    yield g.perform()
    assert (yield job.result(g.conn)) == Sum(1, (1,))
    assert seen.count("graph") == 2


@case
def a_job_that_was_cancelled_by_somebody_does_not_come_back_with_its_need(g: Ground) -> Steps:
    mended.clear()
    one = yield slow.submit(g.conn, 1)
    yield g.perform()
    end = yield total.submit(g.conn, [result_of(one)])
    yield end.cancel(g.conn)
    yield one.cancel(g.conn)
    assert (yield chancy.requeue(g.conn, one.id)) is True
    yield g.perform()
    assert (yield end.refresh(g.conn)).state is State.CANCELLED
    assert (yield chancy.requeue(g.conn, end.id)) is True
    yield g.perform()
    assert (yield end.result(g.conn)) == Sum(1, (1,))


@case
def one_that_came_back_and_was_then_cancelled_by_somebody_stays_so(g: Ground) -> Steps:
    mended.clear()
    other = yield slow.submit(g.conn, 1)
    one = yield lost.submit(g.conn, 5)
    end = yield total.submit(g.conn, [result_of(other), result_of(one)])
    yield g.perform()
    assert (yield end.refresh(g.conn)).errors[-1].kind == "NeedFailed"
    mended.add(5)
    assert (yield chancy.requeue(g.conn, end.id)) is True
    yield g.perform()
    assert (yield end.refresh(g.conn)).state is State.BLOCKED
    yield end.cancel(g.conn)
    assert (yield end.refresh(g.conn)).errors[-1].kind == "NeedFailed"  # what was said of it is kept
    assert (yield chancy.requeue(g.conn, one.id)) is True
    yield g.perform()
    assert (yield end.refresh(g.conn)).state is State.CANCELLED
    assert (yield chancy.requeue(g.conn, end.id)) is True  # somebody wants it after all
    yield g.perform()
    assert (yield end.refresh(g.conn)).state is State.BLOCKED


@case
def a_need_that_is_deleted_ends_what_waits_for_it(g: Ground) -> Steps:
    mended.clear()
    one = yield slow.submit(g.conn, 1)
    yield g.perform()
    end = yield total.submit(g.conn, [result_of(one)])
    assert (yield chancy_ops.delete(g.conn, one.id)) is True
    row = yield end.refresh(g.conn)
    assert (row.state, row.errors[-1].message) == (
        State.CANCELLED, f"it needs job {one.id}, which is not there any more",
    )  # fmt: skip


@case
def a_need_that_is_deleted_ends_who_was_to_be_told_of_its_end_too(g: Ground) -> Steps:
    mended.clear()
    one = yield slow.submit(g.conn, 1)
    yield g.perform()
    tells = yield told.submit(g.conn, outcome_of(one))
    after = yield leaf.using(after=[outcome_of(one)]).submit(g.conn, 1)
    assert (yield chancy_ops.delete(g.conn, one.id)) is True
    for job in (tells, after):
        row = yield job.refresh(g.conn)
        assert (row.state, row.errors[-1].kind, row.errors[-1].message) == (
            State.CANCELLED, "NeedFailed", f"it needs job {one.id}, which is not there any more",
        )  # fmt: skip


@case
def a_direct_call_performs_the_graph(g: Ground) -> Steps:
    if is_async(g):
        assert (yield nested(3)) == Sum(0)
        with pytest.raises(ChancyError, match="await"):
            graph([1, 2])
    else:
        assert graph([1, 2]) == Sum(3, (1, 2))
        assert seen == ["graph", ("leaf", 1), ("leaf", 2), ("total", [1, 2])]
        yield None
