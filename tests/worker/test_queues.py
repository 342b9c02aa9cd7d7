"""Several queues in one worker: each works as if it were alone.

The clock of these workers looks once in a minute, so that what is not found by the queue's own signs is not found.
"""

import asyncio
import time
from datetime import timedelta

import pytest
import worker_tasks as tasks
from worker_help import ONLY_WOKEN, all_finished, eventually, states, working

from chancy import Queue, State
from chancy_ops.pauses import pause, resume
from chancy_ops.queue import limit
from chancy_worker import WorkerConfig
from chancy_worker.claims.answer import Answer
from chancy_worker.claims.gates import REACH
from chancy_worker.connection.link import Link
from chancy_worker.demand import appetite, marks

CONFIG = WorkerConfig(timing=ONLY_WOKEN, grace=1)
IN_TIME = timedelta(seconds=10)
"""Against a minute."""


def late(site, job):
    row = site.row(job)
    return row.started_at - row.run_at


@pytest.mark.parametrize("slots", [1, 2])
async def test_a_queue_that_is_full_beside_an_empty_one_works_as_if_it_were_alone(site, slots):
    site.submit(*[tasks.nap.using(queue="small").bind(0.03) for _ in range(20)])
    async with working(site.app(queues=[Queue("small", slots), Queue("empty")]), CONFIG):
        await all_finished(site, 15)


async def test_a_full_queue_among_fifty_that_are_empty_works_as_if_it_were_alone(site):
    site.submit(*[tasks.nap.using(queue="q7").bind(0.03) for _ in range(20)])
    async with working(site.app(queues=[Queue(f"q{n}", 2) for n in range(50)]), CONFIG):
        await all_finished(site, 15)


async def test_a_new_priority_in_a_full_queue_is_seen_while_another_queue_is_busy(site):
    site.submit(*[tasks.nap.using(queue="small").bind(0.2) for _ in range(40)])
    site.submit(*[tasks.nap.using(queue="big").bind(0.01) for _ in range(3000)])
    async with working(site.app(queues=[Queue("big", 2), Queue("small", 1)]), CONFIG):
        await eventually(lambda: site.one("SELECT count(*) FROM {}.history WHERE queue = 'small'") >= 2)
        (urgent,) = site.submit(tasks.nap.using(queue="small", priority=100).bind(0))
        await eventually(lambda: site.row(urgent).state is State.SUCCEEDED)
        before = site.one(
            "SELECT count(*) FROM {0}.any_job WHERE queue = 'small' AND started_at < "
            "(SELECT started_at FROM {0}.history WHERE id = %s)",
            urgent.id,
        )
    assert 2 <= before < 20  # a second is five jobs


async def test_a_job_behind_the_mark_of_a_full_queue_is_seen_while_another_queue_is_busy(site):
    site.submit(*[tasks.nap.using(queue="small").bind(0.2) for _ in range(40)])
    site.submit(*[tasks.nap.using(queue="big").bind(0.01) for _ in range(3000)])
    async with working(site.app(queues=[Queue("big", 2), Queue("small", 1)]), CONFIG):
        await eventually(lambda: site.one("SELECT count(*) FROM {}.history WHERE queue = 'small'") >= 2)
        (early,) = site.submit(tasks.nap.using(queue="small").bind(0))
        site.rows("UPDATE {}.job SET run_at = run_at - interval '1 h' WHERE id = %s RETURNING 1", early.id)
        await eventually(lambda: site.row(early).state is State.SUCCEEDED)
        assert site.one("SELECT count(*) FROM {}.job WHERE queue = 'small'") > 20


async def test_a_scheduled_job_of_a_full_queue_is_on_time_whatever_is_found_in_others(site):
    """A look at the other queue must not be taken for news of this one."""
    async with working(site.app(queues=[Queue("small", 1), Queue("other")]), CONFIG):
        (holder,) = site.submit(tasks.pass_gate.using(queue="small").bind("slot"))
        (scheduled,) = site.submit(tasks.nap.using(queue="small", delay=timedelta(seconds=0.5)).bind(0))
        await eventually(lambda: site.row(holder).state is State.RUNNING)
        for _ in range(2):
            (other,) = site.submit(tasks.nap.using(queue="other").bind(0))
            await eventually(lambda other=other: site.row(other).state is State.SUCCEEDED)
        tasks.gates["slot"].set()
        await eventually(lambda: site.row(scheduled).state is State.SUCCEEDED)
    assert late(site, scheduled) < IN_TIME


