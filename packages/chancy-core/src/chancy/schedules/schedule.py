"""Recurring jobs: the rows of `schedule`, and the verbs over a connection that is the caller's.

A worker that knows the task looks at the row when it is due and submits (`chancy_worker.parts.schedules`).
"""

from __future__ import annotations

from contextvars import Context
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from chancy.arguments.codec import encode_json
from chancy.arguments.meta import meta_now
from chancy.errors import InvalidArguments, InvalidOption, SchedulePaused, UnknownSchedule
from chancy.job import NewJob
from chancy.keys.gates import Passes
from chancy.model import WITHOUT_END, Options, Rows, Statement, Steps, UniqueKey
from chancy.options.limits import Limit
from chancy.options.plain import Duration, shown, text
from chancy.options.retry import Backoff
from chancy.registry import registered
from chancy.schema import schema_in_use
from chancy.verb import verb
from chancy.wires.literals import FINITE, either

from .recurrence import Cron, Every, When, checked, ticks

if TYPE_CHECKING:
    from chancy.task import BaseTask

LONGEST_NAME = 200


class Changes(msgspec.Struct, frozen=True):
    """What `using(…)` had changed of a task's options and keys; what is not here is as the task declares it."""

    queue: str | msgspec.UnsetType = msgspec.UNSET
    priority: int | msgspec.UnsetType = msgspec.UNSET
    max_attempts: int | msgspec.UnsetType = msgspec.UNSET
    limits: tuple[Limit, ...] | msgspec.UnsetType | None = msgspec.UNSET
    retry: Backoff | msgspec.UnsetType | None = msgspec.UNSET
    gates: Passes | msgspec.UnsetType | None = msgspec.UNSET
    unique: UniqueKey | msgspec.UnsetType | None = msgspec.UNSET
    meta: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """What travelled beside the job when it was bound."""


_OPTIONS = [option for option in Options.__struct_fields__ if option in Changes.__struct_fields__]
_decode_changes = msgspec.json.Decoder(Changes).decode
_decode_when: msgspec.json.Decoder[When] = msgspec.json.Decoder(Cron | Every)


def job_of(task: BaseTask[..., Any], arguments: bytes, changes: bytes, tick: datetime) -> NewJob[Any]:
    """The job of a tick. Raises `InvalidArguments` where the stored arguments do not fit the task any more.

    What is said of its meta is said in an empty context: that in which the worker was started is not the tick's.
    """
    task.signature.decode_arguments(arguments)
    plain, changed = task.carrying(arguments), _decode_changes(changes)
    named = {name: value for name in _OPTIONS if (value := getattr(changed, name)) is not msgspec.UNSET}
    unique = plain.unique if changed.unique is msgspec.UNSET else changed.unique
    return msgspec.structs.replace(
        plain,
        options=plain.options.but(run_at=tick, **named),
        gates=plain.gates if changed.gates is msgspec.UNSET else changed.gates and encode_json(changed.gates),
        unique=unique and msgspec.structs.replace(unique, others=task.aliases),  # it may have been renamed since
        meta=Context().run(meta_now, task.name, None if changed.meta is msgspec.UNSET else bytes(changed.meta)),
    )


def _changes_of(job: NewJob[Any]) -> Changes:
    """How it differs from the job that its task would make of the same arguments."""
    task = registered().get(job.task)
    plain = None if task is None else task.carrying(job.arguments)
    changed = {
        name: getattr(job.options, name)
        for name in _OPTIONS
        if plain is None or getattr(job.options, name) != getattr(plain.options, name)
    }
    if plain is None or job.gates != plain.gates:
        changed["gates"] = job.gates and msgspec.json.decode(job.gates, type=Passes)
    if plain is None or job.unique != plain.unique:
        changed["unique"] = job.unique
    if job.meta is not None:
        changed["meta"] = msgspec.Raw(job.meta)
    return Changes(**changed)


