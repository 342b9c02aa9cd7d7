"""Perform what is due on real Postgres, in the test's own process and on its own connection.

Claims, fences and verdicts are the worker's statements. What is claimed next is looked up first, by a query that does
not depend on the planner settings of a worker's connection.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar, overload

import psycopg

from chancy.app import Surround
from chancy.batches.statements import finish_batches
from chancy.errors import ChancyError
from chancy.flows.statements import tell, tell_all
from chancy.history.moving import DAYS_AHEAD, make_partitions
from chancy.model import AskStanding, Script, Statement
from chancy.options.plain import number
from chancy.registry import registered
from chancy.run import Postgres, awaited, doing, follow, walk
from chancy.schema import schema_in_use
from chancy.statements import select_outcome
from chancy.states import State
from chancy.wires.connections import AsyncConn, SyncConn
from chancy.wires.literals import of_numbers, of_texts
from chancy.wires.wire import Standing
from chancy_worker.attempts.logs import write_logs
from chancy_worker.attempts.verdict import Claimed, Completion
from chancy_worker.claims.answer import Answer
from chancy_worker.claims.forms import WEIGHED_ROUND
from chancy_worker.claims.settling import settle
from chancy_worker.claims.statement import play_round
from chancy_worker.claims.wanted import Circle, Mark, Wanted
from chancy_worker.life.lease import Offer, register
from chancy_worker.life.rescue import declare_dead, take_back

from . import faults
from .attempts import WORKER, Call, Performed, perform_here, perform_here_async, unread
from .beside import become_other, finish_all_batches, refuse_troubles

T = TypeVar("T")

Steps: TypeAlias = Generator["Statement[Any] | Script | AskStanding | Call", Any, T]

LEASE_SECONDS = 86_400
ENOUGH = 10_000
"""After so many attempts a drain without a limit is taken for one that never ends."""

NEXT_JOB = """
    SELECT ARRAY(
            SELECT DISTINCT queue FROM {schema}.job
            WHERE state = 'ready' AND parked IS NOT NULL AND task = ANY (%(tasks)s::text[])
        ), next.queue, next.priority, next.run_at, next.id, next.run_at <= {schema}.clock(), next.parked IS NOT NULL,
        CASE WHEN next.crashes > 0 THEN next.claims END
    FROM (SELECT) AS always
    LEFT JOIN LATERAL (
        SELECT queue, priority, run_at, id, parked, crashes, claims FROM {schema}.job
        WHERE state = 'ready' AND task = ANY (%(tasks)s::text[]) AND id <> ALL (%(passed)s::bigint[])
            AND CASE WHEN run_at <= {schema}.clock() THEN parked IS NULL
                ELSE %(scheduled)s::boolean AND run_at < '9999-12-31 00:00:00+00' END -- some wait for a signal alone
        ORDER BY greatest(run_at, {schema}.clock()), priority DESC, run_at, id
        LIMIT 1
    ) AS next ON true
"""
# Its sleeps are over, too, and its waits that have an end.
MAKE_DUE = """
    WITH over AS (
        UPDATE {schema}.step SET until = {schema}.clock() WHERE job = %(id)s::bigint AND until > {schema}.clock()
    )
    UPDATE {schema}.job SET run_at = {schema}.clock() WHERE id = %(id)s::bigint AND state = 'ready' RETURNING run_at
