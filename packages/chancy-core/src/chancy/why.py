"""Why a job does not run: one reason, in one sentence for the person on call.

Where several hold, the one is told that a person has to do something about: a pause, a missing worker or unknown code
before a limit, which opens by itself.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, overload

import msgspec

from .errors import UnknownJob
from .gates import SEPARATOR, Gate, Passes
from .model import JobRow, Rows, Statement, Steps
from .phrases import counted, jobs_named, moment, one_line, span
from .run import AsyncConn, SyncConn, perform
from .schema import schema_in_use
from .statements import select_job
from .states import FINISHED, State

_TRIES = 5
_MOST_JOBS = 10_000
_MOST_GROUPS = 1_000
_AT_ONCE = timedelta(seconds=1)
"""What a worker with room needs at most, where it hears of the job."""
_SUSPICIOUS = timedelta(seconds=10)
"""Twice what a worker with room needs at most, where it does not."""


class Reason(StrEnum):
    """Why a job does not run; or that it does, or has."""

    SCHEDULED = "scheduled"
    RETRY = "retry"
    QUEUE_PAUSED = "queue_paused"
    TASK_PAUSED = "task_paused"
    NO_WORKER = "no_worker"
    UNKNOWN_TASK = "unknown_task"
    LIMIT = "limit"
    """Of its task, or of its queue: as many run as may."""
    RATE = "rate"
    TURN = "turn"
    SUSPECT = "suspect"
    BUSY = "busy"
    NEXT = "next"
    """Nothing is in its way."""
    RUNNING = "running"
    WORKER_LOST = "worker_lost"
    """It ran under a worker that is not believed alive any more."""
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Why:
    """Why a job does not run, now. `str()` of it is the sentence."""

    reason: Reason
    sentence: str
    """With the job, the numbers and the remedy. Texts of others are on one line, and cut."""
    until: datetime | None = None
    """UTC: the earliest moment at which this reason may be over, where time alone decides that."""

    def __str__(self) -> str:
        return self.sentence


@overload
def why(conn: SyncConn, job_id: int, /, *, schema: str | None = None) -> Why: ...
@overload
def why(conn: AsyncConn, job_id: int, /, *, schema: str | None = None) -> Coroutine[Any, Any, Why]: ...
def why(conn: SyncConn | AsyncConn, job_id: int, /, *, schema: str | None = None) -> Why | Coroutine[Any, Any, Why]:
    """Why the job does not run, or what it does. Two to five round trips; takes no lock and reads no table through.

    How many come before it is counted up to 10,000 jobs and 1,000 groups. Raises `UnknownJob`.
    """
    where = schema_in_use(schema)
    return perform(conn, _why(job_id, where), where)


def _why(job_id: int, schema: str) -> Steps[Why]:
    job, seen = yield from _look(job_id, schema)
    if job.state in FINISHED:
        return _finished(job, seen)
    if job.state is State.RUNNING:
        return _running(job, seen)
    if (found := _scheduled(job, seen) or _paused(job, seen) or _unmanned(job, seen)) is not None:
        return found
    return (yield from _held_up(job, seen))


def _look(job_id: int, schema: str) -> Steps[tuple[JobRow, _Around]]:
    tries_left = _TRIES
    while True:
        tries_left -= 1
        job: JobRow | None = yield select_job(job_id)
        if job is None:
            raise UnknownJob(job_id, schema)
        seen: _Around = yield _around(job)
        if not tries_left or seen.state == _stored(job.state):  # or it has moved on between the two looks
            return job, seen


def _stored(state: State) -> str | None:
    return None if state in FINISHED else "running" if state is State.RUNNING else "ready"


def _subject(job: JobRow) -> str:
    return f"Job {job.id} ({one_line(job.task)})"


AROUND = """
    WITH live AS MATERIALIZED (
        SELECT offer.worker IS NULL AS silent, offer.queues,
            %(queue)s::text = ANY (offer.queues) AS takes, %(task)s::text = ANY (offer.tasks) AS knows
        FROM {schema}.worker AS worker
        LEFT JOIN {schema}.offer AS offer ON offer.worker = worker.id
        WHERE worker.expires_at > {schema}.clock()
    )
    SELECT {schema}.clock(), job.state::text,
        CASE WHEN job.parked IS NOT NULL THEN convert_to(job.gates::text, 'UTF8') END,
        queue_pause.paused_at, CASE WHEN isfinite(queue_pause.until) THEN queue_pause.until END,
        task_pause.paused_at, CASE WHEN isfinite(task_pause.until) THEN task_pause.until END,
        (SELECT count(*) FROM live), (SELECT count(*) FROM live WHERE silent),
        (SELECT count(*) FROM live WHERE takes), (SELECT count(*) FROM live WHERE takes AND knows),
        ARRAY(SELECT DISTINCT unnest(queues) FROM live ORDER BY 1),
        (SELECT concurrency FROM {schema}.queue_limit WHERE queue = %(queue)s::text),
        coalesce(worker.name, dead.name), worker.expires_at, dead.died_at
    FROM (SELECT) AS always
    LEFT JOIN {schema}.job AS job ON job.id = %(id)s::bigint
    LEFT JOIN {schema}.pause AS queue_pause
        ON queue_pause.kind = 'queue' AND queue_pause.name = %(queue)s::text AND queue_pause.until > {schema}.clock()
    LEFT JOIN {schema}.pause AS task_pause
        ON task_pause.kind = 'task' AND task_pause.name = %(task)s::text AND task_pause.until > {schema}.clock()
    LEFT JOIN {schema}.worker AS worker ON worker.id = %(worker)s::bigint
    LEFT JOIN {schema}.dead_worker AS dead ON dead.id = %(worker)s::bigint
