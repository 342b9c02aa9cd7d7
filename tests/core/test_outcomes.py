"""How a handler asks for later, and how a task says when: durations are timedeltas or seconds, and nothing else."""

from __future__ import annotations

import copy
import math
import pickle
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import msgspec
import pytest

from chancy import Backoff, ChancyError, Discard, InvalidOption, Limit, Retry, Snooze, task
from chancy.options.plain import fraction
from chancy.options.retry import delay_of

MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize("given", [60, 60.0, MINUTE, Fraction(120, 2)])
def test_a_delay_is_a_timedelta_or_seconds(given):
    assert delay_of(given) == Retry(given).after == Retry(after=given).after == Snooze(given).delay == MINUTE
    assert type(Snooze(given).delay) is timedelta


@pytest.mark.parametrize("given", [60, 60.0, MINUTE])
def test_a_backoff_counts_in_timedeltas_or_seconds(given):
    assert Backoff(base=given, maximum=given).base == Backoff(maximum=given).maximum == MINUTE


@pytest.mark.parametrize("given", [10**400, 1e300, math.inf, timedelta.max])
def test_what_no_timedelta_can_say_is_the_longest_or_the_shortest(given):
    assert Snooze(given).delay == timedelta.max
    if not isinstance(given, timedelta):
        assert Snooze(-given).delay == timedelta.min


class OfAnotherLibrary(timedelta):
    def __lt__(self, other):
        raise AssertionError

    __gt__ = __le__ = __ge__ = __neg__ = __lt__


def test_a_kind_of_timedelta_becomes_a_plain_one():
    assert type(Snooze(OfAnotherLibrary(seconds=60)).delay) is timedelta


@pytest.mark.parametrize("given", ["60", "later", b"1", True, [60], object(), 3j, Decimal(60), Limit.time(60)])
def test_what_is_no_duration_is_refused_where_it_is_written(given):
    for take in (delay_of, Retry, Snooze):
        with pytest.raises(TypeError, match="expected a timedelta or a number of seconds"):
            take(given)
        with pytest.raises(ValueError, match="NaN"):
            take(math.nan)
    with pytest.raises(TypeError):
        Snooze(None)
    assert Retry(None).after is None


@pytest.mark.parametrize(
    "wrong",
    [{"factor": math.nan}, {"factor": math.inf}, {"factor": 0.5}, {"jitter": math.nan}, {"jitter": 2}, {"base": -1}],
)
def test_a_backoff_that_says_no_delay_is_refused(wrong):
    with pytest.raises(InvalidOption, match=next(iter(wrong))):
        Backoff(**wrong)


@pytest.mark.parametrize(
    "backoff", [Backoff(base=3600, factor=1e6, maximum=3e9, jitter=1), Backoff(base=0, factor=1e6), Backoff(base=3e9)]
)
def test_a_backoff_without_reason_has_a_delay_all_the_same(backoff):
    for attempt in (1, 2, 64, 32_767):
        assert timedelta(0) <= backoff.delay(attempt) <= 2 * backoff.maximum


def test_a_backoff_in_seconds_is_stored_as_any_other():
    assert msgspec.json.encode(Backoff(base=7)) == msgspec.json.encode(Backoff(base=timedelta(seconds=7)))
    assert msgspec.json.decode(msgspec.json.encode(Backoff(base=7)), type=Backoff) == Backoff(base=timedelta(seconds=7))


@pytest.mark.parametrize(
    "outcome",
    [Retry(60, "not yet"), Retry(), Snooze(60), Discard("never"), Discard()],
    ids=lambda outcome: repr(outcome),
)
def test_an_outcome_may_leave_a_process_pool(outcome):
    for twin in (pickle.loads(pickle.dumps(outcome)), copy.copy(outcome)):
        assert (type(twin), str(twin), vars(twin)) == (type(outcome), str(outcome), vars(outcome))


async def later(attempt: int, error: BaseException) -> timedelta:
    return MINUTE


@pytest.mark.parametrize(
    "wrong",
    [3, 0.5, False, MINUTE, "5 s", Backoff, {"base": 5}, later, lambda attempt: MINUTE, lambda attempt, error, more: 1],
)
def test_what_cannot_decide_about_a_retry_is_refused_at_the_decoration_with_the_right_spelling(wrong):
    with pytest.raises(ChancyError, match=r"retry: .*Backoff.*function") as caught:
        task(name="refused", retry=wrong)(lambda: None)
    if wrong == 3:
        assert "max_attempts=" in str(caught.value)


@pytest.mark.parametrize(
    "decide", [lambda attempt, error: 60, lambda *arguments: MINUTE, lambda n, e, base=60: base, max]
)
def test_a_function_of_attempt_and_exception_is_taken(decide):
    def nothing() -> None: ...

    made = task(name=f"taken {id(decide)}", retry=decide)(nothing)
    if decide is not max:  # a function of C says nothing about what it takes
        assert made.retry_delay(1, ValueError(), None) == MINUTE


@pytest.mark.parametrize("returned", ["soon", True, math.nan, object(), Backoff()])
def test_a_retry_function_that_returns_no_delay_is_named(returned):
    def nothing() -> None: ...

    made = task(name=f"named {returned}", retry=lambda attempt, error: returned)(nothing)
    with pytest.raises((TypeError, ValueError), match=f"the retry function of task {made.name[:9]}"):
        made.retry_delay(1, ValueError(), None)


@pytest.mark.parametrize("given", [0, 1, 0.5, True, Fraction(1, 2), Decimal("0.5"), -0.0])
def test_how_far_a_job_is_may_be_said_by_any_number(given):
    said = fraction("fraction", given)
    assert (type(said), said) == (float, float(given))
