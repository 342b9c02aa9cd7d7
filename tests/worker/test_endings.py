"""However a job ends, it is one attempt that says what it was, and its slot is free for the next."""

from __future__ import annotations

import contextlib
import gc
import logging
import signal
from collections import Counter

import ending_tasks as tasks
import pytest
from worker_help import all_finished, eventually, working
from worker_tasks import burdens, carries, carries_in_thread

from chancy import Limit, State

pytestmark = [pytest.mark.any_postgres, pytest.mark.long]

LOOP_SLOTS, THREADS, CHILDREN = 20, 4, 2
QUEUES = {"one": ["default"], "many": ["default", *(f"queue{number}" for number in range(4))]}


@pytest.fixture
def worker(site, queues):
    arguments = [f"--queue={name}={LOOP_SLOTS if name == 'default' else 7}" for name in QUEUES[queues]]
    return site.work(
        "ending_tasks", *arguments, "--dsn", site.dsn, "--schema", site.schema,
        "--threads", str(THREADS), "--children", str(CHILDREN), "--grace", "1", "--loop", "asyncio",
    )  # fmt: skip


def ended(row):
    kind = row.errors[-1].kind if row.errors else ""
    return f"{row.state} {kind}".strip()


def fits(row, expected, place):
    if place == "async_child" and ended(row) == "failed ProcessDied":
        return True  # what goes through the loop of a child ends the child, and that job alone
    return ended(row) in expected.split("|")


async def all_judged(site, jobs):
    """None runs or waits to run soon; after a minute it is said which of them do."""
    ids = [job.id for job in jobs]

    def left():
        return site.rows(
            "SELECT task, state::text, arguments->>'how' FROM {}.job "
            "WHERE id = ANY (%s) AND (state = 'running' OR run_at < now() + interval '1 min') ORDER BY id LIMIT 20",
            ids,
        )

    with contextlib.suppress(pytest.fail.Exception):
        await eventually(lambda: not left(), 60)
    assert left() == []


async def has_all_its_slots(site, gate):
    """As many run at a time as may."""
    jobs = site.submit(
        *[tasks.occupies_a_thread.bind(str(gate)) for _ in range(THREADS)],
        *[tasks.occupies_a_child.bind(str(gate)) for _ in range(CHILDREN)],
        *[tasks.occupies_the_loop.bind(str(gate)) for _ in range(LOOP_SLOTS - THREADS - CHILDREN)],
    )
    await eventually(lambda: all(site.row(job).state is State.RUNNING for job in jobs), 30)
    gate.touch()
    await eventually(lambda: all(site.row(job).state is State.SUCCEEDED for job in jobs), 30)


@pytest.mark.parametrize("queues", QUEUES)
async def test_every_way_to_end_in_every_place_is_one_attempt_and_costs_no_slot(site, worker, queues, tmp_path):
    runs, names = tmp_path / "runs", QUEUES[queues]
    first = site.submit(tasks.breaks_the_log.bind())
    await all_judged(site, first)
    first += site.submit(tasks.breaks_the_records.bind())
    await all_judged(site, first)
    expected = {}
    for place in tasks.PLACES:
        ways = tasks.WAYS if place in ("thread", "child") else tasks.WAYS | tasks.AWAITED
        for number, (how, (_, end)) in enumerate(ways.items()):
            queue = names[number % len(names)]
            expected[tasks.TASKS[place].using(queue=queue).bind(how, str(runs)), place, how] = end
    jobs = site.submit(*[job for job, _, _ in expected])
    await all_judged(site, jobs)
    wrong = [
        f"{how} in {place}: {ended(row)}, attempt {row.attempt}, expected {end}; {row.errors}"
        for job, ((_, place, how), end) in zip(jobs, expected.items(), strict=True)
        if not fits(row := site.row(job), end, place) or row.attempt != (0 if row.state == "scheduled" else 1)
    ]
    assert wrong == []
    assert Counter(runs.read_text().split()) == Counter(str(job.id) for job in jobs)
    last = site.submit(tasks.closes_descriptors.bind(), tasks.closes_descriptors_in_child.bind())
    await all_judged(site, last)
    assert {site.row(job).state for job in first + last} == {State.SUCCEEDED}
    await has_all_its_slots(site, tmp_path / "gate")
    assert len(site.workers()) == 1
    worker.signal(signal.SIGTERM)
    await eventually(lambda: worker.code is not None)
    assert (worker.code, site.workers()) == (0, {})


@pytest.mark.parametrize("queues", ["one"])
async def test_whatever_a_retry_function_does_an_attempt_fails_and_costs_no_slot(site, worker, tmp_path):
    jobs = site.submit(*[task.bind() for task in tasks.JUDGED.values()])
    await all_judged(site, jobs)
    wrong = [
        f"{how} in {place}: {ended(row)}, attempt {row.attempt}, expected {tasks.RETRIES[how][1]}"
        for job, (how, place) in zip(jobs, tasks.JUDGED, strict=True)
        if not fits(row := site.row(job), tasks.RETRIES[how][1], place)
    ]
    assert wrong == []
    again = {how: site.row(job).attempt for job, (how, _) in zip(jobs, tasks.JUDGED, strict=True)}
    assert {how for how, attempt in again.items() if attempt == 2} == {"no_seconds", "a_fraction", "the_past"}
    texts = {how: site.row(job).errors[-1] for job, (how, place) in zip(jobs, tasks.JUDGED, strict=True)}
    assert texts["a_text"].message.startswith("the retry function of task endings.retry_a_text_")
    assert "to be judged" in texts["raises"].traceback  # what it was called for
    await has_all_its_slots(site, tmp_path / "gate")


async def test_what_an_attempt_had_in_its_hands_is_let_go_with_it(site, monkeypatch):
    """Without the garbage collector, which comes by seldom where little is made: of large things a few are too many."""
    monkeypatch.setattr(logging.getLogger("chancy.job"), "disabled", True)  # pytest keeps records, and what is in them
    gc.collect()
    gc.disable()
    try:
        async with working(site.app()):
            late, gone, *_ = site.submit(
                carries.using(limits=[Limit.time(0.3)]).bind("waits"),
                carries.bind("waits"),
                *[task.bind("fails") for task in (carries, carries_in_thread) for _ in range(5)],
            )
            await eventually(lambda: len(burdens) == 12)
            gone.cancel(site.conn)
            await all_finished(site)
            assert site.row(late).errors[-1].kind == "TimeLimitExceeded"
            await eventually(lambda: [burden() for burden in burdens if burden() is not None] == [])
    finally:
        gc.enable()
        burdens.clear()
