"""Batches and their callbacks."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import Any

import pytest

import chancy
from chancy import (
    BatchCounts,
    InvalidArguments,
    Job,
    NewJob,
    Snooze,
    State,
    Unique,
    UnknownBatch,
    callback,
    current_job,
    task,
)
from conformance.cases import case, is_async, seen
from conformance.grounds import Ground, Steps, transaction
from conformance.tasks import add, discard, fail, note, once, snooze


@task(name="conformance.called_back", max_attempts=2)
def called_back(counts: BatchCounts, note: str = "") -> int:
    """Notes how a batch has ended."""
    seen.append((note, counts))
    return counts.total


@task(name="conformance.called_back_once", unique=Unique(key=lambda key: key), queue="q", priority=3)
async def called_back_once(counts: BatchCounts, *, key: str, text: str = "") -> None:
    """Is there once for each key. Snoozes for an hour, if there were no jobs."""
    seen.append((key, text, counts.total))
    if not counts.total:
        raise Snooze(timedelta(hours=1))


def batched(g: Ground, *jobs: NewJob[Any], breaks: bool = False, within: bool = False, **callbacks: Any) -> Any:
    """Submit these in a batch, one by one and the last two together; if it `breaks`, raise and catch it outside."""
    if is_async(g):
        return _batched_async(g.conn, jobs, breaks, within, callbacks)
    conn: Any = g.conn
    made: Any = None
    with contextlib.suppress(ArithmeticError), transaction(conn) if within else contextlib.nullcontext():
        with chancy.batch(conn, **callbacks) as made:
            for job in jobs[:-2]:
                made.submit(job)
            made.submit_many(jobs[-2:])
            if breaks:
                raise ArithmeticError
    return made


async def _batched_async(conn: Any, jobs: tuple[NewJob[Any], ...], breaks: bool, within: bool, callbacks: Any) -> Any:
    made: Any = None
    with contextlib.suppress(ArithmeticError):
        async with transaction(conn) if within else contextlib.nullcontext():
            async with chancy.batch(conn, **callbacks) as made:
                for job in jobs[:-2]:
                    await made.submit(job)
                await made.submit_many(jobs[-2:])
                if breaks:
                    raise ArithmeticError
    return made


@case
def the_end_of_a_batch_is_told_to_its_callbacks_once(g: Ground) -> Steps:
    batch = yield batched(
        g, *[add.bind(n) for n in range(5)], on_success=called_back, on_finished=callback(called_back, "at the end")
    )
    yield g.perform()
    yield g.perform()
    counts = BatchCounts(batch.id, 5, 5)
    assert sorted(seen) == [("", counts), ("at the end", counts)]


@case
def a_batch_in_which_a_job_fails_is_finished_and_no_success(g: Ground) -> Steps:
    batch = yield batched(
        g, note.bind(1), fail.bind(9), discard.bind(), fail.bind(1), on_success=called_back,
        on_finished=callback(called_back, "end"),
    )  # fmt: skip
    yield g.perform()
    assert [one for one in seen if isinstance(one, tuple)] == [("end", BatchCounts(batch.id, 4, 2, 1, 1, 0))]
    progress = yield batch.progress(g.conn)
    assert (progress.succeeded, progress.failed, progress.discarded, progress.cancelled) == (2, 1, 1, 0)


@case
def a_batch_without_jobs_is_over_at_once(g: Ground) -> Steps:
    batch = yield batched(g, on_success=called_back, on_finished=callback(called_back, note="end"))
    progress = yield chancy.batch_progress(g.conn, batch.id)
    assert (progress.total, progress.finished_at is None) == (0, False)
    yield g.perform()
    assert sorted(seen) == [("", BatchCounts(batch.id)), ("end", BatchCounts(batch.id))]


@case
def a_batch_says_how_far_it_is(g: Ground) -> Steps:
    batch = yield batched(g, add.bind(1), snooze.bind(9), discard.bind())
    jobs = yield chancy.jobs(g.conn, batch=batch.id)
    assert [(row.batch, row.task.rpartition(".")[2]) for row in jobs] == [
        (batch.id, name) for name in ("discard", "snooze", "add")
    ]
    yield g.perform()
    progress = yield batch.progress(g.conn)
    assert progress == chancy.BatchProgress(
        total=3, waiting=1, running=0, succeeded=1, failed=0, discarded=1, cancelled=0, finished_at=None
    )


@case
def a_batch_waits_for_a_job_that_snoozes(g: Ground) -> Steps:
    yield batched(g, add.bind(1), snooze.bind(1), on_finished=called_back)
    yield g.perform()
    assert not any(isinstance(one, tuple) for one in seen)
    (job,) = [row for row in (yield chancy.jobs(g.conn)) if row.task == "conformance.snooze"]
    yield g.perform_snoozed(Job(job.id, job.task, job.queue, chancy.schema_in_use()))
    assert [one for one in seen if isinstance(one, tuple)] == [("", BatchCounts(job.batch or 0, 2, 2))]


@case
def a_batch_whose_last_live_job_is_cancelled_is_over(g: Ground) -> Steps:
    batch = yield batched(g, add.bind(1), snooze.bind(9), on_success=called_back, on_finished=called_back)
    yield g.perform()
    (job,) = [row for row in (yield chancy.jobs(g.conn)) if row.task == "conformance.snooze"]
    assert (yield chancy.cancel(g.conn, job.id))
    yield g.perform()
    assert [one for one in seen if isinstance(one, tuple)] == [("", BatchCounts(batch.id, 2, 1, 0, 0, 1))]


@case
def a_requeued_job_does_not_end_its_batch_again(g: Ground) -> Steps:
    batch = yield batched(g, note.bind(1), on_finished=called_back)
    yield g.perform()
    (row,) = yield chancy.jobs(g.conn, batch=batch.id)
    assert (yield chancy.requeue(g.conn, row.id))
    yield g.perform()
    assert seen == [1, ("", BatchCounts(batch.id, 1, 1)), 1]
    assert (yield chancy.get(g.conn, row.id)).batch == batch.id


@case
def a_batch_whose_block_raises_has_never_been(g: Ground) -> Steps:
    batch = yield batched(g, note.bind(1), note.bind(2), breaks=True, on_finished=called_back)
    yield g.perform()
    assert ((yield chancy.jobs(g.conn)), seen) == ([], [])
    with pytest.raises(UnknownBatch, match=f"batch {batch.id} is not in schema"):
        yield batch.progress(g.conn)


@case
def a_batch_in_a_transaction_of_the_caller_is_undone_with_it(g: Ground) -> Steps:
    yield batched(g, note.bind(1), within=True, on_finished=called_back)
    yield batched(g, note.bind(2), within=True, breaks=True, on_finished=called_back)
    yield g.perform()
    assert [one if isinstance(one, int) else one[1].succeeded for one in seen] == [1, 1]


@case
def a_unique_job_that_was_there_already_is_not_of_the_batch(g: Ground) -> Steps:
    first = yield once.submit(g.conn, "k", snoozes=True)
    yield g.perform()
    yield batched(g, once.bind("k"), note.bind(1), on_finished=called_back)
    rows = yield chancy.jobs(g.conn)
    assert [(row.id, row.batch) for row in rows if row.unique_key] == [(first.id, None)]
    (batch,) = {row.batch for row in rows if row.task == "conformance.note"}
    assert (yield chancy.batch_progress(g.conn, batch)).total == 1


@case
def a_callback_has_the_options_of_its_task_and_its_other_arguments(g: Ground) -> Steps:
    text = 'a"\\\0é🦊'
    yield batched(g, add.bind(1), on_finished=callback(called_back_once, key="k", text=text))
    yield g.perform()
    (row,) = [row for row in (yield chancy.jobs(g.conn, batch=None)) if row.unique_key]
    assert (row.queue, row.priority, row.unique_key, row.batch, row.state) == ("q", 3, "k", None, State.SUCCEEDED)
    assert seen == [("k", text, 1)]


@case
def a_callback_that_is_unique_and_there_already_is_not_there_twice(g: Ground) -> Steps:
    yield called_back_once.submit(g.conn, BatchCounts(0), key="k")
    yield g.perform()
    on_success, on_finished = callback(called_back_once, key="k"), callback(called_back_once, key="other")
    yield batched(g, add.bind(1), on_success=on_success, on_finished=on_finished)
    yield g.perform()
    rows = yield chancy.jobs(g.conn, task="conformance.called_back_once")
    assert sorted(str(row.unique_key) for row in rows) == ["k", "other"]


@case
def a_callback_that_fails_is_retried_like_any_job(g: Ground) -> Steps:
    yield batched(g, add.bind(1), on_finished=callback(stumbles, 7))
    yield g.perform()
    assert seen == [(1, 7), (2, 7)]


@task(name="conformance.stumbles", max_attempts=2)
def stumbles(counts: BatchCounts, number: int) -> None:
    """Fails the first time."""
    seen.append((current_job().attempt, number))
    if current_job().attempt == 1:
        raise ValueError(counts)


@case
def a_callback_that_does_not_take_what_it_is_given_is_refused(g: Ground) -> Steps:
    with pytest.raises(InvalidArguments, match=r"argument 'number' of task conformance.stumbles: is missing"):
        yield batched(g, on_finished=stumbles)
    with pytest.raises(InvalidArguments, match=r"argument 'number' of task conformance.stumbles: Expected `int`"):
        callback(stumbles, "7")  # type: ignore[arg-type]
    with pytest.raises(InvalidArguments, match=r"argument 'a' of task conformance.add: Expected `int`"):
        yield batched(g, on_success=add)
    with pytest.raises(ValueError, match="a callback of a batch is a task"):
        yield batched(g, on_success=len)
    with pytest.raises(InvalidArguments, match=r"'unique' .*its key is made of the counts"):
        callback(called_back.using(unique=Unique()))
    assert (yield chancy.jobs(g.conn)) == []
