"""Why a job does not run: one reason, in one sentence for the person on call.

Where several hold, the one is told that a person has to do something about: a pause, a missing worker or unknown code
before a limit, which opens by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import msgspec

from chancy.errors import UnknownJob
from chancy.keys.gates import SEPARATOR, Gate, Passes
from chancy.model import WITHOUT_END, JobRow, Steps
from chancy.options.phrases import argument, counted, jobs_named, moment, one_line, span
from chancy.options.plain import identity
from chancy.schema import schema_in_use
from chancy.states import FINISHED, State
from chancy.steps.values import StepKind
from chancy.verb import verb
from chancy.verbs import select_job
from chancy_ops.redaction import select_hiding

from .context import (
    MOST_GROUPS,
    MOST_JOBS,
    Around,
    Line,
    Places,
    around,
    line_before,
    parked_before,
    places_of,
    running_of,
)
from .needs import DEEPEST, Way, blocked, way_of
from .steps import OpenRest, open_rests

_TRIES = 5
_AT_ONCE = timedelta(seconds=1)
"""The longest start delay of an idle worker that is notified."""
_SUSPICIOUS = timedelta(seconds=10)
"""Twice the longest start delay of one that polls: what is later is suspicious."""


class Reason(StrEnum):
    """Why a job does not run; or that it does, or has."""

    SCHEDULED = "scheduled"
    SLEEPS = "sleeps"
    """In a step, until a time that it has said."""
    WAITS = "waits"
    """For a signal."""
    RETRY = "retry"
    REFUSED = "refused"
    """Workers could not take it: they do not know its task, or have a version with other arguments."""
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
    NEEDS = "needs"
    """It waits for other jobs."""
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


@verb
def why(job_id: int, /, *, schema: str | None = None) -> Steps[Why]:
    """Why the job does not run, or what it does. Two to seven round trips; takes no lock and reads no table through.

    How many come before it is counted up to 10,000 jobs and 1,000 groups. Raises `UnknownJob`.
    """
    return _why(identity("job_id", job_id), schema_in_use(schema))


def _why(job_id: int, schema: str) -> Steps[Why]:
    job, seen = yield from _look(job_id, schema)
    if job.state in FINISHED:
        return _finished((yield select_hiding([job.task])).job(job), seen)
    if job.state is State.RUNNING:
        return _running(job, seen)
    if job.state is State.BLOCKED:
        return (yield from _blocked(job, schema))
    if job.run_at > seen.now:
        rests: list[OpenRest] = yield open_rests(job.id)
        if (rest := next((rest for rest in rests if _is_of(rest, job)), None)) is not None:
            return _resting(job, seen, rest)
    if (found := _scheduled(job, seen) or _paused(job, seen) or _unmanned(job, seen)) is not None:
        return found
    return (yield from _held_up(job, seen))


def _blocked(job: JobRow, schema: str) -> Steps[Why]:
    """With the reason of the first job in its way."""
    way: Way = yield way_of(job)
    first = (yield from _why(way.first, schema)).sentence if way.depth and way.depth < DEEPEST else ""
    return Why(Reason.NEEDS, blocked(job, way, first))


def _look(job_id: int, schema: str) -> Steps[tuple[JobRow, Around]]:
    tries_left = _TRIES
    while True:
        tries_left -= 1
        job: JobRow | None = yield select_job(job_id)
        if job is None:
            raise UnknownJob(job_id, schema)
        seen: Around = yield around(job)
        if not tries_left or seen.state == _stored(job.state):  # or it has moved on between the two looks
            return job, seen


def _stored(state: State) -> str | None:
    return None if state in FINISHED else "ready" if state is State.SCHEDULED else state.value


def _subject(job: JobRow) -> str:
    return f"Job {job.id} ({one_line(job.task)})"


def _finished(job: JobRow, seen: Around) -> Why:
    at = job.finished_at or seen.now
    how = {State.DISCARDED: "was discarded", State.CANCELLED: "was cancelled"}.get(job.state, job.state.value)
    sentence = f"{_subject(job)} {how} at {moment(at)} ({span(seen.now - at)} ago)"
    if job.state is State.SUCCEEDED:
        result = "its result is not kept any more"
        if job.result is not None:
            result = f"returned {one_line(job.result.decode())}"
        return Why(Reason.FINISHED, f"{sentence} in attempt {_attempt(job)}, and {result}.")
    if job.attempt:
        sentence += f" in attempt {_attempt(job)}"
    if seen.in_vain and job.errors and job.errors[-1].kind == "NeedFailed":
        again = f"`chancy requeue {job.id}` runs what is to blame again, and goes on from there"
        return Why(Reason.FINISHED, f"{sentence} because {one_line(job.errors[-1].message)}; {again}.")
    if job.errors and job.state is not State.CANCELLED:
        sentence += f" with {_error(job)}"
    return Why(Reason.FINISHED, f"{sentence}; `chancy requeue {job.id}` makes it ready again.")


def _attempt(job: JobRow) -> str:
    return f"{job.attempt} of {job.max_attempts}"


def _error(job: JobRow) -> str:
    last = job.errors[-1]
    return one_line(f"{last.kind}: {last.message}" if last.message else last.kind)


def _running(job: JobRow, seen: Around) -> Why:
    if seen.expires_at is None or seen.expires_at <= seen.now:
        return _lost(job, seen)
    ran = span(seen.now - (job.started_at or seen.now))
    worker = one_line(seen.worker or "")
    sentence = f"{_subject(job)} has been running on worker {worker} for {ran}, in attempt {_attempt(job)}"
    if job.progress is not None:
        note = f" ({one_line(job.progress.note)})" if job.progress.note else ""
        sentence += f"; it says that it is {job.progress.fraction:.0%} done{note}"
    if job.cancel_at is not None:
        sentence += f"; it was asked to stop {span(seen.now - job.cancel_at)} ago"
    return Why(Reason.RUNNING, f"{sentence}.")


def _lost(job: JobRow, seen: Around) -> Why:
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


def _is_of(rest: OpenRest, job: JobRow) -> bool:
    """Whether it is what the job is scheduled for: it may be tried again sooner."""
    return (rest.until or WITHOUT_END) == job.run_at


def _resting(job: JobRow, seen: Around, rest: OpenRest) -> Why:
    name, since = one_line(rest.name), f"since {moment(rest.since)} ({span(seen.now - rest.since)} ago)"
    until = "" if rest.until is None else f"until {moment(rest.until)} (in {span(rest.until - seen.now)})"
    if rest.kind is StepKind.SLEEP:
        return Why(Reason.SLEEPS, f"{_subject(job)} sleeps in step '{name}' {until}, {since}.", rest.until)
    sentence = f"{_subject(job)} waits for the signal '{name}' {since}, {until or 'without an end'}"
    if rest.unheard:
        told = ", ".join(f"'{one_line(each)}'" for each in rest.unheard[:3])
        sentence += f"; it was told {told}, which it has not come to"
    return Why(Reason.WAITS, f"{sentence}: `chancy signal {job.id} {argument(rest.name)}` tells it.", rest.until)


def _scheduled(job: JobRow, seen: Around) -> Why | None:
    if job.run_at <= seen.now:
        return None
    when = f"{moment(job.run_at)} (in {span(job.run_at - seen.now)})"
    if job.errors and job.attempt and job.errors[-1].attempt == job.attempt:
        sentence = f"{_subject(job)} is tried again at {when}: attempt {_attempt(job)} failed with {_error(job)}."
        return Why(Reason.RETRY, sentence, job.run_at)
    if job.errors and job.errors[-1].attempt > job.attempt:  # that attempt was refunded
        worker = one_line(job.errors[-1].worker)
        sentence = (
            f"{_subject(job)} was left to others by worker {worker}, with {_error(job)}; it is "
            f"offered again at {when}, and fails when for an hour nobody could take it: start a worker whose code fits."
        )
        return Why(Reason.REFUSED, sentence, job.run_at)
    return Why(Reason.SCHEDULED, f"{_subject(job)} is scheduled for {when}.", job.run_at)


def _paused(job: JobRow, seen: Around) -> Why | None:
    queue, task = one_line(job.queue), one_line(job.task)
    for reason, name, remedy, since, until in [
        (Reason.QUEUE_PAUSED, f"queue '{queue}'", argument(job.queue), seen.queue_paused_at, seen.queue_until),
        (Reason.TASK_PAUSED, f"task {task}", f"--task {argument(job.task)}", seen.task_paused_at, seen.task_until),
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


def _unmanned(job: JobRow, seen: Around) -> Why | None:
    queue = one_line(job.queue)
    silent = f", {seen.silent:,} of an older version that did not say" if seen.silent else ""
    if not seen.takers:
        taken = ", ".join([f"'{one_line(name)}'" for name in seen.queues[:10]] + ["…"] * (len(seen.queues) > 10))
        there = "no live worker at all"
        if seen.workers:
            there = f"{counted(seen.workers, 'live worker')}{silent}, for {taken or 'no queue'}"
        sentence = f"{_subject(job)} waits because no worker takes queue '{queue}': {there}; start one that takes it."
        return Why(Reason.NO_WORKER, sentence)
    if not seen.knowers:
        sentence = (
            f"{_subject(job)} waits because no worker of queue '{queue}' knows its task "
            f"({counted(seen.takers, 'live worker')}{silent}): deploy the code that has it, or name its module where "
            f"they are started."
        )
        return Why(Reason.UNKNOWN_TASK, sentence)
    return None


def _held_up(job: JobRow, seen: Around) -> Steps[Why]:
    """Of a due job that somebody would take: what stands before it."""
    same = groups = 0
    passes = None if seen.gates is None else msgspec.json.decode(seen.gates, type=Passes)
    if passes is not None:
        places: list[Places] = yield places_of(passes.gates)
        same, groups = yield parked_before(job, passes)
        for gate, taken in zip(passes.gates, places, strict=True):
            if taken.count >= gate.most:
                return _at_gate(job, gate, taken, same, seen)
            if taken.kept and taken.count + taken.kept >= gate.most:
                return _in_shares(job, f"its limit {one_line(gate.name)} of {gate.most:,}", taken)
    if seen.limit is not None:
        running: Places = yield running_of(job.queue)
        if running.count >= seen.limit:
            return _at_limit(job, seen.limit, running)
        if running.kept and running.count + running.kept >= seen.limit:
            where = f"the limit of queue '{one_line(job.queue)}' of {counted(seen.limit, 'running job')}"
            return _in_shares(job, where, running)
    if passes is not None and passes.turn and same + groups:
        return _in_turn(job, passes, same, groups)
    line: Line = yield line_before(job)
    return _in_line(job, seen, line, same)


def _at_gate(job: JobRow, gate: Gate, taken: Places, same: int, seen: Around) -> Why:
    name, line = one_line(gate.name), "nothing that waits for the same comes before it"
    if same:
        waits = "that waits for the same comes" if same == 1 else "that wait for the same come"
        line = f"{counted(same, 'job', MOST_JOBS)} {waits} before it"
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


def _in_shares(job: JobRow, limit: str, taken: Places) -> Why:
    """The limit has room, and none that is nobody's."""
    held = ""
    if taken.count:
        held = f"{jobs_named(taken.jobs, taken.count)} {'runs' if taken.count == 1 else 'run'}, and "
    sentence = (
        f"{_subject(job)} waits because {limit} is divided among workers: {held}{taken.kept:,} more may run in the "
        f"shares of workers that do not need them now; whoever needs one gets it within a second."
    )
    return Why(Reason.LIMIT, sentence)


