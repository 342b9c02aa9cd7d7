"""What `doctor` asks about workers, and about what waits for them or runs on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from chancy.model import Pause, Rows, Statement, Steps
from chancy.options.phrases import argument, counted, jobs_named, moment, one_line, span
from chancy.schema import named
from chancy.wires.literals import of_texts
from chancy_ops.counting import Count, sum_of

from .findings import Finding, Patience, Severity, unless_any

WAITING = Patience(timedelta(minutes=5), timedelta(hours=1))
"""Of a job that could run."""
SKEWED = Patience(timedelta(seconds=1), timedelta(seconds=30))
"""Of a worker's clock, whichever way."""
FORGOTTEN = timedelta(days=1)
"""A pause of this age is likely to be."""
UNTICKED = timedelta(minutes=1)
"""A schedule that is due for so long: workers get to it within some tens of milliseconds."""
_LEASE_LEFT = timedelta(seconds=5)
"""Workers extend theirs while twice as much is left."""
_RESCUED_WITHIN = timedelta(seconds=30)
_LOOKS, _LOOK_PAUSE = 5, 0.4
_UNSEEN_LOOKS = 1
"""So many more where no session is seen: one may be between two statements that tell its schema."""
_MOST_SLOTS = 100_000
MOST_WORK = 2_000
"""So many due jobs of a queue and priority are looked at, those first that have waited for the longest: what nobody
takes comes to be among them."""


@dataclass(frozen=True, slots=True)
class Hand:
    """A worker whose lease is there."""

    name: str
    expires_at: datetime
    queues: Sequence[str]
    tasks: Sequence[str]
    told: bool
    """Whether it said what it takes: versions before did not."""
    clock_ahead: float | None
    """Seconds."""
    listens: bool
    """At the doorbell."""
    deaf: bool
    """It has found that the doorbell does not reach it."""


@dataclass(frozen=True, slots=True)
class Work:
    """What there is of one task in one queue."""

    queue: str
    task: str
    due: Count
    oldest_at: datetime | None
    """When the oldest of those was due that have no gates."""


@dataclass(frozen=True, slots=True)
class Closed:
    """A pause that holds."""

    kind: str
    name: str
    paused_at: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Fleet:
    """All that the checks below look at."""

    now: datetime
    hands: Sequence[Hand]
    work: Sequence[Work]
    closed: Sequence[Closed]

    @property
    def alive(self) -> list[Hand]:
        """Those whose lease has not run out."""
        return [hand for hand in self.hands if hand.expires_at > self.now]

    @property
    def open_work(self) -> list[Work]:
        """What is due and neither its queue nor its task is paused."""
        closed = {(each.kind, each.name) for each in self.closed}
        return [work for work in self.work if work.due and not {("queue", work.queue), ("task", work.task)} & closed]

    @property
    def able_work(self) -> list[Work]:
        """What of that a worker would take."""
        can = {(queue, task) for hand in self.alive for queue in hand.queues for task in hand.tasks}
        return [work for work in self.open_work if (work.queue, work.task) in can]


HANDS = """
    SELECT {schema}.clock(), worker.name, worker.expires_at, coalesce(offer.queues, '{}'), coalesce(offer.tasks, '{}'),
        offer.worker IS NOT NULL, worker.clock_ahead, coalesce(offer.listens, true), worker.deaf
    FROM (SELECT) AS always
    LEFT JOIN {schema}.worker AS worker ON true
    LEFT JOIN {schema}.offer AS offer ON offer.worker = worker.id
    ORDER BY worker.name, worker.id
"""
WORK = "SELECT queue, task, due, more, oldest_at FROM {schema}.look_at_work(%(most)s::integer)"
CLOSED = """
    SELECT kind, name, paused_at, CASE WHEN isfinite(until) THEN until END FROM {schema}.pause
    WHERE until > {schema}.clock()
    ORDER BY paused_at, kind, name
"""


def fleet() -> Steps[Fleet]:
    """Three round trips, of which one reads what is due: of each queue and priority what has been for the longest."""
    now, hands = yield Statement(
        HANDS, {}, lambda rows: (rows[0][0], [Hand(*row[1:]) for row in rows if row[1] is not None]), name="hands"
    )
    work: list[Work] = yield Statement(WORK, {"most": MOST_WORK}, _parse_work, name="work")
    closed: list[Closed] = yield Statement(CLOSED, {}, lambda rows: [Closed(*row) for row in rows], name="closed")
    return Fleet(now, hands, work, closed)


