"""The line of idle workers at the doorbell: one hears of a job, and as many are woken as there is work for.

All workers here come to work by what they hear alone: a wakeup that is lost is a job that does not begin.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from datetime import timedelta

import psycopg
import pytest
import worker_tasks as tasks
from worker_help import FAST, ONLY_WOKEN, all_finished, eventually, worker_with, working

from chancy import Queue, State
from chancy_ops import pause, resume
from chancy_worker import Timing, WorkerConfig
from chancy_worker.connection.link import Link
from chancy_worker.doorbell import bell as bells
from chancy_worker.doorbell import second as second_in_line
from chancy_worker.doorbell.line import Standing, line_of
from chancy_worker.doorbell.locks import BELL_KEYS, BELL_LEFT, BELL_WAIT
from chancy_worker.doorbell.second import DOUBTS, Second
from chancy_worker.rounds.claimer import Claimer

CONFIG = WorkerConfig(timing=ONLY_WOKEN, grace=1)


@contextlib.asynccontextmanager
async def fleet(site, number, *, config=CONFIG, **app):
    """So many workers that are alike, each idle and at its place."""
    async with contextlib.AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(working(site.app(**app), config)) for _ in range(number)]
        await settled(workers)
        yield workers


def bell(worker):
    return worker._engine.wakeups._bell


def standing(worker):
    return bell(worker)._standing


async def settled(workers):
    """Of the workers, which are alike and idle, one is the first in line, one the second, and the others wait. None looks
    for jobs.
    """

    def are():
        return (
            all(worker._engine is not None and standing(worker).line is not None for worker in workers)
            and sum(standing(worker).is_first for worker in workers) == 1
            and sum(standing(worker).is_second for worker in workers) == min(len(workers) - 1, 1)
            and all(not bell(worker)._second.late for worker in workers)
            and not any(worker._engine.claimer._appetite._hungry for worker in workers)
            and all(set(bell(worker)._ear._listens) == bell(worker)._ear._wanted for worker in workers)
        )

    await eventually(are, 30)


def first(workers):
    (found,) = [worker for worker in workers if standing(worker).is_first]
    return found


def second(workers):
    (found,) = [worker for worker in workers if standing(worker).is_second]
    return found


@pytest.fixture
def rounds(monkeypatch):
    """Of whom each round was that claimed."""
    played = []
    play = Claimer._play

    async def counted(self, statement):
        if statement.params["queues"] != "{}":
            played.append(self)
        return await play(self, statement)

    monkeypatch.setattr(Claimer, "_play", counted)
    return played


async def done(site, job):
    await eventually(lambda: site.row(job).state is State.SUCCEEDED, 30)


async def begun(site, *jobs):
    """By one question at a time: each holds up the loop, in which the workers are."""
    ids = [job.id for job in jobs]
    running = "SELECT count(*) FROM {}.job WHERE id = ANY (%s) AND state = 'running'"
    await eventually(lambda: site.one(running, ids) == len(ids), 30)


def release(*names):
    for name in names:
        tasks.gates[name].set()


@pytest.mark.long
async def test_a_lone_job_is_looked_for_by_a_few_workers_however_many_are_idle(site, rounds):
    async with working(site.app(), CONFIG) as _:
        await eventually(lambda: rounds)
        await asyncio.sleep(1)
        rounds.clear()
        for _ in range(20):
            await done(site, *site.submit(tasks.add.bind(1, 2)))
        alone = len(rounds)
    async with contextlib.AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(working(site.app(), CONFIG)) for _ in range(12)]
        await eventually(lambda: len({*rounds}) == 13)
        await asyncio.sleep(2)  # all have lain down
        rounds.clear()
        for _ in range(20):
            await done(site, *site.submit(tasks.add.bind(1, 2)))
        assert len(workers) == 12
        assert len(rounds) <= 2 * alone, (len(rounds), alone)


async def test_who_is_not_among_the_first_two_in_line_is_not_even_rung_for(site):
    async with fleet(site, 5) as workers:
        listening = {id(worker) for worker in workers if bell(worker)._ear._listens}
        assert listening == {id(first(workers)), id(second(workers))}


async def test_a_scheduled_job_that_all_workers_know_of_wakes_two_of_them_and_begins_on_time(site, rounds):
    (job,) = site.submit(tasks.note.using(delay=timedelta(seconds=3)).bind("due"))
    async with fleet(site, 8):
        rounds.clear()
        await done(site, job)
        row = site.row(job)
        assert row.started_at - row.run_at < timedelta(seconds=15)  # and not a minute, which a look is away
        assert len(rounds) <= 7


@pytest.mark.long
async def test_a_burst_wakes_all_the_workers_that_it_takes(site):
    async with fleet(site, 8, concurrency=2) as workers:
        for _ in range(3):
            jobs = site.submit(*[tasks.pass_gate.bind("burst") for _ in range(16)])
            await begun(site, *jobs)
            release("burst")
            await all_finished(site)
            tasks.gates.clear()
            await settled(workers)


async def test_a_hundred_short_jobs_are_all_done(site):
    async with fleet(site, 4, concurrency=3) as workers:
        for _ in range(5):
            site.submit(*[tasks.add.bind(1, 2) for _ in range(100)])
            await all_finished(site)
        await settled(workers)


async def test_jobs_one_by_one_fill_all_workers_to_the_last_slot(site):
    async with fleet(site, 4, concurrency=2):
        for _ in range(8):
            await begun(site, *site.submit(tasks.pass_gate.bind("full")))
        (over,) = site.submit(tasks.note.bind("over"))
        release("full")
        await done(site, over)
        await all_finished(site)


async def test_long_jobs_that_come_one_by_one_are_spread_over_the_idle_workers(site):
    async with fleet(site, 4) as workers:
        jobs = []
        while len({site.row(job).worker for job in jobs}) < 4:
            jobs += site.submit(tasks.pass_gate.bind("long"))
            await begun(site, jobs[-1])
            await asyncio.sleep(0.1)  # longer than a job may take and its worker stay where it is
            await settled(workers)
            assert len(jobs) < 20
        release("long")
        await all_finished(site)


@pytest.fixture
def said(monkeypatch):
    """What bells have said to the database, but for their waits in line."""
    texts = []
    send = Link.send

    async def noted(self, statement):
        if self.purpose == "bell" and statement.sql not in (BELL_WAIT, BELL_KEYS):
            texts.append(statement.sql)
        return await send(self, statement)

    monkeypatch.setattr(Link, "send", noted)
    return texts


@pytest.fixture
def patient(monkeypatch):
    """A look after a job may be slow, as on a busy machine: until then the key of its queue is kept."""
    monkeypatch.setattr(bells, "KEEP_SECONDS", 15)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(("slots", "asked"), [(100, []), (1, [BELL_LEFT])])
async def test_a_job_that_comes_alone_moves_nobody_in_line_however_long_it_takes(site, said, slots, asked):
    async with fleet(site, 4, concurrency=slots) as workers:
        places = first(workers), second(workers)
        said.clear()
        (job,) = site.submit(tasks.pass_gate.bind("long"))
        await begun(site, job)
        await asyncio.sleep(0.8)  # longer than a job may take and be nothing, and than the second in line waits
        await eventually(lambda: not any(standing(worker)._leaving for worker in workers))  # what is kept, is for good
        assert (first(workers), second(workers)) == places
        release("long")
        await done(site, job)
        await settled(workers)
        assert (first(workers), second(workers), said) == (*places, asked)


async def test_who_is_full_and_rung_for_leaves_its_place_and_a_job_that_follows_is_begun_elsewhere(site):
    async with fleet(site, 3, concurrency=1) as workers:
        (long,) = site.submit(tasks.pass_gate.bind("long"))
        await begun(site, long)
        full = first(workers)
        await done(site, *site.submit(tasks.note.bind("after")))
        await eventually(lambda: not standing(full).is_first)
        release("long")
        await all_finished(site)
        await settled(workers)


async def test_who_is_full_and_leaves_jobs_behind_is_followed_by_somebody_at_once(site):
    """Nobody rings again: these were all told of by one."""
    async with fleet(site, 4, concurrency=1) as workers:
        for _ in range(3):
            jobs = site.submit(*[tasks.pass_gate.bind("all") for _ in range(4)])
            await begun(site, *jobs)
            release("all")
            await all_finished(site)
            tasks.gates.clear()
            await settled(workers)


async def test_who_is_full_and_fails_to_hear_for_a_moment_stands_at_no_place_after_that(site):
    async with fleet(site, 3, concurrency=1) as workers:
        (long,) = site.submit(tasks.pass_gate.bind("long"))
        await begun(site, long)
        pid = first(workers)._engine.link.conn.info.backend_pid
        site.one("SELECT pg_terminate_backend(%s)::text", pid)
        for _ in range(3):
            await done(site, *site.submit(tasks.note.bind("after")))
        release("long")
        await all_finished(site)


@pytest.mark.usefixtures("patient")
async def test_who_leaves_a_job_to_the_next_in_line_looks_itself_when_nobody_has_taken_it(site):
    async with fleet(site, 2) as workers:
        (long,) = site.submit(tasks.pass_gate.bind("long"))
        await begun(site, long)
        await eventually(lambda: bell(first(workers))._occupied_by)
        stuck = second(workers)
        stuck._engine.claimer.wake = lambda queues=None: None
        for _ in range(20):  # one that comes between two of its waits is handed on to nobody
            await done(site, *site.submit(tasks.note.bind("after")))
            if standing(stuck).is_first:
                break
        assert standing(stuck).is_first
        release("long")
        await all_finished(site)


async def test_who_has_a_job_and_nobody_behind_it_takes_the_next_one_at_once(site):
    async with fleet(site, 1) as (worker,):
        (long,) = site.submit(tasks.pass_gate.bind("long"))
        await begun(site, long)
        await eventually(lambda: bell(worker)._occupied_by)
        for _ in range(3):
            await done(site, *site.submit(tasks.note.bind("after")))
        await eventually(lambda: standing(worker).is_first)
        release("long")
        await all_finished(site)


async def test_a_worker_that_is_full_in_one_queue_is_rung_for_in_the_others(site):
    queues = [Queue("a", 1), Queue("b", 1), Queue("c", 1)]
    async with fleet(site, 2, queues=queues):
        for queue in ("a", "b", "c", "c", "b", "a"):
            await begun(site, *site.submit(tasks.pass_gate.using(queue=queue).bind(queue)))
        for queue in ("b", "a", "c"):
            waiting = site.submit(*[tasks.note.using(queue=queue).bind(queue) for _ in range(3)])
            release(queue)
            for job in waiting:
                await done(site, job)
        await all_finished(site)


async def test_workers_of_different_queues_each_hear_of_theirs(site):
    async with (
        working(site.app(queues=[Queue("a", 1)]), CONFIG),
        working(site.app(queues=[Queue("a", 1), Queue("b", 1)]), CONFIG),
        working(site.app(queues=[Queue("b", 1)]), CONFIG),
    ):
        await eventually(lambda: len(site.workers()) == 3)
        for _ in range(3):
            jobs = site.submit(*[tasks.pass_gate.using(queue=queue).bind("go") for queue in ("b", "a", "a")])
            await begun(site, *jobs)
            (last,) = site.submit(tasks.note.using(queue="b").bind("last"))
            await done(site, last)
            release("go")
            await all_finished(site)
            tasks.gates.clear()


@contextlib.asynccontextmanager
async def knowing(site, *known, config=CONFIG):
    worker = worker_with(site.app(), config)
    worker._tasks = {task.name: task for task in known}
    run = asyncio.create_task(worker.start())
    try:
        await eventually(lambda: worker._engine is not None and standing(worker).line is not None)
        yield worker
    finally:
        worker.stop()
        worker.stop()
        await run


async def test_a_worker_that_does_not_know_a_task_keeps_no_wakeup_from_those_that_do(site):
    async with (
        knowing(site, tasks.add) as one,
        knowing(site, tasks.add),
        knowing(site, tasks.add, tasks.note) as other,
        knowing(site, tasks.add, tasks.note),
    ):
        assert standing(one).line != standing(other).line
        for _ in range(10):
            jobs = site.submit(tasks.note.bind("rare"), tasks.add.bind(1, 2))
            for job in jobs:
                await done(site, job)


async def test_a_worker_whose_threads_are_taken_keeps_no_wakeup_from_those_that_have_some(site, tmp_path):
    async with fleet(site, 3, config=WorkerConfig(timing=ONLY_WOKEN, grace=1, threads=1)):
        gates = [tmp_path / str(n) for n in range(3)]
        for gate in gates:
            await begun(site, *site.submit(tasks.wait_for_file_in_thread.bind(str(gate))))
            await done(site, *site.submit(tasks.note.bind("in the loop")))
        (waiting,) = site.submit(tasks.add_in_thread.bind(1, 2))
        await done(site, *site.submit(tasks.note.bind("in the loop")))
        assert site.row(waiting).attempt == 0
        gates[1].touch()
        await done(site, waiting)
        gates[0].touch()
        gates[2].touch()
        await all_finished(site)


async def test_a_worker_that_is_asked_to_stop_keeps_no_wakeup_from_the_others(site):
    async with working(site.app(), WorkerConfig(timing=ONLY_WOKEN, grace=30)) as leaving, working(site.app(), CONFIG):
        await eventually(lambda: len(site.workers()) == 2)
        (long,) = site.submit(*[tasks.pass_gate.bind("long")])
        await begun(site, long)
        (other,) = site.submit(tasks.pass_gate.bind("long"))
        await begun(site, other)  # one each
        leaving.stop()
        for _ in range(3):
            await done(site, *site.submit(tasks.note.bind("after")))
        release("long")
        await all_finished(site)


async def test_what_the_first_in_line_does_not_hear_the_second_finds(site):
    async with fleet(site, 3) as workers:
        deaf = first(workers)
        deaf._engine.link.on_notify = None
        conn = deaf._engine.link.conn
        conn.remove_notify_handler(deaf._engine.wakeups.heard)
        for _ in range(8):
            await done(site, *site.submit(tasks.note.bind("heard")))
        assert standing(deaf).is_first
        jobs = site.submit(*[tasks.pass_gate.bind("all") for _ in range(5)])
        await begun(site, *jobs)
        release("all")
        await all_finished(site)


async def test_a_second_that_takes_all_it_can_for_a_deaf_first_wakes_the_next(site):
    async with fleet(site, 4, concurrency=1) as workers:
        deaf = first(workers)
        deaf._engine.link.on_notify = None
        deaf._engine.link.conn.remove_notify_handler(deaf._engine.wakeups.heard)
        jobs = site.submit(*[tasks.pass_gate.bind("all") for _ in range(3)])
        await begun(site, *jobs)
        release("all")
        await all_finished(site)


async def test_the_first_in_line_may_lose_any_of_its_connections(site):
    async with fleet(site, 3) as workers:
        for name in ("chancy claim", "chancy bell") * 2:
            site.rows(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s "
                "AND datname = current_database()",
                name,
            )
            for _ in range(3):
                await done(site, *site.submit(tasks.note.bind("on")))
            await settled(workers)


async def test_a_queue_that_is_paused_wakes_a_worker_when_it_goes_on(site):
    async with fleet(site, 3) as workers:
        for _ in range(3):
            pause(site.conn, "default", schema=site.schema)
            (job,) = site.submit(tasks.note.bind("paused"))
            await asyncio.sleep(0.1)
            assert site.row(job).attempt == 0
            resume(site.conn, "default", schema=site.schema)
            await done(site, job)
            await settled(workers)


async def test_a_job_that_is_to_begin_later_does_so_when_who_heard_of_it_is_gone(site):
    async with contextlib.AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(working(site.app(), CONFIG)) for _ in range(3)]
        await settled(workers)
        gone = first(workers)
        (job,) = site.submit(tasks.note.using(delay=timedelta(seconds=1.5)).bind("later"))
        await asyncio.sleep(0.2)
        gone.stop()
        await done(site, job)


async def test_a_worker_hears_of_a_cancel_at_any_place_in_line(site):
    async with fleet(site, 3, config=WorkerConfig(timing=Timing(look=60, extend=60, lease=180), grace=1)):
        jobs = []
        for _ in range(6):
            jobs += site.submit(tasks.pass_gate.bind("never"))
            await begun(site, jobs[-1])
        for job in reversed(jobs):
            job.cancel(site.conn)
        await eventually(lambda: site.count("cancelled") == 6)


QUIET = Timing(lease=60, extend=20, rescue=20, look=60)


async def lain_down(site, workers):
    """One of so many has the first place, and all others wait for theirs, for as long as it takes to be sure of it."""
    waiting = (
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND NOT granted "
        "AND classid = %s::regnamespace::oid"
    )
    for _ in range(4):
        await eventually(lambda: site.one(waiting, site.schema) == workers - 1, 60)
        await asyncio.sleep(0.3)


def has_both_places(site):
    """Whether one worker is the first in line and the second. So is who is on its way from here to there; and who is
    frozen there, or frozen as the second when the first goes, leaves jobs to the next look of the others.
    """
    both = (
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted "
        "AND classid = %s::regnamespace::oid AND objid::bigint BETWEEN 2147483648 AND 4294967296 - 17 "
        "GROUP BY pid HAVING count(*) > 1)"
    )
    return site.one(both, site.schema)


async def test_no_worker_that_is_frozen_or_killed_holds_up_a_job(site):
    """Each in turn, the first in line among them; one of them is killed before it can answer a ring."""
    processes = [site.spawn(timing=QUIET) for _ in range(3)]
    await eventually(lambda: len(site.workers()) == 3, 60)
    undisturbed = 0
    for process in processes:
        await lain_down(site, 3)
        process.signal(signal.SIGSTOP)
        for _ in range(3):
            (job,) = site.submit(tasks.add.bind(1, 2))
            await eventually(lambda job=job: site.row(job).state is State.SUCCEEDED or has_both_places(site), 30)
            if has_both_places(site):
                break
        else:
            undisturbed += 1
        process.signal(signal.SIGCONT)
        await done(site, *site.submit(tasks.add.bind(1, 2)))
    assert undisturbed > 0
    for left, process in ((3, processes[0]), (2, processes[1])):
        await lain_down(site, left)
        process.signal(signal.SIGSTOP)
        (job,) = site.submit(tasks.add.bind(1, 2))
        process.signal(signal.SIGKILL)
        await done(site, job)


async def test_polling_workers_are_in_no_line(site):
    config = WorkerConfig(timing=FAST, grace=1, pooler="transaction")
    async with working(site.app(), config), working(site.app(), config):
        for _ in range(3):
            await done(site, *site.submit(tasks.add.bind(1, 2)))
        places = site.one(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' "
            "AND classid = %s::regnamespace::oid",
            site.schema,
        )
        assert places == 0


async def test_a_place_that_is_granted_in_the_moment_in_which_the_wait_ends_is_known_and_given_up_again(site):
    """As on a busy machine: the server's process sleeps through both, and sees the end of its time first."""
    place = f"'{site.schema}'::regnamespace::oid::integer, -1001"
    with psycopg.connect(site.dsn, autocommit=True) as waiter:
        site.one(f"SELECT pg_advisory_lock({place})::text")
        pid = waiter.info.backend_pid
        got = asyncio.create_task(
            asyncio.to_thread(lambda: waiter.execute(f'SELECT "{site.schema}".bell_wait(ARRAY[-1001])').fetchone()[0])
        )
        of_it = "SELECT count(*) FROM pg_locks WHERE pid = %s AND locktype = 'advisory' AND granted = %s"
        await eventually(lambda: site.one(of_it, pid, False) == 1)
        os.kill(pid, signal.SIGSTOP)
        try:
            assert site.one(f"SELECT pg_advisory_unlock({place})")
            await asyncio.sleep(1.2)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert await got == [-1001]
        waiter.execute(f"SELECT pg_advisory_unlock({place})")
        assert site.one(of_it, pid, True) == 0