"""


@dataclass(frozen=True, slots=True)
class _Around:
    """What there is around a job: in the order of the columns."""

    now: datetime
    state: str | None
    """Of the row in `job`, if it is there."""
    gates: bytes | None
    """If it is parked."""
    queue_paused_at: datetime | None
    queue_until: datetime | None
    task_paused_at: datetime | None
    task_until: datetime | None
    workers: int
    silent: int
    """Those of a version that does not say what it takes."""
    takers: int
    knowers: int
    """Of the takers."""
    queues: Sequence[str]
    limit: int | None
    worker: str | None
    """That it ran on last, if anything is still known about it."""
    expires_at: datetime | None
    died_at: datetime | None


def _around(job: JobRow) -> Statement[_Around]:
    params = {"id": job.id, "queue": job.queue, "task": job.task, "worker": job.worker}
    return Statement(AROUND, params, lambda rows: _Around(*rows[0]))


def _finished(job: JobRow, seen: _Around) -> Why:
    at = job.finished_at or seen.now
    how = {State.DISCARDED: "was discarded", State.CANCELLED: "was cancelled"}.get(job.state, job.state.value)
    sentence = f"{_subject(job)} {how} at {moment(at)} ({span(seen.now - at)} ago)"
    if job.state is State.SUCCEEDED:
        returned = one_line((job.result or b"null").decode())
        return Why(Reason.FINISHED, f"{sentence} in attempt {_attempt(job)}, and returned {returned}.")
    if job.attempt:
        sentence += f" in attempt {_attempt(job)}"
    if job.errors and job.state is not State.CANCELLED:
        sentence += f" with {_error(job)}"
    return Why(Reason.FINISHED, f"{sentence}; `chancy requeue {job.id}` makes it ready again.")


def _attempt(job: JobRow) -> str:
    return f"{job.attempt} of {job.max_attempts}"


def _error(job: JobRow) -> str:
    last = job.errors[-1]
    return one_line(f"{last.kind}: {last.message}" if last.message else last.kind)


def _running(job: JobRow, seen: _Around) -> Why:
    if seen.expires_at is None or seen.expires_at <= seen.now:
        return _lost(job, seen)
    ran = span(seen.now - (job.started_at or seen.now))
    sentence = f"{_subject(job)} runs on worker {one_line(seen.worker or '')} for {ran}, in attempt {_attempt(job)}"
    if job.progress is not None:
        note = f" ({one_line(job.progress.note)})" if job.progress.note else ""
        sentence += f"; it says that it is {job.progress.fraction:.0%} done{note}"
    if job.cancel_at is not None:
        sentence += f"; it was asked to stop {span(seen.now - job.cancel_at)} ago"
    return Why(Reason.RUNNING, f"{sentence}.")


def _lost(job: JobRow, seen: _Around) -> Why:
    if seen.expires_at is None and seen.died_at is None:
        sentence = (
            f"{_subject(job)} is said to run on worker {job.worker}, of which nothing is known any more, so nobody "
            f"takes it back: `chancy doctor` says what to do."
        )
        return Why(Reason.WORKER_LOST, sentence)
    gone = seen.died_at or seen.expires_at or seen.now
    back = "another one takes it back within seconds" if seen.workers else "start a worker, which takes it back"
    sentence = (
        f"{_subject(job)} ran on worker {one_line(seen.worker or '')}, whose lease ran out {span(seen.now - gone)} "
        f"ago; {back}."
    )
    return Why(Reason.WORKER_LOST, sentence)


def _scheduled(job: JobRow, seen: _Around) -> Why | None:
    if job.run_at <= seen.now:
        return None
    when = f"{moment(job.run_at)} (in {span(job.run_at - seen.now)})"
    if job.errors and job.attempt and job.errors[-1].attempt == job.attempt:
        sentence = f"{_subject(job)} is tried again at {when}: attempt {_attempt(job)} failed with {_error(job)}."
        return Why(Reason.RETRY, sentence, job.run_at)
    return Why(Reason.SCHEDULED, f"{_subject(job)} is scheduled for {when}.", job.run_at)


def _paused(job: JobRow, seen: _Around) -> Why | None:
    queue, task = one_line(job.queue), one_line(job.task)
    for reason, name, remedy, since, until in [
        (Reason.QUEUE_PAUSED, f"queue '{queue}'", queue, seen.queue_paused_at, seen.queue_until),
        (Reason.TASK_PAUSED, f"task {task}", f"--task {task}", seen.task_paused_at, seen.task_until),
    ]:
        if since is not None:
            end = "until somebody resumes it"
            if until is not None:
                end = f"until {moment(until)} (in {span(until - seen.now)})"
            sentence = (
                f"{_subject(job)} waits because {name} was paused at {moment(since)} ({span(seen.now - since)} ago) "
                f"{end}: `chancy resume {remedy}`."
            )
            return Why(reason, sentence, until and until.astimezone(UTC))
    return None


def _unmanned(job: JobRow, seen: _Around) -> Why | None:
    queue = one_line(job.queue)
    silent = f" ({seen.silent:,} of an older version did not say)" if seen.silent else ""
    if not seen.takers:
        taken = ", ".join([f"'{one_line(name)}'" for name in seen.queues[:10]] + ["…"] * (len(seen.queues) > 10))
        there = "no live worker at all"
        if seen.workers:
            there = f"{counted(seen.workers, 'live worker')}{silent}, for {taken or 'no queue'}"
        sentence = f"{_subject(job)} waits because no worker takes queue '{queue}': {there}; start one that takes it."
        return Why(Reason.NO_WORKER, sentence)
    if not seen.knowers:
        sentence = (
            f"{_subject(job)} waits because none of the {counted(seen.takers, 'worker')} of queue '{queue}' knows its "
            f"task{silent}: deploy the code that has it, or name its module where they are started."
        )
        return Why(Reason.UNKNOWN_TASK, sentence)
    return None


def _held_up(job: JobRow, seen: _Around) -> Steps[Why]:
    """Of a due job that somebody would take: what stands before it."""
    same = groups = 0
    passes = None if seen.gates is None else msgspec.json.decode(seen.gates, type=Passes)
    if passes is not None:
        places: list[_Places] = yield _places(passes.gates)
        same, groups = yield _parked_before(job, passes)
        for gate, taken in zip(passes.gates, places, strict=True):
            if taken.count >= gate.most:
                return _at_gate(job, gate, taken, same, seen)
    if seen.limit is not None:
        running: _Places = yield _running_of(job.queue)
        if running.count >= seen.limit:
            return _at_limit(job, seen.limit, running)
    if passes is not None and passes.turn and same + groups:
        return _in_turn(job, passes, same, groups)
    line: _Line = yield _line(job)
    return _in_line(job, seen, line, same)


PLACES = """
    SELECT count(held.job), (array_agg(held.job ORDER BY held.job) FILTER (WHERE held.job IS NOT NULL))[1:3],
        (array_agg(held.opens_at ORDER BY held.opens_at))[greatest(count(held.job) - gate.most, 0) + 1]
    FROM unnest(%(names)s::text[], %(mosts)s::integer[]) WITH ORDINALITY AS gate (name, most, nth)
    LEFT JOIN LATERAL (
        SELECT slot.job, slot.opens_at FROM {schema}.slot AS slot
        WHERE slot.gate = gate.name
            AND CASE WHEN slot.opens_at IS NULL THEN {schema}.is_owned(slot.job, slot.fence)
                ELSE slot.opens_at > {schema}.clock() END
    ) AS held ON true
    GROUP BY gate.nth, gate.most
    ORDER BY gate.nth
