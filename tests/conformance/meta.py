"""What travels beside a job."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import chancy
from chancy import AttemptError, Unique, callback, current_job, submit_many, task
from conformance.batches import batched
from conformance.cases import block, case, seen
from conformance.grounds import Ground, Steps

beside: dict[str, Any] = {}
"""What the next jobs take with them."""
TRACE = {"traceparent": "00-cc7590a49c4de73998e69f59d8b52640-9abdde883dce378c-03", "żółw": [1, None, "\x00 \\ %s"]}


@chancy.meta
def of_the_case() -> dict[str, Any] | None:
    return beside or None


def bound_with(meta: dict[str, Any], bind: Any) -> Any:
    """The job, bound while this is what goes with it."""
    beside.update(meta)
    try:
        return bind()
    finally:
        beside.clear()


@task(name="conformance.meta.tell", max_attempts=2)
def tell(fails: bool = False) -> None:
    job = current_job()
    seen.append((job.meta, job.error, job.submitted_at, job.run_at, job.worker))
    if fails and job.attempt == 1:
        raise ArithmeticError("once")


@task(name="conformance.meta.once", unique=Unique(key="k"))
def once() -> None:
    seen.append(current_job().meta)


@task(name="conformance.meta.counted")
def counted(counts: chancy.BatchCounts) -> None:
    seen.append((counts.total, current_job().meta))


@case
def what_travels_beside_a_job_is_seen_by_its_handler_and_in_its_row(g: Ground) -> Steps:
    beside.update(TRACE)
    try:
        alone = yield tell.submit(g.conn)
    finally:
        beside.clear()
    many = yield submit_many(g.conn, [bound_with({"n": 1}, tell.bind), tell.bind()])
    yield g.perform()
    assert [said[0] for said in seen] == [TRACE, {"n": 1}, {}]
    for job, meta in zip([alone, *many], [TRACE, {"n": 1}, {}], strict=True):
        assert (yield job.refresh(g.conn)).meta == meta


@case
def a_handler_knows_since_when_its_job_is_there_who_performs_it_and_how_it_went_wrong(g: Ground) -> Steps:
    job = yield tell.submit(g.conn, True)
    yield g.perform()
    (_, nothing, submitted_at, first_at, worker), (_, error, again_submitted_at, second_at, _) = seen
    assert nothing is None
    assert isinstance(error, AttemptError)
    assert (error.attempt, error.kind, error.message, error.worker) == (1, "ArithmeticError", "once", worker)
    assert submitted_at == again_submitted_at == job.submitted_at == (yield job.refresh(g.conn)).submitted_at
    assert submitted_at.tzinfo is first_at.tzinfo is UTC
    assert first_at <= second_at
    assert isinstance(submitted_at, datetime)


@case
def a_requeued_job_has_what_it_had_beside_it(g: Ground) -> Steps:
    (job,) = yield submit_many(g.conn, [bound_with(TRACE, tell.bind)])
    yield g.perform()
    assert (yield chancy.requeue(g.conn, job.id)) is True
    yield g.perform()
    assert [said[0] for said in seen] == [TRACE, TRACE]


@case
def a_job_that_is_replaced_has_what_its_successor_brings(g: Ground) -> Steps:
    replacing = once.using(unique=Unique(key="k", on_conflict="replace"))
    first, second, third = (bound_with({"n": n}, bind) for n, bind in enumerate([once.bind, once.bind, replacing.bind]))
    one, two, three = yield block(
        g,
        *(lambda job=job: submit_many(g.conn, [job]) for job in (first, second, third)),
    )
    assert [job.outcome for (job,) in (one, two, three)] == ["inserted", "existing", "replaced"]
    yield g.perform()
    assert seen == [{"n": 2}]


@case
def the_callback_of_a_batch_has_what_was_beside_it_when_it_was_made(g: Ground) -> Steps:
    made = bound_with(TRACE, lambda: callback(counted))
    yield batched(g, tell.bind(), tell.bind(), on_finished=made)
    yield g.perform()
    assert seen[-1] == (2, TRACE)