async def test_retries_and_lone_jobs_of_one_queue_hide_no_scheduled_job_of_another(site):
    async with working(site.app(queues=[Queue("slow"), Queue("quick", 1)]), CONFIG):
        (scheduled,) = site.submit(tasks.nap.using(queue="slow", delay=timedelta(seconds=0.6)).bind(0))
        (again,) = site.submit(tasks.succeed_at.using(queue="quick", max_attempts=9).bind(9))
        await eventually(lambda: site.row(scheduled).state is State.SUCCEEDED)
        await eventually(lambda: site.row(again).state is State.SUCCEEDED)
    assert late(site, scheduled) < IN_TIME


async def test_a_paused_queue_holds_up_no_other_and_goes_on_when_it_is_resumed(site):
    pause(site.conn, "paused", schema=site.schema)
    held = site.submit(*[tasks.nap.using(queue="paused").bind(0) for _ in range(5)])
    site.submit(*[tasks.nap.using(queue="small").bind(0.03) for _ in range(20)])
    async with working(site.app(queues=[Queue("paused"), Queue("small", 2)]), CONFIG):
        await eventually(lambda: site.count("succeeded") == 20)
        assert {site.row(job).attempt for job in held} == {0}
        resume(site.conn, "paused", schema=site.schema)
        await all_finished(site)


async def test_a_queue_at_its_limit_holds_up_no_other_and_is_used_up_to_it(site):
    limit(site.conn, "limited", concurrency=1, schema=site.schema)
    site.submit(*[tasks.nap.using(queue="limited").bind(0.03) for _ in range(20)])
    site.submit(*[tasks.nap.using(queue="small").bind(0.03) for _ in range(40)])
    async with working(site.app(queues=[Queue("limited"), Queue("small", 2), Queue("empty")]), CONFIG):
        await all_finished(site, 15)  # 20 pauses of 0.25 s would be 5 s more


SAYS = {
    "a round": lambda statement, answer: isinstance(answer, Answer) and "limited" in answer.at_limit,
    "a reach for more": lambda statement, answer: statement.sql is REACH and "limited" in statement.params["names"],
    "a reach in another queue": lambda statement, answer: (
        statement.sql is REACH and "limited" not in statement.params["names"]
    ),
}


@pytest.mark.parametrize("says", SAYS)
async def test_a_queue_at_its_limit_is_asked_with_the_end_of_a_job_whatever_its_worker_was_told_meanwhile(
    site, monkeypatch, says
):
    """The first job ends between the answer that there is no room for another and the moment in which that is read."""
    monkeypatch.setattr(appetite, "LIMIT_SECONDS", 60)
    send, told = Link.send, []

    async def watched(self, statement):
        answer = await send(self, statement)
        if not told and worker.busy and SAYS[says](statement, answer):
            told.append(answer)
            of_queues = worker._engine.claimer._appetite
            of_queues._limit_pauses["limited"] = 60
            of_queues.at_limit_still("limited", time.monotonic())
            tasks.gates["first"].set()
            while not worker._engine.claimer.outbox:
                await asyncio.sleep(0)
        return answer

    monkeypatch.setattr(Link, "send", watched)
    for queue in ("limited", "another"):
        limit(site.conn, queue, concurrency=1, schema=site.schema)
    site.submit(*[tasks.pass_gate.using(queue="another").bind("another") for _ in range(2)])
    first, second = site.submit(
        tasks.pass_gate.using(queue="limited").bind("first"), tasks.note.using(queue="limited").bind("second")
    )
    async with working(site.app(queues=[Queue("limited"), Queue("another")]), CONFIG) as worker:
        await eventually(lambda: site.row(second).state is State.SUCCEEDED)
        tasks.gates["another"].set()
        await all_finished(site)
    assert len(told) == 1
    if says != "a reach in another queue":  # whose round was made up before
        assert site.row(first).finished_at == site.row(second).started_at  # in one transaction