def test_who_could_take_the_same_jobs_is_in_the_same_line():
    line = line_of([("add", "1")], ["a", "b"], [])
    assert line == line_of([("add", "1")], {"b", "a"}, frozenset())
    others = [
        line_of([("add", "2")], ["a", "b"], []),
        line_of([("add", "1")], ["a"], []),
        line_of([("add", "1")], ["a", "b"], ["add"]),
        line_of([("add", "1")], ["a, b"], []),
    ]
    assert len({line, *others}) == 5
    assert all(each - 1 > -(2**31) and each <= -17 for each in [line, *others])


# One worker's standing in line, and what the second there does: values, without a loop of rounds and a database


KEYS = {"a": 1, "b": 2, "c": 3}


def step_of(standing, now=0.0):
    """What it wants next, as if it got that at once, but for the keys that come with a place."""
    standing.at(now)
    step = standing.step(KEYS)
    standing.held.update(step.missing)
    return step


def taken(standing, now=0.0):
    """What it gave up, and what it took."""
    step = step_of(standing, now)
    return step.given_up, step.missing


def standing_first(*queues, of=3):
    standing = Standing("alike", of)
    standing.falls_idle(queues)
    for _ in range(3):
        taken(standing)
    return standing


def test_who_falls_idle_takes_the_second_place_then_the_first_and_then_the_keys_of_its_queues():
    standing = Standing("alike", 3)
    assert taken(standing) == ([], [])
    standing.falls_idle(["b", "a"])
    standing.at(0.0)
    line = standing.line
    assert (standing.is_first, standing.is_second) == (False, False)
    assert taken(standing) == ([], [line - 1])
    assert standing.is_second
    assert taken(standing) == ([], [line])
    assert (standing.is_first, standing.is_second) == (True, False)
    assert taken(standing) == ([line - 1], [1, 2])
    assert taken(standing) == ([], [])


