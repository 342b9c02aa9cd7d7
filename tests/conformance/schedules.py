"""Schedules."""

from __future__ import annotations

import pytest

import chancy
import chancy_ops
from chancy import SchedulePaused, UnknownSchedule, cron, every
from chancy.model import WITHOUT_END
from conformance.cases import case
from conformance.gates import shared
from conformance.grounds import Ground, Steps
from conformance.tasks import note


@case
def a_schedule_can_be_made_replaced_listed_and_forgotten(g: Ground) -> Steps:
    when = cron("0 9 * * *", timezone="UTC", missed="all")
    yield chancy.schedule(g.conn, "b", note.bind(1), every(days=1))
    yield chancy.schedule(g.conn, "a", note.bind(1), every(days=1))
    yield chancy.schedule(g.conn, "b", shared.bind("x"), when)
    first, second = yield chancy.schedules(g.conn)
    assert (first.name, first.task, first.when, first.declared) == ("a", note.name, every(days=1), False)
    assert (second.name, second.task, second.when, second.next_at) == ("b", shared.name, when, None)
    assert second.arguments == shared.bind("x").arguments
    (tick,) = second.upcoming(1)
    assert (tick.hour, tick.minute, tick > second.read_at) == (9, 0, True)
    assert (yield chancy.unschedule(g.conn, "b")) is True
    assert (yield chancy.unschedule(g.conn, "b")) is False
    assert [row.name for row in (yield chancy.schedules(g.conn))] == ["a"]
    assert (yield chancy.jobs(g.conn)) == []


@case
def a_schedule_can_be_told_to_run_now_unless_it_is_paused(g: Ground) -> Steps:
    with pytest.raises(UnknownSchedule):
        yield chancy.run_now(g.conn, "a")
    yield chancy.schedule(g.conn, "a", note.bind(1), every(days=1))
    yield chancy_ops.pause(g.conn, schedule="a")
    with pytest.raises(SchedulePaused):
        yield chancy.run_now(g.conn, "a")
    (row,) = yield chancy.schedules(g.conn)
    assert (row.paused_until, row.upcoming(3)) == (WITHOUT_END, [])
    assert (yield chancy_ops.resume(g.conn, schedule="a"))
    yield chancy.run_now(g.conn, "a")
    (row,) = yield chancy.schedules(g.conn)
    assert (row.paused_until, row.next_at <= row.read_at) == (None, True)
