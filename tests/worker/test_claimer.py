"""When the claimer plays a round, what it asks, and what it does with the answer; mostly with no database behind it."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace

import psycopg
import pytest
import worker_tasks as tasks
from worker_help import FAST, all_finished, eventually, working

from chancy import Queue, State
from chancy_worker import Timing, WorkerConfig
from chancy_worker.attempts.refusals import Refusals
from chancy_worker.attempts.verdict import Claimed, released, succeeded
from chancy_worker.claims.answer import Answer
from chancy_worker.claims.settling import SETTLE
from chancy_worker.connection.link import Link
from chancy_worker.connection.recovery import Recovery
from chancy_worker.doorbell.polling import Poll
from chancy_worker.rounds import claimer
from chancy_worker.slots.room import Room

NOTHING = Answer(0, True, [], {}, [], {})


def job(number, queue="mail"):
    return Claimed(number, "t", queue, 1, 3, 1, 0, b"{}", None, None, None)


def found(*jobs, settled=0):
    return Answer(settled, True, [(job.queue, 0) for job in jobs], {job.queue: None for job in jobs}, [*jobs], {})


class Database:
    """Answers one round after the other with what it is given: a value, an error, or a coroutine function. It records
    what each was to do; when there is nothing left to answer the claimer waits.
    """

    def __init__(self, monkeypatch):
        self.answers, self.played, self.fates = asyncio.Queue(), [], {}
        self.conn, self.reconnected, self.recovery = object(), 0, Recovery("claim")
        monkeypatch.setattr(claimer, "play_round", self._round)
        monkeypatch.setattr(claimer, "settle", lambda under, verdicts, held: self.fates)

    def _round(self, worker, verdicts, wanted, *, under, text):
        return SimpleNamespace(worker=worker, verdicts=[*verdicts], wanted=wanted, free=dict(wanted.free))

    async def send(self, statement):
        if statement is self.fates:
            return await self.fates() if callable(self.fates) else self.fates
        if not isinstance(statement, SimpleNamespace):
            return None
        self.played.append(statement)
        answer = await self.answers.get()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def answer(self, *answers):
        for answer in answers:
            self.answers.put_nowait(answer)

    def is_broken(self, error):
        return isinstance(error, psycopg.OperationalError) and not isinstance(error, psycopg.errors.LockNotAvailable)

    async def reconnect(self, error):
        self.reconnected += 1

    async def wait(self, told):
        await told.wait()


def nothing(*_):
    pass


async def wait(told):
    await told.wait()


@contextlib.asynccontextmanager
async def claiming(send, queues=("mail",), **more):
    """A claimer with nothing but this way to the database, at work for as long as the block lasts."""
    link = (
        send
        if isinstance(send, Database)
        else SimpleNamespace(conn=object(), send=send, wait=wait, recovery=Recovery("claim"))
    )
    started = []
    mine = claimer.Claimer(
        **{
            "link": link,
            "lease": SimpleNamespace(id=1),
            "queues": [Queue(queue, 3) for queue in queues],
            "timing": Timing(look=60),
            "wakeups": Poll(),
            "slots": SimpleNamespace(tasks={"t"}, room=Room, begin=started.append, is_bounded=False),
            "refusals": Refusals("w:1", queues, {}),
            "ends": SimpleNamespace(settled=nothing, written=nothing, came_out=nothing, flush=lambda: None),
            "batches": None,
            "flows": SimpleNamespace(ended=list, may_have_ended=list, becomes=None),
        }
        | more
    )
    mine.started = started
    work = asyncio.create_task(mine.work())
    try:
        yield mine
    finally:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work


@pytest.fixture
def database(monkeypatch):
    return Database(monkeypatch)


async def played(database, number):
    """The round of this number, as soon as it is sent."""
    return await eventually(lambda: len(database.played) > number and database.played[number])


async def test_a_rest_that_ends_between_the_decision_and_the_sleep_is_not_slept_through(monkeypatch):
    played = asyncio.Event()

    async def send(statement):
        if "done_ids" not in statement.params:  # whether suspects wait
            return []
        played.set()
        return NOTHING

    # Each look at the clock takes a second: the third one decides, and the next is after the rest.
    clock = iter(range(1, 1000))
    monkeypatch.setattr(claimer, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    begin = claimer.Claimer.work

    async def work(self):
        self._appetite.ask(0.0, frozenset())
        self._appetite.rest(["mail"], until=3.5)
        await begin(self)

    monkeypatch.setattr(claimer.Claimer, "work", work)
    async with claiming(send):
        await asyncio.wait_for(played.wait(), 10)


async def test_who_is_woken_is_looked_at_and_the_others_sleep_on(database):
    database.answer(NOTHING)
    async with claiming(database, ["mail", "post", "rest"]) as mine:
        assert set((await played(database, 0)).wanted.looking) == {"mail", "post", "rest"}
        await eventually(lambda: mine._appetite.ask(0, frozenset()) == set())
        mine.wake(["post"])
        assert (await played(database, 1)).wanted.looking == ("post",)
        assert database.played[1].free == {"post": 3}


async def test_a_full_queue_is_asked_in_the_very_round_that_tells_of_its_free_slot(database):
    three = [job(n) for n in range(3)]
    database.answer(found(*three))
    async with claiming(database, ["mail", "post"]) as mine:
        assert (await played(database, 0)).free == {"mail": 3, "post": 3}
        await eventually(lambda: mine.started == three)
        mine.complete(three[1], succeeded(three[1], b"1"))
        second = await played(database, 1)
        assert (second.verdicts, second.free) == ([succeeded(three[1], b"1")], {"mail": 1})


async def test_what_a_round_has_claimed_is_held_and_begins_before_anything_else_is_asked(database):
    asked = asyncio.Event()

    async def never():
        asked.set()
        await asyncio.Event().wait()

    first, second = job(1), job(2)
    database.answer(found(first))
    async with claiming(database) as mine:
        await played(database, 1)
        database.fates = never
        mine.complete(first, succeeded(first, b"1"))
        database.answer(NOTHING, found(second))  # its verdict goes with the next one, and is not found
        await asyncio.wait_for(asked.wait(), 10)
        assert (mine.started, set(mine.held)) == ([first, second], {(1, 1), (2, 1)})


@pytest.mark.parametrize("is_bounded", [False, True], ids=["in the loop", "where there is room for a few"])
async def test_where_more_waits_jobs_begin_while_the_next_round_is_on_its_way(database, is_bounded):
    came, began, send = [*map(job, range(3)), job(3, "post")], [], database.send

    async def sending(statement):
        if isinstance(statement, SimpleNamespace):  # a round
            began.append([*mine.started])
        return await send(statement)

    database.send = sending
    database.answer(found(*came))
    async with claiming(database, ["mail", "post"]) as mine:
        mine._acceptance._slots.is_bounded = is_bounded
        await played(database, 1)
        # A round has to know what is left of room that is counted as jobs begin.
        assert began == [[], came if is_bounded else []]
        assert mine.started == came


async def test_a_claim_that_is_seen_before_the_answer_of_its_round_is_not_given_back(database):
    async with claiming(database) as mine:
        await played(database, 0)
        mine.give_back([(1, 1), (2, 1)])
        database.answer(found(job(1)))
        second = await played(database, 1)
        # The one was claimed by that round, the other by one that was never heard of.
        assert [(verdict.id, verdict.note) for verdict in second.verdicts] == [(2, "claimed unheard")]
        assert mine.started == [job(1)]


async def test_a_claim_that_was_seen_while_its_round_failed_is_given_back(database):
    async with claiming(database) as mine:
        await played(database, 0)
        mine.give_back([(1, 1)])
        database.answer(psycopg.OperationalError("cut"))
        second = await played(database, 1)
        assert [verdict.id for verdict in second.verdicts] == [1]
        database.answer(Answer(1, True, [], {}, [], {}))
        await eventually(lambda: len(database.played) == 3)
        assert database.played[2].wanted.looking == ("mail",)  # wherever it was put back


async def test_what_was_claimed_under_a_lease_that_is_lost_meanwhile_goes_back_unbegun(database):
    lease = SimpleNamespace(id=1)
    async with claiming(database, lease=lease) as mine:
        await played(database, 0)
        lease.id = 2
        database.answer(found(job(1)))
        second = await played(database, 1)
        assert (second.worker, mine.started) == (2, [])
        assert [(verdict.id, verdict.state, verdict.refund) for verdict in second.verdicts] == [(1, State.READY, True)]


@pytest.mark.parametrize(
    "trouble",
    [
        [],
        [psycopg.errors.LockNotAvailable("locked")],
        [psycopg.OperationalError("cut")],
        [psycopg.errors.CheckViolation("no partition")],
    ],
    ids=["none", "locked", "lost", "no partition"],
)
async def test_a_queue_is_not_asked_until_what_goes_back_there_is_back_and_is_looked_at_then(database, trouble):
    one = job(1)
    database.answer(found(one), NOTHING)
    async with claiming(database, ["mail", "post"]) as mine:
        await played(database, 1)
        database.answer(*trouble)
        mine.wake(["post"])
        mine.complete(one, released(one, "no slot was free"))
        confirmed = 2 + len(trouble)
        for number in range(2, confirmed + 1):
            round_ = await played(database, number)
            assert "mail" not in round_.free
        assert [verdict.id for verdict in database.played[confirmed].verdicts] == [1]
        database.answer(Answer(1, True, [], {}, [], {}))
        after = await played(database, confirmed + 1)
        assert (after.free, "mail" in after.wanted.looking) == ({"mail": 3} | after.free, True)


async def test_a_job_whose_row_is_locked_is_not_back_yet(database):
    one = job(1)
    database.answer(found(one), NOTHING)
    async with claiming(database) as mine:
        await played(database, 1)
        database.fates = {(1, 1): "busy"}
        database.answer(NOTHING)
        mine.complete(one, released(one, "no slot was free"))
        assert (await played(database, 2)).free == {}
        again = await played(database, 3)
        assert (again.free, [verdict.id for verdict in again.verdicts]) == ({}, [1])
        database.answer(Answer(1, True, [], {}, [], {}))
        assert (await played(database, 4)).wanted.looking == ("mail",)


async def test_what_is_claimed_while_a_job_that_comes_before_it_turns_back_goes_back_too(database):
    one, two, other = job(1), job(2), job(3, "post")
    database.answer(found(one))
    async with claiming(database, ["mail", "post"]) as mine:
        await played(database, 1)
        mine.complete(one, released(one, "no slot was free"))
        database.answer(found(two, other))
        third = await played(database, 2)
        assert mine.started == [one, other]
        assert [verdict.id for verdict in third.verdicts] == [1, 2]
        assert "mail" not in third.free


async def test_a_job_that_was_claimed_while_the_verdict_before_it_is_looked_into_is_not_given_back(
    site, monkeypatch, caplog
):
    """The heartbeat looks meanwhile, and finds a claim that is older than a second."""
    gate, send = asyncio.Event(), Link.send

    async def send_unless_gated(self, statement):
        if statement.sql == SETTLE:
            await gate.wait()
        return await send(self, statement)

    monkeypatch.setattr(Link, "send", send_unless_gated)
    completing, claimed = site.submit(tasks.complete_at_gate.bind("begin"), tasks.pass_gate.bind("end"))
    async with working(site.app(concurrency=1), WorkerConfig(timing=FAST, grace=1)):
        await eventually(lambda: site.row(completing).state is State.RUNNING)
        tasks.gates["begin"].set()
        await eventually(lambda: site.row(claimed).state is State.RUNNING)
        seen = site.one("SELECT expires_at FROM {}.worker")
        for _ in range(4):  # each a look at all that was claimed a second ago
            await eventually(lambda seen=seen: site.one("SELECT expires_at FROM {}.worker") > seen)
            seen = site.one("SELECT expires_at FROM {}.worker")
        gate.set()
        tasks.gates["end"].set()
        await all_finished(site)
    assert "giving it back" not in caplog.text
    assert site.one("SELECT claims FROM {}.history WHERE id = %s", claimed.id) == 1