def _parse_work(rows: Rows) -> list[Work]:
    return [Work(queue, task, Count(due, more), oldest_at) for queue, task, due, more, oldest_at in rows]


def leases(fleet: Fleet) -> list[Finding]:
    """Whether there are workers, and whether they say so in time."""
    bad = []
    if not fleet.alive:
        remedy = "Start one: `chancy-worker MODULE`."
        bad.append(Finding("workers", Severity.ERROR, "no worker is alive: nothing runs.", remedy))
    for hand in fleet.hands:
        name, left = one_line(hand.name), hand.expires_at - fleet.now
        if hand.expires_at + _RESCUED_WITHIN < fleet.now:
            message = f"the lease of worker {name} ran out {span(-left)} ago, and no worker has taken its jobs back."
            remedy = "A worker that lives does that within seconds: start one, or see their logs for `rescue`."
            bad.append(Finding("workers", Severity.WARNING, message, remedy))
        elif timedelta(0) < left < _LEASE_LEFT:
            message = f"worker {name} has not extended its lease, which runs out in {span(left)}."
            remedy = "See its log: it is frozen, or cannot reach the database; another worker will take its jobs."
            bad.append(Finding("workers", Severity.WARNING, message, remedy))
    silent = sum(not hand.told for hand in fleet.alive)
    more = f"; {silent:,} of an older version did not say what they take" if silent else ""
    return unless_any(bad, "workers", f"{counted(len(fleet.alive), 'worker')} alive{more}.")


def queues(fleet: Fleet) -> list[Finding]:
    """Whether somebody takes each queue in which jobs are due."""
    taken = {queue for hand in fleet.alive for queue in hand.queues}
    due: dict[str, Count] = {}
    for work in fleet.work:
        due[work.queue] = sum_of(due.get(work.queue, 0), work.due)
    bad = [
        Finding(
            "queues",
            Severity.ERROR,
            f"no worker takes queue '{one_line(queue)}', in which {counted(number, 'job')} {_wait(number)}.",
            f"Start one that does: `chancy-worker MODULE --queue {argument(queue)}`.",
        )
        for queue, number in due.items()
        if number and queue not in taken
    ]
    return unless_any(bad, "queues", f"jobs are due in {counted(len(due), 'queue')}, and workers take all of them.")


def _wait(number: int) -> str:
    return "waits" if number == 1 else "wait"


def tasks(fleet: Fleet) -> list[Finding]:
    """Whether some worker of its queue knows each task that waits. Where nobody takes a queue, that is told before."""
    bad = []
    for work in fleet.work:
        takers = [hand for hand in fleet.alive if work.queue in hand.queues]
        if work.due and takers and not any(work.task in hand.tasks for hand in takers):
            message = (
                f"no worker of queue '{one_line(work.queue)}' knows task {one_line(work.task)}, of which "
                f"{counted(work.due, 'job')} {_wait(work.due)}."
            )
            remedy = "Deploy the code that has it, name its module where workers start, or give a task that alias."
            bad.append(Finding("tasks", Severity.ERROR, message, remedy))
    names = len({work.task for work in fleet.work})
    return unless_any(bad, "tasks", f"jobs are due of {counted(names, 'task')}, and workers know them.")


def clocks(fleet: Fleet, patience: Patience = SKEWED) -> list[Finding]:
    """How far the workers' clocks are from the database's."""
    bad, worst = [], 0.0
    for hand in fleet.alive:
        ahead = hand.clock_ahead or 0.0
        worst = max(worst, abs(ahead))
        severity = patience.with_age(timedelta(seconds=abs(ahead)))
        if severity is not Severity.OK:
            way = "ahead" if ahead > 0 else "behind"
            message = f"the clock of worker {one_line(hand.name)} is {abs(ahead):,.1f} s {way}."
            remedy = "Set it by NTP. Jobs start by the database's clock, but what handlers and logs say there is wrong."
            bad.append(Finding("clocks", severity, message, remedy))
    return unless_any(bad, "clocks", f"the workers' clocks are within {worst * 1000:,.0f} ms of the database's.")


