"""What a worker knows of each of its queues, with no database and no clock but the one given."""

import math

import pytest

from chancy.options.limits import Place
from chancy_worker.claims.answer import Answer
from chancy_worker.claims.wanted import START, Wanted
from chancy_worker.demand import marks, pace
from chancy_worker.demand.appetite import LIMIT_SECONDS, Appetite
from chancy_worker.demand.marks import LOOK_SECONDS, Marks
from chancy_worker.held.returns import Returns
from chancy_worker.slots.room import Bound, Shares, shared

NOTHING = frozenset()
LOOK = 1000.0
"""The fallback look's interval: in most of these tests there is none."""


class Worker:
    """Of the queues `mail` and `post`, at an instant that only the test moves."""

    def __init__(self, monkeypatch, *queues):
        self.now = 100.0
        for module in (marks, pace):
            monkeypatch.setattr(module, "time", self)
        self.marks = Marks()
        self.appetite = Appetite(queues or ("mail", "post"), self.marks, LOOK)

    def monotonic(self):
        return self.now

    def asks(self, without=NOTHING):
        return sorted(self.appetite.ask(self.now, frozenset(without)))

    def plays(self, found, *, wanted=10, without=(), at_limit=(), ahead=None, meanwhile=lambda: None):
        """A round that asks whatever is hungry, and is answered with so many jobs of each queue, of priority 0.
        None is of a queue in which nothing waits at all.
        """
        free = dict.fromkeys(self.asks(without), wanted)
        looking = self.marks.due(free, self.now)
        self.appetite.asked()
        meanwhile()
        lanes = [queue for queue in looking if found.get(queue) is not None]
        next_in = dict.fromkeys(lanes) | {
            queue: seconds for queue, seconds in (ahead or {}).items() if queue in looking
        }
        answer = Answer(0, True, [(queue, 0) for queue in lanes], next_in, [], {}, [], at_limit)
        self.marks.learn(answer, looking, 0.001)
        got = {queue: found[queue] for queue in free if found.get(queue)}
        round_ = Wanted(free, {}, looking, tuple(without))
        return self.appetite.learn(round_, answer, got, self.now)

    def looks(self):
        return sorted(self.marks.due(self.asks(), self.now))


@pytest.fixture
def worker(monkeypatch):
    return Worker(monkeypatch)


def test_a_queue_that_gave_all_that_was_wanted_stays_hungry_beside_one_that_is_empty(worker):
    assert worker.plays({"mail": 10, "post": None})
    assert worker.asks() == ["mail"]
    assert worker.appetite.quiet() == ["post"]
    worker.now += 60
    assert worker.asks() == ["mail"]


def test_a_queue_that_has_no_room_is_not_asked_and_loses_nothing_by_what_is_found_in_others(worker):
    worker.plays({"mail": 10, "post": 10})
    full = worker.appetite.ask(worker.now, NOTHING)
    assert "mail" in full  # and the claimer leaves it out for want of room: so it is no part of this round
    round_ = Wanted({"post": 10}, {}, worker.marks.due(["post"], worker.now + LOOK_SECONDS))
    worker.appetite.learn(round_, Answer(0, True, [], {}, [], {}), {}, worker.now)
    assert worker.asks() == ["mail"]


def test_a_queue_that_came_back_short_is_looked_at_before_it_is_taken_for_empty(worker):
    worker.plays({"mail": 10, "post": 10})
    assert worker.looks() == []
    worker.plays({"mail": 3, "post": 10})
    assert worker.looks() == ["mail"]
    worker.plays({"mail": 3, "post": 10})
    assert worker.looks() == ["mail"]
    worker.plays({"mail": None, "post": 10})
    assert worker.asks() == ["post"]


def test_who_is_woken_is_looked_at_and_nobody_else(worker):
    worker.plays({"mail": None, "post": None})
    worker.appetite.wake(["post"])
    assert (worker.asks(), worker.looks()) == (["post"], ["post"])


