"""What workers have done, and how fast: read from what they have counted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias, get_args

from chancy.errors import InvalidOption
from chancy.model import Rows, Statement
from chancy.options.plain import Duration, duration, instant, shown, text, word
from chancy.tally.tally import FINAL, Tallied, percentile
from chancy.verb import verb
from chancy.wires.connections import SyncConn
from chancy.wires.literals import in_seconds

By: TypeAlias = Literal["queue", "task", "queue and task", "nothing"]
"""What the jobs of a row have in common."""
Span: TypeAlias = Literal["minute", "hour", "day"]
"""How long a row of a series is."""

_LENGTHS: Mapping[Span, timedelta] = {
    "minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)
}  # fmt: skip
_BYS: Sequence[By] = get_args(By)
_FOR_SUMS: Sequence[tuple[timedelta, Span]] = ((timedelta(hours=3), "minute"), (timedelta(days=4), "hour"))
"""What sums are made of: minutes for up to so long, or hours, or else days."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How durations are spread, in seconds; each is told to 9 %. None where nothing was measured.

    `mean` is the average; half of them took `p50` or less, 95 of a hundred `p95`, 99 `p99`.
    """

    p50: float | None
    p95: float | None
    p99: float | None
    mean: float | None


@dataclass(frozen=True, slots=True)
class Throughput:
    """What was done in a time, of one queue, of one task, of both or of all. Instants are UTC."""

    since: datetime
    until: datetime
    """Of the time that has not ended, now."""
    queue: str | None
    task: str | None
    outcomes: Mapping[Tallied, int]
    """How many came out so; what is none is left out."""
    wait: Spread
    """From when it was due until it began, of each attempt."""
    run: Spread
    """Of each attempt, however it ended."""
    histograms: Mapping[str, Mapping[int, int]] = field(repr=False)
    """Of `wait` and `run`, by bucket (`chancy.tally`), for whoever adds rows up."""

    @property
    def finished(self) -> int:
        """Jobs that came to their end."""
        return sum(self.outcomes.get(outcome, 0) for outcome in FINAL)

    @property
    def rate(self) -> float:
        """How many of those a second."""
        return self.finished / max((self.until - self.since).total_seconds(), 1.0)

    @property
    def failed(self) -> int:
        """Jobs that have failed for good."""
        return self.outcomes.get(Tallied.FAILED, 0)

    @property
    def errors(self) -> int:
        """Attempts that ended in an error: the last one of a job, one before others, a death of its worker."""
        return sum(self.outcomes.get(each, 0) for each in (Tallied.FAILED, Tallied.RETRIED, Tallied.DIED))


# What belongs together has a number, by which it is grouped: a bucket is added by two small integers, and not by names.
# Nothing is joined, whatever the planner knows of how many there are.
_THROUGHPUT = """
    WITH asked AS MATERIALIZED (
        SELECT date_trunc('{span}', coalesce(%(since)s::timestamptz, {schema}.clock() - %(ago)s::interval), 'UTC')
            AS since, coalesce(%(until)s::timestamptz, 'infinity') AS until, {schema}.clock() AS now
    ),
    each AS MATERIALIZED (
        SELECT dense_rank() OVER (ORDER BY {at}, {queue}, {task}) AS place,
            {at} AS at, {queue} AS queue, {task} AS task, outcome, jobs, waited, ran,
            wait_buckets, wait_counts, run_buckets, run_counts
        FROM (
            SELECT * FROM {table} WHERE at >= (SELECT since FROM asked) AND at < (SELECT until FROM asked)
            UNION ALL
            SELECT * FROM {schema}.tally WHERE at >= (SELECT since FROM asked) AND at < (SELECT until FROM asked)
        ) AS every
        WHERE (%(queue)s::text IS NULL OR every.queue = %(queue)s::text)
            AND (%(task)s::text IS NULL OR every.task = %(task)s::text)
    ),
    number AS (
        SELECT place, min(at) AS at, min(queue) AS queue, min(task) AS task, sum(waited) AS waited, sum(ran) AS ran,
            outcome AS kind, NULL::smallint AS bucket, sum(jobs)::bigint AS n
        FROM each GROUP BY place, outcome
        {histograms}
    )
    SELECT (SELECT since FROM asked), (SELECT least(until, now) FROM asked), min(at), min(queue), min(task),
        sum(waited), sum(ran), array_agg(kind), array_agg(bucket), array_agg(n)
    FROM number
    GROUP BY place
    ORDER BY place
"""

_HISTOGRAMS = """
        UNION ALL
        SELECT place, NULL, NULL, NULL, 0, 0, 'wait', wait.bucket, sum(wait.n)::bigint
        FROM each CROSS JOIN unnest(wait_buckets, wait_counts) AS wait (bucket, n)
        GROUP BY place, wait.bucket
        UNION ALL
        SELECT place, NULL, NULL, NULL, 0, 0, 'run', run.bucket, sum(run.n)::bigint
        FROM each CROSS JOIN unnest(run_buckets, run_counts) AS run (bucket, n)
        GROUP BY place, run.bucket
