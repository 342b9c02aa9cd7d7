"""What a worker holds from the answer of a claim to the written verdict, in values that need no database."""

import asyncio
from types import SimpleNamespace

import pytest

from chancy import State
from chancy_worker.attempts.verdict import Claimed, succeeded
from chancy_worker.held.holdings import Holdings
from chancy_worker.held.leases import Leases
from chancy_worker.held.outbox import Outbox
from chancy_worker.held.unheard import Unheard
from chancy_worker.rounds import doubts
from chancy_worker.rounds.doubts import Doubts

pytestmark = pytest.mark.any_postgres


def job(number, queue="mail", *, share=None, lease=1):
    return Claimed(number, "t", queue, 1, 3, 1, 0, b"{}", None, None, None, share=share, lease=lease)


def verdict(number):
    return succeeded(job(number), b"null")


def test_what_has_ended_runs_no_more_and_is_held_until_its_verdict_is_written():
    holdings = Holdings(["mail", "post"])
    one, two, other = job(1), job(2), job(3, "post")
    assert holdings.take([one, two, other]) == ({"mail": 2, "post": 1}, ())
    assert (holdings.running, holdings.all_run("mail")) == ({"mail": 2, "post": 1}, True)
    holdings.ends(one)
    assert (holdings.running, holdings.all_run("mail")) == ({"mail": 1, "post": 1}, False)
    assert set(holdings.jobs) == {(1, 1), (2, 1), (3, 1)}
    assert holdings.let_go([(1, 1), (9, 9)]).claims == [one, None]
    assert (set(holdings.jobs), holdings.all_run("mail")) == ({(2, 1), (3, 1)}, True)


def test_a_round_says_how_many_are_held_before_its_verdicts_and_after_them():
    holdings = Holdings(["mail", "post"])
    inside = job(1, share="five")
    holdings.take([inside, job(2, share="five"), job(3)])
    holdings.ends(inside)
    assert holdings.of(1, ["mail", "post"], "five", all_end=True) == {
        ("queue", "mail"): (3, 2),
        ("gate", "five"): (2, 1),
    }
    assert holdings.of(1, ["mail"], None, all_end=False) == {("queue", "mail"): (3, 3)}
    holdings.let_go([(1, 1)])
    assert holdings.of(1, [], "five", all_end=True) == {("gate", "five"): (1, 1)}
    assert holdings.of(1, [], "six", all_end=True) == {}


def test_after_a_round_whose_answer_was_lost_the_database_counts_until_there_is_another_lease():
    holdings = Holdings(["mail", "post"])
    holdings.take([job(1)])
    holdings.unsure_of = 1
    assert holdings.of(1, ["mail"], None, all_end=True) is None
    assert holdings.of(2, ["mail"], None, all_end=True) == {("queue", "mail"): (1, 1)}


def test_a_claim_that_comes_twice_is_held_once_and_both_of_its_attempts_run():
    """After a failover that has lost the first one."""
    holdings = Holdings(["mail", "post"])
    before, after = job(1, share="five"), job(1, "post")
    holdings.take([before])
    assert holdings.take([after]) == ({"post": 1}, {(1, 1)})
    assert (holdings.jobs, holdings.running) == ({(1, 1): after}, {"mail": 1, "post": 1})
    holdings.ends(before)
    holdings.ends(after)
    assert holdings.let_go([(1, 1), (1, 1)]).claims == [after, None]
    assert holdings.all_run("mail")
    assert holdings.of(1, ["mail", "post"], "five", all_end=True) == {}


def test_the_verdicts_of_one_round_are_of_one_lease():
    leases, held = Leases(), {}
    leases.claimed_under(1, held)
    held[1, 1] = job(1)
    assert leases.of_one([verdict(1)]) == ([verdict(1)], (), 1)
    leases.claimed_under(2, held)
    held[2, 1] = job(2, lease=2)
    assert leases.of_one([verdict(1), verdict(2)]) == ([verdict(1)], [verdict(2)], 1)
    assert leases.of_one([verdict(2), verdict(1)]) == ([verdict(2)], [verdict(1)], 2)
    assert (leases.of(held[1, 1]), leases.of(None)) == (1, 2)
    leases.forget([(1, 1)])
    assert leases.of_one([verdict(2)]) == ([verdict(2)], (), 2)


def test_a_claim_that_was_heard_of_late_is_given_back_under_its_own_lease():
    leases = Leases()
    leases.claimed_under(1, {})
    outbox = Outbox()
    unheard = Unheard(Holdings(["mail", "post"]), leases, outbox)
    unheard.seen([(5, 1)], 2)
    assert [(each.id, each.state, each.refund) for each in outbox] == [(5, State.READY, True)]
    assert leases.of_one(outbox.take())[2] == 2


def test_what_is_seen_while_a_round_is_on_its_way_waits_for_its_answer():
    holdings, outbox = Holdings(["mail", "post"]), Outbox()
    unheard = Unheard(holdings, Leases(), outbox)
    unheard.asking = True
    unheard.seen([(1, 1), (2, 1)], 1)
    assert not outbox
    unheard.asking = False
    holdings.take([job(1)])
    unheard.heard(1)
    assert [each.id for each in outbox] == [2]
    unheard.heard(1)
    assert len(outbox) == 1


async def test_a_verdict_that_is_postponed_comes_back_and_is_told():
    outbox, told = Outbox(), asyncio.Event()
    outbox.postpone(0.001, verdict(1), told.set)
    assert (len(outbox), outbox.postponed) == (0, 1)
    await asyncio.wait_for(told.wait(), 10)
    assert (outbox.take(), outbox.postponed) == ([verdict(1)], 0)


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(monotonic=lambda: 100.0)
    monkeypatch.setattr(doubts, "time", now)


def test_claims_rest_longer_each_time_until_one_bears_fruit(clock):
    claims = Doubts()
    rests = []
    for _ in range(9):
        claims.rest()
        rests.append(claims.rest_until - 100)
    assert rests == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    claims.bore_fruit()
    claims.rest()
    assert claims.rest_until == 100.5
