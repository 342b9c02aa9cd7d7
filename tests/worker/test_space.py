"""How much room there is where functions run, and where a job belongs; with no database and no loop."""

from types import SimpleNamespace

import msgspec
import pytest
from worker_tasks import add, add_in_thread

from chancy import Limit
from chancy.options.limits import LimitType, Place
from chancy_worker.attempts.verdict import Claimed
from chancy_worker.slots.placing import Placing, UnreadableLimits
from chancy_worker.slots.space import Space

pytestmark = pytest.mark.any_postgres

MIB = 1024**2


TASKS = {
    "light": add,
    "plain": add_in_thread,
    "heavy": add_in_thread.using(limits=[Limit.memory(64 * MIB)]),
}


def job(number, name, limits=None):
    return Claimed(number, name, "mail", 1, 3, 1, 0, b"{}", None, limits, None)


class Worker:
    def __init__(self, *, threads=2, children=2, memory=None):
        sizes = {Place.LOOP: None, Place.THREAD: threads, Place.PROCESS: children}
        self.placing = Placing(TASKS)
        self.executors = {place: SimpleNamespace(size=size) for place, size in sizes.items()}
        self.space = Space(self.executors, self.placing.names, self.placing.memory, memory)

    def claims(self, number, name, limits=None):
        running = self.placing.place(job(number, name, limits))
        self.space.claim(running)
        return running

    @property
    def left_out(self):
        return set(self.space.room({}).without)


def test_a_job_runs_where_its_task_says_or_where_its_own_limits_do():
    place = Placing(TASKS).place
    assert (place(job(1, "light")).place, place(job(2, "plain")).place) == (Place.LOOP, Place.THREAD)
    heavy = place(job(3, "heavy"))
    assert (heavy.place, heavy.memory, heavy.limits[LimitType.MEMORY]) == (Place.PROCESS, 64 * MIB, 64 * MIB)
    given = place(job(4, "plain", msgspec.json.encode([Limit.memory(MIB)])))
    assert (given.place, given.memory) == (Place.PROCESS, MIB)


def test_limits_that_cannot_be_read_are_not_passed_over():
    with pytest.raises(UnreadableLimits, match="newer version"):
        Placing(TASKS).place(job(1, "plain", b'[{"type": "moon", "value": 1}]'))


def test_tasks_of_a_place_that_is_full_are_left_out_until_a_job_of_it_is_over():
    worker = Worker(threads=1)
    assert worker.left_out == set()
    running = worker.claims(1, "plain")
    assert worker.left_out == {"plain"}
    worker.space.leave(running)
    assert worker.left_out == set()


def test_who_was_claimed_beyond_the_room_waits_and_its_task_is_left_out_when_that_was_in_vain():
    worker = Worker(threads=2)
    first, second, third = [worker.claims(number, "plain") for number in range(3)]
    assert [worker.space.enter(each) for each in (first, second)] == [True, True]
    first.inside = second.inside = True
    assert not worker.space.enter(third)
    worker.space.waited(third)
    worker.space.leave(third)
    assert worker.left_out == {"plain"}
    worker.space.leave(first)
    assert worker.left_out == set()


def test_memory_is_a_budget_of_all_that_was_claimed_and_of_all_that_runs():
    worker = Worker(memory=100 * MIB)
    first, second = worker.claims(1, "heavy"), worker.claims(2, "heavy")
    assert worker.left_out == {"heavy"}
    assert worker.space.enter(first)
    first.inside = True
    assert not worker.space.enter(second)
    worker.space.leave(first)
    assert worker.space.enter(second)
    assert worker.left_out == {"heavy"}
    too_large = worker.placing.place(job(3, "plain", msgspec.json.encode([Limit.memory(101 * MIB)])))
    assert not worker.space.claim(too_large)


def test_the_loop_has_room_for_all_and_counts_nobody():
    worker = Worker()
    assert [worker.claims(number, "light").confined for number in range(1000)] == [False] * 1000
    assert worker.left_out == set()
