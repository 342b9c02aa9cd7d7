"""Claiming ahead: slots that never stand empty, and jobs that never wait behind one that takes long."""

import asyncio
import itertools
import logging
from types import SimpleNamespace

import pytest
import worker_tasks as tasks
from worker_help import FAST, ONLY_WOKEN, eventually, working

from chancy import Queue, State
from chancy_worker import WorkerConfig
from chancy_worker.attempts.verdict import EARLIEST
from chancy_worker.demand import pace
from chancy_worker.demand.pace import Pace
from chancy_worker.slots import turnstile
from chancy_worker.slots.turnstile import AHEAD_SECONDS, Turnstile


class Job:
    numbers = itertools.count()

    def __init__(self, name, priority=0, place=""):
        self.name, self.place, self.inside, self.over = name, place, False, False
        self.confined = bool(place)
        self.rank = -priority, EARLIEST, next(self.numbers)

    def __repr__(self):
        return self.name


class Loop:
    """The loop's clock and timers, at an instant that only the test moves."""

    def __init__(self):
        self._now, self._timers = 0.0, []

    def time(self):
        return self._now

    def call_later(self, seconds, call):
        self._timers.append((self._now + seconds, call))

    def moves(self, seconds):
        until = self._now + seconds
        while due := [timer for timer in self._timers if timer[0] <= until]:
            self._timers.remove(first := min(due, key=lambda timer: timer[0]))
            self._now, call = first
            call()
        self._now = until


class Site:
    """Two queues, of 2 slots and of 1."""

    def __init__(self, loop):
        self.begun, self.sent_back, self.full, self.time_moves = [], [], set(), loop.moves
        self.turnstile = Turnstile({"mail": 2, "post": 1}, self._fits, self.begun.append, self._give_back)

    def _fits(self, job):
        return job.place not in self.full

    def _give_back(self, job):
        self.sent_back.append(job)
        self.leave(job)

    def arrive(self, *names, queue="mail", priority=0, place=""):
        jobs = [Job(name, priority, place) for name in names]
        for job in jobs:
            self.turnstile.arrive(queue, job)
        return jobs

    def leave(self, job, queue="mail"):
        job.over = True
        self.turnstile.leave(queue, job)


@pytest.fixture
def gate(monkeypatch):
    loop = Loop()
    monkeypatch.setattr(turnstile, "asyncio", SimpleNamespace(get_running_loop=lambda: loop))
    return Site(loop)


def test_as_many_begin_as_there_are_slots_and_the_others_follow_in_order(gate):
    a, b, c, d = gate.arrive("a", "b", "c", "d")
    assert gate.begun == [a, b]
    gate.leave(b)
    assert gate.begun == [a, b, c]
    gate.leave(a)
    assert gate.begun == [a, b, c, d]


def test_a_full_queue_holds_up_no_other(gate):
    gate.arrive("a", "b", "c")
    (x,) = gate.arrive("x", queue="post")
    assert x.inside


def test_what_waits_too_long_goes_back_and_never_begins(gate):
    a, b, c = gate.arrive("a", "b", "c")
    gate.time_moves(AHEAD_SECONDS * 2)
    assert gate.sent_back == [c]
    gate.leave(a)
    assert gate.begun == [a, b]


def test_what_came_to_its_end_while_it_waited_is_passed_over(gate):
    a, b, c, d = gate.arrive("a", "b", "c", "d")
    c.over = True
    gate.leave(a)
    assert gate.begun == [a, b, d]
    gate.time_moves(AHEAD_SECONDS * 2)
    assert gate.sent_back == []


def test_who_goes_back_takes_along_all_that_wait_behind_it_in_its_queue(gate):
    a, b, *waiting = gate.arrive("a", "b", "c", "d")
    x, y = gate.arrive("x", "y", queue="post")
    gate.time_moves(AHEAD_SECONDS * 0.8)
    (e,) = gate.arrive("e")
    (z,) = gate.arrive("z", queue="post")
    gate.leave(x, "post")
    gate.time_moves(AHEAD_SECONDS * 0.4)
    assert gate.sent_back == [*waiting, e]
    gate.leave(a)
    assert gate.begun == [a, b, x, y]
    gate.time_moves(AHEAD_SECONDS)
    assert gate.sent_back == [*waiting, e, z]