def test_a_wakeup_while_the_look_is_on_its_way_is_followed_by_another_look(worker):
    worker.plays({}, meanwhile=lambda: worker.appetite.wake(["mail"]))
    assert (worker.asks(), worker.looks()) == (["mail"], ["mail"])
    assert worker.appetite.quiet() == ["post"]


def test_each_queue_has_a_look_time_of_its_own(worker):
    worker.plays({"mail": 10, "post": 10})
    worker.now += LOOK_SECONDS / 2
    worker.appetite.look_again(["mail"])
    worker.plays({"mail": 10, "post": 10})
    worker.now += LOOK_SECONDS / 2
    assert worker.looks() == ["post"]
    worker.plays({"mail": 10, "post": 10})
    worker.now += LOOK_SECONDS / 2
    assert worker.looks() == ["mail"]


def test_each_queue_is_asked_when_its_own_scheduled_job_falls_due(worker):
    worker.plays({"mail": 0, "post": 0}, ahead={"mail": 5.0, "post": 7.0})
    assert worker.appetite.sleeps_until() == pytest.approx(105)
    worker.appetite.wake(["post"])
    worker.plays({"post": 0}, ahead={"post": 7.0})  # a look at one is no news of the other
    assert (worker.asks(), worker.appetite.sleeps_until()) == ([], pytest.approx(105))
    worker.now = 105
    assert worker.asks() == ["mail"]
    worker.plays({"mail": 0})
    worker.now = 107
    assert worker.asks() == ["post"]


def test_a_job_that_is_put_off_is_asked_for_when_it_falls_due_and_hides_none_of_another_queue(worker):
    worker.plays({"mail": 0, "post": None}, ahead={"mail": 5.0})
    worker.appetite.put_off("post", worker.now + 0.02)
    worker.appetite.put_off("mail", worker.now + 9)
    worker.now += 0.02
    assert worker.asks() == ["post"]
    worker.plays({"post": None})
    assert worker.appetite.sleeps_until() == pytest.approx(105)


def test_what_was_put_off_while_its_queue_was_hungry_is_not_forgotten_when_that_is_sated(worker):
    """A verdict goes out with the very look that finds nothing: that look does not see what it puts off."""
    worker.plays({"mail": 10, "post": None})
    worker.plays({"mail": 3})
    worker.plays({"mail": None})
    worker.appetite.put_off("mail", worker.now + 3)
    assert worker.appetite.sleeps_until() == pytest.approx(103)


def test_a_queue_at_its_limit_is_asked_again_soon_and_the_others_when_their_own_time_comes(worker):
    worker.plays({"mail": 3, "post": 0}, at_limit=["mail"], ahead={"post": 5.0})
    assert worker.asks() == []
    assert 0 < worker.appetite.sleeps_until() - worker.now <= 1.25 * LIMIT_SECONDS
    worker.now = worker.appetite.sleeps_until()
    assert worker.asks() == ["mail"]
    worker.plays({"mail": 0}, at_limit=["mail"])
    worker.now = 105
    assert "post" in worker.asks()


def test_a_queue_that_was_woken_while_its_limit_was_found_used_up_is_asked_again_at_once(worker):
    worker.plays({"mail": 3, "post": None}, at_limit=["mail"], meanwhile=lambda: worker.appetite.wake(["mail"]))
    assert (worker.asks(), worker.looks()) == (["mail"], ["mail"])
    worker.plays({"mail": 0}, at_limit=["mail"])
    assert worker.asks() == []


def test_a_queue_is_known_to_be_at_its_limit_whatever_is_asked_in_between(worker):
    worker.plays({"mail": 3, "post": 10}, at_limit=["mail"])
    worker.plays({"post": 10})
    assert worker.appetite.at_limit == {"mail"}


def test_a_queue_that_has_a_limit_and_no_jobs_is_left_alone(worker):
    worker.plays({"mail": None, "post": None}, at_limit=["mail"])
    assert (worker.appetite.quiet(), worker.appetite.sleeps_until()) == (["mail", "post"], pytest.approx(1100, abs=251))


