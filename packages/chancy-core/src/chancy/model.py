"""Plain data: a job before, during and after its life, and a statement before it is sent."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from .limits import Limit
from .retention import Keep
from .retry import Backoff
from .states import State
from .unique import UniqueKey

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)

Rows: TypeAlias = Sequence[tuple[Any, ...]]

MAX_PAYLOAD_BYTES = 16 * 1024**2
"""The largest arguments, and the largest result, of one job."""

LOWEST_PRIORITY, HIGHEST_PRIORITY = -100, 100
LONGEST_DELAY = timedelta(days=36_525)
"""A hundred years. Postgres' instants end in the year 294276, and Python's, which read them back, in 9999."""

WITHOUT_END = datetime(9999, 12, 31, tzinfo=UTC)
"""What is paused until then is paused until somebody resumes it: Postgres' infinity is no datetime of Python's."""


class Statement(msgspec.Struct, Generic[T_co], frozen=True):
    """One round trip: the text with a `{schema}` slot, its parameters, and what its rows mean.

    Every statement returns rows and is always fetched: in pipeline mode `cursor.description` is still None
    when one would want to ask.
    """

    sql: str
    params: Mapping[str, Any]
    parse: Callable[[Rows], T_co]
    adds: Sequence[NewJob[Any]] = ()
    """The jobs that it adds, or that the batch does which it adds, for a backend that reads no SQL."""


@dataclass(frozen=True, slots=True)
class Script:
    """Several statements in one text, without parameters and rows: a migration."""

    sql: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait this long, in seconds, before the next step."""

    seconds: float


Steps: TypeAlias = Generator["Statement[Any] | Script | Pause", Any, T]
"""A verb of several round trips: yields what to do, gets the parsed rows sent back."""


@dataclass(frozen=True, slots=True)
class Queue:
    """A named stream of jobs, and how many of them one worker process runs at a time.

    `keep` is how long its finished jobs are kept, stored in the schema when a worker starts; None leaves what is
    stored.
    """

    name: str = "default"
    concurrency: int = 100
    keep: Keep | None = None

    def __post_init__(self) -> None:
        if not self.name or "\0" in self.name:
            raise ValueError(f"a queue needs a name without NUL, got {self.name!r}")
        if self.concurrency < 1:
            raise ValueError(f"queue {self.name!r} needs a concurrency of at least 1, got {self.concurrency}")


_OPTION_TYPES: dict[str, tuple[type, ...]] = {
    "queue": (str,),
    "priority": (int,),
    "max_attempts": (int,),
    "limits": (tuple, type(None)),
    "run_at": (datetime, type(None)),
    "delay": (timedelta, type(None)),
}


@dataclass(frozen=True, slots=True)
class Options:
    """How and when a job runs: what `@task` sets, and what `using` changes for one submit."""

    queue: str = "default"
    priority: int = 0
    max_attempts: int = 3
    limits: tuple[Limit, ...] | None = None
    """None leaves it to what the task declares where the job runs."""
    retry: Backoff | None = None
    run_at: datetime | None = None
    delay: timedelta | None = None

    def problem(self) -> tuple[str, str] | None:
        """The first option that cannot go into a row, and why."""
        for name, kinds in _OPTION_TYPES.items():
            value: object = getattr(self, name)
            if type(value) is bool or not isinstance(value, kinds):
                return name, f"expected {' or '.join(kind.__name__ for kind in kinds)}, got {value!r}"
        if not self.queue or "\0" in self.queue:
            return "queue", f"expected a name without NUL, got {self.queue!r}"
        if not LOWEST_PRIORITY <= self.priority <= HIGHEST_PRIORITY:
            return "priority", f"expected {LOWEST_PRIORITY} to {HIGHEST_PRIORITY}, got {self.priority}"
        if not 1 <= self.max_attempts <= 32_767:
            return "max_attempts", f"expected 1 to 32767 (the first attempt counts), got {self.max_attempts}"
        if not isinstance(self.retry, (Backoff, type(None))):
            return "retry", "expected a Backoff: what goes into a row is data, a function belongs to @task"
        if not all(isinstance(limit, Limit) for limit in self.limits or ()):
            return "limits", f"expected a list of Limit, got {self.limits!r}"
        if self.run_at is not None and self.run_at.tzinfo is None:
            return (
                "run_at",
                "expected a datetime with a time zone (a naive one means a different instant on each machine)",
            )
        if self.run_at is not None and self.delay is not None:
            return "delay", "give either run_at or delay"
        if self.delay is not None and not -LONGEST_DELAY <= self.delay <= LONGEST_DELAY:
            return "delay", f"expected at most {LONGEST_DELAY.days:,} days, got {self.delay}"
        return None


class NewJob(msgspec.Struct, Generic[R_co], frozen=True):
    """A task with its checked and encoded arguments: one row that is not there yet."""

    task: str
    arguments: bytes
    options: Options
    decode_result: Callable[[bytes], R_co]
    gates: bytes | None = None
    """`Passes` as JSON, if it has to pass any."""
    unique: UniqueKey | None = None


class AttemptError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one attempt went wrong, as kept on the job. The newest ten are kept, oldest first."""

    attempt: int
    kind: str
    message: str = ""
    traceback: str = ""
    worker: str = ""
    started_at: datetime | None = None
    duration: float = 0.0
    """Seconds that the attempt had run."""


class Progress(msgspec.Struct, frozen=True):
    """How far a running job says it is: a fraction from 0 to 1, and a word about it."""

    fraction: float
    note: str = ""


class JobRow(msgspec.Struct, frozen=True, kw_only=True):
    """One job as it is in the database now, live or finished. Instants are UTC, by the database's clock."""

    id: int
    task: str
    queue: str
    state: State
    priority: int
    attempt: int
    max_attempts: int
    crashes: int
    """How many workers died while they ran it."""
    worker: int | None
    submitted_at: datetime
    run_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    arguments: bytes
    """JSON, exactly as submitted."""
    result: bytes | None
    """JSON, exactly as the handler's return value was encoded; None until the job has succeeded, and again once its
    retention is over, if that is shorter than the job's."""
    errors: tuple[AttemptError, ...]
    cancel_at: datetime | None
    """When the end of the running attempt was asked for."""
    progress: Progress | None
    """What the running attempt has said last."""
    unique_key: str | None
    """What makes it unique among the jobs of its task."""
    batch: int | None
    """The batch that it was submitted in."""


class BatchCounts(msgspec.Struct, frozen=True):
    """How the jobs of a batch have ended: what its callbacks are told.

    The rest of the `total` is no longer there: deleted, or past the retention.
    """

    batch: int
    """Its id."""
    total: int = 0
    succeeded: int = 0
    failed: int = 0
    discarded: int = 0
    cancelled: int = 0


class BatchProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs of a batch are where. The instant is UTC, by the database's clock."""

    total: int
    """How many were submitted in it."""
    waiting: int
    """Ready or scheduled."""
    running: int
    succeeded: int
    failed: int
    discarded: int
    cancelled: int
    finished_at: datetime | None
    """When its callbacks were submitted, or would have been; None while a job is live, and for a moment after."""