def test_whoever_goes_back_from_its_slot_takes_along_those_that_come_after_it_and_no_others(gate):
    gate.arrive("a", "b")
    (c,) = gate.arrive("c", priority=5)
    d, e = gate.arrive("d", "e")
    gate.turnstile.send_back("mail", d.rank)
    assert gate.sent_back == [d, e]
    gate.turnstile.send_back("mail", d.rank)
    gate.turnstile.send_back("post", d.rank)
    assert gate.sent_back == [d, e]
    assert not c.over


def test_those_that_wait_begin_in_the_order_of_their_places_and_not_of_their_arrival(gate):
    a, b = gate.arrive("a", "b")
    c, d = gate.arrive("c", "d")
    low, high = *gate.arrive("low", priority=-1), *gate.arrive("high", priority=1)
    for job in (a, b, high, c, d):
        gate.leave(job)
    assert gate.begun == [a, b, high, c, d, low]


def test_one_that_has_no_thread_is_passed_where_there_are_several_slots_and_begins_as_soon_as_it_has_one(gate):
    gate.full = {"thread"}
    t, u = gate.arrive("t", "u", place="thread")
    a, b = gate.arrive("a", "b")
    assert gate.begun == [a, b]
    gate.leave(a)
    (c,) = gate.arrive("c")
    assert gate.begun == [a, b, c]
    gate.full = set()
    (x,) = gate.arrive("x", queue="post", place="thread")
    gate.leave(x, "post")  # somebody's thread is free: whose turn it is does not depend on the queue
    assert gate.begun == [a, b, c, x]
    gate.leave(b)
    assert gate.begun == [a, b, c, x, t]
    gate.leave(c)
    assert gate.begun == [a, b, c, x, t, u]


def test_a_thread_that_is_free_lets_in_who_waits_for_it_in_another_queue(gate):
    (x,) = gate.arrive("x", queue="post", place="thread")
    gate.full = {"thread"}
    (t,) = gate.arrive("t", place="thread")
    gate.full = set()
    gate.leave(x, "post")
    assert gate.begun == [x, t]


def test_where_there_is_one_slot_nobody_passes_one_that_has_no_thread(gate):
    gate.full = {"thread"}
    (t,) = gate.arrive("t", queue="post", place="thread")
    (x,) = gate.arrive("x", queue="post")
    assert gate.begun == []
    gate.full = set()
    (a,) = gate.arrive("a", place="thread")
    gate.leave(a)
    assert gate.begun == [a, t]
    gate.leave(t, "post")
    assert gate.begun == [a, t, x]


def test_what_waits_for_a_thread_goes_back_as_what_waits_for_a_slot_does(gate):
    gate.full = {"thread"}
    (t,) = gate.arrive("t", queue="post", place="thread")
    (x,) = gate.arrive("x", queue="post")
    gate.time_moves(AHEAD_SECONDS * 2)
    assert (gate.sent_back, gate.begun) == ([t, x], [])


def test_as_many_are_asked_for_ahead_as_have_ended_and_no_more_than_there_are_slots(gate):
    assert gate.turnstile.ahead() == {}
    for job in gate.arrive("a", "b"):
        gate.leave(job)
    (x,) = gate.arrive("x", queue="post")
    assert gate.turnstile.ahead() == {"mail": 2}
    for job in gate.arrive("c", "d", "e", "f"):
        gate.leave(job)
    gate.leave(x, "post")
    assert gate.turnstile.ahead() == {"mail": 2, "post": 1}


def test_where_jobs_no_longer_end_nothing_more_is_asked_for(gate):
    for job in gate.arrive("a", "b"):
        gate.leave(job)
    assert [gate.turnstile.ahead().get("mail", 0) for _ in range(4)] == [2, 1, 0, 0]