"""


def _text(span: Span, by: By, *, series: bool, spread: bool = True) -> str:
    pieces = {
        "histograms": _HISTOGRAMS if spread else "",
        "at": "date_trunc('{span}', every.at, 'UTC')" if series else "NULL::timestamptz",
        "queue": "every.queue" if by in ("queue", "queue and task") else "NULL::text",
        "task": "every.task" if by in ("task", "queue and task") else "NULL::text",
        "table": "{schema}.tally_" + span,
        "span": span,
    }
    made = _THROUGHPUT
    for slot, piece in pieces.items():
        made = made.replace("{" + slot + "}", piece)
    return made


THROUGHPUT = {
    (span, by, series): _text(span, by, series=series) for span in _LENGTHS for by in _BYS for series in (False, True)
}
OUTCOMES = _text("minute", "nothing", series=True, spread=False)


@verb
def throughput(
    *,
    since: datetime | Duration = timedelta(hours=1),
    until: datetime | None = None,
    by: By = "queue",
    every: Span | None = None,
    queue: str | None = None,
    task: str | None = None,
    schema: str | None = None,
) -> Statement[list[Throughput]]:
    """What workers have done since then (or so long ago): how many jobs came out how, and how long they waited and ran.

    A row for each queue, task, both, or for all; with `every` a series of them, without the minutes, hours or days in
    which nothing was done. One round trip, which reads no jobs: minutes are there for two days, hours for 35, days (of
    UTC) for 400, and the last ten seconds are on their way. `since` is taken as the begin of its minute; of its hour,
    if it is longer ago than three hours; of its day, if longer than four days; or of its own `every`.
    """
    kind: By = word("by", by, _BYS)
    series: Span | None = None if every is None else word("every", every, _LENGTHS)
    end = None if until is None else instant("until", until)
    began = ago = None
    if isinstance(since, datetime):
        began = instant("since", since)
        length = (end or datetime.now(UTC)) - began
    elif isinstance(since, bool) or not isinstance(since, (timedelta, int, float)):
        raise InvalidOption("since", f"expected a datetime with a time zone, or how long ago, got {shown(since)}")
    else:
        length = duration("since", since, timedelta(0))
        ago = in_seconds(length)
    span: Span = next((span for longest, span in _FOR_SUMS if length <= longest), "day") if series is None else series
    params = {
        "since": began,
        "ago": ago,
        "until": end,
        "queue": None if queue is None else text("queue", queue),
        "task": None if task is None else text("task", task),
    }
    made = THROUGHPUT[span, kind, series is not None]
    return Statement(made, params, lambda rows: _parse(rows, series), name="throughput")


@verb
def minutes(
    since: timedelta, /, *, queue: str | None = None, task: str | None = None, schema: str | None = None
) -> Statement[list[Throughput]]:
    """What came out how, minute by minute since so long ago; without how long it took, of which all but some
    milliseconds of such a look are. One round trip.
    """
    params = {"since": None, "ago": in_seconds(since), "until": None, "queue": queue, "task": task}
    return Statement(OUTCOMES, params, lambda rows: _parse(rows, "minute"), name="minutes")


LATELY = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Lately:
    """What was done in a queue in the last ten minutes."""

    rate: float = 0.0
    """Jobs a second that came to their end."""
    failed: int = 0
    """How many failed for good."""


def lately(conn: SyncConn, *, schema: str) -> defaultdict[str, Lately]:
    """By queue. One round trip."""
    return lately_of(throughput(conn, since=LATELY, by="queue", schema=schema))


def lately_of(rows: Sequence[Throughput]) -> defaultdict[str, Lately]:
    """The same of such rows."""
    return defaultdict(Lately, {str(row.queue): Lately(row.rate, row.failed) for row in rows})


DEPTHS = """
    SELECT at, ready, waiting, scheduled, blocked, running, oldest
    FROM {schema}.depth
    WHERE queue = %(queue)s::text AND at >= {schema}.clock() - %(ago)s::interval
    ORDER BY at
"""


@dataclass(frozen=True, slots=True)
class Depth:
    """How much there was to do in a queue, at a moment. A number of 10,000 stands for that and more."""

    at: datetime
    """UTC."""
    ready: int
    """Due jobs, also those that wait for a limit or for their turn."""
    waiting: int
    """Of the ready ones, those that wait for a limit or for their turn."""
    scheduled: int
    blocked: int
    """By jobs that they need."""
    running: int
    oldest: float | None
    """For how many seconds the longest waiting of the ready ones was due."""


@verb
def depths(queue: str, /, *, since: Duration = timedelta(hours=1), schema: str | None = None) -> Statement[list[Depth]]:
    """How much there was to do in a queue since so long ago, at most once a minute; a minute in which there was nothing
    may be missing. One round trip. Raises `InvalidOption`.
    """
    params = {"queue": text("queue", queue), "ago": in_seconds(duration("since", since, timedelta(0)))}
    return Statement(DEPTHS, params, _parse_depths, name="depths")


def _parse_depths(rows: Rows) -> list[Depth]:
    return [Depth(at.astimezone(UTC), *numbers) for at, *numbers in rows]


def _parse(rows: Rows, series: Span | None) -> list[Throughput]:
    return [_row(row, series) for row in rows]


def _row(row: tuple[Any, ...], series: Span | None) -> Throughput:
    since, until, at, queue, task, waited, ran, kinds, buckets, numbers = row
    if series is not None:
        since, until = at, min(until, at + _LENGTHS[series])
    outcomes: dict[Tallied, int] = {}
    histograms: dict[str, dict[int, int]] = {"wait": {}, "run": {}}
    for kind, bucket, n in zip(kinds, buckets, numbers, strict=True):
        if bucket is not None:
            histograms[kind][bucket] = n
        elif n:
            outcomes[Tallied(kind)] = n
    return Throughput(
        since=since.astimezone(UTC),
        until=until.astimezone(UTC),
        queue=queue,
        task=task,
        outcomes=outcomes,
        wait=_spread(histograms["wait"], waited),
        run=_spread(histograms["run"], ran),
        histograms=histograms,
    )


def _spread(histogram: Mapping[int, int], seconds: float) -> Spread:
    n = sum(histogram.values())
    p50, p95, p99 = (percentile(histogram, fraction) for fraction in (0.5, 0.95, 0.99))
    return Spread(p50, p95, p99, seconds / n if n else None)