"""


@dataclass(frozen=True, slots=True)
class _Places:
    """How many places are taken, the first three jobs that have one, and when one is free by time alone."""

    count: int
    jobs: Sequence[int]
    opens_at: datetime | None = None


def _places(gates: Sequence[Gate]) -> Statement[list[_Places]]:
    params = {"names": [gate.name for gate in gates], "mosts": [gate.most for gate in gates]}
    return Statement(PLACES, params, lambda rows: [_Places(count, jobs or (), at) for count, jobs, at in rows])


PARKED_BEFORE = """
    WITH RECURSIVE higher AS (
        (SELECT priority FROM {schema}.job
         WHERE state = 'ready' AND parked IS NOT NULL AND queue = %(queue)s::text AND priority > %(priority)s::smallint
         ORDER BY priority DESC LIMIT 1)
        UNION ALL
        SELECT below.priority FROM higher CROSS JOIN LATERAL (
            SELECT job.priority FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = %(queue)s::text
                AND job.priority < higher.priority AND job.priority > %(priority)s::smallint
            ORDER BY job.priority DESC LIMIT 1) AS below
    ),
    groups AS (
        (SELECT left(parked, coalesce((gates->>'turn')::integer, length(parked))) AS name,
            gates->>'turn' IS NOT NULL AND run_at <= {schema}.clock() AS waits, 1 AS nth
         FROM {schema}.job
         WHERE state = 'ready' AND parked IS NOT NULL AND queue = %(queue)s::text AND priority = %(priority)s::smallint
            AND %(turn)s::integer > 0
         ORDER BY parked COLLATE "C", run_at, id LIMIT 1)
        UNION ALL
        SELECT left(job.parked, coalesce((job.gates->>'turn')::integer, length(job.parked))),
            job.gates->>'turn' IS NOT NULL AND job.run_at <= {schema}.clock(), groups.nth + 1
        FROM groups CROSS JOIN LATERAL (
            SELECT parked, gates, run_at FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = %(queue)s::text
                AND job.priority = %(priority)s::smallint AND job.parked COLLATE "C" > groups.name || ' '
            ORDER BY job.parked COLLATE "C", job.run_at, job.id LIMIT 1) AS job
        WHERE groups.nth <= %(most_groups)s::integer + 1
    )
    SELECT
        (SELECT count(*) FROM (
            SELECT FROM higher CROSS JOIN LATERAL (
                SELECT FROM {schema}.job AS job
                WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = %(queue)s::text
                    AND job.priority = higher.priority AND job.parked COLLATE "C" = %(key)s::text
                    AND job.run_at <= {schema}.clock()
                LIMIT %(most)s::integer + 1) AS job
            LIMIT %(most)s::integer + 1) AS before)
        + (SELECT count(*) FROM (
            SELECT FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NOT NULL AND job.queue = %(queue)s::text
                AND job.priority = %(priority)s::smallint AND job.parked COLLATE "C" = %(key)s::text
                AND (job.run_at, job.id) < (%(run_at)s::timestamptz, %(id)s::bigint)
            LIMIT %(most)s::integer + 1) AS before),
        (SELECT count(*) FROM groups WHERE waits AND name <> left(%(key)s::text, %(turn)s::integer))
