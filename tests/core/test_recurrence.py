"""When schedules tick, on the nights on which clocks are moved too, and which of the ticks that are due get a job."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import msgspec
import pytest

from chancy import Cron, Every, InvalidTask, cron, every, task
from chancy.schedules.recurrence import MOST_AT_ONCE, When, look, ticks

PRAGUE = ZoneInfo("Europe/Prague")


def utc(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def local(when, after, count):
    """The next ticks as a clock on the wall in Prague shows them, and the offset to UTC in hours."""
    found = [tick.astimezone(PRAGUE) for tick in islice(ticks(when, after), count)]
    return [f"{tick:%d %H:%M} {tick.utcoffset() // timedelta(hours=1):+d}" for tick in found]


def prague(expression, **more):
    return cron(expression, timezone="Europe/Prague", **more)


# On 2026-03-29 at 02:00 +1 it is 03:00 +2; on 2026-10-25 at 03:00 +2 it is 02:00 +1.
BEFORE_SPRING, BEFORE_AUTUMN = utc("2026-03-28T12:00"), utc("2026-10-24T12:00")


@pytest.mark.parametrize(
    ("expression", "after", "shown"),
    [
        # A fixed time that does not exist is the first that does, and on the next day it is itself again.
        ("30 2 * * *", BEFORE_SPRING, ["29 03:00 +2", "30 02:30 +2"]),
        ("0 3 * * *", BEFORE_SPRING, ["29 03:00 +2", "30 03:00 +2"]),
        # Two that become the same tick once.
        ("0,30 2 * * *", BEFORE_SPRING, ["29 03:00 +2", "30 02:00 +2"]),
        ("30 2,3 * * *", BEFORE_SPRING, ["29 03:00 +2", "29 03:30 +2", "30 02:30 +2"]),
        ("0 2,3 * * *", BEFORE_SPRING, ["29 03:00 +2", "30 02:00 +2", "30 03:00 +2"]),
        # One that exists twice is the first of the two.
        ("30 2 * * *", BEFORE_AUTUMN, ["25 02:30 +2", "26 02:30 +1"]),
        ("0 3 * * *", BEFORE_AUTUMN, ["25 03:00 +1", "26 03:00 +1"]),
        # A star at the beginning of minute or hour goes by time that passes.
        ("0 * * * *", utc("2026-03-28T23:30"), ["29 01:00 +1", "29 03:00 +2", "29 04:00 +2"]),
        ("0 * * * *", utc("2026-10-24T23:30"), ["25 02:00 +2", "25 02:00 +1", "25 03:00 +1"]),
        ("*/30 2 * * *", BEFORE_SPRING, ["30 02:00 +2", "30 02:30 +2"]),
        ("*/30 2 * * *", BEFORE_AUTUMN, ["25 02:00 +2", "25 02:30 +2", "25 02:00 +1", "25 02:30 +1", "26 02:00 +1"]),
        # And so do seconds.
        ("0 30 2 * * *", BEFORE_SPRING, ["30 02:30 +2"]),
        ("0 30 2 * * *", BEFORE_AUTUMN, ["25 02:30 +2", "25 02:30 +1", "26 02:30 +1"]),
    ],
)  # fmt: skip
def test_on_the_two_nights_when_clocks_are_moved(expression, after, shown):
    assert local(prague(expression), after, len(shown)) == shown


def test_whoever_begins_to_look_in_the_second_of_two_hours_does_not_see_the_first():
    assert local(prague("30 2 * * *"), utc("2026-10-25T01:10"), 1) == ["26 02:30 +1"]
    assert local(prague("30 2 * * *"), utc("2026-10-25T00:29:59"), 1) == ["25 02:30 +2"]


@pytest.mark.parametrize("expression", ["30 2 * * *", "*/7 * * * *", "0,30 1-3 * * *", "*/20 * 2 * * *"])
@pytest.mark.parametrize("night", ["2026-03-28T22:00", "2026-10-24T22:00"])
def test_ticks_are_the_same_from_wherever_one_looks(expression, night):
    when, begin = prague(expression), utc(night)
    known = list(islice(ticks(when, begin), 400))
    assert all(early < late for early, late in pairwise(known))
    for minutes in range(0, 600, 7):
        after = begin + timedelta(minutes=minutes, microseconds=1)
        assert next(ticks(when, after)) == next(tick for tick in known if tick > after)


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("0 12 29 2 *", "2026-01-01", ["2028-02-29T12:00", "2032-02-29T12:00"]),
        ("0 12 29 2 *", "2099-01-01", ["2104-02-29T12:00"]),
        ("0 0 31 * *", "2026-01-31", ["2026-03-31", "2026-05-31", "2026-07-31"]),
        ("0 0 L * *", "2026-01-31", ["2026-02-28", "2026-03-31", "2026-04-30"]),
        ("0 0 L 2 *", "2026-03-01", ["2027-02-28", "2028-02-29"]),
        ("0 9 * * 1-5", "2026-11-27T09:00", ["2026-11-30T09:00", "2026-12-01T09:00"]),
        ("59 23 31 12 *", "2026-06-01", ["2026-12-31T23:59", "2027-12-31T23:59"]),
        ("0 0 1 1 *", "2026-12-31T23:59:59.999999", ["2027-01-01"]),
    ],
)
def test_leap_days_and_the_ends_of_months_and_years(expression, after, expected):
    assert list(islice(ticks(cron(expression), utc(after)), len(expected))) == [utc(at) for at in expected]


def test_an_interval_ticks_at_its_multiples_since_1970_whoever_counts():
    assert list(islice(ticks(every(minutes=5), utc("2026-01-01T00:00:00.5")), 2)) == [
        utc("2026-01-01T00:05"),
        utc("2026-01-01T00:10"),
    ]
    assert next(ticks(every(seconds=1), utc("2026-01-01T00:00"))) == utc("2026-01-01T00:00:01")
    assert next(ticks(every(days=7), utc("2026-11-25T00:00"))).strftime("%A") == "Thursday"
    assert every(hours=1, minutes=30) == every(timedelta(minutes=90))
    assert next(ticks(every(seconds=1.5), utc("1970-01-01T00:00:01.5"))) == utc("1970-01-01T00:00:03")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: cron("0 9 * *"), "cron expression '0 9 [*] [*]': wrong number of fields; it has five fields"),
        (lambda: cron("61 * * * *"), "bad minute"),
        (lambda: cron("@daily"), "wrong number of fields"),
        (lambda: cron("0 0 30 2 *"), "bad day-of-month"),
        (lambda: cron("* * * * *", timezone="Europe/Prag"), "no time zone 'Europe/Prag' here.*tzdata"),
        (lambda: cron("* * * * *", timezone="../etc"), "no time zone"),
        (lambda: cron("* * * * *", timezone="Europe"), "no time zone"),
        (lambda: cron("* * * * *", timezone=None), "timezone: expected a text, got None"),
        (lambda: cron("* * * * *", missed="some"), "missed: expected \"skip\", \"one\" or \"all\""),
        (lambda: cron("* * * * *", overlap="yes"), "overlap: expected \"skip\" or \"allow\""),
        (lambda: cron("* * * * *", missed="all", overlap="skip"), 'give overlap="allow"'),
        (lambda: every(), r"interval: it says nothing that lasts: .*every\(minutes=5\)"),
        (lambda: every(seconds=0.5), "interval: expected 1 s"),
        (lambda: every(days=-1), "interval: expected 1 s"),
        (lambda: every(days=400), "interval: expected 1 s"),
        (lambda: every(timedelta(1), hours=1), "give either"),
        (lambda: every("60"), "interval: expected seconds or a timedelta"),
        (lambda: every(minutes="5"), "minutes: expected a finite number"),
        (lambda: every(days=float("inf")), "days: expected a finite number"),
        (lambda: every(days=1e300), "interval: expected 1 s"),
    ],
)  # fmt: skip
def test_what_is_no_recurrence_is_refused_when_it_is_made(make, reason):
    with pytest.raises(ValueError, match=reason):
        make()


WITHOUT_CRONSIM = """
import sys
sys.modules["cronsim"] = None  # as if it were not installed
import chancy
from chancy.schedules.recurrence import ticks
from datetime import UTC, datetime

