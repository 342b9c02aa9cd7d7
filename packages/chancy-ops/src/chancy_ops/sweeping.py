"""A person's act on many jobs: counted first, the window closed at the count, then done in small batches that every
process can see, and stop.

Each batch is a transaction of its own, with the row of the audit in it: so what that row says has happened, whatever
becomes of the process. Whoever begins the same again does the rest.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any

from chancy.errors import InvalidOption
from chancy.history.moving import DAYS_AHEAD, make_partitions
from chancy.model import AskStanding, Script, Statement, Steps, attempts_of, names_of
from chancy.options.phrases import one_line
from chancy.options.plain import identity, shown, word
from chancy.states import FINISHED, LIVE, State
from chancy.verb import verb
from chancy.verbs import cancel, requeue
from chancy.wires.wire import Standing

from .auditing import author
from .counting import Count, count_jobs, sum_of
from .jobs import (
    BATCH,
    Swept,
    Told,
    cancel_all,
    delete,
    delete_all,
    go_through,
    listener,
    requeue_all,
    size_of,
    states_to_cancel,
    states_to_delete,
    states_to_requeue,
)
from .matching import JobFilter, filter_of
from .overview import time_of_day

MOST_COUNTED, COUNT_SECONDS = 1_000_000, 3.0
"""Whoever is asked whether he means it is told a number and not a bound, as long as that takes no longer."""


@dataclass(frozen=True, slots=True)
class SweepKind:
    """What is done to jobs: its name, its past, and which jobs are meant by a filter."""

    name: str
    past: str
    fits: frozenset[State]
    """States that allow it."""
    states_of: Callable[[JobFilter, str], frozenset[State]]
    change: Callable[[Sequence[int]], Generator[Any, Any, int]]
    one: Callable[..., Any]
    """The verb that does it to one job."""


KINDS: Mapping[str, SweepKind] = {
    kind.name: kind
    for kind in (
        SweepKind("cancel", "cancelled", LIVE, states_to_cancel, cancel_all, cancel),
        SweepKind("requeue", "requeued", FINISHED, states_to_requeue, requeue_all, requeue),
        SweepKind("delete", "deleted", frozenset(State) - {State.RUNNING}, states_to_delete, delete_all, delete),
    )
}


@dataclass(frozen=True, slots=True)
class Sweep:
    """What is about to be done to how many jobs."""

    kind: SweepKind
    which: JobFilter
    """With an end: what finishes, or is submitted, after the count is not meant."""
    counts: Mapping[State, Count]
    """How many fitted when they were counted, by state; up to a million, or as many as were found in three seconds."""
    attempts: int | None = None
    """So many more for each that is requeued; None leaves it to its task."""

    @property
    def total(self) -> Count:
        """Of all states."""
        return sum_of(*self.counts.values())

    @property
    def what(self) -> dict[str, Any]:
        """The same as plain data, for the audit."""
        said = {field.name: getattr(self.which, field.name) for field in fields(self.which)}
        if self.which.task is not None:
            names = names_of("task", self.which.task)
            said["task"] = names[0] if len(names) == 1 else names
        said["attempts"] = self.attempts
        return {name: value for name, value in said.items() if value is not None}


@verb
def plan_sweep(
    did: str, which: JobFilter, /, *, attempts: int | None = None, schema: str | None = None
) -> Steps[Sweep]:
    """Count the jobs of `which` that `"cancel"`, `"requeue"` or `"delete"` would change, and close the window there.
    Two round trips, and at most three seconds; changes nothing.

    `did` is one of the three, `attempts` how many more each gets that is requeued. Raises `InvalidOption`, as
    `cancel_many`, `requeue_many` and `delete_many` do.
    """
    kind = KINDS[word("did", did, KINDS)]
    states = kind.states_of(filter_of(which), kind.name)
    more = None if attempts is None else attempts_of("attempts", attempts)
    return _plan(kind, which, states, more)


def _plan(kind: SweepKind, which: JobFilter, states: frozenset[State], attempts: int | None) -> Steps[Sweep]:
    now: datetime = yield time_of_day()
    end = now + timedelta(microseconds=1)  # an end is no part of its window, and what finishes now is
    closed = replace(which, until=end if which.until is None else min(end, which.until))
    counts = yield count_jobs(closed, states & kind.fits, MOST_COUNTED, COUNT_SECONDS)
    return Sweep(kind, closed, counts, attempts)


BEGIN = """
    INSERT INTO {schema}.audit (at, who, via, verb, what, fits, changed, skipped, seen_at)
    VALUES ({schema}.clock(), %(who)s::text, %(via)s::text, %(verb)s::text, %(what)s::json, %(fits)s::bigint, 0, 0,
        {schema}.clock())
    RETURNING id
"""
GO_ON = """
    UPDATE {schema}.audit SET changed = %(changed)s::bigint, skipped = %(skipped)s::bigint, seen_at = {schema}.clock()
    WHERE id = %(id)s::bigint
    RETURNING stop_at IS NOT NULL
"""
END = """
    UPDATE {schema}.audit SET done_at = {schema}.clock(), note = %(note)s::text
    WHERE id = %(id)s::bigint AND done_at IS NULL
    RETURNING id