def test_only_queues_of_which_something_was_left_out_are_asked_when_there_is_room_again(worker):
    worker.plays({"mail": None, "post": None})
    worker.appetite.wake(["mail"])
    worker.plays({"mail": None}, without=["slow"])
    assert worker.asks(["slow"]) == []
    assert (worker.asks(), worker.looks()) == (["mail"], ["mail"])


def test_where_all_that_waits_is_left_out_only_a_look_that_is_due_reads_past_it(worker):
    worker.plays({"mail": 0, "post": None}, without=["slow"])
    assert worker.plays({"mail": 10}, without=[])  # there was room for ten
    assert worker.asks(["slow"]) == []
    assert "mail" in worker.appetite.quiet()  # of others of its jobs somebody has to tell
    assert worker.asks([]) == ["mail"]  # room again
    assert worker.asks(["slow"]) == []
    worker.now += LOOK_SECONDS
    assert worker.asks(["slow"]) == ["mail"]


def test_a_claim_that_finds_nothing_but_what_is_left_out_is_not_made_again_before_a_look_is_due(worker):
    assert worker.plays({"mail": 10, "post": None})
    assert worker.appetite.quiet() == ["post"]
    worker.plays({"mail": 0}, without=["slow"])  # from the marks on, past all that waits
    assert worker.asks(["slow"]) == []
    assert worker.appetite.quiet() == ["mail"]
    assert worker.plays({"mail": 10}, without=[])
    assert worker.asks(["slow"]) == []
    worker.appetite.wake(["mail"])
    worker.plays({"mail": 0}, without=["slow"], meanwhile=lambda: worker.appetite.wake(["mail"]))
    assert (worker.asks(["slow"]), worker.looks()) == (["mail"], ["mail"])


def test_a_queue_is_not_spared_when_something_was_found_in_spite_of_what_is_left_out(worker):
    worker.plays({"mail": 0, "post": None}, without=["unknown"])
    worker.appetite.look_again(["mail"])
    assert worker.plays({"mail": 10}, without=["unknown"])
    assert worker.asks(["unknown"]) == ["mail"]


def test_the_fallback_look_is_one_for_all_that_sleep(worker):
    worker.plays({"mail": None, "post": None})
    worker.now = worker.appetite.sleeps_until()
    assert worker.looks() == ["mail", "post"]
    worker.plays({"mail": None, "post": None})
    assert 0.75 * LOOK <= worker.appetite.sleeps_until() - worker.now <= 1.25 * LOOK


def test_a_busy_queue_does_not_put_off_the_fallback_look_at_another(worker):
    worker.plays({"mail": 10, "post": None})
    until = worker.appetite.sleeps_until()
    while worker.now < until:
        worker.plays({"mail": 10})
        worker.now += LOOK / 10
    assert "post" in worker.looks()


def test_a_brisk_queue_gathers_jobs_for_a_moment_and_a_quiet_one_is_no_part_of_that(worker):
    worker.plays({"mail": 5, "post": None}, wanted=pace.BRISK_JOBS * 2)
    worker.plays({"mail": pace.BRISK_JOBS}, wanted=pace.BRISK_JOBS * 2)
    assert worker.appetite.rests(worker.now)
    assert worker.appetite.rests_until == pytest.approx(worker.now + pace.REST_SECONDS)
    assert worker.appetite.quiet() == ["post"]
    worker.appetite.wake(["post"])
    assert not worker.appetite.rests(worker.now)
    assert worker.asks() == ["post"]
    worker.now += pace.REST_SECONDS
    assert worker.asks() == ["mail", "post"]


def test_without_a_lease_nothing_is_asked_until_the_fallback_look(worker):
    worker.asks()
    worker.appetite.lost_lease(["mail", "post"])
    assert worker.asks() == []
    worker.now = worker.appetite.sleeps_until()
    assert worker.asks() == ["mail", "post"]


# Marks.