now = datetime(2026, 1, 1, tzinfo=UTC)

@chancy.task(schedule=chancy.cron("0 9 * * 1-5", timezone="Europe/Prague"))
def report() -> None: ...

chancy.cron("61 * * * *")  # nobody here can know
print(next(ticks(chancy.every(hours=1), now)))
for broken in (lambda: chancy.cron("* * * * *", timezone="Europe/Prag"), lambda: next(ticks(chancy.cron("* * * * *"), now))):
    try:
        broken()
    except (ValueError, ImportError) as error:
        print(type(error).__name__, error)
"""


def test_whoever_only_submits_needs_nothing_that_reads_cron_expressions():
    said = subprocess.run([sys.executable, "-c", WITHOUT_CRONSIM], check=True, capture_output=True, text=True).stdout
    hour, zone, expression = said.splitlines()
    assert hour == "2026-01-01 01:00:00+00:00"
    assert zone.startswith("InvalidOption timezone: there is no time zone 'Europe/Prag' here")
    assert expression.startswith("ImportError")
    assert "install it, or chancy-worker, which brings it" in expression


def test_all_missed_ones_may_overlap_unless_told():
    assert every(days=1, missed="all").overlap == "allow"
    assert every(days=1).overlap == "skip"


def test_they_are_plain_data():
    for when in (prague("0 9 * * *", missed="all"), every(minutes=5, overlap="allow")):
        assert msgspec.json.decode(msgspec.json.encode(when), type=When) == when
        assert hash(when) == hash(msgspec.structs.replace(when))
    assert msgspec.json.decode(msgspec.json.encode(Cron("* * * * *", "Nowhere/Gone")), type=Cron | Every).timezone


NINE = utc("2026-11-25T09:00")


def seconds(*numbers):
    return tuple(NINE + timedelta(seconds=number) for number in numbers)


@pytest.mark.parametrize(
    ("missed", "overlap", "at", "run", "dropped"),
    [
        ("one", "allow", 0, [0], None),
        ("one", "allow", 5.5, [0, 5], None),
        ("one", "skip", 5.5, [5], (0, 5)),
        ("one", "allow", 15, [0, 5, 10, 15], None),
        ("one", "allow", 17, [5, 10, 15], (0, 5)),
        ("one", "skip", 3600, [3600], (0, 3600)),
        ("skip", "skip", 3601, [3600], (0, 3600)),
        ("skip", "allow", 3601, [3590, 3595, 3600], (0, 3590)),
        ("all", "allow", 17, [0, 5, 10, 15], None),
    ],
)  # fmt: skip
def test_ticks_that_are_on_time_run_and_older_ones_go_by_the_policy(missed, overlap, at, run, dropped):
    found = look(every(seconds=5, missed=missed, overlap=overlap), NINE, *seconds(at))
    assert found.run == seconds(*run)
    assert found.dropped == (None if dropped is None else seconds(*dropped))
    assert found.next_at == found.run[-1] + timedelta(seconds=5)


@pytest.mark.parametrize(
    ("missed", "days", "dropped"), [("skip", [], True), ("one", [9], True), ("all", range(10), False)]
)
def test_of_ten_missed_days_none_or_the_latest_or_each_runs(missed, days, dropped):
    when = every(days=1, missed=missed)
    first = utc("2026-11-01")
    found = look(when, first, first + timedelta(days=9, hours=12))
    assert found.run == tuple(first + timedelta(days=day) for day in days)
    assert found.next_at == first + timedelta(days=10)
    assert bool(found.dropped) is dropped


def test_the_latest_of_a_year_of_missed_seconds_is_found_at_once():
    for when in (cron("* * * * * *"), every(seconds=1), cron("* * * 1 1 *")):
        began = time.thread_time()  # and not by the clock: a busy machine lets this thread wait
        found = look(when, utc("2026-01-01"), utc("2026-12-31T23:59:45") + timedelta(seconds=30.5))
        assert found.next_at == utc("2027-01-01T00:00:16")
        assert time.thread_time() - began < 1
    found = look(cron("* * * 1 1 *"), utc("2026-01-01"), utc("2026-12-31"))
    assert found.run == (utc("2026-01-01T23:59:59"),)


def test_all_missed_ticks_are_taken_a_thousand_at_a_look():
    found = look(every(seconds=1, missed="all"), NINE, *seconds(2500))
    assert len(found.run) == MOST_AT_ONCE == 1000
    assert found.next_at == NINE + timedelta(seconds=1000)


def test_an_instant_that_somebody_asked_for_is_run_like_a_tick():
    found = look(every(minutes=5), *seconds(7.25, 8))
    assert (found.run, found.next_at, found.dropped) == (seconds(7.25), NINE + timedelta(minutes=5), None)


def test_a_task_with_a_schedule_needs_a_default_for_every_argument():
    with pytest.raises(InvalidTask, match="argument 'tenant' is missing, and a schedule gives none"):

        @task(schedule=every(minutes=5))
        def report(tenant: str, full: bool = False) -> None: ...

    with pytest.raises(InvalidTask, match="expected cron"):

        @task(schedule="0 9 * * *")
        def daily() -> None: ...

    with pytest.raises(InvalidTask, match="there is no time zone"):

        @task(schedule=Cron("0 9 * * *", "Nowhere"))
        def nowhere() -> None: ...
