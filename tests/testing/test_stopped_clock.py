"""Under a clock that a library has stopped, which replaces `datetime` in every module that has imported it."""

from __future__ import annotations

import datetime as dt
import sys
from datetime import UTC, timedelta

import pytest

import chancy
import chancy_ops
from chancy import JobFailed, State, task
from chancy_testing import drain, eager

NOW = dt.datetime(2031, 5, 5, 12, tzinfo=UTC)


class _Kind(type):
    def __instancecheck__(cls, value):
        return isinstance(value, dt.datetime)


class Stopped(dt.datetime, metaclass=_Kind):
    """As freezegun's FakeDatetime: each of its makers gives one of its own."""

    @classmethod
    def now(cls, tz=None):
        return cls._of(NOW.astimezone(tz) if tz else NOW.replace(tzinfo=None))

    @classmethod
    def fromtimestamp(cls, at, tz=None):
        return cls._of(dt.datetime.fromtimestamp(at, tz))

    @classmethod
    def _of(cls, at):
        return cls(at.year, at.month, at.day, at.hour, at.minute, at.second, at.microsecond, at.tzinfo)

    def __add__(self, other):
        return self._of(super().__add__(other))

    def astimezone(self, tz=None):
        return self._of(super().astimezone(tz))


@pytest.fixture
def stopped(monkeypatch):
    for name, module in list(sys.modules.items()):
        if (
            name.split(".")[0] in ("chancy", "chancy_worker", "chancy_ops", "chancy_testing", "psycopg")
            and module is not None
        ):
            for attribute, value in list(vars(module).items()):
                if value is dt.datetime:
                    monkeypatch.setattr(module, attribute, Stopped)
    assert chancy.options.plain.datetime is Stopped
    return Stopped.now(UTC)


@task
def remind(at: dt.datetime, day: dt.date) -> dt.datetime:
    return at


@task(max_attempts=1)
def fails() -> None:
    raise LookupError("mine")


@task(max_attempts=2, retry=chancy.Backoff(base=0))
def gives(now: dt.datetime) -> dt.datetime:
    return Stopped.now(UTC)


@pytest.fixture
def conn(chancy_conn):
    return chancy_conn


def test_a_stopped_now_is_an_argument_a_result_and_an_option(stopped, conn):
    job = remind.using(run_at=stopped).submit(conn, stopped, NOW.date())
    row = job.refresh(conn)
    assert row.arguments == b'{"at":"2031-05-05T12:00:00Z","day":"2031-05-05"}'
    assert row.run_at == NOW
    chancy_ops.pause(conn, "q", until=stopped)
    assert chancy_ops.count(conn, chancy_ops.JobFilter(since=stopped - timedelta(days=36_500))) == {State.SCHEDULED: 1}
    with eager() as backend:
        assert gives.submit(backend.conn, stopped).result(backend.conn) == NOW
    once = remind.using(unique=chancy.Unique())
    assert once.submit(conn, stopped, NOW.date()).id == once.submit(conn, NOW, NOW.date()).id


def test_a_job_that_fails_in_eager_mode_fails_with_its_own_error(stopped):
    with eager(raise_errors=False) as backend:
        job = fails.submit(backend.conn)
        with pytest.raises(JobFailed, match="LookupError: mine"):
            job.result(backend.conn)
    with eager() as backend, pytest.raises(LookupError, match="mine"):
        fails.submit(backend.conn)


def test_a_job_that_fails_in_a_drain_fails_with_its_own_error(stopped, conn):
    job = fails.submit(conn)
    (failed,) = drain(conn).errors
    assert str(failed.error) == "mine"
    row = job.refresh(conn)
    assert (row.state, row.errors[0].kind) == (State.FAILED, "LookupError")
    assert isinstance(row.errors[0].started_at, dt.datetime)
