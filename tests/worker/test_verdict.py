"""What an attempt becomes, without a database: nothing that is thrown at it makes it raise."""

from __future__ import annotations

import math
from datetime import timedelta

import ending_tasks
import msgspec
import pytest

from chancy import Backoff, Discard, Retry, Snooze, State
from chancy.model import LONGEST_DELAY, AttemptError
from chancy_worker import Completion
from chancy_worker.attempts.middleware import flaw_of
from chancy_worker.attempts.verdict import Claimed, judged, since_now
from chancy_worker.words import safe

pytestmark = pytest.mark.any_postgres

SINCE = since_now("verdicts")
KEPT = msgspec.json.Decoder(list[AttemptError])


def claimed(attempt=1, max_attempts=3, **more):
    fields = {"retry": None, "limits": None, "errors": None} | more
    return Claimed(7, "a.task", "default", attempt, max_attempts, 4, 0, b"{}", **fields)


def always(delay):
    return lambda attempt, error, own: delay


RAISING = [
    how for how, (_, end) in ending_tasks.WAYS.items() if end.startswith("failed") and "InvalidResult" not in end
]


@pytest.mark.parametrize("how", RAISING)
def test_whatever_is_raised_becomes_one_verdict_that_can_be_read(how):
    raised = None
    try:
        ending_tasks.WAYS[how][0]()
    except BaseException as error:
        raised = error
    verdict = judged(claimed(attempt=3), raised, SINCE, always(None))
    (kept,) = KEPT.decode(verdict.errors)
    assert (verdict.id, verdict.fence, verdict.state, kept.attempt) == (7, 4, State.FAILED, 3)
    assert len(verdict.errors) < 512 * 1024
    verdict.note.encode()


@pytest.mark.parametrize(
    ("delay", "expected"),
    [(math.inf, LONGEST_DELAY), (timedelta.max, LONGEST_DELAY), (-5, timedelta(0)), (2.5, timedelta(seconds=2.5))],
)
def test_delays_are_what_the_database_can_take(delay, expected):
    for verdict in (
        judged(claimed(), Snooze(delay), SINCE, always(None)),
        judged(claimed(), Retry(delay), SINCE, always(None)),
        judged(claimed(), ValueError(), SINCE, always(delay)),
    ):
        assert (verdict.state, verdict.delay) == (State.READY, expected)


def test_a_kind_of_snooze_is_one_and_what_only_says_so_is_none():
    class Later(Snooze):
        pass

    assert judged(claimed(), Later(5), SINCE, always(None)).refund
    assert judged(claimed(), ending_tasks.Pretender(), SINCE, always(None)).state is State.FAILED


def test_errors_of_a_row_that_are_no_list_are_left_behind():
    for errors in (b"{}", b"null", b'"text"', b"[", b"\xff"):
        verdict = judged(claimed(errors=errors), ValueError("new"), SINCE, always(None))
        assert [error.message for error in KEPT.decode(verdict.errors)] == ["new"]


def test_a_backoff_of_a_row_that_cannot_be_read_leaves_the_delay_to_the_task_and_keeps_the_error():
    seen = []

    def decide(attempt, error, own):
        seen.append(own)
        return timedelta(seconds=9)

    for retry in (
        b'{"base": "PT5S", "factor": 0.1}',
        b'{"base": 5}',
        b"[]",
        b"{",
        msgspec.json.encode(Backoff(base=7)),
    ):
        verdict = judged(claimed(retry=retry), ValueError("mine"), SINCE, decide)
        assert (verdict.state, verdict.delay) == (State.READY, timedelta(seconds=9))
        assert KEPT.decode(verdict.errors)[0].message == "mine"
    assert seen == [None, None, None, None, Backoff(base=7)]


def test_a_completion_of_this_attempt_has_no_flaw():
    job = claimed()
    for good in (
        judged(job, ValueError(), SINCE, always(timedelta(1))),
        judged(job, Discard(), SINCE, always(None)),
        Completion(7, 4, State.SUCCEEDED, b"1"),
        Completion(7, 4, State.CANCELLED),
        Completion(7, 4, State.READY, delay=timedelta(1), refund=True),
    ):
        assert flaw_of(good, job) is None
    for flawed in (None, "text", Completion, Completion(8, 4, State.FAILED), Completion(7, 4, State.SCHEDULED)):
        assert flaw_of(flawed, job)


def test_a_text_of_another_kind_is_made_plain():
    assert type(safe(ending_tasks.OddText("odd"), 256)) is str
    assert len(safe("ä" * 1000, 256).encode()) <= 256
