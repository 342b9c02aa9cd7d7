"""Limits of one attempt."""

from __future__ import annotations

import time

from chancy import Limit, State
from conformance.attempts import attempts_of
from conformance.cases import case, seen
from conformance.grounds import Ground, Steps
from conformance.tasks import slow, slow_sync, unlimited


@case
def a_coroutine_is_stopped_at_its_time_limit(g: Ground) -> Steps:
    began = time.monotonic()
    row = yield from attempts_of(g, slow, 30.0)
    assert time.monotonic() - began < 15
    assert (row.state, row.errors[-1].kind, seen) == (State.FAILED, "TimeLimitExceeded", ["stopped"])
    assert "its time limit is 0.05 s" in row.errors[-1].message


@case
def a_coroutine_within_its_time_limit_is_left_alone(g: Ground) -> Steps:
    row = yield from attempts_of(g, slow, 0.0)
    assert (row.state, seen) == (State.SUCCEEDED, [])


@case
def one_submit_may_have_limits_of_its_own(g: Ground) -> Steps:
    row = yield from attempts_of(g, unlimited.using(limits=[Limit.time(0.05)]), 30.0)
    assert row.errors[-1].kind == "TimeLimitExceeded"
    row = yield from attempts_of(g, slow.using(limits=[]), 0.1)
    assert row.state is State.SUCCEEDED


@case
def a_plain_function_that_takes_longer_than_its_time_limit_has_failed(g: Ground) -> Steps:
    row = yield from attempts_of(g, slow_sync, 0.1)
    assert (row.state, row.errors[-1].kind) == (State.FAILED, "TimeLimitExceeded")
    row = yield from attempts_of(g, slow_sync.using(limits=[Limit.time(60)]), 0.0)
    assert row.state is State.SUCCEEDED