def test_a_key_is_kept_for_a_moment_where_there_is_work_and_given_up_at_once_where_there_is_no_room():
    standing = standing_first("a", "b")
    line = standing.line
    assert standing.leaves("a", until=5.0)
    assert not standing.leaves("a", until=9.0)
    assert standing.at(4.0) == 5.0
    assert taken(standing, 4.0) == ([], [])
    standing.leaves_at_once("b")
    assert standing.at(4.0) == 5.0
    assert standing.line != line  # it is idle in other queues: that is another line, and nothing is held there
    assert sorted([line, 1, 2]) == taken(standing, 4.0)[0]


def test_the_first_that_a_lone_job_fills_stays_and_keeps_its_key_until_it_leaves_or_loses_its_place():
    standing = standing_first("a", "b")
    line = standing.line
    standing.stays_full("a")
    standing.stays_full("c")  # there it was not near
    assert (set(standing.full), set(standing.unsure()), set(standing.unsure())) == ({"a"}, {"a"}, set())
    assert taken(standing, 9.0) == ([], [])
    assert (standing.line, "a" in standing.idle) == (line, False)
    standing.leaves_at_once("a")
    assert set(taken(standing, 9.0)[0]) == {line, 1, 2}

    standing = standing_first("a", "b")
    standing.stays_full("a")
    standing.held.clear()
    standing.at(9.0)
    assert (set(standing.full), standing.line != line) == (set(), True)