def pauses(fleet: Fleet, forgotten: timedelta = FORGOTTEN) -> list[Finding]:
    """Pauses that somebody may have forgotten."""
    bad = []
    for each in fleet.closed:
        if (age := fleet.now - each.paused_at) >= forgotten:
            what = f"{each.kind} {one_line(each.name)}"
            remedy = argument(each.name) if each.kind == "queue" else f"--{each.kind} {argument(each.name)}"
            end = f"until {moment(each.until)}" if each.until else "until somebody resumes it"
            message = f"{what} has been paused for {span(age)}, {end}."
            bad.append(Finding("pauses", Severity.WARNING, message, f"If nobody needs that: `chancy resume {remedy}`."))
    return unless_any(bad, "pauses", f"{counted(len(fleet.closed), 'pause')}, none older than {span(forgotten)}.")


# A schedule that nobody has looked at yet is due since it was made.
LATE = """
    SELECT name, task, greatest(due_at, since), note, count(*) OVER ()
    FROM {schema}.schedule
    WHERE due_at < {schema}.clock() - %(grace)s::interval AND since < {schema}.clock() - %(grace)s::interval
    ORDER BY due_at, name
    LIMIT 10
"""


def schedules(fleet: Fleet, grace: timedelta = UNTICKED) -> Statement[list[Finding]]:
    """Whether workers see to what is due. Ten are named at most."""

    def parse(rows: Rows) -> list[Finding]:
        bad = []
        for name, task, since, note, late in rows:
            known = any(task in hand.tasks for hand in fleet.alive)
            what = f"schedule '{one_line(name)}' is due since {moment(since)} and gets no jobs ({late} late)."
            remedy = f"No live worker knows its task {one_line(task)}: start one that does, or `chancy.unschedule` it."
            if known:
                remedy = f"It says: {one_line(note)}." if note else "See the workers' logs for `schedule`."
            bad.append(Finding("schedules", Severity.ERROR, what, remedy))
        return unless_any(bad, "schedules", "none is late.")

    return Statement(LATE, {"grace": grace}, parse, name="late")


OLDEST = """
    SELECT id FROM {schema}.job
    WHERE state = 'ready' AND parked IS NULL AND queue = %(queue)s::text AND task = %(task)s::text
        AND run_at = %(at)s::timestamptz
    ORDER BY id LIMIT 1
"""


LET_IN = """
    SELECT waits.run_at, look.queue, waits.task, waits.job
    FROM unnest(%(queues)s::text[]) AS look (queue) CROSS JOIN LATERAL {schema}.oldest_with_room(look.queue) AS waits
    WHERE waits.run_at IS NOT NULL
    ORDER BY waits.run_at
"""


class Able(NamedTuple):
    """A job that could run."""

    at: datetime
    queue: str
    task: str
    job: int | None = None
    """Its id, where it is known by now."""


def waiting(fleet: Fleet, patience: Patience = WAITING) -> Steps[list[Finding]]:
    """How long the oldest job waits that could run: not paused, its limits have room, and a worker would take it. At
    most two round trips.
    """
    able = [Able(work.oldest_at, work.queue, work.task) for work in fleet.able_work if work.oldest_at]
    open_ = {(work.queue, work.task) for work in fleet.able_work}
    if open_:
        params: dict[str, object] = {"queues": of_texts(sorted({queue for queue, _ in open_}))}
        let_in = Statement(LET_IN, params, lambda rows: [Able(*row) for row in rows], name="let_in")
        able += [each for each in (yield let_in) if (each.queue, each.task) in open_]
    if not able:
        return [Finding("waiting", Severity.OK, "no job waits that could run.")]
    oldest = min(able, key=lambda each: each.at)
    severity = patience.with_age(fleet.now - oldest.at)
    message = f"the oldest job that could run has been due for {span(fleet.now - oldest.at)}"
    if severity is Severity.OK:
        return [Finding("waiting", severity, f"{message}.")]
    if (job := oldest.job) is None:
        params = {"queue": oldest.queue, "task": oldest.task, "at": oldest.at}
        job = yield Statement(OLDEST, params, lambda rows: rows[0][0] if rows else None, name="oldest")
    if job is None:
        return [Finding("waiting", Severity.OK, f"{message}, and was claimed just now.")]
    message += f": job {job} of task {one_line(oldest.task)} in queue '{one_line(oldest.queue)}'."
    remedy = f"Ask `chancy why {job}`; if the workers are busy, start more."
    return [Finding("waiting", severity, message, remedy)]