class ScheduleRow(msgspec.Struct, frozen=True, kw_only=True):
    """One schedule as it is in the database now. Instants are UTC, by the database's clock."""

    name: str
    task: str
    when: When
    arguments: bytes
    """JSON, as submitted with each job."""
    declared: bool
    """By its task, in the code; else made by `chancy.schedule`."""
    next_at: datetime | None
    """The first tick that no worker has seen to; None until one has looked for the first time."""
    last_at: datetime | None
    """The last tick that got a job, and that job."""
    last_job: int | None
    note: str | None
    """What went otherwise than planned, the last time that something did: ticks that got no job, and why."""
    paused_until: datetime | None
    """`WITHOUT_END` of one that waits for somebody who resumes it."""
    read_at: datetime
    """When the row was like this."""

    def upcoming(self, count: int) -> list[datetime]:
        """The next ticks after `read_at`, or after the pause; none of one that is paused without an end.

        Raises `ValueError` where its time zone is not known here.
        """
        if self.paused_until == WITHOUT_END:
            return []
        return list(islice(ticks(self.when, max(self.read_at, self.paused_until or self.read_at)), count))


# One that ticks as before goes on where it was: an application may say at each of its starts what it wants.
SCHEDULE = """
    INSERT INTO {schema}.schedule AS schedule (name, task, arguments, changes, recurrence, declared, since)
    VALUES (%(name)s::text, %(task)s::text, %(arguments)s::json, %(changes)s::json, %(when)s::json, false,
        {schema}.clock())
    ON CONFLICT (name) DO UPDATE
    SET task = excluded.task, arguments = excluded.arguments, changes = excluded.changes, declared = false,
        recurrence = excluded.recurrence, revision = DEFAULT, note = NULL,
        next_at = CASE WHEN schedule.recurrence::text = excluded.recurrence::text THEN schedule.next_at END,
        since = CASE WHEN schedule.recurrence::text = excluded.recurrence::text THEN schedule.since
            ELSE excluded.since END
    RETURNING name
"""


@verb
def schedule(name: str, job: NewJob[Any], when: When, /, *, schema: str | None = None) -> Statement[None]:
    """Have workers submit this job (of `task.bind(…)`) at each tick of `cron(…)` or `every(…)`. One round trip.

    Replaces the schedule of that name, also one that a task declares. One that ticks as before goes on where it was,
    and what is paused stays so. Holds from the commit on; ticks count from now. What `using` has changed goes with it;
    all else of its jobs is as the task declares it where the worker runs.

    Locks the schedule's row; workers pass it by until the commit. Raises `InvalidOption`, a `ValueError`, for a name, a
    job or a `when` that does not do, and `InvalidArguments` for a job with a time of its own.
    """
    name = schedule_name("name", name)
    if not isinstance(job, NewJob):
        raise InvalidOption("job", f"expected what task.bind(…) gives, got {shown(job)}")
    if not isinstance(when, (Cron, Every)):
        raise InvalidOption("when", f"schedule {name!r}: expected cron(…) or every(…), got {shown(when)}")
    for option in ("run_at", "delay"):
        if getattr(job.options, option) is not None:
            raise InvalidArguments(job.task, option, "a schedule says itself when its jobs run: leave it out")
    params = {
        "name": name,
        "task": job.task,
        "arguments": msgspec.Raw(job.arguments),
        "changes": msgspec.Raw(encode_json(_changes_of(job))),
        "when": msgspec.Raw(encode_json(checked(when))),
    }
    return Statement(SCHEDULE, params, lambda rows: None, name="schedule")


def schedule_name(option: str, value: object) -> str:
    """What a schedule may be called. Raises `InvalidOption`."""
    name = text(option, value)
    if not 0 < len(name) <= LONGEST_NAME:
        raise InvalidOption(
            option, f"a schedule needs a name of 1 to {LONGEST_NAME} characters without NUL, got {shown(name)}"
        )
    return name


UNSCHEDULE = """
    WITH gone AS (
        DELETE FROM {schema}.schedule WHERE name = %(name)s::text RETURNING name
    )
    SELECT EXISTS (SELECT FROM gone)
"""


@verb
def unschedule(name: str, /, *, schema: str | None = None) -> Statement[bool]:
    """Forget the schedule of this name; whether there was one. One round trip. Its jobs stay.

    One that a task declares comes back with the next worker that starts: pause it instead. Waits for a worker that is
    just submitting a tick of it.
    """
    return Statement(
        UNSCHEDULE, {"name": schedule_name("name", name)}, lambda rows: bool(rows[0][0]), name="unschedule"
    )