def test_marks_of_one_queue_start_anew_and_those_of_another_stay():
    marks, one, two = Marks(), (START[0], 7), (START[0], 8)
    found = Answer(0, True, [("mail", 5), ("mail", 0), ("post", 0)], {}, [], {("mail", 5): one, ("post", 0): two})
    marks.learn(found, ["mail", "post"], 0.001)
    assert marks.lanes(["mail", "post"]) == {("mail", 5): one, ("mail", 0): START, ("post", 0): two}
    marks.forget(["mail"])
    assert (marks.look_at("mail"), marks.look_at("post") > 0) == (0.0, True)
    marks.learn(Answer(0, True, [("mail", 9), ("mail", 0)], {}, [], {}), ["mail"], 0.001)
    assert list(marks.lanes(["mail", "post"]).items()) == [
        (("mail", 9), START),
        (("mail", 0), START),
        (("post", 0), two),
    ]


def test_a_look_is_due_again_in_a_second_or_after_twenty_times_what_it_took(monkeypatch):
    worker = Worker(monkeypatch)
    found = Answer(0, True, [("mail", 0)], {}, [], {})
    for took, pause in [(0.001, 1), (0.05, 1), (0.4, 8)]:
        worker.marks.learn(found, ["mail"], took)
        assert worker.marks.look_at("mail") == worker.now + pause


def test_where_a_look_has_found_no_job_the_next_claim_looks():
    marks = Marks()
    marks.learn(Answer(0, True, [("mail", 0)], {}, [], {}), ["mail", "post"], 0.001)
    assert marks.due(["mail", "post"], marks.look_at("mail") - 0.5) == ("post",)


# Jobs that go back.


def test_a_queue_waits_until_the_last_of_its_jobs_is_back():
    returns = Returns()
    for claim, queue in [((1, 1), "mail"), ((2, 1), "mail"), ((3, 1), "post")]:
        returns.add(claim, queue)
    returns.add((1, 1), "mail")
    assert ("mail" in returns, "post" in returns, "none" in returns) == (True, True, False)
    assert [returns.arrived(claim) for claim in [(1, 1), (1, 2), (1, 1), (2, 1)]] == [None, None, None, "mail"]
    assert ("mail" in returns, "post" in returns, bool(returns)) == (False, True, True)


# Room.


def test_a_queue_is_bounded_by_the_places_in_which_its_jobs_run_and_by_no_other():
    threads = Bound(4, {"mail": 1.0, "post": 0.0}, 1.0)
    assert shared({"mail": 100, "post": 100}, [threads]) == {"mail": 4, "post": 100}


def test_what_has_room_for_a_few_is_divided_and_whoever_needs_less_leaves_the_rest_to_others():
    threads = Bound(10, {"mail": 1.0, "post": 1.0, "rest": 0.02})
    found = shared({"mail": 100, "post": 100, "rest": 100}, [threads])
    assert found == {"mail": 4, "post": 4, "rest": 100}
    assert shared({"mail": 3, "post": 100}, [threads]) == {"mail": 3, "post": 7}
    assert shared({"mail": 3, "post": 5}, [threads]) == {"mail": 3, "post": 5}


def test_where_there_is_room_for_fewer_jobs_than_queues_each_has_its_turn():
    queues = [f"q{n}" for n in range(8)]
    asked = [shared(dict.fromkeys(queues, 100), [Bound(1, {})]) for _ in range(300)]
    assert {tuple(each.values()) for each in asked} == {(1,)}
    assert {queue for each in asked for queue in each} == set(queues)


def test_the_share_of_each_queue_is_learned_from_its_own_jobs():
    shares = Shares()
    for _ in range(10):
        for queue, place in [("mail", Place.THREAD), ("post", Place.LOOP)]:
            shares.began(queue, place)
        shares.learn([Place.THREAD])
    bound = shares.bound(Place.THREAD, 3)
    assert (bound.share("mail"), bound.share("post") < 0.01) == (1.0, True)
    assert bound.share("a new one") == pytest.approx(0.5, abs=0.01)
    assert math.isclose(shares.bound(Place.PROCESS, 3).share("post"), 1.0)  # of what was left out nothing is learned