"""


def _parked_before(job: JobRow, passes: Passes) -> Statement[tuple[int, int]]:
    """How many parked jobs that wait for the same come first, and how many other groups take turns with its own."""
    params = _place_of(job) | {"key": passes.key, "turn": passes.turn, "most_groups": _MOST_GROUPS}
    return Statement(PARKED_BEFORE, params, lambda rows: (rows[0][0], rows[0][1]))


def _place_of(job: JobRow) -> dict[str, Any]:
    return {"id": job.id, "queue": job.queue, "priority": job.priority, "run_at": job.run_at, "most": _MOST_JOBS}


RUNNING_OF_QUEUE = """
    SELECT count(*), (array_agg(id ORDER BY id))[1:3] FROM {schema}.job
    WHERE state = 'running' AND worker IS NOT NULL AND queue = %(queue)s::text
"""


def _running_of(queue: str) -> Statement[_Places]:
    return Statement(RUNNING_OF_QUEUE, {"queue": queue}, lambda rows: _Places(rows[0][0], rows[0][1] or ()))


def _at_gate(job: JobRow, gate: Gate, taken: _Places, same: int, seen: _Around) -> Why:
    name, line = one_line(gate.name), "nothing that waits for the same comes before it"
    if same:
        waits = "that waits for the same comes" if same == 1 else "that wait for the same come"
        line = f"{counted(same, 'job', _MOST_JOBS)} {waits} before it"
    if gate.per is None:
        sentence = (
            f"{_subject(job)} waits because its limit {name} of {gate.most:,} is full: "
            f"{jobs_named(taken.jobs, taken.count)} {_have(taken.count)}; {line}."
        )
        return Why(Reason.LIMIT, sentence)
    opens_at = taken.opens_at
    opens = "when those have been claimed that have it now"
    if opens_at is not None:
        opens = f"at {moment(opens_at)} (in {span(opens_at - seen.now)})"
    sentence = (
        f"{_subject(job)} waits because its limit {name} of {gate.most:,} is used up; the next place is free {opens}, "
        f"and {line}."
    )
    return Why(Reason.RATE, sentence, opens_at and opens_at.astimezone(UTC))


def _have(number: int) -> str:
    return "has the place" if number == 1 else "have the places"


def _at_limit(job: JobRow, limit: int, running: _Places) -> Why:
    queue = one_line(job.queue)
    held = "which lets nothing begin"
    if running.count:
        held = f"and {jobs_named(running.jobs, running.count)} {'runs' if running.count == 1 else 'run'}"
    sentence = (
        f"{_subject(job)} waits because queue '{queue}' has a limit of {counted(limit, 'running job')}, {held}: "
        f"`chancy limit {queue} none` lifts it."
    )
    return Why(Reason.LIMIT, sentence)


def _in_turn(job: JobRow, passes: Passes, same: int, groups: int) -> Why:
    group = one_line(passes.key[: passes.turn].rpartition(SEPARATOR)[2])
    sentence = (
        f"{_subject(job)} waits for the turn of {group}: in queue '{one_line(job.queue)}' "
        f"{counted(groups, 'other group', _MOST_GROUPS)} {'waits' if groups == 1 else 'wait'} too, and of its own "
        f"{counted(same, 'job', _MOST_JOBS)} {'comes' if same == 1 else 'come'} first."
    )
    return Why(Reason.TURN, sentence)


# Of those before it, what a worker would pass by does not count: a paused task, a task that no worker knows.
LINE = """
    WITH RECURSIVE takers AS MATERIALIZED (
        SELECT worker.id, offer.tasks
        FROM {schema}.offer AS offer
        JOIN {schema}.worker AS worker ON worker.id = offer.worker AND worker.expires_at > {schema}.clock()
        WHERE %(queue)s::text = ANY (offer.queues)
    ),
    startable AS MATERIALIZED (
        SELECT unnest(tasks) AS task FROM takers
        EXCEPT SELECT name FROM {schema}.pause WHERE kind = 'task' AND until > {schema}.clock()
    ),
    running AS MATERIALIZED (
        SELECT job.id, takers.id AS worker, job.crashes
        FROM takers
        JOIN {schema}.job AS job ON job.worker = takers.id AND job.state = 'running'
    ),
    higher AS (
        (SELECT priority FROM {schema}.job
         WHERE state = 'ready' AND parked IS NULL AND queue = %(queue)s::text AND priority > %(priority)s::smallint
         ORDER BY priority DESC LIMIT 1)
        UNION ALL
        SELECT below.priority FROM higher CROSS JOIN LATERAL (
            SELECT job.priority FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NULL AND job.queue = %(queue)s::text
                AND job.priority < higher.priority AND job.priority > %(priority)s::smallint
            ORDER BY job.priority DESC LIMIT 1) AS below
    ),
    over AS (
        SELECT job.task FROM higher CROSS JOIN LATERAL (
            SELECT job.task FROM {schema}.job AS job
            WHERE job.state = 'ready' AND job.parked IS NULL AND job.queue = %(queue)s::text
                AND job.priority = higher.priority AND job.run_at <= {schema}.clock()
            LIMIT %(most)s::integer + 1) AS job
        LIMIT %(most)s::integer + 1
    ),
    earlier AS (
        SELECT job.task FROM {schema}.job AS job
        WHERE job.state = 'ready' AND job.parked IS NULL AND job.queue = %(queue)s::text
            AND job.priority = %(priority)s::smallint
            AND (job.run_at, job.id) < (%(run_at)s::timestamptz, %(id)s::bigint)
        LIMIT %(most)s::integer + 1
    )
    SELECT (SELECT count(*) FROM over WHERE task IN (SELECT task FROM startable)),
        (SELECT count(*) FROM earlier WHERE task IN (SELECT task FROM startable)),
        (SELECT count(*) FROM running),
        (SELECT count(DISTINCT worker) FROM running WHERE crashes > 0),
        ARRAY(SELECT id FROM running WHERE crashes > 0 ORDER BY id)
