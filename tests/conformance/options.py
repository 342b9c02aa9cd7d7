"""Options are what they are, and fit into a row."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest

import chancy
import chancy_ops
from chancy import InvalidArguments, InvalidOption, Job, Unique, submit_many
from conformance.cases import case
from conformance.grounds import Ground, Steps
from conformance.tasks import Stream, note, snooze


@case
def options_that_cannot_go_into_a_row_are_refused(g: Ground) -> Steps:
    naive = datetime(2030, 1, 1)  # noqa: DTZ001
    for options, message in (
        ({"priority": 101}, "priority"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"run_at": naive}, "time zone"),
        ({"run_at": datetime.now(UTC), "delay": timedelta(1)}, "either"),
        ({"queue": ""}, "queue"),
        ({"speed": 3}, "is no option"),
    ):
        with pytest.raises(InvalidArguments, match=message):
            yield note.using(**options).submit(g.conn, 1)
    assert (yield chancy.jobs(g.conn)) == []


@case
def an_option_is_what_it_is_and_not_what_its_class_says_of_it(g: Ground) -> Steps:
    mail = note.using(queue=Stream.MAIL)
    one = yield mail.submit(g.conn, 1)
    two, three = yield submit_many(g.conn, [mail.bind(2), mail.using(unique=Unique()).bind(3)])
    for job in (one, two, three):
        assert (yield job.refresh(g.conn)).queue == "mail"
    assert len((yield chancy.jobs(g.conn, queue=Stream.MAIL))) == 3
    assert len((yield chancy.jobs(g.conn, queue="mail"))) == 3


@case
def a_delay_is_a_timedelta_or_seconds(g: Ground) -> Steps:
    for delay in (3600, 3600.0, timedelta(hours=1)):
        job = yield snooze.using(delay=delay).submit(g.conn, 0)
        row = yield job.refresh(g.conn)
        assert abs(row.run_at - row.submitted_at - timedelta(hours=1)) < timedelta(seconds=5)


@case
def an_option_of_a_verb_that_does_not_fit_is_refused_by_its_name(g: Ground) -> Steps:
    for option, verb in (
        ("job_id", lambda: chancy.get(g.conn, True)),
        ("job_id", lambda: chancy.cancel(g.conn, 2**63)),
        ("job_id", lambda: chancy_ops.delete(g.conn, -1)),
        ("attempts", lambda: chancy.requeue(g.conn, 1, attempts=2.5)),  # type: ignore[call-overload]
        ("limit", lambda: chancy.jobs(g.conn, limit=2**31)),
        ("before", lambda: chancy.jobs(g.conn, before="1")),  # type: ignore[call-overload]
        ("batch", lambda: chancy.jobs(g.conn, batch=0)),
        ("task", lambda: chancy.jobs(g.conn, task=5)),  # type: ignore[call-overload]
        ("queue", lambda: chancy.jobs(g.conn, queue="a\0")),
        ("state", lambda: chancy.jobs(g.conn, state="done")),  # type: ignore[call-overload]
        ("priority", lambda: chancy_ops.edit(g.conn, 1, priority=5.6)),  # type: ignore[call-overload]
        ("run_at", lambda: chancy_ops.edit(g.conn, 1, run_at=datetime.max.replace(tzinfo=UTC))),
        ("batch", lambda: chancy_ops.cancel_many(g.conn, chancy_ops.JobFilter(queue="q"), batch=-1)),
        ("jobs", lambda: submit_many(g.conn, [note])),
        ("jobs", lambda: submit_many(g.conn, note.bind(1))),
        ("batch_id", lambda: chancy.batch_progress(g.conn, 0)),
        ("name", lambda: chancy.run_now(g.conn, "\ud800")),
        ("timeout", lambda: Job(1, "t", "q", chancy.schema_in_use()).result(g.conn, timeout=math.nan)),
    ):
        with pytest.raises(InvalidOption) as caught:
            yield verb()
        assert caught.value.option == option
    assert (yield chancy.jobs(g.conn)) == []