def test_what_was_sent_back_does_not_count_as_ended(gate):
    gate.arrive("a", "b", "c")
    gate.time_moves(AHEAD_SECONDS * 2)
    assert gate.turnstile.ahead() == {}


async def test_no_more_jobs_run_at_a_time_than_the_queue_has_slots(site):
    jobs = site.submit(*[tasks.count_neighbours.bind(3) for _ in range(300)])
    async with working(site.app(queues=[Queue(concurrency=7)])):
        await eventually(lambda: all(site.row(job).finished_at for job in jobs[-20:]))
        await eventually(lambda: site.rows("SELECT id FROM {}.job") == [])
    assert max(int(site.row(job).result) for job in jobs) == 7


async def test_what_was_claimed_ahead_of_long_jobs_goes_back_unharmed_and_another_worker_takes_it(site, caplog):
    caplog.set_level(logging.INFO, "chancy.job")
    queues = [Queue(concurrency=2)]
    jobs = site.submit(
        *[tasks.add.bind(1, number) for number in range(40)],
        tasks.pass_gate.bind("shut"),
        tasks.pass_gate.bind("shut"),
        *[tasks.add.bind(2, number) for number in range(10)],
    )
    async with working(site.app(queues=queues)) as first:
        await eventually(lambda: first.busy == 2 and site.row(jobs[41]).state is State.RUNNING)
        await eventually(lambda: "no slot was free" in caplog.text)
        async with working(site.app(queues=queues), WorkerConfig(timing=FAST, name="second")):
            last = [await eventually(lambda job=job: (row := site.row(job)).finished_at and row) for job in jobs[42:]]
        tasks.gates["shut"].set()
        held = [await eventually(lambda job=job: (row := site.row(job)).finished_at and row) for job in jobs[40:42]]
    assert {(row.state, row.attempt, row.crashes) for row in [*last, *held]} == {(State.SUCCEEDED, 1, 0)}


async def test_a_worker_that_stops_gives_back_at_once_what_it_has_claimed_ahead(site, monkeypatch):
    monkeypatch.setattr("chancy_worker.slots.turnstile.AHEAD_SECONDS", 60)
    jobs = site.submit(
        *[tasks.add.bind(1, number) for number in range(40)],
        tasks.pass_gate.bind("shut"),
        *[tasks.add.bind(2, number) for number in range(10)],
    )
    config = WorkerConfig(timing=FAST, grace=60)
    async with working(site.app(queues=[Queue(concurrency=1)]), config) as worker:
        # The one at the gate has the slot when another one has been claimed ahead.
        await eventually(lambda: [site.row(job).state for job in jobs[40:42]] == [State.RUNNING] * 2)
        worker.stop()
        await eventually(lambda: {site.row(job).state for job in jobs[41:]} == {State.READY})
        tasks.gates["shut"].set()
        await eventually(lambda: site.row(jobs[40]).state is State.SUCCEEDED)
    assert {site.row(job).attempt for job in jobs[41:]} == {0}


def test_jobs_come_briskly_only_when_many_came_within_the_last_moments(monkeypatch):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    jobs = Pace()
    assert not jobs.is_brisk
    jobs.came(pace.BRISK_JOBS)
    assert jobs.is_brisk
    now += pace.MEMORY_SECONDS
    assert not jobs.is_brisk
    for _ in range(100):  # 500 a second never are
        jobs.came(1)
        now += 0.002
        assert not jobs.is_brisk


async def test_verdicts_of_a_brisk_stream_wait_for_no_more_than_the_next_round(site):
    """Every one of a stream is finished soon after it came, with no backlog and no doorbell."""
    async with working(site.app(), WorkerConfig(timing=ONLY_WOKEN, grace=1)):
        for _ in range(40):
            jobs = site.submit(*[tasks.add.bind(1, number) for number in range(30)])
            await asyncio.sleep(0.005)
        await eventually(lambda: site.rows("SELECT id FROM {}.job") == [])
        lone = site.submit(tasks.add.bind(3, 4))
        await eventually(lambda: site.row(lone[0]).finished_at)
    assert all(site.row(job).state is State.SUCCEEDED for job in jobs)