async def test_a_queue_at_its_limit_is_asked_again_when_a_round_has_found_that_not_all_was_settled(site, monkeypatch):
    """It takes none of its jobs for ended, since it cannot tell whose verdict has found no row."""
    monkeypatch.setattr(appetite, "FIRST_LIMIT_SECONDS", 60)
    monkeypatch.setattr(appetite, "LIMIT_SECONDS", 60)
    limit(site.conn, "limited", concurrency=1, schema=site.schema)
    tasks.gates["open"].set()
    site.submit(*[tasks.complete_at_gate.using(queue="limited").bind("open") for _ in range(3)])
    async with working(site.app(queues=[Queue("limited")]), CONFIG):
        await all_finished(site, 15)


async def test_a_queue_whose_threads_are_all_taken_holds_up_no_other(site):
    gate = site.folder / "gate"
    blocked = site.submit(*[tasks.wait_for_file_in_thread.using(queue="threads").bind(str(gate)) for _ in range(3)])
    site.submit(*[tasks.nap.using(queue="loop").bind(0.03) for _ in range(40)])
    config = WorkerConfig(timing=ONLY_WOKEN, grace=1, threads=2)
    async with working(site.app(queues=[Queue("threads"), Queue("loop", 2)]), config):
        await eventually(lambda: site.count("succeeded") == 40)
        assert sorted(site.row(job).attempt for job in blocked) == [0, 1, 1]
        gate.touch()
        await all_finished(site, 15)


def bells(site, *queues):
    """Of which of these queues somebody holds the key."""
    held = site.rows(
        "SELECT queue FROM unnest(%s::text[]) AS queue WHERE EXISTS (SELECT FROM pg_locks "
        "WHERE locktype = 'advisory' AND granted AND mode = 'ExclusiveLock' "
        "AND classid = %s::regnamespace::oid AND objid = ({}.bell_key(queue)::bigint & 4294967295)::oid)",
        list(queues),
        site.schema,
    )
    return {queue for (queue,) in held}


async def test_a_worker_is_at_the_bell_of_its_idle_queues_alone(site, monkeypatch):
    monkeypatch.setattr(marks, "LOOK_SECONDS", 60)
    async with working(site.app(queues=[Queue("busy", 2), Queue("idle")]), CONFIG):
        await eventually(lambda: bells(site, "busy", "idle") == {"busy", "idle"})
        site.submit(*[tasks.nap.using(queue="busy").bind(0.05) for _ in range(200)])
        await eventually(lambda: bells(site, "busy", "idle") == {"idle"})
        (job,) = site.submit(tasks.nap.using(queue="idle").bind(0))
        await eventually(lambda: site.row(job).state is State.SUCCEEDED)
        assert bells(site, "busy") == set()
        assert site.one("SELECT count(*) FROM {}.job WHERE queue = 'busy'") > 0
        await all_finished(site)
        await eventually(lambda: bells(site, "busy", "idle") == {"busy", "idle"})


async def test_a_key_that_another_worker_gives_up_is_taken_by_one_that_has_work_in_another_queue(site, monkeypatch):
    monkeypatch.setattr(marks, "LOOK_SECONDS", 60)
    async with working(site.app(queues=[Queue("shared")]), CONFIG):
        await eventually(lambda: bells(site, "shared") == {"shared"})
        site.submit(*[tasks.pass_gate.using(queue="busy").bind("busy") for _ in range(3)])
        async with working(site.app(queues=[Queue("shared"), Queue("busy", 2)]), CONFIG) as other:
            await eventually(lambda: other.busy == 2)
            await asyncio.sleep(0.3)  # until it has found the key taken
            site.submit(*[tasks.pass_gate.using(queue="shared").bind("shared") for _ in range(200)])
            # All slots are taken: nobody is idle there.
            await eventually(lambda: site.count("running") == 202)
            tasks.gates["shared"].set()
            await eventually(lambda: bells(site, "shared") == {"shared"})
            tasks.gates["busy"].set()
            await all_finished(site)
    assert states(site) == {"succeeded": 203}
