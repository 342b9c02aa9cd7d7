"""What comes, what leaves and what runs: a look and the one before it say how many jobs a second."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime

import msgspec

from chancy.model import Progress, Rows, Statement
from chancy.verb import verb
from chancy.wires.connections import SyncConn

from .overview import QueueRow, WorkerRow, clock, queues, workers
from .tally import lately

RUNNING_SHOWN = 30

# New jobs are those with larger ids than any before: both tables are looked up by their keys. How many have left is not
# counted, since nothing finds the newest of ten million finished jobs: it is what came less what has become more.
FLOW = """
    WITH new AS (
        SELECT queue, count(*) AS new FROM (
            SELECT queue FROM {schema}.job WHERE id > %(newest)s::bigint
            UNION ALL
            SELECT queue FROM {schema}.history WHERE id > %(newest)s::bigint
        ) AS each
        GROUP BY queue
    ),
    live AS (
        SELECT queue, count(*) AS live FROM {schema}.job GROUP BY queue
    )
    SELECT
        greatest((SELECT max(id) FROM {schema}.job), (SELECT max(id) FROM {schema}.history), 0),
        coalesce(json_object_agg(queue, coalesce(live, 0)), '{}'),
        coalesce(json_object_agg(queue, coalesce(new, 0)), '{}')
    FROM live FULL JOIN new USING (queue)
"""


@dataclass(frozen=True, slots=True)
class Flow:
    """What there is at one moment, to be compared with what there is at the next."""

    seen_at: float
    """By the clock that never goes back."""
    newest: int
    """The largest id."""
    live: dict[str, int]
    """By queue."""
    new: dict[str, int]
    """Since the moment before."""

    def rates(self, before: Flow) -> tuple[dict[str, float], dict[str, float]]:
        """Jobs a second that came and that left, by queue. What is requeued comes, what is deleted leaves."""
        seconds = max(self.seen_at - before.seen_at, 0.001)
        came: dict[str, float] = {}
        left: dict[str, float] = {}
        for queue in sorted(self.live | before.live):
            new = self.new.get(queue, 0)
            out = new + before.live.get(queue, 0) - self.live.get(queue, 0)
            came[queue], left[queue] = (new - min(out, 0)) / seconds, max(out, 0) / seconds
        return came, left


@verb
def measure(newest: int | None = None, /, *, schema: str | None = None) -> Statement[Flow]:
    """What there is, and what is newer than that id. One round trip, which reads every live job."""
    return Statement(FLOW, {"newest": newest}, _parse_flow, name="measure")


def _parse_flow(rows: Rows) -> Flow:
    ((found, live, new),) = rows
    return Flow(time.monotonic(), found, _by_queue(live), _by_queue(new))


_by_queue = msgspec.json.Decoder(dict[str, int]).decode


RUNNING = """
    SELECT job.id, job.task, job.queue, job.attempt, worker.name,
        extract(epoch FROM {schema}.clock() - job.started_at)::double precision, job.cancel_at IS NOT NULL,
        convert_to(job.progress::text, 'UTF8')
    FROM {schema}.job AS job
    LEFT JOIN {schema}.worker AS worker ON worker.id = job.worker
    WHERE job.state = 'running'
    ORDER BY job.started_at, job.id
    LIMIT %(most)s::integer
"""


@dataclass(frozen=True, slots=True)
class RunningRow:
    """A job that runs."""

    id: int
    task: str
    queue: str
    attempt: int
    worker: str | None
    seconds: float | None
    cancelling: bool
    progress: Progress | None


@verb
def running(*, schema: str | None = None) -> Statement[list[RunningRow]]:
    """The jobs that run, the longest first, at most 30. One round trip."""
    return Statement(RUNNING, {"most": RUNNING_SHOWN}, _parse_running, name="running")


def _parse_running(rows: Rows) -> list[RunningRow]:
    read = msgspec.json.Decoder(Progress).decode
    return [
        RunningRow(id_, task, queue, attempt, worker, seconds, cancelling, None if said is None else read(said))
        for id_, task, queue, attempt, worker, seconds, cancelling, said in rows
    ]


@dataclass(frozen=True, slots=True)
class Frame:
    """What is seen at one look. Rates are jobs a second since the look before."""

    at: datetime
    flow: Flow
    queues: list[QueueRow]
    submits: dict[str, float]
    completions: dict[str, float]
    failed: dict[str, int]
    """Jobs that failed for good in the last ten minutes, by queue, as workers have counted."""
    running: list[RunningRow]
    workers: list[WorkerRow]


def look(conn: SyncConn, schema: str, before: Flow) -> Frame:
    """One frame, in six round trips; reads every live job."""
    flow = measure(conn, before.newest, schema=schema)
    submits, completions = flow.rates(before)
    return Frame(
        at=clock(conn, schema=schema),
        flow=flow,
        queues=queues(conn, schema=schema),
        submits=submits,
        completions=completions,
        failed={queue: row.failed for queue, row in lately(conn, schema=schema).items()},
        running=running(conn, schema=schema),
        workers=workers(conn, schema=schema),
    )