def test_who_waits_for_the_first_place_wants_the_keys_with_it_and_who_waits_for_the_second_does_not():
    standing = Standing("alike", 3)
    standing.falls_idle(["b", "a"])
    assert [step_of(standing).others for _ in range(3)] == [[], [1, 2], []]


def test_who_falls_idle_again_within_that_moment_has_given_up_nothing():
    standing = standing_first("a")
    standing.leaves("a", until=5.0)
    assert taken(standing, 4.0) == ([], [])
    standing.falls_idle(["a"])
    assert taken(standing, 9.0) == ([], [])
    assert standing.is_first


def test_who_has_work_everywhere_stands_in_no_line_and_holds_nothing():
    standing = standing_first("a", "b", "c")
    assert standing.is_idle_everywhere
    line = standing.line
    standing.leaves_all()
    assert taken(standing)[0] == sorted([line, 1, 2, 3])
    assert (standing.line, standing.held, standing.is_first, standing.is_second) == (None, set(), False, False)


def test_who_lacks_room_for_other_tasks_belongs_in_another_line():
    standing = standing_first("a")
    assert not standing.offers(frozenset())
    assert standing.offers(frozenset({"add"}))
    assert standing.belongs_to() != standing.line
    standing.offers(frozenset())
    assert standing.belongs_to() == standing.line