"""


class _Next(NamedTuple):
    queue: str
    priority: int
    run_at: datetime
    id: int
    due: bool
    parked: bool
    suspect: int | None
    """Its last fence, if it is one."""

    @property
    def lane(self) -> dict[tuple[str, int], Mark]:
        """From just before it: whatever the plan, it is the first of its lane."""
        return {(self.queue, self.priority): (self.run_at, self.id - 1)}


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """What a function raised, in which attempt of which job."""

    job: int
    task: str
    attempt: int
    error: BaseException


@dataclass(slots=True)
class Drained:
    """How the attempts of a drain ended: each attempt counts once."""

    succeeded: int = 0
    failed: int = 0
    """Jobs that have failed for good."""
    retried: int = 0
    snoozed: int = 0
    discarded: int = 0
    cancelled: int = 0
    blocked: int = 0
    """Attempts that have returned what another job will come to."""
    died: int = 0
    """Attempts whose worker died, by `chancy_faults`."""
    late: int = 0
    """Verdicts that came after another claim had the job, by `chancy_faults`."""
    errors: list[AttemptFailed] = field(default_factory=list)
    """In the order of the attempts; those that were retried, too."""

    @property
    def attempts(self) -> int:
        """How many there were."""
        return (
            self.succeeded + self.failed + self.retried + self.snoozed
            + self.discarded + self.cancelled + self.blocked + self.died + self.late
        )  # fmt: skip


class Drain(Protocol):
    """The type of `drain`, and so of the fixture `chancy_drain`."""

    @overload
    def __call__(
        self,
        conn: SyncConn,
        /,
        *,
        with_scheduled: bool = False,
        limit: int | None = None,
        surround: Surround | None = None,
        schema: str | None = None,
    ) -> Drained: ...
    @overload
    def __call__(
        self,
        conn: AsyncConn,
        /,
        *,
        with_scheduled: bool = False,
        limit: int | None = None,
        surround: Surround | None = None,
        schema: str | None = None,
    ) -> Coroutine[Any, Any, Drained]: ...


@overload
def drain(
    conn: SyncConn,
    /,
    *,
    with_scheduled: bool = False,
    limit: int | None = None,
    surround: Surround | None = None,
    schema: str | None = None,
) -> Drained: ...
@overload
def drain(
    conn: AsyncConn,
    /,
    *,
    with_scheduled: bool = False,
    limit: int | None = None,
    surround: Surround | None = None,
    schema: str | None = None,
) -> Coroutine[Any, Any, Drained]: ...
def drain(
    conn: SyncConn | AsyncConn,
    /,
    *,
    with_scheduled: bool = False,
    limit: int | None = None,
    surround: Surround | None = None,
    schema: str | None = None,
) -> Drained | Coroutine[Any, Any, Drained]:
    """Claim and perform the jobs of all queues, one after another, until nothing is due.

    In a transaction that is open on `conn` everything happens inside it and nothing is committed, so what the test has
    submitted and not committed is performed, too; each attempt has a savepoint, to which an error of the database goes
    back. On an idle connection of psycopg's, and on any in autocommit, each step is committed, as a worker would; a
    session of SQLAlchemy is always in a transaction, which is yours to commit.

    `with_scheduled` takes each scheduled job as if its time had come, in that order: retries without their wait, and
    what sleeps in a step; but for a job that waits for a signal without an end.
    `limit` is the number of attempts after which to stop. `surround` is around each function, as that of an app is.
    Jobs whose task this process does not know are left alone, and so is what a connection of somebody else has locked.
    Errors of handlers are in what this returns.

    Groups take turns, and what a limit over all workers holds back is left: a rate that is used up opens with time, so
    move the clock and drain again.
    """
    where = schema_in_use(schema)
    steps = _drain(conn, where, with_scheduled, None if limit is None else number("limit", limit, 0), surround)
    server = Postgres()
    if awaited(conn):
        do_async = doing(conn, where, server, server.send_async)
        return follow(steps, lambda step: perform_here_async(step) if isinstance(step, Call) else do_async(step))
    do = doing(conn, where, server, server.send)
    return walk(steps, lambda step: perform_here(step) if isinstance(step, Call) else do(step))


def _drain(
    conn: SyncConn | AsyncConn, schema: str, with_scheduled: bool, limit: int | None, surround: Surround | None
) -> Steps[Drained]:
    standing: Standing = yield AskStanding()
    # Of another stack it is the stack that has to commit, and not a text that it knows nothing of.
    commits = standing is Standing.FRESH and isinstance(conn, (psycopg.Connection, psycopg.AsyncConnection))
    inside = standing is not Standing.AUTOCOMMIT and not commits
    drained, late, passed, spots = Drained(), dict[int, Completion](), list[int](), dict[str, str]()
    yield make_partitions(DAYS_AHEAD)
    worker = yield register(WORKER, LEASE_SECONDS, Offer(tasks=list(registered())))
    yield from _commit(commits)
    while limit is None or drained.attempts < limit:
        if limit is None and drained.attempts >= ENOUGH:
            raise ChancyError(
                f"still not empty after {ENOUGH:,} attempts: a job submits or snoozes for ever? {drained}"
            )
        parked, found = yield _next_job(passed, with_scheduled)
        claimed = yield from _admit(worker, parked, found, spots)
        if not claimed:
            if found is None:
                if (yield from tell_all()) + (yield from finish_all_batches()):
                    continue
                break
            if not found.due:
                found = found._replace(run_at=(yield _make_due(found.id)))
            if found.parked:
                continue
            suspects = [] if found.suspect is None else [(found.id, found.suspect)]
            wanted = Wanted({found.queue: 1}, found.lane, suspects=suspects)
            claimed = (yield play_round(worker, [], wanted, text=WEIGHED_ROUND)).claimed
            if [job.id for job in claimed] != [found.id]:
                passed.append(found.id)  # somebody else has locked it
        yield from _commit(commits)
        for job in map(unread, claimed):
            if job.id in late:
                yield from _write_late(worker, late.pop(job.id), drained)
            performed: Performed = yield from _attempt(job, schema, inside, surround)
            if performed.logged:
                yield write_logs(performed.logged)
            if performed.error is not None:
                drained.errors.append(AttemptFailed(job.id, job.task, job.attempt, performed.error))
            if (fault := faults.next_of_attempts(job.task)) is None:
                yield from _write(worker, job, performed.verdict, drained)
                if job.batch is not None:
                    refuse_troubles((yield finish_batches([job.batch])))
            else:
                yield declare_dead(worker=worker)
                yield take_back(tallies=False)
                worker = yield register(WORKER, LEASE_SECONDS, Offer(tasks=list(registered())))
                if fault is faults.OfAttempt.LATE:
                    late[job.id] = performed.verdict
                else:
                    drained.died += 1
            yield from _commit(commits)
    for verdict in late.values():
        yield from _write_late(worker, verdict, drained)
    yield declare_dead(worker=worker)
    yield from _commit(commits)
    return drained


def _admit(worker: int, queues: Sequence[str], found: _Next | None, spots: dict[str, str]) -> Steps[list[Claimed]]:
    """Claim one parked job of these queues that may run now, in turn, or what was found if that comes before it."""
    for queue in queues:
        here = found if found is not None and found.due and found.queue == queue else None
        circle = Circle(goes_round=True, after=spots.get(queue, ""), suspects=2)
        wanted = Wanted(
            {queue: 1},
            {} if here is None else here.lane,
            suspects=[] if here is None or here.suspect is None else [(here.id, here.suspect)],
            gated={queue: circle},
        )
        answer: Answer = yield play_round(worker, [], wanted, text=WEIGHED_ROUND)
        spots[queue] = answer.admissions[0].stopped_at or ""
        if answer.claimed:
            return answer.claimed
    return []


def _commit(commits: bool) -> Steps[None]:
    if commits:
        yield Script("COMMIT")


def _attempt(job: Claimed, schema: str, inside: bool, surround: Surround | None) -> Steps[Performed]:
    """Perform it; the connection is as usable afterwards as it was before."""
    if inside:
        yield Script("SAVEPOINT chancy_attempt")
    performed: Performed = yield Call(job, registered()[job.task], schema, lambda *_: None, lambda _: None, surround)
    match (yield AskStanding()):
        case Standing.FAILED if inside:
            yield Script("ROLLBACK TO SAVEPOINT chancy_attempt")
        case Standing.FAILED:
            yield Script("ROLLBACK")
        case Standing.WITHIN if inside:
            yield Script("RELEASE SAVEPOINT chancy_attempt")
    return performed


def _write(worker: int, job: Claimed, verdict: Completion, drained: Drained) -> Steps[None]:
    """Write the verdict, and count what became of it."""
    if verdict.flow is not None:
        verdict = yield from become_other(job, verdict)
    answer: Answer = yield play_round(worker, [verdict] if verdict.flow is None else [], Wanted())
    yield from tell(answer.needed)
    if verdict.flow is not None:
        drained.blocked += 1
        return
    key = job.id, job.fence
    fate = "done" if answer.settled else (yield settle(worker, [verdict], {key: job}))[key]
    if fate == "lost":
        drained.late += 1
    elif fate == "completed" or verdict.state is State.SUCCEEDED:
        drained.succeeded += 1
    elif verdict.state is not State.READY:
        setattr(drained, verdict.state.value, getattr(drained, verdict.state.value) + 1)
    elif (yield select_outcome(verdict.id)).state in (State.CANCELLED, None):  # None where its queue keeps no row
        drained.cancelled += 1
    elif verdict.refund:
        drained.snoozed += 1
    else:
        drained.retried += 1


def _write_late(worker: int, verdict: Completion, drained: Drained) -> Steps[None]:
    answer: Answer = yield play_round(worker, [verdict], Wanted())
    assert not answer.settled, f"job {verdict.id}: a verdict under an old fence was written"
    drained.late += 1


def _next_job(passed: list[int], with_scheduled: bool) -> Statement[tuple[list[str], _Next | None]]:
    """The queues in which jobs are parked, and the job to claim next."""
    params = {"tasks": of_texts(registered()), "passed": of_numbers(passed), "scheduled": with_scheduled}
    return Statement(
        NEXT_JOB, params, lambda rows: (rows[0][0], _Next(*rows[0][1:]) if rows[0][1] is not None else None)
    )


def _make_due(job_id: int) -> Statement[datetime]:
    return Statement(MAKE_DUE, {"id": job_id}, lambda rows: rows[0][0] if rows else datetime.max.replace(tzinfo=UTC))