"""


@dataclass(frozen=True, slots=True)
class _Line:
    """What comes before a job that is not parked, and what runs on the workers of its queue."""

    higher: int
    earlier: int
    running: int
    with_suspect: int
    suspects: Sequence[int]


def _line(job: JobRow) -> Statement[_Line]:
    return Statement(LINE, _place_of(job), _parse_line)


def _parse_line(rows: Rows) -> _Line:
    return _Line(*rows[0])


def _in_line(job: JobRow, seen: _Around, line: _Line, same: int) -> Why:
    queue = one_line(job.queue)
    if job.crashes and line.with_suspect >= seen.takers:
        died = "a worker died while it ran" if job.crashes == 1 else f"{job.crashes} workers died while they ran"
        sentence = (
            f"{_subject(job)} waits because {died} it, and a worker runs one such job at a time: now "
            f"{jobs_named(line.suspects[:3], len(line.suspects))}."
        )
        return Why(Reason.SUSPECT, sentence)
    before = line.higher + line.earlier + same
    waited = seen.now - max(job.run_at, job.submitted_at)
    first = "nothing comes before it"
    if before:
        higher = f", of which {min(line.higher, _MOST_JOBS):,} have a higher priority" if line.higher else ""
        first = f"{counted(before, 'job', _MOST_JOBS)} {'comes' if before == 1 else 'come'} before it{higher}"
    if line.running and (before or waited > _AT_ONCE):
        workers = "the worker" if seen.takers == 1 else f"the {seen.takers:,} workers"
        sentence = (
            f"{_subject(job)} waits for room: {workers} of queue '{queue}' {'runs' if seen.takers == 1 else 'run'} "
            f"{counted(line.running, 'job')}, and {first}."
        )
        return Why(Reason.BUSY, sentence)
    sentence = f"{_subject(job)} is next: {first}, and a worker should start it in a moment"
    if waited > _SUSPICIOUS:
        sentence += f"; it was due {span(waited)} ago, so if that does not happen within seconds, ask `chancy doctor`"
    return Why(Reason.NEXT, f"{sentence}.")