async def test_a_second_leaves_a_ring_to_the_first_for_a_moment_and_looks_then(monkeypatch):
    monkeypatch.setattr(second_in_line, "LATE_SECONDS", 0.05)
    woken = []
    second = Second(lambda queues: woken.append(sorted(queues)))
    second.heard(["a"])
    second.heard(["b", "a"])
    assert woken == []
    await eventually(lambda: woken)
    assert woken == [["a", "b"]]


async def test_a_second_that_has_found_what_the_first_should_have_taken_looks_at_once_until_it_finds_nothing():
    woken = []
    second = Second(lambda queues: woken.append(sorted(queues)))
    for _ in range(DOUBTS):
        second.heard(["a"])
        second.found()
        second.look_now()
    assert len(woken) == DOUBTS
    second.heard(["b"])  # nothing is found this time, and it is less sure
    assert woken[DOUBTS:] == [["b"]]
    second.heard(["c"])
    assert woken[DOUBTS + 1 :] == []
    assert second.late == {"c"}
    second.look_now()


async def test_who_becomes_the_second_has_no_doubts_in_another_first():
    woken = []
    second = Second(lambda queues: woken.append(sorted(queues)))
    for _ in range(DOUBTS):
        second.found()
        second.look_now()
    second.begins(["a"])
    second.heard(["b"])
    assert second.late == {"a", "b"}
    second.look_now()
    assert woken[-1] == ["a", "b"]


async def test_a_second_that_begins_to_listen_looks_at_once():
    woken = []
    second = Second(lambda queues: woken.append(sorted(queues)))
    second.begins(["a"])
    second.listens(["a", "b"])
    second.listens([])
    assert (woken, second.late) == ([["a", "b"]], set())