# A waiter in line counts as much as who holds the lock. (Who rings takes it shared.)
BELLS = """
    WITH idle AS (
        SELECT offer.worker, offer.queues
        FROM {schema}.offer AS offer
        JOIN {schema}.worker AS worker ON worker.id = offer.worker AND worker.expires_at > {schema}.clock()
        WHERE offer.listens AND NOT offer.queues OPERATOR(pg_catalog.&&) %(busy)s::text[]
            AND NOT EXISTS (SELECT FROM {schema}.job AS job WHERE job.worker = worker.id AND job.state = 'running')
    )
    SELECT (SELECT count(*) FROM idle),
        ARRAY(
            SELECT DISTINCT queue FROM idle CROSS JOIN unnest(queues) AS queue
            WHERE NOT EXISTS (
                SELECT FROM pg_locks AS bell
                WHERE bell.locktype = 'advisory' AND bell.mode = 'ExclusiveLock' AND bell.objsubid = 2
                    AND bell.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                    AND bell.classid = '{schema}'::regnamespace::oid
                    AND bell.objid = {schema}.bell_key(queue)::oid)
            ORDER BY queue)
"""


def doorbell(fleet: Fleet) -> Steps[list[Finding]]:
    """Whether idle workers are at the doorbell of each of their queues, and it reaches them as far as they know. One
    round trip; where one is not there, a few more within two seconds: between two waits there is a moment without.
    """
    busy = {work.queue for work in fleet.work if work.oldest_at}
    look = Statement(BELLS, {"busy": sorted(busy)}, lambda rows: (rows[0][0], set(rows[0][1])), name="bells")
    idle, silent = yield look
    for _ in range(_LOOKS - 1):
        if not silent:
            break
        yield Pause(_LOOK_PAUSE)
        idle, now_silent = yield look
        silent &= now_silent
    deaf = "See its log for `doorbell`: it says whether notifications or its second connection do not get through."
    bad = [
        Finding(
            "doorbell",
            Severity.WARNING,
            f"worker {one_line(hand.name)} does not hear the doorbell, as it has found: it begins jobs up to 5 s late.",
            deaf,
        )
        for hand in fleet.alive
        if hand.deaf
    ]
    remedy = "See its worker's log for `bell`, and start it anew."
    bad += [
        Finding(
            "doorbell",
            Severity.WARNING,
            f"no idle worker is at the doorbell of queue '{one_line(queue)}': its jobs start up to 5 s late.",
            remedy,
        )
        for queue in sorted(silent)
    ]
    heard = f"{counted(idle, 'idle worker')}, at the doorbell of all their queues" if idle else "no worker is idle"
    return unless_any(bad, "doorbell", f"{heard}.")


# One of its queues wakes a worker; who looks for work then finds none, and sleeps on.
RING = """
    SELECT min(clock_timestamp()), count(pg_notify('{name}', left(queue, 2000))::text)
    FROM unnest(%(queues)s::text[]) AS queue
"""
# The session in which a worker claims and hears is known by its name, and its schema by what it sent last.
HEARD = """
    SELECT count(*) FILTER (WHERE is_ours),
        count(*) FILTER (WHERE is_ours AND query_start < %(rung)s::timestamptz AND state <> 'active'),
        extract(epoch FROM
            max(query_start) FILTER (WHERE is_ours AND query_start >= %(rung)s::timestamptz) - %(rung)s::timestamptz),
        count(*) FILTER (WHERE query = '<insufficient privilege>')
    FROM (
        SELECT *, strpos(query, '{schema}.') > 0 AS is_ours FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'chancy claim'
    ) AS session
"""


def listeners(fleet: Fleet) -> Steps[list[Finding]]:
    """Rings at every queue, and sees whether an idle worker looks (the first in line does so for all), and how long
    that took. Not for inside a transaction, in which a notification is not sent. Three round trips, and a few more
    within two seconds where nobody hears.
    """
    listening = [hand for hand in fleet.alive if hand.listens]
    if not listening or len(listening) < len(fleet.alive):
        return [Finding("listeners", Severity.OK, "nobody to ring: no worker listens, or some look by the clock.")]
    idle, _ = yield Statement(BELLS, {"busy": []}, lambda rows: rows[0], name="bells")
    queues = sorted({queue for hand in listening for queue in hand.queues})
    rung: datetime = yield Statement(RING, {"queues": queues}, lambda rows: rows[0][0], name="ring")
    look = Statement(HEARD, {"rung": rung}, lambda rows: rows[0], name="heard")
    seen, deaf, seconds, hidden = yield look
    for turn in range(_LOOKS):
        if seen > deaf or hidden or (not seen and turn >= _UNSEEN_LOOKS):
            break
        yield Pause(_LOOK_PAUSE)
        seen, deaf, seconds, hidden = yield look
    if hidden and not seen:
        return [Finding("listeners", Severity.OK, "this user may not see the workers' sessions (pg_read_all_stats).")]
    if not seen:
        return [Finding("listeners", Severity.OK, "no session of a worker was seen that looks for jobs.")]
    if seen == deaf and (deaf := deaf - (len(fleet.alive) - idle)) > 0:  # who has no room does not look
        message = f"{counted(deaf, 'idle worker')} did not look when it was rung for: jobs start up to 5 s late."
        remedy = "See the workers' logs for `claim`, and start those anew that have lost their connection."
        return [Finding("listeners", Severity.WARNING, message, remedy)]
    heard = seen if seconds is None else seen - deaf
    took = "" if seconds is None else f", within {float(seconds) * 1000:.1f} ms"
    return [Finding("listeners", Severity.OK, f"{counted(heard, 'worker')} heard the doorbell{took}.")]