def _have(number: int) -> str:
    return "has the place" if number == 1 else "have the places"


def _at_limit(job: JobRow, limit: int, running: Places) -> Why:
    queue = one_line(job.queue)
    held = "which lets nothing begin"
    if running.count:
        held = f"and {jobs_named(running.jobs, running.count)} {'runs' if running.count == 1 else 'run'}"
    sentence = (
        f"{_subject(job)} waits because queue '{queue}' has a limit of {counted(limit, 'running job')}, {held}: "
        f"`chancy limit {argument(job.queue)} none` lifts it."
    )
    return Why(Reason.LIMIT, sentence)


def _in_turn(job: JobRow, passes: Passes, same: int, groups: int) -> Why:
    group = one_line(passes.key[: passes.turn].rpartition(SEPARATOR)[2])
    sentence = (
        f"{_subject(job)} waits for the turn of {group}: in queue '{one_line(job.queue)}' "
        f"{counted(groups, 'other group', MOST_GROUPS)} {'waits' if groups == 1 else 'wait'} too, and of its own "
        f"{counted(same, 'job', MOST_JOBS)} {'comes' if same == 1 else 'come'} first."
    )
    return Why(Reason.TURN, sentence)


def _suspect(job: JobRow, line: Line) -> Why:
    died = "a worker died while it ran" if job.crashes == 1 else f"{job.crashes} workers died while they ran"
    if job.crashes == 1 and job.max_attempts - job.attempt > 1:
        rule = "a worker runs few such jobs at a time at first, and more as those end"
    else:
        which = "such a job" if job.crashes > 1 else "such a job, when it has one attempt left,"
        rule = f"a worker runs {which} without another one beside it"
    now = jobs_named(line.suspects[:3], len(line.suspects))
    return Why(Reason.SUSPECT, f"{_subject(job)} waits because {died} it, and {rule}: now {now}.")


def _in_line(job: JobRow, seen: Around, line: Line, same: int) -> Why:
    queue = one_line(job.queue)
    if job.crashes and line.with_suspect >= seen.takers:
        return _suspect(job, line)
    before, complete = line.higher + line.earlier + same, line.complete and same <= MOST_JOBS
    waited = seen.now - max(job.run_at, job.submitted_at)
    first = "nothing comes before it" if complete else f"of the first {MOST_JOBS:,} jobs before it none could begin now"
    if before:
        least = "at least " if not complete and before <= MOST_JOBS else ""
        first = f"{least}{counted(before, 'job', MOST_JOBS)} {'comes' if before == 1 else 'come'} before it"
    if line.higher:
        higher = f"more than {MOST_JOBS:,}" if line.higher > MOST_JOBS else f"{line.higher:,}"
        first += f", {higher} of them with a higher priority"
    if line.running and (before or not complete or waited > _AT_ONCE):
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