SELECT_SCHEDULES = """
    SELECT name, task, convert_to(recurrence::text, 'UTF8'), convert_to(arguments::text, 'UTF8'), declared,
        next_at, last_at, last_job, convert_to(note, 'UTF8'),
        {paused_until},
        {schema}.clock()
    FROM {schema}.schedule
    ORDER BY name COLLATE "C"
""".replace("{paused_until}", FINITE.replace("{instant}", "paused_until"))


def select_schedules() -> Statement[list[ScheduleRow]]:
    """All of them, by their names."""
    return Statement(SELECT_SCHEDULES, {}, _parse_schedules, name="select_schedules")


def _parse_schedules(rows: Rows) -> list[ScheduleRow]:
    return [
        ScheduleRow(
            name=name,
            task=task,
            when=decode_when(when),
            arguments=arguments,
            declared=declared,
            next_at=_utc(next_at),
            last_at=_utc(last_at),
            last_job=last_job,
            note=None if note is None else note.decode(),
            paused_until=_utc(paused_until),
            read_at=read_at.astimezone(UTC),
        )
        for name, task, when, arguments, declared, next_at, last_at, last_job, note, paused_until, read_at in rows
    ]


def decode_when(stored: bytes) -> When:
    """What `cron` or `every` had made. Whether its zone is known here is found out when it is asked for ticks."""
    return _decode_when.decode(stored)


def _utc(at: datetime | None) -> datetime | None:
    return at and at.astimezone(UTC)


@verb
def schedules(*, schema: str | None = None) -> Statement[list[ScheduleRow]]:
    """All schedules, by their names. One round trip. Those that a task declares are there once a worker has started."""
    return select_schedules()


RUN_NOW = """
    WITH told AS (
        UPDATE {schema}.schedule SET next_at = least(next_at, {schema}.clock()), revision = DEFAULT
        WHERE name = %(name)s::text AND (paused_until > {schema}.clock()) IS NOT TRUE
        RETURNING name
    )
    SELECT EXISTS (SELECT FROM told), EXISTS (SELECT FROM {schema}.schedule WHERE name = %(name)s::text)
"""


@verb
def run_now(name: str, /, *, schema: str | None = None) -> Steps[None]:
    """Have the schedule tick now, besides its own times. One round trip.

    A worker sees to it within 5 s of the commit, as to any tick: with `overlap="skip"` there is no job while the one
    before is live. Raises `UnknownSchedule`, and `SchedulePaused`.
    """
    return _run_now(schedule_name("name", name), schema_in_use(schema))


def _run_now(name: str, schema: str) -> Steps[None]:
    told, exists = yield Statement(RUN_NOW, {"name": name}, lambda rows: (rows[0][0], rows[0][1]), name="run_now")
    if not exists:
        raise UnknownSchedule(name, schema)
    if not told:
        raise SchedulePaused(name)


PAUSE_SCHEDULE = """
    UPDATE {schema}.schedule
    SET paused_until = coalesce(%(until)s::timestamptz, {schema}.clock() + %(duration)s::interval, 'infinity'),
        revision = DEFAULT
    WHERE name = %(name)s::text
    RETURNING name
"""


def pause_schedule(name: str, until: datetime | Duration | None) -> Statement[bool]:
    """No ticks get jobs until then, or for so long; None is until it is resumed. Whether there is such a schedule."""
    return Statement(PAUSE_SCHEDULE, {"name": name, **either(until)}, bool, name="pause_schedule")


# Where the pause was over already, ticks since then count.
RESUME_SCHEDULE = """
    WITH resumed AS (
        UPDATE {schema}.schedule
        SET since = least(paused_until, {schema}.clock()), next_at = NULL, paused_until = NULL, revision = DEFAULT
        WHERE name = %(name)s::text AND paused_until IS NOT NULL
        RETURNING name
    )
    SELECT EXISTS (SELECT FROM resumed)
"""


def resume_schedule(name: str) -> Statement[bool]:
    """Tick again from now on. Whether there is such a schedule, and it was paused."""
    return Statement(RESUME_SCHEDULE, {"name": name}, lambda rows: bool(rows[0][0]), name="resume_schedule")