CLAIMS = """
    WITH astray AS (
        SELECT job.id, job.worker, worker.id IS NULL AND dead.id IS NULL AS orphan,
            coalesce(dead.died_at, worker.expires_at) < {schema}.clock() - %(within)s::interval AS late
        FROM {schema}.job AS job
        LEFT JOIN {schema}.worker AS worker ON worker.id = job.worker
        LEFT JOIN {schema}.dead_worker AS dead ON dead.id = job.worker
        WHERE job.state = 'running' AND job.worker IS NOT NULL
            AND job.started_at < {schema}.clock() - %(within)s::interval
    )
    SELECT (SELECT count(*) FROM {schema}.job WHERE state = 'running' AND worker IS NOT NULL),
        count(*) FILTER (WHERE orphan), (array_agg(id ORDER BY id) FILTER (WHERE orphan))[1:3],
        (array_agg(DISTINCT worker) FILTER (WHERE orphan))[1:10],
        count(*) FILTER (WHERE late), (array_agg(id ORDER BY id) FILTER (WHERE late))[1:3]
    FROM astray
"""


BURY = "INSERT INTO {schema}.dead_worker (id, name, died_at) VALUES "
"""For a person to run."""


def claims(schema: str) -> Statement[list[Finding]]:
    """Whether each running job has a worker that lives, or that others know to be dead."""

    def parse(rows: Rows) -> list[Finding]:
        running, orphans, ids, workers, late, late_ids = rows[0]
        bad = []
        if orphans:
            values = ", ".join(f"({worker}, 'unknown', now())" for worker in workers)
            message = f"{jobs_named(ids, orphans)}: said to run on a worker of which nothing is known any more."
            remedy = f"Say that it is dead, and a worker takes it back: `{named(BURY, schema)}{values}`."
            bad.append(Finding("claims", Severity.ERROR, message, remedy))
        if late:
            message = f"{jobs_named(late_ids, late)}: ran on a worker that is dead, and nobody has taken that back."
            remedy = "A worker that lives does that within seconds: start one, or see their logs for `rescue`."
            bad.append(Finding("claims", Severity.ERROR, message, remedy))
        return unless_any(bad, "claims", f"{counted(running, 'running job')}, each with a worker that answers for it.")

    return Statement(CLAIMS, {"within": _RESCUED_WITHIN}, parse, name="claims")


SLOTS = """
    SELECT (SELECT count(*) FROM (SELECT FROM {schema}.slot LIMIT %(most)s::integer + 1) AS slot),
        (SELECT count(*) FROM (
            SELECT FROM {schema}.slot AS slot
            WHERE NOT coalesce(slot.opens_at > {schema}.clock(), {schema}.is_owned(slot.job, slot.fence))
            LIMIT %(most)s::integer + 1) AS slot)
"""


def slots() -> Statement[list[Finding]]:
    """How many places of limits are nobody's any more. They hold up nobody, and workers sweep them each hour."""

    def parse(rows: Rows) -> list[Finding]:
        all_, left = rows[0]
        message = f"{counted(all_, 'place', _MOST_SLOTS)} of limits, of which {min(left, _MOST_SLOTS):,} are nobody's"
        if left > _MOST_SLOTS:
            remedy = "Workers sweep them each hour: see their logs for `upkeep`."
            return [Finding("slots", Severity.WARNING, f"{message} and were not swept.", remedy)]
        return [Finding("slots", Severity.OK, f"{message} and wait to be swept.")]

    return Statement(SLOTS, {"most": _MOST_SLOTS}, parse, name="slots")