"""
STOP = """
    UPDATE {schema}.audit SET stop_at = coalesce(stop_at, {schema}.clock())
    WHERE id = %(id)s::bigint AND done_at IS NULL AND seen_at IS NOT NULL
    RETURNING id
"""


class _Stopped(Exception):
    """Somebody wants it to stop, and this batch was the last."""


@dataclass(slots=True)
class _Far:
    """How far it is."""

    changed: int = 0
    skipped: int = 0

    def after(self, ids: Sequence[int], done: int) -> _Far:
        """A batch of these of which so many were changed. Of a graph more may change than were meant."""
        return _Far(self.changed + done, self.skipped + len(ids) - min(done, len(ids)))


@verb
def sweep(
    planned: Sweep,
    /,
    *,
    who: str,
    via: str,
    batch: int = BATCH,
    told: Told | None = None,
    begun: Told | None = None,
    schema: str | None = None,
) -> Steps[Swept]:
    """Do what was planned, for `who`, and write down how far it is.

    `begun` is told the id of its row in the audit, `told` after each batch how many jobs have been gone through. On a
    connection in autocommit each batch of at most so many jobs is a transaction, with its part of the audit; between
    two of them it pauses for as long as the last one took. Inside a transaction all of it is the caller's. `stop_sweep`
    ends it after a batch, and so does cancelling it; what is done stays done.
    """
    if not isinstance(planned, Sweep):
        raise InvalidOption("planned", f"expected what plan_sweep(conn, …) gives, got {shown(planned)}")
    by = author(planned.kind.name, planned.what, who, via)
    return _sweep(planned, by, size_of(batch), listener(told) or _nobody, listener(begun, "begun") or _nobody)


def _nobody(number: int) -> None:
    """Is told, and does nothing about it."""


def _sweep(planned: Sweep, by: Mapping[str, Any], batch: int, told: Told, begun: Told) -> Steps[Swept]:
    params = {**by, "fits": int(planned.total)}
    audit_id: int = yield Statement(BEGIN, params, lambda rows: rows[0][0], name="begin_sweep")
    change: Callable[..., Generator[Any, Any, int]] = planned.kind.change
    if planned.attempts is not None:
        change = functools.partial(change, attempts=planned.attempts)
    states, far, stopped = planned.kind.states_of(planned.which, planned.kind.name), _Far(), False
    try:
        begun(audit_id)
        yield make_partitions(DAYS_AHEAD)  # before any transaction, which would keep the lock of a day that is missing
        yield from go_through(planned.which, states, batch, _noted(audit_id, change, far, told))
    except _Stopped:
        stopped = True
    except GeneratorExit:
        raise
    except BaseException as error:
        with contextlib.suppress(Exception):  # the connection may be what went wrong
            yield _end(audit_id, _why(error))
        raise
    yield _end(audit_id, "stopped" if stopped else None)
    return Swept(far.changed, far.skipped, stopped)


def _end(audit_id: int, note: str | None) -> Statement[bool]:
    return Statement(END, {"id": audit_id, "note": note}, bool, name="end_sweep")


def _why(error: BaseException) -> str:
    if isinstance(error, Exception):
        return one_line(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}".replace("\0", ""), 400)
    return "interrupted"  # Ctrl-C, or its process ends


def _noted(
    audit_id: int, change: Callable[[Sequence[int]], Generator[Any, Any, int]], far: _Far, told: Told
) -> Callable[[Sequence[int]], Generator[Any, Any, int]]:
    """The same, each batch with its part of the audit in one transaction."""

    def change_noted(ids: Sequence[int]) -> Steps[int]:
        done, stop = yield from _in_a_transaction(functools.partial(do, ids))
        now = far.after(ids, done)
        far.changed, far.skipped = now.changed, now.skipped
        told(far.changed + far.skipped)
        if stop:
            raise _Stopped
        return int(done)

    def do(ids: Sequence[int]) -> Steps[tuple[int, bool]]:
        done: int = yield from change(ids)
        then = far.after(ids, done)
        params = {"id": audit_id, "changed": then.changed, "skipped": then.skipped}
        return done, (yield Statement(GO_ON, params, lambda rows: bool(rows and rows[0][0]), name="go_on_sweep"))

    return change_noted


def _in_a_transaction(steps: Callable[[], Generator[Any, Any, tuple[int, bool]]]) -> Steps[tuple[int, bool]]:
    """One of its own where the connection has none."""
    if (yield AskStanding()) is not Standing.AUTOCOMMIT:
        return (yield from steps())
    yield Script("BEGIN ISOLATION LEVEL READ COMMITTED")
    try:
        answer = yield from steps()
    except GeneratorExit:
        raise
    except BaseException:
        with contextlib.suppress(Exception):
            yield Script("ROLLBACK")
        raise
    yield Script("COMMIT")
    return answer


@verb
def stop_sweep(audit_id: int, /, *, schema: str | None = None) -> Statement[bool]:
    """Ask whoever performs the sweep with this row in the audit to stop after its next batch. One round trip; from
    whatever process. False where there is none, or it has ended.
    """
    return Statement(STOP, {"id": identity("audit_id", audit_id)}, bool, name="stop_sweep")
